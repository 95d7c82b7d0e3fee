//! What a restart has decided is durable before it acts on it.

use super::{
    holes::{grown, harm, harm_slots},
    *,
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
