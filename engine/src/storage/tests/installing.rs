//! An install: what of the old node stays until the new one is whole, and what is no part of it.

use super::{
    cuts::changed,
    joins::{installable, stage},
    scrubs::snap,
    *,
};
use crate::types::{Piece, SnapshotId, SnapshotName};

/// Elsewhere the old state went first, and a crash in between left a node without either. The log and the snapshots
/// of before go when both copies of the hard state say that there is another log.
#[test]
fn nothing_of_the_old_node_goes_before_the_hard_state_names_the_new_one() {
    let (mut node, at) = installable();
    snap(&mut node);
    let is_old = |request: &DiskRequest| {
        matches!(request, DiskRequest::Remove { file: File::Segment(_) | File::Snapshot(_) })
    };
    node.disk.requests.clear();
    stage(&mut node, at, 90_000);
    assert!(!node.disk.requests.iter().any(is_old), "it is not in its place yet");
    node.storage.install(at);
    node.settle();
    let asked = std::mem::take(&mut node.disk.requests);
    let says =
        |request: &DiskRequest| matches!(request, DiskRequest::Write { file: File::HardState, .. });
    let said = (0..asked.len()).filter(|&n| says(&asked[n])).nth(1).expect("both copies");
    let gone: Vec<_> = (0..asked.len()).filter(|&n| is_old(&asked[n])).collect();
    assert!(gone.len() > 2, "a log of several segments and a snapshot: {gone:?}");
    assert!(gone.iter().all(|&n| n > said), "{gone:?} before {said}");
}

/// Another leader has another snapshot of the same entry, and sends what it believes to come next. Each piece is
/// sound: together they are nobody's state.
#[test]
fn pieces_of_two_snapshots_are_not_put_together() {
    let (mut node, at) = installable();
    let members = Some(node.recovered().membership.clone());
    let piece = |id, offset, len| {
        let snapshot = SnapshotName { at, id: SnapshotId(id), bytes: 200_000, digest: 0 };
        let bytes = Bytes::from(vec![3; len]);
        Piece { snapshot, offset, time: Timestamp(9), members: members.clone(), bytes }
    };
    let receives = |node: &Node| {
        let receiving = node.storage.receiving();
        receiving.map(|receiving| (receiving.snapshot.id.0, receiving.next))
    };
    node.storage.stage(&piece(77, 0, 90_000));
    assert_eq!(receives(&node), Some((77, 90_000)));
    node.storage.stage(&piece(78, 90_000, 10));
    assert_eq!(receives(&node), None, "what there is of the other is given up");
    node.settle();
    node.storage.stage(&piece(78, 0, 90_000));
    assert_eq!(receives(&node), Some((78, 90_000)));
}

/// A snapshot of entry 5 joins a log whose entry 7 has changed the members since: who is asked for a vote is not who
/// was when it was taken, in this life or the next.
#[test]
fn members_behind_a_snapshot_that_joins_stay_in_force() {
    let (mut node, [newest, previous]) = changed();
    let at = LogId::new(Term(1), LogIndex(5));
    stage(&mut node, at, 90_000);
    node.storage.join(at);
    node.settle();
    assert_eq!(node.storage.promises().durable().install.at, at, "it is named");
    let hard = node.storage.promises().durable();
    assert_eq!((&hard.newest, &hard.previous), (&newest, &previous));
    assert_eq!(node.restart().recovered().membership, newest);
}
