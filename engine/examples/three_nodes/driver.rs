//! The driver: one thread for the core and the machine, one for what clients wait for on disk, one
//! for what nobody waits for.

use crate::network::Network;
use lakebed::{
    Action, Batch, Class, Clients, Core, DiskRequest, Event, Halt, Instant, Membership, NodeId,
    OpId, Outcome, ReadMode, RequestId, Requests, Runner, Start, StateMachine, Timestamp,
    files::Directory,
};
use std::{
    collections::BTreeMap,
    net::TcpListener,
    sync::{
        Arc, Mutex, MutexGuard,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

/// A node that has not started. What it holds is let go of in this order: nothing is asked of it any more,
/// and comes over the network; what its disk is at work on ends; and whoever still waits hears of it.
pub(crate) struct Node {
    inbox: Receiver<Event>,
    network: Network,
    disk: Disk,
    waiting: Waiting,
}

impl Node {
    /// A node on this directory, and the handle to it.
    pub(crate) fn new(
        id: NodeId,
        directory: Directory,
        listener: TcpListener,
        members: &Membership,
    ) -> (Handle, Self) {
        let (events, inbox) = channel();
        let network = Network::open(id, listener, members, &events);
        let disk = Disk::open(directory, &events);
        let waiting = Waiting::default();
        let handle = Handle { events, table: Arc::clone(&waiting.table) };
        (handle, Self { inbox, network, disk, waiting })
    }

    /// Drives the core until it halts.
    pub(crate) fn run(
        mut self,
        mut core: impl Core,
        start: Start,
        machine: impl StateMachine,
    ) -> Halt {
        let origin = std::time::Instant::now();
        let clock = || Instant(origin.elapsed().as_nanos() as u64);
        let mut runner = Runner::new(machine);
        let (mut events, mut actions) = (vec![Event::Start(start)], Vec::new());
        let mut time_due = Instant(0);
        loop {
            let now = clock();
            // A leader dates by its own clock what others forward to it.
            if now >= time_due {
                events.push(Event::time(time()));
                time_due = now.after(Duration::from_secs(1));
            }
            core.handle(now, events.drain(..), &mut actions);
            for action in actions.drain(..) {
                match action {
                    Action::Disk { op, class, request } => self.disk.submit(op, class, request),
                    Action::Send { to, head, body } => self.network.send(to, (head, body)),
                    Action::Machine(step) => {
                        events.extend(runner.perform(step, &mut self.waiting));
                    }
                    Action::Respond { requests, outcome } => {
                        requests.ids().for_each(|id| self.waiting.answer(id, Err(&outcome)));
                    }
                    // The members of this example never change.
                    Action::Members(_) => {}
                    Action::Note(note) => eprintln!("{note:?}"),
                    // Dropping the disk waits for what is under way.
                    Action::Halt(halt) => return *halt,
                }
            }
            if events.is_empty() {
                let wait = core.deadline().map_or(Duration::MAX, |at| at.since(clock()));
                events.extend(self.inbox.recv_timeout(wait));
            }
            events.extend(self.inbox.try_iter());
        }
    }
}

/// Two threads that perform disk operations in the order in which they get them.
struct Disk {
    commit: Option<Sender<(OpId, DiskRequest)>>,
    background: Option<Sender<(OpId, DiskRequest)>>,
    threads: Vec<JoinHandle<()>>,
}

impl Disk {
    fn open(directory: Directory, events: &Sender<Event>) -> Self {
        let directory = Arc::new(directory);
        let lane = || {
            let (sender, requests) = channel::<(OpId, DiskRequest)>();
            let (directory, events) = (Arc::clone(&directory), events.clone());
            let thread = thread::spawn(move || {
                for (op, request) in requests {
                    let result = directory.perform(&request);
                    // The core may be gone: what ends after it is told to nobody.
                    let _ = events.send(Event::Completed { op, result });
                }
            });
            (Some(sender), thread)
        };
        let ((commit, first), (background, second)) = (lane(), lane());
        Self { commit, background, threads: vec![first, second] }
    }

    fn submit(&self, op: OpId, class: Class, request: DiskRequest) {
        let lane = if class == Class::Background { &self.background } else { &self.commit };
        let lane = lane.as_ref().expect("open until it is dropped");
        lane.send((op, request)).expect("the thread lives as long as its queue");
    }
}

impl Drop for Disk {
    /// When this returns every operation has ended and the directory is unlocked.
    fn drop(&mut self) {
        (self.commit, self.background) = (None, None);
        for thread in self.threads.drain(..) {
            thread.join().expect("no disk operation panics");
        }
    }
}

/// What a program holds of a node.
#[derive(Clone)]
pub(crate) struct Handle {
    events: Sender<Event>,
    table: Arc<Mutex<Table>>,
}

impl Handle {
    /// Replicates a command and returns its answer. Tries again when it was refused; a command
    /// whose fate is unknown may be applied twice by that. `None`: the node has ended.
    pub(crate) fn propose(&self, command: &[u8]) -> Option<Vec<u8>> {
        let batch = Batch::one(command);
        self.ask(command, |first| Event::Propose { first, time: time(), batch: batch.clone() })
    }

    /// Answers a query with what was acknowledged anywhere before it was asked.
    pub(crate) fn read(&self, query: &[u8]) -> Option<Vec<u8>> {
        let mode = ReadMode::Linearizable;
        self.ask(query, |id| Event::Read { requests: Requests::one(id), mode })
    }

    /// Ends the node.
    pub(crate) fn stop(&self) {
        // It may have ended already.
        let _ = self.events.send(Event::Stop { hand_over: true });
    }

    fn ask(&self, query: &[u8], event: impl Fn(RequestId) -> Event) -> Option<Vec<u8>> {
        loop {
            let (sender, answer) = sync_channel(1);
            let id = lock(&self.table).push(query, sender);
            self.events.send(event(id)).ok()?;
            match answer.recv().ok()? {
                Ok(answer) => return Some(answer),
                Err(_) => thread::sleep(Duration::from_millis(100)),
            }
        }
    }
}

fn time() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Timestamp(since.map_or(0, |since| since.as_nanos() as u64))
}

type Answer = SyncSender<Result<Vec<u8>, Outcome>>;

/// Those who wait for an answer, and what they asked.
#[derive(Default)]
struct Table {
    last: u64,
    asked: BTreeMap<RequestId, (Vec<u8>, Answer)>,
}

impl Table {
    fn push(&mut self, query: &[u8], answer: Answer) -> RequestId {
        self.last += 1;
        self.asked.insert(RequestId(self.last), (query.to_vec(), answer));
        RequestId(self.last)
    }
}

/// The driver's end of the table.
#[derive(Default)]
struct Waiting {
    table: Arc<Mutex<Table>>,
    /// The query that was lent last.
    lent: Vec<u8>,
}

impl Drop for Waiting {
    /// Whoever asked behind the node's last look at what came hears that nobody answers. The inbox is gone
    /// by now, so that nobody is added.
    fn drop(&mut self) {
        lock(&self.table).asked.clear();
    }
}

impl Clients for Waiting {
    fn query(&mut self, id: RequestId) -> &[u8] {
        let asked = lock(&self.table).asked.get(&id).map(|(query, _)| query.clone());
        self.lent = asked.unwrap_or_default();
        &self.lent
    }

    fn answer(&mut self, id: RequestId, answer: Result<&[u8], &Outcome>) {
        if let Some((_, client)) = lock(&self.table).asked.remove(&id) {
            // A client that went away does not listen.
            let _ = client.send(answer.map(<[u8]>::to_vec).map_err(Outcome::clone));
        }
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().expect("nothing panics while it holds the table")
}
