//! How much is said: what is needed, and no more.

use super::*;
use crate::{
    message::Append,
    types::{Piece, SnapshotName},
};

/// Of what both have it is sent a half at most, however many terms follow there.
#[test]
fn who_shares_half_of_a_log_is_not_sent_all_of_it() {
    let (shared, runs) = (1000, 1000);
    let log = |odd: u64| -> Vec<u64> {
        std::iter::repeat_n(1, shared).chain((1..runs).map(|run| run * 2 + odd)).collect()
    };
    let (mut leader, follower, term) = (log(0), log(1), runs * 2 + 2);
    leader.push(term);
    let disks = [&leader, &follower, &leader].map(|terms| disk_with(term, terms, 3));
    let mut cluster = Cluster::new(disks.into());
    cluster.isolate(2);
    cluster.elect(1);
    cluster.cut.clear();
    cluster.pass(cluster.tuning.heartbeat.as_nanos() as u64);
    (1..=3).for_each(|id| cluster.settle(id));
    let mut first = LogIndex(u64::MAX);
    while let Some((from, message)) = cluster.queue.pop_front() {
        if let (Payload::Append(append), 2) = (&message.payload, message.head.to.0) {
            first = first.min(append.prev.index.next());
        }
        cluster.deliver(from, message);
    }
    assert_eq!(cluster.at(2).ids(), cluster.at(1).ids());
    assert!(cluster.at(1).has(Mark::DivergenceBisected));
    assert!(first.0 >= shared as u64 / 2, "sent again from {first} on");
}

/// Each heartbeat is answered, and no answer is. Whatever else is said is said for a reason, and there is
/// none.
#[test]
fn a_calm_group_says_nothing_but_heartbeats_and_answers() {
    let mut cluster = Cluster::led(5);
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(1000 * MS);
    let (before, heartbeats) = (cluster.delivered, 20);
    cluster.elapse(cluster.tuning.heartbeat.as_nanos() as u64 * heartbeats);
    assert_eq!(cluster.delivered - before, heartbeats as usize * 2 * 4);
}

/// What came behind a snapshot waits as long as that comes, and as its leader leads.
#[test]
fn what_follows_a_snapshot_waits_for_it_and_for_no_other_leader() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    let term = cluster.at(1).raft.term;
    let [at, next] = [10, 11].map(|index| LogId::new(term, LogIndex(index)));
    let (_, frames) = Batch::one(b"a").seal(seed(), next, term, Timestamp(9));
    let append = Append { sequence: 99, prev: at, frames, ..Append::default() };
    let again = append.clone();
    let head = cluster.at(1).raft.head_to(node(2));
    let raft = &mut cluster.at(2).raft;
    let snapshot = SnapshotName { at, bytes: 100, ..SnapshotName::default() };
    raft.facts.receiving = Some(Receiving { snapshot, next: 0, stored: 0, is_whole: false });
    raft.on_message(node(1), Message { head, payload: Payload::Append(append) });
    // Between it and the next there is a gap, and what the snapshot holds need not wait.
    for index in [15, 10] {
        let [at, prev] = [index, index - 1].map(|index| LogId::new(term, LogIndex(index)));
        let (_, frames) = Batch::one(b"b").seal(seed(), at, term, Timestamp(9));
        let append = Append { sequence: 100, prev, frames, ..Append::default() };
        raft.on_message(node(1), Message { head, payload: Payload::Append(append) });
    }
    raft.stray();
    raft.install();
    assert_eq!(raft.receiver.waiting.last(), Some(next.index));
    let held = raft.receiver.waiting.bytes();
    raft.on_message(node(1), Message { head, payload: Payload::Append(again) });
    assert!(raft.receiver.waiting.bytes() == held && !raft.receiver.waiting.is_empty());
    raft.become_follower(term.next(), None);
    raft.install();
    assert!(raft.receiver.waiting.is_empty());
}

/// It would be received for nothing, or in the place of the one that is just taking the log's.
#[test]
fn no_piece_goes_to_the_disk_that_nobody_needs() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    let (term, head) = (cluster.at(1).raft.term, cluster.at(1).raft.head_to(node(2)));
    let raft = &mut cluster.at(2).raft;
    let there = raft.log.last();
    let beyond = LogId::new(term, LogIndex(10));
    for (at, taking, goes) in [(beyond, None, 1), (there, None, 0), (beyond, Some(beyond), 0)] {
        raft.receiver.taking = taking;
        let snapshot = SnapshotName { at, id: SnapshotId(9), bytes: 100, digest: 0 };
        let bytes = Bytes::from_static(&[7; 50]);
        let piece = Piece { snapshot, offset: 0, time: Timestamp(9), members: None, bytes };
        let payload = Payload::Install(piece);
        raft.on_message(node(1), Message { head, payload });
        assert_eq!(raft.pieces().drain(..).count(), goes, "{at}, {taking:?}");
    }
}

/// The leader may not have heard what was said when they came first.
#[test]
fn entries_that_come_again_are_answered() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    let (_, frames) = Batch::one(b"a").seal(seed(), id(2, 2), Term(2), Timestamp(9));
    let head = cluster.at(1).raft.head_to(node(2));
    for (frames, answers, is_again) in
        [(frames.clone(), 1, false), (frames, 1, true), (Bytes::new(), 0, true)]
    {
        let append = Append { sequence: 99, prev: id(2, 1), frames, ..Append::default() };
        cluster.at(2).raft.on_message(node(1), Message { head, payload: Payload::Append(append) });
        let said = cluster.said(2);
        assert!(said.len() == answers, "{said:?}");
        assert_eq!(cluster.at(2).has(Mark::DuplicateAppendKept), is_again);
    }
    assert!(!cluster.at(2).has(Mark::MembershipHeldBack), "nothing was");
}

/// It was said in a term that is over: what it leads to may have been cut.
#[test]
fn what_waited_is_taken_in_the_term_that_it_came_in_only() {
    // In it, in another, and behind what is not there.
    for (is_over, gap) in [(false, 0), (true, 0), (false, 8)] {
        let mut cluster = Cluster::led(3);
        cluster.elapse(300 * MS);
        let raft = &mut cluster.at(2).raft;
        let last = raft.log.last();
        let [at, next] = [gap, gap + 1].map(|gap| id(2, last.index.0 + gap));
        let (_, frames) = Batch::one(b"a").seal(seed(), next, Term(2), Timestamp(9));
        let append = Append { prev: at, frames, ..Append::default() };
        let snapshot = SnapshotName { at, bytes: 100, ..SnapshotName::default() };
        raft.facts.receiving = Some(Receiving { snapshot, next: 0, stored: 0, is_whole: false });
        assert!(raft.verify(&append, raft.term).is_ok());
        raft.let_wait(&append);
        raft.facts.receiving = None;
        if is_over {
            raft.become_follower(raft.term.next(), Some(node(3)));
        }
        raft.stray();
        raft.install();
        assert!(raft.receiver.waiting.is_empty());
        assert_eq!(raft.log.last() == last, is_over || gap > 0);
    }
}
