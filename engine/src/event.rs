//! Everything that can happen to a node.

use crate::{
    backup::Backup,
    change::Change,
    config::Tuning,
    entry::Batch,
    file::{DiskError, File},
    membership::Membership,
    types::{CaptureId, ClusterId, LogId, LogIndex, NodeId, OpId, RequestId, Requests, Timestamp},
};
use bytes::Bytes;
use std::{fmt, sync::Arc, time::Duration};

impl Event {
    /// The wall clock, and no command. A driver tells it with the start and, as long as anything
    /// happens, about once a second: a leader on which nobody proposes dates what is forwarded to
    /// it by that. One that was never told takes the time of whoever forwards.
    #[must_use]
    pub fn time(time: Timestamp) -> Self {
        Self::Propose { first: RequestId(0), time, batch: Batch::default() }
    }
}

/// What a driver tells the engine. Exhaustive on purpose: a new event concerns every driver.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// First, exactly once.
    Start(Start),
    /// A whole message, in a buffer of its own: the engine keeps slices of it.
    Received {
        /// The node on the other end, as the driver's handshake established it.
        from: NodeId,
        /// The message as [`Action::Send`](crate::Action::Send) gave it: head, then body.
        bytes: Bytes,
    },
    /// A connection, or the liveness of its node, changed. Down: sends before it may be lost, and a
    /// leader sends that peer no entries until the link is up again. Whoever says so for a single loss
    /// on a connection that stands says up right behind it.
    Link {
        /// The node at the other end.
        peer: NodeId,
        /// Whether sends can be expected to arrive.
        up: bool,
    },
    /// A disk operation ended. Each does so once, in any order, or the engine is dropped.
    Completed {
        /// Which one.
        op: OpId,
        /// How it ended.
        result: Result<Completion, DiskError>,
    },
    /// The machine applied everything up to here. Cumulative.
    Applied {
        /// The last applied entry.
        through: LogIndex,
    },
    /// A piece of a captured state, asked for by [`Machine::CaptureNext`](crate::Machine).
    Captured {
        /// Which capture.
        capture: CaptureId,
        /// The piece, or why the machine cannot go on.
        result: Result<Chunk, MachineError>,
    },
    /// The machine took in more: each [`Machine::Restore`](crate::Machine) is answered, in order, also
    /// those behind which another state has begun.
    Restored {
        /// Bytes of that state taken in so far.
        through: u64,
        /// Whether it accepts them.
        result: Result<(), MachineError>,
    },
    /// Commands to replicate. Each request ends in exactly one of: applied (the command comes
    /// back in [`Machine::Apply`](crate::Machine) with its id), refused, unknown. All of them together fit
    /// into one entry ([`Tuning::append_bytes_max`]); more are refused.
    Propose {
        /// The id of the batch's first command; those behind it are consecutive.
        first: RequestId,
        /// The wall clock. A leader's is what entries are dated by, those with commands that others
        /// forwarded too: between two proposals it takes it to go on as the monotonic one does.
        time: Timestamp,
        /// The commands. None: only the time is told ([`Event::time`]).
        batch: Batch,
    },
    /// Queries that want a point in the log to be answered at; the queries stay with the driver.
    Read {
        /// Who asks.
        requests: Requests,
        /// How fresh the answer must be.
        mode: ReadMode,
    },
    /// An order to the node itself.
    Control {
        /// Who asks.
        id: RequestId,
        /// What for.
        control: Control,
    },
    /// Timing and limits of a running node.
    Tune(Box<Tuning>),
    /// Ends in [`Halt::Stopped`](crate::Halt), when the disk holds what there is and says so, within
    /// half a second whatever the disk does; a leader that hands over first does so within its
    /// longest election timeout. Asked once more, it hands nothing over any more. Legal at any time,
    /// recovery included.
    Stop {
        /// Whether a leader first tries to hand its role over.
        hand_over: bool,
    },
}

/// How a node begins.
#[derive(Clone, PartialEq, Debug)]
pub enum Start {
    /// From its disk. An empty one is refused: a wiped disk never votes as its old self.
    Run,
    /// On an empty disk only, as a voter of a new cluster; then runs.
    Format {
        /// The new cluster's id, the same on all its nodes.
        cluster: ClusterId,
        /// The new cluster's members, this node among them.
        members: Arc<Membership>,
    },
    /// On an empty disk only, as a voter of a new cluster that goes on from a backup: builds the
    /// node and halts ([`Halt::Built`](crate::Halt)). The machine must be one that holds the
    /// backup's state, and nothing else: it is captured as if it were this node's. Repeated after
    /// a crash it begins anew.
    Restore {
        /// The new cluster's id, the same on all its nodes, and not the backup's.
        cluster: ClusterId,
        /// The new cluster's members, this node among them.
        members: Arc<Membership>,
        /// What the state must turn out to be; all members are made from the same.
        backup: Box<Backup>,
    },
    /// On an empty disk only, as one who knows nobody: waits to be added as a learner. It answers a
    /// leader that no [`Members`](crate::Action::Members) has named: on the way by which that came.
    Join {
        /// The cluster to join.
        cluster: ClusterId,
    },
    /// From its disk, with a machine that keeps its own state
    /// ([`Config::machine_keeps_state`](crate::Config)). If the log begins later than the machine
    /// goes on, or has lost what comes next, and a snapshot here holds that, its state is replaced like
    /// any other's ([`Machine::Restore`](crate::Machine)); so it is once a peer has sent one. What only
    /// peers have is not asked for at a start: it is refused where the log is lost, and with a state that
    /// is ahead of the log.
    Resume {
        /// The last entry the machine holds durably.
        machine: LogId,
    },
    /// Reads and judges, writes nothing, and halts with what it found
    /// ([`Halt::Inspected`](crate::Halt)).
    Inspect,
    /// The same, and reads every used byte before it halts: hard state, segments, snapshots.
    Verify,
    /// The last resort after a lost quorum, offline: this node becomes the only voter, in a new
    /// cluster epoch, and halts ([`Halt::Forced`](crate::Halt)). No other member of before comes
    /// back. It is refused where no vote is missing.
    ForceSoleVoter {
        /// That acknowledged writes may be lost is understood. If not, nothing is written, and it
        /// halts in the same way with what it would do.
        acknowledged_loss: bool,
    },
}

/// How a disk operation ended well.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Completion {
    /// It was done.
    Done,
    /// What a read found; shorter than asked for only at the end of the file.
    Read(Bytes),
    /// The files of the directory and their lengths; names that [`File::parse`] does not know
    /// are left out.
    Listed(Vec<(File, u64)>),
}

/// A piece of a captured state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// The next bytes of the state.
    pub bytes: Bytes,
    /// Whether nothing follows.
    pub last: bool,
}

/// How fresh a read must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadMode {
    /// After everything that was acknowledged before it was asked (ReadIndex, Raft thesis §6.4).
    Linearizable,
    /// Linearizable as long as clocks drift less than declared; a leader's lease spares a round.
    Lease,
    /// This node's state if it heard from a leader within `stale_max` that has committed an entry of its
    /// term. Messages that are long on their way, and a leader that does not know yet that it is none (a
    /// longest election timeout at most), come on top.
    Local {
        /// How long ago that may be.
        stale_max: Duration,
    },
}

/// An order to a node.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Control {
    /// Change the membership by joint consensus.
    Change(Vec<Change>),
    /// Hand the leadership over.
    Transfer {
        /// To whom; `None`: whoever is furthest.
        to: Option<NodeId>,
    },
    /// Take a snapshot now; done when it is durable, at once if nothing was applied since the last.
    Snapshot,
    /// Keep the newest snapshot's file until it is unpinned, or was not read for
    /// [`Tuning::pin_idle`]. It ends in [`Outcome::Pinned`](crate::Outcome).
    PinSnapshot,
    /// Read a piece of a pinned file: ends in [`Outcome::Read`](crate::Outcome).
    ReadPinned {
        /// The file.
        file: File,
        /// Where, in bytes from its start.
        offset: u64,
        /// The most bytes to read; more than 1 MiB is read as that much.
        len: u32,
    },
    /// Give a pinned file back. One that was pinned twice is given back twice.
    Unpin {
        /// The file.
        file: File,
    },
}

/// A state machine's own failure: the node halts with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MachineError(pub String);

impl fmt::Display for MachineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for MachineError {}
