//! The last resort after a lost quorum: a node that does not run becomes the only voter.
//!
//! The engine judges and writes ([`Start::ForceSoleVoter`]); here it is asked first what it would
//! do, whoever called decides, and what is done is put on record in the node's directory, before
//! and after. Knows no byte of the node's own files.
//!
//! The record is a text file, `recovered-by-force`, that only grows:
//!
//! ```text
//! begun    2026-03-01T12:00:00Z by lakebed 0.1.0
//!     node         1 of cluster 7, group 1
//!     ...
//! finished 2026-03-01T12:00:00Z
//! ```

use crate::{
    alone,
    dir::{self, DirError, Owner},
};
use lakebed::{
    Config, DiskRequest, Engine, File, Forced, GroupId, Halt, Inspection, LogIndex, NodeId, Start,
    files::Directory,
};
use rustix::fs::fsync;
use std::{
    fmt::{self, Write as _},
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// The file that tells of recoveries by force.
pub const RECORD: &str = "recovered-by-force";
/// How its last line begins if the recovery came to its end.
const FINISHED: &str = "finished ";

/// How a recovery by force ended.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Force {
    /// The node is the only voter; this was done.
    Done(Box<Forced>),
    /// Whoever was asked did not want this. Nothing was written.
    Declined(Box<Forced>),
    /// An earlier try had done it and was cut short before it could say so; now the record does.
    WasDone,
}

/// Why a node does not become the only voter.
#[derive(Debug)]
#[non_exhaustive]
pub enum ForceError {
    /// It is no node's directory, or cannot be opened, or a node runs in it.
    Directory(DirError),
    /// The engine refuses, or its disk failed.
    Halted(Box<Halt>),
    /// What is done cannot be put on record. It is not done then, or done and not noted.
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl fmt::Display for ForceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(error) => error.fmt(f),
            Self::Halted(halt) => halt.fmt(f),
            Self::Record { path, error } => {
                write!(f, "cannot put it on record in {}: {error}", path.display())
            }
        }
    }
}

impl std::error::Error for ForceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Directory(error) => Some(error),
            Self::Record { error, .. } => Some(error),
            Self::Halted(_) => None,
        }
    }
}

/// How far a recovery by force is with the log behind the newest snapshot, which takes most of the time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ForceEffort {
    /// Whether it was accepted: then the log is read and written again. Before, it is only read.
    pub is_accepted: bool,
    /// Bytes done, never more than there are.
    pub bytes_done: u64,
    /// Bytes in all, as far as that can be told before.
    pub bytes_total: u64,
}

/// Makes the node of this directory the only voter of its cluster, in a new cluster epoch, if
/// `accept` wants what it is told. The directory is locked all the time. `progress` is told how far it
/// is, often.
///
/// It need not know in which units the node writes: the hard state says it.
pub fn force(
    path: &Path,
    accept: impl FnOnce(&Forced) -> bool,
    mut progress: impl FnMut(ForceEffort),
) -> Result<Force, ForceError> {
    let (directory, owner) = dir::open_to_force(path).map_err(ForceError::Directory)?;
    let plan = match run(&directory, owner, false, &mut progress) {
        Halt::Forced(plan) => plan,
        Halt::Refused { row: "already-alone", .. } if is_record_open(path)? => {
            add(&directory, &format!("{FINISHED}{} (it was done before)\n", now()))?;
            return Ok(Force::WasDone);
        }
        halt => return Err(ForceError::Halted(Box::new(halt))),
    };
    if !accept(&plan) {
        return Ok(Force::Declined(plan));
    }
    add(&directory, &begun(&plan))?;
    match run(&directory, owner, true, &mut progress) {
        Halt::Forced(done) => {
            add(&directory, &format!("{FINISHED}{}\n", now()))?;
            Ok(Force::Done(done))
        }
        halt => Err(ForceError::Halted(Box::new(halt))),
    }
}

fn run(
    directory: &Directory,
    owner: Owner,
    is_accepted: bool,
    progress: &mut impl FnMut(ForceEffort),
) -> Halt {
    let start =
        |config, start, performed: &mut dyn FnMut(&DiskRequest)| match Engine::new(config, 0) {
            Ok(engine) => alone::run(engine, start, directory, |_| None, performed),
            Err(error) => unreachable!("units that a hard state may have: {error}"),
        };
    let mut config = Config::new(GroupId(owner.group), NodeId(owner.node));
    let mut log_bytes = 0;
    if let Halt::Inspected(found) = start(config.clone(), Start::Inspect, &mut |_| {}) {
        log_bytes = log_bytes_of(&found);
        if let Some(hard) = found.hard_state.filter(|hard| hard.disk_align > 0) {
            config.disk_align = hard.disk_align;
        }
    }
    // What is accepted is read to be judged, and once more as it is written.
    let bytes_total = if is_accepted { 3 * log_bytes } else { log_bytes };
    let mut bytes_done = 0;
    start(config, Start::ForceSoleVoter { acknowledged_loss: is_accepted }, &mut |request| {
        bytes_done = bytes_total.min(bytes_done + segment_bytes(request));
        progress(ForceEffort { is_accepted, bytes_done, bytes_total });
    })
}

/// How long the log is behind the newest whole snapshot: what lies before is not needed.
fn log_bytes_of(found: &Inspection) -> u64 {
    let whole = found.snapshots.iter().filter(|snapshot| snapshot.content.is_ok());
    let snapshot = whole.map(|snapshot| snapshot.at.index).max().unwrap_or(LogIndex(0));
    let behind = found.segments.iter().filter(|segment| segment.last > snapshot);
    behind.map(|segment| segment.data_bytes).sum()
}

/// How much of the log is read or written.
fn segment_bytes(request: &DiskRequest) -> u64 {
    match request {
        DiskRequest::Read { file: File::Segment(_), len, .. } => u64::from(*len),
        DiskRequest::Write { file: File::Segment(_), at, and, .. } => {
            let extents = [Some(at), and.as_ref()].into_iter().flatten();
            extents.map(|extent| extent.bytes.len() as u64).sum()
        }
        _ => 0,
    }
}

fn begun(plan: &Forced) -> String {
    let mut text = format!("begun    {} by lakebed {}\n", now(), env!("CARGO_PKG_VERSION"));
    for member in plan.members.members() {
        let address = String::from_utf8_lossy(&member.address);
        writeln!(text, "    member       {} at {address}", member.id).expect("a string takes it");
    }
    for line in plan.to_string().lines() {
        writeln!(text, "    {line}").expect("a string takes it");
    }
    text
}

/// Whether the last recovery on record was not said to have ended.
fn is_record_open(path: &Path) -> Result<bool, ForceError> {
    let path = path.join(RECORD);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(!text.lines().last().is_some_and(|last| last.starts_with(FINISHED))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(ForceError::Record { path, error }),
    }
}

/// Durable when it returns, its name included.
fn add(directory: &Directory, text: &str) -> Result<(), ForceError> {
    let path = directory.path().join(RECORD);
    let write = || {
        let mut file = fs::File::options().create(true).append(true).open(&path)?;
        file.write_all(text.as_bytes())?;
        fsync(&file)?;
        directory.perform(&DiskRequest::SyncDirectory).map(drop).map_err(io::Error::other)
    };
    write().map_err(|error| ForceError::Record { path: path.clone(), error })
}

/// The present second, in UTC.
fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    utc(since)
}

/// Howard Hinnant's `civil_from_days`, for days since 1970.
fn utc(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year + u64::from(month < 3);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn seconds_are_told_as_people_tell_them() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_709_251_200), "2024-03-01T00:00:00Z");
        assert_eq!(utc(4_102_444_799), "2099-12-31T23:59:59Z");
    }
}
