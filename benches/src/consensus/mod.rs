//! In-process consensus: three nodes on one thread, messages encoded and decoded on each hop, the
//! disk answered at once. A batch is proposed when the one before it was applied where it was
//! proposed and nobody has anything left to do; the followers hear of the commit with the next.

mod floor;
mod lakebed;
mod raft;

use crate::{
    allocations,
    rounds::{Contestant, Samples, Work, interleave, ratios, readable, readable_ratio},
};
use std::time::Duration;

const BYTES: [usize; 3] = [16, 256, 4096];
const BATCHES: [usize; 3] = [1, 16, 256];
const ROUND: Duration = Duration::from_millis(150);

/// Three nodes that agree.
pub trait Cluster {
    /// Proposes all commands at the leader and returns when it has applied them and nobody has
    /// anything to do.
    fn commit(&mut self, commands: &[Vec<u8>]);

    /// Lets everybody hear of the last commit.
    fn finish(&mut self);

    /// Commands and bytes of commands that each node has applied.
    fn applied(&self) -> [(u64, u64); 3];
}

/// Who can be asked for by name.
const NAMES: [&str; 4] = ["raft", "raft-tuned", "floor", "lakebed"];

fn cluster(name: &str) -> Box<dyn Cluster> {
    match name {
        "raft" => Box::new(raft::Raft::new(raft::Setting::Usual)),
        "raft-tuned" => Box::new(raft::Raft::new(raft::Setting::Tuned)),
        "floor" => Box::new(floor::Floor::default()),
        "lakebed" => Box::new(lakebed::Lakebed::new()),
        _ => panic!("one of {NAMES:?}, not {name}"),
    }
}

/// Every configuration beside the peer in both settings and the floor, one line each.
pub fn compare(rounds: usize) {
    println!("in-process consensus, 3 nodes on 1 thread: commands per second of processor time");
    println!("(median of {rounds} interleaved rounds), ratio of each pair as median (min..max),");
    println!(
        "to raft also the floor's (copies and checksums alone); allocations per batch and node"
    );
    println!(
        "{:>5} {:>5} {:>9} {:>9} {:>9} {:>9}  {:<21} {:<21} {:<21} {:>7} {:>7} {:>7}",
        "bytes",
        "batch",
        "raft",
        "tuned",
        "floor",
        "lakebed",
        "to raft",
        "to tuned",
        "floor to raft",
        "raft",
        "tuned",
        "ours"
    );
    for bytes in BYTES {
        for batch in BATCHES {
            compare_one(rounds, bytes, batch);
        }
    }
}

fn compare_one(rounds: usize, bytes: usize, batch: usize) {
    let commands = commands(bytes, batch);
    let mut clusters = NAMES.map(cluster);
    let allocations = clusters.each_mut().map(|cluster| allocations(&mut **cluster, &commands));
    let mut contestants: Vec<Contestant<'_>> =
        clusters.iter_mut().map(|cluster| contestant(&mut **cluster, &commands)).collect();
    let rates = interleave(rounds, &mut contestants);
    drop(contestants);
    clusters.iter_mut().for_each(|cluster| check(&mut **cluster, bytes as u64));
    let rate = |n: usize| readable(Samples::new(rates[n].clone()).median());
    let [raft, tuned, floor, ours] = [0, 1, 2, 3];
    let ratio = |of: usize, to: usize| readable_ratio(&ratios(&rates[of], &rates[to]));
    println!(
        "{bytes:>5} {batch:>5} {:>9} {:>9} {:>9} {:>9}  {:<21} {:<21} {:<21} {:>7.1} {:>7.1} {:>7.1}",
        rate(raft),
        rate(tuned),
        rate(floor),
        rate(ours),
        ratio(ours, raft),
        ratio(ours, tuned),
        ratio(floor, raft),
        allocations[raft],
        allocations[tuned],
        allocations[ours],
    );
}

fn contestant<'a>(cluster: &'a mut dyn Cluster, commands: &'a [Vec<u8>]) -> Contestant<'a> {
    Box::new(|| Work::of_this_thread(ROUND, commands.len() as u64, || cluster.commit(commands)))
}

/// Allocations per batch and node, once warm.
fn allocations(cluster: &mut dyn Cluster, commands: &[Vec<u8>]) -> f64 {
    const TIMES: u64 = 2000;
    (0..TIMES).for_each(|_| cluster.commit(commands));
    let count = allocations::during(|| (0..TIMES).for_each(|_| cluster.commit(commands)));
    count as f64 / (TIMES * 3) as f64
}

/// A fixed amount of work, so that callgrind counts the same twice.
pub fn once(who: &str, bytes: usize, batch: usize, batches: usize) {
    let commands = commands(bytes, batch);
    let mut cluster = cluster(who);
    (0..batches).for_each(|_| cluster.commit(&commands));
    check(&mut *cluster, bytes as u64);
}

fn commands(bytes: usize, batch: usize) -> Vec<Vec<u8>> {
    (0..batch).map(|n| vec![n as u8; bytes]).collect()
}

/// What was timed was done: every node applied the same commands, each whole.
fn check(cluster: &mut dyn Cluster, bytes: u64) {
    cluster.finish();
    let applied = cluster.applied();
    assert!(applied[0].0 > 0 && applied.iter().all(|node| *node == applied[0]), "{applied:?}");
    assert_eq!(applied[0].1, applied[0].0 * bytes);
}
