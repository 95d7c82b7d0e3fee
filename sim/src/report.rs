//! What a run came to, and what a failing one prints: one screen.

use crate::{
    Workload,
    oracle::Violation,
    plan::{Plan, Time},
    seed::Seed,
    suspect::suspect,
    world::{Stats, World},
};
use lakebed::{Marks, StateMachine};
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
    /// The rare situations that engines met in it.
    pub marks: Marks,
    /// What it was.
    pub plan: Plan,
    /// How many operations each client had come to when everything was healed, or at the end.
    pub asked: Vec<u32>,
    /// What is wrong with the state machine itself, as far as a run that was traced showed.
    pub suspicion: Option<String>,
    /// All of its trace, if it was kept.
    pub trace: Vec<String>,
}

impl Report {
    pub(crate) fn of<M: StateMachine, W: Workload>(seed: &Seed, world: &World<M, W>) -> Self {
        let suspected = || suspect(|| world.fresh_machine(), world.inputs()?);
        let trace = || world.last_lines(None, usize::MAX);
        Self {
            seed: seed.number,
            time: world.now(),
            stats: world.stats(),
            digest: world.digest(),
            marks: world.marks(),
            plan: world.plan().clone(),
            asked: world.asked(),
            suspicion: seed.is_traced().then(suspected).flatten(),
            trace: if seed.is_kept() { trace() } else { Vec::new() },
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

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.violation)
    }
}

impl std::error::Error for Violation {}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { report, violation, lines } = self;
        let (seed, stats) = (report.seed, report.stats);
        writeln!(f, "seed {seed}, {}, event {}", Time(report.time), stats.events)?;
        writeln!(f, "  broken: {violation}")?;
        if let Some(suspicion) = &report.suspicion {
            writeln!(f, "  cause: {suspicion}")?;
        }
        if let Some(node) = violation.node {
            writeln!(f, "  node: {}", node + 1)?;
        }
        for line in lines {
            writeln!(f, "  {}", shortened(line))?;
        }
        let faults = &report.plan.faults;
        writeln!(f, "  plan: {} faults, digest {:016x}", faults.len(), report.digest)?;
        for fault in faults {
            writeln!(f, "    {fault}")?;
        }
        Ok(())
    }
}

/// A line that fits on a screen.
fn shortened(line: &str) -> &str {
    line.char_indices().nth(150).map_or(line, |(end, _)| &line[..end])
}
