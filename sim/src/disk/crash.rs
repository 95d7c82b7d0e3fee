//! What is left of a disk when its machine or its process dies.
//!
//! The unit of survival is a sector of a write: everything that was not durable is cut into such
//! units, in the order of submission, and a preset says which of them came through. Presets beside
//! chance, because the interesting outcomes (all but the first, only the last) are rare by chance.

use super::{
    Flight, Operation, SimDisk,
    directory::Change,
    inode::{Inode, Piece, end_of, part},
};
use crate::prng::{Concern, Draw};
use lakebed::{Completion, DiskError, Extent, OpId, tape::Digest};
use std::collections::BTreeSet;

/// Which of the sectors and names that were not durable survive a power cut.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Survivors {
    /// None: only what was synced is there.
    None,
    /// All, those in flight included.
    All,
    /// The first few, in the order of submission.
    Prefix,
    /// The last few.
    Suffix,
    /// Each by the toss of a coin.
    Random,
    /// Only the last one.
    OnlyLast,
    /// All but the first one.
    AllButFirst,
}

impl Survivors {
    /// Every preset.
    pub const ALL: [Self; 7] = [
        Self::None,
        Self::All,
        Self::Prefix,
        Self::Suffix,
        Self::Random,
        Self::OnlyLast,
        Self::AllButFirst,
    ];

    /// A mask over `count` units: whether each survives.
    fn mask(self, count: usize, draw: &mut Draw) -> Vec<bool> {
        let border = draw.below(count as u64 + 1) as usize;
        let survives = |at: usize, draw: &mut Draw| match self {
            Self::None => false,
            Self::All => true,
            Self::Prefix => at < border,
            Self::Suffix => at >= border,
            Self::Random => draw.ratio(1, 2),
            Self::OnlyLast => at + 1 == count,
            Self::AllButFirst => at > 0,
        };
        (0..count).map(|at| survives(at, draw)).collect()
    }
}

/// What survives one power cut, so that it can be had again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Outcome {
    /// Of all that is undecided, in order, what the bits of this say, the lowest bit first; of what
    /// lies behind them nothing.
    Exactly(u64),
    /// What a preset says, with the draws of this number.
    Drawn(Survivors, u32),
}

/// The site of the draws of an outcome: of their own, so that what is tried moves nothing elsewhere.
const SITE_OUTCOME: u32 = 6;

/// One sector of one write.
struct Unit {
    seq: u64,
    ino: u64,
    /// A failed sync covered it: the cache calls it clean. The disk has the old content, unless that sync came so
    /// far before it failed.
    clean: bool,
    extent: Extent,
}

/// How fine a torn sector is mixed at its finest, in bytes.
const WORD: usize = 8;

impl SimDisk {
    /// The power fails: what was not durable survives as `survivors` and chance say, operations
    /// in flight never end, and a new process sees only what is durable.
    pub fn cut_power(&mut self, survivors: Survivors, draw: &mut Draw) {
        let units = self.units();
        let mask = survivors.mask(units.len(), draw);
        let came_so_far = |unit: &Unit| !unit.clean || survivors == Survivors::Random;
        let landed = units.into_iter().zip(mask).filter(|(unit, kept)| *kept && came_so_far(unit));
        let mut landed: Vec<Unit> = landed.map(|(unit, _)| unit).collect();
        if self.geometry.tears && survivors != Survivors::All {
            landed = tear(landed, self.geometry.sector, draw);
        }
        landed.iter().for_each(|unit| self.land(unit));
        for inode in self.inodes.values_mut() {
            lose_pieces(inode, survivors, draw);
        }
        self.cut_names(survivors, draw);
        self.in_flight.clear();
        self.collect_unreachable();
    }

    /// The power fails, and what survives is this; `seed`: of the draws, if there are any.
    pub fn cut_power_to(&mut self, outcome: Outcome, seed: u64) {
        match outcome {
            Outcome::Exactly(kept) => self.cut_power_exactly(kept),
            Outcome::Drawn(survivors, number) => {
                let mut draw = Draw::new(seed, Concern::Disk, SITE_OUTCOME, number);
                self.cut_power(survivors, &mut draw);
            }
        }
    }

    /// How many things a power cut now may or may not leave, each for itself: sectors, in the order
    /// of submission; whether files end where the last write did; of each creation in flight two
    /// steps of its length; changes of names, in order.
    #[must_use]
    pub fn undecided(&self) -> usize {
        let creations = self.creations().count();
        self.units().len() + usize::from(self.may_end_later()) + 2 * creations + self.name_changes()
    }

    /// The power fails, and of all that is [undecided](Self::undecided) this survives.
    pub fn cut_power_exactly(&mut self, kept: u64) {
        let mut bits =
            (0..u64::BITS).map(|bit| kept >> bit & 1 == 1).chain(std::iter::repeat(false));
        let mut keep = || bits.next().expect("they never end");
        let may_end_later = self.may_end_later();
        for unit in self.units() {
            if keep() {
                self.land(&unit);
            }
        }
        let later = may_end_later && keep();
        for inode in self.inodes.values_mut() {
            end_at(inode, later);
        }
        let sector = u64::from(self.geometry.sector);
        for (ino, len) in self.creations().collect::<Vec<_>>() {
            // Nothing, half of it, all of it: whole sectors.
            let steps = u64::from(keep()) + u64::from(keep());
            let inode = self.inode(ino);
            let len = if steps == 2 { len } else { len / 2 * steps / sector * sector };
            (inode.len, inode.durable_len) = (len, len);
        }
        let in_flight = self.changes_in_flight();
        self.directory.cut_power(in_flight, keep);
        self.in_flight.clear();
        self.collect_unreachable();
    }

    /// A hash of all that a process finds after a power cut, and so of all that a restart can depend
    /// on: every name, and the length and the bytes that it leads to.
    ///
    /// # Panics
    /// Before the power cut: what is pending has no outcome yet.
    #[must_use]
    pub fn digest(&self) -> u64 {
        assert_eq!((self.pending(), self.in_flight.len()), (0, 0), "the power is still on");
        let mut digest = Digest::default();
        for (file, ino) in self.directory.names() {
            let inode = &self.inodes[&ino];
            digest.bytes(file.to_string().as_bytes());
            digest.number(inode.len);
            inode.durable.digest(inode.len, &mut digest);
        }
        digest.value()
    }

    /// The process dies and the kernel lives: what ended is seen by the next process and is no
    /// more durable than before; operations in flight happened wholly, partly or not at all.
    pub fn kill(&mut self, draw: &mut Draw) {
        self.tick += 1;
        let tick = self.tick;
        for flight in std::mem::take(&mut self.in_flight) {
            self.interrupt(&flight, tick, draw);
        }
        self.collect_unreachable();
    }

    /// An operation ends badly and had a part of its effect: a write was short, a file has a
    /// length of its own.
    ///
    /// # Panics
    /// When it is not in flight.
    pub fn fail_partly(
        &mut self,
        op: OpId,
        error: DiskError,
        draw: &mut Draw,
    ) -> Result<Completion, DiskError> {
        let flight = self.take(op);
        self.interrupt(&flight, self.tick, draw);
        Err(error)
    }

    fn interrupt(&mut self, flight: &Flight, tick: u64, draw: &mut Draw) {
        match flight.operation {
            Operation::Write { ino, .. } => self.interrupt_write(ino, flight.seq, tick, draw),
            Operation::Create { file, ino, len } if draw.ratio(1, 2) => {
                self.inode(ino).len = interrupted_len(len, self.geometry.sector, draw);
                self.directory.change(tick, Change::Bind(file, ino));
            }
            Operation::Name(change) if draw.ratio(1, 2) => self.directory.change(tick, change),
            _ => {}
        }
    }

    /// All that is not durable, sector by sector, in the order of submission.
    fn units(&self) -> Vec<Unit> {
        let sector = u64::from(self.geometry.sector);
        let mut units = Vec::new();
        for (&ino, inode) in &self.inodes {
            for &Piece { seq, clean, ref extent, .. } in &inode.pieces {
                let sectors = sectors(extent, sector);
                units.extend(sectors.map(|extent| Unit { seq, ino, clean, extent }));
            }
        }
        units.sort_by_key(|unit| unit.seq);
        units
    }

    fn land(&mut self, unit: &Unit) {
        let inode = self.inode(unit.ino);
        inode.durable.write(unit.extent.offset, &unit.extent.bytes);
        inode.durable_len = inode.durable_len.max(end_of(&unit.extent));
    }

    /// Whether a file may end behind its last durable byte.
    fn may_end_later(&self) -> bool {
        self.inodes.values().any(|inode| greatest_end(inode) > inode.durable_len)
    }

    /// The creations in flight: of which content, and how long it is to be.
    fn creations(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.in_flight.iter().filter_map(|flight| match flight.operation {
            Operation::Create { ino, len, .. } => Some((ino, len)),
            _ => None,
        })
    }

    fn changes_in_flight(&self) -> Vec<Change> {
        let change = |flight: &Flight| match flight.operation {
            Operation::Create { file, ino, .. } => Some(Change::Bind(file, ino)),
            Operation::Name(change) => Some(change),
            _ => None,
        };
        self.in_flight.iter().filter_map(change).collect()
    }

    fn name_changes(&self) -> usize {
        self.directory.pending() + self.changes_in_flight().len()
    }

    fn cut_names(&mut self, survivors: Survivors, draw: &mut Draw) {
        for (ino, len) in self.creations().collect::<Vec<_>>() {
            let len = interrupted_len(len, self.geometry.sector, draw);
            let inode = self.inode(ino);
            (inode.len, inode.durable_len) = (len, len);
        }
        let in_flight = self.changes_in_flight();
        let mask = survivors.mask(self.directory.pending() + in_flight.len(), draw);
        let mut mask = mask.into_iter();
        self.directory.cut_power(in_flight, || mask.next().expect("as many as changes"));
    }

    fn interrupt_write(&mut self, ino: u64, seq: u64, tick: u64, draw: &mut Draw) {
        let sector = u64::from(self.geometry.sector);
        let inode = self.inode(ino);
        let survivors = *draw.pick(&Survivors::ALL);
        let all: Vec<Extent> =
            inode.pieces_of(seq).flat_map(|piece| sectors(&piece.extent, sector)).collect();
        let mask = survivors.mask(all.len(), draw);
        inode.forget(seq);
        inode.start(seq, all.into_iter().zip(mask).filter(|(_, kept)| *kept).map(|(e, _)| e));
        inode.end(seq, tick);
    }
}

/// The power fails while sectors are written: of each the last write that came down, by chance, did so in parts. Only
/// the last, for the disk was done with those before it.
fn tear(landed: Vec<Unit>, sector: u32, draw: &mut Draw) -> Vec<Unit> {
    let mut later = BTreeSet::new();
    let mut torn = Vec::with_capacity(landed.len());
    for unit in landed.into_iter().rev() {
        let is_last = later.insert((unit.ino, unit.extent.offset / u64::from(sector)));
        if is_last && draw.ratio(1, 3) {
            torn.extend(
                parts(&unit.extent, draw).into_iter().map(|extent| Unit { extent, ..unit }),
            );
        } else {
            torn.push(unit);
        }
    }
    torn.reverse();
    torn
}

/// What of a torn sector came down: the first bytes, the last, or words here and there.
fn parts(extent: &Extent, draw: &mut Draw) -> Vec<Extent> {
    let (start, end) = (extent.offset, end_of(extent));
    let border = draw.between(start, end);
    let which = draw.below(3);
    let words = (start..end).step_by(WORD).map(|at| (at, end.min(at + WORD as u64)));
    match which {
        0 => part(extent, start, border).into_iter().collect(),
        1 => part(extent, border, end).into_iter().collect(),
        _ => words
            .filter(|_| draw.ratio(1, 2))
            .filter_map(|(from, to)| part(extent, from, to))
            .collect(),
    }
}

/// The length goes with the last sector that survived; sometimes further, with zeros to show.
fn lose_pieces(inode: &mut Inode, survivors: Survivors, draw: &mut Draw) {
    let greatest = greatest_end(inode);
    let longer = match survivors {
        Survivors::None => false,
        Survivors::All => true,
        _ => greatest > inode.durable_len && draw.ratio(1, 2),
    };
    end_at(inode, longer);
}

/// Where the last of what is pending ends.
fn greatest_end(inode: &Inode) -> u64 {
    inode.pieces.iter().map(|piece| end_of(&piece.extent)).max().unwrap_or(0)
}

/// Nothing is pending any more; `later`: the file ends where the last of it would have.
fn end_at(inode: &mut Inode, later: bool) {
    if later {
        inode.durable_len = inode.durable_len.max(greatest_end(inode));
    }
    inode.pieces.clear();
    inode.late = None;
    inode.len = inode.durable_len;
}

/// A file whose creation was cut short has any length up to the one it was to get.
fn interrupted_len(len: u64, sector: u32, draw: &mut Draw) -> u64 {
    let sectors = len / u64::from(sector);
    match draw.below(3) {
        0 => 0,
        1 => len,
        _ => draw.below(sectors + 1) * u64::from(sector),
    }
}

fn sectors(extent: &Extent, sector: u64) -> impl Iterator<Item = Extent> + '_ {
    let end = extent.offset + extent.bytes.len() as u64;
    (extent.offset / sector..end.div_ceil(sector))
        .filter_map(move |n| part(extent, extent.offset.max(n * sector), end.min((n + 1) * sector)))
}
