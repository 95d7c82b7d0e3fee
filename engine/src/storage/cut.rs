//! The cut: conflict truncation and the repair of a torn tail are one procedure.
//!
//! Drain what touches the range; mark it in the hard state with a new epoch; clear slots and scrub
//! entries; unmark. Only then anything at or above the cut is written or acknowledged again. A
//! restart that finds the mark clears again. What lies at or above `from` with a smaller epoch is
//! dead from the mark on: neither entry, nor witness, nor floor.

use super::{
    Identity,
    journal::{Active, Journal, Sealed},
    lost::Lost,
    ops::{Job, Ops},
    promises::{Promises, Version},
    scan::{Damage, Full, Tail},
    terms::Terms,
};
use crate::{
    disk::{
        FileSeed,
        hard_state::Cut,
        segment::{Layout, SLOT_BYTES, Slot},
    },
    entry::Seed,
    event::Completion,
    file::{Class, DiskRequest, Extent, File},
    marks::Mark,
    types::{GroupId, LogId, LogIndex},
};
use bytes::{Bytes, BytesMut};

/// The most bytes cleared by one write.
const CLEAR_BYTES_MAX: usize = 1 << 20;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CutOp {
    /// The slots of a full segment that becomes the active one again.
    ReadSlots,
    /// All of it, for a slot is bad.
    ReadWhole,
    /// The block in which the last kept entry ends.
    ReadBlock,
    /// A write of zeros, or the removal of a segment.
    Clear,
    /// The syncs behind them.
    Sync,
}

/// A cut under way.
#[derive(Clone, Debug)]
pub(crate) struct Cutting {
    pub(crate) from: LogIndex,
    step: Step,
    /// Operations of this step in flight.
    outstanding: u32,
    /// A deeper cut that came meanwhile.
    next: Option<LogIndex>,
}

#[derive(Clone, Debug)]
enum Step {
    Drain,
    Mark(Version),
    /// What a restart read already is not read again.
    MarkThen(Version, Clearing),
    ReadSlots(Target),
    ReadWhole(Target),
    ReadBlock(Target),
    Clear,
    Sync,
    Unmark(Version),
}

/// The segment that the cut goes through, and what lay in it.
#[derive(Clone, Debug)]
struct Target {
    /// Bytes of entries to scrub end here.
    scrub_to: u64,
    /// Slots to clear end here.
    slots_to: u32,
    was_sealed: bool,
}

/// What to write so that nothing at or above the cut is left.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clearing {
    pub(crate) extents: Vec<Extent>,
    pub(crate) doomed: Vec<File>,
}

impl Journal {
    /// Cuts the log: the last entry is the one before `from`.
    pub(crate) fn truncate(&mut self, from: LogIndex, last: LogId) {
        assert!(from <= self.last.index, "cutting {from}, the log ends at {}", self.last);
        assert_eq!(last.index, from.previous(), "the entry before the cut is the last one");
        self.forget_pending(from);
        self.holes.forget_from(from);
        self.last = last;
        self.terms.cut(from);
        let submitted = self.submitted();
        if let Some(cut) = &mut self.cut {
            if from < cut.from {
                let next = cut.next.get_or_insert(from);
                *next = (*next).min(from);
                self.durable = self.durable.min(from.previous());
            }
        } else if from <= submitted {
            self.durable = self.durable.min(from.previous());
            self.cut = Some(Cutting { from, step: Step::Drain, outstanding: 0, next: None });
        }
    }

    /// Whether this entry is being cut off.
    pub(super) fn is_cut_at(&self, index: LogIndex) -> bool {
        self.cut.as_ref().is_some_and(|cut| cut.next.unwrap_or(cut.from) <= index)
    }

    /// The last entry that was ever handed to the disk.
    fn submitted(&self) -> LogIndex {
        let sealed = self.sealed.back().map_or(LogIndex(0), |sealed| sealed.last.index);
        self.active.as_ref().map_or(sealed, |active| active.last().max(sealed))
    }

    /// Cuts a tail that a restart found torn. Nothing is in flight; what to clear is known.
    pub(crate) fn cut_at_restart(
        &mut self,
        from: LogIndex,
        proven: LogIndex,
        clearing: Clearing,
        promises: &mut Promises,
    ) {
        let version = self.mark(from, proven, promises);
        let step = Step::MarkThen(version, clearing);
        self.cut = Some(Cutting { from, step, outstanding: 0, next: None });
    }

    /// Clears again what a cut before the crash marked.
    pub(crate) fn repeat_cut(&mut self, from: LogIndex, clearing: Clearing, ops: &mut Ops) {
        let mut cut = Cutting { from, step: Step::Clear, outstanding: 0, next: None };
        let file = self.active.as_ref().map(|active| File::Segment(active.sequence));
        cut.clear(file, clearing, ops);
        self.cut = Some(cut);
    }

    /// Whether entries are to be cut that the hard state does not call dead yet.
    pub(super) fn has_unmarked_cut(&self) -> bool {
        let is_unmarked = |cut: &Cutting| matches!(cut.step, Step::Drain) || cut.next.is_some();
        self.cut.as_ref().is_some_and(is_unmarked)
    }

    fn mark(&mut self, from: LogIndex, known: LogIndex, promises: &mut Promises) -> Version {
        let target = self.target_of(from);
        let version = promises.want(|hard| {
            hard.write_epoch += 1;
            hard.cut = Cut { from, epoch: hard.write_epoch };
            hard.cutting = true;
            // The slot about to be cleared may hold the only floor.
            hard.durable_hint = hard.durable_hint.max(known).min(from.previous());
            hard.newest_segment = target;
            if hard.newest.at.index >= from {
                hard.newest = hard.previous.clone();
            }
        });
        self.epoch = promises.wanted().write_epoch;
        version
    }

    /// The segment in which the log ends after a cut.
    fn target_of(&self, from: LogIndex) -> u64 {
        let active = self.active.as_ref().filter(|active| active.first <= from);
        let sealed = || self.sealed.iter().rev().find(|sealed| sealed.first <= from);
        active
            .map(|active| active.sequence)
            .or_else(|| sealed().map(|sealed| sealed.sequence))
            .expect("a cut goes through the log")
    }

    pub(super) fn go_on_cutting(&mut self, promises: &mut Promises, ops: &mut Ops) {
        let Some(mut cut) = self.cut.take() else { return };
        loop {
            match cut.step {
                Step::Drain if !self.is_drained() => {
                    // What is kept must have both witnesses before the cut hides the difference.
                    ops.met(Mark::CutWaitedForWrites);
                    self.write_slots(ops);
                    break;
                }
                Step::Drain => {
                    cut.step = Step::Mark(self.mark(cut.from, self.durable, promises));
                }
                Step::Mark(version) | Step::MarkThen(version, _)
                    if !promises.is_durable(version)
                        && !cfg!(lakebed_break = "clear_before_the_mark") =>
                {
                    break;
                }
                Step::Mark(_) => {
                    self.reopen(&mut cut, ops);
                    break;
                }
                Step::MarkThen(_, clearing) => {
                    let file = self.active.as_ref().map(|active| File::Segment(active.sequence));
                    cut.step = Step::Clear;
                    cut.clear(file, clearing, ops);
                }
                Step::ReadSlots(_) | Step::ReadWhole(_) | Step::ReadBlock(_) => break,
                Step::Clear | Step::Sync if cut.outstanding > 0 => break,
                Step::Clear => {
                    cut.sync(self.active.as_ref().map(|active| active.sequence), ops);
                    break;
                }
                Step::Sync => cut.step = Step::Unmark(promises.want(|hard| hard.cutting = false)),
                Step::Unmark(version) if !promises.is_durable(version) => break,
                Step::Unmark(_) => {
                    let Some(from) = cut.next else { return };
                    ops.met(Mark::CutDeepened);
                    cut = Cutting { from, step: Step::Drain, outstanding: 0, next: None };
                }
            }
        }
        self.cut = Some(cut);
    }

    pub(super) fn is_drained(&self) -> bool {
        self.is_roll_at_rest()
            && !self.holes.is_at_work()
            && self.active.as_ref().is_none_or(Active::is_idle)
    }

    /// Makes the segment that the cut goes through the last one and finds out what it holds there.
    fn reopen(&mut self, cut: &mut Cutting, ops: &mut Ops) {
        self.roll = super::roll::Roll::Idle;
        let mut doomed = Vec::new();
        while self.active.as_ref().is_some_and(|active| active.first > cut.from) {
            doomed.extend(self.active.take().map(|active| File::Segment(active.sequence)));
        }
        while let Some(sealed) = self.sealed.pop_back_if(|sealed| sealed.first > cut.from) {
            doomed.push(File::Segment(sealed.sequence));
        }
        for file in doomed {
            ops.met(Mark::CutTookSegments);
            cut.submit(CutOp::Clear, DiskRequest::Remove { file }, ops);
        }
        if let Some(active) = &self.active {
            let slots_to = active.slots.len() as u32;
            let target = Target { scrub_to: active.write_at, slots_to, was_sealed: false };
            return self.shorten(cut, target, ops);
        }
        ops.met(Mark::CutReopenedSegment);
        let sealed = self.sealed.pop_back().expect("a cut goes through the log");
        let slots_to = (sealed.last.index.0 + 1 - sealed.first.0) as u32;
        let scrub_to = sealed.layout.block_after(sealed.data_bytes);
        cut.step = Step::ReadSlots(Target { scrub_to, slots_to, was_sealed: true });
        let len = sealed.layout.slot_block(slots_to - 1) + sealed.layout.align
            - sealed.layout.slot_block(0);
        cut.submit(
            CutOp::ReadSlots,
            DiskRequest::Read {
                file: File::Segment(sealed.sequence),
                offset: sealed.layout.slot_block(0),
                len: len as u32,
            },
            ops,
        );
        self.active = Some(emptied(&sealed, self.identity.group));
    }

    /// Forgets the slots at and above the cut, and reads the block that the last kept entry ends in.
    fn shorten(&mut self, cut: &mut Cutting, target: Target, ops: &mut Ops) {
        let group = self.identity.group;
        let active = self.active.as_mut().expect("the cut reopened a segment");
        let kept = (cut.from.0 - active.first.0) as usize;
        let mut slots = std::mem::take(&mut active.slots);
        slots.truncate(kept);
        let Active { sequence, layout, first, prev_term, window_bytes, last_time, .. } = *active;
        *active = Active::new(sequence, layout, first, prev_term, window_bytes, slots, group);
        active.last_time = last_time;
        let block = layout.block_before(active.end());
        if block == active.end() {
            return self.clear_target(cut, &target, Bytes::new(), ops);
        }
        ops.met(Mark::CutInsideBlock);
        cut.step = Step::ReadBlock(target);
        let file = File::Segment(sequence);
        let request = DiskRequest::Read { file, offset: block, len: layout.align as u32 };
        cut.submit(CutOp::ReadBlock, request, ops);
    }

    fn clear_target(&self, cut: &mut Cutting, target: &Target, block: Bytes, ops: &mut Ops) {
        let active = self.active.as_ref().expect("the cut reopened a segment");
        let mut extents = Vec::new();
        clear_slots(&mut extents, active, target.slots_to, self.identity.group);
        scrub(&mut extents, &active.layout, active.end(), target.scrub_to, &block);
        if target.was_sealed {
            let bytes = BytesMut::zeroed(active.layout.align as usize).freeze();
            extents.push(Extent::new(active.layout.end_offset(), bytes));
        }
        cut.step = Step::Clear;
        let clearing = Clearing { extents, doomed: Vec::new() };
        cut.clear(Some(File::Segment(active.sequence)), clearing, ops);
    }

    pub(crate) fn on_cut(&mut self, op: CutOp, completion: Completion, ops: &mut Ops) {
        let mut cut = self.cut.take().expect("a cut was under way");
        cut.outstanding -= 1;
        match (op, completion, &cut.step) {
            (CutOp::ReadSlots, Completion::Read(bytes), Step::ReadSlots(target)) => {
                let target = target.clone();
                if self.take_slots(&cut, &bytes) {
                    self.shorten(&mut cut, target, ops);
                } else {
                    self.read_whole(&mut cut, target, ops);
                }
            }
            (CutOp::ReadWhole, Completion::Read(image), Step::ReadWhole(target)) => {
                let target = target.clone();
                self.make_slots_anew(&cut, &image, ops);
                if self.lost.is_none() {
                    self.shorten(&mut cut, target, ops);
                }
            }
            (CutOp::ReadBlock, Completion::Read(bytes), Step::ReadBlock(target)) => {
                let target = target.clone();
                self.look_for_loss(&bytes);
                if self.lost.is_none() {
                    self.clear_target(&mut cut, &target, bytes, ops);
                }
            }
            _ => {}
        }
        self.cut = Some(cut);
    }

    /// A file that was cut off from outside may end before the last kept entry does, and all that lay
    /// behind is gone.
    fn look_for_loss(&mut self, block: &[u8]) {
        let active = self.active.as_ref().expect("the cut reopened a segment");
        let file_end = active.layout.block_before(active.end()) + block.len() as u64;
        if let Some(kept) = active.slots.last().filter(|slot| file_end < slot.end()) {
            let (file, expected) = (File::Segment(active.sequence), format!("entry {}", kept.id));
            self.lost = Some(Lost { file, offset: file_end, expected });
        }
    }

    /// The slots of a full segment, up to the cut: what its end record vouched for. False if one
    /// of them is bad.
    fn take_slots(&mut self, cut: &Cutting, bytes: &[u8]) -> bool {
        let terms = cut.behind(&self.terms);
        let active = self.active.as_mut().expect("the cut reopened a segment");
        let seed = FileSeed::new(self.identity.group, active.sequence);
        let base = active.layout.slot_block(0);
        for n in 0..(cut.from.0 - active.first.0) as u32 {
            let at = (active.layout.slot_offset(n) - base) as usize;
            let index = LogIndex(active.first.0 + u64::from(n));
            let slot = bytes.get(at..).and_then(|bytes| Slot::decode(bytes, seed, index));
            let is_ours = |slot: &Slot| terms.is_none_or(|terms| terms.hold(slot.id));
            let Some(slot) = slot.filter(is_ours) else {
                active.slots.clear();
                return false;
            };
            active.slots.push(slot);
        }
        true
    }

    /// Where a slot is bad the entries tell what it said.
    fn read_whole(&self, cut: &mut Cutting, target: Target, ops: &mut Ops) {
        let active = self.active.as_ref().expect("the cut reopened a segment");
        let (file, len) = (File::Segment(active.sequence), active.layout.len as u32);
        cut.step = Step::ReadWhole(target);
        cut.submit(CutOp::ReadWhole, DiskRequest::Read { file, offset: 0, len }, ops);
    }

    /// In memory: the disk has them again when a restart or a reader comes upon them.
    fn make_slots_anew(&mut self, cut: &Cutting, image: &[u8], ops: &mut Ops) {
        let terms = cut.behind(&self.terms);
        let Identity { cluster, group, .. } = self.identity;
        let active = self.active.as_mut().expect("the cut reopened a segment");
        let Active { sequence, layout, first, prev_term, .. } = *active;
        let full = Full { sequence, layout, first, prev_term, last: cut.from.previous(), terms };
        let scanned = full.scan(image, Seed::new(cluster, group), group, self.epoch);
        match scanned.tail {
            Tail::Unknown(Damage { offset, expected, .. }) => {
                self.lost = Some(Lost { file: File::Segment(sequence), offset, expected });
            }
            Tail::End | Tail::Damaged(_) => {
                ops.met(Mark::SlotsMadeAnew);
                active.slots = scanned.slots;
            }
        }
    }
}

fn emptied(sealed: &Sealed, group: GroupId) -> Active {
    let Sealed { sequence, layout, first, prev_term, window_bytes, last_time, .. } = *sealed;
    let slots = Vec::new();
    let mut active = Active::new(sequence, layout, first, prev_term, window_bytes, slots, group);
    active.last_time = last_time;
    active
}

impl Cutting {
    /// The terms of what the disk holds below the cut. Not known where another one follows: the log has gone on
    /// from that.
    fn behind<'a>(&self, terms: &'a Terms) -> Option<&'a Terms> {
        self.next.is_none().then_some(terms)
    }

    /// The lowest index that this cut, or the one after it, takes away.
    pub(super) fn lowest(&self) -> LogIndex {
        self.next.map_or(self.from, |next| next.min(self.from))
    }

    fn submit(&mut self, op: CutOp, request: DiskRequest, ops: &mut Ops) {
        self.outstanding += 1;
        ops.submit(Job::Cut(op), Class::Commit, request);
    }

    fn clear(&mut self, file: Option<File>, clearing: Clearing, ops: &mut Ops) {
        for file in clearing.doomed {
            self.submit(CutOp::Clear, DiskRequest::Remove { file }, ops);
        }
        for at in clearing.extents {
            let file = file.expect("what is cleared lies in a segment");
            self.submit(
                CutOp::Clear,
                DiskRequest::Write { file, at, and: None, durable: false },
                ops,
            );
        }
    }

    fn sync(&mut self, sequence: Option<u64>, ops: &mut Ops) {
        self.step = Step::Sync;
        if let Some(sequence) = sequence {
            self.submit(CutOp::Sync, DiskRequest::Sync { file: File::Segment(sequence) }, ops);
        }
        self.submit(CutOp::Sync, DiskRequest::SyncDirectory, ops);
    }
}

/// Slot blocks from the first cleared slot on, the kept ones of that block as they were.
pub(super) fn clear_slots(
    extents: &mut Vec<Extent>,
    active: &Active,
    slots_to: u32,
    group: GroupId,
) {
    let (layout, kept) = (&active.layout, active.slots.len() as u32);
    if slots_to <= kept {
        return;
    }
    let first = layout.slot_block_first(kept);
    let (start, end) = (layout.slot_block(kept), layout.slot_block(slots_to - 1) + layout.align);
    let mut image = BytesMut::zeroed((end - start) as usize);
    let seed = FileSeed::new(group, active.sequence);
    for n in first..kept {
        let at = (layout.slot_offset(n) - start) as usize;
        image[at..at + SLOT_BYTES].copy_from_slice(&active.slots[n as usize].encode(seed));
    }
    push_chunks(extents, start, image.freeze());
}

/// Zeros from `end`, where the last kept entry ends, to `to`; `block` is what its last block holds.
pub(super) fn scrub(extents: &mut Vec<Extent>, layout: &Layout, end: u64, to: u64, block: &[u8]) {
    let start = layout.block_before(end);
    if to <= start {
        return;
    }
    let mut image = BytesMut::zeroed((to - start) as usize);
    let kept = (end - start) as usize;
    image[..kept].copy_from_slice(&block[..kept]);
    push_chunks(extents, start, image.freeze());
}

pub(super) fn push_chunks(extents: &mut Vec<Extent>, mut offset: u64, mut bytes: Bytes) {
    while !bytes.is_empty() {
        let chunk = bytes.split_to(bytes.len().min(CLEAR_BYTES_MAX));
        let next = offset + chunk.len() as u64;
        extents.push(Extent::new(offset, chunk));
        offset = next;
    }
}
