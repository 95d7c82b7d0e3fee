//! What comes from peers. Snapshots sent to a node that lags behind the log: each crash in the
//! middle, at either end. And the log, to a node whose own is damaged.

use lakebed::{DiskError, File, LogIndex, Mark};
use lakebed_scenarios::{
    machine::Ledger,
    telling::{Cluster, Told, tell_of, what_if},
};
use lakebed_sim::{
    Violation,
    disk::{EIO, Failure, Survivors, Victim},
    plan::{FaultKind, Harm, MS, Plan},
    storm::{converge, leader, run_for, run_until, serve, write},
};
use std::cell::Cell;

/// Bytes in a second.
const SLOW: u64 = 4 << 20;

/// One snapshot at a time, and slowly.
fn slow_plan(seed: u64) -> Plan {
    let mut plan = plan_of(seed, 5);
    plan.tuning.transfers_max = 1;
    plan.tuning.transfer_bytes_per_second = SLOW;
    plan
}

fn plan(seed: u64) -> Plan {
    plan_of(seed, 3)
}

/// Nothing is kept for members: whoever is down for a while is sent a snapshot.
fn plan_of(seed: u64, nodes: usize) -> Plan {
    let mut plan = Plan::calm(seed, nodes);
    plan.tuning.snapshot_log_bytes = 8 << 10;
    plan.tuning.retain_log_bytes = 0;
    plan.segment_bytes = 8 << 10;
    plan.tuning.append_bytes_max = 2 << 10;
    // Two pieces are more than the window: the receiver is waited for.
    plan.tuning.inflight_bytes_max = 4 << 10;
    plan
}

fn tell(name: &str, seed: u64, story: impl Fn(&mut Cluster) -> Told) {
    tell_of(name, &plan(seed), Ledger::default, story);
}

const HEAVY: u64 = 150_000;

/// Its snapshots are of five blocks.
fn heavy() -> Ledger {
    Ledger::heavy(HEAVY as usize)
}

/// A cluster in which one node was away for longer than the log reaches back, and is back now.
struct Behind {
    leader: usize,
    node: usize,
    /// Where its log ended.
    last: LogIndex,
}

fn left_behind(world: &mut Cluster) -> Result<Behind, Violation> {
    serve(world)?;
    run_for(world, 50 * MS)?;
    let leader = leader(world).expect("a cluster that serves has a leader");
    let node = (leader + 1) % 3;
    let last = world.probe(node).expect("it is up").last.index;
    world.cut_power(node, Survivors::All);
    let is_gone =
        |world: &Cluster| world.probe(leader).is_some_and(|probe| probe.first > last.next());
    run_until(world, 5_000 * MS, "a log without what the node needs", is_gone)?;
    world.restart(node);
    Ok(Behind { leader, node, last })
}

fn has_installed(world: &Cluster, node: usize) -> bool {
    world.marks_of(node).has(Mark::Installed)
}

fn heals(world: &mut Cluster) -> Told {
    let down: Vec<usize> = (0..3).filter(|node| world.probe(*node).is_none()).collect();
    down.into_iter().for_each(|node| world.restart(node));
    world.heal();
    serve(world)?;
    converge(world)
}

/// And not again after a restart: one entry too strict, and every restart of a healthy node would
/// fetch the whole state anew (lessons.md 1).
#[test]
fn a_node_left_behind_is_sent_a_snapshot_once() {
    for seed in 0..20 {
        tell("a_node_left_behind_is_sent_a_snapshot_once", seed, |world| {
            let behind = left_behind(world)?;
            run_until(world, 2_000 * MS, "the install", |world| has_installed(world, behind.node))?;
            let probe = world.probe(behind.node).expect("it is up");
            assert!(probe.first > behind.last.next(), "{probe:?}");
            assert_eq!(probe.snapshot.index.next(), probe.first);
            world.cut_power(behind.node, Survivors::ALL[seed as usize % 7]);
            world.restart(behind.node);
            heals(world)?;
            assert!(!has_installed(world, behind.node), "it had what it needs");
            Ok(())
        });
    }
}

fn step_on(world: &mut Cluster, events: u64) -> Told {
    let until = world.stats().events + events;
    while world.stats().events < until {
        world.step()?;
    }
    Ok(())
}

/// The power fails at each event from the receiver's return on, whatever survives; and once more
/// in the midst of the recovery.
#[test]
fn a_power_cut_at_every_event_of_an_install_is_recovered_from() {
    let [before, finished, after] = [0, 0, 0].map(Cell::new);
    for seed in 0..11_u64 {
        tell("a_power_cut_at_every_event_of_an_install_is_recovered_from", seed, |world| {
            let node = left_behind(world)?.node;
            for turn in seed * 40..(seed + 1) * 40 {
                let (events, survivors) = (turn % 220, Survivors::ALL[turn as usize % 7]);
                what_if(world, |world| {
                    // Before that only the restart is at work.
                    step_on(world, 120 + events)?;
                    let was_installed = has_installed(world, node);
                    world.cut_power(node, survivors);
                    world.restart(node);
                    step_on(world, events % 50)?;
                    world.cut_power(node, survivors);
                    world.restart(node);
                    heals(world)?;
                    let counted = match (was_installed, world.marks().has(Mark::InstallFinished)) {
                        (_, true) => &finished,
                        (false, false) => &before,
                        (true, false) => &after,
                    };
                    counted.update(|runs| runs + 1);
                    Ok(())
                })?;
            }
            Ok(())
        });
    }
    let [before, finished, after] = [before, finished, after].map(|runs| runs.get());
    assert!(before > 10 && finished > 0 && after > 10, "{before} {finished} {after}");
}

/// The receiver dies when so much of the snapshot lies on its disk, and once more while it reads
/// that back; by a power cut, whatever survives, or alone. What was good of it is not sent again.
#[test]
fn what_a_crash_left_of_an_install_is_gone_on_with() {
    let gone_on = Cell::new(0);
    for seed in 0..4_u64 {
        tell_of("what_a_crash_left_of_an_install_is_gone_on_with", &plan(seed), heavy, |world| {
            let node = left_behind(world)?.node;
            for share in 0..14 {
                let (least, story) = (share * HEAVY / 13, seed * 14 + share);
                run_until(world, 2_000 * MS, "a part of a snapshot", |world| {
                    has_installed(world, node) || part_bytes(world, node) > least
                })?;
                what_if(world, |world| {
                    die(world, node, story);
                    let until = world.disk_operations(node) + 18 + story % 16;
                    while world.disk_operations(node) < until {
                        world.step()?;
                    }
                    die(world, node, seed);
                    heals(world)?;
                    let marks = world.marks();
                    let has_gone_on = marks.has(Mark::InstallGoneOnWith);
                    let is_resumed = has_gone_on && marks.has(Mark::InstallResumed);
                    gone_on.update(|runs| runs + u32::from(is_resumed));
                    let are_kills = story.is_multiple_of(2) && seed.is_multiple_of(2);
                    let lacks_nothing = are_kills && least > 40_000;
                    assert!(has_gone_on || !lacks_nothing, "{story}: begun anew");
                    Ok(())
                })?;
            }
            Ok(())
        });
    }
    let gone_on = gone_on.get();
    println!("gone on with {gone_on} times");
    assert!(gone_on > 10, "what was written before the crash was of use {gone_on} times");
}

/// How much of a snapshot that is not whole lies on a node's disk.
fn part_bytes(world: &Cluster, node: usize) -> u64 {
    let of_part = |(file, len): (File, u64)| matches!(file, File::Part(..)).then_some(len);
    world.disk(node).list().filter_map(of_part).max().unwrap_or(0)
}

/// Every other time alone: then its disk lacks nothing.
fn die(world: &mut Cluster, node: usize, way: u64) {
    match way % 2 {
        0 => world.kill(node),
        _ => world.cut_power(node, Survivors::ALL[way as usize / 2 % 7]),
    }
    world.restart(node);
}

/// Two of five come back at once, and one snapshot goes out at a time, and not faster than allowed.
#[test]
fn who_lags_waits_for_a_turn() {
    for seed in 0..6 {
        tell_of("who_lags_waits_for_a_turn", &slow_plan(seed), heavy, |world| {
            serve(world)?;
            run_for(world, 50 * MS)?;
            let leader = leader(world).expect("a cluster that serves has a leader");
            let away = [(leader + 1) % 5, (leader + 2) % 5];
            let last = |world: &Cluster, node: usize| world.probe(node).map(|probe| probe.last);
            let last = away.map(|node| last(world, node).expect("it is up").index);
            away.iter().for_each(|node| world.cut_power(*node, Survivors::All));
            let most = *last.iter().max().expect("two are away");
            let is_gone = |world: &Cluster| {
                world.probe(leader).is_some_and(|probe| probe.first > most.next())
            };
            run_until(world, 5_000 * MS, "a log without what they need", is_gone)?;
            away.iter().for_each(|node| world.restart(*node));
            let are_back = |world: &Cluster| away.iter().all(|node| has_installed(world, *node));
            let began = world.now();
            run_until(world, 20_000 * MS, "both installs", are_back)?;
            assert!(world.marks().has(Mark::InstallWaited));
            let took = world.now() - began;
            // What a heartbeat allows, and a piece, may have been sent before they were back.
            let bytes = 2 * HEAVY - SLOW / 100 - (32 << 10);
            let least = bytes * 1_000 * MS / SLOW;
            assert!(took >= least, "installed within {took} ns, allowed are {least}");
            heals(world)
        });
    }
}

/// The sender goes, or the link: another leader's snapshot is another one.
#[test]
fn an_install_survives_its_sender() {
    for events in 0..60 {
        tell("an_install_survives_its_sender", events, |world| {
            let behind = left_behind(world)?;
            step_on(world, events * 7)?;
            match events % 3 {
                0 => world.cut_power(behind.leader, Survivors::Random),
                1 => world.kill(behind.leader),
                _ => {
                    let side: Vec<bool> = (0..3).map(|node| node == behind.node).collect();
                    world.partition(&side, true, events % 2 == 0);
                    run_for(world, 30 * MS)?;
                    world.rejoin();
                }
            }
            heals(world)?;
            let last = world.probe(behind.node).expect("it is up").last.index;
            assert!(last > behind.last);
            Ok(())
        });
    }
}

/// A disk that fails under a snapshot from a peer ends in a halt, or in another try.
#[test]
fn a_failed_sync_of_an_install_is_not_built_on() {
    for events in 0..60 {
        tell("a_failed_sync_of_an_install_is_not_built_on", events, |world| {
            let behind = left_behind(world)?;
            step_on(world, events * 10)?;
            let failure = [Failure::CleanKeep, Failure::CleanRevert][events as usize % 2];
            world.fail_next_sync(behind.node, failure);
            run_for(world, 50 * MS)?;
            world.cut_power(behind.node, Survivors::None);
            heals(world)
        });
    }
}

/// The name of a peer's snapshot fails, or that it is durable, when the log has come to its end for it:
/// the node ends, and its next start finds one of both. (It went on, and did nothing any more.)
#[test]
fn a_name_that_fails_in_an_install_ends_the_node() {
    let mut ended = 0;
    for seed in 0..40 {
        let once = Cell::new(false);
        tell("a_name_that_fails_in_an_install_ends_the_node", seed, |world| {
            let behind = left_behind(world)?;
            let victim = [Victim::Rename, Victim::SyncDirectory][seed as usize % 2];
            let error = [DiskError::Io { errno: EIO }, DiskError::Full][seed as usize / 2 % 2];
            // The first sync of the directory is that of a part.
            step_on(world, seed * 15)?;
            world.fail_next(behind.node, victim, error);
            let has_failed = |world: &Cluster| world.stats().disk_failures > 0;
            run_until(world, 5_000 * MS, "a name that fails", has_failed)?;
            once.set(world.probe(behind.node).is_none());
            heals(world)
        });
        ended += u32::from(once.get());
    }
    assert!(ended > 20, "{ended} of 40 ended");
}

/// The newest segment of a node is gone when it starts again.
fn lose_log(world: &mut Cluster, node: usize) -> Told {
    let files: Vec<File> = world.disk(node).list().map(|(file, _)| file).collect();
    let newest = files.iter().rposition(|file| matches!(file, File::Segment(_)));
    let pick = newest.expect("it has a log") as u64;
    world.strike(&FaultKind::Ruin { node, harm: Harm::Gone, pick, down: MS })
}

/// A gated node and a dead node of three make progress with the third: what it acknowledges anew
/// counts as ever.
#[test]
fn a_gated_node_and_a_dead_one_serve_with_the_third() {
    let mut gated = 0;
    for seed in 0..20 {
        let was_gated = Cell::new(false);
        tell("a_gated_node_and_a_dead_one_serve_with_the_third", seed, |world| {
            serve(world)?;
            run_for(world, 50 * MS)?;
            let leader = leader(world).expect("a cluster that serves has a leader");
            let (node, dead) = ((leader + 1) % 3, (leader + 2) % 3);
            lose_log(world, node)?;
            world.cut_power(dead, Survivors::All);
            // What was lost may be what a snapshot holds, or nothing yet.
            let is_open = |world: &Cluster| {
                let is_ready = world.probe(node).is_some_and(|probe| probe.ready);
                let has = |mark| world.marks_of(node).has(mark);
                is_ready && has(Mark::GateSet) == has(Mark::GateCleared)
            };
            run_until(world, 2_000 * MS, "a gate that opens", is_open)?;
            was_gated.set(world.marks_of(node).has(Mark::GateSet));
            write(world, b"with two")?;
            heals(world)
        });
        gated += u32::from(was_gated.get());
    }
    assert!(gated > 15, "{gated} of 20 had lost what nobody knows");
}

/// It may have forgotten what it acknowledged: nobody is elected with its vote, however long it
/// takes. The one whose log is whole leads again.
#[test]
fn nobody_is_elected_with_the_vote_of_a_gated_node() {
    let mut gated = 0;
    for seed in 0..20 {
        let was_gated = Cell::new(false);
        tell("nobody_is_elected_with_the_vote_of_a_gated_node", seed, |world| {
            serve(world)?;
            run_for(world, 50 * MS)?;
            let old = leader(world).expect("a cluster that serves has a leader");
            let (node, other) = ((old + 1) % 3, (old + 2) % 3);
            world.cut_power(old, Survivors::All);
            lose_log(world, node)?;
            run_for(world, 1_500 * MS)?;
            // What was lost may be what a snapshot holds, or nothing yet.
            was_gated.set(world.marks_of(node).has(Mark::GateSet));
            if was_gated.get() {
                assert!(world.probe(node).expect("it is up").gated);
                assert!(world.probe(other).expect("it is up").leader.is_none());
            }
            heals(world)?;
            let has = |mark| world.marks_of(node).has(mark);
            assert_eq!(has(Mark::GateSet), has(Mark::GateCleared));
            Ok(())
        });
        gated += u32::from(was_gated.get());
    }
    assert!(gated > 15, "{gated} of 20 had lost what nobody knows");
}

/// All snapshots of a node are gone, and its log begins behind them. The log stays, and the state
/// comes from the leader.
#[test]
fn a_node_without_its_snapshots_is_sent_one() {
    let mut lost = 0;
    for seed in 0..20 {
        let was_lost = Cell::new(false);
        tell("a_node_without_its_snapshots_is_sent_one", seed, |world| {
            let (_, node) = lose_what_a_log_stands_on(world)?;
            let is_back = |world: &Cluster| world.probe(node).is_some_and(|probe| probe.ready);
            run_until(world, 2_000 * MS, "a node that serves again", is_back)?;
            was_lost.set(world.marks_of(node).has(Mark::SnapshotLost));
            heals(world)
        });
        lost += u32::from(was_lost.get());
    }
    assert!(lost > 10, "only {lost} of 20 nodes lost what they stood on");
}

/// Storm of leases, seed 5004474: it had joined a peer's snapshot to its log, and received nothing more
/// in that life.
#[test]
fn a_node_that_joined_a_snapshot_to_its_log_is_sent_another() {
    let mut joined = 0;
    for seed in 0..20 {
        let has_joined = Cell::new(false);
        tell("a_node_that_joined_a_snapshot_to_its_log_is_sent_another", seed, |world| {
            let (leading, node) = lose_what_a_log_stands_on(world)?;
            let has_state = |world: &Cluster| {
                world.probe(node).is_some_and(|probe| probe.ready && !probe.stateless)
            };
            run_until(world, 2_000 * MS, "a node that has a state again", has_state)?;
            has_joined.set(world.marks_of(node).has(Mark::InstallJoined));
            world.isolate(node, true);
            let last = world.probe(node).expect("it is up").last.index;
            let is_gone = |world: &Cluster| {
                world.probe(leading).is_some_and(|probe| probe.first > last.next())
            };
            run_until(world, 5_000 * MS, "a log without what the node needs", is_gone)?;
            heals(world)?;
            assert!(!has_joined.get() || has_installed(world, node), "the log left it behind");
            Ok(())
        });
        joined += u32::from(has_joined.get());
    }
    assert!(joined > 10, "only {joined} of 20 nodes joined a snapshot to their log");
}

/// All snapshots of a node are gone whose log begins at one: who leads, and that node.
fn lose_what_a_log_stands_on(world: &mut Cluster) -> Result<(usize, usize), Violation> {
    serve(world)?;
    let leading = leader(world).expect("a cluster that serves has a leader");
    let node = (leading + 1) % 3;
    let has_grown =
        |world: &Cluster| world.probe(node).is_some_and(|probe| probe.first > LogIndex(100));
    run_until(world, 5_000 * MS, "a log that begins at a snapshot", has_grown)?;
    for _ in 0..3 {
        lose_snapshot(world, node)?;
    }
    Ok((leading, node))
}

/// The first snapshot of a node, if it has one, is gone when it starts again.
fn lose_snapshot(world: &mut Cluster, node: usize) -> Told {
    let files: Vec<File> = world.disk(node).list().map(|(file, _)| file).collect();
    match files.iter().position(|file| matches!(file, File::Snapshot(_))) {
        Some(at) => {
            let (harm, pick) = (Harm::Gone, at as u64);
            world.strike(&FaultKind::Ruin { node, harm, pick, down: MS })
        }
        None => Ok(()),
    }
}

/// A piece takes longer than the heartbeats after which a receiver that gets no further is given up.
#[test]
fn a_snapshot_arrives_however_slowly_it_is_sent() {
    for (bytes_per_second, seconds) in [(40 << 10, 20), (24 << 10, 60)] {
        let mut plan = plan(1);
        plan.tuning.transfer_bytes_per_second = bytes_per_second;
        tell_of("a_snapshot_arrives_however_slowly_it_is_sent", &plan, heavy, |world| {
            let behind = left_behind(world)?;
            let is_in = |world: &Cluster| has_installed(world, behind.node);
            run_until(world, seconds * 1_000 * MS, "the install", is_in)
        });
    }
}

/// What the segments of a node's log take.
fn log_bytes(world: &Cluster, node: usize) -> u64 {
    let of = |(file, len): (File, u64)| matches!(file, File::Segment(_)).then_some(len);
    world.disk(node).list().filter_map(of).sum()
}

/// More is written meanwhile than is kept: the leader's log stays as it is, though the snapshot comes to
/// nothing; and when less is written, one arrives.
#[test]
fn the_log_behind_a_slow_snapshot_is_bounded() {
    const KEPT: u64 = 64 << 10;
    let name = "the_log_behind_a_slow_snapshot_is_bounded";
    for seed in 0..2 {
        let mut plan = plan(seed);
        plan.tuning.transfer_bytes_per_second = 16 << 10;
        plan.tuning.transfer_log_bytes_max = KEPT;
        tell_of(name, &plan, heavy, |world| {
            let behind = left_behind(world)?;
            // Four times a snapshot are written before the next is taken, and two of those go beside it.
            let most = KEPT + 13 * HEAVY;
            for _ in 0..160 {
                run_for(world, 50 * MS)?;
                let log = log_bytes(world, behind.leader);
                assert!(log <= most, "{log} bytes are kept, of {most} at most");
            }
            assert!(world.marks_of(behind.leader).has(Mark::InstallOutrun));
            assert!(!has_installed(world, behind.node), "it was not to arrive");
            world.dismiss_clients();
            let is_in = |world: &Cluster| has_installed(world, behind.node);
            run_until(world, 20_000 * MS, "the install", is_in)?;
            converge(world)
        });
    }
}
