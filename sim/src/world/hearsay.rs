//! How old what a node knows may be: what reads with `ReadMode::Local` are held to.
//!
//! Whoever heard from a leader within `stale_max` answers with what that leader knew to be committed when
//! it spoke. A message may have been on its way for long, and who spoke may lead no longer and not know:
//! until it has heard from no quorum for its longest election timeout. So every message carries how
//! old what its sender knows may be: as old as the oldest of what it was itself told within that time.
//! Knows no contents. Invariant: instants are simulated time, by which everybody is judged.

use std::collections::VecDeque;

/// What a node was told, as far as it may still matter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hearsay {
    /// When it was handled, and how old it may be. Of two the later one stands only if it is younger:
    /// both rise.
    told: VecDeque<(u64, u64)>,
}

impl Hearsay {
    /// A message was handled, in which everything up to `as_of` is known. Nobody will ask for what was
    /// handled before `since`.
    pub(crate) fn hear(&mut self, now: u64, as_of: u64, since: u64) {
        while self.told.pop_back_if(|(_, older)| *older >= as_of).is_some() {}
        self.told.push_back((now, as_of));
        while self.told.pop_front_if(|(at, _)| *at < since).is_some() {}
    }

    /// How old the oldest may be that was handled since then; `None` if nothing was.
    pub(crate) fn oldest_since(&self, since: u64) -> Option<u64> {
        let first = self.told.partition_point(|(at, _)| *at < since);
        self.told.get(first).map(|(_, as_of)| *as_of)
    }

    /// What was to be handled at the one instant is handled at the other, which is later.
    pub(crate) fn put_off(&mut self, from: u64, to: u64) {
        self.told.iter_mut().rev().take_while(|(at, _)| *at == from).for_each(|told| told.0 = to);
    }

    pub(crate) fn forget(&mut self) {
        self.told.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_what_was_told_within_a_time_counts() {
        let mut heard = Hearsay::default();
        for (now, as_of) in [(10, 9), (20, 15), (30, 12), (40, 39)] {
            heard.hear(now, as_of, 0);
        }
        let since = [0, 10, 11, 20, 30, 31, 40, 41].map(|since| heard.oldest_since(since));
        assert_eq!(since, [9, 9, 12, 12, 12, 39, 39, 0].map(|at| (at > 0).then_some(at)));
        heard.hear(50, 45, 35);
        assert_eq!(heard.oldest_since(0), Some(39));
    }

    /// A pause that goes on longer: what came meanwhile is handled when it is over.
    #[test]
    fn what_is_put_off_is_as_old_as_it_was() {
        let mut heard = Hearsay::default();
        for (now, as_of) in [(10, 9), (30, 12), (30, 14)] {
            heard.hear(now, as_of, 0);
        }
        heard.put_off(30, 50);
        heard.hear(50, 20, 0);
        let since = [10, 11, 50, 51].map(|since| heard.oldest_since(since));
        assert_eq!(since, [Some(9), Some(12), Some(12), None]);
    }
}
