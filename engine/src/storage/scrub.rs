//! Reading log and snapshots again while the node runs, slowly: what has gone bad on the disk since
//! it was written comes to light while there is another one, and not in the restart that needs it.
//!
//! Knows no bytes: it asks for entries as any other reader does, and drops them; snapshots are read
//! by a part of its own. What is bad has the consequence that it has for any reader. Invariant: one
//! piece is read at a time, and a pass over all of it takes as long as is asked for.

mod snapshots;

pub(super) use snapshots::BadSnapshot;

use super::{
    ReadBack, Reader, Storage,
    journal::Journal,
    lost::Lost,
    ops::{Job, Ops},
    reader::{BadEntry, Reads},
    snapshots::Snapshots,
};
use crate::{
    event::Completion,
    file::{Class, DiskError, DiskRequest},
    marks::Mark,
    types::{Instant, LogIndex, OpId},
};
use snapshots::Checks;
use std::time::Duration;

/// The most bytes that are read at one time, if an entry or a block is not longer.
const PIECE_BYTES: u32 = 256 << 10;

#[derive(Clone, Debug, Default)]
pub(super) struct Scrub {
    /// How long a pass takes; zero: there are none.
    interval: Duration,
    /// Entries from the first of these to the second were taken from their slots by the restart:
    /// they are read without a pause, whether there are passes or not.
    believed: Option<(LogIndex, LogIndex)>,
    next: LogIndex,
    /// In this pass the log is read up to here: one that grows must not keep it from its end.
    through: LogIndex,
    /// What is being read begins here.
    reading: Option<LogIndex>,
    /// The log was read to its end in this pass, and snapshots are.
    checks: Option<Checks>,
    /// When the next piece is to be read.
    due: Option<Instant>,
    /// How many bytes were read again.
    pub(super) bytes: u64,
}

/// What is to be read.
enum Piece {
    /// Entries from the first of these to the second, and at most `PIECE_BYTES` of them.
    Entries(LogIndex, LogIndex),
    /// A part of a snapshot.
    Snapshot(DiskRequest),
}

impl Scrub {
    pub(super) fn tune(&mut self, interval: Duration) {
        if self.interval != interval {
            (self.interval, self.due) = (interval, None);
        }
    }

    /// The restart has not read these entries, from the first to the second: that is done now,
    /// behind the votes that it gives.
    pub(super) const fn verify_behind(&mut self, believed: Option<(LogIndex, LogIndex)>) {
        self.believed = believed;
    }

    /// When the next piece is to be read, if none is being.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.filter(|_| self.reading.is_none() && !self.is_checking())
    }

    /// Whether nothing is to be read before the deadline.
    pub(super) fn is_waiting(&self) -> bool {
        self.believed.is_none()
            && self.reading.is_none()
            && !self.is_checking()
            && (self.interval.is_zero() || self.due.is_some())
    }

    /// Whether a piece of a snapshot is being read.
    fn is_checking(&self) -> bool {
        self.checks.as_ref().is_some_and(Checks::is_reading)
    }

    /// Asks for the piece that is to be read now, if one is.
    pub(super) fn go_on(
        &mut self,
        now: Instant,
        journal: &Journal,
        reads: &mut Reads,
        snapshots: &mut Snapshots,
        ops: &mut Ops,
    ) {
        match self.begin(now, journal, snapshots) {
            Some(Piece::Entries(from, to)) => reads.read(Reader::Scrub, from, to, PIECE_BYTES),
            Some(Piece::Snapshot(request)) => {
                let DiskRequest::Read { len, .. } = request else { unreachable!("it is a read") };
                let op = ops.submit(Job::Check, Class::Background, request);
                self.checks.as_mut().expect("snapshots are being read").reads(op, len);
            }
            None => {}
        }
    }

    fn begin(
        &mut self,
        now: Instant,
        journal: &Journal,
        snapshots: &mut Snapshots,
    ) -> Option<Piece> {
        if self.interval.is_zero() && self.believed.is_none() {
            return None;
        }
        let (first, last) = (journal.first(), journal.durable());
        // The log was cut, or replaced: what was asked for may never come.
        self.reading = self.reading.filter(|from| {
            (first..=last).contains(from) && journal.holes.first_from(*from) != Some(*from)
        });
        if self.reading.is_some() || self.is_checking() {
            return None;
        }
        if let Some((from, to)) = self.believed {
            self.reading = readable(journal, from, to.min(last));
            if let Some(from) = self.reading {
                return Some(Piece::Entries(from, to.min(last)));
            }
            // What lies behind a hole that is owed is not read before it is filled.
            self.believed = self.believed.filter(|(_, to)| *to > last);
        }
        if self.interval.is_zero() {
            return None;
        }
        if self.due.is_none() {
            self.due = Some(now.after(self.wait(PIECE_BYTES.into(), journal, snapshots)));
        }
        if self.due.is_none_or(|due| now < due) {
            return None;
        }
        let piece = self.next_of_pass(journal, snapshots);
        if piece.is_none() {
            self.due = Some(now.after(self.interval));
        }
        piece
    }

    /// Behind the last entry the snapshots come, and behind them a pass begins anew. `None`: there is
    /// nothing at all.
    fn next_of_pass(&mut self, journal: &Journal, snapshots: &mut Snapshots) -> Option<Piece> {
        for _ in 0..2 {
            if self.checks.is_none() {
                if self.next == LogIndex(0) {
                    self.through = journal.durable();
                }
                let to = self.through.min(journal.durable());
                self.reading = readable(journal, self.next, to);
                if let Some(from) = self.reading {
                    return Some(Piece::Entries(from, to));
                }
                let is_left_out = cfg!(lakebed_break = "scrub_no_snapshot");
                self.checks = Some(Checks::of(if is_left_out { &[] } else { &snapshots.whole }));
            }
            let checks = self.checks.as_mut().expect("it was just begun");
            if let Some(request) = checks.next(&snapshots.whole, snapshots.align, PIECE_BYTES) {
                return Some(Piece::Snapshot(request));
            }
            (self.checks, self.next) = (None, LogIndex(0));
            snapshots.want_again(journal.holes.last());
        }
        None
    }

    /// What was read is good up to here, or known to be bad.
    fn end(&mut self, through: LogIndex, now: Instant, journal: &Journal, snapshots: &Snapshots) {
        let from = self.reading.take().unwrap_or_else(|| through.next());
        // As all of the log is counted: with what fills the blocks, which may be most of it.
        let after = |index| journal.bytes_after(index);
        let bytes = after(from.previous()).saturating_sub(after(through));
        // Entries that a restart believed may be read in between.
        if self.checks.is_none() {
            self.next = through.next();
        }
        self.bytes += bytes;
        if let Some((from, to)) = self.believed {
            self.believed = Some((from.max(through.next()), to)).filter(|(from, to)| from <= to);
        }
        self.wait_for(bytes, now, journal, snapshots);
    }

    /// So many bytes were read: the next piece has time.
    fn wait_for(&mut self, bytes: u64, now: Instant, journal: &Journal, snapshots: &Snapshots) {
        let is_on = !self.interval.is_zero();
        self.due = is_on.then(|| now.after(self.wait(bytes, journal, snapshots)));
    }

    /// How long a pass may take over so many bytes.
    fn wait(&self, bytes: u64, journal: &Journal, snapshots: &Snapshots) -> Duration {
        let all = journal.bytes_after(LogIndex(0)) + snapshots.bytes_on_disk();
        let all = u128::from(all.max(1));
        let share = self.interval.as_nanos() * u128::from(bytes).min(all) / all;
        Duration::from_nanos(u64::try_from(share).unwrap_or(u64::MAX))
    }
}

/// The first entry from there on that is no hole.
fn readable(journal: &Journal, from: LogIndex, last: LogIndex) -> Option<LogIndex> {
    let is_there = |index: &LogIndex| journal.holes.first_from(*index) != Some(*index);
    (from.max(journal.first()).0..=last.0).map(LogIndex).find(is_there)
}

impl Storage {
    /// A piece was read, and is good.
    pub(super) fn on_scrubbed(&mut self, now: Instant, back: &ReadBack) {
        self.ops.met(Mark::LogScrubbed);
        self.scrub.end(back.last, now, &self.journal, &self.snapshots);
    }

    /// The scrub came upon a bad entry.
    pub(super) fn on_scrubbed_bad(&mut self, now: Instant, bad: BadEntry) {
        self.ops.met(Mark::ScrubFoundBadEntry);
        self.reads.drop_wish(Reader::Scrub);
        self.scrub.end(bad.slot.id.index, now, &self.journal, &self.snapshots);
        self.on_bad_entry(bad);
    }

    /// The scrub came upon an entry that has neither witness left.
    pub(super) fn on_scrubbed_lost(&mut self, now: Instant, lost: Lost) {
        self.reads.drop_wish(Reader::Scrub);
        let last = self.journal.last_of(lost.file).unwrap_or(self.scrub.next);
        self.scrub.end(last, now, &self.journal, &self.snapshots);
        self.on_lost_to(Reader::Scrub, lost);
    }

    /// A piece of a snapshot was read. One that cannot be read is of no more use than a bad one.
    pub(super) fn on_checked(
        &mut self,
        now: Instant,
        op: OpId,
        result: Result<Completion, DiskError>,
    ) {
        let (group, align) = (self.config.group, self.config.disk_align);
        let Some(checks) = &mut self.scrub.checks else { return };
        let Some((bytes, bad)) = checks.on_read(op, result, group, align) else { return };
        self.scrub.bytes += u64::from(bytes);
        self.scrub.wait_for(bytes.into(), now, &self.journal, &self.snapshots);
        bad.into_iter().for_each(|bad| self.on_bad_snapshot(&bad));
    }
}
