//! One part of the keys, found by a number of four bytes each.
//!
//! Knows no other part. Invariant: the order is that of the numbers, and of the keys among those that
//! share one, so it follows from the keys alone; and no keys, however they were chosen, make a search
//! more than a few halvings, or a new key move more than a run.
//!
//! A lookup is a handful of cache misses, and they are what a write costs. So a key is searched for
//! among numbers that lie side by side, and a key and its value are one piece of memory.

use lakebed::Timestamp;
use std::sync::Arc;

pub(crate) type Key = Arc<[u8]>;

/// So many keys lie side by side; one more, and they are halved.
const RUN_MAX: usize = 128;

/// What memory is fetched in.
const LINE_BYTES: usize = 64;
const LINES_TOUCHED: usize = 8;

/// A key and what it has.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// The key, its value, and room that a longer value may take.
    bytes: Arc<[u8]>,
    key_len: u32,
    value_len: u32,
    /// From this time on it is absent.
    pub(crate) expires: Timestamp,
}

impl Slot {
    pub(crate) fn new(key: &[u8], value: &[u8], expires: Timestamp) -> Self {
        Self::with_room(key, &[value], value.len(), expires)
    }

    pub(crate) fn key(&self) -> &[u8] {
        &self.bytes[..self.key_len as usize]
    }

    pub(crate) fn value(&self) -> &[u8] {
        &self.bytes[self.key_len as usize..][..self.value_len as usize]
    }

    /// Reads so much of key and value that they are on their way from memory: of a long one the
    /// processor guesses the rest.
    pub(crate) fn touch(&self) -> u8 {
        let lines = self.bytes.iter().step_by(LINE_BYTES).take(LINES_TOUCHED);
        lines.fold(0, |seen, byte| seen ^ byte)
    }

    /// How long the value may get before it has to move.
    pub(crate) fn room(&self) -> usize {
        self.bytes.len() - self.key_len as usize
    }

    /// Gives the key another value: in the place of the old one where nobody else holds that and it
    /// is not far too large.
    pub(crate) fn write(&mut self, value: &[u8]) {
        let fits = value.len() <= self.room() && self.room() / 4 <= value.len();
        match Arc::get_mut(&mut self.bytes).filter(|_| fits) {
            Some(bytes) => {
                bytes[self.key_len as usize..][..value.len()].copy_from_slice(value);
                self.value_len = value.len() as u32;
            }
            None => *self = Self::new(self.key(), value, self.expires),
        }
    }

    /// Adds to the value. One that has to move gets room to grow, so that many small additions do
    /// not move it as often.
    pub(crate) fn extend(&mut self, tail: &[u8]) {
        let (start, len) =
            ((self.key_len + self.value_len) as usize, self.value().len() + tail.len());
        let fits = len <= self.room();
        match Arc::get_mut(&mut self.bytes).filter(|_| fits) {
            Some(bytes) => {
                bytes[start..][..tail.len()].copy_from_slice(tail);
                self.value_len = len as u32;
            }
            None => {
                let value = self.value();
                let room = len.max(2 * value.len());
                *self = Self::with_room(self.key(), &[value, tail], room, self.expires);
            }
        }
    }

    fn with_room(key: &[u8], value: &[&[u8]], room: usize, expires: Timestamp) -> Self {
        let mut bytes = Vec::with_capacity(key.len() + room);
        bytes.extend_from_slice(key);
        value.iter().for_each(|part| bytes.extend_from_slice(part));
        let (key_len, value_len) = (key.len() as u32, (bytes.len() - key.len()) as u32);
        bytes.resize(key.len() + room, 0);
        Self { bytes: bytes.into(), key_len, value_len, expires }
    }
}

/// The number of a key: its checksum.
pub(crate) fn number(key: &[u8]) -> u32 {
    crc32c::crc32c(key)
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Shard {
    /// As nearly always, all there is: so it lies where the shard does.
    first: Run,
    /// What follows it in order; none of them empty.
    more: Vec<Run>,
    len: usize,
}

/// Without any keys.
pub(crate) static EMPTY: Shard =
    Shard { first: Run { numbers: Vec::new(), slots: Vec::new() }, more: Vec::new(), len: 0 };

/// Some keys in order.
#[derive(Clone, Debug, Default)]
struct Run {
    numbers: Vec<u32>,
    slots: Vec<Slot>,
}

impl Run {
    /// Where a key is, or belongs.
    fn find(&self, number: u32, key: &[u8]) -> Result<usize, usize> {
        let start = self.numbers.partition_point(|other| *other < number);
        let namesakes = self.numbers[start..].partition_point(|other| *other == number);
        self.slots[start..start + namesakes]
            .binary_search_by(|slot| slot.key().cmp(key))
            .map(|at| start + at)
            .map_err(|at| start + at)
    }

    /// Whether a key lies before all of these.
    fn is_behind(&self, number: u32, key: &[u8]) -> bool {
        let first = self.numbers.first().zip(self.slots.first());
        first.is_some_and(|(first, slot)| (number, key) < (*first, slot.key()))
    }

    fn insert(&mut self, at: usize, number: u32, slot: Slot) {
        self.numbers.insert(at, number);
        self.slots.insert(at, slot);
    }

    /// Its second half.
    fn halve(&mut self) -> Self {
        let half = self.slots.len() / 2;
        Self { numbers: self.numbers.split_off(half), slots: self.slots.split_off(half) }
    }
}

impl Shard {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Reads so much of the numbers that they are on their way from memory, as nearly always all are.
    pub(crate) fn touch(&self) -> u32 {
        let lines = self.first.numbers.iter().step_by(LINE_BYTES / size_of::<u32>());
        lines.fold(0, |seen, number| seen ^ number)
    }

    /// Some key of this number: as nearly always, the only one.
    pub(crate) fn namesake(&self, number: u32) -> Option<&Slot> {
        let run = self.run(self.which(number, b""));
        let at = run.numbers.partition_point(|other| *other < number);
        run.slots.get(at).filter(|_| run.numbers[at] == number)
    }

    /// What a key of this number has.
    pub(crate) fn get(&self, number: u32, key: &[u8]) -> Option<&Slot> {
        let run = self.run(self.which(number, key));
        run.find(number, key).ok().map(|at| &run.slots[at])
    }

    pub(crate) fn get_mut(&mut self, number: u32, key: &[u8]) -> Option<&mut Slot> {
        let which = self.which(number, key);
        let run = self.run_mut(which);
        run.find(number, key).ok().map(|at| &mut run.slots[at])
    }

    /// Adds a key that was not there.
    pub(crate) fn insert(&mut self, number: u32, slot: Slot) {
        let which = self.which(number, slot.key());
        let run = self.run_mut(which);
        let at = run.find(number, slot.key()).expect_err("it is there already");
        run.insert(at, number, slot);
        if run.slots.len() > RUN_MAX {
            let second = run.halve();
            self.more.insert(which, second);
        }
        self.len += 1;
    }

    /// Removes a key that is there.
    pub(crate) fn remove(&mut self, number: u32, key: &[u8]) {
        let which = self.which(number, key);
        let run = self.run_mut(which);
        let at = run.find(number, key).expect("it is there");
        run.numbers.remove(at);
        run.slots.remove(at);
        if run.slots.is_empty() && which > 0 {
            self.more.remove(which - 1);
        }
        self.len -= 1;
    }

    /// All keys, in the order of their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.first.slots.iter().chain(self.more.iter().flat_map(|run| &run.slots))
    }

    /// The run that a key is in, or belongs into.
    fn which(&self, number: u32, key: &[u8]) -> usize {
        self.more.partition_point(|run| !run.is_behind(number, key))
    }

    fn run(&self, which: usize) -> &Run {
        if which == 0 { &self.first } else { &self.more[which - 1] }
    }

    fn run_mut(&mut self, which: usize) -> &mut Run {
        if which == 0 { &mut self.first } else { &mut self.more[which - 1] }
    }

    /// All keys and what they have, in the order of the keys.
    pub(crate) fn sorted(&self) -> Vec<Slot> {
        let mut all: Vec<_> = self.iter().cloned().collect();
        all.sort_unstable_by(|one, other| one.key().cmp(other.key()));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn slot(key: &[u8]) -> Slot {
        Slot::new(key, key, Timestamp(1))
    }

    fn keys(shard: &Shard) -> Vec<&[u8]> {
        shard.iter().map(Slot::key).collect()
    }

    #[test]
    fn namesakes_are_told_apart() {
        let mut shard = Shard::default();
        for (number, key) in [(7, b"b"), (7, b"c"), (9, b"0"), (7, b"a")] {
            assert!(shard.get(number, key).is_none() && shard.get_mut(number, key).is_none());
            shard.insert(number, slot(key));
        }
        assert_eq!((shard.len(), keys(&shard)), (4, vec![&b"a"[..], b"b", b"c", b"0"]));
        shard.get_mut(7, b"b").expect("it was put there").expires = Timestamp(2);
        let expiries = [b"a", b"b", b"c"].map(|key| shard.get(7, key).unwrap().expires.0);
        assert_eq!(expiries, [1, 2, 1]);
        assert_eq!(shard.get(7, b"c").unwrap().value(), b"c");
        assert!(shard.get(7, b"0").is_none() && shard.get(8, b"a").is_none());
        for (left, key) in [(3, b"a"), (2, b"c"), (1, b"b")] {
            shard.remove(7, key);
            assert_eq!(shard.len(), left);
            assert!(shard.get(7, key).is_none());
        }
        assert_eq!(keys(&shard), [b"0"]);
    }

    /// Numbers that are far apart, next to each other, and the same; added and removed in orders
    /// that have nothing to do with them.
    #[test]
    fn many_keys_are_what_a_tree_of_them_is() {
        for spread in [1, 7, 100_000] {
            let (mut shard, mut tree) = (Shard::default(), BTreeMap::new());
            for step in 0..6_000_u32 {
                let drawn = step.wrapping_mul(2_654_435_761) >> 12;
                let key = (drawn % 2_000).to_string().into_bytes();
                let number = drawn % 2_000 % spread;
                let place = (number, key.clone());
                assert_eq!(shard.get(number, &key).is_some(), tree.contains_key(&place));
                // More and more, then fewer and fewer.
                let removes = drawn / 2_000 % 3 < step / 2_000;
                if removes && tree.remove(&place).is_some() {
                    shard.remove(number, &key);
                } else if !removes && tree.insert(place, step).is_none() {
                    shard.insert(number, Slot::new(&key, b"", Timestamp(u64::from(step))));
                } else if !removes {
                    shard.get_mut(number, &key).unwrap().expires = Timestamp(step.into());
                }
            }
            let all = |shard: &Shard| {
                let of = |slot: &Slot| (slot.key().to_vec(), slot.expires.0);
                shard.iter().map(of).collect::<Vec<_>>()
            };
            let wanted = tree.iter().map(|((_, key), step)| (key.clone(), u64::from(*step)));
            assert_eq!((all(&shard), shard.len()), (wanted.collect(), tree.len()));
            assert!(tree.len() > RUN_MAX, "of more than one run");
            for (number, key) in tree.into_keys() {
                shard.remove(number, &key);
            }
            assert_eq!((shard.len(), shard.more.len(), keys(&shard).len()), (0, 0, 0));
        }
    }

    #[test]
    fn a_frozen_shard_is_in_the_order_of_its_keys() {
        let mut shard = Shard::default();
        for (number, key) in [(3, b"a"), (1, b"c"), (2, b"b"), (1, b"d")] {
            shard.insert(number, slot(key));
        }
        let sorted = shard.sorted();
        let names: Vec<_> = sorted.iter().map(|slot| (slot.key(), slot.value())).collect();
        assert_eq!(names, [b"a", b"b", b"c", b"d"].map(|key| (&key[..], &key[..])));
    }

    /// Each addition moves what a view holds: the room that it got to grow grew with each of them.
    #[test]
    fn a_value_that_is_added_to_while_views_hold_it_takes_no_more_room() {
        let mut slot = Slot::new(b"key", b"value", Timestamp(1));
        let held: Vec<_> = (0..200)
            .map(|_| {
                let held = slot.clone();
                slot.extend(b"x");
                assert!(slot.room() <= 2 * slot.value().len(), "{}", slot.room());
                held
            })
            .collect();
        assert_eq!((held[199].value().len(), slot.value().len()), (204, 205));
    }

    #[test]
    fn a_value_stays_where_it_is_as_long_as_it_fits_and_nobody_holds_it() {
        let mut slot = Slot::new(b"key", b"12345678", Timestamp(1));
        let place = slot.bytes.as_ptr();
        for value in [&b"87654321"[..], b"12", b"12345678"] {
            slot.write(value);
            assert_eq!(
                (slot.key(), slot.value(), slot.bytes.as_ptr()),
                (&b"key"[..], value, place)
            );
        }
        let held = slot.clone();
        slot.write(b"abcdefgh");
        slot.extend(b"i");
        assert_eq!((held.value(), slot.value()), (&b"12345678"[..], &b"abcdefghi"[..]));
        let place = slot.bytes.as_ptr();
        slot.extend(b"jk");
        assert_eq!((slot.value(), slot.bytes.as_ptr()), (&b"abcdefghijk"[..], place));
        let held = slot.clone();
        slot.extend(b"l");
        assert_eq!((held.value(), slot.value()), (&b"abcdefghijk"[..], &b"abcdefghijkl"[..]));
        slot.write(b"");
        assert_eq!((slot.key(), slot.value(), slot.room()), (&b"key"[..], &b""[..], 0));
    }
}
