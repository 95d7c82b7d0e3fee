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
    append::Counter,
    node::{Place, files, fill, forget, free_addresses, log_bytes, ready, run, segments},
    restore::direct,
    rounds::Samples,
};
use lakebed::Phase;
use lakebed_runtime::DiskKind;
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

/// Fills the logs of both and leaves one.
fn grow(dir: &Path, bytes: u64) -> u64 {
    let other = dir.with_extension("other");
    let _ = fs::remove_dir_all(&other);
    let addresses = free_addresses::<2>();
    let members = [(1, addresses[0].as_str()), (2, addresses[1].as_str())];
    let open = |(id, address), dir| {
        let place = Place { id, members: &members, address, dir, disk: DiskKind::Files };
        place.open(Counter, |_| {})
    };
    run(async {
        let handles = [open(members[0], dir), open(members[1], &other)];
        ready(&handles[0], b"ready").await;
        fill(&handles[0], bytes, |_, command| command.resize(COMMAND_BYTES, 7)).await;
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
        // It knows the other one from its disk, and nobody is there.
        let handle = Place::alone(dir, disk).open(Counter, |_| {});
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
