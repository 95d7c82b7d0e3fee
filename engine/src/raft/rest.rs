//! Hibernation: a group in which nothing happens says nothing, and needs no clock.
//!
//! A leader that has been quiet for [`Tuning::hibernate_after`](crate::Tuning) offers its peers to
//! rest: by a heartbeat, to which they must lack nothing. When all who can be reached have said that
//! they do, it rests as well. From then on nobody has a deadline. Whether the leader's node lives is
//! the affair of whoever carries the messages of all groups: he says so by links
//! ([`Host`](crate::Host)). Knows no other groups.
//!
//! Invariant: safety rests on nothing here. A node at rest believes what any node believes that is
//! slow: terms, votes, quorums and leases are judged as ever, by the time that has passed.

use super::{
    Raft,
    progress::{Pace, Peer},
    role::{Follower, Leader, Role},
};
use crate::{
    marks::Mark,
    types::{Instant, LogIndex, NodeId},
};
use std::time::Duration;

/// How a follower waits for its leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Rest {
    /// As ever: it hears heartbeats.
    #[default]
    Awake,
    /// It hears nothing and expects nothing.
    Asleep,
    /// Something happened then, and the leader was asked whether it still leads.
    Roused(Instant),
    /// The leader's node cannot be reached.
    Bereft {
        /// It stands for election then.
        due: Instant,
        /// When the leader was asked, if that was not answered yet: one whose node comes and goes is not
        /// waited for anew each time.
        asked: Option<Instant>,
    },
}

/// What a leader knows of its group's rest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quiet {
    /// Since when nobody has asked for anything.
    since: Instant,
    /// The heartbeat under way offers rest.
    pub(super) is_offered: bool,
    pub(super) is_asleep: bool,
    /// When it rested last: what peers said before tells nothing of now.
    woken: Option<Instant>,
}

impl Quiet {
    pub(super) const fn new(now: Instant) -> Self {
        Self { since: now, is_offered: false, is_asleep: false, woken: None }
    }

    /// Whether what was heard of a peer last was heard after the last rest.
    pub(super) fn is_news(&self, heard: Instant) -> bool {
        self.woken.is_none_or(|woken| heard > woken)
    }
}

impl Leader {
    /// Silence of peers and disk counts from now on, and what was heard before is no news.
    fn reckon_from(&mut self, now: Instant, durable: LogIndex) {
        self.quiet.woken = Some(now);
        self.peers.iter_mut().for_each(|peer| peer.heard = now);
        (self.disk_moved_at, self.disk_seen) = (now, durable);
    }

    /// After a rest, which members of it are there is not known before they say so: when whoever has not will
    /// count as silent. `None`: all have, or that is past.
    pub(super) fn musters_until(&self, now: Instant, silence: Duration) -> Option<Instant> {
        let until = self.quiet.woken?.after(silence + Duration::from_nanos(1));
        let is_known = |peer: &Peer| peer.paused || self.quiet.is_news(peer.heard);
        (now < until && !self.peers.iter().all(is_known)).then_some(until)
    }
}

impl Raft {
    /// Something happened that others may have to hear of.
    pub(super) fn stir(&mut self) {
        let now = self.now;
        if let Role::Leader(leader) = &mut self.role {
            leader.quiet.since = now;
            leader.quiet.is_offered = false;
        }
        self.wake();
    }

    /// Ends the rest, if there is one. The group's others hear of it by what follows: of a leader by
    /// its heartbeat, of a follower by its answer to an append that it had answered before.
    pub(super) fn wake(&mut self) {
        let (now, durable) = (self.now, self.log.marks.durable());
        match &mut self.role {
            Role::Leader(leader) if leader.quiet.is_asleep => {
                leader.quiet.is_asleep = false;
                leader.heartbeat_at = now;
                // Nobody was to answer meanwhile, and the disk had nothing to do.
                leader.reckon_from(now, durable);
            }
            Role::Follower(follower) if follower.rest == Rest::Asleep => {
                follower.rest = Rest::Roused(now);
                follower.owes = true;
            }
            _ => return,
        }
        self.marks.set(Mark::HibernationEnded);
    }

    /// Other times are in force. Who waits drew by the former ones: a lease, which lasts by these, must not
    /// outlast that. And a leader was not to be answered as often as it will be.
    pub(super) fn reckon_anew(&mut self) {
        let (now, durable) = (self.now, self.log.marks.durable());
        let heartbeat_at = now.after(self.tuning.heartbeat);
        match &mut self.role {
            Role::Leader(leader) => {
                leader.lease.begin_anew();
                leader.heartbeat_at = leader.heartbeat_at.min(heartbeat_at);
                leader.reckon_from(now, durable);
            }
            Role::Forming(_) => {}
            _ => {
                self.await_leader();
                let waits_until = now.after(self.patience);
                if let Role::Follower(Follower { rest: Rest::Bereft { due, .. }, .. }) =
                    &mut self.role
                {
                    *due = waits_until;
                }
            }
        }
    }

    /// The way to a node changed. Whoever rests under it looks for itself.
    pub(super) fn on_rest_link(&mut self, peer: NodeId, up: bool) {
        let now = self.now;
        match &mut self.role {
            Role::Leader(_) => self.wake(),
            Role::Follower(follower) if follower.leader == Some(peer) => {
                // What it offered before that news is not taken up after it.
                follower.is_rest_offered = false;
                match (follower.rest, up) {
                    (Rest::Awake, _) => return,
                    // It is asked again, and the wait goes on: news may follow news for ever.
                    (Rest::Roused(_), true) => follower.owes = true,
                    (Rest::Asleep | Rest::Bereft { asked: None, .. }, true) => {
                        follower.rest = Rest::Roused(now);
                        follower.owes = true;
                        self.draw_patience();
                    }
                    (Rest::Bereft { asked: Some(at), .. }, true) => {
                        follower.rest = Rest::Roused(at);
                        follower.owes = true;
                    }
                    (Rest::Asleep | Rest::Roused(_) | Rest::Bereft { .. }, false) => {
                        if !cfg!(lakebed_break = "sleep_through_a_dead_leader") {
                            self.lose_leader();
                        }
                    }
                }
                self.marks.set(Mark::HibernationEndedByLink);
            }
            _ => {}
        }
    }

    /// The node of a leader under which this one rests is gone. It stands after what chance adds to
    /// the least timeout, and not before that timeout itself: so long the leader may hold a lease.
    fn lose_leader(&mut self) {
        let waits_until = self.election_at();
        self.draw_patience();
        let least = self.tuning.election.0;
        let due =
            self.now.max(self.contact.after(least)).after(self.patience.saturating_sub(least));
        if let Role::Follower(follower) = &mut self.role {
            let asked = match follower.rest {
                Rest::Awake | Rest::Asleep => None,
                Rest::Roused(at) => Some(at),
                Rest::Bereft { asked, .. } => asked,
            };
            let due = waits_until.map_or(due, |until| due.min(until));
            follower.rest = Rest::Bereft { due, asked };
        }
    }

    /// When the wait for word of a leader is over; `None`: there is none.
    pub(super) fn election_at(&self) -> Option<Instant> {
        let rest = match &self.role {
            Role::Follower(follower) => follower.rest,
            _ => Rest::Awake,
        };
        match rest {
            Rest::Awake => Some(self.contact.after(self.patience)),
            Rest::Asleep => None,
            Rest::Roused(at) => Some(at.after(self.patience)),
            Rest::Bereft { due, .. } => Some(due),
        }
    }

    /// Whether a follower keeps to a leader that it has not heard of for long, since it need not
    /// hear of it. Not against that leader itself: it would not ask for votes if it led.
    pub(super) fn keeps_resting_leader(&self, candidate: NodeId) -> bool {
        let Role::Follower(follower) = &self.role else { return false };
        let keeps = match follower.rest {
            Rest::Asleep => true,
            Rest::Roused(at) => self.now.since(at) < self.tuning.election.0,
            Rest::Awake | Rest::Bereft { .. } => false,
        };
        keeps && follower.leader != Some(candidate)
    }

    /// Whether what was last heard from others is old because the group rested.
    pub(super) fn has_rested(&self) -> bool {
        match &self.role {
            Role::Leader(leader) => {
                let recent = |at| self.now.since(at) <= self.tuning.election.1;
                leader.quiet.is_asleep || leader.quiet.woken.is_some_and(recent)
            }
            Role::Follower(follower) => follower.rest != Rest::Awake,
            _ => false,
        }
    }

    /// When a leader that has nobody to beat for looks whether it may rest; `None`: it does, or never will.
    pub(super) fn rests_alone_at(&self) -> Option<Instant> {
        let Role::Leader(leader) = &self.role else { return None };
        let after = self.tuning.hibernate_after;
        let is_due = !after.is_zero() && leader.peers.is_empty() && !leader.quiet.is_asleep;
        is_due.then(|| leader.quiet.since.after(after).max(leader.heartbeat_at))
    }

    // ---- going to rest -----------------------------------------------------------------------

    /// At a heartbeat: whether it offers rest.
    pub(super) fn offer_rest(&mut self) {
        let after = self.tuning.hibernate_after;
        let is_offered = !after.is_zero()
            && matches!(&self.role, Role::Leader(leader) if self.now.since(leader.quiet.since) >= after)
            && self.lacks_nothing();
        if let Role::Leader(leader) = &mut self.role {
            leader.quiet.is_offered = is_offered;
        }
    }

    /// Everybody who can be reached rests -> so does the leader.
    pub(crate) fn rest(&mut self) {
        if self.is_plain {
            return;
        }
        let Role::Leader(leader) = &self.role else { return };
        if !leader.quiet.is_offered || leader.quiet.is_asleep || !self.lacks_nothing() {
            return;
        }
        let is_agreed = leader.peers.iter().all(|peer| peer.rests || self.is_out_of_reach(peer));
        let quorum = self.membership.is_quorum(|id| {
            id == self.identity.node
                || leader.peers.iter().any(|peer| peer.id == id && peer.rests && !peer.paused)
        });
        if is_agreed && quorum {
            self.marks.set(Mark::Hibernated);
            if let Role::Leader(leader) = &mut self.role {
                leader.quiet.is_asleep = true;
            }
        }
    }

    /// Whether a follower that answers an append may say that it rests, and then does.
    pub(super) fn take_rest(&mut self) -> bool {
        let Role::Follower(Follower {
            leader, matched, committed, conflict, is_rest_offered, ..
        }) = &self.role
        else {
            return false;
        };
        if !is_rest_offered {
            return false;
        }
        let last = self.log.marks.last();
        // Of one who is gone nobody would say so once more.
        let is_there = leader.is_some_and(|leader| !self.unlinked.contains(&leader));
        let rests = is_there
            && *matched == last
            && *committed == last
            && conflict.is_none()
            && self.receiver.taking.is_none()
            && self.lacks_nothing();
        if let Role::Follower(follower) = &mut self.role {
            // What was offered is taken up once: what comes next is another matter.
            follower.is_rest_offered = false;
            if rests {
                follower.rest = Rest::Asleep;
                self.stray();
                self.marks.set(Mark::Hibernated);
                return true;
            }
        }
        false
    }

    /// Whether nothing is under way here, and nobody waits for anything.
    fn lacks_nothing(&self) -> bool {
        let marks = &self.log.marks;
        let last = marks.last();
        let is_level = [marks.committed(), marks.durable(), marks.applied()] == [last; 3];
        let is_whole = self.gate.is_none()
            && self.is_content()
            && !self.facts.owes_entries
            && !self.facts.is_state_lost
            && self.facts.promised == (self.term, self.vote);
        let waits = !self.gathering.is_empty()
            || self.tracking.is_due(LogIndex(u64::MAX))
            || self.forwards.oldest().is_some()
            || !self.reads.is_empty()
            || !self.owed.is_empty()
            || self.handover.is_some()
            || self.change_deadline().is_some();
        let peers = match &self.role {
            Role::Leader(leader) => leader.peers.as_slice(),
            _ => &[],
        };
        // Whether it knows of all that it forwarded it knows best: it would not rest.
        let has_all = |peer: &Peer| {
            self.is_out_of_reach(peer)
                || peer.pace == Pace::Replicate
                    && peer.matched == last
                    && peer.commit_sent == last
                    && peer.transfer.is_none()
                    && !peer.intake.is_due(last)
        };
        is_level && is_whole && !waits && peers.iter().all(has_all)
    }

    /// Whether nobody rests the worse for leaving it out: when it can be reached, its link says so. That
    /// of one who was gone already when this node began to lead, or to live, was said to be down to
    /// nobody who would have kept it.
    fn is_out_of_reach(&self, peer: &Peer) -> bool {
        peer.paused || !peer.has_answered && !self.linked.contains(&peer.id)
    }

    /// Whether it rests.
    pub(crate) const fn is_asleep(&self) -> bool {
        match &self.role {
            Role::Leader(leader) => leader.quiet.is_asleep,
            Role::Follower(follower) => matches!(follower.rest, Rest::Asleep),
            _ => false,
        }
    }

    /// The least that a group must have been quiet for, which may change while it rests.
    pub(super) fn on_tune_rest(&mut self, before: Duration) {
        if self.tuning.hibernate_after != before {
            self.stir();
        }
    }
}
