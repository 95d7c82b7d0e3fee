//! What is written while a snapshot is on its way to a node: it goes there too, waits, and follows
//! the snapshot at once. Nothing rests on it before, whoever dies, leads or says otherwise meanwhile.

use lakebed::{File, LogIndex, Mark};
use lakebed_scenarios::{
    machine::Ledger,
    telling::{Cluster, Told, tell_of, what_if},
};
use lakebed_sim::{
    Violation,
    disk::Survivors,
    plan::{MS, Plan, US},
    storm::{converge, leader, run_for, run_until, serve},
};
use std::cell::Cell;

/// Bytes of a snapshot.
const HEAVY: u64 = 150_000;
/// Bytes of snapshots in a second: one takes a third of that.
const SLOW: u64 = 448 << 10;

fn heavy() -> Ledger {
    Ledger::heavy(HEAVY as usize)
}

/// Nothing is kept for members, and a snapshot takes its time.
fn plan(seed: u64, nodes: usize) -> Plan {
    let mut plan = Plan::calm(seed, nodes);
    plan.tuning.snapshot_log_bytes = 8 << 10;
    plan.tuning.retain_log_bytes = 0;
    plan.tuning.transfer_bytes_per_second = SLOW;
    plan.tuning.append_bytes_max = 2 << 10;
    plan.tuning.inflight_bytes_max = 8 << 10;
    plan.tuning.cache_bytes_max = 1 << 20;
    plan.segment_bytes = 32 << 10;
    plan
}

fn last(world: &Cluster, node: usize) -> LogIndex {
    world.probe(node).map_or(LogIndex(0), |probe| probe.last.index)
}

fn has(world: &Cluster, node: usize, mark: Mark) -> bool {
    world.marks_of(node).has(mark)
}

/// How much of a snapshot that is not whole lies on a node's disk.
fn part_bytes(world: &Cluster, node: usize) -> u64 {
    let of_part = |(file, len): (File, u64)| matches!(file, File::Part(..)).then_some(len);
    world.disk(node).list().filter_map(of_part).max().unwrap_or(0)
}

/// A cluster whose leader sends a snapshot to a node that was away; so much of it is there.
fn in_the_midst(world: &mut Cluster, least: u64) -> Result<(usize, usize), Violation> {
    serve(world)?;
    run_for(world, 50 * MS)?;
    let leader = leader(world).expect("a cluster that serves has a leader");
    let node = (leader + 1) % world.nodes();
    let had = last(world, node);
    world.cut_power(node, Survivors::All);
    let is_gone =
        |world: &Cluster| world.probe(leader).is_some_and(|probe| probe.first > had.next());
    run_until(world, 5_000 * MS, "a log without what the node needs", is_gone)?;
    world.restart(node);
    run_until(world, 5_000 * MS, "a part of a snapshot", |world| part_bytes(world, node) > least)?;
    Ok((leader, node))
}

fn heals(world: &mut Cluster) -> Told {
    let down: Vec<_> = (0..world.nodes()).filter(|node| world.probe(*node).is_none()).collect();
    down.into_iter().for_each(|node| world.restart(node));
    world.heal();
    serve(world)?;
    converge(world)
}

/// What was written while the snapshot was on its way is there as soon as the disk has taken it: were
/// it sent when the snapshot is in, the node would be level after 78 ms in the worst of these runs.
#[test]
fn a_node_is_level_soon_after_its_snapshot_is_in() {
    let mut latest = 0;
    for seed in 0..12 {
        let mut plan = plan(seed, 3);
        plan.clients.resize(12, plan.clients[0].clone());
        let took = Cell::new(0);
        tell_of("a_node_is_level_soon_after_its_snapshot_is_in", &plan, heavy, |world| {
            let (leader, node) = in_the_midst(world, 0)?;
            let before = last(world, leader);
            run_until(world, 5_000 * MS, "the install", |world| has(world, node, Mark::Installed))?;
            let (began, level) = (world.now(), last(world, leader));
            assert!(level.0 > before.0 + 500, "no load: {before} to {level}");
            let is_level =
                |world: &Cluster| world.probe(node).is_some_and(|probe| probe.durable >= level);
            run_until(world, 5_000 * MS, "a node that is level", is_level)?;
            assert!(has(world, node, Mark::AppendWaited));
            took.set((world.now() - began) / US);
            heals(world)
        });
        latest = latest.max(took.get());
    }
    println!("level within {latest} us of the install");
    assert!(latest < 30_000, "level after {latest} us: what was written meanwhile came late");
}

/// The power fails at each operation of the receiver's disk while the snapshot comes and what follows
/// it waits, is taken and written; whatever survives.
#[test]
fn a_power_cut_at_every_disk_operation_of_it_is_recovered_from() {
    let (before, after) = (Cell::new(0), Cell::new(0));
    for seed in 0..4_u64 {
        let name = "a_power_cut_at_every_disk_operation_of_it_is_recovered_from";
        tell_of(name, &plan(seed, 3), heavy, |world| {
            let (_, node) = in_the_midst(world, 0)?;
            let begun = world.disk_operations(node);
            for operation in 0..35 {
                run_until(world, 5_000 * MS, "the operation", |world| {
                    world.disk_operations(node) >= begun + operation
                })?;
                let counted = if has(world, node, Mark::AppendWaited) { &after } else { &before };
                counted.update(|runs| runs + 1);
                let survivors = Survivors::ALL[(seed * 35 + operation) as usize % 7];
                what_if(world, |world| {
                    world.cut_power(node, survivors);
                    world.restart(node);
                    heals(world)
                })?;
            }
            Ok(())
        });
    }
    let (before, after) = (before.get(), after.get());
    println!("{before} before, {after} after");
    assert!(before > 30 && after > 30, "{before} before, {after} after");
}

/// A leader that others have left goes on to send what nobody will commit: it waits behind the
/// snapshot, and never comes into the log, for the next leader has other entries there.
#[test]
fn what_waits_of_a_deposed_leader_is_forgotten() {
    let installed = Cell::new(0);
    for seed in 0..8 {
        tell_of("what_waits_of_a_deposed_leader_is_forgotten", &plan(seed, 5), heavy, |world| {
            let (leader, node) = in_the_midst(world, HEAVY * 3 / 4)?;
            let side: Vec<bool> = (0..5).map(|n| n == leader || n == node).collect();
            for apart in (seed..40).step_by(8) {
                what_if(world, |world| {
                    world.partition(&side, true, apart / 8 % 2 == 0);
                    run_for(world, (10 + apart * 3) * MS)?;
                    installed.update(|runs| runs + u32::from(has(world, node, Mark::Installed)));
                    world.rejoin();
                    heals(world)
                })?;
            }
            Ok(())
        });
    }
    let installed = installed.get();
    assert!(
        (1..40).contains(&installed),
        "{installed} of 40 installs ended before the others came"
    );
}

/// The leader goes at any time, by a power cut or alone: another one sends another snapshot, and what
/// follows that.
#[test]
fn a_leader_that_goes_takes_nothing_with_it() {
    for seed in 0..10_u64 {
        tell_of("a_leader_that_goes_takes_nothing_with_it", &plan(seed, 3), heavy, |world| {
            let (leader, node) = in_the_midst(world, seed * HEAVY / 10)?;
            for later in (seed..60).step_by(10) {
                what_if(world, |world| {
                    run_for(world, later * MS)?;
                    match later % 3 {
                        0 => world.cut_power(leader, Survivors::Random),
                        1 => world.kill(leader),
                        _ => {
                            world.cut_power(leader, Survivors::None);
                            world.cut_power(node, Survivors::None);
                        }
                    }
                    heals(world)
                })?;
            }
            Ok(())
        });
    }
}
