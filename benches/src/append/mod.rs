//! Durable appends of 256 B commands: ours through a whole engine, beside the bare system calls
//! and beside raft-engine. Ours is measured twice where one is in flight: with a log that goes round in segments
//! that are used again, and with one that grows and fills them with zeros beside it.

mod lakebed;
mod peer;
mod raw;

pub use lakebed::Counter;

use self::lakebed::Lakebed;
use crate::rounds::{Contestant, Samples, Work, interleave, ratios, readable, readable_ratio};
use lakebed_runtime::DiskKind;
use std::{fs, path::Path, time::Duration};

const COMMAND_BYTES: usize = 256;
const BATCHES: [usize; 3] = [1, 16, 256];
/// Batches on their way when appends are pipelined.
const DEPTH: usize = 32;
const ROUND: Duration = Duration::from_millis(400);

/// Something that appends durably.
pub trait Appender {
    /// Appends batches, at least one, for about this long; returns how many once all are durable.
    fn append(&mut self, batch: &[Vec<u8>], least: Duration) -> u64;
}

/// Names and appenders of one way to use them.
type Field = Vec<(&'static str, Box<dyn Appender>)>;

/// Every batch size, or this one; one append in flight and many.
pub fn compare(rounds: usize, dir: &Path, only: Option<usize>) {
    fs::create_dir_all(dir).expect("room for the benchmark's files");
    println!("durable appends of {COMMAND_BYTES} B commands in {}: commands/s", dir.display());
    println!("(median of {rounds} interleaved rounds), ratio of each pair as median (min..max)");
    for batch in BATCHES.into_iter().filter(|&batch| only.is_none_or(|only| only == batch)) {
        let title = format!("one in flight, batch {batch}");
        compare_one(rounds, &title, batch, one_in_flight(dir, Lakebed::gone_round));
        let title = format!("{title}, a log that grows");
        compare_one(rounds, &title, batch, one_in_flight(dir, |new| new));
        compare_one(rounds, &format!("{DEPTH} in flight, batch {batch}"), batch, pipelined(dir));
    }
}

fn one_in_flight(dir: &Path, prepared: impl Fn(Lakebed) -> Lakebed) -> Field {
    let ours = |disk| Box::new(prepared(Lakebed::open(dir, disk, 1)));
    vec![
        ("pwrite + fdatasync", Box::new(raw::Files::create(dir, 1))),
        ("raft-engine", Box::new(peer::RaftEngine::open(dir, 1))),
        ("lakebed, files", ours(DiskKind::Files)),
        ("lakebed, uring", ours(DiskKind::Uring)),
    ]
}

fn pipelined(dir: &Path) -> Field {
    let ours = |disk| Box::new(Lakebed::open(dir, disk, DEPTH).gone_round());
    vec![
        ("32 pwrites + fdatasync", Box::new(raw::Files::create(dir, DEPTH))),
        ("io_uring O_DIRECT RWF_DSYNC", Box::new(raw::Uring::create(dir, DEPTH))),
        ("raft-engine", Box::new(peer::RaftEngine::open(dir, 1))),
        ("raft-engine, 32 threads", Box::new(peer::RaftEngine::open(dir, DEPTH))),
        ("lakebed, files", ours(DiskKind::Files)),
        ("lakebed, uring", ours(DiskKind::Uring)),
    ]
}

fn compare_one(rounds: usize, title: &str, batch: usize, mut field: Field) {
    let commands = commands(batch);
    let names: Vec<&str> = field.iter().map(|(name, _)| *name).collect();
    let mut contestants: Vec<Contestant<'_>> =
        field.iter_mut().map(|(_, appender)| contestant(&mut **appender, &commands)).collect();
    let rates = interleave(rounds, &mut contestants);
    println!("\n{title}");
    for (name, rate) in names.iter().zip(&rates) {
        let median = readable(Samples::new(rate.clone()).median());
        print!("  {name:<28} {median:>9}/s");
        for (other, theirs) in names.iter().zip(&rates).filter(|_| name.starts_with("lakebed")) {
            if !other.starts_with("lakebed") {
                print!("   {} {other}", readable_ratio(&ratios(rate, theirs)));
            }
        }
        println!();
    }
}

fn contestant<'a>(appender: &'a mut dyn Appender, batch: &'a [Vec<u8>]) -> Contestant<'a> {
    Box::new(|| Work::counted(batch.len() as u64, || appender.append(batch, ROUND)))
}

/// Bytes that no compression makes smaller: raft-engine compresses.
fn commands(batch: usize) -> Vec<Vec<u8>> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..batch).map(|_| (0..COMMAND_BYTES).map(|_| byte()).collect()).collect()
}
