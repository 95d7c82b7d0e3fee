//! Entries that go bad where nobody else has them: a snapshot stands for what lies below it, and
//! for what it is taken for in time.

use super::{
    holes::{body, harm, harm_slots},
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
    // One behind it is a loss, and nobody is there to make it good: that one is named.
    let (file, at) = body(&disk, &behind);
    harm(&mut disk, &behind);
    let node = Node::start(disk, Start::Run);
    match &node.halted {
        Some(Halt::Refused { row: "damaged", file: named, offset, expected, .. }) => {
            assert_eq!((named, expected.as_str()), (&file, "entry 3.604"));
            assert_eq!(*offset as usize, at + 1 - behind.len());
        }
        other => panic!("{other:?}"),
    }
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
    assert!(node.storage.capture(LogId::new(Term(3), LogIndex(602)), members, Timestamp(9)));
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

/// The segments on disk, the oldest first.
fn segments(node: &Node) -> Vec<File> {
    let files = node.disk.files.keys().copied();
    files.filter(|file| matches!(file, File::Segment(_))).collect()
}

/// What the newest snapshot holds is no loss even where nobody knows what it was: the log begins
/// behind it, and the older snapshot goes, for nothing leads on from there.
#[test]
fn segments_that_are_lost_below_the_newest_snapshot_are_nobodys_loss() {
    let (node, _) = node(Duration::ZERO);
    let last = node.last;
    let all = segments(&node);
    let [_, newest] = snapshots(&node)[..] else { panic!("there are two") };
    let covered = node.storage.journal.sealed.iter().filter(|s| s.last.index <= LogIndex(600));
    let covered: Vec<_> = covered.map(|s| (File::Segment(s.sequence), s.last.index)).collect();
    assert!(covered.len() > 3 && covered.len() < all.len());
    for &(file, end) in &covered {
        for is_gone in [true, false] {
            let mut disk = node.disk.clone();
            if is_gone {
                disk.files.remove(&file);
            } else {
                disk.files.get_mut(&file).expect("it is there").fill(0xa5);
            }
            for turn in 0..2 {
                let node = Node::start(disk, Start::Run);
                let recovered = node.recovered();
                assert_eq!((recovered.first, recovered.last), (end.next(), last), "{file}");
                assert_eq!(node.storage.durable(), last.index);
                assert_eq!(node.storage.restored().map(|at| at.index), Some(LogIndex(600)));
                let is_told = node.storage.marks().has(Mark::LogBegunLater);
                assert_eq!(is_told, turn == 0, "it is so from then on");
                let is_kept = end < LogIndex(301);
                assert_eq!(snapshots(&node).len(), 1 + usize::from(is_kept), "{file}");
                assert_eq!(snapshots(&node).last(), Some(&newest));
                assert!(segments(&node)[0] > file);
                disk = node.disk;
            }
        }
    }
    // One that reaches above it is missed.
    let (beyond, _) = (all[covered.len()], ());
    let mut disk = node.disk;
    disk.files.remove(&beyond);
    let node = Node::start(disk, Start::Run);
    let halted = &node.halted;
    assert!(matches!(halted, Some(Halt::Refused { row: "tail-unknown", .. })), "{halted:?}");
}

/// The log was given up, and the older snapshot removed, for the sake of a footer: what was left of the state
/// with them.
#[test]
fn a_snapshot_that_is_to_stand_alone_for_the_log_is_read_first() {
    let (node, _) = node(Duration::ZERO);
    let [older, newest] = snapshots(&node)[..] else { panic!("there are two") };
    let body = node.disk.files[&newest].len() / 2;
    let sealed: Vec<_> = node.storage.journal.sealed.iter().collect();
    // Of the two the older one stands for the first of them as well.
    for below in [300, 600] {
        let gone = sealed.iter().rfind(|s| s.last.index < LogIndex(below)).expect("there is one");
        let mut bad = node.disk.clone();
        bad.files.get_mut(&newest).expect("it is there")[body] ^= 1;
        let started = Node::start(bad.clone(), Start::Run);
        assert_eq!(started.halted, None, "the log leads on from the older one");
        bad.files.remove(&File::Segment(gone.sequence));
        let before = bad.files.clone();
        let force = Start::ForceSoleVoter { acknowledged_loss: true };
        for start in [Start::Run, force.clone()] {
            let refused = Node::start(bad.clone(), start);
            let Some(Halt::Refused { row: "rests-on-bad", file, expected, .. }) = &refused.halted
            else {
                panic!("{:?}", refused.halted)
            };
            assert_eq!(*file, newest);
            let lacks = format!("the log before it, entry {} on", gone.first);
            assert!(expected.contains(&lacks), "{expected}");
            assert!(before == refused.disk.files, "it was written to");
        }
        // It goes on with what is left, as it was told to.
        bad.files.remove(&newest);
        let last = if below == 300 {
            node.last.index
        } else {
            let forced = Node::start(bad, force);
            let Some(Halt::Forced(done)) = &forced.halted else { panic!("{:?}", forced.halted) };
            bad = forced.disk;
            assert!(done.is_done && done.snapshot.index == LogIndex(300), "{done:?}");
            gone.first.previous()
        };
        let node = Node::start(bad, Start::Run);
        assert_eq!((node.recovered().last.index, &snapshots(&node)[..]), (last, &[older][..]));
    }
}

/// A peer may send another, where there is one.
#[test]
fn a_snapshot_is_read_first_where_nobody_else_can_give_another() {
    let mut node = Node::start(Disk::default(), format());
    for round in 1..=2u64 {
        node.append_all(round, sizes());
        node.storage.hint_committed(node.last.index);
        snap(&mut node);
    }
    node.append_all(3, [40, 50, 60]);
    let [_, newest] = snapshots(&node)[..] else { panic!("there are two") };
    rot(&mut node, newest, 20_000);
    let mut sealed = node.storage.journal.sealed.iter();
    let gone = sealed.rfind(|s| s.last.index < LogIndex(600)).expect("there is one");
    node.disk.files.remove(&File::Segment(gone.sequence));
    let lost = Node::start(node.disk.clone(), Start::Run);
    assert_eq!((&lost.halted, lost.storage.is_state_lost()), (&None, true));
    let looked = Node::start(node.disk.clone(), Start::Inspect);
    let Some(Halt::Inspected(inspection)) = &looked.halted else { panic!("{:?}", looked.halted) };
    assert!(inspection.judgement.starts, "{inspection}");
    let forced = Node::start(node.disk, Start::ForceSoleVoter { acknowledged_loss: false });
    let is_refused = matches!(forced.halted, Some(Halt::Refused { row: "rests-on-bad", .. }));
    assert!(is_refused, "{:?}", forced.halted);
}

/// The same in a running node, by whoever reads there.
#[test]
fn a_node_that_runs_begins_behind_a_segment_that_is_lost() {
    for (has_peers, is_scrub) in [(true, true), (true, false), (false, true), (false, false)] {
        let (mut node, frames) = node(if is_scrub { INTERVAL } else { Duration::ZERO });
        node.storage.snapshots.has_peers = has_peers;
        let sealed = node.storage.journal.sealed.iter();
        let end = sealed.map(|s| s.last.index).find(|last| *last >= LogIndex(402)).expect("one");
        assert!(end <= LogIndex(600));
        harm_slots(&mut node.disk, &frames[401], 0);
        harm(&mut node.disk, &frames[401]);
        if is_scrub {
            scrub_for(&mut node, INTERVAL * 2);
        } else {
            assert_eq!(peer_reads(&mut node, 402), None);
        }
        if !has_peers {
            // Whether the newest snapshot is whole nobody knows, and from the older one the log leads on as
            // far as it goes.
            assert_eq!((node.storage.first(), snapshots(&node).len()), (LogIndex(1), 2));
            assert!(node.storage.wants_fresh(node.last));
            snap(&mut node);
        }
        assert!(node.halted.is_none() && node.storage.marks().has(Mark::LogBegunLater));
        assert_eq!((node.storage.first(), node.storage.gives_from()), (end.next(), end.next()));
        assert!(node.storage.reads.is_idle(), "what has gone is not waited for");
        if has_peers {
            assert_eq!(snapshots(&node).len(), 1, "from the older one nothing leads on");
            assert!(node.storage.wants_fresh(node.last));
            snap(&mut node);
        }
        assert_eq!((snapshots(&node).len(), node.storage.spoilt_snapshots()), (2, 0));
        assert_eq!(peer_reads(&mut node, end.0 + 1).map(|_| ()), Some(()));
        let node = node.restart();
        assert_eq!((node.recovered().first, node.recovered().last), (end.next(), node.last));
        assert_eq!(node.recovered().gate, None);
    }
}

/// It was about to add another voter when it went down, and had that in its hard state: it took itself for
/// one of two, and gave up what it alone had.
#[test]
fn who_is_about_to_add_another_voter_is_alone_still() {
    let (mut node, frames) = node(Duration::ZERO);
    let two = [1, 2].map(|id| Member { id: NodeId(id), incarnation: 0, address: Bytes::new() });
    let at = LogId::new(Term(3), node.last.index.next());
    let both = Membership { at, ..Membership::of(two) };
    node.storage.set_membership(Arc::new(both), Arc::new(alone()));
    node.settle();
    assert_eq!(node.storage.promises().durable().newest.at, at);
    harm(&mut node.disk, &frames[601]);
    let node = node.restart();
    assert!(matches!(node.halted, Some(Halt::Refused { row: "damaged", .. })), "{:?}", node.halted);
}

/// Once that is committed there is somebody to ask.
#[test]
fn who_has_added_another_voter_is_not_alone() {
    let (mut node, frames) = node(Duration::ZERO);
    let two = [1, 2].map(|id| Member { id: NodeId(id), incarnation: 0, address: Bytes::new() });
    let at = LogId::new(Term(3), node.last.index.next());
    let both = Membership { at, ..Membership::of(two) };
    node.storage.set_membership(Arc::new(both), Arc::new(alone()));
    node.append_all(3, [70]);
    node.storage.hint_committed(at.index);
    while let Some(deadline) = node.storage.deadline() {
        node.now = deadline;
        node.settle();
    }
    assert_eq!(node.storage.promises().durable().commit_hint, at.index);
    harm(&mut node.disk, &frames[601]);
    let node = node.restart();
    assert_eq!((node.recovered().last, node.halted), (at, None));
}

/// All that was believed of the last segment lay in its first block, with what was read anyway: that one
/// entry was bad was seen before the verdict, and then nobody asked.
#[test]
fn an_entry_in_the_first_block_of_a_segment_is_confirmed_like_any_other() {
    let start = Start::Format { cluster: ClusterId(5), members: Arc::new(alone()) };
    let mut node = Node::start_as(&config(), Disk::default(), start);
    node.append_all(1, [40, 50]);
    node.now = node.storage.deadline().expect("the hint is written when writes pause");
    node.settle();
    let first = frame(&mut node, LogId::new(Term(1), LogIndex(1)));
    let mut disk = node.disk;
    harm(&mut disk, &first);
    let node = Node::start(disk, Start::Run);
    match &node.halted {
        Some(Halt::Refused { row: "damaged", expected, .. }) => assert_eq!(expected, "entry 1.1"),
        other => panic!("{other:?}"),
    }
}

/// A learner that was fed came upon it, and the node ended: the state that was lost with it nobody else had,
/// and no start could read it from that log again.
#[test]
fn an_entry_without_either_witness_is_stood_for_by_a_snapshot() {
    for is_scrub in [true, false] {
        let (mut node, _) = node(if is_scrub { INTERVAL } else { Duration::ZERO });
        node.append_all(3, sizes());
        node.storage.hint_committed(node.last.index);
        let lost = LogId::new(Term(3), LogIndex(700));
        let entry = frame(&mut node, lost);
        let sealed = node.storage.journal.sealed.iter();
        let end = sealed.map(|s| s.last.index).find(|last| *last >= lost.index).expect("one");
        harm_slots(&mut node.disk, &entry, 0);
        harm(&mut node.disk, &entry);
        if is_scrub {
            scrub_for(&mut node, INTERVAL * 2);
        } else {
            assert_eq!(peer_reads(&mut node, 700), None);
        }
        assert_eq!(node.halted, None);
        assert!(node.storage.reads.is_idle(), "it is not read again and again");
        assert_eq!(node.storage.first(), LogIndex(1), "there is no snapshot for it yet");
        let at = |index| LogId::new(Term(3), index);
        assert!(!node.storage.wants_fresh(at(end.previous())), "it would stand for nothing");
        assert!(node.storage.wants_fresh(at(end)));
        snap(&mut node);
        assert_eq!((node.storage.first(), node.storage.gives_from()), (end.next(), end.next()));
        assert_eq!(snapshots(&node).len(), 1, "from the older ones nothing leads on");
        let node = node.restart();
        assert_eq!((&node.halted, node.storage.durable()), (&None, node.last.index));
    }
}
