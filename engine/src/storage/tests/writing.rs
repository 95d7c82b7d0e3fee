//! What goes out in a write of the log, and when.

use super::{holes::grown, *};
use crate::{file::Extent, marks::Mark, storage::roll::Roll};

/// The entries that these write.
fn entries(asked: &[Action]) -> Vec<&Extent> {
    let entries = |action| match action {
        &Action::Disk {
            request: DiskRequest::Write { file: File::Segment(_), ref at, .. },
            ..
        } => Some(at),
        _ => None,
    };
    asked.iter().filter_map(entries).collect()
}

/// What an entry takes beside its body.
fn beside(node: &Node) -> usize {
    let id = LogId::new(Term(1), LogIndex(2));
    let sealed = Batch::one(&[0; 100]).seal(node.recovered().seed, id, Term(1), Timestamp(9));
    sealed.1.len() - 100
}

#[test]
fn entries_that_follow_each_other_in_memory_are_written_from_there() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40]);
    let (seed, term) = (node.recovered().seed, Term(1));
    let [one, two] = [(2, 500), (3, 600)].map(|(index, bytes)| {
        let id = LogId::new(term, LogIndex(index));
        Batch::one(&vec![7; bytes]).seal(seed, id, term, Timestamp(9))
    });
    let both = Bytes::from([&one.1[..], &two.1].concat());
    node.storage.append(one.0, both.clone(), 0);
    node.storage.append(two.0, both.clone(), one.1.len());
    let asked = node.ask();
    let [written] = entries(&asked)[..] else { panic!("{asked:?}") };
    assert_eq!((written.bytes.as_ptr(), written.bytes.len()), (both.as_ptr(), both.len()));
}

/// All of its bytes are those of its only entry.
#[test]
fn a_segment_of_one_entry_counts_as_long_as_that_is() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [25_000; 4]);
    assert_eq!(node.storage.journal.sealed.len(), 3);
    let bytes = (0..5).map(|index| node.storage.journal.bytes_after(LogIndex(index)) / 25_000);
    assert_eq!(bytes.collect::<Vec<_>>(), [4, 3, 2, 1, 0]);
}

/// One that is larger waits until nothing else is under way, and no longer.
#[test]
fn an_entry_that_is_larger_than_the_window_is_written_by_itself() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40]);
    node.storage.journal.active.as_mut().expect("it takes entries").window_bytes = 512;
    for _ in 0..3 {
        node.append_all(1, [2000]);
        assert_eq!(node.storage.durable(), node.last.index);
    }
}

#[test]
fn a_write_fills_the_window_and_the_most_that_goes_out_at_once() {
    let mut config = config();
    (config.segment_bytes, config.first_segment_bytes) = (16 << 20, 16 << 20);
    config.tuning.append_bytes_max = 2 << 20;
    for (bytes, window) in [(1 << 19, None), (2000, Some(4000))] {
        let mut node = Node::start_as(&config, Disk::default(), format());
        node.append_all(1, [40]);
        let active = node.storage.journal.active.as_mut().expect("it takes entries");
        active.window_bytes = window.unwrap_or(active.window_bytes);
        let body = bytes - beside(&node);
        (0..2).for_each(|_| node.append(1, body));
        let asked = node.ask();
        let written: Vec<_> = entries(&asked).iter().map(|extent| extent.bytes.len()).collect();
        assert_eq!(written, [2 * bytes]);
    }
}

/// What comes then is gathered: it would wait whether it is in a write or not.
#[test]
fn no_more_writes_are_under_way_than_may_be() {
    let mut config = config();
    config.tuning.writes_inflight_max = 1;
    let mut node = Node::start_as(&config, Disk::default(), format());
    node.append_all(1, [40]);
    assert!(!node.storage.is_saturated());
    node.append(1, 50);
    assert!(node.storage.is_saturated(), "one is to be written");
    let slow = node.ask();
    assert!(entries(&slow).len() == 1 && node.storage.is_saturated(), "it is under way");
    node.append(1, 60);
    assert!(node.ask().is_empty());
    slow.into_iter().for_each(|action| node.perform(action));
    node.settle();
    assert!(!node.storage.is_saturated() && node.storage.durable() == LogIndex(3));
}

#[test]
fn what_is_written_or_given_up_takes_no_memory() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40]);
    assert_eq!(node.storage.memory_bytes(), 0);
    [50, 60].into_iter().for_each(|bytes| node.append(1, bytes));
    let both = node.storage.memory_bytes();
    node.truncate(LogId::new(Term(1), LogIndex(2)));
    assert!((50..both).contains(&node.storage.memory_bytes()));
    node.settle();
    assert_eq!((node.storage.memory_bytes(), node.storage.durable()), (0, LogIndex(2)));
}

/// It would be said again and again while more comes.
#[test]
fn what_is_durable_is_said_once_nothing_more_is_on_its_way() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40, 50]);
    assert!(node.storage.deadline().is_some());
    node.append(1, 60);
    let slow = node.ask();
    assert_eq!(node.storage.deadline(), None);
    slow.into_iter().for_each(|action| node.perform(action));
    node.settle();
    assert!(node.storage.deadline().is_some());
}

/// Whatever waits for that would wait for ever: a snapshot that is to take its place.
#[test]
fn a_log_that_ends_comes_to_rest() {
    let begun: [fn(&mut Node) -> Vec<Action>; 2] = [
        |node| {
            // The slot of the second one goes out by itself.
            (0..2)
                .flat_map(|_| {
                    node.append(1, 50);
                    node.ask()
                })
                .collect()
        },
        |node| {
            node.append(1, 25_000);
            loop {
                let asked = node.ask();
                if matches!(node.storage.journal.roll, Roll::Announcing(..)) {
                    return asked;
                }
                assert!(!asked.is_empty(), "another segment is to be opened");
                asked.into_iter().for_each(|action| node.perform(action));
            }
        },
    ];
    for (n, begin) in begun.into_iter().enumerate() {
        let mut node = Node::start(Disk::default(), format());
        node.append_all(1, [700; 10]);
        let slow = begin(&mut node);
        assert!(!slow.is_empty() && !node.storage.journal.is_at_rest());
        node.storage.journal.end_before(LogIndex(10));
        slow.into_iter().for_each(|action| node.perform(action));
        node.settle();
        assert!(node.storage.journal.is_at_rest(), "{n}");
        assert_eq!(node.storage.durable(), LogIndex(10), "{n}");
    }
}

/// What it waits for is said, and nothing else.
#[test]
fn an_entry_without_room_waits_for_no_members() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [700; 10]);
    node.append(1, 40);
    let slow = node.ask();
    node.append(1, 25_000);
    assert!(node.ask().is_empty(), "the segment does not end before all of it is there");
    slow.into_iter().for_each(|action| node.perform(action));
    node.settle();
    assert_eq!(node.storage.durable(), node.last.index);
    let waited = [Mark::WriteWaitedForMembership, Mark::WriteWaitedForTerm];
    assert!(!waited.into_iter().any(|mark| node.storage.marks().has(mark)));
}

/// Only who was a member before is another: should the newest be cut, those are in force again.
#[test]
fn members_are_named_anew_if_either_of_them_changes() {
    let (mut node, _) = grown([40, 50]);
    let newest = node.recovered().membership.clone();
    let member = |id| Member { id: NodeId(id), incarnation: 0, address: Bytes::new() };
    let previous = Arc::new(Membership::of([1, 2, 3, 4].map(member)));
    node.storage.set_membership(Arc::clone(&newest), Arc::clone(&previous));
    node.settle();
    let named = node.storage.promises().durable();
    assert_eq!((&named.newest, &named.previous), (&newest, &previous));
    node.storage.set_membership(newest, previous);
    assert!(node.ask().is_empty(), "they are named");
}
