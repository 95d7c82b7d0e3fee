//! Membership changes: asked of whoever leads, again and again until they are taken.

use super::{Coming, World};
use crate::{
    changes::{Ended, PATIENCE, PAUSE, Turn},
    client::{Request, Workload},
    oracle::Checked,
    plan::Steps,
};
use lakebed::{Control, Event, Membership, Outcome, RequestId, Role, StateMachine};
use std::sync::Arc;

impl<M: StateMachine, W: Workload> World<M, W> {
    /// Wants the members to be others.
    pub fn want_change(&mut self, steps: &Steps) -> Checked {
        let number = self.changes.want(steps);
        self.ask_for_change(number, 0)
    }

    /// Whether a change is wanted that was neither made nor given up.
    #[must_use]
    pub fn is_changing(&self) -> bool {
        self.changes.is_open()
    }

    /// Nothing more is to change.
    pub(super) fn want_no_changes(&mut self) {
        self.changes.clear();
    }

    /// Asks for the `turn`th time, unless that was done before.
    pub(super) fn ask_for_change(&mut self, number: u64, turn: u32) -> Checked {
        let stays = |node: usize| (!self.is_out(node)).then(|| &self.nodes[node].disk);
        let must_wait = self.changes.takes_away(number) && self.harmed.is_open(stays);
        let leader = self.leading().filter(|_| !must_wait);
        let (changes, turn) = match self.changes.turn(number, turn, leader) {
            Turn::Over => return Ok(()),
            Turn::Later(turn) => {
                self.schedule(self.now + PAUSE, Coming::Change { number, turn });
                return Ok(());
            }
            Turn::Ask(changes, turn) => (changes, turn),
        };
        let leader = leader.expect("only who leads is asked");
        let id = self.requests.begin(Request::order(leader, self.oracle.acknowledged()));
        self.changes.asked(id, number, &changes);
        self.schedule(self.now + PATIENCE, Coming::Change { number, turn });
        self.feed(leader, Some(Event::Control { id, control: Control::Change(changes) }))
    }

    /// A request for a change, if it is one, has come to its end.
    pub(super) fn changed(&mut self, at: usize, id: RequestId, outcome: &Outcome) -> Checked {
        let sought = self.changes.sought(id);
        match (sought, outcome) {
            (Some(changes), Outcome::Done(done)) => self.oracle.on_changed(at, *done, &changes)?,
            (Some(changes), Outcome::Refused(_)) if self.changes.on_refused(id) => {
                self.oracle.on_change_refused(at, &changes)?;
            }
            _ => {}
        }
        match self.changes.on_end(id, outcome) {
            Some(Ended::Refused { number, why, turn }) => {
                self.note(None, || format!("change {number} refused: {why}"));
                if let Some(turn) = turn {
                    self.schedule(self.now + PAUSE, Coming::Change { number, turn });
                }
            }
            Some(Ended::Made) => self.struck("change"),
            Some(Ended::Unknown) | None => {}
        }
        Ok(())
    }

    pub(super) fn leading(&self) -> Option<usize> {
        let probes = (0..self.nodes.len()).filter_map(|node| Some((self.probe(node)?, node)));
        let leaders = probes.filter(|(probe, _)| probe.role == Role::Leader);
        leaders.max_by_key(|(probe, _)| probe.term).map(|(_, node)| node)
    }

    /// The members in force at a node, as it says itself.
    #[must_use]
    pub fn members(&self, node: usize) -> Option<Arc<Membership>> {
        self.nodes[node].engine.as_ref()?.membership().cloned()
    }

    /// Whether a node was removed, and ended for that.
    #[must_use]
    pub fn has_left(&self, node: usize) -> bool {
        self.nodes[node].has_left
    }
}
