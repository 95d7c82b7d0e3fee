//! From a seed to a plan.
//!
//! Swarm testing: each seed draws which faults exist at all, at which rates, and under which
//! limits, so that rare mixes are met.

use super::{
    Asks, DiskTimes, Fault, FaultKind, Latency, Links, MS, Manner, Minority, Plan, Sessions,
    Targets, US,
    site::Site,
    swarm::{Faults, answers_come_late},
};
use crate::{disk::Geometry, prng::Draw};
use lakebed::Tuning;
use std::time::Duration;

impl Plan {
    /// A stormy run of this many nodes: everything else is drawn from the seed.
    #[must_use]
    pub fn storm(seed: u64, nodes: usize) -> Self {
        let mut draw = Site::Profile.draw(seed);
        let align = *draw.pick(&[512, 512, 4096]);
        let sector = if align == 4096 { *draw.pick(&[512, 4096]) } else { 512 };
        let segment_bytes = *draw.pick(&[64 << 10, 128 << 10]);
        let snapshot = *draw.pick(&[0, 8 << 10, 16 << 10, 32 << 10]);
        let mut plan = Self {
            seed,
            nodes,
            joining: 0,
            targets: Targets { events: 2_000, answers: 100, crashes: 2 },
            clients: vec![Asks::all(); draw.between(2, 6) as usize],
            geometry: Geometry {
                sector,
                align,
                tears: Site::Tears.draw(seed).ratio(1, 4),
                sync_names: Site::SyncNames.draw(seed).ratio(1, 4),
            },
            segment_bytes,
            first_segment_bytes: swarm_first_segment(seed, align),
            tuning: swarm_limits(seed, swarm_tuning(&mut draw, snapshot)),
            links: swarm_links(&mut draw),
            disk: swarm_disk(&mut draw),
            drift_ppm: swarm_drift(seed, &mut draw, nodes),
            think: Latency { least: 100 * US, tail: *draw.pick(&[MS, 5 * MS]) },
            manner: Manner::of_storm(seed),
            keeps: swarm_keeps(seed),
            sessions: Sessions::of_storm(seed),
            minority: Minority::of_storm(seed),
            faults: Faults::new(seed, nodes).draw(),
        };
        plan.tuning.lease_drift_ppm = plan.swarm_lease();
        plan.keep_leases();
        if answers_come_late(seed) {
            plan.manner.readers = plan.manner.readers.max(1);
        }
        plan
    }

    /// Leases are as good as the least election timeouts of all nodes are alike.
    fn keep_leases(&mut self) {
        for fault in self.faults.iter_mut().filter(|_| self.tuning.lease_drift_ppm.is_some()) {
            if let FaultKind::Tune { to, .. } = &mut fault.kind {
                to.election = 100;
            }
        }
    }

    /// Whether no clock that timers go by ever stands still.
    #[must_use]
    pub fn clocks_go_on(&self) -> bool {
        let stalls = |fault: &Fault| matches!(fault.kind, FaultKind::StalledClock { .. });
        !self.faults.iter().any(stalls)
    }

    /// How long it takes at most, in simulated time, until so much has passed by a node's clock.
    #[must_use]
    pub fn longest(&self, nanos: u64) -> u64 {
        let least = self.drift_ppm.iter().copied().min().unwrap_or(0);
        let pace = 1_000_000_u64.saturating_add_signed(least).max(1);
        u64::try_from(u128::from(nanos) * 1_000_000 / u128::from(pace) + 1).unwrap_or(u64::MAX)
    }

    /// The longest election timeout that any node ever has, in nanoseconds by its clock.
    #[must_use]
    pub fn election_max(&self) -> u64 {
        let most = |percent: fn(&FaultKind) -> Option<u32>| {
            let percents = self.faults.iter().filter_map(|fault| percent(&fault.kind));
            u64::from(percents.max().unwrap_or(100).max(100))
        };
        let of_one = most(|kind| match kind {
            FaultKind::Tune { to, .. } => Some(to.election),
            _ => None,
        });
        let of_all = most(|kind| match kind {
            FaultKind::Times { to } => Some(to.election),
            _ => None,
        });
        let planned = u64::try_from(self.tuning.election.1.as_nanos()).unwrap_or(u64::MAX);
        planned.saturating_mul(of_one * of_all) / 10_000
    }

    /// Whatever any node is ever tuned to, what it begins with first.
    pub(crate) fn tunings(&self) -> impl Iterator<Item = Tuning> + '_ {
        let tuned = self.faults.iter().filter_map(|fault| match &fault.kind {
            FaultKind::Tune { to, .. } => Some(to.of(&self.tuning)),
            _ => None,
        });
        std::iter::once(self.tuning.clone()).chain(tuned)
    }

    /// The most log that any node ever keeps in memory, in bytes.
    #[must_use]
    pub fn cache_bytes_max(&self) -> u64 {
        self.tunings().map(|tuning| tuning.cache_bytes_max).max().unwrap_or_default()
    }

    /// Whether nodes read all that they have again so often that it is no long wait.
    pub(crate) fn scrubs_often(&self) -> bool {
        const OFTEN: Duration = Duration::from_millis(400);
        (Duration::from_nanos(1)..=OFTEN).contains(&self.tuning.scrub_interval)
    }

    /// Leases in some runs, where clocks keep what is declared of them.
    fn swarm_lease(&self) -> Option<u32> {
        let wants = Site::Lease.draw(self.seed).ratio(1, 2);
        let wants = wants || answers_come_late(self.seed);
        (wants && self.clocks_go_on()).then(|| self.drift_apart())
    }

    /// By how much the slowest clock falls behind the fastest, in parts per million of the latter.
    #[must_use]
    pub fn drift_apart(&self) -> u32 {
        let most = self.drift_ppm.iter().copied().max().unwrap_or(0);
        let least = self.drift_ppm.iter().copied().min().unwrap_or(0);
        let apart = ((most - least) * 1_000_000).div_euclid(1_000_000 + most) + 1;
        u32::try_from(apart).unwrap_or(u32::MAX)
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

/// One storm in four has machines that keep their own state: as far as they may at once, or some way
/// behind.
fn swarm_keeps(seed: u64) -> u64 {
    let mut draw = Site::Keeps.draw(seed);
    if draw.ratio(1, 4) { *draw.pick(&[1, 4, 32]) } else { 0 }
}

/// Segments that grow, in three runs of four; in the others all are as long as the largest.
fn swarm_first_segment(seed: u64, align: u32) -> u64 {
    let mut draw = Site::FirstSegment.draw(seed);
    let first = *draw.pick(&[8 << 10, 8 << 10, 16 << 10, 256 << 10]);
    first.max(16 * u64::from(align))
}

/// Queues that hold little more than one append, in some runs: they are met full. And word of what
/// is committed at once, soon, or only with heartbeats.
fn swarm_limits(seed: u64, mut tuning: Tuning) -> Tuning {
    let mut draw = Site::Limits.draw(seed);
    let append = u64::from(tuning.append_bytes_max);
    if draw.ratio(1, 4) {
        tuning.inflight_bytes_max = append;
    }
    if draw.ratio(1, 4) {
        tuning.propose_bytes_max = append;
    }
    tuning.commit_notice = Duration::from_millis(*draw.pick(&[0, 1, 1, 10]));
    tuning.retain_log_bytes = *draw.pick(&[0, 0, 64 << 10, 1 << 30]);
    tuning.transfer_log_bytes_max = *Site::Behind.draw(seed).pick(&[8 << 10, 64 << 10, 8 << 30]);
    tuning.transfers_max = *draw.pick(&[1, 2]);
    tuning.transfer_bytes_per_second = *draw.pick(&[0, 0, 0, 64 << 10]);
    tuning.scrub_interval = Duration::from_millis(*draw.pick(&[0, 0, 200, 2000]));
    tuning.election_delay = *draw.pick(&[Duration::ZERO, Duration::ZERO, tuning.election.1]);
    tuning
}

/// Clocks are off by a thousandth at most, and in some runs by a twentieth.
fn swarm_drift(seed: u64, draw: &mut Draw, nodes: usize) -> Vec<i64> {
    let little = (0..nodes).map(|_| draw.below(2001) as i64 - 1000).collect();
    let mut draw = Site::Drift.draw(seed);
    if draw.ratio(1, 6) {
        return (0..nodes).map(|_| draw.below(100_001) as i64 - 50_000).collect();
    }
    little
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
