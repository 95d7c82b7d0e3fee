//! The seeded simulator: a whole cluster in one thread and in simulated time, on disks that tear
//! and links that break, watched by an oracle.
//!
//! # Your own machine
//!
//! A [`SmallMachine`], or a [`StateMachine`] if its state is large, and a [`Workload`] (any function from a
//! [`Draw`] to an [`Op`]), in any `cargo test`:
//!
//! ```
//! use lakebed_sim::{Draw, Op, Small, SmallMachine, Storm, Timestamp, check};
//!
//! /// A sum. A command is a number to add; the answer to everything is the sum.
//! #[derive(Default)]
//! struct Sum(u64);
//!
//! impl SmallMachine for Sum {
//!     fn apply(&mut self, _: Timestamp, command: &[u8]) -> Vec<u8> {
//!         self.0 = self.0.wrapping_add(command[0].into());
//!         self.save()
//!     }
//!
//!     fn save(&self) -> Vec<u8> {
//!         self.0.to_le_bytes().into()
//!     }
//!
//!     fn load(bytes: &[u8]) -> Option<Self> {
//!         bytes.try_into().ok().map(u64::from_le_bytes).map(Self)
//!     }
//! }
//!
//! fn workload(draw: &mut Draw) -> Op {
//!     if draw.ratio(1, 4) { Op::Read(vec![]) } else { Op::Propose(vec![draw.below(40) as u8]) }
//! }
//!
//! // In a `#[test]`:
//! check("sum", |seed| Storm::new(seed).nodes(3).run(Small::<Sum>::default, workload));
//! ```
//!
//! [`check()`] runs a few seeds, says by which variables others are run, and tells of the first that
//! fails on one screen, with the commands that replay and shrink it. Commands larger than 900 bytes
//! are announced: [`Storm::commands_up_to`].
//!
//! # What else is here
//!
//! A [`Seed`] expands to a [`Plan`], which is text and can be kept; a [`World`] is a cluster as a
//! value. [`exhaust`] crashes a story at each step of a disk, [`flips`] flips each bit of one.

mod agenda;
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

/// What a machine is made of, so that a test of one needs no other crate.
pub use lakebed::{LogId, MachineError, Small, SmallMachine, StateMachine, Timestamp, bytes};

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
pub use world::{Stats, Struck, Taken, World};

/// What a seed becomes: a scenario.
pub type Outcome = Result<Report, Box<Failure>>;
