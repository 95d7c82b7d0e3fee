//! How old what a client reads may be: nothing that was acknowledged is missing from it, or only what
//! was within a bound.
//!
//! ```text
//! LAKEBED STALE MILLISECONDS    +OK: from now on so much may be missing on this connection
//! LAKEBED STALE OFF             +OK: nothing any more
//! LAKEBED STALE                 the milliseconds; zero: nothing may
//! ```
//!
//! Knows no connection and no node. Invariant: without a word of the client's nothing may be missing.

use super::reader::Args;
use lakebed::{ReadMode, Timestamp};
use std::time::Duration;

/// The most that may be asked for: beyond it nobody who reads knows what they are told.
const MILLIS_MAX: u64 = 24 * 60 * 60 * 1000;

/// What is wrong with a bound that is none.
pub(crate) const WRONG: &str =
    "ERR LAKEBED STALE takes how many milliseconds may be missing, 1 to 86400000, or OFF";

/// What is asked of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
    Tell,
    Set(Stale),
}

/// What stands behind `LAKEBED STALE`.
pub(crate) fn parse(args: Args<'_>) -> Option<Asked> {
    if args.len() == 0 {
        return Some(Asked::Tell);
    }
    let [bound] = args.all()?;
    if bound.eq_ignore_ascii_case(b"OFF") {
        return Some(Asked::Set(Stale::default()));
    }
    let millis = std::str::from_utf8(bound).ok()?.parse().ok()?;
    let is_meant = (1..=MILLIS_MAX).contains(&millis);
    is_meant.then(|| Asked::Set(Stale::within(Duration::from_millis(millis))))
}

/// How much may be missing; by default nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Stale(Option<Duration>);

impl Stale {
    pub(crate) const NEVER: Self = Self(None);

    pub(crate) const fn within(bound: Duration) -> Self {
        Self(Some(bound))
    }

    pub(crate) const fn is_allowed(self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn millis(self) -> u64 {
        self.0.map_or(0, |bound| u64::try_from(bound.as_millis()).unwrap_or(u64::MAX))
    }

    /// How to read. Leases are linearizable too, as long as clocks keep what was declared of them; without
    /// such a word it takes a round.
    pub(crate) fn mode(self) -> ReadMode {
        self.0.map_or(ReadMode::Lease, |stale_max| ReadMode::Local { stale_max })
    }

    /// By which clock keys have expired: what expired within the bound may be told, and nothing older.
    pub(crate) fn clock(self, now: Timestamp) -> Timestamp {
        let bound = self.0.unwrap_or_default();
        // Zero would mean that nobody asks.
        Timestamp(now.0.saturating_sub(u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX)).max(1))
    }
}
