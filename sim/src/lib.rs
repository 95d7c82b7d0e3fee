//! The seeded simulator: a whole cluster in one thread and in simulated time, on disks that tear
//! and links that break, watched by an oracle.
//!
//! # Your own machine
//!
//! A [`StateMachine`] and a [`Workload`] (any function from a [`Draw`] to an [`Op`]), in any
//! `cargo test`:
//!
//! ```
//! use lakebed_sim::{
//!     Draw, LogId, MachineError, Op, StateMachine, Storm, Timestamp, bytes::Bytes, check,
//! };
//!
//! /// A sum. A command is a number to add; the answer to everything is the sum.
//! #[derive(Default)]
//! struct Sum([u8; 8]);
//!
//! impl StateMachine for Sum {
//!     fn apply(&mut self, _: LogId, _: Timestamp, command: &[u8], answer: &mut Vec<u8>) {
//!         let sum = u64::from_le_bytes(self.0).wrapping_add(u64::from(command[0]));
//!         self.0 = sum.to_le_bytes();
//!         self.query(&[], answer);
//!     }
//!
//!     fn query(&self, _: &[u8], answer: &mut Vec<u8>) {
//!         answer.extend_from_slice(&self.0);
//!     }
//!
//!     fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
//!         Box::new(std::iter::once(Bytes::copy_from_slice(&self.0)))
//!     }
//!
//!     // A restore may be cut anywhere, and the machine need not be a new one.
//!     fn restore(&mut self, offset: u64, bytes: &[u8], _: bool) -> Result<(), MachineError> {
//!         if offset == 0 {
//!             *self = Self::default();
//!         }
//!         let at = offset as usize;
//!         let place = self.0.get_mut(at..at + bytes.len());
//!         place.ok_or_else(|| MachineError("longer than a sum".into()))?.copy_from_slice(bytes);
//!         Ok(())
//!     }
//! }
//!
//! fn workload(draw: &mut Draw) -> Op {
//!     if draw.ratio(1, 4) { Op::Read(vec![]) } else { Op::Propose(vec![draw.below(40) as u8]) }
//! }
//!
//! // In a `#[test]`:
//! check("sum", |seed| Storm::new(seed).nodes(3).run(Sum::default, workload));
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
pub use lakebed::{LogId, MachineError, StateMachine, Timestamp, bytes};

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
