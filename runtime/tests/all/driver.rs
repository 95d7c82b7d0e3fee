//! The loop and the handle, with a scripted engine, disk, network and clock: nothing here is real,
//! and nothing waits.

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use lakebed::{
    Action, Batch, Class, Completion, Config, Control, Core, DiskRequest, Event, GroupId, Halt,
    Instant, LogId, LogIndex, Machine, MachineError, Membership, NodeId, Note, OpId, Outcome,
    ReadMode, Refusal, Requests, Start, StateMachine, Status, Term, Timestamp, Tuning,
};
use lakebed_runtime::{Carried, Clock, Disk, Driver, Failure, Handle, Net, Reply};
use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
        mpsc::channel,
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

/// Everything outside the driver, shared with the test.
#[derive(Default)]
struct World {
    /// What the core was told, a list for each call.
    told: Vec<Vec<Event>>,
    /// What the core answers to the next calls.
    script: VecDeque<Vec<Action>>,
    deadline: Option<Instant>,
    now: Instant,
    /// What disk and network were asked, in order.
    asked: Vec<String>,
    /// What they have for the driver.
    completed: Vec<Event>,
    arrived: Vec<Event>,
    open: usize,
    /// How long each query takes.
    query_takes: Duration,
    /// What the disk completes while the machine works: one in each step.
    meanwhile: VecDeque<Event>,
    disk_is_gone: bool,
    /// What happens while the disk ends its last operation.
    at_disk_end: Option<Box<dyn FnOnce() + Send>>,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<World>>);

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }
}

impl World {
    fn pass_time(&mut self) {
        self.now = self.now.after(self.query_takes);
        if let Some(event) = self.meanwhile.pop_front() {
            self.completed.push(event);
            self.open += 1;
        }
    }
}

impl Core for Shared {
    fn handle(
        &mut self,
        _: Instant,
        events: impl IntoIterator<Item = Event>,
        actions: &mut Vec<Action>,
    ) {
        let mut world = self.world();
        world.told.push(events.into_iter().collect());
        world.deadline = world.deadline.filter(|deadline| *deadline > world.now);
        actions.extend(world.script.pop_front().unwrap_or_default());
    }

    fn deadline(&self) -> Option<Instant> {
        self.world().deadline
    }

    fn status(&self) -> Status {
        let mut status = Status::default();
        status.term = Term(self.world().told.len() as u64);
        status
    }
}

struct ScriptedDisk(Shared);

impl Disk for ScriptedDisk {
    fn submit(&mut self, op: OpId, _: Class, _: DiskRequest) {
        let mut world = self.0.world();
        world.asked.push(format!("submit {op}"));
        world.open += 1;
    }

    fn flush(&mut self) {
        self.0.world().asked.push("flush disk".into());
    }

    fn poll_completed(&mut self, _: &mut Context<'_>, events: &mut Vec<Event>) {
        let mut world = self.0.world();
        world.open -= world.completed.len();
        events.append(&mut world.completed);
    }

    fn is_idle(&self) -> bool {
        self.0.world().open == 0
    }
}

impl Drop for ScriptedDisk {
    fn drop(&mut self) {
        let at_end = self.0.world().at_disk_end.take();
        at_end.into_iter().for_each(|at_end| at_end());
        self.0.world().disk_is_gone = true;
    }
}

struct ScriptedNet(Shared);

impl Net for ScriptedNet {
    fn connect(&mut self, _: &Membership) {
        self.0.world().asked.push("connect".into());
    }

    fn send(&mut self, to: NodeId, _: Bytes, _: Bytes) {
        self.0.world().asked.push(format!("send {to}"));
    }

    fn tune(&mut self, tuning: &Tuning) {
        self.0.world().asked.push(format!("tune net to {}", tuning.inflight_bytes_max));
    }

    fn flush(&mut self) {
        self.0.world().asked.push("flush net".into());
    }

    fn poll_events(&mut self, _: &mut Context<'_>, events: &mut Vec<Event>) {
        events.append(&mut self.0.world().arrived);
    }
}

impl Drop for ScriptedNet {
    fn drop(&mut self) {
        self.0.world().asked.push("leave net".into());
    }
}

impl Clock for Shared {
    fn now(&self) -> Instant {
        self.world().now
    }

    fn time(&self) -> Timestamp {
        Timestamp(1234)
    }

    fn poll_deadline(&mut self, _: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        match deadline {
            Some(deadline) if deadline <= self.world().now => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}

/// Answers a query with itself, and takes its time.
struct Echo(Shared);

impl StateMachine for Echo {
    fn apply(&mut self, _: LogId, _: Timestamp, _: &[u8], _: &mut Vec<u8>) {
        unreachable!("only engines make entries")
    }

    fn query(&self, query: &[u8], answer: &mut Vec<u8>) {
        let mut world = self.0.world();
        world.asked.push(format!("query {}", String::from_utf8_lossy(query)));
        world.pass_time();
        answer.extend_from_slice(query);
    }

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        self.0.world().pass_time();
        Box::new(std::iter::once(Bytes::from_static(b"frozen")))
    }

    fn restore(&mut self, _: u64, _: &[u8], _: bool) -> Result<(), MachineError> {
        Ok(())
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Node {
    world: Shared,
    handle: Handle,
    driver: Driver<Shared, ScriptedDisk, ScriptedNet, Shared, Echo>,
}

impl Node {
    fn new() -> Self {
        let world = Shared::default();
        let config = Config::new(GroupId(1), NodeId(1));
        let net = ScriptedNet(world.clone());
        let surroundings = (ScriptedDisk(world.clone()), net, world.clone());
        let machine = Echo(world.clone());
        let (handle, driver) =
            Driver::new(world.clone(), &config, Start::Run, machine, surroundings);
        let mut node = Self { world, handle, driver };
        assert!(node.turn().is_none());
        assert_eq!(node.told(), [[Event::Start(Start::Run), Event::time(Timestamp(1234))]]);
        node.asked();
        node
    }

    fn turn(&mut self) -> Option<Arc<Halt>> {
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(&mut self.driver).poll(&mut cx) {
            Poll::Ready(halt) => Some(halt),
            Poll::Pending => None,
        }
    }

    /// Whether it wants to be polled again at once.
    fn woken_turn(&mut self) -> bool {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let polled = Pin::new(&mut self.driver).poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        woken.0.load(Ordering::Relaxed)
    }

    fn answer_next(&self, actions: impl IntoIterator<Item = Action>) {
        self.world.world().script.push_back(actions.into_iter().collect());
    }

    fn told(&self) -> Vec<Vec<Event>> {
        std::mem::take(&mut self.world.world().told)
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.world.world().asked)
    }

    /// The requests that the core was told of last.
    fn requests(&self) -> Vec<Requests> {
        let requests = |event: Event| match event {
            Event::Propose { first, batch, .. } => Requests { first, count: batch.count() },
            Event::Read { requests, .. } => requests,
            Event::Control { id, .. } => Requests::one(id),
            other => panic!("{other:?} is no request"),
        };
        self.told().into_iter().flatten().map(requests).collect()
    }
}

fn resolved<T>(reply: Reply<T>) -> Result<T, Failure> {
    reply.now_or_never().expect("it has been answered")
}

fn completed(op: u64) -> Event {
    Event::Completed { op: OpId(op), result: Ok(Completion::Done) }
}

fn link(peer: u64) -> Event {
    Event::Link { peer: NodeId(peer), up: true }
}

fn disk(op: u64) -> Action {
    Action::Disk { op: OpId(op), class: Class::Commit, request: DiskRequest::List }
}

fn send(to: u64) -> Action {
    Action::Send { to: NodeId(to), head: Bytes::new(), body: Bytes::new() }
}

fn query(requests: Requests) -> Action {
    Action::Machine(Machine::Query { requests, at: LogIndex(5) })
}

fn respond(requests: Requests, outcome: Outcome) -> Action {
    Action::Respond { requests, outcome }
}

fn local() -> ReadMode {
    ReadMode::Local { stale_max: Duration::ZERO }
}

#[test]
fn own_posts_go_first_then_disk_then_network_then_clients() {
    let mut node = Node::new();
    node.world.world().completed.push(completed(1));
    node.world.world().open += 1;
    node.world.world().arrived.push(link(3));
    let _reply = node.handle.propose_one(b"x");
    let capture = lakebed::CaptureId(9);
    node.answer_next([
        Action::Machine(Machine::Capture { capture, at: LogId::ZERO }),
        Action::Machine(Machine::CaptureNext { capture, bytes_max: 100 }),
    ]);
    node.world.world().meanwhile.push_back(completed(2));
    node.turn();
    let [first, second] = &node.told()[..] else { panic!("each call takes all there is") };
    let [disk, net, Event::Propose { time, .. }] = &first[..] else { panic!("{first:?}") };
    assert_eq!((disk, net, time), (&completed(1), &link(3), &Timestamp(1234)));
    let [Event::Captured { .. }, disk] = &second[..] else { panic!("{second:?}") };
    assert_eq!(disk, &completed(2));
}

/// A leader on which nobody proposes dates what others forward to it.
#[test]
fn the_wall_clock_is_told_once_a_second_with_what_happens() {
    let mut node = Node::new();
    let mut told = |after: Duration, events: &[Event]| {
        let mut world = node.world.world();
        world.now = world.now.after(after);
        world.arrived.extend_from_slice(events);
        drop(world);
        node.turn();
        node.told()
    };
    assert_eq!(told(Duration::from_millis(999), &[link(2)]), [[link(2)]]);
    assert!(told(Duration::from_millis(10), &[]).is_empty(), "nobody is woken for it");
    let time = Event::time(Timestamp(1234));
    assert_eq!(told(Duration::ZERO, &[link(3)]), [[link(3), time]]);
    assert_eq!(told(Duration::ZERO, &[link(2)]), [[link(2)]]);
}

#[test]
fn disk_and_peers_do_not_wait_for_the_machine() {
    let mut node = Node::new();
    let _reply = node.handle.read_one(b"slow", local());
    node.turn();
    let [requests] = node.requests()[..] else { panic!("one request") };
    node.asked();
    node.answer_next([query(requests), send(2), disk(1), send(3)]);
    node.world.world().arrived.push(link(2));
    node.turn();
    let order = ["send 2", "submit 1", "send 3", "flush disk", "flush net", "query slow"];
    assert_eq!(node.asked(), order);
}

#[test]
fn the_machine_takes_turns_with_everything_else() {
    let mut node = Node::new();
    let names = ["1", "2", "3"];
    let replies = names.map(|name| node.handle.read_one(name.as_bytes(), local()));
    node.turn();
    let steps: Vec<_> = node.requests().into_iter().map(query).collect();
    node.world.world().query_takes = Duration::from_millis(300);
    node.world.world().meanwhile.extend((0..3).map(completed));
    node.answer_next(steps);
    node.world.world().arrived.push(link(2));
    node.turn();
    while node.woken_turn() {}
    let told = [link(2), completed(0), completed(1), completed(2)];
    assert_eq!(node.told(), told.map(|event| vec![event]));
    assert_eq!(replies.map(|reply| resolved(reply).unwrap()), names.map(Bytes::from));
}

/// Others live on this thread, and sockets are looked at between two polls: a machine that has used up its
/// time ends one.
#[test]
fn a_busy_driver_leaves_off_and_asks_to_be_polled_again() {
    let mut node = Node::new();
    let reads: Vec<_> = (0..9).map(|_| node.handle.read_one(b"q", local())).collect();
    node.turn();
    let steps: Vec<_> = node.requests().into_iter().map(query).collect();
    node.world.world().query_takes = Duration::from_millis(600);
    node.answer_next(steps);
    node.world.world().arrived.push(link(2));
    let mut polls = 0;
    while node.woken_turn() {
        polls += 1;
    }
    assert_eq!(polls, 8, "one query each, and the last with what it finds to do behind it");
    assert!(reads.into_iter().all(|read| resolved(read).is_ok()));
}

#[test]
fn a_deadline_that_has_passed_is_told_with_no_events() {
    let mut node = Node::new();
    node.world.world().deadline = Some(Instant(50));
    node.turn();
    assert!(node.told().is_empty(), "nothing happened");
    node.world.world().now = Instant(50);
    node.turn();
    assert_eq!(node.told(), [[]]);
}

#[test]
fn requests_end_as_the_engine_says() {
    let mut node = Node::new();
    let busy = node.handle.propose(Batch::one(b"a"));
    let lost = node.handle.propose_one(b"b");
    let mut two = Batch::one(b"first");
    two.push(b"second");
    let read = node.handle.read(two, ReadMode::Linearizable);
    let done = node.handle.control(Control::Snapshot);
    let refused = node.handle.control(Control::Transfer { to: None });
    node.turn();
    let [a, b, reads, snapshot, transfer] = node.requests()[..] else { panic!("five requests") };
    let at = LogId::new(Term(1), LogIndex(2));
    node.answer_next([
        respond(b, Outcome::Unknown),
        respond(a, Outcome::Refused(Refusal::Busy)),
        query(reads),
        respond(snapshot, Outcome::Done(at)),
        respond(transfer, Outcome::Refused(Refusal::NotReady)),
    ]);
    node.world.world().arrived.push(link(2));
    node.turn();
    assert_eq!(resolved(busy), Err(Failure::Refused(Refusal::Busy)));
    assert_eq!(resolved(lost), Err(Failure::Unknown));
    assert_eq!(resolved(done), Ok(Carried::Done(at)));
    assert_eq!(resolved(refused), Err(Failure::Refused(Refusal::NotReady)));
    let answers = resolved(read).unwrap();
    assert_eq!(answers.iter().collect::<Vec<_>>(), [&b"first"[..], b"second"]);
}

#[test]
fn an_empty_batch_has_no_answers_and_needs_no_engine() {
    let mut node = Node::new();
    let replies =
        [node.handle.propose(Batch::default()), node.handle.read(Batch::default(), local())];
    for reply in replies {
        assert!(resolved(reply).unwrap().is_empty());
    }
    node.turn();
    assert!(node.told().is_empty());
}

/// The engine alone would send more than the network has room for. What cannot work reaches neither.
#[test]
fn what_a_node_is_tuned_to_its_network_is_told_too() {
    let mut node = Node::new();
    node.turn();
    let mut tuning = Tuning::default();
    tuning.inflight_bytes_max = 77 << 20;
    node.handle.tune(tuning.clone()).unwrap();
    tuning.election.1 = Duration::ZERO;
    node.handle.tune(tuning).unwrap_err();
    node.turn();
    let tuned = |asked: &String| asked.starts_with("tune");
    let asked: Vec<_> = node.asked().into_iter().filter(tuned).collect();
    assert_eq!(asked, [format!("tune net to {}", 77 << 20)]);
    let told = node.told().concat();
    assert!(matches!(told[..], [.., Event::Tune(_)]), "{told:?}");
}

#[test]
fn a_full_inbox_refuses_and_takes_again_when_it_was_emptied() {
    let mut node = Node::new();
    let large = || Batch::one(&vec![0; 40 << 20]);
    let first = node.handle.propose(large());
    let second = node.handle.propose(large());
    assert_eq!(resolved(second), Err(Failure::Refused(Refusal::Busy)));
    node.turn();
    let third = node.handle.propose(large());
    node.turn();
    assert_eq!(node.requests().len(), 2);
    assert!(first.now_or_never().is_none() && third.now_or_never().is_none());
}

#[test]
fn status_is_the_engines_and_the_last_one_remains() {
    let mut node = Node::new();
    let (before, term) = (node.handle.status(), |status: Status| status.term);
    node.turn();
    assert_eq!(resolved(before).map(term), Ok(Term(0)));
    node.answer_next([Action::Halt(Box::new(Halt::Removed))]);
    node.world.world().arrived.push(link(2));
    assert_eq!(node.turn().as_deref(), Some(&Halt::Removed));
    assert_eq!(resolved(node.handle.status()).map(term), Ok(Term(1)));
}

#[test]
fn a_halted_node_ends_when_its_disk_is_idle_and_gone() {
    let mut node = Node::new();
    let ended = node.handle.ended();
    let flying = node.handle.propose_one(b"x");
    node.answer_next([disk(1), disk(2)]);
    node.turn();
    let stop = node.handle.shutdown(true);
    let late = node.handle.propose_one(b"too late");
    node.answer_next([Action::Halt(Box::new(Halt::Stopped))]);
    assert!(node.turn().is_none(), "two operations are under way");
    let told = node.told();
    assert!(told.concat().contains(&Event::Stop { hand_over: true }), "{told:?}");
    assert_eq!(resolved(flying), Err(Failure::Unknown));
    let queued = node.handle.propose_one(b"later still");
    let status = node.handle.status();
    node.world.world().completed.push(completed(1));
    assert!(node.turn().is_none(), "one operation is under way");
    assert_eq!(
        resolved(queued),
        Err(Failure::Refused(Refusal::Stopping)),
        "however long that takes"
    );
    assert!(resolved(status).is_ok());
    let queued = node.handle.propose_one(b"and later");
    node.world.world().completed.push(completed(2));
    assert_eq!(node.turn().as_deref(), Some(&Halt::Stopped));
    assert!(node.world.world().disk_is_gone, "whoever learns of the end may start anew");
    assert!(node.told().is_empty(), "a halted engine is told nothing");
    for reply in [ended, stop, node.handle.ended()] {
        assert_eq!(*resolved(reply).unwrap(), Halt::Stopped);
    }
    let stopping = Err(Failure::Refused(Refusal::Stopping));
    assert_eq!(resolved(late), Err(Failure::Unknown), "the engine had it");
    for reply in [queued, node.handle.propose_one(b"after the end")] {
        assert_eq!(resolved(reply), stopping);
    }
}

/// Its peers took it for connected, and its sockets shook hands, for as long as its disk hung.
#[test]
fn a_halted_node_leaves_its_peers_at_once_whatever_its_disk_does() {
    let mut node = Node::new();
    node.answer_next([disk(1)]);
    node.world.world().arrived.push(link(2));
    node.turn();
    node.asked();
    node.answer_next([send(2), Action::Halt(Box::new(Halt::Stopped))]);
    node.world.world().arrived.push(link(2));
    assert!(node.turn().is_none(), "an operation is under way");
    assert_eq!(node.asked(), ["send 2", "flush disk", "flush net", "leave net"]);
    assert!(node.turn().is_none(), "it still is");
    node.world.world().completed.push(completed(1));
    assert_eq!(node.turn().as_deref(), Some(&Halt::Stopped));
    assert!(node.asked().is_empty());
}

#[test]
fn a_dropped_driver_leaves_nobody_waiting() {
    let mut node = Node::new();
    let flying = node.handle.propose_one(b"x");
    node.turn();
    let queued = node.handle.read_one(b"y", local());
    drop(node.driver);
    for reply in [flying, queued, node.handle.propose_one(b"z")] {
        assert_eq!(resolved(reply), Err(Failure::Unknown));
    }
    assert_eq!(resolved(node.handle.ended()), Err(Failure::Unknown));
}

#[test]
fn notes_reach_those_who_listen() {
    let mut node = Node::new();
    let [listens, gone] = [node.handle.subscribe(), node.handle.subscribe()];
    node.turn();
    drop(gone);
    for full in [true, false] {
        node.answer_next([Action::Note(Note::DiskFull(full))]);
        node.world.world().arrived.push(link(2));
        node.turn();
    }
    node.answer_next([Action::Halt(Box::new(Halt::Stopped))]);
    node.world.world().arrived.push(link(2));
    node.turn();
    let notes = listens.collect::<Vec<_>>().now_or_never().expect("the stream ends with the node");
    assert_eq!(notes, [Note::DiskFull(true), Note::DiskFull(false)]);
}

/// A disk that hung kept everybody waiting whose node was dropped, as on a task that is aborted.
#[test]
fn only_those_who_wait_for_the_end_wait_for_the_disk_of_a_driver_that_is_dropped() {
    let mut node = Node::new();
    let (taken, told_last) = (node.handle.propose_one(b"taken"), node.handle.ended());
    node.turn();
    let (queued, told_late) = (node.handle.propose_one(b"queued"), node.handle.ended());
    let (handle, (tell, told)) = (node.handle.clone(), channel());
    let at_end = move || {
        let answers = [taken, queued, handle.propose_one(b"late")].map(FutureExt::now_or_never);
        let mut ends = [told_last, told_late, handle.ended()];
        let hear = ends.each_mut().map(|end| end.now_or_never().is_some());
        tell.send((answers, hear, ends)).unwrap();
    };
    node.world.world().at_disk_end = Some(Box::new(at_end));
    drop(node.driver);
    let (answers, hear, ends) = told.try_recv().unwrap();
    assert_eq!(answers, [const { Some(Err(Failure::Unknown)) }; 3]);
    assert_eq!(hear, [false; 3], "the directory is locked");
    assert_eq!(ends.map(resolved), [const { Err(Failure::Unknown) }; 3]);
}
