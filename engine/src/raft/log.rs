//! The log as consensus sees it: identities of all entries, bytes of the newest, watermarks.
//!
//! Knows no files: what it appends and cuts is told in [`Change`]s to whoever stores them, and what
//! it no longer holds in memory is asked for. Invariant: [`Watermarks`] are in order, and every
//! entry appended in this life that is not durable here is in memory.

use crate::{
    entry::{Head, SHARED_BYTES_MAX, frames},
    storage::{Recovered, Terms},
    types::{LogId, LogIndex, Term, Timestamp},
};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// Who keeps up asks for one of so many newest chunks: no search through cold memory for them.
const NEWEST: usize = 4;

/// Chunks up to this size are copied to be sent as one: cheaper than a message for each.
const PIECE_BYTES_MAX: usize = 4 << 10;

/// What a chunk costs beside its frames, at most: its place in the cache, which grows by doubling, the
/// head of the message that it came in, and what counts who shares the two. Of small commands that come
/// one by one it is several times what they are.
pub(super) const CHUNK_BYTES: u64 = 256;

/// The most bytes that are copied for one message.
const JOINED_BYTES_MAX: usize = 64 << 10;

/// The first common buffer, and the largest: each is twice the one before it, so that a log in which
/// little happens needs little. Of the largest an eighth at most is left over at its end.
const BUFFER_BYTES: usize = 1 << 10;
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// How far the log is in each respect. Each `advance_*` asserts the order of all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Watermarks {
    applied: LogIndex,
    applying: LogIndex,
    committed: LogIndex,
    durable: LogIndex,
    last: LogIndex,
}

impl Watermarks {
    const fn new(committed: LogIndex, last: LogIndex) -> Self {
        let none = LogIndex(0);
        Self { applied: none, applying: none, committed, durable: none, last }
    }

    /// The machine holds everything up to here by itself.
    pub(crate) fn restored(&mut self, to: LogIndex) {
        assert!(self.applying <= to && to <= self.last, "restored to {to}: {self:?}");
        (self.applied, self.applying) = (to, to);
        // A machine that keeps its own state knows better than a hint what was committed.
        self.committed = self.committed.max(to);
    }

    /// The machine says so.
    pub(crate) const fn applied(&self) -> LogIndex {
        self.applied
    }

    /// Handed to the machine.
    pub(crate) const fn applying(&self) -> LogIndex {
        self.applying
    }

    pub(crate) const fn committed(&self) -> LogIndex {
        self.committed
    }

    /// On this node's own disk.
    pub(crate) const fn durable(&self) -> LogIndex {
        self.durable
    }

    pub(crate) const fn last(&self) -> LogIndex {
        self.last
    }

    pub(crate) fn advance_applied(&mut self, to: LogIndex) {
        let applying = self.applying;
        assert!(to <= applying, "the machine applied {to}, and was given no more than {applying}");
        self.applied = self.applied.max(to);
    }

    pub(crate) fn advance_applying(&mut self, to: LogIndex) {
        let (applying, committed) = (self.applying, self.committed);
        assert!(applying < to && to <= committed, "applying {to} after {applying} of {committed}");
        self.applying = to;
    }

    pub(crate) fn advance_committed(&mut self, to: LogIndex) {
        let (committed, last) = (self.committed, self.last);
        assert!(committed <= to && to <= last, "committing {to} after {committed} of {last}");
        self.committed = to;
    }

    fn advance_durable(&mut self, to: LogIndex) {
        let (durable, last) = (self.durable, self.last);
        assert!(durable <= to && to <= last, "durable {to} after {durable} of {last}");
        self.durable = to;
    }

    /// A snapshot of everything up to here is to take the place of the log.
    fn end_before(&mut self, at: LogIndex) {
        self.durable = self.durable.min(at);
    }

    /// It has; the machine does not hold it yet.
    fn replace(&mut self, at: LogIndex) {
        assert!(self.committed < at, "installing {at}, committed is {}", self.committed);
        (self.committed, self.durable, self.last) = (at, at, at);
    }

    fn advance_last(&mut self, to: LogIndex) {
        assert!(self.last < to, "last {to} after {}", self.last);
        self.last = to;
    }

    fn cut(&mut self, from: LogIndex) {
        assert!(from > self.committed, "truncating {from}, committed is {}", self.committed);
        self.last = from.previous();
        self.durable = self.durable.min(self.last);
    }

    /// The order of all of them, at the end of every settle.
    pub(crate) fn check(&self) {
        assert!(
            self.applied <= self.applying
                && self.applying <= self.committed
                && self.committed <= self.last
                && self.durable <= self.last,
            "watermarks out of order: {self:?}"
        );
    }
}

/// What happened to the log, for those who store it, in order.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// The snapshot that was received takes its place, and ends there.
    Install(LogId),
    /// The snapshot that was received goes before it: the one that did is lost.
    Join(LogId),
    /// This is the last entry.
    Truncate(LogId),
    /// A peer's copy of an entry that is there already: in case the disk has lost it.
    Refill { head: Head, frame: Bytes },
    /// A new last entry: its header, and the verified chunk in which its frame begins there.
    Append { head: Head, chunk: Bytes, at: usize },
}

/// Whole entries, contiguous in index and in memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Chunk {
    pub(crate) first: LogIndex,
    pub(crate) last: LogIndex,
    pub(crate) frames: Bytes,
}

impl Chunk {
    /// What it costs to keep it in memory.
    const fn memory_bytes(&self) -> u64 {
        self.frames.len() as u64 + CHUNK_BYTES
    }

    /// The part that begins at `from` and ends at `to` at most: at most `bytes_max` bytes, but one
    /// entry at least.
    fn slice(&self, from: LogIndex, to: LogIndex, bytes_max: usize) -> Self {
        if self.first == from && self.last <= to && self.frames.len() <= bytes_max {
            return self.clone();
        }
        let (mut next, mut start, mut end) = (self.first, 0, 0);
        for entry in frames(&self.frames) {
            let bytes = entry.total_bytes();
            if next == from {
                start = end;
            } else if next > from && (next > to || end + bytes - start > bytes_max) {
                break;
            }
            end += bytes;
            next = next.next();
        }
        Self { first: from, last: next.previous(), frames: self.frames.slice(start..end) }
    }
}

/// Room for small appends, one behind the other.
#[derive(Clone, Debug, Default)]
struct Room {
    left: BytesMut,
    /// The length of the last buffer.
    bytes: usize,
}

impl Room {
    /// The same bytes: a copy if they are few, and what they came in is free again.
    fn take_in(&mut self, frames: Bytes) -> Bytes {
        if frames.len() > SHARED_BYTES_MAX {
            return frames;
        }
        if self.left.capacity() < frames.len() {
            self.bytes = (2 * self.bytes).clamp(BUFFER_BYTES, BUFFER_BYTES_MAX);
            self.left = BytesMut::with_capacity(self.bytes.max(frames.len()));
        }
        self.left.extend_from_slice(&frames);
        self.left.split().freeze()
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    /// The first index whose entry still exists.
    first: LogIndex,
    terms: Terms,
    /// The newest entries, ascending, without gaps.
    cache: VecDeque<Chunk>,
    /// What they cost.
    cache_bytes: u64,
    /// How many of them this node's disk does not hold yet, which are the newest, and what those cost.
    volatile: usize,
    volatile_bytes: u64,
    room: Room,
    /// The last entry's time: the next one's is no earlier.
    last_time: Timestamp,
    changes: Vec<Change>,
    pub(crate) marks: Watermarks,
}

impl Log {
    pub(crate) fn new(recovered: &Recovered) -> Self {
        let committed = recovered.committed.max(recovered.snapshot.index);
        Self {
            first: recovered.first,
            terms: recovered.terms.clone(),
            cache: VecDeque::new(),
            cache_bytes: 0,
            volatile: 0,
            volatile_bytes: 0,
            room: Room::default(),
            last_time: recovered.last_time,
            changes: Vec::new(),
            marks: Watermarks::new(committed, recovered.last.index),
        }
    }

    pub(crate) const fn first(&self) -> LogIndex {
        self.first
    }

    pub(crate) fn last(&self) -> LogId {
        LogId::new(self.terms.last(), self.marks.last)
    }

    pub(crate) const fn last_time(&self) -> Timestamp {
        self.last_time
    }

    pub(crate) const fn cache_bytes(&self) -> u64 {
        self.cache_bytes
    }

    /// What the entries cost that this node's disk does not hold yet: no memory is given back of them.
    pub(crate) const fn volatile_bytes(&self) -> u64 {
        self.volatile_bytes
    }

    /// This node's disk holds everything up to here.
    pub(crate) fn advance_durable(&mut self, to: LogIndex) {
        self.marks.advance_durable(to);
        let oldest = |log: &Self| log.cache.len() - log.volatile;
        while let Some(chunk) = self.cache.get(oldest(self)).filter(|chunk| chunk.last <= to) {
            self.volatile -= 1;
            self.volatile_bytes -= chunk.memory_bytes();
        }
    }

    /// The term of the entry at `index`; `None` behind the end and before what is remembered.
    pub(crate) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index > self.marks.last || index.next() < self.first {
            return None;
        }
        self.terms.at(index)
    }

    /// The entry at `index`, if its term is remembered.
    pub(crate) fn id_at(&self, index: LogIndex) -> Option<LogId> {
        self.term_at(index).map(|term| LogId::new(term, index))
    }

    /// Appends entries that follow each other and the last one; `bytes` are theirs.
    pub(crate) fn append(&mut self, heads: &[Head], bytes: Bytes) {
        let Some((head, last)) = heads.first().zip(heads.last()) else { return };
        let (first, mut at) = (head.id.index, 0);
        assert_eq!(first, self.marks.last.next(), "appending {first}");
        let bytes = self.room.take_in(bytes);
        for head in heads {
            self.terms.push(head.id);
            self.changes.push(Change::Append { head: *head, chunk: bytes.clone(), at });
            at += head.total_bytes as usize;
        }
        self.last_time = last.time;
        self.marks.advance_last(last.id.index);
        self.keep(Chunk { first, last: last.id.index, frames: bytes });
    }

    fn keep(&mut self, chunk: Chunk) {
        self.cache_bytes += chunk.memory_bytes();
        if chunk.last > self.marks.durable {
            self.volatile += 1;
            self.volatile_bytes += chunk.memory_bytes();
        }
        self.cache.push_back(chunk);
    }

    /// Cuts the log: the last entry is the one before `from`. The time of that one stays a lower
    /// bound for what follows: times only rise.
    pub(crate) fn truncate(&mut self, from: LogIndex) {
        self.marks.cut(from);
        self.terms.cut(from);
        while self.cache.back().is_some_and(|chunk| chunk.last >= from) {
            let chunk = self.cache.pop_back().expect("it was just seen");
            self.cache_bytes -= chunk.memory_bytes();
            if self.volatile > 0 {
                self.volatile -= 1;
                self.volatile_bytes -= chunk.memory_bytes();
            }
            if chunk.first < from {
                self.keep(chunk.slice(chunk.first, from.previous(), usize::MAX));
            }
        }
        self.changes.push(Change::Truncate(self.last()));
    }

    /// A snapshot of everything up to `at` is to take the place of the log.
    pub(crate) fn end_before(&mut self, at: LogId) {
        self.marks.end_before(at.index);
        self.changes.push(Change::Install(at));
    }

    /// A snapshot of everything up to `at`, an entry of the log, is to be where it begins.
    pub(crate) fn join(&mut self, at: LogId) {
        self.changes.push(Change::Join(at));
    }

    /// It has.
    pub(crate) fn replace(&mut self, at: LogId) {
        self.marks.replace(at.index);
        (self.first, self.terms) = (at.index.next(), Terms::behind(at));
        self.cache.clear();
        self.cache_bytes = 0;
        (self.volatile, self.volatile_bytes) = (0, 0);
    }

    /// What is appended from now on has a time no earlier than this.
    pub(crate) fn let_time_pass(&mut self, time: Timestamp) {
        self.last_time = self.last_time.max(time);
    }

    /// Entries from `from` on that lie in memory together: at most `bytes_max` bytes, but one
    /// entry at least, and none beyond `to`. `None`: memory no longer holds `from`.
    pub(crate) fn slice(&self, from: LogIndex, to: LogIndex, bytes_max: usize) -> Option<Chunk> {
        let len = self.cache.len();
        let newest = (len.saturating_sub(NEWEST)..len).rev().map(|at| &self.cache[at]);
        let chunk = match newest.into_iter().find(|chunk| chunk.first <= from) {
            Some(chunk) => chunk,
            None => self.cache.get(self.cache.partition_point(|chunk| chunk.last < from))?,
        };
        (chunk.first <= from && from <= chunk.last && from <= to)
            .then(|| chunk.slice(from, to, bytes_max))
    }

    /// As [`Self::slice`], and joined with what follows, up to `joined_max` bytes, as long as the
    /// pieces are small: whoever is behind is sent many entries at once, though they came one by
    /// one.
    pub(crate) fn gather(
        &self,
        from: LogIndex,
        to: LogIndex,
        bytes_max: usize,
        joined_max: usize,
    ) -> Option<Chunk> {
        let mut chunk = self.slice(from, to, bytes_max)?;
        let room = joined_max.min(bytes_max).min(JOINED_BYTES_MAX);
        if chunk.last == to || chunk.frames.len() > PIECE_BYTES_MAX {
            return Some(chunk);
        }
        let begin = self.cache.partition_point(|piece| piece.first <= chunk.last);
        let (mut end, mut bytes) = (begin, chunk.frames.len());
        while let Some(piece) = self.cache.get(end)
            && piece.frames.len() <= PIECE_BYTES_MAX
            && piece.last <= to
            && bytes + piece.frames.len() <= room
        {
            bytes += piece.frames.len();
            end += 1;
        }
        if begin < end {
            let mut frames = BytesMut::with_capacity(bytes);
            frames.extend_from_slice(&chunk.frames);
            for piece in self.cache.range(begin..end) {
                frames.extend_from_slice(&piece.frames);
                chunk.last = piece.last;
            }
            chunk.frames = frames.freeze();
        }
        Some(chunk)
    }

    /// Forgets the bytes of the oldest durable entries, if all cost more than `bytes_max`.
    pub(crate) fn evict(&mut self, bytes_max: u64) {
        while self.cache_bytes > bytes_max
            && self.cache.front().is_some_and(|chunk| chunk.last <= self.marks.durable)
        {
            let chunk = self.cache.pop_front().expect("it was just seen");
            self.cache_bytes -= chunk.memory_bytes();
        }
    }

    /// Forgets the identities of entries that no longer exist.
    pub(crate) fn compacted(&mut self, first: LogIndex) {
        if first <= self.first {
            return;
        }
        assert!(first.previous() <= self.marks.last, "only what a snapshot covers is removed");
        self.terms.begin_behind(first.previous());
        self.first = first;
    }

    /// A copy of an entry of this log, should the disk lack it.
    pub(crate) fn refill(&mut self, head: Head, frame: Bytes) {
        self.changes.push(Change::Refill { head, frame });
    }

    pub(crate) const fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// What happened since this was last asked.
    pub(crate) fn changes(&mut self) -> &mut Vec<Change> {
        &mut self.changes
    }

    /// See [`Terms::newest`].
    pub(crate) fn runs_up_to(&self, through: LogIndex, runs_max: usize) -> Vec<(LogIndex, Term)> {
        self.terms.newest(through, runs_max).to_vec()
    }

    /// The last entry that this log has in common with one of these runs, which ends at `through`.
    pub(crate) fn last_agreement(
        &self,
        runs: &[(LogIndex, Term)],
        through: LogIndex,
    ) -> Option<LogIndex> {
        self.terms.last_agreement(self.marks.last, runs, through)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        entry::{Batch, Seed},
        types::{ClusterId, GroupId, Timestamp},
    };

    /// Entries 1 to 5, of 40 bytes and more.
    fn chunk() -> (Chunk, Vec<usize>) {
        let (mut frames, mut sizes) = (Vec::new(), Vec::new());
        for index in 1..=5u64 {
            let at = LogId::new(Term(1), LogIndex(index));
            let batch = Batch::one(&vec![index as u8; 10 * index as usize]);
            let seed = Seed::new(ClusterId(1), GroupId(1));
            let (_, frame) = batch.seal(seed, at, Term(1), Timestamp(1));
            sizes.push(frame.len());
            frames.extend_from_slice(&frame);
        }
        (Chunk { first: LogIndex(1), last: LogIndex(5), frames: frames.into() }, sizes)
    }

    /// What was copied stays as it was while others follow it; what is large stays where it is.
    #[test]
    fn small_appends_share_buffers_and_keep_their_bytes() {
        let mut room = Room::default();
        let sizes = (1..200).map(|n| n * 61 % (SHARED_BYTES_MAX + 1));
        let given: Vec<Bytes> = sizes.map(|bytes| vec![bytes as u8; bytes].into()).collect();
        let taken: Vec<Bytes> = given.iter().map(|bytes| room.take_in(bytes.clone())).collect();
        assert_eq!(taken, given);
        let adjoin = |two: &[Bytes]| two[0].as_ptr_range().end == two[1].as_ptr();
        let joints = taken.windows(2).filter(|two| adjoin(two)).count();
        assert!(joints > taken.len() * 3 / 4, "{joints}");
        assert_eq!(room.bytes, BUFFER_BYTES_MAX);
        let large = Bytes::from(vec![1; SHARED_BYTES_MAX + 1]);
        assert_eq!(room.take_in(large.clone()).as_ptr(), large.as_ptr());
    }

    /// A client may have set aside more than it had to say.
    #[test]
    fn an_entry_keeps_no_more_than_twice_its_size_in_memory() {
        let (seed, at) = (Seed::new(ClusterId(1), GroupId(1)), LogId::new(Term(1), LogIndex(1)));
        for (room, commands) in [(1 << 20, 9), (1 << 20, 1), (0, 9), (0, 500)] {
            let mut batch = Batch::with_capacity(room);
            (0..commands).for_each(|_| batch.push(&[7; 1000]));
            let (_, frame) = batch.seal(seed, at, Term(1), Timestamp(1));
            let kept = Room::default().take_in(frame);
            let len = kept.len();
            let held = kept.try_into_mut().expect("nobody shares it").capacity();
            assert!(held <= 2 * len, "{room} {commands}: {held} of {len}");
        }
    }

    /// In a log in which little happens little is set aside.
    #[test]
    fn the_first_buffer_is_small() {
        let mut room = Room::default();
        room.take_in(vec![0; 100].into());
        assert!(room.left.capacity() < BUFFER_BYTES);
    }

    #[test]
    fn a_slice_holds_as_many_entries_as_fit_and_one_at_least() {
        let (chunk, sizes) = chunk();
        for from in 1..=5usize {
            for to in from..=5 {
                let mut bytes = 0;
                for fitting in from..=to {
                    bytes += sizes[fitting - 1];
                    for bytes_max in [bytes, bytes + sizes.get(fitting).map_or(0, |next| next - 1)]
                    {
                        let (first, last) = (LogIndex(from as u64), LogIndex(to as u64));
                        let slice = chunk.slice(first, last, bytes_max);
                        assert_eq!(slice.first, first);
                        assert_eq!(slice.last, LogIndex(fitting as u64), "{from}..={to}");
                        assert_eq!(slice.frames.len(), bytes);
                    }
                }
                let least = chunk.slice(LogIndex(from as u64), LogIndex(to as u64), 0);
                assert_eq!(least.frames.len(), sizes[from - 1]);
            }
        }
    }

    #[test]
    fn watermarks_out_of_order_are_noticed_whichever() {
        let marks = |[applied, applying, committed, durable, last]: [u64; 5]| {
            let [applied, applying, committed, durable, last] =
                [applied, applying, committed, durable, last].map(LogIndex);
            Watermarks { applied, applying, committed, durable, last }
        };
        marks([1, 2, 3, 4, 4]).check();
        for wrong in [[3, 2, 3, 4, 4], [1, 4, 3, 4, 4], [1, 2, 5, 4, 4], [1, 2, 3, 5, 4]] {
            let check = std::panic::catch_unwind(|| marks(wrong).check());
            assert!(check.is_err(), "{wrong:?}");
        }
    }
}
