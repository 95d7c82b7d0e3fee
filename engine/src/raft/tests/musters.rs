//! Groups that come from a rest: who is there is not known yet.

use super::{
    changes::member,
    rests::{REST, resting},
    *,
};
use crate::change::Change;

/// It is decided once all have answered who may be there, and not by what was heard before the rest.
#[test]
fn a_change_in_a_group_that_wakes_waits_and_is_decided() {
    let mut cluster = resting(3);
    cluster.pass(60_000 * MS);
    cluster.change(1, 100, &[Change::AddLearner(member(1))]);
    cluster.settle(1);
    assert_eq!(cluster.outcome(1, 100), None, "nobody has answered");
    assert!(cluster.at(1).raft.change_deadline().is_some(), "nor may anybody ever");
    cluster.elapse(200 * MS);
    assert!(matches!(cluster.outcome(1, 100), Some(Outcome::Refused(Refusal::Change(_)))));
}

/// Whoever's link is down is not waited for, and nobody for longer than silence is borne.
#[test]
fn those_who_may_be_there_are_waited_for() {
    let mut cluster = resting(3);
    cluster.pass(60_000 * MS);
    let (now, silence) = (cluster.now, Duration::from_secs(1));
    let raft = &mut cluster.at(1).raft;
    raft.wake();
    let Role::Leader(leader) = &mut raft.role else { panic!("it leads") };
    let until = now.after(silence + Duration::from_nanos(1));
    assert_eq!(leader.musters_until(now, silence), Some(until));
    assert_eq!(leader.musters_until(now.after(silence), silence), Some(until));
    assert_eq!(leader.musters_until(until, silence), None);
    leader.peers[0].paused = true;
    assert_eq!(leader.musters_until(now, silence), Some(until), "the other one may be there");
    leader.peers[1].heard = now.after(silence);
    assert_eq!(leader.musters_until(now, silence), None);
}

/// It has nobody to beat for, and its driver calls it when it says.
#[test]
fn a_leader_that_is_alone_wakes_once_to_rest() {
    let tuning = Tuning { hibernate_after: Duration::from_nanos(REST), ..Tuning::default() };
    let mut cluster = Cluster::tuned(vec![disk_with(1, &[], 1)], tuning);
    cluster.elect(1);
    cluster.propose(1, 1, &["a"]);
    cluster.run();
    let deadline = cluster.at(1).raft.deadline().expect("it is to rest");
    assert!(deadline > cluster.now);
    cluster.pass(deadline.0 - cluster.now.0);
    cluster.run();
    assert!(cluster.at(1).raft.is_asleep());
    assert_eq!(cluster.at(1).raft.deadline(), None);
}

/// Its way to somebody is another one, or what it rests by.
#[test]
fn a_leader_that_rests_wakes_by_what_it_is_told() {
    let told: [fn(&mut Raft); 2] = [
        |raft| raft.on_link(node(3), true),
        |raft| {
            let hibernate_after = Duration::from_secs(60);
            raft.on_tune(&Tuning { hibernate_after, ..raft.tuning.clone() });
        },
    ];
    for tell in told {
        let mut cluster = resting(3);
        tell(&mut cluster.at(1).raft);
        assert!(!cluster.at(1).raft.is_asleep());
    }
}

/// While members change it is one of those before as well as one of those to come.
#[test]
fn a_link_that_is_down_is_known_of_every_member() {
    let mut cluster = Cluster::led(4);
    let raft = &mut cluster.at(2).raft;
    raft.membership = Arc::new(Membership { at: id(2, 7), ..members(3) });
    [4, 5].into_iter().for_each(|id| raft.on_link(node(id), false));
    assert_eq!(raft.unlinked, [node(4)]);
    std::mem::swap(&mut raft.membership, &mut raft.previous);
    [4, 5].into_iter().for_each(|id| raft.on_link(node(id), false));
    assert_eq!(raft.unlinked, [node(4)]);
}

/// That to anybody else is no matter of its leader's.
#[test]
fn who_rests_minds_the_way_to_its_leader_alone() {
    for (peer, up, is_asleep) in
        [(3, false, true), (3, true, true), (1, false, false), (1, true, false)]
    {
        let mut cluster = resting(3);
        cluster.at(2).raft.on_link(node(peer), up);
        assert_eq!(cluster.at(2).raft.is_asleep(), is_asleep, "{peer} {up}");
    }
}

/// A leader that rests is asked whether it is there, and has the least timeout to say so.
#[test]
fn who_was_roused_keeps_to_its_leader_for_the_least_timeout() {
    let mut cluster = resting(3);
    cluster.pass(60_000 * MS);
    cluster.at(2).raft.on_link(node(1), true);
    let least = cluster.tuning.election.0.as_nanos() as u64;
    let keeps = [0, least - 1, 1].map(|time| {
        cluster.pass(time);
        cluster.at(2).raft.keeps_resting_leader(node(3))
    });
    assert_eq!(keeps, [true, true, false]);
    assert!(!resting(3).at(2).raft.keeps_resting_leader(node(1)), "it does not lead if it asks");
}
