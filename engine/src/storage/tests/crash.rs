//! Storage alone, on a disk that loses what was not synced: operations end in any order, a crash
//! keeps any subset of the sectors that were not durable, and restarts crash too.
//!
//! What must hold: a promise that was reported survives, an entry that was called durable survives
//! until it is cut, nothing is found that was never appended, and no crash alone makes a restart
//! refuse. (docs/recovery.md; the whole node is put through more by the simulator.)

mod forced;
mod looked_at;
mod restored;

use super::{config, format};
use crate::{
    action::Machine,
    entry::{Batch, frames},
    event::Completion,
    file::{DiskError, DiskRequest, Extent},
    storage::*,
    types::OpId,
};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng as _, SeedableRng as _},
};
use std::{collections::BTreeMap, sync::Arc};

const SECTOR: usize = 512;

/// A directory whose files have two faces: what is read, and what is durable.
#[derive(Clone, Default)]
struct Disk {
    names: BTreeMap<File, usize>,
    durable_names: BTreeMap<File, usize>,
    /// Creations, renames and removals since the last sync of the directory, in order.
    name_changes: Vec<NameChange>,
    inodes: Vec<Inode>,
}

#[derive(Clone)]
enum NameChange {
    Bind(File, usize),
    Rename(File, File),
    Unbind(File),
}

#[derive(Clone, Default)]
struct Inode {
    /// Shared with the disk that this one is a copy of, until it is written.
    bytes: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    /// Sectors written and not synced, oldest first.
    dirty: Vec<(usize, Vec<u8>)>,
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<File, usize>) {
        match self {
            Self::Bind(file, inode) => {
                names.insert(*file, *inode);
            }
            Self::Rename(from, to) => {
                let inode = names.remove(from).expect("names change in order");
                names.insert(*to, inode);
            }
            Self::Unbind(file) => {
                names.remove(file);
            }
        }
    }
}

impl Inode {
    fn write(&mut self, extent: &Extent, sectors: impl Fn(usize) -> bool) {
        let end = extent.end() as usize;
        let bytes = Arc::make_mut(&mut self.bytes);
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        for (n, sector) in extent.whole().chunks(SECTOR).enumerate() {
            if sectors(n) {
                let at = extent.offset as usize + n * SECTOR;
                bytes[at..at + sector.len()].copy_from_slice(sector);
                self.dirty.push((at, sector.to_vec()));
            }
        }
    }

    fn keep(&mut self, at: usize, sector: &[u8]) {
        let durable = Arc::make_mut(&mut self.durable);
        if durable.len() < at + sector.len() {
            durable.resize(at + sector.len(), 0);
        }
        durable[at..at + sector.len()].copy_from_slice(sector);
    }

    /// What an earlier sync has failed for is clean, and stays what it is.
    fn sync(&mut self) {
        for (at, sector) in std::mem::take(&mut self.dirty) {
            self.keep(at, &sector);
        }
    }

    fn crash(&mut self, draw: &mut impl FnMut(u64) -> u64) {
        // A style for the whole crash, so that "all" and "nothing" happen too.
        let style = draw(4);
        for (at, sector) in std::mem::take(&mut self.dirty) {
            if style == 0 || (style > 1 && draw(2) == 0) {
                self.keep(at, &sector);
            }
        }
        self.bytes = self.durable.clone();
    }
}

impl Disk {
    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
    }

    fn inode(&mut self, file: File) -> Result<&mut Inode, DiskError> {
        let inode = *self.names.get(&file).ok_or(DiskError::NotFound)?;
        Ok(&mut self.inodes[inode])
    }

    fn perform(&mut self, request: &DiskRequest) -> Result<Completion, DiskError> {
        match request {
            DiskRequest::List => {
                let len = |inode: &usize| self.inodes[*inode].bytes.len() as u64;
                let files = self.names.iter().map(|(file, inode)| (*file, len(inode)));
                return Ok(Completion::Listed(files.collect()));
            }
            DiskRequest::Create { file, len, .. } => {
                let bytes = Arc::new(vec![0; *len as usize]);
                self.inodes.push(Inode { durable: bytes.clone(), bytes, dirty: Vec::new() });
                self.change(NameChange::Bind(*file, self.inodes.len() - 1));
            }
            DiskRequest::Read { file, offset, len } => {
                let bytes = &self.inode(*file)?.bytes;
                let from = bytes.len().min(*offset as usize);
                let to = bytes.len().min(*offset as usize + *len as usize);
                return Ok(Completion::Read(Bytes::copy_from_slice(&bytes[from..to])));
            }
            DiskRequest::Write { file, at, and, durable } => {
                let inode = self.inode(*file)?;
                for extent in [Some(at), and.as_ref()].into_iter().flatten() {
                    assert_eq!((extent.offset % 512, extent.len() % 512), (0, 0));
                    inode.write(extent, |_| true);
                    if *durable {
                        for (n, sector) in extent.whole().chunks(SECTOR).enumerate() {
                            let at = extent.offset as usize + n * SECTOR;
                            inode.dirty.retain(|(dirty, _)| *dirty != at);
                            inode.keep(at, sector);
                        }
                    }
                }
            }
            DiskRequest::Sync { file } => self.inode(*file)?.sync(),
            DiskRequest::Rename { from, to } => {
                self.names.get(from).ok_or(DiskError::NotFound)?;
                self.change(NameChange::Rename(*from, *to));
            }
            DiskRequest::Remove { file } => {
                self.names.get(file).ok_or(DiskError::NotFound)?;
                self.change(NameChange::Unbind(*file));
            }
            DiskRequest::SyncDirectory => {
                self.name_changes.clear();
                self.durable_names.clone_from(&self.names);
            }
        }
        Ok(Completion::Done)
    }

    /// What an operation in flight may leave: some sectors of a write, nothing of all else.
    fn tear(&mut self, request: &DiskRequest, draw: &mut impl FnMut(u64) -> u64) {
        let DiskRequest::Write { file, at, and, .. } = request else { return };
        for extent in [Some(at), and.as_ref()].into_iter().flatten() {
            let style = draw(4);
            let mask: Vec<bool> = (0..extent.len().div_ceil(SECTOR as u64))
                .map(|_| style == 0 || (style > 1 && draw(2) == 0))
                .collect();
            if let Ok(inode) = self.inode(*file) {
                inode.write(extent, |n| mask[n]);
            }
        }
    }

    fn crash(&mut self, in_flight: &[(OpId, DiskRequest)], draw: &mut impl FnMut(u64) -> u64) {
        for (_, request) in in_flight {
            self.tear(request, draw);
        }
        let kept = draw(self.name_changes.len() as u64 + 1) as usize;
        let changes = std::mem::take(&mut self.name_changes);
        for change in &changes[..kept] {
            change.apply(&mut self.durable_names);
        }
        self.names.clone_from(&self.durable_names);
        self.inodes.iter_mut().for_each(|inode| inode.crash(draw));
    }
}

/// One life after another of one node, and what it promised in each.
struct Lives {
    rng: ChaCha8Rng,
    disk: Disk,
    storage: Storage,
    in_flight: Vec<(OpId, DiskRequest)>,
    now: Instant,
    recovered: Option<Recovered>,
    halted: Option<Halt>,
    restored: u64,
    /// The log as it was appended, entry by entry: its term.
    log: Vec<Term>,
    /// What was cut away by a cut that is not done: until it is, a crash may bring it back.
    ghosts: Vec<Vec<Term>>,
    committed: u64,
    /// How far the log was ever called durable, and not cut since.
    durable: u64,
    promised: (Term, Option<NodeId>),
    is_checked: bool,
    crashes: u32,
    torn: u32,
}

impl Lives {
    fn new(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut lives = Self {
            rng: ChaCha8Rng::from_seed(bytes),
            disk: Disk::default(),
            storage: Storage::new(&config(), seed),
            in_flight: Vec::new(),
            now: Instant(1),
            recovered: None,
            halted: None,
            restored: 0,
            log: Vec::new(),
            ghosts: Vec::new(),
            committed: 0,
            durable: 0,
            promised: (Term(0), None),
            is_checked: true,
            crashes: 0,
            torn: 0,
        };
        lives.storage.on_start(format());
        lives.settle();
        lives
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.rng.next_u64() % below
    }

    fn settle(&mut self) {
        let mut out = Vec::new();
        self.recovered = self.storage.recover(self.now, &mut out).or_else(|| self.recovered.take());
        self.storage.persist(self.now, &mut out);
        self.halted = self.storage.halt().or_else(|| self.halted.take());
        for action in out {
            match action {
                Action::Disk { op, request, .. } => self.in_flight.push((op, request)),
                Action::Machine(step) => self.machine(step),
                _ => {}
            }
        }
        assert!(matches!(self.halted, None | Some(Halt::NotFormatted)), "{:?}", self.halted);
        if self.recovered.is_some() && self.is_checked {
            self.promised = self.promised.max(self.storage.promised());
            self.durable = self.durable.max(self.storage.durable().0);
            assert!(self.durable <= self.log.len() as u64, "durable beyond the log");
            if self.storage.journal.cut.is_none() {
                self.ghosts.clear();
            }
        }
    }

    fn machine(&mut self, step: Machine) {
        match step {
            Machine::CaptureNext { capture, bytes_max } => {
                let bytes = Bytes::from(vec![3; bytes_max.min(9_000) as usize]);
                self.restored += 1;
                let last = self.restored.is_multiple_of(3);
                self.storage.on_captured(capture, Ok(Chunk { bytes, last }));
            }
            Machine::Restore { offset, bytes, .. } => {
                self.storage.on_restored(offset + bytes.len() as u64, Ok(()));
            }
            _ => {}
        }
    }

    /// Some operation ends.
    fn complete(&mut self) {
        if self.in_flight.is_empty() {
            return;
        }
        let n = self.draw(self.in_flight.len() as u64) as usize;
        // A sync covers what ended before it was asked, so it is performed when it is asked only
        // of those: here every earlier write to the file has ended or is still in flight.
        let (op, request) = self.in_flight.swap_remove(n);
        let result = self.disk.perform(&request);
        self.storage.on_completed(self.now, op, result);
        self.settle();
    }

    fn step(&mut self) {
        let Some(recovered) = &self.recovered else { return self.complete() };
        let (seed, members) = (recovered.seed, recovered.membership.clone());
        match self.draw(40) {
            0..8 => {
                for _ in 0..=self.draw(4) {
                    self.append(seed);
                }
            }
            8 if self.committed < self.log.len() as u64 && self.draw(3) == 0 => self.truncate(),
            9 => self.promise(),
            10 => {
                self.committed = self.committed.max(self.durable.min(self.log.len() as u64));
                self.storage.hint_committed(LogIndex(self.committed));
            }
            11 if self.committed > 0 && self.draw(4) == 0 => {
                let at =
                    LogId::new(self.log[self.committed as usize - 1], LogIndex(self.committed));
                self.storage.retain(LogIndex(self.committed), None);
                self.storage.capture(at, members, Timestamp(9));
            }
            12 => self.now = self.now.after(std::time::Duration::from_millis(70)),
            _ => self.complete(),
        }
        self.settle();
    }

    fn last(&self) -> LogId {
        let term = self.log.last().copied().unwrap_or_default();
        LogId::new(term, LogIndex(self.log.len() as u64))
    }

    fn append(&mut self, seed: Seed) {
        let last = self.last();
        // The term of the hard state that is wanted, durable or not: writes must wait for it.
        let term = last.term.max(self.storage.promises().wanted().term).max(Term(1));
        if term > self.storage.promises().wanted().term {
            self.storage.promise(term, None);
        }
        let id = LogId::new(term, last.index.next());
        let bytes = self.draw(2500) as usize;
        let batch = Batch::one(&vec![id.index.0 as u8; bytes]);
        let (head, frame) = batch.seal(seed, id, last.term, Timestamp(1));
        self.storage.append(head, frame, 0);
        self.log.push(term);
    }

    fn truncate(&mut self) {
        let kept = self.committed + self.draw(self.log.len() as u64 - self.committed);
        self.ghosts.push(self.log.clone());
        self.log.truncate(kept as usize);
        self.durable = self.durable.min(kept);
        // Another leader's term: what was cut never comes back with the same name.
        let term = self.storage.promises().wanted().term.next();
        self.storage.promise(term, None);
        self.storage.truncate(self.last());
    }

    fn promise(&mut self) {
        let wanted = self.storage.promises().wanted();
        let (term, vote) = (wanted.term, wanted.vote);
        if vote.is_none() && self.draw(2) == 0 {
            self.storage.promise(term, Some(NodeId(term.0 % 3 + 1)));
        } else {
            self.storage.promise(term.next(), None);
        }
    }

    fn crash(&mut self) {
        self.crashes += 1;
        self.torn +=
            u32::from(self.in_flight.iter().any(|(_, r)| matches!(r, DiskRequest::Write { .. })));
        let mut rng = self.rng.clone();
        self.disk.crash(&self.in_flight, &mut |below| rng.next_u64() % below);
        self.rng = rng;
        self.in_flight.clear();
        if self.crashes.is_multiple_of(3) {
            self.look_after_crash();
        }
        self.recovered = None;
        self.is_checked = false;
        let seed = self.rng.next_u64();
        self.storage = Storage::new(&config(), seed);
        let is_formatted = self.disk.names.contains_key(&File::HardState);
        self.storage.on_start(if is_formatted { Start::Run } else { format() });
        self.settle();
    }

    /// Restarts until a restart comes through; now and then it crashes too.
    fn restart(&mut self) {
        self.crash();
        for _ in 0..3 {
            if self.draw(2) == 0 {
                for _ in 0..self.draw(60) {
                    self.complete();
                }
                self.crash();
            }
        }
        while self.recovered.is_none() {
            assert!(!self.in_flight.is_empty(), "a restart that waits for nothing");
            self.complete();
        }
        if self.crashes.is_multiple_of(3) {
            self.look_after_restart();
        }
        self.check();
    }

    fn check(&mut self) {
        let recovered = self.recovered.clone().expect("the restart is over");
        let found = (recovered.term, recovered.vote);
        assert!(found.0 >= self.promised.0, "term {:?} after {:?}", found, self.promised);
        if found.0 == self.promised.0 && self.promised.1.is_some() {
            assert_eq!(found.1, self.promised.1, "another vote in the same term");
        }
        let last = recovered.last;
        assert!(last.index.0 >= self.durable, "{last} found, {} was durable", self.durable);
        let lengths: Vec<_> = self.ghosts.iter().map(Vec::len).collect();
        let is_it = |log: &&Vec<Term>| {
            last == LogId::ZERO || log.get(last.index.0 as usize - 1) == Some(&last.term)
        };
        let log = [&self.log].into_iter().chain(&self.ghosts).find(is_it).cloned();
        let appended = self.log.len();
        self.log = log.unwrap_or_else(|| panic!("{last} found, {appended}, {lengths:?} appended"));
        self.log.truncate(last.index.0 as usize);
        assert!(recovered.snapshot.index.0 <= self.committed);
        assert!(recovered.snapshot.index.next() >= recovered.first || recovered.first.0 == 1);
        self.read_back(&recovered);
        self.durable = last.index.0;
        self.is_checked = true;
    }

    fn read_back(&mut self, recovered: &Recovered) {
        let mut next = recovered.first;
        while next <= recovered.last.index {
            self.storage.read(Reader::Machine, next, recovered.last.index, 20_000);
            self.settle();
            let read = loop {
                if let Some((_, read)) = self.storage.take_read() {
                    break read;
                }
                self.complete();
            };
            for entry in frames(&read.frames) {
                assert_eq!(entry.id.term, self.log[entry.id.index.0 as usize - 1]);
                assert!(entry.body[4..].iter().all(|&byte| byte == entry.id.index.0 as u8));
            }
            next = read.last.next();
        }
    }
}

#[test]
fn promises_and_durable_entries_survive_every_crash() {
    let seeds = std::env::var("CRASH_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(60u64);
    let from = std::env::var("CRASH_SEED").ok().and_then(|n| n.parse().ok());
    let seeds = from.map_or(0..seeds, |seed| seed..seed + 1);
    let (mut crashes, mut torn) = (0, 0);
    for seed in seeds {
        let result = std::panic::catch_unwind(|| {
            let mut lives = Lives::new(seed);
            for _ in 0..12 {
                for _ in 0..lives.draw(300) {
                    lives.step();
                }
                lives.restart();
            }
            (lives.crashes, lives.torn)
        });
        let (c, t) = result.unwrap_or_else(|_| panic!("seed {seed} (CRASH_SEED={seed})"));
        crashes += c;
        torn += t;
    }
    assert!(from.is_some() || torn * 5 > crashes, "{torn} of {crashes} crashes tore a write");
}
