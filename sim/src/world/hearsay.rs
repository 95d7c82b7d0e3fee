//! How old what a node knows may be: what reads with `ReadMode::Local` are held to.
//!
//! Whoever heard from a leader within `stale_max` answers with what that leader knew to be committed when
//! it spoke. A message may have been on its way for long, and who spoke may lead no longer and not know:
//! until it has heard from no quorum for its longest election timeout. Of each whom it heard it is
//! certain only that it followed nobody else when it spoke. So every message carries when it was
//! sent, and when the oldest was of what its sender was itself told within that time: later than
//! that nobody else can have led without one of those, and nothing was committed that it does not know.
//! How old that was which those knew does not matter; else everything would be as old as the cluster.
//! Knows no contents. Invariant: instants are simulated time, by which everybody is judged.

use crate::plan::Plan;
use std::{collections::VecDeque, time::Duration};

/// How old the things are that a node was told, as far as that may still matter.
#[derive(Clone, Debug, Default)]
struct Ages {
    /// When each was handled, and from when it is. Of two the later one stands only if it is
    /// younger: both rise.
    told: VecDeque<(u64, u64)>,
}

impl Ages {
    fn add(&mut self, now: u64, from: u64, since: u64) {
        while self.told.pop_back_if(|(_, older)| *older >= from).is_some() {}
        self.told.push_back((now, from));
        while self.told.pop_front_if(|(at, _)| *at < since).is_some() {}
    }

    fn oldest_since(&self, since: u64) -> Option<u64> {
        let first = self.told.partition_point(|(at, _)| *at < since);
        self.told.get(first).map(|(_, from)| *from)
    }

    fn put_off(&mut self, from: u64, to: u64) {
        self.told.iter_mut().rev().take_while(|(at, _)| *at == from).for_each(|told| told.0 = to);
    }
}

/// From when a message is, and what is known in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Age {
    /// When it was sent.
    pub(crate) sent: u64,
    /// Everything is known in it that was committed by then, if who sent it believes to lead.
    pub(crate) as_of: u64,
}

/// What a node was told, as far as it may still matter.
#[derive(Clone, Debug)]
pub(crate) struct Hearsay {
    reach: Option<Reach>,
    sent: Ages,
    known: Ages,
}

/// For how long something matters, at most.
#[derive(Clone, Copy, Debug)]
struct Reach {
    /// Who heard from others within this time may believe to lead.
    to_lead: u64,
    /// Of what was told so long ago nobody asks.
    to_answer: u64,
}

impl Hearsay {
    /// Of nobody yet. If nobody is ever asked what he knows, nothing is kept.
    pub(crate) fn new(plan: &Plan) -> Self {
        let reach = (plan.manner.local > 0).then(|| {
            let (election, stale) = (plan.election_max(), plan.manner.stale_max);
            let to_answer = plan.longest(election.max(stale));
            Reach { to_lead: plan.longest(election), to_answer }
        });
        Self { reach, sent: Ages::default(), known: Ages::default() }
    }

    /// A message was handled.
    pub(crate) fn hear(&mut self, now: u64, age: Age) {
        if let Some(reach) = self.reach {
            let since = now.saturating_sub(reach.to_answer);
            self.sent.add(now, age.sent, since);
            self.known.add(now, age.as_of, since);
        }
    }

    /// Of what age what a node says now is: who believes to lead has heard from others within its longest
    /// election timeout.
    pub(crate) fn speaks(&self, now: u64) -> Age {
        let Some(reach) = self.reach else { return Age::default() };
        let since = now.saturating_sub(reach.to_lead);
        Age { sent: now, as_of: self.sent.oldest_since(since).unwrap_or(now).min(now) }
    }

    /// As of when everything that was committed is known to who goes by what it heard within
    /// `stale_max`, by its clock.
    pub(crate) fn known(&self, plan: &Plan, now: u64, stale_max: Duration) -> u64 {
        if !plan.clocks_go_on() {
            return 0;
        }
        let stale_max = u64::try_from(stale_max.as_nanos()).unwrap_or(u64::MAX);
        let since = now.saturating_sub(plan.longest(stale_max));
        self.known.oldest_since(since).unwrap_or(now)
    }

    /// What was to be handled at the one instant is handled at the other, which is later.
    pub(crate) fn put_off(&mut self, from: u64, to: u64) {
        self.sent.put_off(from, to);
        self.known.put_off(from, to);
    }

    pub(crate) fn forget(&mut self) {
        (self.sent, self.known) = (Ages::default(), Ages::default());
    }
}

/// What was acknowledged, and when: for who is asked what a node must at least know.
#[derive(Clone, Debug)]
pub(crate) struct Acknowledged<I>(Vec<(u64, I)>);

impl<I> Default for Acknowledged<I> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<I: Copy + Ord + Default> Acknowledged<I> {
    /// Everything up to there is acknowledged now.
    pub(crate) fn add(&mut self, now: u64, up_to: I) {
        if self.0.last().is_none_or(|(_, before)| *before < up_to) {
            self.0.push((now, up_to));
        }
    }

    /// Up to where it was before then.
    pub(crate) fn before(&self, then: u64) -> I {
        let known = self.0.partition_point(|(at, _)| *at < then);
        known.checked_sub(1).map_or_else(I::default, |last| self.0[last].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ages: &[(u64, u64)]) -> Ages {
        let mut told = Ages::default();
        ages.iter().for_each(|(now, from)| told.add(*now, *from, 0));
        told
    }

    #[test]
    fn the_oldest_of_what_was_told_within_a_time_counts() {
        let mut told = of(&[(10, 9), (20, 15), (30, 12), (40, 39)]);
        let since = [0, 10, 11, 20, 30, 31, 40, 41].map(|since| told.oldest_since(since));
        assert_eq!(since, [9, 9, 12, 12, 12, 39, 39, 0].map(|at| (at > 0).then_some(at)));
        told.add(50, 45, 35);
        assert_eq!(told.oldest_since(0), Some(39));
    }

    /// A pause that goes on longer: what came meanwhile is handled when it is over.
    #[test]
    fn what_is_put_off_is_as_old_as_it_was() {
        let mut told = of(&[(10, 9), (30, 12), (30, 14)]);
        told.put_off(30, 50);
        told.add(50, 20, 0);
        let since = [10, 11, 50, 51].map(|since| told.oldest_since(since));
        assert_eq!(since, [Some(9), Some(12), Some(12), None]);
    }

    /// Two who speak by turns: what they know is as young as the one message before, however long they
    /// have been at it.
    #[test]
    fn what_is_known_grows_no_older_while_many_speak() {
        let mut plan = Plan::calm(1, 3);
        (plan.manner.local, plan.manner.stale_max) = (1, 0);
        let timeout = plan.longest(plan.election_max());
        let turn = timeout / 10;
        let mut both = [Hearsay::new(&plan), Hearsay::new(&plan)];
        for round in 1..=100 {
            let [one, other] = &mut both;
            let (from, to) = if round % 2 == 0 { (one, other) } else { (other, one) };
            to.hear(round * turn + 1, from.speaks(round * turn));
        }
        // The last word was the first one's: it had heard what the other said nine turns before.
        let stale_max = Duration::from_nanos(turn / 2);
        assert_eq!(both[1].known(&plan, 100 * turn + 2, stale_max), 91 * turn);
        assert_eq!(both[1].known(&plan, 101 * turn, stale_max), 101 * turn, "nothing was heard");
    }

    #[test]
    fn what_was_acknowledged_before_then() {
        let mut acknowledged = Acknowledged::default();
        for (at, up_to) in [(10, 1), (20, 3), (25, 3), (30, 7)] {
            acknowledged.add(at, up_to);
        }
        assert_eq!([0, 10, 11, 30, 31].map(|then| acknowledged.before(then)), [0, 0, 1, 3, 7]);
    }
}
