//! Entries that this node's disk has lost though it knows which they were: whoever holds the same
//! gives them again, leader or not.
//!
//! A node that lacks an entry votes by its whole log, because it knows what that was, and does not
//! campaign, because it could not hand it on. Were the leader alone asked, two nodes of which the
//! damaged one is ahead would never elect one (storage.md, counterexamples). If one who is behind has
//! it as state alone, the damaged one stands all the same: it brings the other up to its own log, which
//! needs nothing of what is lost, and hands over to it. Peers are asked in turn, one at each heartbeat,
//! and again at once by what they gave. What a snapshot here holds as well, and no log that can be reached
//! has any more, is done without: nobody asks for it until another peer can be reached. Knows no files:
//! what was given is compared with what is missing by the storage. Invariant: equal term at equal index
//! means the same entry, so any copy will do.

use super::{Raft, log::Chunk, replication::ReadWish, role::Role};
use crate::{
    entry,
    marks::Mark,
    message::{Head, Payload, Refill as Given},
    storage::Reader,
    types::{Instant, LogId, LogIndex, NodeId},
};
use bytes::Bytes;

/// Whom to ask for what is missing, and when.
#[derive(Clone, Debug, Default)]
pub(super) struct Refill {
    /// What was asked for last.
    asked: Option<LogId>,
    /// When to ask again.
    ask_at: Instant,
    /// Counts through the peers.
    turn: usize,
    /// What is not in some peer's log any more: that peer holds it as state.
    gone: Option<LogId>,
    /// In whose logs what was asked for last is no more.
    without: Vec<NodeId>,
    /// What is not in the leader's log any more: a snapshot must take its place.
    in_vain: Option<LogId>,
    /// What a peer lacks as well.
    asked_by_others: Option<LogId>,
    /// A peer has no use for the snapshots up to here, and needs one.
    pub(super) wanted_beyond: Option<LogIndex>,
}

impl Raft {
    /// What is missing -> a question to the next peer.
    pub(crate) fn refill(&mut self) {
        if self.is_plain {
            return;
        }
        let Some(at) = self.facts.hole.filter(|_| !self.is_forsaken()) else { return };
        let is_news = self.refill.asked != Some(at);
        let holders = self.holders().len();
        if holders == 0 || !(is_news || self.now >= self.refill.ask_at) {
            return;
        }
        if is_news {
            self.refill.without.clear();
        } else {
            self.refill.turn += 1;
        }
        self.refill.asked = Some(at);
        self.refill.ask_at = self.now.after(self.tuning.heartbeat);
        let (to, _) = self.holders()[self.refill.turn % holders];
        self.send(to, Payload::RefillAsk { at });
        self.leave_to_another();
    }

    /// Only another leader can send the state that this one's machine lacks. Until one has all of the
    /// log there is none to whom it could be left.
    fn leave_to_another(&mut self) {
        if self.lacks_entries() && self.is_gone() && matches!(self.role, Role::Leader(_)) {
            self.marks.set(Mark::RefillInVain);
            // If nobody is there it is asked again.
            let _ = self.begin_handover(None);
        }
    }

    /// Whether entries are lost that it would have to hand on, or to apply.
    pub(super) fn lacks_entries(&self) -> bool {
        self.facts.owes_entries || self.is_held_up()
    }

    /// Whether what is lost is an entry no more where a peer has it.
    pub(super) fn is_gone(&self) -> bool {
        self.facts.hole.is_some() && self.facts.hole == self.refill.gone
    }

    /// Whether nothing that this node lacks is of use to anybody who can be reached.
    pub(super) fn is_content(&self) -> bool {
        self.facts.hole.is_none() || self.is_forsaken()
    }

    /// Whether what is lost is in a snapshot here, and in no log that can be reached.
    fn is_forsaken(&self) -> bool {
        let Refill { asked, without, .. } = &self.refill;
        let is_without = |id: &NodeId| without.contains(id);
        let is_out_of_reach = |id: &NodeId| !self.linked.contains(id);
        self.facts.hole.is_some_and(|hole| hole.index <= self.facts.newest)
            && *asked == self.facts.hole
            && !without.is_empty()
            && self.holders().iter().all(|(id, _)| is_without(id) || is_out_of_reach(id))
    }

    /// Who may have what is missing. One who joins may not know the members yet.
    fn holders(&self) -> &[(NodeId, u64)] {
        if self.peers.is_empty() { self.met() } else { &self.peers }
    }

    /// When somebody else is to be asked.
    pub(super) fn refill_at(&self) -> Option<Instant> {
        let is_wanted = !self.is_content() && !self.holders().is_empty();
        is_wanted.then_some(self.refill.ask_at)
    }

    /// A peer lacks an entry. It is given as many as one append has, from there on.
    pub(super) fn on_refill_ask(&mut self, head: &Head, at: LogId) {
        let is_gone = at.index < self.log.first();
        if is_gone || self.log.id_at(at.index) != Some(at) {
            let nothing = Given { is_gone, frames: Bytes::new() };
            return self.send(head.from, Payload::Refill(nothing));
        }
        let (last, bytes_max) = (self.log.marks.last(), self.tuning.append_bytes_max);
        if let Some(chunk) = self.log.slice(at.index, last, bytes_max as usize) {
            return self.give(head.from, chunk);
        }
        if self.facts.hole == Some(at) {
            self.refill.asked_by_others = Some(at);
        }
        let (reader, to) = (Reader::Refill(head.from), self.log.marks.durable());
        if at.index <= to {
            self.wishes.push(ReadWish { reader, from: at.index, to, bytes_max });
        }
    }

    /// It is bad here as well, and a snapshot holds it: nobody will mend it.
    pub(super) fn give_nothing(&mut self, to: NodeId) {
        self.send(to, Payload::Refill(Given { is_gone: true, frames: Bytes::new() }));
    }

    /// Entries for a peer that lacks the first of them.
    pub(super) fn give(&mut self, to: NodeId, chunk: Chunk) {
        self.marks.set(Mark::RefillGiven);
        let Chunk { frames, .. } = chunk;
        self.send(to, Payload::Refill(Given { is_gone: false, frames }));
    }

    /// Whether the machine waits for an entry that is lost.
    pub(super) fn is_held_up(&self) -> bool {
        self.facts.hole.is_some_and(|hole| hole.index > self.log.marks.applying())
    }

    /// Whether the state cannot be had from this node's disk: a leader must send a snapshot.
    pub(super) fn lacks_state(&self) -> bool {
        self.facts.is_state_lost || self.is_wanting(self.refill.in_vain) && self.lacks_entries()
    }

    /// Whether a snapshot of its own must stand for what is lost, which its machine holds and nobody gives;
    /// or must come to be for a peer.
    pub(crate) fn wants_own_snapshot(&self) -> bool {
        let leads = matches!(self.role, Role::Leader(_));
        let Refill { in_vain, gone, asked_by_others, wanted_beyond, .. } = &self.refill;
        let is_past = self.is_wanting(*in_vain)
            || self.is_wanting(*asked_by_others)
            || leads && self.is_wanting(*gone);
        is_past && !self.lacks_entries()
            || leads && wanted_beyond.is_some_and(|at| self.facts.newest <= at)
    }

    /// Whether this is what is lost, and no snapshot stands for it yet.
    fn is_wanting(&self, at: Option<LogId>) -> bool {
        self.facts.hole == at && at.is_some_and(|at| at.index > self.facts.newest)
    }

    /// Entries from a peer: the storage takes those that are missing.
    pub(super) fn on_refill(&mut self, head: &Head, given: &Given) {
        let Some(hole) = self.facts.hole else { return };
        if given.is_gone && self.refill.asked == Some(hole) {
            self.refill.gone = Some(hole);
            if !self.refill.without.contains(&head.from) {
                self.refill.without.push(head.from);
            }
            if self.leader() == Some(head.from) {
                if self.refill.in_vain != Some(hole) {
                    self.marks.set(Mark::RefillInVain);
                }
                self.refill.in_vain = Some(hole);
            }
            self.leave_to_another();
        }
        let (mut at, mut heads) = (0, Vec::new());
        while at < given.frames.len() {
            match entry::Head::parse_whole(&given.frames[at..], self.seed) {
                Ok(entry) => {
                    heads.push((entry, at));
                    at += entry.total_bytes as usize;
                }
                Err(why) => return self.fault(head.from, why.as_str()),
            }
        }
        for (entry, at) in heads {
            if self.log.id_at(entry.id.index) == Some(entry.id) {
                self.log.let_time_pass(entry.time);
                self.log.refill(entry, given.frames.slice(at..at + entry.total_bytes as usize));
            }
        }
    }
}
