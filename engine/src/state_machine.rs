//! What an application writes, and the machine lane for one that answers at once.

use crate::{
    action::{Machine, Outcome},
    event::{Chunk, Event, MachineError},
    types::{CaptureId, LogId, RequestId, Requests, Timestamp},
};
use bytes::Bytes;
use std::iter::Peekable;

/// A replicated state. Deterministic and total, without I/O: the same commands in the same order
/// give the same state and the same answers on every node.
pub trait StateMachine {
    /// Applies one command and writes its answer. `time` is the clock of the leader that made the
    /// entry ([`Event::time`](crate::Event::time)), or that of an earlier entry if that was later: a
    /// leader whose clock is ahead takes all along. It is the only one a command may look at. It does
    /// not go back.
    fn apply(&mut self, at: LogId, time: Timestamp, command: &[u8], answer: &mut Vec<u8>);

    /// Some of the commands that are applied next, in that order. A machine that waits for memory in
    /// `apply` may look here at what they will need, of many of them at once. Nothing may follow from
    /// it but speed: whether it is called, and with how many, differs between nodes.
    fn foresee(&self, _commands: &mut dyn Iterator<Item = &[u8]>) {}

    /// Answers a query without changing anything.
    fn query(&self, query: &[u8], answer: &mut Vec<u8>);

    /// A view of the state that later applies do not change, in pieces of any size. The bytes are
    /// the same on every node that applied the same commands.
    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send>;

    /// Takes in the next bytes of a frozen view, cut anywhere. `offset` zero: forget everything
    /// first. After `last` the machine is what it was when the view was frozen. No bytes at `offset`
    /// zero, and not `last`: what was taken in was bad, and all is applied anew, or another view
    /// begins.
    fn restore(&mut self, offset: u64, bytes: &[u8], last: bool) -> Result<(), MachineError>;
}

/// Where a driver keeps those who wait. One owner can lend a query and then take its answer.
pub trait Clients {
    /// The query of this request.
    fn query(&mut self, id: RequestId) -> &[u8];

    /// The end of this request.
    fn answer(&mut self, id: RequestId, answer: Result<&[u8], &Outcome>);
}

/// How many commands a machine is told of before they are applied: what they need must not have
/// left the processor's caches again.
const FORESEEN: usize = 16;

type View = Peekable<Box<dyn Iterator<Item = Bytes> + Send>>;

/// Performs the machine lane on a [`StateMachine`]: the only owner of captures and answers.
pub struct Runner<M> {
    /// The machine.
    pub machine: M,
    view: Option<(CaptureId, View)>,
    answer: Vec<u8>,
}

impl<M: StateMachine> Runner<M> {
    /// A runner of this machine.
    pub const fn new(machine: M) -> Self {
        Self { machine, view: None, answer: Vec::new() }
    }

    /// Performs one step; what it returns is to be handed to the engine.
    pub fn perform(&mut self, step: Machine, clients: &mut impl Clients) -> Option<Event> {
        match step {
            Machine::Apply(entries) => {
                let mut commands = entries.commands();
                for nth in 0.. {
                    if nth % FORESEEN == 0 {
                        let next = commands.clone().take(FORESEEN);
                        self.machine.foresee(&mut next.map(|command| command.bytes));
                    }
                    let Some(command) = commands.next() else { break };
                    self.answer.clear();
                    self.machine.apply(command.at, command.time, command.bytes, &mut self.answer);
                    if let Some(id) = command.request {
                        clients.answer(id, Ok(&self.answer));
                    }
                }
                Some(Event::Applied { through: entries.last })
            }
            Machine::Query { requests, .. } => {
                self.query(requests, clients);
                None
            }
            Machine::Capture { capture, .. } => {
                self.view = Some((capture, self.machine.freeze().peekable()));
                None
            }
            Machine::CaptureNext { capture, bytes_max } => self.capture_next(capture, bytes_max),
            Machine::CaptureStop { capture } => {
                self.view.take_if(|view| view.0 == capture);
                None
            }
            Machine::Restore { offset, bytes, last, .. } => Some(Event::Restored {
                through: offset + bytes.len() as u64,
                result: self.machine.restore(offset, &bytes, last),
            }),
        }
    }

    fn query(&mut self, requests: Requests, clients: &mut impl Clients) {
        for id in requests.ids() {
            self.answer.clear();
            self.machine.query(clients.query(id), &mut self.answer);
            clients.answer(id, Ok(&self.answer));
        }
    }

    /// The machine cuts its view as it likes; a piece larger than the engine takes is cut again.
    fn capture_next(&mut self, capture: CaptureId, bytes_max: u32) -> Option<Event> {
        let (_, view) = self.view.as_mut().filter(|view| view.0 == capture)?;
        let bytes = match view.peek_mut() {
            Some(piece) if piece.len() > bytes_max as usize => piece.split_to(bytes_max as usize),
            Some(_) => view.next().expect("a piece was just seen"),
            None => Bytes::new(),
        };
        let last = view.peek().is_none();
        Some(Event::Captured { capture, result: Ok(Chunk { bytes, last }) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        entry::{Batch, Entries, Runs, Seed},
        types::{ClusterId, GroupId, LogIndex, Term},
    };
    use std::cell::RefCell;

    /// What it foresaw, less what it has applied since.
    #[derive(Default)]
    struct Seer {
        foreseen: RefCell<Vec<Vec<u8>>>,
        most: usize,
        applied: usize,
    }

    impl StateMachine for Seer {
        fn apply(&mut self, _: LogId, _: Timestamp, command: &[u8], _: &mut Vec<u8>) {
            let foreseen = self.foreseen.get_mut();
            self.most = self.most.max(foreseen.len());
            assert_eq!(foreseen.remove(0), command);
            self.applied += 1;
        }

        fn foresee(&self, commands: &mut dyn Iterator<Item = &[u8]>) {
            self.foreseen.borrow_mut().extend(commands.map(<[u8]>::to_vec));
        }

        fn query(&self, _: &[u8], _: &mut Vec<u8>) {}

        fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
            Box::new(std::iter::empty())
        }

        fn restore(&mut self, _: u64, _: &[u8], _: bool) -> Result<(), MachineError> {
            Ok(())
        }
    }

    struct Nobody;

    impl Clients for Nobody {
        fn query(&mut self, _: RequestId) -> &[u8] {
            &[]
        }

        fn answer(&mut self, _: RequestId, _: Result<&[u8], &Outcome>) {}
    }

    #[test]
    fn each_command_is_foreseen_once_and_before_it_is_applied() {
        let counts = [1, FORESEEN - 2, FORESEEN, 2 * FORESEEN + 1];
        let frames = counts.into_iter().zip(1..).map(|(count, index)| {
            let mut batch = Batch::default();
            (0..count).for_each(|n| batch.push(format!("{index}/{n}").as_bytes()));
            let id = LogId::new(Term(3), LogIndex(index));
            batch.seal(Seed::new(ClusterId(7), GroupId(1)), id, Term(3), Timestamp(11)).1
        });
        let frames: Vec<_> = frames.flatten().collect();
        let (first, last) = (LogIndex(1), LogIndex(counts.len() as u64));
        let mut runner = Runner::new(Seer::default());
        let entries = Entries { first, last, frames: frames.into(), runs: Runs::Many([].into()) };
        runner.perform(Machine::Apply(entries), &mut Nobody);
        let Seer { foreseen, most, applied } = runner.machine;
        assert_eq!((foreseen.into_inner().len(), most), (0, FORESEEN));
        assert_eq!(applied, counts.iter().sum());
    }
}
