//! A core that asks for what it was told to ask for, step by step, and compares what comes back.

use super::{Clause, ledger::Ledger};
use crate::{
    Action, CaptureId, Class, Completion, DiskError, DiskRequest, Event, Halt, Instant, LogIndex,
    Machine, OpId,
};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// Pieces of a capture are asked for in this size.
const PIECE_BYTES: u32 = 7;

/// What is asked for at one time, and what must have happened before the next step.
#[derive(Debug, Default)]
pub(super) struct Step {
    emit: Vec<Action>,
    ops: BTreeMap<OpId, Ending>,
    applied: Option<LogIndex>,
    capture: Option<(CaptureId, Vec<u8>)>,
    restored: Option<u64>,
    wait: Option<Duration>,
}

/// How an operation must end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// Exactly so.
    With(Result<Completion, DiskError>),
    /// Done, unless a fault was put in: the ledger knows.
    Either,
    /// Nobody waits for it.
    Unseen,
}

impl Step {
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
            Machine::Restore { offset, bytes, .. } => {
                self.restored = Some(offset + bytes.len() as u64);
            }
            _ => {}
        }
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
        self.ops.is_empty()
            && self.applied.is_none()
            && self.capture.is_none()
            && self.restored.is_none()
            && self.wait.is_none()
    }
}

const fn next_piece(capture: CaptureId) -> Action {
    Action::Machine(Machine::CaptureNext { capture, bytes_max: PIECE_BYTES })
}

#[derive(Debug)]
pub(super) struct Script {
    steps: VecDeque<Step>,
    current: Step,
    deadline: Option<Instant>,
    begun: bool,
}

impl Script {
    pub(super) fn new(steps: Vec<Step>) -> Self {
        Self { steps: steps.into(), current: Step::default(), deadline: None, begun: false }
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
            actions.append(&mut next.emit);
            self.deadline = next.wait.map(|wait| now.after(wait));
            self.current = next;
        }
    }

    fn on_event(&mut self, event: Event, actions: &mut Vec<Action>, ledger: &mut Ledger) {
        match event {
            Event::Completed { op, result } => self.on_completed(op, result, ledger),
            Event::Applied { through } => {
                self.current.applied.take_if(|last| *last == through);
            }
            Event::Restored { through, result } => {
                if let Err(error) = result {
                    ledger.breach(Clause::MachineInOrder, error.to_string());
                }
                self.current.restored.take_if(|end| *end == through);
            }
            Event::Captured { capture, result: Ok(chunk) } => {
                self.on_piece(capture, &chunk.bytes, chunk.last, actions, ledger);
            }
            _ => {}
        }
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
                ledger.breach(Clause::DiskContent, detail + " was expected");
            }
            Some(Ending::Either) if result.is_err() && !ledger.has_failed(op) => {
                ledger.breach(
                    Clause::FailureTold,
                    format!("{op:?} did not fail, told was {result:?}"),
                );
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
