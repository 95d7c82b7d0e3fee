//! Many groups on a few nodes: each node is a host, each group has a disk, a machine and an oracle
//! of its own on each of its members, and all share the network, the clocks and the power.
//!
//! The plan is that of a storm: its network, disks, clocks and faults. What strikes a disk there
//! strikes the disk of one group here, but for one that is full, as all groups of a node share its
//! room; what strikes a node strikes all groups on it. Faults that no plan within the budget has are
//! let go. Knows no scenario. Invariant: a group is judged by the ordinary
//! oracle, which never hears of another.
//!
//! Here is what a world of groups is; what happens in it is in the files beside this one.

mod agenda;
mod changes;
mod clients;
mod damage;
mod faults;
mod lives;
mod looks;
mod seats;
pub mod storm;
mod turns;

use crate::{
    agenda::Agenda,
    changes::Changes,
    client::{Requests, Workload},
    harm::Harmed,
    network::Network,
    node::{Clock, Telling},
    oracle::{Oracle, Violation},
    plan::{self, MS, Plan, US},
    prng::{Concern, Stream},
    trace::{Print, Trace, about},
    world::{Acknowledged, Armed, Hearsay, Stats},
};
use agenda::Coming;
use clients::Client;
use lakebed::{
    ClusterId, GroupId, Host, HostAction, HostCounters, Instant, LogIndex, Marks, Membership,
    NodeId, StateMachine, Timestamp, tape::Digest,
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
    /// What it was told of that last, and when.
    wall: Option<(Timestamp, Instant)>,
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
    agenda: Agenda<Coming>,
    /// How many cuts were armed.
    armings: u64,
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
    /// Once everything was healed clients make every operation: how many each had come to then.
    healed: Option<Vec<u32>>,
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
    /// Room for the groups that a host called.
    called: Vec<GroupId>,
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
                heard: Hearsay::new(&plan),
                telling: Telling::default(),
                wall: None,
            }
        };
        let mut groups = Self {
            census,
            now: 0,
            agenda: Agenda::default(),
            armings: 0,
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
            healed: None,
            workload,
            machine,
            digest: Digest::default(),
            stats: Stats::default(),
            marks: Marks::default(),
            counted: HostCounters::default(),
            sent: Sent::default(),
            trace: None,
            actions: Vec::new(),
            called: Vec::new(),
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
    pub(crate) fn trace(&mut self, print: Option<Print>, whole: bool) {
        self.trace = Some(if whole { Trace::whole() } else { Trace::new(print) });
    }

    pub(crate) fn last_lines(&self, node: Option<usize>, count: usize) -> Vec<String> {
        self.trace.as_ref().map_or_else(Vec::new, |trace| trace.last(node, count))
    }

    fn note(&mut self, node: Option<usize>, group: Option<GroupId>, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.add(self.now, node, &about(group, &line()));
        }
    }

    /// A fault of this kind had its effect.
    fn struck(&mut self, kind: &str) {
        let number = plan::kind_names().position(|name| name == kind);
        self.stats.faults[number.expect("kinds have names")] += 1;
    }
}

/// Says in which group an invariant broke.
fn of_group(group: GroupId, violation: Violation) -> Violation {
    Violation { what: format!("group {group}: {}", violation.what), ..violation }
}

const fn node_id(at: usize) -> NodeId {
    NodeId(at as u64 + 1)
}
