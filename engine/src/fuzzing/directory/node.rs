//! An engine with a disk in memory and a machine that remembers what it was told.

use crate::{
    Action, Batch, Clients, ClusterId, Completion, Config, Control, DiskError, DiskRequest, Engine,
    Event, GroupId, Halt, Instant, LogId, MachineError, Member, Membership, NodeId, Outcome, Phase,
    RequestId, Runner, Start, StateMachine, Timestamp, file::File,
};
use bytes::Bytes;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub(super) const GROUP: GroupId = GroupId(1);
/// No start of so small a node takes so many calls of its engine.
const CALLS_MAX: usize = 20_000;

/// Files; what a request does is done at once. Copies share what neither of them changed.
#[derive(Clone, Default)]
pub(super) struct Disk {
    pub(super) files: BTreeMap<File, Arc<Vec<u8>>>,
    /// How many requests changed something.
    pub(super) changes: u64,
}

impl Disk {
    fn perform(&mut self, request: DiskRequest) -> Result<Completion, DiskError> {
        self.changes += u64::from(!matches!(request, DiskRequest::List | DiskRequest::Read { .. }));
        match request {
            DiskRequest::List => {
                let length = |(file, bytes): (&File, &Arc<Vec<u8>>)| (*file, bytes.len() as u64);
                return Ok(Completion::Listed(self.files.iter().map(length).collect()));
            }
            DiskRequest::Read { file, offset, len } => {
                let bytes = self.files.get(&file).ok_or(DiskError::NotFound)?;
                let from = bytes.len().min(offset as usize);
                let to = bytes.len().min(from + len as usize);
                return Ok(Completion::Read(Bytes::copy_from_slice(&bytes[from..to])));
            }
            DiskRequest::Create { file, len, .. } => {
                self.files.insert(file, vec![0; len as usize].into());
            }
            DiskRequest::Write { file, at, and, .. } => {
                let bytes = Arc::make_mut(self.files.get_mut(&file).ok_or(DiskError::NotFound)?);
                for extent in [Some(at), and].into_iter().flatten() {
                    let (from, to) = (extent.offset as usize, extent.end() as usize);
                    bytes.resize(bytes.len().max(to), 0);
                    bytes[from..to].copy_from_slice(&extent.whole());
                }
            }
            DiskRequest::Rename { from, to } => {
                let bytes = self.files.remove(&from).ok_or(DiskError::NotFound)?;
                self.files.insert(to, bytes);
            }
            DiskRequest::Remove { file } => {
                self.files.remove(&file).ok_or(DiskError::NotFound)?;
            }
            DiskRequest::Sync { .. } | DiskRequest::SyncDirectory => {}
        }
        Ok(Completion::Done)
    }
}

/// Every command it was told, one behind the other.
#[derive(Default)]
struct Told(Vec<u8>);

impl StateMachine for Told {
    fn apply(&mut self, _: LogId, _: Timestamp, command: &[u8], _: &mut Vec<u8>) {
        self.0.extend_from_slice(command);
    }

    fn query(&self, _: &[u8], _: &mut Vec<u8>) {}

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        Box::new(std::iter::once(Bytes::from(self.0.clone())))
    }

    fn restore(&mut self, offset: u64, bytes: &[u8], _: bool) -> Result<(), MachineError> {
        self.0.truncate(offset as usize);
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Nobody waits for an answer.
struct Nobody;

impl Clients for Nobody {
    fn query(&mut self, _: RequestId) -> &[u8] {
        &[]
    }

    fn answer(&mut self, _: RequestId, _: Result<&[u8], &Outcome>) {}
}

pub(super) struct Node {
    engine: Engine,
    runner: Runner<Told>,
    now: Instant,
    pub(super) disk: Disk,
    pub(super) halted: Option<Halt>,
}

impl Node {
    /// Starts, and does what can be done without waiting.
    pub(super) fn start(disk: Disk, start: Start) -> Self {
        let mut config = Config::new(GROUP, NodeId(1));
        config.disk_align = 512;
        config.segment_bytes = 16 << 10;
        config.tuning.append_bytes_max = 4 << 10;
        config.tuning.snapshot_log_bytes = 0;
        let engine = Engine::new(config, 42).expect("the configuration is valid");
        let (runner, now) = (Runner::new(Told::default()), Instant(1_000_000_000));
        let mut node = Self { engine, runner, now, disk, halted: None };
        node.hand(Event::Start(start));
        node
    }

    /// Hands it an event, and whatever follows from that.
    fn hand(&mut self, event: Event) {
        let (mut events, mut actions) = (vec![event], Vec::new());
        for _ in 0..CALLS_MAX {
            self.engine.handle(self.now, events.drain(..), &mut actions);
            for action in actions.drain(..) {
                match action {
                    Action::Disk { op, request, .. } => {
                        let result = self.disk.perform(request);
                        events.push(Event::Completed { op, result });
                    }
                    Action::Machine(step) => events.extend(self.runner.perform(step, &mut Nobody)),
                    Action::Halt(halt) => {
                        self.halted = Some(*halt);
                        return;
                    }
                    _ => {}
                }
            }
            if events.is_empty() {
                return;
            }
        }
        panic!("{CALLS_MAX} calls, and still in phase {:?}", self.phase());
    }

    /// Time goes on for as long as an election takes, and then some.
    pub(super) fn go_on(&mut self) {
        let end = self.now.after(Duration::from_secs(5));
        while self.halted.is_none()
            && let Some(deadline) = self.engine.deadline()
            && deadline < end
        {
            self.now = self.now.max(deadline);
            // Time has come: that nothing else happened is all that there is to say.
            self.hand(Event::Link { peer: NodeId(9), up: false });
        }
        self.now = end;
    }

    pub(super) fn phase(&self) -> Phase {
        self.engine.status().recovery.phase
    }

    /// What its machine was told.
    pub(super) fn state(&self) -> &[u8] {
        &self.runner.machine.0
    }
}

/// The disk of a node that is alone and lived through full segments, two snapshots and a restart;
/// and what its machine was told.
pub(super) fn live() -> (Disk, Vec<u8>) {
    let me = Member { id: NodeId(1), incarnation: 0, address: Bytes::new() };
    let members = Arc::new(Membership::of([me]));
    let mut node = Node::start(Disk::default(), Start::Format { cluster: ClusterId(5), members });
    let mut proposed = 0;
    for round in 0..3 {
        node.go_on();
        for n in 0..40 {
            let command = [round as u8, n as u8].repeat(1 + n * 37 % 200);
            let (first, time) = (RequestId(proposed), Timestamp(proposed + 1));
            node.hand(Event::Propose { first, time, batch: Batch::one(&command) });
            proposed += 1;
        }
        if round < 2 {
            let id = RequestId(1_000_000 + round);
            node.hand(Event::Control { id, control: Control::Snapshot });
            node = Node::start(node.disk, Start::Run);
        }
    }
    node.go_on();
    (node.disk.clone(), node.state().to_vec())
}
