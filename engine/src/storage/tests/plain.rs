//! What ends plain turns of a storage that only writes, each by itself.
//!
//! Most of it is hidden from whoever looks at what is asked of the disk: what a storage waits for comes
//! with an event, and nearly all of them end plain turns as well.

use super::*;
use crate::{
    action::Outcome,
    disk::segment::Slot,
    file::Extent,
    storage::{lost::Lost, roll::Roll},
    types::SnapshotId,
};
use std::time::Duration;

/// A node that has two snapshots and entries behind them, and is to read all that again some time.
fn node() -> Node {
    let mut config = config();
    config.tuning.scrub_interval = Duration::from_secs(1000);
    let mut node = Node::start_as(&config, Disk::default(), format());
    for term in 1..=2 {
        node.append_all(term, [1000; 3]);
        node.storage.hint_committed(node.last.index);
        scrubs::snap(&mut node);
    }
    node.append_all(2, [1000; 60]);
    node.now = node.now.after(Duration::from_secs(1));
    node.settle();
    node
}

/// Goes on until a segment that is not needed any more is on its way out.
fn remove_segment(node: &mut Node) {
    node.storage.retain(node.last.index, None);
    node.storage.snapshots.whole[0].header.at = node.last;
    let is_going = |action: &Action| {
        let Action::Disk { request, .. } = action else { return false };
        match request {
            DiskRequest::Remove { file } => matches!(file, File::Segment(_)),
            DiskRequest::Rename { from, .. } => matches!(from, File::Segment(_)),
            _ => false,
        }
    };
    loop {
        let asked = node.ask();
        if asked.iter().any(is_going) {
            return;
        }
        assert!(!asked.is_empty(), "a segment is not needed any more");
        asked.into_iter().for_each(|action| node.perform(action));
    }
}

fn is_plain(disturb: impl FnOnce(&mut Node)) -> bool {
    let mut node = node();
    disturb(&mut node);
    node.storage.look_around();
    node.storage.is_plain()
}

#[test]
fn a_storage_that_does_more_than_write_has_no_plain_turns() {
    type Disturbance = (&'static str, fn(&mut Node));
    assert!(is_plain(|_| {}));
    let disturbances: [Disturbance; 33] = [
        ("it begins", |node| {
            let restart = Restart::new(config(), 42, Start::Run);
            node.storage.restart = Some(Box::new(restart));
        }),
        ("it wants a vote on disk", |node| node.storage.promise(Term(9), None)),
        ("it wants members on disk, which wait", |node| {
            let members = node.recovered().membership.clone();
            node.storage.set_membership(members.clone(), members);
        }),
        ("its segment ends", |node| node.storage.journal.roll = Roll::Ending),
        ("it has no segment", |node| node.storage.journal.active = None),
        ("the next one may be missing", |node| node.storage.journal.spares.forget_stock()),
        ("its log is cut", |node| {
            node.truncate(LogId::new(Term(2), node.last.index.previous()));
        }),
        ("its log ends", |node| node.storage.journal.end_before(node.last.index)),
        ("it has lost an entry", |node| {
            let active = node.storage.journal.active.as_ref().expect("it takes entries");
            let slot: Slot = *active.slots.last().expect("it has some");
            let (sequence, layout) = (active.sequence, active.layout);
            node.storage.journal.holes.add(slot, sequence, layout, false);
        }),
        ("it makes slots anew", |node| {
            let extent = Extent::new(0, Bytes::new());
            node.storage.journal.holes.mend_slots(1, vec![extent]);
        }),
        ("it has lost an entry without a trace", |node| {
            let lost = Lost { file: File::Segment(1), offset: 0, expected: String::new() };
            node.storage.journal.lost = Some(lost);
        }),
        ("its log is not to be gone on with", |node| {
            node.storage.journal.fault = Some(Halt::NotFormatted);
        }),
        ("it says its last words", |node| node.storage.journal.wind_up()),
        ("it takes a snapshot", |node| {
            let members = node.recovered().membership.clone();
            assert!(node.storage.capture(node.last, members, Timestamp(9)));
        }),
        ("it is to take another snapshot", |node| node.storage.snapshots.wants_fresh = true),
        ("its state is lost", |node| node.storage.snapshots.is_lost = true),
        ("a snapshot is not to be gone on with", |node| {
            node.storage.snapshots.fault = Some(Halt::NotFormatted);
        }),
        ("a snapshot is kept for somebody", |node| {
            assert!(matches!(node.storage.pin(node.now), Outcome::Pinned(..)));
        }),
        ("a peer is sent a snapshot", |node| node.storage.serve(NodeId(2), 0)),
        ("a snapshot takes the place of one that was lost", |node| {
            let Storage { installing, snapshots, ops, .. } = &mut node.storage;
            installing.begin_join(snapshots, ops);
        }),
        ("a snapshot is to be named", |node| {
            let mut header = node.storage.snapshots.whole[1].header.clone();
            header.id = SnapshotId(7);
            node.storage.installing.is_to_record(&header);
        }),
        ("a bad snapshot is to go", |node| {
            let bad = node.storage.snapshots.whole.remove(0);
            node.storage.snapshots.spoilt.push(bad);
        }),
        ("a bad snapshot beside two good ones is to go", |node| {
            let bad = node.storage.snapshots.whole[0].clone();
            node.storage.snapshots.spoilt.push(bad);
        }),
        ("its log begins with what is lost", |node| {
            node.storage.compaction.begin_behind(node.storage.first());
        }),
        ("it does so, and there is one snapshot", |node| {
            node.storage.snapshots.whole.remove(0);
            node.storage.compaction.begin_behind(node.storage.first());
        }),
        ("a segment is not needed any more", |node| {
            node.storage.snapshots.whole[0].header.at = node.last;
        }),
        ("a segment is not needed any more that ends where a snapshot does", |node| {
            node.storage.snapshots.whole[0].header.at = node.storage.journal.sealed[0].last;
        }),
        ("it removes a segment", remove_segment),
        ("it does so, and there is one snapshot", |node| {
            remove_segment(node);
            node.storage.snapshots.whole.remove(0);
        }),
        ("it reads a snapshot again", |node| {
            let is_snapshots = |action: &Action| {
                matches!(
                    action,
                    Action::Disk { request: DiskRequest::Read { file: File::Snapshot(_), .. }, .. }
                )
            };
            for _ in 0..100 {
                node.now = node.storage.deadline().expect("it reads on");
                let asked = node.ask();
                if asked.iter().any(is_snapshots) {
                    return;
                }
                asked.into_iter().for_each(|action| node.perform(action));
                node.settle();
            }
            panic!("no snapshot is read");
        }),
        ("it reads what it believed", |node| {
            node.storage.scrub.verify_behind(Some((LogIndex(7), LogIndex(8))));
        }),
        ("it does not know when to read all again", |node| {
            node.storage.scrub.tune(Duration::from_secs(1));
        }),
        ("somebody reads", |node| {
            node.storage.read(Reader::Machine, LogIndex(7), LogIndex(8), 10_000);
        }),
    ];
    for (what, disturb) in disturbances {
        assert!(!is_plain(disturb), "{what}");
    }
    assert!(!is_plain(|node| node.storage.fault = Some(Halt::NotFormatted)), "it ends");
}
