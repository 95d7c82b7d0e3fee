//! The ground: ids, instants and log positions. Newtypes, so that an index never passes for a term.

use crate::membership::Membership;
use bytes::Bytes;
use std::{fmt, sync::Arc, time::Duration};

macro_rules! ids {
    ($($(#[$meta:meta])* $name:ident;)*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    )*};
}

ids! {
    /// The cluster a node belongs to; drawn once, when the cluster is formatted.
    ClusterId;
    /// One replicated log among the many a process may hold.
    GroupId;
    /// A node, for its whole life. A node that lost its disk comes back under another id.
    NodeId;
    /// An election's number (Raft §5.1). Zero: before the first election.
    Term;
    /// A position in the log. The first entry has index 1; zero is "before the log".
    LogIndex;
    /// One disk operation of one engine; never used twice.
    OpId;
    /// A client's request. The driver chooses; requests of one batch are consecutive.
    RequestId;
    /// One capture of the state machine.
    CaptureId;
    /// One snapshot file's identity; two snapshots of the same log position differ in it.
    SnapshotId;
    /// Monotonic nanoseconds that count suspended time (`CLOCK_BOOTTIME`). Never written down.
    Instant;
    /// Nanoseconds since 1970. The engine copies it into entries, never backwards, and never
    /// decides by it.
    Timestamp;
}

impl Instant {
    /// This instant and `duration` more; saturates.
    #[must_use]
    pub const fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }

    /// The time since `earlier`; zero when `earlier` lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The earliest of those that are set. (Asked after every event: a plain loop, because chained
/// iterators took a tenth of a simulated event.)
pub(crate) fn earliest<const N: usize>(instants: [Option<Instant>; N]) -> Option<Instant> {
    let mut earliest = None;
    for at in instants {
        if at.is_some() && (earliest.is_none() || at < earliest) {
            earliest = at;
        }
    }
    earliest
}

impl Timestamp {
    /// This time and `duration` more; saturates.
    #[must_use]
    pub const fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

const fn nanos(duration: Duration) -> u64 {
    let nanos = duration.as_nanos();
    if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 }
}

impl Term {
    /// The term after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl LogIndex {
    /// The index after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The index before this one; zero stays zero.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// An entry's identity: no two entries of one cluster share a term and an index.
///
/// Term first: the derived order is Raft's "at least as up to date" (§5.4.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogId {
    /// The term of the leader that made the entry.
    pub term: Term,
    /// Its position.
    pub index: LogIndex,
}

impl LogId {
    /// Before the first entry.
    pub const ZERO: Self = Self { term: Term(0), index: LogIndex(0) };

    /// The entry of `term` at `index`.
    #[must_use]
    pub const fn new(term: Term, index: LogIndex) -> Self {
        Self { term, index }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.index)
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogId({self})")
    }
}

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

/// Consecutive request ids: of one batch, of a part of it, or of several. Whoever waits looks up
/// each ([`ids`](Self::ids)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Requests {
    /// The first id.
    pub first: RequestId,
    /// How many follow each other.
    pub count: u32,
}

impl Requests {
    /// A single request.
    #[must_use]
    pub const fn one(id: RequestId) -> Self {
        Self { first: id, count: 1 }
    }

    /// Each id in turn.
    pub fn ids(self) -> impl Iterator<Item = RequestId> {
        let first = self.first.0;
        (first..first + u64::from(self.count)).map(RequestId)
    }
}

/// Which snapshot, to the last byte: pieces of different ones never mix.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct SnapshotName {
    /// The last entry it covers.
    pub(crate) at: LogId,
    /// Drawn by the node that captured it.
    pub(crate) id: SnapshotId,
    /// How many bytes the machine's state has.
    pub(crate) bytes: u64,
    /// Their CRC32C.
    pub(crate) digest: u32,
}

/// A piece of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Piece {
    pub(crate) snapshot: SnapshotName,
    /// Where in the machine's state it begins.
    pub(crate) offset: u64,
    /// The sender's last entry's time: what the receiver may append one day is no earlier.
    pub(crate) time: Timestamp,
    /// With the first piece: the members when the snapshot was taken.
    pub(crate) members: Option<Arc<Membership>>,
    pub(crate) bytes: Bytes,
}
