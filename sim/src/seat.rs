//! The user's machine, with sessions before it where the plan says so.
//!
//! In a session a command of the user's stands behind the number of its operation, which is the
//! same in all retries of it: what is performed is known without a word from the adapter that is
//! to perform it once.

use crate::{
    panics,
    witness::{digest, escaped},
};
use bytes::Bytes;
use lakebed::{
    LogId, MachineError, Marks, Sessions, StateMachine, Timestamp,
    session::{Limits, Request, SessionId},
};
use std::cell::Cell;

/// The operation of a command that belongs to no session.
const NONE: u64 = 0;

/// What was done for an operation within one command of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Performed {
    pub(crate) operation: u64,
    /// How often.
    pub(crate) times: u32,
    /// A digest of the answer.
    pub(crate) answer: u64,
}

/// A machine as nodes run it.
#[derive(Clone, Debug)]
pub(crate) enum Seat<M> {
    Alone(M),
    WithSessions(Box<Sessions<Inside<M>>>),
}

/// The user's machine behind the adapter.
#[derive(Clone, Debug)]
pub(crate) struct Inside<M> {
    machine: M,
    performed: Option<Performed>,
}

impl<M> Seat<M> {
    pub(crate) fn new(machine: M, sessions: Option<Limits>) -> Self {
        match sessions {
            None => Self::Alone(machine),
            Some(limits) => {
                let inside = Inside { machine, performed: None };
                Self::WithSessions(Box::new(Sessions::new(inside, limits)))
            }
        }
    }

    /// The user's own.
    pub(crate) fn machine(&self) -> &M {
        match self {
            Self::Alone(machine) => machine,
            Self::WithSessions(sessions) => &sessions.machine().machine,
        }
    }

    /// What the last command of the log had performed of an operation.
    pub(crate) fn take_performed(&mut self) -> Option<Performed> {
        match self {
            Self::Alone(_) => None,
            Self::WithSessions(sessions) => sessions.machine_mut().performed.take(),
        }
    }

    /// The rare situations that sessions have met.
    pub(crate) fn marks(&self) -> Marks {
        match self {
            Self::Alone(_) => Marks::NONE,
            Self::WithSessions(sessions) => sessions.marks(),
        }
    }
}

/// A command that belongs to no session, as a machine behind the adapter takes it.
pub(crate) fn plain(command: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Request::Plain(&of_operation(NONE, command)).encode(&mut out);
    out
}

/// A command of a session, for an operation.
pub(crate) fn step(session: SessionId, sequence: u64, operation: u64, command: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let command = &of_operation(operation, command);
    Request::Run { session, sequence, command }.encode(&mut out);
    out
}

/// What opens a session.
pub(crate) fn open() -> Vec<u8> {
    let mut out = Vec::new();
    Request::Open.encode(&mut out);
    out
}

fn of_operation(operation: u64, command: &[u8]) -> Vec<u8> {
    [&operation.to_le_bytes()[..], command].concat()
}

impl<M: StateMachine> StateMachine for Inside<M> {
    fn apply(&mut self, at: LogId, time: Timestamp, command: &[u8], answer: &mut Vec<u8>) {
        let (operation, command) = command.split_first_chunk().expect("it was put before each");
        let (operation, start) = (u64::from_le_bytes(*operation), answer.len());
        self.machine.apply(at, time, command, answer);
        if operation != NONE {
            let times = self.performed.map_or(1, |performed| performed.times + 1);
            let answer = digest(&answer[start..]);
            self.performed = Some(Performed { operation, times, answer });
        }
    }

    fn foresee(&self, commands: &mut dyn Iterator<Item = &[u8]>) {
        self.machine.foresee(&mut commands.map(|command| &command[size_of_val(&NONE)..]));
    }

    fn query(&self, query: &[u8], answer: &mut Vec<u8>) {
        self.machine.query(query, answer);
    }

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        self.machine.freeze()
    }

    fn restore(&mut self, offset: u64, bytes: &[u8], last: bool) -> Result<(), MachineError> {
        self.machine.restore(offset, bytes, last)
    }
}

impl<M: StateMachine> StateMachine for Seat<M> {
    fn apply(&mut self, at: LogId, time: Timestamp, command: &[u8], answer: &mut Vec<u8>) {
        let _blame = Blame::new("applying", Some(at), command);
        match self {
            Self::Alone(machine) => machine.apply(at, time, command, answer),
            Self::WithSessions(sessions) => sessions.apply(at, time, command, answer),
        }
    }

    fn foresee(&self, commands: &mut dyn Iterator<Item = &[u8]>) {
        let blame = Blame::new("foreseeing", None, &[]);
        let mut commands = commands.inspect(|command| blame.bytes.set(command));
        match self {
            Self::Alone(machine) => machine.foresee(&mut commands),
            Self::WithSessions(sessions) => sessions.foresee(&mut commands),
        }
    }

    fn query(&self, query: &[u8], answer: &mut Vec<u8>) {
        let _blame = Blame::new("answering the query", None, query);
        self.machine().query(query, answer);
    }

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        let _blame = Blame::freezing();
        match self {
            Self::Alone(machine) => machine.freeze(),
            Self::WithSessions(sessions) => sessions.freeze(),
        }
    }

    fn restore(&mut self, offset: u64, bytes: &[u8], last: bool) -> Result<(), MachineError> {
        let _blame = Blame::new("restoring from", None, bytes);
        match self {
            Self::Alone(machine) => machine.restore(offset, bytes, last),
            Self::WithSessions(sessions) => sessions.restore(offset, bytes, last),
        }
    }
}

/// Says, if the machine panics, that it was the machine and what it was doing.
pub(crate) struct Blame<'a> {
    doing: &'static str,
    at: Option<LogId>,
    /// What it was given last.
    bytes: Cell<&'a [u8]>,
}

impl<'a> Blame<'a> {
    pub(crate) const fn freezing() -> Self {
        Self::new("freezing", None, &[])
    }

    const fn new(doing: &'static str, at: Option<LogId>, bytes: &'a [u8]) -> Self {
        Self { doing, at, bytes: Cell::new(bytes) }
    }
}

impl Drop for Blame<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let at = self.at.map_or_else(String::new, |at| format!(" {at}:"));
            let doing = format!("{}{at} {}", self.doing, escaped(self.bytes.get()));
            panics::blame("the machine does not panic", doing);
        }
    }
}
