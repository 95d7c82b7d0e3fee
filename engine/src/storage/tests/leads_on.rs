//! From which snapshot a restart goes on, with which part of the log, and which members that log brings.

use super::{
    decisions::change_hard,
    joins::stage,
    scrubs::{snap, snapshots},
    *,
};
use crate::types::SnapshotId;

/// The segment before it was lost: the log begins behind the snapshot, and with that gone nothing would lead there.
#[test]
fn a_snapshot_of_the_very_entry_before_the_log_is_gone_on_from() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    node.storage.hint_committed(node.last.index);
    let sealed = node.storage.journal.sealed[3];
    let members = node.recovered().membership.clone();
    assert!(node.storage.capture(sealed.last, members, Timestamp(9)));
    node.settle();
    let last = node.last;
    node.disk.files.remove(&File::Segment(sealed.sequence)).expect("it is there");
    let node = node.restart();
    assert_eq!((node.recovered().first, node.recovered().last), (sealed.last.index.next(), last));
    assert_eq!((node.storage.restored(), node.recovered().gate), (Some(sealed.last), None));
    assert_eq!(snapshots(&node), [File::Snapshot(sealed.last)]);
}

/// A node that has let go of its log up to somewhere between its two snapshots; and two snapshots of before that,
/// which it let go as well.
fn moved_on() -> (Node, BTreeMap<File, Vec<u8>>) {
    let mut node = Node::start(Disk::default(), format());
    let mut old = BTreeMap::new();
    for round in 1..=5 {
        node.append_all(round, sizes());
        node.storage.hint_committed(node.last.index);
        if round > 2 {
            node.storage.retain(node.last.index, None);
        }
        snap(&mut node);
        if round == 2 {
            old = node.disk.files.clone();
            old.retain(|file, _| matches!(file, File::Snapshot(_)));
        }
    }
    assert!(old.len() == 2 && node.storage.first() > LogIndex(601));
    assert!(old.keys().all(|file| !node.disk.files.contains_key(file)));
    (node, old)
}

/// Their removal may not have been durable. Where no snapshot leads to the log they are all that is left of the state.
#[test]
fn snapshots_that_the_log_has_left_behind_go_if_it_goes_on_from_a_newer_one() {
    let (node, mut old) = moved_on();
    let [second, newest] = snapshots(&node)[..] else { panic!("there are two") };
    let mut without = node.disk.clone();
    without.files.retain(|file, _| !matches!(file, File::Snapshot(_)));
    without.files.extend(old.clone());
    let without = Node::start(without, Start::Run);
    assert!(without.storage.is_state_lost(), "{:?}", without.halted);
    assert!(old.keys().all(|file| without.disk.files.contains_key(file)));
    // With no more than two there are none too many.
    old.pop_first();
    let mut with = node.disk;
    with.files.remove(&second);
    with.files.extend(old.clone());
    let with = Node::start(with, Start::Run);
    assert_eq!((snapshots(&with), with.halted), (vec![newest], None));
    assert!(!old.keys().any(|file| with.disk.files.contains_key(file)));
}

/// The next start may be told. Where only an older one is left from which the log does not go on, this one would
/// have given up the state for a read that failed.
#[test]
fn a_snapshot_that_cannot_be_read_is_done_without_only_if_the_log_goes_on_from_another() {
    let (node, old) = moved_on();
    let [second, newest] = snapshots(&node)[..] else { panic!("there are two") };
    for has_other in [true, false] {
        let mut disk = node.disk.clone();
        if !has_other {
            disk.files.remove(&second);
        }
        disk.files.extend(old.clone());
        disk.unreadable = Some((newest, 0));
        let node = Node::start(disk, Start::Run);
        assert_eq!(node.halted.is_none(), has_other, "{:?}", node.halted);
        let is_unread =
            |halt: &Halt| matches!(halt, Halt::DiskFailed { file, .. } if *file == newest);
        assert!(node.halted.as_ref().is_none_or(is_unread), "{:?}", node.halted);
    }
}

/// The hard state names them before the entry is written: a crash in between leaves the name alone.
#[test]
fn members_whose_entry_was_to_be_the_first_of_the_log_are_not_in_force() {
    let mut node = Node::start(Disk::default(), format());
    let previous = node.recovered().membership.clone();
    let at = LogId::new(Term(1), LogIndex(1));
    let newest = Arc::new(Membership { at, ..Membership::clone(&previous) });
    node.storage.set_membership(newest, Arc::clone(&previous));
    node.settle();
    assert_eq!(node.storage.promises().durable().newest.at, at);
    assert_eq!(node.restart().recovered().membership.at, previous.at);
}

/// What the log has let go was committed, also where the snapshot that held it is lost and no hint has come so far.
#[test]
fn members_that_the_log_began_behind_are_in_force() {
    let (node, _) = moved_on();
    let mut disk = node.disk;
    disk.files.retain(|file, _| !matches!(file, File::Snapshot(_)));
    let at = LogId::new(Term(1), LogIndex(5));
    change_hard(&mut disk, |hard| {
        hard.commit_hint = LogIndex(0);
        hard.newest = Arc::new(Membership { at, ..Membership::clone(&hard.previous) });
    });
    let node = Node::start(disk, Start::Run);
    assert!(node.storage.is_state_lost());
    assert_eq!(node.recovered().membership.at, at);
}

/// A life ended while it filled this entry, which may lie in a cache alone: it is written again, unless a snapshot
/// holds what it did.
#[test]
fn what_was_being_filled_is_written_again_unless_the_snapshot_holds_it() {
    for (filling, is_written) in [(2, false), (3, false), (4, true)] {
        let (mut node, _) = holes::grown([40, 50, 60]);
        node.storage.hint_committed(node.last.index);
        snap(&mut node);
        node.append_all(1, [70, 80]);
        while let Some(at) = node.storage.deadline() {
            node.now = at;
            node.settle();
        }
        let (mut disk, last) = (node.disk, node.last);
        change_hard(&mut disk, |hard| hard.filling = LogIndex(filling));
        disk.requests.clear();
        let node = Node::start(disk, Start::Run);
        assert_eq!(node.storage.durable(), last.index);
        let writes = |request: &DiskRequest| {
            matches!(request, DiskRequest::Write { file: File::Segment(_), .. })
        };
        assert_eq!(node.disk.requests.iter().any(writes), is_written, "{filling}");
    }
}

/// The mark that a log goes on from a peer's snapshot is for one that nothing else tells of.
#[test]
fn a_snapshot_that_has_joined_below_what_is_known_to_be_committed_needs_no_record() {
    for (hint, is_recorded) in [(199, true), (200, false)] {
        let mut node = Node::start(Disk::default(), format());
        node.append_all(1, sizes());
        let at = LogId::new(Term(1), LogIndex(200));
        let before = node.disk.files[&File::HardState].clone();
        stage(&mut node, at, 90_000);
        node.storage.join(at);
        node.settle();
        assert_eq!(node.storage.restored(), Some(at));
        node.disk.files.insert(File::HardState, before);
        change_hard(&mut node.disk, |hard| hard.commit_hint = LogIndex(hint));
        let node = node.restart();
        assert_eq!((node.recovered().last.index, node.recovered().gate), (LogIndex(300), None));
        let install = node.storage.promises().durable().install.id;
        assert_eq!(install == SnapshotId(77), is_recorded, "{hint}");
    }
}

/// What lies between it and the log nobody here has: it would have gone on with a gap.
#[test]
fn a_machine_of_its_own_goes_on_without_a_snapshot_only_if_the_log_reaches_it() {
    let (node, _) = moved_on();
    for (lacks, is_alone) in [(0, true), (0, false), (1, true), (1, false)] {
        let mut disk = node.disk.clone();
        disk.files.retain(|file, _| !matches!(file, File::Snapshot(_)));
        if is_alone {
            let member = Member { id: NodeId(1), incarnation: 0, address: Bytes::new() };
            change_hard(&mut disk, |hard| {
                let alone = Membership { at: hard.newest.at, ..Membership::of([member]) };
                hard.newest = Arc::new(alone);
                hard.previous = Arc::clone(&hard.newest);
            });
        }
        let index = LogIndex(node.storage.first().previous().0 - lacks);
        let machine = LogId::new(Term(index.0.div_ceil(300)), index);
        let node = Node::start(disk, Start::Resume { machine });
        let row = match &node.halted {
            Some(Halt::Refused { row, .. }) => Some(*row),
            halted => halted.as_ref().map(|halted| panic!("{halted}")),
        };
        assert_eq!(row, (lacks > 0 && is_alone).then_some("snapshot-missing"), "{lacks}");
        if row.is_none() {
            assert_eq!(node.storage.is_state_lost(), lacks > 0);
            assert_eq!(node.storage.restored(), Some(machine).filter(|_| lacks == 0));
        }
    }
}
