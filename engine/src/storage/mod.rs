//! The treaty between consensus and disk: upward it speaks watermarks, downward disk requests.
//!
//! Knows no roles. Invariant: what it calls durable survives any crash, and a promise it reports
//! lies in both copies of the hard state.

mod compact;
mod completed;
mod cut;
mod found;
mod gathered;
mod holes;
mod install;
mod journal;
mod leftover;
mod look;
mod lost;
mod ops;
mod peers;
mod pins;
mod plain;
mod progress;
mod promises;
mod reader;
mod recovery;
mod repair;
mod restoring;
mod roll;
mod saving;
mod scan;
mod scrub;
mod serving;
mod snapshots;
mod spoilt;
mod states;
mod terms;
mod verdict;
mod verify;

use self::{
    compact::Compaction,
    install::Installing,
    journal::Journal,
    lost::GivingUp,
    ops::Ops,
    promises::Promises,
    reader::Reads,
    recovery::{Parts, Recovery as Restart},
    scrub::Scrub,
    snapshots::Snapshots,
};
use crate::{
    action::{Action, Halt},
    backup::Origin,
    config::{Config, Tuning},
    entry::{Head, Seed},
    event::{Chunk, MachineError, Start},
    file::File,
    marks::{Mark, Marks},
    membership::Membership,
    status::Recovery,
    types::{CaptureId, Instant, LogId, LogIndex, NodeId, Term, Timestamp, earliest},
};
use bytes::Bytes;
use std::sync::Arc;

pub(crate) use crate::types::Identity;
pub(crate) use snapshots::Receiving;
pub(crate) use terms::Terms;

/// What a restart found: handed over once, when the node may vote and acknowledge.
#[derive(Clone, Debug)]
pub(crate) struct Recovered {
    pub(crate) identity: Identity,
    pub(crate) seed: Seed,
    pub(crate) term: Term,
    pub(crate) vote: Option<NodeId>,
    /// Raised at each start and each cut; the log epoch of messages.
    pub(crate) write_epoch: u64,
    /// The state machine is restored to here (in the background); [`LogId::ZERO`]: empty.
    pub(crate) snapshot: LogId,
    /// The first index in the log; `last.index + 1` when it is empty.
    pub(crate) first: LogIndex,
    /// The last entry, or the snapshot's when the log is empty.
    pub(crate) last: LogId,
    /// The leader's clock in the last entry; zero when it is not known.
    pub(crate) last_time: Timestamp,
    /// Of its entries, and of what it begins behind.
    pub(crate) terms: Terms,
    /// A lower bound of what is committed; at least the snapshot's index.
    pub(crate) committed: LogIndex,
    pub(crate) membership: Arc<Membership>,
    /// The one before it, in force again should `membership.at` be cut.
    pub(crate) previous: Arc<Membership>,
    /// Entries that were durable are gone: names that fault.
    pub(crate) gate: Option<[u64; 2]>,
    /// What it was made from, as long as it has not met all other members.
    pub(crate) origin: Origin,
}

/// Who wants entries back from disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Reader {
    Machine,
    /// A follower that lags.
    Peer(NodeId),
    /// A node whose disk has lost an entry.
    Refill(NodeId),
    /// Nobody: it is seen whether it can be read.
    Scrub,
}

/// Entries read back: whole frames, verified, contiguous.
#[derive(Clone, Debug)]
pub(crate) struct ReadBack {
    pub(crate) first: LogIndex,
    pub(crate) last: LogIndex,
    pub(crate) frames: Bytes,
}

/// One node's files.
#[derive(Clone, Debug)]
pub(crate) struct Storage {
    config: Config,
    seed: u64,
    ops: Ops,
    restart: Option<Box<Restart>>,
    report: Recovery,
    /// When the phase that it is in began.
    phase_began: Instant,
    promises: Option<Promises>,
    journal: Journal,
    reads: Reads,
    snapshots: Snapshots,
    compaction: Compaction,
    scrub: Scrub,
    installing: Installing,
    /// A full segment that ends there has lost an entry, and nobody else has it: a snapshot is to stand for
    /// it.
    unstood: Option<LogIndex>,
    committed: LogIndex,
    /// What was known to be committed at the start: the restart ends when that is applied.
    replay_to: LogIndex,
    /// The machine keeps a state of its own, which no peer gives it anew.
    keeps_state: bool,
    giving_up: Option<GivingUp>,
    fault: Option<Halt>,
    /// There are other members, voters or not: they may have what is lost here.
    has_others: bool,
    /// Nothing is under way here but the log's own writes.
    is_plain: bool,
}

impl Storage {
    pub(crate) fn new(config: &Config, seed: u64) -> Self {
        let identity = Identity { group: config.group, node: config.node, ..Identity::default() };
        let mut storage = Self {
            seed,
            ops: Ops::default(),
            restart: None,
            report: Recovery::default(),
            phase_began: Instant::default(),
            promises: None,
            journal: Journal::new(identity, config),
            reads: Reads::new(Seed::default(), config.group),
            snapshots: Snapshots::new(identity, config),
            compaction: Compaction::default(),
            scrub: Scrub::default(),
            installing: Installing::default(),
            unstood: None,
            committed: LogIndex(0),
            replay_to: LogIndex(0),
            keeps_state: config.machine_keeps_state,
            giving_up: None,
            fault: None,
            has_others: false,
            is_plain: false,
            config: config.clone(),
        };
        storage.compaction.tune(&config.tuning);
        storage.scrub.tune(config.tuning.scrub_interval);
        storage
    }

    /// New limits, from now on.
    pub(crate) fn tune(&mut self, tuning: &Tuning) {
        self.stray();
        self.config.tuning = tuning.clone();
        self.journal.tune(tuning);
        self.snapshots.tune(tuning);
        self.compaction.tune(tuning);
        self.scrub.tune(tuning.scrub_interval);
    }

    // ---- facts -------------------------------------------------------------------------------

    pub(crate) fn on_start(&mut self, start: Start) {
        self.stray();
        self.restart = Some(Box::new(Restart::new(self.config.clone(), self.seed, start)));
    }

    pub(crate) fn on_captured(&mut self, capture: CaptureId, result: Result<Chunk, MachineError>) {
        self.stray();
        self.snapshots.on_captured(capture, result);
    }

    pub(crate) fn on_restored(&mut self, through: u64, result: Result<(), MachineError>) {
        self.stray();
        self.snapshots.on_restored(through, result);
    }

    // ---- steps of settle ---------------------------------------------------------------------

    /// Goes on with the restart. `Some` exactly once: the node may vote and acknowledge from here.
    pub(crate) fn recover(&mut self, now: Instant, out: &mut Vec<Action>) -> Option<Recovered> {
        let mut restart = self.restart.take()?;
        let (journal, promises) = (&mut self.journal, &mut self.promises);
        let (snapshots, ops) = (&mut self.snapshots, &mut self.ops);
        let result = restart.go_on(now, &mut Parts { journal, promises, snapshots, ops });
        if result == Ok(true) {
            restart.end(now);
            self.phase_began = now;
        }
        self.report = restart.report().clone();
        let recovered = match result {
            Ok(true) => Some(self.take_over(&restart)),
            Ok(false) => {
                self.restart = Some(restart);
                None
            }
            Err(halt) => {
                self.fault.get_or_insert(halt);
                return None;
            }
        };
        self.write_promises();
        self.ops.drain_into(out);
        recovered
    }

    fn take_over(&mut self, restart: &Restart) -> Recovered {
        let promises = self.promises.as_ref().expect("the restart adopted the hard state");
        let recovered = restart.recovered(promises);
        self.journal.terms = recovered.terms.clone();
        self.reads = Reads::new(recovered.seed, self.config.group);
        self.snapshots = Snapshots::new(recovered.identity, &self.config);
        self.snapshots.whole = restart.whole_snapshots();
        self.snapshots.unread = restart.unread_snapshots();
        self.snapshots.left = restart.leftover();
        self.committed = recovered.committed;
        self.replay_to = recovered.committed;
        self.reads.replay_to(self.replay_to, self.config.tuning.apply_bytes_max);
        self.know_others(&recovered.membership, &recovered.previous);
        self.keeps_state |= restart.resumes().is_some();
        restart.joined().into_iter().for_each(|header| self.installing.is_to_record(&header));
        if !cfg!(lakebed_break = "read_nothing_behind_a_restart") {
            self.scrub.verify_behind(restart.believed());
        }
        // Else what it lacks is in a snapshot, and not in the log any more.
        let is_reached = |machine: &LogId| machine.index.next() >= recovered.first;
        match restart.resumes().filter(is_reached) {
            Some(machine) => self.snapshots.resume(machine),
            None if restart.has_lost_state() => {
                self.ops.met(Mark::SnapshotLost);
                self.snapshots.is_lost = true;
            }
            None => self.snapshots.restore(&mut self.ops),
        }
        recovered
    }

    /// Writes what is wanted and not yet on its way: hard state, entries, cuts, reads, snapshot.
    pub(crate) fn persist(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.is_plain {
            self.go_on_writing(now);
        }
        if !self.is_plain {
            self.go_on(now, out);
        }
        self.ops.drain_into(out);
    }

    /// Goes on with everything.
    fn go_on(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.give_up(out) {
            return;
        }
        if let (None, Some(promises)) = (&self.restart, &mut self.promises) {
            self.snapshots.pins.expire(self.config.tuning.pin_idle, now, &mut self.ops);
            self.snapshots.go_on_restoring(self.journal.first(), &mut self.ops);
            let newest = self.snapshots.newest();
            let (durable, is_stuck) = (self.journal.durable(), self.journal.waits_for_room());
            self.snapshots.go_on_saving(durable, is_stuck, &mut self.ops);
            if self.snapshots.newest() > newest {
                // It may have been begun before what it is to stand for was found.
                self.snapshots.stand_for(self.journal.holes.last());
                let newest = self.snapshots.newest().index;
                let stood_for = self.unstood.take_if(|last| *last <= newest);
                stood_for.into_iter().for_each(|last| self.compaction.begin_behind(last));
                self.snapshots.wants_fresh |= self.unstood.is_some();
            }
            self.snapshots.go_on_staging(&mut self.ops);
            self.installing.record(&self.journal, promises);
            if self.installing.is_under_way() {
                let (journal, snapshots) = (&mut self.journal, &mut self.snapshots);
                self.installing.go_on(journal, snapshots, promises, &mut self.ops);
            } else {
                let newest = self.snapshots.newest().index;
                if let Some(last) = self.compaction.take_unstood(newest, &self.journal) {
                    self.unstood = self.unstood.max(Some(last));
                    self.snapshots.wants_fresh = true;
                }
                self.compaction.go_on(
                    &mut self.journal,
                    &mut self.snapshots,
                    &self.reads,
                    promises,
                    &mut self.ops,
                );
            }
            // After the compaction: it may have recycled the segment that the log waits for.
            let was_cutting = self.journal.cut.is_some();
            self.journal.persist(now, promises, &mut self.ops);
            if was_cutting && self.journal.cut.is_none() && self.installing.is_under_way() {
                // That is what it waited for.
                let (journal, snapshots) = (&mut self.journal, &mut self.snapshots);
                self.installing.go_on(journal, snapshots, promises, &mut self.ops);
            }
            if !self.installing.replaces_log() {
                let (reads, snapshots) = (&mut self.reads, &mut self.snapshots);
                self.scrub.go_on(now, &self.journal, reads, snapshots, &mut self.ops);
                self.reads.go_on(&self.journal, &mut self.ops);
            }
            promises.hint(self.journal.durable(), self.committed);
            self.halt_if_machine_lacks();
        }
        self.write_promises();
    }

    fn write_promises(&mut self) {
        if let Some(promises) = &mut self.promises {
            promises.persist(&mut self.ops);
        }
    }

    /// The node stops: what is durable is to be said in the hard state now.
    pub(crate) const fn finish(&mut self) {
        self.stray();
        self.journal.wind_up();
    }

    /// Whether all there was to write is durable and proven so, or nothing of the kind can be said.
    pub(crate) fn is_finished(&self) -> bool {
        let promises = self.promises.as_ref().filter(|_| self.restart.is_none());
        promises.is_none_or(|promises| self.journal.is_finished(promises))
    }

    /// When `persist` wants to be called though nothing happened.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.giving_up.is_some() {
            // Nothing else is done any more: a deadline that stays would be spun on.
            return None;
        }
        let pins = self.snapshots.pins.deadline(self.config.tuning.pin_idle);
        // Nothing is read of a log that is on its way out.
        let scrub = self.scrub.deadline().filter(|_| !self.installing.replaces_log());
        earliest([self.journal.deadline(), pins, scrub])
    }

    /// Whether something failed that nothing may be built on.
    pub(crate) const fn has_failed(&self) -> bool {
        self.fault.is_some() || self.journal.fault.is_some() || self.snapshots.fault.is_some()
    }

    /// Why the node must end, once that is so.
    pub(crate) fn halt(&mut self) -> Option<Halt> {
        let faults = [&mut self.fault, &mut self.journal.fault, &mut self.snapshots.fault];
        faults.into_iter().find_map(Option::take)
    }

    // ---- promises ----------------------------------------------------------------------------

    fn promises(&self) -> &Promises {
        self.promises.as_ref().expect("the restart is over")
    }

    fn promises_mut(&mut self) -> &mut Promises {
        self.stray();
        self.promises.as_mut().expect("the restart is over")
    }

    /// Wants this term and vote on disk. Terms only rise; a vote is set once in a term.
    pub(crate) fn promise(&mut self, term: Term, vote: Option<NodeId>) {
        let wanted = self.promises().wanted();
        if (wanted.term, wanted.vote) == (term, vote) {
            return;
        }
        assert!(term >= wanted.term, "term {term} after {}", wanted.term);
        let is_first_vote = wanted.vote.is_none() || term > wanted.term;
        assert!(is_first_vote, "a second vote in term {term}: {vote:?} after {:?}", wanted.vote);
        self.promises_mut().want(|hard| {
            hard.term = term;
            hard.vote = vote;
        });
    }

    /// The term and vote that both copies hold.
    pub(crate) fn promised(&self) -> (Term, Option<NodeId>) {
        let durable = self.promises().durable();
        (durable.term, durable.vote)
    }

    /// Wants a membership on disk: `newest` in force, `previous` should it be cut.
    pub(crate) fn set_membership(&mut self, newest: Arc<Membership>, previous: Arc<Membership>) {
        self.know_others(&newest, &previous);
        let is_member = |id| [&newest, &previous].iter().any(|of| of.member(id).is_some());
        self.reads.keep(is_member);
        self.snapshots.stand_for(self.journal.holes.last());
        self.promises_mut().want_members(newest, previous);
    }

    /// Who may have what is here. A change that is not committed may be undone, and whoever it adds has
    /// nothing yet.
    fn know_others(&mut self, newest: &Membership, previous: &Membership) {
        let own = self.config.node;
        let may_be_undone = newest.at.index > self.committed;
        self.snapshots.has_peers =
            !(newest.is_sole_voter(own) || may_be_undone && previous.is_sole_voter(own));
        // One who joins may not know the members yet.
        let others = newest.members().any(|member| member.id != own);
        self.has_others = self.snapshots.has_peers || others;
    }

    /// The membership in force where a snapshot from a peer has taken the place of the log.
    pub(crate) fn members_installed(&self) -> &Arc<Membership> {
        &self.promises().wanted().install.membership
    }

    /// One who joins is of the cluster epoch of those who add it.
    pub(crate) fn set_cluster_epoch(&mut self, epoch: u64) {
        self.promises_mut().want(|hard| hard.identity.cluster_epoch = epoch);
        self.journal.identity.cluster_epoch = epoch;
        self.snapshots.set_cluster_epoch(epoch);
    }

    /// The node has met all other members, and need not do so again.
    pub(crate) fn set_formed(&mut self) {
        if self.promises().wanted().restored {
            self.promises_mut().want(|hard| hard.restored = false);
        }
    }

    /// The membership in force that both copies hold (incarnations learnt included).
    pub(crate) fn recorded(&self) -> &Arc<Membership> {
        &self.promises().durable().newest
    }

    /// A lower bound of what is committed, to be written some time.
    pub(crate) fn hint_committed(&mut self, committed: LogIndex) {
        let committed = committed.max(self.committed);
        let before = std::mem::replace(&mut self.committed, committed);
        let hard = self.promises().wanted();
        if before < hard.newest.at.index && hard.newest.at.index <= committed {
            let (newest, previous) = (Arc::clone(&hard.newest), Arc::clone(&hard.previous));
            self.know_others(&newest, &previous);
        }
    }

    // ---- the log -----------------------------------------------------------------------------

    /// Appends the entry after the last one: its verified frame begins `at` bytes into `chunk`.
    pub(crate) fn append(&mut self, head: Head, chunk: Bytes, at: usize) {
        self.journal.append(head, chunk, at);
    }

    /// Cuts the log: `last` is the last entry from now on. Entries appended behind it are written
    /// once the cut is durable.
    pub(crate) fn truncate(&mut self, last: LogId) {
        assert!(
            last.index >= self.committed,
            "cutting behind {last}, committed is {}",
            self.committed
        );
        self.stray();
        self.reads.forget(last.index.next());
        self.journal.truncate(last.index.next(), last);
    }

    /// The last index up to which everything is on disk, whatever crashes.
    pub(crate) const fn durable(&self) -> LogIndex {
        if cfg!(lakebed_break = "acknowledge_before_durable") {
            return self.journal.last.index;
        }
        self.journal.durable()
    }

    /// Raised by each start and each cut, once that is durable: no two lives of a node have the same.
    pub(crate) fn write_epoch(&self) -> u64 {
        self.promises().durable().write_epoch
    }

    /// Whether entries wait for a write of their own: the leader gathers proposals meanwhile.
    pub(crate) fn is_saturated(&self) -> bool {
        self.journal.is_saturated()
    }

    /// Whether there is no room for more log: proposals are refused.
    pub(crate) fn is_full(&self) -> bool {
        self.journal.has_no_room()
    }

    /// How often the disk was asked for room that it had none of, since it had some.
    pub(crate) const fn sought_room(&self) -> u32 {
        self.journal.sought_room()
    }

    /// Whether the disk was asked for room that it had none of, and has not answered yet.
    pub(crate) fn seeks_room(&self) -> bool {
        self.journal.seeks_room()
    }

    /// The rare situations that were met.
    pub(crate) const fn marks(&self) -> Marks {
        self.ops.marks
    }

    /// Bytes of entries and snapshots that were read again while the node ran.
    pub(crate) const fn scrubbed_bytes(&self) -> u64 {
        self.scrub.bytes
    }

    /// What entries cost that are held in memory until they are written.
    pub(crate) const fn memory_bytes(&self) -> u64 {
        self.journal.memory_bytes()
    }

    // ---- reading back ------------------------------------------------------------------------

    /// Wants entries from `from` on, whole ones, at most `bytes_max` together but at least one,
    /// and none beyond `to`. One read per reader at a time; a new one replaces it.
    /// Nothing comes to a peer for what is bad here too and in a snapshot: nobody waits for it.
    pub(crate) fn read(&mut self, reader: Reader, from: LogIndex, to: LogIndex, bytes_max: u32) {
        self.stray();
        let is_bad = || self.journal.holes.first_from(from) == Some(from);
        if matches!(reader, Reader::Refill(_)) && from <= self.snapshot().index && is_bad() {
            return self.reads.give_nothing(reader, from);
        }
        self.reads.read(reader, from, to, bytes_max);
    }

    /// Whether a read is finished and not taken.
    pub(crate) fn has_read(&self) -> bool {
        self.reads.has_read()
    }

    /// A finished read. Fewer entries than asked for is normal.
    pub(crate) fn take_read(&mut self) -> Option<(Reader, ReadBack)> {
        self.reads.take()
    }
}

/// A record that a running node needs is bad.
fn damaged(file: File, offset: u64, expected: String) -> Halt {
    let found = "a record that fails its checksum or is another's".into();
    Halt::Refused { row: "damaged", file, offset, expected, found }
}

#[cfg(test)]
mod tests;
