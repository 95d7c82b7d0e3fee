//! What is to come, in order of time, and what was agreed on first among equals.
//!
//! The heap holds times and places alone, sixteen bytes each: what happens lies still in a list
//! until then. Invariant: a place is free or on the heap once.

use super::hearsay::Age;
use bytes::Bytes;
use lakebed::{Event, OpId};
use std::{cmp::Reverse, collections::BinaryHeap};

/// Something to come.
#[derive(Clone, Debug)]
pub(super) enum Coming {
    Deliver { from: u32, to: u32, life: u32, age: Age, bytes: Bytes },
    Completion { node: usize, life: u32, op: OpId },
    MachineStep { node: usize, life: u32 },
    Wake { node: usize, life: u32 },
    Start { node: usize, life: u32 },
    LinkUp { node: usize, peer: usize, lives: (u32, u32) },
    LinkDown { node: usize, peer: usize, number: u64 },
    Think { client: usize, round: u32 },
    Patience { client: usize },
    ArmedCut { number: u64 },
    Change { number: u64, turn: u32 },
    Late { node: usize, life: u32, event: Box<Event> },
}

/// Places on the list; that many things are never to come at one time.
const PLACE_BITS: u32 = 24;

/// Things to come.
#[derive(Clone, Debug, Default)]
pub(super) struct Agenda {
    /// When, the running number, and the place on the list: as one number, which compares without
    /// a branch.
    heap: BinaryHeap<Reverse<u128>>,
    list: Vec<Option<Coming>>,
    free: Vec<u32>,
    seq: u64,
}

impl Agenda {
    /// Adds something that happens at this time, after what was added before for the same time.
    pub(super) fn add(&mut self, at: u64, what: Coming) {
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

    /// The next thing, and when.
    pub(super) fn pop(&mut self) -> Option<(u64, Coming)> {
        let Reverse(key) = self.heap.pop()?;
        let place = key as u32 & ((1 << PLACE_BITS) - 1);
        self.free.push(place);
        let what = self.list[place as usize].take().expect("a place on the heap is taken");
        Some(((key >> 64) as u64, what))
    }

    /// When the next thing happens.
    pub(super) fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse(key)| (*key >> 64) as u64)
    }

    /// How many things were ever added.
    pub(super) const fn count(&self) -> u64 {
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
            agenda.add(at, Coming::ArmedCut { number });
        }
        let mut order = Vec::new();
        while let Some((at, Coming::ArmedCut { number })) = agenda.pop() {
            order.push((at, number));
            if number == 2 {
                agenda.add(10, Coming::ArmedCut { number: 6 });
            }
        }
        assert_eq!(order, [(7, 5), (10, 2), (10, 4), (10, 6), (50, 1), (50, 3)]);
        assert_eq!(agenda.list.len(), 5);
    }
}
