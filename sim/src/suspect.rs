//! Is it the machine? Two of the user's machines are given what a run applied, and a third is
//! restored from each capture, while a view of it is held over the next command: a machine that is
//! deterministic and total, and freezes, shows no difference.

use crate::{
    panics::caught,
    witness::{Given, escaped, in_one_piece},
};
use bytes::Bytes;
use lakebed::{LogId, StateMachine};

/// Captures are compared after every command until they came to this many bytes.
const CAPTURED_MAX: usize = 64 << 20;

type View = Box<dyn Iterator<Item = Bytes> + Send>;

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
    // A view, and all that it gave out when it was opened.
    let mut held: Option<(View, Vec<u8>)> = None;
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
        if let Some((view, state)) = held.take()
            && view.flatten().ne(state)
        {
            let command = name(n, command);
            // The view and what it gave out were captured apart: in another order each, it may be.
            return Some(if is_shuffled(&one) {
                format!("{OTHER_BYTES}, first after {command}")
            } else {
                format!(
                    "a view that freeze() gave changes with {command}: it must be of the state as \
                     it was when it was frozen"
                )
            });
        }
        if captured < CAPTURED_MAX {
            let state = capture(&one);
            held = Some((one.freeze(), state.clone()));
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
    // Few keys may lie in the same order twice, and only then in another. A map that keeps its
    // order for as long as it lives gives itself away in another map alone.
    let other_order = sorted(&again) == sorted(state);
    Some(
        if other_order { OTHER_BYTES } else { "a restored machine is not what was captured" }
            .into(),
    )
}

/// Whether one state, captured again and again, comes as different bytes: two keys lie in the same
/// order every time once in 2^31.
fn is_shuffled<M: StateMachine>(machine: &M) -> bool {
    let first = capture(machine);
    (0..31).any(|_| capture(machine) != first)
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
    in_one_piece(machine.freeze())
}

fn name(n: usize, given: &Given) -> String {
    format!("command {n}, at {}: {}", given.at, escaped(&given.command))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Draw, Op, Storm, check};
    use lakebed::{MachineError, Timestamp};
    use std::{
        panic::catch_unwind,
        sync::{Arc, Mutex},
    };

    /// Bytes, of which a command adds to one; `FROZEN` is whether a view is of its own.
    #[derive(Default)]
    struct Sums<const BYTES: usize, const FROZEN: bool>(Arc<Mutex<Vec<u8>>>);

    impl<const BYTES: usize, const FROZEN: bool> StateMachine for Sums<BYTES, FROZEN> {
        fn apply(&mut self, _: LogId, _: Timestamp, command: &[u8], answer: &mut Vec<u8>) {
            let mut state = self.0.lock().unwrap();
            state.resize(BYTES, 0);
            let at = usize::from(command[0]) * BYTES / 256;
            state[at] = state[at].wrapping_add(1);
            answer.push(state[at]);
        }

        fn query(&self, _: &[u8], answer: &mut Vec<u8>) {
            answer.extend(self.0.lock().unwrap().iter().take(8));
        }

        fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
            const PIECE: usize = 1 << 16;
            let mut state = Arc::clone(&self.0);
            if FROZEN {
                let copy = state.lock().unwrap().clone();
                state = Arc::new(Mutex::new(copy));
            }
            Box::new((0..).map_while(move |piece| {
                let state = state.lock().unwrap();
                let bytes = state.get(piece * PIECE..)?;
                let bytes = &bytes[..bytes.len().min(PIECE)];
                (!bytes.is_empty()).then(|| Bytes::copy_from_slice(bytes))
            }))
        }

        fn restore(&mut self, offset: u64, bytes: &[u8], _: bool) -> Result<(), MachineError> {
            let mut state = self.0.lock().unwrap();
            state.truncate(offset as usize);
            state.extend_from_slice(bytes);
            Ok(())
        }
    }

    fn workload(draw: &mut Draw) -> Op {
        let byte = draw.below(256) as u8;
        if draw.ratio(1, 4) { Op::Read(Vec::new()) } else { Op::Propose(vec![byte]) }
    }

    fn told<const BYTES: usize, const FROZEN: bool>() -> Result<(), String> {
        let run = |seed| Storm::new(seed).run(Sums::<BYTES, FROZEN>::default, workload);
        let told = catch_unwind(|| check("views", run)).map(drop);
        told.map_err(|panic| *panic.downcast::<String>().unwrap())
    }

    #[test]
    fn a_view_that_is_not_frozen_is_told_with_the_command_that_changed_it() {
        for told in [told::<8, false>(), told::<70_000, false>()] {
            let told = told.unwrap_err();
            let cause = "cause: a view that freeze() gave changes with command 2, at ";
            assert!(told.contains(cause), "{told}");
        }
    }

    #[test]
    fn a_view_of_its_own_is_not_suspected() {
        assert_eq!(told::<8, true>(), Ok(()));
        assert_eq!(told::<70_000, true>(), Ok(()));
    }
}
