//! A snapshot file: header, blocks, footer. It is whole when its footer is.
//!
//! ```text
//! 0           header, 4 KiB or one `align`, whichever is more
//! ..          blocks of `block_bytes`, the last one shorter; each padded to `align`
//! len - align footer: how many blocks, how many payload bytes, their digest
//! ```

use super::{Fault, FileSeed, open_block, seal_block};
use crate::{
    config::SNAPSHOT_BLOCK_UNITS,
    le::{put_u32, put_u64, put_u64s, u32_at, u64_at, u64s_at},
    membership::{CODE_BYTES_MAX, Membership},
    types::{ClusterId, GroupId, Identity, LogId, LogIndex, NodeId, SnapshotId, Term, Timestamp},
};
use bytes::BytesMut;
use std::sync::Arc;

const HEADER: &[u8; 8] = b"LAKESNAP";
const FOOTER: &[u8; 8] = b"LAKEFOOT";
const BLOCK: &[u8; 4] = b"SBLK";
const HEADER_BYTES: u64 = 4096;
const FOOTER_END: usize = 40;
const MEMBERSHIP_AT: usize = 256;
const _: () = assert!(MEMBERSHIP_AT + CODE_BYTES_MAX <= HEADER_BYTES as usize);
/// Before a block's payload: magic, crc, number, length, four zero bytes.
pub(crate) const BLOCK_HEAD_BYTES: usize = 24;

/// Where a snapshot came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub(crate) enum Origin {
    Captured = 1,
    Installed = 2,
}

/// The length of a header in a file of this alignment.
pub(crate) fn header_bytes(align: u32) -> u64 {
    HEADER_BYTES.max(u64::from(align))
}

/// The length of a block, chosen by whoever writes: a multiple of `align`.
pub(crate) fn block_bytes(align: u32) -> u32 {
    align * SNAPSHOT_BLOCK_UNITS
}

/// A snapshot's header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) identity: Identity,
    pub(crate) at: LogId,
    pub(crate) id: SnapshotId,
    pub(crate) origin: Origin,
    pub(crate) block_bytes: u32,
    /// Of how many groups this is one; zero: not said.
    pub(crate) groups: u32,
    /// None of what it holds was of a later time; zero: not said.
    pub(crate) time: Timestamp,
    pub(crate) membership: Arc<Membership>,
}

impl Header {
    pub(crate) fn encode(&self, align: u32) -> Vec<u8> {
        let mut block = vec![0; header_bytes(align) as usize];
        let identity = &self.identity;
        put_u64s(
            &mut block,
            16,
            &[
                identity.cluster.0,
                identity.cluster_epoch,
                identity.group.0,
                identity.node.0,
                identity.incarnation,
                self.at.index.0,
                self.at.term.0,
                self.id.0,
                self.origin as u64,
                u64::from(self.block_bytes),
                u64::from(self.groups),
                self.time.0,
            ],
        );
        let membership = self.membership.encode();
        block[MEMBERSHIP_AT..MEMBERSHIP_AT + membership.len()].copy_from_slice(&membership);
        // The id lies in the header itself, so the header is seeded by the place it speaks of.
        seal_block(&mut block, HEADER, FileSeed::new(identity.group, self.at.index.0));
        block
    }

    pub(crate) fn decode(block: &[u8], group: GroupId, at: LogId) -> Result<Self, Fault> {
        open_block(block, HEADER, FileSeed::new(group, at.index.0), MEMBERSHIP_AT)?;
        let of_group = group;
        let [
            cluster,
            cluster_epoch,
            group,
            node,
            incarnation,
            index,
            term,
            id,
            origin,
            block_bytes,
            groups,
            time,
        ] = u64s_at(block, 16);
        let origin = match origin {
            1 => Origin::Captured,
            2 => Origin::Installed,
            _ => return Err(Fault::Field),
        };
        if GroupId(group) != of_group {
            return Err(Fault::Field);
        }
        let block_bytes = u32::try_from(block_bytes).map_err(|_| Fault::Field)?;
        let groups = u32::try_from(groups).map_err(|_| Fault::Field)?;
        if !(512..=16 << 20).contains(&block_bytes) || LogId::new(Term(term), LogIndex(index)) != at
        {
            return Err(Fault::Field);
        }
        let membership = Membership::decode(&block[MEMBERSHIP_AT..]).ok_or(Fault::Field)?;
        Ok(Self {
            identity: Identity {
                cluster: ClusterId(cluster),
                cluster_epoch,
                group: GroupId(group),
                node: NodeId(node),
                incarnation,
            },
            at,
            id: SnapshotId(id),
            origin,
            block_bytes,
            groups,
            time: Timestamp(time),
            membership: Arc::new(membership),
        })
    }
}

/// Makes a block, padded to `align`, of what lies in it behind the room for its head: its payload.
pub(crate) fn seal_payload(
    block: &mut BytesMut,
    number: u64,
    group: GroupId,
    id: SnapshotId,
    align: u32,
) {
    let used = block.len();
    block.resize(used.next_multiple_of(align as usize), 0);
    block[..BLOCK_HEAD_BYTES].fill(0);
    block[..4].copy_from_slice(BLOCK);
    put_u64(block, 8, number);
    put_u32(block, 16, (used - BLOCK_HEAD_BYTES) as u32);
    let crc = FileSeed::new(group, id.0).crc(&block[8..used]);
    put_u32(block, 4, crc);
}

/// A block around `payload`.
#[cfg(any(test, fuzzing))]
pub(crate) fn encode_block(
    payload: &[u8],
    number: u64,
    group: GroupId,
    id: SnapshotId,
    align: u32,
) -> Vec<u8> {
    let mut block = BytesMut::zeroed(BLOCK_HEAD_BYTES);
    block.extend_from_slice(payload);
    seal_payload(&mut block, number, group, id, align);
    block.into()
}

/// The payload of block `number`.
pub(crate) fn decode_block(
    block: &[u8],
    number: u64,
    group: GroupId,
    id: SnapshotId,
) -> Result<&[u8], Fault> {
    if block.len() < BLOCK_HEAD_BYTES || &block[..4] != BLOCK {
        return Err(Fault::Absent);
    }
    let used = BLOCK_HEAD_BYTES + u32_at(block, 16) as usize;
    let sealed = block.get(8..used).ok_or(Fault::Checksum)?;
    if FileSeed::new(group, id.0).crc(sealed) != u32_at(block, 4) {
        return Err(Fault::Checksum);
    }
    if u64_at(block, 8) != number {
        return Err(Fault::Field);
    }
    Ok(&block[BLOCK_HEAD_BYTES..used])
}

/// The end of a whole snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Footer {
    pub(crate) blocks: u64,
    pub(crate) payload_bytes: u64,
    /// CRC32C of the whole payload.
    pub(crate) digest: u32,
}

impl Footer {
    pub(crate) fn encode(&self, group: GroupId, id: SnapshotId, align: u32) -> Vec<u8> {
        let mut block = vec![0; align as usize];
        put_u64s(&mut block, 16, &[self.blocks, self.payload_bytes, u64::from(self.digest)]);
        seal_block(&mut block, FOOTER, FileSeed::new(group, id.0));
        block
    }

    pub(crate) fn decode(block: &[u8], group: GroupId, id: SnapshotId) -> Result<Self, Fault> {
        open_block(block, FOOTER, FileSeed::new(group, id.0), FOOTER_END)?;
        let [blocks, payload_bytes, digest] = u64s_at(block, 16);
        let digest = u32::try_from(digest).map_err(|_| Fault::Field)?;
        Ok(Self { blocks, payload_bytes, digest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_read_though_nothing_follows_its_payload() {
        let (group, id) = (GroupId(1), SnapshotId(2));
        for payload in [&b""[..], b"state"] {
            let block = encode_block(payload, 7, group, id, 512);
            let end = BLOCK_HEAD_BYTES + payload.len();
            assert_eq!(decode_block(&block[..end], 7, group, id), Ok(payload));
            let cut = decode_block(&block[..end - 1], 7, group, id);
            let fault = if payload.is_empty() { Fault::Absent } else { Fault::Checksum };
            assert_eq!(cut, Err(fault));
        }
    }
}
