//! A follower that is down while much is written: the leader keeps no more of it in memory than
//! its cache, and the follower then catches up from the leader's disk.
//!
//! `LAGGING_WRITES=1000000 cargo test --release -p lakebed-runtime --test all lagging -- --nocapture`
//! does it at full size and prints what it saw.

use crate::{count::Count, patience::eventually_of, port::Port};
use futures::{StreamExt as _, stream::FuturesUnordered};
use lakebed::{Batch, ClusterId, Config, GroupId, NodeId, Role, Status};
use lakebed_runtime::{Handle, Listen, Node, Options};
use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

const COMMAND_BYTES: usize = 1024;
const BATCH: u64 = 64;
const CACHE_BYTES: u64 = 8 << 20;

fn start(dir: &Path, addresses: &[SocketAddr], node: usize) -> Handle {
    let listen = Listen::Address(addresses[node]);
    let mut config = Config::new(GroupId(1), NodeId(node as u64 + 1));
    config.tuning.cache_bytes_max = CACHE_BYTES;
    config.tuning.apply_bytes_max = CACHE_BYTES;
    config.tuning.heartbeat = Duration::from_millis(50);
    config.tuning.election = (Duration::from_millis(500), Duration::from_millis(1000));
    let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    let members = (1..).zip(addresses.iter().map(String::as_str));
    let options =
        Options::new(dir.join(node.to_string()), ClusterId(7), config, listen).members(members);
    let (handle, node) = Node::open(options, Count::default()).expect("a good directory");
    tokio::spawn(node);
    handle
}

async fn status(handle: &Handle) -> Status {
    handle.status().await.expect("the node runs")
}

/// Writes through `handle`, some batches at a time; tells the most memory its node said it used.
async fn write(handle: &Handle, writes: u64) -> u64 {
    let (mut sent, mut memory_bytes) = (0, 0);
    let mut flying = FuturesUnordered::new();
    while sent < writes || !flying.is_empty() {
        while sent < writes && flying.len() < 16 {
            let mut batch = Batch::with_capacity(BATCH as usize * (COMMAND_BYTES + 4));
            (0..BATCH).for_each(|_| batch.push(&[7; COMMAND_BYTES]));
            flying.push(handle.propose(batch));
            sent += BATCH;
        }
        flying.next().await.expect("one is flying").expect("two of three nodes are up");
        memory_bytes = memory_bytes.max(status(handle).await.memory_bytes);
    }
    memory_bytes
}

#[tokio::test]
async fn a_follower_that_is_down_costs_the_leader_no_memory_and_catches_up() {
    let writes = std::env::var("LAGGING_WRITES").ok().and_then(|n| n.parse().ok());
    let writes = u64::next_multiple_of(writes.unwrap_or(30_000), BATCH);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let ports = [Port::take(), Port::take(), Port::take()];
    let addresses = ports.each_ref().map(|port| port.address);
    let mut handles: Vec<_> = (0..3).map(|node| start(dir.path(), &addresses, node)).collect();
    let leader = eventually_of("a leader", async || {
        for (node, handle) in handles.iter().enumerate() {
            if status(handle).await.role == Role::Leader {
                return Some(node);
            }
        }
        None
    })
    .await;
    let lagging = (leader + 1) % 3;
    handles[leader].propose_one(b"first").await.expect("the cluster is whole");
    handles[lagging].shutdown(false).await.expect("it stops");

    let began = Instant::now();
    let memory_bytes = write(&handles[leader], writes).await;
    let wrote = began.elapsed();
    // Beside the cache: what waits for its write, and one entry that is handed out.
    let bound = CACHE_BYTES + 16 * BATCH * (COMMAND_BYTES as u64 + 4) * 2 + (2 << 20);
    assert!(memory_bytes <= bound, "{memory_bytes} bytes in memory, {bound} are the bound");

    let began = Instant::now();
    let target = status(&handles[leader]).await.committed;
    handles[lagging] = start(dir.path(), &addresses, lagging);
    let mut memory_again = 0;
    eventually_of("the follower caught up", async || {
        memory_again = memory_again.max(status(&handles[leader]).await.memory_bytes);
        (status(&handles[lagging]).await.applied >= target).then_some(())
    })
    .await;
    assert!(memory_again <= bound, "{memory_again} bytes in memory while it caught up");
    let megabytes = (writes * COMMAND_BYTES as u64) >> 20;
    println!(
        "{writes} writes, {megabytes} MiB, in {wrote:?}; caught up in {:?}; leader's memory at \
         most {memory_bytes} and {memory_again} bytes, cache {CACHE_BYTES}",
        began.elapsed()
    );
    for handle in &handles {
        handle.shutdown(false).await.expect("it stops");
    }
}
