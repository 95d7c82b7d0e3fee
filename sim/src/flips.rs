//! Every bit of a disk, one at a time: flipped while its node is down, and the cluster started
//! again. Nothing may come of it but what was there, what peers have, or a refusal.
//!
//! Which bits: all of each used byte, which is every byte of a sector up to the last that is not
//! zero; one of the zeros behind it; one of each sector that holds nothing, and of a spare's, which
//! holds what was recycled. Knows where things lie
//! in files (docs/disk-format.md) only to count by structure.

use crate::{
    client::Workload,
    disk::SimDisk,
    exhaust::{Story, Telling},
    panics,
    plan::{Fault, FaultKind},
    report::Failure,
    world::World,
};
use lakebed::{File, Mark, Marks, StateMachine};
use std::{collections::BTreeMap, ops::ControlFlow};

/// What a bit is a part of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Structure {
    /// A block of the hard state: copy A or B, in each the first or the second.
    HardState,
    /// The room between and behind them.
    HardStateRoom,
    /// One of the two headers of a segment.
    SegmentHeader,
    /// Slots, and what is still free of their room.
    Slots,
    /// The guard and the entries, and what is still free of their room.
    Entries,
    /// The end record of a segment, or where it will be.
    EndRecord,
    /// A segment to come.
    Spare,
    /// The header of a snapshot.
    SnapshotHeader,
    /// Its blocks.
    SnapshotBlocks,
    /// Its footer.
    SnapshotFooter,
    /// A snapshot in the making.
    Part,
}

/// What came of a flip.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Ending {
    /// The node started as if nothing had happened, and was what it was.
    Original,
    /// It met something on its disk that it does not meet otherwise, and did without.
    Mended,
    /// It lost entries or its state, said so, and had them from its peers.
    FromPeers,
    /// It refused to start, and the others serve.
    Refused,
    /// It lost what nothing on the disk proved durable, so that nobody could tell.
    Untold,
}

/// How many flips of what came to which end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Flipped {
    /// By structure and ending.
    pub cases: BTreeMap<(Structure, Ending), u64>,
    /// Calls of an engine, with a message, a completion or a request.
    pub events: u64,
}

impl Flipped {
    /// All of them.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.cases.values().sum()
    }

    /// Adds those of another part.
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        for (case, count) in &other.cases {
            *self.cases.entry(*case).or_default() += count;
        }
    }
}

/// A bit to be flipped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bit {
    /// In which file.
    pub file: File,
    /// Which, counting from the lowest of the first byte.
    pub bit: u64,
    /// What it is a part of.
    pub structure: Structure,
}

impl<M: StateMachine + Clone, W: Workload + Clone> Story<M, W> {
    /// The bits of a node's disk, where the last fault of the story has taken the nodes down.
    pub fn bits(&self, node: usize) -> Vec<Bit> {
        bits(self.down(node).world.disk(node), u64::from(self.plan.geometry.align))
    }

    /// Flips one of a node's bits after the other, each in a fork of the story where its last fault
    /// has taken the nodes down, and says all along what came of it.
    ///
    /// # Panics
    /// When the node is up there.
    pub fn flips(
        &self,
        node: usize,
        bits: &[Bit],
        mut watch: impl FnMut(&Flipped) -> ControlFlow<()>,
    ) -> Result<Flipped, Box<Failure>> {
        let base = self.down(node);
        let mut whole = base.clone();
        whole.tell_to_its_end(|_| Ok(())).map_err(|_| self.again([]))?;
        let (usual, mut flipped) = (whole.world.marks_of(node), Flipped::default());
        for bit in bits {
            let ending = self.flip(&base, node, *bit, usual, &mut flipped.events)?;
            *flipped.cases.entry((bit.structure, ending)).or_default() += 1;
            if watch(&flipped).is_break() {
                break;
            }
        }
        Ok(flipped)
    }

    fn flip(
        &self,
        base: &Telling<M, W>,
        node: usize,
        bit: Bit,
        usual: Marks,
        events: &mut u64,
    ) -> Result<Ending, Box<Failure>> {
        let mut fork = base.clone();
        let kind = FaultKind::Flip { node, file: bit.file, bit: bit.bit, down: 0 };
        let told = panics::caught(|| {
            fork.world.flip_at_all_costs(node, bit.file, bit.bit);
            fork.tell_to_its_end(|_| Ok(()))
        });
        *events += fork.world.stats().events - base.world.stats().events;
        if told == Ok(Ok(())) {
            return Ok(ending(&fork.world, node, usual));
        }
        // As a fault it does not strike where nobody could tell.
        let failure = self.again([Fault { at: base.world.now(), kind }]);
        if failure.report.stats.untold > 0 { Ok(Ending::Untold) } else { Err(failure) }
    }

    fn down(&self, node: usize) -> Telling<M, W> {
        let mut telling = Telling::of(self);
        let down = telling.tell_until_down(node);
        assert_eq!(down, Ok(true), "node {} is up after the last fault of the story", node + 1);
        telling
    }
}

fn ending<M: StateMachine, W: Workload>(world: &World<M, W>, node: usize, usual: Marks) -> Ending {
    let marks = world.marks_of(node);
    let lost = [
        Mark::HolesFound,
        Mark::HoleFoundLate,
        Mark::GateSet,
        Mark::SnapshotLost,
        Mark::InstallJoined,
        Mark::Installed,
    ];
    if world.is_out(node) {
        Ending::Refused
    } else if lost.iter().any(|mark| marks.has(*mark) && !usual.has(*mark)) {
        Ending::FromPeers
    } else if FOUND.iter().any(|mark| marks.has(*mark) && !usual.has(*mark)) {
        Ending::Mended
    } else {
        Ending::Original
    }
}

/// What a restart meets on a disk; other marks are of what follows, and come and go with time.
const FOUND: [Mark; 10] = [
    Mark::HardStateCopyLost,
    Mark::HardStateCopiesDiffer,
    Mark::UselessSnapshotRemoved,
    Mark::PartialSnapshotRemoved,
    Mark::TornTailCut,
    Mark::SlotRebuilt,
    Mark::SlotsMadeAnew,
    Mark::OlderSnapshotUsed,
    Mark::InstallFinished,
    Mark::InstallGoneOnWith,
];

/// The bits that are worth a flip, in the order of names and places.
fn bits(disk: &SimDisk, align: u64) -> Vec<Bit> {
    let mut bits = Vec::new();
    for (file, len) in disk.list() {
        let content = disk.content(file).unwrap_or_default();
        for (at, sector) in (0..).step_by(SECTOR).zip(content.chunks(SECTOR)) {
            let last = sector.iter().rposition(|byte| *byte != 0);
            let last = last.filter(|_| !matches!(file, File::Spare(_)));
            let used = last.map_or(0, |last| last as u64 + 1);
            let free = sector.len() as u64 - used;
            // Another place in each, the same in each run.
            let pick =
                (free > 0).then(|| used * 8 + (at / SECTOR as u64 * 2_654_435_761) % (free * 8));
            bits.extend((0..used * 8).chain(pick).map(|within| {
                let bit = at * 8 + within;
                Bit { file, bit, structure: structure(file, len, bit / 8, align) }
            }));
        }
    }
    bits
}

const SECTOR: usize = 512;
const HARD_STATE_BLOCK: u64 = 16 << 10;
const HARD_STATE_BLOCKS: u64 = 64 << 10;

fn structure(file: File, len: u64, at: u64, align: u64) -> Structure {
    match file {
        File::HardState => {
            let (copy, within) = (at >> 20, at & ((1 << 20) - 1));
            let is_block = copy < 2 && within / HARD_STATE_BLOCKS < 2;
            let is_used = is_block && within % HARD_STATE_BLOCKS < HARD_STATE_BLOCK;
            if is_used { Structure::HardState } else { Structure::HardStateRoom }
        }
        File::Spare(_) => Structure::Spare,
        File::Part(..) => Structure::Part,
        File::Segment(_) if at < align || (len - 2 * align..len - align).contains(&at) => {
            Structure::SegmentHeader
        }
        File::Segment(_) if at < align + len / 16 => Structure::Slots,
        File::Segment(_) if at >= len - align => Structure::EndRecord,
        File::Segment(_) => Structure::Entries,
        File::Snapshot(_) if at < align.max(4096) => Structure::SnapshotHeader,
        File::Snapshot(_) if at >= len - align => Structure::SnapshotFooter,
        File::Snapshot(_) => Structure::SnapshotBlocks,
    }
}
