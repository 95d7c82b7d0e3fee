//! Answers that come late, from another life, or take back what was said.

use super::{
    super::progress::{Pace, Peer},
    *,
};
use crate::message::{AppendAnswer, Conflict, InstallAnswer};

impl Cluster {
    /// An answer to node 1, as node 2 would give it.
    fn answers(&mut self, log_epoch: u64, answer: AppendAnswer) {
        let head = Head { log_epoch, ..self.head() };
        let payload = Payload::AppendAnswer(answer);
        self.at(1).raft.on_message(node(2), Message { head, payload });
    }

    /// Of what node 2 answers to node 1.
    fn head(&mut self) -> Head {
        let answers = self.at(1).disk.epoch;
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
    cluster.answers(1, refused.clone());
    assert_eq!(cluster.known().pace, Pace::Replicate);
    let sequence = cluster.known().sequence;
    cluster.answers(1, AppendAnswer { sequence, ..refused });
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
        cluster.answers(1, AppendAnswer { sequence, gated, conflict, ..AppendAnswer::default() });
        assert_eq!(cluster.known().matched, LogIndex(if gated { 1 } else { 2 }), "{gated}");
    }
}

/// Numbers of batches begin anew with each life: what the former one had heard the present one has not.
#[test]
fn a_former_life_has_heard_of_no_fate_of_this_one() {
    let mut cluster = Cluster::led(3);
    cluster.crash(2);
    cluster.at(2).raft.patience = Duration::from_secs(3600);
    cluster.elapse(200 * MS);
    cluster.cut.insert((node(1), node(2)));
    cluster.propose(2, 20, &["a"]);
    cluster.run();
    assert_eq!(commands(cluster.at(1)), [("a".into(), None)]);
    cluster.answers(1, AppendAnswer { fates: 9, ..AppendAnswer::default() });
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
    let formers =
        [Head { term: Term(now.term.0 - 1), ..now }, Head { answers: now.answers - 1, ..now }];
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
    cluster.answers(1, answer);
    assert_eq!(cluster.known().matched, matched, "one of now is heard");
    let Role::Leader(leader) = &cluster.at(1).raft.role else { panic!("it leads") };
    assert_eq!(leader.wanted_beyond, Some(LogIndex(0)));
}
