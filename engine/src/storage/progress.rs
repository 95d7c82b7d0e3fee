//! How far a restart is, from its first read until the machine has caught up.
//!
//! The stages before the verdict tell their own part (`recovery.rs`). Decides nothing.

use super::{Reader, Storage};
use crate::{
    action::Note,
    status::{Phase, Recovery},
    types::{Instant, LogId, LogIndex},
};

impl Storage {
    /// How the restart goes.
    pub(crate) fn recovery(&self, applied: LogIndex) -> Recovery {
        let mut report = self.report.clone();
        (report.entries_refilled, report.entries_missing) = self.journal.holes.count();
        if let Some((done, total)) = self.snapshots.progress() {
            (report.bytes_done, report.bytes_total) = (done, total);
        }
        match report.phase {
            Phase::Replay => {
                let left = self.replay_to.0.saturating_sub(applied.0);
                report.entries_done = report.entries_total.saturating_sub(left);
            }
            // A peer's snapshot takes the place of what there was.
            Phase::Ready if self.snapshots.restored().is_none() => report.phase = Phase::Restore,
            _ => {}
        }
        report
    }

    /// Goes on with what follows the verdict: the machine takes in the snapshot, then applies what
    /// was known to be committed, of which it was given so much and has `applied` so much. True when that
    /// is done.
    pub(crate) fn catch_up(&mut self, now: Instant, applied: LogIndex, given: LogId) -> bool {
        if self.keeps_state
            && !self.installing.is_under_way()
            && let Some(held) = self.held_and_cut_off(given)
        {
            // What it waited for it does not wait for now.
            self.reads.drop_wish(Reader::Machine);
            self.snapshots.replace_state(held, &mut self.ops);
        }
        if self.report.phase == Phase::Restore
            && let Some(restored) = self.snapshots.restored()
        {
            self.enter(Phase::Replay, now);
            self.report.entries_total = self.replay_to.0.saturating_sub(restored.index.0);
        }
        let has_state = self.snapshots.restored().is_some();
        let is_over = self.report.phase == Phase::Replay && has_state && applied >= self.replay_to;
        if is_over {
            self.enter(Phase::Ready, now);
            self.reads.end_replay();
            self.report.entries_done = self.report.entries_total;
            self.ops.note(Note::Recovery(self.report.told().into()));
        }
        is_over
    }

    /// How far the state of a machine goes that keeps its own and was `given` so much, if it waits for an
    /// entry that the log has lost, or begins behind by now, and that a snapshot here holds: nobody will
    /// give it.
    fn held_and_cut_off(&self, given: LogId) -> Option<LogId> {
        let begun = self.snapshots.restored()?;
        let held = if given.index > begun.index { given } else { begun };
        let (next, newest) = (held.index.next(), self.snapshots.newest().index);
        let is_held = |hole: LogIndex| hole <= newest;
        let is_lost =
            self.journal.holes.first_from(next).is_some_and(is_held) || self.journal.first() > next;
        (is_lost && held.index < newest).then_some(held)
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        self.report.enter(phase, now.since(self.phase_began));
        self.phase_began = now;
    }
}
