//! A machine that counts its commands, and answers each with how many there were: its state is eight bytes,
//! whatever the log holds.

use bytes::Bytes;
use lakebed::{LogId, MachineError, StateMachine, Timestamp};

#[derive(Default)]
pub(crate) struct Count(u64);

impl StateMachine for Count {
    fn apply(&mut self, _: LogId, _: Timestamp, _: &[u8], answer: &mut Vec<u8>) {
        self.0 += 1;
        self.query(&[], answer);
    }

    fn query(&self, _: &[u8], answer: &mut Vec<u8>) {
        answer.extend_from_slice(&self.0.to_le_bytes());
    }

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        Box::new(std::iter::once(Bytes::copy_from_slice(&self.0.to_le_bytes())))
    }

    fn restore(&mut self, _: u64, bytes: &[u8], _: bool) -> Result<(), MachineError> {
        self.0 = number(bytes);
        Ok(())
    }
}

/// What an answer begins with.
pub(crate) fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().expect("eight bytes"))
}
