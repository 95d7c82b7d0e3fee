//! The peer: the `raft` crate over its memory storage, each message through its protobuf.
//!
//! In two settings. *Usual*: as its users write it, `propose` for each command, appends to one peer
//! merged (`batch_append`), messages parsed from a slice. *Tuned*: as fast as we could make it, a
//! batch stepped as one proposal of many entries, payloads shared with the received buffer, commits
//! told with the next append (`skip_bcast_commit`). In both the log is compacted in large steps and
//! nothing waits.

use super::Cluster;
use bytes::Bytes;
use protobuf::Message as _;
use raft::{
    Config, Ready,
    eraftpb::{Entry, Message, MessageType},
    raw_node::RawNode,
    storage::MemStorage,
};
use std::collections::VecDeque;

/// Applied entries kept before the memory storage is compacted.
const KEPT: u64 = 16 << 10;

/// How the peer is used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    Usual,
    Tuned,
}

pub struct Raft {
    setting: Setting,
    nodes: Vec<Node>,
    wire: VecDeque<(u64, Bytes)>,
}

struct Node {
    raw: RawNode<MemStorage>,
    first: u64,
    commands: u64,
    bytes: u64,
}

impl Raft {
    pub fn new(setting: Setting) -> Self {
        let nodes = (1..=3).map(|id| Node::new(id, setting)).collect();
        let mut cluster = Self { setting, nodes, wire: VecDeque::new() };
        cluster.nodes[0].raw.campaign().expect("a voter may campaign");
        cluster.settle();
        assert_eq!(cluster.nodes[0].raw.raft.leader_id, 1);
        cluster
    }

    /// Until nobody has anything to do.
    fn settle(&mut self) {
        loop {
            for node in &mut self.nodes {
                while node.raw.has_ready() {
                    node.act(&mut self.wire);
                }
            }
            if self.wire.is_empty() {
                break;
            }
            self.deliver();
        }
    }

    fn deliver(&mut self) {
        while let Some((to, bytes)) = self.wire.pop_front() {
            let message = match self.setting {
                Setting::Usual => Message::parse_from_bytes(&bytes),
                Setting::Tuned => Message::parse_from_carllerche_bytes(&bytes),
            }
            .expect("it was encoded");
            let node = &mut self.nodes[to as usize - 1];
            node.raw.step(message).expect("a member's message");
        }
    }
}

fn proposal(commands: &[Vec<u8>]) -> Message {
    let entry =
        |command: &Vec<u8>| Entry { data: Bytes::copy_from_slice(command), ..Entry::default() };
    let mut proposal = Message { from: 1, ..Message::default() };
    proposal.set_msg_type(MessageType::MsgPropose);
    proposal.entries = commands.iter().map(entry).collect::<Vec<_>>().into();
    proposal
}

impl Cluster for Raft {
    fn commit(&mut self, commands: &[Vec<u8>]) {
        let leader = &mut self.nodes[0].raw;
        match self.setting {
            Setting::Usual => {
                for command in commands {
                    leader.propose(Vec::new(), command.clone()).expect("node 1 leads");
                }
            }
            Setting::Tuned => leader.step(proposal(commands)).expect("node 1 leads"),
        }
        self.settle();
    }

    fn finish(&mut self) {
        self.nodes[0].raw.ping();
        self.settle();
    }

    fn applied(&self) -> [(u64, u64); 3] {
        [0, 1, 2].map(|n| (self.nodes[n].commands, self.nodes[n].bytes))
    }
}

impl Node {
    fn new(id: u64, setting: Setting) -> Self {
        let config = Config {
            id,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 256,
            batch_append: setting == Setting::Usual,
            skip_bcast_commit: setting == Setting::Tuned,
            ..Config::new(id)
        };
        let storage = MemStorage::new_with_conf_state((vec![1, 2, 3], vec![]));
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&config, storage, &logger).expect("a good configuration");
        Self { raw, first: 1, commands: 0, bytes: 0 }
    }

    fn act(&mut self, wire: &mut VecDeque<(u64, Bytes)>) {
        let mut ready = self.raw.ready();
        send(ready.take_messages(), wire);
        self.apply(ready.take_committed_entries());
        self.store(&ready);
        send(ready.take_persisted_messages(), wire);
        let mut light = self.raw.advance(ready);
        if let Some(commit) = light.commit_index() {
            self.raw.mut_store().wl().mut_hard_state().set_commit(commit);
        }
        send(light.take_messages(), wire);
        self.apply(light.take_committed_entries());
        self.raw.advance_apply();
        self.compact();
    }

    fn store(&mut self, ready: &Ready) {
        let mut store = self.raw.store().wl();
        if !ready.entries().is_empty() {
            store.append(ready.entries()).expect("entries follow each other");
        }
        if let Some(hard_state) = ready.hs() {
            store.set_hardstate(hard_state.clone());
        }
    }

    fn apply(&mut self, entries: Vec<Entry>) {
        for entry in entries.iter().filter(|entry| !entry.data.is_empty()) {
            self.commands += 1;
            self.bytes += entry.data.len() as u64;
        }
    }

    fn compact(&mut self) {
        let applied = self.raw.raft.raft_log.applied;
        if applied > self.first + KEPT {
            self.first = applied - 1;
            self.raw.mut_store().wl().compact(self.first).expect("it was applied");
        }
    }
}

fn send(messages: Vec<Message>, wire: &mut VecDeque<(u64, Bytes)>) {
    for message in messages {
        let bytes = message.write_to_bytes().expect("a message can be encoded");
        wire.push_back((message.to, bytes.into()));
    }
}
