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
use rustix::{
    fs::{fdatasync, fsync},
    io::Errno,
};
use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, OpenOptions, TryLockError},
    io::{self, ErrorKind},
    os::unix::fs::{FileExt, MetadataExt},
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
    /// The most that are kept open, as far as there are segments to close.
    open_max: usize,
    /// Whether nothing in it is to change.
    read_only: bool,
    /// Files that whoever only looks may not open, and why.
    closed: Vec<(File, io::Error)>,
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
                write!(
                    f,
                    "{} is locked: a node runs in this directory, or somebody looks at it",
                    path.display()
                )
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

/// Makes a directory and those above it that are missing, each of which is there after a power cut.
///
/// One that is there is made durable as well: a process may have made it, and been killed before it came to
/// that. Nobody could tell later, and to sync what is durable costs next to nothing.
pub fn make_durably(path: &Path) -> io::Result<()> {
    make_with(path, |above| Ok(fsync(fs::File::open(above)?)?))
}

/// `sync` makes the names in a directory durable. Each is, before another is made below it: so only the last
/// that is there can be one that is not.
fn make_with(path: &Path, mut sync: impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    let missing: Vec<&Path> = path
        .ancestors()
        .take_while(|path| !path.as_os_str().is_empty() && !path.exists())
        .collect();
    let there = path.ancestors().nth(missing.len());
    if let Some(above) = there.and_then(above) {
        match sync(above) {
            // One that may not be opened, or knows no sync, was not ours to make anything in.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::PermissionDenied | ErrorKind::InvalidInput
                ) => {}
            synced => synced?,
        }
    }
    for made in missing.into_iter().rev() {
        match fs::create_dir(made) {
            // Somebody else makes it at the same time.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && made.is_dir() => {}
            created => created?,
        }
        above(made).map_or(Ok(()), &mut sync)?;
    }
    Ok(())
}

/// The directory that has this one's name; none has that of the root, or of where we are.
fn above(path: &Path) -> Option<&Path> {
    let above = path.parent()?;
    Some(if above.as_os_str().is_empty() { Path::new(".") } else { above })
}

impl Directory {
    /// Locks the directory, and makes it if there is none. Never waits: a directory that is
    /// locked is an error, and may be tried again.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, OpenError> {
        let path = path.into();
        let failed = |error| OpenError::Io { path: path.clone(), error };
        make_durably(&path).map_err(failed)?;
        let names = fs::File::open(&path).map_err(failed)?;
        let lock = open_lock(&path.join(LOCK))?;
        Self::drained(path, names, false, Some(lock))
    }

    /// Keeps at most so many files open, as far as there are segments to close; 64, if nothing is said.
    #[must_use]
    pub const fn with_open_files(mut self, most: usize) -> Self {
        self.open_max = most;
        self
    }

    /// Keeps a descriptor for later operations, in place of the oldest segment's if there are many: a
    /// log may have more segments than a process may have files open.
    fn keep(&self, files: &mut BTreeMap<File, Arc<fs::File>>, file: File, open: Arc<fs::File>) {
        let oldest = files.keys().find(|file| matches!(file, File::Segment(_))).copied();
        if let Some(oldest) = oldest.filter(|_| files.len() >= self.open_max) {
            files.remove(&oldest);
        }
        files.insert(file, open);
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
        let closed = Vec::new();
        let mut directory =
            Self { path, names, files, open_max: OPEN_MAX, read_only, closed, _lock: lock };
        let listed = directory.list();
        let listed =
            listed.map_err(|error| OpenError::Io { path: directory.path.clone(), error })?;
        for (file, _) in listed {
            match directory.check_drained(file) {
                Err(OpenError::Io { error, .. }) if read_only => {
                    directory.closed.push((file, error))
                }
                checked => checked?,
            }
        }
        Ok(directory)
    }

    /// What may not be opened of a directory that is only looked at, and what the system said: the rest can be
    /// read all the same. A node would not open such a directory.
    #[must_use]
    pub fn closed(&self) -> &[(File, io::Error)] {
        &self.closed
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether no node was made here: its first start is to come, or was cut short. Spare room alone
    /// is none.
    pub fn is_vacant(&self) -> Result<bool, DiskError> {
        let files = self.list().map_err(|error| disk_error(&error))?;
        Ok(files.iter().all(|(file, _)| matches!(file, File::Spare(_))))
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

    /// Reads a file from `offset` on until `into` is full or the file ends, and says how much that was; for
    /// drivers that have memory to be read into.
    pub fn read_into(&self, file: File, offset: u64, into: &mut [u8]) -> Result<usize, DiskError> {
        let read = self.file(file).and_then(|open| read(&open, offset, into));
        read.map_err(|error| disk_error(&error))
    }

    fn try_perform(&self, request: &DiskRequest) -> io::Result<Completion> {
        if self.read_only && !matches!(request, DiskRequest::List | DiskRequest::Read { .. }) {
            return Err(ErrorKind::ReadOnlyFilesystem.into());
        }
        match request {
            DiskRequest::List => return self.list().map(Completion::Listed),
            DiskRequest::Read { file, offset, len } => {
                let mut bytes = vec![0; *len as usize];
                let read = read(&*self.file(*file)?, *offset, &mut bytes)?;
                bytes.truncate(read);
                return Ok(Completion::Read(bytes.into()));
            }
            // The standard library can only write zeros, never promise room: both are the same.
            DiskRequest::Create { file, len, zeroed: _ } => {
                self.try_create(*file, |new| fill_with_zeros(new, *len))?;
            }
            DiskRequest::Write { file, at, and, durable } => {
                write(&*self.file(*file)?, at, and.as_ref(), *durable)?;
            }
            DiskRequest::Sync { file } => fdatasync(&*self.file(*file)?)?,
            DiskRequest::Rename { from, to } => self.rename(*from, *to)?,
            DiskRequest::Remove { file } => self.remove(*file)?,
            DiskRequest::SyncDirectory => fsync(&self.names)?,
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
            let _ = self.remove(file);
            return Err(error);
        }
        self.keep(&mut self.files(), file, Arc::new(new));
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

    /// The name first: what another thread opens meanwhile it does not keep.
    fn remove(&self, file: File) -> io::Result<()> {
        let removed = fs::remove_file(self.path.join(file.name()));
        self.files().remove(&file);
        removed
    }

    fn file(&self, file: File) -> io::Result<Arc<fs::File>> {
        if let Some(open) = self.files().get(&file) {
            return Ok(Arc::clone(open));
        }
        let path = self.path.join(file.name());
        let open = self.options().open(&path)?;
        // Who only reads leaves nothing behind that a later owner must wait for.
        if !self.read_only {
            open.try_lock_shared()?;
        }
        let open = Arc::new(open);
        let mut files = self.files();
        // Else what was removed meanwhile would stay open, and its room be taken.
        if is_called(&open, &path) {
            self.keep(&mut files, file, Arc::clone(&open));
        }
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
        // To write to it fails, to read does not before the first byte is asked for.
        if open.metadata().map_err(failed)?.is_dir() {
            return Err(failed(Errno::ISDIR.into()));
        }
        open.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => OpenError::Draining { path: path.clone() },
            TryLockError::Error(error) => failed(error),
        })
    }
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

/// Whether a file that is open still has this name.
fn is_called(open: &fs::File, path: &Path) -> bool {
    let is_it = |open: fs::Metadata, called: fs::Metadata| {
        (open.dev(), open.ino()) == (called.dev(), called.ino())
    };
    open.metadata().and_then(|open| Ok(is_it(open, fs::metadata(path)?))).unwrap_or(false)
}

fn fill_with_zeros(file: &fs::File, len: u64) -> io::Result<()> {
    let zeros = vec![0; PIECE_BYTES];
    let mut filled = 0;
    while filled < len {
        let piece = zeros.len().min((len - filled).try_into().unwrap_or(usize::MAX));
        file.write_all_at(&zeros[..piece], filled)?;
        fdatasync(file)?;
        filled += piece as u64;
    }
    Ok(fsync(file)?)
}

fn read(file: &fs::File, offset: u64, into: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match file.read_at(&mut into[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn write(file: &fs::File, at: &Extent, and: Option<&Extent>, durable: bool) -> io::Result<()> {
    for extent in [Some(at), and].into_iter().flatten() {
        file.write_all_at(&extent.whole(), extent.offset)?;
    }
    if durable { Ok(fdatasync(file)?) } else { Ok(()) }
}

/// What an error of the system means to the engine.
#[must_use]
pub fn disk_error(error: &io::Error) -> DiskError {
    match error.kind() {
        ErrorKind::NotFound => DiskError::NotFound,
        // The last one is a limit of the process: like a quota, it may be lifted. Whoever does not
        // ignore SIGXFSZ is ended by that before the error is here (docs/driver.md).
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            DiskError::Full
        }
        _ => DiskError::Io { errno: error.raw_os_error().unwrap_or(EIO) },
    }
}

#[cfg(test)]
mod tests;
