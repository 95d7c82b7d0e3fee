//! The loop of a node with many groups: as that of one, with a host in the engine's place.
//!
//! A round gives all machines together two milliseconds, and one of them one, before disk, network and
//! clients are looked at again; those without a turn have theirs in the next. What was begun is ended,
//! though: a step may be all the commands of an entry, or of several, and as long as it takes nothing else
//! happens, unless machines work on [threads](super::machines). Invariant: a panic in one group's engine or
//! machine, or while its machine is made or let go, is caught where that group was called, and ends that group
//! alone.

use super::{
    Birth, Shared,
    machines::{Done, Home, Threads},
};
use crate::{
    audience::Audience,
    clients::Table,
    clock::{SystemClock, Telling},
    disk::pool::Pool,
    driver::{Clock, Net},
    guarded::{Guarded, text_of},
    health::{Health, Writes},
    inbox::{End, Inbox, Request},
    net::{Counters, TcpNet},
    node::StartError,
    trace::Reporter,
};
use lakebed::{
    Action, ClusterId, Config, Engine, Event, GroupId, Halt, Host, HostAction, HostConfig,
    HostEvent, Machine, Refusal, StateMachine, Status,
};
use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::Future,
    io,
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

/// How long one group's machine may work before the next has its turn, and all of them before anything else
/// has: with a hundred that work their fill no beat would leave in time, and peers would take the node for
/// dead. Each ends the step that it is at.
const MACHINE_TURN_MAX: Duration = Duration::from_millis(1);
const MACHINES_TURN_MAX: Duration = Duration::from_millis(2);
/// The most turns before others on this thread have theirs.
const TURNS_MAX: u32 = 4;

/// What the loop keeps for a group.
struct Seat<M> {
    inbox: Arc<Inbox>,
    clients: Table,
    /// `None`: it is on a thread, or has panicked there, or while it was made.
    runner: Option<Guarded<M>>,
    is_away: bool,
    lane: VecDeque<Machine>,
    audience: Audience,
    reporter: Reporter,
    /// Disk operations that have not ended.
    in_flight: usize,
    writes: Writes,
    halt: Option<Arc<Halt>>,
    /// How it was when it panicked.
    last: Option<Status>,
}

impl<M> Seat<M> {
    /// Whether its engine or its machine panicked: all clients were told the end then.
    fn is_given_up(&self) -> bool {
        matches!(self.halt.as_deref(), Some(Halt::Panicked(_)))
    }
}

type Machines<M> = Box<dyn FnMut(GroupId) -> M + Send>;

pub(super) struct Inner<M> {
    config: Config,
    host: Host,
    seats: BTreeMap<GroupId, Seat<M>>,
    /// Whose inboxes hold something, whose lanes do, and who has halted: a round looks at no other, so
    /// that a thousand groups at rest cost it nothing.
    rang: Vec<GroupId>,
    busy: BTreeSet<GroupId>,
    /// Whose machine had the last turn: the one behind it has the next.
    served: GroupId,
    halted: BTreeSet<GroupId>,
    pub(super) pool: Pool,
    net: TcpNet,
    health: Arc<Health>,
    clock: SystemClock,
    telling: Telling,
    machine: Machines<M>,
    threads: Option<Threads<M>>,
    shared: Arc<Shared>,
    events: Vec<HostEvent>,
    actions: Vec<HostAction>,
    /// Kept for their room.
    heard: Vec<Event>,
    requests: Vec<Request>,
}

/// A node with many groups: a future that drives it, until all groups have ended after
/// [`Groups::shutdown`](super::Groups). Dropped before that, it leaves whoever waits with an unknown
/// outcome.
pub struct GroupsNode<M> {
    pub(super) inner: Inner<M>,
}

impl<M> GroupsNode<M> {
    pub(super) const fn of(inner: Inner<M>) -> Self {
        Self { inner }
    }
}

impl<M: StateMachine> GroupsNode<M> {
    /// What happened on its network, as long as it lives and after.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        self.inner.net.counters()
    }

    /// How its disk does, all groups together, as long as it lives and after.
    #[must_use]
    pub fn health(&self) -> Arc<Health> {
        Arc::clone(&self.inner.health)
    }
}

/// Nothing in it is pinned.
impl<M> Unpin for GroupsNode<M> {}

impl<M: StateMachine> Future for GroupsNode<M> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let inner = &mut self.inner;
        let mut turns = 0;
        while inner.turn(cx) {
            turns += 1;
            // Sockets are looked at between two polls: none is put off for machines twice.
            if turns == TURNS_MAX || inner.has_more_to_do() {
                cx.waker().wake_by_ref();
                break;
            }
        }
        inner.poll_ended()
    }
}

impl<M> Drop for Inner<M> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.has_ended = true;
        let births = std::mem::take(&mut state.births);
        drop(state);
        // Nobody who wants an answer waits for a disk that may hang.
        for seat in self.seats.values_mut() {
            seat.clients.end_all();
            seat.inbox.abandon();
            seat.runner = None;
        }
        // Whoever learns of the end may start anew: the address must be free by then, and the directories
        // unlocked.
        self.net.stop_listening();
        for Birth { inbox, directory, .. } in births {
            inbox.abandon();
            drop(directory);
            inbox.let_go();
        }
        self.threads = None;
        self.pool.close();
        self.seats.values().for_each(|seat| seat.inbox.let_go());
    }
}

impl<M: StateMachine + Send + 'static> Inner<M> {
    pub(super) fn new(
        config: Config,
        cluster: ClusterId,
        (net, health): (TcpNet, Arc<Health>),
        (machine, threads): (Machines<M>, usize),
        shared: Arc<Shared>,
    ) -> Result<Self, StartError> {
        let host = Host::new(HostConfig {
            cluster,
            node: config.node,
            life: entropy()?,
            heartbeat: config.tuning.heartbeat,
            silence_max: config.tuning.election.0,
        });
        let threads = (threads > 0).then(|| Threads::new(threads)).transpose();
        Ok(Self {
            host: host.map_err(|error| StartError::System(io::Error::other(error)))?,
            config,
            seats: BTreeMap::new(),
            rang: Vec::new(),
            busy: BTreeSet::new(),
            served: GroupId(0),
            halted: BTreeSet::new(),
            pool: Pool::new().map_err(StartError::Disk)?,
            net,
            health,
            clock: SystemClock::default(),
            telling: Telling::default(),
            machine,
            threads: threads.map_err(StartError::System)?,
            shared,
            events: Vec::new(),
            actions: Vec::new(),
            heard: Vec::new(),
            requests: Vec::new(),
        })
    }
}

impl<M: StateMachine> Inner<M> {
    /// One round: true if there was something to do, and so may be again.
    fn turn(&mut self, cx: &mut Context<'_>) -> bool {
        self.gather(cx);
        let due = self.clock.poll_deadline(cx, self.host.deadline()).is_ready();
        let happened = due || !self.events.is_empty();
        if happened {
            self.handle();
            self.perform();
        }
        let ended = self.end_groups();
        happened | ended | self.run_machines()
    }

    /// What happened since. A group's start comes before all that may be meant for it.
    fn gather(&mut self, cx: &mut Context<'_>) {
        for (group, op, result) in self.pool.take(cx.waker()) {
            if let Some(seat) = self.seats.get_mut(&group) {
                seat.in_flight -= 1;
                seat.writes.on_completed(op);
                self.events.push(HostEvent::Group(group, Event::Completed { op, result }));
            }
        }
        self.take_home(cx);
        self.take_births(cx);
        self.net.poll_events(cx, &mut self.heard);
        let heard = self.heard.drain(..).filter_map(|event| match event {
            Event::Received { from, bytes } => Some(HostEvent::Received { from, bytes }),
            Event::Link { peer, up } => Some(HostEvent::Link { peer, up }),
            _ => None,
        });
        self.events.extend(heard);
        self.take_requests();
    }

    /// Tells the groups what happened. One whose engine panics ends; the others still hear it.
    fn handle(&mut self) {
        let now = self.clock.now();
        self.events.extend(self.telling.due(&self.clock, now).map(HostEvent::Time));
        loop {
            let (host, events, actions) = (&mut self.host, &mut self.events, &mut self.actions);
            let handle = || host.handle(now, events.drain(..), actions);
            // A host that was left by a panic is whole but for the group that it names.
            let Err(panic) = catch_unwind(AssertUnwindSafe(handle)) else { return };
            let Some(group) = self.host.interrupted() else { resume_unwind(panic) };
            self.give_up(group, &*panic);
        }
    }

    /// Machines that have done their turn on a thread.
    fn take_home(&mut self, cx: &Context<'_>) {
        let Some(threads) = &self.threads else { return };
        for Home { group, came } in threads.take(cx.waker()) {
            let Some(seat) = self.seats.get_mut(&group) else { continue };
            seat.is_away = false;
            match came {
                Ok(Done { runner, events, notebook }) => {
                    seat.runner = Some(runner);
                    if !seat.is_given_up() {
                        notebook.read_out(&mut seat.clients);
                    }
                    self.events.extend(events.into_iter().map(|e| HostEvent::Group(group, e)));
                }
                Err(panic) => self.give_up(group, &*panic),
            }
        }
    }

    /// Ends a group of which nothing is believed any more. What its disk was told ends first. A machine that
    /// panics on a thread while that is awaited changes nothing.
    fn give_up(&mut self, group: GroupId, panic: &(dyn Any + Send)) {
        if self.seats.get(&group).is_some_and(Seat::is_given_up) {
            return;
        }
        let halt = Halt::Panicked(text_of(panic).to_string());
        // An engine that panicked may do so again when it is asked.
        let status = catch_unwind(AssertUnwindSafe(|| self.host.status(group)));
        drop(self.host.remove(group));
        let Some(seat) = self.seats.get_mut(&group) else { return };
        let mut status = status.ok().flatten().unwrap_or_default();
        status.ready = false;
        seat.last = Some(status);
        seat.lane.clear();
        seat.clients.end_all();
        seat.reporter.halt(&halt);
        seat.halt = Some(Arc::new(halt));
        self.halted.insert(group);
    }

    fn take_births(&mut self, cx: &Context<'_>) {
        // First: nobody has the handle of a group before it is to begin, so whoever rang has a seat behind
        // this. One without a seat would not be looked at, and does not ring again.
        self.shared.bell.take(cx.waker(), &mut self.rang);
        let births = std::mem::take(&mut self.shared.state().births);
        for Birth { group, directory, start, inbox } in births {
            let config = Config { group, ..self.config.clone() };
            let engine = entropy()
                .and_then(|seed| Engine::new(config.clone(), seed).map_err(StartError::Config));
            let created = engine.map(|engine| self.host.create(group, engine));
            if !matches!(created, Ok(Ok(()))) {
                // Without entropy nothing begins; whoever has a handle learns that nobody is there.
                self.shared.state().inboxes.remove(&group);
                inbox.abandon();
                drop(directory);
                inbox.let_go();
                continue;
            }
            self.pool.add(group, directory);
            self.events.push(HostEvent::Group(group, Event::Start(start)));
            let made = catch_unwind(AssertUnwindSafe(|| Guarded::new((self.machine)(group))));
            let (runner, panic) = match made {
                Ok(runner) => (Some(runner), None),
                Err(panic) => (None, Some(panic)),
            };
            let seat = Seat {
                inbox,
                clients: Table::default(),
                runner,
                is_away: false,
                lane: VecDeque::new(),
                audience: Audience::default(),
                reporter: Reporter::of(&config),
                in_flight: 0,
                writes: Writes::told_to(Arc::clone(&self.health)),
                halt: None,
                last: None,
            };
            self.seats.insert(group, seat);
            self.net.share(self.seats.len());
            if let Some(panic) = panic {
                self.give_up(group, &*panic);
            }
        }
    }

    fn take_requests(&mut self) {
        let mut requests = std::mem::take(&mut self.requests);
        self.rang.sort_unstable();
        for group in self.rang.drain(..) {
            let Some(seat) = self.seats.get_mut(&group) else { continue };
            seat.inbox.take(&mut requests);
            for request in requests.drain(..) {
                let last = &seat.last;
                let status =
                    || last.clone().or_else(|| self.host.status(group)).unwrap_or_default();
                // Its disk may take long to end its last operation.
                if seat.halt.is_some() && !matches!(request, Request::Status(_) | Request::Ended(_))
                {
                    request.refuse(Refusal::Stopping);
                    continue;
                }
                let event = match request {
                    Request::Propose { batch, waiter } => {
                        let first = seat.clients.commands(batch.count(), waiter).first;
                        Event::Propose { first, time: self.clock.time(), batch }
                    }
                    Request::Read { queries, mode, waiter } => {
                        match seat.clients.queries(queries, waiter) {
                            Some(requests) => Event::Read { requests, mode },
                            None => continue,
                        }
                    }
                    Request::Control { control, reply } => {
                        Event::Control { id: seat.clients.order(reply), control }
                    }
                    Request::Tune(tuning) => {
                        self.net.tune(&tuning);
                        Event::Tune(tuning)
                    }
                    Request::Stop { hand_over } => Event::Stop { hand_over },
                    Request::Status(reply) => {
                        drop(reply.send(Ok(status())));
                        continue;
                    }
                    Request::Subscribe(notes) => {
                        seat.audience.subscribe(notes);
                        continue;
                    }
                    Request::Ended(reply) => {
                        seat.audience.await_end(reply);
                        continue;
                    }
                };
                self.events.push(HostEvent::Group(group, event));
            }
        }
        self.requests = requests;
    }

    fn perform(&mut self) {
        for action in self.actions.drain(..) {
            let (group, action) = match action {
                HostAction::Group(group, action) => (group, action),
                HostAction::Beat { to, bytes } => {
                    self.net.send(to, bytes, bytes::Bytes::new());
                    continue;
                }
                HostAction::Connect(members) => {
                    // A group that has halted may leave nodes behind with which no other has to do: what
                    // it said to them last still waits, and goes with the connection.
                    self.net.flush();
                    self.net.connect(&members);
                    continue;
                }
            };
            let Some(seat) = self.seats.get_mut(&group) else { continue };
            match action {
                Action::Disk { op, class, request } => {
                    seat.in_flight += 1;
                    seat.writes.on_submitted(op, class, &request);
                    self.pool.submit(group, op, class, request);
                }
                Action::Send { to, head, body } => self.net.send(to, head, body),
                // What it decided before that is nobody's any more.
                Action::Machine(_) | Action::Respond { .. } if seat.is_given_up() => {}
                Action::Machine(step) => {
                    seat.lane.push_back(step);
                    self.busy.insert(group);
                }
                Action::Respond { requests, outcome } => seat.clients.end(requests, &outcome),
                // The host has told whom to be connected with.
                Action::Members(_) => {}
                Action::Note(note) => {
                    seat.reporter.note(&note);
                    seat.audience.tell(&note);
                }
                Action::Halt(halt) => {
                    seat.reporter.halt(&halt);
                    seat.halt = Some(Arc::from(halt));
                    self.halted.insert(group);
                }
            }
        }
        self.pool.flush();
        self.net.flush();
    }

    /// Groups that have halted, whose disk operations have ended and whose machines are at home, are
    /// let go.
    fn end_groups(&mut self) -> bool {
        let over = |seat: &Seat<M>| seat.in_flight == 0 && !seat.is_away;
        let is_over = |group: &&GroupId| self.seats.get(*group).is_some_and(over);
        let ended: Vec<GroupId> = self.halted.iter().filter(is_over).copied().collect();
        for group in &ended {
            self.halted.remove(group);
            let Some(mut seat) = self.seats.remove(group) else { continue };
            let status = seat.last.take().or_else(|| self.host.status(*group));
            let status = status.unwrap_or_default();
            self.net.share(self.seats.len());
            // One that panicked is gone already.
            drop(self.host.remove(*group));
            seat.clients.end_all();
            // Whoever learns of the end may start anew: the machine must be gone, and the directory unlocked,
            // by then.
            seat.runner = None;
            self.pool.forget(*group);
            self.shared.state().inboxes.remove(group);
            seat.audience.waiting().for_each(|request| seat.inbox.push(request));
            if let Some(halt) = seat.halt {
                seat.inbox.close(End { halt, status });
            }
        }
        !ended.is_empty()
    }

    /// Whether machines on this thread have used up their time.
    fn has_more_to_do(&self) -> bool {
        self.threads.is_none() && !self.busy.is_empty()
    }

    /// True if there was a step to do.
    fn run_machines(&mut self) -> bool {
        if self.busy.is_empty() {
            return false;
        }
        let (mut worked, mut panicked) = (false, Vec::new());
        let mut busy = std::mem::take(&mut self.busy);
        let mut now = self.clock.now();
        let round_ends = now.after(MACHINES_TURN_MAX);
        let served = self.served;
        let behind = busy.range((Bound::Excluded(served), Bound::Unbounded));
        for group in behind.chain(busy.range(..=served)) {
            if now >= round_ends {
                break;
            }
            let Some(seat) = self.seats.get_mut(group) else { continue };
            if seat.lane.is_empty() {
                continue;
            }
            if let Some(threads) = &self.threads {
                if let Some(runner) = seat.runner.take() {
                    let lane = std::mem::take(&mut seat.lane);
                    threads.send(*group, runner, lane, &mut seat.clients);
                    seat.is_away = true;
                }
                continue;
            }
            let Some(runner) = &mut seat.runner else { continue };
            worked = true;
            self.served = *group;
            let (clock, events) = (&self.clock, &mut self.events);
            let until = now.after(MACHINE_TURN_MAX).min(round_ends);
            let work = || {
                while now < until
                    && let Some(step) = seat.lane.pop_front()
                {
                    let event = runner.perform(step, &mut seat.clients);
                    events.extend(event.map(|event| HostEvent::Group(*group, event)));
                    now = clock.now();
                }
            };
            // Nothing is asked of a machine that panicked, and its clients are only told the end.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
                panicked.push((*group, panic));
                now = self.clock.now();
            }
        }
        panicked.into_iter().for_each(|(group, panic)| self.give_up(group, &*panic));
        let has_more = |group: &GroupId| self.seats.get(group).is_some_and(|s| !s.lane.is_empty());
        busy.retain(has_more);
        self.busy = busy;
        worked
    }

    fn poll_ended(&self) -> Poll<()> {
        let state = self.shared.state();
        let is_over = state.is_stopping && self.seats.is_empty() && state.births.is_empty();
        if is_over { Poll::Ready(()) } else { Poll::Pending }
    }
}

fn entropy() -> Result<u64, StartError> {
    getrandom::u64().map_err(|error| StartError::System(io::Error::other(error)))
}

#[cfg(test)]
mod begins;
#[cfg(test)]
mod ends;
#[cfg(test)]
mod turns;

#[cfg(test)]
mod tests;
