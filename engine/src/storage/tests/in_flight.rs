//! What is on its way to the disk while something else happens.

use super::{
    holes::{grown, harm, refill},
    *,
};
use crate::{entry::Head, file::Extent, marks::Mark};

/// Writes of entries end in any order, and then a cut took what lay behind them: nothing was written after
/// that, and nothing told that they were durable.
#[test]
fn what_is_written_while_what_lies_behind_is_cut_counts() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40, 50]);
    (0..3).for_each(|_| node.append(1, 700));
    let slow = node.ask();
    assert!(!slow.is_empty() && node.storage.durable() == LogIndex(2));
    node.truncate(LogId::new(Term(1), LogIndex(4)));
    slow.into_iter().for_each(|action| node.perform(action));
    node.settle();
    assert_eq!(node.storage.durable(), LogIndex(4));
}

/// The blocks it was written into were read before: with it what was cut came back.
#[test]
fn a_cut_waits_for_an_entry_that_is_written_where_it_was() {
    let (node, frames) = grown([40, 50, 60, 70, 80]);
    let mut disk = node.disk;
    harm(&mut disk, &frames[1]);
    let mut node = Node::start(disk, Start::Run);
    let head = Head::parse_whole(&frames[1], node.recovered().seed).expect("it is whole");
    node.storage.refill(&head, &frames[1]);
    let is_refill = |action: &Action| {
        matches!(
            action,
            Action::Disk { request: DiskRequest::Write { file: File::Segment(_), .. }, .. }
        )
    };
    let slow = loop {
        let asked = node.ask();
        assert!(!asked.is_empty(), "it is written");
        if asked.iter().any(is_refill) {
            break asked;
        }
        asked.into_iter().for_each(|action| node.perform(action));
    };
    node.truncate(LogId::new(Term(1), LogIndex(3)));
    assert!(node.ask().is_empty() && !node.storage.promises().wanted().cutting);
    slow.into_iter().for_each(|action| node.perform(action));
    node.settle();
    let mut node = node.restart();
    assert_eq!((node.recovered().last, node.storage.hole()), (node.last, None));
    assert_eq!((node.last.index, node.read(1).len()), (LogIndex(3), 3));
}

/// What it came in is another's memory: entries that follow each other there are written from there, and
/// others are not taken for such.
#[test]
fn entries_are_written_as_they_came_wherever_they_lie_in_what_they_came_in() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40]);
    let (seed, mut prev, mut expected) = (node.recovered().seed, node.last, node.read(1));
    let mut seal = |bytes: usize| {
        let id = LogId::new(prev.term, prev.index.next());
        let sealed =
            Batch::one(&vec![id.index.0 as u8; bytes]).seal(seed, id, prev.term, Timestamp(9));
        (prev, _) = (id, expected.push((id, bytes + 4)));
        sealed
    };
    let [one, two, three, four, five, six] = [50, 60, 70, 80, 90, 99].map(&mut seal);
    // The second follows the first; the fourth begins as far into what it came in as the third ends; between
    // the others lies something else.
    let joined = |between: usize, (first, second): (&Bytes, &Bytes)| {
        Bytes::from([first, &vec![0xa5; between][..], second].concat())
    };
    let both = joined(0, (&one.1, &two.1));
    let other = joined(three.1.len(), (&Bytes::new(), &four.1));
    let apart = joined(3, (&five.1, &six.1));
    let (second, sixth) = (one.1.len(), five.1.len() + 3);
    for (first, then) in [
        ((one.0, both.clone(), 0), (two.0, both, second)),
        ((three.0, three.1.clone(), 0), (four.0, other, three.1.len())),
        ((five.0, apart.clone(), 0), (six.0, apart, sixth)),
    ] {
        node.storage.append(first.0, first.1, first.2);
        node.storage.append(then.0, then.1, then.2);
        node.settle();
    }
    node.last = LogId::new(Term(1), LogIndex(7));
    assert_eq!(node.storage.durable(), node.last.index);
    let mut node = node.restart();
    assert_eq!(node.read(1), expected);
}

/// A driver would have spun on it.
#[test]
fn a_log_that_is_cut_does_not_ask_to_be_woken_for_room() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    node.disk.is_full = true;
    while node.storage.durable() == node.last.index {
        node.append_all(1, [1500]);
    }
    assert!(node.storage.sought_room() > 0);
    while node.storage.promises().durable().durable_hint < node.storage.durable() {
        node.now = node.storage.deadline().expect("the hint is written when writes pause");
        node.settle();
    }
    let again = node.storage.deadline().expect("it seeks room again");
    node.truncate(LogId::new(Term(1), LogIndex(299)));
    let slow = node.ask();
    assert!(!slow.is_empty(), "the cut is on its way");
    node.now = again;
    assert!(node.ask().is_empty());
    assert!(node.storage.deadline().is_none_or(|next| next > node.now));
    slow.into_iter().for_each(|action| node.perform(action));
    node.settle();
    assert_eq!(node.storage.durable(), LogIndex(299));
}

#[test]
fn a_write_that_ends_before_an_earlier_one_is_told() {
    for is_overtaken in [true, false] {
        let mut node = Node::start(Disk::default(), format());
        node.append_all(1, [40]);
        node.append(1, 50);
        let mut writes = node.ask();
        node.append(1, 60);
        writes.extend(node.ask());
        assert!(writes.len() > 1);
        if is_overtaken {
            writes.reverse();
        }
        writes.into_iter().for_each(|action| node.perform(action));
        assert_eq!(node.storage.marks().has(Mark::WriteOvertaken), is_overtaken);
        node.settle();
        assert_eq!(node.storage.durable(), LogIndex(3));
    }
}

/// What was found again of one segment is written once, and beside that of others.
#[test]
fn slots_of_two_segments_that_are_made_anew_are_both_written() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    let image = |sequence, offset: u64| {
        let bytes = &node.disk.files[&File::Segment(sequence)];
        Extent::new(offset, Bytes::copy_from_slice(&bytes[offset as usize..offset as usize + 512]))
    };
    let (first, second) = (image(1, 512), image(2, 512));
    let other = image(1, 1024);
    node.storage.journal.holes.mend_slots(1, vec![first.clone(), other]);
    node.storage.journal.holes.mend_slots(2, vec![second]);
    node.storage.journal.holes.mend_slots(1, vec![first]);
    node.disk.requests.clear();
    node.settle();
    let mut written: Vec<_> = node
        .disk
        .requests
        .iter()
        .filter_map(|request| match request {
            DiskRequest::Write { file: File::Segment(sequence), at, .. } => {
                Some((*sequence, at.offset))
            }
            _ => None,
        })
        .collect();
    written.sort_unstable();
    assert_eq!(written, [(1, 512), (2, 512)]);
}

/// Who waits for none of them waits for one of a few megabytes at most; and what may be torn at a time is bounded.
#[test]
fn a_write_is_no_larger_than_it_must_be_and_all_under_way_lie_in_the_window() {
    let mut config = config();
    (config.segment_bytes, config.first_segment_bytes) = (16 << 20, 16 << 20);
    config.tuning.append_bytes_max = 2 << 20;
    config.tuning.writes_inflight_max = 64;
    let mut node = Node::start_as(&config, Disk::default(), format());
    node.append_all(1, [40]);
    (0..10).for_each(|_| node.append(1, 400_000));
    node.append(1, 1_500_000);
    (0..10).for_each(|_| node.append(1, 400_000));
    let mut sizes = Vec::new();
    while node.storage.durable() < node.last.index {
        let asked = node.ask();
        let entries = |action: &Action| match action {
            Action::Disk {
                request: DiskRequest::Write { file: File::Segment(_), at, .. }, ..
            } => Some(at.len()),
            _ => None,
        };
        let bytes: Vec<_> = asked.iter().filter_map(entries).collect();
        assert!(bytes.iter().sum::<u64>() <= 4 << 20, "{bytes:?}");
        assert!(!asked.is_empty(), "more is to be written");
        sizes.extend(bytes.into_iter().filter(|bytes| *bytes > 100_000));
        asked.into_iter().for_each(|action| node.perform(action));
    }
    // Two of the small ones fit into one write.
    assert_eq!(sizes.len(), 11, "{sizes:?}");
    assert!(sizes.iter().all(|bytes| *bytes <= 1 << 20 || *bytes > 1_500_000), "{sizes:?}");
}

/// Of segments that grow the next one may be too short for it.
#[test]
fn an_entry_that_is_longer_than_the_next_segment_gets_a_longer_one() {
    let mut config = config();
    (config.segment_bytes, config.first_segment_bytes) = (4 << 20, 32 << 10);
    config.tuning.append_bytes_max = 1 << 20;
    let mut node = Node::start_as(&config, Disk::default(), format());
    node.append_all(1, [40, 900_000, 50]);
    assert_eq!((node.storage.durable(), node.storage.is_full()), (LogIndex(3), false));
    let segments = node.disk.files.keys().filter(|file| matches!(file, File::Segment(_)));
    let lengths: Vec<_> = segments.map(|file| node.disk.files[file].len()).collect();
    assert_eq!(lengths.len(), 2, "none is opened in vain");
    assert!(lengths.iter().all(|len| len.is_power_of_two()), "{lengths:?}");
    assert_eq!(Node::start_as(&config, node.disk, Start::Run).recovered().last, node.last);
}

/// It would be asked for more than there is, or for nothing.
#[test]
fn a_machine_is_asked_for_what_fills_a_block_until_it_gave_all() {
    let block = 512 * 64 - 24;
    for state_bytes in [4 * block + 10_000, 8 * block, 1] {
        let (mut node, _) = grown([40, 50]);
        (node.state_bytes, node.captured) = (state_bytes, 0);
        let members = node.recovered().membership.clone();
        assert!(node.storage.capture(node.last, members, Timestamp(9)));
        let mut slow = Vec::new();
        loop {
            let asked = node.ask();
            if asked.is_empty() && slow.is_empty() {
                break;
            }
            if asked.is_empty() {
                // The disk is slower than the machine.
                std::mem::take(&mut slow).into_iter().for_each(|action| node.perform(action));
            }
            for action in asked {
                match &action {
                    Action::Machine(Machine::CaptureNext { bytes_max, .. }) => {
                        assert!((1..=block as u32).contains(bytes_max));
                        assert!(node.captured < state_bytes, "it gave all it has");
                        node.perform(action);
                    }
                    Action::Disk {
                        request: DiskRequest::Write { file: File::Part(..), at, .. },
                        ..
                    } if at.offset > 0 => {
                        slow.push(action);
                    }
                    _ => node.perform(action),
                }
            }
        }
        assert_eq!(node.storage.snapshot(), node.last);
    }
}

/// They were read before anybody knew that they are bad.
#[test]
fn two_who_find_the_same_entry_bad_find_one() {
    let (mut node, frames) = grown(sizes());
    harm(&mut node.disk, &frames[7]);
    let mut slow = Vec::new();
    for peer in [2, 3].map(|id| Reader::Peer(NodeId(id))) {
        // Its slots are known, then.
        node.storage.read(peer, LogIndex(7), LogIndex(7), 1);
        node.settle();
        assert!(node.storage.take_read().is_some());
        node.storage.read(peer, LogIndex(8), LogIndex(8), 1);
        slow.extend(node.ask());
    }
    assert_eq!(slow.len(), 2);
    slow.into_iter().for_each(|action| node.perform(action));
    node.settle();
    let bad = LogId::new(Term(1), LogIndex(8));
    assert_eq!((node.storage.hole(), &node.halted), (Some(bad), &None));
    refill(&mut node, &frames[7]);
    assert_eq!(node.storage.hole(), None);
}

/// Blocks of slots that are full were written, and are not written again.
#[test]
fn an_entry_takes_along_the_block_of_its_slot_alone() {
    let mut node = Node::start(Disk::default(), format());
    for n in 1..=40 {
        node.append_all(1, [10]);
        let slots = |request: &DiskRequest| match request {
            DiskRequest::Write { file: File::Segment(_), and: Some(and), .. } => Some(and.len()),
            _ => None,
        };
        let last = node.disk.requests.iter().rev().find_map(slots);
        assert_eq!(last, Some(512), "of entry {n}");
    }
}

/// Takes a snapshot of an entry of which the writes do not end; gives those, and lets all others end.
pub(super) fn capture_while_the_log_hangs(node: &mut Node) -> Vec<Action> {
    node.append(1, 60);
    let members = node.recovered().membership.clone();
    assert!(node.storage.capture(node.last, members, Timestamp(9)));
    let mut slow = Vec::new();
    loop {
        let asked = node.ask();
        if asked.is_empty() {
            break;
        }
        for action in asked {
            match &action {
                Action::Disk {
                    request: DiskRequest::Write { file: File::Segment(_), .. }, ..
                } => {
                    slow.push(action);
                }
                _ => node.perform(action),
            }
        }
    }
    slow
}

/// With its name it would tell that they are durable.
#[test]
fn a_snapshot_waits_for_the_entries_that_it_holds() {
    let (mut node, _) = grown([40, 50]);
    let slow = capture_while_the_log_hangs(&mut node);
    let is_named = |node: &Node| node.disk.files.contains_key(&File::Snapshot(node.last));
    assert!(!slow.is_empty() && !is_named(&node));
    assert_eq!(node.storage.take_given_up(), None, "there is room");
    slow.into_iter().for_each(|action| node.perform(action));
    node.settle();
    assert!(is_named(&node) && node.storage.snapshot() == node.last);
}

/// A restart looks no further than to the segment that the hard state names.
#[test]
fn a_segment_is_named_in_both_copies_before_an_entry_lies_in_it() {
    let mut node = Node::start(Disk::default(), format());
    let mut segments = 0;
    for bytes in sizes().take(100) {
        node.append(1, bytes);
        loop {
            let asked = node.ask();
            if asked.is_empty() {
                break;
            }
            for action in asked {
                if let Action::Disk { request: DiskRequest::Write { file, at, .. }, .. } = &action
                    && let File::Segment(sequence) = file
                    && at.offset > 0
                    && at.offset < node.disk.files[file].len() as u64 - 1024
                {
                    let named = node.storage.promises().durable().newest_segment;
                    assert!(named >= *sequence, "{file} is written to, and {named} is named");
                    segments = segments.max(*sequence);
                }
                node.perform(action);
            }
        }
    }
    assert!(segments > 2);
}
