//! Seeds, many of them, from any `cargo test`.

use crate::report::{Failure, Report};
use std::env;

/// How many seeds a test runs unless it is told otherwise.
const SEEDS_DEFAULT: u64 = 20;

/// A seed, and whether its run is watched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seed {
    /// The number from which everything is drawn.
    pub number: u64,
    watch: Watch,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Watch {
    No,
    Keep,
    Print,
}

impl Seed {
    /// A seed whose run is not traced.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self { number, watch: Watch::No }
    }

    /// The same seed; the last lines of its run are kept for the report.
    #[must_use]
    pub const fn traced(self) -> Self {
        Self { watch: Watch::Keep, ..self }
    }

    /// The same seed; each event and action of its run is printed as it happens.
    #[must_use]
    pub const fn printed(self) -> Self {
        Self { watch: Watch::Print, ..self }
    }

    pub(crate) fn is_traced(self) -> bool {
        self.watch != Watch::No
    }

    pub(crate) fn is_printed(self) -> bool {
        self.watch == Watch::Print
    }
}

/// Runs a scenario over a few seeds, and panics with one screen about the first that fails.
///
/// `SIM_SEEDS=n` runs n of them, `SIM_SEED=s` that one alone, `SIM_TRACE=1` prints each event and
/// action as it happens, `SIM_TWICE=1` runs each seed twice and compares the digests. Every test
/// runs its first seed twice anyway.
///
/// # Panics
/// When a seed fails, or does not do the same twice.
pub fn check(name: &str, run: impl Fn(Seed) -> Result<Report, Box<Failure>>) -> Vec<Report> {
    let twice = number("SIM_TWICE").is_some_and(|n| n > 0);
    let watch = if number("SIM_TRACE").is_some_and(|n| n > 0) { Watch::Print } else { Watch::No };
    let (first, count) = match number("SIM_SEED") {
        Some(seed) => (seed, 1),
        None => (0, number("SIM_SEEDS").unwrap_or(SEEDS_DEFAULT)),
    };
    let seeds = (first..first + count).map(|number| Seed { number, watch });
    seeds.map(|seed| run_one(name, &run, seed, twice || seed.number == first)).collect()
}

fn run_one(
    name: &str,
    run: &impl Fn(Seed) -> Result<Report, Box<Failure>>,
    seed: Seed,
    twice: bool,
) -> Report {
    let report = match run(seed) {
        Ok(report) => report,
        // Once more, to see what led there.
        Err(failure) => {
            let traced = run(seed.traced()).err().unwrap_or(failure);
            panic!("{}", screen(name, &traced))
        }
    };
    if twice {
        let again = run(Seed::new(seed.number)).unwrap_or_else(|failure| failure.report);
        assert_eq!(
            (again.digest, again.stats),
            (report.digest, report.stats),
            "{name}: seed {} does not do the same twice",
            seed.number
        );
    }
    report
}

/// What a failing seed prints.
#[must_use]
pub fn screen(name: &str, failure: &Failure) -> String {
    let seed = failure.report.seed;
    format!(
        "\nscenario {name}, {failure}  replay: SIM_SEED={seed} cargo test {name}\n  \
         trace:  SIM_SEED={seed} SIM_TRACE=1 cargo test {name} -- --nocapture\n"
    )
}

fn number(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not {value:?}")))
}
