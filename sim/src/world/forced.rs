//! A lost quorum: one node goes on alone by force, and those of before are left behind.

use super::World;
use crate::{client::Workload, trial::Trial};
use lakebed::{Forced, Halt, Start, StateMachine};

impl<M: StateMachine, W: Workload> World<M, W> {
    /// A node that is down becomes the only voter: from now on it starts by that, however often it
    /// crashes, until that is done. What it lacks is lost, and the oracle knows it; every other
    /// founder is left behind, and stays down until it [comes back](Self::bring_back).
    ///
    /// # Panics
    /// If a founder is up, or the node refuses.
    pub fn force(&mut self, node: usize) -> Forced {
        let founders = self.nodes.len() - self.plan.joining;
        assert!((0..founders).all(|at| !self.nodes[at].is_up()), "who lives is not lost");
        let (disk, start) = (self.nodes[node].disk.clone(), false);
        let start = Start::ForceSoleVoter { acknowledged_loss: start };
        let Trial::Halts(Halt::Forced(plan)) = self.trial(node, disk, start) else {
            panic!("node {} cannot be forced", node + 1)
        };
        let machine = self.fresh_machine();
        self.oracle.on_forced(node, founders, &plan, machine);
        // Whoever was told of what is lost now was told so in vain.
        self.requests.lower_floors(plan.last.index);
        for at in (0..founders).filter(|at| *at != node) {
            self.nodes[at].scars.is_out = true;
        }
        self.note(Some(node), || format!("is forced: {plan}"));
        self.forcing = Some(node);
        self.schedule_start(node, 0);
        *plan
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
