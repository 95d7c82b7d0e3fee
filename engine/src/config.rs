//! What a node is told about itself. Identity is fixed; tuning may change while it runs.

use crate::{
    entry::HEAD_BYTES,
    types::{GroupId, NodeId},
};
use std::{fmt, time::Duration};

/// The first segment's length, unless the largest is smaller.
const FIRST_SEGMENT_BYTES: u64 = 256 << 10;
/// The greatest unit of a disk.
const ALIGN_MAX: u32 = 65536;
/// How many of those a segment has, at least.
const UNITS_MIN: u64 = 16;
/// How many of those a block of a snapshot has.
pub(crate) const SNAPSHOT_BLOCK_UNITS: u32 = 64;
/// Of a message, what is no entry and no state: fates of forwarded batches, members, checksums. About
/// half of that at most.
const MESSAGE_HEAD_BYTES_MAX: u64 = 64 << 10;

/// Who a node is, and how its disk is cut. Fixed for an engine's life.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The replicated log this engine takes part in.
    pub group: GroupId,
    /// This node.
    pub node: NodeId,
    /// Writes start and end at multiples of this many bytes: 512..=65536, a power of two. The
    /// device's atomic unit, or a multiple of it. Fixed for a directory's life: one that was made with
    /// another is refused, and named (`other-align`).
    pub disk_align: u32,
    /// The largest log segment in bytes, a power of two, at least 16 times `disk_align`. The first
    /// segment is smaller (256 KiB) and each next twice as large, up to this.
    pub segment_bytes: u64,
    /// The first log segment in bytes, a power of two; no smaller than 16 times `disk_align` and no
    /// larger than the largest in any case. For the simulator, whose logs are short: it meets segments of all
    /// lengths by it.
    #[doc(hidden)]
    pub first_segment_bytes: u64,
    /// Of how many groups this one is one, where its embedder spreads what it keeps over several.
    /// The engine makes nothing of it: each snapshot says it, so that a backup does
    /// ([`Backup::groups`](crate::Backup)). Zero: not said.
    pub groups: u32,
    /// The machine writes its own state durably, and each further life begins with
    /// [`Start::Resume`](crate::Start). It is given no entry before this node's log holds it durably:
    /// else a crash could leave it ahead of the log. Must be set in the first life already.
    pub machine_keeps_state: bool,
    /// Timing and limits.
    pub tuning: Tuning,
}

/// Whether a disk may be cut into units of so many bytes.
pub(crate) fn is_align(bytes: u32) -> bool {
    bytes.is_power_of_two() && (512..=ALIGN_MAX).contains(&bytes)
}

impl Config {
    /// A node with everything else at its default.
    #[must_use]
    pub fn new(group: GroupId, node: NodeId) -> Self {
        Self {
            group,
            node,
            disk_align: 4096,
            segment_bytes: 64 << 20,
            first_segment_bytes: FIRST_SEGMENT_BYTES,
            groups: 0,
            machine_keeps_state: false,
            tuning: Tuning::default(),
        }
    }

    /// The most bytes of one message from a node whose segments are no larger, however it is tuned: an
    /// entry, or a block of a snapshot, and what tells of it. What is longer no correct peer sends.
    #[must_use]
    pub fn message_bytes_max(&self) -> u64 {
        let block = u64::from(ALIGN_MAX * SNAPSHOT_BLOCK_UNITS);
        block.max(self.entry_bytes_max()) + MESSAGE_HEAD_BYTES_MAX
    }

    /// The length of the first segment.
    pub(crate) fn first_segment_len(&self) -> u64 {
        let least = u64::from(self.disk_align) * UNITS_MIN;
        self.first_segment_bytes.max(least).min(self.segment_bytes)
    }

    /// Checks what each value and the relations between them must hold.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !is_align(self.disk_align) {
            return Err(ConfigError::DiskAlign(self.disk_align));
        }
        let least = u64::from(self.disk_align) * UNITS_MIN;
        for (bytes, least) in [(self.segment_bytes, least), (self.first_segment_bytes, 512)] {
            if !bytes.is_power_of_two() || !(least..=1 << 31).contains(&bytes) {
                return Err(ConfigError::SegmentBytes(bytes));
            }
        }
        self.tuning.fits(self.entry_bytes_max())
    }

    /// The largest entry that a segment takes: half of it is header, slots and guard at most.
    pub(crate) const fn entry_bytes_max(&self) -> u64 {
        self.segment_bytes / 2
    }
}

/// Timing and limits. Every queue has a maximum in bytes; beyond it the answer is `Busy`. What must
/// hold of them together [`Tuning::validate`] checks; a running node that is given others keeps those
/// it has, and says why ([`Note::TuningRefused`](crate::Note)).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Tuning {
    /// How often an idle leader is heard of. Above zero; 100 ms unless set.
    pub heartbeat: Duration,
    /// The least and the most silence after which a follower campaigns; drawn anew each time. The
    /// least is at least two heartbeats and below the most; 1 s and 2 s unless set.
    pub election: (Duration, Duration),
    /// How long a peer that has every entry, and no client who waits for one, goes without hearing
    /// that they are committed when nothing else is sent to it. Most often the next entries tell it
    /// before, which spares a message and a wake for each write. Zero: it is told at once. At most
    /// a heartbeat; 1 ms unless set.
    pub commit_notice: Duration,
    /// After how long without a request a group rests: its nodes send no heartbeats and need no
    /// clock until something happens. At least a heartbeat. Zero: never. Only under a driver that
    /// says [`Event::Link`](crate::Event::Link) by whether the peer's *node* lives, as
    /// [`Host`](crate::Host) does: nothing else tells a follower at rest that its leader is gone.
    /// Zero unless set.
    pub hibernate_after: Duration,
    /// Whether a follower sends proposals on to the leader; else it refuses them. It does unless
    /// set.
    pub forward: bool,
    /// The most by which the clocks of two nodes drift apart, in parts per million, below a
    /// million. Reads under a lease are as fresh as others if clocks keep that, and the least
    /// election timeouts of all nodes are alike. Before those become others on nodes that run, leases end on
    /// all of them (`None`), and begin again when all have the new ones: whoever leads in between may count on
    /// another patience than the others have. `None`: no leases, such reads take a round.
    /// `None` unless set.
    pub lease_drift_ppm: Option<u32>,
    /// The most commands that share an entry. One gives the classic form. At least one; without a
    /// bound unless set.
    pub entry_commands_max: u32,
    /// The most bytes of one entry, and of one append message unless a single entry is larger. Room
    /// for one command at least, half of [`Config::segment_bytes`] at most; 1 MiB unless set.
    pub append_bytes_max: u32,
    /// The most append bytes on the way to one peer. At least `append_bytes_max`; 16 MiB unless
    /// set.
    pub inflight_bytes_max: u64,
    /// The most log writes in flight. At least one; 8 unless set.
    pub writes_inflight_max: u32,
    /// What proposals may cost, in bytes, that wait until their entry is handed to the machine: their
    /// commands, and 128 for each run of them that somebody waits for. At a leader also all of its log that its
    /// own disk does not hold yet, reckoned as for `cache_bytes_max`: others may commit without it. What goes
    /// beyond it is [`Busy`](crate::Refusal::Busy). At least `append_bytes_max`; 64 MiB unless set.
    pub propose_bytes_max: u64,
    /// The most bytes handed out to the machine and not yet applied. At least `append_bytes_max`;
    /// 16 MiB unless set. A restart reads ahead for the machine: as many at most, and no more than four times
    /// `append_bytes_max`.
    pub apply_bytes_max: u64,
    /// What the log in memory may cost, in bytes, that is kept for peers and the machine: its entries,
    /// and 256 for each piece that they came in; of the memory that small pieces share an eighth at most lies
    /// idle beside that. While a snapshot is on its way to a node, also what may wait there of what follows
    /// it, reckoned alike; when that comes into the log it is held twice until the disk has it. At least
    /// `append_bytes_max`; 64 MiB unless set.
    pub cache_bytes_max: u64,
    /// The most bytes read from disk for lagging peers at one time, all together. At least
    /// `append_bytes_max`; 16 MiB unless set.
    pub catch_up_bytes_max: u64,
    /// The most bytes of a snapshot handed out to the machine and not yet taken in, and read ahead for it;
    /// one block of a snapshot, of 64 units of [`Config::disk_align`], is handed out in any case. Above zero;
    /// 16 MiB unless set.
    pub restore_bytes_max: u64,
    /// A snapshot is taken when the log since the last one exceeds this many bytes, or four times
    /// the last snapshot, whichever is more. Zero: only on request. 64 MiB unless set.
    pub snapshot_log_bytes: u64,
    /// A snapshot is taken, if anything was applied since the last one, when that is so long ago.
    /// Zero: never for its age. Zero unless set.
    pub snapshot_age: Duration,
    /// How long a pinned snapshot is kept without being read. Above zero; 60 s unless set.
    pub pin_idle: Duration,
    /// The most bytes of log kept for members that lag, beyond what snapshots leave: whoever lags
    /// further is sent a snapshot. None is kept for them while the disk has no room for more log. 1 GiB unless
    /// set.
    pub retain_log_bytes: u64,
    /// The most bytes of log kept behind a snapshot on its way to a member, or `retain_log_bytes`, or four times
    /// the newest snapshot, whichever is more. Where more is written meanwhile, or the disk has no room for more log, that snapshot
    /// is given up, and the newest one sent in its place. Less than what is written while one is sent: none
    /// ever arrives. 8 GiB unless set.
    pub transfer_log_bytes_max: u64,
    /// The most members that are sent a snapshot at one time; others wait for their turn, learners for voters. At
    /// least one; 2 unless set.
    pub transfers_max: u32,
    /// The most bytes of snapshots sent in a second, to all members together, and evenly: never more at one
    /// time than a piece for each, and what a sixteenth of a heartbeat brings. Zero: as fast as the receivers'
    /// disks take them. Zero unless set. While commands are written a snapshot gives way to them in either case,
    /// and takes a third of the time.
    pub transfer_bytes_per_second: u64,
    /// How long a pass over log and snapshots takes that reads all of it again, one piece at a
    /// time, to find what has gone bad on the disk while there is another one. Zero: none are made.
    /// What a restart has not read is read behind it in either case. Zero unless set.
    pub scrub_interval: Duration,
    /// How much longer than by its election timeout this node waits before it campaigns: its
    /// priority, which other nodes need not know of. Nodes that wait an election timeout more than
    /// another lead only when that one is away, is behind, or hands over to them. A delay never
    /// decides who may lead, and ends: without those who come first the others elect one of
    /// themselves. Zero unless set.
    pub election_delay: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election: (Duration::from_millis(1000), Duration::from_millis(2000)),
            commit_notice: Duration::from_millis(1),
            hibernate_after: Duration::ZERO,
            forward: true,
            lease_drift_ppm: None,
            entry_commands_max: u32::MAX,
            append_bytes_max: 1 << 20,
            inflight_bytes_max: 16 << 20,
            writes_inflight_max: 8,
            propose_bytes_max: 64 << 20,
            apply_bytes_max: 16 << 20,
            cache_bytes_max: 64 << 20,
            catch_up_bytes_max: 16 << 20,
            restore_bytes_max: 16 << 20,
            snapshot_log_bytes: 64 << 20,
            snapshot_age: Duration::ZERO,
            pin_idle: Duration::from_secs(60),
            retain_log_bytes: 1 << 30,
            transfer_log_bytes_max: 8 << 30,
            transfers_max: 2,
            transfer_bytes_per_second: 0,
            scrub_interval: Duration::ZERO,
            election_delay: Duration::ZERO,
        }
    }
}

impl Tuning {
    /// As [`validate`](Self::validate), and whether segments with room for such entries hold all.
    pub(crate) fn fits(&self, entry_bytes_max: u64) -> Result<(), ConfigError> {
        self.validate()?;
        if u64::from(self.append_bytes_max) > entry_bytes_max {
            return Err(ConfigError::AppendExceedsSegment);
        }
        Ok(())
    }

    /// Checks what each value and the relations between them must hold.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.heartbeat.is_zero() || self.election.0 < self.heartbeat.saturating_mul(2) {
            return Err(ConfigError::ElectionNotAboveHeartbeat);
        }
        if self.election.1 <= self.election.0 {
            return Err(ConfigError::ElectionRangeEmpty);
        }
        if self.append_bytes_max as usize <= HEAD_BYTES + 4 || self.entry_commands_max == 0 {
            return Err(ConfigError::NothingFits);
        }
        let counts = [self.writes_inflight_max, self.transfers_max];
        if counts.contains(&0) || self.restore_bytes_max == 0 || self.pin_idle.is_zero() {
            return Err(ConfigError::NothingFits);
        }
        if self.commit_notice > self.heartbeat {
            return Err(ConfigError::NoticeAboveHeartbeat);
        }
        if !self.hibernate_after.is_zero() && self.hibernate_after < self.heartbeat {
            return Err(ConfigError::RestBelowHeartbeat);
        }
        let append = u64::from(self.append_bytes_max);
        let queues = [
            self.inflight_bytes_max,
            self.propose_bytes_max,
            self.apply_bytes_max,
            self.cache_bytes_max,
            self.catch_up_bytes_max,
        ];
        if queues.into_iter().any(|queue| queue < append) {
            return Err(ConfigError::AppendExceedsQueue);
        }
        Ok(())
    }
}

/// A configuration that cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// `disk_align` is no power of two in 512..=65536.
    DiskAlign(u32),
    /// `segment_bytes` is no power of two in 16 * `disk_align` ..= 2 GiB.
    SegmentBytes(u64),
    /// The least election timeout is not at least two heartbeats.
    ElectionNotAboveHeartbeat,
    /// `commit_notice` exceeds the heartbeat, which tells the same.
    NoticeAboveHeartbeat,
    /// `hibernate_after` is shorter than the heartbeat that would have to offer it.
    RestBelowHeartbeat,
    /// The least election timeout is not below the most.
    ElectionRangeEmpty,
    /// Not one command fits into an entry, not one write or transfer may be under way, not one byte may
    /// be restored, or a pin ends before it can be read.
    NothingFits,
    /// `append_bytes_max` exceeds half of `segment_bytes`.
    AppendExceedsSegment,
    /// `append_bytes_max` exceeds a queue that must hold at least one append.
    AppendExceedsQueue,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DiskAlign(found) => {
                write!(f, "disk_align must be a power of two from 512 to 65536, not {found}")
            }
            Self::SegmentBytes(found) => write!(
                f,
                "segment_bytes must be a power of two from 16 times disk_align to 2 GiB, not \
                 {found}"
            ),
            Self::ElectionNotAboveHeartbeat => {
                f.write_str("the least election timeout must be at least two heartbeats")
            }
            Self::NoticeAboveHeartbeat => {
                f.write_str("commit_notice must not exceed the heartbeat, which tells the same")
            }
            Self::RestBelowHeartbeat => {
                f.write_str("hibernate_after must be zero, which is never, or at least a heartbeat")
            }
            Self::ElectionRangeEmpty => {
                f.write_str("the least election timeout must be below the most")
            }
            Self::NothingFits => f.write_str(
                "append_bytes_max, entry_commands_max, writes_inflight_max and transfers_max must \
                 admit one command, restore_bytes_max a byte, and pin_idle some time",
            ),
            Self::AppendExceedsSegment => {
                f.write_str("append_bytes_max must not exceed half of segment_bytes")
            }
            Self::AppendExceedsQueue => f.write_str(
                "append_bytes_max must not exceed inflight, propose, apply, cache or catch_up \
                 bytes",
            ),
        }
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each limit by the last value that it lets through and the first that it does not.
    #[test]
    fn every_limit_is_where_its_documentation_says() {
        use ConfigError::*;
        type Set = fn(&mut Tuning, u64);
        let millis = Duration::from_millis;
        let default = Tuning::default();
        assert_eq!((default.heartbeat, default.append_bytes_max), (millis(100), 1 << 20));
        let limits: [(Set, u64, u64, ConfigError); 17] = [
            (|t, ms| t.heartbeat = Duration::from_millis(ms), 1, 0, ElectionNotAboveHeartbeat),
            (|t, ms| t.heartbeat = Duration::from_millis(ms), 500, 501, ElectionNotAboveHeartbeat),
            (|t, ms| t.election.1 = Duration::from_millis(ms), 1001, 1000, ElectionRangeEmpty),
            (|t, ms| t.commit_notice = Duration::from_millis(ms), 100, 101, NoticeAboveHeartbeat),
            (|t, ms| t.hibernate_after = Duration::from_millis(ms), 100, 99, RestBelowHeartbeat),
            (|t, ms| t.hibernate_after = Duration::from_millis(ms), 0, 1, RestBelowHeartbeat),
            (|t, n| t.append_bytes_max = n as u32, LEAST_APPEND, LEAST_APPEND - 1, NothingFits),
            (|t, n| t.entry_commands_max = n as u32, 1, 0, NothingFits),
            (|t, n| t.writes_inflight_max = n as u32, 1, 0, NothingFits),
            (|t, n| t.transfers_max = n as u32, 1, 0, NothingFits),
            (|t, n| t.restore_bytes_max = n, 1, 0, NothingFits),
            (|t, ns| t.pin_idle = Duration::from_nanos(ns), 1, 0, NothingFits),
            (|t, n| t.inflight_bytes_max = n, 1 << 20, (1 << 20) - 1, AppendExceedsQueue),
            (|t, n| t.propose_bytes_max = n, 1 << 20, (1 << 20) - 1, AppendExceedsQueue),
            (|t, n| t.apply_bytes_max = n, 1 << 20, (1 << 20) - 1, AppendExceedsQueue),
            (|t, n| t.cache_bytes_max = n, 1 << 20, (1 << 20) - 1, AppendExceedsQueue),
            (|t, n| t.catch_up_bytes_max = n, 1 << 20, (1 << 20) - 1, AppendExceedsQueue),
        ];
        for (line, (set, good, bad, error)) in limits.into_iter().enumerate() {
            let with = |value| {
                let mut tuning = default.clone();
                set(&mut tuning, value);
                tuning.validate()
            };
            assert_eq!((with(good), with(bad)), (Ok(()), Err(error)), "line {line}");
        }
    }

    /// The head of an entry, the length of a command, and a byte of it.
    const LEAST_APPEND: u64 = HEAD_BYTES as u64 + 5;

    #[test]
    fn a_disk_is_cut_into_units_and_segments_of_many() {
        let with = |align, segment| {
            let mut config = Config::new(GroupId(1), NodeId(1));
            (config.disk_align, config.segment_bytes) = (align, segment);
            config.tuning.append_bytes_max = 4096;
            config.validate()
        };
        for (align, segment) in [(512, 8192), (4096, 64 << 10), (65536, 1 << 20), (512, 1 << 31)] {
            assert_eq!(with(align, segment), Ok(()), "{align}, {segment}");
        }
        for align in [0, 256, 513, 4095, 128 << 10] {
            assert_eq!(with(align, 64 << 20), Err(ConfigError::DiskAlign(align)));
        }
        for (align, segment) in [(512, 4096), (4096, 32 << 10), (512, 12288), (512, 1 << 32)] {
            assert_eq!(with(align, segment), Err(ConfigError::SegmentBytes(segment)), "{align}");
        }
        let mut config = Config::new(GroupId(1), NodeId(1));
        config.segment_bytes = 1 << 20;
        assert_eq!(config.validate(), Err(ConfigError::AppendExceedsSegment));
        config.tuning.append_bytes_max = 512 << 10;
        assert_eq!(config.validate(), Ok(()));
    }
}
