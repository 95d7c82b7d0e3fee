//! A thread that performs requests one after the other, the most urgent first, and what is short
//! between the pieces of what is long. Neither keeps what nobody waits for from its end.
//!
//! Knows no engine. Invariant: each job ends once, and all have ended when the lane is dropped.

use super::{
    PASSES_MAX,
    gate::Gate,
    kept::Kept,
    place::{self, Length, Place},
};
use crate::{
    mailbox::Mailbox,
    sync::{
        Condvar, Mutex, lock,
        thread::{self, JoinHandle},
    },
};
use lakebed::{Class, DiskRequest, Event, OpId};
use std::{
    collections::VecDeque,
    io,
    sync::{Arc, PoisonError},
};

/// An operation on its way.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) op: OpId,
    pub(super) class: Class,
    pub(super) request: DiskRequest,
}

impl Job {
    pub(super) const fn length(&self) -> Length {
        Length::of(&self.request)
    }
}

/// Where threads leave what has ended, for the driver to fetch.
pub(super) type Done = Mailbox<Event>;

#[derive(Default)]
struct Queue {
    /// One for each class.
    jobs: [VecDeque<Job>; 3],
    /// How many reads have passed what nobody waits for, since one of that began.
    passes: usize,
    closed: bool,
}

impl Queue {
    fn pop(&mut self) -> Option<Job> {
        let [commits, serves, background] = &mut self.jobs;
        let is_late = self.passes >= PASSES_MAX;
        let [first, second] = if is_late { [background, serves] } else { [serves, background] };
        let job = [commits, first, second].into_iter().find_map(VecDeque::pop_front)?;
        match job.class {
            Class::Background => self.passes = 0,
            Class::Serve if !self.jobs[Class::Background as usize].is_empty() => self.passes += 1,
            _ => {}
        }
        Some(job)
    }

    /// What does not wait for a long job of this class: whatever is more urgent, and what is shorter.
    /// Snapshots and compaction must not stand behind zeros: they are what saves us from writing
    /// more of those.
    fn pop_beside(&mut self, class: Class, length: Length) -> Option<Job> {
        let (urgent, equal) = self.jobs.split_at_mut(class as usize);
        let urgent = urgent.iter_mut().find_map(VecDeque::pop_front);
        urgent.or_else(|| {
            let jobs = equal.first_mut()?;
            jobs.remove(jobs.iter().position(|job| job.length() < length)?)
        })
    }
}

struct Shared {
    place: Arc<dyn Place>,
    queue: Mutex<Queue>,
    arrived: Condvar,
    gate: Arc<Gate>,
    done: Arc<Done>,
    kept: Mutex<Kept>,
}

/// The thread and its queue.
pub(super) struct Lane {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Lane {
    pub(super) fn new(
        name: &str,
        place: Arc<dyn Place>,
        gate: Arc<Gate>,
        done: Arc<Done>,
    ) -> io::Result<Self> {
        let (queue, arrived, kept) = Default::default();
        let shared = Arc::new(Shared { place, queue, arrived, gate, done, kept });
        let run = Arc::clone(&shared);
        let thread = thread::Builder::new().name(name.into()).spawn(move || run.run())?;
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
            let job = queue.pop();
            if job.is_some() || queue.closed {
                return job;
            }
            queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn perform(&self, Job { op, class, request }: Job) {
        let length = Length::of(&request);
        let mut before_piece = || self.let_pass(class, length);
        let result = place::perform(&*self.place, &self.kept, request, &mut before_piece);
        self.done.put(Event::Completed { op, result });
    }

    /// A large file takes long: what is urgent or shorter goes between its pieces, so much of it at most.
    fn let_pass(&self, class: Class, length: Length) {
        if class > Class::Commit {
            self.gate.await_pause();
        }
        for _ in 0..PASSES_MAX {
            let Some(job) = self.pop_beside(class, length) else { return };
            self.perform(job);
        }
    }

    fn pop_beside(&self, class: Class, length: Length) -> Option<Job> {
        lock(&self.queue).pop_beside(class, length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Ending;
    use lakebed::{Completion, DiskError, File};
    use std::sync::{
        Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };

    const PIECES: usize = 4;
    /// Behind so many reads there are none.
    const READS_MAX: usize = 10_000;

    /// A place where each read is followed by another.
    #[derive(Default)]
    struct Busy {
        lane: Mutex<Weak<Shared>>,
        reads: AtomicUsize,
        /// How many had gone before a new file was there.
        passed: AtomicUsize,
    }

    fn read() -> Job {
        let request = DiskRequest::Read { file: File::Segment(1), offset: 0, len: 1 };
        Job { op: OpId(1), class: Class::Serve, request }
    }

    impl Place for Busy {
        fn perform(&self, _: &DiskRequest) -> Ending {
            Ok(Completion::Done)
        }

        fn read(&self, _: File, _: u64, _: &mut [u8]) -> Result<usize, DiskError> {
            let lane = lock(&self.lane).upgrade().expect("it reads");
            if self.reads.fetch_add(1, Relaxed) < READS_MAX {
                lock(&lane.queue).jobs[Class::Serve as usize].push_back(read());
            }
            Ok(0)
        }

        fn create(&self, _: File, _: u64, before_piece: &mut dyn FnMut()) -> Ending {
            (0..PIECES).for_each(|_| before_piece());
            self.passed.store(self.reads.load(Relaxed), Relaxed);
            Ok(Completion::Done)
        }

        fn remove(&self, _: File, _: &mut dyn FnMut()) -> Ending {
            Ok(Completion::Done)
        }
    }

    /// A peer lags so far that it is read for as long as there is log: the segment that was asked for ahead
    /// was not begun before that was over, and once begun made no piece.
    #[test]
    fn a_new_file_is_made_while_a_peer_is_read_for() {
        let place = Arc::new(Busy::default());
        let (gate, done) = Default::default();
        let lane = Lane::new("test", Arc::clone(&place) as _, gate, done).expect("a thread");
        *lock(&place.lane) = Arc::downgrade(&lane.shared);
        let request = DiskRequest::Create { file: File::Spare(0), len: 4, zeroed: true };
        let mut queue = lock(&lane.shared.queue);
        queue.jobs[Class::Serve as usize].push_back(read());
        queue.jobs[Class::Background as usize].push_back(Job {
            op: OpId(2),
            class: Class::Background,
            request,
        });
        drop(queue);
        lane.shared.arrived.notify_one();
        drop(lane);
        assert_eq!(place.reads.load(Relaxed), READS_MAX + 1, "what was begun has ended");
        assert_eq!(place.passed.load(Relaxed), PASSES_MAX * (1 + PIECES));
    }
}
