//! Backups that are taken while faults strike: of each the newest snapshot of a node is pinned, read piece by
//! piece, and given back, as whoever makes a file of it would.
//!
//! A file that is read for long outlives what takes its place, what is found bad, what is installed over it. What
//! comes of it is whole, and is the state that some machine had when it was captured at that entry. Knows no
//! reference: what a machine has when it is captured is judged by its answers. Invariant: a backup ends with its
//! node, if not before.

use super::{Coming, World};
use crate::{
    client::{Fate, Workload},
    oracle::{Checked, Violation},
    witness::{digest, state_digest},
};
use lakebed::{
    BackupReader, Control, DiskError, File, LogId, Outcome, Refusal, RequestId, StateMachine,
};

/// How much is read at one time: no multiple of anything.
const PIECE_BYTES: u32 = 3_067;

/// A backup on its way.
#[derive(Clone, Debug)]
pub(super) struct Taking {
    node: usize,
    life: u32,
    /// Before each look whether there is an answer.
    pause: u64,
    order: RequestId,
    step: Step,
}

#[derive(Clone, Debug)]
enum Step {
    Pin,
    Read(Box<Read>),
    Unpin,
}

#[derive(Clone, Debug)]
struct Read {
    file: File,
    bytes: u64,
    offset: u64,
    reader: BackupReader,
    state: Vec<u8>,
}

impl<M: StateMachine, W: Workload> World<M, W> {
    /// Whoever takes backups begins with this node's newest snapshot.
    pub(super) fn begin_backup(&mut self, node: usize, pause: u64) -> Checked {
        if !self.nodes[node].is_up() {
            return Ok(());
        }
        self.struck("back-up");
        let (life, order) = (self.nodes[node].life, self.order(node, Control::PinSnapshot)?);
        self.look_again(Taking { node, life, pause, order, step: Step::Pin });
        Ok(())
    }

    fn look_again(&mut self, taking: Taking) {
        let at = self.now + taking.pause.max(1);
        self.schedule(at, Coming::BackUp(Box::new(taking)));
    }

    /// There may be an answer.
    pub(super) fn go_on_backing_up(&mut self, taking: Taking) -> Checked {
        if !self.lives(taking.node, taking.life) {
            return Ok(());
        }
        let Some(outcome) = self.outcomes.remove(&taking.order) else {
            if self.fate(taking.order) == Fate::Open {
                self.look_again(taking);
            }
            return Ok(());
        };
        match (taking.step.clone(), outcome) {
            (Step::Pin, Outcome::Pinned(file, bytes)) => {
                let reader = BackupReader::new(bytes);
                let read = Read { file, bytes, offset: 0, reader, state: Vec::new() };
                self.read_on(taking, read)
            }
            (Step::Read(mut read), Outcome::Read(piece)) => {
                read.offset += piece.len() as u64;
                let state = &mut read.state;
                let taken = read.reader.take(&piece, |bytes| state.extend_from_slice(&bytes));
                let fault = match taken {
                    Err(fault) => Some(fault.to_string()),
                    Ok(()) => piece.is_empty().then(|| format!("ends at byte {}", read.offset)),
                };
                match fault {
                    None => self.read_on(taking, *read),
                    Some(fault) => {
                        self.is_bad(&taking, read.file, &fault)?;
                        self.give_back(taking, read.file)
                    }
                }
            }
            (Step::Read(read), Outcome::Refused(why)) => {
                if why == Refusal::Disk(DiskError::NotFound) {
                    self.is_bad(&taking, read.file, "is gone while it is pinned")?;
                }
                self.give_back(taking, read.file)
            }
            _ => Ok(()),
        }
    }

    fn read_on(&mut self, mut taking: Taking, read: Read) -> Checked {
        if read.offset >= read.bytes {
            self.check_taken(&taking, &read)?;
            return self.give_back(taking, read.file);
        }
        let (file, offset) = (read.file, read.offset);
        let control = Control::ReadPinned { file, offset, len: PIECE_BYTES };
        taking.order = self.order(taking.node, control)?;
        taking.step = Step::Read(Box::new(read));
        self.look_again(taking);
        Ok(())
    }

    fn give_back(&mut self, mut taking: Taking, file: File) -> Checked {
        if !self.lives(taking.node, taking.life) {
            return Ok(());
        }
        taking.order = self.order(taking.node, Control::Unpin { file })?;
        taking.step = Step::Unpin;
        self.look_again(taking);
        Ok(())
    }

    /// All of it came.
    fn check_taken(&self, taking: &Taking, read: &Read) -> Checked {
        let backup = match read.reader.clone().finish() {
            Ok(backup) => backup,
            Err(fault) => return self.is_bad(taking, read.file, &fault.to_string()),
        };
        match self.captures.get(&backup.at) {
            Some(state) if *state != digest(&read.state) => {
                let what = format!("holds another state than machines had at {}", backup.at);
                self.is_bad(taking, read.file, &what)
            }
            _ => Ok(()),
        }
    }

    /// Nodes hand out what their disks hold, and whoever makes a backup of it finds what is bad.
    fn is_bad(&self, taking: &Taking, file: File, what: &str) -> Checked {
        let scars = &self.nodes[taking.node].scars;
        if scars.is_ruined || scars.was_struck(file) {
            return Ok(());
        }
        Err(Violation::new("a backup is whole", taking.node, format!("{file} {what}")))
    }

    /// A machine is captured: that is what a backup at this entry holds, whoever it is taken from, and what any
    /// other machine has there.
    pub(super) fn note_capture(&mut self, node: usize, at: LogId) -> Checked {
        if !self.plan.takes_backups() || self.nodes[node].scars.is_ruined {
            return Ok(());
        }
        let state = state_digest(&self.nodes[node].runner.machine.machine);
        match self.captures.insert(at, state) {
            Some(before) if before != state => {
                let what =
                    format!("is captured at {at} with another state than before, or elsewhere");
                Err(Violation::new("state machine safety", node, what))
            }
            _ => Ok(()),
        }
    }
}
