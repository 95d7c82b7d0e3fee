//! Files by meaning, their names, and what can be asked of a disk. Names belong to the engine,
//! like every byte.

use crate::types::{LogId, LogIndex, SnapshotId, Term};
use bytes::{Bytes, BytesMut};
use std::fmt;

/// A file of a node's directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum File {
    /// Term, vote and all that a restart must not forget.
    HardState,
    /// A piece of the log; sequences are never reused.
    Segment(u64),
    /// Zeroed room for a file to come.
    Spare(u64),
    /// The state up to a log position.
    Snapshot(LogId),
    /// A snapshot in the making.
    Part(LogId, SnapshotId),
}

impl File {
    /// The file's name in the node's directory.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::HardState => "hard-state".into(),
            Self::Segment(n) => format!("log-{n}"),
            Self::Spare(n) => format!("spare-{n}"),
            Self::Snapshot(id) => format!("snapshot-{}-{}", id.index, id.term),
            Self::Part(id, snapshot) => {
                format!("snapshot-{}-{}-{snapshot}.part", id.index, id.term)
            }
        }
    }

    /// The file of this name; `None` for names that are not the engine's.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let file = Self::parse_loosely(name)?;
        // "log-007" and "log-+7" would name the same file twice.
        (file.name() == name).then_some(file)
    }

    fn parse_loosely(name: &str) -> Option<Self> {
        if name == "hard-state" {
            return Some(Self::HardState);
        }
        if let Some(n) = name.strip_prefix("log-") {
            return n.parse().ok().map(Self::Segment);
        }
        if let Some(n) = name.strip_prefix("spare-") {
            return n.parse().ok().map(Self::Spare);
        }
        let rest = name.strip_prefix("snapshot-")?;
        let (rest, part) = rest.strip_suffix(".part").map_or((rest, false), |rest| (rest, true));
        let mut numbers = rest.split('-').map(|n| n.parse::<u64>().ok());
        let (index, term) = (numbers.next()??, numbers.next()??);
        let id = LogId::new(Term(term), LogIndex(index));
        let file =
            if part { Self::Part(id, SnapshotId(numbers.next()??)) } else { Self::Snapshot(id) };
        numbers.next().is_none().then_some(file)
    }
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// What can be asked of a node's directory. Exhaustive on purpose.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DiskRequest {
    /// Which files there are, and how long.
    List,
    /// A new file of this length; its *content* is durable when done, its *name* after
    /// [`SyncDirectory`](Self::SyncDirectory). An existing file of that name is replaced.
    Create {
        /// The file.
        file: File,
        /// Its length in bytes.
        len: u64,
        /// Whether its room must have been written with zeros, not only promised.
        zeroed: bool,
    },
    /// Part of a file; shorter only at its end. Where a write is in flight each sector may be as it was before
    /// or as it will be.
    Read {
        /// The file.
        file: File,
        /// Where, in bytes from its start.
        offset: u64,
        /// How much, in bytes.
        len: u32,
    },
    /// Up to two places of one file, in multiples of [`Config::disk_align`](crate::Config).
    /// Never overlaps a write in flight; never goes past the length a segment or the hard state
    /// was created with, while a `Part` grows.
    Write {
        /// The file.
        file: File,
        /// The first place.
        at: Extent,
        /// The second place.
        and: Option<Extent>,
        /// Whether both must be durable when it is done.
        durable: bool,
    },
    /// Makes durable what was written by operations on this file that ended before this one was
    /// submitted, length included.
    Sync {
        /// The file.
        file: File,
    },
    /// Another name for a file, replacing whatever had it; durable after `SyncDirectory`.
    Rename {
        /// The old name.
        from: File,
        /// The new name.
        to: File,
    },
    /// Removes a file; durable after `SyncDirectory`.
    Remove {
        /// The file.
        file: File,
    },
    /// Makes creations, renames and removals durable that ended before it was submitted.
    SyncDirectory,
}

/// Bytes and where they go.
///
/// Entries are written from the buffer that they came in, which ends where the last one does; the
/// rest of its block is told in a number. So nothing is copied only to be padded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Bytes from the start of the file.
    pub offset: u64,
    /// What to write.
    pub bytes: Bytes,
    /// How many zeros to write behind it, up to the end of the block.
    pub zeros: u32,
}

impl Extent {
    /// These bytes and nothing behind them.
    #[must_use]
    pub const fn new(offset: u64, bytes: Bytes) -> Self {
        Self { offset, bytes, zeros: 0 }
    }

    /// How many bytes of the file are written.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.bytes.len() as u64 + self.zeros as u64
    }

    /// Whether nothing is written.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where it ends.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.offset + self.len()
    }

    /// All that is written, in one piece: copied only if there are zeros.
    #[must_use]
    pub fn whole(&self) -> Bytes {
        if self.zeros == 0 {
            return self.bytes.clone();
        }
        let mut whole = BytesMut::zeroed(self.len() as usize);
        whole[..self.bytes.len()].copy_from_slice(&self.bytes);
        whole.freeze()
    }
}

/// Who yields when the device is busy: the later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// A client waits for it.
    Commit,
    /// A peer or the machine waits for it.
    Serve,
    /// Nobody waits for it.
    Background,
}

/// What error numbers of Linux mean that somebody can do something about.
const WORDS: [(i32, &str); 8] = [
    (1, "not permitted"),
    (13, "permission denied"),
    (20, "a part of its path is no directory"),
    (21, "it is a directory"),
    (23, "the system has too many files open"),
    (24, "this process has too many files open"),
    (30, "the file system can only be read"),
    (40, "too many links lead there"),
];

/// How a disk operation failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DiskError {
    /// There is no such file.
    NotFound,
    /// There is no room.
    Full,
    /// The system said so.
    Io {
        /// Its error number.
        errno: i32,
    },
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("no such file"),
            Self::Full => f.write_str("no room left"),
            Self::Io { errno } => {
                let told = WORDS.iter().find(|(number, _)| number == errno);
                let told = told.map_or("I/O error", |(_, told)| told);
                write!(f, "{told} (errno {errno})")
            }
        }
    }
}

impl std::error::Error for DiskError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_in_words_where_there_is_something_to_do() {
        let told = |errno| DiskError::Io { errno }.to_string();
        assert_eq!(told(13), "permission denied (errno 13)");
        assert_eq!(told(5), "I/O error (errno 5)");
        assert!(WORDS.is_sorted_by_key(|(errno, _)| errno));
    }

    #[test]
    fn names_are_read_back_and_no_other_name_is() {
        let id = LogId::new(Term(3), LogIndex(900));
        let files = [
            File::HardState,
            File::Segment(7),
            File::Spare(u64::MAX),
            File::Snapshot(id),
            File::Part(id, SnapshotId(5)),
        ];
        for file in files {
            assert_eq!(File::parse(&file.name()), Some(file));
        }
        let foreign = [
            "",
            "LOCK",
            "log-",
            "log-07",
            "log-+7",
            "log--7",
            "spare-x",
            "snapshot-1",
            "snapshot-1-2-3",
            "snapshot-1-2.part",
            "snapshot-1-2-3-4.part",
            "hard-state.bak",
        ];
        for name in foreign {
            assert_eq!(File::parse(name), None, "{name}");
        }
    }
}
