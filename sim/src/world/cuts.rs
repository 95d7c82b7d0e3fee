//! Power cuts at a step of a disk: counted over all lives of its node, planned or tried in a fork, and
//! what tells two restarts apart.

use super::World;
use crate::{
    client::Workload,
    disk::{Outcome, SimDisk},
};
use lakebed::{StateMachine, tape::Digest};

impl<M: StateMachine, W: Workload> World<M, W> {
    /// How often something began or ended on a node's disk, over all its lives.
    #[must_use]
    pub fn disk_steps(&self, node: usize) -> u64 {
        self.nodes[node].steps
    }

    /// How many operations a node's disk was ever given.
    #[must_use]
    pub fn disk_operations(&self, node: usize) -> u64 {
        self.nodes[node].operations
    }

    /// A hash of all that the restart of a node from this disk, which lost its power, can depend
    /// on, and of all that it is held to: names, lengths and bytes, and what it promised others in
    /// all its lives. Two restarts in which it is equal differ only in what others do meanwhile.
    #[must_use]
    pub fn restart_digest(&self, node: usize, disk: &SimDisk) -> u64 {
        let mut digest = Digest::default();
        digest.number(disk.digest());
        self.oracle.promised(node, &mut digest);
        digest.value()
    }

    /// Power cuts whose step has come. Between events: so a world that is forked there and cut goes
    /// on as one does in which the cut was planned.
    pub(super) fn fall_due(&mut self) {
        for at in 0..self.nodes.len() {
            let node = &mut self.nodes[at];
            let is_due = |step: u64| step <= node.steps;
            while let Some(cut) = node.cuts.first_entry().filter(|cut| is_due(*cut.key())) {
                let (outcome, rot, down) = cut.remove();
                if node.is_up() {
                    return self.cut_power_now(at, outcome, rot, down);
                }
            }
        }
    }

    /// The power of a node fails, with this outcome, a copy of its hard state rots, and it comes
    /// back.
    pub(crate) fn cut_power_now(
        &mut self,
        at: usize,
        outcome: Outcome,
        rot: Option<u8>,
        down: u64,
    ) {
        self.struck("power-cut-at");
        let disk = &mut self.nodes[at].disk;
        self.stats.crashes += 1;
        self.stats.crashes_with_writes_pending += u64::from(disk.has_pending_sectors());
        disk.cut_power_to(outcome, self.plan.seed);
        self.note(Some(at), || format!("power cut, {outcome:?}"));
        rot.inspect(|copy| self.rot_hard_state(at, *copy));
        self.buried(at);
        self.schedule_start(at, down);
    }
}
