//! A state on its way from a snapshot into the example store, apart: what a restart does with its own
//! snapshot, and an install with a peer's once that is in its place. Beside the disk's own reading of
//! as many bytes. `install` has a machine that does nothing: it is about what others notice.

use crate::{
    memory::Peak,
    node::{Place, files, fill, forget, ready, run},
    restore::{direct, set},
    rounds::{Samples, ratios, readable_ratio},
};
use lakebed::{Control, Phase};
use lakebed_kv::Kv;
use lakebed_runtime::DiskKind;
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Values of 256 B and 4 KiB, each under a key of its own; both disks.
pub fn compare(megabytes: u64, rounds: usize, dir: &Path) {
    for value in [256, 4096] {
        let dir = dir.join(format!("store-{value}"));
        // What an interrupted run left.
        let _ = fs::remove_dir_all(&dir);
        let snapshot = grow(&dir, value, megabytes << 20);
        let state = fs::metadata(&snapshot).expect("a snapshot").len();
        println!("a state of {} MiB into the store, values of {value} B", state >> 20);
        for disk in [DiskKind::Files, DiskKind::Uring] {
            compare_one(&dir, &snapshot, disk, rounds);
        }
        fs::remove_dir_all(&dir).expect("it was grown");
    }
}

fn compare_one(dir: &Path, snapshot: &PathBuf, disk: DiskKind, rounds: usize) {
    let (mut theirs, mut ours, mut peak) = (Vec::new(), Vec::new(), 0);
    let state = fs::metadata(snapshot).expect("a snapshot").len() as f64;
    for _ in 0..rounds {
        forget(&files(dir));
        let begun = Instant::now();
        direct(std::slice::from_ref(snapshot));
        theirs.push(state / begun.elapsed().as_secs_f64() / 1e9);
        forget(&files(dir));
        let (took, bytes) = restart(dir, disk);
        ours.push(state / took.as_secs_f64() / 1e9);
        peak = peak.max(bytes);
    }
    println!(
        "  {disk:?}: the disk gives {:.2} GB/s, the store takes {:.2}, {}; at most {} MiB of memory, \
         {:.2} of the state",
        Samples::new(theirs.clone()).median(),
        Samples::new(ours.clone()).median(),
        readable_ratio(&ratios(&ours, &theirs)),
        peak >> 20,
        peak as f64 / state,
    );
}

/// How long the machine took the state in, and the most memory that it had by then.
fn restart(dir: &Path, disk: DiskKind) -> (Duration, u64) {
    let peak = Peak::begin();
    run(async {
        let handle = Place::alone(dir, disk).open(Kv::default(), |_| {});
        let recovery = loop {
            let recovery = handle.status().await.expect("it runs").recovery;
            if recovery.phase > Phase::Restore {
                break recovery;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        let bytes = peak.bytes();
        handle.shutdown(false).await.expect("it ends");
        let restore = recovery.took.iter().find(|(phase, _)| *phase == Phase::Restore);
        (restore.expect("it went through it").1, bytes)
    })
}

/// A node alone that has saved so many bytes of state. Its snapshot.
fn grow(dir: &Path, value_bytes: usize, bytes: u64) -> PathBuf {
    let value = vec![7; value_bytes];
    run(async {
        let handle = Place::alone(dir, DiskKind::Files).open(Kv::default(), |_| {});
        let mut first = Vec::new();
        set(0, &value, &mut first);
        ready(&handle, &first).await;
        fill(&handle, bytes, |n, command| set(n, &value, command)).await;
        handle.control(Control::Snapshot).await.expect("a snapshot");
        handle.shutdown(false).await.expect("it ends");
    });
    let is_snapshot = |file: &PathBuf| {
        file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("snapshot-"))
    };
    files(dir).into_iter().find(is_snapshot).expect("it was taken")
}
