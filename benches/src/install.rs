//! A state for a follower that was away for longer than the log reaches back, from the first chunk
//! until it is whole and in its place; beside a bare copy of as many bytes through a socket into a
//! file with one sync. And what those who write notice of it: their latencies meanwhile, beside
//! those just before, when the same two nodes were up.

use crate::{
    node::{Place, free_addresses, ready, run},
    rounds::{Samples, ratios, readable_ratio},
};
use bytes::Bytes;
use futures::future::{Either, join_all, select};
use lakebed::{
    Control, LogId, MachineError, Mark, Role, StateMachine, Status, Timestamp, marks::Marks,
};
use lakebed_runtime::{DiskKind, Handle};
use std::{
    cell::RefCell,
    fs::{self, File},
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    pin::pin,
    thread,
    time::{Duration, Instant},
};

const MIB: usize = 1 << 20;
/// Who writes all the time, one command after the other.
const WRITERS: usize = 8;
const COMMAND_BYTES: usize = 256;
/// For how long latencies are taken before the follower comes back.
const BEFORE: Duration = Duration::from_secs(3);
/// What is written for the log to leave the follower behind.
const LARGE_BYTES: usize = 512 << 10;
const LARGE_COUNT: usize = 70;

/// A state of `megabytes`, both disks.
pub fn compare(megabytes: u64, rounds: usize, dir: &Path) {
    let dir = dir.join("install");
    println!("a state of {megabytes} MiB to a follower; {WRITERS} writers of {COMMAND_BYTES} B");
    for disk in [DiskKind::Files, DiskKind::Uring] {
        // What an interrupted run left.
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("room for the benchmark's files");
        compare_one(megabytes as usize, rounds, &dir, disk);
        fs::remove_dir_all(&dir).expect("it was created");
    }
}

fn compare_one(mib: usize, rounds: usize, dir: &Path, disk: DiskKind) {
    let (mut theirs, mut alone, mut beside) = (Vec::new(), Vec::new(), Vec::new());
    let (mut before, mut meanwhile) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let speed = |took: Duration| (mib * MIB) as f64 / took.as_secs_f64() / 1e9;
    run(async {
        let addresses = free_addresses();
        let mut cluster = Cluster::start(dir, disk, mib, &addresses).await;
        for _ in 0..rounds {
            theirs.push(speed(copy(dir, mib)));
            cluster.leave_behind().await;
            alone.push(speed(cluster.bring_back().await));
            cluster.leave_behind().await;
            let leader = cluster.leader().clone();
            let (quiet, ()) = write_until(&leader, tokio::time::sleep(BEFORE)).await;
            let (busy, took) = write_until(&leader, cluster.bring_back()).await;
            beside.push(speed(took));
            for (n, quantile) in [0.5, 0.99].into_iter().enumerate() {
                before[n].push(quiet.quantile(quantile) * 1e3);
                meanwhile[n].push(busy.quantile(quantile) * 1e3);
            }
        }
        cluster.end().await;
    });
    let median = |samples: &[f64]| Samples::new(samples.to_vec()).median();
    println!("  {disk:?}: a bare copy {:.2} GB/s", median(&theirs));
    for (title, ours) in [("nobody writes", &alone), ("under load", &beside)] {
        let ratio = readable_ratio(&ratios(ours, &theirs));
        println!("    the install, {title}: {:.2} GB/s, {ratio}", median(ours));
    }
    for (n, title) in ["p50", "p99"].into_iter().enumerate() {
        println!(
            "    a write's {title}: {:.2} ms before, {:.2} ms meanwhile, {}",
            median(&before[n]),
            median(&meanwhile[n]),
            readable_ratio(&ratios(&meanwhile[n], &before[n])),
        );
    }
}

/// Three nodes; one of the followers comes and goes.
struct Cluster<'a> {
    dir: &'a Path,
    disk: DiskKind,
    mib: usize,
    addresses: &'a [String; 3],
    handles: Vec<Handle>,
    leader: usize,
}

impl<'a> Cluster<'a> {
    async fn start(dir: &'a Path, disk: DiskKind, mib: usize, addresses: &'a [String; 3]) -> Self {
        let mut cluster = Self { dir, disk, mib, addresses, handles: Vec::new(), leader: 0 };
        cluster.handles = (0..3).map(|node| cluster.open(node)).collect();
        ready(&cluster.handles[0], b"ready").await;
        cluster.find_leader().await;
        cluster
    }

    fn open(&self, node: usize) -> Handle {
        let members: Vec<_> = (1..).zip(self.addresses.iter().map(String::as_str)).collect();
        let place = Place {
            id: node as u64 + 1,
            members: &members,
            address: &self.addresses[node],
            dir: &self.dir.join(node.to_string()),
            disk: self.disk,
        };
        place.open(State::new(self.mib), |tuning| {
            // Nothing is kept for those who were not there, and nobody calls an election because
            // two processors have much to do.
            tuning.retain_log_bytes = 0;
            tuning.election = (Duration::from_secs(2), Duration::from_secs(4));
        })
    }

    async fn find_leader(&mut self) {
        loop {
            for node in 0..3 {
                if status(&self.handles[node]).await.role == Role::Leader {
                    self.leader = node;
                    return;
                }
            }
            pause().await;
        }
    }

    fn leader(&self) -> &Handle {
        &self.handles[self.leader]
    }

    fn away(&self) -> usize {
        (self.leader + 1) % 3
    }

    /// Stops the follower, and writes until the log of neither of the others reaches it.
    async fn leave_behind(&mut self) {
        self.find_leader().await;
        let away = self.away();
        let last = status(&self.handles[away]).await.last;
        self.handles[away].shutdown(false).await.expect("it ends");
        let command = vec![7; LARGE_BYTES];
        for node in [self.leader, (self.leader + 2) % 3] {
            while status(&self.handles[node]).await.first <= last.next() {
                for _ in 0..LARGE_COUNT {
                    ready(self.leader(), &command).await;
                }
                self.handles[node].control(Control::Snapshot).await.expect("a snapshot");
            }
        }
    }

    /// Starts the follower again. How long it took from the first chunk to the last in its place.
    async fn bring_back(&mut self) -> Duration {
        let away = self.away();
        self.handles[away] = self.open(away);
        let handle = &self.handles[away];
        while status(handle).await.snapshot_bytes_received == 0 {
            pause().await;
        }
        let begun = Instant::now();
        while !Marks(status(handle).await.marks).has(Mark::Installed) {
            pause().await;
        }
        let took = begun.elapsed();
        let target = status(self.leader()).await.committed;
        while status(handle).await.applied < target {
            pause().await;
        }
        let received = status(handle).await.snapshot_bytes_received;
        assert!(received >= (self.mib * MIB) as u64, "{received} bytes are no such state");
        took
    }

    async fn end(self) {
        for handle in &self.handles {
            handle.shutdown(false).await.expect("it ends");
        }
    }
}

async fn status(handle: &Handle) -> Status {
    handle.status().await.expect("the node runs")
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Commands, one after the other from each writer, until `end`: how many seconds each took.
async fn write_until<T>(leader: &Handle, end: impl Future<Output = T>) -> (Samples, T) {
    let (took, command) = (RefCell::new(Vec::new()), [7; COMMAND_BYTES]);
    let write = async || {
        loop {
            let begun = Instant::now();
            leader.propose_one(&command).await.expect("it leads, and has room");
            took.borrow_mut().push(begun.elapsed().as_secs_f64());
        }
    };
    let writers = join_all((0..WRITERS).map(|_| write()));
    let Either::Left((ended, _)) = select(pin!(end), pin!(writers)).await else {
        unreachable!("a writer does not end");
    };
    (Samples::new(took.into_inner()), ended)
}

/// As many bytes through a socket into a file, synced once.
fn copy(dir: &Path, mib: usize) -> Duration {
    let [address] = free_addresses();
    let listener = TcpListener::bind(&address).expect("a port");
    let source = dir.join("source");
    fs::write(&source, vec![7; mib * MIB]).expect("room");
    let begun = Instant::now();
    let sender = thread::spawn({
        let source = source.clone();
        move || {
            let from = File::open(source).expect("it was written");
            pump(from, TcpStream::connect(address).expect("it listens"));
        }
    });
    let (from, _) = listener.accept().expect("it connects");
    let to = pump(from, File::create(dir.join("copy")).expect("room"));
    to.sync_all().expect("a sync");
    sender.join().expect("it ends");
    let took = begun.elapsed();
    for file in [source, dir.join("copy")] {
        fs::remove_file(file).expect("it was created");
    }
    took
}

fn pump<W: Write>(mut from: impl Read, mut to: W) -> W {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match from.read(&mut buffer).expect("it reads") {
            0 => return to,
            n => to.write_all(&buffer[..n]).expect("it writes"),
        }
    }
}

/// The same large state whatever was written; what is restored is compared with it.
struct State {
    page: Bytes,
    pages: usize,
}

impl State {
    fn new(mib: usize) -> Self {
        let page: Vec<u8> = (0..MIB).map(|at| ((at * 31) >> 8) as u8).collect();
        Self { page: page.into(), pages: mib }
    }
}

impl StateMachine for State {
    fn apply(&mut self, _: LogId, _: Timestamp, _: &[u8], _: &mut Vec<u8>) {}

    fn query(&self, _: &[u8], _: &mut Vec<u8>) {}

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        Box::new(std::iter::repeat_n(self.page.clone(), self.pages))
    }

    fn restore(&mut self, offset: u64, bytes: &[u8], _: bool) -> Result<(), MachineError> {
        let (mut at, mut rest) = (offset as usize % MIB, bytes);
        while !rest.is_empty() {
            let (here, behind) = rest.split_at(rest.len().min(MIB - at));
            if here != &self.page[at..][..here.len()] {
                return Err(MachineError("another state".into()));
            }
            (at, rest) = (0, behind);
        }
        Ok(())
    }
}
