//! Holes: entries whose bytes are bad and whose slots tell what they were. A peer that holds the
//! same entry gives it again, and it is written where it was. And the reverse: slots of full segments
//! that are bad and were made anew from their entries.
//!
//! Knows no peers. Invariant: what fills a hole has its index, its term and its digest; and nothing
//! at or above a hole that a restart found is called durable before it is filled. One is filled at a
//! time: two may lie in one block, which is read, completed and written whole. The hard state names it
//! before: were the write to fail at its sync, a restart would read it from the cache and believe it.

use super::{
    ops::{Job, Ops},
    promises::Promises,
};
use crate::{
    disk::segment::{Layout, Slot},
    entry::{Head, Seed},
    file::{Class, DiskRequest, Extent, File},
    marks::Mark,
    types::{LogId, LogIndex, OpId},
};
use bytes::{Bytes, BytesMut};
use std::{collections::VecDeque, ops::Range};

/// What was asked of the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RefillOp {
    /// The blocks that it lies in.
    Read,
    Write,
}

#[derive(Clone, Debug)]
struct Hole {
    slot: Slot,
    sequence: u64,
    layout: Layout,
    /// Nothing at or behind it is called durable before it is filled. Not so if it is found in a
    /// running node, where what was acknowledged is acknowledged, or if a snapshot holds it.
    is_owed: bool,
    /// It was being filled when an earlier life ended: what is read there is written again.
    is_doubted: bool,
    /// The entry, given by a peer and not yet written.
    frame: Option<Bytes>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holes {
    /// Ascending.
    holes: Vec<Hole>,
    /// Blocks of slots that were made anew from their entries, and the segments they are of.
    slots: VecDeque<(u64, Extent)>,
    at_work: Option<Work>,
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

    /// A bad entry of this segment.
    pub(super) fn add(&mut self, slot: Slot, sequence: u64, layout: Layout, is_owed: bool) {
        let at = self.holes.partition_point(|hole| hole.slot.id.index < slot.id.index);
        if self.holes.get(at).is_none_or(|hole| hole.slot.id != slot.id) {
            let is_doubted = false;
            let hole = Hole { slot, sequence, layout, is_owed, is_doubted, frame: None };
            self.holes.insert(at, hole);
        }
    }

    /// An earlier life was filling this one, if it is none that is bad.
    pub(super) fn doubt(&mut self, slot: Slot, sequence: u64, layout: Layout) {
        let at = self.holes.partition_point(|hole| hole.slot.id.index < slot.id.index);
        let is_new = self.holes.get(at).is_none_or(|hole| hole.slot.id != slot.id);
        if is_new && !cfg!(lakebed_break = "believe_what_was_being_refilled") {
            let (is_owed, is_doubted) = (true, true);
            let hole = Hole { slot, sequence, layout, is_owed, is_doubted, frame: None };
            self.holes.insert(at, hole);
        }
    }

    /// The first one that nothing was given for yet.
    ///
    /// Those behind this entry come first: nobody may have the others any more, and nobody here
    /// waits for them.
    pub(super) fn first_wanted(&self, snapshot: LogIndex) -> Option<LogId> {
        let wanted = || self.holes.iter().filter(|hole| !hole.has_to_be_written());
        let behind = wanted().find(|hole| hole.slot.id.index > snapshot);
        behind.or_else(|| wanted().next()).map(|hole| hole.slot.id)
    }

    /// The first one that keeps what lies behind it from being acknowledged.
    pub(super) fn first_owed(&self) -> Option<LogIndex> {
        self.holes.iter().find(|hole| hole.is_owed).map(|hole| hole.slot.id.index)
    }

    /// The first one at or behind `from`.
    pub(super) fn first_from(&self, from: LogIndex) -> Option<LogIndex> {
        let at = self.holes.partition_point(|hole| hole.slot.id.index < from);
        self.holes.get(at).map(|hole| hole.slot.id.index)
    }

    /// The one of this index, and the segment it is of.
    pub(super) fn at(&self, index: LogIndex) -> Option<(&Slot, u64)> {
        let hole = self.holes[self.places(index)].iter().find(|hole| !hole.is_doubted)?;
        Some((&hole.slot, hole.sequence))
    }

    /// Where those of this index are: an append may fill thousands, of many more.
    fn places(&self, index: LogIndex) -> Range<usize> {
        let begin = self.holes.partition_point(|hole| hole.slot.id.index < index);
        let of_it = self.holes[begin..].iter().take_while(|hole| hole.slot.id.index == index);
        begin..begin + of_it.count()
    }

    /// The last one.
    pub(super) fn last(&self) -> Option<LogIndex> {
        self.holes.last().map(|hole| hole.slot.id.index)
    }

    /// The last one at or before `index`.
    pub(super) fn last_through(&self, index: LogIndex) -> Option<LogIndex> {
        let behind = self.holes.partition_point(|hole| hole.slot.id.index <= index);
        Some(self.holes[..behind].last()?.slot.id.index)
    }

    /// A peer's copy of an entry. True if it is one that is missing here.
    pub(super) fn give(&mut self, id: LogId, digest: u32, frame: Bytes) -> bool {
        let is_it = |hole: &&mut Hole| {
            let is_same =
                hole.slot.digest == digest && hole.slot.total_bytes as usize == frame.len();
            hole.slot.id == id && is_same && hole.frame.is_none()
        };
        let places = self.places(id.index);
        let Some(hole) = self.holes[places].iter_mut().find(is_it) else { return false };
        hole.frame = Some(frame);
        true
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
        let doubted = self.holes.iter().find(|hole| hole.is_doubted);
        doubted.or_else(|| self.holes.iter().find(|hole| hole.frame.is_some()))
    }

    /// The hard state is to name the next one, or none; true if it does. What is owed by nobody is
    /// acknowledged as it is.
    fn name_next(&self, promises: &mut Promises) -> bool {
        let is_named = |hole: &&Hole| hole.is_owed && !cfg!(lakebed_break = "name_no_refill");
        let next = self.next().filter(is_named);
        let filling = next.map_or(LogIndex(0), |hole| hole.slot.id.index);
        if promises.wanted().filling != filling {
            promises.want(|hard| hard.filling = filling);
        }
        next.is_none() || promises.durable().filling == filling
    }

    /// The blocks around it were read: with the entry in its place they are written.
    pub(super) fn on_read(&mut self, op: OpId, blocks: &Bytes, seed: Seed, ops: &mut Ops) {
        let Some(work) = self.at_work.take_if(|work| work.op == op) else { return };
        let Some(hole) = self.holes.iter_mut().find(|hole| hole.is_at(work)) else { return };
        if std::mem::take(&mut hole.is_doubted) && hole.frame.is_none() {
            // Else it is one like any other.
            hole.frame = hole.found_in(blocks, seed);
        }
        let Some(frame) = &hole.frame else { return };
        let (offset, end) = hole.blocks();
        let mut image = BytesMut::from(&blocks[..]);
        image.resize((end - offset) as usize, 0);
        let at = (u64::from(hole.slot.offset) - offset) as usize;
        image[at..at + frame.len()].copy_from_slice(frame);
        let (file, at) = (File::Segment(hole.sequence), Extent::new(offset, image.freeze()));
        let request = DiskRequest::Write { file, at, and: None, durable: true };
        let op = ops.submit(Job::Refill(RefillOp::Write), Class::Commit, request);
        self.at_work = Some(Work { op, ..work });
    }

    /// An entry is there again.
    pub(super) fn on_written(&mut self, op: OpId, ops: &mut Ops) {
        let Some(work) = self.at_work.take_if(|work| work.op == op) else { return };
        let is_there = |hole: &mut Hole| hole.is_at(work);
        self.holes.extract_if(.., is_there).for_each(|_| ops.met(Mark::HoleFilled));
    }

    /// Whether something is on its way to or from the disk.
    pub(super) const fn is_at_work(&self) -> bool {
        self.at_work.is_some()
    }

    /// Whether this segment must not be removed yet.
    pub(super) fn uses(&self, sequence: u64) -> bool {
        self.at_work.is_some_and(|work| work.sequence == sequence)
    }

    /// The log is cut: what lay there is nothing any more.
    pub(super) fn forget_from(&mut self, from: LogIndex) {
        self.holes.retain(|hole| hole.slot.id.index < from);
        self.slots.clear();
    }

    /// What lies before `first` is not in the log any more.
    pub(super) fn forget_before(&mut self, first: LogIndex) {
        self.holes.retain(|hole| hole.slot.id.index >= first);
        // Which segments stay is not known here, and whoever reads a bad slot has it made again.
        self.slots.clear();
    }

    /// Another log takes the place of this one.
    pub(super) fn forget_all(&mut self) {
        self.slots.clear();
        self.holes.clear();
    }
}

impl Hole {
    /// The blocks that the entry lies in.
    const fn blocks(&self) -> (u64, u64) {
        let start = self.layout.block_before(self.slot.offset as u64);
        (start, self.layout.block_after(self.slot.end()))
    }

    const fn has_to_be_written(&self) -> bool {
        self.frame.is_some() || self.is_doubted
    }

    /// What its blocks hold in its place, if that is the entry.
    fn found_in(&self, blocks: &Bytes, seed: Seed) -> Option<Bytes> {
        let at = u64::from(self.slot.offset) - self.blocks().0;
        let (at, end) = (at as usize, at as usize + self.slot.total_bytes as usize);
        let head = Head::parse_whole(blocks.get(at..end)?, seed).ok()?;
        self.slot.agrees(&head).then(|| blocks.slice(at..end))
    }

    fn is_at(&self, work: Work) -> bool {
        (self.slot.id.index, self.sequence) == (work.index, work.sequence)
    }
}
