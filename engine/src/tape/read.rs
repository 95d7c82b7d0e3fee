//! Bytes to values. Nothing is allocated by a length or count that was not compared with the
//! bytes at hand.

use super::Step;
use crate::{
    Backup, Batch, CaptureId, Change, Chunk, ClusterId, Completion, Config, Control, DiskError,
    Event, File, GroupId, Instant, LogId, LogIndex, MachineError, Member, Membership, NodeId, OpId,
    ReadMode, RequestId, Requests, SnapshotId, Start, Term, Timestamp, Tuning,
};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};

/// Bytes still to be read.
#[derive(Clone, Debug)]
pub(super) struct Source(Bytes);

impl Source {
    pub(super) const fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `len` bytes; `None` when there are fewer.
    pub(super) fn take(&mut self, len: usize) -> Option<Bytes> {
        (len <= self.0.len()).then(|| self.0.split_to(len))
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.as_ref().try_into().ok()
    }
}

/// A value that can be read back; `None` when the bytes are not one.
pub(super) trait Read: Sized {
    fn read(from: &mut Source) -> Option<Self>;
}

macro_rules! numbers {
    ($($type:ty)*) => {$(
        impl Read for $type {
            fn read(from: &mut Source) -> Option<Self> {
                from.array().map(Self::from_le_bytes)
            }
        }
    )*};
}
numbers!(u8 u32 u64 i32);

macro_rules! ids {
    ($($type:ident)*) => {$(
        impl Read for $type {
            fn read(from: &mut Source) -> Option<Self> {
                Read::read(from).map(Self)
            }
        }
    )*};
}
ids!(CaptureId ClusterId GroupId Instant LogIndex NodeId OpId RequestId SnapshotId Term Timestamp);

macro_rules! records {
    ($($type:ident { $($field:ident),* })*) => {$(
        impl Read for $type {
            fn read(from: &mut Source) -> Option<Self> {
                Some(Self { $($field: Read::read(from)?),* })
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
    Step { now, events, actions }
}

/// A cluster is formatted with it: no ids were used before.
impl Read for Membership {
    fn read(from: &mut Source) -> Option<Self> {
        Some(Self {
            at: Read::read(from)?,
            voters: Read::read(from)?,
            outgoing: Read::read(from)?,
            learners: Read::read(from)?,
            ..Self::default()
        })
    }
}

/// Reads the number of a variant and then its fields; any other number is no value.
macro_rules! variants {
    ($($type:ty { $($tag:literal => $value:expr),* $(,)? })*) => {$(
        impl Read for $type {
            fn read(from: &mut Source) -> Option<Self> {
                let read: [(u8, fn(&mut Source) -> Option<Self>); _] = [$(($tag, $value)),*];
                let tag = u8::read(from)?;
                read.into_iter().find(|(known, _)| *known == tag)?.1(from)
            }
        }
    )*};
}
variants! {
    bool { 0 => |_| Some(false), 1 => |_| Some(true) }
    Event {
        1 => |b| Some(Self::Start(Read::read(b)?)),
        2 => |b| Some(Self::Received { from: Read::read(b)?, bytes: Read::read(b)? }),
        3 => |b| Some(Self::Link { peer: Read::read(b)?, up: Read::read(b)? }),
        4 => |b| Some(Self::Completed { op: Read::read(b)?, result: Read::read(b)? }),
        5 => |b| Some(Self::Applied { through: Read::read(b)? }),
        6 => |b| Some(Self::Captured { capture: Read::read(b)?, result: Read::read(b)? }),
        7 => |b| Some(Self::Restored { through: Read::read(b)?, result: Read::read(b)? }),
        8 => |b| {
            Some(Self::Propose {
                first: Read::read(b)?, time: Read::read(b)?, batch: Read::read(b)?,
            })
        },
        9 => |b| Some(Self::Read { requests: Read::read(b)?, mode: Read::read(b)? }),
        10 => |b| Some(Self::Control { id: Read::read(b)?, control: Read::read(b)? }),
        11 => |b| Some(Self::Tune(Box::new(Read::read(b)?))),
        12 => |b| Some(Self::Stop { hand_over: Read::read(b)? }),
    }
    Start {
        1 => |_| Some(Self::Run),
        2 => |b| Some(Self::Format { cluster: Read::read(b)?, members: Read::read(b)? }),
        3 => |b| Some(Self::Join { cluster: Read::read(b)? }),
        4 => |b| Some(Self::Resume { machine: Read::read(b)? }),
        5 => |_| Some(Self::Inspect),
        6 => |b| Some(Self::ForceSoleVoter { acknowledged_loss: Read::read(b)? }),
        7 => |_| Some(Self::Verify),
        8 => |b| {
            Some(Self::Restore {
                cluster: Read::read(b)?, members: Read::read(b)?, backup: Box::new(Read::read(b)?),
            })
        },
    }
    Completion {
        1 => |_| Some(Self::Done),
        2 => |b| Some(Self::Read(Read::read(b)?)),
        3 => |b| Some(Self::Listed(Read::read(b)?)),
    }
    ReadMode {
        1 => |_| Some(Self::Linearizable),
        2 => |_| Some(Self::Lease),
        3 => |b| Some(Self::Local { stale_max: Read::read(b)? }),
    }
    Control {
        1 => |b| Some(Self::Change(Read::read(b)?)),
        2 => |b| Some(Self::Transfer { to: Read::read(b)? }),
        3 => |_| Some(Self::Snapshot),
        4 => |_| Some(Self::PinSnapshot),
        5 => |b| Some(Self::Unpin { file: Read::read(b)? }),
        6 => |b| {
            Some(Self::ReadPinned {
                file: Read::read(b)?, offset: Read::read(b)?, len: Read::read(b)?,
            })
        },
    }
    Change {
        1 => |b| Some(Self::AddLearner(Read::read(b)?)),
        2 => |b| Some(Self::Promote(Read::read(b)?)),
        3 => |b| Some(Self::Demote(Read::read(b)?)),
        4 => |b| Some(Self::Remove(Read::read(b)?)),
        5 => |b| Some(Self::Address(Read::read(b)?)),
    }
    File {
        1 => |_| Some(Self::HardState),
        2 => |b| Some(Self::Segment(Read::read(b)?)),
        3 => |b| Some(Self::Spare(Read::read(b)?)),
        4 => |b| Some(Self::Snapshot(Read::read(b)?)),
        5 => |b| Some(Self::Part(Read::read(b)?, Read::read(b)?)),
    }
    DiskError {
        1 => |_| Some(Self::NotFound),
        2 => |_| Some(Self::Full),
        3 => |b| Some(Self::Io { errno: Read::read(b)? }),
    }
}

impl Read for Bytes {
    fn read(from: &mut Source) -> Option<Self> {
        let len = u32::read(from)?;
        from.take(len as usize)
    }
}

impl Read for MachineError {
    fn read(from: &mut Source) -> Option<Self> {
        String::from_utf8(Bytes::read(from)?.into()).ok().map(Self)
    }
}

impl Read for Duration {
    fn read(from: &mut Source) -> Option<Self> {
        let (seconds, nanos) = Read::read(from)?;
        // Otherwise the constructor would carry into the seconds, or overflow.
        (nanos < 1_000_000_000).then(|| Self::new(seconds, nanos))
    }
}

impl Read for Batch {
    fn read(from: &mut Source) -> Option<Self> {
        let count = u32::read(from)?;
        Self::from_body(&Bytes::read(from)?, count)
    }
}

impl<T: Read> Read for Arc<T> {
    fn read(from: &mut Source) -> Option<Self> {
        T::read(from).map(Self::new)
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(from: &mut Source) -> Option<Self> {
        let count = u32::read(from)?;
        // Pushed one by one: a count without the bytes for it ends early.
        let mut values = Self::new();
        for _ in 0..count {
            values.push(T::read(from)?);
        }
        Some(values)
    }
}

impl<A: Read, B: Read> Read for (A, B) {
    fn read(from: &mut Source) -> Option<Self> {
        Some((A::read(from)?, B::read(from)?))
    }
}

impl<T: Read> Read for Option<T> {
    fn read(from: &mut Source) -> Option<Self> {
        if bool::read(from)? { T::read(from).map(Some) } else { Some(None) }
    }
}

impl<T: Read, E: Read> Read for Result<T, E> {
    fn read(from: &mut Source) -> Option<Self> {
        Some(if bool::read(from)? { Err(E::read(from)?) } else { Ok(T::read(from)?) })
    }
}

impl Read for () {
    fn read(_: &mut Source) -> Option<Self> {
        Some(())
    }
}
