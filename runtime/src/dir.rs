//! The directory of a node: locked, and marked with whose it is.
//!
//! Knows nothing of the engine's files but their names. Invariant: a directory marked with one
//! cluster, group and node is never used by another.
//!
//! The mark is a text file, `node`, for people too:
//!
//! ```text
//! lakebed-node 1
//! cluster 7
//! group 1
//! node 3
//! ```

mod holder;

use lakebed::{
    DiskError, DiskRequest, File,
    files::{Directory, OpenError},
};
use rustix::fs::fsync;
use std::{
    fmt::{self, Write},
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// The file that says whose directory it is.
pub const MARK: &str = "node";
/// The mark while it is written.
const MARK_NEW: &str = "node.new";
/// Names that an empty directory may have in it.
const OUTSIDE: [&str; 3] = [MARK_NEW, "LOCK", "lost+found"];
/// The newest layout of the directory that this version knows.
const VERSION: u64 = 1;
/// How long operations of a node that was killed may take to end.
const DRAIN_MAX: Duration = Duration::from_secs(10);
const DRAIN_POLL: Duration = Duration::from_millis(5);

/// Whose directory it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Owner {
    pub(crate) cluster: u64,
    pub(crate) group: u64,
    pub(crate) node: u64,
}

/// Why a node cannot live in a directory.
#[derive(Debug)]
#[non_exhaustive]
pub enum DirError {
    /// It is locked: a node runs in it, or somebody looks at it.
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process that holds it, if the system tells.
        holder: Option<u32>,
    },
    /// It cannot be opened.
    Open(OpenError),
    /// It cannot be read or written.
    Io {
        /// What could not.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It belongs to another.
    Foreign {
        /// The directory.
        path: PathBuf,
        /// `cluster`, `group` or `node`.
        field: &'static str,
        /// What was asked for.
        expected: u64,
        /// What the directory says.
        found: u64,
    },
    /// A newer version of this program made it.
    Newer {
        /// The directory.
        path: PathBuf,
        /// The version of its layout.
        version: u64,
    },
    /// It says whose it is in a way that nobody can read.
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// There is nothing in it.
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// It does not say that it is a node's.
    NotANode {
        /// The directory.
        path: PathBuf,
        /// The file that would say so.
        mark: PathBuf,
    },
    /// It does not say which groups were removed from it in a way that anybody can read.
    RemovedGroups {
        /// The file.
        path: PathBuf,
    },
    /// It has something in it, where a node is to be made from a backup.
    NotEmpty {
        /// Some of it.
        path: PathBuf,
    },
    /// It has files in it that no node made.
    NotOurs {
        /// One of them.
        path: PathBuf,
    },
}

impl fmt::Display for DirError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { path, holder } => {
                write!(f, "{} is locked", path.display())?;
                holder.map_or(Ok(()), |process| write!(f, " by process {process}"))?;
                f.write_str(": a node runs in this directory, or somebody looks at it")
            }
            Self::Open(error) => error.fmt(f),
            Self::Io { path, error } => write!(f, "cannot use {}: {error}", path.display()),
            Self::Foreign { path, field, expected, found } => write!(
                f,
                "{} belongs to {field} {found}, not to {field} {expected}: start it as what it is{}, or \
                 choose another directory for a new node",
                path.display(),
                if *field == "cluster" {
                    " (a cluster's number comes of its name, of those that it was begun with and of how many \
                     groups it has: these stay as they were, whoever joined or left since)"
                } else {
                    ""
                }
            ),
            Self::Newer { path, version } => write!(
                f,
                "{} has layout {version}, this program knows layouts up to {VERSION}: use a newer \
                 version",
                path.display()
            ),
            Self::Malformed { path } => {
                write!(f, "{} does not say whose directory this is", path.display())
            }
            Self::Empty { path } => {
                write!(f, "{} is empty: no node has lived there", path.display())
            }
            Self::NotANode { path, mark } => write!(
                f,
                "{} is no node's directory: there is no {}",
                path.display(),
                mark.display()
            ),
            Self::RemovedGroups { path } => write!(
                f,
                "{} does not say which groups were removed: put it back as it was, or remove it, if \
                 no id of a removed group will ever be used again",
                path.display()
            ),
            Self::NotEmpty { path } => write!(
                f,
                "{} is in the way: a node is restored into an empty directory, or one that holds \
                 what an earlier try of the same left",
                path.display()
            ),
            Self::NotOurs { path } => write!(
                f,
                "{} is no file of a node: choose an empty directory for a new one",
                path.display()
            ),
        }
    }
}

impl std::error::Error for DirError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open(error) => Some(error),
            Self::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// Opens a node's directory for reading alone, and says whose it is. Nothing in it changes.
pub(crate) fn open_to_read(path: &Path) -> Result<(Directory, Owner), DirError> {
    let owner = owner_of(path)?;
    Ok((opened(path, || Directory::open_to_read(path))?, owner))
}

/// Opens and locks the directory of a node that must be there, and says whose it is.
pub(crate) fn open_to_force(path: &Path) -> Result<(Directory, Owner), DirError> {
    let owner = owner_of(path)?;
    Ok((opened(path, || Directory::open(path))?, owner))
}

/// Whose directory it is; it must say so.
fn owner_of(path: &Path) -> Result<Owner, DirError> {
    let unreadable = |error| DirError::Io { path: path.to_owned(), error };
    // Before it is locked: what is not a node's has no lock.
    if fs::read_dir(path).map_err(unreadable)?.next().is_none() {
        return Err(DirError::Empty { path: path.to_owned() });
    }
    let mark = path.join(MARK);
    read_mark(path)?.ok_or_else(|| DirError::NotANode { path: path.to_owned(), mark })
}

/// Whose directory it is, if it says so.
fn read_mark(path: &Path) -> Result<Option<Owner>, DirError> {
    let mark = path.join(MARK);
    match fs::read_to_string(&mark) {
        Ok(text) => Ok(Some(parse(&text, path)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(DirError::Malformed { path: mark })
        }
        Err(error) => Err(DirError::Io { path: mark, error }),
    }
}

/// Opens and locks the directory of this owner. The flag says whether there is no node in it yet.
pub(crate) fn open(path: &Path, owner: Owner) -> Result<(Directory, bool), DirError> {
    // Before it is locked: in somebody else's directory not even a lock is left behind.
    if read_mark(path)?.is_none() {
        holds_a_node(path)?;
    }
    let directory = opened(path, || Directory::open(path))?;
    let marked = read_mark(path)?;
    let vacant = is_vacant(&directory)?;
    match marked {
        Some(found) => compare(path, owner, found)?,
        None => write_mark(&directory, owner)?,
    }
    Ok((directory, vacant))
}

/// Opens and locks the directory of this owner if there is a node in it. Where nothing says whose it is, and
/// there is none, nothing is written: on a full disk that would fail, and there is nothing to be said.
pub(crate) fn open_made(path: &Path, owner: Owner) -> Result<Option<Directory>, DirError> {
    if read_mark(path)?.is_none() && !holds_a_node(path)? {
        return Ok(None);
    }
    let (directory, vacant) = open(path, owner)?;
    Ok((!vacant).then_some(directory))
}

/// Opens and locks a directory in which this owner is to be made from a backup: it is empty, or was
/// marked as this owner's before. What is in it then is for the engine to judge.
pub(crate) fn open_to_restore(path: &Path, owner: Owner) -> Result<Directory, DirError> {
    match read_mark(path)? {
        Some(found) => compare(path, owner, found)?,
        None => refuse_anything(path)?,
    }
    open(path, owner).map(|(directory, _)| directory)
}

/// Where nothing says whose it is, snapshots may be somebody's backups.
fn refuse_anything(path: &Path) -> Result<(), DirError> {
    let unreadable = |error| DirError::Io { path: path.to_owned(), error };
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unreadable(error)),
    };
    for entry in entries {
        let name = entry.map_err(unreadable)?.file_name();
        if !OUTSIDE.iter().any(|outside| name == *outside) {
            return Err(DirError::NotEmpty { path: path.join(name) });
        }
    }
    Ok(())
}

/// A node that was killed holds its directory until its last write has ended.
fn opened(
    path: &Path,
    open: impl Fn() -> Result<Directory, OpenError>,
) -> Result<Directory, DirError> {
    let until = Instant::now() + DRAIN_MAX;
    loop {
        match open() {
            Ok(directory) => return Ok(directory),
            Err(OpenError::Draining { .. }) if Instant::now() < until => thread::sleep(DRAIN_POLL),
            Err(OpenError::Locked { path: lock }) => {
                let holder = holder::of(&lock);
                return Err(DirError::InUse { path: path.to_owned(), holder });
            }
            Err(error) => return Err(DirError::Open(error)),
        }
    }
}

fn is_vacant(directory: &Directory) -> Result<bool, DirError> {
    directory.is_vacant().map_err(|error| failed(directory.path(), error))
}

/// Whether there is more of a node than spare room. If not, what is no node's is refused.
fn holds_a_node(path: &Path) -> Result<bool, DirError> {
    let unreadable = |error| DirError::Io { path: path.to_owned(), error };
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(unreadable(error)),
    };
    let mut stranger = None;
    for entry in entries {
        let name = entry.map_err(unreadable)?.file_name();
        match name.to_str().map(|name| (File::parse(name), OUTSIDE.contains(&name))) {
            Some((Some(File::Spare(_)), _) | (None, true)) => {}
            Some((Some(_), _)) => return Ok(true),
            Some((None, false)) | None => stranger = Some(name),
        }
    }
    stranger.map_or(Ok(false), |name| Err(DirError::NotOurs { path: path.join(name) }))
}

fn compare(path: &Path, expected: Owner, found: Owner) -> Result<(), DirError> {
    let fields = [
        ("cluster", expected.cluster, found.cluster),
        ("group", expected.group, found.group),
        ("node", expected.node, found.node),
    ];
    match fields.into_iter().find(|(_, expected, found)| expected != found) {
        None => Ok(()),
        Some((field, expected, found)) => {
            Err(DirError::Foreign { path: path.to_owned(), field, expected, found })
        }
    }
}

fn parse(text: &str, path: &Path) -> Result<Owner, DirError> {
    let malformed = || DirError::Malformed { path: path.join(MARK) };
    let mut lines = text.lines();
    let mut field = |name: &str| {
        let value = lines.next()?.strip_prefix(name)?.strip_prefix(' ')?;
        value.parse::<u64>().ok()
    };
    // The version first: what follows may look otherwise in a newer one.
    let version = field("lakebed-node").ok_or_else(malformed)?;
    if version > VERSION {
        return Err(DirError::Newer { path: path.to_owned(), version });
    }
    let mut next = |name| field(name).ok_or_else(malformed);
    Ok(Owner { cluster: next("cluster")?, group: next("group")?, node: next("node")? })
}

/// Whole or not at all: written beside its place, synced, renamed, and the name synced.
fn write_mark(directory: &Directory, owner: Owner) -> Result<(), DirError> {
    let new = directory.path().join(MARK_NEW);
    let mut text = format!("lakebed-node {VERSION}\n");
    for (name, value) in [("cluster", owner.cluster), ("group", owner.group), ("node", owner.node)]
    {
        writeln!(text, "{name} {value}").expect("a string takes all that is written to it");
    }
    let write = || {
        let mut file = fs::File::create(&new)?;
        file.write_all(text.as_bytes())?;
        fsync(&file)?;
        fs::rename(&new, directory.path().join(MARK))
    };
    write().map_err(|error| DirError::Io { path: new.clone(), error })?;
    let synced = directory.perform(&DiskRequest::SyncDirectory);
    synced.map(drop).map_err(|error| failed(directory.path(), error))
}

fn failed(path: &Path, error: DiskError) -> DirError {
    DirError::Io { path: path.to_owned(), error: io::Error::other(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::tempdir;

    const OWNER: Owner = Owner { cluster: 7, group: 1, node: 3 };

    fn refusal(path: &Path, owner: Owner) -> String {
        open(path, owner).map(drop).unwrap_err().to_string()
    }

    #[test]
    fn a_directory_stays_with_its_first_owner() {
        let temporary = tempdir().unwrap();
        let (directory, vacant) = open(temporary.path(), OWNER).unwrap();
        assert!(vacant);
        let create = DiskRequest::Create { file: File::HardState, len: 1, zeroed: true };
        directory.perform(&create).unwrap();
        drop(directory);
        assert!(!open(temporary.path(), OWNER).unwrap().1);
        for (other, words) in [
            (Owner { cluster: 8, ..OWNER }, "cluster 7, not to cluster 8"),
            (Owner { group: 2, ..OWNER }, "group 1, not to group 2"),
            (Owner { node: 4, ..OWNER }, "node 3, not to node 4"),
        ] {
            let refusal = refusal(temporary.path(), other);
            assert!(refusal.contains(words), "{refusal}");
        }
    }

    /// Half a mark would be nobody's, and one that a power cut takes leaves the directory to anybody.
    #[test]
    fn a_mark_is_whole_and_durable_before_it_has_its_name() {
        let temporary = tempdir().unwrap();
        let new = temporary.path().join(MARK_NEW);
        std::os::unix::fs::symlink("/dev/null", &new).unwrap();
        // It takes all that is written, and cannot be synced.
        let refusal = refusal(temporary.path(), OWNER);
        assert!(refusal.contains(MARK_NEW), "{refusal}");
        assert!(!temporary.path().join(MARK).exists());
        fs::remove_file(new).unwrap();
        assert!(open(temporary.path(), OWNER).is_ok());
    }

    #[test]
    fn spare_room_alone_is_no_node() {
        let temporary = tempdir().unwrap();
        let (directory, _) = open(temporary.path(), OWNER).unwrap();
        let create = DiskRequest::Create { file: File::Spare(0), len: 1, zeroed: true };
        directory.perform(&create).unwrap();
        drop(directory);
        assert!(open(temporary.path(), OWNER).unwrap().1);
    }

    /// A node that was killed has operations under way.
    #[test]
    fn what_a_former_node_has_begun_is_waited_for() {
        let temporary = tempdir().unwrap();
        let path = temporary.path();
        let tries = std::cell::Cell::new(0);
        let open = || match tries.replace(tries.get() + 1) {
            0 | 1 => Err(OpenError::Draining { path: path.to_owned() }),
            _ => Directory::open(path),
        };
        opened(path, open).unwrap();
        assert_eq!(tries.get(), 3);
    }

    #[test]
    fn a_directory_in_use_is_refused_at_once() {
        let temporary = tempdir().unwrap();
        let _held = open(temporary.path(), OWNER).unwrap();
        let refusal = refusal(temporary.path(), OWNER);
        let me = format!("is locked by process {}: a node runs", std::process::id());
        assert!(refusal.contains(&me), "{refusal}");
    }

    #[test]
    fn what_is_no_nodes_is_not_looked_at() {
        let temporary = tempdir().unwrap();
        let refusal = || open_to_read(temporary.path()).map(drop).unwrap_err().to_string();
        assert!(refusal().contains("no node has lived there"), "{}", refusal());
        fs::write(temporary.path().join("thesis.tex"), "years of work").unwrap();
        assert!(refusal().contains("is no node's directory"), "{}", refusal());
        fs::write(temporary.path().join(MARK), "lakebed-node 2\n").unwrap();
        assert!(refusal().contains("layout 2"), "{}", refusal());
        fs::remove_file(temporary.path().join(MARK)).unwrap();
        fs::remove_file(temporary.path().join("thesis.tex")).unwrap();
        let held = open(temporary.path(), OWNER).unwrap();
        assert!(refusal().contains("a node runs"), "{}", refusal());
        drop(held);
        assert_eq!(open_to_read(temporary.path()).unwrap().1, OWNER);
    }

    #[test]
    fn marks_that_cannot_be_followed_are_refused() {
        let cases = [
            ("lakebed-node 2\nshape unknown\n", "layout 2"),
            ("lakebed-node 1\ncluster 7\ngroup 1\n", "does not say whose"),
            ("lakebed-node 1\ncluster 7\ngroup x\nnode 3\n", "does not say whose"),
            ("", "does not say whose"),
        ];
        for (text, words) in cases {
            let temporary = tempdir().unwrap();
            fs::write(temporary.path().join(MARK), text).unwrap();
            let refusal = refusal(temporary.path(), OWNER);
            assert!(refusal.contains(words), "{text:?}: {refusal}");
        }
        let temporary = tempdir().unwrap();
        fs::write(temporary.path().join(MARK), [0xff, 0xfe]).unwrap();
        assert!(refusal(temporary.path(), OWNER).contains("does not say whose"));
    }

    #[test]
    fn a_directory_of_somebody_elses_files_is_not_taken() {
        let temporary = tempdir().unwrap();
        fs::write(temporary.path().join("thesis.tex"), "years of work").unwrap();
        let refusal = refusal(temporary.path(), OWNER);
        assert!(refusal.contains("thesis.tex"), "{refusal}");
        assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 1, "nothing is left there");
    }

    #[test]
    fn a_restore_takes_an_empty_directory_or_its_own() {
        let temporary = tempdir().unwrap();
        let at = temporary.path().join("new");
        let refusal = |owner| open_to_restore(&at, owner).map(drop).unwrap_err().to_string();
        drop(open_to_restore(&at, OWNER).unwrap());
        drop(open_to_restore(&at, OWNER).unwrap());
        let other = refusal(Owner { cluster: 8, ..OWNER });
        assert!(other.contains("cluster 7, not to cluster 8"), "{other}");
        // Somebody's backups, called as a node calls them.
        let backups = temporary.path().join("backups");
        fs::create_dir(&backups).unwrap();
        fs::write(backups.join("snapshot-5-1"), "precious").unwrap();
        let refused = open_to_restore(&backups, OWNER).map(drop).unwrap_err().to_string();
        assert!(refused.contains("snapshot-5-1 is in the way"), "{refused}");
        assert_eq!(fs::read_dir(&backups).unwrap().count(), 1, "nothing was made there");
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let temporary = tempdir().unwrap();
        let file = temporary.path().join("plain-file");
        fs::write(&file, "").unwrap();
        let refusal = refusal(&file.join("below"), OWNER);
        assert!(refusal.contains("plain-file"), "{refusal}");
    }
}
