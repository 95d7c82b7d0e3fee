//! A snapshot that a node goes by is durable: its log may go for its sake (Raft §7; recovery.md, the
//! install).
//!
//! A restart that goes on with an install finds what an earlier life received in the cache, where it may count
//! as clean after a sync that failed: no later sync writes it.

use super::{Checked, Seen, Violation};
use crate::disk::SimDisk;
use lakebed::{File, LogId};

/// The snapshot that each node was seen to go by.
#[derive(Clone, Debug)]
pub(super) struct Snapshots(Vec<LogId>);

impl Snapshots {
    pub(super) fn new(nodes: usize) -> Self {
        Self(vec![LogId::ZERO; nodes])
    }

    pub(super) fn on_death(&mut self, node: usize) {
        self.0[node] = LogId::ZERO;
    }

    /// A node that was judged showed something, and what it wants of its disk by now has not begun.
    pub(super) fn on_view(&mut self, seen: &Seen<'_>, disk: &SimDisk) -> Checked {
        let at = seen.probe.snapshot;
        if std::mem::replace(&mut self.0[seen.node], at) == at {
            return Ok(());
        }
        if disk.has_pending_sectors_of(File::Snapshot(at)) {
            let what = format!("goes by its snapshot of {at}, and a power cut may lose some of it");
            return Err(Violation::new("snapshots are durable", seen.node, what));
        }
        Ok(())
    }
}
