//! What must be there, for whoever sees what is asked of the storage and what it answers.

use super::*;
use crate::report::Forced;
use crate::storage::{
    compact::SNAPSHOTS_KEPT, leftover::Leftover, saving::Saving, snapshots::SnapshotFile,
    terms::Terms,
};
use std::collections::{BTreeMap, BTreeSet};

/// What compaction keeps, one that is made, and one of whose name a restart knows nothing yet.
const SPARES_MAX: usize = 7;

#[derive(Default)]
pub(super) struct Known {
    /// The log as it was appended, entry by entry: its term.
    pub(super) log: Vec<Term>,
    /// What a cut takes away that is not done: until it is, a crash may bring it back.
    pub(super) ghosts: Vec<Vec<Term>>,
    /// What the cluster has committed; some of it may not have come here.
    pub(super) committed: Vec<Term>,
    /// How far the log was ever called durable, and not cut since.
    pub(super) durable: u64,
    /// How far it was when each entry of this life was appended: what the slots of durable ones prove.
    floors: BTreeMap<u64, u64>,
    /// Entries that were owed and are given again, of those the ones that this life lacks, and others that were
    /// there since.
    given: BTreeSet<LogIndex>,
    lacked: BTreeSet<LogIndex>,
    mended: BTreeSet<LogIndex>,
    pub(super) promised: (Term, Option<NodeId>),
    epoch: u64,
    /// The cluster epoch that is durable, and the one that is wanted.
    pub(super) epochs: (u64, u64),
    /// What the hard state calls durable, and the last membership that it knows to be committed.
    pub(super) hint: u64,
    pub(super) settled: LogId,
    /// The last two memberships that both of its copies name.
    pub(super) named: (LogId, LogId),
    /// There is a node, for good.
    pub(super) is_made: bool,
    /// Up to here it was made from a backup; what it was made from, as long as it has not met the others.
    pub(super) founded: u64,
    pub(super) origin: Origin,
    pub(super) may_have_formed: bool,
    /// How often it was to become the only voter since the last restart, and what was told of it.
    pub(super) forcings: u32,
    pub(super) forced: Option<Forced>,
    /// The membership in which it is alone by force: its entry is to be written yet, or was.
    pub(super) sole: LogId,
    /// The newest snapshot that was ever there.
    pub(super) snapshot: LogId,
    /// The membership in force, and the one before it: the entries that brought them.
    pub(super) newest: LogId,
    pub(super) previous: LogId,
    /// A snapshot that is taking the place of the log.
    pub(super) installing: Option<LogId>,
    /// A gate was found shut, and nobody has opened it.
    pub(super) is_shut: bool,
    /// Something was damaged, ever.
    pub(super) is_struck: bool,
    /// Since it became the only voter by force, if it did.
    pub(super) is_struck_since: bool,
    /// A snapshot could not be read, ever.
    has_spoilt: bool,
    /// This restart could not read something, which is as bad as damage.
    pub(super) is_blind: bool,
}

/// The entry of this index in a log.
pub(super) fn at(log: &[Term], index: u64) -> LogId {
    let term = index.checked_sub(1).map_or(Term(0), |at| log[at as usize]);
    LogId::new(term, LogIndex(index))
}

/// The last membership of a log up to an index.
pub(super) fn changed(log: &[Term], through: u64) -> LogId {
    let changes = (1..=through).rev().map(|index| at(log, index)).find(|id| is_change(*id));
    changes.unwrap_or(LogId::ZERO)
}

/// Where each term of a log begins, from an index on.
fn terms(log: &[Term], first: LogIndex) -> Terms {
    let mut terms = Terms::behind(at(log, first.previous().0));
    (first.0..=log.len() as u64).for_each(|index| terms.push(at(log, index)));
    terms
}

/// No file lies there that a storage at rest knows nothing of, and no spares without an end.
pub(super) fn count_files(storage: &Storage, readers: usize, files: &[(File, u64)]) {
    let Storage { journal, snapshots, .. } = storage;
    let sealed = journal.sealed.iter().map(|sealed| sealed.sequence);
    let active = journal.active.iter().map(|active| active.sequence);
    let whole = snapshots.whole.iter().chain(&snapshots.spoilt).map(SnapshotFile::file);
    let unread = snapshots.unread.iter().map(|(file, _)| *file);
    let parts = snapshots.staging.iter().chain(&snapshots.saving).map(Saving::part);
    let parts = parts.chain(snapshots.left.iter().map(Leftover::file));
    let known: Vec<_> = sealed.chain(active).map(File::Segment).chain(whole).collect();
    let known: Vec<_> = known.into_iter().chain(unread).chain(parts).collect();
    let (spares, others): (Vec<File>, Vec<File>) =
        files.iter().map(|(file, _)| *file).partition(|file| matches!(file, File::Spare(_)));
    let left = others.iter().find(|file| **file != File::HardState && !known.contains(file));
    assert_eq!(left, None, "nobody knows of it");
    let is_empty = |(file, len): &(File, u64)| matches!(file, File::Spare(_)) && *len == 0;
    assert!(spares.len() <= SPARES_MAX && !files.iter().any(is_empty), "{files:?}");
    let mut waiting: Vec<File> = journal.spares.waiting().collect();
    waiting.sort_unstable();
    assert_eq!(waiting, spares, "spares that nobody knows of");
    assert!(snapshots.whole.len() <= SNAPSHOTS_KEPT + readers, "more than are read");
}

impl Known {
    pub(super) fn last(&self) -> LogId {
        at(&self.log, self.log.len() as u64)
    }

    /// Up to here the log is what the cluster has committed.
    pub(super) fn agreed(&self) -> u64 {
        let both = self.log.iter().zip(&self.committed);
        both.take_while(|(own, theirs)| own == theirs).count() as u64
    }

    pub(super) fn is_committed(&self, id: LogId) -> bool {
        id.index.0 <= self.committed.len() as u64 && at(&self.committed, id.index.0) == id
    }

    /// An entry is about to be appended: so much is durable.
    pub(super) fn append(&mut self, term: Term, durable: LogIndex) {
        self.log.push(term);
        self.floors.insert(self.log.len() as u64, durable.0);
    }

    /// As far as slots alone prove that the log was durable.
    pub(super) fn floor(&self) -> u64 {
        self.floors.range(..=self.durable).map(|(_, floor)| *floor).max().unwrap_or(0)
    }

    /// A peer gives an entry that is bad.
    pub(super) fn give(&mut self, hole: LogIndex) {
        assert!(!self.mended.contains(&hole), "{hole} was mended, and is bad again");
        self.given.insert(hole);
    }

    /// A restart believes slots, but what is read is there.
    pub(super) fn read(&mut self, first: LogIndex, through: LogIndex) {
        let read = self.given.extract_if(first..=through, |_| true);
        self.mended.extend(read);
    }

    /// The disk is damaged: any of them may be bad again.
    pub(super) fn forget_mended(&mut self) {
        self.mended.clear();
    }

    pub(super) fn truncate(&mut self, kept: u64) {
        self.floors.split_off(&(kept + 1));
        self.mended.split_off(&LogIndex(kept + 1));
        self.given.split_off(&LogIndex(kept + 1));
        self.ghosts.push(self.log.clone());
        self.log.truncate(kept as usize);
        self.durable = self.durable.min(kept);
    }

    /// After each step of a life.
    pub(super) fn watch(&mut self, storage: &Storage) {
        let (promised, durable) = (storage.promised(), storage.durable().0);
        assert!(promised >= self.promised, "{promised:?} after {:?}", self.promised);
        self.promised = promised;
        self.epoch = self.epoch.max(storage.write_epoch());
        let hard = storage.promises().durable();
        (self.epochs.0, self.hint) = (hard.identity.cluster_epoch, hard.durable_hint.0);
        self.settled =
            Some(hard.newest.at).filter(|at| at.index <= hard.commit_hint).unwrap_or(self.settled);
        self.named = (hard.newest.at, hard.previous.at);
        if !hard.restored {
            self.origin = Origin::default();
        }
        if let Some(at) = self.installing.take_if(|at| storage.installed() == Some(*at)) {
            self.log = self.committed[..at.index.0 as usize].to_vec();
            self.durable = at.index.0;
            self.floors.clear();
            self.mended.clear();
            self.given.clear();
            let members = self.changed(&self.log, self.durable);
            assert_eq!(storage.members_installed().at, members, "in force behind {at}");
            (self.newest, self.previous) = (members, members);
        }
        assert!(durable <= self.log.len() as u64, "{durable} is durable of {}", self.log.len());
        let owed = storage.first_owed();
        assert!(owed.is_none_or(|owed| durable < owed.0), "{durable} is durable, {owed:?} is bad");
        if self.installing.is_none() {
            self.durable = self.durable.max(durable);
        }
        self.snapshot = self.snapshot.max(storage.snapshot());
        // One that is pinned stays, though two newer ones are there, until one of these cannot be read.
        // That may be gone by now, and the pinned one stays.
        self.has_spoilt |= storage.marks().has(Mark::SnapshotFoundBad);
        let is_bad = self.is_struck || self.has_spoilt || !storage.snapshots.spoilt.is_empty();
        if let ([.., older, _], false) = (&storage.snapshots.whole[..], is_bad) {
            let at = older.header.at;
            assert!(storage.first() <= at.index.next(), "the log does not lead on from {at}");
        }
        let holes = &storage.journal.holes;
        let is_there = |index: &LogIndex| holes.first_from(*index) != Some(*index);
        // What a snapshot holds is owed by nobody, and need not be written again before it counts.
        let newest = self.snapshot.index;
        self.given.retain(|index| *index > newest && (is_there(index) || holes.owes(*index)));
        self.lacked.extend(self.given.iter().filter(|index| !is_there(index)));
        let is_written = |index: &LogIndex| self.lacked.contains(index) && is_there(index);
        self.mended.extend(self.given.extract_if(.., |index| is_written(index)));
        if storage.journal.cut.is_none() {
            self.ghosts.clear();
        }
    }

    /// What a restart found.
    pub(super) fn judge(&mut self, found: &Recovered) {
        self.judge_identity(found);
        let Recovered { term, vote, last, first, snapshot, .. } = *found;
        assert!(term >= self.promised.0, "{term} after {:?}", self.promised);
        let is_told = term > self.promised.0 || self.promised.1.is_none_or(|own| vote == Some(own));
        assert!(is_told, "{vote:?} after {:?}", self.promised);
        assert!(found.write_epoch > self.epoch, "two lives of epoch {}", self.epoch);
        let is_gated = found.gate.is_some();
        assert!(is_gated || !self.is_shut, "the gate is open");
        assert!(self.is_struck || self.is_blind || !is_gated, "a gate after crashes alone");
        self.is_shut = is_gated;
        self.is_struck |= is_gated;
        let is_installed = self.installing.take() == Some(last);
        if is_gated || is_installed {
            // The log was given up: it is told, or meant.
            self.ghosts.push(self.committed.clone());
            self.durable = self.durable.min(last.index.0);
        }
        assert!(last.index.0 >= self.durable, "{last} found, {} was durable", self.durable);
        let is_it =
            |log: &&Vec<Term>| log.len() as u64 >= last.index.0 && at(log, last.index.0) == last;
        let log = [&self.log].into_iter().chain(&self.ghosts).find(is_it);
        let log = log.unwrap_or_else(|| panic!("{last} found, {} was last", self.last()));
        self.log = log[..last.index.0 as usize].to_vec();
        self.durable = last.index.0;
        self.floors.clear();
        self.lacked.clear();
        if is_gated || is_installed {
            self.mended.clear();
            self.given.clear();
        }
        if is_installed {
            // Who were members behind the snapshot are so until its leader sends what follows.
            self.settled = LogId::ZERO;
        }
        self.judge_rest(found);
        (self.newest, self.previous) = (found.membership.at, found.previous.at);
        self.named = (self.newest, self.previous);
        let (newest, settled) = (self.newest.index, self.settled);
        assert!(newest >= settled.index, "in force of {newest}, committed was {settled}");
        self.stand_alone();
        if !self.is_struck {
            assert_eq!(self.newest, self.changed(&self.log, self.durable), "in force at {last}");
            // What could not be read is done without.
            let is_as_new = self.is_blind || snapshot >= self.snapshot;
            assert!(is_as_new, "{snapshot} after {}", self.snapshot);
            assert!(first <= snapshot.index.next(), "{first} behind {snapshot}");
            assert!(found.last_time.0 >= last.index.0, "{:?} at {last}", found.last_time);
        }
    }

    fn judge_rest(&self, found: &Recovered) {
        let Recovered { first, snapshot, committed, .. } = *found;
        assert!(self.is_committed(snapshot), "{snapshot} was never committed");
        assert!(committed.0 <= self.committed.len() as u64, "{committed} is not committed");
        assert!(committed >= snapshot.index, "{committed} below {snapshot}");
        assert_eq!(found.terms, terms(&self.log, first));
    }
}
