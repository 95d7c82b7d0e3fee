//! Threads on which machines work, for nodes whose machines may be slow.
//!
//! A group's machine goes to a thread with the steps that have gathered, and comes home with what
//! came of them; meanwhile the loop goes on, and so do machines on other threads. Knows no engine and
//! no client. Invariant: a machine is on one thread at a time, and its steps are performed in order.

use crate::{clients::Table, guarded::Guarded};
use futures::task::AtomicWaker;
use lakebed::{Clients, Event, GroupId, Machine, Outcome, RequestId, StateMachine};
use std::{
    any::Any,
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    task::Waker,
    thread,
};

/// A machine on its way to a thread, and what it is to do there.
struct Turn<M> {
    group: GroupId,
    runner: Guarded<M>,
    lane: VecDeque<Machine>,
    notebook: Notebook,
}

/// A group whose machine came home, or ended with a panic.
pub(super) struct Home<M> {
    pub(super) group: GroupId,
    pub(super) came: Result<Done<M>, Box<dyn Any + Send>>,
}

/// A machine, and what came of its turn.
pub(super) struct Done<M> {
    pub(super) runner: Guarded<M>,
    pub(super) events: Vec<Event>,
    pub(super) notebook: Notebook,
}

struct Shared<M> {
    turns: Mutex<Receiver<Turn<M>>>,
    home: Mutex<Vec<Home<M>>>,
    driver: AtomicWaker,
}

/// See the module.
pub(super) struct Threads<M> {
    turns: Sender<Turn<M>>,
    shared: Arc<Shared<M>>,
}

impl<M: StateMachine + Send + 'static> Threads<M> {
    /// So many. They end with this value, each after the turn that it is at: a machine that never
    /// comes home is waited for by nobody.
    pub(super) fn new(count: usize) -> io::Result<Self> {
        let (turns, arriving) = channel();
        let shared = Arc::new(Shared {
            turns: Mutex::new(arriving),
            home: Mutex::default(),
            driver: AtomicWaker::new(),
        });
        for _ in 0..count {
            let shared = Arc::clone(&shared);
            let work = move || {
                while let Some(turn) = shared.next() {
                    let home = turn.take();
                    lock(&shared.home).push(home);
                    shared.driver.wake();
                }
            };
            thread::Builder::new().name("lakebed-machine".into()).spawn(work)?;
        }
        Ok(Self { turns, shared })
    }
}

impl<M> Threads<M> {
    /// Sends a machine out with these steps, and the queries that it will be asked for.
    pub(super) fn send(
        &self,
        group: GroupId,
        runner: Guarded<M>,
        lane: VecDeque<Machine>,
        clients: &mut Table,
    ) {
        let notebook = Notebook::of(&lane, clients);
        let sent = self.turns.send(Turn { group, runner, lane, notebook });
        assert!(sent.is_ok(), "the other end is kept beside this one");
    }

    /// Those that came home since; wakes `waker` when the next does.
    pub(super) fn take(&self, waker: &Waker) -> Vec<Home<M>> {
        self.shared.driver.register(waker);
        std::mem::take(&mut *lock(&self.shared.home))
    }
}

impl<M> Shared<M> {
    fn next(&self) -> Option<Turn<M>> {
        lock(&self.turns).recv().ok()
    }
}

impl<M: StateMachine> Turn<M> {
    fn take(self) -> Home<M> {
        let Self { group, mut runner, lane, mut notebook } = self;
        let work =
            || lane.into_iter().filter_map(|step| runner.perform(step, &mut notebook)).collect();
        let worked = catch_unwind(AssertUnwindSafe(work));
        // A machine that panicked is not used again.
        Home { group, came: worked.map(|events| Done { runner, events, notebook }) }
    }
}

/// Stands for the clients where they are not: what they ask, and what they are answered.
#[derive(Default)]
pub(super) struct Notebook {
    queries: VecDeque<(RequestId, Vec<u8>)>,
    asked: Vec<u8>,
    answers: Vec<u8>,
    /// Whose each answer is, and where it ends.
    ends: Vec<(RequestId, usize)>,
}

impl Notebook {
    fn of(lane: &VecDeque<Machine>, clients: &mut Table) -> Self {
        let requests = lane.iter().filter_map(|step| match step {
            Machine::Query { requests, .. } => Some(*requests),
            _ => None,
        });
        let ids = requests.flat_map(|requests| requests.ids());
        let queries = ids.map(|id| (id, clients.query(id).to_vec())).collect();
        Self { queries, ..Self::default() }
    }

    /// Answers the clients, in the order in which the machine did.
    pub(super) fn read_out(self, clients: &mut Table) {
        let mut start = 0;
        for (id, end) in self.ends {
            clients.answer(id, Ok(&self.answers[start..end]));
            start = end;
        }
    }
}

impl Clients for Notebook {
    fn query(&mut self, id: RequestId) -> &[u8] {
        let (expected, query) = self.queries.pop_front().expect("every query was written down");
        assert_eq!(expected, id, "queries are asked for in their order");
        self.asked = query;
        &self.asked
    }

    fn answer(&mut self, id: RequestId, answer: Result<&[u8], &Outcome>) {
        let answer = answer.expect("a machine answers what it performed");
        self.answers.extend_from_slice(answer);
        self.ends.push((id, self.answers.len()));
    }
}

/// What is guarded here is whole at every instant, whoever panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
