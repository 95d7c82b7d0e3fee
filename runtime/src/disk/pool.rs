//! One disk for many groups: a few threads for commits and a few for what may wait, each of which
//! takes one group at a time.
//!
//! Of a group that has its turn all commits that gathered are written, then each of their files is
//! synced once. Groups have their turns beside each other, so their syncs meet in the device, and one
//! whose file hangs holds one thread. Knows no engine. Invariant: of one group one round of commits
//! and one other job are under way at most, and each operation ends once.

use super::{Ending, zeros};
use futures::task::AtomicWaker;
use lakebed::{Class, Completion, DiskRequest, File, GroupId, OpId, files::Directory};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::Waker,
    thread::{self, JoinHandle},
};

/// Threads that commit, and threads for everything else.
const THREADS: [usize; 2] = [4, 2];
const COMMITS: usize = 0;
const OTHERS: usize = 1;

type Job = (OpId, DiskRequest);

/// What a group waits for.
struct Seat {
    directory: Arc<Directory>,
    jobs: [VecDeque<Job>; 2],
    /// Whether a thread of each kind has its turn with it.
    is_served: [bool; 2],
}

#[derive(Default)]
struct State {
    seats: BTreeMap<GroupId, Seat>,
    /// Groups that have jobs of each kind and no thread yet; each once.
    ready: [VecDeque<GroupId>; 2],
    is_closed: bool,
}

impl State {
    /// Puts a group in line, if it has jobs and nobody serves it.
    fn line_up(&mut self, group: GroupId, kind: usize) -> bool {
        let Some(seat) = self.seats.get_mut(&group) else { return false };
        if seat.is_served[kind] || seat.jobs[kind].is_empty() {
            return false;
        }
        seat.is_served[kind] = true;
        self.ready[kind].push_back(group);
        true
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    arrived: [Condvar; 2],
    done: Mutex<Vec<(GroupId, OpId, Ending)>>,
    driver: AtomicWaker,
}

/// See the module.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    pub(crate) fn new() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut pool = Self { shared, threads: Vec::new() };
        for (kind, name) in [(COMMITS, "lakebed-commit"), (OTHERS, "lakebed-disk")] {
            for _ in 0..THREADS[kind] {
                let shared = Arc::clone(&pool.shared);
                let work = move || shared.work(kind);
                pool.threads.push(thread::Builder::new().name(name.into()).spawn(work)?);
            }
        }
        Ok(pool)
    }

    /// Takes in a group's directory.
    pub(crate) fn add(&self, group: GroupId, directory: Directory) {
        let seat = Seat {
            directory: Arc::new(directory),
            jobs: Default::default(),
            is_served: [false; 2],
        };
        lock(&self.shared.state).seats.insert(group, seat);
    }

    /// Lets go of a directory all of whose operations have ended: it is unlocked.
    pub(crate) fn forget(&self, group: GroupId) {
        lock(&self.shared.state).seats.remove(&group);
    }

    pub(crate) fn submit(&self, group: GroupId, op: OpId, class: Class, request: DiskRequest) {
        let is_long = matches!(request, DiskRequest::Create { .. });
        let kind = if class == Class::Commit && !is_long { COMMITS } else { OTHERS };
        let mut state = lock(&self.shared.state);
        if let Some(seat) = state.seats.get_mut(&group) {
            seat.jobs[kind].push_back((op, request));
        }
        if state.line_up(group, kind) {
            self.shared.arrived[kind].notify_one();
        }
    }

    /// What has ended since; wakes `waker` at the next.
    pub(crate) fn take(&self, waker: &Waker) -> Vec<(GroupId, OpId, Ending)> {
        self.shared.driver.register(waker);
        std::mem::take(&mut *lock(&self.shared.done))
    }
}

/// Waits until everything that was begun has ended.
impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared.state).is_closed = true;
        self.shared.arrived.iter().for_each(Condvar::notify_all);
        for thread in self.threads.drain(..) {
            // Its panic was reported where it happened.
            drop(thread.join());
        }
    }
}

impl Shared {
    fn work(&self, kind: usize) {
        while let Some((group, directory, jobs)) = self.next(kind) {
            let ended = if kind == COMMITS {
                commit(&directory, jobs)
            } else {
                jobs.into_iter().map(|(op, request)| (op, perform(&directory, request))).collect()
            };
            // Who hears of the last end may open the directory anew.
            drop(directory);
            let mut state = lock(&self.state);
            if let Some(seat) = state.seats.get_mut(&group) {
                seat.is_served[kind] = false;
            }
            if state.line_up(group, kind) {
                self.arrived[kind].notify_one();
            }
            drop(state);
            lock(&self.done).extend(ended.into_iter().map(|(op, ending)| (group, op, ending)));
            self.driver.wake();
        }
    }

    /// The next group's jobs: all its commits, or one of the others.
    fn next(&self, kind: usize) -> Option<(GroupId, Arc<Directory>, Vec<Job>)> {
        let mut state = lock(&self.state);
        loop {
            while let Some(group) = state.ready[kind].pop_front() {
                let Some(seat) = state.seats.get_mut(&group) else { continue };
                let count = if kind == COMMITS { seat.jobs[kind].len() } else { 1 };
                let jobs = seat.jobs[kind].drain(..count).collect();
                return Some((group, Arc::clone(&seat.directory), jobs));
            }
            if state.is_closed {
                return None;
            }
            state = self.arrived[kind].wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// All writes, then one sync for each file.
fn commit(directory: &Directory, jobs: Vec<Job>) -> Vec<(OpId, Ending)> {
    let mut syncs = BTreeMap::<File, Vec<OpId>>::new();
    let mut ended = Vec::new();
    for (op, request) in jobs {
        let (result, sync) = match request {
            DiskRequest::Write { file, at, and, durable } => {
                let write = DiskRequest::Write { file, at, and, durable: false };
                (directory.perform(&write), durable.then_some(file))
            }
            DiskRequest::Sync { file } => (Ok(Completion::Done), Some(file)),
            request => (directory.perform(&request), None),
        };
        match sync.filter(|_| result.is_ok()) {
            Some(file) => syncs.entry(file).or_default().push(op),
            None => ended.push((op, result)),
        }
    }
    for (file, ops) in syncs {
        let result = directory.perform(&DiskRequest::Sync { file });
        ended.extend(ops.into_iter().map(|op| (op, result.clone())));
    }
    ended
}

fn perform(directory: &Directory, request: DiskRequest) -> Ending {
    match request {
        DiskRequest::Create { file, len, .. } => {
            let fill = |new: &std::fs::File| zeros::fill(directory, file, new, len, || {});
            directory.create_with(file, fill).map(|()| Completion::Done)
        }
        request => directory.perform(&request),
    }
}

/// What is guarded here is whole at every instant, whoever panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
