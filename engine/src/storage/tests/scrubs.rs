//! Snapshots are read again while the node runs; what has gone bad does not count any more, and
//! makes room for another one.

use super::*;
use crate::{action::Note, storage::snapshots::SnapshotFile};
use std::time::Duration;

const INTERVAL: Duration = Duration::from_secs(100);

/// A node with two snapshots that reads all it has again and again.
fn node() -> Node {
    let mut config = config();
    config.tuning.scrub_interval = INTERVAL;
    let mut node = Node::start_as(&config, Disk::default(), format());
    for round in 1..=2u64 {
        node.append_all(round, sizes());
        node.storage.hint_committed(node.last.index);
        snap(&mut node);
    }
    assert_eq!(node.storage.snapshots.whole.len(), 2);
    node
}

pub(super) fn snap(node: &mut Node) {
    let members = node.recovered().membership.clone();
    node.captured = 0;
    assert!(node.storage.capture(node.last, members, Timestamp(9)));
    node.settle();
    assert_eq!(node.storage.snapshot(), node.last);
}

/// The oldest first.
pub(super) fn snapshots(node: &Node) -> Vec<File> {
    node.storage.snapshots.whole.iter().map(SnapshotFile::file).collect()
}

/// Flips a bit of a file: where, counting from its end if negative.
pub(super) fn rot(node: &mut Node, file: File, at: i64) {
    let bytes = node.disk.files.get_mut(&file).expect("it is there");
    let at = if at < 0 { bytes.len() as i64 + at } else { at };
    bytes[at as usize] ^= 4;
}

/// Lets one deadline after the other pass, as long as this time lasts and nothing is found.
pub(super) fn scrub_for(node: &mut Node, time: Duration) {
    let end = node.now.after(time);
    while let Some(at) = node.storage.deadline().filter(|at| *at <= end) {
        node.now = at;
        node.settle();
        if node.storage.marks().has(Mark::SnapshotFoundBad) {
            return;
        }
    }
    node.now = end;
}

fn found(node: &Node) -> bool {
    node.storage.marks().has(Mark::SnapshotFoundBad)
}

#[test]
fn a_pass_reads_log_and_snapshots_in_its_time() {
    let mut node = node();
    let snapshots: u64 =
        snapshots(&node).iter().map(|file| node.disk.files[file].len() as u64).sum();
    let all = node.storage.journal.bytes_after(LogIndex(0)) + snapshots;
    scrub_for(&mut node, INTERVAL * 10);
    let read = node.storage.scrubbed_bytes();
    assert!((all * 9..=all * 11).contains(&read), "{read} bytes in ten passes over {all}");
    assert!(!found(&node));
}

/// What fills the blocks counted as read only in what there is: the shorter entries are that come one by one,
/// the oftener all of them were read, up to sixty times as often as was asked for.
#[test]
fn a_pass_over_short_entries_takes_as_long_as_one_over_long_ones() {
    let mut config = config();
    config.tuning.scrub_interval = INTERVAL;
    let mut node = Node::start_as(&config, Disk::default(), format());
    (0..300).for_each(|_| node.append_all(1, [1]));
    let sealed = node.storage.journal.sealed.iter().map(|sealed| sealed.sequence);
    let sealed: Vec<_> = sealed.collect();
    assert!(sealed.len() > 5);
    node.disk.requests.clear();
    scrub_for(&mut node, INTERVAL * 10);
    for segment in sealed {
        let is_slots = |request: &&DiskRequest| matches!(request, DiskRequest::Read { file: File::Segment(of), offset: 512, .. } if *of == segment);
        let times = node.disk.requests.iter().filter(is_slots).count();
        assert!(
            (9..=11).contains(&times),
            "segment {segment} was read {times} times in ten passes"
        );
    }
}

/// Entries come faster than they are read again: a pass ends where the log did when it began.
#[test]
fn a_log_that_grows_does_not_keep_a_pass_from_snapshots() {
    let mut node = node();
    let newest = snapshots(&node)[1];
    rot(&mut node, newest, 20_000);
    for _ in 0..60 {
        node.append_all(3, (0..40).map(|n| 900 + n));
        scrub_for(&mut node, INTERVAL / 20);
    }
    assert!(found(&node));
}

#[test]
fn any_bad_byte_of_the_newest_is_found_and_the_older_one_stands_for_it() {
    // In the header, at the head of the first block and in its middle, in the last block, in the
    // footer.
    for at in [3, 4096 + 9, 20_000, -3000, -500] {
        let mut node = node();
        let [older, newest] = snapshots(&node)[..] else { panic!("there are two") };
        let last = node.last;
        rot(&mut node, newest, at);
        scrub_for(&mut node, INTERVAL * 2);
        assert!(found(&node), "a bad byte at {at}");
        assert_eq!(snapshots(&node), [older]);
        assert_eq!((node.storage.spoilt_snapshots(), node.halted.take()), (1, None));
        assert!(node.storage.wants_fresh(last));
        assert!(node.disk.files.contains_key(&newest), "it stays until there is another");
        // Nothing was applied since: one of the same place takes its name.
        snap(&mut node);
        assert_eq!(snapshots(&node), [older, newest]);
        assert_eq!(node.storage.spoilt_snapshots(), 0);
        assert!(!node.storage.wants_fresh(last));
        node = node.restart();
        assert_eq!(node.storage.restored(), Some(last));
    }
}

#[test]
fn a_restart_before_another_one_is_taken_goes_back_to_the_older_one() {
    let mut node = node();
    let [older, newest] = snapshots(&node)[..] else { panic!("there are two") };
    rot(&mut node, newest, 20_000);
    scrub_for(&mut node, INTERVAL * 2);
    node = node.restart();
    let restored = node.storage.restored().expect("it is there");
    assert_eq!(File::Snapshot(restored), older);
    // Which it holds to be bad from then on, and asks for another one.
    assert_eq!(node.storage.spoilt_snapshots(), 1);
    assert!(!node.storage.wants_fresh(restored) && node.storage.wants_fresh(node.last));
    node.append_all(3, [100]);
    snap(&mut node);
    assert!(!node.disk.files.contains_key(&newest), "a newer one is durable");
    assert_eq!((snapshots(&node).len(), node.storage.spoilt_snapshots()), (2, 0));
}

#[test]
fn a_bad_older_one_goes_and_its_log_stays_until_there_is_another() {
    let mut node = node();
    let [older, newest] = snapshots(&node)[..] else { panic!("there are two") };
    let first = node.storage.first();
    rot(&mut node, older, 20_000);
    scrub_for(&mut node, INTERVAL * 2);
    node.settle();
    assert_eq!((snapshots(&node), node.storage.spoilt_snapshots()), (vec![newest], 0));
    assert!(!node.disk.files.contains_key(&older));
    assert!(node.storage.wants_fresh(node.last));
    node.storage.retain(node.last.index, None);
    node.settle();
    assert_eq!(node.storage.first(), first, "two snapshots, or the log");
    node.append_all(3, sizes());
    snap(&mut node);
    assert_eq!(snapshots(&node).len(), 2);
    assert!(node.storage.first() > first);
}

/// The disk did not take it, and the next pass finds nothing new.
#[test]
fn another_one_is_wanted_again_after_each_pass_until_it_is_there() {
    let mut node = node();
    let newest = snapshots(&node)[1];
    rot(&mut node, newest, 20_000);
    scrub_for(&mut node, INTERVAL * 2);
    assert!(found(&node) && node.storage.wants_fresh(node.last));
    let members = node.recovered().membership.clone();
    node.captured = 0;
    node.disk.fails = Some(|r| matches!(r, DiskRequest::Write { file: File::Part(..), .. }));
    assert!(node.storage.capture(node.last, members, Timestamp(9)));
    node.settle();
    assert!(node.storage.take_given_up().is_some());
    node.disk.fails = None;
    node.storage.snapshots.wants_fresh = false;
    let end = node.now.after(INTERVAL * 3);
    while let Some(at) = node.storage.deadline().filter(|at| *at <= end) {
        node.now = at;
        node.settle();
    }
    assert!(node.storage.wants_fresh(node.last));
}

/// What cannot be read is of no more use, and the node goes on.
#[test]
fn one_that_cannot_be_read_counts_no_more_than_a_bad_one() {
    let mut node = node();
    // The pass is over the log.
    while !matches!(
        node.disk.requests.last(),
        Some(DiskRequest::Read { file: File::Snapshot(_), .. })
    ) {
        node.now = node.storage.deadline().expect("it is read again");
        node.settle();
    }
    node.disk.read_fails = Some(0);
    scrub_for(&mut node, INTERVAL);
    assert!(found(&node));
    assert_eq!((node.storage.spoilt_snapshots(), node.halted.take()), (1, None));
}

/// A leader came upon a bad block of its snapshot when a peer was to be sent it, and ended; its next
/// start came upon it too, and none of them has served that peer.
#[test]
fn a_bad_block_that_a_peer_is_to_be_sent_is_another_snapshots_beginning() {
    let mut node = node();
    let [older, newest] = snapshots(&node)[..] else { panic!("there are two") };
    rot(&mut node, newest, 50_000);
    node.storage.serve(NodeId(2), 0);
    node.settle();
    let (_, piece) = node.storage.take_piece().expect("the first block is good");
    assert_eq!(File::Snapshot(piece.snapshot.at), newest);
    let mut at = piece.bytes.len() as u64;
    let piece = loop {
        node.storage.serve(NodeId(2), at);
        node.settle();
        let (_, piece) = node.storage.take_piece().expect("this one's, or another's");
        at += piece.bytes.len() as u64;
        if File::Snapshot(piece.snapshot.at) != newest {
            break piece;
        }
    };
    assert_eq!((File::Snapshot(piece.snapshot.at), piece.offset), (older, 0));
    assert!(piece.members.is_some() && found(&node));
    assert_eq!(node.halted, None);
}

/// The only one is bad: it counts for nothing but for where the log begins, until there is another.
#[test]
fn the_only_one_is_bad_and_the_next_takes_its_place() {
    let mut node = node();
    let [older, newest] = snapshots(&node)[..] else { panic!("there are two") };
    for file in [older, newest] {
        rot(&mut node, file, 20_000);
    }
    while !node.storage.snapshots.whole.is_empty() {
        node.now = node.storage.deadline().expect("it is read again");
        node.settle();
    }
    assert_eq!(node.storage.snapshot(), LogId::ZERO);
    assert_eq!(File::Snapshot(node.storage.covered()), newest);
    node.storage.serve(NodeId(2), 0);
    node.settle();
    assert!(node.storage.take_piece().is_none(), "a peer is sent no bad one");
    snap(&mut node);
    assert_eq!((snapshots(&node), node.storage.spoilt_snapshots()), (vec![newest], 0));
    assert!(!node.disk.files.contains_key(&older));
    let last = node.last;
    node = node.restart();
    assert_eq!(node.storage.restored(), Some(last));
}

/// Storm of one, seed 1700308: an entry and the footer of the snapshot above it went bad while the
/// node was down. Nothing else told that the entry had been durable, and it was cut as torn.
#[test]
fn the_name_of_a_bad_snapshot_tells_that_its_entries_were_durable() {
    // Its footer, its header, and all of both.
    for bad in [&[-500][..], &[3], &[3, -500]] {
        let mut node = Node::start(Disk::default(), format());
        node.append_all(1, sizes());
        snap(&mut node);
        // In one go: their slots do not tell of each other.
        (0..5).for_each(|_| node.append(1, 700));
        node.settle();
        snap(&mut node);
        let last = node.last;
        let frame = frame(&mut node, last.index);
        let mut disk = node.disk.clone();
        holes::harm(&mut disk, &frame);
        // With the snapshot it is known, and nobody waits for it.
        let sound = Node::start(disk, Start::Run);
        assert_eq!((sound.recovered().last, sound.storage.first_owed()), (last, None));
        let newest = snapshots(&node)[1];
        bad.iter().for_each(|&at| rot(&mut node, newest, at));
        holes::harm(&mut node.disk, &frame);
        let mut node = node.restart();
        assert_eq!((node.recovered().last, node.recovered().gate), (last, None), "{bad:?}");
        assert_eq!(node.storage.first_owed(), Some(last.index));
        holes::refill(&mut node, &frame);
        assert_eq!(node.storage.durable(), last.index);
        assert_eq!(snapshots(&node).len(), 1, "it counts for nothing else");
    }
}

fn frame(node: &mut Node, index: LogIndex) -> Bytes {
    node.storage.read(Reader::Machine, index, index, 1);
    node.settle();
    node.storage.take_read().expect("it is there").1.frames
}

/// None is taken for nothing, and the one that stands for others is owed until it is there.
#[test]
fn a_pass_wants_another_snapshot_only_if_one_is_bad() {
    let mut node = node();
    node.storage.snapshots.want_again(None);
    assert!(!node.storage.owes_fresh());
    let bad = node.storage.snapshots.whole.pop().expect("there are two");
    node.storage.snapshots.spoil(bad);
    assert!(node.storage.owes_fresh());
    // The disk did not take it.
    node.storage.snapshots.wants_fresh = false;
    node.storage.snapshots.want_again(None);
    assert!(node.storage.owes_fresh());
    snap(&mut node);
    assert!(!node.storage.owes_fresh());
}

/// What lies before it is gone from the log, whichever else is bad.
#[test]
fn the_newest_of_all_bad_snapshots_tells_what_is_covered() {
    let mut node = node();
    let newest = node.last;
    let Storage { snapshots, ops, .. } = &mut node.storage;
    snapshots.spoil_below(newest.index.next(), ops);
    assert_eq!((node.storage.spoilt_snapshots(), node.storage.snapshot()), (2, LogId::ZERO));
    assert_eq!(node.storage.covered(), newest);
}

/// In order, as much at a time as may be, and no byte twice.
#[test]
fn a_snapshot_is_read_in_pieces_from_its_header_to_its_footer() {
    let mut config = config();
    config.tuning.scrub_interval = INTERVAL;
    let mut node = Node::start_as(&config, Disk::default(), format());
    node.append_all(1, [40, 50]);
    node.storage.hint_committed(node.last.index);
    node.state_bytes = 600_000;
    snap(&mut node);
    let [only] = snapshots(&node)[..] else { panic!("there is one") };
    node.disk.requests.clear();
    scrub_for(&mut node, INTERVAL * 3);
    assert!(!found(&node));
    let read = node.disk.requests.iter().filter_map(|request| match request {
        DiskRequest::Read { file, offset, len } if *file == only => Some((*offset, *len)),
        _ => None,
    });
    let (mut reads, mut end) = (Vec::new(), 0);
    for (offset, len) in read {
        if offset == 0 && end > 0 {
            break;
        }
        assert_eq!(offset, end, "{reads:?}");
        end += u64::from(len);
        reads.push(len);
    }
    assert_eq!(end, node.disk.files[&only].len() as u64);
    assert!(reads.iter().all(|len| *len <= 256 << 10), "{reads:?}");
    assert_eq!(reads.len(), 5, "three pieces lie between the two: {reads:?}");
}

/// Its file is gone: it would be asked for again and again.
#[test]
fn a_snapshot_that_goes_while_it_is_read_is_read_no_more() {
    let mut node = node();
    let [older, _] = snapshots(&node)[..] else { panic!("there are two") };
    let is_of_older =
        |request: &DiskRequest| matches!(request, DiskRequest::Read { file, .. } if *file == older);
    while !node.disk.requests.last().is_some_and(is_of_older) {
        node.now = node.storage.deadline().expect("it is read again");
        node.settle();
    }
    for _ in 0..2 {
        node.append_all(3, [40]);
        snap(&mut node);
    }
    assert!(!node.disk.files.contains_key(&older));
    node.disk.requests.clear();
    scrub_for(&mut node, INTERVAL);
    assert!(!node.disk.requests.is_empty() && !node.disk.requests.iter().any(is_of_older));
}

/// A peer came upon it before, and nobody owes it: it is not waited for.
#[test]
fn what_a_restart_believed_is_read_but_for_what_is_known_to_be_bad() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40, 50, 60]);
    let last = node.last.index;
    let frame = frame(&mut node, last);
    holes::harm(&mut node.disk, &frame);
    node.storage.read(Reader::Peer(NodeId(2)), last, last, 1);
    node.settle();
    assert_eq!(node.storage.hole().map(|hole| hole.index), Some(last));
    node.storage.scrub.verify_behind(Some((LogIndex(1), last)));
    assert!(!node.storage.scrub.is_waiting());
    node.settle();
    assert!(node.storage.scrub.is_waiting() && node.storage.scrubbed_bytes() > 0);
}

/// Goes on until nothing is asked any more. Gives what people are told.
fn told(node: &mut Node) -> String {
    let mut told = String::new();
    loop {
        let out = node.ask();
        if out.is_empty() {
            return told;
        }
        for action in out {
            if let Action::Note(Note::Recovery(text)) = &action {
                told += text;
            }
            node.perform(action);
        }
    }
}

#[test]
fn people_are_told_what_is_bad_and_what_stands_for_it() {
    for (at, part) in [(3, "the header is bad"), (50_000, "block 1 is bad"), (-500, "the footer")] {
        let mut node = node();
        let [older, newest] = snapshots(&node)[..] else { panic!("there are two") };
        rot(&mut node, newest, at);
        let mut text = String::new();
        while text.is_empty() {
            node.now = node.storage.deadline().expect("it is read again");
            text = told(&mut node);
        }
        assert!(text.starts_with(&format!("{newest}: {part}")), "{text}");
        assert!(text.contains(&format!("{older} stands for it")), "{text}");
    }
    // An entry that nobody else has.
    for (index, then) in [(300, "stands for it"), (601, "a snapshot is taken in its place")] {
        let mut node = node();
        node.append_all(3, [40]);
        let index = LogIndex(index);
        let frame = frame(&mut node, index);
        holes::harm(&mut node.disk, &frame);
        node.storage.snapshots.has_peers = false;
        node.storage.read(Reader::Peer(NodeId(2)), index, index, 1);
        let text = told(&mut node);
        assert!(text.contains("is bad") && text.contains(then), "{text}");
    }
}
