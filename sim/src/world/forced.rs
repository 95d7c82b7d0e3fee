//! A lost quorum: one node goes on alone by force, and those of before are left behind.

use super::World;
use crate::{client::Workload, oracle::Violation, trial::Trial};
use lakebed::{Forced, Halt, LogIndex, Start, StateMachine};

impl<M: StateMachine, W: Workload> World<M, W> {
    /// A node that is down becomes the only voter: from now on it starts by that, however often it
    /// crashes, until that is done. What it lacks is lost, and the oracle knows it; every other
    /// founder is left behind, and stays down until it [comes back](Self::bring_back).
    ///
    /// # Errors
    /// If its report keeps silent about what is lost, if that is more than what damage can have taken, or
    /// if the node refuses.
    ///
    /// # Panics
    /// If a founder is up.
    pub fn force(&mut self, node: usize) -> Result<Forced, Violation> {
        let founders = self.nodes.len() - self.plan.joining;
        assert!((0..founders).all(|at| !self.nodes[at].is_up()), "who lives is not lost");
        let plan = match self.would_force(node) {
            Ok(plan) => plan,
            Err(halt) => return Err(Violation::new("force is let in", node, halt.to_string())),
        };
        let (machine, spared) = (self.fresh_machine(), self.spared(node, &plan));
        self.oracle.on_forced((node, founders), &plan, spared, machine)?;
        // Whoever was told of what is lost now was told so in vain.
        self.requests.lower_floors(plan.last.index);
        for at in (0..founders).filter(|at| *at != node) {
            self.nodes[at].scars.is_out = true;
        }
        self.note(Some(node), || format!("is forced: {plan}"));
        self.forcing = Some(node);
        self.schedule_start(node, 0);
        Ok(plan)
    }

    /// What a recovery of this node by force would do, or why there is none.
    pub fn would_force(&self, node: usize) -> Result<Forced, Halt> {
        let start = Start::ForceSoleVoter { acknowledged_loss: false };
        match self.trial(node, self.nodes[node].disk.clone(), start) {
            Trial::Halts(Halt::Forced(plan)) => Ok(*plan),
            Trial::Halts(halt) => Err(halt),
            Trial::Starts(_) => unreachable!("a node that is forced does not start"),
        }
    }

    /// The last entry that no damage on the node's disk can have taken: that before the first one that was
    /// struck behind the newest whole snapshot. Beyond the budget nobody can say.
    fn spared(&self, node: usize, plan: &Forced) -> LogIndex {
        let scars = &self.nodes[node].scars;
        if scars.is_ruined {
            return LogIndex(0);
        }
        let struck = scars.entries.iter().map(|struck| LogIndex(u64::from(*struck)));
        let first = struck.filter(|struck| *struck > plan.snapshot.index).min();
        first.map_or(LogIndex(u64::MAX), LogIndex::previous)
    }

    /// Whether a recovery by force is not done yet.
    #[must_use]
    pub const fn is_forcing(&self) -> bool {
        self.forcing.is_some()
    }

    /// A node that was left behind comes back, with the disk that it had.
    pub fn bring_back(&mut self, node: usize) {
        self.nodes[node].scars.is_out = false;
        let founders = self.nodes.len() - self.plan.joining;
        let is_back = |at: &usize| self.oracle.is_left_behind(*at) && !self.is_out(*at);
        if (0..founders).filter(is_back).count() * 2 > founders {
            self.oracle.on_many_back();
        }
        self.restart(node);
    }

    /// Whether this is how a node ends that is forced.
    pub(super) fn ends_force(&mut self, at: usize, halt: &Halt) -> bool {
        let is_done = match halt {
            Halt::Forced(forced) => forced.is_done,
            Halt::Refused { row, .. } => *row == "already-alone",
            _ => false,
        };
        self.forcing.take_if(|node| *node == at && is_done).is_some()
    }
}
