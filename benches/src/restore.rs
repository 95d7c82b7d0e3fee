//! A restart over a long log, beside the disk's own reading and a bare loop that reads and checks.
//!
//! Cold: what of the files lay in memory is given back before each round. Both contestants read the
//! same bytes; ours starts a node and waits until its machine has been given all of them.

use crate::{
    append::Counter,
    rounds::{Samples, ratios, readable_ratio},
};
use futures::{StreamExt, stream::FuturesUnordered};
use lakebed::{Batch, ClusterId, Config, GroupId, NodeId, Phase};
use lakebed_runtime::{Answers, DiskKind, Handle, Listen, Node, Options, Reply};
use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    fs::{self, File, OpenOptions},
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Threads that read when it is the disk that is measured.
const READERS: usize = 8;
const READ_BYTES: usize = 1 << 20;
const BATCH_BYTES: usize = 256 << 10;
const BATCHES_IN_FLIGHT: usize = 16;

/// 256 B and 4 KiB commands, cold and warm, both disks; `megabytes` of log.
pub fn compare(megabytes: u64, rounds: usize, dir: &Path) {
    for command in [256, 4096] {
        let dir = dir.join(format!("restore-{command}"));
        // What an interrupted run left.
        let _ = fs::remove_dir_all(&dir);
        let grown = grow(&dir, command, megabytes << 20);
        println!("\n{:.2} GB of log, commands of {command} B", grown as f64 / 1e9);
        compare_one(&dir, "cold", rounds, direct, forget);
        compare_one(&dir, "warm", rounds, check, |_| {});
        fs::remove_dir_all(&dir).expect("it was grown");
    }
}

fn compare_one(
    dir: &Path,
    title: &str,
    rounds: usize,
    bare: fn(&[PathBuf]) -> u64,
    prepare: fn(&[PathBuf]),
) {
    let segments = segments(dir);
    let kinds = [DiskKind::Files, DiskKind::Uring];
    let (mut theirs, mut votes) = (Vec::new(), [Vec::new(), Vec::new()]);
    let mut ours = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        prepare(&segments);
        let begun = Instant::now();
        let bytes = bare(&segments);
        theirs.push(bytes as f64 / begun.elapsed().as_secs_f64() / 1e9);
        for (kind, disk) in kinds.into_iter().enumerate() {
            prepare(&segments);
            let restart = restart(dir, disk);
            ours[kind].push(bytes as f64 / restart.replayed.as_secs_f64() / 1e9);
            votes[kind].push(restart.votes.as_secs_f64() * 1e3);
        }
    }
    let what = if title == "cold" { "O_DIRECT, 8 threads" } else { "pread + crc32c" };
    println!("  {title}: {what} {:.2} GB/s", Samples::new(theirs.clone()).median());
    for (kind, disk) in kinds.into_iter().enumerate() {
        println!(
            "    lakebed, {disk:?}: {:.2} GB/s, {}; votes after {:.0} ms",
            Samples::new(ours[kind].clone()).median(),
            readable_ratio(&ratios(&ours[kind], &theirs)),
            Samples::new(votes[kind].clone()).median(),
        );
    }
}

struct Restart {
    /// Until it votes and acknowledges.
    votes: Duration,
    /// Until the machine was given the whole log.
    replayed: Duration,
}

fn restart(dir: &Path, disk: DiskKind) -> Restart {
    let begun = Instant::now();
    run(async {
        let handle = open(dir, disk);
        let mut votes = None;
        loop {
            let status = handle.status().await.expect("it runs");
            if status.recovery.phase >= Phase::Restore {
                votes.get_or_insert(begun.elapsed());
            }
            if status.ready && status.last.0 > 0 && status.applied >= status.last {
                break;
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        let replayed = begun.elapsed();
        handle.shutdown(false).await.expect("it ends");
        Restart { votes: votes.expect("it was seen above"), replayed }
    })
}

/// Fills a log. Returns how many bytes its segments have.
pub fn grow(dir: &Path, command: usize, bytes: u64) -> u64 {
    run(async {
        let handle = open(dir, DiskKind::Files);
        fill(&handle, command, bytes).await;
        handle.shutdown(false).await.expect("it ends");
    });
    log_bytes(dir)
}

/// Proposes so many bytes, and waits until they are applied.
pub async fn fill(handle: &Handle, command: usize, bytes: u64) {
    let commands = vec![7; command];
    let mut batch = Batch::with_capacity(BATCH_BYTES + 4096);
    (0..BATCH_BYTES / command).for_each(|_| batch.push(&commands));
    while handle.propose_one(b"ready").await.is_err() {}
    let mut under_way: FuturesUnordered<Reply<Answers>> = FuturesUnordered::new();
    for _ in 0..bytes / batch.bytes() as u64 {
        if under_way.len() == BATCHES_IN_FLIGHT {
            let answers = under_way.next().await.expect("some are on their way");
            answers.expect("nothing is wrong with it");
        }
        under_way.push(handle.propose(batch.clone()));
    }
    while let Some(answers) = under_way.next().await {
        answers.expect("nothing is wrong with it");
    }
}

/// How many bytes a log's segments have.
pub fn log_bytes(dir: &Path) -> u64 {
    let len = |file: &PathBuf| fs::metadata(file).expect("a segment").len();
    segments(dir).iter().map(len).sum()
}

pub fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

pub fn open(dir: &Path, disk: DiskKind) -> Handle {
    let listen = Listen::Address(([127, 0, 0, 1], 0).into());
    open_as(1, &[(1, "127.0.0.1:1")], listen, dir, disk)
}

/// A node that counts and takes no snapshots.
pub fn open_as(
    id: u64,
    members: &[(u64, &str)],
    listen: Listen,
    dir: &Path,
    disk: DiskKind,
) -> Handle {
    let mut config = Config::new(GroupId(1), NodeId(id));
    config.tuning.snapshot_log_bytes = 0;
    let mut options = Options::new(dir, ClusterId(1), config, listen);
    options = options.members(members.iter().copied());
    options.disk = disk;
    Node::spawn(options, Counter).expect("a node")
}

/// The log's files, in order.
pub fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut files = files(dir);
    files.retain(|file| {
        file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("log-"))
    });
    files.sort();
    files
}

/// All of the node's files.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).expect("the node's directory");
    files.map(|file| file.expect("a file").path()).filter(|path| path.is_file()).collect()
}

/// Gives back what of these files lies in memory.
pub fn forget(files: &[PathBuf]) {
    for file in files {
        let file = File::open(file).expect("a file");
        file.sync_all().expect("a sync");
        // SAFETY: the descriptor is open, and the call takes nothing else of ours.
        let failed =
            unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        assert_eq!(failed, 0, "the cache lets go");
    }
}

/// Reads all of it around the page cache, as fast as the disk gives it.
pub fn direct(files: &[PathBuf]) -> u64 {
    let pieces: Vec<(File, u64, usize)> = files
        .iter()
        .flat_map(|path| {
            let open = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path);
            let file = open.expect("a segment");
            let len = file.metadata().expect("a segment").len();
            (0..len).step_by(READ_BYTES).map(move |at| {
                let bytes = (len - at).min(READ_BYTES as u64) as usize;
                (file.try_clone().expect("a descriptor"), at, bytes)
            })
        })
        .collect();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| {
                let mut buffer = Aligned::new(READ_BYTES);
                while let Some((file, at, bytes)) = pieces.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    file.read_exact_at(&mut buffer.bytes()[..*bytes], *at).expect("a read");
                }
            });
        }
    });
    pieces.iter().map(|piece| piece.2 as u64).sum()
}

/// Reads all of it into one buffer and checks it, on one thread.
fn check(files: &[PathBuf]) -> u64 {
    let mut buffer = vec![0; READ_BYTES];
    let (mut total, mut crc) = (0, 0);
    for path in files {
        let file = File::open(path).expect("a segment");
        let len = file.metadata().expect("a segment").len();
        for at in (0..len).step_by(READ_BYTES) {
            let bytes = (len - at).min(READ_BYTES as u64) as usize;
            file.read_exact_at(&mut buffer[..bytes], at).expect("a read");
            crc = crc32c::crc32c_append(crc, &buffer[..bytes]);
            total += bytes as u64;
        }
    }
    std::hint::black_box(crc);
    total
}

/// Memory as a read around the page cache wants it.
struct Aligned {
    at: *mut u8,
    layout: Layout,
}

impl Aligned {
    fn new(bytes: usize) -> Self {
        let layout = Layout::from_size_align(bytes, 4096).expect("a power of two");
        // SAFETY: the layout is not empty.
        let at = unsafe { alloc_zeroed(layout) };
        assert!(!at.is_null(), "there is memory");
        Self { at, layout }
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: allocated with this layout, zeroed, and borrowed from here alone.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.layout.size()) }
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.at, self.layout) }
    }
}
