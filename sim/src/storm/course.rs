//! The faults of a plan, in the order in which they begin and end.
//!
//! Knows no cluster's duties. Invariant: what happens in the world before a fault's time happens
//! before that fault.

use crate::{
    client::Workload,
    oracle::Violation,
    plan::{Fault, Plan},
    world::World,
};
use lakebed::StateMachine;
use std::sync::Arc;

/// A plan under way: which of its faults are still to begin or to end.
#[derive(Clone, Debug)]
pub(crate) struct Course {
    turns: Arc<[Turn]>,
    next: usize,
}

impl Course {
    /// Of all faults of a plan.
    pub(crate) fn of(plan: &Plan) -> Self {
        Self { turns: turns(&plan.faults).into(), next: 0 }
    }

    /// Whether every fault has begun, and ended if it lasts.
    pub(crate) fn is_over(&self) -> bool {
        self.next == self.turns.len()
    }

    /// Lets the next event happen, or the next fault begin or end; false, if none is to come.
    pub(crate) fn step<M: StateMachine, W: Workload>(
        &mut self,
        world: &mut World<M, W>,
    ) -> Result<bool, Violation> {
        let Some(turn) = self.turns.get(self.next) else { return Ok(false) };
        if world.next_at() < turn.at {
            world.step()?;
            return Ok(true);
        }
        self.next += 1;
        world.pass_until(turn.at);
        if turn.begins {
            world.strike(&turn.fault.kind)?;
        } else {
            world.relent(&turn.fault.kind);
        }
        Ok(true)
    }
}

/// The beginning or the end of a fault.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) at: u64,
    pub(crate) begins: bool,
    pub(crate) fault: Fault,
}

pub(crate) fn turns(faults: &[Fault]) -> Vec<Turn> {
    let mut turns: Vec<Turn> = Vec::new();
    for fault in faults {
        turns.push(Turn { at: fault.at, begins: true, fault: fault.clone() });
        if let Some(lasts) = fault.kind.lasts() {
            turns.push(Turn { at: fault.at + lasts, begins: false, fault: fault.clone() });
        }
    }
    turns.sort_by_key(|turn| turn.at);
    turns
}
