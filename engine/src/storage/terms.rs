//! Which terms the entries of a log have, and the one before its first.
//!
//! Knows no files. Invariant: of two entries of one index and one term there is only one (Raft §5.3, log
//! matching): a record with another term than this says is of a log that was cut away.

use crate::types::{LogId, LogIndex, Term};

/// Runs of equal terms.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Terms {
    /// The entry before the first, then where each run of another term begins, ascending: never empty.
    runs: Vec<(LogIndex, Term)>,
}

impl Terms {
    /// An empty log behind this entry.
    pub(crate) fn behind(at: LogId) -> Self {
        Self { runs: vec![(at.index, at.term)] }
    }

    /// The next entry is of this term, if it follows the last one.
    pub(crate) fn push(&mut self, id: LogId) {
        if id.term != self.last() {
            self.runs.push((id.index, id.term));
        }
    }

    /// The term of the last entry, or of what the log begins behind.
    pub(crate) fn last(&self) -> Term {
        self.runs[self.runs.len() - 1].1
    }

    /// The term of an entry that is not behind the last one; `None`: it is not remembered.
    pub(crate) fn at(&self, index: LogIndex) -> Option<Term> {
        match self.runs[self.runs.len() - 1] {
            (first, term) if index >= first => Some(term),
            _ => {
                let run = self.runs.partition_point(|(first, _)| *first <= index);
                run.checked_sub(1).map(|run| self.runs[run].1)
            }
        }
    }

    /// Whether this is one of the entries, if it lies among them and its term is remembered.
    pub(crate) fn hold(&self, id: LogId) -> bool {
        self.at(id.index).is_none_or(|term| term == id.term)
    }

    /// Entries from this one on are gone.
    pub(crate) fn cut(&mut self, from: LogIndex) {
        let kept = self.runs.partition_point(|(first, _)| *first < from);
        self.runs.truncate(kept.max(1));
    }

    /// Entries up to this one are gone, and only the term of the last of them is remembered.
    pub(crate) fn begin_behind(&mut self, index: LogIndex) {
        let through = self.runs.partition_point(|(first, _)| *first <= index);
        if through > 0 {
            self.runs.drain(..through - 1);
            self.runs[0].0 = index;
        }
    }

    /// The newest runs up to `through`, ascending, at most `runs_max`. The oldest of them may be the entry before
    /// the first, so there is always one.
    pub(crate) fn newest(&self, through: LogIndex, runs_max: usize) -> &[(LogIndex, Term)] {
        let end = self.runs.partition_point(|(first, _)| *first <= through).max(1);
        &self.runs[end.saturating_sub(runs_max)..end]
    }

    /// The last entry that a log up to `last` of these terms, and one up to `through` of those, both have, if any
    /// (Raft §5.3: equal term at equal index means equal logs up to there).
    pub(crate) fn last_agreement(
        &self,
        last: LogIndex,
        theirs: &[(LogIndex, Term)],
        through: LogIndex,
    ) -> Option<LogIndex> {
        let mut end = through.min(last);
        for &(first, term) in theirs.iter().rev() {
            // Our run of that term, if any, ends where the next one begins.
            let after = self.runs.partition_point(|run| run.1 <= term);
            let ours = self.runs.get(after).map_or(last, |run| run.0.previous());
            let both = end.min(ours);
            if both >= first && self.at(both) == Some(term) {
                return Some(both);
            }
            end = end.min(first.previous());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, index: u64) -> LogId {
        LogId::new(Term(term), LogIndex(index))
    }

    fn terms(of: std::ops::RangeInclusive<u64>, terms: &Terms) -> Vec<Option<u64>> {
        of.map(|index| terms.at(LogIndex(index)).map(|term| term.0)).collect()
    }

    #[test]
    fn each_entry_has_the_term_it_was_pushed_with() {
        let mut log = Terms::behind(id(3, 10));
        [id(3, 11), id(5, 12), id(5, 13), id(8, 14)].into_iter().for_each(|id| log.push(id));
        assert_eq!(terms(9..=14, &log), [None, Some(3), Some(3), Some(5), Some(5), Some(8)]);
        assert_eq!(log.last(), Term(8));

        log.cut(LogIndex(13));
        assert_eq!((log.last(), log.at(LogIndex(12))), (Term(5), Some(Term(5))));
        log.push(id(6, 13));
        assert_eq!(terms(11..=13, &log), [Some(3), Some(5), Some(6)]);
        // All of it, but not what it begins behind.
        log.cut(LogIndex(11));
        assert_eq!(log, Terms::behind(id(3, 10)));
    }

    #[test]
    fn what_it_begins_behind_keeps_its_term() {
        let mut log = Terms::behind(LogId::ZERO);
        (1..=6).for_each(|index| log.push(id(index / 2 + 1, index)));
        assert_eq!(terms(1..=6, &log), [1, 2, 2, 3, 3, 4].map(Some));
        // In the middle of a run, at its end, and not again.
        for (behind, before) in [(2, [None, Some(2), Some(2)]), (3, [None, None, Some(2)])] {
            log.begin_behind(LogIndex(behind));
            assert_eq!(terms(1..=3, &log), before);
            assert_eq!(terms(4..=6, &log), [3, 3, 4].map(Some));
        }
        log.begin_behind(LogIndex(1));
        assert_eq!(terms(2..=4, &log), [None, Some(2), Some(3)]);
        log.begin_behind(LogIndex(6));
        assert_eq!(log, Terms::behind(id(4, 6)));
    }
}
