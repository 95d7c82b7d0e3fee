//! What a restart reads of each file before all else.

use super::*;
use crate::{
    disk::hard_state::{BLOCK_BYTES, OFFSETS},
    marks::Mark,
    types::SnapshotId,
};

/// It is fetched from its beginning then.
#[test]
fn what_came_of_a_peers_snapshot_and_cannot_be_read_is_no_reason_to_end() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40, 50, 60]);
    let (mut disk, last) = (node.disk, node.last);
    let part = File::Part(LogId::new(Term(1), LogIndex(900)), SnapshotId(7));
    disk.files.insert(part, vec![1; 100_000]);
    disk.unreadable = Some((part, 0));
    let node = Node::start(disk, Start::Run);
    assert_eq!((&node.halted, node.recovered().last), (&None, last));
}

#[test]
fn what_became_of_the_copies_of_the_hard_state_is_marked() {
    let mut node = Node::start(Disk::default(), format());
    node.settle();
    let before = node.disk.files[&File::HardState].clone();
    node.storage.promise(Term(7), Some(NodeId(3)));
    node.settle();
    let after = node.disk.files[&File::HardState].clone();
    let blocks = |copy: usize| OFFSETS[copy].map(|at| at as usize..at as usize + BLOCK_BYTES);
    let lost = |copies: &[usize]| {
        let mut bytes = after.clone();
        copies.iter().flat_map(|&copy| blocks(copy)).for_each(|block| bytes[block].fill(0xa5));
        bytes
    };
    // A crash came between the one and the other.
    let mut older = after.clone();
    blocks(1).into_iter().for_each(|block| older[block.clone()].copy_from_slice(&before[block]));
    for (bytes, is_lost, differs) in [
        (after.clone(), false, false),
        (older, false, true),
        (lost(&[0]), true, false),
        (lost(&[1]), true, false),
        // Of that there is more to say.
        (lost(&[0, 1]), false, false),
    ] {
        let mut disk = node.disk.clone();
        disk.files.insert(File::HardState, bytes);
        let node = Node::start(disk, Start::Run);
        let marks = [Mark::HardStateCopyLost, Mark::HardStateCopiesDiffer];
        let marks = marks.map(|mark| node.storage.marks().has(mark));
        assert_eq!(marks, [is_lost, differs], "{:?}", node.halted);
    }
}

/// Each stage says what it asks for, and nobody is told of more than that.
#[test]
fn how_much_of_what_it_reads_a_restart_has_is_told() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    let mut restarted = Node::start(Disk::default(), Start::Run);
    (restarted.disk, restarted.halted) = (node.disk, None);
    restarted.storage = Storage::new(&config(), 42);
    restarted.storage.on_start(Start::Run);
    let mut told = Vec::new();
    loop {
        let mut out = Vec::new();
        let recovered = restarted.storage.recover(restarted.now, &mut out);
        let report = restarted.storage.recovery(LogIndex(0));
        told.push((report.bytes_done, report.bytes_total));
        if recovered.is_some() || out.is_empty() {
            break;
        }
        out.into_iter().for_each(|action| restarted.perform(action));
    }
    assert!(told.iter().all(|(done, total)| done <= total), "{told:?}");
    assert!(told.iter().any(|(done, _)| *done > 0), "{told:?}");
}

/// What a machine of its own was given was acknowledged by a log that is gone, and no peer can tell how far that was.
#[test]
fn a_machine_of_its_own_does_not_go_on_behind_a_log_that_is_lost() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    node.storage.hint_committed(node.last.index);
    scrubs::snap(&mut node);
    node.append_all(2, [40, 50]);
    let machine = LogId::new(Term(1), LogIndex(300));
    let mut disk = node.disk;
    let last = *disk.files.keys().rfind(|file| matches!(file, File::Segment(_))).expect("a log");
    disk.files.remove(&last);
    let behind_a_gate = Node::start(disk.clone(), Start::Run);
    assert!(behind_a_gate.recovered().gate.is_some());
    let node = Node::start(disk, Start::Resume { machine });
    assert!(matches!(node.halted, Some(Halt::Refused { .. })), "{:?}", node.halted);
}

/// Whoever leads has to know whether it may be asked still.
#[test]
fn a_node_without_room_says_whether_the_disk_is_asked_for_some() {
    let mut node = Node::start(Disk::default(), format());
    node.disk.is_full = true;
    while node.storage.durable() == node.last.index {
        node.append_all(1, [700]);
    }
    assert!(node.storage.is_full() && !node.storage.seeks_room());
    let mut sought = 0;
    for _ in 0..20 {
        node.now = node.storage.deadline().expect("it asks again");
        let asked = node.ask();
        sought += u32::from(node.storage.seeks_room());
        asked.into_iter().for_each(|action| node.perform(action));
        node.settle();
        assert!(node.storage.is_full() && !node.storage.seeks_room());
    }
    assert!(sought > 0);
}
