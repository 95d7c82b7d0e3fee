//! The peer: raft-engine in its default configuration, every write synced.

use super::Appender;
use raft::eraftpb::Entry;
use raft_engine::{Config, Engine, LogBatch, MessageExt};
use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

struct Entries;

impl MessageExt for Entries {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

/// One engine, written to by some threads, each with a region of its own.
pub struct RaftEngine {
    engine: Option<Engine>,
    dir: PathBuf,
    next: Vec<u64>,
}

impl RaftEngine {
    pub fn open(dir: &Path, threads: usize) -> Self {
        let dir = dir.join(format!("raft-engine-{threads}"));
        let config = Config { dir: dir.display().to_string(), ..Config::default() };
        let engine = Some(Engine::open(config).expect("an empty directory"));
        Self { engine, dir, next: vec![1; threads] }
    }
}

impl Appender for RaftEngine {
    fn append(&mut self, batch: &[Vec<u8>], least: Duration) -> u64 {
        let engine = self.engine.as_ref().expect("open until dropped");
        let write = |(region, next): (usize, &mut u64)| {
            let batches = write(engine, region as u64 + 1, next, batch, least);
            engine.compact_to(region as u64 + 1, *next - 1);
            batches
        };
        let regions = self.next.iter_mut().enumerate();
        let batches = thread::scope(|scope| {
            let threads: Vec<_> =
                regions.map(|region| scope.spawn(move || write(region))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a writer")).sum()
        });
        engine.purge_expired_files().expect("a purge");
        batches
    }
}

fn write(engine: &Engine, region: u64, next: &mut u64, batch: &[Vec<u8>], least: Duration) -> u64 {
    let start = Instant::now();
    let mut batches = 0;
    while start.elapsed() < least {
        let entries: Vec<Entry> = batch
            .iter()
            .zip(*next..)
            .map(|(command, index)| Entry {
                index,
                term: 1,
                data: command.clone().into(),
                ..Entry::default()
            })
            .collect();
        *next += entries.len() as u64;
        let mut log = LogBatch::with_capacity(1);
        log.add_entries::<Entries>(region, &entries).expect("entries in order");
        engine.write(&mut log, true).expect("a write");
        batches += 1;
    }
    batches
}

impl Drop for RaftEngine {
    fn drop(&mut self) {
        drop(self.engine.take());
        fs::remove_dir_all(&self.dir).expect("it was created");
    }
}
