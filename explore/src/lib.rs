//! Every state that a small cluster can reach, not a sample of them.
//!
//! The simulator draws long runs with many faults; here the runs are short, and all of them are
//! gone through: three nodes, an election or two, an entry or two, whatever order messages arrive
//! in, whoever loses power when. The nodes are the real engines over a disk in memory, the search
//! is [stateright](https://docs.rs/stateright)'s, and states are told apart by hashes of 64 bits: of what
//! each engine prints of itself, which is all of it but how far the random numbers are drawn that
//! timeouts are made of, of its disk, and of what is on the way.
//!
//! What has too many states for that, as the meeting of founders, is [walked](walk) through at random.
//!
//! `cargo test` goes through what takes seconds ([`SMALL`]); `cargo run --release -p
//! lakebed-explore -- NAME` through the rest ([`LARGE`]).

mod cluster;
mod disk;
mod ledger;
mod model;
mod node;

pub use cluster::{Cluster, Step};
pub use model::{Begins, Exploration, FOUNDING, LARGE, Limits, SMALL, explore, walk};
