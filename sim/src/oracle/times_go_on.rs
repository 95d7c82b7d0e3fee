//! The time of entries does not go back (`StateMachine::apply`), whoever leads, whatever its clock says, and
//! with however little of the log it began: a snapshot tells how late it was.
//!
//! Times are those of the entries that the reference is given, in their order. Knows no clock.

use super::{Checked, Violation};
use lakebed::{Entry, LogId, Timestamp};

/// The last entry that was applied anywhere, and its time.
#[derive(Clone, Debug)]
pub(super) struct Times(LogId, Timestamp);

impl Times {
    pub(super) const fn new() -> Self {
        Self(LogId::ZERO, Timestamp(0))
    }

    /// What a recovery by force has lost says nothing of the time of what follows.
    pub(super) const fn forget(&mut self) {
        *self = Self::new();
    }

    /// The reference is given the next entry.
    pub(super) fn on_entry(&mut self, node: usize, entry: &Entry<'_>) -> Checked {
        let Self(before, time) = std::mem::replace(self, Self(entry.id, entry.time));
        if entry.time >= time {
            return Ok(());
        }
        let what = format!("applies {} of {} behind {before} of {time}", entry.id, entry.time);
        Err(Violation::new("times go on", node, what))
    }
}
