//! What a look at a node's directory found: file by file, and what a restart would decide.
//!
//! Made by [`Start::Inspect`](crate::Start) and [`Start::Verify`](crate::Start), carried by
//! [`Halt::Inspected`](crate::Halt). A value for people (`Display`) and programs (its fields); it
//! knows no bytes. The words are those of docs/disk-format.md and docs/recovery.md.

mod forced;
mod telling;

pub use forced::Forced;

use crate::{
    file::File,
    membership::Membership,
    types::{ClusterId, GroupId, LogId, LogIndex, NodeId, SnapshotId, Term},
};
use std::sync::Arc;

/// A node's directory, looked at without changing a byte.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Inspection {
    /// The four blocks of the hard state: copy A's, then copy B's.
    pub blocks: Vec<HardBlock>,
    /// The hard state that counts: that of the good block with the highest number.
    pub hard_state: Option<HardStateFound>,
    /// The log as a whole; `None` when the restart was refused before it was looked at.
    pub log: Option<LogFound>,
    /// Segments of the log, oldest first.
    pub segments: Vec<SegmentFound>,
    /// Snapshots, oldest first, also those that are not whole.
    pub snapshots: Vec<SnapshotFound>,
    /// Other files of the node: room for segments to come, and what a restart would remove.
    pub left_over: Vec<LeftOver>,
    /// What a restart would decide.
    pub judgement: Judgement,
    /// What [`Start::Verify`](crate::Start) read; `None` after [`Start::Inspect`](crate::Start).
    pub verified: Option<Verified>,
    /// What is wrong, in the order of files and offsets. A look finds what a restart would find;
    /// only a verification reads every byte.
    pub defects: Vec<Defect>,
}

/// One block of the hard state.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct HardBlock {
    /// `A` or `B`.
    pub copy: char,
    /// Where it lies, in bytes from the start of the file.
    pub offset: u64,
    /// What is there.
    pub content: BlockContent,
}

/// What a block of the hard state holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BlockContent {
    /// The state of this update.
    Good {
        /// Raised by each update; the highest counts.
        number: u64,
    },
    /// Zeros: a young node has not come to write it.
    Empty,
    /// Something else.
    Bad {
        /// What is wrong with it.
        found: String,
    },
}

/// The hard state (docs/disk-format.md tells what each field is for).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct HardStateFound {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Raised by each recovery of a lost quorum by force.
    pub cluster_epoch: u64,
    /// The replicated log.
    pub group: GroupId,
    /// The node.
    pub node: NodeId,
    /// What everything else on the disk is aligned to, in bytes; zero: written before it was told.
    pub disk_align: u32,
    /// Which life of its disk: drawn when it was formatted.
    pub incarnation: u64,
    /// The update that wrote it.
    pub number: u64,
    /// The current term.
    pub term: Term,
    /// The vote in it.
    pub vote: Option<NodeId>,
    /// A lower bound of what is committed.
    pub commit_hint: LogIndex,
    /// A lower bound of what is durable.
    pub durable_hint: LogIndex,
    /// Where the log begins.
    pub first: LogIndex,
    /// The newest segment in use; zero: none yet.
    pub newest_segment: u64,
    /// Raised by each start and each cut.
    pub write_epoch: u64,
    /// The last cut began here, in that write epoch; zeros: there was none.
    pub cut: (LogIndex, u64),
    /// A cut is marked and not unmarked.
    pub cutting: bool,
    /// Entries that were durable are gone: the node does not vote until it has them again.
    pub gated: bool,
    /// The last snapshot that a peer sent; [`LogId::ZERO`]: none.
    pub installed: LogId,
    /// The members in force.
    pub members: Arc<Membership>,
}

/// The log as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LogFound {
    /// Its first index.
    pub first: LogIndex,
    /// Its last entry, or what comes before the first.
    pub last: LogId,
    /// Up to here the records prove that it was durable (docs/recovery.md).
    pub proven: LogIndex,
}

/// A segment of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SegmentFound {
    /// Its number; it is in its file's name.
    pub sequence: u64,
    /// The file's length.
    pub bytes: u64,
    /// What is in it.
    pub state: SegmentState,
    /// Its first index; zero if no header tells.
    pub first: LogIndex,
    /// Its last index; below `first` if it holds no entry.
    pub last: LogIndex,
    /// The terms of its first and last entry.
    pub terms: (Term, Term),
    /// How far entries reach, in bytes from the start of the file.
    pub data_bytes: u64,
    /// How many entries it could hold.
    pub slots: u32,
}

/// What a segment is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SegmentState {
    /// Full: its end record says what it holds.
    Sealed,
    /// The one that takes new entries.
    Last,
    /// A record in it is bad, or the file is not as long as it says.
    Damaged {
        /// What is wrong with it.
        found: String,
    },
}

/// A snapshot file.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SnapshotFound {
    /// The entry up to which it holds the state.
    pub at: LogId,
    /// The file's length.
    pub bytes: u64,
    /// What header and footer say, or why they are not believed.
    pub content: Result<SnapshotContent, String>,
}

/// What a whole snapshot says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SnapshotContent {
    /// Its own identity.
    pub id: SnapshotId,
    /// Whether a peer sent it; else it was captured here.
    pub installed: bool,
    /// Of how many groups it says this is one; zero: it does not.
    pub groups: u32,
    /// Bytes of the machine's state.
    pub payload_bytes: u64,
    /// How many blocks hold them.
    pub blocks: u64,
}

/// A file that is neither hard state nor in the log nor a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LeftOver {
    /// The file.
    pub file: File,
    /// Its length.
    pub bytes: u64,
    /// What it is for.
    pub purpose: &'static str,
}

/// What a restart would decide, and why (docs/recovery.md).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Judgement {
    /// The row of the verdict table.
    pub row: &'static str,
    /// What the row says.
    pub says: &'static str,
    /// What a restart does.
    pub does: &'static str,
    /// Whether the node starts.
    pub starts: bool,
    /// What the decision rests on.
    pub because: String,
}

/// What a verification read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Verified {
    /// Bytes of files.
    pub bytes: u64,
    /// Entries of the log.
    pub entries: u64,
    /// Blocks of snapshots.
    pub blocks: u64,
}

/// A record that is not what a writer wrote.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub struct Defect {
    /// The file.
    pub file: File,
    /// Where the record begins, in bytes from the start of the file.
    pub offset: u64,
    /// How long it is; zero if that is not known.
    pub bytes: u64,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
    /// What a restart does about it.
    pub then: String,
}

impl Judgement {
    pub(crate) const fn unread(because: String) -> Self {
        Self {
            row: "unread",
            says: "a file cannot be read, and nobody knows what is in it",
            does: "does not start before it can be read",
            starts: false,
            because,
        }
    }
}

impl Inspection {
    /// This file cannot be read: what the system `said` of it, and the same as a reason. Then nothing is
    /// judged, whatever was seen of the others; for drivers whose look did not come to read it.
    pub fn cannot_read(&mut self, file: File, said: String, because: String) {
        self.judgement = Judgement::unread(because);
        // What was found where it could not be read is not there.
        self.defects.retain(|defect| defect.file != file);
        self.defects.push(Defect {
            file,
            offset: 0,
            bytes: 0,
            expected: "a file that can be read".into(),
            found: said,
            then: self.judgement.does.into(),
        });
        self.defects.sort();
    }

    /// Whether a file could not be read, so that nothing was judged.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        self.judgement.row == "unread"
    }

    /// Whether nothing is wrong and the node would start.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.defects.is_empty() && self.judgement.starts
    }
}
