//! Room: what a storage does that has none, and what it keeps of what it has.

use super::*;
use crate::storage::{compact::SNAPSHOTS_KEPT, roll::Roll};

impl Walk {
    /// After each step: nobody would spin on what has passed, and what a member lacks is there as long as
    /// it is not too much, or there is no room for it.
    pub(super) fn watch_room(&mut self) {
        let deadline = self.storage.deadline();
        assert!(deadline.is_none_or(|at| at > self.now), "{deadline:?} has passed: {:?}", self.now);
        let is_said = self.storage.seeks_room() || self.storage.is_full();
        assert!(!is_said || self.storage.sought_room() > 0, "full, and never asked");
        let is_spare = |file| self.device.len(file) >= Some(self.storage.journal.segment_bytes);
        let is_useful = self.storage.journal.spares.waiting().any(is_spare);
        assert!(!self.storage.is_full() || !is_useful, "full, and the next segment is there");
        let first = self.storage.first();
        let is_another = self.known.installing.is_some() || self.known.is_struck || self.has_failed;
        // One segment more would have been too much.
        let Config { segment_bytes, ref tuning, .. } = tuned(self.swarm);
        let kept = self.storage.journal.bytes_after(first) + 2 * segment_bytes;
        let most = [tuning.retain_log_bytes, tuning.transfer_log_bytes_max];
        for (lacked, most) in self.retained.iter_mut().zip(most) {
            if is_another || self.storage.is_full() || kept > most {
                *lacked = LogIndex(u64::MAX);
            }
            assert!(first <= *lacked, "{first} is the first, {lacked} is lacked");
        }
    }

    /// Nothing more is asked while there is no room: whatever can end does, and time passes.
    pub(super) fn starve(&mut self) {
        let mut sought = Vec::new();
        if self.recovered.is_some() && !self.is_over && self.draw.ratio(1, 2) {
            self.crowd();
        }
        for _ in 0..8 {
            while self.complete() {}
            self.repair();
            self.settle();
            while self.complete() {}
            if self.is_over {
                return;
            }
            sought.push(Some(self.storage.sought_room()).filter(|_| self.storage.is_full()));
            self.now = self.now.after(Duration::from_secs(2));
            self.settle();
        }
        while self.complete() {}
        if !self.is_over && !self.has_failed && self.known.installing.is_none() {
            self.judge_full(&sought);
        }
    }

    /// The log is to have no room, and a snapshot to wait for it.
    fn crowd(&mut self) {
        let little = self.draw.between(8, 30) << 10;
        self.device.limit(Some(little));
        for _ in 0..30 {
            if self.is_over || self.known.installing.is_some() || self.joining.is_some() {
                return;
            }
            self.append();
            self.commit();
            self.apply();
            self.settle();
            if self.storage.is_full() && self.draw.ratio(1, 2) {
                break;
            }
            while self.draw.ratio(2, 3) && self.complete() {}
        }
        if !self.is_over {
            self.capture();
            self.settle();
        }
    }

    /// Who has no room says so, asks again now and then, and gives back what is not needed.
    fn judge_full(&self, sought: &[Option<u32>]) {
        let Storage { journal, snapshots, reads, .. } = &self.storage;
        let has_room = self.device.room_left() >= journal.segment_bytes;
        let is_owed = self.storage.first_owed().is_some() || journal.cut.is_some();
        if !self.storage.is_full() {
            let is_all = journal.durable() == journal.last.index;
            return assert!(is_all || is_owed, "{} of {}", journal.durable(), journal.last);
        }
        let soon = self.now.after(Duration::from_secs(1));
        let is_held = journal.cut.is_some();
        let is_due = self.storage.deadline().is_some_and(|at| at <= soon);
        assert!(is_due || is_held, "nobody asks for room again");
        assert!(!has_room, "{} bytes are left, and it is full", self.device.room_left());
        // It may have had some at first.
        let rises = sought[4..].windows(2).all(|pair| pair[0].is_none() || pair[0] < pair[1]);
        assert!(rises, "room is not asked for again: {sought:?}");
        let waits = matches!(journal.roll, Roll::WantSpare(_));
        let saved = snapshots.saving.as_ref().map(|saving| saving.header.at.index);
        let is_stuck = waits && saved.is_some_and(|at| at > journal.durable());
        assert!(!is_stuck, "{saved:?} waits for a log without room");
        let Some(older) = snapshots.whole.iter().rev().nth(SNAPSHOTS_KEPT - 1) else { return };
        let last =
            journal.sealed.front().filter(|_| journal.active.is_some() || journal.sealed.len() > 1);
        let is_used = |sequence| reads.uses(sequence) || journal.holes.uses(sequence);
        let useless =
            last.filter(|s| s.last.index <= older.header.at.index && !is_used(s.sequence));
        assert!(useless.is_none() || journal.cut.is_some(), "{useless:?} takes room");
    }
}
