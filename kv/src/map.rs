//! The keys and their values, in shards that are copied when written while a view holds them.
//!
//! Knows no commands and no clock. Invariant: which shard a key lies in follows from its bytes
//! alone, so that shard order, and with it a frozen view, is the same on every node.
//!
//! A view costs one reference per shard; afterwards the first write to a shard copies that shard
//! (of its keys and values only the references), 1/4096 of the state.
//!
//! A node has many groups, and in most of them there may be next to nothing: the table of shards is
//! in pages, and there are those alone that a key was in.

use crate::shard::{EMPTY, Key, Shard, Slot, number};
use lakebed::Timestamp;
use std::{collections::BTreeSet, hint::black_box, sync::Arc};

/// Part of the frozen form and of SCAN's cursors: never changes.
pub(crate) const SHARDS: usize = 4096;

/// Shards of a page: what one takes is less than what its first key does, and where all are lies in two
/// KiB, which stay near the processor.
const PAGE: usize = 16;

/// Of how many keys the memory is fetched at once: a processor waits for about as many lines.
const FETCHED: usize = 16;

/// The expiry of what does not expire.
pub(crate) const NEVER: Timestamp = Timestamp(u64::MAX);

/// Shards that were written to; the others are empty.
type Page = [Option<Arc<Shard>>; PAGE];

#[derive(Clone)]
pub(crate) struct Map {
    pages: Box<[Option<Box<Page>>; SHARDS / PAGE]>,
    /// Every key that expires, by when. Follows from the shards.
    expiries: BTreeSet<(Timestamp, Key)>,
    len: usize,
}

impl Default for Map {
    fn default() -> Self {
        let pages = Box::new([const { None }; SHARDS / PAGE]);
        Self { pages, expiries: BTreeSet::new(), len: 0 }
    }
}

impl Map {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Slot> {
        let number = number(key);
        self.shard(shard_of(number)).get(number, key)
    }

    /// Fetches what lies under these keys into the processor's caches, and changes nothing.
    ///
    /// A key leads to its shard, the shard to its numbers, a number to a slot, the slot to the bytes: four
    /// times it is waited for memory. Here each step is taken for many keys before the next one needs any of
    /// it, so that they wait together. A processor looks ahead by some hundred instructions: between two
    /// waits that are to be one there must be few, so what is to be reckoned is reckoned apart.
    pub(crate) fn fetch<'k>(&self, mut keys: impl Iterator<Item = &'k [u8]>) {
        loop {
            let (mut numbers, mut count) = ([0; FETCHED], 0);
            for (place, key) in numbers.iter_mut().zip(&mut keys) {
                *place = number(key);
                count += 1;
            }
            let numbers = &numbers[..count];
            let mut shards = [&EMPTY; FETCHED];
            let of = numbers.iter().map(|number| self.shard(shard_of(*number)));
            shards.iter_mut().zip(of).for_each(|(place, shard)| *place = shard);
            let shards = || shards[..count].iter();
            black_box(shards().fold(0, |seen, shard| seen ^ shard.len()));
            black_box(shards().fold(0, |seen, shard| seen ^ shard.touch()));
            let mut found = [None; FETCHED];
            let slots = shards().zip(numbers).map(|(shard, number)| shard.namesake(*number));
            found.iter_mut().zip(slots).for_each(|(place, slot)| *place = slot);
            let found = || found.iter().flatten();
            black_box(found().fold(0, |seen, slot| seen ^ slot.expires.0));
            black_box(found().fold(0, |seen, slot| seen ^ slot.touch()));
            if count < FETCHED {
                return;
            }
        }
    }

    /// The keys of a shard, in order.
    pub(crate) fn shard(&self, shard: usize) -> &Shard {
        let page = self.pages[shard / PAGE].as_deref();
        page.and_then(|page| page[shard % PAGE].as_deref()).unwrap_or(&EMPTY)
    }

    /// All shards with keys as they are now, whatever is written later.
    pub(crate) fn view(&self) -> Vec<Arc<Shard>> {
        let shards = self.pages.iter().flatten().flat_map(|page| page.iter().flatten());
        shards.filter(|shard| shard.len() > 0).cloned().collect()
    }

    /// Gives a key a value and an expiry, whether it was there or not.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8], expires: Timestamp) {
        let before = self.change(
            key,
            |slot| {
                slot.write(value);
                std::mem::replace(&mut slot.expires, expires)
            },
            || Slot::new(key, value, expires),
        );
        self.reschedule(key, before.unwrap_or(NEVER), expires);
    }

    /// Gives a key another value; its expiry stays.
    pub(crate) fn replace(&mut self, key: &[u8], value: &[u8]) {
        self.change(key, |slot| slot.write(value), || Slot::new(key, value, NEVER));
    }

    /// Adds to a key's value; its expiry stays. An absent key is empty before.
    pub(crate) fn extend(&mut self, key: &[u8], tail: &[u8]) {
        self.change(key, |slot| slot.extend(tail), || Slot::new(key, tail, NEVER));
    }

    /// Changes what a key has, or adds it.
    fn change<T>(
        &mut self,
        key: &[u8],
        change: impl FnOnce(&mut Slot) -> T,
        new: impl FnOnce() -> Slot,
    ) -> Option<T> {
        let (number, shard) = self.shard_mut(key);
        let changed = shard.get_mut(number, key).map(change);
        if changed.is_none() {
            shard.insert(number, new());
            self.len += 1;
        }
        changed
    }

    /// Sets when a key expires; an absent key stays absent.
    pub(crate) fn expire(&mut self, key: &[u8], expires: Timestamp) {
        let Some(before) = self.get(key).map(|slot| slot.expires) else { return };
        let (number, shard) = self.shard_mut(key);
        shard.get_mut(number, key).expect("it was just found").expires = expires;
        self.reschedule(key, before, expires);
    }

    pub(crate) fn remove(&mut self, key: &[u8]) {
        // Looked up first: a shard is not copied for a key that it does not have.
        let Some(expires) = self.get(key).map(|slot| slot.expires) else { return };
        let (number, shard) = self.shard_mut(key);
        shard.remove(number, key);
        self.len -= 1;
        self.reschedule(key, expires, NEVER);
    }

    /// A key that expired at `now` or before, the earliest first.
    pub(crate) fn expired(&self, now: Timestamp) -> Option<Key> {
        self.expiries.first().filter(|(expires, _)| *expires <= now).map(|(_, key)| key.clone())
    }

    /// Whether a key expires after `from` and at `until` or before.
    pub(crate) fn expires_within(&self, from: Timestamp, until: Timestamp) -> bool {
        // The empty key is the first: what expires at `from` itself is passed over.
        let next = self.expiries.range((Timestamp(from.0.saturating_add(1)), Key::from(&[][..]))..);
        next.take(1).any(|(expires, _)| *expires <= until)
    }

    /// The number of a key, and its shard to be written.
    fn shard_mut(&mut self, key: &[u8]) -> (u32, &mut Shard) {
        let number = number(key);
        let shard = shard_of(number);
        let page = self.pages[shard / PAGE].get_or_insert_default();
        (number, Arc::make_mut(page[shard % PAGE].get_or_insert_default()))
    }

    fn reschedule(&mut self, key: &[u8], before: Timestamp, after: Timestamp) {
        if before == after {
            return;
        }
        let mut at = (before, Key::from(key));
        if before != NEVER {
            self.expiries.remove(&at);
        }
        if after != NEVER {
            at.0 = after;
            self.expiries.insert(at);
        }
    }
}

const fn shard_of(number: u32) -> usize {
    number as usize % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_does_not_see_later_writes() {
        let mut map = Map::default();
        map.put(b"kept", b"before", NEVER);
        map.put(b"removed", b"before", NEVER);
        let view = map.view();
        map.put(b"kept", b"after", Timestamp(5));
        map.remove(b"removed");
        map.put(b"new", b"after", NEVER);
        let seen: Vec<_> = view.iter().flat_map(|shard| shard.iter()).collect();
        assert_eq!(seen.len(), 2);
        assert!(seen.iter().all(|slot| slot.value() == b"before" && slot.expires == NEVER));
        assert_eq!((map.len(), map.get(b"kept").unwrap().value()), (2, &b"after"[..]));
    }

    /// A group in which nothing was written took 32 KiB for its table, a thousand of them as many MiB.
    #[test]
    fn a_map_has_room_for_what_was_written_to_it() {
        let mut map = Map::default();
        let pages = |map: &Map| map.pages.iter().flatten().count();
        assert!(size_of_val(&*map.pages) <= 2 << 10);
        assert_eq!((map.get(b"absent").map(Slot::value), map.shard(SHARDS - 1).len()), (None, 0));
        map.fetch([&b"absent"[..]].into_iter());
        map.remove(b"absent");
        map.expire(b"absent", Timestamp(1));
        assert_eq!((pages(&map), map.view().len()), (0, 0));
        for keys in 1..=10_u8 {
            map.put(&[keys], b"", NEVER);
            assert!((1..=keys.into()).contains(&pages(&map)));
        }
        let shards = map.pages.iter().flatten().flat_map(|page| page.iter().flatten()).count();
        assert!((1..=10).contains(&shards), "{shards} shards for ten keys");
    }

    #[test]
    fn fetching_is_of_any_number_of_keys_and_changes_nothing() {
        let mut map = Map::default();
        let keys: Vec<_> = (0..3 * FETCHED).map(|key| key.to_string().into_bytes()).collect();
        keys.iter().step_by(2).for_each(|key| map.put(key, &[7; 1000], NEVER));
        for count in [0, 1, FETCHED - 1, FETCHED, FETCHED + 1, keys.len()] {
            let mut taken = 0;
            map.fetch(keys[..count].iter().map(|key| &key[..]).inspect(|_| taken += 1));
            assert_eq!(taken, count);
        }
        for (at, key) in keys.iter().enumerate() {
            assert_eq!(map.get(key).map(Slot::value), (at % 2 == 0).then_some(&[7; 1000][..]));
        }
    }

    #[test]
    fn expiries_follow_the_keys() {
        let mut map = Map::default();
        map.put(b"a", b"", Timestamp(10));
        map.put(b"b", b"", Timestamp(20));
        map.expire(b"a", Timestamp(30));
        assert_eq!(map.expired(Timestamp(19)), None);
        assert_eq!(map.expired(Timestamp(20)).as_deref(), Some(&b"b"[..]));
        let within = |from, until| map.expires_within(Timestamp(from), Timestamp(until));
        assert!(within(19, 20) && within(0, 99) && within(20, 30));
        assert!(!within(0, 19) && !within(20, 29) && !within(30, 99) && !within(99, 0));
        map.remove(b"b");
        map.put(b"a", b"", NEVER);
        assert_eq!(map.expired(Timestamp(99)), None);
        assert!(map.expiries.is_empty());
    }

    #[test]
    fn a_large_value_gives_its_room_back() {
        let mut map = Map::default();
        map.put(b"a", &[7; 4096], NEVER);
        map.put(b"a", b"small", NEVER);
        assert!(map.get(b"a").unwrap().room() < 100);
    }
}
