//! Threads on which machines work, for nodes whose machines may be slow.
//!
//! A group's machine goes to a thread with the steps that have gathered, and comes home with what
//! came of them; meanwhile the loop goes on, and so do machines on other threads. Knows no engine and
//! no client. Invariant: a machine is on one thread at a time, and its steps are performed in order.

use crate::{
    clients::Table,
    guarded::Guarded,
    mailbox::Mailbox,
    sync::{Mutex, lock},
};
use lakebed::{Clients, Event, GroupId, Machine, Outcome, RequestId, StateMachine};
use std::{
    any::Any,
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
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
    home: Mailbox<Home<M>>,
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
        let shared = Arc::new(Shared { turns: Mutex::new(arriving), home: Mailbox::default() });
        for _ in 0..count {
            let shared = Arc::clone(&shared);
            let work = move || {
                while let Some(turn) = shared.next() {
                    shared.home.put(turn.take());
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
        let mut home = Vec::new();
        self.shared.home.take(waker, &mut home);
        home
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

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use lakebed::{LogId, MachineError, Timestamp};
    use std::{task::Wake, time::Duration};

    /// Keeps what it was restored with, in the order in which that came.
    struct Heap(Arc<Mutex<Vec<u8>>>);

    impl StateMachine for Heap {
        fn apply(&mut self, _: LogId, _: Timestamp, _: &[u8], _: &mut Vec<u8>) {}

        fn query(&self, _: &[u8], _: &mut Vec<u8>) {}

        fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
            Box::new(std::iter::empty())
        }

        fn restore(&mut self, _: u64, bytes: &[u8], _: bool) -> Result<(), MachineError> {
            lock(&self.0).extend_from_slice(bytes);
            Ok(())
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

    /// Nothing else would wake a node whose disk and peers are at rest.
    #[test]
    fn a_machine_that_comes_home_wakes_the_driver_and_has_kept_the_order() {
        let heap = Arc::<Mutex<Vec<u8>>>::default();
        let steps = (0..3_u8).map(|n| {
            let bytes = Bytes::copy_from_slice(&[n]);
            Machine::Restore { at: LogId::ZERO, offset: n.into(), bytes, last: n == 2 }
        });
        let (rings, rang) = channel();
        let waker = Waker::from(Arc::new(Bell(rings)));
        let threads = Threads::new(1).unwrap();
        assert!(threads.take(&waker).is_empty());
        let runner = Guarded::new(Heap(Arc::clone(&heap)));
        threads.send(GroupId(1), runner, steps.collect(), &mut Table::default());
        rang.recv_timeout(Duration::from_secs(60)).expect("nobody was woken");
        let home = threads.take(&waker);
        assert!(matches!(&home[..], [Home { group: GroupId(1), came: Ok(_) }]));
        assert_eq!(*lock(&heap), [0, 1, 2]);
    }
}
