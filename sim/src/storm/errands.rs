//! What somebody is asked for once all is healed, until it is answered: that anything is acknowledged would
//! be too little, as an older write may be, or a read, by any node.

use super::{ASK_AGAIN_AFTER, SERVE_WITHIN, is_member, leader, run_for, waited_in_vain};
use crate::{
    client::{Fate, Workload},
    oracle::Checked,
    plan::MS,
    world::World,
};
use lakebed::{NodeId, Outcome, Refusal, RequestId, StateMachine};

/// Who is asked for something.
#[derive(Clone, Copy)]
pub(super) enum Asked {
    Leader,
    Member(usize),
}

/// What somebody is asked for, until it is answered.
struct Errand {
    of: Asked,
    is_write: bool,
    asked: Option<(RequestId, u64)>,
    is_done: bool,
}

/// Each of these answers a write and a read.
pub(super) fn serves<M: StateMachine, W: Workload>(
    world: &mut World<M, W>,
    asked: &[Asked],
) -> Checked {
    serves_within(world, asked, SERVE_WITHIN, |_| Ok(()))
}

/// The same within such a time; `meanwhile` goes on beside it, each millisecond.
pub(super) fn serves_within<M: StateMachine, W: Workload>(
    world: &mut World<M, W>,
    asked: &[Asked],
    within: u64,
    mut meanwhile: impl FnMut(&mut World<M, W>) -> Checked,
) -> Checked {
    let errand = |of, is_write| Errand { of, is_write, asked: None, is_done: false };
    let both = |of: &Asked| [true, false].map(|is_write| errand(*of, is_write));
    let mut errands: Vec<Errand> = asked.iter().flat_map(both).collect();
    let until = world.now() + within;
    loop {
        for errand in &mut errands {
            errand.go_on(world)?;
        }
        errands.retain(|errand| !errand.is_done);
        let Some(open) = errands.first() else { return Ok(()) };
        if world.now() > until {
            let kind = if open.is_write { "a write" } else { "a read" };
            let what = match open.of {
                Asked::Leader => format!("{kind} that whoever leads was asked for"),
                Asked::Member(node) => format!("{kind} that node {} was asked for", node + 1),
            };
            return Err(waited_in_vain(world, within, &what));
        }
        meanwhile(world)?;
        run_for(world, MS)?;
    }
}

impl Errand {
    /// Asks, and asks again when that ended without an answer: whoever leads may have changed, and who
    /// was asked may have been removed, or have lost what was on its way with its process.
    fn go_on<M: StateMachine, W: Workload>(&mut self, world: &mut World<M, W>) -> Checked {
        let fate = self.asked.map(|(id, since)| (world.fate(id), since));
        let is_answered = matches!(fate, Some((Fate::Answered(_), _)));
        let node = match self.of {
            Asked::Leader => leader(world),
            Asked::Member(node) => Some(node),
        };
        let has_left = node.is_some_and(|node| !is_member(world, node));
        self.is_done = is_answered || self.is_elsewhere(world) || has_left;
        let waits = fate.is_some_and(|(fate, since)| {
            fate == Fate::Open || world.now() < since + ASK_AGAIN_AFTER
        });
        let node = node.filter(|node| world.probe(*node).is_some() && !waits && !self.is_done);
        let Some(node) = node else { return Ok(()) };
        let asked = world.request_of_kind(node, self.is_write)?;
        self.is_done = asked.is_none();
        self.asked = asked.map(|id| (id, world.now()));
        Ok(())
    }

    /// Where followers forward nothing they owe no more than the name of whoever leads.
    fn is_elsewhere<M: StateMachine, W: Workload>(&self, world: &World<M, W>) -> bool {
        let outcome = self.asked.and_then(|(id, _)| world.outcome(id));
        let Some(Outcome::Refused(Refusal::NotLeader { hint: Some(named) })) = outcome else {
            return false;
        };
        let is_right = matches!(self.of, Asked::Member(_))
            && leader(world).is_some_and(|leader| *named == NodeId(leader as u64 + 1));
        !world.plan().tuning.forward && is_right
    }
}
