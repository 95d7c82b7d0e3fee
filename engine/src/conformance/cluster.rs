//! A real engine with a client of its own: whoever leads is given commands, all nodes stop when
//! all have applied them.

use crate::{
    Action, Batch, Engine, Event, Instant, LogIndex, Machine, RequestId, Role, Runs, Timestamp,
};
use std::sync::{Arc, Mutex};

/// Commands of one life of the cluster.
pub(super) const COMMANDS: u32 = 400;
/// Commands of one proposal.
const BATCH: u32 = 8;
/// The driver's own requests are numbered from zero: these are ours.
const FIRST_REQUEST: u64 = 1 << 63;

/// What the clients of one life know of each other.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Where the last command lies, once it was applied by whoever proposed it.
    end: Option<LogIndex>,
    /// Nodes that are there.
    arrived: u64,
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) engine: Engine,
    shared: Arc<Mutex<Progress>>,
    nodes: u64,
    proposed: u32,
    applied: u32,
    /// A batch is on its way.
    waits: bool,
    /// The last entry with a command of ours.
    last: LogIndex,
    through: LogIndex,
    arrived: bool,
    stopping: bool,
}

impl Client {
    pub(super) const fn new(engine: Engine, shared: Arc<Mutex<Progress>>, nodes: u64) -> Self {
        Self {
            engine,
            shared,
            nodes,
            proposed: 0,
            applied: 0,
            waits: false,
            last: LogIndex(0),
            through: LogIndex(0),
            arrived: false,
            stopping: false,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.engine.deadline()
    }

    pub(super) fn handle(
        &mut self,
        now: Instant,
        mut events: Vec<Event>,
        actions: &mut Vec<Action>,
    ) {
        for event in &events {
            if let Event::Applied { through } = event {
                self.through = *through;
            }
        }
        events.extend(self.next(now));
        let mut asked = Vec::new();
        self.engine.handle(now, events, &mut asked);
        actions.extend(asked.into_iter().filter_map(|action| self.pass(action)));
    }

    /// What the client does next, if anything.
    fn next(&mut self, now: Instant) -> Option<Event> {
        let mut shared = self.shared.lock().expect("nothing panics while it holds the progress");
        if shared.end.is_some_and(|end| self.through >= end) && !self.arrived {
            self.arrived = true;
            shared.arrived += 1;
        }
        if shared.arrived == self.nodes && !self.stopping {
            self.stopping = true;
            return Some(Event::Stop { hand_over: false });
        }
        if self.applied >= COMMANDS && self.through >= self.last {
            shared.end.get_or_insert(self.last);
        }
        let leads = self.engine.status().role == Role::Leader;
        if !leads || self.waits || shared.end.is_some() || self.applied >= COMMANDS {
            return None;
        }
        drop(shared);
        Some(self.propose(now))
    }

    fn propose(&mut self, now: Instant) -> Event {
        let node = self.engine.status().node;
        let mut batch = Batch::default();
        for n in self.proposed..self.proposed + BATCH {
            batch.push(format!("command {n} of node {node}").as_bytes());
        }
        let first = RequestId(FIRST_REQUEST + u64::from(self.proposed));
        self.proposed += BATCH;
        self.waits = true;
        Event::Propose { first, time: Timestamp(now.0), batch }
    }

    /// Keeps from the driver what it did not ask for.
    fn pass(&mut self, action: Action) -> Option<Action> {
        match action {
            Action::Machine(Machine::Apply(mut entries)) => {
                let ours = entries.commands().filter(|command| command.request.is_some()).count();
                if ours > 0 {
                    self.applied += ours as u32;
                    self.waits = false;
                    self.last = entries.last;
                }
                entries.runs = Runs::None;
                Some(Action::Machine(Machine::Apply(entries)))
            }
            Action::Respond { requests, .. } if requests.first.0 >= FIRST_REQUEST => {
                self.waits = false;
                None
            }
            other => Some(other),
        }
    }
}
