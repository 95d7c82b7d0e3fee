//! Pieces of own snapshots for peers: a block of the file at a time, verified before it leaves.
//!
//! Invariant: a snapshot that a peer is being sent keeps its file.

use super::{
    ops::{Job, Ops},
    scrub::BadSnapshot,
    snapshots::SnapshotFile,
};
use crate::{
    disk::snapshot::{BLOCK_HEAD_BYTES, decode_block},
    file::{Class, DiskRequest},
    types::{GroupId, LogId, NodeId, OpId, Piece, SnapshotName, Timestamp},
};
use bytes::Bytes;
use std::collections::VecDeque;

#[derive(Clone, Debug, Default)]
pub(crate) struct Serving {
    transfers: Vec<Transfer>,
    pieces: VecDeque<(NodeId, Piece)>,
}

#[derive(Clone, Debug)]
struct Transfer {
    peer: NodeId,
    snapshot: SnapshotFile,
    reading: Option<Reading>,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    op: OpId,
    /// Where in the payload the wanted piece begins.
    from: u64,
}

impl Transfer {
    const fn payload_max(&self) -> u64 {
        self.snapshot.header.block_bytes as u64 - BLOCK_HEAD_BYTES as u64
    }

    fn piece(&self, block: &Bytes, from: u64, group: GroupId) -> Option<Piece> {
        let SnapshotFile { header, footer } = &self.snapshot;
        let (number, skip) = (from / self.payload_max(), (from % self.payload_max()) as usize);
        let payload = decode_block(block, number, group, header.id).ok()?;
        let bytes = block.slice_ref(payload.get(skip..)?);
        let SnapshotFile { header, .. } = &self.snapshot;
        let snapshot = SnapshotName {
            at: header.at,
            id: header.id,
            bytes: footer.payload_bytes,
            digest: footer.digest,
        };
        let members = (from == 0).then(|| header.membership.clone());
        Some(Piece { snapshot, offset: from, time: Timestamp(0), members, bytes })
    }
}

impl Serving {
    /// Whether nobody is being sent a snapshot.
    pub(super) fn is_idle(&self) -> bool {
        self.transfers.is_empty() && self.pieces.is_empty()
    }

    /// Reads the piece that begins at `from`, of the newest snapshot or of the one this peer is
    /// being sent.
    pub(crate) fn serve(
        &mut self,
        peer: NodeId,
        from: u64,
        newest: Option<&SnapshotFile>,
        align: u32,
        ops: &mut Ops,
    ) {
        let place = self.transfers.iter().position(|transfer| transfer.peer == peer);
        let (place, from) = match (place, newest) {
            (Some(place), _) => (place, from),
            (None, Some(newest)) => {
                let snapshot = newest.clone();
                self.transfers.push(Transfer { peer, snapshot, reading: None });
                // Whatever was wanted of another one, which has turned out bad: this one begins.
                (self.transfers.len() - 1, 0)
            }
            (None, None) => return,
        };
        let transfer = &mut self.transfers[place];
        if transfer.reading.is_some_and(|reading| reading.from == from) {
            // A disk that takes longer than a heartbeat is not asked anew at each of them.
            return;
        }
        let number = from / transfer.payload_max();
        let request = DiskRequest::Read {
            file: transfer.snapshot.file(),
            offset: transfer.snapshot.block_offset(number, align),
            len: transfer.snapshot.block_len(number, align),
        };
        let op = ops.submit(Job::Serve(peer), Class::Serve, request);
        transfer.reading = Some(Reading { op, from });
    }

    /// These peers are being sent one, and nobody else.
    pub(crate) fn keep(&mut self, peers: &[NodeId]) {
        self.transfers.retain(|transfer| peers.contains(&transfer.peer));
    }

    /// A snapshot is bad: those who were being sent it are sent another one, from its beginning.
    pub(super) fn forget(
        &mut self,
        at: LogId,
        newest: Option<&SnapshotFile>,
        align: u32,
        ops: &mut Ops,
    ) {
        let of = |transfer: &mut Transfer| transfer.snapshot.header.at == at;
        let left: Vec<Transfer> = self.transfers.extract_if(.., of).collect();
        for Transfer { peer, .. } in left.iter().filter(|transfer| transfer.reading.is_some()) {
            self.serve(*peer, 0, newest, align, ops);
        }
    }

    /// Whether a peer is being sent this one.
    pub(super) fn uses(&self, at: LogId) -> bool {
        self.transfers.iter().any(|transfer| transfer.snapshot.header.at == at)
    }

    /// What was read goes to its peer, if one waits for it; or is bad.
    pub(super) fn on_read(
        &mut self,
        op: OpId,
        block: &Bytes,
        group: GroupId,
    ) -> Option<BadSnapshot> {
        let waits = |t: &&mut Transfer| t.reading.is_some_and(|reading| reading.op == op);
        let transfer = self.transfers.iter_mut().find(waits)?;
        let Reading { from, .. } = transfer.reading?;
        let Some(piece) = transfer.piece(block, from, group) else {
            // It stays as one who waits, for another one's.
            let (header, number) = (&transfer.snapshot.header, from / transfer.payload_max());
            let what = format!("block {number} is bad");
            return Some(BadSnapshot { at: header.at, id: header.id, what });
        };
        transfer.reading = None;
        self.pieces.push_back((transfer.peer, piece));
        None
    }

    pub(crate) fn take(&mut self) -> Option<(NodeId, Piece)> {
        self.pieces.pop_front()
    }
}
