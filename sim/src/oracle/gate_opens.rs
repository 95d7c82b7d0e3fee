//! A node whose disk may have lost what it acknowledged does not vote until its gate opens; then it holds
//! all that was committed with its word, for whoever is elected with its vote must hold that too
//! (Raft §5.4.1; storage.md, consequences of damage).
//!
//! Three say how much that is: its own promises, as far as leaders of their term have committed them;
//! what was committed before it came back, up to the term in which the gate opens; and what the leader of
//! that term told it to wait for. The first two believe no engine. A gate that is shut again by a later
//! fault is held to what it was the first time.

use super::{Checked, Seen, Violation, committed_stays::Committed};
use lakebed::{LogId, LogIndex, Term, inspect::Probe};
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub(super) struct Gates {
    shut: Vec<Option<Shut>>,
}

/// What is known of a gate since it was found shut.
#[derive(Clone, Debug)]
struct Shut {
    /// How much had been committed by then, by term.
    committed: BTreeMap<Term, LogIndex>,
    /// The least that the leader of each term told the node to wait for.
    told: BTreeMap<Term, LogIndex>,
}

impl Gates {
    pub(super) fn new(nodes: usize) -> Self {
        Self { shut: vec![None; nodes] }
    }

    /// What lay behind some entry was lost by a recovery by force, whoever waited for it.
    pub(super) fn forget(&mut self) {
        self.shut.fill(None);
    }

    /// A leader answers a node that asked it.
    pub(super) fn on_told(&mut self, node: usize, term: Term, last: LogIndex) {
        let Some(shut) = self.shut.get_mut(node).and_then(Option::as_mut) else { return };
        let least = shut.told.entry(term).or_insert(last);
        *least = last.min(*least);
    }

    /// `before`: what the node showed before, in this life; `promised`: the last entry that it ever
    /// called durable and no leader took back, if that is known to be what its disk held.
    pub(super) fn on_view(
        &mut self,
        seen: &Seen<'_>,
        before: Option<&Probe>,
        promised: LogId,
        committed: &Committed,
    ) -> Checked {
        let (probe, shut) = (&seen.probe, &mut self.shut[seen.node]);
        if probe.gated {
            // Its disk may be told that it is open after a crash has come: an answer holds until then.
            shut.get_or_insert_with(|| Shut {
                committed: committed.by_term().clone(),
                told: BTreeMap::new(),
            });
            return Ok(());
        }
        let Some(since) = shut else { return Ok(()) };
        match before {
            Some(before) if before.gated => Self::on_opened(seen, since, promised, committed),
            Some(before) if before.judged => Ok(()),
            // It is back, and its disk knows.
            _ => {
                *shut = None;
                Ok(())
            }
        }
    }

    fn on_opened(seen: &Seen<'_>, since: &Shut, promised: LogId, committed: &Committed) -> Checked {
        let (probe, term) = (&seen.probe, seen.probe.term);
        let opens = |why: String| {
            let what =
                format!("opens its gate in term {term} with {} durable, {why}", probe.durable);
            Err(Violation::new("a gate opens on all that was lost", seen.node, what))
        };
        let Some(&told) = since.told.get(&term) else {
            return opens("and no leader of that term was asked".into());
        };
        if probe.durable < told {
            return opens(format!("and was told to wait for {told}"));
        }
        let known = since.committed.range(..=term).map(|(_, index)| *index).max();
        let known = known.and_then(|index| committed.id_at(index));
        let of_promised = committed.of_log(promised);
        for (id, why) in
            [(known, "was committed before it came back"), (of_promised, "was promised")]
        {
            let Some(id) = id else { continue };
            // What lies before its log it held as state. Has it lost that since, it says so.
            let base = if probe.stateless { probe.first.previous() } else { probe.snapshot.index };
            let is_there = id.index <= base || seen.id_at(id.index) == Some(id);
            if probe.durable < id.index || !is_there {
                return opens(format!("and {id} {why}"));
            }
        }
        Ok(())
    }
}
