//! Entries back from disk, for peers that lag and for a machine that replays.
//!
//! Invariant: nothing is handed out before it agrees with its slot and chains to the entry before
//! it. Memory is bounded by twice what a reader asks for, plus a few blocks of slots for each; and by
//! a segment where slots are bad and are made anew from their entries.

use super::{
    ReadBack, Reader,
    cut::push_chunks,
    journal::Journal,
    lost::Lost,
    ops::{Job, Ops},
    repair::slot_image,
    scan::{Damage, Full, Scanned, Tail},
};
use crate::{
    disk::{
        FileSeed,
        segment::{Layout, Slot},
    },
    entry::{Head, Seed},
    file::{Class, DiskRequest, Extent, File},
    marks::Mark,
    types::{GroupId, LogIndex, OpId, Term},
};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// How many bytes of slots are read at a time.
const SLOTS_READ_BYTES: u64 = 64 << 10;
/// And of a segment whose slots are made anew.
const WHOLE_READ_BYTES: u64 = 1 << 20;

#[derive(Clone, Debug)]
pub(crate) struct Reads {
    seed: Seed,
    group: GroupId,
    readers: Vec<State>,
    done: VecDeque<(Reader, ReadBack)>,
}

/// What a read came upon.
#[derive(Clone, Debug)]
pub(super) enum Bad {
    /// An entry is bad, as its slot has it: what was wanted is read when it is there again.
    Entry(BadEntry),
    /// Slots were bad, and were made anew from their entries: they are to be written.
    Slots {
        /// Of this segment.
        sequence: u64,
        /// Their blocks.
        blocks: Vec<Extent>,
    },
    /// An entry has neither.
    Lost(Lost),
}

/// An entry that was read back bad, as its slot has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct BadEntry {
    pub(super) slot: Slot,
    pub(super) sequence: u64,
    pub(super) layout: Layout,
}

#[derive(Clone, Debug)]
struct State {
    reader: Reader,
    want: Option<Want>,
    step: Step,
    slots: Option<Slots>,
    /// Where entries that do not lie next to each other are put together: the same memory again
    /// and again, as long as nobody holds what was there before. Fresh memory costs more than the
    /// copy does.
    room: BytesMut,
}

#[derive(Clone, Copy, Debug)]
struct Want {
    from: LogIndex,
    to: LogIndex,
    bytes_max: u32,
}

#[derive(Clone, Debug)]
enum Step {
    Idle,
    /// Slots of a full segment are being read, of them those from this entry's on: a bad one
    /// before it is nobody's concern here, and a bad one there would be read again for ever.
    Slots {
        op: OpId,
        place: Place,
        first: LogIndex,
    },
    /// A slot is bad: all of the segment is read, to make its slots anew.
    Whole {
        op: OpId,
        place: Place,
        image: BytesMut,
    },
    /// Entries are being read: these.
    Entries {
        op: OpId,
        place: Place,
        slots: Vec<Slot>,
        offset: u64,
    },
}

#[derive(Clone, Copy, Debug)]
struct Place {
    sequence: u64,
    layout: Layout,
    first: LogIndex,
    /// The term of the entry before `first`.
    prev_term: Term,
    /// The last that may be read.
    last: LogIndex,
    /// The last there is.
    end: LogIndex,
}

/// Slots of a full segment, kept while a reader goes through it.
#[derive(Clone, Debug)]
struct Slots {
    sequence: u64,
    first: LogIndex,
    slots: Vec<Slot>,
}

impl Reads {
    pub(crate) const fn new(seed: Seed, group: GroupId) -> Self {
        Self { seed, group, readers: Vec::new(), done: VecDeque::new() }
    }

    pub(crate) fn read(&mut self, reader: Reader, from: LogIndex, to: LogIndex, bytes_max: u32) {
        let state = self.state(reader);
        let is_repeated = matches!(reader, Reader::Refill(_))
            && state.want.is_some_and(|want| want.from == from)
            && !matches!(state.step, Step::Idle);
        if is_repeated {
            // A peer asks at each heartbeat, and a disk may take longer.
            return;
        }
        state.want = Some(Want { from, to, bytes_max });
        // What is on its way for an earlier wish is not this one's answer.
        state.step = Step::Idle;
        self.done.retain(|(other, _)| *other != reader);
    }

    /// Where what this reader waits for begins.
    pub(super) fn wanted(&self, reader: Reader) -> Option<LogIndex> {
        let state = self.readers.iter().find(|state| state.reader == reader)?;
        state.want.map(|want| want.from)
    }

    /// What this reader wants is not waited for any more.
    pub(super) fn drop_wish(&mut self, reader: Reader) {
        let state = self.state(reader);
        (state.want, state.step) = (None, Step::Idle);
    }

    /// The log is cut: what was remembered of entries from here on is another entry's by the time
    /// it is used. So is what a read in flight will bring; the wish stands and is begun anew.
    pub(crate) fn forget(&mut self, from: LogIndex) {
        for state in &mut self.readers {
            if state.slots.as_ref().is_some_and(|slots| slots.reaches(from)) {
                state.slots = None;
            }
            if state.step.reaches(from) {
                state.step = Step::Idle;
            }
        }
    }

    /// The log goes: nothing of it is wanted any more.
    pub(super) fn forget_all(&mut self) {
        self.readers.clear();
        self.done.clear();
    }

    /// Whether nobody wants anything.
    pub(super) fn is_idle(&self) -> bool {
        let is_idle = |state: &State| state.want.is_none() && matches!(state.step, Step::Idle);
        self.done.is_empty() && self.readers.iter().all(is_idle)
    }

    fn state(&mut self, reader: Reader) -> &mut State {
        let place = self.readers.iter().position(|state| state.reader == reader);
        let place = place.unwrap_or_else(|| {
            let (want, step, slots, room) = (None, Step::Idle, None, BytesMut::new());
            self.readers.push(State { reader, want, step, slots, room });
            self.readers.len() - 1
        });
        &mut self.readers[place]
    }

    /// What was read for nobody, if it came.
    pub(super) fn take_scrubbed(&mut self) -> Option<ReadBack> {
        let at = self.done.iter().position(|(reader, _)| *reader == Reader::Scrub)?;
        self.done.remove(at).map(|(_, back)| back)
    }

    /// Whoever wants this gets nothing.
    pub(super) fn give_nothing(&mut self, reader: Reader, first: LogIndex) {
        let nothing = ReadBack { first, last: first, frames: Bytes::new() };
        self.done.push_back((reader, nothing));
    }

    pub(crate) fn take(&mut self) -> Option<(Reader, ReadBack)> {
        self.done.pop_front()
    }

    /// Whether a read of this segment is on its way: it must not be removed.
    pub(crate) fn uses(&self, sequence: u64) -> bool {
        self.readers.iter().any(|state| match &state.step {
            Step::Idle => false,
            Step::Slots { place, .. } | Step::Whole { place, .. } | Step::Entries { place, .. } => {
                place.sequence == sequence
            }
        })
    }

    pub(crate) fn go_on(&mut self, journal: &Journal, ops: &mut Ops) {
        for state in &mut self.readers {
            if let (Some(want), Step::Idle) = (state.want, &state.step) {
                state.begin(want, journal, ops);
            }
        }
    }

    /// Whether this is the read that its reader waits for.
    pub(crate) fn is_expected(&self, reader: Reader, op: OpId) -> bool {
        self.readers.iter().any(|state| match &state.step {
            Step::Slots { op: asked, .. }
            | Step::Whole { op: asked, .. }
            | Step::Entries { op: asked, .. } => state.reader == reader && *asked == op,
            Step::Idle => false,
        })
    }

    /// Takes what was read.
    pub(crate) fn on_read(
        &mut self,
        reader: Reader,
        op: OpId,
        bytes: &Bytes,
        journal: &Journal,
        ops: &mut Ops,
    ) -> Option<Bad> {
        let (seed, group) = (self.seed, self.group);
        let state = self.readers.iter_mut().find(|state| state.reader == reader)?;
        match std::mem::replace(&mut state.step, Step::Idle) {
            Step::Slots { op: asked, place, first } if asked == op => {
                let slots = decode_slots(bytes, &place, first, group);
                if slots.slots.is_empty() {
                    state.read_whole(place, BytesMut::new(), ops);
                } else {
                    state.slots = Some(slots);
                }
            }
            Step::Whole { op: asked, place, mut image } if asked == op => {
                image.extend_from_slice(bytes);
                // A file that ends too early has no slots to be made.
                if (image.len() as u64) < place.layout.len && !bytes.is_empty() {
                    state.read_whole(place, image, ops);
                    return None;
                }
                match made_anew(&image, &place, seed, group, journal.epoch) {
                    Ok((slots, blocks)) => {
                        ops.met(Mark::SlotsMadeAnew);
                        state.slots = Some(slots);
                        return Some(Bad::Slots { sequence: place.sequence, blocks });
                    }
                    Err(lost) => return Some(Bad::Lost(lost)),
                }
            }
            Step::Entries { op: asked, place, slots, offset } if asked == op => {
                match gather(bytes, offset, &slots, seed, &mut state.room) {
                    Ok(read_back) => {
                        state.want = None;
                        self.done.push_back((reader, read_back));
                    }
                    Err(slot) => {
                        let Place { sequence, layout, .. } = place;
                        return Some(Bad::Entry(BadEntry { slot, sequence, layout }));
                    }
                }
            }
            other => state.step = other,
        }
        None
    }
}

impl Step {
    fn reaches(&self, index: LogIndex) -> bool {
        match self {
            Self::Idle => false,
            // More of the segment is read than may be given.
            Self::Slots { place, .. } | Self::Whole { place, .. } => place.end >= index,
            Self::Entries { slots, .. } => slots.last().is_some_and(|slot| slot.id.index >= index),
        }
    }
}

impl Slots {
    fn reaches(&self, index: LogIndex) -> bool {
        index.0 < self.first.0 + self.slots.len() as u64
    }
}

impl State {
    fn begin(&mut self, mut want: Want, journal: &Journal, ops: &mut Ops) {
        let reader = self.reader;
        if want.from < journal.first() {
            // It has gone from the log meanwhile, and never comes.
            self.want = None;
            return;
        }
        // What is missing is waited for.
        match journal.holes.first_from(want.from) {
            Some(hole) if hole == want.from => return,
            Some(hole) => want.to = want.to.min(hole.previous()),
            None => {}
        }
        if let Some(active) = &journal.active
            && active.first <= want.from
        {
            let last = active.durable().min(journal.durable());
            if want.from > last {
                return;
            }
            let place = Place {
                sequence: active.sequence,
                layout: active.layout,
                first: active.first,
                prev_term: active.prev_term,
                last,
                end: last,
            };
            let slots = &active.slots[(want.from.0 - active.first.0) as usize..];
            return self.read_entries(want, place, choose(slots, want, last), ops);
        }
        let sealed = journal.sealed.partition_point(|sealed| sealed.last.index < want.from);
        let Some(sealed) = journal.sealed.get(sealed).filter(|s| s.first <= want.from) else {
            return;
        };
        if journal.is_cut_at(sealed.last.index) {
            // It will take entries again: what is read of it now is not what it will be.
            return;
        }
        let place = Place {
            sequence: sealed.sequence,
            layout: sealed.layout,
            first: sealed.first,
            prev_term: sealed.prev_term,
            end: sealed.last.index,
            last: sealed.last.index.min(journal.durable()),
        };
        if want.from > place.last {
            return;
        }
        let cached = self.slots.as_ref().filter(|slots| slots.sequence == sealed.sequence);
        let cached = cached
            .and_then(|slots| slots.slots.get(want.from.0.checked_sub(slots.first.0)? as usize..));
        match cached.filter(|slots| !slots.is_empty()) {
            Some(slots) => {
                let chosen = choose(slots, want, place.last);
                self.read_entries(want, place, chosen, ops);
            }
            None => {
                let n = (want.from.0 - place.first.0) as u32;
                let offset = place.layout.slot_block(n);
                let count = (place.last.0 - place.first.0) as u32;
                let end = place.layout.slot_block(count) + place.layout.align;
                let len = (end - offset).min(SLOTS_READ_BYTES) as u32;
                let file = File::Segment(place.sequence);
                let request = DiskRequest::Read { file, offset, len };
                let op = ops.submit(Job::ReadBack(reader), class_of(reader), request);
                self.step = Step::Slots { op, place, first: want.from };
            }
        }
    }

    /// Reads on through a segment of which this much was read.
    fn read_whole(&mut self, place: Place, image: BytesMut, ops: &mut Ops) {
        let (file, offset) = (File::Segment(place.sequence), image.len() as u64);
        let len = (place.layout.len - offset).min(WHOLE_READ_BYTES) as u32;
        let request = DiskRequest::Read { file, offset, len };
        let op = ops.submit(Job::ReadBack(self.reader), class_of(self.reader), request);
        self.step = Step::Whole { op, place, image };
    }

    fn read_entries(&mut self, want: Want, place: Place, slots: Vec<Slot>, ops: &mut Ops) {
        let (Some(first), Some(last)) = (slots.first(), slots.last()) else { return };
        debug_assert_eq!(first.id.index, want.from, "slots lie by index");
        let offset = place.layout.block_before(u64::from(first.offset));
        let len = (place.layout.block_after(last.end()) - offset) as u32;
        let file = File::Segment(place.sequence);
        let request = DiskRequest::Read { file, offset, len };
        let op = ops.submit(Job::ReadBack(self.reader), class_of(self.reader), request);
        self.step = Step::Entries { op, place, slots, offset };
    }
}

/// Who is in no hurry yields.
const fn class_of(reader: Reader) -> Class {
    if matches!(reader, Reader::Scrub) { Class::Background } else { Class::Serve }
}

/// As many entries as are wanted, at least one.
fn choose(slots: &[Slot], want: Want, last: LogIndex) -> Vec<Slot> {
    let to = want.to.min(last);
    let mut bytes = 0;
    let fits = |slot: &&Slot| {
        bytes += u64::from(slot.total_bytes);
        slot.id.index == want.from || (slot.id.index <= to && bytes <= u64::from(want.bytes_max))
    };
    slots.iter().take_while(fits).copied().collect()
}

fn decode_slots(bytes: &[u8], place: &Place, first: LogIndex, group: GroupId) -> Slots {
    let seed = FileSeed::new(group, place.sequence);
    let from = (first.0 - place.first.0) as u32;
    let base = place.layout.slot_block(from);
    let slot = |n: u32| {
        let at = (place.layout.slot_offset(n) - base) as usize;
        Slot::decode(bytes.get(at..)?, seed, LogIndex(place.first.0 + u64::from(n)))
    };
    let count = (place.last.0 + 1 - place.first.0) as u32;
    let slots = (from..count).map_while(slot).collect();
    Slots { sequence: place.sequence, first, slots }
}

/// The slots of a full segment, those that are bad made anew from their entries, and the blocks to
/// write for that. `Err` says what else is bad: an entry without either witness.
fn made_anew(
    image: &[u8],
    place: &Place,
    seed: Seed,
    group: GroupId,
    epoch: u64,
) -> Result<(Slots, Vec<Extent>), Lost> {
    let Place { sequence, layout, first, prev_term, end, .. } = *place;
    let full = Full { sequence, layout, first, prev_term, last: end };
    let Scanned { slots, first_rebuilt, tail, .. } = full.scan(image, seed, group, epoch);
    if let Tail::Unknown(Damage { offset, expected, .. }) = tail {
        return Err(Lost { file: File::Segment(sequence), offset, expected });
    }
    let mut blocks = Vec::new();
    if let Some(first) = first_rebuilt {
        let first = place.layout.slot_block_first(first);
        let seed = FileSeed::new(group, place.sequence);
        let bytes = slot_image(&slots, first, &place.layout, seed);
        push_chunks(&mut blocks, place.layout.slot_block(first), bytes);
    }
    Ok((Slots { sequence: place.sequence, first: place.first, slots }, blocks))
}

/// The frames of these slots out of what was read: as they lie if nothing lies between them.
fn gather(
    bytes: &Bytes,
    base: u64,
    slots: &[Slot],
    seed: Seed,
    room: &mut BytesMut,
) -> Result<ReadBack, Slot> {
    let mut prev: Option<&Slot> = None;
    for slot in slots {
        let at = (u64::from(slot.offset) - base) as usize;
        let frame = bytes.get(at..).unwrap_or_default();
        let head = Head::parse_whole(frame, seed).map_err(|_| *slot)?;
        let chains = prev.is_none_or(|prev| prev.id.term == head.prev_term);
        if !slot.agrees(&head) || !chains {
            return Err(*slot);
        }
        prev = Some(slot);
    }
    let (first, last) = (slots[0], slots[slots.len() - 1]);
    let place = |slot: &Slot| {
        let at = (u64::from(slot.offset) - base) as usize;
        at..at + slot.total_bytes as usize
    };
    let total: usize = slots.iter().map(|slot| slot.total_bytes as usize).sum();
    let is_dense = last.end() - u64::from(first.offset) == total as u64;
    let frames = if is_dense {
        bytes.slice(place(&first).start..place(&last).end)
    } else {
        room.reserve(total);
        slots.iter().for_each(|slot| room.extend_from_slice(&bytes[place(slot)]));
        room.split().freeze()
    };
    Ok(ReadBack { first: first.id.index, last: last.id.index, frames })
}
