//! Formation: a cluster formatted with several voters votes only after every member has met every
//! other (storage.md, Formation).
//!
//! Knows no elections. Invariant: before this node's first vote its disk names the incarnation of
//! every member, and every member's disk names its own. So a voter that is wiped and formatted
//! again is recognised by all, and cannot vote twice in a term.

use super::{
    Raft,
    role::{Follower, Role},
};
use crate::{
    action::Halt,
    backup::Origin,
    marks::Mark,
    membership::{Member, Membership},
    message::{Head, Payload},
    types::{Instant, LogId, NodeId},
};
use std::sync::Arc;

/// A node that waits until all have met.
#[derive(Clone, Debug)]
pub(super) struct Forming {
    /// Those who have recorded this node's incarnation durably.
    confirmed: Vec<NodeId>,
    /// Those who have left a cluster that formed meanwhile: nobody will ever confirm for them.
    left: Vec<NodeId>,
    /// One who is no founder and knows this node: it can tell who has left.
    teller: Option<NodeId>,
    /// When to ask those who have not.
    pub(super) greet_at: Instant,
}

impl Forming {
    pub(super) const fn new(now: Instant) -> Self {
        Self { confirmed: Vec::new(), left: Vec::new(), teller: None, greet_at: now }
    }
}

/// Whether the disk shows that this node may have taken part in votes already.
///
/// One that has all incarnations and neither a term nor a log asks again: it cannot know whether
/// the others have recorded it. Whoever has a term got it after its formation.
pub(super) fn has_formed(members: &Membership, node: NodeId, has_history: bool) -> bool {
    let all_met = members.members().all(|member| member.incarnation != 0);
    !members.is_voter(node) || (all_met && (has_history || members.is_sole_voter(node)))
}

fn with_incarnation(members: &Membership, node: NodeId, incarnation: u64) -> Membership {
    let mut members = members.clone();
    members
        .each_mut()
        .filter(|member: &&mut Member| member.id == node)
        .for_each(|member| member.incarnation = incarnation);
    members
}

impl Raft {
    /// Wants this incarnation on disk.
    pub(super) fn record(&mut self, node: NodeId, incarnation: u64) {
        self.membership = Arc::new(with_incarnation(&self.membership, node, incarnation));
        if self.previous.member(node).is_some() {
            self.previous = Arc::new(with_incarnation(&self.previous, node, incarnation));
        }
        self.membership_wanted = true;
        self.know_peers();
    }

    /// The disk has this membership. What is newly recorded is confirmed to all at once.
    pub(crate) fn on_recorded(&mut self, recorded: &Arc<Membership>) {
        let Role::Forming(forming) = &mut self.role else { return };
        if self.recorded != *recorded {
            self.recorded = Arc::clone(recorded);
            forming.greet_at = self.now;
        }
    }

    pub(crate) const fn is_forming(&self) -> bool {
        matches!(self.role, Role::Forming(_))
    }

    pub(super) fn on_hello(&mut self, head: &Head, ask: bool, origin: Origin) {
        let (from, own) = (head.from, self.identity.incarnation);
        if head.incarnation == 0 {
            return self.fault(from, "a greeting without an incarnation");
        }
        let Some(known) = self.membership.member(from).map(|member| member.incarnation) else {
            return self.on_strange_hello(head, ask);
        };
        if known != 0 && known != head.incarnation {
            return self.turn_away(head);
        }
        if head.to_incarnation != 0 && head.to_incarnation != own {
            // It has met an earlier life of this node; its answer to our own greeting says so.
            return self.marks.set(Mark::OtherIncarnationDropped);
        }
        let is_other = origin != self.origin;
        // One that was added behind a backup has its members' incarnations from nobody, and is made of
        // nothing itself.
        if known == 0 && is_other && self.is_forming() {
            return self.fall_out(from, ask, origin);
        }
        if known == 0 {
            self.record(from, head.incarnation);
        }
        if let Role::Forming(forming) = &mut self.role
            && head.to_incarnation == own
            && !forming.confirmed.contains(&from)
        {
            forming.confirmed.push(from);
        }
        if ask {
            self.owe(from, Payload::Hello { ask: false, origin: self.origin });
            self.tell_members(from);
        }
    }

    /// A founder may have met all, and gone down before it knew it; and the one that was to confirm it
    /// may have been removed since.
    fn tell_members(&mut self, to: NodeId) {
        let members = self.members_at(self.log.marks.committed());
        let changed = members.filter(|members| !self.is_forming() && members.at != LogId::ZERO);
        if let Some(members) = changed.cloned() {
            self.owe(to, Payload::Members(members));
        }
    }

    /// One who has met this node is a member of a cluster that has formed, with it. All who are members of
    /// that must know it, and those who are not any more need not.
    pub(super) fn on_members(&mut self, members: &Membership) {
        let Role::Forming(forming) = &mut self.role else { return };
        if members.member(self.identity.node).is_none() {
            return;
        }
        let left = self.recorded.members().map(|member| member.id);
        forming.left = left.filter(|id| members.is_former(*id)).collect();
    }

    /// Whoever is no founder, and knows this life of this node, is a member of what has formed with it:
    /// those whom it waits for may all have left that. It is asked who the members are; of all else
    /// nothing is believed before it has told. True if it does.
    pub(super) fn hear_while_forming(&mut self, head: &Head, payload: &Payload) -> bool {
        self.meet(head.from, head.incarnation);
        if let Role::Forming(forming) = &mut self.role {
            forming.teller = Some(head.from);
        }
        matches!(payload, Payload::Members(_))
    }

    /// One who greets before it adds a node, or one who is to be added and answers.
    fn on_strange_hello(&mut self, head: &Head, ask: bool) {
        // It may have been added since by members whom this node still has to hear of, and know of this
        // one as they do; that is no fault of its.
        //
        // A node that belongs to nobody may have been another one before, whom they met: its answer
        // says who it is now.
        let is_meant = head.to_incarnation == self.identity.incarnation || self.is_outsider();
        if self.is_forming() || !is_meant {
            return;
        }
        self.meet(head.from, head.incarnation);
        self.on_guest(head);
        if ask {
            self.owe(head.from, Payload::Hello { ask: false, origin: self.origin });
        }
    }

    /// A member that was made from something else: there is no cluster that both belong to. It is
    /// not recorded, so it can be made anew, and hears the same of this one.
    fn fall_out(&mut self, peer: NodeId, ask: bool, theirs: Origin) {
        self.marks.set(Mark::OtherOriginMet);
        if ask {
            self.owe(peer, Payload::Hello { ask: false, origin: self.origin });
        }
        self.halt = Some(Halt::OtherOrigin { peer, own: self.origin, theirs });
    }

    fn turn_away(&mut self, head: &Head) {
        self.marks.set(Mark::NewcomerTurnedAway);
        let to_incarnation = head.incarnation;
        let answer = Head { to_incarnation, ..self.head_to(head.from) };
        self.owe_as(answer, Payload::FormedWithoutYou);
    }

    pub(super) fn on_formed_without_you(&mut self, head: &Head) {
        let meant = head.to_incarnation == self.identity.incarnation;
        if meant && self.is_forming() && self.membership.member(head.from).is_some() {
            self.halt = Some(Halt::DiskLost { by: head.from });
        }
    }

    /// Greets those who are missing, and takes part once nobody is.
    pub(super) fn form(&mut self) {
        let Role::Forming(forming) = &mut self.role else { return };
        let own = self.identity.node;
        let missing = |member: &Member| {
            let is_met = member.incarnation != 0
                && (member.id == own || forming.confirmed.contains(&member.id));
            !is_met && !forming.left.contains(&member.id)
        };
        if !self.recorded.members().any(missing) {
            return self.formed();
        }
        if self.now < forming.greet_at {
            return;
        }
        forming.greet_at = self.now.after(self.tuning.heartbeat);
        let others = self.recorded.members().map(|member| member.id).filter(|&id| id != own);
        let others: Vec<_> = others.chain(forming.teller).collect();
        for id in others {
            self.send(id, Payload::Hello { ask: true, origin: self.origin });
        }
    }

    fn formed(&mut self) {
        self.role = Role::Follower(Follower::new(None, &self.log.marks));
        // From its first vote on the disk says so.
        self.has_formed = true;
        if !self.origin.is_nothing() {
            self.marks.set(Mark::FormedFromBackup);
        }
        self.await_first_leader();
    }
}
