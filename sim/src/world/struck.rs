//! Syncs that fail unheard of what others gave a node, and whether it knows at last what was struck on its
//! disk.

use super::World;
use crate::{
    client::Workload,
    disk::Failure,
    node::Node,
    oracle::{Checked, Oracle},
    plan::Given,
};
use lakebed::{DiskRequest, LogIndex, OpId, StateMachine};

/// An operation that will fail unheard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doomed {
    op: OpId,
    /// The entry that it writes again, if it writes one.
    entry: Option<LogIndex>,
}

impl<M: StateMachine, W: Workload> World<M, W> {
    /// An operation that begins will fail unheard, if it is what that waits for.
    pub(super) fn dooms(&mut self, at: usize, op: OpId, request: &DiskRequest) {
        let Node { next_unheard, unheard, told, disk, .. } = &self.nodes[at];
        let Some((given, _)) = next_unheard.filter(|_| unheard.is_none()) else { return };
        let doomed = match (given, request) {
            (Given::Snapshot, _) if told.is_sync_of_peers(request) => Doomed { op, entry: None },
            (Given::Entry, DiskRequest::Write { file, at: extent, durable: true, .. }) => {
                let entry = self.harmed.mended(at, disk, (*file, extent));
                if entry.is_none() {
                    return;
                }
                Doomed { op, entry }
            }
            _ => return,
        };
        self.nodes[at].unheard = Some(doomed);
    }

    /// It fails, and the process dies before it is told. False if it is another one.
    pub(super) fn fails_unheard(&mut self, at: usize, op: OpId) -> bool {
        let Some(doomed) = self.nodes[at].unheard.take_if(|doomed| doomed.op == op) else {
            return false;
        };
        let node = &mut self.nodes[at];
        let (_, down) = node.next_unheard.take().expect("it waited for this");
        node.disk.fail(op, Failure::CleanKeep).expect_err("it fails");
        self.stats.disk_failures += 1;
        self.struck("unheard-failure");
        self.note(Some(at), || format!("{op:?} fails unheard"));
        doomed.entry.inspect(|entry| self.oracle.on_refill_failed(at, *entry));
        self.kill(at);
        self.schedule_start(at, down);
        true
    }

    /// Once nothing happens any more: what was struck on a disk, and was read since, is whole again, or its node
    /// says what it lacks. Without a scrub nobody reads full segments.
    pub(crate) fn check_struck(&self) -> Checked {
        for (at, node) in self.nodes.iter().enumerate() {
            let Some(engine) = node.engine.as_ref().filter(|_| !node.scars.is_ruined) else {
                continue;
            };
            let probe = engine.probe();
            // Where the log was cut back to is what no restart has read.
            let last = node.last_segment().filter(|last| Some(*last) >= node.began_with);
            let is_read = |file| self.plan.scrubs_often() || Some(file) == last;
            let bad = self.harmed.first_bad(at, &node.disk, probe.first, is_read);
            Oracle::<M>::on_struck(at, &probe, bad)?;
        }
        Ok(())
    }
}
