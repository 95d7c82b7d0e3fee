//! Disks that fill up under real nodes: writes are refused with a reason, reads go on, the node
//! says so, and all of it ends by itself when there is room again; whatever else happens meanwhile.

use crate::{
    cluster::{Cluster, NODES, node_dir},
    common::{Scratch, connect, eventually, local, output},
    room::{Means, Room, with_room},
};
use redis::{Connection, RedisError, RedisResult};
use std::collections::BTreeMap;

/// A value that fills segments soon.
const VALUE_BYTES: usize = 16 << 10;
/// More than fits into the segments that nodes have in stock.
const WRITES_MAX: u64 = 4000;

/// What a leader sends to a node that does not store it.
const INFLIGHT_BYTES_MAX: u64 = 16 << 20;
/// So many writes are more than that.
const BEYOND: u64 = INFLIGHT_BYTES_MAX / VALUE_BYTES as u64 + 200;

/// What became of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Acknowledged,
    Full,
    /// Leadership changed, or the node was killed.
    Other,
}

/// Writes through one node.
struct Writer {
    port: u16,
    connection: Option<Connection>,
}

/// Every write there was, by number.
#[derive(Default)]
struct Writes(BTreeMap<u64, Fate>);

impl Writer {
    fn new(port: u16) -> Self {
        Self { port, connection: None }
    }

    fn write(&mut self, writes: &mut Writes) -> Fate {
        let n = writes.0.len() as u64;
        let result = self.try_write(n);
        let fate = match result.as_ref().map_err(RedisError::code) {
            Ok(()) => Fate::Acknowledged,
            Err(Some("DISKFULL")) => Fate::Full,
            Err(Some("TRYAGAIN" | "UNKNOWN")) => Fate::Other,
            Err(_) => panic!("port {}: no way to end a write: {result:?}", self.port),
        };
        writes.0.insert(n, fate);
        fate
    }

    fn try_write(&mut self, n: u64) -> RedisResult<()> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(connect(self.port)?),
        };
        redis::cmd("SET").arg(key(n)).arg(value(n)).exec(connection)
    }

    /// Writes until that is refused.
    fn fill(&mut self, writes: &mut Writes) {
        let full = (0..WRITES_MAX).any(|_| self.write(writes) == Fate::Full);
        assert!(full, "port {}: {WRITES_MAX} writes and the disk is not full", self.port);
    }
}

impl Writes {
    /// What the cluster holds is what it acknowledged.
    fn check(&self, cluster: &Cluster) {
        for (&n, &fate) in &self.0 {
            let found: Option<String> = cluster.node(n).ask(&["GET", &key(n)]);
            match (fate, found) {
                (Fate::Acknowledged, None) => panic!("{} was acknowledged and is lost", key(n)),
                (Fate::Full, Some(_)) => panic!("{} was refused and is there", key(n)),
                (_, Some(found)) => assert_eq!(found, value(n), "{}", key(n)),
                (_, None) => {}
            }
        }
    }

    fn acknowledged(&self) -> u64 {
        self.0.values().filter(|fate| **fate == Fate::Acknowledged).count() as u64
    }
}

fn key(n: u64) -> String {
    format!("key-{n}")
}

fn value(n: u64) -> String {
    format!("{n:0>VALUE_BYTES$}")
}

/// Whether this node says that its disk is full.
fn says_full(cluster: &Cluster, n: u16) -> bool {
    let info: String = cluster.node(n.into()).ask(&["INFO"]);
    info.lines().any(|line| line == "disk_full:1")
}

/// The number of the node that leads.
fn leader(cluster: &Cluster) -> u16 {
    let leads = |n: &u16| {
        let info: String = cluster.node((*n).into()).ask(&["INFO"]);
        info.lines().any(|line| line == "role:leader")
    };
    let mut found = None;
    eventually("a node leads", || {
        found = (0..NODES).find(leads);
        found.is_some()
    });
    found.expect("it was just awaited")
}

#[test]
fn one_full_disk_for_all() {
    with_room("full::one_full_disk_for_all", fill_all);
}

fn fill_all(means: Means) {
    let dir = Scratch::new();
    let room = Room::of(means, &dir.path().join("disk"), 64);
    let mut cluster = Cluster::start(dir, &[], |command| command);
    let mut writes = Writes::default();
    let mut writers: Vec<_> = (0..NODES).map(|n| Writer::new(cluster.clients + n)).collect();
    for writer in &mut writers {
        eventually("a write is acknowledged", || writer.write(&mut writes) == Fate::Acknowledged);
    }
    room.take(&cluster.ids());
    writers[0].fill(&mut writes);
    check_full(&cluster, &mut writers, &mut writes);

    cluster.kill(0..NODES);
    (0..NODES).for_each(|n| cluster.restart(n));
    cluster.nodes.iter().for_each(|node| drop(node.says("ready")));
    let mut writers: Vec<_> = (0..NODES).map(|n| Writer::new(cluster.clients + n)).collect();
    if means == Means::Limits {
        room.take(&cluster.ids());
    }
    writers[1].fill(&mut writes);
    check_full(&cluster, &mut writers, &mut writes);
    writes.check(&cluster);

    room.give(&cluster.ids());
    eventually("every node takes writes again", || {
        writers.iter_mut().all(|writer| writer.write(&mut writes) == Fate::Acknowledged)
    });
    eventually("no node says that its disk is full", || {
        (0..NODES).all(|n| !says_full(&cluster, n))
    });
    writes.check(&cluster);
    cluster.check_digests();
    println!("{} writes acknowledged, {} in all", writes.acknowledged(), writes.0.len());
}

/// Every node refuses writes and answers reads, and the leader says why.
fn check_full(cluster: &Cluster, writers: &mut [Writer], writes: &mut Writes) {
    for writer in writers {
        eventually("the node refuses for want of room", || writer.write(writes) == Fate::Full);
    }
    for n in 0..NODES {
        let value: Option<String> = cluster.node(n.into()).ask(&["GET", &key(0)]);
        assert!(value.is_some(), "node {} still reads", n + 1);
    }
    let leader = leader(cluster);
    assert!(says_full(cluster, leader));
    let status = output(&["status", &local(cluster.clients + leader)]).stdout;
    let status = String::from_utf8(status).unwrap();
    assert!(status.contains("disk       full"), "{status}");
}

#[test]
fn full_disks_among_others() {
    with_room("full::full_disks_among_others", fill_some);
}

/// First one follower's disk is full, and a quorum goes on; then both are, and none is left that
/// could hold more, though the leader itself has room.
fn fill_some(means: Means) {
    let dir = Scratch::new();
    let rooms: Vec<_> =
        (0..NODES).map(|n| Room::of(means, &node_dir(dir.path(), n), 160)).collect();
    let cluster = Cluster::start(dir, &[], |command| command);
    let leader = leader(&cluster);
    let take = |n: u16| rooms[usize::from(n)].take(&[cluster.ids()[usize::from(n)]]);
    let [first, second] = [1, 2].map(|after| (leader + after) % NODES);
    let (mut writer, mut writes) = (Writer::new(cluster.clients + leader), Writes::default());
    take(first);
    let beyond = (0..WRITES_MAX).any(|_| {
        writer.write(&mut writes);
        writes.acknowledged() >= BEYOND
    });
    assert!(beyond, "{} acknowledged of {WRITES_MAX}", writes.acknowledged());
    assert!(says_full(&cluster, first));
    check_behind(&cluster, first);

    take(second);
    writer.fill(&mut writes);
    assert!(says_full(&cluster, second) && !says_full(&cluster, leader));
    for n in [leader, second] {
        let value: Option<String> = cluster.node(n.into()).ask(&["GET", &key(0)]);
        assert!(value.is_some(), "node {} still reads", n + 1);
    }

    (0..NODES).filter(|n| *n != leader).for_each(|n| {
        rooms[usize::from(n)].give(&[cluster.ids()[usize::from(n)]]);
    });
    eventually("the leader takes writes again", || writer.write(&mut writes) == Fate::Acknowledged);
    writes.check(&cluster);
    cluster.check_digests();
}

/// A node that is far behind its leader, and stays there, refuses reads and does not know what
/// became of writes: it does not leave who asks without an answer. Nor does it gather what it cannot store.
fn check_behind(cluster: &Cluster, n: u16) {
    let mut connection = connect(cluster.clients + n).unwrap();
    let read = redis::cmd("GET").arg(key(0)).exec(&mut connection).unwrap_err();
    assert_eq!(read.code(), Some("TRYAGAIN"), "{read}");
    let write = redis::cmd("SET").arg("late").arg("1").exec(&mut connection).unwrap_err();
    assert_eq!(write.code(), Some("UNKNOWN"), "{write}");
    let info: String = cluster.node(n.into()).ask(&["INFO"]);
    let memory = info.lines().find_map(|line| line.strip_prefix("memory_bytes:")).unwrap();
    assert!(memory.parse::<u64>().unwrap() < 3 * INFLIGHT_BYTES_MAX, "{info}");
}
