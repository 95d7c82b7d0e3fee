//! Whether a plan can be run at all.

use super::{Fault, FaultKind, Harm, Plan, US};
use crate::disk::Victim;
use lakebed::{Config, DiskError, GroupId, NodeId};
use std::collections::BTreeSet;

/// The most nodes of a plan.
pub(super) const NODES_MAX: usize = 32;
/// The most clients of a plan.
const CLIENTS_MAX: usize = 1024;
/// By how much a tuning stretches a time at most, in parts of a hundred.
const PERCENT_MAX: u32 = 10_000;
/// What rates are parts of.
const RATE_MAX: u64 = 65_536;
/// The most that a clock is off, in parts per million.
const DRIFT_MAX: u64 = 100_000;
/// The most that a wall clock is set by: ten years.
const SET_MAX_MS: u64 = 315_360_000_000;

impl Plan {
    /// Why it cannot be run, in a sentence.
    pub fn validate(&self) -> Result<(), String> {
        self.validate_sizes()?;
        self.validate_config()?;
        for fault in &self.faults {
            if !self.is_meant(&fault.kind) {
                return Err(format!("`{fault}` does not fit a cluster of {} nodes", self.nodes));
            }
        }
        let gone = |node| {
            let is = |fault: &Fault| matches!(fault.kind, FaultKind::DiskGone { node: of, .. } if of == node);
            self.faults.iter().any(is)
        };
        // Who joins knows only what those tell it.
        if (0..self.nodes - self.joining).all(gone) {
            let what = "one disk at least of those that do not join must be there, or nobody knows that \
                        others are not";
            return Err(what.into());
        }
        let flipped = |fault: &Fault| match fault.kind {
            FaultKind::Flip { node, .. } => Some(node),
            _ => None,
        };
        let flipped: BTreeSet<usize> = self.faults.iter().filter_map(flipped).collect();
        if flipped.len() > (self.nodes - self.joining - 1) / 2 {
            return Err("flips must leave a quorum of nodes alone that serves without them".into());
        }
        // Of two the later would take the place of the other, unseen.
        let mut places = BTreeSet::new();
        let place = |fault: &Fault| match fault.kind {
            FaultKind::PowerCutAt { node, step, .. } | FaultKind::KillAt { node, step, .. } => {
                Some((node, "step", step))
            }
            FaultKind::FailAt { node, operation, .. } => Some((node, "operation", operation)),
            _ => None,
        };
        let mut twice = self.faults.iter().filter_map(place).filter(|place| !places.insert(*place));
        if let Some((node, what, number)) = twice.next() {
            return Err(format!("two faults are for {what} {number} of node {}", node + 1));
        }
        if !self.faults.is_sorted_by_key(|fault| fault.at) {
            return Err("the faults must be in order of time".into());
        }
        Ok(())
    }

    /// Whether a fault fits this cluster.
    fn is_meant(&self, fault: &FaultKind) -> bool {
        let known = |node: &usize| *node < self.nodes;
        let fits = match fault {
            FaultKind::PowerCut { nodes, rot, .. } => {
                nodes.iter().all(known) && rot.is_none_or(|copy| copy < 2)
            }
            FaultKind::PowerCutAt { rot, .. } => rot.is_none_or(|copy| copy < 2),
            FaultKind::Partition { side, .. } => side.len() == self.nodes,
            FaultKind::Change { steps } => {
                !steps.0.is_empty()
                    && steps
                        .0
                        .iter()
                        .all(|&(mut step)| step.node_mut().is_none_or(|node| known(node)))
            }
            FaultKind::SlowDisk { factor, .. } => (1..=RATE_MAX).contains(factor),
            FaultKind::SlowLink { from, to, .. } => known(from) && known(to) && from != to,
            FaultKind::FailedOperation { victim, error, .. } => {
                *error != DiskError::Full
                    || matches!(victim, Victim::Write | Victim::Create | Victim::Rename)
            }
            FaultKind::Times { to } => {
                let is_sober = to.heartbeat.max(to.election) <= PERCENT_MAX;
                is_sober && to.of(&self.tuning).validate().is_ok()
            }
            FaultKind::Tune { to, .. } => {
                let is_sober = to.heartbeat.max(to.election) <= PERCENT_MAX;
                is_sober && to.of(&self.tuning).validate().is_ok()
            }
            FaultKind::Damage { harm, .. } => matches!(harm, Harm::Rot | Harm::Zero),
            FaultKind::SetClock { by_ms, .. } => by_ms.unsigned_abs() <= SET_MAX_MS,
            _ => true,
        };
        fits && fault.clone().node_mut().is_none_or(|node| known(node))
    }

    fn validate_sizes(&self) -> Result<(), String> {
        let (nodes, clients, drifts) = (self.nodes, self.clients.len(), self.drift_ppm.len());
        if nodes == 0 || nodes > NODES_MAX {
            return Err(format!("{nodes} nodes; there must be 1 to {NODES_MAX}"));
        }
        if self.joining >= nodes {
            return Err(format!("{} of {nodes} nodes join; one at least is there", self.joining));
        }
        if clients == 0 || clients > CLIENTS_MAX {
            return Err(format!("{clients} clients; there must be 1 to {CLIENTS_MAX}"));
        }
        if drifts != nodes || self.drift_ppm.iter().any(|ppm| ppm.unsigned_abs() > DRIFT_MAX) {
            return Err(format!("clocks need {nodes} drifts of {DRIFT_MAX} ppm at most"));
        }
        // Or the clients of a moment ask for ever, and no time passes.
        if self.think.least + self.think.tail < US {
            return Err("think: a client waits 0.001ms at least between two requests".into());
        }
        self.manner.validate()?;
        self.sessions.map_or(Ok(()), |sessions| sessions.validate())?;
        if self.links.loss > RATE_MAX || self.links.duplicate > RATE_MAX {
            return Err(format!("links lose and double {RATE_MAX} messages of that many at most"));
        }
        Ok(())
    }

    fn validate_config(&self) -> Result<(), String> {
        let sector = self.geometry.sector;
        if ![512, 4096].contains(&sector) || !self.geometry.align.is_multiple_of(sector) {
            return Err("a disk has sectors of 512 or 4096 bytes, and aligns to whole ones".into());
        }
        let mut config = Config::new(GroupId(1), NodeId(1));
        config.disk_align = self.geometry.align;
        config.segment_bytes = self.segment_bytes;
        config.first_segment_bytes = self.first_segment_bytes;
        config.tuning = self.tuning.clone();
        config.validate().map_err(|error| error.to_string())
    }
}
