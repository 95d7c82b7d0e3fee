//! One write: which entries go out together, where they lie, and what of the slots goes with them.
//!
//! Knows no rolls and no cuts.

use super::{Active, EntriesWrite, Pending};
use crate::{
    disk::segment::{FloorLag, Slot},
    entry::{Head, Kind},
    file::{Class, DiskRequest, Extent, File},
    storage::{
        ops::{Job, Ops},
        promises::Promises,
    },
    types::{LogIndex, Term},
};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// The most bytes of entries in one write; a larger entry goes alone.
const WRITE_BYTES_MAX: u64 = 1 << 20;

/// Entries that can go out in one write.
#[derive(Default)]
pub(super) struct Fitting {
    pub(super) entries: usize,
    pub(super) bytes: u64,
    /// Whether they lie in memory as they will on disk.
    adjoin: bool,
}

/// What the hard state says, both copies of it: without it an entry must not be written.
#[derive(Clone, Copy)]
pub(super) struct Promised<'a> {
    pub(super) term: Term,
    promises: &'a Promises,
}

impl<'a> Promised<'a> {
    pub(super) const fn by(promises: &'a Promises) -> Self {
        Self { term: promises.durable().term, promises }
    }

    /// Of a later term a crash would leave more than was promised; of a membership that is not
    /// named, a log whose members nobody knows.
    pub(super) fn admits(self, head: &Head) -> bool {
        let is_promised =
            head.id.term <= self.term || cfg!(lakebed_break = "write_an_unpromised_term");
        let is_named = head.kind != Kind::Membership
            || self.promises.is_membership_named()
            || cfg!(lakebed_break = "write_an_unnamed_membership");
        is_promised && is_named
    }
}

pub(super) fn fitting(
    active: &Active,
    pending: &VecDeque<Pending>,
    promised: Promised<'_>,
) -> Fitting {
    let mut batch = Fitting { adjoin: true, ..Fitting::default() };
    let mut before: Option<&Pending> = None;
    for entry in pending {
        let bytes = u64::from(entry.head.total_bytes);
        let is_first = batch.entries == 0;
        let exceeds = batch.bytes + bytes > WRITE_BYTES_MAX && !is_first;
        let is_beyond_window = active.in_flight_bytes + batch.bytes + bytes > active.window_bytes
            && !(is_first && active.in_flight_bytes == 0);
        if !promised.admits(&entry.head)
            || exceeds
            || is_beyond_window
            || !active.fits(
                active.slots.len() + batch.entries,
                active.write_at + batch.bytes,
                bytes,
            )
        {
            break;
        }
        batch.entries += 1;
        batch.bytes += bytes;
        batch.adjoin &= before.is_none_or(|before| entry.adjoins(before));
        before = Some(entry);
    }
    batch
}

/// The bytes of the first entries: those they came in where they adjoin, else a copy.
fn gather(pending: &VecDeque<Pending>, batch: &Fitting) -> Bytes {
    if !batch.adjoin {
        let mut bytes = BytesMut::with_capacity(batch.bytes as usize);
        let entries = pending.iter().take(batch.entries);
        entries.for_each(|entry| bytes.extend_from_slice(entry.frame()));
        return bytes.freeze();
    }
    let (first, last) = (&pending[0], &pending[batch.entries - 1]);
    last.chunk.slice(first.at..last.end())
}

/// What a slot says beside its entry.
#[derive(Clone, Copy)]
pub(super) struct Stamp {
    pub(super) epoch: u64,
    pub(super) durable: LogIndex,
}

/// Gives the first entries their place and their slots; what comes back is what to write there.
pub(super) fn place(
    active: &mut Active,
    pending: &mut VecDeque<Pending>,
    batch: &Fitting,
    stamp: Stamp,
) -> Extent {
    let bytes = gather(pending, batch);
    let (offset, seed) = (active.write_at, active.seed);
    let mut at = offset;
    for _ in 0..batch.entries {
        let Pending { head, .. } = pending.pop_front().expect("they were just counted");
        let mut floor_lag = FloorLag::new(head.id.index, stamp.durable);
        if cfg!(lakebed_break = "write_slots_that_prove_nothing") {
            floor_lag = FloorLag::NOTHING;
        }
        let slot = Slot::of(&head, at, stamp.epoch, floor_lag);
        active.slot_lane.put(&active.layout, active.slots.len() as u32, &slot, seed);
        active.slots.push(slot);
        active.last_time = head.time;
        at += u64::from(head.total_bytes);
    }
    active.write_at = active.layout.block_after(at);
    active.in_flight_bytes += active.write_at - offset;
    Extent { offset, bytes, zeros: (active.write_at - at) as u32 }
}

/// Submits entries, and with them the slots if none are on their way; or the slots alone.
pub(super) fn submit(active: &mut Active, entries: Option<Extent>, ops: &mut Ops) {
    let file = File::Segment(active.sequence);
    let last = active.last();
    let slots = active
        .slot_lane
        .in_flight
        .is_none()
        .then(|| active.slot_lane.take(&active.layout, last, active.slots.len() as u32));
    let bytes = entries.as_ref().map(Extent::len);
    let has_slots = slots.is_some();
    let (at, and) = match entries {
        Some(entries) => (entries, slots),
        None => (slots.expect("slots alone are submitted when none are on their way"), None),
    };
    let request = DiskRequest::Write { file, at, and, durable: true };
    let op = ops.submit(Job::Log, Class::Commit, request);
    if has_slots {
        active.slot_lane.in_flight = Some(op);
    }
    if let Some(bytes) = bytes {
        active.writes.push_back(EntriesWrite { op, through: last, bytes, is_done: false });
    }
}
