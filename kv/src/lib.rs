//! The example state machine of [`lakebed`]: strings with expiry, spoken to in RESP.
//!
//! * [`Kv`] is the machine: deterministic, without clock or I/O, cheap to freeze.
//! * [`Command`] is what stands in the log, [`Queries`] what is asked beside it.
//! * [`serve`] speaks RESP with clients and turns their pipelines into batches.
//! * [`slots`] spreads keys over groups, as Redis Cluster does.
//! * [`Served`] is what a server's node runs: a [`Kv`] with sessions before it.
//!
//! # Time
//!
//! Whether a key has expired is decided by one clock alone: the time of the last applied entry,
//! the clock of the leader that made it. All nodes decide alike, at every position of the log. In a
//! cluster without writes that clock stands still, so a server that is asked for a key which, by
//! its own clock, may have expired first replicates a [`Command::Tick`] and asks again: its own
//! clock decides when to ask for the time, never what the answer is. Where the log is ahead of that clock, as
//! a leader's was once, the server goes by the time that it saw last with an answer and what has passed since.
//! How long a key has to live is told by the same clock, and for its sake alone the time is asked for only where that
//! is more than a tenth of a second behind: without writes PTTL stands still for so long.
//! Where the tick finds no room, as on a full disk, or is not taken while too much is in flight or who leads is
//! changing, the clock stands still and the key is there until a write comes through.

mod answer;
mod command;
mod frozen;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod glob;
mod machine;
mod map;
mod options;
mod query;
#[cfg(feature = "serve")]
pub mod serve;
mod shard;
#[cfg(feature = "serve")]
pub mod slots;

use lakebed::Sessions;

pub use command::{Command, List};
pub use machine::{ANSWER_BYTES_MAX, KEY_BYTES_MAX, Kv, VALUE_BYTES_MAX};
pub use options::{Expiry, Lives, Only, When};
pub use query::{Answered, Queries, Stopped};

/// The machine that is served: a [`Kv`] with sessions before it. The limits of sessions are part of
/// the machine, as those of keys and values are.
pub type Served = Sessions<Kv>;
