//! How a story is told: a cluster, what happens to it, and one screen when it goes wrong.

use crate::{Ask, machine::Ledger, workload};
use lakebed_sim::{
    Seed, Violation, World,
    check::{Commands, screen},
    plan::Plan,
    storm::observe,
};

/// What stories are told of.
pub type Cluster = World<Ledger, Ask>;
/// How a story ends.
pub type Told = Result<(), Violation>;

/// Tells a story of this plan's cluster.
///
/// # Panics
/// When it goes wrong: it is told once more, traced, and shown with the command that repeats it. A
/// story has no seed of its own, so that is the name of its test.
pub fn tell_of(
    name: &str,
    plan: &Plan,
    machine: fn() -> Ledger,
    story: impl Fn(&mut Cluster) -> Told,
) {
    let world = || World::new(plan.clone(), machine, workload as Ask);
    let seed = Seed::new(plan.seed);
    if observe(seed.clone(), world(), &story).is_err() {
        let failure = observe(seed.traced(), world(), &story).unwrap_err();
        let again = format!("cargo test -p lakebed-scenarios -- {name}");
        panic!("{}", screen(name, &failure, &Commands(vec![("replay", again)])));
    }
}

/// The same, with the usual machine.
pub fn tell(name: &str, plan: Plan, story: impl Fn(&mut Cluster) -> Told) {
    tell_of(name, &plan, Ledger::default, story);
}

/// Tells how this world could go on, and takes it back; what goes wrong stays, to be shown.
///
/// # Errors
/// What goes wrong.
pub fn what_if(world: &mut Cluster, story: impl FnOnce(&mut Cluster) -> Told) -> Told {
    let before = world.clone();
    story(world)?;
    *world = before;
    Ok(())
}
