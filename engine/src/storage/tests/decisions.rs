//! What a restart has decided is durable before it acts on it.

use super::{
    holes::{grown, harm, harm_slots},
    *,
};
use crate::{
    disk::{
        FileSeed,
        hard_state::{BLOCK_BYTES, HardState, OFFSETS},
        reseal,
    },
    marks::Mark,
};

/// With its segments half gone, and nothing that says why, the next start would judge another log.
#[test]
fn a_log_stays_until_the_hard_state_says_that_it_is_given_up() {
    let (mut node, frames) = grown(sizes());
    harm_slots(&mut node.disk, &frames[7], 0);
    harm(&mut node.disk, &frames[7]);
    node.storage.read(Reader::Machine, LogIndex(8), node.last.index, 1);
    node.settle();
    assert!(matches!(node.halted, Some(Halt::LogLost { .. })), "{:?}", node.halted);
    node.disk.requests.clear();
    let node = node.restart();
    assert!(node.recovered().gate.is_some());
    let is_removal = |request: &DiskRequest| matches!(request, DiskRequest::Remove { .. });
    let removed = node.disk.requests.iter().position(is_removal).expect("it is given up");
    let is_said = |request: &&DiskRequest| {
        matches!(request, DiskRequest::Write { file: File::HardState, .. })
    };
    let said = node.disk.requests[..removed].iter().filter(is_said).count();
    assert_eq!(said, 2, "both copies: {:?}", &node.disk.requests[..removed]);
}

/// The newest block of some copies is bad.
fn without_newest(disk: &Disk, copies: &[usize]) -> Disk {
    let mut disk = disk.clone();
    let bytes = disk.files.get_mut(&File::HardState).expect("it was formatted");
    for copy in copies {
        let number = |at: u64| {
            let block = &bytes[at as usize..at as usize + BLOCK_BYTES];
            HardState::decode(block, config().group).map(|hard| hard.number).unwrap_or_default()
        };
        let newest = OFFSETS[*copy].into_iter().max_by_key(|at| number(*at)).expect("two blocks");
        bytes[newest as usize + 100] ^= 1;
    }
    disk
}

/// The hard state is another, in each of its blocks.
pub(super) fn change_hard(disk: &mut Disk, change: impl FnOnce(&mut HardState)) {
    let bytes = disk.files.get_mut(&File::HardState).expect("it was formatted");
    let blocks = OFFSETS.as_flattened().iter().map(|at| *at as usize..*at as usize + BLOCK_BYTES);
    let read = |at| HardState::decode(&bytes[at], config().group).ok();
    let newest = blocks.clone().filter_map(read).max_by_key(|hard| hard.number);
    let mut hard = newest.expect("it was formatted");
    change(&mut hard);
    blocks.for_each(|at| bytes[at].copy_from_slice(&hard.encode()));
}

fn refused(disk: Disk) -> &'static str {
    match Node::start(disk, Start::Run).halted {
        Some(Halt::Refused { row, .. }) => row,
        other => panic!("{other:?}"),
    }
}

/// What is left of the hard state is of before the term of the log's end, and of the vote in it: as its former self
/// the node would vote in that term again. With one copy of now there is nothing amiss.
#[test]
fn a_hard_state_of_before_beside_a_log_of_now_does_not_start() {
    let (mut node, _) = grown([40, 50, 60]);
    node.storage.promise(Term(2), Some(NodeId(3)));
    node.settle();
    node.append_all(2, [40, 50]);
    for copies in [&[0][..], &[1]] {
        let node = Node::start(without_newest(&node.disk, copies), Start::Run);
        let Recovered { term, vote, .. } = *node.recovered();
        assert_eq!((term, vote), (Term(2), Some(NodeId(3))), "{copies:?}");
    }
    assert_eq!(refused(without_newest(&node.disk, &[0, 1])), "term-regressed");
}

/// What is left of the other one may be of before a vote, which the next start may be told.
#[test]
fn a_block_of_the_hard_state_that_cannot_be_read_is_done_without_if_the_other_copy_is_whole() {
    let (mut node, _) = grown([40, 50, 60]);
    node.storage.promise(Term(7), Some(NodeId(3)));
    node.settle();
    for (copy, at) in OFFSETS.iter().enumerate().flat_map(|(n, at)| at.map(|at| (n, at))) {
        for is_whole in [true, false] {
            let bad = [1 - copy];
            let mut disk = without_newest(&node.disk, if is_whole { &[] } else { &bad });
            disk.unreadable = Some((File::HardState, at));
            let node = Node::start(disk, Start::Run);
            match &node.halted {
                None => assert_eq!(node.recovered().vote, Some(NodeId(3))),
                halt => assert!(matches!(halt, Some(Halt::DiskFailed { .. })), "{halt:?}"),
            }
            assert_eq!(node.halted.is_none(), is_whole, "{copy} at {at}");
        }
    }
}

/// A storm beyond the budget, seed 100000279: the power failed between the copies, the last entry was bad, and the block
/// that alone called it durable could not be read once. It was cut as torn, and the next start was told of nothing.
#[test]
fn what_the_newest_block_of_the_hard_state_may_prove_is_not_cut_while_that_cannot_be_read() {
    let (mut node, _) = grown([40, 50, 60]);
    let before = node.disk.clone();
    node.append_all(1, [70]);
    node.now = node.storage.deadline().expect("the hint is written when writes pause");
    node.settle();
    let last = node.last;
    node.storage.read(Reader::Refill(NodeId(9)), last.index, last.index, 1);
    node.settle();
    let frame = node.storage.take_read().expect("it is there").1.frames;
    let Node { mut disk, .. } = node;
    let second = OFFSETS[1][0] as usize;
    let hard = disk.files.get_mut(&File::HardState).expect("it is there");
    hard[second..].copy_from_slice(&before.files[&File::HardState][second..]);
    let start = |disk: &Disk, unreadable: Option<u64>, is_bad: bool| {
        let mut disk = disk.clone();
        disk.unreadable = unreadable.map(|at| (File::HardState, at));
        if is_bad {
            harm(&mut disk, &frame);
        }
        Node::start(disk, Start::Run)
    };
    let all = OFFSETS.as_flattened();
    let number = |at: &u64| {
        let block = &disk.files[&File::HardState][*at as usize..*at as usize + BLOCK_BYTES];
        HardState::decode(block, config().group).expect("it is good").number
    };
    let newest = *all.iter().max_by_key(|at| number(at)).expect("there are four");
    assert!(
        newest < OFFSETS[1][0]
            && all.iter().filter(|at| number(at) == number(&newest)).count() == 1
    );
    for &at in all {
        // A log that is whole starts all the same, and who is told of the entry owes it.
        let node = start(&disk, Some(at), false);
        assert_eq!((&node.halted, node.recovered().last), (&None, last), "{at}");
        let node = start(&disk, Some(at), true);
        if at == newest {
            let file = File::HardState;
            let error = DiskError::Io { errno: 5 };
            assert_eq!(node.halted, Some(Halt::DiskFailed { file, error }));
        } else {
            assert_eq!(
                (&node.halted, node.storage.first_owed()),
                (&None, Some(last.index)),
                "{at}"
            );
        }
    }
    let node = start(&disk, None, true);
    assert_eq!(node.storage.first_owed(), Some(last.index));
}

/// Hard state and log were put back, and a snapshot of later was left where it was.
#[test]
fn a_hard_state_of_before_beside_a_snapshot_of_now_does_not_start() {
    let (mut node, _) = grown([40, 50, 60]);
    let mut before = node.disk.clone();
    node.append_all(2, [40, 50]);
    node.storage.hint_committed(node.last.index);
    assert!(node.storage.capture(node.last, Arc::default(), Timestamp(9)));
    node.settle();
    let is_snapshot = |file: &File| matches!(file, File::Snapshot(_));
    let taken = node.disk.files.iter().find(|(file, _)| is_snapshot(file));
    let (file, bytes) = taken.map(|(file, bytes)| (*file, bytes.clone())).expect("it is taken");
    before.files.insert(file, bytes);
    assert_eq!(refused(before), "term-regressed");
}

#[test]
fn what_is_amiss_with_the_copies_of_the_hard_state_is_told() {
    let (node, _) = grown([40, 50, 60]);
    let mut gone = node.disk.clone();
    let bytes = gone.files.get_mut(&File::HardState).expect("it was formatted");
    OFFSETS[1].into_iter().for_each(|at| bytes[at as usize + 100] ^= 1);
    let old = without_newest(&node.disk, &[0]);
    for (disk, is_lost, differ) in
        [(node.disk, false, false), (gone, true, false), (old, false, true)]
    {
        let marks = Node::start(disk, Start::Run).storage.marks();
        assert_eq!(marks.has(Mark::HardStateCopyLost), is_lost);
        assert_eq!(marks.has(Mark::HardStateCopiesDiffer), differ);
    }
}

#[test]
fn a_format_that_a_crash_broke_off_is_told_when_it_is_repeated() {
    for is_repeated in [false, true] {
        let mut disk = Disk::default();
        if is_repeated {
            disk.files.insert(File::Spare(0), vec![0; 512]);
        }
        let node = Node::start(disk, format());
        assert_eq!(node.storage.marks().has(Mark::FormatRepeated), is_repeated);
    }
}

/// The entry was never written, or the log has lost it and a snapshot holds it.
#[test]
fn members_are_in_force_if_the_log_or_a_snapshot_holds_their_entry() {
    for is_held in [false, true] {
        let (mut node, _) = grown([40, 50]);
        let previous = node.recovered().membership.clone();
        let at = LogId::new(Term(1), LogIndex(3));
        let newest = Arc::new(Membership { at, ..Membership::clone(&previous) });
        node.storage.set_membership(Arc::clone(&newest), Arc::clone(&previous));
        node.settle();
        if is_held {
            node.append(1, 60);
            node.settle();
            assert!(node.storage.capture(at, Arc::clone(&newest), Timestamp(9)));
            node.settle();
            let bytes = vec![3; 60];
            let seed = node.recovered().seed;
            let (_, frame) = Batch::one(&bytes).seal(seed, at, Term(1), Timestamp(9));
            harm_slots(&mut node.disk, &frame, 0);
            harm(&mut node.disk, &frame);
        }
        let hard = node.storage.promises().durable();
        assert!(hard.newest.at == at && hard.commit_hint < at.index);
        let node = node.restart();
        let expected = if is_held { newest } else { previous };
        assert_eq!(node.recovered().membership.at, expected.at, "held: {is_held}");
    }
}

/// A machine that keeps its own state goes on where it is if the log has the next entry, or will have it next.
#[test]
fn a_machine_of_its_own_goes_on_with_the_first_entry_of_the_log_or_behind_its_last() {
    let mut node = Node::start(Disk::default(), format());
    for round in 1..=3 {
        node.append_all(round, sizes());
        node.storage.hint_committed(node.last.index);
        node.storage.retain(node.last.index, None);
        scrubs::snap(&mut node);
    }
    let (first, last) = (node.storage.first(), node.last);
    assert!(LogIndex(300) < first && first < LogIndex(601));
    for machine in [LogId::new(Term(2), first.previous()), last] {
        let mut node = Node::start(node.disk.clone(), Start::Resume { machine });
        node.storage.catch_up(node.now, machine.index, machine);
        node.settle();
        assert_eq!((node.storage.restored(), &node.halted), (Some(machine), &None));
        assert!(node.restored.is_empty());
    }
    let machine = LogId::new(Term(3), last.index.next());
    let ahead = Node::start(node.disk.clone(), Start::Resume { machine });
    assert!(matches!(ahead.halted, Some(Halt::Refused { row: "machine-ahead", .. })));
    // The first one needs no snapshot.
    let mut disk = node.disk.clone();
    disk.files.retain(|file, _| !matches!(file, File::Snapshot(_)));
    let machine = LogId::new(Term(2), first.previous());
    let alone = Node::start(disk, Start::Resume { machine });
    assert_eq!((alone.storage.restored(), alone.halted), (Some(machine), None));
    // One entry further back it is not there any more.
    let machine = LogId::new(Term(2), first.previous().previous());
    let behind = Node::start(node.disk, Start::Resume { machine });
    assert_eq!(behind.storage.restored(), Some(last));
}

/// What is proven durable may lie in no cache alone.
#[test]
fn a_log_at_rest_is_not_written_again_by_a_restart() {
    let (mut node, _) = grown([40, 50, 60]);
    node.disk.requests.clear();
    let node = node.restart();
    let writes = |request: &&DiskRequest| {
        matches!(request, DiskRequest::Write { file: File::Segment(_), .. })
    };
    assert_eq!(node.disk.requests.iter().find(writes), None);
    assert!(!node.storage.marks().has(Mark::TailRewritten));
}

/// It is not taken for lost: the node would have to come back as another one.
#[test]
fn a_hard_state_of_a_later_version_is_told_as_such() {
    let (mut node, _) = grown([40, 50]);
    let bytes = node.disk.files.get_mut(&File::HardState).expect("it was formatted");
    for at in OFFSETS.as_flattened() {
        let block = &mut bytes[*at as usize..*at as usize + BLOCK_BYTES];
        block[8] += 1;
        assert!(reseal(block, FileSeed::new(config().group, 0)));
    }
    assert_eq!(refused(node.disk), "newer");
}

/// It may lie in a cache alone, after a sync that failed and was never told of.
#[test]
fn what_is_not_proven_durable_is_written_again_and_synced() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40]);
    assert_eq!(node.storage.promises().durable().durable_hint, LogIndex(0));
    node.disk.requests.clear();
    let node = node.restart();
    assert_eq!(node.storage.durable(), LogIndex(1));
    let is_write = |request: &DiskRequest| {
        matches!(request, DiskRequest::Write { file: File::Segment(_), durable: false, .. })
    };
    let is_sync =
        |request: &DiskRequest| matches!(request, DiskRequest::Sync { file: File::Segment(_) });
    let written = node.disk.requests.iter().rposition(is_write).expect("it is written again");
    let synced = node.disk.requests.iter().rposition(is_sync).expect("and synced");
    assert!(written < synced);
    assert_eq!(node.storage.promises().durable().durable_hint, LogIndex(1));
}

/// Nothing is known of what a directory holds that could not be listed, and nothing may be built on names that are
/// not durable.
#[test]
fn a_directory_that_fails_starts_no_node() {
    let fails: [fn(&DiskRequest) -> bool; 2] = [
        |request| matches!(request, DiskRequest::List),
        |request| matches!(request, DiskRequest::SyncDirectory),
    ];
    let (node, _) = grown([40, 50]);
    for (disk, start) in [(node.disk, Start::Run), (Disk::default(), format())] {
        for fails in fails {
            let disk = Disk { fails: Some(fails), ..disk.clone() };
            let halted = Node::start(disk, start.clone()).halted;
            assert!(matches!(halted, Some(Halt::DiskFailed { .. })), "{halted:?}");
        }
    }
}

/// From its first entry on, of which it has none any more.
#[test]
fn a_log_that_a_restart_gives_up_begins_anew() {
    let (mut node, frames) = grown([40, 50, 60]);
    harm_slots(&mut node.disk, &frames[1], 0);
    harm(&mut node.disk, &frames[1]);
    let node = node.restart();
    assert!(node.recovered().gate.is_some());
    assert_eq!((node.recovered().first, node.recovered().last), (LogIndex(1), LogId::ZERO));
}
