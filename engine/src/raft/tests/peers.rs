//! What a leader knows of one peer.

use super::{super::progress::Peer, *};
use crate::message::{AppendAnswer, Conflict, Life};

fn peer() -> Peer {
    Peer::new(node(2), 200, LogIndex(1), Instant(0))
}

/// Its word may be older than what it was told since. While nothing but offers follows it holds.
#[test]
fn who_was_told_more_since_it_was_offered_rest_has_not_said_that_it_rests() {
    let mut peer = peer();
    let send = |peer: &mut Peer, rest: bool| {
        peer.sequence += 1;
        peer.offers(rest);
    };
    let rests = |peer: &mut Peer, sequence: u64| {
        let answer = AppendAnswer { sequence, rests: true, ..AppendAnswer::default() };
        peer.answered(&answer, Instant(0), 0);
        peer.rests
    };
    send(&mut peer, true);
    assert!(rests(&mut peer, 1));
    send(&mut peer, false);
    assert!(!peer.rests && !rests(&mut peer, 1) && !rests(&mut peer, 2));
    send(&mut peer, true);
    assert!(!rests(&mut peer, 2) && rests(&mut peer, 3));
    send(&mut peer, true);
    assert!(peer.rests && rests(&mut peer, 3) && rests(&mut peer, 4));
}

/// Of two starts with one number, as a disk was set back between them, nobody knows which came later.
#[test]
fn only_a_life_of_an_earlier_start_is_over_and_not_if_it_answers_what_was_sent_last() {
    let mut peer = peer();
    peer.sequence = 9;
    let [earlier, first, twin] =
        [(4, 9), (5, 7), (5, 3)].map(|(start, drawn)| Life::new(start, drawn));
    assert!(!peer.is_of_former_life(first, 1));
    assert!(peer.is_of_former_life(earlier, 8));
    assert!(!peer.is_of_former_life(twin, 8));
    assert!(!peer.is_of_former_life(earlier, 9));
}

/// It agreed to go on from there and took nothing: it is sent entries once more, and then waits for the answer.
#[test]
fn who_took_nothing_is_tried_once_until_it_answers_that() {
    let answer = |peer: &mut Peer, sequence: u64, conflict: Option<Conflict>| {
        let conflict = conflict.map(Box::new);
        let answer = AppendAnswer { sequence, conflict, ..AppendAnswer::default() };
        peer.answered(&answer, Instant(0), 0);
    };
    let refusal = Conflict { through: LogIndex(0), committed: LogIndex(0), runs: Vec::new() };
    // It went on from 1, and refused what came behind: it agrees up to there, or up to another entry.
    let mut tried = [1, 3].map(|next| {
        let mut peer = peer();
        peer.sequence = 1;
        answer(&mut peer, 1, None);
        peer.sequence = 2;
        peer.sent(LogIndex(5), 10);
        peer.refused(LogIndex(next));
        peer.sequence = 3;
        answer(&mut peer, 3, None);
        assert!(peer.takes_entries(false));
        peer.sequence = 4;
        peer.sent(LogIndex(5), 10);
        peer
    });
    assert_eq!(tried.each_ref().map(|peer| peer.takes_entries(true)), [false, true]);
    let peer = &mut tried[0];
    answer(peer, 3, None);
    answer(peer, 4, Some(refusal));
    assert!(
        !peer.takes_entries(true),
        "that is an answer to what came before, or to be asked anew"
    );
    answer(peer, 4, None);
    assert_eq!([false, true].map(|heartbeat| peer.takes_entries(heartbeat)), [false, true]);
}

/// Which of the two came first nobody knows.
#[test]
fn what_was_sent_before_it_acknowledged_more_shows_no_loss() {
    for (sequence, is_set_back) in [(4, false), (5, true)] {
        let mut peer = peer();
        peer.sequence = 3;
        peer.probe(LogIndex(4));
        peer.sequence = 4;
        let more = AppendAnswer {
            sequence: 3,
            matched: LogIndex(3),
            durable: LogIndex(3),
            ..AppendAnswer::default()
        };
        peer.answered(&more, Instant(0), 0);
        peer.sequence = sequence;
        let conflict = Conflict { through: LogIndex(1), committed: LogIndex(0), runs: Vec::new() };
        let conflict = Some(Box::new(conflict));
        let answer = AppendAnswer { sequence, conflict, ..AppendAnswer::default() };
        assert_eq!(peer.is_set_back(&answer, |_| None), is_set_back);
    }
}

#[test]
fn what_is_acknowledged_again_is_no_news() {
    let mut peer = peer();
    let durable = |index| {
        let (matched, durable) = (LogIndex(9), LogIndex(index));
        AppendAnswer { matched, durable, ..AppendAnswer::default() }
    };
    let rose = [3, 3, 2, 4].map(|index| peer.answered(&durable(index), Instant(0), 0));
    assert_eq!(rose, [true, false, false, true]);
    assert_eq!(peer.matched, LogIndex(4));
}

/// What it had from the one before may be no part of the next one's log.
#[test]
fn who_has_no_leader_knows_only_what_is_committed() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    let raft = &mut cluster.at(2).raft;
    let committed = raft.committed();
    let Role::Follower(follower) = &mut raft.role else { panic!("it follows") };
    follower.matched = committed.next();
    assert_eq!(raft.known(), committed.next());
    let Role::Follower(follower) = &mut raft.role else { panic!("it follows") };
    follower.leader = None;
    assert_eq!(raft.known(), committed);
}

/// What it has acknowledged it has: that what comes behind is missing there shows no loss.
#[test]
fn who_lacks_only_what_it_never_acknowledged_was_not_set_back() {
    for (through, is_set_back) in [(4, false), (3, false), (2, true)] {
        let mut peer = peer();
        (peer.matched, peer.sequence) = (LogIndex(3), 5);
        peer.probe(LogIndex(6));
        let runs = vec![(LogIndex(0), Term(0)), (LogIndex(1), Term(1))];
        let conflict = Conflict { through: LogIndex(through), committed: LogIndex(0), runs };
        let conflict = Some(Box::new(conflict));
        peer.sequence = 6;
        let answer = AppendAnswer { sequence: 6, conflict, ..AppendAnswer::default() };
        assert_eq!(peer.is_set_back(&answer, |_| Some(Term(1))), is_set_back, "{through}");
    }
}

/// A change waits for nobody who is there, and is refused for whom it would have to wait.
#[test]
fn who_was_heard_of_as_long_ago_as_an_election_takes_at_least_is_there_still() {
    for (late, is_there) in [(0, true), (1, false)] {
        let mut cluster = changes::joined(3, 3);
        cluster.elapse(300 * MS);
        let silence = cluster.tuning.election.0.as_nanos() as u64;
        let heard = Instant(cluster.now.0 - silence - late);
        let Role::Leader(leader) = &mut cluster.at(1).raft.role else { panic!("it leads") };
        leader.peers.iter_mut().for_each(|peer| peer.heard = heard);
        cluster.change(1, 100, &[crate::change::Change::Remove(node(3))]);
        cluster.settle(1);
        assert_eq!(cluster.outcome(1, 100).is_none(), is_there, "{:?}", cluster.outcome(1, 100));
    }
}
