//! What a cut waits for, reads, clears and leaves.

use super::*;
use crate::{marks::Mark, storage::roll::Roll};
use std::collections::BTreeSet;

fn is_wanted(node: &Node) -> bool {
    node.storage.promises().wanted().cutting
}

fn at(index: u64) -> LogId {
    LogId::new(Term(1), LogIndex(index))
}

/// They were on their way when their block was cleared: with them what was cut came back.
#[test]
fn a_cut_waits_for_slots_that_are_written_by_themselves() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40]);
    let mut writes = Vec::new();
    for _ in 0..2 {
        node.append(1, 50);
        writes.extend(node.ask());
    }
    writes.into_iter().for_each(|action| node.perform(action));
    let slow = node.ask();
    assert!(slow.len() == 1 && node.storage.marks().has(Mark::SlotsWrittenAlone), "{slow:?}");
    node.truncate(at(1));
    assert!(node.ask().is_empty() && !is_wanted(&node));
    slow.into_iter().for_each(|action| node.perform(action));
    node.settle();
    assert_eq!(node.restart().recovered().last, at(1));
}

/// Its end was written while what lay there was cleared, and whichever came last was what a restart found.
#[test]
fn no_segment_ends_while_the_log_is_cut() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [700; 10]);
    node.truncate(at(5));
    // There is no room for it behind the cut.
    node.append(1, 25_000);
    let mut asked = node.ask();
    while node.storage.journal.cut.is_some() {
        assert!(matches!(node.storage.journal.roll, Roll::Idle));
        asked.into_iter().for_each(|action| node.perform(action));
        asked = node.ask();
    }
    asked.into_iter().for_each(|action| node.perform(action));
    node.settle();
    assert_eq!(node.storage.durable(), LogIndex(6));
    assert_eq!(node.restart().recovered().last, at(6));
}

/// A file on its way to its name would be one that nobody knows.
#[test]
fn a_cut_waits_for_the_segment_that_is_being_opened() {
    let steps: [fn(&Roll) -> bool; 3] = [
        |roll| matches!(roll, Roll::Ending),
        |roll| matches!(roll, Roll::Naming(_)),
        |roll| matches!(roll, Roll::Announcing(..)),
    ];
    for (n, is_there) in steps.into_iter().enumerate() {
        let mut node = Node::start(Disk::default(), format());
        node.append_all(1, [700; 10]);
        node.append(1, 25_000);
        let slow = loop {
            let asked = node.ask();
            assert!(!asked.is_empty(), "{n}: a segment is to be opened");
            if is_there(&node.storage.journal.roll) {
                break asked;
            }
            asked.into_iter().for_each(|action| node.perform(action));
        };
        node.truncate(at(5));
        assert!(node.ask().is_empty() && !is_wanted(&node), "{n}");
        slow.into_iter().for_each(|action| node.perform(action));
        node.settle();
        let mut node = node.restart();
        assert_eq!((node.recovered().last, node.read(1).len()), (at(5), 5), "{n}");
    }
}

#[test]
fn a_cut_reads_of_a_full_segment_the_blocks_of_its_slots() {
    let mut filled = BTreeSet::new();
    for bytes in (500..2200).step_by(20) {
        let mut node = Node::start(Disk::default(), format());
        node.append_all(1, vec![bytes; 120]);
        let sealed = node.storage.journal.sealed[1];
        let (file, count) =
            (File::Segment(sealed.sequence), sealed.last.index.0 + 1 - sealed.first.0);
        node.truncate(LogId::new(Term(1), sealed.first));
        node.disk.requests.clear();
        node.settle();
        let read = node.disk.requests.iter().find_map(|request| match request {
            DiskRequest::Read { file: of, offset, len } if *of == file => {
                Some((*offset, u64::from(*len)))
            }
            _ => None,
        });
        // Twelve in each, behind the header's.
        assert_eq!(read, Some((512, count.div_ceil(12) * 512)), "of {count}");
        filled.insert(count % 12);
    }
    assert!(filled.contains(&0), "in none the last block was full");
}

/// Between slots and entries is room, so that one write that goes astray hits one of them alone.
#[test]
fn a_cut_clears_slots_and_entries_and_nothing_between_them() {
    let mut node = Node::start(Disk::default(), format());
    // So short that slots are what fills it.
    node.append_all(1, [0; 60]);
    let sealed = node.storage.journal.sealed[0];
    let (layout, file) = (sealed.layout, File::Segment(sealed.sequence));
    assert_eq!(sealed.last.index.0, u64::from(layout.slot_count));
    node.truncate(at(40));
    node.disk.requests.clear();
    node.settle();
    let slots = 512..layout.slot_block(layout.slot_count - 1) + 512;
    let mut cleared = [0, 0];
    for request in &node.disk.requests {
        let DiskRequest::Write { file: of, at, .. } = request else { continue };
        if *of == file {
            let is_entries = at.offset >= layout.data_at;
            assert!(is_entries || slots.contains(&at.offset) && at.end() <= slots.end, "{at:?}");
            cleared[usize::from(is_entries)] += 1;
        }
    }
    assert!(!cleared.contains(&0), "{cleared:?}");
}

/// Whoever removed it has done what was to be done. What is to be kept must be there.
#[test]
fn a_cut_takes_segments_that_are_gone_and_ends_at_one_that_it_leaves() {
    for is_kept in [false, true] {
        let mut node = Node::start(Disk::default(), format());
        node.append_all(1, sizes());
        let journal = &node.storage.journal;
        let last = journal.active.as_ref().expect("it takes entries").sequence;
        let file = File::Segment(if is_kept { journal.sealed[0].sequence } else { last });
        node.disk.files.remove(&file);
        node.truncate(at(5));
        node.settle();
        if is_kept {
            let failed = Halt::DiskFailed { file, error: DiskError::NotFound };
            assert_eq!(node.halted, Some(failed));
        } else {
            assert_eq!((node.storage.durable(), &node.halted), (LogIndex(5), &None));
            assert_eq!(node.restart().recovered().last, at(5));
        }
    }
}

/// All of it is cut already.
#[test]
fn what_was_appended_behind_a_cut_is_given_up_without_another() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40, 50, 60]);
    let epoch = node.storage.write_epoch();
    node.truncate(at(2));
    let slow = node.ask();
    assert!(is_wanted(&node) && !slow.is_empty());
    node.append(1, 70);
    node.truncate(at(2));
    slow.into_iter().for_each(|action| node.perform(action));
    node.settle();
    assert!(!node.storage.marks().has(Mark::CutDeepened));
    assert_eq!((node.storage.durable(), node.storage.write_epoch()), (LogIndex(2), epoch + 1));
}

/// What was cut off from outside is what was to be cut.
#[test]
fn a_file_that_ends_where_the_last_kept_entry_does_has_lost_nothing() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [700; 10]);
    let active = node.storage.journal.active.as_ref().expect("it takes entries");
    let (file, end) = (File::Segment(active.sequence), active.slots[4].end());
    assert_ne!(end % 512, 0, "it ends within a block");
    node.truncate(at(5));
    node.disk.files.get_mut(&file).expect("it is there").truncate(end as usize);
    let clears = |action: &Action| matches!(action, Action::Disk { request: DiskRequest::Write { file: of, .. }, .. } if *of == file);
    loop {
        let asked = node.ask();
        assert!(!asked.is_empty(), "it is to be cleared");
        if asked.iter().any(clears) {
            break;
        }
        asked.into_iter().for_each(|action| node.perform(action));
    }
}
