//! The real driver of [`lakebed`]: sockets, disks, clocks, and a handle to propose and read by.
//!
//! ```no_run
//! # use lakebed_runtime::{Listen, Node, Options};
//! # use lakebed::{Batch, ClusterId, Config, GroupId, NodeId, ReadMode, StateMachine};
//! # async fn example(machine: impl StateMachine + Send + 'static)
//! #     -> Result<(), Box<dyn std::error::Error>> {
//! let listen = Listen::Address("127.0.0.1:7501".parse()?);
//! let config = Config::new(GroupId(1), NodeId(1));
//! let options = Options::new("data/1", ClusterId(7), config, listen)
//!     .members([(1, "127.0.0.1:7501"), (2, "127.0.0.1:7502"), (3, "127.0.0.1:7503")]);
//! let (handle, node) = Node::open(options, machine)?;
//! let node = tokio::spawn(node);
//!
//! let answer = handle.propose_one(b"a command").await?;
//! let fresh = handle.read_one(b"a query", ReadMode::Linearizable).await?;
//!
//! handle.shutdown(true);
//! println!("{}", node.await?);
//! # Ok(()) }
//! ```
//!
//! A [`Node`] is a future: whoever polls it drives the node. On the runtime that also serves the
//! node's clients (a current-thread one, best of all) no thread is woken between a client's
//! request and its way to disk and peers: a wake costs a quarter of a durable write.
//! [`Node::spawn`] gives it a thread of its own.
//!
//! The driver's loop knows its surroundings only by the traits [`Disk`], [`Net`] and [`Clock`]. The
//! disks and the clock here are Linux's.

mod alone;
mod audience;
mod clients;
mod clock;
mod dir;
pub mod disk;
mod driver;
mod executor;
mod force;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod groups;
mod guarded;
mod handle;
mod health;
mod inbox;
mod look;
mod mailbox;
pub mod net;
mod node;
mod options;
mod restore;
mod session;
mod sync;
mod tape;
mod trace;
#[cfg(all(test, lakebed_loom))]
mod woken;

pub use clock::SystemClock;
pub use dir::{DirError, MARK};
pub use driver::{Clock, Disk, Driver, Net};
pub use executor::executor;
pub use force::{Force, ForceEffort, ForceError, RECORD, force};
pub use groups::{Groups, GroupsError, GroupsNode, GroupsOptions};
pub use handle::{Answers, Carried, Failure, Handle, Notes, Reply};
pub use health::{Health, LATENCY_BOUNDS, Latency, Room};
pub use inbox::Traffic;
pub use look::{Depth, LookError, look};
pub use net::Counters;
pub use node::{Node, StartError};
pub use options::{DiskKind, Listen, Options};
pub use restore::{RestoreError, read_backup, restore};
pub use session::{Session, SessionFailure};
pub use tape::{Recorded, Reel};
