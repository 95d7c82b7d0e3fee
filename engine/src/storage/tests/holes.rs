//! Entries that go bad under their slots, and what a peer gives instead.

use super::{scrubs::snap, *};
use crate::{
    disk::segment::{Header, Layout},
    entry::Head,
    marks::Mark,
};

/// A node with a log that is proven durable, and its frames as a peer has them.
pub(super) fn grown(sizes: impl IntoIterator<Item = usize>) -> (Node, Vec<Bytes>) {
    grown_as(&config(), sizes)
}

pub(super) fn grown_as(
    config: &Config,
    sizes: impl IntoIterator<Item = usize>,
) -> (Node, Vec<Bytes>) {
    let mut node = Node::start_as(config, Disk::default(), format());
    node.append_all(1, sizes);
    node.now = node.storage.deadline().expect("the hint is written when writes pause");
    node.settle();
    let mut given = Vec::new();
    let mut next = LogIndex(1);
    while next <= node.last.index {
        node.storage.read(Reader::Machine, next, next, 1);
        node.settle();
        let (_, read) = node.storage.take_read().expect("it is there");
        given.push(read.frames);
        next = next.next();
    }
    (node, given)
}

pub(super) fn offset(bytes: &[u8], frame: &Bytes) -> Option<usize> {
    (0..bytes.len()).find(|&at| bytes[at] == frame[0] && bytes[at..].starts_with(frame))
}

/// Where the body of an entry lies.
pub(super) fn body(disk: &Disk, frame: &Bytes) -> (File, usize) {
    let lies =
        |(file, bytes): (&File, &Vec<u8>)| Some((*file, offset(bytes, frame)? + frame.len() - 1));
    let segments = disk.files.iter().filter(|(file, _)| matches!(file, File::Segment(_)));
    segments.filter_map(lies).next().expect("the entry is in the log")
}

pub(super) fn harm(disk: &mut Disk, frame: &Bytes) {
    let (file, at) = body(disk, frame);
    disk.files.get_mut(&file).expect("it is there")[at] ^= 0x10;
}

pub(super) fn refill(node: &mut Node, frame: &Bytes) {
    let head = Head::parse_whole(frame, node.recovered().seed).expect("it is whole");
    node.storage.refill(&head, frame);
    node.settle();
}

#[test]
fn what_is_lost_is_named_given_and_there_after_a_restart() {
    let (node, frames) = grown([40, 50, 60, 700, 80]);
    let mut disk = node.disk;
    harm(&mut disk, &frames[1]);
    harm(&mut disk, &frames[2]);
    // The last one is read, and because it is bad so are all.
    harm(&mut disk, &frames[4]);
    let node = Node::start(disk, Start::Run);
    assert_eq!(node.recovered().last.index, LogIndex(5), "which they were is known");
    assert_eq!(node.recovered().gate, None);
    assert_eq!(node.storage.durable(), LogIndex(1), "nothing behind them is acknowledged");
    assert_eq!(node.storage.first_owed(), Some(LogIndex(2)));
    // A crash before anything was given: they are neither torn nor forgotten.
    let mut node = node.restart();
    assert_eq!(node.storage.hole(), Some(LogId::new(Term(1), LogIndex(2))));
    refill(&mut node, &frames[2]);
    assert_eq!(node.storage.durable(), LogIndex(1));
    refill(&mut node, &frames[1]);
    assert_eq!(node.storage.durable(), LogIndex(4));
    refill(&mut node, &frames[4]);
    assert_eq!(node.storage.hole(), None);
    assert_eq!(node.storage.durable(), LogIndex(5));
    let mut node = node.restart();
    assert_eq!(node.storage.first_owed(), None);
    assert_eq!(node.read(1).len(), 5);
}

#[test]
fn a_cut_takes_what_is_missing_behind_it_and_leaves_what_is_before() {
    let (node, frames) = grown([40, 50, 60, 700, 80]);
    let mut disk = node.disk;
    [1, 3, 4].into_iter().for_each(|n| harm(&mut disk, &frames[n]));
    let mut node = Node::start(disk, Start::Run);
    node.truncate(LogId::new(Term(1), LogIndex(3)));
    node.settle();
    assert_eq!(node.storage.hole(), Some(LogId::new(Term(1), LogIndex(2))));
    assert_eq!(node.storage.durable(), LogIndex(1));
    refill(&mut node, &frames[1]);
    assert_eq!(node.storage.hole(), None);
    assert_eq!(node.storage.durable(), LogIndex(3));
    let mut node = node.restart();
    assert_eq!(node.read(1).len(), 3);
}

#[test]
fn another_entry_of_that_name_is_not_taken() {
    let (node, frames) = grown([40, 50, 60]);
    let mut disk = node.disk;
    harm(&mut disk, &frames[2]);
    let mut node = Node::start(disk, Start::Run);
    let seed = node.recovered().seed;
    let id = LogId::new(Term(1), LogIndex(3));
    let (_, other) = Batch::one(&[9; 60]).seal(seed, id, Term(1), Timestamp(9));
    assert_eq!(other.len(), frames[2].len());
    refill(&mut node, &other);
    assert_eq!(node.storage.durable(), LogIndex(2));
    refill(&mut node, &frames[2]);
    assert_eq!(node.storage.durable(), LogIndex(3));
}

/// The slot tells what a proven entry was: the node votes and acknowledges, and reads it then.
#[test]
fn a_restart_believes_the_slots_of_proven_entries_and_reads_them_behind() {
    let (node, frames) = grown([40, 50, 60, 700, 80]);
    let mut disk = node.disk;
    harm(&mut disk, &frames[1]);
    disk.requests.clear();
    let mut node = Node::start(disk, Start::Run);
    let met = node.storage.marks();
    assert!(met.has(Mark::SlotsBelieved) && met.has(Mark::ScrubFoundBadEntry));
    assert!(!met.has(Mark::HolesFound));
    assert_eq!((node.storage.durable(), node.storage.first_owed()), (LogIndex(5), None));
    assert_eq!(node.storage.hole(), Some(LogId::new(Term(1), LogIndex(2))));
    refill(&mut node, &frames[1]);
    assert_eq!(node.storage.hole(), None);
    let mut node = node.restart();
    assert!(!node.storage.marks().has(Mark::ScrubFoundBadEntry));
    let behind = |index| node.storage.journal.bytes_after(LogIndex(index));
    assert_eq!(node.storage.scrubbed_bytes(), behind(0) - behind(4));
    assert_eq!(node.read(1).len(), 5);
}

/// A segment of a life in which less was in flight.
fn narrowed(disk: &Disk, file: File) -> Disk {
    let mut disk = disk.clone();
    let bytes = disk.files.get_mut(&file).expect("it is there");
    let File::Segment(sequence) = file else { unreachable!() };
    for offset in Layout::new(bytes.len() as u64, 512).header_offsets() {
        let at = offset as usize..offset as usize + 512;
        let header = Header::decode(&bytes[at.clone()], config().group, sequence);
        let header = Header { window_bytes: 512, ..header.expect("it is good") };
        bytes[at].copy_from_slice(&header.encode());
    }
    disk
}

/// A restart looks as far behind the last entry as the header says: no life may write further, whatever
/// its own limit is. It is the same when a cut opens a full segment again.
#[test]
fn a_segment_keeps_the_window_that_its_header_names() {
    for cut in [false, true] {
        let (mut node, frames) = grown([40, 50, 60]);
        if cut {
            node.append_all(1, sizes());
        }
        let (file, _) = body(&node.disk, &frames[2]);
        node = Node::start(narrowed(&node.disk, file), Start::Run);
        if cut {
            node.truncate(LogId::new(Term(1), LogIndex(3)));
            node.settle();
        }
        node.disk.requests.clear();
        node.append_all(2, []);
        (0..9).for_each(|_| node.append(2, 200));
        node.settle();
        let bytes = |request: &DiskRequest| match request {
            DiskRequest::Write { file: written, at, .. } if *written == file => at.len(),
            _ => 0,
        };
        // Two of them fit into it.
        let most = node.disk.requests.iter().map(bytes).max();
        assert!(most.is_some_and(|most| (512..=1024).contains(&most)), "{most:?}");
        assert_eq!(node.storage.durable(), node.last.index);
        assert_eq!(node.restart().read(1).len(), 12);
    }
}

/// What is not proven is read however far it reaches, and as much of the window behind it.
#[test]
fn a_tail_is_read_as_far_as_it_goes() {
    let (mut node, _) = grown([40, 50, 60, 700, 80]);
    // In one go: the slots of all of them say that the five are durable, and no more.
    (0..9).for_each(|_| node.append(1, 700));
    node.settle();
    let whole = node.disk;
    let (&file, _) = whole.files.iter().find(|(f, _)| matches!(f, File::Segment(_))).expect("one");
    let layout = Layout::new(whole.files[&file].len() as u64, 512);
    let body = |disk: &Disk| {
        let mut used = disk.files[&file][..layout.data_end() as usize].iter();
        used.rposition(|&byte| byte != 0).expect("entries")
    };
    let end = body(&whole);
    let mut torn = whole.clone();
    torn.files.get_mut(&file).expect("it is there")[end - 4 * 768] ^= 4;
    for (disk, last) in [(whole, 14), (torn, 9)] {
        let wide = Node::start(disk.clone(), Start::Run);
        let narrow = Node::start(narrowed(&disk, file), Start::Run);
        assert_eq!(wide.recovered().last.index, LogIndex(last));
        assert_eq!(format!("{:?}", narrow.recovered()), format!("{:?}", wide.recovered()));
        assert_eq!(narrow.storage.durable(), LogIndex(last));
    }
}

#[test]
fn the_log_goes_on_behind_a_hole_and_into_the_next_segment_when_it_is_filled() {
    let (node, frames) = grown([40, 50, 60]);
    let mut disk = node.disk;
    harm(&mut disk, &frames[2]);
    let mut node = Node::start(disk, Start::Run);
    node.append_all(2, sizes());
    let segments = |node: &Node| {
        node.disk.files.keys().filter(|file| matches!(file, File::Segment(_))).count()
    };
    assert_eq!((node.storage.durable(), segments(&node)), (LogIndex(2), 1));
    refill(&mut node, &frames[2]);
    assert_eq!(node.storage.durable(), node.last.index);
    assert!(segments(&node) > 3);
    assert_eq!(node.restart().read(1).len(), 303);
}

#[test]
fn what_is_cut_is_not_missed_any_more() {
    let (node, frames) = grown([40, 50, 60, 70]);
    let mut disk = node.disk;
    harm(&mut disk, &frames[2]);
    let mut node = Node::start(disk, Start::Run);
    node.truncate(LogId::new(Term(1), LogIndex(2)));
    node.settle();
    assert_eq!((node.storage.hole(), node.storage.durable()), (None, LogIndex(2)));
    node.append_all(2, [10, 20]);
    assert_eq!(node.storage.durable(), LogIndex(4));
    assert_eq!(node.restart().recovered().last, LogId::new(Term(2), LogIndex(4)));
}

#[test]
fn an_entry_that_goes_bad_later_is_filled_in_its_full_segment() {
    let (mut node, frames) = grown(sizes());
    harm(&mut node.disk, &frames[7]);
    node.storage.read(Reader::Machine, LogIndex(1), node.last.index, u32::MAX);
    node.settle();
    let (_, read) = node.storage.take_read().expect("what lies before it is whole");
    assert_eq!(
        (read.last, node.storage.hole()),
        (LogIndex(7), Some(LogId::new(Term(1), LogIndex(8))))
    );
    assert_eq!(node.storage.durable(), node.last.index, "what was acknowledged is acknowledged");
    node.storage.read(Reader::Machine, LogIndex(8), node.last.index, 1);
    node.settle();
    assert!(node.storage.take_read().is_none(), "it waits");
    refill(&mut node, &frames[7]);
    let (_, read) = node.storage.take_read().expect("it is there again");
    assert_eq!(read.frames, frames[7]);
    assert_eq!(node.restart().read(1).len(), 300);
}

#[test]
fn a_node_alone_has_nobody_to_ask() {
    let (mut node, frames) = grown([40, 50, 60]);
    (node.storage.snapshots.has_peers, node.storage.has_others) = (false, false);
    harm(&mut node.disk, &frames[1]);
    node.storage.read(Reader::Machine, LogIndex(2), LogIndex(2), 1);
    node.settle();
    assert!(matches!(node.halted, Some(Halt::Refused { row: "damaged", .. })), "{:?}", node.halted);
}

/// Churn, seed 3300867: a node with an entry that it had lost and not read yet became the only voter, of
/// the others one was a learner, and had it.
#[test]
fn the_only_voter_waits_for_what_a_learner_has() {
    let (mut node, frames) = grown([40, 50, 60]);
    let member = |id| Member { id: NodeId(id), incarnation: 0, address: Bytes::new() };
    let mut members = Membership::of([member(1)]);
    members.learners.push(member(2));
    let members = Arc::new(members);
    node.storage.set_membership(Arc::clone(&members), members);
    harm(&mut node.disk, &frames[1]);
    node.storage.read(Reader::Machine, LogIndex(2), LogIndex(2), 1);
    node.settle();
    assert_eq!(node.halted, None);
    assert!(node.storage.hole().is_some(), "it is asked for");
    refill(&mut node, &frames[1]);
    let (_, read) = node.storage.take_read().expect("it is there again");
    assert_eq!(read.frames, frames[1]);
}

/// The slots of an entry and its neighbours, in whichever segment it lies.
pub(super) fn harm_slots(disk: &mut Disk, frame: &Bytes, others: usize) {
    let (file, at) = body(disk, frame);
    let bytes = disk.files.get_mut(&file).expect("it is there");
    let offset = (at + 1 - frame.len()) as u32;
    let is_it = |slot: &[u8]| slot[4..8] == offset.to_le_bytes();
    let slot = (512..4096).step_by(512).flat_map(|block| (0..12).map(move |n| block + n * 40));
    let slot = slot.into_iter().find(|&at| is_it(&bytes[at..at + 40])).expect("it has a slot");
    for at in (slot..).step_by(40).take(1 + others) {
        bytes[at + 17] ^= 4;
    }
}

#[test]
fn bad_slots_of_a_full_segment_are_made_anew_from_their_entries() {
    let (mut node, frames) = grown(sizes());
    node.storage.snapshots.has_peers = false;
    harm_slots(&mut node.disk, &frames[7], 2);
    assert_eq!(node.read(1).len(), 300);
    assert!(node.storage.marks().has(Mark::SlotsMadeAnew));
    node.settle();
    let mut node = node.restart();
    assert_eq!(node.read(1).len(), 300);
    assert!(!node.storage.marks().has(Mark::SlotsMadeAnew), "they are on disk again");
}

#[test]
fn an_entry_of_a_full_segment_without_either_witness_costs_the_log() {
    for has_peers in [true, false] {
        let (mut node, frames) = grown(sizes());
        node.storage.snapshots.has_peers = has_peers;
        harm_slots(&mut node.disk, &frames[7], 0);
        harm(&mut node.disk, &frames[7]);
        node.storage.read(Reader::Machine, LogIndex(8), node.last.index, 1);
        node.settle();
        if !has_peers {
            let halted = &node.halted;
            assert!(matches!(halted, Some(Halt::Refused { row: "damaged", .. })), "{halted:?}");
            continue;
        }
        assert!(matches!(node.halted, Some(Halt::LogLost { .. })), "{:?}", node.halted);
        let epoch = node.storage.write_epoch();
        let recycled = File::Spare(70);
        let segment = node.disk.files.keys().find(|file| matches!(file, File::Segment(_)));
        let old = node.disk.files[segment.expect("a log")].clone();
        node.disk.files.insert(recycled, old);
        let node = node.restart();
        let recovered = node.recovered();
        // A log that begins anew further back is not written where an old one's entries could fit.
        let removed = DiskRequest::Remove { file: recycled };
        assert!(
            node.disk.requests.contains(&removed) && !node.storage.marks().has(Mark::SpareKept)
        );
        assert_eq!((recovered.first, recovered.last), (LogIndex(1), LogId::ZERO));
        // A fault of its own: what was asked in the life before is no answer to it.
        assert_eq!(recovered.gate, Some([recovered.identity.incarnation, epoch]));
        assert!(recovered.write_epoch > epoch);
    }
}

/// It ends in the same words in its first life, in which nothing was resumed, as in every other: a start
/// that says what the machine holds would find no log that reaches there.
#[test]
fn a_machine_of_its_own_keeps_a_log_that_has_lost_an_entry() {
    let config = Config { machine_keeps_state: true, ..config() };
    let (mut node, frames) = grown_as(&config, sizes());
    harm_slots(&mut node.disk, &frames[7], 0);
    harm(&mut node.disk, &frames[7]);
    for life in 1..=2 {
        node.storage.read(Reader::Machine, LogIndex(8), node.last.index, 1);
        node.settle();
        let halted = &node.halted;
        assert!(matches!(halted, Some(Halt::Refused { row: "damaged", .. })), "{life}: {halted:?}");
        let machine = LogId::new(Term(1), LogIndex(7));
        node = Node::start_as(&config, node.disk, Start::Resume { machine });
        assert_eq!(node.recovered().last.index, LogIndex(sizes().count() as u64), "{life}");
    }
}

/// Storm of five, seed 1010111: a conflict reached back into a full segment with a bad slot.
#[test]
fn a_cut_into_a_full_segment_does_without_its_bad_slots() {
    let (mut node, frames) = grown(sizes());
    harm_slots(&mut node.disk, &frames[7], 1);
    let (file, _) = body(&node.disk, &frames[7]);
    node.truncate(LogId::new(Term(1), LogIndex(11)));
    node.settle();
    assert!(node.storage.marks().has(Mark::SlotsMadeAnew), "{file} was reopened");
    node.append_all(2, [10, 20]);
    assert_eq!(node.read(1).len(), 13);
    assert_eq!(node.restart().read(1).len(), 13);
}

/// A reader came upon the bad slot while the segment was cut. What it read then it took, when the cut was
/// over, for the segment as it had been: entries that were gone were missing, and the log was given up.
#[test]
fn what_is_read_of_a_segment_that_is_cut_is_not_taken_for_what_it_becomes() {
    let (mut node, frames) = grown(sizes());
    harm_slots(&mut node.disk, &frames[7], 1);
    node.storage.read(Reader::Refill(NodeId(2)), LogIndex(8), LogIndex(8), 1);
    node.truncate(LogId::new(Term(1), LogIndex(11)));
    // The reader's disk is slow, and the cut's is not.
    let mut slow = VecDeque::new();
    loop {
        let mut out = Vec::new();
        node.storage.persist(node.now, &mut out);
        let whole = |request: &DiskRequest| matches!(request, DiskRequest::Read { len, .. } if *len > 16 << 10);
        if out.is_empty() && node.storage.journal.cut.is_none() {
            let Some(action) = slow.pop_front() else { break };
            node.perform(action);
        }
        for action in out {
            match &action {
                Action::Disk { request, class: crate::file::Class::Serve, .. }
                    if whole(request) =>
                {
                    slow.push_back(action);
                }
                _ => node.perform(action),
            }
        }
    }
    assert_eq!((node.storage.halt(), node.storage.hole()), (None, None));
    let (_, read) = node.storage.take_read().expect("it is there");
    assert_eq!(read.frames, frames[7]);
    node.append_all(2, [10, 20]);
    assert_eq!(node.restart().read(1).len(), 13);
}

/// Storm of three, seed 1122960: nobody had the first any more, and it was asked for again and
/// again, before the one that kept the log from being acknowledged.
#[test]
fn what_is_missing_behind_the_snapshot_is_asked_for_first() {
    let (node, frames) = grown([40, 50, 60, 700, 80]);
    let mut disk = node.disk;
    harm(&mut disk, &frames[1]);
    harm(&mut disk, &frames[3]);
    let node = Node::start(disk, Start::Run);
    let wanted = |snapshot| node.storage.journal.holes.first_wanted(LogIndex(snapshot));
    assert_eq!(wanted(0), Some(LogId::new(Term(1), LogIndex(2))));
    assert_eq!(wanted(2), Some(LogId::new(Term(1), LogIndex(4))));
    assert_eq!(wanted(5), Some(LogId::new(Term(1), LogIndex(2))), "peers may want them");
}

/// What a storage asks of the disk now.
pub(super) fn asked(node: &mut Node) -> Vec<(crate::types::OpId, DiskRequest)> {
    let mut out = Vec::new();
    node.storage.persist(node.now, &mut out);
    let asked = out.into_iter().filter_map(|action| match action {
        Action::Disk { op, request, .. } => Some((op, request)),
        _ => None,
    });
    asked.collect()
}

fn done(node: &mut Node, asked: Vec<(crate::types::OpId, DiskRequest)>) {
    for (op, request) in asked {
        let result = node.disk.perform(request);
        node.storage.on_completed(node.now, op, result);
    }
}

/// A peer asks at each heartbeat. A disk that takes longer was asked anew each time, and what it brought
/// was nobody's: the peer was never given the entry.
#[test]
fn a_peer_that_asks_again_does_not_begin_the_read_anew() {
    let (mut node, frames) = grown([40, 50, 60]);
    let reader = Reader::Refill(NodeId(2));
    let ask = |node: &mut Node, from| node.storage.read(reader, LogIndex(from), LogIndex(3), 1);
    ask(&mut node, 2);
    let [(op, request)] = &asked(&mut node)[..] else { panic!("one read") };
    for _ in 0..3 {
        ask(&mut node, 2);
        assert_eq!(asked(&mut node), []);
    }
    let result = node.disk.perform(request.clone());
    node.storage.on_completed(node.now, *op, result);
    let (to, read) = node.storage.take_read().expect("it came");
    assert_eq!((to, read.frames), (reader, frames[1].clone()));
    // Another place is another question.
    ask(&mut node, 2);
    let [(stale, request)] = &asked(&mut node)[..] else { panic!("one read") };
    ask(&mut node, 3);
    let result = node.disk.perform(request.clone());
    node.storage.on_completed(node.now, *stale, result);
    assert!(node.storage.take_read().is_none());
    node.settle();
    assert_eq!(node.storage.take_read().map(|(_, read)| read.frames), Some(frames[2].clone()));
}

/// Nobody waited for it any more, its segment was removed meanwhile, and that it was not found ended the
/// node.
#[test]
fn a_read_that_nobody_waits_for_may_find_nothing() {
    let (mut node, _) = grown(sizes());
    node.storage.read(Reader::Machine, LogIndex(8), LogIndex(9), 1);
    let [(op, _)] = &asked(&mut node)[..] else { panic!("one read") };
    node.truncate(LogId::new(Term(1), LogIndex(3)));
    node.settle();
    node.storage.on_completed(node.now, *op, Err(DiskError::NotFound));
    node.settle();
    assert!(node.storage.marks().has(Mark::StaleReadIgnored));
    assert_eq!(node.halted, None);
    node.append_all(2, [10]);
    assert_eq!(node.read(1).len(), 4);
}

/// The write of what filled a hole came as far as the cache, and its sync failed, which leaves the pages
/// clean. The next start read the entry there, and acknowledged it and all behind it; a power cut
/// showed that the disk had never had it.
/// While the log is given up nothing else is done, and what else there was a time for was due.
#[test]
fn a_log_that_is_given_up_has_no_deadline() {
    let (mut node, frames) = grown(sizes());
    node.append_all(1, [10]);
    assert!(node.storage.deadline().is_some(), "the hint is written when writes pause");
    harm_slots(&mut node.disk, &frames[7], 0);
    harm(&mut node.disk, &frames[7]);
    node.storage.read(Reader::Machine, LogIndex(8), node.last.index, 1);
    let mut turns = 0;
    while node.halted.is_none() {
        let mut out = Vec::new();
        node.storage.persist(node.now, &mut out);
        if node.storage.giving_up.is_some() {
            assert_eq!(node.storage.deadline(), None, "it would spin");
            turns += 1;
        }
        node.halted = node.storage.halt();
        out.into_iter().for_each(|action| node.perform(action));
    }
    assert!(turns > 1 && matches!(node.halted, Some(Halt::LogLost { .. })), "{:?}", node.halted);
}

/// Compaction gave the file another name, and who was at work there found nothing: the node ended.
#[test]
fn a_full_segment_stays_while_it_is_read_or_mended() {
    for is_mended in [true, false] {
        let (mut node, frames) = grown(sizes());
        snap(&mut node);
        node.append_all(1, sizes());
        snap(&mut node);
        let (file, _) = body(&node.disk, &frames[7]);
        let wanted = (Reader::Peer(NodeId(2)), LogIndex(8));
        if is_mended {
            harm(&mut node.disk, &frames[7]);
            node.storage.read(wanted.0, wanted.1, wanted.1, 1);
            node.settle();
            let head = Head::parse_whole(&frames[7], node.recovered().seed).expect("it is whole");
            node.storage.refill(&head, &frames[7]);
        } else {
            node.storage.read(wanted.0, wanted.1, wanted.1, 1);
        }
        let is_of_it = |(_, request): &(_, DiskRequest)| matches!(request, DiskRequest::Read { file: of, .. } if *of == file);
        let mut slow = asked(&mut node);
        while !slow.iter().any(is_of_it) {
            assert!(is_mended && !slow.is_empty(), "the hard state names it before");
            done(&mut node, slow);
            slow = asked(&mut node);
        }
        assert_eq!(slow.len(), 1, "{slow:?}");
        node.storage.retain(node.last.index, None);
        node.settle();
        assert!(node.disk.files.contains_key(&file), "{file} is at work");
        done(&mut node, slow);
        node.settle();
        assert_eq!(node.halted, None);
        assert!(!node.disk.files.contains_key(&file), "nobody needs it");
    }
}

/// It was the last of its segment, and the end record said that it had none.
#[test]
fn the_time_of_an_entry_is_known_when_it_is_there_again() {
    let (mut node, frames) = grown([700]);
    harm(&mut node.disk, &frames[0]);
    let mut node = node.restart();
    assert_eq!((node.storage.first_owed(), node.recovered().last_time.0), (Some(LogIndex(1)), 0));
    refill(&mut node, &frames[0]);
    node.append(1, 27_500);
    while node.storage.journal.active.is_some() {
        let asked = asked(&mut node);
        done(&mut node, asked);
    }
    let node = node.restart();
    assert_eq!((node.recovered().last.index, node.recovered().last_time.0), (LogIndex(1), 9));
}
