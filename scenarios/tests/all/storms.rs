//! Storms: a cluster under load, faults and crashes, then healed.

use lakebed::Mark;
use lakebed_scenarios::{Ask, machine::Ledger, scenario, storm, workload};
use lakebed_sim::{Report, Seed, Storm, check, plan::kind_names};

/// What makes a sweep a storm: enough happened in each run, and in a sweep of some length each
/// rare thing in some.
fn assert_stormy(reports: &[Report]) {
    for report in reports {
        let (seed, stats, targets) = (report.seed, report.stats, report.plan.targets);
        assert!(stats.events >= targets.events, "seed {seed}: {} events", stats.events);
        assert!(stats.answered >= targets.answers, "seed {seed}: {} operations", stats.answered);
        assert!(
            stats.crashes_with_writes_pending >= targets.crashes,
            "seed {seed}: {} of {} crashes with sectors pending",
            stats.crashes_with_writes_pending,
            stats.crashes
        );
    }
    if reports.len() < 20 {
        return;
    }
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    assert!(sum(|report| report.stats.snapshots) > 0, "no run took a snapshot");
    assert!(sum(|report| report.stats.compactions) > 0, "no run compacted a log");
    assert!(sum(|report| report.stats.kills) > 0, "no run killed a process");
}

#[test]
fn storm_of_one() {
    assert_stormy(&check("storm_of_one", |seed| storm(seed, 1)));
}

#[test]
fn storm_of_three() {
    assert_stormy(&check("storm_of_three", |seed| storm(seed, 3)));
}

#[test]
fn storm_of_five() {
    let five = scenario("storm_of_five").expect("it is one of them");
    assert_stormy(&check("storm_of_five", five.run));
}

#[test]
fn storm_of_installs() {
    let installs = scenario("storm_of_installs").expect("it is one of them");
    let reports = check("storm_of_installs", installs.run);
    assert_stormy(&reports);
    let met = |mark| reports.iter().any(|report| report.marks.has(mark));
    assert!(reports.len() < 20 || met(Mark::Installed), "no run installed a snapshot");
    let unheard = kind_names().position(|name| name == "unheard-failure").expect("it is a kind");
    let failed = reports.iter().map(|report| report.stats.faults[unheard]).sum::<u64>();
    assert!(reports.len() < 20 || failed > 0, "no sync of a snapshot failed unheard");
}

#[test]
fn storm_of_leases() {
    let leases = scenario("storm_of_leases").expect("it is one of them");
    let reports = check("storm_of_leases", leases.run);
    assert_stormy(&reports);
    let met = |mark| reports.iter().any(|report| report.marks.has(mark));
    assert!(met(Mark::LeaseRead) && met(Mark::LeaseMissed), "no run read under leases");
}

/// Clients ask again: in a sweep of some length all that can become of that does, also to tables
/// that were installed.
#[test]
fn storm_of_sessions() {
    let sessions = scenario("storm_of_sessions").expect("it is one of them");
    let reports = check("storm_of_sessions", sessions.run);
    assert_stormy(&reports);
    let met = |mark| reports.iter().any(|report| report.marks.has(mark));
    let rare = [
        Mark::SessionRetryAnswered,
        Mark::SessionAnswerForgotten,
        Mark::SessionOutOfOrder,
        Mark::SessionExpired,
        Mark::SessionEvicted,
        Mark::Installed,
    ];
    let unmet: Vec<_> = rare.into_iter().filter(|mark| !met(*mark)).collect();
    assert!(reports.len() < 20 || unmet.is_empty(), "no run met {unmet:?}");
}

/// Members come and go: in a sweep of some length changes are made, and nodes leave.
#[test]
fn churn() {
    let churn = scenario("churn").expect("it is one of them");
    let reports = check("churn", churn.run);
    assert_stormy(&reports);
    let removals = reports.iter().map(|report| report.stats.removals).sum::<u64>();
    let change = kind_names().position(|name| name == "change").expect("it is a kind of fault");
    let changes = reports.iter().map(|report| report.stats.faults[change]).sum::<u64>();
    if reports.len() >= 20 {
        let enough = changes as usize > reports.len() / 2 && removals as usize > reports.len() / 8;
        assert!(enough, "{changes} changes, {removals} removals in {} runs", reports.len());
    }
}

/// Who comes is sent a snapshot of many blocks, and what is written meanwhile waits behind it.
#[test]
fn churn_of_installs() {
    let installs = scenario("churn_of_installs").expect("it is one of them");
    let reports = check("churn_of_installs", installs.run);
    assert_stormy(&reports);
    let met = |mark| reports.iter().any(|report| report.marks.has(mark));
    let is_met = met(Mark::Installed) && met(Mark::AppendWaited);
    assert!(reports.len() < 20 || is_met, "no run wrote behind a snapshot");
}

/// A disk of which a sync of a file keeps names as well is another one, where power fails: in some storms.
#[test]
fn a_sync_that_keeps_names_leaves_other_disks() {
    let told = |seed: u64, sync_names: bool| {
        let storm = Storm::new(Seed::new(seed)).nodes(1);
        let storm = storm.with(|plan| plan.geometry.sync_names = sync_names);
        storm.run(Ledger::default, workload as Ask).expect("it ends well").digest
    };
    let differ = (0..8).filter(|seed| told(*seed, false) != told(*seed, true)).count();
    assert!(differ > 0, "no storm of eight lost a name that a sync had kept");
}

/// Damage that no cluster is promised to live through: no wrong answer, whoever still serves.
#[test]
fn beyond_the_budget() {
    let ruin = scenario("beyond_the_budget").expect("it is one of them");
    let reports = check("beyond_the_budget", ruin.run);
    let beyond = [
        "ruin",
        "rot",
        "lost-write",
        "misdirected-write",
        "misfiled-write",
        "lost-names",
        "late-report",
        "misdirected-read",
        "old-image",
        "disk-gone",
    ];
    for kind in beyond {
        let number = kind_names().position(|name| name == kind).expect("it is a kind of fault");
        let struck = reports.iter().map(|report| report.stats.faults[number]).sum::<u64>();
        assert!(reports.len() < 20 || struck > 0, "no {kind} struck in {} runs", reports.len());
    }
}

/// Bad blocks behind good ones, where a state has many, and while it is sent.
#[test]
fn ruin_of_installs() {
    let ruin = scenario("ruin_of_installs").expect("it is one of them");
    let reports = check("ruin_of_installs", ruin.run);
    let met = |mark| reports.iter().any(|report| report.marks.has(mark));
    let is_made_up_for = met(Mark::OlderSnapshotUsed) || met(Mark::SnapshotLost);
    let is_met = met(Mark::Installed) && is_made_up_for;
    assert!(reports.len() < 20 || is_met, "no snapshot was bad and made up for");
}
