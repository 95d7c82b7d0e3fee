//! Where a disk can be damaged within the budget, and how: what a node has twice is damaged once, and
//! its restart mends it or does without; what others have as well is damaged on fewer nodes than a
//! quorum, and those who have it whole give it again.
//!
//! Knows where things lie in a segment (docs/disk-format.md), and which files were struck before:
//! each is at most once. Nobody changes members while an entry is bad, nor damages one while members
//! change: who stays could be the one who lacks it, and a leader does not know. Knows no world. Invariant: of an entry that is committed every quorum has a
//! whole copy, as the oracle knows what was durable and this what was damaged since.

use crate::{
    disk::{Geometry, SimDisk},
    node::Scars,
    plan::{Harm, Part},
};
use bytes::Bytes;
use lakebed::{Extent, File, LogId, LogIndex, report::LogFound};
use std::collections::{BTreeMap, BTreeSet};

/// A slot's length.
const SLOT: u64 = 40;
/// How far apart the two copies of a hard state begin (docs/disk-format.md).
const COPY_BYTES: u64 = 1 << 20;

/// A disk, as whoever damages it sees it.
pub(crate) struct Patient<'a> {
    pub(crate) disk: &'a SimDisk,
    pub(crate) scars: &'a Scars,
    pub(crate) geometry: Geometry,
    /// Entries that too few would have whole without this node.
    pub(crate) scarce: &'a BTreeSet<u32>,
    /// Of entries up to here every quorum has one without this node, which has proof of them.
    pub(crate) held: LogIndex,
    /// Its log, if it has one and that counts.
    pub(crate) log: Option<LogFound>,
}

/// An entry that was damaged on a node.
#[derive(Clone, Debug)]
pub(crate) struct Hurt {
    pub(crate) node: usize,
    file: File,
    align: u64,
    slot: Slot,
    was: Bytes,
}

impl Hurt {
    /// Whether it is bad no longer: it was written again as it was, or its segment is gone. What has yet to
    /// be durable is not.
    fn is_healed(&self, disk: &SimDisk) -> bool {
        let Some(content) = disk.content(self.file) else { return true };
        let from = self.slot.from as usize;
        let is_as_it_was = content.get(from..from + self.was.len()) == Some(&self.was[..]);
        (is_as_it_was || self.is_replaced(disk)) && !disk.has_pending_sectors_of(self.file)
    }

    /// Whether another entry has its place: it was none that is committed, though one of its index was.
    fn is_replaced(&self, disk: &SimDisk) -> bool {
        let Slot { index, term, .. } = self.slot;
        slots(disk, self.file, self.align)
            .iter()
            .any(|slot| slot.index == index && slot.term != term)
    }

    /// Whether a process that reads it finds it bad.
    fn shows(&self, disk: &SimDisk) -> bool {
        let shown = disk.shown(self.file, self.slot.from, self.was.len());
        shown.is_some_and(|shown| shown != self.was) && !self.is_replaced(disk)
    }

    /// Whether a power cut would leave it bad.
    fn stays(&self, disk: &SimDisk) -> bool {
        let left = disk.durable(self.file, self.slot.from, self.was.len());
        left.is_some_and(|left| left != self.was)
    }

    /// Whether this would overwrite any of it.
    fn is_under(&self, file: File, extent: &Extent) -> bool {
        let (begin, end) = (extent.offset, extent.offset + extent.whole().len() as u64);
        let from = self.slot.from;
        file == self.file && begin < from + self.was.len() as u64 && from < end
    }
}

/// The entries that were ever damaged, by their index.
#[derive(Clone, Debug, Default)]
pub(crate) struct Harmed(BTreeMap<u32, Vec<Hurt>>);

impl Harmed {
    /// The entries of which a quorum may have none that is whole, once this node has none: `may_lack` says
    /// whether these nodes may do without one.
    pub(crate) fn scarce<'a>(
        &self,
        node: usize,
        disk: impl Fn(usize) -> Option<&'a SimDisk>,
        may_lack: impl Fn(LogIndex, &dyn Fn(usize) -> bool) -> bool,
    ) -> BTreeSet<u32> {
        let is_bad = |hurt: &Hurt| disk(hurt.node).is_some_and(|disk| !hurt.is_healed(disk));
        let is_scarce = |index: u32, hurts: &[Hurt]| {
            let bad: Vec<usize> =
                hurts.iter().filter(|hurt| is_bad(hurt)).map(|hurt| hurt.node).collect();
            !may_lack(LogIndex(u64::from(index)), &|of| of == node || bad.contains(&of))
        };
        let scarce = self.0.iter().filter(|(index, hurts)| is_scarce(**index, hurts));
        scarce.map(|(index, _)| *index).collect()
    }

    /// Whether one is bad still, on any of these disks.
    pub(crate) fn is_open<'a>(&self, disk: impl Fn(usize) -> Option<&'a SimDisk>) -> bool {
        let is_bad = |hurt: &Hurt| disk(hurt.node).is_some_and(|disk| !hurt.is_healed(disk));
        self.0.values().flatten().any(is_bad)
    }

    /// The entries that were ever damaged on a node.
    pub(crate) fn of(&self, node: usize) -> impl Iterator<Item = u32> + '_ {
        let was_hurt = move |hurts: &Vec<Hurt>| hurts.iter().any(|hurt| hurt.node == node);
        self.0.iter().filter(move |(_, hurts)| was_hurt(hurts)).map(|(index, _)| *index)
    }

    /// The first entry of a node's log, which begins with this one, that lies in such files and that it reads as
    /// a bad one.
    pub(crate) fn first_bad(
        &self,
        node: usize,
        disk: &SimDisk,
        first: LogIndex,
        lies: impl Fn(File) -> bool,
    ) -> Option<u32> {
        let begin = u32::try_from(first.0).unwrap_or(u32::MAX);
        let is_bad = |hurt: &Hurt| hurt.node == node && lies(hurt.file) && hurt.shows(disk);
        let mut hurts = self.0.range(begin..);
        hurts.find(|(_, hurts)| hurts.iter().any(is_bad)).map(|(index, _)| *index)
    }

    /// Whether a power cut would leave this entry bad on a node's disk.
    pub(crate) fn would_stay(&self, node: usize, disk: &SimDisk, index: LogIndex) -> bool {
        let hurts = u32::try_from(index.0).ok().and_then(|index| self.0.get(&index));
        let is_bad = |hurt: &Hurt| hurt.node == node && hurt.stays(disk);
        hurts.is_some_and(|hurts| hurts.iter().any(is_bad))
    }

    /// The entry that was damaged on a node's disk, and is bad still, over which this is written.
    pub(crate) fn mended(
        &self,
        node: usize,
        disk: &SimDisk,
        (file, extent): (File, &Extent),
    ) -> Option<LogIndex> {
        let is_it =
            |hurt: &Hurt| hurt.node == node && hurt.is_under(file, extent) && !hurt.is_healed(disk);
        let mended = self.0.iter().find(|(_, hurts)| hurts.iter().any(is_it));
        mended.map(|(index, _)| LogIndex(u64::from(*index)))
    }

    fn add(&mut self, index: u32, hurt: Hurt) {
        self.0.entry(index).or_default().push(hurt);
    }
}

impl Patient<'_> {
    /// One of the places where a part of it may be damaged.
    pub(crate) fn place(&self, part: Part, pick: u64) -> Option<(File, u64)> {
        let places = self.places(part);
        let count = places.len() as u64;
        (count > 0).then(|| places[(pick % count) as usize])
    }

    /// All of the newest snapshot, if the one before it was never struck, and the log leads from that one
    /// as far: not where a peer's snapshot is about to take the place of both.
    fn newest_snapshot(&self) -> Vec<(File, u64)> {
        let leads = |[older, newest]: &[LogId; 2]| {
            let reaches =
                |log: &LogFound| log.first <= older.index.next() && newest.index <= log.last.index;
            self.log.as_ref().is_some_and(reaches)
        };
        let pair = newest_snapshots(self.disk, self.scars).filter(leads);
        let all = |[_, newest]: [LogId; 2]| used(self.disk, File::Snapshot(newest), 0..u64::MAX);
        pair.map_or_else(Vec::new, all)
    }

    fn places(&self, part: Part) -> Vec<(File, u64)> {
        let (disk, scars) = (self.disk, self.scars);
        let is_whole = |file: &File| !scars.files.contains(file);
        let [align, sector] = [self.geometry.align, self.geometry.sector].map(u64::from);
        let segments = disk.list().filter(|(file, _)| matches!(file, File::Segment(_)));
        match part {
            Part::Snapshot => self.newest_snapshot(),
            Part::Header => segments
                .filter(|(file, _)| is_whole(file))
                .flat_map(|(file, len)| headers(disk, file, len, align))
                .collect(),
            Part::EndRecord => segments
                .filter(|(file, len)| is_whole(file) && *len >= 2 * align)
                .flat_map(|(file, len)| used(disk, file, len - align..len))
                .collect(),
            Part::Entries => {
                let most = self.held.0 as u32;
                let may_go = |slot: &Slot| slot.index <= most && !self.scarce.contains(&slot.index);
                let of = segments.filter(|(file, _)| is_whole(file)).flat_map(|(file, _)| {
                    let slots = slots(disk, file, align);
                    let sectors = disk.used_sectors(file).into_iter();
                    let lies = move |at: &u64| {
                        let here = slots.iter().filter(|slot| slot.reaches(*at, sector));
                        let mut here = here.peekable();
                        here.peek().is_some() && here.all(may_go)
                    };
                    sectors.filter(lies).map(move |at| (file, at)).collect::<Vec<_>>()
                });
                of.collect()
            }
            Part::Slots => {
                let table = |len: u64| align..align + (len / 16 / align).max(1) * align;
                segments
                    .filter(|(file, _)| is_whole(file))
                    .flat_map(|(file, len)| used(disk, file, table(len)))
                    .collect()
            }
        }
    }
}

/// Damages a part of a node's disk there.
pub(crate) fn harm(
    (node, disk): (usize, &mut SimDisk),
    harmed: &mut Harmed,
    geometry: Geometry,
    part: Part,
    (file, at): (File, u64),
    harm: Harm,
) {
    match part {
        Part::Entries => harm_entries((node, disk), harmed, geometry, (file, at), harm),
        _ => harm_sector(disk, file, at, harm),
    }
}

/// Damages the entries of a sector.
fn harm_entries(
    (node, disk): (usize, &mut SimDisk),
    harmed: &mut Harmed,
    geometry: Geometry,
    (file, at): (File, u64),
    harm: Harm,
) {
    let [align, sector] = [geometry.align, geometry.sector].map(u64::from);
    let content = disk.content(file).unwrap_or_default();
    let slots = slots(disk, file, align);
    let struck = slots.iter().filter(|slot| slot.reaches(at, sector));
    for slot in struck.clone().copied() {
        let end = content.len().min(slot.to as usize);
        let was = content.slice(end.min(slot.from as usize)..end);
        harmed.add(slot.index, Hurt { node, file, align, slot, was });
    }
    match harm {
        // What lies between entries is nobody's.
        Harm::Rot => {
            for slot in struck {
                disk.flip(file, slot.from.max(at) * 8 + 3);
            }
        }
        _ => harm_sector(disk, file, at, harm),
    }
}

/// Where an entry lies, as its slot says.
#[derive(Clone, Copy, Debug)]
struct Slot {
    index: u32,
    term: u64,
    from: u64,
    to: u64,
    /// Where it lies itself.
    lies: u64,
}

impl Slot {
    /// Whether the sector that begins there holds a part of it.
    const fn reaches(&self, at: u64, sector: u64) -> bool {
        self.from < at + sector && at < self.to
    }
}

/// The slots of a segment, those that nothing was written to left out. One that was cut away may
/// be among them: what it points to is then another entry's, or nothing.
fn slots(disk: &SimDisk, file: File, align: u64) -> Vec<Slot> {
    let content = disk.content(file).unwrap_or_default();
    let table_end = align + (content.len() as u64 / 16 / align).max(1) * align;
    let blocks = (align..table_end).step_by(align as usize);
    let places = blocks.flat_map(|block| (0..align / SLOT).map(move |n| block + n * SLOT));
    let slot = |at: u64| {
        let bytes = content.get(at as usize..(at + SLOT) as usize)?;
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
        let (index, from, bytes) = (word(0), u64::from(word(4)), u64::from(word(16)));
        let term = u64::from(word(8)) | u64::from(word(12)) << 32;
        (bytes > 0).then_some(Slot { index, term, from, to: from + bytes, lies: at })
    };
    places.filter_map(slot).collect()
}

/// The sectors that the entries of a full segment lie in. What is behind them may be those of a segment that
/// it was made of, and nobody's.
pub(crate) fn entry_sectors(disk: &SimDisk, file: File, geometry: Geometry) -> Vec<u64> {
    let align = u64::from(geometry.align);
    let content = disk.content(file).unwrap_or_default();
    // Where the last one ends is in the record that ends the segment.
    let told = (content.len() as u64).saturating_sub(align) as usize + 56;
    let end =
        content.get(told..told + 8).map(|word| u64::from_le_bytes(word.try_into().expect("eight")));
    let first = slots(disk, file, align).first().map(|slot| slot.from);
    let (Some(from), Some(to)) = (first, end) else { return Vec::new() };
    used(disk, file, from..to).into_iter().map(|(_, at)| at).collect()
}

/// An entry of a full segment and its slot: where in either a bit may go bad, so that nothing is left that
/// tells what there was.
pub(crate) fn witnesses(
    disk: &SimDisk,
    file: File,
    geometry: Geometry,
    pick: u64,
) -> Option<[u64; 2]> {
    let slots = slots(disk, file, u64::from(geometry.align));
    let slot = slots.get((pick % slots.len().max(1) as u64) as usize)?;
    Some([slot.lies, slot.from])
}

/// The sectors of a range of a file that hold anything.
fn used(disk: &SimDisk, file: File, range: std::ops::Range<u64>) -> Vec<(File, u64)> {
    let sectors = disk.used_sectors(file).into_iter().filter(|at| range.contains(at));
    sectors.map(|at| (file, at)).collect()
}

/// Both headers, as long as they are alike: then either can go.
fn headers(disk: &SimDisk, file: File, len: u64, align: u64) -> Vec<(File, u64)> {
    let content = disk.content(file).unwrap_or_default();
    let block = |at: u64| content.get(at as usize..(at + align) as usize);
    let at = [0, len.saturating_sub(2 * align)];
    let is_used = block(0).is_some_and(|bytes| bytes.iter().any(|byte| *byte != 0));
    let are_alike = at[1] > 0 && is_used && block(at[0]) == block(at[1]);
    if are_alike { at.map(|at| (file, at)).into() } else { Vec::new() }
}

/// How far two snapshots hold the log: one of them may go.
pub(crate) fn held_twice(disk: &SimDisk, scars: &Scars) -> LogIndex {
    newest_snapshots(disk, scars).map_or(LogIndex(0), |[older, _]| older.index)
}

/// The newest two, if they were never struck.
fn newest_snapshots(disk: &SimDisk, scars: &Scars) -> Option<[LogId; 2]> {
    let at = |file| match file {
        File::Snapshot(at) => Some(at),
        _ => None,
    };
    let mut snapshots: Vec<LogId> = disk.list().filter_map(|(file, _)| at(file)).collect();
    snapshots.sort_by_key(|at| at.index);
    let pair = *snapshots.last_chunk::<2>()?;
    pair.iter().all(|at| !scars.files.contains(&File::Snapshot(*at))).then_some(pair)
}

/// Damages one sector.
pub(crate) fn harm_sector(disk: &mut SimDisk, file: File, at: u64, harm: Harm) {
    match harm {
        Harm::Rot => disk.rot(file, at..at + 1),
        Harm::Zero => disk.zero(file, at),
        Harm::RotAll => disk.rot(file, 0..u64::MAX),
        Harm::Gone => disk.lose(file),
    }
}

/// One of the two copies of a hard state rots, all of it.
pub(crate) fn rot_hard_state(disk: &mut SimDisk, copy: u8) {
    let range = [0..COPY_BYTES, COPY_BYTES..u64::MAX][usize::from(copy)].clone();
    disk.rot(File::HardState, range);
}
