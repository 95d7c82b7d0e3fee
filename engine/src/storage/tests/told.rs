//! What consensus tells its storage, and what it is told.

use super::{
    holes::{grown, harm},
    scrubs::snap,
    *,
};
use crate::{action::Outcome, marks::Mark};

/// Else the next start would take the last entries for torn where they are bad.
#[test]
fn a_node_that_stops_says_at_once_what_is_durable() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40, 50, 60]);
    assert!(!node.storage.is_finished(), "the hint is behind");
    node.storage.finish();
    node.settle();
    assert!(node.storage.is_finished());
    assert_eq!(node.storage.promises().durable().durable_hint, node.last.index);
    node.append(1, 70);
    assert!(!node.storage.is_finished(), "an entry is to be written");
    node.settle();
    assert!(node.storage.is_finished());
}

/// By a vote for each of two candidates both might lead.
#[test]
#[should_panic(expected = "a second vote in term 7")]
fn a_second_vote_in_a_term_is_not_taken() {
    let mut node = Node::start(Disk::default(), format());
    node.storage.promise(Term(7), Some(NodeId(3)));
    node.settle();
    node.storage.promise(Term(7), Some(NodeId(2)));
}

#[test]
fn a_node_that_joins_stays_of_the_epoch_of_its_cluster() {
    let mut node = Node::start(Disk::default(), Start::Join { cluster: ClusterId(5) });
    node.storage.set_cluster_epoch(7);
    node.append_all(1, sizes());
    node.storage.hint_committed(node.last.index);
    snap(&mut node);
    let node = node.restart();
    assert_eq!(node.recovered().identity.cluster_epoch, 7);
    assert_eq!(node.storage.snapshots.whole[0].header.identity.cluster_epoch, 7);
}

#[test]
fn one_made_from_a_backup_is_that_until_it_has_met_the_others_and_not_again() {
    let mut node = Node::start(Disk::default(), format());
    node.storage.promises_mut().want(|hard| hard.restored = true);
    node.settle();
    assert!(node.storage.promises().durable().restored);
    node.storage.set_formed();
    node.settle();
    assert!(!node.storage.promises().durable().restored);
    node.storage.set_formed();
    assert!(node.ask().is_empty(), "that was written");
}

/// What a snapshot holds nobody here waits for: a peer is told that it comes from somewhere else, and asks on. What
/// lies behind it is to come from a peer, and may be there when the next one asks.
#[test]
fn a_peer_that_lacks_what_is_bad_here_too_is_told_so_at_once() {
    let (mut node, _) = grown(sizes());
    node.storage.hint_committed(node.last.index);
    snap(&mut node);
    node.append_all(1, sizes());
    for (index, is_told) in [(8, true), (300, true), (308, false)] {
        let index = LogIndex(index);
        let reads = |node: &mut Node, reader| {
            node.storage.read(reader, index, index, 1);
            node.settle();
            let has_read = node.storage.has_read();
            let read = node.storage.take_read();
            assert_eq!(has_read, read.is_some());
            read
        };
        let (_, sound) = reads(&mut node, Reader::Peer(NodeId(2))).expect("it is there");
        harm(&mut node.disk, &sound.frames);
        assert!(reads(&mut node, Reader::Peer(NodeId(2))).is_none());
        assert_eq!(node.storage.journal.holes.first_from(index), Some(index));
        let told = reads(&mut node, Reader::Refill(NodeId(3)));
        assert_eq!(told.as_ref().map(|(_, read)| read.first), is_told.then_some(index));
        assert!(told.is_none_or(|(_, read)| read.frames.is_empty()));
    }
}

/// What members lack stays as long as there is room for more log.
#[test]
fn log_that_a_member_needs_is_let_go_for_room_alone() {
    for is_needed in [true, false] {
        let mut node = Node::start(Disk::default(), format());
        node.storage.retain(if is_needed { LogIndex(1) } else { LogIndex(600) }, None);
        for round in 1..=2 {
            node.append_all(round, sizes());
            node.storage.hint_committed(node.last.index);
            snap(&mut node);
        }
        assert_eq!(node.storage.first() == LogIndex(1), is_needed);
        node.disk.is_full = is_needed;
        for _ in 0..40 {
            node.append_all(2, [1500]);
        }
        assert!(node.storage.first() > LogIndex(1) && node.storage.durable() == node.last.index);
        assert_eq!(node.storage.marks().has(Mark::LogLetGoForRoom), is_needed);
    }
}

/// The deadline has passed, and a driver would have spun on it.
#[test]
fn a_snapshot_that_nobody_reads_is_given_back_at_its_deadline() {
    let (mut node, _) = grown([40, 50]);
    snap(&mut node);
    assert!(matches!(node.storage.pin(node.now), Outcome::Pinned(..)));
    node.settle();
    assert!(!node.storage.marks().has(Mark::PinExpired));
    node.now = node.storage.deadline().expect("it is given back");
    node.settle();
    assert!(node.storage.deadline().is_none_or(|next| next > node.now));
    assert!(node.storage.marks().has(Mark::PinExpired));
}

#[test]
fn a_restart_is_over_once_when_all_that_was_committed_is_applied() {
    let (mut node, _) = grown([40, 50, 60]);
    node.storage.hint_committed(LogIndex(3));
    node.storage.promise(Term(2), None);
    node.settle();
    let mut node = node.restart();
    assert_eq!(node.recovered().committed, LogIndex(3));
    let mut is_over = |applied| node.storage.catch_up(node.now, LogIndex(applied), LogId::ZERO);
    assert_eq!([0, 2, 3, 3].map(&mut is_over), [false, false, true, false]);
    assert_eq!(node.storage.recovery(LogIndex(3)).entries_done, 3);
}

#[test]
fn how_much_of_a_snapshot_the_machine_has_taken_in_is_told() {
    let (mut node, _) = grown([40, 50]);
    snap(&mut node);
    let total = node.captured as u64;
    let mut node = Node::start_behind(&config(), node.disk, Start::Run, 1);
    let report = node.storage.recovery(LogIndex(0));
    assert_eq!(report.bytes_total, total);
    assert!((1..total).contains(&report.bytes_done), "{} of {total}", report.bytes_done);
    node.answer(0);
    node.settle();
    node.answer(0);
    assert_eq!(node.storage.restored(), Some(node.last));
}

/// It would have to wait for an entry that is not there.
#[test]
fn no_snapshot_is_taken_at_or_behind_what_is_owed() {
    let (node, frames) = grown([40, 50, 60, 700, 80]);
    let mut disk = node.disk;
    [3, 4].into_iter().for_each(|n| harm(&mut disk, &frames[n]));
    let node = Node::start(disk, Start::Run);
    assert_eq!(node.storage.first_owed(), Some(LogIndex(4)));
    let can = |index| node.storage.can_capture(LogId::new(Term(1), LogIndex(index)));
    assert_eq!([2, 3, 4, 5].map(can), [true, true, false, false]);
}

/// A peer would be asked for it as long as the node runs.
#[test]
fn what_is_bad_is_forgotten_when_the_log_begins_behind_it() {
    let (mut node, frames) = grown(sizes());
    harm(&mut node.disk, &frames[7]);
    node.storage.read(Reader::Peer(NodeId(2)), LogIndex(8), LogIndex(8), 1);
    node.settle();
    assert_eq!(node.storage.hole().map(|at| at.index), Some(LogIndex(8)));
    for _ in 0..2 {
        node.append_all(1, sizes());
        node.storage.hint_committed(node.last.index);
        node.storage.retain(node.last.index, None);
        snap(&mut node);
    }
    assert!(node.storage.first() > LogIndex(8));
    assert_eq!((node.storage.hole(), node.storage.gives_from()), (None, node.storage.first()));
}
