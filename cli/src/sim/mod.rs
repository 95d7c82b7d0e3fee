//! `lakebed sim`: scenarios by seed, in sweeps or one at a time.
//!
//! Knows no world and no oracle; those are the simulator's. Exit codes: 0 when every seed passes, 1
//! when one fails, 2 when a file or the command line cannot be meant.

pub(crate) mod args;
mod exhaust;
mod one;
mod run;
mod stop;
mod summary;

use crate::say;
use anyhow::Result;
use args::Sim;
use lakebed_scenarios::{SCENARIOS, Scenario, stories};
use lakebed_sim::check::{Commands, quoted};
use std::process::ExitCode;

/// Does what is asked for.
pub(crate) fn run(sim: &Sim) -> Result<ExitCode> {
    match sim {
        Sim::List => {
            let line = |of: &Scenario| say(format_args!("{:<17} {}", of.name, of.about));
            SCENARIOS.iter().for_each(line);
            say("\nstories, to be crashed everywhere (exhaust, flips):");
            stories::all().for_each(|told| line(&told.scenario));
            Ok(ExitCode::SUCCESS)
        }
        Sim::Run(run) => run::run(run),
        Sim::Replay(one) => one::replay(one),
        Sim::Trace(one) => one::trace(one),
        Sim::Plan(planned) => one::plan(planned),
        Sim::Shrink(kept) => one::shrink(kept),
        Sim::Exhaust(exhaust) => exhaust::exhaust(exhaust),
        Sim::Flips(flips) => exhaust::flips(flips),
    }
}

/// What to type to see this seed, or this file, again.
fn commands(scenario: &str, which: &str) -> Commands {
    let (of, which) = (["replay", "trace", "shrink"], quoted(which));
    Commands(of.map(|what| (what, format!("lakebed sim {what} {scenario} {which}"))).into())
}
