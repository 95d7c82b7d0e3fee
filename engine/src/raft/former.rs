//! Who has left: it is told so by whoever it asks, and ends.
//!
//! Knows no change that is under way. Invariant: nobody ends on the word of one that it does not know as a
//! member, and no leader goes before what makes it none is committed.

use super::{Raft, role::Role};
use crate::{
    action::Halt,
    marks::Mark,
    membership::Membership,
    message::{Head, Message, Payload},
    types::{LogId, NodeId},
};
use std::sync::Arc;

impl Raft {
    pub(super) fn tell_former(&mut self, node: NodeId, incarnation: u64) {
        self.marks.set(Mark::FormerMemberTold);
        let head = Head { to_incarnation: incarnation, ..self.head_to(node) };
        let at = self.around.settled;
        self.messages.push(Message { head, payload: Payload::Removed { at } });
    }

    /// A node that left speaks as if it had not: it does not know.
    pub(super) fn answer_former(&mut self, head: &Head, payload: &Payload) {
        if payload.is_question() && self.around.settled != LogId::ZERO {
            self.tell_former(head.from, head.incarnation);
        }
    }

    /// A member says that this node is none. It never takes that back: ids are used once.
    pub(super) fn on_removed(&mut self, head: &Head) {
        let is_meant = head.to_incarnation == self.identity.incarnation;
        if is_meant && self.is_member_known(head) {
            self.halt.get_or_insert(Halt::Removed);
        }
    }

    /// Whether one who says that this node is none is a member itself, in this life.
    pub(super) fn is_member_known(&self, head: &Head) -> bool {
        // A founder that was down while the cluster formed has not met the others, and does not any
        // more.
        let lives = [head.incarnation, if self.is_forming() { 0 } else { head.incarnation }];
        let teller = |of: &Arc<Membership>| {
            of.member(head.from).is_some_and(|member| lives.contains(&member.incarnation))
        };
        teller(&self.membership)
            || teller(&self.previous)
            || self.met().contains(&(head.from, head.incarnation))
    }

    /// Whether it was added to nothing yet.
    pub(super) fn is_outsider(&self) -> bool {
        self.membership.greatest_id() < self.identity.node
    }

    /// A leader that is no voter any more leads until that is committed, and a node that is no
    /// member ends when its machine has come as far.
    pub(crate) fn retire(&mut self) {
        if self.is_plain {
            return;
        }
        let own = self.identity.node;
        if !self.is_settled() || !self.membership.outgoing.is_empty() || self.is_forming() {
            return;
        }
        if matches!(self.role, Role::Leader(_)) && !self.membership.is_voter(own) {
            self.marks.set(Mark::SteppedDownNoVoter);
            self.appoint_heir();
            self.step_down();
        }
        let at = self.membership.at;
        if at != LogId::ZERO
            && self.membership.is_former(own)
            && self.log.marks.applied() >= at.index
        {
            self.halt.get_or_insert(Halt::Removed);
        }
    }

    /// One who cannot stand, and hears of no leader, asks whether it is still a member.
    pub(super) fn ask_around(&mut self) {
        for at in 0..self.peers.len() {
            let (to, _) = self.peers[at];
            self.send(to, Payload::Hello { ask: true, origin: self.origin });
        }
        // Whoever led has not been heard of for as long as one may be waited for: nothing here is as
        // fresh as its word, and nobody is turned away for its sake.
        self.become_follower(self.term, None);
    }

    /// Whether it may have to lead: as a voter, or until what makes it none is committed. It may be
    /// the only one who has that, and then others vote for no one else (thesis §4.2.2).
    pub(super) fn is_needed(&self) -> bool {
        let own = self.identity.node;
        self.membership.is_voter(own) || (!self.is_settled() && self.previous.is_voter(own))
    }

    /// Whether one who may not stand has somebody to ask. It would only wait, and nobody would notice; also
    /// one who stood and found out meanwhile that it may not.
    pub(super) const fn may_ask_around(&self) -> bool {
        !self.peers.is_empty()
    }
}
