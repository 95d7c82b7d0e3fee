//! How much of its snapshots a leader may send now: a bucket that fills as time passes, so that what a limit
//! allows goes out evenly, and whoever writes beside it waits for one piece at most.
//!
//! Invariant: the next piece is read when those before are paid for. What was not used is not saved up, but for
//! what makes good the time that a piece takes to be read.

use crate::{config::Tuning, types::Instant};
use std::time::Duration;

/// A heartbeat's part that may be saved up. A share of it, as it bounds what waits for a turn of anything else.
const SHARE: u32 = 16;
/// In each byte; a limit of so many bytes in a second brings its number of these in a nanosecond.
const PARTS: i128 = 1_000_000_000;

#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    /// In parts of a byte; negative: more than that was sent.
    left: i128,
    /// Up to when it was filled.
    filled: Instant,
}

impl Allowance {
    pub(super) const fn new(now: Instant) -> Self {
        Self { left: 0, filled: now }
    }

    /// Fills it with what the time since the last call brings.
    pub(super) fn fill(&mut self, tuning: &Tuning, now: Instant) {
        let brings = |time: Duration| rate(tuning).saturating_mul(time.as_nanos() as i128);
        let passed = now.since(std::mem::replace(&mut self.filled, now));
        self.left = match tuning.transfer_bytes_per_second {
            0 => 0,
            _ => self.left.saturating_add(brings(passed)).min(brings(tuning.heartbeat / SHARE)),
        };
    }

    /// What the time before brought comes first: it may be more than can be saved up.
    pub(super) fn spend(&mut self, bytes: usize, tuning: &Tuning, now: Instant) {
        self.fill(tuning, now);
        let is_limited = tuning.transfer_bytes_per_second > 0;
        if is_limited && !cfg!(lakebed_break = "send_without_a_limit") {
            self.left = self.left.saturating_sub((bytes as i128).saturating_mul(PARTS));
        }
    }

    /// When the next piece may be read; `None`: now.
    pub(super) fn wait(&self, tuning: &Tuning) -> Option<Instant> {
        let (owed, rate) = (-self.left, rate(tuning));
        (owed > 0 && rate > 0).then(|| {
            let nanos = u64::try_from((owed - 1) / rate + 1).unwrap_or(u64::MAX);
            self.filled.after(Duration::from_nanos(nanos))
        })
    }
}

const fn rate(tuning: &Tuning) -> i128 {
    tuning.transfer_bytes_per_second as i128
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limited(bytes_per_second: u64) -> Tuning {
        Tuning { transfer_bytes_per_second: bytes_per_second, ..Tuning::default() }
    }

    #[test]
    fn without_a_limit_nothing_is_waited_for() {
        let (mut allowance, unlimited) = (Allowance::new(Instant(0)), limited(0));
        for at in 0..3 {
            allowance.spend(usize::MAX, &unlimited, Instant(at));
            assert_eq!(allowance.wait(&unlimited), None);
        }
        assert_eq!(allowance.wait(&limited(1)), None, "what was sent before there was one is free");
    }

    #[test]
    fn a_piece_is_paid_for_before_the_next_to_the_nanosecond() {
        for rate in [1, 3, 1_000, 128 << 20, u64::MAX] {
            let (tuning, mut allowance) = (limited(rate), Allowance::new(Instant(7)));
            allowance.spend(1 << 20, &tuning, Instant(7));
            let paid = allowance.wait(&tuning).expect("it is owed for");
            let nanos = ((1_u128 << 20) * 1_000_000_000).div_ceil(u128::from(rate));
            assert_eq!(u128::from(paid.0), 7 + nanos, "{rate} in a second");
            allowance.fill(&tuning, Instant(paid.0 - 1));
            assert_eq!(allowance.wait(&tuning), Some(paid), "a nanosecond less does not do");
            allowance.fill(&tuning, paid);
            assert_eq!(allowance.wait(&tuning), None);
        }
    }

    /// However late each piece is read, as long as it is within what may be saved up, the limit is reached.
    #[test]
    fn what_is_sent_is_what_the_limit_says_and_no_more_at_one_time_than_its_share() {
        const PIECE: usize = 1_000;
        let tuning = limited(100_000);
        let late = tuning.heartbeat / SHARE / 2;
        let (mut allowance, mut now, mut sent) = (Allowance::new(Instant(0)), Instant(0), 0);
        while now < Instant(0).after(SECOND) {
            now = allowance.wait(&tuning).unwrap_or(now).after(late);
            allowance.spend(PIECE, &tuning, now);
            sent += PIECE;
        }
        assert!((99_000..=102_000).contains(&sent), "{sent} bytes in a second");
        let idle = now.after(SECOND * 1_000);
        allowance.spend(PIECE, &tuning, idle);
        let paid = allowance.wait(&tuning).expect("a share of 625 bytes does not pay for it");
        assert_eq!(paid, idle.after(SECOND * 375 / 100_000), "no more than that was saved up");
    }

    #[test]
    fn the_slowest_limit_is_no_overflow() {
        let (tuning, mut allowance) = (limited(1), Allowance::new(Instant(0)));
        allowance.spend(usize::MAX, &tuning, Instant(0));
        allowance.spend(usize::MAX, &tuning, Instant(0));
        assert_eq!(allowance.wait(&tuning), Some(Instant(u64::MAX)));
        allowance.fill(&tuning, Instant(u64::MAX));
        assert!(allowance.wait(&tuning).is_some());
    }

    #[test]
    fn a_limit_that_is_taken_away_leaves_nothing_owed() {
        let mut allowance = Allowance::new(Instant(0));
        allowance.spend(1 << 20, &limited(1), Instant(0));
        assert!(allowance.wait(&limited(1)).is_some());
        assert_eq!(allowance.wait(&limited(0)), None);
        allowance.fill(&limited(0), Instant(0));
        assert_eq!(allowance.wait(&limited(1)), None, "nor is it when there is one again");
    }
}
