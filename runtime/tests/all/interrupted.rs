//! Told to stop at every operation of a restart, and so in every stage of it: it ends after a handful of
//! operations at most, and the next start comes to the same verdict and the same state.
//!
//! A process cannot be met in stages that take a millisecond. So the disk here holds back what it is asked
//! until it is told to let so much of it pass, and time goes on by hand: nothing waits, nothing is drawn.

use crate::count::{Count, number};
use bytes::Bytes;
use futures::FutureExt;
use lakebed::{
    Class, ClusterId, Config, Control, DiskRequest, Engine, Event, GroupId, Halt, Instant, Member,
    Membership, NodeId, OpId, Phase, ReadMode, Role, Start, Status, Timestamp, files::Directory,
};
use lakebed_runtime::{Clock, Disk, Driver, Handle, Net, Reply};
use std::{
    cell::RefCell,
    collections::{BTreeSet, VecDeque},
    fs,
    future::Future,
    os::unix::fs::FileExt,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::Duration,
};

const NODE: NodeId = NodeId(1);
/// As time goes on, where a node waits for its own election.
const STEP: Duration = Duration::from_millis(50);
/// How many operations are begun between the order to stop and the end.
const BEGUN_MAX: usize = 8;
/// Of a node that comes to anything at all.
const TURNS_MAX: usize = 10_000;

/// What the disk was asked and did, and what time it is.
#[derive(Default)]
struct World {
    held: VecDeque<(OpId, DiskRequest)>,
    /// All that was ever asked.
    asked: Vec<DiskRequest>,
    /// How many operations may pass.
    let_through: usize,
    now: Instant,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<World>>);

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }
}

/// A real directory, whose operations are performed in order and when they may pass.
struct HoldingDisk(Shared, Directory);

impl Disk for HoldingDisk {
    fn submit(&mut self, op: OpId, _: Class, request: DiskRequest) {
        let mut world = self.0.world();
        world.asked.push(request.clone());
        world.held.push_back((op, request));
    }

    fn flush(&mut self) {}

    fn poll_completed(&mut self, _: &mut Context<'_>, events: &mut Vec<Event>) {
        let mut world = self.0.world();
        while world.let_through > 0
            && let Some((op, request)) = world.held.pop_front()
        {
            world.let_through -= 1;
            events.push(Event::Completed { op, result: self.1.perform(&request) });
        }
    }

    fn is_idle(&self) -> bool {
        self.0.world().held.is_empty()
    }
}

struct Nobody;

impl Net for Nobody {
    fn connect(&mut self, _: &Membership) {}
    fn send(&mut self, _: NodeId, _: Bytes, _: Bytes) {}
    fn flush(&mut self) {}
    fn poll_events(&mut self, _: &mut Context<'_>, _: &mut Vec<Event>) {}
}

impl Clock for Shared {
    fn now(&self) -> Instant {
        self.world().now
    }

    fn time(&self) -> Timestamp {
        Timestamp(1234)
    }

    fn poll_deadline(&mut self, _: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        if deadline.is_some_and(|at| at <= self.world().now) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

struct Node {
    world: Shared,
    handle: Handle,
    driver: Driver<Engine, HoldingDisk, Nobody, Shared, Count>,
}

impl Node {
    fn start(dir: &Path, start: Start) -> Self {
        let config = Config::new(GroupId(1), NODE);
        let engine = Engine::new(config.clone(), 7).unwrap();
        let world = Shared::default();
        let disk = HoldingDisk(world.clone(), Directory::open(dir).unwrap());
        let around = (disk, Nobody, world.clone());
        let (handle, driver) = Driver::new(engine, &config, start, Count::default(), around);
        let mut node = Self { world, handle, driver };
        assert_eq!(node.turn(), None);
        node
    }

    fn turn(&mut self) -> Option<Arc<Halt>> {
        match Pin::new(&mut self.driver).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(halt) => Some(halt),
            Poll::Pending => None,
        }
    }

    /// Lets so many operations pass, if there are any; time goes on if there are none.
    fn pass(&mut self, operations: usize) -> Option<Arc<Halt>> {
        let mut world = self.world.world();
        if world.held.is_empty() {
            world.now = world.now.after(STEP);
        } else {
            world.let_through = operations;
        }
        drop(world);
        let halt = self.turn();
        self.world.world().let_through = 0;
        halt
    }

    fn status(&mut self) -> Status {
        let status = self.handle.status();
        self.awaited(status)
    }

    /// All may pass until this is answered.
    fn awaited<T>(&mut self, mut reply: Reply<T>) -> T {
        for _ in 0..TURNS_MAX {
            // What is asked of the engine itself needs no disk.
            assert_eq!(self.turn(), None);
            if let Some(answer) = (&mut reply).now_or_never() {
                return answer.unwrap();
            }
            assert_eq!(self.pass(usize::MAX), None);
        }
        panic!("no answer, as {:?}", self.status().recovery);
    }

    fn until_it_leads(&mut self) {
        for _ in 0..TURNS_MAX {
            if self.status().role == Role::Leader {
                return;
            }
            assert_eq!(self.pass(usize::MAX), None);
        }
        panic!("it does not lead");
    }

    fn count(&mut self, more: usize) {
        for _ in 0..more {
            let counted = self.handle.propose_one(&[7; 5000]);
            self.awaited(counted);
        }
    }

    fn asked(&self) -> usize {
        self.world.world().asked.len()
    }
}

/// The directory of a node alone that was killed: with a snapshot, a log behind it, and in that a write that
/// tore, if it is to be `torn`.
fn killed(dir: &Path, torn: bool) {
    let members = Membership::of([Member {
        id: NODE,
        incarnation: 0,
        address: Bytes::from_static(b"nowhere"),
    }])
    .into();
    let mut node = Node::start(dir, Start::Format { cluster: ClusterId(7), members });
    node.until_it_leads();
    node.count(20);
    let snapshot = node.handle.control(Control::Snapshot);
    node.awaited(snapshot);
    node.count(20);
    if !torn {
        return;
    }
    let _unanswered = node.handle.propose_one(&[8; 9000]);
    assert_eq!(node.turn(), None);
    let held: Vec<_> = node.world.world().held.drain(..).collect();
    let mut tears = 0;
    for (_, request) in held {
        let DiskRequest::Write { file, at, .. } = request else { continue };
        // Its first sector alone.
        let log = fs::File::options().write(true).open(dir.join(file.name())).unwrap();
        log.write_all_at(&at.bytes[..512], at.offset).unwrap();
        tears += 1;
    }
    assert!(tears > 0, "a write was to tear");
}

fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    to
}

/// What a start there comes to: the row, and the state. What the row rests on grows with what an interrupted start
/// has written: the log's end once more, or an entry of its own.
fn outcome(dir: &Path) -> (String, u64) {
    let mut node = Node::start(dir, Start::Run);
    node.until_it_leads();
    let counted = node.handle.read_one(b"", ReadMode::Linearizable);
    let counted = number(&node.awaited(counted));
    let verdict = node.status().recovery.verdict.expect("it was given");
    (verdict.split(" (").next().unwrap_or_default().to_owned(), counted)
}

/// Interrupts a start after so many operations, the next ones being under way. In which stage that was.
fn interrupt(dir: &Path, operations: usize) -> Phase {
    let mut node = Node::start(dir, Start::Run);
    for _ in 0..operations {
        assert_eq!(node.pass(1), None);
    }
    let phase = node.status().recovery.phase;
    let (before, now) = (node.asked(), node.world.world().now);
    let stopped = node.handle.shutdown(false);
    let mut halt = node.turn();
    while halt.is_none() && !node.world.world().held.is_empty() {
        halt = node.pass(1);
    }
    assert_eq!(halt.as_deref(), Some(&Halt::Stopped), "in {phase}");
    assert_eq!(stopped.now_or_never().unwrap().as_deref(), Ok(&Halt::Stopped));
    let world = node.world.world();
    let begun: Vec<String> = world.asked[before..].iter().map(told).collect();
    // Before it may speak, nothing more is begun. Then it says what is durable, and what else is under way goes on
    // until that is written: alone, it may win its election by then.
    assert!(begun.is_empty() || phase > Phase::Repair, "in {phase}: {begun:?}");
    assert!(begun.len() <= BEGUN_MAX, "in {phase}: {begun:?}");
    assert_eq!(world.now, now, "it waited for time, in {phase}");
    phase
}

/// An operation without its bytes.
fn told(request: &DiskRequest) -> String {
    match request {
        DiskRequest::Read { file, .. } => format!("read {file}"),
        DiskRequest::Write { file, .. } => format!("write {file}"),
        DiskRequest::Create { file, .. } => format!("create {file}"),
        DiskRequest::Rename { from, to } => format!("rename {from} to {to}"),
        other => format!("{other:?}"),
    }
}

/// The stages in which a start there was interrupted, one for each operation of it, each time in a copy; `same` is
/// told what the next start of that copy came to.
fn interrupt_everywhere(dir: &Path, same: impl Fn(Phase, (String, u64))) -> Vec<Phase> {
    let mut met = Vec::new();
    while met.last() != Some(&Phase::Ready) {
        let dir = copy(dir);
        let phase = interrupt(dir.path(), met.len());
        same(phase, outcome(dir.path()));
        met.push(phase);
    }
    met
}

#[test]
fn a_restart_that_is_told_to_stop_in_any_stage_does_and_the_next_comes_to_the_same() {
    let dir = tempfile::tempdir().unwrap();
    killed(dir.path(), false);
    let expected = outcome(copy(dir.path()).path());
    assert_eq!(expected.1, 40);
    let met = interrupt_everywhere(dir.path(), |phase, found| {
        assert_eq!(found, expected, "stopped in {phase}");
    });
    let stages = [
        Phase::List,
        Phase::HardState,
        Phase::Snapshot,
        Phase::Log,
        Phase::Repair,
        Phase::Restore,
        Phase::Replay,
    ];
    for stage in stages {
        assert!(met.contains(&stage), "never in {stage}, but in {met:?}");
    }
}

/// What the cut has done by then is no more torn: the next start finds the rest to do, or nothing.
#[test]
fn a_cut_that_is_told_to_stop_is_finished_by_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    killed(dir.path(), true);
    let (verdict, counted) = outcome(copy(dir.path()).path());
    assert!(verdict.starts_with("torn: "), "{verdict}");
    assert_eq!(counted, 40);
    let rows = RefCell::new(BTreeSet::new());
    let met = interrupt_everywhere(dir.path(), |phase, (found, count)| {
        assert_eq!(count, counted, "stopped in {phase}: {found}");
        let row = found.split(':').next().unwrap_or("").to_owned();
        assert!(phase >= Phase::Repair || found == verdict, "stopped in {phase}: {found}");
        rows.borrow_mut().insert(row);
    });
    assert!(met.iter().filter(|phase| **phase == Phase::Repair).count() > 1, "{met:?}");
    assert_eq!(rows.into_inner().into_iter().collect::<Vec<_>>(), ["ordinary", "torn"]);
}
