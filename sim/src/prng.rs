//! Randomness: one ChaCha8 stream per concern, and within it one lane per site and entity.
//!
//! A draw is named by (concern, site, entity, n), n counting the draws of that lane. Adding or
//! removing a fault, a node or a draw elsewhere therefore moves nothing here, and a saved seed
//! keeps its meaning. Only `next_u64` and integer ratios: the same on every machine.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// The most tails that are in a [delay](Draw::delay).
pub(crate) const TAILS_MAX: u64 = 8;

/// What randomness is used for. The number is part of a seed's meaning: never renumber.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u64)]
pub enum Concern {
    /// Delays, losses and duplicates of messages.
    Network = 1,
    /// Latencies, failures and what survives a crash.
    Disk = 2,
    /// Drift of the nodes' clocks.
    Clock = 3,
    /// What clients do.
    Workload = 4,
    /// The seeds handed to engines, which time elections with them.
    Elections = 5,
    /// Which faults and limits exist in this run at all.
    Swarm = 6,
    /// How long nodes take for other things than disk and network.
    Process = 7,
}

/// The stream of one concern.
#[derive(Clone, Debug)]
pub struct Stream {
    seed: u64,
    concern: Concern,
    /// By site and then entity: both are small numbers.
    lanes: Vec<Vec<Option<Draw>>>,
}

impl Stream {
    /// The stream of this concern in the run of this seed.
    #[must_use]
    pub const fn new(seed: u64, concern: Concern) -> Self {
        Self { seed, concern, lanes: Vec::new() }
    }

    /// The lane of a site (a place in the code) and an entity (a node, a link, a client).
    pub fn lane(&mut self, site: u32, entity: u32) -> &mut Draw {
        let lanes = reach(&mut self.lanes, site as usize);
        let (seed, concern) = (self.seed, self.concern);
        reach(lanes, entity as usize).get_or_insert_with(|| Draw::new(seed, concern, site, entity))
    }
}

fn reach<T: Default>(list: &mut Vec<T>, at: usize) -> &mut T {
    if list.len() <= at {
        list.resize_with(at + 1, T::default);
    }
    &mut list[at]
}

/// A lane: draws one after the other.
#[derive(Clone, Debug)]
pub struct Draw(ChaCha8Rng);

impl Draw {
    /// The lane of this name, from its beginning.
    #[must_use]
    pub fn new(seed: u64, concern: Concern, site: u32, entity: u32) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&(concern as u64).to_le_bytes());
        let mut rng = ChaCha8Rng::from_seed(key);
        rng.set_stream(u64::from(site) << 32 | u64::from(entity));
        Self(rng)
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`, which is not zero. By multiplication: the bias is below
    /// `bound / 2^64`, and no draw is ever repeated.
    ///
    /// # Panics
    /// If it is zero.
    #[track_caller]
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing lies below zero: a number below 0 was to be drawn");
        ((u128::from(self.any()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "an empty range: {low} to {high}");
        // All numbers there are.
        let Some(bound) = (high - low).checked_add(1) else { return self.any() };
        low + self.below(bound)
    }

    /// Whether something happens that happens `numerator` times in `denominator`.
    ///
    /// # Panics
    /// If the denominator is zero.
    #[track_caller]
    pub fn ratio(&mut self, numerator: u64, denominator: u64) -> bool {
        self.below(denominator) < numerator
    }

    /// `shortest`, and sometimes more: half of the results lie within `tail` of it, a quarter
    /// beyond that, an eighth beyond that, up to eight tails (`TAILS_MAX`).
    pub fn delay(&mut self, shortest: u64, tail: u64) -> u64 {
        let word = self.any();
        let tails = u64::from((word as u8 | 0x80).trailing_zeros());
        let within = (u128::from(word >> 8) * u128::from(tail + 1)) >> 56;
        shortest + tails * tail + within as u64
    }

    /// One of these.
    ///
    /// # Panics
    /// If there are none.
    #[track_caller]
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(seed: u64, concern: Concern, site: u32, entity: u32) -> u64 {
        Draw::new(seed, concern, site, entity).any()
    }

    #[test]
    fn draws_keep_their_values_for_ever() {
        let mut draw = Draw::new(42, Concern::Network, 3, 9);
        let drawn: Vec<u64> = (0..3).map(|_| draw.any()).collect();
        assert_eq!(
            drawn,
            [7_230_553_074_074_320_427, 4_775_458_789_890_764_668, 5_138_744_237_782_351_426]
        );
    }

    #[test]
    fn lanes_do_not_touch_each_other() {
        let mut quiet = Stream::new(7, Concern::Disk);
        let mut busy = Stream::new(7, Concern::Disk);
        for n in 0..100 {
            busy.lane(1, n).any();
            busy.lane(n, 1).any();
        }
        let expected: Vec<u64> = (0..20).map(|_| quiet.lane(200, 4).any()).collect();
        let found: Vec<u64> = (0..20).map(|_| busy.lane(200, 4).any()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn every_part_of_the_name_counts() {
        let base = first(1, Concern::Disk, 1, 1);
        assert_ne!(base, first(2, Concern::Disk, 1, 1));
        assert_ne!(base, first(1, Concern::Clock, 1, 1));
        assert_ne!(base, first(1, Concern::Disk, 2, 1));
        assert_ne!(base, first(1, Concern::Disk, 1, 2));
    }

    #[test]
    fn who_draws_from_nothing_is_told_where() {
        let mut draw = Draw::new(3, Concern::Swarm, 0, 0);
        let line = line!() + 1;
        let panic = crate::panics::caught(|| draw.pick(&[0; 0]) == &0).unwrap_err();
        let place = format!("prng.rs:{line}:");
        assert!(panic.what.contains(&place) && panic.what.contains("below 0"), "{}", panic.what);
        assert_ne!(draw.between(0, u64::MAX), draw.between(0, u64::MAX));
    }

    #[test]
    fn draws_stay_in_their_range() {
        let mut draw = Draw::new(3, Concern::Swarm, 0, 0);
        let mut seen = [0_u32; 5];
        for _ in 0..1000 {
            seen[draw.below(5) as usize] += 1;
            assert!((10..=12).contains(&draw.between(10, 12)));
            assert!((100..=100 + 8 * 50).contains(&draw.delay(100, 50)));
        }
        assert!(seen.iter().all(|&n| n > 150), "{seen:?}");
        let often = (0..1000).filter(|_| draw.ratio(1, 4)).count();
        assert!((200..300).contains(&often), "{often}");
    }
}
