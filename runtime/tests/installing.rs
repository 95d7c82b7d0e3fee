//! A follower that was away for longer than the log reaches back is sent the state, over real
//! sockets and onto a real disk, while its leader goes on.
//!
//! `INSTALL_MIB=1024 cargo test --release -p lakebed-runtime --test installing -- --nocapture` does
//! it with a state of that size, and tells how long it took beside a bare copy of as many bytes
//! through a socket into a file with one sync.

mod port;

use bytes::Bytes;
use lakebed::{
    ClusterId, Config, Control, GroupId, LogId, LogIndex, MachineError, Mark, NodeId, Role,
    StateMachine, Status, Timestamp,
};
use lakebed_runtime::{DiskKind, Handle, Listen, Node, Options};
use port::Port;
use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use tokio::time::{interval, timeout};

const PATIENCE: Duration = Duration::from_secs(120);
const MIB: usize = 1 << 20;

/// A large state that every command changes: each adds its bytes to the page that it names.
#[derive(Clone)]
struct Pages {
    bytes: Arc<Vec<u8>>,
    applied: u64,
}

impl Pages {
    fn new(mib: usize) -> Self {
        Self { bytes: Arc::new(vec![0; mib * MIB]), applied: 0 }
    }

    fn digest(&self) -> u64 {
        u64::from(crc32c::crc32c(&self.bytes)) << 32 | self.applied
    }
}

impl StateMachine for Pages {
    fn apply(&mut self, at: LogId, _: Timestamp, command: &[u8], _: &mut Vec<u8>) {
        self.applied += 1;
        let bytes = Arc::make_mut(&mut self.bytes);
        let start = at.index.0 as usize * 4096 % bytes.len();
        let page = bytes[start..].iter_mut().zip(command);
        page.for_each(|(byte, more)| *byte = byte.wrapping_add(*more));
    }

    fn query(&self, _: &[u8], answer: &mut Vec<u8>) {
        answer.extend_from_slice(&self.digest().to_le_bytes());
    }

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        let applied = Bytes::copy_from_slice(&self.applied.to_le_bytes());
        let bytes = Arc::clone(&self.bytes);
        let pieces = (0..bytes.len()).step_by(MIB);
        Box::new(
            std::iter::once(applied)
                .chain(pieces.map(move |at| Bytes::copy_from_slice(&bytes[at..at + MIB]))),
        )
    }

    fn restore(&mut self, offset: u64, bytes: &[u8], _: bool) -> Result<(), MachineError> {
        let state = Arc::make_mut(&mut self.bytes);
        let (mut at, mut rest) = (offset as usize, bytes);
        if at == 0 {
            let (applied, behind) =
                rest.split_first_chunk().ok_or_else(|| MachineError("eight bytes".into()))?;
            self.applied = u64::from_le_bytes(*applied);
            (at, rest) = (8, behind);
        }
        let place = state.get_mut(at - 8..at - 8 + rest.len());
        place.ok_or_else(|| MachineError("a state of another size".into()))?.copy_from_slice(rest);
        Ok(())
    }
}

struct Place<'a> {
    dir: &'a Path,
    addresses: [SocketAddr; 3],
    disk: DiskKind,
    mib: usize,
}

impl Place<'_> {
    fn start(&self, node: usize) -> Handle {
        let mut config = Config::new(GroupId(1), NodeId(node as u64 + 1));
        config.tuning.heartbeat = Duration::from_millis(50);
        config.tuning.election = (Duration::from_millis(500), Duration::from_millis(1000));
        // A snapshot whenever it is asked for, and nothing kept for those who were not there.
        config.tuning.snapshot_log_bytes = 0;
        config.tuning.retain_log_bytes = 0;
        let addresses = self.addresses.map(|address| address.to_string());
        let members = (1..).zip(addresses.iter().map(String::as_str));
        let listen = Listen::Address(self.addresses[node]);
        let dir = self.dir.join(node.to_string());
        let mut options = Options::new(dir, ClusterId(7), config, listen).members(members);
        options.disk = self.disk;
        let (handle, node) = Node::open(options, Pages::new(self.mib)).expect("a good directory");
        tokio::spawn(node);
        handle
    }
}

async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let mut tick = interval(Duration::from_millis(2));
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tick.tick().await;
        }
    };
    timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

async fn status(handle: &Handle) -> Status {
    handle.status().await.expect("the node runs")
}

async fn digest(handle: &Handle) -> u64 {
    let read = handle.read_one(b"", lakebed::ReadMode::Linearizable).await.expect("it answers");
    u64::from_le_bytes(*read.first_chunk().expect("eight bytes"))
}

/// Writes large commands through `leader`, with snapshots in between, until its log no longer holds
/// what comes behind `last`.
async fn leave_behind(leader: &Handle, last: LogIndex) {
    while status(leader).await.first <= last.next() {
        for n in 0..70_u8 {
            leader.propose_one(&vec![n; 512 << 10]).await.expect("two of three are up");
        }
        leader.control(Control::Snapshot).await.expect("a snapshot");
    }
}

async fn a_follower_left_behind_is_sent_the_state(disk: DiskKind) {
    let mib = std::env::var("INSTALL_MIB").ok().and_then(|n| n.parse().ok()).unwrap_or(16);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let ports = [Port::take(), Port::take(), Port::take()];
    let addresses = ports.each_ref().map(|port| port.address);
    let place = Place { dir: dir.path(), addresses, disk, mib };
    let mut handles = [0, 1, 2].map(|node| place.start(node));
    let leader = eventually("a leader", async || {
        for (node, handle) in handles.iter().enumerate() {
            if status(handle).await.role == Role::Leader {
                return Some(node);
            }
        }
        None
    })
    .await;
    let node = (leader + 1) % 3;
    handles[leader].propose_one(b"first").await.expect("the cluster is whole");
    let last = status(&handles[node]).await.last;
    handles[node].shutdown(false).await.expect("it stops");
    leave_behind(&handles[leader], last).await;

    handles[node] = place.start(node);
    let began = Instant::now();
    let installed = eventually("the install", async || {
        let status = status(&handles[node]).await;
        lakebed::marks::Marks(status.marks).has(Mark::Installed).then(|| began.elapsed())
    })
    .await;
    handles[leader].propose_one(b"after").await.expect("the cluster is whole");
    assert_eq!(digest(&handles[node]).await, digest(&handles[leader]).await);
    let restored = began.elapsed();
    println!(
        "{disk:?}: {mib} MiB in its place after {installed:?}, in the machine after {restored:?}"
    );
    for handle in &handles {
        handle.shutdown(false).await.expect("it stops");
    }
    if std::env::var_os("INSTALL_MIB").is_some() {
        let bare = copy(dir.path(), mib);
        let ratio = bare.as_secs_f64() / installed.as_secs_f64();
        println!("a bare copy: {bare:?}; the install at {ratio:.2}x of it");
    }
}

/// As many bytes through a socket into a file, synced once.
fn copy(dir: &Path, mib: usize) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it has one");
    let source = dir.join("source");
    std::fs::write(&source, vec![7; mib * MIB]).expect("room");
    let began = Instant::now();
    let sender = thread::spawn(move || {
        let mut from = File::open(source).expect("it was written");
        let mut to = TcpStream::connect(address).expect("it listens");
        let mut buffer = vec![0; 256 << 10];
        loop {
            match from.read(&mut buffer).expect("a file") {
                0 => return,
                n => to.write_all(&buffer[..n]).expect("a socket"),
            }
        }
    });
    let (mut from, _) = listener.accept().expect("it connects");
    let mut to = File::create(dir.join("copy")).expect("room");
    let mut buffer = vec![0; 256 << 10];
    loop {
        match from.read(&mut buffer).expect("a socket") {
            0 => break,
            n => to.write_all(&buffer[..n]).expect("room"),
        }
    }
    to.sync_all().expect("a sync");
    sender.join().expect("it ends");
    began.elapsed()
}

#[tokio::test]
async fn onto_a_disk_of_threads() {
    a_follower_left_behind_is_sent_the_state(DiskKind::Files).await;
}

#[tokio::test]
async fn onto_a_disk_on_the_kernels_queues() {
    a_follower_left_behind_is_sent_the_state(DiskKind::Auto).await;
}
