//! Two things at once: a second fault while the first is being made up for, and what comes while something
//! is half done.

use super::{
    holes::{harm, harm_slots},
    joins::stage,
    restores::{BLOCK, node_as, two},
    scrubs::{rot, scrub_for, snapshots},
    *,
};
use std::time::Duration;

const INTERVAL: Duration = Duration::from_secs(100);

fn frame(node: &mut Node, index: u64) -> Bytes {
    let index = LogIndex(index);
    node.storage.read(Reader::Refill(NodeId(9)), index, index, 1);
    node.settle();
    node.storage.take_read().expect("it is there").1.frames
}

/// The log was to begin behind a lost segment, and the snapshot for whose sake turned out bad before it did:
/// the segment went all the same, and nothing on the disk led on.
#[test]
fn a_lost_segment_stays_when_what_stood_for_it_is_bad() {
    for is_late in [false, true] {
        let mut node = node_as(&config(), 1, 2, true);
        let [older, newest] = two(&node);
        let sealed = *node.storage.journal.sealed.front().expect("it is full");
        assert!(sealed.first <= LogIndex(300) && sealed.last.index > LogIndex(300), "{sealed:?}");
        let bad = frame(&mut node, sealed.first.0);
        harm_slots(&mut node.disk, &bad, 0);
        harm(&mut node.disk, &bad);
        rot(&mut node, newest, BLOCK + 2000);
        if is_late {
            // A learner is fed from that segment, and the disk is slow.
            let last = sealed.last.index;
            node.storage.read(Reader::Peer(NodeId(2)), last, last, 1 << 20);
            let slow = node.ask();
            assert_eq!(slow.len(), 1, "{slow:?}");
            // Another one is to be fed, and then to be sent the newest snapshot.
            node.storage.read(Reader::Peer(NodeId(3)), sealed.first, last, 1 << 20);
            node.settle();
            node.storage.serve(NodeId(3), 0);
            node.settle();
            assert_eq!(node.storage.spoilt_snapshots(), 1);
            assert_eq!(snapshots(&node), [older]);
            slow.into_iter().for_each(|action| node.perform(action));
            node.settle();
        }
        let before = (node.storage.first(), snapshots(&node));
        let mut node = node.restart();
        assert_eq!(node.halted, None, "{is_late}: {before:?}");
        assert_eq!(
            node.storage.restored().map(File::Snapshot),
            Some(older),
            "{is_late}: {before:?}"
        );
        assert_eq!(node.read(301).len(), 303);
    }
}

/// A machine of its own was to get the newest snapshot while a peer's got its name: what it answered late was
/// credited to the other.
#[test]
fn no_state_is_replaced_while_a_snapshot_joins() {
    let machine = LogId::new(Term(2), LogIndex(450));
    let mut node = node_as(&config(), 3, 2, false);
    let lost = frame(&mut node, 500);
    harm(&mut node.disk, &lost);
    let mut node = Node::start_behind(&config(), node.disk, Start::Resume { machine }, 3);
    assert_eq!(node.storage.restored(), Some(machine));
    node.storage.catch_up(node.now, machine.index, machine);
    node.settle();
    let at = LogId::new(Term(3), LogIndex(602));
    stage(&mut node, at, 300_000);
    node.storage.read(Reader::Machine, LogIndex(500), LogIndex(600), 1 << 20);
    let read = node.ask();
    node.storage.join(at);
    let rename = node.ask();
    assert_eq!(rename.len(), 1, "{rename:?}");
    rename.into_iter().for_each(|action| node.perform(action));
    let name = node.ask();
    assert_eq!(name.len(), 1, "{name:?}");
    // The directory is slow. What the machine waits for turns out bad.
    read.into_iter().for_each(|action| node.perform(action));
    for _ in 0..20 {
        node.storage.catch_up(node.now, machine.index, machine);
        node.ask().into_iter().for_each(|action| node.perform(action));
    }
    name.into_iter().for_each(|action| node.perform(action));
    node.settle();
    node.answer(0);
    node.settle();
    node.answer(0);
    node.settle();
    assert_eq!((node.storage.restored(), node.halted.take()), (Some(at), None));
    assert_eq!(node.restored.len(), 300_000);
}

/// The newest could not be read once, and the one before was bad: the next starts were refused as damaged.
#[test]
fn a_snapshot_that_cannot_be_read_may_be_whole_though_the_older_is_bad() {
    let mut node = node_as(&config(), 1, 2, true);
    assert!(node.storage.first() > LogIndex(1));
    let [older, newest] = two(&node);
    rot(&mut node, older, BLOCK + 2000);
    let mut disk = node.disk;
    disk.unreadable = Some((newest, 2 * BLOCK as u64 + 2000));
    let node = Node::start(disk, Start::Run);
    let mut disk = node.disk;
    disk.unreadable = None;
    let again = Node::start(disk, Start::Run);
    assert_eq!(again.storage.restored().map(File::Snapshot), Some(newest), "it was whole");
    assert!(matches!(node.halted, Some(Halt::DiskFailed { .. })), "{:?}", node.halted);
}

/// The scrub read slots, and meanwhile a peer found the entry bad that it wanted first: it stood still for as
/// long as that was bad.
#[test]
fn the_scrub_goes_on_behind_what_others_find_bad() {
    let mut config = config();
    config.tuning.scrub_interval = INTERVAL;
    let mut node = node_as(&config, 1, 2, false);
    scrub_for(&mut node, INTERVAL * 2);
    let mut passes = 0;
    // Up to where it asks for slots.
    let (slow, from) = loop {
        node.now = node.storage.deadline().expect("it goes on");
        let asked = node.ask();
        passes += 1;
        assert!(passes < 10_000);
        let is_slots = |a: &Action| {
            matches!(
                a,
                Action::Disk { request: DiskRequest::Read { file: File::Segment(_), .. }, .. }
            )
        };
        let from = node.storage.reads.wanted(Reader::Scrub);
        if let Some(from) = from.filter(|_| asked.len() == 1 && is_slots(&asked[0])) {
            break (asked, from);
        }
        asked.into_iter().for_each(|action| node.perform(action));
        node.settle();
    };
    let bad = frame(&mut node, from.0);
    harm(&mut node.disk, &bad);
    node.storage.read(Reader::Peer(NodeId(2)), from, node.last.index, 1 << 20);
    node.settle();
    assert_eq!(node.storage.hole().map(|at| at.index), Some(from));
    slow.into_iter().for_each(|action| node.perform(action));
    node.settle();
    let before = node.storage.scrubbed_bytes();
    scrub_for(&mut node, INTERVAL * 20);
    assert!(node.storage.scrubbed_bytes() > before, "the scrub stands still at {from}");
}

/// One that was to stand for a bad entry could not be written for want of room, and was never tried again: no
/// start would have read that log.
#[test]
fn a_snapshot_that_is_owed_is_wanted_though_the_disk_did_not_take_it() {
    let mut config = config();
    config.tuning.scrub_interval = Duration::from_secs(7 * 24 * 3600);
    let mut node = node_as(&config, 1, 2, false);
    let bad = frame(&mut node, 601);
    harm(&mut node.disk, &bad);
    node.storage.read(Reader::Peer(NodeId(2)), LogIndex(601), node.last.index, 1 << 20);
    node.settle();
    assert!(node.storage.wants_fresh(node.last));
    let members = node.recovered().membership.clone();
    node.captured = 0;
    node.disk.fails = Some(|r| matches!(r, DiskRequest::Write { file: File::Part(..), .. }));
    assert!(node.storage.capture(node.last, members, Timestamp(9)));
    node.settle();
    assert!(node.storage.take_given_up().is_some());
    node.disk.fails = None;
    scrub_for(&mut node, Duration::from_secs(3600));
    assert!(node.storage.wants_fresh(node.last), "an hour later nobody wants it");
}

/// Both snapshots were bad. The first start asked a peer, the second took the last file away, and all later ones
/// were refused.
#[test]
fn a_machine_of_its_own_that_waits_for_a_peers_snapshot_waits_after_each_restart() {
    let machine = LogId::new(Term(1), LogIndex(50));
    let mut node = node_as(&config(), 3, 3, true);
    assert!(node.storage.first() > LogIndex(300));
    let [older, newest] = two(&node);
    rot(&mut node, older, 6 * BLOCK + 2000);
    rot(&mut node, newest, 6 * BLOCK + 2000);
    let node = Node::start(node.disk, Start::Resume { machine });
    assert_eq!(
        (node.halted.clone(), node.storage.is_state_lost()),
        (None, true),
        "a peer is asked"
    );
    let again = Node::start(node.disk.clone(), Start::Resume { machine });
    let third = Node::start(again.disk.clone(), Start::Resume { machine });
    assert_eq!((again.halted, third.halted), (None, None), "it is asked no more");
}

/// The log goes on from what it holds: it was refused for a snapshot that it does not need.
#[test]
fn a_machine_of_its_own_that_has_it_all_needs_no_snapshot() {
    for voters in [1, 3] {
        let node = node_as(&config(), voters, 3, true);
        let machine = node.last;
        let mut disk = node.disk;
        disk.files.retain(|file, _| !matches!(file, File::Snapshot(_)));
        let node = Node::start(disk, Start::Resume { machine });
        assert_eq!(node.halted, None, "{voters}");
    }
}
