//! What a leader knows of one peer: how far it agrees, what is on the way to it, whether it lives.
//!
//! Knows no log: whoever feeds the peer looks entries up. Invariant: `matched` only rises, because
//! a follower acknowledges nothing that a crash could take back; unless the peer says, behind a gate,
//! that its disk has lost what it acknowledged.

use super::{forwarding::Intake, log::Chunk, transfer::Transfer};
use crate::{
    message::{AppendAnswer, Conflict, Life},
    status,
    types::{Instant, LogIndex, NodeId, Term},
};
use std::collections::VecDeque;

/// The most appends with entries on the way to one peer, whatever their bytes.
const INFLIGHT_APPENDS_MAX: usize = 1024;

/// How a peer is fed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pace {
    /// Where its log agrees is not known: one append at a time asks.
    Probe {
        /// Whether one is on its way; the next heartbeat repeats it.
        asked: bool,
    },
    /// Appends follow each other as long as the window has room.
    Replicate,
    /// What it lacks is not in the log any more: it is being sent a snapshot.
    Install,
}

/// How a peer is tried that took nothing of what followed where it agrees: it holds back a change of its
/// members while the one before lies behind what its disk does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trial {
    /// With one append, as soon as may be.
    Due,
    /// The append of this number is on its way.
    Out(u64),
    /// It took nothing of that: again with the next heartbeat, or when more is durable there.
    Waits,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) id: NodeId,
    pub(super) incarnation: u64,
    pub(super) pace: Pace,
    /// The last index it holds durably and as this leader does.
    pub(super) matched: LogIndex,
    /// The next index to send.
    pub(super) next: LogIndex,
    /// When it last answered this leader, or when this leader began.
    pub(super) heard: Instant,
    pub(super) has_answered: bool,
    /// Its link is down: nothing is sent until it is up, or the peer answers.
    pub(super) paused: bool,
    /// It has no room for more log.
    pub(super) full: bool,
    /// It may have lost what it acknowledged, and does not stand for election.
    pub(super) gated: bool,
    /// It asked for the state that it lacks.
    pub(super) lacks_state: bool,
    /// The latest of its lives that it answered in.
    life: Life,
    /// The number of the last append to it.
    pub(super) sequence: u64,
    /// Refusals of appends before this one are of the past.
    pub(super) probing_since: u64,
    /// Where it went on from, when it was last asked where its log agrees.
    resumed: LogIndex,
    /// It took nothing from there on. While it does not, what is sent behind would be refused as fast as it is
    /// sent.
    trial: Option<Trial>,
    /// The number of the last append that was sent before `matched` rose.
    rose_at: u64,
    pub(super) round_sent: u64,
    pub(super) round_acked: u64,
    pub(super) commit_sent: LogIndex,
    /// It has said that it rests, in answer to one of the offers that were sent to it last.
    pub(super) rests: bool,
    /// From this number on every append to it offered rest.
    offers_since: u64,
    /// Whether a read from disk is on its way for it.
    pub(super) reading: bool,
    /// What that read brought.
    pub(super) fed: Option<Chunk>,
    /// The snapshot on its way, while the pace is [`Pace::Install`].
    pub(super) transfer: Option<Transfer>,
    /// The last one got no further for too long: it comes after others until one does.
    pub(super) is_stuck: bool,
    /// Up to here it has said that a snapshot does it no good, or not any more.
    pub(super) useless: LogIndex,
    /// The proposals it forwards.
    pub(super) intake: Intake,
    inflight: VecDeque<(LogIndex, u64)>,
    inflight_bytes: u64,
}

impl Peer {
    /// How it is, for people.
    pub(super) fn status(&self, now: Instant) -> status::Peer {
        let feed = match self.pace {
            Pace::Probe { .. } => status::Feed::Probe,
            Pace::Replicate => status::Feed::Replicate,
            Pace::Install => status::Feed::Install,
        };
        let (snapshot_bytes, snapshot_bytes_total) =
            self.transfer.as_ref().map_or((0, 0), Transfer::reached);
        status::Peer {
            node: self.id,
            matched: self.matched,
            feed,
            snapshot_bytes,
            snapshot_bytes_total,
            silent: now.since(self.heard),
        }
    }

    pub(super) fn new(id: NodeId, incarnation: u64, next: LogIndex, now: Instant) -> Self {
        Self {
            id,
            incarnation,
            pace: Pace::Probe { asked: false },
            matched: LogIndex(0),
            next,
            heard: now,
            has_answered: false,
            paused: false,
            full: false,
            gated: false,
            lacks_state: false,
            life: Life::NONE,
            sequence: 0,
            probing_since: 0,
            resumed: LogIndex(0),
            trial: None,
            rose_at: 0,
            round_sent: 0,
            round_acked: 0,
            commit_sent: LogIndex(0),
            rests: false,
            offers_since: 1,
            reading: false,
            fed: None,
            transfer: None,
            is_stuck: false,
            useless: LogIndex(0),
            intake: Intake::default(),
            inflight: VecDeque::new(),
            inflight_bytes: 0,
        }
    }

    /// Whether it is to hear something at once, entries or not. That more is committed is told at
    /// once to those who have clients waiting for it.
    pub(super) fn is_due(&self, round: u64, last: LogIndex, committed: LogIndex) -> bool {
        self.round_sent < round
            || self.intake.is_due(last)
            || (self.commit_sent < committed && self.intake.awaits(self.commit_sent))
    }

    /// Whether a snapshot is on its way to it.
    pub(super) fn is_sent_snapshot(&self) -> bool {
        self.transfer.is_some_and(|transfer| transfer.has_begun())
    }

    /// Whether it has every entry and does not know that they are committed: then no entry on its
    /// way will tell it.
    pub(super) fn lacks_notice(&self, committed: LogIndex) -> bool {
        self.commit_sent < committed
            && self.pace == Pace::Replicate
            && self.matched.next() == self.next
            && !self.paused
    }

    /// Whether `bytes` more may be on their way. One append always may.
    pub(super) fn has_room(&self, bytes: usize, bytes_max: u64) -> bool {
        self.inflight.is_empty() || bytes as u64 <= self.room(bytes_max)
    }

    /// How many more bytes may be on their way. None, and one append may all the same if nothing is.
    pub(super) fn room(&self, bytes_max: u64) -> u64 {
        let is_full = self.inflight.len() >= INFLIGHT_APPENDS_MAX;
        if is_full { 0 } else { bytes_max.saturating_sub(self.inflight_bytes) }
    }

    pub(super) fn has_inflight(&self) -> bool {
        !self.inflight.is_empty()
    }

    /// An append is sent, by the number that it has. Heartbeats may follow each other faster than
    /// they are answered: the answer to an offer holds while nothing but offers follows it.
    pub(super) const fn offers(&mut self, rest: bool) {
        if !rest {
            self.offers_since = self.sequence + 1;
            self.rests = false;
        }
    }

    /// Whether entries may be sent to it, as far as it has taken any; `heartbeat`: one goes to it now.
    pub(super) fn takes_entries(&self, heartbeat: bool) -> bool {
        match self.trial {
            None | Some(Trial::Due) => true,
            Some(Trial::Out(_)) => false,
            Some(Trial::Waits) => heartbeat,
        }
    }

    /// Entries up to `last` were sent.
    pub(super) fn sent(&mut self, last: LogIndex, bytes: usize) {
        self.trial = self.trial.map(|_| Trial::Out(self.sequence));
        self.inflight.push_back((last, bytes as u64));
        self.inflight_bytes += bytes as u64;
        self.next = last.next();
    }

    /// Whether an answer is of a life that is over: of before a start, and late; takes note of the life if not. Who
    /// answers what was sent last may be one whose disk was set back.
    pub(super) const fn is_of_former_life(&mut self, life: Life, sequence: u64) -> bool {
        if self.life.goes_on_from(life) {
            return false;
        }
        if life.write_epoch() < self.life.write_epoch() && sequence < self.sequence {
            return true;
        }
        self.life = life;
        false
    }

    /// Takes note of an answer that fits this leader's term and log; true if `matched` rose. Of its window
    /// the peer may hold so much in memory: whoever is asked anew where it agrees may have no more.
    pub(super) fn answered(&mut self, answer: &AppendAnswer, now: Instant, window: u64) -> bool {
        self.heard = now;
        self.has_answered = true;
        self.paused = false;
        (self.full, self.gated) = (answer.full, answer.gated);
        self.rests = answer.rests && answer.sequence >= self.offers_since;
        self.round_acked = self.round_acked.max(answer.round);
        let rose = answer.durable > self.matched;
        self.matched = self.matched.max(answer.durable);
        if rose {
            self.rose_at = self.sequence;
        }
        while let Some(&(last, bytes)) = self.inflight.front()
            && last <= self.matched
        {
            self.inflight.pop_front();
            self.inflight_bytes -= bytes;
        }
        let next = answer.matched.max(self.matched).next();
        if next > self.resumed {
            self.trial = None;
        }
        if answer.conflict.is_none()
            && self.pace != Pace::Replicate
            && answer.sequence >= self.probing_since
        {
            self.pace = Pace::Replicate;
            self.transfer = None;
            self.forget_inflight();
            (self.next, self.resumed) = (next, next);
            if answer.matched > self.matched {
                // How much that is nobody says, and its disk may hang: a window with every link that
                // breaks would be more than it has memory for.
                self.inflight.push_back((answer.matched, window));
                self.inflight_bytes = window;
            }
        } else if answer.conflict.is_none() && self.pace == Pace::Replicate {
            self.end_trial(answer.sequence, rose);
        }
        rose
    }

    /// It answered, and if it is tried still it has taken nothing; `rose`: but more is durable there.
    fn end_trial(&mut self, sequence: u64, rose: bool) {
        if let Some(Trial::Out(tried)) = self.trial
            && sequence >= tried
        {
            self.next = self.resumed;
            self.forget_inflight();
            self.trial = Some(Trial::Waits);
        }
        if rose && self.trial == Some(Trial::Waits) {
            self.trial = Some(Trial::Due);
        }
    }

    /// It refused what was sent to it, and agrees up to what comes before `next`. That it took nothing since it
    /// agreed there before is remembered.
    pub(super) fn refused(&mut self, next: LogIndex) {
        let took_none = self.pace == Pace::Replicate && next == self.resumed;
        let is_news = self.pace == Pace::Replicate || next != self.next;
        self.probe(next);
        self.trial = took_none.then_some(Trial::Due);
        // It takes nothing while a snapshot is on its way into it: the next heartbeat asks.
        self.pace = Pace::Probe { asked: !is_news };
    }

    /// Whether its answer shows that its log ends before what it acknowledged, or has another entry there, and
    /// that it does not know: no crash does that, but a copy of its disk of before. An append that was sent
    /// before it acknowledged that may have come before it had it; a later one cannot.
    pub(super) fn is_set_back(
        &self,
        answer: &AppendAnswer,
        term_at: impl Fn(LogIndex) -> Option<Term>,
    ) -> bool {
        let asked = self.next.previous().min(self.matched);
        let lacks = |conflict: &Conflict| {
            let theirs = conflict.runs.iter().rfind(|run| run.0 <= asked);
            let differs = theirs.zip(term_at(asked)).is_some_and(|(run, ours)| run.1 != ours);
            conflict.through < asked || differs
        };
        matches!(self.pace, Pace::Probe { .. })
            && !answer.gated
            && answer.sequence == self.sequence
            && answer.sequence > self.rose_at
            && answer.sequence >= self.probing_since
            && answer.conflict.as_deref().is_some_and(lacks)
    }

    /// Asks anew where the logs agree; guesses just before `next`.
    pub(super) fn probe(&mut self, next: LogIndex) {
        self.pace = Pace::Probe { asked: false };
        self.next = next;
        self.probing_since = self.sequence + 1;
        (self.fed, self.trial) = (None, None);
        self.transfer = None;
        // What was asked for may be gone from the log by now, and never come.
        self.reading = false;
        self.forget_inflight();
        self.intake.repeat();
    }

    /// Begins to send it a snapshot.
    pub(super) fn begin_install(&mut self) {
        self.probe(self.next);
        self.pace = Pace::Install;
        self.transfer = Some(Transfer::default());
    }

    /// Begins to send it another snapshot than the one on its way.
    pub(super) fn begin_transfer(&mut self) {
        match self.pace {
            Pace::Install => self.begin_install(),
            Pace::Probe { .. } | Pace::Replicate => self.transfer = Some(Transfer::default()),
        }
    }

    fn forget_inflight(&mut self) {
        self.inflight.clear();
        self.inflight_bytes = 0;
    }
}
