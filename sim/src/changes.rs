//! Membership changes that are wanted: each is asked of whoever leads, again and again until it is
//! taken, for a while.
//!
//! Knows neither a world nor a group, only whose turn it is to be asked for. Invariant: a change is
//! asked for once at a time, or its answer is lost.

use crate::{
    plan::{MS, Step, Steps},
    world::node_id,
};
use lakebed::{Change, Member, NodeId, Outcome, Refusal, RequestId};
use std::collections::BTreeMap;

/// How long until a change that was refused is asked for again.
pub(crate) const PAUSE: u64 = 15 * MS;
/// How long until one is that nobody has answered: who was asked may be gone.
pub(crate) const PATIENCE: u64 = PAUSE * 20;
/// How often it is asked for at most.
const TRIES: u32 = 60;

/// Changes that are wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    wanted: BTreeMap<u64, Wanted>,
    /// Asked for, and not answered.
    asked: BTreeMap<RequestId, u64>,
    count: u64,
    /// What each request asks for, for the oracle: also those that nobody wants any more.
    sought: BTreeMap<RequestId, Vec<Change>>,
    /// Of whom those speak that were not refused, whatever became of them.
    taken: BTreeMap<RequestId, Vec<NodeId>>,
}

#[derive(Clone, Debug)]
struct Wanted {
    steps: Steps,
    tries: u32,
}

/// What is to be done about a change now.
pub(crate) enum Turn {
    /// Nothing: it was made or given up, or its turn has come and gone.
    Over,
    /// Nobody leads: it is to be asked for later, in this turn.
    Later(u32),
    /// It is to be asked for now, and, if no answer comes, in this turn again.
    Ask(Vec<Change>, u32),
}

/// How a request for a change ended.
pub(crate) enum Ended<'a> {
    /// It is to be asked for in this turn, unless it was given up.
    Refused {
        number: u64,
        why: &'a Refusal,
        turn: Option<u32>,
    },
    Made,
    Unknown,
}

impl Changes {
    /// Wants one more; its number.
    pub(crate) fn want(&mut self, steps: &Steps) -> u64 {
        self.count += 1;
        self.wanted.insert(self.count, Wanted { steps: steps.clone(), tries: 0 });
        self.count
    }

    /// Whether it may take away who has what others lack.
    pub(crate) fn takes_away(&self, number: u64) -> bool {
        let adds = |step: &Step| matches!(step, Step::Add(_) | Step::Address(_));
        self.wanted.get(&number).is_some_and(|wanted| !wanted.steps.0.iter().all(adds))
    }

    /// Whether one is wanted that was neither made nor given up.
    pub(crate) fn is_open(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Whether one may be made: it is wanted, or was asked for and has not ended.
    pub(crate) fn are_under_way(&self) -> bool {
        self.is_open() || !self.asked.is_empty()
    }

    /// Nothing more is wanted.
    pub(crate) fn clear(&mut self) {
        self.wanted.clear();
        self.asked.clear();
    }

    /// Asks for a change for the `turn`th time, unless that was done before.
    pub(crate) fn turn(&mut self, number: u64, turn: u32, leader: Option<usize>) -> Turn {
        let wanted = self.wanted.get_mut(&number).filter(|wanted| wanted.tries == turn);
        let Some(wanted) = wanted else { return Turn::Over };
        wanted.tries += 1;
        if wanted.tries > TRIES {
            self.wanted.remove(&number);
            return Turn::Over;
        }
        let tries = wanted.tries;
        let Some(leader) = leader else { return Turn::Later(tries) };
        let steps = wanted.steps.0.iter();
        Turn::Ask(steps.map(|step| change(*step, leader, tries)).collect(), tries)
    }

    /// It was asked for by this request.
    pub(crate) fn asked(&mut self, id: RequestId, number: u64, changes: &[Change]) {
        self.asked.insert(id, number);
        self.seek(id, changes);
    }

    /// This request asks for these changes.
    pub(crate) fn seek(&mut self, id: RequestId, changes: &[Change]) {
        self.sought.insert(id, changes.to_vec());
        self.taken.insert(id, changes.iter().map(Change::node).collect());
    }

    /// A request was refused. Whether no other one speaks of the same nodes: then nothing may ever come of
    /// what it asked for.
    pub(crate) fn on_refused(&mut self, id: RequestId) -> bool {
        let nodes = self.taken.remove(&id).unwrap_or_default();
        let mut others = self.taken.values().flatten();
        !others.any(|node| nodes.contains(node))
    }

    /// What a request that ends has asked for, if it was for a change.
    pub(crate) fn sought(&mut self, id: RequestId) -> Option<Vec<Change>> {
        self.sought.remove(&id)
    }

    /// A request has come to its end; `None` if it was not for a change.
    pub(crate) fn on_end<'a>(&mut self, id: RequestId, outcome: &'a Outcome) -> Option<Ended<'a>> {
        let number = self.asked.remove(&id)?;
        if let Outcome::Refused(why) = outcome {
            let turn = self.wanted.get(&number).map(|wanted| wanted.tries);
            return Some(Ended::Refused { number, why, turn });
        }
        self.wanted.remove(&number);
        Some(if matches!(outcome, Outcome::Done(_)) { Ended::Made } else { Ended::Unknown })
    }
}

fn change(step: Step, leader: usize, tries: u32) -> Change {
    let member = |node: usize, address: String| Member {
        id: node_id(node),
        incarnation: 0,
        address: address.into(),
    };
    match step {
        Step::Add(node) => Change::AddLearner(member(node, String::new())),
        Step::Promote(node) => Change::Promote(node_id(node)),
        Step::Demote(node) => Change::Demote(node_id(node)),
        Step::Remove(node) => Change::Remove(node_id(node)),
        Step::RemoveLeader => Change::Remove(node_id(leader)),
        // Another one each time: to say the same again is refused.
        Step::Address(node) => Change::Address(member(node, format!("moved-{tries}"))),
    }
}
