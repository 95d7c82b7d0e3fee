//! What a run came to, or why it came to nothing.

use lakebed::{Mark, Marks};
use std::{fmt, ops::AddAssign};

/// How many of the last things that were done to the machines are told of a failure.
const LINES_MAX: usize = 40;

/// What happened in a run, or in several.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// A hash of all that every engine was told and did, byte for byte, of what was done to the
    /// machines and of what clients were told. Of several runs: the sum of theirs.
    pub digest: u64,
    /// Runs.
    pub seeds: u64,
    /// Simulated nanoseconds.
    pub simulated: u64,
    /// Processes of nodes, and so tapes.
    pub lives: u64,
    /// Calls of the engines' `handle`, each replayed into a bare engine.
    pub steps: u64,
    /// Faults that struck.
    pub faults: u64,
    /// Machines that lost power.
    pub power_cuts: u64,
    /// Those whose disks could lose sectors by it.
    pub power_cuts_with_writes_pending: u64,
    /// Processes that were killed, or ended by themselves.
    pub kills: u64,
    /// Of those, nodes that ended by themselves: as asked, or because their disk failed.
    pub halts: u64,
    /// Connections on which both ends made sure of each other.
    pub connections: u64,
    /// Connections that were reset.
    pub resets: u64,
    /// Operations of disks.
    pub disk_operations: u64,
    /// Pieces of streams.
    pub packets: u64,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Writes that were refused.
    pub refused: u64,
    /// Writes of which nobody knows.
    pub unknown: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// The rare situations that the last lives of the nodes met.
    pub marks: Marks,
}

impl Report {
    /// Whether this was met.
    #[must_use]
    pub const fn met(&self, mark: Mark) -> bool {
        self.marks.has(mark)
    }
}

impl AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        self.digest = self.digest.wrapping_add(other.digest);
        self.seeds += other.seeds;
        self.simulated += other.simulated;
        self.lives += other.lives;
        self.steps += other.steps;
        self.faults += other.faults;
        self.power_cuts += other.power_cuts;
        self.power_cuts_with_writes_pending += other.power_cuts_with_writes_pending;
        self.kills += other.kills;
        self.halts += other.halts;
        self.connections += other.connections;
        self.resets += other.resets;
        self.disk_operations += other.disk_operations;
        self.packets += other.packets;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.reads += other.reads;
        self.marks.add(other.marks);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let simulated = self.simulated / 1_000_000_000;
        let marks = Mark::ALL.iter().filter(|mark| self.met(**mark)).count();
        write!(
            f,
            "{} seeds, {simulated} s simulated, digest {:016x}\n\
             {} lives, {} steps replayed, {} of {} marks in last lives\n\
             {} faults: {} power cuts ({} with writes pending), {} kills, {} halts, {} resets\n\
             {} disk operations, {} packets, {} connections\n\
             {} writes acknowledged, {} refused, {} unknown; {} reads",
            self.seeds,
            self.digest,
            self.lives,
            self.steps,
            marks,
            Mark::ALL.len(),
            self.faults,
            self.power_cuts,
            self.power_cuts_with_writes_pending,
            self.kills,
            self.halts,
            self.resets,
            self.disk_operations,
            self.packets,
            self.connections,
            self.acknowledged,
            self.refused,
            self.unknown,
            self.reads,
        )
    }
}

/// A seed whose run broke a promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Which.
    pub seed: u64,
    /// Which promise, and how.
    pub what: String,
    /// What had been done to the machines, a line each.
    pub log: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, what, log } = self;
        writeln!(f, "seed {seed}: {what}\n  the last things done to the machines:")?;
        let lines: Vec<&str> = log.lines().collect();
        for line in &lines[lines.len().saturating_sub(LINES_MAX)..] {
            writeln!(f, "  {line}")?;
        }
        write!(f, "  once more, in madsim/:  SIM_SEED={seed} cargo test --test storms what_was")
    }
}

impl std::error::Error for Failure {}
