//! Is it the machine? Some of the user's machines are given what a run gave its own: two as it
//! comes, one that foresees some of it, one that is restored from each capture, and one whose
//! restores are broken off first; and a view is held over the next command. A machine that is
//! deterministic and total, and freezes, shows no difference.

use crate::{
    panics::{Panic, caught},
    witness::{Asked, FORESEEN_MAX, Given, Inputs, escaped, in_one_piece},
};
use bytes::Bytes;
use lakebed::{MachineError, StateMachine};

/// Captures are compared after every command until they came to this many bytes.
const CAPTURED_MAX: usize = 64 << 20;
/// What varies by chance between two alternatives stays the same for so long once in 2^31.
const TRIES: usize = 31;

type View = Box<dyn Iterator<Item = Bytes> + Send>;

const OTHER_BYTES: &str =
    "the machine captures one state as different bytes (in the order of a hash map?)";

/// What is wrong with the machine, with the first command or query that shows it.
pub(crate) fn suspect<M: StateMachine>(fresh: impl Fn() -> M, inputs: &Inputs) -> Option<String> {
    let told = caught(|| Machines::new(&fresh, &inputs.commands).compare(&inputs.queries));
    told.unwrap_or_else(|panic| Err(panicked(panic))).err()
}

fn panicked(panic: Panic) -> String {
    match panic.blame {
        Some((_, doing)) => format!("the machine panics, {doing}: {}", panic.what),
        None => format!("the machine panics: {}", panic.what),
    }
}

/// What is different about a machine beside the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Nothing.
    Twin,
    Foresees,
    /// It is what was captured last.
    Restored,
    /// So is it, but did not take that in at once.
    BegunAnew,
}

impl Kind {
    /// What is wrong if it answers this otherwise.
    fn answers(self, what: &str) -> String {
        match self {
            Self::Twin => format!(
                "the machine is not deterministic: two of them, given the same commands, answer \
                 {what} otherwise"
            ),
            Self::Foresees => format!(
                "a machine that was told of commands by foresee() answers {what} otherwise than \
                 one that was not: nothing may follow from it but speed"
            ),
            Self::Restored => format!(
                "a machine restored from a capture answers {what} otherwise than the captured one"
            ),
            Self::BegunAnew => format!(
                "a machine whose restore was broken off and begun anew answers {what} otherwise \
                 than the captured one"
            ),
        }
    }

    /// What is wrong if its state is another.
    const fn is_another(self) -> &'static str {
        match self {
            Self::Twin => OTHER_BYTES,
            Self::Foresees => {
                "a machine that was told of commands by foresee() is not what one is that was \
                 not: nothing may follow from it but speed"
            }
            Self::Restored => "a restored machine is not what was captured",
            Self::BegunAnew => {
                "a machine whose restore was broken off and begun anew is not what was captured"
            }
        }
    }

    /// Whether it is what it is by what was captured.
    const fn is_of_captures(self) -> bool {
        matches!(self, Self::Restored | Self::BegunAnew)
    }
}

/// The machines, side by side.
struct Machines<'a, M> {
    fresh: &'a dyn Fn() -> M,
    commands: &'a [Given],
    one: M,
    beside: [(Kind, M); 4],
    /// How many commands were foreseen, or passed over, and how many together.
    foreseen: (usize, u64),
    captured: usize,
    /// A view after the last command, and all that it gave out when it was opened.
    held: Option<(View, Vec<u8>)>,
}

impl<'a, M: StateMachine> Machines<'a, M> {
    fn new(fresh: &'a dyn Fn() -> M, commands: &'a [Given]) -> Self {
        let kinds = [Kind::Twin, Kind::Foresees, Kind::Restored, Kind::BegunAnew];
        Self {
            fresh,
            commands,
            one: fresh(),
            beside: kinds.map(|kind| (kind, fresh())),
            foreseen: (0, 0),
            captured: 0,
            held: None,
        }
    }

    fn compare(mut self, queries: &[Asked]) -> Result<(), String> {
        // By where they were asked: one node is behind another.
        let mut queries: Vec<&Asked> = queries.iter().collect();
        queries.sort_by_key(|asked| asked.at);
        let mut queries = queries.into_iter().peekable();
        for n in 0..=self.commands.len() {
            if n > 0 {
                self.apply(n)?;
            }
            let next = self.commands.get(n).map(|next| next.at.index);
            while let Some(asked) = queries.next_if(|asked| next.is_none_or(|next| asked.at < next))
            {
                self.ask(n, &asked.query)?;
            }
        }
        Ok(())
    }

    /// All apply the `n`-th command.
    fn apply(&mut self, n: usize) -> Result<(), String> {
        self.foresee(n);
        let (command, held) = (&self.commands[n - 1], self.held.take());
        let answer = apply(&mut self.one, command);
        for at in 0..self.beside.len() {
            let (kind, machine) = &mut self.beside[at];
            let (kind, is_there) = (*kind, held.is_some() || !kind.is_of_captures());
            if is_there && apply(machine, command) != answer {
                let again = || apply(&mut self.replayed(n - 1), command);
                return Err(otherwise(kind, &name(n, command), &answer, again));
            }
        }
        let mut before = Vec::new();
        if let Some((view, state)) = held {
            if view.flatten().ne(state.iter().copied()) {
                return Err(self.thawed(n));
            }
            before = state;
        }
        if self.captured < CAPTURED_MAX {
            let state = capture(&self.one);
            self.captured += state.len().max(1);
            let compared = self.compare_states(n, &state, &before);
            compared.map_err(|problem| format!("{problem}, first after {}", name(n, command)))?;
            self.held = Some((self.one.freeze(), state));
        }
        Ok(())
    }

    /// One is told of the next command, of the next two, and so on; and of one in between not.
    fn foresee(&mut self, n: usize) {
        let (foreseen, together) = self.foreseen;
        if n <= foreseen {
            return;
        }
        let together = together % FORESEEN_MAX + 1;
        self.foreseen = (n + together as usize, together);
        let next = self.commands[n - 1..].iter().take(together as usize);
        let one = self.beside.iter().find(|(kind, _)| *kind == Kind::Foresees);
        let (_, machine) = one.expect("it is one of them");
        machine.foresee(&mut next.map(|next| &next.command[..]));
    }

    /// The view that was held before the `n`-th command changed with that.
    fn thawed(&self, n: usize) -> String {
        let command = name(n, &self.commands[n - 1]);
        // The view and what it gave out were captured apart: in another order each, it may be.
        if is_shuffled(&self.one) {
            return format!("{OTHER_BYTES}, first after {command}");
        }
        format!(
            "a view that freeze() gave changes with {command}: it must be of the state as it was \
             when it was frozen"
        )
    }

    /// All are in this state after the `n`-th command, and what was captured `before` was another.
    fn compare_states(&mut self, n: usize, state: &[u8], before: &[u8]) -> Result<(), String> {
        // In pieces of every size: a restore is cut anywhere.
        let size = 1 + self.commands[n - 1].at.index.0 as usize % 61;
        for (kind, machine) in &mut self.beside {
            match kind {
                Kind::Twin | Kind::Foresees => {}
                Kind::Restored => take_in(machine, (state, true), size)
                    .map_err(|error| format!("the machine refuses its own capture ({error})"))?,
                Kind::BegunAnew => {
                    break_off(machine, self.fresh, (n, before), size)?;
                    take_in(machine, (state, true), size).map_err(|error| {
                        format!(
                            "a machine whose restore was broken off and begun anew refuses its \
                             own capture ({error})"
                        )
                    })?;
                }
            }
            let again = capture(machine);
            if again != state {
                // Few keys may lie in the same order twice, and only then in another. A map that
                // keeps its order for as long as it lives gives itself away in another map alone.
                let is_other_order = sorted(&again) == sorted(state);
                return Err(if is_other_order { OTHER_BYTES } else { kind.is_another() }.into());
            }
        }
        Ok(())
    }

    /// All are asked this after the `n`-th command.
    fn ask(&self, n: usize, query: &[u8]) -> Result<(), String> {
        let what = || {
            let last = n.checked_sub(1).map(|last| &self.commands[last]);
            let after = last.map(|last| format!(", after {},", name(n, last)));
            format!("the query {}{}", escaped(query), after.unwrap_or_default())
        };
        let answer = ask(&self.one, query);
        if ask(&self.one, query) != answer {
            let what = what();
            return Err(format!(
                "the machine is not deterministic: asked twice, it answers {what} otherwise"
            ));
        }
        if let Some((_, state)) = &self.held
            && capture(&self.one) != *state
        {
            let is_shuffled = is_shuffled(&self.one);
            return Err(if is_shuffled {
                OTHER_BYTES.into()
            } else {
                what() + " changes the machine"
            });
        }
        for (kind, machine) in &self.beside {
            let is_there = self.held.is_some() || !kind.is_of_captures();
            if is_there && ask(machine, query) != answer {
                let again = || ask(&self.replayed(n), query);
                return Err(otherwise(*kind, &what(), &answer, again));
            }
        }
        Ok(())
    }

    /// A machine that was given so many commands, and nothing else.
    fn replayed(&self, count: usize) -> M {
        let mut machine = (self.fresh)();
        self.commands[..count].iter().for_each(|command| drop(apply(&mut machine, command)));
        machine
    }
}

/// A machine answers otherwise: for what is different about it, unless others do that are its like.
fn otherwise(kind: Kind, what: &str, answer: &[u8], again: impl Fn() -> Vec<u8>) -> String {
    let varies = || (0..TRIES).any(|_| again() != answer);
    (if kind != Kind::Twin && varies() { Kind::Twin } else { kind }).answers(what)
}

/// A machine takes in a part of an earlier state, or is told to forget everything, or both.
fn break_off<M: StateMachine>(
    machine: &mut M,
    fresh: &dyn Fn() -> M,
    (n, state): (usize, &[u8]),
    size: usize,
) -> Result<(), String> {
    let part = &state[..state.len() * (n % 7 + 1) / 8];
    if !part.is_empty() && !n.is_multiple_of(3) {
        take_in(machine, (part, false), size)
            .map_err(|error| format!("the machine refuses a part of its own capture ({error})"))?;
    }
    if n % 3 != 1 {
        let rule =
            "restore() at zero with no bytes, which are not the last, is to forget everything";
        let forgot = machine.restore(0, &[], false);
        forgot.map_err(|error| format!("the machine refuses to: {rule} ({error})"))?;
        if capture(machine) != capture(&fresh()) {
            return Err(format!("the machine is not what a new one is: {rule}"));
        }
    }
    Ok(())
}

/// A machine takes in the beginning of a state, or all of it, in pieces of this size.
fn take_in<M: StateMachine>(
    machine: &mut M,
    (state, is_all): (&[u8], bool),
    size: usize,
) -> Result<(), MachineError> {
    let pieces = state.len().div_ceil(size).max(1);
    (0..pieces).try_for_each(|piece| {
        let from = piece * size;
        let bytes = &state[from..state.len().min(from + size)];
        machine.restore(from as u64, bytes, is_all && piece + 1 == pieces)
    })
}

/// Whether one state, captured again and again, comes as different bytes: two keys lie in the same
/// order every time once in 2^31.
fn is_shuffled<M: StateMachine>(machine: &M) -> bool {
    let first = capture(machine);
    (0..TRIES).any(|_| capture(machine) != first)
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

fn ask<M: StateMachine>(machine: &M, query: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    machine.query(query, &mut answer);
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
    use lakebed::{LogId, Timestamp};
    use std::{
        panic::catch_unwind,
        sync::{Arc, Mutex},
    };

    /// So many bytes, of which a command adds to one; `is_frozen` is whether a view is of its own.
    struct Sums {
        bytes: usize,
        is_frozen: bool,
        state: Arc<Mutex<Vec<u8>>>,
    }

    impl Sums {
        fn of<const BYTES: usize, const FROZEN: bool>() -> Self {
            Self { bytes: BYTES, is_frozen: FROZEN, state: Arc::default() }
        }
    }

    impl StateMachine for Sums {
        fn apply(&mut self, _: LogId, _: Timestamp, command: &[u8], answer: &mut Vec<u8>) {
            let mut state = self.state.lock().unwrap();
            state.resize(self.bytes, 0);
            let at = usize::from(command[0]) * self.bytes / 256;
            state[at] = state[at].wrapping_add(1);
            answer.push(state[at]);
        }

        fn query(&self, _: &[u8], answer: &mut Vec<u8>) {
            answer.extend(self.state.lock().unwrap().iter().take(8));
        }

        fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
            const PIECE: usize = 1 << 16;
            let mut state = Arc::clone(&self.state);
            if self.is_frozen {
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
            let mut state = self.state.lock().unwrap();
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
        let run = |seed| Storm::new(seed).run(Sums::of::<BYTES, FROZEN>, workload);
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
