//! Who has lost what it may have acknowledged neither votes nor stands for election until it has it again
//! (storage.md, consequences of damage): behind its gate never, and where it knows what it lost it votes, and
//! stands only if others have that as state alone (raft/refill.rs), for it could not hand it on. Of several it is the
//! one that it asks for: what is state elsewhere needs a snapshot, which brings whatever else is lost.
//!
//! That somebody has it as state is known from what all have shown, in all their lives.

use super::{Checked, Seen, Violation};
use lakebed::{
    LogIndex, Role,
    inspect::{Probe, Said},
};

#[derive(Clone, Debug)]
pub(super) struct Stands {
    /// Up to where each node ever held the log as state.
    states: Vec<LogIndex>,
}

impl Stands {
    pub(super) fn new(nodes: usize) -> Self {
        Self { states: vec![LogIndex(0); nodes] }
    }

    /// `before`: what the node showed before, in this life.
    pub(super) fn on_view(&mut self, seen: &Seen<'_>, before: Option<&Probe>) -> Checked {
        let (node, probe) = (seen.node, &seen.probe);
        let state = probe.snapshot.index.max(probe.first.previous());
        self.states[node] = self.states[node].max(state);
        if !stands(probe) {
            return Ok(());
        }
        if probe.gated {
            let what = format!("is a {} of term {} behind its gate", probe.role, probe.term);
            return Err(Violation::new("behind a gate nobody stands", node, what));
        }
        let Some(owed) = probe.owed.filter(|_| !before.is_some_and(stands)) else { return Ok(()) };
        let lost = probe.wanted.map_or(owed, |wanted| wanted.min(owed));
        let mut others = self.states.iter().enumerate().filter(|(other, _)| *other != node);
        if others.any(|(_, state)| *state >= lost) {
            return Ok(());
        }
        let what = format!(
            "is a {} of term {}, and lacks entry {owed}, which others have in their logs alone",
            probe.role, probe.term
        );
        Err(Violation::new("who lacks entries leaves it to others", node, what))
    }
}

/// A node says something to another.
pub(super) fn on_sent(seen: &Seen<'_>, said: Said) -> Checked {
    match said {
        Said::VotesFor { term } if seen.probe.gated => {
            let what = format!("votes in term {term} behind its gate");
            Err(Violation::new("behind a gate nobody votes", seen.node, what))
        }
        _ => Ok(()),
    }
}

fn stands(probe: &Probe) -> bool {
    matches!(probe.role, Role::PreCandidate | Role::Candidate | Role::Leader)
}
