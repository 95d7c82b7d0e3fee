//! The user's machine, watched: what it was given, and what it answered.
//!
//! Every simulated command begins with the id of its request, so that the oracle can tell two
//! equal commands apart; the user's machine never sees that prefix.

use crate::{
    prng::Draw,
    seat::{Blame, Performed, Seat},
};
use bytes::Bytes;
use lakebed::{CaptureId, LogId, LogIndex, MachineError, StateMachine, Timestamp, tape::Digest};
use std::collections::VecDeque;

/// The bytes before each command of the user's.
pub(crate) const PREFIX_BYTES: usize = 8;

/// The site of draws that say how many commands a machine foresees.
pub(crate) const SITE_FORESIGHT: u32 = 5;
/// A runner tells a machine of no more commands than these at once.
pub(crate) const FORESEEN_MAX: u64 = 16;

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

/// A query as a machine is asked it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Asked {
    /// The last entry that the machine held then.
    pub(crate) at: LogIndex,
    pub(crate) query: Bytes,
}

/// What a run gave its machines, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inputs {
    pub(crate) commands: Vec<Given>,
    /// In the order in which they were asked, by nodes of which one is behind another.
    pub(crate) queries: Vec<Asked>,
}

/// A machine and what it did since the oracle last looked.
#[derive(Clone, Debug)]
pub(crate) struct Witness<M> {
    pub(crate) machine: Seat<M>,
    pub(crate) applied: Vec<Applied>,
    /// What is left of the view that is being captured. A runner's own cannot be cloned.
    pub(crate) view: Option<(CaptureId, VecDeque<Bytes>)>,
    /// Of how many commands it is told beforehand, at most; zero: it is not.
    foresight: usize,
}

impl<M: StateMachine> Witness<M> {
    pub(crate) const fn new(machine: Seat<M>) -> Self {
        Self { machine, applied: Vec::new(), view: None, foresight: 0 }
    }

    /// How far it sees next: often as far as a runner tells, or less, or not at all. That differs
    /// between nodes, and the reference sees nothing beforehand.
    pub(crate) fn look_ahead(&mut self, draw: &mut Draw) {
        let foreseen = match draw.below(4) {
            0 => 0,
            1 => draw.between(1, FORESEEN_MAX - 1),
            _ => FORESEEN_MAX,
        };
        self.foresight = foreseen as usize;
    }

    /// The machine is frozen: what it gives out next belongs to this capture.
    pub(crate) fn hold(&mut self, capture: CaptureId) {
        let _blame = Blame::freezing();
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
        self.machine.apply(at, time, command, answer);
        let performed = self.machine.take_performed();
        let (command, answer) = (digest(command), digest(answer));
        self.applied.push(Applied { at, request, command, answer, performed });
    }

    fn foresee(&self, commands: &mut dyn Iterator<Item = &[u8]>) {
        if self.foresight > 0 {
            let commands = commands.map(|command| &command[PREFIX_BYTES..]);
            self.machine.foresee(&mut commands.take(self.foresight));
        }
    }

    fn query(&self, query: &[u8], answer: &mut Vec<u8>) {
        self.machine.query(query, answer);
    }

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        let pieces = self.view.as_ref().map(|view| view.1.clone());
        Box::new(pieces.unwrap_or_default().into_iter())
    }

    fn restore(&mut self, offset: u64, bytes: &[u8], last: bool) -> Result<(), MachineError> {
        self.machine.restore(offset, bytes, last)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Op, World,
        groups::{Census, Groups, Spread, storm as of},
        plan::{Plan, Sessions},
        prng::Concern,
        storm::{converge, serve},
    };
    use std::cell::RefCell;

    const COMMAND: &[u8] = b"a command";

    thread_local! {
        /// How many commands were foreseen by each call.
        static FORESEEN: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    }

    /// Knows its own commands, and nothing else.
    struct Seer;

    impl StateMachine for Seer {
        fn apply(&mut self, _: LogId, _: Timestamp, command: &[u8], _: &mut Vec<u8>) {
            assert_eq!(command, COMMAND);
        }

        fn foresee(&self, commands: &mut dyn Iterator<Item = &[u8]>) {
            let count = commands.inspect(|command| assert_eq!(*command, COMMAND)).count();
            FORESEEN.with_borrow_mut(|foreseen| foreseen.push(count as u64));
        }

        fn query(&self, _: &[u8], _: &mut Vec<u8>) {}

        fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
            Box::new(std::iter::empty())
        }

        fn restore(&mut self, _: u64, _: &[u8], _: bool) -> Result<(), MachineError> {
            Ok(())
        }
    }

    fn writes(_: &mut Draw) -> Op {
        Op::Propose(COMMAND.to_vec())
    }

    fn foresaw() -> bool {
        FORESEEN.take().iter().sum::<u64>() > 0
    }

    #[test]
    fn machines_foresee_their_own_commands() {
        for sessions in [None, Some(Sessions::default())] {
            let plan = Plan { sessions, ..Plan::calm(1, 3) };
            let mut world = World::new(plan, || Seer, writes);
            serve(&mut world).and_then(|()| converge(&mut world)).unwrap();
            assert!(foresaw(), "{sessions:?}");
        }
        let census = Census { groups: 2, comings: 0, spread: Spread::Everywhere };
        let mut world = Groups::new(Plan::calm(1, 3), census, || Seer, writes);
        of::serve(&mut world).and_then(|()| of::converge(&mut world)).unwrap();
        assert!(foresaw(), "in groups");
    }

    #[test]
    fn how_far_a_machine_sees_is_drawn() {
        let mut draw = Draw::new(1, Concern::Process, SITE_FORESIGHT, 0);
        let mut witness = Witness::new(Seat::new(Seer, None));
        let command = [&[0; PREFIX_BYTES], COMMAND].concat();
        for _ in 0..400 {
            witness.look_ahead(&mut draw);
            witness.foresee(&mut std::iter::repeat_n(&command[..], FORESEEN_MAX as usize));
        }
        let mut foreseen = FORESEEN.take();
        assert!((200..350).contains(&foreseen.len()), "{} calls of 400", foreseen.len());
        foreseen.sort_unstable();
        foreseen.dedup();
        assert_eq!(foreseen, (1..=FORESEEN_MAX).collect::<Vec<_>>());
    }
}
