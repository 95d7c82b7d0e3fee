//! The simulated disk: one directory, its files, and what of them survives.
//!
//! A pure state machine: operations are submitted, end when the caller says so, and the power may
//! fail at any time. It knows neither time nor nodes. The rules (docs/simulation.md):
//!
//! - a write that ended is visible, and durable only if it was a durable one; of one that is in flight
//!   whoever reads there sees any sectors;
//! - a sync makes durable what ended *before the sync was submitted*, lengths included;
//! - names are durable after a sync of the directory, on some disks after any; a rename is atomic;
//! - of everything else any subset of sectors may survive a power cut.
//!
//! It also holds the engine to its side: aligned writes, none over a write in flight, none beyond
//! the end of a file that does not grow, operations only on files that exist.

mod crash;
mod damage;
mod directory;
mod inode;
mod pages;
#[cfg(test)]
mod tests;

pub use crash::{Outcome, Survivors};

use crate::prng::Draw;
use directory::{Change, Directory, Ino};
use inode::{Inode, Piece, overlap};
use lakebed::{Completion, DiskError, DiskRequest, Extent, File, OpId};
use std::collections::BTreeMap;

/// The device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// What is written wholly or not at all, in bytes: 512 or 4096.
    pub sector: u32,
    /// What the engine was told to align to; a multiple of `sector`.
    pub align: u32,
    /// Whether a sector that is being written when the power fails may be left half old and half new.
    pub tears: bool,
    /// Whether what makes bytes durable also makes all names so that were changed before, as a journal does that
    /// commits all there is (ext4).
    pub sync_names: bool,
}

/// How an operation is made to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// It had no effect, and the system says so with this error.
    Nothing(DiskError),
    /// A sync or durable write failed (errno 5) after the cache had taken the data: it shows the
    /// new, the disk has the old, and the pages count as clean, so that the next sync succeeds
    /// without writing them (ext4, XFS).
    CleanKeep,
    /// The same, but the cache shows the old again (Btrfs).
    CleanRevert,
}

/// How one operation ends badly that was chosen beforehand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mishap {
    /// Without an effect, or as syncs and durable writes do.
    Whole(Failure),
    /// With a part of its effect.
    Partly(DiskError),
}

const ERROR: DiskError = DiskError::Io { errno: EIO };
const READ_FAILS: [Mishap; 1] = [Mishap::Whole(Failure::Nothing(ERROR))];
const REMOVE_FAILS: [Mishap; 2] = [READ_FAILS[0], Mishap::Partly(ERROR)];
const FULL: Mishap = Mishap::Whole(Failure::Nothing(DiskError::Full));
const WRITE_FAILS: [Mishap; 4] =
    [READ_FAILS[0], Mishap::Partly(ERROR), FULL, Mishap::Partly(DiskError::Full)];
/// A system may set room aside for what is in its cache only when that is to be written.
const SYNC_FAILS: [Mishap; 4] =
    [READ_FAILS[0], Mishap::Whole(Failure::CleanKeep), Mishap::Whole(Failure::CleanRevert), FULL];
const DURABLE_WRITE_FAILS: [Mishap; 6] =
    [WRITE_FAILS[0], WRITE_FAILS[1], WRITE_FAILS[2], WRITE_FAILS[3], SYNC_FAILS[1], SYNC_FAILS[2]];

/// Which operations can be made to fail, beside syncs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Victim {
    /// A write, durable or not: some of its sectors may have come as far as the cache.
    Write,
    /// A creation: the file may be there all the same, of any length.
    Create,
    /// A read.
    Read,
    /// A rename: the file may have its new name all the same.
    Rename,
    /// A removal: the file may be gone all the same.
    Remove,
    /// A sync of the directory: names stay as little durable as they were.
    SyncDirectory,
}

/// The errno of an I/O error.
pub const EIO: i32 = 5;

/// A directory and its files. A clone shares all bytes until one side changes them.
#[derive(Clone, Debug)]
pub struct SimDisk {
    geometry: Geometry,
    room: u64,
    tick: u64,
    next_ino: Ino,
    inodes: BTreeMap<Ino, Inode>,
    directory: Directory,
    /// In order of their ids.
    in_flight: Vec<Flight>,
}

#[derive(Clone, Debug)]
struct Flight {
    op: OpId,
    seq: u64,
    operation: Operation,
}

/// A request whose names were looked up when it was submitted.
#[derive(Clone, Debug)]
enum Operation {
    List,
    Create { file: File, ino: Ino, len: u64 },
    Read { file: Option<Ino>, offset: u64, len: u32 },
    Write { ino: Ino, durable: bool },
    Sync { ino: Ino },
    Name(Change),
    SyncDirectory,
}

impl SimDisk {
    /// An empty directory with room without end.
    #[must_use]
    pub const fn new(geometry: Geometry) -> Self {
        Self {
            geometry,
            room: u64::MAX,
            tick: 0,
            next_ino: 0,
            inodes: BTreeMap::new(),
            directory: Directory::new(),
            in_flight: Vec::new(),
        }
    }

    /// Limits the bytes of all files together; what is there already stays.
    pub const fn set_room(&mut self, bytes: u64) {
        self.room = bytes;
    }

    /// Bytes of all files together.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.directory.names().map(|(_, ino)| self.inodes[&ino].len).sum()
    }

    /// How many writes and changes of names a power cut may lose.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.directory.pending() + self.inodes.values().map(|i| i.pieces.len()).sum::<usize>()
    }

    /// Whether a power cut now may lose sectors of this file.
    #[must_use]
    pub fn has_pending_sectors_of(&self, file: File) -> bool {
        let inode = self.directory.lookup(file).and_then(|ino| self.inodes.get(&ino));
        inode.is_some_and(|inode| !inode.pieces.is_empty())
    }

    /// Whether a power cut now may lose names that were given or taken away.
    #[must_use]
    pub fn has_pending_names(&self) -> bool {
        self.directory.pending() > 0
    }

    /// Bits rot: every sector of this range of a file that holds anything is damaged, durably.
    pub fn rot(&mut self, file: File, range: std::ops::Range<u64>) {
        if let Some(ino) = self.directory.lookup(file) {
            let sector = self.geometry.sector;
            self.inode(ino).rot(range, sector);
        }
    }

    /// Whether a power cut now may lose sectors.
    #[must_use]
    pub fn has_pending_sectors(&self) -> bool {
        self.inodes.values().any(|inode| !inode.pieces.is_empty())
    }

    /// The operations that were submitted and have not ended, in order of their ids.
    pub fn in_flight(&self) -> impl Iterator<Item = OpId> + '_ {
        self.in_flight.iter().map(|flight| flight.op)
    }

    /// Whether this operation, which is in flight, promises durability when it ends.
    #[must_use]
    pub fn is_promise(&self, op: OpId) -> bool {
        let flight = self.in_flight.iter().find(|flight| flight.op == op);
        let operation = flight.map(|flight| &flight.operation);
        matches!(operation, Some(Operation::Sync { .. } | Operation::Write { durable: true, .. }))
    }

    /// Whether this operation, which is in flight, is such a one.
    #[must_use]
    pub fn is_a(&self, op: OpId, victim: Victim) -> bool {
        let flight = self.in_flight.iter().find(|flight| flight.op == op);
        match flight.map(|flight| &flight.operation) {
            Some(Operation::Write { .. }) => victim == Victim::Write,
            Some(Operation::Create { .. }) => victim == Victim::Create,
            Some(Operation::Read { .. }) => victim == Victim::Read,
            Some(Operation::Name(Change::Rename(..))) => victim == Victim::Rename,
            Some(Operation::Name(Change::Remove(_))) => victim == Victim::Remove,
            Some(Operation::SyncDirectory) => victim == Victim::SyncDirectory,
            _ => false,
        }
    }

    /// In which ways this operation, which is in flight, can end badly.
    #[must_use]
    pub fn mishaps(&self, op: OpId) -> &'static [Mishap] {
        let flight = self.in_flight.iter().find(|flight| flight.op == op);
        match flight.map(|flight| &flight.operation) {
            None => &[],
            Some(Operation::Write { durable: true, .. }) => &DURABLE_WRITE_FAILS,
            Some(Operation::Write { .. }) => &WRITE_FAILS,
            Some(Operation::Sync { .. }) => &SYNC_FAILS,
            Some(Operation::Create { .. } | Operation::Name(Change::Rename(..))) => &WRITE_FAILS,
            Some(Operation::Name(_)) => &REMOVE_FAILS,
            Some(_) => &READ_FAILS,
        }
    }

    /// Ends an operation in one of these ways.
    ///
    /// # Panics
    /// When it is not in flight.
    pub fn end_badly(
        &mut self,
        op: OpId,
        mishap: Mishap,
        draw: &mut Draw,
    ) -> Result<Completion, DiskError> {
        match mishap {
            Mishap::Whole(failure) => self.fail(op, failure),
            Mishap::Partly(error) => self.fail_partly(op, error, draw),
        }
    }

    /// The files and their lengths, as a process sees them.
    pub fn list(&self) -> impl Iterator<Item = (File, u64)> + '_ {
        self.directory.names().map(|(file, ino)| (file, self.inodes[&ino].len))
    }

    /// A file's bytes, as a process sees them.
    #[must_use]
    pub fn content(&self, file: File) -> Option<bytes::Bytes> {
        let inode = &self.inodes[&self.directory.lookup(file)?];
        Some(inode.read(0, u32::try_from(inode.len).unwrap_or(u32::MAX)))
    }

    /// A part of a file, as a process sees it.
    pub(crate) fn shown(&self, file: File, offset: u64, len: usize) -> Option<bytes::Bytes> {
        let inode = &self.inodes[&self.directory.lookup(file)?];
        Some(inode.read(offset, u32::try_from(len).unwrap_or(u32::MAX)))
    }

    /// And as it is on the disk, whatever was written over it and is not durable.
    pub(crate) fn durable(&self, file: File, offset: u64, len: usize) -> Option<bytes::Bytes> {
        let inode = &self.inodes[&self.directory.lookup(file)?];
        Some(inode.durable.read(offset, len))
    }

    /// How many writes of the log are on their way that are to be durable when they end.
    pub(crate) fn log_writes(&self) -> usize {
        let is_log = |of: Ino| {
            let mut names = self.directory.names();
            names.any(|(file, ino)| ino == of && matches!(file, File::Segment(_)))
        };
        let mut flights = self.in_flight.iter();
        let is_write = |flight: &&Flight| match flight.operation {
            Operation::Write { ino, durable } => durable && is_log(ino),
            _ => false,
        };
        flights.by_ref().filter(is_write).count()
    }

    /// Takes an operation on.
    ///
    /// # Panics
    /// When the request breaks the engine's side of the contract.
    pub fn submit(&mut self, op: OpId, request: DiskRequest) {
        self.tick += 1;
        let seq = self.tick;
        let operation = self.resolve(seq, request);
        let last = self.in_flight.last().map(|flight| flight.op);
        assert!(last < Some(op), "{op:?} comes after {last:?}");
        self.in_flight.push(Flight { op, seq, operation });
    }

    /// An operation ends, well if there is room and the file exists.
    ///
    /// # Panics
    /// When it is not in flight.
    pub fn complete(&mut self, op: OpId) -> Result<Completion, DiskError> {
        let Flight { seq, operation, .. } = self.take(op);
        let tick = self.tick;
        match operation {
            Operation::List => return Ok(Completion::Listed(self.list().collect())),
            Operation::Create { file, ino, len } => self.create(file, ino, len)?,
            Operation::Read { file, offset, len } => {
                let inode = &self.inodes[&file.ok_or(DiskError::NotFound)?];
                let sector = u64::from(self.geometry.sector);
                return Ok(Completion::Read(inode.read_amid(offset, len, sector)));
            }
            Operation::Write { ino, durable } => {
                self.write(ino, seq, durable)?;
                if durable {
                    self.commit_names(seq);
                }
            }
            Operation::Sync { ino } => {
                let inode = self.inode(ino);
                inode.persist(|p| !p.clean && p.ended.is_some_and(|ended| ended < seq));
                inode.persist_len();
                self.commit_names(seq);
            }
            Operation::Name(Change::Remove(file)) if self.directory.lookup(file).is_none() => {
                return Err(DiskError::NotFound);
            }
            Operation::Name(change) => self.directory.change(tick, change),
            Operation::SyncDirectory => {
                self.directory.persist(seq);
                self.collect_unreachable();
            }
        }
        Ok(Completion::Done)
    }

    /// An operation ends badly.
    ///
    /// # Panics
    /// When it is not in flight.
    pub fn fail(&mut self, op: OpId, failure: Failure) -> Result<Completion, DiskError> {
        let Flight { seq, operation, .. } = self.take(op);
        let error = match failure {
            Failure::Nothing(error) => error,
            Failure::CleanKeep | Failure::CleanRevert => DiskError::Io { errno: EIO },
        };
        match operation {
            Operation::Write { ino, .. } => self.fail_write(ino, seq, failure),
            Operation::Sync { ino } => self.fail_sync(ino, seq, failure),
            Operation::Create { ino, .. } => {
                self.inodes.remove(&ino);
            }
            _ => {}
        }
        Err(error)
    }

    fn take(&mut self, op: OpId) -> Flight {
        self.tick += 1;
        let at = self.in_flight.iter().position(|flight| flight.op == op);
        self.in_flight.remove(at.unwrap_or_else(|| panic!("{op:?} is not in flight")))
    }

    fn resolve(&mut self, seq: u64, request: DiskRequest) -> Operation {
        match request {
            DiskRequest::List => Operation::List,
            DiskRequest::Create { file, len, .. } => {
                let ino = self.next_ino;
                self.next_ino += 1;
                let grows = matches!(file, File::Part(..));
                self.inodes.insert(ino, Inode { grows, ..Inode::default() });
                Operation::Create { file, ino, len }
            }
            DiskRequest::Read { file, offset, len } => {
                Operation::Read { file: self.directory.lookup(file), offset, len }
            }
            DiskRequest::Write { file, at, and, durable } => {
                let ino = self.existing(file);
                // What lands lands sector by sector, zeros as well.
                let whole = |extent: Extent| Extent::new(extent.offset, extent.whole());
                self.start_write(file, ino, seq, whole(at), and.map(whole));
                Operation::Write { ino, durable }
            }
            DiskRequest::Sync { file } => Operation::Sync { ino: self.existing(file) },
            DiskRequest::Rename { from, to } => {
                let ino = self.existing(from);
                Operation::Name(Change::Rename(from, to, ino))
            }
            DiskRequest::Remove { file } => Operation::Name(Change::Remove(file)),
            DiskRequest::SyncDirectory => Operation::SyncDirectory,
        }
    }

    fn existing(&self, file: File) -> Ino {
        self.directory.lookup(file).unwrap_or_else(|| panic!("{file} does not exist"))
    }

    fn start_write(&mut self, file: File, ino: Ino, seq: u64, at: Extent, and: Option<Extent>) {
        let align = u64::from(self.geometry.align);
        let inode = self.inode(ino);
        for extent in [Some(&at), and.as_ref()].into_iter().flatten() {
            let (offset, len) = (extent.offset, extent.bytes.len() as u64);
            assert!(
                offset.is_multiple_of(align) && len.is_multiple_of(align) && len > 0,
                "{file}: a write of {len} bytes at {offset} is not aligned to {align}"
            );
            assert!(
                inode.grows || offset + len <= inode.len,
                "{file}: a write of {len} bytes at {offset} goes beyond the end at {}",
                inode.len
            );
            let flying = inode.pieces.iter().find(|piece| piece.meets(extent));
            if let Some(Piece { extent: flying, .. }) = flying {
                panic!("{file}: a write at {offset} overlaps one in flight at {}", flying.offset);
            }
        }
        let shared = and.as_ref().is_some_and(|and| overlap(&at, and));
        assert!(!shared, "{file}: both extents of a write share bytes");
        inode.start(seq, [Some(at), and].into_iter().flatten());
    }

    /// A file that finds no room for its length is there all the same, and empty.
    fn create(&mut self, file: File, ino: Ino, len: u64) -> Result<(), DiskError> {
        let fits = self.used().saturating_add(len) <= self.room;
        self.directory.change(self.tick, Change::Bind(file, ino));
        if !fits {
            return Err(DiskError::Full);
        }
        let inode = self.inode(ino);
        (inode.len, inode.durable_len) = (len, len);
        Ok(())
    }

    /// What ended before became durable, and names may have come with it.
    fn commit_names(&mut self, seq: u64) {
        if self.geometry.sync_names && self.directory.pending() > 0 {
            self.directory.persist(seq);
            self.collect_unreachable();
        }
    }

    fn write(&mut self, ino: Ino, seq: u64, durable: bool) -> Result<(), DiskError> {
        let tick = self.tick;
        let growth = self.inode(ino).growth(seq);
        if growth > 0 && self.used().saturating_add(growth) > self.room {
            self.inode(ino).forget(seq);
            return Err(DiskError::Full);
        }
        let inode = self.inode(ino);
        inode.end(seq, tick);
        if durable {
            inode.persist(|piece| piece.seq == seq);
        }
        Ok(())
    }

    fn fail_write(&mut self, ino: Ino, seq: u64, failure: Failure) {
        let tick = self.tick;
        let inode = self.inode(ino);
        if failure == Failure::CleanKeep {
            inode.end(seq, tick);
            inode.mark_clean(|piece| piece.seq == seq);
        } else {
            inode.forget(seq);
        }
    }

    fn fail_sync(&mut self, ino: Ino, seq: u64, failure: Failure) {
        let covers = |piece: &Piece| piece.ended.is_some_and(|ended| ended < seq);
        let inode = self.inode(ino);
        match failure {
            Failure::Nothing(_) => {}
            Failure::CleanKeep => inode.mark_clean(covers),
            Failure::CleanRevert => inode.pieces.retain(|piece| !covers(piece)),
        }
    }

    fn inode(&mut self, ino: Ino) -> &mut Inode {
        self.inodes.get_mut(&ino).expect("operations in flight keep their inode")
    }

    /// Content that no name leads to, now or after a power cut, and no operation is busy with.
    fn collect_unreachable(&mut self) {
        let directory = &self.directory;
        let busy: Vec<Ino> = self.in_flight.iter().filter_map(Flight::ino).collect();
        self.inodes.retain(|ino, _| directory.reaches(*ino) || busy.contains(ino));
    }
}

impl Flight {
    const fn ino(&self) -> Option<Ino> {
        match self.operation {
            Operation::Create { ino, .. }
            | Operation::Write { ino, .. }
            | Operation::Sync { ino }
            | Operation::Read { file: Some(ino), .. } => Some(ino),
            _ => None,
        }
    }
}
