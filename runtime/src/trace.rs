//! Notes become `tracing` events, with fields that do not change: `node`, `group`, and what the
//! note says. Nothing else in this crate knows both.

use lakebed::{Config, DiskError, GroupId, Halt, NodeId, Note};
use tracing::{debug, error, info, warn};

/// Says whose notes they are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reporter {
    pub(crate) node: NodeId,
    pub(crate) group: GroupId,
}

impl Reporter {
    pub(crate) const fn of(config: &Config) -> Self {
        Self { node: config.node, group: config.group }
    }

    pub(crate) fn note(self, note: &Note) {
        let (node, group) = (self.node.0, self.group.0);
        match note {
            Note::Role { leader, term } => {
                let leader = leader.map(|leader| leader.0);
                info!(node, group, term = term.0, leader, "leadership");
            }
            Note::Recovery(found) => info!(node, group, found = &**found, "recovery"),
            Note::PeerFault { peer, reason } => {
                warn!(node, group, peer = peer.0, reason, "peer fault");
            }
            // It is tried again every second, and was said when it began.
            Note::Disk { file, error: DiskError::Full } => {
                debug!(node, group, %file, "no room on the disk");
            }
            Note::Disk { file, error } => warn!(node, group, %file, %error, "disk"),
            Note::DiskFull(true) => {
                warn!(node, group, "disk full: proposals are refused until there is room")
            }
            Note::DiskFull(false) => info!(node, group, "disk has room again"),
            Note::Snapshot(at) => {
                info!(node, group, term = at.term.0, index = at.index.0, "snapshot")
            }
            Note::Compacted(first) => info!(node, group, first = first.0, "compacted"),
            Note::TuningRefused(reason) => warn!(node, group, %reason, "tuning refused"),
            other => info!(node, group, note = ?other, "note"),
        }
    }

    pub(crate) fn halt(self, halt: &Halt) {
        let (node, group) = (self.node.0, self.group.0);
        match halt {
            Halt::Stopped => info!(node, group, "stopped"),
            other => error!(node, group, reason = %other, "halted"),
        }
    }
}
