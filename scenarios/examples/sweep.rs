//! Runs many seeds of one storm and says what they came to.
//!
//! `cargo run --release -p lakebed-scenarios --example sweep -- storm_of_three 0..10000 2`
//!
//! With `SIM_TRACE` set it prints each event and action as it happens; with `SIM_FIRST` set it
//! ends with the first seed that fails.

use lakebed_scenarios::{STORMS, Scenario};
use lakebed_sim::{Report, Seed, check::screen};
use std::{
    env,
    ops::Range,
    panic,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

/// After how many runs it says how far it is.
const PROGRESS: u64 = 5_000;

/// What the runs so far came to, all together.
#[derive(Default)]
struct Sum {
    runs: u64,
    failures: Vec<u64>,
    /// Runs that fell short of what a storm must hold.
    calm: u64,
    stats: lakebed_sim::Stats,
    time: u64,
    digest: u64,
}

impl Sum {
    fn add(&mut self, report: &Report) {
        let (sum, stats) = (&mut self.stats, report.stats);
        self.runs += 1;
        self.time += report.time;
        // Not the order of seeds: threads end when they end.
        self.digest ^= report.digest.rotate_left((report.seed % 64) as u32);
        let enough = stats.events >= 2_000
            && stats.answered >= 100
            && stats.crashes_with_writes_pending >= 2;
        self.calm += u64::from(!enough);
        sum.events += stats.events;
        sum.crashes += stats.crashes;
        sum.crashes_with_writes_pending += stats.crashes_with_writes_pending;
        sum.kills += stats.kills;
        sum.requests += stats.requests;
        sum.answered += stats.answered;
        sum.unknown += stats.unknown;
        sum.messages_lost += stats.messages_lost;
        sum.snapshots += stats.snapshots;
        sum.compactions += stats.compactions;
        sum.disk_failures += stats.disk_failures;
        sum.elections += stats.elections;
    }
}

fn main() -> ExitCode {
    let Some((name, scenario, seeds, jobs)) = arguments() else {
        let names: Vec<&str> = STORMS.iter().map(|(name, _)| *name).collect();
        eprintln!("sweep SCENARIO FIRST..END [JOBS]; scenarios: {}", names.join(" "));
        return ExitCode::from(2);
    };
    // A panic of an engine is a violation, reported with its seed: once is enough.
    panic::set_hook(Box::new(|_| {}));
    let begun = Instant::now();
    let sum = sweep(name, scenario, &seeds, jobs);
    print(name, &sum, begun);
    if sum.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn arguments() -> Option<(&'static str, Scenario, Range<u64>, u64)> {
    let mut arguments = env::args().skip(1);
    let wanted = arguments.next()?;
    let &(name, scenario) = STORMS.iter().find(|(name, _)| *name == wanted)?;
    let seeds = arguments.next()?;
    let (first, end) = seeds.split_once("..")?;
    let jobs = arguments.next().map_or(Some(1), |jobs| jobs.parse().ok())?;
    Some((name, scenario, first.parse().ok()?..end.parse().ok()?, jobs))
}

fn sweep(name: &str, scenario: Scenario, seeds: &Range<u64>, jobs: u64) -> Sum {
    let (next, sum) = (AtomicU64::new(seeds.start), Mutex::new(Sum::default()));
    let is_over = |sum: &Mutex<Sum>| {
        let found = !sum.lock().expect("no thread died with it").failures.is_empty();
        found && env::var_os("SIM_FIRST").is_some()
    };
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || is_over(&sum) {
                        return;
                    }
                    run(name, scenario, seed, &sum);
                }
            });
        }
    });
    sum.into_inner().expect("no thread died with it")
}

fn run(name: &str, scenario: Scenario, seed: u64, sum: &Mutex<Sum>) {
    let seed = Seed::new(seed);
    let result = scenario(if env::var_os("SIM_TRACE").is_some() { seed.printed() } else { seed });
    let report = match &result {
        Ok(report) => report,
        Err(failure) => {
            let again = scenario(seed.traced());
            println!("{}", screen(name, again.as_ref().err().unwrap_or(failure)));
            &failure.report
        }
    };
    let mut sum = sum.lock().expect("no thread died with it");
    sum.add(report);
    if result.is_err() {
        sum.failures.push(seed.number);
    }
    if sum.runs.is_multiple_of(PROGRESS) {
        eprintln!("{name}: {} runs, {} failures so far", sum.runs, sum.failures.len());
    }
}

fn print(name: &str, sum: &Sum, begun: Instant) {
    let Sum { runs, failures, calm, stats, time, digest } = sum;
    let wall = begun.elapsed().as_millis().max(1) as u64;
    println!("{name}: {runs} runs, {} failures {failures:?}", failures.len());
    println!("  {} seeds/s, {} events/s", runs * 1000 / wall, stats.events * 1000 / wall);
    println!("  {} s simulated in {} ms", time / 1_000_000_000, wall);
    println!("  {stats:?}");
    println!("  {calm} runs short of 2000 events, 100 operations, 2 crashes with sectors pending");
    println!("  digest {digest:016x}");
}
