//! Room for segments to come: spares, recycled segments, and a disk that has none.

use super::*;

#[test]
fn a_full_disk_is_said_and_forgotten_when_there_is_room() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    node.disk.is_full = true;
    node.append_all(1, sizes());
    assert!(node.storage.is_full());
    assert!(node.storage.durable() < node.last.index);
    assert_eq!(node.halted, None);
    node.disk.is_full = false;
    while node.storage.is_full() {
        node.now = node.storage.deadline().expect("it is tried again");
        node.settle();
    }
    assert_eq!(node.storage.durable(), node.last.index);
    let node = node.restart();
    assert_eq!(node.recovered().last.index, LogIndex(600));
}

/// While a segment was opened a second spare was made, as long as that segment and so too short for
/// the next. It stayed: half of the disk was spares, and since there was a spare, a node without
/// room for the next segment never said so (found on a small file system).
#[test]
fn spares_fit_the_next_segment_and_are_no_more_than_one() {
    let mut growing = config();
    growing.segment_bytes = 4 << 20;
    let mut node = Node::start_as(&growing, Disk::default(), format());
    for _ in 0..10 {
        node.append_all(1, sizes());
        let len = |file: &File| node.disk.files[file].len();
        let (segments, spares) =
            (|f: &&File| matches!(f, File::Segment(_)), |f: &&File| matches!(f, File::Spare(_)));
        let longest = node.disk.files.keys().filter(segments).map(len).max();
        let spares: Vec<_> = node.disk.files.keys().filter(spares).map(len).collect();
        let [spare] = spares[..] else { panic!("{spares:?}") };
        assert_eq!(Some(spare), longest.map(|len| (2 * len).min(4 << 20)));
    }
    node.disk.is_full = true;
    while node.storage.durable() == node.last.index {
        node.append_all(1, [1500]);
    }
    assert!(node.storage.is_full());
}

pub(super) fn spares(disk: &Disk) -> Vec<(File, usize)> {
    let spares = disk.files.iter().filter(|(file, _)| matches!(file, File::Spare(_)));
    spares.map(|(file, bytes)| (*file, bytes.len())).collect()
}

/// A restart removed its spare before the node could vote, which takes the system as long as all
/// else, and zeroed another one.
#[test]
fn a_restart_keeps_its_spare_and_the_next_roll_takes_it() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    let before = spares(&node.disk);
    assert_eq!(before.len(), 1);
    node.disk.requests.clear();
    node = node.restart();
    let made = |request: &DiskRequest| {
        matches!(request, DiskRequest::Create { .. } | DiskRequest::Remove { .. })
    };
    assert_eq!(node.disk.requests.iter().find(|request| made(request)), None);
    assert_eq!(spares(&node.disk), before);
    assert!(node.storage.marks().has(Mark::SpareKept));
    let last = node.last;
    let [(spare, _)] = before[..] else { unreachable!("there is one") };
    node.append_all(2, [6_000; 8]);
    let taken = |request: &DiskRequest| matches!(request, DiskRequest::Rename { from, .. } if *from == spare);
    assert!(node.disk.requests.iter().any(taken), "the log has gone on in it");
    assert!(!spares(&node.disk).contains(&before[0]), "its number is not given again");
    let end = node.last;
    node = node.restart();
    assert_eq!((node.recovered().last, end.index > last.index), (end, true));
}

/// What a crash left unfinished, a new node's hard state in the making, more than are ever needed.
#[test]
fn what_is_no_room_for_a_segment_goes_at_a_restart() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    let [(kept, len)] = spares(&node.disk)[..] else { panic!("there is one") };
    for (number, len) in [(0, len), (7, len - 512), (8, len + 512), (9, 0)] {
        node.disk.files.insert(File::Spare(number), vec![0; len]);
    }
    node = node.restart();
    assert_eq!(spares(&node.disk), [(kept, len)]);
    let config = config();
    let many = 2 + 2 * config.tuning.snapshot_log_bytes.div_ceil(config.segment_bytes);
    for number in 100..100 + many {
        node.disk.files.insert(File::Spare(number), vec![9; len]);
    }
    node = node.restart();
    let left = spares(&node.disk);
    assert_eq!(left.len() as u64, many - 1);
    assert_eq!(left.first().map(|spare| spare.0), Some(File::Spare(101)), "the newest are kept");
    // What is in them is nobody's.
    node.append_all(2, [6_000; 30]);
    let last = node.last;
    assert_eq!(node.restart().recovered().last, last);
}

/// A spare could not be made; then a segment that was not needed any more became one. The instant
/// at which it was to be tried again passed, stayed the deadline, and a driver would have spun on it
/// (found as a seed that never ended).
#[test]
fn a_recycled_segment_ends_the_wait_for_room() {
    let mut node = Node::start(Disk::default(), format());
    let members = node.recovered().membership.clone();
    let capture = |node: &mut Node, at| {
        node.storage.hint_committed(node.last.index);
        node.captured = 0;
        assert!(node.storage.capture(at, members.clone(), Timestamp(9)));
        node.settle();
    };
    for round in 1..=2 {
        node.append_all(round, sizes());
        let at = node.last;
        capture(&mut node, at);
    }
    node.disk.is_full = true;
    while node.storage.durable() == node.last.index {
        node.append_all(2, [1500]);
    }
    let at = LogId::new(Term(2), node.storage.durable());
    capture(&mut node, at);
    assert_eq!(node.storage.durable(), node.last.index, "a segment was recycled");
    assert!(!node.storage.is_full(), "another was, for the next time");
    for _ in 0..5 {
        let deadline = node.storage.deadline();
        assert!(deadline.is_none_or(|next| next > node.now), "it would spin");
        node.now = deadline.unwrap_or(node.now);
        node.settle();
    }
    // The node counted as one that had sought room in vain until it made a spare again, which one whose
    // segments are recycled may never do: it looked after everything in each turn (a walk).
    assert_eq!(node.storage.sought_room(), 0);
    node.storage.look_around();
    assert!(node.storage.is_plain());
}

/// A snapshot waited for the log, the log for room, and that for the snapshot's part to go.
#[test]
fn a_snapshot_that_waits_for_a_log_without_room_gives_its_own_back() {
    let mut node = Node::start(Disk::default(), format());
    let members = node.recovered().membership.clone();
    node.append_all(1, sizes());
    node.disk.is_full = true;
    node.append_all(1, sizes());
    assert!(node.storage.durable() < node.last.index);
    assert!(node.storage.capture(node.last, members.clone(), Timestamp(9)));
    node.settle();
    assert_eq!(node.storage.take_given_up(), Some(DiskError::Full));
    assert!(!node.disk.files.keys().any(|file| matches!(file, File::Part(..))));
    // One that the log has come up with goes on.
    let at = LogId::new(Term(1), node.storage.durable());
    assert!(node.storage.capture(at, members, Timestamp(9)));
    node.settle();
    assert_eq!((node.storage.take_given_up(), node.storage.snapshot()), (None, at));
}

/// One file of an earlier life was kept and the next one filled with zeros at once, which the one
/// compaction freed soon after then was no use for: a log under load wrote all of it twice.
#[test]
fn a_log_that_is_compacted_as_it_grows_needs_no_more_zeros() {
    let mut steady = config();
    steady.tuning.snapshot_log_bytes = 3 * steady.segment_bytes;
    let mut node = Node::start_as(&steady, Disk::default(), format());
    let members = node.recovered().membership.clone();
    let mut created = Vec::new();
    for _ in 0..12 {
        node.disk.requests.clear();
        // Four segments and a bit.
        (0..4).for_each(|_| node.append_all(1, [6_000; 5]));
        node.storage.hint_committed(node.last.index);
        node.storage.retain(node.last.index, None);
        node.captured = 0;
        assert!(node.storage.capture(node.last, members.clone(), Timestamp(9)));
        node.settle();
        let zeroed = |r: &&DiskRequest| matches!(r, DiskRequest::Create { zeroed: true, .. });
        created.push(node.disk.requests.iter().filter(zeroed).count());
    }
    assert!(created[0] >= 4, "{created:?}");
    assert!(created[4..].iter().all(|&files| files == 0), "{created:?}");
    let spares = node.disk.files.keys().filter(|file| matches!(file, File::Spare(_))).count();
    assert!(spares <= 1 + 2 * 3, "{spares} files wait for a log that may never come");
}
