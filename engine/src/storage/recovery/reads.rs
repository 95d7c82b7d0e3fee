//! What a restart reads, stage by stage, until the log can be judged; and which reads that fail it can do
//! without.
//!
//! Decides no more than whether there is anything to be read. Invariant: a stage asks for all that it needs at
//! once.

use super::{Recovery, RecoveryOp, Stage};
use crate::{
    action::Halt,
    disk::{hard_state, snapshot},
    event::Start,
    file::{DiskError, DiskRequest, File},
    marks::Mark,
    status::Phase,
    storage::{
        found::SegmentFound,
        look::Seen,
        ops::Ops,
        verdict::{self, Found, Hard, Mode, Verdict},
    },
    types::Instant,
};
use std::ops::Range;

/// How many bytes of a segment are read at a time.
const READ_BYTES: u64 = 1 << 20;

impl Recovery {
    /// A read that failed says nothing about what is there. Were it judged like bytes that read
    /// wrong, acknowledged entries above *proven* would be cut as torn, and a vote in the block
    /// that was not read be given once more. The next start may be told; only what is found
    /// elsewhere as well can be done without.
    pub(super) fn unreadable(&mut self) -> Option<(File, DiskError)> {
        self.forgive();
        let look = &self.look;
        // The first header may do without the second.
        if matches!(self.stage, Stage::Segments) {
            return None;
        }
        let mut unread = std::mem::take(&mut self.unread).into_iter();
        let found = unread.find(|(op, ..)| match op {
            RecoveryOp::HardBlock { copy, .. } => {
                // A good block of a damaged copy may be the older one of both; and see `unread_proof`.
                !look.is_copy_whole(1 - copy)
            }
            // Without its end record a segment is read whole, and a part comes from a peer again.
            RecoveryOp::SegmentFoot(n) | RecoveryOp::SegmentHead(n) => {
                look.segments[*n as usize].header.is_none()
            }
            RecoveryOp::SnapshotHead(n) | RecoveryOp::SnapshotFoot(n) => {
                !look.has_snapshot_beside(*n)
            }
            RecoveryOp::PartHead(_) => false,
            _ => true,
        });
        found.map(|(_, file, error)| (file, error))
    }

    /// What could not be read is not read again, and not done away with.
    fn forgive(&mut self) {
        for (op, file, error) in &self.unread {
            match *op {
                RecoveryOp::HardBlock { copy, block } if self.look.may_be_newest(copy, block) => {
                    self.unread_proof = Some((*file, *error));
                }
                RecoveryOp::SegmentFoot(n) => self.look.segments[n as usize].is_foot_unread = true,
                RecoveryOp::SnapshotHead(n) | RecoveryOp::SnapshotFoot(n) => {
                    self.look.snapshots[n as usize].is_unread = true;
                    self.unread_snapshots.push((*file, *error));
                }
                _ => {}
            }
        }
    }

    pub(super) fn list(&mut self, now: Instant, ops: &mut Ops) {
        self.phase(Phase::List, now);
        self.stage = Stage::List;
        // Where a cut was repeated all is read once more.
        self.unread_snapshots.clear();
        self.unread_proof = None;
        self.ask(RecoveryOp::List, DiskRequest::List, ops);
    }

    pub(super) fn read_hard_state(&mut self, now: Instant, ops: &mut Ops) -> Result<(), Halt> {
        let mode = self.mode();
        let is_restore = self.restores().is_some();
        let is_empty = self.look.is_empty() || is_restore && self.look.is_unfinished();
        let found = Found::early(mode, is_empty, Hard::Good);
        match verdict::verdict(&found) {
            (_, Verdict::Fresh) if is_restore => return self.clear(ops),
            (_, Verdict::Fresh) => {
                if self.look.has_files() {
                    ops.met(Mark::FormatRepeated);
                }
                self.stage = Stage::Build(0);
                return Ok(());
            }
            (_, Verdict::Refuse) if self.look.is_empty() => return Err(Halt::NotFormatted),
            (_, Verdict::Refuse) => return Err(Halt::AlreadyFormatted),
            _ => {}
        }
        self.phase(Phase::HardState, now);
        self.stage = Stage::HardState;
        if !self.is_look() {
            self.keep_names(ops);
        }
        for copy in 0..2u8 {
            for block in 0..2u8 {
                let offset = hard_state::OFFSETS[usize::from(copy)][usize::from(block)];
                let len = hard_state::BLOCK_BYTES as u32;
                let request = DiskRequest::Read { file: File::HardState, offset, len };
                self.ask(RecoveryOp::HardBlock { copy, block }, request, ops);
            }
        }
        Ok(())
    }

    /// Whoever gave a file its name may have been killed before that was durable. What is written from
    /// now on rests on the names that were listed: a log that begins behind a snapshot's last entry.
    fn keep_names(&mut self, ops: &mut Ops) {
        if !cfg!(lakebed_break = "believe_the_names_listed") {
            self.ask(RecoveryOp::Names, DiskRequest::SyncDirectory, ops);
        }
    }

    const fn mode(&self) -> Mode {
        match self.start {
            Start::Format { .. } | Start::Restore { .. } => Mode::Format,
            Start::Join { .. } => Mode::Join,
            _ => Mode::Run,
        }
    }

    pub(super) fn read_snapshots(&mut self, now: Instant, ops: &mut Ops) -> Result<(), Halt> {
        let hard = self.look.judge_hard_state(self.is_look());
        match self.look.newest_in_copies() {
            [None, None] => {}
            [None, _] | [_, None] => ops.met(Mark::HardStateCopyLost),
            [a, b] if a != b => ops.met(Mark::HardStateCopiesDiffer),
            _ => {}
        }
        let found = Found::early(self.mode(), false, hard);
        if let (row, Verdict::Refuse) = verdict::verdict(&found) {
            if self.is_look() {
                let inspection = self.look.inspection(&Seen::HardState, row, Verdict::Refuse);
                return Err(Halt::Inspected(Box::new(inspection)));
            }
            return Err(self.look.refusal(row.name));
        }
        self.phase(Phase::Snapshot, now);
        self.stage = Stage::Snapshots;
        let align = self.look.align() as u32;
        for n in 0..self.look.snapshots.len() as u32 {
            let found = &self.look.snapshots[n as usize];
            let (file, foot) = (File::Snapshot(found.at), found.len.checked_sub(u64::from(align)));
            let len = snapshot::header_bytes(align) as u32;
            let request = DiskRequest::Read { file, offset: 0, len };
            self.ask(RecoveryOp::SnapshotHead(n), request, ops);
            if let Some(offset) = foot {
                let request = DiskRequest::Read { file, offset, len: align };
                self.ask(RecoveryOp::SnapshotFoot(n), request, ops);
            }
        }
        for n in 0..self.look.parts.len() as u32 {
            let file = self.look.parts[n as usize].file();
            let len = snapshot::header_bytes(align) as u32;
            self.ask(RecoveryOp::PartHead(n), DiskRequest::Read { file, offset: 0, len }, ops);
        }
        Ok(())
    }

    /// A long log has many segments: of each the blocks at its end, in one read.
    pub(super) fn read_segments(&mut self, now: Instant, ops: &mut Ops) {
        self.phase(Phase::Log, now);
        self.stage = Stage::Segments;
        let foot = 2 * self.look.align();
        for n in 0..self.look.segments.len() as u32 {
            let SegmentFound { sequence, len, .. } = self.look.segments[n as usize];
            let Some(offset) = len.checked_sub(foot) else { continue };
            let (file, len) = (File::Segment(sequence), foot as u32);
            self.ask(RecoveryOp::SegmentFoot(n), DiskRequest::Read { file, offset, len }, ops);
        }
    }

    pub(super) fn read_first_headers(&mut self, ops: &mut Ops) {
        self.stage = Stage::SegmentHeads;
        let len = self.look.align() as u32;
        for n in 0..self.look.segments.len() as u32 {
            let SegmentFound { sequence, header: None, .. } = self.look.segments[n as usize] else {
                continue;
            };
            let request = DiskRequest::Read { file: File::Segment(sequence), offset: 0, len };
            self.ask(RecoveryOp::SegmentHead(n), request, ops);
        }
    }

    pub(super) fn read_images(&mut self, ops: &mut Ops) {
        self.stage = Stage::Images;
        self.look.judge_snapshots();
        let believes = self.look.believes();
        for n in self.look.segments_to_scan() {
            let found = &mut self.look.segments[n as usize];
            found.make_room();
            let wanted = found.first_wanted(believes);
            if !believes {
                found.reads(&wanted[0]);
            }
            wanted.into_iter().for_each(|range| self.read_part(n, range, ops));
        }
    }

    pub(super) fn read_part(&mut self, segment: u32, range: Range<u64>, ops: &mut Ops) {
        let file = File::Segment(self.look.segments[segment as usize].sequence);
        for offset in range.clone().step_by(READ_BYTES as usize) {
            let len = (range.end - offset).min(READ_BYTES) as u32;
            let op = RecoveryOp::SegmentPart { segment, offset };
            self.ask(op, DiskRequest::Read { file, offset, len }, ops);
        }
    }

    pub(super) fn read_wanted(&mut self, wanted: Vec<(u32, Range<u64>)>, ops: &mut Ops) {
        self.stage = Stage::Images;
        wanted.into_iter().for_each(|(n, range)| self.read_part(n, range, ops));
    }
}
