//! What the disk has done, to the part of the storage that asked for it.

use super::{
    Reader, Storage, cut,
    holes::RefillOp,
    ops::{InFlight, Job},
    reader::Bad,
    recovery,
    roll::RollOp,
    saving::Saving,
};
use crate::{
    action::Halt,
    entry::Seed,
    event::Completion,
    file::{DiskError, File},
    marks::Mark,
    types::{Instant, OpId},
};
use bytes::Bytes;

impl Storage {
    pub(crate) fn on_completed(
        &mut self,
        now: Instant,
        op: OpId,
        result: Result<Completion, DiskError>,
    ) {
        let Some(InFlight { job, file, .. }) = self.ops.complete(op) else { return };
        if job == Job::Log && result.is_ok() {
            return self.on_log_written(op);
        }
        self.stray();
        if let Err(error) = self.take(now, op, job, file, result) {
            self.fault.get_or_insert(Halt::DiskFailed { file, error });
        }
    }

    fn on_log_written(&mut self, op: OpId) {
        if self.journal.on_written(op) {
            self.ops.met(Mark::WriteOvertaken);
        }
    }

    /// `Err`: nothing may be built on what failed, and nothing is tried again: the node halts.
    fn take(
        &mut self,
        now: Instant,
        op: OpId,
        job: Job,
        file: File,
        result: Result<Completion, DiskError>,
    ) -> Result<(), DiskError> {
        match job {
            Job::Recovery(recovery::RecoveryOp::Repair) => unless_gone(result)?,
            Job::Recovery(op) => {
                let restart = self.restart.as_mut().expect("a restart was under way");
                restart.on_completed(op, file, result);
            }
            Job::HardState => {
                result?;
                let promises = self.promises.as_mut().expect("its own write ended");
                promises.on_written(&mut self.ops);
            }
            Job::Log => {
                result?;
                self.on_log_written(op);
            }
            Job::Roll(op) => {
                let result = result.map(|_| ());
                if !matches!(op, RollOp::CreateSpare | RollOp::RemoveSpare) {
                    result?;
                }
                let promises = self.promises.as_mut().expect("segments are rolled when running");
                self.journal.on_rolled(op, result, now, promises, &mut self.ops);
            }
            Job::Cut(op) => {
                let completion = match result {
                    Err(DiskError::NotFound) if op == cut::CutOp::Clear => Completion::Done,
                    result => result?,
                };
                self.journal.on_cut(op, completion, &mut self.ops);
                self.journal.lost.take().into_iter().for_each(|lost| self.on_lost(lost));
            }
            Job::Refill(RefillOp::Read) => {
                let Completion::Read(blocks) = result? else { return Ok(()) };
                let identity = self.journal.identity;
                let seed = Seed::new(identity.cluster, identity.group);
                self.journal.holes.on_read(op, &blocks, seed, &mut self.ops);
            }
            Job::Refill(RefillOp::Write) => {
                result?;
                self.journal.holes.on_written(op, &mut self.ops);
                self.journal.on_filled();
            }
            Job::ReadBack(reader) => {
                if !self.reads.is_expected(reader, op) {
                    // Nobody waits for it any more, and its file may be gone.
                    self.ops.met(Mark::StaleReadIgnored);
                    return Ok(());
                }
                let Completion::Read(bytes) = result? else { return Ok(()) };
                let (journal, ops) = (&self.journal, &mut self.ops);
                match self.reads.on_read(reader, op, &bytes, journal, ops) {
                    Some(Bad::Entry(bad)) if reader == Reader::Scrub => {
                        self.on_scrubbed_bad(now, bad);
                    }
                    Some(Bad::Lost(lost)) if reader == Reader::Scrub => {
                        self.on_scrubbed_lost(now, lost);
                    }
                    Some(Bad::Entry(bad)) => self.on_bad_entry(bad),
                    Some(Bad::Slots { sequence, blocks }) => {
                        self.journal.holes.mend_slots(sequence, blocks);
                    }
                    Some(Bad::Lost(lost)) => self.on_lost_to(reader, lost),
                    None => {
                        if let Some(back) = self.reads.take_scrubbed() {
                            self.on_scrubbed(now, &back);
                        }
                    }
                }
            }
            Job::Restore => self.snapshots.on_block(op, result),
            Job::Saving => on_saved(&mut self.snapshots.saving, op, file, result)?,
            Job::Staging => on_saved(&mut self.snapshots.staging, op, file, result)?,
            Job::Serve(_) => {
                // One that cannot be read is of no more use than a bad one. If nobody waits for it any
                // more, nothing comes of it: its file may be gone.
                let block = match result {
                    Ok(Completion::Read(block)) => block,
                    _ => Bytes::new(),
                };
                let bad = self.snapshots.serving.on_read(op, &block, self.config.group);
                bad.into_iter().for_each(|bad| self.on_bad_snapshot(&bad));
            }
            Job::Check => self.on_checked(now, op, result),
            Job::Pinned => self.snapshots.pins.on_read(op, result),
            Job::Install(_) => unless_gone(result)?,
            Job::Compact(_) => {
                unless_gone(result)?;
                self.compaction.on_done();
            }
        }
        Ok(())
    }
}

/// A save that fails is given up, and the next one begun anew. Not so if it is the directory whose sync
/// failed: a later one, for the name of a segment, could call durable what this one lost. Nor if an
/// install has begun: the log has come to its end for it.
fn on_saved(
    saving: &mut Option<Saving>,
    op: OpId,
    file: File,
    result: Result<Completion, DiskError>,
) -> Result<(), DiskError> {
    let saving = saving.as_mut().expect("a snapshot was being written");
    match result {
        Err(error) if file == File::HardState || saving.is_awaited() => Err(error),
        result => {
            saving.on_completed(op, result);
            Ok(())
        }
    }
}

/// Removing what is gone already is no failure.
fn unless_gone(result: Result<Completion, DiskError>) -> Result<(), DiskError> {
    match result {
        Ok(_) | Err(DiskError::NotFound) => Ok(()),
        Err(error) => Err(error),
    }
}
