//! Many groups on a few nodes: each node is a host, each group has a disk, a machine and an oracle
//! of its own on each of its members, and all share the network, the clocks and the power.
//!
//! The plan is that of a storm: its network, disks, clocks and faults. What strikes a disk there
//! strikes the disk of one group here, but for one that is full, as all groups of a node share its
//! room; what strikes a node strikes all groups on it. Faults that no plan within the budget has are
//! let go. Knows no scenario. Invariant: a group is judged by the ordinary
//! oracle, which never hears of another.

mod changes;
mod clients;
mod damage;
mod faults;
mod lives;
mod looks;
mod seats;
pub mod storm;

use crate::{
    changes::Changes,
    client::{Requests, Workload},
    harm::Harmed,
    network::{Fate, Network},
    node::{Clock, Telling, is_sync},
    oracle::{Checked, Oracle, Seen, Violation},
    plan::{self, MS, Plan, US},
    prng::{Concern, Stream},
    trace::{self, Trace},
    world::{Acknowledged, Age, Armed, Hearsay, Stats},
};
use bytes::{Bytes, BytesMut};
use clients::Client;
use lakebed::{
    Action, ClusterId, DiskRequest, Event, GroupId, Host, HostAction, HostCounters, HostEvent,
    Instant, LogIndex, Marks, Membership, NodeId, OpId, StateMachine, host::is_beat, tape::Digest,
};
use seats::Seat;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

const CLUSTER: ClusterId = ClusterId(0x1a4e_bed0);

/// Sites of draws.
const SITE_ELECTION: u32 = 0;
const SITE_LIFE: u32 = 1;
const SITE_CLOCK: u32 = 0;
const SITE_READ: u32 = 1;
const SITE_WRITE: u32 = 2;
const SITE_SYNC: u32 = 3;
const SITE_CRASH: u32 = 4;
const SITE_PARTLY: u32 = 5;
const SITE_MACHINE: u32 = 1;
const SITE_RESTART: u32 = 2;
const SITE_ARRIVE: u32 = 3;
const SITE_BUSY: u32 = 4;
const SITE_CLIENT: u32 = 1;
const SITE_OPERATION: u32 = 2;
const SITE_GROUP: u32 = 3;
const SITE_VICTIM: u32 = 4;
const SITE_COHORT: u32 = 5;
const SITE_SERVICE: u32 = 6;

/// How many groups a run has, and how many come and go while it does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Census {
    /// From the beginning.
    pub groups: u64,
    /// Created later, and removed later.
    pub comings: u64,
    /// Where they are.
    pub spread: Spread,
}

/// Which nodes are members of a group from the beginning, but for those that wait to join.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spread {
    /// All.
    Everywhere,
    /// Three of them.
    Three,
    /// Three of them, if it is to be removed; else the first three, or all others: when what was to be
    /// removed is, those have nothing to do with each other.
    Apart,
}

impl Census {
    /// Which group is the `turn`th to be removed: one that was there, or one that came.
    const fn goes(&self, turn: u64) -> GroupId {
        GroupId(if turn.is_multiple_of(2) { turn / 2 + 1 } else { self.groups + turn + 1 })
    }

    fn is_to_go(&self, group: GroupId) -> bool {
        (0..self.comings).any(|turn| self.goes(turn) == group)
    }
}

/// Something to come.
#[derive(Clone, Debug)]
enum Coming {
    Deliver {
        from: usize,
        to: usize,
        life: u32,
        age: Age,
        bytes: Bytes,
    },
    Completion {
        node: usize,
        group: GroupId,
        life: u32,
        op: OpId,
    },
    MachineStep {
        node: usize,
        group: GroupId,
        life: u32,
    },
    Wake {
        node: usize,
        life: u32,
    },
    /// Something that a process was told while it stood still.
    Late {
        node: usize,
        life: u32,
        event: Box<HostEvent>,
    },
    Start {
        node: usize,
        life: u32,
    },
    Seat {
        node: usize,
        group: GroupId,
        life: u32,
    },
    LinkUp {
        node: usize,
        peer: usize,
        lives: (u32, u32),
    },
    LinkDown {
        node: usize,
        peer: usize,
        number: u64,
    },
    Think {
        client: usize,
        round: u32,
    },
    Patience {
        client: usize,
        round: u32,
    },
    Create {
        group: GroupId,
    },
    Remove {
        group: GroupId,
    },
    Change {
        group: GroupId,
        number: u64,
        turn: u32,
    },
    ArmedCut {
        number: u64,
    },
}

impl Coming {
    /// The node whose process must run for it, in which life, if it must.
    const fn process(&self) -> Option<usize> {
        match self {
            Self::Deliver { to, .. } => Some(*to),
            Self::Completion { node, .. }
            | Self::MachineStep { node, .. }
            | Self::Wake { node, .. }
            | Self::Late { node, .. }
            | Self::Seat { node, .. }
            | Self::LinkUp { node, .. }
            | Self::LinkDown { node, .. } => Some(*node),
            _ => None,
        }
    }

    /// Whether it is an event for a host that waits with others for the host's turn.
    const fn waits_its_turn(&self) -> bool {
        matches!(
            self,
            Self::Deliver { .. }
                | Self::Completion { .. }
                | Self::MachineStep { .. }
                | Self::Late { .. }
        )
    }
}

/// One machine.
struct Node<M: StateMachine> {
    host: Option<Host>,
    /// Rises with every start.
    life: u32,
    clock: Clock,
    seats: BTreeMap<GroupId, Seat<M>>,
    /// When it will be woken next, and for which deadline.
    wake: u64,
    deadline: Option<Instant>,
    slowness: u64,
    /// Whether there is no more room for any of its groups.
    is_full: bool,
    paused_until: u64,
    /// How old the things are that it was told, of whatever group.
    heard: Hearsay,
    /// When its host is told the wall clock next.
    telling: Telling,
}

/// One group, as those know it who stand outside.
struct Group<M> {
    oracle: Oracle<M>,
    founders: Arc<Membership>,
    /// The founders were drawn from the first nodes, so many.
    drawn_from: usize,
    /// The nodes that have an engine of it, or will when they are up.
    hosts: BTreeSet<usize>,
    /// Membership changes that are wanted.
    changes: Changes,
    requests: Requests,
    /// Up to where writes and reads were answered, and when.
    told: Acknowledged<LogIndex>,
    /// Entries that were damaged, and where.
    harmed: Harmed,
    /// It was removed: nothing is owed to its clients any more.
    is_removed: bool,
}

/// A cluster of hosts in simulated time.
pub struct Groups<M: StateMachine, W> {
    plan: Plan,
    census: Census,
    now: u64,
    agenda: BTreeMap<(u64, u64), Coming>,
    agreed: u64,
    nodes: Vec<Node<M>>,
    groups: BTreeMap<GroupId, Group<M>>,
    /// The groups that took in the last node that was to join.
    cohort: Vec<GroupId>,
    network: Network,
    /// Power cuts that wait for their moment.
    armed: BTreeMap<u64, Armed>,
    disks: Stream,
    process: Stream,
    elections: Stream,
    draws: Stream,
    clients: Vec<Client>,
    workload: W,
    machine: fn() -> M,
    digest: Digest,
    stats: Stats,
    marks: Marks,
    /// Of hosts that are gone.
    counted: HostCounters,
    sent: Sent,
    trace: Option<Trace>,
    actions: Vec<HostAction>,
    touched: Option<usize>,
}

/// What hosts sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sent {
    /// Messages of engines.
    pub messages: u64,
    /// The hosts' own.
    pub beats: u64,
    /// Bytes of both.
    pub bytes: u64,
}

impl<M: StateMachine, W: Workload> Groups<M, W> {
    /// Hosts that start now, with groups on disks that hold nothing.
    pub fn new(plan: Plan, census: Census, machine: fn() -> M, workload: W) -> Self {
        let (seed, count) = (plan.seed, plan.nodes);
        let mut clock = Stream::new(seed, Concern::Clock);
        let mut node = |at: usize| {
            let offset = clock.lane(SITE_CLOCK, at as u32).below(1 << 40);
            Node {
                host: None,
                life: 0,
                clock: Clock::new(offset, plan.drift_ppm[at]),
                seats: BTreeMap::new(),
                wake: u64::MAX,
                deadline: None,
                slowness: 1,
                is_full: false,
                paused_until: 0,
                heard: Hearsay::default(),
                telling: Telling::default(),
            }
        };
        let mut groups = Self {
            census,
            now: 0,
            agenda: BTreeMap::new(),
            agreed: 0,
            nodes: (0..count).map(&mut node).collect(),
            groups: BTreeMap::new(),
            cohort: Vec::new(),
            network: Network::new(seed, count, plan.links),
            armed: BTreeMap::new(),
            disks: Stream::new(seed, Concern::Disk),
            process: Stream::new(seed, Concern::Process),
            elections: Stream::new(seed, Concern::Elections),
            draws: Stream::new(seed, Concern::Workload),
            clients: Vec::new(),
            workload,
            machine,
            digest: Digest::default(),
            stats: Stats::default(),
            marks: Marks::default(),
            counted: HostCounters::default(),
            sent: Sent::default(),
            trace: None,
            actions: Vec::new(),
            touched: None,
            plan,
        };
        groups.begin();
        groups
    }

    fn begin(&mut self) {
        for group in 1..=self.census.groups {
            self.found(GroupId(group));
        }
        for node in 0..self.nodes.len() {
            self.schedule(self.now, Coming::Start { node, life: 0 });
        }
        for client in 0..self.plan.clients.len() {
            self.clients.push(Client::default());
            self.schedule(US, Coming::Think { client, round: 0 });
        }
        let last = self.busy_until();
        for turn in 0..self.census.comings {
            let lane = self.process.lane(SITE_ARRIVE, turn as u32);
            let (comes, goes) = (lane.below(last), lane.below(last));
            let group = GroupId(self.census.groups + turn + 1);
            self.schedule(comes, Coming::Create { group });
            // One that was there, or one that came: later than it did, and before all is healed. Who
            // gives a group up wakes others.
            let gone = self.census.goes(turn);
            let goes = if turn % 2 == 0 { goes } else { comes + goes % (last - comes) };
            self.schedule(goes, Coming::Remove { group: gone });
        }
    }

    /// When the last group has come and gone: with the last fault, if there are any.
    pub(crate) fn busy_until(&self) -> u64 {
        self.plan.faults.iter().map(|fault| fault.at).max().unwrap_or(1_000 * MS).max(1)
    }

    /// Traces what happens from now on.
    pub(crate) fn trace(&mut self, print: bool, whole: bool) {
        self.trace = Some(if whole { Trace::whole() } else { Trace::new(print) });
    }

    pub(crate) fn last_lines(&self, node: Option<usize>, count: usize) -> Vec<String> {
        self.trace.as_ref().map_or_else(Vec::new, |trace| trace.last(node, count))
    }

    fn note(&mut self, node: Option<usize>, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.add(self.now, node, &line());
        }
    }

    /// A fault of this kind had its effect.
    fn struck(&mut self, kind: &str) {
        let number = plan::kind_names().position(|name| name == kind);
        self.stats.faults[number.expect("kinds have names")] += 1;
    }

    fn schedule(&mut self, at: u64, what: Coming) {
        self.agreed += 1;
        self.agenda.insert((at, self.agreed), what);
    }

    /// When the next thing happens.
    #[must_use]
    pub fn next_at(&self) -> u64 {
        self.agenda.first_key_value().map_or(u64::MAX, |((at, _), _)| *at)
    }

    /// Lets the next thing happen.
    pub fn step(&mut self) -> Checked {
        let Some(((at, _), what)) = self.agenda.pop_first() else {
            return Err(Violation::of_cluster("world", "nothing is left to happen".into()));
        };
        self.now = self.now.max(at);
        if matches!(what, Coming::Deliver { .. }) {
            self.take_time(&what);
        }
        if let Some(node) = what.process()
            && self.now < self.nodes[node].paused_until
        {
            // It lies in a socket or a queue until the process goes on.
            let resumes = self.nodes[node].paused_until;
            if let Coming::Wake { life, .. } = what
                && self.lives(node, life)
                && self.nodes[node].wake == self.now
            {
                self.nodes[node].wake = resumes;
            }
            self.schedule(resumes, what);
            return Ok(());
        }
        self.happen(what)
    }

    /// A process is busy with something else for a moment, now and then: what comes meanwhile is handed
    /// over together.
    fn take_time(&mut self, what: &Coming) {
        let Some(node) = what.process().filter(|node| self.nodes[*node].host.is_some()) else {
            return;
        };
        let draw = self.process.lane(SITE_BUSY, node as u32);
        if self.nodes[node].paused_until < self.now && draw.ratio(1, 16) {
            self.nodes[node].paused_until = self.now + draw.delay(US, 100 * US);
        }
    }

    /// What waited for its process, with all that waited beside it: one turn of a driver.
    fn turn(&mut self, node: usize, first: Coming) -> Checked {
        let mut events = Vec::from_iter(self.event_of(first)?);
        if self.nodes[node].paused_until == self.now {
            let now = self.agenda.range((self.now, 0)..=(self.now, u64::MAX));
            let waiting: Vec<_> = now
                .filter(|(_, what)| what.process() == Some(node))
                .filter(|(_, what)| !matches!(what, Coming::Wake { .. }))
                .take_while(|(_, what)| what.waits_its_turn())
                .map(|(at, _)| *at)
                .collect();
            for at in waiting {
                let what = self.agenda.remove(&at).expect("it was just seen");
                events.extend(self.event_of(what)?);
            }
        }
        self.judge_by_what_is_heard_now(node, &events);
        if events.is_empty() { Ok(()) } else { self.hand(node, events) }
    }

    /// What a host is to be told, if its process, or that part of it, is still the one it is for.
    fn event_of(&mut self, what: Coming) -> Result<Option<HostEvent>, Violation> {
        match what {
            Coming::Deliver { from, to, life, age, bytes } => {
                if self.network.is_cut(from, to) {
                    self.stats.messages_lost += 1;
                    return Ok(None);
                }
                self.nodes[to].heard.hear(&self.plan, self.now, age);
                self.stats.messages_stale += u64::from(life != self.nodes[from].life);
                Ok(Some(HostEvent::Received { from: node_id(from), bytes }))
            }
            Coming::Completion { node, group, life, op } => {
                Ok(self.complete(node, group, life, op))
            }
            Coming::MachineStep { node, group, life } => self.machine_step(node, group, life),
            Coming::Late { node, life, event } => Ok(self.lives(node, life).then_some(*event)),
            _ => Ok(None),
        }
    }

    fn happen(&mut self, what: Coming) -> Checked {
        match what {
            Coming::Deliver { to: node, .. }
            | Coming::Completion { node, .. }
            | Coming::MachineStep { node, .. }
            | Coming::Late { node, .. } => self.turn(node, what),
            Coming::Wake { node, life } if self.lives(node, life) => self.wake(node),
            Coming::Start { node, life } if self.nodes[node].life == life => self.start(node),
            Coming::Seat { node, group, life } if self.lives(node, life) => self.sit(node, group),
            Coming::LinkUp { node, peer, lives } => self.link_up(node, peer, lives),
            Coming::LinkDown { node, peer, number } => self.link_down(node, peer, number),
            Coming::Think { client, round } => self.thought(client, round),
            Coming::Patience { client, round } => self.out_of_patience(client, round),
            Coming::Create { group } => self.create(group),
            Coming::Remove { group } => self.remove(group),
            Coming::Change { group, number, turn } => self.ask_for_change(group, number, turn),
            Coming::ArmedCut { number } => {
                self.fall_late(number);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn lives(&self, node: usize, life: u32) -> bool {
        self.nodes[node].host.is_some() && self.nodes[node].life == life
    }

    /// Tells a host that is up something now, or as soon as its process goes on.
    fn feed<const N: usize>(&mut self, at: usize, events: [HostEvent; N]) -> Checked {
        let (resumes, life) = (self.nodes[at].paused_until, self.nodes[at].life);
        if resumes <= self.now || self.nodes[at].host.is_none() {
            return self.hand(at, events);
        }
        for event in events.map(Box::new) {
            self.schedule(resumes, Coming::Late { node: at, life, event });
        }
        Ok(())
    }

    /// Hands events to a host that is up, judges each group that it called, does what is asked for.
    fn hand(
        &mut self,
        at: usize,
        events: impl AsRef<[HostEvent]> + IntoIterator<Item = HostEvent>,
    ) -> Checked {
        let node = &mut self.nodes[at];
        let now = node.clock.local(self.now);
        let Some(host) = node.host.as_mut() else { return Ok(()) };
        self.touched = Some(at);
        self.stats.events += events.as_ref().len() as u64;
        for event in events.as_ref() {
            if let HostEvent::Group(group, event) = event
                && let Some(seat) = node.seats.get_mut(group)
            {
                seat.told.on_event(now, event);
            }
        }
        if let Some(trace) = &mut self.trace {
            events.as_ref().iter().for_each(|event| trace.add(self.now, Some(at), &told(event)));
        }
        self.digest.number(at as u64);
        self.digest.number(now.0);
        let mut actions = std::mem::take(&mut self.actions);
        let time = node.telling.is_due(now).then(|| HostEvent::Time(node.clock.wall(self.now)));
        host.handle(now, events.into_iter().chain(time), &mut actions);
        self.judge(at, &actions)?;
        for action in actions.drain(..) {
            self.perform(at, action)?;
        }
        self.actions = actions;
        self.wants_its_members(at)?;
        self.schedule_wake(at);
        self.strike_if_pending(at);
        Ok(())
    }

    /// Shows each group that was called to its oracle, with what it said.
    fn judge(&mut self, at: usize, actions: &[HostAction]) -> Checked {
        let Some(host) = &self.nodes[at].host else { return Ok(()) };
        let now = self.nodes[at].clock.local(self.now);
        let mut touched = host.touched().to_vec();
        touched.sort_unstable();
        touched.dedup();
        for id in touched {
            let Some(engine) = host.core(id) else { continue };
            let said: Vec<Action> = actions
                .iter()
                .filter_map(|action| match action {
                    HostAction::Group(of, action) if *of == id => Some(action.clone()),
                    _ => None,
                })
                .collect();
            self.digest.number(id.0);
            self.digest.step(now, &[], &said);
            let probe = engine.probe();
            let group = self.groups.get_mut(&id).expect("only what was founded is here");
            let seen = Seen { node: at, probe, engine, clock: None };
            let judged = group.oracle.on_step(seen, &said);
            let judged = judged.and_then(|()| group.oracle.on_memory(&seen, &self.plan));
            judged.map_err(|violation| of_group(id, violation))?;
            let Some(seat) = self.nodes[at].seats.get(&id) else { continue };
            seat.scars.excuse(at, &probe).map_err(|violation| of_group(id, violation))?;
            if probe.judged && self.groups[&id].oracle.is_to_be_tried(at) {
                self.try_power_cut(at, id).map_err(|violation| of_group(id, violation))?;
            }
        }
        Ok(())
    }

    fn perform(&mut self, at: usize, action: HostAction) -> Checked {
        match action {
            HostAction::Group(group, action) => {
                if self.trace.is_some() {
                    self.note(Some(at), || format!("group {group}: {}", trace::action(&action)));
                }
                self.perform_for(at, group, action)
            }
            HostAction::Beat { to, bytes } => {
                self.sent.beats += 1;
                self.send(at, to, bytes, &Bytes::new());
                Ok(())
            }
            HostAction::Connect(members) => {
                if self.trace.is_some() {
                    self.note(Some(at), || format!("< connect {members}"));
                }
                self.want(at, &members);
                Ok(())
            }
        }
    }

    fn perform_for(&mut self, at: usize, group: GroupId, action: Action) -> Checked {
        let node = &mut self.nodes[at];
        let now = node.clock.local(self.now);
        if let Some(seat) = node.seats.get_mut(&group) {
            let told = seat.told.on_action(now, &action);
            told.map_err(|what| {
                of_group(group, Violation::new("snapshots that fail are few", at, what))
            })?;
        }
        match action {
            Action::Disk { op, request, .. } => self.submit(at, group, op, request),
            Action::Send { to, head, body } => {
                self.sent.messages += 1;
                self.send(at, to, head, &body);
            }
            Action::Machine(step) => self.push_machine_step(at, group, step),
            Action::Respond { requests, outcome } => {
                return self.respond(at, group, requests, &outcome);
            }
            Action::Note(lakebed::Note::Snapshot(_)) => self.stats.snapshots += 1,
            Action::Note(lakebed::Note::Compacted(_)) => self.stats.compactions += 1,
            Action::Note(lakebed::Note::Role { leader: Some(_), .. }) => self.stats.elections += 1,
            // Of members the host has told.
            Action::Note(_) | Action::Members(_) => {}
            Action::Halt(halt) => return self.halted(at, group, &halt),
        }
        Ok(())
    }

    fn submit(&mut self, at: usize, group: GroupId, op: OpId, request: DiskRequest) {
        let times = self.plan.disk;
        let (site, latency) = if is_sync(&request) {
            (SITE_SYNC, times.sync)
        } else if matches!(request, DiskRequest::Write { .. }) {
            (SITE_WRITE, times.write)
        } else {
            (SITE_READ, times.read)
        };
        let delay = self.disks.lane(site, at as u32).delay(latency.least, latency.tail);
        let node = &mut self.nodes[at];
        let delay = delay * node.slowness;
        let Some(seat) = node.seats.get_mut(&group) else { return };
        let life = seat.life;
        seat.disk.submit(op, request);
        self.schedule(self.now + delay, Coming::Completion { node: at, group, life, op });
    }

    fn send(&mut self, from: usize, to: NodeId, head: Bytes, body: &Bytes) {
        let to = to.0 as usize - 1;
        if self.network.connection(from, to).is_none() {
            self.stats.messages_lost += 1;
            return;
        }
        let bytes = if body.is_empty() { head } else { joined(&head, body) };
        self.sent.bytes += bytes.len() as u64;
        match self.network.send(from, to, self.now, bytes.len()) {
            Fate::Arrives(at, again) => {
                let node = &self.nodes[from];
                let (life, age) = (node.life, node.heard.speaks(&self.plan, self.now));
                if let Some(again) = again {
                    let bytes = bytes.clone();
                    self.schedule(again, Coming::Deliver { from, to, life, age, bytes });
                }
                self.schedule(at, Coming::Deliver { from, to, life, age, bytes });
            }
            Fate::Lost { noticed } => {
                self.stats.messages_lost += 1;
                if noticed {
                    self.break_connection(from, to);
                }
            }
        }
    }

    fn wake(&mut self, at: usize) -> Checked {
        let node = &mut self.nodes[at];
        if self.now != node.wake {
            // An earlier one took its place, and has seen to the next.
            return Ok(());
        }
        (node.wake, node.deadline) = (u64::MAX, None);
        let local = node.clock.local(self.now);
        let deadline = node.host.as_ref().and_then(Host::deadline);
        if deadline.is_none_or(|deadline| deadline > local) {
            self.schedule_wake(at);
            return Ok(());
        }
        self.feed(at, [])?;
        let node = &self.nodes[at];
        let next = node.host.as_ref().and_then(Host::deadline);
        if next.is_some() && next <= deadline && node.clock.local(self.now) >= local {
            let what = format!("handled at its deadline {deadline:?}, the next one is {next:?}");
            return Err(Violation::new("deadlines move on", at, what));
        }
        Ok(())
    }

    fn schedule_wake(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some(deadline) = node.host.as_ref().and_then(Host::deadline) else { return };
        if node.deadline == Some(deadline) {
            return;
        }
        node.deadline = Some(deadline);
        let due = node.clock.global(deadline).max(self.now);
        if due < node.wake {
            node.wake = due;
            let life = node.life;
            self.schedule(due, Coming::Wake { node: at, life });
        }
    }
}

fn told(event: &HostEvent) -> String {
    match event {
        HostEvent::Group(group, event) => format!("group {group}: {}", trace::event(event)),
        HostEvent::Received { from, bytes } if is_beat(bytes) => format!("> from {from} beat"),
        HostEvent::Received { from, bytes } => {
            trace::event(&Event::Received { from: *from, bytes: bytes.clone() })
        }
        HostEvent::Link { peer, up } => trace::event(&Event::Link { peer: *peer, up: *up }),
        HostEvent::Time(time) => format!("> it is {time}"),
    }
}

/// Says in which group an invariant broke.
fn of_group(group: GroupId, violation: Violation) -> Violation {
    Violation { what: format!("group {group}: {}", violation.what), ..violation }
}

fn joined(head: &[u8], body: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(head.len() + body.len());
    bytes.extend_from_slice(head);
    bytes.extend_from_slice(body);
    bytes.freeze()
}

const fn node_id(at: usize) -> NodeId {
    NodeId(at as u64 + 1)
}
