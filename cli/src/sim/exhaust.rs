//! `lakebed sim exhaust` and `lakebed sim flips`: every crash of a story, every bit of its disks.

use super::{
    args::{Exhaust, Flips, Share},
    commands,
    one::{keep_or_print, refuse_unwritable},
    stop,
};
use crate::{args::refuse, counted, log::note, say};
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
    let each = stories.iter().flat_map(|told| {
        let nodes = exhaust.share.nodes(told);
        nodes.into_iter().map(|node| (*told, node))
    });
    let mut all = Vec::new();
    for (told, node, kept) in exhaust.share.kept(each.collect()) {
        if stop::is_asked() {
            break;
        }
        let crashed = crash((told, node), exhaust, &kept)?;
        if !exhaust.share.json {
            say(shown(&crashed));
        }
        all.push(crashed);
    }
    if exhaust.share.json {
        say(serde_json::to_string(&all).context("its keys are strings")?);
    }
    let has_tried = all.iter().any(|one| one.steps + one.failures > 0) || stop::is_asked();
    if !has_tried {
        refuse(format!("nothing was tried: no disk took {} steps", exhaust.every));
    }
    Ok(code(all.iter().map(|one| one.failures).sum()))
}

fn crash((told, node): (&'static Told, usize), exhaust: &Exhaust, kept: &Kept) -> Result<Crashed> {
    let (begun, name) = (Instant::now(), told.scenario.name);
    let mut story = told.story();
    story.plan.geometry.tears |= exhaust.tears;
    let once = match story.tell(node) {
        Ok(once) => once,
        Err(failure) => {
            kept.tell(&failure)?;
            anyhow::bail!("{name} fails without a crash");
        }
    };
    let search = Search::new(node, exhaust.twice);
    let every = exhaust.every.get();
    if every > once.steps {
        let steps = counted(once.steps, "step");
        note(format_args!("{name} node {}: {steps}, and none is the {every}th", node + 1));
    }
    let steps = once.steps / every;
    let jobs = exhaust.share.jobs(steps);
    let bar = Bar::new(steps, format!("{name} node {}, steps", node + 1));
    let results = shared(jobs, |part| {
        let mut done = 0;
        story.search(&search, (part * every, jobs * every), |tried| {
            bar.inc(std::mem::replace(&mut done, tried.steps).abs_diff(tried.steps));
            go_on()
        })
    });
    bar.end();
    let tried = results.iter().filter_map(|result| result.as_ref().ok().copied());
    let tried = tried.fold(Tried::default(), Tried::plus);
    let failures = kept.failures(results)?;
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
    let nodes = flips.share.nodes(&FLIPPED);
    let each = nodes.into_iter().map(|node| (&FLIPPED, node)).collect();
    for (_, node, kept) in flips.share.kept(each) {
        if stop::is_asked() {
            break;
        }
        let of = flip(node, flips, &kept)?;
        if !flips.share.json {
            let (story, node, wall) = (of.story, of.node, of.wall_seconds);
            let (bits, failures) = (counted(of.bits, "bit"), counted(of.failures, "failure"));
            say(format_args!("{story} node {node}: {bits}, {failures}; {wall:.3} s"));
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

fn flip(node: usize, flips: &Flips, kept: &Kept) -> Result<FlippedJson> {
    let begun = Instant::now();
    let bits: Vec<Bit> = FLIPPED.story().bits(node);
    let bits: Vec<Bit> = bits.into_iter().step_by(flips.every.get()).collect();
    let jobs = flips.share.jobs(bits.len() as u64);
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
        failures: kept.failures(results)?,
        wall_seconds: begun.elapsed().as_secs_f64(),
        endings,
    })
}

impl Share {
    /// How many threads search, where there are so many things to try.
    fn jobs(&self, things: u64) -> u64 {
        let all = || thread::available_parallelism().map_or(1, Into::into) as u64;
        self.jobs.map_or_else(all, Into::into).min(things.max(1))
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

    /// All that is searched, with where a failure of it is kept: one place must not take two.
    fn kept(&self, each: Vec<(&'static Told, usize)>) -> Vec<(&'static Told, usize, Kept)> {
        let are_several = each.len() > 1;
        let kept = |(told, node): (&'static Told, usize)| {
            let name = told.scenario.name;
            let out = self.out.as_deref().map(|out| match are_several {
                true => of_node(out, name, node),
                false => out.to_owned(),
            });
            // That something can be written there is known before hours of searching.
            refuse_unwritable(&out.clone().unwrap_or_else(|| format!("{name}.plan").into()));
            (told, node, Kept { name, out })
        };
        each.into_iter().map(kept).collect()
    }
}

/// `DIR/NAME.plan` for one of several nodes.
fn of_node(out: &Path, story: &str, node: usize) -> PathBuf {
    let mut name = out.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{story}-node-{}", node + 1));
    if let Some(extension) = out.extension() {
        name.push(".");
        name.push(extension);
    }
    out.with_file_name(name)
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

/// Where what fails in one node's life in a story is kept.
struct Kept {
    /// Of the story.
    name: &'static str,
    /// Without one it is named by its digest.
    out: Option<PathBuf>,
}

impl Kept {
    /// Tells of the first failure of all parts, and how many failed.
    fn failures<T>(&self, results: Vec<Result<T, Box<Failure>>>) -> Result<u64> {
        let failures: Vec<_> = results.into_iter().filter_map(Result::err).collect();
        if let Some(failure) = failures.first() {
            self.tell(failure)?;
        }
        Ok(failures.len() as u64)
    }

    /// Prints a failure with the commands that replay it, then keeps its plan: what was found is not
    /// lost with the place.
    fn tell(&self, failure: &Failure) -> Result<()> {
        let name = self.name;
        let default = || format!("{name}-{:016x}.plan", failure.report.digest).into();
        let path = self.out.clone().unwrap_or_else(default);
        note(screen(name, failure, &commands(name, &path.to_string_lossy())));
        let mut file = PlanFile::new(name, failure.report.plan.clone());
        file.invariant = failure.violation.invariant.into();
        keep_or_print(&path, &file.to_string())
    }
}

fn code(failures: u64) -> ExitCode {
    if stop::is_asked() {
        note("stopped early: there is more to try");
    }
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
            note(format_args!("{done} of {} {}", self.bar.length().unwrap_or(0), self.what));
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lakebed_scenarios::SCENARIOS;
    use lakebed_sim::Seed;
    use std::fs;

    /// Links so slow that nobody is ever elected.
    const NEVER_A_LEADER: &str = "lakebed plan 1\nscenario storm_of_three\nseed 5\nnodes 3\n\
                                  links least 9000.000ms tail 0.000ms\n";

    fn failure() -> Box<Failure> {
        let storm = SCENARIOS.iter().find(|storm| storm.name == "storm_of_three").unwrap();
        let file: PlanFile = NEVER_A_LEADER.parse().unwrap();
        (storm.run)(Seed::of_plan(file.plan)).unwrap_err()
    }

    /// The plan of the failure was nowhere: neither on the disk nor on the screen.
    #[test]
    fn a_failure_that_cannot_be_kept_is_told_whole() {
        let dir = tempfile::tempdir().unwrap();
        let kept = |path: PathBuf| Kept { name: "storm_of_three", out: Some(path) };
        let (failure, at) = (failure(), dir.path().join("f.plan"));
        kept(at.clone()).tell(&failure).unwrap();
        let plan = fs::read_to_string(&at).unwrap();
        assert!(plan.contains("\ninvariant liveness\n"), "{plan}");
        let error = kept(dir.path().join("no/f.plan")).tell(&failure).unwrap_err().to_string();
        assert!(error.contains("no/f.plan: No such file") && error.ends_with(&plan), "{error}");
    }

    /// The second failure took the place of the first.
    #[test]
    fn each_of_several_has_a_place_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("found.plan");
        let share = Share { node: None, jobs: None, out: Some(out.clone()), json: false };
        let places = |each: Vec<(&'static Told, usize)>| -> Vec<PathBuf> {
            share.kept(each).into_iter().filter_map(|(_, _, kept)| kept.out).collect()
        };
        let at = |name: &str| dir.path().join(name);
        let both = vec![(&FLIPPED, 0), (&FLIPPED, 2)];
        assert_eq!(
            places(both),
            [at("found-every_structure-node-1.plan"), at("found-every_structure-node-3.plan")]
        );
        assert_eq!(places(vec![(&FLIPPED, 1)]), [out]);
        assert_eq!(of_node(Path::new("found"), "s", 0), Path::new("found-s-node-1"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left of the check");
    }
}
