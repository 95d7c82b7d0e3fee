//! What has gone bad on the disk of a node that runs is found by reading it again, and given again by
//! the others, before a restart needs it.

use lakebed::Mark;
use lakebed_scenarios::telling::{Cluster, tell};
use lakebed_sim::{
    Violation,
    plan::{MS, Plan},
    storm::{converge, leader, run_for, run_until, serve},
};
use std::time::Duration;

fn has(world: &Cluster, node: usize, mark: Mark) -> bool {
    world.marks_of(node).has(mark)
}

/// A log that is kept: nobody takes a snapshot, and nobody lags so that entries would be read.
fn kept(seed: u64, scrub_interval: Duration) -> Plan {
    let mut plan = Plan::calm(seed, 3);
    plan.tuning.snapshot_log_bytes = 0;
    plan.segment_bytes = 16 << 10;
    plan.tuning.append_bytes_max = 4 << 10;
    plan.tuning.scrub_interval = scrub_interval;
    plan
}

/// Serves until its log has a full segment, and lets some of its entries go bad: of the leader, or of
/// a follower.
fn rots(world: &mut Cluster, leads: bool, pick: u64) -> Result<usize, Violation> {
    serve(world)?;
    let leader = leader(world).expect("a cluster that serves has a leader");
    let node = if leads { leader } else { (leader + 1) % 3 };
    while !world.rot_running(node, pick) {
        run_for(world, 10 * MS)?;
    }
    Ok(node)
}

#[test]
fn what_goes_bad_while_a_node_runs_is_found_and_given_again() {
    for seed in 0..40 {
        let name = "what_goes_bad_while_a_node_runs_is_found_and_given_again";
        tell(name, kept(seed, Duration::from_millis(100)), |world| {
            let node = rots(world, seed % 2 == 0, seed)?;
            let is_found = |world: &Cluster| has(world, node, Mark::ScrubFoundBadEntry);
            run_until(world, 2_000 * MS, "a bad entry that is found", is_found)?;
            let is_whole = |world: &Cluster| has(world, node, Mark::HoleFilled);
            run_until(world, 2_000 * MS, "an entry that is there again", is_whole)?;
            converge(world)
        });
    }
}

/// Its machine holds what the entry did: it goes on, and says what is to be done.
#[test]
fn who_is_alone_goes_on_and_says_so() {
    for seed in 0..40 {
        let mut plan = kept(seed, Duration::from_millis(100));
        plan.nodes = 1;
        plan.drift_ppm.truncate(1);
        tell("who_is_alone_goes_on_and_says_so", plan, |world| {
            let node = rots(world, true, seed)?;
            let is_found = |world: &Cluster| has(world, node, Mark::ScrubFoundBadEntry);
            run_until(world, 2_000 * MS, "a bad entry that is found", is_found)?;
            run_for(world, 200 * MS)?;
            serve(world)?;
            assert!(world.probe(node).is_some_and(|probe| probe.ready));
            Ok(())
        });
    }
}

/// Without it nobody notices: that is what the test above rests on.
#[test]
fn without_a_scrub_it_is_found_by_nobody() {
    for seed in 0..40 {
        let name = "without_a_scrub_it_is_found_by_nobody";
        tell(name, kept(seed, Duration::ZERO), |world| {
            let node = rots(world, seed % 2 == 0, seed)?;
            run_for(world, 400 * MS)?;
            let late = [Mark::ScrubFoundBadEntry, Mark::LogScrubbed, Mark::HoleFoundLate];
            assert!(late.iter().all(|mark| !has(world, node, *mark)));
            converge(world)
        });
    }
}
