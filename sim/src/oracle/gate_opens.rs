//! A node whose disk may have lost what it acknowledged does not vote until its gate opens; then it holds
//! all that was committed with its word, for whoever is elected with its vote must hold that too
//! (Raft §5.4.1; storage.md, consequences of damage).
//!
//! Three say how much that is: its own promises, as far as leaders of their term have committed them;
//! what was committed before it came back, up to the term in which the gate opens; and what the leader of
//! that term told it to wait for, which are entries: by then it holds those, and no others in their place. The
//! first two believe no engine. A gate that is shut again by a later fault is held to what it was the first time,
//! but what it was told of the earlier one tells nothing of this. Whoever finds its log lost while it runs comes
//! back behind a gate, and by another name: what was on its way to it is an answer to something else.

use super::{Checked, Seen, Violation, committed_stays::Committed};
use lakebed::{LogId, LogIndex, Term, inspect::Probe};
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub(super) struct Gates {
    shut: Vec<Option<Shut>>,
    /// By which name each node asked last, of whichever gate.
    asked: Vec<Option<Nonce>>,
    /// Whose log was lost while it ran, and who has not come back since.
    lost: Vec<bool>,
    /// By which name each had asked before that.
    lost_by: Vec<Option<Nonce>>,
}

/// The name of a fault.
type Nonce = [u64; 2];

/// What is known of a gate since it was found shut.
#[derive(Clone, Debug)]
struct Shut {
    /// How much had been committed by then, by term.
    committed: BTreeMap<Term, LogIndex>,
    /// The least that the leader of each term told the node to wait for, when it asked by its present name.
    told: BTreeMap<Term, LogId>,
}

impl Gates {
    pub(super) fn new(nodes: usize) -> Self {
        let (asked, lost_by) = (vec![None; nodes], vec![None; nodes]);
        Self { shut: vec![None; nodes], asked, lost: vec![false; nodes], lost_by }
    }

    /// What lay behind some entry was lost by a recovery by force, whoever waited for it.
    pub(super) fn forget(&mut self) {
        self.shut.fill(None);
        self.lost.fill(false);
    }

    /// A node's disk is another one, or what it was before.
    pub(super) fn forget_of(&mut self, node: usize) {
        (self.lost[node], self.lost_by[node]) = (false, None);
    }

    /// A node that runs has found its log lost, and ends; what it ends for is on its disk.
    pub(super) fn on_lost(&mut self, node: usize) {
        self.lost[node] = true;
        self.lost_by[node] = self.asked[node];
    }

    /// A node asks when its gate may open.
    pub(super) fn on_asked(&mut self, node: usize, nonce: Nonce) -> Checked {
        if self.lost_by[node] == Some(nonce) {
            let what = format!("asks by the name {nonce:x?}, which was that of an earlier fault");
            return Err(Violation::new("a gate has a name of its own", node, what));
        }
        if self.asked[node].replace(nonce) != Some(nonce)
            && let Some(shut) = &mut self.shut[node]
        {
            shut.told.clear();
        }
        Ok(())
    }

    /// A leader answers a node that asked it: its log ends with this.
    pub(super) fn on_told(&mut self, node: usize, nonce: Nonce, term: Term, last: LogId) {
        if self.asked.get(node) != Some(&Some(nonce)) {
            return;
        }
        let Some(shut) = self.shut.get_mut(node).and_then(Option::as_mut) else { return };
        let least = shut.told.entry(term).or_insert(last);
        if last.index < least.index {
            *least = last;
        }
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
        let probe = &seen.probe;
        if before.is_none_or(|before| !before.judged)
            && std::mem::take(&mut self.lost[seen.node])
            && !probe.gated
        {
            let what = format!("is back with {} durable, and had lost its log", probe.durable);
            return Err(Violation::new("a lost log shuts a gate", seen.node, what));
        }
        let shut = &mut self.shut[seen.node];
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
        if probe.durable < told.index {
            return opens(format!("and was told to wait for {told}"));
        }
        let known = since.committed.range(..=term).map(|(_, index)| *index).max();
        let known = known.and_then(|index| committed.id_at(index));
        let of_promised = committed.of_log(promised);
        for (id, why) in [
            (Some(told), "is what it was told to wait for"),
            (known, "was committed before it came back"),
            (of_promised, "was promised"),
        ] {
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
