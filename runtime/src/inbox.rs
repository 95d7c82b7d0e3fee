//! The bounded queue between handles, on any thread, and the one driver.
//!
//! Knows no engine. Invariant: what is pushed is taken exactly once, or ended here: a full inbox
//! refuses with `Busy`, a closed one as the node's end demands.

use crate::{
    clients::BATCH_COUNT_MAX,
    handle::{Answers, Carried, Failure},
    mailbox::Mailbox,
    sync::{Mutex, MutexGuard},
};
use bytes::Bytes;
use futures::channel::{mpsc, oneshot};
use lakebed::{Batch, Control, GroupId, Halt, Note, ReadMode, Refusal, Status, Tuning};
use std::{sync::Arc, task::Waker};

/// About what a batch takes of memory beside the bytes of its commands or queries: the buffer's room for a
/// header, who waits for the answers, and a place in a queue that may be half empty. It is added to every
/// batch, so that a bound in bytes is one on memory however small they are.
pub(crate) const BATCH_BYTES: usize = 512;

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
        self.batch().map_or(0, |batch| batch.bytes() + BATCH_BYTES)
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
    /// The driver goes, or went, without an end.
    abandoned: bool,
    /// And what it held is let go of.
    is_gone: bool,
}

/// What a driver of many inboxes is woken by, and which of them hold something since it looked.
pub(crate) type Bell = Mailbox<GroupId>;

pub(crate) struct Inbox {
    state: Mutex<State>,
    bell: Arc<Bell>,
    /// What rings there, if its driver has others.
    group: Option<GroupId>,
    bytes_max: usize,
}

impl Inbox {
    /// Holds at most `bytes_max` bytes of commands and queries, [`BATCH_BYTES`] added for each batch, and
    /// always at least one batch. It has a driver to itself.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { state: Mutex::default(), bell: Arc::default(), group: None, bytes_max }
    }

    /// One of many, whose driver hears by this bell which group it is.
    pub(crate) fn at(bell: Arc<Bell>, group: GroupId, bytes_max: usize) -> Self {
        Self { state: Mutex::default(), bell, group: Some(group), bytes_max }
    }

    pub(crate) fn push(&self, request: Request) {
        match request.count() {
            Some(0) => return request.answer_nothing(),
            Some(count) if count > BATCH_COUNT_MAX => return request.refuse(Refusal::TooLarge),
            _ => {}
        }
        match self.try_push(request) {
            Err(request) => request.refuse(Refusal::Busy),
            Ok(true) => match self.group {
                Some(group) => self.bell.put(group),
                None => self.bell.wake(),
            },
            // Whoever came before has rung, and all are taken together.
            Ok(false) => {}
        }
    }

    /// Whether it is the first since the driver looked. Hands back what there is no room for; what has
    /// ended is answered under way.
    fn try_push(&self, request: Request) -> Result<bool, Request> {
        let mut state = self.state();
        if let Some(end) = &state.end {
            request.end(end);
            return Ok(false);
        }
        if state.is_gone || state.abandoned && !matches!(request, Request::Ended(_)) {
            return Ok(false);
        }
        let bytes = request.bytes();
        if bytes > 0 && state.bytes > 0 && state.bytes + bytes > self.bytes_max {
            return Err(request);
        }
        let is_first = state.requests.is_empty();
        state.bytes += bytes;
        state.traffic.count(&request);
        state.requests.push(request);
        Ok(is_first)
    }

    pub(crate) fn has_ended(&self) -> bool {
        let state = self.state();
        state.end.is_some() || state.abandoned
    }

    pub(crate) fn traffic(&self) -> Traffic {
        self.state().traffic
    }

    /// Moves everything into `taken`, which is empty; wakes `waker` at the next push. For the driver of
    /// this one alone.
    pub(crate) fn poll(&self, waker: &Waker, taken: &mut Vec<Request>) {
        self.bell.listen(waker);
        self.take(taken);
    }

    /// Moves everything into `taken`, which is empty; the next push rings.
    pub(crate) fn take(&self, taken: &mut Vec<Request>) {
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

    /// The driver goes and nobody knows how it ends: replies are dropped, but for those to whoever waits
    /// for the end.
    pub(crate) fn abandon(&self) {
        let is_late = |request: &mut Request| !matches!(request, Request::Ended(_));
        let late: Vec<_> = {
            let mut state = self.state();
            state.abandoned = true;
            state.requests.extract_if(.., is_late).collect()
        };
        // Whoever hears of it may ask again at once.
        drop(late);
    }

    /// What the driver held is let go of: another may start. To be said behind [`abandon`](Self::abandon).
    pub(crate) fn let_go(&self) {
        let late = {
            let mut state = self.state();
            state.is_gone = true;
            std::mem::take(&mut state.requests)
        };
        drop(late);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the inbox")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::Context;

    /// Counts how often it woke somebody.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn push(inbox: &Inbox) {
        inbox.push(Request::Stop { hand_over: false });
    }

    #[test]
    fn the_first_request_rings_and_those_behind_it_are_taken_with_it() {
        let bell = Arc::new(Bell::default());
        let [one, two, three] =
            [1, 2, 3].map(|group| Inbox::at(Arc::clone(&bell), GroupId(group), 100));
        let (woken, mut rang, mut taken) = (Arc::new(Woken::default()), Vec::new(), Vec::new());
        let waker = Waker::from(Arc::clone(&woken));
        bell.take(&waker, &mut rang);
        [&three, &two, &three].into_iter().for_each(push);
        assert_eq!(woken.0.load(Relaxed), 1, "a waker wakes once");
        bell.take(&waker, &mut rang);
        assert_eq!(rang, [GroupId(3), GroupId(2)]);
        rang.clear();
        // Nobody has looked into that of the third yet.
        push(&three);
        bell.take(&waker, &mut rang);
        assert_eq!((&*rang, woken.0.load(Relaxed)), (&[][..], 1));
        three.take(&mut taken);
        assert_eq!(taken.len(), 3);
        [&three, &one].into_iter().for_each(push);
        bell.take(&waker, &mut rang);
        assert_eq!((&*rang, woken.0.load(Relaxed)), (&[GroupId(3), GroupId(1)][..], 2));
    }

    /// Asks again as soon as it is woken, as whoever goes on at once would.
    struct Again(Arc<Inbox>);

    impl std::task::Wake for Again {
        fn wake(self: Arc<Self>) {
            push(&self.0);
        }
    }

    /// Waited for ever for the lock under which it was told.
    #[test]
    fn who_is_told_that_the_driver_goes_may_ask_again_at_once() {
        let inbox = Arc::new(Inbox::new(100));
        let waker = Waker::from(Arc::new(Again(Arc::clone(&inbox))));
        let (reply, mut status) = oneshot::channel();
        inbox.push(Request::Status(reply));
        let (reply, mut ended) = oneshot::channel();
        inbox.push(Request::Ended(reply));
        let cx = &mut Context::from_waker(&waker);
        assert!(status.poll_unpin(cx).is_pending() && ended.poll_unpin(cx).is_pending());
        inbox.abandon();
        assert!(status.poll_unpin(cx).is_ready() && ended.poll_unpin(cx).is_pending());
        inbox.let_go();
        assert!(ended.poll_unpin(cx).is_ready());
    }

    /// A query of one byte took hundreds, and was reckoned as five.
    #[test]
    fn requests_without_bytes_need_room_as_well() {
        let inbox = Inbox::new(1 << 20);
        let mut taken = Vec::new();
        let busy = || {
            let (reply, mut receiver) = oneshot::channel();
            let (queries, waiter) = (Batch::one(b"?"), Waiter::All(reply));
            inbox.push(Request::Read { queries, mode: ReadMode::Linearizable, waiter });
            matches!(receiver.try_recv(), Ok(Some(Err(Failure::Refused(Refusal::Busy)))))
        };
        let pushed = (0..100_000).take_while(|_| !busy()).count();
        assert!((100..=(1 << 20) / 256).contains(&pushed), "{pushed} queries wait");
        inbox.take(&mut taken);
        assert!(!busy(), "there is room again");
    }

    fn read(queries: Batch) -> (Request, oneshot::Receiver<Result<Answers, Failure>>) {
        let (reply, receiver) = oneshot::channel();
        let (waiter, mode) = (Waiter::All(reply), ReadMode::Linearizable);
        (Request::Read { queries, mode, waiter }, receiver)
    }

    #[test]
    fn what_was_refused_is_no_traffic() {
        let inbox = Inbox::new(0);
        for _ in 0..3 {
            inbox.push(read(Batch::one(b"?")).0);
        }
        assert_eq!(inbox.traffic(), Traffic { queries: 1, ..Traffic::default() });
    }

    /// Nobody could ever ask for it.
    #[test]
    fn one_that_is_larger_than_the_inbox_has_it_to_itself() {
        let inbox = Inbox::new(100);
        for refused in [None, Some(Failure::Refused(Refusal::Busy))] {
            let (request, mut receiver) = read(Batch::one(&[0; 1000]));
            inbox.push(request);
            let told = receiver.try_recv().expect("its sender is kept, or was used");
            assert_eq!(told.map(Result::unwrap_err), refused);
        }
        let mut taken = Vec::new();
        inbox.take(&mut taken);
        assert_eq!(taken.len(), 1);
    }

    /// The ids of its requests would run into those of the next batch.
    #[test]
    fn a_batch_of_more_than_ids_can_tell_apart_is_refused() {
        let inbox = Inbox::new(usize::MAX);
        let mut queries = Batch::default();
        (0..=BATCH_COUNT_MAX).for_each(|_| queries.push(b""));
        let (request, mut receiver) = read(queries);
        inbox.push(request);
        let told = receiver.try_recv().unwrap().map(Result::unwrap_err);
        assert_eq!(told, Some(Failure::Refused(Refusal::TooLarge)));
    }

    #[test]
    fn one_that_has_a_driver_to_itself_wakes_it_and_rings_nowhere() {
        let (woken, inbox) = (Arc::new(Woken::default()), Inbox::new(100));
        let (waker, mut taken) = (Waker::from(Arc::clone(&woken)), Vec::new());
        for turn in 1..=3 {
            inbox.poll(&waker, &mut taken);
            assert_eq!(taken.len(), usize::from(turn > 1));
            taken.clear();
            push(&inbox);
            assert_eq!(woken.0.load(Relaxed), turn);
        }
        assert_eq!(inbox.bell.take(&waker, &mut Vec::new()), 0);
    }
}
