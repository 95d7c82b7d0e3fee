//! The state machine that a checked driver is given: its state is all it was told, in order.

use crate::{Action, LogId, Machine, MachineError, StateMachine, Timestamp};
use bytes::Bytes;
use std::sync::{Arc, Mutex, MutexGuard};

/// Keeps every command. The kit looks at it from outside.
#[derive(Clone, Debug, Default)]
pub struct Witness {
    state: Arc<Mutex<Vec<u8>>>,
}

impl Witness {
    /// The commands behind each other, each behind its length.
    pub(super) fn state(&self) -> MutexGuard<'_, Vec<u8>> {
        self.state.lock().expect("nothing panics while it holds the state")
    }

    /// Does what a driver must do with it.
    pub(super) fn follow(&mut self, action: &Action) {
        match action {
            Action::Machine(Machine::Apply(entries)) => {
                let mut state = self.state();
                entries.commands().for_each(|command| record(&mut state, command.bytes));
            }
            Action::Machine(Machine::Restore { offset, bytes, last, .. }) => {
                // Refused is what the script knows will be.
                let _ = self.restore(*offset, bytes, *last);
            }
            _ => {}
        }
    }
}

/// The state grows by this much with each command.
pub(super) fn record(state: &mut Vec<u8>, command: &[u8]) {
    state.extend_from_slice(&(command.len() as u32).to_le_bytes());
    state.extend_from_slice(command);
}

/// How many commands made this state.
pub(super) fn records(state: &[u8]) -> usize {
    let (mut rest, mut count) = (state, 0);
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        rest = behind.get(u32::from_le_bytes(*length) as usize..).unwrap_or_default();
        count += 1;
    }
    count
}

impl StateMachine for Witness {
    fn apply(&mut self, _at: LogId, _time: Timestamp, command: &[u8], answer: &mut Vec<u8>) {
        let mut state = self.state();
        record(&mut state, command);
        answer.extend_from_slice(&(state.len() as u64).to_le_bytes());
    }

    fn query(&self, _query: &[u8], answer: &mut Vec<u8>) {
        answer.extend_from_slice(&(self.state().len() as u64).to_le_bytes());
    }

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        Box::new(std::iter::once(Bytes::from(self.state().clone())))
    }

    fn restore(&mut self, offset: u64, bytes: &[u8], _last: bool) -> Result<(), MachineError> {
        let mut state = self.state();
        if offset == 0 {
            state.clear();
        }
        if offset != state.len() as u64 {
            return Err(MachineError(format!("restored at {offset}, not at {}", state.len())));
        }
        state.extend_from_slice(bytes);
        Ok(())
    }
}
