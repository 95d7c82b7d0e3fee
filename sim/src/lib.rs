//! The seeded simulator: a whole cluster in one thread and in simulated time, on disks that tear
//! and links that break, watched by an oracle.

mod changes;
pub mod check;
mod client;
pub mod disk;
pub mod exhaust;
pub mod flips;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod groups;
mod harm;
mod measured;
mod network;
mod node;
mod oracle;
mod panics;
pub mod plan;
pub mod prng;
pub mod report;
mod seat;
mod seed;
pub mod shrink;
pub mod storm;
mod suspect;
pub mod totals;
pub mod trace;
mod trial;
mod witness;
pub mod world;

pub use check::check;
pub use client::{Fate, Op, Workload};
pub use oracle::Violation;
pub use plan::{Plan, PlanFile};
pub use prng::Draw;
pub use report::{Failure, Report};
pub use seed::Seed;
pub use shrink::shrink;
pub use storm::Storm;
pub use totals::Totals;
pub use world::{Stats, Taken, World};

/// What a seed becomes: a scenario.
pub type Outcome = Result<Report, Box<Failure>>;
