//! What a disk does that no system tells of: bits rot, writes are lost or land elsewhere, files go.

use super::{Failure, Flight, Operation, SimDisk, directory::Ino, inode::Piece};
use bytes::Bytes;
use lakebed::{Completion, DiskError, File, OpId};

impl SimDisk {
    /// Where the sectors of a file begin that hold anything.
    #[must_use]
    pub fn used_sectors(&self, file: File) -> Vec<u64> {
        let sector = self.geometry.sector as usize;
        let content = self.content(file).unwrap_or_default();
        let zeros = vec![0; sector];
        let sectors = content.chunks(sector).enumerate();
        let used = sectors.filter(|(_, bytes)| **bytes != zeros[..bytes.len()]);
        used.map(|(n, _)| (n * sector) as u64).collect()
    }

    /// A sector is zeros, durably.
    pub fn zero(&mut self, file: File, at: u64) {
        if let Some(ino) = self.directory.lookup(file) {
            let zeros = Bytes::from(vec![0; self.geometry.sector as usize]);
            self.inode(ino).durable.write(at, &zeros);
        }
    }

    /// A bit of a file is another one, durably; bits count from the lowest of the first byte. False if
    /// the disk holds no such bit.
    pub fn flip(&mut self, file: File, bit: u64) -> bool {
        let Some(ino) = self.directory.lookup(file) else { return false };
        let inode = self.inode(ino);
        if bit / 8 >= inode.durable_len {
            return false;
        }
        let byte = inode.durable.read(bit / 8, 1);
        inode.durable.write(bit / 8, &Bytes::from(vec![byte[0] ^ 1 << (bit % 8)]));
        true
    }

    /// A file is gone, durably, and no power cut brings it back. What else waits for a sync of the directory
    /// waits on.
    pub fn lose(&mut self, file: File) {
        self.directory.lose(file);
        self.collect_unreachable();
    }

    /// The file that an operation in flight is about, if it writes or syncs one.
    #[must_use]
    pub fn is_about(&self, op: OpId) -> Option<File> {
        let flight = self.in_flight.iter().find(|flight| flight.op == op)?;
        let (Operation::Write { ino, .. } | Operation::Sync { ino }) = flight.operation else {
            return None;
        };
        self.directory.names().find(|(_, of)| *of == ino).map(|(file, _)| file)
    }

    /// The file that an operation in flight reads, if it reads one that is there.
    #[must_use]
    pub fn read_of(&self, op: OpId) -> Option<File> {
        let flight = self.in_flight.iter().find(|flight| flight.op == op)?;
        let Operation::Read { file: Some(ino), .. } = flight.operation else { return None };
        self.directory.names().find(|(_, of)| *of == ino).map(|(file, _)| file)
    }

    /// A sync or durable write ends as if all were well, and nothing of it is durable for certain, nor will a later
    /// sync make it so: the cache has it, and the disk what happened to come there. Where it is the directory that
    /// was to be synced, a later sync does make its names durable.
    ///
    /// # Panics
    /// When it is not in flight.
    pub fn complete_falsely(&mut self, op: OpId) -> Result<Completion, DiskError> {
        let Flight { seq, operation, .. } = self.take(op);
        let tick = self.tick;
        match operation {
            Operation::Write { ino, .. } => {
                self.write(ino, seq, false)?;
                self.inode(ino).mark_clean(|piece| piece.seq == seq);
            }
            Operation::Sync { ino } => {
                let covers = |piece: &Piece| piece.ended.is_some_and(|ended| ended < tick);
                self.inode(ino).mark_clean(covers);
            }
            _ => {}
        }
        Ok(Completion::Done)
    }

    /// The same, and the next sync or durable write of that file fails for it, unless the power fails before.
    ///
    /// # Panics
    /// When it is not in flight.
    pub fn complete_too_soon(&mut self, op: OpId, late: Failure) -> Result<Completion, DiskError> {
        let ino = self.promises_of(op);
        let result = self.complete_falsely(op);
        if let Some(ino) = ino.filter(|_| result.is_ok()) {
            self.inode(ino).late = Some(late);
        }
        result
    }

    /// How this operation, which is in flight, fails for one that ended before it; told once.
    pub fn late_failure(&mut self, op: OpId) -> Option<Failure> {
        let ino = self.promises_of(op)?;
        self.inode(ino).late.take()
    }

    /// Nothing that failed and was not told of is told any more.
    pub fn forget_late_failures(&mut self) {
        self.inodes.values_mut().for_each(|inode| inode.late = None);
    }

    /// Whose bytes this operation, which is in flight, promises to be durable when it ends.
    fn promises_of(&self, op: OpId) -> Option<Ino> {
        let flight = self.in_flight.iter().find(|flight| flight.op == op)?;
        self.is_promise(op).then(|| flight.ino()).flatten()
    }

    /// A read ends with what lies elsewhere, whole sectors away in its file or anywhere in another one, mostly where
    /// anything was written. `None`, and it is in flight as before: it is no read, or the same lies there.
    pub fn complete_from_elsewhere(&mut self, op: OpId, pick: u64) -> Option<Completion> {
        let flight = self.in_flight.iter().find(|flight| flight.op == op)?;
        let Operation::Read { file: Some(own), offset, len } = flight.operation else {
            return None;
        };
        let right = self.inodes[&own].read(offset, len);
        let files: Vec<(File, Ino)> = self.directory.names().collect();
        let is_own = |(_, ino): &&(File, Ino)| *ino == own;
        let other = &files[(pick >> 8) as usize % files.len()];
        let (file, ino) = *files.iter().find(is_own).filter(|_| pick & 1 == 0).unwrap_or(other);
        let sector = u64::from(self.geometry.sector);
        let all = self.inodes[&ino].len / sector;
        let used = self.used_sectors(file);
        let which = pick >> 16;
        let at = match used.len() as u64 {
            count if count > 0 && pick & 6 > 0 => used[(which % count) as usize],
            _ => which % all.max(1) * sector,
        };
        let mut wrong = self.inodes[&ino].read(at, len).to_vec();
        wrong.resize(right.len(), 0);
        if wrong == right {
            return None;
        }
        self.take(op);
        Some(Completion::Read(wrong.into()))
    }

    /// What a process finds that starts now, if the one before it has done no more than to look.
    #[must_use]
    pub fn at_rest(&self) -> Self {
        Self { in_flight: Vec::new(), ..self.clone() }
    }

    /// A write ends as if all were well, and landed elsewhere in its file: at the block of this
    /// number, counted round and round.
    ///
    /// # Panics
    /// When it is not in flight.
    pub fn complete_elsewhere(&mut self, op: OpId, pick: u64) -> Result<Completion, DiskError> {
        self.land_in(op, None, Some(pick))
    }

    /// A write ends as if all were well, and landed in another file than its own, if there is one that keeps no promises,
    /// and in its own otherwise; where it would have landed there, or anywhere.
    ///
    /// # Panics
    /// When it is not in flight.
    pub fn complete_misfiled(&mut self, op: OpId, pick: u64) -> Result<Completion, DiskError> {
        let flight = self.in_flight.iter().find(|flight| flight.op == op);
        let own = flight.and_then(Flight::ino);
        let is_other = |(file, ino): &(File, Ino)| *file != File::HardState && Some(*ino) != own;
        let others: Vec<_> = self.directory.names().filter(is_other).collect();
        let which = (pick >> 8) as usize % others.len().max(1);
        let other = others.get(which).map(|(_, ino)| *ino);
        self.land_in(op, other, (pick & 1 == 0).then_some(pick >> 16))
    }

    /// `None`: in its own file; where it would have landed there.
    fn land_in(
        &mut self,
        op: OpId,
        other: Option<Ino>,
        elsewhere: Option<u64>,
    ) -> Result<Completion, DiskError> {
        let Flight { seq, operation, .. } = self.take(op);
        let Operation::Write { ino, .. } = operation else { return Ok(Completion::Done) };
        let align = u64::from(self.geometry.align);
        let own = self.inode(ino);
        let extents: Vec<_> = own.pieces_of(seq).map(|piece| piece.extent.clone()).collect();
        own.forget(seq);
        let other = self.inode(other.unwrap_or(ino));
        for extent in extents {
            let len = other.durable_len.min(extent.bytes.len() as u64);
            let last = (other.durable_len - len) / align * align;
            let at = match elsewhere {
                Some(block) => block % (last / align + 1) * align,
                None => extent.offset.min(last),
            };
            other.durable.write(at, &extent.bytes.slice(..len as usize));
        }
        Ok(Completion::Done)
    }

    /// Whether it holds a hard state, and no power cut can take its name away.
    #[must_use]
    pub fn has_promised(&self) -> bool {
        self.directory.is_durable(File::HardState)
    }
}
