//! At most one leader per term (Raft §5.2, figure 3 "Election Safety").

use super::{Checked, Seen, Violation};
use lakebed::{Role, Term};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
pub(super) struct Elections {
    leaders: BTreeMap<Term, usize>,
}

impl Elections {
    pub(super) fn on_view(&mut self, seen: &Seen<'_>) -> Checked {
        if seen.probe.role != Role::Leader {
            return Ok(());
        }
        let (node, term) = (seen.node, seen.probe.term);
        let leader = *self.leaders.entry(term).or_insert(node);
        if leader == node {
            return Ok(());
        }
        let what = format!("nodes {} and {} both lead term {term}", leader + 1, node + 1);
        Err(Violation::new("election safety", node, what))
    }
}
