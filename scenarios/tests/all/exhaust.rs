//! Stories crashed at every step, their recoveries too, and the bits of their disks flipped; a part
//! of what `lakebed sim exhaust` and `lakebed sim flips` do, small enough for every day.

use crate::forgetful::Forgetful;
use lakebed::Mark;
use lakebed_scenarios::{
    Ask,
    machine::Ledger,
    stories::{FLIPPED, STORIES, Told},
    workload,
};
use lakebed_sim::{
    Failure, Seed, Storm,
    check::{Commands, screen},
    exhaust::{Search, Story, Tried},
    flips::{Bit, Ending, Flipped, Structure},
};
use std::{collections::BTreeSet, ops::ControlFlow};

fn told(name: &str) -> &'static Told {
    STORIES.iter().find(|told| told.scenario.name == name).expect("a story of this name")
}

/// A failure as a run of its own: what to replay is a file that is kept beside it.
fn fail(name: &str, failure: &Failure) -> ! {
    let again = format!("lakebed sim exhaust {name}, then what it prints");
    panic!("{}", screen(name, failure, &Commands(vec![("replay", again)])))
}

/// Every `of`-th step of each node, in a thread of its own.
fn exhaust(name: &str, twice: bool, of: u64) -> Tried {
    exhaust_story(name, &told(name).story(), twice, of)
}

fn exhaust_story(name: &str, story: &Story<Ledger, Ask>, twice: bool, of: u64) -> Tried {
    let tried = std::thread::scope(|scope| {
        let nodes = 0..story.plan.nodes;
        let search = |node| {
            let search = Search::new(node, twice);
            story.search(&search, (0, of), |_| ControlFlow::Continue(()))
        };
        let threads: Vec<_> = nodes.map(|node| scope.spawn(move || search(node))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let tried = tried.into_iter().map(|tried| tried.unwrap_or_else(|bad| fail(name, &bad)));
    tried.fold(Tried::default(), Tried::plus)
}

#[test]
fn a_crash_or_a_failed_operation_at_any_step_is_recovered_from() {
    for (name, of) in [("three_in_turn", 5), ("one_alone", 9), ("failed_syncs", 9)] {
        let tried = exhaust(name, false, of);
        assert!(tried.first > 5 * tried.steps / 2, "{name}: {tried:?}");
        assert!(tried.failed > tried.steps, "{name}: {tried:?}");
    }
}

/// Each of what may become of whole sectors is tried as well, so there is more.
#[test]
fn a_crash_that_tears_sectors_at_any_step_is_recovered_from() {
    let whole = exhaust("one_alone", false, 24);
    let mut story = told("one_alone").story();
    story.plan.geometry.tears = true;
    let torn = exhaust_story("one_alone", &story, false, 24);
    assert_eq!(torn.steps, whole.steps);
    assert!(torn.first > whole.first + torn.steps, "{torn:?}, {whole:?}");
}

#[test]
fn a_second_crash_at_any_step_of_a_recovery_is_recovered_from() {
    let tried = exhaust("three_in_turn", true, 60);
    assert!(tried.second > 3 * tried.first, "{tried:?}");
    assert!(tried.equal > tried.second, "few disks are distinct: {tried:?}");
}

/// All that a disk is used for happens to some node, and most of it to one.
#[test]
fn the_stories_hold_what_they_must() {
    let marks = |name: &str, node| told(name).story().tell(node).unwrap().marks;
    let twice = marks("three_twice", 0);
    let of_one = [
        Mark::ConflictTruncated,
        Mark::CutInsideBlock,
        Mark::Installed,
        Mark::SegmentRecycled,
        Mark::RollWaitedForSpare,
        Mark::DurableHintWritten,
    ];
    assert!(of_one.iter().all(|mark| twice.has(*mark)), "{twice:?}");
    assert!(told("three_twice").story().tell(0).unwrap().operations >= 250);
    let in_turn = marks("three_in_turn", 1);
    assert!([Mark::CutTookSegments, Mark::CutReopenedSegment].iter().all(|m| in_turn.has(*m)));
    assert!(marks("three_in_turn", 0).has(Mark::Installed));
    assert!(marks("one_alone", 0).has(Mark::TailRewritten));
}

/// What fails is told as a plan that names the crash, and fails again from the beginning.
#[test]
fn a_failure_is_a_plan_that_names_its_crash() {
    let Story { plan, .. } = told("one_alone").story();
    // Without its own restart nothing but a crash shows what is wrong with the machine.
    let plan = lakebed_sim::Plan { faults: Vec::new(), ..plan };
    let story = Story { plan, machine: Forgetful::default, workload: workload as Ask };
    let search = Search::new(0, false);
    let found = story.search(&search, (0, 1), |_| ControlFlow::Continue(()));
    let failure = found.expect_err("a machine that forgets");
    assert_eq!(failure.violation.invariant, "state machine safety");
    let plan = failure.report.plan;
    assert_eq!(plan.faults.len(), 1, "{:?}", plan.faults);
    let line = plan.faults[0].to_string();
    assert!(line.starts_with("at 0.000ms power-cut-at node 1 step "), "{line}");
    let again = Storm::new(Seed::of_plan(plan)).run(Forgetful::default, workload as Ask);
    let again = again.expect_err("the same plan");
    assert_eq!(again.violation, failure.violation);
    assert_eq!(again.report.digest, failure.report.digest);
}

/// One bit in some thousands of each node's disk, and some of each structure.
fn sample(bits: &[Bit]) -> Vec<Bit> {
    let mut seen = BTreeSet::new();
    let firsts = bits.iter().filter(|bit| seen.insert((bit.structure, bit.file)));
    let firsts: Vec<Bit> = firsts.copied().collect();
    firsts.into_iter().chain(bits.iter().copied().step_by(4_999)).collect()
}

#[test]
fn a_flipped_bit_is_mended_or_had_from_peers() {
    let flipped = std::thread::scope(|scope| {
        let flips = |node| {
            let story = FLIPPED.story();
            let bits = sample(&story.bits(node));
            story.flips(node, &bits, |_| ControlFlow::Continue(()))
        };
        let threads: Vec<_> = (0..3).map(|node| scope.spawn(move || flips(node))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let mut sum = Flipped::default();
    for flipped in flipped {
        sum.add(&flipped.unwrap_or_else(|failure| fail("every_structure", &failure)));
    }
    let structures: BTreeSet<Structure> = sum.cases.keys().map(|(of, _)| *of).collect();
    assert_eq!(structures.len(), 11, "one of each: {structures:?}");
    let endings: BTreeSet<Ending> = sum.cases.keys().map(|(_, ending)| *ending).collect();
    // With its peers there no node must refuse to start.
    let all = [Ending::Original, Ending::Mended, Ending::FromPeers];
    assert_eq!(endings, all.into(), "{sum:?}");
}
