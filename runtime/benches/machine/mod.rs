//! What the benchmarks replicate: a machine that does next to nothing.

use bytes::Bytes;
use lakebed::{LogId, MachineError, StateMachine, Timestamp};

/// A command of theirs.
pub(crate) const COMMAND: [u8; 256] = [7; 256];

/// Counts commands.
#[derive(Default)]
pub(crate) struct Count(u64);

impl StateMachine for Count {
    fn apply(&mut self, _: LogId, _: Timestamp, _: &[u8], answer: &mut Vec<u8>) {
        self.0 += 1;
        answer.extend_from_slice(&self.0.to_le_bytes());
    }

    fn query(&self, _: &[u8], answer: &mut Vec<u8>) {
        answer.extend_from_slice(&self.0.to_le_bytes());
    }

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        Box::new(std::iter::once(Bytes::copy_from_slice(&self.0.to_le_bytes())))
    }

    fn restore(&mut self, _: u64, bytes: &[u8], _: bool) -> Result<(), MachineError> {
        self.0 = u64::from_le_bytes(bytes.try_into().expect("one piece of eight bytes"));
        Ok(())
    }
}
