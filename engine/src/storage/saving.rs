//! A snapshot on its way to a file, from the own machine or from a peer: gathered into blocks,
//! written, synced, and only then named.
//!
//! Invariant: what has its name is whole, and durable.

use super::{
    gathered::{Gathered, Written},
    leftover::{Leftover, Rereading},
    ops::{Job, Ops},
};
use crate::{
    action::{Machine, Note},
    disk::snapshot::{BLOCK_HEAD_BYTES, Footer, Header, header_bytes, seal_payload},
    event::{Chunk, Completion},
    file::{Class, DiskError, DiskRequest, Extent, File},
    marks::Mark,
    types::{CaptureId, OpId, Piece, SnapshotName},
};
use bytes::Bytes;

/// The most blocks being written, or read, at a time.
pub(super) const BLOCKS_IN_FLIGHT_MAX: u32 = 4;

#[derive(Clone, Debug)]
pub(super) struct Saving {
    pub(super) header: Header,
    pub(super) footer: Footer,
    source: Source,
    /// What its bytes and their checksum must turn out to be, if that is known.
    meant: Option<(u64, u32)>,
    pub(super) step: Save,
    /// Payload that does not fill a block yet.
    gathered: Gathered,
    written: Written,
    is_last_seen: bool,
    offset: u64,
    in_flight: u32,
    failed: Option<DiskError>,
    /// Its name was asked for: it may have it, whatever was said of that.
    is_named: bool,
    /// What an earlier attempt left of it.
    rereading: Option<Rereading>,
}

/// Where the bytes come from.
#[derive(Clone, Copy, Debug)]
enum Source {
    Machine { capture: CaptureId, is_asked: bool },
    Peer { name: SnapshotName, received: u64 },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Save {
    Create,
    /// What an earlier attempt left is being read back.
    Reread,
    Blocks,
    Footer,
    Sync,
    /// Whole and durable, without its name.
    Whole,
    Rename,
    SyncName,
    /// It failed, or nobody wants it: what is being done for it comes to its end first, as whatever is
    /// in flight together may be done in any order.
    Unwanted,
    /// What there is of it is being removed.
    Remove,
}

impl Saving {
    /// What the machine is after its last step.
    pub(super) fn capture(header: Header, capture: CaptureId, align: u32, ops: &mut Ops) -> Self {
        ops.machine(Machine::Capture { capture, at: header.at });
        Self::new(header, Source::Machine { capture, is_asked: false }, align).create(ops)
    }

    /// What a peer sends.
    pub(super) fn stage(header: Header, name: SnapshotName, align: u32, ops: &mut Ops) -> Self {
        Self::from_peer(header, name, align).create(ops)
    }

    fn from_peer(header: Header, name: SnapshotName, align: u32) -> Self {
        let source = Source::Peer { name, received: 0 };
        Self::new(header, source, align).meant((name.bytes, name.digest))
    }

    /// It is to have so many bytes and this checksum.
    pub(super) const fn meant(mut self, meant: (u64, u32)) -> Self {
        self.meant = Some(meant);
        self
    }

    /// The same, from where an earlier attempt broke off.
    pub(super) fn go_on_from(
        left: &Leftover,
        header: Header,
        name: SnapshotName,
        align: u32,
    ) -> Self {
        let rereading = Some(Rereading::new(left, name, &header, align));
        let saving = Self::from_peer(header, name, align);
        Self { step: Save::Reread, rereading, ..saving }
    }

    fn new(header: Header, source: Source, align: u32) -> Self {
        Self {
            header,
            footer: Footer { blocks: 0, payload_bytes: 0, digest: 0 },
            source,
            meant: None,
            step: Save::Create,
            gathered: Gathered::default(),
            written: Written::default(),
            is_last_seen: false,
            offset: header_bytes(align),
            in_flight: 0,
            failed: None,
            is_named: false,
            rereading: None,
        }
    }

    fn create(mut self, ops: &mut Ops) -> Self {
        self.submit(DiskRequest::Create { file: self.part(), len: 0, zeroed: false }, ops);
        self
    }

    pub(super) const fn part(&self) -> File {
        File::Part(self.header.at, self.header.id)
    }

    const fn job(&self) -> Job {
        match self.source {
            Source::Machine { .. } => Job::Saving,
            Source::Peer { .. } => Job::Staging,
        }
    }

    const fn is_from_peer(&self) -> bool {
        matches!(self.source, Source::Peer { .. })
    }

    pub(super) fn is_of(&self, wanted: CaptureId) -> bool {
        matches!(self.source, Source::Machine { capture, .. } if capture == wanted)
    }

    /// The next chunk of the machine's state.
    pub(super) fn take_chunk(&mut self, chunk: &Chunk) {
        if let Source::Machine { is_asked, .. } = &mut self.source {
            *is_asked = false;
        }
        self.is_last_seen |= chunk.last;
        self.gathered.push(&chunk.bytes);
    }

    /// The snapshot that a peer sends, how much of it has come, and for how much of that there is
    /// room behind it.
    pub(super) fn received(&self) -> Option<(SnapshotName, u64, u64)> {
        let Source::Peer { name, received } = self.source else { return None };
        let is_behind = self.gathered.len() >= self.payload_max();
        Some((name, received, if is_behind { self.footer.payload_bytes } else { received }))
    }

    /// The next piece of a peer's; false if it is another one.
    pub(super) fn take_piece(&mut self, piece: &Piece) -> bool {
        let is_open = !self.is_unwanted() && !self.is_last_seen && self.step != Save::Reread;
        let Source::Peer { name, received } = &mut self.source else { return false };
        let end = piece.offset + piece.bytes.len() as u64;
        let is_next =
            piece.snapshot == *name && piece.offset == *received && end <= name.bytes && is_open;
        if is_next {
            *received = end;
            self.is_last_seen = end == name.bytes;
            self.gathered.push(&piece.bytes);
        }
        is_next
    }

    pub(super) fn on_completed(&mut self, op: OpId, result: Result<Completion, DiskError>) {
        self.in_flight -= 1;
        if let (Save::Reread, Some(rereading)) = (self.step, &mut self.rereading)
            && rereading.reads(op)
        {
            let Ok(Completion::Read(block)) = result else { return rereading.on_read(op, None) };
            return rereading.on_read(op, Some(block));
        }
        if let (Err(error), false) = (result, self.is_unwanted()) {
            self.failed = Some(error);
        }
    }

    /// Whether it is given up.
    pub(super) const fn is_unwanted(&self) -> bool {
        matches!(self.step, Save::Unwanted | Save::Remove)
    }

    /// Whether an install has begun that rests on its getting its name.
    pub(super) const fn is_awaited(&self) -> bool {
        self.is_from_peer() && matches!(self.step, Save::Rename | Save::SyncName)
    }

    /// Whether it came to its end: named, or removed.
    pub(super) const fn is_over(&self) -> bool {
        self.in_flight == 0 && matches!(self.step, Save::SyncName | Save::Remove)
    }

    /// Nobody wants it any more.
    pub(super) fn abandon(&mut self, ops: &mut Ops) {
        if self.is_unwanted() {
            return;
        }
        if let Source::Machine { capture, .. } = self.source {
            ops.machine(Machine::CaptureStop { capture });
        }
        self.step = Save::Unwanted;
        self.remove(ops);
    }

    fn remove(&mut self, ops: &mut Ops) {
        if self.in_flight > 0 {
            return;
        }
        self.step = Save::Remove;
        self.submit(DiskRequest::Remove { file: self.part() }, ops);
        if self.is_named {
            self.submit(DiskRequest::Remove { file: File::Snapshot(self.header.at) }, ops);
        }
    }

    /// It is to have its name.
    pub(super) fn name(&mut self, ops: &mut Ops) {
        (self.step, self.is_named) = (Save::Rename, true);
        let (from, to) = (self.part(), File::Snapshot(self.header.at));
        self.submit(DiskRequest::Rename { from, to }, ops);
    }

    /// It comes to nothing, for this; `None`: it did before.
    pub(super) fn give_up(&mut self, error: DiskError, ops: &mut Ops) -> Option<DiskError> {
        if self.is_unwanted() {
            return None;
        }
        ops.met(Mark::SnapshotGivenUp);
        ops.note(Note::Disk { file: self.part(), error });
        self.abandon(ops);
        Some(error)
    }

    /// Whether it is whole, and comes to its end by itself.
    pub(super) const fn is_being_named(&self) -> bool {
        matches!(self.step, Save::Rename | Save::SyncName)
    }

    /// Takes the next steps; tells why, if it is given up.
    pub(super) fn go_on(&mut self, align: u32, ops: &mut Ops) -> Option<DiskError> {
        let failed = self.failed.take().and_then(|error| self.give_up(error, ops));
        match self.step {
            Save::Create if self.in_flight == 0 => {
                self.write_header(align, ops);
                if self.is_from_peer() {
                    self.submit(DiskRequest::SyncDirectory, ops);
                }
            }
            Save::Reread => self.reread(align, ops),
            Save::Unwanted => self.remove(ops),
            Save::Blocks => self.write_blocks(align, ops),
            Save::Footer if self.in_flight == 0 => {
                self.step = Save::Sync;
                self.submit(DiskRequest::Sync { file: self.part() }, ops);
            }
            Save::Sync if self.in_flight == 0 && self.is_as_sent() => self.step = Save::Whole,
            // Each piece was sound on its way: they are not one snapshot's. Or not the backup's.
            Save::Sync if self.in_flight == 0 => self.abandon(ops),
            Save::Rename if self.in_flight == 0 => {
                self.step = Save::SyncName;
                if !cfg!(lakebed_break = "trust_a_name_that_is_not_durable") {
                    self.submit(DiskRequest::SyncDirectory, ops);
                }
            }
            _ => {}
        }
        failed
    }

    fn write_header(&mut self, align: u32, ops: &mut Ops) {
        let at = Extent::new(0, self.header.encode(align).into());
        // Most of it may be there after a power cut: then name and header are to be there too.
        let (file, durable) = (self.part(), self.is_from_peer());
        self.submit(DiskRequest::Write { file, at, and: None, durable }, ops);
        self.step = Save::Blocks;
    }

    /// Takes over what is good of an earlier attempt, then goes on behind it. What was read may be in the
    /// cache alone, and after a failed sync count as clean there: all of it is written again.
    fn reread(&mut self, align: u32, ops: &mut Ops) {
        let Some(mut rereading) = self.rereading.take() else { return };
        while let Some((offset, block, payload)) = rereading.take(&self.header) {
            self.count(&payload);
            let (file, at) = (self.part(), Extent::new(offset, block));
            if cfg!(lakebed_break = "go_on_with_an_install_as_it_lies") {
                continue;
            }
            self.submit(DiskRequest::Write { file, at, and: None, durable: false }, ops);
        }
        if self.in_flight < BLOCKS_IN_FLIGHT_MAX {
            self.in_flight += rereading.read(ops);
        }
        if !rereading.is_over() {
            self.rereading = Some(rereading);
            return;
        }
        if self.footer.blocks > 0 {
            ops.met(Mark::InstallGoneOnWith);
        }
        self.offset = rereading.offset();
        self.write_header(align, ops);
        if let Source::Peer { name, received } = &mut self.source {
            *received = self.footer.payload_bytes;
            self.is_last_seen = *received == name.bytes;
        }
        if self.is_last_seen {
            self.write_footer(align, ops);
        }
    }

    /// A block has its place.
    fn count(&mut self, payload: &[u8]) {
        self.footer.blocks += 1;
        self.footer.payload_bytes += payload.len() as u64;
        self.footer.digest = crc32c::crc32c_append(self.footer.digest, payload);
    }

    fn write_footer(&mut self, align: u32, ops: &mut Ops) {
        let footer = self.footer.encode(self.header.identity.group, self.header.id, align);
        self.write(self.offset, footer.into(), ops);
        self.step = Save::Footer;
    }

    fn is_as_sent(&self) -> bool {
        let found = (self.footer.payload_bytes, self.footer.digest);
        self.meant.is_none_or(|meant| meant == found)
    }

    fn submit(&mut self, request: DiskRequest, ops: &mut Ops) {
        self.in_flight += 1;
        ops.submit(self.job(), Class::Background, request);
    }

    fn write(&mut self, offset: u64, bytes: Bytes, ops: &mut Ops) {
        let at = Extent::new(offset, bytes);
        let file = self.part();
        self.submit(DiskRequest::Write { file, at, and: None, durable: false }, ops);
    }

    const fn payload_max(&self) -> usize {
        self.header.block_bytes as usize - BLOCK_HEAD_BYTES
    }

    /// The next block, of the first bytes that were gathered.
    fn block(&mut self, payload_bytes: usize, align: u32) -> Bytes {
        let (group, id) = (self.header.identity.group, self.header.id);
        let bytes = (BLOCK_HEAD_BYTES + payload_bytes).next_multiple_of(align as usize);
        let mut block = self.written.next(bytes);
        block.resize(BLOCK_HEAD_BYTES, 0);
        self.gathered.move_to(&mut block, payload_bytes);
        let number = self.footer.blocks;
        self.count(&block[BLOCK_HEAD_BYTES..]);
        seal_payload(&mut block, number, group, id, align);
        block.freeze()
    }

    fn write_blocks(&mut self, align: u32, ops: &mut Ops) {
        let most = self.payload_max();
        while self.in_flight < BLOCKS_IN_FLIGHT_MAX
            && (self.gathered.len() >= most || self.is_last_seen)
        {
            let block = self.block(most.min(self.gathered.len()), align);
            let offset = self.offset;
            self.offset += block.len() as u64;
            self.written.push(block.clone(), BLOCKS_IN_FLIGHT_MAX as usize);
            self.write(offset, block, ops);
            if self.is_last_seen && self.gathered.len() == 0 {
                return self.write_footer(align, ops);
            }
        }
        let wants = !self.is_last_seen && self.gathered.len() < most;
        let bytes_max = (most - self.gathered.len().min(most)) as u32;
        if let Source::Machine { capture, is_asked } = &mut self.source
            && wants
            && !*is_asked
        {
            *is_asked = true;
            ops.machine(Machine::CaptureNext { capture: *capture, bytes_max });
        }
    }
}
