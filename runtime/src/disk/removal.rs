//! Removes files, and gives back the room of large ones piece by piece.
//!
//! All at once it holds up whatever else is asked of the device: a commit next to it would take as long as
//! the file is large. The name goes first, so after a crash the file is whole or gone. Invariant: only
//! what has no name left and is open nowhere else is made shorter.

use super::Ending;
use lakebed::{Completion, DiskRequest, File, files::Directory};
use std::{
    fs::{self, OpenOptions},
    os::unix::fs::MetadataExt,
};

/// What a commit waits for at most.
const PIECE_BYTES: u64 = 8 << 20;

/// Removes `file`, asking before each further piece.
pub(super) fn remove(directory: &Directory, file: File, before_piece: &mut dyn FnMut()) -> Ending {
    // Whatever there is against it: a file that was not opened is still to be removed.
    let open = directory.open_beside(file, OpenOptions::new().read(true).write(true)).ok();
    directory.perform(&DiskRequest::Remove { file })?;
    if let Some(open) = open {
        give_back(&open, before_piece);
    }
    Ok(Completion::Done)
}

/// What is left when something fails is given back with the descriptor.
fn give_back(open: &fs::File, before_piece: &mut dyn FnMut()) {
    let Ok(metadata) = open.metadata() else { return };
    // It may have another name, given from outside. And each of our descriptors holds a lock: through one
    // that is left somebody reads, and what he reads must not end early.
    if metadata.nlink() > 0 || open.try_lock().is_err() {
        return;
    }
    let mut len = metadata.len();
    while len > PIECE_BYTES {
        len -= PIECE_BYTES;
        if open.set_len(len).is_err() {
            return;
        }
        before_piece();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lakebed::DiskError;
    use std::path::Path;

    const SPARE: File = File::Spare(0);
    const LEN: u64 = 2 * PIECE_BYTES + 1;

    /// A large file there, without anything in it.
    fn large(path: &Path) -> Directory {
        let directory = Directory::open(path).unwrap();
        directory.create_with(SPARE, |new| new.set_len(LEN)).unwrap();
        directory
    }

    fn pieces(directory: &Directory) -> usize {
        let mut pieces = 0;
        assert_eq!(remove(directory, SPARE, &mut || pieces += 1), Ok(Completion::Done));
        let listed = directory.perform(&DiskRequest::List);
        assert_eq!(listed, Ok(Completion::Listed(Vec::new())));
        pieces
    }

    #[test]
    fn the_room_of_a_large_file_is_given_back_piece_by_piece() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = large(temporary.path());
        // As one who wrote it has it open, and ended.
        directory.read_into(SPARE, 0, &mut [0]).unwrap();
        assert_eq!(pieces(&directory), 2);
    }

    /// A crash meanwhile must not leave half of it under its name: it would count as damaged.
    #[test]
    fn the_name_goes_before_the_first_piece() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = large(temporary.path());
        let mut listed = Vec::new();
        remove(&directory, SPARE, &mut || listed.push(directory.perform(&DiskRequest::List)))
            .unwrap();
        assert_eq!(listed, [const { Ok(Completion::Listed(Vec::new())) }; 2]);
    }

    #[test]
    fn what_is_read_meanwhile_is_left_whole() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = large(temporary.path());
        let reader = directory.open_beside(SPARE, OpenOptions::new().read(true)).unwrap();
        assert_eq!(pieces(&directory), 0);
        assert_eq!(reader.metadata().unwrap().len(), LEN);
    }

    /// A backup may be made so.
    #[test]
    fn what_has_another_name_is_left_whole() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = large(temporary.path());
        let kept = tempfile::tempdir_in(temporary.path()).unwrap();
        let other = kept.path().join("kept");
        fs::hard_link(temporary.path().join(SPARE.name()), &other).unwrap();
        assert_eq!(pieces(&directory), 0);
        assert_eq!(fs::metadata(other).unwrap().len(), LEN);
    }

    #[test]
    fn what_is_not_there_is_not_removed() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::open(temporary.path()).unwrap();
        let removed = remove(&directory, SPARE, &mut || panic!("there is no piece"));
        assert_eq!(removed, Err(DiskError::NotFound));
    }
}
