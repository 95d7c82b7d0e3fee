//! Tapes.

use crate::{
    Config, GroupId, NodeId,
    tape::{Recorder, Step, Tape},
};
use bytes::Bytes;

/// Any tape: the input as it comes, and as what follows a good beginning.
pub fn tape(input: &[u8]) {
    judge(Bytes::copy_from_slice(input));
    let beginning = Recorder::new(&Config::new(GroupId(1), NodeId(1)), 42);
    judge([beginning.bytes(), input].concat().into());
}

/// What is read of it is what a recorder would have written.
fn judge(bytes: Bytes) {
    let Ok(tape) = Tape::open(bytes.clone()) else { return };
    let mut again = Recorder::new(&tape.config, tape.seed).bytes().to_vec();
    for step in tape.map_while(Result::ok) {
        let Step { now, events, actions } = step;
        let mut recorder = Recorder::new(&Config::new(GroupId(1), NodeId(1)), 42);
        recorder.clear();
        recorder.handed(now, &events);
        again.extend_from_slice(recorder.bytes());
        again.extend_from_slice(&(actions.len() as u32).to_le_bytes());
        for action in actions {
            again.extend_from_slice(&(action.len() as u32).to_le_bytes());
            again.extend_from_slice(&action);
        }
    }
    assert!(bytes.starts_with(&again), "a tape has one form");
}

#[cfg(test)]
mod tests {
    use crate::{
        Action, Event, Instant, Start, fuzzing::corpus::replay, tape::Recorder, tape::tests,
    };

    #[test]
    fn kept_tapes_have_one_form_as_far_as_they_are_tapes() {
        let whole = tests::recorded();
        let mut steps = Recorder::new(&tests::config(), 42);
        steps.clear();
        let actions = [Action::Members(Default::default())];
        steps.step(Instant(1), &[Event::Start(Start::Inspect)], &actions);
        replay("tape", super::tape, &[whole.bytes().to_vec(), steps.bytes().to_vec()]);
    }
}
