//! What a running node's timing and limits become.

use super::{
    MS,
    text::{Field, plain, time},
};
use crate::prng::Draw;
use lakebed::Tuning;
use std::time::Duration;

/// Timing and limits as others than those that a node was started with; what it does not name stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retuning {
    /// The heartbeat, in parts of a hundred of the plan's.
    pub heartbeat: u32,
    /// The election timeouts, in parts of a hundred of the plan's.
    pub election: u32,
    /// `inflight_bytes_max`, but for one append at least.
    pub inflight_bytes: u64,
    /// `cache_bytes_max`, but for one append at least.
    pub cache_bytes: u64,
    /// `snapshot_log_bytes`.
    pub snapshot_log_bytes: u64,
    /// `snapshot_age`, in nanoseconds.
    pub snapshot_age: u64,
    /// `retain_log_bytes`.
    pub retain_log_bytes: u64,
}

/// All as it was; a line of a plan says each of them.
pub(super) const BLANK: Retuning = Retuning {
    heartbeat: 100,
    election: 100,
    inflight_bytes: 0,
    cache_bytes: 0,
    snapshot_log_bytes: 0,
    snapshot_age: 0,
    retain_log_bytes: 0,
};

/// How often whoever leads is heard of, and how long others wait for that: of all nodes at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Times {
    /// The heartbeat, in parts of a hundred of the plan's.
    pub heartbeat: u32,
    /// The election timeouts, in parts of a hundred of the plan's.
    pub election: u32,
}

impl Times {
    /// As the plan has them.
    pub(crate) const PLANNED: Self = Self { heartbeat: 100, election: 100 };

    pub(super) fn drawn(draw: &mut Draw) -> Self {
        let (heartbeat, election) = *draw.pick(&[(100, 200), (100, 200), (50, 100), (50, 50)]);
        Self { heartbeat, election }
    }

    /// What becomes of this.
    pub(crate) fn of(self, before: &Tuning) -> Tuning {
        let mut tuning = before.clone();
        tuning.heartbeat = before.heartbeat * self.heartbeat / 100;
        let election = before.election;
        tuning.election = (election.0 * self.election / 100, election.1 * self.election / 100);
        tuning.commit_notice = tuning.commit_notice.min(tuning.heartbeat);
        tuning
    }

    pub(super) fn fields(&mut self) -> Vec<Field<'_>> {
        vec![
            plain("heartbeat-percent", &mut self.heartbeat),
            plain("election-percent", &mut self.election),
        ]
    }
}

impl Retuning {
    pub(super) fn drawn(draw: &mut Draw) -> Self {
        Self {
            heartbeat: *draw.pick(&[50, 100, 150]),
            election: *draw.pick(&[70, 100, 200]),
            inflight_bytes: *draw.pick(&[0, 4 << 10, 64 << 10]),
            cache_bytes: *draw.pick(&[0, 16 << 10, 1 << 20]),
            snapshot_log_bytes: *draw.pick(&[0, 8 << 10, 32 << 10]),
            snapshot_age: *draw.pick(&[0, 0, 80 * MS]),
            retain_log_bytes: *draw.pick(&[0, 64 << 10, 1 << 30]),
        }
    }

    /// What becomes of this.
    pub(crate) fn of(&self, before: &Tuning) -> Tuning {
        let mut tuning = Times { heartbeat: self.heartbeat, election: self.election }.of(before);
        let append = u64::from(tuning.append_bytes_max);
        tuning.inflight_bytes_max = self.inflight_bytes.max(append);
        tuning.cache_bytes_max = self.cache_bytes.max(append);
        tuning.snapshot_log_bytes = self.snapshot_log_bytes;
        tuning.snapshot_age = Duration::from_nanos(self.snapshot_age);
        tuning.retain_log_bytes = self.retain_log_bytes;
        tuning
    }

    pub(super) fn fields(&mut self) -> Vec<Field<'_>> {
        vec![
            plain("heartbeat-percent", &mut self.heartbeat),
            plain("election-percent", &mut self.election),
            plain("inflight-bytes", &mut self.inflight_bytes),
            plain("cache-bytes", &mut self.cache_bytes),
            plain("snapshot-log-bytes", &mut self.snapshot_log_bytes),
            time("snapshot-age", &mut self.snapshot_age),
            plain("retain-log-bytes", &mut self.retain_log_bytes),
        ]
    }
}
