//! A peer's snapshot beside a log that holds its last entry.

use super::{
    scrubs::{rot, snap, snapshots},
    *,
};
use crate::{
    entry::Head,
    types::{Piece, SnapshotId, SnapshotName},
};

/// A peer sends a snapshot, of which the log holds the last entry, and the log goes on from there.
fn join(node: &mut Node, at: LogId) {
    stage(node, at, 90_000);
    assert!(node.storage.receiving().is_some_and(|receiving| receiving.is_whole));
    node.storage.join(at);
    node.settle();
    assert_eq!(node.storage.restored(), Some(at));
    assert_eq!(snapshots(node), [File::Snapshot(at)]);
}

/// The full segment that holds this entry.
fn segment_of(node: &Node, index: u64) -> (File, LogIndex) {
    let mut sealed = node.storage.journal.sealed.iter();
    let sealed = sealed.find(|s| s.last.index >= LogIndex(index)).expect("it is full");
    (File::Segment(sealed.sequence), sealed.last.index)
}

/// A node takes a snapshot in beside its log, and a segment is lost later. A restart took that for an
/// install that had not come to its end, finished it, and gave up all behind the snapshot, which the
/// node had acknowledged, without a gate.
#[test]
fn a_log_that_a_snapshot_has_joined_is_not_given_up_without_a_gate() {
    // Before the restart that loses it, there is another one.
    for restarts in [0, 1] {
        let mut node = Node::start(Disk::default(), format());
        node.append_all(1, sizes());
        let (file, end) = segment_of(&node, 150);
        join(&mut node, LogId::new(Term(1), end.previous()));
        for _ in 0..restarts {
            node = node.restart();
        }
        let hint = node.storage.promises().durable().commit_hint;
        assert!(hint < end.previous(), "it is lazy: {hint}");
        node.disk.files.remove(&file);
        let node = node.restart();
        assert!(!node.storage.marks().has(Mark::InstallFinished));
        assert!(node.recovered().gate.is_some());
        assert_eq!(node.recovered().last.index, end.previous());
    }
}

/// A node takes a snapshot in beside its log, up to entry 149 of 300, and ends before the hard state names
/// it; the segment behind that is lost then. The restart takes it for an install that has not come to its
/// end, though the hard state calls 300 durable: what was acknowledged is gone without a gate (walk
/// 11001946).
#[test]
fn a_log_that_a_snapshot_was_joining_is_not_given_up_without_a_gate() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    node.now = node.storage.deadline().expect("the hint is written when writes pause");
    node.settle();
    assert_eq!(node.storage.promises().durable().durable_hint, LogIndex(300));
    let (file, end) = segment_of(&node, 150);
    let before = node.disk.files[&File::HardState].clone();
    join(&mut node, LogId::new(Term(1), end.previous()));
    node.disk.files.insert(File::HardState, before);
    node.disk.files.remove(&file);
    let node = node.restart();
    assert!(node.recovered().gate.is_some(), "{}", node.recovered().last);
}

/// As before, but the hard state had called durable no more than the snapshot holds; what proved the rest lay in the
/// segment (walk 62028875).
#[test]
fn a_log_that_a_snapshot_was_joining_is_missed_though_nothing_proves_it() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    let before = node.disk.files[&File::HardState].clone();
    let end = node.storage.journal.sealed.back().expect("one is full").last;
    assert!(node.storage.durable() > end.index);
    assert!(node.storage.promises().durable().durable_hint <= end.index, "it is lazy");
    join(&mut node, end);
    node.disk.files.insert(File::HardState, before);
    node.disk.files.retain(|file, _| !matches!(file, File::Segment(_)));
    let node = node.restart();
    assert!(node.recovered().gate.is_some(), "{}", node.recovered().last);
}

/// A crash comes before the hard state names it: the next life does.
#[test]
fn a_snapshot_that_has_joined_is_recorded_by_the_next_life() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    let (file, end) = segment_of(&node, 150);
    let before = node.disk.files[&File::HardState].clone();
    join(&mut node, LogId::new(Term(1), end.previous()));
    node.disk.files.insert(File::HardState, before);
    let mut node = node.restart();
    assert_eq!(node.recovered().last.index, LogIndex(300));
    assert_eq!(node.storage.promises().durable().install.id, SnapshotId(77));
    node.disk.files.remove(&file);
    assert!(node.restart().recovered().gate.is_some());
}

/// The machine of a node keeps its own state and goes on, where an entry is owed: it takes a snapshot in the very
/// place of the one that its leader sends. What had the name before was removed, and with that what has it now.
#[test]
fn a_snapshot_that_joins_takes_the_name_of_its_own_of_the_same_place() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    snap(&mut node);
    let (at, before) = (node.last, node.disk.files[&File::Snapshot(node.last)].clone());
    join(&mut node, at);
    assert!(node.disk.files.get(&File::Snapshot(at)).is_some_and(|file| *file != before));
    assert_eq!(node.restart().recovered().snapshot, at);
}

/// Named before, it would be no install to be finished after a crash, and the log would end below it.
#[test]
fn a_snapshot_that_has_joined_is_not_recorded_before_the_log_reaches_it() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    node.append(1, 40);
    let (at, mut slow) = (node.last, Vec::new());
    node.storage.persist(node.now, &mut slow);
    assert!(!slow.is_empty(), "the entry is on its way to the disk");
    join(&mut node, at);
    assert_ne!(node.storage.promises().wanted().install.id, SnapshotId(77));
    let crashed = Node::start(node.disk.clone(), Start::Run);
    assert_eq!((crashed.recovered().last, crashed.recovered().gate), (at, None));
    assert!(crashed.storage.marks().has(Mark::InstallFinished));
    slow.into_iter().for_each(|action| node.perform(action));
    node.settle();
    assert_eq!(node.storage.promises().durable().install.id, SnapshotId(77));
    assert_eq!(node.restart().recovered().first, LogIndex(1), "the log stays");
}

/// A snapshot makes up for it while a peer's copy is on its way to the disk. It was forgotten, though the log
/// keeps it, and called whole; and who read it meanwhile found it bad again, though nothing was.
#[test]
fn what_a_snapshot_makes_up_for_while_it_is_filled_stays_known_until_it_is() {
    let (mut node, frames) = holes::grown((0..300).map(|n| 40 + n));
    holes::harm(&mut node.disk, &frames[7]);
    node.storage.read(Reader::Peer(NodeId(2)), LogIndex(8), LogIndex(20), 8 << 10);
    node.settle();
    assert!(node.storage.hole().is_some());
    let head = Head::parse_whole(&frames[7], node.recovered().seed).expect("it is whole");
    let at = LogId::new(Term(1), LogIndex(200));
    stage(&mut node, at, 90_000);
    node.storage.refill(&head, &frames[7]);
    node.storage.join(at);
    let (mut fill, mut queue) = (Vec::new(), VecDeque::from(node.ask()));
    while let Some(action) = queue.pop_front() {
        let is_fill = matches!(
            action,
            Action::Disk { request: DiskRequest::Write { file: File::Segment(_), .. }, .. }
        );
        if is_fill {
            fill.push(action);
        } else {
            node.perform(action);
            queue.extend(node.ask());
        }
    }
    assert_eq!((fill.len(), node.storage.snapshot()), (1, at));
    assert_eq!(node.storage.journal.holes.last(), Some(LogIndex(8)), "it is not there yet");
    assert_eq!(node.storage.hole(), None, "it is given");
    fill.into_iter().for_each(|action| node.perform(action));
    node.settle();
    assert!(node.storage.journal.holes.is_empty());
    assert_eq!(node.read(8).len(), 293);
}

/// They were forgotten, though the log keeps them, and the node called them whole to whoever asked.
#[test]
fn what_a_snapshot_makes_up_for_is_owed_no_more_and_wanted_still() {
    let (node, frames) = holes::grown([40, 50, 60, 70, 80, 90]);
    let mut disk = node.disk;
    for at in [1, 3, 5] {
        holes::harm(&mut disk, &frames[at]);
    }
    let mut node = Node::start(disk, Start::Run);
    assert_eq!(node.storage.first_owed(), Some(LogIndex(2)));
    join(&mut node, LogId::new(Term(1), LogIndex(4)));
    assert_eq!(node.storage.first_owed(), Some(LogIndex(6)), "behind the snapshot it is");
    assert_eq!(node.storage.durable(), LogIndex(5));
    for at in [6, 2, 4] {
        assert_eq!(node.storage.hole().map(|hole| hole.index), Some(LogIndex(at)));
        holes::refill(&mut node, &frames[at as usize - 1]);
    }
    assert_eq!((node.storage.hole(), node.storage.durable()), (None, LogIndex(6)));
    assert_eq!(node.restart().storage.hole(), None);
}

/// The machine is ahead of the log that is durable, as an entry is missing there: a snapshot of it waited
/// for that entry, and the one that came in its place waited for that snapshot.
#[test]
fn a_snapshot_that_waits_for_what_is_missing_does_not_hold_up_the_one_that_comes_instead() {
    let (node, frames) = holes::grown([40, 50, 60, 70, 80, 90]);
    let mut disk = node.disk;
    // As the last one is bad, all are read.
    for at in [1, 5] {
        holes::harm(&mut disk, &frames[at]);
    }
    let at = LogId::new(Term(1), LogIndex(5));
    let mut node = Node::start(disk, Start::Resume { machine: at });
    let members = node.recovered().membership.clone();
    assert_eq!((node.storage.first_owed(), node.storage.restored()), (Some(LogIndex(2)), Some(at)));
    assert!(!node.storage.can_capture(at), "it would wait");
    assert!(node.storage.capture(at, members, Timestamp(9)));
    node.settle();
    assert_eq!(node.storage.snapshot(), LogId::ZERO);
    join(&mut node, at);
    assert_eq!(node.storage.durable(), LogIndex(5));
}

/// What is read of a log that is on its way out is nobody's, and its files go.
#[test]
fn nothing_is_read_of_a_log_that_a_snapshot_replaces() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    let at = LogId::new(Term(2), LogIndex(1000));
    node.storage.promise(Term(2), None);
    let bytes = Bytes::from(vec![3; 90_000]);
    let digest = crc32c::crc32c(&bytes);
    let snapshot = SnapshotName { at, id: SnapshotId(77), bytes: bytes.len() as u64, digest };
    let members = Some(node.recovered().membership.clone());
    node.storage.stage(&Piece { snapshot, offset: 0, time: Timestamp(9), members, bytes });
    node.settle();
    node.storage.install(at);
    node.disk.requests.clear();
    for reader in [Reader::Refill(NodeId(2)), Reader::Peer(NodeId(3))] {
        node.storage.read(reader, LogIndex(8), LogIndex(9), 1);
    }
    node.settle();
    let of_the_log = |request: &&DiskRequest| {
        matches!(request, DiskRequest::Read { file: File::Segment(_), .. })
    };
    assert_eq!(node.disk.requests.iter().find(of_the_log), None);
    assert_eq!((node.storage.restored(), node.halted), (Some(at), None));
}

/// A node whose log goes on from a snapshot, and its disk without any.
fn stateless() -> (Node, Disk) {
    let mut node = Node::start(Disk::default(), format());
    for round in 1..=3 {
        node.append_all(round, sizes());
        node.storage.hint_committed(node.last.index);
        node.storage.retain(node.last.index, None);
        snap(&mut node);
    }
    node.append_all(3, sizes());
    assert!(node.storage.first() > LogIndex(1));
    let mut disk = node.disk.clone();
    disk.files.retain(|file, _| !matches!(file, File::Snapshot(_)));
    (node, disk)
}

/// A peer gives it the state that its log goes on from: nothing of that is given up, and nothing forgotten.
#[test]
fn who_has_lost_its_snapshots_keeps_its_log() {
    let (node, disk) = stateless();
    let restarted = Node::start(disk, Start::Run);
    assert!(restarted.storage.is_state_lost() && restarted.storage.marks().has(Mark::SnapshotLost));
    assert_eq!(restarted.storage.restored(), None);
    let (first, is) = (node.storage.first(), restarted.recovered());
    assert_eq!((is.first, is.last, is.gate), (first, node.last, None));
}

/// Nobody would be left who could give it the state; and it is as it was, should a peer come back.
#[test]
fn who_has_lost_its_snapshots_is_not_made_the_only_voter() {
    let (_, disk) = stateless();
    let forced = Node::start(disk.clone(), Start::ForceSoleVoter { acknowledged_loss: true });
    let Some(Halt::Refused { row, .. }) = forced.halted else { panic!("{:?}", forced.halted) };
    assert_eq!(row, "snapshot-missing");
    assert!(forced.disk.files == disk.files, "it was written to");
}

fn part(disk: &Disk) -> Option<File> {
    disk.files.keys().find(|file| matches!(file, File::Part(..))).copied()
}

/// The first half of a snapshot of this entry.
fn half(node: &Node, at: LogId) -> Piece {
    let snapshot = SnapshotName { at, id: SnapshotId(77), bytes: 200_000, digest: 0 };
    let members = Some(node.recovered().membership.clone());
    let bytes = Bytes::from(vec![3; 90_000]);
    Piece { snapshot, offset: 0, time: Timestamp(9), members, bytes }
}

/// A node with entries up to 300, of which 200 are known to be committed, that has half of a snapshot.
fn staged(at: LogId) -> (Node, File) {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    node.storage.hint_committed(LogIndex(200));
    node.now = node.storage.deadline().expect("the hint is written when writes pause");
    node.settle();
    let piece = half(&node, at);
    node.storage.stage(&piece);
    node.settle();
    let file = part(&node.disk).expect("it is being received");
    (node, file)
}

/// What is in flight together may be done in any order: a write behind the removal would fail, or make it anew.
#[test]
fn what_is_not_needed_of_a_peers_snapshot_any_more_goes_when_nothing_is_written_to_it() {
    let at = LogId::new(Term(1), LogIndex(201));
    let (mut node, file) = staged(at);
    let piece = Piece { offset: 90_000, members: None, ..half(&node, at) };
    node.storage.stage(&piece);
    let writes = node.ask();
    assert!(!writes.is_empty());
    node.storage.discard_staged();
    assert!(node.ask().is_empty() && node.storage.receiving().is_none());
    assert!(node.disk.files.contains_key(&file));
    writes.into_iter().for_each(|action| node.perform(action));
    node.settle();
    assert!(!node.disk.files.contains_key(&file));
    assert!(node.halted.is_none());
}

/// Most of it may be there after a power cut: then its name and its header are to be there too.
#[test]
fn what_a_peer_has_sent_is_gone_on_with_and_what_another_has_sent_is_not() {
    let at = LogId::new(Term(1), LogIndex(201));
    for is_another in [false, true] {
        let (node, file) = staged(at);
        let is_header = |request: &DiskRequest| matches!(request, DiskRequest::Write { file: of, at, durable: true, .. } if *of == file && at.offset == 0);
        let requests = &node.disk.requests;
        let header = requests.iter().position(is_header).expect("it is durable by itself");
        assert!(requests[..=header + 1].contains(&DiskRequest::SyncDirectory));
        assert!(!node.storage.marks().has(Mark::InstallGoneOnWith));
        let mut node = node.restart();
        let mut piece = half(&node, at);
        if is_another {
            piece.snapshot.id = SnapshotId(78);
        }
        node.storage.stage(&piece);
        node.settle();
        assert_eq!(node.storage.marks().has(Mark::InstallGoneOnWith), !is_another);
        assert_eq!(part(&node.disk) == Some(file), !is_another);
        let parts = node.disk.files.keys().filter(|file| matches!(file, File::Part(..)));
        assert_eq!(parts.count(), 1);
        let next = node.storage.receiving().expect("it is received").next;
        assert_eq!(next, if is_another { 90_000 } else { 2 * (512 * 64 - 24) });
        let refused = node.storage.marks().has(Mark::InstallPieceRefused);
        assert_eq!(refused, !is_another, "it has these bytes, and tells from where on it has none");
    }
}

/// An own snapshot had passed what was left of it. Its removal was still on its way when a peer sent it again, and
/// took the new file with it.
#[test]
fn a_part_that_is_going_is_begun_anew_when_it_is_gone() {
    let at = LogId::new(Term(1), LogIndex(201));
    let (node, file) = staged(at);
    let mut node = node.restart();
    let members = node.recovered().membership.clone();
    node.captured = 0;
    assert!(node.storage.capture(at, members, Timestamp(9)));
    let is_removal = |action: &Action| matches!(action, Action::Disk { request: DiskRequest::Remove { file: of }, .. } if *of == file);
    let mut removal = None;
    loop {
        let asked = node.ask();
        if asked.is_empty() {
            break;
        }
        for action in asked {
            match is_removal(&action) {
                true => removal = Some(action),
                false => node.perform(action),
            }
        }
    }
    let piece = half(&node, at);
    node.storage.stage(&piece);
    assert!(node.ask().is_empty() && node.storage.receiving().is_none());
    node.perform(removal.expect("the snapshot has passed it"));
    node.storage.stage(&piece);
    node.settle();
    assert_eq!(part(&node.disk), Some(file));
}

/// The sync of the first life may have failed: then the next one reads from the cache what the disk does not have, and
/// no later sync writes it.
#[test]
fn what_is_taken_over_of_an_install_is_written_again() {
    let at = LogId::new(Term(1), LogIndex(201));
    let (node, file) = staged(at);
    let mut node = node.restart();
    node.disk.requests.clear();
    let piece = half(&node, at);
    node.storage.stage(&piece);
    node.settle();
    let (mut read, mut written) = (Vec::new(), Vec::new());
    for request in &node.disk.requests {
        match request {
            DiskRequest::Read { file: of, offset, .. } if *of == file => read.push(*offset),
            DiskRequest::Write { file: of, at, .. } if *of == file && at.offset > 0 => {
                written.push(at.offset);
            }
            _ => {}
        }
    }
    assert!(read.len() > 1, "it is gone on with");
    assert_eq!(read, written);
}

/// One block was on its way back to the disk while another was read. As if it was there, the install was gone on with.
#[test]
fn what_cannot_be_written_again_of_an_install_ends_it() {
    let at = LogId::new(Term(1), LogIndex(201));
    let (node, file) = staged(at);
    let mut node = node.restart();
    let piece = half(&node, at);
    node.storage.stage(&piece);
    let mut reads = node.ask().into_iter();
    node.perform(reads.next().expect("it is read"));
    assert!(reads.len() > 0, "so is another");
    let writes = node.ask();
    assert!(!writes.is_empty());
    node.disk.fails = Some(|r| matches!(r, DiskRequest::Write { file: File::Part(..), .. }));
    writes.into_iter().for_each(|action| node.perform(action));
    node.disk.fails = None;
    reads.for_each(|action| node.perform(action));
    node.settle();
    assert!(node.storage.marks().has(Mark::SnapshotGivenUp));
    assert!(node.storage.receiving().is_none() && !node.disk.files.contains_key(&file));
}

/// It would stay for ever, or be gone on with in vain.
#[test]
fn a_part_that_is_of_no_use_goes_at_a_restart() {
    // One that brings something, and is gone on with.
    let (node, file) = staged(LogId::new(Term(1), LogIndex(201)));
    let node = node.restart();
    assert_eq!(part(&node.disk), Some(file));
    // One that brings nothing any more.
    let (node, _) = staged(LogId::new(Term(1), LogIndex(200)));
    assert_eq!(part(&node.restart().disk), None);
    // One that has another's name.
    let (mut node, file) = staged(LogId::new(Term(1), LogIndex(201)));
    let bytes = node.disk.files.remove(&file).expect("it is there");
    let other = File::Part(LogId::new(Term(1), LogIndex(201)), SnapshotId(78));
    node.disk.files.insert(other, bytes);
    assert_eq!(part(&node.restart().disk), None);
    // One whose header is bad.
    let (mut node, file) = staged(LogId::new(Term(1), LogIndex(201)));
    rot(&mut node, file, 40);
    assert_eq!(part(&node.restart().disk), None);
}

/// A node whose log a whole snapshot is to replace, of a term that it has promised already.
pub(super) fn installable() -> (Node, LogId) {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    node.storage.promise(Term(2), None);
    node.settle();
    (node, LogId::new(Term(2), LogIndex(1000)))
}

pub(super) fn stage(node: &mut Node, at: LogId, len: usize) {
    let bytes = Bytes::from(vec![3; len]);
    let digest = crc32c::crc32c(&bytes);
    let snapshot = SnapshotName { at, id: SnapshotId(77), bytes: bytes.len() as u64, digest };
    let members = Some(node.recovered().membership.clone());
    node.storage.stage(&Piece { snapshot, offset: 0, time: Timestamp(9), members, bytes });
    node.settle();
}

fn names(asked: &[Action]) -> bool {
    let renames = |action: &Action| {
        matches!(
            action,
            Action::Disk { request: DiskRequest::Rename { to: File::Snapshot(_), .. }, .. }
        )
    };
    asked.iter().any(renames)
}

/// Once it has its name a crash leaves it in the log's place: what is under way in that log would be done to
/// files that are gone, and a term be known that was never promised.
#[test]
fn a_snapshot_has_no_name_before_its_term_is_promised_and_the_log_is_at_rest() {
    let busy: [fn(&mut Node); 6] = [
        |_| {},
        |node| node.append(2, 40),
        |node| node.storage.read(Reader::Peer(NodeId(2)), LogIndex(1), LogIndex(9), 1000),
        |node| node.storage.promise(Term(3), None),
        |node| {
            let (at, members) =
                (LogId::new(Term(1), LogIndex(200)), node.recovered().membership.clone());
            node.captured = 0;
            assert!(node.storage.capture(at, members, Timestamp(9)));
        },
        |node| node.truncate(LogId::new(Term(1), LogIndex(290))),
    ];
    for (n, busy) in busy.into_iter().enumerate() {
        let (mut node, mut at) = installable();
        if n == 3 {
            at.term = Term(3);
        }
        stage(&mut node, at, 90_000);
        busy(&mut node);
        let mut slow = node.ask();
        assert_eq!(slow.is_empty(), n == 0, "{n}");
        node.storage.install(at);
        slow.extend(node.ask());
        assert_eq!(names(&slow), n == 0, "{n}");
        slow.into_iter().for_each(|action| node.perform(action));
        node.settle();
        assert_eq!((node.storage.restored(), node.halted), (Some(at), None), "{n}");
    }
}

/// What would leave a gap, be twice, or go beyond its end is not taken; and the next piece is.
#[test]
fn a_snapshot_is_received_piece_by_piece() {
    let (mut node, at) = installable();
    let snapshot = SnapshotName { at, id: SnapshotId(77), bytes: 200_000, digest: 0 };
    let members = Some(node.recovered().membership.clone());
    let piece = |offset, len| {
        let bytes = Bytes::from(vec![3; len]);
        Piece { snapshot, offset, time: Timestamp(9), members: members.clone(), bytes }
    };
    let received = |node: &Node| node.storage.receiving().map(|receiving| receiving.next);
    node.storage.stage(&piece(0, 90_000));
    for wrong in [piece(0, 90_000), piece(90_001, 10), piece(89_999, 10), piece(90_000, 110_001)] {
        node.storage.stage(&wrong);
        node.settle();
        assert_eq!(received(&node), Some(90_000), "{} of {}", wrong.offset, wrong.bytes.len());
    }
    node.storage.stage(&piece(90_000, 10));
    assert_eq!(received(&node), Some(90_010));
}

/// One at a time, and none that says less than the newest.
#[test]
fn only_a_newer_snapshot_is_captured_and_one_at_a_time() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    let members = node.recovered().membership.clone();
    let at = |index| LogId::new(Term(1), LogIndex(index));
    node.captured = 0;
    assert!(node.storage.capture(at(200), Arc::clone(&members), Timestamp(9)));
    assert!(!node.storage.capture(at(250), Arc::clone(&members), Timestamp(9)), "one is under way");
    node.settle();
    assert_eq!(node.storage.snapshot(), at(200));
    for old in [100, 200] {
        assert!(
            !node.storage.capture(at(old), Arc::clone(&members), Timestamp(9)),
            "{old} is no news"
        );
    }
    assert!(node.storage.capture(at(250), members, Timestamp(9)));
}
