//! From a plan that fails to a small one that fails in the same way.
//!
//! Delta debugging (Zeller & Hildebrandt 2002), in its greedy form: take out ever smaller pieces of
//! a list as long as the same invariant breaks. First settings and nodes, while there is enough of
//! everything else for the failure to show in another way; then faults, clients, operations, times;
//! all of it again until nothing more can go. It knows plans and a way to run them, nothing else,
//! so the same failure always becomes the same plan.

mod simpler;

use crate::{
    Failure, Outcome, Seed, Violation,
    plan::{Asks, FaultKind, Plan},
};
use std::{fmt, ops::ControlFlow};

/// After this many rounds over everything it is small enough.
const ROUNDS_MAX: u32 = 4;
/// Runs of so many events, half a minute or so, took no operation out: next to all are needed. A bug
/// that takes a crowd is not made smaller by trying each of them alone; and what is counted is the same
/// on every machine.
const FRUITLESS_EVENTS_MAX: u64 = 10_000_000;

/// How large a plan is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Size {
    /// Lines of faults.
    pub faults: u64,
    /// Operations that clients make until they are healed.
    pub operations: u64,
    /// Nodes.
    pub nodes: u64,
}

impl Size {
    fn of(plan: &Plan) -> Self {
        let operations = plan.clients.iter().map(Asks::count).sum();
        Self { faults: plan.faults.len() as u64, operations, nodes: plan.nodes as u64 }
    }

    /// How much smaller it is than another one, in percent of faults and operations.
    #[must_use]
    pub fn removed_since(self, before: Self) -> u64 {
        let (now, then) = (self.faults + self.operations, before.faults + before.operations);
        (then.saturating_sub(now) * 100).checked_div(then).unwrap_or(0)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { faults, operations, nodes } = self;
        write!(f, "{faults} faults, {operations} operations, {nodes} nodes")
    }
}

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// What is being taken out.
    pub stage: &'static str,
    /// How many plans were run.
    pub tries: u64,
    /// How large the smallest one is that fails.
    pub size: Size,
}

/// What became of a plan that fails.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shrunk {
    /// How the smallest plan fails; the plan is in its report.
    pub failure: Box<Failure>,
    /// How large the first plan was, without operations that nobody came to.
    pub before: Size,
    /// How large the smallest one is.
    pub after: Size,
    /// How many plans were run.
    pub tries: u64,
    /// Whether it was stopped before nothing more could go.
    pub stopped: bool,
}

/// Shrinks what fails; `None` if it does not. `told` hears of each run, and may stop it.
pub fn shrink(
    seed: Seed,
    run: impl Fn(Seed) -> Outcome,
    told: impl FnMut(&Progress) -> ControlFlow<()>,
) -> Option<Shrunk> {
    let failure = run(seed).err()?;
    let mut plan = failure.report.plan.clone();
    for (asks, asked) in plan.clients.iter_mut().zip(&failure.report.asked) {
        *asks = asks.up_to(*asked).collect();
    }
    let before = Size::of(&plan);
    let mut shrinker = Shrinker {
        run,
        told,
        failure,
        plan: plan.clone(),
        tries: 0,
        fruitless: 0,
        stage: "plan",
        stop: false,
    };
    // Without the operations that nobody came to it is the same run, unless the end matters.
    if !shrinker.attempt(plan) {
        shrinker.plan = shrinker.failure.report.plan.clone();
    }
    shrinker.everything();
    let Shrinker { failure, plan, tries, stop, .. } = shrinker;
    Some(Shrunk { failure, before, after: Size::of(&plan), tries, stopped: stop })
}

struct Shrinker<R, T> {
    run: R,
    told: T,
    /// How `plan` fails.
    failure: Box<Failure>,
    /// The smallest plan that fails so far.
    plan: Plan,
    tries: u64,
    /// Events of the runs since one last failed as it should.
    fruitless: u64,
    stage: &'static str,
    stop: bool,
}

impl<R: Fn(Seed) -> Outcome, T: FnMut(&Progress) -> ControlFlow<()>> Shrinker<R, T> {
    fn everything(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let before = self.plan.clone();
            self.targets();
            self.settings();
            self.nodes();
            self.faults();
            self.clients();
            self.operations();
            let is_crowd = self.fruitless >= FRUITLESS_EVENTS_MAX;
            self.times();
            if self.stop || is_crowd || self.plan == before {
                return;
            }
        }
    }

    /// Whether this plan fails as the first one did; if so it is the smallest so far.
    fn attempt(&mut self, mut plan: Plan) -> bool {
        plan.faults.sort_by_key(|fault| fault.at);
        if self.stop || plan.validate().is_err() {
            return false;
        }
        self.tries += 1;
        let result = (self.run)(Seed::of_plan(plan.clone()));
        let ran = result.as_ref().unwrap_or_else(|failure| &failure.report);
        self.fruitless += ran.stats.events;
        let same = result.err().filter(|other| is_same(&self.failure.violation, &other.violation));
        let fails = same.is_some();
        if let Some(failure) = same {
            self.failure = failure;
            self.plan = plan;
            self.fruitless = 0;
        }
        let progress =
            Progress { stage: self.stage, tries: self.tries, size: Size::of(&self.plan) };
        self.stop = (self.told)(&progress).is_break();
        fails
    }

    /// Tries the plan with a change, unless it changes nothing.
    fn change(&mut self, change: impl FnOnce(&mut Plan)) -> bool {
        let mut plan = self.plan.clone();
        change(&mut plan);
        plan != self.plan && self.attempt(plan)
    }

    fn targets(&mut self) {
        self.stage = "targets";
        self.change(|plan| plan.targets.crashes = 0);
        self.change(|plan| plan.targets.events = 0);
        self.change(|plan| plan.targets.answers = 0);
    }

    fn faults(&mut self) {
        self.stage = "faults";
        let faults = self.plan.faults.clone();
        self.without(&faults, u64::MAX, |plan, left| plan.faults = left.to_vec());
    }

    fn clients(&mut self) {
        self.stage = "clients";
        for client in (0..self.plan.clients.len()).rev() {
            self.change(|plan| plan.clients[client] = Asks::nothing());
        }
        while self.plan.clients.last().is_some_and(Asks::is_nothing)
            && self.change(|plan| drop(plan.clients.pop()))
        {}
    }

    fn operations(&mut self) {
        self.stage = "operations";
        let mut operations: Vec<(u32, usize)> = Vec::new();
        for (client, asks) in self.plan.clients.iter().enumerate() {
            // One that asks without end does so because the end matters.
            let asked = self.failure.report.asked.get(client).copied().unwrap_or(0);
            operations.extend(asks.up_to(asked).map(|n| (n, client)));
        }
        operations.sort_unstable();
        self.without(&operations, FRUITLESS_EVENTS_MAX, |plan, left| {
            for (client, asks) in plan.clients.iter_mut().enumerate() {
                *asks = left.iter().filter(|(_, of)| *of == client).map(|(n, _)| *n).collect();
            }
        });
    }

    fn nodes(&mut self) {
        self.stage = "nodes";
        for node in (0..self.plan.nodes).rev() {
            if self.plan.nodes - self.plan.joining > 1 || node > 0 && self.plan.joining > 0 {
                self.change(|plan| simpler::remove_node(plan, node));
            }
        }
    }

    fn settings(&mut self) {
        self.stage = "settings";
        for setting in simpler::SETTINGS {
            let calm = Plan::calm(self.plan.seed, self.plan.nodes);
            self.change(|plan| setting(plan, &calm));
        }
    }

    fn times(&mut self) {
        self.stage = "times";
        while self.change(|plan| plan.faults.iter_mut().for_each(|fault| fault.at /= 2)) {}
        for at in 0..self.plan.faults.len() {
            while self.simplify(at) {}
            self.shorten(at);
        }
    }

    /// Tries a fault with less to it.
    fn simplify(&mut self, at: usize) -> bool {
        let mut simpler = simpler::kinds(&self.plan.faults[at].kind).into_iter();
        simpler.any(|kind| self.change(|plan| plan.faults[at].kind = kind))
    }

    /// Halves how long a fault lasts, as often as it does not matter; then the time before it.
    fn shorten(&mut self, at: usize) {
        let halve = |plan: &mut Plan| {
            if let Some(lasts) = simpler::lasting(&mut plan.faults[at].kind) {
                *lasts /= 2;
            }
        };
        while self.change(halve) {}
        let before = |plan: &Plan| at.checked_sub(1).map_or(0, |before| plan.faults[before].at);
        // Not one after another: the order of faults stays.
        while self.change(|plan| plan.faults[at].at = plan.faults[at].at.midpoint(before(plan))) {}
    }

    /// Takes pieces out of a list, first large ones, then single ones, until none can go or runs of so
    /// many events were in vain.
    fn without<I: Clone>(
        &mut self,
        items: &[I],
        fruitless_max: u64,
        put: impl Fn(&mut Plan, &[I]),
    ) {
        self.fruitless = 0;
        let mut items = items.to_vec();
        let mut size = items.len();
        while size > 0 && !self.stop && self.fruitless < fruitless_max {
            let mut removed = false;
            let mut from = 0;
            while from < items.len() && !self.stop && self.fruitless < fruitless_max {
                let mut left = items.clone();
                left.drain(from..items.len().min(from + size));
                let smaller = left.clone();
                if self.change(|plan| put(plan, &smaller)) {
                    items = left;
                    removed = true;
                } else {
                    from += size;
                }
            }
            // What was kept may be free to go now that others are gone.
            size = if removed && size == 1 { 1 } else { size / 2 };
        }
    }
}

/// Whether two runs broke the same invariant. Panics are told apart by their place and words, and what
/// was waited for in vain by what that was: how the nodes were meanwhile stands behind it.
fn is_same(one: &Violation, other: &Violation) -> bool {
    let told = |violation: &Violation| {
        let what = match violation.invariant {
            "no panic" => violation.what.as_str(),
            "liveness" => violation.what.split(';').next().unwrap_or_default(),
            _ => "",
        };
        what.replace(|c: char| c.is_ascii_digit(), "")
    };
    one.invariant == other.invariant && told(one) == told(other)
}

impl FaultKind {
    /// Whether it needs this node.
    fn is_about(&self, node: usize) -> bool {
        match self {
            Self::PowerCut { nodes, .. } => nodes.as_slice() == [node],
            Self::SlowLink { from, to, .. } => *from == node || *to == node,
            _ => self.clone().node_mut().is_some_and(|of| *of == node),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Report, Stats};
    use lakebed::Marks;

    /// A run that takes so many events and fails if clients make that many operations in all.
    fn crowd(most: u64, events: u64) -> impl Fn(Seed) -> Outcome {
        move |seed| {
            let plan = seed.plan().expect("it was made of one").clone();
            let stats = Stats { events, ..Stats::default() };
            let asked = plan.clients.iter().map(|asks| asks.count() as u32).collect();
            let has_failed = Size::of(&plan).operations >= most;
            let report = Report {
                seed: plan.seed,
                time: 0,
                stats,
                digest: 0,
                marks: Marks::default(),
                plan,
                asked,
                suspicion: None,
                trace: Vec::new(),
            };
            if !has_failed {
                return Ok(report);
            }
            let violation = Violation::of_cluster("a crowd", "they are too many".into());
            Err(Box::new(Failure { report, violation, lines: Vec::new() }))
        }
    }

    fn of_crowd(events: u64) -> Shrunk {
        let mut plan = Plan::calm(1, 1);
        plan.clients = (0..4).map(|_| (1..=500).collect()).collect();
        let keep_on = |_: &Progress| ControlFlow::Continue(());
        shrink(Seed::of_plan(plan), crowd(700, events), keep_on).expect("it fails")
    }

    #[test]
    fn a_crowd_is_not_tried_one_by_one_for_ever() {
        let cheap = of_crowd(1_000);
        assert_eq!(cheap.after.operations, 700);
        assert!(cheap.tries > 700, "each was tried");
        let dear = of_crowd(100_000);
        assert!(dear.tries < 300, "{} runs", dear.tries);
        assert!((700..720).contains(&dear.after.operations), "{}", dear.after);
        assert!(!dear.stopped);
    }

    #[test]
    fn what_is_waited_for_is_a_part_of_the_bug() {
        let violation = |invariant, what: &str| Violation::of_cluster(invariant, what.into());
        let waits = |what: &str| violation("liveness", what);
        let leader = waits("waited 5000 ms for a leader; node 1: follower term 3");
        assert!(is_same(&leader, &waits("waited 5000 ms for a leader; node 1 is down")));
        assert!(!is_same(&leader, &waits("waited 5000 ms for one log; node 1: follower term 3")));
        let read = waits("waited 5000 ms for a read that node 2 was asked for; node 1 is down");
        let other = waits("waited 5000 ms for a read that node 4 was asked for; node 4 is down");
        assert!(is_same(&read, &other), "nodes have other numbers in a smaller plan");
        let [one, other] =
            ["commits 3.7", "commits 4.9 too early"].map(|what| violation("x", what));
        assert!(is_same(&one, &other));
    }
}
