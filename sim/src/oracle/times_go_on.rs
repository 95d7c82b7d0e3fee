//! The time of entries does not go back (`StateMachine::apply`), but for one case: who restarts with a
//! snapshot and no entry behind it does not know how late it was, and may lead before anybody tells it.
//!
//! Times are those of the entries that the reference is given, in their order. Knows no clock.

use super::{Checked, Seen, Violation};
use lakebed::{Entry, LogId, Role, Term, Timestamp};
use std::collections::BTreeSet;

#[derive(Clone, Debug)]
pub(super) struct Times {
    /// The last entry that was applied anywhere, and its time.
    last: (LogId, Timestamp),
    /// Where the log of each node ended that began its present life without an entry, while it ends
    /// there still.
    bare: Vec<Option<LogId>>,
    /// Whether each node was seen judged in its present life.
    met: Vec<bool>,
    /// The terms of those who came to lead like that.
    unknowing: BTreeSet<Term>,
}

impl Times {
    pub(super) fn new(nodes: usize) -> Self {
        Self {
            last: (LogId::ZERO, Timestamp(0)),
            bare: vec![None; nodes],
            met: vec![false; nodes],
            unknowing: BTreeSet::new(),
        }
    }

    pub(super) fn on_death(&mut self, node: usize) {
        (self.bare[node], self.met[node]) = (None, false);
    }

    /// What a recovery by force has lost says nothing of the time of what follows.
    pub(super) fn forget(&mut self) {
        self.last = (LogId::ZERO, Timestamp(0));
    }

    /// A node that was judged showed something new.
    pub(super) fn on_view(&mut self, seen: &Seen<'_>) {
        let (node, probe) = (seen.node, &seen.probe);
        if !std::mem::replace(&mut self.met[node], true) {
            self.bare[node] = (probe.first > probe.last.index).then_some(probe.last);
        }
        let Some(bare) = self.bare[node] else { return };
        // Whoever comes to lead appends in the same step.
        if probe.role == Role::Leader {
            self.unknowing.insert(probe.term);
        }
        if probe.last != bare {
            self.bare[node] = None;
        }
    }

    /// The reference is given the next entry.
    pub(super) fn on_entry(&mut self, node: usize, entry: &Entry<'_>) -> Checked {
        let (before, time) = std::mem::replace(&mut self.last, (entry.id, entry.time));
        // The first entry of a reign is the only one that can be earlier: those behind it know it.
        let is_unknowing = entry.id.term > before.term && self.unknowing.contains(&entry.id.term);
        if entry.time >= time || is_unknowing {
            return Ok(());
        }
        let what = format!("applies {} of {} behind {before} of {time}", entry.id, entry.time);
        Err(Violation::new("times go on", node, what))
    }
}
