//! What the oracle knows, for those who choose what happens next: nothing that would be a bug by the budget is done
//! to a cluster.

use super::{Oracle, Seen, members_in_force::is_quorum};
use crate::witness::Inputs;
use lakebed::{LogIndex, Marks, Membership, StateMachine, tape::Digest};

/// What a power cut would take is looked at after so many steps.
const TRIAL_EVERY: u64 = 499;

impl<M: StateMachine> Oracle<M> {
    /// What was kept, in order.
    pub(crate) const fn inputs(&self) -> Option<&Inputs> {
        self.machines.inputs()
    }

    /// Whether a node that starts like this would go back on its word; `vote`: or could, as its
    /// hard state may be an older one.
    pub(crate) fn would_miss(&self, seen: &Seen<'_>, vote: bool) -> bool {
        !self.promises.is_kept(seen) || vote && !self.votes.is_kept(seen)
    }

    /// Whether it is time to see what a power cut would take.
    pub(crate) fn is_to_be_tried(&self, node: usize) -> bool {
        self.steps.is_multiple_of(TRIAL_EVERY) && !self.left_behind[node]
    }

    /// Adds to a hash what a node promised.
    pub(crate) fn promised(&self, node: usize, digest: &mut Digest) {
        let durable = self.promises.of(node);
        let (term, vote) = self.votes.of(node);
        [durable.term.0, durable.index.0, term.0, vote.map_or(0, |to| to.0)]
            .into_iter()
            .for_each(|number| digest.number(number));
    }

    /// Whether a node was seen in its present life when its disk was judged.
    pub(crate) fn was_judged(&self, node: usize) -> bool {
        self.shown[node].is_some_and(|probe| probe.judged)
    }

    /// Whether the cluster went on by force without this node.
    pub(crate) fn is_left_behind(&self, node: usize) -> bool {
        self.left_behind[node]
    }

    /// Whether a node was ever the only voter.
    pub(crate) fn was_alone(&self, node: usize) -> bool {
        self.members.was_alone(node)
    }

    /// Whether a node was a member, and is none by what is committed.
    pub(crate) fn is_former(&self, node: usize) -> bool {
        self.members.is_former(node, &self.committed)
    }

    /// Whether a node's machine has come as far as the reference.
    pub(crate) fn is_there(&self, node: usize) -> bool {
        self.machines.is_there(node)
    }

    /// The rare situations that the reference has met.
    pub(crate) fn marks(&self) -> Marks {
        self.machines.marks()
    }

    /// Where a node's machine is.
    pub(crate) fn position(&self, node: usize) -> LogIndex {
        self.machines.position(node)
    }

    /// Everything acknowledged so far lies at or below.
    pub(crate) const fn acknowledged(&self) -> LogIndex {
        self.history.acknowledged()
    }

    /// Up to here every quorum holds what was acknowledged, whatever this node lacks.
    pub(crate) fn held_without(&self, node: usize) -> LogIndex {
        let most = self.history.acknowledged().0;
        let may_lack = |index: &u64| self.may_lack(LogIndex(*index), &|of| of == node);
        // Who holds an entry holds all before it.
        let (mut held, mut not) = (0, most + 1);
        while not - held > 1 {
            let between = held + (not - held) / 2;
            *(if may_lack(&between) { &mut held } else { &mut not }) = between;
        }
        LogIndex(held)
    }

    /// Whether every quorum that may elect a leader, by the members in force or by what may come into
    /// force, holds an acknowledged entry durably though these nodes have none that is whole.
    pub(crate) fn may_lack(&self, index: LogIndex, lacks: &dyn Fn(usize) -> bool) -> bool {
        let Some(term) = self.committed.term_of(index) else { return false };
        let holds = |node: usize| !lacks(node) && self.promises.holds(node, term, index);
        let mut in_force = self.members.in_force(&self.committed);
        in_force.all(|members| {
            // A half-made change goes on by itself.
            let will_be = members.settled();
            let may = |members: &Membership| !is_quorum(members, |id| !holds(id.0 as usize - 1));
            may(members) && may(&will_be)
        })
    }

    /// Whether these nodes are a quorum of all members in force, and of those that may come into force.
    pub(crate) fn are_quorum(&self, are: &dyn Fn(usize) -> bool) -> bool {
        let are = |members: &Membership| is_quorum(members, |id| are(id.0 as usize - 1));
        let mut in_force = self.members.in_force(&self.committed);
        in_force.all(|members| are(members) && are(&members.settled()))
    }
}
