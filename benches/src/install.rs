//! A state for a follower that was away for longer than the log reaches back, from the first chunk
//! until it is whole and in its place; beside a bare copy of as many bytes through a socket into a
//! file with one sync. And what those who write notice of it: their latencies meanwhile, beside
//! those just before, when the same two nodes were up, and those while a bare copy is made on the
//! same disk: what that does to them no install can undo but by being slower. So once more at the
//! pace that a limit sets. Apart from it, what they notice of the follower's start: all three nodes
//! live on one disk, and this one reads its log from it, which elsewhere it does alone.

use crate::{
    node::{Place, free_addresses, ready, run},
    rounds::{Samples, ratios, readable_ratio},
};
use bytes::Bytes;
use futures::future::{Either, join_all, select};
use lakebed::{Control, LogId, MachineError, Mark, Role, StateMachine, Status, Timestamp, Tuning};
use lakebed_runtime::{DiskKind, Handle};
use std::{
    cell::RefCell,
    fs::{self, File},
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
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
/// What a leader may send in a second where it has a limit.
const LIMIT_BYTES: u64 = 128 << 20;

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
    // Each once when nobody writes, and once under load.
    let (mut theirs, mut ours) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let mut before = Latencies::default();
    let mut meanwhile = Meanwhile::default();
    let speed = |took: Duration| (mib * MIB) as f64 / took.as_secs_f64() / 1e9;
    let source = Source::new(dir, mib);
    run(async {
        let addresses = free_addresses();
        let mut cluster = Cluster::start(dir, disk, mib, &addresses).await;
        for _ in 0..rounds {
            theirs[0].push(speed(source.copy().await));
            source.forget_copy();
            cluster.leave_behind().await;
            cluster.start_again().await;
            ours[0].push(speed(cluster.install().await));
            cluster.leave_behind().await;
            let leader = cluster.leader().clone();
            let (quiet, ()) = write_until(&leader, tokio::time::sleep(BEFORE)).await;
            before.add(&quiet);
            let (busy, took) = write_until(&leader, source.copy()).await;
            source.forget_copy();
            meanwhile.copying.add(&busy);
            theirs[1].push(speed(took));
            let (busy, ()) = write_until(&leader, cluster.start_again()).await;
            meanwhile.starting.add(&busy);
            let (busy, took) = write_until(&leader, cluster.install()).await;
            meanwhile.installing.add(&busy);
            ours[1].push(speed(took));
            cluster.leave_behind().await;
            let leader = cluster.leader().clone();
            leader.tune(tuning(LIMIT_BYTES)).expect("it can be");
            cluster.start_again().await;
            let (busy, _) = write_until(&leader, cluster.install()).await;
            meanwhile.limited.add(&busy);
            leader.tune(tuning(0)).expect("it can be");
        }
        cluster.end().await;
    });
    println!("  {disk:?}");
    for (title, ours, theirs) in
        [("nobody writes", &ours[0], &theirs[0]), ("under load", &ours[1], &theirs[1])]
    {
        let (ratio, theirs) = (readable_ratio(&ratios(ours, theirs)), median(theirs));
        println!(
            "    {title}: a bare copy {theirs:.2} GB/s, the install {:.2}, {ratio}",
            median(ours)
        );
    }
    for (n, title) in ["p50", "p99"].into_iter().enumerate() {
        println!("    a write's {title}: {:.2} ms before", median(&before.0[n]));
        for (what, during) in meanwhile.each() {
            let (during, before) = (&during.0[n], &before.0[n]);
            let ratio = readable_ratio(&ratios(during, before));
            println!("      {what} {:.2} ms, {ratio}", median(during));
        }
        let of_copy = ratios(&meanwhile.installing.0[n], &meanwhile.copying.0[n]);
        println!("      an install's to a copy's: {}", readable_ratio(&of_copy));
    }
}

/// What writes took while something else went on, of which a round's are compared with those before.
#[derive(Default)]
struct Meanwhile {
    copying: Latencies,
    starting: Latencies,
    installing: Latencies,
    limited: Latencies,
}

impl Meanwhile {
    fn each(&self) -> [(String, &Latencies); 4] {
        let limit = format!("during an install at {} MiB/s", LIMIT_BYTES >> 20);
        [
            ("while a copy is made".into(), &self.copying),
            ("while the follower starts".into(), &self.starting),
            ("during an install".into(), &self.installing),
            (limit, &self.limited),
        ]
    }
}

fn median(samples: &[f64]) -> f64 {
    Samples::new(samples.to_vec()).median()
}

/// What writes took, in ms: median and 99th percentile of each round.
#[derive(Default)]
struct Latencies([Vec<f64>; 2]);

impl Latencies {
    fn add(&mut self, round: &Samples) {
        for (of, quantile) in self.0.iter_mut().zip([0.5, 0.99]) {
            of.push(round.quantile(quantile) * 1e3);
        }
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
        place.open(State::new(self.mib), |own| *own = tuning(0))
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

    /// Starts the follower again, and waits for the first chunk.
    async fn start_again(&mut self) {
        let away = self.away();
        self.handles[away] = self.open(away);
        let handle = &self.handles[away];
        while status(handle).await.snapshot_bytes_received == 0 {
            pause().await;
        }
    }

    /// How long it takes from the first chunk to the last in its place; and waits until the follower
    /// has what was written meanwhile.
    async fn install(&self) -> Duration {
        let begun = Instant::now();
        let handle = &self.handles[self.away()];
        while !status(handle).await.marks.has(Mark::Installed) {
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

/// Nothing is kept for those who were not there, nobody calls an election because two processors have
/// much to do, and the leader sends so many bytes of a state in a second; zero: as fast as it can.
fn tuning(limit: u64) -> Tuning {
    let mut tuning = Tuning::default();
    tuning.snapshot_log_bytes = 0;
    tuning.retain_log_bytes = 0;
    tuning.election = (Duration::from_secs(2), Duration::from_secs(4));
    tuning.transfer_bytes_per_second = limit;
    tuning
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

/// As many bytes as the state has, on disk and in memory as a snapshot is.
struct Source {
    path: PathBuf,
    mib: usize,
}

impl Source {
    fn new(dir: &Path, mib: usize) -> Self {
        let path = dir.join("source");
        let mut file = File::create(&path).expect("room");
        (0..mib).for_each(|_| file.write_all(&[7; MIB]).expect("it writes"));
        // What is not on disk yet would be written beside the copy.
        file.sync_all().expect("a sync");
        Self { path, mib }
    }

    /// Through a socket into another file, synced once.
    async fn copy(&self) -> Duration {
        let (from, to) = (self.path.clone(), self.path.with_extension("copy"));
        let copied = tokio::task::spawn_blocking(move || copy(&from, &to));
        let (took, bytes) = copied.await.expect("it ends");
        assert_eq!(bytes, (self.mib * MIB) as u64, "all of it");
        took
    }

    /// Removes the copy. That is no part of it: what it does to others they shall not notice.
    fn forget_copy(&self) {
        fs::remove_file(self.path.with_extension("copy")).expect("it was made");
        let dir = self.path.parent().expect("it lies in one");
        File::open(dir).and_then(|dir| dir.sync_all()).expect("a sync");
    }
}

fn copy(from: &Path, to: &Path) -> (Duration, u64) {
    let [address] = free_addresses();
    let listener = TcpListener::bind(&address).expect("a port");
    let source = File::open(from).expect("it was written");
    let begun = Instant::now();
    let sender = thread::spawn(move || {
        pump(source, TcpStream::connect(address).expect("it listens"));
    });
    let (stream, _) = listener.accept().expect("it connects");
    let copy = pump(stream, File::create(to).expect("room"));
    copy.sync_all().expect("a sync");
    let took = begun.elapsed();
    sender.join().expect("it ends");
    let bytes = copy.metadata().expect("it is there").len();
    (took, bytes)
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
