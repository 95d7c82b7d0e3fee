//! Who has a thread when others hang, and what begins and ends together.

use super::{
    super::noted::{AT_ONCE, noted, round},
    *,
};
use bytes::Bytes;
use lakebed::{DiskError, Extent, LogId, SnapshotId};
use std::{
    collections::BTreeSet,
    future::poll_fn,
    sync::{
        Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, Sender, channel},
    },
    task::Poll,
    time::Duration,
};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

/// A place whose syncs end when they are let, each of which is told.
struct Held {
    begun: Sender<GroupId>,
    group: GroupId,
    gate: Option<Mutex<Receiver<()>>>,
}

impl Held {
    fn wait(&self) {
        // The test may be over.
        let _ = self.begun.send(self.group);
        if let Some(gate) = &self.gate {
            // Until the test lets it, or is over.
            let _ = lock(gate).recv();
        }
    }
}

impl Place for Held {
    fn perform(&self, request: &DiskRequest) -> Ending {
        if matches!(request, DiskRequest::Sync { .. }) {
            self.wait();
        }
        Ok(Completion::Done)
    }

    fn read(&self, _: File, _: u64, _: &mut [u8]) -> Result<usize, DiskError> {
        Ok(0)
    }

    /// One of zeros has a piece before it is let, and one behind that.
    fn create(&self, _: File, len: u64, before_piece: &mut dyn FnMut()) -> Ending {
        if len > 1 {
            self.wait();
        }
        before_piece();
        Ok(Completion::Done)
    }

    fn remove(&self, _: File, before_piece: &mut dyn FnMut()) -> Ending {
        self.wait();
        before_piece();
        Ok(Completion::Done)
    }
}

impl Pool {
    /// Takes an operation, and begins it.
    fn begin(&mut self, group: GroupId, op: OpId, class: Class, request: DiskRequest) {
        self.submit(group, op, class, request);
        self.flush();
    }
}

const SYNC: DiskRequest = DiskRequest::Sync { file: File::HardState };

fn sync(pool: &mut Pool, group: u64, op: u64) {
    pool.begin(GroupId(group), OpId(op), Class::Commit, SYNC);
}

/// Waits until so many operations have ended.
async fn ended(pool: &Pool, count: usize) -> BTreeSet<(u64, u64)> {
    in_order(pool, count).await.into_iter().collect()
}

async fn in_order(pool: &Pool, count: usize) -> Vec<(u64, u64)> {
    let mut all = Vec::new();
    let ends = poll_fn(|cx| {
        let news = pool.take(cx.waker());
        all.extend(news.into_iter().map(|(group, op, _)| (group.0, op.0)));
        if all.len() >= count { Poll::Ready(()) } else { Poll::Pending }
    });
    timeout(PATIENCE, ends).await.expect("waited in vain");
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

const PART: File = File::Part(LogId::ZERO, SnapshotId(1));

/// A piece that does not wait, and one that is let.
const QUICK: u64 = 1;
const HELD: u64 = 2;

const fn create(len: u64) -> DiskRequest {
    DiskRequest::Create { file: File::Spare(0), len, zeroed: true }
}

const fn read() -> DiskRequest {
    DiskRequest::Read { file: File::Segment(1), offset: 0, len: 1 }
}

/// A log that needs its next segment would wait as long as the snapshot's last sync takes, and so
/// would every client. The segment was asked for in the background, or nobody had yet.
#[tokio::test]
async fn nothing_stands_behind_the_syncs_of_snapshots() {
    let (mut pool, gates, begins) = pool_of(3, 4);
    for group in 1..=3 {
        let request = DiskRequest::Sync { file: PART };
        pool.begin(GroupId(group), OpId(1), Class::Background, request);
    }
    begins.recv().unwrap();
    begins.recv().unwrap();
    for group in [1, 3, 4].map(GroupId) {
        pool.begin(group, OpId(2), Class::Commit, create(QUICK));
        pool.begin(group, OpId(3), Class::Serve, read());
        pool.begin(group, OpId(4), Class::Background, create(QUICK));
    }
    let all = |group| [2, 3, 4].map(|op| (group, op));
    assert_eq!(ended(&pool, 9).await, [1, 3, 4].into_iter().flat_map(all).collect());
    drop(gates);
    assert_eq!(ended(&pool, 3).await, (1..=3).map(|group| (group, 1)).collect());
}

#[tokio::test]
async fn what_nobody_waits_for_never_has_all_threads() {
    let (mut pool, gates, begins) = pool_of(8, 9);
    for group in 1..=8 {
        pool.begin(GroupId(group), OpId(1), Class::Background, create(HELD));
    }
    (0..BACKGROUND_MAX).for_each(|_| assert!(begins.recv().is_ok()));
    pool.begin(GroupId(9), OpId(2), Class::Commit, create(QUICK));
    pool.begin(GroupId(9), OpId(3), Class::Serve, read());
    assert_eq!(ended(&pool, 2).await, BTreeSet::from([(9, 2), (9, 3)]));
    assert_eq!(begins.try_iter().count(), 0);
    drop(gates);
    ended(&pool, 8).await;
}

/// A thread that has nothing to do takes it, so that the zeros do not hang with it.
#[tokio::test]
async fn what_is_urgent_and_hangs_leaves_the_zeros_of_others_alone() {
    let (mut pool, gates, begins) = pool_of(2, 2);
    pool.begin(GroupId(1), OpId(1), Class::Background, create(HELD));
    begins.recv().unwrap();
    // The others may not have begun.
    while lock(&pool.shared.state).idle[1] < CREWS[1].threads - 1 {
        thread::yield_now();
    }
    pool.begin(GroupId(2), OpId(2), Class::Commit, create(HELD));
    gates[0].send(()).unwrap();
    assert_eq!(in_order(&pool, 1).await, [(1, 1)]);
    drop(gates);
    ended(&pool, 1).await;
}

/// Whoever else would perform it hangs.
#[tokio::test]
async fn what_is_urgent_goes_between_the_pieces_of_what_is_not() {
    let (mut pool, gates, begins) = pool_of(CREWS[1].threads as u64, 9);
    let first = GroupId(1);
    pool.begin(first, OpId(1), Class::Background, create(HELD));
    begins.recv().unwrap();
    for group in 2..=CREWS[1].threads as u64 {
        pool.begin(GroupId(group), OpId(1), Class::Commit, create(HELD));
        begins.recv().unwrap();
    }
    pool.begin(GroupId(8), OpId(2), Class::Commit, create(QUICK));
    pool.begin(GroupId(9), OpId(3), Class::Serve, read());
    pool.begin(GroupId(9), OpId(4), Class::Background, read());
    gates[0].send(()).unwrap();
    let order: Vec<_> = in_order(&pool, 4).await;
    assert_eq!(order, [(8, 2), (9, 3), (9, 4), (1, 1)]);
    drop(gates);
    ended(&pool, CREWS[1].threads - 1).await;
}

/// Zeros are shorter: a commit may wait for them.
#[tokio::test]
async fn zeros_go_between_the_pieces_of_a_removal() {
    let crew = CREWS[1].threads as u64;
    let (mut pool, gates, begins) = pool_of(crew, 9);
    let remove = || DiskRequest::Remove { file: PART };
    pool.begin(GroupId(1), OpId(1), Class::Background, remove());
    begins.recv().unwrap();
    for group in 2..=crew {
        pool.begin(GroupId(group), OpId(1), Class::Commit, create(HELD));
        begins.recv().unwrap();
    }
    pool.begin(GroupId(8), OpId(2), Class::Background, create(QUICK));
    gates[0].send(()).unwrap();
    assert_eq!(in_order(&pool, 2).await, [(8, 2), (1, 1)]);
    drop(gates);
    ended(&pool, CREWS[1].threads - 1).await;
}

/// What is done is told, whatever the next file takes.
#[tokio::test]
async fn a_commit_does_not_wait_for_those_of_other_files() {
    let (mut pool, gates, begins) = pool_of(1, 1);
    sync(&mut pool, 1, 1);
    begins.recv().unwrap();
    // A round of them gathers behind that sync.
    let at = Extent::new(0, Bytes::new());
    for (op, file, durable) in
        [(2, File::Segment(1), false), (3, File::HardState, true), (4, File::Segment(1), true)]
    {
        let request = DiskRequest::Write { file, at: at.clone(), and: None, durable };
        pool.begin(GroupId(1), OpId(op), Class::Commit, request);
    }
    gates[0].send(()).unwrap();
    assert_eq!(ended(&pool, 2).await, BTreeSet::from([(1, 1), (1, 2)]));
    begins.recv().unwrap();
    gates[0].send(()).unwrap();
    assert_eq!(ended(&pool, 1).await, BTreeSet::from([(1, 3)]));
    gates[0].send(()).unwrap();
    assert_eq!(ended(&pool, 1).await, BTreeSet::from([(1, 4)]));
}

#[tokio::test]
async fn groups_that_hang_leave_the_others_their_threads() {
    let (mut pool, gates, begins) = pool_of(3, 40);
    for group in 1..=3 {
        sync(&mut pool, group, 1);
        sync(&mut pool, group, 2);
    }
    let hanging: BTreeSet<_> = (0..3).map(|_| begins.recv().unwrap().0).collect();
    assert_eq!(hanging, BTreeSet::from([1, 2, 3]), "each holds a thread, and one only");
    for op in 1..=50 {
        (4..=40).for_each(|group| sync(&mut pool, group, op));
    }
    let others = ended(&pool, 37 * 50).await;
    assert!(others.iter().all(|(group, _)| *group > 3));
    drop(gates);
    let late = ended(&pool, 6).await;
    assert_eq!(late, (1..=3).flat_map(|group| [(group, 1), (group, 2)]).collect());
}

#[tokio::test]
async fn commits_that_gather_while_a_file_is_synced_share_the_next_sync() {
    let (mut pool, gates, begins) = pool_of(1, 1);
    sync(&mut pool, 1, 1);
    begins.recv().unwrap();
    (2..=100).for_each(|op| sync(&mut pool, 1, op));
    gates[0].send(()).unwrap();
    gates[0].send(()).unwrap();
    ended(&pool, 100).await;
    assert_eq!(begins.try_iter().count(), 1);
}

/// A thread began with the first, and what the same turn asked for behind it had a sync of its own.
#[tokio::test]
async fn what_a_turn_asks_for_begins_together() {
    let (mut pool, gates, begins) = pool_of(1, 1);
    for op in 1..=3 {
        pool.submit(GroupId(1), OpId(op), Class::Commit, SYNC);
        assert!(!lock(&pool.shared.state).seats[&GroupId(1)].is_served[COMMITS]);
    }
    pool.flush();
    drop(gates);
    assert_eq!(ended(&pool, 3).await, (1..=3).map(|op| (1, op)).collect());
    assert_eq!(begins.try_iter().count(), 1);
}

/// What a sync has not made durable yet is not told, nor what it could not.
#[tokio::test]
async fn a_durable_write_has_ended_when_a_later_sync_of_its_file_has() {
    let (place, begins, open) = noted();
    let mut pool = Pool::new().unwrap();
    pool.add(GroupId(1), place.clone());
    for (op, request) in round() {
        pool.submit(GroupId(1), OpId(op), Class::Commit, request);
    }
    pool.flush();
    begins.recv().unwrap();
    let mut endings = BTreeMap::new();
    let mut take = |waker: &Waker| {
        for (_, op, ending) in pool.take(waker) {
            assert!(endings.insert(op.0, ending).is_none(), "{op} ended twice");
        }
        endings.clone()
    };
    assert!(take(Waker::noop()).into_keys().eq(AT_ONCE));
    drop(open);
    let ends = poll_fn(|cx| {
        let endings = take(cx.waker());
        if endings.len() < round().len() { Poll::Pending } else { Poll::Ready(endings) }
    });
    place.judge(&timeout(PATIENCE, ends).await.expect("waited in vain"));
}

/// A place where nothing but reads is known.
struct Broken;

impl Place for Broken {
    fn perform(&self, request: &DiskRequest) -> Ending {
        panic!("{request:?} is not known here")
    }

    fn read(&self, _: File, _: u64, _: &mut [u8]) -> Result<usize, DiskError> {
        Ok(0)
    }

    fn create(&self, _: File, _: u64, _: &mut dyn FnMut()) -> Ending {
        panic!("no file is made here")
    }

    fn remove(&self, _: File, _: &mut dyn FnMut()) -> Ending {
        panic!("no file is removed here")
    }
}

/// Each took its thread along: after four there were no commits any more, in no group.
#[tokio::test]
async fn an_operation_that_panics_fails_and_leaves_its_thread_to_others() {
    let (mut pool, _gates, _begins) = pool_of(0, 1);
    pool.add(GroupId(2), Broken);
    for op in 1..=8 {
        sync(&mut pool, 2, op);
        let create = DiskRequest::Create { file: File::Spare(0), len: 1, zeroed: true };
        pool.begin(GroupId(2), OpId(100 + op), Class::Background, create);
        assert_eq!(ended(&pool, 2).await, [(2, op), (2, 100 + op)].into());
    }
    sync(&mut pool, 1, 1);
    assert_eq!(ended(&pool, 1).await, [(1, 1)].into());
}

#[test]
fn what_was_begun_has_ended_when_the_pool_is_dropped() {
    let (mut pool, gates, begins) = pool_of(1, 1);
    sync(&mut pool, 1, 1);
    begins.recv().unwrap();
    drop(gates);
    let shared = Arc::clone(&pool.shared);
    drop(pool);
    assert_eq!(shared.done.take(Waker::noop(), &mut Vec::new()), 1);
}

/// Whoever reads for a peer asks for the next piece when it has one: among several groups there is always one
/// that waits.
#[test]
fn what_nobody_waits_for_has_its_turn_while_peers_are_read_for() {
    let (begun, _begins) = channel();
    let mut state = State::default();
    let ask = |state: &mut State, group, line: usize| {
        let seat = state.seats.get_mut(&group).unwrap();
        seat.is_served[line] = false;
        seat.jobs[line].push_back((OpId(0), read()));
        assert!(state.line_up(group, line));
    };
    let groups = [1, 2, 3].map(GroupId);
    for group in groups {
        let place = Arc::new(Held { begun: begun.clone(), group, gate: None });
        let seat = Seat { place, jobs: Default::default(), is_served: [false; LINES] };
        state.seats.insert(group, seat);
    }
    groups.iter().for_each(|group| ask(&mut state, *group, SERVES));
    groups.iter().for_each(|group| ask(&mut state, *group, BACKGROUND));
    let mut lines = Vec::new();
    while lines.iter().filter(|line| **line == BACKGROUND).count() < groups.len() {
        let turn = state.take(CREATES..SNAPSHOTS).unwrap();
        lines.push(turn.line);
        if turn.line == SERVES {
            ask(&mut state, turn.group, SERVES);
        }
        assert!(lines.len() < 1000, "it waited in vain");
    }
    let one = [vec![SERVES; PASSES_MAX], vec![BACKGROUND]].concat();
    assert_eq!(lines, one.repeat(groups.len()));
    // All threads that it may have are at it.
    ask(&mut state, groups[0], BACKGROUND);
    let turns = (0..100).map(|_| {
        let turn = state.take(CREATES..BACKGROUND).unwrap();
        ask(&mut state, turn.group, SERVES);
        turn.line
    });
    assert!(turns.collect::<Vec<_>>().iter().all(|line| *line == SERVES));
    ask(&mut state, groups[1], CREATES);
    let next = |state: &mut State| state.take(CREATES..SNAPSHOTS).unwrap().line;
    assert_eq!([next(&mut state), next(&mut state)], [CREATES, BACKGROUND]);
}

/// A place where each read of a group is followed by another, as long as there are any left.
struct Busy {
    group: GroupId,
    pool: Weak<Shared>,
    left: Arc<AtomicUsize>,
}

impl Place for Busy {
    fn perform(&self, _: &DiskRequest) -> Ending {
        Ok(Completion::Done)
    }

    fn read(&self, _: File, _: u64, _: &mut [u8]) -> Result<usize, DiskError> {
        let pool = self.pool.upgrade().expect("it reads");
        if self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
            let mut state = lock(&pool.state);
            let seat = state.seats.get_mut(&self.group).expect("it is here");
            seat.jobs[SERVES].push_back((OpId(0), read()));
        }
        Ok(0)
    }

    fn create(&self, _: File, _: u64, before_piece: &mut dyn FnMut()) -> Ending {
        (0..4).for_each(|_| before_piece());
        assert!(self.left.load(Relaxed) > 0, "it was made when nobody was read for any more");
        Ok(Completion::Done)
    }

    fn remove(&self, _: File, _: &mut dyn FnMut()) -> Ending {
        Ok(Completion::Done)
    }
}

/// A segment that was asked for ahead has begun, and each of eight other groups reads for a peer, one piece
/// behind the other: it made no piece as long as they did.
#[test]
fn a_new_file_that_has_begun_is_made_while_peers_are_read_for() {
    let mut pool = Pool::new().unwrap();
    let left = Arc::new(AtomicUsize::new(100_000));
    for group in (0..9).map(GroupId) {
        let place = Busy { group, pool: Arc::downgrade(&pool.shared), left: Arc::clone(&left) };
        pool.add(group, place);
    }
    for group in (1..9).map(GroupId) {
        pool.submit(group, OpId(0), Class::Serve, read());
    }
    pool.submit(GroupId(0), OpId(1), Class::Background, create(4));
    pool.flush();
    let shared = Arc::clone(&pool.shared);
    // Ends what was begun.
    drop(pool);
    let mut done = Vec::new();
    shared.done.take(Waker::noop(), &mut done);
    let made = done.into_iter().find(|(group, ..)| *group == GroupId(0));
    assert_eq!(made, Some((GroupId(0), OpId(1), Ok(Completion::Done))));
}
