//! Who reads snapshots while the storage goes on: from outside, where a file was pinned, and a peer that is
//! sent one.

use super::*;
use crate::{
    action::{Outcome, Refusal},
    types::{Piece, RequestId},
};
use std::collections::BTreeMap;

/// Who is sent a snapshot.
const PEER: NodeId = NodeId(2);

#[derive(Default)]
pub(super) struct Readers {
    /// Pinned files, what lay in them then, and when each was pinned or read last.
    pins: Vec<(File, Bytes, Instant)>,
    /// How many were pinned besides, and may be still, when another snapshot took the place of all.
    doubted: usize,
    /// What each read is to bring.
    asked: BTreeMap<u64, Bytes>,
    last: u64,
    /// What the peer has, and of which snapshot; whether a piece is being read for it.
    sent: Vec<u8>,
    of: LogId,
    is_waiting: bool,
}

impl Walk {
    /// Somebody reads of a snapshot, or begins to, or has enough.
    pub(super) fn read_snapshots(&mut self) {
        match self.draw.below(8) {
            0 => self.pin(),
            1 => self.unpin(),
            2..5 => self.read_pinned(),
            5 if self.draw.ratio(1, 8) => self.let_go(),
            6 => self.send(),
            _ => self.lose_pieces(),
        }
    }

    /// One piece is read at a time; the first is asked for again, as there may have been no snapshot.
    fn send(&mut self) {
        let Readers { sent, is_waiting, .. } = &mut self.readers;
        if sent.is_empty() || !*is_waiting {
            *is_waiting = true;
            self.storage.serve(PEER, sent.len() as u64);
        }
    }

    /// What was sent last did not come there.
    fn lose_pieces(&mut self) {
        let Readers { sent, is_waiting, .. } = &mut self.readers;
        if !*is_waiting && self.draw.ratio(1, 4) {
            sent.truncate(self.draw.below(sent.len() as u64 + 1) as usize);
        }
    }

    /// The peer needs no snapshot any more, or not this one.
    fn let_go(&mut self) {
        self.readers.is_waiting = false;
        self.readers.sent.clear();
        self.storage.keep_serving(&[]);
    }

    fn pin(&mut self) {
        match self.storage.pin(self.now) {
            Outcome::Pinned(file, bytes) => {
                let content = self.device.content(file).expect("it is there");
                assert!(content.len() as u64 >= bytes, "{file} is shorter than it was said to be");
                let content = content.slice(..bytes as usize);
                self.readers.pins.push((file, content, self.now));
            }
            Outcome::Refused(Refusal::NoSnapshot | Refusal::Busy) => {}
            other => panic!("{other:?}"),
        }
    }

    fn unpin(&mut self) {
        let count = self.readers.pins.len() as u64;
        if count > 0 {
            let (file, ..) = self.readers.pins[self.draw.below(count) as usize];
            let outcome = self.storage.pins().unpin(file);
            assert!(matches!(outcome, Outcome::Done(at) if File::Snapshot(at) == file));
            // The same one as there goes: each was read at a time of its own.
            let place = self.readers.pins.iter().position(|pin| pin.0 == file);
            self.readers.pins.swap_remove(place.expect("it is pinned"));
        }
    }

    fn read_pinned(&mut self) {
        let count = self.readers.pins.len() as u64;
        if count == 0 {
            return self.pin();
        }
        let (file, content, _) = self.readers.pins[self.draw.below(count) as usize].clone();
        let (all, len) = (content.len(), self.draw.below(60_000));
        let from = self.draw.below(all as u64 + 100);
        let to = all.min((from + len) as usize);
        self.readers.last += 1;
        let wanted = content.slice(to.min(from as usize)..to);
        self.readers.asked.insert(self.readers.last, wanted);
        let id = RequestId(self.readers.last);
        self.storage.read_pinned(id, (file, from, len as u32), self.now);
        let now = self.now;
        self.readers.pins.iter_mut().filter(|pin| pin.0 == file).for_each(|pin| pin.2 = now);
    }

    /// How many snapshots may be there for those who read.
    pub(super) fn reading(&self) -> usize {
        self.readers.pins.len() + self.readers.doubted + 1
    }

    /// After each step: what was read is what was there, and what is pinned is there.
    pub(super) fn watch_readers(&mut self) {
        let (idle, now) = (tuned(self.swarm).tuning.pin_idle, self.now);
        self.readers.pins.retain(|pin| now < pin.2.after(idle));
        if self.storage.restored().is_none() {
            // Another snapshot may have taken the place of all.
            self.readers.doubted += self.readers.pins.len();
            self.readers.pins.clear();
            self.readers.asked.clear();
            self.let_go();
        }
        for (file, content, _) in &self.readers.pins {
            let len = self.device.len(*file);
            assert!(len >= Some(content.len() as u64), "{file} is pinned, and has {len:?} bytes");
        }
        while let Some((id, outcome)) = self.storage.pins().take() {
            let Some(wanted) = self.readers.asked.remove(&id.0) else { continue };
            match outcome {
                Outcome::Read(bytes) => assert!(bytes == wanted, "another file than was pinned"),
                Outcome::Refused(Refusal::Busy) => {}
                Outcome::Refused(Refusal::Disk(_)) if self.has_failed => {}
                other => panic!("a pinned file is not read: {other:?}"),
            }
        }
        while let Some((peer, piece)) = self.storage.take_piece() {
            assert_eq!(peer, PEER);
            self.take_piece(&piece);
        }
    }

    fn take_piece(&mut self, piece: &Piece) {
        let Readers { sent, of, is_waiting, .. } = &mut self.readers;
        let (at, from) = (piece.snapshot.at, piece.offset as usize);
        assert!(self.known.is_committed(at), "{at} is sent, and was never committed");
        assert_eq!(piece.members.is_some(), from == 0, "who is a member");
        let all = state(at);
        assert_eq!(piece.snapshot.bytes, all.len() as u64);
        assert_eq!(piece.snapshot.digest, crc32c::crc32c(&all));
        assert!(all[from..].starts_with(&piece.bytes), "another state than that of {at} is sent");
        *is_waiting = false;
        if from == 0 {
            (*of, *sent) = (at, Vec::new());
        }
        assert_eq!((at, from), (*of, sent.len()), "another piece than was asked for");
        sent.extend_from_slice(&piece.bytes);
        if sent.len() == all.len() {
            self.let_go();
        }
    }

    /// The newest snapshot can be sent, all of it.
    pub(super) fn send_snapshot(&mut self) {
        self.let_go();
        while !self.is_over && self.storage.snapshot() != LogId::ZERO {
            self.send();
            self.settle();
            while self.readers.is_waiting && self.complete() {}
            let is_none = self.is_over || self.storage.snapshot() == LogId::ZERO;
            assert!(is_none || !self.readers.is_waiting, "no piece comes");
            if self.readers.sent.is_empty() {
                return;
            }
        }
    }
}
