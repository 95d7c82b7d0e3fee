//! What the machine begins with when a snapshot turns out bad while it is taken in.

use super::{
    holes::{self, harm},
    joins::stage,
    scrubs::{rot, snap, snapshots},
    *,
};
use crate::{disk::snapshot::Footer, status::Phase};

pub(super) const BLOCK: i64 = 512 * 64;

fn format(voters: u64) -> Start {
    let member = |id| Member { id: NodeId(id), incarnation: 0, address: Bytes::new() };
    let members = Arc::new(Membership::of((1..=voters).map(member)));
    Start::Format { cluster: ClusterId(5), members }
}

/// Of so many voters, with so many snapshots, each of several blocks, and some log behind them.
fn node(voters: u64, rounds: u64) -> Node {
    node_as(&config(), voters, rounds, true)
}

/// The same, which lets go of what no snapshot needs, or keeps all of its log.
pub(super) fn node_as(config: &Config, voters: u64, rounds: u64, lets_go: bool) -> Node {
    let mut node = Node::start_as(config, Disk::default(), format(voters));
    node.state_bytes = 400_000;
    for round in 1..=rounds {
        node.append_all(round, sizes());
        node.storage.hint_committed(node.last.index);
        if lets_go {
            node.storage.retain(node.last.index, None);
        }
        snap(&mut node);
    }
    node.append_all(rounds + 1, [40, 50, 60]);
    node.storage.hint_committed(node.last.index);
    node
}

pub(super) fn two(node: &Node) -> [File; 2] {
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

/// The log begins right behind the older one, which a peer had sent in the log's place: it leads on from there.
#[test]
fn from_an_older_snapshot_right_before_the_log_that_leads_on() {
    let mut node = node(3, 0);
    let at = LogId::new(Term(1), LogIndex(1000));
    stage(&mut node, at, 90_000);
    node.storage.install(at);
    node.settle();
    node.last = at;
    node.append_all(1, sizes());
    node.storage.hint_committed(node.last.index);
    snap(&mut node);
    assert_eq!(node.storage.first(), at.index.next());
    let [older, newest] = two(&node);
    rot(&mut node, newest, BLOCK + 2000);
    let node = Node::start(node.disk, Start::Run);
    assert_eq!((node.storage.restored().map(File::Snapshot), node.halted), (Some(older), None));
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

/// Its entry 500 is bad, so a machine of its own that was given 450 gets the snapshot of all up to 600;
/// where it had no peers the node ended instead. A block of that was bad, and the one before (300) was
/// restored over what the machine had; the engine ended with a panic.
#[test]
fn a_machine_of_its_own_is_never_given_less_than_it_has() {
    let machine = LogId::new(Term(2), LogIndex(450));
    let (lost, was) = (LogIndex(500), Some(machine));
    let newest = Some(LogId::new(Term(2), LogIndex(600)));
    // Of which block, of how many voters; where the machine stands then, whether its state is lost, whether
    // the node ends, and what is asked of a peer.
    for (bad, voters, stands, is_lost, ends, hole) in [
        (None, 3, newest, false, false, Some(lost)),
        (None, 1, newest, false, false, Some(lost)),
        (Some(0), 3, was, false, false, Some(lost)),
        (Some(0), 1, was, false, true, None),
        (Some(5), 3, None, true, false, Some(lost)),
        (Some(5), 1, None, false, true, None),
    ] {
        let mut node = node(voters, 2);
        let files = two(&node);
        let bytes = vec![lost.0 as u8; sizes().nth(199).expect("it is one of them")];
        let id = LogId::new(Term(2), lost);
        let seed = node.recovered().seed;
        harm(&mut node.disk, &Batch::one(&bytes).seal(seed, id, Term(2), Timestamp(9)).1);
        if let Some(bad) = bad {
            rot(&mut node, files[1], (bad + 1) * BLOCK + 2000);
        }
        let mut node = Node::start(node.disk, Start::Resume { machine });
        assert_eq!(node.storage.restored(), was, "{:?}", node.halted);
        // It comes upon the entry, and asks for it again if it goes on with what it has.
        for from in [machine.index.next(), lost, lost] {
            if node.storage.restored() == was {
                node.storage.read(Reader::Machine, from, LogIndex(600), 1 << 20);
            }
            catch_up(&mut node, machine);
        }
        let state = (node.storage.restored(), node.storage.is_state_lost(), node.halted.is_some());
        assert_eq!(state, (stands, is_lost, ends), "{bad:?} {voters}: {:?}", node.halted);
        assert_eq!(node.restored.is_empty(), bad == Some(0), "only what is good was handed out");
        if !ends {
            // Peers are asked for it however that is; in a snapshot it is not sought again.
            let count = if bad.is_some() { 1 } else { 2 };
            assert_eq!(snapshots(&node), files[..count]);
            assert_eq!(node.storage.hole().map(|id| id.index), hole);
            node.storage.catch_up(node.now, machine.index, stands.unwrap_or(machine));
            assert_eq!(node.storage.restored(), stands);
        }
    }
}

/// Both snapshots are bad, the newest behind some blocks that the machine took in, the older one from its
/// first: the log had it all, and was applied over what the machine had taken in.
#[test]
fn a_machine_forgets_the_newest_snapshot_though_nothing_came_of_the_older() {
    let mut node = Node::start(Disk::default(), format(3));
    node.state_bytes = 400_000;
    for round in 1..=2 {
        node.append_all(round, [40, 50, 60]);
        node.storage.hint_committed(node.last.index);
        snap(&mut node);
    }
    let [older, newest] = two(&node);
    rot(&mut node, newest, 6 * BLOCK + 2000);
    rot(&mut node, older, BLOCK + 2000);
    let node = Node::start(node.disk, Start::Run);
    assert_eq!(node.storage.restored(), Some(LogId::ZERO), "it applies from the first on");
    assert!(node.restored.is_empty(), "{} bytes of the newest are left", node.restored.len());
}

/// The same of a machine that keeps its own state: it went on with "the state it has", over which the blocks
/// of the newest snapshot were restored.
#[test]
fn a_machine_of_its_own_does_not_go_on_with_what_was_restored_over() {
    let machine = LogId::new(Term(2), LogIndex(350));
    let mut node = Node::start(Disk::default(), format(3));
    node.state_bytes = 400_000;
    for round in 1..=3 {
        node.append_all(round, sizes());
        node.storage.hint_committed(node.last.index);
        snap(&mut node);
    }
    // The newest holds all up to 900, the one before all up to 600, and entry 400 is bad.
    let files = two(&node);
    let bytes = vec![400_u64 as u8; sizes().nth(99).expect("it is one of them")];
    let id = LogId::new(Term(2), LogIndex(400));
    let seed = node.recovered().seed;
    harm(&mut node.disk, &Batch::one(&bytes).seal(seed, id, Term(2), Timestamp(9)).1);
    rot(&mut node, files[1], 6 * BLOCK + 2000);
    rot(&mut node, files[0], BLOCK + 2000);
    let mut node = Node::start(node.disk, Start::Resume { machine });
    assert_eq!(node.storage.restored(), Some(machine), "{:?}", node.halted);
    node.storage.read(Reader::Machine, LogIndex(400), LogIndex(900), 1 << 20);
    catch_up(&mut node, machine);
    assert!(!node.restored.is_empty(), "some of the newest was handed out");
    assert_eq!((node.storage.restored(), node.storage.is_state_lost()), (None, true));
}

/// Goes on as an engine does whose machine was given so much.
fn catch_up(node: &mut Node, given: LogId) {
    loop {
        node.storage.catch_up(node.now, given.index, given);
        let asked = node.ask();
        if asked.is_empty() || node.storage.has_failed() {
            return node.settle();
        }
        asked.into_iter().for_each(|action| node.perform(action));
    }
}

/// It was the time of the last entry that is good: with that the new leader dated what follows, and the log's time
/// went back. Without an entry behind the snapshot nothing was known of it.
#[test]
fn how_late_it_was_is_known_from_a_snapshot_too() {
    let (mut node, frames) = holes::grown([40, 50, 60]);
    let (last, members) = (node.last, node.recovered().membership.clone());
    // Later than any entry here: of one that was cut, say.
    let time = Timestamp(50);
    assert!(node.storage.capture(last, members, time));
    node.settle();
    assert_eq!(node.storage.snapshot(), last);
    let mut disk = node.disk.clone();
    harm(&mut disk, &frames[2]);
    let with_hole = Node::start(disk, Start::Run);
    assert_eq!(with_hole.storage.hole(), Some(last));
    assert_eq!((with_hole.recovered().last, with_hole.recovered().last_time), (last, time));
    // A peer's comes with its time, and no log is behind it.
    let at = LogId::new(Term(2), LogIndex(1000));
    node.storage.promise(Term(2), None);
    node.settle();
    stage(&mut node, at, 90_000);
    node.storage.install(at);
    node.settle();
    let node = node.restart();
    assert_eq!((node.recovered().last, node.recovered().last_time), (at, Timestamp(9)));
}

/// Each block is good by itself, and they are not those that were written together.
#[test]
fn blocks_that_are_not_those_of_the_footer_are_no_state() {
    let mut node = node(3, 2);
    let [older, newest] = two(&node);
    let found = node.storage.snapshots.whole.last().expect("it has two").clone();
    let footer = Footer { digest: !found.footer.digest, ..found.footer };
    let footer = footer.encode(GroupId(1), found.header.id, 512);
    let bytes = node.disk.files.get_mut(&newest).expect("it is there");
    let at = bytes.len() - footer.len();
    bytes[at..].copy_from_slice(&footer);
    let node = Node::start(node.disk, Start::Run);
    assert_eq!(node.storage.restored().map(File::Snapshot), Some(older));
}

/// Both files stay until there is another.
#[test]
fn of_two_bad_snapshots_both_are_known_to_be() {
    let mut node = node_as(&config(), 3, 2, false);
    for file in two(&node) {
        rot(&mut node, file, BLOCK + 2000);
    }
    let node = Node::start(node.disk, Start::Run);
    assert_eq!((node.storage.restored(), &node.halted), (Some(LogId::ZERO), &None));
    assert_eq!((snapshots(&node).len(), node.storage.spoilt_snapshots()), (0, 2));
}

/// It was ready, and is not while its state is being replaced.
#[test]
fn a_node_whose_machine_takes_in_another_state_says_so() {
    let node = node(3, 2);
    let last = node.last;
    let mut node = Node::start(node.disk, Start::Run);
    while !node.storage.catch_up(node.now, last.index, last) {}
    assert_eq!(node.storage.recovery(last.index).phase, Phase::Ready);
    node.behind = 1;
    let given = node.storage.restored().expect("it is there");
    node.storage.snapshots.replace_state(given, &mut node.storage.ops);
    assert_eq!(node.storage.recovery(last.index).phase, Phase::Restore);
    node.settle();
    node.behind = 0;
    node.answer(0);
    node.settle();
    assert_eq!(node.storage.recovery(last.index).phase, Phase::Ready);
}

/// Whoever updates the program, or mends it, starts the node with what is there: it names the snapshot that its
/// machine does not take, ends, and removes nothing of what the next life needs.
#[test]
fn a_snapshot_that_the_machine_refuses_is_named_and_kept() {
    let restarted = |node: Node| Node::start_behind(&config(), node.disk, Start::Run, 3);
    let at = LogId::new(Term(1), LogIndex(1000));
    let installed = || {
        let mut node = node(3, 0);
        node.behind = 3;
        stage(&mut node, at, 200_000);
        node.storage.install(at);
        node.settle();
        node
    };
    for (mut node, id) in
        [(restarted(node(1, 2)), None), (restarted(node(3, 2)), None), (installed(), Some(at))]
    {
        let file = id.map_or_else(|| two(&node)[1], File::Snapshot);
        assert!(!node.unanswered.is_empty() && node.storage.restored().is_none());
        let through = node.unanswered.pop_front().expect("there is one");
        let before = node.disk.files.clone();
        node.storage.on_restored(through, Err(MachineError("of another kind".into())));
        node.settle();
        let why = format!("{file} was not taken in: of another kind");
        assert_eq!(node.halted, Some(Halt::Machine(MachineError(why))));
        assert_eq!(node.disk.files, before, "nothing is removed");
        let mut node = restarted(node);
        node.answer(0);
        node.settle();
        assert_eq!(node.storage.restored().map(File::Snapshot), Some(file), "by one that takes it");
    }
}

/// What the file system or a person made of it: bytes behind its end, or some that are missing. Where its parts lie
/// is told by where it ends, so it counts as lost, which is the less that it may be; nothing is taken from it by
/// mistake.
#[test]
fn a_segment_of_another_length_than_it_says_counts_as_lost() {
    let lengths: [fn(&mut Vec<u8>); 5] = [
        |bytes| bytes.resize(bytes.len() + 512, 0),
        |bytes| bytes.resize(bytes.len() + 4096, 0xa5),
        |bytes| bytes.extend_from_within(..),
        |bytes| bytes.truncate(bytes.len() - 512),
        |bytes| bytes.truncate(512),
    ];
    for (changes, voters) in lengths.into_iter().flat_map(|changes| [(changes, 1), (changes, 3)]) {
        let mut node = node_as(&config(), voters, 1, false);
        let segments = |file: &&File| matches!(file, File::Segment(_));
        let newest = *node.disk.files.keys().rfind(segments).expect("a log");
        changes(node.disk.files.get_mut(&newest).expect("it is there"));
        let before = node.disk.files.clone();
        let node = Node::start(node.disk, Start::Run);
        if voters == 1 {
            assert!(matches!(node.halted, Some(Halt::Refused { .. })), "{:?}", node.halted);
            assert_eq!(node.disk.files, before, "left as it was");
        } else {
            assert!(node.recovered().gate.is_some() && node.halted.is_none());
        }
    }
}
