use super::*;
use crate::{
    change::Change as MembershipChange, message::Ballot, raft::read::READS_MAX, types::SnapshotName,
};

fn read(cluster: &mut Cluster, at: u64, id: u64) {
    cluster.at(at).raft.on_read(Requests::one(RequestId(id)), ReadMode::Linearizable);
}

#[test]
fn a_read_needs_a_quorum_to_confirm_the_leader() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 1, &["a"]);
    cluster.run();
    read(&mut cluster, 1, 5);
    let said = cluster.said(1);
    assert_eq!(said.len(), 2, "a round to both: {said:?}");
    assert_eq!(cluster.at(1).queried, []);
    cluster.elapse(100 * MS);
    assert_eq!(cluster.at(1).queried, [(5, LogIndex(2))]);
}

/// A leader that was deposed and does not know it yet.
#[test]
fn a_deposed_leader_answers_no_reads() {
    let mut cluster = Cluster::led(3);
    cluster.isolate(1);
    read(&mut cluster, 1, 5);
    cluster.pass(1000 * MS);
    cluster.elect(2);
    cluster.propose(2, 9, &["newer"]);
    cluster.run();
    cluster.cut.clear();
    cluster.elapse(300 * MS);
    assert_eq!(cluster.at(1).queried, []);
    assert_eq!(cluster.at(1).ended, [(5, Outcome::Refused(Refusal::NotLeader { hint: None }))]);
}

#[test]
fn a_follower_reads_what_was_acknowledged_before() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 1, &["a"]);
    let now = cluster.now;
    for message in cluster.at(1).settle(now) {
        cluster.deliver(node(1), message);
    }
    cluster.cut.insert((node(1), node(2)));
    cluster.run();
    cluster.cut.clear();
    assert_eq!(commands(cluster.at(1)).len(), 1);
    assert_eq!(commands(cluster.at(2)), [], "it has not heard of the commit");
    read(&mut cluster, 2, 5);
    cluster.elapse(200 * MS);
    assert_eq!(cluster.at(2).queried, [(5, LogIndex(2))]);
    assert_eq!(commands(cluster.at(2)).len(), 1);
}

#[test]
fn reads_that_gather_share_a_round() {
    let mut cluster = Cluster::led(3);
    read(&mut cluster, 1, 1);
    cluster.run();
    assert!(!cluster.at(1).has(Mark::ReadsShared), "it was alone");
    read(&mut cluster, 1, 2);
    cluster.settle(1);
    [4, 6, 7].into_iter().for_each(|id| read(&mut cluster, 1, id));
    read(&mut cluster, 2, 8);
    cluster.run();
    let ids = |node: &Node| node.queried.iter().map(|query| query.0).collect::<Vec<_>>();
    assert_eq!(ids(cluster.at(1)), [1, 2, 4, 6, 7]);
    assert_eq!(ids(cluster.at(2)), [8]);
    assert!(cluster.at(1).has(Mark::ReadsShared));
    assert!(cluster.at(1).raft.reads.number() <= 4);
}

/// Until then its commit index may lie behind what its predecessor acknowledged.
#[test]
fn a_new_leader_serves_no_read_before_its_first_commit() {
    let mut cluster = led_without_a_commit();
    read(&mut cluster, 1, 5);
    cluster.elapse(200 * MS);
    assert_eq!(cluster.at(1).queried, []);
    assert!(cluster.at(1).has(Mark::ReadHeldForFirstCommit));
    (2..=3).for_each(|id| cluster.at(id).disk.lazy = false);
    cluster.elapse(200 * MS);
    assert_eq!(cluster.at(1).queried, [(5, LogIndex(3))]);
}

/// Storm of three, seed 94: all three were restarted, and a read that was content with what was 3 ms old
/// was answered from a state in which nothing was applied, behind nine acknowledged entries: its node had
/// heard from a leader that had committed nothing yet.
#[test]
fn nobody_serves_local_reads_before_the_first_commit_of_a_leader() {
    let mut cluster = led_without_a_commit();
    let mode = ReadMode::Local { stale_max: Duration::from_secs(10) };
    cluster.elapse(200 * MS);
    for node in 1..=3 {
        cluster.at(node).raft.on_read(Requests::one(RequestId(node)), mode);
        cluster.settle(node);
        assert_eq!(cluster.at(node).queried, []);
        assert_eq!(cluster.at(node).ended, [(node, Outcome::Refused(Refusal::NotReady))]);
    }
    (2..=3).for_each(|id| cluster.at(id).disk.lazy = false);
    cluster.elapse(200 * MS);
    for node in 1..=3 {
        cluster.at(node).raft.on_read(Requests::one(RequestId(9)), mode);
        cluster.settle(node);
        assert_eq!(cluster.at(node).queried, [(9, LogIndex(3))]);
    }
}

/// Node 1 leads, and no other disk takes what it appends.
fn led_without_a_commit() -> Cluster {
    let mut cluster = Cluster::new((0..3).map(|_| disk_with(1, &[1, 1], 3)).collect());
    cluster.run();
    (2..=3).for_each(|id| cluster.at(id).disk.lazy = false);
    cluster.pass(1000 * MS);
    cluster.at(1).raft.patience = Duration::ZERO;
    (2..=3).for_each(|id| cluster.at(id).raft.patience = Duration::from_secs(3600));
    cluster.settle(1);
    while let Some((from, message)) = cluster.queue.pop_front() {
        if matches!(&message.payload, Payload::Append(append) if !append.frames.is_empty()) {
            cluster.at(message.head.to.0).disk.lazy = true;
        }
        cluster.deliver(from, message);
    }
    cluster
}

#[test]
fn a_read_that_gets_no_answer_is_asked_again_and_refused_at_last() {
    let mut cluster = Cluster::led(3);
    cluster.cut.insert((node(2), node(1)));
    read(&mut cluster, 2, 5);
    cluster.elapse(1500 * MS);
    assert!(cluster.at(2).has(Mark::ReadRoundRepeated));
    assert_eq!(cluster.at(2).ended, []);
    cluster.elapse(800 * MS);
    let hint = Some(node(1));
    assert_eq!(cluster.at(2).ended, [(5, Outcome::Refused(Refusal::NotLeader { hint }))]);
}

/// Questions and answers about reads that are on their way, each link as long as a test wants.
#[derive(Default)]
struct Wire {
    under_way: Vec<(Instant, NodeId, Message)>,
    asked: usize,
    answered: usize,
}

impl Wire {
    /// Time passes in small steps; between nodes 1 and 2 every message takes `delay` ms.
    fn elapse(&mut self, cluster: &mut Cluster, time: u64, delay: u64) {
        for _ in 0..time / 10 {
            cluster.pass(10 * MS);
            (1..=cluster.nodes.len() as u64).for_each(|id| cluster.settle(id));
            loop {
                while let Some((from, message)) = cluster.queue.pop_front() {
                    self.post(cluster.now, from, message, delay);
                }
                let is_due = |sent: &(Instant, NodeId, Message)| sent.0 <= cluster.now;
                let Some(at) = self.under_way.iter().position(is_due) else { break };
                let (_, from, message) = self.under_way.remove(at);
                cluster.deliver(from, message);
            }
        }
    }

    fn post(&mut self, now: Instant, from: NodeId, message: Message, delay: u64) {
        self.asked += usize::from(matches!(message.payload, Payload::ReadIndex { .. }));
        self.answered += usize::from(matches!(message.payload, Payload::ReadIndexAnswer { .. }));
        let is_slow = [from, message.head.to].iter().all(|end| *end != node(3));
        let due = now.after(Duration::from_millis(if is_slow { delay } else { 0 }));
        self.under_way.push((due, from, message));
    }
}

/// A follower put its question again at every heartbeat, and the leader took a round for each: on a
/// link of 150 ms that was three times the messages, and on one of which a queue had made seconds
/// the queue grew by what the follower asked because of it.
#[test]
fn a_slow_link_carries_a_question_once() {
    let mut cluster = Cluster::led(3);
    cluster.run();
    let mut wire = Wire::default();
    for id in 0..20 {
        read(&mut cluster, 2, 100 + id);
        wire.elapse(&mut cluster, 400, 150);
    }
    assert_eq!(cluster.at(2).queried.len(), 20);
    // The first is put again after 100 and after 200 ms; the next waits 400 ms, and is answered.
    assert_eq!((wire.asked, wire.answered), (22, 22));
}

/// However slow the link: the longest wait is half of the least timeout.
#[test]
fn questions_become_fewer_the_longer_there_is_no_answer() {
    let mut cluster = Cluster::led(3);
    cluster.run();
    cluster.at(2).raft.patience = Duration::from_secs(3600);
    let mut wire = Wire::default();
    read(&mut cluster, 2, 5);
    wire.elapse(&mut cluster, 1990, 60_000);
    assert_eq!(wire.asked, 6, "at once and after 0.1, 0.3, 0.7, 1.2 and 1.7 seconds");
    assert_eq!(cluster.at(2).ended, []);
    wire.elapse(&mut cluster, 20, 60_000);
    assert_eq!(cluster.at(2).ended.len(), 1, "given up when it ever was");
}

/// What a former round has taught must not hold up the one that loses its question.
#[test]
fn a_lost_question_or_answer_is_made_good() {
    for lost in [(2, 1), (1, 2)] {
        let mut cluster = Cluster::led(3);
        cluster.run();
        let mut wire = Wire::default();
        read(&mut cluster, 2, 5);
        wire.elapse(&mut cluster, 2000, 240);
        assert_eq!(cluster.at(2).queried.len(), 1);
        cluster.cut.insert((node(lost.0), node(lost.1)));
        read(&mut cluster, 2, 6);
        wire.elapse(&mut cluster, 10, 0);
        cluster.cut.clear();
        wire.elapse(&mut cluster, 510, 0);
        assert_eq!(cluster.at(2).queried.len(), 2, "{lost:?}");
        read(&mut cluster, 2, 7);
        wire.elapse(&mut cluster, 10, 0);
        // It was answered at once: the next waits a heartbeat, as in the beginning.
        cluster.cut.insert((node(lost.0), node(lost.1)));
        read(&mut cluster, 2, 8);
        wire.elapse(&mut cluster, 10, 0);
        cluster.cut.clear();
        wire.elapse(&mut cluster, 110, 0);
        assert_eq!(cluster.at(2).queried.len(), 4, "{lost:?}");
    }
}

/// The way to another leader is another one.
#[test]
fn another_leader_is_asked_as_if_no_link_had_been_slow() {
    let mut cluster = Cluster::led(3);
    cluster.run();
    cluster.at(2).raft.patience = Duration::from_secs(3600);
    let mut wire = Wire::default();
    read(&mut cluster, 2, 5);
    wire.elapse(&mut cluster, 900, 60_000);
    cluster.isolate(1);
    cluster.elect(3);
    assert_eq!(cluster.at(2).ended, [(5, Outcome::Refused(Refusal::NotLeader { hint: None }))]);
    read(&mut cluster, 2, 6);
    cluster.cut.insert((node(2), node(3)));
    wire.elapse(&mut cluster, 10, 60_000);
    cluster.cut.remove(&(node(2), node(3)));
    wire.elapse(&mut cluster, 110, 60_000);
    assert_eq!(cluster.at(2).queried, [(6, LogIndex(2))]);
}

/// What comes again while the leader's round is on its way is answered by that.
#[test]
fn a_repeated_question_is_answered_once_in_a_round() {
    let mut cluster = Cluster::led(3);
    cluster.run();
    read(&mut cluster, 2, 5);
    cluster.settle(2);
    let (from, question) = cluster.queue.pop_front().expect("it asks");
    assert!(matches!(question.payload, Payload::ReadIndex { .. }) && cluster.queue.is_empty());
    for _ in 0..3 {
        cluster.at(1).raft.on_message(from, question.clone());
        cluster.settle(1);
    }
    let rounds = cluster.at(1).raft.reads.number();
    cluster.run();
    assert_eq!(cluster.at(2).queried, [(5, LogIndex(1))]);
    assert_eq!(cluster.at(1).raft.reads.number(), rounds, "one round for all");
    assert!(!cluster.at(2).has(Mark::StaleAnswerDropped), "one answer");
}

#[test]
fn without_a_leader_reads_are_refused() {
    let mut cluster = Cluster::of(3);
    read(&mut cluster, 1, 5);
    cluster.run();
    assert_eq!(cluster.at(1).ended, [(5, Outcome::Refused(Refusal::NotLeader { hint: None }))]);
}

/// A follower without room on its disk takes no more than a window of entries. It hears of its
/// leader all the time, so reads there waited for ever, and what it had forwarded (found on a small
/// file system).
#[test]
fn a_node_that_stays_behind_leaves_nobody_waiting() {
    let tuning = Tuning { append_bytes_max: 128, inflight_bytes_max: 128, ..Tuning::default() };
    let mut cluster = Cluster::tuned((0..3).map(|_| disk_with(1, &[], 3)).collect(), tuning);
    cluster.elect(1);
    cluster.run();
    cluster.at(2).disk.lazy = true;
    for request in 1..=9 {
        cluster.propose(1, request, &["0123456789012345678901234567"]);
        cluster.run();
    }
    read(&mut cluster, 2, 20);
    cluster.propose(2, 30, &["forwarded"]);
    cluster.elapse(1500 * MS);
    assert_eq!((cluster.at(2).queried.len(), cluster.at(2).ended.len()), (0, 0));
    cluster.elapse(800 * MS);
    let refused = Outcome::Refused(Refusal::NotReady);
    assert_eq!(cluster.at(2).ended, [(20, refused), (30, Outcome::Unknown)]);
    cluster.at(2).disk.lazy = false;
    cluster.elapse(500 * MS);
    read(&mut cluster, 2, 21);
    cluster.run();
    assert_eq!(cluster.at(2).queried, [(21, LogIndex(11))]);
    assert_eq!(cluster.at(2).ended.len(), 2, "one end each");
}

/// The position is confirmed, and the entries up to it never come.
#[test]
fn a_confirmed_read_that_cannot_be_reached_is_refused() {
    let mut cluster = Cluster::led(3);
    cluster.at(2).disk.lazy = true;
    cluster.propose(1, 1, &["a"]);
    let now = cluster.now;
    for message in cluster.at(1).settle(now) {
        if message.head.to == node(3) {
            cluster.deliver(node(1), message);
        }
    }
    cluster.run();
    read(&mut cluster, 2, 5);
    cluster.settle(2);
    while let Some((from, message)) = cluster.queue.pop_front() {
        if !matches!(message.payload, Payload::Append(_)) || message.head.to == node(3) {
            cluster.deliver(from, message);
        }
    }
    cluster.isolate(2);
    cluster.at(2).raft.patience = Duration::from_secs(1);
    cluster.elapse(1500 * MS);
    assert_eq!(cluster.at(2).ended, [(5, Outcome::Refused(Refusal::NotLeader { hint: None }))]);
}

#[test]
fn a_leader_serves_local_reads_while_a_quorum_answers() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    let mode = ReadMode::Local { stale_max: Duration::from_millis(150) };
    cluster.at(1).raft.on_read(Requests::one(RequestId(1)), mode);
    cluster.settle(1);
    assert_eq!(cluster.at(1).queried, [(1, LogIndex(1))]);
    cluster.isolate(1);
    cluster.elapse(300 * MS);
    cluster.at(1).raft.on_read(Requests::one(RequestId(2)), mode);
    cluster.settle(1);
    assert_eq!(cluster.at(1).ended, [(2, Outcome::Refused(Refusal::NotReady))]);
}

/// Each of a quorum must have answered, not one for all.
#[test]
fn one_answer_of_four_makes_no_local_read_fresh() {
    let mut cluster = Cluster::led(5);
    cluster.elapse(300 * MS);
    [3, 4, 5].into_iter().for_each(|id| cluster.isolate(id));
    cluster.elapse(300 * MS);
    assert_eq!(cluster.at(1).role(), status::Role::Leader);
    let mode = ReadMode::Local { stale_max: Duration::from_millis(150) };
    cluster.at(1).raft.on_read(Requests::one(RequestId(1)), mode);
    cluster.settle(1);
    assert_eq!(cluster.at(1).queried, []);
    assert_eq!(cluster.at(1).ended, [(1, Outcome::Refused(Refusal::NotReady))]);
}

#[test]
fn a_local_read_is_as_stale_as_it_may_be() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    cluster.isolate(2);
    let local = |stale_max| ReadMode::Local { stale_max: Duration::from_millis(stale_max) };
    cluster.pass(50 * MS);
    cluster.settle(2);
    cluster.at(2).raft.on_read(Requests::one(RequestId(1)), local(200));
    cluster.at(2).raft.on_read(Requests::one(RequestId(2)), local(10));
    cluster.settle(2);
    assert_eq!(cluster.at(2).queried, [(1, LogIndex(1))]);
    assert_eq!(cluster.at(2).ended, [(2, Outcome::Refused(Refusal::NotReady))]);
}

/// Whoever cannot stand asks around when its leader is silent: that it asks is no word of the leader.
#[test]
fn a_learner_that_asks_around_serves_no_old_state() {
    let mut cluster = Cluster::led(4);
    cluster.changed(1, 100, &[MembershipChange::Demote(node(4))]);
    cluster.elapse(300 * MS);
    cluster.isolate(4);
    let mode = ReadMode::Local { stale_max: Duration::from_millis(50) };
    for request in 0..1_000 {
        cluster.elapse(10 * MS);
        cluster.at(4).raft.on_read(Requests::one(RequestId(request)), mode);
        cluster.settle(4);
    }
    let served: Vec<_> = cluster.at(4).queried.iter().map(|(request, _)| *request).collect();
    assert!(served.iter().all(|request| *request < 5), "{served:?}");
    assert_eq!(cluster.at(4).raft.leader(), None);
}

/// A ballot of the same term that comes late is granted, and says nothing of how fresh the state is.
#[test]
fn a_late_ballot_makes_no_state_fresh() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    let at = cluster.at(1).raft.term;
    cluster.at(2).raft.vote = None;
    cluster.isolate(2);
    cluster.pass(150 * MS);
    let head = Head { term: at, ..cluster.at(3).raft.head_to(node(2)) };
    let ballot = Ballot { round: 1, last: id(9, 9), is_wished: true };
    cluster.at(2).raft.on_ballot(&head, ballot, false);
    cluster.settle(2);
    assert_eq!(cluster.at(2).raft.vote, Some(node(3)));
    let mode = ReadMode::Local { stale_max: Duration::from_millis(100) };
    cluster.at(2).raft.on_read(Requests::one(RequestId(1)), mode);
    cluster.settle(2);
    assert_eq!(cluster.at(2).queried, []);
}

/// A piece of a snapshot is word of the leader, and none of what is committed.
#[test]
fn a_piece_of_a_snapshot_makes_no_state_fresh() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    cluster.isolate(2);
    cluster.pass(150 * MS);
    let head = cluster.at(1).raft.head_to(node(2));
    let snapshot = SnapshotName { at: id(1, 1), id: SnapshotId(7), bytes: 1, digest: 0 };
    let piece = Piece { snapshot, offset: 0, bytes: Bytes::from_static(b"x"), ..Piece::default() };
    cluster.at(2).raft.on_piece(&head, piece);
    cluster.settle(2);
    let local = |stale_max| ReadMode::Local { stale_max: Duration::from_millis(stale_max) };
    cluster.at(2).raft.on_read(Requests::one(RequestId(1)), local(100));
    cluster.at(2).raft.on_read(Requests::one(RequestId(2)), local(200));
    cluster.settle(2);
    assert_eq!(cluster.at(2).queried, [(2, LogIndex(1))]);
}

/// However fresh they are to be, reads take room.
#[test]
fn reads_that_the_machine_is_not_ready_for_are_bounded() {
    for mode in [ReadMode::Linearizable, ReadMode::Local { stale_max: Duration::MAX }] {
        let mut cluster = Cluster::led(3);
        cluster.elapse(300 * MS);
        let raft = &mut cluster.at(1).raft;
        for request in 0..=READS_MAX as u64 {
            raft.on_read(Requests::one(RequestId(2 * request)), mode);
        }
        cluster.settle(1);
        let refused = (2 * READS_MAX as u64, Outcome::Refused(Refusal::Busy));
        assert_eq!(cluster.at(1).ended, [refused]);
    }
}

/// What its predecessor acknowledged a new leader knows to be committed with its first own entry.
#[test]
fn a_new_leader_serves_local_reads_once_its_first_entry_is_committed() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    let mode = ReadMode::Local { stale_max: Duration::from_millis(150) };
    let raft = &mut cluster.at(1).raft;
    let start = raft.log.marks.committed().next();
    let Role::Leader(leader) = &mut raft.role else { panic!("it leads") };
    leader.start = start;
    raft.on_read(Requests::one(RequestId(1)), mode);
    cluster.settle(1);
    assert_eq!(cluster.at(1).queried, []);
    cluster.propose(1, 2, &["a"]);
    cluster.run();
    cluster.at(1).raft.on_read(Requests::one(RequestId(3)), mode);
    cluster.settle(1);
    assert_eq!(cluster.at(1).queried, [(3, start)]);
}

/// Its followers live, and have no room for its first entry: a read ends, as it would at a follower.
#[test]
fn reads_at_a_leader_that_cannot_commit_are_given_up() {
    let mut cluster = Cluster::led(3);
    for id in [2, 3] {
        cluster.at(id).disk.lazy = true;
    }
    let raft = &mut cluster.at(1).raft;
    let start = raft.log.marks.committed().next();
    let Role::Leader(leader) = &mut raft.role else { panic!("it leads") };
    leader.start = start;
    read(&mut cluster, 1, 5);
    let most = cluster.tuning.election.1.as_nanos() as u64;
    cluster.elapse(most + 500 * MS);
    assert_eq!(cluster.at(1).ended, [(5, Outcome::Refused(Refusal::NotReady))]);
    assert_eq!(cluster.at(1).role(), status::Role::Leader);
}

/// Churn, seed 3301377: a read came while the other voter was being removed, which was confirmed by all
/// but that one. Then nobody was left to confirm its round, and nobody asked who did not have to be.
#[test]
fn a_round_is_confirmed_when_those_who_lacked_have_gone() {
    let mut cluster = Cluster::led(2);
    cluster.elapse(300 * MS);
    cluster.change(1, 100, &[MembershipChange::Remove(node(2))]);
    cluster.settle(1);
    read(&mut cluster, 1, 5);
    cluster.settle(1);
    while let Some((from, message)) = cluster.queue.pop_front() {
        // Node 2 has what removes it, and hears nothing of the round.
        let asks = matches!(&message.payload, Payload::Append(append) if append.frames.is_empty());
        if !asks {
            cluster.deliver(from, message);
        }
    }
    assert_eq!(cluster.voters(1), (vec![1], vec![]));
    cluster.isolate(2);
    cluster.elapse(500 * MS);
    assert!(matches!(&cluster.at(1).queried[..], [(5, _)]), "{:?}", cluster.at(1).ended);
}

/// Those whose round is on its way take room as well.
#[test]
fn reads_on_their_way_count_with_those_that_wait_for_the_next_round() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    let raft = &mut cluster.at(1).raft;
    for request in 0..READS_MAX as u64 {
        raft.on_read(Requests::one(RequestId(2 * request)), ReadMode::Linearizable);
    }
    cluster.settle(1);
    assert_eq!(cluster.at(1).ended, [], "there is room for so many");
    read(&mut cluster, 1, 2 * READS_MAX as u64);
    let refused = (2 * READS_MAX as u64, Outcome::Refused(Refusal::Busy));
    cluster.settle(1);
    assert_eq!(cluster.at(1).ended, [refused]);
}

/// Where the machine has no state yet, it has none that could be asked.
#[test]
fn no_read_is_answered_before_the_state_is_restored() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    let raft = &mut cluster.at(1).raft;
    raft.applying.restored = false;
    raft.ready_at(raft.log.marks.applying(), Requests::one(RequestId(5)));
    raft.answer_reads();
    assert!(raft.actions.is_empty(), "{:?}", raft.actions);
    let stale_max = Duration::from_secs(1);
    raft.on_read(Requests::one(RequestId(6)), ReadMode::Local { stale_max });
    let not_ready = Action::Respond {
        requests: Requests::one(RequestId(6)),
        outcome: Outcome::Refused(Refusal::NotReady),
    };
    assert_eq!(raft.actions, [not_ready], "another node may be");
    raft.applying.restored = true;
    raft.answer_reads();
    assert_eq!(raft.actions.len(), 2);
}

/// It would ask its own leader, and answer with what was committed before the question came to that.
#[test]
fn who_does_not_lead_this_term_confirms_nobodys_reads() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    for (at, ago) in [(2, 0), (1, 1)] {
        let now = cluster.at(3).raft.head_to(node(at));
        let head = Head { term: Term(now.term.0 - ago), ..now };
        let raft = &mut cluster.at(at).raft;
        raft.on_message(node(3), Message { head, payload: Payload::ReadIndex { round: 1 } });
        assert!(raft.reads.is_empty(), "{at}");
    }
}

/// What it knows to be committed it comes to, whoever leads; of what lies beyond it may never hear.
#[test]
fn reads_at_what_is_committed_stay_when_the_others_are_refused() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(300 * MS);
    let node = cluster.at(2);
    let committed = node.raft.committed();
    for (request, index) in [(5, committed), (6, committed.next())] {
        node.raft.ready_at(index, Requests::one(RequestId(request)));
    }
    let none = Refusal::NotLeader { hint: None };
    node.raft.refuse_reads(&none);
    node.perform();
    assert_eq!(node.ended, [(6, Outcome::Refused(none))]);
}

/// Whose numbers follow each other are one; nobody else is answered for them.
#[test]
fn every_read_is_answered_by_its_own_number() {
    for (first, next) in [(2, 5), (2, 6), (2, 4), (1, 4), (1, 3)] {
        let mut cluster = Cluster::led(3);
        cluster.elapse(300 * MS);
        for requests in [
            Requests { first: RequestId(first), count: 3 },
            Requests { first: RequestId(next), count: 2 },
        ] {
            cluster.at(1).raft.on_read(requests, ReadMode::Linearizable);
        }
        cluster.elapse(100 * MS);
        let answered: Vec<_> = cluster.at(1).queried.iter().map(|(id, _)| *id).collect();
        assert_eq!(answered, [first, first + 1, first + 2, next, next + 1]);
    }
}
