//! Membership changes: asked of whoever leads, again and again until they are taken.

use super::{Coming, World, node_id};
use crate::{
    client::{Errand, Fate, Request, Workload},
    oracle::Checked,
    plan::{MS, Step, Steps},
};
use bytes::Bytes;
use lakebed::{Change, Control, Event, Member, Membership, Outcome, RequestId, Role, StateMachine};
use std::{collections::BTreeMap, sync::Arc};

/// How long until a change that was refused is asked for again.
const PAUSE: u64 = 15 * MS;
/// How often it is asked for at most.
const TRIES: u32 = 60;

/// Changes that are wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    wanted: BTreeMap<u64, Wanted>,
    /// Asked for, and not answered.
    asked: BTreeMap<RequestId, u64>,
    count: u64,
}

#[derive(Clone, Debug)]
struct Wanted {
    steps: Steps,
    tries: u32,
}

impl<M: StateMachine, W: Workload> World<M, W> {
    /// Wants the members to be others.
    pub fn want_change(&mut self, steps: &Steps) -> Checked {
        self.changes.count += 1;
        let number = self.changes.count;
        self.changes.wanted.insert(number, Wanted { steps: steps.clone(), tries: 0 });
        self.ask_for_change(number, 0)
    }

    /// Whether a change is wanted that was neither made nor given up.
    #[must_use]
    pub fn is_changing(&self) -> bool {
        !self.changes.wanted.is_empty()
    }

    /// Nothing more is to change.
    pub(super) fn want_no_changes(&mut self) {
        self.changes = Changes { count: self.changes.count, ..Changes::default() };
    }

    /// Asks for the `turn`th time, unless that was done before.
    pub(super) fn ask_for_change(&mut self, number: u64, turn: u32) -> Checked {
        let leader = self.leading();
        let wanted = self.changes.wanted.get_mut(&number);
        let Some(wanted) = wanted.filter(|wanted| wanted.tries == turn) else { return Ok(()) };
        wanted.tries += 1;
        if wanted.tries > TRIES {
            self.changes.wanted.remove(&number);
            return Ok(());
        }
        let Some(leader) = leader else {
            let turn = wanted.tries;
            self.schedule(self.now + PAUSE, Coming::Change { number, turn });
            return Ok(());
        };
        let tries = wanted.tries;
        let steps = wanted.steps.0.clone();
        let changes = steps.into_iter().map(|step| change(step, leader, tries)).collect();
        let (query, floor) = (Bytes::new(), self.oracle.acknowledged());
        let (client, is_write, fate) = (usize::MAX, false, Fate::Open);
        let request =
            Request { client, node: leader, is_write, errand: Errand::Plain, query, floor, fate };
        let id = self.requests.begin(request);
        self.changes.asked.insert(id, number);
        // Whoever is asked may be gone without an answer.
        self.schedule(self.now + PAUSE * 20, Coming::Change { number, turn: tries });
        self.feed(leader, Some(Event::Control { id, control: Control::Change(changes) }))
    }

    /// A request for a change, if it is one, has come to its end.
    pub(super) fn changed(&mut self, id: RequestId, outcome: &Outcome) {
        let Some(number) = self.changes.asked.remove(&id) else { return };
        if let Outcome::Refused(why) = outcome {
            self.note(None, || format!("change {number} refused: {why}"));
            let Some(turn) = self.changes.wanted.get(&number).map(|wanted| wanted.tries) else {
                return;
            };
            return self.schedule(self.now + PAUSE, Coming::Change { number, turn });
        }
        if matches!(outcome, Outcome::Done(_)) {
            self.struck("change");
        }
        self.changes.wanted.remove(&number);
    }

    pub(super) fn leading(&self) -> Option<usize> {
        let probes = (0..self.nodes.len()).filter_map(|node| Some((self.probe(node)?, node)));
        let leaders = probes.filter(|(probe, _)| probe.role == Role::Leader);
        leaders.max_by_key(|(probe, _)| probe.term).map(|(_, node)| node)
    }

    /// The members in force at a node, as it says itself.
    #[must_use]
    pub fn members(&self, node: usize) -> Option<Arc<Membership>> {
        self.nodes[node].engine.as_ref().and_then(|engine| engine.membership())
    }

    /// Whether a node was removed, and ended for that.
    #[must_use]
    pub fn has_left(&self, node: usize) -> bool {
        self.nodes[node].has_left
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
