//! Proposals of 256 bytes through the whole of it: three nodes in one process, each on its own
//! thread and directory, talking over loopback, durable on all of them.
//!
//! `cargo bench -p lakebed-runtime --bench propose [-- DIR]`. Batches in flight are clients that
//! wait for their answer; the last column is how long one waits, at the median and the 99th of a
//! hundred.

mod machine;

use futures::{StreamExt, stream::FuturesUnordered};
use lakebed::{Batch, ClusterId, Config, GroupId, NodeId, Role};
use lakebed_runtime::{DiskKind, Handle, Listen, Node, Options};
use machine::{COMMAND, Count};
use std::{
    net::TcpListener,
    path::Path,
    time::{Duration, Instant},
};

const RUN: Duration = Duration::from_secs(3);

fn start(dir: &Path, nodes: usize, disk: DiskKind) -> Vec<Handle> {
    let bind = |_| TcpListener::bind("127.0.0.1:0").expect("a port");
    let listeners: Vec<_> = (0..nodes).map(bind).collect();
    let address = |l: &TcpListener| l.local_addr().expect("it is bound").to_string();
    let addresses: Vec<String> = listeners.iter().map(address).collect();
    let start = |(id, listener): (u64, TcpListener)| {
        let config = Config::new(GroupId(1), NodeId(id));
        let dir = dir.join(id.to_string());
        let members = (1..).zip(addresses.iter().map(String::as_str));
        let options = Options::new(dir, ClusterId(1), config, Listen::Bound(listener));
        let mut options = options.members(members);
        options.disk = disk;
        Node::spawn(options, Count::default()).expect("a node")
    };
    (1..).zip(listeners).map(start).collect()
}

async fn leader(handles: &[Handle]) -> Handle {
    loop {
        for handle in handles {
            let status = handle.status().await.expect("it runs");
            if status.role == Role::Leader {
                return handle.clone();
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn propose(handle: &Handle, batch: &Batch) -> Duration {
    let begun = Instant::now();
    let answers = handle.propose(batch.clone()).await.expect("an answer");
    assert_eq!(answers.len(), batch.count() as usize);
    begun.elapsed()
}

async fn measure(handle: &Handle, commands: u32, clients: usize) -> (f64, Vec<Duration>) {
    let mut batch = Batch::with_capacity(commands as usize * (COMMAND.len() + 4));
    (0..commands).for_each(|_| batch.push(&COMMAND));
    let mut waiting: FuturesUnordered<_> = (0..clients).map(|_| propose(handle, &batch)).collect();
    let mut took = Vec::new();
    let begun = Instant::now();
    while let Some(one) = waiting.next().await {
        took.push(one);
        if begun.elapsed() < RUN {
            waiting.push(propose(handle, &batch));
        }
    }
    let rate = (took.len() * commands as usize) as f64 / begun.elapsed().as_secs_f64();
    took.sort_unstable();
    (rate, took)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dir = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let root = dir.map_or_else(std::env::temp_dir, Into::into);
    println!("nodes  disk   batch  clients  commands/s    p50      p99");
    for (nodes, disk) in [(1, DiskKind::Uring), (3, DiskKind::Uring), (3, DiskKind::Files)] {
        let dir = tempfile::tempdir_in(&root).expect("a place to write to");
        let handles = start(dir.path(), nodes, disk);
        let leader = leader(&handles).await;
        for (commands, clients) in [(1, 1), (1, 64), (16, 64), (256, 1), (256, 16), (1024, 16)] {
            let (rate, took) = measure(&leader, commands, clients).await;
            let [p50, p99] = [took.len() / 2, took.len() * 99 / 100].map(|at| took[at]);
            println!(
                "{nodes:>5}  {disk:<5?} {commands:>6} {clients:>8} {rate:>11.0} {p50:>8.0?} \
                 {p99:>8.0?}"
            );
        }
        for handle in handles {
            handle.shutdown(false).await.expect("it stops");
        }
    }
}
