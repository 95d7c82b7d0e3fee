//! What a sweep came to, for people and for machines.

use crate::counted;
use lakebed_sim::{Totals, plan::kind_names};
use serde::Serialize;
use std::{collections::BTreeMap, fmt, time::Duration};

/// A sweep that ended.
pub(super) struct Summary {
    pub(super) scenario: &'static str,
    pub(super) totals: Totals,
    pub(super) wall: Duration,
    /// Which seeds failed, and of which scenario.
    pub(super) failed: Vec<(&'static str, u64)>,
}

/// As one object. Its numbers may be added to those of other shards, the digest modulo 2^40
/// (docs/simulation.md).
#[derive(Serialize)]
struct Json {
    scenario: &'static str,
    seeds: u64,
    failures: u64,
    events: u64,
    crashes: u64,
    crashes_with_writes_pending: u64,
    seeds_crashed_with_writes_pending: u64,
    client_operations: u64,
    sim_seconds: f64,
    wall_seconds: f64,
    refusals: u64,
    amnesias: u64,
    digest: u64,
    /// Scenario and seed of each failure; texts, which no sum of numbers takes in.
    failed: Vec<String>,
    faults: BTreeMap<&'static str, u64>,
    marks: BTreeMap<String, u64>,
}

impl Summary {
    /// One line, one object.
    pub(super) fn json(&self) -> String {
        let Totals { seeds, failures, stats, time, digest, .. } = self.totals;
        let marks = self.totals.marks().map(|(mark, runs)| (format!("{mark:?}"), runs));
        let json = Json {
            scenario: self.scenario,
            seeds,
            failures,
            events: stats.events,
            crashes: stats.crashes,
            crashes_with_writes_pending: stats.crashes_with_writes_pending,
            seeds_crashed_with_writes_pending: self.totals.seeds_crashed_with_writes_pending,
            client_operations: stats.answered,
            sim_seconds: Duration::from_nanos(time).as_secs_f64(),
            wall_seconds: self.wall.as_secs_f64(),
            refusals: stats.refusals,
            amnesias: stats.amnesias,
            digest,
            failed: self.failed.iter().map(|(name, seed)| format!("{name} {seed}")).collect(),
            faults: kind_names().zip(stats.faults).collect(),
            marks: marks.collect(),
        };
        serde_json::to_string(&json).expect("its keys are strings")
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals { seeds, failures, stats, time, digest, .. } = self.totals;
        let wall = self.wall.as_millis().max(1) as u64;
        let simulated = time / 1_000_000_000;
        let (run, failed) = (counted(seeds, "seed"), counted(failures, "failure"));
        writeln!(f, "{}: {run}, {failed}", self.scenario)?;
        for (scenario, seed) in &self.failed {
            writeln!(f, "  failed: {scenario} {seed}")?;
        }
        let (pace, events) = (seeds * 1000 / wall, stats.events * 1000 / wall);
        writeln!(
            f,
            "  speed: {pace} seeds/s, {events} events/s in {}.{:03} s",
            wall / 1000,
            wall % 1000
        )?;
        writeln!(
            f,
            "  time: {simulated} s simulated, {} times real time",
            time / 1_000_000 / wall
        )?;
        writeln!(
            f,
            "  faults: {} power cuts ({} with writes pending, in {}), {} kills, {} disk failures, {} \
             messages lost, {} stale",
            stats.crashes,
            stats.crashes_with_writes_pending,
            counted(self.totals.seeds_crashed_with_writes_pending, "seed"),
            stats.kills,
            stats.disk_failures,
            stats.messages_lost,
            stats.messages_stale
        )?;
        writeln!(
            f,
            "  clients: {} operations answered of {}, {} of them unknown",
            stats.answered, stats.requests, stats.unknown
        )?;
        writeln!(
            f,
            "  nodes: {} elections, {} snapshots, {} compactions, {} events, {} refused, {} forgot",
            stats.elections,
            stats.snapshots,
            stats.compactions,
            stats.events,
            stats.refusals,
            stats.amnesias
        )?;
        let struck = kind_names().zip(stats.faults).filter(|(_, count)| *count > 0);
        let struck: Vec<_> = struck.map(|(name, count)| format!("{count} {name}")).collect();
        writeln!(f, "  struck: {}", struck.join(", "))?;
        self.marks(f)?;
        write!(f, "  digest: {digest}")
    }
}

impl Summary {
    fn marks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut marks: Vec<_> = self.totals.marks().collect();
        marks.sort_by_key(|(_, runs)| std::cmp::Reverse(*runs));
        let met = marks.iter().filter(|(_, runs)| *runs > 0).count();
        writeln!(f, "  marks: {met} of {} met; in how many runs:", marks.len())?;
        marks.iter().try_for_each(|(mark, runs)| writeln!(f, "  {runs:>10} {mark:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of more than five, which are told at length, no seed was told to whoever reads JSON.
    #[test]
    fn every_seed_that_failed_is_told() {
        let failed = (0..7).map(|seed| ("storm_of_one", u64::MAX - seed)).collect();
        let totals = Totals { failures: 7, ..Totals::default() };
        let summary = Summary { scenario: "all", totals, wall: Duration::ZERO, failed };
        let json: serde_json::Value = serde_json::from_str(&summary.json()).unwrap();
        let told = json["failed"].as_array().unwrap();
        assert_eq!((told.len(), &told[6]), (7, &"storm_of_one 18446744073709551609".into()));
    }
}
