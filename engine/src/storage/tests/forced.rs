//! What a recovery by force takes for the log, and what of it is written again.

use super::{
    holes::{harm, harm_slots},
    joins::stage,
    scrubs::{rot, snap, snapshots},
    *,
};
use crate::{
    disk::hard_state::{HardState, OFFSETS},
    report::Forced,
    storage::journal::Sealed,
};

const FORCE: Start = Start::ForceSoleVoter { acknowledged_loss: true };

pub(super) fn forced(disk: Disk) -> (Disk, Forced) {
    let node = Node::start(disk, FORCE);
    match node.halted {
        Some(Halt::Forced(forced)) => (node.disk, *forced),
        other => panic!("{other:?}"),
    }
}

/// A node with as much log again behind its snapshot, and where that is.
fn beyond_a_snapshot() -> (Node, LogIndex) {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    node.storage.hint_committed(node.last.index);
    snap(&mut node);
    let covered = node.last.index;
    node.append_all(1, sizes());
    (node, covered)
}

/// What reads good may lie in a cache alone, and nobody else has it any more.
#[test]
fn what_only_the_log_holds_is_written_again_and_synced_before_the_node_is_alone() {
    let (mut node, covered) = beyond_a_snapshot();
    let journal = &node.storage.journal;
    let sealed = journal.sealed.iter().map(|s| (s.sequence, s.last.index > covered));
    let active = journal.active.as_ref().map(|active| (active.sequence, true));
    let segments: Vec<_> = sealed.chain(active).collect();
    assert!(segments.iter().filter(|(_, is_behind)| *is_behind).count() > 2);
    node.disk.requests.clear();
    let (disk, _) = forced(node.disk);
    let is_update =
        |request: &DiskRequest| matches!(request, DiskRequest::Write { file: File::HardState, .. });
    let update = disk.requests.iter().position(is_update).expect("it becomes the only voter");
    for (sequence, is_behind) in segments {
        let segment = File::Segment(sequence);
        let before = &disk.requests[..update];
        let is_write = |request: &DiskRequest| matches!(request, DiskRequest::Write { file, .. } if *file == segment);
        let is_sync = |request: &DiskRequest| matches!(request, DiskRequest::Sync { file } if *file == segment);
        let written = before.iter().rposition(is_write);
        assert_eq!(written.is_some(), is_behind, "{segment}");
        assert_eq!(before.iter().rposition(is_sync) > written, is_behind, "{segment}");
    }
}

/// Who ended before that would be the old node by the copy that is left, and the new one by the other.
#[test]
fn a_node_that_is_alone_looks_again_when_both_copies_say_so() {
    let (node, _) = beyond_a_snapshot();
    let (disk, _) = forced(Disk { requests: Vec::new(), ..node.disk });
    let is_list = |request: &DiskRequest| matches!(request, DiskRequest::List);
    let offset = |request: &DiskRequest| match request {
        DiskRequest::Write { file: File::HardState, at, .. } => Some(at.offset),
        _ => None,
    };
    let begin = disk.requests.iter().position(|request| offset(request).is_some());
    let update = &disk.requests[begin.expect("it becomes the only voter")..];
    let end = update.iter().position(is_list).expect("it looks again");
    let written: Vec<_> = update[..end].iter().filter_map(offset).collect();
    let of_copy = |copy: usize| written.iter().any(|at| OFFSETS[copy].contains(at));
    assert!(written.len() == 2 && of_copy(0) && of_copy(1), "{written:?}");
}

/// What the life before wrote there is dead by its epoch, whatever a crash leaves of it.
#[test]
fn a_cut_by_force_is_of_an_epoch_that_nothing_was_written_in() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40, 50, 60, 70]);
    node.storage.read(Reader::Machine, LogIndex(2), LogIndex(2), 1);
    node.settle();
    let (_, read) = node.storage.take_read().expect("it is there");
    while let Some(at) = node.storage.deadline() {
        node.now = at;
        node.settle();
    }
    let epoch = node.storage.write_epoch();
    harm(&mut node.disk, &read.frames);
    node.disk.requests.clear();
    let (done, _) = forced(node.disk);
    let encoded = done.requests.iter().find_map(|request| match request {
        DiskRequest::Write { file: File::HardState, at, .. } => Some(at.whole()),
        _ => None,
    });
    let encoded = encoded.expect("it becomes the only voter");
    let hard = HardState::decode(&encoded, GroupId(1)).expect("it is good");
    assert_eq!((hard.cutting, hard.cut.from), (true, LogIndex(2)));
    assert!(hard.cut.epoch > epoch && hard.write_epoch >= hard.cut.epoch, "{:?}", hard.cut);
}

/// What is to be given up was overwritten with zeros where it shared a block with what is kept, and its slots were: a
/// crash before the hard state said so left a node whose log nobody could know, and all of it went.
#[test]
fn what_is_written_again_is_what_was_read_also_where_it_is_to_be_given_up() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40, 50, 60, 70]);
    node.storage.read(Reader::Machine, LogIndex(2), LogIndex(2), 1);
    node.settle();
    let (_, read) = node.storage.take_read().expect("it is there");
    harm(&mut node.disk, &read.frames);
    node.disk.requests.clear();
    let before = node.disk.clone();
    let (done, told) = forced(node.disk);
    assert_eq!(told.last.index, LogIndex(1), "what is lost ends the log");
    let is_update =
        |request: &DiskRequest| matches!(request, DiskRequest::Write { file: File::HardState, .. });
    let update = done.requests.iter().position(is_update).expect("it becomes the only voter");
    let mut disk = before.clone();
    let mut written = 0;
    for request in &done.requests[..update] {
        written += u32::from(matches!(request, DiskRequest::Write { .. }));
        let _ = disk.perform(request.clone());
    }
    assert!(written > 0);
    assert!(disk.files == before.files, "a crash leaves what there was");
}

/// Once all is written, neither this entry nor its slot is left.
fn lose(node: &mut Node, index: u64) {
    node.storage.read(Reader::Peer(NodeId(2)), LogIndex(index), LogIndex(index), 1);
    node.settle();
    let frame = node.storage.take_read().expect("it is there").1.frames;
    while let Some(at) = node.storage.deadline() {
        node.now = at;
        node.settle();
    }
    harm_slots(&mut node.disk, &frame, 0);
    harm(&mut node.disk, &frame);
}

/// Neither the entry nor its slot is left: it is cut off from there, unless the snapshot holds what it did.
#[test]
fn a_log_ends_before_what_is_lost_or_behind_the_snapshot_that_holds_it() {
    for (lost, last) in [(4, 9), (9, 9), (10, 9), (11, 10)] {
        let mut node = Node::start(Disk::default(), format());
        node.append_all(1, [70; 9]);
        node.storage.hint_committed(node.last.index);
        snap(&mut node);
        node.append_all(1, [70; 3]);
        lose(&mut node, lost);
        let (disk, forced) = forced(node.disk);
        assert_eq!(forced.last.index, LogIndex(last), "{lost} is lost");
        let node = Node::start(disk, Start::Run);
        assert_eq!((&node.halted, node.recovered().last), (&None, forced.last), "{lost} is lost");
        assert_eq!(node.storage.restored().map(|at| at.index), Some(LogIndex(9)));
    }
}

/// Who is being removed is a member until that is committed.
#[test]
fn one_whose_removal_is_committed_does_not_become_the_only_voter() {
    let member = |id| Member { id: NodeId(id), incarnation: 0, address: Bytes::new() };
    for is_committed in [false, true] {
        let mut node = Node::start(Disk::default(), format());
        node.append_all(1, [40, 50]);
        let previous = node.recovered().membership.clone();
        let at = LogId::new(Term(1), LogIndex(3));
        let newest = Arc::new(Membership { at, ..Membership::of([2, 3].map(member)) });
        node.storage.set_membership(newest, previous);
        node.append_all(1, [60]);
        if is_committed {
            node.storage.hint_committed(at.index);
        }
        while let Some(at) = node.storage.deadline() {
            node.now = at;
            node.settle();
        }
        let halted = Node::start(node.disk, FORCE).halted;
        let is_refused = matches!(halted, Some(Halt::Refused { row: "no-member", .. }));
        assert_eq!(is_refused, is_committed, "{halted:?}");
        assert!(is_refused || matches!(halted, Some(Halt::Forced(_))), "{halted:?}");
    }
}

/// What is bad at or below the snapshot is nobody's loss, and no reason to read no further.
#[test]
fn a_log_ends_before_the_first_bad_entry_behind_the_snapshot() {
    let (mut node, covered) = beyond_a_snapshot();
    while let Some(at) = node.storage.deadline() {
        node.now = at;
        node.settle();
    }
    let mut sealed = node.storage.journal.sealed.iter();
    let is_behind = |sealed: &&Sealed| sealed.last.index > covered;
    let both = sealed.find(is_behind).expect("it holds entries before and behind the snapshot");
    let later = sealed.next().expect("it is full");
    assert!(both.first < covered && later.first > covered);
    let (before, behind) = (both.first, later.last.index.previous());
    let mut frame = |index| {
        node.storage.read(Reader::Peer(NodeId(2)), index, index, 1);
        node.settle();
        node.storage.take_read().expect("it is there").1.frames
    };
    let [first, at, second] = [before, covered, behind].map(&mut frame);
    for (bad, last) in [
        (&[&first, &at][..], node.last.index),
        (&[&first, &second], behind.previous()),
        (&[&at, &second], behind.previous()),
    ] {
        let mut disk = node.disk.clone();
        bad.iter().for_each(|frame| harm(&mut disk, frame));
        let (disk, forced) = forced(disk);
        assert_eq!(forced.last.index, last);
        let node = Node::start(disk, Start::Run);
        assert_eq!((&node.halted, node.recovered().last.index), (&None, last));
    }
}

/// Whether more of a full segment was read than its end.
fn is_read(disk: &Disk, sealed: &Sealed) -> bool {
    disk.requests.iter().any(|request| {
        let of = File::Segment(sealed.sequence);
        matches!(request, DiskRequest::Read { file, offset, .. }
            if *file == of && *offset < sealed.layout.data_end())
    })
}

/// What the snapshot holds nobody misses, and what lies behind something bad goes with that.
#[test]
fn full_segments_are_read_from_the_snapshot_on_as_far_as_they_are_good() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    node.append_all(1, sizes());
    node.storage.hint_committed(node.last.index);
    let sealed: Vec<_> = node.storage.journal.sealed.iter().copied().collect();
    assert!(sealed.len() > 7);
    let members = node.recovered().membership.clone();
    assert!(node.storage.capture(sealed[2].last, members, Timestamp(9)));
    node.settle();
    let bad = sealed[5].first;
    node.storage.read(Reader::Peer(NodeId(2)), bad, bad, 1);
    node.settle();
    let frame = node.storage.take_read().expect("it is there").1.frames;
    for (is_bad, last) in [(false, node.last.index), (true, bad.previous())] {
        let mut disk = Disk { requests: Vec::new(), ..node.disk.clone() };
        if is_bad {
            harm(&mut disk, &frame);
        }
        let (disk, forced) = forced(disk);
        assert_eq!(forced.last.index, last);
        for (n, sealed) in sealed.iter().enumerate() {
            let is_wanted = n > 2 && (n <= 5 || !is_bad);
            assert_eq!(is_read(&disk, sealed), is_wanted, "{n} of a log that is bad: {is_bad}");
        }
    }
}

/// It alone stands for what the log has lost: if it is bad, too, nothing is left. Where the log leads on from the one
/// before it is not asked, and a bad block of it refuses nobody.
#[test]
fn a_snapshot_is_read_before_force_only_if_the_log_does_not_reach_it() {
    let mut node = Node::start(Disk::default(), format());
    for _ in 0..2 {
        node.append_all(1, [70; 9]);
        node.storage.hint_committed(node.last.index);
        snap(&mut node);
    }
    let newest = snapshots(&node)[1];
    let force = |mut node: Node| {
        rot(&mut node, newest, 20_000);
        Node::start(node.disk, FORCE).halted
    };
    let lost = |mut node: Node, index: u64| {
        lose(&mut node, index);
        node
    };
    let begin = |behind: usize| {
        let mut node = Node::start(node.disk.clone(), Start::Run);
        node.append_all(1, std::iter::repeat_n(70, behind));
        node
    };
    for (node, last) in [(begin(0), 18), (begin(3), 21), (lost(begin(3), 20), 19)] {
        match force(node) {
            Some(Halt::Forced(forced)) => assert_eq!(forced.last.index, LogIndex(last)),
            other => panic!("up to {last}: {other:?}"),
        }
    }
    for index in [12, 18] {
        let halted = force(lost(begin(0), index));
        let is_refused = matches!(&halted, Some(Halt::Refused { row: "rests-on-bad", file, .. }) if *file == newest);
        assert!(is_refused, "{index} is lost: {halted:?}");
    }
}

/// A crash came before the hard state named it: the log begins behind it.
#[test]
fn what_a_snapshot_from_a_peer_holds_is_known_to_have_been_durable() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [70; 9]);
    let at = LogId::new(Term(1), LogIndex(1000));
    let mut disk = node.disk.clone();
    stage(&mut node, at, 90_000);
    node.storage.install(at);
    node.settle();
    let installed = File::Snapshot(at);
    disk.files.insert(installed, node.disk.files[&installed].clone());
    let (_, forced) = forced(disk);
    assert_eq!((forced.snapshot, forced.last, forced.known), (at, at, at.index));
}
