//! Nothing at or above an entry that a restart found bad is called durable before the entry is on the disk
//! again (recovery.md, refill).
//!
//! Asked where that is hard to tell: its write failed while the process died, and the cache shows it. Whoever
//! believes that acknowledges what a power cut takes back. Damage is done to what is bad by what the disk has,
//! so no entry is ever lost by that here: this looks at what the next damage could have taken.

use super::{Checked, Seen, Violation};
use lakebed::LogIndex;

/// Of each node the entry that it owed when its write failed.
#[derive(Clone, Debug)]
pub(super) struct Refills(Vec<Option<LogIndex>>);

impl Refills {
    pub(super) fn new(nodes: usize) -> Self {
        Self(vec![None; nodes])
    }

    /// An entry was written again, and is not on the disk; `owed`: the first one that keeps what lies behind it
    /// from being called durable.
    pub(super) fn on_failed(&mut self, node: usize, entry: LogIndex, owed: Option<LogIndex>) {
        if owed == Some(entry) {
            self.0[node] = owed;
        }
    }

    /// `would_stay`: whether a power cut would leave this entry bad.
    pub(super) fn on_view(
        &mut self,
        seen: &Seen<'_>,
        would_stay: impl FnOnce(LogIndex) -> bool,
    ) -> Checked {
        let (probe, owed) = (&seen.probe, &mut self.0[seen.node]);
        let Some(entry) = *owed else { return Ok(()) };
        if probe.owed.is_some_and(|owed| owed <= entry) {
            return Ok(());
        }
        *owed = None;
        // What a snapshot holds as well is owed by nobody.
        let is_held = entry < probe.first || entry <= probe.snapshot.index;
        if is_held || probe.durable < entry || !would_stay(entry) {
            return Ok(());
        }
        let what = format!(
            "calls {} durable, and entry {entry}, which was bad, would be again after a power cut",
            probe.durable
        );
        Err(Violation::new("what is written again is durable", seen.node, what))
    }
}
