//! What the facade fetches: what consensus wants stored, read and said, and how it is.
//!
//! Knows no step of its own. Invariant: what is taken is taken once.

use super::{Change, Raft, ReadWish, role::Role};
use crate::{
    action::{Action, Halt, Outcome, Refusal},
    membership::Membership,
    message::Message,
    status::{self, Probe},
    types::{LogIndex, NodeId, Piece, Term, Timestamp},
};
use std::sync::Arc;

impl Raft {
    /// Whether anything is to be stored or read.
    pub(crate) const fn wants(&self) -> bool {
        self.log.has_changes() || !self.wishes.is_empty() || (!self.is_plain && self.wants_more())
    }

    /// Whether there is more to be stored or read than entries.
    pub(crate) const fn wants_more(&self) -> bool {
        self.promise_wanted
            || self.membership_wanted
            || self.epoch_wanted
            || self.has_formed
            || !self.pieces.is_empty()
            || !self.pieces_wanted.is_empty()
            || self.discards
            || self.gate_opened
    }

    pub(crate) fn take_promise(&mut self) -> Option<(Term, Option<NodeId>)> {
        std::mem::take(&mut self.promise_wanted).then_some((self.term, self.vote))
    }

    /// The membership wanted on disk and the one before it.
    pub(crate) fn take_membership(&mut self) -> Option<(Arc<Membership>, Arc<Membership>)> {
        std::mem::take(&mut self.membership_wanted)
            .then(|| (Arc::clone(&self.membership), Arc::clone(&self.previous)))
    }

    /// Whether the node has met all others just now.
    pub(crate) fn take_formed(&mut self) -> bool {
        std::mem::take(&mut self.has_formed)
    }

    pub(crate) fn changes(&mut self) -> &mut Vec<Change> {
        self.log.changes()
    }

    pub(crate) const fn wishes(&mut self) -> &mut Vec<ReadWish> {
        &mut self.wishes
    }

    /// Pieces of a snapshot that came.
    pub(crate) const fn pieces(&mut self) -> &mut Vec<Piece> {
        &mut self.pieces
    }

    /// Pieces of snapshots to be read: for whom, and from which byte on.
    pub(crate) const fn pieces_wanted(&mut self) -> &mut Vec<(NodeId, u64)> {
        &mut self.pieces_wanted
    }

    /// Whether what this node may have forgotten is there again.
    pub(crate) fn take_gate_opened(&mut self) -> bool {
        std::mem::take(&mut self.gate_opened)
    }

    /// Whether what is being received is not needed.
    pub(crate) fn take_discard(&mut self) -> bool {
        std::mem::take(&mut self.discards)
    }

    pub(crate) const fn messages(&mut self) -> &mut Vec<Message> {
        &mut self.messages
    }

    pub(crate) const fn actions(&mut self) -> &mut Vec<Action> {
        &mut self.actions
    }

    /// Whether there is a reason for the node to end.
    pub(crate) const fn has_ended(&self) -> bool {
        self.halt.is_some()
    }

    pub(crate) const fn take_halt(&mut self) -> Option<Halt> {
        self.halt.take()
    }

    pub(crate) const fn membership(&self) -> &Arc<Membership> {
        &self.membership
    }

    /// No entry of this log, nor of what it goes on from, has a later time.
    pub(crate) const fn last_time(&self) -> Timestamp {
        self.log.last_time()
    }

    pub(crate) const fn committed(&self) -> LogIndex {
        self.log.marks.committed()
    }

    /// The smallest index that must be kept for members.
    pub(crate) fn retained(&self) -> LogIndex {
        match &self.role {
            Role::Leader(leader) if leader.peers.is_empty() => self.log.marks.last().next(),
            Role::Leader(leader) => leader.retain,
            _ => self.retain,
        }
    }

    /// All who wait get their end: the node stops.
    pub(crate) fn stop(&mut self, why: &Refusal) {
        if let Some((_, runs, _)) = self.gathering.take() {
            self.end_runs(&runs, &Outcome::Refused(why.clone()));
        }
        self.abandon_change(why);
        self.abandon_handover(why);
        self.lose_forwards();
        while let Some(lost) = self.tracking.pop_above(LogIndex(0)) {
            self.end_runs(&lost.runs, &Outcome::Unknown);
        }
        self.refuse_reads(why);
        self.refuse_ready_reads(why);
    }

    /// Fills in what consensus knows of a status.
    pub(crate) fn report(&self, status: &mut status::Status) {
        status.role = self.public_role();
        status.node = self.identity.node;
        status.term = self.term;
        status.leader = self.leader();
        status.first = self.log.first();
        status.applied = self.log.marks.applied();
        status.committed = self.log.marks.committed();
        status.last = self.log.marks.last();
        status.durable = self.log.marks.durable();
        status.members = Arc::clone(&self.membership);
        status.hibernates = self.is_asleep();
        status.gated = self.gate.is_some();
        if let Role::Leader(leader) = &self.role {
            status.peers = leader.peers.iter().map(|peer| peer.status(self.now)).collect();
        }
        let waiters = self.tracking.cost().waiters + self.forwards.cost().waiters;
        status.memory_bytes += self.log.cache_bytes()
            + self.receiver.waiting.bytes()
            + self.gathering.cost().bytes()
            + waiters;
        (status.snapshot_bytes_sent, status.snapshot_bytes_received) =
            (self.carried.sent, self.carried.received);
        (status.transfers, status.changes) = (self.transfers, self.changes);
        status.marks.add(self.marks);
    }

    const fn public_role(&self) -> status::Role {
        match &self.role {
            Role::Forming(_) => status::Role::Forming,
            Role::Follower(_) => status::Role::Follower,
            Role::PreCandidate(_) => status::Role::PreCandidate,
            Role::Candidate(_) => status::Role::Candidate,
            Role::Leader(_) => status::Role::Leader,
        }
    }

    /// Fills in what consensus knows of a probe.
    pub(crate) fn probe(&self, probe: &mut Probe) {
        probe.role = self.public_role();
        probe.term = self.term;
        probe.vote = self.vote;
        probe.leader = self.leader();
        probe.first = self.log.first();
        probe.applied = self.log.marks.applied();
        probe.committed = self.log.marks.committed();
        probe.last = self.log.last();
        probe.time = self.log.last_time();
        probe.durable = self.log.marks.durable();
        probe.judged = true;
        probe.gated = self.gate.is_some();
        probe.hibernates = self.is_asleep();
        probe.wanted = self.facts.hole.map(|hole| hole.index);
        probe.holed = probe.wanted.is_some() || self.facts.owes_entries;
    }

    pub(crate) fn term_at(&self, index: LogIndex) -> Option<Term> {
        self.log.term_at(index)
    }
}
