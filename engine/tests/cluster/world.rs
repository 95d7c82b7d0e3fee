//! Engines, their disks and the wires between them, on one clock that only the test moves.

use bytes::Bytes;
use lakebed::{
    Action, Batch, Completion, Config, DiskError, DiskRequest, Engine, Event, Extent, File,
    GroupId, Halt, Instant, Machine, Member, Membership, NodeId, Note, Outcome, ReadMode,
    RequestId, Requests, Role, Start, Timestamp,
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

pub(crate) const MS: u64 = 1_000_000;

/// So many bytes of its state a machine gives at a time, or few more.
const PIECE_BYTES: usize = 16 << 10;

/// A directory in memory: whatever is asked is done at once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(pub BTreeMap<File, Vec<u8>>);

impl Disk {
    pub(crate) fn perform(&mut self, request: DiskRequest) -> Result<Completion, DiskError> {
        match request {
            DiskRequest::List => {
                let listed = |(file, bytes): (&File, &Vec<u8>)| (*file, bytes.len() as u64);
                return Ok(Completion::Listed(self.0.iter().map(listed).collect()));
            }
            DiskRequest::Create { file, len, .. } => {
                self.0.insert(file, vec![0; len as usize]);
            }
            DiskRequest::Read { file, offset, len } => {
                let bytes = self.0.get(&file).ok_or(DiskError::NotFound)?;
                let start = bytes.len().min(offset as usize);
                let end = bytes.len().min(start + len as usize);
                return Ok(Completion::Read(Bytes::copy_from_slice(&bytes[start..end])));
            }
            DiskRequest::Write { file, at, and, .. } => {
                let bytes = self.0.get_mut(&file).ok_or(DiskError::NotFound)?;
                std::iter::once(at).chain(and).for_each(|extent| write(bytes, &extent));
            }
            DiskRequest::Rename { from, to } => {
                let bytes = self.0.remove(&from).ok_or(DiskError::NotFound)?;
                self.0.insert(to, bytes);
            }
            DiskRequest::Remove { file } => {
                self.0.remove(&file).ok_or(DiskError::NotFound)?;
            }
            DiskRequest::Sync { .. } | DiskRequest::SyncDirectory => {}
        }
        Ok(Completion::Done)
    }
}

fn write(bytes: &mut Vec<u8>, extent: &Extent) {
    let (start, end) = (extent.offset as usize, extent.end() as usize);
    bytes.resize(bytes.len().max(end), 0);
    bytes[start..end].copy_from_slice(&extent.whole());
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub engine: Engine,
    config: Config,
    pub disk: Disk,
    /// The state: every command, in order.
    pub machine: Vec<Vec<u8>>,
    view: VecDeque<Vec<u8>>,
    restoring: Vec<u8>,
    pub answered: Vec<u64>,
    pub queried: Vec<(u64, usize)>,
    pub ended: Vec<(u64, Outcome)>,
    pub halted: Option<Halt>,
    pub running: bool,
    lives: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub nodes: Vec<Node>,
    pub now: Instant,
    pub wire: VecDeque<(u64, u64, Bytes)>,
    /// All its messages vanish.
    pub isolated: Option<u64>,
    /// Everything that was done, for comparison.
    pub trace: Vec<String>,
}

fn members(count: u64) -> Arc<Membership> {
    let member = |id| Member { id: NodeId(id), incarnation: 0, address: Bytes::new() };
    Arc::new(Membership::of((1..=count).map(member)))
}

pub(crate) fn format(count: u64) -> Start {
    Start::Format { cluster: lakebed::ClusterId(77), members: members(count) }
}

impl World {
    pub(crate) fn formatted(count: u64) -> Self {
        Self::tuned(count, |_| {})
    }

    pub(crate) fn tuned(count: u64, tune: impl Fn(&mut Config)) -> Self {
        let mut world = Self::idle(count, tune);
        (1..=count).for_each(|id| drop(world.event(id, Event::Start(format(count)))));
        world
    }

    /// So many nodes of which none has started.
    pub(crate) fn idle(count: u64, tune: impl Fn(&mut Config)) -> Self {
        let node = |id| {
            let mut config = Config::new(GroupId(1), NodeId(id));
            config.disk_align = 512;
            config.segment_bytes = 4 << 20;
            tune(&mut config);
            Node {
                engine: Engine::new(config.clone(), id).expect("a valid configuration"),
                config,
                disk: Disk::default(),
                machine: Vec::new(),
                view: VecDeque::new(),
                restoring: Vec::new(),
                answered: Vec::new(),
                queried: Vec::new(),
                ended: Vec::new(),
                halted: None,
                running: true,
                lives: 1,
            }
        };
        let nodes = (1..=count).map(node).collect();
        let now = Instant(1_000_000 * MS);
        let (wire, trace) = (VecDeque::new(), Vec::new());
        Self { nodes, now, wire, isolated: None, trace }
    }

    pub(crate) fn at(&self, id: u64) -> &Node {
        &self.nodes[id as usize - 1]
    }

    pub(crate) fn node(&mut self, id: u64) -> &mut Node {
        &mut self.nodes[id as usize - 1]
    }

    /// The one leader of the greatest term.
    pub(crate) fn leader(&self) -> Option<u64> {
        let running = self.nodes.iter().filter(|node| node.running);
        let newest = running.max_by_key(|node| node.engine.status().term)?;
        let leader = newest.engine.status().leader?.0;
        (self.at(leader).engine.status().role == Role::Leader).then_some(leader)
    }

    /// Hands an event over and performs what comes of it, completions included.
    pub(crate) fn event(&mut self, id: u64, event: Event) -> Vec<Action> {
        let mut done = Vec::new();
        let mut events = vec![event];
        loop {
            let now = self.now;
            let mut actions = Vec::new();
            self.node(id).engine.handle(now, events.drain(..), &mut actions);
            done.extend(actions.iter().cloned());
            events = actions.into_iter().filter_map(|action| self.perform(id, action)).collect();
            if events.is_empty() {
                return done;
            }
        }
    }

    fn perform(&mut self, id: u64, action: Action) -> Option<Event> {
        self.trace.push(format!("{} {action:?}", self.now.0));
        match action {
            Action::Disk { op, request, .. } => {
                let result = self.node(id).disk.perform(request);
                return Some(Event::Completed { op, result });
            }
            Action::Send { to, head, body } => {
                self.wire.push_back((id, to.0, [head, body].concat().into()));
            }
            Action::Machine(step) => return self.node(id).step(step),
            Action::Respond { requests, outcome } => {
                let ended = requests.ids().map(|id| (id.0, outcome.clone()));
                self.node(id).ended.extend(ended);
            }
            Action::Note(Note::PeerFault { peer, reason }) => panic!("{id} of {peer}: {reason}"),
            Action::Note(_) | Action::Members(_) => {}
            Action::Halt(halt) => {
                let node = self.node(id);
                node.halted = Some(*halt);
                node.running = false;
            }
        }
        None
    }

    fn deliver(&mut self) {
        while let Some((from, to, bytes)) = self.wire.pop_front() {
            let cut = self.isolated == Some(from) || self.isolated == Some(to);
            if !cut && self.at(to).running {
                self.event(to, Event::Received { from: NodeId(from), bytes });
            }
        }
    }

    /// To the next deadline of any node.
    fn tick(&mut self) {
        let running = self.nodes.iter().filter(|node| node.running);
        let next = running.filter_map(|node| node.engine.deadline()).min();
        self.now = next.map_or(Instant(self.now.0 + MS), |next| next.max(self.now));
        for id in 1..=self.nodes.len() as u64 {
            let due = self.at(id).engine.deadline().is_some_and(|deadline| deadline <= self.now);
            if due && self.at(id).running {
                self.event(id, Event::Link { peer: NodeId(0), up: true });
            }
        }
    }

    pub(crate) fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let give_up = self.now.after(Duration::from_secs(60));
        self.deliver();
        while !holds(self) {
            assert!(self.now < give_up, "waited in vain: {what}");
            self.tick();
            self.deliver();
        }
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now.after(time);
        self.deliver();
        while self.now <= end {
            self.tick();
            self.deliver();
        }
    }

    pub(crate) fn propose(&mut self, at: u64, first: u64, commands: &[&str]) {
        let mut batch = Batch::default();
        commands.iter().for_each(|command| batch.push(command.as_bytes()));
        let (first, time) = (RequestId(first), Timestamp(self.now.0));
        self.event(at, Event::Propose { first, time, batch });
    }

    pub(crate) fn read(&mut self, at: u64, id: u64, mode: ReadMode) {
        self.event(at, Event::Read { requests: Requests::one(RequestId(id)), mode });
    }

    pub(crate) fn stop(&mut self, id: u64) {
        self.event(id, Event::Stop { hand_over: false });
    }

    pub(crate) fn restart(&mut self, id: u64, start: Start) {
        self.node(id).rise();
        self.event(id, Event::Start(start));
    }

    pub(crate) fn wipe(&mut self, id: u64) {
        let count = self.nodes.len() as u64;
        self.node(id).disk = Disk::default();
        self.restart(id, format(count));
    }
}

impl Node {
    /// A new engine over what the disk holds, which has not started.
    pub(crate) fn rise(&mut self) {
        self.lives += 1;
        let seed = self.config.node.0 * 1000 + self.lives;
        self.engine = Engine::new(self.config.clone(), seed).expect("as before");
        self.machine.clear();
        self.restoring.clear();
        (self.halted, self.running) = (None, true);
    }

    pub(crate) fn step(&mut self, step: Machine) -> Option<Event> {
        match step {
            Machine::Apply(entries) => {
                for command in entries.commands() {
                    self.machine.push(command.bytes.to_vec());
                    self.answered.extend(command.request.map(|id| id.0));
                }
                return Some(Event::Applied { through: entries.last });
            }
            Machine::Query { requests, .. } => {
                let seen = self.machine.len();
                self.queried.extend(requests.ids().map(|id| (id.0, seen)));
            }
            Machine::Capture { .. } => self.view = self.machine.iter().cloned().collect(),
            Machine::CaptureNext { capture, bytes_max } => {
                let mut bytes = Vec::new();
                while bytes.len() < (bytes_max as usize).min(PIECE_BYTES)
                    && let Some(piece) = self.view.pop_front()
                {
                    bytes.extend_from_slice(&(piece.len() as u32).to_le_bytes());
                    bytes.extend_from_slice(&piece);
                }
                let (bytes, last) = (bytes.into(), self.view.is_empty());
                let chunk = lakebed::Chunk { bytes, last };
                return Some(Event::Captured { capture, result: Ok(chunk) });
            }
            Machine::CaptureStop { .. } => self.view.clear(),
            Machine::Restore { offset, bytes, last, .. } => {
                return Some(self.restore(offset, &bytes, last));
            }
        }
        None
    }

    fn restore(&mut self, offset: u64, bytes: &[u8], last: bool) -> Event {
        if offset == 0 {
            self.restoring.clear();
        }
        self.restoring.extend_from_slice(bytes);
        if last {
            let mut rest = &self.restoring[..];
            self.machine.clear();
            while let Some((length, after)) = rest.split_first_chunk::<4>() {
                let (piece, after) = after.split_at(u32::from_le_bytes(*length) as usize);
                self.machine.push(piece.to_vec());
                rest = after;
            }
        }
        Event::Restored { through: offset + bytes.len() as u64, result: Ok(()) }
    }
}
