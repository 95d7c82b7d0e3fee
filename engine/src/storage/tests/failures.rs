//! Which operations may fail: a snapshot of the node's own may come to nothing, and there is another one. Not
//! so the sync of the directory, as a later one could call durable what this one lost.

use super::*;

const fn is_of_part(request: &DiskRequest) -> bool {
    matches!(request, DiskRequest::Write { file: File::Part(..), .. })
}

const fn is_of_directory(request: &DiskRequest) -> bool {
    matches!(request, DiskRequest::SyncDirectory)
}

/// A node that has begun to take a snapshot on a disk on which this fails.
fn saving(fails: fn(&DiskRequest) -> bool) -> Node {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes().take(20));
    node.disk.fails = Some(fails);
    let members = node.recovered().membership.clone();
    assert!(node.storage.capture(node.last, members, Timestamp(9)));
    node.settle();
    node
}

#[test]
fn a_snapshot_that_cannot_be_written_is_given_up_and_the_next_one_taken() {
    let mut node = saving(is_of_part);
    assert_eq!(node.halted, None);
    assert_eq!(node.storage.take_given_up(), Some(DiskError::Io { errno: 5 }));
    assert_eq!(node.storage.snapshot(), LogId::ZERO);
    assert!(!node.disk.files.keys().any(|file| matches!(file, File::Part(..))));
    node.disk.fails = None;
    node.append_all(1, [100]);
    scrubs::snap(&mut node);
}

/// It may have its name all the same: a later life would come upon a snapshot that this one knows nothing of.
#[test]
fn a_snapshot_that_cannot_be_named_goes_by_either_name() {
    let node =
        saving(|request| matches!(request, DiskRequest::Rename { to: File::Snapshot(_), .. }));
    assert_eq!((node.halted, node.storage.snapshot()), (None, LogId::ZERO));
    let named = DiskRequest::Remove { file: File::Snapshot(node.last) };
    assert!(node.disk.requests.contains(&named), "nothing is known of what was done");
}

#[test]
fn a_directory_that_cannot_be_synced_for_a_snapshot_is_the_end() {
    let node = saving(is_of_directory);
    let Some(Halt::DiskFailed { file, error }) = node.halted else { panic!("{:?}", node.halted) };
    assert_eq!((file, error), (File::HardState, DiskError::Io { errno: 5 }));
}

#[test]
fn a_restart_that_cannot_list_or_sync_the_directory_is_the_end() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes().take(20));
    for fails in [is_of_directory, |request: &_| matches!(request, DiskRequest::List)] {
        let disk = Disk { fails: Some(fails), requests: Vec::new(), ..node.disk.clone() };
        let node = Node::start(disk, Start::Run);
        assert!(matches!(node.halted, Some(Halt::DiskFailed { .. })), "{:?}", node.halted);
        let tried = node.disk.requests.iter().filter(|request| fails(request)).count();
        assert_eq!(tried, 1, "what failed is never tried again");
    }
}

/// Segments begin small. An entry that none of these holds has the next length that does.
#[test]
fn a_first_segment_is_as_large_as_its_first_entry_wants_it() {
    let mut config = config();
    (config.first_segment_bytes, config.segment_bytes) = (0, 1 << 20);
    let lens = |bytes| {
        let mut node = Node::start_as(&config, Disk::default(), format());
        node.append_all(1, [bytes]);
        assert_eq!(node.storage.durable(), node.last.index);
        let is_segment = |file: &&File| matches!(file, File::Segment(_));
        let segments = node.disk.files.iter().filter(|(file, _)| is_segment(file));
        segments.map(|(_, bytes)| bytes.len()).collect::<Vec<_>>()
    };
    let [least] = lens(10)[..] else { panic!("one entry is in one segment") };
    assert!(least < 64 << 10);
    let (large, long) = (4 * least, lens(4 * least));
    assert!(long.iter().all(|len| *len <= 2 * large.next_power_of_two()), "{long:?}");
}
