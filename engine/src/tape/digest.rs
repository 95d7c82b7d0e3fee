//! A running hash of steps: equal for equal steps, on every machine and in every build. Not
//! cryptographic.
//!
//! Every step of the mixing is a bijection of the state, so two runs that differ in one number
//! never come to the same value, and those that differ in more do so once in 2^64. A simulator
//! hashes all that its nodes read, write and say, and a fifth of its time went there once: so bytes
//! go by in four chains that do not wait for each other, and zeros, which files are full of, by the
//! kilobyte.

use super::write::Write;
use crate::{Action, Event, Instant};

/// Odd, so that multiplying by it loses nothing.
const FACTOR: u64 = 0xa076_1d64_78bd_642f;
/// How many zeros are taken for one number.
const ZEROS: [[u8; 32]; 32] = [[0; 32]; 32];
const CHAINS: [u64; 4] =
    [0xe703_7ed1_a0b4_28db, 0x8ebc_6af0_9c88_c6e3, 0x5899_65cc_7537_4cc3, 0x1d8e_4e27_c47d_124f];

/// A running hash of steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl Digest {
    /// Adds one call of [`Engine::handle`](crate::Engine::handle).
    #[inline(never)]
    pub fn step<'a>(
        &mut self,
        now: Instant,
        events: &[Event],
        actions: impl IntoIterator<Item = &'a Action, IntoIter: Clone>,
    ) {
        now.write(self);
        events.write(self);
        let actions = actions.into_iter();
        (actions.clone().count() as u32).write(self);
        actions.for_each(|action| action.write(self));
    }

    /// Adds a number.
    #[inline]
    pub const fn number(&mut self, number: u64) {
        self.0 = mix(self.0, number);
    }

    /// Adds bytes and how many they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let (blocks, rest) = bytes.as_chunks::<32>();
        if !blocks.is_empty() {
            self.blocks(blocks);
        }
        let (words, _) = rest.as_chunks::<8>();
        words.iter().for_each(|word| self.number(u64::from_le_bytes(*word)));
        // The last eight bytes once more: quicker than to pick out those that are left.
        let last = bytes.last_chunk().map_or_else(|| short_word(bytes), |l| u64::from_le_bytes(*l));
        self.number(last);
        self.number(bytes.len() as u64);
    }

    fn blocks(&mut self, blocks: &[[u8; 32]]) {
        let mut chains = CHAINS;
        let (groups, rest) = blocks.as_chunks::<{ ZEROS.len() }>();
        for group in groups {
            if group[0] == ZEROS[0] && *group == ZEROS {
                chains[0] = mix(chains[0], FACTOR);
            } else {
                group.iter().for_each(|block| mix_block(&mut chains, block));
            }
        }
        rest.iter().for_each(|block| mix_block(&mut chains, block));
        chains.into_iter().for_each(|chain| self.number(chain));
    }

    /// The hash of all that was added, in order.
    #[must_use]
    pub const fn value(self) -> u64 {
        // The last number added has not reached the low bits yet.
        let high = (self.0 ^ (self.0 >> 32)).wrapping_mul(FACTOR);
        high ^ (high >> 29)
    }
}

#[inline]
const fn mix(state: u64, number: u64) -> u64 {
    (state.rotate_left(29) ^ number).wrapping_mul(FACTOR)
}

#[inline]
fn mix_block(chains: &mut [u64; 4], block: &[u8; 32]) {
    let (words, _) = block.as_chunks::<8>();
    for (chain, word) in chains.iter_mut().zip(words) {
        *chain = mix(*chain, u64::from_le_bytes(*word));
    }
}

/// Up to seven bytes as one number.
fn short_word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> u64 {
        let mut digest = Digest::default();
        digest.bytes(bytes);
        digest.value()
    }

    #[test]
    fn a_digest_is_the_same_on_every_machine() {
        assert_eq!(of(b"the lakebed is disk"), 17_129_249_958_512_053_898);
        assert_eq!(of(&[7; 1000]), 11_799_119_123_910_304_822);
    }

    #[test]
    fn every_byte_and_the_length_count() {
        for len in 0..200 {
            let bytes: Vec<u8> = (0..len).collect();
            let base = of(&bytes);
            for at in 0..bytes.len() {
                let mut other = bytes.clone();
                other[at] ^= 0x80;
                assert_ne!(of(&other), base, "byte {at} of {len}");
            }
            let longer = [&bytes[..], &[0]].concat();
            assert_ne!(of(&longer), base, "{len} and a zero");
        }
    }

    #[test]
    fn the_number_of_zeros_counts() {
        let mut seen: Vec<u64> = (0..200).map(|n| of(&vec![0; n * 100])).collect();
        for at in (0..20_000).step_by(100) {
            let mut bytes = vec![0; 20_000];
            bytes[at] = 1;
            seen.push(of(&bytes));
        }
        let all = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), all);
    }

    #[test]
    fn swapped_blocks_show() {
        let mut bytes: Vec<u8> = (0..96).collect();
        let base = of(&bytes);
        bytes.rotate_left(32);
        assert_ne!(of(&bytes), base);
    }
}
