//! What a fuzzer runs: commands, states, and what clients send (`engine/src/fuzzing` says how
//! targets are made). No part of the library.

use crate::{Answered, Command, Kv, Queries};
use bytes::Bytes;
use lakebed::{LogId, LogIndex, StateMachine, Term, Timestamp};

#[cfg(feature = "serve")]
pub use crate::serve::fuzzing::resp;

/// Commands of a log, each behind its length (a byte), a second apart: whatever they say, they are
/// performed, answered alike on two machines, one of which takes in the other's state now and then.
pub fn command(mut input: &[u8]) {
    let (mut one, mut index) = (Kv::default(), 0);
    let mut other = Kv::default();
    while let Some(len) = input.split_off(..1) {
        let bytes = input.split_off(..input.len().min(len[0].into())).expect("not beyond the end");
        if let Some(command) = Command::decode(bytes) {
            let mut again = Vec::new();
            command.encode(&mut again);
            assert_eq!(again, bytes, "a command has one form");
            ask(&one, &command);
        }
        index += 1;
        let at = LogId::new(Term(1), LogIndex(index));
        let time = Timestamp(index * 1_000_000_000);
        let [mut first, mut second] = [Vec::new(), Vec::new()];
        one.apply(at, time, bytes, &mut first);
        other.apply(at, time, bytes, &mut second);
        assert_eq!(first, second);
        assert!(first.ends_with(b"\r\n"), "{}", first.escape_ascii());
        if index % 16 == 0 {
            other = thawed(&one);
        }
    }
    assert_eq!(one.digest(), other.digest());
}

/// Beside the log, those that only read.
fn ask(machine: &Kv, command: &Command<'_>) {
    if !command.is_read() {
        return;
    }
    let (mut queries, mut answer) = (Queries::default(), Vec::new());
    queries.push(command);
    machine.query(queries.bytes(), &mut answer);
    let answered = Answered::parse(Bytes::from(answer)).expect("the machine answers queries");
    assert_eq!(answered.count, 1);
}

fn thawed(machine: &Kv) -> Kv {
    let state: Vec<u8> = machine.freeze().flat_map(Vec::from).collect();
    let mut thawed = Kv::default();
    thawed.restore(0, &state, true).expect("a machine takes in what it gave out");
    thawed
}

/// Any state, in two pieces as the first byte says: taken in, and then given out as it was but for
/// the order of its keys, or refused.
pub fn state(input: &[u8]) {
    let Some((cut, state)) = input.split_first() else { return };
    let (first, second) = state.split_at(state.len().min((*cut).into()));
    let mut machine = Kv::default();
    let restored = machine
        .restore(0, first, false)
        .and_then(|()| machine.restore(first.len() as u64, second, true));
    match restored {
        Ok(()) => assert_eq!(thawed(&machine).digest(), machine.digest()),
        Err(error) => assert!(error.to_string().starts_with("not a state of this machine")),
    }
}

#[cfg(test)]
#[path = "../../fuzz/corpus.rs"]
pub(crate) mod corpus;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::tests::samples;
    use corpus::replay;

    #[test]
    fn kept_commands_are_one_form_and_mean_the_same_everywhere() {
        let (mut buf, mut all) = (Vec::new(), Vec::new());
        for command in samples(&mut buf) {
            let mut bytes = Vec::new();
            command.encode(&mut bytes);
            all.push(bytes.len() as u8);
            all.extend_from_slice(&bytes);
        }
        replay("command", command, &[all]);
    }

    #[test]
    fn kept_states_are_taken_in_whole_or_refused() {
        let mut machine = Kv::default();
        let mut set = Vec::new();
        let (key, value) = (&b"key"[..], &b"value"[..]);
        Command::Set { key, value, when: crate::When::Always, millis: 9 }.encode(&mut set);
        machine.apply(LogId::new(Term(1), LogIndex(1)), Timestamp(1), &set, &mut Vec::new());
        let frozen: Vec<u8> = machine.freeze().flat_map(Vec::from).collect();
        replay("state", state, &[[&[40][..], &frozen].concat()]);
    }
}
