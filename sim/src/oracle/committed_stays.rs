//! What one node calls committed is the same entry on every node that calls it committed, for ever
//! (Raft §5.4.3; with log matching: everything before it too).

use super::{Checked, Seen, Violation};
use lakebed::{LogId, LogIndex, Term};
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub(super) struct Committed {
    /// The term of each committed entry, from index one on.
    terms: Vec<Term>,
    /// Up to where it was committed by leaders of this term or earlier ones, as far as was seen.
    by_term: BTreeMap<Term, LogIndex>,
    /// How far each node's claims were checked in its present life.
    checked: Vec<LogIndex>,
}

impl Committed {
    pub(super) fn new(nodes: usize) -> Self {
        let checked = vec![LogIndex(0); nodes];
        Self { terms: Vec::new(), by_term: BTreeMap::new(), checked }
    }

    /// All up to here was committed in another cluster.
    pub(super) fn begin_behind(&mut self, at: LogId) {
        self.terms = vec![at.term; at.index.0 as usize];
    }

    /// What lies behind this was lost by a recovery by force.
    pub(super) fn forget_behind(&mut self, last: LogIndex) {
        self.terms.truncate(last.0 as usize);
        self.by_term.values_mut().for_each(|index| *index = last.min(*index));
        self.by_term.retain(|_, index| *index > LogIndex(0));
        self.checked.iter_mut().for_each(|checked| *checked = last.min(*checked));
    }

    pub(super) fn on_death(&mut self, node: usize) {
        self.checked[node] = LogIndex(0);
    }

    /// Up to where anybody called entries committed.
    pub(super) const fn last(&self) -> LogIndex {
        LogIndex(self.terms.len() as u64)
    }

    /// The last entry that was committed before `term` began, as far as was seen.
    pub(super) fn before(&self, term: Term) -> Option<LogId> {
        let index = *self.by_term.range(..term).map(|(_, index)| index).max()?;
        Some(LogId::new(self.terms[index.0 as usize - 1], index))
    }

    /// Of which term the committed entry at this index is.
    pub(super) fn term_of(&self, index: LogIndex) -> Option<Term> {
        let at = (index.0 as usize).checked_sub(1)?;
        self.terms.get(at).copied()
    }

    /// The committed entry at this index.
    pub(super) fn id_at(&self, index: LogIndex) -> Option<LogId> {
        self.term_of(index).map(|term| LogId::new(term, index))
    }

    /// Up to where leaders of each term have committed, as far as was seen.
    pub(super) const fn by_term(&self) -> &BTreeMap<Term, LogIndex> {
        &self.by_term
    }

    /// The last entry of those that leaders of this term or earlier ones have committed.
    fn up_to(&self, term: Term) -> Option<LogId> {
        self.id_at(*self.by_term.range(..=term).map(|(_, index)| index).max()?)
    }

    /// The last entry that those have committed of a log which ends, or ended, with this one: it held all
    /// that they had (leader completeness). What a later one commits in another's place it may never have
    /// held.
    pub(super) fn of_log(&self, last: LogId) -> Option<LogId> {
        self.up_to(last.term).and_then(|id| self.id_at(id.index.min(last.index)))
    }

    /// Whether this very entry was seen to be committed.
    pub(super) fn is_committed(&self, id: LogId) -> bool {
        let at = (id.index.0 as usize).checked_sub(1);
        at.and_then(|at| self.terms.get(at)) == Some(&id.term)
    }

    pub(super) fn on_view(&mut self, seen: &Seen<'_>) -> Checked {
        let (node, committed) = (seen.node, seen.probe.committed);
        if committed <= self.checked[node] {
            return Ok(());
        }
        // What lies below the snapshot was checked when it was applied.
        let from = self.checked[node].max(seen.probe.first.previous());
        for index in from.0 + 1..=committed.0 {
            self.on_entry(seen, LogIndex(index))?;
        }
        if self.last() < committed {
            let what = format!("{committed} is called committed, and it is in a snapshot alone");
            return Err(Violation::new("committed stays", node, what));
        }
        self.checked[node] = committed;
        let greatest = self.by_term.entry(seen.probe.term).or_default();
        *greatest = committed.max(*greatest);
        Ok(())
    }

    fn on_entry(&mut self, seen: &Seen<'_>, index: LogIndex) -> Checked {
        let Some(id) = seen.id_at(index) else {
            let what = format!("{index} is called committed and lies beyond the log");
            return Err(Violation::new("committed stays", seen.node, what));
        };
        let next = self.terms.len() as u64 + 1;
        if index.0 == next {
            self.terms.push(id.term);
            return Ok(());
        }
        let Some(&known) = self.terms.get(index.0 as usize - 1) else {
            let what = format!("{index} is committed, and {next} never was");
            return Err(Violation::new("committed stays", seen.node, what));
        };
        if known == id.term {
            return Ok(());
        }
        let what = format!("{id} is called committed, and {known}.{index} was committed before");
        Err(Violation::new("committed stays", seen.node, what))
    }
}
