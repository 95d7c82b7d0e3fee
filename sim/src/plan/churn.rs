//! From a seed to membership changes: machines that wait to join, and who becomes what, when.

use super::{Fault, FaultKind, MS, Plan, Step, Steps, site::Site};
use crate::prng::Draw;

impl Plan {
    /// A storm in which, in one run of three, the members change.
    #[must_use]
    pub fn swarm(seed: u64, nodes: usize) -> Self {
        let mut draw = Site::Churn.draw(seed);
        if !draw.ratio(1, 3) {
            return Self::storm(seed, nodes);
        }
        // Drawn of another seed: of its own it would be the very plan that `churn` draws of it, and who
        // sweeps over both would run it twice.
        Self { seed, ..Self::churn(!seed, nodes) }
    }

    /// A storm over a cluster of so many voters and a few machines more, which take their places.
    #[must_use]
    pub fn churn(seed: u64, voters: usize) -> Self {
        let mut draw = Site::Changes.draw(seed);
        let joining = draw.between(1, 4) as usize;
        let mut plan = Self::storm(seed, voters + joining);
        plan.joining = joining;
        let mut at = draw.between(50 * MS, 300 * MS);
        for newcomer in voters..voters + joining {
            for steps in arrival(&mut draw, newcomer) {
                plan.faults.push(Fault { at, kind: FaultKind::Change { steps: Steps(steps) } });
                at += draw.delay(20 * MS, 150 * MS);
            }
        }
        plan.faults.sort_by_key(|fault| fault.at);
        plan
    }
}

/// A machine joins, and something comes of it. Voters never become fewer than they were but by one.
fn arrival(draw: &mut Draw, newcomer: usize) -> Vec<Vec<Step>> {
    let old = draw.below(newcomer as u64) as usize;
    let mut changes = vec![vec![Step::Add(newcomer)]];
    let replaced = vec![Step::Promote(newcomer), Step::Remove(old)];
    match draw.below(8) {
        0 => changes.push(vec![Step::Promote(newcomer)]),
        1 => changes.push(replaced),
        2 => changes.push(vec![Step::Promote(newcomer), Step::RemoveLeader]),
        3 => {
            changes.push(vec![Step::Promote(newcomer), Step::Demote(old)]);
            changes.push(vec![Step::Promote(old)]);
        }
        4 => {
            changes.push(vec![Step::Promote(newcomer)]);
            changes.push(vec![Step::RemoveLeader]);
        }
        5 => {
            changes.push(vec![Step::Promote(newcomer), Step::Address(old)]);
            changes.push(vec![Step::Demote(old), Step::Address(newcomer)]);
            changes.push(vec![Step::Remove(old)]);
        }
        6 => changes.push(vec![Step::Remove(newcomer)]),
        // A cluster of one may lose the old voter at once.
        _ => {
            changes.push(replaced);
            changes.push(vec![Step::Address(newcomer)]);
        }
    }
    changes
}
