//! From a seed to a plan.
//!
//! Swarm testing: each seed draws which faults exist at all, at which rates, and under which
//! limits, so that rare mixes are met.

use super::{Asks, DiskTimes, Fault, FaultKind, Latency, Links, MS, Moment, Plan, Targets, US};
use crate::{
    disk::{EIO, Failure, Geometry, Survivors},
    prng::{Concern, Draw},
};
use lakebed::{DiskError, Tuning};
use std::time::Duration;

/// Sites of draws; zero is the profile, and each kind of fault has one.
const POWER_CUTS: u32 = 1;
const KILLS: u32 = 2;
const PARTITIONS: u32 = 3;
const DISKS: u32 = 4;
const STOPS: u32 = 5;
const LIMITS: u32 = 6;
const EARLY: u32 = 7;
const GRAY: u32 = 8;

impl Plan {
    /// A stormy run of this many nodes: everything else is drawn from the seed.
    #[must_use]
    pub fn storm(seed: u64, nodes: usize) -> Self {
        let mut draw = Draw::new(seed, Concern::Swarm, 0, 0);
        let align = *draw.pick(&[512, 512, 4096]);
        let sector = if align == 4096 { *draw.pick(&[512, 4096]) } else { 512 };
        let segment_bytes = *draw.pick(&[64 << 10, 128 << 10]);
        let snapshot = *draw.pick(&[0, 8 << 10, 16 << 10, 32 << 10]);
        Self {
            seed,
            nodes,
            targets: Targets { events: 2_000, answers: 100, crashes: 2 },
            clients: vec![Asks::all(); draw.between(2, 6) as usize],
            geometry: Geometry { sector, align },
            segment_bytes,
            tuning: swarm_limits(seed, swarm_tuning(&mut draw, snapshot)),
            links: swarm_links(&mut draw),
            disk: swarm_disk(&mut draw),
            drift_ppm: (0..nodes).map(|_| draw.below(2001) as i64 - 1000).collect(),
            think: Latency { least: 100 * US, tail: *draw.pick(&[MS, 5 * MS]) },
            faults: Faults::new(seed, nodes).draw(),
        }
    }
}

pub(super) fn tuning(
    append_bytes_max: u32,
    snapshot_log_bytes: u64,
    cache_bytes_max: u64,
) -> Tuning {
    let mut tuning = Tuning::default();
    tuning.heartbeat = Duration::from_millis(10);
    tuning.election = (Duration::from_millis(60), Duration::from_millis(120));
    tuning.append_bytes_max = append_bytes_max;
    tuning.inflight_bytes_max = 64 << 10;
    tuning.propose_bytes_max = 64 << 10;
    tuning.apply_bytes_max = 64 << 10;
    tuning.catch_up_bytes_max = 64 << 10;
    tuning.restore_bytes_max = 16 << 10;
    tuning.cache_bytes_max = cache_bytes_max;
    tuning.snapshot_log_bytes = snapshot_log_bytes;
    tuning
}

fn swarm_tuning(draw: &mut Draw, snapshot: u64) -> Tuning {
    let append = *draw.pick(&[1 << 10, 4 << 10, 16 << 10]);
    let cache = *draw.pick(&[16 << 10, 64 << 10, 1 << 20]);
    let mut tuning = tuning(append, snapshot, cache);
    tuning.writes_inflight_max = *draw.pick(&[1, 2, 4, 8]);
    tuning.entry_commands_max = *draw.pick(&[1, 3, u32::MAX]);
    tuning.forward = draw.ratio(2, 3);
    tuning
}

/// Queues that hold little more than one append, in some runs: they are met full. And word of what
/// is committed at once, soon, or only with heartbeats.
fn swarm_limits(seed: u64, mut tuning: Tuning) -> Tuning {
    let mut draw = Draw::new(seed, Concern::Swarm, LIMITS, 0);
    let append = u64::from(tuning.append_bytes_max);
    if draw.ratio(1, 4) {
        tuning.inflight_bytes_max = append;
    }
    if draw.ratio(1, 4) {
        tuning.propose_bytes_max = append;
    }
    tuning.commit_notice = Duration::from_millis(*draw.pick(&[0, 1, 1, 10]));
    tuning.retain_log_bytes = *draw.pick(&[0, 0, 64 << 10, 1 << 30]);
    tuning
}

fn swarm_links(draw: &mut Draw) -> Links {
    let latency = Latency { least: 100 * US, tail: *draw.pick(&[50 * US, MS, 4 * MS]) };
    Links {
        latency,
        loss: *draw.pick(&[0, 0, 65, 655]),
        duplicate: *draw.pick(&[0, 0, 655]),
        reorder: draw.ratio(1, 3),
        silent: draw.ratio(1, 3),
    }
}

fn swarm_disk(draw: &mut Draw) -> DiskTimes {
    DiskTimes {
        read: Latency { least: 20 * US, tail: *draw.pick(&[20 * US, 200 * US]) },
        write: Latency { least: 20 * US, tail: *draw.pick(&[20 * US, 500 * US]) },
        sync: Latency { least: 50 * US, tail: *draw.pick(&[50 * US, MS, 3 * MS]) },
    }
}

/// Draws the faults of a storm: each kind in a lane of its own, so that taking one kind away
/// leaves the others as they were.
struct Faults {
    seed: u64,
    nodes: usize,
    list: Vec<Fault>,
}

impl Faults {
    const fn new(seed: u64, nodes: usize) -> Self {
        Self { seed, nodes, list: Vec::new() }
    }

    fn draw(mut self) -> Vec<Fault> {
        self.power_cuts();
        self.kills();
        self.partitions();
        self.disks();
        self.stops();
        self.early();
        self.gray();
        self.list.sort_by_key(|fault| fault.at);
        self.list
    }

    fn lane(&self, site: u32) -> Draw {
        Draw::new(self.seed, Concern::Swarm, site, 0)
    }

    fn at(draw: &mut Draw) -> u64 {
        draw.between(100 * MS, 1_500 * MS)
    }

    fn add(&mut self, at: u64, kind: FaultKind) {
        self.list.push(Fault { at, kind });
    }

    /// At least two in every run: that is what a storm is for.
    fn power_cuts(&mut self) {
        let mut draw = self.lane(POWER_CUTS);
        for _ in 0..draw.between(3, 7) {
            let nodes = self.some_nodes(&mut draw);
            let moment = *draw.pick(&[Moment::Pending, Moment::Pending, Moment::PendingHardState]);
            let survivors = *draw.pick(&Survivors::ALL);
            let rot = draw.ratio(1, 4).then(|| draw.below(2) as u8);
            let down = draw.delay(MS, 60 * MS);
            let kind = FaultKind::PowerCut { nodes, moment, survivors, rot, down };
            self.add(Self::at(&mut draw), kind);
        }
    }

    /// One node, rarely a majority or all.
    fn some_nodes(&self, draw: &mut Draw) -> Vec<usize> {
        let first = draw.below(self.nodes as u64) as usize;
        let count = match draw.below(8) {
            0 => self.nodes,
            1 => self.nodes / 2 + 1,
            _ => 1,
        };
        (0..count).map(|n| (first + n) % self.nodes).collect()
    }

    fn kills(&mut self) {
        let mut draw = self.lane(KILLS);
        if draw.ratio(1, 2) {
            for _ in 0..draw.between(1, 4) {
                let node = draw.below(self.nodes as u64) as usize;
                let down = draw.delay(MS, 40 * MS);
                self.add(Self::at(&mut draw), FaultKind::Kill { node, down });
            }
        }
    }

    fn partitions(&mut self) {
        let mut draw = self.lane(PARTITIONS);
        if self.nodes > 1 && draw.ratio(3, 4) {
            for _ in 0..draw.between(1, 4) {
                let kind = FaultKind::Partition {
                    side: self.side(&mut draw),
                    both_ways: draw.ratio(2, 3),
                    noticed: draw.ratio(1, 2),
                    lasts: draw.delay(20 * MS, 150 * MS),
                };
                self.add(Self::at(&mut draw), kind);
            }
        }
    }

    /// Mostly one node alone: nine in ten failures by partition need no more.
    fn side(&self, draw: &mut Draw) -> Vec<bool> {
        let alone = draw.below(self.nodes as u64) as usize;
        let mut side: Vec<bool> = (0..self.nodes).map(|node| node == alone).collect();
        if draw.ratio(1, 3) {
            side.iter_mut().for_each(|first| *first = draw.ratio(1, 2));
        }
        if draw.ratio(1, 2) {
            side.iter_mut().for_each(|first| *first = !*first);
        }
        side
    }

    fn disks(&mut self) {
        let mut draw = self.lane(DISKS);
        let node = draw.below(self.nodes as u64) as usize;
        if draw.ratio(1, 5) {
            let errors = [
                Failure::CleanKeep,
                Failure::CleanRevert,
                Failure::Nothing(DiskError::Io { errno: EIO }),
            ];
            let failure = *draw.pick(&errors);
            self.add(Self::at(&mut draw), FaultKind::SyncFailure { node, failure });
        }
        if draw.ratio(1, 6) {
            let lasts = draw.delay(50 * MS, 200 * MS);
            self.add(Self::at(&mut draw), FaultKind::DiskFull { node, lasts });
        }
        if draw.ratio(1, 4) {
            let (factor, lasts) = (draw.between(5, 50), draw.delay(20 * MS, 100 * MS));
            self.add(Self::at(&mut draw), FaultKind::SlowDisk { node, factor, lasts });
        }
    }

    /// While nodes are still being built and the cluster forms.
    fn early(&mut self) {
        let mut draw = self.lane(EARLY);
        if draw.ratio(1, 8) {
            let (nodes, at) = (self.some_nodes(&mut draw), draw.below(15 * MS));
            let survivors = *draw.pick(&Survivors::ALL);
            let (moment, rot, down) = (Moment::Pending, None, draw.delay(MS, 5 * MS));
            self.add(at, FaultKind::PowerCut { nodes, moment, survivors, rot, down });
        }
    }

    /// A node that nobody hears and whose disk is slow: what it has on its way when it is heard
    /// again, others have replaced.
    fn gray(&mut self) {
        let mut draw = self.lane(GRAY);
        if self.nodes > 1 && draw.ratio(1, 4) {
            let (at, node) = (Self::at(&mut draw), draw.below(self.nodes as u64) as usize);
            let (lasts, factor) = (draw.delay(60 * MS, 60 * MS), draw.between(20, 100));
            let side = (0..self.nodes).map(|of| of == node).collect();
            let noticed = draw.ratio(1, 2);
            self.add(at, FaultKind::Partition { side, both_ways: true, noticed, lasts });
            let lasts = lasts + draw.delay(20 * MS, 60 * MS);
            self.add(at, FaultKind::SlowDisk { node, factor, lasts });
        }
    }

    fn stops(&mut self) {
        let mut draw = self.lane(STOPS);
        if draw.ratio(1, 4) {
            let node = draw.below(self.nodes as u64) as usize;
            let hand_over = draw.ratio(1, 2);
            self.add(Self::at(&mut draw), FaultKind::Stop { node, hand_over });
        }
    }
}
