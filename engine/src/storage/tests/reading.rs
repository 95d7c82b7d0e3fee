//! What is read for somebody: how much, when again, and what becomes of it when the log is cut.

use super::{
    holes::{self, grown, harm},
    joins::stage,
    *,
};
use crate::{marks::Mark, types::OpId};

const BYTES: u32 = 6000;

/// What is asked of the disk, in order, and done by [`done`].
fn asked(node: &mut Node) -> VecDeque<(OpId, DiskRequest)> {
    holes::asked(node).into()
}

fn done(node: &mut Node, asked: impl IntoIterator<Item = (OpId, DiskRequest)>) {
    for (op, request) in asked {
        let result = node.disk.perform(request);
        node.storage.on_completed(node.now, op, result);
    }
}

/// A node that has restarted and whose machine is to be given all up to here again.
fn replaying(committed: u64) -> Node {
    let (mut node, _) = grown(sizes());
    node.storage.hint_committed(LogIndex(committed));
    node.storage.promise(Term(2), None);
    node.settle();
    let node = node.restart();
    assert_eq!(node.recovered().committed, LogIndex(committed));
    node
}

/// Wants this for the machine, and reads of the disk what is asked for first, until it is there.
fn begin(
    node: &mut Node,
    from: LogIndex,
    bytes_max: u32,
) -> (ReadBack, VecDeque<(OpId, DiskRequest)>) {
    node.storage.read(Reader::Machine, from, LogIndex(u64::MAX), bytes_max);
    let mut slow = VecDeque::new();
    while !node.storage.has_read() {
        slow.extend(asked(node));
        let first = slow.pop_front().expect("it is to be read");
        done(node, [first]);
    }
    let (_, back) = node.storage.take_read().expect("it is there");
    (back, slow)
}

/// It waited for slots wherever another segment began.
#[test]
fn what_a_machine_that_replays_wants_next_is_there_across_segments() {
    let mut node = replaying(300);
    let segments = node.storage.journal.sealed.len();
    node.storage.read(Reader::Machine, LogIndex(1), LogIndex(u64::MAX), BYTES);
    node.settle();
    let (mut next, mut waited) = (LogIndex(1), 0);
    while next <= LogIndex(300) {
        let (_, back) = node.storage.take_read().expect("it is there");
        next = back.last.next();
        node.storage.read(Reader::Machine, next, LogIndex(u64::MAX), BYTES);
        let on_its_way = asked(&mut node);
        waited += usize::from(!node.storage.has_read() && next <= LogIndex(300));
        done(&mut node, on_its_way);
        node.settle();
    }
    assert!(segments > 5 && waited == 0, "it waited {waited} times of {segments} segments");
}

/// A machine that is told to go on elsewhere was given what was on its way.
#[test]
fn what_is_on_its_way_ahead_is_given_to_nobody_who_asks_otherwise() {
    for (behind, reach, bytes_max) in [(2, u64::MAX, BYTES), (1, 0, BYTES), (1, u64::MAX, 600)] {
        let mut node = replaying(300);
        let (back, slow) = begin(&mut node, LogIndex(1), BYTES);
        assert!(!slow.is_empty(), "more is on its way");
        let from = LogIndex(back.last.0 + behind);
        let to = LogIndex(from.0.saturating_add(reach));
        node.storage.read(Reader::Machine, from, to, bytes_max);
        let more = asked(&mut node);
        done(&mut node, slow.into_iter().chain(more));
        node.settle();
        let (_, back) = node.storage.take_read().expect("it is there");
        assert!(back.first == from && back.last <= to, "{from} to {to}: {back:?}");
        assert!(back.first == back.last || back.frames.len() <= bytes_max as usize);
    }
}

/// Other entries have their places by the time that they are used.
#[test]
fn slots_that_are_read_ahead_are_forgotten_when_their_segment_is_cut() {
    let (probe, _) = grown(sizes());
    let sealed = probe.storage.journal.sealed[1];
    let mut node = replaying(sealed.first.0 + 2);
    let is_of_slots = |(_, request): &(OpId, DiskRequest)| {
        *request
            == DiskRequest::Read {
                file: File::Segment(sealed.sequence),
                offset: 512,
                len: match request {
                    DiskRequest::Read { len, .. } => *len,
                    _ => 0,
                },
            }
    };
    node.storage.read(Reader::Machine, LogIndex(1), LogIndex(u64::MAX), 20_000);
    let slots = loop {
        let mut asked = asked(&mut node);
        assert!(!asked.is_empty(), "they are to be read ahead");
        let slots = asked.iter().position(is_of_slots).and_then(|at| asked.remove(at));
        done(&mut node, asked);
        if let Some(slots) = slots {
            break slots;
        }
    };
    assert!(node.storage.has_read() && !node.storage.marks().has(Mark::StaleReadIgnored));
    node.truncate(LogId::new(Term(1), LogIndex(sealed.first.0 + 4)));
    done(&mut node, [slots]);
    assert!(node.storage.marks().has(Mark::StaleReadIgnored));
}

/// The last one that a reader remembers is one of them.
#[test]
fn where_the_last_entry_of_a_segment_lay_is_forgotten_when_it_is_cut() {
    let (mut node, _) = grown(sizes());
    let last = node.storage.journal.sealed[0].last.index;
    node.storage.read(Reader::Machine, LogIndex(1), LogIndex(5), 10_000);
    node.settle();
    assert!(node.storage.take_read().is_some());
    node.truncate(LogId::new(Term(1), last.previous()));
    node.append_all(2, sizes());
    assert_eq!(node.storage.journal.sealed[0].last.term, Term(2));
    let seen = node.read(1);
    assert_eq!((seen.len() as u64, node.storage.hole()), (last.0 - 1 + 300, None));
    assert!(seen.iter().all(|(id, _)| (id.term == Term(2)) == (id.index >= last)));
}

/// Whoever was given entries before it reads on, and asks for nothing twice.
#[test]
fn where_entries_lie_is_remembered_when_what_is_behind_them_is_cut() {
    let (mut node, _) = grown(sizes());
    let sealed = node.storage.journal.sealed[0];
    let wants = |node: &mut Node| {
        node.disk.requests.clear();
        node.storage.read(Reader::Machine, LogIndex(1), LogIndex(5), 10_000);
        node.settle();
        assert!(node.storage.take_read().is_some());
        let is_of_slots = |request: &&DiskRequest| matches!(request, DiskRequest::Read { offset, .. } if *offset < sealed.layout.data_at);
        node.disk.requests.iter().filter(is_of_slots).count()
    };
    assert_eq!(wants(&mut node), 1);
    node.truncate(sealed.last);
    node.settle();
    assert_eq!(wants(&mut node), 0);
}

#[test]
fn a_read_is_begun_anew_if_a_cut_reaches_it_and_only_then() {
    for (to, is_reached) in [(4, false), (5, true)] {
        let mut node = Node::start(Disk::default(), format());
        node.append_all(1, [40; 10]);
        node.storage.read(Reader::Peer(NodeId(2)), LogIndex(1), LogIndex(to), 10_000);
        let slow = asked(&mut node);
        assert_eq!(slow.len(), 1);
        node.truncate(LogId::new(Term(1), LogIndex(4)));
        done(&mut node, slow);
        assert_eq!(node.storage.marks().has(Mark::StaleReadIgnored), is_reached);
        node.settle();
        let (_, back) = node.storage.take_read().expect("it is there");
        assert_eq!((back.first, back.last), (LogIndex(1), LogIndex(4)));
    }
}

#[test]
fn of_slots_no_more_is_read_than_there_are() {
    let (mut node, _) = grown(sizes());
    let sealed = node.storage.journal.sealed[1];
    let (from, count) = (sealed.first.0 + 13, sealed.last.index.0 + 1 - sealed.first.0);
    node.storage.read(Reader::Peer(NodeId(2)), LogIndex(from), LogIndex(from), 1);
    let asked = asked(&mut node);
    let (file, offset) = (File::Segment(sealed.sequence), 2 * 512);
    // Twelve in each block.
    let len = (count.div_ceil(12) as u32 - 1) * 512;
    let read: Vec<_> = asked.into_iter().map(|(_, request)| request).collect();
    assert_eq!(read, [DiskRequest::Read { file, offset, len }]);
}

#[test]
fn entries_that_lie_side_by_side_are_given_as_they_were_read() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40]);
    (0..3).for_each(|_| node.append(1, 50));
    node.settle();
    node.storage.read(Reader::Peer(NodeId(2)), LogIndex(2), LogIndex(4), 10_000);
    let (op, request) = asked(&mut node).pop_front().expect("they are to be read");
    let Ok(Completion::Read(bytes)) = node.disk.perform(request) else { panic!("it is there") };
    node.storage.on_completed(node.now, op, Ok(Completion::Read(bytes.clone())));
    let (_, back) = node.storage.take_read().expect("it is there");
    assert_eq!(frames(&back.frames).count(), 3);
    assert!(bytes.as_ptr_range().contains(&back.frames.as_ptr()), "they were copied");
}

/// The scrub goes on where it was.
#[test]
fn what_a_reader_finds_bad_is_not_the_scrubs() {
    let (mut node, frames) = grown(sizes());
    harm(&mut node.disk, &frames[7]);
    node.storage.read(Reader::Peer(NodeId(2)), LogIndex(8), LogIndex(8), 1);
    node.settle();
    let marks = node.storage.marks();
    assert!(marks.has(Mark::HoleFoundLate) && !marks.has(Mark::ScrubFoundBadEntry));
}

#[test]
fn what_was_read_of_a_log_that_a_snapshot_replaces_is_given_to_nobody() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    node.storage.promise(Term(2), None);
    let at = LogId::new(Term(2), LogIndex(1000));
    stage(&mut node, at, 90_000);
    node.storage.read(Reader::Peer(NodeId(2)), LogIndex(1), LogIndex(9), 1000);
    node.settle();
    assert!(node.storage.has_read());
    node.storage.install(at);
    assert!(!node.storage.has_read());
    node.settle();
    assert_eq!((node.storage.restored(), node.storage.has_read()), (Some(at), false));
}

/// Nothing behind it would count: it waited for an entry of another log.
#[test]
fn what_is_missing_in_a_log_that_a_snapshot_replaces_is_missed_no_more() {
    let (node, frames) = grown([40, 50, 60, 70, 80]);
    let mut disk = node.disk;
    [1, 4].into_iter().for_each(|n| harm(&mut disk, &frames[n]));
    let mut node = Node::start(disk, Start::Run);
    assert_eq!(node.storage.first_owed(), Some(LogIndex(2)));
    node.storage.promise(Term(2), None);
    let at = LogId::new(Term(2), LogIndex(1000));
    stage(&mut node, at, 90_000);
    node.storage.install(at);
    node.settle();
    assert_eq!((node.storage.restored(), node.storage.hole()), (Some(at), None));
    node.last = at;
    node.append_all(2, [40]);
    assert_eq!(node.storage.durable(), LogIndex(1001));
}
