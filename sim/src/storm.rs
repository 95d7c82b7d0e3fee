//! A storm: a cluster under load and faults for a while (safety), then healed, when it must serve
//! again and all its nodes must become the same (liveness).

use crate::{
    check::Seed,
    client::{Op, Workload},
    disk::Survivors,
    oracle::{Checked, Violation},
    plan::{Fault, FaultKind, MS, Moment, Plan},
    report::{Failure, Report},
    world::World,
};
use lakebed::{Role, StateMachine};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// After healing a leader must have committed a new write within this.
const SERVE_WITHIN: u64 = 5_000 * MS;
/// After the last request all nodes must be the same within this.
const CONVERGE_WITHIN: u64 = 10_000 * MS;
/// A healed cluster must reach the storm's targets within this.
const TARGETS_WITHIN: u64 = 60_000 * MS;
/// Power cuts with sectors pending in every storm, at least.
const CRASHES_MIN: u64 = 2;

/// A run to be: a plan, and how much must happen in it.
#[derive(Clone, Debug)]
pub struct Storm {
    seed: Seed,
    plan: Plan,
    events_min: u64,
    operations_min: u64,
}

impl Storm {
    /// A storm over three nodes, everything else drawn from the seed: at least 2,000 events and
    /// 100 answered requests.
    #[must_use]
    pub fn new(seed: Seed) -> Self {
        Self { seed, plan: Plan::storm(seed.number, 3), events_min: 2_000, operations_min: 100 }
    }

    /// The same over another number of nodes.
    #[must_use]
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.plan = Plan::storm(self.seed.number, nodes);
        self
    }

    /// Changes the plan.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Plan)) -> Self {
        change(&mut self.plan);
        self
    }

    /// What it will be.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Runs it with this machine and this workload.
    pub fn run<M: StateMachine, W: Workload>(
        self,
        machine: fn() -> M,
        workload: W,
    ) -> Result<Report, Box<Failure>> {
        let (seed, events, operations) = (self.seed, self.events_min, self.operations_min);
        observe(seed, World::new(self.plan, machine, workload), |world| {
            storm(world)?;
            world.heal();
            serve(world)?;
            let enough = |world: &World<M, W>| {
                world.stats().events >= events && world.stats().answered >= operations
            };
            run_until(world, TARGETS_WITHIN, "the storm's targets", enough)?;
            converge(world)
        })
    }
}

/// Runs a story in a world and makes a report of it; a panic of the engine is a violation too.
pub fn observe<M: StateMachine, W: Workload>(
    seed: Seed,
    mut world: World<M, W>,
    story: impl FnOnce(&mut World<M, W>) -> Checked,
) -> Result<Report, Box<Failure>> {
    if seed.is_traced() {
        world.trace(seed.is_printed());
    }
    let told = catch_unwind(AssertUnwindSafe(|| story(&mut world)));
    let told = told.unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<String>().map(String::as_str);
        let what = what.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(Violation { invariant: "no panic", node: world.touched(), what: what.into() })
    });
    let report = Report::of(seed, &world);
    match told {
        Ok(()) => Ok(report),
        Err(violation) => {
            let lines = world.last_lines(violation.node, 40);
            Err(Box::new(Failure { report, violation, lines }))
        }
    }
}

/// Lets the plan's faults strike and end, each at its time.
fn storm<M: StateMachine, W: Workload>(world: &mut World<M, W>) -> Checked {
    let mut coming = turns(&world.plan().faults);
    coming.reverse();
    while let Some(turn) = coming.pop() {
        while world.next_at() < turn.at {
            world.step()?;
        }
        world.pass_until(turn.at);
        if turn.begins {
            world.strike(&turn.fault.kind)?;
        } else {
            world.relent(&turn.fault.kind);
        }
    }
    while world.stats().crashes_with_writes_pending < CRASHES_MIN {
        one_more_crash(world)?;
    }
    // The last fault has its effect before everything is healed.
    run_for(world, 100 * MS)
}

/// The planned power cuts met nodes that were down, or that had nothing to lose.
fn one_more_crash<M: StateMachine, W: Workload>(world: &mut World<M, W>) -> Checked {
    let crashes = world.stats().crashes;
    let nodes = (0..world.nodes()).collect();
    let (moment, survivors) = (Moment::Pending, Survivors::Random);
    world.strike(&FaultKind::PowerCut { nodes, moment, survivors, rot: None, down: 5 * MS })?;
    run_until(world, SERVE_WITHIN, "one more power cut", |world| world.stats().crashes > crashes)?;
    run_for(world, 50 * MS)
}

/// The beginning or the end of a fault.
struct Turn {
    at: u64,
    begins: bool,
    fault: Fault,
}

fn turns(faults: &[Fault]) -> Vec<Turn> {
    let mut turns: Vec<Turn> = Vec::new();
    for fault in faults {
        turns.push(Turn { at: fault.at, begins: true, fault: fault.clone() });
        if let Some(lasts) = fault.kind.lasts() {
            turns.push(Turn { at: fault.at + lasts, begins: false, fault: fault.clone() });
        }
    }
    turns.sort_by_key(|turn| turn.at);
    turns
}

/// A leader appears, and a write made after the healing is acknowledged.
pub fn serve<M: StateMachine, W: Workload>(world: &mut World<M, W>) -> Checked {
    run_until(world, SERVE_WITHIN, "all nodes to be up", |world| {
        (0..world.nodes()).all(|node| world.probe(node).is_some_and(|probe| probe.ready))
    })?;
    run_until(world, SERVE_WITHIN, "a leader", |world| leader(world).is_some())?;
    let before = world.acknowledged();
    run_until(world, SERVE_WITHIN, "a new write to be acknowledged", |world| {
        world.acknowledged() > before
    })
}

/// Without load all nodes come to the same log and the same state.
pub fn converge<M: StateMachine, W: Workload>(world: &mut World<M, W>) -> Checked {
    world.dismiss_clients();
    run_until(world, CONVERGE_WITHIN, "all nodes to hold and apply the same log", |world| {
        let probes: Vec<_> = (0..world.nodes()).filter_map(|node| world.probe(node)).collect();
        let last = probes.iter().map(|probe| probe.last).max();
        probes.len() == world.nodes()
            && probes
                .iter()
                .all(|probe| Some(probe.last) == last && probe.applied == probe.last.index)
    })?;
    world.compare_states()
}

/// The node that leads in the greatest term.
pub fn leader<M: StateMachine, W: Workload>(world: &World<M, W>) -> Option<usize> {
    (0..world.nodes())
        .filter_map(|node| Some((world.probe(node)?, node)))
        .filter(|(probe, _)| probe.role == Role::Leader)
        .max_by_key(|(probe, _)| probe.term)
        .map(|(_, node)| node)
}

/// Lets time pass, in simulated nanoseconds.
pub fn run_for<M: StateMachine, W: Workload>(world: &mut World<M, W>, time: u64) -> Checked {
    let until = world.now() + time;
    while world.next_at() < until {
        world.step()?;
    }
    world.pass_until(until);
    Ok(())
}

/// Lets time pass until something holds; that it does within `limit` is an invariant.
pub fn run_until<M: StateMachine, W: Workload>(
    world: &mut World<M, W>,
    limit: u64,
    what: &str,
    holds: impl Fn(&World<M, W>) -> bool,
) -> Checked {
    let until = world.now() + limit;
    while !holds(world) {
        if world.now() > until {
            let nodes: Vec<String> = (0..world.nodes()).map(|node| describe(world, node)).collect();
            let what = format!("waited {} ms for {what}; {}", limit / MS, nodes.join("; "));
            return Err(Violation { invariant: "liveness", node: None, what });
        }
        world.step()?;
    }
    Ok(())
}

fn describe<M: StateMachine, W: Workload>(world: &World<M, W>, node: usize) -> String {
    world.probe(node).map_or_else(
        || format!("node {} is down", node + 1),
        |probe| {
            format!(
                "node {}: {} term {} applied {} committed {} durable {} last {}{}",
                node + 1,
                probe.role,
                probe.term,
                probe.applied,
                probe.committed,
                probe.durable,
                probe.last,
                if probe.ready { "" } else { " not ready" }
            )
        },
    )
}

/// A write through whoever leads, within a bounded time; for stories.
pub fn write<M: StateMachine, W: Workload>(world: &mut World<M, W>, command: &[u8]) -> Checked {
    let before = world.acknowledged();
    for _ in 0..50 {
        if let Some(leader) = leader(world) {
            world.request(leader, Op::Propose(command.to_vec()))?;
        }
        run_for(world, 50 * MS)?;
        if world.acknowledged() > before {
            return Ok(());
        }
    }
    let what = "a write was not acknowledged within 2.5 s".into();
    Err(Violation { invariant: "liveness", node: None, what })
}
