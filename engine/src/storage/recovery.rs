//! The restart: look at the disk, stage by stage, judge once, repair, and hand over.
//!
//! A stage asks for all it needs, waits for all answers, and becomes the next. Nothing is written
//! before the verdict, and before the names that were listed are durable; nothing is promised before the
//! hard state was written again to both copies.

mod build;
mod confirm;
mod force;
mod keep;
mod reads;
mod restore;
mod sealed;
mod standing;

use self::{confirm::Confirming, keep::Keeping, sealed::Sealed, standing::Standing};
use super::{
    Recovered,
    journal::Journal,
    leftover::Leftover,
    look::{Look, Seen},
    ops::{Job, Ops},
    promises::{Promises, Version},
    repair::Repair,
    snapshots::{SnapshotFile, Snapshots},
    verdict::{self, Verdict},
    verify::Verification,
};
use crate::{
    action::{Halt, Note},
    config::Config,
    disk::snapshot,
    event::{Completion, Start},
    file::{Class, DiskError, DiskRequest, File},
    marks::Mark,
    report::Forced,
    status::{Phase, Recovery as Report},
    types::{Instant, LogId, LogIndex},
};
use bytes::Bytes;
use std::sync::Arc;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RecoveryOp {
    List,
    /// The names that were listed become durable.
    Names,
    HardBlock {
        copy: u8,
        block: u8,
    },
    SnapshotHead(u32),
    SnapshotFoot(u32),
    /// The header of a snapshot that never became whole.
    PartHead(u32),
    /// The second header and the end record, which adjoin.
    SegmentFoot(u32),
    /// The first header, where the second one is not good.
    SegmentHead(u32),
    /// Part of what a scan needs, and where it begins.
    SegmentPart {
        segment: u32,
        offset: u64,
    },
    /// Entries that were taken from their slots.
    Believed(u32),
    /// Part of the newest snapshot.
    Standing,
    /// A piece of what is verified.
    Piece(u32),
    /// A step of building a node.
    Step,
    /// A step of a repair, which counts its own.
    Repair,
}

/// A restart under way.
#[derive(Clone, Debug)]
pub(crate) struct Recovery {
    config: Config,
    seed: u64,
    start: Start,
    stage: Stage,
    outstanding: u32,
    pub(super) look: Look,
    report: Report,
    phase_began: Option<Instant>,
    failed: Option<(File, DiskError)>,
    has_lost_state: bool,
    /// What a recovery by force rests on is written again as it is read.
    is_keeping: bool,
    /// A recovery by force that is written.
    forced: Option<Box<Forced>>,
    /// Reads of this stage that failed.
    unread: Vec<(RecoveryOp, File, DiskError)>,
    /// A snapshot that could not be read, and is done without.
    unread_snapshots: Vec<(File, DiskError)>,
    /// A block of the hard state that could not be read, and may be the newest: no promise rests on it, but it may
    /// prove more of the log than any other.
    unread_proof: Option<(File, DiskError)>,
}

#[derive(Clone, Debug)]
enum Stage {
    Begin,
    List,
    /// What an earlier restore left is being removed.
    Cleared,
    /// A backup's state is on its way to its file.
    Save,
    Build(u8),
    HardState,
    Snapshots,
    Segments,
    SegmentHeads,
    Images,
    /// What was believed is being read.
    Confirm(Confirming),
    /// What is full is being read.
    Sealed(Sealed),
    /// The newest snapshot is being read.
    Standing(Box<Standing>),
    Verify(Box<Verification>),
    /// What was written again is on its way to the disk, before this node becomes the only voter.
    Keep(Box<Keeping>),
    /// This node becomes the only voter.
    Forced(Version),
    Adopt(Version, Verdict),
    Repair(Box<Repair>),
    Over,
}

/// The parts of storage that a restart fills.
pub(crate) struct Parts<'a> {
    pub(crate) journal: &'a mut Journal,
    pub(crate) promises: &'a mut Option<Promises>,
    pub(crate) snapshots: &'a mut Snapshots,
    pub(crate) ops: &'a mut Ops,
}

impl Recovery {
    pub(crate) fn new(config: Config, seed: u64, start: Start) -> Self {
        Self {
            look: Look::new(&config),
            config,
            seed,
            start,
            stage: Stage::Begin,
            outstanding: 0,
            report: Report::default(),
            phase_began: None,
            failed: None,
            has_lost_state: false,
            is_keeping: false,
            forced: None,
            unread: Vec::new(),
            unread_snapshots: Vec::new(),
            unread_proof: None,
        }
    }

    pub(crate) fn recovered(&self, promises: &Promises) -> Recovered {
        self.look.recovered(promises)
    }

    pub(crate) fn whole_snapshots(&self) -> Vec<SnapshotFile> {
        self.look.whole_snapshots()
    }

    /// A snapshot that could not be read, and may be whole.
    pub(crate) fn unread_snapshots(&self) -> Vec<(File, DiskError)> {
        self.unread_snapshots.clone()
    }

    /// A peer's snapshot that the log goes on from and that the hard state does not name.
    pub(crate) fn joined(&self) -> Option<snapshot::Header> {
        self.look.joined()
    }

    /// What an install that a crash broke off left to go on with.
    pub(crate) fn leftover(&self) -> Option<Leftover> {
        self.look.leftover()
    }

    /// The first and the last entry that were taken from their slots, and are yet to be read.
    pub(crate) fn believed(&self) -> Option<(LogIndex, LogIndex)> {
        self.look.believed()
    }

    /// Whether the log does not go on from any snapshot: a peer must send one.
    pub(crate) const fn has_lost_state(&self) -> bool {
        self.has_lost_state
    }

    /// Where a machine that keeps its own state stands.
    pub(crate) const fn resumes(&self) -> Option<LogId> {
        match self.start {
            Start::Resume { machine } => Some(machine),
            _ => None,
        }
    }

    pub(crate) const fn report(&self) -> &Report {
        &self.report
    }

    fn phase(&mut self, phase: Phase, now: Instant) {
        let began = self.phase_began.replace(now).unwrap_or(now);
        if phase != self.report.phase {
            self.report.enter(phase, now.since(began));
        }
    }

    /// The node may speak; what is left to do is the machine's.
    pub(crate) fn end(&mut self, now: Instant) {
        self.phase(Phase::Restore, now);
    }

    fn ask(&mut self, op: RecoveryOp, request: DiskRequest, ops: &mut Ops) {
        if let DiskRequest::Read { len, .. } = request {
            self.report.bytes_total += u64::from(len);
        }
        self.outstanding += 1;
        ops.submit(Job::Recovery(op), Class::Serve, request);
    }

    pub(crate) fn on_completed(
        &mut self,
        op: RecoveryOp,
        file: File,
        result: Result<Completion, DiskError>,
    ) {
        if op == RecoveryOp::Repair {
            return;
        }
        self.outstanding -= 1;
        match (op, result) {
            (RecoveryOp::List, Ok(Completion::Listed(files))) => self.look.take_files(files),
            (RecoveryOp::Piece(number), result) => {
                let Stage::Verify(verification) = &mut self.stage else { return };
                self.report.bytes_done += verification.take(number, result);
            }
            (RecoveryOp::Believed(number), result) => self.on_confirmed(number, file, result),
            (op, Ok(Completion::Read(bytes))) => {
                self.report.bytes_done += bytes.len() as u64;
                self.take_bytes(op, bytes);
            }
            (RecoveryOp::List | RecoveryOp::Names | RecoveryOp::Step, Err(error)) => {
                self.failed = Some((file, error));
            }
            // Whoever took a file away gets no better answer by another try.
            (_, Err(DiskError::NotFound)) => {}
            (op, Err(error)) => self.unread.push((op, file, error)),
            _ => {}
        }
    }

    fn take_bytes(&mut self, op: RecoveryOp, bytes: Bytes) {
        let look = &mut self.look;
        match op {
            RecoveryOp::HardBlock { copy, block } => look.take_hard(copy, block, &bytes),
            RecoveryOp::SnapshotHead(n) => look.snapshots[n as usize].header = bytes,
            RecoveryOp::SnapshotFoot(n) => look.snapshots[n as usize].footer = bytes,
            RecoveryOp::PartHead(n) => look.parts[n as usize].header = bytes,
            RecoveryOp::SegmentFoot(n) => look.take_foot(n, &bytes),
            RecoveryOp::SegmentHead(n) => look.take_header(n, &bytes),
            RecoveryOp::SegmentPart { segment, offset } => {
                let at = offset as usize;
                let image = &mut look.segments[segment as usize].image;
                image[at..at + bytes.len()].copy_from_slice(&bytes);
            }
            RecoveryOp::Standing => {
                let Stage::Standing(standing) = &mut self.stage else { return };
                standing.take(bytes);
            }
            RecoveryOp::List
            | RecoveryOp::Names
            | RecoveryOp::Believed(_)
            | RecoveryOp::Piece(_)
            | RecoveryOp::Step
            | RecoveryOp::Repair => {}
        }
    }

    /// Goes on as far as answers allow; true when the node may vote and acknowledge.
    pub(crate) fn go_on(&mut self, now: Instant, parts: &mut Parts<'_>) -> Result<bool, Halt> {
        loop {
            if let Some((file, error)) = self.failed.take() {
                return Err(Halt::DiskFailed { file, error });
            }
            let is_steady = matches!(self.stage, Stage::Confirm(_) | Stage::Verify(_));
            if self.outstanding > 0 && !is_steady {
                return Ok(false);
            }
            if let Some((file, error)) = self.unreadable() {
                let failed = Halt::DiskFailed { file, error };
                // Whoever only looks is told what else there is.
                let told = self.is_look().then(|| self.look.unread(file, error, &failed));
                return Err(told.map_or(failed, |found| Halt::Inspected(found.into())));
            }
            match std::mem::replace(&mut self.stage, Stage::Over) {
                Stage::Begin => self.list(now, parts.ops),
                Stage::List => self.read_hard_state(now, parts.ops)?,
                Stage::Cleared => self.save(parts)?,
                Stage::Save => {
                    if !self.go_on_saving(parts)? {
                        self.stage = Stage::Save;
                        return Ok(false);
                    }
                    self.stage = Stage::Build(0);
                }
                Stage::Build(step) => self.build(step, parts.ops)?,
                Stage::HardState => self.read_snapshots(now, parts.ops)?,
                Stage::Snapshots => self.read_segments(now, parts.ops),
                Stage::Segments => self.read_first_headers(parts.ops),
                Stage::SegmentHeads => self.read_images(parts.ops),
                Stage::Images => self.judge(now, parts)?,
                Stage::Confirm(confirming) => {
                    if !self.go_on_confirming(confirming, now, parts)? {
                        return Ok(false);
                    }
                }
                Stage::Sealed(sealed) => self.go_on_with_sealed(sealed, now, parts)?,
                Stage::Standing(standing) => self.go_on_with_standing(standing, now, parts)?,
                Stage::Verify(verification) => {
                    self.verify(verification, parts.ops)?;
                    return Ok(false);
                }
                Stage::Keep(keeping) => self.go_on_keeping(keeping, parts),
                Stage::Forced(version) => {
                    if !self.go_on_forcing(version, parts) {
                        return Ok(false);
                    }
                }
                Stage::Adopt(version, verdict) => {
                    let promises = parts.promises.as_ref().expect("it is being adopted");
                    if !promises.is_durable(version) {
                        self.stage = Stage::Adopt(version, verdict);
                        return Ok(false);
                    }
                    self.repair(verdict, parts);
                }
                Stage::Repair(mut repair) => {
                    if !self.go_on_repairing(&mut repair, parts)? {
                        self.stage = Stage::Repair(repair);
                        return Ok(false);
                    }
                }
                Stage::Over => return Ok(true),
            }
        }
    }

    fn judge(&mut self, now: Instant, parts: &mut Parts<'_>) -> Result<(), Halt> {
        let wanted = self.look.judge_log();
        if !wanted.is_empty() {
            self.read_wanted(wanted, parts.ops);
            return Ok(());
        }
        if self.confirm() { Ok(()) } else { self.judged(now, parts) }
    }

    /// All is judged that any start reads; who is alone, or is to be, may have to read more.
    fn judged(&mut self, now: Instant, parts: &mut Parts<'_>) -> Result<(), Halt> {
        if self.read_sealed(parts.ops) { Ok(()) } else { self.rest_on_snapshot(now, parts) }
    }

    /// `rests`: whether the snapshot is whole that the verdict would rest on. What refuses without it says so first,
    /// as it does to whoever only looks.
    fn decide(
        &mut self,
        rests: Result<(), Halt>,
        now: Instant,
        parts: &mut Parts<'_>,
    ) -> Result<(), Halt> {
        if self.look.believed().is_some() {
            parts.ops.met(Mark::SlotsBelieved);
        }
        self.look.begin_later();
        if self.look.begins_later() {
            parts.ops.met(Mark::LogBegunLater);
        }
        let found = self.look.found(&self.start);
        let (row, verdict) = verdict::verdict(&found);
        let text: Arc<str> = format!("{}: {} ({})", row.name, row.says, self.look).into();
        self.report.verdict = Some(text.clone());
        if self.is_look() {
            let inspection = Box::new(self.look.inspection(&Seen::All, row, verdict));
            if matches!(self.start, Start::Inspect) {
                return Err(Halt::Inspected(inspection));
            }
            self.phase(Phase::Verify, now);
            let verification = Verification::new(&self.look, inspection);
            self.report.bytes_total = verification.bytes_total();
            self.stage = Stage::Verify(Box::new(verification));
            return Ok(());
        }
        // What would be cut as torn may be proven there.
        if let (Some((file, error)), true) = (self.unread_proof, self.look.is_torn()) {
            return Err(Halt::DiskFailed { file, error });
        }
        if self.is_forced() && (self.forced.is_none() || verdict != Verdict::RepeatCut) {
            rests?;
            return self.force((&found, row.name, verdict), now, parts);
        }
        parts.ops.note(Note::Recovery(text));
        if !verdict.starts() {
            return Err(self.look.refusal(row.name));
        }
        rests?;
        match verdict {
            Verdict::Refill { .. } => parts.ops.met(Mark::HolesFound),
            Verdict::Install if self.look.is_log_known() => self.has_lost_state = true,
            // A log that is lost has been the proof of how far a machine of its own was.
            Verdict::Install | Verdict::Gate if self.resumes().is_some() => {
                return Err(self.look.refusal(row.name));
            }
            // Without the state that it goes on from there is no reason to keep a part of the log.
            Verdict::Install | Verdict::Gate => {
                parts.ops.met(Mark::GateSet);
                self.look.refetch_log();
            }
            Verdict::FinishInstall => {
                parts.ops.met(Mark::InstallFinished);
                self.look.finish_install();
            }
            _ => {}
        }
        self.phase(Phase::Repair, now);
        *parts.promises = Some(self.look.promises());
        let promises = parts.promises.as_mut().expect("it was just made");
        self.look.fill(parts.journal);
        parts.journal.epoch = promises.wanted().write_epoch;
        self.stage = Stage::Adopt(promises.version(), verdict);
        Ok(())
    }

    /// Whether nothing may be written: the node is only looked at.
    const fn is_look(&self) -> bool {
        matches!(self.start, Start::Inspect | Start::Verify)
    }

    /// Asks for as much as may be read at one time, checks what has come, and ends with it.
    fn verify(&mut self, mut verification: Box<Verification>, ops: &mut Ops) -> Result<(), Halt> {
        verification.check();
        while let Some((number, request)) = verification.next() {
            self.outstanding += 1;
            ops.submit(Job::Recovery(RecoveryOp::Piece(number)), Class::Serve, request);
        }
        if verification.is_over() {
            return Err(Halt::Inspected(verification.into_inspection()));
        }
        self.stage = Stage::Verify(verification);
        Ok(())
    }

    fn repair(&mut self, verdict: Verdict, parts: &mut Parts<'_>) {
        let promises = parts.promises.as_mut().expect("it was adopted");
        let is_repeat = verdict == Verdict::RepeatCut;
        let repair = Repair::begin(&self.look, is_repeat, parts.journal, promises, parts.ops);
        self.stage = Stage::Repair(Box::new(repair));
    }

    /// Whether the repair is over.
    fn go_on_repairing(
        &mut self,
        repair: &mut Repair,
        parts: &mut Parts<'_>,
    ) -> Result<bool, Halt> {
        let promises = parts.promises.as_mut().expect("it was adopted");
        if !repair.go_on(parts.journal, promises, parts.ops) {
            return Ok(false);
        }
        if repair.is_repeat() {
            // What the cut left is judged like after any other crash.
            self.begin_anew(parts);
        }
        Ok(true)
    }
}
