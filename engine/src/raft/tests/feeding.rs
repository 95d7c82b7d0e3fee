//! What the machine is given, and when it is given nothing.

use super::*;
use crate::types::SnapshotName;

/// What it would be given follows a state that is about to be another.
#[test]
fn the_machine_is_given_nothing_while_a_snapshot_is_on_its_way_into_it() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 1, &["a"]);
    cluster.run();
    let mut follower = cluster.at(2).raft.clone();
    let (given, last) = (follower.log.marks.applying(), follower.log.last());
    assert!(given < last.index);
    follower.log.marks.advance_committed(last.index);
    let gives = |raft: &Raft| {
        let mut raft = raft.clone();
        raft.apply();
        raft.log.marks.applying() > given
    };
    assert!(gives(&follower));
    // Into the machine, in place of what it had.
    let mut replaced = follower.clone();
    replaced.restore(None);
    assert!(!gives(&replaced));
    replaced.restore(Some(LogId { index: given, ..last }));
    assert!(gives(&replaced));
    // In the place of the log, or beside it.
    for at in [id(9, last.index.0 + 1), last] {
        let mut raft = follower.clone();
        raft.become_follower(Term(9), None);
        raft.facts.is_state_lost = true;
        let snapshot = SnapshotName { at, bytes: 1, ..SnapshotName::default() };
        raft.facts.receiving = Some(Receiving { snapshot, next: 1, stored: 1, is_whole: true });
        raft.stray();
        raft.install();
        assert_eq!((raft.receiver.taking.is_some(), raft.is_joining()), (at != last, at == last));
        assert!(!gives(&raft), "{at}");
    }
}

/// The last of what fits is given as well.
#[test]
fn the_machine_is_given_what_it_may_hold_to_the_byte() {
    let mut cluster = Cluster::tuned(vec![disk_with(1, &[], 1)], Tuning::default());
    cluster.elect(1);
    cluster.at(1).prompt = false;
    let given = cluster.at(1).raft.log.marks.applying();
    // Of one length, each an entry of its own.
    for request in 1..=3 {
        cluster.propose(1, request, &["0123456789"]);
        cluster.at(1).raft.propose();
    }
    let raft = &mut cluster.at(1).raft;
    let last = raft.log.last().index;
    assert_eq!(last.0, given.0 + 3);
    raft.log.advance_durable(last);
    raft.log.marks.advance_committed(last);
    let bytes = raft.log.slice(last, last, usize::MAX).expect("it is there").frames.len() as u64;
    for (room, more) in [(2 * bytes - 1, 1), (2 * bytes, 2), (2 * bytes + 1, 2)] {
        let mut raft = raft.clone();
        raft.tuning.apply_bytes_max = room;
        raft.apply();
        assert_eq!(raft.log.marks.applying().0, given.0 + more, "{room} of {bytes} each");
    }
}
