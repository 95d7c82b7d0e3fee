//! The disks: two ways to perform the engine's requests on a directory.
//!
//! Neither knows what the bytes mean. Both hold [`Directory`]'s locks until their last operation
//! has ended, and let commits go before what nobody waits for.

mod direct;
mod files;
mod gate;
mod kept;
mod lane;
#[cfg(test)]
mod noted;
pub(crate) mod place;
pub(crate) mod pool;
mod removal;
mod uring;
#[cfg(all(test, lakebed_loom))]
mod woken;
mod zeros;

pub use direct::UringDisk;
pub use files::FilesDisk;

use crate::{driver::Disk, options::DiskKind};
use lakebed::{Class, Completion, DiskError, DiskRequest, Event, File, OpId, files::Directory};
use rustix::{fs::OFlags, io::Errno};
use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    task::Context,
};

/// What transfers around the page cache need: offset, length and memory in multiples of this.
const ALIGN: usize = 4096;

/// So many that are more urgent pass what nobody waits for before it begins, and again before each of its
/// pieces: a snapshot that is never taken, and a segment that is never made, are waited for in the end.
const PASSES_MAX: usize = 16;

/// How an operation ended.
pub(crate) type Ending = Result<Completion, DiskError>;

/// Drives a directory in the way that was asked for.
pub fn open(kind: DiskKind, directory: Directory) -> io::Result<Box<dyn Disk + Send>> {
    match kind {
        DiskKind::Files => FilesDisk::new(directory).map(boxed),
        DiskKind::Uring => open_uring(directory).map_err(|(_, error)| error),
        DiskKind::Auto => open_uring(directory).or_else(|(directory, error)| {
            tracing::info!(%error, "no io_uring here: threads write to disk");
            FilesDisk::new(directory).map(boxed)
        }),
    }
}

/// Another descriptor of a file, for transfers around the page cache; `None` where the file system
/// has no such thing.
fn open_direct(directory: &Directory, file: File) -> Result<Option<fs::File>, DiskError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(OFlags::DIRECT.bits().cast_signed());
    match directory.open_beside(file, &options) {
        Ok(direct) => Ok(Some(direct)),
        Err(error) if is_no_direct(error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a file system says by this that it has no transfers around the page cache: some do when a
/// file is opened so, some only at the first write.
fn is_no_direct(error: DiskError) -> bool {
    let no = [Errno::INVAL, Errno::OPNOTSUPP].map(Errno::raw_os_error);
    matches!(error, DiskError::Io { errno } if no.contains(&errno))
}

fn boxed(disk: impl Disk + Send + 'static) -> Box<dyn Disk + Send> {
    Box::new(disk)
}

fn open_uring(directory: Directory) -> Result<Box<dyn Disk + Send>, (Directory, io::Error)> {
    UringDisk::new(directory).map(boxed)
}

impl Disk for Box<dyn Disk + Send> {
    fn submit(&mut self, op: OpId, class: Class, request: DiskRequest) {
        (**self).submit(op, class, request);
    }

    fn flush(&mut self) {
        (**self).flush();
    }

    fn poll_completed(&mut self, cx: &mut Context<'_>, events: &mut Vec<Event>) {
        (**self).poll_completed(cx, events);
    }

    fn is_idle(&self) -> bool {
        (**self).is_idle()
    }
}
