//! Directed stories: each is one way in which other systems, or the design's own counterexamples,
//! lost something (storage.md, "Counterexamples that must stay scenarios").

use lakebed::{LogIndex, Mark, Role, Term, inspect::Probe};
use lakebed_scenarios::{Ask, machine::Ledger, workload};
use lakebed_sim::{
    Op, Seed, Violation, World,
    check::{Commands, screen},
    disk::{Failure, Survivors},
    plan::{FaultKind, MS, Plan, Step, Steps, US},
    storm::{converge, leader, observe, run_for, run_until, serve, write},
};

type Cluster = World<Ledger, Ask>;
type Told = Result<(), Violation>;

/// Tells a story in a calm world of three nodes; a failure is told again, with its last lines.
fn tell(name: &str, seed: u64, story: impl Fn(&mut Cluster) -> Told) {
    let world = || World::new(Plan::calm(seed, 3), Ledger::default, workload as Ask);
    if observe(Seed::new(seed), world(), &story).is_err() {
        let failure = observe(Seed::new(seed).traced(), world(), &story).unwrap_err();
        // A story has no seed of its own: it is run again by its name.
        let again = format!("cargo test -p lakebed-scenarios -- {name}");
        panic!("{}", screen(name, &failure, &Commands(vec![("replay", again)])));
    }
}

/// The cluster serves, and has a log worth losing.
fn grown(world: &mut Cluster) -> Result<usize, Violation> {
    serve(world)?;
    run_for(world, 150 * MS)?;
    Ok(leader(world).expect("a cluster that serves has a leader"))
}

fn probe(world: &Cluster, node: usize) -> Probe {
    world.probe(node).expect("the node is up")
}

fn heals(world: &mut Cluster) -> Told {
    world.heal();
    serve(world)?;
    converge(world)
}

fn cut_all(world: &mut Cluster, survivors: Survivors) {
    (0..world.nodes()).for_each(|node| world.cut_power(node, survivors));
}

fn restart_all(world: &mut Cluster) {
    let down: Vec<usize> = (0..world.nodes()).filter(|n| world.probe(*n).is_none()).collect();
    down.into_iter().for_each(|node| world.restart(node));
}

#[test]
fn power_cut_of_all_at_once_keeps_what_was_acknowledged() {
    for survivors in Survivors::ALL {
        tell("power_cut_of_all_at_once_keeps_what_was_acknowledged", 1, |world| {
            grown(world)?;
            let acknowledged = world.acknowledged();
            assert!(acknowledged.0 > 50, "{acknowledged}");
            cut_all(world, survivors);
            restart_all(world);
            heals(world)?;
            assert!(probe(world, 0).committed > acknowledged);
            Ok(())
        });
    }
}

/// The slot of a write lands and its entry does not, or the reverse, on all nodes at once: torn,
/// and nobody is gated for it.
#[test]
fn a_torn_last_write_on_all_nodes_is_cut() {
    for seed in 0..20 {
        tell("a_torn_last_write_on_all_nodes_is_cut", seed, |world| {
            grown(world)?;
            let pending = |world: &Cluster| {
                (0..3).filter(|node| world.disk(*node).has_pending_sectors()).count() >= 2
            };
            run_until(world, 1000 * MS, "writes on two disks", pending)?;
            let survivors = [Survivors::OnlyLast, Survivors::AllButFirst][seed as usize % 2];
            cut_all(world, survivors);
            restart_all(world);
            heals(world)
        });
    }
}

/// A crash at every moment of being formatted: nothing at all, or a node.
#[test]
fn a_crash_inside_format_leaves_nothing_or_a_node() {
    for events in 0..45 {
        tell("a_crash_inside_format_leaves_nothing_or_a_node", events, |world| {
            while world.stats().events < events {
                world.step()?;
            }
            cut_all(world, Survivors::ALL[events as usize % 7]);
            restart_all(world);
            heals(world)
        });
    }
}

/// A second crash at every event of a recovery from a first one, then a third start.
#[test]
fn a_crash_at_every_event_of_a_recovery_is_recovered_from() {
    for events in 1..60 {
        tell("a_crash_at_every_event_of_a_recovery_is_recovered_from", events, |world| {
            let node = grown(world)?;
            world.cut_power(node, Survivors::Random);
            world.dismiss_clients();
            run_for(world, 300 * MS)?;
            let (others, before) = ((node + 1) % 3, world.stats().events);
            world.cut_power(others, Survivors::Random);
            world.restart(node);
            while world.stats().events < before + events {
                world.step()?;
            }
            world.cut_power(node, Survivors::ALL[events as usize % 7]);
            restart_all(world);
            world.heal();
            serve_without_clients(world)?;
            converge(world)
        });
    }
}

fn serve_without_clients(world: &mut Cluster) -> Told {
    let ready = |world: &Cluster| {
        (0..3).all(|node| world.probe(node).is_some_and(|probe| probe.ready))
            && leader(world).is_some()
    };
    run_until(world, 5_000 * MS, "three nodes and a leader", ready)?;
    write(world, b"after")
}

/// A sync fails, the cache shows what the disk does not have, the process restarts from the cache,
/// and then the power goes.
#[test]
fn a_failed_sync_is_never_believed_afterwards() {
    for (seed, failure) in (0..30).zip([Failure::CleanKeep, Failure::CleanRevert].iter().cycle()) {
        tell("a_failed_sync_is_never_believed_afterwards", seed, |world| {
            let node = grown(world)?;
            let kills = world.stats().kills;
            world.fail_next_sync(node, *failure);
            run_until(world, 1000 * MS, "the halt", |world| world.stats().kills > kills)?;
            let up = |world: &Cluster| world.probe(node).is_some_and(|probe| probe.ready);
            run_until(world, 1000 * MS, "the restart", up)?;
            run_for(world, 30 * MS)?;
            world.cut_power(node, Survivors::None);
            world.restart(node);
            heals(world)
        });
    }
}

/// A sync of a restart's repair fails. In the same breath the node wrote a hard state whose hint
/// called durable what that sync had not made so; its next start believed the hint, wrote nothing
/// anew, and a power cut later took slots of a sealed segment (storm of five, seed 5016315).
#[test]
fn a_failed_sync_of_a_repair_is_not_built_on() {
    for seed in 0..60 {
        tell("a_failed_sync_of_a_repair_is_not_built_on", seed, |world| {
            let node = grown(world)?;
            world.cut_power(node, Survivors::ALL[seed as usize % 7]);
            world.restart(node);
            run_for(world, seed * 50 * US)?;
            world.fail_next_sync(node, Failure::CleanKeep);
            run_for(world, 30 * MS)?;
            world.cut_power(node, Survivors::None);
            restart_all(world);
            heals(world)
        });
    }
}

/// A leader that nobody hears goes on appending in its old term; what it appended is cut when it
/// is heard again, also if it crashes while it cuts.
#[test]
fn a_conflict_is_overwritten_through_crashes() {
    for seed in 0..20 {
        tell("a_conflict_is_overwritten_through_crashes", seed, |world| {
            let old = grown(world)?;
            let side: Vec<bool> = (0..3).map(|node| node == old).collect();
            world.partition(&side, true, false);
            for n in 0..5 {
                world.request(old, Op::Propose(vec![n; 300]))?;
            }
            let other = |world: &Cluster| leader(world).is_some_and(|leader| leader != old);
            run_until(world, 2_000 * MS, "another leader", other)?;
            run_for(world, 100 * MS)?;
            world.rejoin();
            run_for(world, seed * MS)?;
            world.cut_power(old, Survivors::ALL[seed as usize % 7]);
            world.restart(old);
            heals(world)
        });
    }
}

/// One copy of the hard state rots on every node; the other one is enough.
#[test]
fn a_vote_survives_the_loss_of_one_copy_of_the_hard_state() {
    for copy in [0, 1] {
        tell("a_vote_survives_the_loss_of_one_copy_of_the_hard_state", 3, |world| {
            grown(world)?;
            let terms: Vec<_> = (0..3).map(|node| probe(world, node).term).collect();
            cut_all(world, Survivors::None);
            (0..3).for_each(|node| world.rot_hard_state(node, copy));
            restart_all(world);
            heals(world)?;
            assert!((0..3).all(|node| probe(world, node).term >= terms[node]));
            Ok(())
        });
    }
}

/// What a node restarts from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum From {
    Log,
    Snapshot,
    SnapshotWithoutLog,
}

const FROM: [From; 3] = [From::Log, From::Snapshot, From::SnapshotWithoutLog];

fn restarts_from(probe: &Probe) -> From {
    match (probe.snapshot.index, probe.first) {
        (LogIndex(0), _) => From::Log,
        (_, LogIndex(1)) => From::Snapshot,
        _ => From::SnapshotWithoutLog,
    }
}

/// Each of three nodes has its log alone, a snapshot beside the whole log, or a snapshot and no log
/// below it: they restart at once, in every mix.
#[test]
fn nodes_restart_together_from_logs_and_snapshots_in_every_mix() {
    let mut plan = Plan::calm(8, 3);
    plan.segment_bytes = 8 << 10;
    plan.tuning.append_bytes_max = 2 << 10;
    // Snapshots on request only, and then nothing is kept for others.
    plan.tuning.snapshot_log_bytes = 0;
    plan.tuning.retain_log_bytes = 0;
    for mix in 0..27 {
        let wanted = [mix / 9, mix / 3 % 3, mix % 3].map(|of| FROM[of]);
        let world = World::new(plan.clone(), Ledger::default, workload as Ask);
        let told = observe(Seed::new(8).traced(), world, |world: &mut Cluster| {
            grown(world)?;
            for (node, wanted) in wanted.into_iter().enumerate() {
                while restarts_from(&probe(world, node)) != wanted {
                    let before = probe(world, node).snapshot;
                    world.ask_for_snapshot(node)?;
                    let is_there = |world: &Cluster| probe(world, node).snapshot > before;
                    run_until(world, 1_000 * MS, "a snapshot", is_there)?;
                    run_for(world, 40 * MS)?;
                }
            }
            let all = [0, 1, 2].map(|node| restarts_from(&probe(world, node)));
            assert_eq!(all, wanted, "as it was brought about");
            cut_all(world, Survivors::ALL[mix % 7]);
            restart_all(world);
            heals(world)
        });
        if let Err(failure) = told {
            panic!("{wanted:?}: {failure}");
        }
    }
}

/// A leader that nobody hears is asked for what another one has changed meanwhile: by its lease, or by asking a quorum
/// whether it leads. Whether what it answers is of the past.
fn lease_of_the_past(name: &str, seed: u64, stalls: bool, by_lease: bool) -> bool {
    let mut plan = Plan::calm(seed, 3);
    plan.tuning.lease_drift_ppm = Some(2_000);
    plan.manner.rounds = if by_lease { 0 } else { 1 << 16 };
    let world = || World::new(plan.clone(), Ledger::default, workload as Ask);
    let story = |world: &mut Cluster| {
        let old = grown(world)?;
        world.request(old, Op::Read(vec![b'n']))?;
        assert!(!by_lease || world.marks_of(old).has(Mark::LeaseRead), "it answers at once");
        let side: Vec<bool> = (0..3).map(|node| node == old).collect();
        world.partition(&side, true, false);
        if stalls {
            world.stall_clock(old, 1_000 * MS);
        }
        let another = |world: &Cluster| leader(world).is_some_and(|leader| leader != old);
        run_until(world, 1_000 * MS, "another leader", another)?;
        write(world, b"news")?;
        world.request(old, Op::Read(vec![b'n']))?;
        run_for(world, 10 * MS)?;
        heals(world)
    };
    match observe(Seed::new(seed), world(), story) {
        Ok(_) => false,
        Err(failure) => {
            let told = failure.to_string();
            assert!(told.contains("broken: a lease holds: "), "{name}: {told}");
            println!("{}", told.lines().next().unwrap_or_default());
            true
        }
    }
}

/// A clock that stands still breaks what was declared of it: then a lease is believed that another leader's
/// election has ended, and the oracle sees it. Within the bound it never does; and who asks a quorum is told nothing
/// of the past, whatever clocks do.
#[test]
fn a_lease_is_as_good_as_the_clocks_it_rests_on() {
    let name = "a_lease_is_as_good_as_the_clocks_it_rests_on";
    let stale = |stalls, by_lease| {
        (0..20).filter(|seed| lease_of_the_past(name, *seed, stalls, by_lease)).count()
    };
    assert_eq!((stale(false, true), stale(true, true)), (0, 20));
    assert_eq!((stale(false, false), stale(true, false)), (0, 0));
}

/// To each in turn, under load: no election is waited for, and nothing is lost.
#[test]
fn leadership_goes_round_under_load() {
    for seed in 0..20 {
        tell("leadership_goes_round_under_load", seed, |world| {
            grown(world)?;
            for round in 0..6 {
                let old = leader(world).expect("somebody leads");
                let heir = (old + 1 + round % 2) % 3;
                world.hand_over(old, Some(heir))?;
                run_until(world, 20 * MS, "the heir to lead", |world| leader(world) == Some(heir))?;
                run_for(world, 20 * MS)?;
                assert!(world.marks_of(old).has(Mark::HandedOver), "it knows who leads");
            }
            heals(world)
        });
    }
}

/// A leader that is asked to stop hands over first: there is always one, and clients hardly notice.
#[test]
fn a_leader_that_stops_leaves_an_heir() {
    for seed in 0..20 {
        tell("a_leader_that_stops_leaves_an_heir", seed, |world| {
            let old = grown(world)?;
            world.strike(&FaultKind::Stop { node: old, hand_over: true })?;
            let is_down = |world: &Cluster| world.probe(old).is_none();
            run_until(world, 30 * MS, "a stop within less than an election timeout", is_down)?;
            assert!(leader(world).is_some_and(|leader| leader != old));
            heals(world)
        });
    }
}

#[test]
fn a_leader_that_is_isolated_serves_no_reads_and_steps_down() {
    tell("a_leader_that_is_isolated_serves_no_reads_and_steps_down", 6, |world| {
        let old = grown(world)?;
        let side: Vec<bool> = (0..3).map(|node| node == old).collect();
        world.partition(&side, true, false);
        run_for(world, 400 * MS)?;
        assert_ne!(probe(world, old).role, Role::Leader, "nobody answers it");
        let read = world.request(old, Op::Read(vec![1]))?;
        run_for(world, 100 * MS)?;
        let fate = world.fate(read);
        assert!(!matches!(fate, lakebed_sim::Fate::Answered(_)), "{fate:?}");
        heals(world)
    });
}

/// Priority: whoever waits less leads, if it lives. One that comes back disturbs nobody, and is
/// the first to stand again when it is needed.
#[test]
fn the_node_that_waits_least_leads() {
    for seed in 0..40 {
        let mut plan = Plan::calm(seed, 3);
        plan.tuning.election_delay = plan.tuning.election.1;
        lakebed_scenarios::telling::tell("the_node_that_waits_least_leads", plan, |world| {
            serve(world)?;
            world.dismiss_clients();
            run_for(world, 200 * MS)?;
            for (leads, next) in [(0, 1), (1, 0), (0, 1)] {
                assert_eq!(leader(world), Some(leads));
                world.cut_power(leads, Survivors::All);
                let is_next = |world: &Cluster| leader(world).is_some();
                run_until(world, 2_000 * MS, "another leader", is_next)?;
                assert_eq!(leader(world), Some(next));
                world.restart(leads);
                run_for(world, 500 * MS)?;
            }
            converge(world)
        });
    }
}

/// A disk hangs, and the link to its node breaks again and again: the node was given another window each
/// time, and held in memory whatever it was given.
#[test]
fn a_node_whose_disk_hangs_holds_a_window_however_often_its_link_breaks() {
    for seed in 0..6 {
        tell(
            "a_node_whose_disk_hangs_holds_a_window_however_often_its_link_breaks",
            seed,
            |world| {
                let leads = grown(world)?;
                let behind = (leads + 1) % 3;
                world.hang_disk(behind);
                for _ in 0..40 {
                    for n in 0..40 {
                        world.request(leads, Op::Propose(vec![n; 900]))?;
                    }
                    run_for(world, 10 * MS)?;
                    world.isolate(behind, true);
                    world.readmit(behind);
                    run_for(world, 20 * MS)?;
                }
                world.release_disk(behind);
                heals(world)
            },
        );
    }
}

/// Wall clocks are set back while one leads, between two reigns, and before all restart: what each of these
/// goes by is kept elsewhere, in the log, in what a follower was sent, and on the disk.
#[test]
fn the_time_of_entries_goes_on_when_clocks_are_set_back() {
    const SECONDS: i64 = 1_000 * MS as i64;
    for seed in 0..4 {
        tell("the_time_of_entries_goes_on_when_clocks_are_set_back", seed, |world| {
            let first = grown(world)?;
            world.step_wall_clock(first, 20 * SECONDS);
            run_for(world, 50 * MS)?;
            world.step_wall_clock(first, -10 * SECONDS);
            run_for(world, 50 * MS)?;
            world.hand_over(first, None)?;
            let is_another = |world: &Cluster| leader(world).is_some_and(|leader| leader != first);
            run_until(world, 1_000 * MS, "another leader", is_another)?;
            write(world, b"by a clock that was never ahead")?;
            cut_all(world, Survivors::All);
            restart_all(world);
            serve(world)?;
            let acknowledged = world.acknowledged();
            run_for(world, 50 * MS)?;
            assert!(world.acknowledged() > acknowledged, "times were compared");
            heals(world)
        });
    }
}

/// Four founders have met. One went down before it had a term, and when it is back another one is gone for
/// good: it would greet that one for ever if nobody who stayed told it who the members are.
#[test]
fn a_founder_that_was_down_is_told_who_has_left() {
    const NAME: &str = "a_founder_that_was_down_is_told_who_has_left";
    let down = 3;
    let is =
        |world: &Cluster, role: Role| world.probe(down).is_some_and(|probe| probe.role == role);
    for seed in 0..6 {
        lakebed_scenarios::telling::tell(NAME, Plan::calm(seed, 4), |world| {
            let have_met = |world: &Cluster| {
                (0..4).all(|node| world.probe(node).is_some_and(|probe| probe.ready))
            };
            run_until(world, 1_000 * MS, "the founders to have met", have_met)?;
            assert_eq!(probe(world, down).term, Term(0));
            world.cut_power(down, Survivors::None);
            run_until(world, 1_000 * MS, "a leader", |world| leader(world).is_some())?;
            write(world, b"without it")?;
            let leads = leader(world).expect("it answered");
            let goes = (leads + 1) % 3;
            // A voter that never answered would keep everybody from being removed.
            world.want_change(&Steps(vec![Step::Demote(down), Step::Remove(goes)]))?;
            run_until(world, 1_000 * MS, "one to leave", |world| world.has_left(goes))?;
            world.restart(down);
            let asks = |world: &Cluster| is(world, Role::Forming);
            run_until(world, 100 * MS, "the founder to ask", asks)?;
            run_until(world, 1_000 * MS, "the founder to be told", |world| !asks(world))?;
            world.dismiss_clients();
            let is_level = |world: &Cluster| {
                let (applied, last) = (probe(world, down).applied, probe(world, leads).last.index);
                applied == last && probe(world, leads).applied == last
            };
            run_until(world, 2_000 * MS, "the founder to have the log", is_level)
        });
    }
}
