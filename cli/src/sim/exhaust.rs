//! `lakebed sim exhaust` and `lakebed sim flips`: every crash of a story, every bit of its disks.

use super::{
    args::{Exhaust, Flips, Share},
    commands, stop,
};
use crate::{args::refuse, say};
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use lakebed_scenarios::stories::{FLIPPED, STORIES, Told};
use lakebed_sim::{
    Failure,
    check::screen,
    exhaust::{Search, Tried},
    flips::{Bit, Flipped},
    plan::PlanFile,
};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs,
    io::IsTerminal,
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

/// How often the progress is said where no terminal shows it.
const LINE: Duration = Duration::from_secs(10);

/// What was tried of one node's life in one story.
#[derive(Serialize)]
struct Crashed {
    story: &'static str,
    node: usize,
    operations: u64,
    steps: u64,
    crashes: u64,
    failed_operations: u64,
    second_crashes: u64,
    /// Distinct disks, with what was promised on them, after a second crash.
    distinct: u64,
    equal: u64,
    events: u64,
    failures: u64,
    wall_seconds: f64,
}

/// `lakebed sim exhaust`.
pub(super) fn exhaust(exhaust: &Exhaust) -> Result<ExitCode> {
    stop::listen();
    let stories = exhaust.story.map_or_else(|| STORIES.iter().collect(), |story| vec![story]);
    let mut all = Vec::new();
    for told in stories {
        for node in exhaust.share.nodes(told) {
            all.push(crash(told, node, exhaust)?);
            let last = all.last().expect("it was just added");
            if !exhaust.share.json {
                say(shown(last));
            }
        }
    }
    if exhaust.share.json {
        say(serde_json::to_string(&all).context("its keys are strings")?);
    }
    Ok(code(all.iter().map(|one| one.failures).sum()))
}

fn crash(told: &'static Told, node: usize, exhaust: &Exhaust) -> Result<Crashed> {
    let (begun, name) = (Instant::now(), told.scenario.name);
    let once = match told.story().tell(node) {
        Ok(once) => once,
        Err(failure) => {
            tell(told, &failure, exhaust.share.out.as_deref())?;
            anyhow::bail!("{name} fails without a crash");
        }
    };
    let search = Search::new(node, exhaust.twice);
    let jobs = exhaust.share.jobs();
    let bar = Bar::new(once.steps, format!("{name} node {}, steps", node + 1));
    let results = shared(jobs, |part| {
        let mut done = 0;
        told.story().search(&search, (part, jobs), |tried| {
            bar.inc(std::mem::replace(&mut done, tried.steps).abs_diff(tried.steps));
            go_on()
        })
    });
    bar.end();
    let tried = results.iter().filter_map(|result| result.as_ref().ok().copied());
    let tried = tried.fold(Tried::default(), Tried::plus);
    let failures = failures(told, results, exhaust.share.out.as_deref())?;
    Ok(Crashed {
        story: name,
        node: node + 1,
        operations: once.operations,
        steps: tried.steps,
        crashes: tried.first,
        failed_operations: tried.failed,
        second_crashes: tried.second,
        distinct: search.distinct() as u64,
        equal: tried.equal,
        events: tried.events,
        failures,
        wall_seconds: begun.elapsed().as_secs_f64(),
    })
}

fn shown(of: &Crashed) -> String {
    let states = of.crashes + of.failed_operations + of.second_crashes;
    let pace = (states as f64 / of.wall_seconds) as u64;
    format!(
        "{} node {}: {} operations, {} steps; {} crashes, {} failed operations and {} crashes after those \
         recovered from, {} outcomes equal; {} failures; {:.3} s, {pace}/s",
        of.story,
        of.node,
        of.operations,
        of.steps,
        of.crashes,
        of.failed_operations,
        of.second_crashes,
        of.equal,
        of.failures,
        of.wall_seconds
    )
}

/// What came of the flips of one node's disk.
#[derive(Serialize)]
struct FlippedJson {
    story: &'static str,
    node: usize,
    bits: u64,
    events: u64,
    failures: u64,
    wall_seconds: f64,
    /// By structure and ending.
    endings: BTreeMap<String, BTreeMap<String, u64>>,
}

/// `lakebed sim flips`.
pub(super) fn flips(flips: &Flips) -> Result<ExitCode> {
    stop::listen();
    let mut all = Vec::new();
    for node in flips.share.nodes(&FLIPPED) {
        let of = flip(node, flips)?;
        if !flips.share.json {
            let (story, node, bits, failures) = (of.story, of.node, of.bits, of.failures);
            let wall = of.wall_seconds;
            say(format_args!("{story} node {node}: {bits} bits, {failures} failures; {wall:.3} s"));
            for (structure, endings) in &of.endings {
                let endings = endings.iter().map(|(ending, count)| format!("{count} {ending}"));
                let endings: Vec<String> = endings.collect();
                say(format_args!("  {structure:<16} {}", endings.join(", ")));
            }
        }
        all.push(of);
    }
    if flips.share.json {
        say(serde_json::to_string(&all).context("its keys are strings")?);
    }
    Ok(code(all.iter().map(|one| one.failures).sum()))
}

fn flip(node: usize, flips: &Flips) -> Result<FlippedJson> {
    let (begun, jobs) = (Instant::now(), flips.share.jobs());
    let bits: Vec<Bit> = FLIPPED.story().bits(node);
    let bits: Vec<Bit> = bits.into_iter().step_by(flips.every.get()).collect();
    let name = FLIPPED.scenario.name;
    let bar = Bar::new(bits.len() as u64, format!("{name} node {}, bits", node + 1));
    let results = shared(jobs, |part| {
        let part = part as usize;
        let share: Vec<Bit> = bits.iter().skip(part).step_by(jobs as usize).copied().collect();
        FLIPPED.story().flips(node, &share, |_| {
            bar.inc(1);
            go_on()
        })
    });
    bar.end();
    let mut sum = Flipped::default();
    results.iter().flatten().for_each(|flipped| sum.add(flipped));
    let mut endings = BTreeMap::<String, BTreeMap<String, u64>>::new();
    for ((structure, ending), count) in &sum.cases {
        let of = endings.entry(format!("{structure:?}")).or_default();
        of.insert(format!("{ending:?}"), *count);
    }
    Ok(FlippedJson {
        story: name,
        node: node + 1,
        bits: sum.count(),
        events: sum.events,
        failures: failures(&FLIPPED, results, flips.share.out.as_deref())?,
        wall_seconds: begun.elapsed().as_secs_f64(),
        endings,
    })
}

impl Share {
    fn jobs(&self) -> u64 {
        let all = || thread::available_parallelism().map_or(1, Into::into);
        self.jobs.map_or_else(all, Into::into) as u64
    }

    /// Which nodes, counting from zero.
    fn nodes(&self, told: &Told) -> Vec<usize> {
        let count = told.story().plan.nodes;
        match self.node.map(|node| node.get()) {
            None => (0..count).collect(),
            Some(node) if node <= count => vec![node - 1],
            Some(node) => refuse(format!("{} has no node {node}", told.scenario.name)),
        }
    }
}

fn go_on() -> ControlFlow<()> {
    if stop::is_asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// The parts of a work, each in a thread of its own.
fn shared<T: Send>(jobs: u64, work: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs).map(|part| scope.spawn(move || work(part))).collect();
        threads.into_iter().map(|thread| thread.join().expect("it hands on its panics")).collect()
    })
}

/// Tells of the first failure of all parts, and how many failed.
fn failures<T>(
    told: &Told,
    results: Vec<Result<T, Box<Failure>>>,
    out: Option<&Path>,
) -> Result<u64> {
    let failures: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    if let Some(failure) = failures.first() {
        tell(told, failure, out)?;
    }
    Ok(failures.len() as u64)
}

/// Keeps the plan of a failure, and prints it with the commands that replay it.
fn tell(told: &Told, failure: &Failure, out: Option<&Path>) -> Result<()> {
    let name = told.scenario.name;
    let default = || PathBuf::from(format!("{name}-{:016x}.plan", failure.report.digest));
    let path = out.map_or_else(default, Path::to_path_buf);
    let mut file = PlanFile::new(name, failure.report.plan.clone());
    file.invariant = failure.violation.invariant.into();
    fs::write(&path, file.to_string()).with_context(|| format!("writing {}", path.display()))?;
    eprintln!("{}", screen(name, failure, &commands(name, path.display())));
    Ok(())
}

fn code(failures: u64) -> ExitCode {
    match failures {
        0 if stop::is_asked() => ExitCode::from(stop::INTERRUPTED),
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// How far it is, on a terminal or in lines.
struct Bar {
    bar: ProgressBar,
    what: String,
    done: AtomicU64,
    said: Mutex<Instant>,
}

impl Bar {
    fn new(len: u64, what: String) -> Self {
        let template = "{pos}/{len} {msg} [{bar:25}] {per_sec}, {eta} left";
        let style = ProgressStyle::with_template(template).expect("the template is ours");
        let bar = ProgressBar::new(len).with_style(style.progress_chars("=> "));
        bar.set_message(what.clone());
        Self { bar, what, done: AtomicU64::new(0), said: Mutex::new(Instant::now()) }
    }

    fn inc(&self, by: u64) {
        let done = self.done.fetch_add(by, Relaxed) + by;
        self.bar.inc(by);
        if std::io::stderr().is_terminal() {
            return;
        }
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.elapsed() >= LINE {
            *said = Instant::now();
            eprintln!("{done} of {} {}", self.bar.length().unwrap_or(0), self.what);
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}
