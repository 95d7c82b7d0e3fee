//! What a node says of itself, at any time, for people and metrics.

use crate::{
    marks::Marks,
    membership::Membership,
    types::{LogId, LogIndex, NodeId, Term, Timestamp},
};
use std::{
    fmt::{self, Write as _},
    ops,
    sync::Arc,
    time::Duration,
};

/// A look at an engine.
#[derive(Clone, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct Status {
    /// This node.
    pub node: NodeId,
    /// What it is in its term.
    pub role: Role,
    /// The current term.
    pub term: Term,
    /// The leader, if one is known.
    pub leader: Option<NodeId>,
    /// The first index still in the log.
    pub first: LogIndex,
    /// The newest durable snapshot; [`LogId::ZERO`]: none.
    pub snapshot: LogId,
    /// The last applied index.
    pub applied: LogIndex,
    /// The last committed index this node knows of.
    pub committed: LogIndex,
    /// The last index in the log.
    pub last: LogIndex,
    /// The last index up to which this node's own disk holds the log.
    pub durable: LogIndex,
    /// The members in force.
    pub members: Arc<Membership>,
    /// Of a leader: how far it knows each other member to be. Of others: nothing.
    pub peers: Vec<Peer>,
    /// How far the restart is, or how it went.
    pub recovery: Recovery,
    /// Whether the node takes part: it replicates, serves and, unless it is gated, votes.
    pub ready: bool,
    /// Whether it gives no vote and does not stand, as its log may lack what it once acknowledged, until
    /// a leader has brought it there.
    pub gated: bool,
    /// Whether its group rests: nothing happens in it, and no heartbeats say so.
    pub hibernates: bool,
    /// Whether proposals are refused for want of room.
    pub disk_full: bool,
    /// What log and proposals in memory cost at most, and what peers gave of lost entries, in bytes.
    pub memory_bytes: u64,
    /// Bytes of snapshots that it sent to peers in this life.
    pub snapshot_bytes_sent: u64,
    /// Bytes of snapshots that peers sent it in this life, wanted or not.
    pub snapshot_bytes_received: u64,
    /// Bytes of log and snapshots that it read again in this life to see whether they are good.
    pub scrubbed_bytes: u64,
    /// How many snapshots on its disk it knows to be bad: each goes when another one is durable that
    /// takes its place. Not among them: what only a restart would read.
    pub snapshots_damaged: u32,
    /// Transfers of the leadership that it was asked for while it led.
    pub transfers: Tally,
    /// Changes of the members that it was asked for while it led.
    pub changes: Tally,
    /// The rare situations that were met, a bit each.
    pub marks: Marks,
}

/// How often something was asked of a leader in this life, and what became of it. What is neither
/// done nor given up is under way: one at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Tally {
    /// How often it was asked for; what joins one that is under way is not counted.
    pub asked: u64,
    /// How often it came about, as far as this node has seen.
    pub done: u64,
    /// How often it was refused, or ended otherwise, or without word of how.
    pub given_up: u64,
}

/// Of several groups together.
impl ops::Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            asked: self.asked + other.asked,
            done: self.done + other.done,
            given_up: self.given_up + other.given_up,
        }
    }
}

/// What a leader knows of another member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Peer {
    /// The member.
    pub node: NodeId,
    /// The last index that its disk holds and that agrees with the leader's log.
    pub matched: LogIndex,
    /// How it is fed.
    pub feed: Feed,
    /// Bytes that it has of the snapshot on its way there; they fall back to zero where another one must
    /// take its place.
    pub snapshot_bytes: u64,
    /// How many that snapshot has; zero: none is on its way.
    pub snapshot_bytes_total: u64,
    /// How long ago it last answered.
    pub silent: Duration,
}

/// How a leader feeds a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Feed {
    /// It asks where their logs agree.
    Probe,
    /// Entries follow each other.
    Replicate,
    /// A snapshot is on its way: the log does not go back as far as the member needs.
    Install,
}

impl fmt::Display for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Probe => "probe",
            Self::Replicate => "replicate",
            Self::Install => "install",
        })
    }
}

/// A node's watermarks, without allocation: what an oracle looks at after every event.
#[doc(hidden)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Probe {
    /// What it is in its term.
    pub role: Role,
    /// The current term.
    pub term: Term,
    /// Whom it gave its vote in that term.
    pub vote: Option<NodeId>,
    /// The leader, if one is known.
    pub leader: Option<NodeId>,
    /// The first index still in the log.
    pub first: LogIndex,
    /// The newest durable snapshot.
    pub snapshot: LogId,
    /// The last applied index.
    pub applied: LogIndex,
    /// The last committed index it knows of.
    pub committed: LogIndex,
    /// The last entry of its log.
    pub last: LogId,
    /// That entry's time, or what else the next one's is no earlier than.
    pub time: Timestamp,
    /// The last index that its own disk holds.
    pub durable: LogIndex,
    /// Whether its disk was judged: it votes and acknowledges.
    pub judged: bool,
    /// Whether it serves.
    pub ready: bool,
    /// Whether it may have forgotten what it acknowledged, and so does not vote.
    pub gated: bool,
    /// Whether it rests.
    pub hibernates: bool,
    /// Whether it lacks entries that it knows by name.
    pub holed: bool,
    /// Which of them it asks for, if nobody has given it yet.
    pub wanted: Option<LogIndex>,
    /// The first of them that keeps what lies behind it from being acknowledged.
    pub owed: Option<LogIndex>,
    /// Whether no snapshot is left that its log goes on from: a peer must send one.
    pub stateless: bool,
}

/// What a node is in its term (Raft §5.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Role {
    /// Recovery has not come far enough to take part.
    #[default]
    Recovering,
    /// Waits until every member has met every other.
    Forming,
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether it would win an election.
    PreCandidate,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Recovering => "recovering",
            Self::Forming => "forming",
            Self::Follower => "follower",
            Self::PreCandidate => "pre-candidate",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
        })
    }
}

/// A restart: what is going on, how far it is, and what was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recovery {
    /// The stage it is in.
    pub phase: Phase,
    /// Bytes of the present phase done.
    pub bytes_done: u64,
    /// Bytes of the present phase in all; zero where it is not measured in bytes.
    pub bytes_total: u64,
    /// Entries applied of those that were known to be committed at the start.
    pub entries_done: u64,
    /// How many those are; zero until the snapshot, if any, is restored.
    pub entries_total: u64,
    /// Entries that were bad on this disk and that peers gave again, in this life: no verdict counts them,
    /// for most come to light and come back behind it.
    pub entries_refilled: u64,
    /// Entries that are known to be bad on this disk and are not there again.
    pub entries_missing: u64,
    /// How long each phase before the present one took, in order.
    pub took: Vec<(Phase, Duration)>,
    /// The verdict and its reasons, once it was given.
    pub verdict: Option<Arc<str>>,
}

impl Recovery {
    /// The next phase begins; the one before it took so long.
    pub(crate) fn enter(&mut self, phase: Phase, took: Duration) {
        self.took.push((self.phase, took));
        self.phase = phase;
        (self.bytes_done, self.bytes_total) = (0, 0);
    }

    /// Where the time went, in a line.
    pub(crate) fn told(&self) -> String {
        let mut told = format!("ready, {} entries applied", self.entries_total);
        for (phase, took) in self.took.iter().filter(|(_, took)| !took.is_zero()) {
            write!(told, ", {phase} {took:.1?}").expect("a string takes all that is written to it");
        }
        told
    }
}

/// The stages of a restart, in order (docs/recovery.md).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Phase {
    /// Which files exist.
    #[default]
    List,
    /// Term, vote and what else must not be forgotten.
    HardState,
    /// Which snapshots are whole.
    Snapshot,
    /// Where the log begins and ends.
    Log,
    /// Reading every used byte, when that is all that was asked for.
    Verify,
    /// Cutting a torn tail, rewriting what is not certainly durable.
    Repair,
    /// Streaming the snapshot into the state machine; the node votes and acknowledges already.
    Restore,
    /// Applying the committed log behind the snapshot.
    Replay,
    /// Done.
    Ready,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::List => "list",
            Self::HardState => "hard-state",
            Self::Snapshot => "snapshot",
            Self::Log => "log",
            Self::Verify => "verify",
            Self::Repair => "repair",
            Self::Restore => "restore",
            Self::Replay => "replay",
            Self::Ready => "ready",
        })
    }
}
