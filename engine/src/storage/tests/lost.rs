//! Entries without either witness, found while the node runs.

use super::{
    holes::{harm, harm_slots},
    scrubs::{rot, scrub_for, snap},
    *,
};
use crate::storage::lost::Lost;
use std::time::Duration;

/// Neither this entry nor its slot can be read any more.
fn lose(node: &mut Node, index: u64) {
    let index = LogIndex(index);
    node.storage.read(Reader::Refill(NodeId(9)), index, index, 1);
    node.settle();
    let frame = node.storage.take_read().expect("it is there").1.frames;
    harm_slots(&mut node.disk, &frame, 0);
    harm(&mut node.disk, &frame);
}

/// Their reads kept the segment from going, and each that ended in vain began anew.
#[test]
fn a_lost_segment_that_a_snapshot_covers_goes_though_two_peers_want_it() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    node.storage.hint_committed(node.last.index);
    snap(&mut node);
    node.append_all(2, [40, 50, 60]);
    node.storage.hint_committed(node.last.index);
    lose(&mut node, 8);
    let mut queue = VecDeque::new();
    // The second one asks a little later.
    for peer in [2, 3].map(|id| Reader::Peer(NodeId(id))) {
        node.storage.read(peer, LogIndex(8), node.last.index, u32::MAX);
        queue.extend(node.ask());
    }
    let mut turns = 0;
    while let Some(action) = queue.pop_front() {
        node.perform(action);
        queue.extend(node.ask());
        turns += 1;
        assert!(turns < 1000, "it is read for ever");
    }
    assert!(node.storage.first() > LogIndex(8) && node.halted.is_none());
}

/// The gate of an earlier fault opened beside the update that shut it for this one: the log was gone, and
/// the node voted.
#[test]
fn a_gate_that_is_being_shut_does_not_open_for_an_earlier_fault() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    lose(&mut node, 8);
    node.storage.read(Reader::Machine, LogIndex(8), node.last.index, 1);
    node.settle();
    assert!(matches!(node.halted, Some(Halt::LogLost { .. })));
    let mut node = node.restart();
    assert!(node.recovered().gate.is_some());
    // All of it has come again, and before anybody has seen that, one is lost again.
    node.append_all(1, sizes());
    lose(&mut node, 8);
    node.storage.read(Reader::Machine, LogIndex(8), node.last.index, 1);
    let mut queue = VecDeque::new();
    while node.storage.giving_up.is_none() {
        queue.extend(node.ask());
        let action = queue.pop_front().expect("it is being read");
        node.perform(action);
    }
    node.storage.open_gate();
    queue.into_iter().for_each(|action| node.perform(action));
    node.settle();
    assert!(matches!(node.halted, Some(Halt::LogLost { .. })));
    let node = node.restart();
    assert_eq!(node.recovered().last, LogId::ZERO);
    assert!(node.recovered().gate.is_some(), "its log is gone, and it votes");
}

/// It gave its log up, and nobody could give it again. Once the other one is committed it has all of it.
#[test]
fn who_is_about_to_add_another_voter_is_alone_until_that_is_committed() {
    let member = |id| Member { id: NodeId(id), incarnation: 0, address: Bytes::new() };
    for is_committed in [false, true] {
        let alone = Arc::new(Membership::of([member(1)]));
        let start = Start::Format { cluster: ClusterId(5), members: Arc::clone(&alone) };
        let mut node = Node::start(Disk::default(), start);
        node.append_all(1, sizes());
        node.storage.hint_committed(node.last.index);
        let at = LogId::new(Term(1), node.last.index.next());
        let both = Membership { at, ..Membership::of([1, 2].map(member)) };
        node.storage.set_membership(Arc::new(both), alone);
        node.append_all(1, [70]);
        if is_committed {
            node.storage.hint_committed(node.last.index);
        }
        lose(&mut node, 8);
        node.storage.read(Reader::Peer(NodeId(2)), LogIndex(8), node.last.index, 1);
        node.settle();
        if is_committed {
            assert!(matches!(node.halted, Some(Halt::LogLost { .. })), "{:?}", node.halted);
        } else {
            assert!(node.halted.is_none() && node.storage.wants_fresh(node.last));
            snap(&mut node);
            assert!(node.storage.first() > LogIndex(8));
            assert_eq!(node.restart().recovered().gate, None);
        }
    }
}

/// A walk found it, behind a recovery by force: the log was given up with the entry of the second membership, and
/// the node went by the first. It was its own only voter, behind a gate that nobody opens: what it lacked was
/// fetched from nobody, and by force it was refused as one that is alone already.
#[test]
fn members_that_are_known_to_be_committed_stay_in_force_behind_a_gate() {
    let member = |id| Member { id: NodeId(id), incarnation: 0, address: Bytes::new() };
    for is_running in [false, true] {
        let alone = Arc::new(Membership::of([member(1)]));
        let start = Start::Format { cluster: ClusterId(5), members: Arc::clone(&alone) };
        let mut node = Node::start(Disk::default(), start);
        // Of a full segment a node that runs holds no slots in memory.
        let (first, lost) = if is_running { (sizes().collect(), 8) } else { (vec![70; 9], 4) };
        node.append_all(1, first);
        node.storage.hint_committed(node.last.index);
        let at = LogId::new(Term(1), node.last.index.next());
        let all = Membership { at, ..Membership::of([1, 2, 3].map(member)) };
        node.storage.set_membership(Arc::new(all.clone()), alone);
        node.append_all(1, [70; 9]);
        node.storage.hint_committed(node.last.index);
        node.append_all(2, [70; 2]);
        lose(&mut node, lost);
        if is_running {
            node.storage.read(Reader::Peer(NodeId(2)), LogIndex(lost), node.last.index, 1);
            node.settle();
            assert!(matches!(node.halted, Some(Halt::LogLost { .. })), "{:?}", node.halted);
        } else {
            let disk = node.disk.clone();
            let force = Start::ForceSoleVoter { acknowledged_loss: true };
            let halted = Node::start(disk, force).halted;
            assert!(matches!(halted, Some(Halt::Forced(_))), "{halted:?}");
        }
        for _ in 0..2 {
            node = node.restart();
            assert!(node.recovered().gate.is_some());
            assert_eq!(*node.recovered().membership, all, "running: {is_running}");
        }
        let force = Start::ForceSoleVoter { acknowledged_loss: true };
        let halted = Node::start(node.disk, force).halted;
        assert!(matches!(halted, Some(Halt::Forced(_))), "{halted:?}");
    }
}

/// It was to begin behind all that it had, and there was no room for what comes then.
#[test]
fn a_log_whose_last_full_segment_is_lost_ends_in_it_until_the_next_is_there() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    node.disk.is_full = true;
    while node.storage.durable() == node.last.index {
        node.append_all(1, [1500]);
    }
    let end = LogId::new(Term(1), node.storage.durable());
    assert!(node.storage.journal.active.is_none());
    node.storage.hint_committed(end.index);
    let members = node.recovered().membership.clone();
    assert!(node.storage.capture(end, members, Timestamp(9)));
    node.settle();
    assert_eq!(node.storage.snapshot(), end);
    lose(&mut node, end.index.0);
    node.storage.read(Reader::Peer(NodeId(2)), end.index, end.index, 1);
    node.settle();
    assert!(node.halted.is_none() && node.storage.marks().has(Mark::LogBegunLater));
    // The segments before it made room.
    assert_eq!(node.storage.durable(), node.last.index);
    assert_eq!(node.storage.first(), end.index.next());
    // From a snapshot of the very last entry before it the log leads on.
    assert_eq!((node.storage.snapshot(), node.storage.spoilt_snapshots()), (end, 0));
    let last = node.last;
    let node = node.restart();
    assert_eq!((node.recovered().last, node.recovered().gate), (last, None));
}

/// It waited for the segment that was lost, for ever.
#[test]
fn the_scrub_goes_on_behind_a_segment_that_is_lost() {
    let interval = Duration::from_secs(100);
    let mut config = config();
    config.tuning.scrub_interval = interval;
    let member = Member { id: NodeId(1), incarnation: 0, address: Bytes::new() };
    let members = Arc::new(Membership::of([member]));
    let start = Start::Format { cluster: ClusterId(5), members };
    let mut node = Node::start_as(&config, Disk::default(), start);
    node.append_all(1, sizes());
    node.storage.hint_committed(node.last.index);
    lose(&mut node, 150);
    scrub_for(&mut node, interval * 2);
    assert!(node.halted.is_none() && node.storage.wants_fresh(node.last), "it is found");
    let read = node.storage.scrubbed_bytes();
    scrub_for(&mut node, interval * 2);
    let behind = node.storage.journal.bytes_after(LogIndex(200));
    assert!(node.storage.scrubbed_bytes() > read + behind);
}

/// What was told of one fault does not count for another, and of the second at once nothing more is to be said.
#[test]
fn a_log_is_given_up_once_and_under_an_epoch_of_its_own() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    let (epoch, incarnation) = (node.storage.write_epoch(), node.recovered().identity.incarnation);
    lose(&mut node, 8);
    node.storage.read(Reader::Machine, LogIndex(8), node.last.index, 1);
    let mut queue = VecDeque::new();
    while node.storage.giving_up.is_none() {
        queue.extend(node.ask());
        let action = queue.pop_front().expect("it is being read");
        node.perform(action);
    }
    let version = node.storage.promises().version();
    let lost = Lost { file: File::Segment(1), offset: 512, expected: "entry 9".into() };
    node.storage.on_lost(lost);
    assert_eq!(node.storage.promises().version(), version);
    queue.into_iter().for_each(|action| node.perform(action));
    node.settle();
    assert!(matches!(node.halted, Some(Halt::LogLost { .. })), "{:?}", node.halted);
    let hard = node.storage.promises().durable();
    assert_eq!((hard.gated, hard.write_epoch), (true, epoch + 1));
    assert_eq!(hard.gate.nonce, [incarnation, epoch + 1]);
    // A number that was given to a segment is not given to another one.
    assert_eq!(hard.first.segment, hard.highest_segment + 1);
    // It is open for good once all was fetched.
    let mut node = node.restart();
    assert!(node.recovered().gate.is_some());
    node.storage.open_gate();
    node.settle();
    assert_eq!(node.restart().recovered().gate, None);
}

/// It was to begin behind a segment that is lost, which is being read. The snapshot for whose sake it was turns out
/// bad meanwhile: the segment stays, though it is bad, until another snapshot stands for it.
#[test]
fn a_lost_segment_stays_when_no_snapshot_stands_for_it_any_more() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    node.storage.hint_committed(node.last.index);
    snap(&mut node);
    node.append_all(2, [40, 50, 60]);
    node.storage.hint_committed(node.last.index);
    let sealed = node.storage.journal.sealed[0];
    lose(&mut node, 8);
    let at = node.storage.snapshot();
    rot(&mut node, File::Snapshot(at), 5000);
    node.storage.read(Reader::Peer(NodeId(2)), sealed.first, sealed.first, 1);
    let slow = node.ask();
    assert_eq!(slow.len(), 1, "{slow:?}");
    node.storage.read(Reader::Peer(NodeId(3)), LogIndex(8), LogIndex(8), 1);
    node.settle();
    node.storage.serve(NodeId(3), 0);
    node.settle();
    assert_eq!((node.storage.snapshot(), node.storage.spoilt_snapshots()), (LogId::ZERO, 1));
    slow.into_iter().for_each(|action| node.perform(action));
    node.settle();
    assert_eq!((node.storage.first(), &node.halted), (LogIndex(1), &None));
    assert!(node.storage.wants_fresh(node.last));
    snap(&mut node);
    assert_eq!(node.storage.first(), sealed.last.index.next());
}
