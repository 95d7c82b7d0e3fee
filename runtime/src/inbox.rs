//! The bounded queue between handles, on any thread, and the one driver.
//!
//! Knows no engine. Invariant: what is pushed is taken exactly once, or ended here: a full inbox
//! refuses with `Busy`, a closed one as the node's end demands.

use crate::{
    clients::BATCH_COUNT_MAX,
    handle::{Answers, Carried, Failure},
};
use bytes::Bytes;
use futures::{
    channel::{mpsc, oneshot},
    task::AtomicWaker,
};
use lakebed::{Batch, Control, Halt, Note, ReadMode, Refusal, Status, Tuning};
use std::{
    sync::{Arc, Mutex, MutexGuard},
    task::Waker,
};

pub(crate) type Sender<T> = oneshot::Sender<Result<T, Failure>>;

/// Who waits for the answers of a batch, and in which form.
pub(crate) enum Waiter {
    All(Sender<Answers>),
    One(Sender<Bytes>),
}

impl Waiter {
    /// Whoever has gone does not hear it.
    pub(crate) fn resolve(self, result: Result<Answers, Failure>) {
        match self {
            Self::All(reply) => drop(reply.send(result)),
            Self::One(reply) => drop(reply.send(result.map(Answers::into_one))),
        }
    }
}

/// What a handle asks of the driver.
pub(crate) enum Request {
    Propose { batch: Batch, waiter: Waiter },
    Read { queries: Batch, mode: ReadMode, waiter: Waiter },
    Control { control: Control, reply: Sender<Carried> },
    Tune(Box<Tuning>),
    Status(Sender<Status>),
    Subscribe(mpsc::Sender<Note>),
    Stop { hand_over: bool },
    Ended(Sender<Arc<Halt>>),
}

impl Request {
    fn batch(&self) -> Option<&Batch> {
        match self {
            Self::Propose { batch, .. } | Self::Read { queries: batch, .. } => Some(batch),
            _ => None,
        }
    }

    fn count(&self) -> Option<u32> {
        self.batch().map(Batch::count)
    }

    /// What it takes of the inbox's room.
    fn bytes(&self) -> usize {
        self.batch().map_or(0, Batch::bytes)
    }

    /// An empty batch has no answers, and needs no log for that.
    fn answer_nothing(self) {
        if let Self::Propose { waiter, .. } | Self::Read { waiter, .. } = self {
            waiter.resolve(Ok(Answers::default()));
        }
    }

    /// Ends it without the engine having heard of it.
    pub(crate) fn refuse(self, refusal: Refusal) {
        let failure = Failure::Refused(refusal);
        match self {
            Self::Propose { waiter, .. } | Self::Read { waiter, .. } => {
                waiter.resolve(Err(failure));
            }
            Self::Control { reply, .. } => drop(reply.send(Err(failure))),
            Self::Status(reply) => drop(reply.send(Err(failure))),
            Self::Ended(reply) => drop(reply.send(Err(failure))),
            Self::Tune(_) | Self::Subscribe(_) | Self::Stop { .. } => {}
        }
    }

    /// Answers it in the name of a node that has ended.
    fn end(self, end: &End) {
        match self {
            Self::Status(reply) => drop(reply.send(Ok(end.status.clone()))),
            Self::Ended(reply) => drop(reply.send(Ok(Arc::clone(&end.halt)))),
            other => other.refuse(Refusal::Stopping),
        }
    }
}

/// What remains of a node.
#[derive(Clone)]
pub(crate) struct End {
    pub(crate) halt: Arc<Halt>,
    pub(crate) status: Status,
}

/// What was asked of a node through its handles, and not refused for want of room.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Commands proposed.
    pub commands: u64,
    /// Bytes of them, with four for the length of each.
    pub command_bytes: u64,
    /// Queries asked.
    pub queries: u64,
}

impl Traffic {
    fn count(&mut self, request: &Request) {
        match request {
            Request::Propose { batch, .. } => {
                self.commands += u64::from(batch.count());
                self.command_bytes += batch.bytes() as u64;
            }
            Request::Read { queries, .. } => self.queries += u64::from(queries.count()),
            _ => {}
        }
    }
}

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    bytes: usize,
    traffic: Traffic,
    end: Option<End>,
    /// The driver went without an end.
    abandoned: bool,
}

pub(crate) struct Inbox {
    state: Mutex<State>,
    driver: AtomicWaker,
    bytes_max: usize,
}

impl Inbox {
    /// Holds at most `bytes_max` bytes of commands and queries, and always at least one batch.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { state: Mutex::default(), driver: AtomicWaker::new(), bytes_max }
    }

    pub(crate) fn push(&self, request: Request) {
        match request.count() {
            Some(0) => return request.answer_nothing(),
            Some(count) if count > BATCH_COUNT_MAX => return request.refuse(Refusal::TooLarge),
            _ => {}
        }
        match self.try_push(request) {
            Some(request) => request.refuse(Refusal::Busy),
            None => self.driver.wake(),
        }
    }

    /// Hands back what there is no room for. What has ended is answered under way.
    fn try_push(&self, request: Request) -> Option<Request> {
        let mut state = self.state();
        if let Some(end) = &state.end {
            request.end(end);
            return None;
        }
        if state.abandoned {
            return None;
        }
        let bytes = request.bytes();
        if bytes > 0 && state.bytes > 0 && state.bytes + bytes > self.bytes_max {
            return Some(request);
        }
        state.bytes += bytes;
        state.traffic.count(&request);
        state.requests.push(request);
        None
    }

    pub(crate) fn traffic(&self) -> Traffic {
        self.state().traffic
    }

    /// Moves everything into `taken`, which is empty; wakes `waker` at the next push.
    pub(crate) fn take(&self, waker: &Waker, taken: &mut Vec<Request>) {
        self.driver.register(waker);
        let mut state = self.state();
        state.bytes = 0;
        std::mem::swap(&mut state.requests, taken);
    }

    /// From here on every request is answered with this end.
    pub(crate) fn close(&self, end: End) {
        let late = {
            let mut state = self.state();
            state.end = Some(end.clone());
            std::mem::take(&mut state.requests)
        };
        late.into_iter().for_each(|request| request.end(&end));
    }

    /// The driver is gone and nobody knows how it ended: replies are dropped.
    pub(crate) fn abandon(&self) {
        let mut state = self.state();
        state.abandoned = true;
        state.requests.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the inbox")
    }
}
