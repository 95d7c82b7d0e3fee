//! Memory that was read into, to be read into again once nobody holds what was read.
//!
//! Fresh memory costs a fault for each of its pages: together as much as a read out of the page cache.
//! Knows no files. Invariant: all that is lent was written before, so that nothing is made zeros twice;
//! and no more than `BYTES_MAX` is kept.

use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// Memory of reads at least this long is kept: the allocator would give it back to the system.
const READ_BYTES_MIN: usize = 128 << 10;
/// The most that is kept, the last of what was read.
const BYTES_MAX: usize = 8 << 20;

#[derive(Default)]
pub(super) struct Kept {
    reads: VecDeque<Bytes>,
    bytes: usize,
}

impl Kept {
    /// So many bytes, or up to twice as many, of any content: whoever holds a piece of what is read holds all of
    /// it, and is reckoned to hold the piece.
    pub(super) fn memory(&mut self, len: usize) -> BytesMut {
        let is_free = |kept: &Bytes| (len..=2 * len).contains(&kept.len()) && kept.is_unique();
        let at = if len < READ_BYTES_MIN { None } else { self.reads.iter().position(is_free) };
        let free = at.and_then(|at| self.reads.remove(at));
        self.bytes -= free.as_ref().map_or(0, Bytes::len);
        let free = free.and_then(|kept| kept.try_into_mut().ok());
        free.unwrap_or_else(|| BytesMut::zeroed(len))
    }

    /// The first `read` bytes, which were read there.
    pub(super) fn read(&mut self, memory: BytesMut, read: usize) -> Bytes {
        let memory = memory.freeze();
        let bytes = memory.slice(..read);
        if memory.len() >= READ_BYTES_MIN && memory.len() <= BYTES_MAX {
            self.bytes += memory.len();
            self.reads.push_back(memory);
        }
        while self.bytes > BYTES_MAX {
            let oldest = self.reads.pop_front();
            self.bytes -= oldest.map_or(0, |kept| kept.len());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kept: &mut Kept, len: usize) -> Bytes {
        let mut memory = kept.memory(len);
        assert!(memory.len() >= len);
        memory.fill(7);
        kept.read(memory, len - 1)
    }

    #[test]
    fn memory_is_read_into_again_when_nobody_holds_it() {
        let mut kept = Kept::default();
        let first = read(&mut kept, READ_BYTES_MIN);
        let at = first.as_ptr();
        assert_eq!(first.len(), READ_BYTES_MIN - 1);
        let piece = first.slice(5..9);
        drop(first);
        let other = read(&mut kept, READ_BYTES_MIN);
        assert_ne!(other.as_ptr(), at, "a piece of it is held");
        assert_eq!(piece, [7; 4].as_slice());
        drop(piece);
        assert_eq!(read(&mut kept, READ_BYTES_MIN).as_ptr(), at);
        assert_ne!(read(&mut kept, READ_BYTES_MIN + 1).as_ptr(), at, "it is too short");
        assert_eq!(kept.bytes, kept.reads.iter().map(Bytes::len).sum::<usize>());
    }

    /// An entry of 128 KiB that waited for a slow peer took the megabyte that a backup was read through.
    #[test]
    fn what_is_short_is_not_read_into_what_is_far_too_long() {
        let mut kept = Kept::default();
        let at = read(&mut kept, 4 * READ_BYTES_MIN).as_ptr();
        let short = read(&mut kept, READ_BYTES_MIN);
        assert_ne!(short.as_ptr(), at, "it would be held as long as this is");
        assert_eq!(read(&mut kept, 2 * READ_BYTES_MIN).as_ptr(), at);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut kept = Kept::default();
        let held: Vec<_> =
            (0..2 * BYTES_MAX / READ_BYTES_MIN).map(|_| read(&mut kept, READ_BYTES_MIN)).collect();
        assert_eq!(kept.bytes, BYTES_MAX);
        drop(held);
        read(&mut kept, 2 * BYTES_MAX);
        read(&mut kept, 5);
        assert_eq!((kept.bytes, kept.reads.len()), (BYTES_MAX, BYTES_MAX / READ_BYTES_MIN));
    }
}
