//! Own snapshots: captured piece by piece while writes go on, restored block by verified block.
//!
//! Save: part, sync, rename, sync the directory; only then it counts. A snapshot is renamed only
//! when the log is durable up to it, so none ever reaches behind the end of its own log. Restore:
//! the newest whole one; a bad block, and it begins again with the one before.

use super::{
    Identity, damaged,
    ops::{Job, Ops},
};
use crate::{
    action::{Halt, Machine, Note},
    config::Tuning,
    disk::snapshot::{
        BLOCK_HEAD_BYTES, Footer, Header, Origin, block_bytes, decode_block, encode_block,
        header_bytes,
    },
    event::{Chunk, Completion, MachineError},
    file::{Class, DiskError, DiskRequest, Extent, File},
    marks::Mark,
    membership::Membership,
    types::{CaptureId, LogId, LogIndex, OpId, SnapshotId},
};
use bytes::{Bytes, BytesMut};
use std::{collections::BTreeMap, sync::Arc};

/// The most blocks being written, or read, at a time.
const BLOCKS_IN_FLIGHT_MAX: u32 = 4;

/// A whole snapshot in the directory.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotFile {
    pub(crate) header: Header,
    pub(crate) footer: Footer,
}

impl SnapshotFile {
    pub(crate) const fn file(&self) -> File {
        File::Snapshot(self.header.at)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Snapshots {
    identity: Identity,
    align: u32,
    restore_bytes_max: u64,
    /// Oldest first.
    pub(super) whole: Vec<SnapshotFile>,
    saving: Option<Saving>,
    restoring: Option<Restoring>,
    restored: Option<LogId>,
    captures: u64,
    pub(super) fault: Option<Halt>,
}

/// A capture on its way to a file.
#[derive(Clone, Debug)]
struct Saving {
    header: Header,
    capture: CaptureId,
    step: Save,
    /// Payload that does not fill a block yet.
    gathered: BytesMut,
    is_asked: bool,
    is_last_seen: bool,
    offset: u64,
    footer: Footer,
    in_flight: u32,
    failed: Option<DiskError>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Save {
    Create,
    Blocks,
    Footer,
    Sync,
    /// Complete; the log is not durable up to it yet.
    Wait,
    Rename,
    SyncName,
    /// It failed: what there is of it is being removed.
    Remove,
}

/// A snapshot on its way into the machine.
#[derive(Clone, Debug)]
struct Restoring {
    snapshot: SnapshotFile,
    next_read: u64,
    next_hand_out: u64,
    reads: BTreeMap<OpId, u64>,
    arrived: BTreeMap<u64, Bytes>,
    handed_out: u64,
    taken_in: u64,
    digest: u32,
    /// Why a block could not be read.
    unread: Option<DiskError>,
}

impl Snapshots {
    pub(crate) const fn new(identity: Identity, align: u32, restore_bytes_max: u64) -> Self {
        Self {
            identity,
            align,
            restore_bytes_max,
            whole: Vec::new(),
            saving: None,
            restoring: None,
            restored: None,
            captures: 0,
            fault: None,
        }
    }

    pub(crate) const fn tune(&mut self, tuning: &Tuning) {
        self.restore_bytes_max = tuning.restore_bytes_max;
    }

    pub(crate) fn newest(&self) -> LogId {
        self.whole.last().map_or(LogId::ZERO, |snapshot| snapshot.header.at)
    }

    pub(crate) fn newest_bytes(&self) -> u64 {
        self.whole.last().map_or(0, |snapshot| snapshot.footer.payload_bytes)
    }

    /// What the machine holds from here on by itself, once it does.
    pub(crate) const fn restored(&self) -> Option<LogId> {
        self.restored
    }

    /// Bytes taken in and bytes in all, while a restore goes on.
    pub(crate) fn progress(&self) -> Option<(u64, u64)> {
        let restoring = self.restoring.as_ref()?;
        Some((restoring.taken_in, restoring.snapshot.footer.payload_bytes))
    }

    // ---- save --------------------------------------------------------------------------------

    pub(crate) fn capture(
        &mut self,
        at: LogId,
        membership: Arc<Membership>,
        number: u64,
        ops: &mut Ops,
    ) -> bool {
        if self.saving.is_some() || at <= self.newest() {
            return false;
        }
        self.captures += 1;
        let capture = CaptureId(self.captures);
        let header = Header {
            identity: self.identity,
            at,
            id: SnapshotId(number),
            origin: Origin::Captured,
            block_bytes: block_bytes(self.align),
            membership,
        };
        ops.machine(Machine::Capture { capture, at });
        let saving = Saving {
            header,
            capture,
            step: Save::Create,
            gathered: BytesMut::new(),
            is_asked: false,
            is_last_seen: false,
            offset: header_bytes(self.align),
            footer: Footer { blocks: 0, payload_bytes: 0, digest: 0 },
            in_flight: 0,
            failed: None,
        };
        let request = DiskRequest::Create { file: saving.part(), len: 0, zeroed: false };
        self.saving.insert(saving).submit(request, ops);
        true
    }

    pub(crate) fn on_captured(&mut self, capture: CaptureId, result: Result<Chunk, MachineError>) {
        let Some(saving) = self.saving.as_mut().filter(|saving| saving.capture == capture) else {
            return;
        };
        match result {
            Ok(chunk) => {
                saving.is_asked = false;
                saving.is_last_seen |= chunk.last;
                saving.gathered.extend_from_slice(&chunk.bytes);
            }
            Err(error) => self.fault = Some(Halt::Machine(error)),
        }
    }

    pub(crate) fn on_written(&mut self, result: Result<(), DiskError>) {
        let saving = self.saving.as_mut().expect("a snapshot was being written");
        saving.in_flight -= 1;
        if let (Err(error), true) = (result, saving.step != Save::Remove) {
            saving.failed = Some(error);
        }
    }

    /// Goes on with the save; a snapshot that became durable is returned.
    pub(crate) fn go_on_saving(&mut self, durable: LogIndex, ops: &mut Ops) -> Option<LogId> {
        let saving = self.saving.as_mut()?;
        if let Some(error) = saving.failed.take() {
            saving.give_up(error, ops);
        }
        saving.go_on(self.align, durable, ops);
        if saving.in_flight > 0 {
            return None;
        }
        match saving.step {
            Save::SyncName => {
                let Saving { header, footer, .. } = self.saving.take()?;
                let at = header.at;
                self.whole.push(SnapshotFile { header, footer });
                ops.note(Note::Snapshot(at));
                Some(at)
            }
            Save::Remove => {
                self.saving = None;
                None
            }
            _ => None,
        }
    }

    // ---- restore -----------------------------------------------------------------------------

    /// The machine begins with the newest snapshot, or with nothing.
    pub(crate) fn restore(&mut self, ops: &mut Ops) {
        let Some(snapshot) = self.whole.last().cloned() else {
            self.restored = Some(LogId::ZERO);
            return;
        };
        ops.met(Mark::SnapshotRestored);
        self.restoring = Some(Restoring {
            snapshot,
            next_read: 0,
            next_hand_out: 0,
            reads: BTreeMap::new(),
            arrived: BTreeMap::new(),
            handed_out: 0,
            taken_in: 0,
            digest: 0,
            unread: None,
        });
        self.go_on_restoring(ops);
    }

    /// The machine keeps its own state, up to here.
    pub(crate) const fn resume(&mut self, at: LogId) {
        self.restored = Some(at);
    }

    pub(crate) fn go_on_restoring(&mut self, ops: &mut Ops) {
        let (group, most) = (self.identity.group, self.restore_bytes_max);
        let Some(restoring) = &mut self.restoring else { return };
        restoring.read(most, self.align, ops);
        if let Err(block) = restoring.hand_out(group, ops) {
            self.fall_back(block, ops);
        }
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

    /// Whether a completion belongs to the restore.
    pub(crate) fn is_restoring(&self, op: OpId) -> bool {
        self.restoring.as_ref().is_some_and(|restoring| restoring.reads.contains_key(&op))
    }

    pub(crate) fn on_restored(&mut self, through: u64, result: Result<(), MachineError>) {
        if let Err(error) = result {
            self.fault = Some(Halt::Machine(error));
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

    /// A block that is bad or cannot be read: the snapshot before this one, whose log is kept too,
    /// or nothing at all.
    fn fall_back(&mut self, block: u64, ops: &mut Ops) {
        let Restoring { snapshot: bad, unread, .. } =
            self.restoring.take().expect("a restore was under way");
        self.whole.pop();
        if self.whole.is_empty() {
            let offset = bad.block_offset(block, self.align);
            let halt = damaged(bad.file(), offset, format!("block {block} of the only snapshot"));
            // What could not be read may be whole, and the next start be told.
            let failed = |error| Halt::DiskFailed { file: bad.file(), error };
            self.fault = Some(unread.map_or(halt, failed));
            return;
        }
        ops.met(Mark::OlderSnapshotUsed);
        let text = format!("{}: block {block} is bad, the one before is used", bad.file());
        ops.note(Note::Recovery(text.into()));
        self.restore(ops);
    }
}

impl SnapshotFile {
    fn block_offset(&self, number: u64, align: u32) -> u64 {
        header_bytes(align) + number * u64::from(self.header.block_bytes)
    }

    /// The bytes of a block on disk, padding included.
    fn block_len(&self, number: u64, align: u32) -> u32 {
        let payload = u64::from(self.header.block_bytes) - BLOCK_HEAD_BYTES as u64;
        let left = self.footer.payload_bytes.saturating_sub(number * payload).min(payload);
        (BLOCK_HEAD_BYTES as u64 + left).next_multiple_of(u64::from(align)) as u32
    }
}

impl Saving {
    const fn part(&self) -> File {
        File::Part(self.header.at, self.header.id)
    }

    fn submit(&mut self, request: DiskRequest, ops: &mut Ops) {
        self.in_flight += 1;
        ops.submit(Job::Snapshot, Class::Background, request);
    }

    fn write(&mut self, offset: u64, bytes: Vec<u8>, ops: &mut Ops) {
        let at = Extent::new(offset, bytes.into());
        let file = self.part();
        self.submit(DiskRequest::Write { file, at, and: None, durable: false }, ops);
    }

    fn give_up(&mut self, error: DiskError, ops: &mut Ops) {
        ops.met(Mark::SnapshotGivenUp);
        ops.note(Note::Disk { file: self.part(), error });
        ops.machine(Machine::CaptureStop { capture: self.capture });
        self.step = Save::Remove;
        self.submit(DiskRequest::Remove { file: self.part() }, ops);
    }

    fn go_on(&mut self, align: u32, durable: LogIndex, ops: &mut Ops) {
        match self.step {
            Save::Create if self.in_flight == 0 => {
                let header = self.header.encode(align);
                self.write(0, header, ops);
                self.step = Save::Blocks;
            }
            Save::Blocks => self.write_blocks(align, ops),
            Save::Footer if self.in_flight == 0 => {
                self.step = Save::Sync;
                self.submit(DiskRequest::Sync { file: self.part() }, ops);
            }
            Save::Sync if self.in_flight == 0 => self.step = Save::Wait,
            Save::Rename if self.in_flight == 0 => {
                self.step = Save::SyncName;
                self.submit(DiskRequest::SyncDirectory, ops);
            }
            _ => {}
        }
        if self.step == Save::Wait && durable < self.header.at.index {
            ops.met(Mark::SnapshotWaitedForLog);
        }
        if self.step == Save::Wait && durable >= self.header.at.index {
            self.step = Save::Rename;
            let (from, to) = (self.part(), File::Snapshot(self.header.at));
            self.submit(DiskRequest::Rename { from, to }, ops);
        }
    }

    fn write_blocks(&mut self, align: u32, ops: &mut Ops) {
        let most = self.header.block_bytes as usize - BLOCK_HEAD_BYTES;
        while self.in_flight < BLOCKS_IN_FLIGHT_MAX
            && (self.gathered.len() >= most || self.is_last_seen)
        {
            let payload = self.gathered.split_to(most.min(self.gathered.len()));
            let (group, id) = (self.header.identity.group, self.header.id);
            let block = encode_block(&payload, self.footer.blocks, group, id, align);
            let offset = self.offset;
            self.offset += block.len() as u64;
            self.footer.blocks += 1;
            self.footer.payload_bytes += payload.len() as u64;
            self.footer.digest = crc32c::crc32c_append(self.footer.digest, &payload);
            self.write(offset, block, ops);
            if self.is_last_seen && self.gathered.is_empty() {
                let footer = self.footer.encode(group, id, align);
                self.write(self.offset, footer, ops);
                self.step = Save::Footer;
                return;
            }
        }
        if !self.is_asked && !self.is_last_seen && self.gathered.len() < most {
            self.is_asked = true;
            let bytes_max = (most - self.gathered.len()) as u32;
            ops.machine(Machine::CaptureNext { capture: self.capture, bytes_max });
        }
    }
}

impl Restoring {
    fn read(&mut self, most: u64, align: u32, ops: &mut Ops) {
        let footer = self.snapshot.footer;
        while self.next_read < footer.blocks
            && self.reads.len() + self.arrived.len() < BLOCKS_IN_FLIGHT_MAX as usize
            && self.handed_out - self.taken_in < most
        {
            let number = self.next_read;
            self.next_read += 1;
            let request = DiskRequest::Read {
                file: self.snapshot.file(),
                offset: self.snapshot.block_offset(number, align),
                len: self.snapshot.block_len(number, align),
            };
            let op = ops.submit(Job::Snapshot, Class::Serve, request);
            self.reads.insert(op, number);
        }
    }

    /// Hands out what arrived, in order and verified; `Err` names a bad block.
    fn hand_out(&mut self, group: crate::GroupId, ops: &mut Ops) -> Result<(), u64> {
        let SnapshotFile { header, footer } = &self.snapshot;
        while let Some(block) = self.arrived.remove(&self.next_hand_out) {
            let number = self.next_hand_out;
            let payload = decode_block(&block, number, group, header.id).map_err(|_| number)?;
            self.digest = crc32c::crc32c_append(self.digest, payload);
            let offset = self.handed_out;
            self.handed_out += payload.len() as u64;
            self.next_hand_out += 1;
            let last = self.next_hand_out == footer.blocks;
            let is_whole = self.handed_out == footer.payload_bytes && self.digest == footer.digest;
            if last && !is_whole {
                return Err(number);
            }
            let bytes = block.slice_ref(payload);
            ops.machine(Machine::Restore { at: header.at, offset, bytes, last });
        }
        Ok(())
    }
}

/// The seed of a snapshot's own blocks needs its id, which its header tells.
pub(crate) fn whole(
    header: &[u8],
    footer: &[u8],
    at: LogId,
    identity: &Identity,
) -> Option<SnapshotFile> {
    let header = Header::decode(header, identity.group, at).ok()?;
    let footer = Footer::decode(footer, identity.group, header.id).ok()?;
    let is_ours = header.identity.cluster == identity.cluster;
    (is_ours && footer.blocks > 0).then_some(SnapshotFile { header, footer })
}
