//! A machine with a bug in it is caught, and told as what it is.

use bytes::Bytes;
use lakebed::{LogId, MachineError, StateMachine, Timestamp};
use lakebed_scenarios::{Ask, machine::Ledger, workload};
use lakebed_sim::{
    Failure, Outcome, Seed, Storm,
    check::{Commands, screen, twice},
};
use std::{
    cell::Cell,
    collections::HashSet,
    sync::atomic::{AtomicU64, Ordering},
};

/// A ledger that does one thing wrong.
#[derive(Default)]
struct Wrong {
    bug: u8,
    ledger: Ledger,
    restored: bool,
    keys: u8,
    /// Whether it was told of a command, or asked, since it applied the last one.
    foresaw: Cell<bool>,
    asked: Cell<u64>,
    incoming: Vec<u8>,
}

const COUNTS_TWICE_AFTER_RESTORE: u8 = 1;
const PANICS: u8 = 2;
const ANSWERS_BY_ITS_ADDRESS: u8 = 3;
const CAPTURES_IN_HASH_ORDER: u8 = 4;
const FORGETS_WHAT_IT_CAPTURED: u8 = 5;
const APPLIES_WHAT_IT_FORESEES: u8 = 6;
const PANICS_AHEAD: u8 = 7;
const CAPTURES_WHAT_IT_FORESAW: u8 = 8;
const QUERIES_ITS_ADDRESS: u8 = 9;
const PANICS_WHEN_ASKED: u8 = 10;
const COUNTS_QUERIES: u8 = 11;
const CAPTURES_QUERIES: u8 = 12;
const INDEXES_NOTHING_RESTORED: u8 = 13;
const KEEPS_HALF_A_RESTORE: u8 = 14;
const KEEPS_WHAT_IT_IS_TO_FORGET: u8 = 15;

impl StateMachine for Wrong {
    fn apply(&mut self, at: LogId, time: Timestamp, command: &[u8], answer: &mut Vec<u8>) {
        self.ledger.apply(at, time, command, answer);
        let foresaw = self.foresaw.take();
        match self.bug {
            APPLIES_WHAT_IT_FORESEES if foresaw => {
                self.ledger.apply(at, time, command, &mut Vec::new());
            }
            CAPTURES_WHAT_IT_FORESAW => self.keys ^= u8::from(foresaw),
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

    fn foresee(&self, commands: &mut dyn Iterator<Item = &[u8]>) {
        self.foresaw.set(commands.next().is_some());
        if self.bug == PANICS_AHEAD && self.ledger.applied() >= 70 {
            panic!("it is seventy");
        }
    }

    fn query(&self, query: &[u8], answer: &mut Vec<u8>) {
        self.asked.set(self.asked.get() + 1);
        match self.bug {
            QUERIES_ITS_ADDRESS => {
                answer.extend_from_slice(&std::ptr::from_ref(self).addr().to_le_bytes());
            }
            PANICS_WHEN_ASKED if self.ledger.applied() >= 70 => panic!("it is seventy"),
            COUNTS_QUERIES => answer.extend_from_slice(&self.asked.get().to_le_bytes()),
            INDEXES_NOTHING_RESTORED if self.restored => {}
            CAPTURES_IN_HASH_ORDER => answer.push(self.keys),
            _ => self.ledger.query(query, answer),
        }
    }

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        if self.bug == CAPTURES_IN_HASH_ORDER {
            let keys: HashSet<u8> = (0..self.keys).collect();
            return Box::new(keys.into_iter().map(|key| Bytes::from(vec![key])));
        }
        let more = match self.bug {
            CAPTURES_WHAT_IT_FORESAW => Some(vec![self.keys].into()),
            CAPTURES_QUERIES => Some(self.asked.get().to_le_bytes().to_vec().into()),
            _ => None,
        };
        Box::new(more.into_iter().chain(self.ledger.freeze()))
    }

    fn restore(&mut self, offset: u64, bytes: &[u8], last: bool) -> Result<(), MachineError> {
        self.restored = last;
        if self.bug == KEEPS_HALF_A_RESTORE || self.bug == CAPTURES_QUERIES {
            return self.take_in(offset, bytes, last);
        }
        if self.bug == KEEPS_WHAT_IT_IS_TO_FORGET && bytes.is_empty() && !last {
            return Ok(());
        }
        if self.bug == CAPTURES_IN_HASH_ORDER {
            self.keys = offset as u8 + bytes.len() as u8;
            return Ok(());
        }
        if self.bug == FORGETS_WHAT_IT_CAPTURED && last {
            self.ledger = Ledger::default();
            return Ok(());
        }
        self.ledger.restore(offset, bytes, last)
    }
}

impl Wrong {
    fn of<const BUG: u8>() -> Self {
        Self { bug: BUG, ..Self::default() }
    }

    /// Keeps what comes until all of it is there.
    fn take_in(&mut self, offset: u64, bytes: &[u8], last: bool) -> Result<(), MachineError> {
        if offset == 0 {
            self.asked.set(0);
            self.ledger = Ledger::default();
        }
        if offset == 0 && self.bug != KEEPS_HALF_A_RESTORE {
            self.incoming.clear();
        }
        self.incoming.extend_from_slice(bytes);
        if !last {
            return Ok(());
        }
        let mut state = std::mem::take(&mut self.incoming);
        if self.bug == CAPTURES_QUERIES {
            let rest = state.split_off(size_of::<u64>());
            self.asked.set(u64::from_le_bytes(state.try_into().expect("it was split off there")));
            state = rest;
        }
        self.ledger.restore(0, &state, true)
    }
}

fn run<const BUG: u8>(seed: u64) -> Outcome {
    Storm::new(Seed::new(seed).traced()).run(Wrong::of::<BUG>, workload as Ask)
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
fn a_machine_that_is_another_for_having_foreseen_is_told_with_the_first_command() {
    let invariant = first_failure::<APPLIES_WHAT_IT_FORESEES>().violation.invariant;
    assert_eq!(invariant, "state machine safety");
    let told = cause::<APPLIES_WHAT_IT_FORESEES>();
    let whose = "a machine that was told of commands by foresee() ";
    assert!(told.starts_with(&format!("{whose}is not what one is that was not")), "{told}");
    assert!(told.contains(", first after command 1, at "), "{told}");
    let told = cause::<CAPTURES_WHAT_IT_FORESAW>();
    assert!(told.starts_with(whose) && told.contains(", first after command 1, at "), "{told}");
}

#[test]
fn a_machine_that_panics_as_it_foresees_is_told() {
    let failure = first_failure::<PANICS_AHEAD>();
    assert_eq!(failure.violation.invariant, "the machine does not panic");
    assert!(failure.violation.what.starts_with("foreseeing \""), "{}", failure.violation);
    assert!(failure.violation.what.ends_with("it is seventy"), "{}", failure.violation);
}

#[test]
fn a_machine_that_answers_queries_otherwise_is_told_with_the_query() {
    let failure = first_failure::<QUERIES_ITS_ADDRESS>();
    assert!(failure.violation.what.contains("answers a query at "), "{}", failure.violation);
    let told = [
        (cause::<QUERIES_ITS_ADDRESS>(), "two of them, given the same commands, answer the query "),
        (cause::<COUNTS_QUERIES>(), "not deterministic: asked twice, it answers the query "),
        (
            cause::<INDEXES_NOTHING_RESTORED>(),
            "a machine restored from a capture answers the query ",
        ),
    ];
    for (cause, part) in told {
        assert!(cause.contains(part) && cause.contains(", after command "), "{cause}");
    }
    let cause = cause::<CAPTURES_QUERIES>();
    assert!(cause.starts_with("the query ") && cause.ends_with(" changes the machine"), "{cause}");
}

#[test]
fn a_machine_that_panics_when_it_is_asked_is_told_with_the_query() {
    let failure = first_failure::<PANICS_WHEN_ASKED>();
    assert_eq!(failure.violation.invariant, "the machine does not panic");
    let cause = failure.report.suspicion.expect("a machine that is wrong is suspected");
    assert!(cause.starts_with("the machine panics, answering the query \""), "{cause}");
}

#[test]
fn a_machine_that_is_another_after_a_restore_that_was_broken_off_is_told() {
    // Hardly a storm has a restore that is broken off: it is the machine by itself that shows it.
    let suspicion = |outcome: Outcome| {
        let report = outcome.unwrap_or_else(|failure| failure.report);
        report.suspicion.expect("a machine that is wrong is suspected")
    };
    let cause = suspicion(run::<KEEPS_HALF_A_RESTORE>(3));
    let whose = "a machine whose restore was broken off and begun anew ";
    assert!(cause.starts_with(whose) && cause.contains("first after command "), "{cause}");
    let cause = suspicion(run::<KEEPS_WHAT_IT_IS_TO_FORGET>(3));
    assert!(cause.starts_with("the machine is not what a new one is: "), "{cause}");
}

#[test]
fn a_machine_that_is_sound_is_not_suspected() {
    let report = Storm::new(Seed::new(3).traced()).run(Ledger::default, workload as Ask).unwrap();
    assert_eq!(report.suspicion, None);
}

#[test]
fn a_seed_that_does_not_do_the_same_twice_is_told_with_the_first_difference() {
    // Each call sees another world: as if the workload looked at a clock.
    let calls = AtomicU64::new(0);
    let run = |seed: Seed| -> Outcome {
        let think = calls.fetch_add(1, Ordering::Relaxed);
        Storm::new(seed)
            .with(|plan| plan.think.least += think)
            .run(Ledger::default, workload as Ask)
    };
    let report = run(Seed::new(3)).unwrap();
    let problem = twice(&run, &Seed::new(3), &report).unwrap_err();
    for part in ["does not do the same twice", "two runs differ from line ", "both:", "then:"] {
        assert!(problem.contains(part), "{problem}");
    }
    let sound = |seed| Storm::new(seed).run(Ledger::default, workload as Ask);
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
