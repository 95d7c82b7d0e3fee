//! A machine that forgets nothing: per key a count, and a hash over the whole history of commands,
//! so that one command lost, doubled or out of order shows in every later answer.

use bytes::Bytes;
use lakebed::{LogId, MachineError, StateMachine, Timestamp, tape::Digest};
use std::collections::BTreeMap;

/// Counts per key, and a hash over everything that was ever applied.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ledger {
    history: u64,
    applied: u64,
    counts: BTreeMap<u8, u64>,
    /// How many bytes its state is larger than it needs to be.
    ballast: usize,
    /// What came of a snapshot so far.
    incoming: Vec<u8>,
}

impl Ledger {
    /// One whose snapshots are large: so many bytes that follow from its history.
    #[must_use]
    pub fn heavy(ballast: usize) -> Self {
        Self { ballast, ..Self::default() }
    }

    /// How many commands were applied.
    #[must_use]
    pub const fn applied(&self) -> u64 {
        self.applied
    }

    fn state(&self) -> Vec<u8> {
        let mut state = [self.history.to_le_bytes(), self.applied.to_le_bytes()].concat();
        for (key, count) in &self.counts {
            state.push(*key);
            state.extend_from_slice(&count.to_le_bytes());
        }
        state.extend(self.ballast());
        state
    }

    /// No two blocks of it are alike, and none is like another history's.
    fn ballast(&self) -> impl Iterator<Item = u8> {
        let words = (0..).map(|n: u64| (self.history ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        words.flat_map(u64::to_le_bytes).take(self.ballast)
    }

    fn adopt(&mut self, state: &[u8]) -> Option<()> {
        let (head, rest) = state.split_at_checked(16)?;
        let (records, ballast) = rest.split_at_checked(rest.len().checked_sub(self.ballast)?)?;
        let (records, tail) = records.as_chunks::<9>();
        let adopted = Self {
            history: u64::from_le_bytes(head[..8].try_into().ok()?),
            applied: u64::from_le_bytes(head[8..].try_into().ok()?),
            counts: records.iter().map(record).collect(),
            ballast: self.ballast,
            incoming: Vec::new(),
        };
        let is_whole = tail.is_empty() && adopted.ballast().eq(ballast.iter().copied());
        is_whole.then(|| *self = adopted)
    }
}

fn record(bytes: &[u8; 9]) -> (u8, u64) {
    let [key, count @ ..] = *bytes;
    (key, u64::from_le_bytes(count))
}

impl StateMachine for Ledger {
    fn apply(&mut self, at: LogId, time: Timestamp, command: &[u8], answer: &mut Vec<u8>) {
        let mut digest = Digest::default();
        digest.number(self.history);
        digest.number(at.index.0);
        digest.number(time.0);
        digest.bytes(command);
        self.history = digest.value();
        self.applied += 1;
        let count = self.counts.entry(command.first().copied().unwrap_or(0)).or_default();
        *count += 1;
        answer.extend_from_slice(&count.to_le_bytes());
        answer.extend_from_slice(&self.history.to_le_bytes());
    }

    fn query(&self, query: &[u8], answer: &mut Vec<u8>) {
        let count = query.first().and_then(|key| self.counts.get(key)).copied().unwrap_or(0);
        answer.extend_from_slice(&count.to_le_bytes());
        answer.extend_from_slice(&self.history.to_le_bytes());
    }

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        // In small pieces, so that a snapshot is more than one of them.
        let most = if self.ballast == 0 { 24 } else { 4 << 10 };
        let pieces: Vec<Bytes> = self.state().chunks(most).map(Bytes::copy_from_slice).collect();
        Box::new(pieces.into_iter())
    }

    fn restore(&mut self, offset: u64, bytes: &[u8], last: bool) -> Result<(), MachineError> {
        if offset == 0 {
            *self = Self::heavy(self.ballast);
        }
        if offset != self.incoming.len() as u64 {
            return Err(MachineError(format!("a piece at {offset} does not follow")));
        }
        self.incoming.extend_from_slice(bytes);
        if last {
            let state = std::mem::take(&mut self.incoming);
            return self.adopt(&state).ok_or_else(|| MachineError("not a ledger".into()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lakebed::{LogIndex, Term};

    fn applied(commands: &[&[u8]]) -> Ledger {
        let mut ledger = Ledger::default();
        for (command, index) in commands.iter().zip(1..) {
            let at = LogId::new(Term(1), LogIndex(index));
            ledger.apply(at, Timestamp(0), command, &mut Vec::new());
        }
        ledger
    }

    #[test]
    fn order_and_number_of_commands_show() {
        let base = applied(&[b"a", b"b"]);
        assert_ne!(base, applied(&[b"b", b"a"]));
        assert_ne!(base, applied(&[b"a", b"b", b"b"]));
        assert_eq!(base, applied(&[b"a", b"b"]));
    }

    #[test]
    fn a_heavy_state_is_taken_in_whole_or_not_at_all() {
        let mut heavy = Ledger::heavy(100);
        heavy.apply(LogId::new(Term(1), LogIndex(1)), Timestamp(0), b"a", &mut Vec::new());
        let mut state: Vec<u8> = heavy.freeze().flatten().collect();
        let mut other = Ledger::heavy(100);
        other.restore(0, &state, true).unwrap();
        assert_eq!(other, heavy);
        state[80] ^= 1;
        other.restore(0, &state, true).unwrap_err();
    }

    #[test]
    fn a_frozen_state_is_taken_in_however_it_is_cut() {
        let ledger = applied(&[b"a", b"b", b"a", b"c", b"d"]);
        let state: Vec<u8> = ledger.freeze().flatten().collect();
        for cut in 0..state.len() {
            let mut other = applied(&[b"x"]);
            other.restore(0, &state[..cut], false).unwrap();
            other.restore(cut as u64, &state[cut..], true).unwrap();
            assert_eq!(other, ledger);
        }
    }
}
