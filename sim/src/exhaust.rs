//! Enumeration in place of sampling: a story is crashed at every step of a node's disk, in every
//! way that the disk allows, its process is killed there, each operation of the disk ends badly, and
//! the recovery from each of these is crashed again.
//!
//! A story is a plan like any other, so a crash is a line of it and what fails is replayed by what
//! replays seeds. Worlds are values: each crash is tried in a fork of the story at that step.
//! Knows no threads: a search is shared by whoever wants to do a part of it.

use crate::{
    client::Workload,
    disk::{Outcome, SimDisk, Survivors},
    harm::rot_hard_state,
    oracle::{Checked, Violation},
    panics,
    plan::{Fault, FaultKind, MS, Plan, Targets},
    report::{Failure, Report},
    seed::Seed,
    storm::{Course, Storm, end, last_effect},
    world::{Fall, World},
};
use lakebed::{Marks, StateMachine};
use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    sync::{Mutex, PoisonError},
};

/// Up to so many undecided sectors and names every outcome is tried; of more, the presets and some
/// that are drawn.
pub const SUBSETS_MAX: usize = 6;
/// How many outcomes are drawn beside the presets.
pub const DRAWN: u32 = 32;
/// So many outcomes are drawn beside all of few sectors, where sectors tear.
const TORN: u32 = 24;
/// Outcomes beside which a copy of the hard state rots: within the budget of damage, as the other
/// copy is whole, and what a vote that only one copy holds needs to be lost.
const ROTTEN: [(Outcome, Option<u8>); 4] = [
    (Outcome::Drawn(Survivors::None, 0), Some(0)),
    (Outcome::Drawn(Survivors::None, 0), Some(1)),
    (Outcome::Drawn(Survivors::All, 0), Some(0)),
    (Outcome::Drawn(Survivors::All, 0), Some(1)),
];
/// After so many steps a node is regarded as one that goes on without what ended badly.
const AFTERMATH: u64 = 12;
/// How long a node that fell is down, in simulated nanoseconds.
const DOWN: u64 = MS;

/// A run of which each moment is worth a crash: a plan within the budget, without targets.
#[derive(Clone, Debug)]
pub struct Story<M, W> {
    /// What happens, beside the crashes.
    pub plan: Plan,
    /// A machine that knows nothing.
    pub machine: fn() -> M,
    /// What clients do.
    pub workload: W,
}

/// What a story told once amounts to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Told {
    /// Steps of the node's disk: so many times its power can fail.
    pub steps: u64,
    /// Operations that the node's disk was given.
    pub operations: u64,
    /// The rare situations that the node met.
    pub marks: Marks,
}

/// What was tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tried {
    /// Steps of the story at which the power failed, or the process was killed.
    pub steps: u64,
    /// Falls of the story: recovered from, and told to the end.
    pub first: u64,
    /// Operations that ended badly, each in every way: the same.
    pub failed: u64,
    /// Crashes of a recovery, or of what followed a failed operation: the same.
    pub second: u64,
    /// Outcomes that were not tried, as one that was left the same disk.
    pub equal: u64,
    /// Calls of an engine, with a message, a completion or a request.
    pub events: u64,
}

impl Tried {
    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            steps: self.steps + other.steps,
            first: self.first + other.first,
            failed: self.failed + other.failed,
            second: self.second + other.second,
            equal: self.equal + other.equal,
            events: self.events + other.events,
        }
    }
}

/// What is to be tried, and what of it was.
#[derive(Debug)]
pub struct Search {
    /// Whose power fails, counting from zero.
    pub node: usize,
    /// Whether it fails again at each step of each recovery.
    pub twice: bool,
    /// The [restarts](World::restart_digest) after a second crash that were tried.
    seen: Mutex<BTreeSet<u64>>,
}

impl Search {
    /// Everywhere in the life of a node; `twice`: and of each recovery.
    #[must_use]
    pub const fn new(node: usize, twice: bool) -> Self {
        Self { node, twice, seen: Mutex::new(BTreeSet::new()) }
    }

    /// Distinct restarts after a second crash, of all parts.
    #[must_use]
    pub fn distinct(&self) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn is_new(&self, restart: u64) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(restart)
    }
}

impl<M: StateMachine + Clone, W: Workload + Clone> Story<M, W> {
    /// Tells it once, without a crash.
    pub fn tell(&self, node: usize) -> Result<Told, Box<Failure>> {
        let mut telling = Telling::of(self);
        match panics::caught(|| telling.tell_to_its_end(|_| Ok(()))) {
            Ok(Ok(())) => {
                let world = &telling.world;
                let (steps, operations) = (telling.steps[node], world.disk_operations(node));
                Ok(Told { steps, operations, marks: world.marks_of(node) })
            }
            _ => Err(self.again([])),
        }
    }

    /// Does one of `of` parts of a search, counting from zero, and says all along how far it is.
    /// What fails is told as a run of its own, whose plan names the crashes.
    pub fn search(
        &self,
        search: &Search,
        (part, of): (u64, u64),
        mut watch: impl FnMut(&Tried) -> ControlFlow<()>,
    ) -> Result<Tried, Box<Failure>> {
        let node = search.node;
        let (mut telling, mut tried) = (Telling::of(self), Tried::default());
        let (mut step, mut operations) = (0, 0);
        loop {
            match panics::caught(|| telling.step()) {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => return Ok(tried),
                // The story fails as it is.
                _ => return Err(self.again([])),
            }
            let now = telling.world.disk_steps(node);
            let stepped = std::mem::replace(&mut step, now) != now;
            let begun = telling.world.disk_operations(node);
            let begun = std::mem::replace(&mut operations, begun) + 1..=begun;
            if !stepped || now % of != part || telling.world.probe(node).is_none() {
                continue;
            }
            tried.steps += 1;
            self.crash_at(&telling, search, &mut tried)?;
            for operation in begun {
                self.fail_each_way(&telling, operation, search, &mut tried)?;
            }
            if watch(&tried).is_break() {
                return Ok(tried);
            }
        }
    }

    /// Every fall of the story where it is now.
    fn crash_at(
        &self,
        telling: &Telling<M, W>,
        search: &Search,
        tried: &mut Tried,
    ) -> Result<(), Box<Failure>> {
        let (node, mut seen) = (search.node, BTreeSet::new());
        let undecided = telling.world.disk(node).undecided();
        if undecided > 0 {
            // What such a recovery finds may be in the cache alone.
            tried.first += 1;
            self.recover(telling.fell(node, Fall::Kill), search, tried)?;
        }
        let outcomes = outcomes(undecided, telling.world.plan().geometry.tears);
        let whole = outcomes.into_iter().map(|outcome| (outcome, None));
        // Until its disk was judged a node may have but one whole copy.
        let is_judged = telling.world.probe(node).is_some_and(|probe| probe.judged);
        let rotten = ROTTEN.into_iter().filter(|_| is_judged);
        for (outcome, rot) in whole.chain(rotten) {
            if !seen.insert(telling.restart_after(node, outcome, rot)) {
                tried.equal += 1;
                continue;
            }
            tried.first += 1;
            self.recover(telling.fell(node, Fall::Power(outcome, rot)), search, tried)?;
        }
        Ok(())
    }

    /// Every bad end of an operation that has just begun.
    fn fail_each_way(
        &self,
        telling: &Telling<M, W>,
        operation: u64,
        search: &Search,
        tried: &mut Tried,
    ) -> Result<(), Box<Failure>> {
        let node = search.node;
        for &mishap in telling.world.mishaps(node, operation) {
            tried.failed += 1;
            let mut fork = telling.clone();
            let kind = FaultKind::FailAt { node, operation, mishap };
            // It is only noted.
            drop(fork.world.strike(&kind));
            self.recover((fork, kind), search, tried)?;
        }
        Ok(())
    }

    /// Tells the rest after a first fault, and on the way each recovery's crashes.
    fn recover(
        &self,
        (mut telling, first): (Telling<M, W>, FaultKind),
        search: &Search,
        tried: &mut Tried,
    ) -> Result<(), Box<Failure>> {
        let (node, mut step) = (search.node, telling.world.disk_steps(search.node));
        let (events, mut recovers) = (telling.world.stats().events, search.twice);
        let mut aftermath = if telling.world.awaits_mishap(node) { AFTERMATH } else { 0 };
        let mut second = None;
        let told = panics::caught(|| {
            telling.tell_to_its_end(|telling| {
                let now = telling.world.disk_steps(node);
                if recovers && std::mem::replace(&mut step, now) != now {
                    let is_back = telling.world.probe(node).is_some_and(|probe| probe.ready);
                    let is_over = !telling.world.awaits_mishap(node);
                    recovers = !is_back || aftermath > 0;
                    aftermath -= u64::from(is_back && is_over && aftermath > 0);
                    second = telling.crash_again(search, tried);
                }
                match second {
                    None => Ok(()),
                    Some(_) => Err(Violation::of_cluster("a second crash", String::new())),
                }
            })
        });
        tried.events += telling.world.stats().events - events;
        match (told, second) {
            (Ok(Ok(())), _) => Ok(()),
            (_, None) => Err(self.again([first].map(at_once))),
            (_, Some(second)) => Err(self.again([first, second].map(at_once))),
        }
    }

    /// The same from the beginning as a run that is traced, with these among its faults.
    pub(crate) fn again(&self, faults: impl IntoIterator<Item = Fault>) -> Box<Failure> {
        let mut plan = self.plan.clone();
        plan.faults.extend(faults);
        // Stable: among faults of one time those of the story stay the first.
        plan.faults.sort_by_key(|fault| fault.at);
        let seed = Seed::of_plan(plan).traced();
        let run = Storm::new(seed).run(self.machine, self.workload.clone());
        match run {
            Err(failure) => failure,
            Ok(report) => Box::new(unrepeatable(report)),
        }
    }
}

/// A failure that a run of its own does not show: the simulator's own.
fn unrepeatable(report: Report) -> Failure {
    let what = "failed in a fork of the story, and not when it was told from the beginning".into();
    let violation = Violation::of_cluster("a fork is as the run it was forked from", what);
    Failure { report, violation, lines: Vec::new() }
}

/// What is enumerated is known from the beginning, and waits for its place.
const fn at_once(kind: FaultKind) -> Fault {
    Fault { at: 0, kind }
}

/// A story under way.
#[derive(Clone)]
pub(crate) struct Telling<M: StateMachine, W> {
    pub(crate) world: World<M, W>,
    course: Course,
    /// When it is over: some time after its last fault.
    until: Option<u64>,
    /// How many steps each disk had taken then.
    steps: Vec<u64>,
}

impl<M: StateMachine + Clone, W: Workload + Clone> Telling<M, W> {
    /// # Panics
    /// When the plan cannot be run, or wants more than its faults.
    pub(crate) fn of(story: &Story<M, W>) -> Self {
        let plan = story.plan.clone();
        plan.validate().unwrap_or_else(|problem| panic!("a story that cannot be told: {problem}"));
        let is_story = !plan.is_beyond() && plan.targets == Targets::default();
        assert!(is_story, "a story has no targets, and no faults beyond the budget");
        let course = Course::of(&plan);
        let world = World::new(plan, story.machine, story.workload.clone());
        Self { world, course, until: None, steps: Vec::new() }
    }

    /// Lets the next event happen, or fault strike; false when the story is over, which is where a
    /// storm heals everything.
    fn step(&mut self) -> Result<bool, Violation> {
        if self.course.step(&mut self.world)? {
            return Ok(true);
        }
        let world = &mut self.world;
        let until = *self.until.get_or_insert_with(|| world.now() + last_effect(world));
        if world.next_at() < until {
            world.step()?;
            return Ok(true);
        }
        world.pass_until(until);
        Ok(false)
    }

    /// Tells it until its last fault has begun and a node is down, and nothing else is to happen at
    /// that instant; false, if it is up when the story is over.
    pub(crate) fn tell_until_down(&mut self, node: usize) -> Result<bool, Violation> {
        let is_up = |world: &World<M, W>| world.probe(node).is_some();
        while !self.course.is_over()
            || is_up(&self.world)
            || self.world.next_at() <= self.world.now()
        {
            if !self.step()? {
                return Ok(false);
            }
        }
        // What is done to it then is done after all of that, also when it is told again.
        self.world.pass_until(self.world.now() + 1);
        self.until = None;
        Ok(true)
    }

    /// Tells the rest, and what is owed at the end; `look` is called after each step.
    pub(crate) fn tell_to_its_end(&mut self, mut look: impl FnMut(&Self) -> Checked) -> Checked {
        while self.step()? {
            look(self)?;
        }
        self.steps = (0..self.world.nodes()).map(|node| self.world.disk_steps(node)).collect();
        end(&mut self.world)
    }

    /// What a node would restart from, if its power failed now.
    fn restart_after(&self, node: usize, outcome: Outcome, rot: Option<u8>) -> u64 {
        let mut disk: SimDisk = self.world.disk(node).clone();
        disk.cut_power_to(outcome, self.world.plan().seed);
        rot.inspect(|copy| rot_hard_state(&mut disk, *copy));
        self.world.restart_digest(node, &disk)
    }

    /// A fork in which a node falls now.
    fn fell(&self, node: usize, fall: Fall) -> (Self, FaultKind) {
        let mut fork = self.clone();
        fork.world.fall_now(node, fall, DOWN);
        let (step, down) = (self.world.disk_steps(node), DOWN);
        let kind = match fall {
            Fall::Power(outcome, rot) => FaultKind::PowerCutAt { node, step, outcome, rot, down },
            Fall::Kill => FaultKind::KillAt { node, step, down },
        };
        (fork, kind)
    }

    /// Crashes a recovery where it is now, in each way that no recovery was crashed in before; the
    /// first that is not recovered from.
    fn crash_again(&self, search: &Search, tried: &mut Tried) -> Option<FaultKind> {
        // A step may have been its last.
        self.world.probe(search.node)?;
        for survivors in Survivors::ALL {
            let outcome = Outcome::Drawn(survivors, 0);
            if !search.is_new(self.restart_after(search.node, outcome, None)) {
                tried.equal += 1;
                continue;
            }
            tried.second += 1;
            let (mut fork, second) = self.fell(search.node, Fall::Power(outcome, None));
            let told = panics::caught(|| fork.tell_to_its_end(|_| Ok(())));
            tried.events += fork.world.stats().events - self.world.stats().events;
            if told != Ok(Ok(())) {
                return Some(second);
            }
        }
        None
    }
}

/// What may become of so many undecided sectors and names. Where sectors tear there is no end of what they may hold, so
/// that is drawn, beside all that may become of whole ones.
fn outcomes(undecided: usize, tears: bool) -> Vec<Outcome> {
    if undecided <= SUBSETS_MAX {
        let torn = if tears && undecided > 0 { TORN } else { 0 };
        let torn = (1..=torn).map(|number| Outcome::Drawn(Survivors::Random, number));
        return (0..1 << undecided).map(Outcome::Exactly).chain(torn).collect();
    }
    let presets = Survivors::ALL.map(|survivors| Outcome::Drawn(survivors, 0));
    let drawn = [Survivors::Random, Survivors::Prefix, Survivors::Suffix, Survivors::Random];
    let drawn = (1..=DRAWN).zip(drawn.into_iter().cycle());
    presets.into_iter().chain(drawn.map(|(number, of)| Outcome::Drawn(of, number))).collect()
}
