//! The seeded simulator.

pub mod disk;
pub mod prng;
