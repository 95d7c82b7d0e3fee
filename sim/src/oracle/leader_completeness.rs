//! A leader holds every entry committed in earlier terms (Raft §5.4, figure 3 "Leader
//! Completeness").

use super::{Checked, Seen, Violation, committed_stays::Committed};
use lakebed::{Role, Term};

#[derive(Clone, Debug)]
pub(super) struct Leaders {
    /// The last term in which each node was seen to lead, in its present life.
    led: Vec<Term>,
}

impl Leaders {
    pub(super) fn new(nodes: usize) -> Self {
        Self { led: vec![Term(0); nodes] }
    }

    pub(super) fn on_death(&mut self, node: usize) {
        self.led[node] = Term(0);
    }

    /// Once, when it becomes leader: from then on its log only grows.
    pub(super) fn on_view(&mut self, seen: &Seen<'_>, committed: &Committed) -> Checked {
        let (node, term) = (seen.node, seen.probe.term);
        if seen.probe.role != Role::Leader || self.led[node] == term {
            return Ok(());
        }
        self.led[node] = term;
        let Some(id) = committed.before(term) else { return Ok(()) };
        let held = seen.id_at(id.index);
        if held == Some(id) || id.index <= seen.probe.snapshot.index {
            return Ok(());
        }
        let held = held.map_or_else(|| "nothing".into(), |held| held.to_string());
        let what = format!("leads term {term} with {held} where {id} was committed before");
        Err(Violation::new("leader completeness", node, what))
    }
}
