//! The real driver under simulation: the runtime's loop, its sockets, handshakes and reconnects, and
//! the kv's server, to the letter, over a simulated tokio ([madsim]); on the simulated disks of the
//! fast simulator, under its plans.
//!
//! The fast simulator finds bugs of the engine, 95 of 100 seeds there; this one those of what
//! stands between the engine and the world. It also proves that the former counts for production:
//! what each node's engine was told is replayed into a bare one, which must do the same.
//!
//! [madsim]: https://docs.rs/madsim

#[cfg(not(madsim))]
compile_error!(
    "without `--cfg madsim` nothing here would be simulated: build in this directory, whose \
     .cargo/config.toml sets it, and with no RUSTFLAGS, which would take its place (`just madsim`)"
);

mod clients;
mod cluster;
mod disk;
mod history;
mod node;
mod post;
mod report;
mod resp;
mod stale;
#[path = "../../cli/src/store.rs"]
mod store;
mod storm;
mod time;

pub use node::Flaw;
pub use report::{Failure, Report};
pub use storm::run;
