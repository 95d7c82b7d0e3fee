//! A machine with a bug in it is caught, and told as what it is.

use bytes::Bytes;
use lakebed::{LogId, MachineError, StateMachine, Timestamp};
use lakebed_scenarios::{machine::Ledger, workload};
use lakebed_sim::{
    Failure, Outcome, Seed, Storm,
    check::{Commands, screen},
};

/// A ledger that does one thing wrong.
#[derive(Default)]
struct Wrong<const BUG: u8> {
    ledger: Ledger,
    restored: bool,
}

const COUNTS_TWICE_AFTER_RESTORE: u8 = 1;
const PANICS: u8 = 2;
const ANSWERS_BY_ITS_ADDRESS: u8 = 3;

impl<const BUG: u8> StateMachine for Wrong<BUG> {
    fn apply(&mut self, at: LogId, time: Timestamp, command: &[u8], answer: &mut Vec<u8>) {
        self.ledger.apply(at, time, command, answer);
        match BUG {
            COUNTS_TWICE_AFTER_RESTORE if self.restored => {
                self.restored = false;
                self.ledger.apply(at, time, command, &mut Vec::new());
            }
            PANICS if self.ledger.applied() == 70 => panic!("the seventieth command"),
            ANSWERS_BY_ITS_ADDRESS => {
                let address = std::ptr::from_ref(self).addr() as u64;
                answer.extend_from_slice(&address.to_le_bytes());
            }
            _ => {}
        }
    }

    fn query(&self, query: &[u8], answer: &mut Vec<u8>) {
        self.ledger.query(query, answer);
    }

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        self.ledger.freeze()
    }

    fn restore(&mut self, offset: u64, bytes: &[u8], last: bool) -> Result<(), MachineError> {
        self.restored = last;
        self.ledger.restore(offset, bytes, last)
    }
}

fn run<const BUG: u8>(seed: u64) -> Outcome {
    Storm::new(Seed::new(seed).traced()).run(Wrong::<BUG>::default, workload)
}

fn first_failure<const BUG: u8>() -> Failure {
    *(0..20).find_map(|seed| run::<BUG>(seed).err()).expect("a bug that twenty seeds miss")
}

#[test]
fn a_state_that_differs_after_a_restore_is_told() {
    let failure = first_failure::<COUNTS_TWICE_AFTER_RESTORE>();
    assert_eq!(failure.violation.invariant, "state machine safety");
    let commands = Commands(vec![("replay", "SIM_SEED=1 cargo test".into())]);
    let screen = screen("ledger", &failure, &commands);
    for part in ["otherwise than the reference", "replay SIM_SEED=", "power-cut", "plan: "] {
        assert!(screen.contains(part), "{part} is missing in {screen}");
    }
    assert!(screen.lines().count() <= 70, "more than a screen: {}", screen.lines().count());
}

#[test]
fn a_panic_is_told_with_its_seed() {
    let failure = first_failure::<PANICS>();
    assert_eq!(failure.violation.invariant, "the machine does not panic");
    assert!(failure.violation.what.contains("the seventieth command"), "{}", failure.violation);
}

#[test]
fn a_machine_that_is_not_deterministic_is_told() {
    let failure = first_failure::<ANSWERS_BY_ITS_ADDRESS>();
    assert_eq!(failure.violation.invariant, "state machine safety");
}
