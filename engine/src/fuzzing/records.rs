//! The records on disk, one at a time: good ones with edits, under checksums that hold.

use super::edits::edited;
use crate::{
    disk::{
        self, Fault, FileSeed,
        hard_state::HardState,
        segment::{EndRecord, FloorLag, Header, Layout, SLOT_BYTES, Slot},
        snapshot,
    },
    entry::Kind,
    le::{put_u32, u32_at},
    membership::{Member, Membership},
    types::{ClusterId, GroupId, Identity, LogId, LogIndex, NodeId, SnapshotId, Term, Timestamp},
};
use bytes::Bytes;
use std::{fmt::Debug, sync::Arc};

const GROUP: GroupId = GroupId(0x13);
const SEQUENCE: u64 = 0x51;
const ALIGN: u32 = 512;

fn identity() -> Identity {
    let (cluster, node) = (ClusterId(0x11), NodeId(0x14));
    Identity { cluster, cluster_epoch: 1, group: GROUP, node, incarnation: 0x15 }
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), LogIndex(index))
}

fn membership() -> Arc<Membership> {
    let member = |id| Member { id: NodeId(id), incarnation: id, address: Bytes::from("host:1") };
    let (voters, outgoing) = (vec![member(0x14), member(2)], vec![member(2), member(3)]);
    let (learners, used) = (vec![member(4)], NodeId(0x1e));
    Arc::new(Membership { at: id(1, 2), voters, outgoing, learners, used })
}

/// A block of the hard state.
pub fn hard_state(input: &[u8]) {
    let sample = HardState {
        number: 7,
        vote: Some(NodeId(2)),
        peers: vec![(NodeId(2), 3), (NodeId(3), 4)],
        ..HardState::new(identity(), membership())
    };
    let seed = FileSeed::new(GROUP, 0);
    let read = |block: &[u8]| HardState::decode(block, GROUP);
    block(&sample.encode(), input, seed, read, |state, _| state.encode());
}

/// A segment's header, its end record or a slot: the first byte says which.
pub fn segment(input: &[u8]) {
    let Some((which, input)) = input.split_first() else { return };
    let seed = FileSeed::new(GROUP, SEQUENCE);
    match which % 3 {
        0 => {
            let read = |block: &[u8]| {
                let header = Header::decode(block, GROUP, SEQUENCE)?;
                // It is written in blocks of its own alignment, which may be any.
                let is_ours = header.layout.align == block.len() as u64;
                if is_ours { Ok(header) } else { Err(Fault::Field) }
            };
            block(&segment_header().encode(), input, seed, read, |header, _| header.encode());
        }
        1 => {
            let read = |block: &[u8]| EndRecord::decode(block, GROUP, SEQUENCE);
            let sample = end_record().encode(GROUP, SEQUENCE, ALIGN.into());
            block(&sample, input, seed, read, |end, len| end.encode(GROUP, SEQUENCE, len as u64));
        }
        _ => slot(input, seed),
    }
}

fn segment_header() -> Header {
    Header {
        identity: identity(),
        sequence: SEQUENCE,
        first: LogIndex(0x52),
        prev_term: Term(2),
        epoch: 3,
        layout: Layout::new(1 << 16, ALIGN),
        window_bytes: 4096,
        staged_for: SnapshotId(0),
    }
}

fn end_record() -> EndRecord {
    EndRecord {
        last: id(3, 0x62),
        epoch: 3,
        floor_lag: FloorLag(1),
        data_bytes: 9000,
        last_time: Timestamp(4),
        runs: vec![(LogIndex(0x52), Term(2)), (LogIndex(0x60), Term(3))],
    }
}

fn slot(input: &[u8], seed: FileSeed) {
    let sample = Slot {
        id: id(3, 0x71),
        offset: 0x2000,
        total_bytes: 100,
        digest: 5,
        epoch: 3,
        kind: Kind::Commands,
        floor_lag: FloorLag(1),
    };
    let index = LogIndex(0x71);
    let mut bytes = edited(&sample.encode(seed), input);
    let crc = seed.crc(&bytes[..SLOT_BYTES - 4]);
    for bytes in [input.to_vec(), bytes.clone(), {
        put_u32(&mut bytes, SLOT_BYTES - 4, crc);
        bytes
    }] {
        if let Some(slot) = Slot::decode(&bytes, seed, index) {
            assert_eq!(slot.encode(seed)[..], bytes[..SLOT_BYTES], "a slot has one form");
        }
    }
}

/// A snapshot's header, its footer or a block: the first byte says which.
pub fn snapshot(input: &[u8]) {
    let Some((which, input)) = input.split_first() else { return };
    let (at, named) = (id(0x81, 0x82), SnapshotId(0x83));
    match which % 3 {
        0 => {
            let sample = snapshot::Header {
                identity: identity(),
                at,
                id: named,
                origin: snapshot::Origin::Captured,
                block_bytes: snapshot::block_bytes(ALIGN),
                groups: 3,
                time: Timestamp(4),
                membership: membership(),
            };
            let seed = FileSeed::new(GROUP, at.index.0);
            let read = |block: &[u8]| snapshot::Header::decode(block, GROUP, at);
            block(&sample.encode(ALIGN), input, seed, read, |header, _| header.encode(ALIGN));
        }
        1 => {
            let sample = snapshot::Footer { blocks: 9, payload_bytes: 8000, digest: 5 };
            let (sample, seed) =
                (sample.encode(GROUP, named, ALIGN), FileSeed::new(GROUP, named.0));
            let read = |block: &[u8]| snapshot::Footer::decode(block, GROUP, named);
            block(&sample, input, seed, read, |footer, len| {
                footer.encode(GROUP, named, len as u32)
            });
        }
        _ => payload(input, named),
    }
}

fn payload(input: &[u8], named: SnapshotId) {
    const NUMBER: u64 = 9;
    let judge = |bytes: &[u8]| {
        let Ok(payload) = snapshot::decode_block(bytes, NUMBER, GROUP, named) else { return };
        let again = snapshot::encode_block(payload, NUMBER, GROUP, named, ALIGN);
        assert_eq!(snapshot::decode_block(&again, NUMBER, GROUP, named), Ok(payload));
    };
    judge(input);
    let mut bytes = edited(&snapshot::encode_block(b"state", NUMBER, GROUP, named, ALIGN), input);
    judge(&bytes);
    let used = (u32_at(&bytes, 16) as usize).saturating_add(snapshot::BLOCK_HEAD_BYTES);
    let crc = FileSeed::new(GROUP, named.0).crc(&bytes[8..used.min(bytes.len())]);
    put_u32(&mut bytes, 4, crc);
    judge(&bytes);
}

/// A record that begins with magic, version and crc: the input itself, and the sample with the
/// input's edits, whole and cut short where the first of them lies. What is read is written in one
/// form, which is read as the same again.
fn block<T: PartialEq + Debug>(
    sample: &[u8],
    input: &[u8],
    seed: FileSeed,
    read: impl Fn(&[u8]) -> Result<T, Fault>,
    write: impl Fn(&T, usize) -> Vec<u8>,
) {
    assert!(read(sample).is_ok(), "the sample is good");
    let whole = edited(sample, input);
    let cut = super::edits::edits(input, sample.len()).next().map_or(0, |edit| edit.at);
    for mut block in [input.to_vec(), whole[..cut].to_vec(), whole] {
        for is_sealed in [false, true] {
            if is_sealed && !disk::reseal(&mut block, seed) {
                continue;
            }
            if let Ok(value) = read(&block) {
                let again = write(&value, block.len());
                let second = read(&again).expect("what was written can be read");
                assert!(write(&second, block.len()) == again, "{value:?} is read as {second:?}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::corpus::replay;

    /// No edit, one at the beginning, one far in.
    fn seeds(kinds: u8) -> Vec<Vec<u8>> {
        let edits: [&[u8]; 3] = [&[], &[16, 0, 0, 0, 2, 1, 0], &[200, 0, 0, 0, 3, 9, 9, 9]];
        let with_kind = |kind| edits.map(|edit| [&[kind][..], edit].concat());
        (0..kinds).flat_map(with_kind).collect()
    }

    #[test]
    fn kept_hard_states_mean_the_same_or_are_refused() {
        let seeds: Vec<_> = seeds(1).into_iter().map(|seed| seed[1..].to_vec()).collect();
        replay("hard_state", hard_state, &seeds);
    }

    #[test]
    fn kept_records_of_segments_mean_the_same_or_are_refused() {
        replay("segment", segment, &seeds(3));
    }

    #[test]
    fn kept_records_of_snapshots_mean_the_same_or_are_refused() {
        replay("snapshot", snapshot, &seeds(3));
    }
}
