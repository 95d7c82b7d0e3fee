//! What clients were told is true: an acknowledged write is where it was said to be and nowhere
//! else, a refused one is nowhere, and log positions respect real time (linearizability, Herlihy &
//! Wing 1990: the log is the order, so it suffices that each answer's position lies above all that
//! was acknowledged before its request began).

use super::{Checked, Violation};
use crate::{
    client::{Fate, Request},
    witness::Applied,
};
use lakebed::{LogIndex, RequestId};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// Where each request was applied first.
    applied: BTreeMap<u64, LogIndex>,
    refused: std::collections::BTreeSet<u64>,
    acknowledged: LogIndex,
}

impl History {
    pub(super) const fn acknowledged(&self) -> LogIndex {
        self.acknowledged
    }

    pub(super) fn applied_at(&self, request: RequestId) -> Option<LogIndex> {
        self.applied.get(&request.0).copied()
    }

    /// Commands are applied for the first time in the cluster.
    pub(super) fn on_first_apply(&mut self, node: usize, commands: &[Applied]) -> Checked {
        for command in commands {
            let (request, index) = (command.request, command.at.index);
            let before = self.applied.insert(request, index);
            if let Some(before) = before {
                let what = format!("request {request} is applied at {before} and again at {index}");
                return Err(Violation::new("applied once", node, what));
            }
            if self.refused.contains(&request) {
                let what = format!("request {request} was refused, and is applied at {index}");
                return Err(Violation::new("refused is never applied", node, what));
            }
        }
        Ok(())
    }

    pub(super) fn on_end(&mut self, id: RequestId, request: &Request, fate: Fate) -> Checked {
        let node = request.node;
        if request.fate != Fate::Open {
            let what = format!("request {id} ends as {fate:?} after it was {:?}", request.fate);
            return Err(Violation::new("one end per request", node, what));
        }
        match fate {
            Fate::Answered(at) => self.on_answer(id, request, at),
            Fate::Refused => self.on_refusal(id, node),
            Fate::Open | Fate::Unknown => Ok(()),
        }
    }

    fn on_answer(&mut self, id: RequestId, request: &Request, at: LogIndex) -> Checked {
        let (node, floor) = (request.node, request.floor);
        self.acknowledged = self.acknowledged.max(at);
        if request.is_write && self.applied_at(id) != Some(at) {
            let what = format!("request {id} is answered at {at}, where it was not applied");
            return Err(Violation::new("acknowledged is there", node, what));
        }
        if at > floor || (at == floor && !request.is_write) {
            return Ok(());
        }
        let kind = if request.is_write { "write" } else { "read" };
        let what = format!("{kind} {id} is answered at {at}; {floor} was acknowledged before it");
        Err(Violation::new("linearizable", node, what))
    }

    fn on_refusal(&mut self, id: RequestId, node: usize) -> Checked {
        self.refused.insert(id.0);
        let Some(at) = self.applied_at(id) else { return Ok(()) };
        let what = format!("request {id} is refused, and was applied at {at}");
        Err(Violation::new("refused is never applied", node, what))
    }
}
