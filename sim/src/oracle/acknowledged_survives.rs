//! What a node called durable is in its log after every restart, and it never tells others of
//! more (Raft §5.1: persisted before answering; storage.md, principles 2 and 6).
//!
//! A conflict with a newer leader takes entries back; the ledger then goes back with the node, as
//! long as it runs. A crash freezes it.

use super::{Checked, Seen, Violation};
use lakebed::{Forced, LogId, LogIndex, Term};
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub(super) struct Promises {
    /// The last durable entry of each node, as it said itself.
    durable: Vec<LogId>,
    /// The last entry that each node holds durably in its present life, or held in the one before.
    held: Vec<LogId>,
    /// By leader and node: that this leader was told, in which term, that the node may have lost all behind
    /// an index.
    aware: BTreeMap<(usize, usize), (Term, LogIndex)>,
    /// The most that each node ever called durable, whoever took it back.
    ever: Vec<LogIndex>,
    /// Whether the node has been checked in its present life.
    checked: Vec<bool>,
    /// Whether the node's disk was taken away: what it promised, it did as another.
    wiped: Vec<bool>,
}

impl Promises {
    pub(super) fn new(nodes: usize) -> Self {
        Self {
            durable: vec![LogId::ZERO; nodes],
            held: vec![LogId::ZERO; nodes],
            aware: BTreeMap::new(),
            ever: vec![LogIndex(0); nodes],
            checked: vec![false; nodes],
            wiped: vec![false; nodes],
        }
    }

    pub(super) fn on_death(&mut self, node: usize) {
        self.checked[node] = false;
        // It may lose more before it is back, and who leads then does not know.
        self.aware.retain(|(by, of), _| *by != node && *of != node);
    }

    pub(super) fn on_view(&mut self, seen: &Seen<'_>) -> Checked {
        if !seen.probe.judged {
            return Ok(());
        }
        if !self.checked[seen.node] {
            self.on_recovered(seen)?;
        }
        self.ever[seen.node] = self.ever[seen.node].max(seen.probe.durable);
        if let Some(id) = seen.id_at(seen.probe.durable) {
            let before = self.durable[seen.node];
            self.held[seen.node] = id;
            // A leader may have been told by a disk that is gone, and commit by that. So it may by
            // what a gated node has lost, until it hears of that (`counts`); when the gate opens, that
            // node has what was committed (`gate_opens`). And what a node lacks by name it holds in all
            // other respects.
            let is_less = (id.term, id.index) < (before.term, before.index);
            // It has all of that again: from now on it is held to what it says, as anybody.
            self.wiped[seen.node] &= is_less;
            let lacks = seen.probe.holed && seen.id_at(before.index) == Some(before);
            let stands = self.wiped[seen.node] || seen.probe.gated || lacks;
            self.durable[seen.node] = if stands && is_less { before } else { id };
        }
        Ok(())
    }

    /// Whether a node holds this entry of a leader's own term durably: an entry of that term or a
    /// later one at or behind it has it before it.
    pub(super) fn holds(&self, node: usize, term: Term, index: LogIndex) -> bool {
        self.durable.get(node).is_some_and(|id| id.term >= term && id.index >= index)
    }

    /// Whether a leader may count a node for this entry of its term: by what the node has said, and where
    /// the leader knows that some of that was lost, by what is on its disk.
    pub(super) fn counts(&self, by: usize, node: usize, term: Term, index: LogIndex) -> bool {
        match self.aware.get(&(by, node)) {
            Some(&(learned, lost)) if learned == term && lost < index => {
                self.held[node].term >= term && self.held[node].index >= index
            }
            _ => self.holds(node, term, index),
        }
    }

    /// Whether a node has lost what it called durable, and may say so.
    pub(super) fn has_lost(&self, node: usize) -> bool {
        let (held, durable) = (self.held.get(node), self.durable.get(node));
        held.zip(durable).is_some_and(|(held, durable)| held < durable)
    }

    /// The leader of a term hears from a node what is durable there, and behind where it may have lost what
    /// was. What the node said before that may come later, and counts again.
    pub(super) fn on_heard(
        &mut self,
        (by, term): (usize, Term),
        from: usize,
        through: LogIndex,
        lacks: Option<LogIndex>,
    ) {
        if through > self.held[from].index {
            self.aware.remove(&(by, from));
        } else if let Some(lost) = lacks {
            let known = self.aware.entry((by, from)).or_insert((term, lost));
            let least = if known.0 == term { known.1.min(lost) } else { lost };
            *known = (term, least);
        }
    }

    /// Whether the node holds what it promised, or knows that it may not.
    pub(super) fn is_kept(&self, seen: &Seen<'_>) -> bool {
        if seen.probe.gated {
            return true;
        }
        let promised = self.durable[seen.node];
        // Where the log begins everything before it was committed, and stands in a snapshot; a node
        // that has lost even that knows it.
        let base = if seen.probe.stateless { seen.probe.first.previous() } else { LogIndex(0) };
        seen.id_at(promised.index) == Some(promised)
            || promised.index <= seen.probe.snapshot.index.max(base)
    }

    /// The node goes on alone with what its report says. It may lack some of what it called durable,
    /// if damage took that, and if it says so; from now on it is held to what it says it has.
    pub(super) fn on_forced(&mut self, node: usize, forced: &Forced, spared: LogIndex) -> Checked {
        let (promised, last) = (self.durable[node], forced.last);
        if promised.index <= last.index {
            return Ok(());
        }
        let is_cut = forced.cut.is_some_and(|from| from <= last.index.next());
        if !is_cut && forced.known_loss().is_none() {
            let what =
                format!("{promised} was durable, {last} is left, and nothing is said to be lost");
            return Err(Violation::new("force says what is lost", node, what));
        }
        if last.index < spared.min(promised.index) {
            let what =
                format!("{last} is left of {promised}, and nothing up to {spared} was damaged");
            return Err(Violation::new("force loses what damage took", node, what));
        }
        self.durable[node] = last;
        Ok(())
    }

    /// The last entry that the node's disk, as it is no other, was ever to hold.
    pub(super) fn of_disk(&self, node: usize) -> LogId {
        if self.wiped[node] { LogId::ZERO } else { self.durable[node] }
    }

    /// The last entry that the node called durable.
    pub(super) fn of(&self, node: usize) -> LogId {
        self.durable[node]
    }

    /// Up to where the node ever called anything durable.
    pub(super) fn ever(&self, node: usize) -> LogIndex {
        self.ever[node]
    }

    /// The node's disk is a new one.
    pub(super) fn on_wiped(&mut self, node: usize) {
        self.wiped[node] = true;
    }

    fn on_recovered(&mut self, seen: &Seen<'_>) -> Checked {
        self.checked[seen.node] = true;
        if self.is_kept(seen) || self.wiped[seen.node] {
            return Ok(());
        }
        let promised = self.durable[seen.node];
        let held = seen.id_at(promised.index);
        let held = held.map_or_else(
            || format!("its log ends at {}", seen.probe.last),
            |held| format!("it holds {held} there"),
        );
        let what = format!("{promised} was durable before the restart, and now {held}");
        Err(Violation::new("acknowledged survives", seen.node, what))
    }

    /// A node tells another that it holds everything up to `through` on disk.
    pub(super) fn on_sent(&self, seen: &Seen<'_>, through: LogIndex) -> Checked {
        let durable = seen.probe.durable;
        if through <= durable {
            return Ok(());
        }
        let what = format!("acknowledges {through} as durable when {durable} is");
        Err(Violation::new("acknowledged survives", seen.node, what))
    }
}
