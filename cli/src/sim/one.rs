//! One run at a time: again, in detail, smaller.

use super::{
    args::{Kept, One, Planned, Which},
    commands, stop,
};
use crate::{args::refuse, log::note, say};
use anyhow::{Context, Result, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use lakebed_sim::{
    Failure, PlanFile, Report, Seed, check,
    check::screen,
    shrink::{self, Progress, Shrunk},
};
use std::{
    fs::{self, OpenOptions},
    io::{self, IsTerminal},
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

/// After so many runs it says how far it is, where no terminal shows it.
const TRIES_PER_LINE: u64 = 250;

impl One {
    fn seed(&self) -> Seed {
        match &self.which {
            Which::Seed(seed) => Seed::new(*seed),
            Which::File(path) => Seed::of_plan(self.read(path).plan),
        }
    }

    /// A pipe can be read once.
    fn read(&self, path: &Path) -> PlanFile {
        let (at, name) = (path.display(), self.scenario.name);
        let text = fs::read_to_string(path);
        let text =
            text.unwrap_or_else(|error| refuse(format!("cannot read the plan {at}: {error}")));
        let file: PlanFile = text.parse().unwrap_or_else(|error| refuse(format!("{at}: {error}")));
        if !file.scenario.is_empty() && file.scenario != name {
            refuse(format!("{at} is a plan of {}, not of {name}", file.scenario));
        }
        file
    }

    fn shown(&self) -> String {
        match &self.which {
            Which::Seed(seed) => seed.to_string(),
            Which::File(path) => path.display().to_string(),
        }
    }

    fn tell(&self, failure: &Failure) -> ExitCode {
        let commands = commands(self.scenario.name, &self.shown());
        note(screen(self.scenario.name, failure, &commands));
        ExitCode::FAILURE
    }
}

impl Kept {
    /// Where the plan goes.
    fn out(&self) -> PathBuf {
        let default = || match &self.one.which {
            Which::Seed(seed) => format!("{}-{seed}.plan", self.one.scenario.name).into(),
            Which::File(path) => path.with_extension("smaller.plan"),
        };
        let path = self.out.clone().unwrap_or_else(default);
        refuse_unwritable(&path);
        path
    }
}

/// That something can be written there is known before much is done.
pub(super) fn refuse_unwritable(path: &Path) {
    let is_new = !path.exists();
    let opened = OpenOptions::new().append(true).create(true).open(path);
    if let Err(error) = opened {
        refuse(format!("cannot write the plan to {}: {error}", path.display()));
    }
    // What was made: a link to what is not there yet stays.
    if is_new && let Ok(made) = fs::canonicalize(path) {
        let _ = fs::remove_file(made);
    }
}

/// What was there before stays until all of the new one is written.
pub(super) fn keep_plan(path: &Path, text: &str) -> io::Result<()> {
    // No file takes the place of a device.
    if path.exists() && !path.is_file() {
        return fs::write(path, text);
    }
    // That of a link is kept behind it.
    let path = match (fs::canonicalize(path), path.is_symlink()) {
        (Ok(path), _) => path,
        (Err(_), false) => path.to_owned(),
        (Err(_), true) => return fs::write(path, text),
    };
    let mut part = path.clone().into_os_string();
    part.push(".part");
    match fs::write(&part, text).and_then(|()| fs::rename(&part, &path)) {
        // A file may be written in a directory in which none may be made.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => fs::write(path, text),
        kept => kept.inspect_err(|_| drop(fs::remove_file(&part))),
    }
}

/// The same; what was found is not lost with its place.
pub(super) fn keep_or_print(path: &Path, text: &str) -> Result<()> {
    keep_plan(path, text).map_err(|error| {
        let at = path.display();
        anyhow!("cannot write the plan to {at}: {error}; it is, to be kept by hand:\n{text}")
    })
}

/// `lakebed sim replay`: passes or fails, twice alike.
pub(super) fn replay(one: &One) -> Result<ExitCode> {
    let (run, seed) = (one.scenario.run, one.seed());
    match run(seed.clone().traced()) {
        Ok(report) => {
            if let Err(problem) = check::twice(&run, &seed, &report) {
                note(format_args!("scenario {}, {}: {problem}", one.scenario.name, one.shown()));
                return Ok(ExitCode::FAILURE);
            }
            say(passed(one, &report));
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => Ok(one.tell(&failure)),
    }
}

fn passed(one: &One, report: &Report) -> String {
    let (stats, digest) = (report.stats, report.digest);
    format!(
        "{} {} passes: {} events, {} power cuts, {} operations answered; twice the digest \
         {digest:016x}",
        one.scenario.name,
        one.shown(),
        stats.events,
        stats.crashes,
        stats.answered
    )
}

/// `lakebed sim trace`.
pub(super) fn trace(one: &One) -> Result<ExitCode> {
    match (one.scenario.run)(one.seed().printed(|line| say(line))) {
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(failure) => Ok(one.tell(&failure)),
    }
}

/// `lakebed sim plan`.
pub(super) fn plan(planned: &Planned) -> Result<ExitCode> {
    let Planned { one, out } = planned;
    out.iter().for_each(|path| refuse_unwritable(path));
    let report = (one.scenario.run)(one.seed()).unwrap_or_else(|failure| failure.report);
    let file = PlanFile::new(one.scenario.name, report.plan).to_string();
    match out {
        None => say(file.trim_end()),
        Some(path) => keep_plan(path, &file)
            .with_context(|| format!("cannot write the plan to {}", path.display()))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// `lakebed sim shrink`.
pub(super) fn shrink(kept: &Kept) -> Result<ExitCode> {
    let (one, out) = (&kept.one, kept.out());
    let (seed, said) = match &one.which {
        Which::Seed(seed) => (Seed::new(*seed), None),
        Which::File(path) => {
            let PlanFile { plan, bug, fix, .. } = one.read(path);
            (Seed::of_plan(plan), Some((bug, fix)))
        }
    };
    stop::listen();
    let (begun, shower) = (Instant::now(), Shower::new());
    let shrunk = shrink::shrink(seed, one.scenario.run, |progress| shower.show(progress));
    shower.bar.finish_and_clear();
    let Some(shrunk) = shrunk else {
        say(format_args!(
            "{} {} passes: there is nothing to shrink",
            one.scenario.name,
            one.shown()
        ));
        return Ok(ExitCode::SUCCESS);
    };
    let mut file = check::keep(one.scenario.name, &shrunk);
    if let Some(said) = said {
        (file.bug, file.fix) = said;
    }
    let kept = keep_or_print(&out, &file.to_string());
    say(told(&shrunk, begun));
    let smallest = Seed::of_plan(file.plan).traced();
    let failure = (one.scenario.run)(smallest).err().unwrap_or(shrunk.failure);
    if let Err(unkept) = kept {
        // Its commands are those of what was to be shrunk, which is there.
        one.tell(&failure);
        return Err(unkept);
    }
    say(format_args!("kept in {}", out.display()));
    Ok(One { scenario: one.scenario, which: Which::File(out) }.tell(&failure))
}

fn told(shrunk: &Shrunk, begun: Instant) -> String {
    let Shrunk { before, after, tries, stopped, .. } = shrunk;
    let took = begun.elapsed().as_millis();
    let stopped = if *stopped { " (stopped early)" } else { "" };
    format!(
        "shrunk from {before} to {after}: {} % removed in {tries} runs, {}.{:03} s{stopped}",
        after.removed_since(*before),
        took / 1000,
        took % 1000
    )
}

/// Shows how far shrinking is.
struct Shower {
    bar: ProgressBar,
}

impl Shower {
    fn new() -> Self {
        let style = ProgressStyle::with_template("{spinner} shrinking, {elapsed}: {msg}");
        Self { bar: ProgressBar::new_spinner().with_style(style.expect("the template is ours")) }
    }

    fn show(&self, progress: &Progress) -> ControlFlow<()> {
        let Progress { stage, tries, size } = progress;
        let shown = format!("{size} after {tries} runs, taking out {stage}");
        if io::stderr().is_terminal() {
            self.bar.set_message(shown);
            self.bar.tick();
        } else if tries.is_multiple_of(TRIES_PER_LINE) {
            note(format_args!("shrinking: {shown}"));
        }
        if stop::is_asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
