//! The built command as real processes.

mod common;
mod flags;
mod kill;
mod ports;
