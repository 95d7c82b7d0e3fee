//! Reads: ReadIndex in batched rounds, from any node (Raft thesis §6.4).
//!
//! Knows no queries: those stay with the driver. Invariant: a read joins only a round that was sent
//! after the read arrived, and a round's log position was committed when the round began. Of a
//! follower there is one question on its way; it is put again ever more seldom, so that a link whose
//! round trip is longer than a heartbeat carries a few copies of it and not one for each heartbeat.

use super::{Raft, role::Role};
use crate::{
    action::{Action, Machine, Outcome, Refusal},
    config::Tuning,
    event::ReadMode,
    marks::Mark,
    message::{Head, Life, Message, Payload},
    types::{Instant, LogIndex, NodeId, Requests},
};
use std::time::Duration;

/// The most reads that wait, in runs of consecutive requests.
pub(super) const READS_MAX: usize = 1 << 16;

/// Who asks a leader for a log position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asker {
    Here(Requests),
    Peer { node: NodeId, life: Life, round: u64 },
}

/// Reads that wait for one confirmation.
#[derive(Clone, Debug)]
struct Round {
    number: u64,
    /// At a leader: what was committed when the round began.
    index: LogIndex,
    askers: Vec<Asker>,
    began: Instant,
    asked: Instant,
    is_repeated: bool,
}

/// How long a follower waits for the answer to a question before it puts it again.
///
/// As senders do whose segments may be lost (RFC 6298, and Karn's rule): the wait doubles each time,
/// stays so for the questions that follow, and goes back when one is answered that was put once.
#[derive(Clone, Copy, Debug, Default)]
struct Backoff(Duration);

impl Backoff {
    /// At least a heartbeat. At most half of the least election timeout: however slow the link
    /// was, a question that is lost is put again before its reads are given up.
    fn wait(self, tuning: &Tuning) -> Duration {
        self.0.min(tuning.election.0 / 2).max(tuning.heartbeat)
    }

    /// There was no answer in time.
    fn repeated(&mut self, tuning: &Tuning) {
        self.0 = self.wait(tuning).saturating_mul(2);
    }

    /// So long the answer to a question took that was put once: the next may take twice as long.
    fn answered(&mut self, took: Duration) {
        self.0 = took.saturating_mul(2);
    }
}

/// The reads of one node.
#[derive(Clone, Debug, Default)]
pub(super) struct Reads {
    /// They join the next round.
    waiting: Vec<Asker>,
    /// The one on its way. The next begins when it ends, so that reads gather meanwhile.
    round: Option<Round>,
    rounds: u64,
    backoff: Backoff,
    /// Since when they wait for the first entry of a new leader to be committed.
    held: Option<Instant>,
    /// Confirmed; oldest first.
    ready: Vec<Ready>,
}

/// Reads to be answered once this index went to the machine.
#[derive(Clone, Copy, Debug)]
struct Ready {
    index: LogIndex,
    requests: Requests,
    since: Instant,
}

impl Reads {
    /// The number of the newest round.
    pub(super) const fn number(&self) -> u64 {
        self.rounds
    }

    /// A round that no read waits for.
    pub(super) const fn next_round(&mut self) -> u64 {
        self.rounds += 1;
        self.rounds
    }

    /// Whether nobody waits.
    pub(super) const fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.round.is_none() && self.ready.is_empty()
    }

    /// How many wait, in runs.
    fn len(&self) -> usize {
        let on_its_way = self.round.as_ref().map_or(0, |round| round.askers.len());
        self.waiting.len() + on_its_way + self.ready.len()
    }

    /// When the round on its way is to be asked for again.
    pub(super) fn repeat_at(&self, tuning: &Tuning) -> Option<Instant> {
        let wait = self.backoff.wait(tuning);
        let given_up = |round: &Round| round.began.after(tuning.election.1);
        self.round.as_ref().map(|round| round.asked.after(wait).min(given_up(round)))
    }

    /// Whether the round on its way, or the next, answers this question of a peer.
    fn knows(&self, asker: Asker) -> bool {
        let on_its_way = self.round.iter().flat_map(|round| &round.askers);
        on_its_way.chain(&self.waiting).any(|known| *known == asker)
    }

    /// The leader is another one, and so is the way to it.
    pub(super) fn forget_link(&mut self) {
        self.backoff = Backoff::default();
    }

    /// When the oldest of those that wait for the machine has waited as long as it may.
    pub(super) fn give_up_at(&self, after: Duration) -> Option<Instant> {
        self.ready.first().map(|ready| ready.since.after(after))
    }

    /// When those are given up that wait for a new leader's first entry.
    pub(super) fn held_until(&self, after: Duration) -> Option<Instant> {
        self.held.map(|since| since.after(after))
    }

    /// All that wait are in it. None is on its way.
    fn begin(&mut self, index: LogIndex, now: Instant) -> u64 {
        self.rounds += 1;
        self.held = None;
        let (number, askers) = (self.rounds, std::mem::take(&mut self.waiting));
        let (began, asked) = (now, now);
        self.round = Some(Round { number, index, askers, began, asked, is_repeated: false });
        number
    }

    fn join(&mut self, asker: Asker) {
        if let (Some(Asker::Here(last)), Asker::Here(next)) = (self.waiting.last_mut(), asker)
            && last.first.0 + u64::from(last.count) == next.first.0
        {
            last.count += next.count;
        } else {
            self.waiting.push(asker);
        }
    }
}

impl Raft {
    pub(crate) fn on_read(&mut self, requests: Requests, mode: ReadMode) {
        self.stray();
        self.stir();
        if self.reads.len() >= READS_MAX {
            return self.end(requests, Outcome::Refused(Refusal::Busy));
        }
        match mode {
            ReadMode::Local { stale_max } => self.read_local(requests, stale_max),
            ReadMode::Linearizable => self.read_fresh(requests),
            ReadMode::Lease => self.read_leased(requests),
        }
    }

    fn read_local(&mut self, requests: Requests, stale_max: Duration) {
        match self.fresh_within(stale_max) {
            Some(index) if self.applying.restored => self.ready_at(index, requests),
            // Nobody has spoken for so long because nobody had to: a round is as fresh as any.
            None if self.has_rested() => self.read_fresh(requests),
            _ => self.end(requests, Outcome::Refused(Refusal::NotReady)),
        }
    }

    /// What was committed when a leader was last heard from, or, at a leader, a quorum; `None` if
    /// that is longer ago than `stale_max`, or if that leader has committed nothing of its term: it may
    /// not know of what its predecessor acknowledged, however long ago.
    pub(super) fn fresh_within(&self, stale_max: Duration) -> Option<LogIndex> {
        match &self.role {
            Role::Leader(leader) => {
                let heard = |id| {
                    leader.peers.iter().any(|peer| {
                        peer.id == id
                            && peer.has_answered
                            && leader.quiet.is_news(peer.heard)
                            && self.now.since(peer.heard) <= stale_max
                    })
                };
                let (own, committed) = (self.identity.node, self.log.marks.committed());
                // Before that it may lie behind what its predecessor acknowledged long ago.
                let fresh = committed >= leader.start
                    && self.membership.is_quorum(|id| id == own || heard(id));
                fresh.then_some(committed)
            }
            Role::Follower(follower) => {
                let heard = follower.told.is_some_and(|told| {
                    self.now.since(told) <= stale_max
                        || cfg!(lakebed_break = "read_what_was_told_long_ago")
                });
                let committed = follower.committed;
                // Behind the end of this log there is nothing of an older term than at its end.
                let known = self.log.term_at(committed.min(self.log.last().index));
                let fresh = heard && follower.leader.is_some() && known == Some(self.term);
                fresh.then_some(committed)
            }
            Role::Forming(_) | Role::PreCandidate(_) | Role::Candidate(_) => None,
        }
    }

    pub(super) fn read_fresh(&mut self, requests: Requests) {
        if matches!(self.role, Role::Forming(_)) {
            self.end(requests, Outcome::Refused(Refusal::NotReady));
        } else if self.leader().is_none() {
            self.end(requests, Outcome::Refused(Refusal::NotLeader { hint: None }));
        } else {
            self.reads.join(Asker::Here(requests));
        }
    }

    /// At the leader: a follower asks for its reads. If there is no room, it asks again. What it
    /// asks again is answered once: its reads arrived before its question was put first, so a round
    /// that the question has joined already is no older than it must be.
    pub(super) fn on_read_index(&mut self, head: &Head, round: u64) {
        let asker = Asker::Peer { node: head.from, life: head.life, round };
        if head.term == self.term
            && matches!(self.role, Role::Leader(_))
            && self.reads.waiting.len() < READS_MAX
            && !self.reads.knows(asker)
        {
            self.reads.join(asker);
        }
    }

    /// At the follower: the leader's position for the reads of `round`.
    pub(super) fn on_read_index_answer(&mut self, head: &Head, round: u64, index: LogIndex) {
        let current = head.term == self.term
            && head.answers == self.life()
            && self.leader() == Some(head.from)
            && head.from != self.identity.node;
        match self.reads.round.take_if(|on_its_way| current && on_its_way.number == round) {
            Some(round) => {
                if !round.is_repeated {
                    self.reads.backoff.answered(self.now.since(round.began));
                }
                self.confirmed(round.askers, index);
            }
            None => self.marks.set(Mark::StaleAnswerDropped),
        }
    }

    /// Sends for the next round, if reads wait and none is on its way.
    pub(super) fn begin_round(&mut self) {
        // Who was to confirm the one before may have been a member no longer when it was asked.
        self.confirm_round();
        if self.reads.waiting.is_empty() || self.reads.round.is_some() {
            return;
        }
        let committed = self.log.marks.committed();
        match &self.role {
            // Before that its own commit index may lie behind what its predecessor acknowledged.
            Role::Leader(leader)
                if committed < leader.start
                    && !cfg!(lakebed_break = "read_before_the_first_commit") =>
            {
                self.marks.set(Mark::ReadHeldForFirstCommit);
                self.reads.held.get_or_insert(self.now);
            }
            Role::Leader(_) => {
                self.begin_leaders_round(committed);
            }
            Role::Follower(_) => {
                let round = self.reads.begin(committed, self.now);
                if let Some(leader) = self.leader() {
                    self.send(leader, Payload::ReadIndex { round });
                }
            }
            Role::Forming(_) | Role::PreCandidate(_) | Role::Candidate(_) => {}
        }
    }

    fn begin_leaders_round(&mut self, committed: LogIndex) {
        let round = self.reads.begin(committed, self.now);
        if let Role::Leader(leader) = &mut self.role
            && self.tuning.lease_drift_ppm.is_some()
        {
            leader.lease.sent(round, self.now);
        }
        self.confirm_round();
    }

    /// Ends the round if a quorum has said, after it began, that this leader leads.
    pub(super) fn confirm_round(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        let Some(round) = &self.reads.round else { return };
        let confirmed = self.membership.is_quorum(|id| {
            id == self.identity.node
                || cfg!(lakebed_break = "read_without_a_round")
                || leader.peers.iter().any(|peer| peer.id == id && peer.round_acked >= round.number)
        });
        if confirmed {
            let round = self.reads.round.take().expect("it was just seen");
            self.confirmed(round.askers, round.index);
        }
    }

    fn confirmed(&mut self, askers: Vec<Asker>, index: LogIndex) {
        if askers.len() > 1 {
            self.marks.set(Mark::ReadsShared);
        }
        for asker in askers {
            match asker {
                Asker::Here(requests) => self.ready_at(index, requests),
                Asker::Peer { node, life, round } => {
                    let head = Head { answers: life, ..self.head_to(node) };
                    let payload = Payload::ReadIndexAnswer { round, index };
                    self.messages.push(Message { head, payload });
                }
            }
        }
    }

    pub(super) fn ready_at(&mut self, index: LogIndex, requests: Requests) {
        self.reads.ready.push(Ready { index, requests, since: self.now });
    }

    /// Ends reads that have waited too long: confirmed ones, for this log may be a long way behind,
    /// and, on a disk that is full, stay there: others can answer; and those of a new leader whose
    /// first entry nobody has room for.
    pub(super) fn give_up_reads(&mut self) {
        let most = self.tuning.election.1;
        if self.reads.held_until(most).is_some_and(|at| self.now >= at) {
            self.refuse_reads(&Refusal::NotReady);
        }
        let is_over = |ready: &Ready| self.now >= ready.since.after(most);
        let over = self.reads.ready.iter().take_while(|ready| is_over(ready)).count();
        for Ready { requests, .. } in self.reads.ready.drain(..over).collect::<Vec<_>>() {
            self.marks.set(Mark::ReadRefused);
            self.end(requests, Outcome::Refused(Refusal::NotReady));
        }
    }

    /// Hands confirmed reads to the machine's lane, behind what they must see.
    pub(super) fn answer_reads(&mut self) {
        if self.reads.ready.is_empty() || !self.applying.restored {
            return;
        }
        let at = self.log.marks.applying();
        let actions = &mut self.actions;
        self.reads.ready.retain(|&Ready { index, requests, .. }| {
            let served = index <= at;
            if served {
                actions.push(Action::Machine(Machine::Query { requests, at }));
            }
            !served
        });
    }

    /// Asks again for a follower's round that brings no answer, and gives up at last.
    pub(super) fn repeat_round(&mut self) {
        let Role::Follower(follower) = &self.role else { return };
        let is_due = self.reads.repeat_at(&self.tuning).is_some_and(|at| self.now >= at);
        let Some(round) = self.reads.round.as_mut().filter(|_| is_due) else { return };
        if self.now.since(round.began) >= self.tuning.election.1 {
            return self.refuse_reads(&Refusal::NotLeader { hint: follower.leader });
        }
        (round.asked, round.is_repeated) = (self.now, true);
        let round = round.number;
        self.reads.backoff.repeated(&self.tuning);
        if let Some(leader) = follower.leader {
            self.marks.set(Mark::ReadRoundRepeated);
            self.send(leader, Payload::ReadIndex { round });
        }
    }

    /// Reads without a confirmation end here; those of other nodes, there. So do those whose
    /// position this node does not know to be committed: it may never hear of it.
    pub(super) fn refuse_reads(&mut self, why: &Refusal) {
        let committed = self.log.marks.committed();
        let unconfirmed = self.reads.ready.extract_if(.., |ready| ready.index > committed);
        for Ready { requests, .. } in unconfirmed.collect::<Vec<_>>() {
            self.end(requests, Outcome::Refused(why.clone()));
        }
        let round = self.reads.round.take().map(|round| round.askers).unwrap_or_default();
        let waiting = std::mem::take(&mut self.reads.waiting);
        self.reads.held = None;
        for asker in round.into_iter().chain(waiting) {
            if let Asker::Here(requests) = asker {
                self.marks.set(Mark::ReadRefused);
                self.end(requests, Outcome::Refused(why.clone()));
            }
        }
    }

    /// The node stops: confirmed reads end too.
    pub(super) fn refuse_ready_reads(&mut self, why: &Refusal) {
        for Ready { requests, .. } in std::mem::take(&mut self.reads.ready) {
            self.end(requests, Outcome::Refused(why.clone()));
        }
    }
}
