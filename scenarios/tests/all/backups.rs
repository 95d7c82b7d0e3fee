//! Backups, taken out of clusters under load and faults and made into new ones: what was taken is
//! the state, and the new cluster goes on from there, wherever it crashes on its way.

use lakebed::{Control, Halt, LogIndex, Mark, Marks, Origin, Outcome, Refusal, Role};
use lakebed_scenarios::{Ask, machine::Ledger, workload};
use lakebed_sim::{
    Seed, Taken, Violation, World,
    disk::Survivors,
    plan::{MS, Plan},
    storm::{converge, observe, run_for, run_until, serve},
};
use std::{sync::Arc, time::Duration};

type Cluster = World<Ledger, Ask>;
type Told = Result<(), Violation>;

/// Small segments and snapshots, and many of both.
fn plan(seed: u64) -> Plan {
    let mut plan = Plan::calm(seed, 3);
    plan.segment_bytes = 16 << 10;
    plan.tuning.append_bytes_max = 4 << 10;
    plan.tuning.inflight_bytes_max = 16 << 10;
    plan.tuning.snapshot_log_bytes = 8 << 10;
    plan.tuning.retain_log_bytes = 0;
    plan
}

fn world(plan: Plan) -> Cluster {
    World::new(plan, Ledger::default, workload as Ask)
}

/// Tells a story in a traced world; what it says at its end. The world keeps every command.
fn tell(seed: u64, world: Cluster, story: impl FnOnce(&mut Cluster) -> Told) {
    if let Err(failure) = observe(Seed::new(seed).traced(), world, story) {
        panic!("seed {seed}: {}\n{}", failure.violation, failure.lines.join("\n"));
    }
}

/// A backup of a cluster that has lived a while, and how far it had come.
fn taken(seed: u64) -> Arc<Taken> {
    let mut taken = None;
    tell(seed, world(plan(seed)), |world| {
        serve(world)?;
        run_until(world, 5_000 * MS, "snapshots", |world| world.stats().snapshots > 6)?;
        let backup = world.back_up(seed as usize % 3)?.expect("nothing was done to the node");
        world.check_backup(&backup)?;
        taken = Some(Arc::new(backup));
        Ok(())
    });
    taken.expect("the story came to its end")
}

fn made_from(seed: u64, taken: &[Option<Arc<Taken>>]) -> Cluster {
    World::made_from(plan(seed), Ledger::default, workload as Ask, taken.to_vec())
}

fn cut_and_restart(world: &mut Cluster, nodes: impl IntoIterator<Item = usize>, of: Survivors) {
    for node in nodes {
        world.cut_power(node, of);
    }
    let down: Vec<usize> = (0..world.nodes()).filter(|n| world.probe(*n).is_none()).collect();
    down.into_iter().for_each(|node| world.restart(node));
}

#[test]
fn a_backup_under_load_and_crashes_is_the_state_at_its_position() {
    let (mut whole, mut broken) = (0, 0);
    for seed in 0..12 {
        tell(seed, world(plan(seed)), |world| {
            serve(world)?;
            for turn in 0..12 {
                run_for(world, 60 * MS)?;
                let node = (seed as usize + turn) % 3;
                if turn % 4 == 3 {
                    // Its power fails in the middle of being read, or was gone before.
                    if let Some(Outcome::Pinned(file, _)) =
                        world.carry_out(node, Control::PinSnapshot)?
                    {
                        let read = Control::ReadPinned { file, offset: 0, len: 9 };
                        let order = world.order(node, read)?;
                        cut_and_restart(world, [node], Survivors::Random);
                        assert_eq!(world.outcome(order), None, "nobody is left to answer");
                    }
                }
                match world.back_up(node)? {
                    Some(backup) => {
                        world.check_backup(&backup)?;
                        whole += 1;
                    }
                    None => broken += 1,
                }
            }
            world.heal();
            serve(world)?;
            converge(world)
        });
    }
    assert!(whole > 60 && broken > 5, "{whole} whole, {broken} broken off");
}

#[test]
fn a_new_cluster_goes_on_from_a_backup_wherever_it_crashes() {
    let mut marks = Marks::default();
    for seed in 0..3 {
        let backup = taken(seed);
        let at = backup.backup.at;
        for events in (0..260).step_by(2) {
            tell(seed, made_from(seed, &vec![Some(Arc::clone(&backup)); 3]), |world| {
                while world.stats().events < events {
                    world.step()?;
                }
                let survivors = Survivors::ALL[events as usize / 2 % 7];
                let nodes = if events % 3 == 0 { 0..3 } else { 0..1 };
                cut_and_restart(world, nodes, survivors);
                world.heal();
                serve(world)?;
                converge(world)?;
                for node in 0..3 {
                    let probe = world.probe(node).expect("all are up");
                    assert!(probe.committed > at.index && probe.term > at.term, "{at}");
                }
                marks.add(world.marks());
                Ok(())
            });
        }
    }
    for mark in [Mark::RestoreRepeated, Mark::FormedFromBackup, Mark::SnapshotRestored] {
        assert!(marks.has(mark), "{mark:?}");
    }
}

/// The backup of a restored cluster is one like any other.
#[test]
fn a_backup_of_a_restored_cluster_is_restored_again() {
    let first = taken(5);
    let mut second = None;
    tell(5, made_from(6, &vec![Some(Arc::clone(&first)); 3]), |world| {
        serve(world)?;
        run_for(world, 300 * MS)?;
        let order = world.carry_out(1, Control::Snapshot)?;
        assert!(matches!(order, Some(Outcome::Done(at)) if at > first.backup.at), "{order:?}");
        second = world.back_up(1)?;
        Ok(())
    });
    let second = second.expect("nothing was done to the node");
    assert!(second.backup.at > first.backup.at && second.backup.cluster != first.backup.cluster);
    // In the simulator all new clusters are called alike, and a backup of that one is refused.
    let of_the_old = Taken {
        backup: lakebed::Backup { cluster: first.backup.cluster, ..second.backup },
        ..second
    };
    let second = Arc::new(of_the_old);
    tell(7, made_from(7, &vec![Some(second); 3]), |world| {
        serve(world)?;
        converge(world)
    });
}

#[test]
fn members_of_different_backups_or_none_do_not_form_a_cluster() {
    let (one, other) = (taken(1), taken(2));
    let (mut odd_ones, mut others) = (0, 0);
    for odd in [None, Some(other)] {
        for at in 0..3 {
            let mut made = vec![Some(Arc::clone(&one)); 3];
            made[at].clone_from(&odd);
            let mut world = made_from(at as u64, &made);
            world.dismiss_clients();
            tell(at as u64, world, |world| {
                run_for(world, 8_000 * MS)?;
                let out = (0..3).filter(|node| world.is_out(*node)).count();
                assert!(out > 0, "whoever hears of another beginning says so and ends");
                odd_ones += usize::from(world.is_out(at));
                others += out - usize::from(world.is_out(at));
                let leads = |n| world.probe(n).is_some_and(|probe| probe.role == Role::Leader);
                assert!(!(0..3).any(leads) && world.acknowledged() <= one.backup.at.index);
                Ok(())
            });
        }
    }
    assert!(odd_ones > 2 && others > 2, "{odd_ones} odd ones ended, and {others} others");
    let (own, theirs) = (Origin::default(), Origin { at: one.backup.at, id: one.backup.id });
    let told = Halt::OtherOrigin { peer: lakebed::NodeId(2), own, theirs }.to_string();
    assert!(told.contains("this node begins with nothing, and node 2 with snapshot"), "{told}");
}

#[test]
fn a_pinned_snapshot_outlives_others_and_ends_when_nobody_reads() {
    let mut short = plan(3);
    short.tuning.pin_idle = Duration::from_millis(400);
    tell(3, world(short), |world| {
        serve(world)?;
        run_until(world, 5_000 * MS, "a snapshot", |world| world.stats().snapshots > 3)?;
        let pinned = world.carry_out(0, Control::PinSnapshot)?;
        let Some(Outcome::Pinned(file, bytes)) = pinned else { panic!("{pinned:?}") };
        let pinned_at = world.probe(0).expect("it is up").snapshot;
        let newer = |world: &Cluster| world.disk(0).list().any(|(found, _)| found == file);
        let read = |world: &mut Cluster, offset| {
            world.carry_out(0, Control::ReadPinned { file, offset, len: 1 << 30 })
        };
        // As long as it is read now and then it stays, whatever is taken meanwhile.
        for _ in 0..12 {
            run_for(world, 150 * MS)?;
            let piece = read(world, 5)?;
            assert!(
                matches!(&piece, Some(Outcome::Read(piece)) if piece.len() as u64 == bytes - 5)
            );
        }
        assert!(world.marks_of(0).has(Mark::SnapshotKeptForPin) && newer(world));
        assert!(world.probe(0).expect("it is up").snapshot > pinned_at);
        assert_eq!(read(world, bytes)?, Some(Outcome::Read(Default::default())), "its end");
        // Then nobody reads any more.
        run_for(world, 1_000 * MS)?;
        assert!(world.marks_of(0).has(Mark::PinExpired) && !newer(world));
        let refused = Some(Outcome::Refused(Refusal::NotPinned(file)));
        assert_eq!(read(world, 0)?, refused);
        assert_eq!(world.carry_out(0, Control::Unpin { file })?, refused);
        // Nor does a restart remember one.
        let again = world.carry_out(0, Control::PinSnapshot)?;
        let Some(Outcome::Pinned(file, _)) = again else { panic!("{again:?}") };
        cut_and_restart(world, [0], Survivors::All);
        serve(world)?;
        let read = world.carry_out(0, Control::ReadPinned { file, offset: 0, len: 1 })?;
        assert_eq!(read, Some(Outcome::Refused(Refusal::NotPinned(file))));
        Ok(())
    });
}

#[test]
fn pins_are_few_and_counted() {
    tell(4, world(plan(4)), |world| {
        run_until(world, 2_000 * MS, "a node", |world| {
            world.probe(0).is_some_and(|probe| probe.ready)
        })?;
        assert_eq!(world.probe(0).expect("it is up").applied, LogIndex(0));
        for control in [Control::Snapshot, Control::PinSnapshot] {
            let nothing = Some(Outcome::Refused(Refusal::NoSnapshot));
            assert_eq!(world.carry_out(0, control)?, nothing);
        }
        serve(world)?;
        converge(world)?;
        let done = world.carry_out(0, Control::Snapshot)?;
        let Some(Outcome::Done(at)) = done else { panic!("{done:?}") };
        assert_eq!(world.carry_out(0, Control::Snapshot)?, Some(Outcome::Done(at)), "no news");
        let pinned = world.carry_out(0, Control::PinSnapshot)?;
        let Some(Outcome::Pinned(file, _)) = pinned else { panic!("{pinned:?}") };
        let mut count = 1;
        while matches!(world.carry_out(0, Control::PinSnapshot)?, Some(Outcome::Pinned(..))) {
            count += 1;
            assert!(count < 100, "pins without end");
        }
        let busy = world.carry_out(0, Control::PinSnapshot)?;
        assert_eq!(busy, Some(Outcome::Refused(Refusal::Busy)));
        for _ in 0..count {
            assert_eq!(world.carry_out(0, Control::Unpin { file })?, Some(Outcome::Done(at)));
        }
        let none = Some(Outcome::Refused(Refusal::NotPinned(file)));
        assert_eq!(world.carry_out(0, Control::Unpin { file })?, none);
        Ok(())
    });
}

#[test]
fn a_snapshot_is_taken_for_its_age_alone() {
    let mut aged = plan(5);
    aged.tuning.snapshot_log_bytes = 0;
    aged.tuning.snapshot_age = Duration::from_millis(300);
    tell(5, world(aged), |world| {
        serve(world)?;
        run_for(world, 2_000 * MS)?;
        assert!(world.marks().has(Mark::SnapshotForAge));
        let per_node = world.stats().snapshots / 3;
        assert!((4..=8).contains(&per_node), "{per_node} in two seconds");
        // Without news no snapshot is taken, however old the last one is.
        world.dismiss_clients();
        run_for(world, 1_000 * MS)?;
        let before = world.stats().snapshots;
        run_for(world, 3_000 * MS)?;
        assert_eq!(world.stats().snapshots, before);
        Ok(())
    });
}

#[test]
fn a_snapshot_that_has_no_room_is_refused_and_taken_when_there_is() {
    let mut asked = plan(6);
    asked.tuning.snapshot_log_bytes = 0;
    tell(6, world(asked), |world| {
        serve(world)?;
        run_for(world, 200 * MS)?;
        converge(world)?;
        world.fill_disk(0);
        let refused = world.carry_out(0, Control::Snapshot)?;
        assert_eq!(refused, Some(Outcome::Refused(Refusal::DiskFull)));
        assert!(world.marks_of(0).has(Mark::SnapshotGivenUp));
        assert_eq!(world.probe(0).expect("it goes on").snapshot.index, LogIndex(0));
        world.heal();
        let done = world.carry_out(0, Control::Snapshot)?;
        let applied = world.probe(0).expect("it is up").applied;
        assert!(matches!(done, Some(Outcome::Done(at)) if at.index == applied), "{done:?}");
        Ok(())
    });
}
