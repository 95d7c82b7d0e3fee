//! Ours: three engines, each with a disk in memory that performs its requests at once.

use super::Cluster;
use crate::memory_disk::MemoryDisk;
use bytes::{Bytes, BytesMut};
use lakebed::{
    Action, Batch, Chunk, ClusterId, Config, Engine, Event, GroupId, Instant, Machine, Member,
    Membership, NodeId, RequestId, Role, Start, Timestamp,
};
use std::{collections::VecDeque, sync::Arc};

pub struct Lakebed {
    nodes: Vec<Node>,
    wire: VecDeque<(NodeId, NodeId, Bytes)>,
    now: Instant,
    leader: usize,
    requests: u64,
}

struct Node {
    id: NodeId,
    engine: Engine,
    disk: MemoryDisk,
    /// What its disk and its machine have done, and what came for it since.
    events: Vec<Event>,
    actions: Vec<Action>,
    commands: u64,
    bytes: u64,
}

impl Lakebed {
    pub fn new() -> Self {
        let nodes = (1..=3).map(|id| Node::new(NodeId(id))).collect();
        let mut cluster =
            Self { nodes, wire: VecDeque::new(), now: Instant(0), leader: 0, requests: 0 };
        cluster.settle();
        cluster.link();
        cluster.elect();
        cluster
    }

    fn link(&mut self) {
        for (node, peer) in [(1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2)] {
            let event = Event::Link { peer: NodeId(peer), up: true };
            self.nodes[node - 1].events.push(event);
        }
        self.settle();
    }

    /// Lets time pass, deadline by deadline, until somebody leads and everybody follows.
    fn elect(&mut self) {
        loop {
            let led = |node: &Node| node.engine.status().leader.is_some();
            let leads = |node: &Node| node.engine.status().role == Role::Leader;
            if let Some(leader) = self.nodes.iter().position(leads)
                && self.nodes.iter().all(led)
            {
                self.leader = leader;
                return;
            }
            let deadlines = self.nodes.iter().filter_map(|node| node.engine.deadline());
            self.now = self.now.max(deadlines.min().expect("a node without a leader waits"));
            self.nodes.iter_mut().for_each(|node| node.handle(self.now, &mut self.wire));
            self.settle();
        }
    }

    /// Until nobody has anything to do. The leader waits for its turn until the others are done:
    /// what its disk and its machine have done is handed over together with what its peers answer,
    /// as a driver does who looks at all that is there before it calls the engine.
    fn settle(&mut self) {
        self.deliver();
        loop {
            let followers = [1, 2].map(|turn| (self.leader + turn) % 3);
            while followers.map(|node| self.turn(node)) != [false; 2] {}
            if !self.turn(self.leader) {
                return;
            }
        }
    }

    /// Whether that node had anything to do.
    fn turn(&mut self, node: usize) -> bool {
        let node = &mut self.nodes[node];
        let works = node.has_work();
        if works {
            node.handle(self.now, &mut self.wire);
            self.deliver();
        }
        works
    }

    fn deliver(&mut self) {
        while let Some((from, to, bytes)) = self.wire.pop_front() {
            let node = &mut self.nodes[to.0 as usize - 1];
            node.events.push(Event::Received { from, bytes });
        }
    }
}

impl Cluster for Lakebed {
    fn commit(&mut self, commands: &[Vec<u8>]) {
        let bytes = commands.iter().map(|command| command.len() + 4).sum();
        let mut batch = Batch::with_capacity(bytes);
        commands.iter().for_each(|command| batch.push(command));
        let first = RequestId(self.requests);
        self.requests += commands.len() as u64;
        self.now = Instant(self.now.0 + 1000);
        let time = Timestamp(self.now.0);
        self.nodes[self.leader].events.push(Event::Propose { first, time, batch });
        self.settle();
    }

    fn finish(&mut self) {
        let leader = &mut self.nodes[self.leader];
        self.now = leader.engine.deadline().expect("a leader has heartbeats");
        leader.handle(self.now, &mut self.wire);
        self.settle();
    }

    fn applied(&self) -> [(u64, u64); 3] {
        [0, 1, 2].map(|n| (self.nodes[n].commands, self.nodes[n].bytes))
    }
}

impl Node {
    fn new(id: NodeId) -> Self {
        let member = |id| Member { id: NodeId(id), incarnation: 0, address: Bytes::new() };
        let members = Arc::new(Membership::of([1, 2, 3].map(member)));
        let mut config = Config::new(GroupId(1), id);
        config.disk_align = 512;
        // 256 commands of 4 KiB and their lengths.
        config.tuning.append_bytes_max = 2 << 20;
        // As in the tuned peer: the next entries tell what is committed, or a heartbeat does.
        config.tuning.commit_notice = config.tuning.heartbeat;
        // About as much of the log is kept as by the peer, in memory and on the disk in memory.
        config.tuning.cache_bytes_max = 4 << 20;
        config.segment_bytes = 4 << 20;
        config.tuning.snapshot_log_bytes = 4 << 20;
        Self {
            id,
            engine: Engine::new(config, id.0).expect("a good configuration"),
            disk: MemoryDisk::default(),
            events: vec![Event::Start(Start::Format { cluster: ClusterId(1), members })],
            actions: Vec::new(),
            commands: 0,
            bytes: 0,
        }
    }

    /// Whether anything came or was done. That the machine applied something alone is no news: it
    /// is told with what comes next, for the engine waits for it only when its queue is full.
    fn has_work(&self) -> bool {
        self.events.iter().any(|event| !matches!(event, Event::Applied { .. }))
    }

    fn handle(&mut self, now: Instant, wire: &mut VecDeque<(NodeId, NodeId, Bytes)>) {
        let mut actions = std::mem::take(&mut self.actions);
        self.engine.handle(now, self.events.drain(..), &mut actions);
        for action in actions.drain(..) {
            match action {
                Action::Disk { op, request, .. } => {
                    let result = self.disk.perform(request);
                    self.events.push(Event::Completed { op, result });
                }
                Action::Send { to, head, body } => {
                    let bytes = if body.is_empty() { head } else { join(&head, &body) };
                    wire.push_back((self.id, to, bytes));
                }
                Action::Machine(step) => self.step(step),
                Action::Respond { outcome, .. } => panic!("not applied: {outcome:?}"),
                Action::Halt(halt) => panic!("{halt}"),
                Action::Members(_) | Action::Note(_) => {}
            }
        }
        self.actions = actions;
    }

    /// A machine that only counts: its snapshot is empty.
    fn step(&mut self, step: Machine) {
        match step {
            Machine::Apply(entries) => {
                for command in entries.commands() {
                    self.commands += 1;
                    self.bytes += command.bytes.len() as u64;
                }
                self.events.push(Event::Applied { through: entries.last });
            }
            Machine::CaptureNext { capture, .. } => {
                let result = Ok(Chunk { bytes: Bytes::new(), last: true });
                self.events.push(Event::Captured { capture, result });
            }
            Machine::Capture { .. } | Machine::CaptureStop { .. } => {}
            Machine::Query { .. } | Machine::Restore { .. } => unreachable!("nobody asked"),
        }
    }
}

/// What a socket does: the parts leave one after the other and arrive in one buffer.
fn join(head: &[u8], body: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(head.len() + body.len());
    bytes.extend_from_slice(head);
    bytes.extend_from_slice(body);
    bytes.freeze()
}
