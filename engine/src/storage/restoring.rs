//! A snapshot on its way into the machine, block by verified block.
//!
//! The newest whole one. A block that is bad, or cannot be read: it begins again with the one before, or
//! with nothing if the log begins with entry 1; or else a peer must send another. Invariant: the machine
//! is never given less than it holds. One that keeps its own state is given a snapshot where the log does
//! not lead on from that, and goes on with what it has if that turns out bad before a piece was handed out.

use super::{
    damaged,
    install::remove,
    ops::{Job, Ops},
    saving::BLOCKS_IN_FLIGHT_MAX,
    snapshots::{SnapshotFile, Snapshots},
};
use crate::{
    action::{Halt, Machine, Note},
    disk::snapshot::decode_block,
    event::{Completion, MachineError},
    file::{Class, DiskError, DiskRequest},
    marks::Mark,
    types::{LogId, LogIndex, OpId},
};
use bytes::Bytes;
use std::collections::BTreeMap;

/// A snapshot on its way into the machine.
#[derive(Clone, Debug)]
pub(super) struct Restoring {
    snapshot: SnapshotFile,
    /// In place of a state that the machine keeps by itself: the last entry it was given.
    held: Option<LogId>,
    /// The machine has taken in pieces of another one before it.
    has_begun: bool,
    next_read: u64,
    next_hand_out: u64,
    reads: BTreeMap<OpId, u64>,
    arrived: BTreeMap<u64, Bytes>,
    /// Bytes of blocks that are being read or have arrived.
    ahead: u64,
    handed_out: u64,
    taken_in: u64,
    digest: u32,
    /// Why a block could not be read.
    unread: Option<DiskError>,
}

impl Snapshots {
    /// Bytes taken in and bytes in all, while a restore goes on.
    pub(crate) fn progress(&self) -> Option<(u64, u64)> {
        let restoring = self.restoring.as_ref()?;
        Some((restoring.taken_in, restoring.snapshot.footer.payload_bytes))
    }

    /// The machine begins with the newest snapshot, or with nothing.
    pub(crate) fn restore(&mut self, ops: &mut Ops) {
        self.restore_over(None, false, ops);
    }

    fn restore_over(&mut self, held: Option<LogId>, has_begun: bool, ops: &mut Ops) {
        let Some(snapshot) = self.whole.last().cloned() else {
            self.restored = Some(LogId::ZERO);
            return;
        };
        ops.met(Mark::SnapshotRestored);
        self.restoring = Some(Restoring {
            snapshot,
            held,
            has_begun,
            next_read: 0,
            next_hand_out: 0,
            reads: BTreeMap::new(),
            arrived: BTreeMap::new(),
            ahead: 0,
            handed_out: 0,
            taken_in: 0,
            digest: 0,
            unread: None,
        });
        self.read_on(ops);
    }

    /// The machine, which has all it was `given`, is to have the newest snapshot's state in place of that.
    pub(super) fn replace_state(&mut self, given: LogId, ops: &mut Ops) {
        self.restored = None;
        self.restore_over(Some(given), false, ops);
    }

    /// The machine keeps its own state, up to here.
    pub(crate) const fn resume(&mut self, at: LogId) {
        self.restored = Some(at);
    }

    /// Goes on with the restore; the log begins with `first`.
    pub(crate) fn go_on_restoring(&mut self, first: LogIndex, ops: &mut Ops) {
        self.read_on(ops);
        let Some(restoring) = &mut self.restoring else { return };
        if let Err(block) = restoring.hand_out(self.identity.group, ops) {
            self.fall_back(block, first, ops);
        }
    }

    fn read_on(&mut self, ops: &mut Ops) {
        let Some(restoring) = &mut self.restoring else { return };
        restoring.read(self.restore_bytes_max, self.align, ops);
    }

    pub(crate) fn on_block(&mut self, op: OpId, result: Result<Completion, DiskError>) {
        let Some(restoring) = &mut self.restoring else { return };
        let Some(number) = restoring.reads.remove(&op) else { return };
        match result {
            Ok(Completion::Read(bytes)) => drop(restoring.arrived.insert(number, bytes)),
            Ok(_) => {}
            Err(error) => {
                restoring.unread.get_or_insert(error);
                restoring.arrived.insert(number, Bytes::new());
            }
        }
    }

    pub(crate) fn on_restored(&mut self, through: u64, result: Result<(), MachineError>) {
        if let Err(MachineError(why)) = result {
            // What a snapshot before it was to have taken in may still be answered.
            let of = self.restoring.as_ref().filter(|_| self.unanswered.is_empty());
            let of =
                of.map(|restoring| format!("{} was not taken in: ", restoring.snapshot.file()));
            self.fault = Some(Halt::Machine(MachineError(of.unwrap_or_default() + &why)));
            return;
        }
        if let Some(end) = self.unanswered.front() {
            if through >= *end {
                self.unanswered.pop_front();
            }
            return;
        }
        let Some(restoring) = &mut self.restoring else { return };
        restoring.taken_in = restoring.taken_in.max(through);
        let footer = &restoring.snapshot.footer;
        let is_all = restoring.next_hand_out == footer.blocks;
        if is_all && restoring.taken_in >= footer.payload_bytes {
            self.restored = Some(restoring.snapshot.header.at);
            self.restoring = None;
        }
    }

    /// A block that is bad or cannot be read: the snapshot before this one, if the log leads on from
    /// there, or nothing at all. The log begins with `first`.
    fn fall_back(&mut self, block: u64, first: LogIndex, ops: &mut Ops) {
        let Restoring { snapshot: bad, held, has_begun, unread, handed_out, taken_in, .. } =
            self.restoring.take().expect("a restore was under way");
        let has_begun = has_begun || handed_out > 0;
        if handed_out > taken_in {
            self.unanswered.push_back(handed_out);
        }
        let leads_on = |at: LogId| at != bad.header.at && at.index.next() >= first;
        let dropped = self.whole.extract_if(.., |snapshot| !leads_on(snapshot.header.at));
        let dropped: Vec<LogId> = dropped.map(|snapshot| snapshot.header.at).collect();
        // Whoever is being sent one of them is sent another.
        for at in dropped {
            self.serving.forget(at, self.whole.last(), self.align, ops);
        }
        self.spoilt.retain(|spoilt| spoilt.header.at != bad.header.at);
        // It may be whole: if nothing else is, the next start may be told.
        self.unread.extend(unread.map(|error| (bad.file(), error)));
        if cfg!(lakebed_break = "use_no_older_snapshot") {
            self.whole.clear();
        }
        let file = bad.file();
        let what = if unread.is_some() { "cannot be read" } else { "is bad" };
        let tell = |ops: &mut Ops, then: &str| {
            ops.note(Note::Recovery(format!("{file}: block {block} {what}, {then}").into()));
        };
        if let Some(held) = held.filter(|held| !has_begun && held.index.next() >= first) {
            tell(ops, "the machine keeps the state it has");
            self.spoil(bad);
            return self.resume(held);
        }
        let least = held.map_or(LogIndex(0), |held| held.index);
        if self.whole.last().is_some_and(|older| older.header.at.index >= least) {
            ops.met(Mark::OlderSnapshotUsed);
            tell(ops, "the one before is used");
            self.spoil(bad);
            return self.restore_over(held, has_begun, ops);
        }
        if self.whole.is_empty() && first <= LogIndex(1) && !self.replaces && held.is_none() {
            ops.met(Mark::SnapshotFoundBad);
            tell(ops, "the log holds all it did");
            self.spoil(bad);
            if has_begun && !cfg!(lakebed_break = "keep_what_a_bad_snapshot_gave") {
                ops.machine(Machine::EMPTY);
            }
            return self.restore(ops);
        }
        if self.has_peers && unread.is_none() {
            ops.met(Mark::SnapshotLost);
            tell(ops, "a peer must send another");
            if self.whole.is_empty() {
                remove(file, ops);
            } else {
                // The next start may begin with the one before.
                self.spoil(bad);
            }
            self.is_lost = true;
            return;
        }
        let offset = bad.block_offset(block, self.align);
        let halt = damaged(file, offset, format!("block {block} of the only snapshot"));
        // What could not be read may be whole, and the next start be told.
        let unread = unread.map(|error| (file, error)).or_else(|| self.unread.last().copied());
        let failed = |(file, error)| Halt::DiskFailed { file, error };
        self.fault = Some(unread.map_or(halt, failed));
    }
}

impl Restoring {
    fn read(&mut self, most: u64, align: u32, ops: &mut Ops) {
        let footer = self.snapshot.footer;
        while self.next_read < footer.blocks
            && self.reads.len() + self.arrived.len() < BLOCKS_IN_FLIGHT_MAX as usize
        {
            let number = self.next_read;
            let len = self.snapshot.block_len(number, align);
            let held = self.handed_out + self.ahead - self.taken_in;
            if held > 0 && held + u64::from(len) > most {
                return;
            }
            self.next_read += 1;
            self.ahead += u64::from(len);
            let request = DiskRequest::Read {
                file: self.snapshot.file(),
                offset: self.snapshot.block_offset(number, align),
                len,
            };
            let op = ops.submit(Job::Restore, Class::Serve, request);
            self.reads.insert(op, number);
        }
    }

    /// Hands out what arrived, in order and verified; `Err` names a bad block.
    fn hand_out(&mut self, group: crate::GroupId, ops: &mut Ops) -> Result<(), u64> {
        let SnapshotFile { header, footer } = &self.snapshot;
        while let Some(block) = self.arrived.remove(&self.next_hand_out) {
            let number = self.next_hand_out;
            let payload = decode_block(&block, number, group, header.id).map_err(|_| number)?;
            self.ahead -= block.len() as u64;
            self.digest = crc32c::crc32c_append(self.digest, payload);
            let offset = self.handed_out;
            let end = offset + payload.len() as u64;
            self.next_hand_out += 1;
            let last = self.next_hand_out == footer.blocks;
            if last && (end != footer.payload_bytes || self.digest != footer.digest) {
                return Err(number);
            }
            // What is counted here the machine answers.
            self.handed_out = end;
            let bytes = block.slice_ref(payload);
            ops.machine(Machine::Restore { at: header.at, offset, bytes, last });
        }
        Ok(())
    }
}
