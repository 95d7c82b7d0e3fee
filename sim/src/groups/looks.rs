//! What can be seen of a world of groups from outside.

use super::{Census, Groups, Sent, node_id};
use crate::{
    client::Workload,
    network::MEMBERS_WANTED,
    node::Scars,
    oracle::{Checked, Oracle, Violation},
    plan::Plan,
    trial::left,
    world::Stats,
};
use lakebed::{GroupId, Host, HostCounters, Marks, NodeId, Role, StateMachine, inspect::Probe};
use std::collections::BTreeSet;

impl<M: StateMachine, W: Workload> Groups<M, W> {
    /// Simulated nanoseconds since the beginning.
    #[must_use]
    pub const fn now(&self) -> u64 {
        self.now
    }

    /// What it was.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How many groups there are to be.
    #[must_use]
    pub const fn census(&self) -> Census {
        self.census
    }

    /// What it amounts to so far.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        Stats { happened: self.agenda.happened(), ..self.stats }
    }

    /// How many operations were drawn for each client until everything was healed.
    pub(crate) fn asked(&self) -> Vec<u32> {
        let now = || self.clients.iter().map(|client| client.asked).collect();
        self.healed.clone().unwrap_or_else(now)
    }

    /// A hash of every event and action.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest.value()
    }

    /// What was sent so far.
    #[must_use]
    pub const fn sent(&self) -> Sent {
        self.sent
    }

    /// The node that was touched last.
    #[must_use]
    pub const fn touched(&self) -> Option<usize> {
        self.touched
    }

    /// How many nodes there are.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Whether a node's process is there.
    #[must_use]
    pub fn is_up(&self, node: usize) -> bool {
        self.nodes[node].host.is_some()
    }

    /// The groups that were not removed.
    #[must_use]
    pub fn living(&self) -> Vec<GroupId> {
        self.groups.iter().filter(|(_, group)| !group.is_removed).map(|(id, _)| *id).collect()
    }

    /// A group's engine on a node, if it is there.
    #[must_use]
    pub fn probe(&self, node: usize, group: GroupId) -> Option<Probe> {
        self.nodes[node].host.as_ref()?.core(group).map(|engine| engine.probe())
    }

    /// Who leads a group in the greatest term.
    #[must_use]
    pub fn leader(&self, group: GroupId) -> Option<usize> {
        (0..self.nodes.len())
            .filter_map(|node| Some((self.probe(node, group)?, node)))
            .filter(|(probe, _)| probe.role == Role::Leader)
            .max_by_key(|(probe, _)| probe.term)
            .map(|(_, node)| node)
    }

    /// Whether a quorum of a group's members is up, and follows who leads there.
    #[must_use]
    pub fn is_led(&self, id: GroupId) -> bool {
        let Some(leader) = self.leader(id) else { return false };
        let follows = |node: usize| {
            self.probe(node, id).is_some_and(|probe| probe.leader == Some(node_id(leader)))
        };
        self.membership(id).is_quorum(|member| follows(member.0 as usize - 1))
    }

    /// Whether enough members of a group are there to be led by one of them, not counting one that may go.
    #[must_use]
    pub fn has_quorum(&self, group: GroupId, without: Option<usize>) -> bool {
        let counts = |member: NodeId| {
            let node = member.0 as usize - 1;
            Some(node) != without && self.probe(node, group).is_some()
        };
        self.membership(group).is_quorum(counts)
    }

    /// Whether every engine of a group is there and rests.
    #[must_use]
    pub fn rests(&self, group: GroupId) -> bool {
        let rests = |node| self.probe(node, group).is_some_and(|probe| probe.hibernates);
        self.members_of(group).into_iter().all(rests)
    }

    /// Whether no engine is left of a group.
    #[must_use]
    pub fn is_gone(&self, group: GroupId) -> bool {
        self.nodes.iter().all(|node| {
            !node.seats.contains_key(&group)
                && node.host.as_ref().is_none_or(|host| host.core(group).is_none())
        })
    }

    /// The rare situations that engines met so far.
    #[must_use]
    pub fn marks(&self) -> Marks {
        let hosts = self.nodes.iter().filter_map(|node| node.host.as_ref());
        let marks = hosts.flat_map(|host| {
            host.groups().filter_map(|group| host.core(group).map(|engine| engine.status().marks))
        });
        marks.fold(self.marks, Marks::and)
    }

    /// What hosts counted so far, all together.
    #[must_use]
    pub fn counted(&self) -> HostCounters {
        let living = self.nodes.iter().filter_map(|node| node.host.as_ref().map(Host::counters));
        living.fold(self.counted, sum)
    }

    /// What became of the disk of a group's member that no crash does.
    pub(super) fn scars(&self, node: usize, group: GroupId) -> &Scars {
        &self.nodes[node].seats[&group].scars
    }

    /// Whether what lies on the disks is no more than is to be there once nothing happens.
    pub(super) fn check_disks(&self) -> Checked {
        for (at, node) in self.nodes.iter().enumerate() {
            let Some(host) = &node.host else { continue };
            for (id, seat) in &node.seats {
                let engine = host.core(*id).filter(|engine| engine.probe().ready);
                let Some(engine) = engine else { continue };
                let met = (&self.plan, self.stats.disk_failures > 0);
                let judged = Oracle::<M>::on_disk(at, &seat.disk, &engine.status(), met);
                let left = left(|| self.engine(*id, at, 1), &seat.disk, self.plan.seed);
                let is_struck = met.1 || seat.scars.has_any();
                let durable = engine.probe().durable;
                let judged =
                    judged.and_then(|()| Oracle::<M>::on_rest(at, durable, &left, is_struck));
                judged.map_err(|violation| super::of_group(*id, violation))?;
            }
        }
        Ok(())
    }

    /// Every host wants to be connected with the other members of its groups, and with nobody else.
    pub(super) fn check_links(&self) -> Checked {
        for (at, node) in self.nodes.iter().enumerate() {
            let Some(host) = &node.host else { continue };
            let members = host.groups().filter_map(|id| host.core(id)?.membership());
            let shared: BTreeSet<NodeId> = members
                .flat_map(|members| members.members().map(|member| member.id).collect::<Vec<_>>())
                .filter(|id| *id != node_id(at))
                .collect();
            let wanted: BTreeSet<NodeId> = self.network.wanted(at).map(node_id).collect();
            if wanted != shared {
                let what = format!("shares groups with {shared:?} and wants {wanted:?}");
                return Err(Violation::new(MEMBERS_WANTED, at, what));
            }
        }
        Ok(())
    }

    /// Every machine of every group that was not removed is what the reference is.
    pub(super) fn compare_states(&self) -> Checked {
        for (id, group) in self.groups.iter().filter(|(_, group)| !group.is_removed) {
            for node in self.members_of(*id) {
                let machine = &self.nodes[node].seats[id].runner.machine.machine;
                let judged = group.oracle.on_state(node, machine);
                judged.map_err(|violation| super::of_group(*id, violation))?;
            }
        }
        Ok(())
    }
}

/// Both together.
pub(super) fn sum(mut one: HostCounters, other: HostCounters) -> HostCounters {
    one.unroutable += other.unroutable;
    one.beats += other.beats;
    one.silences += other.silences;
    one.unseen_restarts += other.unseen_restarts;
    one.departures_seen += other.departures_seen;
    one
}
