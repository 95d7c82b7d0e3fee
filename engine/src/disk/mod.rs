//! Bytes on disk. Knows no roles, no terms' meaning and no order of writing: each file turns values
//! into bytes and bytes back into values that are verified, or into the reason why they are not.
//!
//! Invariant: zero is never a valid record, and no length is believed before it was compared with
//! its limit.

pub(crate) mod backup;
#[cfg(test)]
mod golden;
pub(crate) mod hard_state;
pub(crate) mod segment;
pub(crate) mod snapshot;

use crate::{
    le::{put_u16, put_u32, u16_at, u32_at},
    types::GroupId,
};
use std::fmt;

/// The version of every structure written here.
pub(crate) const VERSION: u16 = 1;

/// Ties node-local structures to a group and to one life of a file: bytes of another file, group
/// or an earlier life of a recycled file fail their checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FileSeed(u32);

impl FileSeed {
    pub(crate) fn new(group: GroupId, sequence: u64) -> Self {
        Self(crc32c::crc32c_append(crc32c::crc32c(&group.0.to_le_bytes()), &sequence.to_le_bytes()))
    }

    pub(crate) fn crc(self, bytes: &[u8]) -> u32 {
        crc32c::crc32c_append(self.0, bytes)
    }
}

/// Why a structure is not believed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Fault {
    /// Nothing of its kind is here.
    Absent,
    /// It is of a version, or uses a feature, that this program does not know.
    Newer(u16),
    /// Its checksum does not hold.
    Checksum,
    /// It is whole and says what no writer of this version writes.
    Field,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("nothing of that kind"),
            Self::Newer(version) => write!(f, "format version {version}"),
            Self::Checksum => f.write_str("a checksum that does not hold"),
            Self::Field => f.write_str("a field no writer of this version writes"),
        }
    }
}

/// Every block but slots and entries begins alike: magic, version, incompatible features, crc of
/// all the block but the crc itself.
const PRELUDE_BYTES: usize = 16;

fn seal_block(block: &mut [u8], magic: &[u8; 8], seed: FileSeed) {
    block[..8].copy_from_slice(magic);
    put_u16(block, 8, VERSION);
    put_u16(block, 10, 0);
    let crc = block_crc(block, seed);
    put_u32(block, 12, crc);
}

/// Makes the checksum hold, whatever the block says; false: it is too short to have one.
#[cfg(any(test, fuzzing))]
pub(crate) fn reseal(block: &mut [u8], seed: FileSeed) -> bool {
    if block.len() < PRELUDE_BYTES {
        return false;
    }
    let crc = block_crc(block, seed);
    put_u32(block, 12, crc);
    true
}

/// Verifies a block whose fields reach to `fields_end`.
fn open_block(
    block: &[u8],
    magic: &[u8; 8],
    seed: FileSeed,
    fields_end: usize,
) -> Result<(), Fault> {
    if block.len() < PRELUDE_BYTES || &block[..8] != magic {
        return Err(Fault::Absent);
    }
    if block_crc(block, seed) != u32_at(block, 12) {
        return Err(Fault::Checksum);
    }
    let (version, incompatible) = (u16_at(block, 8), u16_at(block, 10));
    if version != VERSION || incompatible != 0 {
        return Err(Fault::Newer(version));
    }
    // A file that was cut short ends in less than a block, whose checksum may yet hold.
    if block.len() < fields_end {
        return Err(Fault::Field);
    }
    Ok(())
}

fn block_crc(block: &[u8], seed: FileSeed) -> u32 {
    crc32c::crc32c_append(seed.crc(&block[..12]), &block[PRELUDE_BYTES..])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As of a file that was cut short there.
    #[test]
    fn a_block_of_a_prelude_alone_is_one_without_its_fields() {
        let (mut block, magic, seed) =
            ([0; PRELUDE_BYTES], b"LAKETEST", FileSeed::new(GroupId(1), 2));
        seal_block(&mut block, magic, seed);
        assert_eq!(open_block(&block, magic, seed, 40), Err(Fault::Field));
        block[8] += 1;
        assert!(reseal(&mut block, seed));
        assert_eq!(open_block(&block, magic, seed, 40), Err(Fault::Newer(VERSION + 1)));
        assert_eq!(open_block(&block[..15], magic, seed, 40), Err(Fault::Absent));
        assert!(!reseal(&mut block[..15], seed));
    }
}
