//! The disks: two ways to perform the engine's requests on a directory.
//!
//! Neither knows what the bytes mean. Both hold [`Directory`]'s locks until their last operation
//! has ended, and let commits go before what nobody waits for.

#[cfg(target_os = "linux")]
mod direct;
mod files;
mod lane;
#[cfg(target_os = "linux")]
mod uring;

#[cfg(target_os = "linux")]
pub use direct::UringDisk;
pub use files::FilesDisk;

use crate::{driver::Disk, options::DiskKind};
use lakebed::{Class, Completion, DiskError, DiskRequest, Event, OpId, files::Directory};
use std::{io, task::Context};

/// How an operation ended.
type Ending = Result<Completion, DiskError>;

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

fn boxed(disk: impl Disk + Send + 'static) -> Box<dyn Disk + Send> {
    Box::new(disk)
}

#[cfg(target_os = "linux")]
fn open_uring(directory: Directory) -> Result<Box<dyn Disk + Send>, (Directory, io::Error)> {
    UringDisk::new(directory).map(boxed)
}

#[cfg(not(target_os = "linux"))]
fn open_uring(directory: Directory) -> Result<Box<dyn Disk + Send>, (Directory, io::Error)> {
    Err((directory, io::ErrorKind::Unsupported.into()))
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
