//! Sectors that cannot be read, at every start: what another witness tells as well is done without.

use super::{
    holes::{body, grown, harm, refill},
    scrubs::{snap, snapshots},
    *,
};
use crate::{action::Outcome, marks::Mark};

/// A node of so many voters, with two snapshots and several full segments.
fn node(voters: u64) -> Node {
    let member = |id| Member { id: NodeId(id), incarnation: 0, address: Bytes::new() };
    let members = Arc::new(Membership::of((1..=voters).map(member)));
    let start = Start::Format { cluster: ClusterId(5), members };
    let mut node = Node::start(Disk::default(), start);
    for round in 1..=2u64 {
        node.append_all(round, sizes());
        node.storage.hint_committed(node.last.index);
        snap(&mut node);
    }
    node.append_all(3, [40, 50, 60]);
    node
}

/// This block of a file cannot be read any more; where, counting from its end if negative.
fn spoil(disk: &mut Disk, file: File, block: i64) {
    let len = disk.files[&file].len() as i64;
    let at = (block * 512).rem_euclid(len);
    disk.unreadable = Some((file, at as u64));
}

fn segments(node: &Node) -> Vec<File> {
    node.storage.journal.sealed.iter().map(|sealed| File::Segment(sealed.sequence)).collect()
}

/// Its first header is good, so its entries tell what its end record did. Its end was read again with
/// them, and the node could not be started any more.
#[test]
fn a_full_segment_whose_end_cannot_be_read_is_scanned() {
    for voters in [3, 1] {
        let mut node = node(voters);
        let last = node.last;
        let all = segments(&node);
        // The last full one may be the log's last.
        node.disk.files.retain(|file, _| !matches!(file, File::Spare(_)));
        for (file, block) in all.iter().flat_map(|&file| [(file, 0), (file, -2), (file, -1)]) {
            let mut disk = node.disk.clone();
            spoil(&mut disk, file, block);
            for _ in 0..2 {
                let mut node = Node::start(disk, Start::Run);
                assert_eq!(node.halted, None, "{file} {block} of {voters}");
                assert_eq!(node.recovered().last, last);
                assert_eq!(node.read(node.storage.first().0).len() as u64, last.index.0);
                node.append_all(4, [70]);
                assert_eq!(node.storage.durable(), last.index.next());
                node.truncate(last);
                node.settle();
                disk = node.disk;
            }
        }
    }
}

/// The log is full to the brim, and the last thing in it is an end record.
#[test]
fn the_last_segment_may_be_the_one_whose_end_cannot_be_read() {
    let mut node = Node::start(Disk::default(), format());
    node.disk.is_full = true;
    while node.storage.durable() == node.last.index {
        node.append_all(1, [700]);
    }
    let (durable, file) = (node.storage.durable(), *segments(&node).last().expect("a full one"));
    node.disk.is_full = false;
    let mut disk = node.disk;
    spoil(&mut disk, file, -1);
    let mut node = Node::start(disk, Start::Run);
    assert_eq!((node.recovered().last.index, node.halted.take()), (durable, None));
    node.append_all(2, [40, 50]);
    assert_eq!(node.storage.durable(), durable.next().next());
    assert_eq!(node.read(1).len() as u64, durable.0 + 2);
}

/// Its header or its footer could not be read, and that refused the node, though the one before was
/// whole. It stays, for the next start may be told.
#[test]
fn a_snapshot_whose_head_or_foot_cannot_be_read_yields_to_another() {
    for voters in [3, 1] {
        let node = node(voters);
        let [older, newest] = snapshots(&node)[..] else { panic!("there are two") };
        for (bad, block, used) in
            [(newest, 0, older), (newest, -1, older), (older, 0, newest), (older, -1, newest)]
        {
            let mut disk = node.disk.clone();
            spoil(&mut disk, bad, block);
            for _ in 0..2 {
                let node = Node::start(disk, Start::Run);
                assert_eq!((node.recovered().last, &node.halted), (node.last, &None));
                assert_eq!(snapshots(&node), [used], "{bad} {block}");
                assert_eq!(node.storage.restored().map(File::Snapshot), Some(used));
                assert_eq!(node.recovered().gate, None);
                disk = node.disk;
                assert!(disk.files.contains_key(&bad));
            }
            // Once there are two others it is nobody's.
            let mut node = Node::start(disk.clone(), Start::Run);
            for term in [8, 9] {
                let members = node.recovered().membership.clone();
                node.append_all(term, [40]);
                node.captured = 0;
                assert!(node.storage.capture(node.last, members, Timestamp(9)));
                node.settle();
            }
            assert!(!node.disk.files.contains_key(&bad), "{bad} {block}");
            assert_eq!(snapshots(&node).len(), 2);
            // It can be, after all.
            disk.unreadable = None;
            let node = Node::start(disk, Start::Run);
            assert_eq!(node.storage.restored().map(File::Snapshot), Some(newest));
        }
        // There is no other: nobody knows what is there.
        let mut disk = node.disk;
        disk.files.remove(&older);
        spoil(&mut disk, newest, 0);
        let node = Node::start(disk, Start::Run);
        assert!(matches!(node.halted, Some(Halt::DiskFailed { .. })), "{:?}", node.halted);
    }
}

/// Takes two snapshots, and a pinned one stays.
fn outdate(node: &mut Node, pinned: File) {
    for term in [8, 9] {
        node.append_all(term, [40]);
        snap(node);
    }
    assert_eq!(snapshots(node).len(), 2 + usize::from(snapshots(node).contains(&pinned)));
    assert!(node.disk.files.contains_key(&pinned), "{pinned} is pinned");
}

/// One read of the look before a repeated cut fails, and not behind it: the snapshot counts, and was done away
/// with as one that could not be read once there were two others, though it was pinned.
#[test]
fn a_snapshot_that_can_be_read_behind_a_repeated_cut_is_one_like_any_other() {
    let mut node = node(3);
    node.truncate(LogId::new(Term(3), LogIndex(601)));
    let is_clearing = |action: &Action| {
        matches!(action, Action::Disk { request: DiskRequest::Sync { file: File::Segment(_) }, .. })
    };
    loop {
        let out = node.ask();
        if out.iter().any(is_clearing) {
            break;
        }
        out.into_iter().for_each(|action| node.perform(action));
    }
    for read in 0..8 {
        let disk = Disk { read_fails: Some(read), ..node.disk.clone() };
        let mut node = Node::start(disk, Start::Run);
        assert!(node.storage.marks().has(Mark::CutRepeated), "{:?}", node.halted);
        assert_eq!(snapshots(&node).len(), 2);
        let Outcome::Pinned(file, _) = node.storage.pin(node.now) else { panic!("there is one") };
        outdate(&mut node, file);
    }
}

/// It is pinned, and then cannot be read where it is to replace a state: two later ones made it go.
#[test]
fn a_pinned_snapshot_that_cannot_be_read_stays() {
    let (mut node, machine) = catching_up::cut_off(node(3));
    let Outcome::Pinned(file, _) = node.storage.pin(node.now) else { panic!("there is one") };
    spoil(&mut node.disk, file, 10);
    node.storage.catch_up(node.now, machine.index, machine);
    node.settle();
    assert!(node.storage.marks().has(Mark::OlderSnapshotUsed));
    outdate(&mut node, file);
}

/// The slots of the last segment are believed; what they lie behind is owed. They are read when it is
/// filled, and not forgotten until then.
#[test]
fn what_is_believed_behind_what_is_owed_is_read_when_that_is_there() {
    let (node, frames) = grown(sizes());
    let (sealed, last) = (segments(&node)[1], node.last);
    let mut disk = node.disk;
    // The last one of a segment is read, not believed.
    let is_sealed = |frame: &Bytes| body(&disk, frame).0 == sealed;
    let owed = frames.iter().rposition(is_sealed).expect("it is full");
    let (active, _) = body(&disk, &frames[frames.len() - 1]);
    let is_active = |frame: &Bytes| body(&disk, frame).0 == active;
    let believed = frames.iter().position(is_active).expect("it has entries");
    assert!(believed + 4 < frames.len());
    harm(&mut disk, &frames[owed]);
    harm(&mut disk, &frames[believed + 1]);
    spoil(&mut disk, sealed, -1);
    let mut node = Node::start(disk, Start::Run);
    assert_eq!((node.recovered().last, node.recovered().gate), (last, None));
    assert_eq!(node.storage.durable(), LogIndex(owed as u64));
    assert!(!node.storage.marks().has(Mark::ScrubFoundBadEntry));
    refill(&mut node, &frames[owed]);
    assert_eq!(node.storage.durable(), last.index);
    assert!(node.storage.marks().has(Mark::ScrubFoundBadEntry));
    assert_eq!(node.storage.hole().map(|hole| hole.index), Some(LogIndex(believed as u64 + 2)));
}

/// It was left where it was, and the log went on below it: when it could be read again the machine was given
/// a state of what had been cut.
#[test]
fn a_log_is_not_cut_by_force_below_a_snapshot_that_cannot_be_read() {
    let mut node = node(3);
    node.storage.hint_committed(node.last.index);
    let [_, newest] = snapshots(&node)[..] else { panic!("there are two") };
    node.storage.read(Reader::Refill(NodeId(9)), LogIndex(450), LogIndex(450), 1);
    node.settle();
    let frame = node.storage.take_read().expect("it is there").1.frames;
    let mut disk = node.disk;
    harm(&mut disk, &frame);
    spoil(&mut disk, newest, -1);
    let force = || Start::ForceSoleVoter { acknowledged_loss: true };
    let before = disk.files.clone();
    let refused = Node::start(disk, force());
    let Some(Halt::Refused { row, file, expected, .. }) = &refused.halted else { panic!() };
    assert_eq!((*row, *file), ("unread-above-cut", newest));
    assert!(expected.contains("remove the file to go on without it"), "{expected}");
    assert!(refused.disk.files == before, "nothing is written");
    // As it says: without the file, or with one that can be read, which holds what is bad.
    let without = Disk { unreadable: None, ..refused.disk.clone() };
    let mut without = Node::start(
        {
            let mut disk = without;
            disk.files.remove(&newest);
            disk
        },
        force(),
    );
    let Some(Halt::Forced(forced)) = without.halted.take() else { panic!("{:?}", without.halted) };
    assert_eq!(forced.cut, Some(LogIndex(450)));
    let with = Node::start(Disk { unreadable: None, ..refused.disk }, force());
    let Some(Halt::Forced(forced)) = with.halted else { panic!("{:?}", with.halted) };
    assert_eq!((forced.snapshot.index, forced.cut), (LogIndex(600), None));
}
