//! The seeded simulator: a whole cluster in one thread and in simulated time, on disks that tear
//! and links that break, watched by an oracle.

pub mod check;
mod client;
pub mod disk;
mod network;
mod node;
mod oracle;
pub mod plan;
pub mod prng;
pub mod report;
pub mod storm;
mod trace;
mod witness;
pub mod world;

pub use check::{Seed, check};
pub use client::{Fate, Op, Workload};
pub use oracle::Violation;
pub use prng::Draw;
pub use report::{Failure, Report};
pub use storm::Storm;
pub use world::{Stats, World};
