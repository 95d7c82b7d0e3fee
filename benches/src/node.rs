//! A node of ours in a benchmark: how it is started, how its log is filled, where its files are.

use futures::{StreamExt, stream::FuturesUnordered};
use lakebed::{Batch, ClusterId, Config, GroupId, NodeId, StateMachine, Tuning};
use lakebed_runtime::{Answers, DiskKind, Handle, Listen, Node, Options, Reply};
use std::{
    fs::{self, File},
    net::TcpListener,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

const BATCH_BYTES: usize = 256 << 10;
const BATCHES_IN_FLIGHT: usize = 16;

/// Who it is, whom it knows, and where it lives.
pub struct Place<'a> {
    pub id: u64,
    pub members: &'a [(u64, &'a str)],
    pub address: &'a str,
    pub dir: &'a Path,
    pub disk: DiskKind,
}

impl<'a> Place<'a> {
    /// A node alone.
    pub fn alone(dir: &'a Path, disk: DiskKind) -> Self {
        Self { id: 1, members: &[(1, "127.0.0.1:1")], address: "127.0.0.1:0", dir, disk }
    }

    /// Drives it on a thread of its own. It takes snapshots when it is asked to.
    pub fn open<M>(&self, machine: M, tune: impl FnOnce(&mut Tuning)) -> Handle
    where
        M: StateMachine + Send + 'static,
    {
        let mut config = Config::new(GroupId(1), NodeId(self.id));
        config.tuning.snapshot_log_bytes = 0;
        tune(&mut config.tuning);
        let listen = Listen::Address(self.address.parse().expect("an address"));
        let mut options = Options::new(self.dir, ClusterId(1), config, listen);
        options = options.members(self.members.iter().copied());
        options.disk = self.disk;
        Node::spawn(options, machine).expect("a node")
    }
}

/// Addresses where nobody listens yet.
pub fn free_addresses<const N: usize>() -> [String; N] {
    let bound = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    bound.map(|listener| listener.local_addr().expect("it has one").to_string())
}

pub fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

/// Proposes so many bytes of what `command` makes of a buffer for the n-th of them, and waits until
/// all are applied.
pub async fn fill(handle: &Handle, bytes: u64, mut command: impl FnMut(u64, &mut Vec<u8>)) {
    let mut under_way: FuturesUnordered<Reply<Answers>> = FuturesUnordered::new();
    let (mut filled, mut n, mut buffer) = (0, 0, Vec::new());
    while filled < bytes {
        let mut batch = Batch::with_capacity(BATCH_BYTES + (64 << 10));
        while batch.bytes() < BATCH_BYTES {
            buffer.clear();
            command(n, &mut buffer);
            batch.push(&buffer);
            n += 1;
        }
        filled += batch.bytes() as u64;
        if under_way.len() == BATCHES_IN_FLIGHT {
            let answers = under_way.next().await.expect("some are on their way");
            answers.expect("nothing is wrong with it");
        }
        under_way.push(handle.propose(batch));
    }
    while let Some(answers) = under_way.next().await {
        answers.expect("nothing is wrong with it");
    }
}

/// Once it leads, or knows who does.
pub async fn ready(handle: &Handle, command: &[u8]) {
    while handle.propose_one(command).await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

/// The log's files, in order.
pub fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut files = files(dir);
    files.retain(|file| {
        file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("log-"))
    });
    files.sort();
    files
}

/// All of the node's files.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).expect("the node's directory");
    files.map(|file| file.expect("a file").path()).filter(|path| path.is_file()).collect()
}

/// How many bytes a log's segments have.
pub fn log_bytes(dir: &Path) -> u64 {
    let len = |file: &PathBuf| fs::metadata(file).expect("a segment").len();
    segments(dir).iter().map(len).sum()
}

/// Gives back what of these files lies in memory.
pub fn forget(files: &[PathBuf]) {
    for file in files {
        let file = File::open(file).expect("a file");
        file.sync_all().expect("a sync");
        // SAFETY: the descriptor is open, and the call takes nothing else of ours.
        let failed =
            unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        assert_eq!(failed, 0, "the cache lets go");
    }
}
