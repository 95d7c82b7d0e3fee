//! `lakebed sim run`: many seeds, on all processors.

use super::{
    args::{Run, Seeds, Shard},
    commands, stop,
    summary::Summary,
};
use crate::{args::refuse, log::note, say};
use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use lakebed_scenarios::{SCENARIOS, Scenario};
use lakebed_sim::{Seed, Totals, check::screen};
use std::{
    env,
    io::IsTerminal,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

/// How often the progress is shown on a terminal, and elsewhere.
const LOOK: Duration = Duration::from_millis(100);
const LINE: Duration = Duration::from_secs(10);
/// So many failures are told at length; of more, only their seeds.
const SCREENS_MAX: usize = 5;

/// Runs it.
pub(super) fn run(run: &Run) -> Result<ExitCode> {
    let shard = Shard::of(run.shard, |name| env::var_os(name));
    let shard = shard.unwrap_or_else(|problem| refuse(problem));
    let all = || thread::available_parallelism().map_or(1, Into::into) as u64;
    let jobs = run.jobs.map_or_else(all, Into::into);
    let sweep = Sweep::new(run.scenario, run.seeds, shard);
    stop::listen();
    let begun = Instant::now();
    sweep.run(jobs);
    let (totals, failed) = sweep.sum.into_inner().expect("no thread died with it");
    let scenario = run.scenario.map_or("all", |scenario| scenario.name);
    let (failures, wall) = (totals.failures, begun.elapsed());
    let summary = Summary { scenario, totals, wall, failed };
    if run.json {
        say(summary.json())
    } else {
        say(&summary)
    }
    Ok(match failures {
        0 if stop::is_asked() => ExitCode::from(stop::INTERRUPTED),
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Seeds to be run, and what those that were run came to.
struct Sweep {
    scenarios: Vec<&'static Scenario>,
    seeds: Seeds,
    shard: Shard,
    /// How many of the seeds are this shard's.
    count: u64,
    next: AtomicU64,
    sum: Mutex<(Totals, Vec<(&'static str, u64)>)>,
    bar: ProgressBar,
}

impl Sweep {
    fn new(scenario: Option<&'static Scenario>, seeds: Seeds, shard: Shard) -> Self {
        let scenarios = scenario.map_or_else(|| SCENARIOS.iter().collect(), |one| vec![one]);
        let count = (seeds.end - seeds.first).saturating_sub(shard.index).div_ceil(shard.of);
        let bar = ProgressBar::new(count.saturating_mul(scenarios.len() as u64));
        let template = "{pos}/{len} seeds [{bar:25}] {per_sec}, {eta} left; {msg}";
        let style = ProgressStyle::with_template(template).expect("the template is ours");
        bar.set_style(style.progress_chars("=> "));
        let (next, sum) = (AtomicU64::new(0), Mutex::default());
        Self { scenarios, seeds, shard, count, next, sum, bar }
    }

    fn run(&self, jobs: u64) {
        let (sender, ended) = channel();
        let seeds = self.bar.length().unwrap_or(0);
        thread::scope(|scope| {
            for _ in 0..jobs.min(seeds) {
                let sender: Sender<()> = sender.clone();
                scope.spawn(move || {
                    // Dropped when this thread ends, however it does.
                    let _sender = sender;
                    self.work();
                });
            }
            drop(sender);
            let mut said = Instant::now();
            while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                self.show(&mut said);
            }
        });
        self.bar.finish_and_clear();
        let (run, all) = (self.bar.position(), self.bar.length().unwrap_or(0));
        if run < all {
            note(format_args!("stopped early: {run} of {all} seeds"));
        }
    }

    fn work(&self) {
        while !stop::is_asked() {
            let Some((scenario, seed)) = self.at(self.next.fetch_add(1, Relaxed)) else { return };
            self.one(scenario, seed);
        }
    }

    /// The n-th run of this shard.
    fn at(&self, n: u64) -> Option<(&'static Scenario, u64)> {
        let scenario = n.checked_div(self.count)?;
        let scenario = self.scenarios.get(usize::try_from(scenario).ok()?)?;
        Some((scenario, self.seeds.first + self.shard.index + n % self.count * self.shard.of))
    }

    fn one(&self, scenario: &'static Scenario, seed: u64) {
        let result = (scenario.run)(Seed::new(seed));
        let failed = result.is_err();
        let report = result.as_ref().unwrap_or_else(|failure| &failure.report);
        let mut sum = self.sum.lock().expect("no thread died with it");
        let (totals, failures) = &mut *sum;
        totals.add(scenario.name, report, failed);
        let tell = failed && failures.len() < SCREENS_MAX;
        failures.extend(failed.then_some((scenario.name, seed)));
        drop(sum);
        self.bar.inc(1);
        if tell && let Err(failure) = result {
            // Once more, to see what led there.
            let traced = (scenario.run)(Seed::new(seed).traced()).err().unwrap_or(failure);
            let screen =
                screen(scenario.name, &traced, &commands(scenario.name, &seed.to_string()));
            self.bar.suspend(|| note(screen));
        }
    }

    fn show(&self, said: &mut Instant) {
        let shown = shown(&self.sum.lock().expect("no thread died with it").0);
        if std::io::stderr().is_terminal() {
            self.bar.set_message(shown);
        } else if said.elapsed() >= LINE {
            *said = Instant::now();
            let (run, all) = (self.bar.position(), self.bar.length().unwrap_or(0));
            note(format_args!("{}; {shown}", pace(run, all, self.bar.elapsed())));
        }
    }
}

/// What the runs so far came to.
fn shown(totals: &Totals) -> String {
    format!(
        "{} s simulated, {} faults, {} of {} marks, {} failures",
        totals.time / 1_000_000_000,
        totals.stats.faults.iter().sum::<u64>(),
        totals.marks.iter().filter(|runs| **runs > 0).count(),
        totals.marks.len(),
        totals.failures
    )
}

/// How far it is, and how fast, where no bar shows it.
fn pace(run: u64, all: u64, took: Duration) -> String {
    let per_second = u128::from(run) * 1000 / took.as_millis().max(1);
    format!("{run} of {all} seeds, {per_second} seeds/s")
}

#[cfg(test)]
mod tests {
    use super::*;
    use lakebed_sim::plan::kind_names;
    use std::collections::BTreeSet;

    fn runs(first: u64, end: u64, of: u64) -> Vec<BTreeSet<(&'static str, u64)>> {
        let shard = |index| {
            let sweep = Sweep::new(None, Seeds { first, end }, Shard { index, of });
            (0..).map_while(|n| sweep.at(n)).map(|(scenario, seed)| (scenario.name, seed)).collect()
        };
        (0..of).map(shard).collect()
    }

    /// Partitions, pauses and clocks were no faults, and a log did not tell how fast it goes.
    #[test]
    fn every_fault_that_struck_is_shown_and_how_fast_seeds_are_run() {
        let mut totals = Totals { time: 7_900_000_000, failures: 2, ..Totals::default() };
        (totals.stats.crashes, totals.marks[3]) = (5, 1);
        for name in ["power-cut", "partition", "pause", "stalled-clock"] {
            let number = kind_names().position(|kind| kind == name).unwrap();
            totals.stats.faults[number] = 10;
        }
        let marks = totals.marks.len();
        let expected = format!("7 s simulated, 40 faults, 1 of {marks} marks, 2 failures");
        assert_eq!(shown(&totals), expected);
        assert_eq!(pace(90, 4000, Duration::from_secs(20)), "90 of 4000 seeds, 4 seeds/s");
        assert_eq!(pace(0, 4000, Duration::ZERO), "0 of 4000 seeds, 0 seeds/s");
    }

    #[test]
    fn shards_together_run_each_seed_of_each_scenario_once() {
        for (first, end, of) in [(0, 10, 1), (5, 17, 4), (0, 3, 5)] {
            let shards = runs(first, end, of);
            let all: BTreeSet<_> = shards.iter().flatten().copied().collect();
            let count = shards.iter().map(BTreeSet::len).sum::<usize>();
            assert_eq!(count, all.len(), "none twice");
            assert_eq!(all.len() as u64, (end - first) * SCENARIOS.len() as u64);
            assert!(all.iter().all(|(_, seed)| (first..end).contains(seed)));
        }
    }
}
