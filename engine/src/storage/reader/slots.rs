//! Where the entries of a full segment lie: its slots, read back or made anew.
//!
//! Knows neither who wants entries nor how many.

use crate::{
    disk::{
        FileSeed,
        segment::{Layout, Slot},
    },
    entry::Seed,
    file::{Extent, File},
    storage::{
        cut::push_chunks,
        journal::Journal,
        lost::Lost,
        repair::slot_image,
        scan::{Damage, Full, Scanned, Tail},
        terms::Terms,
    },
    types::{GroupId, LogIndex, Term},
};

/// A segment, and what of it may be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) sequence: u64,
    pub(super) layout: Layout,
    pub(super) first: LogIndex,
    /// The term of the entry before `first`.
    pub(super) prev_term: Term,
    /// The last that may be read.
    pub(super) last: LogIndex,
    /// The last there is.
    pub(super) end: LogIndex,
}

/// Slots of a full segment, kept while a reader goes through it.
#[derive(Clone, Debug)]
pub(super) struct Slots {
    pub(super) sequence: u64,
    pub(super) first: LogIndex,
    pub(super) slots: Vec<Slot>,
}

impl Slots {
    pub(super) fn reaches(&self, index: LogIndex) -> bool {
        index.0 < self.first.0 + self.slots.len() as u64
    }

    /// Those of this segment from this entry on, if it is among them.
    pub(super) fn from(&self, sequence: u64, index: LogIndex) -> Option<&[Slot]> {
        let n = index.0.checked_sub(self.first.0)? as usize;
        let slots = self.slots.get(n..).filter(|slots| !slots.is_empty())?;
        (self.sequence == sequence).then_some(slots)
    }
}

/// The slots from `first` on, up to one that is bad or tells of an entry that this log does not have: it was
/// cut away, and what took its place was not written.
pub(super) fn decode_slots(
    bytes: &[u8],
    place: &Place,
    first: LogIndex,
    group: GroupId,
    terms: &Terms,
) -> Slots {
    let seed = FileSeed::new(group, place.sequence);
    let from = (first.0 - place.first.0) as u32;
    let base = place.layout.slot_block(from);
    let slot = |n: u32| {
        let at = (place.layout.slot_offset(n) - base) as usize;
        let slot = Slot::decode(bytes.get(at..)?, seed, LogIndex(place.first.0 + u64::from(n)))?;
        let is_believed = cfg!(lakebed_break = "believe_slots_of_any_term");
        (is_believed || terms.hold(slot.id)).then_some(slot)
    };
    let count = (place.last.0 + 1 - place.first.0) as u32;
    let slots = (from..count).map_while(slot).collect();
    Slots { sequence: place.sequence, first, slots }
}

/// The slots of a full segment, those that are bad made anew from their entries, and the blocks to
/// write for that. `Err` says what else is bad: an entry without either witness.
pub(super) fn made_anew(
    image: &[u8],
    place: &Place,
    seed: Seed,
    journal: &Journal,
) -> Result<(Slots, Vec<Extent>), Lost> {
    let (group, epoch) = (journal.identity.group, journal.epoch);
    let Place { sequence, layout, first, prev_term, end, .. } = *place;
    let full = Full { sequence, layout, first, prev_term, last: end, terms: Some(&journal.terms) };
    let Scanned { slots, first_rebuilt, tail, .. } = full.scan(image, seed, group, epoch);
    if let Tail::Unknown(Damage { offset, expected, .. }) = tail {
        return Err(Lost { file: File::Segment(sequence), offset, expected });
    }
    let mut blocks = Vec::new();
    if let Some(first) = first_rebuilt {
        let first = place.layout.slot_block_first(first);
        let seed = FileSeed::new(group, place.sequence);
        let bytes = slot_image(&slots, first, &place.layout, seed);
        push_chunks(&mut blocks, place.layout.slot_block(first), bytes);
    }
    Ok((Slots { sequence: place.sequence, first: place.first, slots }, blocks))
}
