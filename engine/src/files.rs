//! A directory of files, with the standard library alone: performs each [`DiskRequest`] at once.
//!
//! For drivers of your own, for tests, and under the lanes of `lakebed-runtime`. Knows no engine
//! and no order between requests: that is the engine's. Invariant: who holds a [`Directory`] is
//! the only one that writes to its files, and was so since every operation of the former holder
//! ended (docs/driver.md).
//!
//! Two kinds of lock see to that. The file `LOCK` is held exclusively for the life of the
//! directory. Beside it each file that is written is locked in shared mode through the very
//! descriptor that writes to it: the system gives such a lock back when the last operation on the
//! descriptor has ended, which may be long after its process was killed. [`Directory::open`]
//! passes only when it can have every file exclusively for a moment.
//!
//! [`Directory::open_to_read`] is for whoever only looks: it makes no file, and what would write
//! fails. It shares `LOCK` with others who look, and with no node.

use crate::{
    event::Completion,
    file::{DiskError, DiskRequest, Extent, File},
};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, OpenOptions, TryLockError},
    io::{self, ErrorKind},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

/// The name of the lock file.
const LOCK: &str = "LOCK";
/// New files are filled with zeros in pieces of this many bytes, each durable before the next:
/// what else the device has to do waits for one piece at most.
const PIECE_BYTES: usize = 1 << 20;
/// Descriptors that are kept open.
const OPEN_MAX: usize = 64;
/// `EIO`: the system wrote nothing and gave no reason.
const EIO: i32 = 5;

/// A node's directory, locked. Can be shared between threads.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// The directory itself, to sync its names.
    names: fs::File,
    files: Mutex<BTreeMap<File, Arc<fs::File>>>,
    /// Whether nothing in it is to change.
    read_only: bool,
    /// Held for as long as this value lives; `None`: there is no such file, and none is made.
    _lock: Option<fs::File>,
}

/// Why a directory could not be opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// Somebody holds it.
    Locked {
        /// The file that is locked.
        path: PathBuf,
    },
    /// Nobody holds it, but an operation of its former holder has not ended: it will, or the
    /// machine must be reset.
    Draining {
        /// The file that is operated on.
        path: PathBuf,
    },
    /// It cannot be made, read or written.
    Io {
        /// What could not.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked { path } => {
                write!(f, "{} is locked: a node runs in this directory", path.display())
            }
            Self::Draining { path } => {
                write!(f, "an operation of a former node on {} has not ended", path.display())
            }
            Self::Io { path, error } => write!(f, "cannot use {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Locked { .. } | Self::Draining { .. } => None,
            Self::Io { error, .. } => Some(error),
        }
    }
}

impl Directory {
    /// Locks the directory, and makes it if there is none. Never waits: a directory that is
    /// locked is an error, and may be tried again.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, OpenError> {
        let path = path.into();
        let failed = |error| OpenError::Io { path: path.clone(), error };
        fs::create_dir_all(&path).map_err(failed)?;
        let names = fs::File::open(&path).map_err(failed)?;
        let lock = open_lock(&path.join(LOCK))?;
        Self::drained(path, names, false, Some(lock))
    }

    /// Locks the directory for reading alone: nothing in it is made or changed, and every request
    /// that would write fails. Others may look at the same time, but no node may run in it.
    pub fn open_to_read(path: impl Into<PathBuf>) -> Result<Self, OpenError> {
        let path = path.into();
        let names = fs::File::open(&path);
        let names = names.map_err(|error| OpenError::Io { path: path.clone(), error })?;
        let at = path.join(LOCK);
        let lock = match fs::File::open(&at) {
            Ok(lock) => Some(locked(lock.try_lock_shared(), lock, at)?),
            // A copy of a node's files need not have it.
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(OpenError::Io { path: at, error }),
        };
        Self::drained(path, names, true, lock)
    }

    fn drained(
        path: PathBuf,
        names: fs::File,
        read_only: bool,
        lock: Option<fs::File>,
    ) -> Result<Self, OpenError> {
        let files = Mutex::default();
        let directory = Self { path, names, files, read_only, _lock: lock };
        let listed = directory.list();
        let listed =
            listed.map_err(|error| OpenError::Io { path: directory.path.clone(), error })?;
        for (file, _) in listed {
            directory.check_drained(file)?;
        }
        Ok(directory)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Performs one request, and returns when it has ended.
    pub fn perform(&self, request: &DiskRequest) -> Result<Completion, DiskError> {
        self.try_perform(request).map_err(|error| disk_error(&error))
    }

    /// Performs a [`DiskRequest::Create`] whose content `fill` writes, and makes durable, in a way
    /// of its own. If it fails there is no such file.
    pub fn create_with(
        &self,
        file: File,
        fill: impl FnOnce(&fs::File) -> io::Result<()>,
    ) -> Result<(), DiskError> {
        if self.read_only {
            return Err(disk_error(&ErrorKind::ReadOnlyFilesystem.into()));
        }
        self.try_create(file, fill).map_err(|error| disk_error(&error))
    }

    /// Another descriptor of a file, opened as `options` say and locked like every one that
    /// writes; for drivers with ways of their own to write.
    pub fn open_beside(&self, file: File, options: &OpenOptions) -> Result<fs::File, DiskError> {
        let open = || {
            let opened = options.open(self.path.join(file.name()))?;
            opened.try_lock_shared()?;
            Ok(opened)
        };
        open().map_err(|error: io::Error| disk_error(&error))
    }

    fn try_perform(&self, request: &DiskRequest) -> io::Result<Completion> {
        if self.read_only && !matches!(request, DiskRequest::List | DiskRequest::Read { .. }) {
            return Err(ErrorKind::ReadOnlyFilesystem.into());
        }
        match request {
            DiskRequest::List => return self.list().map(Completion::Listed),
            DiskRequest::Read { file, offset, len } => {
                return read(&*self.file(*file)?, *offset, *len).map(Completion::Read);
            }
            // The standard library can only write zeros, never promise room: both are the same.
            DiskRequest::Create { file, len, zeroed: _ } => {
                self.try_create(*file, |new| fill_with_zeros(new, *len))?;
            }
            DiskRequest::Write { file, at, and, durable } => {
                write(&*self.file(*file)?, at, and.as_ref(), *durable)?;
            }
            DiskRequest::Sync { file } => self.file(*file)?.sync_data()?,
            DiskRequest::Rename { from, to } => self.rename(*from, *to)?,
            DiskRequest::Remove { file } => self.remove(*file)?,
            DiskRequest::SyncDirectory => self.names.sync_all()?,
        }
        Ok(Completion::Done)
    }

    fn list(&self) -> io::Result<Vec<(File, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if let Some(file) = entry.file_name().to_str().and_then(File::parse) {
                files.push((file, entry.metadata()?.len()));
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    fn try_create(
        &self,
        file: File,
        fill: impl FnOnce(&fs::File) -> io::Result<()>,
    ) -> io::Result<()> {
        self.files().remove(&file);
        let path = self.path.join(file.name());
        let mut options = OpenOptions::new();
        let new = options.read(true).write(true).create(true).truncate(true).open(&path)?;
        let filled = new.try_lock_shared().map_err(io::Error::from).and_then(|()| fill(&new));
        if let Err(error) = filled {
            // Half a file would only take the room that is missing already.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        keep(&mut self.files(), file, Arc::new(new));
        Ok(())
    }

    fn rename(&self, from: File, to: File) -> io::Result<()> {
        fs::rename(self.path.join(from.name()), self.path.join(to.name()))?;
        let mut files = self.files();
        files.remove(&to);
        if let Some(open) = files.remove(&from) {
            files.insert(to, open);
        }
        Ok(())
    }

    fn remove(&self, file: File) -> io::Result<()> {
        self.files().remove(&file);
        fs::remove_file(self.path.join(file.name()))
    }

    fn file(&self, file: File) -> io::Result<Arc<fs::File>> {
        if let Some(open) = self.files().get(&file) {
            return Ok(Arc::clone(open));
        }
        let open = self.options().open(self.path.join(file.name()))?;
        // Who only reads leaves nothing behind that a later owner must wait for.
        if !self.read_only {
            open.try_lock_shared()?;
        }
        let open = Arc::new(open);
        keep(&mut self.files(), file, Arc::clone(&open));
        Ok(open)
    }

    fn options(&self) -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true).write(!self.read_only);
        options
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<File, Arc<fs::File>>> {
        self.files.lock().expect("nothing panics while it holds the table of open files")
    }

    /// Whoever wrote to this file holds its lock until the last operation ended.
    fn check_drained(&self, file: File) -> Result<(), OpenError> {
        let path = self.path.join(file.name());
        let failed = |error| OpenError::Io { path: path.clone(), error };
        let open = self.options().open(&path).map_err(failed)?;
        open.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => OpenError::Draining { path: path.clone() },
            TryLockError::Error(error) => failed(error),
        })
    }
}

/// Keeps a descriptor for later operations, in place of the oldest segment's if there are many: a
/// log may have more segments than a process may have files open.
fn keep(files: &mut BTreeMap<File, Arc<fs::File>>, file: File, open: Arc<fs::File>) {
    let oldest = files.keys().find(|file| matches!(file, File::Segment(_))).copied();
    if let Some(oldest) = oldest.filter(|_| files.len() >= OPEN_MAX) {
        files.remove(&oldest);
    }
    files.insert(file, open);
}

fn open_lock(path: &Path) -> Result<fs::File, OpenError> {
    let failed = |error| OpenError::Io { path: path.to_owned(), error };
    let mut options = OpenOptions::new();
    let lock =
        options.read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
    locked(lock.try_lock(), lock, path.to_owned())
}

fn locked(
    tried: Result<(), TryLockError>,
    lock: fs::File,
    path: PathBuf,
) -> Result<fs::File, OpenError> {
    match tried {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path }),
        Err(TryLockError::Error(error)) => Err(OpenError::Io { path, error }),
    }
}

fn fill_with_zeros(file: &fs::File, len: u64) -> io::Result<()> {
    let zeros = vec![0; PIECE_BYTES];
    let mut filled = 0;
    while filled < len {
        let piece = zeros.len().min((len - filled).try_into().unwrap_or(usize::MAX));
        file.write_all_at(&zeros[..piece], filled)?;
        file.sync_data()?;
        filled += piece as u64;
    }
    file.sync_all()
}

fn read(file: &fs::File, offset: u64, len: u32) -> io::Result<Bytes> {
    let mut bytes = vec![0; len as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes.into())
}

fn write(file: &fs::File, at: &Extent, and: Option<&Extent>, durable: bool) -> io::Result<()> {
    for extent in [Some(at), and].into_iter().flatten() {
        file.write_all_at(&extent.whole(), extent.offset)?;
    }
    if durable { file.sync_data() } else { Ok(()) }
}

/// What an error of the system means to the engine.
#[must_use]
pub fn disk_error(error: &io::Error) -> DiskError {
    match error.kind() {
        ErrorKind::NotFound => DiskError::NotFound,
        // The last one is a limit of the process: like a quota, it may be lifted.
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            DiskError::Full
        }
        _ => DiskError::Io { errno: error.raw_os_error().unwrap_or(EIO) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::tempdir;

    fn extent(offset: u64, bytes: &'static [u8]) -> Extent {
        Extent::new(offset, Bytes::from_static(bytes))
    }

    fn content(directory: &Directory, file: File) -> Result<Completion, DiskError> {
        directory.perform(&DiskRequest::Read { file, offset: 0, len: 64 })
    }

    #[test]
    fn what_is_written_is_read_back_and_nothing_beyond_the_end() {
        let temporary = tempdir().unwrap();
        let directory = Directory::open(temporary.path()).unwrap();
        let file = File::Segment(1);
        let done = Ok(Completion::Done);
        assert_eq!(directory.perform(&DiskRequest::Create { file, len: 8, zeroed: true }), done);
        let write = |at, and, durable| DiskRequest::Write { file, at, and, durable };
        let both = write(extent(0, b"ab"), Some(extent(6, b"yz")), true);
        assert_eq!(directory.perform(&both), done);
        assert_eq!(directory.perform(&write(extent(2, b"c"), None, false)), done);
        assert_eq!(directory.perform(&DiskRequest::Sync { file }), done);
        let expected = Bytes::from_static(b"abc\0\0\0yz");
        assert_eq!(content(&directory, file), Ok(Completion::Read(expected)));
        let beyond = DiskRequest::Read { file, offset: 7, len: 9 };
        assert_eq!(directory.perform(&beyond), Ok(Completion::Read(Bytes::from_static(b"z"))));
    }

    #[test]
    fn a_file_longer_than_a_piece_is_filled_to_its_end() {
        let temporary = tempdir().unwrap();
        let directory = Directory::open(temporary.path()).unwrap();
        let (file, len) = (File::Spare(1), 2 * PIECE_BYTES as u64 + 5);
        directory.perform(&DiskRequest::Create { file, len, zeroed: true }).unwrap();
        let listed = directory.perform(&DiskRequest::List);
        assert_eq!(listed, Ok(Completion::Listed(vec![(file, len)])));
    }

    #[test]
    fn a_file_that_could_not_be_filled_is_not_there() {
        let temporary = tempdir().unwrap();
        let directory = Directory::open(temporary.path()).unwrap();
        let enospc = io::Error::from_raw_os_error(28);
        let created = directory.create_with(File::Spare(1), |_| Err(enospc));
        assert_eq!(created, Err(DiskError::Full));
        assert_eq!(directory.perform(&DiskRequest::List), Ok(Completion::Listed(Vec::new())));
    }

    #[test]
    fn a_new_file_replaces_the_one_of_its_name() {
        let temporary = tempdir().unwrap();
        let directory = Directory::open(temporary.path()).unwrap();
        let file = File::HardState;
        let create = DiskRequest::Create { file, len: 4, zeroed: true };
        directory.perform(&create).unwrap();
        let old = DiskRequest::Write { file, at: extent(0, b"old!"), and: None, durable: true };
        directory.perform(&old).unwrap();
        directory.perform(&create).unwrap();
        let zeros = Bytes::from_static(&[0; 4]);
        assert_eq!(content(&directory, file), Ok(Completion::Read(zeros)));
    }

    #[test]
    fn names_follow_renames_and_removals() {
        let temporary = tempdir().unwrap();
        let directory = Directory::open(temporary.path()).unwrap();
        let (spare, segment) = (File::Spare(3), File::Segment(9));
        for (file, bytes) in [(spare, b"new"), (segment, b"old")] {
            directory.perform(&DiskRequest::Create { file, len: 3, zeroed: false }).unwrap();
            let at = extent(0, bytes);
            let write = DiskRequest::Write { file, at, and: None, durable: false };
            directory.perform(&write).unwrap();
        }
        directory.perform(&DiskRequest::Rename { from: spare, to: segment }).unwrap();
        directory.perform(&DiskRequest::SyncDirectory).unwrap();
        let expected = Bytes::from_static(b"new");
        assert_eq!(content(&directory, segment), Ok(Completion::Read(expected)));
        assert_eq!(content(&directory, spare), Err(DiskError::NotFound));
        directory.perform(&DiskRequest::Remove { file: segment }).unwrap();
        assert_eq!(directory.perform(&DiskRequest::List), Ok(Completion::Listed(Vec::new())));
        let again = directory.perform(&DiskRequest::Remove { file: segment });
        assert_eq!(again, Err(DiskError::NotFound));
    }

    #[test]
    fn a_log_of_many_segments_does_not_keep_all_of_them_open() {
        let temporary = tempdir().unwrap();
        let directory = Directory::open(temporary.path()).unwrap();
        let segments = (0..2 * OPEN_MAX as u64).map(File::Segment);
        for file in segments.clone() {
            directory.perform(&DiskRequest::Create { file, len: 1, zeroed: true }).unwrap();
        }
        for file in segments {
            assert_eq!(content(&directory, file), Ok(Completion::Read(Bytes::from_static(&[0]))));
        }
        assert_eq!(directory.files().len(), OPEN_MAX);
    }

    #[test]
    fn names_that_are_not_the_engines_are_left_out() {
        let temporary = tempdir().unwrap();
        let directory = Directory::open(temporary.path()).unwrap();
        fs::write(temporary.path().join("notes.txt"), "mine").unwrap();
        assert_eq!(directory.perform(&DiskRequest::List), Ok(Completion::Listed(Vec::new())));
    }

    #[test]
    fn a_directory_has_one_owner_at_a_time() {
        let temporary = tempdir().unwrap();
        let first = Directory::open(temporary.path()).unwrap();
        let second = Directory::open(temporary.path());
        assert!(matches!(second, Err(OpenError::Locked { .. })), "{second:?}");
        drop(first);
        Directory::open(temporary.path()).unwrap();
    }

    /// A killed process leaves its lock file at once, but a write it had begun may land later:
    /// the descriptor of that write still holds the lock of the file.
    #[test]
    fn a_file_still_written_by_a_former_owner_keeps_the_directory_locked() {
        let temporary = tempdir().unwrap();
        let first = Directory::open(temporary.path()).unwrap();
        let file = File::Segment(1);
        first.perform(&DiskRequest::Create { file, len: 8, zeroed: true }).unwrap();
        let late = first.open_beside(file, OpenOptions::new().write(true)).unwrap();
        drop(first);
        let second = Directory::open(temporary.path());
        let Err(OpenError::Draining { path }) = second else { panic!("{second:?}") };
        assert!(path.ends_with("log-1"), "{path:?}");
        drop(late);
        Directory::open(temporary.path()).unwrap();
    }

    #[test]
    fn who_looks_changes_nothing_and_keeps_nodes_out() {
        let temporary = tempdir().unwrap();
        let owner = Directory::open(temporary.path()).unwrap();
        let file = File::Segment(1);
        owner.perform(&DiskRequest::Create { file, len: 8, zeroed: true }).unwrap();
        let looked = Directory::open_to_read(temporary.path());
        assert!(matches!(looked, Err(OpenError::Locked { .. })), "{looked:?}");
        drop(owner);
        let looks = [(); 2].map(|()| Directory::open_to_read(temporary.path()).unwrap());
        assert_eq!(content(&looks[0], file), Ok(Completion::Read(Bytes::from_static(&[0; 8]))));
        let writes = [
            DiskRequest::Create { file: File::Spare(2), len: 8, zeroed: true },
            DiskRequest::Write { file, at: extent(0, b"ab"), and: None, durable: true },
            DiskRequest::Sync { file },
            DiskRequest::Rename { from: file, to: File::Segment(2) },
            DiskRequest::Remove { file },
            DiskRequest::SyncDirectory,
        ];
        for write in writes {
            assert!(looks[0].perform(&write).is_err(), "{write:?}");
        }
        assert!(looks[0].create_with(File::Spare(2), |_| Ok(())).is_err());
        assert_eq!(content(&looks[1], file), Ok(Completion::Read(Bytes::from_static(&[0; 8]))));
        assert!(matches!(Directory::open(temporary.path()), Err(OpenError::Locked { .. })));
        drop(looks);
        // A copy need not have the lock's file, and gets none; what is not there is not made.
        fs::remove_file(temporary.path().join(LOCK)).unwrap();
        drop(Directory::open_to_read(temporary.path()).unwrap());
        assert!(!temporary.path().join(LOCK).exists());
        let nowhere = temporary.path().join("nowhere");
        assert!(Directory::open_to_read(&nowhere).is_err() && !nowhere.exists());
    }

    #[test]
    fn a_path_that_cannot_be_a_directory_is_an_error_that_names_it() {
        let temporary = tempdir().unwrap();
        let file = temporary.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Directory::open(&file).unwrap_err();
        assert!(error.to_string().contains("file"), "{error}");
    }

    #[test]
    fn no_room_is_told_from_other_failures() {
        let (enospc, edquot, efbig, eacces) = (28, 122, 27, 13);
        assert_eq!(disk_error(&io::Error::from_raw_os_error(enospc)), DiskError::Full);
        assert_eq!(disk_error(&io::Error::from_raw_os_error(edquot)), DiskError::Full);
        assert_eq!(disk_error(&io::Error::from_raw_os_error(efbig)), DiskError::Full);
        let other = disk_error(&io::Error::from_raw_os_error(eacces));
        assert_eq!(other, DiskError::Io { errno: eacces });
    }
}
