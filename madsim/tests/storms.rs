//! Storms over the real driver: `just madsim SEEDS`, or `cargo test` in this directory.
//!
//! | variable | what it does |
//! |---|---|
//! | `SIM_SEEDS=n` | runs `n` seeds, from 0 on |
//! | `SIM_SEED=s` | runs that one alone |
//! | `SIM_TWICE=1` | runs each seed twice and compares; the first one always is |

use lakebed::Mark;
use lakebed_madsim::{Failure, Flaw, Report, run};
use std::{
    env,
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};

/// How many seeds are run unless it is told otherwise.
const SEEDS_DEFAULT: u64 = 20;
/// Of so many seeds, it is known what they meet.
const SEEDS_ENOUGH: u64 = 20;
/// The most seeds that a flaw may go unseen.
const SEEDS_MAX: u64 = 20;

fn variable(name: &str) -> Option<u64> {
    let value = env::var_os(name)?;
    let number = value.to_str().and_then(|value| value.parse().ok());
    Some(number.unwrap_or_else(|| panic!("{name} must be a whole number, not {value:?}")))
}

fn seeds() -> Range<u64> {
    match (variable("SIM_SEED"), variable("SIM_SEEDS")) {
        (None, None) => 0..SEEDS_DEFAULT,
        (Some(seed), None) => seed..seed.checked_add(1).expect("SIM_SEED must be below 2^64 - 1"),
        (None, Some(0)) => panic!("SIM_SEEDS must be at least 1, not 0"),
        (None, Some(count)) => 0..count,
        (Some(_), Some(_)) => panic!("give one of SIM_SEED and SIM_SEEDS, not both"),
    }
}

/// Runs them on all processors, until one fails.
fn sweep(seeds: Range<u64>, twice: bool) -> Result<Report, Failure> {
    let next = AtomicU64::new(seeds.start);
    let total = Mutex::new(Ok(Report::default()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= seeds.end {
                return;
            }
            let result = run(seed, None);
            let again = (twice || seed == seeds.start).then(|| run(seed, None));
            if let Some(again) = again {
                assert_eq!(result, again, "seed {seed} did not do the same twice");
            }
            let mut total = total.lock().expect("another thread says why");
            match (&mut *total, result) {
                (Ok(total), Ok(report)) => *total += report,
                (total, Err(failure)) => {
                    next.store(seeds.end, Relaxed);
                    *total = Err(failure);
                }
                (Err(_), _) => return,
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    total.into_inner().expect("no thread has panicked")
}

#[test]
fn what_was_acknowledged_survives_every_storm() {
    let twice = variable("SIM_TWICE").is_some_and(|n| n > 0);
    let total = sweep(seeds(), twice).unwrap_or_else(|failure| panic!("\n{failure}\n"));
    println!("{total}");
    if total.seeds >= SEEDS_ENOUGH {
        does_what_it_is_for(&total);
    }
}

/// Storms that never meet what they are for prove nothing.
fn does_what_it_is_for(total: &Report) {
    let seeds = total.seeds;
    assert!(total.power_cuts >= 2 * seeds, "{total}");
    assert!(total.power_cuts_with_writes_pending * 2 >= total.power_cuts, "{total}");
    assert!(total.kills >= seeds && total.resets >= seeds && total.halts >= seeds / 4, "{total}");
    // Far more than a quiet cluster of so many lives would make.
    assert!(total.connections >= 2 * total.lives, "{total}");
    assert!(total.acknowledged >= 100 * seeds && total.reads >= 50 * seeds, "{total}");
    assert!(total.unknown >= seeds && total.refused >= seeds, "{total}");
    for mark in [Mark::Installed, Mark::ConflictTruncated] {
        assert!(total.met(mark), "{mark:?} was never met\n{total}");
    }
}

/// The first seed that sees the flaw.
fn bites(flaw: Flaw) -> Failure {
    let failed = (0..SEEDS_MAX).find_map(|seed| run(seed, Some(flaw)).err());
    failed.unwrap_or_else(|| panic!("{flaw:?} went unseen for {SEEDS_MAX} seeds"))
}

#[test]
fn syncs_that_a_driver_forgets_are_seen() {
    let failure = bites(Flaw::ForgottenSyncs);
    println!("{failure}");
    // A node that comes back misses what it was told is durable.
    assert!(failure.what.contains("refused to start"), "{failure}");
}

#[test]
fn a_tape_that_lost_steps_is_seen() {
    let failure = bites(Flaw::LostSteps);
    println!("{failure}");
    assert!(failure.what.contains("a bare engine does not do the same"), "{failure}");
}

/// By the clients' judge, which disks that lose something do not come to: nodes notice that themselves.
#[test]
fn reads_that_ask_nobody_are_seen() {
    let failure = bites(Flaw::StaleReads);
    println!("{failure}");
    assert!(failure.what.contains("had been told before the question"), "{failure}");
}
