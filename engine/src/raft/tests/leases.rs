//! Reads under a leader's lease.

use super::*;
use crate::{change::Change as MembershipChange, message::AppendAnswer};

/// Three nodes, led by the first; a second between elections, a thousandth between clocks.
fn leased() -> Cluster {
    let tuning = Tuning { lease_drift_ppm: Some(1_000), ..Tuning::default() };
    let mut cluster = Cluster::tuned((0..3).map(|_| disk_with(1, &[], 3)).collect(), tuning);
    cluster.elect(1);
    cluster.elapse(200 * MS);
    cluster
}

impl Cluster {
    fn read(&mut self, at: u64, request: u64) {
        let requests = Requests::one(RequestId(request));
        self.at(at).raft.on_read(requests, ReadMode::Lease);
    }

    fn is_answered(&mut self, at: u64, request: u64) -> bool {
        self.at(at).queried.iter().any(|(id, _)| *id == request)
    }

    /// Whether a read is answered without a word to anyone.
    fn answers_at_once(&mut self, request: u64) -> bool {
        self.read(1, request);
        self.settle(1);
        self.is_answered(1, request)
    }
}

#[test]
fn a_lease_spares_a_read_its_round_as_long_as_it_lasts() {
    let mut cluster = leased();
    cluster.isolate(1);
    // The last heartbeat that was answered went out a hundred milliseconds ago, or less.
    cluster.pass(890 * MS);
    assert!(cluster.answers_at_once(1));
    // A thousandth less than the least election timeout after it was sent.
    cluster.pass(110 * MS);
    assert!(!cluster.answers_at_once(2));
    assert!(cluster.at(1).has(Mark::LeaseRead) && cluster.at(1).has(Mark::LeaseMissed));
}

/// An answer that was long on its way says what its sender heard then, not now.
#[test]
fn a_lease_counts_from_when_its_round_was_sent() {
    let mut cluster = leased();
    cluster.pass(100 * MS);
    let now = cluster.now;
    let sent = cluster.at(1).settle(now);
    for id in [2, 3] {
        for message in sent.iter().filter(|message| message.head.to == node(id)) {
            cluster.at(id).raft.on_message(node(1), message.clone());
        }
        cluster.settle(id);
    }
    cluster.pass(990 * MS);
    // What it says from now on is lost; the answers are not.
    cluster.cut.extend([2, 3].map(|id| (node(1), node(id))));
    cluster.run();
    assert!(cluster.answers_at_once(1), "nine milliseconds are left");
    cluster.pass(9 * MS);
    assert!(!cluster.answers_at_once(2), "though the answer came just now");
}

/// Who was asked to stand may have stood, and won.
#[test]
fn a_leader_that_asked_another_to_stand_has_no_lease_any_more() {
    let mut cluster = leased();
    assert!(cluster.answers_at_once(1));
    cluster.isolate(2);
    cluster.at(1).raft.on_transfer(RequestId(100), Some(node(2)));
    cluster.run();
    assert!(!cluster.answers_at_once(2));
    // Nor when that came to nothing.
    cluster.elapse(2_500 * MS);
    assert_eq!(cluster.at(1).role(), status::Role::Leader);
    assert!(!cluster.answers_at_once(3));
    cluster.run();
    assert!(cluster.is_answered(1, 3), "by a round");
}

#[test]
fn nobody_is_elected_while_a_lease_may_last() {
    let mut cluster = leased();
    cluster.isolate(1);
    for other in [2, 3] {
        cluster.at(other).raft.patience = Duration::ZERO;
    }
    let since = cluster.now;
    while cluster.at(1).raft.leader().is_some() && cluster.at(2).raft.leader() == Some(node(1)) {
        cluster.pass(10 * MS);
        cluster.run();
    }
    let leads = |node: &Node| node.role() == status::Role::Leader;
    while !cluster.nodes[1..].iter().any(leads) {
        assert!(cluster.now.0 - since.0 < 10_000 * MS, "somebody is elected");
        cluster.pass(10 * MS);
        cluster.run();
        if cluster.nodes[1..].iter().any(leads) {
            break;
        }
    }
    assert!(!cluster.answers_at_once(9), "then the old one answers no more");
}

#[test]
fn without_a_declared_drift_every_read_takes_its_round() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(200 * MS);
    assert!(!cluster.answers_at_once(1));
    cluster.run();
    assert!(cluster.is_answered(1, 1));
    assert!(!cluster.at(1).has(Mark::LeaseMissed));
}

/// The one voter that is left waits for nobody when it restarts, so who leads the rest of the way into
/// that membership must not rely on having been heard.
#[test]
fn who_leads_on_without_a_vote_has_no_lease() {
    let tuning = Tuning { lease_drift_ppm: Some(1_000), ..Tuning::default() };
    let mut cluster = Cluster::tuned((0..2).map(|_| disk_with(1, &[], 2)).collect(), tuning);
    cluster.elect(1);
    cluster.elapse(200 * MS);
    assert!(cluster.answers_at_once(1));
    cluster.change(1, 100, &[MembershipChange::Demote(node(1))]);
    let mut left = None;
    for _ in 0..50 {
        cluster.pass(10 * MS);
        (1..=2).for_each(|id| cluster.settle(id));
        while let Some((from, mut message)) = cluster.queue.pop_front() {
            if left.is_none() && cluster.voters(1) == (vec![2], vec![]) {
                left = Some(cluster.at(1).raft.log.last().index);
            }
            if let (Payload::AppendAnswer(answer), Some(last)) = (&mut message.payload, left) {
                // It is heard, and what it has of the last entry is not durable yet.
                answer.durable = answer.durable.min(last.previous());
            }
            cluster.deliver(from, message);
        }
    }
    assert!(left.is_some());
    assert_eq!(cluster.at(1).role(), status::Role::Leader);
    assert_eq!(cluster.voters(2), (vec![2], vec![]));
    assert!(!cluster.answers_at_once(2));
    cluster.run();
    assert!(cluster.is_answered(1, 2), "by a round");
}

/// All nodes have been given longer timeouts while they ran. So long a lease lasts from then on, and so
/// long nobody else may stand.
#[test]
fn a_lease_lasts_no_longer_than_others_wait_when_timeouts_were_lengthened() {
    let mut cluster = leased();
    // As they were drawn when these nodes began to wait.
    (2..=3).for_each(|id| cluster.at(id).raft.draw_patience());
    let election = (Duration::from_secs(10), Duration::from_secs(20));
    let tuning = Tuning { election, ..cluster.tuning.clone() };
    (1..=3).for_each(|id| cluster.at(id).raft.on_tune(&tuning));
    cluster.elapse(60_000 * MS);
    cluster.isolate(1);
    cluster.elapse(5_000 * MS);
    assert!(cluster.answers_at_once(1), "half of the lease is left");
    let leads = |node: &Node| node.role() == status::Role::Leader;
    assert!(!cluster.nodes[1..].iter().any(leads), "and what is written there is not seen here");
}

/// A round that went out before the timeouts became longer is answered afterwards. Whoever answered it waited
/// as long as before, and stands already.
fn a_late_answer_after_longer_timeouts(by_the_book: bool) {
    let mut cluster = leased();
    // As they were drawn when these nodes began to wait.
    (2..=3).for_each(|id| cluster.at(id).raft.draw_patience());
    cluster.elapse(60_000 * MS);
    cluster.pass(100 * MS);
    let now = cluster.now;
    let sent = cluster.at(1).settle(now);
    for id in [2, 3] {
        for message in sent.iter().filter(|message| message.head.to == node(id)) {
            cluster.at(id).raft.on_message(node(1), message.clone());
        }
        cluster.settle(id);
    }
    // The answers are on their way for long; nothing else passes between the leader and the others.
    let late = std::mem::take(&mut cluster.queue);
    cluster.isolate(1);
    let stands = |node: &Node| node.role() == status::Role::PreCandidate;
    let since = cluster.now.0;
    let tune = |cluster: &mut Cluster, tuning: Tuning| {
        (1..=3).for_each(|id| cluster.at(id).raft.on_tune(&tuning));
    };
    let before = cluster.tuning.clone();
    if by_the_book {
        tune(&mut cluster, Tuning { lease_drift_ppm: None, ..before.clone() });
    }
    let between = |cluster: &mut Cluster, ids: &[u64]| {
        // What the others say to each other waits as well.
        ids.iter().for_each(|id| cluster.settle(*id));
        cluster.queue.clear();
    };
    while !cluster.nodes[1..].iter().all(stands) {
        cluster.pass(10 * MS);
        between(&mut cluster, &[1, 2, 3]);
        assert!(cluster.now.0 - since < 1_990 * MS, "both stand, and the leader leads");
    }
    assert_eq!(cluster.at(1).role(), status::Role::Leader);
    let election = (Duration::from_secs(10), Duration::from_secs(20));
    if by_the_book {
        tune(&mut cluster, Tuning { election, lease_drift_ppm: None, ..before.clone() });
    }
    tune(&mut cluster, Tuning { election, ..before });
    // One asks once more: it is elected, and a write is committed there.
    cluster.at(2).raft.patience = Duration::ZERO;
    cluster.pass(MS);
    cluster.run();
    assert_eq!(cluster.at(2).role(), status::Role::Leader);
    assert_eq!(cluster.at(1).role(), status::Role::Leader);
    cluster.propose(2, 50, &["new"]);
    cluster.run();
    assert_eq!(commands(cluster.at(2)), [("new".into(), Some(50))]);
    // The answers come.
    for (from, message) in late {
        cluster.at(1).raft.on_message(from, message);
    }
    cluster.settle(1);
    cluster.pass(1_000 * MS);
    assert!(!cluster.answers_at_once(9), "it does not know of the write that was acknowledged");
}

#[test]
fn a_late_answer_after_longer_timeouts_is_no_lease() {
    a_late_answer_after_longer_timeouts(false);
}

#[test]
fn a_late_answer_after_longer_timeouts_is_no_lease_by_the_book() {
    a_late_answer_after_longer_timeouts(true);
}

/// Elsewhere any answer renewed a lease, a refusal by one who followed another leader already included. What was
/// said to a leader of another term, or to a former life, is no word for this one, whatever round it names.
#[test]
fn an_answer_to_another_leader_or_life_renews_no_lease() {
    type Change = fn(&mut Head);
    let changes: [(Change, bool); 3] = [
        (|_| {}, true),
        (|head| head.term = Term(head.term.0 - 1), false),
        (|head| head.answers = Life(head.answers.0 - 1), false),
    ];
    for (n, (change, renews)) in changes.into_iter().enumerate() {
        let mut cluster = leased();
        cluster.isolate(1);
        // Heartbeats go out, and nobody hears them.
        cluster.elapse(600 * MS);
        let raft = &cluster.at(1).raft;
        let (answers, round) = (raft.life(), raft.reads.number());
        let mut head = Head { answers, ..cluster.at(2).raft.head_to(node(1)) };
        change(&mut head);
        let payload = Payload::AppendAnswer(AppendAnswer { round, ..AppendAnswer::default() });
        cluster.at(1).raft.on_message(node(2), Message { head, payload });
        cluster.settle(1);
        cluster.pass(500 * MS);
        assert_eq!(cluster.answers_at_once(1), renews, "{n}");
    }
}
