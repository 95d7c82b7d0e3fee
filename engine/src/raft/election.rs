//! Elections: pre-vote, votes, check-quorum, stickiness (Raft §5.2, thesis §4.2.3 and §9.6).
//!
//! Knows no entries beyond the last one's identity. Invariant: a vote, also for oneself, leaves or
//! counts only when the disk holds it.

use super::{
    Raft,
    role::{Canvass, Role},
    transfer::Transfer,
};
use crate::{
    marks::Mark,
    message::{Ballot, Head, Message, Payload, Verdict},
    types::{Instant, NodeId, earliest},
};
use rand_chacha::rand_core::Rng;
use std::time::Duration;

/// After so many canvasses in a life those are asked too who have no vote.
const ASKS_VOTERS_ALONE: u64 = 2;

impl Raft {
    /// Lets the time go on: elections, heartbeats, what waits too long.
    pub(crate) fn time_out(&mut self) {
        if self.is_plain {
            return;
        }
        match &mut self.role {
            Role::Forming(_) => self.form(),
            Role::Leader(leader) if leader.quiet.is_asleep => {}
            Role::Leader(leader) => {
                leader.allowance.fill(&self.tuning, self.now);
                let transfers = leader.peers.iter_mut().filter_map(|peer| peer.transfer.as_mut());
                transfers.for_each(|transfer| transfer.pass(self.now));
                if self.now >= leader.heartbeat_at {
                    self.beat();
                }
            }
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {
                let is_over = self.election_at().is_some_and(|at| self.now >= at);
                if is_over && self.may_campaign() {
                    self.become_pre_candidate();
                } else if is_over && self.may_ask_around() {
                    self.ask_around();
                }
            }
        }
        let overdue = |at: Instant| self.now >= at.after(self.tuning.election.1);
        if self.forwards.oldest().is_some_and(overdue) {
            self.lose_forwards();
        }
        self.repeat_round();
        self.give_up_reads();
        self.give_up_forwarded();
    }

    /// When `time_out` has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let role = match &self.role {
            Role::Forming(forming) => Some(forming.greet_at),
            Role::Leader(leader) => leader.deadline(&self.tuning).or_else(|| self.rests_alone_at()),
            _ if self.may_campaign() || self.may_ask_around() => self.election_at(),
            _ => None,
        };
        if self.is_plain {
            return role;
        }
        let forwards = self.forwards.oldest().map(|at| at.after(self.tuning.election.1));
        let follows = matches!(self.role, Role::Follower(_));
        let reads = self.reads.repeat_at(&self.tuning).filter(|_| follows);
        let confirmed = self.reads.give_up_at(self.tuning.election.1);
        let held = self.reads.held_until(self.tuning.election.1);
        let forwarded = self.give_up_at();
        let (change, handover) = (self.change_deadline(), self.handover_deadline());
        let refill = self.refill_at();
        earliest([role, forwards, reads, confirmed, held, forwarded, refill, change, handover])
    }

    pub(super) fn may_campaign(&self) -> bool {
        self.is_needed()
            && self.receiver.taking.is_none()
            // Without it those who have less of the log would wait for it for ever. It gives way then.
            && (!self.facts.is_state_lost || self.is_ahead)
            && (!self.lacks_entries() || self.is_gone())
            && (self.gate.is_none() || cfg!(lakebed_break = "stand_behind_the_gate"))
    }

    /// Starts to wait, as long as chance has it.
    pub(super) fn await_leader(&mut self) {
        self.draw_patience();
        self.contact = self.now;
    }

    pub(super) fn draw_patience(&mut self) {
        let (least, most) = self.tuning.election;
        let span = (most - least).as_nanos() as u64;
        let drawn = least + Duration::from_nanos(self.rng.next_u64() % span);
        self.patience = drawn.saturating_add(self.tuning.election_delay);
    }

    /// A leader's regular duties.
    fn beat(&mut self) {
        self.repeat_handover();
        self.renew_lease();
        self.offer_rest();
        let Role::Leader(leader) = &mut self.role else { return };
        let (least, most) = self.tuning.election;
        leader.heartbeat_at = self.now.after(self.tuning.heartbeat);
        leader.heartbeat_due = true;
        let may_send = leader.allowance.wait(&self.tuning).is_none();
        let window = self.tuning.inflight_bytes_max;
        leader.committed_before =
            std::mem::replace(&mut leader.committed_then, self.log.marks.committed());
        let durable = self.log.marks.durable();
        // A disk without room ends its operations: its leader can still be asked. What it took waits for
        // room, so the disk owes nothing but to say whether there is some.
        let is_owed = match self.facts.full {
            true => self.facts.seeks_room,
            false => durable < self.log.marks.last(),
        };
        if !is_owed || durable > leader.disk_seen {
            leader.disk_seen = durable;
            leader.disk_moved_at = self.now;
        }
        for peer in &mut leader.peers {
            peer.intake.repeat();
            let is_in_vain =
                |transfer: &Transfer| transfer.is_in_vain() || self.now.since(peer.heard) > most;
            peer.is_stuck &= !peer.transfer.as_ref().is_some_and(Transfer::has_moved);
            if peer.transfer.as_ref().is_some_and(is_in_vain) {
                // Whoever is not heard of may have been about to have it.
                peer.is_stuck |= peer.transfer.is_some_and(|transfer| transfer.is_in_vain());
                // What it holds up is not kept for one who may never come back.
                peer.probe(peer.matched.next());
            }
            let transfer = peer.transfer.as_mut();
            if transfer.is_some_and(|transfer| transfer.beat(may_send, window)) {
                self.marks.set(Mark::InstallRepeated);
            }
            if peer.has_inflight() && self.now.since(peer.heard) > least {
                self.marks.set(Mark::PeerSilent);
                peer.probe(peer.matched.next());
            }
        }
        let moves = self.now.since(leader.disk_moved_at) <= most;
        let stuck = !moves
            && !self.membership.is_sole_voter(self.identity.node)
            && !cfg!(lakebed_break = "lead_with_a_stuck_disk");
        let quorum = self.membership.is_quorum(|id| {
            id == self.identity.node
                || leader
                    .peers
                    .iter()
                    .any(|peer| peer.id == id && self.now.since(peer.heard) <= most)
        });
        if stuck || !quorum && !cfg!(lakebed_break = "lead_without_a_quorum") {
            let why = if stuck { Mark::SteppedDownDiskStuck } else { Mark::SteppedDownNoQuorum };
            self.marks.set(why);
            return self.step_down();
        }
        self.give_way();
    }

    /// A candidate's question, asked in earnest or (`pre`) only in case.
    pub(super) fn on_ballot(&mut self, head: &Head, ballot: Ballot, pre: bool) {
        let granted = (ballot.is_wished || !self.is_sticky(head.from))
            && !self.is_gated()
            && head.term >= self.term
            && if pre { self.would_vote(head, ballot) } else { self.vote(head, ballot) };
        let verdict = Verdict { round: ballot.round, granted };
        let payload =
            if pre { Payload::PreVoteAnswer(verdict) } else { Payload::VoteAnswer(verdict) };
        let answer = Head { answers: head.life, ..self.head_to(head.from) };
        self.owe_as(answer, payload);
    }

    /// Whether there is a leader that a ballot would only disturb, or may have been one before
    /// this node's restart. Then nothing of the ballot is taken over, not even its term.
    fn is_sticky(&mut self, candidate: NodeId) -> bool {
        let least = self.tuning.election.0;
        let keeps = self.keeps_resting_leader(candidate);
        let led = match &self.role {
            Role::Leader(_) => true,
            Role::Follower(follower) => {
                keeps || follower.leader.is_some() && self.now.since(self.contact) < least
            }
            Role::Forming(_) | Role::PreCandidate(_) | Role::Candidate(_) => false,
        };
        // It forgot what it heard; a leader may count on its patience.
        let just_started = self.now.since(self.started) < least
            && !self.membership.is_sole_voter(self.identity.node);
        if led {
            self.marks.set(Mark::BallotRefusedSticky);
        } else if just_started {
            self.marks.set(Mark::BallotRefusedJustStarted);
        }
        (led || just_started) && !cfg!(lakebed_break = "disturb_a_leader")
    }

    fn is_gated(&mut self) -> bool {
        if self.gate.is_some() {
            self.marks.set(Mark::BallotRefusedGated);
        }
        self.gate.is_some() && !cfg!(lakebed_break = "vote_behind_the_gate")
    }

    fn is_up_to_date(&mut self, candidate: NodeId, ballot: Ballot) -> bool {
        let up_to_date =
            ballot.last >= self.log.last() || self.is_lost_for_good(candidate, ballot.last);
        if !up_to_date {
            self.marks.set(Mark::BallotRefusedLog);
            self.is_ahead = true;
        }
        up_to_date
    }

    fn would_vote(&mut self, head: &Head, ballot: Ballot) -> bool {
        let free = head.term > self.term || self.vote.is_none_or(|vote| vote == head.from);
        free && self.is_up_to_date(head.from, ballot)
    }

    fn vote(&mut self, head: &Head, ballot: Ballot) -> bool {
        if head.term > self.term {
            self.become_follower(head.term, None);
        }
        let free = self.vote.is_none_or(|vote| vote == head.from);
        let granted = free && self.is_up_to_date(head.from, ballot);
        if granted && self.vote.is_none() {
            self.vote = Some(head.from);
            self.promise_wanted = true;
            // A ballot that comes late is no word of the leader that is known by now.
            if self.leader().is_none() {
                self.contact = self.now;
            }
        }
        granted
    }

    pub(super) fn on_verdict(&mut self, head: &Head, verdict: Verdict, pre: bool) {
        let asks = matches!(self.role, Role::PreCandidate(_) | Role::Candidate(_));
        if asks && !verdict.granted && head.term > self.term {
            return self.become_follower(head.term, None);
        }
        let life = self.life();
        let canvass = match &mut self.role {
            Role::PreCandidate(canvass) if pre => canvass,
            Role::Candidate(canvass) if !pre && head.term == self.term => canvass,
            _ => return self.marks.set(Mark::LateVerdictDropped),
        };
        if verdict.round != canvass.round || head.answers != life {
            return self.marks.set(Mark::LateVerdictDropped);
        }
        if verdict.granted && !canvass.granted.contains(&head.from) {
            canvass.granted.push(head.from);
        }
    }

    /// Sends ballots once the own vote is on disk, and counts.
    pub(super) fn canvass(&mut self) {
        let own = self.identity.node;
        let (canvass, pre) = match &mut self.role {
            Role::PreCandidate(canvass) => (canvass, true),
            Role::Candidate(canvass) => (canvass, false),
            _ => return,
        };
        if !canvass.asked {
            canvass.asked = true;
            canvass.granted.push(own);
            let (round, is_wished) = (canvass.round, canvass.is_wished);
            self.send_ballots(Ballot { round, last: self.log.last(), is_wished }, pre);
        }
        let (Role::PreCandidate(Canvass { granted, .. })
        | Role::Candidate(Canvass { granted, .. })) = &self.role
        else {
            return;
        };
        match self.membership.is_quorum(|id| granted.contains(&id)) {
            true if pre => self.become_candidate(),
            true => self.become_leader(),
            false => {}
        }
    }

    fn send_ballots(&mut self, ballot: Ballot, pre: bool) {
        let (term, payload) = if pre {
            (self.term.next(), Payload::PreVote(ballot))
        } else {
            (self.term, Payload::Vote(ballot))
        };
        for at in 0..self.peers.len() {
            let to = self.peers[at].0;
            if self.membership.is_voter(to) {
                let head = Head { term, ..self.head_to(to) };
                self.messages.push(Message { head, payload: payload.clone() });
            } else if pre && ballot.round > ASKS_VOTERS_ALONE {
                // Those who voted when it was away may all have left; who learned then may know.
                self.send(to, Payload::Hello { ask: true, origin: self.origin });
            }
        }
    }
}
