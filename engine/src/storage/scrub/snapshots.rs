//! The second part of a pass: own snapshots, the newest first, every byte of each.
//!
//! Knows where a snapshot's parts lie and what each must be; what follows from a bad one is not its
//! affair. Invariant: one piece is read at a time, and what is judged is a file that still counts.

use crate::{
    disk::snapshot::{Footer, Header, decode_block, header_bytes},
    event::Completion,
    file::{DiskError, DiskRequest},
    storage::snapshots::SnapshotFile,
    types::{GroupId, LogId, OpId, SnapshotId},
};

/// Snapshots that are still to be read in this pass.
#[derive(Clone, Debug)]
pub(super) struct Checks {
    /// The next one last.
    left: Vec<(LogId, SnapshotId)>,
    check: Option<Check>,
    reading: Option<Reading>,
}

/// A snapshot that is being read, and how far that is.
#[derive(Clone, Debug)]
struct Check {
    snapshot: SnapshotFile,
    next: Part,
    payload_bytes: u64,
    digest: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Header,
    /// From this one on.
    Blocks(u64),
    Footer,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    op: OpId,
    len: u32,
}

/// Where a snapshot is bad, and what should be there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::storage) struct BadSnapshot {
    pub(in crate::storage) at: LogId,
    pub(in crate::storage) id: SnapshotId,
    pub(in crate::storage) what: String,
}

impl Checks {
    pub(super) fn of(whole: &[SnapshotFile]) -> Self {
        let left = whole.iter().map(|snapshot| (snapshot.header.at, snapshot.header.id)).collect();
        Self { left, check: None, reading: None }
    }

    pub(super) const fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    /// The next piece to read, at most so many bytes if a block is no larger; none: all were read.
    /// What does not count any more is left out.
    pub(super) fn next(
        &mut self,
        whole: &[SnapshotFile],
        align: u32,
        bytes_max: u32,
    ) -> Option<DiskRequest> {
        let is_there = |check: &Check| whole.iter().any(|snapshot| check.is_of(snapshot));
        self.check = self.check.take().filter(is_there);
        while self.check.is_none() {
            let wanted = self.left.pop()?;
            let snapshot = whole.iter().find(|s| (s.header.at, s.header.id) == wanted);
            self.check = snapshot.map(Check::new);
        }
        let Check { snapshot, next, .. } = self.check.as_ref()?;
        let (offset, len) = next.place(snapshot, align, bytes_max);
        Some(DiskRequest::Read { file: snapshot.file(), offset, len })
    }

    pub(super) const fn reads(&mut self, op: OpId, len: u32) {
        self.reading = Some(Reading { op, len });
    }

    /// How many bytes were read, and what is bad about them; nothing for a read that nobody waits for.
    pub(super) fn on_read(
        &mut self,
        op: OpId,
        result: Result<Completion, DiskError>,
        group: GroupId,
        align: u32,
    ) -> Option<(u32, Option<BadSnapshot>)> {
        let Reading { len, .. } = self.reading.take_if(|reading| reading.op == op)?;
        let check = self.check.as_mut()?;
        let judged = match result {
            Ok(Completion::Read(bytes)) => check.judge(&bytes, group, align),
            Ok(_) => unreachable!("a read is answered by bytes"),
            Err(error) => Err(format!("{} cannot be read: {error}", check.next)),
        };
        let Header { at, id, .. } = check.snapshot.header;
        match judged {
            Ok(Some(next)) => check.next = next,
            _ => self.check = None,
        }
        Some((len, judged.err().map(|what| BadSnapshot { at, id, what })))
    }
}

impl Part {
    fn place(self, snapshot: &SnapshotFile, align: u32, bytes_max: u32) -> (u64, u32) {
        match self {
            Self::Header => (0, header_bytes(align) as u32),
            Self::Footer => (snapshot.file_bytes(align) - u64::from(align), align),
            Self::Blocks(first) => {
                let count = u64::from(bytes_max / snapshot.header.block_bytes).max(1);
                let last = (first + count).min(snapshot.footer.blocks) - 1;
                let offset = snapshot.block_offset(first, align);
                let end =
                    snapshot.block_offset(last, align) + u64::from(snapshot.block_len(last, align));
                (offset, (end - offset) as u32)
            }
        }
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header => f.write_str("the header"),
            Self::Blocks(number) => write!(f, "block {number}"),
            Self::Footer => f.write_str("the footer"),
        }
    }
}

impl Check {
    fn new(snapshot: &SnapshotFile) -> Self {
        Self { snapshot: snapshot.clone(), next: Part::Header, payload_bytes: 0, digest: 0 }
    }

    fn is_of(&self, snapshot: &SnapshotFile) -> bool {
        let of = |snapshot: &SnapshotFile| (snapshot.header.at, snapshot.header.id);
        of(&self.snapshot) == of(snapshot)
    }

    /// What is to be read next, if that was not all; or what is bad about it.
    fn judge(&mut self, bytes: &[u8], group: GroupId, align: u32) -> Result<Option<Part>, String> {
        let SnapshotFile { header, footer } = &self.snapshot;
        let (at, id, blocks) = (header.at, header.id, footer.blocks);
        let bad = |part: Part| format!("{part} is bad");
        match self.next {
            Part::Header => {
                let found = Header::decode(bytes, group, at).ok();
                found.filter(|found| found == header).ok_or_else(|| bad(Part::Header))?;
                Ok(Some(Part::Blocks(0)))
            }
            Part::Blocks(first) => {
                let (mut number, mut rest) = (first, bytes);
                while !rest.is_empty() && number < blocks {
                    let len = rest.len().min(self.snapshot.block_len(number, align) as usize);
                    let (block, behind) = rest.split_at(len);
                    let payload = decode_block(block, number, group, id)
                        .map_err(|_| bad(Part::Blocks(number)))?;
                    self.payload_bytes += payload.len() as u64;
                    self.digest = crc32c::crc32c_append(self.digest, payload);
                    (number, rest) = (number + 1, behind);
                }
                if number == first {
                    return Err(bad(Part::Blocks(first)));
                }
                Ok(Some(if number < blocks { Part::Blocks(number) } else { Part::Footer }))
            }
            Part::Footer => {
                let found = Footer::decode(bytes, group, id).ok();
                found.filter(|found| found == footer).ok_or_else(|| bad(Part::Footer))?;
                if (self.payload_bytes, self.digest) != (footer.payload_bytes, footer.digest) {
                    return Err("the blocks are not those of the footer".into());
                }
                Ok(None)
            }
        }
    }
}
