//! A log that crosses entry 2^32: a slot holds 32 bits of its entry's index, and nothing else may do with them.

use super::{
    holes::{harm, harm_slots, refill},
    joins::stage,
    scrubs::snap,
    *,
};
use crate::marks::Mark;

/// The first index whose low 32 bits are those of another one: of 0, then of the first entry, and so on.
const WRAPS: u64 = 1 << 32;
const FIRST: u64 = WRAPS - 100;

/// A node that a peer's snapshot has brought here, and 300 entries behind it, in several segments.
fn far() -> Node {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    let at = LogId::new(Term(1), LogIndex(FIRST - 1));
    stage(&mut node, at, 90_000);
    node.storage.install(at);
    node.settle();
    assert_eq!(node.storage.first(), LogIndex(FIRST));
    node.last = at;
    node.append_all(1, sizes());
    assert!(node.storage.journal.sealed.len() > 3);
    node.now = node.storage.deadline().expect("the hint is written when writes pause");
    node.settle();
    node
}

/// Its entries are these, of these terms, and what was written.
fn assert_holds(node: &mut Node, terms: impl IntoIterator<Item = (u64, usize)>) {
    let ids = terms.into_iter().zip(FIRST..);
    let expected: Vec<_> =
        ids.map(|((term, len), n)| (LogId::new(Term(term), LogIndex(n)), len)).collect();
    assert_eq!(node.read(FIRST), expected);
    let last = expected.last().expect("there are some").0;
    assert_eq!((node.storage.durable(), node.halted.take()), (last.index, None));
}

/// How long the body is of an entry of so many bytes, if any.
const fn len(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { bytes + 4 }
}

fn whole() -> Vec<(u64, usize)> {
    sizes().map(|bytes| (1, len(bytes))).collect()
}

fn frame(node: &mut Node, index: u64) -> Bytes {
    node.storage.read(Reader::Machine, LogIndex(index), LogIndex(index), 1);
    node.settle();
    node.storage.take_read().expect("it is there").1.frames
}

#[test]
fn a_log_rolls_and_restarts_beyond_2_to_the_32() {
    let mut node = far();
    let whole = whole();
    assert_holds(&mut node, whole.clone());
    let mut node = node.restart();
    assert_eq!(node.recovered().last, LogId::new(Term(1), LogIndex(WRAPS + 199)));
    assert_holds(&mut node, whole.clone());
    node.append_all(2, sizes());
    let again = sizes().map(|bytes| (2, len(bytes)));
    let all: Vec<_> = whole.into_iter().chain(again).collect();
    assert_holds(&mut node, all.clone());
    let mut node = node.restart();
    assert_holds(&mut node, all);

    node.storage.hint_committed(node.last.index);
    node.storage.retain(node.last.index, None);
    for _ in 0..2 {
        node.append_all(2, [40]);
        node.storage.hint_committed(node.last.index);
        snap(&mut node);
    }
    let (last, first) = (node.last, node.storage.first());
    assert!(first > LogIndex(WRAPS), "{first}: what both snapshots hold is let go of");
    let mut node = node.restart();
    assert_eq!((node.storage.snapshot(), node.storage.restored()), (last, Some(last)));
    assert_eq!((node.storage.first(), node.recovered().last), (first, last));
    assert_eq!(node.read(first.0).len() as u64, last.index.0 + 1 - first.0);
}

#[test]
fn a_log_is_cut_around_2_to_the_32() {
    let whole = whole();
    for last in [FIRST, WRAPS - 50, WRAPS - 2, WRAPS - 1, WRAPS, WRAPS + 1, WRAPS + 150] {
        let mut node = far();
        node.truncate(LogId::new(Term(1), LogIndex(last)));
        node.append_all(3, [500, 0, 700]);
        let kept = whole.iter().copied().take((last + 1 - FIRST) as usize);
        let mut held: Vec<_> = kept.chain([500, 0, 700].map(|bytes| (3, len(bytes)))).collect();
        assert_holds(&mut node, held.clone());
        node = node.restart();
        assert_eq!(node.recovered().last, LogId::new(Term(3), LogIndex(last + 3)));
        assert_holds(&mut node, held.clone());
        node.append_all(4, sizes());
        held.extend(sizes().map(|bytes| (4, len(bytes))));
        node = node.restart();
        assert_holds(&mut node, held);
    }
}

/// Who vouches for a bad entry is its slot, and for bad slots the entries: by the index, which the slot has half of.
#[test]
fn what_is_bad_around_2_to_the_32_is_known_and_mended() {
    for index in [WRAPS - 1, WRAPS, WRAPS + 1] {
        let mut node = far();
        let entry = frame(&mut node, index);
        harm(&mut node.disk, &entry);
        let mut node = node.restart();
        let bad = LogId::new(Term(1), LogIndex(index));
        node.storage.read(Reader::Machine, LogIndex(FIRST), LogIndex(u64::MAX), 1 << 20);
        while node.storage.hole().is_none() {
            node.settle();
            let (_, read) = node.storage.take_read().expect("what is whole is read");
            node.storage.read(Reader::Machine, read.last.next(), LogIndex(u64::MAX), 1 << 20);
            node.settle();
        }
        assert_eq!(node.storage.hole(), Some(bad));
        refill(&mut node, &entry);
        assert_eq!(node.storage.hole(), None);
        assert_holds(&mut node.restart(), whole());

        let mut node = far();
        harm_slots(&mut node.disk, &entry, 1);
        let mut node = node.restart();
        node.storage.snapshots.has_peers = false;
        assert_holds(&mut node, whole());
        assert!(node.storage.marks().has(Mark::SlotsMadeAnew));
        node.settle();
        assert_holds(&mut node.restart(), whole());
    }
}
