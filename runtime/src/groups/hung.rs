//! What a group whose disk hangs costs the others of its node, a measurement as well for whoever runs it
//! by hand; what it says itself once it was given up; and what becomes of one whose disk fails.
//!
//! ```text
//! cargo test --release -p lakebed-runtime hung -- --nocapture
//! ```

use super::{Groups, GroupsNode, GroupsOptions};
use crate::{
    disk::{Ending, place::Place},
    handle::{Failure, Handle},
    options::Listen,
};
use bytes::Bytes;
use futures::{FutureExt, future::join_all};
use lakebed::{
    ClusterId, DiskError, DiskRequest, File, GroupId, Halt, LogId, MachineError, NodeId, Refusal,
    StateMachine, Timestamp,
};
use std::{
    future::poll_fn,
    net::TcpListener,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{Receiver, Sender, channel},
    },
    task::Poll,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::time::{interval, timeout};

const PATIENCE: Duration = Duration::from_secs(120);
const OTHERS: u64 = 8;
/// The group whose disk hangs.
const HANGING: GroupId = GroupId(OTHERS + 1);
/// How many writes each of the others makes, one after the other.
const WRITES: usize = 150;

const POISON: &[u8] = b"poison";

struct Deaf;

impl StateMachine for Deaf {
    fn apply(&mut self, _: LogId, _: Timestamp, command: &[u8], _: &mut Vec<u8>) {
        assert_ne!(command, POISON, "no machine takes that");
    }

    fn query(&self, _: &[u8], _: &mut Vec<u8>) {}

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        Box::new(std::iter::empty())
    }

    fn restore(&mut self, _: u64, _: &[u8], _: bool) -> Result<(), MachineError> {
        Ok(())
    }
}

/// A node without groups: its directory, where it is to be met, and it.
fn opened() -> (TempDir, String, Groups, GroupsNode<Deaf>) {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let listen = Listen::Bound(listener);
    let options = GroupsOptions::new(dir.path(), ClusterId(7), NodeId(1), listen);
    let (groups, node) = GroupsNode::open(options, |_| Deaf).unwrap();
    (dir, address, groups, node)
}

/// A place whose operations do not end before they are let.
struct Gated {
    place: Arc<dyn Place>,
    begun: Sender<()>,
    gate: Mutex<Receiver<()>>,
}

impl Gated {
    fn wait(&self) {
        // The test may be over.
        let _ = self.begun.send(());
        let _ = self.gate.lock().unwrap_or_else(PoisonError::into_inner).recv();
    }
}

impl Place for Gated {
    fn perform(&self, request: &DiskRequest) -> Ending {
        self.wait();
        self.place.perform(request)
    }

    fn read(&self, file: File, offset: u64, into: &mut [u8]) -> Result<usize, DiskError> {
        self.wait();
        self.place.read(file, offset, into)
    }

    fn create(&self, file: File, len: u64, before_piece: &mut dyn FnMut()) -> Ending {
        self.wait();
        self.place.create(file, len, before_piece)
    }

    fn remove(&self, file: File, before_piece: &mut dyn FnMut()) -> Ending {
        self.wait();
        self.place.remove(file, before_piece)
    }
}

/// From now on nothing ends on the disk of the hanging group before the first is dropped; the second tells
/// of what has begun.
fn hang(node: &GroupsNode<Deaf>) -> (Sender<()>, Receiver<()>) {
    let (open, gate) = channel();
    let (begun, begins) = channel();
    node.inner.pool.wrap(HANGING, |place| Gated { place, begun, gate: Mutex::new(gate) });
    (open, begins)
}

async fn written(handle: &Handle) {
    let mut again = interval(Duration::from_millis(5));
    // Refused as long as the group has no leader.
    while handle.propose_one(b"command").await.is_err() {
        again.tick().await;
    }
}

/// How long the slowest in a hundred writes takes, of the others' all together.
async fn p99(groups: &Groups) -> Duration {
    let writes = (1..=OTHERS).map(|group| async move {
        let handle = groups.group(GroupId(group)).expect("it was created");
        let mut took = Vec::new();
        for _ in 0..WRITES {
            let begun = Instant::now();
            written(&handle).await;
            took.push(begun.elapsed());
        }
        took
    });
    let mut all: Vec<_> = join_all(writes).await.into_iter().flatten().collect();
    all.sort_unstable();
    all[all.len() * 99 / 100]
}

/// They commit on threads of their own, and their entries are durable while its is not.
#[tokio::test]
async fn a_group_whose_disk_hangs_leaves_the_others_their_pace() {
    let (_dir, address, groups, mut node) = opened();
    for group in (1..=HANGING.0).map(GroupId) {
        groups.create(group, [(1, address.as_str())]).unwrap();
    }
    let hanging = groups.group(HANGING).unwrap();
    let test = async {
        for group in groups.list() {
            written(&groups.group(group).unwrap()).await;
        }
        p99(&groups).await
    };
    let mut test = Box::pin(timeout(PATIENCE, test));
    // On one task, so that the node's disk is at hand between two of its turns.
    let alone = poll_fn(|cx| {
        assert!(node.poll_unpin(cx).is_pending(), "nobody asked it to end");
        test.poll_unpin(cx)
    })
    .await
    .unwrap();

    let (open, begins) = hang(&node);
    let mut hangs = hanging.propose_one(b"command");
    let mut test = Box::pin(timeout(PATIENCE, p99(&groups)));
    let beside = poll_fn(|cx| {
        assert!(node.poll_unpin(cx).is_pending(), "nobody asked it to end");
        test.poll_unpin(cx)
    })
    .await
    .unwrap();
    begins.try_recv().expect("its disk was asked");
    assert!((&mut hangs).now_or_never().is_none(), "what is not durable is not acknowledged");
    let slowest = node.health().latency_at(Instant::now() + PATIENCE).slowest;
    assert!(slowest >= PATIENCE, "{slowest:?}: the node says that its disk hangs");
    let ratio = beside.as_secs_f64() / alone.as_secs_f64();
    eprintln!("p99 of {OTHERS} groups {alone:.2?}, beside a hanging one {beside:.2?}: {ratio:.2}");

    drop(open);
    let mut hangs = Box::pin(timeout(PATIENCE, hangs));
    let late = poll_fn(|cx| match node.poll_unpin(cx) {
        Poll::Pending => hangs.poll_unpin(cx),
        Poll::Ready(()) => panic!("nobody asked it to end"),
    });
    late.await.unwrap().unwrap();
    groups.shutdown(false);
    timeout(PATIENCE, node).await.unwrap();
}

/// Its machine panics while its disk has an operation under way: that may take for ever, and whoever asks
/// meanwhile may ask elsewhere.
#[tokio::test]
async fn a_group_that_was_given_up_answers_while_its_disk_hangs() {
    let (_dir, address, groups, mut node) = opened();
    let handle = groups.create(HANGING, [(1, address.as_str())]).unwrap();
    let mut ready = Box::pin(timeout(PATIENCE, written(&handle)));
    poll_fn(|cx| {
        assert!(node.poll_unpin(cx).is_pending(), "nobody asked it to end");
        ready.poll_unpin(cx)
    })
    .await
    .unwrap();

    let (open, begins) = hang(&node);
    let mut poisoned = handle.propose_one(POISON);
    let polls = async |node: &mut GroupsNode<Deaf>, until: &mut dyn FnMut() -> bool| {
        let mut again = interval(Duration::from_millis(1));
        let asking = async {
            while !until() {
                poll_fn(|cx| {
                    assert!(node.poll_unpin(cx).is_pending(), "nobody asked it to end");
                    Poll::Ready(())
                })
                .await;
                again.tick().await;
            }
        };
        timeout(PATIENCE, asking).await.expect("waited in vain");
    };
    // Its entry is on its way to the disk; what comes behind it will be as well when it is durable.
    polls(&mut node, &mut || begins.try_recv().is_ok()).await;
    let mut behind = handle.propose_one(b"behind");
    let mut turns = 0..3;
    polls(&mut node, &mut || turns.next().is_none()).await;
    // One write and its sync, and no more.
    (0..2).for_each(|_| open.send(()).unwrap());
    polls(&mut node, &mut || (&mut poisoned).now_or_never().is_some()).await;
    let mut told = None;
    polls(&mut node, &mut || {
        told = (&mut behind).now_or_never();
        told.is_some()
    })
    .await;
    assert_eq!(told.unwrap(), Err(Failure::Unknown), "it may be durable");
    let (mut late, mut status) = (handle.propose_one(b"late"), handle.status());
    let (mut refused, mut said) = (None, None);
    polls(&mut node, &mut || {
        refused = refused.take().or_else(|| (&mut late).now_or_never());
        said = said.take().or_else(|| (&mut status).now_or_never());
        refused.is_some() && said.is_some()
    })
    .await;
    assert_eq!(refused.unwrap(), Err(Failure::Refused(Refusal::Stopping)));
    assert!(!said.unwrap().unwrap().ready);
    assert_eq!(groups.list(), [HANGING], "it ends when its disk has");
    drop(open);
    polls(&mut node, &mut || groups.list().is_empty()).await;
    groups.shutdown(false);
    timeout(PATIENCE, node).await.unwrap();
}

/// A place whose next sync fails, and which writes down what is asked of it from then on.
struct Failing {
    place: Arc<dyn Place>,
    asked: Sender<DiskRequest>,
    has_failed: AtomicBool,
}

impl Place for Failing {
    fn perform(&self, request: &DiskRequest) -> Ending {
        if self.has_failed.load(SeqCst) {
            // The test may be over.
            let _ = self.asked.send(request.clone());
        } else if matches!(request, DiskRequest::Sync { .. }) {
            self.has_failed.store(true, SeqCst);
            return Err(EIO);
        }
        self.place.perform(request)
    }

    fn read(&self, file: File, offset: u64, into: &mut [u8]) -> Result<usize, DiskError> {
        self.place.read(file, offset, into)
    }

    fn create(&self, file: File, len: u64, before_piece: &mut dyn FnMut()) -> Ending {
        self.place.create(file, len, before_piece)
    }

    fn remove(&self, file: File, before_piece: &mut dyn FnMut()) -> Ending {
        self.place.remove(file, before_piece)
    }
}

const EIO: DiskError = DiskError::Io { errno: 5 };

/// The system forgets what it could not write, and would say of the next sync that it was done.
#[tokio::test]
async fn a_sync_that_fails_ends_its_group_alone_and_is_not_tried_again() {
    let (_dir, address, groups, mut node) = opened();
    let create = |group| groups.create(GroupId(group), [(1, address.as_str())]).unwrap();
    let (failing, other) = (create(1), create(2));
    let mut ready =
        Box::pin(timeout(PATIENCE, async { (written(&failing).await, written(&other).await) }));
    poll_fn(|cx| {
        assert!(node.poll_unpin(cx).is_pending(), "nobody asked it to end");
        ready.poll_unpin(cx)
    })
    .await
    .unwrap();

    let (asked, asks) = channel();
    let has_failed = AtomicBool::default();
    node.inner.pool.wrap(GroupId(1), |place| Failing { place, asked, has_failed });
    let mut test = Box::pin(timeout(PATIENCE, async {
        let ends = join_all((0..50).map(|_| failing.propose_one(b"command"))).await;
        assert!(ends.iter().all(|end| *end == Err(Failure::Unknown)), "{ends:?}");
        let halt = failing.ended().await.unwrap();
        assert!(matches!(*halt, Halt::DiskFailed { error: EIO, .. }), "{halt}");
        assert_eq!(asks.try_iter().collect::<Vec<_>>(), []);
        written(&other).await;
        written(&groups.resume(GroupId(1)).unwrap()).await;
    }));
    poll_fn(|cx| {
        assert!(node.poll_unpin(cx).is_pending(), "nobody asked it to end");
        test.poll_unpin(cx)
    })
    .await
    .unwrap();
    groups.shutdown(false);
    timeout(PATIENCE, node).await.unwrap();
}

/// A place that is let go of when this is called.
pub(super) struct Parting<F: FnMut() + Send + Sync + 'static>(
    pub(super) Arc<dyn Place>,
    pub(super) F,
);

impl<F: FnMut() + Send + Sync + 'static> Place for Parting<F> {
    fn perform(&self, request: &DiskRequest) -> Ending {
        self.0.perform(request)
    }

    fn read(&self, file: File, offset: u64, into: &mut [u8]) -> Result<usize, DiskError> {
        self.0.read(file, offset, into)
    }

    fn create(&self, file: File, len: u64, before_piece: &mut dyn FnMut()) -> Ending {
        self.0.create(file, len, before_piece)
    }

    fn remove(&self, file: File, before_piece: &mut dyn FnMut()) -> Ending {
        self.0.remove(file, before_piece)
    }
}

impl<F: FnMut() + Send + Sync + 'static> Drop for Parting<F> {
    fn drop(&mut self) {
        (self.1)();
    }
}

/// Whoever waited for a group's end opened its directory anew, and found it locked.
#[tokio::test]
async fn the_end_of_a_group_whose_node_is_dropped_is_told_when_its_directory_is_free() {
    let (_dir, address, groups, mut node) = opened();
    let handle = groups.create(HANGING, [(1, address.as_str())]).unwrap();
    let mut ready = Box::pin(timeout(PATIENCE, written(&handle)));
    let (mut taken, mut ended) = (None, None);
    poll_fn(|cx| {
        assert!(node.poll_unpin(cx).is_pending(), "nobody asked it to end");
        let is_ready = ready.poll_unpin(cx);
        if is_ready.is_ready() {
            (taken, ended) = (Some(handle.propose_one(b"taken")), Some(handle.ended()));
            assert!(node.poll_unpin(cx).is_pending(), "nobody asked it to end");
        }
        is_ready
    })
    .await
    .unwrap();
    let ends = [ended.unwrap(), handle.ended()];
    let (queued, (tell, told)) = (handle.propose_one(b"queued"), channel());
    let mut waiting = Some(([taken.unwrap(), queued], ends, handle.clone()));
    let parting = move || {
        let (answers, mut ends, handle) = waiting.take().expect("it is dropped once");
        let answers = answers.map(FutureExt::now_or_never);
        let hear = ends.each_mut().map(|end| end.now_or_never().is_some());
        tell.send((answers, hear, ends, handle.ended())).unwrap();
    };
    node.inner.pool.wrap(HANGING, |place| Parting(place, parting));
    drop(node);
    let (answers, hear, ends, late) = told.try_recv().unwrap();
    let [taken, queued] = answers;
    // A disk that is quick has ended the first one by then.
    assert!(matches!(taken, Some(Ok(_) | Err(Failure::Unknown))), "{taken:?}");
    assert_eq!(queued, Some(Err(Failure::Unknown)));
    assert_eq!(hear, [false; 2], "the directory is locked");
    for end in ends.into_iter().chain([late]) {
        assert_eq!(end.now_or_never().unwrap().err(), Some(Failure::Unknown));
    }
}
