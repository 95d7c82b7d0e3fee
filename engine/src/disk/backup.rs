//! Reads a snapshot file that lies outside of a node's directory, piece by piece as it comes.
//!
//! Knows no node: which cluster, group and alignment it is of, the file says itself. Invariant: not
//! a byte of state is handed on before the checksum of its block held.

use super::{
    Fault,
    snapshot::{BLOCK_HEAD_BYTES, Footer, Header, block_bytes, decode_block, header_bytes},
};
use crate::{
    backup::{Backup, BackupFault},
    le::{u32_at, u64_at},
    types::{GroupId, LogId, LogIndex, Term},
};
use bytes::{Bytes, BytesMut};

/// A header is this long at least, and says how long it is.
const HEADER_BYTES_MIN: u64 = 4096;
/// Where the header tells what its own checksum is seeded with, and how long a block is.
const GROUP_AT: usize = 32;
const INDEX_AT: usize = 56;
const TERM_AT: usize = 64;
const BLOCK_BYTES_AT: usize = 88;

/// Checks a backup while it is read: see the module.
#[derive(Clone, Debug)]
pub struct BackupReader {
    len: u64,
    /// How many bytes were checked; those that came and were not yet lie in `buffer`.
    checked: u64,
    buffer: BytesMut,
    header: Option<Header>,
    align: u32,
    blocks: u64,
    payload_bytes: u64,
    digest: u32,
    footer: Option<Footer>,
}

impl BackupReader {
    /// For a file of this length.
    #[must_use]
    pub fn new(len: u64) -> Self {
        Self {
            len,
            checked: 0,
            buffer: BytesMut::new(),
            header: None,
            align: 0,
            blocks: 0,
            payload_bytes: 0,
            digest: 0,
            footer: None,
        }
    }

    /// Takes the next bytes of the file, and hands on the state that whole blocks of them hold.
    pub fn take(&mut self, bytes: &[u8], mut state: impl FnMut(Bytes)) -> Result<(), BackupFault> {
        self.buffer.extend_from_slice(bytes);
        loop {
            let wanted = self.next_bytes()?;
            if wanted == 0 || (self.buffer.len() as u64) < wanted {
                return self.check_end();
            }
            let piece = self.buffer.split_to(wanted as usize).freeze();
            if self.header.is_none() {
                self.take_header(&piece)?;
            } else if self.left() > u64::from(self.align) {
                state(self.take_block(&piece)?);
            } else {
                self.take_footer(&piece)?;
            }
            self.checked += wanted;
        }
    }

    /// What it was a backup of, if all of it came and was right.
    pub fn finish(self) -> Result<Backup, BackupFault> {
        let (Some(header), Some(footer)) = (&self.header, self.footer) else {
            self.next_bytes()?;
            let expected = format!("{} bytes", self.len);
            let end = self.checked + self.buffer.len() as u64;
            return Err(fault(end, &expected, "the end of the file"));
        };
        Ok(Backup {
            cluster: header.identity.cluster,
            group: header.identity.group,
            groups: header.groups,
            node: header.identity.node,
            at: header.at,
            id: header.id,
            bytes: footer.payload_bytes,
            digest: footer.digest,
            time: header.time,
            members: header.membership.clone(),
        })
    }

    const fn left(&self) -> u64 {
        self.len - self.checked
    }

    /// How long the piece is that must be whole before more can be said; zero at the end.
    fn next_bytes(&self) -> Result<u64, BackupFault> {
        let Some(header) = &self.header else {
            let bytes = self.header_bytes();
            if self.len < bytes {
                return Err(no_backup(format!("{} bytes, fewer than a header has", self.len)));
            }
            return Ok(bytes);
        };
        let (left, align) = (self.left(), u64::from(self.align));
        Ok(if left > align { (left - align).min(header.block_bytes.into()) } else { left })
    }

    /// A header of blocks larger than usual is longer than usual.
    fn header_bytes(&self) -> u64 {
        let Some(head) = self.buffer.get(..HEADER_BYTES_MIN as usize) else {
            return HEADER_BYTES_MIN;
        };
        let align = u32_at(head, BLOCK_BYTES_AT) / block_bytes(1);
        // What is no header may say anything here.
        if (512..=65536).contains(&align) { header_bytes(align) } else { HEADER_BYTES_MIN }
    }

    fn take_header(&mut self, block: &[u8]) -> Result<(), BackupFault> {
        let group = GroupId(u64_at(block, GROUP_AT));
        let at = LogId::new(Term(u64_at(block, TERM_AT)), LogIndex(u64_at(block, INDEX_AT)));
        let header = Header::decode(block, group, at).map_err(|fault| match fault {
            Fault::Absent => no_backup("something else".into()),
            wrong => no_backup(wrong.to_string()),
        })?;
        self.align = header.block_bytes / block_bytes(1);
        let is_as_written = self.align.is_power_of_two()
            && block_bytes(self.align) == header.block_bytes
            && header_bytes(self.align) == block.len() as u64;
        if !is_as_written {
            return Err(no_backup(Fault::Field.to_string()));
        }
        let body = self.len - block.len() as u64;
        if body < 2 * u64::from(self.align) || !body.is_multiple_of(self.align.into()) {
            let expected = format!("blocks of {} bytes, and one more that ends them", self.align);
            // Where it ends inside a block nothing says how long it was.
            let why = match body < 2 * u64::from(self.align) {
                true => "it is cut short",
                false => "it is cut short, or something was put behind it",
            };
            let found = format!("the end of the file at {}: {why}", self.len);
            return Err(fault(block.len() as u64, &expected, &found));
        }
        self.header = Some(header);
        Ok(())
    }

    fn take_block(&mut self, block: &Bytes) -> Result<Bytes, BackupFault> {
        let header = self.header.as_ref().expect("the header comes first");
        let (number, offset) = (self.blocks, self.checked);
        let wrong = |found: &str| fault(offset, &format!("block {number} of the state"), found);
        let payload = decode_block(block, number, header.identity.group, header.id)
            .map_err(|fault| wrong(&fault.to_string()))?;
        let used = BLOCK_HEAD_BYTES + payload.len();
        let is_last = self.left() - block.len() as u64 == u64::from(self.align);
        let is_full = used == header.block_bytes as usize;
        let is_as_long = used.next_multiple_of(self.align as usize) == block.len();
        let is_padded = block[used..].iter().all(|&byte| byte == 0) && block[20..24] == [0; 4];
        if !(is_full || is_last) || !is_as_long || !is_padded {
            return Err(wrong(&Fault::Field.to_string()));
        }
        self.blocks += 1;
        self.payload_bytes += payload.len() as u64;
        self.digest = crc32c::crc32c_append(self.digest, payload);
        Ok(block.slice_ref(payload))
    }

    fn take_footer(&mut self, block: &[u8]) -> Result<(), BackupFault> {
        let header = self.header.as_ref().expect("the header comes first");
        let expected = format!("the end of a backup of {} blocks", self.blocks);
        let wrong = |found: &str| fault(self.checked, &expected, found);
        let footer =
            Footer::decode(block, header.identity.group, header.id).map_err(
                |fault| match fault {
                    Fault::Absent => wrong("another block: it is cut short"),
                    fault => wrong(&fault.to_string()),
                },
            )?;
        let Self { blocks, payload_bytes, digest, .. } = *self;
        if footer != (Footer { blocks, payload_bytes, digest }) {
            return Err(wrong("that of another one: blocks are missing, or of several backups"));
        }
        self.footer = Some(footer);
        Ok(())
    }

    fn check_end(&self) -> Result<(), BackupFault> {
        if self.footer.is_some() && !self.buffer.is_empty() {
            return Err(fault(self.len, "the end of the backup", "more bytes behind it"));
        }
        Ok(())
    }
}

fn no_backup(found: String) -> BackupFault {
    fault(0, "the header of a backup or snapshot of lakebed", &found)
}

fn fault(offset: u64, expected: &str, found: &str) -> BackupFault {
    BackupFault { offset, expected: expected.into(), found: found.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        disk::{
            FileSeed, reseal,
            snapshot::{Origin, encode_block},
        },
        le::put_u64,
        membership::Membership,
        types::{ClusterId, Identity, NodeId, SnapshotId, Timestamp},
    };
    use std::sync::Arc;

    const GROUP: GroupId = GroupId(3);
    const ID: SnapshotId = SnapshotId(77);

    fn state(len: usize) -> Vec<u8> {
        (0..len).map(|n| (n * 7 + n / 251) as u8).collect()
    }

    /// A snapshot file as a node of this alignment writes it.
    fn file(align: u32, state: &[u8]) -> Vec<u8> {
        let cluster = ClusterId(9);
        let identity =
            Identity { cluster, cluster_epoch: 0, group: GROUP, node: NodeId(2), incarnation: 5 };
        let header = Header {
            identity,
            at: LogId::new(Term(4), LogIndex(100)),
            id: ID,
            origin: Origin::Captured,
            block_bytes: block_bytes(align),
            groups: 5,
            time: Timestamp(77),
            membership: Arc::new(Membership::default()),
        };
        let mut bytes = header.encode(align);
        let mut blocks = 0;
        for payload in state.chunks(block_bytes(align) as usize - BLOCK_HEAD_BYTES) {
            bytes.extend(encode_block(payload, blocks, GROUP, ID, align));
            blocks += 1;
        }
        let (payload_bytes, digest) = (state.len() as u64, crc32c::crc32c(state));
        bytes.extend(Footer { blocks, payload_bytes, digest }.encode(GROUP, ID, align));
        bytes
    }

    fn read(file: &[u8], piece: usize) -> Result<(Backup, Vec<u8>), BackupFault> {
        let (mut reader, mut state) = (BackupReader::new(file.len() as u64), Vec::new());
        for piece in file.chunks(piece) {
            reader.take(piece, |bytes| state.extend_from_slice(&bytes))?;
        }
        Ok((reader.finish()?, state))
    }

    /// A snapshot file of these blocks, padded or not as they are.
    fn file_of_blocks(blocks: &[Vec<u8>], payload: &[u8]) -> Vec<u8> {
        let (mut bytes, header) = (file(512, &[]), 4096);
        bytes.truncate(header);
        bytes.extend(blocks.concat());
        let (blocks, payload_bytes) = (blocks.len() as u64, payload.len() as u64);
        let digest = crc32c::crc32c(payload);
        bytes.extend(Footer { blocks, payload_bytes, digest }.encode(GROUP, ID, 512));
        bytes
    }

    /// All its checksums hold: who reads it elsewhere would look for the next block where none is.
    #[test]
    fn a_block_is_full_or_the_last_and_ends_where_its_payload_does() {
        let full = block_bytes(512) as usize - BLOCK_HEAD_BYTES;
        let block = |number, len| encode_block(&state(len), number, GROUP, ID, 512);
        let wrong = |blocks: &[Vec<u8>], lens: &[usize]| {
            let payload: Vec<_> = lens.iter().flat_map(|&len| state(len)).collect();
            read(&file_of_blocks(blocks, &payload), 4096).map(|_| ()).map_err(|fault| fault.offset)
        };
        let second = 4096 + u64::from(block_bytes(512));
        assert_eq!(wrong(&[block(0, full), block(1, 900)], &[full, 900]), Ok(()));
        assert_eq!(wrong(&[block(0, full - 5), block(1, 900)], &[full - 5, 900]), Err(4096));
        let mut longer = block(1, 900);
        longer.resize(longer.len() + 512, 0);
        assert_eq!(wrong(&[block(0, full), longer], &[full, 900]), Err(second));
        let mut unpadded = block(1, 900);
        *unpadded.last_mut().unwrap() = 1;
        assert_eq!(wrong(&[block(0, full), unpadded], &[full, 900]), Err(second));
    }

    /// Its checksum holds, and nothing could be read by what it says.
    #[test]
    fn a_header_of_an_alignment_that_no_node_has_is_none() {
        let seed = FileSeed::new(GROUP, 100);
        for align in [511, 600, 131_072] {
            let mut file = file(512, &state(9000));
            put_u64(&mut file, BLOCK_BYTES_AT, u64::from(block_bytes(align)));
            assert!(reseal(&mut file[..4096], seed));
            let fault = read(&file, 4096).map(drop).unwrap_err();
            assert!(fault.expected.contains("header of a backup"), "{align}: {fault}");
        }
        let mut file = file(512, &state(9000));
        put_u64(&mut file, BLOCK_BYTES_AT, u64::from(block_bytes(512)) + 1);
        assert!(reseal(&mut file[..4096], seed));
        let fault = read(&file, 4096).map(drop).unwrap_err();
        assert!(fault.expected.contains("header of a backup"), "{fault}");
    }

    #[test]
    fn a_backup_is_read_back_however_it_is_cut_and_aligned() {
        for align in [512, 4096, 16384] {
            for len in [1, 400, 64 * align as usize - 24, 64 * align as usize - 23, 300_000] {
                let (state, piece) = (state(len), 1 + len * 37 % 9001);
                let (backup, read) = read(&file(align, &state), piece).unwrap();
                assert!(read == state, "{len} bytes, {align} aligned");
                assert_eq!((backup.bytes, backup.digest), (len as u64, crc32c::crc32c(&state)));
                assert_eq!((backup.at.index, backup.id), (LogIndex(100), ID));
                assert_eq!((backup.group, backup.groups), (GROUP, 5));
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let file = file(512, &state(40_000));
        for at in 0..file.len() {
            let mut flipped = file.clone();
            flipped[at] ^= 1 << (at % 8);
            let fault = read(&flipped, file.len()).map(drop).unwrap_err();
            assert!(fault.offset <= at as u64, "byte {at}: {fault}");
        }
    }

    #[test]
    fn a_backup_cut_short_or_grown_is_none() {
        let file = file(512, &state(40_000));
        for len in 0..file.len() {
            let fault = read(&file[..len], 1000).map(drop).unwrap_err();
            assert!(!fault.found.is_empty(), "{len} bytes");
        }
        let grown = [&file[..], &[0; 512]].concat();
        assert!(read(&grown, 700).is_err());
        // It was said to be cut short, of one that was longer than it had been.
        let fault = read(&[&file[..], b"\n"].concat(), 700).map(drop).unwrap_err();
        assert!(fault.found.ends_with("or something was put behind it"), "{fault}");
        for len in [4096, 4096 + 512, 4096 + 600] {
            let fault = read(&file[..len], 700).map(drop).unwrap_err();
            assert!(fault.found.ends_with("it is cut short"), "{fault}");
        }
        // The length was told, and less came.
        let mut reader = BackupReader::new(file.len() as u64);
        reader.take(&file[..9000], |_| ()).unwrap();
        let fault = reader.finish().unwrap_err();
        assert_eq!((fault.offset, fault.found.as_str()), (9000, "the end of the file"));
    }

    #[test]
    fn what_is_no_backup_is_said_to_be_none() {
        for other in [&b"PK\x03\x04 an archive"[..], &[0; 9000], &[0xff; 9000], b""] {
            let fault = read(other, 100).map(drop).unwrap_err();
            assert!(fault.expected.contains("header of a backup"), "{fault}");
        }
    }

    #[test]
    fn blocks_of_another_backup_do_not_mix() {
        let (one, mut other) = (file(512, &state(70_000)), file(512, &state(70_001)));
        let second = 4096 + block_bytes(512) as usize;
        other[4096..second].copy_from_slice(&one[4096..second]);
        other[second - 1] ^= 1;
        assert!(read(&other, 4096).is_err());
    }

    /// Somebody wrote on while it was read.
    #[test]
    fn what_comes_behind_the_end_of_a_backup_is_told() {
        let file = file(512, &state(1_000));
        let mut reader = BackupReader::new(file.len() as u64);
        assert_eq!(reader.take(&file, drop), Ok(()));
        let fault = reader.take(&[0], drop).expect_err("there is more than was said");
        assert_eq!(fault.offset, file.len() as u64);
    }
}
