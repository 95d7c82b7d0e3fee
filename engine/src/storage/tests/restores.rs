//! What the machine begins with when a snapshot turns out bad while it is taken in.

use super::{
    scrubs::{rot, snap, snapshots},
    *,
};
const BLOCK: i64 = 512 * 64;

fn format(voters: u64) -> Start {
    let member = |id| Member { id: NodeId(id), incarnation: 0, address: Bytes::new() };
    let members = Arc::new(Membership::of((1..=voters).map(member)));
    Start::Format { cluster: ClusterId(5), members }
}

/// Of so many voters, with so many snapshots, each of several blocks, and some log behind them.
fn node(voters: u64, rounds: u64) -> Node {
    let mut node = Node::start(Disk::default(), format(voters));
    node.state_bytes = 400_000;
    for round in 1..=rounds {
        node.append_all(round, sizes());
        node.storage.hint_committed(node.last.index);
        node.storage.retain(node.last.index, None);
        snap(&mut node);
    }
    node.append_all(rounds + 1, [40, 50, 60]);
    node.storage.hint_committed(node.last.index);
    node
}

fn two(node: &Node) -> [File; 2] {
    snapshots(node).try_into().expect("there are two")
}

/// The tenth block of the newest was bad, and three before it were on their way into the machine. When
/// it answered them, the older one had begun: it was credited with them, and no further block was
/// asked for.
#[test]
fn what_the_machine_answers_late_is_not_the_older_snapshots() {
    for behind in [0, 3, 6] {
        let mut node = node(3, 2);
        let ([older, newest], whole) = (two(&node), node.captured);
        rot(&mut node, newest, 9 * BLOCK + 2000);
        let mut node = Node::start_behind(&config(), node.disk, Start::Run, behind);
        assert_eq!((snapshots(&node), node.restored.len()), (vec![older], whole));
        let before = node.storage.restored();
        assert_eq!(before.is_some(), behind == 0, "it has not taken in all of it");
        node.answer(0);
        node.settle();
        assert_eq!(node.storage.restored().map(File::Snapshot), Some(older), "{behind}");
    }
}

/// The log had been given up back to the newest snapshot, and then a block of that was bad. The machine
/// was given the older one, whose log was gone, and stayed there for ever.
#[test]
fn behind_a_gate_nothing_leads_on_from_an_older_snapshot() {
    for behind in [0, 3] {
        let mut node = node(3, 2);
        let [older, newest] = two(&node);
        let segment = node.disk.files.keys().rfind(|file| matches!(file, File::Segment(_)));
        let segment = *segment.expect("a log");
        node.disk.files.remove(&segment);
        rot(&mut node, newest, 9 * BLOCK + 2000);
        let mut node = Node::start_behind(&config(), node.disk, Start::Run, behind);
        assert!(node.recovered().gate.is_some());
        assert_eq!(node.storage.first(), LogIndex(601));
        node.answer(0);
        node.settle();
        assert_eq!((node.storage.restored(), node.storage.is_state_lost()), (None, true));
        let is_there = |file| node.disk.files.contains_key(file);
        assert!(!is_there(&older) && !is_there(&newest));
    }
}

/// The only snapshot had a bad block, and the log all that it stood for: a node alone was refused for
/// ever, and one with peers waited for theirs.
#[test]
fn a_log_that_begins_with_entry_1_does_without_a_snapshot() {
    for (voters, bad, behind) in [(1, 0, 0), (1, 5, 0), (3, 5, 0), (3, 5, 3), (3, 11, 0)] {
        let mut node = node(voters, 1);
        let [only] = snapshots(&node)[..] else { panic!("there is one") };
        rot(&mut node, only, (bad + 1) * BLOCK + 2000);
        let (mut disk, last) = (node.disk, node.last);
        for _ in 0..2 {
            let mut node = Node::start_behind(&config(), disk, Start::Run, behind);
            node.answer(0);
            node.settle();
            assert_eq!((node.recovered().last, node.halted.take()), (last, None));
            assert_eq!(node.storage.restored(), Some(LogId::ZERO), "it applies from the first on");
            assert!(node.restored.is_empty(), "what it took in is forgotten");
            assert!(!node.storage.is_state_lost());
            assert_eq!(node.read(1).len(), 303);
            // It counts as bad from then on, and another one is to be taken.
            assert_eq!((snapshots(&node), node.storage.spoilt_snapshots()), (vec![], 1));
            assert!(node.storage.wants_fresh(last));
            disk = node.disk;
        }
        let mut node = Node::start(disk, Start::Run);
        snap(&mut node);
        assert_eq!((snapshots(&node).len(), node.storage.spoilt_snapshots()), (1, 0));
        assert!(!node.disk.files.contains_key(&only));
        assert_eq!(node.restart().storage.restored(), Some(last));
    }
}

/// A machine that keeps its own state was behind what was left of the log: it was to go on with an entry
/// that is not there any more, and stood still.
#[test]
fn a_machine_of_its_own_that_the_log_does_not_reach_is_restored() {
    let node = node(3, 4);
    let (disk, last) = (node.disk, node.last);
    let newest = LogId::new(Term(4), LogIndex(1200));
    let first = Node::start(disk.clone(), Start::Run).recovered().first;
    assert!(first > LogIndex(300), "{first}");
    let before = first.previous();
    for (machine, restored) in [
        (LogId::new(Term(1), LogIndex(50)), newest),
        (LogId::new(Term(2), before.previous()), newest),
        (LogId::new(Term(2), before), LogId::new(Term(2), before)),
        (LogId::new(Term(4), LogIndex(1100)), LogId::new(Term(4), LogIndex(1100))),
        (last, last),
    ] {
        let mut node = Node::start(disk.clone(), Start::Resume { machine });
        assert_eq!(node.halted, None);
        assert_eq!(node.storage.restored(), Some(restored), "{machine}");
        assert_eq!(node.restored.is_empty(), machine == restored);
        assert_eq!(node.read(restored.index.0 + 1).len() as u64, last.index.0 - restored.index.0);
    }
}
