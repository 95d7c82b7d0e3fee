//! What was ever shown or promised, and what must be true of it (Raft §5.2-§5.4, figure 3).

use crate::node::Node;
use bytes::Bytes;
use lakebed::{
    Halt, LogId, LogIndex, NodeId, Role, Term,
    inspect::{Said, said},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Ledger {
    leaders: BTreeMap<Term, NodeId>,
    /// Whom each voter has voted for.
    votes: BTreeMap<(Term, NodeId), NodeId>,
    /// Committed entries from the first on, and the least term in which a node said so.
    committed: Vec<(LogId, Term)>,
    /// What every machine must have become at each index.
    machines: BTreeMap<LogIndex, u64>,
    /// How far each node has said that its disk holds the log of a leader: its term and its index.
    acknowledged: BTreeMap<NodeId, (Term, LogIndex)>,
    /// Whose disks were replaced: what they knew is nobody's any more.
    wiped: BTreeSet<NodeId>,
    /// Who was behind a gate when last looked at.
    gated: BTreeSet<NodeId>,
    has_opened_a_gate: bool,
    /// The first that was not true.
    pub(crate) violation: Option<String>,
}

impl Ledger {
    /// The terms that had a leader.
    pub(crate) fn led(&self) -> usize {
        self.leaders.len()
    }

    pub(crate) fn committed(&self) -> usize {
        self.committed.len()
    }

    pub(crate) const fn has_opened_a_gate(&self) -> bool {
        self.has_opened_a_gate
    }

    fn expect(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.violation.is_none() {
            self.violation = Some(what());
        }
    }

    /// A message leaves a node.
    pub(crate) fn on_said(&mut self, node: &Node, to: NodeId, message: &Bytes) {
        let (from, said) = (node.id, said(message));
        if let Some(Said::StandsFor { .. } | Said::VotesFor { .. }) = said {
            self.expect(!node.is_gated(), || format!("no vote behind a gate: node {from} votes"));
        }
        match said {
            Some(Said::StandsFor { term, .. }) => self.on_vote(term, from, from),
            Some(Said::VotesFor { term }) => self.on_vote(term, from, to),
            Some(Said::Acknowledged { through, term, .. }) => {
                // An older message, said again or late, takes back nothing of what was promised.
                let promised = self.acknowledged.entry(from).or_default();
                *promised = (*promised).max((term, through));
            }
            Some(Said::AsksToStand { .. } | Said::AsksOfGate { .. } | Said::TellsGate { .. })
            | None => {}
        }
    }

    fn on_vote(&mut self, term: Term, voter: NodeId, candidate: NodeId) {
        let first = *self.votes.entry((term, voter)).or_insert(candidate);
        self.expect(first == candidate, || {
            format!("votes once: node {voter} voted for {first} and {candidate} in term {term}")
        });
    }

    /// A node has done something.
    pub(crate) fn on_node(&mut self, nodes: &[Arc<Node>], at: usize) {
        self.expect_halt_to_be_in_order(&nodes[at]);
        self.on_gate(&nodes[at]);
        self.on_leader(&nodes[at]);
        self.on_committed(&nodes[at]);
        self.on_applied(&nodes[at]);
        self.look_at_logs(nodes, at);
    }

    fn expect_halt_to_be_in_order(&mut self, node: &Node) {
        let Some(halt) = &node.halt else { return };
        let is_lost = self.wiped.contains(&node.id) && matches!(**halt, Halt::DiskLost { .. });
        self.expect(is_lost || matches!(**halt, Halt::Removed), || {
            format!("no node ends by itself: node {} did: {halt}", node.id)
        });
    }

    fn on_gate(&mut self, node: &Node) {
        if node.is_gated() {
            self.gated.insert(node.id);
        } else {
            self.has_opened_a_gate |= self.gated.remove(&node.id);
        }
    }

    /// Election safety, and leader completeness.
    fn on_leader(&mut self, node: &Node) {
        let probe = node.probe();
        if probe.role != Role::Leader {
            return;
        }
        let first = *self.leaders.entry(probe.term).or_insert(node.id);
        self.expect(first == node.id, || {
            format!("election safety: {first} and {} lead term {}", node.id, probe.term)
        });
        let lacks = |(id, seen): &&(LogId, Term)| {
            *seen < probe.term && node.engine.term_at(id.index) != Some(id.term)
        };
        let lacking = self.committed.iter().find(lacks).map(|(id, _)| *id);
        self.expect(lacking.is_none(), || {
            let (node, term) = (node.id, probe.term);
            format!("leader completeness: {node} leads term {term} without {lacking:?}")
        });
    }

    /// What is committed stays, everywhere.
    fn on_committed(&mut self, node: &Node) {
        let probe = node.probe();
        for index in 1..=probe.committed.0 {
            let Some(term) = node.engine.term_at(LogIndex(index)) else { continue };
            let id = LogId::new(term, LogIndex(index));
            match self.committed.get_mut(index as usize - 1) {
                Some((known, seen)) => {
                    *seen = (*seen).min(probe.term);
                    let known = *known;
                    self.expect(known == id, || {
                        format!("committed stays: {known} was, and is {id} at node {}", node.id)
                    });
                }
                None => self.committed.push((id, probe.term)),
            }
        }
    }

    /// State-machine safety.
    fn on_applied(&mut self, node: &Node) {
        for (index, hash) in &node.fresh {
            let first = *self.machines.entry(*index).or_insert(*hash);
            self.expect(first == *hash, || {
                format!("state-machine safety: node {} applied another {index}", node.id)
            });
        }
    }

    /// Log matching, and that a quorum holds what is committed; who is behind a gate may have held it. So it is
    /// told at once if a gate opens too early.
    fn look_at_logs(&mut self, nodes: &[Arc<Node>], at: usize) {
        let own = &nodes[at];
        for other in nodes {
            let last = own.probe().last.index.min(other.probe().last.index).0;
            let term = |node: &Node, index| node.engine.term_at(LogIndex(index));
            let equal = |index: &u64| term(own, *index) == term(other, *index);
            let agreed = (1..=last).rev().find(equal).unwrap_or(0);
            let differs = (1..agreed).find(|index| !equal(index));
            self.expect(differs.is_none(), || {
                format!("log matching: {} and {} differ at {differs:?}", own.id, other.id)
            });
        }
        // By the members in force at whoever knows most: a change may be under way.
        let Some(newest) = nodes.iter().max_by_key(|node| node.probe().committed) else { return };
        let Some(members) = newest.engine.membership() else { return };
        let is_whole = members.outgoing.is_empty() && members.members().count() == nodes.len();
        if is_whole && self.wiped.is_empty() {
            let lost = self.committed.iter().map(|(id, _)| *id).find(|id| {
                !members.is_quorum(|member| {
                    nodes.iter().any(|node| {
                        let holds = node.probe().durable >= id.index
                            && node.engine.term_at(id.index) == Some(id.term);
                        node.id == member && (holds || node.is_gated())
                    })
                })
            });
            self.expect(lost.is_none(), || format!("a quorum holds what is committed: {lost:?}"));
        }
    }

    /// A node's disk is a new one: it is held to nothing but its votes, which count.
    pub(crate) fn on_wiped(&mut self, node: NodeId) {
        self.acknowledged.remove(&node);
        self.wiped.insert(node);
    }

    /// What a node has acknowledged it holds no more.
    pub(crate) fn on_log_lost(&mut self, node: NodeId) {
        self.acknowledged.remove(&node);
    }

    /// A node has lost power and come back; `before` is what it showed last.
    pub(crate) fn on_power_cut(&mut self, before: &Node, after: &Node) {
        let (shown, shows) = (before.probe(), after.probe());
        self.expect(shows.term >= self.term_promised_by(before.id), || {
            format!("terms only rise: node {} came back with {}", after.id, shows.term)
        });
        if let Some((term, through)) = self.acknowledged.get(&before.id).copied() {
            // Unless a later leader cut it since: then the node had heard of a later term.
            let held = |index: u64| {
                let index = LogIndex(index);
                after.engine.term_at(index) == before.engine.term_at(index)
            };
            let through = through.0.min(shown.last.index.0);
            let lost = (1..=through).find(|index| !held(*index));
            self.expect(lost.is_none() || shown.term > term, || {
                format!("acknowledged survives: node {} lost {lost:?}", after.id)
            });
        }
    }

    fn term_promised_by(&self, voter: NodeId) -> Term {
        let of_voter = self.votes.keys().filter(|(_, node)| *node == voter);
        of_voter.map(|(term, _)| *term).max().unwrap_or(Term(0))
    }
}
