//! What was written is found again, after every restart, and no more than that.

use super::*;
use crate::storage::Terms;

#[test]
fn a_wiped_disk_is_refused_and_a_formatted_one_is_not_formatted_again() {
    assert_eq!(Node::start(Disk::default(), Start::Run).halted, Some(Halt::NotFormatted));
    let node = Node::start(Disk::default(), format());
    assert_eq!(node.recovered().last, LogId::ZERO);
    assert_ne!(node.recovered().identity.incarnation, 0);
    assert_eq!(Node::start(node.disk, format()).halted, Some(Halt::AlreadyFormatted));
}

#[test]
fn what_is_appended_is_found_after_every_restart() {
    let mut node = Node::start(Disk::default(), format());
    let mut expected = Vec::new();
    for term in 1..6 {
        node.append_all(term, sizes());
        assert_eq!(node.storage.durable(), node.last.index);
        expected.extend(sizes().enumerate().map(|(n, bytes)| {
            let index = LogIndex((term - 1) * 300 + n as u64 + 1);
            (LogId::new(Term(term), index), if bytes == 0 { 0 } else { bytes + 4 })
        }));
        node = node.restart();
        assert_eq!(node.recovered().last, LogId::new(Term(term), LogIndex(term * 300)));
        let mut terms = Terms::behind(LogId::ZERO);
        expected.iter().for_each(|(id, _)| terms.push(*id));
        assert_eq!(node.recovered().terms, terms);
        assert_eq!(node.recovered().last_time, Timestamp(9));
        assert_eq!(node.read(1), expected);
    }
    assert!(node.disk.files.len() > 20, "the log was rolled many times");
}

/// A node spoke as of an epoch that its disk did not hold yet: a crash took it back, and its next life was
/// given the same. What was said to the one was taken as said to the other.
#[test]
fn an_epoch_is_that_of_one_life_alone() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40, 50, 60]);
    let epoch = node.storage.write_epoch();
    node.truncate(LogId::new(Term(1), LogIndex(2)));
    let mut out = Vec::new();
    node.storage.persist(node.now, &mut out);
    assert!(!out.is_empty(), "the cut is to be marked");
    assert_eq!(node.storage.write_epoch(), epoch, "nothing of it is durable");
    assert_eq!(Node::start(node.disk.clone(), Start::Run).storage.write_epoch(), epoch + 1);
    out.into_iter().for_each(|action| node.perform(action));
    node.settle();
    assert_eq!(node.storage.write_epoch(), epoch + 1);
    assert_eq!(node.restart().storage.write_epoch(), epoch + 2);
}

/// Its entry was never written: another one has its index, and a snapshot holds that one.
#[test]
fn a_membership_of_another_entry_is_not_in_force_for_a_snapshot_that_lies_behind() {
    let mut node = Node::start(Disk::default(), format());
    let formatted = node.recovered().membership.clone();
    node.append_all(2, [40, 50, 60]);
    let member = Member { id: NodeId(1), incarnation: 0, address: Bytes::new() };
    let never = Membership { at: LogId::new(Term(1), LogIndex(2)), ..Membership::of([member]) };
    node.storage.set_membership(Arc::new(never), Arc::clone(&formatted));
    node.storage.hint_committed(node.last.index);
    assert!(node.storage.capture(node.last, Arc::clone(&formatted), Timestamp(9)));
    node.settle();
    let node = node.restart();
    assert_eq!(node.storage.restored(), Some(LogId::new(Term(2), LogIndex(3))));
    assert_eq!(node.recovered().membership.at, formatted.at);
}

/// A cut had taken all entries of the last segment, and the restart took that one's time for the
/// log's: none. The node led, and its entries were of an earlier time than those before them
/// (storm of three, seed 3024: its clients' sessions had been used before they were opened).
#[test]
fn the_time_of_the_last_entry_is_found_in_whichever_segment_it_is() {
    let mut without_entries = 0;
    for last in 1..100 {
        let mut node = Node::start(Disk::default(), format());
        node.append_all(1, (0..100).map(|n| 700 + n));
        node.truncate(LogId::new(Term(1), LogIndex(last)));
        node.settle();
        node = node.restart();
        assert_eq!(node.recovered().last.index, LogIndex(last));
        assert_eq!(node.recovered().last_time, Timestamp(9), "behind {last}");
        node.append_all(2, [700]);
        let begun = node.storage.journal.active.as_ref().map(|active| active.first);
        without_entries += u64::from(begun == Some(LogIndex(last + 1)));
    }
    assert!(without_entries > 0, "no cut ended where a segment begins");
}

/// A full segment held more terms than its end record has room for, so its slots were read; what
/// was proven durable lay in the segment behind it, and was looked for in this one. The node
/// refused to start, of a log in which nothing was wrong (found by the kill test, after 775 s of
/// elections had filled 64 MiB).
#[test]
fn a_segment_of_too_many_terms_ends_where_the_next_one_begins() {
    let mut node = Node::start(Disk::default(), format());
    for term in 1..=700 {
        node.append_all(term, [600]);
        if term % 50 == 0 {
            // Writes pause, and what is durable is said in the hard state.
            node.now = node.now.after(std::time::Duration::from_secs(1));
            node.settle();
            node = node.restart();
            assert_eq!(node.recovered().last, LogId::new(Term(term), LogIndex(term)));
        }
    }
    assert_eq!(node.read(1).len(), 700);
}

#[test]
fn a_vote_is_found_again() {
    let mut node = Node::start(Disk::default(), format());
    node.storage.promise(Term(7), Some(NodeId(3)));
    assert_eq!(node.storage.promised(), (Term(1), None), "not before both copies hold it");
    node.settle();
    assert_eq!(node.storage.promised(), (Term(7), Some(NodeId(3))));
    let node = node.restart();
    assert_eq!((node.recovered().term, node.recovered().vote), (Term(7), Some(NodeId(3))));
}

#[test]
fn one_bad_hard_state_block_is_repaired_and_four_are_refused() {
    let mut node = Node::start(Disk::default(), format());
    node.storage.promise(Term(7), Some(NodeId(3)));
    node.settle();
    for bad in 1u32..16 {
        let mut disk = node.disk.clone();
        let bytes = disk.files.get_mut(&File::HardState).expect("it was formatted");
        for (n, offset) in crate::disk::hard_state::OFFSETS.iter().flatten().enumerate() {
            if bad >> n & 1 == 1 {
                bytes[*offset as usize + 100] ^= 1;
            }
        }
        let restarted = Node::start(disk, Start::Run);
        if bad == 15 {
            let Some(Halt::Refused { row, .. }) = restarted.halted else { panic!("it started") };
            assert_eq!(row, "hard-state-lost");
        } else if restarted.recovered().term == Term(7) {
            assert_eq!(restarted.recovered().vote, Some(NodeId(3)));
        } else {
            assert!(bad.count_ones() > 1, "one bad block loses nothing: {bad:b}");
        }
    }
}

/// The last write's slot has a floor that does not prove it. Were the hint not written when writes
/// pause, a flipped bit in a log at rest would be taken for a torn tail, and acknowledged entries
/// cut.
#[test]
fn a_pause_proves_the_last_write() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40, 50, 60]);
    assert!(node.storage.promises().durable().durable_hint < node.last.index);
    node.now = node.storage.deadline().expect("the hint is written when writes pause");
    node.settle();
    assert_eq!(node.storage.promises().durable().durable_hint, node.last.index);
    assert_eq!(node.storage.deadline(), None, "and not again");
}

/// While writes go on, slots alone prove what was durable before them: an entry that is bad below
/// such a floor is damage, to be sent again, and not the end of a log whose tail is torn.
#[test]
fn a_slot_proves_what_was_durable_before_it() {
    let mut node = Node::start(Disk::default(), format());
    for bytes in [40, 50, 60] {
        node.append_all(1, [bytes]);
    }
    assert!(node.storage.promises().durable().durable_hint < LogIndex(2));
    let mut disk = node.disk;
    let segment = disk.files.iter_mut().find(|(file, _)| matches!(file, File::Segment(_)));
    let bytes = segment.expect("a log").1;
    let body = bytes.windows(50).position(|window| window == [2; 50]).expect("the second entry");
    bytes[body] ^= 1;
    let node = Node::start(disk, Start::Run);
    assert_eq!(node.recovered().last.index, LogIndex(3));
    assert_eq!(node.storage.hole().map(|hole| hole.index), Some(LogIndex(2)));
}

#[test]
fn every_bit_of_a_proven_entry_is_guarded() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40, 50, 60]);
    node.now = node.storage.deadline().expect("the hint is written when writes pause");
    node.settle();
    let disk = node.restart().disk;
    let segment = *disk.files.keys().find(|f| matches!(f, File::Segment(_))).expect("a log");
    let used: Vec<usize> = {
        let bytes = &disk.files[&segment];
        let data = bytes.windows(4).position(|w| w == b"LAKE").expect("entries");
        (512..552).chain(data..data + 60).collect()
    };
    for (place, bit) in used.into_iter().flat_map(|place| (0..8).map(move |bit| (place, bit))) {
        let mut disk = disk.clone();
        disk.files.get_mut(&segment).expect("it is there")[place] ^= 1 << bit;
        let node = Node::start(disk, Start::Run);
        match &node.halted {
            Some(Halt::Refused { row, .. }) => assert!(["damaged", "tail-unknown"].contains(row)),
            Some(other) => panic!("{other:?}"),
            None => assert_eq!(node.recovered().last.index, LogIndex(3), "byte {place}"),
        }
    }
}

/// Storms of one, seeds 1225 and 97: the log could not be read once, at a restart. Its last entries
/// were taken for torn and cut, though they had been acknowledged; and a term was forgotten whose
/// other copy was bad.
#[test]
fn a_read_that_fails_once_loses_nothing() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    assert!(node.storage.capture(node.last, node.recovered().membership.clone(), Timestamp(9)));
    node.append_all(7, [40, 50]);
    node.storage.promise(Term(7), Some(NodeId(3)));
    node.settle();
    let (disk, last) = (node.disk.clone(), node.last);
    let mut halts = 0;
    for failing in 0.. {
        let mut disk = disk.clone();
        disk.read_fails = Some(failing);
        let mut restarted = Node::start(disk, Start::Run);
        if restarted.disk.read_fails.is_some() {
            assert!(failing > 8 && halts > 3, "{halts} of {failing} reads matter");
            return;
        }
        if let Some(halt) = &restarted.halted {
            assert!(matches!(halt, Halt::DiskFailed { .. }), "{halt}");
            halts += 1;
            restarted = restarted.restart();
        }
        let found = restarted.recovered();
        assert_eq!((found.term, found.vote, found.last), (Term(7), Some(NodeId(3)), last));
        // A log from entry 1 does without its snapshot.
        let restored = restarted.storage.restored().expect("it is there");
        assert!([0, 300].contains(&restored.index.0), "{restored}");
        assert_eq!(
            restarted.read(restored.index.0 + 1).len() as u64,
            last.index.0 - restored.index.0
        );
    }
}
