//! What the machine can be brought back to: captures, the newest snapshot, and how much log stands
//! behind it.
//!
//! The part of the treaty that is about the machine's state rather than the log.

use super::{Storage, look};
use crate::{
    file::DiskError,
    membership::Membership,
    types::{LogId, LogIndex, Timestamp},
};
use std::sync::Arc;

impl Storage {
    /// Where the machine stands by itself, once it does: apply begins behind it. It may be an
    /// older snapshot than [`Recovered::snapshot`], if that one turned out to be bad.
    pub(crate) const fn restored(&self) -> Option<LogId> {
        self.snapshots.restored()
    }

    /// Whether a capture at `at` could begin now: not where a file is pinned, which stays as it is.
    pub(crate) fn can_capture(&self, at: LogId) -> bool {
        self.snapshots.restored().is_some()
            && self.snapshots.saving.is_none()
            // It would have to wait for what is missing.
            && self.first_owed().is_none_or(|owed| at.index < owed)
            && !self.snapshots.pins.uses(at)
            && !self.installing.is_under_way()
    }

    /// Captures the machine as it is after `at`, of which nothing was of a later time; false if a capture runs
    /// or `at` is no news.
    pub(crate) fn capture(&mut self, at: LogId, members: Arc<Membership>, time: Timestamp) -> bool {
        self.stray();
        if self.installing.is_under_way() {
            return false;
        }
        let number = look::draw(self.seed ^ at.index.0.rotate_left(32)).max(1);
        self.snapshots.capture(at, (members, time), number, &mut self.ops)
    }

    /// Why the save of a snapshot was given up since this was asked last.
    pub(crate) const fn take_given_up(&mut self) -> Option<DiskError> {
        self.snapshots.take_given_up()
    }

    /// The newest durable snapshot.
    pub(crate) fn snapshot(&self) -> LogId {
        self.snapshots.newest()
    }

    /// Bytes of log written in this life.
    pub(crate) const fn written_bytes(&self) -> u64 {
        self.journal.written_bytes
    }

    /// Bytes of log since the newest snapshot, and that snapshot's bytes.
    pub(crate) fn snapshot_debt(&self) -> (u64, u64) {
        let newest = self.snapshots.newest();
        (self.journal.bytes_after(newest.index), self.snapshots.newest_bytes())
    }

    /// Log from here on is kept for peers, as far as the limit goes; from `pinned` on whatever it
    /// takes.
    pub(crate) fn retain(&mut self, from: LogIndex, pinned: Option<LogIndex>) {
        self.compaction.retain(from, pinned);
    }

    /// The first index still in the log.
    pub(crate) fn first(&self) -> LogIndex {
        self.journal.first()
    }
}
