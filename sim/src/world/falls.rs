//! Falls at a step of a disk: counted over all lives of its node, planned or tried in a fork, and what
//! tells two restarts apart.

use super::World;
use crate::{
    client::Workload,
    disk::{Mishap, Outcome, SimDisk},
    node::Node,
};
use lakebed::{StateMachine, tape::Digest};

/// How a node falls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fall {
    /// Its power fails, with this outcome, and a copy of its hard state rots.
    Power(Outcome, Option<u8>),
    /// Its process dies: nothing is lost that was written, and nothing made durable by that.
    Kill,
}

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

    /// In which ways an operation of a node's disk can end badly, by its number; in none if it is not in
    /// flight.
    pub(crate) fn mishaps(&self, node: usize, operation: u64) -> &'static [Mishap] {
        let Node { flights, disk, .. } = &self.nodes[node];
        let flight = flights.iter().find(|(_, number)| **number == operation);
        flight.map_or(&[], |(op, _)| disk.mishaps(*op))
    }

    /// Whether an operation of a node's disk is yet to end badly.
    pub(crate) fn awaits_mishap(&self, node: usize) -> bool {
        !self.nodes[node].mishaps.is_empty()
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

    /// A node is to fall right after this step of its disk.
    pub(super) fn plan_fall(&mut self, node: usize, step: u64, fall: Fall, down: u64) {
        self.awaits_falls = true;
        self.nodes[node].falls.insert(step, (fall, down));
    }

    /// Falls whose step has come. Between events: so a world that is forked there, and in which the
    /// node falls, goes on as one does in which that was planned.
    pub(super) fn fall_due(&mut self) {
        if !self.awaits_falls {
            return;
        }
        for at in 0..self.nodes.len() {
            let node = &mut self.nodes[at];
            let is_due = |step: u64| step <= node.steps;
            while let Some(next) = node.falls.first_entry().filter(|next| is_due(*next.key())) {
                let (fall, down) = next.remove();
                if node.is_up() {
                    return self.fall_now(at, fall, down);
                }
            }
        }
    }

    /// A node falls, and comes back.
    pub(crate) fn fall_now(&mut self, at: usize, fall: Fall, down: u64) {
        match fall {
            Fall::Power(outcome, rot) => {
                self.struck("power-cut-at");
                let disk = &mut self.nodes[at].disk;
                self.stats.crashes += 1;
                self.stats.crashes_with_writes_pending += u64::from(disk.has_pending_sectors());
                disk.cut_power_to(outcome, self.plan.seed);
                self.note(Some(at), || format!("power cut, {outcome:?}"));
                rot.inspect(|copy| self.rot_hard_state(at, *copy));
                self.buried(at);
            }
            Fall::Kill => {
                self.struck("kill-at");
                self.kill(at);
            }
        }
        self.schedule_start(at, down);
    }
}
