//! The vote gate: a node whose disk has lost entries that it may have acknowledged keeps term and
//! vote, and neither votes nor campaigns until it has them again.
//!
//! Without it a candidate that lacks what was committed with this node's word would be elected with
//! this node's vote. What it acknowledges anew counts as ever. The gate opens when everything that
//! the leader had, when it was asked about this very fault, is durable here again: whatever was
//! committed with the lost word is among it, because leaders hold all that is committed. An answer
//! to an earlier question does not do. Knows no files.

use super::{
    Raft,
    role::{Follower, Role},
};
use crate::{
    marks::Mark,
    message::{Head, Payload},
    types::{LogIndex, Term},
};

/// A gate that is shut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Gate {
    /// Names the fault: which life of the disk, and its write epoch.
    nonce: [u64; 2],
    /// What the leader of this term had when it was asked.
    until: Option<(Term, LogIndex)>,
}

impl Gate {
    pub(super) const fn new(nonce: [u64; 2]) -> Self {
        Self { nonce, until: None }
    }
}

impl Raft {
    /// The follower asks its leader, whenever it is to answer anyway.
    pub(super) fn ask_about_gate(&mut self, head: &Head) {
        let Some(Gate { nonce, until }) = self.gate else { return };
        if until.is_none_or(|(term, _)| term != self.term) {
            self.send(head.from, Payload::Gate { nonce });
        }
    }

    pub(super) fn on_gate(&mut self, head: &Head, nonce: [u64; 2]) {
        if head.term == self.term && matches!(self.role, Role::Leader(_)) {
            let last = self.log.marks.last();
            self.send(head.from, Payload::GateAnswer { nonce, last });
        }
    }

    pub(super) fn on_gate_answer(&mut self, head: &Head, nonce: [u64; 2], last: LogIndex) {
        let leads = head.term == self.term && self.leader() == Some(head.from);
        let Some(gate) = self.gate.as_mut().filter(|gate| leads && gate.nonce == nonce) else {
            return;
        };
        if gate.until.is_none_or(|(term, _)| term != head.term) {
            gate.until = Some((head.term, last));
        }
    }

    /// Opens the gate once everything is there again.
    pub(super) fn open_gate(&mut self) {
        let Some(Gate { until: Some((term, until)), .. }) = self.gate else { return };
        let Role::Follower(Follower { matched, .. }) = &self.role else { return };
        let is_early = cfg!(lakebed_break = "open_the_gate_an_entry_early");
        let until = if is_early { until.previous() } else { until };
        if term == self.term && until <= *matched && until <= self.log.marks.durable() {
            self.marks.set(Mark::GateCleared);
            self.gate = None;
            self.gate_opened = true;
        }
    }
}
