//! From one segment to the next: end record, a spare's new name, headers, hard state, in this order
//! and each durable before the next. And the spares: zeroed ahead of need, or recycled.
//!
//! Invariant: a segment takes entries only after the hard state named it, so nothing acknowledged
//! lies in a file that a restart would not miss.

use super::{
    journal::{Active, Journal, Sealed},
    ops::{Job, Ops},
    promises::{Promises, Version},
};
use crate::{
    action::Note,
    config::Config,
    disk::segment::{EndRecord, FloorLag, Header, Layout},
    file::{Class, DiskError, DiskRequest, Extent, File},
    marks::Mark,
    types::{Instant, LogIndex, SnapshotId, Term},
};
use bytes::Bytes;
use std::{cmp::Reverse, iter, time::Duration};

/// How long room is waited for before it is asked for again.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RollOp {
    EndRecord,
    Rename,
    SyncName,
    Headers,
    CreateSpare,
    RemoveSpare,
}

/// How far the opening of the next segment is.
#[derive(Clone, Debug)]
pub(crate) enum Roll {
    /// The active segment has room.
    Idle,
    /// Its end record is being written.
    Ending,
    /// A file of this length is wanted.
    WantSpare(u64),
    /// The file is on its way to its name and its headers.
    Naming(Header),
    /// The hard state is to name it.
    Announcing(Header, Version),
}

/// Files of zeros, or of an earlier life, for segments to come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spares {
    ready: Vec<Spare>,
    creating: Option<Spare>,
    /// Those that compaction is giving their names.
    coming: usize,
    /// How many are kept of what compaction gives: what the log takes from one snapshot to the
    /// next, twice, as neither comes evenly. Were there fewer, zeros would be written while files
    /// are removed, and a log under load would write everything twice.
    kept_max: usize,
    next: u64,
    /// How often one could not be made for want of room, since one could.
    in_vain: u32,
    /// Whether the one in stock was found to be what the next roll needs.
    is_stocked: bool,
    /// Of one that could not be made: none is in stock then, and none is being made.
    retry_at: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Spare {
    pub(crate) number: u64,
    pub(crate) len: u64,
}

impl Spares {
    /// Which of those that an earlier life left are of use, and which are not: as long as a segment is,
    /// and no more than compaction would keep. What lies in them does not matter: zeros, or entries of
    /// a log that was compacted, which come before any that the next segment will hold.
    pub(super) fn sort_out(mut found: Vec<Spare>, config: &Config) -> (Vec<Spare>, Vec<Spare>) {
        let most = config.segment_bytes;
        let is_segments = |len: u64| {
            let mut lens =
                iter::successors(Some(config.first_segment_len()), |len| Some((len * 2).min(most)));
            lens.find(|known| *known >= len || *known == most) == Some(len)
        };
        found.sort_unstable_by_key(|spare| Reverse(spare.number));
        let is_useful = |spare: &Spare| spare.number > 0 && is_segments(spare.len);
        let (mut useful, mut useless): (Vec<_>, Vec<_>) = found.into_iter().partition(is_useful);
        let kept_max = kept_max(config.tuning.snapshot_log_bytes, most);
        useless.extend(useful.drain(kept_max.min(useful.len())..));
        (useful, useless)
    }

    /// These are there already, and durable but for their names: none is written before a roll has made
    /// its new name durable, and with that the one it was recycled by.
    pub(super) fn adopt(&mut self, left: &[Spare]) {
        self.next = left.iter().map(|spare| spare.number).max().unwrap_or_default();
        self.ready = left.to_vec();
    }

    /// When one that could not be made is to be tried again.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Whether one may have to be made.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        !self.is_stocked && self.creating.is_none() && self.retry_at.is_none_or(|at| now >= at)
    }

    /// Whether the next roll has what it needs.
    pub(super) const fn are_in_order(&self) -> bool {
        self.is_stocked && self.creating.is_none() && !self.is_full()
    }

    const fn is_full(&self) -> bool {
        self.in_vain > 0
    }

    /// Files were removed: there may be room where there was none.
    pub(super) const fn look_again(&mut self) {
        self.retry_at = None;
    }

    /// Number zero is where a new node's hard state is built.
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn has(&self, len: u64) -> bool {
        self.ready.iter().any(|spare| spare.len >= len)
    }

    fn take(&mut self, len: u64) -> Option<Spare> {
        self.is_stocked = false;
        let place = self.ready.iter().position(|spare| spare.len >= len)?;
        Some(self.ready.swap_remove(place))
    }

    /// A name for a segment that is not needed any more, if its room may be of use.
    pub(super) fn recycle(&mut self, len: u64, next_len: u64) -> Option<Spare> {
        let is_useful = self.ready.len() + self.coming < self.kept_max && len >= next_len;
        is_useful.then(|| {
            self.coming += 1;
            Spare { number: self.number(), len }
        })
    }

    /// What the next roll needs may be another length.
    pub(super) const fn forget_stock(&mut self) {
        self.is_stocked = false;
    }

    /// Their new names are durable: they may be written.
    pub(super) fn give(&mut self, spares: Vec<Spare>) {
        self.coming -= spares.len();
        self.is_stocked = false;
        self.ready.extend(spares);
    }

    pub(super) fn tune(&mut self, snapshot_log_bytes: u64, segment_bytes: u64) {
        self.kept_max = kept_max(snapshot_log_bytes, segment_bytes);
    }
}

#[cfg(test)]
impl Spares {
    /// Files that wait, by number.
    pub(super) fn waiting(&self) -> impl Iterator<Item = File> {
        self.ready.iter().map(|spare| File::Spare(spare.number))
    }
}

const fn kept_max(snapshot_log_bytes: u64, segment_bytes: u64) -> usize {
    1 + 2 * snapshot_log_bytes.div_ceil(segment_bytes) as usize
}

impl Journal {
    /// Whether proposals must be refused because there is no room for another segment.
    pub(crate) fn has_no_room(&self) -> bool {
        self.spares.is_full() && !self.spares.has(self.spare_len())
    }

    /// How often the disk was asked for room that it had none of, since it had some.
    pub(crate) const fn sought_room(&self) -> u32 {
        self.spares.in_vain
    }

    /// Whether there was none, and the disk has not said yet whether there is some now.
    pub(crate) fn seeks_room(&self) -> bool {
        self.has_no_room() && self.spares.creating.is_some()
    }

    /// Whether the log does not go on before there is room for another segment.
    pub(super) fn waits_for_room(&self) -> bool {
        self.spares.is_full() && matches!(self.roll, Roll::WantSpare(len) if !self.spares.has(len))
    }

    /// How long the next segment will be.
    pub(super) fn next_len(&self) -> u64 {
        // The one being opened is neither sealed nor active.
        let last = match &self.roll {
            Roll::Naming(header) | Roll::Announcing(header, _) => Some(header.layout.len),
            _ => self.active.as_ref().map(|active| active.layout.len),
        };
        let last = last.or_else(|| self.sealed.back().map(|sealed| sealed.layout.len));
        last.map_or(self.first_segment_len, |len| (len * 2).min(self.segment_bytes))
    }

    /// The next length that holds the entry that waits.
    fn wanted_len(&self) -> u64 {
        let bytes = self.pending.front().map_or(0, |next| u64::from(next.head.total_bytes));
        let mut len = self.next_len();
        while len < self.segment_bytes {
            let layout = Layout::new(len, self.align);
            if layout.data_end() - layout.data_at >= bytes {
                break;
            }
            len *= 2;
        }
        len
    }

    pub(super) fn go_on_rolling(&mut self, promises: &Promises, ops: &mut Ops) {
        match self.roll {
            Roll::Idle if self.active.is_none() => self.want_spare(),
            Roll::Idle => return self.end_segment(ops),
            Roll::WantSpare(_) => {}
            Roll::Ending | Roll::Naming(_) => return,
            Roll::Announcing(_, version) => return self.finish(version, promises),
        }
        if let Roll::WantSpare(len) = self.roll
            && let Some(spare) = self.spares.take(len)
        {
            self.name(spare, promises, ops);
        }
    }

    /// Whether nothing of the roll is on its way to the disk.
    pub(super) const fn is_roll_at_rest(&self) -> bool {
        matches!(self.roll, Roll::Idle | Roll::WantSpare(_))
    }

    fn end_segment(&mut self, ops: &mut Ops) {
        if self.pending.is_empty() {
            return;
        }
        let is_full = self.is_full();
        let is_whole = |active: &&Active| active.is_idle() && self.durable == active.last();
        let Some(active) = self.active.as_ref().filter(|_| is_full).filter(is_whole) else {
            return;
        };
        let end = EndRecord {
            last: crate::LogId::new(active.last_term(), active.last()),
            epoch: self.epoch,
            floor_lag: FloorLag::new(active.last(), self.durable),
            data_bytes: active.end(),
            last_time: active.last_time,
            runs: runs_of(active),
        };
        let bytes = end.encode(self.identity.group, active.sequence, active.layout.align);
        let at = Extent::new(active.layout.end_offset(), bytes.into());
        let file = File::Segment(active.sequence);
        let durable = !cfg!(lakebed_break = "leave_the_end_record_unsynced");
        let request = DiskRequest::Write { file, at, and: None, durable };
        ops.submit(Job::Roll(RollOp::EndRecord), Class::Commit, request);
        self.roll = Roll::Ending;
    }

    fn name(&mut self, spare: Spare, promises: &Promises, ops: &mut Ops) {
        let highest = promises.wanted().highest_segment;
        let header = Header {
            identity: self.identity,
            sequence: highest + 1,
            first: self.sealed.back().map_or_else(|| self.durable.next(), |s| s.last.index.next()),
            prev_term: self.end_term(promises),
            epoch: self.epoch,
            layout: Layout::new(spare.len, self.align),
            window_bytes: self.window_bytes,
            staged_for: SnapshotId(0),
        };
        let (from, to) = (File::Spare(spare.number), File::Segment(header.sequence));
        let request = DiskRequest::Rename { from, to };
        ops.submit(Job::Roll(RollOp::Rename), Class::Commit, request);
        self.roll = Roll::Naming(header);
    }

    /// The term of the last entry in full segments, or of the one before the log.
    fn end_term(&self, promises: &Promises) -> Term {
        let first = promises.wanted().first;
        self.sealed.back().map_or(first.prev_term, |sealed| sealed.last.term)
    }

    pub(crate) fn on_rolled(
        &mut self,
        op: RollOp,
        result: Result<(), DiskError>,
        now: Instant,
        promises: &mut Promises,
        ops: &mut Ops,
    ) {
        match op {
            RollOp::EndRecord => self.seal(),
            RollOp::Rename if cfg!(lakebed_break = "leave_the_directory_unsynced") => {
                self.write_headers(ops);
            }
            RollOp::Rename => {
                ops.submit(Job::Roll(RollOp::SyncName), Class::Commit, DiskRequest::SyncDirectory);
            }
            RollOp::SyncName => self.write_headers(ops),
            RollOp::Headers => self.announce(promises),
            RollOp::CreateSpare => self.on_spare_created(result, now, ops),
            RollOp::RemoveSpare => {}
        }
    }

    fn seal(&mut self) {
        let active = self.active.take().expect("its end record was written");
        self.sealed.push_back(Sealed {
            sequence: active.sequence,
            layout: active.layout,
            first: active.first,
            prev_term: active.prev_term,
            last: crate::LogId::new(active.last_term(), active.last()),
            data_bytes: active.end(),
            last_time: active.last_time,
            window_bytes: active.window_bytes,
        });
        self.want_spare();
    }

    fn want_spare(&mut self) {
        self.roll = Roll::WantSpare(self.wanted_len());
        self.spares.is_stocked = false;
    }

    fn write_headers(&self, ops: &mut Ops) {
        let Roll::Naming(header) = &self.roll else { unreachable!("a name was being given") };
        let bytes = Bytes::from(header.encode());
        let [a, b] = header.layout.header_offsets();
        let at = Extent::new(a, bytes.clone());
        let and = Some(Extent::new(b, bytes));
        let file = File::Segment(header.sequence);
        let request = DiskRequest::Write { file, at, and, durable: true };
        ops.submit(Job::Roll(RollOp::Headers), Class::Commit, request);
    }

    fn announce(&mut self, promises: &mut Promises) {
        let Roll::Naming(header) = std::mem::replace(&mut self.roll, Roll::Idle) else {
            unreachable!("headers were being written")
        };
        let is_first = self.sealed.is_empty();
        let version = promises.want(|hard| {
            hard.newest_segment = header.sequence;
            hard.highest_segment = header.sequence;
            if is_first {
                hard.first.segment = header.sequence;
            }
        });
        self.roll = Roll::Announcing(header, version);
    }

    fn finish(&mut self, version: Version, promises: &Promises) {
        if !promises.is_durable(version) {
            return;
        }
        let Roll::Announcing(header, _) = std::mem::replace(&mut self.roll, Roll::Idle) else {
            unreachable!("a segment was being announced")
        };
        let Header { sequence, layout, first, prev_term, window_bytes, .. } = header;
        let (slots, group) = (Vec::new(), self.identity.group);
        let active = Active::new(sequence, layout, first, prev_term, window_bytes, slots, group);
        self.active = Some(active);
        self.spares.is_stocked = false;
    }

    /// How long the spare in stock must be.
    fn spare_len(&self) -> u64 {
        match self.roll {
            Roll::WantSpare(len) => len,
            _ => self.next_len(),
        }
    }

    /// One spare is kept ready, so that a roll does not wait for zeros to be written.
    pub(super) fn prepare_spare(&mut self, ops: &mut Ops) {
        let len = self.spare_len();
        self.spares.retry_at = None;
        self.spares.is_stocked = self.spares.has(len);
        if self.spares.is_stocked {
            // It may have come from the log's beginning, where none could be made.
            self.spares.in_vain = 0;
            return;
        }
        // Segments do not shrink again: shorter ones would lie there for ever.
        for short in self.spares.ready.drain(..) {
            let request = DiskRequest::Remove { file: File::Spare(short.number) };
            ops.submit(Job::Roll(RollOp::RemoveSpare), Class::Background, request);
        }
        let spare = Spare { number: self.spares.number(), len };
        let is_waited_for = matches!(self.roll, Roll::WantSpare(_));
        if is_waited_for {
            ops.met(Mark::RollWaitedForSpare);
        }
        let class = if is_waited_for { Class::Commit } else { Class::Background };
        let file = File::Spare(spare.number);
        let request = DiskRequest::Create { file, len, zeroed: true };
        ops.submit(Job::Roll(RollOp::CreateSpare), class, request);
        self.spares.creating = Some(spare);
    }

    fn on_spare_created(&mut self, result: Result<(), DiskError>, now: Instant, ops: &mut Ops) {
        let spare = self.spares.creating.take().expect("one spare was being created");
        match result {
            Ok(()) => {
                if self.spares.is_full() {
                    ops.met(Mark::RoomCameBack);
                }
                self.spares.in_vain = 0;
                self.spares.ready.push(spare);
            }
            Err(error) => {
                ops.met(Mark::SpareHadNoRoom);
                self.spares.in_vain = self.spares.in_vain.saturating_add(1);
                self.spares.retry_at = Some(now.after(RETRY));
                let file = File::Spare(spare.number);
                ops.note(Note::Disk { file, error });
                let request = DiskRequest::Remove { file };
                ops.submit(Job::Roll(RollOp::RemoveSpare), Class::Background, request);
            }
        }
    }
}

/// Where each run of equal terms begins.
pub(crate) fn runs_of(active: &Active) -> Vec<(LogIndex, Term)> {
    let mut runs: Vec<(LogIndex, Term)> = Vec::new();
    for slot in &active.slots {
        if runs.last().is_none_or(|(_, term)| *term != slot.id.term) {
            runs.push((slot.id.index, slot.id.term));
        }
    }
    runs
}
