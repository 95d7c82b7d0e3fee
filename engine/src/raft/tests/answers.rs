//! Answers that come late, from another life, or take back what was said.

use super::{
    super::progress::{Pace, Peer},
    *,
};
use crate::{
    message::{AppendAnswer, Conflict, InstallAnswer},
    storage::Reader,
};

impl Cluster {
    /// An answer to node 1, as node 2 would give it.
    fn answers(&mut self, answer: AppendAnswer) {
        let head = self.head();
        self.answers_as(head, answer);
    }

    fn answers_as(&mut self, head: Head, answer: AppendAnswer) {
        let payload = Payload::AppendAnswer(answer);
        self.at(1).raft.on_message(node(2), Message { head, payload });
    }

    /// Of what node 2 answers to node 1.
    fn head(&mut self) -> Head {
        let answers = self.at(1).raft.life();
        Head { answers, ..self.at(2).raft.head_to(node(1)) }
    }

    /// What node 1, which leads, knows of node 2.
    fn known(&mut self) -> &Peer {
        match &self.at(1).raft.role {
            Role::Leader(leader) => leader.peers.iter().find(|peer| peer.id == node(2)).unwrap(),
            other => panic!("{other:?}"),
        }
    }
}

fn conflict(through: u64) -> Option<Box<Conflict>> {
    let runs = vec![(LogIndex(0), Term(0)), (LogIndex(1), Term(2))];
    Some(Box::new(Conflict { through: LogIndex(through), committed: LogIndex(0), runs }))
}

/// It would be asked anew where the logs agree, and what is on its way to it be sent twice.
#[test]
fn a_refusal_of_before_the_last_question_says_nothing() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(300 * MS);
    cluster.at(1).raft.on_link(node(2), false);
    cluster.at(1).raft.on_link(node(2), true);
    cluster.run();
    assert_eq!(cluster.known().pace, Pace::Replicate);
    let refused = AppendAnswer { sequence: 1, conflict: conflict(1), ..AppendAnswer::default() };
    cluster.answers(refused.clone());
    assert_eq!(cluster.known().pace, Pace::Replicate);
    let sequence = cluster.known().sequence;
    cluster.answers(AppendAnswer { sequence, ..refused });
    assert_ne!(cluster.known().pace, Pace::Replicate, "one of now is heard");
}

/// Would its former word count, what it has lost would be committed by it.
#[test]
fn one_who_may_have_lost_what_it_acknowledged_is_believed_no_more() {
    for gated in [false, true] {
        let mut cluster = Cluster::led(3);
        cluster.propose(1, 1, &["a"]);
        cluster.elapse(300 * MS);
        assert_eq!(cluster.known().matched, LogIndex(2));
        let sequence = cluster.known().sequence;
        let conflict = conflict(1);
        cluster.answers(AppendAnswer { sequence, gated, conflict, ..AppendAnswer::default() });
        assert_eq!(cluster.known().matched, LogIndex(if gated { 1 } else { 2 }), "{gated}");
    }
}

/// Numbers of batches begin anew with each life: what the former one had heard the present one has not.
#[test]
fn a_former_life_has_heard_of_no_fate_of_this_one() {
    let mut cluster = Cluster::led(3);
    let former = cluster.at(2).raft.life();
    cluster.crash(2);
    cluster.at(2).raft.patience = Duration::from_secs(3600);
    cluster.elapse(200 * MS);
    cluster.cut.insert((node(1), node(2)));
    cluster.propose(2, 20, &["a"]);
    cluster.run();
    assert_eq!(commands(cluster.at(1)), [("a".into(), None)]);
    let head = Head { life: former, ..cluster.head() };
    cluster.answers_as(head, AppendAnswer { fates: 9, ..AppendAnswer::default() });
    cluster.cut.clear();
    cluster.elapse(300 * MS);
    assert_eq!(commands(cluster.at(2)), [("a".into(), Some(20))]);
}

/// It leads again, or lives again: what was acknowledged to it then may have been cut since.
#[test]
fn what_was_said_to_a_former_leadership_or_life_counts_for_nothing() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    cluster.isolate(1);
    cluster.propose(1, 1, &["a"]);
    cluster.run();
    let (matched, sequence) = (LogIndex(2), cluster.known().sequence);
    let answer = AppendAnswer { matched, durable: matched, sequence, ..AppendAnswer::default() };
    let now = cluster.head();
    let formers = [
        Head { term: Term(now.term.0 - 1), ..now },
        Head { answers: Life(now.answers.0 - 1), ..now },
    ];
    for head in formers {
        for payload in [
            Payload::AppendAnswer(answer.clone()),
            Payload::InstallAnswer(InstallAnswer::default()),
        ] {
            let message = Message { head, payload };
            cluster.at(1).raft.on_message(node(2), message);
            let Role::Leader(leader) = &cluster.at(1).raft.role else { panic!("it leads") };
            assert_eq!(leader.wanted_beyond, None, "no snapshot is asked for: {head:?}");
            assert_eq!(cluster.known().matched, LogIndex(1), "{head:?}");
        }
    }
    let payload = Payload::InstallAnswer(InstallAnswer::default());
    cluster.at(1).raft.on_message(node(2), Message { head: now, payload });
    cluster.answers(answer);
    assert_eq!(cluster.known().matched, matched, "one of now is heard");
    let Role::Leader(leader) = &cluster.at(1).raft.role else { panic!("it leads") };
    assert_eq!(leader.wanted_beyond, Some(LogIndex(0)));
}

/// Another leader, or another life of the asker, knows nothing of what is read here.
#[test]
fn a_read_is_confirmed_by_the_leader_of_now_in_this_life() {
    type Case = (u64, fn(&mut Head), bool);
    let changes: [Case; 4] = [
        (1, |head| head.term = Term(1), false),
        (1, |head| head.answers.0 += 1, false),
        (3, |_| {}, false),
        (1, |_| {}, true),
    ];
    for (from, change, is_confirmed) in changes {
        let mut cluster = Cluster::led(3);
        cluster.elapse(300 * MS);
        cluster.at(2).raft.on_read(Requests::one(RequestId(5)), ReadMode::Linearizable);
        let round = cluster.said(2).into_iter().find_map(|(_, payload)| match payload {
            Payload::ReadIndex { round } => Some(round),
            _ => None,
        });
        let answers = cluster.at(2).raft.life();
        let mut head = Head { answers, ..cluster.at(from).raft.head_to(node(2)) };
        change(&mut head);
        let round = round.expect("it asks");
        let payload = Payload::ReadIndexAnswer { round, index: LogIndex(1) };
        cluster.at(2).raft.on_message(node(from), Message { head, payload });
        cluster.settle(2);
        assert_eq!(cluster.at(2).queried.len() == 1, is_confirmed, "{head:?}");
    }
}

/// It is another leader's entry, cut meanwhile, or not the next one: the machine never takes it.
#[test]
fn what_was_read_for_the_machine_is_its_next_entry_or_nothing() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 1, &["a"]);
    cluster.run();
    let own = cluster.at(2).disk.log.clone();
    let raft = &mut cluster.at(2).raft;
    let (next, last) = (raft.log.marks.applying().next(), raft.log.last().index);
    raft.log.marks.advance_committed(last);
    raft.log.evict(0);
    raft.stray();
    let given = |index: LogIndex, frames: &Bytes| {
        let mut raft = raft.clone();
        raft.apply();
        let back = ReadBack { first: index, last: index, frames: frames.clone() };
        raft.on_read_back(Reader::Machine, back);
        raft.apply();
        raft.log.marks.applying()
    };
    let of_another = disk_with(1, &[1, 1], 3).log;
    let frame = |log: &[(entry::Head, Bytes)], index: LogIndex| log[index.0 as usize - 1].1.clone();
    assert_eq!(given(next, &frame(&of_another, next)), next.previous());
    assert_eq!(given(next.previous(), &frame(&own, next.previous())), next.previous());
    assert_eq!(given(next, &frame(&own, next)), next);
}

/// A link that is said to be there twice was not closed: what is on its way arrives.
#[test]
fn word_of_a_link_that_was_there_changes_nothing() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    assert_eq!(cluster.known().pace, Pace::Replicate);
    cluster.at(1).raft.on_link(node(2), true);
    assert_eq!(cluster.known().pace, Pace::Replicate);
    assert!(!cluster.at(1).has(Mark::PeerPaused));
}

/// Only the leader knows what became of it, and it is gone if its node is.
#[test]
fn what_was_forwarded_is_lost_with_the_link_to_the_leader_alone() {
    for (peer, up, is_lost) in
        [(3, false, false), (3, true, false), (1, true, false), (1, false, true)]
    {
        let mut cluster = Cluster::led(3);
        cluster.elapse(300 * MS);
        cluster.propose(2, 20, &["a"]);
        cluster.said(2);
        cluster.at(2).raft.on_link(node(peer), up);
        cluster.settle(2);
        let ended = cluster.at(2).ended.clone();
        assert_eq!(!ended.is_empty(), is_lost, "node {peer}, up: {up}");
    }
}

/// Neither of the two alone is believed.
#[test]
fn a_term_or_an_index_that_none_can_reach_is_a_fault() {
    for (term, index, is_fault) in
        [(NUMBER_MAX, NUMBER_MAX, false), (NUMBER_MAX + 1, 1, true), (2, NUMBER_MAX + 1, true)]
    {
        let mut cluster = Cluster::led(3);
        let head = Head { term: Term(term), ..cluster.at(2).raft.head_to(node(1)) };
        let payload = Payload::RefillAsk { at: LogId::new(Term(1), LogIndex(index)) };
        cluster.at(1).raft.on_message(node(2), Message { head, payload });
        cluster.settle(1);
        let faults = if is_fault { &["a term or an index that none can reach"][..] } else { &[] };
        assert_eq!(cluster.at(1).faults(), faults, "{term}, {index}");
    }
}

/// Who can be reached decides whom to ask, and whom to wait for.
#[test]
fn a_link_is_there_or_it_is_not() {
    let mut cluster = Cluster::led(3);
    let raft = &mut cluster.at(2).raft;
    let known = |raft: &Raft| (raft.linked.clone(), raft.unlinked.clone());
    for (peer, up) in [(1, true), (3, true), (1, true)] {
        raft.on_link(node(peer), up);
    }
    assert_eq!(known(raft), (vec![node(3), node(1)], vec![]));
    raft.on_link(node(3), false);
    assert_eq!(known(raft), (vec![node(1)], vec![node(3)]));
    raft.on_link(node(3), true);
    assert_eq!(known(raft), (vec![node(1), node(3)], vec![]));
}
