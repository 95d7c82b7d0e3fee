//! One disk for many groups: a few threads for commits, a few for what may wait, and a few for the
//! syncs of snapshots, each of which takes one group at a time.
//!
//! What is asked for between two flushes begins together. Of a group that has its turn all commits
//! that gathered are written, then each of their files is synced once. Groups have their turns beside
//! each other, so their syncs meet in the device, and one whose file hangs holds one thread. What may
//! wait is done by its urgency, and what nobody waits for never has all threads: a new segment for a
//! commit, or a read for a peer, finds one. Nor do reads that follow one another without end keep it
//! waiting. Knows no engine.
//! Invariant: of one group one turn of each line is under way at most, and each operation ends once.

use super::{
    Ending, PASSES_MAX,
    kept::Kept,
    place::{self, Length, Place, is_snapshot_sync, perform_short},
};
use crate::{
    mailbox::Mailbox,
    sync::{
        Condvar, Mutex, lock,
        thread::{self, JoinHandle},
    },
};
use lakebed::{Class, Completion, DiskRequest, File, GroupId, OpId};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    ops::Range,
    sync::{Arc, PoisonError},
    task::Waker,
};

/// What groups stand in line for, the most urgent first.
const COMMITS: usize = 0;
/// New files that a commit waits for, and old ones.
const CREATES: usize = 1;
const SERVES: usize = 2;
const BACKGROUND: usize = 3;
/// Takes long, so it has threads of its own: new segments are asked for in the background too, and a
/// commit waits for one that stands behind a snapshot.
const SNAPSHOTS: usize = 4;
const LINES: usize = 5;

/// Threads that look after the same lines.
struct Crew {
    name: &'static str,
    threads: usize,
    lines: Range<usize>,
}

const CREWS: [Crew; 3] = [
    Crew { name: "lakebed-commit", threads: few_or(1, 4), lines: COMMITS..CREATES },
    Crew { name: "lakebed-disk", threads: few_or(2, 3), lines: CREATES..SNAPSHOTS },
    Crew { name: "lakebed-sync", threads: few_or(0, 2), lines: SNAPSHOTS..LINES },
];

/// `loom` can tell everything of few threads only.
const fn few_or(few: usize, threads: usize) -> usize {
    if cfg!(lakebed_loom) { few } else { threads }
}

/// How many of its crew may be at what nobody waits for: one always is at hand for the rest.
const BACKGROUND_MAX: usize = CREWS[crew_of(BACKGROUND)].threads - 1;

const fn crew_of(line: usize) -> usize {
    match line {
        COMMITS => 0,
        SNAPSHOTS => 2,
        _ => 1,
    }
}

const fn line_of(class: Class, request: &DiskRequest) -> usize {
    match class {
        _ if is_snapshot_sync(request) => SNAPSHOTS,
        Class::Commit if !matches!(Length::of(request), Length::Short) => CREATES,
        Class::Commit => COMMITS,
        Class::Serve => SERVES,
        Class::Background => BACKGROUND,
    }
}

type Job = (OpId, DiskRequest);

/// What a group waits for.
struct Seat {
    place: Arc<dyn Place>,
    jobs: [VecDeque<Job>; LINES],
    /// Whether it stands in this line, or has its turn.
    is_served: [bool; LINES],
}

/// A group's jobs of one line, in the hands of a thread.
struct Turn {
    group: GroupId,
    line: usize,
    place: Arc<dyn Place>,
    jobs: Vec<Job>,
}

#[derive(Default)]
struct State {
    seats: BTreeMap<GroupId, Seat>,
    /// Groups that have jobs of each line and no thread yet; each once.
    ready: [VecDeque<GroupId>; LINES],
    /// How many threads are at what nobody waits for.
    in_background: usize,
    /// How many turns have passed what nobody waits for, since it had one.
    passes: usize,
    /// How many threads of each crew have nothing to do.
    idle: [usize; CREWS.len()],
    is_closed: bool,
}

impl State {
    /// Puts a group in line, if it has jobs and nobody serves it.
    fn line_up(&mut self, group: GroupId, line: usize) -> bool {
        let Some(seat) = self.seats.get_mut(&group) else { return false };
        if seat.is_served[line] || seat.jobs[line].is_empty() {
            return false;
        }
        seat.is_served[line] = true;
        self.ready[line].push_back(group);
        true
    }

    /// The next turn of the most urgent of these lines, or of what has waited for too many of them.
    fn take(&mut self, lines: Range<usize>) -> Option<Turn> {
        let may_be_late = lines.contains(&BACKGROUND) && self.ready[CREATES].is_empty();
        let late = (may_be_late && self.passes >= PASSES_MAX).then_some(BACKGROUND);
        let turn = late.into_iter().chain(lines).find_map(|line| self.first_of(line))?;
        match turn.line {
            BACKGROUND => self.passes = 0,
            SERVES if !self.ready[BACKGROUND].is_empty() => self.passes += 1,
            _ => {}
        }
        Some(turn)
    }

    fn first_of(&mut self, line: usize) -> Option<Turn> {
        while let Some(group) = self.ready[line].pop_front() {
            let turn = self.begin(group, line);
            if turn.is_some() {
                return turn;
            }
        }
        None
    }

    /// What does not wait for zeros or a removal of this line: whatever is more urgent, and what is shorter.
    /// Snapshots and compaction are what saves us from writing more zeros. Left to a thread that has nothing
    /// to do, if one may take it: should it hang, what is long hangs with it.
    fn take_beside(&mut self, line: usize, length: Length) -> Option<Turn> {
        let is_anybody_idle = self.idle[crew_of(line)] > 0;
        if !is_anybody_idle && let Some(turn) = self.take(CREATES..line) {
            return Some(turn);
        }
        if is_anybody_idle && self.in_background < BACKGROUND_MAX {
            return None;
        }
        let next = |group: &GroupId| self.seats.get(group).and_then(|seat| seat.jobs[line].front());
        let is_shorter = |group| next(group).is_some_and(|(_, next)| Length::of(next) < length);
        let at = self.ready[line].iter().position(is_shorter)?;
        let group = self.ready[line].remove(at)?;
        self.begin(group, line)
    }

    /// All its commits, or one of anything else; `None`: the group has gone.
    fn begin(&mut self, group: GroupId, line: usize) -> Option<Turn> {
        let seat = self.seats.get_mut(&group)?;
        let count = if line == COMMITS { seat.jobs[line].len() } else { 1 };
        let jobs = seat.jobs[line].drain(..count).collect();
        Some(Turn { group, line, place: Arc::clone(&seat.place), jobs })
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// One for each crew.
    arrived: [Condvar; CREWS.len()],
    done: Mailbox<(GroupId, OpId, Ending)>,
    /// Of all groups together.
    kept: Mutex<Kept>,
}

/// See the module.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    /// What waits for the flush.
    pending: Vec<(GroupId, usize, Job)>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    pub(crate) fn new() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut pool = Self { shared, pending: Vec::new(), threads: Vec::new() };
        for (crew, Crew { name, threads, .. }) in CREWS.into_iter().enumerate() {
            for _ in 0..threads {
                let shared = Arc::clone(&pool.shared);
                let work = move || shared.work(crew);
                pool.threads.push(thread::Builder::new().name(name.into()).spawn(work)?);
            }
        }
        Ok(pool)
    }

    /// Takes in a group's directory.
    pub(crate) fn add(&self, group: GroupId, place: impl Place) {
        let (jobs, is_served) = Default::default();
        let seat = Seat { place: Arc::new(place), jobs, is_served };
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

    /// Takes an operation of a group, which begins with the next [`flush`](Self::flush).
    pub(crate) fn submit(&mut self, group: GroupId, op: OpId, class: Class, request: DiskRequest) {
        self.pending.push((group, line_of(class, &request), (op, request)));
    }

    /// Begins everything that was submitted, by waking no more threads than have nothing to do: the others
    /// look for themselves, and a wake that finds nobody is a system call too.
    pub(crate) fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let mut wakes = [0; CREWS.len()];
        let mut state = lock(&self.shared.state);
        for (group, line, job) in self.pending.drain(..) {
            if let Some(seat) = state.seats.get_mut(&group) {
                seat.jobs[line].push_back(job);
            }
            wakes[crew_of(line)] += usize::from(state.line_up(group, line));
        }
        let idle = state.idle;
        drop(state);
        for ((wakes, idle), arrived) in wakes.into_iter().zip(idle).zip(&self.shared.arrived) {
            (0..wakes.min(idle)).for_each(|_| arrived.notify_one());
        }
    }

    /// Waits until everything that was begun has ended, and lets go of all directories.
    pub(crate) fn close(&mut self) {
        lock(&self.shared.state).is_closed = true;
        self.shared.arrived.iter().for_each(Condvar::notify_all);
        for thread in self.threads.drain(..) {
            // Its panic was reported where it happened.
            drop(thread.join());
        }
        lock(&self.shared.state).seats.clear();
    }

    /// What has ended since; wakes `waker` at the next.
    pub(crate) fn take(&self, waker: &Waker) -> Vec<(GroupId, OpId, Ending)> {
        let mut ended = Vec::new();
        self.shared.done.take(waker, &mut ended);
        ended
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn work(&self, crew: usize) {
        while let Some(turn) = self.next(crew) {
            let is_background = turn.line == BACKGROUND;
            self.serve(turn);
            if is_background {
                self.leave_background();
            }
        }
    }

    fn next(&self, crew: usize) -> Option<Turn> {
        let mut state = lock(&self.state);
        loop {
            let Range { start, mut end } = CREWS[crew].lines;
            if end > BACKGROUND && start < BACKGROUND && state.in_background == BACKGROUND_MAX {
                end = BACKGROUND;
            }
            if let Some(turn) = state.take(start..end) {
                state.in_background += usize::from(turn.line == BACKGROUND);
                return Some(turn);
            }
            if state.is_closed {
                return None;
            }
            state.idle[crew] += 1;
            state = self.arrived[crew].wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle[crew] -= 1;
        }
    }

    /// Whoever looked meanwhile was sent away.
    fn leave_background(&self) {
        let mut state = lock(&self.state);
        state.in_background -= 1;
        if !state.ready[BACKGROUND].is_empty() {
            self.arrived[crew_of(BACKGROUND)].notify_one();
        }
    }

    fn serve(&self, Turn { group, line, place, jobs }: Turn) {
        let last = if line == COMMITS {
            commit(&*place, jobs, |ended| self.tell(group, ended))
        } else {
            let perform = |(op, request)| (op, self.perform(&*place, request, line));
            jobs.into_iter().map(perform).collect()
        };
        // Who hears of the last end may open the directory anew.
        drop(place);
        let mut state = lock(&self.state);
        if let Some(seat) = state.seats.get_mut(&group) {
            seat.is_served[line] = false;
        }
        let is_next = state.line_up(group, line);
        drop(state);
        // Of commits this thread takes the next turn itself; of anything else it may be at a new file.
        if is_next && line != COMMITS {
            self.arrived[crew_of(line)].notify_one();
        }
        self.tell(group, last);
    }

    fn perform(&self, place: &dyn Place, request: DiskRequest, line: usize) -> Ending {
        let length = Length::of(&request);
        let mut before_piece = || {
            for _ in 0..PASSES_MAX {
                let Some(turn) = self.take_beside(line, length) else { break };
                self.serve(turn);
            }
        };
        place::perform(place, &self.kept, request, &mut before_piece)
    }

    fn take_beside(&self, line: usize, length: Length) -> Option<Turn> {
        lock(&self.state).take_beside(line, length)
    }

    fn tell(&self, group: GroupId, ended: Vec<(OpId, Ending)>) {
        self.done.put_all(ended.into_iter().map(|(op, ending)| (group, op, ending)));
    }
}

/// All writes, then one sync for each file. Tells what has ended while others have not; the last are
/// handed back.
fn commit(
    place: &dyn Place,
    jobs: Vec<Job>,
    mut tell: impl FnMut(Vec<(OpId, Ending)>),
) -> Vec<(OpId, Ending)> {
    let mut syncs = BTreeMap::<File, Vec<OpId>>::new();
    let mut ended = Vec::new();
    for (op, request) in jobs {
        let (result, sync) = match request {
            DiskRequest::Write { file, at, and, durable } => {
                let write = DiskRequest::Write { file, at, and, durable: false };
                (perform_short(place, &write), durable.then_some(file))
            }
            DiskRequest::Sync { file } => (Ok(Completion::Done), Some(file)),
            request => (perform_short(place, &request), None),
        };
        match sync.filter(|_| result.is_ok()) {
            Some(file) => syncs.entry(file).or_default().push(op),
            None => ended.push((op, result)),
        }
    }
    for (file, ops) in syncs {
        if !ended.is_empty() {
            tell(std::mem::take(&mut ended));
        }
        let result = perform_short(place, &DiskRequest::Sync { file });
        ended.extend(ops.into_iter().map(|op| (op, result.clone())));
    }
    ended
}

#[cfg(test)]
mod tests;
