//! A disk of three threads: one for commits, one for everything that may wait for them, and one for the
//! syncs of snapshots, which may take as long as all the rest.
//!
//! What arrives while the commit thread syncs forms its next round: all its writes, then one
//! `fdatasync` for each file. Invariant: a durable write ends after a sync that began when the
//! write was done.

use super::{
    Ending,
    gate::Gate,
    lane::{Done, Job, Lane},
    place::{Length, Place, is_snapshot_sync, perform_short},
};
use crate::driver::Disk;
use lakebed::{Class, Completion, DiskRequest, Event, File, OpId, files::Directory};
use std::{
    collections::BTreeMap,
    io, mem,
    sync::{Arc, mpsc},
    task::Context,
    thread::{self, JoinHandle},
};

/// [`Disk`] by `pwrite` and `fdatasync` on threads.
pub struct FilesDisk {
    /// Commits that wait for the flush: one wake for all of them.
    pending: Vec<Job>,
    /// `None` only while it is dropped.
    commits: Option<mpsc::Sender<Vec<Job>>>,
    thread: Option<JoinHandle<()>>,
    background: Lane,
    /// New segments and what peers read must not stand behind a snapshot: commits may wait for them. The
    /// alternative, having the system write it out piece by piece, shortens its last sync and bounds nothing:
    /// how long that takes is the device's affair.
    snapshots: Lane,
    done: Arc<Done>,
    in_flight: usize,
}

impl FilesDisk {
    /// Drives this directory.
    pub fn new(directory: Directory) -> io::Result<Self> {
        Self::over(Arc::new(directory))
    }

    fn over(place: Arc<dyn Place>) -> io::Result<Self> {
        let (done, gate) = (Arc::new(Done::default()), Arc::new(Gate::default()));
        let lane = |name| Lane::new(name, Arc::clone(&place), Arc::clone(&gate), Arc::clone(&done));
        let (background, snapshots) = (lane("lakebed-disk")?, lane("lakebed-sync")?);
        let (commits, rounds) = mpsc::channel();
        let committer = Committer { place, gate, done: Arc::clone(&done) };
        let name = "lakebed-commit".into();
        let thread = thread::Builder::new().name(name).spawn(move || committer.run(&rounds))?;
        Ok(Self {
            pending: Vec::new(),
            commits: Some(commits),
            thread: Some(thread),
            background,
            snapshots,
            done,
            in_flight: 0,
        })
    }
}

impl Disk for FilesDisk {
    fn submit(&mut self, op: OpId, class: Class, request: DiskRequest) {
        self.in_flight += 1;
        let job = Job { op, class, request };
        if is_snapshot_sync(&job.request) {
            self.snapshots.push(job);
        // What takes long, whoever waits for it: commits to others go on meanwhile.
        } else if class == Class::Commit && job.length() == Length::Short {
            self.pending.push(job);
        } else {
            self.background.push(job);
        }
    }

    fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let commits = self.commits.as_ref().expect("it is there until the drop");
        let sent = commits.send(mem::take(&mut self.pending));
        assert!(sent.is_ok(), "the commit thread died");
    }

    fn poll_completed(&mut self, cx: &mut Context<'_>, events: &mut Vec<Event>) {
        self.in_flight -= self.done.take(cx.waker(), events);
    }

    fn is_idle(&self) -> bool {
        self.in_flight == 0
    }
}

/// Waits until everything that was begun has ended: the directory is unlocked after that.
impl Drop for FilesDisk {
    fn drop(&mut self) {
        drop(self.commits.take());
        if let Some(thread) = self.thread.take() {
            // Its panic was reported where it happened.
            drop(thread.join());
        }
    }
}

struct Committer {
    place: Arc<dyn Place>,
    gate: Arc<Gate>,
    done: Arc<Done>,
}

impl Committer {
    fn run(&self, rounds: &mpsc::Receiver<Vec<Job>>) {
        while let Ok(mut round) = rounds.recv() {
            self.gate.set_busy(true);
            round.extend(rounds.try_iter().flatten());
            self.perform(round);
            self.gate.set_busy(false);
        }
    }

    fn perform(&self, round: Vec<Job>) {
        let mut syncs = BTreeMap::<File, Vec<OpId>>::new();
        let mut ended = Vec::new();
        for Job { op, request, .. } in round {
            let (result, sync) = self.begin(request);
            match sync.filter(|_| result.is_ok()) {
                Some(file) => syncs.entry(file).or_default().push(op),
                None => ended.push(Event::Completed { op, result }),
            }
        }
        if !ended.is_empty() {
            self.done.put_all(ended);
        }
        for (file, ops) in syncs {
            let result = perform_short(&*self.place, &DiskRequest::Sync { file });
            let completed = |op| Event::Completed { op, result: result.clone() };
            self.done.put_all(ops.into_iter().map(completed));
        }
    }

    /// Does all of a request but the sync of the file it may end with.
    fn begin(&self, request: DiskRequest) -> (Ending, Option<File>) {
        match request {
            DiskRequest::Write { file, at, and, durable } => {
                let write = DiskRequest::Write { file, at, and, durable: false };
                (perform_short(&*self.place, &write), durable.then_some(file))
            }
            DiskRequest::Sync { file } => (Ok(Completion::Done), Some(file)),
            request => (perform_short(&*self.place, &request), None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::noted::{AT_ONCE, noted, round},
        *,
    };
    use lakebed::{DiskError, LogId, SnapshotId};
    use std::{
        future::poll_fn,
        path::Path,
        sync::{
            Mutex,
            mpsc::{Receiver, Sender, channel},
        },
        task::{Poll, Waker},
        time::Duration,
    };
    use tokio::time::timeout;

    const PART: File = File::Part(LogId::ZERO, SnapshotId(1));
    const SPARE: File = File::Spare(0);

    /// A directory where the syncs of a snapshot end when they are let.
    struct Held {
        directory: Directory,
        begun: Sender<()>,
        gate: Mutex<Receiver<()>>,
    }

    impl Held {
        fn wait(&self) {
            // The test may be over.
            let _ = self.begun.send(());
            let _ = self.gate.lock().expect("no thread panics").recv();
        }
    }

    impl Place for Held {
        fn perform(&self, request: &DiskRequest) -> Ending {
            if is_snapshot_sync(request) {
                self.wait();
            }
            self.directory.perform(request)
        }

        fn read(&self, file: File, offset: u64, into: &mut [u8]) -> Result<usize, DiskError> {
            self.directory.read_into(file, offset, into)
        }

        fn create(&self, file: File, len: u64, before_piece: &mut dyn FnMut()) -> Ending {
            Place::create(&self.directory, file, len, before_piece)
        }

        /// As much time before a piece and behind it as the test likes.
        fn remove(&self, file: File, before_piece: &mut dyn FnMut()) -> Ending {
            self.wait();
            before_piece();
            self.wait();
            Place::remove(&self.directory, file, before_piece)
        }
    }

    /// A disk there, what lets it go on, which is to be dropped before it, and what tells of a sync.
    fn held(path: &Path) -> (FilesDisk, Sender<()>, Receiver<()>) {
        let directory = Directory::open(path).unwrap();
        let ((open, gate), (begun, begins)) = (channel(), channel());
        let place = Held { directory, begun, gate: Mutex::new(gate) };
        (FilesDisk::over(Arc::new(place)).unwrap(), open, begins)
    }

    /// Waits until so many operations have ended, and says which.
    async fn ended(disk: &mut FilesDisk, count: usize) -> Vec<u64> {
        let mut events = Vec::new();
        let ends = poll_fn(|cx| {
            disk.poll_completed(cx, &mut events);
            if events.len() >= count { Poll::Ready(()) } else { Poll::Pending }
        });
        timeout(Duration::from_secs(60), ends).await.expect("waited in vain");
        let op = |event| match event {
            Event::Completed { op, result } => {
                result.unwrap();
                op.0
            }
            other => panic!("{other:?}"),
        };
        let mut ops: Vec<_> = events.into_iter().map(op).collect();
        ops.sort_unstable();
        ops
    }

    /// A log that needs its next segment would wait as long as the snapshot's last sync takes, and so
    /// would every client.
    #[tokio::test]
    async fn nothing_stands_behind_the_sync_of_a_snapshot() {
        let temporary = tempfile::tempdir().unwrap();
        let (mut disk, open, begins) = held(temporary.path());
        let create = |file, len| DiskRequest::Create { file, len, zeroed: true };
        disk.submit(OpId(1), Class::Background, create(PART, 0));
        assert_eq!(ended(&mut disk, 1).await, [1]);
        disk.submit(OpId(2), Class::Background, DiskRequest::Sync { file: PART });
        begins.recv().unwrap();
        disk.submit(OpId(3), Class::Background, create(SPARE, 4096));
        disk.submit(OpId(4), Class::Commit, create(File::Spare(1), 4096));
        let read = DiskRequest::Read { file: PART, offset: 0, len: 1 };
        disk.submit(OpId(5), Class::Serve, read);
        disk.flush();
        assert_eq!(ended(&mut disk, 3).await, [3, 4, 5]);
        drop(open);
        assert_eq!(ended(&mut disk, 1).await, [2]);
    }

    /// A log that needs its next segment would wait as long as a large file takes to give its room back.
    #[tokio::test]
    async fn nothing_stands_behind_a_removal_but_the_next_one() {
        let temporary = tempfile::tempdir().unwrap();
        let (mut disk, open, begins) = held(temporary.path());
        let create = |file, len| DiskRequest::Create { file, len, zeroed: true };
        disk.submit(OpId(1), Class::Background, create(PART, 0));
        disk.submit(OpId(2), Class::Background, create(SPARE, 1));
        assert_eq!(ended(&mut disk, 2).await, [1, 2]);
        disk.submit(OpId(3), Class::Background, DiskRequest::Remove { file: PART });
        begins.recv().unwrap();
        disk.submit(OpId(4), Class::Background, DiskRequest::Remove { file: SPARE });
        disk.submit(OpId(5), Class::Background, create(File::Spare(1), 4096));
        let read = DiskRequest::Read { file: SPARE, offset: 0, len: 1 };
        disk.submit(OpId(6), Class::Serve, read);
        open.send(()).unwrap();
        assert_eq!(ended(&mut disk, 2).await, [5, 6]);
        drop(open);
        assert_eq!(ended(&mut disk, 2).await, [3, 4]);
    }

    /// What a sync has not made durable yet is not told, nor what it could not.
    #[tokio::test]
    async fn a_durable_write_has_ended_when_a_later_sync_of_its_file_has() {
        let (place, begins, open) = noted();
        let mut disk = FilesDisk::over(Arc::new(place.clone())).unwrap();
        for (op, request) in round() {
            disk.submit(OpId(op), Class::Commit, request);
        }
        disk.flush();
        begins.recv().unwrap();
        let (mut events, mut endings) = (Vec::new(), BTreeMap::new());
        let mut take = |events: Vec<Event>| {
            for event in events {
                let Event::Completed { op, result } = event else { panic!("{event:?}") };
                assert!(endings.insert(op.0, result).is_none(), "{op} ended twice");
            }
            endings.clone()
        };
        disk.poll_completed(&mut Context::from_waker(Waker::noop()), &mut events);
        assert!(take(mem::take(&mut events)).into_keys().eq(AT_ONCE));
        drop(open);
        let ends = poll_fn(|cx| {
            disk.poll_completed(cx, &mut events);
            if disk.is_idle() { Poll::Ready(()) } else { Poll::Pending }
        });
        timeout(Duration::from_secs(60), ends).await.expect("waited in vain");
        place.judge(&take(events));
    }

    /// A commit that asks for what takes long has the others go on beside it.
    #[tokio::test]
    async fn no_commit_stands_behind_a_removal_that_is_one_itself() {
        let temporary = tempfile::tempdir().unwrap();
        let (mut disk, open, begins) = held(temporary.path());
        let create = DiskRequest::Create { file: File::HardState, len: 0, zeroed: true };
        disk.submit(OpId(1), Class::Background, create);
        assert_eq!(ended(&mut disk, 1).await, [1]);
        disk.submit(
            OpId(2),
            Class::Commit,
            DiskRequest::Create { file: SPARE, len: 0, zeroed: true },
        );
        disk.flush();
        assert_eq!(ended(&mut disk, 1).await, [2]);
        disk.submit(OpId(3), Class::Commit, DiskRequest::Remove { file: SPARE });
        disk.flush();
        begins.recv().unwrap();
        disk.submit(OpId(4), Class::Commit, DiskRequest::Sync { file: File::HardState });
        disk.flush();
        assert_eq!(ended(&mut disk, 1).await, [4]);
        drop(open);
        assert_eq!(ended(&mut disk, 1).await, [3]);
    }

    /// A place where syncs and new files panic.
    struct Broken(Directory);

    impl Place for Broken {
        fn perform(&self, request: &DiskRequest) -> Ending {
            assert!(!matches!(request, DiskRequest::Sync { .. }), "no disk syncs here");
            self.0.perform(request)
        }

        fn read(&self, file: File, offset: u64, into: &mut [u8]) -> Result<usize, DiskError> {
            self.0.read_into(file, offset, into)
        }

        fn create(&self, _: File, _: u64, _: &mut dyn FnMut()) -> Ending {
            panic!("no file is made here")
        }

        fn remove(&self, _: File, _: &mut dyn FnMut()) -> Ending {
            Ok(Completion::Done)
        }
    }

    /// The thread went with it: what it had begun, and on the others what came behind it, never ended, and
    /// the node stood still without a word.
    #[tokio::test]
    async fn an_operation_that_panics_fails_and_what_comes_behind_it_is_performed() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::open(temporary.path()).unwrap();
        let mut disk = FilesDisk::over(Arc::new(Broken(directory))).unwrap();
        let sync = |file| DiskRequest::Sync { file };
        let create = DiskRequest::Create { file: SPARE, len: 4096, zeroed: true };
        // One on each thread, and what is well behind it.
        for (op, class, request) in [
            (1, Class::Commit, sync(File::HardState)),
            (2, Class::Background, create),
            (3, Class::Background, sync(PART)),
            (4, Class::Commit, DiskRequest::List),
            (5, Class::Background, DiskRequest::SyncDirectory),
        ] {
            disk.submit(OpId(op), class, request);
            disk.flush();
        }
        let mut events = Vec::new();
        let ends = poll_fn(|cx| {
            disk.poll_completed(cx, &mut events);
            if disk.is_idle() { Poll::Ready(()) } else { Poll::Pending }
        });
        timeout(Duration::from_secs(60), ends).await.expect("waited in vain");
        let failed = |event: &Event| match event {
            Event::Completed { op, result: Err(DiskError::Io { .. }) } => Some(op.0),
            _ => None,
        };
        let mut failed: Vec<_> = events.iter().filter_map(failed).collect();
        failed.sort_unstable();
        assert_eq!((events.len(), failed), (5, vec![1, 2, 3]));
    }
}
