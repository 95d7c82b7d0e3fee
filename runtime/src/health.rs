//! What a driver sees of its surroundings and the engine does not: how long its disk takes,
//! how much room is left, how old the newest snapshot is.
//!
//! Counted by relaxed atomics where it happens, looked at by whoever wants to know.

use crate::driver::Disk;
use lakebed::{Class, DiskRequest, Event, File, OpId, Status};
use rustix::fs::statvfs;
use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::Context,
    time::{Duration, Instant, SystemTime},
};

/// The upper bounds of the classes that [`Latency`] counts by.
pub const LATENCY_BOUNDS: [Duration; 12] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_secs(1),
];
/// The slowest write is remembered for this long at least, and twice as long at most.
const RECENT: Duration = Duration::from_secs(60);

/// A node's health, counted and measured. Shared by the node and all who look.
#[derive(Debug)]
pub struct Health {
    dir: PathBuf,
    /// Since when.
    began: Instant,
    /// Bytes of durable writes.
    written_bytes: AtomicU64,
    /// How many of them took how long: the last class is everything above the last bound.
    writes: [AtomicU64; LATENCY_BOUNDS.len() + 1],
    nanos: AtomicU64,
    slowest: Mutex<Slowest>,
}

/// The slowest write of this window of time and of the one before.
#[derive(Clone, Copy, Debug, Default)]
struct Slowest {
    window: u64,
    now: Duration,
    before: Duration,
}

/// How long writes took that somebody waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Latency {
    /// How many took at most [`LATENCY_BOUNDS`], class by class; the last ones took longer.
    pub counts: [u64; LATENCY_BOUNDS.len() + 1],
    /// All of them together.
    pub sum: Duration,
    /// The slowest of the last minute or two.
    pub slowest: Duration,
}

/// The file system of a node's directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Bytes that this process may still write.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

impl Health {
    pub(crate) fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            began: Instant::now(),
            written_bytes: AtomicU64::default(),
            writes: Default::default(),
            nanos: AtomicU64::default(),
            slowest: Mutex::default(),
        }
    }

    /// Bytes of durable writes.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Relaxed)
    }

    /// How long durable writes took that somebody waited for.
    #[must_use]
    pub fn latency(&self) -> Latency {
        Latency {
            counts: self.writes.each_ref().map(|count| count.load(Relaxed)),
            sum: Duration::from_nanos(self.nanos.load(Relaxed)),
            slowest: self.slowest().at(self.window()).slowest(),
        }
    }

    /// The room on the node's file system; `None` if the system does not tell. May wait for the
    /// disk.
    #[must_use]
    pub fn room(&self) -> Option<Room> {
        let found = statvfs(&self.dir).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Some(Room { free_bytes: bytes(found.f_bavail), total_bytes: bytes(found.f_blocks) })
    }

    /// How old the newest snapshot of this status is; `None` without one. May wait for the disk.
    #[must_use]
    pub fn snapshot_age(&self, status: &Status) -> Option<Duration> {
        Self::snapshot_age_in(&self.dir, status)
    }

    /// The same of a group that has this directory.
    #[must_use]
    pub fn snapshot_age_in(dir: &Path, status: &Status) -> Option<Duration> {
        let file = dir.join(File::Snapshot(status.snapshot).name());
        let made = std::fs::metadata(file).ok()?.modified().ok()?;
        Some(SystemTime::now().duration_since(made).unwrap_or_default())
    }

    /// The node's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn on_written(&self, bytes: u64, took: Duration) {
        self.written_bytes.fetch_add(bytes, Relaxed);
        self.writes[LATENCY_BOUNDS.partition_point(|bound| *bound < took)].fetch_add(1, Relaxed);
        self.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        let window = self.window();
        let mut slowest = self.slowest();
        *slowest = slowest.at(window);
        slowest.now = slowest.now.max(took);
    }

    fn window(&self) -> u64 {
        self.began.elapsed().as_secs() / RECENT.as_secs()
    }

    fn slowest(&self) -> std::sync::MutexGuard<'_, Slowest> {
        self.slowest.lock().expect("nothing panics while it holds two durations")
    }
}

impl Slowest {
    /// As it is in this window.
    fn at(self, window: u64) -> Self {
        match window - self.window.min(window) {
            0 => self,
            1 => Self { window, now: Duration::ZERO, before: self.now },
            _ => Self { window, ..Self::default() },
        }
    }

    fn slowest(self) -> Duration {
        self.now.max(self.before)
    }
}

impl Latency {
    /// How many writes.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How long they took on average; zero if there was none.
    #[must_use]
    pub fn mean(&self) -> Duration {
        let count = u32::try_from(self.count()).unwrap_or(u32::MAX);
        self.sum.checked_div(count).unwrap_or_default()
    }
}

/// The durable writes in flight of one engine: which, of how many bytes, since when.
#[derive(Default)]
pub(crate) struct Writes(VecDeque<(OpId, u64, Instant)>);

impl Writes {
    pub(crate) fn on_submitted(&mut self, op: OpId, class: Class, request: &DiskRequest) {
        if let (Class::Commit, DiskRequest::Write { at, and, durable: true, .. }) = (class, request)
        {
            let bytes = at.len() + and.as_ref().map_or(0, lakebed::Extent::len);
            self.0.push_back((op, bytes, Instant::now()));
        }
    }

    pub(crate) fn on_completed(&mut self, op: OpId, health: &Health) {
        let place = self.0.iter().position(|(write, ..)| *write == op);
        if let Some((_, bytes, begun)) = place.and_then(|place| self.0.swap_remove_back(place)) {
            health.on_written(bytes, begun.elapsed());
        }
    }
}

/// A disk whose durable writes are timed.
pub(crate) struct Timed<D> {
    disk: D,
    health: Arc<Health>,
    writes: Writes,
}

impl<D> Timed<D> {
    pub(crate) fn new(disk: D, health: Arc<Health>) -> Self {
        Self { disk, health, writes: Writes::default() }
    }
}

impl<D: Disk> Disk for Timed<D> {
    fn submit(&mut self, op: OpId, class: Class, request: DiskRequest) {
        self.writes.on_submitted(op, class, &request);
        self.disk.submit(op, class, request);
    }

    fn flush(&mut self) {
        self.disk.flush();
    }

    fn poll_completed(&mut self, cx: &mut Context<'_>, events: &mut Vec<Event>) {
        let before = events.len();
        self.disk.poll_completed(cx, events);
        for event in &events[before..] {
            let Event::Completed { op, .. } = event else { continue };
            self.writes.on_completed(*op, &self.health);
        }
    }

    fn is_idle(&self) -> bool {
        self.disk.is_idle()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_counted_by_class() {
        let health = Health::new("/");
        for micros in [100, 101, 999, 1_000, 2_000_000] {
            health.on_written(4096, Duration::from_micros(micros));
        }
        let latency = health.latency();
        assert_eq!(latency.counts[..4], [1, 1, 0, 2]);
        assert_eq!((latency.counts[12], latency.count()), (1, 5));
        assert_eq!(latency.slowest, Duration::from_secs(2));
        assert_eq!(latency.mean(), latency.sum / 5);
        assert_eq!(health.written_bytes(), 5 * 4096);
        assert_eq!(Health::new("/").latency().mean(), Duration::ZERO);
    }

    #[test]
    fn the_slowest_write_is_forgotten_in_time() {
        let first = Slowest { window: 3, now: Duration::from_secs(1), before: Duration::ZERO };
        assert_eq!(first.at(3).slowest(), Duration::from_secs(1));
        assert_eq!(first.at(4).slowest(), Duration::from_secs(1));
        assert_eq!(first.at(5).slowest(), Duration::ZERO);
        assert_eq!(first.at(4).at(5).slowest(), Duration::ZERO);
    }

    #[test]
    fn a_file_system_has_room_and_a_young_node_no_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        let health = Health::new(dir.path());
        let room = health.room().unwrap();
        assert!(0 < room.free_bytes && room.free_bytes <= room.total_bytes, "{room:?}");
        assert_eq!(health.snapshot_age(&Status::default()), None);
        let snapshot = File::Snapshot(Status::default().snapshot).name();
        std::fs::write(dir.path().join(snapshot), "").unwrap();
        let age = health.snapshot_age(&Status::default()).unwrap();
        assert!(age < Duration::from_secs(60), "{age:?}");
        assert_eq!(Health::new(dir.path().join("nowhere")).room(), None);
    }
}
