//! One file's content: what is durable, and the versions above it that are not.
//!
//! Knows no names. Invariant: `versions` is ordered by submission, and where two overlap the
//! earlier had ended before the later was submitted; so the order is also that of the content.

use super::pages::Pages;
use bytes::Bytes;
use lakebed::Extent;

/// A write that is not wholly durable yet.
#[derive(Clone, Debug)]
pub(super) struct Version {
    /// When it was submitted; unique on its disk.
    pub(super) seq: u64,
    /// When it ended; `None` while it is in flight.
    pub(super) ended: Option<u64>,
    /// A sync that covered it failed: the cache calls it clean, no later sync writes it.
    pub(super) clean: bool,
    /// What of it has not been overwritten durably since.
    pub(super) extents: Vec<Extent>,
}

/// A file's content.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) durable: Pages,
    pub(super) durable_len: u64,
    pub(super) len: u64,
    /// Whether writes may go beyond its length.
    pub(super) grows: bool,
    pub(super) versions: Vec<Version>,
}

impl Inode {
    /// The bytes that a process sees now, shorter at the end of the file.
    pub(super) fn read(&self, offset: u64, len: u32) -> Bytes {
        let len = u64::from(len).min(self.len.saturating_sub(offset)) as usize;
        let mut bytes = vec![0; len];
        self.durable.read(offset, &mut bytes);
        let visible = self.versions.iter().filter(|version| version.ended.is_some());
        for extent in visible.flat_map(|version| &version.extents) {
            overlay(offset, &mut bytes, extent);
        }
        bytes.into()
    }

    /// The write of this number ended well: everybody sees it.
    pub(super) fn end(&mut self, seq: u64, tick: u64) {
        let version = self.versions.iter_mut().find(|version| version.seq == seq);
        let version = version.expect("a write in flight has a version");
        version.ended = Some(tick);
        self.len = self.len.max(end_of(&version.extents));
    }

    /// By how much the write of this number will lengthen the file.
    pub(super) fn growth(&self, seq: u64) -> u64 {
        let version = self.versions.iter().find(|version| version.seq == seq);
        let version = version.expect("a write in flight has a version");
        end_of(&version.extents).saturating_sub(self.len)
    }

    /// The write of this number never reached anything.
    pub(super) fn forget(&mut self, seq: u64) {
        self.versions.retain(|version| version.seq != seq);
    }

    /// Makes those versions durable that `covers` names, in order.
    pub(super) fn persist(&mut self, covers: impl Fn(&Version) -> bool) {
        let mut kept: Vec<Version> = Vec::with_capacity(self.versions.len());
        for version in std::mem::take(&mut self.versions) {
            if !covers(&version) {
                kept.push(version);
                continue;
            }
            for extent in &version.extents {
                self.durable.write(extent.offset, &extent.bytes);
                kept.iter_mut().for_each(|older| older.supersede(extent));
            }
            self.durable_len = self.durable_len.max(end_of(&version.extents));
        }
        kept.retain(|version| !version.extents.is_empty());
        self.versions = kept;
    }

    /// Damages every sector of this range that is not all zeros.
    pub(super) fn rot(&mut self, range: std::ops::Range<u64>, sector: u64) {
        let mut bytes = vec![0; sector as usize];
        for at in (range.start..range.end.min(self.durable_len)).step_by(sector as usize) {
            self.durable.read(at, &mut bytes);
            if bytes.iter().any(|byte| *byte != 0) {
                bytes[sector as usize / 2] ^= 0x10;
                self.durable.write(at, &bytes);
            }
        }
    }

    /// A sync of those versions that `covers` names failed: the cache keeps and shows them, calls
    /// them clean, and no later sync will write them.
    pub(super) fn mark_clean(&mut self, covers: impl Fn(&Version) -> bool) {
        self.versions.iter_mut().filter(|v| covers(v)).for_each(|version| version.clean = true);
    }
}

impl Version {
    /// Takes away what a later durable write replaced: it can never come back.
    fn supersede(&mut self, later: &Extent) {
        let (start, end) = (later.offset, later.offset + later.bytes.len() as u64);
        let cut = |extent: &Extent| -> [Option<Extent>; 2] {
            let last = extent.offset + extent.bytes.len() as u64;
            [
                part(extent, extent.offset, last.min(start)),
                part(extent, extent.offset.max(end), last),
            ]
        };
        self.extents = self.extents.iter().flat_map(cut).flatten().collect();
    }
}

/// The part of an extent between two places of the file; `None` when there is nothing between.
pub(super) fn part(extent: &Extent, from: u64, to: u64) -> Option<Extent> {
    (from < to).then(|| {
        let range = (from - extent.offset) as usize..(to - extent.offset) as usize;
        Extent::new(from, extent.bytes.slice(range))
    })
}

/// Where the last of these extents ends.
pub(super) fn end_of(extents: &[Extent]) -> u64 {
    extents.iter().map(|extent| extent.offset + extent.bytes.len() as u64).max().unwrap_or(0)
}

/// Whether two extents share a byte.
pub(super) fn overlap(a: &Extent, b: &Extent) -> bool {
    a.offset < b.offset + b.bytes.len() as u64 && b.offset < a.offset + a.bytes.len() as u64
}

fn overlay(offset: u64, bytes: &mut [u8], extent: &Extent) {
    let end = offset + bytes.len() as u64;
    let last = extent.offset + extent.bytes.len() as u64;
    if let Some(part) = part(extent, extent.offset.max(offset), last.min(end)) {
        let at = (part.offset - offset) as usize;
        bytes[at..at + part.bytes.len()].copy_from_slice(&part.bytes);
    }
}
