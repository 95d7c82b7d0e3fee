//! A leader's lease: for so long nobody else can have been elected, if clocks keep what was declared
//! of them (thesis §6.4.1).
//!
//! Whoever answered a round had heard from this leader when the round was sent, or later, and votes
//! for nobody else within its least election timeout from then on, also when it restarts. So does a
//! quorum, for that long from the sending of a round that a quorum answered. Invariant: a lease is
//! counted from when a round was sent, never from when it was answered; and never again in a term in
//! which the leader asked another node to stand.

use super::{Raft, role::Role};
use crate::{
    config::Tuning,
    marks::Mark,
    types::{Instant, LogIndex, Requests},
};
use std::{collections::VecDeque, time::Duration};

/// Rounds that are remembered: more than are on their way before they would be too old.
const ROUNDS_MAX: usize = 64;

#[derive(Clone, Debug, Default)]
pub(super) struct Lease {
    /// When each round was sent that no quorum has answered yet; oldest first.
    sent: VecDeque<(u64, Instant)>,
    /// When the newest round was sent that a quorum has answered.
    since: Option<Instant>,
    /// It asked another node to stand.
    is_renounced: bool,
}

impl Lease {
    pub(super) fn sent(&mut self, round: u64, now: Instant) {
        if self.sent.len() == ROUNDS_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back((round, now));
    }

    /// A quorum has answered this round, or a later one.
    fn answered(&mut self, round: u64, now: Instant) {
        while let Some((_, at)) = self.sent.pop_front_if(|(sent, _)| *sent <= round) {
            let counts_the_answer = cfg!(lakebed_break = "count_a_lease_from_its_answer");
            self.since = Some(if counts_the_answer { now } else { at });
        }
    }

    pub(super) fn renounce(&mut self) {
        *self = Self { is_renounced: true, ..Self::default() };
    }

    /// What was answered, was under other circumstances, and so was what is on its way: who answers it
    /// later may have waited by other times when it came.
    pub(super) fn begin_anew(&mut self) {
        self.since = None;
        self.sent.clear();
    }

    fn holds(&self, now: Instant, tuning: &Tuning) -> bool {
        let is_renounced =
            self.is_renounced && !cfg!(lakebed_break = "keep_a_lease_after_a_handover");
        let Some(lasts) = lasts(tuning).filter(|_| !is_renounced) else { return false };
        self.since.is_some_and(|since| now < since.after(lasts))
    }
}

/// How long a lease lasts by this node's clock, the others' being faster by what is declared.
fn lasts(tuning: &Tuning) -> Option<Duration> {
    let slack = 1_000_000_u32.checked_sub(tuning.lease_drift_ppm?)?;
    let nanos = tuning.election.0.as_nanos() * u128::from(slack) / 1_000_000;
    Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
}

impl Raft {
    /// Answers at once, if the lease holds; else as any other read.
    pub(super) fn read_leased(&mut self, requests: Requests) {
        match self.leased() {
            Some(index) => {
                self.marks.set(Mark::LeaseRead);
                self.ready_at(index, requests);
            }
            None => {
                if self.tuning.lease_drift_ppm.is_some() {
                    self.marks.set(Mark::LeaseMissed);
                }
                self.read_fresh(requests);
            }
        }
    }

    /// What is committed, if nobody else can have committed more. One who leads the others on into a
    /// membership without itself has no lease: the only voter that is left waits for nobody when it
    /// restarts.
    pub(super) fn leased(&self) -> Option<LogIndex> {
        let Role::Leader(leader) = &self.role else { return None };
        if !self.membership.is_voter(self.identity.node)
            && !cfg!(lakebed_break = "lease_without_a_vote")
        {
            return None;
        }
        let committed = self.log.marks.committed();
        let holds = committed >= leader.start && leader.lease.holds(self.now, &self.tuning);
        holds.then_some(committed)
    }

    /// A heartbeat is sent: with a lease to keep it is a round, whether reads wait or not.
    pub(super) fn renew_lease(&mut self) {
        if self.tuning.lease_drift_ppm.is_none() {
            return;
        }
        let (round, now) = (self.reads.next_round(), self.now);
        if let Role::Leader(leader) = &mut self.role {
            leader.lease.sent(round, now);
        }
    }

    /// An answer has come: perhaps a quorum's.
    pub(super) fn extend_lease(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        let newest = leader.lease.sent.iter().rev().map(|(round, _)| *round).find(|round| {
            self.membership.is_quorum(|id| {
                id == self.identity.node
                    || leader.peers.iter().any(|peer| peer.id == id && peer.round_acked >= *round)
            })
        });
        if let Some(round) = newest {
            leader.lease.answered(round, self.now);
        }
    }
}
