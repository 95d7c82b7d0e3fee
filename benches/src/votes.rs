//! How long a restart over a long log takes until the node votes and acknowledges, and where that
//! time goes; beside the disk's own parallel sequential reading in the same run.
//!
//! The node is one of two voters, for alone it reads more; the other one's files go when the log is
//! long enough.
//!
//! Cold: what of the node's files lay in memory is given back before each round. The engine has no
//! clock: what it computes upon the last answer of a phase, like the judging of the last segment, is
//! counted to the phase that follows.

use crate::{
    restore::{direct, files, fill, forget, log_bytes, open_as, run, segments},
    rounds::Samples,
};
use lakebed::Phase;
use lakebed_runtime::{DiskKind, Handle, Listen};
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

const COMMAND_BYTES: usize = 4096;
/// How often a node is asked how far it is.
const ASKED_EACH: Duration = Duration::from_micros(200);

/// One log of `megabytes`, cold and warm, both disks.
pub fn measure(megabytes: u64, rounds: usize, dir: &Path) {
    let dir = dir.join("votes");
    // What an interrupted run left.
    let _ = fs::remove_dir_all(&dir);
    let grown = grow(&dir, megabytes << 20);
    let segments = segments(&dir);
    let last = segments.last().expect("a log has a segment");
    let last = fs::metadata(last).expect("a segment").len();
    println!(
        "{:.2} GB of log in {} segments, the last of {:.1} MB",
        grown as f64 / 1e9,
        segments.len(),
        last as f64 / 1e6,
    );
    forget(&files(&dir));
    let begun = Instant::now();
    let bytes = direct(&segments);
    let speed = bytes as f64 / begun.elapsed().as_secs_f64() / 1e9;
    println!("the disk, O_DIRECT, 8 threads, over all of it: {speed:.2} GB/s");
    for (title, is_cold) in [("cold", true), ("warm", false)] {
        for disk in [DiskKind::Files, DiskKind::Uring] {
            let mut starts = Vec::new();
            for _ in 0..rounds {
                if is_cold {
                    forget(&files(&dir));
                }
                starts.push(start(&dir, disk));
            }
            tell(title, disk, &starts);
        }
    }
    fs::remove_dir_all(&dir).expect("it was grown");
}

const NAMES: [&str; 2] = ["127.0.0.1:7601", "127.0.0.1:7602"];

fn members() -> [(u64, &'static str); 2] {
    [(1, NAMES[0]), (2, NAMES[1])]
}

/// At its own address, or at any: then nobody finds it.
fn open(dir: &Path, id: u64, address: &str, disk: DiskKind) -> Handle {
    let listen = Listen::Address(address.parse().expect("an address"));
    open_as(id, &members(), listen, dir, disk)
}

/// Fills the logs of both and leaves one.
fn grow(dir: &Path, bytes: u64) -> u64 {
    let other = dir.with_extension("other");
    let _ = fs::remove_dir_all(&other);
    run(async {
        let open = |dir, id| open(dir, id, NAMES[id as usize - 1], DiskKind::Files);
        let handles = [open(dir, 1), open(&other, 2)];
        fill(&handles[0], COMMAND_BYTES, bytes).await;
        for handle in handles {
            handle.shutdown(false).await.expect("it ends");
        }
    });
    fs::remove_dir_all(&other).expect("it was grown");
    log_bytes(dir)
}

/// One restart, until the node votes.
struct Start {
    votes: Duration,
    took: Vec<(Phase, Duration)>,
}

fn start(dir: &Path, disk: DiskKind) -> Start {
    let begun = Instant::now();
    run(async {
        let handle = open(dir, 1, "127.0.0.1:0", disk);
        let start = loop {
            let status = handle.status().await.expect("it runs");
            if status.recovery.phase >= Phase::Restore {
                break Start { votes: begun.elapsed(), took: status.recovery.took };
            }
            tokio::time::sleep(ASKED_EACH).await;
        };
        handle.shutdown(false).await.expect("it ends");
        start
    })
}

fn tell(title: &str, disk: DiskKind, starts: &[Start]) {
    let ms = |took: Duration| took.as_secs_f64() * 1e3;
    let all = Samples::new(starts.iter().map(|start| ms(start.votes)).collect());
    let (median, most) = (all.median(), all.max());
    println!("  {title}, {disk:?}: votes after {median:.1} ms (most {most:.1})");
    let phases = [Phase::List, Phase::HardState, Phase::Snapshot, Phase::Log, Phase::Repair];
    for phase in phases {
        let of = |start: &Start| {
            let took = start.took.iter().filter(|(of, _)| *of == phase);
            took.map(|(_, took)| ms(*took)).sum()
        };
        let median = Samples::new(starts.iter().map(of).collect()).median();
        println!("      {:<10} {median:>7.1} ms", phase.to_string());
    }
}
