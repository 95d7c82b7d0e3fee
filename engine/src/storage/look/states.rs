//! Which snapshots count, and which part of one can be gone on with.

use super::Look;
use crate::{
    file::File,
    storage::{
        found::{PartFound, SnapshotFound},
        leftover::Leftover,
        snapshots::{self, SnapshotFile},
    },
    types::LogId,
};

impl Look {
    /// Only snapshots that are whole count, and only the part that can be gone on with.
    pub(in crate::storage) fn judge_snapshots(&mut self) {
        self.drop_broken_snapshots();
        self.drop_useless_parts();
    }

    fn drop_broken_snapshots(&mut self) {
        let identity = self.hard().identity;
        let is_whole = |found: &SnapshotFound| {
            snapshots::whole(&found.header, &found.footer, found.at, &identity).is_some()
        };
        self.broken = self.snapshots.extract_if(.., |found| !is_whole(found)).collect();
        // What could not be read may be whole, and another start be told.
        let bad = self.broken.iter().filter(|found| !found.is_unread);
        self.doomed.extend(bad.map(|found| File::Snapshot(found.at)));
        // What an install has left behind: no log leads on from there.
        let (first, newest) = (self.hard().first.index, self.snapshot());
        let is_useless = |found: &mut SnapshotFound| {
            found.at != newest && found.at.index.next() < first && newest.index.next() >= first
        };
        let useless = self.snapshots.extract_if(.., is_useless);
        self.doomed.extend(useless.map(|found| File::Snapshot(found.at)));
    }

    /// Whether there is a whole snapshot besides this one that the log goes on from.
    pub(in crate::storage) fn has_snapshot_beside(&self, n: u32) -> bool {
        let (at, first) = (self.snapshots[n as usize].at, self.hard().first.index);
        let whole = self.whole_snapshots().into_iter().map(|found| found.header.at);
        whole.into_iter().any(|other| other != at && other.index.next() >= first)
    }

    /// Only one install can go on: the one that brings most, if it brings anything.
    fn drop_useless_parts(&mut self) {
        let hard = self.hard();
        let (identity, align) = (hard.identity, self.config.disk_align);
        let known = self.snapshot().index.max(hard.commit_hint);
        let is_useful =
            |part: &PartFound| part.left.at.index > known && part.is_of(&identity, align);
        let best = self.parts.iter().filter(|part| is_useful(part)).map(|part| part.left);
        let best = best.max_by_key(|left| left.at);
        let useless = self.parts.extract_if(.., |part| Some(part.left) != best);
        self.doomed.extend(useless.map(|part| part.file()));
    }

    pub(in crate::storage) fn leftover(&self) -> Option<Leftover> {
        self.parts.last().map(|part| part.left)
    }

    pub(in crate::storage) fn whole_snapshots(&self) -> Vec<SnapshotFile> {
        let identity = self.hard().identity;
        let whole = |found: &SnapshotFound| {
            snapshots::whole(&found.header, &found.footer, found.at, &identity)
        };
        self.snapshots.iter().filter_map(whole).collect()
    }

    pub(in crate::storage) fn snapshot(&self) -> LogId {
        self.snapshots.last().map_or(LogId::ZERO, |found| found.at)
    }

    /// The log begins behind this one: from no other does it lead on.
    pub(super) fn drop_older_snapshots(&mut self, at: LogId) {
        let older = self.snapshots.extract_if(.., |found| found.at != at);
        self.doomed.extend(older.map(|found| File::Snapshot(found.at)));
    }
}
