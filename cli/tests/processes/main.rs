//! The built command as real processes.

mod cluster;
mod common;
mod dirs;
mod flags;
mod full;
mod installs;
mod interrupts;
mod kill;
mod lone;
mod look;
mod metrics;
mod ports;
mod room;
mod sim;
mod tape;
