//! Bytes of a snapshot on their way into its blocks: as they came, until each is copied to where it is
//! written from; and the memory of blocks that are written, for the next ones.
//!
//! A state of gigabytes goes through here: a copy of it more, or fresh memory for each of its blocks, is a good
//! part of what an install takes. Knows no file.

use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;

/// Shorter pieces are joined: each by itself would cost more than what it holds, and may be a small part of
/// what it was cut from.
const PIECE_BYTES_MIN: usize = 4 << 10;

#[derive(Clone, Debug, Default)]
pub(super) struct Gathered {
    pieces: VecDeque<Bytes>,
    /// The last short ones.
    joined: BytesMut,
    bytes: usize,
}

impl Gathered {
    pub(super) const fn len(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, bytes: &Bytes) {
        self.bytes += bytes.len();
        if bytes.len() < PIECE_BYTES_MIN {
            return self.joined.extend_from_slice(bytes);
        }
        self.close();
        self.pieces.push_back(bytes.clone());
    }

    /// Moves the first `bytes` of it, which it has, behind what is in `to`.
    pub(super) fn move_to(&mut self, to: &mut BytesMut, bytes: usize) {
        self.close();
        self.bytes -= bytes;
        let mut left = bytes;
        while left > 0 {
            let piece = self.pieces.front_mut().expect("it has as many");
            let taken = left.min(piece.len());
            to.extend_from_slice(&piece[..taken]);
            piece.advance(taken);
            left -= taken;
            self.pieces.pop_front_if(|piece| piece.is_empty());
        }
    }

    fn close(&mut self) {
        if !self.joined.is_empty() {
            self.pieces.push_back(self.joined.split().freeze());
        }
    }
}

/// The blocks that were written last.
#[derive(Clone, Debug, Default)]
pub(super) struct Written(VecDeque<Bytes>);

impl Written {
    /// An empty block, with room for `bytes`: in the memory of an older one, if nobody holds that any more.
    pub(super) fn next(&mut self, bytes: usize) -> BytesMut {
        let oldest = self.0.pop_front_if(|block| block.is_unique());
        let free = oldest.and_then(|block| block.try_into_mut().ok());
        let mut block = free.unwrap_or_default();
        block.clear();
        block.reserve(bytes);
        block
    }

    /// One more is being written; of so many at most the memory is kept.
    pub(super) fn push(&mut self, block: Bytes, blocks_max: usize) {
        if self.0.len() == blocks_max {
            self.0.pop_front();
        }
        self.0.push_back(block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_comes_out_in_order_in_any_portions() {
        let state: Vec<u8> = (0..100_000_u32).map(|n| (n * 7 + n / 251) as u8).collect();
        let shared = Bytes::from(state.clone());
        for lengths in [[1, 5000, 3, 3], [PIECE_BYTES_MIN, 10_000, 4095, 1], [100_000, 1, 1, 1]] {
            let (mut gathered, mut moved, mut from) = (Gathered::default(), BytesMut::new(), 0);
            for length in lengths.into_iter().cycle() {
                let to = (from + length).min(state.len());
                gathered.push(&shared.slice(from..to));
                from = to;
                if gathered.len() > 7000 {
                    gathered.move_to(&mut moved, 6500);
                }
                if from == state.len() {
                    break;
                }
            }
            let left = gathered.len();
            gathered.move_to(&mut moved, left);
            assert_eq!((gathered.len(), &moved[..]), (0, &state[..]));
        }
    }

    #[test]
    fn short_pieces_are_joined_and_long_ones_are_not_copied() {
        let long = Bytes::from(vec![7; PIECE_BYTES_MIN]);
        let mut gathered = Gathered::default();
        for piece in [&long.slice(..9), &long.slice(1..), &long, &long.slice(..3)] {
            gathered.push(piece);
        }
        gathered.close();
        let lengths: Vec<_> = gathered.pieces.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [8 + PIECE_BYTES_MIN, PIECE_BYTES_MIN, 3]);
        assert_eq!(gathered.pieces[1].as_ptr(), long.as_ptr());
    }

    #[test]
    fn the_memory_of_a_block_is_written_into_again_when_nobody_holds_it() {
        let mut written = Written::default();
        let mut block = written.next(100);
        block.extend_from_slice(&[1; 100]);
        let (at, block) = (block.as_ptr(), block.freeze());
        written.push(block.clone(), 2);
        assert_ne!(written.next(100).as_ptr(), at, "it is being written");
        assert_eq!(block, [1; 100].as_slice());
        drop(block);
        let next = written.next(100);
        assert_eq!((next.as_ptr(), next.len()), (at, 0));
        for _ in 0..3 {
            written.push(Bytes::from_static(&[2]), 2);
        }
        assert_eq!(written.0.len(), 2);
    }
}
