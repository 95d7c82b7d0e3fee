//! Storms, and what is told of clusters: one program, so that it is linked once, and its tests keep all
//! processors at work to the end.

mod backups;
mod behind;
mod bites;
mod digests;
mod exhaust;
mod forgetful;
mod full;
mod gates;
mod groups;
mod holes;
mod installs;
mod levels;
mod lost_quorum;
mod marks;
mod plans;
mod scrubs;
mod stories;
mod storms;
mod stranger;
