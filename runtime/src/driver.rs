//! The loop: gathers what happened, lets the engine decide, performs what it asks.
//!
//! Knows disk, network and clock only as traits, and no runtime: it is a future that whoever polls
//! it drives. Invariant: a completed operation, a received message, a client's request is handed
//! to the engine once, and its actions are performed before the next is gathered.

use crate::{
    audience::Audience,
    clients::Table,
    clock::Telling,
    guarded::Guarded,
    handle::Handle,
    inbox::{End, Inbox, Request},
    trace::Reporter,
};
use bytes::Bytes;
use lakebed::{
    Action, Class, Config, Core, DiskRequest, Event, Halt, Instant, Machine, Membership, NodeId,
    OpId, Refusal, Start, StateMachine, Timestamp, Tuning,
};
use std::{
    collections::VecDeque,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

/// How long the machine may work before disk, network and clients are looked at again. It ends the step that
/// it is at: that may be all the commands of an entry, or of several, however long they take.
const MACHINE_TURN_MAX: Duration = Duration::from_millis(1);
/// The most turns before others on this thread have theirs. The last one mostly finds nothing to
/// do, which costs less than being woken for it.
const TURNS_MAX: u32 = 4;
/// The most bytes of commands and queries that wait for the driver's next turn.
const INBOX_BYTES_MAX: usize = 64 << 20;

/// Where bytes are kept.
pub trait Disk {
    /// Takes an operation. Later classes yield to earlier ones; it may wait for
    /// [`flush`](Self::flush) to begin.
    fn submit(&mut self, op: OpId, class: Class, request: DiskRequest);

    /// Begins everything that was submitted.
    fn flush(&mut self);

    /// Adds an [`Event::Completed`] for each operation that has ended, once each. Wakes the task
    /// when another ends, whatever it returns.
    fn poll_completed(&mut self, cx: &mut Context<'_>, events: &mut Vec<Event>);

    /// Whether every operation has ended; if not, `poll_completed` will tell.
    fn is_idle(&self) -> bool;
}

/// The way to the other nodes.
pub trait Net {
    /// Keeps connected with these, from now on, and with nobody else.
    fn connect(&mut self, members: &Membership);

    /// Takes one message: its two parts, to be received as one. It may wait for
    /// [`flush`](Self::flush), and may be lost, whole, with an [`Event::Link`].
    fn send(&mut self, to: NodeId, head: Bytes, body: Bytes);

    /// The node may send as much at one time as this says, from now on.
    fn tune(&mut self, _: &Tuning) {}

    /// Sends what was taken, as far as that is possible now.
    fn flush(&mut self);

    /// Adds an [`Event::Received`] for each message and an [`Event::Link`] for each change that
    /// happened. Wakes the task when there is more, whatever it returns.
    fn poll_events(&mut self, cx: &mut Context<'_>, events: &mut Vec<Event>);
}

/// Time.
pub trait Clock {
    /// The monotonic clock, suspended time included.
    fn now(&self) -> Instant;

    /// The wall clock.
    fn time(&self) -> Timestamp;

    /// Ready when `deadline` has come; else wakes the task when it has. `None` never comes.
    fn poll_deadline(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()>;
}

/// One node on its disk, network and clock. The network is dropped as soon as the engine has halted and the
/// last messages were flushed; as a future the driver ends when every disk operation has ended too, and the
/// disk is dropped. Dropped before that, it leaves whoever waits with an unknown outcome, and then waits for
/// the operations that its disk has begun.
pub struct Driver<E, D, N, C, M> {
    inbox: Arc<Inbox>,
    /// Until the end.
    inner: Option<Inner<E, D, N, C, M>>,
}

impl<E: Core, D: Disk, N: Net, C: Clock, M: StateMachine> Driver<E, D, N, C, M> {
    /// Around an engine that has seen no event yet; `config` names it in what is traced.
    pub fn new(
        engine: E,
        config: &Config,
        start: Start,
        machine: M,
        (disk, net, clock): (D, N, C),
    ) -> (Handle, Self) {
        let inbox = Arc::new(Inbox::new(INBOX_BYTES_MAX));
        let inner = Inner {
            reporter: Reporter::of(config),
            runner: Guarded::new(machine),
            inbox: Arc::clone(&inbox),
            clients: Table::default(),
            audience: Audience::default(),
            lane: VecDeque::new(),
            events: vec![Event::Start(start)],
            actions: Vec::new(),
            requests: Vec::new(),
            halt: None,
            engine,
            disk,
            net: Some(net),
            clock,
            telling: Telling::default(),
        };
        (Handle::new(Arc::clone(&inbox)), Self { inbox, inner: Some(inner) })
    }
}

impl<E: Core, D: Disk, N: Net, C: Clock, M: StateMachine> Future for Driver<E, D, N, C, M> {
    type Output = Arc<Halt>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Arc<Halt>> {
        let inner = self.inner.as_mut().expect("a driver is not polled after its end");
        let halt = ready!(inner.poll_halted(cx));
        let status = inner.engine.status();
        // Whoever learns of the end may start anew: the directory must be unlocked by then.
        let audience = self.inner.take().map(|inner| inner.audience).unwrap_or_default();
        audience.waiting().for_each(|request| self.inbox.push(request));
        self.inbox.close(End { halt: Arc::clone(&halt), status });
        Poll::Ready(halt)
    }
}

/// Nothing in it is pinned.
impl<E, D, N, C, M> Unpin for Driver<E, D, N, C, M> {}

impl<E, D, N, C, M> Drop for Driver<E, D, N, C, M> {
    fn drop(&mut self) {
        let Some(mut inner) = self.inner.take() else { return };
        // A disk may take long to end its last operation: nobody waits for that who wants an answer. Those who
        // wait for the end do, and are let go with the audience.
        inner.clients.end_all();
        self.inbox.abandon();
        drop(inner);
        self.inbox.let_go();
    }
}

struct Inner<E, D, N, C, M> {
    engine: E,
    runner: Guarded<M>,
    disk: D,
    /// Until the engine has halted.
    net: Option<N>,
    clock: C,
    telling: Telling,
    inbox: Arc<Inbox>,
    clients: Table,
    /// Behind the disk, also when all is dropped: whoever waits for the end hears of it when the directory is
    /// unlocked.
    audience: Audience,
    reporter: Reporter,
    /// The machine's steps that wait for their turn.
    lane: VecDeque<Machine>,
    /// What the engine is to be told next.
    events: Vec<Event>,
    /// Empty between turns; kept for their room.
    actions: Vec<Action>,
    requests: Vec<Request>,
    halt: Option<Arc<Halt>>,
}

impl<E: Core, D: Disk, N: Net, C: Clock, M: StateMachine> Inner<E, D, N, C, M> {
    /// A few turns at most, so that whatever else lives on this thread has its turn too: what
    /// clients ask meanwhile shares the next one. And one alone if the machine has used up its time: sockets
    /// are looked at between two polls.
    fn poll_halted(&mut self, cx: &mut Context<'_>) -> Poll<Arc<Halt>> {
        let mut turns = 0;
        while self.halt.is_none() && self.turn(cx) {
            turns += 1;
            if turns == TURNS_MAX || !self.lane.is_empty() {
                cx.waker().wake_by_ref();
                break;
            }
        }
        let Some(halt) = self.halt.clone() else { return Poll::Pending };
        // Peers would take the node for one that is there, for as long as its disk hangs.
        self.net = None;
        self.poll_drained(cx).map(|()| halt)
    }

    /// One round: true if there was something to do, and so may be again.
    fn turn(&mut self, cx: &mut Context<'_>) -> bool {
        self.disk.poll_completed(cx, &mut self.events);
        if let Some(net) = &mut self.net {
            net.poll_events(cx, &mut self.events);
        }
        self.take_requests(cx.waker());
        let due = self.clock.poll_deadline(cx, self.engine.deadline()).is_ready();
        let happened = due || !self.events.is_empty();
        if happened {
            let now = self.clock.now();
            // Behind the others: the first of them is the start.
            let time = self.telling.due(&self.clock, now).map(Event::time);
            self.engine.handle(now, self.events.drain(..).chain(time), &mut self.actions);
            self.perform();
        }
        happened | self.run_machine()
    }

    fn take_requests(&mut self, waker: &Waker) {
        let mut requests = mem::take(&mut self.requests);
        self.inbox.poll(waker, &mut requests);
        requests.drain(..).for_each(|request| self.accept(request));
        self.requests = requests;
    }

    /// A disk may take long to end its last operation: nobody waits for that who wants an answer.
    fn turn_away(&mut self, waker: &Waker) {
        let mut requests = mem::take(&mut self.requests);
        self.inbox.poll(waker, &mut requests);
        for request in requests.drain(..) {
            match request {
                Request::Status(reply) => drop(reply.send(Ok(self.engine.status()))),
                Request::Ended(reply) => self.audience.await_end(reply),
                other => other.refuse(Refusal::Stopping),
            }
        }
        self.requests = requests;
    }

    fn accept(&mut self, request: Request) {
        match request {
            Request::Propose { batch, waiter } => {
                let first = self.clients.commands(batch.count(), waiter).first;
                let time = self.clock.time();
                self.events.push(Event::Propose { first, time, batch });
            }
            Request::Read { queries, mode, waiter } => {
                let requests = self.clients.queries(queries, waiter);
                let events = requests.map(|requests| Event::Read { requests, mode });
                self.events.extend(events);
            }
            Request::Control { control, reply } => {
                let id = self.clients.order(reply);
                self.events.push(Event::Control { id, control });
            }
            Request::Tune(tuning) => {
                if let Some(net) = &mut self.net {
                    net.tune(&tuning);
                }
                self.events.push(Event::Tune(tuning));
            }
            Request::Status(reply) => drop(reply.send(Ok(self.engine.status()))),
            Request::Subscribe(notes) => self.audience.subscribe(notes),
            Request::Stop { hand_over } => self.events.push(Event::Stop { hand_over }),
            Request::Ended(reply) => self.audience.await_end(reply),
        }
    }

    /// Disk and peers first: what they do takes longest. The machine's steps wait for `lane`.
    fn perform(&mut self) {
        let net = self.net.as_mut().expect("its engine has not halted");
        for action in self.actions.drain(..) {
            match action {
                Action::Disk { op, class, request } => self.disk.submit(op, class, request),
                Action::Send { to, head, body } => net.send(to, head, body),
                Action::Machine(step) => self.lane.push_back(step),
                Action::Respond { requests, outcome } => self.clients.end(requests, &outcome),
                Action::Members(members) => net.connect(&members),
                Action::Note(note) => {
                    self.reporter.note(&note);
                    self.audience.tell(&note);
                }
                Action::Halt(halt) => {
                    self.reporter.halt(&halt);
                    self.halt = Some(Arc::from(halt));
                }
            }
        }
        self.disk.flush();
        net.flush();
    }

    /// True if there was a step to do.
    fn run_machine(&mut self) -> bool {
        let Some(first) = self.lane.pop_front() else { return false };
        let until = self.clock.now().after(MACHINE_TURN_MAX);
        let mut next = Some(first);
        while let Some(step) = next {
            self.events.extend(self.runner.perform(step, &mut self.clients));
            next = if self.clock.now() < until { self.lane.pop_front() } else { None };
        }
        true
    }

    /// After the engine's end: operations under way must end too before anybody starts anew.
    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.disk.poll_completed(cx, &mut self.events);
        self.events.clear();
        self.clients.end_all();
        self.turn_away(cx.waker());
        if self.disk.is_idle() { Poll::Ready(()) } else { Poll::Pending }
    }
}
