//! What a node is in its term, and how it becomes another. Each role owns what only it needs.
//!
//! Knows no messages. Invariant: whatever a role has promised to clients is ended when it is left.

use super::{
    Raft,
    allowance::Allowance,
    change::Changing,
    formation::Forming,
    lease::Lease,
    log::Watermarks,
    progress::{Pace, Peer},
    rest::{Quiet, Rest},
    transfer::Transfer,
};
use crate::{
    action::{Outcome, Refusal},
    config::Tuning,
    entry::{Kind, seal_body},
    marks::Mark,
    membership::Membership,
    message::{Conflict, Life},
    types::{Instant, LogId, LogIndex, NodeId, Term, Timestamp, earliest},
};
use std::time::Duration;

/// See the module; Raft §5.1, with pre-candidates (thesis §9.6).
#[derive(Clone, Debug)]
pub(super) enum Role {
    Forming(Forming),
    Follower(Follower),
    PreCandidate(Canvass),
    Candidate(Canvass),
    Leader(Box<Leader>),
}

/// Follows a leader, or waits for one.
#[derive(Clone, Debug)]
pub(super) struct Follower {
    pub(super) leader: Option<NodeId>,
    /// The log agrees with the leader's of this term up to here.
    pub(super) matched: LogIndex,
    /// What the leader says is committed, and when it said so last: by appends, and not by pieces of a
    /// snapshot, which say nothing of it.
    pub(super) committed: LogIndex,
    pub(super) told: Option<Instant>,
    /// Of `matched`, what was acknowledged as durable.
    pub(super) acknowledged: LogIndex,
    /// The leader's write epoch and the number of its last append: answers echo them.
    pub(super) leader_life: Life,
    pub(super) sequence: u64,
    pub(super) round: u64,
    /// An answer is due though nothing new is durable.
    pub(super) owes: bool,
    /// How it waits for its leader, and whether the last append said that it need not.
    pub(super) rest: Rest,
    pub(super) is_rest_offered: bool,
    pub(super) conflict: Option<Box<Conflict>>,
}

impl Follower {
    /// What is committed agrees with every leader to come (leader completeness, Raft §5.4).
    pub(super) const fn new(leader: Option<NodeId>, marks: &Watermarks) -> Self {
        Self {
            leader,
            matched: marks.committed(),
            committed: marks.committed(),
            told: None,
            acknowledged: LogIndex(0),
            leader_life: Life::NONE,
            sequence: 0,
            round: 0,
            owes: false,
            rest: Rest::Awake,
            is_rest_offered: false,
            conflict: None,
        }
    }
}

/// Asks for votes, or whether it would get them.
#[derive(Clone, Debug, Default)]
pub(super) struct Canvass {
    pub(super) round: u64,
    /// Whether the ballots were sent; they wait for this node's own promise.
    pub(super) asked: bool,
    /// The leader itself wants it to stand.
    pub(super) is_wished: bool,
    pub(super) granted: Vec<NodeId>,
}

/// Leads its term.
#[derive(Clone, Debug)]
pub(super) struct Leader {
    pub(super) peers: Vec<Peer>,
    /// The first entry of its term; nothing is committed by counting before it (Raft §5.4.2).
    pub(super) start: LogIndex,
    pub(super) heartbeat_at: Instant,
    /// All peers are to be sent something now.
    pub(super) heartbeat_due: bool,
    /// When peers that lack nothing but word of a commit are told, unless entries tell them first.
    pub(super) notice_at: Option<Instant>,
    /// A peer's acknowledgement rose, or the own disk's.
    pub(super) count_due: bool,
    /// The smallest index that a peer still needs.
    pub(super) retain: LogIndex,
    /// What was committed at the last heartbeat, and at the one before that.
    pub(super) committed_then: LogIndex,
    pub(super) committed_before: LogIndex,
    /// A membership change that somebody waits for.
    pub(super) changing: Option<Changing>,
    /// When the own disk last moved, or had nothing to do.
    pub(super) disk_moved_at: Instant,
    pub(super) disk_seen: LogIndex,
    /// Since when the own disk has had no room, and how often it was asked for some by now.
    pub(super) full_since: Option<(Instant, u32)>,
    /// Who was to take over last, and did not.
    pub(super) passed_over: Option<NodeId>,
    /// A peer has no use for the snapshots up to here, and needs one.
    pub(super) wanted_beyond: Option<LogIndex>,
    pub(super) allowance: Allowance,
    pub(super) lease: Lease,
    pub(super) quiet: Quiet,
}

impl Leader {
    /// Whether there is nothing to send to anyone.
    pub(super) fn is_idle(&self, round: u64, last: LogIndex, committed: LogIndex) -> bool {
        let is_served = |peer: &Peer| {
            peer.pace != Pace::Probe { asked: false }
                && (peer.next > last || peer.pace != Pace::Replicate)
                && peer.transfer.is_none()
                && !peer.is_due(round, last, committed)
        };
        !self.heartbeat_due && self.peers.iter().all(is_served)
    }

    /// When peers are to hear something though nothing happens.
    pub(super) fn deadline(&self, tuning: &Tuning) -> Option<Instant> {
        let is_sending = self.peers.iter().any(|peer| peer.transfer.is_some());
        let piece = self.allowance.wait(tuning).filter(|_| is_sending);
        let transfers = self.peers.iter().filter_map(|peer| peer.transfer.as_ref());
        let rested = transfers.filter_map(Transfer::rests_until).min();
        let at = earliest([Some(self.heartbeat_at), self.notice_at, piece, rested])?;
        (!self.peers.is_empty() && !self.quiet.is_asleep).then_some(at)
    }

    /// Whether the peers that lack a notice are to have it now; else it waits for entries that
    /// tell it, for `delay` at most.
    pub(super) fn is_notice_due(
        &mut self,
        committed: LogIndex,
        now: Instant,
        delay: Duration,
    ) -> bool {
        if self.peers.iter().all(|peer| !peer.lacks_notice(committed)) {
            self.notice_at = None;
            return false;
        }
        let at = *self.notice_at.get_or_insert_with(|| now.after(delay));
        self.notice_at.take_if(|_| at <= now).is_some()
    }

    /// How many peers are being sent a snapshot; those who wait for their turn are not.
    pub(super) fn transfers(&self) -> u32 {
        self.peers.iter().filter(|peer| peer.is_sent_snapshot()).count() as u32
    }

    /// Who may be sent a snapshot from now on: voters first, and last those whose last one got no further. Where
    /// a voter waits another gives its turn back, and goes on later with what it has. True if one did.
    pub(super) fn give_turns(&mut self, most: u32, is_voter: impl Fn(NodeId) -> bool) -> bool {
        const VOTER: u8 = 0;
        const STUCK: u8 = 2;
        let rank = |peer: &Peer| if peer.is_stuck { STUCK } else { u8::from(!is_voter(peer.id)) };
        let waits = |peer: &Peer| {
            !peer.paused && peer.transfer.is_some_and(|transfer| !transfer.has_begun())
        };
        if !self.peers.iter().any(waits) {
            return false;
        }
        let (mut turns, mut gave) = (most.saturating_sub(self.transfers()), false);
        let voters = self.peers.iter().filter(|peer| waits(peer) && rank(peer) == VOTER).count();
        let later = self.peers.iter_mut().filter(|peer| rank(peer) != VOTER);
        for other in later.filter(|peer| peer.is_sent_snapshot()) {
            if voters as u32 <= turns {
                break;
            }
            other.begin_transfer();
            turns += 1;
            gave = true;
        }
        for next in VOTER..=STUCK {
            let peers = self.peers.iter_mut().filter(|peer| waits(peer) && rank(peer) == next);
            for transfer in peers.filter_map(|peer| peer.transfer.as_mut()) {
                transfer.begins(&mut turns);
            }
        }
        gave
    }

    /// What whoever keeps up holds: it was committed a heartbeat ago. A new leader may know of little that
    /// is committed: all of that lies before its own first entry.
    pub(super) fn lately_committed(&self) -> LogIndex {
        self.committed_before.max(self.start)
    }

    pub(super) fn peer(&mut self, id: NodeId) -> Option<&mut Peer> {
        self.peers.iter_mut().find(|peer| peer.id == id)
    }
}

impl Raft {
    /// The leader of the present term, if one is known.
    pub(crate) const fn leader(&self) -> Option<NodeId> {
        match &self.role {
            Role::Leader(_) => Some(self.identity.node),
            Role::Follower(follower) => follower.leader,
            Role::Forming(_) | Role::PreCandidate(_) | Role::Candidate(_) => None,
        }
    }

    /// Goes on as a follower, in this term or a greater one.
    pub(super) fn become_follower(&mut self, term: Term, leader: Option<NodeId>) {
        self.leave();
        if term > self.term {
            self.term = term;
            self.vote = None;
            self.promise_wanted = true;
            self.owed.clear();
        }
        self.role = Role::Follower(Follower::new(leader, &self.log.marks));
        self.await_leader();
    }

    /// Leads no more, of its own accord. What a leader waits for without an end may be overdue at once, and
    /// time has gone on already in this turn.
    pub(super) fn step_down(&mut self) {
        self.become_follower(self.term, None);
        self.give_up_forwarded();
    }

    /// Asks around before it stands for election; a sole voter need not.
    pub(super) fn become_pre_candidate(&mut self) {
        if matches!(self.role, Role::PreCandidate(_) | Role::Candidate(_)) {
            self.marks.set(Mark::CanvassRepeated);
        }
        self.leave();
        let need_not_ask = self.membership.is_sole_voter(self.identity.node);
        if need_not_ask || cfg!(lakebed_break = "stand_without_asking") {
            return self.become_candidate();
        }
        self.role = Role::PreCandidate(self.new_canvass());
        self.await_leader();
    }

    pub(super) fn become_candidate(&mut self) {
        // A follower that its leader makes stand: what it asked that leader is no question of its own.
        self.leave();
        self.term = self.term.next();
        self.vote = Some(self.identity.node);
        self.promise_wanted = true;
        self.owed.clear();
        self.role = Role::Candidate(self.new_canvass());
        self.await_leader();
    }

    const fn new_canvass(&mut self) -> Canvass {
        self.rounds += 1;
        Canvass { round: self.rounds, asked: false, is_wished: false, granted: Vec::new() }
    }

    /// A quorum voted for it. Its first entry makes what older terms left behind committable.
    pub(super) fn become_leader(&mut self) {
        let start = self.log.marks.last().next();
        self.pace.set(self.log.last_time(), self.now);
        let new_peer = |&(id, incarnation)| Peer::new(id, incarnation, start, self.now);
        self.role = Role::Leader(Box::new(Leader {
            peers: self.peers.iter().map(new_peer).collect(),
            start,
            heartbeat_at: self.now.after(self.tuning.heartbeat),
            heartbeat_due: false,
            notice_at: None,
            count_due: true,
            retain: LogIndex(0),
            committed_then: self.log.marks.committed(),
            committed_before: self.log.marks.committed(),
            changing: None,
            disk_moved_at: self.now,
            disk_seen: self.log.marks.durable(),
            full_since: None,
            passed_over: None,
            wanted_beyond: None,
            allowance: Allowance::new(self.now),
            lease: Lease::default(),
            quiet: Quiet::new(self.now),
        }));
        if self.is_membership_missing() {
            // Whoever joins learns by the log who is a member, and who of before is none.
            return self.append_members(Membership::clone(&self.membership));
        }
        let (id, last) = (LogId::new(self.term, start), self.log.last());
        let time = self.date(Timestamp(0));
        self.append_own(seal_body(Kind::Empty, &[], self.seed, id, last.term, time));
    }

    /// Ends what only this role could bring to its end. What is committed here still gets its
    /// answer when it is applied.
    pub(super) fn leave(&mut self) {
        self.stray();
        if let Some((_, runs, _)) = self.gathering.take() {
            self.end_runs(&runs, &Outcome::Refused(Refusal::NotLeader { hint: None }));
        }
        self.abandon_change(&Refusal::NotLeader { hint: None });
        self.lose_forwards();
        while let Some(lost) = self.tracking.pop_above(self.log.marks.committed()) {
            self.marks.set(Mark::ProposalUnknown);
            self.end_runs(&lost.runs, &Outcome::Unknown);
        }
        self.refuse_reads(&Refusal::NotLeader { hint: None });
        self.reads.forget_link();
    }
}
