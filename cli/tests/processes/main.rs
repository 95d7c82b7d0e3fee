//! The built command as real processes.

mod backup;
mod backup_groups;
mod clients;
mod cluster;
mod common;
mod dirs;
mod flags;
mod full;
mod groups;
mod installs;
mod interrupts;
mod kill;
mod linear;
mod log;
mod lone;
mod look;
mod lost_quorum;
mod members;
mod metrics;
mod ports;
mod room;
mod sessions;
mod shared;
mod sim;
mod tape;
mod up_restore;
