//! What was said to a life that is over, or that a disk has forgotten since.

use super::{super::gate::Gate, *};

const FIRST: [u64; 2] = [300, 1];
const SECOND: [u64; 2] = [300, 2];

impl Cluster {
    /// Delivers what comes before the first message like this one, which is late.
    fn run_until(&mut self, is_it: fn(&Message) -> bool) -> (NodeId, Message) {
        loop {
            let (from, message) = self.queue.pop_front().expect("it is said");
            if is_it(&message) {
                return (from, message);
            }
            self.deliver(from, message);
        }
    }

    /// A node that had all of its log durable finds none of it, and knows of that as this fault.
    fn lose_log(&mut self, id: u64, nonce: [u64; 2]) {
        let disk = &mut self.at(id).disk;
        (disk.durable, disk.log) = (0, Vec::new());
        self.crash(id);
        self.at(id).raft.gate = Some(Gate::new(nonce));
        self.at(id).raft.patience = Duration::from_secs(3600);
    }
}

const fn is_read_answer(message: &Message) -> bool {
    matches!(message.payload, Payload::ReadIndexAnswer { .. })
}

const fn is_gate_answer(message: &Message) -> bool {
    matches!(message.payload, Payload::GateAnswer { .. })
}

const fn is_promise(message: &Message) -> bool {
    matches!(message.payload, Payload::PreVoteAnswer(verdict) if verdict.granted)
}

/// Both lives count their questions from one, and the first answer comes after the crash and after a write.
#[test]
fn nobody_reads_by_what_its_life_before_a_crash_was_told() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    cluster.at(2).raft.on_read(Requests::one(RequestId(5)), ReadMode::Linearizable);
    cluster.settle(2);
    let (from, late) = cluster.run_until(is_read_answer);
    cluster.run();
    cluster.crash(2);
    cluster.elapse(300 * MS);
    cluster.propose(1, 10, &["written"]);
    cluster.elapse(100 * MS);
    assert_eq!(commands(cluster.at(1)).len(), 1);
    cluster.at(2).raft.on_read(Requests::one(RequestId(6)), ReadMode::Linearizable);
    cluster.settle(2);
    cluster.deliver(from, late);
    assert_eq!(cluster.at(2).queried, [], "the write is not seen in it");
    cluster.run();
    assert_eq!(cluster.at(2).queried, [(6, LogIndex(2))]);
}

/// Its log is lost twice under one leader, and between that something is committed by its word. The answer to the
/// question about the first loss comes behind the second.
#[test]
fn what_a_gate_asked_for_an_earlier_loss_opens_none_for_this_one() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(300 * MS);
    cluster.lose_log(3, FIRST);
    cluster.pass(100 * MS);
    (1..=3).for_each(|id| cluster.settle(id));
    let (from, late) = cluster.run_until(is_gate_answer);
    cluster.elapse(500 * MS);
    assert_eq!(cluster.at(3).raft.gate, None);
    assert_eq!(cluster.at(3).disk.log.len(), 2);
    cluster.isolate(2);
    cluster.propose(1, 2, &["b"]);
    cluster.elapse(100 * MS);
    assert_eq!(commands(cluster.at(1)).len(), 2, "it is committed without the second");
    cluster.lose_log(3, SECOND);
    // It follows, and what it asks is not heard: it is sent nothing of its lost log before the answer comes.
    cluster.cut.insert((node(3), node(1)));
    cluster.elapse(100 * MS);
    assert_eq!(cluster.at(3).raft.leader(), Some(node(1)));
    cluster.deliver(from, late);
    cluster.cut.remove(&(node(3), node(1)));
    cluster.at(3).disk.lazy = true;
    for _ in 0..30 {
        cluster.pass(10 * MS);
        cluster.run();
        let disk = &mut cluster.at(3).disk;
        disk.promised = disk.wanted;
        // What the first answer spoke of, and no more.
        disk.durable = disk.log.len().min(2);
    }
    assert_eq!(cluster.at(3).disk.durable, 2);
    // Now the leader is gone, and the other two are there.
    cluster.cut.clear();
    cluster.isolate(1);
    for id in [2, 3] {
        cluster.at(id).disk.lazy = false;
        cluster.at(id).raft.draw_patience();
    }
    // What a restart would find of its gate.
    let is_shut = cluster.at(3).raft.gate.is_some();
    cluster.crash(3);
    cluster.at(3).raft.gate = is_shut.then_some(Gate::new(SECOND));
    cluster.elapse(10_000 * MS);
    let leads = |id: &u64| cluster.nodes[*id as usize - 1].role() == status::Role::Leader;
    assert_eq!([2, 3].iter().find(|id| leads(id)), None, "and what was committed is lost");
}

/// A voter knows a term before it votes in it, and crashes when it has voted and its disk does not hold that yet. Had
/// the vote left with its term, two would lead it.
#[test]
fn a_vote_that_a_crash_takes_back_was_given_to_nobody() {
    let mut cluster = Cluster::of(3);
    cluster.elect(3);
    cluster.elapse(200 * MS);
    cluster.at(3).disk.lazy = true;
    let mut ballots = Vec::new();
    for id in [1, 2] {
        let raft = &mut cluster.at(id).raft;
        raft.become_candidate();
        raft.patience = Duration::from_secs(3600);
        cluster.settle(id);
        let asked = cluster.queue.drain(..).find(|(_, message)| message.head.to == node(3));
        ballots.push(asked.expect("it asks the third"));
    }
    // The third hears of their term as the leader of the one before.
    cluster.pass(100 * MS);
    cluster.settle(3);
    let beat = cluster.queue.drain(..).find(|(_, message)| message.head.to == node(1));
    let (from, beat) = beat.expect("it beats");
    cluster.deliver(from, beat);
    let (from, answer) = cluster.queue.pop_front().expect("it is told of the term");
    cluster.deliver(from, answer);
    cluster.at(3).disk.sync();
    cluster.settle(3);
    let term = cluster.at(1).raft.term;
    assert_eq!(cluster.at(3).disk.promised, (term, None));
    cluster.queue.clear();
    // It votes for the first.
    let (second, first) = (ballots.pop().expect("two stand"), ballots.pop().expect("two stand"));
    cluster.deliver(first.0, first.1);
    assert_eq!(cluster.at(3).disk.wanted, (term, Some(node(1))));
    while let Some((from, message)) = cluster.queue.pop_front() {
        cluster.deliver(from, message);
        cluster.queue.retain(|(_, message)| message.head.to == node(1));
    }
    cluster.crash(3);
    cluster.at(3).disk.lazy = false;
    cluster.pass(1_000 * MS);
    cluster.queue.clear();
    // The ballot of the second was long on its way.
    cluster.deliver(second.0, second.1);
    while let Some((from, message)) = cluster.queue.pop_front() {
        if message.head.to == node(2) {
            cluster.deliver(from, message);
            break;
        }
    }
    let leads = |id: &u64| {
        let node = &cluster.nodes[*id as usize - 1];
        node.role() == status::Role::Leader && node.raft.term == term
    };
    let leaders: Vec<_> = [1, 2, 3].into_iter().filter(leads).collect();
    assert_eq!(leaders, [2], "in {term}");
}

/// It asked around, crashed, and asks again by the same number: whoever would have voted for it then follows
/// somebody now.
#[test]
fn what_a_life_before_was_promised_lets_nobody_stand() {
    let mut cluster = Cluster::of(3);
    cluster.isolate(1);
    cluster.run();
    cluster.pass(1_000 * MS);
    cluster.at(2).raft.patience = Duration::ZERO;
    cluster.settle(2);
    let (from, late) = cluster.run_until(is_promise);
    cluster.queue.clear();
    cluster.crash(2);
    cluster.pass(1_000 * MS);
    cluster.isolate(2);
    cluster.cut.retain(|cut| *cut != (node(1), node(3)) && *cut != (node(3), node(1)));
    cluster.elect(1);
    assert_eq!(cluster.at(3).raft.leader(), Some(node(1)));
    let term = cluster.at(2).raft.term;
    cluster.at(2).raft.patience = Duration::ZERO;
    cluster.settle(2);
    cluster.queue.clear();
    cluster.cut.clear();
    cluster.deliver(from, late);
    assert_eq!((cluster.at(2).raft.term, cluster.at(2).role()), (term, status::Role::PreCandidate));
}
