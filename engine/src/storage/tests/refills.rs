//! What fills a hole is named before, lest a restart believe it out of a cache that a failed sync has left.

use super::{
    holes::{asked, body, grown, harm, refill},
    *,
};
use crate::entry::Head;

/// Whether this changes that file for good.
fn writes_to(request: &DiskRequest, file: File) -> bool {
    matches!(request, DiskRequest::Write { file: to, durable: true, .. } if *to == file)
}

/// Gives it this entry of that file. It is written, and the sync fails.
fn refill_unsynced(node: &mut Node, frame: &Bytes, file: File) {
    let head = Head::parse_whole(frame, node.recovered().seed).expect("it is whole");
    node.storage.refill(&head, frame);
    let mut failed = false;
    while !failed {
        for (op, request) in asked(node) {
            let is_it = writes_to(&request, file);
            let result = node.disk.perform(request);
            let result = if is_it { Err(DiskError::Io { errno: 5 }) } else { result };
            node.storage.on_completed(node.now, op, result);
            failed |= is_it;
        }
    }
    assert!(matches!(node.storage.halt(), Some(Halt::DiskFailed { .. })));
}

#[test]
fn what_filled_a_hole_and_may_lie_in_a_cache_alone_is_written_again() {
    let (node, frames) = grown([40, 50, 60, 700, 80]);
    let mut disk = node.disk;
    harm(&mut disk, &frames[1]);
    harm(&mut disk, &frames[4]);
    let mut node = Node::start(disk, Start::Run);
    let (file, _) = body(&node.disk, &frames[2]);
    refill_unsynced(&mut node, &frames[1], file);
    let is_its_write = |request: &DiskRequest| writes_to(request, file);
    // Bad after all, or good.
    for is_good in [false, true] {
        let mut disk = node.disk.clone();
        if !is_good {
            harm(&mut disk, &frames[1]);
        }
        disk.requests.clear();
        let mut node = Node::start(disk, Start::Run);
        let writes = node.disk.requests.iter().filter(|request| is_its_write(request)).count();
        if is_good {
            assert!(writes > 0, "it may lie in the cache alone");
            assert_eq!(node.storage.hole(), Some(LogId::new(Term(1), LogIndex(5))));
        } else {
            assert_eq!(node.storage.hole(), Some(LogId::new(Term(1), LogIndex(2))));
            refill(&mut node, &frames[1]);
        }
        assert_eq!(node.storage.durable(), LogIndex(4));
        refill(&mut node, &frames[4]);
        assert_eq!(node.storage.durable(), LogIndex(5));
        node.settle();
        node.disk.requests.clear();
        let mut node = node.restart();
        assert!(!node.disk.requests.iter().any(is_its_write), "once is enough");
        assert_eq!(node.read(1).len(), 5);
    }
}

/// It was believed; and where the node was then left alone, a power cut took what nobody else had. That it lies in a
/// full segment, of which a restart reads the end record alone, is no reason to believe it.
#[test]
fn what_filled_a_hole_of_a_running_node_is_not_believed_from_a_cache_either() {
    let (mut node, frames) = grown(sizes());
    let (file, _) = body(&node.disk, &frames[7]);
    harm(&mut node.disk, &frames[7]);
    node.storage.read(Reader::Machine, LogIndex(1), node.last.index, u32::MAX);
    node.settle();
    let hole = Some(LogId::new(Term(1), LogIndex(8)));
    assert_eq!(node.storage.hole(), hole);
    refill_unsynced(&mut node, &frames[7], file);
    let (cached, last) = (node.disk, node.last.index);
    for is_good in [false, true] {
        let mut disk = cached.clone();
        if !is_good {
            harm(&mut disk, &frames[7]);
        }
        disk.requests.clear();
        let mut node = Node::start(disk, Start::Run);
        let is_its_write = |request: &DiskRequest| writes_to(request, file);
        if is_good {
            assert!(node.disk.requests.iter().any(is_its_write), "it may lie in the cache alone");
        } else {
            assert_eq!((node.storage.hole(), node.storage.durable()), (hole, LogIndex(7)));
            refill(&mut node, &frames[7]);
        }
        assert_eq!((node.storage.hole(), node.storage.durable()), (None, last));
        node.settle();
        node.disk.requests.clear();
        let mut node = node.restart();
        assert!(!node.disk.requests.iter().any(is_its_write), "once is enough");
        assert_eq!(node.read(1).len(), 300);
    }
}

/// An earlier life had named it and died before it wrote. The next one names none as long as nothing is given: with
/// that on its way to the second copy, both held the old name, and the entry was written by it. Had that failed at
/// its sync, the first copy would have counted, and the entry been believed.
#[test]
fn an_entry_is_written_again_by_no_name_that_is_being_taken_back() {
    let is_of_log = |action: &Action| {
        let Action::Disk { request, .. } = action else { return false };
        matches!(
            request,
            DiskRequest::Read { file: File::Segment(_), .. }
                | DiskRequest::Write { file: File::Segment(_), .. }
        )
    };
    let (node, frames) = grown([40, 50, 60]);
    let mut disk = node.disk;
    harm(&mut disk, &frames[1]);
    harm(&mut disk, &frames[2]);
    let give = |node: &mut Node| {
        let head = Head::parse_whole(&frames[1], node.recovered().seed).expect("it is whole");
        node.storage.refill(&head, &frames[1]);
    };
    let mut node = Node::start(disk, Start::Run);
    give(&mut node);
    let mut asked = node.ask();
    while !asked.iter().any(is_of_log) {
        asked.into_iter().for_each(|action| node.perform(action));
        asked = node.ask();
    }
    assert_eq!(node.storage.promises().durable().filling, LogIndex(2));
    let disk = node.disk;
    let mut storage = Storage::new(&config(), 42);
    storage.on_start(Start::Run);
    let mut node =
        Node { storage, disk, recovered: None, ..Node::start(Disk::default(), format()) };
    let takes_back = |node: &Node| {
        node.recovered.is_some() && node.storage.promises().wanted().filling == LogIndex(0)
    };
    while !takes_back(&node) {
        let mut out = Vec::new();
        node.recovered = node.storage.recover(node.now, &mut out).or_else(|| node.recovered.take());
        out.extend(node.ask());
        out.into_iter().for_each(|action| node.perform(action));
    }
    // Of the first copy; what is asked for then is that of the second.
    let held = node.ask();
    give(&mut node);
    assert!(!held.iter().any(is_of_log));
    assert_eq!(node.ask().iter().find(|action| is_of_log(action)).map(|_| ()), None);
    assert_eq!(node.storage.promises().durable().filling, LogIndex(2), "both copies hold it still");
    held.into_iter().for_each(|action| node.perform(action));
    node.settle();
    assert_eq!(node.storage.hole().map(|hole| hole.index), Some(LogIndex(3)));
    assert_eq!(node.restart().storage.hole().map(|hole| hole.index), Some(LogIndex(3)));
}
