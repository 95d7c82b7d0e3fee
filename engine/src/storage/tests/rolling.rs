//! Segments to come, and what is written again of the last one.

use super::{in_flight::capture_while_the_log_hangs, *};
use crate::{
    disk::segment::Layout,
    file::Extent,
    marks::Mark,
    storage::roll::{Roll, Spare, Spares},
};

fn growing() -> Config {
    let mut config = config();
    (config.segment_bytes, config.first_segment_bytes) = (4 << 20, 32 << 10);
    config.tuning.append_bytes_max = 1 << 20;
    config
}

#[test]
fn a_file_is_kept_for_the_log_if_a_segment_may_be_as_long() {
    let lens = [32, 64, 48, 4096, 8192, 16, 65].map(|len| len << 10);
    let found = (1..).zip(lens).map(|(number, len)| Spare { number, len }).collect();
    let (kept, gone) = Spares::sort_out(found, &growing());
    let numbers = |spares: Vec<Spare>| spares.iter().map(|spare| spare.number).collect::<Vec<_>>();
    assert_eq!((numbers(kept), numbers(gone)), (vec![4, 2, 1], vec![7, 6, 5, 3]));
}

/// It would be opened, and left as it is.
#[test]
fn a_segment_is_as_long_as_the_entry_that_waits_for_it_needs() {
    let layout = Layout::new(64 << 10, 512);
    let room = (layout.data_end() - layout.data_at) as usize;
    for (more, len) in [(0, 64 << 10), (1, 128 << 10)] {
        let mut node = Node::start_as(&growing(), Disk::default(), format());
        node.append_all(1, [40]);
        let id = LogId::new(Term(1), LogIndex(2));
        let sealed = Batch::one(&[0; 100]).seal(node.recovered().seed, id, Term(1), Timestamp(9));
        let beside = sealed.1.len() - 100;
        node.append_all(1, [room + more - beside]);
        let segments = node.disk.files.iter().filter(|(file, _)| matches!(file, File::Segment(_)));
        let lens: Vec<_> = segments.map(|(_, bytes)| bytes.len()).collect();
        assert_eq!((lens, node.storage.durable()), (vec![32 << 10, len], LogIndex(2)));
    }
}

/// A node whose disk is full, and whose log has room for this entry more.
fn almost_full() -> Node {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40]);
    node.disk.is_full = true;
    while node.storage.sought_room() == 0 {
        node.append_all(1, [6_000]);
    }
    let journal = &node.storage.journal;
    assert!(matches!(journal.roll, Roll::Idle) && journal.durable() == node.last.index);
    node
}

/// It is the log that needs room, once it does.
#[test]
fn a_snapshot_is_not_given_up_while_the_log_has_room() {
    let mut node = almost_full();
    let slow = capture_while_the_log_hangs(&mut node);
    assert!(!slow.is_empty() && node.storage.marks().has(Mark::SnapshotWaitedForLog));
    assert_eq!(node.storage.take_given_up(), None);
    slow.into_iter().for_each(|action| node.perform(action));
    node.settle();
    assert_eq!(node.storage.snapshot(), node.last);
}

/// Nor while the disk has not said that there is none.
#[test]
fn a_log_whose_next_segment_is_being_made_is_not_without_room() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40]);
    let creates = |action: &Action| {
        matches!(action, Action::Disk { request: DiskRequest::Create { .. }, .. })
    };
    // The spare of the first segment, which takes longer than it is filled.
    let mut slow = Vec::new();
    while !matches!(node.storage.journal.roll, Roll::WantSpare(_)) {
        node.append(1, 6_000);
        let mut asked = node.ask();
        while !asked.is_empty() {
            let (made, others): (Vec<_>, Vec<_>) = asked.into_iter().partition(creates);
            slow.extend(made);
            others.into_iter().for_each(|action| node.perform(action));
            asked = node.ask();
        }
    }
    assert_eq!(slow.len(), 1);
    assert!(!node.storage.journal.waits_for_room() && !node.storage.is_full());
    slow.into_iter().for_each(|action| node.perform(action));
    node.settle();
    assert_eq!(node.storage.durable(), node.last.index);
}

#[test]
fn a_node_seeks_room_from_when_it_asks_until_it_is_told() {
    let mut node = almost_full();
    while node.storage.durable() == node.last.index {
        node.append_all(1, [6_000]);
    }
    assert!(node.storage.is_full() && !node.storage.seeks_room());
    let creates = |action: &Action| {
        matches!(action, Action::Disk { request: DiskRequest::Create { .. }, .. })
    };
    let slow = loop {
        node.now = node.storage.deadline().expect("it asks again");
        let asked = node.ask();
        if asked.iter().any(creates) {
            break asked;
        }
        asked.into_iter().for_each(|action| node.perform(action));
        node.settle();
    };
    assert!(node.storage.is_full() && node.storage.seeks_room());
    slow.into_iter().for_each(|action| node.perform(action));
    assert!(node.storage.is_full() && !node.storage.seeks_room());
}

/// What was written to a segment.
fn written(disk: &Disk, file: File) -> Vec<Extent> {
    let writes = |request: &DiskRequest| match request {
        DiskRequest::Write { file: of, at, .. } if *of == file => Some(at.clone()),
        _ => None,
    };
    disk.requests.iter().filter_map(writes).collect()
}

/// No later one proves it.
#[test]
fn the_end_of_a_full_segment_that_is_the_last_is_written_again_by_a_restart() {
    let mut node = almost_full();
    while node.storage.durable() == node.last.index {
        node.append_all(1, [6_000]);
    }
    assert!(node.storage.journal.active.is_none());
    let sealed = *node.storage.journal.sealed.back().expect("one is full");
    node.disk.requests.clear();
    let node = node.restart();
    let again = written(&node.disk, File::Segment(sealed.sequence));
    assert!(again.iter().any(|extent| extent.offset == sealed.layout.end_offset()), "{again:?}");
    assert_eq!(node.recovered().last, sealed.last);
}

/// It would speak for what the disk does not have.
#[test]
fn a_restart_that_cannot_write_its_last_entries_again_is_the_end() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40, 50]);
    node.disk.fails = Some(|request| {
        matches!(request, DiskRequest::Write { file: File::Segment(_), durable: false, .. })
    });
    let node = Node::start(node.disk, Start::Run);
    assert!(matches!(node.halted, Some(Halt::DiskFailed { .. })), "{:?}", node.halted);
    assert!(node.recovered.is_none());
}
