//! Entries that are read together, for who wants them or before somebody does.
//!
//! Knows no file. Invariant: what was read ahead is handed out by nobody before it was checked like
//! anything that is wanted.

use super::{ReadBack, slots::Place};
use crate::{
    disk::segment::Slot,
    entry::Seed,
    storage::scan,
    types::{LogIndex, OpId},
};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// Entries that are read together.
#[derive(Clone, Debug)]
pub(super) struct Portion {
    pub(super) op: OpId,
    pub(super) place: Place,
    pub(super) slots: Vec<Slot>,
    pub(super) offset: u64,
}

/// What was not asked for yet. None of it is checked before it is: what is bad is then read once more, like
/// anything that is wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct Ahead {
    /// Portions that follow each other, and what they brought.
    pub(super) portions: VecDeque<(Portion, Option<Bytes>)>,
    /// Slots behind those, from this entry on.
    pub(super) slots: Option<(OpId, Place, LogIndex)>,
}

impl Portion {
    pub(super) fn first(&self) -> LogIndex {
        self.slots[0].id.index
    }

    pub(super) fn last(&self) -> LogIndex {
        self.slots[self.slots.len() - 1].id.index
    }

    pub(super) fn bytes(&self) -> u64 {
        self.slots.iter().map(|slot| u64::from(slot.total_bytes)).sum()
    }

    /// The frames of these slots out of what was read: as they lie if nothing lies between them.
    pub(super) fn gather(
        &self,
        bytes: &Bytes,
        seed: Seed,
        room: &mut BytesMut,
    ) -> Result<ReadBack, Slot> {
        if let Some(bad) = scan::first_bad(bytes, self.offset, &self.slots, None, seed) {
            return Err(*bad);
        }
        let slots = &self.slots;
        let (first, last) = (slots[0], slots[slots.len() - 1]);
        let place = |slot: &Slot| {
            let at = (u64::from(slot.offset) - self.offset) as usize;
            at..at + slot.total_bytes as usize
        };
        let total = self.bytes();
        let is_dense = last.end() - u64::from(first.offset) == total;
        let frames = if is_dense {
            bytes.slice(place(&first).start..place(&last).end)
        } else {
            room.reserve(total as usize);
            slots.iter().for_each(|slot| room.extend_from_slice(&bytes[place(slot)]));
            room.split().freeze()
        };
        Ok(ReadBack { first: first.id.index, last: last.id.index, frames })
    }
}

impl Ahead {
    /// Takes what was read. False: it was not asked for here.
    pub(super) fn take(&mut self, op: OpId, bytes: &Bytes) -> bool {
        let portion = self.portions.iter_mut().find(|(portion, _)| portion.op == op);
        portion.map(|(_, content)| *content = Some(bytes.clone())).is_some()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.portions.iter().map(|(portion, _)| portion.bytes()).sum()
    }
}
