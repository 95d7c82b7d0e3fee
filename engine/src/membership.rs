//! Who belongs to the cluster, and the arithmetic of its quorums.
//!
//! Knows neither terms nor roles: elections, commits and reads ask it whether a set of nodes is
//! enough. Joint consensus (Raft §6) needs a majority of both voter sets while `outgoing` lasts.

use crate::types::{LogId, LogIndex, NodeId};
use bytes::Bytes;
use std::fmt;

/// The longest [`Member::address`], in bytes.
pub const ADDRESS_BYTES_MAX: usize = 64;
/// The most members, voters and learners of both configurations together.
pub const MEMBERS_MAX: usize = 32;

/// One node of a cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its id; never reused.
    pub id: NodeId,
    /// Which life of its disk: drawn when the disk was formatted. Zero: not met yet.
    pub incarnation: u64,
    /// Where the driver reaches it. Opaque to the engine; at most [`ADDRESS_BYTES_MAX`].
    pub address: Bytes,
}

/// The members in force, and since which entry.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Membership {
    /// The entry that brought it into force; [`LogId::ZERO`] for the formatted one.
    pub at: LogId,
    /// Those whose votes and acknowledgements count.
    pub voters: Vec<Member>,
    /// The voters of the old configuration, while a joint one is in force; else empty.
    pub outgoing: Vec<Member>,
    /// Those that receive the log and count for nothing yet.
    pub learners: Vec<Member>,
}

impl Membership {
    /// A cluster of these voters, as it is formatted.
    #[must_use]
    pub fn of(voters: impl IntoIterator<Item = Member>) -> Self {
        Self { voters: voters.into_iter().collect(), ..Self::default() }
    }

    /// Every member once, in the order voters, outgoing, learners.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        let outgoing = self.outgoing.iter().filter(|m| find(&self.voters, m.id).is_none());
        let learners = self
            .learners
            .iter()
            .filter(|m| find(&self.voters, m.id).is_none() && find(&self.outgoing, m.id).is_none());
        self.voters.iter().chain(outgoing).chain(learners)
    }

    /// The member with this id.
    #[must_use]
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members().find(|m| m.id == id)
    }

    /// Whether this node's vote counts in either configuration.
    #[must_use]
    pub fn is_voter(&self, id: NodeId) -> bool {
        find(&self.voters, id).is_some() || find(&self.outgoing, id).is_some()
    }

    /// Every voter once.
    pub fn voter_ids(&self) -> impl Iterator<Item = NodeId> {
        let outgoing = self.outgoing.iter().filter(|m| find(&self.voters, m.id).is_none());
        self.voters.iter().chain(outgoing).map(|m| m.id)
    }

    /// Whether this node is the only voter of every configuration in force.
    #[must_use]
    pub fn is_sole_voter(&self, id: NodeId) -> bool {
        self.is_voter(id) && self.voter_ids().all(|voter| voter == id)
    }

    /// Whether those for whom `holds` is true are a majority of every configuration in force.
    #[must_use]
    pub fn is_quorum(&self, holds: impl Fn(NodeId) -> bool) -> bool {
        majority(&self.voters, &holds)
            && (self.outgoing.is_empty() || majority(&self.outgoing, holds))
    }

    /// The greatest index that a quorum holds, `held` telling how far each voter is.
    #[must_use]
    pub fn quorum_index(&self, held: impl Fn(NodeId) -> LogIndex) -> LogIndex {
        let current = majority_index(&self.voters, &held);
        if self.outgoing.is_empty() {
            current
        } else {
            current.min(majority_index(&self.outgoing, held))
        }
    }
}

fn find(members: &[Member], id: NodeId) -> Option<&Member> {
    members.iter().find(|m| m.id == id)
}

fn majority(voters: &[Member], holds: impl Fn(NodeId) -> bool) -> bool {
    voters.iter().filter(|m| holds(m.id)).count() > voters.len() / 2
}

/// Without allocation: the greatest index held by more than half, by looking at each candidate.
fn majority_index(voters: &[Member], held: impl Fn(NodeId) -> LogIndex) -> LogIndex {
    voters
        .iter()
        .map(|m| held(m.id))
        .filter(|&index| majority(voters, |id| held(id) >= index))
        .max()
        .unwrap_or_default()
}

impl fmt::Display for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = |members: &[Member]| {
            members.iter().map(|m| m.id.to_string()).collect::<Vec<_>>().join(",")
        };
        write!(f, "voters {}", ids(&self.voters))?;
        if !self.outgoing.is_empty() {
            write!(f, " (leaving {})", ids(&self.outgoing))?;
        }
        if !self.learners.is_empty() {
            write!(f, " learners {}", ids(&self.learners))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(ids: &[u64]) -> Vec<Member> {
        let member = |&id| Member { id: NodeId(id), incarnation: 1, address: Bytes::new() };
        ids.iter().map(member).collect()
    }

    #[test]
    fn quorum_index_is_the_median_of_what_is_held() {
        let cases: [(&[u64], u64); 5] =
            [(&[5], 5), (&[5, 3], 3), (&[9, 5, 3], 5), (&[9, 9, 3, 1], 3), (&[1, 2, 3, 4, 5], 3)];
        for (held, expected) in cases {
            let ids: Vec<u64> = (1..=held.len() as u64).collect();
            let membership = Membership::of(members(&ids));
            let index = membership.quorum_index(|id| LogIndex(held[id.0 as usize - 1]));
            assert_eq!(index, LogIndex(expected), "{held:?}");
        }
    }

    #[test]
    fn joint_membership_needs_both_majorities() {
        let joint = Membership {
            voters: members(&[1, 2, 3]),
            outgoing: members(&[3, 4, 5]),
            ..Membership::default()
        };
        assert!(joint.is_quorum(|id| [1, 3, 4].contains(&id.0)));
        assert!(!joint.is_quorum(|id| [1, 2, 3].contains(&id.0)));
        assert!(!joint.is_quorum(|id| [3, 4, 5].contains(&id.0)));
        assert_eq!(joint.quorum_index(|id| LogIndex(if id.0 <= 3 { 7 } else { 2 })), LogIndex(2));
        assert_eq!(joint.members().count(), 5);
    }
}
