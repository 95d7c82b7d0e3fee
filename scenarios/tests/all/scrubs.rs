//! What has gone bad on the disk of a node that runs is found by reading it again, and given again by
//! the others, or taken anew, before a restart needs it.

use lakebed::{File, LogId, Mark};
use lakebed_scenarios::{
    machine::Ledger,
    telling::{Cluster, Told, tell, tell_of},
};
use lakebed_sim::{
    Violation,
    disk::Survivors,
    plan::{MS, Plan, Step, Steps},
    storm::{converge, leader, run_for, run_until, serve, write},
};
use std::{cell::Cell, time::Duration};

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

/// It turns out when another one is fed, and whoever has it is gone: who is left lacks all behind it, and
/// nothing would be committed without a snapshot of what the leader's machine holds.
#[test]
fn what_nobody_who_is_there_has_is_sent_as_a_snapshot() {
    let installed = Cell::new(0);
    for seed in 0..40 {
        let mut plan = kept(seed, Duration::ZERO);
        plan.tuning.cache_bytes_max = 4 << 10;
        tell("what_nobody_who_is_there_has_is_sent_as_a_snapshot", plan, |world| {
            serve(world)?;
            let leads = leader(world).expect("a cluster that serves has a leader");
            let (lags, other) = ((leads + 1) % 3, (leads + 2) % 3);
            world.cut_power(lags, Survivors::All);
            while !world.rot_running(leads, seed) {
                run_for(world, 10 * MS)?;
            }
            // It is not in memory any more.
            run_for(world, 200 * MS)?;
            world.cut_power(other, Survivors::All);
            world.restart(lags);
            write(world, b"with two")?;
            let is_sent =
                has(world, leads, Mark::HoleFoundLate) && has(world, lags, Mark::Installed);
            installed.set(installed.get() + u32::from(is_sent));
            world.restart(other);
            converge(world)
        });
    }
    assert!(installed.get() > 10, "{}", installed.get());
}

/// One node, and one who waits to be added.
fn alone(seed: u64, scrub_interval: Duration) -> Plan {
    let mut plan = kept(seed, scrub_interval);
    (plan.nodes, plan.joining) = (2, 1);
    plan.drift_ppm.truncate(2);
    plan
}

fn change(world: &mut Cluster, step: Step) -> Told {
    world.want_change(&Steps(vec![step]))?;
    run_until(world, 5_000 * MS, "a change", |world| !world.is_changing())
}

/// Its machine holds what the entry did, and then a snapshot does: the next start is none the worse.
#[test]
fn who_is_alone_takes_a_snapshot_for_what_has_gone_bad() {
    for seed in 0..40 {
        let name = "who_is_alone_takes_a_snapshot_for_what_has_gone_bad";
        tell(name, alone(seed, Duration::from_millis(100)), |world| {
            let node = rots(world, true, seed)?;
            assert_eq!(snapshots(world, node), []);
            let is_found = |world: &Cluster| has(world, node, Mark::ScrubFoundBadEntry);
            run_until(world, 2_000 * MS, "a bad entry that is found", is_found)?;
            let is_taken = |world: &Cluster| !snapshots(world, node).is_empty();
            run_until(world, 500 * MS, "a snapshot in its place", is_taken)?;
            run_for(world, 50 * MS)?;
            world.cut_power(node, Survivors::ALL[seed as usize % 7]);
            world.restart(node);
            serve(world)?;
            assert!(has(world, node, Mark::SnapshotRestored));
            // Who joins lacks that entry, and all before it: it is sent what stands for them.
            change(world, Step::Add(1))?;
            change(world, Step::Promote(1))?;
            assert!(has(world, 1, Mark::Installed));
            converge(world)
        });
    }
}

/// It is come upon when a learner is fed: the node ended then, as if it needed the entry itself.
#[test]
fn who_is_alone_feeds_a_learner_past_a_bad_entry() {
    for seed in 0..40 {
        let name = "who_is_alone_feeds_a_learner_past_a_bad_entry";
        let mut plan = alone(seed, Duration::ZERO);
        plan.tuning.cache_bytes_max = 4 << 10;
        tell(name, plan, |world| {
            let node = rots(world, true, seed)?;
            // It is not in memory any more.
            run_for(world, 200 * MS)?;
            change(world, Step::Add(1))?;
            change(world, Step::Promote(1))?;
            assert!(has(world, node, Mark::HoleFoundLate) && has(world, 1, Mark::Installed));
            converge(world)
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

/// Its snapshots are of several blocks.
fn heavy() -> Ledger {
    Ledger::heavy(90_000)
}

/// The snapshots on a node's disk, the oldest first.
fn snapshots(world: &Cluster, node: usize) -> Vec<LogId> {
    let at = |file| match file {
        File::Snapshot(at) => Some(at),
        _ => None,
    };
    let mut found: Vec<_> = world.disk(node).list().filter_map(|(file, _)| at(file)).collect();
    found.sort();
    found
}

/// One more snapshot is on its disk, and it serves on.
fn snap(world: &mut Cluster, node: usize) -> Told {
    let before = snapshots(world, node).last().copied();
    // One of what is applied now, which may be what the last one holds.
    while snapshots(world, node).last().copied() <= before {
        world.ask_for_snapshot(node)?;
        run_for(world, 20 * MS)?;
    }
    serve(world)
}

/// A leader or a follower with two snapshots, one of which goes bad.
fn spoils(world: &mut Cluster, leads: bool, pick: u64) -> Result<(usize, LogId), Violation> {
    serve(world)?;
    let leader = leader(world).expect("a cluster that serves has a leader");
    let node = if leads { leader } else { (leader + 1) % world.nodes() };
    snap(world, node)?;
    snap(world, node)?;
    let at = snapshots(world, node)[usize::from(!pick.is_multiple_of(3))];
    assert!(world.rot_snapshot(node, at, pick * 37), "it is there");
    Ok((node, at))
}

#[test]
fn a_snapshot_that_goes_bad_is_found_and_another_one_is_taken() {
    for seed in 0..40 {
        let (name, plan) = (
            "a_snapshot_that_goes_bad_is_found_and_another_one_is_taken",
            kept(seed, Duration::from_millis(100)),
        );
        tell_of(name, &plan, heavy, |world| {
            let (node, bad) = spoils(world, seed % 2 == 0, seed)?;
            let is_found = |world: &Cluster| has(world, node, Mark::SnapshotFoundBad);
            run_until(world, 2_000 * MS, "a bad snapshot that is found", is_found)?;
            let is_taken = |world: &Cluster| {
                let there = snapshots(world, node);
                there.len() == 2 && !there.contains(&bad)
            };
            run_until(world, 2_000 * MS, "another snapshot in its place", is_taken)?;
            world.cut_power(node, Survivors::None);
            world.restart(node);
            serve(world)?;
            assert!(!has(world, node, Mark::OlderSnapshotUsed), "what it begins with is good");
            converge(world)
        });
    }
}

/// While the bad snapshot is found, another one taken and the bad one removed; whatever survives.
#[test]
fn a_power_cut_at_every_event_of_it_is_recovered_from() {
    let (mut before, mut after) = (0, 0);
    for events in 0..160_u64 {
        let plan = kept(events / 40, Duration::from_millis(100));
        let was_found = Cell::new(false);
        tell_of("a_power_cut_at_every_event_of_it_is_recovered_from", &plan, heavy, |world| {
            let (node, bad) = spoils(world, events % 2 == 0, events)?;
            // Another one of the same place may take its name.
            let rotten = world.disk(node).content(File::Snapshot(bad));
            let is_gone = |world: &Cluster| world.disk(node).content(File::Snapshot(bad)) != rotten;
            // From shortly before on: it is found within two passes, whatever comes between.
            let is_near = |world: &Cluster| has(world, node, Mark::SnapshotFoundBad);
            if events % 80 >= 10 {
                run_until(world, 2_000 * MS, "a bad snapshot that is found", is_near)?;
            }
            let start = world.stats().events;
            while world.stats().events < start + events % 80 * 4 {
                world.step()?;
            }
            was_found.set(is_gone(world));
            world.cut_power(node, Survivors::ALL[events as usize % 7]);
            world.restart(node);
            serve(world)?;
            run_until(world, 2_000 * MS, "a bad snapshot that is gone", is_gone)?;
            converge(world)
        });
        *(if was_found.get() { &mut after } else { &mut before }) += 1;
    }
    assert!(before > 20 && after > 20, "{before} before another was there, {after} after it");
}

/// Its only snapshot is bad, and its log begins with entry 1: it needs nobody. Alone it was refused, with
/// peers it waited for theirs; and what its machine had taken in is forgotten.
#[test]
fn who_has_all_of_its_log_needs_no_snapshot() {
    for seed in 0..40 {
        let is_alone = seed % 2 == 0;
        let interval = Duration::ZERO;
        let plan = if is_alone { alone(seed, interval) } else { kept(seed, interval) };
        tell_of("who_has_all_of_its_log_needs_no_snapshot", &plan, heavy, |world| {
            serve(world)?;
            let leader = leader(world).expect("a cluster that serves has a leader");
            let node = if is_alone { leader } else { (leader + seed as usize) % 3 };
            snap(world, node)?;
            let [only] = snapshots(world, node)[..] else { panic!("it has taken one") };
            assert!(world.rot_snapshot(node, only, seed * 41), "it is there");
            world.cut_power(node, Survivors::All);
            world.restart(node);
            let is_ready = |world: &Cluster| world.probe(node).is_some_and(|probe| probe.ready);
            run_until(world, 2_000 * MS, "a node that is ready", is_ready)?;
            assert!(
                !has(world, node, Mark::SnapshotLost) && !has(world, node, Mark::InstallJoined)
            );
            serve(world)?;
            if is_alone {
                change(world, Step::Add(1))?;
                change(world, Step::Promote(1))?;
            }
            converge(world)
        });
    }
}

/// A leader comes upon it when a peer is to be sent that snapshot. It ended then, and so did each
/// leader with a bad one; now the peer is sent the one before.
#[test]
fn a_peer_is_not_sent_a_bad_snapshot() {
    let mut found = 0;
    for seed in 0..20 {
        let was_found = Cell::new(false);
        let mut plan = kept(seed, Duration::ZERO);
        plan.tuning.retain_log_bytes = 0;
        tell_of("a_peer_is_not_sent_a_bad_snapshot", &plan, heavy, |world| {
            serve(world)?;
            let leader = leader(world).expect("a cluster that serves has a leader");
            let node = (leader + 1) % 3;
            let last = world.probe(node).expect("it is up").last.index;
            world.cut_power(node, Survivors::All);
            let begins =
                |world: &Cluster| world.probe(leader).map(|probe| probe.first).unwrap_or_default();
            while begins(world) <= last.next() {
                run_for(world, 20 * MS)?;
                world.ask_for_snapshot(leader)?;
                run_for(world, 20 * MS)?;
            }
            let [_, newest] = snapshots(world, leader)[..] else { panic!("it keeps two") };
            assert!(world.rot_snapshot(leader, newest, seed * 31));
            let lives = world.stats().crashes;
            world.restart(node);
            let is_in = |world: &Cluster| has(world, node, Mark::Installed);
            run_until(world, 5_000 * MS, "an install", is_in)?;
            assert_eq!(world.stats().crashes, lives);
            was_found.set(has(world, leader, Mark::SnapshotFoundBad));
            converge(world)
        });
        found += u32::from(was_found.get());
    }
    assert!(found > 10, "{found} of 20 leaders came upon it");
}
