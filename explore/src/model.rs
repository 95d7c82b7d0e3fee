//! What is explored: which things may happen, how often, and what must be true in every state.

use crate::cluster::{Cluster, NODES, Step};
use stateright::{Checker, Model, Property, UniformChooser};
use std::{
    fmt,
    time::{Duration, Instant},
};

/// How far three nodes have come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begins {
    /// They have not met.
    Founding,
    /// Nobody leads.
    Formed,
    /// There is a leader, whose first entry is everywhere.
    Led,
    /// The same, and an entry is committed that one follower has not heard of.
    Ahead,
    /// Two are voters, one of whom leads; the third waits to be added.
    Pair,
}

/// How much may happen.
#[derive(Clone, Debug)]
pub struct Limits {
    /// What it is called.
    pub name: &'static str,
    /// How far they have come when it begins.
    pub begins: Begins,
    /// How often each node's timers have an effect: elections, heartbeats.
    pub waits: [u8; NODES],
    /// Entries that clients ask for.
    pub proposals: u8,
    /// Orders to a leader to hand its role over.
    pub transfers: u8,
    /// Removals of the last node.
    pub removals: u8,
    /// Orders to add the last node as a learner.
    pub additions: u8,
    /// Orders to let it vote.
    pub promotions: u8,
    /// Greetings of a former group of the same id that arrive only now.
    pub formers: u8,
    /// Disks that are lost, their nodes formatted again.
    pub wipes: u8,
    /// Power cuts.
    pub power_cuts: u8,
    /// Power cuts after which a node has only its hard state, while no other lacks what it held.
    pub log_losses: u8,
    /// Whether what is on its way to a node that loses power arrives all the same.
    pub is_late: bool,
    /// Lines that lose all that is on its way.
    pub losses: u8,
    /// Messages that arrive more than once.
    pub repeats: u8,
    /// Whether messages overtake others on the same way.
    pub any_order: bool,
    /// Whether disks do at once what they are asked.
    pub disks_are_prompt: bool,
    /// How many terms must have had a leader somewhere, or the search proves nothing.
    pub leaders_reached: usize,
    /// How many entries must have been committed somewhere, those that leaders begin with included.
    pub committed_reached: usize,
}

const NOTHING: Limits = Limits {
    name: "",
    begins: Begins::Formed,
    waits: [1, 0, 0],
    proposals: 0,
    transfers: 0,
    removals: 0,
    additions: 0,
    promotions: 0,
    formers: 0,
    wipes: 0,
    power_cuts: 0,
    log_losses: 0,
    is_late: false,
    losses: 0,
    repeats: 0,
    any_order: false,
    disks_are_prompt: false,
    leaders_reached: 1,
    committed_reached: 1,
};

/// One leads.
const LED: Limits = Limits { begins: Begins::Led, waits: [0; NODES], ..NOTHING };
/// It is asked to hand over, so that two terms have a leader.
const TWICE_LED: Limits = Limits { transfers: 1, leaders_reached: 2, ..LED };
/// A third voter is added.
const PROMOTED: Limits =
    Limits { begins: Begins::Pair, additions: 1, promotions: 1, committed_reached: 4, ..PROMPT };

/// What `cargo test` goes through.
pub const SMALL: [Limits; 8] = [
    Limits { name: "election", waits: [1, 1, 0], ..NOTHING },
    Limits { name: "entry", proposals: 1, power_cuts: 1, committed_reached: 2, ..LED },
    Limits { name: "overtaking", repeats: 1, any_order: true, ..PROMPT_TWICE_LED },
    Limits { name: "handover", proposals: 1, committed_reached: 2, ..PROMPT_TWICE_LED },
    Limits { name: "removal", removals: 1, ..PROMPT_TWICE_LED },
    Limits { name: "gate", waits: [0, 1, 2], ..GATED },
    Limits { name: "cut-gate", power_cuts: 1, ..GATED },
    Limits { name: "learner", ..PROMOTED },
];

const PROMPT: Limits = Limits { disks_are_prompt: true, ..LED };
const PROMPT_TWICE_LED: Limits = Limits { disks_are_prompt: true, ..TWICE_LED };
/// Somebody loses its log: it may be the one without whose word the last entry were not committed.
const GATED: Limits =
    Limits { begins: Begins::Ahead, log_losses: 1, committed_reached: 2, ..PROMPT };

/// What is gone through by hand: some minutes each.
pub const LARGE: [Limits; 13] = [
    Limits { name: "loss", proposals: 1, losses: 1, ..PROMPT_TWICE_LED },
    Limits { name: "elections", waits: [2, 1, 0], ..NOTHING },
    Limits { name: "first-entry", waits: [1, 1, 0], proposals: 1, committed_reached: 2, ..NOTHING },
    Limits { name: "entries", proposals: 2, power_cuts: 1, committed_reached: 3, ..LED },
    Limits { name: "two-overtaking", proposals: 2, repeats: 1, any_order: true, ..PROMPT },
    Limits { name: "overtaken", proposals: 1, any_order: true, ..PROMPT_TWICE_LED },
    Limits { name: "slow-handover", proposals: 1, committed_reached: 2, ..TWICE_LED },
    Limits { name: "slow-removal", removals: 1, ..TWICE_LED },
    Limits { name: "cut-handover", proposals: 1, power_cuts: 1, ..PROMPT_TWICE_LED },
    Limits { name: "cut-removal", removals: 1, power_cuts: 1, ..PROMPT_TWICE_LED },
    Limits {
        name: "late-gates",
        log_losses: 2,
        proposals: 1,
        is_late: true,
        any_order: true,
        ..GATED
    },
    Limits { name: "cut-learner", power_cuts: 1, ..PROMOTED },
    Limits {
        name: "combined",
        removals: 1,
        power_cuts: 1,
        losses: 1,
        repeats: 1,
        any_order: true,
        ..PROMPT
    },
];

/// Three founders that meet, one of whom may lose its disk meanwhile. There are too many states of it: it
/// is walked through. (A former group's greetings are left out: one that is late may end the new group,
/// docs/groups.md.)
pub const FOUNDING: Limits = Limits {
    name: "founding",
    begins: Begins::Founding,
    waits: [3; NODES],
    proposals: 1,
    wipes: 1,
    power_cuts: 1,
    losses: 1,
    repeats: 1,
    any_order: true,
    ..NOTHING
};

/// A walk is over after so many steps.
const WALK_MAX: usize = 120;

struct Explored(Limits);

impl Model for Explored {
    type State = Cluster;
    type Action = Step;

    fn init_states(&self) -> Vec<Cluster> {
        vec![match self.0.begins {
            Begins::Founding => Cluster::founding(),
            Begins::Formed => Cluster::formed(),
            Begins::Led => Cluster::led(),
            Begins::Ahead => Cluster::ahead(),
            Begins::Pair => Cluster::pair(),
        }]
    }

    fn actions(&self, cluster: &Cluster, steps: &mut Vec<Step>) {
        cluster.steps(&self.0, steps);
    }

    fn next_state(&self, cluster: &Cluster, step: Step) -> Option<Cluster> {
        cluster.after(step, &self.0)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("what Raft promises", |_: &Self, cluster: &Cluster| {
                cluster.ledger.violation.is_none()
            }),
            Property::sometimes("leaders", |model: &Self, cluster: &Cluster| {
                cluster.has_led(model.0.leaders_reached)
            }),
            Property::sometimes("entries", |model: &Self, cluster: &Cluster| {
                cluster.has_committed(model.0.committed_reached)
            }),
            Property::sometimes("removal", |model: &Self, cluster: &Cluster| {
                model.0.removals == 0 || cluster.has_removed()
            }),
            Property::sometimes("promotion", |model: &Self, cluster: &Cluster| {
                model.0.promotions == 0 || cluster.has_promoted()
            }),
            Property::sometimes("open gate", |model: &Self, cluster: &Cluster| {
                model.0.log_losses == 0 || cluster.has_opened_a_gate()
            }),
        ]
    }
}

/// What a search that is to prove anything comes to somewhere.
const REACHED: [&str; 5] = ["leaders", "entries", "removal", "promotion", "open gate"];

/// How a search ended.
#[derive(Clone, Debug)]
pub struct Exploration {
    /// Steps that were tried.
    pub steps: usize,
    /// Different states they led to.
    pub states: usize,
    /// The longest way without a state twice.
    pub depth: usize,
    /// How long it took.
    pub time: Duration,
    /// Whether every state within the limits was seen.
    pub is_whole: bool,
    /// The first way to a state that must not be, with what is wrong there.
    pub violation: Option<String>,
    /// What should have been reached and was not.
    pub unreached: Vec<&'static str>,
}

/// Goes through every state within these limits, or as many steps as `steps_max`.
#[must_use]
pub fn explore(limits: &Limits, threads: usize, steps_max: usize) -> Exploration {
    let began = Instant::now();
    let checker = Explored(limits.clone()).checker().threads(threads);
    let checker = checker.target_state_count(steps_max).spawn_dfs().join();
    let is_whole = checker.is_done() && checker.state_count() < steps_max;
    told(&checker, began, is_whole)
}

/// Walks from the beginning to where nothing more can happen, each time by other steps that are drawn
/// from `seed`, until so many steps were taken.
#[must_use]
pub fn walk(limits: &Limits, seed: u64, steps: usize) -> Exploration {
    let began = Instant::now();
    let checker = Explored(limits.clone()).checker().target_state_count(steps);
    let checker = checker.target_max_depth(WALK_MAX).spawn_simulation(seed, UniformChooser).join();
    told(&checker, began, false)
}

fn told(checker: &impl Checker<Explored>, began: Instant, is_whole: bool) -> Exploration {
    let violation = checker.discovery("what Raft promises").map(|path| {
        let last = format!("{:?}", path.last_state());
        let steps = path.into_actions();
        let steps: Vec<_> = steps.iter().map(|step| format!("  {step:?}\n")).collect();
        format!("{}{last}", steps.concat())
    });
    let reached = |name: &&&'static str| checker.discovery(name).is_none();
    Exploration {
        steps: checker.state_count(),
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        time: began.elapsed(),
        is_whole,
        violation,
        unreached: REACHED.iter().filter(reached).copied().collect(),
    }
}

impl fmt::Display for Exploration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { steps, states, depth, time, is_whole, violation, unreached } = self;
        let whole = if *is_whole { "all" } else { "the first" };
        writeln!(f, "{whole} {states} states, {steps} steps, depth {depth}, {time:.1?}")?;
        if !unreached.is_empty() {
            writeln!(f, "never reached: {}", unreached.join(", "))?;
        }
        match violation {
            Some(violation) => writeln!(f, "broken:\n{violation}"),
            None => writeln!(f, "nothing broken"),
        }
    }
}
