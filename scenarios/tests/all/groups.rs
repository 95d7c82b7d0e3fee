//! Many groups on a few nodes: storms, and what is promised of those that rest.

use lakebed::Mark;
use lakebed_scenarios::groups::{
    a_leader_of_many_dies, a_leader_of_many_gives_up, idle, members_end_unheard, storm,
};
use lakebed_sim::{
    Seed, check,
    groups::storm as of,
    plan::{Asks, Latency, US, kind_names},
};

/// In a sweep of some length groups rest, wake in each of the ways there are, and are removed; members
/// change, disks fill up, and what is on them rots.
#[test]
fn groups() {
    let reports = check("groups", storm);
    for report in &reports {
        assert!(report.stats.answered >= 20, "seed {}: {:?}", report.seed, report.stats);
        assert!(report.marks.has(Mark::Hibernated), "seed {}: nobody rested", report.seed);
    }
    if reports.len() < 20 {
        return;
    }
    for mark in [Mark::HibernationEnded, Mark::HibernationEndedByLink] {
        assert!(reports.iter().any(|report| report.marks.has(mark)), "{mark:?} was not met");
    }
    assert!(reports.iter().any(|report| report.stats.removals > 0), "no group was removed");
    assert!(reports.iter().any(|report| report.stats.disk_failures > 0), "no engine's disk failed");
    for kind in ["change", "damage", "disk-full", "kill-and-cut"] {
        let number = kind_names().position(|name| name == kind).expect("kinds have names");
        assert!(reports.iter().any(|report| report.stats.faults[number] > 0), "no {kind} struck");
    }
}

#[test]
fn a_hundred_groups_at_rest_have_other_leaders_within_two_timeouts() {
    for seed in 1..=4 {
        let report =
            a_leader_of_many_dies(Seed::new(seed)).unwrap_or_else(|failure| panic!("{failure}"));
        assert!(report.marks.has(Mark::HibernationEndedByLink));
    }
}

#[test]
fn groups_at_rest_that_their_leaders_gave_up_have_others_within_two_timeouts() {
    for seed in 1..=4 {
        let report = a_leader_of_many_gives_up(Seed::new(seed))
            .unwrap_or_else(|failure| panic!("{failure}"));
        assert!(report.marks.has(Mark::HibernationEndedByLink));
    }
}

#[test]
fn groups_at_rest_that_lost_members_unheard_go_on_with_those_who_are_there() {
    for seed in 1..=4 {
        let report =
            members_end_unheard(Seed::new(seed)).unwrap_or_else(|failure| panic!("{failure}"));
        assert!(report.marks.has(Mark::ChangeRefused) && report.marks.has(Mark::HandedOver));
    }
}

#[test]
fn the_same_seed_does_the_same() {
    let digest = || storm(Seed::new(15)).unwrap_or_else(|failure| panic!("{failure}")).digest;
    assert_eq!(digest(), digest());
}

/// While it looks for the smallest plan, the shrinker comes upon one whose faults all strike at once.
#[test]
fn faults_at_the_very_beginning_are_a_plan_as_well() {
    let mut plan = of::plan(&Seed::new(3), 5);
    plan.faults.truncate(1);
    plan.faults[0].at = 0;
    storm(Seed::of_plan(plan)).unwrap_or_else(|failure| panic!("{failure}"));
}

/// And first of all upon one without any: groups came and went on when all was healed and had to be calm,
/// and whatever else had failed that way was shrunk to nothing.
#[test]
fn no_fault_at_all_is_a_plan_as_well() {
    for number in 1..=8 {
        let mut plan = of::plan(&Seed::new(number), 5);
        plan.faults.clear();
        storm(Seed::of_plan(plan)).unwrap_or_else(|failure| panic!("seed {number}: {failure}"));
    }
}

/// Clients that have but a moment between two requests, and hosts that are told nothing.
#[test]
fn a_run_without_an_end_is_a_failure() {
    let mut plan = of::plan(&Seed::new(3), 5);
    plan.clients = vec![Asks::nothing(); 16];
    plan.think = Latency { least: US, tail: 0 };
    let failure = storm(Seed::of_plan(plan)).expect_err("most that happens is no event");
    assert_eq!(failure.violation.invariant, "a run ends");
    assert!(failure.report.stats.events < 200_000, "{:?}", failure.report.stats);
}

/// What nobody came to is no part of a plan that is made small, and each operation can go alone.
#[test]
fn clients_make_the_operations_that_a_plan_leaves_them() {
    let plan = of::plan(&Seed::new(5), 5);
    let first = storm(Seed::of_plan(plan.clone())).unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(first.asked.len(), plan.clients.len());
    assert!(first.asked.iter().all(|asked| *asked > 3), "{:?}", first.asked);
    let with = |asks: &dyn Fn(usize) -> Asks| {
        let mut plan = plan.clone();
        plan.clients = (0..plan.clients.len()).map(asks).collect();
        storm(Seed::of_plan(plan)).unwrap_or_else(|failure| panic!("{failure}"))
    };
    // Once everything is healed all are made that come.
    let same = with(&|client| (1..=first.asked[client]).collect());
    assert_eq!(same.digest, first.digest);
    let fewer = with(&|client| (1..=first.asked[client]).filter(|n| n % 4 == 0).collect());
    let none = with(&|_| Asks::nothing());
    let [all, few, none] = [first, fewer, none].map(|report| report.stats.requests);
    assert!(none < few && few < all, "{none}, {few}, {all} requests");
}

/// The one thing that idle groups cost is the beat of their nodes: as many as of one group.
#[test]
fn idle_groups_at_rest_send_nothing() {
    let [one, many] =
        [1, 50].map(|groups| idle(groups, true).unwrap_or_else(|why| panic!("{why}")));
    assert_eq!((one.messages, many.messages), (0, 0));
    // Three nodes, each beats to two others, ten times in each of ten seconds.
    assert_eq!((one.beats, many.beats), (600, 600));
    assert_eq!(one.bytes, many.bytes);
    let awake = idle(50, false).unwrap_or_else(|why| panic!("{why}"));
    assert!(awake.messages >= 50 * 2 * 2 * 90, "{}", awake.messages);
}
