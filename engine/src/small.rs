//! The short way to a [`StateMachine`], for a state that is written and read in one piece.
//!
//! ```
//! use lakebed::{Small, SmallMachine, Timestamp};
//!
//! /// A sum. A command is a number to add; the answer to everything is the sum.
//! #[derive(Default)]
//! struct Sum(u64);
//!
//! impl SmallMachine for Sum {
//!     fn apply(&mut self, _: Timestamp, command: &[u8]) -> Vec<u8> {
//!         self.0 += u64::from(command[0]);
//!         self.save()
//!     }
//!
//!     fn save(&self) -> Vec<u8> {
//!         self.0.to_le_bytes().into()
//!     }
//!
//!     fn load(bytes: &[u8]) -> Option<Self> {
//!         bytes.try_into().ok().map(u64::from_le_bytes).map(Self)
//!     }
//! }
//!
//! let machine = Small::<Sum>::default(); // is a StateMachine
//! # fn is_one(_: impl lakebed::StateMachine) {}
//! # is_one(machine);
//! ```

use crate::{
    event::MachineError,
    state_machine::StateMachine,
    types::{LogId, Timestamp},
};
use bytes::Bytes;
use std::iter::once;

/// A replicated state that fits into memory three times: as it is, as it was when a snapshot of it was begun, and as
/// the bytes of one that comes in. While it is saved nothing is applied; from some megabytes on that is
/// felt, and [`StateMachine::freeze`] is the way.
///
/// [`Default`] is the state before any command. What holds for a [`StateMachine`] holds for it: the same commands in
/// the same order give the same answers and the same bytes on every node.
pub trait SmallMachine: Default {
    /// Applies one command and gives its answer. `time`: as in [`StateMachine::apply`].
    fn apply(&mut self, time: Timestamp, command: &[u8]) -> Vec<u8>;

    /// Answers a query without changing anything. By default with all there is.
    fn query(&self, _query: &[u8]) -> Vec<u8> {
        self.save()
    }

    /// The whole state.
    fn save(&self) -> Vec<u8>;

    /// The state that was saved as these bytes; `None`: none was, and the node halts.
    fn load(bytes: &[u8]) -> Option<Self>;
}

/// Makes a [`StateMachine`] of a [`SmallMachine`].
#[derive(Clone, Default, Debug)]
pub struct Small<M> {
    /// The machine.
    pub machine: M,
    /// What has come of a state that is restored.
    coming: Vec<u8>,
}

impl<M: SmallMachine> StateMachine for Small<M> {
    fn apply(&mut self, _: LogId, time: Timestamp, command: &[u8], answer: &mut Vec<u8>) {
        answer.extend(self.machine.apply(time, command));
    }

    fn query(&self, query: &[u8], answer: &mut Vec<u8>) {
        answer.extend(self.machine.query(query));
    }

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        Box::new(once(self.machine.save().into()))
    }

    fn restore(&mut self, offset: u64, bytes: &[u8], last: bool) -> Result<(), MachineError> {
        if offset == 0 {
            *self = Self::default();
        }
        if offset != self.coming.len() as u64 {
            let has = self.coming.len();
            let why = format!("bytes of a state from {offset} on, where {has} have come before");
            return Err(MachineError(why));
        }
        self.coming.extend_from_slice(bytes);
        if last {
            let bytes = std::mem::take(&mut self.coming);
            let why = || MachineError(format!("{} bytes that are no state of it", bytes.len()));
            self.machine = M::load(&bytes).ok_or_else(why)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default, PartialEq, Debug)]
    struct Words(Vec<u8>);

    impl SmallMachine for Words {
        fn apply(&mut self, time: Timestamp, command: &[u8]) -> Vec<u8> {
            self.0.extend_from_slice(command);
            vec![time.0 as u8, command.len() as u8]
        }

        fn save(&self) -> Vec<u8> {
            [b"words ", &self.0[..]].concat()
        }

        fn load(bytes: &[u8]) -> Option<Self> {
            bytes.strip_prefix(b"words ").map(|words| Self(words.into()))
        }
    }

    fn after(commands: &[&[u8]]) -> Small<Words> {
        let mut words = Small::<Words>::default();
        let mut answer = b"before ".to_vec();
        for command in commands {
            words.apply(LogId::ZERO, Timestamp(3), command, &mut answer);
        }
        let answers = commands.iter().flat_map(|command| [3, command.len() as u8]);
        assert_eq!(answer, b"before ".iter().copied().chain(answers).collect::<Vec<_>>());
        words
    }

    #[test]
    fn a_view_is_what_was_when_it_was_frozen_and_restores_cut_anywhere() {
        let mut words = after(&[b"a", b"bc"]);
        let view = words.freeze();
        words.apply(LogId::ZERO, Timestamp(4), b"later", &mut Vec::new());
        let bytes: Vec<u8> = view.flatten().collect();
        assert_eq!(bytes, b"words abc");
        for cut in 0..=bytes.len() {
            let mut other = after(&[b"of another history"]);
            other.restore(0, &bytes[..cut], cut == bytes.len()).expect("it is one");
            if cut < bytes.len() {
                // At the beginning everything is forgotten, and nothing is there before the end.
                assert_eq!(other.machine, Words::default());
                other.restore(cut as u64, &bytes[cut..], true).expect("it is one");
            }
            let mut answer = b"its state: ".to_vec();
            other.query(b"", &mut answer);
            assert_eq!(answer, b"its state: words abc");
            assert_eq!(other.coming, b"");
        }
    }

    #[test]
    fn what_is_no_state_is_refused_with_what_it_is() {
        let mut words = after(&[b"a"]);
        let why = |result: Result<(), MachineError>| result.expect_err("it is none").0;
        assert_eq!(why(words.restore(0, b"music", true)), "5 bytes that are no state of it");
        words.restore(0, b"wor", false).expect("it may become one");
        let gap = "bytes of a state from 5 on, where 3 have come before";
        assert_eq!(why(words.restore(5, b" ", true)), gap);
        // What had come was bad: all is applied anew.
        words.restore(0, b"", false).expect("nothing is a state");
        words.apply(LogId::ZERO, Timestamp(1), b"new", &mut Vec::new());
        assert_eq!(words.machine, Words(b"new".into()));
    }
}
