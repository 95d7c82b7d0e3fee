//! One node: a real engine, its disk, and a machine that only hashes what it is given.
//!
//! Knows no other node. What the engine wants sent is handed back; whatever can be done at once
//! (applying, starting again after a power cut) is.

use crate::disk::Disk;
use bytes::{Bytes, BytesMut};
use lakebed::{
    Action, Chunk, Config, Engine, Event, GroupId, Halt, Instant, LogIndex, Machine, NodeId, Start,
    Tuning, inspect::Probe,
};
use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
};

/// What a node wants said to another.
pub(crate) type Send = (NodeId, Bytes);

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) engine: Engine,
    pub(crate) disk: Disk,
    now: Instant,
    /// How often it was started.
    lives: u64,
    /// The last applied entry, and a hash of all that were.
    pub(crate) applied: (LogIndex, u64),
    /// What the machine was given since this was last asked.
    pub(crate) fresh: Vec<(LogIndex, u64)>,
    /// Why the engine ended, if it has.
    pub(crate) halt: Option<Box<Halt>>,
    /// Of engine, disk and machine.
    print: u64,
}

fn config(id: NodeId) -> Config {
    let mut config = Config::new(GroupId(1), id);
    config.disk_align = 512;
    config.segment_bytes = 1 << 14;
    config.tuning.append_bytes_max = 1 << 12;
    config
}

/// Each entry goes out by itself.
pub(crate) fn narrow() -> Tuning {
    let mut tuning = config(NodeId(1)).tuning;
    tuning.append_bytes_max = 96;
    tuning
}

/// What an engine draws, its disk's identity above all, is another thing in each life.
fn engine(id: NodeId, life: u64) -> Engine {
    let seed = if life == 1 { id.0 } else { life << 8 | id.0 };
    Engine::new(config(id), seed).expect("a good configuration")
}

impl Node {
    /// A node that is being started in this way; everything its disk is asked is done at once.
    pub(crate) fn start(id: NodeId, life: u64, start: Start) -> (Self, Vec<Send>) {
        let mut node = Self {
            id,
            engine: engine(id, life),
            disk: Disk::default(),
            now: Instant(0),
            lives: life,
            applied: (LogIndex(0), 0),
            fresh: Vec::new(),
            halt: None,
            print: 0,
        };
        let mut sends = node.handle(vec![Event::Start(start)]);
        sends.extend(node.let_disk_catch_up());
        node.take_print();
        (node, sends)
    }

    pub(crate) fn probe(&self) -> Probe {
        self.engine.probe()
    }

    pub(crate) fn is_gated(&self) -> bool {
        self.probe().gated
    }

    pub(crate) fn has_learner(&self) -> bool {
        self.engine.membership().is_some_and(|members| !members.learners.is_empty())
    }

    /// These happen now.
    pub(crate) fn handle(&mut self, events: Vec<Event>) -> Vec<Send> {
        let (mut events, mut sends) = (events, Vec::new());
        loop {
            let mut actions = Vec::new();
            self.engine.handle(self.now, events.drain(..), &mut actions);
            for action in actions {
                self.carry_out(action, &mut events, &mut sends);
            }
            if events.is_empty() {
                break;
            }
        }
        sends
    }

    fn carry_out(&mut self, action: Action, events: &mut Vec<Event>, sends: &mut Vec<Send>) {
        match action {
            Action::Disk { op, request, .. } => self.disk.submit(op, request),
            Action::Send { to, head, body } => {
                let mut bytes = BytesMut::from(&head[..]);
                bytes.extend_from_slice(&body);
                sends.push((to, bytes.freeze()));
            }
            Action::Machine(Machine::Apply(entries)) => {
                for entry in entries.entries() {
                    let mut hasher = DefaultHasher::new();
                    (self.applied.1, entry.id.term.0, entry.body).hash(&mut hasher);
                    self.applied = (entry.id.index, hasher.finish());
                    self.fresh.push(self.applied);
                }
                events.push(Event::Applied { through: entries.last });
            }
            Action::Machine(Machine::CaptureNext { capture, .. }) => {
                let result = Ok(Chunk { bytes: Bytes::new(), last: true });
                events.push(Event::Captured { capture, result });
            }
            Action::Machine(step @ (Machine::Restore { .. } | Machine::Query { .. })) => {
                unreachable!("nobody reads, and no log is long enough for a snapshot: {step:?}")
            }
            Action::Halt(halt) => self.halt = Some(halt),
            Action::Respond { .. }
            | Action::Machine(Machine::Capture { .. } | Machine::CaptureStop { .. })
            | Action::Members(_)
            | Action::Note(_) => {}
        }
    }

    /// Its disk does all that was asked of it, one after the other.
    pub(crate) fn let_disk_catch_up(&mut self) -> Vec<Send> {
        let mut sends = Vec::new();
        while let Some((op, result)) = self.disk.go_on() {
            sends.extend(self.handle(vec![Event::Completed { op, result }]));
        }
        sends
    }

    /// Time passes until it has something to say, or to write.
    pub(crate) fn wait(&mut self) -> Vec<Send> {
        const TIMERS_MAX: usize = 8;
        for _ in 0..TIMERS_MAX {
            let Some(deadline) = self.engine.deadline() else { break };
            self.now = self.now.max(deadline);
            let sends = self.handle(Vec::new());
            if !sends.is_empty() || !self.disk.is_idle() {
                return sends;
            }
        }
        Vec::new()
    }

    /// The power fails, and comes back; the log may not.
    pub(crate) fn lose_power(&mut self, keeps: bool, loses_log: bool) -> Vec<Send> {
        self.disk.lose_power(keeps);
        if loses_log {
            self.disk.lose_log();
        }
        self.live_again(Start::Run)
    }

    /// Its disk is gone, and another one is formatted.
    pub(crate) fn begin_anew(&mut self, start: Start) -> Vec<Send> {
        self.disk = Disk::default();
        self.live_again(start)
    }

    fn live_again(&mut self, start: Start) -> Vec<Send> {
        self.lives += 1;
        self.engine = engine(self.id, self.lives);
        self.applied = (LogIndex(0), 0);
        let mut sends = self.handle(vec![Event::Start(start)]);
        sends.extend(self.let_disk_catch_up());
        sends
    }

    /// What it is told from other states by, after it was changed. Of its random numbers an engine prints
    /// nothing.
    pub(crate) fn take_print(&mut self) {
        let mut hasher = DefaultHasher::new();
        format!("{:?}", self.engine).hash(&mut hasher);
        (&self.disk, self.applied, self.lives, self.halt.is_some()).hash(&mut hasher);
        self.print = hasher.finish();
    }
}

impl Hash for Node {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.print.hash(state);
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.print == other.print
    }
}
