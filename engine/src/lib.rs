//! A Raft consensus engine without I/O: events in, actions out, storage and recovery included.
#![forbid(unsafe_code)]
#![allow(dead_code, clippy::needless_pass_by_ref_mut)] // until consensus and storage meet

pub mod action;
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
#[doc(hidden)]
pub mod inspect;
mod le;
pub mod marks;
pub mod membership;
mod message;
mod raft;
pub mod state_machine;
pub mod status;
mod storage;
pub mod tape;
pub mod types;

pub use action::{Action, Halt, Machine, Note, Outcome, Refusal};
pub use config::{Config, ConfigError, Tuning};
pub use contract::Core;
pub use engine::Engine;
pub use entry::{Batch, Command, Entries, Entry, Kind, Run, Runs};
pub use event::{Change, Chunk, Completion, Control, Event, MachineError, ReadMode, Start};
pub use file::{Class, DiskError, DiskRequest, Extent, File};
pub use marks::{Mark, Marks};
pub use membership::{Member, Membership};
pub use state_machine::{Clients, Runner, StateMachine};
pub use status::{Phase, Recovery, Role, Status};
pub use types::{
    CaptureId, ClusterId, GroupId, Instant, LogId, LogIndex, NodeId, OpId, RequestId, Requests,
    SnapshotId, Term, Timestamp,
};
