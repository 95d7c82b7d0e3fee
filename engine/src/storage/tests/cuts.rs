//! Cuts that a running node makes, and what they must leave nothing of.

use super::{holes::grown, *};
use crate::disk::{
    FileSeed,
    segment::{SLOT_BYTES, Slot},
};

/// A cut forgot that time, and if the next entry did not fit behind it the end record said that there was
/// none. A crash before that entry was durable, and the node was behind the time of its own log.
#[test]
fn the_time_of_the_last_entry_outlives_a_cut_that_leaves_a_segment_full() {
    // In the segment that takes entries, and in one before it.
    for entries in [10, 60] {
        let mut node = Node::start(Disk::default(), format());
        node.append_all(1, vec![700; entries]);
        assert_eq!(node.storage.journal.sealed.is_empty(), entries == 10);
        node.truncate(LogId::new(Term(1), LogIndex(5)));
        node.storage.promise(Term(2), None);
        node.settle();
        node.append(2, 25_000);
        while node.storage.journal.active.is_some() {
            let mut out = Vec::new();
            node.storage.persist(node.now, &mut out);
            assert!(!out.is_empty(), "the segment is full");
            out.into_iter().for_each(|action| node.perform(action));
        }
        node = node.restart();
        assert_eq!(node.recovered().last, LogId::new(Term(1), LogIndex(5)));
        assert_eq!(node.recovered().last_time, Timestamp(9), "of {entries}");
    }
}

#[test]
fn a_cut_reaches_back_over_segments_and_is_final() {
    for last in [0, 1, 2, 30, 31, 99, 150, 298, 299] {
        let mut node = Node::start(Disk::default(), format());
        node.append_all(1, sizes());
        node.truncate(LogId::new(Term(u64::from(last > 0)), LogIndex(last)));
        assert!(node.storage.durable() <= LogIndex(last));
        node.append_all(3, [500, 0, 700]);
        assert_eq!(node.storage.durable(), LogIndex(last + 3), "cut behind {last}");
        node = node.restart();
        assert_eq!(node.recovered().last, LogId::new(Term(3), LogIndex(last + 3)));
        let seen = node.read(1);
        assert_eq!(seen.len() as u64, last + 3);
        assert!(seen.iter().all(|(id, _)| (id.term == Term(3)) == (id.index.0 > last)));
        node.append_all(4, sizes());
        node = node.restart();
        assert_eq!(node.recovered().last.index, LogIndex(last + 303));
    }
}

/// The hard state names the last cut alone: what an earlier one had left of a full segment's end would count
/// again behind a later one.
#[test]
fn a_cut_takes_the_end_of_a_full_segment_with_it() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    let end = node.storage.journal.sealed[0].last.index;
    node.truncate(LogId::new(Term(1), LogIndex(5)));
    node.append_all(2, [10; 40]);
    let last = LogId::new(Term(2), LogIndex(44));
    assert!(end < last.index && node.storage.journal.sealed.is_empty(), "{end}");
    node.truncate(last);
    node.settle();
    let mut node = node.restart();
    assert_eq!((node.recovered().last, node.recovered().gate), (last, None));
    assert_eq!(node.read(1).len(), 44);
}

/// Of a segment that ends with this entry nothing is left behind it, but the second copy of its header.
fn assert_cleared(node: &Node, file: File, last: LogIndex, what: &str) {
    let active = node.storage.journal.active.as_ref().expect("it is open again");
    assert_eq!((File::Segment(active.sequence), active.last()), (file, last), "{what}");
    let (layout, bytes) = (&active.layout, &node.disk.files[&file]);
    let seed = FileSeed::new(config().group, active.sequence);
    for (n, slot) in active.slots.iter().enumerate() {
        let found =
            Slot::decode(&bytes[layout.slot_offset(n as u32) as usize..], seed, slot.id.index);
        assert_eq!(found, Some(*slot), "slot {n} is not left, {what}");
    }
    for n in active.slots.len() as u32..layout.slot_count {
        let slot = &bytes[layout.slot_offset(n) as usize..][..SLOT_BYTES];
        assert!(slot.iter().all(|&byte| byte == 0), "slot {n} is left, {what}");
    }
    let [data, end] = [active.end()..layout.data_end(), layout.end_offset()..layout.len];
    let left = data.chain(end).find(|&at| bytes[at as usize] != 0);
    assert_eq!(left, None, "a byte is left, {what}");
}

/// The hard state names one cut: what was left of this one would be there again behind the next.
#[test]
fn a_cut_leaves_nothing_of_what_it_takes() {
    for bytes in (200..2200).step_by(130) {
        let (mut node, what) =
            (Node::start(Disk::default(), format()), format!("of {bytes} bytes"));
        node.append_all(1, vec![bytes; 80]);
        for last in [70, 60, 50, 3] {
            node.disk.requests.clear();
            node.truncate(LogId::new(Term(1), LogIndex(last)));
            node.settle();
            for request in &node.disk.requests {
                let DiskRequest::Read { file, offset, len } = request else { continue };
                assert!(offset + u64::from(*len) <= node.disk.files[file].len() as u64);
            }
            let active = node.storage.journal.active.as_ref().expect("it is open again");
            let file = File::Segment(active.sequence);
            assert_cleared(&node, file, LogIndex(last), &what);
        }
        let marks = node.storage.marks();
        assert!(marks.has(Mark::CutReopenedSegment) && !marks.has(Mark::SlotsMadeAnew));
    }
}

/// The same of what a restart takes for torn.
#[test]
fn a_torn_tail_is_marked_and_cleared_before_the_log_goes_on() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40, 50, 60]);
    let epoch = node.storage.write_epoch();
    let segment = node.disk.files.iter_mut().find(|(file, _)| matches!(file, File::Segment(_)));
    let (&file, bytes) = segment.expect("a log");
    let body = bytes.windows(60).position(|window| window == [3; 60]).expect("the third entry");
    bytes[body] ^= 1;
    // Of a write that was lost but for the first byte of one of its blocks.
    bytes[body.next_multiple_of(512) + 4 * 512] = 1;
    let node = node.restart();
    assert_eq!(node.recovered().last, LogId::new(Term(1), LogIndex(2)));
    assert_cleared(&node, file, LogIndex(2), "which was torn");
    let hard = node.storage.promises().durable();
    assert_eq!((hard.cut.from, hard.cutting), (LogIndex(3), false));
    assert!(node.storage.write_epoch() > epoch && hard.cut.epoch > epoch);
}

/// A crash in between would leave a log with a gap, and nothing that says where it ends; or take for dead what was
/// written behind the cut.
#[test]
fn a_cut_is_marked_in_both_copies_for_as_long_as_it_is_made() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    node.truncate(LogId::new(Term(1), LogIndex(5)));
    node.append(1, 70);
    let (mut cleared, mut written) = (0, 0);
    loop {
        let asked = node.ask();
        if asked.is_empty() {
            break;
        }
        for action in asked {
            let is_marked = node.storage.promises().durable().cutting;
            match &action {
                Action::Disk {
                    request: DiskRequest::Write { file: File::Segment(_), durable: true, .. },
                    ..
                } => {
                    assert!(!is_marked && cleared > 0, "an entry is written");
                    written += 1;
                }
                Action::Disk {
                    request:
                        DiskRequest::Write { file: File::Segment(_), .. } | DiskRequest::Remove { .. },
                    ..
                } => {
                    assert!(is_marked, "something is cleared");
                    cleared += 1;
                }
                _ => {}
            }
            node.perform(action);
        }
    }
    assert!(cleared > 3 && written > 0);
    assert_eq!(node.storage.durable(), LogIndex(6));
}

/// What reads as cleared may be so in a cache alone, if the sync behind it failed: the next life clears all of
/// it, whatever it reads.
#[test]
fn a_cut_that_is_repeated_clears_what_reads_as_cleared() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    node.truncate(LogId::new(Term(1), LogIndex(5)));
    let is_sync = |action: &Action| {
        matches!(action, Action::Disk { request: DiskRequest::Sync { file: File::Segment(_) }, .. })
    };
    loop {
        let mut out = Vec::new();
        node.storage.persist(node.now, &mut out);
        if out.iter().any(is_sync) {
            break;
        }
        assert!(!out.is_empty(), "a cut ends with a sync");
        out.into_iter().for_each(|action| node.perform(action));
    }
    node.disk.requests.clear();
    let mut node = node.restart();
    assert!(node.storage.marks().has(Mark::CutRepeated));
    let active = node.storage.journal.active.as_ref().expect("it is open again");
    let (file, layout) = (File::Segment(active.sequence), active.layout);
    let written = |at: u64| {
        let covers = |extent: &crate::file::Extent| {
            (extent.offset..extent.offset + extent.len()).contains(&at)
        };
        let writes = |request: &DiskRequest| matches!(request, DiskRequest::Write { file: of, at, .. } if *of == file && covers(at));
        node.disk.requests.iter().any(writes)
    };
    let slots = layout.slot_block(5)..layout.slot_block(layout.slot_count - 1) + layout.align;
    let entries = layout.block_before(active.end())..layout.data_end();
    let end = layout.end_offset()..layout.len;
    for at in [slots, entries, end].into_iter().flat_map(|range| range.step_by(512)) {
        assert!(written(at), "{file} is not cleared at {at}");
    }
    assert_eq!(node.read(1).len(), 5);
}

/// A reader that remembered them took the entries that have their place now for bad.
#[test]
fn where_entries_lay_is_forgotten_when_they_are_cut() {
    let (mut node, _) = grown(sizes());
    node.storage.read(Reader::Machine, LogIndex(1), LogIndex(5), 10_000);
    node.settle();
    assert!(node.storage.take_read().is_some());
    node.truncate(LogId::new(Term(1), LogIndex(11)));
    node.append_all(2, sizes());
    let is_full_again = node.storage.journal.sealed[0].last.index > LogIndex(11);
    assert!(is_full_again && node.storage.marks().has(Mark::CutReopenedSegment));
    let seen = node.read(1);
    assert_eq!((seen.len(), node.storage.hole()), (311, None));
    assert!(seen.iter().all(|(id, _)| (id.term == Term(2)) == (id.index > LogIndex(11))));
}

/// Somebody cut the file off while the node ran: what was to be kept of the block was taken out of what was
/// read, which was shorter, and the node panicked.
#[test]
fn a_file_cut_off_from_outside_in_the_block_of_the_last_kept_entry_loses_the_log() {
    // In the segment that takes entries, and in one before it.
    for entries in [10, 60] {
        let mut node = Node::start(Disk::default(), format());
        node.append_all(1, vec![700; entries]);
        let journal = &node.storage.journal;
        let active = journal.active.as_ref().expect("it takes entries");
        let sequence = journal.sealed.front().map_or(active.sequence, |sealed| sealed.sequence);
        let (file, layout) = (File::Segment(sequence), active.layout);
        node.truncate(LogId::new(Term(1), LogIndex(5)));
        // Of the block in which entry 5 ends 10 bytes are left.
        let bytes = node.disk.files.get_mut(&file).expect("it is there");
        let seed = FileSeed::new(config().group, sequence);
        let slot = Slot::decode(&bytes[layout.slot_offset(4) as usize..], seed, LogIndex(5));
        let end = slot.expect("it has one").end();
        let left = layout.block_before(end) + 10;
        assert!(left < end, "it ends with a block");
        bytes.truncate(left as usize);
        node.settle();
        let Some(Halt::LogLost { file: of, offset, expected }) = node.halted.clone() else {
            panic!("{:?}", node.halted)
        };
        assert_eq!((of, offset, &*expected), (file, left, "entry 1.5"), "of {entries}");
        let node = node.restart();
        assert!(node.recovered().gate.is_some(), "it votes before it has its log");
        assert_eq!(node.recovered().last, LogId::ZERO);
    }
}

/// A log of ten entries, the seventh of which changed the members: who they are, and who they were.
pub(super) fn changed() -> (Node, [Arc<Membership>; 2]) {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, vec![700; 10]);
    let previous = Arc::clone(&node.recovered().membership);
    let member = |id| Member { id: NodeId(id), incarnation: 0, address: Bytes::new() };
    let at = LogId::new(Term(1), LogIndex(7));
    let newest = Arc::new(Membership { at, ..Membership::of([1, 2, 3, 4].map(member)) });
    node.storage.set_membership(Arc::clone(&newest), Arc::clone(&previous));
    node.settle();
    (node, [newest, previous])
}

/// After a crash the log that was to be cut would be there, under members that it does not name.
#[test]
fn members_stay_named_until_the_cut_of_their_entry_is_marked() {
    let (mut node, [newest, previous]) = changed();
    node.append(1, 40);
    let mut slow = node.ask();
    assert!(!slow.is_empty(), "the cut waits for this write");
    node.truncate(LogId::new(Term(1), LogIndex(5)));
    node.storage.set_membership(Arc::clone(&previous), Arc::clone(&previous));
    slow.extend(node.ask());
    assert_eq!(node.storage.promises().wanted().newest, newest);
    slow.into_iter().for_each(|action| node.perform(action));
    node.settle();
    assert_eq!(node.storage.promises().durable().newest, previous);
    let marks = node.storage.marks();
    assert!(marks.has(Mark::CutWaitedForWrites) && !marks.has(Mark::CutDeepened));
}

/// The cut before it is marked, and takes another entry.
#[test]
fn members_stay_named_until_a_deeper_cut_is_marked() {
    let (mut node, [newest, previous]) = changed();
    node.truncate(LogId::new(Term(1), LogIndex(8)));
    let mut slow = node.ask();
    assert!(node.storage.promises().wanted().cutting && !slow.is_empty());
    node.truncate(LogId::new(Term(1), LogIndex(5)));
    node.storage.set_membership(Arc::clone(&previous), Arc::clone(&previous));
    slow.extend(node.ask());
    assert_eq!(node.storage.promises().wanted().newest, newest);
    slow.into_iter().for_each(|action| node.perform(action));
    node.settle();
    assert_eq!(node.storage.promises().durable().newest, previous);
    assert!(node.storage.marks().has(Mark::CutDeepened));
}

/// A crash came before anything was cleared.
#[test]
fn a_cut_that_is_marked_is_made_by_the_next_life() {
    for entries in [10, 60] {
        let mut node = Node::start(Disk::default(), format());
        node.append_all(1, vec![700; entries]);
        node.truncate(LogId::new(Term(1), LogIndex(5)));
        while !node.storage.promises().durable().cutting {
            let asked = node.ask();
            assert!(!asked.is_empty(), "it is to be marked");
            asked.into_iter().for_each(|action| node.perform(action));
        }
        let mut node = node.restart();
        assert!(node.storage.marks().has(Mark::CutRepeated));
        assert_eq!(node.recovered().last, LogId::new(Term(1), LogIndex(5)), "of {entries}");
        let active = node.storage.journal.active.as_ref().expect("it is open again");
        let file = File::Segment(active.sequence);
        assert_cleared(&node, file, LogIndex(5), "of which it was said");
        assert!(!node.storage.promises().durable().cutting);
        assert_eq!(node.read(1).len(), 5);
    }
}
