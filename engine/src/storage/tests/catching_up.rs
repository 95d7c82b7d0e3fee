//! What a restart tells of itself behind the verdict: the machine takes in the snapshot, then
//! applies what was known to be committed.

use super::{scrubs::snap, *};
use crate::{action::Note, status::Phase};
use std::time::Duration;

#[test]
fn a_restart_tells_its_phases_to_the_end() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    let at = LogId::new(Term(1), LogIndex(300));
    assert!(node.storage.capture(at, node.recovered().membership.clone(), Timestamp(9)));
    node.append_all(2, [40, 50, 60, 70]);
    node.storage.hint_committed(LogIndex(303));
    while let Some(deadline) = node.storage.deadline() {
        node.now = deadline;
        node.settle();
    }
    let mut node = node.restart();
    assert_eq!(node.recovered().committed, LogIndex(303));
    let phase = |node: &Node, applied| {
        let told = node.storage.recovery(LogIndex(applied));
        (told.phase, told.entries_done, told.entries_total)
    };
    let later = |node: &Node, seconds| node.now.after(Duration::from_secs(seconds));
    assert_eq!(phase(&node, 0), (Phase::Restore, 0, 0));
    assert_eq!(node.storage.restored(), Some(at));
    assert!(!node.storage.catch_up(
        later(&node, 2),
        LogIndex(300),
        LogId::new(Term(9), LogIndex(300))
    ));
    assert_eq!(phase(&node, 300), (Phase::Replay, 0, 3));
    assert_eq!(phase(&node, 302), (Phase::Replay, 2, 3));
    assert!(!node.storage.catch_up(
        later(&node, 4),
        LogIndex(302),
        LogId::new(Term(9), LogIndex(302))
    ));
    assert!(node.storage.catch_up(
        later(&node, 5),
        LogIndex(304),
        LogId::new(Term(9), LogIndex(304))
    ));
    assert_eq!(phase(&node, 304), (Phase::Ready, 3, 3));

    let told = node.storage.recovery(LogIndex(304));
    let phases: Vec<_> = told.took.iter().map(|(phase, _)| *phase).collect();
    let all = [
        Phase::List,
        Phase::HardState,
        Phase::Snapshot,
        Phase::Log,
        Phase::Repair,
        Phase::Restore,
        Phase::Replay,
    ];
    assert_eq!(phases, all);
    let seconds: Vec<_> = told.took.iter().map(|(_, took)| took.as_secs()).collect();
    assert_eq!(seconds, [0, 0, 0, 0, 0, 2, 3]);
    let mut out = Vec::new();
    node.storage.persist(node.now, &mut out);
    let ready =
        Action::Note(Note::Recovery("ready, 3 entries applied, restore 2.0s, replay 3.0s".into()));
    assert!(out.contains(&ready), "{out:?}");
}

/// A machine that keeps its own state has nothing restored, and applies what it lacks.
#[test]
fn a_machine_of_its_own_only_replays() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40, 50, 60, 70]);
    node.storage.hint_committed(LogIndex(4));
    while let Some(deadline) = node.storage.deadline() {
        node.now = deadline;
        node.settle();
    }
    let machine = LogId::new(Term(1), LogIndex(2));
    let mut node = Node::start(node.disk, Start::Resume { machine });
    assert!(!node.storage.catch_up(node.now, LogIndex(2), LogId::new(Term(9), LogIndex(2))));
    let told = node.storage.recovery(LogIndex(3));
    assert_eq!((told.phase, told.entries_done, told.entries_total), (Phase::Replay, 1, 2));
    assert!(node.storage.catch_up(node.now, LogIndex(4), LogId::new(Term(9), LogIndex(4))));
}

/// Restarted with a machine that keeps its own state, 60 entries, from which its log does not lead on any more.
pub(super) fn cut_off(mut node: Node) -> (Node, LogId) {
    node.storage.hint_committed(node.last.index);
    while let Some(deadline) = node.storage.deadline() {
        node.now = deadline;
        node.settle();
    }
    let machine = LogId::new(Term(1), LogIndex(60));
    let mut node = Node::start(node.disk, Start::Resume { machine });
    node.storage.retain(node.last.index, None);
    node.settle();
    assert!(node.storage.first() > machine.index.next());
    (node, machine)
}

/// It was slow, and had answered nothing yet: a snapshot was to take the place of what it had been given
/// already, and the node ended.
#[test]
fn a_slow_machine_of_its_own_is_not_begun_anew_when_the_log_it_was_given_goes() {
    let mut node = Node::start(Disk::default(), format());
    for round in 1..=2 {
        node.append_all(round, sizes());
        node.storage.hint_committed(node.last.index);
        snap(&mut node);
    }
    node.append_all(2, [40, 50, 60]);
    let (mut node, machine) = cut_off(node);
    let goes_on = |node: &mut Node, given| {
        node.storage.catch_up(node.now, machine.index, given);
        node.settle();
        node.restored.len()
    };
    let given = node.last;
    assert_eq!(goes_on(&mut node, given), 0);
    // Had it not been given that, nobody would.
    assert!(goes_on(&mut node, machine) > 0);
}
