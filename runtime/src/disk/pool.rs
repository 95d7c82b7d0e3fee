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

/// Where a group's bytes are: its directory, or what stands for one in a test.
pub(crate) trait Place: Send + Sync + 'static {
    /// Performs a request, and returns when it has ended.
    fn perform(&self, request: &DiskRequest) -> Ending;

    /// Makes a file of this many zeros.
    fn create(&self, file: File, len: u64) -> Ending;
}

impl Place for Directory {
    fn perform(&self, request: &DiskRequest) -> Ending {
        Self::perform(self, request)
    }

    fn create(&self, file: File, len: u64) -> Ending {
        let fill = |new: &std::fs::File| zeros::fill(self, file, new, len, || {});
        self.create_with(file, fill).map(|()| Completion::Done)
    }
}

/// What a group waits for.
struct Seat {
    place: Arc<dyn Place>,
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
    pub(crate) fn add(&self, group: GroupId, place: impl Place) {
        let seat = Seat { place: Arc::new(place), jobs: Default::default(), is_served: [false; 2] };
        lock(&self.shared.state).seats.insert(group, seat);
    }

    /// Puts something before a group's directory, from its next operation on.
    #[cfg(test)]
    pub(crate) fn wrap<P: Place>(&self, group: GroupId, wrap: impl FnOnce(Arc<dyn Place>) -> P) {
        let mut state = lock(&self.shared.state);
        let seat = state.seats.get_mut(&group).expect("the group is here");
        let place = Arc::clone(&seat.place);
        seat.place = Arc::new(wrap(place));
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
        while let Some((group, place, jobs)) = self.next(kind) {
            let ended = if kind == COMMITS {
                commit(&*place, jobs)
            } else {
                jobs.into_iter().map(|(op, request)| (op, perform(&*place, request))).collect()
            };
            // Who hears of the last end may open the directory anew.
            drop(place);
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
    fn next(&self, kind: usize) -> Option<(GroupId, Arc<dyn Place>, Vec<Job>)> {
        let mut state = lock(&self.state);
        loop {
            while let Some(group) = state.ready[kind].pop_front() {
                let Some(seat) = state.seats.get_mut(&group) else { continue };
                let count = if kind == COMMITS { seat.jobs[kind].len() } else { 1 };
                let jobs = seat.jobs[kind].drain(..count).collect();
                return Some((group, Arc::clone(&seat.place), jobs));
            }
            if state.is_closed {
                return None;
            }
            state = self.arrived[kind].wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// All writes, then one sync for each file.
fn commit(place: &dyn Place, jobs: Vec<Job>) -> Vec<(OpId, Ending)> {
    let mut syncs = BTreeMap::<File, Vec<OpId>>::new();
    let mut ended = Vec::new();
    for (op, request) in jobs {
        let (result, sync) = match request {
            DiskRequest::Write { file, at, and, durable } => {
                let write = DiskRequest::Write { file, at, and, durable: false };
                (place.perform(&write), durable.then_some(file))
            }
            DiskRequest::Sync { file } => (Ok(Completion::Done), Some(file)),
            request => (place.perform(&request), None),
        };
        match sync.filter(|_| result.is_ok()) {
            Some(file) => syncs.entry(file).or_default().push(op),
            None => ended.push((op, result)),
        }
    }
    for (file, ops) in syncs {
        let result = place.perform(&DiskRequest::Sync { file });
        ended.extend(ops.into_iter().map(|op| (op, result.clone())));
    }
    ended
}

fn perform(place: &dyn Place, request: DiskRequest) -> Ending {
    match request {
        DiskRequest::Create { file, len, .. } => place.create(file, len),
        request => place.perform(&request),
    }
}

/// What is guarded here is whole at every instant, whoever panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        collections::BTreeSet,
        future::poll_fn,
        sync::mpsc::{Receiver, Sender, channel},
        task::Poll,
    };

    /// A place whose syncs end when they are let, each of which is told.
    struct Held {
        begun: Sender<GroupId>,
        group: GroupId,
        gate: Option<Mutex<Receiver<()>>>,
    }

    impl Place for Held {
        fn perform(&self, request: &DiskRequest) -> Ending {
            if matches!(request, DiskRequest::Sync { .. }) {
                // The test may be over.
                let _ = self.begun.send(self.group);
                if let Some(gate) = &self.gate {
                    // Until the test lets it, or is over.
                    let _ = lock(gate).recv();
                }
            }
            Ok(Completion::Done)
        }

        fn create(&self, _: File, _: u64) -> Ending {
            Ok(Completion::Done)
        }
    }

    fn sync(pool: &Pool, group: u64, op: u64) {
        let request = DiskRequest::Sync { file: File::HardState };
        pool.submit(GroupId(group), OpId(op), Class::Commit, request);
    }

    /// Waits until so many operations have ended.
    async fn ended(pool: &Pool, count: usize) -> BTreeSet<(u64, u64)> {
        let mut all = BTreeSet::new();
        poll_fn(|cx| {
            let news = pool.take(cx.waker());
            all.extend(news.into_iter().map(|(group, op, _)| (group.0, op.0)));
            if all.len() >= count { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        all
    }

    /// A pool with groups of which some hang, and what lets those go.
    fn pool_of(hanging: u64, groups: u64) -> (Pool, Vec<Sender<()>>, Receiver<GroupId>) {
        let pool = Pool::new().unwrap();
        let (begun, begins) = channel();
        let mut gates = Vec::new();
        for group in (1..=groups).map(GroupId) {
            let gate = (group.0 <= hanging).then(|| {
                let (open, gate) = channel();
                gates.push(open);
                Mutex::new(gate)
            });
            pool.add(group, Held { begun: begun.clone(), group, gate });
        }
        (pool, gates, begins)
    }

    #[tokio::test]
    async fn groups_that_hang_leave_the_others_their_threads() {
        let (pool, gates, begins) = pool_of(3, 40);
        for group in 1..=3 {
            sync(&pool, group, 1);
            sync(&pool, group, 2);
        }
        let hanging: BTreeSet<_> = (0..3).map(|_| begins.recv().unwrap().0).collect();
        assert_eq!(hanging, BTreeSet::from([1, 2, 3]), "each holds a thread, and one only");
        for op in 1..=50 {
            (4..=40).for_each(|group| sync(&pool, group, op));
        }
        let others = ended(&pool, 37 * 50).await;
        assert!(others.iter().all(|(group, _)| *group > 3));
        drop(gates);
        let late = ended(&pool, 6).await;
        assert_eq!(late, (1..=3).flat_map(|group| [(group, 1), (group, 2)]).collect());
    }

    #[tokio::test]
    async fn commits_that_gather_while_a_file_is_synced_share_the_next_sync() {
        let (pool, gates, begins) = pool_of(1, 1);
        sync(&pool, 1, 1);
        begins.recv().unwrap();
        (2..=100).for_each(|op| sync(&pool, 1, op));
        gates[0].send(()).unwrap();
        gates[0].send(()).unwrap();
        ended(&pool, 100).await;
        assert_eq!(begins.try_iter().count(), 1);
    }

    #[test]
    fn what_was_begun_has_ended_when_the_pool_is_dropped() {
        let (pool, gates, begins) = pool_of(1, 1);
        sync(&pool, 1, 1);
        begins.recv().unwrap();
        drop(gates);
        let shared = Arc::clone(&pool.shared);
        drop(pool);
        assert_eq!(lock(&shared.done).len(), 1);
    }
}
