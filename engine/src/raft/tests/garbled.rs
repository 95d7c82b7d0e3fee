//! Peers gone wrong: messages that are whole, from a member, and wrong in some field.
//!
//! Whatever they say, the node does not panic, and its watermarks stay in order. (What a peer that
//! lies may bring about beyond that is not promised.)

use super::*;
use crate::{
    Runs,
    message::{Append, AppendAnswer, Conflict, Fate, InstallAnswer, Placement},
    raft::following::ORDINAL_MAX,
    types::{Piece, SnapshotName},
};
use rand_chacha::rand_core::Rng;

/// A message with some bytes changed and its checksum right.
fn garble(message: &Message, rng: &mut ChaCha8Rng) -> Option<Message> {
    let (head, body) = Encoder::default().encode(&mut message.clone());
    let mut bytes = [&head[..], &body].concat();
    for _ in 0..=rng.next_u64() % 3 {
        // Not the lengths, which only decoding judges, nor the identities, which come first.
        let at = 64 + (rng.next_u64() as usize % (head.len() - 64));
        bytes[at] = match rng.next_u64() % 4 {
            0 => 0,
            1 => 0xff,
            2 => bytes[at].wrapping_add(1),
            _ => rng.next_u64() as u8,
        };
    }
    codec::decode(codec::with_right_crc(bytes).into()).ok()
}

/// The receiver as it would go on: the garbled message, the right one, time.
fn suffer(mut receiver: Node, from: NodeId, garbled: Message, right: Message, now: Instant) {
    receiver.raft.on_message(from, garbled);
    receiver.settle(now);
    receiver.raft.on_message(from, right);
    receiver.settle(now);
    receiver.settle(now.after(Duration::from_millis(150)));
    receiver.settle(now.after(Duration::from_secs(5)));
}

#[test]
fn garbled_messages_panic_nobody() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (mut garbled, mut faults) = (0, 0);
    for round in 0..40 {
        let mut cluster = Cluster::of(3);
        let id = round % 3 + 1;
        cluster.run();
        cluster.pass(1000 * MS);
        cluster.at(id).raft.patience = Duration::ZERO;
        (1..=3).for_each(|at| cluster.settle(at));
        for step in 0..200 {
            match step % 10 {
                0 => cluster.propose(step % 3 + 1, step, &["a", "b"]),
                3 => {
                    let requests = Requests::one(RequestId(10_000 + step));
                    cluster.at(step % 3 + 1).raft.on_read(requests, ReadMode::Linearizable);
                }
                5 => cluster.pass(40 * MS),
                7 if step % 50 == 7 => cluster.crash(step % 3 + 1),
                _ => {}
            }
            (1..=3).for_each(|at| cluster.settle(at));
            let Some((from, message)) = cluster.queue.pop_front() else { continue };
            for _ in 0..3 {
                let receiver = cluster.at(message.head.to.0).clone();
                if let Some(bad) = garble(&message, &mut rng) {
                    garbled += 1;
                    suffer(receiver, from, bad, message.clone(), cluster.now);
                }
            }
            cluster.deliver(from, message);
            faults += usize::from(cluster.nodes.iter().any(|node| !node.faults().is_empty()));
        }
    }
    assert_eq!(faults, 0, "no correct peer is at fault");
    assert!(garbled > 5000, "only {garbled} were worth trying");
}

/// The greatest ordinal that is reckoned with, and the one behind it; and no term behind the leader's.
#[test]
fn an_ordinal_may_be_as_great_as_any_batch_allows() {
    for (term, ordinal, faults) in
        [(2, ORDINAL_MAX, 0), (2, ORDINAL_MAX + 1, 1), (1, 0, 0), (3, 0, 1)]
    {
        let mut cluster = Cluster::led(3);
        cluster.elapse(300 * MS);
        let raft = &cluster.at(1).raft;
        let (last, committed) = (raft.log.last(), raft.committed());
        let id = LogId { term: Term(term), ..last };
        let outcome = Placement::At { id, ordinal };
        let append = Append {
            sequence: 1 << 20,
            prev: last,
            commit: committed,
            fates: vec![Fate { sequence: 1, outcome }],
            ..Append::default()
        };
        let head = raft.head_to(node(2));
        cluster.at(2).raft.on_message(node(1), Message { head, payload: Payload::Append(append) });
        let is_fault = |action: &&Action| matches!(action, Action::Note(Note::PeerFault { .. }));
        assert_eq!(cluster.at(2).raft.actions.iter().filter(is_fault).count(), faults);
    }
}

/// Numbers that no correct peer says, in the messages that carry them: each would have had the receiver
/// look for an entry that nobody has.
#[test]
fn numbers_beyond_the_log_are_a_peers_fault() {
    let far = LogIndex(1 << 60);
    let leading = || {
        let mut cluster = Cluster::led(3);
        cluster.propose(1, 1, &["a"]);
        cluster.run();
        cluster
    };
    let say = |cluster: &mut Cluster, to: u64, from: u64, payload: Payload| {
        let answers = cluster.at(to).raft.life();
        let head = Head { answers, ..cluster.at(from).raft.head_to(node(to)) };
        cluster.at(to).raft.on_message(node(from), Message { head, payload });
        let now = cluster.now;
        cluster.at(to).settle(now);
        cluster.pass(200 * MS);
        let now = cluster.now;
        cluster.at(to).settle(now);
    };
    let answer = |cluster: &mut Cluster, conflict: Conflict| {
        let Role::Leader(leader) = &cluster.at(1).raft.role else { panic!("it leads") };
        let (sequence, matched) = (leader.peers[0].sequence, leader.peers[0].matched);
        Payload::AppendAnswer(AppendAnswer {
            sequence,
            round: 0,
            matched,
            durable: matched,
            fates: 0,
            full: false,
            gated: false,
            rests: false,
            conflict: Some(Box::new(conflict)),
        })
    };
    // Runs that begin where no log is.
    let mut cluster = leading();
    let runs = vec![(far, Term(1 << 40))];
    let conflict = Conflict { through: LogIndex(1), committed: LogIndex(0), runs };
    let payload = answer(&mut cluster, conflict);
    say(&mut cluster, 1, 2, payload);
    assert_eq!(cluster.at(1).faults(), Vec::<&str>::new());
    // A log that ends behind the one that it was compared with.
    let mut cluster = leading();
    let conflict = Conflict { through: far, committed: LogIndex(0), runs: Vec::new() };
    let payload = answer(&mut cluster, conflict);
    say(&mut cluster, 1, 2, payload);
    assert_eq!(cluster.at(1).faults(), ["acknowledges what was never sent"]);
    // A snapshot that nobody sent.
    let mut cluster = leading();
    let Role::Leader(leader) = &mut cluster.at(1).raft.role else { panic!("it leads") };
    leader.peer(node(2)).expect("a member").begin_install();
    let snapshot = LogId::new(Term(1), far);
    let done = InstallAnswer { snapshot, id: SnapshotId(9), next: 0, stored: 0, done: true };
    say(&mut cluster, 1, 2, Payload::InstallAnswer(done));
    assert_eq!(cluster.at(1).faults(), ["has a snapshot that was never sent"]);
    // Commands in an order that no log has.
    let mut cluster = leading();
    let raft = &mut cluster.at(2).raft;
    let runs = || Runs::One(Run { ordinal: 0, requests: Requests::one(RequestId(1)) });
    let at = raft.log.last();
    for index in [at.index.0 + 9, at.index.0 + 1] {
        raft.placed(LogId::new(at.term, LogIndex(index)), 1, runs());
    }
    cluster.settle(2);
    assert_eq!(cluster.at(2).ended, [(1, Outcome::Unknown)]);
}

/// What a leader has sent stands in its log for as long as it leads. One that sent another entry in its place, and
/// then said that both were committed, ended its follower by an assertion.
#[test]
fn a_leader_that_contradicts_itself_is_at_fault() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(300 * MS);
    let last = cluster.at(2).raft.log.last();
    let term = last.term.next();
    let say = |cluster: &mut Cluster, payload: Payload| {
        let head = Head { term, ..cluster.at(1).raft.head_to(node(2)) };
        cluster.at(2).raft.on_message(node(1), Message { head, payload });
        cluster.settle(2);
    };
    let append = |terms: &[Term], commit: LogIndex| {
        let (mut prev, mut frames) = (last, Vec::new());
        for &term in terms {
            let at = LogId::new(term, prev.index.next());
            let (_, frame) = Batch::one(b"b").seal(seed(), at, prev.term, Timestamp(9));
            frames.extend_from_slice(&frame);
            prev = at;
        }
        let sequence = 1 << 20;
        Payload::Append(Append {
            sequence,
            prev: last,
            commit,
            frames: frames.into(),
            ..Append::default()
        })
    };
    say(&mut cluster, append(&[term; 3], last.index));
    let sent = LogId::new(term, LogIndex(last.index.0 + 3));
    assert_eq!(cluster.at(2).raft.log.last(), sent);
    let snapshot =
        SnapshotName { at: LogId::new(last.term, sent.index), bytes: 1, ..SnapshotName::default() };
    let bytes = Bytes::from_static(b"s");
    let piece = Piece { snapshot, offset: 0, time: Timestamp(0), members: None, bytes };
    let wrong = [
        (
            append(&[last.term], sent.index),
            "another entry where one is committed, or than it sent in this term",
        ),
        (Payload::Install(piece), "a snapshot of another entry than it sent in this term"),
    ];
    for (payload, fault) in wrong {
        cluster.pass(300 * MS);
        say(&mut cluster, payload);
        assert_eq!(cluster.at(2).faults().last(), Some(&fault));
        assert_eq!(cluster.at(2).raft.log.last(), sent);
    }
    assert_eq!(cluster.at(2).raft.log.marks.committed(), last.index);
    // Another leader may have another there.
    let term = term.next();
    let head = Head { term, ..cluster.at(3).raft.head_to(node(2)) };
    let payload = append(&[last.term], LogIndex(last.index.0 + 1));
    cluster.at(2).raft.on_message(node(3), Message { head, payload });
    cluster.settle(2);
    assert_eq!(cluster.at(2).raft.log.last().index, LogIndex(last.index.0 + 1));
}

/// Nobody could ever be a majority of no voters; and one of another entry would be rolled back with that.
#[test]
fn a_membership_of_nobody_or_of_another_entry_is_none() {
    let at = id(2, 5);
    let read = |members: &Membership| {
        let body = members.encode();
        let (head, frame) =
            entry::seal_body(entry::Kind::Membership, &body, seed(), at, Term(2), Timestamp(0));
        change::members_in(&head, &frame)
    };
    let right = Membership { at, ..members(3) };
    assert_eq!(read(&right), Some(right.clone()));
    assert_eq!(read(&Membership { at: id(2, 4), ..right.clone() }), None);
    assert_eq!(read(&Membership { voters: Vec::new(), ..right }), None);
}

#[test]
fn an_entry_may_be_as_large_as_this_node_can_store() {
    let mut cluster = Cluster::led(3);
    let raft = &mut cluster.at(2).raft;
    let (_, frames) = Batch::one(b"a").seal(seed(), id(2, 2), Term(2), Timestamp(1));
    let bytes = frames.len() as u64;
    let append = Append { prev: id(2, 1), frames, ..Append::default() };
    for (entry_bytes_max, is_ok) in [(bytes - 1, false), (bytes, true), (bytes + 1, true)] {
        raft.entry_bytes_max = entry_bytes_max;
        assert_eq!(raft.verify(&append, Term(2)).is_ok(), is_ok);
    }
}
