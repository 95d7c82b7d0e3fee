//! Many groups on five nodes, and what becomes of those that rest.

use crate::{Ask, machine::Ledger, workload};
use lakebed_sim::{
    Outcome, Plan, Seed, Violation,
    groups::{Census, Groups, Spread, storm as of},
    plan::{Asks, MS},
};
use std::time::Duration;

type World = Groups<Ledger, Ask>;

/// One storm in sixteen has a hundred groups, the others eight.
#[must_use]
pub const fn census(seed: u64) -> Census {
    let groups = if seed % 16 == 15 { 100 } else { 8 };
    let spread = match seed % 8 {
        0 | 4 => Spread::Everywhere,
        2 => Spread::Apart,
        _ => Spread::Three,
    };
    Census { groups, comings: 4, spread }
}

/// A storm over hosts: the ordinary faults, groups that come and go, and, in half of the runs, nodes
/// that join some of the groups and take the places of others.
pub fn storm(seed: Seed) -> Outcome {
    let plan = of::plan(&seed, 5);
    of::run(&seed, plan, census(seed.number), Ledger::default, workload as Ask)
}

/// Five nodes with so many groups, and nothing that disturbs them.
#[must_use]
pub fn calm(seed: u64, groups: u64) -> (Plan, Census) {
    let mut plan = Plan::calm(seed, 5);
    plan.tuning.heartbeat = Duration::from_millis(20);
    plan.tuning.election = (Duration::from_millis(200), Duration::from_millis(400));
    plan.tuning.hibernate_after = Duration::from_millis(60);
    (plan, Census { groups, comings: 0, spread: Spread::Everywhere })
}

/// All groups rest; then the node that leads most of them is killed. Each of its groups has another
/// leader within two of the longest election timeouts.
pub fn a_leader_of_many_dies(seed: Seed) -> Outcome {
    at_rest(&seed, Spread::Everywhere, of::lose_a_leader)
}

/// The same of a node that gives half of them up and lives.
pub fn a_leader_of_many_gives_up(seed: Seed) -> Outcome {
    at_rest(&seed, Spread::Everywhere, of::give_groups_up)
}

/// Groups of three at rest lose a member of which nobody is told, and are to change theirs or their leader.
pub fn members_end_unheard(seed: Seed) -> Outcome {
    at_rest(&seed, Spread::Three, of::lose_members_unheard)
}

/// A hundred groups rest, and something happens that is over within two of the longest timeouts.
fn at_rest(
    seed: &Seed,
    spread: Spread,
    story: impl FnOnce(&mut World, u64) -> Result<(), Violation>,
) -> Outcome {
    let (plan, census) = calm(seed.number, 100);
    let limit = plan.tuning.election.1 * 2;
    let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
    let world = Groups::new(plan, Census { spread, ..census }, Ledger::default, workload as Ask);
    of::observe(seed, world, |world| {
        of::serve(world)?;
        of::converge(world)?;
        story(world, limit)
    })
}

/// What so many idle groups say in ten seconds, at rest or with their heartbeats.
pub struct Idle {
    /// Events that hosts were told.
    pub events: u64,
    /// Messages of engines.
    pub messages: u64,
    /// The hosts' own.
    pub beats: u64,
    /// Bytes of both.
    pub bytes: u64,
}

/// Three nodes with idle groups, for ten simulated seconds.
pub fn idle(groups: u64, rests: bool) -> Result<Idle, Violation> {
    let mut plan = Plan::calm(1, 3);
    plan.clients = Vec::<Asks>::new();
    plan.tuning.heartbeat = Duration::from_millis(100);
    plan.tuning.election = (Duration::from_millis(1000), Duration::from_millis(2000));
    plan.tuning.hibernate_after = Duration::from_secs(u64::from(rests));
    let census = Census { groups, comings: 0, spread: Spread::Everywhere };
    let mut world = Groups::new(plan, census, Ledger::default, workload as Ask);
    of::serve(&mut world)?;
    of::converge(&mut world)?;
    let (events, before) = (world.stats().events, world.sent());
    let end = world.now() + 10_000 * MS;
    of::until(&mut world, end)?;
    let sent = world.sent();
    Ok(Idle {
        events: world.stats().events - events,
        messages: sent.messages - before.messages,
        beats: sent.beats - before.beats,
        bytes: sent.bytes - before.bytes,
    })
}
