//! Entries that go bad where nobody else has them: a snapshot stands for what lies below it, and
//! for what it is taken for in time.

use super::{
    holes::{body, harm},
    scrubs::{rot, scrub_for, snap, snapshots},
    *,
};
use std::time::Duration;

const INTERVAL: Duration = Duration::from_secs(100);

fn alone() -> Membership {
    Membership::of([Member { id: NodeId(1), incarnation: 0, address: Bytes::new() }])
}

/// The only voter, with two snapshots, all of its log, and what a frame of each entry is.
fn node(scrub_interval: Duration) -> (Node, Vec<Bytes>) {
    let mut config = config();
    config.tuning.scrub_interval = scrub_interval;
    let start = Start::Format { cluster: ClusterId(5), members: Arc::new(alone()) };
    let mut node = Node::start_as(&config, Disk::default(), start);
    for round in 1..=2u64 {
        node.append_all(round, sizes());
        node.storage.hint_committed(node.last.index);
        snap(&mut node);
    }
    node.append_all(3, [40, 50, 60]);
    node.storage.hint_committed(node.last.index);
    let frames = node.read(1).into_iter().map(|(id, _)| frame(&mut node, id)).collect();
    (node, frames)
}

fn frame(node: &mut Node, id: LogId) -> Bytes {
    node.storage.read(Reader::Refill(NodeId(9)), id.index, id.index, 1);
    node.settle();
    node.storage.take_read().expect("it is there").1.frames
}

fn peer_reads(node: &mut Node, from: u64) -> Option<LogIndex> {
    node.storage.read(Reader::Peer(NodeId(2)), LogIndex(from), node.last.index, u32::MAX);
    node.settle();
    node.storage.take_read().map(|(_, read)| read.last)
}

/// Churn, seed 1701903: a learner with a bad entry below its snapshots became the only voter, and
/// its next start was refused.
#[test]
fn an_entry_below_the_newest_snapshot_is_nobodys_loss() {
    let (mut node, frames) = node(Duration::ZERO);
    snap(&mut node);
    node.append_all(3, [70, 80]);
    let behind = frame(&mut node, LogId::new(Term(3), LogIndex(604)));
    let Node { mut disk, last, .. } = node;
    // A restart comes upon the one, and leaves the other, in a full segment, to whoever reads it.
    harm(&mut disk, &frames[601]);
    harm(&mut disk, &frames[401]);
    for _ in 0..2 {
        let mut node = Node::start(disk, Start::Run);
        assert_eq!((node.recovered().last, node.storage.durable()), (last, last.index));
        assert!(node.storage.marks().has(Mark::HolesFound));
        assert_eq!(node.storage.first_owed(), None);
        assert_eq!(node.storage.restored().map(|at| at.index), Some(LogIndex(603)));
        // What lies behind it can be given; who lacks it gets the snapshot.
        assert_eq!((node.storage.first(), node.storage.gives_from()), (LogIndex(1), LogIndex(603)));
        assert_eq!(peer_reads(&mut node, 603), Some(last.index));
        for bad in [402, 602] {
            assert_eq!((peer_reads(&mut node, bad), node.halted.take()), (None, None));
        }
        assert_eq!(node.storage.hole().map(|at| at.index), Some(LogIndex(402)));
        disk = node.disk;
    }
    // One behind it is a loss, and nobody is there to make it good.
    harm(&mut disk, &behind);
    let node = Node::start(disk, Start::Run);
    assert!(matches!(node.halted, Some(Halt::Refused { row: "damaged", .. })), "{:?}", node.halted);
}

#[test]
fn a_snapshot_that_stood_for_an_entry_and_is_bad_itself_costs_the_node() {
    let (mut node, frames) = node(Duration::ZERO);
    let [_, newest] = snapshots(&node)[..] else { panic!("there are two") };
    rot(&mut node, newest, 20_000);
    // The older one stands for this.
    harm(&mut node.disk, &frames[181]);
    let mut node = node.restart();
    assert_eq!(node.storage.restored().map(|at| at.index), Some(LogIndex(300)));
    assert_eq!(node.halted, None);
    harm(&mut node.disk, &frames[401]);
    let mut node = node.restart();
    assert_eq!(node.storage.restored().map(|at| at.index), Some(LogIndex(300)));
    let (file, _) = body(&node.disk, &frames[402]);
    node.storage.read(Reader::Machine, LogIndex(301), node.last.index, u32::MAX);
    node.settle();
    let (_, read) = node.storage.take_read().expect("what lies before it is whole");
    node.storage.read(Reader::Machine, read.last.next(), node.last.index, u32::MAX);
    while node.halted.is_none() {
        node.settle();
        let (_, read) = node.storage.take_read().expect("it is read up to there");
        assert!(read.last < LogIndex(402));
        node.storage.read(Reader::Machine, read.last.next(), node.last.index, u32::MAX);
        node.settle();
    }
    match &node.halted {
        Some(Halt::Refused { row: "damaged", file: named, expected, .. }) => {
            assert_eq!((*named, expected.as_str()), (file, "entry 2.402"));
        }
        other => panic!("{other:?}"),
    }
}

/// Found by the scrub, or as a learner is fed: a snapshot is taken in its place, and the next
/// start is none the worse.
#[test]
fn what_is_found_late_is_stood_for_by_a_snapshot() {
    for is_scrub in [true, false] {
        let (mut node, frames) = node(if is_scrub { INTERVAL } else { Duration::ZERO });
        harm(&mut node.disk, &frames[601]);
        if is_scrub {
            scrub_for(&mut node, INTERVAL * 2);
        } else {
            assert_eq!(peer_reads(&mut node, 602), None);
        }
        assert_eq!(node.halted, None);
        assert_eq!(node.storage.hole(), Some(LogId::new(Term(3), LogIndex(602))));
        assert_eq!(node.storage.gives_from(), LogIndex(1));
        let at = |index| LogId::new(Term(3), LogIndex(index));
        assert!(!node.storage.wants_fresh(at(601)) && node.storage.wants_fresh(at(602)));
        snap(&mut node);
        assert!(!node.storage.wants_fresh(node.last));
        assert_eq!(node.storage.gives_from(), LogIndex(603));
        let node = node.restart();
        assert_eq!((node.halted, node.storage.durable()), (None, node.last.index));
    }
}

/// With peers an entry that goes bad is theirs to give. Who becomes the only voter first takes a
/// snapshot, begun behind that entry.
#[test]
fn whoever_becomes_the_only_voter_takes_a_snapshot_for_what_it_lacks() {
    let (mut node, frames) = node(Duration::ZERO);
    node.storage.snapshots.has_peers = true;
    harm(&mut node.disk, &frames[602]);
    assert_eq!(peer_reads(&mut node, 602), Some(LogIndex(602)));
    assert_eq!(peer_reads(&mut node, 603), None);
    assert!(node.storage.hole().is_some() && !node.storage.wants_fresh(node.last));
    // One is under way, and ends below it.
    let members = node.recovered().membership.clone();
    node.captured = 0;
    assert!(node.storage.capture(LogId::new(Term(3), LogIndex(602)), members));
    let at = LogId::new(Term(3), LogIndex(603));
    let members = Arc::new(Membership { at, ..alone() });
    node.storage.set_membership(Arc::clone(&members), members);
    assert!(node.storage.wants_fresh(node.last));
    node.settle();
    assert_eq!(node.storage.snapshot().index, LogIndex(602));
    assert!(node.storage.wants_fresh(node.last), "it stands for nothing");
    snap(&mut node);
    assert!(!node.storage.wants_fresh(node.last));
    assert_eq!(node.restart().halted, None);
}
