//! Values to bytes, or straight into a digest.

use super::Digest;
use crate::{
    Action, Backup, Batch, CaptureId, Change, Chunk, Class, ClusterId, Completion, Config, Control,
    DiskError, DiskRequest, Entries, Event, Extent, File, GroupId, Halt, Instant, LogId, LogIndex,
    Machine, MachineError, Member, Membership, NodeId, Note, OpId, Origin, Outcome, ReadMode,
    Refusal, RequestId, Requests, Run, Runs, SnapshotId, Start, Term, Timestamp, Tuning,
};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};

/// Where encoded values go.
pub(super) trait Sink {
    fn number(&mut self, number: u64, bytes: usize);
    fn slice(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn number(&mut self, number: u64, bytes: usize) {
        self.extend_from_slice(&number.to_le_bytes()[..bytes]);
    }

    fn slice(&mut self, bytes: &[u8]) {
        (bytes.len() as u32).write(self);
        self.extend_from_slice(bytes);
    }
}

impl Sink for Digest {
    fn number(&mut self, number: u64, _: usize) {
        Self::number(self, number);
    }

    fn slice(&mut self, bytes: &[u8]) {
        Self::bytes(self, bytes);
    }
}

/// A value with an encoding.
pub(super) trait Write {
    fn write(&self, to: &mut impl Sink);
}

/// A variant: its number, then its fields.
macro_rules! variant {
    ($to:ident, $tag:literal $(, $field:expr)*) => {{
        ($tag as u8).write($to);
        $($field.write($to);)*
    }};
}

macro_rules! numbers {
    ($($type:ty => $bytes:literal),*) => {$(
        impl Write for $type {
            fn write(&self, to: &mut impl Sink) {
                #[allow(trivial_numeric_casts)]
                to.number(*self as u64, $bytes);
            }
        }
    )*};
}
numbers!(u8 => 1, u32 => 4, u64 => 8, i32 => 4, bool => 1, Class => 1);

macro_rules! ids {
    ($($type:ident)*) => {$(
        impl Write for $type {
            fn write(&self, to: &mut impl Sink) {
                self.0.write(to);
            }
        }
    )*};
}
ids!(CaptureId ClusterId GroupId Instant LogIndex NodeId OpId RequestId SnapshotId Term Timestamp);

macro_rules! records {
    ($($type:ident { $($field:ident),* })*) => {$(
        impl Write for $type {
            fn write(&self, to: &mut impl Sink) {
                $(self.$field.write(to);)*
            }
        }
    )*};
}
records! {
    LogId { term, index }
    Requests { first, count }
    Member { id, incarnation, address }
    Chunk { bytes, last }
    Backup { cluster, group, groups, node, at, id, bytes, digest, time, members }
    Origin { at, id }
    Extent { offset, bytes, zeros }
    Run { ordinal, requests }
    Entries { first, last, frames, runs }
    Config {
        group, node, disk_align, segment_bytes, first_segment_bytes, groups, machine_keeps_state, tuning
    }
    Tuning {
        heartbeat, election, commit_notice, forward, lease_drift_ppm, entry_commands_max, append_bytes_max,
        inflight_bytes_max, writes_inflight_max, propose_bytes_max, apply_bytes_max,
        cache_bytes_max, catch_up_bytes_max, restore_bytes_max, snapshot_log_bytes,
        retain_log_bytes, transfer_log_bytes_max, transfers_max, transfer_bytes_per_second, snapshot_age,
        pin_idle, scrub_interval, hibernate_after, election_delay
    }
}

impl Write for Bytes {
    fn write(&self, to: &mut impl Sink) {
        to.slice(self);
    }
}

impl Write for str {
    fn write(&self, to: &mut impl Sink) {
        to.slice(self.as_bytes());
    }
}

impl Write for MachineError {
    fn write(&self, to: &mut impl Sink) {
        self.0.as_str().write(to);
    }
}

impl Write for Duration {
    fn write(&self, to: &mut impl Sink) {
        self.as_secs().write(to);
        self.subsec_nanos().write(to);
    }
}

impl Write for Batch {
    fn write(&self, to: &mut impl Sink) {
        self.count().write(to);
        to.slice(self.body());
    }
}

impl Write for Runs {
    fn write(&self, to: &mut impl Sink) {
        self.as_slice().write(to);
    }
}

impl<T: Write> Write for Arc<T> {
    fn write(&self, to: &mut impl Sink) {
        (**self).write(to);
    }
}

impl<T: Write> Write for [T] {
    fn write(&self, to: &mut impl Sink) {
        (self.len() as u32).write(to);
        self.iter().for_each(|value| value.write(to));
    }
}

impl<T: Write> Write for Vec<T> {
    fn write(&self, to: &mut impl Sink) {
        self.as_slice().write(to);
    }
}

impl<A: Write, B: Write> Write for (A, B) {
    fn write(&self, to: &mut impl Sink) {
        self.0.write(to);
        self.1.write(to);
    }
}

impl<T: Write> Write for Option<T> {
    fn write(&self, to: &mut impl Sink) {
        match self {
            None => variant!(to, 0),
            Some(value) => variant!(to, 1, value),
        }
    }
}

impl<T: Write, E: Write> Write for Result<T, E> {
    fn write(&self, to: &mut impl Sink) {
        match self {
            Ok(value) => variant!(to, 0, value),
            Err(error) => variant!(to, 1, error),
        }
    }
}

impl Write for () {
    fn write(&self, _: &mut impl Sink) {}
}

impl Write for Event {
    fn write(&self, to: &mut impl Sink) {
        match self {
            Self::Start(start) => variant!(to, 1, start),
            Self::Received { from, bytes } => variant!(to, 2, from, bytes),
            Self::Link { peer, up } => variant!(to, 3, peer, up),
            Self::Completed { op, result } => variant!(to, 4, op, result),
            Self::Applied { through } => variant!(to, 5, through),
            Self::Captured { capture, result } => variant!(to, 6, capture, result),
            Self::Restored { through, result } => variant!(to, 7, through, result),
            Self::Propose { first, time, batch } => variant!(to, 8, first, time, batch),
            Self::Read { requests, mode } => variant!(to, 9, requests, mode),
            Self::Control { id, control } => variant!(to, 10, id, control),
            Self::Tune(tuning) => variant!(to, 11, tuning),
            Self::Stop { hand_over } => variant!(to, 12, hand_over),
        }
    }
}

impl Write for Start {
    fn write(&self, to: &mut impl Sink) {
        match self {
            Self::Run => variant!(to, 1),
            Self::Format { cluster, members } => variant!(to, 2, cluster, members),
            Self::Join { cluster } => variant!(to, 3, cluster),
            Self::Resume { machine } => variant!(to, 4, machine),
            Self::Inspect => variant!(to, 5),
            Self::ForceSoleVoter { acknowledged_loss } => variant!(to, 6, acknowledged_loss),
            Self::Verify => variant!(to, 7),
            Self::Restore { cluster, members, backup } => {
                variant!(to, 8, cluster, members, backup);
            }
        }
    }
}

impl Write for Completion {
    fn write(&self, to: &mut impl Sink) {
        match self {
            Self::Done => variant!(to, 1),
            Self::Read(bytes) => variant!(to, 2, bytes),
            Self::Listed(files) => variant!(to, 3, files),
        }
    }
}

impl Write for ReadMode {
    fn write(&self, to: &mut impl Sink) {
        match self {
            Self::Linearizable => variant!(to, 1),
            Self::Lease => variant!(to, 2),
            Self::Local { stale_max } => variant!(to, 3, stale_max),
        }
    }
}

impl Write for Control {
    fn write(&self, to: &mut impl Sink) {
        match self {
            Self::Change(changes) => variant!(to, 1, changes),
            Self::Transfer { to: target } => variant!(to, 2, target),
            Self::Snapshot => variant!(to, 3),
            Self::PinSnapshot => variant!(to, 4),
            Self::Unpin { file } => variant!(to, 5, file),
            Self::ReadPinned { file, offset, len } => variant!(to, 6, file, offset, len),
        }
    }
}

impl Write for Change {
    fn write(&self, to: &mut impl Sink) {
        match self {
            Self::AddLearner(member) => variant!(to, 1, member),
            Self::Promote(node) => variant!(to, 2, node),
            Self::Demote(node) => variant!(to, 3, node),
            Self::Remove(node) => variant!(to, 4, node),
            Self::Address(member) => variant!(to, 5, member),
        }
    }
}

impl Write for File {
    fn write(&self, to: &mut impl Sink) {
        match self {
            Self::HardState => variant!(to, 1),
            Self::Segment(n) => variant!(to, 2, n),
            Self::Spare(n) => variant!(to, 3, n),
            Self::Snapshot(id) => variant!(to, 4, id),
            Self::Part(id, snapshot) => variant!(to, 5, id, snapshot),
        }
    }
}

impl Write for DiskError {
    fn write(&self, to: &mut impl Sink) {
        match self {
            Self::NotFound => variant!(to, 1),
            Self::Full => variant!(to, 2),
            Self::Io { errno } => variant!(to, 3, errno),
        }
    }
}

impl Write for Action {
    fn write(&self, to: &mut impl Sink) {
        match self {
            Self::Disk { op, class, request } => variant!(to, 1, op, class, request),
            Self::Send { to: peer, head, body } => variant!(to, 2, peer, head, body),
            Self::Machine(step) => variant!(to, 3, step),
            Self::Respond { requests, outcome } => variant!(to, 4, requests, outcome),
            Self::Members(members) => variant!(to, 5, members),
            Self::Note(note) => variant!(to, 6, note),
            Self::Halt(halt) => variant!(to, 7, halt),
        }
    }
}

impl Write for DiskRequest {
    fn write(&self, to: &mut impl Sink) {
        match self {
            Self::List => variant!(to, 1),
            Self::Create { file, len, zeroed } => variant!(to, 2, file, len, zeroed),
            Self::Read { file, offset, len } => variant!(to, 3, file, offset, len),
            Self::Write { file, at, and, durable } => variant!(to, 4, file, at, and, durable),
            Self::Sync { file } => variant!(to, 5, file),
            Self::Rename { from, to: name } => variant!(to, 6, from, name),
            Self::Remove { file } => variant!(to, 7, file),
            Self::SyncDirectory => variant!(to, 8),
        }
    }
}

impl Write for Machine {
    fn write(&self, to: &mut impl Sink) {
        match self {
            Self::Apply(entries) => variant!(to, 1, entries),
            Self::Query { requests, at } => variant!(to, 2, requests, at),
            Self::Capture { capture, at } => variant!(to, 3, capture, at),
            Self::CaptureNext { capture, bytes_max } => variant!(to, 4, capture, bytes_max),
            Self::CaptureStop { capture } => variant!(to, 5, capture),
            Self::Restore { at, offset, bytes, last } => {
                variant!(to, 6, at, offset, bytes, last);
            }
        }
    }
}

impl Write for Outcome {
    fn write(&self, to: &mut impl Sink) {
        match self {
            Self::Done(at) => variant!(to, 1, at),
            Self::Pinned(file, bytes) => variant!(to, 2, file, bytes),
            Self::Refused(refusal) => variant!(to, 3, refusal),
            Self::Unknown => variant!(to, 4),
            Self::Read(bytes) => variant!(to, 5, bytes),
        }
    }
}

/// What ids were used before is no news to a driver.
impl Write for Membership {
    fn write(&self, to: &mut impl Sink) {
        self.at.write(to);
        [&self.voters, &self.outgoing, &self.learners].into_iter().for_each(|list| list.write(to));
    }
}

impl Write for Refusal {
    fn write(&self, to: &mut impl Sink) {
        match self {
            Self::NotLeader { hint } => variant!(to, 1, hint),
            Self::Busy => variant!(to, 2),
            Self::TooLarge => variant!(to, 3),
            Self::NotReady => variant!(to, 4),
            Self::DiskFull => variant!(to, 5),
            Self::Transferring => variant!(to, 6),
            Self::Stopping => variant!(to, 7),
            Self::Change(why) => variant!(to, 8, why.to_string().as_str()),
            Self::Transfer(why) => variant!(to, 9, why.to_string().as_str()),
            Self::NoSnapshot => variant!(to, 10),
            Self::NotPinned(file) => variant!(to, 11, file),
            Self::Disk(error) => variant!(to, 12, error),
        }
    }
}

impl Write for Note {
    fn write(&self, to: &mut impl Sink) {
        match self {
            Self::Role { leader, term } => variant!(to, 1, leader, term),
            Self::Recovery(found) => variant!(to, 2, **found),
            Self::PeerFault { peer, reason } => variant!(to, 3, peer, **reason),
            Self::Disk { file, error } => variant!(to, 4, file, error),
            Self::DiskFull(full) => variant!(to, 5, full),
            Self::Snapshot(at) => variant!(to, 6, at),
            Self::Compacted(to_index) => variant!(to, 7, to_index),
            Self::TuningRefused(why) => variant!(to, 8, why.to_string().as_str()),
        }
    }
}

impl Write for Halt {
    fn write(&self, to: &mut impl Sink) {
        match self {
            Self::Stopped => variant!(to, 1),
            Self::Removed => variant!(to, 2),
            Self::NotFormatted => variant!(to, 3),
            Self::AlreadyFormatted => variant!(to, 4),
            Self::Inspected(found) => variant!(to, 5, *found.to_string()),
            Self::DiskFailed { file, error } => variant!(to, 6, file, error),
            Self::Refused { row, file, offset, expected, found } => {
                variant!(to, 7, **row, file, offset, expected.as_str(), found.as_str());
            }
            Self::DiskLost { by } => variant!(to, 8, by),
            Self::Machine(error) => variant!(to, 9, error),
            Self::LogLost { file, offset, expected } => {
                variant!(to, 10, file, offset, expected.as_str());
            }
            Self::Built(at) => variant!(to, 11, at),
            Self::OtherOrigin { peer, own, theirs } => variant!(to, 12, peer, own, theirs),
            Self::Panicked(what) => variant!(to, 13, what.as_str()),
            Self::Forced(forced) => variant!(to, 14, *forced.to_string()),
            Self::LeftBehind { by, epoch, own } => variant!(to, 15, by, epoch, own),
        }
    }
}
