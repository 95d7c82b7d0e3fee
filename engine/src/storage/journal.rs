//! The log on its way to disk: entries gather, are written with their slots, and become durable.
//!
//! Two lanes per segment. Entries go out in writes of whole blocks, several in flight, none sharing
//! a block. Slots go out as images of their blocks, one in flight: slots whose entries were written
//! meanwhile join the next image. An entry is durable when its write and an image with its slot
//! both are, and all entries before it.
//!
//! Invariant: nothing of term t is written before a hard state of at least t is durable, and the
//! first write to a segment follows the last one to the segment before it.

mod batch;

use super::{
    Identity,
    cut::Cutting,
    holes::Holes,
    lost::Lost,
    ops::Ops,
    promises::Promises,
    roll::{Roll, Spares},
    terms::Terms,
};
use crate::{
    action::Halt,
    config::{Config, Tuning},
    disk::{
        FileSeed,
        segment::{Layout, Slot},
    },
    entry::Head,
    file::{Extent, File},
    marks::Mark,
    types::{GroupId, Instant, LogId, LogIndex, OpId, Term, Timestamp, earliest},
};
use batch::{Promised, Stamp, fitting, place, submit};
use bytes::Bytes;
use std::{collections::VecDeque, time::Duration};

/// The most bytes of entries in flight, at least: what a torn tail can reach.
const WINDOW_BYTES_MIN: u64 = 4 << 20;
/// After this long without a write the durable hint is written.
const HINT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Clone, Debug)]
pub(crate) struct Journal {
    pub(super) identity: Identity,
    pub(super) align: u32,
    pub(super) segment_bytes: u64,
    pub(super) first_segment_len: u64,
    pub(super) window_bytes: u64,
    /// The write epoch: raised by each start and each cut.
    pub(super) epoch: u64,
    writes_max: usize,
    /// Full segments, oldest first.
    pub(super) sealed: VecDeque<Sealed>,
    /// The segment that takes new entries; none while the next one is being opened.
    pub(super) active: Option<Active>,
    /// Appended and not yet written.
    pub(super) pending: VecDeque<Pending>,
    pending_bytes: u64,
    /// Bytes of log that were written in this life, entries and what fills their blocks.
    pub(super) written_bytes: u64,
    /// The last entry appended.
    pub(super) last: LogId,
    /// Of all entries that are in the log.
    pub(super) terms: Terms,
    pub(super) durable: LogIndex,
    pub(super) roll: Roll,
    pub(super) spares: Spares,
    pub(super) cut: Option<Cutting>,
    /// Entries that must come from a peer.
    pub(super) holes: Holes,
    /// A snapshot is about to take the place of the log, this entry and all behind it included.
    ends_at: Option<LogIndex>,
    hint_at: Option<Instant>,
    /// No more will be written: the durable hint waits for no pause.
    is_finishing: bool,
    /// What a cut came upon: an entry without either witness.
    pub(super) lost: Option<Lost>,
    /// Why the node must end.
    pub(super) fault: Option<Halt>,
}

#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) head: Head,
    /// What it came in, with its neighbours, and where in it it begins.
    chunk: Bytes,
    at: usize,
}

impl Pending {
    const fn end(&self) -> usize {
        self.at + self.head.total_bytes as usize
    }

    fn frame(&self) -> &[u8] {
        &self.chunk[self.at..self.end()]
    }

    /// Whether it lies right behind `other` in memory.
    fn adjoins(&self, other: &Self) -> bool {
        self.chunk.as_ptr() == other.chunk.as_ptr() && self.at == other.end()
    }
}

/// A full segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sealed {
    pub(crate) sequence: u64,
    pub(crate) layout: Layout,
    pub(crate) first: LogIndex,
    pub(crate) prev_term: Term,
    pub(crate) last: LogId,
    /// Where its last entry ends.
    pub(crate) data_bytes: u64,
    /// See [`Active::last_time`].
    pub(super) last_time: Timestamp,
    /// See [`Active::window_bytes`].
    pub(crate) window_bytes: u64,
}

impl Sealed {
    fn bytes_after(&self, index: LogIndex) -> u64 {
        let bytes = self.data_bytes - self.layout.data_at;
        let entries = self.last.index.0 + 1 - self.first.0;
        let after = self.last.index.0.saturating_sub(index.0).min(entries);
        // Both below 2^32. One whose first entry did not fit has none.
        (bytes * after).checked_div(entries).unwrap_or(0)
    }
}

/// The segment that takes new entries.
#[derive(Clone, Debug)]
pub(crate) struct Active {
    pub(crate) sequence: u64,
    pub(crate) layout: Layout,
    pub(crate) first: LogIndex,
    pub(crate) prev_term: Term,
    /// The most bytes of entries in flight here, as its header has it: a restart looks no further for
    /// what they left, whatever the limit of a later life is.
    pub(crate) window_bytes: u64,
    /// The slots of all entries whose write was submitted.
    pub(crate) slots: Vec<Slot>,
    /// Where the next write goes.
    pub(crate) write_at: u64,
    /// The leader's clock in the last entry, or in one behind it that was cut: times only rise. Zero when it
    /// is not known.
    pub(super) last_time: Timestamp,
    writes: VecDeque<EntriesWrite>,
    in_flight_bytes: u64,
    written: LogIndex,
    slot_lane: SlotLane,
    seed: FileSeed,
}

#[derive(Clone, Copy, Debug)]
struct EntriesWrite {
    op: OpId,
    through: LogIndex,
    bytes: u64,
    is_done: bool,
}

/// The image of the slot blocks that are not durable yet, or not full.
#[derive(Clone, Debug)]
struct SlotLane {
    image: Vec<u8>,
    /// The first slot of the image: it begins a block.
    first: u32,
    sent: LogIndex,
    durable: LogIndex,
    in_flight: Option<OpId>,
}

impl Active {
    /// A segment without entries, or with these, all durable.
    pub(crate) fn new(
        sequence: u64,
        layout: Layout,
        first: LogIndex,
        prev_term: Term,
        window_bytes: u64,
        slots: Vec<Slot>,
        group: GroupId,
    ) -> Self {
        let last = LogIndex(first.0 + slots.len() as u64 - 1);
        let end = slots.last().map_or(layout.data_at, Slot::end);
        let image_first = layout.slot_block_first(slots.len() as u32);
        let mut lane = SlotLane {
            image: Vec::new(),
            first: image_first,
            sent: last,
            durable: last,
            in_flight: None,
        };
        let seed = FileSeed::new(group, sequence);
        for (n, slot) in slots.iter().enumerate().skip(image_first as usize) {
            lane.put(&layout, n as u32, slot, seed);
        }
        Self {
            sequence,
            layout,
            first,
            prev_term,
            window_bytes,
            slots,
            write_at: layout.block_after(end),
            last_time: Timestamp(0),
            writes: VecDeque::new(),
            in_flight_bytes: 0,
            written: last,
            slot_lane: lane,
            seed,
        }
    }

    /// The last entry whose write was submitted.
    pub(crate) fn last(&self) -> LogIndex {
        LogIndex(self.first.0 + self.slots.len() as u64 - 1)
    }

    pub(crate) fn last_term(&self) -> Term {
        self.slots.last().map_or(self.prev_term, |slot| slot.id.term)
    }

    pub(crate) fn slot(&self, index: LogIndex) -> Option<&Slot> {
        self.slots.get(index.0.checked_sub(self.first.0)? as usize)
    }

    /// Where the last entry ends.
    pub(crate) fn end(&self) -> u64 {
        self.slots.last().map_or(self.layout.data_at, Slot::end)
    }

    fn fits(&self, slots: usize, offset: u64, bytes: u64) -> bool {
        slots < self.layout.slot_count as usize && offset + bytes <= self.layout.data_end()
    }

    pub(super) fn durable(&self) -> LogIndex {
        self.written.min(self.slot_lane.durable)
    }

    /// Whether every entry and every slot it has is durable.
    pub(super) fn is_idle(&self) -> bool {
        let lane = &self.slot_lane;
        self.writes.is_empty() && lane.in_flight.is_none() && lane.sent == self.last()
    }

    /// True if a write of entries that was submitted before this one is still on its way.
    fn on_written(&mut self, op: OpId) -> bool {
        let place = self.writes.iter().position(|write| write.op == op);
        let is_under_way = |write: &EntriesWrite| !write.is_done;
        let overtakes = place.is_some_and(|place| self.writes.range(..place).any(is_under_way));
        if let Some(place) = place {
            self.writes[place].is_done = true;
        }
        while let Some(write) = self.writes.pop_front_if(|write| write.is_done) {
            self.written = write.through;
            self.in_flight_bytes -= write.bytes;
        }
        if self.slot_lane.in_flight.take_if(|in_flight| *in_flight == op).is_some() {
            self.slot_lane.durable = self.slot_lane.sent;
        }
        overtakes
    }
}

impl SlotLane {
    fn put(&mut self, layout: &Layout, n: u32, slot: &Slot, seed: FileSeed) {
        let at = (layout.slot_offset(n) - layout.slot_block(self.first)) as usize;
        let bytes = slot.encode(seed);
        if self.image.len() < at + bytes.len() {
            self.image.resize((at + bytes.len()).next_multiple_of(layout.align as usize), 0);
        }
        self.image[at..at + bytes.len()].copy_from_slice(&bytes);
    }

    /// The blocks that hold what is not sent; then only the last one, if it has room left, stays.
    fn take(&mut self, layout: &Layout, last: LogIndex, next: u32) -> Extent {
        let offset = layout.slot_block(self.first);
        let bytes = Bytes::copy_from_slice(&self.image);
        self.sent = last;
        let keep = layout.slot_block_first(next);
        if keep != self.first {
            let from = (layout.slot_block(keep) - offset) as usize;
            self.image.drain(..from.min(self.image.len()));
            self.first = keep;
        }
        Extent::new(offset, bytes)
    }
}

impl Journal {
    pub(crate) fn new(identity: Identity, config: &Config) -> Self {
        let append = u64::from(config.tuning.append_bytes_max);
        let mut journal = Self {
            identity,
            align: config.disk_align,
            segment_bytes: config.segment_bytes,
            first_segment_len: config.first_segment_len(),
            window_bytes: WINDOW_BYTES_MIN.max(append * 2),
            epoch: 0,
            writes_max: 0,
            sealed: VecDeque::new(),
            active: None,
            pending: VecDeque::new(),
            pending_bytes: 0,
            written_bytes: 0,
            last: LogId::ZERO,
            terms: Terms::behind(LogId::ZERO),
            durable: LogIndex(0),
            roll: Roll::Idle,
            spares: Spares::default(),
            cut: None,
            holes: Holes::default(),
            ends_at: None,
            hint_at: None,
            is_finishing: false,
            lost: None,
            fault: None,
        };
        journal.tune(&config.tuning);
        journal
    }

    /// The window stays: what a torn tail can reach stands in the headers.
    pub(crate) fn tune(&mut self, tuning: &Tuning) {
        self.writes_max = tuning.writes_inflight_max as usize;
        self.spares.tune(tuning.snapshot_log_bytes, self.segment_bytes);
        self.holes.tune(tuning.append_bytes_max);
    }

    pub(crate) const fn durable(&self) -> LogIndex {
        self.durable
    }

    pub(crate) const fn memory_bytes(&self) -> u64 {
        self.pending_bytes + self.holes.memory_bytes()
    }

    /// A deadline that has passed must be gone after `persist`: else a driver would spin on it.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let is_held = self.cut.is_some() || self.ends_at.is_some();
        let retry = if is_held { None } else { self.spares.deadline() };
        earliest([self.hint_at, retry])
    }

    /// Whether an entry appended now would wait for others' writes: better gather first.
    pub(crate) fn is_saturated(&self) -> bool {
        !self.pending.is_empty()
            || self.active.as_ref().is_none_or(|active| active.writes.len() >= self.writes_max)
    }

    /// The first index in the log.
    pub(crate) fn first(&self) -> LogIndex {
        let first = self.sealed.front().map(|sealed| sealed.first);
        first
            .or_else(|| self.active.as_ref().map(|active| active.first))
            // Before the first segment is there, entries wait for it.
            .or_else(|| self.pending.front().map(|pending| pending.head.id.index))
            .unwrap_or_else(|| self.last.index.next())
    }

    /// The last entry of this file, if it is a full segment.
    pub(super) fn last_of(&self, file: File) -> Option<LogIndex> {
        let is_it = |sealed: &&Sealed| File::Segment(sealed.sequence) == file;
        self.sealed.iter().find(is_it).map(|sealed| sealed.last.index)
    }

    /// Bytes of entries above `index`, nearly: in a full segment they count as equally long.
    pub(crate) fn bytes_after(&self, index: LogIndex) -> u64 {
        let sealed: u64 = self.sealed.iter().map(|sealed| sealed.bytes_after(index)).sum();
        sealed + self.active.as_ref().map_or(0, |active| bytes_after(active, index))
    }

    /// The first index of the segments that together hold no more than this many bytes.
    pub(super) fn oldest_within(&self, bytes_max: u64) -> LogIndex {
        let mut bytes = self.active.as_ref().map_or(0, |active| active.end());
        let fits = |sealed: &&Sealed| {
            bytes += sealed.data_bytes;
            bytes <= bytes_max
        };
        let kept = self.sealed.iter().rev().take_while(fits).last();
        let active = self.active.as_ref().map(|active| active.first);
        kept.map(|sealed| sealed.first).or(active).unwrap_or_else(|| self.last.index.next())
    }

    pub(crate) fn append(&mut self, head: Head, chunk: Bytes, at: usize) {
        assert_eq!(head.id.index, self.last.index.next(), "the log has no gaps");
        assert!(head.id.term >= self.last.term, "terms in a log only rise");
        self.last = head.id;
        self.terms.push(head.id);
        self.pending_bytes += u64::from(head.total_bytes);
        self.pending.push_back(Pending { head, chunk, at });
    }

    /// Drops what was appended from `from` on and never written.
    pub(super) fn forget_pending(&mut self, from: LogIndex) {
        while let Some(pending) = self.pending.pop_back_if(|p| p.head.id.index >= from) {
            self.pending_bytes -= u64::from(pending.head.total_bytes);
        }
    }

    pub(crate) fn persist(&mut self, now: Instant, promises: &mut Promises, ops: &mut Ops) {
        // A cut waits for a roll that went too far to be dropped: it must not wait for ever.
        if self.cut.is_some() && matches!(self.roll, Roll::Announcing(..)) {
            self.go_on_rolling(promises, ops);
        }
        self.go_on_cutting(promises, ops);
        if !self.has_unmarked_cut() {
            promises.let_members_change();
        }
        if self.ends_at.is_some() {
            return self.come_to_rest(promises, ops);
        }
        if self.cut.is_none() {
            // A segment may have become the active one, and may be full after this write.
            self.go_on_rolling(promises, ops);
            if self.has_to_write() {
                self.write(Promised::by(promises), ops);
                self.go_on_rolling(promises, ops);
            }
        }
        if self.cut.is_none() {
            self.holes.go_on(promises, ops);
        }
        if self.cut.is_none() && self.spares.is_due(now) {
            self.prepare_spare(ops);
        }
        self.refresh_hint(now, promises, ops);
    }

    /// Writes what it can where nothing else is to be done, and the next entry fits.
    pub(super) fn go_on_writing(&mut self, now: Instant, promises: &mut Promises, ops: &mut Ops) {
        if self.has_to_write() {
            self.write(Promised::by(promises), ops);
        }
        self.refresh_hint(now, promises, ops);
    }

    /// Whether all that it can have to do is to write entries.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.roll, Roll::Idle)
            && self.active.is_some()
            && self.spares.are_in_order()
            && self.cut.is_none()
            && self.ends_at.is_none()
            && self.holes.is_empty()
            && self.lost.is_none()
            && self.fault.is_none()
            && !self.is_finishing
    }

    /// A snapshot of everything up to `at` takes the place of the log: nothing more is written to
    /// it, and nothing behind `at` counts.
    pub(super) fn end_before(&mut self, at: LogIndex) {
        self.ends_at = Some(at);
        self.durable = self.durable.min(at);
        self.hint_at = None;
        self.pending.clear();
        self.pending_bytes = 0;
    }

    fn come_to_rest(&mut self, promises: &Promises, ops: &mut Ops) {
        if !self.is_roll_at_rest() {
            self.go_on_rolling(promises, ops);
        }
        self.write_slots(ops);
    }

    /// Whether nothing of it is on its way to the disk.
    pub(super) fn is_at_rest(&self) -> bool {
        self.cut.is_none() && self.is_drained()
    }

    /// The log is empty and goes on behind `at`. Returns the segments of the old one.
    pub(super) fn replace(&mut self, at: LogId) -> Vec<u64> {
        let active = self.active.take().map(|active| active.sequence);
        let sealed = self.sealed.drain(..).map(|sealed| sealed.sequence);
        let old = sealed.chain(active).collect();
        self.roll = Roll::Idle;
        self.ends_at = None;
        self.last = at;
        self.terms = Terms::behind(at);
        self.durable = at.index;
        self.spares.forget_stock();
        self.holes.forget_all();
        old
    }

    fn has_to_write(&self) -> bool {
        let has_slots = |active: &Active| active.slot_lane.sent < active.last();
        !self.pending.is_empty() || self.active.as_ref().is_some_and(has_slots)
    }

    fn write(&mut self, promised: Promised<'_>, ops: &mut Ops) {
        let durable = self.durable;
        let Some(active) = self.active.as_mut().filter(|_| matches!(self.roll, Roll::Idle)) else {
            return;
        };
        while !self.pending.is_empty() && active.writes.len() < self.writes_max {
            let batch = fitting(active, &self.pending, promised);
            if batch.entries == 0 {
                match self.pending.front() {
                    Some(next) if next.head.id.term > promised.term => {
                        ops.met(Mark::WriteWaitedForTerm);
                    }
                    Some(next) if !promised.admits(&next.head) => {
                        ops.met(Mark::WriteWaitedForMembership);
                    }
                    _ => {}
                }
                break;
            }
            let stamp = Stamp { epoch: self.epoch, durable };
            let at = place(active, &mut self.pending, &batch, stamp);
            self.written_bytes += at.len();
            self.pending_bytes -= batch.bytes;
            submit(active, Some(at), ops);
        }
        self.write_slots(ops);
    }

    /// The slots that waited for the lane, if it is free and no entries took them along.
    pub(super) fn write_slots(&mut self, ops: &mut Ops) {
        if let Some(active) = &mut self.active
            && active.slot_lane.in_flight.is_none()
            && active.slot_lane.sent < active.last()
        {
            ops.met(Mark::SlotsWrittenAlone);
            submit(active, None, ops);
        }
    }

    /// Whether the next entry does not fit into the segment.
    pub(super) fn is_full(&self) -> bool {
        let (Some(active), Some(next)) = (&self.active, self.pending.front()) else { return false };
        !active.fits(active.slots.len(), active.write_at, u64::from(next.head.total_bytes))
    }

    /// True if it has overtaken another write of entries.
    pub(crate) fn on_written(&mut self, op: OpId) -> bool {
        let active = self.active.as_mut().expect("a segment is not sealed while writes are on");
        let overtakes = active.on_written(op);
        let durable = active.durable();
        self.advance_durable(durable);
        self.hint_at = None;
        overtakes
    }

    /// What is on disk up to here counts, as far as nothing speaks against it.
    fn advance_durable(&mut self, durable: LogIndex) {
        // What a cut is about to clear is durable no more, whatever was written of it.
        let most = self.cut.as_ref().map_or(durable, |cut| durable.min(cut.lowest().previous()));
        let most = self.ends_at.map_or(most, |end| most.min(end));
        let owed = self.holes.first_owed().filter(|_| !cfg!(lakebed_break = "overlook_holes"));
        let most = owed.map_or(most, |hole| most.min(hole.previous()));
        self.durable = self.durable.max(most);
    }

    /// A restart has written again what was not certainly durable.
    pub(super) fn on_rewritten(&mut self) {
        self.advance_durable(self.last.index);
    }

    /// A snapshot holds everything up to here: nothing of it is owed. What is struck of it stays known:
    /// the log keeps its entries, for peers that are behind.
    pub(super) fn on_covered(&mut self, at: LogIndex) {
        self.holes.excuse_through(at);
        self.on_filled();
    }

    /// A hole is filled: what lies behind it counts again.
    pub(super) fn on_filled(&mut self) {
        let sealed = self.sealed.back().map_or(LogIndex(0), |sealed| sealed.last.index);
        let durable = self.active.as_ref().map_or(sealed, Active::durable);
        self.advance_durable(durable);
    }

    /// Says what is durable as soon as nothing is on its way.
    pub(super) const fn wind_up(&mut self) {
        self.is_finishing = true;
    }

    /// Whether everything is written, and proven durable by the hard state.
    pub(super) fn is_finished(&self, promises: &Promises) -> bool {
        self.pending.is_empty()
            && self.is_at_rest()
            && promises.is_at_rest()
            && promises.durable().durable_hint >= self.durable
    }

    /// When writes pause, what was proven by floors alone is said in the hard state.
    fn refresh_hint(&mut self, now: Instant, promises: &mut Promises, ops: &mut Ops) {
        if promises.durable().durable_hint >= self.durable || !promises.is_at_rest() {
            self.hint_at = None;
            return;
        }
        let is_idle = self.active.as_ref().is_none_or(Active::is_idle) && self.cut.is_none();
        if !is_idle {
            self.hint_at = None;
        } else if self.is_finishing
            || self.hint_at.get_or_insert_with(|| now.after(HINT_PAUSE)).0 <= now.0
        {
            self.hint_at = None;
            ops.met(Mark::DurableHintWritten);
            let durable = self.durable;
            promises.want(|hard| hard.durable_hint = durable);
        }
    }
}

fn bytes_after(active: &Active, index: LogIndex) -> u64 {
    let from = active.slot(index.next().max(active.first)).map(|slot| u64::from(slot.offset));
    from.map_or(0, |from| active.end() - from)
}
