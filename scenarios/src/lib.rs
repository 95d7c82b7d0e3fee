//! Storms and directed stories, and the small machine they run.

pub mod machine;

use lakebed_sim::{Draw, Failure, Op, Report, Seed, Storm};
use machine::Ledger;

/// What clients of a [`Ledger`] do: mostly writes, some of them large.
pub fn workload(draw: &mut Draw) -> Op {
    let key = draw.below(8) as u8;
    if draw.ratio(1, 4) {
        return Op::Read(vec![key]);
    }
    let len = match draw.below(16) {
        0 => draw.between(500, 900),
        _ => draw.between(1, 120),
    };
    let mut command = vec![key];
    command.extend((0..len).map(|n| (n * 31 + u64::from(key)) as u8));
    Op::Propose(command)
}

/// A storm over this many nodes.
pub fn storm(seed: Seed, nodes: usize) -> Result<Report, Box<Failure>> {
    Storm::new(seed).nodes(nodes).run(Ledger::default, workload)
}

/// A scenario: what a seed becomes.
pub type Scenario = fn(Seed) -> Result<Report, Box<Failure>>;

/// Every storm, by name.
pub const STORMS: [(&str, Scenario); 3] = [
    ("storm_of_one", |seed| storm(seed, 1)),
    ("storm_of_three", |seed| storm(seed, 3)),
    ("storm_of_five", |seed| storm(seed, 5)),
];
