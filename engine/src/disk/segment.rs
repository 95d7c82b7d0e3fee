//! A log segment: two headers, slots, entries, end record.
//!
//! ```text
//! 0           header A
//! align       slots: 40 bytes each, none across a block
//! ..          guard: one misdirected write must not hit an entry and its slot
//! data_at     entries; each write starts on a fresh block, zeros fill the block it ends in
//! len - 2*align   header B
//! len - align     end record, once the segment is full
//! ```
//!
//! Slot *n* is the second witness of entry `first + n` and says where it lies. An entry begins
//! right behind the one before it or, when that one ended a write, at the next block.

use super::{Fault, FileSeed, open_block, seal_block};
use crate::{
    entry::{Head, Kind},
    le::{put_u32, put_u64, put_u64s, u32_at, u64_at, u64s_at},
    types::{ClusterId, GroupId, Identity, LogId, LogIndex, NodeId, SnapshotId, Term, Timestamp},
};

const HEADER: &[u8; 8] = b"LAKESEGM";
const END: &[u8; 8] = b"LAKEENDR";
/// A slot's length.
pub(crate) const SLOT_BYTES: usize = 40;
const GUARD_BYTES_MAX: u64 = 2 << 20;
const HEADER_END: usize = 136;
const RUNS_AT: usize = 96;

/// Where things lie in a segment of some length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Layout {
    pub(crate) len: u64,
    pub(crate) align: u64,
    pub(crate) slot_count: u32,
    pub(crate) data_at: u64,
}

impl Layout {
    pub(crate) fn new(len: u64, align: u32) -> Self {
        let align = u64::from(align);
        let slot_blocks = (len / 16 / align).max(1);
        let guard = (len / 32).clamp(align, GUARD_BYTES_MAX).next_multiple_of(align);
        let per_block = align / SLOT_BYTES as u64;
        Self {
            len,
            align,
            slot_count: (slot_blocks * per_block) as u32,
            data_at: align + slot_blocks * align + guard,
        }
    }

    pub(crate) const fn header_offsets(&self) -> [u64; 2] {
        [0, self.len - 2 * self.align]
    }

    pub(crate) const fn end_offset(&self) -> u64 {
        self.len - self.align
    }

    /// Where entries must have ended.
    pub(crate) const fn data_end(&self) -> u64 {
        self.len - 2 * self.align
    }

    const fn slots_per_block(&self) -> u64 {
        self.align / SLOT_BYTES as u64
    }

    /// How many slots begin at or before this byte, counted from the first slot on.
    pub(crate) fn slots_through(&self, at: u64) -> u32 {
        let (blocks, rest) = (at / self.align, at % self.align);
        let in_block = (rest / SLOT_BYTES as u64 + 1).min(self.slots_per_block());
        u32::try_from(blocks * self.slots_per_block() + in_block)
            .unwrap_or(u32::MAX)
            .min(self.slot_count)
    }

    /// The start of the block that holds slot `n`.
    pub(crate) const fn slot_block(&self, n: u32) -> u64 {
        self.align + n as u64 / self.slots_per_block() * self.align
    }

    /// Where slot `n` lies.
    pub(crate) const fn slot_offset(&self, n: u32) -> u64 {
        self.slot_block(n) + n as u64 % self.slots_per_block() * SLOT_BYTES as u64
    }

    /// The first slot of the block that holds slot `n`.
    pub(crate) const fn slot_block_first(&self, n: u32) -> u32 {
        (n as u64 / self.slots_per_block() * self.slots_per_block()) as u32
    }

    /// The block boundary at or after `offset`.
    pub(crate) const fn block_after(&self, offset: u64) -> u64 {
        offset.next_multiple_of(self.align)
    }

    /// The block boundary at or before `offset`.
    pub(crate) const fn block_before(&self, offset: u64) -> u64 {
        offset / self.align * self.align
    }
}

/// A segment's header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) identity: Identity,
    pub(crate) sequence: u64,
    pub(crate) first: LogIndex,
    /// The term of the entry before `first`.
    pub(crate) prev_term: Term,
    /// The write epoch in which it was opened.
    pub(crate) epoch: u64,
    pub(crate) layout: Layout,
    /// The most bytes of entries that may be in flight: what a torn tail can reach.
    pub(crate) window_bytes: u64,
    /// The snapshot whose install staged it; zero: none.
    pub(crate) staged_for: SnapshotId,
}

impl Header {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut block = vec![0; self.layout.align as usize];
        let (identity, layout) = (&self.identity, &self.layout);
        put_u64s(
            &mut block,
            16,
            &[
                self.sequence,
                identity.cluster.0,
                identity.cluster_epoch,
                identity.group.0,
                identity.node.0,
                identity.incarnation,
                self.first.0,
                self.prev_term.0,
                self.epoch,
                layout.len,
                layout.align,
                u64::from(layout.slot_count),
                layout.data_at,
                self.window_bytes,
                self.staged_for.0,
            ],
        );
        seal_block(&mut block, HEADER, FileSeed::new(identity.group, self.sequence));
        block
    }

    pub(crate) fn decode(block: &[u8], group: GroupId, sequence: u64) -> Result<Self, Fault> {
        open_block(block, HEADER, FileSeed::new(group, sequence), HEADER_END)?;
        let (of_group, named) = (group, sequence);
        let [
            sequence,
            cluster,
            cluster_epoch,
            group,
            node,
            incarnation,
            first,
            prev_term,
            epoch,
            len,
            align,
            slot_count,
            data_at,
            window_bytes,
            staged_for,
        ] = u64s_at(block, 16);
        let align_field = u32::try_from(align).ok().filter(|a| a.is_power_of_two() && *a >= 512);
        let align_field = align_field.filter(|_| len >= 16 * align && len <= 1 << 31);
        let layout = Layout::new(len, align_field.ok_or(Fault::Field)?);
        if u64::from(layout.slot_count) != slot_count || layout.data_at != data_at || first == 0 {
            return Err(Fault::Field);
        }
        if GroupId(group) != of_group || sequence != named {
            return Err(Fault::Field);
        }
        Ok(Self {
            identity: Identity {
                cluster: ClusterId(cluster),
                cluster_epoch,
                group: GroupId(group),
                node: NodeId(node),
                incarnation,
            },
            sequence,
            first: LogIndex(first),
            prev_term: Term(prev_term),
            epoch,
            layout,
            window_bytes,
            staged_for: SnapshotId(staged_for),
        })
    }
}

/// How far `index` is ahead of what was durable when its record was submitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FloorLag(pub(crate) u32);

impl FloorLag {
    /// Proves nothing.
    pub(crate) const NOTHING: Self = Self(u32::MAX);

    pub(crate) fn new(index: LogIndex, durable: LogIndex) -> Self {
        Self(u32::try_from(index.0.saturating_sub(durable.0)).unwrap_or(u32::MAX))
    }

    /// What the record of `index` proves to have been durable.
    pub(crate) fn floor(self, index: LogIndex) -> LogIndex {
        if self == Self::NOTHING {
            return LogIndex(0);
        }
        LogIndex(index.0.saturating_sub(u64::from(self.0)))
    }
}

/// An entry's second witness.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slot {
    pub(crate) id: LogId,
    /// Where its entry lies in the segment.
    pub(crate) offset: u32,
    pub(crate) total_bytes: u32,
    /// The entry's digest.
    pub(crate) digest: u32,
    pub(crate) epoch: u64,
    pub(crate) kind: Kind,
    pub(crate) floor_lag: FloorLag,
}

impl Slot {
    pub(crate) fn of(head: &Head, offset: u64, epoch: u64, floor_lag: FloorLag) -> Self {
        Self {
            id: head.id,
            offset: offset as u32,
            total_bytes: head.total_bytes,
            digest: head.digest,
            epoch,
            kind: head.kind,
            floor_lag,
        }
    }

    /// Whether it and the entry's header speak of the same entry.
    pub(crate) fn agrees(&self, head: &Head) -> bool {
        self.id == head.id && self.digest == head.digest && self.total_bytes == head.total_bytes
    }

    pub(crate) const fn end(&self) -> u64 {
        self.offset as u64 + self.total_bytes as u64
    }

    pub(crate) fn encode(&self, seed: FileSeed) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        put_u32(&mut bytes, 0, self.id.index.0 as u32);
        put_u32(&mut bytes, 4, self.offset);
        put_u64(&mut bytes, 8, self.id.term.0);
        put_u32(&mut bytes, 16, self.total_bytes);
        put_u32(&mut bytes, 20, self.digest);
        put_u64(&mut bytes, 24, self.epoch << 8 | self.kind as u64);
        put_u32(&mut bytes, 32, self.floor_lag.0);
        let crc = seed.crc(&bytes[..36]);
        put_u32(&mut bytes, 36, crc);
        bytes
    }

    /// Reads the slot of `index`; `None` when it is absent, torn or another's.
    pub(crate) fn decode(bytes: &[u8], seed: FileSeed, index: LogIndex) -> Option<Self> {
        let bytes = bytes.first_chunk::<SLOT_BYTES>()?;
        if bytes == &[0; SLOT_BYTES]
            || seed.crc(&bytes[..36]) != u32_at(bytes, 36)
            || u32_at(bytes, 0) != index.0 as u32
        {
            return None;
        }
        let epoch_and_kind = u64_at(bytes, 24);
        Some(Self {
            id: LogId::new(Term(u64_at(bytes, 8)), index),
            offset: u32_at(bytes, 4),
            total_bytes: u32_at(bytes, 16),
            digest: u32_at(bytes, 20),
            epoch: epoch_and_kind >> 8,
            kind: Kind::from_byte(epoch_and_kind as u8)?,
            floor_lag: FloorLag(u32_at(bytes, 32)),
        })
    }
}

/// The end of a full segment: it holds all of its entries, and the terms they have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct EndRecord {
    pub(crate) last: LogId,
    pub(crate) epoch: u64,
    pub(crate) floor_lag: FloorLag,
    /// Where the last entry ends.
    pub(crate) data_bytes: u64,
    /// The leader's clock in the last entry, or in one behind it that was cut.
    pub(crate) last_time: Timestamp,
    /// Where each run of equal terms begins; empty when there are more than fit.
    pub(crate) runs: Vec<(LogIndex, Term)>,
}

impl EndRecord {
    /// What was known to be durable when it was written.
    pub(crate) fn floor(&self) -> LogIndex {
        self.floor_lag.floor(self.last.index)
    }

    /// The most runs an end record of this block size holds.
    pub(crate) const fn runs_max(align: u64) -> usize {
        (align as usize - RUNS_AT) / 16
    }

    pub(crate) fn encode(&self, group: GroupId, sequence: u64, align: u64) -> Vec<u8> {
        let mut block = vec![0; align as usize];
        let runs: &[_] =
            if self.runs.len() <= Self::runs_max(align) { &self.runs } else { Default::default() };
        put_u64s(
            &mut block,
            16,
            &[
                sequence,
                self.last.index.0,
                self.last.term.0,
                self.epoch,
                u64::from(self.floor_lag.0),
                self.data_bytes,
                self.last_time.0,
                runs.len() as u64,
            ],
        );
        for (n, (index, term)) in runs.iter().enumerate() {
            put_u64s(&mut block, RUNS_AT + 16 * n, &[index.0, term.0]);
        }
        seal_block(&mut block, END, FileSeed::new(group, sequence));
        block
    }

    pub(crate) fn decode(block: &[u8], group: GroupId, sequence: u64) -> Result<Self, Fault> {
        open_block(block, END, FileSeed::new(group, sequence), RUNS_AT)?;
        let [named, index, term, epoch, floor_lag, data_bytes, last_time, count] =
            u64s_at(block, 16);
        if named != sequence {
            return Err(Fault::Field);
        }
        let count = usize::try_from(count).ok();
        let count =
            count.filter(|&n| n <= Self::runs_max(block.len() as u64)).ok_or(Fault::Field)?;
        let run = |n| {
            let [index, term] = u64s_at(block, RUNS_AT + 16 * n);
            (LogIndex(index), Term(term))
        };
        Ok(Self {
            last: LogId::new(Term(term), LogIndex(index)),
            epoch,
            floor_lag: FloorLag(u32::try_from(floor_lag).map_err(|_| Fault::Field)?),
            data_bytes,
            last_time: Timestamp(last_time),
            runs: (0..count).map(run).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of the slots ends there.
    #[test]
    fn no_slot_begins_behind_the_last_one_that_a_byte_lies_in() {
        for (len, align) in [(1 << 16, 512), (1 << 20, 4096)] {
            let layout = Layout::new(len, align);
            let first = layout.slot_offset(0);
            for n in 0..layout.slot_count {
                let at = layout.slot_offset(n) - first;
                let through =
                    [0, SLOT_BYTES as u64 - 1].map(|byte| layout.slots_through(at + byte));
                assert_eq!(through, [n + 1; 2], "{layout:?}");
            }
            // What fills a block belongs to its last slot, and what lies behind all of them to none.
            let block = u64::from(align);
            assert_eq!(u64::from(layout.slots_through(block - 1)), layout.slots_per_block());
            assert_eq!(layout.slots_through(layout.data_at - first), layout.slot_count);
        }
    }
}
