//! The user's machine, watched: what it was given, and what it answered.
//!
//! Every simulated command begins with the id of its request, so that the oracle can tell two
//! equal commands apart; the user's machine never sees that prefix.

use crate::{
    panics,
    seat::{Performed, Seat},
};
use bytes::Bytes;
use lakebed::{CaptureId, LogId, MachineError, StateMachine, Timestamp, tape::Digest};
use std::collections::VecDeque;

/// The bytes before each command of the user's.
pub(crate) const PREFIX_BYTES: usize = 8;

/// One command as it was applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Applied {
    pub(crate) at: LogId,
    /// The request that proposed it.
    pub(crate) request: u64,
    /// A digest of the command.
    pub(crate) command: u64,
    /// A digest of the answer.
    pub(crate) answer: u64,
    /// What of a session's operation was done.
    pub(crate) performed: Option<Performed>,
}

/// A command as a machine is given it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Given {
    pub(crate) at: LogId,
    pub(crate) time: Timestamp,
    pub(crate) command: Vec<u8>,
}

/// A machine and what it did since the oracle last looked.
#[derive(Clone, Debug)]
pub(crate) struct Witness<M> {
    pub(crate) machine: Seat<M>,
    pub(crate) applied: Vec<Applied>,
    /// What is left of the view that is being captured. A runner's own cannot be cloned.
    pub(crate) view: Option<(CaptureId, VecDeque<Bytes>)>,
}

impl<M: StateMachine> Witness<M> {
    pub(crate) const fn new(machine: Seat<M>) -> Self {
        Self { machine, applied: Vec::new(), view: None }
    }

    /// The machine is frozen: what it gives out next belongs to this capture.
    pub(crate) fn hold(&mut self, capture: CaptureId) {
        let _blame = Blame { doing: "freezing", at: None, bytes: &[] };
        self.view = Some((capture, self.machine.freeze().collect()));
    }

    /// A runner took the next piece of the view, or this many bytes of it.
    pub(crate) fn taken(&mut self, capture: CaptureId, len: usize) {
        let Some((_, pieces)) = self.view.as_mut().filter(|view| view.0 == capture) else { return };
        match pieces.front_mut() {
            Some(piece) if piece.len() > len => drop(piece.split_to(len)),
            _ => drop(pieces.pop_front()),
        }
    }
}

impl<M: StateMachine> StateMachine for Witness<M> {
    fn apply(&mut self, at: LogId, time: Timestamp, command: &[u8], answer: &mut Vec<u8>) {
        let (prefix, command) = command.split_at(PREFIX_BYTES);
        let request = u64::from_le_bytes(prefix.try_into().expect("a prefix was split off"));
        let blame = Blame { doing: "applying", at: Some(at), bytes: command };
        self.machine.apply(at, time, command, answer);
        drop(blame);
        let performed = self.machine.take_performed();
        let (command, answer) = (digest(command), digest(answer));
        self.applied.push(Applied { at, request, command, answer, performed });
    }

    fn query(&self, query: &[u8], answer: &mut Vec<u8>) {
        let _blame = Blame { doing: "answering the query", at: None, bytes: query };
        self.machine.query(query, answer);
    }

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        let pieces = self.view.as_ref().map(|view| view.1.clone());
        Box::new(pieces.unwrap_or_default().into_iter())
    }

    fn restore(&mut self, offset: u64, bytes: &[u8], last: bool) -> Result<(), MachineError> {
        let _blame = Blame { doing: "restoring from", at: None, bytes };
        self.machine.restore(offset, bytes, last)
    }
}

/// Says, if the machine panics, that it was the machine and what it was doing.
struct Blame<'a> {
    doing: &'static str,
    at: Option<LogId>,
    bytes: &'a [u8],
}

impl Drop for Blame<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let at = self.at.map_or_else(String::new, |at| format!(" {at}:"));
            let doing = format!("{}{at} {}", self.doing, escaped(self.bytes));
            panics::blame("the machine does not panic", doing);
        }
    }
}

/// Bytes as people read them, and not too many of them.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 40;
    let (shown, rest) = bytes.split_at(bytes.len().min(SHOWN_MAX));
    let rest = if rest.is_empty() { String::new() } else { format!("... ({} more)", rest.len()) };
    format!("\"{}\"{rest}", shown.escape_ascii())
}

/// A digest of bytes.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    let mut digest = Digest::default();
    digest.bytes(bytes);
    digest.value()
}

/// A whole state, however it is cut into pieces.
pub(crate) fn in_one_piece(pieces: impl Iterator<Item = Bytes>) -> Vec<u8> {
    let mut state = Vec::new();
    pieces.for_each(|piece| state.extend_from_slice(&piece));
    state
}

/// A digest of a whole state, however it is cut into pieces.
pub(crate) fn state_digest(machine: &impl StateMachine) -> u64 {
    let state = in_one_piece(machine.freeze());
    digest(&state)
}
