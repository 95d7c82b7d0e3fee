//! Is it the machine? Two of the user's machines are given what a run applied, and a third is
//! restored from each capture: a machine that is deterministic and total shows no difference.

use crate::{
    panics::caught,
    witness::{Given, escaped},
};
use lakebed::{LogId, StateMachine};

/// Captures are compared after every command until they came to this many bytes.
const CAPTURED_MAX: usize = 64 << 20;

const OTHER_BYTES: &str =
    "the machine captures one state as different bytes (in the order of a hash map?)";

/// What is wrong with the machine, with the first command that shows it.
pub(crate) fn suspect<M: StateMachine>(
    fresh: impl Fn() -> M,
    commands: &[Given],
) -> Option<String> {
    // A machine that panics was told of already.
    caught(|| compare(fresh, commands)).ok().flatten()
}

fn compare<M: StateMachine>(fresh: impl Fn() -> M, commands: &[Given]) -> Option<String> {
    let (mut one, mut other, mut restored) = (fresh(), fresh(), fresh());
    let mut captured = 0;
    for (n, command) in (1..).zip(commands) {
        let answer = apply(&mut one, command);
        if answer != apply(&mut other, command) {
            return Some(format!(
                "the machine is not deterministic: two of them, given the same commands, answer \
                 {} otherwise",
                name(n, command)
            ));
        }
        // It holds what was captured before this command.
        if captured > 0 && captured < CAPTURED_MAX && answer != apply(&mut restored, command) {
            return Some(format!(
                "a machine restored from a capture answers {} otherwise than the captured one",
                name(n, command)
            ));
        }
        if captured < CAPTURED_MAX {
            let state = capture(&one);
            captured += state.len().max(1);
            let problem = after(&state, &other, &mut restored, command.at);
            if let Some(problem) = problem {
                return Some(format!("{problem}, first after {}", name(n, command)));
            }
        }
    }
    None
}

fn after<M: StateMachine>(state: &[u8], other: &M, restored: &mut M, at: LogId) -> Option<String> {
    if capture(other) != state {
        return Some(OTHER_BYTES.into());
    }
    // In pieces of every size: a restore is cut anywhere.
    let size = 1 + at.index.0 as usize % 61;
    let pieces = state.len().div_ceil(size).max(1);
    for piece in 0..pieces {
        let from = piece * size;
        let bytes = &state[from..state.len().min(from + size)];
        if let Err(error) = restored.restore(from as u64, bytes, piece + 1 == pieces) {
            return Some(format!("the machine refuses its own capture ({error})"));
        }
    }
    let again = capture(restored);
    if again == state {
        return None;
    }
    // Few keys may lie in the same order twice, and only then in another.
    let is_shuffled = sorted(&again) == sorted(state);
    Some(
        if is_shuffled { OTHER_BYTES } else { "a restored machine is not what was captured" }
            .into(),
    )
}

fn sorted(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.sort_unstable();
    bytes
}

fn apply<M: StateMachine>(machine: &mut M, given: &Given) -> Vec<u8> {
    let mut answer = Vec::new();
    machine.apply(given.at, given.time, &given.command, &mut answer);
    answer
}

fn capture<M: StateMachine>(machine: &M) -> Vec<u8> {
    machine.freeze().flatten().collect()
}

fn name(n: usize, given: &Given) -> String {
    format!("command {n}, at {}: {}", given.at, escaped(&given.command))
}
