//! A leader commits by counting only entries of its own term (Raft §5.4.2, figure 8), and only
//! what a majority of the voters holds durably (§5.3).
//!
//! What a node holds durably it said itself, and the ledger of that survives its crashes; so a
//! majority of those that are down counts as well. Of a node that has lost some of it, behind its gate, that
//! does not count any more for a leader who was told so. Whoever is the first to call an entry committed
//! has counted, or should have: though it leads no longer, as the entry may have ended its reign.

use super::{Checked, Seen, Violation, acknowledged_survives::Promises, members_in_force::quorum};
use lakebed::{LogIndex, Membership, Role, Term};

#[derive(Clone, Debug)]
pub(super) struct Commits {
    /// In which term each node led last in its present life, and how far it had committed then.
    led: Vec<(Term, LogIndex)>,
}

impl Commits {
    pub(super) fn new(nodes: usize) -> Self {
        Self { led: vec![(Term(0), LogIndex(0)); nodes] }
    }

    pub(super) fn on_death(&mut self, node: usize) {
        self.led[node] = (Term(0), LogIndex(0));
    }

    /// `known`: up to where anybody called entries committed before this one did.
    pub(super) fn on_view(
        &mut self,
        seen: &Seen<'_>,
        known: LogIndex,
        promises: &Promises,
        members: &Membership,
    ) -> Checked {
        let (node, probe) = (seen.node, &seen.probe);
        let leads = probe.role == Role::Leader;
        let (led, before) = self.led[node];
        if leads {
            self.led[node] = (probe.term, probe.committed);
        }
        // What it knew to be committed when it began to lead, others had counted.
        let term = if leads { probe.term } else { led };
        let committed = if leads && led == term { before } else { known };
        if probe.committed <= committed {
            return Ok(());
        }
        let held = seen.id_at(probe.committed);
        if held.is_none_or(|id| id.term != term) {
            let what = format!(
                "led term {term} and commits {} of term {} by counting",
                probe.committed,
                held.unwrap_or_default().term
            );
            return Err(Violation::new("commit rule", node, what));
        }
        let check = |members: &Membership, index: LogIndex| {
            quorum(members, |id| promises.counts(node, id.0 as usize - 1, term, index))
        };
        // Once both configurations have agreed to the new one, that one is enough: the leader goes
        // by an entry that it may not have written yet.
        let agreed = members.at.index;
        let result = match () {
            () if members.outgoing.is_empty() || agreed > probe.committed => {
                check(members, probe.committed)
            }
            () if agreed > committed => {
                check(members, agreed).and_then(|()| check(&members.settled(), probe.committed))
            }
            () => check(&members.settled(), probe.committed),
        };
        let Err(why) = result else { return Ok(()) };
        let what = format!(
            "commits {term}.{}, which a majority must hold durably: {why}",
            probe.committed
        );
        Err(Violation::new("commit rule", node, what))
    }
}
