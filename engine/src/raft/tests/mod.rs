//! Consensus on trial, without files: nodes over a pretended disk that is as slow as a test wants.

mod answers;
mod bounds;
mod changes;
mod elections;
mod endings;
mod epochs;
mod feeding;
mod forming;
mod forwards;
mod garbled;
mod gates;
mod handovers;
mod installs;
mod leases;
mod leavers;
mod lives;
mod logs;
mod memory;
mod musters;
mod papers;
mod peers;
mod plain;
mod proposals;
mod reads;
mod refills;
mod restless;
mod rests;
mod said;
mod searches;
mod setbacks;
mod storm;

use super::*;
use crate::{
    action::{Machine, Refusal},
    codec::{self, Encoder},
    entry::{Batch, Run},
    event::ReadMode,
    membership::Member,
    status,
    storage::{ReadBack, Terms},
    types::{ClusterId, GroupId, LogId, RequestId, SnapshotId, Timestamp},
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const MS: u64 = 1_000_000;

fn seed() -> Seed {
    Seed::new(ClusterId(7), GroupId(1))
}

fn node(id: u64) -> NodeId {
    NodeId(id)
}

const fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), LogIndex(index))
}

fn members(count: u64) -> Membership {
    Membership::of((1..=count).map(|id| Member {
        id: NodeId(id),
        incarnation: id * 100,
        address: Bytes::new(),
    }))
}

const fn setting(tuning: &Tuning) -> Setting<'_> {
    Setting { tuning, entry_bytes_max: 1 << 20, keeps_state: false, wall: WallClock::UNKNOWN }
}

/// What is left of an entry's bytes that were lost.
const ROTTEN: &[u8] = b"rotten";

/// What a disk would hold.
#[derive(Clone, Debug)]
struct Disk {
    log: Vec<(entry::Head, Bytes)>,
    durable: usize,
    wanted: (Term, Option<NodeId>),
    promised: (Term, Option<NodeId>),
    epoch: u64,
    recorded: Arc<Membership>,
    wanted_members: [Arc<Membership>; 2],
    previous: Arc<Membership>,
    /// Nothing becomes durable until `sync`.
    lazy: bool,
    saturated: bool,
    full: bool,
    seeks_room: bool,
    reads: u64,
    /// Entries of which only the name is left.
    holes: Vec<LogIndex>,
    /// No more of them is taken yet.
    is_crowded: bool,
    /// They turned out in this life: what was acknowledged is.
    owes_nothing: bool,
    /// What the node was made from, and has not met all others since.
    origin: Origin,
    /// The machine has no state, and no snapshot is there to give it one.
    is_state_lost: bool,
}

impl Disk {
    fn sync(&mut self) -> bool {
        let before = (self.durable, self.promised, Arc::clone(&self.recorded));
        self.durable = self.log.len();
        self.promised = self.wanted;
        [self.recorded, self.previous] = self.wanted_members.clone();
        before != (self.durable, self.promised, Arc::clone(&self.recorded))
    }

    /// What counts as durable.
    fn whole(&self) -> LogIndex {
        let durable = LogIndex(self.durable as u64);
        if self.owes_nothing {
            return durable;
        }
        self.holes.first().map_or(durable, |hole| durable.min(hole.previous()))
    }

    /// The bytes of an entry are lost.
    fn lose(&mut self, index: u64) {
        self.lose_unseen(index);
        self.find(LogIndex(index));
    }

    /// The bytes of an entry are lost, and it turns out when they are read.
    fn lose_unseen(&mut self, index: u64) {
        self.log[index as usize - 1].1 = Bytes::from_static(ROTTEN);
    }

    fn find(&mut self, hole: LogIndex) {
        self.holes.push(hole);
        self.holes.sort_unstable();
        self.holes.dedup();
    }

    fn truncate(&mut self, last: LogId) {
        self.log.truncate(last.index.0 as usize);
        self.holes.retain(|hole| *hole <= last.index);
        assert_eq!(self.log.last().map_or(LogId::ZERO, |(head, _)| head.id), last);
        self.durable = self.durable.min(self.log.len());
        self.epoch += 1;
    }

    fn read(&mut self, wish: ReadWish) -> ReadBack {
        self.reads += 1;
        assert!(wish.from <= wish.to && wish.to.0 as usize <= self.durable, "{wish:?}");
        let mut frames = Vec::new();
        let mut last = wish.from.previous();
        for (head, frame) in &self.log[wish.from.0 as usize - 1..wish.to.0 as usize] {
            if *frame == ROTTEN {
                self.find(head.id.index);
                break;
            }
            if last >= wish.from && frames.len() + frame.len() > wish.bytes_max as usize {
                break;
            }
            frames.extend_from_slice(frame);
            last = last.next();
        }
        ReadBack { first: wish.from, last, frames: frames.into() }
    }
}

/// A node, its disk and its machine.
#[derive(Clone, Debug)]
struct Node {
    raft: Raft,
    disk: Disk,
    /// Every command that went to the machine, and who waited for it.
    applied: Vec<(LogId, Vec<u8>, Option<u64>)>,
    ended: Vec<(u64, Outcome)>,
    queried: Vec<(u64, LogIndex)>,
    notes: Vec<Note>,
    /// Whom it was last said to be connected with.
    company: Vec<u64>,
    halted: Option<Halt>,
    /// The machine finishes at once what it is given.
    prompt: bool,
    /// Reads of what is lost, which wait until it is there again.
    parked: Vec<ReadWish>,
}

impl Node {
    fn start(disk: Disk, own: u64, tuning: &Tuning, seed_number: u64, now: Instant) -> Self {
        let recovered = recovered(&disk, own);
        let raft = Raft::new(&recovered, setting(tuning), seed_number, now);
        Self {
            raft,
            disk,
            applied: Vec::new(),
            ended: Vec::new(),
            queried: Vec::new(),
            notes: Vec::new(),
            company: Vec::new(),
            halted: None,
            prompt: true,
            parked: Vec::new(),
        }
    }

    fn hand_over(&mut self) {
        if let Some(promise) = self.raft.take_promise() {
            assert!(promise.0 >= self.disk.wanted.0, "terms only rise");
            self.disk.wanted = promise;
        }
        if self.raft.take_formed() {
            self.disk.origin = Origin::default();
        }
        if let Some((newest, previous)) = self.raft.take_membership() {
            self.disk.wanted_members = [newest, previous];
        }
        for change in self.raft.changes().drain(..) {
            match change {
                Change::Truncate(last) => self.disk.truncate(last),
                Change::Append { head, chunk, at } => {
                    let frame = chunk.slice(at..at + head.total_bytes as usize);
                    assert_eq!(head.id.index.0 as usize, self.disk.log.len() + 1);
                    assert_eq!(entry::Head::parse_whole(&frame, seed()), Ok(head));
                    self.disk.log.push((head, frame));
                }
                Change::Refill { head, frame } => {
                    let at = head.id.index.0 as usize;
                    assert_eq!(self.disk.log[at - 1].0, head, "what is missing is given");
                    self.disk.log[at - 1].1 = frame;
                    self.disk.holes.retain(|hole| *hole != head.id.index);
                }
                Change::Install(at) | Change::Join(at) => {
                    unreachable!("nobody has sent a snapshot of {at}")
                }
            }
        }
    }

    /// As the facade does it. Returns what is to be sent.
    fn settle(&mut self, now: Instant) -> Vec<Message> {
        let mut sent = Vec::new();
        loop {
            self.raft.on_time(now);
            self.hand_over();
            self.raft.observe(self.facts());
            if self.raft.is_forming() {
                let recorded = Arc::clone(&self.disk.recorded);
                self.raft.on_recorded(&recorded);
            }
            self.raft.time_out();
            self.raft.refill();
            self.raft.acknowledge();
            self.raft.propose();
            self.raft.commit();
            self.raft.change();
            self.raft.hand_over();
            self.raft.replicate();
            self.raft.apply();
            self.raft.retire();
            self.raft.respond();
            self.raft.rest();
            sent.append(self.raft.messages());
            self.hand_over();
            self.raft.check();
            self.halted = self.halted.take().or_else(|| self.raft.take_halt());
            if !(self.perform() | self.read_back() | (!self.disk.lazy && self.disk.sync())) {
                return sent;
            }
        }
    }

    fn facts(&self) -> Facts {
        Facts {
            durable: self.disk.whole(),
            promised: self.disk.promised,
            write_epoch: self.disk.epoch,
            snapshot: LogIndex(0),
            newest: LogIndex(0),
            first: LogIndex(1),
            gives_from: LogIndex(1),
            restored: (!self.disk.is_state_lost).then_some(LogId::ZERO),
            saturated: self.disk.saturated,
            full: self.disk.full,
            // Once a second.
            sought_room: (self.raft.now.0 / 1_000_000_000) as u32,
            seeks_room: self.disk.seeks_room,
            receiving: None,
            is_state_lost: self.disk.is_state_lost,
            installed: None,
            hole: self.disk.holes.first().map(|hole| self.disk.log[hole.0 as usize - 1].0.id),
            is_crowded: self.disk.is_crowded,
            owes_entries: !self.disk.holes.is_empty() && !self.disk.owes_nothing,
        }
    }

    fn read_back(&mut self) -> bool {
        // What was cut nobody wants any more.
        self.parked.retain(|wish| wish.to.0 as usize <= self.disk.durable);
        let mut wishes = std::mem::take(&mut self.parked);
        wishes.append(&mut self.raft.wishes().drain(..).collect());
        let asked = wishes.len();
        for wish in wishes {
            let back = self.disk.read(wish);
            if back.last >= back.first {
                self.raft.on_read_back(wish.reader, back);
            } else {
                self.parked.push(wish);
            }
        }
        asked > self.parked.len()
    }

    /// Performs actions; true if the machine went on.
    fn perform(&mut self) -> bool {
        let mut applied = false;
        let actions: Vec<_> = self.raft.actions().drain(..).collect();
        for action in actions {
            match action {
                Action::Machine(Machine::Apply(entries)) => {
                    self.applied.extend(
                        entries
                            .commands()
                            .map(|c| (c.at, c.bytes.to_vec(), c.request.map(|id| id.0))),
                    );
                    if self.prompt {
                        self.raft.on_applied(entries.last);
                        applied = true;
                    }
                }
                Action::Machine(Machine::Query { requests, at }) => {
                    self.queried.extend(requests.ids().map(|id| (id.0, at)));
                }
                Action::Respond { requests, outcome } => {
                    self.ended.extend(requests.ids().map(|id| (id.0, outcome.clone())));
                }
                Action::Note(note) => self.notes.push(note),
                Action::Members(company) => {
                    self.company = company.members().map(|member| member.id.0).collect();
                }
                other => panic!("consensus does not {other:?}"),
            }
        }
        applied
    }

    fn role(&self) -> status::Role {
        let mut status = status::Status::default();
        self.raft.report(&mut status);
        status.role
    }

    fn ids(&self) -> Vec<LogId> {
        self.disk.log.iter().map(|(head, _)| head.id).collect()
    }

    fn has(&self, mark: Mark) -> bool {
        self.raft.marks.has(mark)
    }

    fn faults(&self) -> Vec<&'static str> {
        let fault = |note: &Note| match note {
            Note::PeerFault { reason, .. } => Some(*reason),
            _ => None,
        };
        self.notes.iter().filter_map(fault).collect()
    }
}

/// What a restart would find on this disk.
fn recovered(disk: &Disk, own: u64) -> Recovered {
    let mut terms = Terms::behind(LogId::ZERO);
    disk.log.iter().for_each(|(head, _)| terms.push(head.id));
    let LogId { index, term } = disk.recorded.at;
    let is_in_force = index == LogIndex(0)
        || disk.log.get(index.0 as usize - 1).is_some_and(|(head, _)| head.id.term == term);
    Recovered {
        identity: Identity {
            cluster: ClusterId(7),
            cluster_epoch: 0,
            group: GroupId(1),
            node: NodeId(own),
            incarnation: own * 100,
        },
        seed: seed(),
        term: disk.promised.0,
        vote: disk.promised.1,
        write_epoch: disk.epoch,
        snapshot: LogId::ZERO,
        first: LogIndex(1),
        last: disk.log.last().map_or(LogId::ZERO, |(head, _)| head.id),
        last_time: disk.log.last().map_or(Timestamp(0), |(head, _)| head.time),
        terms,
        committed: LogIndex(0),
        membership: Arc::clone(if is_in_force { &disk.recorded } else { &disk.previous }),
        previous: Arc::clone(&disk.previous),
        gate: None,
        origin: disk.origin,
    }
}

/// A disk in `term` whose log has an entry of each of these terms.
fn disk_with(term: u64, terms: &[u64], nodes: u64) -> Disk {
    let mut log: Vec<(entry::Head, Bytes)> = Vec::new();
    for &term in terms {
        let prev = log.last().map_or(LogId::ZERO, |(head, _)| head.id);
        let at = LogId::new(Term(term), prev.index.next());
        let command = format!("{at}");
        let batch = Batch::one(command.as_bytes());
        log.push(batch.seal(seed(), at, prev.term, Timestamp(at.index.0)));
    }
    let members = Arc::new(members(nodes));
    Disk {
        durable: log.len(),
        log,
        wanted: (Term(term), None),
        promised: (Term(term), None),
        epoch: 1,
        recorded: Arc::clone(&members),
        previous: Arc::clone(&members),
        wanted_members: [Arc::clone(&members), members],
        lazy: false,
        saturated: false,
        full: false,
        seeks_room: false,
        reads: 0,
        holes: Vec::new(),
        is_crowded: false,
        owes_nothing: false,
        origin: Origin::default(),
        is_state_lost: false,
    }
}

/// Nodes, and the messages between them; time only passes when told.
#[derive(Clone, Debug)]
struct Cluster {
    nodes: Vec<Node>,
    now: Instant,
    tuning: Tuning,
    queue: VecDeque<(NodeId, Message)>,
    /// Links on which messages vanish.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// How many messages were delivered.
    delivered: usize,
}

impl Cluster {
    fn new(disks: Vec<Disk>) -> Self {
        Self::tuned(disks, Tuning::default())
    }

    fn tuned(disks: Vec<Disk>, tuning: Tuning) -> Self {
        // Long after the epoch, so that "a while ago" exists.
        let now = Instant(1_000_000 * MS);
        let nodes =
            (1..).zip(disks).map(|(id, disk)| Node::start(disk, id, &tuning, id, now)).collect();
        let (queue, cut) = (VecDeque::new(), BTreeSet::new());
        Self { nodes, now, tuning, queue, cut, delivered: 0 }
    }

    /// Equal nodes in term 1 with empty logs.
    fn of(nodes: u64) -> Self {
        Self::new((0..nodes).map(|_| disk_with(1, &[], nodes)).collect())
    }

    /// The same, with node 1 leading.
    fn led(nodes: u64) -> Self {
        let mut cluster = Self::of(nodes);
        cluster.elect(1);
        cluster
    }

    fn at(&mut self, id: u64) -> &mut Node {
        &mut self.nodes[id as usize - 1]
    }

    fn settle(&mut self, id: u64) {
        let now = self.now;
        let sent = self.at(id).settle(now);
        self.queue.extend(sent.into_iter().map(|message| (NodeId(id), message)));
    }

    /// What a node says now, undelivered.
    fn said(&mut self, id: u64) -> Vec<(NodeId, Payload)> {
        let now = self.now;
        let sent = self.at(id).settle(now);
        sent.into_iter().map(|message| (message.head.to, message.payload)).collect()
    }

    fn deliver(&mut self, from: NodeId, message: Message) {
        let to = message.head.to;
        if self.cut.contains(&(from, to)) || to.0 as usize > self.nodes.len() {
            return;
        }
        let (head, body) = Encoder::default().encode(&mut message.clone());
        let whole: Bytes = [head, body].concat().into();
        let decoded = codec::decode(whole).expect("what was encoded can be decoded");
        assert_eq!(decoded, message);
        self.delivered += 1;
        self.at(to.0).raft.on_message(from, decoded);
        self.settle(to.0);
    }

    /// Everybody settles, and messages are delivered until there are none.
    fn run(&mut self) {
        (1..=self.nodes.len() as u64).for_each(|id| self.settle(id));
        let before = self.delivered;
        while let Some((from, message)) = self.queue.pop_front() {
            self.deliver(from, message);
            assert!(
                self.delivered < before + 20_000,
                "said again and again, as fast as it is heard"
            );
        }
    }

    fn pass(&mut self, time: u64) {
        self.now = Instant(self.now.0 + time);
        self.nodes.iter_mut().for_each(|node| node.raft.on_time(self.now));
    }

    /// Time passes in small steps, everything is delivered.
    fn elapse(&mut self, time: u64) {
        for _ in 0..time / (10 * MS) {
            self.pass(10 * MS);
            self.run();
        }
    }

    /// Everybody is patient but this node.
    fn elect(&mut self, id: u64) {
        self.run();
        self.pass(self.tuning.election.0.as_nanos() as u64);
        for other in &mut self.nodes {
            other.raft.patience = Duration::from_secs(3600);
        }
        self.at(id).raft.patience = Duration::ZERO;
        self.run();
        assert_eq!(self.at(id).role(), status::Role::Leader);
    }

    fn isolate(&mut self, id: u64) {
        for other in 1..=self.nodes.len() as u64 {
            self.cut.insert((node(id), node(other)));
            self.cut.insert((node(other), node(id)));
        }
    }

    fn propose(&mut self, at: u64, first: u64, commands: &[&str]) {
        let mut batch = Batch::default();
        commands.iter().for_each(|command| batch.push(command.as_bytes()));
        self.at(at).raft.on_propose(RequestId(first), Timestamp(first), batch);
    }

    fn crash(&mut self, id: u64) {
        let (tuning, now) = (self.tuning.clone(), self.now);
        let node = self.at(id);
        let mut disk = node.disk.clone();
        disk.log.truncate(disk.durable);
        disk.wanted = disk.promised;
        disk.wanted_members = [Arc::clone(&disk.recorded), Arc::clone(&disk.previous)];
        disk.epoch += 1;
        // Other numbers at each start, also where the disk is one of before.
        let seed = id * 1000 + disk.epoch + now.0 / 1_000_000 * 10_007;
        *node = Node::start(disk, id, &tuning, seed, now);
    }
}

fn commands(node: &Node) -> Vec<(String, Option<u64>)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    node.applied.iter().map(|(_, bytes, request)| (text(bytes), *request)).collect()
}
