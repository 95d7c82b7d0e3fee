//! Snapshots on their way to a file: whose bytes are taken, and what becomes of one that is given up.

use super::{
    holes::grown,
    joins::stage,
    scrubs::{rot, snap},
    *,
};
use crate::{
    action::{Outcome, Refusal},
    disk::snapshot::Footer,
    marks::Mark,
    storage::snapshots::whole,
    types::{CaptureId, Piece, RequestId, SnapshotId, SnapshotName},
};

/// Begins to take a snapshot of the last entry, and goes on until the machine is asked for its state.
fn begin(node: &mut Node) -> (CaptureId, Vec<Action>) {
    let members = node.recovered().membership.clone();
    node.captured = 0;
    assert!(node.storage.capture(node.last, members, Timestamp(9)));
    loop {
        let asked = node.ask();
        let wanted = asked.iter().find_map(|action| match action {
            Action::Machine(Machine::CaptureNext { capture, .. }) => Some(*capture),
            _ => None,
        });
        if let Some(capture) = wanted {
            return (capture, asked);
        }
        assert!(!asked.is_empty(), "the machine is to be asked");
        asked.into_iter().for_each(|action| node.perform(action));
    }
}

fn abandon(node: &mut Node) {
    let Storage { snapshots, ops, .. } = &mut node.storage;
    snapshots.abandon_capture(ops);
}

/// The machine had not heard yet that nobody wants it: the state of before was a part of the next snapshot.
#[test]
fn what_a_machine_gives_for_a_snapshot_that_was_given_up_is_not_the_next_ones() {
    let (mut node, _) = grown([40, 50]);
    let (given_up, _) = begin(&mut node);
    abandon(&mut node);
    node.settle();
    let (capture, asked) = begin(&mut node);
    assert_ne!(given_up, capture);
    let late = Chunk { bytes: Bytes::from(vec![9; 1000]), last: true };
    node.storage.on_captured(given_up, Ok(late));
    asked.into_iter().for_each(|action| node.perform(action));
    node.settle();
    assert_eq!(node.storage.snapshot(), node.last);
    assert_eq!(node.storage.snapshots.newest_bytes(), node.captured as u64);
}

/// Its state is saved, and its name on its way: nothing is won.
#[test]
fn a_snapshot_that_is_being_named_is_not_given_up() {
    let (mut node, _) = grown([40, 50]);
    let (_, asked) = begin(&mut node);
    let names = |action: &Action| {
        matches!(
            action,
            Action::Disk { request: DiskRequest::Rename { to: File::Snapshot(_), .. }, .. }
        )
    };
    let mut asked = asked;
    while !asked.iter().any(names) {
        asked.into_iter().for_each(|action| node.perform(action));
        asked = node.ask();
        assert!(!asked.is_empty(), "it is to be named");
    }
    abandon(&mut node);
    asked.into_iter().for_each(|action| node.perform(action));
    node.settle();
    assert_eq!(node.storage.snapshot(), node.last);
}

#[test]
fn a_snapshot_can_be_taken_when_none_is_and_the_machine_has_its_state() {
    let (mut node, _) = grown([40, 50]);
    snap(&mut node);
    node.append_all(1, [60]);
    assert!(node.storage.can_capture(node.last));
    let (_, asked) = begin(&mut node);
    assert!(!node.storage.can_capture(node.last), "one is being taken");
    asked.into_iter().for_each(|action| node.perform(action));
    node.settle();
    let last = node.last;
    let mut node = Node::start_behind(&config(), node.disk, Start::Run, 1);
    assert_eq!(node.storage.restored(), None);
    assert!(!node.storage.can_capture(last), "its state is not there yet");
    node.behind = 0;
    node.answer(0);
    node.settle();
    assert!(node.storage.can_capture(last));
}

/// By its id the blocks of one are known from those of another, whatever is drawn for a node.
#[test]
fn snapshots_of_two_entries_have_two_ids_whatever_the_seed_is() {
    for seed in [0, 1, u64::MAX] {
        let (mut node, _) = grown([40, 50]);
        node.storage.seed = seed;
        snap(&mut node);
        node.append_all(1, [60]);
        snap(&mut node);
        let ids: Vec<_> = node.storage.snapshots.whole.iter().map(|s| s.header.id).collect();
        assert!(ids.len() == 2 && ids[0] != ids[1], "{ids:?}");
    }
}

/// Of a cluster with the same groups, or of no state at all.
#[test]
fn a_snapshot_of_another_cluster_or_without_a_block_is_none() {
    let (mut node, _) = grown([40, 50]);
    snap(&mut node);
    let file = &node.storage.snapshots.whole[0];
    let (ours, group, id) = (file.header.identity, file.header.identity.group, file.header.id);
    let theirs = Identity { cluster: ClusterId(ours.cluster.0 + 1), ..ours };
    let header = file.header.encode(512);
    for (identity, blocks, is_one) in
        [(ours, file.footer.blocks, true), (theirs, file.footer.blocks, false), (ours, 0, false)]
    {
        let footer = Footer { blocks, ..file.footer }.encode(group, id, 512);
        assert_eq!(whole(&header, &footer, node.last, &identity).is_some(), is_one);
    }
}

/// So much of its state is on its way to it that it has not taken in.
#[test]
fn a_new_limit_is_that_of_a_restore_that_is_under_way() {
    let (mut node, _) = grown([40, 50]);
    node.state_bytes = 400_000;
    snap(&mut node);
    let mut config = config();
    config.tuning.restore_bytes_max = 1;
    let mut node = Node::start_behind(&config, node.disk, Start::Run, 100);
    let before = node.unanswered.len();
    config.tuning.restore_bytes_max = 150_000;
    node.storage.tune(&config.tuning);
    node.settle();
    assert!(before < 3 && node.unanswered.len() > 3, "{before}, {}", node.unanswered.len());
    assert_eq!(node.storage.restored(), None);
}

/// A leader that hears of less waits, lest more of it be held in memory than a block or two.
#[test]
fn a_peer_that_sends_a_snapshot_hears_how_much_of_it_leaves_room() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40]);
    let at = LogId::new(Term(1), LogIndex(1000));
    let snapshot = SnapshotName { at, id: SnapshotId(77), bytes: 1_000_000, digest: 0 };
    let members = Some(node.recovered().membership.clone());
    let piece = |offset, len| {
        let bytes = Bytes::from(vec![3; len]);
        Piece { snapshot, offset, time: Timestamp(9), members: members.clone(), bytes }
    };
    let told = |node: &Node| node.storage.receiving().map(|is| (is.next, is.stored));
    // Less than fills a block.
    node.storage.stage(&piece(0, 30_000));
    assert_eq!(told(&node), Some((30_000, 30_000)));
    node.storage.stage(&piece(30_000, 300_000));
    assert_eq!(told(&node), Some((330_000, 0)));
    node.settle();
    assert_eq!(told(&node), Some((330_000, 330_000)));
}

/// A node with entries up to 300, of which 200 are known to be committed, and the first half of a snapshot that a
/// peer sends; it has not been written to the end.
fn receiving() -> (Node, Piece) {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    node.storage.hint_committed(LogIndex(200));
    node.now = node.storage.deadline().expect("the hint is written when writes pause");
    node.settle();
    let at = LogId::new(Term(1), LogIndex(201));
    let snapshot = SnapshotName { at, id: SnapshotId(77), bytes: 200_000, digest: 0 };
    let members = Some(node.recovered().membership.clone());
    let bytes = Bytes::from(vec![3; 90_000]);
    let piece = Piece { snapshot, offset: 0, time: Timestamp(9), members, bytes };
    node.storage.stage(&piece);
    (node, piece)
}

#[test]
fn what_comes_of_a_snapshot_that_is_going_is_not_taken() {
    let (mut node, piece) = receiving();
    assert!(!node.ask().is_empty() && !node.storage.marks().has(Mark::InstallPieceRefused));
    node.storage.discard_staged();
    node.storage.stage(&Piece { offset: 90_000, members: None, ..piece });
    assert!(node.storage.marks().has(Mark::InstallPieceRefused));
}

/// It is there, and brings nothing.
#[test]
fn a_part_whose_first_block_is_bad_is_begun_anew() {
    let (mut node, piece) = receiving();
    node.settle();
    rot(&mut node, File::Part(piece.snapshot.at, piece.snapshot.id), 4096 + 100);
    let mut node = node.restart();
    node.storage.stage(&piece);
    node.settle();
    assert!(!node.storage.marks().has(Mark::InstallGoneOnWith));
    assert_eq!(node.storage.receiving().map(|receiving| receiving.next), Some(0));
    node.storage.stage(&piece);
    assert_eq!(node.storage.receiving().map(|receiving| receiving.next), Some(90_000));
}

/// The log has come to its end for it.
#[test]
fn a_peers_snapshot_that_cannot_be_named_is_the_end() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    node.storage.promise(Term(2), None);
    let at = LogId::new(Term(2), LogIndex(1000));
    stage(&mut node, at, 90_000);
    node.disk.fails =
        Some(|request| matches!(request, DiskRequest::Rename { to: File::Snapshot(_), .. }));
    node.storage.install(at);
    node.settle();
    assert!(matches!(node.halted, Some(Halt::DiskFailed { .. })), "{:?}", node.halted);
}

/// A node whose newest snapshot is kept for somebody.
fn pinned() -> (Node, File, u64) {
    let (mut node, _) = grown([40, 50]);
    snap(&mut node);
    let Outcome::Pinned(file, bytes) = node.storage.pin(node.now) else { panic!("there is one") };
    assert_eq!(node.disk.files[&file].len() as u64, bytes);
    (node, file, bytes)
}

/// Some disks read whole blocks alone.
#[test]
fn any_piece_of_a_pinned_snapshot_is_read_in_the_blocks_that_it_lies_in() {
    let (mut node, file, bytes) = pinned();
    let (all, id) = (node.disk.files[&file].clone(), RequestId(7));
    for (offset, len) in
        [(0, 10), (1, 510), (511, 2), (512, 512), (1000, 5000), (bytes - 5, 100), (bytes, 10)]
    {
        node.disk.requests.clear();
        node.storage.read_pinned(id, (file, offset, len), node.now);
        node.settle();
        let end = (offset + u64::from(len)).min(bytes);
        let piece = Bytes::copy_from_slice(&all[offset as usize..end as usize]);
        assert_eq!(node.storage.pins().take(), Some((id, Outcome::Read(piece))));
        let blocks = offset / 512 * 512..end.next_multiple_of(512);
        let (offset, len) = (blocks.start, (blocks.end - blocks.start) as u32);
        let read = DiskRequest::Read { file, offset, len };
        assert_eq!(node.disk.requests.contains(&read), offset < bytes, "{read:?}");
    }
}

/// Those that are read stay, and for no longer than they are.
#[test]
fn a_pinned_snapshot_is_kept_from_when_it_was_read_last() {
    let (mut node, file, _) = pinned();
    let idle = node.storage.config.tuning.pin_idle;
    let half = |node: &mut Node| {
        node.now = node.now.after(idle / 2);
        node.settle();
    };
    half(&mut node);
    node.storage.read_pinned(RequestId(7), (file, 0, 10), node.now);
    half(&mut node);
    assert!(!node.storage.marks().has(Mark::PinExpired));
    assert!(matches!(node.storage.pins().take(), Some((_, Outcome::Read(_)))));
    half(&mut node);
    assert!(node.storage.marks().has(Mark::PinExpired));
    assert_eq!(node.storage.pins().unpin(file), Outcome::Refused(Refusal::NotPinned(file)));
}

#[test]
fn whoever_waits_for_a_piece_of_a_node_that_stops_hears_of_it() {
    let (mut node, file, _) = pinned();
    node.storage.read_pinned(RequestId(7), (file, 0, 10), node.now);
    assert!(!node.ask().is_empty());
    node.storage.pins().stop();
    let end = Some((RequestId(7), Outcome::Refused(Refusal::Stopping)));
    assert_eq!(node.storage.pins().take(), end);
}

/// Its readers begin anew with the one that takes its place.
#[test]
fn a_pinned_snapshot_is_kept_no_more_when_a_peers_takes_its_place() {
    let (mut node, file, _) = pinned();
    node.storage.promise(Term(2), None);
    let at = LogId::new(Term(2), LogIndex(1000));
    stage(&mut node, at, 90_000);
    node.storage.install(at);
    node.settle();
    assert_eq!(node.storage.restored(), Some(at));
    assert!(!node.disk.files.contains_key(&file));
    assert_eq!(node.storage.pins().unpin(file), Outcome::Refused(Refusal::NotPinned(file)));
}
