//! A restart over a long log, beside the disk's own reading and a bare loop that reads and checks.
//!
//! Cold: what of the files lay in memory is given back before each round. Both contestants read the
//! same bytes; ours starts a node and waits until its machine has been given all of them: one that
//! does nothing, or the example store, with the same log before it.

use crate::{
    append::Counter,
    memory::Peak,
    node::{Place, fill, forget, log_bytes, ready, run, segments},
    rounds::{Samples, ratios, readable_ratio},
};
use lakebed::{Phase, StateMachine};
use lakebed_kv::{Command, Kv, When};
use lakebed_runtime::DiskKind;
use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    fs::{self, File, OpenOptions},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Threads that read when it is the disk that is measured.
const READERS: usize = 8;
const READ_BYTES: usize = 1 << 20;
/// How many keys the store has.
const KEYS: u64 = 100_000;

/// 256 B and 4 KiB commands, cold and warm, both machines and both disks; `megabytes` of log.
pub fn compare(megabytes: u64, rounds: usize, dir: &Path) {
    for command in [256, 4096] {
        let dir = dir.join(format!("restore-{command}"));
        // What an interrupted run left.
        let _ = fs::remove_dir_all(&dir);
        let grown = grow(&dir, command, megabytes << 20);
        println!("\n{:.2} GB of log, SETs of {command} B", grown as f64 / 1e9);
        compare_one(&dir, "cold", rounds, direct, forget);
        compare_one(&dir, "warm", rounds, check, |_| {});
        fs::remove_dir_all(&dir).expect("it was grown");
    }
}

/// Which machine, and on which disk.
const CONTESTANTS: [(&str, DiskKind); 4] = [
    ("nothing", DiskKind::Files),
    ("nothing", DiskKind::Uring),
    ("the store", DiskKind::Files),
    ("the store", DiskKind::Uring),
];

fn compare_one(
    dir: &Path,
    title: &str,
    rounds: usize,
    bare: fn(&[PathBuf]) -> u64,
    prepare: fn(&[PathBuf]),
) {
    let segments = segments(dir);
    let (mut theirs, mut votes) = (Vec::new(), CONTESTANTS.map(|_| Vec::new()));
    let mut ours = CONTESTANTS.map(|_| Vec::new());
    let mut peaks = CONTESTANTS.map(|_| 0);
    for _ in 0..rounds {
        prepare(&segments);
        let begun = Instant::now();
        let bytes = bare(&segments);
        theirs.push(bytes as f64 / begun.elapsed().as_secs_f64() / 1e9);
        for (n, (machine, disk)) in CONTESTANTS.into_iter().enumerate() {
            prepare(&segments);
            let restart = match machine {
                "nothing" => restart(dir, disk, Counter),
                _ => restart(dir, disk, Kv::default()),
            };
            ours[n].push(bytes as f64 / restart.replayed.as_secs_f64() / 1e9);
            votes[n].push(restart.votes.as_secs_f64() * 1e3);
            peaks[n] = restart.peak_bytes.max(peaks[n]);
        }
    }
    let what = if title == "cold" { "O_DIRECT, 8 threads" } else { "pread + crc32c" };
    println!("  {title}: {what} {:.2} GB/s", Samples::new(theirs.clone()).median());
    for (n, (machine, disk)) in CONTESTANTS.into_iter().enumerate() {
        println!(
            "    lakebed, {disk:?}, into {machine}: {:.2} GB/s, {}; votes after {:.0} ms; at most {} MiB",
            Samples::new(ours[n].clone()).median(),
            readable_ratio(&ratios(&ours[n], &theirs)),
            Samples::new(votes[n].clone()).median(),
            peaks[n] >> 20,
        );
    }
}

struct Restart {
    /// Until it votes and acknowledges.
    votes: Duration,
    /// Until the machine was given the whole log.
    replayed: Duration,
    /// What memory it had at most by then.
    peak_bytes: u64,
}

fn restart(dir: &Path, disk: DiskKind, machine: impl StateMachine + Send + 'static) -> Restart {
    let peak = Peak::begin();
    let begun = Instant::now();
    run(async {
        let handle = Place::alone(dir, disk).open(machine, |_| {});
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
        let peak_bytes = peak.bytes();
        handle.shutdown(false).await.expect("it ends");
        Restart { votes: votes.expect("it was seen above"), replayed, peak_bytes }
    })
}

/// Fills a log with commands of the store. Returns how many bytes its segments have.
fn grow(dir: &Path, command_bytes: usize, bytes: u64) -> u64 {
    let value = vec![7; command_bytes];
    let mut bare = Vec::new();
    set(0, b"", &mut bare);
    let value = &value[bare.len()..];
    run(async {
        let handle = Place::alone(dir, DiskKind::Files).open(Counter, |_| {});
        ready(&handle, &bare).await;
        // A stride without a common factor: the keys come in no order, and each as often.
        fill(&handle, bytes, |n, command| set(n.wrapping_mul(7919) % KEYS, value, command)).await;
        handle.shutdown(false).await.expect("it ends");
    });
    log_bytes(dir)
}

pub fn set(key: u64, value: &[u8], command: &mut Vec<u8>) {
    let key = format!("key:{key:012}");
    Command::Set { key: key.as_bytes(), value, when: When::Always, millis: 0 }.encode(command);
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
