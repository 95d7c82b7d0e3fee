//! A whole directory: that of a node that lived for a while, with files changed, cut short and
//! taken away, looked at and started from by the real engine.

mod node;

use super::edits::edits;
use crate::{
    Halt, Start,
    disk::hard_state::{BLOCK_BYTES, HardState, OFFSETS},
    file::File,
    membership::{Member, Membership},
    types::{LogId, NodeId},
};
use bytes::Bytes;
use node::{Disk, Node};
use std::sync::{Arc, LazyLock};

/// A directory, and the whole state of the machine that it was written for.
struct Lived {
    disk: Disk,
    state: Vec<u8>,
}

/// Of a node that is alone, and of one that has peers.
static LIVED: LazyLock<[Lived; 2]> = LazyLock::new(|| {
    let (disk, state) = node::live();
    let among_peers = with_peers(&disk);
    [Lived { disk, state: state.clone() }, Lived { disk: among_peers, state }]
});

/// The first byte: whose directory. Then edits: a byte for the file and what is done to it (the
/// highest bit: cut it short there; the next: it is gone), and an [edit](edits) of that file.
///
/// A look and a start agree on whether the node starts, unless a verification knows better; neither
/// goes on for ever, a look changes nothing, and a machine gets nothing but what it was told before,
/// in the same order.
pub fn directory(input: &[u8]) {
    let Some((which, input)) = input.split_first() else { return };
    let lived = &LIVED[usize::from(which & 1)];
    let disk = changed(&lived.disk, input);
    let inspected = look(&disk, Start::Inspect);
    let verified = look(&disk, Start::Verify);
    let Some(inspected) = inspected else {
        assert!(verified.is_none(), "a verification begins with a look");
        return;
    };
    let judged = &inspected.judgement;
    let verified = verified.expect("what could be looked at can be verified");
    assert_eq!(verified.judgement, *judged);
    let mut node = Node::start(disk, Start::Run);
    node.go_on();
    match (&node.halted, judged.starts) {
        (Some(Halt::Refused { row, .. }), false) => assert_eq!(*row, judged.row),
        (Some(Halt::NotFormatted), false) => {}
        (ended, false) => panic!("not refused as {judged:?}, but {ended:?}"),
        // What only a verification finds, a start finds when it comes to it.
        (Some(Halt::Refused { row, file, .. }), true) => assert!(
            verified.defects.iter().any(|defect| defect.file == *file),
            "refused as {row} for {file}, judged {judged:?}"
        ),
        _ => {}
    }
    let state = &node.state();
    assert!(lived.state.starts_with(state), "{judged:?} restored another state: {state:x?}");
}

fn changed(base: &Disk, input: &[u8]) -> Disk {
    let mut disk = base.clone();
    let files: Vec<File> = base.files.keys().copied().collect();
    let mut rest = input;
    while let Some(which) = rest.split_off(..1) {
        let file = files[usize::from(which[0] & 0x3f) % files.len()];
        let Some(bytes) = disk.files.get_mut(&file) else { continue };
        let Some(edit) = edits(rest, bytes.len()).next() else { break };
        let (at, new) = (edit.at, edit.bytes);
        rest = &rest[rest.len().min(5 + usize::from(rest[4]))..];
        match which[0] >> 6 {
            0 => Arc::make_mut(bytes)[at..at + new.len()].copy_from_slice(new),
            1 => drop(disk.files.remove(&file)),
            _ => Arc::make_mut(bytes).truncate(at),
        }
    }
    disk
}

/// What a look finds, unless a read of it failed.
fn look(disk: &Disk, start: Start) -> Option<Box<crate::Inspection>> {
    let node = Node::start(disk.clone(), start);
    assert_eq!(node.disk.changes, disk.changes, "a look changes nothing");
    match node.halted {
        Some(Halt::Inspected(found)) => Some(found),
        // A file that is gone under its name, or shorter than it must be.
        Some(Halt::DiskFailed { .. }) => None,
        // Every file that makes a node of a directory is gone.
        Some(Halt::NotFormatted) if disk.files.keys().all(|f| matches!(f, File::Spare(_))) => None,
        ref ended => panic!("a look ended with {ended:?} in phase {:?}", node.phase()),
    }
}

/// The same directory, of a node with two peers.
fn with_peers(disk: &Disk) -> Disk {
    let mut disk = disk.clone();
    let member = |id| Member { id: NodeId(id), incarnation: id, address: Bytes::new() };
    let members = Arc::new(Membership { at: LogId::ZERO, ..Membership::of([1, 2, 3].map(member)) });
    let file = disk.files.get_mut(&File::HardState).expect("a node has one");
    let bytes = Arc::make_mut(file);
    for at in OFFSETS.as_flattened() {
        let block = &mut bytes[*at as usize..][..BLOCK_BYTES];
        if let Ok(mut hard) = HardState::decode(block, node::GROUP) {
            (hard.newest, hard.previous) = (members.clone(), members.clone());
            block.copy_from_slice(&hard.encode());
        }
    }
    disk
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Phase, fuzzing::corpus::replay};

    #[test]
    fn a_directory_left_alone_starts_with_all_of_its_state() {
        for (which, lived) in LIVED.iter().enumerate() {
            directory(&[which as u8]);
            let mut node = Node::start(lived.disk.clone(), Start::Run);
            node.go_on();
            assert_eq!((&node.halted, node.phase()), (&None, Phase::Ready), "{which}");
            assert_eq!(node.state().len(), lived.state.len(), "{which}");
            let has =
                |which: fn(&File) -> bool| lived.disk.files.keys().filter(|f| which(f)).count();
            assert_eq!(has(|file| matches!(file, File::Snapshot(_))), 2);
            assert!(has(|file| matches!(file, File::Segment(_))) > 2);
        }
    }

    #[test]
    fn kept_directories_start_as_judged_or_are_refused() {
        let files = LIVED[0].disk.files.len() as u8;
        let edit = |kind: u8, file: u8, at: u32| {
            [&[0, kind << 6 | file][..], &at.to_le_bytes(), &[4, 0, 1, 2, 3]].concat()
        };
        let seeds = (0..files).flat_map(|file| {
            [edit(0, file, 0), edit(0, file, 0x4100), edit(1, file, 0), edit(2, file, 0x1100)]
        });
        replay("directory", directory, &seeds.collect::<Vec<_>>());
    }
}
