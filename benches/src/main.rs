//! Lakebed beside its peers, in one run.
//!
//! Machines differ and drift; only ratios taken in the same minute count. So every figure here is
//! a pair: the peer's round, then ours, again and again, and what is reported is the ratio of each
//! pair (median, least, most).

mod allocations;
mod append;
mod consensus;
mod instructions;
mod memory_disk;
mod restore;
mod rounds;
mod votes;

use std::{env, path::PathBuf, process::ExitCode};

const USAGE: &str = "\
usage: bench all                        the three below, one after the other
       bench consensus [ROUNDS]            three nodes on one thread, beside the raft crate
       bench append [ROUNDS [DIR [BATCH]]] durable appends, beside pwrite and raft-engine
       bench restore [MB [ROUNDS [DIR]]]   a restart over this much log, beside the disk's reading
       bench votes [MB [ROUNDS [DIR]]]     until a restart over this much log votes
       bench instructions                  the first under valgrind --tool=callgrind
       bench once WHO BYTES BATCH BATCHES  a fixed amount of work, for callgrind
                                           (WHO: lakebed, raft or raft-tuned)";

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
        ["restore"] => restore::compare(1024, 3, &scratch()),
        ["restore", megabytes] => restore::compare(number(megabytes) as u64, 3, &scratch()),
        ["restore", megabytes, rounds] => {
            restore::compare(number(megabytes) as u64, number(rounds), &scratch());
        }
        ["restore", megabytes, rounds, dir] => {
            restore::compare(number(megabytes) as u64, number(rounds), &PathBuf::from(dir));
        }
        ["votes"] => votes::measure(8192, 7, &scratch()),
        ["votes", megabytes] => votes::measure(number(megabytes) as u64, 7, &scratch()),
        ["votes", megabytes, rounds] => {
            votes::measure(number(megabytes) as u64, number(rounds), &scratch());
        }
        ["votes", megabytes, rounds, dir] => {
            votes::measure(number(megabytes) as u64, number(rounds), &PathBuf::from(dir));
        }
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

fn number(text: &str) -> usize {
    text.parse().unwrap_or_else(|_| panic!("not a number: {text}"))
}

/// Beside the sources and not in `/tmp`, which is memory on many machines.
fn scratch() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/scratch"))
}
