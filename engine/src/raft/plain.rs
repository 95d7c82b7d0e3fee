//! Whether a node has nothing to do but to replicate: consensus' half of
//! [plain turns](crate::engine), and what ends them.
//!
//! Knows no storage. Invariant: while `is_plain` holds, the steps that ask for it would do nothing.

use super::{
    Facts, Raft,
    rest::Rest,
    role::{Follower, Leader, Role},
};
use crate::types::{Instant, LogId, LogIndex};

impl Facts {
    /// Whether these are the same but for what every write changes.
    pub(super) fn differs_in_log_alone(&self, after: Self) -> bool {
        let Self { durable, saturated, .. } = *self;
        Self { durable, saturated, ..after } == *self
    }
}

impl Raft {
    pub(crate) const fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// Something else than replication happened, or may be due: every step looks for itself.
    pub(crate) const fn stray(&mut self) {
        self.is_plain = false;
    }

    /// Whether this is all that the disk has reached, but for what every write changes.
    pub(crate) fn is_told(&self, facts: Facts) -> bool {
        self.facts.differs_in_log_alone(facts)
    }

    /// After all steps: whether they are needed before something else happens.
    pub(crate) fn look_around(&mut self) {
        self.is_plain =
            self.is_role_plain() && self.is_membership_plain() && self.is_nothing_else_under_way();
    }

    /// Before then `time_out` has nothing to do.
    pub(crate) fn quiet_until(&self) -> Option<Instant> {
        match &self.role {
            Role::Leader(leader) => Some(leader.heartbeat_at),
            _ => self.deadline(),
        }
    }

    fn is_role_plain(&self) -> bool {
        let own = self.identity.node;
        match &self.role {
            Role::Leader(leader) => {
                let Leader { changing, quiet, peers, .. } = &**leader;
                changing.is_none()
                    && !quiet.is_offered
                    && !quiet.is_asleep
                    && peers.iter().all(|peer| peer.transfer.is_none())
                    && self.membership.is_voter(own)
            }
            Role::Follower(Follower { leader, rest, .. }) => {
                leader.is_some()
                    && *rest == Rest::Awake
                    && self.forwards.is_empty()
                    && !self.tracking.is_due(LogIndex(u64::MAX))
            }
            Role::Forming(_) | Role::PreCandidate(_) | Role::Candidate(_) => false,
        }
    }

    /// What is in force is committed, known to be, and no change goes on.
    fn is_membership_plain(&self) -> bool {
        let (at, around) = (self.membership.at, &self.around);
        self.is_settled()
            && around.settled == at
            && self.membership.outgoing.is_empty()
            && !around.is_news
            && around.linger_until.is_none()
            && (at == LogId::ZERO || !self.membership.is_former(self.identity.node))
    }

    fn is_nothing_else_under_way(&self) -> bool {
        let facts = &self.facts;
        facts.promised == (self.term, self.vote)
            && self.noted == (self.leader(), self.term)
            && facts.receiving.is_none()
            && self.is_content()
            && !facts.owes_entries
            && !facts.is_state_lost
            && self.applying.restored
            && self.receiver.is_idle()
            && self.gate.is_none()
            && self.handover.is_none()
            && self.reads.is_empty()
            && self.owed.is_empty()
            && self.halt.is_none()
            && !self.wants_more()
    }
}
