//! What a restart has decided is durable before it acts on it.

use super::{
    holes::{grown, harm, harm_slots},
    *,
};
use crate::disk::hard_state::{BLOCK_BYTES, HardState, OFFSETS};

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
