//! What the world does to a cluster, tried on the smallest machine there is.

use super::*;
use crate::{
    client::Op,
    disk::{Survivors, Victim},
    plan::{FaultKind, MS, Moment},
    prng::Draw,
    storm::{converge, leader, run_for, run_until, serve},
};
use lakebed::{DiskError, LogId, MachineError, Timestamp};
use std::cell::Cell;

thread_local! {
    /// After so many commands a machine answers one of them wrongly.
    static WRONG_AFTER: Cell<u64> = const { Cell::new(u64::MAX) };
}

/// Counts.
#[derive(Clone, Default)]
struct Count(u64);

impl StateMachine for Count {
    fn apply(&mut self, _: LogId, _: Timestamp, _: &[u8], answer: &mut Vec<u8>) {
        self.0 += 1;
        self.query(&[], answer);
        let left = WRONG_AFTER.get();
        WRONG_AFTER.set(left.checked_sub(1).unwrap_or(u64::MAX));
        if left == 0 {
            answer.push(0);
        }
    }

    fn query(&self, _: &[u8], answer: &mut Vec<u8>) {
        answer.extend_from_slice(&self.0.to_le_bytes());
    }

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        let state = self.0.to_le_bytes();
        let pieces = [&state[..3], &[], &state[3..5], &state[5..]].map(Bytes::copy_from_slice);
        Box::new(pieces.into_iter())
    }

    fn restore(&mut self, _: u64, bytes: &[u8], _: bool) -> Result<(), MachineError> {
        let state = bytes.try_into().map_err(|_| MachineError("not a count".into()))?;
        self.0 = u64::from_le_bytes(state);
        Ok(())
    }
}

type Cluster = World<Count, fn(&mut Draw) -> Op>;

fn writes(draw: &mut Draw) -> Op {
    Op::Propose(vec![7; draw.between(1, 200) as usize])
}

fn cluster(seed: u64) -> Cluster {
    World::new(Plan::calm(seed, 3), Count::default, writes)
}

/// Storm of five, seed 102, cut the power of all nodes for ever, and the sweep said nothing.
#[test]
fn a_run_without_an_end_is_a_failure() {
    let mut world = cluster(1);
    world.limit(500);
    let violation = run_for(&mut world, 3_600_000 * MS).expect_err("more happens in an hour");
    assert_eq!(violation.invariant, "a run ends");
    assert!((200..=500).contains(&world.stats().events), "{} events", world.stats().events);
}

/// Whatever broke while a node caught up was forgotten, as there was progress: what was told in the end,
/// if anything, was that the node waited in vain for what it was owed.
#[test]
fn what_breaks_while_nodes_become_one_log_is_told() -> Checked {
    let mut plan = Plan::calm(1, 3);
    plan.tuning.append_bytes_max = 1 << 10;
    plan.tuning.inflight_bytes_max = 1 << 10;
    let mut world: Cluster = World::new(plan, Count::default, writes);
    serve(&mut world)?;
    let late = (leader(&world).expect("it serves") + 1) % 3;
    world.isolate(late, false);
    run_for(&mut world, 300 * MS)?;
    world.dismiss_clients();
    run_for(&mut world, 100 * MS)?;
    let applied = |world: &Cluster| world.probe(late).map_or(0, |probe| probe.applied.0);
    let before = applied(&world);
    assert!(world.acknowledged().0 > before + 80, "it lags by too little");
    world.heal();
    WRONG_AFTER.set(40);
    let violation = converge(&mut world).expect_err("a machine answers wrongly");
    assert_eq!(violation.invariant, "state machine safety", "{violation}");
    assert!(applied(&world) > before, "nothing was applied before it");
    Ok(())
}

/// A plan's bit of 2^64 - 1 made the file as long as that, and ended the process.
#[test]
fn no_bit_flips_behind_a_file() -> Checked {
    let mut world = cluster(1);
    serve(&mut world)?;
    let file = lakebed::File::HardState;
    let len = world.disk(0).content(file).expect("every node has one").len() as u64;
    let number = crate::plan::kind_names().position(|name| name == "flip").expect("it is a kind");
    for bit in [u64::MAX, len * 8] {
        world.strike(&FaultKind::Flip { node: 0, file, bit, down: MS })?;
        assert_eq!(world.stats().faults[number], 0, "bit {bit}");
        run_for(&mut world, 100 * MS)?;
    }
    let text =
        "lakebed plan 1\nseed 1\nnodes 3\nat 1ms flip node 1 file hard-state bit 4104 down 1ms\n";
    let inside = text.parse::<crate::plan::PlanFile>().expect("it is a plan").plan;
    world.strike(&inside.faults[0].kind)?;
    assert_eq!(world.stats().faults[number] + world.stats().untold, 1);
    converge(&mut world)
}

/// The sum of what is allowed was a number too large.
#[test]
fn what_a_plan_allows_may_be_as_much_as_numbers_are() -> Checked {
    let mut plan = Plan::calm(1, 3);
    plan.tuning.cache_bytes_max = u64::MAX;
    plan.tuning.propose_bytes_max = u64::MAX;
    plan.targets.events = u64::MAX;
    plan.validate().expect("it can be run");
    assert_eq!(crate::storm::happen_max(&plan), u64::MAX);
    let mut world: Cluster = World::new(plan, Count::default, writes);
    serve(&mut world)?;
    converge(&mut world)
}

fn cut(nodes: &[usize], down: u64) -> FaultKind {
    let (moment, survivors) = (Moment::Pending, Survivors::Random);
    FaultKind::PowerCut { nodes: nodes.to_vec(), moment, survivors, rot: None, down }
}

/// Storms of three, seeds 205285 and others: a cut was armed while all of its machines were down
/// for longer than it waits, fell on nobody, and whoever counted on it waited for ever.
#[test]
fn an_armed_cut_is_not_spent_on_machines_that_are_down() -> Checked {
    let mut world = cluster(1);
    serve(&mut world)?;
    world.strike(&cut(&[0, 1, 2], 500 * MS))?;
    run_until(&mut world, 100 * MS, "the first cut", |world| world.stats().crashes == 3)?;
    world.strike(&cut(&[0, 1, 2], MS))?;
    run_until(&mut world, 1_000 * MS, "the second cut", |world| world.stats().crashes == 6)?;
    serve(&mut world)?;
    converge(&mut world)
}

#[test]
fn two_cuts_that_wait_for_the_same_moment_both_strike() -> Checked {
    let mut world = cluster(2);
    serve(&mut world)?;
    run_until(&mut world, 100 * MS, "a quiet disk", |world| !world.disk(0).has_pending_sectors())?;
    world.strike(&cut(&[0], 10 * MS))?;
    world.strike(&cut(&[0], 10 * MS))?;
    run_for(&mut world, 200 * MS)?;
    assert_eq!(world.stats().crashes_with_writes_pending, 2);
    serve(&mut world)
}

/// Runs a world a little further, through a crash of everything.
fn end(mut world: Cluster) -> Result<(u64, Stats), Violation> {
    run_for(&mut world, 20 * MS)?;
    world.strike(&cut(&[0, 1, 2], MS))?;
    run_for(&mut world, 300 * MS)?;
    Ok((world.digest(), world.stats()))
}

#[test]
fn a_clone_does_what_the_world_would_have_done() -> Checked {
    let mut plan = Plan::calm(3, 3);
    plan.tuning.snapshot_log_bytes = 8 << 10;
    let mut world: Cluster = World::new(plan, Count::default, writes);
    serve(&mut world)?;
    run_for(&mut world, 100 * MS)?;
    let left = |node: &Node<Count>| node.runner.machine.view.as_ref().map_or(0, |v| v.1.len());
    let capturing = |world: &Cluster| world.nodes.iter().any(|node| (1..4).contains(&left(node)));
    run_until(&mut world, 1_000 * MS, "half a snapshot", capturing)?;
    for _ in 0..5 {
        let clone = world.clone();
        let further = clone.clone();
        assert_eq!(end(world)?, end(clone)?);
        world = further;
        run_for(&mut world, 3 * MS)?;
    }
    Ok(())
}

#[test]
fn a_hung_disk_ends_nothing_until_it_is_released() -> Checked {
    let mut world = cluster(4);
    serve(&mut world)?;
    let node = leader(&world).expect("a cluster that serves has a leader");
    world.hang_disk(node);
    run_for(&mut world, 5 * MS)?;
    let durable = world.probe(node).map(|probe| probe.durable);
    run_for(&mut world, 2_000 * MS)?;
    assert_eq!(world.probe(node).map(|probe| probe.durable), durable);
    assert_ne!(leader(&world), Some(node), "its own disk is stuck: others lead");
    world.kill(node);
    world.restart(node);
    run_for(&mut world, 500 * MS)?;
    assert!(!world.probe(node).is_some_and(|probe| probe.judged), "it cannot read its disk");
    world.heal();
    serve(&mut world)?;
    converge(&mut world)
}

#[test]
fn a_process_that_stood_still_loses_its_role_and_nothing_else() -> Checked {
    let mut world = cluster(5);
    serve(&mut world)?;
    let node = leader(&world).expect("a cluster that serves has a leader");
    let before = world.probe(node);
    world.pause(node, 700 * MS);
    run_for(&mut world, 600 * MS)?;
    assert_eq!(world.probe(node), before);
    assert_ne!(leader(&world), Some(node));
    run_for(&mut world, 300 * MS)?;
    serve(&mut world)?;
    converge(&mut world)
}

#[test]
fn wall_clocks_that_are_set_do_no_harm() -> Checked {
    let mut world = cluster(6);
    serve(&mut world)?;
    for (node, hours) in [(0, -30), (1, 200), (2, -5), (0, 90), (1, -400)] {
        world.step_wall_clock(node, hours * 3_600_000 * MS as i64);
        run_for(&mut world, 50 * MS)?;
        world.strike(&cut(&[(node + 1) % 3], MS))?;
    }
    run_for(&mut world, 300 * MS)?;
    serve(&mut world)?;
    converge(&mut world)
}

#[test]
fn short_writes_and_half_created_files_are_survived() -> Checked {
    for seed in 0..40 {
        let mut plan = Plan::calm(seed, 3);
        plan.tuning.snapshot_log_bytes = 8 << 10;
        let mut world: Cluster = World::new(plan, Count::default, writes);
        serve(&mut world)?;
        let errors = [DiskError::Full, DiskError::Io { errno: crate::disk::EIO }];
        for (node, (victim, error)) in [Victim::Write, Victim::Create]
            .into_iter()
            .flat_map(|victim| errors.map(|error| (victim, error)))
            .enumerate()
        {
            world.fail_next(node % 3, victim, error);
            run_for(&mut world, 60 * MS)?;
            world.strike(&cut(&[node % 3], MS))?;
            run_for(&mut world, 60 * MS)?;
        }
        assert!(world.stats().disk_failures >= 2, "{:?}", world.stats());
        world.heal();
        serve(&mut world)?;
        converge(&mut world)?;
    }
    Ok(())
}
