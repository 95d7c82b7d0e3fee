//! What a run will be: expanded from a seed, and a plain value from then on.
//!
//! Swarm testing: each seed draws which faults exist at all, at which rates, and under which
//! limits, so that rare mixes are met. A plan knows no world; what it says is printed one line per
//! fault.

use crate::{
    disk::{Failure, Geometry, Survivors},
    prng::{Concern, Draw},
};
use lakebed::Tuning;
use std::{fmt, time::Duration};

/// A microsecond of simulated time, in nanoseconds.
pub const US: u64 = 1_000;
/// A millisecond of simulated time, in nanoseconds.
pub const MS: u64 = 1_000_000;

/// The least time something takes, and the tail on top; nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Latency {
    /// Never less than this.
    pub least: u64,
    /// Half of the time within this much more, rarely several times it.
    pub tail: u64,
}

/// How messages travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Links {
    /// How long a message takes.
    pub latency: Latency,
    /// Messages lost in 65,536; each breaks its connection, as a stream would.
    pub loss: u64,
    /// Messages in 65,536 that arrive twice, the second time late, perhaps in another life.
    pub duplicate: u64,
    /// Whether messages overtake each other.
    pub reorder: bool,
    /// Whether a loss goes unnoticed: no connection breaks, nobody is told.
    pub silent: bool,
}

/// How long disks take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskTimes {
    /// Reads, and changes of names.
    pub read: Latency,
    /// Writes that are not durable.
    pub write: Latency,
    /// Syncs and durable writes.
    pub sync: Latency,
}

/// A fault and when it strikes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Simulated nanoseconds from the start of the run.
    pub at: u64,
    /// What happens.
    pub kind: FaultKind,
}

/// What can happen to a cluster. Nodes count from zero.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// These machines lose power, as soon as one of them is at the moment, and come back.
    PowerCut {
        /// Which.
        nodes: Vec<usize>,
        /// When exactly.
        moment: Moment,
        /// What of their caches survives.
        survivors: Survivors,
        /// Which copy of their hard states rots while they are down, if any: zero or one.
        rot: Option<u8>,
        /// How long they are down.
        down: u64,
    },
    /// A process dies and its kernel lives; it comes back.
    Kill {
        /// Which.
        node: usize,
        /// How long it is down.
        down: u64,
    },
    /// These nodes do not hear those; with `both_ways` those do not hear these either.
    Partition {
        /// For each node, whether it is on the first side.
        side: Vec<bool>,
        /// Whether neither side hears the other, or only the second not the first.
        both_ways: bool,
        /// Whether connections break at once; else everybody believes them whole until the end.
        noticed: bool,
        /// For how long.
        lasts: u64,
    },
    /// The next sync or durable write of a node fails.
    SyncFailure {
        /// Which node's.
        node: usize,
        /// How.
        failure: Failure,
    },
    /// A disk has no more room.
    DiskFull {
        /// Whose.
        node: usize,
        /// For how long.
        lasts: u64,
    },
    /// A disk takes many times as long.
    SlowDisk {
        /// Whose.
        node: usize,
        /// How many times.
        factor: u64,
        /// For how long.
        lasts: u64,
    },
    /// A node is asked to stop, and started again.
    Stop {
        /// Which.
        node: usize,
        /// Whether it first hands its role over.
        hand_over: bool,
    },
}

/// What a power cut waits for, for a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// Any sector is written and not durable.
    Pending,
    /// A sector of the hard state is.
    PendingHardState,
}

/// All that a run does not draw as it goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Where every draw of the run comes from.
    pub seed: u64,
    /// How many nodes, all voters.
    pub nodes: usize,
    /// How many clients, each with one request at a time.
    pub clients: usize,
    /// The disks.
    pub geometry: Geometry,
    /// The largest log segment, in bytes.
    pub segment_bytes: u64,
    /// Timing and limits of the engines.
    pub tuning: Tuning,
    /// The network.
    pub links: Links,
    /// The speed of the disks.
    pub disk: DiskTimes,
    /// How fast each node's clock runs, in parts per million more or less.
    pub drift_ppm: Vec<i64>,
    /// How long a client waits between two requests.
    pub think: Latency,
    /// What happens, in order of time.
    pub faults: Vec<Fault>,
}

impl Plan {
    /// A cluster without any fault, with quick disks and links: for directed stories.
    #[must_use]
    pub fn calm(seed: u64, nodes: usize) -> Self {
        let quick = Latency { least: 100 * US, tail: 50 * US };
        Self {
            seed,
            nodes,
            clients: 4,
            geometry: Geometry { sector: 512, align: 512 },
            segment_bytes: 64 << 10,
            tuning: tuning(16 << 10, 32 << 10, 64 << 10),
            links: Links { latency: quick, loss: 0, duplicate: 0, reorder: false, silent: false },
            disk: DiskTimes { read: quick, write: quick, sync: quick },
            drift_ppm: vec![0; nodes],
            think: Latency { least: MS, tail: MS },
            faults: Vec::new(),
        }
    }

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
            clients: draw.between(2, 6) as usize,
            geometry: Geometry { sector, align },
            segment_bytes,
            tuning: swarm_tuning(&mut draw, snapshot),
            links: swarm_links(&mut draw),
            disk: swarm_disk(&mut draw),
            drift_ppm: (0..nodes).map(|_| draw.below(2001) as i64 - 1000).collect(),
            think: Latency { least: 100 * US, tail: *draw.pick(&[MS, 5 * MS]) },
            faults: Faults::new(seed, nodes).draw(),
        }
    }
}

fn tuning(append_bytes_max: u32, snapshot_log_bytes: u64, cache_bytes_max: u64) -> Tuning {
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
        let mut draw = self.lane(1);
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
        let mut draw = self.lane(2);
        if draw.ratio(1, 2) {
            for _ in 0..draw.between(1, 4) {
                let node = draw.below(self.nodes as u64) as usize;
                let down = draw.delay(MS, 40 * MS);
                self.add(Self::at(&mut draw), FaultKind::Kill { node, down });
            }
        }
    }

    fn partitions(&mut self) {
        let mut draw = self.lane(3);
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
        let mut draw = self.lane(4);
        let node = draw.below(self.nodes as u64) as usize;
        if draw.ratio(1, 5) {
            let errors = [
                Failure::CleanKeep,
                Failure::CleanRevert,
                Failure::Nothing(lakebed::DiskError::Io { errno: crate::disk::EIO }),
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

    fn stops(&mut self) {
        let mut draw = self.lane(5);
        if draw.ratio(1, 4) {
            let node = draw.below(self.nodes as u64) as usize;
            let hand_over = draw.ratio(1, 2);
            self.add(Self::at(&mut draw), FaultKind::Stop { node, hand_over });
        }
    }
}

impl FaultKind {
    /// How long it lasts, if it does not end by itself.
    #[must_use]
    pub const fn lasts(&self) -> Option<u64> {
        match self {
            Self::Partition { lasts, .. }
            | Self::DiskFull { lasts, .. }
            | Self::SlowDisk { lasts, .. } => Some(*lasts),
            _ => None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", Time(self.at), self.kind)
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerCut { nodes, moment, survivors, rot, down } => {
                let nodes = nodes.iter().map(|node| node + 1).collect::<Vec<_>>();
                write!(f, "power-cut nodes {nodes:?} moment {moment:?} survivors {survivors:?}")?;
                if let Some(copy) = rot {
                    write!(f, " rot copy {copy}")?;
                }
                write!(f, " down {}", Time(*down))
            }
            Self::Kill { node, down } => write!(f, "kill node {} down {}", node + 1, Time(*down)),
            Self::Partition { side, both_ways, noticed, lasts } => {
                let side: String =
                    side.iter().map(|first| if *first { 'a' } else { 'b' }).collect();
                let ways = if *both_ways { "both-ways" } else { "one-way" };
                let noticed = if *noticed { "noticed" } else { "silent" };
                write!(f, "partition {side} {ways} {noticed} lasts {}", Time(*lasts))
            }
            Self::SyncFailure { node, failure } => {
                write!(f, "sync-failure node {} {failure:?}", node + 1)
            }
            Self::DiskFull { node, lasts } => {
                write!(f, "disk-full node {} lasts {}", node + 1, Time(*lasts))
            }
            Self::SlowDisk { node, factor, lasts } => {
                write!(f, "slow-disk node {} factor {factor} lasts {}", node + 1, Time(*lasts))
            }
            Self::Stop { node, hand_over } => {
                let hand_over = if *hand_over { " hand-over" } else { "" };
                write!(f, "stop node {}{hand_over}", node + 1)
            }
        }
    }
}

/// Simulated time as people read it: milliseconds with microseconds behind the point.
#[derive(Clone, Copy, Debug)]
pub struct Time(pub u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}ms", self.0 / MS, self.0 % MS / US)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_always_the_same_plan_and_another_seed_another() {
        assert_eq!(Plan::storm(7, 3), Plan::storm(7, 3));
        assert_ne!(Plan::storm(7, 3), Plan::storm(8, 3));
    }

    #[test]
    fn every_storm_is_a_configuration_that_works() {
        for seed in 0..300 {
            let plan = Plan::storm(seed, 5);
            plan.tuning.validate().unwrap();
            assert!(u64::from(plan.tuning.append_bytes_max) <= plan.segment_bytes / 2);
            assert!(plan.geometry.align.is_multiple_of(plan.geometry.sector));
            assert!(plan.faults.is_sorted_by_key(|fault| fault.at));
            let cuts = plan.faults.iter().filter(|f| matches!(f.kind, FaultKind::PowerCut { .. }));
            assert!(cuts.count() >= 3);
        }
    }

    #[test]
    fn a_sweep_of_storms_has_every_kind_of_fault() {
        let lines: Vec<String> = (0..100)
            .flat_map(|seed| Plan::storm(seed, 3).faults)
            .map(|fault| fault.to_string())
            .collect();
        for kind in ["power-cut", "kill", "one-way", "both-ways", "sync-failure", "disk-full"] {
            assert!(lines.iter().any(|line| line.contains(kind)), "{kind}");
        }
    }
}
