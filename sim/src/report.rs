//! What a run came to, and what a failing one prints: one screen.

use crate::{
    Workload,
    check::Seed,
    oracle::Violation,
    plan::Time,
    world::{Stats, World},
};
use lakebed::StateMachine;
use std::fmt;

/// A run that ended, well or badly.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Simulated nanoseconds.
    pub time: u64,
    /// What happened in it.
    pub stats: Stats,
    /// A hash of every event and action.
    pub digest: u64,
    /// The faults it was planned with, a line each.
    pub faults: Vec<String>,
}

impl Report {
    pub(crate) fn of<M: StateMachine, W: Workload>(seed: Seed, world: &World<M, W>) -> Self {
        Self {
            seed: seed.number,
            time: world.now(),
            stats: world.stats(),
            digest: world.digest(),
            faults: world.plan().faults.iter().map(ToString::to_string).collect(),
        }
    }
}

/// A run in which an invariant broke.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The run up to there.
    pub report: Report,
    /// What broke.
    pub violation: Violation,
    /// The last lines of its trace, if it was traced.
    pub lines: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { report, violation, lines } = self;
        let (seed, stats) = (report.seed, report.stats);
        writeln!(f, "seed {seed}, {}, event {}", Time(report.time), stats.events)?;
        writeln!(f, "  broken: {violation}")?;
        if let Some(node) = violation.node {
            writeln!(f, "  node: {}", node + 1)?;
        }
        for line in lines {
            writeln!(f, "  {}", shortened(line))?;
        }
        writeln!(f, "  plan: {} faults, digest {:016x}", report.faults.len(), report.digest)?;
        for fault in &report.faults {
            writeln!(f, "    {fault}")?;
        }
        Ok(())
    }
}

/// A line that fits on a screen.
fn shortened(line: &str) -> &str {
    line.char_indices().nth(150).map_or(line, |(end, _)| &line[..end])
}
