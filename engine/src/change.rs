//! Steps of a membership change, and what the members are after them.
//!
//! Knows neither terms nor roles: whether now is the time, and whether a learner has caught up, is
//! for the leader to say. Invariant: what comes out can be brought into force from where it began
//! by one joint configuration, and no node id is ever used twice.

use crate::{
    membership::{ADDRESS_BYTES_MAX, MEMBERS_MAX, Member, Membership},
    types::{LogId, LogIndex, NodeId},
};
use std::fmt;

/// One step of a membership change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A node that shall receive the log. Its incarnation may be zero: then the leader asks it.
    AddLearner(Member),
    /// A learner that shall vote.
    Promote(NodeId),
    /// A voter that shall only learn.
    Demote(NodeId),
    /// A member that shall leave.
    Remove(NodeId),
    /// A member's new address.
    Address(Member),
}

impl Change {
    /// The node that it is about.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        match self {
            Self::AddLearner(member) | Self::Address(member) => member.id,
            Self::Promote(node) | Self::Demote(node) | Self::Remove(node) => *node,
        }
    }
}

/// Why a membership cannot be changed so, or not now.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ChangeRefusal {
    /// It says nothing.
    Nothing,
    /// One node twice: what it shall be is not clear.
    Twice(NodeId),
    /// No member has this id.
    Unknown(NodeId),
    /// A member has this id already.
    Duplicate(NodeId),
    /// A node had this id, or might have: ids below the greatest are not given again.
    UsedBefore {
        /// The id that was wanted.
        node: NodeId,
        /// The least that is free, if any is.
        free: Option<NodeId>,
    },
    /// It is no learner, so it cannot be promoted.
    NotLearner(NodeId),
    /// It is no voter, so it cannot be demoted.
    NotVoter(NodeId),
    /// Nobody would be left to vote.
    NoVoters,
    /// More members than a membership holds.
    TooMany(usize),
    /// An address longer than a membership holds.
    AddressTooLong(NodeId, usize),
    /// The learner does not hold what is committed: as a voter it would hold up the others.
    Lags {
        /// The learner.
        node: NodeId,
        /// What its disk holds.
        matched: LogIndex,
        /// What it should hold.
        committed: LogIndex,
    },
    /// The change before this one is not over; its entry lies here.
    Underway(LogId),
    /// The leader has not committed an entry of its term: it may not know the change before.
    NewLeader,
    /// The node that shall be added waits to be asked, or does not answer at its address.
    NoAnswer(NodeId),
    /// A voter that stays has not answered this leader yet: it may still have to meet the one that
    /// is to go, before it can vote at all.
    NotHeard(NodeId),
    /// Of those who would vote these are silent, lag, have no room, or could not lead for want of a
    /// state or for a gate, and the others are no majority:
    /// nothing could be committed any more.
    NoMajority(Vec<NodeId>),
    /// The leader would be alone, and its disk has lost the bytes of this entry: whoever could give them again
    /// would be gone.
    Holed(LogId),
    /// Another change waits for the node that it adds.
    Greeting(NodeId),
}

impl fmt::Display for ChangeRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("it changes nothing"),
            Self::Twice(node) => write!(f, "node {node} is named twice"),
            Self::Unknown(node) => write!(f, "node {node} is no member"),
            Self::Duplicate(node) => write!(f, "node {node} is a member already"),
            Self::UsedBefore { node, free } => {
                write!(f, "node id {node} may have been used before, and none is used twice; ")?;
                match free {
                    Some(free) => write!(f, "the least free one is {free}"),
                    None => f.write_str("the greatest that there can be was used, so none is free"),
                }
            }
            Self::NotLearner(node) => write!(f, "node {node} is no learner"),
            Self::NotVoter(node) => write!(f, "node {node} is no voter"),
            Self::NoVoters => f.write_str("no voter would be left"),
            Self::TooMany(count) => {
                write!(f, "{count} members, at most {MEMBERS_MAX} are possible")
            }
            Self::AddressTooLong(node, bytes) => write!(
                f,
                "the address of node {node} has {bytes} bytes, at most {ADDRESS_BYTES_MAX} are \
                 possible"
            ),
            Self::Lags { node, matched, committed } => write!(
                f,
                "node {node} has not caught up: it holds the log to {matched}, committed is \
                 {committed}"
            ),
            Self::Underway(at) => write!(f, "the change before, entry {at}, is not over"),
            Self::NewLeader => {
                f.write_str("the leader is new and has committed nothing yet; try again")
            }
            Self::NoAnswer(node) => {
                write!(
                    f,
                    "node {node} does not answer: is it started to join this cluster, at this address?"
                )
            }
            Self::NotHeard(node) => write!(
                f,
                "node {node} has not answered this leader yet, and may still have to meet whom you \
                 remove before it can vote: start it, or remove both at once"
            ),
            Self::NoMajority(missing) => {
                let missing: Vec<_> = missing.iter().map(NodeId::to_string).collect();
                write!(
                    f,
                    "of those who would vote then these are silent, lag, cannot lead yet, or have no room: \
                     {}; without them nothing could be committed any more: start them, wait until they \
                     have caught up, or remove them instead",
                    missing.join(", ")
                )
            }
            Self::Holed(entry) => write!(
                f,
                "the leader's disk has lost entry {entry}, and nobody would be left who could give it again: \
                 wait until it is there, or move the leadership to another node and remove this one"
            ),
            Self::Greeting(node) => {
                write!(f, "another change waits for node {node} to answer")
            }
        }
    }
}

impl Membership {
    /// The membership after these steps, without the one that leads to it: see [`joint`].
    ///
    /// [`joint`]: Self::joint
    pub fn changed(&self, changes: &[Change]) -> Result<Self, ChangeRefusal> {
        // Each would be there in the end, and how long a list is only its sender decides. With so few
        // of them what follows is short: the other steps name members, and none is named twice.
        let is_add = |change: &&Change| matches!(change, Change::AddLearner(_));
        let added = changes.iter().filter(is_add).count();
        if added > MEMBERS_MAX {
            return Err(ChangeRefusal::TooMany(added));
        }
        let mut next = Self { used: self.greatest_id(), ..self.clone() };
        for (at, change) in changes.iter().enumerate() {
            if changes[..at].iter().any(|before| before.node() == change.node()) {
                return Err(ChangeRefusal::Twice(change.node()));
            }
            next.step(change)?;
        }
        let next = next.with_used(self.greatest_id());
        if next == *self {
            return Err(ChangeRefusal::Nothing);
        }
        if next.voters.is_empty() {
            return Err(ChangeRefusal::NoVoters);
        }
        if let Some(member) = next.members().find(|m| m.address.len() > ADDRESS_BYTES_MAX) {
            return Err(ChangeRefusal::AddressTooLong(member.id, member.address.len()));
        }
        // Both configurations must fit into one membership for a while.
        let both = self.joint(next.clone()).members().count();
        if both > MEMBERS_MAX {
            return Err(ChangeRefusal::TooMany(both));
        }
        Ok(next)
    }

    fn step(&mut self, change: &Change) -> Result<(), ChangeRefusal> {
        let id = change.node();
        match change {
            Change::AddLearner(_) if self.member(id).is_some() => {
                return Err(ChangeRefusal::Duplicate(id));
            }
            Change::AddLearner(member) => {
                // Ids that are added together may come in any order.
                if id <= self.used {
                    let free = self.used.0.checked_add(1).map(NodeId);
                    return Err(ChangeRefusal::UsedBefore { node: id, free });
                }
                self.learners.push(member.clone());
            }
            _ if self.member(id).is_none() => return Err(ChangeRefusal::Unknown(id)),
            Change::Promote(_) => {
                let learner = take(&mut self.learners, id).ok_or(ChangeRefusal::NotLearner(id))?;
                self.voters.push(learner);
                if cfg!(lakebed_break = "change_more_than_was_asked") {
                    self.learners.clear();
                }
            }
            Change::Demote(_) => {
                let voter = take(&mut self.voters, id).ok_or(ChangeRefusal::NotVoter(id))?;
                self.learners.push(voter);
            }
            Change::Remove(_) => {
                take(&mut self.voters, id);
                take(&mut self.learners, id);
            }
            Change::Address(member) => self.each_mut().for_each(|known| {
                if known.id == id {
                    known.address = member.address.clone();
                }
            }),
        }
        Ok(())
    }

    /// What leads from these members to `next`: where both majorities must agree, or `next` itself
    /// if it has the same voters.
    #[must_use]
    pub fn joint(&self, next: Self) -> Self {
        let is_same = self.voters.len() == next.voters.len()
            && self.voters.iter().all(|voter| next.voters.iter().any(|of| of.id == voter.id));
        if is_same {
            return next;
        }
        let known = |voter: &Member| next.member(voter.id).unwrap_or(voter).clone();
        let outgoing = self.voters.iter().map(known).collect();
        Self { outgoing, ..next }.with_used(self.greatest_id())
    }

    /// What follows when a joint membership is committed.
    #[must_use]
    pub fn settled(&self) -> Self {
        Self { outgoing: Vec::new(), ..self.clone() }.with_used(self.greatest_id())
    }

    /// The same, once a member had this id. Members say it themselves, if one has it.
    pub(crate) fn with_used(mut self, greatest: NodeId) -> Self {
        self.used = NodeId(0);
        self.used = if self.greatest_id() < greatest { greatest } else { NodeId(0) };
        self
    }

    /// The greatest id that a member has or had.
    #[must_use]
    pub fn greatest_id(&self) -> NodeId {
        self.members().map(|member| member.id).fold(self.used, NodeId::max)
    }

    /// Whether this node was a member before, and can never be one again.
    #[must_use]
    pub fn is_former(&self, id: NodeId) -> bool {
        id <= self.greatest_id() && self.member(id).is_none()
    }
}

fn take(members: &mut Vec<Member>, id: NodeId) -> Option<Member> {
    let at = members.iter().position(|member| member.id == id)?;
    Some(members.remove(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn member(id: u64) -> Member {
        Member { id: NodeId(id), incarnation: id * 10, address: Bytes::new() }
    }

    fn of(voters: &[u64], learners: &[u64]) -> Membership {
        Membership {
            learners: learners.iter().copied().map(member).collect(),
            ..Membership::of(voters.iter().copied().map(member))
        }
    }

    fn ids(members: &[Member]) -> Vec<u64> {
        members.iter().map(|member| member.id.0).collect()
    }

    #[test]
    fn several_steps_are_one_change() {
        let before = of(&[1, 2, 3], &[4, 5]);
        let steps = [
            Change::Promote(NodeId(4)),
            Change::Remove(NodeId(1)),
            Change::Demote(NodeId(2)),
            Change::AddLearner(member(7)),
            Change::AddLearner(member(6)),
        ];
        let after = before.changed(&steps).unwrap();
        assert_eq!((ids(&after.voters), ids(&after.learners)), (vec![3, 4], vec![5, 2, 7, 6]));
        let joint = before.joint(after.clone());
        assert_eq!((ids(&joint.voters), ids(&joint.outgoing)), (vec![3, 4], vec![1, 2, 3]));
        assert!(joint.is_encodable());
        let read = Membership::decode(&joint.encode()).unwrap();
        assert!(after.members().all(|member| read.settled().member(member.id) == Some(member)));
        assert_eq!(read.settled().members().count(), after.members().count());
    }

    #[test]
    fn the_same_voters_need_no_joint_membership() {
        let before = of(&[1, 2], &[]);
        let after = before.changed(&[Change::AddLearner(member(3))]).unwrap();
        assert!(before.joint(after).outgoing.is_empty());
    }

    #[test]
    fn a_new_address_is_one_in_both_configurations() {
        let before = of(&[1, 2], &[]);
        let moved = Member { address: Bytes::from_static(b"elsewhere"), ..member(2) };
        let steps = [Change::Address(moved), Change::Demote(NodeId(1))];
        let joint = before.joint(before.changed(&steps).unwrap());
        let read = Membership::decode(&joint.encode()).unwrap();
        let moved = read.outgoing.iter().find(|member| member.id == NodeId(2)).unwrap();
        assert_eq!(&moved.address[..], b"elsewhere");
    }

    #[test]
    fn an_id_is_never_given_again() {
        let gone = of(&[1, 2, 9], &[]).changed(&[Change::Remove(NodeId(9))]).unwrap();
        let read = Membership::decode(&gone.settled().encode()).unwrap();
        assert!(read.is_former(NodeId(9)) && !read.is_former(NodeId(10)));
        let again = read.changed(&[Change::AddLearner(member(9))]);
        let (node, free) = (NodeId(9), Some(NodeId(10)));
        assert_eq!(again, Err(ChangeRefusal::UsedBefore { node, free }));
        assert_eq!(read.changed(&[Change::Remove(NodeId(2))]).unwrap().greatest_id(), NodeId(9));
    }

    #[test]
    fn behind_the_greatest_id_there_is_none_is_free() {
        let greatest = Member { id: NodeId(u64::MAX), ..member(2) };
        let both = Membership::of([member(1), greatest]);
        let gone = both.changed(&[Change::Remove(NodeId(u64::MAX))]).unwrap().settled();
        let node = NodeId(2);
        let none_is_free = Err(ChangeRefusal::UsedBefore { node, free: None });
        assert_eq!(gone.changed(&[Change::AddLearner(member(2))]), none_is_free);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let before = of(&[1, 2], &[3]);
        let long = Member { address: vec![b'a'; 65].into(), ..member(4) };
        let many = (4..35).map(|id| Change::AddLearner(member(id))).collect();
        let of = NodeId;
        let cases = [
            (vec![], ChangeRefusal::Nothing),
            (vec![Change::Address(member(1))], ChangeRefusal::Nothing),
            (vec![Change::Promote(of(3)), Change::Remove(of(3))], ChangeRefusal::Twice(of(3))),
            (vec![Change::Remove(of(7))], ChangeRefusal::Unknown(of(7))),
            (vec![Change::AddLearner(member(2))], ChangeRefusal::Duplicate(of(2))),
            (vec![Change::Promote(of(1))], ChangeRefusal::NotLearner(of(1))),
            (vec![Change::Demote(of(3))], ChangeRefusal::NotVoter(of(3))),
            (vec![Change::Remove(of(1)), Change::Demote(of(2))], ChangeRefusal::NoVoters),
            (vec![Change::AddLearner(long)], ChangeRefusal::AddressTooLong(of(4), 65)),
            (many, ChangeRefusal::TooMany(34)),
        ];
        for (steps, why) in cases {
            assert_eq!(before.changed(&steps), Err(why), "{steps:?}");
        }
    }

    /// Each step was held against those before it and all that were added: fifteen thousand, that came from
    /// one client in half a megabyte, took seconds, and as many again would have taken minutes of this test.
    #[test]
    fn a_long_list_of_steps_is_refused_at_once() {
        let before = of(&[1, 2], &[3]);
        let mut steps: Vec<_> = (4..1_000_004).map(|id| Change::AddLearner(member(id))).collect();
        assert_eq!(before.changed(&steps), Err(ChangeRefusal::TooMany(1_000_000)));
        // None of them is the first to be wrong.
        steps.truncate(29);
        steps.extend((0..1_000_000).map(|n| Change::Promote(NodeId(4 + n))));
        assert_eq!(before.changed(&steps), Err(ChangeRefusal::Twice(NodeId(4))));
    }
}
