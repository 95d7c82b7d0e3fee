//! Fills new files with zeros, so that what is written to them later changes no metadata: the
//! system would have to make that durable too.
//!
//! Around the page cache where that is possible: a segment of zeros would push out what is read.
//! Invariant: content and length are durable when it is done.

use super::{ALIGN, is_no_direct, open_direct};
use lakebed::{
    Completion, DiskRequest, File,
    files::{Directory, disk_error},
};
use rustix::{
    fs::{FallocateFlags, fallocate, fdatasync, fsync},
    io::{Errno, retry_on_intr},
};
use std::{fs, io, os::unix::fs::FileExt};

/// What is more urgent waits for one piece at most.
pub(super) const PIECE_BYTES: usize = 512 << 10;

/// Fills `new`, which is open as `file`, asking before each piece.
pub(super) fn fill(
    directory: &Directory,
    file: File,
    new: &fs::File,
    len: u64,
    before_piece: impl FnMut(),
) -> io::Result<()> {
    reserve(new, len)?;
    // Whatever there is against it: through the cache it takes longer, and nobody would be helped if there
    // were no file.
    let direct = open_direct(directory, file).ok().flatten();
    write(new, direct.filter(|_| len.is_multiple_of(ALIGN as u64)), len, before_piece)?;
    Ok(fsync(new)?)
}

fn write(
    new: &fs::File,
    mut direct: Option<fs::File>,
    len: u64,
    mut before_piece: impl FnMut(),
) -> io::Result<()> {
    let memory = vec![0; PIECE_BYTES + ALIGN];
    let zeros = aligned(&memory, PIECE_BYTES);
    let mut filled = 0;
    while filled < len {
        before_piece();
        let piece = zeros.len().min(usize::try_from(len - filled).unwrap_or(usize::MAX));
        if let Some(around) = &direct {
            match around.write_all_at(&zeros[..piece], filled) {
                Ok(()) => {
                    filled += piece as u64;
                    continue;
                }
                // It let the file be opened so, and takes nothing that way.
                Err(error) if is_no_direct(disk_error(&error)) => direct = None,
                Err(error) => return Err(error),
            }
        }
        new.write_all_at(&zeros[..piece], filled)?;
        // Else the system gathers all of it, and writes it when it hurts most.
        fdatasync(new)?;
        filled += piece as u64;
    }
    Ok(())
}

/// Whether the file system takes writes around its cache, as it says when a file is opened so. Tried with a
/// file that is removed again; what else may be wrong shows where it matters.
pub(super) fn takes_direct(directory: &Directory) -> bool {
    let Ok(Completion::Listed(taken)) = directory.perform(&DiskRequest::List) else { return true };
    let is_free = |number: &u64| taken.iter().all(|(file, _)| *file != File::Spare(*number));
    // Should the process be killed here, it counts as spare room that was not finished.
    let file = File::Spare((0..).find(is_free).expect("there are fewer files than numbers"));
    let mut takes = true;
    let tried = directory.create_with(file, |_| {
        if let Ok(Some(direct)) = open_direct(directory, file) {
            takes = takes_writes(&direct);
        }
        Ok(())
    });
    if tried.is_ok() {
        // A restart finds it, if this fails.
        let _ = directory.perform(&DiskRequest::Remove { file });
    }
    takes
}

fn takes_writes(direct: &fs::File) -> bool {
    let memory = vec![0; 2 * ALIGN];
    let written = direct.write_all_at(aligned(&memory, ALIGN), 0);
    !written.is_err_and(|error| is_no_direct(disk_error(&error)))
}

/// So many of these bytes, from an aligned one on; there are [`ALIGN`] more.
fn aligned(memory: &[u8], len: usize) -> &[u8] {
    let start = memory.as_ptr().align_offset(ALIGN);
    &memory[start..start + len]
}

/// All of its room at once, in one piece if there is one; or none, before a byte is written.
fn reserve(new: &fs::File, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    // Its length grows with the zeros: one that a crash has left unfinished is known by that.
    match retry_on_intr(|| fallocate(new, FallocateFlags::KEEP_SIZE, 0, len)) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        reserved => Ok(reserved?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lakebed::DiskError;
    use std::io::Read;

    /// Can be opened, and answers what is no number with `EINVAL`.
    fn refusing() -> fs::File {
        fs::OpenOptions::new().write(true).open("/proc/self/coredump_filter").unwrap()
    }

    #[test]
    fn a_file_is_filled_where_writes_around_the_cache_are_opened_and_not_taken() {
        let mut new = tempfile::tempfile().unwrap();
        let (len, mut pieces) = (2 * PIECE_BYTES + ALIGN, 0);
        write(&new, Some(refusing()), len as u64, || pieces += 1).unwrap();
        let mut content = Vec::new();
        new.read_to_end(&mut content).unwrap();
        assert!(content == vec![0; len] && pieces == 3);
        assert!(!takes_writes(&refusing()));
        assert!(takes_writes(&new));
    }

    /// A piece that the file system did not take is written in the other way, however it failed before.
    #[test]
    fn no_piece_is_left_out() {
        let new = tempfile::tempfile().unwrap();
        write(&new, Some(refusing()), ALIGN as u64, || {}).unwrap();
        assert_eq!(new.metadata().unwrap().len(), ALIGN as u64);
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let error = write(&new, Some(full), ALIGN as u64, || {}).unwrap_err();
        assert_eq!(disk_error(&error), DiskError::Full);
    }

    /// What takes all that is written, has no room to be reserved and cannot be synced.
    #[test]
    fn a_file_has_its_room_before_a_byte_is_written_and_is_durable_at_the_end() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::open(temporary.path()).unwrap();
        let null = fs::OpenOptions::new().write(true).open("/dev/null").unwrap();
        let fill = |len| fill(&directory, File::Spare(0), &null, len, || panic!("it was written"));
        assert!(fill(ALIGN as u64).is_err());
        assert!(fill(0).is_err());
    }

    /// Were it as long as it is to be, one that a crash has left unfinished would pass for finished.
    #[test]
    fn a_file_is_as_long_as_there_are_zeros() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::open(temporary.path()).unwrap();
        let (spare, mut lens) = (File::Spare(0), Vec::new());
        let created = directory.create_with(spare, |new| {
            let len = || new.metadata().expect("it is open").len();
            fill(&directory, spare, new, 3 * PIECE_BYTES as u64, || lens.push(len()))
        });
        created.unwrap();
        assert_eq!(lens, [0, 1, 2].map(|pieces| pieces * PIECE_BYTES as u64));
    }

    #[test]
    fn the_trial_leaves_nothing_behind() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::open(temporary.path()).unwrap();
        let spare = File::Spare(0);
        directory.perform(&DiskRequest::Create { file: spare, len: 7, zeroed: true }).unwrap();
        takes_direct(&directory);
        let listed = directory.perform(&DiskRequest::List);
        assert_eq!(listed, Ok(Completion::Listed(vec![(spare, 7)])));
    }

    /// A file that is not there, or a process that may open no more, is no file system's refusal.
    #[test]
    fn only_what_a_file_system_refuses_counts_as_no_writes_around_the_cache() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::open(temporary.path()).unwrap();
        let missing = open_direct(&directory, File::HardState).map(drop);
        assert_eq!(missing, Err(DiskError::NotFound));
        for (errno, refuses) in [(22, true), (95, true), (24, false), (5, false)] {
            assert_eq!(is_no_direct(DiskError::Io { errno }), refuses, "{errno}");
        }
    }
}
