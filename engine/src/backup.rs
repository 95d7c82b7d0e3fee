//! A backup: a node's snapshot file, kept outside of any node, and what it says of itself.
//!
//! It is read by [`BackupReader`](crate::BackupReader), which believes nothing it has not checked,
//! and becomes the beginning of a new cluster by [`Start::Restore`](crate::Start).

use crate::{
    membership::Membership,
    types::{ClusterId, GroupId, LogId, NodeId, SnapshotId, Timestamp},
};
use std::{fmt, sync::Arc};

/// What a backup says of itself, once all of it was checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Backup {
    /// The cluster that it is of.
    pub cluster: ClusterId,
    /// The group.
    pub group: GroupId,
    /// Of how many groups it was one ([`Config::groups`](crate::Config)); zero: it does not say, as
    /// none did before there was a place for it.
    pub groups: u32,
    /// The node that it was taken from.
    pub node: NodeId,
    /// The last entry that it holds the effect of.
    pub at: LogId,
    /// Drawn by the node that took the snapshot: no two are called alike.
    pub id: SnapshotId,
    /// How many bytes the machine's state has.
    pub bytes: u64,
    /// Their CRC32C.
    pub digest: u32,
    /// Nothing that it holds was of a later time, by the clocks of those who led: zero, if the snapshot was taken
    /// before there was a place for it.
    pub time: Timestamp,
    /// Who belonged to the cluster then.
    pub members: Arc<Membership>,
}

/// What a member of a new cluster was made from: all of its members from the same.
///
/// Zero, for one that began with nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Origin {
    /// The last entry of the snapshot.
    pub at: LogId,
    /// Which snapshot.
    pub id: SnapshotId,
}

impl Origin {
    /// Whether it began with nothing.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_nothing() {
            return f.write_str("with nothing");
        }
        write!(f, "with snapshot {} at {}", self.id, self.at)
    }
}

/// Why a file is no backup, or not a whole one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackupFault {
    /// Where, in bytes from its start.
    pub offset: u64,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

impl fmt::Display for BackupFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, expected, found } = self;
        write!(f, "at byte {offset}: expected {expected}, found {found}")
    }
}

impl std::error::Error for BackupFault {}
