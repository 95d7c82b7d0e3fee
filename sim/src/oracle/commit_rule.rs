//! A leader commits by counting only entries of its own term (Raft §5.4.2, figure 8), and only
//! what a majority of the voters holds durably (§5.3).
//!
//! What a node holds durably it said itself, and the ledger of that survives its crashes; so a
//! majority of those that are down counts as well. Members do not change in these runs.

use super::{Checked, Seen, Violation, acknowledged_survives::Promises, members_in_force::quorum};
use lakebed::{LogIndex, Membership, Role, Term};

#[derive(Clone, Debug)]
pub(super) struct Commits {
    /// In which term each node led when it was last seen, and how far it had committed.
    led: Vec<(Term, LogIndex)>,
}

impl Commits {
    pub(super) fn new(nodes: usize) -> Self {
        Self { led: vec![(Term(0), LogIndex(0)); nodes] }
    }

    pub(super) fn on_death(&mut self, node: usize) {
        self.led[node] = (Term(0), LogIndex(0));
    }

    pub(super) fn on_view(
        &mut self,
        seen: &Seen<'_>,
        promises: &Promises,
        members: &Membership,
    ) -> Checked {
        let (node, probe) = (seen.node, &seen.probe);
        if probe.role != Role::Leader {
            return Ok(());
        }
        let (term, committed) = self.led[node];
        self.led[node] = (probe.term, probe.committed);
        // What it knew to be committed when it began to lead, others had counted.
        if term != probe.term || committed == probe.committed {
            return Ok(());
        }
        let held = seen.id_at(probe.committed);
        if held.is_none_or(|id| id.term != probe.term) {
            let what = format!(
                "leads term {} and commits {} of term {} by counting",
                probe.term,
                probe.committed,
                held.unwrap_or_default().term
            );
            return Err(Violation::new("commit rule", node, what));
        }
        let check = |members: &Membership, index: LogIndex| {
            quorum(members, |id| promises.holds(id.0 as usize - 1, probe.term, index))
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
            "commits {}.{}, which a majority must hold durably: {why}",
            probe.term, probe.committed
        );
        Err(Violation::new("commit rule", node, what))
    }
}
