//! Nodes on real disks and real connections: one program, so that it is linked once, and its tests keep all
//! processors at work to the end.

mod cluster;
mod conformance;
mod count;
mod disks;
mod driver;
mod endings;
mod force;
mod groups;
mod installing;
mod interrupted;
mod lagging;
mod net;
mod patience;
mod port;
mod sessions;
mod slow;
mod tapes;
mod units;
