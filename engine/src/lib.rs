//! A Raft consensus engine without I/O: events in, actions out, storage and recovery included.
//!
//! An [`Engine`] is one node of one replicated log, as a plain value. It reads no clock and no
//! socket, opens no file, starts no thread: hand it what happened ([`Event`]), and it says what is
//! to be done ([`Action`]). Whoever does that is its *driver*. Beside consensus it holds what other
//! libraries leave to their users: every byte on disk, crash recovery, snapshots and compaction.
//! The same engine runs under a real driver and under a seeded simulator that tears its disk.
//!
//! # Which door
//!
//! - A node without a driver of your own: `lakebed-runtime` (tokio sockets, files or `io_uring`).
//! - An engine in a loop of your own: this crate. The whole driver is below.
//! - A simulator that drains the lake ten thousand times: `lakebed-sim`.
//!
//! # What is yours
//!
//! A [`StateMachine`], or the shorter [`SmallMachine`]: deterministic, total, without I/O. And the driver's four debts, in full in
//! [`contract`]:
//!
//! 1. Machine steps in order; sends to one peer in order, lost only whole and then said to be.
//! 2. Disk operations in any order; each ends once; a new engine starts when the former one's have
//!    ended.
//! 3. [`Engine::handle`] at the [`Engine::deadline`], if there is one.
//! 4. [`Event::Start`] first; after [`Action::Halt`] the engine is dropped.
//!
//! There is no order to keep between actions: what is emitted is legal already. A vote does not
//! leave before it is durable, because the engine does not emit it before.
//!
//! # A whole driver
//!
//! One thread, a directory ([`files`], which needs only the standard library), and a channel for
//! all that comes in. `examples/three_nodes` is the next larger one: three nodes, threads, sockets.
//! Your own is checked by the `conformance` feature's kit, which both of them pass.
#![cfg_attr(
    all(feature = "files", unix),
    doc = concat!("```\n", include_str!("../examples/minimal.rs"), "```")
)]
#![forbid(unsafe_code)]

pub mod action;
pub mod backup;
pub mod change;
mod codec;
pub mod config;
#[cfg(all(feature = "conformance", unix))]
pub mod conformance;
pub mod contract;
mod disk;
mod engine;
pub mod entry;
pub mod event;
pub mod file;
#[cfg(all(feature = "files", unix))]
pub mod files;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod host;
#[doc(hidden)]
pub mod inspect;
mod le;
pub mod marks;
pub mod membership;
mod message;
mod raft;
pub mod report;
pub mod session;
pub mod small;
pub mod state_machine;
pub mod status;
mod storage;
pub mod tape;
pub mod types;
mod wall;

/// The buffers in this interface: whoever has no other need of the crate names it from here.
pub use bytes;

pub use action::{Action, Halt, Machine, Note, Outcome, Refusal, TransferRefusal};
pub use backup::{Backup, BackupFault, Origin};
pub use change::{Change, ChangeRefusal};
pub use config::{Config, ConfigError, Tuning};
pub use contract::Core;
pub use disk::backup::BackupReader;
pub use engine::Engine;
pub use entry::{Batch, Command, Entries, Entry, Kind, Run, Runs};
pub use event::{Chunk, Completion, Control, Event, MachineError, ReadMode, Start};
pub use file::{Class, DiskError, DiskRequest, Extent, File};
pub use host::{Host, HostAction, HostConfig, HostCounters, HostError, HostEvent};
pub use marks::{Mark, Marks};
pub use membership::{MEMBERS_MAX, Member, Membership};
pub use report::{Forced, Inspection};
pub use session::Sessions;
pub use small::{Small, SmallMachine};
pub use state_machine::{Clients, Runner, StateMachine};
pub use status::{Feed, Peer, Phase, Recovery, Role, Status, Tally};
pub use types::{
    CaptureId, ClusterId, GroupId, Instant, LogId, LogIndex, NodeId, OpId, RequestId, Requests,
    SnapshotId, Term, Timestamp,
};
