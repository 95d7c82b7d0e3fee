//! A node that may have forgotten what it acknowledged: no vote until it has it again.

use super::{super::gate::Gate, *};
use crate::Status;

const NONCE: [u64; 2] = [300, 2];

/// Three nodes, of which the third lost all of its log.
fn forgetful() -> Cluster {
    let full = || disk_with(1, &[1, 1, 1], 3);
    let mut cluster = Cluster::new(vec![full(), full(), disk_with(1, &[], 3)]);
    cluster.at(3).raft.gate = Some(Gate::new(NONCE));
    cluster
}

fn is_shut(cluster: &mut Cluster) -> bool {
    let node = cluster.at(3);
    let mut told = Status::default();
    node.raft.report(&mut told);
    assert_eq!(told.gated, !node.has(Mark::GateCleared));
    told.gated
}

#[test]
fn behind_the_gate_there_is_neither_a_vote_nor_a_candidate() {
    let mut cluster = forgetful();
    cluster.isolate(1);
    cluster.elapse(5000 * MS);
    for id in [2, 3] {
        assert!(!matches!(cluster.at(id).role(), status::Role::Leader), "node {id}");
        assert_eq!(cluster.at(id).disk.promised, (Term(1), None), "node {id}");
    }
    assert!(is_shut(&mut cluster));
}

#[test]
fn the_gate_opens_when_all_that_the_leader_had_is_durable_again() {
    let mut cluster = forgetful();
    cluster.at(3).disk.lazy = true;
    cluster.elect(1);
    // Its new term.
    cluster.at(3).disk.sync();
    cluster.elapse(500 * MS);
    assert_eq!(cluster.at(3).disk.log.len(), 4, "with the leader's first");
    assert!(is_shut(&mut cluster), "it is not durable");
    cluster.at(3).disk.sync();
    cluster.elapse(500 * MS);
    assert!(!is_shut(&mut cluster));
    let told = [(); 2].map(|()| cluster.at(3).raft.take_gate_opened());
    assert_eq!(told, [true, false], "the disk is to know, once");
    cluster.isolate(1);
    cluster.at(3).disk.lazy = false;
    cluster.at(2).raft.patience = Duration::ZERO;
    cluster.elapse(5000 * MS);
    let leads = |node: &Node| node.role() == status::Role::Leader;
    assert!(cluster.nodes[1..].iter().any(leads), "no two lead without its word");
}

/// An answer counts from the leader of this term, to the question about this very fault.
#[test]
fn other_answers_do_not_open_the_gate() {
    type Change = fn(&mut Message);
    let other_fault: Change = |message| {
        message.payload = Payload::GateAnswer { nonce: [300, 1], last: LogIndex(0) };
    };
    let old_term: Change = |message| message.head.term = Term(1);
    let one_more: Change = |message| {
        message.payload = Payload::GateAnswer { nonce: NONCE, last: LogIndex(1) };
    };
    let changes: [(Change, u64, bool); 5] = [
        (other_fault, 1, false),
        (old_term, 1, false),
        (one_more, 1, false),
        (|_| {}, 2, false),
        (|_| {}, 1, true),
    ];
    for (n, (change, from, opens)) in changes.into_iter().enumerate() {
        let mut cluster = forgetful();
        cluster.cut.insert((node(3), node(1)));
        cluster.elect(1);
        // Its question is not heard, so no answer is under way but this one.
        cluster.elapse(100 * MS);
        let head = cluster.at(from).raft.head_to(node(3));
        let payload = Payload::GateAnswer { nonce: NONCE, last: LogIndex(0) };
        let mut message = Message { head, payload };
        change(&mut message);
        cluster.at(3).raft.on_message(node(from), message);
        cluster.settle(3);
        assert_eq!(!is_shut(&mut cluster), opens, "answer {n}");
    }
}

/// Who leads no more may not know what was committed since.
#[test]
fn only_the_leader_of_the_term_answers() {
    let mut cluster = forgetful();
    cluster.elect(1);
    let mut answers = |to: u64, change: fn(&mut Head)| {
        let mut head = cluster.at(3).raft.head_to(node(to));
        change(&mut head);
        cluster.said(to);
        let payload = Payload::Gate { nonce: NONCE };
        cluster.at(to).raft.on_message(node(3), Message { head, payload });
        let said = cluster.said(to);
        said.iter().any(|(_, payload)| matches!(payload, Payload::GateAnswer { .. }))
    };
    assert!(answers(1, |_| {}));
    assert!(!answers(2, |_| {}));
    assert!(!answers(1, |head| head.term = Term(1)));
}

/// Its leader may have been deposed before it answered, and more be committed by now.
#[test]
fn an_answer_of_an_earlier_term_opens_nothing() {
    for is_earlier in [true, false] {
        let mut cluster = forgetful();
        cluster.cut.insert((node(3), node(1)));
        cluster.elect(1);
        let head = cluster.at(1).raft.head_to(node(3));
        let raft = &mut cluster.at(3).raft;
        raft.on_gate_answer(&head, NONCE, LogIndex(0));
        if is_earlier {
            raft.become_follower(raft.term.next(), Some(node(2)));
        }
        raft.open_gate();
        assert_eq!(raft.gate.is_some(), is_earlier);
    }
}

/// Once in each term: another leader may have had more.
#[test]
fn the_gate_is_asked_about_until_the_leader_of_the_term_has_answered() {
    let mut cluster = forgetful();
    cluster.cut.insert((node(3), node(1)));
    cluster.elect(1);
    let head = cluster.at(1).raft.head_to(node(3));
    let raft = &mut cluster.at(3).raft;
    let asks = |raft: &mut Raft| {
        raft.messages.clear();
        raft.ask_about_gate(&head);
        raft.messages.len()
    };
    assert_eq!(asks(raft), 1);
    raft.on_gate_answer(&head, NONCE, LogIndex(9));
    assert_eq!(asks(raft), 0);
    raft.become_follower(raft.term.next(), Some(node(2)));
    assert_eq!(asks(raft), 1);
}

/// Entries that the leader takes later are not waited for: there would be no end to it. Another leader may have had
/// more before.
#[test]
fn the_first_answer_of_a_term_says_how_far_the_gate_is_shut() {
    let mut cluster = forgetful();
    cluster.cut.insert((node(3), node(1)));
    cluster.elect(1);
    let head = cluster.at(1).raft.head_to(node(3));
    let later = Head { term: head.term.next(), ..cluster.at(2).raft.head_to(node(3)) };
    let shut = |answers: &[(Head, u64)]| {
        let mut raft = cluster.nodes[2].raft.clone();
        for (head, last) in answers {
            if head.term > raft.term {
                raft.become_follower(head.term, Some(head.from));
            }
            raft.on_gate_answer(head, NONCE, LogIndex(*last));
        }
        raft.open_gate();
        raft.gate.is_some()
    };
    assert!(!shut(&[(head, 0), (head, 9)]) && shut(&[(head, 9), (head, 0)]));
    assert!(!shut(&[(head, 9), (later, 0)]) && shut(&[(head, 0), (later, 9)]));
}

/// One of three is dead, and one has its gate shut, on which the leader's answer is lost for long. What that one has
/// written since is on its disk: were it not to count, nothing would be committed.
#[test]
fn what_is_acknowledged_behind_the_gate_counts() {
    let mut cluster = forgetful();
    cluster.cut.insert((node(3), node(1)));
    cluster.elect(1);
    cluster.cut.clear();
    cluster.isolate(2);
    cluster.propose(1, 1, &["a"]);
    for _ in 0..50 {
        cluster.pass(10 * MS);
        [1, 3].into_iter().for_each(|id| cluster.settle(id));
        while let Some((from, message)) = cluster.queue.pop_front() {
            if !matches!(message.payload, Payload::GateAnswer { .. }) {
                cluster.deliver(from, message);
            }
        }
    }
    assert!(is_shut(&mut cluster));
    assert_eq!(commands(cluster.at(1)).pop(), Some(("a".into(), Some(1))));
}
