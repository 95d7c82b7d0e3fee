//! What a restart reads of its entries, and how often: alone before the verdict, and for a machine that
//! replays.

use super::{
    holes::{body, harm, refill},
    *,
};
use crate::file::Class;

/// Reads of entries, as they are asked for.
#[derive(Default)]
struct Asked {
    /// All that were asked for before any of them was answered, the most bytes of them.
    bytes_at_once: u64,
    reads_at_once: usize,
    reads: Vec<(File, u64, u64)>,
}

impl Asked {
    fn note(&mut self, out: &[Action]) {
        let read = |action: &Action| match action {
            Action::Disk {
                class: Class::Serve,
                request: DiskRequest::Read { file: file @ File::Segment(_), offset, len },
                ..
            } => Some((*file, *offset, u64::from(*len))),
            _ => None,
        };
        let reads: Vec<_> = out.iter().filter_map(read).collect();
        self.bytes_at_once = self.bytes_at_once.max(reads.iter().map(|read| read.2).sum());
        self.reads_at_once = self.reads_at_once.max(reads.len());
        self.reads.extend(reads);
    }

    /// How many reads cover this byte.
    fn of(&self, (file, at): (File, usize)) -> usize {
        let covers = |&&(other, offset, len): &&(File, u64, u64)| {
            other == file && (offset..offset + len).contains(&(at as u64))
        };
        self.reads.iter().filter(covers).count()
    }
}

/// Performs what is asked until nothing is.
fn settle(node: &mut Node) -> Asked {
    let mut asked = Asked::default();
    loop {
        let mut out = Vec::new();
        let recovered = node.storage.recover(node.now, &mut out);
        node.recovered = recovered.or_else(|| node.recovered.take());
        node.storage.persist(node.now, &mut out);
        node.halted = node.storage.halt().or_else(|| node.halted.take());
        if out.is_empty() || node.halted.is_some() {
            return asked;
        }
        asked.note(&out);
        out.into_iter().for_each(|action| node.perform(action));
    }
}

fn restart(disk: Disk, config: &Config) -> (Node, Asked) {
    start(disk, config, Start::Run)
}

fn start(disk: Disk, config: &Config, start: Start) -> (Node, Asked) {
    let mut storage = Storage::new(config, 42);
    storage.on_start(start);
    let mut node = Node { storage, ..Node::start_as(config, Disk::default(), Start::Run) };
    (node.disk, node.halted) = (disk, None);
    let asked = settle(&mut node);
    node.last = node.recovered.as_ref().map_or(LogId::ZERO, |recovered| recovered.last);
    (node, asked)
}

/// The only voter, with one segment of 5 MB, and a frame for each entry.
fn alone() -> (Config, Node, Vec<Bytes>) {
    let mut config = config();
    (config.segment_bytes, config.first_segment_bytes) = (8 << 20, 8 << 20);
    config.tuning.append_bytes_max = 1 << 20;
    let member = Member { id: NodeId(1), incarnation: 0, address: Bytes::new() };
    let members = Arc::new(Membership::of([member]));
    let start = Start::Format { cluster: ClusterId(5), members };
    let mut node = Node::start_as(&config, Disk::default(), start);
    node.append_all(1, (0..100).map(|n| 40_000 + n * 300));
    node.now = node.storage.deadline().expect("the hint is written when writes pause");
    node.settle();
    let frames = (1..=100).map(|index| {
        node.storage.read(Reader::Machine, LogIndex(index), LogIndex(index), 1);
        node.settle();
        node.storage.take_read().expect("it is there").1.frames
    });
    let frames = frames.collect();
    (config, node, frames)
}

/// All of the segment lay in memory, twice, and was gone through only when it was there.
#[test]
fn who_is_alone_reads_its_entries_once_and_a_few_at_a_time() {
    let (config, node, frames) = alone();
    let (last, disk) = (node.last, node.disk);
    let (node, asked) = restart(disk.clone(), &config);
    assert_eq!((node.recovered().last, node.storage.durable()), (last, last.index));
    assert!(
        !node.storage.marks().has(Mark::SlotsBelieved),
        "none is taken for what it was not seen to be"
    );
    assert_eq!(node.storage.scrubbed_bytes(), 0, "what was read is not read behind once more");
    for frame in &frames {
        // Its last block may be the first of the next one.
        let (file, end) = body(&disk, frame);
        assert_eq!(asked.of((file, end - frame.len() / 2)), 1);
    }
    // The window behind the last one is read as well, and at one time.
    assert!(asked.reads_at_once > 2 && asked.bytes_at_once < 5 << 20, "{}", asked.bytes_at_once);
}

/// However slowly they come: a few pieces are on their way until all are, and no more.
#[test]
fn what_is_read_before_the_verdict_is_bounded_and_never_waits() {
    const MOST: u64 = 2 << 20;
    let (config, node, frames) = alone();
    let active = node.storage.journal.active.as_ref().expect("it takes entries");
    let (data_at, end) = (active.layout.data_at, active.end());
    // What was believed, and not the window behind it.
    let piece = |action: &Action| match action {
        Action::Disk {
            request: DiskRequest::Read { file: File::Segment(_), offset, len }, ..
        } => {
            let to = offset + u64::from(*len);
            (*offset >= data_at && to <= end.next_multiple_of(512)).then_some(u64::from(*len))
        }
        _ => None,
    };
    let mut storage = Storage::new(&config, 42);
    storage.on_start(Start::Run);
    let mut alone = Node { storage, ..Node::start_as(&config, Disk::default(), Start::Run) };
    (alone.disk, alone.halted) = (node.disk, None);
    let (mut queue, mut asked) = (VecDeque::new(), 0);
    let mut under_way = Vec::new();
    loop {
        let mut out = Vec::new();
        let recovered = alone.storage.recover(alone.now, &mut out);
        alone.recovered = recovered.or_else(|| alone.recovered.take());
        asked += out.iter().filter_map(piece).count();
        queue.extend(out);
        under_way.push(queue.iter().filter_map(piece).sum::<u64>());
        let Some(action) = queue.pop_front() else { break };
        alone.perform(action);
    }
    assert_eq!((alone.storage.halt(), alone.recovered().last), (None, node.last));
    // Several entries each.
    assert!(asked > 10 && asked < frames.len() / 2, "{asked} pieces");
    assert!(under_way.iter().all(|bytes| *bytes <= MOST), "{under_way:?}");
    let full = under_way.iter().filter(|bytes| **bytes > MOST - (512 << 10)).count();
    assert!(full > asked / 3, "{full} of {under_way:?}");
}

#[test]
fn what_is_bad_is_known_to_who_is_alone_before_the_verdict() {
    let (config, node, frames) = alone();
    for bad in [0, 1, 50, 97] {
        let mut disk = node.disk.clone();
        harm(&mut disk, &frames[bad]);
        let (node, _) = restart(disk, &config);
        let Some(Halt::Refused { row: "damaged", expected, found, .. }) = &node.halted else {
            panic!("{:?}", node.halted)
        };
        assert_eq!(*expected, format!("entry 1.{}", bad + 1));
        assert_eq!(found, "entry body checksum");
        let mut disk = node.disk;
        let (file, at) = body(&disk, &frames[bad + 1]);
        disk.unreadable = Some((file, at as u64));
        let (node, _) = restart(disk, &config);
        assert!(matches!(node.halted, Some(Halt::DiskFailed { .. })), "{:?}", node.halted);
    }
}

/// One of three, with full segments of 2 MB and one that is not full, and a frame for each entry.
fn one_of_three() -> (Config, Node, Vec<Bytes>) {
    let mut config = config();
    (config.segment_bytes, config.first_segment_bytes) = (2 << 20, 2 << 20);
    config.tuning.append_bytes_max = 1 << 20;
    let (node, frames) = holes::grown_as(&config, (0..150).map(|n| 80_000 + n * 300));
    assert!(node.storage.journal.sealed.len() > 5, "{}", node.storage.journal.sealed.len());
    (config, node, frames)
}

/// All of the log behind the snapshot lay in memory, twice: a node that can be saved ended for want of that.
#[test]
fn who_becomes_the_only_voter_reads_its_entries_a_few_at_a_time() {
    let (config, node, frames) = one_of_three();
    for acknowledged_loss in [false, true] {
        let force = Start::ForceSoleVoter { acknowledged_loss };
        let (forced, asked) = start(node.disk.clone(), &config, force);
        let Some(Halt::Forced(done)) = forced.halted else { panic!("{:?}", forced.halted) };
        assert_eq!((done.is_done, done.last, done.cut), (acknowledged_loss, node.last, None));
        // The window behind the last one is read as well, and at one time.
        assert!(
            asked.reads_at_once > 2 && asked.bytes_at_once < 4 << 20,
            "{}",
            asked.bytes_at_once
        );
        for frame in frames.iter().step_by(10) {
            let (file, end) = body(&node.disk, frame);
            assert!(asked.of((file, end - frame.len() / 2)) > 0, "it is believed");
        }
    }
}

/// The segment that holds it is read whole, and no other.
#[test]
fn who_becomes_the_only_voter_ends_before_what_is_bad_and_keeps_what_is_before() {
    let (config, node, frames) = one_of_three();
    for bad in [0, 70, 148, 149] {
        let mut disk = node.disk.clone();
        harm(&mut disk, &frames[bad]);
        let force = Start::ForceSoleVoter { acknowledged_loss: true };
        let (forced, asked) = start(disk, &config, force);
        let Some(Halt::Forced(done)) = forced.halted else { panic!("{:?}", forced.halted) };
        let last = LogId::new(Term(u64::from(bad > 0)), LogIndex(bad as u64));
        assert_eq!((done.is_done, done.last), (true, last));
        assert!(asked.bytes_at_once < 5 << 20, "{bad}: {}", asked.bytes_at_once);
        let (alone, _) = restart(forced.disk, &config);
        assert_eq!((alone.recovered().last, alone.halted), (last, None), "{bad}");
    }
}

/// A log of several segments, known to be committed, and a frame for each entry but the last.
fn committed() -> (Node, Vec<Bytes>) {
    let (mut node, frames) = holes::grown(sizes());
    node.append(1, 40);
    node.settle();
    node.storage.hint_committed(node.last.index);
    node.now = node.storage.deadline().expect("the hint is written when writes pause");
    node.settle();
    (node, frames)
}

const BYTES: u32 = 6000;

/// Reads on for the machine. Gives what came, if anything did.
fn next(node: &mut Node, asked: &mut Asked, from: LogIndex) -> Option<ReadBack> {
    node.storage.read(Reader::Machine, from, node.last.index, BYTES);
    let more = settle(node);
    asked.bytes_at_once = asked.bytes_at_once.max(more.bytes_at_once);
    asked.reads_at_once = asked.reads_at_once.max(more.reads_at_once);
    asked.reads.extend(more.reads);
    node.storage.take_read().map(|(_, back)| back)
}

#[test]
fn a_machine_that_replays_is_read_ahead_for_and_each_entry_is_read_once() {
    let (node, frames) = committed();
    let (mut node, _) = restart(node.disk, &config());
    assert_eq!(node.recovered().committed, node.last.index);
    let (mut asked, mut from, mut given) = (Asked::default(), LogIndex(1), Vec::new());
    while from.0 <= frames.len() as u64 {
        let back = next(&mut node, &mut asked, from).expect("it is there");
        assert_eq!(back.first, from);
        given.extend_from_slice(&back.frames);
        from = back.last.next();
    }
    assert!(given.starts_with(&frames.concat()));
    assert!(asked.reads_at_once > 2, "{}", asked.reads_at_once);
    // Four times as much, what is wanted itself, and the slots of the next segment.
    assert!(asked.bytes_at_once < 7 * u64::from(BYTES), "{}", asked.bytes_at_once);
    for frame in &frames {
        // Another one's block may be one of its own.
        let (file, at) = body(&node.disk, frame);
        assert!((1..=2).contains(&asked.of((file, at))), "{file} {at}");
    }
    let all: u64 = asked.reads.iter().map(|read| read.2).sum();
    assert!(all < given.len() as u64 * 3 / 2, "{all} for {}", given.len());
    // It has all that was committed: what it wants from now on is read when it wants it.
    assert!(!node.storage.catch_up(node.now, LogIndex(0), LogId::ZERO));
    assert!(node.storage.catch_up(node.now, node.last.index, node.last));
    let mut asked = Asked::default();
    next(&mut node, &mut asked, LogIndex(1)).expect("it is there");
    assert_eq!(asked.reads_at_once, 1);
    assert!(node.storage.reads.is_idle());
}

/// What was read ahead is not checked before it is wanted, and never given unchecked.
#[test]
fn an_entry_that_is_bad_where_it_was_read_ahead_is_waited_for() {
    let (node, frames) = committed();
    for bad in [3, 20, 150, 290] {
        let mut disk = node.disk.clone();
        harm(&mut disk, &frames[bad]);
        let (mut node, _) = restart(disk, &config());
        let (mut asked, mut from, mut given) = (Asked::default(), LogIndex(1), Vec::new());
        while from.0 <= frames.len() as u64 {
            let Some(back) = next(&mut node, &mut asked, from) else {
                assert_eq!((from, &node.halted), (LogIndex(bad as u64 + 1), &None));
                refill(&mut node, &frames[bad]);
                continue;
            };
            assert_eq!(back.first, from);
            given.extend_from_slice(&back.frames);
            from = back.last.next();
        }
        assert!(given.starts_with(&frames.concat()));
    }
}

/// The machine goes on from somewhere else: a snapshot took the place of what it had.
#[test]
fn what_was_read_ahead_for_nothing_is_dropped() {
    let (node, frames) = committed();
    let (mut node, _) = restart(node.disk, &config());
    let mut asked = Asked::default();
    next(&mut node, &mut asked, LogIndex(1)).expect("it is there");
    let back = next(&mut node, &mut asked, LogIndex(200)).expect("it is there");
    let count = (back.last.0 - back.first.0) as usize + 1;
    assert_eq!(
        (back.first, &back.frames[..]),
        (LogIndex(200), &frames[199..][..count].concat()[..])
    );
}

/// The machine may want something else than was foreseen: elsewhere, less far, or less at a time.
#[test]
fn what_was_read_ahead_is_given_to_nobody_who_asks_otherwise() {
    let (node, _) = committed();
    let end = LogIndex(u64::MAX);
    // So far behind what was given it begins, so far it goes, and so much at a time.
    let asked =
        [(1, u64::MAX, BYTES), (2, u64::MAX, BYTES), (1, 0, BYTES), (1, u64::MAX, BYTES / 2)];
    for (n, (behind, reach, bytes_max)) in asked.into_iter().enumerate() {
        let (mut node, _) = restart(node.disk.clone(), &config());
        node.storage.read(Reader::Machine, LogIndex(1), end, BYTES);
        node.settle();
        let (_, given) = node.storage.take_read().expect("it is there");
        let from = LogIndex(given.last.0 + behind);
        let to = LogIndex(from.0.saturating_add(reach));
        node.storage.read(Reader::Machine, from, to, bytes_max);
        node.settle();
        let (_, given) = node.storage.take_read().expect("it is there");
        assert_eq!(given.first, from, "ask {n}");
        assert!(given.last <= to, "ask {n} was given {}", given.last);
        let is_small = given.first == given.last || given.frames.len() <= bytes_max as usize;
        assert!(is_small, "ask {n} was given {} bytes", given.frames.len());
    }
}
