//! Cluster epochs: a cluster whose quorum was lost goes on from one node, and those of before are
//! out for good.
//!
//! Knows no files. Invariant: nothing of another epoch changes what this node holds. One of an
//! earlier epoch is told that it was left behind, and ends; one that belongs to nobody yet takes
//! the epoch of whoever adds it.

use super::{NUMBER_MAX, Raft};
use crate::{
    action::Halt,
    marks::Mark,
    message::{Head, Message, Payload},
    types::{LogId, Term},
};

impl Raft {
    /// Whether a message is of this node's epoch, which may be so from this moment on.
    pub(super) fn admit_epoch(&mut self, head: &Head, payload: &Payload) -> bool {
        let own = self.identity.cluster_epoch;
        if head.cluster_epoch == own {
            return true;
        }
        if head.cluster_epoch > NUMBER_MAX {
            self.fault(head.from, "a cluster epoch that none can reach");
            return false;
        }
        let is_later = head.cluster_epoch > own;
        let is_meant = [0, self.identity.incarnation].contains(&head.to_incarnation);
        if is_later && is_meant && self.is_unclaimed() {
            // Term and entries of that epoch are not durable before the update that names it.
            self.identity.cluster_epoch = head.cluster_epoch;
            self.epoch_wanted = true;
            return true;
        }
        self.marks.set(Mark::OtherEpochDropped);
        if is_later && is_meant && self.is_member_known(head) {
            let (by, epoch) = (head.from, head.cluster_epoch);
            self.halt.get_or_insert(Halt::LeftBehind { by, epoch, own });
        } else if !is_later {
            self.answer_left_behind(head, payload);
        }
        false
    }

    /// Whether it waits to be added to a cluster and holds nothing of one.
    fn is_unclaimed(&self) -> bool {
        let is_nobodys = self.membership.members().next().is_none();
        is_nobodys && self.term == Term(0) && self.log.last() == LogId::ZERO
    }

    /// The epoch in the head says it all; what the message is else does not matter there.
    fn answer_left_behind(&mut self, head: &Head, payload: &Payload) {
        if payload.is_question() && !self.is_unclaimed() {
            self.marks.set(Mark::OldEpochRefused);
            self.fault(
                head.from,
                "it is of an earlier cluster epoch: the cluster was recovered by force without \
                 it; remove its directory, and add a node under a new id",
            );
            let answer = Head { to_incarnation: head.incarnation, ..self.head_to(head.from) };
            self.messages.push(Message { head: answer, payload: Payload::FormedWithoutYou });
        }
    }

    /// The epoch that the disk is to name, if it is another one.
    pub(crate) fn take_epoch(&mut self) -> Option<u64> {
        std::mem::take(&mut self.epoch_wanted).then_some(self.identity.cluster_epoch)
    }
}
