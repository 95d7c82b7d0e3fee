//! Whether a storage has nothing to do but to write what is appended: its half of
//! [plain turns](crate::engine).
//!
//! Invariant: while `is_plain` holds, `persist` would do nothing but write entries and say in the
//! hard state, some time, that they are durable; and of what it tells consensus nothing changes but
//! how far the log is durable, and whether it keeps up.

use super::Storage;
use crate::types::Instant;

impl Storage {
    pub(crate) const fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// Something else happened, or may be due: `persist` looks after everything.
    pub(crate) const fn stray(&mut self) {
        self.is_plain = false;
    }

    /// After `persist`: whether all of it is needed before something else happens.
    pub(crate) fn look_around(&mut self) {
        let promises = self.promises.as_ref();
        self.is_plain = self.restart.is_none()
            && promises.is_some_and(|promises| promises.is_idle())
            && self.journal.is_plain()
            && self.snapshots.are_at_rest()
            && !self.installing.is_under_way()
            && !self.installing.has_to_record()
            && self.compaction.is_at_rest(&self.journal, &self.snapshots)
            && self.scrub.is_waiting()
            && self.reads.is_idle()
            && self.giving_up.is_none()
            && self.fault.is_none();
    }

    /// Writes what was appended. What comes up by that is not plain any more: the segment is full,
    /// or the hard state is to say what is durable.
    pub(super) fn go_on_writing(&mut self, now: Instant) {
        let promises = self.promises.as_mut().expect("the restart is over");
        if self.journal.is_full() {
            return self.stray();
        }
        self.journal.go_on_writing(now, promises, &mut self.ops);
        promises.hint(self.journal.durable(), self.committed);
        self.is_plain = promises.is_at_rest();
    }
}
