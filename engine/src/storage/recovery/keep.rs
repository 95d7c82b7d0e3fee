//! Before a node becomes the only voter: what it then rests on is written again, and synced.
//!
//! What reads good may lie in a cache alone: the end of the log, whose sync failed before the process was killed.
//! A member that loses it to a power cut has it given once more; nobody gives it to this one. So when it is known
//! what a recovery by force would do, all is read again, and behind the newest snapshot each segment is written as it
//! was read, the whole ones while the next is read.
//!
//! Decides nothing: what reads otherwise by then is judged as it is. Invariant: all of it is durable before the
//! update of the hard state begins, so that whoever finds that need not ask what it rests on.

use super::{Parts, Recovery, RecoveryOp, Stage};
use crate::{
    disk::segment::Header,
    file::{DiskRequest, Extent, File},
    report::Forced,
    storage::{cut::push_chunks, found::SegmentFound, look::Look, ops::Ops, promises::Promises},
    types::LogIndex,
};
use bytes::{Bytes, BytesMut};

/// The update that waits for it.
#[derive(Clone, Debug)]
pub(super) struct Keeping {
    promises: Promises,
    forced: Forced,
    /// What is yet to be synced.
    files: Vec<File>,
}

impl Recovery {
    /// The disk was judged, and nothing speaks against it. The first time all is read once more.
    pub(super) fn keep(&mut self, promises: Promises, forced: Forced, parts: &mut Parts<'_>) {
        let believes = cfg!(lakebed_break = "force_what_is_cached");
        if !self.is_keeping && !believes {
            self.is_keeping = true;
            return self.begin_anew(parts);
        }
        let mut files = Vec::new();
        for n in self.look.rested_on(forced.last.index).into_iter().filter(|_| !believes) {
            let (file, extents) = self.look.as_read(n);
            self.write_again(file, extents, parts.ops);
            files.push(file);
        }
        self.stage = Stage::Keep(Box::new(Keeping { promises, forced, files }));
    }

    /// It was written: it is synced, and then the hard state says so.
    pub(super) fn go_on_keeping(&mut self, mut keeping: Box<Keeping>, parts: &mut Parts<'_>) {
        if keeping.files.is_empty() {
            let Keeping { promises, forced, .. } = *keeping;
            self.forced = Some(Box::new(forced));
            self.stage = Stage::Forced(promises.version());
            *parts.promises = Some(promises);
            return;
        }
        for file in std::mem::take(&mut keeping.files) {
            self.ask(RecoveryOp::Step, DiskRequest::Sync { file }, parts.ops);
        }
        self.stage = Stage::Keep(keeping);
    }

    /// A full segment, as far as it was read.
    pub(super) fn write_back(&mut self, segment: u32, image: BytesMut, ops: &mut Ops) {
        let found = &self.look.segments[segment as usize];
        let [read, _] = found.first_wanted(false);
        let (file, mut extents) = (File::Segment(found.sequence), Vec::new());
        let bytes = image.freeze().slice(read.start as usize..read.end as usize);
        push_chunks(&mut extents, read.start, bytes);
        self.write_again(file, extents, ops);
    }

    fn write_again(&mut self, file: File, extents: Vec<Extent>, ops: &mut Ops) {
        for at in extents {
            let request = DiskRequest::Write { file, at, and: None, durable: false };
            self.ask(RecoveryOp::Step, request, ops);
        }
    }
}

impl Look {
    /// Each segment that holds what no snapshot does, and is to be kept.
    fn rested_on(&self, last: LogIndex) -> Vec<u32> {
        let snapshot = self.snapshot().index;
        let rests = |found: &SegmentFound| {
            let scanned = found.scanned.as_ref().and_then(|scanned| scanned.slots.last());
            let end =
                found.end.as_ref().map(|end| end.last).or_else(|| scanned.map(|slot| slot.id));
            let first = found.header.as_ref().map(|header| header.first);
            end.is_some_and(|end| end.index > snapshot) && first.is_some_and(|first| first <= last)
        };
        let rested = (0..).zip(&self.segments).filter(|(_, found)| rests(found));
        rested.map(|(n, _)| n).collect()
    }

    /// What is yet to be written of it: nothing if it is full and good, for then it was. Whole blocks as they are, also
    /// where behind the entries that are kept lies what is to be given up: before the hard state says so a crash must
    /// leave a node that has it.
    fn as_read(&self, segment: u32) -> (File, Vec<Extent>) {
        let found = &self.segments[segment as usize];
        let (file, mut extents) = (File::Segment(found.sequence), Vec::new());
        if let (Some(Header { layout, .. }), Some(scanned)) = (&found.header, &found.scanned)
            && let (Some(first), Some(last)) = (scanned.slots.first(), scanned.slots.last())
        {
            let slots = layout.slot_block(0)
                ..layout.slot_block(scanned.slots.len() as u32 - 1) + layout.align;
            let entries = layout.block_before(first.offset.into())..layout.block_after(last.end());
            for blocks in [slots, entries] {
                let bytes = &found.image[blocks.start as usize..blocks.end as usize];
                push_chunks(&mut extents, blocks.start, Bytes::copy_from_slice(bytes));
            }
        }
        (file, extents)
    }
}
