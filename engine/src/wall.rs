//! The wall clock, as far as a driver tells of it.
//!
//! Knows no clock of its own. Between two tellings the wall clock goes on as the monotonic one
//! does: what a hand sets it by is known with the next.

use crate::types::{Instant, Timestamp};

/// What it was, and when that was said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WallClock(Option<(Timestamp, Instant)>);

impl WallClock {
    /// Nobody has told of it.
    pub(crate) const UNKNOWN: Self = Self(None);

    pub(crate) const fn set(&mut self, time: Timestamp, now: Instant) {
        self.0 = Some((time, now));
    }

    /// When it was told last.
    pub(crate) fn told(self) -> Option<Instant> {
        self.0.map(|(_, told)| told)
    }

    /// What it shows, if that is known.
    pub(crate) fn at(self, now: Instant) -> Option<Timestamp> {
        self.0.map(|(time, told)| time.after(now.since(told)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_from_what_was_told_last() {
        let mut wall = WallClock::UNKNOWN;
        assert_eq!((wall.at(Instant(5)), wall.told()), (None, None));
        wall.set(Timestamp(1000), Instant(5));
        assert_eq!((wall.at(Instant(12)), wall.told()), (Some(Timestamp(1007)), Some(Instant(5))));
        // It was set back.
        wall.set(Timestamp(10), Instant(20));
        assert_eq!(wall.at(Instant(20)), Some(Timestamp(10)));
        wall.set(Timestamp(u64::MAX - 1), Instant(20));
        assert_eq!(wall.at(Instant(30)), Some(Timestamp(u64::MAX)));
    }
}
