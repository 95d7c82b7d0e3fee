//! How a group begins, and a node's last: who wakes the loop for it, and what it hears.

use super::*;
use crate::groups::{GroupsError, tests::opened};
use bytes::Bytes;
use futures::FutureExt;
use lakebed::{Class, DiskRequest, Extent, File, OpId, Tuning};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::{
    fs,
    io::Write,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc::channel,
    },
    task::{Wake, Waker},
    thread,
    time::Instant,
};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

/// Counts how often it woke somebody.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// A node without groups has no disk, no peer and no deadline that would wake it.
#[tokio::test]
async fn a_group_that_is_to_begin_and_the_end_of_a_node_wake_it() {
    let temporary = tempfile::tempdir().unwrap();
    for name in ["begins", "ends"] {
        let (groups, mut node) = opened(&temporary.path().join(name)).unwrap();
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(Arc::clone(&woken));
        let mut poll = || Pin::new(&mut node).poll(&mut Context::from_waker(&waker));
        assert!(poll().is_pending());
        let before = woken.0.load(SeqCst);
        match name {
            "begins" => drop(groups.join(GroupId(1)).unwrap()),
            _ => groups.shutdown(false),
        }
        assert!(woken.0.load(SeqCst) > before, "{name}");
        assert_eq!(poll().is_ready(), name == "ends");
    }
}

/// Its creation was told to have succeeded: it begins, and ends like the others.
#[tokio::test]
async fn a_node_does_not_end_before_a_group_that_is_to_begin() {
    let temporary = tempfile::tempdir().unwrap();
    let (groups, node) = opened(temporary.path()).unwrap();
    let handle = groups.join(GroupId(1)).unwrap();
    groups.shutdown(false);
    assert!(node.inner.poll_ended().is_pending());
    timeout(PATIENCE, node).await.expect("waited in vain");
    assert_eq!(
        handle.ended().now_or_never().unwrap().map(|halt| (*halt).clone()),
        Ok(Halt::Stopped)
    );
}

/// Does something when the last who would wake it lets go of it.
struct Parting(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Wake for Parting {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Parting {
    fn drop(&mut self) {
        let act = self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        act.expect("it is dropped once")();
    }
}

/// It rings once. A node that had looked for groups already, and looked then for whom the bell rang, knew
/// no such group, and nobody rang for it again.
#[tokio::test]
async fn a_group_that_rings_while_the_node_looks_is_heard() {
    let temporary = tempfile::tempdir().unwrap();
    let (groups, mut node) = opened(temporary.path()).unwrap();
    let (tell, told) = channel();
    let act = move || tell.send(groups.join(GroupId(1)).unwrap().status()).unwrap();
    let parting = Waker::from(Arc::new(Parting(Mutex::new(Some(Box::new(act))))));
    // The bell alone has it, and lets go of it when it is given the next, in the midst of the look.
    node.inner.shared.bell.take(&parting, &mut Vec::new());
    drop(parting);
    for _ in 0..2 {
        node.inner.gather(&mut Context::from_waker(Waker::noop()));
    }
    let status = told.try_recv().expect("the bell was given another").now_or_never();
    assert!(status.expect("nobody looked into its inbox").is_ok());
}

/// Its directory may take long to be opened. What comes to a node then that has gone is never looked at, and
/// whoever has a handle would wait for ever.
#[tokio::test]
async fn a_group_is_not_begun_on_a_node_that_went_while_its_directory_was_opened() {
    for goes in [true, false] {
        let temporary = tempfile::tempdir().unwrap();
        let (groups, node) = opened(temporary.path()).unwrap();
        let path = groups.path(GroupId(5));
        let (mark, other) = (path.join("node"), path.join("other"));
        fs::create_dir(&path).unwrap();
        // Whoever reads this waits for somebody who writes, who waits for somebody who reads.
        mknodat(CWD, &mark, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let (tell, created) = channel();
        let creates = groups.clone();
        let create = move || tell.send(creates.join(GroupId(5)).map(drop)).unwrap();
        thread::spawn(create);
        let (meets, met) = channel();
        let at = mark.clone();
        thread::spawn(move || meets.send(fs::File::options().write(true).open(at).unwrap()));
        let mut writer = met.recv_timeout(PATIENCE).expect("nobody read whose directory it is");
        if goes {
            drop(node);
        } else {
            groups.shutdown(false);
        }
        let text = "lakebed-node 1\ncluster 7\ngroup 5\nnode 1\n";
        // It is read once more, under its lock.
        fs::write(&other, text).unwrap();
        fs::rename(&other, &mark).unwrap();
        writer.write_all(text.as_bytes()).unwrap();
        drop(writer);
        let created = created.recv_timeout(PATIENCE).expect("waited in vain");
        assert!(matches!(created, Err(GroupsError::Ended)), "{created:?}");
        assert_eq!(groups.list(), []);
    }
}

/// A peer that is slow was taken for one that is stuck, as what may wait for it was still bounded by what the
/// node had begun with.
#[tokio::test]
async fn a_group_that_is_tuned_has_room_for_what_it_may_send_then() {
    let temporary = tempfile::tempdir().unwrap();
    let (groups, mut node) = opened(temporary.path()).unwrap();
    let handle = groups.join(GroupId(1)).unwrap();
    let mut tuning = Tuning::default();
    let before = node.inner.net.room();
    tuning.inflight_bytes_max *= 4;
    handle.tune(tuning.clone()).unwrap();
    node.inner.gather(&mut Context::from_waker(Waker::noop()));
    let more = 2 * (tuning.inflight_bytes_max - Tuning::default().inflight_bytes_max);
    assert_eq!(node.inner.net.room(), before + more as usize);
}

/// One that has ended would be the slowest for ever: the node would say that its disk hangs.
#[tokio::test]
async fn the_end_of_a_groups_write_is_told_to_the_nodes_health() {
    let temporary = tempfile::tempdir().unwrap();
    let (groups, mut node) = opened(temporary.path()).unwrap();
    groups.join(GroupId(1)).unwrap();
    let (inner, noop) = (&mut node.inner, Waker::noop());
    inner.gather(&mut Context::from_waker(noop));
    let at = Extent::new(0, Bytes::from_static(&[0; 4096]));
    let request = DiskRequest::Write { file: File::HardState, at, and: None, durable: true };
    let write = Action::Disk { op: OpId(1), class: Class::Commit, request };
    inner.actions.push(HostAction::Group(GroupId(1), write));
    inner.perform();
    let slowest = |inner: &Inner<_>| inner.health.latency_at(Instant::now() + PATIENCE).slowest;
    assert!(slowest(inner) >= PATIENCE, "it is under way");
    let ends = std::future::poll_fn(|cx| {
        inner.gather(cx);
        if inner.seats[&GroupId(1)].in_flight == 0 { Poll::Ready(()) } else { Poll::Pending }
    });
    timeout(PATIENCE, ends).await.expect("waited in vain");
    assert_eq!(inner.health.latency().count(), 1);
    assert!(slowest(inner) < PATIENCE);
}
