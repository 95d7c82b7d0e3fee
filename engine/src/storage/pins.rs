//! Snapshots that somebody outside reads: each keeps its file until it is given back, or was not
//! read for a while.
//!
//! Knows nothing of what is read: whoever reads checks it, as a peer does. Invariant: a pinned file
//! stays as it is, and no pin outlives its reader for longer than `pin_idle`, or this process.

use super::{
    Storage,
    ops::{Job, Ops},
    snapshots::SnapshotFile,
};
use crate::{
    action::{Outcome, Refusal},
    event::Completion,
    file::{Class, DiskError, DiskRequest, File},
    marks::Mark,
    types::{Instant, LogId, OpId, RequestId},
};
use bytes::Bytes;
use std::{collections::VecDeque, time::Duration};

/// The most pins at one time: each may keep a snapshot that would be removed else.
const PINS_MAX: usize = 8;
/// The most bytes read at one time; who asks for more is given as much.
const READ_BYTES_MAX: u32 = 1 << 20;
/// The most reads at one time.
const READS_MAX: usize = 16;

#[derive(Clone, Debug, Default)]
pub(crate) struct Pins {
    pins: Vec<Pin>,
    reading: Vec<Reading>,
    ended: VecDeque<(RequestId, Outcome)>,
}

#[derive(Clone, Debug)]
struct Pin {
    at: LogId,
    bytes: u64,
    /// When it was pinned, or read last.
    used: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    op: OpId,
    id: RequestId,
    /// How much of what is read lies before what was asked for, and how much was.
    skip: u32,
    len: u32,
}

impl Storage {
    /// Keeps the newest snapshot's file for whoever reads it from outside.
    pub(crate) fn pin(&mut self, now: Instant) -> Outcome {
        let (newest, align) = (self.snapshots.whole.last(), self.config.disk_align);
        self.snapshots.pins.pin(newest, align, now)
    }

    /// Reads a piece of a file that was pinned.
    pub(crate) fn read_pinned(&mut self, id: RequestId, what: (File, u64, u32), now: Instant) {
        let align = self.config.disk_align;
        self.snapshots.pins.read(id, what, (align, now), &mut self.ops);
    }

    /// Those who read pinned files.
    pub(crate) const fn pins(&mut self) -> &mut Pins {
        &mut self.snapshots.pins
    }
}

impl Pins {
    /// Whether nobody reads, and nobody is to be answered.
    pub(super) fn is_empty(&self) -> bool {
        self.pins.is_empty() && self.reading.is_empty() && self.ended.is_empty()
    }

    pub(crate) fn pin(
        &mut self,
        snapshot: Option<&SnapshotFile>,
        align: u32,
        now: Instant,
    ) -> Outcome {
        let Some(snapshot) = snapshot else { return Outcome::Refused(Refusal::NoSnapshot) };
        if self.pins.len() >= PINS_MAX {
            return Outcome::Refused(Refusal::Busy);
        }
        let (at, bytes) = (snapshot.header.at, snapshot.file_bytes(align));
        self.pins.push(Pin { at, bytes, used: now });
        Outcome::Pinned(snapshot.file(), bytes)
    }

    /// One pin of this file less.
    pub(crate) fn unpin(&mut self, file: File) -> Outcome {
        match self.pins.iter().position(|pin| File::Snapshot(pin.at) == file) {
            Some(place) => Outcome::Done(self.pins.swap_remove(place).at),
            None => Outcome::Refused(Refusal::NotPinned(file)),
        }
    }

    /// Reads a piece of a pinned file; shorter than asked for at its end, and where that is much.
    pub(crate) fn read(
        &mut self,
        id: RequestId,
        (file, offset, len): (File, u64, u32),
        (align, now): (u32, Instant),
        ops: &mut Ops,
    ) {
        let mut pins = self.pins.iter_mut().filter(|pin| File::Snapshot(pin.at) == file).peekable();
        let Some(bytes) = pins.peek().map(|pin| pin.bytes) else {
            return self.end(id, Outcome::Refused(Refusal::NotPinned(file)));
        };
        pins.for_each(|pin| pin.used = now);
        if self.reading.len() >= READS_MAX {
            return self.end(id, Outcome::Refused(Refusal::Busy));
        }
        let len = u64::from(len.min(READ_BYTES_MAX)).min(bytes.saturating_sub(offset)) as u32;
        if len == 0 {
            return self.end(id, Outcome::Read(Bytes::new()));
        }
        // Some disks read whole blocks alone.
        let from = offset - offset % u64::from(align);
        let to = (offset + u64::from(len)).next_multiple_of(u64::from(align));
        let request = DiskRequest::Read { file, offset: from, len: (to - from) as u32 };
        let op = ops.submit(Job::Pinned, Class::Serve, request);
        self.reading.push(Reading { op, id, skip: (offset - from) as u32, len });
    }

    pub(crate) fn on_read(&mut self, op: OpId, result: Result<Completion, DiskError>) {
        let place = self.reading.iter().position(|reading| reading.op == op);
        let Reading { id, skip, len, .. } =
            self.reading.swap_remove(place.expect("its own read ended"));
        let outcome = match result {
            Ok(Completion::Read(bytes)) => {
                let to = bytes.len().min((skip + len) as usize);
                Outcome::Read(bytes.slice((skip as usize).min(to)..to))
            }
            Ok(_) => unreachable!("a read is answered by bytes"),
            Err(error) => Outcome::Refused(Refusal::Disk(error)),
        };
        self.end(id, outcome);
    }

    /// Gives back what was not read for so long.
    pub(crate) fn expire(&mut self, idle: Duration, now: Instant, ops: &mut Ops) {
        let before = self.pins.len();
        self.pins.retain(|pin| now < pin.used.after(idle));
        if self.pins.len() < before {
            ops.met(Mark::PinExpired);
        }
    }

    /// When the next one is given back.
    pub(crate) fn deadline(&self, idle: Duration) -> Option<Instant> {
        self.pins.iter().map(|pin| pin.used.after(idle)).min()
    }

    /// Whether its file must stay.
    pub(super) fn uses(&self, at: LogId) -> bool {
        self.pins.iter().any(|pin| pin.at == at)
    }

    /// Another snapshot takes the place of all: their readers begin anew with that one.
    pub(super) fn clear(&mut self) {
        self.pins.clear();
    }

    /// Those who wait for a read hear that there will be none.
    pub(crate) fn stop(&mut self) {
        for Reading { id, .. } in std::mem::take(&mut self.reading) {
            self.end(id, Outcome::Refused(Refusal::Stopping));
        }
    }

    /// An end that somebody waits for.
    pub(crate) fn take(&mut self) -> Option<(RequestId, Outcome)> {
        self.ended.pop_front()
    }

    fn end(&mut self, id: RequestId, outcome: Outcome) {
        self.ended.push_back((id, outcome));
    }
}
