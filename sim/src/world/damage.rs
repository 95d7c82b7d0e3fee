//! Damage within the budget (`harm`), on the disk of a node that lost its power.

use super::World;
use crate::{
    client::Workload,
    disk::Survivors,
    harm::{self, Patient, harm},
    node::Node,
    plan::{Harm, Part},
    trial::log,
};
use lakebed::{LogIndex, StateMachine, report::LogFound};
use std::collections::BTreeSet;

impl<M: StateMachine, W: Workload> World<M, W> {
    /// A machine loses power and comes back, or is down already: its disk holds what is durable.
    pub(super) fn fell(&mut self, node: usize, survivors: Survivors, down: u64) {
        if self.nodes[node].is_up() {
            self.cut_power(node, survivors);
            self.schedule_start(node, down);
        } else {
            let draw = self.disks.lane(super::SITE_CRASH, node as u32);
            self.nodes[node].disk.cut_power(survivors, draw);
        }
    }

    /// Damages one of the places where this part of a node's disk may be.
    pub(super) fn damage(&mut self, node: usize, part: Part, how: Harm, pick: u64) {
        let geometry = self.plan.geometry;
        let is_entries = part == Part::Entries;
        if is_entries && self.changes.are_under_way() {
            return;
        }
        let patient = Patient {
            disk: &self.nodes[node].disk,
            scars: &self.nodes[node].scars,
            geometry,
            scarce: &if is_entries { self.scarce(node) } else { BTreeSet::new() },
            held: if is_entries { self.held(node) } else { LogIndex(0) },
            log: if part == Part::Snapshot { self.log_of(node) } else { None },
        };
        let Some((file, at)) = patient.place(part, pick) else { return };
        let whole = self.nodes[node].disk.clone();
        let (harmed, victim) = (&mut self.harmed, &mut self.nodes[node]);
        harm((node, &mut victim.disk), harmed, geometry, part, (file, at), how);
        victim.scars.entries.extend(harmed.of(node));
        // What is there twice may be ruined once already.
        let is_ruined = self.nodes[node].scars.is_ruined;
        if is_ruined && self.goes_unnoticed(node, file, &self.nodes[node].disk, false) {
            self.nodes[node].disk = whole;
            return;
        }
        self.nodes[node].scars.files.push(file);
        self.struck("damage");
        self.note(Some(node), || format!("damaged: {part:?} of {file} at byte {at}, {how:?}"));
    }

    /// The log on a node's disk.
    fn log_of(&self, node: usize) -> Option<LogFound> {
        log(self.engine(node, 1), &self.nodes[node].disk)
    }

    /// The entries of which too few would have one that is whole, without this node.
    fn scarce(&self, node: usize) -> BTreeSet<u32> {
        let may_lack = |index, lacks: &dyn Fn(usize) -> bool| self.oracle.may_lack(index, lacks);
        self.harmed.scarce(node, |of| Some(&self.nodes[of].disk), may_lack)
    }

    /// How far every quorum has the log without this node, and this one can prove it: above that a bad
    /// entry is torn, and nobody knows better. Nobody is asked for what the only voter has lost, but what its snapshots
    /// hold is no loss.
    fn held(&self, node: usize) -> LogIndex {
        if self.oracle.was_alone(node) {
            let Node { disk, scars, .. } = &self.nodes[node];
            return harm::held_twice(disk, scars);
        }
        self.oracle.held_without(node).min(self.proven(node))
    }
}
