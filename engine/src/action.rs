//! Everything a node can ask for. What is emitted is legal already: its order was ours to keep.

use crate::{
    backup::Origin,
    change::ChangeRefusal,
    config::ConfigError,
    entry::Entries,
    event::MachineError,
    file::{Class, DiskError, DiskRequest, File},
    membership::Membership,
    report::{Forced, Inspection},
    types::{CaptureId, LogId, LogIndex, NodeId, OpId, Requests, Term},
};
use bytes::Bytes;
use std::{fmt, sync::Arc};

/// What the engine asks of a driver. Four lanes: `Disk` in any order; `Send` in order per peer;
/// `Machine` in order; `Respond` at once. Exhaustive on purpose: a new action must break every
/// driver at compile time.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// A disk operation; answered by [`Event::Completed`](crate::Event::Completed).
    Disk {
        /// Its id.
        op: OpId,
        /// Who yields when the device is busy.
        class: Class,
        /// What to do.
        request: DiskRequest,
    },
    /// One message, to be written with `writev`. May be lost, but only whole, and then
    /// [`Event::Link`](crate::Event::Link) says so. The receiver may be nobody whom
    /// [`Members`](Self::Members) has named: one who sent a message, and is answered the same way.
    Send {
        /// The receiver.
        to: NodeId,
        /// Its first part.
        head: Bytes,
        /// Its second part, shared with disk and other peers; may be empty.
        body: Bytes,
    },
    /// The next step of the state machine.
    Machine(Machine),
    /// The end of requests that end otherwise than by `Apply` or `Query`: of a part of what was asked
    /// with one event, or of several such together, if their ids follow each other.
    Respond {
        /// Which.
        requests: Requests,
        /// How.
        outcome: Outcome,
    },
    /// Whom to be connected with, from now on.
    Members(Arc<Membership>),
    /// For people and metrics; may be ignored.
    Note(Note),
    /// The end. Always the last action; drop the engine.
    Halt(Box<Halt>),
}

/// The state machine's lane: performed in order.
#[derive(Clone, PartialEq, Debug)]
pub enum Machine {
    /// Apply these; answered by [`Event::Applied`](crate::Event::Applied).
    Apply(Entries),
    /// Answer these queries now: everything up to `at` went before in this lane.
    Query {
        /// Whose.
        requests: Requests,
        /// The log position that the answers may claim.
        at: LogIndex,
    },
    /// Freeze a view of the state as it is now.
    Capture {
        /// The view's id.
        capture: CaptureId,
        /// The last applied entry.
        at: LogId,
    },
    /// The next piece of a view; answered by [`Event::Captured`](crate::Event::Captured).
    CaptureNext {
        /// The view.
        capture: CaptureId,
        /// The most bytes to hand over.
        bytes_max: u32,
    },
    /// Drop a view; late pieces are ignored.
    CaptureStop {
        /// The view.
        capture: CaptureId,
    },
    /// Replace the state; answered by [`Event::Restored`](crate::Event::Restored). Another state may
    /// begin before one has come to its end, and no state at all: position zero, no bytes, and apply
    /// begins with the first entry.
    Restore {
        /// The log position of the state.
        at: LogId,
        /// Where these bytes begin. Zero: forget everything first.
        offset: u64,
        /// The next bytes of the state.
        bytes: Bytes,
        /// Whether nothing follows.
        last: bool,
    },
}

impl Machine {
    /// Forget everything: the log has it all, and is applied from its first entry on.
    pub(crate) const EMPTY: Self =
        Self::Restore { at: LogId::ZERO, offset: 0, bytes: Bytes::new(), last: false };
}

/// How requests end otherwise than by their answer.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// A control did what it was asked, at this log position.
    Done(LogId),
    /// A snapshot file of this length is kept until it is unpinned.
    Pinned(File, u64),
    /// A piece of a pinned file; empty only behind its end.
    Read(Bytes),
    /// Certainly not applied, now or later.
    Refused(Refusal),
    /// Leadership was lost with the entry in flight: it may be applied, or not.
    Unknown,
}

/// Why a request was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// Another node leads.
    NotLeader {
        /// Which, if known.
        hint: Option<NodeId>,
    },
    /// It cannot be taken at this moment: a queue is full, or what was on its way to the leader was lost
    /// or came while the leadership was being handed over. Try again.
    Busy,
    /// What was proposed at once exceeds [`Tuning::append_bytes_max`](crate::Tuning), or the leader's
    /// [`Tuning::entry_commands_max`](crate::Tuning).
    TooLarge,
    /// This node, or this part of it, cannot serve that yet.
    NotReady,
    /// There is no room for more log.
    DiskFull,
    /// The leadership is being handed over.
    Transferring,
    /// The node is about to stop.
    Stopping,
    /// The leadership stays where it is, and why.
    Transfer(TransferRefusal),
    /// A membership change that cannot be, and why.
    Change(ChangeRefusal),
    /// There is no snapshot, and nothing was applied that one could be taken of.
    NoSnapshot,
    /// This file is not kept for anybody, or not any more.
    NotPinned(File),
    /// The disk failed at it. What the node rests on is whole.
    Disk(DiskError),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader { hint: Some(node) } => write!(f, "not the leader; node {node} is"),
            Self::NotLeader { hint: None } => f.write_str("no leader is known"),
            Self::Busy => {
                f.write_str("not taken: too much is in flight, or who leads is changing; try again")
            }
            Self::TooLarge => f.write_str(
                "what was proposed at once, be it one command, does not fit into an entry: its \
                 bytes are bounded by append_bytes_max, its commands by entry_commands_max",
            ),
            Self::NotReady => f.write_str("this node is not ready for that"),
            Self::DiskFull => f.write_str("no room left on the disk for more log"),
            Self::Transferring => f.write_str("the leadership is being handed over"),
            Self::Stopping => f.write_str("this node is stopping"),
            Self::Transfer(why) => write!(f, "the leadership stays: {why}"),
            Self::Change(why) => write!(f, "membership change refused: {why}"),
            Self::NoSnapshot => f.write_str("nothing was applied yet: there is no snapshot"),
            Self::NotPinned(file) => write!(
                f,
                "{file} is not kept for a reader, or not any more: a pin ends when it is not read \
                 for a while, when a peer's snapshot takes its place, and with the process; pin it \
                 and begin again"
            ),
            Self::Disk(error) => write!(f, "the disk failed: {error}"),
        }
    }
}

/// Why a leadership is not handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TransferRefusal {
    /// The node has no vote in this cluster.
    NoVoter(NodeId),
    /// The node was not heard from for the least election timeout.
    Silent(NodeId),
    /// No other voter was.
    Nobody,
    /// The node did not get the whole log within the longest election timeout.
    NotInTime(NodeId),
    /// Another node leads now, not the one that was meant to.
    AnotherLeads(NodeId),
}

impl fmt::Display for TransferRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoVoter(node) => {
                write!(f, "node {node} has no vote: it is a learner, or no member at all")
            }
            Self::Silent(node) => write!(f, "node {node} does not answer"),
            Self::Nobody => f.write_str("no other voter answers"),
            Self::NotInTime(node) => write!(f, "node {node} lags too far behind; try again later"),
            Self::AnotherLeads(node) => write!(f, "node {node} was elected instead"),
        }
    }
}

/// What people may want to know as it happens.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Note {
    /// The node's view of leadership changed.
    Role {
        /// The leader, if one is known.
        leader: Option<NodeId>,
        /// The current term.
        term: Term,
    },
    /// A restart went on, and what it found.
    Recovery(Arc<str>),
    /// A peer sent what no correct peer sends; it was dropped.
    PeerFault {
        /// The node on the other end.
        peer: NodeId,
        /// What was wrong with it.
        reason: &'static str,
    },
    /// The disk failed an operation that can be tried again.
    Disk {
        /// Which file.
        file: File,
        /// How.
        error: DiskError,
    },
    /// Proposals are refused because there is no room for more log, or no longer.
    DiskFull(bool),
    /// A snapshot of this position is durable.
    Snapshot(LogId),
    /// The log up to and without this index was removed.
    Compacted(LogIndex),
    /// [`Event::Tune`](crate::Event) changed nothing, for this reason.
    TuningRefused(ConfigError),
}

/// Why the engine ended.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Halt {
    /// It was asked to.
    Stopped,
    /// It is no member any more.
    Removed,
    /// `Start::Run` on an empty directory.
    NotFormatted,
    /// `Start::Format` or `Start::Join` on a directory that has a node in it.
    AlreadyFormatted,
    /// `Start::Restore` is done: the node begins with this entry, by [`Start::Run`](crate::Start).
    Built(LogId),
    /// `Start::Inspect` or `Start::Verify` is done; this is what it found.
    Inspected(Box<Inspection>),
    /// `Start::ForceSoleVoter` is done: the node is the only voter, by [`Start::Run`](crate::Start);
    /// or the loss was not acknowledged, and this is what it would be.
    Forced(Box<Forced>),
    /// The cluster was recovered by force without this node, which is of an earlier cluster epoch.
    LeftBehind {
        /// The member that said so.
        by: NodeId,
        /// The cluster epoch that it is of.
        epoch: u64,
        /// The one that this node is of.
        own: u64,
    },
    /// An operation failed that nothing may be built on.
    DiskFailed {
        /// The file.
        file: File,
        /// How.
        error: DiskError,
    },
    /// The disk holds what this node must not start from.
    Refused {
        /// The row of the verdict table, or of the table of other refusals (docs/recovery.md).
        row: &'static str,
        /// The file that shows it.
        file: File,
        /// Where in the file.
        offset: u64,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// What was acknowledged is lost, and it is not known what it was. The next start fetches the
    /// log from peers, and does not vote before it has it.
    LogLost {
        /// The file that shows it.
        file: File,
        /// Where in the file.
        offset: u64,
        /// What should be there.
        expected: String,
    },
    /// The cluster was formed with another life of this node: its disk was lost. A new node id,
    /// joined as a learner and promoted, is the way back.
    DiskLost {
        /// The member that said so.
        by: NodeId,
    },
    /// The cluster is about to form, and this member was made from something else than that one.
    OtherOrigin {
        /// The other member.
        peer: NodeId,
        /// What this one was made from.
        own: Origin,
        /// What that one was made from.
        theirs: Origin,
    },
    /// The state machine failed.
    Machine(MachineError),
    /// The engine or its machine panicked, and said this: the driver of a node with other groups
    /// ends this one in its place.
    Panicked(String),
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::Removed => f.write_str("this node is no member of its cluster any more"),
            Self::NotFormatted => f.write_str(
                "the directory is empty: format a new cluster or join one, a wiped node must not \
                 come back as itself",
            ),
            Self::AlreadyFormatted => {
                f.write_str("the directory holds a node already: start it, or choose an empty one")
            }
            Self::Built(at) => write!(f, "a node that begins behind entry {at}"),
            Self::Inspected(found) => found.fmt(f),
            Self::Forced(forced) => forced.fmt(f),
            Self::LeftBehind { by, epoch, own } => write!(
                f,
                "this node is of cluster epoch {own}, and node {by} of {epoch}: the cluster was \
                 recovered by force without this node, so what it holds is not the cluster's any \
                 more; remove its directory, and add a node under a new id"
            ),
            Self::DiskFailed { file, error } => {
                write!(f, "disk operation failed on {file}: {error}")
            }
            Self::LogLost { file, offset, expected } => write!(
                f,
                "{file} at byte {offset}: {expected} is lost, in the entry and in its slot; start \
                 the node again: it fetches its log from its peers, and does not vote before"
            ),
            Self::Refused { row, file, offset, expected, found } => write!(
                f,
                "refused to start ({row}): {file} at byte {offset}: expected {expected}, found \
                 {found}"
            ),
            Self::DiskLost { by } => write!(
                f,
                "node {by} knows an earlier life of this node: its disk was lost; remove this node \
                 id and join the cluster under a new one"
            ),
            Self::OtherOrigin { peer, own, theirs } => write!(
                f,
                "this node begins {own}, and node {peer} {theirs}: all members of a new cluster \
                 are made from the same backup; restore, in an empty directory, the one that is \
                 wrong, and start this one again"
            ),
            Self::Machine(error) => write!(f, "the state machine failed: {error}"),
            Self::Panicked(what) => write!(
                f,
                "a panic, which is a fault of the program, ended this group on this node: {what}; \
                 a restart begins it again"
            ),
        }
    }
}
