//! A log that is lost at the hard moment: while what was in it is committed by nothing else, and until
//! just before its node is needed to elect a leader.

use lakebed::{File, Mark};
use lakebed_scenarios::telling::{Cluster, Told, tell};
use lakebed_sim::{
    Op, Violation,
    disk::Survivors,
    plan::{FaultKind, Harm, MS, Plan},
    storm::{converge, leader, run_for, run_until, serve, write},
};
use std::time::Duration;

/// A log in one segment and no snapshots: who loses that file has lost everything. A leader that cannot write
/// leads on for a while.
fn plan(seed: u64) -> Plan {
    let mut plan = Plan::calm(seed, 3);
    plan.tuning.snapshot_log_bytes = 0;
    plan.segment_bytes = 1 << 20;
    plan.tuning.election = (Duration::from_millis(600), Duration::from_millis(900));
    plan
}

/// The log of a node is gone when it starts again, which it does at once.
fn lose_log(world: &mut Cluster, node: usize) -> Told {
    let files: Vec<File> = world.disk(node).list().map(|(file, _)| file).collect();
    let log = files.iter().position(|file| matches!(file, File::Segment(_)));
    let pick = log.expect("it has a log") as u64;
    world.strike(&FaultKind::Ruin { node, harm: Harm::Gone, pick, down: MS })
}

fn is_gated(world: &Cluster, node: usize) -> bool {
    world.probe(node).is_some_and(|probe| probe.gated)
}

/// The leader, and one that follows it; the third is away.
fn without_the_third(world: &mut Cluster) -> Result<[usize; 3], Violation> {
    serve(world)?;
    run_for(world, 30 * MS)?;
    let old = leader(world).expect("a cluster that serves has a leader");
    let (node, third) = ((old + 1) % 3, (old + 2) % 3);
    world.isolate(third, false);
    Ok([old, node, third])
}

/// The leader's disk hangs, and one other holds what was written; it loses it, and says so. The leader's disk goes
/// on: of three that disk alone holds it, and nothing is committed until the other one has it again.
#[test]
fn what_a_gated_node_has_lost_commits_nothing() {
    for seed in 0..40 {
        tell("what_a_gated_node_has_lost_commits_nothing", plan(seed), |world| {
            let [old, node, third] = without_the_third(world)?;
            world.hang_disk(old);
            world.request(old, Op::Propose(vec![1; 40]))?;
            let durable = |world: &Cluster, node| world.probe(node).map(|probe| probe.durable);
            let is_ahead = |world: &Cluster| durable(world, node) > durable(world, old);
            run_until(world, 100 * MS, "an entry that one other holds alone", is_ahead)?;
            // That it does is on its way to the leader.
            run_for(world, 5 * MS)?;
            lose_log(world, node)?;
            run_until(world, 100 * MS, "a gate", |world| is_gated(world, node))?;
            // It answers, and holds nothing anew.
            world.hang_disk(node);
            run_for(world, 150 * MS)?;
            let before = world.acknowledged();
            world.release_disk(old);
            run_for(world, 20 * MS)?;
            assert_eq!(world.acknowledged(), before, "one disk of three has it");
            world.release_disk(node);
            write(world, b"with two")?;
            run_until(world, 2_000 * MS, "a node that votes again", |world| {
                !is_gated(world, node)
            })?;
            world.readmit(third);
            serve(world)?;
            converge(world)
        });
    }
}

/// The last entry is held by the leader and by one who loses all of its log. As soon as that one votes again the
/// leader dies: it is elected, or nobody is, and the entry is there.
#[test]
fn a_gate_opens_when_the_last_entry_is_there_again() {
    for seed in 0..40 {
        let mut plan = plan(seed);
        // An append holds one large command, and one append is on its way.
        plan.tuning.append_bytes_max = 2 << 10;
        plan.tuning.inflight_bytes_max = 2 << 10;
        tell("a_gate_opens_when_the_last_entry_is_there_again", plan, |world| {
            world.dismiss_clients();
            let [old, node, third] = without_the_third(world)?;
            for n in 0..4 + seed as u8 % 4 {
                write(world, &[n; 1_500])?;
            }
            lose_log(world, node)?;
            run_until(world, 100 * MS, "a gate", |world| is_gated(world, node))?;
            let is_open = |world: &Cluster| world.marks_of(node).has(Mark::GateCleared);
            run_until(world, 1_000 * MS, "a node that votes again", is_open)?;
            world.cut_power(old, Survivors::All);
            world.readmit(third);
            write(world, b"without the leader")?;
            world.restart(old);
            converge(world)
        });
    }
}
