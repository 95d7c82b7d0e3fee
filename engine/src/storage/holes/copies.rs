//! Copies of lost entries that peers gave: each is read around and written durably, one at a time, so
//! they come faster than they go.
//!
//! Invariant: what they cost together is no more than their room, unless one alone is larger.

use crate::types::LogIndex;
use bytes::Bytes;
use std::collections::BTreeMap;

/// Their room, in appends.
const ROOM_APPENDS: u64 = 4;
/// What a copy costs beside its bytes.
const COPY_BYTES: u64 = 128;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Copies {
    of: BTreeMap<LogIndex, Bytes>,
    bytes: u64,
    room: u64,
}

impl Copies {
    pub(super) const fn tune(&mut self, append_bytes_max: u32) {
        self.room = ROOM_APPENDS * append_bytes_max as u64;
    }

    /// What they cost.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn get(&self, index: LogIndex) -> Option<&Bytes> {
        self.of.get(&index)
    }

    pub(super) fn first(&self) -> Option<LogIndex> {
        self.of.first_key_value().map(|(index, _)| *index)
    }

    /// Whether an entry of this length would be taken, and what else comes with it. Half the room is
    /// free then: were somebody asked for each that is written, most of each answer would be refused.
    pub(super) fn have_room_from(&self, frame_bytes: u32) -> bool {
        self.has_room((u64::from(frame_bytes) + COPY_BYTES).max(self.room / 2))
    }

    const fn has_room(&self, bytes: u64) -> bool {
        self.bytes == 0 || self.bytes + bytes <= self.room
    }

    /// True if it was taken: the first of this index, if there is room. What it came in, with many that
    /// are not missing, is free again.
    pub(super) fn take_in(&mut self, index: LogIndex, frame: &Bytes) -> bool {
        let takes = self.has_room(cost(frame)) && !self.of.contains_key(&index);
        if takes {
            self.bytes += cost(frame);
            self.of.insert(index, Bytes::copy_from_slice(frame));
        }
        takes
    }

    pub(super) fn drop_at(&mut self, index: LogIndex) {
        self.bytes -= self.of.remove(&index).as_ref().map_or(0, cost);
    }

    pub(super) fn retain(&mut self, stays: impl Fn(LogIndex) -> bool) {
        self.of.retain(|index, _| stays(*index));
        self.bytes = self.of.values().map(cost).sum();
    }
}

#[cfg(test)]
impl Copies {
    pub(super) fn indexes(&self) -> impl Iterator<Item = LogIndex> {
        self.of.keys().copied()
    }

    pub(super) fn check(&self) {
        assert_eq!(self.bytes, self.of.values().map(cost).sum::<u64>());
        assert!(self.bytes <= self.room || self.of.len() == 1, "{} > {}", self.bytes, self.room);
    }
}

fn cost(frame: &Bytes) -> u64 {
    frame.len() as u64 + COPY_BYTES
}
