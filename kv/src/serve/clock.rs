//! What time it is by a group's log, as far as that can be told without asking.
//!
//! Knows no machine. Invariant: it decides when to ask for the time, never what the time is: see the crate's
//! documentation.

use lakebed::Timestamp;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};
use tokio::time::Instant;

/// The log's time is the wall clock's, or ahead of it: as that of whoever led before was, or this server's own
/// was set back. Then it goes on from what was seen of it as time passes.
#[derive(Debug)]
pub(crate) struct LogClock {
    begun: Instant,
    /// What it would have shown then, by the latest that was seen.
    seen: AtomicU64,
}

impl Default for LogClock {
    fn default() -> Self {
        Self { begun: Instant::now(), seen: AtomicU64::new(0) }
    }
}

impl LogClock {
    /// The machine says that it is as late as this.
    pub(crate) fn saw(&self, time: Timestamp) {
        self.seen.fetch_max(time.0.saturating_sub(self.passed()), Ordering::Relaxed);
    }

    /// The log was asked to go on, and the next answer tells how far it is. That may be less than was reckoned:
    /// what passed before a leader was elected passed here alone.
    pub(crate) fn forget(&self) {
        self.seen.store(0, Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.at(wall_clock())
    }

    fn at(&self, wall: Timestamp) -> Timestamp {
        let by_log = self.seen.load(Ordering::Relaxed).saturating_add(self.passed());
        wall.max(Timestamp(by_log))
    }

    fn passed(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400_000_000_000;

    #[test]
    fn a_log_that_is_ahead_goes_on_and_one_that_is_not_tells_nothing() {
        let (clock, wall) = (LogClock::default(), Timestamp(5 * DAY));
        clock.saw(Timestamp(4 * DAY));
        assert_eq!(clock.at(wall), wall);
        clock.saw(Timestamp(6 * DAY));
        let first = clock.at(wall);
        assert!((6 * DAY..7 * DAY).contains(&first.0), "{first:?}");
        // What is seen of a machine that lags is no later.
        clock.saw(Timestamp(6 * DAY - 1));
        assert!(clock.at(wall) >= first);
        clock.forget();
        assert_eq!(clock.at(wall), wall);
        clock.saw(Timestamp(u64::MAX));
        assert_eq!(clock.at(wall), Timestamp(u64::MAX));
    }
}
