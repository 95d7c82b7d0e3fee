//! A session's command applies once (Raft thesis §6.3): however often a client sends it, to
//! whichever nodes, over whatever crashes and installs. Who sends it again is answered as it was
//! the first time; and a client that does one thing after the other is never told that it does not.

use super::{Checked, Violation};
use crate::{
    client::{EARLY, Errand, Request},
    witness::{Applied, digest},
};
use lakebed::{
    LogId, LogIndex, RequestId,
    session::{Reply, SessionError},
};
use std::collections::BTreeMap;

/// Where an operation took effect.
#[derive(Clone, Copy, Debug)]
struct Effect {
    at: LogId,
    request: u64,
    answer: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Once {
    effects: BTreeMap<u64, Effect>,
}

impl Once {
    /// A node's machine applied these commands of the log.
    pub(super) fn on_apply(&mut self, node: usize, applied: &[Applied]) -> Checked {
        let performed = |command: &Applied| Some((*command, command.performed?));
        for (command, performed) in applied.iter().filter_map(performed) {
            let (operation, at) = (performed.operation, command.at);
            if operation == EARLY || performed.times > 1 {
                let times = performed.times;
                let what = match operation {
                    EARLY => format!("a command is applied at {at} before those that it follows"),
                    _ => format!("operation {operation} is applied {times} times at {at}"),
                };
                return Err(Violation::new(INVARIANT, node, what));
            }
            let effect = Effect { at, request: command.request, answer: performed.answer };
            let known = *self.effects.entry(operation).or_insert(effect);
            if (known.at, known.request) != (effect.at, effect.request) {
                let what = format!(
                    "operation {operation} is applied at {} as request {}, and at {at} as {}",
                    known.at, known.request, effect.request
                );
                return Err(Violation::new(INVARIANT, node, what));
            }
        }
        Ok(())
    }

    /// A request of a session was answered, where it was applied.
    pub(super) fn on_reply(
        &self,
        id: RequestId,
        request: &Request,
        at: LogIndex,
        answer: &[u8],
    ) -> Checked {
        let reply = Reply::parse(answer);
        let wrong = match (request.errand, reply) {
            (Errand::Step { operation, floor }, Ok(Reply::Done { answer, again })) => {
                self.wrong_answer(operation, floor, (id, at), (answer, again))
            }
            (Errand::Step { operation, .. }, Err(SessionError::TooOld { .. })) => {
                let is_applied = self.effects.contains_key(&operation);
                (!is_applied).then(|| format!("operation {operation} is too old before its time"))
            }
            (Errand::Open, Ok(Reply::Opened(_)))
            | (Errand::Early, Err(SessionError::OutOfOrder { .. }))
            | (Errand::Step { .. } | Errand::Early, Err(SessionError::Expired)) => None,
            (errand, reply) => Some(format!("{errand:?} is answered {reply:?}")),
        };
        match wrong {
            None => Ok(()),
            Some(what) => {
                Err(Violation::new(INVARIANT, request.node, format!("request {id}: {what}")))
            }
        }
    }

    fn wrong_answer(
        &self,
        operation: u64,
        floor: LogIndex,
        (id, at): (RequestId, LogIndex),
        (answer, again): (&[u8], bool),
    ) -> Option<String> {
        let Some(effect) = self.effects.get(&operation) else {
            return Some(format!("operation {operation} is answered and was not applied"));
        };
        let Effect { at: applied, request, answer: first } = *effect;
        if digest(answer) != first {
            return Some(format!("operation {operation} was answered otherwise at {applied}"));
        }
        if again != (request != id.0) || applied.index > at {
            return Some(format!(
                "operation {operation} is said to be applied {} at {at}, and was at {applied}",
                if again { "before, and not" } else { "first" }
            ));
        }
        // It takes effect after it began, whichever of its requests does it.
        (applied.index <= floor).then(|| {
            format!("operation {operation} takes effect at {applied}, and began behind {floor}")
        })
    }
}

const INVARIANT: &str = "a session's command applies once";
