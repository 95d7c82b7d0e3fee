//! Entries that this node's disk has lost though it knows which they were: whoever holds the same
//! gives them again, leader or not.
//!
//! A node that lacks an entry votes by its whole log, because it knows what that was, and does not campaign,
//! because it could not hand it on. Were the leader alone asked, two nodes of which the damaged one is ahead
//! would never elect one (storage.md, counterexamples). If one who is behind has it as state alone, the
//! damaged one stands all the same: it brings the other up to its own log, which needs nothing of what is
//! lost, and hands over to it. A leader that finds such an entry lost, and gets it from nobody, can hand on
//! nothing behind it and commit nothing: it makes room for another. So it does if that is committed and its
//! machine waits for it; if its machine holds it, and a peer that is there does not, a snapshot takes its
//! place. One of two voters that has lost what the other never had, and so nobody was told of, votes for that one:
//! the entry goes. Peers are asked in turn, one at each heartbeat, or later if answers take longer, and again at once
//! by what they gave. What a snapshot here holds as well, and no log that can be reached has any more, is
//! done without: nobody asks for it until another peer can be reached. Knows no files: what was given is
//! compared with what is missing by the storage. Invariant: equal term at equal index means the same entry,
//! so any copy will do.

use super::{Raft, log::Chunk, replication::ReadWish, role::Role};
use crate::{
    entry,
    marks::Mark,
    membership::{Member, Membership},
    message::{Head, Payload, Refill as Given},
    storage::Reader,
    types::{Instant, LogId, LogIndex, NodeId, Timestamp},
};
use bytes::Bytes;
use std::time::Duration;

/// A leader that has asked everybody so often has lost an entry that nobody gives.
const VAIN_ROUNDS: usize = 2;

/// The search for the first entry that is missing. What it brought is worth nothing to the next one.
#[derive(Clone, Debug)]
pub(super) struct Refill {
    hole: LogId,
    /// When to ask again, once somebody was asked.
    ask_at: Option<Instant>,
    /// Counts through the peers. The search for the next begins with whom this one ended.
    turn: usize,
    /// How many questions went out, and when the first did.
    asked: usize,
    since: Option<Instant>,
    /// So long nobody else is asked, at least a heartbeat: twice what the last answer took. Each question
    /// brings as much as an append may hold, and on a slow link the answers would queue up.
    patience: Duration,
    /// In whose logs it is no more: they hold it as state.
    without: Vec<NodeId>,
    /// Whether a peer lacks it as well.
    is_wanted_by_others: bool,
}

impl Refill {
    const fn new(hole: LogId, turn: usize, patience: Duration) -> Self {
        let without = Vec::new();
        let (ask_at, since) = (None, None);
        Self { hole, ask_at, turn, asked: 0, since, patience, without, is_wanted_by_others: false }
    }
}

impl Raft {
    /// What is missing first may be another entry now.
    pub(super) fn observe_hole(&mut self, hole: Option<LogId>) {
        let search = self.refill.as_ref();
        if search.map(|search| search.hole) != hole {
            let before = search.map(|search| (search.turn, search.patience));
            let (turn, patience) = before.unwrap_or_default();
            self.refill = hole.map(|hole| Refill::new(hole, turn, patience));
        }
    }

    /// What is missing -> a question to the next peer.
    pub(crate) fn refill(&mut self) {
        if self.is_plain || self.facts.is_crowded || self.is_content() {
            return;
        }
        let holders = self.holders().count();
        let Some(search) = self.refill.as_mut().filter(|_| holders > 0) else { return };
        match search.ask_at {
            Some(ask_at) if self.now < ask_at => return,
            Some(_) => search.turn += 1,
            None => {}
        }
        search.ask_at = Some(self.now.after(self.tuning.heartbeat.max(search.patience)));
        search.asked += 1;
        search.since.get_or_insert(self.now);
        let (at, turn) = (search.hole, search.turn);
        // Whom it asks now may still answer; whom it asked twice does not have it.
        let is_lost = search.asked > VAIN_ROUNDS * holders;
        let is_uncommitted = at.index > self.log.marks.committed();
        let to = self.holders().nth(turn % holders).expect("so many there are");
        self.send(to, Payload::RefillAsk { at });
        self.leave_to_another();
        let is_awaited = self.is_held_up() && self.lacks_snapshot();
        let is_stuck = is_lost && is_uncommitted || is_awaited && self.is_given_by_nobody();
        // Who has it as state tells that it is committed, whether this leader knows that or not: it leads on until
        // it can be left to another, who then sends that.
        let is_gone = self.is_gone() && !cfg!(lakebed_break = "step_down_though_it_is_committed");
        if is_stuck && !is_gone && matches!(self.role, Role::Leader(_)) {
            self.marks.set(Mark::RefillInVain);
            self.step_down();
        }
    }

    /// Whether everybody was asked so often, and for so long, that nobody who is there has what is lost.
    fn is_given_by_nobody(&self) -> bool {
        let (holders, most) = (self.holders().count(), self.tuning.election.1);
        self.refill.as_ref().is_some_and(|search| {
            let is_late = search.since.is_some_and(|since| self.now.since(since) > most);
            is_late && search.asked > VAIN_ROUNDS * holders
        })
    }

    /// Whether what is lost, which nobody has given though all were asked twice, may go if the `other` stands without
    /// it, whose log ends with `last`. One of two voters has acknowledged whatever was committed, and with that every
    /// change of them, so it lacks nothing of it. Nobody could be elected else, as the one that has more of the log
    /// has nothing to give. While they change old voters and new ones count, but the new ones only for one who has the
    /// entry that made them so: what lies before that may be committed without it.
    pub(super) fn is_lost_for_good(&mut self, other: NodeId, last: LogId) -> bool {
        let Membership { at, voters, outgoing, .. } = &*self.membership;
        let is_needed =
            |voters: &[Member]| voters.len() <= 2 && voters.iter().any(|voter| voter.id == other);
        let is_begun = outgoing.is_empty() || last >= *at;
        let is_lost = self.facts.hole.is_some_and(|hole| hole.index > self.log.marks.committed())
            && (is_needed(outgoing) || is_begun && is_needed(voters))
            && self.is_given_by_nobody();
        if is_lost {
            self.marks.set(Mark::RefillInVain);
        }
        is_lost
    }

    /// Whether a peer that is there lacks what this leader's machine holds, and its disk has lost.
    fn is_needed_by_peer(&self) -> bool {
        let (Role::Leader(leader), Some(hole)) = (&self.role, self.facts.hole) else {
            return false;
        };
        leader.peers.iter().any(|peer| {
            let is_there = peer.has_answered && !peer.paused;
            is_there && peer.matched < hole.index && peer.transfer.is_none()
        })
    }

    /// Only another leader can send the state that this one's machine lacks. Until one has all of the
    /// log there is none to whom it could be left.
    fn leave_to_another(&mut self) {
        if self.lacks_entries() && self.is_gone() && self.able().next().is_some() {
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
        self.refill.as_ref().is_some_and(|search| !search.without.is_empty())
    }

    /// Whether it is no more in the leader's log: a snapshot must take its place.
    fn is_in_vain(&self) -> bool {
        let leader = self.leader();
        let is_without = |search: &Refill| leader.is_some_and(|id| search.without.contains(&id));
        self.refill.as_ref().is_some_and(is_without)
    }

    /// Whether nothing that this node lacks is of use to anybody who can be reached.
    pub(super) fn is_content(&self) -> bool {
        self.refill.as_ref().is_none_or(|search| self.is_forsaken(search))
    }

    /// Whether what is lost is in a snapshot here, and in no log that can be reached.
    fn is_forsaken(&self, search: &Refill) -> bool {
        let is_without = |id: &NodeId| search.without.contains(id);
        let is_out_of_reach = |id: &NodeId| !self.linked.contains(id);
        search.hole.index <= self.facts.newest
            && !search.without.is_empty()
            && self.holders().all(|id| is_without(&id) || is_out_of_reach(&id))
    }

    /// Who may have what is missing. One who joins may not know the members yet; whoever was away for long does not
    /// know them any more, but for who leads.
    fn holders(&self) -> impl Iterator<Item = NodeId> {
        let known = if self.peers.is_empty() { self.met() } else { &self.peers };
        let leader = self.leader().filter(|id| *id != self.identity.node);
        let is_known = |id: &NodeId| known.iter().any(|(known, _)| known == id);
        known.iter().map(|(id, _)| *id).chain(leader.filter(|id| !is_known(id)))
    }

    /// When somebody else is to be asked.
    pub(super) fn refill_at(&self) -> Option<Instant> {
        let is_taken = !self.is_content() && !self.facts.is_crowded;
        let is_wanted = is_taken && self.holders().next().is_some();
        let search = self.refill.as_ref().filter(|_| is_wanted)?;
        Some(search.ask_at.unwrap_or(self.now))
    }

    /// A peer lacks an entry. It is given as many as one append has, from there on.
    pub(super) fn on_refill_ask(&mut self, head: &Head, at: LogId) {
        let is_gone = at.index < self.log.first();
        if is_gone || self.log.id_at(at.index) != Some(at) {
            let gone = if is_gone { at } else { LogId::ZERO };
            return self.say_gone(head.from, gone);
        }
        let (last, bytes_max) = (self.log.marks.last(), self.tuning.append_bytes_max);
        if let Some(chunk) = self.log.slice(at.index, last, bytes_max as usize) {
            return self.give(head.from, chunk);
        }
        if let Some(search) = self.refill.as_mut().filter(|search| search.hole == at) {
            search.is_wanted_by_others = true;
        }
        let (reader, to) = (Reader::Refill(head.from), self.log.marks.durable());
        if at.index <= to {
            self.wishes.push(ReadWish { reader, from: at.index, to, bytes_max });
        }
    }

    /// Zero: it is not, and not here.
    fn say_gone(&mut self, to: NodeId, gone: LogId) {
        let time = self.log.last_time();
        self.send(to, Payload::Refill(Given { gone, time, frames: Bytes::new() }));
    }

    /// It is bad here as well, and a snapshot holds it: nobody will mend it.
    pub(super) fn give_nothing(&mut self, to: NodeId, at: LogIndex) {
        if let Some(gone) = self.log.id_at(at) {
            self.say_gone(to, gone);
        }
    }

    /// Entries for a peer that lacks the first of them.
    pub(super) fn give(&mut self, to: NodeId, chunk: Chunk) {
        self.marks.set(Mark::RefillGiven);
        let Chunk { frames, .. } = chunk;
        let (gone, time) = (LogId::ZERO, Timestamp(0));
        self.send(to, Payload::Refill(Given { gone, time, frames }));
    }

    /// Whether the machine waits for an entry that is lost.
    pub(super) fn is_held_up(&self) -> bool {
        self.facts.hole.is_some_and(|hole| hole.index > self.log.marks.applying())
    }

    /// Whether the state cannot be had from this node's disk: a leader must send a snapshot.
    pub(super) fn lacks_state(&self) -> bool {
        self.facts.is_state_lost
            || self.is_in_vain() && self.lacks_snapshot() && self.lacks_entries()
    }

    /// Whether a snapshot of its own must stand for what is lost, which its machine holds and nobody gives;
    /// or must come to be for a peer.
    pub(crate) fn wants_own_snapshot(&self) -> bool {
        let (leads, wanted_beyond) = match &self.role {
            Role::Leader(leader) => (true, leader.wanted_beyond),
            _ => (false, None),
        };
        let is_needed = self.is_in_vain()
            || leads && self.is_gone()
            || self.is_given_by_nobody() && self.is_needed_by_peer()
            || self.refill.as_ref().is_some_and(|search| search.is_wanted_by_others);
        is_needed && self.lacks_snapshot() && !self.lacks_entries()
            || wanted_beyond.is_some_and(|at| self.facts.newest <= at)
    }

    /// Whether no snapshot here stands for what is lost.
    fn lacks_snapshot(&self) -> bool {
        self.facts.hole.is_some_and(|hole| hole.index > self.facts.newest)
    }

    /// Entries from a peer: the storage takes those that are missing.
    pub(super) fn on_refill(&mut self, head: &Head, given: &Given) {
        let leader = self.leader();
        let Some(search) = &mut self.refill else { return };
        if let Some(since) = search.since.filter(|_| !given.frames.is_empty()) {
            let took = self.now.since(since).saturating_mul(2);
            search.patience = took.min(self.tuning.election.0);
        }
        if given.gone == search.hole {
            // It may be the last one of this log, and is behind nothing that is appended. The last one of a
            // leader is its own: no clock has a say any more, least of all that of what a peer will cut off.
            if !matches!(self.role, Role::Leader(_)) {
                self.log.let_time_pass(given.time);
            }
            if !search.without.contains(&head.from) {
                search.without.push(head.from);
                if leader == Some(head.from) {
                    self.marks.set(Mark::RefillInVain);
                }
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
