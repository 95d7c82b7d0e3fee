//! What a restart saw: files, blocks, segments; and what follows from them for the verdict.
//!
//! Knows no disk operations: `recovery.rs` brings the bytes.

mod hard;
mod log;
mod report;
mod states;
mod telling;

pub(super) use report::Seen;

use log::{Log, Wrong};

use super::{
    Identity, Recovered,
    found::{PartFound, SegmentFound, SnapshotFound},
    install,
    journal::Journal,
    leftover::Leftover,
    promises::Promises,
    roll::{Spare, Spares},
    snapshots::SnapshotFile,
    terms::Terms,
    verdict::{self, Found},
};
use crate::{
    action::Halt,
    backup,
    config::Config,
    disk::{
        Fault,
        hard_state::{First, Gate, HardState},
        segment::{EndRecord, Header},
        snapshot::{self, Origin},
    },
    entry::Seed,
    event::Start,
    file::File,
    membership::{Member, Membership},
    types::{GroupId, LogId, LogIndex, NodeId, Term, Timestamp},
};
use bytes::Bytes;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng as _, SeedableRng as _},
};

#[derive(Clone, Debug)]
pub(crate) struct Look {
    config: Config,
    files: Vec<(File, u64)>,
    blocks: [[Result<HardState, Fault>; 2]; 2],
    /// Which of them are zeros.
    zeros: [[bool; 2]; 2],
    pub(super) hard: Option<HardState>,
    /// Whose a block is that is not of this group.
    stranger: Option<Identity>,
    pub(super) snapshots: Vec<SnapshotFound>,
    /// Those that are not whole.
    broken: Vec<SnapshotFound>,
    /// Those that a crash broke off; once it is judged, the one to go on with.
    pub(super) parts: Vec<PartFound>,
    pub(super) segments: Vec<SegmentFound>,
    /// Room for segments to come.
    pub(super) spares: Vec<Spare>,
    /// Files that nothing needs.
    pub(super) doomed: Vec<File>,
    log: Log,
    /// No slot is believed: all entries are read.
    reads_all: bool,
    /// What takes the place of the log that was found.
    instead: Option<Instead>,
}

/// What takes the place of a log that was found.
#[derive(Clone, Debug)]
enum Instead {
    /// A snapshot from a peer.
    Installed(Box<SnapshotFile>),
    /// Nothing behind this entry: it comes from a leader again, and until then there is no vote.
    Refetched(LogId),
    /// What is left of it from here on. The newest snapshot holds what the rest did, of which this
    /// is bad.
    BegunLater(First, Wrong),
}

impl Look {
    pub(crate) fn new(config: &Config) -> Self {
        let absent = || Err(Fault::Absent);
        Self {
            config: config.clone(),
            files: Vec::new(),
            blocks: [[absent(), absent()], [absent(), absent()]],
            zeros: [[false; 2]; 2],
            hard: None,
            stranger: None,
            snapshots: Vec::new(),
            broken: Vec::new(),
            parts: Vec::new(),
            segments: Vec::new(),
            spares: Vec::new(),
            doomed: Vec::new(),
            log: Log::default(),
            reads_all: false,
            instead: None,
        }
    }

    pub(super) fn take_files(&mut self, mut files: Vec<(File, u64)>) {
        files.sort_unstable();
        let mut spares = Vec::new();
        for &(file, len) in &files {
            match file {
                File::Segment(sequence) => self.segments.push(SegmentFound::new(sequence, len)),
                File::Snapshot(at) => {
                    let (header, footer) = (Bytes::new(), Bytes::new());
                    let is_unread = false;
                    self.snapshots.push(SnapshotFound { at, len, header, footer, is_unread });
                }
                File::Part(at, id) => {
                    let left = Leftover { at, id, len };
                    self.parts.push(PartFound { left, header: Bytes::new() });
                }
                File::Spare(number) => spares.push(Spare { number, len }),
                File::HardState => {}
            }
        }
        let (useful, useless) = Spares::sort_out(spares, &self.config);
        self.spares = useful;
        self.doomed.extend(useless.iter().map(|spare| File::Spare(spare.number)));
        self.snapshots.sort_by_key(|snapshot| snapshot.at);
        self.files = files;
    }

    /// A crash while a node is built leaves spares only: that is nothing at all.
    pub(super) fn is_empty(&self) -> bool {
        self.files.iter().all(|(file, _)| matches!(file, File::Spare(_)))
    }

    /// A crash while a node is made from a backup leaves snapshots, and no hard state: that is
    /// nothing either, but may be all that is left of another node.
    pub(super) fn is_unfinished(&self) -> bool {
        let is_node = |file: &File| matches!(file, File::HardState | File::Segment(_));
        !self.is_empty() && !self.files().any(|file| is_node(&file))
    }

    pub(super) fn files(&self) -> impl Iterator<Item = File> {
        self.files.iter().map(|(file, _)| *file)
    }

    pub(super) const fn has_files(&self) -> bool {
        !self.files.is_empty()
    }

    /// Whether something lies behind the log that was never proven durable, as far as could be read.
    pub(super) const fn is_torn(&self) -> bool {
        self.log.is_torn
    }

    pub(super) fn take_foot(&mut self, segment: u32, bytes: &[u8]) {
        let Some((header, end)) = bytes.split_at_checked(self.config.disk_align as usize) else {
            return;
        };
        self.take_header(segment, header);
        let group = self.config.group;
        let found = &mut self.segments[segment as usize];
        found.end = EndRecord::decode(end, group, found.sequence).ok();
    }

    pub(super) fn take_header(&mut self, segment: u32, bytes: &[u8]) {
        let group = self.config.group;
        let found = &mut self.segments[segment as usize];
        let header = Header::decode(bytes, group, found.sequence);
        found.header = header.ok().filter(|header| header.layout.len == found.len);
    }

    /// Whether no state is needed: the log holds all there ever was.
    pub(super) fn begins_with_the_first(&self) -> bool {
        self.hard().first.index <= LogIndex(1) && !self.begins_later()
    }

    /// Whether a cut was marked and perhaps not cleared.
    pub(super) fn is_cutting(&self) -> bool {
        self.hard().cutting
    }

    /// The log's group.
    pub(super) const fn group(&self) -> GroupId {
        self.config.group
    }

    pub(super) fn align(&self) -> u64 {
        u64::from(self.config.disk_align)
    }

    /// What ties entries to this cluster and group.
    pub(super) fn seed(&self) -> Seed {
        self.rules().seed
    }

    /// Whether nobody else has what is here, or may have: a change that is not known to be committed may
    /// not even be in the log, and whoever it adds has nothing yet.
    pub(super) fn is_alone(&self) -> bool {
        let hard = self.hard();
        let is_sole = |members: &Membership| members.is_sole_voter(hard.identity.node);
        let may_be_undone = hard.newest.at.index > hard.commit_hint;
        is_sole(&hard.newest) || may_be_undone && is_sole(&hard.previous)
    }

    /// Frees what no entry lies in, and tells which segments must be scanned.
    pub(super) fn segments_to_scan(&mut self) -> Vec<u32> {
        let (rules, hard) = (self.rules(), self.hard().clone());
        // Its log was given up, by a former restart or while it ran.
        if hard.gated {
            self.forget_spares();
        }
        let is_needed = |found: &SegmentFound| {
            let is_dead = found.header.as_ref().is_some_and(|header| {
                header.first > rules.cut.from && rules.is_dead(header.first, header.epoch)
            });
            (hard.first.segment..=hard.newest_segment).contains(&found.sequence) && !is_dead
        };
        let (needed, dead) = std::mem::take(&mut self.segments).into_iter().partition(is_needed);
        self.segments = needed;
        self.doomed.extend(dead.iter().map(|found: &SegmentFound| File::Segment(found.sequence)));
        for found in &mut self.segments {
            let end = found.end.take();
            let is_live = |end: &EndRecord| {
                !rules.is_dead(end.last.index, end.epoch)
                    && rules.stop.is_none_or(|stop| end.last.index < stop)
            };
            found.end = end.filter(|end| is_live(end) && !end.runs.is_empty());
            // Its slots tell where it lies.
            let first = found.header.as_ref().map(|header| header.first);
            let is_filled = |end: &mut EndRecord| {
                first.is_some_and(|first| (first..=end.last.index).contains(&hard.filling))
            };
            if let Some(end) = found.end.take_if(is_filled) {
                found.proven = end.floor();
            }
        }
        let needs_scan = |found: &SegmentFound| found.header.is_some() && found.end.is_none();
        (0..self.segments.len() as u32)
            .filter(|&n| needs_scan(&self.segments[n as usize]))
            .collect()
    }

    /// The newest snapshot takes the place of the log: the crash came before the hard state said so.
    pub(super) fn finish_install(&mut self) {
        let snapshot = self.whole_snapshots().pop().expect("the verdict rests on it");
        let at = snapshot.header.at;
        self.give_log_up(at);
        self.instead = Some(Instead::Installed(Box::new(snapshot)));
        self.drop_older_snapshots(at);
    }

    /// The log is fetched again from behind the newest snapshot on.
    pub(super) fn refetch_log(&mut self) {
        let at = self.snapshot();
        self.give_log_up(at);
        self.drop_older_snapshots(at);
        self.instead = Some(Instead::Refetched(at));
    }

    /// The log may begin anew further back: what was recycled could hold entries that follow.
    fn forget_spares(&mut self) {
        self.doomed.extend(self.spares.drain(..).map(|spare| File::Spare(spare.number)));
    }

    fn give_log_up(&mut self, at: LogId) {
        self.forget_spares();
        self.doomed.extend(self.segments.drain(..).map(|found| File::Segment(found.sequence)));
        self.log = Log { first: at.index.next(), last: at, proven: at.index, ..Log::default() };
    }

    pub(super) fn found(&self, start: &Start) -> Found {
        let (hard, log, snapshot) = (self.hard(), &self.log, self.snapshot());
        Found {
            mode: verdict::Mode::Run,
            is_empty: false,
            hard: verdict::Hard::Good,
            is_cutting: hard.cutting,
            install: self.install(),
            is_term_ahead: snapshot.term > hard.term
                || log.last.term > hard.term
                || self.newest_epoch() > hard.identity.cluster_epoch,
            machine: machine(start, log, snapshot),
            base: base(log, snapshot),
            begins_later: self.begins_later(),
            tail: match &log.wrong {
                Some(wrong) if wrong.is_unknown => verdict::Tail::Unknown,
                Some(_) if self.is_owed() => verdict::Tail::Damaged,
                Some(_) => verdict::Tail::Covered,
                None if log.is_torn => verdict::Tail::Torn,
                None => verdict::Tail::Whole,
            },
            is_alone: self.is_alone(),
        }
    }

    fn install(&self) -> verdict::Install {
        let (hard, whole) = (self.hard(), self.whole_snapshots());
        let is_staged = whole.iter().any(|found| found.header.id == hard.install.id);
        // One that was joining a log does not stand for what was durable behind it, and is lost: what proved how far
        // that was may be lost as well.
        let is_more_lost = self.log.is_unknown() && !self.log.is_short;
        let is_unknown = |found: &SnapshotFile| {
            self.is_unrecorded(&found.header) && !self.is_joined(found.header.at) && !is_more_lost
        };
        match hard.installing {
            true if is_staged => verdict::Install::Staged,
            true => verdict::Install::Partial,
            false if whole.iter().any(is_unknown) => verdict::Install::Unmarked,
            false => verdict::Install::None,
        }
    }

    /// Whether it came from a peer, and nothing in the hard state says so.
    pub(super) fn is_unrecorded(&self, header: &snapshot::Header) -> bool {
        let hard = self.hard();
        header.origin == Origin::Installed
            && header.id != hard.install.id
            && header.at.index > hard.commit_hint
    }

    /// Whether the log holds its last entry: it goes on from it like from an own one.
    fn is_joined(&self, at: LogId) -> bool {
        at.index <= self.log.last.index && self.term_at(at.index) == at.term
    }

    /// The newest snapshot, if a crash came before the hard state named it.
    pub(super) fn joined(&self) -> Option<snapshot::Header> {
        let SnapshotFile { header, .. } = self.whole_snapshots().pop()?;
        let is_it = self.instead.is_none() && self.is_unrecorded(&header);
        (is_it && self.is_joined(header.at)).then_some(header)
    }

    /// Whether what the log was is known, but for a torn tail.
    pub(super) fn is_log_known(&self) -> bool {
        !self.log.is_unknown()
    }

    /// What is bad before the log, if that begins later for it.
    const fn lost_before(&self) -> Option<&Wrong> {
        match &self.instead {
            Some(Instead::BegunLater(_, lost)) => Some(lost),
            _ => None,
        }
    }

    /// Whether there is such a thing.
    pub(super) const fn begins_later(&self) -> bool {
        self.lost_before().is_some()
    }

    /// The hard state as it is adopted: a new write epoch, in both copies before anything else.
    pub(super) fn promises(&self) -> Promises {
        let found = self.hard().clone();
        let mut wanted = found.clone();
        wanted.write_epoch += 1;
        wanted.clean = false;
        wanted.align = self.config.disk_align;
        if !self.is_in_force(&wanted.newest) {
            wanted.newest = wanted.previous.clone();
        }
        match &self.instead {
            None => {}
            Some(Instead::Installed(snapshot)) => install::adopt(&mut wanted, &snapshot.header),
            Some(Instead::BegunLater(first, _)) => wanted.first = *first,
            Some(Instead::Refetched(at)) => {
                let until = found.durable_hint.max(found.commit_hint);
                install::begin_behind(&mut wanted, *at);
                let nonce = [wanted.identity.incarnation, wanted.write_epoch];
                wanted.gated = true;
                wanted.gate = Gate { term: found.term, from: at.index.next(), until, nonce };
            }
        }
        Promises::new(found, wanted, self.numbers())
    }

    pub(super) fn fill(&self, journal: &mut Journal) {
        journal.identity = self.hard().identity;
        journal.spares.adopt(&self.spares);
        journal.active = self.segments.last().and_then(SegmentFound::as_active);
        let is_active = |found: &&SegmentFound| {
            journal.active.as_ref().is_some_and(|active| active.sequence == found.sequence)
        };
        let full = self.segments.iter().filter(|found| !is_active(found));
        journal.sealed = full.filter_map(SegmentFound::as_sealed).collect();
        journal.last = self.log.last;
        journal.durable = self.log.proven.min(self.log.last.index);
        let snapshot = self.snapshot().index;
        for found in &self.segments {
            let (Some(header), Some(scanned)) = (&found.header, &found.scanned) else { continue };
            let filling = self.hard().filling;
            let doubted = scanned.slots.iter().find(|slot| slot.id.index == filling);
            if let Some(&slot) = doubted.filter(|_| filling > snapshot)
                && !scanned.holes.contains(&slot)
            {
                journal.holes.doubt(slot, found.sequence, header.layout);
                journal.durable = journal.durable.min(filling.previous());
            }
            for &slot in &scanned.holes {
                let is_owed = slot.id.index > snapshot && !cfg!(lakebed_break = "owe_nothing");
                journal.holes.add(slot, found.sequence, header.layout, is_owed);
                if is_owed {
                    journal.durable = journal.durable.min(slot.id.index.previous());
                }
            }
        }
    }

    pub(super) const fn last(&self) -> LogId {
        self.log.last
    }

    pub(super) const fn proven(&self) -> LogIndex {
        self.log.proven
    }

    pub(super) fn recovered(&self, promises: &Promises) -> Recovered {
        let hard = promises.durable();
        let snapshot = self.snapshot();
        Recovered {
            identity: hard.identity,
            seed: Seed::new(hard.identity.cluster, hard.identity.group),
            term: hard.term,
            vote: hard.vote,
            write_epoch: hard.write_epoch,
            snapshot,
            first: self.log.first,
            last: self.log.last,
            last_time: self.last_time(),
            terms: self.terms(hard.first.prev_term),
            // The log begins behind what was committed, also when that snapshot is lost.
            committed: hard.commit_hint.max(snapshot.index).max(self.log.first.previous()),
            membership: hard.newest.clone(),
            previous: hard.previous.clone(),
            gate: hard.gated.then_some(hard.gate.nonce),
            origin: origin(hard),
        }
    }

    /// Whether the log holds the entry that this membership came with, or began behind it. The hard state names
    /// it before the entry is written: a crash in between leaves the name alone. One that is known to be
    /// committed stays in force though its entry is lost.
    pub(super) fn is_in_force(&self, membership: &Membership) -> bool {
        let LogId { index, term } = membership.at;
        // A snapshot may hold another entry of that index, of which the log tells.
        let is_in_log = (self.log.first..=self.log.last.index).contains(&index);
        let is_it = if is_in_log {
            self.term_at(index) == term
        } else {
            index < self.log.first || index <= self.snapshot().index
        };
        let is_told = is_in_log && self.is_log_known();
        is_it || !is_told && index <= self.hard().commit_hint
    }

    /// Of what the log and the snapshots hold. The last segment may have no entry yet, or its last one may be bad.
    fn last_time(&self) -> Timestamp {
        let snapshots = self.whole_snapshots().into_iter().map(|found| found.header.time);
        let segments = self.segments.iter().map(SegmentFound::last_time);
        snapshots.chain(segments).max().unwrap_or_default()
    }

    /// The term of an entry of the log.
    pub(super) fn term_at(&self, index: LogIndex) -> Term {
        let before = self.hard().first.prev_term;
        self.terms(before).at(index).unwrap_or(before)
    }

    /// Of the whole log, which begins behind an entry of this term.
    fn terms(&self, before: Term) -> Terms {
        let mut terms = Terms::behind(LogId::new(before, self.log.first.previous()));
        for found in &self.segments {
            let slots = found.scanned.iter().flat_map(|scanned| &scanned.slots);
            let slots = slots.map(|slot| (slot.id.index, slot.id.term));
            let runs = found.end.iter().flat_map(|end| end.runs.iter().copied());
            runs.chain(slots).for_each(|(index, term)| terms.push(LogId::new(term, index)));
        }
        terms
    }
}

/// What a member was made from that has not met all others yet.
fn origin(hard: &HardState) -> backup::Origin {
    let made = backup::Origin { at: hard.install.at, id: hard.install.id };
    if hard.restored { made } else { backup::Origin::default() }
}

fn machine(start: &Start, log: &Log, snapshot: LogId) -> verdict::Machine {
    match start {
        Start::Resume { machine } if machine.index > log.last.index.max(snapshot.index) => {
            verdict::Machine::Ahead
        }
        Start::Resume { machine } if machine.index.next() < log.first => verdict::Machine::Behind,
        Start::Resume { .. } => verdict::Machine::Resumed,
        _ => verdict::Machine::Restored,
    }
}

fn base(log: &Log, snapshot: LogId) -> verdict::Base {
    if snapshot == LogId::ZERO {
        return if log.first.0 <= 1 { verdict::Base::LogOnly } else { verdict::Base::Missing };
    }
    if snapshot.index.next() < log.first {
        verdict::Base::Gap
    } else if log.last.index < snapshot.index {
        verdict::Base::Covered
    } else {
        verdict::Base::Joined
    }
}

pub(super) fn refused(
    row: &'static str,
    file: File,
    offset: u64,
    expected: &str,
    found: &str,
) -> Halt {
    Halt::Refused { row, file, offset, expected: expected.into(), found: found.into() }
}

/// The same membership, with one member's incarnation known.
pub(super) fn with_incarnation(members: &Membership, id: NodeId, incarnation: u64) -> Membership {
    let mut members = members.clone();
    let Membership { voters, outgoing, learners, .. } = &mut members;
    for member in voters.iter_mut().chain(outgoing).chain(learners) {
        let Member { id: other, incarnation: met, .. } = member;
        if *other == id {
            *met = incarnation;
        }
    }
    members
}

/// The first draw of the engine's seed.
pub(super) fn draw(seed: u64) -> u64 {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8] = 1;
    ChaCha8Rng::from_seed(bytes).next_u64()
}
