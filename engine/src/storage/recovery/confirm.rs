//! Entries that were taken from their slots and are read before the verdict, one piece after another; nothing of
//! them is kept. Where nobody else has them that is all of them. Else it is the first of each term: what has an
//! older term, and lies there because a write was lost behind a cut, agrees with its slot, and only what the next
//! entry says of the term before it tells.
//!
//! Decides nothing: a segment of which one entry is not what its slot says is read whole, and judged by
//! what is there. Invariant: what is being read is bounded by `BYTES_MAX`, or is one piece.

use super::{Parts, Recovery, RecoveryOp, Stage};
use crate::{
    action::Halt,
    disk::segment::{Layout, Slot},
    event::Completion,
    file::{DiskError, DiskRequest, File},
    storage::{look::Look, scan},
    types::{Instant, Term},
};
use bytes::Bytes;
use std::{collections::VecDeque, ops::Range};

/// The most bytes of entries that are read at one time, unless one is longer: what is checked is to
/// lie in a cache still.
const PIECE_BYTES: u64 = 256 << 10;
/// The most bytes that are being read.
const BYTES_MAX: u64 = 2 << 20;

/// Believed entries, on their way in.
#[derive(Clone, Debug, Default)]
pub(super) struct Confirming {
    /// What is yet to be asked for, in order.
    wanted: VecDeque<Piece>,
    asked: Vec<(u32, Piece)>,
    asked_bytes: u64,
    /// The number of the next one.
    next: u32,
    /// Whether that is all that was believed.
    are_all: bool,
}

/// Entries that follow each other.
#[derive(Clone, Debug)]
struct Piece {
    segment: u32,
    /// Which of the segment's slots.
    slots: Range<usize>,
    offset: u64,
    len: u32,
}

/// These slots' entries, ascending: those whose blocks adjoin are read together, with what lies between.
fn pieces(
    segment: u32,
    slots: &[Slot],
    layout: &Layout,
    numbers: impl Iterator<Item = usize>,
) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for n in numbers {
        let offset = layout.block_before(u64::from(slots[n].offset));
        let end = layout.block_after(slots[n].end());
        match pieces.last_mut() {
            Some(last)
                if offset <= last.offset + u64::from(last.len)
                    && end - last.offset <= PIECE_BYTES =>
            {
                (last.slots.end, last.len) = (n + 1, (end - last.offset) as u32);
            }
            _ => {
                let len = (end - offset) as u32;
                pieces.push(Piece { segment, slots: n..n + 1, offset, len });
            }
        }
    }
    pieces
}

impl Confirming {
    /// `None`: there is nothing to be read.
    fn of(look: &Look, are_all: bool) -> Option<Self> {
        let mut wanted = VecDeque::new();
        for (segment, found) in (0..).zip(&look.segments) {
            let (Some(header), Some(scanned)) = (&found.header, &found.scanned) else { continue };
            let slots = &scanned.slots[..scanned.believed as usize];
            let before = std::iter::once(header.prev_term).chain(slots.iter().map(|s| s.id.term));
            let is_wanted =
                |(n, before): (usize, Term)| (are_all || slots[n].id.term != before).then_some(n);
            let numbers = (0..slots.len()).zip(before).filter_map(is_wanted);
            wanted.extend(pieces(segment, slots, &header.layout, numbers));
        }
        (!wanted.is_empty()).then(|| Self { wanted, are_all, ..Self::default() })
    }

    /// The next read, if it may begin.
    fn next(&mut self, look: &Look) -> Option<(u32, DiskRequest)> {
        let len = self.wanted.front()?.len;
        if !self.asked.is_empty() && self.asked_bytes + u64::from(len) > BYTES_MAX {
            return None;
        }
        let (number, piece) = (self.next, self.wanted.pop_front()?);
        let file = File::Segment(look.segments[piece.segment as usize].sequence);
        let request = DiskRequest::Read { file, offset: piece.offset, len };
        self.next += 1;
        self.asked_bytes += u64::from(len);
        self.asked.push((number, piece));
        Some((number, request))
    }

    fn take(&mut self, number: u32) -> Piece {
        let at = self.asked.iter().position(|(asked, _)| *asked == number);
        let (_, piece) = self.asked.swap_remove(at.expect("it was asked for"));
        self.asked_bytes -= u64::from(piece.len);
        piece
    }

    fn is_over(&self) -> bool {
        self.wanted.is_empty() && self.asked.is_empty()
    }
}

impl Recovery {
    /// Reads what was believed: all of it, if nobody else could give what of it turned out bad later. False:
    /// there is no such thing.
    pub(super) fn confirm(&mut self) -> bool {
        let are_all = self.look.is_alone() || self.is_forced();
        let confirming = Confirming::of(&self.look, are_all);
        let is_due = confirming.is_some();
        confirming.into_iter().for_each(|confirming| self.stage = Stage::Confirm(confirming));
        is_due
    }

    /// What was read of it. A file that somebody took away has nothing.
    pub(super) fn on_confirmed(
        &mut self,
        number: u32,
        file: File,
        result: Result<Completion, DiskError>,
    ) {
        let bytes = match result {
            Ok(Completion::Read(bytes)) => bytes,
            Ok(_) | Err(DiskError::NotFound) => Bytes::new(),
            Err(error) => return self.unread.push((RecoveryOp::Believed(number), file, error)),
        };
        self.report.bytes_done += bytes.len() as u64;
        let Stage::Confirm(confirming) = &mut self.stage else { return };
        let Piece { segment, slots, offset, .. } = confirming.take(number);
        let seed = self.look.seed();
        let found = &mut self.look.segments[segment as usize];
        let (Some(header), Some(scanned)) = (&found.header, &found.scanned) else { return };
        let before = slots.start.checked_sub(1).map(|before| scanned.slots[before].id.term);
        let before = Some(before.unwrap_or(header.prev_term));
        if scan::first_bad(&bytes, offset, &scanned.slots[slots], before, seed).is_some() {
            found.is_doubted = true;
            confirming.wanted.retain(|piece| piece.segment != segment);
        }
    }

    /// Goes on reading it; false: answers are awaited.
    pub(super) fn go_on_confirming(
        &mut self,
        mut confirming: Confirming,
        now: Instant,
        parts: &mut Parts<'_>,
    ) -> Result<bool, Halt> {
        while let Some((number, request)) = confirming.next(&self.look) {
            self.ask(RecoveryOp::Believed(number), request, parts.ops);
        }
        if !confirming.is_over() {
            self.stage = Stage::Confirm(confirming);
            return Ok(false);
        }
        let wanted = self.look.confirmed(confirming.are_all);
        if wanted.is_empty() {
            self.judged(now, parts)?;
        } else {
            self.read_wanted(wanted, parts.ops);
        }
        Ok(true)
    }
}
