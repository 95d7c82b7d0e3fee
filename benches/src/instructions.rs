//! Instructions per command, counted by callgrind.
//!
//! Each configuration runs twice with different amounts of work; the difference is what a command
//! costs, set-up excluded. The checksum is counted on its own: it is the same bytes for everybody
//! who checks them, and its price is the processor's.

use std::{
    env,
    process::{Command, Stdio},
};

/// (bytes, batch, batches of the short run)
const CASES: [(usize, usize, usize); 9] = [
    (16, 1, 2000),
    (16, 16, 1000),
    (16, 256, 200),
    (256, 1, 2000),
    (256, 16, 1000),
    (256, 256, 200),
    (4096, 1, 1000),
    (4096, 16, 200),
    (4096, 256, 20),
];

/// Instructions of a run: all of them, and those in the checksum.
#[derive(Clone, Copy)]
struct Count {
    all: u64,
    checksum: u64,
}

pub fn compare() {
    println!("instructions per command, three nodes together (valgrind --tool=callgrind)");
    println!(
        "{:>5} {:>5} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "bytes", "batch", "raft", "of it crc", "tuned", "of it crc", "lakebed", "of it crc"
    );
    for (bytes, batch, batches) in CASES {
        let [raft, tuned, ours] =
            ["raft", "raft-tuned", "lakebed"].map(|who| per_command(who, bytes, batch, batches));
        println!(
            "{bytes:>5} {batch:>5} {:>9.0} {:>9.0} {:>9.0} {:>9.0} {:>9.0} {:>9.0}",
            raft.0, raft.1, tuned.0, tuned.1, ours.0, ours.1
        );
    }
}

fn per_command(who: &str, bytes: usize, batch: usize, batches: usize) -> (f64, f64) {
    let short = run(who, bytes, batch, batches);
    let long = run(who, bytes, batch, batches * 3);
    let commands = (batches * 2 * batch) as f64;
    let difference = |long: u64, short: u64| (long - short) as f64 / commands;
    (difference(long.all, short.all), difference(long.checksum, short.checksum))
}

fn run(who: &str, bytes: usize, batch: usize, batches: usize) -> Count {
    let out = env::temp_dir().join(format!("callgrind.out.{}", std::process::id()));
    // Callgrind counts `rep movsb` and `rep stosb` once for each byte; vectors count as they are.
    let by_vectors = "glibc.cpu.x86_rep_movsb_threshold=1073741824:\
                      glibc.cpu.x86_rep_stosb_threshold=1073741824";
    let status = Command::new("valgrind")
        .env("GLIBC_TUNABLES", by_vectors)
        .args(["--tool=callgrind", "-q"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(env::current_exe().expect("a running program has a path"))
        .args(["once", who, &bytes.to_string(), &batch.to_string(), &batches.to_string()])
        .stdout(Stdio::null())
        .status()
        .expect("valgrind is installed");
    assert!(status.success(), "the run failed under valgrind");
    let annotated = Command::new("callgrind_annotate")
        .args(["--inclusive=yes", "--threshold=100"])
        .arg(&out)
        .output()
        .expect("callgrind_annotate comes with valgrind");
    std::fs::remove_file(&out).expect("callgrind wrote it");
    parse(&String::from_utf8_lossy(&annotated.stdout))
}

/// Lines read `123,456 (12.3%)  file:function [binary]`; the checksum's outermost function has the
/// greatest inclusive count of all that are named after it.
fn parse(annotated: &str) -> Count {
    let counted = |line: &str| line.split_whitespace().next()?.replace(',', "").parse::<u64>().ok();
    let find =
        |what: &str| annotated.lines().filter(|line| line.contains(what)).filter_map(counted).max();
    Count {
        all: find("PROGRAM TOTALS").expect("callgrind_annotate prints the total"),
        checksum: find("crc32c").unwrap_or(0),
    }
}
