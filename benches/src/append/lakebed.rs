//! Ours: a cluster of one voter, through handle, driver, engine and storage.

use super::Appender;
use crate::node::fill;
use bytes::Bytes;
use futures::{StreamExt, stream::FuturesUnordered};
use lakebed::{
    Batch, ClusterId, Config, GroupId, LogId, MachineError, NodeId, StateMachine, Timestamp,
};
use lakebed_runtime::{DiskKind, Handle, Listen, Node, Options};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::runtime::Runtime;

/// Appended at once to see how far the log's beginning has moved.
const STRETCH_BYTES: u64 = 128 << 20;

/// A node with a number of batches on their way.
pub struct Lakebed {
    runtime: Runtime,
    handle: Handle,
    dir: PathBuf,
    depth: usize,
}

impl Lakebed {
    pub fn open(dir: &Path, disk: DiskKind, depth: usize) -> Self {
        let dir = dir.join(format!("lakebed-{disk:?}-{depth}"));
        // What an interrupted run left.
        let _ = fs::remove_dir_all(&dir);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let handle = runtime.block_on(async {
            let listen = Listen::Address(([127, 0, 0, 1], 0).into());
            let config = Config::new(GroupId(1), NodeId(1));
            let mut options = Options::new(&dir, ClusterId(1), config, listen);
            options = options.members([(1, "127.0.0.1:1")]);
            options.disk = disk;
            let (handle, node) = Node::open(options, Counter).expect("an empty directory");
            tokio::spawn(node);
            // Not before it leads.
            while handle.propose_one(b"ready").await.is_err() {}
            handle
        });
        Self { runtime, handle, dir, depth }
    }

    /// Appends until the log's beginning was removed and more than what was kept of it has followed: from here
    /// on segments are used again. Before that each one is filled with zeros beside what is measured, so
    /// that every byte is written twice.
    pub fn gone_round(self) -> Self {
        let stretch = || fill(&self.handle, STRETCH_BYTES, |_, command| command.resize(4096, 7));
        self.runtime.block_on(async {
            while self.handle.status().await.expect("it runs").first.0 == 1 {
                stretch().await;
            }
            stretch().await;
        });
        self
    }
}

impl Appender for Lakebed {
    fn append(&mut self, batch: &[Vec<u8>], least: Duration) -> u64 {
        self.runtime.block_on(append(&self.handle, self.depth, batch, least))
    }
}

async fn append(handle: &Handle, depth: usize, batch: &[Vec<u8>], least: Duration) -> u64 {
    let (start, mut done) = (Instant::now(), 0);
    let mut under_way = FuturesUnordered::new();
    loop {
        while under_way.len() < depth && start.elapsed() < least {
            under_way.push(handle.propose(encode(batch)));
        }
        let Some(applied) = under_way.next().await else { return done };
        applied.expect("a node alone refuses nothing");
        done += 1;
    }
}

fn encode(commands: &[Vec<u8>]) -> Batch {
    let mut batch = Batch::with_capacity(commands.iter().map(|command| command.len() + 4).sum());
    commands.iter().for_each(|command| batch.push(command));
    batch
}

impl Drop for Lakebed {
    fn drop(&mut self) {
        let ended = self.handle.shutdown(false);
        self.runtime.block_on(ended).expect("it ends");
        fs::remove_dir_all(&self.dir).expect("it was created");
    }
}

/// A machine without a state.
pub struct Counter;

impl StateMachine for Counter {
    fn apply(&mut self, _: LogId, _: Timestamp, _: &[u8], _: &mut Vec<u8>) {}

    fn query(&self, _: &[u8], _: &mut Vec<u8>) {}

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        Box::new(std::iter::empty())
    }

    fn restore(&mut self, _: u64, _: &[u8], _: bool) -> Result<(), MachineError> {
        Ok(())
    }
}
