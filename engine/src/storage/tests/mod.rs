//! Storage alone, on a disk that does at once what it is asked: the disk, a node, and a log to grow.

mod alone;
mod captures;
mod catching_up;
mod clearing;
mod combined;
mod compacted;
mod copies;
mod crash;
mod cuts;
mod debts;
mod decisions;
mod failures;
mod far;
mod forced;
mod found;
mod heads;
mod holes;
mod in_flight;
mod installing;
mod joins;
mod leads_on;
mod looks;
mod lost;
mod plain;
mod reading;
mod refills;
mod replays;
mod restores;
mod rolling;
mod scrubs;
mod served;
mod slots;
mod spares;
mod strangers;
mod told;
mod unreadable;
mod verify;
mod walk;
mod writing;

use super::*;
use crate::{
    action::Machine,
    entry::{Batch, Kind, frames, seal_body},
    event::Completion,
    file::{DiskError, DiskRequest},
    membership::Member,
    types::{ClusterId, GroupId},
};
use std::collections::{BTreeMap, VecDeque};

const SECOND: u64 = 1_000_000_000;

/// Files as they are; every request is done when it is asked.
#[derive(Clone, Default)]
struct Disk {
    files: BTreeMap<File, Vec<u8>>,
    requests: Vec<DiskRequest>,
    is_full: bool,
    /// What fails, and is not done.
    fails: Option<fn(&DiskRequest) -> bool>,
    /// Which read from now on fails, counting from zero.
    read_fails: Option<usize>,
    /// A block that no read of this file may cover.
    unreadable: Option<(File, u64)>,
}

impl Disk {
    fn is_read_failing(&mut self) -> bool {
        let left = self.read_fails;
        self.read_fails = left.and_then(|left| left.checked_sub(1));
        left == Some(0)
    }

    fn perform(&mut self, request: DiskRequest) -> Result<Completion, DiskError> {
        self.requests.push(request.clone());
        if self.fails.is_some_and(|fails| fails(&request)) {
            return Err(DiskError::Io { errno: 5 });
        }
        match request {
            DiskRequest::List => Ok(Completion::Listed(
                self.files.iter().map(|(file, bytes)| (*file, bytes.len() as u64)).collect(),
            )),
            // What begins with nothing may find a little.
            DiskRequest::Create { len, .. } if self.is_full && len > 0 => Err(DiskError::Full),
            DiskRequest::Create { file, len, .. } => {
                self.files.insert(file, vec![0; len as usize]);
                Ok(Completion::Done)
            }
            DiskRequest::Read { .. } if self.is_read_failing() => Err(DiskError::Io { errno: 5 }),
            DiskRequest::Read { file, offset, len }
                if self.unreadable.is_some_and(|(bad, at)| {
                    bad == file && (offset..offset + u64::from(len)).contains(&at)
                }) =>
            {
                Err(DiskError::Io { errno: 5 })
            }
            DiskRequest::Read { file, offset, len } => {
                let bytes = self.files.get(&file).ok_or(DiskError::NotFound)?;
                let from = bytes.len().min(offset as usize);
                let to = bytes.len().min(offset as usize + len as usize);
                Ok(Completion::Read(Bytes::copy_from_slice(&bytes[from..to])))
            }
            DiskRequest::Write { file, at, and, .. } => {
                let bytes = self.files.get_mut(&file).ok_or(DiskError::NotFound)?;
                for extent in [Some(at), and].into_iter().flatten() {
                    let (offset, new) = (extent.offset, extent.whole());
                    let to = offset as usize + new.len();
                    if to > bytes.len() {
                        assert!(matches!(file, File::Part(..)), "{file} must not grow");
                        bytes.resize(to, 0);
                    }
                    bytes[offset as usize..to].copy_from_slice(&new);
                }
                Ok(Completion::Done)
            }
            DiskRequest::Rename { from, to } => {
                let bytes = self.files.remove(&from).ok_or(DiskError::NotFound)?;
                self.files.insert(to, bytes);
                Ok(Completion::Done)
            }
            DiskRequest::Remove { file } => {
                self.files.remove(&file).map(|_| Completion::Done).ok_or(DiskError::NotFound)
            }
            DiskRequest::Sync { .. } | DiskRequest::SyncDirectory => Ok(Completion::Done),
        }
    }
}

fn config() -> Config {
    let mut config = Config::new(GroupId(1), NodeId(1));
    config.disk_align = 512;
    config.segment_bytes = 32 << 10;
    config.tuning.append_bytes_max = 8 << 10;
    config
}

fn format() -> Start {
    let member = |id| Member { id: NodeId(id), incarnation: 0, address: Bytes::new() };
    let members = Arc::new(Membership::of([member(1), member(2), member(3)]));
    Start::Format { cluster: ClusterId(5), members }
}

/// A storage, its disk, and what a machine was told.
struct Node {
    storage: Storage,
    disk: Disk,
    now: Instant,
    recovered: Option<Recovered>,
    restored: Vec<u8>,
    /// What the machine has taken in and not answered yet: so many pieces, at most, that it is behind.
    unanswered: VecDeque<u64>,
    behind: usize,
    captured: usize,
    /// How large its state is.
    state_bytes: usize,
    last: LogId,
    halted: Option<Halt>,
}

impl Node {
    fn start(disk: Disk, start: Start) -> Self {
        Self::start_as(&config(), disk, start)
    }

    fn start_as(config: &Config, disk: Disk, start: Start) -> Self {
        Self::start_behind(config, disk, start, 0)
    }

    fn start_behind(config: &Config, disk: Disk, start: Start, behind: usize) -> Self {
        let mut storage = Storage::new(config, 42);
        storage.on_start(start);
        let mut node = Self {
            storage,
            disk,
            now: Instant(SECOND),
            recovered: None,
            restored: Vec::new(),
            unanswered: VecDeque::new(),
            behind,
            captured: 0,
            state_bytes: 100_000,
            last: LogId::ZERO,
            halted: None,
        };
        node.settle();
        if let Some(recovered) = &node.recovered {
            node.last = recovered.last;
            node.storage.promise(recovered.term.max(Term(1)), recovered.vote);
            node.settle();
        }
        node
    }

    fn restart(self) -> Self {
        Self::start(self.disk, Start::Run)
    }

    fn recovered(&self) -> &Recovered {
        self.recovered.as_ref().unwrap_or_else(|| panic!("halted: {:?}", self.halted))
    }

    fn settle(&mut self) {
        loop {
            let mut out = Vec::new();
            self.recovered =
                self.storage.recover(self.now, &mut out).or_else(|| self.recovered.take());
            self.storage.persist(self.now, &mut out);
            self.storage.journal.holes.check();
            self.halted = self.storage.halt().or_else(|| self.halted.take());
            if out.is_empty() || self.halted.is_some() {
                return;
            }
            out.into_iter().for_each(|action| self.perform(action));
        }
    }

    /// What is asked of the disk now, and not done yet.
    fn ask(&mut self) -> Vec<Action> {
        let mut out = Vec::new();
        self.storage.persist(self.now, &mut out);
        out
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Disk { op, request, .. } => {
                let result = self.disk.perform(request);
                self.storage.on_completed(self.now, op, result);
            }
            Action::Machine(Machine::CaptureNext { capture, bytes_max }) => {
                let bytes = Bytes::from(vec![7; 30_000.min(bytes_max as usize)]);
                self.captured += bytes.len();
                let last = self.captured >= self.state_bytes;
                self.storage.on_captured(capture, Ok(Chunk { bytes, last }));
            }
            Action::Machine(Machine::Restore { offset, bytes, .. }) => {
                self.restored.truncate(offset as usize);
                self.restored.extend_from_slice(&bytes);
                self.unanswered.push_back(self.restored.len() as u64);
                self.answer(self.behind);
            }
            _ => {}
        }
    }

    /// The machine answers all but so many pieces.
    fn answer(&mut self, behind: usize) {
        while self.unanswered.len() > behind {
            let through = self.unanswered.pop_front().expect("there is one");
            self.storage.on_restored(through, Ok(()));
        }
    }

    fn append(&mut self, term: u64, bytes: usize) {
        let seed = self.recovered().seed;
        let id = LogId::new(Term(term), self.last.index.next());
        let (head, frame) = if bytes == 0 {
            seal_body(Kind::Empty, &[], seed, id, self.last.term, Timestamp(9))
        } else {
            Batch::one(&vec![id.index.0 as u8; bytes]).seal(seed, id, self.last.term, Timestamp(9))
        };
        self.storage.append(head, frame, 0);
        self.last = id;
    }

    fn append_all(&mut self, term: u64, sizes: impl IntoIterator<Item = usize>) {
        let (_, vote) = self.storage.promised();
        self.storage.promise(Term(term), vote.filter(|_| self.storage.promised().0.0 == term));
        self.settle();
        for (n, bytes) in sizes.into_iter().enumerate() {
            self.append(term, bytes);
            if n % 3 == 0 {
                self.settle();
            }
        }
        self.settle();
    }

    fn truncate(&mut self, last: LogId) {
        self.storage.truncate(last);
        self.last = last;
    }

    /// All entries from `from` on, as they are read back.
    fn read(&mut self, from: u64) -> Vec<(LogId, usize)> {
        let (mut seen, mut next) = (Vec::new(), LogIndex(from));
        while next <= self.storage.durable() {
            self.storage.read(Reader::Machine, next, LogIndex(u64::MAX), 10_000);
            self.settle();
            let (_, read) = self.storage.take_read().unwrap_or_else(|| panic!("{:?}", self.halted));
            assert_eq!(read.first, next);
            seen.extend(frames(&read.frames).map(|entry| (entry.id, entry.body.len())));
            next = read.last.next();
        }
        seen
    }
}

fn sizes() -> impl Iterator<Item = usize> {
    (0..300).map(|n| n * 37 % 1900)
}
