//! A core that asks for what it was told to ask for, step by step, and compares what comes back.
//! What no request can make of a node's directory, it puts there itself.

use super::{Clause, Witness, ledger::Ledger};
use crate::{
    Action, CaptureId, Class, Completion, DiskError, DiskRequest, Event, File, Halt, Instant,
    LogIndex, Machine, MachineError, OpId,
};
use std::{
    collections::{BTreeMap, VecDeque},
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

/// Pieces of a capture are asked for in this size.
const PIECE_BYTES: u32 = 7;

/// What is asked for at one time, and what must have happened before the next step.
#[derive(Debug, Default)]
pub(super) struct Step {
    emit: Vec<Action>,
    planted: Vec<Plant>,
    /// The operations are to be as if there had been no former core.
    follows_a_core: bool,
    ops: BTreeMap<OpId, Ending>,
    applied: Option<LogIndex>,
    capture: Option<(CaptureId, Vec<u8>)>,
    /// Restores that are yet to be answered: whether the machine refuses each.
    restores: VecDeque<bool>,
    wait: Option<Duration>,
}

/// How an operation must end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// Exactly so.
    With(Result<Completion, DiskError>),
    /// Done, unless a fault was put in: the ledger knows.
    Either,
    /// Failed, whichever way the driver came to it.
    Fails,
    /// Nobody waits for it.
    Unseen,
}

/// The device on which every write finds no room, and which cannot be synced.
pub(super) const FULL: &str = "/dev/full";
/// The device that takes whatever is written, and cannot be synced.
const NULL: &str = "/dev/null";
/// How the system says that there is no room; a driver says [`DiskError::Full`].
const NO_ROOM_UNNAMED: DiskError = DiskError::Io { errno: 28 };

/// What is put into the node's directory before a step.
#[derive(Clone, Copy, Debug)]
pub(super) enum Plant {
    /// A file of the engine's that lies on [`FULL`].
    Full(File),
    /// A file of the engine's that lies on [`NULL`].
    Unsynced(File),
    /// A file that is not the engine's.
    Foreign(&'static str),
}

impl Plant {
    fn put(self, directory: &Path) -> io::Result<()> {
        match self {
            Self::Full(file) => symlink(FULL, directory.join(file.name())),
            Self::Unsynced(file) => symlink(NULL, directory.join(file.name())),
            Self::Foreign(name) => fs::write(directory.join(name), name),
        }
    }
}

impl Step {
    pub(super) fn planted(mut self, plant: Plant) -> Self {
        self.planted.push(plant);
        self
    }

    pub(super) fn following_a_core(mut self) -> Self {
        self.follows_a_core = true;
        self
    }

    pub(super) fn disk(
        mut self,
        op: u64,
        request: DiskRequest,
        result: Result<Completion, DiskError>,
    ) -> Self {
        self.ask(op, request, Ending::With(result));
        self
    }

    /// An operation that a `FaultyDisk` may fail.
    pub(super) fn either(mut self, op: u64, request: DiskRequest) -> Self {
        self.ask(op, request, Ending::Either);
        self
    }

    /// An operation that cannot succeed.
    pub(super) fn fails(mut self, op: u64, request: DiskRequest) -> Self {
        self.ask(op, request, Ending::Fails);
        self
    }

    /// An operation that nobody waits for.
    pub(super) fn unseen(mut self, op: u64, request: DiskRequest) -> Self {
        self.ask(op, request, Ending::Unseen);
        self
    }

    fn ask(&mut self, op: u64, request: DiskRequest, ending: Ending) {
        let op = OpId(op);
        if ending != Ending::Unseen {
            self.ops.insert(op, ending);
        }
        self.emit.push(Action::Disk { op, class: Class::Commit, request });
    }

    pub(super) fn machine(mut self, step: Machine) -> Self {
        match &step {
            Machine::Apply(entries) => self.applied = Some(entries.last),
            Machine::Restore { .. } => self.restores.push_back(false),
            _ => {}
        }
        self.emit.push(Action::Machine(step));
        self
    }

    /// Bytes of a state which the machine refuses.
    pub(super) fn refused(mut self, step: Machine) -> Self {
        self.restores.push_back(true);
        self.emit.push(Action::Machine(step));
        self
    }

    /// Asks for the whole of a capture, which must be this.
    pub(super) fn captured(mut self, capture: CaptureId, state: Vec<u8>) -> Self {
        self.emit.push(next_piece(capture));
        self.capture = Some((capture, state));
        self
    }

    /// The next step comes when this much time has passed.
    pub(super) fn wait(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }

    fn is_done(&self) -> bool {
        self.ops.is_empty() && self.is_answered() && self.capture.is_none() && self.wait.is_none()
    }

    /// All that changes the machine.
    fn is_answered(&self) -> bool {
        self.applied.is_none() && self.restores.is_empty()
    }
}

const fn next_piece(capture: CaptureId) -> Action {
    Action::Machine(Machine::CaptureNext { capture, bytes_max: PIECE_BYTES })
}

#[derive(Debug)]
pub(super) struct Script {
    directory: PathBuf,
    steps: VecDeque<Step>,
    current: Step,
    /// The driver's.
    machine: Witness,
    /// One that was told what the step at hand and those before it say.
    model: Witness,
    deadline: Option<Instant>,
    begun: bool,
}

impl Script {
    pub(super) fn new(steps: Vec<Step>, directory: PathBuf, machine: Witness) -> Self {
        let (steps, current) = (steps.into(), Step::default());
        let model = Witness::default();
        Self { directory, steps, current, machine, model, deadline: None, begun: false }
    }

    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(super) fn handle(
        &mut self,
        now: Instant,
        events: Vec<Event>,
        actions: &mut Vec<Action>,
        ledger: &mut Ledger,
    ) {
        self.begun |= !events.is_empty();
        events.into_iter().for_each(|event| self.on_event(event, actions, ledger));
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            self.deadline = None;
            self.current.wait = None;
        }
        while self.begun && self.current.is_done() {
            let Some(mut next) = self.steps.pop_front() else {
                return actions.push(Action::Halt(Box::new(Halt::Stopped)));
            };
            for plant in next.planted.drain(..) {
                // A driver without files has no place for it, and finds nothing there.
                let _ = plant.put(&self.directory);
            }
            next.emit.iter().for_each(|action| self.model.follow(action));
            actions.append(&mut next.emit);
            self.deadline = next.wait.map(|wait| now.after(wait));
            self.current = next;
        }
    }

    fn on_event(&mut self, event: Event, actions: &mut Vec<Action>, ledger: &mut Ledger) {
        match event {
            Event::Completed { op, result } => self.on_completed(op, result, ledger),
            Event::Applied { through } => self.on_applied(through, ledger),
            Event::Restored { result, .. } => self.on_restored(result, ledger),
            Event::Captured { capture, result: Ok(chunk) } => {
                self.on_piece(capture, &chunk.bytes, chunk.last, actions, ledger);
            }
            _ => {}
        }
    }

    fn on_applied(&mut self, through: LogIndex, ledger: &mut Ledger) {
        if self.current.applied.take_if(|last| *last == through).is_some() {
            self.compare_machine(ledger);
        }
    }

    /// What is said to be done must have been done: nothing else is on its way to the machine.
    fn compare_machine(&self, ledger: &mut Ledger) {
        if self.current.is_answered() && *self.machine.state() != *self.model.state() {
            let detail = "the machine was not told what is said to be applied or restored";
            ledger.breach(Clause::MachineInOrder, detail);
        }
    }

    /// The ledger has seen that it is the answer to the first of them.
    fn on_restored(&mut self, result: Result<(), MachineError>, ledger: &mut Ledger) {
        let Some(is_refused) = self.current.restores.pop_front() else { return };
        match result {
            Ok(()) if is_refused => {
                let detail = "the machine refused a state, told was that it took it";
                ledger.breach(Clause::MachineInOrder, detail);
            }
            Err(error) if !is_refused => {
                ledger.breach(Clause::MachineInOrder, error.to_string());
            }
            _ => {}
        }
        self.compare_machine(ledger);
    }

    fn on_completed(
        &mut self,
        op: OpId,
        result: Result<Completion, DiskError>,
        ledger: &mut Ledger,
    ) {
        match self.current.ops.remove(&op) {
            Some(Ending::With(expected)) if expected != result => {
                let detail = format!("{op:?}: {} where {}", brief(&result), brief(&expected));
                let clause = if self.current.follows_a_core {
                    Clause::FormerLife
                } else {
                    Clause::DiskContent
                };
                ledger.breach(clause, detail + " was expected");
            }
            Some(Ending::Either) if result.is_err() && !ledger.has_failed(op) => {
                ledger.breach(
                    Clause::FailureTold,
                    format!("{op:?} did not fail, told was {result:?}"),
                );
            }
            Some(Ending::Fails) if matches!(result, Ok(_) | Err(NO_ROOM_UNNAMED)) => {
                let detail = format!("{op:?} cannot succeed, told was {}", brief(&result));
                ledger.breach(Clause::FailureTold, detail);
            }
            _ => {}
        }
    }

    fn on_piece(
        &mut self,
        capture: CaptureId,
        piece: &[u8],
        last: bool,
        actions: &mut Vec<Action>,
        ledger: &mut Ledger,
    ) {
        let Some((_, rest)) = self.current.capture.as_mut().filter(|(id, _)| *id == capture) else {
            return;
        };
        if !rest.starts_with(piece) || (last && rest.len() > piece.len()) {
            let detail = "the captured state is not what was applied before the capture";
            ledger.breach(Clause::MachineInOrder, detail);
        } else if last {
            self.current.capture = None;
        } else {
            rest.drain(..piece.len());
            actions.push(next_piece(capture));
        }
    }
}

/// Long contents say nothing to a reader.
fn brief(result: &Result<Completion, DiskError>) -> String {
    match result {
        Ok(Completion::Read(bytes)) => {
            format!("{} bytes read, {:?}..", bytes.len(), &bytes[..bytes.len().min(4)])
        }
        other => format!("{other:?}"),
    }
}
