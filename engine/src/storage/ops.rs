//! The disk operations in flight: what each one is for, and what is yet to be handed out.

use super::{
    Reader, compact::CompactOp, cut::CutOp, holes::RefillOp, install::InstallOp,
    recovery::RecoveryOp, roll::RollOp,
};
use crate::{
    action::{Action, Machine},
    file::{Class, DiskRequest, File},
    marks::{Mark, Marks},
    types::{NodeId, OpId},
};

/// Whom a completion concerns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Job {
    Recovery(RecoveryOp),
    HardState,
    /// A write of entries, of slots, or of both.
    Log,
    Roll(RollOp),
    Cut(CutOp),
    Refill(RefillOp),
    ReadBack(Reader),
    /// The save of an own snapshot.
    Saving,
    /// The save of a snapshot that a peer sends.
    Staging,
    Restore,
    /// A piece for a peer.
    Serve(NodeId),
    /// A piece of a snapshot that is read to see whether it is good.
    Check,
    /// A piece for a reader from outside.
    Pinned,
    Install(InstallOp),
    Compact(CompactOp),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Ops {
    last: u64,
    in_flight: Vec<InFlight>,
    outbox: Vec<Action>,
    pub(crate) marks: Marks,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct InFlight {
    pub(crate) op: OpId,
    pub(crate) job: Job,
    /// The file that a failure is to name.
    pub(crate) file: File,
}

impl Ops {
    pub(crate) fn submit(&mut self, job: Job, class: Class, request: DiskRequest) -> OpId {
        self.last += 1;
        let op = OpId(self.last);
        self.in_flight.push(InFlight { op, job, file: file_of(&request) });
        self.outbox.push(Action::Disk { op, class, request });
        op
    }

    pub(crate) fn machine(&mut self, step: Machine) {
        self.outbox.push(Action::Machine(step));
    }

    pub(crate) fn note(&mut self, note: crate::action::Note) {
        self.outbox.push(Action::Note(note));
    }

    /// Notes that a rare situation was met.
    pub(crate) const fn met(&mut self, mark: Mark) {
        self.marks.set(mark);
    }

    /// The end of an operation; `None` for one that is not ours.
    pub(crate) fn complete(&mut self, op: OpId) -> Option<InFlight> {
        let place = self.in_flight.iter().position(|in_flight| in_flight.op == op)?;
        Some(self.in_flight.swap_remove(place))
    }

    pub(crate) fn drain_into(&mut self, out: &mut Vec<Action>) {
        if !self.outbox.is_empty() {
            out.append(&mut self.outbox);
        }
    }

    /// Whether anything is on its way that is about this file.
    pub(crate) fn is_about(&self, file: File) -> bool {
        self.in_flight.iter().any(|in_flight| in_flight.file == file)
    }

    pub(crate) fn any(&self, wanted: impl Fn(Job) -> bool) -> bool {
        self.in_flight.iter().any(|in_flight| wanted(in_flight.job))
    }
}

#[cfg(test)]
impl Ops {
    pub(super) fn of(&self, op: OpId) -> Option<InFlight> {
        self.in_flight.iter().find(|in_flight| in_flight.op == op).copied()
    }
}

/// The directory has no name of its own: its failures are told of the hard state, which is in it and
/// never written by any other job than its own.
const fn file_of(request: &DiskRequest) -> File {
    match request {
        DiskRequest::List | DiskRequest::SyncDirectory => File::HardState,
        DiskRequest::Create { file, .. }
        | DiskRequest::Read { file, .. }
        | DiskRequest::Write { file, .. }
        | DiskRequest::Sync { file }
        | DiskRequest::Remove { file } => *file,
        DiskRequest::Rename { from, .. } => *from,
    }
}
