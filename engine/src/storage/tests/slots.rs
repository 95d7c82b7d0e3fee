//! An entry and its slot are two witnesses of one thing, or of none.

use super::{
    forced::forced,
    holes::{grown, harm, harm_slots},
    verify::look,
    *,
};
use crate::{
    disk::{
        FileSeed,
        hard_state::Cut,
        segment::{FloorLag, Header, Layout, Slot},
    },
    entry::{HEAD_BYTES, Seed, frames},
    marks::Mark,
    storage::{
        repair::slot_image,
        scan::{Full, Rules, Scanned, Tail, first_bad, scan},
    },
};

/// Same place, length, term and predecessor: only what it holds is another. As if the write of the entry
/// was lost, and what lay there before was no worse.
#[test]
fn another_entry_under_a_slot_is_torn() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40, 50, 60]);
    let before = node.last;
    let fork = |body: u8| {
        let mut node = Node::start(node.disk.clone(), Start::Run);
        let id = LogId::new(Term(1), before.index.next());
        let (seed, batch) = (node.recovered().seed, Batch::one(&[body; 70]));
        let (head, frame) = batch.seal(seed, id, before.term, Timestamp(9));
        node.storage.append(head, frame, 0);
        node.settle();
        assert_eq!(node.storage.durable(), id.index);
        let active = node.storage.journal.active.as_ref().expect("it was written to");
        let slot = *active.slot(id.index).expect("it has one");
        (node.disk, File::Segment(active.sequence), slot)
    };
    let ((mut disk, file, slot), (other, other_file, other_slot)) = (fork(1), fork(2));
    assert_eq!((file, slot.offset, slot.end()), (other_file, other_slot.offset, other_slot.end()));
    assert_ne!(slot.digest, other_slot.digest);
    let last = |disk: &Disk| Node::start(disk.clone(), Start::Run).recovered().last;
    assert_eq!(last(&disk), slot.id);
    let at = slot.offset as usize..slot.end() as usize;
    let entry = other.files[&file][at.clone()].to_vec();
    disk.files.get_mut(&file).expect("it is there")[at].copy_from_slice(&entry);
    assert_eq!(last(&disk), before);
}

/// The write of one of them was lost, and what lies there is from before a cut. The entry behind them
/// tells which is right.
#[test]
fn the_next_entry_tells_which_of_two_that_disagree_is_right() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40, 50]);
    node.append_all(2, std::iter::once(60).chain(sizes()));
    let sealed = &node.storage.journal.sealed[0];
    let (sequence, layout, last) = (sealed.sequence, sealed.layout, sealed.last.index);
    let (first, prev_term, terms) = (sealed.first, sealed.prev_term, None);
    let full = Full { sequence, layout, first, prev_term, last, terms };
    let (group, seed) = (config().group, node.recovered().seed);
    let scan = |image: &[u8]| full.scan(image, seed, group, 9);
    let sound = node.disk.files[&File::Segment(sequence)].clone();
    let found = scan(&sound);
    assert_eq!((found.first_rebuilt, found.tail), (None, Tail::End));
    let slot = found.slots[2];
    assert_eq!(slot.id, LogId::new(Term(2), LogIndex(3)));

    let old = LogId::new(Term(1), slot.id.index);
    let with = |at: u64, bytes: &[u8]| {
        let mut image = sound.clone();
        image[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
        image
    };
    let stale = Slot { id: old, digest: !slot.digest, ..slot };
    let slot_is_old = with(layout.slot_offset(2), &stale.encode(FileSeed::new(group, sequence)));
    let found = scan(&slot_is_old);
    assert_eq!((found.slots[2].id, found.first_rebuilt), (slot.id, Some(2)));
    assert_eq!((found.slots.len() as u64, found.tail), (last.0, Tail::End));

    let (_, frame) = Batch::one(&[9; 60]).seal(seed, old, Term(1), Timestamp(9));
    let mut entry_is_old = with(slot.offset.into(), &frame);
    let found = scan(&entry_is_old);
    assert_eq!((found.holes, found.slots.len() as u64), (vec![slot], last.0));
    assert!(matches!(found.tail, Tail::Damaged(_)), "{:?}", found.tail);

    // Nobody tells.
    entry_is_old[layout.slot_offset(3) as usize] ^= 1;
    let found = scan(&entry_is_old);
    assert!(matches!(found.tail, Tail::Unknown(_)), "{:?}", found.tail);
    assert_eq!(found.slots.len(), 2);
}

/// A node whose third entry, of term 2, lies in a full segment. As if its write had been lost behind a cut its
/// slot, and its entry if `is_entry_old`, are those of term 1 that lay there before.
fn with_an_old_slot(is_entry_old: bool) -> (Node, LogId) {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40, 50]);
    node.append_all(2, std::iter::once(60).chain(sizes()));
    let mut node = node.restart();
    let sealed = &node.storage.journal.sealed[0];
    let (sequence, layout) = (sealed.sequence, sealed.layout);
    let id = make_third_old(&mut node, sequence, layout, is_entry_old);
    (node, id)
}

/// Tells what it was.
fn make_third_old(node: &mut Node, sequence: u64, layout: Layout, is_entry_old: bool) -> LogId {
    let (group, seed) = (config().group, node.recovered().seed);
    let image = node.disk.files.get_mut(&File::Segment(sequence)).expect("it is there");
    let at = layout.slot_offset(2) as usize..layout.slot_offset(3) as usize;
    let file = FileSeed::new(group, sequence);
    let slot = Slot::decode(&image[at.clone()], file, LogIndex(3)).expect("it is good");
    let old = LogId::new(Term(1), slot.id.index);
    let (head, frame) = Batch::one(&[9; 60]).seal(seed, old, Term(1), Timestamp(9));
    assert_eq!(head.total_bytes, slot.total_bytes);
    let stale = Slot::of(&head, slot.offset.into(), slot.epoch, slot.floor_lag);
    image[at].copy_from_slice(&stale.encode(file));
    if is_entry_old {
        image[slot.offset as usize..slot.end() as usize].copy_from_slice(&frame);
    }
    slot.id
}

/// Both agree, and a restart that believes slots reads neither. What the next entry follows tells.
#[test]
fn a_restart_reads_where_each_term_begins() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40, 50]);
    node.append_all(2, [60, 70, 80, 90]);
    while let Some(at) = node.storage.deadline() {
        node.now = at;
        node.settle();
    }
    let mut node = node.restart();
    assert_eq!(node.recovered().last, LogId::new(Term(2), LogIndex(6)));
    let active = node.storage.journal.active.as_ref().expect("it is the last one");
    let (sequence, layout) = (active.sequence, active.layout);
    let id = make_third_old(&mut node, sequence, layout, true);
    let found = look(&node.disk, Start::Verify);
    let [defect] = &found.defects[..] else { panic!("{found}") };
    assert_eq!(defect.expected, "entry 3, term 2, as the next one has it", "{defect}");
    assert!(defect.then.contains("gives up the log"), "{defect}");
    let mut node = node.restart();
    let recovered = node.recovered();
    assert!(recovered.gate.is_some(), "{:?}", recovered.last);
    assert!(recovered.last.index < id.index, "{:?}", recovered.last);
    assert!(node.read(recovered.last.index.next().0).is_empty());
}

/// Elections that follow each other leave an entry each, in blocks that adjoin or in one.
#[test]
fn where_many_terms_begin_is_read_at_once() {
    let mut node = Node::start(Disk::default(), format());
    (1..=60).for_each(|term| node.append_all(term, [10]));
    while let Some(at) = node.storage.deadline() {
        node.now = at;
        node.settle();
    }
    node.disk.requests.clear();
    let node = node.restart();
    assert_eq!(node.recovered().last, LogId::new(Term(60), LogIndex(60)));
    assert!(node.storage.marks().has(Mark::SlotsBelieved));
    let active = node.storage.journal.active.as_ref().expect("it is the last one");
    let reads_entries = |request: &&DiskRequest| {
        matches!(request, DiskRequest::Read { file: File::Segment(_), offset, .. }
            if (active.layout.data_at..active.end()).contains(offset))
    };
    let read: Vec<_> = node.disk.requests.iter().filter(reads_entries).collect();
    // The tail, where terms begin, and what is read behind the restart.
    assert!(active.slots.len() > 10 && read.len() < 8, "{read:?}");
}

/// It was believed, and what was read by it was not what the log has: it was read again for ever.
#[test]
fn a_slot_with_another_term_than_the_log_has_is_made_anew() {
    for reader in [Reader::Machine, Reader::Peer(NodeId(2)), Reader::Scrub] {
        let (mut node, id) = with_an_old_slot(false);
        node.storage.read(reader, id.index, node.last.index, 1);
        node.settle();
        assert!(node.storage.marks().has(Mark::SlotsMadeAnew), "{reader:?}");
        if reader != Reader::Scrub {
            let (given_to, back) = node.storage.take_read().expect("it was read");
            let read = frames(&back.frames).next().map(|entry| entry.id);
            assert_eq!((given_to, read), (reader, Some(id)));
        }
        assert_eq!(node.read(1).len() as u64, node.last.index.0);
        let mut node = node.restart();
        assert_eq!(node.read(1).len() as u64, node.last.index.0);
        assert!(!node.storage.marks().has(Mark::SlotsMadeAnew), "it is on disk again");
    }
}

#[test]
fn an_entry_whose_witnesses_are_both_of_another_term_is_lost() {
    for (reader, from) in [(Reader::Machine, 1), (Reader::Peer(NodeId(2)), 1), (Reader::Scrub, 3)] {
        let (mut node, id) = with_an_old_slot(true);
        node.storage.snapshots.has_peers = true;
        node.storage.read(reader, LogIndex(from), node.last.index, 1 << 20);
        node.settle();
        if let Some((_, back)) = node.storage.take_read() {
            assert!(back.last < id.index, "{:?}", back.last);
            node.storage.read(reader, id.index, node.last.index, 1);
            node.settle();
        }
        assert!(matches!(node.halted, Some(Halt::LogLost { .. })), "{reader:?}: {:?}", node.halted);
    }
}

/// A cut that opens the segment again takes its slots into memory, where nobody doubts them.
#[test]
fn a_cut_believes_no_slot_with_another_term_than_the_log_has() {
    for is_entry_old in [false, true] {
        let (mut node, id) = with_an_old_slot(is_entry_old);
        node.storage.snapshots.has_peers = true;
        node.truncate(LogId::new(Term(2), LogIndex(4)));
        node.settle();
        if is_entry_old {
            let halted = &node.halted;
            assert!(matches!(halted, Some(Halt::LogLost { .. })), "{halted:?}");
        } else {
            assert!(node.storage.marks().has(Mark::SlotsMadeAnew));
            assert_eq!(node.read(1)[2].0, id);
        }
    }
}

/// The log would have ended with what was cut away from it, and the node been the only voter with that.
#[test]
fn a_log_that_is_taken_by_force_ends_before_what_has_another_term_than_it_says() {
    let (node, id) = with_an_old_slot(true);
    let (disk, forced) = forced(node.disk);
    assert_eq!(forced.last, LogId::new(Term(1), id.index.previous()));
    assert_eq!(Node::start(disk, Start::Run).recovered().last, forced.last);
}

#[test]
fn what_has_another_term_than_the_end_of_its_segment_says_is_told() {
    for (is_entry_old, expected, then) in [
        (false, "the slot of entry 3, term 2", "made anew when the node reads entry 3"),
        (true, "entry 3; its slot is bad too", "or gives its log up"),
    ] {
        let (node, _) = with_an_old_slot(is_entry_old);
        let found = look(&node.disk, Start::Verify);
        let [defect] = &found.defects[..] else { panic!("{found}") };
        assert!(defect.expected == expected && defect.then.contains(then), "{defect}");
    }
}

/// The slots and the room of each peer that had ever lagged were kept.
#[test]
fn a_reader_is_forgotten_when_it_is_no_member_any_more() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    let member = |id| Member { id: NodeId(id), incarnation: 0, address: Bytes::new() };
    let of = |ids: [u64; 2]| Arc::new(Membership::of(ids.map(member)));
    for id in 2..50 {
        for reader in [Reader::Peer(NodeId(id)), Reader::Refill(NodeId(id))] {
            node.storage.read(reader, LogIndex(1), LogIndex(9), 1000);
            node.settle();
            assert_eq!(node.storage.take_read().map(|(reader, _)| reader), Some(reader));
        }
        node.storage.set_membership(of([1, id + 1]), of([1, id]));
        node.settle();
    }
    assert_eq!(node.storage.reads.readers.len(), 2);
    assert_eq!(node.read(1).len(), 300, "others read on");
}

/// Whether an entry is among these writes.
fn writes_entries(asked: &[Action]) -> bool {
    let writes = |action: &Action| {
        matches!(
            action,
            Action::Disk { request: DiskRequest::Write { file: File::Segment(_), .. }, .. }
        )
    };
    asked.iter().any(writes)
}

/// A crash would leave a log whose members nobody knows, or more than was promised.
#[test]
fn an_entry_waits_for_the_hard_state_that_names_its_members_or_its_term() {
    for changes_members in [true, false] {
        let mut node = Node::start(Disk::default(), format());
        node.append_all(1, [10, 20, 30]);
        let term = Term(if changes_members { 1 } else { 2 });
        let at = LogId::new(term, node.last.index.next());
        let previous = node.recovered().membership.clone();
        let newest = Arc::new(Membership { at, ..Membership::clone(&previous) });
        if changes_members {
            node.storage.set_membership(Arc::clone(&newest), previous);
        } else {
            node.storage.promise(term, None);
        }
        let (body, prev) = (newest.encode(), node.last.term);
        let kind = if changes_members { Kind::Membership } else { Kind::Empty };
        let body = if changes_members { &body[..] } else { &[] };
        let (head, frame) = seal_body(kind, body, node.recovered().seed, at, prev, Timestamp(9));
        node.storage.append(head, frame, 0);
        let asked = node.ask();
        assert!(!asked.is_empty() && !writes_entries(&asked));
        let marks = node.storage.marks();
        assert_eq!(marks.has(Mark::WriteWaitedForMembership), changes_members);
        assert_eq!(marks.has(Mark::WriteWaitedForTerm), !changes_members);
        asked.into_iter().for_each(|action| node.perform(action));
        node.settle();
        assert_eq!(node.storage.durable(), at.index);
    }
}

/// It is in no hurry for what others wait for: entries go on.
#[test]
fn other_entries_do_not_wait_for_the_members_to_be_named() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [10, 20, 30]);
    let previous = node.recovered().membership.clone();
    let at = LogId::new(Term(1), LogIndex(9));
    let newest = Arc::new(Membership { at, ..Membership::clone(&previous) });
    node.storage.set_membership(newest, previous);
    node.append(1, 40);
    assert!(writes_entries(&node.ask()));
}

/// Entries that came one by one lie a block apart, and whoever asks for few bytes was read many.
#[test]
fn a_read_takes_no_more_from_the_disk_than_is_wanted() {
    let mut node = Node::start(Disk::default(), format());
    (0..60).for_each(|_| node.append_all(1, [40]));
    let align = node.storage.journal.align;
    let (mut next, wanted) = (LogIndex(1), 4 * align);
    let mut portions = Vec::new();
    while next <= node.last.index {
        node.storage.read(Reader::Peer(NodeId(2)), next, node.last.index, wanted);
        node.settle();
        let (_, read) = node.storage.take_read().expect("they are there");
        portions.push(read.last.0 + 1 - next.0);
        next = read.last.next();
    }
    assert!(portions.iter().all(|count| (1..=4).contains(count)), "{portions:?}");
    assert!(portions.contains(&4), "{portions:?}");
}

/// One more would lie where the entries begin.
#[test]
fn an_image_of_slots_has_the_blocks_that_they_lie_in_and_no_more() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [10; 40]);
    let active = node.storage.journal.active.as_ref().expect("it takes entries");
    let seed = FileSeed::new(config().group, active.sequence);
    let bytes = &node.disk.files[&File::Segment(active.sequence)];
    for count in 1..=active.slots.len() {
        let image = slot_image(&active.slots[..count], 0, &active.layout, seed);
        assert_eq!(image.len(), count.div_ceil(12) * 512);
        let full = image.len() - if count % 12 == 0 { 0 } else { 512 };
        assert_eq!(image[..full], bytes[512..512 + full]);
    }
}

/// It is read a piece at a time; if somebody cut its file off meanwhile, no further than there.
#[test]
fn slots_of_a_long_segment_are_made_anew_unless_its_end_is_gone() {
    let mut config = config();
    (config.segment_bytes, config.first_segment_bytes) = (4 << 20, 4 << 20);
    config.tuning.append_bytes_max = 1 << 20;
    for is_gone in [false, true] {
        let mut node = Node::start_as(&config, Disk::default(), format());
        node.append_all(1, [500_000; 9]);
        let sealed = node.storage.journal.sealed[0];
        assert!(sealed.last.index > LogIndex(5));
        let (file, slot) = (File::Segment(sealed.sequence), sealed.layout.slot_offset(2) as usize);
        let bytes = node.disk.files.get_mut(&file).expect("it is there");
        bytes[slot + 17] ^= 4;
        if is_gone {
            bytes.truncate(3 << 20);
        }
        let reader = Reader::Peer(NodeId(2));
        node.storage.read(reader, LogIndex(3), LogIndex(3), 1);
        node.settle();
        let read = node.storage.take_read().map(|(_, read)| read.first);
        assert_eq!(read, (!is_gone).then_some(LogIndex(3)));
        assert_eq!(matches!(node.halted, Some(Halt::LogLost { .. })), is_gone, "{:?}", node.halted);
    }
}

/// Of entries that were believed nobody else looks at what they hold.
#[test]
fn an_entry_is_bad_if_it_is_another_than_its_slot_says_or_follows_another() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40, 50, 60]);
    let active = node.storage.journal.active.as_ref().expect("it takes entries");
    let (seed, mut slots) = (node.recovered().seed, active.slots.clone());
    let bytes = &node.disk.files[&File::Segment(active.sequence)];
    let bad = |slots: &[Slot], before| {
        first_bad(bytes, 0, slots, before, seed).map(|slot| slot.id.index.0)
    };
    assert_eq!(bad(&slots, None), None);
    assert_eq!(bad(&slots, Some(Term(0))), None);
    assert_eq!(bad(&slots, Some(Term(1))), Some(1));
    slots[1].digest = !slots[1].digest;
    assert_eq!(bad(&slots, None), Some(2));
}

/// The segment of a node that was given so many entries, as it lies on the disk.
struct Segment {
    seed: Seed,
    header: Header,
    slots: Vec<Slot>,
    image: Vec<u8>,
}

impl Segment {
    fn of(entries: usize) -> Self {
        let mut node = Node::start(Disk::default(), format());
        node.append_all(1, (0..entries).map(|n| 40 + n));
        let active = node.storage.journal.active.as_ref().expect("it takes entries");
        let image = node.disk.files[&File::Segment(active.sequence)].clone();
        let header = Header::decode(&image[..512], config().group, active.sequence);
        let (header, slots) = (header.expect("it is good"), active.slots.clone());
        Self { seed: node.recovered().seed, header, slots, image }
    }

    /// With another slot at this place.
    fn with(&self, n: u32, slot: Slot) -> Vec<u8> {
        let (mut image, at) = (self.image.clone(), self.header.layout.slot_offset(n) as usize);
        let seed = FileSeed::new(config().group, self.header.sequence);
        let slot = slot.encode(seed);
        image[at..at + slot.len()].copy_from_slice(&slot);
        image
    }

    fn scan(&self, image: &[u8], proven: u64, cut: Cut, believes: bool) -> Scanned {
        let (seed, proven) = (self.seed, LogIndex(proven));
        scan(
            &self.header,
            image,
            &Rules { seed, cut, stop: None, proven, epoch: 9, believes, terms: None },
        )
    }
}

/// They may come back when the sync of the cut has failed. What they say was durable was cut away.
#[test]
fn slots_that_a_cut_has_cleared_are_witnesses_of_nothing() {
    let segment = Segment::of(5);
    let slot = Slot { floor_lag: FloorLag(1), ..segment.slots[4] };
    let mut image = segment.with(4, slot);
    image[segment.slots[2].offset as usize..slot.end() as usize].fill(0);
    let cut = Cut { from: LogIndex(3), epoch: slot.epoch + 1 };
    let found = segment.scan(&image, 2, cut, false);
    assert_eq!(
        (found.tail, found.proven, &found.slots[..]),
        (Tail::End, LogIndex(2), &segment.slots[..2])
    );
    assert_eq!(found.slots_to, 5, "they are to be cleared again");
    // Where there was no cut, or one before they were written, they are.
    for cut in [Cut::default(), Cut { epoch: slot.epoch, ..cut }] {
        let found = segment.scan(&image, 2, cut, false);
        assert!(matches!(found.tail, Tail::Damaged(_)), "{:?}", found.tail);
        assert_eq!(found.proven, LogIndex(4));
    }
}

/// Its checksum holds, and no entry can lie there: it is made anew.
#[test]
fn a_slot_that_lies_outside_of_the_entries_is_none() {
    let segment = Segment::of(5);
    let (layout, slot) = (&segment.header.layout, segment.slots[1]);
    let (before, behind) =
        (layout.data_at - 1, layout.data_end() + 1 - u64::from(slot.total_bytes));
    for offset in [layout.align, before, behind] {
        let image = segment.with(1, Slot { offset: offset as u32, ..slot });
        let found = segment.scan(&image, 5, Cut::default(), false);
        assert_eq!((found.first_rebuilt, found.tail), (Some(1), Tail::End), "{offset}");
        assert_eq!((found.slots[1].id, found.slots[1].offset), (slot.id, slot.offset));
    }
}

/// Of the rest nothing is read but the last of them, and the head of what would follow.
#[test]
fn slots_are_believed_as_far_as_each_goes_on_where_the_one_before_ends() {
    let segment = Segment::of(5);
    let (layout, slots) = (&segment.header.layout, &segment.slots);
    let found = segment.scan(&segment.image, 5, Cut::default(), true);
    let end = layout.block_after(slots[4].end()) + HEAD_BYTES as u64;
    assert_eq!((found.believed, found.looked_at), (4, slots[3].end()..end));
    let earlier = LogId::new(Term(0), slots[2].id.index);
    for other in
        [Slot { offset: slots[2].offset + 1024, ..slots[2] }, Slot { id: earlier, ..slots[2] }]
    {
        let found = segment.scan(&segment.with(2, other), 5, Cut::default(), true);
        assert_eq!(found.believed, 1, "{other:?}");
    }
}

/// It would be cut away, and was acknowledged.
#[test]
fn an_entry_and_a_slot_that_disagree_are_torn_only_above_what_is_proven() {
    let segment = Segment::of(3);
    let slot = segment.slots[2];
    let image =
        segment.with(2, Slot { digest: !slot.digest, floor_lag: FloorLag::NOTHING, ..slot });
    for (proven, is_torn) in [(2, true), (3, false)] {
        let found = segment.scan(&image, proven, Cut::default(), false);
        assert_eq!(found.slots.len(), 2);
        assert_eq!(
            (found.tail == Tail::End, matches!(found.tail, Tail::Unknown(_))),
            (is_torn, !is_torn)
        );
    }
}

/// A slot rots, and is made anew at a restart by its entry. Then the entry rots: what it was is known by the slot,
/// if that was written as well as made.
#[test]
fn a_slot_that_a_restart_makes_anew_is_on_disk_again() {
    let (mut node, frames) = grown([40, 50, 60, 700, 80]);
    let sound = node.disk.files.clone();
    harm_slots(&mut node.disk, &frames[1], 0);
    assert_ne!(node.disk.files, sound);
    let mut node = node.restart();
    assert!(node.storage.marks().has(Mark::SlotRebuilt));
    harm(&mut node.disk, &frames[1]);
    // That it is the last one is not known: all are read.
    harm(&mut node.disk, &frames[4]);
    let node = node.restart();
    assert_eq!(node.recovered().gate, None, "no word is lost");
    assert_eq!(node.storage.first_owed(), Some(LogIndex(2)));
}
