//! What nodes say to each other. Knows no bytes: [`codec`](crate::codec) does.
//!
//! Invariant: nothing that safety rests on lives in a connection. Every head names cluster, group,
//! both nodes and which lives of them are meant, so a message that comes late, twice or to the
//! wrong node is recognised by its receiver alone.

use crate::{
    backup::Origin,
    membership::Membership,
    types::{ClusterId, GroupId, LogId, LogIndex, NodeId, Piece, SnapshotId, Term, Timestamp},
};
use bytes::Bytes;
use std::sync::Arc;

/// The most runs of equal terms that a [`Conflict`] names.
pub(crate) const CONFLICT_RUNS_MAX: usize = 32;
/// The most fates of forwarded batches that one append carries.
pub(crate) const FATES_MAX: usize = 1024;

/// Which life of a node it is: its write epoch, which each start and each cut raises, above bits
/// that each start draws. A disk that was set back to an old copy comes to an epoch a second time,
/// and what is meant for the one life must not be taken by the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Life(pub(crate) u64);

impl Life {
    /// Nobody's.
    pub(crate) const NONE: Self = Self(0);
    const DRAWN_BITS: u32 = 16;

    pub(crate) const fn new(write_epoch: u64, drawn: u16) -> Self {
        Self(write_epoch << Self::DRAWN_BITS | drawn as u64)
    }

    pub(crate) const fn write_epoch(self) -> u64 {
        self.0 >> Self::DRAWN_BITS
    }

    /// Whether no start lies between the two: at most cuts do.
    pub(crate) const fn goes_on_from(self, start: Self) -> bool {
        self.0 as u16 == start.0 as u16 && self.0 >= start.0
    }
}

/// Who speaks to whom, in which lives and in which term.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Head {
    pub(crate) cluster: ClusterId,
    pub(crate) cluster_epoch: u64,
    pub(crate) group: GroupId,
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    /// Which life of the sender's disk.
    pub(crate) incarnation: u64,
    /// Which life of the receiver's disk the sender has durably recorded; zero: none yet.
    pub(crate) to_incarnation: u64,
    pub(crate) life: Life,
    /// In an answer: the life in the head of what it answers. Else zero.
    pub(crate) answers: Life,
    /// The sender's term; in a pre-vote the term it would stand for.
    pub(crate) term: Term,
}

/// A head and what is said.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Message {
    pub(crate) head: Head,
    pub(crate) payload: Payload,
}

/// What can be said.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Payload {
    /// Formation: "this is my incarnation, that is yours as I have recorded it".
    Hello {
        /// Whether the receiver shall say the same.
        ask: bool,
        /// What the sender was made from, as long as it has not met all others.
        origin: Origin,
    },
    /// Formation: another life of yours was recorded here; yours is none of this cluster's.
    FormedWithoutYou,
    /// "Would you vote for me in this term?" Changes nothing at the receiver.
    PreVote(Ballot),
    PreVoteAnswer(Verdict),
    /// "Stand for election now": the leader hands over (thesis §3.10).
    TimeoutNow,
    /// RequestVote (Raft §5.2).
    Vote(Ballot),
    VoteAnswer(Verdict),
    /// AppendEntries (Raft §5.3), heartbeat, probe and read round in one.
    Append(Append),
    AppendAnswer(AppendAnswer),
    /// A follower asks for a log position that its reads must wait for.
    ReadIndex {
        /// The asker's round.
        round: u64,
    },
    ReadIndexAnswer {
        /// The asker's round.
        round: u64,
        /// Everything acknowledged before the round began lies at or below.
        index: LogIndex,
    },
    /// Proposals that clients of a follower made.
    Forward(Forward),
    /// InstallSnapshot (Raft §7): a piece of the leader's newest snapshot.
    Install(Piece),
    InstallAnswer(InstallAnswer),
    /// A follower that may have forgotten asks how far the leader's log goes.
    Gate {
        /// Names its fault.
        nonce: [u64; 2],
    },
    GateAnswer {
        /// The fault that was asked about.
        nonce: [u64; 2],
        /// The leader's last entry when it was asked.
        last: LogIndex,
    },
    /// A node has lost this entry, and knows that it was this one.
    RefillAsk {
        /// Which.
        at: LogId,
    },
    Refill(Refill),
    /// Who the members are now, by what is committed: to a founder that still waits for others to form
    /// the cluster with, who may be members no more.
    Members(Arc<Membership>),
    /// "You were a member, and are none any more."
    Removed {
        /// The committed membership without the receiver.
        at: LogId,
    },
}

impl Payload {
    /// The log position it speaks of, if it does: the greatest that is reckoned with.
    pub(crate) fn position(&self) -> LogIndex {
        match self {
            Self::Append(append) => append.prev.index.max(append.commit).max(append.retain),
            Self::AppendAnswer(answer) => answer.matched.max(answer.durable),
            Self::ReadIndexAnswer { index, .. } => *index,
            Self::PreVote(ballot) | Self::Vote(ballot) => ballot.last.index,
            Self::Install(Piece { snapshot, .. }) => snapshot.at.index,
            Self::InstallAnswer(answer) => answer.snapshot.index,
            Self::GateAnswer { last, .. } => *last,
            Self::RefillAsk { at } | Self::Removed { at } => at.index,
            Self::Hello { origin, .. } => origin.at.index,
            Self::Members(members) => members.at.index,
            _ => LogIndex(0),
        }
    }
}

/// A candidate's claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ballot {
    /// Tells this canvass from earlier ones in the same term.
    pub(crate) round: u64,
    /// The candidate's last entry.
    pub(crate) last: LogId,
    /// The leader itself wants it to stand.
    pub(crate) is_wished: bool,
}

/// An answer to a [`Ballot`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Verdict {
    /// The round it answers.
    pub(crate) round: u64,
    pub(crate) granted: bool,
}

impl Payload {
    /// Whether it asks for what members tell members: one that is none any more is told so instead.
    pub(crate) const fn is_question(&self) -> bool {
        matches!(
            self,
            Self::Hello { ask: true, .. }
                | Self::PreVote(_)
                | Self::Vote(_)
                | Self::Append(_)
                | Self::RefillAsk { .. }
        )
    }
}

/// A leader's entries, or only its word that it still leads.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Append {
    /// The leader's number of this append to this peer; answers echo it.
    pub(crate) sequence: u64,
    /// The newest read round.
    pub(crate) round: u64,
    /// Whether it is to be answered at once, and not only when its entries are durable.
    pub(crate) ask: bool,
    /// Nothing follows until something happens: who lacks nothing may rest.
    pub(crate) rest: bool,
    /// The entry before the first of `frames`.
    pub(crate) prev: LogId,
    pub(crate) commit: LogIndex,
    /// The smallest index that some member may still need from another's log.
    pub(crate) retain: LogIndex,
    /// The life of the receiver that `fates` are for: its [`Forward::session`].
    pub(crate) session: Life,
    /// What became of the receiver's forwarded batches, in the order of their numbers.
    pub(crate) fates: Vec<Fate>,
    /// A batch between this number and the last of `fates` that is not among them never arrived.
    pub(crate) fates_after: u64,
    /// Whole entries, contiguous.
    pub(crate) frames: Bytes,
}

/// What became of one forwarded batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fate {
    /// The forwarder's number of the batch.
    pub(crate) sequence: u64,
    pub(crate) outcome: Placement,
}

/// Where a forwarded batch went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Placement {
    /// Into this entry, behind `ordinal` other commands.
    At { id: LogId, ordinal: u32 },
    /// Nowhere, and it never will: too much is in flight, or the leader is not to take anything now.
    Busy,
    /// Nowhere, and it never will: no room on the leader's disk.
    DiskFull,
    /// Nowhere, and it never will: larger than the leader takes.
    TooLarge,
}

/// How far a follower agrees with its leader.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct AppendAnswer {
    /// The last append this answers.
    pub(crate) sequence: u64,
    /// The newest read round that was seen.
    pub(crate) round: u64,
    /// The log agrees with this leader's up to here.
    pub(crate) matched: LogIndex,
    /// Of that, on disk.
    pub(crate) durable: LogIndex,
    /// The fates of forwarded batches up to this number have arrived.
    pub(crate) fates: u64,
    /// Its disk has no room for more log: it may be long until it holds more than this.
    pub(crate) full: bool,
    /// It may have lost entries that it acknowledged: earlier answers do not count any more.
    pub(crate) gated: bool,
    /// It rests from now on, and expects nothing.
    pub(crate) rests: bool,
    /// Set when the append did not fit the log.
    pub(crate) conflict: Option<Box<Conflict>>,
}

/// What a follower's log holds where an append did not fit, newest part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Conflict {
    /// Where `runs` end.
    pub(crate) through: LogIndex,
    /// Up to here every log agrees.
    pub(crate) committed: LogIndex,
    /// Where each run of equal terms begins, ascending; at most [`CONFLICT_RUNS_MAX`].
    pub(crate) runs: Vec<(LogIndex, Term)>,
}

/// A batch on its way to the leader.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Forward {
    /// The life the sender started with: numbers of different ones do not mix.
    pub(crate) session: Life,
    /// The sender's number of this batch; it rises by one.
    pub(crate) sequence: u64,
    pub(crate) time: Timestamp,
    pub(crate) count: u32,
    /// As in an entry: per command a length and its bytes.
    pub(crate) commands: Bytes,
}

/// Entries that a node has lost, and what follows them; none if the sender does not have them.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Refill {
    /// What it was asked for, if that is no entry any more in the sender's log; else zero.
    pub(crate) gone: LogId,
    /// With that: no entry of the sender's log, nor of what its state holds, has a later time.
    pub(crate) time: Timestamp,
    /// Whole entries, contiguous.
    pub(crate) frames: Bytes,
}

/// How far a receiver is with a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct InstallAnswer {
    /// The last entry of the snapshot that is spoken of, and its id.
    pub(crate) snapshot: LogId,
    pub(crate) id: SnapshotId,
    /// The next byte it waits for: whatever came behind a piece that was lost is asked for again.
    pub(crate) next: u64,
    /// Of that, handed to the disk: the sender keeps a window ahead of it.
    pub(crate) stored: u64,
    /// Its log or its state reaches there, by this snapshot or without it.
    pub(crate) done: bool,
}
