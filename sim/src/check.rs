//! Seeds, many of them, from any `cargo test`.

mod settings;

use crate::{
    Failure, Outcome, Report, Seed,
    plan::PlanFile,
    shrink::{Shrunk, shrink},
};
use settings::{Runs, Settings};
use std::{
    env, fmt, fs,
    io::{self, Write},
    ops::ControlFlow,
};

/// Runs a scenario over a few seeds, and panics with one screen about the first that fails.
///
/// | variable | what it does |
/// |---|---|
/// | `SIM_SEEDS=n` | runs `n` seeds, from 0 on |
/// | `SIM_SEED=s` | runs that one alone |
/// | `SIM_PLAN=file` | runs a plan that was kept |
/// | `SIM_TRACE=1` | prints each event and action as it happens |
/// | `SIM_TWICE=1` | runs each seed twice and compares, and looks at its machine; the first one always is |
/// | `SIM_SHRINK=file` | makes what fails as small as it can, and keeps it there |
///
/// Paths are relative to where the command was typed.
///
/// # Panics
/// When a seed fails, or does not do the same twice; when its machine, given the same commands by
/// itself, is not what replicas need (of the first seed, and of each with `SIM_TWICE`); when a
/// variable cannot be meant.
#[track_caller]
pub fn check(name: &str, run: impl Fn(Seed) -> Outcome) -> Vec<Report> {
    let settings = Settings::read(|variable| env::var_os(variable));
    let settings = settings.unwrap_or_else(|problem| panic!("{problem}"));
    let seeds = settings.seeds(name).unwrap_or_else(|problem| panic!("{problem}"));
    let mut reports = Vec::new();
    for (n, seed) in seeds.enumerate() {
        let watched = if settings.trace { seed.clone().printed(print) } else { seed.clone() };
        match run(watched) {
            Ok(report) => reports.push(report),
            Err(failure) => fails(name, &run, &seed, failure, &settings),
        }
        if n == 0 || settings.twice {
            let report = reports.last().expect("a run has just been added");
            if let Err(problem) = twice(&run, &seed, report) {
                let commands = Commands::of_test(name, &settings.runs, &seed);
                panic!("\nscenario {name}, seed {}: {problem}{commands}", seed.number);
            }
        }
    }
    reports
}

/// Tells of a failure, and shrinks it if that is wanted.
#[track_caller]
fn fails(
    name: &str,
    run: &impl Fn(Seed) -> Outcome,
    seed: &Seed,
    failure: Box<Failure>,
    settings: &Settings,
) -> ! {
    let Some(path) = &settings.shrink else {
        // Once more, to see what led there.
        let traced = run(seed.clone().traced()).err().unwrap_or(failure);
        let commands = Commands::of_test(name, &settings.runs, seed);
        panic!("{}", screen(name, &traced, &commands));
    };
    let begun = failure.violation.to_string();
    let Some(shrunk) = shrink(seed.clone(), run, progress) else {
        panic!("{name}: failed with {begun}, and did not when it was to be shrunk");
    };
    let file = keep(name, &shrunk);
    let (text, at) = (file.to_string(), path.display());
    let kept = fs::write(path, &text);
    let smallest = Seed::of_plan(file.plan).traced();
    let failure = run(smallest).err().unwrap_or(shrunk.failure);
    let told = format!("shrunk from {} to {}", shrunk.before, shrunk.after);
    match kept {
        Ok(()) => {
            let commands = Commands::of_test(name, &Runs::Plan(path.clone()), seed);
            panic!("{}  {told}, in {at}\n", screen(name, &failure, &commands));
        }
        // The commands are those of what was to be shrunk, which is there.
        Err(error) => {
            let commands = Commands::of_test(name, &settings.runs, seed);
            let screen = screen(name, &failure, &commands);
            panic!(
                "{screen}  {told}\ncannot write the shrunk plan to {at}: {error}; it is, to be kept by \
                 hand:\n{text}"
            );
        }
    }
}

/// Not captured by the harness; and whoever reads may have seen enough.
fn print(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// A shrunk plan as a file, with the invariant that it breaks.
#[must_use]
pub fn keep(scenario: &str, shrunk: &Shrunk) -> PlanFile {
    let mut file = PlanFile::new(scenario, shrunk.failure.report.plan.clone());
    file.invariant = shrunk.failure.violation.invariant.into();
    file
}

fn progress(progress: &crate::shrink::Progress) -> ControlFlow<()> {
    const SOMETIMES: u64 = 100;
    if progress.tries % SOMETIMES == 1 {
        let crate::shrink::Progress { stage, tries, size } = progress;
        eprintln!("shrinking: {size} after {tries} runs, taking out {stage}");
    }
    ControlFlow::Continue(())
}

/// Whether a seed does again what it did before, and its machine, looked at by itself, is one that
/// replicas can go by; else what came of it.
pub fn twice(run: &impl Fn(Seed) -> Outcome, seed: &Seed, before: &Report) -> Result<(), String> {
    // Who is traced keeps the commands, by which the machine is looked at.
    let again = report_of(run(seed.clone().traced()));
    if (again.digest, again.stats) == (before.digest, before.stats) {
        return match again.suspicion {
            None => Ok(()),
            Some(cause) => Err(format!("ran well, but its machine is wrong\n  cause: {cause}\n")),
        };
    }
    let (one, other) = (seed.clone().kept(), seed.clone().kept());
    let (one, other) = (report_of(run(one)), report_of(run(other)));
    let cause = one.suspicion.as_deref().or(other.suspicion.as_deref()).unwrap_or(
        "something in machine, workload or engine depends on more than its inputs: a clock, a \
         global, an address, the order of a hash map",
    );
    let differs = first_difference(&one.trace, &other.trace);
    Err(format!("does not do the same twice\n  cause: {cause}\n{differs}"))
}

fn report_of(outcome: Outcome) -> Report {
    outcome.unwrap_or_else(|failure| failure.report)
}

/// The first line in which two traces differ, beside each other.
fn first_difference(one: &[String], other: &[String]) -> String {
    let nothing = String::new();
    let at = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    if at == one.len() && at == other.len() {
        return "  two more runs of it were alike, event by event\n".into();
    }
    let line = |lines: &[String]| lines.get(at).unwrap_or(&nothing).clone();
    let last = at.checked_sub(1).map_or(&nothing, |last| &one[last]);
    format!(
        "  two runs differ from line {} of their traces on:\n    both:  {last}\n    first: {}\n    \
         then:  {}\n",
        at + 1,
        line(one),
        line(other)
    )
}

/// What to type to see a failure again: each command, and what it is for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Commands(pub Vec<(&'static str, String)>);

impl Commands {
    /// Those that run the test which this thread is.
    fn of_test(scenario: &str, runs: &Runs, seed: &Seed) -> Self {
        let (which, smaller) = match runs {
            Runs::Plan(path) => {
                let plan = quoted(&path.to_string_lossy());
                (format!("SIM_PLAN={plan}"), path.with_extension("smaller.plan"))
            }
            Runs::Seeds { .. } => {
                let name = format!("{scenario}-{}.plan", seed.number);
                (format!("SIM_SEED={}", seed.number), env::temp_dir().join(name))
            }
        };
        let (test, smaller) = (this_test(scenario), quoted(&smaller.to_string_lossy()));
        Self(vec![
            ("replay", format!("{which} {test}")),
            ("trace", format!("{which} SIM_TRACE=1 {test} --nocapture")),
            ("shrink", format!("{which} SIM_SHRINK={smaller} {test} --nocapture")),
        ])
    }
}

/// As a shell takes it for one word.
#[must_use]
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "_-./:=+,@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// How to run the test which this thread is, and no other.
fn this_test(scenario: &str) -> String {
    let package = env::var("CARGO_PKG_NAME").map(|package| format!(" -p {package}"));
    let package = package.unwrap_or_default();
    let release = if cfg!(debug_assertions) { "" } else { " --release" };
    // A test's thread is named after it, but not one that it starts, or that another harness runs it on; of
    // those the exact name is known where nextest runs them.
    let thread = std::thread::current().name().filter(|name| *name != "main").map(String::from);
    let exact = || env::args().skip_while(|argument| argument != "--exact").nth(1);
    let which = match thread.or_else(exact) {
        Some(test) => format!("--exact {test}"),
        None => scenario.into(),
    };
    format!("cargo test{release}{package} -- {which}")
}

impl fmt::Display for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(what, command)| writeln!(f, "  {what}: {command}"))
    }
}

/// What a failing seed prints.
#[must_use]
pub fn screen(name: &str, failure: &Failure, commands: &Commands) -> String {
    format!("\nscenario {name}, {failure}{commands}")
}
