//! What becomes of disks that no crash does, within the budget: there is no room, or something rots.

use super::{Group, Groups, SITE_CRASH};
use crate::{
    client::Workload,
    disk::Survivors,
    harm::{Patient, harm, rot_hard_state},
    oracle::{Checked, Seen},
    plan::{Harm, Part},
    trial::{Trial, after_power_cut, log, proven, refuses, trial},
};
use lakebed::{GroupId, Halt, LogIndex, StateMachine};
use std::collections::BTreeSet;

impl<M: StateMachine, W: Workload> Groups<M, W> {
    /// There is no more room on a node, for any of its groups.
    pub(super) fn fill_disks(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        node.is_full = true;
        node.seats.values_mut().for_each(super::seats::Seat::fill);
    }

    /// There is room again.
    pub(super) fn empty_disks(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        node.is_full = false;
        node.seats.values_mut().for_each(|seat| seat.disk.set_room(u64::MAX));
    }

    /// A node loses power and comes back, or is down already; one of its groups finds a copy of its
    /// hard state rotten then, if both were whole.
    pub(super) fn fell_with_rot(
        &mut self,
        node: usize,
        survivors: Survivors,
        rot: Option<u8>,
        down: u64,
    ) {
        let is_judged = |id: &GroupId| self.probe(node, *id).is_some_and(|probe| probe.judged);
        let judged: Vec<GroupId> =
            self.nodes[node].seats.keys().copied().filter(is_judged).collect();
        self.fell(node, Some(survivors), down);
        let Some(copy) = rot.filter(|_| !judged.is_empty()) else { return };
        let group = *self.draws.lane(super::SITE_VICTIM, node as u32).pick(&judged);
        let seat = self.nodes[node].seats.get_mut(&group).expect("it was judged");
        rot_hard_state(&mut seat.disk, copy);
        self.stats.disk_failures += 1;
        self.note(Some(node), Some(group), || format!("copy {copy} of the hard state rots"));
    }

    /// A node loses power, and a part of the disk of one of its groups is damaged.
    pub(super) fn damage(
        &mut self,
        node: usize,
        (part, how, pick): (Part, Harm, u64),
        survivors: Survivors,
        down: u64,
    ) {
        if self.is_up(node) {
            self.fell(node, Some(survivors), down);
        } else {
            let draw = self.disks.lane(SITE_CRASH, node as u32);
            let seats = self.nodes[node].seats.values_mut();
            seats.for_each(|seat| seat.disk.cut_power(survivors, draw));
        }
        let Some(id) = self.victim(node) else { return };
        let is_entries = part == Part::Entries;
        if is_entries && self.groups[&id].changes.are_under_way() {
            return;
        }
        let held = if is_entries { self.held(node, id) } else { LogIndex(0) };
        let scarce = if is_entries { self.scarce(node, id) } else { BTreeSet::new() };
        let geometry = self.plan.geometry;
        let found = self.nodes[node].seats.get(&id).filter(|_| part == Part::Snapshot);
        let log = found.and_then(|seat| log(self.engine(id, node, 1), &seat.disk));
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some(seat) = self.nodes[node].seats.get_mut(&id) else { return };
        let (disk, scars, scarce) = (&seat.disk, &seat.scars, &scarce);
        let patient = Patient { disk, scars, geometry, scarce, held, log };
        let Some((file, at)) = patient.place(part, pick) else { return };
        let (disk, harmed) = (&mut seat.disk, &mut group.harmed);
        harm((node, disk), harmed, geometry, part, (file, at), how);
        seat.scars.entries.extend(group.harmed.of(node));
        seat.scars.files.push(file);
        self.struck("damage");
        self.note(Some(node), Some(id), || {
            format!("damaged: {part:?} of {file} at byte {at}, {how:?}")
        });
    }

    /// As in the world of one group: what a group's member has said is true of its disk.
    pub(super) fn try_power_cut(&self, node: usize, id: GroupId) -> Checked {
        let disk = after_power_cut(&self.nodes[node].seats[&id].disk, self.plan.seed);
        self.groups[&id].oracle.on_left(node, log(self.engine(id, node, 1), &disk))?;
        match trial(self.engine(id, node, 1), disk, lakebed::Start::Run) {
            Trial::Starts(engine) => {
                let seen = Seen { node, probe: engine.probe(), engine: &engine, clocks: None };
                self.groups[&id].oracle.on_trial(&seen)
            }
            Trial::Halts(Halt::Removed) if self.groups[&id].oracle.is_former(node) => Ok(()),
            Trial::Halts(halt) => Err(refuses(node, &halt)),
        }
    }

    /// As in the world of one group.
    fn scarce(&self, node: usize, id: GroupId) -> BTreeSet<u32> {
        let Group { oracle, harmed, .. } = &self.groups[&id];
        let may_lack = |index, lacks: &dyn Fn(usize) -> bool| oracle.may_lack(index, lacks);
        harmed.scarce(node, |of| self.nodes[of].seats.get(&id).map(|seat| &seat.disk), may_lack)
    }

    /// As in the world of one group: how far every quorum has the log without this node, and this one can
    /// prove it.
    fn held(&self, node: usize, id: GroupId) -> LogIndex {
        let oracle = &self.groups[&id].oracle;
        if oracle.was_alone(node) {
            return LogIndex(0);
        }
        let disk = &self.nodes[node].seats[&id].disk;
        oracle.held_without(node).min(proven(self.engine(id, node, 1), disk))
    }
}
