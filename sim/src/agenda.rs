//! What is to come, in order of time, and what was agreed on first among equals.
//!
//! The heap holds times and places alone, sixteen bytes each: what happens lies still in a list
//! until then. Invariant: a place is free or on the heap once; and no more happens than may.

use crate::oracle::Violation;
use std::{cmp::Reverse, collections::BinaryHeap};

/// More happened than may.
pub(crate) const A_RUN_ENDS: &str = "a run ends";

/// Places on the list; that many things are never to come at one time.
const PLACE_BITS: u32 = 24;

/// Things to come.
#[derive(Clone, Debug)]
pub(crate) struct Agenda<C> {
    /// When, the running number, and the place on the list: as one number, which compares without
    /// a branch.
    heap: BinaryHeap<Reverse<u128>>,
    list: Vec<Option<C>>,
    free: Vec<u32>,
    seq: u64,
    /// How many things have happened, and after how many it is a failure that more do.
    happened: u64,
    happen_max: u64,
}

impl<C> Default for Agenda<C> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
            list: Vec::new(),
            free: Vec::new(),
            seq: 0,
            happened: 0,
            happen_max: u64::MAX,
        }
    }
}

impl<C> Agenda<C> {
    /// Adds something that happens at this time, after what was added before for the same time.
    pub(crate) fn add(&mut self, at: u64, what: C) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.list.push(None);
            self.list.len() as u32 - 1
        });
        assert!(place < 1 << PLACE_BITS, "{place} things are to come");
        self.list[place as usize] = Some(what);
        self.seq += 1;
        let behind = self.seq << PLACE_BITS | u64::from(place);
        self.heap.push(Reverse(u128::from(at) << 64 | u128::from(behind)));
    }

    /// After so many things, or fewer if that was said before, it is a failure that more are to come.
    pub(crate) fn limit(&mut self, most: u64) {
        self.happen_max = self.happen_max.min(most);
    }

    /// How many things have happened.
    pub(crate) const fn happened(&self) -> u64 {
        self.happened
    }

    /// The next thing, and when. There always is one in a world, and not for ever.
    pub(crate) fn pop(&mut self) -> Result<(u64, C), Violation> {
        if self.happened >= self.happen_max {
            let what = format!("the run goes on after {} things that happened", self.happened);
            return Err(Violation::of_cluster(A_RUN_ENDS, what));
        }
        let Some(Reverse(key)) = self.heap.pop() else {
            return Err(Violation::of_cluster("world", "nothing is left to happen".into()));
        };
        let place = key as u32 & ((1 << PLACE_BITS) - 1);
        Ok(((key >> 64) as u64, self.vacate(place)))
    }

    fn vacate(&mut self, place: u32) -> C {
        self.happened += 1;
        self.free.push(place);
        self.list[place as usize].take().expect("a place on the heap is taken")
    }

    /// Takes out, in order, what `fits` of all that is to happen at this time, if that is next.
    pub(crate) fn take_all(&mut self, at: u64, mut fits: impl FnMut(&C) -> bool) -> Vec<C> {
        let (mut taken, mut kept) = (Vec::new(), Vec::new());
        while self.next_at() == Some(at) {
            let Some(next) = self.heap.pop() else { break };
            let place = next.0 as u32 & ((1 << PLACE_BITS) - 1);
            match &self.list[place as usize] {
                Some(what) if fits(what) => taken.push(self.vacate(place)),
                _ => kept.push(next),
            }
        }
        self.heap.extend(kept);
        taken
    }

    /// When the next thing happens.
    pub(crate) fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse(key)| (*key >> 64) as u64)
    }

    /// How many things were ever added.
    pub(crate) const fn count(&self) -> u64 {
        self.seq
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_happen_in_order_of_time_and_then_of_agreement() {
        let mut agenda = Agenda::default();
        for (number, at) in [(1, 50), (2, 10), (3, 50), (4, 10), (5, 7)] {
            agenda.add(at, number);
        }
        let mut order = Vec::new();
        while let Ok((at, number)) = agenda.pop() {
            order.push((at, number));
            if number == 2 {
                agenda.add(10, 6);
            }
        }
        assert_eq!(order, [(7, 5), (10, 2), (10, 4), (10, 6), (50, 1), (50, 3)]);
        assert_eq!(agenda.list.len(), 5);
    }

    #[test]
    fn what_is_taken_out_is_of_one_time_and_the_rest_keeps_its_order() {
        let mut agenda = Agenda::default();
        for (number, at) in [(1, 10), (2, 10), (3, 20), (4, 10), (5, 10)] {
            agenda.add(at, number);
        }
        assert_eq!(agenda.take_all(20, |_| true), [], "something comes before");
        assert_eq!(agenda.take_all(10, |number| number % 2 == 1 || *number == 4), [1, 4, 5]);
        agenda.add(10, 6);
        let rest: Vec<_> = std::iter::from_fn(|| agenda.pop().ok()).collect();
        assert_eq!(rest, [(10, 2), (10, 6), (20, 3)]);
    }

    #[test]
    fn no_more_happens_than_may() {
        let mut agenda = Agenda::default();
        for number in 0..9 {
            agenda.add(number, number);
        }
        agenda.limit(3);
        assert_eq!(agenda.take_all(0, |_| true), [0]);
        let happened: Vec<_> = std::iter::from_fn(|| agenda.pop().ok()).collect();
        assert_eq!(happened, [(1, 1), (2, 2)]);
        let violation = agenda.pop().expect_err("six are left");
        assert_eq!(violation.invariant, "a run ends");
    }
}
