//! A disk of two threads: one for commits, one for everything that may wait for them.
//!
//! What arrives while the commit thread syncs forms its next round: all its writes, then one
//! `fdatasync` for each file. Invariant: a durable write ends after a sync that began when the
//! write was done.

use super::{
    Ending,
    lane::{Done, Gate, Job, Lane},
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
    done: Arc<Done>,
    in_flight: usize,
}

impl FilesDisk {
    /// Drives this directory.
    pub fn new(directory: Directory) -> io::Result<Self> {
        let directory = Arc::new(directory);
        let (done, gate) = (Arc::new(Done::default()), Arc::new(Gate::default()));
        let background = Lane::new(Arc::clone(&directory), Arc::clone(&gate), Arc::clone(&done))?;
        let (commits, rounds) = mpsc::channel();
        let committer = Committer { directory, gate, done: Arc::clone(&done) };
        let name = "lakebed-commit".into();
        let thread = thread::Builder::new().name(name).spawn(move || committer.run(&rounds))?;
        Ok(Self {
            pending: Vec::new(),
            commits: Some(commits),
            thread: Some(thread),
            background,
            done,
            in_flight: 0,
        })
    }
}

impl Disk for FilesDisk {
    fn submit(&mut self, op: OpId, class: Class, request: DiskRequest) {
        self.in_flight += 1;
        let job = Job { op, class, request };
        // What takes long, whoever waits for it: commits to others go on meanwhile.
        if class == Class::Commit && !job.is_long() {
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
    directory: Arc<Directory>,
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
                None => ended.push((op, result)),
            }
        }
        if !ended.is_empty() {
            self.done.extend(ended);
        }
        for (file, ops) in syncs {
            let result = self.directory.perform(&DiskRequest::Sync { file });
            self.done.extend(ops.into_iter().map(|op| (op, result.clone())));
        }
    }

    /// Does all of a request but the sync of the file it may end with.
    fn begin(&self, request: DiskRequest) -> (Ending, Option<File>) {
        match request {
            DiskRequest::Write { file, at, and, durable } => {
                let write = DiskRequest::Write { file, at, and, durable: false };
                (self.directory.perform(&write), durable.then_some(file))
            }
            DiskRequest::Sync { file } => (Ok(Completion::Done), Some(file)),
            request => (self.directory.perform(&request), None),
        }
    }
}
