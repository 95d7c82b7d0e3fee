//! What lakebed uses of tokio, over madsim: its tasks, clock and network are simulated ones, the
//! rest is tokio's own.
//!
//! Knows nothing of lakebed. Where madsim's network is kinder than a real one, this takes the
//! kindness away: see [`net`].

#[cfg(not(madsim))]
compile_error!(
    "without `--cfg madsim` nothing here would be simulated: build in this directory, whose \
     .cargo/config.toml sets it, and with no RUSTFLAGS, which would take its place (`just madsim`)"
);

#[cfg(madsim)]
pub mod net;
#[cfg(madsim)]
pub mod task;

#[cfg(madsim)]
pub use madsim::{task::spawn, time};
pub use real::{io, join, pin, runtime, select, sync, try_join};
