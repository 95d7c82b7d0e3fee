//! Exactly once: an adapter around any [`StateMachine`] under which a command that is sent again
//! is applied once, and answered as it was the first time (Raft thesis §6.3; protocol.md,
//! "Sessions").
//!
//! A client opens a session through the log and numbers its commands from one on. When an answer
//! is lost it sends the same command with the same number again, to any node: across leader
//! changes, restarts and installed snapshots it takes effect once. Engine, log and files know
//! nothing of it: a session's name and the number are the first bytes of a command ([`Request`]),
//! and the table of sessions is the first part of the machine's snapshot.
//!
//! # Order
//!
//! Strict: a session's commands are applied in the order of their numbers, without gaps. A number
//! that comes too early is answered [`SessionError::OutOfOrder`] and not applied; one that was
//! applied is answered from what is kept, or [`SessionError::TooOld`] where that is gone. So a
//! client that waits for each answer may keep one; one that sends many at once must not have more
//! on their way than answers are kept ([`Limits::answers_max`]).
//!
//! # Bounds
//!
//! Answers are kept up to a count and to bytes per session, sessions up to a count ([`Limits`]).
//! A session ends when it was not used for a while by the *entries'* time, or when there are too
//! many: then the one that was not used for the longest. Its clients are told
//! [`SessionError::Expired`], and never served by a table that has forgotten them.
//!
//! # Beside sessions
//!
//! Commands and queries without a session reach the machine as they are: a log, or a snapshot,
//! from before the adapter was put around the machine means what it meant. Commands that begin
//! with one of the four bytes of [`Request`] are wrapped ([`Request::Plain`]).
//!
//! ```
//! use lakebed::session::{Limits, Reply, Request, Sessions};
//! # use lakebed::{LogId, LogIndex, MachineError, StateMachine, Term, Timestamp};
//! # #[derive(Default)]
//! # struct Counter(u64);
//! # impl StateMachine for Counter {
//! #     fn apply(&mut self, _: LogId, _: Timestamp, _: &[u8], answer: &mut Vec<u8>) {
//! #         self.0 += 1;
//! #         answer.extend_from_slice(&self.0.to_le_bytes());
//! #     }
//! #     fn query(&self, _: &[u8], answer: &mut Vec<u8>) {
//! #         answer.extend_from_slice(&self.0.to_le_bytes());
//! #     }
//! #     fn freeze(&self) -> Box<dyn Iterator<Item = bytes::Bytes> + Send> {
//! #         Box::new(std::iter::once(bytes::Bytes::copy_from_slice(&self.0.to_le_bytes())))
//! #     }
//! #     fn restore(&mut self, _: u64, _: &[u8], _: bool) -> Result<(), MachineError> { Ok(()) }
//! # }
//! let mut machine = Sessions::new(Counter::default(), Limits::default());
//! let mut index = 0;
//! let mut apply = |request: Request<'_>| {
//!     index += 1;
//!     let (mut command, mut answer) = (Vec::new(), Vec::new());
//!     request.encode(&mut command);
//!     machine.apply(LogId::new(Term(1), LogIndex(index)), Timestamp(index), &command, &mut answer);
//!     answer
//! };
//! let opened = apply(Request::Open);
//! let Ok(Reply::Opened(session)) = Reply::parse(&opened) else { panic!() };
//! let add = Request::Run { session, sequence: 1, command: b"add" };
//! let (first, again) = (apply(add), apply(add));
//! let one = 1_u64.to_le_bytes();
//! assert_eq!(Reply::parse(&first), Ok(Reply::Done { answer: &one, again: false }));
//! assert_eq!(Reply::parse(&again), Ok(Reply::Done { answer: &one, again: true }));
//! ```

mod command;
mod frozen;
mod reply;
mod table;
#[cfg(test)]
mod tests;

pub use command::{Request, SessionId};
pub use reply::{Reply, SessionError};
pub use table::{ANSWER_BYTES_MAX, ANSWERS_MAX, Limits};

use crate::{LogId, MachineError, Marks, StateMachine, Timestamp};
use bytes::Bytes;
use frozen::{Frozen, Thaw};
use table::{Admission, Table};

/// A machine with sessions before it.
#[derive(Clone, Debug)]
pub struct Sessions<M> {
    machine: M,
    table: Table,
    thaw: Option<Thaw>,
}

impl<M> Sessions<M> {
    /// Puts sessions before a machine. The limits decide what is answered, so they are part of
    /// the machine: the same on every node, and for as long as the log lives.
    ///
    /// # Panics
    /// When a limit is zero or above what a snapshot may hold: see [`Limits`].
    #[must_use]
    pub fn new(machine: M, limits: Limits) -> Self {
        limits.assert_meant();
        Self { machine, table: Table::new(limits), thaw: None }
    }

    /// The machine.
    #[must_use]
    pub const fn machine(&self) -> &M {
        &self.machine
    }

    /// The machine, for whoever watches it: what is changed here is changed on this node alone.
    pub const fn machine_mut(&mut self) -> &mut M {
        &mut self.machine
    }

    /// How many sessions there are, some of them expired and not yet removed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no session.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rare situations that this machine has met since it was made; no part of its state.
    #[must_use]
    pub const fn marks(&self) -> Marks {
        self.table.marks
    }
}

/// With the usual limits.
impl<M: Default> Default for Sessions<M> {
    fn default() -> Self {
        Self::new(M::default(), Limits::default())
    }
}

impl<M: StateMachine> Sessions<M> {
    fn perform(&mut self, at: LogId, time: Timestamp, request: Request<'_>, out: &mut Vec<u8>) {
        match request {
            Request::Plain(command) => self.machine.apply(at, time, command, out),
            Request::Open => Reply::Opened(self.table.open(time)).encode(out),
            Request::Close(session) => match self.table.close(session, time) {
                Ok(()) => Reply::Closed.encode(out),
                Err(error) => error.encode(out),
            },
            Request::Run { session, sequence, command } => {
                match self.table.admit(session, sequence, time) {
                    Ok(Admission::First) => {
                        Reply::Done { answer: &[], again: false }.encode(out);
                        let start = out.len();
                        self.machine.apply(at, time, command, out);
                        self.table.keep(session, &out[start..]);
                    }
                    Ok(Admission::Again(answer)) => {
                        Reply::Done { answer: &answer, again: true }.encode(out);
                    }
                    Err(error) => error.encode(out),
                }
            }
        }
    }

    /// Hands the machine what follows the table; nothing, before it is known to be all or more.
    fn restore_machine(
        &mut self,
        thaw: &mut Thaw,
        rest: &[u8],
        last: bool,
    ) -> Result<(), MachineError> {
        if rest.is_empty() && !last {
            return Ok(());
        }
        let offset = thaw.handed;
        thaw.handed += rest.len() as u64;
        self.machine.restore(offset, rest, last)
    }
}

impl<M: StateMachine> StateMachine for Sessions<M> {
    fn apply(&mut self, at: LogId, time: Timestamp, command: &[u8], answer: &mut Vec<u8>) {
        match Request::parse(command) {
            Ok(request) => self.perform(at, time, request, answer),
            Err(error) => error.encode(answer),
        }
    }

    fn foresee(&self, commands: &mut dyn Iterator<Item = &[u8]>) {
        self.machine.foresee(&mut commands.filter_map(|command| match Request::parse(command) {
            Ok(Request::Plain(command) | Request::Run { command, .. }) => Some(command),
            Ok(Request::Open | Request::Close(_)) | Err(_) => None,
        }));
    }

    fn query(&self, query: &[u8], answer: &mut Vec<u8>) {
        self.machine.query(query, answer);
    }

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        Box::new(Frozen::new(&self.table).chain(self.machine.freeze()))
    }

    fn restore(&mut self, offset: u64, bytes: &[u8], last: bool) -> Result<(), MachineError> {
        if offset == 0 {
            self.table.clear();
            self.thaw = Some(Thaw::default());
        }
        if offset == 0 && bytes.is_empty() && !last {
            // Nothing may follow.
            return self.machine.restore(0, bytes, false);
        }
        let not_begun = || MachineError("a state is restored from its first byte".into());
        let mut thaw = self.thaw.take().ok_or_else(not_begun)?;
        let rest = thaw.take(offset, bytes, last, &mut self.table)?;
        if let Some(rest) = rest {
            self.restore_machine(&mut thaw, &rest, last)?;
        }
        if !last {
            self.thaw = Some(thaw);
        } else if cfg!(lakebed_break = "forget_sessions_at_restore") {
            self.table.clear();
        }
        Ok(())
    }
}
