//! What a story may see of a world without touching it.

use super::World;
use crate::{
    client::Workload,
    disk::SimDisk,
    node::Scars,
    oracle::{Checked, Oracle, Violation},
    plan::{Latency, Plan},
    prng::TAILS_MAX,
    seat::Seat,
    trial::left,
    witness::Inputs,
    world::{Stats, node_id},
};
use lakebed::{Engine, Marks, StateMachine, Status, Tuning, inspect::Probe};
use std::time::Duration;

impl<M: StateMachine, W: Workload> World<M, W> {
    /// Simulated nanoseconds since the beginning.
    #[must_use]
    pub const fn now(&self) -> u64 {
        self.now
    }

    /// What the run amounts to so far.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        Stats { happened: self.agenda.happened(), ..self.stats }
    }

    /// A hash of every event and action so far.
    #[must_use]
    pub const fn digest(&self) -> u64 {
        self.digest.value()
    }

    /// What the world was made from.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The rare situations that any engine has met, and any machine with sessions.
    #[must_use]
    pub fn marks(&self) -> Marks {
        let living = self.nodes.iter().filter_map(|node| node.engine.as_ref());
        let begun = self.marks.and(self.oracle.marks());
        living.fold(begun, |marks, engine| marks.and(engine.status().marks))
    }

    /// Those that a node has met in its present life.
    #[must_use]
    pub fn marks_of(&self, node: usize) -> Marks {
        let engine = self.nodes[node].engine.as_ref();
        engine.map_or(Marks::NONE, |engine| engine.status().marks)
    }

    /// How many operations were drawn for each client until everything was healed.
    #[must_use]
    pub fn asked(&self) -> Vec<u32> {
        let now = || self.clients.iter().map(|client| client.asked).collect();
        self.healed.clone().unwrap_or_else(now)
    }

    /// Whether every message comes before a follower may stand for want of it: the last of a leader's heartbeats
    /// before it was sent when the first message of the delay was.
    pub(crate) fn has_prompt_links(&self) -> bool {
        let Latency { least, tail } = self.plan.links.latency;
        // Of [`Draw::delay`](crate::prng::Draw::delay) there is none longer.
        let slowest = Duration::from_nanos(least + TAILS_MAX * tail);
        let in_time = |tuning: Tuning| {
            let Tuning { heartbeat, election, .. } = self.times.of(&tuning);
            slowest + heartbeat < election.0
        };
        self.plan.tunings().all(in_time)
    }

    /// Whether what lies on the disks is no more than is to be there once nothing happens.
    pub(crate) fn check_disks(&self) -> Checked {
        for (at, node) in self.nodes.iter().enumerate() {
            let Some(engine) = node.engine.as_ref().filter(|engine| engine.probe().ready) else {
                continue;
            };
            let failed = self.stats.disk_failures > 0;
            Oracle::<M>::on_disk(at, &node.disk, &engine.status(), (&self.plan, failed))?;
            let left = left(|| self.engine(at, 1), &node.disk, self.plan.seed);
            let is_struck = failed || node.scars.has_any();
            Oracle::<M>::on_rest(at, engine.probe().durable, &left, is_struck)?;
        }
        Ok(())
    }

    /// Nobody wants to be connected with who is no member, by what it knows of them.
    pub(crate) fn check_wanted(&self) -> Checked {
        for (at, node) in self.nodes.iter().enumerate() {
            let Some(members) = node.engine.as_ref().and_then(Engine::membership) else { continue };
            let is_none = |peer: &usize| members.member(node_id(*peer)).is_none();
            if let Some(stranger) = self.network.wanted(at).find(is_none) {
                let stranger = node_id(stranger);
                let what = format!("wants to be connected with node {stranger}, of {members}");
                return Err(Violation::new("only members are wanted", at, what));
            }
        }
        Ok(())
    }

    /// What machines were given, in order; kept only while the run is traced.
    pub(crate) const fn inputs(&self) -> Option<&Inputs> {
        self.oracle.inputs()
    }

    /// A machine that was given nothing.
    pub(crate) fn fresh_machine(&self) -> Seat<M> {
        Seat::new((self.machine)(), self.plan.session_limits())
    }

    /// How many nodes there are.
    #[must_use]
    pub const fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// A look at a node; `None` while it is down.
    #[must_use]
    pub fn probe(&self, node: usize) -> Option<Probe> {
        self.nodes[node].engine.as_ref().map(Engine::probe)
    }

    /// What a node says of itself; `None` while it is down.
    #[must_use]
    pub fn status(&self, node: usize) -> Option<Status> {
        self.nodes[node].engine.as_ref().map(Engine::status)
    }

    /// A node's disk.
    #[must_use]
    pub fn disk(&self, node: usize) -> &SimDisk {
        &self.nodes[node].disk
    }

    /// What became of a node's disk that no crash does.
    pub(crate) fn scars(&self, node: usize) -> &Scars {
        &self.nodes[node].scars
    }

    /// A node's state machine.
    #[must_use]
    pub fn machine(&self, node: usize) -> &M {
        self.nodes[node].runner.machine.machine.machine()
    }
}
