//! The frozen form of the state: the bytes of a snapshot, and of the digest.
//!
//! ```text
//! magic "LKBKV", version u8, zero u16
//! last command's term u64, index u64, time u64, keys u64
//! per key, by shard and then in order: key length u32, value length u32, expiry u64, key, value
//! ```
//!
//! Integers are little-endian. Invariant: equal states have equal bytes, on every node.

use crate::{
    machine::{KEY_BYTES_MAX, VALUE_BYTES_MAX},
    map::Map,
    shard::{Shard, Slot},
};
use bytes::{BufMut, Bytes, BytesMut};
use lakebed::{LogId, LogIndex, MachineError, Term, Timestamp};
use std::{sync::Arc, vec::IntoIter};

const MAGIC: [u8; 8] = *b"LKBKV\x01\0\0";
const HEAD_BYTES: usize = 40;
const ENTRY_BYTES: usize = 16;
/// A piece ends with the entry that makes it this long.
const PIECE_BYTES: usize = 64 << 10;

/// What the machine is, apart from its keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Position {
    /// The last command's entry.
    pub(crate) at: LogId,
    /// That entry's time.
    pub(crate) time: Timestamp,
}

/// A view in pieces. Lets go of each shard as soon as it writes it out.
pub(crate) struct Frozen {
    head: Option<[u8; HEAD_BYTES]>,
    shards: IntoIter<Arc<Shard>>,
    /// Of the shard before those, what is not written out yet.
    rest: IntoIter<Slot>,
}

impl Frozen {
    pub(crate) fn new(position: Position, map: &Map) -> Self {
        let mut head = [0; HEAD_BYTES];
        head[..8].copy_from_slice(&MAGIC);
        let Position { at, time } = position;
        let fields = [at.term.0, at.index.0, time.0, map.len() as u64];
        for (field, bytes) in fields.into_iter().zip(head[8..].chunks_exact_mut(8)) {
            bytes.copy_from_slice(&field.to_le_bytes());
        }
        let shards = map.view().into_iter();
        Self { head: Some(head), shards, rest: IntoIter::default() }
    }

    /// Adds entries until the piece is full; false: the shard is at its end.
    fn fill(&mut self, piece: &mut BytesMut) -> bool {
        for slot in &mut self.rest {
            piece.put_u32_le(slot.key().len() as u32);
            piece.put_u32_le(slot.value().len() as u32);
            piece.put_u64_le(slot.expires.0);
            piece.put_slice(slot.key());
            piece.put_slice(slot.value());
            if piece.len() >= PIECE_BYTES {
                return true;
            }
        }
        false
    }
}

impl Iterator for Frozen {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        if let Some(head) = self.head.take() {
            piece.put_slice(&head);
        }
        while !self.fill(&mut piece) {
            let Some(shard) = self.shards.next() else { break };
            self.rest = shard.sorted().into_iter();
        }
        (!piece.is_empty()).then(|| piece.freeze())
    }
}

/// A frozen view on its way back in.
#[derive(Default)]
pub(crate) struct Thaw {
    /// Bytes taken in so far.
    taken: u64,
    /// The beginning of what is not whole yet.
    carry: Vec<u8>,
    position: Position,
    /// Keys to come; `None`: not even the head is whole.
    keys: Option<u64>,
    map: Map,
}

impl Thaw {
    /// Takes in the next bytes.
    pub(crate) fn take(&mut self, offset: u64, bytes: &[u8]) -> Result<(), MachineError> {
        if offset != self.taken {
            return Err(bad(format!("expected the state from byte {}, got {offset}", self.taken)));
        }
        self.taken += bytes.len() as u64;
        let mut carry = std::mem::take(&mut self.carry);
        carry.extend_from_slice(bytes);
        let mut used = 0;
        while let Some(step) = self.step(&carry[used..])? {
            used += step;
        }
        carry.drain(..used);
        self.carry = carry;
        Ok(())
    }

    /// What the bytes amount to, all having been taken in.
    pub(crate) fn finish(self) -> Result<(Position, Map), MachineError> {
        match self.keys {
            Some(0) if self.carry.is_empty() => Ok((self.position, self.map)),
            Some(0) => Err(bad(format!("{} bytes behind the last key", self.carry.len()))),
            Some(keys) => Err(bad(format!("the state ends {keys} keys early"))),
            None => Err(bad(format!("the state ends after {} bytes", self.taken))),
        }
    }

    /// Takes in the head or one key; how many bytes that were, `None` if they are not all there.
    fn step(&mut self, rest: &[u8]) -> Result<Option<usize>, MachineError> {
        match self.keys {
            None => self.take_head(rest),
            Some(0) => Ok(None),
            Some(keys) => {
                let used = self.take_key(rest)?;
                self.keys = Some(keys - u64::from(used.is_some()));
                Ok(used)
            }
        }
    }

    fn take_head(&mut self, rest: &[u8]) -> Result<Option<usize>, MachineError> {
        let Some(head) = rest.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        if head[..8] != MAGIC {
            let found = head[..8].escape_ascii();
            return Err(bad(format!("expected {}, found {found}", MAGIC.escape_ascii())));
        }
        let [term, index, time, keys] = [8, 16, 24, 32].map(|at| u64_at(head, at));
        self.position =
            Position { at: LogId::new(Term(term), LogIndex(index)), time: Timestamp(time) };
        self.keys = Some(keys);
        Ok(Some(HEAD_BYTES))
    }

    fn take_key(&mut self, rest: &[u8]) -> Result<Option<usize>, MachineError> {
        let Some(fixed) = rest.first_chunk::<ENTRY_BYTES>() else { return Ok(None) };
        let lens = u64_at(fixed, 0);
        let (key_len, value_len) = (lens as u32 as usize, (lens >> 32) as usize);
        if key_len > KEY_BYTES_MAX || value_len > VALUE_BYTES_MAX {
            return Err(bad(format!("a key of {key_len} bytes with a value of {value_len}")));
        }
        let total = ENTRY_BYTES + key_len + value_len;
        let Some(entry) = rest.get(ENTRY_BYTES..total) else { return Ok(None) };
        let (key, value) = entry.split_at(key_len);
        self.map.put(key, value, Timestamp(u64_at(fixed, 8)));
        Ok(Some(total))
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes were asked for"))
}

fn bad(why: String) -> MachineError {
    MachineError(format!("not a state of this machine: {why}"))
}
