//! Three real nodes on loopback in one process: they elect, replicate, restart, lose one and go
//! on.

use crate::{
    count::number,
    patience::{eventually, within},
    port::Port,
};
use bytes::Bytes;
use futures::future::join_all;
use lakebed::{
    Batch, ClusterId, Config, GroupId, Halt, LogId, MachineError, NodeId, Note, ReadMode, Role,
    Start, StateMachine, Status, Timestamp, Tuning,
};
use lakebed_runtime::{Counters, DiskKind, Failure, Handle, Listen, Node, Options};
use std::{
    collections::BTreeSet,
    net::TcpListener,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// A set of numbers: proposing one again changes nothing. Every answer is the sum of all of them
/// and how many there are.
#[derive(Default)]
struct Numbers {
    numbers: BTreeSet<u64>,
}

impl StateMachine for Numbers {
    fn apply(&mut self, _: LogId, _: Timestamp, command: &[u8], answer: &mut Vec<u8>) {
        self.numbers.insert(number(command));
        self.query(&[], answer);
    }

    fn query(&self, _: &[u8], answer: &mut Vec<u8>) {
        answer.extend_from_slice(&self.numbers.iter().sum::<u64>().to_le_bytes());
        answer.extend_from_slice(&(self.numbers.len() as u64).to_le_bytes());
    }

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        let numbers: Vec<_> = self.numbers.iter().map(|n| n.to_le_bytes()).collect();
        Box::new(numbers.into_iter().map(|number| Bytes::copy_from_slice(&number)))
    }

    fn restore(&mut self, offset: u64, bytes: &[u8], _: bool) -> Result<(), MachineError> {
        if offset == 0 {
            self.numbers.clear();
        }
        self.numbers.extend(bytes.chunks(8).map(number));
        Ok(())
    }
}

fn sums(answer: &[u8]) -> (u64, u64) {
    (number(answer), number(&answer[8..]))
}

struct Running {
    handle: Handle,
    counters: Arc<Counters>,
    task: JoinHandle<Arc<Halt>>,
}

struct Cluster {
    dir: TempDir,
    disk: DiskKind,
    tuning: Tuning,
    ports: [Port; 3],
    nodes: Vec<Option<Running>>,
}

impl Cluster {
    async fn new(disk: DiskKind) -> Self {
        Self::tuned(disk, quick()).await
    }

    async fn tuned(disk: DiskKind, tuning: Tuning) -> Self {
        let ports = [Port::take(), Port::take(), Port::take()];
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = Self { dir, disk, tuning, ports, nodes: vec![None, None, None] };
        (0..3).for_each(|node| cluster.start(node));
        cluster
    }

    fn options(&self, node: usize, listen: Listen) -> Options {
        let mut config = Config::new(GroupId(1), NodeId(node as u64 + 1));
        config.tuning = self.tuning.clone();
        let dir = self.dir.path().join(node.to_string());
        let addresses = self.ports.each_ref().map(|port| port.address.to_string());
        let members = (1..).zip(addresses.iter().map(String::as_str));
        let mut options = Options::new(dir, ClusterId(7), config, listen).members(members);
        options.disk = self.disk;
        options
    }

    fn start(&mut self, node: usize) {
        let listen = Listen::Address(self.ports[node].address);
        let (handle, driven) = Node::open(self.options(node, listen), Numbers::default()).unwrap();
        let counters = driven.counters();
        self.nodes[node] = Some(Running { handle, counters, task: tokio::spawn(driven) });
    }

    fn handle(&self, node: usize) -> &Handle {
        &self.nodes[node].as_ref().unwrap().handle
    }

    fn up(&self) -> impl Iterator<Item = &Handle> {
        self.nodes.iter().flatten().map(|running| &running.handle)
    }

    async fn stop(&mut self, node: usize) {
        let Running { handle, task, .. } = self.nodes[node].take().unwrap();
        assert_eq!(*within(handle.shutdown(false)).await.unwrap(), Halt::Stopped);
        assert_eq!(*task.await.unwrap(), Halt::Stopped);
    }

    /// Ends it without a word to its engine, as a kill does.
    async fn kill(&mut self, node: usize) {
        let Running { task, .. } = self.nodes[node].take().unwrap();
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }

    /// The index of the leader that everybody who is up knows of.
    async fn leader(&self) -> usize {
        eventually(async || {
            let mut leaders = Vec::new();
            for handle in self.up() {
                leaders.push(handle.status().await.ok()?.leader?);
            }
            leaders.dedup();
            let [leader] = leaders[..] else { return None };
            let leader = leader.0 as usize - 1;
            let status = self.nodes[leader].as_ref()?.handle.status().await.ok()?;
            (status.role == Role::Leader).then_some(leader)
        })
        .await
    }

    /// Every node that is up applied this many commands, with this sum.
    async fn agree(&self, sum: u64, count: u64) {
        for handle in self.up() {
            let read = || handle.read_one(b"", ReadMode::Linearizable);
            let answer = eventually(async || read().await.ok()).await;
            assert_eq!(sums(&answer), (sum, count));
        }
    }
}

/// Elections in tenths of a second: these tests share a busy machine.
fn quick() -> Tuning {
    let mut tuning = Tuning::default();
    tuning.heartbeat = Duration::from_millis(50);
    tuning.election = (Duration::from_millis(300), Duration::from_millis(600));
    tuning
}

/// Proposes one number after the other, each until it is acknowledged.
async fn add(handle: &Handle, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        eventually(async || handle.propose_one(&number.to_le_bytes()).await.ok()).await;
    }
}

/// The sum of the first numbers.
const fn sum(count: u64) -> u64 {
    count * (count + 1) / 2
}

async fn elects_replicates_and_restarts(disk: DiskKind) {
    let mut cluster = Cluster::new(disk).await;
    let leader = cluster.leader().await;
    for (node, numbers) in [(0, 1..=3), (1, 4..=6), (2, 7..=9)] {
        add(cluster.handle(node), numbers).await;
    }
    cluster.agree(sum(9), 9).await;
    let mut batch = Batch::default();
    (10..=1000u64).for_each(|number| batch.push(&number.to_le_bytes()));
    let propose = || cluster.handle(leader).propose(batch.clone());
    let answers = eventually(async || propose().await.ok()).await;
    assert_eq!(answers.len(), 991);
    assert_eq!(answers.iter().map(sums).last(), Some((sum(1000), 1000)));
    for node in 0..3 {
        cluster.stop(node).await;
    }
    (0..3).for_each(|node| cluster.start(node));
    cluster.leader().await;
    cluster.agree(sum(1000), 1000).await;
    add(cluster.handle(0), [1001]).await;
    cluster.agree(sum(1001), 1001).await;
}

#[tokio::test]
async fn a_cluster_elects_replicates_and_restarts_on_threads() {
    elects_replicates_and_restarts(DiskKind::Files).await;
}

#[tokio::test]
async fn a_cluster_elects_replicates_and_restarts_on_the_best_disk() {
    elects_replicates_and_restarts(DiskKind::Auto).await;
}

#[tokio::test]
async fn two_of_three_go_on_and_the_third_catches_up() {
    let mut cluster = Cluster::new(DiskKind::Auto).await;
    let leader = cluster.leader().await;
    add(cluster.handle(leader), 1..=10).await;
    cluster.kill(leader).await;
    let next = cluster.leader().await;
    assert_ne!(next, leader);
    add(cluster.handle(next), 11..=200).await;
    cluster.start(leader);
    cluster.leader().await;
    cluster.agree(sum(200), 200).await;
}

#[tokio::test]
async fn all_are_killed_at_once_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::new(DiskKind::Auto).await;
    for round in 0..3 {
        let leader = cluster.leader().await;
        add(cluster.handle(leader), round * 50 + 1..=round * 50 + 50).await;
        for node in 0..3 {
            cluster.kill(node).await;
        }
        (0..3).for_each(|node| cluster.start(node));
    }
    cluster.leader().await;
    cluster.agree(sum(150), 150).await;
}

#[tokio::test]
async fn one_node_alone_serves_on_a_thread_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let mut config = Config::new(GroupId(1), NodeId(1));
        config.tuning = quick();
        let listen = Listen::Address("127.0.0.1:0".parse().unwrap());
        let options = Options::new(dir.path().join("deep/below"), ClusterId(7), config, listen);
        Node::spawn(options.members([(1, "127.0.0.1:1")]), Numbers::default()).unwrap()
    };
    let first = open();
    add(&first, 1..=100).await;
    within(first.shutdown(true)).await.unwrap();
    let second = open();
    let answer = eventually(async || second.read_one(b"", ReadMode::Linearizable).await.ok()).await;
    assert_eq!(sums(&answer), (5050, 100));
    within(second.shutdown(true)).await.unwrap();
    assert!(matches!(second.propose_one(b"12345678").await, Err(Failure::Refused(_))));
}

// ---- what a node refuses to start with ------------------------------------------------------------

fn refused(options: Options) -> String {
    Node::open(options, Numbers::default()).map(|_| ()).unwrap_err().to_string()
}

fn alone(dir: &Path, node: u64) -> Options {
    let listen = Listen::Bound(TcpListener::bind("127.0.0.1:0").unwrap());
    let config = Config::new(GroupId(1), NodeId(node));
    Options::new(dir, ClusterId(7), config, listen).members([(node, "127.0.0.1:1")])
}

#[tokio::test]
async fn a_port_in_use_or_open_to_the_world_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut options = alone(dir.path(), 1);
    options.listen = Listen::Address(address);
    let refusal = refused(options);
    assert!(refusal.contains(&format!("cannot listen on {address}")), "{refusal}");
    let open = "0.0.0.0:0".parse().unwrap();
    for listen in [Listen::Address(open), Listen::Bound(TcpListener::bind(open).unwrap())] {
        let mut options = alone(dir.path(), 1);
        options.listen = listen;
        let refusal = refused(options);
        assert!(refusal.contains("insecure"), "{refusal}");
    }
    let mut options = alone(dir.path(), 1);
    (options.listen, options.insecure) = (Listen::Address(open), true);
    Node::open(options, Numbers::default()).unwrap();
}

#[tokio::test]
async fn a_directory_is_one_nodes_at_a_time_and_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let (handle, node) = Node::open(alone(dir.path(), 1), Numbers::default()).unwrap();
    let refusal = refused(alone(dir.path(), 1));
    assert!(refusal.contains("a node runs"), "{refusal}");
    let node = tokio::spawn(node);
    eventually(async || handle.propose_one(&[0; 8]).await.ok()).await;
    handle.shutdown(false).await.unwrap();
    node.await.unwrap();
    let refusal = refused(alone(dir.path(), 2));
    assert!(refusal.contains("belongs to node 1, not to node 2"), "{refusal}");
    let mut options = alone(dir.path(), 1);
    options.cluster = ClusterId(8);
    let refusal = refused(options);
    assert!(refusal.contains("belongs to cluster 7, not to cluster 8"), "{refusal}");
}

#[tokio::test]
async fn an_empty_directory_is_not_run() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = alone(dir.path(), 1);
    options.members = None;
    let (_, node) = Node::open(options, Numbers::default()).unwrap();
    assert_eq!(*within(node).await, Halt::NotFormatted);
}

#[tokio::test]
async fn notes_and_status_tell_of_the_leader() {
    use futures::StreamExt;
    let dir = tempfile::tempdir().unwrap();
    let (handle, node) = Node::open(alone(dir.path(), 1), Numbers::default()).unwrap();
    let notes = handle.subscribe();
    let node = tokio::spawn(node);
    let leads = |note| async move {
        matches!(note, Note::Role { leader: Some(NodeId(1)), .. }).then_some(())
    };
    within(Box::pin(notes.filter_map(leads)).next()).await.unwrap();
    let Status { role, node: id, ready, .. } = handle.status().await.unwrap();
    assert_eq!((role, id, ready), (Role::Leader, NodeId(1), true));
    handle.shutdown(true).await.unwrap();
    node.await.unwrap();
    // What is left can be inspected, and that ends by itself.
    let mut options = alone(dir.path(), 1);
    options.start = Some(Start::Inspect);
    let (_, node) = Node::open(options, Numbers::default()).unwrap();
    let halt = within(node).await;
    assert!(matches!(*halt, Halt::Inspected(_)), "{halt:?}");
}

/// A follower's engine forwarded all that it took, which its queue had no room for: the connection was
/// closed, and whoever had proposed was told that nobody knows what became of it.
#[tokio::test]
async fn what_a_follower_may_take_it_can_forward() {
    let mut tuning = Tuning::default();
    (tuning.append_bytes_max, tuning.inflight_bytes_max) = (64 << 10, 128 << 10);
    tuning.propose_bytes_max = 2 << 20;
    let cluster = Cluster::tuned(DiskKind::Files, tuning).await;
    let follower = (cluster.leader().await + 1) % 3;
    let mut command = vec![0; 60 << 10];
    command[0] = 1;
    // In one turn: the node has its next one when all were proposed.
    let propose = |_| cluster.handle(follower).propose(Batch::one(&command));
    let proposed: Vec<_> = (0..32).map(propose).collect();
    for outcome in within(join_all(proposed)).await {
        assert!(outcome.is_ok(), "{outcome:?}");
    }
    let overflows = &cluster.nodes[follower].as_ref().unwrap().counters.overflows;
    assert_eq!(overflows.load(Ordering::Relaxed), 0);
}
