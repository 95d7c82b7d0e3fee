//! What the log costs as it goes on: when a snapshot is due, and which turns look after nothing else.

use super::{spares::spares, *};
use crate::{entry::HEAD_BYTES, marks::Mark};

const BODY: usize = 1000;
const ENTRY: u64 = (HEAD_BYTES + BODY + 4) as u64;
/// Between two writes lie zeros up to the next block.
const PADDING: u64 = 512;

#[test]
fn the_log_behind_a_snapshot_counts_as_what_it_takes_up() {
    let mut node = Node::start(Disk::default(), format());
    let is_counted = |node: &Node, entries: u64| {
        let (bytes, most) = (entries * ENTRY, entries * (ENTRY + PADDING));
        let (log, _) = node.storage.snapshot_debt();
        assert!((bytes..=most).contains(&log), "{log} bytes are told of {entries} entries");
    };
    let segments =
        |disk: &Disk| disk.files.keys().filter(|f| matches!(f, File::Segment(_))).count();
    // From an empty segment over its end into one after the other.
    for entries in 1..=80 {
        node.append_all(1, [BODY]);
        is_counted(&node, entries);
    }
    assert!(segments(&node.disk) > 2);
    // It may be in the middle of a segment.
    scrubs::snap(&mut node);
    assert_eq!(node.storage.snapshot_debt(), (0, node.captured as u64));
    for entries in 1..=80 {
        node.append_all(1, [BODY]);
        is_counted(&node, entries);
    }
    node.append_all(1, [0]);
    let (log, _) = node.storage.snapshot_debt();
    let read: u64 = node.read(81).iter().map(|(_, body)| (HEAD_BYTES + body) as u64).sum();
    assert!((read..=read + 81 * PADDING).contains(&log), "{log} bytes are told of {read}");
}

/// Else every turn would look after what is rare.
#[test]
fn whoever_has_only_to_write_is_plain() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [BODY; 3]);
    node.storage.hint_committed(node.last.index);
    scrubs::snap(&mut node);
    while let Some(at) = node.storage.deadline() {
        node.now = at;
        node.settle();
    }
    node.storage.look_around();
    assert!(node.storage.is_plain());
    node.append(1, BODY);
    let written = node.disk.requests.len();
    node.settle();
    assert!(node.disk.requests.len() > written && node.storage.durable() == node.last.index);
}

/// A log that was long once would take its room for ever.
#[test]
fn of_what_is_compacted_no_more_is_kept_than_the_log_may_need() {
    let mut config = config();
    config.tuning.snapshot_log_bytes = config.segment_bytes;
    let mut node = Node::start_as(&config, Disk::default(), format());
    for term in 1..=2 {
        node.append_all(term, sizes());
        node.storage.hint_committed(node.last.index);
        node.storage.retain(node.last.index, None);
        scrubs::snap(&mut node);
    }
    node.append_all(3, [BODY]);
    scrubs::snap(&mut node);
    assert!(node.storage.marks().has(Mark::SegmentRecycled));
    let spares = spares(&node.disk).len();
    assert!((2..=3).contains(&spares), "{spares} spares are kept");
}
