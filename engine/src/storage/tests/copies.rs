//! Copies that peers give of lost entries: how much of them is held before it is written.

use super::{
    holes::{grown_as, harm, offset},
    *,
};
use crate::marks::Mark;

/// One segment for all, and four appends of a little more than an entry.
fn wide(append_bytes_max: u32) -> Config {
    let mut config = config();
    config.segment_bytes = 256 << 10;
    config.tuning.append_bytes_max = append_bytes_max;
    config
}

/// A node that has lost all of these and knows it, and the frames as a peer has them.
fn node_without(config: &Config, sizes: &[usize]) -> (Node, Vec<Bytes>) {
    let (mut node, frames) = grown_as(config, sizes.iter().copied());
    frames.iter().for_each(|frame| harm(&mut node.disk, frame));
    (Node::start_as(config, node.disk, Start::Run), frames)
}

/// What a peer answers to a question for this entry, not yet written.
fn answer(node: &mut Node, from: LogIndex, frames: &[Bytes]) {
    for frame in &frames[from.0 as usize - 1..] {
        let head = Head::parse_whole(frame, node.recovered().seed).expect("it is whole");
        node.storage.refill(&head, frame);
        node.storage.journal.holes.check();
    }
}

fn hole(node: &Node) -> Option<u64> {
    node.storage.hole().map(|hole| hole.index.0)
}

/// All of it was held until it was written, entry by entry: of forty thousand lost ones 10 GiB.
#[test]
fn no_more_is_taken_than_has_room_and_the_rest_is_asked_for_later() {
    let config = wide(8 << 10);
    let (mut node, frames) = node_without(&config, &[7000; 20]);
    let mut asked = Vec::new();
    while let Some(from) = hole(&node) {
        assert!(!node.storage.is_crowded(), "{from} is waited for, and nobody is asked");
        asked.push(from);
        answer(&mut node, LogIndex(from), &frames);
        assert!(node.storage.memory_bytes() <= 32 << 10, "{}", node.storage.memory_bytes());
        // As long as half the room is taken.
        let mut left = node.storage.memory_bytes();
        while left > 16 << 10 {
            assert_eq!(node.storage.is_crowded(), hole(&node).is_some());
            node.ask().into_iter().for_each(|action| node.perform(action));
            left = node.storage.memory_bytes();
        }
    }
    assert_eq!(asked, [1, 5, 7, 9, 11, 13, 15, 17, 19]);
    node.settle();
    assert_eq!((node.storage.memory_bytes(), node.storage.durable()), (0, LogIndex(20)));
    let mut node = Node::start_as(&config, node.disk, Start::Run);
    assert_eq!((node.storage.first_owed(), node.read(1).len()), (None, 20));
}

/// Entries may be larger than what is sent at a time by now.
#[test]
fn an_entry_without_room_is_taken_when_nothing_else_is_held() {
    let config = wide(32 << 10);
    let (mut node, frames) = node_without(&config, &[20_000, 100, 20_000]);
    let tuning = Tuning { append_bytes_max: 4 << 10, ..config.tuning.clone() };
    node.storage.tune(&tuning);
    assert!(!node.storage.is_crowded());
    answer(&mut node, LogIndex(2), &frames[..2]);
    assert!(node.storage.is_crowded(), "the first does not fit beside the second");
    answer(&mut node, LogIndex(1), &frames);
    assert_eq!(hole(&node), Some(1));
    node.settle();
    assert!(!node.storage.is_crowded());
    answer(&mut node, LogIndex(1), &frames);
    assert_eq!((hole(&node), node.storage.is_crowded()), (Some(3), true));
    node.settle();
    answer(&mut node, LogIndex(3), &frames);
    node.settle();
    assert_eq!((hole(&node), node.storage.durable()), (None, LogIndex(3)));
}

/// An answer has as many entries as an append, of which one may be missing.
#[test]
fn of_what_a_copy_came_in_nothing_is_held() {
    let (mut node, frames) = node_without(&wide(8 << 10), &[100, 7000]);
    let given = Bytes::from(frames.concat());
    let head = Head::parse_whole(&given, node.recovered().seed).expect("it is whole");
    node.storage.refill(&head, &given.slice(..frames[0].len()));
    assert_eq!(hole(&node), Some(2));
    assert!(given.is_unique(), "7000 bytes are held for 100");
}

/// What the log loses while its copy waits to be written, nobody writes.
#[test]
fn of_what_is_cut_no_copy_is_held() {
    let (mut node, frames) = node_without(&wide(8 << 10), &[100; 6]);
    answer(&mut node, LogIndex(1), &frames);
    assert_eq!((hole(&node), node.storage.journal.holes.is_empty()), (None, false));
    let all = node.storage.memory_bytes();
    cut(&mut node, &frames[..2]);
    node.storage.journal.holes.check();
    assert!(3 * node.storage.memory_bytes() <= all, "{} of {all}", node.storage.memory_bytes());
    node.settle();
    assert_eq!((node.storage.memory_bytes(), node.read(1).len()), (0, 2));
}

/// Lost at the start or later, doubted, given or not, cut and forgotten, in any order: what is kept beside
/// the holes is of them, and in the end each is filled.
#[test]
fn whatever_becomes_of_holes_each_is_in_one_state() {
    let config = Config { segment_bytes: 64 << 10, ..wide(512) };
    let (mut late, mut doubted) = (0, 0);
    for seed in 1..=20 {
        let mut state = seed;
        let mut draw = |below: usize| {
            state = u64::wrapping_mul(state, 6_364_136_223_846_793_005).wrapping_add(seed);
            (state >> 33) as usize % below
        };
        let (mut node, mut frames) = grown_as(&config, (0..40).map(|n| 30 + n * 131 % 900));
        for _ in 0..80 {
            // If the last one is bad, a restart reads all of them.
            let at = (draw(2) * frames.len()).saturating_sub(1).max(draw(frames.len()));
            match draw(12) {
                0..=2 if is_there(&node, &frames[at]) => harm(&mut node.disk, &frames[at]),
                3..=4 => late += usize::from(is_lost(&mut node, at)),
                5..=7 => {
                    let from = node.storage.hole().filter(|_| draw(3) > 0);
                    answer(
                        &mut node,
                        from.map_or(LogIndex(1 + at as u64), |hole| hole.index),
                        &frames,
                    );
                }
                8..=9 => {
                    for _ in 0..draw(9) {
                        node.ask().into_iter().for_each(|action| node.perform(action));
                    }
                }
                10 => {
                    node = Node::start_as(&config, node.disk, Start::Run);
                    doubted += usize::from(node.storage.marks().has(Mark::HoleFilled));
                    cut(&mut node, &frames);
                }
                11 if frames.len() > 20 => {
                    frames.truncate(frames.len() - 1);
                    cut(&mut node, &frames);
                }
                _ => {}
            }
            node.storage.journal.holes.check();
        }
        fill(&mut node, &frames);
        // What went bad behind one that was owed is read now.
        late += (0..frames.len()).filter(|&at| is_lost(&mut node, at)).count();
        fill(&mut node, &frames);
        assert!(node.storage.journal.holes.is_empty(), "{seed}");
        let mut node = Node::start_as(&config, node.disk, Start::Run);
        assert_eq!((node.storage.first_owed(), node.read(1).len()), (None, frames.len()), "{seed}");
    }
    assert!(
        late > 0 && doubted > 0,
        "{late} were found late, and {doubted} doubted ones were good"
    );
}

fn is_there(node: &Node, frame: &Bytes) -> bool {
    node.disk.files.values().any(|bytes| offset(bytes, frame).is_some())
}

/// Reads an entry. True if it is lost.
fn is_lost(node: &mut Node, at: usize) -> bool {
    let index = LogIndex(1 + at as u64);
    node.settle();
    // What was waited for may have come by now.
    while node.storage.take_read().is_some() {}
    node.storage.read(Reader::Machine, index, index, 1);
    node.settle();
    node.storage.take_read().is_none()
}

fn fill(node: &mut Node, frames: &[Bytes]) {
    node.settle();
    while let Some(hole) = node.storage.hole() {
        answer(node, hole.index, frames);
        node.settle();
    }
}

/// The log ends with the last of these.
fn cut(node: &mut Node, frames: &[Bytes]) {
    let last = LogId::new(Term(1), LogIndex(frames.len() as u64));
    if node.storage.journal.last != last {
        node.truncate(last);
    }
}
