//! What an install that a crash broke off had written: read back, verified, and gone on with.
//!
//! Nothing says how much of it is durable, so nothing is believed: blocks count from the first on,
//! as far as each is whole and of the snapshot that a peer sends now. Invariant: what is taken over
//! is, byte for byte, what the peer would send again.

use super::{
    ops::{Job, Ops},
    saving::BLOCKS_IN_FLIGHT_MAX,
};
use crate::{
    disk::snapshot::{BLOCK_HEAD_BYTES, Header, decode_block, header_bytes},
    file::{Class, DiskRequest, File},
    types::{LogId, OpId, SnapshotId, SnapshotName},
};
use bytes::Bytes;
use std::collections::BTreeMap;

/// A file that an earlier life left unfinished.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Leftover {
    pub(crate) at: LogId,
    pub(crate) id: SnapshotId,
    pub(crate) len: u64,
}

impl Leftover {
    pub(super) const fn file(&self) -> File {
        File::Part(self.at, self.id)
    }

    /// Whether it can be the beginning of this snapshot, as this node would write it.
    pub(super) fn begins(&self, name: SnapshotName, header: &Header, align: u32) -> bool {
        let shape = Shape::new(name, header, align);
        (self.at, self.id) == (name.at, name.id) && name.bytes > 0 && self.len <= shape.file_bytes()
    }
}

/// Where the blocks of a snapshot of known length lie.
#[derive(Clone, Copy, Debug)]
struct Shape {
    align: u64,
    block_bytes: u64,
    payload_bytes: u64,
}

impl Shape {
    fn new(name: SnapshotName, header: &Header, align: u32) -> Self {
        let block_bytes = u64::from(header.block_bytes);
        Self { align: u64::from(align), block_bytes, payload_bytes: name.bytes }
    }

    const fn payload_max(&self) -> u64 {
        self.block_bytes - BLOCK_HEAD_BYTES as u64
    }

    const fn blocks(&self) -> u64 {
        self.payload_bytes.div_ceil(self.payload_max())
    }

    fn payload_of(&self, number: u64) -> u64 {
        (self.payload_bytes - number * self.payload_max()).min(self.payload_max())
    }

    fn offset(&self, number: u64) -> u64 {
        header_bytes(self.align as u32) + number * self.block_bytes
    }

    fn len_of(&self, number: u64) -> u64 {
        (BLOCK_HEAD_BYTES as u64 + self.payload_of(number)).next_multiple_of(self.align)
    }

    /// With its footer.
    fn file_bytes(&self) -> u64 {
        let last = self.blocks() - 1;
        self.offset(last) + self.len_of(last) + self.align
    }
}

/// Reads a leftover back.
#[derive(Clone, Debug)]
pub(super) struct Rereading {
    file: File,
    shape: Shape,
    /// No block from this one on is there, or good.
    end: u64,
    next_read: u64,
    next: u64,
    reads: BTreeMap<OpId, u64>,
    arrived: BTreeMap<u64, Bytes>,
}

impl Rereading {
    pub(super) fn new(left: &Leftover, name: SnapshotName, header: &Header, align: u32) -> Self {
        let shape = Shape::new(name, header, align);
        let behind_header = left.len.saturating_sub(shape.offset(0));
        let end = behind_header.div_ceil(shape.block_bytes).min(shape.blocks());
        let (reads, arrived) = (BTreeMap::new(), BTreeMap::new());
        Self { file: left.file(), shape, end, next_read: 0, next: 0, reads, arrived }
    }

    /// Asks for the next blocks; how many.
    pub(super) fn read(&mut self, ops: &mut Ops) -> u32 {
        let before = self.reads.len();
        while self.next_read < self.end
            && self.reads.len() + self.arrived.len() < BLOCKS_IN_FLIGHT_MAX as usize
        {
            let number = self.next_read;
            self.next_read += 1;
            let (offset, len) = (self.shape.offset(number), self.shape.len_of(number) as u32);
            let request = DiskRequest::Read { file: self.file, offset, len };
            let op = ops.submit(Job::Staging, Class::Background, request);
            self.reads.insert(op, number);
        }
        (self.reads.len() - before) as u32
    }

    /// A read ended; what could not be read is not there.
    pub(super) fn on_read(&mut self, op: OpId, block: Option<Bytes>) {
        let Some(number) = self.reads.remove(&op) else { return };
        self.arrived.insert(number, block.unwrap_or_default());
    }

    /// Whether this is one of its reads.
    pub(super) fn reads(&self, op: OpId) -> bool {
        self.reads.contains_key(&op)
    }

    /// The next block, if it has come and is good: where it lies, and its payload beside it.
    pub(super) fn take(&mut self, header: &Header) -> Option<(u64, Bytes, Bytes)> {
        let (number, group) = (self.next, header.identity.group);
        // Nothing comes at `end`: it was not asked for, or was the bad one.
        let block = self.arrived.remove(&number)?;
        let payload = decode_block(&block, number, group, header.id).ok();
        // A power cut may have left the last one shorter than it is written, though all that it says is there.
        let is_whole = block.len() as u64 == self.shape.len_of(number);
        let is_all =
            |payload: &&[u8]| is_whole && payload.len() as u64 == self.shape.payload_of(number);
        let Some(payload) = payload.filter(is_all) else {
            self.end = number;
            return None;
        };
        self.next += 1;
        let payload = block.slice_ref(payload);
        Some((self.shape.offset(number), block, payload))
    }

    /// Whether there is no more of it.
    pub(super) fn is_over(&self) -> bool {
        self.next == self.end && self.reads.is_empty()
    }

    /// Where in the file the next block begins, or the footer.
    pub(super) fn offset(&self) -> u64 {
        match self.next.checked_sub(1) {
            Some(last) => self.shape.offset(last) + self.shape.len_of(last),
            None => self.shape.offset(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        action::Action,
        disk::snapshot::{Footer, Origin, block_bytes, encode_block},
        types::{Identity, LogIndex, Term, Timestamp},
    };
    use std::{collections::VecDeque, sync::Arc};

    const ALIGN: u32 = 512;

    fn header() -> Header {
        Header {
            identity: Identity::default(),
            at: LogId::new(Term(4), LogIndex(100)),
            id: SnapshotId(77),
            origin: Origin::Installed,
            block_bytes: block_bytes(ALIGN),
            groups: 1,
            time: Timestamp(9),
            membership: Arc::default(),
        }
    }

    fn payload_max() -> usize {
        block_bytes(ALIGN) as usize - BLOCK_HEAD_BYTES
    }

    /// A whole file, and the name that a peer gives it.
    fn file(state: &[u8]) -> (Vec<u8>, SnapshotName, Leftover) {
        let Header { identity, at, id, .. } = header();
        let (group, payload_bytes, digest) =
            (identity.group, state.len() as u64, crc32c::crc32c(state));
        let (mut bytes, mut blocks) = (header().encode(ALIGN), 0);
        for payload in state.chunks(payload_max()) {
            bytes.extend(encode_block(payload, blocks, group, id, ALIGN));
            blocks += 1;
        }
        bytes.extend(Footer { blocks, payload_bytes, digest }.encode(group, id, ALIGN));
        let left = Leftover { at, id, len: bytes.len() as u64 };
        (bytes, SnapshotName { at, id, bytes: payload_bytes, digest }, left)
    }

    #[test]
    fn a_file_that_is_longer_or_of_another_name_is_no_beginning() {
        let most = payload_max();
        for len in [1, 400, most, most + 1, 5 * most + 900] {
            let (_, name, left) = file(&vec![3; len]);
            let begins = |left: Leftover| left.begins(name, &header(), ALIGN);
            assert!(begins(left) && begins(Leftover { len: 0, ..left }), "{len}");
            assert!(!begins(Leftover { len: left.len + 1, ..left }), "{len}");
            assert!(!begins(Leftover { id: SnapshotId(78), ..left }));
            assert!(!begins(Leftover { at: LogId::new(Term(4), LogIndex(101)), ..left }));
            assert!(!left.begins(SnapshotName { bytes: 0, ..name }, &header(), ALIGN));
        }
    }

    /// Storm of sessions, seed 110001348: a power cut had left it without all the zeros behind what it says.
    #[test]
    fn a_block_that_is_shorter_than_it_is_written_does_not_count() {
        let (whole, name, left) = file(&[3; 100]);
        let block = &whole[4096..whole.len() - ALIGN as usize];
        for cut in [0, 1, 300] {
            let (mut ops, mut out) = (Ops::default(), Vec::new());
            let mut rereading = Rereading::new(&left, name, &header(), ALIGN);
            rereading.read(&mut ops);
            ops.drain_into(&mut out);
            let Some(Action::Disk { op, .. }) = out.pop() else { panic!("it reads") };
            rereading.on_read(op, Some(Bytes::copy_from_slice(&block[..block.len() - cut])));
            assert_eq!(rereading.take(&header()).is_some(), cut == 0, "{cut}");
            assert!(rereading.is_over());
        }
    }

    #[test]
    fn it_counts_up_to_its_first_bad_block_and_is_gone_on_with_there() {
        let most = payload_max();
        let state: Vec<u8> = (0..6 * most + 900).map(|n| (n * 7 + n / 251) as u8).collect();
        let (whole, name, left) = file(&state);
        for (good, is_in_order) in (0..=7_usize).flat_map(|good| [(good, true), (good, false)]) {
            let begin = |block: usize| 4096 + block * block_bytes(ALIGN) as usize;
            let mut bytes = whole.clone();
            if good < 7 {
                bytes[begin(good) + 100] ^= 1;
            }
            let mut ops = Ops::default();
            let mut rereading = Rereading::new(&left, name, &header(), ALIGN);
            let (mut reads, mut taken, mut asked) = (VecDeque::new(), Vec::new(), 0);
            loop {
                let (count, mut out) = (rereading.read(&mut ops), Vec::new());
                ops.drain_into(&mut out);
                assert_eq!(out.len(), count as usize, "it says how many it asked for");
                asked += out.len();
                let held = asked - taken.len();
                assert!(taken.len() == good || held <= BLOCKS_IN_FLIGHT_MAX as usize);
                reads.extend(out);
                // They end in any order.
                let next = if is_in_order { reads.pop_front() } else { reads.pop_back() };
                let Some(action) = next else { break };
                assert!(!rereading.is_over(), "a read is on its way");
                let Action::Disk { op, request: DiskRequest::Read { offset, len, .. }, .. } =
                    action
                else {
                    panic!("it only reads: {action:?}")
                };
                let end = bytes.len().min(offset as usize + len as usize);
                let block = Bytes::copy_from_slice(&bytes[offset as usize..end]);
                rereading.on_read(op, Some(block));
                while let Some((offset, _, payload)) = rereading.take(&header()) {
                    assert_eq!(offset, begin(taken.len()) as u64);
                    taken.push(payload);
                }
            }
            assert!(rereading.is_over());
            let end = if good == 7 { whole.len() - ALIGN as usize } else { begin(good) };
            assert_eq!((taken.len(), rereading.offset()), (good, end as u64));
            assert!(state.starts_with(&taken.concat()));
        }
    }
}
