//! What is told of a directory: its hard state, its files one by one, and why a node must not start from it.

use super::{
    decisions::change_hard,
    holes::{body, grown, harm},
    joins::stage,
    scrubs::{rot, snap},
    verify::look,
    *,
};
use crate::{
    disk::hard_state::{Cut, OFFSETS},
    report::{BlockContent, SegmentState},
    types::SnapshotId,
};

#[test]
fn a_block_of_zeros_was_never_written_and_one_that_is_cut_off_is_bad() {
    let (node, _) = grown([40, 50]);
    let (mut disk, at) = (node.disk, OFFSETS[1][1] as usize);
    let bytes = disk.files.get_mut(&File::HardState).expect("it was formatted");
    bytes[at..].fill(0);
    let found = look(&disk, Start::Inspect);
    assert!(found.is_well(), "{found}");
    assert_eq!(found.blocks[3].content, BlockContent::Empty);
    let bytes = disk.files.get_mut(&File::HardState).expect("it was formatted");
    bytes.truncate(at + 100);
    let found = look(&disk, Start::Inspect);
    assert_eq!(found.defects.len(), 1, "{found}");
    assert!(matches!(found.blocks[3].content, BlockContent::Bad { .. }));
}

#[test]
fn a_copy_of_the_hard_state_without_a_good_block_is_told() {
    for copies in [&[][..], &[0], &[1]] {
        let (node, _) = grown([40, 50]);
        let mut disk = node.disk;
        let bytes = disk.files.get_mut(&File::HardState).expect("it was formatted");
        for at in copies.iter().flat_map(|copy: &usize| OFFSETS[*copy]) {
            bytes[at as usize + 100] ^= 1;
        }
        let because = look(&disk, Start::Inspect).judgement.because;
        assert_eq!(because.contains("one copy of the hard state is bad"), !copies.is_empty());
    }
}

/// It was written before they were told.
#[test]
fn a_hard_state_that_tells_no_units_is_of_those_that_are_configured() {
    let (node, _) = grown([40, 50]);
    let (mut disk, last) = (node.disk, node.last);
    change_hard(&mut disk, |hard| hard.align = 0);
    let found = look(&disk, Start::Verify);
    assert!(found.is_well(), "{found}");
    assert_eq!(found.log.map(|log| log.last), Some(last));
    let node = Node::start(disk, Start::Run);
    assert_eq!((node.recovered().last, node.storage.promises().durable().align), (last, 512));
}

/// Where a node that cannot start from it has nobody to ask.
#[test]
fn an_install_that_is_marked_is_finished_only_with_the_snapshot_that_the_mark_names() {
    let member = Member { id: NodeId(1), incarnation: 0, address: Bytes::new() };
    let members = Arc::new(Membership::of([member]));
    let alone = Start::Format { cluster: ClusterId(5), members };
    let mut node = Node::start(Disk::default(), alone);
    node.append_all(1, [40, 50]);
    snap(&mut node);
    let id = node.storage.snapshots.whole[0].header.id;
    let marked = |of| {
        let mut disk = node.disk.clone();
        change_hard(&mut disk, |hard| (hard.installing, hard.install.id) = (true, of));
        disk
    };
    assert_eq!(look(&marked(id), Start::Inspect).judgement.row, "install-staged");
    let other = marked(SnapshotId(!id.0));
    assert_eq!(look(&other, Start::Inspect).judgement.row, "install-interrupted");
    let (row, expected) = refusal(Node::start(other, Start::Run));
    assert_eq!(row, "install-interrupted");
    assert!(expected.starts_with("the whole of the snapshot that was on its way"), "{expected}");
}

fn refusal(node: Node) -> (&'static str, String) {
    match node.halted {
        Some(Halt::Refused { row, expected, .. }) => (row, expected.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_node_that_is_refused_says_what_it_would_need() {
    let (node, _) = grown([40, 50]);
    let mut old = node.disk.clone();
    change_hard(&mut old, |hard| (hard.term, hard.vote) = (Term(0), None));
    let (row, expected) = refusal(Node::start(old, Start::Run));
    assert_eq!((row, &expected[..]), ("term-regressed", "nothing of a later term than 0"));
    let machine = LogId::new(Term(1), LogIndex(3));
    let (row, expected) = refusal(Node::start(node.disk, Start::Resume { machine }));
    assert_eq!((row, &expected[..]), ("machine-ahead", "a state machine that holds at most 1.2"));
}

/// Which segments are bad is told of each by itself.
#[test]
fn a_bad_segment_is_told_and_no_other() {
    let (node, frames) = grown(sizes());
    let of = |disk: &Disk| -> Vec<_> {
        let segments = look(disk, Start::Inspect).segments;
        segments.into_iter().map(|found| (File::Segment(found.sequence), found.state)).collect()
    };
    let sound = of(&node.disk);
    assert!(sound.len() > 4);
    let bad = |found: &SegmentState| match found {
        SegmentState::Damaged { found } => Some(found.clone()),
        _ => None,
    };
    // The last entry, whose slot is good.
    let frame = frames.last().expect("there are many");
    let mut disk = node.disk.clone();
    let (file, end) = body(&disk, frame);
    harm(&mut disk, frame);
    let offset = end + 1 - frame.len();
    for ((of, state), (_, before)) in of(&disk).iter().zip(&sound) {
        match bad(state) {
            Some(what) => {
                let expected = format!("at byte {offset}: expected entry 1.300, found ");
                assert!(*of == file && what.starts_with(&expected), "{of}: {what}");
            }
            None => assert!(*of != file && state == before, "{of}: {state:?}"),
        }
    }
    // Two that have no header any more: the log ends before the first of them.
    let mut disk = node.disk.clone();
    for (file, _) in &sound[1..3] {
        disk.files.get_mut(file).expect("it is there").fill(0xa5);
    }
    let states: Vec<_> = of(&disk).iter().map(|(_, state)| bad(state)).collect();
    assert_eq!(states.len(), sound.len());
    assert!(states[1].as_ref().is_some_and(|what| what.starts_with("at byte 0: ")), "{states:?}");
    assert_eq!(states[2].as_deref(), Some("no header that fits its length"));
    assert!(states[0].is_none() && states[3..].iter().all(Option::is_none), "{states:?}");
}

/// The part of it that is bad, and no more, is told where it lies.
#[test]
fn a_bad_snapshot_is_told_by_its_header_or_its_footer() {
    let (mut node, _) = grown([40, 50]);
    snap(&mut node);
    let file = File::Snapshot(node.last);
    for (at, part) in
        [(20, "the header of a whole snapshot"), (-500, "the footer of a whole snapshot")]
    {
        let mut node = Node::start(node.disk.clone(), Start::Inspect);
        rot(&mut node, file, at);
        let found = look(&node.disk, Start::Inspect);
        let [defect] = &found.defects[..] else { panic!("{found}") };
        assert_eq!((defect.file, &defect.expected[..]), (file, part));
    }
}

/// Whoever was to be told what there is would otherwise see an empty directory.
#[test]
fn what_was_not_looked_at_is_told() {
    let (mut node, _) = grown(sizes());
    snap(&mut node);
    let mut disk = node.disk;
    disk.files.get_mut(&File::HardState).expect("it was formatted").fill(7);
    let found = look(&disk, Start::Inspect);
    let left: Vec<_> = found.left_over.iter().map(|left| (left.file, left.purpose)).collect();
    let expected: Vec<_> = disk
        .files
        .keys()
        .filter(|file| **file != File::HardState)
        .map(|file| match file {
            File::Spare(_) => (*file, "room for a segment to come"),
            _ => (*file, "not looked at"),
        })
        .collect();
    assert_eq!(left, expected);
}

#[test]
fn the_last_snapshot_that_came_from_a_peer_is_told() {
    let (mut node, _) = grown([40, 50]);
    let installed = |disk: &Disk| look(disk, Start::Inspect).hard_state.map(|hard| hard.installed);
    assert_eq!(installed(&node.disk), Some(LogId::ZERO));
    let at = LogId::new(Term(1), LogIndex(1000));
    stage(&mut node, at, 90_000);
    node.storage.install(at);
    node.settle();
    assert_eq!(installed(&node.disk), Some(at));
}

/// A node whose last segment is full: there was no room for another one.
fn full() -> (Disk, LogIndex) {
    let mut node = Node::start(Disk::default(), format());
    node.disk.is_full = true;
    while node.storage.durable() == node.last.index {
        node.append_all(1, [700]);
    }
    node.disk.is_full = false;
    assert!(node.storage.journal.active.is_none());
    let end = node.storage.durable();
    (node.disk, end)
}

/// What follows a full segment may be gone with the name of the next one. A cut that was marked takes it away, from
/// where that begins and no further back.
#[test]
fn what_is_proven_behind_a_full_segment_is_missed_unless_a_cut_took_it() {
    let (disk, end) = full();
    let durable = LogIndex(end.0 + 2);
    for (from, row, is_missed) in
        [(None, "tail-unknown", true), (Some(1), "cutting", false), (Some(3), "cutting", true)]
    {
        let mut disk = disk.clone();
        change_hard(&mut disk, |hard| {
            hard.durable_hint = durable;
            if let Some(behind) = from {
                hard.cut = Cut { from: LogIndex(end.0 + behind), epoch: hard.write_epoch };
                hard.cutting = true;
            }
        });
        let found = look(&disk, Start::Inspect);
        assert_eq!(found.judgement.row, row, "{found}");
        let missed = found.defects.iter().find(|defect| defect.expected.contains("were durable"));
        assert_eq!(missed.is_some(), is_missed, "{from:?}: {found}");
        assert_eq!(found.defects.len(), usize::from(is_missed), "{from:?}: {found}");
    }
}
