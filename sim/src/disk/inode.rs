//! One file's content: what is durable, and what was written above it and is not.
//!
//! Knows no names. Invariant: `pieces` is ordered by submission, and where two overlap the earlier
//! had ended before the later was submitted; so the order is also that of the content.

use super::{Failure, pages::Pages};
use bytes::{Bytes, BytesMut};
use lakebed::Extent;

/// A part of a write that is not durable yet.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    /// When the write was submitted; unique on its disk.
    pub(super) seq: u64,
    /// When it ended; `None` while it is in flight.
    pub(super) ended: Option<u64>,
    /// A sync that covered it failed: the cache calls it clean, no later sync writes it.
    pub(super) clean: bool,
    /// What of it has not been overwritten durably since.
    pub(super) extent: Extent,
}

impl Piece {
    /// Whether it is in flight and shares a byte with this.
    pub(super) fn meets(&self, extent: &Extent) -> bool {
        self.ended.is_none() && overlap(&self.extent, extent)
    }
}

/// A file's content.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) durable: Pages,
    pub(super) durable_len: u64,
    pub(super) len: u64,
    /// Whether writes may go beyond its length.
    pub(super) grows: bool,
    pub(super) pieces: Vec<Piece>,
    /// How the next sync or durable write fails, for one before it that did and was not told of.
    pub(super) late: Option<Failure>,
}

impl Inode {
    /// The bytes that a process sees now, shorter at the end of the file.
    pub(super) fn read(&self, offset: u64, len: u32) -> Bytes {
        let len = u64::from(len).min(self.len.saturating_sub(offset)) as usize;
        let durable = self.durable.read(offset, len);
        let is_above = |piece: &&Piece| {
            let Extent { offset: at, .. } = piece.extent;
            piece.ended.is_some() && at < offset + len as u64 && offset < end_of(&piece.extent)
        };
        let mut above = self.pieces.iter().filter(is_above).peekable();
        if above.peek().is_none() {
            return durable;
        }
        let mut bytes = BytesMut::from(durable);
        above.for_each(|piece| overlay(offset, &mut bytes, &piece.extent));
        bytes.freeze()
    }

    /// The same for whoever reads while writes are on their way: of each sector of theirs what was there
    /// before, or what will be.
    pub(super) fn read_amid(&self, offset: u64, len: u32, sector: u64) -> Bytes {
        let bytes = self.read(offset, len);
        let read = Extent::new(offset, bytes);
        let mut racing = self.pieces.iter().filter(|piece| piece.meets(&read)).peekable();
        if racing.peek().is_none() {
            return read.bytes;
        }
        let mut bytes = BytesMut::from(&read.bytes[..]);
        for Piece { seq, extent, .. } in racing {
            let mut at = extent.offset;
            while at < end_of(extent) {
                let next = (at / sector + 1) * sector;
                let landed = part(extent, at, next.min(end_of(extent)));
                let landed = landed.filter(|_| has_landed(*seq, at / sector));
                landed.iter().for_each(|landed| overlay(offset, &mut bytes, landed));
                at = next;
            }
        }
        bytes.freeze()
    }

    /// A write begins.
    pub(super) fn start(&mut self, seq: u64, extents: impl IntoIterator<Item = Extent>) {
        let piece = |extent| Piece { seq, ended: None, clean: false, extent };
        self.pieces.extend(extents.into_iter().map(piece));
    }

    /// The pieces of this write.
    pub(super) fn pieces_of(&mut self, seq: u64) -> impl Iterator<Item = &mut Piece> {
        self.pieces.iter_mut().filter(move |piece| piece.seq == seq)
    }

    /// The write of this number ended well: everybody sees it.
    pub(super) fn end(&mut self, seq: u64, tick: u64) {
        let mut len = self.len;
        for piece in self.pieces_of(seq) {
            piece.ended = Some(tick);
            len = len.max(end_of(&piece.extent));
        }
        self.len = len;
    }

    /// By how much the write of this number will lengthen the file.
    pub(super) fn growth(&mut self, seq: u64) -> u64 {
        let end = self.pieces_of(seq).map(|piece| end_of(&piece.extent)).max();
        end.unwrap_or(0).saturating_sub(self.len)
    }

    /// The write of this number never reached anything.
    pub(super) fn forget(&mut self, seq: u64) {
        self.pieces.retain(|piece| piece.seq != seq);
    }

    /// Makes those pieces durable that `covers` names, in order. Of older pieces that they lie
    /// over nothing stays: it can never come back.
    pub(super) fn persist(&mut self, covers: impl Fn(&Piece) -> bool) {
        let mut at = 0;
        while at < self.pieces.len() {
            if !covers(&self.pieces[at]) {
                at += 1;
                continue;
            }
            let Piece { extent, .. } = self.pieces.remove(at);
            self.durable.write(extent.offset, &extent.bytes);
            self.durable_len = self.durable_len.max(end_of(&extent));
            at = self.supersede(at, &extent);
        }
    }

    /// So does a sync with the length: of a file whose creation ended with its process too. What is
    /// written behind the durable end, and not durable yet, keeps the length from it.
    pub(super) fn persist_len(&mut self) {
        let is_within = |piece: &Piece| end_of(&piece.extent) <= self.durable_len;
        if self.pieces.iter().all(is_within) {
            self.durable_len = self.len;
        }
    }

    /// Takes out of the pieces before `end` what a durable write replaced; where those end now.
    fn supersede(&mut self, end: usize, later: &Extent) -> usize {
        let mut left = end;
        for at in (0..end).rev() {
            if !overlap(&self.pieces[at].extent, later) {
                continue;
            }
            let piece = self.pieces.remove(at);
            let [before, behind] = around(&piece.extent, later);
            left -= 1;
            for extent in [behind, before].into_iter().flatten() {
                self.pieces.insert(at, Piece { extent, ..piece.clone() });
                left += 1;
            }
        }
        left
    }

    /// Damages every durable sector of this range that is not all zeros.
    pub(super) fn rot(&mut self, range: std::ops::Range<u64>, sector: u32) {
        let end = range.end.min(self.durable_len);
        self.durable.for_each_written(sector as usize, |at, bytes| {
            if (range.start..end).contains(&at) {
                bytes[sector as usize / 2] ^= 0x10;
            }
        });
    }

    /// A sync of those pieces that `covers` names failed: the cache keeps and shows them, calls
    /// them clean, and no later sync will write them.
    pub(super) fn mark_clean(&mut self, covers: impl Fn(&Piece) -> bool) {
        self.pieces.iter_mut().filter(|p| covers(p)).for_each(|piece| piece.clean = true);
    }
}

/// What of an extent lies before another one, and what behind it.
fn around(extent: &Extent, other: &Extent) -> [Option<Extent>; 2] {
    let (start, end) = (extent.offset, end_of(extent));
    [part(extent, start, end.min(other.offset)), part(extent, start.max(end_of(other)), end)]
}

/// The part of an extent between two places of the file; `None` when there is nothing between.
pub(super) fn part(extent: &Extent, from: u64, to: u64) -> Option<Extent> {
    (from < to).then(|| {
        let range = (from - extent.offset) as usize..(to - extent.offset) as usize;
        Extent::new(from, extent.bytes.slice(range))
    })
}

/// Where an extent ends.
pub(super) const fn end_of(extent: &Extent) -> u64 {
    extent.offset + extent.bytes.len() as u64
}

/// Whether two extents share a byte.
pub(super) const fn overlap(a: &Extent, b: &Extent) -> bool {
    a.offset < end_of(b) && b.offset < end_of(a)
}

/// Whether a sector of a write in flight is there already: always the same of one write and sector.
const fn has_landed(seq: u64, sector: u64) -> bool {
    let mut mixed = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ sector;
    let mut round = 0;
    while round < 2 {
        mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        round += 1;
    }
    mixed >> 63 == 1
}

fn overlay(offset: u64, bytes: &mut [u8], extent: &Extent) {
    let (from, to) = (extent.offset.max(offset), end_of(extent).min(offset + bytes.len() as u64));
    if from < to {
        let part = &extent.bytes[(from - extent.offset) as usize..(to - extent.offset) as usize];
        bytes[(from - offset) as usize..(to - offset) as usize].copy_from_slice(part);
    }
}
