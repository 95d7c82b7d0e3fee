//! Lakebed beside its peers, in one run.
//!
//! Machines differ and drift; only ratios taken in the same minute count. So every figure here is
//! a pair: the peer's round, then ours, again and again, and what is reported is the ratio of each
//! pair (median, least, most).

mod allocations;
mod append;
mod consensus;
mod install;
mod instructions;
mod memory;
mod memory_disk;
mod node;
mod restore;
mod rounds;
mod store;
mod votes;

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

const USAGE: &str = "\
usage: bench all                           consensus, append and instructions, one after the other
       bench consensus [ROUNDS]            three nodes on one thread, beside the raft crate
       bench append [ROUNDS [DIR [BATCH]]] durable appends, beside pwrite and raft-engine
       bench restore [MB [ROUNDS [DIR]]]   a restart over this much log, beside the disk's reading
       bench install [MB [ROUNDS [DIR]]]   a state of this size to a follower, beside a bare copy
       bench store [MB [ROUNDS [DIR]]]     the same into the example store, and the memory it takes
       bench votes [MB [ROUNDS [DIR]]]     until a restart over this much log votes
       bench instructions                  consensus under valgrind --tool=callgrind
       bench once WHO BYTES BATCH BATCHES  a fixed amount of work, for callgrind
                                           (WHO: lakebed, raft, raft-tuned or floor)";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["all"] => {
            consensus::compare(15);
            append::compare(5, &scratch(), None);
            instructions::compare();
        }
        ["consensus"] => consensus::compare(15),
        ["consensus", rounds] => consensus::compare(number(rounds)),
        ["append"] => append::compare(5, &scratch(), None),
        ["append", rounds] => append::compare(number(rounds), &scratch(), None),
        ["append", rounds, dir] => append::compare(number(rounds), &PathBuf::from(dir), None),
        ["append", rounds, dir, batch] => {
            append::compare(number(rounds), &PathBuf::from(dir), Some(number(batch)));
        }
        ["restore", ref how @ ..] if how.len() <= 3 => over(how, 3, 1024, restore::compare),
        ["install", ref how @ ..] if how.len() <= 3 => over(how, 3, 1024, install::compare),
        ["store", ref how @ ..] if how.len() <= 3 => over(how, 3, 1024, store::compare),
        ["votes", ref how @ ..] if how.len() <= 3 => over(how, 7, 8192, votes::measure),
        ["instructions"] => instructions::compare(),
        ["once", who, bytes, batch, batches] => {
            consensus::once(who, number(bytes), number(batch), number(batches));
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Runs what takes `[MB [ROUNDS [DIR]]]`.
fn over(how: &[&str], rounds: usize, megabytes: usize, run: impl FnOnce(u64, usize, &Path)) {
    let megabytes = how.first().map_or(megabytes, |text| number(text));
    let rounds = how.get(1).map_or(rounds, |text| number(text));
    let dir = how.get(2).map_or_else(scratch, PathBuf::from);
    run(megabytes as u64, rounds, &dir);
}

fn number(text: &str) -> usize {
    text.parse().unwrap_or_else(|_| panic!("not a number: {text}"))
}

/// Beside the sources and not in `/tmp`, which is memory on many machines.
fn scratch() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/scratch"))
}
