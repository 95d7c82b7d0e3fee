//! A machine with a fault that only restarts and installs show.

use bytes::Bytes;
use lakebed::{LogId, MachineError, StateMachine, Timestamp};
use lakebed_scenarios::machine::Ledger;

/// A ledger that is another one after it was restored.
#[derive(Clone, Default)]
pub(crate) struct Forgetful(Ledger);

impl StateMachine for Forgetful {
    fn apply(&mut self, at: LogId, time: Timestamp, command: &[u8], answer: &mut Vec<u8>) {
        self.0.apply(at, time, command, answer);
    }

    fn query(&self, query: &[u8], answer: &mut Vec<u8>) {
        self.0.query(query, answer);
    }

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        self.0.freeze()
    }

    fn restore(&mut self, offset: u64, bytes: &[u8], last: bool) -> Result<(), MachineError> {
        self.0.restore(offset, bytes, last)?;
        if last {
            self.0 = Ledger::default();
        }
        Ok(())
    }
}
