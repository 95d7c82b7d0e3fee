//! What comes from peers and goes to them: pieces of snapshots, lost entries, and the end of a vote
//! gate.
//!
//! The part of the treaty that only a node with peers needs.

use super::{Reader, Receiving, Storage, damaged, reader::BadEntry};
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
        if self.giving_up.is_some() {
            // That of another fault is being shut.
            return;
        }
        self.promises_mut().want(|hard| {
            hard.gated = false;
            hard.gate = Gate::default();
        });
    }

    /// The first entry of which only the slot is left, and for which nothing was given yet.
    pub(crate) fn hole(&self) -> Option<LogId> {
        self.journal.holes.first_wanted(self.snapshots.newest().index)
    }

    /// Whether a copy of that one would not be taken yet.
    pub(crate) fn is_crowded(&self) -> bool {
        self.hole().is_some_and(|hole| self.journal.holes.is_crowded(hole.index))
    }

    /// Peers can be given each entry from here on. One that is bad below the newest snapshot is nobody's
    /// to wait for: who lacks it is sent the snapshot.
    pub(crate) fn gives_from(&self) -> LogIndex {
        let covered = self.journal.holes.last_through(self.snapshots.newest().index);
        covered.map_or_else(|| self.first(), LogIndex::next)
    }

    /// The first such entry behind which nothing is durable before it is there again.
    pub(crate) fn first_owed(&self) -> Option<LogIndex> {
        self.journal.holes.first_owed()
    }

    /// A peer's copy of an entry of this log.
    pub(crate) fn refill(&mut self, head: &Head, frame: &Bytes) {
        self.stray();
        if !self.installing.is_under_way()
            && self.journal.holes.give(head.id, head.digest, frame)
            && let Some(active) = &mut self.journal.active
        {
            // The last entry may be the one of which nobody knew it.
            active.last_time = active.last_time.max(head.time);
        }
    }

    /// An entry that was acknowledged was read back bad. Its slot is good: a peer has it, or a snapshot
    /// is to stand for it.
    pub(super) fn on_bad_entry(&mut self, bad: BadEntry) {
        let BadEntry { slot, sequence, layout } = bad;
        self.ops.met(Mark::HoleFoundLate);
        self.journal.holes.add(slot, sequence, layout, false);
        let then = if self.snapshots.has_peers {
            "a peer must give it again".into()
        } else if slot.id.index <= self.snapshots.newest().index {
            format!("{} stands for it", File::Snapshot(self.snapshots.newest()))
        } else {
            "no other node has it, and a snapshot is taken in its place".into()
        };
        let text = format!("{}: entry {} is bad, {then}", File::Segment(sequence), slot.id);
        self.ops.note(Note::Recovery(text.into()));
        self.snapshots.stand_for(self.journal.holes.last());
    }

    /// The machine waits for an entry that is bad, and nobody is left who could give it: not even one
    /// who has no vote.
    pub(super) fn halt_if_machine_lacks(&mut self) {
        let wanted = self.reads.wanted(Reader::Machine).filter(|_| !self.has_others);
        let Some((slot, sequence)) = wanted.and_then(|from| self.journal.holes.at(from)) else {
            return;
        };
        let (file, what) = (File::Segment(sequence), format!("entry {}", slot.id));
        self.fault.get_or_insert_with(|| damaged(file, u64::from(slot.offset), what));
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
        self.installing.begin_join(&mut self.snapshots, &mut self.ops);
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
