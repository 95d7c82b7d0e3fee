//! What a program holds of a node: it proposes, reads and asks, from any thread.
//!
//! Knows neither engine nor disk: everything goes through the bounded [`Inbox`] and is answered
//! through a [`Reply`]. Invariant: every reply resolves, at the latest when the node has ended.

use crate::inbox::{Inbox, Request, Traffic, Waiter};
use bytes::Bytes;
use futures::{
    Stream,
    channel::{mpsc, oneshot},
};
use lakebed::{
    Batch, ConfigError, Control, File, Halt, LogId, Note, Outcome, ReadMode, Refusal, Status,
    Tuning,
};
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

/// How many notes wait for a subscriber that is slow.
const NOTES_MAX: usize = 1024;

/// A node, as its program sees it. Cheap to clone; may outlive the node.
#[derive(Clone)]
pub struct Handle {
    inbox: Arc<Inbox>,
}

impl Handle {
    pub(crate) const fn new(inbox: Arc<Inbox>) -> Self {
        Self { inbox }
    }

    /// Replicates a batch of commands. Resolves when all of them are applied here, with their
    /// answers. On a failure of a part, what became of the batch is [`Failure::Unknown`] unless
    /// every command was refused.
    pub fn propose(&self, batch: Batch) -> Reply<Answers> {
        self.ask(|reply| Request::Propose { batch, waiter: Waiter::All(reply) })
    }

    /// Replicates one command. Resolves when it is applied here, with its answer.
    pub fn propose_one(&self, command: &[u8]) -> Reply<Bytes> {
        let batch = Batch::one(command);
        self.ask(|reply| Request::Propose { batch, waiter: Waiter::One(reply) })
    }

    /// Answers a batch of queries at one point of the log, as fresh as `mode` says.
    pub fn read(&self, queries: Batch, mode: ReadMode) -> Reply<Answers> {
        self.ask(|reply| Request::Read { queries, mode, waiter: Waiter::All(reply) })
    }

    /// Answers one query, as fresh as `mode` says.
    pub fn read_one(&self, query: &[u8], mode: ReadMode) -> Reply<Bytes> {
        let queries = Batch::one(query);
        self.ask(|reply| Request::Read { queries, mode, waiter: Waiter::One(reply) })
    }

    /// Gives the node an order.
    pub fn control(&self, control: Control) -> Reply<Carried> {
        self.ask(|reply| Request::Control { control, reply })
    }

    /// Changes timing and limits. Such as cannot work are refused here; entries that this node's
    /// segments do not hold are refused by the node, which keeps what it has and says so
    /// ([`Note::TuningRefused`]).
    pub fn tune(&self, tuning: Tuning) -> Result<(), ConfigError> {
        tuning.validate()?;
        self.inbox.push(Request::Tune(Box::new(tuning)));
        Ok(())
    }

    /// A look at the node; after its end, the last one.
    pub fn status(&self) -> Reply<Status> {
        self.ask(Request::Status)
    }

    /// Whether the node has ended: what its status says then is how it was.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.inbox.has_ended()
    }

    /// What was asked of the node through its handles so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.inbox.traffic()
    }

    /// What the node says from now on.
    pub fn subscribe(&self) -> Notes {
        let (sender, notes) = mpsc::channel(NOTES_MAX);
        self.inbox.push(Request::Subscribe(sender));
        Notes { notes }
    }

    /// Asks the node to stop, after handing its leadership over if it should, and resolves like
    /// [`ended`](Self::ended). The reply need not be awaited.
    pub fn shutdown(&self, hand_over: bool) -> Reply<Arc<Halt>> {
        self.inbox.push(Request::Stop { hand_over });
        self.ended()
    }

    /// Resolves when the engine has halted, every disk operation has ended and the directory is
    /// unlocked: another node may start in it.
    pub fn ended(&self) -> Reply<Arc<Halt>> {
        self.ask(Request::Ended)
    }

    fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, Failure>>) -> Request,
    ) -> Reply<T> {
        let (sender, reply) = oneshot::channel();
        self.inbox.push(request(sender));
        Reply { reply }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

/// An answer to come. Dropping it withdraws nothing: a proposal may still be applied.
#[derive(Debug)]
#[must_use = "futures do nothing unless they are awaited"]
pub struct Reply<T> {
    reply: oneshot::Receiver<Result<T, Failure>>,
}

impl<T> Future for Reply<T> {
    type Output = Result<T, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // A node that was dropped unfinished takes the knowledge with it.
        let reply = ready!(Pin::new(&mut self.reply).poll(cx));
        Poll::Ready(reply.unwrap_or(Err(Failure::Unknown)))
    }
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Debug)]
pub enum Failure {
    /// Certainly not applied, now or later; for a read: not answered.
    Refused(Refusal),
    /// Leadership was lost, or the node ended, with the commands in flight: they may be applied,
    /// or not.
    Unknown,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => write!(f, "refused: {refusal}"),
            Self::Unknown => f.write_str("the outcome is unknown: applied, or not"),
        }
    }
}

impl std::error::Error for Failure {}

/// What became of an order that was carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Carried {
    /// Done, at this log position.
    Done(LogId),
    /// A snapshot file of so many bytes is kept until it is unpinned.
    Pinned(File, u64),
    /// A piece of it; empty only behind its end.
    Read(Bytes),
}

impl Carried {
    pub(crate) fn of(outcome: &Outcome) -> Result<Self, Failure> {
        match outcome {
            Outcome::Done(at) => Ok(Self::Done(*at)),
            Outcome::Pinned(file, bytes) => Ok(Self::Pinned(*file, *bytes)),
            Outcome::Read(bytes) => Ok(Self::Read(bytes.clone())),
            Outcome::Refused(refusal) => Err(Failure::Refused(refusal.clone())),
            Outcome::Unknown => Err(Failure::Unknown),
        }
    }
}

/// The answers to a batch, in its order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Answers {
    bytes: Vec<u8>,
    /// Where each answer ends.
    ends: Vec<usize>,
}

/// The most room that is made for answers before they are there.
const ROOM_BYTES_MAX: usize = 4096;

impl Answers {
    /// Makes room for so many that are as long as this one.
    pub(crate) fn make_room(&mut self, count: usize, answer: &[u8]) {
        self.ends.reserve_exact(count);
        self.bytes.reserve_exact(answer.len().saturating_mul(count).min(ROOM_BYTES_MAX));
    }

    pub(crate) fn push(&mut self, answer: &[u8]) {
        self.bytes.extend_from_slice(answer);
        self.ends.push(self.bytes.len());
    }

    /// How many.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The answer to the command, or query, of this ordinal.
    #[must_use]
    pub fn answer(&self, ordinal: usize) -> Option<&[u8]> {
        let end = *self.ends.get(ordinal)?;
        let start = ordinal.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.bytes[start..end])
    }

    /// Each answer in turn.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).filter_map(|ordinal| self.answer(ordinal))
    }

    /// All of them, one right behind the other.
    #[must_use]
    pub fn joined(&self) -> &[u8] {
        &self.bytes
    }

    /// The only answer.
    pub(crate) fn into_one(self) -> Bytes {
        debug_assert_eq!(self.len(), 1, "one command has one answer");
        self.bytes.into()
    }
}

/// A node's notes, as they happen. A subscriber that is too slow misses some.
#[derive(Debug)]
#[must_use = "streams do nothing unless they are polled"]
pub struct Notes {
    notes: mpsc::Receiver<Note>,
}

impl Stream for Notes {
    type Item = Note;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Note>> {
        Pin::new(&mut self.notes).poll_next(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::End;
    use futures::{FutureExt, StreamExt};

    /// Those who were told nothing took what they had asked for as perhaps done.
    #[test]
    fn whoever_asks_behind_the_end_is_told_it() {
        let inbox = Arc::new(Inbox::new(1 << 20));
        let handle = Handle::new(Arc::clone(&inbox));
        let (early, transfer) = (handle.control(Control::Snapshot), Control::Transfer { to: None });
        let mut status = Status::default();
        status.term = lakebed::Term(7);
        inbox.close(End { halt: Arc::new(Halt::Stopped), status: status.clone() });
        let stopping = Failure::Refused(Refusal::Stopping);
        for order in [early, handle.control(transfer)] {
            assert_eq!(order.now_or_never(), Some(Err(stopping.clone())));
        }
        let (written, read) =
            (handle.propose_one(b"!"), handle.read_one(b"?", ReadMode::Linearizable));
        for one in [written, read] {
            assert_eq!(one.now_or_never(), Some(Err(stopping.clone())));
        }
        assert_eq!(handle.status().now_or_never(), Some(Ok(status)));
        assert_eq!(handle.ended().now_or_never(), Some(Ok(Arc::new(Halt::Stopped))));
        assert_eq!(handle.subscribe().next().now_or_never(), Some(None), "no note will come");
    }

    #[test]
    fn answers_keep_their_order_and_their_borders() {
        let mut answers = Answers::default();
        for answer in [&b"one"[..], b"", b"three"] {
            answers.push(answer);
        }
        assert_eq!(answers.iter().collect::<Vec<_>>(), [&b"one"[..], b"", b"three"]);
        assert_eq!(answers.answer(3), None);
        assert_eq!(answers.joined(), b"onethree");
    }

    /// They grew step by step, a dozen times for a pipeline of 64.
    #[test]
    fn room_for_answers_that_are_alike_is_made_once_and_within_bounds() {
        let mut answers = Answers::default();
        answers.make_room(100, b"+OK");
        let room = (answers.bytes.capacity(), answers.ends.capacity());
        assert_eq!(room, (300, 100));
        (0..100).for_each(|_| answers.push(b"+OK"));
        assert_eq!((answers.bytes.capacity(), answers.ends.capacity()), room);
        let mut answers = Answers::default();
        answers.make_room(100, &[0; 1 << 20]);
        assert_eq!(answers.bytes.capacity(), ROOM_BYTES_MAX, "the others may be short");
    }
}
