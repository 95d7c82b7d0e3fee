//! Snapshots that turned out bad while the node runs: by its scrub, or when a peer was to be sent one.
//!
//! Such a snapshot does not count any more: no peer is sent it, no log goes for its sake, the one
//! before it stands for it, and another one is to be taken. Its file stays until a newer one is
//! durable, or one of the same place takes its name: a restart that comes upon it goes back to the
//! one before, as ever. Invariant: a snapshot counts, or is spoilt, and never both.

use super::{
    Storage,
    compact::SNAPSHOTS_KEPT,
    ops::Ops,
    scrub::BadSnapshot,
    snapshots::{SnapshotFile, Snapshots},
};
use crate::{
    action::Note,
    file::File,
    marks::Mark,
    types::{LogId, LogIndex},
};

impl Storage {
    pub(super) fn on_bad_snapshot(&mut self, bad: &BadSnapshot) {
        let snapshots = &mut self.snapshots;
        let is_bad = |at: LogId, id| (at, id) == (bad.at, bad.id);
        let place = snapshots.whole.iter().position(|s| is_bad(s.header.at, s.header.id));
        // It may have gone while it was read.
        let Some(place) = place else { return };
        self.ops.met(Mark::SnapshotFoundBad);
        let spoilt = snapshots.whole.remove(place);
        let then = match snapshots.whole.last() {
            Some(newest) => format!("{} stands for it", newest.file()),
            None => "there is no other".into(),
        };
        let text = format!("{}: {}; {then}, and another one is taken", spoilt.file(), bad.what);
        self.ops.note(Note::Recovery(text.into()));
        snapshots.spoil(spoilt);
        let (newest, align) = (snapshots.whole.last(), self.config.disk_align);
        snapshots.serving.forget(bad.at, newest, align, &mut self.ops);
    }

    /// How many snapshots on this disk are known to be bad.
    pub(crate) fn spoilt_snapshots(&self) -> u32 {
        self.snapshots.spoilt.len() as u32
    }

    /// Whether a snapshot at `at` is to be taken because another one has turned out bad, or an entry
    /// that nobody else has.
    pub(crate) fn wants_fresh(&self, at: LogId) -> bool {
        let snapshots = &self.snapshots;
        snapshots.wants_fresh
            && snapshots.spoilt.iter().all(|spoilt| spoilt.header.at <= at)
            && self.unstood.is_none_or(|last| last <= at.index)
            && self.journal.holes.last().is_none_or(|hole| snapshots.has_peers || hole <= at.index)
    }

    /// Whether one is to be taken at any place.
    pub(crate) const fn owes_fresh(&self) -> bool {
        self.snapshots.wants_fresh
    }

    /// The newest snapshot, or what this log began behind when it was one: what lies before is
    /// gone from the log, and the machine holds it.
    pub(crate) fn covered(&self) -> LogId {
        let spoilt = self.snapshots.spoilt.last().filter(|_| self.snapshots.whole.is_empty());
        spoilt.map_or_else(|| self.snapshots.newest(), |spoilt| spoilt.header.at)
    }
}

impl Snapshots {
    /// It does not count any more.
    pub(super) fn spoil(&mut self, spoilt: SnapshotFile) {
        let place = self.spoilt.partition_point(|other| other.header.at < spoilt.header.at);
        self.spoilt.insert(place, spoilt);
        self.wants_fresh = true;
    }

    /// The log begins behind this entry: from a snapshot below it nothing leads on.
    pub(super) fn spoil_below(&mut self, last: LogIndex, ops: &mut Ops) {
        let below = self.whole.partition_point(|snapshot| snapshot.header.at.index < last);
        for useless in self.whole.drain(..below).collect::<Vec<_>>() {
            self.serving.forget(useless.header.at, self.whole.last(), self.align, ops);
            self.spoil(useless);
        }
    }

    /// A snapshot of this place has its name: what had it before is gone with that.
    pub(super) fn freshen(&mut self, at: LogId) {
        self.spoilt.retain(|spoilt| spoilt.header.at != at);
        self.unread.retain(|(file, _)| *file != File::Snapshot(at));
        self.wants_fresh = false;
    }

    /// A pass of the scrub has come to its end, and found this bad entry last.
    pub(super) fn want_again(&mut self, hole: Option<LogIndex>) {
        self.wants_fresh |= !self.spoilt.is_empty();
        self.stand_for(hole);
    }

    /// A snapshot is to stand for entries that are bad, up to this one, if nobody else has them:
    /// without it the next start would be refused.
    pub(super) fn stand_for(&mut self, hole: Option<LogIndex>) {
        self.wants_fresh |= !self.has_peers && hole > Some(self.newest().index);
    }

    /// Spoilt files that a newer snapshot stands for, and that nobody reads; and those that could not be
    /// read, and would not be kept if they could.
    pub(super) fn take_superseded(&mut self) -> Vec<File> {
        let (newest, pins) = (self.newest(), &self.pins);
        let goes = |s: &mut SnapshotFile| s.header.at < newest && !pins.uses(s.header.at);
        let spoilt = self.spoilt.extract_if(.., goes).map(|spoilt| spoilt.file());
        let kept = self.whole.iter().rev().nth(SNAPSHOTS_KEPT - 1).map(SnapshotFile::file);
        let is_pinned = |file| matches!(file, File::Snapshot(at) if pins.uses(at));
        let goes = |file| kept.is_some_and(|kept| file < kept) && !is_pinned(file);
        let unread = self.unread.extract_if(.., |(file, _)| goes(*file));
        spoilt.chain(unread.map(|(file, _)| file)).collect()
    }
}
