//! What a driver sees of its surroundings and the engine does not: how long its disk takes,
//! how much room is left, how old the newest snapshot is.
//!
//! Counted by relaxed atomics where it happens, looked at by whoever wants to know.

use crate::driver::Disk;
use lakebed::{Class, DiskRequest, Event, File, OpId, Status};
use rustix::fs::statvfs;
use slab::Slab;
use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard,
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
    /// When those began that have not ended: a disk that hangs completes nothing.
    in_flight: Mutex<Slab<Instant>>,
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
    /// The slowest of the last minute or two. One that has not ended takes as long as it has so far.
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
            in_flight: Mutex::default(),
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
        self.latency_at(Instant::now())
    }

    pub(crate) fn latency_at(&self, now: Instant) -> Latency {
        let ended = self.slowest().at(self.window()).slowest();
        let oldest = self.in_flight().iter().map(|(_, begun)| *begun).min();
        Latency {
            counts: self.writes.each_ref().map(|count| count.load(Relaxed)),
            sum: Duration::from_nanos(self.nanos.load(Relaxed)),
            slowest: oldest.map_or(ended, |begun| ended.max(now.duration_since(begun))),
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

    fn slowest(&self) -> MutexGuard<'_, Slowest> {
        self.slowest.lock().expect("nothing panics while it holds two durations")
    }

    fn in_flight(&self) -> MutexGuard<'_, Slab<Instant>> {
        self.in_flight.lock().expect("each key is removed once")
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

/// The durable writes in flight of one engine.
pub(crate) struct Writes {
    health: Arc<Health>,
    /// Which, of how many bytes, and where the health keeps since when.
    in_flight: VecDeque<(OpId, u64, usize)>,
}

impl Writes {
    pub(crate) const fn told_to(health: Arc<Health>) -> Self {
        Self { health, in_flight: VecDeque::new() }
    }

    pub(crate) fn on_submitted(&mut self, op: OpId, class: Class, request: &DiskRequest) {
        if let (Class::Commit, DiskRequest::Write { at, and, durable: true, .. }) = (class, request)
        {
            let bytes = at.len() + and.as_ref().map_or(0, lakebed::Extent::len);
            let key = self.health.in_flight().insert(Instant::now());
            self.in_flight.push_back((op, bytes, key));
        }
    }

    pub(crate) fn on_completed(&mut self, op: OpId) {
        let place = self.in_flight.iter().position(|(write, ..)| *write == op);
        let write = place.and_then(|place| self.in_flight.swap_remove_back(place));
        if let Some((_, bytes, key)) = write {
            let begun = self.health.in_flight().remove(key);
            self.health.on_written(bytes, begun.elapsed());
        }
    }
}

/// Nobody waits any more for what the engine did not see the end of.
impl Drop for Writes {
    fn drop(&mut self) {
        let mut in_flight = self.health.in_flight();
        for (.., key) in self.in_flight.drain(..) {
            in_flight.remove(key);
        }
    }
}

/// A disk whose durable writes are timed.
pub(crate) struct Timed<D> {
    disk: D,
    writes: Writes,
}

impl<D> Timed<D> {
    pub(crate) const fn new(disk: D, health: Arc<Health>) -> Self {
        Self { disk, writes: Writes::told_to(health) }
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
            self.writes.on_completed(*op);
        }
    }

    fn is_idle(&self) -> bool {
        self.disk.is_idle()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures::task::noop_waker_ref;
    use lakebed::{Completion, Extent};

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
    fn what_was_slow_is_not_told_for_ever_though_nothing_is_written() {
        let mut health = Health::new("/");
        health.on_written(4096, Duration::from_secs(2));
        for (later, slowest) in [(RECENT, 2), (RECENT, 0)] {
            health.began = health.began.checked_sub(later).expect("time goes back so far");
            assert_eq!(health.latency().slowest, Duration::from_secs(slowest));
        }
    }

    /// Completes what the test says, and nothing by itself.
    #[derive(Default)]
    struct Held(Vec<Event>);

    impl Disk for Held {
        fn submit(&mut self, _: OpId, _: Class, _: DiskRequest) {}

        fn flush(&mut self) {}

        fn poll_completed(&mut self, _: &mut Context<'_>, events: &mut Vec<Event>) {
            events.append(&mut self.0);
        }

        fn is_idle(&self) -> bool {
            false
        }
    }

    /// Only what had ended was looked at: with a sync that hung for 25 s the slowest write of late was one of
    /// 17 ms, and no alert went off.
    #[test]
    fn a_write_that_hangs_is_as_slow_as_it_is_old() {
        const HANGS: Duration = Duration::from_secs(25);
        let health = Arc::new(Health::new("/"));
        let mut disk = Timed::new(Held::default(), Arc::clone(&health));
        let write = |durable| {
            let at = Extent::new(0, Bytes::from_static(&[0; 4096]));
            DiskRequest::Write { file: File::HardState, at, and: None, durable }
        };
        disk.submit(OpId(1), Class::Background, write(true));
        disk.submit(OpId(2), Class::Commit, write(false));
        let slowest = |now| health.latency_at(now).slowest;
        assert_eq!(slowest(Instant::now() + HANGS), Duration::ZERO, "nobody waits for these");
        let before = Instant::now();
        disk.submit(OpId(3), Class::Commit, write(true));
        let after = Instant::now();
        disk.submit(OpId(4), Class::Commit, write(true));
        let found = slowest(after + HANGS);
        assert!(
            HANGS <= found && found <= HANGS + (after - before),
            "{found:?}, the oldest counts"
        );
        assert_eq!(health.latency().count(), 0);

        let ended = |op| Event::Completed { op: OpId(op), result: Ok(Completion::Done) };
        disk.disk.0 = vec![ended(1), ended(3)];
        disk.poll_completed(&mut Context::from_waker(noop_waker_ref()), &mut Vec::new());
        assert_eq!((health.latency().count(), health.written_bytes()), (1, 4096));
        let found = slowest(after + HANGS);
        assert!(found <= HANGS, "{found:?}, of the one that is left");
        assert!(found >= HANGS / 2, "{found:?}, of the one that is left");
        drop(disk);
        assert!(slowest(after + HANGS) < HANGS / 2, "nobody waits for it");
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
