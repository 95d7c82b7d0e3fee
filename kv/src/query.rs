//! Reading commands beside the log: many in one query, answered within a budget.
//!
//! Invariant: an answer is no longer than the budget, or one command's answer, however many were
//! asked; who asked learns how many were answered and asks for the rest.

use crate::Command;
use bytes::{Buf, Bytes};
use lakebed::Timestamp;

const HEAD_BYTES: usize = 13;
/// Where the most bytes and the least commands stand in the head.
const BYTES_MAX_AT: usize = 8;
const LEAST_AT: usize = 12;
const TAIL_BYTES: usize = 13;

/// Commands that only read, in the form that [`Kv`](crate::Kv) answers:
///
/// ```text
/// clock u64, bytes u32, least u8, then per command: length u32, command
/// ```
///
/// They never leave their process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Queries {
    bytes: Vec<u8>,
    /// Where each command begins, behind its length.
    starts: Vec<usize>,
}

impl Default for Queries {
    fn default() -> Self {
        let mut queries = Self { bytes: vec![0; HEAD_BYTES], starts: Vec::new() };
        queries.room(usize::MAX, true);
        queries
    }
}

impl Queries {
    /// Adds a command, which only reads.
    pub fn push(&mut self, command: &Command<'_>) {
        self.bytes.extend_from_slice(&[0; 4]);
        let start = self.bytes.len();
        command.encode(&mut self.bytes);
        let len = (self.bytes.len() - start) as u32;
        self.bytes[start - 4..start].copy_from_slice(&len.to_le_bytes());
        self.starts.push(start);
    }

    /// The asker's clock: where it says that a key has expired and the machine's time does not,
    /// the machine stops with [`Stopped::Stale`]. Zero: the machine's time will do.
    pub fn clock(&mut self, clock: Timestamp) {
        self.bytes[..BYTES_MAX_AT].copy_from_slice(&clock.0.to_le_bytes());
    }

    /// How long the answers may be together, where that is less than the machine's own budget;
    /// whether the first is given however long it is. If not, there may be none.
    pub fn room(&mut self, bytes_max: usize, must_answer: bool) {
        let bytes_max = u32::try_from(bytes_max).unwrap_or(u32::MAX);
        self.bytes[BYTES_MAX_AT..LEAST_AT].copy_from_slice(&bytes_max.to_le_bytes());
        self.bytes[LEAST_AT] = must_answer.into();
    }

    /// Whether an answer must be given.
    #[must_use]
    pub fn must_answer(&self) -> bool {
        self.bytes[LEAST_AT] > 0
    }

    /// The query.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many commands.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.starts.len()
    }

    /// Whether it has no command.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Drops the first `count` commands, which were answered.
    pub fn advance(&mut self, count: usize) {
        let start = match self.starts.get(count) {
            Some(start) => start - 4,
            None => self.bytes.len(),
        };
        self.bytes.drain(HEAD_BYTES..start);
        self.starts.drain(..count.min(self.starts.len()));
        self.starts.iter_mut().for_each(|at| *at -= start - HEAD_BYTES);
    }
}

/// On what terms a query is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Terms {
    /// The asker's clock.
    pub(crate) clock: Timestamp,
    /// How long the answers may be.
    pub(crate) bytes_max: usize,
    /// How many commands are answered even if that is longer.
    pub(crate) least: u32,
}

/// The terms and the commands of a query; what is malformed ends it.
pub(crate) fn parse(query: &[u8]) -> (Terms, impl Iterator<Item = Command<'_>>) {
    let (head, mut rest) = query.split_first_chunk().unwrap_or((&[0; HEAD_BYTES], &[]));
    let mut head = &head[..];
    let terms = Terms {
        clock: Timestamp(head.get_u64_le()),
        bytes_max: head.get_u32_le() as usize,
        least: head.get_u8().into(),
    };
    let commands = std::iter::from_fn(move || {
        let len = rest.split_off(..4)?.get_u32_le();
        Command::decode(rest.split_off(..len as usize)?)
    });
    (terms, commands)
}

/// Why an answer ends where it does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stopped {
    /// Everything was answered.
    Done,
    /// The budget is used up.
    Budget,
    /// The next command wants a later time than the machine has.
    Stale,
}

/// The answers to [`Queries`], or to the first of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answered {
    /// RESP values, one for each answered command.
    pub values: Bytes,
    /// How many were answered.
    pub count: usize,
    /// Why not more.
    pub stopped: Stopped,
    /// The machine's time.
    pub time: Timestamp,
}

impl Answered {
    /// Reads what [`Kv`](crate::Kv) answered; `None`: that was something else.
    #[must_use]
    pub fn parse(mut answer: Bytes) -> Option<Self> {
        let at = answer.len().checked_sub(TAIL_BYTES)?;
        let mut tail = answer.split_off(at);
        let stopped = match tail.get_u8() {
            0 => Stopped::Done,
            1 => Stopped::Budget,
            2 => Stopped::Stale,
            _ => return None,
        };
        let (count, time) = (tail.get_u32_le() as usize, Timestamp(tail.get_u64_le()));
        Some(Self { values: answer, count, stopped, time })
    }
}

/// Ends an answer: `stopped u8, count u32, time u64`.
pub(crate) fn finish(answer: &mut Vec<u8>, stopped: Stopped, count: u32, time: Timestamp) {
    answer.push(stopped as u8);
    answer.extend_from_slice(&count.to_le_bytes());
    answer.extend_from_slice(&time.0.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::tests::samples;

    fn queries<'a>(commands: impl IntoIterator<Item = &'a Command<'a>>) -> Queries {
        let mut queries = Queries::default();
        commands.into_iter().for_each(|command| queries.push(command));
        queries
    }

    #[test]
    fn what_was_answered_is_dropped_and_the_rest_stays() {
        let mut buf = Vec::new();
        let commands = samples(&mut buf);
        for answered in 0..=commands.len() {
            let mut all = queries(&commands);
            all.advance(answered);
            assert_eq!(all, queries(&commands[answered..]));
            let (_, rest) = parse(all.bytes());
            assert_eq!(rest.collect::<Vec<_>>(), commands[answered..]);
        }
    }

    #[test]
    fn terms_are_carried() {
        let mut queries = queries(&[Command::DbSize]);
        let terms = |clock, bytes_max, least| Terms { clock: Timestamp(clock), bytes_max, least };
        assert_eq!(parse(queries.bytes()).0, terms(0, u32::MAX as usize, 1));
        queries.clock(Timestamp(77));
        queries.room(5, false);
        assert_eq!(parse(queries.bytes()).0, terms(77, 5, 0));
    }

    #[test]
    fn a_query_cut_short_is_answered_as_far_as_it_is_whole() {
        let whole = queries(&[Command::Get(b"a"), Command::Get(b"b")]);
        for end in 0..whole.bytes().len() {
            assert!(parse(&whole.bytes()[..end]).1.count() < 2, "{end} bytes");
        }
    }

    #[test]
    fn an_answer_tells_how_far_it_goes() {
        let mut answer = b"+OK\r\n".to_vec();
        finish(&mut answer, Stopped::Budget, 1, Timestamp(9));
        let answered = Answered::parse(answer.into()).unwrap();
        assert_eq!((&answered.values[..], answered.count), (&b"+OK\r\n"[..], 1));
        assert_eq!((answered.stopped, answered.time), (Stopped::Budget, Timestamp(9)));
        assert_eq!(Answered::parse(Bytes::from_static(b"+OK")), None);
    }
}
