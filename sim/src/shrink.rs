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
    agenda::A_RUN_ENDS,
    plan::{Asks, FaultKind, Plan},
};
use std::{fmt, ops::ControlFlow};

/// After this many rounds over everything it is small enough.
const ROUNDS_MAX: u32 = 8;
/// So much happened, in half a minute or so, and took no good part of the operations out: next to all are
/// needed. A bug that takes a crowd is not made smaller by trying each of them alone; and what is counted is
/// the same on every machine.
const FRUITLESS_MAX: u64 = 10_000_000;
/// One of so many is a good part of a list. Were it worth as much that a single one goes, a crowd of which
/// one in a hundred may go would be tried one by one after all.
const GOOD_PART: usize = 4;
/// So many pieces share each place of a list, if they are large.
const OVERLAP: usize = 4;
/// Of so much.
const LARGE: usize = 32;
/// So many times as much may happen in a run that is tried as in the smallest one that fails.
const HAPPEN_TIMES: u64 = 8;
/// And so much in any case: to elect a leader with other settings may take longer than all that it took to fail.
const HAPPEN_LEAST: u64 = 20_000;

/// What most runs are for.
const OPERATIONS: &str = "operations";

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
        many: before.operations as usize,
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
    /// What happened in the runs that were in vain since operations last became fewer by a good part, and how many
    /// there were then.
    fruitless: u64,
    many: usize,
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
            // Where faults strike earlier there are fewer operations before.
            self.times();
            self.operations();
            if self.stop || self.plan == before {
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
        let result = (self.run)(Seed::of_plan(plan.clone()).at_most(self.happen_max()));
        let ran = result.as_ref().unwrap_or_else(|failure| &failure.report);
        let happened = ran.stats.happened;
        let same = result.err().filter(|other| is_same(&self.failure.violation, &other.violation));
        let fails = same.is_some();
        if let Some(failure) = same {
            self.failure = failure;
            self.plan = plan;
        } else if self.stage == OPERATIONS {
            self.fruitless += happened;
        }
        let progress =
            Progress { stage: self.stage, tries: self.tries, size: Size::of(&self.plan) };
        self.stop = (self.told)(&progress).is_break();
        fails
    }

    /// So much may happen in a run that is to fail as the smallest one does: what fails much later would be
    /// no smaller to whoever reads it, and what does not fail at all goes on to its end otherwise.
    fn happen_max(&self) -> u64 {
        if self.failure.violation.invariant == A_RUN_ENDS {
            // That nothing ended it is the failure, and it is told by the same words.
            return u64::MAX;
        }
        HAPPEN_LEAST.max(self.failure.report.stats.happened.saturating_mul(HAPPEN_TIMES))
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
        self.without(&faults, |plan, left| plan.faults = left.to_vec());
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
        self.stage = OPERATIONS;
        let mut operations: Vec<(u32, usize)> = Vec::new();
        for (client, asks) in self.plan.clients.iter().enumerate() {
            // One that asks without end does so because the end matters.
            let asked = self.failure.report.asked.get(client).copied().unwrap_or(0);
            operations.extend(asks.up_to(asked).map(|n| (n, client)));
        }
        operations.sort_unstable();
        self.are_left(operations.len());
        self.without(&operations, |plan, left| {
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

    /// So many operations are left to be taken out.
    fn are_left(&mut self, operations: usize) {
        if self.stage == OPERATIONS && operations * GOOD_PART <= self.many * (GOOD_PART - 1) {
            (self.fruitless, self.many) = (0, operations);
        }
    }

    /// Whether more is to be taken out of a list. Other lists are short.
    fn goes_on(&self) -> bool {
        !self.stop && (self.stage != OPERATIONS || self.fruitless < FRUITLESS_MAX)
    }

    /// Takes pieces out of a list, first large ones, then single ones, until none can go.
    ///
    /// Large pieces overlap: a failure that hangs on when everything happens is there again by chance, whatever
    /// is taken out, and as likely without a large piece as without a small one.
    fn without<I: Clone>(&mut self, items: &[I], put: impl Fn(&mut Plan, &[I])) {
        let mut items = items.to_vec();
        let mut size = items.len();
        while size > 0 && self.goes_on() {
            let mut removed = false;
            let mut from = 0;
            while from < items.len() && self.goes_on() {
                let mut left = items.clone();
                left.drain(from..items.len().min(from + size));
                let smaller = left.clone();
                if self.change(|plan| put(plan, &smaller)) {
                    items = left;
                    removed = true;
                    self.are_left(items.len());
                } else {
                    from += if size < LARGE { size } else { size / OVERLAP };
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
    use std::cell::Cell;

    /// A run in which so much happens and that fails if clients make that many operations in all.
    fn crowd(most: u64, happened: u64) -> impl Fn(Seed) -> Outcome {
        move |seed| {
            let plan = seed.plan().expect("it was made of one").clone();
            let stats = Stats { happened, ..Stats::default() };
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

    /// A plan of two thousand operations.
    fn many() -> Plan {
        let mut plan = Plan::calm(1, 1);
        plan.clients = (0..4).map(|_| (1..=500).collect()).collect();
        plan
    }

    fn of_crowd(happened: u64) -> Shrunk {
        let keep_on = |_: &Progress| ControlFlow::Continue(());
        shrink(Seed::of_plan(many()), crowd(700, happened), keep_on).expect("it fails")
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

    /// Five seconds of engines that did not lose anything, for each of a thousand plans: an hour.
    #[test]
    fn what_does_not_fail_is_not_run_to_its_end() {
        const FAILS_AFTER: u64 = 30_000;
        let spent = Cell::new((0, 0));
        let run = |seed: Seed| {
            let most = seed.happen_max().min(2_000_000);
            let mut outcome = crowd(700, 1_000)(seed);
            let (report, happened) = match &mut outcome {
                Ok(report) => (report, most),
                Err(failure) => (&mut failure.report, most.min(FAILS_AFTER)),
            };
            report.stats.happened = happened;
            let (first, rest) = spent.get();
            spent.set(if first == 0 { (happened, 0) } else { (first, rest.max(happened)) });
            outcome
        };
        shrink(Seed::of_plan(many()), run, |_| ControlFlow::Continue(())).expect("it fails");
        assert_eq!(spent.get(), (FAILS_AFTER, FAILS_AFTER * HAPPEN_TIMES));
    }

    /// Else each run that is broken off would be taken for one without an end.
    #[test]
    fn a_run_without_an_end_has_its_time() {
        let run = |seed: Seed| {
            assert_eq!(seed.happen_max(), u64::MAX, "it may be broken off");
            crowd(700, 1_000)(seed).map_err(|mut failure| {
                failure.violation.invariant = A_RUN_ENDS;
                failure
            })
        };
        let shrunk = shrink(Seed::of_plan(many()), run, |_| ControlFlow::Continue(()));
        assert_eq!(shrunk.expect("it fails").after.operations, 700);
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
