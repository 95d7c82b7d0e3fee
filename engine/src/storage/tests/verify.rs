//! Looking at a directory: nothing is written, and no byte that was ever used can change unseen.

use super::*;
use crate::{
    disk::{
        FileSeed,
        segment::{Header, Layout, SLOT_BYTES, Slot},
        snapshot::Footer,
    },
    report::{BlockContent, Defect, Inspection, SegmentState},
};

/// A node with full segments, one that is not full, and two snapshots, all of it durable.
fn lived() -> Node {
    let mut node = Node::start(Disk::default(), format());
    let members = node.recovered().membership.clone();
    for round in 1..=2u64 {
        node.append_all(round, (0..60).map(|n| n * 37 % 1900));
        node.storage.hint_committed(node.last.index);
        node.captured = 0;
        assert!(node.storage.capture(node.last, members.clone(), Timestamp(9)));
        node.settle();
    }
    node.append_all(3, [40, 0, 700]);
    while let Some(deadline) = node.storage.deadline() {
        node.now = deadline;
        node.settle();
    }
    node
}

/// What a look finds; the disk must be as it was.
#[track_caller]
pub(super) fn look(disk: &Disk, start: Start) -> Inspection {
    let node = Node::start(Disk { requests: Vec::new(), ..disk.clone() }, start);
    let is_reading = |r: &DiskRequest| matches!(r, DiskRequest::List | DiskRequest::Read { .. });
    assert!(node.disk.requests.iter().all(is_reading), "{:?}", node.disk.requests);
    assert_eq!(node.disk.files, disk.files);
    match node.halted {
        Some(Halt::Inspected(inspection)) => *inspection,
        other => panic!("{other:?}"),
    }
}

fn flipped(disk: &Disk, file: File, at: usize) -> Disk {
    let mut disk = disk.clone();
    disk.files.get_mut(&file).expect("it is there")[at] ^= 0x10;
    disk
}

fn covers(defect: &Defect, file: File, at: usize) -> bool {
    let at = at as u64;
    defect.file == file && (defect.offset..defect.offset + defect.bytes).contains(&at)
}

#[test]
fn a_directory_that_is_well_is_told_as_it_is() {
    let node = lived();
    let found = look(&node.disk, Start::Verify);
    assert!(found.is_well(), "{found}");
    assert_eq!(found.judgement.row, "ordinary");
    let verified = found.verified.expect("it was verified");
    assert_eq!((verified.entries, verified.blocks > 6), (123, true), "{verified:?}");
    let log = found.log.expect("it was looked at");
    assert_eq!((log.first, log.last, log.proven), (LogIndex(1), node.last, node.last.index));
    let hard = found.hard_state.as_ref().expect("it is good");
    assert_eq!((hard.term, hard.durable_hint), (Term(3), node.last.index));
    let good = |content: &BlockContent| matches!(content, BlockContent::Good { .. });
    assert!(found.blocks.iter().all(|block| good(&block.content)), "{:?}", found.blocks);
    let (last, sealed) = found.segments.split_last().expect("there are segments");
    assert_eq!(last.state, SegmentState::Last);
    assert!(sealed.len() > 2 && sealed.iter().all(|found| found.state == SegmentState::Sealed));
    let mut next = LogIndex(1);
    for segment in &found.segments {
        assert_eq!(segment.first, next);
        next = segment.last.next();
    }
    assert_eq!(next, node.last.index.next());
    assert_eq!(found.snapshots.len(), 2);
    assert_eq!(found, Inspection { verified: found.verified, ..look(&node.disk, Start::Inspect) });
}

/// Every byte that is not zero is used, but for spares: flipping it is found, and the record that
/// is named has it. Where zeros are nobody's, nothing else is blamed.
#[test]
fn every_used_byte_is_verified() {
    const STRIDE: usize = 23;
    let disk = lived().disk;
    let mut found_in: BTreeMap<&str, usize> = BTreeMap::new();
    let files = disk.files.iter().filter(|(file, _)| !matches!(file, File::Spare(_)));
    for (n, (&file, bytes)) in files.enumerate() {
        // Each file from another byte on, so that every place of a record is met somewhere.
        for at in (n % STRIDE..bytes.len()).step_by(STRIDE) {
            // Of a block of zeros a few are enough.
            if bytes[at] == 0 && at % 512 > 64 {
                continue;
            }
            let inspection = look(&flipped(&disk, file, at), Start::Verify);
            match &inspection.defects[..] {
                [] => assert_eq!(bytes[at], 0, "{file} at {at} was not found"),
                [defect] => {
                    assert!(covers(defect, file, at), "{file} at {at}: {defect}");
                    *found_in.entry(kind(&defect.expected)).or_default() += 1;
                }
                many => panic!("{file} at {at}: {many:?}"),
            }
        }
    }
    let kinds: Vec<_> = found_in.keys().copied().collect();
    let all = [
        "a block of",
        "block",
        "entry",
        "header",
        "the end record",
        "the footer",
        "the header",
        "the slot",
    ];
    assert_eq!(kinds, all, "{found_in:?}");
    assert!(found_in.values().all(|&times| times > 5), "{found_in:?}");
}

/// One of each kind, and all that is told of it.
#[test]
fn whatever_is_bad_is_told_once_with_its_place_and_what_comes_of_it() {
    let node = lived();
    let found = look(&node.disk, Start::Verify);
    let verified = found.verified.expect("it was verified");
    let looking = Node::start(node.disk.clone(), Start::Verify);
    let report = looking.storage.recovery(LogIndex(0));
    assert_eq!((report.bytes_done, report.bytes_total), (verified.bytes, verified.bytes));
    let segments = node
        .storage
        .journal
        .sealed
        .iter()
        .map(|s| node.disk.files[&File::Segment(s.sequence)].len());
    assert!(verified.bytes > segments.sum::<usize>() as u64);

    let first = &node.storage.journal.sealed[0];
    let (full, layout) = (File::Segment(first.sequence), first.layout);
    let active = node.storage.journal.active.as_ref().expect("it takes entries");
    let (last, end) = (File::Segment(active.sequence), active.end());
    let [older, newest] = scrubs::snapshots(&node)[..] else { panic!("there are two") };
    let footer = node.disk.files[&newest].len() - 500;
    for (file, at, expected) in [
        (full, 20, "header A"),
        (full, layout.data_end() as usize + 20, "header B"),
        (full, layout.end_offset() as usize + 20, "the end record"),
        (full, layout.slot_offset(3) as usize + 17, "the slot of entry 4"),
        (full, layout.data_at as usize + 3, "entry 1"),
        (full, first.data_bytes as usize - 1, "entry"),
        (last, end as usize - 1, "entry"),
        (older, 5000, "block 0 of"),
        (newest, 4096 + 512 * 64 + 100, "block 1 of"),
        (newest, footer, "the footer"),
    ] {
        let found = look(&flipped(&node.disk, file, at), Start::Verify);
        let [defect] = &found.defects[..] else { panic!("{file} at {at}: {found}") };
        assert!(covers(defect, file, at), "{file} at {at}: {defect}");
        assert!(defect.expected.starts_with(expected), "{expected}: {defect}");
        assert!(!defect.then.is_empty() && !defect.found.is_empty(), "{defect}");
    }
    // A full segment whose end was never written, though another one follows it.
    let mut disk = node.disk.clone();
    let bytes = disk.files.get_mut(&full).expect("it is there");
    bytes[layout.end_offset() as usize..].fill(0);
    let found = look(&disk, Start::Verify);
    let [defect] = &found.defects[..] else { panic!("{found}") };
    assert!(defect.expected.starts_with("the end record"), "{defect}");
    // A bad snapshot is told as bad, and not as left over.
    let found = look(&flipped(&node.disk, newest, footer), Start::Inspect);
    assert!(found.left_over.iter().all(|left| left.file != newest), "{found}");
}

fn kind(expected: &str) -> &'static str {
    let kinds = [
        "a block of",
        "block",
        "entry",
        "header",
        "the end record",
        "the footer",
        "the header",
        "the slot",
    ];
    kinds.into_iter().find(|kind| expected.starts_with(kind)).unwrap_or("something else")
}

/// What the look says of the node is what becomes of it.
#[test]
fn a_restart_does_what_the_look_said() {
    let node = lived();
    let last = node.last;
    let segment = *node.disk.files.keys().rfind(|f| matches!(f, File::Segment(_))).expect("a log");
    let layout = Layout::new(config().segment_bytes, 512);
    let mut used = node.disk.files[&segment][..layout.data_end() as usize].iter();
    let end = used.rposition(|&byte| byte != 0).expect("there are entries");
    // A write that never came to an end: something lies behind the last entry.
    let torn = flipped(&node.disk, segment, (end + 600).next_multiple_of(512));
    let damaged = flipped(&node.disk, segment, end);
    // An entry whose slot is believed: the restart will come upon it when the node votes.
    let believed = flipped(&node.disk, segment, layout.data_at as usize + 3);
    let mut lost = node.disk.clone();
    lost.files.get_mut(&File::HardState).expect("it is there").fill(7);
    let mut gone = node.disk.clone();
    gone.files.remove(&File::HardState).expect("it is there");
    for (disk, row, starts, defects) in [
        (torn, "torn", true, [0, 0]),
        (damaged, "damaged", true, [1, 1]),
        (believed, "ordinary", true, [0, 1]),
        (lost, "hard-state-lost", false, [4, 4]),
        (gone, "hard-state-lost", false, [1, 1]),
    ] {
        for (start, defects) in [Start::Inspect, Start::Verify].into_iter().zip(defects) {
            let found = look(&disk, start);
            let judgement = &found.judgement;
            assert_eq!((judgement.row, judgement.starts), (row, starts), "{found}");
            assert_eq!((found.defects.len(), found.is_well()), (defects, defects == 0), "{found}");
            let goes_on =
                found.defects.iter().any(|defect| defect.then.contains("does not read there"));
            assert_eq!(goes_on, row == "ordinary" && defects > 0, "{found}");
        }
        let restarted = Node::start(disk, Start::Run);
        assert_eq!(restarted.halted.is_none(), starts, "{:?}", restarted.halted);
        if row == "torn" {
            assert_eq!(restarted.recovered().last, last);
        }
    }
}

/// It was told to end there, or to wait for a peer's: who read that threw a sound node away.
#[test]
fn a_bad_snapshot_is_forgotten_where_the_log_holds_all_it_did() {
    let mut node = Node::start(Disk::default(), format());
    let members = node.recovered().membership.clone();
    node.append_all(1, sizes());
    node.storage.hint_committed(node.last.index);
    assert!(node.storage.capture(node.last, members, Timestamp(9)));
    node.settle();
    let (disk, last) = (node.disk, node.last);
    let snapshot = *disk.files.keys().rfind(|file| matches!(file, File::Snapshot(_))).expect("one");
    let disk = flipped(&disk, snapshot, 5000);
    let text = look(&disk, Start::Verify).to_string();
    assert!(text.contains("a restart  forgets it and applies the log"), "{text}");
    let restarted = Node::start(disk, Start::Run);
    assert!(restarted.halted.is_none(), "{:?}", restarted.halted);
    assert_eq!(
        (restarted.recovered().last, restarted.storage.restored()),
        (last, Some(LogId::ZERO))
    );
    assert!(restarted.storage.marks().has(Mark::SnapshotFoundBad));
}

/// A disk that does not give some bytes back has said nothing of them.
/// Each block is good by itself.
#[test]
fn a_snapshot_that_is_another_than_its_footer_says_is_told_with_its_place() {
    let mut node = lived();
    let newest = node.storage.snapshots.whole.last().expect("it has two").clone();
    let (file, group, align) = (newest.file(), node.recovered().identity.group, 512);
    let footer = Footer { digest: !newest.footer.digest, ..newest.footer };
    let footer = footer.encode(group, newest.header.id, align as u32);
    let bytes = node.disk.files.get_mut(&file).expect("it is there");
    let at = bytes.len() - align;
    bytes[at..].copy_from_slice(&footer);
    let found = look(&node.disk, Start::Verify);
    let [defect] = &found.defects[..] else { panic!("{found}") };
    assert_eq!((defect.file, defect.offset, defect.bytes), (file, at as u64, align as u64));
}

#[test]
fn what_cannot_be_read_is_told_with_its_place() {
    let disk = lived().disk;
    let mut told = 0;
    for failing in 0.. {
        let failing = Disk { read_fails: Some(failing), ..disk.clone() };
        let node = Node::start(failing, Start::Verify);
        match &node.halted {
            Some(Halt::Inspected(found)) if node.disk.read_fails.is_some() => {
                assert!(found.is_well(), "{found}");
                assert!(told > 5, "{told} reads of what is verified");
                return;
            }
            Some(Halt::Inspected(found)) => {
                // One read that failed is one thing wrong, unless an entry reaches into it.
                let unread = found.defects.iter().filter(|d| d.found.contains("errno 5")).count();
                assert!(unread <= 1 && found.defects.len() <= unread + 1, "{found}");
                told += unread;
            }
            Some(Halt::DiskFailed { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_directory_that_is_well_is_told_in_eighty_columns() {
    let mut disk = lived().disk;
    let text = look(&disk, Start::Verify).to_string();
    insta::with_settings!({snapshot_path => "../../../../fixtures/snapshots", prepend_module_to_snapshot => false}, {
        insta::assert_snapshot!("inspection", text);
    });
    let newest = *disk.files.keys().rfind(|f| matches!(f, File::Snapshot(_))).expect("two");
    disk = flipped(&disk, newest, 5000);
    disk = flipped(&disk, File::HardState, 3);
    disk = flipped(&disk, File::Segment(2), 512 + 41);
    disk.files.remove(&File::Segment(3));
    let text = look(&disk, Start::Verify).to_string();
    insta::with_settings!({snapshot_path => "../../../../fixtures/snapshots", prepend_module_to_snapshot => false}, {
        insta::assert_snapshot!("inspection_of_damage", text);
    });
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

/// All of it would lie in memory at once, or be waited for piece by piece.
#[test]
fn what_is_being_read_is_bounded_and_a_good_deal() {
    const MOST: u64 = 32 << 20;
    let mut config = config();
    // Their pieces do not add up to what may be read at one time.
    (config.first_segment_bytes, config.segment_bytes) = (41 << 19, 41 << 20);
    config.tuning.append_bytes_max = 2 << 20;
    let mut node = Node::start_as(&config, Disk::default(), format());
    node.append_all(1, [1 << 20; 21]);
    assert_eq!(node.storage.journal.sealed.len(), 1);
    let len = |action: &Action| match action {
        Action::Disk { request: DiskRequest::Read { len, .. }, .. } => u64::from(*len),
        _ => 0,
    };
    let mut storage = Storage::new(&config, 42);
    storage.on_start(Start::Verify);
    let mut looked = Node { storage, ..Node::start_as(&config, Disk::default(), Start::Run) };
    (looked.disk, looked.halted) = (node.disk, None);
    let (mut queue, mut under_way) = (VecDeque::new(), Vec::new());
    let found = loop {
        let mut out = Vec::new();
        looked.storage.recover(looked.now, &mut out);
        if let Some(Halt::Inspected(found)) = looked.storage.halt() {
            break found;
        }
        queue.extend(out);
        under_way.push(queue.iter().map(len).sum::<u64>());
        looked.perform(queue.pop_front().expect("it is not at its end"));
    };
    assert!(found.is_well(), "{found}");
    assert!(found.verified.expect("it was verified").bytes > 40 << 20);
    assert!(under_way.iter().all(|bytes| *bytes <= MOST), "{under_way:?}");
    let full = under_way.iter().filter(|bytes| **bytes > MOST / 2).count();
    assert!(full > 8, "{under_way:?}");
}

/// It decodes, and is that of another life of the file.
#[test]
fn two_headers_that_are_not_the_same_are_told() {
    let node = lived();
    let full = &node.storage.journal.sealed[0];
    let file = File::Segment(full.sequence);
    let mut disk = node.disk;
    let bytes = disk.files.get_mut(&file).expect("it is there");
    let header = Header::decode(&bytes[..512], GroupId(1), full.sequence).expect("it is good");
    let other = Header { epoch: header.epoch + 1, ..header };
    bytes[..512].copy_from_slice(&other.encode()[..512]);
    let found = look(&disk, Start::Verify);
    let [defect] = &found.defects[..] else { panic!("{found}") };
    assert_eq!(
        (defect.file, &*defect.expected, &*defect.found),
        (file, "header A", "another header")
    );
}

/// Up to the last entry that was durable, whichever way it is bad; and none behind that.
#[test]
fn a_slot_is_missed_where_somebody_relied_on_it() {
    let node = lived();
    let full = &node.storage.journal.sealed[0];
    let (file, layout) = (File::Segment(full.sequence), full.layout);
    let n = (full.last.index.0 - full.first.0) as u32;
    let at = layout.slot_offset(n) as usize;
    let expected = format!("the slot of entry {}, term 1", full.last.index);
    let found = look(&flipped(&node.disk, file, at + 17), Start::Verify);
    let [defect] = &found.defects[..] else { panic!("{found}") };
    assert_eq!((defect.offset, &defect.expected), (at as u64, &expected));
    // One that leads out of where entries lie is none, though it is sealed.
    let seed = FileSeed::new(GroupId(1), full.sequence);
    for offset in [10, layout.data_end() as u32 - 8] {
        let mut disk = node.disk.clone();
        let bytes = disk.files.get_mut(&file).expect("it is there");
        let slot = Slot::decode(&bytes[at..], seed, full.last.index).expect("it is good");
        let astray = Slot { offset, ..slot }.encode(seed);
        bytes[at..at + astray.len()].copy_from_slice(&astray);
        let found = look(&disk, Start::Verify);
        let [defect] = &found.defects[..] else { panic!("{offset}: {found}") };
        assert_eq!(defect.expected, expected, "{offset}");
    }
    // Its entry came, and it did not: a crash leaves that.
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40, 50]);
    node.append(1, 60);
    node.settle();
    assert!(node.storage.promises().durable().durable_hint < LogIndex(3));
    let active = node.storage.journal.active.as_ref().expect("it takes entries");
    let (file, at) = (File::Segment(active.sequence), active.layout.slot_offset(2) as usize);
    let mut disk = node.disk;
    disk.files.get_mut(&file).expect("it is there")[at..at + SLOT_BYTES].fill(0);
    let found = look(&disk, Start::Verify);
    assert_eq!(found.log.as_ref().map(|log| log.last.index), Some(LogIndex(3)));
    assert!(found.is_well(), "{found}");
}

/// By itself it is good.
#[test]
fn an_entry_that_does_not_follow_the_one_before_it_is_told() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40, 50, 60]);
    while let Some(at) = node.storage.deadline() {
        node.now = at;
        node.settle();
    }
    let seed = node.recovered().seed;
    node.storage.read(Reader::Machine, LogIndex(2), LogIndex(2), 1);
    node.settle();
    let (_, read) = node.storage.take_read().expect("it is there");
    let (file, end) = holes::body(&node.disk, &read.frames);
    let at = end + 1 - read.frames.len();
    let id = LogId::new(Term(1), LogIndex(2));
    let (_, stray) = Batch::one(&[2; 50]).seal(seed, id, Term(0), Timestamp(9));
    assert_eq!(stray.len(), read.frames.len());
    let bytes = node.disk.files.get_mut(&file).expect("it is there");
    bytes[at..=end].copy_from_slice(&stray);
    let found = look(&node.disk, Start::Verify);
    let told: Vec<_> = found.defects.iter().map(|defect| &*defect.expected).collect();
    assert_eq!(told, ["entry 2, term 1"], "{found}");
}

/// Who reads it decides by that whether to stop the node now.
#[test]
fn what_comes_of_a_bad_record_is_told_with_it() {
    let node = lived();
    let full = &node.storage.journal.sealed[0];
    let [older, newest] = scrubs::snapshots(&node)[..] else { panic!("there are two") };
    for (file, at, then) in [
        (File::Segment(full.sequence), full.layout.data_at as usize + 3, "entry 1 back it asks"),
        (older, 5000, "a newer one is there"),
        (newest, 5000, "begins with the snapshot before it"),
    ] {
        let found = look(&flipped(&node.disk, file, at), Start::Verify);
        let [defect] = &found.defects[..] else { panic!("{found}") };
        assert!(defect.then.contains(then), "{defect}");
    }
}
