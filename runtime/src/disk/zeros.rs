//! Fills new files with zeros, so that what is written to them later changes no metadata: the
//! system would have to make that durable too.
//!
//! Around the page cache where that is possible: a segment of zeros would push out what is read.
//! Invariant: content and length are durable when it is done.

use super::{ALIGN, open_direct};
use lakebed::{File, files::Directory};
use rustix::fs::{FallocateFlags, fallocate};
use std::{fs, io, os::unix::fs::FileExt};

/// What is more urgent waits for one piece at most.
pub(super) const PIECE_BYTES: usize = 512 << 10;

/// Fills `new`, which is open as `file`, asking before each piece.
pub(super) fn fill(
    directory: &Directory,
    file: File,
    new: &fs::File,
    len: u64,
    mut before_piece: impl FnMut(),
) -> io::Result<()> {
    reserve(new, len)?;
    let direct = open_direct(directory, file).filter(|_| len.is_multiple_of(ALIGN as u64));
    let memory = vec![0; PIECE_BYTES + ALIGN];
    let start = memory.as_ptr().align_offset(ALIGN);
    let zeros = &memory[start..start + PIECE_BYTES];
    let mut filled = 0;
    while filled < len {
        before_piece();
        let piece = zeros.len().min(usize::try_from(len - filled).unwrap_or(usize::MAX));
        direct.as_ref().unwrap_or(new).write_all_at(&zeros[..piece], filled)?;
        if direct.is_none() {
            // Else the system gathers all of it, and writes it when it hurts most.
            new.sync_data()?;
        }
        filled += piece as u64;
    }
    new.sync_all()
}

/// All of its room at once, in one piece if there is one; or none, before a byte is written.
fn reserve(new: &fs::File, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    // Its length grows with the zeros: one that a crash has left unfinished is known by that.
    match fallocate(new, FallocateFlags::KEEP_SIZE, 0, len) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
        reserved => Ok(reserved?),
    }
}
