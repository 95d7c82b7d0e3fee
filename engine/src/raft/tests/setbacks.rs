//! Members whose disk is one of before: what they acknowledged since is lost, and they do not know.

use super::{
    super::gate::Gate,
    changes::{joined, member},
    *,
};
use crate::change::Change;

/// A virtual machine is set back, or a copy of a directory is put back: hard state and log are of one instant,
/// so its own restart finds nothing wrong. Its leader asked where the logs agree at the one place that it no
/// longer reached, for ever, told nobody, and counted what was lost.
#[test]
fn whoever_was_set_back_is_noticed_told_of_and_brought_level() {
    let mut cluster = joined(3, 3);
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(300 * MS);
    let old = cluster.at(2).disk.clone();
    for n in 2..8 {
        cluster.propose(1, n, &["b"]);
        cluster.elapse(100 * MS);
    }
    assert_eq!(cluster.nodes[1].ids(), cluster.nodes[0].ids());
    cluster.at(2).disk = old;
    cluster.crash(2);
    cluster.elapse(2_000 * MS);
    assert_eq!(cluster.nodes[1].ids(), cluster.nodes[0].ids());
    let reason = "has lost what it acknowledged: was an old copy of its disk put back?";
    assert_eq!(cluster.at(1).faults(), [reason], "once");
    assert!(cluster.at(1).has(Mark::PeerSetBack));
    // A change that needs it goes through, and so does what is written then.
    cluster.changed(1, 100, &[Change::Remove(node(3))]);
    cluster.propose(1, 20, &["c"]);
    cluster.elapse(300 * MS);
    assert_eq!(commands(cluster.at(1)).len(), 8);
    assert_eq!(cluster.nodes[1].ids(), cluster.nodes[0].ids());
}

/// What is on its way into it again counts when it is durable there.
#[test]
fn whoever_was_set_back_is_not_counted_for_what_it_lost() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    let old = cluster.at(2).disk.clone();
    let old_last = cluster.nodes[1].ids().last().expect("a leader's first entry").index;
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(300 * MS);
    cluster.at(2).disk = old;
    cluster.crash(2);
    cluster.at(2).disk.lazy = true;
    cluster.elapse(500 * MS);
    let Role::Leader(leader) = &cluster.nodes[0].raft.role else { panic!("it leads") };
    let peer = leader.peers.iter().find(|peer| peer.id == node(2)).unwrap();
    assert_eq!(peer.matched, old_last, "nothing of it is durable there");
    assert_eq!(cluster.nodes[1].ids(), cluster.nodes[0].ids(), "it has all of it");
}

/// The copy is of when it had entries of a leader that nobody else had, and that were cut later: its log does not
/// end too early, or does not agree where it ends.
#[test]
fn whoever_was_set_back_to_what_was_cut_is_brought_level_as_well() {
    for writes in [0, 1, 2, 8] {
        let disks = [2, 4, 2].map(|entries| disk_with(1, &vec![1; entries], 3));
        let mut cluster = Cluster::new(disks.into());
        let old = cluster.at(2).disk.clone();
        cluster.elect(1);
        for n in 0..writes {
            cluster.propose(1, n, &["a"]);
            cluster.elapse(100 * MS);
        }
        cluster.elapse(300 * MS);
        assert_eq!(cluster.nodes[1].ids(), cluster.nodes[0].ids());
        cluster.at(2).disk = old;
        cluster.crash(2);
        cluster.elapse(3_000 * MS);
        assert_eq!(cluster.nodes[1].ids(), cluster.nodes[0].ids(), "{writes} writes");
        assert!(cluster.at(1).has(Mark::PeerSetBack), "{writes} writes");
    }
}

/// The copy is of before its last start, so this one has the write epoch of the one before, or of before its last
/// two, and has a smaller one: what it forwards was taken for what was forwarded before.
#[test]
fn whoever_was_set_back_forwards_anew() {
    for starts in [1, 2] {
        let mut cluster = Cluster::led(3);
        cluster.elapse(300 * MS);
        let old = cluster.at(2).disk.clone();
        for _ in 0..starts {
            cluster.crash(2);
            cluster.elapse(300 * MS);
        }
        for n in 0..3 {
            cluster.propose(2, 20 + n, &["a"]);
            cluster.elapse(100 * MS);
        }
        assert_eq!(commands(cluster.at(2)).iter().filter(|(_, id)| id.is_some()).count(), 3);
        cluster.at(2).disk = old;
        cluster.crash(2);
        cluster.elapse(1_000 * MS);
        assert_eq!(cluster.nodes[1].ids(), cluster.nodes[0].ids());
        assert!(cluster.at(1).has(Mark::PeerSetBack));
        for n in 0..6 {
            cluster.propose(2, 40 + n, &["b"]);
            cluster.elapse(3_000 * MS);
        }
        assert_eq!(cluster.at(2).ended, [], "{starts} starts");
        assert_eq!(commands(cluster.at(1)).iter().filter(|(what, _)| what == "b").count(), 6);
    }
}

/// And where it had not heard yet what became of that, its client heard of another one's.
#[test]
fn nobody_is_answered_for_what_a_life_of_before_forwarded() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    let old = cluster.at(2).disk.clone();
    cluster.crash(2);
    cluster.elapse(300 * MS);
    cluster.cut.insert((node(1), node(2)));
    cluster.propose(2, 20, &["before"]);
    cluster.run();
    assert_eq!(commands(cluster.at(1)).len(), 1);
    cluster.at(2).disk = old;
    cluster.crash(2);
    cluster.cut.clear();
    // Before a heartbeat tells anything again.
    cluster.propose(1, 10, &["another"]);
    cluster.settle(1);
    while cluster.at(2).raft.leader().is_none() {
        let (from, message) = cluster.queue.pop_front().expect("the leader speaks");
        cluster.deliver(from, message);
    }
    cluster.propose(2, 21, &["now"]);
    cluster.run();
    cluster.elapse(5_000 * MS);
    let answered = commands(cluster.at(2)).into_iter().filter(|(_, id)| *id == Some(21));
    let is_unknown = cluster.at(2).ended == [(21, Outcome::Unknown)];
    let answered: Vec<_> = answered.map(|(what, _)| what).collect();
    assert!(is_unknown || answered == ["now"], "{answered:?}");
}

/// Both read under the same number, and the answer to the one of before comes late.
#[test]
fn nobody_reads_by_what_a_life_of_before_was_told() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    let old = cluster.at(2).disk.clone();
    cluster.crash(2);
    cluster.elapse(300 * MS);
    cluster.at(2).raft.on_read(Requests::one(RequestId(5)), ReadMode::Linearizable);
    cluster.settle(2);
    let is_answer = |message: &Message| matches!(message.payload, Payload::ReadIndexAnswer { .. });
    let late = loop {
        let (from, message) = cluster.queue.pop_front().expect("it is answered");
        if is_answer(&message) {
            break message;
        }
        cluster.deliver(from, message);
    };
    cluster.run();
    cluster.at(2).disk = old;
    cluster.crash(2);
    cluster.elapse(300 * MS);
    cluster.propose(1, 10, &["written"]);
    cluster.elapse(100 * MS);
    cluster.at(2).raft.on_read(Requests::one(RequestId(6)), ReadMode::Linearizable);
    cluster.settle(2);
    cluster.deliver(node(1), late);
    assert_eq!(cluster.at(2).queried, [], "the write is not seen in it");
    cluster.run();
    assert_eq!(cluster.at(2).queried, [(6, LogIndex(2))]);
}

/// A node that has lost its log is back behind its gate and says so, and an answer of its life before comes behind
/// that: its leader counted what is gone, and took it for level.
#[test]
fn an_answer_of_an_earlier_life_shows_nobody_to_be_level() {
    let mut cluster = joined(1, 2);
    (0..5).for_each(|n| cluster.propose(1, n, &["a"]));
    cluster.changed(1, 100, &[Change::AddLearner(member(2))]);
    cluster.elapse(300 * MS);
    // Something is asked of it, and its answer is held up.
    cluster.pass(100 * MS);
    cluster.settle(1);
    let asked: Vec<_> = cluster.queue.drain(..).collect();
    asked.into_iter().for_each(|(from, message)| cluster.deliver(from, message));
    let is_answer = |message: &Message| matches!(message.payload, Payload::AppendAnswer(_));
    let late = cluster.queue.drain(..).find(|(_, message)| is_answer(message));
    let (from, late) = late.expect("it answers");
    cluster.crash(2);
    let disk = &mut cluster.at(2).disk;
    (disk.durable, disk.log) = (0, Vec::new());
    disk.recorded = Arc::clone(&disk.previous);
    cluster.crash(2);
    cluster.at(2).raft.gate = Some(Gate::new([200, 2]));
    // Its disk is slow: nothing that it is sent is durable.
    cluster.at(2).disk.lazy = true;
    cluster.elapse(500 * MS);
    let known = |cluster: &Cluster| match &cluster.nodes[0].raft.role {
        Role::Leader(leader) => (leader.peers[0].gated, leader.peers[0].matched),
        other => panic!("{other:?}"),
    };
    let before = known(&cluster);
    assert!(before.0 && before.1 < LogIndex(3), "{before:?}");
    cluster.deliver(from, late);
    assert_eq!(known(&cluster), before);
    assert!(cluster.at(1).has(Mark::StaleAnswerDropped));
}
