//! What many runs came to, all together: the same in whatever order, and on however many machines,
//! they were run.

use crate::{Report, Stats};
use lakebed::{Mark, tape::Digest};
use std::ops::AddAssign;

/// Digests of sweeps count up to here: sums of thousands of them are exact wherever numbers are
/// floats, so that shards are merged with any tool.
pub const DIGESTS: u64 = 1 << 40;

/// The sum of some runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Totals {
    /// Runs.
    pub seeds: u64,
    /// Of those, runs in which an invariant broke.
    pub failures: u64,
    /// What happened in them.
    pub stats: Stats,
    /// Of all of them, runs in which a power cut met writes that were not durable.
    pub seeds_crashed_with_writes_pending: u64,
    /// Simulated nanoseconds.
    pub time: u64,
    /// Of the digests of all runs; below [`DIGESTS`], by which sums of several are to be taken.
    pub digest: u64,
    /// In how many runs each of [`Mark::ALL`] was met.
    pub marks: Vec<u64>,
}

impl Default for Totals {
    fn default() -> Self {
        let (stats, marks) = (Stats::default(), vec![0; Mark::ALL.len()]);
        Self {
            seeds: 0,
            failures: 0,
            stats,
            seeds_crashed_with_writes_pending: 0,
            time: 0,
            digest: 0,
            marks,
        }
    }
}

impl Totals {
    /// One more run of this scenario.
    pub fn add(&mut self, scenario: &str, report: &Report, failed: bool) {
        self.seeds += 1;
        self.failures += u64::from(failed);
        self.stats += report.stats;
        self.seeds_crashed_with_writes_pending +=
            u64::from(report.stats.crashes_with_writes_pending > 0);
        self.time += report.time;
        let mut digest = Digest::default();
        digest.bytes(scenario.as_bytes());
        digest.number(report.seed);
        digest.number(report.digest);
        self.digest = (self.digest + digest.value() % DIGESTS) % DIGESTS;
        for (count, mark) in self.marks.iter_mut().zip(Mark::ALL) {
            *count += u64::from(report.marks.has(*mark));
        }
    }

    /// Each mark, and in how many runs it was met.
    pub fn marks(&self) -> impl Iterator<Item = (Mark, u64)> {
        Mark::ALL.iter().copied().zip(self.marks.iter().copied())
    }
}

impl AddAssign<&Self> for Totals {
    fn add_assign(&mut self, other: &Self) {
        let Self { seeds, failures, stats, seeds_crashed_with_writes_pending, time, digest, marks } =
            other;
        self.seeds += seeds;
        self.failures += failures;
        self.stats += *stats;
        self.seeds_crashed_with_writes_pending += seeds_crashed_with_writes_pending;
        self.time += time;
        self.digest = (self.digest + digest) % DIGESTS;
        self.marks.iter_mut().zip(marks).for_each(|(sum, count)| *sum += count);
    }
}

impl AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        let Self {
            happened,
            events,
            crashes,
            crashes_with_writes_pending,
            kills,
            requests,
            answered,
            unknown,
            messages_lost,
            messages_stale,
            snapshots,
            compactions,
            disk_failures,
            refusals,
            removals,
            amnesias,
            untold,
            elections,
            faults,
        } = other;
        self.happened += happened;
        self.events += events;
        self.crashes += crashes;
        self.crashes_with_writes_pending += crashes_with_writes_pending;
        self.kills += kills;
        self.requests += requests;
        self.answered += answered;
        self.unknown += unknown;
        self.messages_lost += messages_lost;
        self.messages_stale += messages_stale;
        self.snapshots += snapshots;
        self.compactions += compactions;
        self.disk_failures += disk_failures;
        self.refusals += refusals;
        self.removals += removals;
        self.amnesias += amnesias;
        self.untold += untold;
        self.elections += elections;
        self.faults.iter_mut().zip(faults).for_each(|(sum, count)| *sum += count);
    }
}
