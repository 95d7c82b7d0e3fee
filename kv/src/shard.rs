//! One part of the keys, found by a number of four bytes each.
//!
//! Knows no other part. Invariant: a key is searched for among numbers that lie side by side, and
//! compared as a whole once; keys made to have the same number cost no more than a tree of them.
//!
//! A lookup is a handful of cache misses, and they are what a write costs: a tree of keys would
//! follow a reference for each key that it compares.

use lakebed::Timestamp;
use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

pub(crate) type Key = Arc<[u8]>;

/// What a key has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Slot {
    pub(crate) value: Arc<Vec<u8>>,
    /// From this time on it is absent.
    pub(crate) expires: Timestamp,
}

/// The number of a key: its checksum.
pub(crate) fn number(key: &[u8]) -> u32 {
    crc32c::crc32c(key)
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Shard {
    by_number: BTreeMap<u32, Namesakes>,
    len: usize,
}

/// Keys of the same number.
#[derive(Clone, Debug)]
enum Namesakes {
    /// As nearly always.
    One(Key, Slot),
    More(BTreeMap<Key, Slot>),
}

impl Shard {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// What a key of this number has.
    pub(crate) fn get(&self, number: u32, key: &[u8]) -> Option<&Slot> {
        match self.by_number.get(&number)? {
            Namesakes::One(only, slot) => (**only == *key).then_some(slot),
            Namesakes::More(keys) => keys.get(key),
        }
    }

    pub(crate) fn get_mut(&mut self, number: u32, key: &[u8]) -> Option<&mut Slot> {
        match self.by_number.get_mut(&number)? {
            Namesakes::One(only, slot) => (**only == *key).then_some(slot),
            Namesakes::More(keys) => keys.get_mut(key),
        }
    }

    /// Adds a key that was not there.
    pub(crate) fn insert(&mut self, number: u32, key: Key, slot: Slot) {
        debug_assert!(self.get(number, &key).is_none(), "it is there already");
        self.len += 1;
        match self.by_number.entry(number) {
            Entry::Vacant(place) => {
                place.insert(Namesakes::One(key, slot));
            }
            Entry::Occupied(mut place) => match place.get_mut() {
                Namesakes::More(keys) => {
                    keys.insert(key, slot);
                }
                Namesakes::One(other, its) => {
                    let both = [(Arc::clone(other), its.clone()), (key, slot)];
                    place.insert(Namesakes::More(both.into()));
                }
            },
        }
    }

    /// Removes a key that is there.
    pub(crate) fn remove(&mut self, number: u32, key: &[u8]) {
        debug_assert!(self.get(number, key).is_some(), "it is not there");
        self.len -= 1;
        if let Some(Namesakes::More(keys)) = self.by_number.get_mut(&number) {
            keys.remove(key);
            if !keys.is_empty() {
                return;
            }
        }
        self.by_number.remove(&number);
    }

    /// All keys, by their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &Slot)> {
        self.by_number.values().flat_map(|namesakes| {
            let (one, more) = match namesakes {
                Namesakes::One(key, slot) => (Some((key, slot)), None),
                Namesakes::More(keys) => (None, Some(keys)),
            };
            one.into_iter().chain(more.into_iter().flatten())
        })
    }

    /// All keys and what they have, in order.
    pub(crate) fn sorted(&self) -> Vec<(Key, Slot)> {
        let mut all: Vec<_> =
            self.iter().map(|(key, slot)| (Arc::clone(key), slot.clone())).collect();
        all.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lakebed::Timestamp;

    fn slot(value: &[u8]) -> Slot {
        Slot { value: Arc::new(value.to_vec()), expires: Timestamp(1) }
    }

    fn keys(shard: &Shard) -> Vec<&[u8]> {
        shard.iter().map(|(key, _)| &**key).collect()
    }

    #[test]
    fn namesakes_are_told_apart() {
        let mut shard = Shard::default();
        for (number, key) in [(7, b"b"), (7, b"c"), (9, b"0"), (7, b"a")] {
            assert!(shard.get(number, key).is_none() && shard.get_mut(number, key).is_none());
            shard.insert(number, key[..].into(), slot(key));
        }
        assert_eq!((shard.len(), keys(&shard)), (4, vec![&b"a"[..], b"b", b"c", b"0"]));
        shard.get_mut(7, b"b").expect("it was put there").expires = Timestamp(2);
        let expiries = [b"a", b"b", b"c"].map(|key| shard.get(7, key).unwrap().expires.0);
        assert_eq!(expiries, [1, 2, 1]);
        assert_eq!(*shard.get(7, b"c").unwrap().value, b"c");
        assert!(shard.get(7, b"0").is_none() && shard.get(8, b"a").is_none());
        for (left, key) in [(3, b"a"), (2, b"c"), (1, b"b")] {
            shard.remove(7, key);
            assert_eq!(shard.len(), left);
            assert!(shard.get(7, key).is_none());
        }
        assert_eq!(keys(&shard), [b"0"]);
    }

    #[test]
    fn a_frozen_shard_is_in_the_order_of_its_keys() {
        let mut shard = Shard::default();
        for (number, key) in [(3, b"a"), (1, b"c"), (2, b"b"), (1, b"d")] {
            shard.insert(number, key[..].into(), slot(key));
        }
        let sorted = shard.sorted();
        let names: Vec<_> = sorted.iter().map(|(key, slot)| (&**key, &slot.value[..])).collect();
        assert_eq!(names, [b"a", b"b", b"c", b"d"].map(|key| (&key[..], &key[..])));
    }
}
