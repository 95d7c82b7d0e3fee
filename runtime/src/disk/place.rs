//! Where the bytes of a group are, for the threads that perform what is asked of them.
//!
//! Knows no threads and no order. Invariant: what is performed has ended when the call returns, and it
//! returns: a panic would take its thread along, and what waited for that thread would never end.

use super::{Ending, kept::Kept, removal, zeros};
use crate::{
    guarded::text_of,
    sync::{Mutex, lock},
};
use lakebed::{Completion, DiskError, DiskRequest, File, files::Directory};
use rustix::io::Errno;
use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// A directory, or what stands for one in a test.
pub(crate) trait Place: Send + Sync + 'static {
    /// Performs a request, and returns when it has ended.
    fn perform(&self, request: &DiskRequest) -> Ending;

    /// Reads a file from there on until this is full or the file ends, and says how much that was.
    fn read(&self, file: File, offset: u64, into: &mut [u8]) -> Result<usize, DiskError>;

    /// Makes a file of this many zeros, asking before each piece.
    fn create(&self, file: File, len: u64, before_piece: &mut dyn FnMut()) -> Ending;

    /// Removes a file, asking before each piece of it is given back.
    fn remove(&self, file: File, before_piece: &mut dyn FnMut()) -> Ending;
}

/// Performs any request: reads into memory that is kept, and asks before each piece of a file that is made
/// or removed.
pub(super) fn perform(
    place: &dyn Place,
    kept: &Mutex<Kept>,
    request: DiskRequest,
    before_piece: &mut dyn FnMut(),
) -> Ending {
    caught(|| match request {
        DiskRequest::Create { file, len, .. } => place.create(file, len, before_piece),
        DiskRequest::Remove { file } => place.remove(file, before_piece),
        DiskRequest::Read { file, offset, len } => read(place, kept, file, offset, len as usize),
        request => place.perform(&request),
    })
}

/// Performs what is short and reads nothing.
pub(super) fn perform_short(place: &dyn Place, request: &DiskRequest) -> Ending {
    caught(|| place.perform(request))
}

/// What panicked has failed, as far as anybody can say; the engine judges it like any failure of the disk.
fn caught(perform: impl FnOnce() -> Ending) -> Ending {
    catch_unwind(AssertUnwindSafe(perform)).unwrap_or_else(|panic| {
        tracing::error!(
            "a disk operation panicked, which is a fault of the program: {}",
            text_of(&*panic)
        );
        Err(DiskError::Io { errno: Errno::IO.raw_os_error() })
    })
}

fn read(place: &dyn Place, kept: &Mutex<Kept>, file: File, offset: u64, len: usize) -> Ending {
    let mut memory = lock(kept).memory(len);
    let read = place.read(file, offset, &mut memory[..len])?;
    Ok(Completion::Read(lock(kept).read(memory, read)))
}

impl Place for Directory {
    fn perform(&self, request: &DiskRequest) -> Ending {
        Self::perform(self, request)
    }

    fn read(&self, file: File, offset: u64, into: &mut [u8]) -> Result<usize, DiskError> {
        self.read_into(file, offset, into)
    }

    fn create(&self, file: File, len: u64, before_piece: &mut dyn FnMut()) -> Ending {
        let fill = |new: &fs::File| zeros::fill(self, file, new, len, before_piece);
        self.create_with(file, fill).map(|()| Completion::Done)
    }

    fn remove(&self, file: File, before_piece: &mut dyn FnMut()) -> Ending {
        removal::remove(self, file, before_piece)
    }
}

/// How long a request may take. What is shorter is done between its pieces.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Length {
    Short,
    /// A new file takes as long as its zeros; one without any is made at once.
    Zeros,
    /// A commit may wait for zeros, and nobody for the room of what is removed.
    Removal,
}

impl Length {
    pub(super) const fn of(request: &DiskRequest) -> Self {
        match request {
            DiskRequest::Create { len, .. } if *len > 0 => Self::Zeros,
            DiskRequest::Remove { .. } => Self::Removal,
            _ => Self::Short,
        }
    }
}

/// A snapshot is written without a sync until its last: that one has all of it to write, which takes
/// as long as the snapshot is large, and nobody waits for it.
pub(super) const fn is_snapshot_sync(request: &DiskRequest) -> bool {
    matches!(request, DiskRequest::Sync { file: File::Part(..) | File::Snapshot(_) })
}
