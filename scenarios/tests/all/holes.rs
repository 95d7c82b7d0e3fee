//! Entries that one node's disk has lost and the others have: they are given again, whoever leads.

use lakebed::{File, LogIndex, Mark};
use lakebed_scenarios::telling::{Cluster, Told, tell, what_if};
use lakebed_sim::{
    disk::Survivors,
    plan::{FaultKind, Harm, MS, Part, Plan},
    storm::{converge, leader, run_for, run_until, serve, write},
};
use std::{cell::Cell, time::Duration};

/// An entry of a node's log goes bad while it is down.
fn harm_entry(world: &mut Cluster, node: usize, pick: u64) -> Told {
    let (part, harm, survivors) = (Part::Entries, Harm::Rot, Survivors::All);
    world.strike(&FaultKind::Damage { node, part, harm, pick, survivors, down: 500_000 * MS })
}

fn has(world: &Cluster, node: usize, mark: Mark) -> bool {
    world.marks_of(node).has(mark)
}

/// A log in one segment, and no snapshots: a restart reads every entry, most of them behind the votes
/// that it gives.
fn grown(seed: u64) -> Plan {
    let mut plan = Plan::calm(seed, 3);
    plan.tuning.snapshot_log_bytes = 0;
    plan.segment_bytes = 1 << 20;
    plan
}

/// Its votes count meanwhile: no gate is shut.
#[test]
fn what_one_node_has_lost_the_others_give_again() {
    for seed in 0..40 {
        tell("what_one_node_has_lost_the_others_give_again", grown(seed), |world| {
            serve(world)?;
            run_for(world, 100 * MS)?;
            let node = (leader(world).expect("a cluster that serves has a leader") + 1) % 3;
            harm_entry(world, node, seed)?;
            world.restart(node);
            let is_whole = |world: &Cluster| has(world, node, Mark::HoleFilled);
            run_until(world, 2_000 * MS, "an entry that is there again", is_whole)?;
            assert!(!has(world, node, Mark::GateSet));
            write(world, b"with all")?;
            converge(world)
        });
    }
}

/// More goes bad than is held at once of what peers give: it is given in turns, and asked for as long as
/// anything is missing.
#[test]
fn much_that_one_node_has_lost_is_given_again_in_turns() {
    for seed in 0..20 {
        let mut plan = grown(seed);
        plan.segment_bytes = 32 << 10;
        plan.tuning.append_bytes_max = 256;
        plan.tuning.scrub_interval = Duration::from_millis(200);
        tell("much_that_one_node_has_lost_is_given_again_in_turns", plan, |world| {
            serve(world)?;
            run_for(world, 300 * MS)?;
            let node = (leader(world).expect("a cluster that serves has a leader") + 1) % 3;
            let segment = |world: &Cluster| {
                let mut files = world.disk(node).list().map(|(file, _)| file);
                let oldest = files.find(|file| matches!(file, File::Segment(_)));
                world.disk(node).content(oldest.expect("it has a log"))
            };
            let before = segment(world);
            let struck = (0..32).filter(|pick| world.rot_running(node, *pick)).count();
            assert!(struck > 16 && segment(world) != before, "{struck} bits of entries went bad");
            let is_whole = |world: &Cluster| segment(world) == before;
            run_until(world, 10_000 * MS, "entries that are all there again", is_whole)?;
            write(world, b"with all")?;
            converge(world)
        });
    }
}

/// Two of three have lost different entries and the third is away: the one leads when it has from
/// the other what it lacks (storage.md, counterexamples). With a gate there would be no vote at all.
#[test]
fn two_nodes_that_lack_different_entries_serve_without_the_third() {
    for seed in 0..40 {
        tell(
            "two_nodes_that_lack_different_entries_serve_without_the_third",
            grown(seed),
            |world| {
                serve(world)?;
                run_for(world, 100 * MS)?;
                let old = leader(world).expect("a cluster that serves has a leader");
                let (one, other) = ((old + 1) % 3, (old + 2) % 3);
                harm_entry(world, one, seed)?;
                harm_entry(world, other, seed * 7 + 3)?;
                world.cut_power(old, Survivors::All);
                world.restart(one);
                world.restart(other);
                let lead = |world: &Cluster| leader(world).is_some();
                run_until(world, 10_000 * MS, "a leader without the third", lead)?;
                write(world, b"with two")?;
                let are_filled = |world: &Cluster| {
                    [one, other].iter().all(|&node| has(world, node, Mark::HoleFilled))
                };
                run_until(world, 2_000 * MS, "two entries that are there again", are_filled)?;
                world.restart(old);
                converge(world)
            },
        );
    }
}

/// The power fails at each event of a refill, whatever survives.
#[test]
fn a_power_cut_at_every_event_of_a_refill_is_recovered_from() {
    let (before, after) = (Cell::new(0), Cell::new(0));
    for seed in 0..8_u64 {
        let name = "a_power_cut_at_every_event_of_a_refill_is_recovered_from";
        tell(name, grown(seed), |world| {
            serve(world)?;
            run_for(world, 60 * MS)?;
            let node = (leader(world).expect("a cluster that serves has a leader") + 1) % 3;
            for events in seed * 20..(seed + 1) * 20 {
                what_if(world, |world| {
                    harm_entry(world, node, events)?;
                    world.restart(node);
                    let start = world.stats().events;
                    while world.stats().events < start + events * 2 {
                        world.step()?;
                    }
                    let is_filled = has(world, node, Mark::HoleFilled);
                    (if is_filled { &after } else { &before }).update(|runs| runs + 1);
                    world.cut_power(node, Survivors::ALL[events as usize % 7]);
                    world.restart(node);
                    run_for(world, 500 * MS)?;
                    assert!(!world.probe(node).is_some_and(|probe| probe.holed || probe.gated));
                    serve(world)?;
                    converge(world)
                })?;
            }
            Ok(())
        });
    }
    let (before, after) = (before.get(), after.get());
    assert!(before > 20 && after > 20, "{before} before the refill, {after} after it");
}

/// Its newer snapshot is bad too, and while it was away the others' logs came to begin behind what it has lost, but not behind the end
/// of its own: there is nothing to give, and a snapshot takes the place of what lies before.
#[test]
fn what_nobody_has_any_more_comes_as_a_snapshot() {
    let mut in_vain = 0;
    for seed in 0..40 {
        let mut plan = Plan::calm(seed, 3);
        plan.tuning.snapshot_log_bytes = 6 << 10;
        plan.tuning.retain_log_bytes = 0;
        plan.segment_bytes = 8 << 10;
        plan.tuning.append_bytes_max = 2 << 10;
        let told = Cell::new(false);
        tell("what_nobody_has_any_more_comes_as_a_snapshot", plan, |world| {
            serve(world)?;
            run_for(world, (40 + seed * 3) * MS)?;
            let leads = leader(world).expect("a cluster that serves has a leader");
            let node = (leads + 1) % 3;
            // The entry lies behind the older snapshot, and the newer one is bad.
            harm_entry(world, node, seed * 3)?;
            let (part, harm, survivors) = (Part::Snapshot, Harm::Rot, Survivors::All);
            let down = 500_000 * MS;
            world.strike(&FaultKind::Damage { node, part, harm, pick: 0, survivors, down })?;
            let begins =
                |world: &Cluster| world.probe(leads).map_or(LogIndex(0), |probe| probe.first);
            let then = begins(world);
            let is_later = |world: &Cluster| begins(world) > then;
            run_until(world, 5_000 * MS, "a log that begins later", is_later)?;
            world.restart(node);
            run_for(world, 1_000 * MS)?;
            told.set(has(world, node, Mark::RefillInVain) && has(world, node, Mark::InstallJoined));
            serve(world)?;
            converge(world)
        });
        in_vain += u32::from(told.get());
    }
    assert!(in_vain > 2, "{in_vain} of 40 came as a snapshot");
}

/// The same where the damaged one is ahead, so that nobody else can be elected, and the third is away.
/// Neither could stand: the one for its log, the other for what it lacks. Nobody has that as an entry,
/// and between them they have everything.
#[test]
fn one_that_is_ahead_stands_for_one_that_has_its_loss_as_state() {
    let name = "one_that_is_ahead_stands_for_one_that_has_its_loss_as_state";
    let mut in_vain = 0;
    for seed in 0..40 {
        let mut plan = Plan::calm(seed, 3);
        plan.tuning.snapshot_log_bytes = 0;
        plan.tuning.retain_log_bytes = 0;
        plan.segment_bytes = 8 << 10;
        plan.tuning.append_bytes_max = 2 << 10;
        let told = Cell::new(false);
        tell(name, plan, |world| {
            serve(world)?;
            let ahead = leader(world).expect("a cluster that serves has a leader");
            let (behind, third) = ((ahead + 1) % 3, (ahead + 2) % 3);
            // Backups are taken from one of them: its log begins later than the others'.
            while world.probe(behind).is_none_or(|probe| probe.first.0 < 40) {
                run_for(world, 20 * MS)?;
                world.ask_for_snapshot(behind)?;
            }
            world.isolate(behind, false);
            run_for(world, 20 * MS)?;
            world.cut_power(third, Survivors::All);
            harm_entry(world, ahead, seed % 3)?;
            world.readmit(behind);
            world.restart(ahead);
            let leads = |world: &Cluster| leader(world).is_some();
            run_until(world, 10_000 * MS, "a leader without the third", leads)?;
            write(world, b"with two")?;
            told.set(has(world, ahead, Mark::InstallJoined));
            world.restart(third);
            converge(world)
        });
        in_vain += u32::from(told.get());
    }
    assert!(in_vain > 10, "{in_vain} of 40 came as a snapshot");
}

/// Where the entry of this number in a segment lies, and its slot (docs/disk-format.md).
fn witnesses(world: &Cluster, node: usize, file: File, number: u64) -> [u64; 2] {
    let content = world.disk(node).content(file).expect("it has this segment");
    let slot = (u64::from(world.plan().geometry.align) + number * 40) as usize;
    let entry = u32::from_le_bytes(content[slot + 4..slot + 8].try_into().expect("four bytes"));
    [slot as u64, u64::from(entry)]
}

/// Neither an entry nor its slot is left, in a full segment, where only who reads it comes upon it.
/// What it was is not known: the node ends, and the next start fetches the log again, without a
/// vote meanwhile.
#[test]
fn an_entry_without_witnesses_costs_the_log_and_not_the_node() {
    for seed in 0..40 {
        let mut plan = grown(seed);
        plan.segment_bytes = 16 << 10;
        plan.tuning.append_bytes_max = 4 << 10;
        tell("an_entry_without_witnesses_costs_the_log_and_not_the_node", plan, |world| {
            serve(world)?;
            let old = leader(world).expect("a cluster that serves has a leader");
            let (file, next) = (File::Segment(1), File::Segment(3));
            let node = (old + seed as usize % 3) % 3;
            let is_full = |world: &Cluster| world.disk(node).content(next).is_some();
            run_until(world, 5_000 * MS, "a full segment", is_full)?;
            world.cut_power(node, Survivors::All);
            for at in witnesses(world, node, file, seed % 8) {
                let (bit, down) = (at * 8 + seed % 8, 500_000 * MS);
                world.strike(&FaultKind::Flip { node, file, bit, down })?;
            }
            world.restart(node);
            let is_gone = |world: &Cluster| world.marks().has(Mark::LogGivenUp);
            run_until(world, 2_000 * MS, "a log that is given up", is_gone)?;
            let is_back = |world: &Cluster| has(world, node, Mark::GateCleared);
            run_until(world, 5_000 * MS, "a node that votes again", is_back)?;
            write(world, b"with all")?;
            converge(world)
        });
    }
}

/// The same where a snapshot holds all that the segment did: found by a restart, for its headers are bad, or
/// by the scrub, alone or not, and the power fails at any event after that. Nothing is fetched, no gate is
/// shut: the log begins behind that segment.
#[test]
fn a_segment_that_a_snapshot_holds_may_be_lost() {
    let (mut by_restart, mut by_scrub) = (0, 0);
    for seed in 0..160_u64 {
        let (is_alone, is_header) = (seed % 4 < 2, seed.is_multiple_of(2));
        let mut plan = grown(seed);
        plan.nodes = if is_alone { 1 } else { 3 };
        plan.drift_ppm.truncate(plan.nodes);
        plan.segment_bytes = 16 << 10;
        plan.tuning.append_bytes_max = 4 << 10;
        plan.tuning.scrub_interval = Duration::from_millis(50);
        let told = Cell::new(false);
        tell("a_segment_that_a_snapshot_holds_may_be_lost", plan, |world| {
            serve(world)?;
            let lead = leader(world).expect("a cluster that serves has a leader");
            let node = (lead + seed as usize) % world.nodes();
            let (file, later) = (File::Segment(1), File::Segment(3));
            let is_full = |world: &Cluster| world.disk(node).content(later).is_some();
            run_until(world, 5_000 * MS, "a full segment", is_full)?;
            world.ask_for_snapshot(node)?;
            let has_one = |world: &Cluster| {
                world.disk(node).list().any(|(file, _)| matches!(file, File::Snapshot(_)))
            };
            run_until(world, 1_000 * MS, "a snapshot", has_one)?;
            run_for(world, 20 * MS)?;
            world.cut_power(node, Survivors::All);
            let align = u64::from(world.plan().geometry.align);
            let len = world.disk(node).content(file).expect("it is full").len() as u64;
            let headers = [20, len - 2 * align + 20];
            let bad = if is_header { headers } else { witnesses(world, node, file, seed % 8) };
            for at in bad {
                let (bit, down) = (at * 8 + seed % 8, 500_000 * MS);
                world.strike(&FaultKind::Flip { node, file, bit, down })?;
            }
            world.restart(node);
            let until = world.stats().events + seed * 7 % 300;
            while world.stats().events < until {
                world.step()?;
            }
            world.cut_power(node, Survivors::ALL[seed as usize % 7]);
            world.restart(node);
            let begins_later =
                |world: &Cluster| world.probe(node).is_some_and(|probe| probe.first.0 > 1);
            run_until(world, 5_000 * MS, "a log that begins later", begins_later)?;
            told.set(world.marks().has(Mark::LogBegunLater));
            assert!(!has(world, node, Mark::GateSet) && !world.marks().has(Mark::LogGivenUp));
            serve(world)?;
            converge(world)
        });
        *(if is_header { &mut by_restart } else { &mut by_scrub }) += u32::from(told.get());
    }
    assert!(by_restart > 70 && by_scrub > 70, "{by_restart} by a restart, {by_scrub} by the scrub");
}
