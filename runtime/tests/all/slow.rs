//! A group whose machine is slow, or panics, most of it where machines work on threads: a node alone,
//! with several groups.

use crate::patience::{eventually, eventually_of, within};
use bytes::Bytes;
use lakebed::{
    ClusterId, GroupId, Halt, LogId, MachineError, NodeId, ReadMode, StateMachine, Timestamp,
};
use lakebed_runtime::{Failure, Groups, GroupsNode, GroupsOptions, Handle, Listen};
use std::{
    net::TcpListener,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
};
use tempfile::TempDir;
use tokio::task::JoinHandle;

const GROUPS: u64 = 4;

/// Counts commands; one of them takes until the test lets it go on, and one is too much.
struct Count {
    count: u64,
    begun: Sender<()>,
    gate: Arc<Mutex<Receiver<()>>>,
}

impl StateMachine for Count {
    fn apply(&mut self, _: LogId, _: Timestamp, command: &[u8], answer: &mut Vec<u8>) {
        assert_ne!(command, b"panic", "as it was told");
        if command == b"block" {
            self.begun.send(()).unwrap();
            // The test may be over.
            let _ = self.gate.lock().unwrap().recv();
        }
        self.count += 1;
        self.query(b"", answer);
    }

    fn query(&self, query: &[u8], answer: &mut Vec<u8>) {
        answer.extend_from_slice(query);
        answer.extend_from_slice(self.count.to_string().as_bytes());
    }

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        Box::new(std::iter::empty())
    }

    fn restore(&mut self, _: u64, _: &[u8], _: bool) -> Result<(), MachineError> {
        Ok(())
    }
}

fn open<M: StateMachine + Send + 'static>(
    machine_threads: usize,
    machine: impl FnMut(GroupId) -> M + Send + 'static,
) -> (Groups, GroupsNode<M>, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let listen = Listen::Bound(listener);
    let mut options = GroupsOptions::new(dir.path(), ClusterId(7), NodeId(1), listen);
    options.machine_threads = machine_threads;
    let (groups, node) = GroupsNode::open(options, machine).unwrap();
    for group in (1..=GROUPS).map(GroupId) {
        groups.create(group, [(1, address.as_str())]).unwrap();
    }
    (groups, node, dir)
}

struct Node {
    groups: Groups,
    task: JoinHandle<()>,
    begins: Receiver<()>,
    open: Sender<()>,
    _dir: TempDir,
}

impl Node {
    fn start() -> Self {
        let ((begun, begins), (open, gate)) = (channel(), channel());
        let gate = Arc::new(Mutex::new(gate));
        let machine = move |_| Count { count: 0, begun: begun.clone(), gate: Arc::clone(&gate) };
        let (groups, node, dir) = self::open(2, machine);
        Self { groups, task: tokio::spawn(node), begins, open, _dir: dir }
    }

    fn group(&self, group: u64) -> Handle {
        self.groups.group(GroupId(group)).unwrap()
    }

    async fn stop(self) {
        self.groups.shutdown(false);
        within(self.task).await.unwrap();
    }
}

/// What a group's machine counts after one command more; asked until there is a leader.
async fn add(handle: &Handle) -> String {
    let answer = eventually(async || handle.propose_one(b"one").await.ok()).await;
    String::from_utf8(answer.to_vec()).unwrap()
}

#[tokio::test]
async fn a_machine_that_blocks_leaves_the_other_groups_their_answers() {
    let node = Node::start();
    for group in 1..=GROUPS {
        assert_eq!(add(&node.group(group)).await, "1");
    }
    let blocked = node.group(1).propose_one(b"block");
    let waiting = node.group(1).read_one(b"count ", ReadMode::Linearizable);
    eventually_of("the machine begins", async || node.begins.try_recv().ok()).await;
    for count in 2..=50 {
        for group in 2..=GROUPS {
            assert_eq!(add(&node.group(group)).await, count.to_string());
            let read = node.group(group).read_one(b"count ", ReadMode::Linearizable);
            let read = within(read).await.unwrap();
            assert_eq!(read, format!("count {count}").as_bytes());
        }
    }
    // Its node answers for it meanwhile.
    assert!(within(node.group(1).status()).await.unwrap().ready);
    node.open.send(()).unwrap();
    assert_eq!(within(blocked).await.unwrap(), &b"2"[..]);
    let read = within(waiting).await.unwrap();
    assert!(read == b"count 1"[..] || read == b"count 2"[..], "{read:?}");
    node.stop().await;
}

#[tokio::test]
async fn a_machine_that_panics_on_its_thread_ends_its_group_alone() {
    let node = Node::start();
    let group = node.group(3);
    assert_eq!(add(&group).await, "1");
    let panicked = within(group.propose_one(b"panic")).await;
    assert_eq!(panicked, Err(Failure::Unknown));
    let halt = within(group.ended()).await.unwrap();
    assert!(matches!(&*halt, Halt::Panicked(why) if why.contains("as it was told")), "{halt}");
    for count in 1..=20 {
        for group in [1, 2, 4] {
            assert_eq!(add(&node.group(group)).await, count.to_string());
        }
    }
    node.stop().await;
}

/// Holds what a panic leaves unusable, and uses it once more as it goes.
#[derive(Default)]
struct Poisoned(Mutex<u64>);

impl StateMachine for Poisoned {
    fn apply(&mut self, _: LogId, _: Timestamp, command: &[u8], answer: &mut Vec<u8>) {
        let mut count = self.0.lock().unwrap();
        assert_ne!(command, b"panic", "as it was told");
        *count += 1;
        answer.extend_from_slice(count.to_string().as_bytes());
    }

    fn query(&self, _: &[u8], _: &mut Vec<u8>) {}

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        Box::new(std::iter::empty())
    }

    fn restore(&mut self, _: u64, _: &[u8], _: bool) -> Result<(), MachineError> {
        Ok(())
    }
}

impl Drop for Poisoned {
    fn drop(&mut self) {
        *self.0.lock().unwrap() = 0;
    }
}

/// The second panic ended all groups of the node; on a thread it came amid the first, and ended the process.
#[tokio::test]
async fn a_machine_that_panics_as_it_goes_ends_its_group_alone() {
    for machine_threads in [0, 2] {
        let (groups, node, _dir) = open(machine_threads, |_| Poisoned::default());
        let task = tokio::spawn(node);
        let [one, two] = [1, 2].map(|group| groups.group(GroupId(group)).unwrap());
        assert_eq!(add(&one).await, "1");
        let panicked = within(one.propose_one(b"panic")).await;
        assert_eq!(panicked, Err(Failure::Unknown));
        let halt = within(one.ended()).await.unwrap();
        assert!(matches!(&*halt, Halt::Panicked(why) if why.contains("as it was told")), "{halt}");
        for count in 1..=20 {
            assert_eq!(add(&two).await, count.to_string());
        }
        groups.shutdown(false);
        within(task).await.unwrap();
    }
}
