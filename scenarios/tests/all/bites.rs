//! A machine with a bug in it is caught, and told as what it is.

use bytes::Bytes;
use lakebed::{LogId, MachineError, StateMachine, Timestamp};
use lakebed_scenarios::{machine::Ledger, workload};
use lakebed_sim::{
    Failure, Outcome, Seed, Storm,
    check::{Commands, screen, twice},
};
use std::{
    collections::HashSet,
    sync::atomic::{AtomicU64, Ordering},
};

/// A ledger that does one thing wrong.
#[derive(Default)]
struct Wrong<const BUG: u8> {
    ledger: Ledger,
    restored: bool,
    keys: u8,
}

const COUNTS_TWICE_AFTER_RESTORE: u8 = 1;
const PANICS: u8 = 2;
const ANSWERS_BY_ITS_ADDRESS: u8 = 3;
const CAPTURES_IN_HASH_ORDER: u8 = 4;
const FORGETS_WHAT_IT_CAPTURED: u8 = 5;

impl<const BUG: u8> StateMachine for Wrong<BUG> {
    fn apply(&mut self, at: LogId, time: Timestamp, command: &[u8], answer: &mut Vec<u8>) {
        self.ledger.apply(at, time, command, answer);
        match BUG {
            COUNTS_TWICE_AFTER_RESTORE if self.restored => {
                self.restored = false;
                self.ledger.apply(at, time, command, &mut Vec::new());
            }
            CAPTURES_IN_HASH_ORDER => {
                self.keys = self.keys.saturating_add(1);
                answer.clear();
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
        if BUG == CAPTURES_IN_HASH_ORDER {
            let keys: HashSet<u8> = (0..self.keys).collect();
            return Box::new(keys.into_iter().map(|key| Bytes::from(vec![key])));
        }
        self.ledger.freeze()
    }

    fn restore(&mut self, offset: u64, bytes: &[u8], last: bool) -> Result<(), MachineError> {
        self.restored = last;
        if BUG == CAPTURES_IN_HASH_ORDER {
            self.keys = offset as u8 + bytes.len() as u8;
            return Ok(());
        }
        if BUG == FORGETS_WHAT_IT_CAPTURED && last {
            self.ledger = Ledger::default();
            return Ok(());
        }
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
    for part in ["otherwise than the reference", "replay: SIM_SEED=", "power-cut", "plan: "] {
        assert!(screen.contains(part), "{part} is missing in {screen}");
    }
    assert!(screen.lines().count() <= 65, "more than a screen: {}", screen.lines().count());
}

/// What is said to be wrong with the machine itself.
fn cause<const BUG: u8>() -> String {
    first_failure::<BUG>().report.suspicion.expect("a machine that is wrong is suspected")
}

#[test]
fn a_machine_is_told_apart_from_the_engine_by_what_two_of_them_do() {
    let cause = cause::<ANSWERS_BY_ITS_ADDRESS>();
    assert!(cause.starts_with("the machine is not deterministic"), "{cause}");
    assert!(cause.contains("answer command 1, at "), "{cause}");
}

#[test]
fn a_machine_that_captures_in_the_order_of_a_hash_map_is_told_with_the_first_command() {
    let cause = cause::<CAPTURES_IN_HASH_ORDER>();
    assert!(cause.contains("captures one state as different bytes"), "{cause}");
    assert!(cause.contains("first after command "), "{cause}");
}

#[test]
fn a_machine_that_is_another_after_a_restore_is_told_with_the_first_command() {
    let cause = cause::<FORGETS_WHAT_IT_CAPTURED>();
    assert_eq!(
        cause.split(", first after ").next(),
        Some("a restored machine is not what was captured")
    );
}

#[test]
fn a_machine_that_is_sound_is_not_suspected() {
    let report = Storm::new(Seed::new(3).traced()).run(Ledger::default, workload).unwrap();
    assert_eq!(report.suspicion, None);
}

#[test]
fn a_seed_that_does_not_do_the_same_twice_is_told_with_the_first_difference() {
    // Each call sees another world: as if the workload looked at a clock.
    let calls = AtomicU64::new(0);
    let run = |seed: Seed| -> Outcome {
        let think = calls.fetch_add(1, Ordering::Relaxed);
        Storm::new(seed).with(|plan| plan.think.least += think).run(Ledger::default, workload)
    };
    let report = run(Seed::new(3)).unwrap();
    let problem = twice(&run, &Seed::new(3), &report).unwrap_err();
    for part in ["does not do the same twice", "two runs differ from line ", "both:", "then:"] {
        assert!(problem.contains(part), "{problem}");
    }
    let sound = |seed| Storm::new(seed).run(Ledger::default, workload);
    assert_eq!(twice(&sound, &Seed::new(3), &sound(Seed::new(3)).unwrap()), Ok(()));
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
