//! The world: simulated time, machines, disks, links and clients on one heap of things to come.
//!
//! Single-threaded; everything that happens is drawn from the seed, so a run is a value that can
//! be had again. Knows no plan: faults are methods, called by storms and stories alike.

mod backups;
mod changes;
mod coming;
mod damage;
mod falls;
mod faults;
mod forced;
mod halts;
mod hearsay;
mod lanes;
mod limits;
mod looks;
mod operations;
mod requests;
mod ruin;
mod sessions;
mod starts;
mod stats;
mod struck;
mod taking;
#[cfg(test)]
mod tests;

use crate::{
    agenda::Agenda,
    changes::Changes,
    client::{Client, Requests, Workload},
    harm::Harmed,
    network::{Fate, Network},
    node::Node,
    oracle::{Checked, Oracle, Seen, Violation},
    plan::{Plan, Times, US},
    prng::{Concern, Stream},
    seat::Seat,
    trace::{self, Print, Trace},
};
pub use backups::Taken;
pub(crate) use falls::Fall;
pub(crate) use faults::{ARMED_MAX, Armed};
pub(crate) use hearsay::{Acknowledged, Age, Hearsay};
pub use stats::{Stats, Struck};
pub(crate) use struck::Doomed;

use bytes::{Bytes, BytesMut};
use coming::Coming;
use lakebed::{
    Action, ClusterId, Engine, Event, GroupId, LogId, LogIndex, Marks, Member, Membership, NodeId,
    Note, Outcome, ReadMode, RequestId, StateMachine, entry::Seed, tape::Digest,
};
use limits::Limits;
use std::{collections::BTreeMap, sync::Arc};

const CLUSTER: ClusterId = ClusterId(0x1a4e_bed0);
const GROUP: GroupId = GroupId(1);

/// Sites of draws.
const SITE_ELECTION: u32 = 0;
const SITE_CLOCK: u32 = 0;
const SITE_READ: u32 = 1;
const SITE_WRITE: u32 = 2;
const SITE_SYNC: u32 = 3;
const SITE_CRASH: u32 = 4;
const SITE_PARTLY: u32 = 5;
const SITE_MACHINE: u32 = 1;
const SITE_RESTART: u32 = 2;
const SITE_CLIENT: u32 = 1;
const SITE_OPERATION: u32 = 2;
const SITE_SESSION: u32 = 3;
const SITE_SERVICE: u32 = 4;

/// A cluster in simulated time. A value: a clone shares the disks' pages, and goes its own way.
#[derive(Clone)]
pub struct World<M: StateMachine, W> {
    plan: Plan,
    /// The times of all nodes, as they are by now.
    times: Times,
    now: u64,
    agenda: Agenda<Coming>,
    nodes: Vec<Node<M>>,
    members: Arc<Membership>,
    cluster: ClusterId,
    /// What each node is made from; empty: all begin with nothing.
    made_from: Vec<Option<Arc<Taken>>>,
    /// How orders of stories ended.
    outcomes: BTreeMap<RequestId, Outcome>,
    network: Network,
    disks: Stream,
    process: Stream,
    elections: Stream,
    draws: Stream,
    clients: Vec<Client>,
    requests: Requests,
    /// Operations that clients with sessions have begun: the last one's number.
    operations: u64,
    /// When more was acknowledged than before, and how much. Only where reads are held to it.
    told: Acknowledged<LogIndex>,
    workload: W,
    machine: fn() -> M,
    oracle: Oracle<M>,
    /// Entries that were damaged, and where.
    harmed: Harmed,
    limits: Limits,
    armed: BTreeMap<u64, Armed>,
    /// Whether a node was ever to fall at a step of its disk.
    awaits_falls: bool,
    digest: Digest,
    stats: Stats,
    trace: Option<Trace>,
    actions: Vec<Action>,
    touched: Option<usize>,
    changes: Changes,
    /// Once everything was healed clients make every operation: how many each had come to then.
    healed: Option<Vec<u32>>,
    /// What was met by engines that are gone.
    marks: Marks,
    /// Who is to become the only voter by force.
    forcing: Option<usize>,
    /// What machines had when they were captured, while anybody takes backups.
    captures: BTreeMap<LogId, u64>,
}

impl<M: StateMachine, W: Workload> World<M, W> {
    /// A cluster whose nodes all start now, with disks that hold nothing.
    pub fn new(plan: Plan, machine: fn() -> M, workload: W) -> Self {
        let (seed, count) = (plan.seed, plan.nodes);
        let mut clock = Stream::new(seed, Concern::Clock);
        let seat = || Seat::new(machine(), plan.session_limits());
        let nodes = (0..count)
            .map(|at| Node::new(&plan, at, clock.lane(SITE_CLOCK, at as u32), seat()))
            .collect();
        let reference = seat();
        let members = Arc::new(Membership::of((0..count - plan.joining).map(member)));
        let mut world = Self {
            now: 0,
            agenda: Agenda::default(),
            nodes,
            members: Arc::clone(&members),
            cluster: CLUSTER,
            made_from: Vec::new(),
            outcomes: BTreeMap::new(),
            network: Network::new(seed, count, plan.links),
            disks: Stream::new(seed, Concern::Disk),
            process: Stream::new(seed, Concern::Process),
            elections: Stream::new(seed, Concern::Elections),
            draws: Stream::new(seed, Concern::Workload),
            clients: Vec::new(),
            requests: Requests::default(),
            operations: 0,
            told: Acknowledged::default(),
            workload,
            machine,
            oracle: Oracle::new(count, Seed::new(CLUSTER, GROUP), members, reference),
            harmed: Harmed::default(),
            limits: Limits::of(&plan),
            armed: BTreeMap::new(),
            awaits_falls: false,
            digest: Digest::default(),
            stats: Stats::default(),
            trace: None,
            actions: Vec::new(),
            touched: None,
            changes: Changes::default(),
            healed: None,
            marks: Marks::default(),
            forcing: None,
            captures: BTreeMap::new(),
            times: Times::PLANNED,
            plan,
        };
        world.oracle.hold_sessions_to(world.plan.session_limits());
        world.oracle.hold_to(&world.plan);
        world.begin();
        world
    }

    fn begin(&mut self) {
        for node in 0..self.nodes.len() {
            self.schedule_start(node, 0);
        }
        for client in 0..self.plan.clients.len() {
            let node = client % self.nodes.len();
            self.clients.push(Client::of(node));
            self.schedule(self.now + US, Coming::Think { client, round: 0 });
        }
    }

    /// Keeps what the machines are given: the oracle needs it to take away what a loss takes.
    pub fn keep_inputs(&mut self) {
        self.oracle.keep_inputs();
    }

    /// Traces what happens from now on; `print` is given each line as it happens.
    pub fn trace(&mut self, print: Option<Print>) {
        self.trace = Some(Trace::new(print));
        self.oracle.keep_inputs();
    }

    /// Traces what happens from now on, and forgets nothing of it.
    pub(crate) fn trace_whole(&mut self) {
        self.trace = Some(Trace::whole());
        self.oracle.keep_inputs();
    }

    /// The last lines of the trace about a node and the cluster.
    #[must_use]
    pub fn last_lines(&self, node: Option<usize>, count: usize) -> Vec<String> {
        self.trace.as_ref().map_or_else(Vec::new, |trace| trace.last(node, count))
    }

    fn schedule(&mut self, at: u64, what: Coming) {
        self.agenda.add(at, what);
    }

    fn note(&mut self, node: Option<usize>, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.add(self.now, node, &line());
        }
    }

    /// When the next thing happens, in simulated nanoseconds.
    #[must_use]
    pub fn next_at(&self) -> u64 {
        self.agenda.next_at().unwrap_or(u64::MAX)
    }

    /// Lets time pass in which nothing happens.
    ///
    /// # Panics
    /// When something would happen before.
    pub fn pass_until(&mut self, at: u64) {
        assert!(at <= self.next_at(), "something happens before {at}");
        self.now = self.now.max(at);
    }

    /// The node that was touched last.
    #[must_use]
    pub const fn touched(&self) -> Option<usize> {
        self.touched
    }

    /// Every machine is what the reference is.
    pub fn compare_states(&self) -> Checked {
        for (at, node) in self.nodes.iter().enumerate() {
            self.oracle.on_state(at, &node.runner.machine.machine)?;
        }
        Ok(())
    }

    /// Every machine that has come as far as the reference is what that is.
    pub fn compare_states_there(&mut self) -> Checked {
        for (at, node) in self.nodes.iter().enumerate() {
            if node.is_up() && self.oracle.is_there(at) {
                self.oracle.on_state(at, &node.runner.machine.machine)?;
            }
        }
        Ok(())
    }

    /// For how long a process still stands.
    #[must_use]
    pub fn paused_for(&self) -> u64 {
        let until = self.nodes.iter().map(|node| node.paused_until).max();
        until.unwrap_or(0).saturating_sub(self.now)
    }

    /// After so many things that happened it is a failure that the run goes on: calls of engines, and what
    /// no engine hears of. Of several limits the least holds.
    pub fn limit(&mut self, most: u64) {
        self.agenda.limit(most);
    }

    /// Lets the next thing happen.
    pub fn step(&mut self) -> Checked {
        let (at, what) = self.agenda.pop()?;
        self.now = self.now.max(at);
        self.happen(what)?;
        self.fall_due();
        Ok(())
    }

    fn happen(&mut self, what: Coming) -> Checked {
        match what {
            Coming::Deliver { from, to, life, age, bytes } => {
                let (from, to) = (from as usize, to as usize);
                if self.network.is_cut(from, to) {
                    self.stats.messages_lost += 1;
                    return Ok(());
                }
                let node = &mut self.nodes[to];
                // Or will be when its process goes on.
                node.heard.hear(self.now.max(node.paused_until), age);
                self.stats.messages_stale += u64::from(life != self.nodes[from].life);
                self.feed(to, Some(Event::Received { from: node_id(from), bytes }))
            }
            Coming::Completion { node, life, op } if self.lives(node, life) => {
                self.complete(node, op)
            }
            Coming::MachineStep { node, life } if self.lives(node, life) => {
                let resumes = self.nodes[node].paused_until;
                if self.now < resumes {
                    self.schedule(resumes, Coming::MachineStep { node, life });
                    return Ok(());
                }
                self.machine_step(node)
            }
            Coming::Late { node, life, event } if self.lives(node, life) => {
                self.feed(node, Some(*event))
            }
            Coming::Wake { node, life } if self.lives(node, life) => self.wake(node),
            Coming::Start { node, life } if self.nodes[node].life == life => self.start(node),
            Coming::LinkUp { node, peer, lives } => self.link_up(node, peer, lives),
            Coming::LinkDown { node, peer, number } => self.link_down(node, peer, number),
            Coming::Think { client, round } => self.thought(client, round),
            Coming::Patience { client } => self.out_of_patience(client),
            Coming::Change { number, turn } => self.ask_for_change(number, turn),
            Coming::BackUp(taking) => self.go_on_backing_up(*taking),
            Coming::ArmedCut { number } => {
                self.fall_late(number);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether the node is up, in this life.
    fn lives(&self, node: usize, life: u32) -> bool {
        self.nodes[node].is_up() && self.nodes[node].life == life
    }

    /// Hands an event to a node that is up, and does what it asks for. Now and then the wall clock
    /// goes behind it, as drivers do.
    fn feed(&mut self, at: usize, event: Option<Event>) -> Checked {
        let happened = event.is_some();
        self.hand(at, event)?;
        let node = &mut self.nodes[at];
        if !happened || !node.told.is_to_be_told_the_time(node.clock.local(self.now)) {
            return Ok(());
        }
        let time = node.clock.wall(self.now);
        self.hand(at, Some(Event::time(time)))
    }

    fn hand(&mut self, at: usize, event: Option<Event>) -> Checked {
        let node = &mut self.nodes[at];
        if !node.is_up() {
            return Ok(());
        }
        if self.now < node.paused_until {
            // It lies in a socket or a queue until the process goes on.
            let (resumes, life) = (node.paused_until, node.life);
            if let Some(event) = event.map(Box::new) {
                self.schedule(resumes, Coming::Late { node: at, life, event });
            }
            return Ok(());
        }
        self.touched = Some(at);
        let leased = match &event {
            Some(Event::Read { requests, mode: ReadMode::Lease }) => Some(requests.first),
            _ => None,
        };
        let (plan, times, instant) = (&self.plan, self.times, self.now);
        let least = || times.of(&plan.tuning).election.0;
        let waits = self
            .nodes
            .iter()
            .map(|node| node.engine.as_ref().map(|_| (node.clock.local(instant), least())));
        self.oracle.on_leased(leased, waits);
        let node = &mut self.nodes[at];
        let Some(engine) = node.engine.as_mut() else { return Ok(()) };
        let now = node.clock.local(self.now);
        event.iter().for_each(|event| node.told.on_event(now, event));
        let (operations, ends) = (node.operations, matches!(event, Some(Event::Completed { .. })));
        if let Some(trace) = &mut self.trace {
            let line = event.as_ref().map_or_else(|| "> time".into(), trace::event);
            trace.add(self.now, Some(at), &line);
        }
        self.stats.events += u64::from(event.is_some());
        self.digest.number(at as u64);
        self.digest.step(now, event.as_slice(), &[]);
        if let Some(Event::Received { from, bytes }) = &event {
            self.oracle.on_received(at, *from, bytes);
        }
        let mut actions = std::mem::take(&mut self.actions);
        handle(engine, now, event, &mut actions);
        self.digest.step(now, &[], &actions);
        let probe = engine.probe();
        let clocks = node.told.wall(now).map(|wall| (now, wall));
        let seen = Seen { node: at, probe, engine, clocks };
        if probe.judged
            && let Some(proven) = node.scars.take_misled()
            && self.oracle.would_miss(&seen, false)
        {
            return self.goes_out(at, probe.last.index, proven);
        }
        let comes = probe.judged && !self.oracle.was_judged(at);
        self.oracle.on_step(&seen, actions.iter())?;
        self.oracle.on_memory(&seen, &self.plan)?;
        if !node.scars.is_ruined {
            let would_stay = |entry| self.harmed.would_stay(at, &node.disk, entry);
            self.oracle.on_disk_below(&seen, &node.disk, would_stay)?;
        }
        self.nodes[at].scars.excuse(at, &probe, comes)?;
        if probe.judged && self.oracle.is_to_be_tried(at) {
            self.try_power_cut(at)?;
        }
        self.perform_all(at, &mut actions)?;
        self.actions = actions;
        let node = &self.nodes[at];
        if node.engine.is_some() && node.told.outstays(now) {
            let what = "is there still, and was asked to stop".into();
            return Err(Violation::new("stops in time", at, what));
        }
        self.wants_its_members(at)?;
        self.schedule_wake(at);
        let node = &mut self.nodes[at];
        node.steps += u64::from(ends || node.operations > operations);
        self.strike_if_pending(at);
        Ok(())
    }

    fn perform_all(&mut self, at: usize, actions: &mut Vec<Action>) -> Checked {
        for action in actions.drain(..) {
            if self.trace.is_some() {
                self.note(Some(at), || trace::action(&action));
            }
            self.perform(at, action)?;
        }
        Ok(())
    }

    fn perform(&mut self, at: usize, action: Action) -> Checked {
        let node = &mut self.nodes[at];
        let told = node.told.on_action(node.clock.local(self.now), &action);
        told.map_err(|what| Violation::new("snapshots that fail are few", at, what))?;
        match action {
            Action::Disk { op, request, .. } => return self.submit(at, op, request),
            Action::Send { to, head, body } => self.send(at, to, head, &body),
            Action::Machine(step) => return self.push_machine_step(at, step),
            Action::Respond { requests, outcome } => return self.respond(at, requests, &outcome),
            Action::Note(note) => return self.count(at, &note),
            Action::Members(members) => self.want(at, &members),
            Action::Halt(halt) => return self.halted(at, *halt),
        }
        Ok(())
    }

    fn count(&mut self, at: usize, note: &Note) -> Checked {
        match note {
            Note::Snapshot(_) => self.stats.snapshots += 1,
            Note::Compacted(_) => self.stats.compactions += 1,
            Note::Role { leader: Some(_), .. } => self.stats.elections += 1,
            // Plans are checked before they are run.
            Note::TuningRefused(why) => {
                return Err(Violation::new("a tuning that works is taken", at, why.to_string()));
            }
            // No link changes what is sent, and all peers are correct: one of the two is not.
            Note::PeerFault { peer, reason } if self.are_of_one_mind(at, *peer) => {
                let what = format!("calls it a fault of node {peer}: {reason}");
                return Err(Violation::new("correct peers are at fault for nothing", at, what));
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether neither of two nodes lost anything that damage took, or was left behind, and all were made
    /// from the same.
    fn are_of_one_mind(&self, at: usize, peer: NodeId) -> bool {
        let is_sound =
            |node: usize| !self.nodes[node].scars.is_ruined && !self.oracle.is_left_behind(node);
        is_sound(at) && is_sound(peer.0 as usize - 1) && self.is_of_one_piece()
    }

    fn send(&mut self, from: usize, to: NodeId, head: Bytes, body: &Bytes) {
        let to = to.0 as usize - 1;
        if self.network.connection(from, to).is_none() {
            self.stats.messages_lost += 1;
            return;
        }
        let bytes = if body.is_empty() { head } else { joined(&head, body) };
        match self.network.send(from, to, self.now, bytes.len()) {
            Fate::Arrives(at, again) => {
                let node = &self.nodes[from];
                let (life, age) = (node.life, node.heard.speaks(self.now));
                let (from, to) = (from as u32, to as u32);
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
        if self.now < node.paused_until {
            let (resumes, life) = (node.paused_until, node.life);
            node.wake = resumes;
            self.schedule(resumes, Coming::Wake { node: at, life });
            return Ok(());
        }
        (node.wake, node.deadline) = (u64::MAX, None);
        let engine = node.engine.as_ref().expect("the node is up");
        match engine.deadline() {
            Some(deadline) if deadline <= node.clock.local(self.now) => {
                self.feed(at, None)?;
                self.moved_on(at, deadline)
            }
            _ => {
                self.schedule_wake(at);
                Ok(())
            }
        }
    }

    /// A deadline that has passed and stays is one that a driver spins on.
    fn moved_on(&self, at: usize, passed: lakebed::Instant) -> Checked {
        let node = &self.nodes[at];
        match node.engine.as_ref().and_then(Engine::deadline) {
            Some(deadline) if deadline <= passed && node.clock.local(self.now) >= passed => {
                let what = format!("handled at its deadline {passed}, the next one is {deadline}");
                Err(Violation::new("deadlines move on", at, what))
            }
            _ => Ok(()),
        }
    }

    fn schedule_wake(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some(deadline) = node.engine.as_ref().and_then(Engine::deadline) else { return };
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

/// Never inlined, so that a profile tells the engine from the simulator.
#[inline(never)]
fn handle(
    engine: &mut Engine,
    now: lakebed::Instant,
    event: Option<Event>,
    actions: &mut Vec<Action>,
) {
    engine.handle(now, event, actions);
}

fn joined(head: &[u8], body: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(head.len() + body.len());
    bytes.extend_from_slice(head);
    bytes.extend_from_slice(body);
    bytes.freeze()
}

pub(crate) const fn node_id(at: usize) -> NodeId {
    NodeId(at as u64 + 1)
}

fn member(at: usize) -> Member {
    Member { id: node_id(at), incarnation: 0, address: Bytes::new() }
}
