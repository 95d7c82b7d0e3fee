//! Who belongs to the cluster, and the arithmetic of its quorums.
//!
//! Knows neither terms nor roles: elections, commits and reads ask it whether a set of nodes is
//! enough. Joint consensus (Raft §6) needs a majority of both voter sets while `outgoing` lasts.

use crate::{
    le::{put_u16, put_u64s, u16_at, u64_at, u64s_at},
    types::{LogId, LogIndex, NodeId, Term},
};
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
    /// The greatest id that a member ever had, if no present member's is as great; else zero. None
    /// is given twice, so whoever has a smaller one and is no member will never be one.
    pub used: NodeId,
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

    /// Every entry of every list.
    pub(crate) fn each_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.voters.iter_mut().chain(&mut self.outgoing).chain(&mut self.learners)
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

const VOTER: u8 = 1;
const OUTGOING: u8 = 2;
const LEARNER: u8 = 4;
/// Before the members: term, index, and how many members follow.
const CODE_HEAD_BYTES: usize = 18;
/// Before a member's address: id, incarnation, roles, address length.
const CODE_MEMBER_BYTES: usize = 18;
/// Behind the members: the greatest id that was used, if none of them has it.
const CODE_USED_BYTES: usize = 8;
/// The longest [`Membership::encode`].
pub(crate) const CODE_BYTES_MAX: usize =
    CODE_HEAD_BYTES + MEMBERS_MAX * (CODE_MEMBER_BYTES + ADDRESS_BYTES_MAX) + CODE_USED_BYTES;

/// The bytes of a membership in hard state, snapshots and membership entries:
///
/// ```text
/// term u64, index u64, members u16, then per member:
/// id u64, incarnation u64, roles u8 (1 voter, 2 outgoing, 4 learner), length u8, address
/// then, if a node had a greater id than all of these: that id u64; else nothing, or zeros
/// ```
impl Membership {
    /// Whether it keeps the limits that its bytes have.
    #[must_use]
    pub fn is_encodable(&self) -> bool {
        self.members().count() <= MEMBERS_MAX
            && self.members().all(|m| m.address.len() <= ADDRESS_BYTES_MAX)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        assert!(self.is_encodable(), "at most {MEMBERS_MAX} members, {ADDRESS_BYTES_MAX} address");
        let addresses: usize = self.members().map(|member| member.address.len()).sum();
        let members = self.members().count() * CODE_MEMBER_BYTES + addresses;
        let mut bytes = Vec::with_capacity(CODE_HEAD_BYTES + members + CODE_USED_BYTES);
        bytes.resize(CODE_HEAD_BYTES, 0);
        put_u64s(&mut bytes, 0, &[self.at.term.0, self.at.index.0]);
        put_u16(&mut bytes, 16, self.members().count() as u16);
        for member in self.members() {
            bytes.extend_from_slice(&member.id.0.to_le_bytes());
            bytes.extend_from_slice(&member.incarnation.to_le_bytes());
            bytes.extend_from_slice(&[self.roles(member.id), member.address.len() as u8]);
            bytes.extend_from_slice(&member.address);
        }
        if self.used > NodeId(0) {
            bytes.extend_from_slice(&self.used.0.to_le_bytes());
        }
        bytes
    }

    fn roles(&self, id: NodeId) -> u8 {
        let role = |members: &[Member], role| if find(members, id).is_some() { role } else { 0 };
        role(&self.voters, VOTER) | role(&self.outgoing, OUTGOING) | role(&self.learners, LEARNER)
    }

    /// Reads what [`encode`](Self::encode) wrote at the start of `bytes`; what follows is left.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, mut rest) = bytes.split_at_checked(CODE_HEAD_BYTES)?;
        let [term, index] = u64s_at(head, 0);
        let mut membership =
            Self { at: LogId::new(Term(term), LogIndex(index)), ..Self::default() };
        let count = u16_at(head, 16);
        if usize::from(count) > MEMBERS_MAX {
            return None;
        }
        for _ in 0..count {
            let fixed = rest.split_off(..CODE_MEMBER_BYTES)?;
            let (roles, address_bytes) = (fixed[16], usize::from(fixed[17]));
            if address_bytes > ADDRESS_BYTES_MAX {
                return None;
            }
            let address = Bytes::copy_from_slice(rest.split_off(..address_bytes)?);
            let (id, incarnation) = (NodeId(u64_at(fixed, 0)), u64_at(fixed, 8));
            membership.add(Member { id, incarnation, address }, roles)?;
        }
        let used = rest.split_off(..CODE_USED_BYTES).map_or(0, |used| u64_at(used, 0));
        if NodeId(used) > membership.greatest_id() {
            membership.used = NodeId(used);
        }
        Some(membership)
    }

    fn add(&mut self, member: Member, roles: u8) -> Option<()> {
        if roles == 0 || roles > 7 || self.member(member.id).is_some() {
            return None;
        }
        let lists = [
            (VOTER, &mut self.voters),
            (OUTGOING, &mut self.outgoing),
            (LEARNER, &mut self.learners),
        ];
        for (role, list) in lists {
            if roles & role != 0 {
                list.push(member.clone());
            }
        }
        Some(())
    }
}

fn find(members: &[Member], id: NodeId) -> Option<&Member> {
    members.iter().find(|m| m.id == id)
}

fn majority(voters: &[Member], holds: impl Fn(NodeId) -> bool) -> bool {
    voters.iter().filter(|m| holds(m.id)).count() > voters.len() / 2
}

/// The greatest index held by more than half, without allocation: each is asked once.
fn majority_index(voters: &[Member], held: impl Fn(NodeId) -> LogIndex) -> LogIndex {
    let mut indexes = [LogIndex(0); MEMBERS_MAX];
    let indexes = &mut indexes[..voters.len()];
    for (index, voter) in indexes.iter_mut().zip(voters) {
        *index = held(voter.id);
    }
    indexes.sort_unstable();
    // As many hold it as lie from here to the end.
    let at = voters.len().checked_sub(voters.len() / 2 + 1);
    at.map_or(LogIndex(0), |at| indexes[at])
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

    #[test]
    fn bytes_are_read_back_and_no_prefix_of_them_is() {
        let joint = Membership {
            at: LogId::new(Term(3), LogIndex(99)),
            voters: members(&[1, 2, 3]),
            outgoing: members(&[3, 4]),
            learners: members(&[9]),
            used: NodeId(0),
        };
        let bytes = joint.encode();
        assert_eq!(Membership::decode(&bytes).as_ref(), Some(&joint));
        for end in 0..bytes.len() {
            assert_eq!(Membership::decode(&bytes[..end]), None, "{end} bytes");
        }
    }
}
