//! Entries that came behind a snapshot while it is on its way: they wait for it in memory.
//!
//! The leader sends them beside the snapshot, so that what was written meanwhile need not be sent,
//! and read from its disk, when the snapshot is in. An append that waits is nothing but one that is
//! late: it is no part of the log, nothing is acknowledged, counted or voted by it, and when the
//! snapshot has taken the log's place it is taken as if it came then, or not at all. A network may do
//! the same to any append, so there is no rule that it could break. Knows no files. Invariant: what
//! waits is of one term, begins behind one snapshot, has no gap, and is bounded in what it costs.

use super::{Raft, log::CHUNK_BYTES, role::Role};
use crate::{
    marks::Mark,
    message::Append,
    types::{LogId, LogIndex, Term},
};
use bytes::Bytes;

/// The receiver's half: appends that wait, in the order in which they follow each other.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting {
    /// The term whose leader sent them.
    term: Term,
    /// The entry before the first of each append, and its entries.
    appends: Vec<(LogId, Bytes)>,
    last: LogIndex,
    /// What they cost: their entries, and what each costs beside them as it will in the log.
    bytes: u64,
}

impl Waiting {
    pub(super) const fn is_empty(&self) -> bool {
        self.appends.is_empty()
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Lets entries up to `last` wait, if what waits was not to cost more than `bytes_max` by them.
    fn add(&mut self, prev: LogId, frames: &Bytes, last: LogIndex, bytes_max: u64) {
        let bytes = frames.len() as u64;
        if self.bytes + bytes <= bytes_max {
            self.appends.push((prev, frames.clone()));
            self.last = last;
            self.bytes += bytes + CHUNK_BYTES;
        }
    }

    /// The last entry that waits, if any does.
    pub(super) fn last(&self) -> Option<LogIndex> {
        (!self.appends.is_empty()).then_some(self.last)
    }
}

/// The leader's half: how much of what follows a snapshot is on its way, or waits there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Behind {
    /// What it costs there.
    bytes: u64,
    /// Of its entries, what no answer was heard to yet; and the append whose answer tells of all of it.
    unanswered: u64,
    sequence: u64,
}

impl Behind {
    /// Whether one more append may be sent: so many bytes in all wait there at most, and so many
    /// are on their way.
    pub(super) const fn has_room(&self, append: u64, in_all: u64, on_the_way: u64) -> bool {
        let is_first = self.unanswered == 0;
        self.bytes + append <= in_all && (is_first || self.unanswered + append <= on_the_way)
    }

    pub(super) const fn sent(&mut self, sequence: u64, bytes: usize) {
        self.sequence = sequence;
        self.bytes += bytes as u64 + CHUNK_BYTES;
        self.unanswered += bytes as u64;
    }

    /// Appends up to this one have arrived, or never will.
    pub(super) const fn answered(&mut self, sequence: u64) {
        if sequence >= self.sequence {
            self.unanswered = 0;
        }
    }
}

impl Raft {
    /// An append that does not fit the log waits, if a snapshot is on its way that it follows; what
    /// memory has no room for comes once more, in its time. `self.heads` holds what its entries are.
    pub(super) fn let_wait(&mut self, append: &Append) {
        let coming = self.facts.receiving.map(|receiving| receiving.snapshot.at);
        let Some(at) = self.receiver.taking.or(coming) else { return };
        let waiting = &mut self.receiver.waiting;
        if waiting.term != self.term {
            *waiting = Waiting { term: self.term, ..Waiting::default() };
        }
        let Some(last) = self.heads.last().map(|head| head.id.index) else { return };
        let end = waiting.last().map_or(at.index, |last| last.max(at.index));
        let prev = append.prev;
        if at.index <= prev.index && prev.index <= end && last > end {
            waiting.add(prev, &append.frames, last, self.tuning.cache_bytes_max);
        }
    }

    /// The snapshot has taken the log's place, or is not needed any more: what waited comes now.
    pub(super) fn take_what_waited(&mut self) {
        if self.receiver.waiting.bytes == 0 {
            return;
        }
        let is_of_term = self.receiver.waiting.term == self.term;
        let is_coming =
            self.facts.receiving.is_some_and(|coming| !self.reaches(coming.snapshot.at));
        if is_of_term && (is_coming || self.receiver.taking.is_some()) {
            return;
        }
        let waiting = std::mem::take(&mut self.receiver.waiting);
        if !is_of_term || !matches!(self.role, Role::Follower(_)) {
            return;
        }
        for (prev, frames) in waiting.appends {
            let append = Append { prev, frames, ..Append::default() };
            // What came in between may have made it one that no leader of this term can send.
            let fits = self.log.term_at(prev.index) == Some(prev.term)
                && self.verify(&append, self.term).is_ok()
                && self.agree(self.known());
            if !fits {
                return;
            }
            self.marks.set(Mark::AppendWaited);
            self.take_entries(prev.index, append.frames);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_behind_is_bounded_on_its_way_and_in_all() {
        let mut behind = Behind::default();
        let has_room = |behind: &Behind| behind.has_room(10, 40 + 3 * CHUNK_BYTES, 15);
        assert!(has_room(&behind));
        behind.sent(7, 10);
        assert!(!has_room(&behind), "two would be more than may be on their way");
        behind.answered(6);
        assert!(!has_room(&behind), "an answer to what was sent before says nothing");
        behind.answered(7);
        for sequence in 8..10 {
            assert!(has_room(&behind));
            behind.sent(sequence, 10);
            behind.answered(sequence);
        }
        behind.sent(10, 5);
        behind.answered(10);
        assert!(!has_room(&behind), "one more would be more than waits in all");
    }

    #[test]
    fn what_waits_is_bounded_in_what_it_costs() {
        let (mut waiting, entry) = (Waiting::default(), Bytes::from_static(&[0; 70]));
        let bytes_max = 64 << 10;
        for index in 0..10_000 {
            let prev = LogId::new(Term(1), LogIndex(index));
            waiting.add(prev, &entry, prev.index.next(), bytes_max);
        }
        let places = waiting.appends.capacity() * size_of::<(LogId, Bytes)>();
        let held = (places + waiting.appends.len() * entry.len()) as u64;
        assert!(held <= waiting.bytes(), "{held} bytes are held, and it says {}", waiting.bytes());
        assert!(waiting.bytes() <= bytes_max + CHUNK_BYTES);
        assert_eq!(waiting.last(), Some(LogIndex(waiting.appends.len() as u64)));
    }

    #[test]
    fn one_append_may_always_be_on_its_way() {
        let behind = Behind::default();
        assert!(behind.has_room(10, 10, 5));
    }

    #[test]
    fn what_there_is_room_for_waits() {
        let (mut waiting, entry) = (Waiting::default(), Bytes::from_static(&[0; 70]));
        for index in 0..3 {
            let prev = LogId::new(Term(1), LogIndex(index));
            waiting.add(prev, &entry, prev.index.next(), 2 * (CHUNK_BYTES + 70));
        }
        assert_eq!(waiting.last(), Some(LogIndex(2)));
    }
}
