//! Entries back from disk, for peers that lag and for a machine that replays.
//!
//! A machine that replays is read ahead for: while it is given one portion, the next ones are on their way.
//!
//! Invariant: nothing is handed out before it agrees with its slot, which has the term that the log says, and
//! chains to the entry before it. Memory is bounded by twice what a reader asks for, plus a few blocks of slots for each; by
//! `PORTIONS_AHEAD` times that for a machine that replays; and by a segment where slots are bad and are made
//! anew from their entries.

mod portion;
mod slots;

use self::{
    portion::{Ahead, Portion},
    slots::{Place, Slots, decode_slots, made_anew},
};
use super::{
    ReadBack, Reader,
    journal::Journal,
    lost::Lost,
    ops::{Job, Ops},
};
use crate::{
    disk::segment::{Layout, Slot},
    entry::Seed,
    file::{Class, DiskRequest, Extent, File},
    marks::Mark,
    types::{GroupId, LogIndex, NodeId, OpId},
};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// How many bytes of slots are read at a time.
const SLOTS_READ_BYTES: u64 = 64 << 10;
/// And of a segment whose slots are made anew.
const WHOLE_READ_BYTES: u64 = 1 << 20;
/// So many times what a machine asks for is read before it asks, while it replays; never more than it may
/// have been handed out.
const PORTIONS_AHEAD: u64 = 4;

#[derive(Clone, Debug)]
pub(crate) struct Reads {
    seed: Seed,
    group: GroupId,
    pub(super) readers: Vec<State>,
    done: VecDeque<(Reader, ReadBack)>,
    /// The machine will want all entries up to here.
    replays_to: LogIndex,
    /// The most bytes of them that are read before it does.
    ahead_max: u64,
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
pub(super) struct State {
    reader: Reader,
    want: Option<Want>,
    step: Step,
    /// Of full segments: where it is, and where it will be next.
    slots: VecDeque<Slots>,
    ahead: Ahead,
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
    Entries(Portion),
}

/// Where a wish begins.
enum Found<'a> {
    /// Its slots, and those behind them.
    Slots(Place, &'a [Slot]),
    /// Its slots are not known.
    Unread(Place),
}

impl Reads {
    pub(crate) const fn new(seed: Seed, group: GroupId) -> Self {
        let (replays_to, ahead_max) = (LogIndex(0), 0);
        Self { seed, group, readers: Vec::new(), done: VecDeque::new(), replays_to, ahead_max }
    }

    /// The machine is given all entries up to here, and then what is new: from there on nothing is
    /// read ahead.
    pub(super) fn replay_to(&mut self, to: LogIndex, apply_bytes_max: u64) {
        (self.replays_to, self.ahead_max) = (to, apply_bytes_max);
    }

    /// The machine was given all of it.
    pub(super) fn end_replay(&mut self) {
        self.replays_to = LogIndex(0);
        self.readers.iter_mut().for_each(|state| state.ahead = Ahead::default());
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
            state.slots.retain(|slots| !slots.reaches(from));
            if state.step.reaches(from) {
                state.step = Step::Idle;
            }
            // Entries that are read ahead are committed: no cut reaches them.
            state.ahead.slots.take_if(|(_, place, _)| place.end >= from);
        }
    }

    /// Who is a member now: nobody else is remembered, for ids are used once. One who joins, and asks, is
    /// begun anew.
    pub(super) fn keep(&mut self, is_member: impl Fn(NodeId) -> bool) {
        self.readers.retain(|state| match state.reader {
            Reader::Machine | Reader::Scrub => true,
            Reader::Peer(id) | Reader::Refill(id) => is_member(id),
        });
    }

    /// The log goes: nothing of it is wanted any more.
    pub(super) fn forget_all(&mut self) {
        self.readers.clear();
        self.done.clear();
    }

    /// Whether nobody wants anything.
    pub(super) fn is_idle(&self) -> bool {
        let is_idle = |state: &State| state.want.is_none() && matches!(state.step, Step::Idle);
        !self.has_read() && self.readers.iter().all(is_idle)
    }

    /// Whether something was read and not taken.
    pub(super) fn has_read(&self) -> bool {
        !self.done.is_empty()
    }

    fn state(&mut self, reader: Reader) -> &mut State {
        let place = self.readers.iter().position(|state| state.reader == reader);
        let place = place.unwrap_or_else(|| {
            let (want, step, slots, room) = (None, Step::Idle, VecDeque::new(), BytesMut::new());
            let ahead = Ahead::default();
            self.readers.push(State { reader, want, step, slots, ahead, room });
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
        let mut awaited = self.readers.iter().flat_map(State::awaited);
        awaited.any(|(_, place)| place.sequence == sequence)
    }

    pub(crate) fn go_on(&mut self, journal: &Journal, ops: &mut Ops) {
        for state in &mut self.readers {
            if let (Some(want), Step::Idle) = (state.want, &state.step) {
                let reader = state.reader;
                let back = state.begin(want, self.seed, journal, ops);
                let through = match (&back, &state.step) {
                    (Some(back), _) => Some(back.last),
                    (None, Step::Entries(portion)) => Some(portion.last()),
                    _ => None,
                };
                self.done.extend(back.map(|back| (reader, back)));
                if let (Reader::Machine, Some(through)) = (reader, through) {
                    let to = want.to.min(self.replays_to);
                    let behind = Want { from: through.next(), to, ..want };
                    state.read_ahead(behind, self.ahead_max, journal, ops);
                }
            }
        }
    }

    /// Whether this is a read that its reader waits for.
    pub(crate) fn is_expected(&self, reader: Reader, op: OpId) -> bool {
        let mut states = self.readers.iter().filter(|state| state.reader == reader);
        states.any(|state| state.awaited().any(|(asked, _)| asked == op))
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
        if state.ahead.take(op, bytes) {
            return None;
        }
        if let Some((_, place, first)) = state.ahead.slots.take_if(|(asked, ..)| *asked == op) {
            // A bad one is read again when it is wanted.
            state.know(decode_slots(bytes, &place, first, group, &journal.terms));
            return None;
        }
        match std::mem::replace(&mut state.step, Step::Idle) {
            Step::Slots { op: asked, place, first } if asked == op => {
                let slots = decode_slots(bytes, &place, first, group, &journal.terms);
                if slots.slots.is_empty() {
                    state.read_whole(place, BytesMut::new(), ops);
                } else {
                    state.know(slots);
                }
            }
            Step::Whole { op: asked, place, mut image } if asked == op => {
                image.extend_from_slice(bytes);
                // A file that ends too early has no slots to be made.
                if (image.len() as u64) < place.layout.len && !bytes.is_empty() {
                    state.read_whole(place, image, ops);
                    return None;
                }
                match made_anew(&image, &place, seed, journal) {
                    Ok((slots, blocks)) => {
                        ops.met(Mark::SlotsMadeAnew);
                        state.know(slots);
                        return Some(Bad::Slots { sequence: place.sequence, blocks });
                    }
                    Err(lost) => return Some(Bad::Lost(lost)),
                }
            }
            Step::Entries(portion) if portion.op == op => {
                match portion.gather(bytes, seed, &mut state.room) {
                    Ok(read_back) => {
                        state.want = None;
                        self.done.push_back((reader, read_back));
                    }
                    Err(slot) => {
                        let Place { sequence, layout, .. } = portion.place;
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
            Self::Entries(portion) => portion.last() >= index,
        }
    }
}

impl Want {
    /// What of it comes before the first entry that is missing; `None`: that one is wanted, and waited for.
    fn before_holes(self, journal: &Journal) -> Option<Self> {
        match journal.holes.first_from(self.from) {
            Some(hole) if hole == self.from => None,
            Some(hole) => Some(Self { to: self.to.min(hole.previous()), ..self }),
            None => Some(self),
        }
    }

    /// Whether this is what would be read for it.
    fn takes(&self, portion: &Portion) -> bool {
        let is_small = portion.slots.len() == 1 || portion.bytes() <= u64::from(self.bytes_max);
        portion.first() == self.from && portion.last() <= self.to && is_small
    }
}

impl State {
    /// Asks for what is wanted, if that is possible now; `Some`: it is here.
    fn begin(
        &mut self,
        want: Want,
        seed: Seed,
        journal: &Journal,
        ops: &mut Ops,
    ) -> Option<ReadBack> {
        if want.from < journal.first() {
            // It has gone from the log meanwhile, and never comes.
            self.want = None;
            return None;
        }
        // What is missing is waited for.
        let want = want.before_holes(journal)?;
        match self.ahead.portions.pop_front() {
            Some((portion, None)) if want.takes(&portion) => {
                self.step = Step::Entries(portion);
                return None;
            }
            Some((portion, Some(bytes))) if want.takes(&portion) => {
                if let Ok(back) = portion.gather(&bytes, seed, &mut self.room) {
                    self.want = None;
                    return Some(back);
                }
            }
            _ => {}
        }
        self.ahead = Ahead::default();
        match self.find(want.from, journal)? {
            Found::Slots(place, slots) => {
                let slots = choose(slots, want, place.last);
                self.step = Step::Entries(self.read_entries(place, slots, ops));
            }
            Found::Unread(place) => {
                let op = self.read_slots(place, want.from, ops);
                self.step = Step::Slots { op, place, first: want.from };
            }
        }
        None
    }

    /// Asks for what a machine that replays will want behind this.
    fn read_ahead(&mut self, want: Want, bytes_max: u64, journal: &Journal, ops: &mut Ops) {
        let portion = u64::from(want.bytes_max);
        let bytes_max = bytes_max.min(PORTIONS_AHEAD * portion);
        let mut from =
            self.ahead.portions.back().map_or(want.from, |(portion, _)| portion.last().next());
        while self.ahead.bytes() + portion <= bytes_max && from <= want.to {
            let Some(next) = (Want { from, ..want }).before_holes(journal) else { return };
            match self.find(from, journal) {
                Some(Found::Slots(place, slots)) => {
                    let slots = choose(slots, next, place.last);
                    let portion = self.read_entries(place, slots, ops);
                    from = portion.last().next();
                    self.ahead.portions.push_back((portion, None));
                }
                Some(Found::Unread(place)) if self.ahead.slots.is_none() => {
                    let op = self.read_slots(place, from, ops);
                    self.ahead.slots = Some((op, place, from));
                    return;
                }
                _ => return,
            }
        }
    }

    /// Where an entry lies, unless it is not durable or will be cut away.
    fn find<'a>(&'a self, from: LogIndex, journal: &'a Journal) -> Option<Found<'a>> {
        if let Some(active) = &journal.active
            && active.first <= from
        {
            let last = active.durable().min(journal.durable());
            let place = Place {
                sequence: active.sequence,
                layout: active.layout,
                first: active.first,
                prev_term: active.prev_term,
                last,
                end: last,
            };
            let slots = || &active.slots[(from.0 - active.first.0) as usize..];
            return (from <= last).then(|| Found::Slots(place, slots()));
        }
        let sealed = journal.sealed.partition_point(|sealed| sealed.last.index < from);
        let sealed = journal.sealed.get(sealed).filter(|sealed| sealed.first <= from)?;
        if journal.is_cut_at(sealed.last.index) {
            // It will take entries again: what is read of it now is not what it will be.
            return None;
        }
        let place = Place {
            sequence: sealed.sequence,
            layout: sealed.layout,
            first: sealed.first,
            prev_term: sealed.prev_term,
            end: sealed.last.index,
            last: sealed.last.index.min(journal.durable()),
        };
        if from > place.last {
            return None;
        }
        let known = self.slots.iter().find_map(|slots| slots.from(place.sequence, from));
        Some(known.map_or(Found::Unread(place), |slots| Found::Slots(place, slots)))
    }

    /// Slots that were read. Those of where it was before the last ones are of no use any more.
    fn know(&mut self, slots: Slots) {
        self.slots.truncate(1);
        self.slots.push_front(slots);
    }

    /// The reads that are awaited.
    fn awaited(&self) -> impl Iterator<Item = (OpId, Place)> {
        let step = match &self.step {
            Step::Idle => None,
            Step::Slots { op, place, .. } | Step::Whole { op, place, .. } => Some((*op, *place)),
            Step::Entries(portion) => Some((portion.op, portion.place)),
        };
        let ahead = self.ahead.portions.iter().filter(|(_, content)| content.is_none());
        let ahead = ahead.map(|(portion, _)| (portion.op, portion.place));
        let slots = self.ahead.slots.map(|(op, place, _)| (op, place));
        step.into_iter().chain(ahead).chain(slots)
    }

    /// Reads on through a segment of which this much was read.
    fn read_whole(&mut self, place: Place, image: BytesMut, ops: &mut Ops) {
        let offset = image.len() as u64;
        let len = (place.layout.len - offset).min(WHOLE_READ_BYTES) as u32;
        let op = self.submit(place, offset, len, ops);
        self.step = Step::Whole { op, place, image };
    }

    fn read_slots(&self, place: Place, from: LogIndex, ops: &mut Ops) -> OpId {
        let offset = place.layout.slot_block((from.0 - place.first.0) as u32);
        let count = (place.last.0 - place.first.0) as u32;
        let end = place.layout.slot_block(count) + place.layout.align;
        let len = (end - offset).min(SLOTS_READ_BYTES) as u32;
        self.submit(place, offset, len, ops)
    }

    fn read_entries(&self, place: Place, slots: Vec<Slot>, ops: &mut Ops) -> Portion {
        let (first, last) = (slots[0], slots[slots.len() - 1]);
        let offset = place.layout.block_before(u64::from(first.offset));
        let len = (place.layout.block_after(last.end()) - offset) as u32;
        let op = self.submit(place, offset, len, ops);
        Portion { op, place, slots, offset }
    }

    fn submit(&self, place: Place, offset: u64, len: u32, ops: &mut Ops) -> OpId {
        let request = DiskRequest::Read { file: File::Segment(place.sequence), offset, len };
        ops.submit(Job::ReadBack(self.reader), class_of(self.reader), request)
    }
}

/// Who is in no hurry yields.
const fn class_of(reader: Reader) -> Class {
    if matches!(reader, Reader::Scrub) { Class::Background } else { Class::Serve }
}

/// As many entries as are wanted, at least one. What fills the blocks between them is read as well: entries
/// that came one by one lie a block apart.
fn choose(slots: &[Slot], want: Want, last: LogIndex) -> Vec<Slot> {
    let to = want.to.min(last);
    let begin = slots.first().map_or(0, |slot| u64::from(slot.offset));
    let fits = |slot: &&Slot| {
        let bytes = slot.end() - begin;
        slot.id.index == want.from || (slot.id.index <= to && bytes <= u64::from(want.bytes_max))
    };
    slots.iter().take_while(fits).copied().collect()
}
