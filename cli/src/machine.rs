//! The machine that is served, and what it has met, for whoever asks how the node is.
//!
//! Sessions are an adapter around a machine, of which the engine does not know: what they meet is in no
//! [`Status`](lakebed::Status). Knows no node. Invariant: what is applied, answered and kept is what
//! the machine itself would apply, answer and keep.

use bytes::Bytes;
use lakebed::{LogId, MachineError, Marks, StateMachine, Timestamp};
use lakebed_kv::Served;
use std::sync::{Arc, Mutex};

/// The rare situations that a machine has met, as of the last command that it applied.
#[derive(Debug, Default)]
pub(crate) struct Met(Mutex<Marks>);

const WHOLE: &str = "nobody panics who holds it";

impl Met {
    pub(crate) fn marks(&self) -> Marks {
        *self.0.lock().expect(WHOLE)
    }
}

/// A machine that tells what it meets.
#[derive(Default)]
pub(crate) struct Watched {
    machine: Served,
    told: Marks,
    met: Arc<Met>,
}

impl Watched {
    /// Tells it there.
    pub(crate) fn new(met: Arc<Met>) -> Self {
        Self { met, ..Self::default() }
    }
}

impl StateMachine for Watched {
    fn apply(&mut self, at: LogId, time: Timestamp, command: &[u8], answer: &mut Vec<u8>) {
        self.machine.apply(at, time, command, answer);
        let marks = self.machine.marks();
        // Of a million commands hardly one meets anything.
        if marks != self.told {
            self.told = marks;
            *self.met.0.lock().expect(WHOLE) = marks;
        }
    }

    fn foresee(&self, commands: &mut dyn Iterator<Item = &[u8]>) {
        self.machine.foresee(commands);
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

#[cfg(test)]
mod tests {
    use super::*;
    use lakebed::{
        Mark,
        session::{Reply, Request},
    };

    #[test]
    fn what_a_machine_meets_is_told_and_what_it_does_is_its_own() {
        let met = Arc::new(Met::default());
        let (mut watched, mut plain) = (Watched::new(Arc::clone(&met)), Served::default());
        let mut apply = |request: Request<'_>| {
            let (mut command, mut answer, mut other) = (Vec::new(), Vec::new(), Vec::new());
            request.encode(&mut command);
            watched.apply(LogId::default(), Timestamp(1), &command, &mut answer);
            plain.apply(LogId::default(), Timestamp(1), &command, &mut other);
            assert_eq!(answer, other);
            answer
        };
        let opened = apply(Request::Open);
        let Ok(Reply::Opened(session)) = Reply::parse(&opened) else { panic!("{opened:?}") };
        let run = |sequence| Request::Run { session, sequence, command: b"" };
        apply(run(1));
        assert_eq!(met.marks(), Marks::NONE);
        apply(run(1));
        assert_eq!(met.marks(), Marks::of(&[Mark::SessionRetryAnswered]));
        apply(run(7));
        let both = Marks::of(&[Mark::SessionRetryAnswered, Mark::SessionOutOfOrder]);
        assert_eq!(met.marks(), both);
        let frozen = |machine: &dyn StateMachine| machine.freeze().collect::<Vec<_>>().concat();
        assert_eq!(frozen(&watched), frozen(&plain));
        let state = frozen(&watched);
        watched.restore(0, &state, true).unwrap();
        assert_eq!((frozen(&watched), met.marks()), (state, both), "what was met stays");
    }
}
