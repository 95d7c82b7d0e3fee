//! A node votes at most once in a term and never goes back to an older one, across all its
//! restarts (Raft §5.2, §5.4.1, figure 2 "Persistent state").
//!
//! The ledger is kept outside the node and made of the messages that leave it: what never left is
//! nobody's concern.

use super::{Checked, Seen, Violation};
use lakebed::{NodeId, Term, inspect::Said};
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub(super) struct Votes {
    /// Whom each node voted for in each term.
    given: BTreeMap<(usize, Term), NodeId>,
    /// The greatest term in which each node ever answered or stood for election.
    terms: Vec<Term>,
    /// Whether the node has been checked in its present life.
    checked: Vec<bool>,
    /// Up to which term each node may have lost its vote, and came back behind a gate: what it does
    /// not know it does not use.
    lost: Vec<Term>,
}

impl Votes {
    pub(super) fn new(nodes: usize) -> Self {
        let (terms, lost) = (vec![Term(0); nodes], vec![Term(0); nodes]);
        Self { given: BTreeMap::new(), terms, checked: vec![false; nodes], lost }
    }

    pub(super) fn on_death(&mut self, node: usize) {
        self.checked[node] = false;
    }

    pub(super) fn on_view(&mut self, seen: &Seen<'_>) -> Checked {
        let (node, term) = (seen.node, seen.probe.term);
        if !seen.probe.judged || std::mem::replace(&mut self.checked[node], true) {
            return Ok(());
        }
        if seen.probe.gated && self.voted(node, term) != seen.probe.vote {
            self.lost[node] = term;
        }
        let spoken = self.terms[node];
        let what = match self.forgotten(seen) {
            _ if term < spoken => format!("is back in term {term} after it spoke in term {spoken}"),
            Some(given) => format!(
                "is back in term {term} with the vote {:?}, and gave it to node {given}",
                seen.probe.vote
            ),
            None => return Ok(()),
        };
        Err(Violation::new("votes once", node, what))
    }

    /// Whom the node voted for in the term in which it is, if it does not know: it could vote again.
    fn forgotten(&self, seen: &Seen<'_>) -> Option<NodeId> {
        let (node, term) = (seen.node, seen.probe.term);
        let given = self.voted(node, term).filter(|given| seen.probe.vote != Some(*given));
        given.filter(|_| term > self.lost[node] && !seen.probe.gated)
    }

    /// Whether the node is in a term in which it may still vote, as far as it knows: none in which
    /// it did, or a later one than it spoke in.
    pub(super) fn is_kept(&self, seen: &Seen<'_>) -> bool {
        let (node, term) = (seen.node, seen.probe.term);
        term >= self.terms[node] && !self.given.contains_key(&(node, term))
    }

    /// Whether a node that starts like this knows of the last term that it spoke in, and of its vote.
    pub(super) fn are_known(&self, seen: &Seen<'_>) -> bool {
        seen.probe.term >= self.terms[seen.node] && self.forgotten(seen).is_none()
    }

    /// Whom a node voted for in a term.
    pub(super) fn voted(&self, node: usize, term: Term) -> Option<NodeId> {
        self.given.get(&(node, term)).copied()
    }

    /// The last term that the node spoke in, and whom it voted for then.
    pub(super) fn of(&self, node: usize) -> (Term, Option<NodeId>) {
        let term = self.terms[node];
        (term, self.given.get(&(node, term)).copied())
    }

    /// The node's disk is a new one, and it a new node: what it voted it must not vote again.
    pub(super) fn on_wiped(&mut self, node: usize) {
        self.terms[node] = Term(0);
    }

    pub(super) fn on_sent(&mut self, node: usize, to: NodeId, said: Said) -> Checked {
        let (term, candidate) = match said {
            // Whoever stands for election votes for itself.
            Said::StandsFor { term, .. } => (term, NodeId(node as u64 + 1)),
            Said::VotesFor { term } => (term, to),
            _ => return Ok(()),
        };
        self.terms[node] = self.terms[node].max(term);
        let given = *self.given.entry((node, term)).or_insert(candidate);
        if given == candidate {
            return Ok(());
        }
        let what = format!("votes for node {candidate} in term {term}, and did for node {given}");
        Err(Violation::new("votes once", node, what))
    }
}
