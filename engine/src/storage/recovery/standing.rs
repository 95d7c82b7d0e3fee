//! Where nobody else has it: before the newest snapshot stands for a part of the log that is bad or gone, and what
//! else leads to its state is given up, it is read through.
//!
//! A start believes a snapshot by its header and its footer, and its machine finds out what lies between. If
//! that is bad the log leads on from the one before, or a peer sends another: here neither would be left.
//! Invariant: no more of it than one piece lies in memory, and nothing was written.

use super::{Parts, Recovery, RecoveryOp, Stage};
use crate::{
    action::Halt,
    file::DiskRequest,
    storage::{
        look::{self, Look},
        ops::Ops,
        verify::{self, Findings, SnapshotCheck},
    },
    types::Instant,
};
use bytes::Bytes;
use std::collections::VecDeque;

/// The newest snapshot, on its way in.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    check: SnapshotCheck,
    /// What is yet to be read, in order.
    wanted: VecDeque<(u64, u32)>,
    findings: Findings,
    /// What was read. Of a file that somebody took away nothing is.
    piece: Bytes,
}

impl Standing {
    fn of(look: &Look) -> Option<Self> {
        let check = verify::snapshots(look).last()?;
        let wanted = check.pieces().into();
        Some(Self { check, wanted, findings: Findings::default(), piece: Bytes::new() })
    }

    pub(super) fn take(&mut self, piece: Bytes) {
        self.piece = piece;
    }
}

impl Recovery {
    /// Goes on with the verdict, unless that rests on a snapshot that is yet to be read.
    pub(super) fn rest_on_snapshot(
        &mut self,
        now: Instant,
        parts: &mut Parts<'_>,
    ) -> Result<(), Halt> {
        let is_forced = self.is_forced() && self.forced.is_none();
        let has_others = !self.look.is_alone() && !self.is_forced();
        let rests = !has_others && !self.is_look() && self.look.rests_on_snapshot(is_forced);
        match Standing::of(&self.look).filter(|_| rests) {
            Some(standing) => self.read_on(Box::new(standing), parts.ops),
            None => self.decide(Ok(()), now, parts)?,
        }
        Ok(())
    }

    fn read_on(&mut self, mut standing: Box<Standing>, ops: &mut Ops) {
        if let Some((offset, len)) = standing.wanted.pop_front() {
            let file = standing.check.file();
            self.ask(RecoveryOp::Standing, DiskRequest::Read { file, offset, len }, ops);
        }
        self.stage = Stage::Standing(standing);
    }

    /// A piece of it is there.
    pub(super) fn go_on_with_standing(
        &mut self,
        mut standing: Box<Standing>,
        now: Instant,
        parts: &mut Parts<'_>,
    ) -> Result<(), Halt> {
        let piece = std::mem::take(&mut standing.piece);
        standing.check.check(&piece, &mut standing.findings);
        if let Some(bad) = standing.findings.defects.first() {
            let expected = format!(
                "{}, for this snapshot alone stands for what {}; take another survivor or a backup, or copy \
                 the directory, remove this file, and try again with an older state",
                bad.expected,
                self.look.what_is_wrong(),
            );
            let bad = look::refused("rests-on-bad", bad.file, bad.offset, &expected, &bad.found);
            return self.decide(Err(bad), now, parts);
        }
        if standing.wanted.is_empty() {
            return self.decide(Ok(()), now, parts);
        }
        self.read_on(standing, parts.ops);
        Ok(())
    }
}
