//! From a seed to a storm beyond the budget: damage that no cluster is promised to live through.

use super::{Fault, FaultKind, Harm, MS, Part, Plan, Targets, site::Site};
use crate::{
    disk::{EIO, Failure},
    prng::Draw,
};
use lakebed::DiskError;

const ERROR: DiskError = DiskError::Io { errno: EIO };

impl Plan {
    /// A storm in which disks also rot anywhere, lie, are set back or are gone.
    #[must_use]
    pub fn beyond_the_budget(seed: u64, nodes: usize) -> Self {
        let plan = Self::storm(seed, nodes).ruined();
        if seed.is_multiple_of(2) { plan.rotting() } else { plan }
    }

    /// The same plan, and disks rot anywhere while their nodes are down, lie, are set back or are gone.
    #[must_use]
    pub fn ruined(self) -> Self {
        let (seed, nodes) = (self.seed, self.nodes);
        let faults = [
            ruins(seed, nodes),
            lies(seed, nodes),
            misfilings(seed, nodes),
            late_reports(seed, nodes),
            misreads(seed, nodes),
            images(seed, nodes),
            gone(seed, nodes),
        ];
        // A disk that forgets may hold less than the machine beside it.
        Self { keeps: 0, ..self.beyond(faults.concat()) }
    }

    /// The same plan, and entries and snapshots rot while their nodes run.
    #[must_use]
    pub fn rotting(self) -> Self {
        let faults = rots(self.seed, self.nodes);
        self.beyond(faults)
    }

    fn beyond(mut self, faults: Vec<Fault>) -> Self {
        // What is refused does not come back: nothing is waited for.
        self.targets = Targets::default();
        // Nobody knows who is a majority then.
        self.minority = None;
        self.faults.extend(faults);
        self.faults.sort_by_key(|fault| fault.at);
        self
    }
}

fn at(draw: &mut Draw, kind: FaultKind) -> Fault {
    Fault { at: draw.between(100 * MS, 1_500 * MS), kind }
}

fn node(draw: &mut Draw, nodes: usize) -> usize {
    draw.below(nodes as u64) as usize
}

fn ruins(seed: u64, nodes: usize) -> Vec<Fault> {
    let mut draw = Site::Ruins.draw(seed);
    let count = draw.between(1, 4);
    let ruin = |draw: &mut Draw| {
        let harm = *draw.pick(&[Harm::Rot, Harm::Rot, Harm::Zero, Harm::RotAll, Harm::Gone]);
        let (node, pick, down) = (node(draw, nodes), draw.any(), draw.delay(MS, 40 * MS));
        at(draw, FaultKind::Ruin { node, harm, pick, down })
    };
    (0..count).map(|_| ruin(&mut draw)).collect()
}

fn rots(seed: u64, nodes: usize) -> Vec<Fault> {
    let (mut draw, mut both) = (Site::Rots.draw(seed), Site::Witnesses.draw(seed));
    let count = draw.between(1, 9);
    let mut rot = |draw: &mut Draw| {
        let part = match *draw.pick(&[Part::Entries, Part::Snapshot]) {
            Part::Entries if both.ratio(1, 3) => Part::Slots,
            part => part,
        };
        let (node, pick) = (node(draw, nodes), draw.any());
        at(draw, FaultKind::Rot { node, part, pick })
    };
    (0..count).map(|_| rot(&mut draw)).collect()
}

/// Writes that are lost, or land elsewhere.
fn lies(seed: u64, nodes: usize) -> Vec<Fault> {
    let mut draw = Site::Lies.draw(seed);
    let count = if draw.ratio(1, 2) { draw.between(1, 3) } else { 0 };
    let lie = |draw: &mut Draw| {
        let (node, pick) = (node(draw, nodes), draw.any());
        let kinds = [FaultKind::LostWrite { node }, FaultKind::MisdirectedWrite { node, pick }];
        let kind = draw.pick(&kinds).clone();
        at(draw, kind)
    };
    (0..count).map(|_| lie(&mut draw)).collect()
}

/// Writes that land in other files, and names that are lost.
fn misfilings(seed: u64, nodes: usize) -> Vec<Fault> {
    let mut draw = Site::Misfilings.draw(seed);
    let count = if draw.ratio(1, 3) { draw.between(1, 3) } else { 0 };
    let misfiling = |draw: &mut Draw| {
        let (node, pick) = (node(draw, nodes), draw.any());
        let kinds = [FaultKind::MisfiledWrite { node, pick }, FaultKind::LostNames { node }];
        let kind = draw.pick(&kinds).clone();
        at(draw, kind)
    };
    (0..count).map(|_| misfiling(&mut draw)).collect()
}

/// Syncs that are told of as failed when it is too late.
fn late_reports(seed: u64, nodes: usize) -> Vec<Fault> {
    let mut draw = Site::LateReports.draw(seed);
    let count = if draw.ratio(1, 3) { draw.between(1, 3) } else { 0 };
    let failures = [Failure::CleanKeep, Failure::CleanRevert, Failure::Nothing(ERROR)];
    let report = |draw: &mut Draw| {
        let (node, failure) = (node(draw, nodes), *draw.pick(&failures));
        at(draw, FaultKind::LateReport { node, failure })
    };
    (0..count).map(|_| report(&mut draw)).collect()
}

/// Reads of other places. A restart reads some ten or twenty times, and a node that runs seldom: so any of those is struck,
/// and now and then one behind them.
fn misreads(seed: u64, nodes: usize) -> Vec<Fault> {
    let mut draw = Site::Misreads.draw(seed);
    let count = if draw.ratio(1, 2) { draw.between(1, 5) } else { 0 };
    let misread = |draw: &mut Draw| {
        let (node, pick) = (node(draw, nodes), draw.any());
        let most = *draw.pick(&[6, 24, 64]);
        let after = draw.below(most);
        at(draw, FaultKind::MisdirectedRead { node, after, pick })
    };
    (0..count).map(|_| misread(&mut draw)).collect()
}

fn images(seed: u64, nodes: usize) -> Vec<Fault> {
    let mut draw = Site::Images.draw(seed);
    let image = |draw: &mut Draw| {
        let (lasts, down) = (draw.delay(20 * MS, 200 * MS), draw.delay(MS, 40 * MS));
        let node = node(draw, nodes);
        at(draw, FaultKind::OldImage { node, lasts, down })
    };
    if draw.ratio(1, 4) { vec![image(&mut draw)] } else { Vec::new() }
}

/// One at most: where every disk was lost and formatted again there is nothing to be told.
fn gone(seed: u64, nodes: usize) -> Vec<Fault> {
    let mut draw = Site::Gone.draw(seed);
    if nodes == 1 || !draw.ratio(1, 4) {
        return Vec::new();
    }
    let (node, formatted) = (node(&mut draw, nodes), draw.ratio(1, 2));
    let down = draw.delay(MS, 40 * MS);
    vec![at(&mut draw, FaultKind::DiskGone { node, formatted, down })]
}
