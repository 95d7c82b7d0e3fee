//! How a group ends, and the node of some: who is told what, and when.

use super::*;
use crate::{
    groups::{Groups, GroupsNode, GroupsOptions, hung::Parting},
    handle::{Answers, Failure, Handle, Reply},
    inbox::Waiter,
    options::Listen,
};
use bytes::Bytes;
use futures::{FutureExt, channel::oneshot};
use lakebed::{
    Batch, LogId, LogIndex, MachineError, NodeId, Outcome, Requests, Timestamp, files::Directory,
};
use std::{
    future::poll_fn,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{Receiver, Sender, channel},
    },
    task::{Wake, Waker},
};
use tempfile::TempDir;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);
const GROUP: GroupId = GroupId(1);

type Asked = Arc<Mutex<Vec<Vec<u8>>>>;

/// Writes down what it is asked, and waits or panics when it is told to.
struct Odd {
    asked: Asked,
    begun: Sender<()>,
    gate: Receiver<()>,
    gone: Arc<AtomicBool>,
}

impl StateMachine for Odd {
    fn apply(&mut self, _: LogId, _: Timestamp, _: &[u8], _: &mut Vec<u8>) {}

    fn query(&self, query: &[u8], _: &mut Vec<u8>) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(query.to_vec());
        if query.starts_with(b"wait") {
            // The test may be over.
            let _ = self.begun.send(());
            let _ = self.gate.recv();
        }
        assert!(!query.ends_with(b"panic"), "the machine's fault");
    }

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        Box::new(std::iter::empty())
    }

    fn restore(&mut self, _: u64, bytes: &[u8], _: bool) -> Result<(), MachineError> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(bytes.to_vec());
        Ok(())
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        self.gone.store(true, SeqCst);
    }
}

/// What is let go of when somebody is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Free {
    machine: bool,
    directory: bool,
    address: bool,
}

/// Looks around at the instant at which it is told.
struct Ear {
    gone: Arc<AtomicBool>,
    path: PathBuf,
    address: SocketAddr,
    seen: Sender<Free>,
}

impl Wake for Ear {
    fn wake(self: Arc<Self>) {
        let seen = Free {
            machine: self.gone.load(SeqCst),
            directory: Directory::open(&self.path).is_ok(),
            address: TcpListener::bind(self.address).is_ok(),
        };
        // The test may be over.
        let _ = self.seen.send(seen);
    }
}

/// Says that it woke.
struct Bell(Sender<()>);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        // The test may be over.
        let _ = self.0.send(());
    }
}

/// A node with one group, whose engine has not heard of its start: what happens is what a test does.
struct Bench {
    _dir: TempDir,
    groups: Groups,
    node: GroupsNode<Odd>,
    handle: Handle,
    address: SocketAddr,
    asked: Asked,
    gone: Arc<AtomicBool>,
    begins: Receiver<()>,
    open: Sender<()>,
}

impl Bench {
    fn new(machine_threads: usize) -> Self {
        let mut bench = Self::before_the_birth(machine_threads);
        bench.gather();
        bench.node.inner.events.clear();
        bench
    }

    fn before_the_birth(machine_threads: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let listen = Listen::Bound(listener);
        let mut options = GroupsOptions::new(dir.path(), ClusterId(7), NodeId(1), listen);
        options.machine_threads = machine_threads;
        let ((begun, begins), (open, gate)) = (channel(), channel());
        let (asked, gone) = (Asked::default(), Arc::<AtomicBool>::default());
        let odd = Odd { asked: Arc::clone(&asked), begun, gate, gone: Arc::clone(&gone) };
        let mut odd = Some(odd);
        let machine = move |_| odd.take().expect("there is one group");
        let (groups, node) = GroupsNode::open(options, machine).unwrap();
        let handle = groups.create(GROUP, [(1, address.to_string().as_str())]).unwrap();
        Self { _dir: dir, groups, node, handle, address, asked, gone, begins, open }
    }

    fn gather(&mut self) {
        self.node.inner.gather(&mut Context::from_waker(Waker::noop()));
    }

    fn seat(&mut self) -> &mut Seat<Odd> {
        self.node.inner.seats.get_mut(&GROUP).expect("it was born")
    }

    /// Who asks, and what is to be asked.
    fn ask(&mut self, query: &[u8]) -> (oneshot::Receiver<Result<Answers, Failure>>, Machine) {
        let (reply, answers) = oneshot::channel();
        let waiter = Waiter::All(reply);
        let requests = self.seat().clients.queries(Batch::one(query), waiter).unwrap();
        (answers, Machine::Query { requests, at: LogIndex(0) })
    }

    /// The machine is to be asked this.
    fn line_up(&mut self, query: &[u8]) -> oneshot::Receiver<Result<Answers, Failure>> {
        let (answers, step) = self.ask(query);
        self.seat().lane.push_back(step);
        self.node.inner.busy.insert(GROUP);
        answers
    }

    /// The machine goes to its thread, and has begun there.
    fn send_away(&mut self) {
        self.node.inner.run_machines();
        self.begins.recv_timeout(PATIENCE).expect("it went nowhere");
        assert!(self.seat().is_away);
    }

    fn await_home(&mut self) {
        let (rings, rang) = channel();
        let waker = Waker::from(Arc::new(Bell(rings)));
        self.open.send(()).unwrap();
        loop {
            self.node.inner.gather(&mut Context::from_waker(&waker));
            if !self.seat().is_away {
                return;
            }
            rang.recv_timeout(PATIENCE).expect("nobody was woken");
        }
    }

    /// What is free when this reply comes.
    fn listen<T>(&self, reply: &mut Reply<T>) -> Receiver<Free> {
        let (seen, sees) = channel();
        let (gone, path) = (Arc::clone(&self.gone), self.groups.path(GROUP));
        let waker = Waker::from(Arc::new(Ear { gone, path, address: self.address, seen }));
        let polled = Pin::new(reply).poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending(), "it is too early");
        sees
    }

    fn asked(&self) -> Vec<Vec<u8>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn told<T>(reply: impl Future<Output = T>) -> Option<T> {
    reply.now_or_never()
}

/// A machine that was still at work met the one that came after it.
#[tokio::test]
async fn the_end_of_a_group_is_told_when_its_machine_has_gone() {
    for threads in [0, 1] {
        let mut bench = Bench::new(threads);
        let mut ended = bench.handle.ended();
        bench.gather();
        let sees = bench.listen(&mut ended);
        let halt = Some(Arc::new(Halt::Stopped));
        if threads > 0 {
            let answers = bench.line_up(b"wait");
            bench.send_away();
            bench.seat().halt = halt;
            bench.node.inner.halted.insert(GROUP);
            assert!(!bench.node.inner.end_groups(), "its machine is on a thread");
            bench.await_home();
            assert_eq!(told(answers).unwrap().unwrap().unwrap().len(), 1);
        } else {
            bench.seat().halt = halt;
            bench.node.inner.halted.insert(GROUP);
        }
        assert!(bench.node.inner.end_groups());
        let seen = sees.try_recv().expect("it was told");
        assert_eq!(seen, Free { machine: true, directory: true, address: false });
        assert_eq!(*told(ended).unwrap().unwrap(), Halt::Stopped);
    }
}

/// Its clients were told the end when it was given up, and its reason is what went wrong first.
#[tokio::test]
async fn what_a_machine_does_whose_group_was_given_up_meanwhile_is_nobodys() {
    for query in [&b"wait"[..], b"wait, and panic"] {
        let mut bench = Bench::new(1);
        let ended = bench.handle.ended();
        bench.gather();
        let answers = bench.line_up(query);
        bench.send_away();
        bench.node.inner.give_up(GROUP, &"the engine's fault");
        let before = bench.seat().last.clone();
        assert_eq!(told(answers).unwrap().unwrap(), Err(Failure::Unknown));
        bench.await_home();
        assert_eq!(bench.seat().last, before);
        assert!(bench.node.inner.end_groups());
        let halt = Halt::Panicked("the engine's fault".into());
        assert_eq!(*told(ended).unwrap().unwrap(), halt);
    }
}

/// Its disk may take long to end its last operation, and the group is there until then.
#[tokio::test]
async fn a_machine_that_panicked_is_asked_nothing_more() {
    let mut bench = Bench::new(0);
    bench.seat().in_flight = 1;
    let answers = bench.line_up(b"panic");
    let bytes = Bytes::from_static(b"what comes behind");
    let step = Machine::Restore { at: LogId::ZERO, offset: 0, bytes, last: true };
    bench.seat().lane.push_back(step);
    for _ in 0..3 {
        bench.node.inner.run_machines();
        assert!(!bench.node.inner.end_groups());
    }
    assert_eq!(bench.asked(), [b"panic"]);
    assert_eq!(told(answers).unwrap().unwrap(), Err(Failure::Unknown));
}

/// Whoever asked was told the end, and the machine, whole as it may be, is asked nothing more.
#[tokio::test]
async fn what_an_engine_decided_before_it_panicked_is_nobodys() {
    for threads in [0, 1] {
        let mut bench = Bench::new(threads);
        let (answers, step) = bench.ask(b"never");
        let Machine::Query { requests, .. } = step else { unreachable!("it is a query") };
        bench.node.inner.give_up(GROUP, &"the engine's fault");
        assert_eq!(told(answers).unwrap().unwrap(), Err(Failure::Unknown));
        let respond = |requests: Requests| {
            let outcome = Outcome::Refused(Refusal::NotReady);
            HostAction::Group(GROUP, Action::Respond { requests, outcome })
        };
        let step = HostAction::Group(GROUP, Action::Machine(step));
        bench.node.inner.actions.extend([respond(requests), step]);
        bench.node.inner.perform();
        bench.node.inner.run_machines();
        assert_eq!(bench.asked(), [b""; 0]);
        assert!(!bench.seat().is_away);
    }
}

/// All groups of the node would end with it.
#[tokio::test]
async fn an_engine_that_panics_ends_its_group_and_the_next_hears_what_was_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let listen = Listen::Bound(listener);
    let options = GroupsOptions::new(dir.path(), ClusterId(7), NodeId(1), listen);
    let (asked, gone) = (Asked::default(), Arc::<AtomicBool>::default());
    let machine = move |_| {
        let ((begun, _), (_, gate)) = (channel(), channel());
        Odd { asked: Arc::clone(&asked), begun, gate, gone: Arc::clone(&gone) }
    };
    let (groups, mut node) = GroupsNode::open(options, machine).unwrap();
    let create = |group| groups.create(GroupId(group), [(1, address.as_str())]).unwrap();
    let [faulty, sound] = [1, 2].map(create);
    let is_ready = async |handle: &Handle| while handle.propose_one(b"").await.is_err() {};
    let mut ready = Box::pin(async { (is_ready(&faulty).await, is_ready(&sound).await) });
    let drives = poll_fn(|cx| {
        let polled = ready.poll_unpin(cx);
        assert!(Pin::new(&mut node).poll(cx).is_pending());
        polled
    });
    timeout(PATIENCE, drives).await.expect("waited in vain");

    let (mut ended, mut written) = (faulty.ended(), sound.propose_one(b""));
    let never = Event::Applied { through: LogIndex(u64::MAX) };
    node.inner.events.push(HostEvent::Group(GroupId(1), never));
    let drives = poll_fn(|cx| {
        assert!(Pin::new(&mut node).poll(cx).is_pending());
        ended.poll_unpin(cx)
    });
    let halt = timeout(PATIENCE, drives).await.expect("waited in vain").unwrap();
    assert!(matches!(*halt, Halt::Panicked(_)), "{halt}");
    let drives = poll_fn(|cx| {
        assert!(Pin::new(&mut node).poll(cx).is_pending());
        written.poll_unpin(cx)
    });
    timeout(PATIENCE, drives).await.expect("waited in vain").unwrap();
}

/// Whoever wants an answer does not wait for a disk that may hang, and whoever waits for the end finds all
/// that the node held let go of.
#[tokio::test]
async fn a_node_that_is_dropped_answers_first_and_tells_its_end_last() {
    let mut bench = Bench::new(0);
    let (audience, mut first) = (bench.handle.ended(), bench.handle.ended());
    bench.gather();
    let (taken, _) = bench.ask(b"taken");
    let (queued, late) = (bench.handle.propose_one(b"queued"), bench.handle.ended());
    let mut last = bench.handle.ended();
    let sees = [bench.listen(&mut first), bench.listen(&mut last)];
    let (tell, tells) = channel();
    let mut waiting = Some((taken, queued, [audience, late]));
    let parting = move || {
        let (taken, queued, mut ends) = waiting.take().expect("it is dropped once");
        let heard = ends.each_mut().map(|end| end.now_or_never().is_some());
        tell.send((told(taken), told(queued), heard, ends)).unwrap();
    };
    bench.node.inner.pool.wrap(GROUP, |place| Parting(place, parting));
    drop(bench.node);
    let (taken, queued, heard, ends) = tells.try_recv().unwrap();
    assert_eq!(taken.unwrap().unwrap(), Err(Failure::Unknown));
    assert_eq!(queued, Some(Err(Failure::Unknown)));
    assert_eq!(heard, [false; 2], "the directory is locked");
    for end in ends.into_iter().chain([first, last]) {
        assert_eq!(told(end), Some(Err(Failure::Unknown)));
    }
    let all = Free { machine: true, directory: true, address: true };
    assert_eq!(sees.map(|sees| sees.try_recv()), [Ok(all); 2]);
}

/// It has a directory, and handles, and nobody would ever have looked at it.
#[tokio::test]
async fn a_group_that_has_not_begun_when_its_node_goes_leaves_nobody_waiting() {
    let bench = Bench::before_the_birth(0);
    let asked = bench.handle.propose_one(b"queued");
    let mut ended = bench.handle.ended();
    let sees = bench.listen(&mut ended);
    bench.gone.store(true, SeqCst);
    drop(bench.node);
    assert_eq!(told(asked), Some(Err(Failure::Unknown)));
    assert_eq!(told(ended), Some(Err(Failure::Unknown)));
    let seen = sees.try_recv().unwrap();
    assert_eq!(seen, Free { machine: true, directory: true, address: true });
}
