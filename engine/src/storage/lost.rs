//! What was acknowledged is gone, and a node that runs comes upon it: neither the entry nor its slot
//! is left, so it is not known what it was.
//!
//! If the newest snapshot holds all that the segment did, the log begins behind that segment, and that is
//! all. Where no other node has it, and the machine does not wait for it, a snapshot is taken that does: also
//! where the newest one says that it does, for nobody has read that through.
//! Else it is as for a restart that finds such a thing, and gives the log up behind a vote gate: the same
//! is written to the hard state, and the node ends; the next start fetches the log again. Invariant:
//! between that update and the end nothing else is written.

use super::{Reader, Storage, damaged, install, promises::Version};
use crate::{
    action::{Action, Halt, Note},
    disk::hard_state::Gate,
    file::File,
    marks::Mark,
};

/// An entry without either witness.
#[derive(Clone, Debug)]
pub(super) struct Lost {
    pub(super) file: File,
    pub(super) offset: u64,
    /// What lay there.
    pub(super) expected: String,
}

/// A log that is being given up.
#[derive(Clone, Debug)]
pub(super) struct GivingUp {
    lost: Lost,
    version: Version,
}

impl Storage {
    /// Somebody reads there. Where nobody else has the entry the node goes on, unless its machine waits for
    /// it: else that holds what the entry did, and a snapshot is taken that stands for it.
    pub(super) fn on_lost_to(&mut self, reader: Reader, lost: Lost) {
        // Two who read there in turn would keep it from going.
        self.reads.drop_wish(reader);
        let last = self.journal.last_of(lost.file);
        let is_held = !self.snapshots.has_peers && reader != Reader::Machine;
        let Some(last) = last.filter(|_| is_held) else { return self.on_lost(lost) };
        self.unstood = self.unstood.max(Some(last));
        self.snapshots.wants_fresh = true;
        let text = format!(
            "{}: {} is bad, and no other node has it; a snapshot is taken that stands for it, and \
             until it is there no start can read this log",
            lost.file, lost.expected
        );
        self.ops.note(Note::Recovery(text.into()));
    }

    pub(super) fn on_lost(&mut self, lost: Lost) {
        if self.giving_up.is_some() || self.fault.is_some() {
            return;
        }
        let Lost { file, offset, expected } = &lost;
        if self.is_covered(&lost) {
            let stands = File::Snapshot(self.snapshots.newest());
            let text = format!(
                "{file} at byte {offset}: {expected} is lost, and the log begins behind that file: \
                 {stands} holds what it did"
            );
            self.ops.note(Note::Recovery(text.into()));
            let last = self.journal.last_of(*file).expect("it is a full segment");
            return self.compaction.begin_behind(last);
        }
        // State that only peers have does not come to a machine of its own.
        if !self.snapshots.has_peers || self.keeps_state {
            self.fault = Some(damaged(*file, *offset, expected.clone()));
            return;
        }
        self.ops.met(Mark::LogGivenUp);
        let text = format!("{file} at byte {offset}: {expected} is lost, the log is given up");
        self.ops.note(Note::Recovery(text.into()));
        let at = self.snapshots.newest();
        let version = self.promises_mut().want(|hard| {
            let until = hard.durable_hint.max(hard.commit_hint);
            install::begin_behind(hard, at);
            // A fault of its own: no answer to what this node has asked before opens the gate.
            hard.write_epoch += 1;
            let nonce = [hard.identity.incarnation, hard.write_epoch];
            hard.gated = !cfg!(lakebed_break = "shut_no_gate_while_running");
            hard.gate = Gate { term: hard.term, from: at.index.next(), until, nonce };
            // What a cut would still clear lies in segments that are nothing now.
            hard.cutting = false;
        });
        self.giving_up = Some(GivingUp { lost, version });
    }

    /// Whether the newest snapshot holds all that the segment did.
    pub(super) fn is_covered(&self, lost: &Lost) -> bool {
        let last = self.journal.last_of(lost.file);
        last.is_some_and(|last| last <= self.snapshots.newest().index)
    }

    /// Whether the log is being given up: then that is all there is to do.
    pub(super) fn give_up(&mut self, out: &mut Vec<Action>) -> bool {
        let Some(GivingUp { lost, version }) = self.giving_up.clone() else { return false };
        self.write_promises();
        self.ops.drain_into(out);
        if self.promises().is_durable(version) {
            let Lost { file, offset, expected } = lost;
            self.fault.get_or_insert(Halt::LogLost { file, offset, expected });
        }
        true
    }
}
