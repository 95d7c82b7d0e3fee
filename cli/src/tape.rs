//! `lakebed tape`: what a node's engine was told and did, against this build's engine or against
//! another tape.
//!
//! Knows no engine's reasons. Exit codes: 0 when both are alike as far as both go, 1 when they
//! differ, 2 when a file cannot be read as a tape, or followed by the engine, to its end.

use crate::{
    args::{TapeArgs, refuse},
    log::note,
    say,
};
use anyhow::Result;
use bytes::Bytes;
use lakebed::{
    Action, Engine, Event, Instant,
    tape::{Step, Tape, TapeError, encode, kind},
};
use lakebed_sim::trace;
use std::{
    cell::RefCell,
    collections::VecDeque,
    fmt::Write,
    fs,
    panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook},
    path::Path,
    process::ExitCode,
    sync::Once,
};

/// How many lines of what led to a difference are shown, and how many bytes of an action that
/// only a tape has.
const LINES_MAX: usize = 12;
const BYTES_MAX: usize = 24;
/// The longest line, in characters.
const LINE_MAX: usize = 200;
const THIS_BUILD: &str = "this build";

pub(crate) fn run(args: &TapeArgs) -> Result<ExitCode> {
    let first = Player::open(&args.file);
    let compared = match &args.other {
        None => replay(first),
        Some(other) => {
            let second = Player::open(other);
            match first.differs_from_the_beginning_of(&second) {
                Some(why) => Compared::Differ(why),
                None => compare(first, second),
            }
        }
    };
    Ok(match compared {
        Compared::Alike(told) => {
            say(told);
            ExitCode::SUCCESS
        }
        Compared::Differ(told) => {
            say(told);
            ExitCode::FAILURE
        }
        Compared::Unreadable(told) => {
            note(format_args!("error: {told}"));
            ExitCode::from(2)
        }
    })
}

/// What came of it, as it is told.
enum Compared {
    Alike(String),
    Differ(String),
    Unreadable(String),
}

/// A tape, and this build's engine that is given the same events.
struct Player {
    name: String,
    tape: Tape,
    /// None once it has done something else than the tape, or panicked: what a tape tells from
    /// there on is no story of this engine.
    engine: Option<Engine>,
    /// What the engine did in the last step.
    actions: Vec<Action>,
    steps: u64,
    /// The last lines before the step at hand.
    before: VecDeque<String>,
}

impl Player {
    fn open(path: &Path) -> Self {
        let name = path.display().to_string();
        let bytes = fs::read(path)
            .unwrap_or_else(|error| refuse(format!("cannot read the tape {name}: {error}")));
        let tape = Tape::open(bytes.into()).unwrap_or_else(|error| refuse(what_now(&name, &error)));
        let engine = caught(|| Engine::new(tape.config.clone(), tape.seed))
            .and_then(|engine| engine.map_err(|error| error.to_string()))
            .unwrap_or_else(|error| refuse(format!("{name}: no engine is configured so: {error}")));
        Self {
            name,
            tape,
            engine: Some(engine),
            actions: Vec::new(),
            steps: 0,
            before: VecDeque::new(),
        }
    }

    fn differs_from_the_beginning_of(&self, other: &Self) -> Option<String> {
        let (ours, theirs) = (&self.tape, &other.tape);
        let (name, other) = (&self.name, &other.name);
        if ours.config != theirs.config {
            let (ours, theirs) = (&ours.config, &theirs.config);
            return Some(format!(
                "the engines are configured differently:\n  {name}: {ours:?}\n  {other}: {theirs:?}"
            ));
        }
        (ours.seed != theirs.seed).then(|| {
            format!(
                "these are two lives of node {}, or of two clusters: the seeds are {} in {name} and \
                 {} in {other}",
                ours.config.node, ours.seed, theirs.seed
            )
        })
    }

    /// The next step; `None` at the end.
    fn step(&mut self) -> Option<Result<Step, String>> {
        let step = match self.tape.next()? {
            Ok(step) => step,
            Err(error) => {
                let told = what_now(&self.name, &error);
                return Some(Err(format!("{told}; the {} before it are alike", self.steps)));
            }
        };
        self.steps += 1;
        Some(Ok(step))
    }

    /// Gives the step to the engine. It trusts its driver, and panics at what none would do.
    fn follow(&mut self, step: &Step) -> Result<(), String> {
        self.actions.clear();
        let Some(engine) = &mut self.engine else { return Ok(()) };
        let actions = &mut self.actions;
        let handled = caught(|| engine.handle(step.now, step.events.clone(), actions));
        handled.map_err(|panic| {
            self.engine = None;
            format!(
                "{}: step {} cannot be followed, {THIS_BUILD} panics at it ({panic}): the tape is \
                 damaged, or there is a bug; find another copy, or try the release that wrote it; \
                 the {} before it are alike",
                self.name,
                self.steps,
                self.steps - 1
            )
        })
    }

    /// The same where the engine only lends its words: what it cannot follow is let be.
    fn follow_while_alike(&mut self, step: &Step) {
        let is_followed = self.follow(step).is_ok();
        if !is_followed || self.encoded() != step.actions {
            self.engine = None;
        }
    }

    /// What the engine did in the last step, as a tape has it.
    fn encoded(&self) -> Vec<Bytes> {
        self.actions.iter().map(|action| encode(action).into()).collect()
    }

    fn remember(&mut self, step: &Step) {
        let (node, at) = (self.tape.config.node, time(step.now));
        let lines = events(&step.events).chain(self.actions.iter().map(line));
        self.before.extend(lines.map(|line| format!("{at} {node} {line}")));
        self.before.drain(..self.before.len().saturating_sub(LINES_MAX));
    }

    /// One action of a tape. If this build's engine did it too, it is told in its words.
    fn words(&self, recorded: Option<&Bytes>) -> String {
        let Some(recorded) = recorded else { return "nothing more".into() };
        if let Some(action) = self.actions.iter().find(|action| encode(action) == *recorded) {
            return line(action);
        }
        let shown = &recorded[..recorded.len().min(BYTES_MAX)];
        format!("< {}, {} bytes: {}...", kind(recorded), recorded.len(), shown.escape_ascii())
    }

    /// Where this step stands, and what led to it.
    fn place(&self, step: &Step) -> String {
        let mut told = format!(
            "node {}, step {}, at {}: the first difference\n",
            self.tape.config.node,
            self.steps,
            time(step.now).trim_start()
        );
        self.before.iter().for_each(|line| add(&mut told, "  ", line));
        told.push_str("in this step:\n");
        events(&step.events).for_each(|line| add(&mut told, "  ", &line));
        told
    }
}

/// One tape against this build.
fn replay(mut player: Player) -> Compared {
    while let Some(step) = player.step() {
        let step = match step {
            Ok(step) => step,
            Err(told) => return Compared::Unreadable(told),
        };
        if let Err(told) = player.follow(&step) {
            return Compared::Unreadable(told);
        }
        let ours = player.encoded();
        if let Some(at) = first_difference(&step.actions, &ours) {
            let mut told = player.place(&step);
            let now = player.actions.get(at).map_or_else(|| "nothing more".into(), line);
            let recorded = player.words(step.actions.get(at));
            add_both(&mut told, ("action", at), (&player.name, &recorded), (THIS_BUILD, &now));
            add_bytes(&mut told, step.actions.get(at), ours.get(at));
            return Compared::Differ(told);
        }
        player.remember(&step);
    }
    Compared::Alike(format!(
        "{}: node {}, {} steps; {THIS_BUILD} does the same",
        player.name, player.tape.config.node, player.steps
    ))
}

/// Two tapes of one engine.
fn compare(mut a: Player, mut b: Player) -> Compared {
    loop {
        let (ours, theirs) = match (a.step(), b.step()) {
            (Some(Err(told)), _) | (_, Some(Err(told))) => return Compared::Unreadable(told),
            (Some(Ok(ours)), Some(Ok(theirs))) => (ours, theirs),
            (ours, theirs) => {
                return Compared::Alike(ends(&a, &b, ours.is_some(), theirs.is_some()));
            }
        };
        a.follow_while_alike(&ours);
        b.follow_while_alike(&theirs);
        if let Some(told) = difference(&a, &b, &ours, &theirs) {
            return Compared::Differ(told);
        }
        a.remember(&ours);
    }
}

fn ends(a: &Player, b: &Player, a_goes_on: bool, b_goes_on: bool) -> String {
    let steps = a.steps.min(b.steps);
    let alike = format!("{} and {} are alike for {steps} steps", a.name, b.name);
    match (a_goes_on, b_goes_on) {
        (true, _) => format!("{alike}; {} ends there", b.name),
        (_, true) => format!("{alike}; {} ends there", a.name),
        _ => alike,
    }
}

/// Where two steps differ: in time, else in the first event, else in the first action.
fn difference(a: &Player, b: &Player, ours: &Step, theirs: &Step) -> Option<String> {
    let mut told = a.place(ours);
    let mut add = |what, ours: &str, theirs: &str| {
        add_both(&mut told, what, (&a.name, ours), (&b.name, theirs));
    };
    if ours.now != theirs.now {
        add(("time", 0), &time(ours.now), &time(theirs.now));
    } else if let Some(at) = first_difference(&ours.events, &theirs.events) {
        let [ours, theirs] = [ours, theirs].map(|step| {
            step.events
                .get(at)
                .map_or_else(|| "nothing more".into(), |event| cut(&trace::event(event)))
        });
        add(("event", at), &ours, &theirs);
    } else {
        let at = first_difference(&ours.actions, &theirs.actions)?;
        let (ours, theirs) = (ours.actions.get(at), theirs.actions.get(at));
        add(("action", at), &a.words(ours), &b.words(theirs));
        add_bytes(&mut told, ours, theirs);
    }
    Some(told)
}

fn first_difference<T: PartialEq>(a: &[T], b: &[T]) -> Option<usize> {
    let alike = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    (alike < a.len().max(b.len())).then_some(alike)
}

fn add(told: &mut String, before: &str, line: &str) {
    told.push_str(before);
    told.push_str(line);
    told.push('\n');
}

fn add_both(told: &mut String, (what, at): (&str, usize), a: (&str, &str), b: (&str, &str)) {
    let width = a.0.len().max(b.0.len()) + 1;
    let _ = writeln!(told, "{what} {at}:");
    for (name, line) in [a, b] {
        let _ = writeln!(told, "  {:<width$} {}", format!("{name}:"), line.trim_start());
    }
}

/// Two actions may read alike and differ in what a line leaves out.
fn add_bytes(told: &mut String, a: Option<&Bytes>, b: Option<&Bytes>) {
    let (Some(a), Some(b)) = (a, b) else { return };
    if let Some(at) = first_difference(a, b) {
        let _ = write!(told, "as bytes: {} and {}, alike before byte {at}", a.len(), b.len());
    }
}

fn events(events: &[Event]) -> impl Iterator<Item = String> {
    events.iter().map(|event| cut(&trace::event(event)))
}

fn line(action: &Action) -> String {
    cut(&trace::action(action))
}

fn cut(line: &str) -> String {
    let mut chars = line.chars();
    let mut cut: String = chars.by_ref().take(LINE_MAX).collect();
    if chars.next().is_some() {
        cut.push_str("...");
    }
    cut
}

/// The node's monotonic clock, in seconds.
fn time(now: Instant) -> String {
    format!("{:>7}.{:09}s", now.0 / 1_000_000_000, now.0 % 1_000_000_000)
}

/// Runs this, and tells of its panic, on this thread alone, instead of printing it.
fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    thread_local! {
        static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
    }
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |info| {
            // Whoever is watched has left something to be replaced.
            if SAID.with_borrow(Option::is_none) {
                return others(info);
            }
            let at = info.location().map_or_else(String::new, |at| format!("{at}: "));
            let what = info.payload_as_str().unwrap_or("no message");
            SAID.set(Some(format!("{at}{what}")));
        }));
    });
    SAID.set(Some(String::new()));
    let result = catch_unwind(AssertUnwindSafe(run));
    let said = SAID.take();
    result.map_err(|_| said.unwrap_or_default())
}

/// An error of a tape, and what to do.
fn what_now(name: &str, error: &TapeError) -> String {
    match error {
        TapeError::NotATape => {
            format!("{name} is no tape: give a file that `lakebed serve --tape` wrote")
        }
        TapeError::Version { .. } => {
            format!("{name}: {error}: read it with the release that wrote it")
        }
        TapeError::Malformed { step: 0 } => format!(
            "{name}: its beginning is cut off or damaged: nothing can be replayed, find another copy"
        ),
        TapeError::Malformed { step } => format!(
            "{name}: step {step} is cut off, as when the node panicked or was killed while it \
             wrote, or damaged"
        ),
        other => format!("{name}: {other}"),
    }
}
