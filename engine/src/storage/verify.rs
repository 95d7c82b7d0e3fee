//! Reading every used byte of a node's files, once, in order, many at a time.
//!
//! Writes nothing and decides nothing: the verdict was given by what a restart reads. What comes
//! to light beyond that is told with the place, and with when a node would meet it. Entries that
//! are not proven durable are left out: a bad one is what a crash leaves.

mod segment;
mod snapshot;

use self::segment::SegmentCheck;
pub(super) use self::snapshot::{SnapshotCheck, checks as snapshots};
use super::look::Look;
use crate::{
    event::Completion,
    file::{DiskError, DiskRequest, File},
    report::{Defect, Inspection, Verified},
};
use bytes::Bytes;
use std::{collections::VecDeque, ops::Range};

/// The most bytes that are read and not yet looked at.
const BYTES_MAX: u64 = 32 << 20;

/// A verification under way.
#[derive(Clone, Debug)]
pub(super) struct Verification {
    inspection: Box<Inspection>,
    checks: Vec<Check>,
    /// What is yet to be asked for, in order.
    wanted: VecDeque<Piece>,
    /// What was asked for and not yet checked, in order.
    asked: VecDeque<Asked>,
    /// The number of the first of those.
    first: u32,
    /// Their bytes.
    asked_bytes: u64,
    /// The segment that is being put together. Kept for its room: new memory for each would cost
    /// more than reading it.
    image: Vec<u8>,
    /// What of the file at hand could not be read.
    unread: Vec<Range<u64>>,
}

#[derive(Clone, Debug)]
enum Check {
    Segment(Box<SegmentCheck>),
    Snapshot(Box<SnapshotCheck>),
}

/// Part of a file.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Whose it is.
    check: usize,
    file: File,
    offset: u64,
    len: u32,
    /// Whether it is the last one of its file.
    is_last: bool,
}

#[derive(Clone, Debug)]
struct Asked {
    piece: Piece,
    content: Option<Result<Bytes, DiskError>>,
}

/// What comes to light.
#[derive(Clone, Debug, Default)]
pub(super) struct Findings {
    pub(super) defects: Vec<Defect>,
    verified: Verified,
}

impl Verification {
    pub(super) fn new(look: &Look, inspection: Box<Inspection>) -> Self {
        let segments = segment::checks(look, &inspection).map(|check| Check::Segment(check.into()));
        let snapshots = snapshot::checks(look).map(|check| Check::Snapshot(check.into()));
        let checks: Vec<_> = segments.chain(snapshots).collect();
        let pieces = |(n, check): (usize, &Check)| -> Vec<Piece> {
            let (file, pieces) = match check {
                Check::Segment(check) => (check.file, check.pieces()),
                Check::Snapshot(check) => (check.file(), check.pieces()),
            };
            let count = pieces.len();
            let pieces = pieces.into_iter().enumerate();
            let piece = |(number, (offset, len))| Piece {
                check: n,
                file,
                offset,
                len,
                is_last: number + 1 == count,
            };
            pieces.map(piece).collect()
        };
        let wanted = checks.iter().enumerate().flat_map(pieces).collect();
        Self {
            inspection,
            checks,
            wanted,
            asked: VecDeque::new(),
            first: 0,
            asked_bytes: 0,
            image: Vec::new(),
            unread: Vec::new(),
        }
    }

    /// How many bytes it reads.
    pub(super) fn bytes_total(&self) -> u64 {
        self.wanted.iter().map(|piece| u64::from(piece.len)).sum()
    }

    /// The next read, if it may begin.
    pub(super) fn next(&mut self) -> Option<(u32, DiskRequest)> {
        let piece = *self.wanted.front()?;
        let bytes = u64::from(piece.len);
        if !self.asked.is_empty() && self.asked_bytes + bytes > BYTES_MAX {
            return None;
        }
        self.wanted.pop_front();
        self.asked_bytes += bytes;
        self.asked.push_back(Asked { piece, content: None });
        let number = self.first + self.asked.len() as u32 - 1;
        let Piece { file, offset, len, .. } = piece;
        Some((number, DiskRequest::Read { file, offset, len }))
    }

    /// The end of a read; says how many bytes are done.
    pub(super) fn take(&mut self, number: u32, result: Result<Completion, DiskError>) -> u64 {
        let asked = &mut self.asked[(number - self.first) as usize];
        let content = match result {
            Ok(Completion::Read(bytes)) => Ok(bytes),
            Ok(_) => Ok(Bytes::new()),
            Err(error) => Err(error),
        };
        asked.content = Some(content);
        u64::from(asked.piece.len)
    }

    /// Checks what has come, in order.
    pub(super) fn check(&mut self) {
        let mut findings = Findings::default();
        while let Some(content) = self.asked.front_mut().and_then(|asked| asked.content.take()) {
            let piece = self.asked.pop_front().expect("it is at the front").piece;
            self.first += 1;
            self.asked_bytes -= u64::from(piece.len);
            self.check_piece(&piece, content, &mut findings);
        }
        let all = self.inspection.verified.get_or_insert_default();
        all.bytes += findings.verified.bytes;
        all.entries += findings.verified.entries;
        all.blocks += findings.verified.blocks;
        self.inspection.defects.append(&mut findings.defects);
    }

    fn check_piece(
        &mut self,
        piece: &Piece,
        content: Result<Bytes, DiskError>,
        findings: &mut Findings,
    ) {
        let end = piece.offset + u64::from(piece.len);
        let bytes = content.unwrap_or_else(|error| {
            findings.unread(piece, error);
            self.unread.push(piece.offset..end);
            Bytes::new()
        });
        findings.verified.bytes += bytes.len() as u64;
        let told = findings.defects.len();
        match &mut self.checks[piece.check] {
            Check::Snapshot(check) => check.check(&bytes, findings),
            Check::Segment(check) => {
                self.image.extend_from_slice(&bytes);
                // What could not be read is zeros: no record.
                self.image.resize(end as usize, 0);
                if piece.is_last {
                    check.check(&self.image, findings);
                    self.image.clear();
                }
            }
        }
        // That there are no records where nothing could be read was said already.
        let is_unread = |at: u64| self.unread.iter().any(|range| range.contains(&at));
        let found = findings.defects.split_off(told);
        findings.defects.extend(found.into_iter().filter(|found| !is_unread(found.offset)));
        if piece.is_last {
            self.unread.clear();
        }
    }

    /// Whether all was read and checked.
    pub(super) fn is_over(&self) -> bool {
        self.wanted.is_empty() && self.asked.is_empty()
    }

    /// What was found, each place once: the look before may have met it too.
    pub(super) fn into_inspection(self) -> Box<Inspection> {
        let mut inspection = self.inspection;
        inspection.defects.sort();
        // Of two that tell of one place, the later one knows how long it is.
        inspection.defects.dedup_by(|later, kept| {
            let is_same = (later.file, later.offset) == (kept.file, kept.offset);
            if is_same && kept.bytes == 0 {
                std::mem::swap(kept, later);
            }
            is_same
        });
        inspection
    }
}

impl Findings {
    fn unread(&mut self, piece: &Piece, error: DiskError) {
        self.defects.push(Defect {
            file: piece.file,
            offset: piece.offset,
            bytes: u64::from(piece.len),
            expected: "bytes that can be read".into(),
            found: error.to_string(),
            then: "ends when it reads there, and the next one tries again".into(),
        });
    }
}
