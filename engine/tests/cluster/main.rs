//! Whole engines in one process: real bytes on pretended disks, real messages between them.

mod plain;
mod world;

use lakebed::{ChangeRefusal, Control, Event, Halt, LogId, LogIndex, Mark, Outcome};
use lakebed::{Phase, ReadMode, Refusal, Role, Start, TransferRefusal, Tuning};
use std::time::Duration;
use world::{MS, World};

fn log_of(world: &World, node: u64) -> Vec<String> {
    world.at(node).machine.iter().map(|c| String::from_utf8_lossy(c).into_owned()).collect()
}

#[test]
fn a_cluster_forms_elects_and_replicates() {
    let mut world = World::formatted(3);
    world.until("a leader", |world| world.leader().is_some());
    let leader = world.leader().expect("there is one");
    let other = leader % 3 + 1;
    world.propose(leader, 1, &["a", "b"]);
    world.propose(other, 10, &["c"]);
    world.until("everybody applied", |world| (1..=3).all(|id| log_of(world, id).len() == 3));
    assert_eq!(world.at(leader).answered, [1, 2]);
    assert_eq!(world.at(other).answered, [10]);
    assert!((1..=3).all(|id| log_of(&world, id) == log_of(&world, 1)));
    assert!((1..=3).all(|id| world.at(id).engine.status().ready));
}

#[test]
fn acknowledged_writes_survive_a_restart_of_all() {
    let mut world = World::formatted(3);
    world.until("a leader", |world| world.leader().is_some());
    for request in 0..50 {
        let leader = world.leader().expect("nothing disturbs it");
        world.propose(leader, request, &["x"]);
        world.until("the answer", |world| world.at(leader).answered.contains(&request));
    }
    let term = world.at(1).engine.status().term;
    (1..=3).for_each(|id| world.restart(id, Start::Run));
    world.until("a leader again", |world| world.leader().is_some());
    world.until("everybody replayed", |world| (1..=3).all(|id| log_of(world, id).len() == 50));
    assert!(world.at(1).engine.status().term > term, "terms are remembered");
    assert_eq!(world.at(1).engine.status().recovery.phase, Phase::Ready);
}

#[test]
fn a_follower_that_was_away_catches_up_from_disk() {
    let tuning = Tuning::default();
    let mut world = World::tuned(3, |config| {
        config.tuning.append_bytes_max = 4 << 10;
        config.tuning.cache_bytes_max = 16 << 10;
        config.tuning.catch_up_bytes_max = 8 << 10;
    });
    assert!(tuning.cache_bytes_max > 16 << 10, "the default would hide the disk");
    world.until("a leader", |world| world.leader().is_some());
    let leader = world.leader().expect("there is one");
    let away = leader % 3 + 1;
    world.stop(away);
    let command = "c".repeat(1000);
    for request in 0..300 {
        world.propose(leader, request, &[&command]);
        world.until("the answer", |world| world.at(leader).answered.contains(&request));
    }
    let status = world.at(leader).engine.status();
    assert!(status.memory_bytes < 64 << 10, "{}", status.memory_bytes);
    world.restart(away, Start::Run);
    world.until("it caught up", |world| log_of(world, away).len() == 300);
    assert!(world.at(leader).engine.status().marks.has(Mark::PeerFedFromDisk));
}

#[test]
fn a_snapshot_shortens_the_log_and_a_restart_begins_from_it() {
    let mut world = World::tuned(1, |config| {
        config.segment_bytes = 64 << 10;
        config.tuning.append_bytes_max = 4 << 10;
    });
    world.until("a leader", |world| world.leader().is_some());
    let command = "c".repeat(500);
    for request in 0..300 {
        world.propose(1, request, &[&command]);
        world.until("the answer", |world| world.at(1).answered.contains(&request));
    }
    // The log reaches back to the older of two snapshots: the first one alone frees nothing.
    for (id, before) in [(998, "between"), (999, "behind")] {
        let newest = world.at(1).engine.status().snapshot;
        world.event(1, Event::Control { id: lakebed::RequestId(id), control: Control::Snapshot });
        world.until("the snapshot", |world| world.at(1).engine.status().snapshot > newest);
        let snapshot = world.at(1).engine.status().snapshot;
        assert_eq!(world.at(1).ended.last(), Some(&(id, Outcome::Done(snapshot))));
        world.propose(1, id, &[before]);
        world.until("the answer", |world| world.at(1).answered.contains(&id));
    }
    world.until("the log is shorter", |world| world.at(1).engine.status().first > LogIndex(1));
    world.propose(1, 1000, &["after"]);
    world.until("the answer", |world| world.at(1).answered.contains(&1000));
    world.restart(1, Start::Run);
    world.until("everything is back", |world| log_of(world, 1).len() == 303);
    assert_eq!(log_of(&world, 1).last().map(String::as_str), Some("after"));
}

/// Behind a snapshot what may still be written until then, and what was, are more than a number holds.
#[test]
fn a_limit_of_all_bytes_there_can_be_is_never_met() {
    let mut world = World::formatted(1);
    world.until("a leader", |world| world.leader().is_some());
    world.propose(1, 1, &["before"]);
    world.until("the answer", |world| world.at(1).answered.contains(&1));
    world.event(1, Event::Control { id: lakebed::RequestId(2), control: Control::Snapshot });
    world.until("the snapshot", |world| world.at(1).engine.status().snapshot != LogId::ZERO);
    let snapshot = world.at(1).engine.status().snapshot;
    let mut tuning = Tuning::default();
    tuning.snapshot_log_bytes = u64::MAX;
    world.event(1, Event::Tune(Box::new(tuning)));
    for request in 3..6 {
        world.propose(1, request, &["after"]);
        world.until("the answer", |world| world.at(1).answered.contains(&request));
    }
    assert_eq!(world.at(1).engine.status().snapshot, snapshot);
}

#[test]
fn a_read_at_any_node_sees_what_was_acknowledged() {
    let mut world = World::formatted(3);
    world.until("a leader", |world| world.leader().is_some());
    for request in 0..10 {
        world.propose(request % 3 + 1, request, &["x"]);
        world.until("the answer", |w| w.at(request % 3 + 1).answered.contains(&request));
        let reader = (request + 1) % 3 + 1;
        world.read(reader, 100 + request, ReadMode::Linearizable);
        world.until("the read", |w| w.at(reader).queried.iter().any(|q| q.0 == 100 + request));
        let seen = world.at(reader).queried.last().expect("it was just answered").1;
        assert!(seen > request as usize, "{seen} commands seen after {request}");
    }
}

#[test]
fn an_isolated_leader_is_replaced_and_its_proposals_are_unknown() {
    let mut world = World::formatted(3);
    world.until("a leader", |world| world.leader().is_some());
    let old = world.leader().expect("there is one");
    world.isolated = Some(old);
    world.propose(old, 1, &["lost"]);
    world.until("it steps down", |w| w.at(old).engine.status().role != Role::Leader);
    assert_eq!(world.at(old).ended, [(1, Outcome::Unknown)]);
    world.until("another leads", |w| w.leader().is_some_and(|leader| leader != old));
    let new = world.leader().expect("there is one");
    world.propose(new, 2, &["kept"]);
    world.isolated = None;
    world.until("all agree", |world| (1..=3).all(|id| log_of(world, id) == ["kept"]));
}

#[test]
fn a_wiped_member_is_refused_with_the_way_back() {
    let mut world = World::formatted(3);
    world.until("a leader", |world| world.leader().is_some());
    let leader = world.leader().expect("there is one");
    let wiped = leader % 3 + 1;
    world.wipe(wiped);
    world.until("it is turned away", |world| world.at(wiped).halted.is_some());
    assert!(matches!(world.at(wiped).halted, Some(Halt::DiskLost { .. })));
    assert!(world.at(leader).engine.status().marks.has(Mark::NewcomerTurnedAway));
}

#[test]
fn a_stop_is_the_last_action_and_ends_every_request() {
    let mut world = World::formatted(3);
    world.until("a leader", |world| world.leader().is_some());
    let leader = world.leader().expect("there is one");
    world.isolated = Some(leader);
    world.propose(leader, 1, &["in flight"]);
    world.event(leader, Event::Stop { hand_over: false });
    world.until("it has stopped", |world| world.at(leader).halted.is_some());
    assert_eq!(world.at(leader).halted, Some(Halt::Stopped));
    assert_eq!(world.at(leader).ended, [(1, Outcome::Unknown)]);
    assert_eq!(world.at(leader).engine.deadline(), None);
}

/// Else a restart would write the tail again, and damage to it would pass for a torn one.
#[test]
fn a_node_that_stops_has_proven_all_that_it_holds() {
    let mut world = World::formatted(1);
    world.until("a leader", |world| world.leader().is_some());
    world.propose(1, 1, &["the last word"]);
    world.event(1, Event::Stop { hand_over: false });
    world.until("it has stopped", |world| world.at(1).halted.is_some());
    let last = world.at(1).engine.status().last;
    world.restart(1, Start::Inspect);
    let Some(Halt::Inspected(found)) = &world.at(1).halted else { panic!("it only looks") };
    assert_eq!(found.log.as_ref().map(|log| log.proven), Some(last));
}

#[test]
fn orders_that_nobody_can_carry_out_are_refused_with_the_reason() {
    let mut world = World::formatted(1);
    world.until("a leader", |world| world.leader().is_some());
    let orders = [
        (Control::Transfer { to: None }, Refusal::Transfer(TransferRefusal::Nobody)),
        (Control::Change(vec![]), Refusal::Change(ChangeRefusal::Nothing)),
    ];
    for (id, (control, why)) in (1..).zip(orders) {
        world.event(1, Event::Control { id: lakebed::RequestId(id), control });
        assert_eq!(world.at(1).ended.last(), Some(&(id, Outcome::Refused(why))));
    }
}

/// Purity: a fork given the same events does the same.
#[test]
fn a_fork_does_the_same() {
    let mut world = World::formatted(3);
    world.until("a leader", |world| world.leader().is_some());
    let leader = world.leader().expect("there is one");
    let mut fork = world.clone();
    for world in [&mut world, &mut fork] {
        world.propose(leader, 1, &["a"]);
        world.run_for(Duration::from_secs(3));
    }
    assert_eq!(world.trace, fork.trace);
    assert_eq!(world.now, fork.now);
    assert!(world.now.0 > 3000 * MS);
}
