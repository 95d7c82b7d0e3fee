//! What consensus and storage pass to each other: what the disk has reached, and what is to be stored or
//! read.
//!
//! Knows neither's rules. Invariant: the storage learns of the log's changes before consensus learns what is
//! durable, and of what is promised before what rests on it.

use super::Engine;
use crate::{
    raft::{Change, Facts, Raft},
    storage::Storage,
};

impl Engine {
    /// The storage learns of the log first: else it could call durable what was cut just now.
    #[inline]
    pub(super) fn observe(&mut self) {
        self.hand_over();
        let (storage, Some(raft)) = (&mut self.storage, &mut self.raft) else { return };
        if storage.is_plain() {
            return raft.observe_log(storage.durable(), storage.is_saturated());
        }
        let is_installed = raft.observe(facts(storage));
        if is_installed {
            raft.adopt_members(storage.members_installed());
        }
        if raft.is_forming() {
            raft.on_recorded(storage.recorded());
        }
        while let Some((reader, back)) = storage.take_read() {
            raft.on_read_back(reader, back);
        }
        while let Some((peer, piece)) = storage.take_piece() {
            raft.on_piece_read(peer, piece);
        }
    }

    /// What consensus wants stored or read goes to the storage.
    #[inline]
    pub(super) fn hand_over(&mut self) {
        if self.raft.as_ref().is_some_and(Raft::wants) {
            self.hand_over_wishes();
        }
    }

    #[inline(never)]
    fn hand_over_wishes(&mut self) {
        let (storage, Some(raft)) = (&mut self.storage, &mut self.raft) else { return };
        let wants_more = raft.wants_more();
        if wants_more {
            hand_over_promises(raft, storage);
        }
        for change in raft.changes().drain(..) {
            match change {
                Change::Truncate(last) => storage.truncate(last),
                Change::Append { head, chunk, at } => storage.append(head, chunk, at),
                Change::Install(at) => storage.install(at),
                Change::Join(at) => storage.join(at),
                Change::Refill { head, frame } => storage.refill(&head, &frame),
            }
        }
        if wants_more {
            hand_over_pieces(raft, storage);
        }
        for wish in raft.wishes().drain(..) {
            storage.read(wish.reader, wish.from, wish.to, wish.bytes_max);
        }
    }
}

/// What the hard state is to say, before anything that rests on it.
fn hand_over_promises(raft: &mut Raft, storage: &mut Storage) {
    if let Some(epoch) = raft.take_epoch() {
        storage.set_cluster_epoch(epoch);
    }
    if let Some((term, vote)) = raft.take_promise() {
        storage.promise(term, vote);
    }
    if raft.take_formed() {
        storage.set_formed();
    }
    if let Some((newest, previous)) = raft.take_membership() {
        storage.set_membership(newest, previous);
    }
}

/// Pieces of snapshots, from a peer and for peers; and what is not needed any more.
fn hand_over_pieces(raft: &mut Raft, storage: &mut Storage) {
    for piece in raft.pieces().drain(..) {
        storage.stage(&piece);
    }
    for (peer, from) in raft.pieces_wanted().drain(..) {
        storage.serve(peer, from);
    }
    if raft.take_gate_opened() {
        storage.open_gate();
    }
    if raft.take_discard() {
        storage.discard_staged();
    }
}

/// What the disk has reached.
pub(super) fn facts(storage: &Storage) -> Facts {
    Facts {
        durable: storage.durable(),
        promised: storage.promised(),
        write_epoch: storage.write_epoch(),
        snapshot: storage.covered().index,
        newest: storage.snapshot().index,
        first: storage.first(),
        gives_from: storage.gives_from(),
        restored: storage.restored(),
        saturated: storage.is_saturated(),
        full: storage.is_full(),
        sought_room: storage.sought_room(),
        seeks_room: storage.seeks_room(),
        receiving: storage.receiving(),
        is_state_lost: storage.is_state_lost(),
        installed: storage.installed(),
        hole: storage.hole(),
        is_crowded: storage.is_crowded(),
        owes_entries: storage.first_owed().is_some(),
    }
}
