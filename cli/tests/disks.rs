//! What the simulator proves counts only if its disk shows what real ones do: drawn scripts of
//! operations give the same endings on the simulated disk, on threads and on the ring.
//!
//! Only what the engine may ask is drawn: to write, sync or rename what is not there is a breach
//! that the simulated disk tells by a panic.

use bytes::Bytes;
use lakebed::{
    Class, Completion, DiskError, DiskRequest, Event, Extent, File, LogId, LogIndex, OpId,
    SnapshotId, Term, files::Directory,
};
use lakebed_runtime::{
    Disk, DiskKind,
    disk::{self, UringDisk},
};
use lakebed_sim::{
    Draw,
    disk::{Geometry, SimDisk},
    prng::Concern,
};
use std::{collections::BTreeMap, future::poll_fn, task::Poll};
use tempfile::tempdir;

type Ending = Result<Completion, DiskError>;
/// Operations that may be under way at the same time.
type Step = Vec<DiskRequest>;

const SEEDS: u64 = 24;
const STEPS: usize = 80;
const ID: LogId = LogId::new(Term(2), LogIndex(9));
const PART: File = File::Part(ID, SnapshotId(5));
const FILES: [File; 7] = [
    File::HardState,
    File::Segment(1),
    File::Segment(2),
    File::Spare(0),
    File::Spare(1),
    PART,
    File::Snapshot(ID),
];
/// The most blocks of a new file, and how many beyond its end one that grows is written.
const BLOCKS_MAX: u64 = 12;

#[derive(Clone, Copy)]
struct Shape {
    len: u64,
    grows: bool,
}

/// Draws what an engine may ask of a directory, and knows which files there are by then.
struct Script {
    draw: Draw,
    align: u64,
    files: BTreeMap<File, Shape>,
}

impl Script {
    fn new(seed: u64) -> Self {
        let mut draw = Draw::new(seed, Concern::Workload, 0, 0);
        let align = *draw.pick(&[512, 4096]);
        Self { draw, align, files: BTreeMap::new() }
    }

    fn steps(mut self) -> Vec<Step> {
        (0..STEPS).map(|_| self.step()).collect()
    }

    fn step(&mut self) -> Step {
        match self.draw.below(12) {
            0..=4 => self.writes(),
            5..=8 => (0..self.draw.between(1, 4)).map(|_| self.read()).collect(),
            _ => vec![self.change()],
        }
    }

    fn existing(&mut self) -> Option<File> {
        let files: Vec<File> = self.files.keys().copied().collect();
        (!files.is_empty()).then(|| *self.draw.pick(&files))
    }

    /// Writes to one file that share no block, and syncs between them.
    fn writes(&mut self) -> Step {
        let Some(file) = self.existing() else { return vec![self.create()] };
        let Shape { len, grows } = self.files[&file];
        let mut next = 0;
        let mut extents = Vec::new();
        let end = len / self.align + if grows { self.draw.below(BLOCKS_MAX) } else { 0 };
        while next < end {
            let first = next + self.draw.below(3);
            next = (first + self.draw.between(1, 3)).min(end);
            if first < next {
                extents.push(self.extent(first, next - first));
            }
        }
        let reached = extents.iter().map(Extent::end).max().unwrap_or(0);
        self.files.insert(file, Shape { len: len.max(reached), grows });
        self.in_any_order(file, extents)
    }

    fn in_any_order(&mut self, file: File, mut extents: Vec<Extent>) -> Step {
        let mut step = Vec::new();
        while !extents.is_empty() {
            let take = |draw: &mut Draw, extents: &mut Vec<Extent>| {
                extents.swap_remove(draw.below(extents.len() as u64) as usize)
            };
            let at = take(&mut self.draw, &mut extents);
            let two = !extents.is_empty() && self.draw.ratio(1, 2);
            let and = two.then(|| take(&mut self.draw, &mut extents));
            step.push(DiskRequest::Write { file, at, and, durable: self.draw.ratio(1, 2) });
            if self.draw.ratio(1, 4) {
                step.push(DiskRequest::Sync { file });
            }
        }
        step.push(DiskRequest::Sync { file });
        step
    }

    /// Bytes that tell their place and time, with zeros behind them, perhaps; in memory that
    /// nothing aligned, perhaps.
    fn extent(&mut self, first: u64, blocks: u64) -> Extent {
        let len = blocks * self.align;
        let zeros = if self.draw.ratio(1, 2) { self.draw.below(self.align) } else { 0 };
        let crooked = self.draw.below(2) as usize;
        let fill = self.draw.between(1, 255) as u8;
        let bytes = vec![fill; (len - zeros) as usize + crooked];
        Extent {
            zeros: zeros as u32,
            ..Extent::new(first * self.align, Bytes::from(bytes).slice(crooked..))
        }
    }

    /// Within a file, across its end, beyond it, or of one that is not there.
    fn read(&mut self) -> DiskRequest {
        let file = *self.draw.pick(&FILES);
        let beyond = self.files.get(&file).map_or(0, |shape| shape.len) + 2 * self.align;
        let offset = self.draw.below(beyond);
        let (offset, len) = if self.draw.ratio(1, 2) {
            (offset - offset % self.align, self.draw.between(1, 6) * self.align)
        } else {
            (offset, self.draw.between(1, 3 * self.align))
        };
        DiskRequest::Read { file, offset, len: len as u32 }
    }

    /// Of names, or of nothing.
    fn change(&mut self) -> DiskRequest {
        match self.draw.below(6) {
            0 | 1 => self.create(),
            2 => self.rename(),
            3 => {
                let file = *self.draw.pick(&FILES);
                self.files.remove(&file);
                DiskRequest::Remove { file }
            }
            4 => DiskRequest::SyncDirectory,
            _ => DiskRequest::List,
        }
    }

    fn create(&mut self) -> DiskRequest {
        let file = *self.draw.pick(&FILES);
        let blocks = if file == PART { 0 } else { self.draw.between(1, BLOCKS_MAX) };
        let len = blocks * self.align;
        self.files.insert(file, Shape { len, grows: file == PART });
        DiskRequest::Create { file, len, zeroed: self.draw.ratio(1, 2) }
    }

    fn rename(&mut self) -> DiskRequest {
        let Some(from) = self.existing() else { return self.create() };
        let others: Vec<File> = FILES.into_iter().filter(|to| *to != from && *to != PART).collect();
        let to = *self.draw.pick(&others);
        let shape = self.files.remove(&from).expect("it was drawn from those that are there");
        // Whoever gave it its last name writes no more behind its end.
        self.files.insert(to, Shape { grows: false, ..shape });
        DiskRequest::Rename { from, to }
    }
}

/// On the simulated disk, each step's operations ending in a drawn order.
fn simulated(seed: u64, align: u64, steps: &[Step]) -> Vec<Vec<Ending>> {
    let mut draw = Draw::new(seed, Concern::Disk, 0, 0);
    let mut disk = SimDisk::new(Geometry {
        sector: 512,
        align: align as u32,
        tears: false,
        sync_names: false,
    });
    let mut next = 0;
    let mut perform = |step: &Step| {
        let mut under_way = Vec::new();
        for request in step {
            disk.submit(OpId(next), request.clone());
            under_way.push(OpId(next));
            next += 1;
        }
        let mut endings = BTreeMap::new();
        while !under_way.is_empty() {
            let op = under_way.swap_remove(draw.below(under_way.len() as u64) as usize);
            endings.insert(op, disk.complete(op));
        }
        endings.into_values().collect()
    };
    steps.iter().map(&mut perform).collect()
}

/// On a real one.
async fn real(disk: &mut impl Disk, steps: &[Step]) -> Vec<Vec<Ending>> {
    let (mut all, mut next) = (Vec::new(), 0);
    for step in steps {
        for request in step {
            disk.submit(OpId(next), Class::Commit, request.clone());
            next += 1;
        }
        disk.flush();
        all.push(ended(disk, step.len()).await);
    }
    all
}

async fn ended(disk: &mut impl Disk, count: usize) -> Vec<Ending> {
    let (mut endings, mut events) = (BTreeMap::new(), Vec::new());
    poll_fn(|cx| {
        disk.poll_completed(cx, &mut events);
        for event in events.drain(..) {
            let Event::Completed { op, result } = event else { panic!("{event:?}") };
            assert!(endings.insert(op, result).is_none(), "{op} ended twice");
        }
        if endings.len() < count { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    endings.into_values().collect()
}

/// The first ending that differs, in words short enough to be read.
#[track_caller]
fn assert_same(seed: u64, steps: &[Step], simulated: &[Vec<Ending>], real: &[Vec<Ending>]) {
    for (at, step) in steps.iter().enumerate() {
        for (n, request) in step.iter().enumerate() {
            let (ours, theirs) = (&simulated[at][n], &real[at][n]);
            assert!(
                ours == theirs,
                "seed {seed}, step {at}: {}\n  simulated: {}\n  real:      {}",
                short(request),
                short(ours),
                short(theirs)
            );
        }
    }
}

fn short(what: &impl std::fmt::Debug) -> String {
    format!("{what:?}").chars().take(300).collect()
}

async fn same_on(open: impl Fn(Directory) -> Option<Box<dyn Disk + Send>>) {
    for seed in 0..SEEDS {
        let script = Script::new(seed);
        let align = script.align;
        let steps = script.steps();
        let temporary = tempdir().unwrap();
        let Some(mut disk) = open(Directory::open(temporary.path()).unwrap()) else { return };
        let found = real(&mut disk, &steps).await;
        assert_same(seed, &steps, &simulated(seed, align, &steps), &found);
    }
}

#[tokio::test]
async fn the_simulated_disk_shows_what_threads_show() {
    same_on(|directory| Some(disk::open(DiskKind::Files, directory).unwrap())).await;
}

#[tokio::test]
async fn the_simulated_disk_shows_what_the_ring_shows() {
    same_on(|directory| {
        let disk = UringDisk::new(directory);
        let disk = disk.inspect_err(|(_, e)| eprintln!("nothing to test, no io_uring here: {e}"));
        disk.ok().map(|disk| Box::new(disk) as Box<dyn Disk + Send>)
    })
    .await;
}

/// Scripts that never meet what they are for prove nothing.
#[test]
fn the_scripts_meet_what_they_are_for() {
    let (mut missing, mut short_reads, mut holes, mut two_with_zeros) = (0, 0, 0, 0);
    for seed in 0..SEEDS {
        let script = Script::new(seed);
        let align = script.align;
        let steps = script.steps();
        let endings = simulated(seed, align, &steps);
        for (request, ending) in steps.iter().flatten().zip(endings.iter().flatten()) {
            missing += u32::from(*ending == Err(DiskError::NotFound));
            if let (DiskRequest::Read { len, .. }, Ok(Completion::Read(bytes))) = (request, ending)
            {
                short_reads += u32::from(bytes.len() < *len as usize);
                holes += u32::from(bytes.contains(&0) && bytes.iter().any(|byte| *byte != 0));
            }
            if let DiskRequest::Write { at, and: Some(and), .. } = request {
                two_with_zeros += u32::from(at.zeros > 0 && and.zeros > 0);
            }
        }
    }
    for met in [missing, short_reads, holes, two_with_zeros] {
        assert!(met >= 20, "{missing} {short_reads} {holes} {two_with_zeros}");
    }
}
