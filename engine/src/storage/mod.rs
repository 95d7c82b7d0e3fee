//! The treaty between consensus and disk: upward it speaks watermarks, downward disk requests.
//!
//! Knows no roles. Invariant: what it calls durable survives any crash, and a promise it reports
//! lies in both copies of the hard state.

use crate::{
    action::{Action, Halt},
    config::Config,
    entry::{Head, Seed},
    event::{Chunk, Completion, MachineError, Start},
    file::DiskError,
    membership::Membership,
    status::Recovery,
    types::{CaptureId, ClusterId, GroupId, Instant, LogId, LogIndex, NodeId, OpId, Term},
};
use bytes::Bytes;
use std::sync::Arc;

/// Who this node is, as its disk says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Identity {
    pub(crate) cluster: ClusterId,
    /// Raised by a forced recovery of a lost quorum; in every message.
    pub(crate) cluster_epoch: u64,
    pub(crate) group: GroupId,
    pub(crate) node: NodeId,
    /// Which life of the disk; drawn when it was formatted.
    pub(crate) incarnation: u64,
}

/// What a restart found: handed over once, when the node may vote and acknowledge.
#[derive(Clone, Debug)]
pub(crate) struct Recovered {
    pub(crate) identity: Identity,
    pub(crate) seed: Seed,
    pub(crate) term: Term,
    pub(crate) vote: Option<NodeId>,
    /// Raised at each start and each cut; the log epoch of messages.
    pub(crate) write_epoch: u64,
    /// The state machine is restored to here (in the background); [`LogId::ZERO`]: empty.
    pub(crate) snapshot: LogId,
    /// The first index in the log; `last.index + 1` when it is empty.
    pub(crate) first: LogIndex,
    /// The term of the entry before `first`.
    pub(crate) first_prev_term: Term,
    /// The last entry, or the snapshot's when the log is empty.
    pub(crate) last: LogId,
    /// Where each run of equal terms in the log begins, ascending.
    pub(crate) terms: Vec<(LogIndex, Term)>,
    /// A lower bound of what is committed; at least the snapshot's index.
    pub(crate) committed: LogIndex,
    pub(crate) membership: Arc<Membership>,
    /// The one before it, in force again should `membership.at` be cut.
    pub(crate) previous: Arc<Membership>,
}

/// Who wants entries back from disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Reader {
    Machine,
    Peer(NodeId),
}

/// Entries read back: whole frames, verified, contiguous.
#[derive(Clone, Debug)]
pub(crate) struct ReadBack {
    pub(crate) first: LogIndex,
    pub(crate) last: LogIndex,
    pub(crate) frames: Bytes,
}

#[derive(Clone, Debug)]
pub(crate) struct Storage {}

// Each method's contract is the treaty; bodies follow.
#[allow(dead_code, unused_variables, clippy::unused_self)]
impl Storage {
    pub(crate) fn new(config: &Config, seed: u64) -> Self {
        Self {}
    }

    // ---- facts -------------------------------------------------------------------------------

    pub(crate) fn on_start(&mut self, start: Start) {}
    pub(crate) fn on_completed(&mut self, op: OpId, result: Result<Completion, DiskError>) {}
    pub(crate) fn on_captured(&mut self, capture: CaptureId, result: Result<Chunk, MachineError>) {}
    pub(crate) fn on_restored(&mut self, through: u64, result: Result<(), MachineError>) {}

    // ---- steps of settle ---------------------------------------------------------------------

    /// Goes on with the restart. `Some` exactly once: the node may vote and acknowledge from here.
    pub(crate) fn recover(&mut self, now: Instant, out: &mut Vec<Action>) -> Option<Recovered> {
        None
    }
    /// Writes what is wanted and not yet on its way: hard state, entries, cuts, reads, snapshot.
    pub(crate) fn persist(&mut self, now: Instant, out: &mut Vec<Action>) {}
    /// When `persist` wants to be called though nothing happened.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        None
    }
    /// Why the node must end, once that is so.
    pub(crate) fn halt(&mut self) -> Option<Halt> {
        None
    }

    // ---- promises ----------------------------------------------------------------------------

    /// Wants this term and vote on disk. Terms only rise; a vote is set once in a term.
    pub(crate) fn promise(&mut self, term: Term, vote: Option<NodeId>) {}
    /// The term and vote that both copies hold.
    pub(crate) fn promised(&self) -> (Term, Option<NodeId>) {
        (Term(0), None)
    }
    /// Wants a membership on disk: `newest` in force, `previous` should it be cut.
    pub(crate) fn set_membership(&mut self, newest: Arc<Membership>, previous: Arc<Membership>) {}
    /// The membership in force that both copies hold (incarnations learnt included).
    pub(crate) fn recorded(&self) -> &Arc<Membership> {
        unreachable!()
    }
    /// A lower bound of what is committed, to be written some time.
    pub(crate) fn hint_committed(&mut self, committed: LogIndex) {}

    // ---- the log -----------------------------------------------------------------------------

    /// Appends the entry after the last one. `frame` is header and body, verified.
    pub(crate) fn append(&mut self, head: &Head, frame: Bytes) {}
    /// Cuts the log: the last entry is the one before `from`. Entries appended from then on are
    /// written once the cut is durable.
    pub(crate) fn truncate(&mut self, from: LogIndex) {}
    /// The last index up to which everything is on disk, whatever crashes.
    pub(crate) fn durable(&self) -> LogIndex {
        LogIndex(0)
    }
    /// Raised by each start and each cut.
    pub(crate) fn write_epoch(&self) -> u64 {
        0
    }
    /// Whether entries wait for a write of their own: the leader gathers proposals meanwhile.
    pub(crate) fn is_saturated(&self) -> bool {
        false
    }
    /// Whether there is no room for more log: proposals are refused.
    pub(crate) fn is_full(&self) -> bool {
        false
    }
    /// Bytes of entries held in memory until they are written.
    pub(crate) fn memory_bytes(&self) -> u64 {
        0
    }

    // ---- reading back ------------------------------------------------------------------------

    /// Wants entries from `from` on, whole ones, at most `bytes_max` together but at least one,
    /// and none beyond `to`. One read per reader at a time; a new one replaces it.
    pub(crate) fn read(&mut self, reader: Reader, from: LogIndex, to: LogIndex, bytes_max: u32) {}
    /// A finished read. Fewer entries than asked for is normal.
    pub(crate) fn take_read(&mut self) -> Option<(Reader, ReadBack)> {
        None
    }

    // ---- snapshots ---------------------------------------------------------------------------

    /// Whether the machine holds the snapshot it is restored from; apply begins then.
    pub(crate) fn is_restored(&self) -> bool {
        true
    }
    /// Captures the machine as it is after `at`, unless a capture runs; false if one does.
    pub(crate) fn capture(&mut self, at: LogId, members: Arc<Membership>) -> bool {
        false
    }
    /// The newest durable snapshot.
    pub(crate) fn snapshot(&self) -> LogId {
        LogId::ZERO
    }
    /// Bytes of log since the newest snapshot up to `applied`, and that snapshot's bytes.
    pub(crate) fn snapshot_debt(&self, applied: LogIndex) -> (u64, u64) {
        (0, 0)
    }
    /// Log from here on is kept for peers.
    pub(crate) fn retain(&mut self, from: LogIndex) {}
    /// The first index still in the log.
    pub(crate) fn first(&self) -> LogIndex {
        LogIndex(1)
    }
    /// How the restart goes.
    pub(crate) fn recovery(&self) -> Recovery {
        Recovery::default()
    }
}
