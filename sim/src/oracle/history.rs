//! What clients were told is true: an acknowledged write is where it was said to be and nowhere
//! else, a refused one is nowhere, and log positions respect real time (linearizability, Herlihy &
//! Wing 1990: the log is the order, so it suffices that each answer's position lies above all that
//! was acknowledged before its request began).

use super::{Checked, Violation};
use crate::{
    client::{Fate, Request},
    witness::{Applied, digest},
};
use lakebed::{LogId, LogIndex, RequestId};

/// What is known of one request.
#[derive(Clone, Copy, Debug, Default)]
struct End {
    /// Where it was applied first; zero: nowhere yet.
    applied: LogIndex,
    refused: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// By request, whose ids count from one.
    ends: Vec<End>,
    acknowledged: LogIndex,
}

impl History {
    /// Nobody is told of anything at or before this.
    pub(super) const fn begin_behind(&mut self, at: LogId) {
        self.acknowledged = at.index;
    }

    /// What lies behind this was lost by a recovery by force, whoever was told of it.
    pub(super) fn forget_behind(&mut self, last: LogIndex) {
        for end in self.ends.iter_mut().filter(|end| end.applied > last) {
            end.applied = LogIndex(0);
        }
        self.acknowledged = self.acknowledged.min(last);
    }

    pub(super) const fn acknowledged(&self) -> LogIndex {
        self.acknowledged
    }

    fn applied_at(&self, request: RequestId) -> Option<LogIndex> {
        let end = self.ends.get(request.0 as usize)?;
        (end.applied > LogIndex(0)).then_some(end.applied)
    }

    /// Where a write that a node answers was applied: by what its machine did in this very step, and
    /// not by what is known of others, or the answer of one that was applied elsewhere, by another
    /// log or not at all here would pass.
    pub(super) fn answered_at(
        node: usize,
        (id, request): (RequestId, &Request),
        applied: &[Applied],
        answer: &[u8],
    ) -> Result<LogIndex, Violation> {
        let found = applied.iter().find(|applied| applied.request == id.0);
        let wrong = match found {
            _ if node != request.node => format!("and was asked of node {}", request.node + 1),
            None => "and its command is not among those that were just applied".into(),
            Some(applied) if applied.command != request.command => {
                format!("and another command was applied as it at {}", applied.at)
            }
            Some(applied) if applied.answer != digest(answer) => {
                format!("otherwise than its command at {} was", applied.at)
            }
            Some(applied) => return Ok(applied.at.index),
        };
        let what = format!("request {id} is answered, {wrong}");
        Err(Violation::new("acknowledged is there", node, what))
    }

    fn end(&mut self, request: u64) -> &mut End {
        let at = request as usize;
        if self.ends.len() <= at {
            self.ends.resize(at + 1, End::default());
        }
        &mut self.ends[at]
    }

    /// Commands are applied for the first time in the cluster.
    pub(super) fn on_first_apply(&mut self, node: usize, commands: &[Applied]) -> Checked {
        for command in commands {
            let (request, index) = (command.request, command.at.index);
            let end = self.end(request);
            let before = std::mem::replace(&mut end.applied, index);
            if before > LogIndex(0) {
                let what = format!("request {request} is applied at {before} and again at {index}");
                return Err(Violation::new("applied once", node, what));
            }
            if end.refused {
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
        self.end(id.0).refused = true;
        let Some(at) = self.applied_at(id) else { return Ok(()) };
        let what = format!("request {id} is refused, and was applied at {at}");
        Err(Violation::new("refused is never applied", node, what))
    }
}
