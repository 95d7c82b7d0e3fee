use super::*;
use bytes::Bytes;
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

/// A formatting that was cut short has left room, and no node.
#[test]
fn a_directory_is_vacant_until_a_node_was_made_in_it() {
    let temporary = tempdir().unwrap();
    let directory = Directory::open(temporary.path()).unwrap();
    for (file, is_vacant) in
        [(None, true), (Some(File::Spare(1)), true), (Some(File::HardState), false)]
    {
        if let Some(file) = file {
            directory.perform(&DiskRequest::Create { file, len: 4, zeroed: true }).unwrap();
        }
        assert_eq!(directory.is_vacant(), Ok(is_vacant), "{file:?}");
    }
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

/// A process has few for each of many directories. What is no segment is not closed for another.
#[test]
fn as_many_files_are_kept_open_as_is_said() {
    let temporary = tempdir().unwrap();
    let directory = Directory::open(temporary.path()).unwrap().with_open_files(4);
    let spares = [1, 2, 3].map(File::Spare);
    for file in (0..8).map(File::Segment).chain(spares).chain((8..16).map(File::Segment)) {
        directory.perform(&DiskRequest::Create { file, len: 1, zeroed: true }).unwrap();
    }
    let open: Vec<_> = directory.files().keys().copied().collect();
    assert_eq!(open.len(), 4, "{open:?}");
    assert!(spares.iter().all(|spare| open.contains(spare)));
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

/// One thread opened it while another removed it, and kept it: its room was never given back.
#[test]
fn what_has_lost_its_name_while_it_was_opened_is_not_kept() {
    let temporary = tempdir().unwrap();
    let [path, other] = ["a", "b"].map(|name| temporary.path().join(name));
    fs::write(&path, "").unwrap();
    let open = fs::File::open(&path).unwrap();
    assert!(is_called(&open, &path));
    fs::rename(&path, &other).unwrap();
    assert!(!is_called(&open, &path));
    fs::write(&path, "").unwrap();
    assert!(!is_called(&open, &path), "another one has its name");
    assert!(is_called(&open, &other));
    fs::remove_file(&other).unwrap();
    assert!(!is_called(&open, &other));
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

/// Killed between the two, a process left a name that was in no later process's mind: the next one made its
/// files durable in a directory that a power cut took.
#[test]
fn what_an_earlier_process_made_is_durable_before_anything_is_made_in_it() {
    let temporary = tempdir().unwrap();
    let (top, one) = (temporary.path(), temporary.path().join("one"));
    let (two, three) = (one.join("two"), one.join("two/three"));
    let mut synced = Vec::new();
    let mut sync = |above: &Path| {
        synced.push((above.to_owned(), one.exists(), two.exists(), three.exists()));
        Ok(())
    };
    fs::create_dir(&one).unwrap();
    make_with(&three, &mut sync).unwrap();
    make_with(&three, &mut sync).unwrap();
    let expected = [
        (top.to_owned(), true, false, false),
        (one.clone(), true, true, false),
        (two.clone(), true, true, true),
        (two.clone(), true, true, true),
    ];
    assert_eq!(synced, expected);
}

#[test]
fn what_cannot_be_made_durable_is_an_error_where_something_is_made() {
    let temporary = tempdir().unwrap();
    let made = temporary.path().join("made");
    let denied = |_: &Path| Err(ErrorKind::PermissionDenied.into());
    make_with(temporary.path(), denied).unwrap();
    let error = make_with(&made, denied).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    let broken = |_: &Path| Err(io::Error::from_raw_os_error(EIO));
    assert_eq!(make_with(temporary.path(), broken).unwrap_err().raw_os_error(), Some(EIO));
}
