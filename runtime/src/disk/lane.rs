//! A thread that performs requests one after the other, the most urgent first.
//!
//! Knows no engine. Invariant: each job ends once, and all have ended when the lane is dropped.

use super::Ending;
use futures::task::AtomicWaker;
use lakebed::{Class, DiskRequest, Event, File, OpId, files::Directory};
use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::Waker,
    thread::{self, JoinHandle},
    time::Duration,
};

/// The longest that a piece of background work waits for commits to pause: under a load that never
/// does, the next segment must still be ready in time.
const YIELD_MAX: Duration = Duration::from_millis(5);

/// An operation on its way.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) op: OpId,
    pub(super) class: Class,
    pub(super) request: DiskRequest,
}

/// Where threads leave what has ended, for the driver to fetch.
#[derive(Default)]
pub(super) struct Done {
    events: Mutex<Vec<Event>>,
    driver: AtomicWaker,
}

impl Done {
    pub(super) fn push(&self, op: OpId, result: Ending) {
        self.extend([(op, result)]);
    }

    /// All at once: the driver is woken once.
    pub(super) fn extend(&self, ended: impl IntoIterator<Item = (OpId, Ending)>) {
        let events = ended.into_iter().map(|(op, result)| Event::Completed { op, result });
        lock(&self.events).extend(events);
        self.driver.wake();
    }

    /// Moves everything into `events` and says how much; wakes `waker` at the next.
    pub(super) fn take(&self, waker: &Waker, events: &mut Vec<Event>) -> usize {
        self.driver.register(waker);
        let mut ended = lock(&self.events);
        let count = ended.len();
        events.append(&mut ended);
        count
    }
}

/// Whether commits are on their way: background work waits, but not for ever.
#[derive(Default)]
pub(super) struct Gate {
    busy: Mutex<bool>,
    paused: Condvar,
}

impl Gate {
    pub(super) fn set_busy(&self, busy: bool) {
        *lock(&self.busy) = busy;
        if !busy {
            self.paused.notify_all();
        }
    }

    fn await_pause(&self) {
        let busy = lock(&self.busy);
        drop(self.paused.wait_timeout_while(busy, YIELD_MAX, |busy| *busy));
    }
}

#[derive(Default)]
struct Queue {
    /// One for each class.
    jobs: [VecDeque<Job>; 3],
    closed: bool,
}

impl Queue {
    fn pop(&mut self, class_max: Class) -> Option<Job> {
        self.jobs[..=class_max as usize].iter_mut().find_map(VecDeque::pop_front)
    }
}

struct Shared {
    directory: Arc<Directory>,
    queue: Mutex<Queue>,
    arrived: Condvar,
    gate: Arc<Gate>,
    done: Arc<Done>,
}

/// The thread and its queue.
pub(super) struct Lane {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Lane {
    pub(super) fn new(
        directory: Arc<Directory>,
        gate: Arc<Gate>,
        done: Arc<Done>,
    ) -> io::Result<Self> {
        let (queue, arrived) = Default::default();
        let shared = Arc::new(Shared { directory, queue, arrived, gate, done });
        let run = Arc::clone(&shared);
        let name = "lakebed-disk".into();
        let thread = thread::Builder::new().name(name).spawn(move || run.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(super) fn push(&self, job: Job) {
        lock(&self.shared.queue).jobs[job.class as usize].push_back(job);
        self.shared.arrived.notify_one();
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        lock(&self.shared.queue).closed = true;
        self.shared.arrived.notify_one();
        if let Some(thread) = self.thread.take() {
            // Its panic was reported where it happened.
            drop(thread.join());
        }
    }
}

impl Shared {
    fn run(&self) {
        while let Some(job) = self.next() {
            self.perform(job);
        }
    }

    fn next(&self) -> Option<Job> {
        let mut queue = lock(&self.queue);
        loop {
            let job = queue.pop(Class::Background);
            if job.is_some() || queue.closed {
                return job;
            }
            queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn perform(&self, Job { op, class, request }: Job) {
        let result = match request {
            DiskRequest::Create { file, len, zeroed: true } if class > Class::Commit => {
                self.create(file, len, class)
            }
            request => self.directory.perform(&request),
        };
        self.done.push(op, result);
    }

    /// A large file takes long: whatever is more urgent goes between its pieces.
    fn create(&self, file: File, len: u64, class: Class) -> Ending {
        let before_piece = || {
            self.gate.await_pause();
            while let Some(urgent) = self.pop_before(class) {
                self.perform(urgent);
            }
        };
        self.directory.create(file, len, before_piece).map(|()| lakebed::Completion::Done)
    }

    fn pop_before(&self, class: Class) -> Option<Job> {
        let class_max = if class == Class::Background { Class::Serve } else { Class::Commit };
        lock(&self.queue).pop(class_max)
    }
}

/// What is guarded here is whole at every instant, whoever panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
