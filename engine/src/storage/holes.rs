//! Holes: entries whose bytes are bad and whose slots tell what they were. A peer that holds the
//! same entry gives it again, and it is written where it was. And the reverse: slots of full segments
//! that are bad and were made anew from their entries.
//!
//! Knows no peers. Invariant: what fills a hole has its index, its term and its digest; and nothing
//! at or above a hole that a restart found is called durable before it is filled. One is filled at a
//! time: two may lie in one block, which is read, completed and written whole. The hard state names it
//! before: were the write to fail at its sync, a restart would read it from the cache and believe it.

mod copies;

use self::copies::Copies;
use super::{
    ops::{Job, Ops},
    promises::{Promises, Version},
};
use crate::{
    disk::segment::{Layout, Slot},
    entry::{Head, Seed},
    file::{Class, DiskRequest, Extent, File},
    marks::Mark,
    types::{LogId, LogIndex, OpId},
};
use bytes::{Bytes, BytesMut};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Bound::{Excluded, Unbounded},
};

/// What was asked of the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RefillOp {
    /// The blocks that it lies in.
    Read,
    Write,
}

#[derive(Clone, Copy, Debug)]
struct Hole {
    slot: Slot,
    sequence: u64,
    layout: Layout,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holes {
    /// All of them: a log has one entry of each index.
    holes: BTreeMap<LogIndex, Hole>,
    /// Those that nothing was given for yet, but for the doubted one.
    wanted: BTreeSet<LogIndex>,
    /// Nothing at or behind them is called durable before they are filled. Not so if one is found in a
    /// running node, where what was acknowledged is acknowledged, or if a snapshot holds it.
    owed: BTreeSet<LogIndex>,
    /// It was being filled when an earlier life ended: what is read there is written again.
    doubted: Option<LogIndex>,
    /// What peers gave and is not yet written.
    copies: Copies,
    /// How many of them peers gave, and are written.
    refilled: u64,
    /// Blocks of slots that were made anew from their entries, and the segments they are of.
    slots: VecDeque<(u64, Extent)>,
    at_work: Option<Work>,
    /// The update of the hard state that names the one to be filled next, or none.
    named_by: Version,
}

#[derive(Clone, Copy, Debug)]
struct Work {
    op: OpId,
    /// Zero: slots are written.
    index: LogIndex,
    sequence: u64,
}

impl Holes {
    /// Whether nothing is missing, and nothing is being mended.
    pub(super) fn is_empty(&self) -> bool {
        self.holes.is_empty() && self.slots.is_empty() && self.at_work.is_none()
    }

    /// How much a peer gives at a time.
    pub(super) const fn tune(&mut self, append_bytes_max: u32) {
        self.copies.tune(append_bytes_max);
    }

    /// What copies cost that are not yet written.
    pub(super) const fn memory_bytes(&self) -> u64 {
        self.copies.bytes()
    }

    /// How many entries peers gave again in this life, and how many are missing yet.
    pub(super) fn count(&self) -> (u64, u64) {
        (self.refilled, self.holes.len() as u64)
    }

    /// A bad entry of this segment.
    pub(super) fn add(&mut self, slot: Slot, sequence: u64, layout: Layout, is_owed: bool) {
        if self.insert(Hole { slot, sequence, layout }) {
            self.wanted.insert(slot.id.index);
            if is_owed {
                self.owed.insert(slot.id.index);
            }
        }
    }

    /// An earlier life was filling this one, if it is none that is bad.
    pub(super) fn doubt(&mut self, slot: Slot, sequence: u64, layout: Layout) {
        if !cfg!(lakebed_break = "believe_what_was_being_refilled")
            && self.insert(Hole { slot, sequence, layout })
        {
            self.owed.insert(slot.id.index);
            self.doubted = Some(slot.id.index);
        }
    }

    /// False if it is known.
    fn insert(&mut self, hole: Hole) -> bool {
        let known = self.holes.insert(hole.slot.id.index, hole);
        let is_it = known.is_none_or(|known| known.slot.id == hole.slot.id);
        assert!(is_it, "two entries of one index: {known:?}, {hole:?}");
        known.is_none()
    }

    /// The first one that nothing was given for yet.
    ///
    /// Those behind this entry come first: nobody may have the others any more, and nobody here
    /// waits for them.
    pub(super) fn first_wanted(&self, snapshot: LogIndex) -> Option<LogId> {
        let behind = self.wanted.range((Excluded(snapshot), Unbounded)).next();
        let wanted = behind.or_else(|| self.wanted.first())?;
        Some(self.holes[wanted].slot.id)
    }

    /// Whether no copy of this one, or not many behind it, would be taken before others are written:
    /// nobody is asked until then.
    pub(super) fn is_crowded(&self, wanted: LogIndex) -> bool {
        self.holes
            .get(&wanted)
            .is_some_and(|hole| !self.copies.have_room_from(hole.slot.total_bytes))
    }

    /// The first one that keeps what lies behind it from being acknowledged.
    pub(super) fn first_owed(&self) -> Option<LogIndex> {
        self.owed.first().copied()
    }

    /// The first one at or behind `from`.
    pub(super) fn first_from(&self, from: LogIndex) -> Option<LogIndex> {
        self.holes.range(from..).next().map(|(index, _)| *index)
    }

    /// The one of this index, and the segment it is of.
    pub(super) fn at(&self, index: LogIndex) -> Option<(&Slot, u64)> {
        let hole = self.holes.get(&index).filter(|_| self.doubted != Some(index))?;
        Some((&hole.slot, hole.sequence))
    }

    /// The last one.
    pub(super) fn last(&self) -> Option<LogIndex> {
        self.holes.last_key_value().map(|(index, _)| *index)
    }

    /// The last one at or before `index`.
    pub(super) fn last_through(&self, index: LogIndex) -> Option<LogIndex> {
        self.holes.range(..=index).next_back().map(|(index, _)| *index)
    }

    /// A peer's copy of an entry. True if it is one that is missing here, and taken: what there is no room
    /// for stays wanted.
    pub(super) fn give(&mut self, id: LogId, digest: u32, frame: &Bytes) -> bool {
        let is_it = |hole: &&Hole| {
            let Slot { id: lost, digest: of, total_bytes, .. } = hole.slot;
            (lost, of, total_bytes as usize) == (id, digest, frame.len())
        };
        let is_taken = self.holes.get(&id.index).filter(is_it).is_some()
            && self.copies.take_in(id.index, frame);
        if is_taken {
            self.wanted.remove(&id.index);
        }
        is_taken
    }

    /// Slots of a full segment are to be written again.
    pub(super) fn mend_slots(&mut self, sequence: u64, blocks: Vec<Extent>) {
        self.slots.retain(|(other, _)| *other != sequence);
        self.slots.extend(blocks.into_iter().map(|block| (sequence, block)));
    }

    /// Begins to write what was given, if nothing is being written.
    pub(super) fn go_on(&mut self, promises: &mut Promises, ops: &mut Ops) {
        if self.at_work.is_some() {
            return;
        }
        let is_named = self.name_next(promises);
        if let Some((sequence, at)) = self.slots.pop_front() {
            let file = File::Segment(sequence);
            let request = DiskRequest::Write { file, at, and: None, durable: true };
            let op = ops.submit(Job::Refill(RefillOp::Write), Class::Background, request);
            self.at_work = Some(Work { op, index: LogIndex(0), sequence });
            return;
        }
        let Some(hole) = self.next().filter(|_| is_named) else { return };
        let (offset, end) = hole.blocks();
        let (file, len) = (File::Segment(hole.sequence), (end - offset) as u32);
        let request = DiskRequest::Read { file, offset, len };
        let op = ops.submit(Job::Refill(RefillOp::Read), Class::Serve, request);
        self.at_work = Some(Work { op, index: hole.slot.id.index, sequence: hole.sequence });
    }

    /// The next one to be written. One that is doubted stays named in the hard state until it is
    /// written, so it comes before others.
    fn next(&self) -> Option<&Hole> {
        self.doubted.or_else(|| self.copies.first()).map(|index| &self.holes[&index])
    }

    /// The hard state is to name the next one, or none; true if it does. Those that a running node has found, too:
    /// a restart would owe what it believes of them to the cache.
    ///
    /// What both copies hold is not enough: an update that names none may be on its way to the first of them,
    /// and would count after a crash.
    fn name_next(&mut self, promises: &mut Promises) -> bool {
        let next = self.next().map(|hole| hole.slot.id.index);
        let next = next.filter(|_| !cfg!(lakebed_break = "name_no_refill"));
        let filling = next.unwrap_or(LogIndex(0));
        if promises.wanted().filling != filling {
            self.named_by = promises.want(|hard| hard.filling = filling);
        }
        next.is_none() || promises.is_durable(self.named_by)
    }

    /// The blocks around it were read: with the entry in its place they are written.
    pub(super) fn on_read(&mut self, op: OpId, blocks: &Bytes, seed: Seed, ops: &mut Ops) {
        let Some(work) = self.at_work.take_if(|work| work.op == op) else { return };
        let Some(hole) = self.of(work) else { return };
        let given = self.copies.get(work.index).cloned();
        let Some(frame) = given.or_else(|| hole.found_in(blocks, seed)) else {
            // It was doubted, and is one like any other.
            self.doubted = None;
            self.wanted.insert(work.index);
            return;
        };
        let (offset, end) = hole.blocks();
        let mut image = BytesMut::from(&blocks[..]);
        image.resize((end - offset) as usize, 0);
        let at = (u64::from(hole.slot.offset) - offset) as usize;
        image[at..at + frame.len()].copy_from_slice(&frame);
        let (file, at) = (File::Segment(hole.sequence), Extent::new(offset, image.freeze()));
        let request = DiskRequest::Write { file, at, and: None, durable: true };
        let op = ops.submit(Job::Refill(RefillOp::Write), Class::Commit, request);
        self.at_work = Some(Work { op, ..work });
    }

    /// An entry is there again.
    pub(super) fn on_written(&mut self, op: OpId, ops: &mut Ops) {
        let Some(work) = self.at_work.take_if(|work| work.op == op) else { return };
        if self.of(work).is_some() {
            self.holes.remove(&work.index);
            self.owed.remove(&work.index);
            self.doubted.take_if(|index| *index == work.index);
            self.refilled += u64::from(self.copies.get(work.index).is_some());
            self.copies.drop_at(work.index);
            ops.met(Mark::HoleFilled);
        }
    }

    /// What is worked at, if it was not forgotten meanwhile.
    fn of(&self, work: Work) -> Option<Hole> {
        self.holes.get(&work.index).filter(|hole| hole.sequence == work.sequence).copied()
    }

    /// Whether something is on its way to or from the disk.
    pub(super) const fn is_at_work(&self) -> bool {
        self.at_work.is_some()
    }

    /// Whether this segment must not be removed yet.
    pub(super) fn uses(&self, sequence: u64) -> bool {
        self.at_work.is_some_and(|work| work.sequence == sequence)
    }

    /// A snapshot holds everything up to here.
    pub(super) fn excuse_through(&mut self, index: LogIndex) {
        self.owed = self.owed.split_off(&index.next());
    }

    /// The log is cut: what lay there is nothing any more.
    pub(super) fn forget_from(&mut self, from: LogIndex) {
        self.keep(|index| index < from);
    }

    /// What lies before `first` is not in the log any more.
    pub(super) fn forget_before(&mut self, first: LogIndex) {
        // Which segments stay is not known here, and whoever reads a bad slot has it made again.
        self.keep(|index| index >= first);
    }

    /// Another log takes the place of this one.
    pub(super) fn forget_all(&mut self) {
        self.keep(|_| false);
    }

    /// Forgets the others, and all slots.
    fn keep(&mut self, stays: impl Fn(LogIndex) -> bool) {
        self.holes.retain(|index, _| stays(*index));
        self.wanted.retain(|index| stays(*index));
        self.owed.retain(|index| stays(*index));
        self.doubted = self.doubted.filter(|index| stays(*index));
        self.copies.retain(stays);
        self.slots.clear();
    }
}

#[cfg(test)]
impl Holes {
    pub(super) fn owes(&self, index: LogIndex) -> bool {
        self.owed.contains(&index)
    }

    /// Each is in one state, and everything that is kept beside them is of them.
    pub(super) fn check(&self) {
        let is_wanted =
            |index: &LogIndex| self.copies.get(*index).is_none() && self.doubted != Some(*index);
        assert!(self.wanted.iter().eq(self.holes.keys().filter(|index| is_wanted(index))));
        let beside = self.owed.iter().copied().chain(self.doubted).chain(self.copies.indexes());
        let strangers: Vec<_> = beside.filter(|index| !self.holes.contains_key(index)).collect();
        assert_eq!(strangers, []);
        self.copies.check();
    }
}

impl Hole {
    /// The blocks that the entry lies in.
    const fn blocks(&self) -> (u64, u64) {
        let start = self.layout.block_before(self.slot.offset as u64);
        (start, self.layout.block_after(self.slot.end()))
    }

    /// What its blocks hold in its place, if that is the entry.
    fn found_in(&self, blocks: &Bytes, seed: Seed) -> Option<Bytes> {
        let at = u64::from(self.slot.offset) - self.blocks().0;
        let (at, end) = (at as usize, at as usize + self.slot.total_bytes as usize);
        let head = Head::parse_whole(blocks.get(at..end)?, seed).ok()?;
        self.slot.agrees(&head).then(|| blocks.slice(at..end))
    }
}
