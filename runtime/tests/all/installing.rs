//! What comes from peers, over real sockets and onto a real disk: the state, to a follower that was
//! away for longer than the log reaches back; the log, to one whose own is damaged. How fast that is
//! `just bench install` tells.

use crate::{patience::eventually_of, port::Port};
use bytes::Bytes;
use lakebed::{
    ClusterId, Config, Control, GroupId, LogId, LogIndex, MachineError, Mark, NodeId, Role,
    StateMachine, Status, Timestamp,
};
use lakebed_runtime::{DiskKind, Handle, Listen, Node, Options};
use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

const MIB: usize = 1 << 20;
const STATE_MIB: usize = 16;

/// A large state that every command changes: each adds its bytes to the page that it names. Pages
/// are shared with snapshots until they change.
#[derive(Clone)]
struct Pages {
    pages: Vec<Arc<Vec<u8>>>,
    applied: u64,
}

impl Pages {
    fn new(mib: usize) -> Self {
        Self { pages: (0..mib).map(|_| Arc::new(vec![0; MIB])).collect(), applied: 0 }
    }

    fn digest(&self) -> u64 {
        let crc = self.pages.iter().fold(0, |crc, page| crc32c::crc32c_append(crc, page));
        u64::from(crc) << 32 | self.applied
    }
}

impl StateMachine for Pages {
    fn apply(&mut self, at: LogId, _: Timestamp, command: &[u8], _: &mut Vec<u8>) {
        self.applied += 1;
        let page = at.index.0 as usize % self.pages.len();
        let page = Arc::make_mut(&mut self.pages[page]).iter_mut().zip(command);
        page.for_each(|(byte, more)| *byte = byte.wrapping_add(*more));
    }

    fn query(&self, _: &[u8], answer: &mut Vec<u8>) {
        answer.extend_from_slice(&self.digest().to_le_bytes());
    }

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        let applied = Bytes::copy_from_slice(&self.applied.to_le_bytes());
        let pages = self.pages.clone().into_iter();
        Box::new(std::iter::once(applied).chain(pages.map(|page| Bytes::copy_from_slice(&page))))
    }

    fn restore(&mut self, offset: u64, bytes: &[u8], _: bool) -> Result<(), MachineError> {
        let (mut at, mut rest) = (offset as usize, bytes);
        if at == 0 {
            let (applied, behind) =
                rest.split_first_chunk().ok_or_else(|| MachineError("eight bytes".into()))?;
            self.applied = u64::from_le_bytes(*applied);
            (at, rest) = (8, behind);
        }
        while !rest.is_empty() {
            let (page, from) = ((at - 8) / MIB, (at - 8) % MIB);
            let page = self.pages.get_mut(page);
            let page = page.ok_or_else(|| MachineError("a state of another size".into()))?;
            let (here, behind) = rest.split_at(rest.len().min(MIB - from));
            Arc::make_mut(page)[from..from + here.len()].copy_from_slice(here);
            (at, rest) = (at + here.len(), behind);
        }
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
    /// Each node has a thread of its own, as it has a process in life.
    fn start(&self, node: usize) -> Handle {
        let mut config = Config::new(GroupId(1), NodeId(node as u64 + 1));
        config.tuning.heartbeat = Duration::from_millis(50);
        config.tuning.election = (Duration::from_millis(800), Duration::from_millis(1600));
        // A snapshot whenever it is asked for, and nothing kept for those who were not there.
        config.tuning.snapshot_log_bytes = 0;
        config.tuning.retain_log_bytes = 0;
        let addresses = self.addresses.map(|address| address.to_string());
        let members = (1..).zip(addresses.iter().map(String::as_str));
        let listen = Listen::Address(self.addresses[node]);
        let dir = self.dir.join(node.to_string());
        let mut options = Options::new(dir, ClusterId(7), config, listen).members(members);
        options.disk = self.disk;
        let (tell, opened) = mpsc::channel();
        let machine = Pages::new(self.mib);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let (handle, node) = Node::open(options, machine).expect("a good directory");
                tell.send(handle).expect("it is waited for");
                node.await;
            });
        });
        opened.recv().expect("a node")
    }
}

async fn status(handle: &Handle) -> Status {
    handle.status().await.expect("the node runs")
}

/// Once it stands where the others do.
async fn digest(handle: &Handle) -> u64 {
    eventually_of("an answer", async || {
        let read = handle.read_one(b"", lakebed::ReadMode::Linearizable).await.ok()?;
        Some(u64::from_le_bytes(*read.first_chunk().expect("eight bytes")))
    })
    .await
}

/// Writes large commands, with snapshots in between, until no log of those that are up holds what
/// comes behind `last`: whoever leads then.
async fn leave_behind(up: [&Handle; 2], last: LogIndex) {
    for handle in up {
        while status(handle).await.first <= last.next() {
            for n in 0..70_u8 {
                let command = vec![n; 512 << 10];
                eventually_of("two of three take a write", async || {
                    handle.propose_one(&command).await.ok()
                })
                .await;
            }
            let snapshots = up.map(|handle| handle.control(Control::Snapshot));
            for snapshot in snapshots {
                snapshot.await.expect("a snapshot");
            }
        }
    }
}

async fn a_follower_left_behind_is_sent_the_state(disk: DiskKind) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let ports = [Port::take(), Port::take(), Port::take()];
    let addresses = ports.each_ref().map(|port| port.address);
    let place = Place { dir: dir.path(), addresses, disk, mib: STATE_MIB };
    let mut handles = [0, 1, 2].map(|node| place.start(node));
    let leader = eventually_of("a leader", async || {
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
    leave_behind([&handles[leader], &handles[(leader + 2) % 3]], last).await;

    handles[node] = place.start(node);
    eventually_of("the install", async || {
        let status = status(&handles[node]).await;
        status.marks.has(Mark::Installed).then_some(())
    })
    .await;
    eventually_of("a write", async || handles[leader].propose_one(b"after").await.ok()).await;
    assert_eq!(digest(&handles[node]).await, digest(&handles[leader]).await);
    let (sent, received) = (status(&handles[leader]).await, status(&handles[node]).await);
    let state_bytes = (8 + STATE_MIB * MIB) as u64;
    assert!(received.snapshot_bytes_received >= state_bytes, "{received:?}");
    assert!(sent.snapshot_bytes_sent >= received.snapshot_bytes_received, "{sent:?}");
    assert_eq!((sent.snapshot_bytes_received, received.snapshot_bytes_sent), (0, 0));
    for handle in &handles {
        handle.shutdown(false).await.expect("it stops");
    }
}

/// A follower's log rots while it is down. It neither refuses to start nor answers for what it lost:
/// it fetches it again.
async fn a_follower_whose_entries_are_bad_is_given_them_again(disk: DiskKind) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let ports = [Port::take(), Port::take(), Port::take()];
    let addresses = ports.each_ref().map(|port| port.address);
    let place = Place { dir: dir.path(), addresses, disk, mib: 1 };
    let mut handles = [0, 1, 2].map(|node| place.start(node));
    for n in 0..20_u8 {
        eventually_of("a write", async || handles[0].propose_one(&[n; 999]).await.ok()).await;
    }
    let node = 2;
    let last = status(&handles[0]).await.last;
    eventually_of("all have it", async || {
        (status(&handles[node]).await.durable >= last).then_some(())
    })
    .await;
    handles[node].shutdown(false).await.expect("it stops");
    let log = dir.path().join(node.to_string()).join("log-1");
    let mut bytes = std::fs::read(&log).expect("its log");
    // All its entries; the slots still tell what there was (docs/disk-format.md, "Segment").
    let (data_at, end) = (28 << 10, bytes.len() - 8192);
    bytes[data_at..end].iter_mut().for_each(|byte| *byte ^= 0x55);
    std::fs::write(&log, bytes).expect("its log");

    handles[node] = place.start(node);
    let status_then = eventually_of("its entries to be there again", async || {
        let status = status(&handles[node]).await;
        (status.durable >= last).then_some(status)
    })
    .await;
    let (found, recovery) = (status_then.marks, status_then.recovery);
    assert_eq!((recovery.entries_refilled, recovery.entries_missing), (last.0, 0));
    assert!(found.has(Mark::HolesFound) && found.has(Mark::HoleFilled));
    assert!(!found.has(Mark::GateSet), "which they were was known");
    assert_eq!(digest(&handles[node]).await, digest(&handles[0]).await);
    for handle in &handles {
        handle.shutdown(false).await.expect("it stops");
    }
}

#[tokio::test]
async fn onto_a_disk_of_threads() {
    a_follower_left_behind_is_sent_the_state(DiskKind::Files).await;
}

#[tokio::test]
async fn onto_a_disk_on_the_kernels_queues() {
    a_follower_left_behind_is_sent_the_state(DiskKind::Auto).await;
}

#[tokio::test]
async fn from_peers_after_damage() {
    a_follower_whose_entries_are_bad_is_given_them_again(DiskKind::Auto).await;
}
