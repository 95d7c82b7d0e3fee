//! What a verdict orders before the node may speak: free what is dead, cut what is torn, write
//! again what is not certainly durable.
//!
//! A restarted node rewrites every entry and slot above *proven*, same bytes, same place: a sync
//! alone does nothing for pages that a failed sync marked clean. Only then they are durable.

use super::{
    cut::{Clearing, clear_slots, push_chunks, scrub},
    found::{SegmentFound, last_nonzero},
    journal::Journal,
    look::Look,
    ops::{Job, Ops},
    promises::{Promises, Version},
    recovery::RecoveryOp,
    scan::Scanned,
};
use crate::{
    disk::{
        FileSeed,
        segment::{Layout, SLOT_BYTES, Slot},
    },
    file::{Class, DiskRequest, Extent, File},
    marks::Mark,
    types::{GroupId, LogIndex},
};
use bytes::{Bytes, BytesMut};

#[derive(Clone, Debug)]
pub(crate) struct Repair {
    is_repeat: bool,
    step: Step,
    /// The segment that is written again, and what of it.
    rewrite: Option<(File, Vec<Extent>)>,
}

#[derive(Clone, Debug)]
enum Step {
    /// Dead files are being removed.
    Free,
    Cut,
    Rewrite,
    Sync,
    Durable,
    Hint(Version),
    Over,
}

impl Repair {
    pub(crate) fn begin(
        look: &Look,
        is_repeat: bool,
        journal: &mut Journal,
        promises: &mut Promises,
        ops: &mut Ops,
    ) -> Self {
        let last = look.segments.last().and_then(|found| Some((found, found.scanned.as_ref()?)));
        let from = promises.wanted().cut.from;
        if is_repeat {
            let clearing = last.map(|(found, scanned)| clearing(found, scanned, journal, true));
            ops.met(Mark::CutRepeated);
            journal.repeat_cut(from, clearing.unwrap_or_default(), ops);
        } else if let Some((found, scanned)) = last
            && let clearing = clearing(found, scanned, journal, false)
            && !clearing.extents.is_empty()
        {
            let from = journal.last.index.next();
            ops.met(Mark::TornTailCut);
            journal.cut_at_restart(from, look.proven(), clearing, promises);
        }
        let group = journal.identity.group;
        let is_left = is_repeat || cfg!(lakebed_break = "believe_the_recovered_tail");
        let rewrite = look.segments.last().filter(|_| !is_left).map(|found| {
            let extents = match &found.scanned {
                Some(scanned) => {
                    if scanned.first_rebuilt.is_some() {
                        ops.met(Mark::SlotRebuilt);
                    }
                    rewriting(found, scanned, look.proven(), group)
                }
                None => {
                    ops.met(Mark::EndRecordRewritten);
                    end_record(found, group)
                }
            };
            (File::Segment(found.sequence), extents)
        });
        for &file in &look.doomed {
            match file {
                File::Segment(_) => ops.met(Mark::UnannouncedSegmentRemoved),
                File::Part(..) => ops.met(Mark::PartialSnapshotRemoved),
                File::Snapshot(_) => ops.met(Mark::UselessSnapshotRemoved),
                File::Spare(_) | File::HardState => {}
            }
            submit(DiskRequest::Remove { file }, ops);
        }
        if !look.doomed.is_empty() {
            submit(DiskRequest::SyncDirectory, ops);
        }
        // Whoever made it may have ended before its length was durable. Else this takes no time.
        for spare in &look.spares {
            ops.met(Mark::SpareKept);
            submit(DiskRequest::Sync { file: File::Spare(spare.number) }, ops);
        }
        Self { is_repeat, step: Step::Free, rewrite }
    }

    pub(crate) const fn is_repeat(&self) -> bool {
        self.is_repeat
    }

    /// Goes on; true when all is done.
    pub(crate) fn go_on(
        &mut self,
        journal: &mut Journal,
        promises: &mut Promises,
        ops: &mut Ops,
    ) -> bool {
        loop {
            if ops.any(|job| matches!(job, Job::Recovery(_))) {
                return false;
            }
            match self.step {
                Step::Free => self.step = Step::Cut,
                Step::Cut => {
                    journal.go_on_cutting(promises, ops);
                    if journal.cut.is_some() {
                        return false;
                    }
                    self.step = Step::Rewrite;
                }
                Step::Rewrite => self.rewrite(ops),
                Step::Sync => {
                    self.step = Step::Durable;
                    if let Some((file, _)) = self.rewrite.take_if(|(_, what)| !what.is_empty()) {
                        submit(DiskRequest::Sync { file }, ops);
                    }
                }
                Step::Durable => {
                    let last = journal.last.index;
                    journal.on_rewritten();
                    self.step = Step::Hint(promises.version());
                    if promises.wanted().durable_hint < last && !self.is_repeat {
                        self.step = Step::Hint(promises.want(|hard| hard.durable_hint = last));
                    }
                }
                Step::Hint(version) if !promises.is_durable(version) => return false,
                Step::Hint(_) => self.step = Step::Over,
                Step::Over => return true,
            }
        }
    }

    fn rewrite(&mut self, ops: &mut Ops) {
        self.step = Step::Sync;
        let Some((file, extents)) = &self.rewrite else { return };
        for at in extents {
            ops.met(Mark::TailRewritten);
            let (file, at) = (*file, at.clone());
            submit(DiskRequest::Write { file, at, and: None, durable: false }, ops);
        }
    }
}

fn submit(request: DiskRequest, ops: &mut Ops) {
    ops.submit(Job::Recovery(RecoveryOp::Repair), Class::Commit, request);
}

/// What must be zero behind the last entry and is not. All of the segment if the cut was marked
/// before the crash: it may have taken away more than was in flight, and what reads as zeros may be
/// so in a cache alone, which a failed sync left clean.
fn clearing(
    found: &SegmentFound,
    scanned: &Scanned,
    journal: &Journal,
    is_repeat: bool,
) -> Clearing {
    let active = journal.active.as_ref().expect("the last segment was scanned");
    let layout = &active.layout;
    let mut extents = Vec::new();
    let slots_to = if is_repeat { layout.slot_count } else { scanned.slots_to };
    clear_slots(&mut extents, active, slots_to, journal.identity.group);
    let end = active.end();
    let block = &found.image[layout.block_before(end) as usize..];
    if is_repeat {
        scrub(&mut extents, layout, end, layout.data_end(), block);
    } else if let Some(last) =
        last_nonzero(&found.image[end as usize..found.window_end(scanned) as usize])
    {
        scrub(&mut extents, layout, end, layout.block_after(end + last as u64 + 1), block);
    }
    let end_record = &found.image[layout.end_offset() as usize..];
    if is_repeat || last_nonzero(end_record).is_some() {
        let bytes = BytesMut::zeroed(layout.align as usize).freeze();
        extents.push(Extent::new(layout.end_offset(), bytes));
    }
    Clearing { extents, doomed: Vec::new() }
}

/// Entries and slots above *proven*, and rebuilt slots, as they lie in whole blocks.
pub(super) fn rewriting(
    found: &SegmentFound,
    scanned: &Scanned,
    proven: LogIndex,
    group: GroupId,
) -> Vec<Extent> {
    let mut extents = Vec::new();
    let header = found.header.as_ref().expect("a scanned segment has a header");
    let layout = &header.layout;
    let unproven = scanned.slots.iter().position(|slot| slot.id.index > proven);
    if let Some(n) = unproven {
        let start = layout.block_before(u64::from(scanned.slots[n].offset));
        let end = found.end_of_entries(scanned);
        let mut image = BytesMut::from(&found.image[start as usize..end as usize]);
        image.resize((layout.block_after(end) - start) as usize, 0);
        push_chunks(&mut extents, start, image.freeze());
    }
    let first = scanned.first_rebuilt.into_iter().chain(unproven.map(|n| n as u32)).min();
    if let Some(first) = first {
        let first = layout.slot_block_first(first);
        let bytes = slot_image(&scanned.slots, first, layout, FileSeed::new(group, found.sequence));
        push_chunks(&mut extents, layout.slot_block(first), bytes);
    }
    extents
}

/// The end of a log whose last segment is full: what no later segment proves may lie in the cache
/// alone, after a write of it that failed.
fn end_record(found: &SegmentFound, group: GroupId) -> Vec<Extent> {
    let (Some(header), Some(end)) = (&found.header, &found.end) else { return Vec::new() };
    let layout = &header.layout;
    let bytes = end.encode(group, found.sequence, layout.align);
    vec![Extent::new(layout.end_offset(), bytes.into())]
}

/// The blocks of slots from the one that begins with this slot on.
pub(super) fn slot_image(slots: &[Slot], first: u32, layout: &Layout, seed: FileSeed) -> Bytes {
    let start = layout.slot_block(first);
    let end = layout.slot_block(slots.len() as u32 - 1) + layout.align;
    let mut image = BytesMut::zeroed((end - start) as usize);
    for (n, slot) in slots.iter().enumerate().skip(first as usize) {
        let at = (layout.slot_offset(n as u32) - start) as usize;
        image[at..at + SLOT_BYTES].copy_from_slice(&slot.encode(seed));
    }
    image.freeze()
}
