//! Reading the log again while the node runs, slowly: what has gone bad on the disk since it was
//! written comes to light while peers still have it, and not in the restart that needs it.
//!
//! Knows no bytes: it asks for entries as any other reader does, and drops them. What is bad has the
//! consequence that it has for any reader. Invariant: one piece is read at a time, and a pass over
//! the whole log takes as long as is asked for.

use super::{ReadBack, Reader, Storage, journal::Journal, lost::Lost, reader::BadEntry};
use crate::{
    action::Note,
    file::File,
    marks::Mark,
    types::{Instant, LogIndex},
};
use std::time::Duration;

/// The most bytes that are read at one time, if an entry is not longer.
const PIECE_BYTES: u32 = 256 << 10;

#[derive(Clone, Debug, Default)]
pub(super) struct Scrub {
    /// How long a pass takes; zero: there are none.
    interval: Duration,
    /// Entries from the first of these to the second were taken from their slots by the restart:
    /// they are read without a pause, whether there are passes or not.
    believed: Option<(LogIndex, LogIndex)>,
    next: LogIndex,
    /// What is being read begins here.
    reading: Option<LogIndex>,
    /// When the next piece is to be read.
    due: Option<Instant>,
    /// How many bytes of entries were read again.
    pub(super) bytes: u64,
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
        self.due.filter(|_| self.reading.is_none())
    }

    /// The piece that is to be read now: entries from the first of these to the second, and at most
    /// so many bytes.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        journal: &Journal,
    ) -> Option<(LogIndex, LogIndex, u32)> {
        if self.interval.is_zero() && self.believed.is_none() {
            return None;
        }
        let (first, last) = (journal.first(), journal.durable());
        // The log was cut, or replaced: what was asked for may never come.
        self.reading = self.reading.filter(|from| (first..=last).contains(from));
        if self.reading.is_some() {
            return None;
        }
        let readable = |from: LogIndex, last: LogIndex| {
            let is_there = |index: &LogIndex| journal.holes.first_from(*index) != Some(*index);
            (from.0..=last.0).map(LogIndex).find(is_there).filter(|_| from >= first)
        };
        if let Some((from, to)) = self.believed {
            self.reading = readable(from.max(first), to.min(last));
            if let Some(from) = self.reading {
                return Some((from, to.min(last), PIECE_BYTES));
            }
            // What lies behind a hole that is owed is not read before it is filled.
            self.believed = self.believed.filter(|(_, to)| *to > last && *to >= first);
        }
        if self.interval.is_zero() {
            return None;
        }
        if self.due.is_none() {
            self.due = Some(now.after(self.wait(PIECE_BYTES.into(), journal)));
        }
        if self.due.is_none_or(|due| now < due) {
            return None;
        }
        // Behind the last entry a pass begins anew.
        let Some(from) = readable(self.next, last).or_else(|| readable(first, last)) else {
            self.due = Some(now.after(self.interval));
            return None;
        };
        self.reading = Some(from);
        Some((from, last, PIECE_BYTES))
    }

    /// What was read is good up to here, or known to be bad, and had so many bytes.
    fn end(&mut self, through: LogIndex, bytes: u64, now: Instant, journal: &Journal) {
        self.reading = None;
        self.next = through.next();
        self.bytes += bytes;
        if let Some((from, to)) = self.believed {
            self.believed = Some((from.max(through.next()), to)).filter(|(from, to)| from <= to);
        }
        self.due = (!self.interval.is_zero()).then(|| now.after(self.wait(bytes, journal)));
    }

    /// How long a pass may take over so many bytes.
    fn wait(&self, bytes: u64, journal: &Journal) -> Duration {
        let all = u128::from(journal.bytes_after(LogIndex(0)).max(1));
        let share = self.interval.as_nanos() * u128::from(bytes).min(all) / all;
        Duration::from_nanos(u64::try_from(share).unwrap_or(u64::MAX))
    }
}

impl Storage {
    /// A piece was read, and is good.
    pub(super) fn on_scrubbed(&mut self, now: Instant, back: &ReadBack) {
        self.ops.met(Mark::LogScrubbed);
        self.scrub.end(back.last, back.frames.len() as u64, now, &self.journal);
    }

    /// The scrub came upon a bad entry. Where nobody else has it the node goes on: its machine holds
    /// what the entry did, and the next snapshot will.
    pub(super) fn on_scrubbed_bad(&mut self, now: Instant, bad: BadEntry) {
        self.ops.met(Mark::ScrubFoundBadEntry);
        self.reads.drop_wish(Reader::Scrub);
        let bytes = u64::from(bad.slot.total_bytes);
        self.scrub.end(bad.slot.id.index, bytes, now, &self.journal);
        if self.snapshots.has_peers {
            self.on_bad_entry(bad);
        } else {
            let file = File::Segment(bad.sequence);
            self.tell_bad(file, format_args!("entry {} is", bad.slot.id));
        }
    }

    /// The scrub came upon an entry that has neither witness left. The same holds.
    pub(super) fn on_scrubbed_lost(&mut self, now: Instant, lost: Lost) {
        if self.snapshots.has_peers {
            self.on_lost(lost);
        } else {
            self.reads.drop_wish(Reader::Scrub);
            self.tell_bad(lost.file, format_args!("{} is", lost.expected));
            let last = self.journal.last_of(lost.file).unwrap_or(self.scrub.next);
            self.scrub.end(last, 0, now, &self.journal);
        }
    }

    fn tell_bad(&mut self, file: File, what: std::fmt::Arguments<'_>) {
        let text = format!(
            "{file}: {what} bad, and no other node has it; take a snapshot or a backup now, for \
             the next start cannot read it"
        );
        self.ops.note(Note::Recovery(text.into()));
    }
}
