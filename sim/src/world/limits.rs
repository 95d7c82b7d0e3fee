//! What is on its way to a node's disk and to its machine stays within what its tuning allows (simulation,
//! I22), and what the machine is told of itself is so.

use super::World;
use crate::{
    client::Workload,
    oracle::{Checked, Violation},
    plan::Plan,
};
use lakebed::{Machine, StateMachine};

/// A cut or a roll of the log, and an entry that is given again, have a write each beside those.
const WRITES_BESIDE: usize = 2;

/// The most that any tuning of a run allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    log_writes: usize,
    apply_bytes: u64,
    restore_bytes: u64,
}

impl Limits {
    pub(super) fn of(plan: &Plan) -> Self {
        let none = Self { log_writes: 0, apply_bytes: 0, restore_bytes: 0 };
        plan.tunings().fold(none, |most, tuning| Self {
            log_writes: most.log_writes.max(tuning.writes_inflight_max as usize),
            apply_bytes: most.apply_bytes.max(tuning.apply_bytes_max),
            restore_bytes: most.restore_bytes.max(tuning.restore_bytes_max),
        })
    }
}

impl<M: StateMachine, W: Workload> World<M, W> {
    /// A write of its log was begun.
    pub(super) fn check_log_writes(&self, at: usize) -> Checked {
        let (count, most) = (self.nodes[at].disk.log_writes(), self.limits.log_writes);
        if count <= most + WRITES_BESIDE {
            return Ok(());
        }
        let what = format!("has {count} writes of its log on their way, where {most} are the most");
        Err(Violation::new("queues within their limits", at, what))
    }

    /// This step is about to join those that its machine has before it.
    pub(super) fn check_machine_step(&self, at: usize, step: &Machine) -> Checked {
        let (bytes_of, most): (fn(&Machine) -> u64, u64) = match step {
            Machine::Apply(entries) => {
                let committed = self.probe(at).map(|probe| probe.committed);
                if Some(entries.last) > committed {
                    let last = entries.last;
                    let what =
                        format!("gives entry {last} to its machine, of {committed:?} committed");
                    return Err(Violation::new("what is applied is committed", at, what));
                }
                (applied_bytes, self.limits.apply_bytes)
            }
            Machine::Restore { .. } => (restored_bytes, self.limits.restore_bytes),
            _ => return Ok(()),
        };
        let before: u64 = self.nodes[at].lane.iter().map(bytes_of).sum();
        // One may be larger than all may be together.
        if before == 0 || before + bytes_of(step) <= most {
            return Ok(());
        }
        let more = bytes_of(step);
        let what =
            format!("gives {more} bytes to its machine beside {before}, {most} are the most");
        Err(Violation::new("queues within their limits", at, what))
    }

    /// This step is about to be performed.
    pub(super) fn check_query(&self, at: usize, step: &Machine) -> Checked {
        let Machine::Query { at: said, .. } = step else { return Ok(()) };
        let stands = self.oracle.position(at);
        if *said == stands {
            return Ok(());
        }
        let what = format!("asks its machine as of entry {said}, and that is at {stands}");
        Err(Violation::new("a query says where the machine is", at, what))
    }
}

fn applied_bytes(step: &Machine) -> u64 {
    match step {
        Machine::Apply(entries) => entries.bytes() as u64,
        _ => 0,
    }
}

fn restored_bytes(step: &Machine) -> u64 {
    match step {
        Machine::Restore { bytes, .. } => bytes.len() as u64,
        _ => 0,
    }
}
