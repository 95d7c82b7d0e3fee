//! A leader hands its role over (thesis §3.10): it takes no more proposals, brings the heir's log up
//! to its own, and asks it to stand at once.
//!
//! It waits until all of that is committed, for half the time: who steps down before knows of no write what
//! became of it. No longer, for it may be that only the heir can bring it about.
//! The heir wins a real election in a new term; that its ballots say whose wish it is spares them the
//! refusals that protect a leader who lives. Invariant: a leader that could not hand over within a
//! longest election timeout serves on.

use super::{Raft, progress::Peer, role::Role};
use crate::{
    action::{Outcome, Refusal, TransferRefusal},
    marks::Mark,
    message::{Head, Payload},
    types::{Instant, NodeId, RequestId, Requests, Term},
};

/// A leadership on its way to another node.
#[derive(Clone, Debug)]
pub(super) struct Handover {
    heir: NodeId,
    /// Whoever suits best is to lead; or the heir, and nobody else.
    is_open: bool,
    /// The term that it is to end.
    term: Term,
    /// Who wants to know how it ended.
    requests: Vec<RequestId>,
    until: Instant,
    /// Until then what is in the log is to be committed first.
    patient_until: Instant,
    /// Whether the heir was asked to stand, and whether it is to be asked again.
    is_told: bool,
    is_due: bool,
}

impl Raft {
    /// Somebody wants another leader: this one, or whoever suits best.
    pub(crate) fn on_transfer(&mut self, request: RequestId, to: Option<NodeId>) {
        if to.is_some() && to == self.leader() {
            return self.end(Requests::one(request), Outcome::Done(self.log.last()));
        }
        if let Err(why) = self.begin_handover(to) {
            return self.end(Requests::one(request), Outcome::Refused(why));
        }
        let handover = self.handover.as_mut().expect("it was just begun");
        handover.requests.push(request);
    }

    /// Begins to hand over, unless it is under way; `Err` says why it cannot.
    pub(crate) fn begin_handover(&mut self, to: Option<NodeId>) -> Result<(), Refusal> {
        self.stray();
        self.stir();
        let is_under_way = self.is_handing_over();
        if let Some(handover) = self.handover.as_mut().filter(|_| is_under_way) {
            let is_this = to.is_none_or(|to| to == handover.heir);
            // Whoever named the heir waits for that one alone.
            handover.is_open &= !is_this || to.is_none();
            if !is_this {
                self.transfers.asked += 1;
                self.transfers.given_up += 1;
                return Err(Refusal::Transferring);
            }
            return Ok(());
        }
        if self.handover.is_some() {
            // It was handed over, and who has it now is not known yet.
            return Err(Refusal::NotLeader { hint: None });
        }
        if matches!(self.role, Role::Leader(_)) {
            self.transfers.asked += 1;
        }
        let heir = self.heir(to).inspect_err(|why| {
            let is_leaders = !matches!(why, Refusal::NotLeader { .. });
            self.transfers.given_up += u64::from(is_leaders);
        })?;
        self.handover = Some(Handover {
            heir,
            is_open: to.is_none(),
            term: self.term,
            requests: Vec::new(),
            until: self.now.after(self.tuning.election.1),
            patient_until: self.now.after(self.tuning.election.1 / 2),
            is_told: false,
            is_due: true,
        });
        Ok(())
    }

    /// A heartbeat of a leader that should not be one: its machine has no state, which only another leader can
    /// send; or its own disk has no room.
    pub(super) fn give_way(&mut self) {
        if self.facts.is_state_lost {
            let Role::Leader(leader) = &self.role else { return };
            if self.handover.is_none() && self.able().next().is_some() {
                // Whoever was asked and did not stand may not be able to. Who suits may not be known yet: the
                // next heartbeat tries again.
                let passed_over = leader.passed_over;
                let _ = self.begin_handover(self.best_heir(|peer| Some(peer.id) != passed_over));
            }
            return;
        }
        self.give_way_for_room();
    }

    /// Without room it refuses what a quorum may have room for, so after a longest election timeout it gives way
    /// to one who takes it. Not before, and only when its disk has just said so again: room may be back.
    fn give_way_for_room(&mut self) {
        let (now, patience, facts) = (self.now, self.tuning.election.1, &self.facts);
        let Role::Leader(leader) = &mut self.role else { return };
        if !facts.full {
            leader.full_since = None;
            return;
        }
        let (since, sought) = leader.full_since.unwrap_or((now, facts.sought_room));
        leader.full_since = Some((since, facts.sought_room));
        let is_due = facts.sought_room != sought && now.since(since) > patience;
        if !is_due || self.handover.is_some() {
            return;
        }
        let (silence, passed_over) = (self.tuning.election.0, leader.passed_over);
        let takes = |peer: &Peer| {
            !peer.full && !peer.paused && peer.has_answered && now.since(peer.heard) <= silence
        };
        let has_room = |id| leader.peers.iter().any(|peer| peer.id == id && takes(peer));
        let is_use = self.membership.is_quorum(|id| id != self.identity.node && has_room(id));
        let suits = |peer: &&Peer| takes(peer) && !peer.gated && peer.transfer.is_none();
        // Whoever was asked and did not stand may not be able to.
        let by = |peer: &&Peer| (Some(peer.id) != passed_over, peer.matched, self.lot(peer));
        let heir = self.able().filter(suits).max_by_key(by).map(|peer| peer.id);
        if let (true, Some(heir)) = (is_use, heir)
            && self.begin_handover(Some(heir)).is_ok()
        {
            self.marks.set(Mark::GaveWayForRoom);
        }
    }

    /// A leader that is no voter any more goes, and nobody need wait until its silence is noticed: whoever
    /// has most of its log is to stand.
    pub(super) fn appoint_heir(&mut self) {
        let suits = |peer: &&Peer| !peer.gated && peer.transfer.is_none();
        // Two who stand at once may both lose; and without what is committed nobody wins.
        let named = self.handover.as_ref().filter(|_| self.is_handing_over());
        let (named, committed) = (named.map(|handover| handover.heir), self.log.marks.committed());
        let by = |peer: &&Peer| {
            let has_all = peer.matched >= committed;
            (Some(peer.id) == named, has_all, !peer.full, peer.matched, self.lot(peer))
        };
        let heir = self.able().filter(suits).max_by_key(by);
        let Some(heir) = heir.map(|peer| peer.id) else { return };
        if let Role::Leader(leader) = &mut self.role {
            leader.lease.renounce();
        }
        self.send(heir, Payload::TimeoutNow);
    }

    /// Decides among equals, in each group otherwise: the leaders of many that leave one node go to several.
    fn lot(&self, peer: &Peer) -> u64 {
        let Role::Leader(leader) = &self.role else { return 0 };
        // By place: ids may be all odd.
        let place = leader.peers.iter().position(|known| known.id == peer.id).unwrap_or_default();
        self.identity.group.0.wrapping_add(place as u64) % leader.peers.len() as u64
    }

    /// The voters that are there.
    pub(super) fn able(&self) -> impl Iterator<Item = &Peer> {
        let peers = match &self.role {
            Role::Leader(leader) => leader.peers.as_slice(),
            _ => &[],
        };
        peers.iter().filter(|peer| {
            let is_there =
                peer.has_answered && self.now.since(peer.heard) <= self.tuning.election.0;
            is_there && !peer.paused && self.membership.is_voter(peer.id)
        })
    }

    /// Who is to lead: a voter that is there.
    pub(super) fn heir(&self, to: Option<NodeId>) -> Result<NodeId, Refusal> {
        if !matches!(self.role, Role::Leader(_)) {
            return Err(Refusal::NotLeader { hint: self.leader() });
        }
        let refused = |why| Err(Refusal::Transfer(why));
        match to {
            None => self.best_heir(|_| true).ok_or(Refusal::Transfer(TransferRefusal::Nobody)),
            Some(to) if !self.membership.is_voter(to) => refused(TransferRefusal::NoVoter(to)),
            Some(to) if self.able().any(|peer| peer.id == to) => Ok(to),
            Some(to) => refused(TransferRefusal::Silent(to)),
        }
    }

    /// Who has no room would refuse every write; who is gated, or has no state, does not come to lead.
    fn best_heir(&self, is_asked: impl Fn(&Peer) -> bool) -> Option<NodeId> {
        let by = |peer: &&Peer| {
            let comes = (!peer.full, !peer.gated, peer.transfer.is_none());
            (comes, peer.matched, self.lot(peer))
        };
        self.able().filter(|peer| is_asked(peer)).max_by_key(by).map(|peer| peer.id)
    }

    /// Whether this leader takes no proposals because it is about to go.
    pub(crate) fn is_handing_over(&self) -> bool {
        let leads = matches!(self.role, Role::Leader(_));
        self.handover.as_ref().is_some_and(|handover| leads && handover.term == self.term)
    }

    /// A handover goes on: the heir has all entries, and they are committed -> it is asked to stand; it
    /// leads, or another one does, or too much time has passed -> whoever waits is told.
    pub(crate) fn hand_over(&mut self) {
        if self.is_plain {
            return;
        }
        let Some(handover) = &mut self.handover else { return };
        let leads = matches!(self.role, Role::Leader(_)) && handover.term == self.term;
        let (is_late, is_told) = (self.now >= handover.until, handover.is_told);
        let heir = handover.heir;
        if leads && is_late {
            self.marks.set(Mark::HandoverGivenUp);
            if let Role::Leader(leader) = &mut self.role {
                leader.passed_over = Some(heir);
            }
            // It may have been asked, and stand yet.
            let why = Refusal::Transfer(TransferRefusal::NotInTime(heir));
            return self.end_handover(if is_told {
                Outcome::Unknown
            } else {
                Outcome::Refused(why)
            });
        }
        if !leads {
            return match self.leader() {
                Some(leader) if leader == heir => {
                    self.marks.set(Mark::HandedOver);
                    self.end_handover(Outcome::Done(self.log.last()));
                }
                Some(leader) => {
                    let why = TransferRefusal::AnotherLeads(leader);
                    self.end_handover(Outcome::Refused(Refusal::Transfer(why)));
                }
                None if is_late => self.end_handover(Outcome::Unknown),
                None => {}
            };
        }
        let heir = self.present_heir().unwrap_or(heir);
        let is_idle = self.gathering.is_empty();
        let (Role::Leader(leader), Some(handover)) = (&mut self.role, &mut self.handover) else {
            return;
        };
        handover.heir = heir;
        let last = self.log.marks.last();
        let is_known = self.log.marks.committed() == last || self.now >= handover.patient_until;
        let has_all = leader.peers.iter().any(|peer| {
            peer.id == heir && peer.matched == last && leader.quiet.is_news(peer.heard)
        });
        if is_idle && has_all && is_known && handover.is_due {
            (handover.is_told, handover.is_due) = (true, false);
            leader.lease.renounce();
            self.send(heir, Payload::TimeoutNow);
        }
    }

    /// The group rested, and the heir was chosen by what was heard before: another one that is there, if whoever
    /// suits best is to lead.
    fn present_heir(&self) -> Option<NodeId> {
        let (Some(handover), Role::Leader(leader)) = (&self.handover, &self.role) else {
            return None;
        };
        let is_there = |peer: &Peer| leader.quiet.is_news(peer.heard);
        let is_settled = !handover.is_open || handover.is_told;
        let is_heir_there = self.able().any(|peer| peer.id == handover.heir && is_there(peer));
        if is_settled || is_heir_there { None } else { self.best_heir(is_there) }
    }

    fn end_handover(&mut self, outcome: Outcome) {
        let Some(handover) = self.handover.take() else { return };
        if matches!(outcome, Outcome::Done(_)) {
            self.transfers.done += 1;
        } else {
            self.transfers.given_up += 1;
        }
        for request in handover.requests {
            self.end(Requests::one(request), outcome.clone());
        }
    }

    /// The node ends: nobody will hear how it went.
    pub(super) fn abandon_handover(&mut self, why: &Refusal) {
        let is_told = self.handover.as_ref().is_some_and(|handover| handover.is_told);
        self.end_handover(if is_told { Outcome::Unknown } else { Outcome::Refused(why.clone()) });
    }

    /// A heartbeat has passed: what was said to the heir may be lost.
    pub(super) fn repeat_handover(&mut self) {
        if let Some(handover) = &mut self.handover {
            handover.is_due = true;
        }
    }

    /// Whether one is under way, or it is not known yet how it went.
    pub(crate) const fn has_handover(&self) -> bool {
        self.handover.is_some()
    }

    /// When `hand_over` has something to do though nothing happens.
    pub(super) fn handover_deadline(&self) -> Option<Instant> {
        let handover = self.handover.as_ref()?;
        let is_patient = self.now < handover.patient_until;
        Some(if is_patient { handover.patient_until } else { handover.until })
    }

    /// The leader wants this node to stand, without asking around first.
    pub(super) fn on_timeout_now(&mut self, head: &Head) {
        let follows = head.term == self.term && self.leader() == Some(head.from);
        if follows && matches!(self.role, Role::Follower(_)) && self.may_campaign() {
            self.marks.set(Mark::StoodAtLeadersWish);
            self.become_candidate();
            if let Role::Candidate(canvass) = &mut self.role {
                canvass.is_wished = true;
            }
        }
    }
}
