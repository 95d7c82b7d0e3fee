//! What a snapshot makes superfluous goes, and in which order.

use super::*;
use crate::marks::Mark;

/// Begins to take a snapshot of this entry of term 1.
fn capture(node: &mut Node, index: u64) {
    let members = node.recovered().membership.clone();
    node.captured = 0;
    assert!(node.storage.capture(LogId::new(Term(1), LogIndex(index)), members, Timestamp(9)));
}

/// A node with entries up to 300, all known to be committed, and a snapshot of this one of them.
fn node(index: u64) -> Node {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    node.storage.hint_committed(node.last.index);
    node.storage.retain(node.last.index, None);
    capture(&mut node, index);
    node.settle();
    node
}

/// The segment that loses its name by this.
const fn unnamed(action: &Action) -> Option<u64> {
    match action {
        Action::Disk {
            request:
                DiskRequest::Remove { file: File::Segment(sequence) }
                | DiskRequest::Rename { from: File::Segment(sequence), .. },
            ..
        } => Some(*sequence),
        _ => None,
    }
}

/// A crash in between would leave a log that begins in a file that is gone.
#[test]
fn a_segment_goes_when_both_copies_say_that_the_log_begins_behind_it() {
    let mut node = node(150);
    capture(&mut node, 300);
    let mut gone = 0;
    loop {
        let asked = node.ask();
        if asked.is_empty() {
            break;
        }
        // What is asked for together may be done in any order.
        for sequence in asked.iter().filter_map(unnamed) {
            assert!(sequence < node.storage.promises().durable().first.segment);
            gone += 1;
        }
        asked.into_iter().for_each(|action| node.perform(action));
    }
    assert!(gone > 1, "{gone}");
}

/// A crash would take back a name that is not durable: the log would have gone on in a file of another name.
#[test]
fn a_file_is_room_for_the_log_once_its_new_name_is_durable() {
    let mut node = node(150);
    capture(&mut node, 300);
    let mut gone = 0;
    let slow = loop {
        let asked = node.ask();
        assert!(!asked.is_empty(), "the directory is to be synced");
        gone += asked.iter().filter_map(unnamed).count();
        let is_sync = |action: &Action| {
            matches!(action, Action::Disk { request: DiskRequest::SyncDirectory, .. })
        };
        if gone > 0 && asked.iter().any(is_sync) {
            break asked;
        }
        asked.into_iter().for_each(|action| node.perform(action));
    };
    let waiting = |node: &Node| node.storage.journal.spares.waiting().count();
    let before = waiting(&node);
    assert!(node.ask().is_empty());
    assert_eq!(waiting(&node), before);
    slow.into_iter().for_each(|action| node.perform(action));
    node.settle();
    assert_eq!(waiting(&node), before + gone);
}

/// The older snapshot leads on from there.
#[test]
fn a_segment_stays_for_its_last_entry() {
    let mut probe = Node::start(Disk::default(), format());
    probe.append_all(1, sizes());
    let sealed = probe.storage.journal.sealed[2];
    let mut node = node(sealed.last.index.0 - 1);
    capture(&mut node, 300);
    node.settle();
    assert_eq!(node.storage.first(), sealed.first);
    // No more is kept for anybody.
    let kept = [Mark::LogKeptForMember, Mark::LogKeptForReader];
    assert!(!kept.into_iter().any(|mark| node.storage.marks().has(mark)));
}

#[test]
fn it_is_told_for_whom_log_is_kept_that_no_snapshot_needs() {
    for is_for_reader in [false, true] {
        let mut node = node(150);
        let slow = if is_for_reader {
            node.storage.read(Reader::Peer(NodeId(2)), LogIndex(1), LogIndex(5), 1000);
            node.ask()
        } else {
            node.storage.retain(LogIndex(1), None);
            Vec::new()
        };
        assert_eq!(slow.is_empty(), !is_for_reader);
        capture(&mut node, 300);
        node.settle();
        let marks = node.storage.marks();
        assert_eq!(node.storage.first(), LogIndex(1));
        assert_eq!(marks.has(Mark::LogKeptForReader), is_for_reader);
        assert_eq!(marks.has(Mark::LogKeptForMember), !is_for_reader);
    }
}

/// Both change what the hard state says of where the log is.
#[test]
fn a_log_that_is_cut_begins_behind_what_is_lost_when_that_is_done() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    node.storage.hint_committed(LogIndex(200));
    capture(&mut node, 200);
    node.settle();
    let lost = node.storage.journal.sealed[0].last.index;
    node.storage.compaction.begin_behind(lost);
    node.truncate(LogId::new(Term(1), LogIndex(290)));
    loop {
        let asked = node.ask();
        if node.storage.journal.cut.is_none() {
            asked.into_iter().for_each(|action| node.perform(action));
            break;
        }
        assert_eq!(node.storage.promises().wanted().first.index, LogIndex(1));
        asked.into_iter().for_each(|action| node.perform(action));
    }
    node.settle();
    assert_eq!((node.storage.first(), node.storage.durable()), (lost.next(), LogIndex(290)));
}

/// It asked for room again when a second had passed, though files had gone before.
#[test]
fn files_that_go_may_be_room_for_the_log_at_once() {
    let mut growing = config();
    (growing.segment_bytes, growing.first_segment_bytes) = (4 << 20, 32 << 10);
    let mut node = Node::start_as(&growing, Disk::default(), format());
    node.append_all(1, sizes());
    node.disk.is_full = true;
    while node.storage.durable() == node.last.index {
        node.append_all(1, [1500]);
    }
    let durable = node.storage.durable();
    node.disk.is_full = false;
    node.settle();
    assert!(node.storage.is_full() && node.storage.durable() == durable, "it is not asked yet");
    node.storage.hint_committed(durable);
    for index in [durable.0 - 1, durable.0] {
        capture(&mut node, index);
        node.settle();
    }
    // They are shorter than what comes next, and are of no use as they are.
    assert!(!node.storage.marks().has(Mark::SegmentRecycled));
    assert_eq!((node.storage.durable(), node.storage.is_full()), (node.last.index, false));
}

#[test]
fn snapshots_are_restored_and_the_log_below_them_goes() {
    let mut node = Node::start(Disk::default(), format());
    let members = node.recovered().membership.clone();
    for round in 1..=4u64 {
        node.append_all(round, sizes());
        node.storage.hint_committed(node.last.index);
        node.storage.retain(node.last.index, None);
        node.captured = 0;
        assert!(node.storage.capture(node.last, members.clone(), Timestamp(9)));
        node.settle();
        assert_eq!(node.storage.snapshot(), node.last);
        let captured = node.captured;
        node = node.restart();
        assert_eq!(node.recovered().snapshot, LogId::new(Term(round), LogIndex(round * 300)));
        assert_eq!(node.storage.restored(), Some(node.recovered().snapshot));
        assert!(node.restored.iter().all(|&byte| byte == 7));
        assert_eq!(node.restored.len(), captured);
        let first = node.recovered().first;
        assert!(first.0 <= (round - 1).max(1) * 300, "the log reaches the older snapshot");
        assert!(round < 3 || first.0 > (round - 2) * 300 - 100, "{first} in round {round}");
        assert_eq!(node.read(first.0).len() as u64, round * 300 + 1 - first.0);
    }
    let snapshots = node.disk.files.keys().filter(|f| matches!(f, File::Snapshot(_))).count();
    assert_eq!(snapshots, 2);
}

/// What one member's snapshot was too far ago for went for all: another one's was given up with it.
#[test]
fn a_pin_that_is_too_far_behind_leaves_what_the_limit_keeps() {
    let mut config = config();
    config.tuning.retain_log_bytes = 0;
    config.tuning.transfer_log_bytes_max = 24 * config.segment_bytes;
    let mut node = Node::start_as(&config, Disk::default(), format());
    let members = node.recovered().membership.clone();
    for round in 1..=4u64 {
        node.append_all(round, sizes());
        node.storage.hint_committed(node.last.index);
        node.storage.retain(node.last.index, Some(LogIndex(1)));
        node.captured = 0;
        assert!(node.storage.capture(node.last, members.clone(), Timestamp(9)));
        node.settle();
    }
    let first = node.storage.first();
    assert!(LogIndex(300) < first && first < LogIndex(750), "{first}");
}

#[test]
fn a_bad_newest_snapshot_yields_to_the_older_one() {
    let mut node = Node::start(Disk::default(), format());
    let members = node.recovered().membership.clone();
    for round in 1..=2u64 {
        node.append_all(round, sizes());
        node.captured = 0;
        assert!(node.storage.capture(node.last, members.clone(), Timestamp(9)));
        node.settle();
    }
    let newest = File::Snapshot(node.storage.snapshot());
    node.disk.files.get_mut(&newest).expect("it was just made")[50_000] ^= 1;
    node = node.restart();
    assert_eq!(node.storage.restored(), Some(LogId::new(Term(1), LogIndex(300))));
    assert!(node.restored.len() >= 100_000, "{} bytes", node.restored.len());
}
