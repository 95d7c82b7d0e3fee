//! The simulator's disk, asked in this crate's words: the simulator has them from the crate that these
//! tests are built beside.

use super::*;
use lakebed::{Completion as TheirCompletion, DiskError as TheirError, DiskRequest as Theirs};
use lakebed_sim::disk::{Failure, Geometry, Mishap, SimDisk, Survivors, Victim};
use std::ops::Range;

pub(super) struct Device {
    disk: SimDisk,
    room: u64,
}

impl Device {
    pub(super) const fn new(align: u32, tears: bool, sync_names: bool) -> Self {
        let geometry = Geometry { sector: 512, align, tears, sync_names };
        Self { disk: SimDisk::new(geometry), room: u64::MAX }
    }

    pub(super) fn submit(&mut self, op: OpId, request: DiskRequest) {
        self.disk.submit(lakebed::OpId(op.0), asked(request));
    }

    pub(super) fn in_flight(&self) -> Vec<OpId> {
        self.disk.in_flight().map(|op| OpId(op.0)).collect()
    }

    pub(super) fn end(&mut self, op: OpId) -> Result<Completion, DiskError> {
        told(self.disk.complete(lakebed::OpId(op.0)))
    }

    /// `keeps`: the cache mostly has what the disk has not, and takes it for durable.
    pub(super) fn end_badly(
        &mut self,
        op: OpId,
        keeps: bool,
        draw: &mut Draw,
    ) -> Result<Completion, DiskError> {
        let op = lakebed::OpId(op.0);
        let all = self.disk.mishaps(op);
        let clean = all.iter().find(|of| **of == Mishap::Whole(Failure::CleanKeep));
        let clean = clean.filter(|_| keeps && draw.ratio(3, 4));
        let mishap = *clean.unwrap_or_else(|| draw.pick(all));
        told(self.disk.end_badly(op, mishap, draw))
    }

    pub(super) fn makes_durable(&self, op: OpId) -> bool {
        let op = lakebed::OpId(op.0);
        self.disk.is_promise(op) || self.disk.is_a(op, Victim::SyncDirectory)
    }

    pub(super) fn is_read(&self, op: OpId) -> bool {
        let op = lakebed::OpId(op.0);
        self.disk.is_a(op, Victim::Read)
    }

    /// Whether it only says that what was written is durable.
    pub(super) fn is_sync(&self, op: OpId) -> bool {
        let op = lakebed::OpId(op.0);
        self.disk.is_promise(op) && !self.disk.is_a(op, Victim::Write)
    }

    /// The process is killed, or the power fails.
    pub(super) fn crash(&mut self, is_kill: bool, draw: &mut Draw) {
        if is_kill {
            return self.disk.kill(draw);
        }
        let survivors = *draw.pick(&Survivors::ALL);
        self.disk.cut_power(survivors, draw);
    }

    /// There is room for so much more, or for anything.
    pub(super) fn limit(&mut self, more: Option<u64>) {
        self.room = more.map_or(u64::MAX, |more| self.disk.used() + more);
        self.disk.set_room(self.room);
    }

    /// How much more there is room for.
    pub(super) fn room_left(&self) -> u64 {
        self.room.saturating_sub(self.disk.used())
    }

    pub(super) fn len(&self, file: File) -> Option<u64> {
        self.files().into_iter().find(|(other, _)| *other == file).map(|(_, len)| len)
    }

    pub(super) fn content(&self, file: File) -> Option<Bytes> {
        self.disk.content(theirs(file))
    }

    /// All there is, as it reads.
    pub(super) fn contents(&self) -> Vec<(File, Bytes)> {
        let content = |(file, _)| (file, self.content(file).unwrap_or_default());
        self.files().into_iter().map(content).collect()
    }

    pub(super) fn files(&self) -> Vec<(File, u64)> {
        self.disk.list().map(|(file, len)| (ours(file), len)).collect()
    }

    /// A bit of an entry is another one, wherever in the log that lies.
    pub(super) fn flip(&mut self, frame: &Bytes, byte: usize) {
        let files: Vec<_> = self.disk.list().map(|(file, _)| file).collect();
        for file in files.into_iter().filter(|file| matches!(file, lakebed::File::Segment(_))) {
            let bytes = self.disk.content(file).unwrap_or_default();
            if let Some(at) = holes::offset(&bytes, frame) {
                self.disk.flip(file, (at + byte) as u64 * 8 + 3);
            }
        }
    }

    pub(super) fn rot(&mut self, file: File, range: Range<u64>) {
        self.disk.rot(theirs(file), range);
    }

    pub(super) fn lose(&mut self, file: File) {
        self.disk.lose(theirs(file));
    }
}

fn theirs(file: File) -> lakebed::File {
    lakebed::File::parse(&file.name()).expect("a file has one name")
}

fn ours(file: lakebed::File) -> File {
    File::parse(&file.name()).expect("a file has one name")
}

fn asked(request: DiskRequest) -> Theirs {
    let to = |Extent { offset, bytes, zeros }| lakebed::Extent { offset, bytes, zeros };
    match request {
        DiskRequest::List => Theirs::List,
        DiskRequest::Create { file, len, zeroed } => {
            Theirs::Create { file: theirs(file), len, zeroed }
        }
        DiskRequest::Read { file, offset, len } => Theirs::Read { file: theirs(file), offset, len },
        DiskRequest::Write { file, at, and, durable } => {
            Theirs::Write { file: theirs(file), at: to(at), and: and.map(to), durable }
        }
        DiskRequest::Sync { file } => Theirs::Sync { file: theirs(file) },
        DiskRequest::Rename { from, to } => Theirs::Rename { from: theirs(from), to: theirs(to) },
        DiskRequest::Remove { file } => Theirs::Remove { file: theirs(file) },
        DiskRequest::SyncDirectory => Theirs::SyncDirectory,
    }
}

fn told(result: Result<TheirCompletion, TheirError>) -> Result<Completion, DiskError> {
    let file = |(file, len)| (ours(file), len);
    match result {
        Ok(TheirCompletion::Done) => Ok(Completion::Done),
        Ok(TheirCompletion::Read(bytes)) => Ok(Completion::Read(bytes)),
        Ok(TheirCompletion::Listed(files)) => {
            Ok(Completion::Listed(files.into_iter().map(file).collect()))
        }
        Err(TheirError::NotFound) => Err(DiskError::NotFound),
        Err(TheirError::Full) => Err(DiskError::Full),
        Err(TheirError::Io { errno }) => Err(DiskError::Io { errno }),
        Err(other) => panic!("{other:?} is new"),
    }
}
