//! What a simulator proves of an engine counts for production if the real driver's engine is the
//! same: tapes of real clusters, on real disks and sockets, are replayed into bare engines, which
//! must emit the same actions, byte for byte.

use crate::{
    count::Count,
    patience::{eventually, within},
    port::Port,
};
use lakebed::{
    Action, ClusterId, Config, Engine, GroupId, Halt, NodeId, ReadMode,
    tape::{Tape, TapeError},
};
use lakebed_runtime::{DiskKind, Handle, Listen, Node, Options, disk::UringDisk};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;

const NODES: usize = 3;

struct Cluster {
    dir: TempDir,
    disk: DiskKind,
    ports: [Port; NODES],
    nodes: Vec<Option<(Handle, JoinHandle<Arc<Halt>>)>>,
}

impl Cluster {
    fn new(disk: DiskKind) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let nodes = (0..NODES).map(|_| None).collect();
        let mut cluster = Self { dir, disk, ports: [(); NODES].map(|()| Port::take()), nodes };
        (0..NODES).for_each(|node| cluster.start(node));
        cluster
    }

    fn tape(&self, node: usize, life: usize) -> PathBuf {
        let behind = if life == 1 { String::new() } else { format!(".{life}") };
        self.dir.path().join(format!("{node}.tape{behind}"))
    }

    fn start(&mut self, node: usize) {
        let mut config = Config::new(GroupId(1), NodeId(node as u64 + 1));
        config.tuning.heartbeat = Duration::from_millis(50);
        config.tuning.election = (Duration::from_millis(300), Duration::from_millis(600));
        // Small enough that snapshots are taken and segments removed.
        config.tuning.snapshot_log_bytes = 64 << 10;
        config.tuning.retain_log_bytes = 64 << 10;
        let addresses = self.ports.each_ref().map(|port| port.address.to_string());
        let members = (1..).zip(addresses.iter().map(String::as_str));
        let listen = Listen::Address(self.ports[node].address);
        let dir = self.dir.path().join(node.to_string());
        let mut options = Options::new(dir, ClusterId(7), config, listen).members(members);
        options.disk = self.disk;
        options.tape = Some(self.tape(node, 1));
        let (handle, driven) = Node::open(options, Count::default()).unwrap();
        self.nodes[node] = Some((handle, tokio::spawn(driven)));
    }

    async fn stop(&mut self, node: usize) {
        let (handle, task) = self.nodes[node].take().unwrap();
        assert_eq!(*within(handle.shutdown(false)).await.unwrap(), Halt::Stopped);
        task.await.unwrap();
    }

    /// Ends it without a word to its engine.
    async fn abort(&mut self, node: usize) {
        let (_, task) = self.nodes[node].take().unwrap();
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }

    /// Whom a node follows that is up.
    async fn leader(&self) -> usize {
        let (handle, _) = self.nodes.iter().flatten().next().unwrap();
        let leader = eventually(async || handle.status().await.ok()?.leader).await;
        leader.0 as usize - 1
    }

    /// Commands of all lengths through this node, each until it is acknowledged, and a read.
    async fn work(&self, node: usize, commands: std::ops::Range<usize>) {
        let (handle, _) = self.nodes[node].as_ref().unwrap();
        for n in commands {
            let command = vec![n as u8; n * 37 % 9000 + 1];
            eventually(async || handle.propose_one(&command).await.ok()).await;
        }
        eventually(async || handle.read_one(b"", ReadMode::Linearizable).await.ok()).await;
    }
}

fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Replays the tape of a life, all of which a bare engine must do alike; its last actions.
fn replayed(path: &Path) -> Vec<Action> {
    let tape = Tape::open(bytes(path).into()).unwrap();
    tape.clone().replay().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut engine = Engine::new(tape.config.clone(), tape.seed).unwrap();
    let mut actions = Vec::new();
    for step in tape.map(Result::unwrap) {
        actions.clear();
        engine.handle(step.now, step.events, &mut actions);
    }
    actions
}

fn has_halted(actions: &[Action]) -> bool {
    matches!(actions.last(), Some(Action::Halt(_)))
}

/// Writes through every node, a follower that stops, so that its leader hears of a lost link; one
/// that is dropped; both back, and all stopped. The nodes in the order that they went.
async fn storm(disk: DiskKind) -> (Cluster, [usize; NODES]) {
    let mut cluster = Cluster::new(disk);
    for node in 0..NODES {
        cluster.work(node, node * 20..node * 20 + 20).await;
    }
    let leader = cluster.leader().await;
    let [first, second, third] = [1, 2, 0].map(|behind| (leader + behind) % NODES);
    cluster.stop(first).await;
    cluster.work(second, 60..90).await;
    cluster.start(first);
    cluster.work(first, 90..100).await;
    cluster.abort(second).await;
    cluster.work(third, 100..110).await;
    cluster.start(second);
    cluster.work(second, 110..120).await;
    for node in 0..NODES {
        cluster.stop(node).await;
    }
    (cluster, [first, second, third])
}

async fn a_bare_engine_does_what_production_did(disk: DiskKind) {
    let (cluster, [first, second, third]) = storm(disk).await;
    let lives = [
        (first, 1, true),
        (first, 2, true),
        (second, 1, false),
        (second, 2, true),
        (third, 1, true),
    ];
    for (node, life, ends) in lives {
        let last = replayed(&cluster.tape(node, life));
        assert_eq!(has_halted(&last), ends, "node {node}, life {life}: {last:?}");
    }
    assert!(!cluster.tape(first, 3).exists() && !cluster.tape(third, 2).exists());
}

#[tokio::test]
async fn a_bare_engine_does_what_production_did_on_threads() {
    a_bare_engine_does_what_production_did(DiskKind::Files).await;
}

#[tokio::test]
async fn a_bare_engine_does_what_production_did_on_the_ring() {
    let probe = tempfile::tempdir().unwrap();
    let directory = lakebed::files::Directory::open(probe.path()).unwrap();
    if let Err((_, error)) = UringDisk::new(directory) {
        return eprintln!("nothing to test, no io_uring here: {error}");
    }
    a_bare_engine_does_what_production_did(DiskKind::Uring).await;
}

/// One byte of one proposed command is another: what the engine then writes and sends is, too.
#[tokio::test]
async fn one_changed_event_is_seen() {
    let mut cluster = Cluster::new(DiskKind::Files);
    let handle = cluster.nodes[0].as_ref().unwrap().0.clone();
    // One that is refused changes nothing, whatever it is.
    let mut attempt = 0;
    let command = eventually(async || {
        attempt += 1;
        let command = format!("attempt {attempt}, nowhere else on the tape").into_bytes();
        handle.propose_one(&command).await.ok().map(|_| command)
    })
    .await;
    for node in 0..NODES {
        cluster.stop(node).await;
    }
    let path = cluster.tape(0, 1);
    assert!(has_halted(&replayed(&path)));
    let mut changed = bytes(&path);
    let at = changed.windows(command.len()).position(|window| *window == command[..]).unwrap();
    changed[at] ^= 1;
    let error = Tape::open(changed.into()).unwrap().replay().unwrap_err();
    assert!(matches!(error, TapeError::Diverged { found: Some(_), .. }), "{error}");
}

#[tokio::test]
async fn a_tape_that_cannot_be_begun_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let listen = Listen::Address("127.0.0.1:0".parse().unwrap());
    let config = Config::new(GroupId(1), NodeId(1));
    let mut options = Options::new(dir.path().join("node"), ClusterId(7), config, listen);
    options.tape = Some(dir.path().join("nowhere/tape"));
    let error = Node::open(options, Count::default()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("cannot record to") && error.contains("nowhere/tape"), "{error}");
}
