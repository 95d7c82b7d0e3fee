//! A storm: a cluster under load and faults for a while (safety), then healed, when it must serve
//! again and all its nodes must become the same (liveness).

mod calm;
mod course;
mod errands;
mod majority;
mod scrubbed;

pub(crate) use course::{Course, turns};

use crate::{
    client::{Op, Workload},
    disk::Survivors,
    measured::{Measured, make_room},
    node::Scars,
    oracle::{Checked, Violation},
    panics::{self, Panic},
    plan::{FaultKind, MS, Moment, Plan, Step, Steps},
    report::{Failure, Report},
    seed::Seed,
    world::World,
};
use errands::{Asked, serves};
use lakebed::{
    Control, LogIndex, Mark, Membership, NodeId, Outcome, Role, StateMachine, inspect::Probe,
};
use std::sync::Arc;

/// What is owed at the end did not come to be.
const LIVENESS: &str = "liveness";
/// After healing there must be a leader within this, and then an answer of whoever is asked.
const SERVE_WITHIN: u64 = 5_000 * MS;
/// How long until a request that was refused, or whose end is unknown, is made again.
const ASK_AGAIN_AFTER: u64 = 15 * MS;
/// After the last request all nodes must be the same within this.
const CONVERGE_WITHIN: u64 = 10_000 * MS;
/// So often it is looked whether anybody has to ask for a machine to be taken in.
const TURNS: u32 = 500;
/// How often it may take that long again, while there is progress.
const CONVERGE_TIMES: u32 = 20;
/// So many power cuts are tried beside the planned ones, so that some meet writes under way.
const MORE_CRASHES_MAX: u64 = 30;
/// A storm in which more happens, and ten times as many events as it is to have, has no end: it is to be
/// seen as the failure that it is, and not as a sweep that says nothing. The longest known have sixty
/// thousand events.
const HAPPEN_MAX: u64 = 2_000_000;
/// A healed cluster must reach the storm's targets within this.
const TARGETS_WITHIN: u64 = 60_000 * MS;

/// So much of a trace stands on the screen of a failure.
const LINES: usize = 25;

/// A run to be: from a seed, or as a plan says that was made from one.
#[derive(Clone, Debug)]
pub struct Storm {
    seed: Seed,
    plan: Plan,
    command_bytes_max: usize,
}

impl Storm {
    /// A storm over three nodes, everything else drawn from the seed.
    #[must_use]
    pub fn new(seed: Seed) -> Self {
        let plan = seed.plan().cloned().unwrap_or_else(|| Plan::storm(seed.number, 3));
        Self { seed, plan, command_bytes_max: 0 }
    }

    /// Commands of so many bytes fit: limits, queues and segments that were drawn smaller are as large as
    /// that takes. Without it a command may have 900 bytes, which fit into every plan.
    #[must_use]
    pub fn commands_up_to(mut self, bytes: usize) -> Self {
        self.command_bytes_max = bytes;
        self.with(|plan| make_room(plan, bytes))
    }

    /// Another plan, in which there is room for as much.
    fn drawn(mut self, plan: impl FnOnce(&Self) -> Plan) -> Self {
        if self.seed.plan().is_none() {
            self.plan = plan(&self);
            make_room(&mut self.plan, self.command_bytes_max);
        }
        self
    }

    /// The same over another number of nodes. A plan that is replayed says itself how many.
    #[must_use]
    pub fn nodes(self, nodes: usize) -> Self {
        if nodes == 0 {
            // For nobody nothing can be drawn; running it says so.
            return self.with(|plan| plan.nodes = 0);
        }
        self.drawn(|storm| Plan::storm(storm.seed.number, nodes))
    }

    /// In one run of three the members change, too.
    #[must_use]
    pub fn swarm(self) -> Self {
        self.drawn(|storm| Plan::swarm(storm.seed.number, storm.plan.nodes))
    }

    /// The members change in every run.
    #[must_use]
    pub fn churn(self) -> Self {
        self.drawn(|storm| Plan::churn(storm.seed.number, storm.plan.nodes))
    }

    /// Changes the plan that was drawn. One that is replayed had been changed before it was kept.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Plan)) -> Self {
        if self.seed.plan().is_none() {
            change(&mut self.plan);
        }
        self
    }

    /// What it will be.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Runs it with this machine and this workload.
    ///
    /// # Panics
    /// If the plan is one that cannot be run, with the reason in a sentence.
    #[track_caller]
    pub fn run<M: StateMachine, W: Workload>(
        self,
        machine: fn() -> M,
        workload: W,
    ) -> Result<Report, Box<Failure>> {
        if let Err(problem) = self.plan.validate() {
            panic!("the plan cannot be run: {problem}");
        }
        let workload = Measured::under(&self.plan, workload);
        let mut world = World::new(self.plan, machine, workload);
        world.limit(happen_max(world.plan()));
        observe(self.seed, world, |world| {
            storm(world)?;
            if world.plan().is_beyond() {
                return end_beyond(world);
            }
            end(world)
        })
    }
}

/// Runs a story in a world and makes a report of it; a panic of the engine is a violation too.
pub fn observe<M: StateMachine, W: Workload>(
    seed: Seed,
    mut world: World<M, W>,
    story: impl FnOnce(&mut World<M, W>) -> Checked,
) -> Result<Report, Box<Failure>> {
    world.limit(seed.happen_max());
    if seed.is_kept() {
        world.trace_whole();
    } else if seed.is_traced() {
        world.trace(seed.print());
    }
    let told = panics::caught(|| story(&mut world));
    let told = told.unwrap_or_else(|panic| Err(violation(panic, world.touched())));
    let report = Report::of(&seed, &world);
    match told {
        Ok(()) => Ok(report),
        Err(violation) => {
            let lines = world.last_lines(violation.node, LINES);
            Err(Box::new(Failure { report, violation, lines }))
        }
    }
}

/// A panic as the broken invariant that it is.
pub(crate) fn violation(panic: Panic, node: Option<usize>) -> Violation {
    match panic.blame {
        Some((invariant, doing)) => {
            if doing.is_empty() {
                // A workload is no node's.
                return Violation::of_cluster(invariant, panic.what);
            }
            Violation { invariant, node, what: format!("{doing}: {}", panic.what) }
        }
        None => Violation { invariant: "no panic", node, what: panic.what },
    }
}

/// After so many things that happened a storm of this plan has no end.
pub(crate) fn happen_max(plan: &Plan) -> u64 {
    HAPPEN_MAX.max(plan.targets.events.saturating_mul(10))
}

/// Lets the plan's faults strike and end, each at its time.
fn storm<M: StateMachine, W: Workload>(world: &mut World<M, W>) -> Checked {
    let mut course = Course::of(world.plan());
    while course.step(world)? {}
    // Where a leader takes longer than that to be elected, the next one comes later.
    for turn in 1..=MORE_CRASHES_MAX {
        if world.stats().crashes_with_writes_pending >= world.plan().targets.crashes {
            break;
        }
        one_more_crash(world, turn * 50 * MS)?;
    }
    let last = last_effect(world);
    run_for(world, last)
}

/// How long the last fault may take to have its effect before everything is healed; so may what a
/// process that stands still was asked for.
pub(crate) fn last_effect<M: StateMachine, W: Workload>(world: &World<M, W>) -> u64 {
    world.paused_for().max(100 * MS)
}

/// What is owed at the end of a storm within the budget: everything is healed, the cluster serves,
/// has done what the plan wants, and all nodes are the same; but those that refused.
pub(crate) fn end<M: StateMachine, W: Workload>(world: &mut World<M, W>) -> Checked {
    world.heal();
    come_together(world)?;
    hand_over(world)?;
    become_one_log(world)?;
    if majority::goes_on(world)? {
        nothing_is_open(world)?;
        become_one_log(world)?;
    }
    calm::stays_calm(world)?;
    scrubbed::finds(world)
}

/// Whoever leads hands over to another voter when it is asked to, as nothing stands in the way.
fn hand_over<M: StateMachine, W: Workload>(world: &mut World<M, W>) -> Checked {
    let until = world.now() + SERVE_WITHIN;
    let mut heir = None;
    loop {
        if let Some(leads) = leader(world) {
            heir = heir.or_else(|| another_voter(world, leads));
            let Some(heir) = heir.filter(|heir| *heir != leads) else { return Ok(()) };
            let order = Control::Transfer { to: Some(NodeId(heir as u64 + 1)) };
            let told = world.carry_out(leads, order)?;
            if let Some(Outcome::Done(_)) = told {
                if leader(world) == Some(heir) {
                    return Ok(());
                }
                let what = format!("it has handed over to node {}, which does not lead", heir + 1);
                return Err(Violation::new("a handover is one", leads, what));
            }
        }
        if world.now() > until {
            return Err(waited_in_vain(world, SERVE_WITHIN, "the lead to be handed over"));
        }
        run_for(world, ASK_AGAIN_AFTER)?;
    }
}

/// A voter that is there, other than this node.
fn another_voter<M: StateMachine, W: Workload>(world: &World<M, W>, node: usize) -> Option<usize> {
    let members = world.members(node)?;
    let is_voter = |other: &usize| members.is_voter(NodeId(*other as u64 + 1));
    let is_there = |other: &usize| !world.is_out(*other) && world.probe(*other).is_some();
    let mut others = (1..world.nodes()).map(|by| (node + by) % world.nodes());
    others.find(|other| is_voter(other) && is_there(other))
}

/// The cluster serves, has done what the plan wants, and all nodes that can are the same.
fn come_together<M: StateMachine, W: Workload>(world: &mut World<M, W>) -> Checked {
    let targets = world.plan().targets;
    serve(world)?;
    take_in(world)?;
    let enough = |world: &World<M, W>| {
        world.stats().events >= targets.events && world.stats().answered >= targets.answers
    };
    run_until(world, TARGETS_WITHIN, "the storm's targets", enough)?;
    converge(world)?;
    nothing_is_open(world)?;
    // What ended last may have been a change of the members, or of whoever leads.
    become_one_log(world)
}

/// Every request ends: answered, refused, or unknown, as those are that a process took with it.
fn nothing_is_open<M: StateMachine, W: Workload>(world: &mut World<M, W>) -> Checked {
    let told = run_until(world, CONVERGE_WITHIN, "every request to end", |world| {
        world.open_request().is_none()
    });
    told.map_err(|violation| {
        let open = world.open_request().unwrap_or_default();
        Violation { what: format!("{open} is open; {}", violation.what), ..violation }
    })
}

/// A machine that waits to join, whose id was not passed over, is taken in by a cluster that serves,
/// though no member's driver knew it before.
fn take_in<M: StateMachine, W: Workload>(world: &mut World<M, W>) -> Checked {
    let (last, joining) = (world.nodes() - 1, world.plan().joining);
    let id = NodeId(last as u64 + 1);
    let has_place = |world: &World<M, W>| {
        let members = leader(world).and_then(|leader| world.members(leader));
        members.is_none_or(|members| members.member(id).is_some() || members.is_former(id))
    };
    if joining == 0 || world.is_out(last) || has_place(world) {
        return Ok(());
    }
    for _ in 0..TURNS {
        if !world.is_changing() && !has_place(world) {
            world.want_change(&Steps(vec![Step::Add(last)]))?;
        }
        run_for(world, 10 * MS)?;
        if has_place(world) {
            return Ok(());
        }
    }
    run_until(world, SERVE_WITHIN, "a machine that waits to join to be taken in", has_place)
}

/// The planned power cuts met nodes that were down, or that had nothing to lose.
fn one_more_crash<M: StateMachine, W: Workload>(world: &mut World<M, W>, then: u64) -> Checked {
    let crashes = world.stats().crashes;
    let nodes = (0..world.nodes()).collect();
    let (moment, survivors) = (Moment::Pending, Survivors::Random);
    world.strike(&FaultKind::PowerCut { nodes, moment, survivors, rot: None, down: 5 * MS })?;
    run_until(world, SERVE_WITHIN, "one more power cut", |world| world.stats().crashes > crashes)?;
    run_for(world, then)
}

/// Beyond the budget all is owed as long as nodes to whose disks nothing of the kind was done, or that have
/// got over it, are a quorum, and have met their founders; else nothing but that whoever still serves is right.
fn end_beyond<M: StateMachine, W: Workload>(world: &mut World<M, W>) -> Checked {
    world.heal();
    run_for(world, 300 * MS)?;
    let is_owed = |world: &World<M, W>| world.has_sound_quorum(|node| takes_part(world, node));
    if is_owed(world) {
        match come_together(world) {
            // What was done to one of their disks lay hidden until then, and nobody else has what it took.
            Err(violation) if violation.invariant == LIVENESS && !is_owed(world) => {}
            told => return told,
        }
    }
    world.dismiss_clients();
    run_for(world, 300 * MS)?;
    world.compare_states_there()
}

/// All nodes that can come up, a leader appears, and whoever leads answers a write and a read that it was
/// asked for after that.
pub fn serve<M: StateMachine, W: Workload>(world: &mut World<M, W>) -> Checked {
    let are_up = |world: &World<M, W>| {
        let is_ready = |node| world.probe(node).is_some_and(|probe| probe.ready);
        let is_owed = |node| takes_part(world, node) && !is_forgotten(world, node);
        (0..world.nodes()).all(|node| is_ready(node) || !is_owed(node))
    };
    let wait = |world: &mut _| run_until(world, SERVE_WITHIN, "all nodes to be up", are_up);
    match wait(world) {
        // More is written than may be kept behind a snapshot on its way: one arrives when less is.
        Err(late) if late.invariant == LIVENESS && world.marks().has(Mark::InstallOutrun) => {
            world.dismiss_clients();
            wait(world)?;
        }
        told => told?,
    }
    run_until(world, SERVE_WITHIN, "a leader", |world| leader(world).is_some())?;
    serves(world, &[Asked::Leader])
}

/// Whether a node is a member, as far as whoever leads knows; while nobody does, it may be.
fn is_member<M: StateMachine, W: Workload>(world: &World<M, W>, node: usize) -> bool {
    let members = leader(world).and_then(|leader| world.members(leader));
    let is_one = |members: Arc<Membership>| members.member(NodeId(node as u64 + 1)).is_some();
    takes_part(world, node) && members.is_none_or(is_one)
}

/// Whether a node can be a part of it: its disk is not beyond that, nor that of a founder whom it waits
/// to meet. One who left is no reason to wait: whoever stayed says so.
fn takes_part<M: StateMachine, W: Workload>(world: &World<M, W>, node: usize) -> bool {
    let is_forming = world.probe(node).is_some_and(|probe| probe.role == Role::Forming);
    let is_any_ruined = (0..world.nodes()).any(|node| world.scars(node).is_out);
    !(world.is_out(node) || is_forming && is_any_ruined)
}

/// Without load all nodes come to the same log and the same state, and each of them serves.
pub fn converge<M: StateMachine, W: Workload>(world: &mut World<M, W>) -> Checked {
    world.dismiss_clients();
    become_one_log(world)?;
    // Under load a member behind a slow link lags, for ever if need be, and a write that it passes on
    // ends unknown there: what each owes is owed now.
    let members: Vec<Asked> = (0..world.nodes()).map(Asked::Member).collect();
    serves(world, &members)?;
    become_one_log(world)?;
    if world.plan().joining > 0 || (0..world.nodes()).any(|node| world.is_out(node)) {
        return world.compare_states_there();
    }
    world.compare_states()
}

fn become_one_log<M: StateMachine, W: Workload>(world: &mut World<M, W>) -> Checked {
    let applied = |world: &World<M, W>| -> u64 {
        let probes = (0..world.nodes()).filter_map(|node| world.probe(node));
        probes.map(|probe| probe.applied.0).sum()
    };
    // Where a window holds one short append and links are slow, a long log takes its time. It must
    // go on, though.
    let mut before = applied(world);
    for times in 1..=CONVERGE_TIMES {
        let what = "all nodes to hold and apply the same log";
        match run_until(world, CONVERGE_WITHIN, what, is_one_log) {
            Ok(()) => break,
            Err(violation)
                if violation.invariant == LIVENESS
                    && times < CONVERGE_TIMES
                    && applied(world) > before =>
            {
                before = applied(world);
            }
            Err(violation) => return Err(violation),
        }
    }
    Ok(())
}

/// Whether all who are owed the log hold and have applied the same, and nobody is left that must go.
fn is_one_log<M: StateMachine, W: Workload>(world: &World<M, W>) -> bool {
    let Some(members) = leader(world).and_then(|leader| world.members(leader)) else {
        return false;
    };
    let is_one = |node: usize| members.member(NodeId(node as u64 + 1)).is_some();
    let owed = |node: &usize| takes_part(world, *node) && is_one(*node);
    let owed: Vec<usize> = (0..world.nodes()).filter(owed).collect();
    let probes: Vec<_> = owed.iter().filter_map(|node| world.probe(*node)).collect();
    let last = probes.iter().map(|probe| probe.last).max();
    probes.len() == owed.len()
        && members.outgoing.is_empty()
        && (0..world.nodes()).all(|node| !must_stop(world, node, &members))
        && owed.iter().zip(&probes).all(|(node, probe)| {
            let is_given = |index| {
                let mut others = owed.iter().zip(&probes).filter(|(other, _)| *other != node);
                others.any(|(other, probe)| world.scars(*other).gives(probe, index))
            };
            Some(probe.last) == last && is_whole(probe, world.scars(*node), is_given)
        })
}

/// Whether a node has applied all of its log, and all of that is durable and nothing amiss, but for what
/// damage may have left; `is_given`: whether another can give an entry to it.
pub(crate) fn is_whole(probe: &Probe, scars: &Scars, is_given: impl Fn(LogIndex) -> bool) -> bool {
    let last = probe.last.index;
    let is_full = probe.applied == last && probe.durable == last;
    is_full && !probe.gated && (!probe.holed || scars.may_keep_hole(probe.first, is_given))
}

/// Whether a node has left, goes on, and knows somebody who could tell it.
fn must_stop<M: StateMachine, W: Workload>(
    world: &World<M, W>,
    node: usize,
    members: &Membership,
) -> bool {
    let Some(known) = world.members(node) else { return false };
    let teller =
        |id: NodeId| known.member(id).is_some() && world.probe(id.0 as usize - 1).is_some();
    members.is_former(NodeId(node as u64 + 1))
        && !world.is_out(node)
        && members.members().any(|member| teller(member.id))
}

/// Whether a node was removed before it met anybody, and all whom it could meet have left: it waits for
/// ever, and nobody can tell it.
fn is_forgotten<M: StateMachine, W: Workload>(world: &World<M, W>, node: usize) -> bool {
    let members = leader(world).and_then(|leader| world.members(leader));
    members.is_some_and(|members| {
        members.is_former(NodeId(node as u64 + 1)) && !must_stop(world, node, &members)
    })
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
            return Err(waited_in_vain(world, limit, what));
        }
        world.step()?;
    }
    Ok(())
}

fn waited_in_vain<M: StateMachine, W: Workload>(
    world: &World<M, W>,
    limit: u64,
    what: &str,
) -> Violation {
    let nodes: Vec<String> = (0..world.nodes()).map(|node| describe(world, node)).collect();
    let what = format!("waited {} ms for {what}; {}", limit / MS, nodes.join("; "));
    Violation { invariant: LIVENESS, node: None, what }
}

fn describe<M: StateMachine, W: Workload>(world: &World<M, W>, node: usize) -> String {
    world.probe(node).map_or_else(
        || format!("node {} is down", node + 1),
        |probe| {
            format!(
                "node {}: {} term {} applied {} committed {} durable {} last {}{}{}{}",
                node + 1,
                probe.role,
                probe.term,
                probe.applied,
                probe.committed,
                probe.durable,
                probe.last,
                if probe.ready { "" } else { " not ready" },
                if probe.holed { " holed" } else { "" },
                if probe.gated { " gated" } else { "" },
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
    Err(Violation { invariant: LIVENESS, node: None, what })
}
