//! What comes from peers and goes to them: pieces of snapshots, lost entries, and the end of a vote
//! gate.
//!
//! The part of the treaty that only a node with peers needs.

use super::{Receiving, Storage, damaged, reader::BadEntry};
use crate::{
    action::Note,
    disk::hard_state::Gate,
    entry::Head,
    file::File,
    marks::Mark,
    types::{LogId, LogIndex, NodeId, Piece},
};
use bytes::Bytes;

impl Storage {
    /// What was lost is there again.
    pub(crate) fn open_gate(&mut self) {
        self.promises_mut().want(|hard| {
            hard.gated = false;
            hard.gate = Gate::default();
        });
    }

    /// The first entry of which only the slot is left, and for which nothing was given yet.
    pub(crate) fn hole(&self) -> Option<LogId> {
        self.journal.holes.first_wanted(self.snapshots.newest().index)
    }

    /// The first such entry behind which nothing is durable before it is there again.
    pub(crate) fn first_owed(&self) -> Option<LogIndex> {
        self.journal.holes.first_owed()
    }

    /// A peer's copy of an entry of this log.
    pub(crate) fn refill(&mut self, head: &Head, frame: Bytes) {
        self.stray();
        if !self.installing.is_under_way() {
            self.journal.holes.give(head.id, head.digest, frame);
        }
    }

    /// An entry that was acknowledged was read back bad. Its slot is good: a peer has it.
    pub(super) fn on_bad_entry(&mut self, bad: BadEntry) {
        let BadEntry { slot, sequence, layout } = bad;
        let file = File::Segment(sequence);
        if !self.snapshots.has_peers {
            let (at, what) = (u64::from(slot.offset), format!("entry {}", slot.id));
            self.fault.get_or_insert_with(|| damaged(file, at, what));
            return;
        }
        self.ops.met(Mark::HoleFoundLate);
        let text = format!("{file}: entry {} is bad, a peer must give it again", slot.id);
        self.ops.note(Note::Recovery(text.into()));
        self.journal.holes.add(slot, sequence, layout, false);
    }

    /// Reads a piece of a snapshot for a peer: of the newest, or of the one it is being sent.
    pub(crate) fn serve(&mut self, peer: NodeId, from: u64) {
        self.stray();
        let snapshots = &mut self.snapshots;
        let (newest, align) = (snapshots.whole.last(), self.config.disk_align);
        snapshots.serving.serve(peer, from, newest, align, &mut self.ops);
    }

    /// Only these peers are being sent snapshots.
    pub(crate) fn keep_serving(&mut self, peers: &[NodeId]) {
        self.stray();
        self.snapshots.serving.keep(peers);
    }

    /// A piece that was read.
    pub(crate) fn take_piece(&mut self) -> Option<(NodeId, Piece)> {
        self.snapshots.serving.take()
    }

    /// A piece of a peer's snapshot, to be kept beside everything else.
    pub(crate) fn stage(&mut self, piece: &Piece) {
        self.stray();
        if !self.installing.is_under_way() {
            self.snapshots.stage(piece, &mut self.ops);
        }
    }

    /// What a peer sends, and how far it is.
    pub(crate) fn receiving(&self) -> Option<Receiving> {
        self.snapshots.receiving()
    }

    /// What a peer sends is not needed any more.
    pub(crate) fn discard_staged(&mut self) {
        self.stray();
        if !self.installing.is_under_way() {
            self.snapshots.discard_staged(&mut self.ops);
        }
    }

    /// What a peer sent, all of it, takes the place of the log.
    pub(crate) fn install(&mut self, at: LogId) {
        self.stray();
        let (journal, snapshots) = (&mut self.journal, &mut self.snapshots);
        self.installing.begin(at, journal, snapshots, &mut self.reads, &mut self.ops);
    }

    /// What a peer sent takes the place of a snapshot that was lost; the log goes on from it.
    pub(crate) fn join(&mut self, at: LogId) {
        self.stray();
        let staged = self.snapshots.staged().map(|snapshot| snapshot.at);
        assert_eq!(staged, Some(at), "it was staged whole");
        self.installing.begin_join();
    }

    /// Whether a peer must send a snapshot, whatever the log holds.
    pub(crate) const fn is_state_lost(&self) -> bool {
        self.snapshots.is_lost
    }

    /// The last install of this life.
    pub(crate) const fn installed(&self) -> Option<LogId> {
        self.installing.done
    }
}
