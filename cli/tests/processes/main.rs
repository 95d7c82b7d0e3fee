//! The built command as real processes.

mod backup;
mod cluster;
mod common;
mod dirs;
mod flags;
mod full;
mod kill;
mod lone;
mod look;
mod metrics;
mod ports;
mod room;
mod sim;
mod tape;
