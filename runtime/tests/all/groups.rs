//! Three real nodes with many groups each, on loopback in one process.

use crate::{
    count::number,
    patience::{eventually, within},
    port::Port,
};
use bytes::Bytes;
use futures::{FutureExt, future::join};
use lakebed::{
    Change, ClusterId, Control, GroupId, Halt, LogId, LogIndex, MachineError, Member, NodeId,
    ReadMode, Role, StateMachine, Term, Timestamp, files::Directory,
};
use lakebed_runtime::{
    Counters, Failure, Groups, GroupsError, GroupsNode, GroupsOptions, Handle, Listen,
};
use std::{
    net::TcpListener,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;

const GROUPS: u64 = 16;
/// How many bytes a group has on their way to a peer.
const WINDOW: usize = 1 << 20;
/// What no machine can add.
const POISON: u64 = 666;

/// Adds up what it is told; every answer is the sum, and the group it is of.
struct Sum {
    group: GroupId,
    sum: u64,
}

impl StateMachine for Sum {
    fn apply(&mut self, _: LogId, _: Timestamp, command: &[u8], answer: &mut Vec<u8>) {
        assert_ne!(number(command), POISON, "group {} is poisoned", self.group);
        self.sum += number(command);
        self.query(&[], answer);
    }

    fn query(&self, _: &[u8], answer: &mut Vec<u8>) {
        answer.extend_from_slice(&self.sum.to_le_bytes());
        answer.extend_from_slice(&self.group.0.to_le_bytes());
    }

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        Box::new(std::iter::once(Bytes::copy_from_slice(&self.sum.to_le_bytes())))
    }

    fn restore(&mut self, _: u64, bytes: &[u8], _: bool) -> Result<(), MachineError> {
        self.sum = number(bytes);
        Ok(())
    }
}

struct Node {
    groups: Groups,
    counters: Arc<Counters>,
    task: JoinHandle<()>,
}

struct Cluster {
    dir: TempDir,
    ports: [Port; 3],
    nodes: [Option<Node>; 3],
}

impl Cluster {
    fn new() -> Self {
        let ports = [Port::take(), Port::take(), Port::take()];
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = Self { dir, ports, nodes: [None, None, None] };
        (0..3).for_each(|node| cluster.start(node));
        cluster
    }

    fn start(&mut self, at: usize) {
        let listen = Listen::Bound(TcpListener::bind(self.ports[at].address).unwrap());
        let dir = self.dir.path().join(at.to_string());
        let mut options = GroupsOptions::new(dir, ClusterId(7), NodeId(at as u64 + 1), listen);
        options.tuning.heartbeat = Duration::from_millis(50);
        options.tuning.election = (Duration::from_millis(300), Duration::from_millis(600));
        options.tuning.hibernate_after = Duration::from_millis(200);
        options.tuning.inflight_bytes_max = WINDOW as u64;
        options.tuning.propose_bytes_max = WINDOW as u64;
        let (groups, node) = GroupsNode::open(options, |group| Sum { group, sum: 0 }).unwrap();
        let counters = node.counters();
        self.nodes[at] = Some(Node { groups, counters, task: tokio::spawn(node) });
    }

    /// Its process goes, without a word to anybody.
    async fn kill(&mut self, at: usize) {
        let node = self.nodes[at].take().unwrap();
        node.task.abort();
        assert!(within(node.task).await.unwrap_err().is_cancelled());
    }

    fn groups(&self, at: usize) -> &Groups {
        &self.nodes[at].as_ref().unwrap().groups
    }

    fn create(&self, group: u64) {
        let addresses: Vec<_> = self.ports.iter().map(|port| port.address.to_string()).collect();
        for node in 0..3 {
            let voters = (1..).zip(addresses.iter().map(String::as_str));
            self.groups(node).create(GroupId(group), voters).unwrap();
        }
    }

    /// The handle of a group on the first node that is up.
    fn handle(&self, group: u64) -> Handle {
        let node = self.nodes.iter().flatten().next().unwrap();
        node.groups.group(GroupId(group)).unwrap()
    }

    /// A number is added in a group, by whichever node takes it.
    async fn add(&self, group: u64, number: u64) -> u64 {
        let propose = async || self.handle(group).propose_one(&number.to_le_bytes()).await.ok();
        let answer = eventually(propose).await;
        assert_eq!(self::number(&answer[8..]), group, "another group's machine answered");
        self::number(&answer)
    }

    /// What every node that is up reads in a group.
    async fn agree(&self, group: u64, sum: u64) {
        for node in self.nodes.iter().flatten() {
            let handle = eventually(async || node.groups.group(GroupId(group))).await;
            let read = async || handle.read_one(b"", ReadMode::Linearizable).await.ok();
            assert_eq!(number(&eventually(read).await), sum, "group {group}");
        }
    }

    async fn leader(&self, group: u64) -> usize {
        eventually(async || {
            for (at, node) in self.nodes.iter().enumerate() {
                let Some(node) = node else { continue };
                let status = node.groups.group(GroupId(group))?.status().await.ok()?;
                if status.role == Role::Leader {
                    return Some(at);
                }
            }
            None
        })
        .await
    }
}

#[tokio::test]
async fn groups_serve_rest_and_lose_a_node() {
    let mut cluster = Cluster::new();
    (1..=GROUPS).for_each(|group| cluster.create(group));
    assert_eq!(cluster.groups(2).list(), (1..=GROUPS).map(GroupId).collect::<Vec<_>>());
    for group in 1..=GROUPS {
        assert_eq!(cluster.add(group, group).await, group);
    }
    for group in 1..=GROUPS {
        cluster.agree(group, group).await;
    }
    // They go to rest, on every node.
    for group in (1..=GROUPS).map(GroupId) {
        for node in 0..3 {
            let handle = cluster.groups(node).group(group).unwrap();
            eventually(async || handle.status().await.ok().filter(|status| status.hibernates))
                .await;
        }
    }
    // And elect others when the node of some of their leaders is gone.
    let lost = cluster.leader(1).await;
    cluster.kill(lost).await;
    for group in 1..=GROUPS {
        assert_ne!(cluster.leader(group).await, lost);
        assert_eq!(cluster.add(group, 100).await, group + 100);
    }
    cluster.start(lost);
    for group in 1..=GROUPS {
        cluster.agree(group, group + 100).await;
    }
}

#[tokio::test]
async fn groups_come_and_go_while_others_run() {
    let mut cluster = Cluster::new();
    cluster.create(1);
    cluster.add(1, 1).await;
    cluster.create(9);
    assert_eq!(cluster.add(9, 5).await, 5);
    let again = cluster.groups(0).create(GroupId(9), [(1, "127.0.0.1:1")]);
    assert!(matches!(again, Err(GroupsError::Exists(GroupId(9)))));
    let unknown = cluster.groups(0).remove(GroupId(4)).await.unwrap_err();
    assert_eq!(unknown.to_string(), "there is no group 4 on this node");

    let handle = cluster.handle(9);
    for node in 0..3 {
        within(cluster.groups(node).remove(GroupId(9))).await.unwrap();
        assert_eq!(cluster.groups(node).list(), [GroupId(1)]);
        assert!(!cluster.dir.path().join(format!("{node}/group-9")).exists());
    }
    let late = within(handle.propose_one(&[0; 8])).await;
    assert!(matches!(late, Err(Failure::Refused(_))), "{late:?}");
    assert_eq!(cluster.add(1, 1).await, 2);
    // A restart finds those that are left.
    cluster.kill(0).await;
    cluster.start(0);
    assert_eq!(cluster.groups(0).list(), [GroupId(1)]);
    cluster.agree(1, 2).await;
}

/// What a former group's members said may come to a new one's at any time.
#[tokio::test]
async fn the_id_of_a_group_that_was_removed_is_not_used_again() {
    let mut cluster = Cluster::new();
    cluster.create(1);
    cluster.create(9);
    assert_eq!(cluster.add(9, 5).await, 5);
    for node in 0..3 {
        within(cluster.groups(node).remove(GroupId(9))).await.unwrap();
    }
    let refused = |cluster: &Cluster, group| {
        let created = cluster.groups(0).create(GroupId(group), [(1, "127.0.0.1:1")]);
        let words = format!(
            "a group {group} was removed from this node, and ids of groups are not used again: take another"
        );
        assert_eq!(created.unwrap_err().to_string(), words);
        assert!(!cluster.groups(0).path(GroupId(group)).exists(), "nothing is made for it");
    };
    refused(&cluster, 9);
    cluster.kill(0).await;
    // Of this one the process was killed while it was thrown away.
    let dir = cluster.dir.path().join("0");
    std::fs::create_dir_all(dir.join("gone-4")).unwrap();
    cluster.start(0);
    assert!(!dir.join("gone-4").exists());
    refused(&cluster, 9);
    refused(&cluster, 4);
    let kept = std::fs::read_to_string(dir.join("removed-groups")).unwrap();
    assert_eq!(kept, "lakebed-removed-groups 1\n4\n9\n");
    // Whoever joins founds nothing: it says nothing before it is told who it is.
    drop(cluster.groups(0).join(GroupId(9)).unwrap());
    assert_eq!(cluster.add(1, 1).await, 1);
    // What nobody can read is no list without anything in it.
    cluster.kill(0).await;
    std::fs::write(dir.join("removed-groups"), "9").unwrap();
    let listen = Listen::Bound(TcpListener::bind(cluster.ports[0].address).unwrap());
    let options = GroupsOptions::new(&dir, ClusterId(7), NodeId(1), listen);
    let opened = GroupsNode::open(options, |group| Sum { group, sum: 0 }).map(drop);
    let refusal = opened.unwrap_err().to_string();
    assert!(refusal.contains("removed-groups does not say which groups were removed"), "{refusal}");
}

/// Groups may be removed to make room, where there is none for a word about it.
#[tokio::test]
async fn a_group_is_removed_where_nothing_can_be_written() {
    let mut cluster = Cluster::new();
    cluster.create(1);
    cluster.create(9);
    assert_eq!(cluster.add(9, 5).await, 5);
    let dir = cluster.dir.path().join("0");
    let in_the_way = dir.join("removed-groups.new");
    std::fs::create_dir_all(in_the_way.join("full")).unwrap();
    within(cluster.groups(0).remove(GroupId(9))).await.unwrap();
    let left = || std::fs::read_dir(dir.join("gone-9")).map(Iterator::count);
    assert_eq!(left().unwrap(), 0, "its name alone is left");
    let is_refused = |cluster: &Cluster| {
        let created = cluster.groups(0).create(GroupId(9), [(1, "127.0.0.1:1")]);
        assert!(matches!(created, Err(GroupsError::Removed(GroupId(9)))), "{created:?}");
    };
    for _ in 0..2 {
        is_refused(&cluster);
        cluster.kill(0).await;
        cluster.start(0);
        assert_eq!(cluster.groups(0).list(), [GroupId(1)]);
    }
    std::fs::remove_dir_all(in_the_way).unwrap();
    within(cluster.groups(0).remove(GroupId(9))).await.unwrap();
    assert!(left().is_err());
    is_refused(&cluster);
    assert_eq!(
        std::fs::read_to_string(dir.join("removed-groups")).unwrap().lines().last(),
        Some("9")
    );
    assert_eq!(cluster.add(1, 1).await, 1);
}

/// Whoever hears of the end may begin the group again at once: not in a directory that is being thrown
/// away.
#[tokio::test]
async fn a_group_that_is_being_removed_begins_again_when_it_is_gone() {
    let cluster = Cluster::new();
    cluster.create(9);
    cluster.add(9, 5).await;
    let groups = cluster.groups(0).clone();
    // Of an earlier removal something was left.
    std::fs::create_dir_all(cluster.dir.path().join("0/gone-9/something")).unwrap();
    let ended = groups.ended(GroupId(9)).unwrap();
    let at_once = async {
        ended.await.unwrap();
        groups.join(GroupId(9)).unwrap_err()
    };
    let (early, removed) = within(join(at_once, groups.remove(GroupId(9)))).await;
    assert_eq!(early.to_string(), "group 9 is being removed from this node");
    removed.unwrap();
    assert!(!cluster.dir.path().join("0/group-9").exists());
    let again = groups.join(GroupId(9)).unwrap();
    let status = within(again.status()).await.unwrap();
    assert_eq!(
        (status.last, status.term),
        (LogIndex(0), Term(0)),
        "it knows nothing of the former one"
    );
}

/// All of them have a window of entries for the node that comes back, and one connection.
#[tokio::test]
async fn a_node_that_lags_in_all_groups_catches_up_over_one_connection() {
    let mut cluster = Cluster::new();
    (1..=GROUPS).for_each(|group| cluster.create(group));
    for group in 1..=GROUPS {
        cluster.add(group, 1).await;
    }
    cluster.kill(2).await;
    let mut large = vec![0; WINDOW / 8];
    large[0] = 1;
    for group in 1..=GROUPS {
        cluster.leader(group).await;
        let propose = async || cluster.handle(group).propose_one(&large).await.ok();
        for _ in 0..12 {
            eventually(propose).await;
        }
    }
    cluster.start(2);
    for group in 1..=GROUPS {
        let handle = cluster.groups(2).group(GroupId(group)).unwrap();
        let at_least = async || {
            let read = handle.read_one(b"", ReadMode::Linearizable).await.ok()?;
            (number(&read) >= 13).then_some(())
        };
        eventually(at_least).await;
    }
    let overflows = |node: &Node| node.counters.overflows.load(Relaxed);
    assert_eq!(cluster.nodes.iter().flatten().map(overflows).sum::<u64>(), 0);
}

/// The poison is in the log: who leads meets it, and then who leads next. The third, which cannot
/// commit alone, may be spared. No other group hears of it.
#[tokio::test]
async fn a_group_that_panics_ends_with_its_reason_and_the_others_answer() {
    let cluster = Cluster::new();
    (1..=4).for_each(|group| cluster.create(group));
    for group in 1..=4 {
        cluster.add(group, 1).await;
    }
    let first = cluster.leader(2).await;
    let handles: Vec<_> =
        (0..3).map(|node| cluster.groups(node).group(GroupId(2)).unwrap()).collect();
    let poisoned = within(handles[first].propose_one(&POISON.to_le_bytes())).await;
    assert_eq!(poisoned, Err(Failure::Unknown));
    let without = |node: &usize| !cluster.groups(*node).list().contains(&GroupId(2));
    let ended =
        async || Some((0..3).filter(without).collect()).filter(|all: &Vec<_>| all.len() >= 2);
    let ended = eventually(ended).await;
    assert!(ended.contains(&first), "{ended:?}, {first}");
    for node in ended {
        let halt = within(handles[node].ended()).await.unwrap();
        let Halt::Panicked(reason) = &*halt else { panic!("{halt}") };
        assert!(reason.contains("group 2 is poisoned"), "{reason}");
        assert!(!within(handles[node].status()).await.unwrap().ready);
        assert_eq!(cluster.groups(node).list(), [1, 3, 4].map(GroupId));
        let late = within(handles[node].propose_one(&[0; 8])).await;
        assert!(matches!(late, Err(Failure::Refused(_))), "{late:?}");
    }
    for group in [1, 3, 4] {
        assert_eq!(cluster.add(group, 10).await, 11);
        cluster.agree(group, 11).await;
    }
    // What is there is not taken for a new one, and the directory is unlocked.
    let anew = cluster.groups(first).create(GroupId(2), [(1, "127.0.0.1:1")]).unwrap_err();
    let words =
        "the directory of a group 2 that has ended is still there: resume it, or remove it first";
    assert_eq!(anew.to_string(), words);
    let joined = cluster.groups(first).join(GroupId(2));
    assert!(matches!(joined, Err(GroupsError::Left(GroupId(2)))), "{joined:?}");
    drop(cluster.groups(first).resume(GroupId(2)).unwrap());
    cluster.agree(3, 11).await;
    let nothing = cluster.groups(first).resume(GroupId(5));
    assert!(matches!(nothing, Err(GroupsError::Unknown(GroupId(5)))), "{nothing:?}");
    assert!(!cluster.groups(first).path(GroupId(5)).exists(), "nothing is made for it");
}

/// That is how a group is to leave a node: it ends there by itself when it is no member, and its files
/// stayed for ever, as nobody was there to be removed.
#[tokio::test]
async fn a_group_that_has_ended_by_itself_is_removed() {
    let mut cluster = Cluster::new();
    (1..=2).for_each(|group| cluster.create(group));
    for group in 1..=2 {
        cluster.add(group, 1).await;
    }
    let leaves = (cluster.leader(2).await + 1) % 3;
    let ended = cluster.groups(leaves).ended(GroupId(2)).unwrap();
    let change = vec![Change::Remove(NodeId(leaves as u64 + 1))];
    eventually(async || {
        let leader = cluster.leader(2).await;
        let handle = cluster.groups(leader).group(GroupId(2))?;
        handle.control(Control::Change(change.clone())).await.ok()
    })
    .await;
    assert_eq!(*within(ended).await.unwrap(), Halt::Removed);
    let path = cluster.groups(leaves).path(GroupId(2));
    assert!(path.exists());
    within(cluster.groups(leaves).remove(GroupId(2))).await.unwrap();
    assert!(!path.exists());
    let again = within(cluster.groups(leaves).remove(GroupId(2))).await;
    assert!(matches!(again, Err(GroupsError::Unknown(GroupId(2)))), "{again:?}");
    cluster.kill(leaves).await;
    cluster.start(leaves);
    assert_eq!(cluster.groups(leaves).list(), [GroupId(1)]);
    cluster.agree(1, 1).await;
}

#[tokio::test]
async fn a_group_that_panicked_is_removed_and_may_be_joined_anew() {
    let cluster = Cluster::new();
    let groups = cluster.groups(0).clone();
    let address = cluster.ports[0].address.to_string();
    let handle = groups.create(GroupId(9), [(1, address.as_str())]).unwrap();
    eventually(async || handle.propose_one(&[1; 8]).await.ok()).await;
    assert!(within(handle.propose_one(&POISON.to_le_bytes())).await.is_err());
    within(handle.ended()).await.unwrap();
    within(groups.remove(GroupId(9))).await.unwrap();
    assert!(!groups.path(GroupId(9)).exists());
    let anew = groups.join(GroupId(9)).unwrap();
    assert_eq!(within(anew.status()).await.unwrap().last, LogIndex(0));
}

/// A removal that nobody waited for has ended the group, and no more.
#[tokio::test]
async fn a_removal_that_was_given_up_is_done_again() {
    let mut cluster = Cluster::new();
    cluster.create(9);
    cluster.add(9, 5).await;
    let groups = cluster.groups(0).clone();
    let ended = groups.ended(GroupId(9)).unwrap();
    assert!(groups.remove(GroupId(9)).now_or_never().is_none());
    within(ended).await.unwrap();
    assert!(groups.path(GroupId(9)).exists());
    within(groups.remove(GroupId(9))).await.unwrap();
    assert!(!groups.path(GroupId(9)).exists());
    cluster.kill(0).await;
    cluster.start(0);
    assert_eq!(cluster.groups(0).list(), []);
}

/// Somebody looks at it, or it is another node's: nothing of it is thrown away.
#[tokio::test]
async fn a_directory_that_somebody_holds_is_not_thrown_away() {
    let cluster = Cluster::new();
    let groups = cluster.groups(0);
    let directory = Directory::open(groups.path(GroupId(9))).unwrap();
    let held = within(groups.remove(GroupId(9))).await;
    assert!(matches!(held, Err(GroupsError::Directory(_))), "{held:?}");
    assert!(groups.path(GroupId(9)).exists());
    drop(directory);
    within(groups.remove(GroupId(9))).await.unwrap();
    assert!(!groups.path(GroupId(9)).exists());
}

/// Neither the loop nor another group hears of it.
#[tokio::test]
async fn a_group_whose_machine_cannot_be_made_ends_alone() {
    let dir = tempfile::tempdir().unwrap();
    let port = Port::take();
    let listen = Listen::Bound(TcpListener::bind(port.address).unwrap());
    let options = GroupsOptions::new(dir.path(), ClusterId(7), NodeId(1), listen);
    let machine = |group: GroupId| {
        assert_ne!(group, GroupId(2), "no machine for group {group}");
        Sum { group, sum: 0 }
    };
    let (groups, node) = GroupsNode::open(options, machine).unwrap();
    let address = port.address.to_string();
    let task = tokio::spawn(node);
    let create = |group| groups.create(GroupId(group), [(1, address.as_str())]).unwrap();
    let (sound, without) = (create(1), create(2));
    let halt = within(without.ended()).await.unwrap();
    let Halt::Panicked(reason) = &*halt else { panic!("{halt}") };
    assert!(reason.contains("no machine for group 2"), "{reason}");
    eventually(async || sound.propose_one(&[1; 8]).await.ok()).await;
    assert_eq!(groups.list(), [GroupId(1)]);
    groups.shutdown(false);
    within(task).await.unwrap();
}

/// The directory is there and nothing was made in it: no node begins there by itself, and none has said
/// a word there, if it is thrown away.
#[tokio::test]
async fn a_group_whose_creation_was_cut_short_is_created_anew() {
    let mut cluster = Cluster::new();
    cluster.kill(2).await;
    std::fs::create_dir_all(cluster.dir.path().join("2/group-5")).unwrap();
    cluster.start(2);
    assert_eq!(cluster.groups(2).list(), []);
    std::fs::create_dir_all(cluster.dir.path().join("2/group-6")).unwrap();
    within(cluster.groups(2).remove(GroupId(6))).await.unwrap();
    cluster.create(6);
    cluster.create(5);
    assert_eq!(cluster.add(5, 7).await, 7);
    cluster.agree(5, 7).await;
}

/// A node that the groups were not founded with waits in each of them until it is added.
#[tokio::test]
async fn a_node_joins_a_group() {
    let mut cluster = Cluster::new();
    cluster.create(1);
    cluster.add(1, 5).await;
    let port = Port::take();
    let listen = Listen::Bound(TcpListener::bind(port.address).unwrap());
    let options = GroupsOptions::new(cluster.dir.path().join("3"), ClusterId(7), NodeId(4), listen);
    let (groups, node) = GroupsNode::open(options, |group| Sum { group, sum: 0 }).unwrap();
    cluster.ports[0] = port;
    let task = tokio::spawn(node);
    let joining = groups.join(GroupId(1)).unwrap();
    let address = Bytes::from(cluster.ports[0].address.to_string());
    let member = Member { id: NodeId(4), incarnation: 0, address };
    let leader = cluster.leader(1).await;
    let handle = cluster.groups(leader).group(GroupId(1)).unwrap();
    let change = vec![Change::AddLearner(member)];
    eventually(async || handle.control(Control::Change(change.clone())).await.ok()).await;
    let caught_up = async || joining.status().await.ok().filter(|status| status.applied.0 > 1);
    eventually(caught_up).await;
    assert_eq!(number(&within(joining.read_one(b"", ReadMode::Linearizable)).await.unwrap()), 5);
    groups.shutdown(false);
    within(task).await.unwrap();
}

#[tokio::test]
async fn a_node_stops_when_all_its_groups_have() {
    let mut cluster = Cluster::new();
    (1..=4).for_each(|group| cluster.create(group));
    for group in 1..=4 {
        cluster.add(group, 1).await;
    }
    for node in 0..3 {
        let Node { groups, task, .. } = cluster.nodes[node].take().unwrap();
        groups.shutdown(true);
        within(task).await.unwrap();
        assert_eq!(groups.list(), []);
        let late = groups.create(GroupId(5), [(1, "127.0.0.1:1")]);
        assert!(matches!(late, Err(GroupsError::Ended)));
    }
    (0..3).for_each(|node| cluster.start(node));
    for group in 1..=4 {
        cluster.agree(group, 1).await;
    }
}
