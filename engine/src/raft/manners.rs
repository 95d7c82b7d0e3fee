//! How a snapshot on its way to one peer lets those go first who write: their entries wait for the same disks,
//! processors and links, and a state of gigabytes would have them wait for all of it.
//!
//! Invariant: it takes a third of the time at least, so that it arrives whatever is written; with nobody who writes,
//! all of it.

use crate::types::Instant;
use std::time::Duration;

/// So many times as long as something was on its way, nothing is.
const RESTS: u32 = 2;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manners {
    /// Since when something is on its way.
    since: Option<Instant>,
    /// Nothing more is read before that, if somebody writes.
    rests_until: Option<Instant>,
}

impl Manners {
    pub(super) fn sent(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// All that was sent is there. It rests the longer the more `turns` there are at one time, and `most` at most:
    /// what takes longer waits for a link, and is done no sooner for a rest.
    pub(super) fn arrived(&mut self, turns: u32, most: Duration, now: Instant) {
        if let Some(since) = self.since.take() {
            let rest = now.since(since).saturating_mul(RESTS.saturating_mul(turns));
            self.rests_until = Some(now.after(rest.min(most))).filter(|until| *until > now);
        }
    }

    /// What was on its way is lost, and says nothing of how long it takes.
    pub(super) fn lost(&mut self) {
        self.since = None;
    }

    /// Lets the time go on.
    pub(super) fn pass(&mut self, now: Instant) {
        self.rests_until.take_if(|until| *until <= now);
    }

    /// Up to when it rests.
    pub(super) const fn rests_until(&self) -> Option<Instant> {
        self.rests_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_nanos(1_000);

    #[test]
    fn it_rests_twice_as_long_for_each_turn_up_to_the_most() {
        for (turns, took, rests) in
            [(1, 10, 20), (2, 10, 40), (1, 499, 998), (1, 500, 1_000), (3, 500, 1_000)]
        {
            let mut manners = Manners::default();
            manners.sent(Instant(100));
            manners.sent(Instant(100 + took / 2));
            manners.arrived(turns, MOST, Instant(100 + took));
            let until = Instant(100 + took + rests);
            assert_eq!(manners.rests_until(), Some(until), "{turns} {took}");
            manners.pass(Instant(until.0 - 1));
            assert_eq!(manners.rests_until(), Some(until));
            manners.pass(until);
            assert_eq!(manners.rests_until(), None);
        }
    }

    #[test]
    fn what_was_lost_or_is_there_already_asks_for_no_rest() {
        let mut manners = Manners::default();
        manners.arrived(1, MOST, Instant(5));
        manners.sent(Instant(10));
        manners.lost();
        manners.arrived(1, MOST, Instant(900));
        assert_eq!(manners.rests_until(), None);
    }
}
