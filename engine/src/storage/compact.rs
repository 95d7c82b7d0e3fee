//! Removing what a snapshot made superfluous: snapshots but the newest two, and the log below the
//! older of them, unless a member still needs it.
//!
//! Invariant: the hard state says where the log begins before anything below is removed, and two
//! snapshots with the log behind the older one are always there once there were two.

use super::{
    journal::{Journal, Sealed},
    ops::{Job, Ops},
    promises::{Promises, Version},
    reader::Reads,
    roll::Spare,
    snapshots::Snapshots,
};
use crate::{
    config::Tuning,
    disk::hard_state::First,
    file::{Class, DiskRequest, File},
    marks::Mark,
    types::LogIndex,
};

/// So many times as much log as the newest snapshot is long is kept behind one on its way, whatever the limit: a
/// large state takes as long the next time.
const SNAPSHOTS_WORTH: u64 = 4;

pub(super) const SNAPSHOTS_KEPT: usize = 2;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CompactOp {
    Remove,
    SyncDirectory,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Compaction {
    /// Log from here on is kept for members, so many bytes of it at most.
    retain: LogIndex,
    retain_bytes: u64,
    /// Log from here on is kept: it is what follows a snapshot on its way to a member. So many bytes at most.
    pinned: Option<LogIndex>,
    pinned_bytes: u64,
    /// Up to here it is lost, and is kept for nobody; the newest snapshot holds what it did.
    lost: LogIndex,
    step: Step,
    outstanding: u32,
    recycled: Vec<Spare>,
}

#[derive(Clone, Debug, Default)]
enum Step {
    #[default]
    Idle,
    Announce(Version, Vec<Sealed>),
    Remove,
    SyncDirectory,
}

impl Compaction {
    pub(crate) const fn retain(&mut self, from: LogIndex, pinned: Option<LogIndex>) {
        self.retain = from;
        self.pinned = pinned;
    }

    /// A segment that ends there is lost.
    pub(super) fn begin_behind(&mut self, last: LogIndex) {
        self.lost = self.lost.max(last);
    }

    /// The log was to begin behind this, and no snapshot holds it any more.
    pub(super) fn take_unstood(&mut self, newest: LogIndex, journal: &Journal) -> Option<LogIndex> {
        let is_unstood = self.is_lost(journal) && self.lost > newest;
        is_unstood.then(|| std::mem::take(&mut self.lost))
    }

    pub(crate) fn tune(&mut self, tuning: &Tuning) {
        self.retain_bytes = tuning.retain_log_bytes;
        self.pinned_bytes = tuning.transfer_log_bytes_max.max(tuning.retain_log_bytes);
    }

    /// Whether nothing is to be removed before there is another snapshot, or another segment is full.
    pub(super) fn is_at_rest(&self, journal: &Journal, snapshots: &Snapshots) -> bool {
        if self.has_nothing_to_go_by(journal, snapshots) {
            return true;
        }
        let [older, _] = &snapshots.whole[..] else { return false };
        let covered = older.header.at.index;
        matches!(self.step, Step::Idle)
            && !self.is_lost(journal)
            && snapshots.spoilt.is_empty()
            && journal.sealed.front().is_none_or(|sealed| sealed.last.index > covered)
    }

    /// Whether nothing is under way and no snapshot makes anything superfluous.
    fn has_nothing_to_go_by(&self, journal: &Journal, snapshots: &Snapshots) -> bool {
        matches!(self.step, Step::Idle)
            && snapshots.whole.len() < SNAPSHOTS_KEPT
            && snapshots.spoilt.is_empty()
            && !self.is_lost(journal)
    }

    /// Whether the log still begins with what is lost of it.
    fn is_lost(&self, journal: &Journal) -> bool {
        self.lost >= journal.first()
    }

    pub(crate) fn go_on(
        &mut self,
        journal: &mut Journal,
        snapshots: &mut Snapshots,
        reads: &Reads,
        promises: &mut Promises,
        ops: &mut Ops,
    ) {
        if self.has_nothing_to_go_by(journal, snapshots) {
            return;
        }
        match std::mem::take(&mut self.step) {
            Step::Idle => self.begin(journal, snapshots, reads, promises, ops),
            Step::Announce(version, dead) if promises.is_durable(version) => {
                self.remove(dead, journal, ops);
            }
            Step::Remove if self.outstanding == 0 => {
                self.step = Step::SyncDirectory;
                self.submit(CompactOp::SyncDirectory, DiskRequest::SyncDirectory, ops);
            }
            Step::SyncDirectory if self.outstanding == 0 => {
                journal.spares.look_again();
                let recycled = std::mem::take(&mut self.recycled);
                if !recycled.is_empty() {
                    ops.met(Mark::SegmentRecycled);
                    journal.spares.give(recycled);
                }
                // There may be another one by now, and nothing else to go on for.
                self.begin(journal, snapshots, reads, promises, ops);
            }
            waiting => self.step = waiting,
        }
    }

    pub(crate) const fn on_done(&mut self) {
        self.outstanding -= 1;
    }

    fn submit(&mut self, op: CompactOp, request: DiskRequest, ops: &mut Ops) {
        self.outstanding += 1;
        ops.submit(Job::Compact(op), Class::Background, request);
    }

    fn begin(
        &mut self,
        journal: &mut Journal,
        snapshots: &mut Snapshots,
        reads: &Reads,
        promises: &mut Promises,
        ops: &mut Ops,
    ) {
        for file in snapshots.take_superseded() {
            self.submit(CompactOp::Remove, DiskRequest::Remove { file }, ops);
            self.step = Step::Remove;
        }
        if self.is_lost(journal) {
            return self.begin_where_known(journal, snapshots, reads, promises, ops);
        }
        let count = if cfg!(lakebed_break = "keep_one_snapshot") { 1 } else { SNAPSHOTS_KEPT };
        let Some(extra) = snapshots.whole.len().checked_sub(count) else { return };
        let (serving, pins) = (&snapshots.serving, &snapshots.pins);
        let is_pinned = |at| pins.uses(at) && !cfg!(lakebed_break = "compact_what_is_pinned");
        let is_used = |at| serving.uses(at) || is_pinned(at);
        if snapshots.whole[..extra].iter().any(|snapshot| is_pinned(snapshot.header.at)) {
            ops.met(Mark::SnapshotKeptForPin);
        }
        let superfluous =
            snapshots.whole.extract_if(..extra, |snapshot| !is_used(snapshot.header.at));
        for snapshot in superfluous {
            self.submit(CompactOp::Remove, DiskRequest::Remove { file: snapshot.file() }, ops);
            self.step = Step::Remove;
        }
        if matches!(self.step, Step::Remove) || journal.cut.is_some() {
            return;
        }
        let extra = snapshots.whole.len() - count;
        let covered = snapshots.whole[extra].header.at.index.next();
        let newest = snapshots.whole.last().map_or(0, |newest| newest.footer.payload_bytes);
        let kept = self.kept_for_members(covered, newest, journal);
        let first = if journal.has_no_room() { covered } else { kept };
        let dead = take_dead(first, journal, reads);
        if dead.last().is_some_and(|sealed| sealed.last.index >= kept) {
            ops.met(Mark::LogLetGoForRoom);
        }
        if let Some(sealed) = journal.sealed.front().filter(|s| s.last.index < covered) {
            let is_read = reads.uses(sealed.sequence);
            ops.met(if is_read { Mark::LogKeptForReader } else { Mark::LogKeptForMember });
        }
        self.announce(dead, journal, promises);
    }

    /// Where the log begins that is kept, of what no snapshot here needs any more: from what members lack, or
    /// will when they have the snapshot that is on its way. Of either so much at most: then they get a newer one.
    fn kept_for_members(&self, covered: LogIndex, snapshot: u64, journal: &Journal) -> LogIndex {
        let kept = self.retain.max(journal.oldest_within(self.retain_bytes));
        // The one that is the furthest behind is given up, not those within the limit.
        let most = self.pinned_bytes.max(snapshot.saturating_mul(SNAPSHOTS_WORTH));
        let near = |pinned: LogIndex| pinned.max(journal.oldest_within(most));
        covered.min(kept).min(self.pinned.map_or(covered, near))
    }

    /// The log begins behind what is lost of it; from an older snapshot nothing leads on then.
    fn begin_where_known(
        &mut self,
        journal: &mut Journal,
        snapshots: &mut Snapshots,
        reads: &Reads,
        promises: &mut Promises,
        ops: &mut Ops,
    ) {
        if matches!(self.step, Step::Remove) || journal.cut.is_some() {
            return;
        }
        let dead = take_dead(self.lost.next(), journal, reads);
        if let Some(last) = dead.last() {
            ops.met(Mark::LogBegunLater);
            snapshots.spoil_below(last.last.index, ops);
        }
        self.announce(dead, journal, promises);
    }

    fn announce(&mut self, dead: Vec<Sealed>, journal: &mut Journal, promises: &mut Promises) {
        let Some(last) = dead.last() else { return };
        journal.holes.forget_before(last.last.index.next());
        let next = journal.sealed.front().map(|sealed| (sealed.first, sealed.sequence));
        let active = journal.active.as_ref().map(|active| (active.first, active.sequence));
        let (index, segment) = next.or(active).expect("the log ends in a segment");
        let first = First { index, prev_term: last.last.term, segment };
        let version = promises.want(|hard| hard.first = first);
        self.step = Step::Announce(version, dead);
    }

    fn remove(&mut self, dead: Vec<Sealed>, journal: &mut Journal, ops: &mut Ops) {
        self.step = Step::Remove;
        let next_len = journal.next_len();
        for sealed in dead {
            let file = File::Segment(sealed.sequence);
            let request = match journal.spares.recycle(sealed.layout.len, next_len) {
                Some(spare) => {
                    self.recycled.push(spare);
                    DiskRequest::Rename { from: file, to: File::Spare(spare.number) }
                }
                None => DiskRequest::Remove { file },
            };
            self.submit(CompactOp::Remove, request, ops);
        }
    }
}

/// The full segments that end before this entry and that nobody is reading.
fn take_dead(first: LogIndex, journal: &mut Journal, reads: &Reads) -> Vec<Sealed> {
    let holes = &journal.holes;
    let is_used = |s: &Sealed| reads.uses(s.sequence) || holes.uses(s.sequence);
    let is_dead = |s: &Sealed| s.last.index < first && !is_used(s);
    let mut dead = Vec::new();
    // While the next segment waits for room the last full one is where the log ends.
    let kept = usize::from(journal.active.is_none());
    while journal.sealed.len() > kept
        && let Some(sealed) = journal.sealed.pop_front_if(|sealed| is_dead(sealed))
    {
        journal.terms.begin_behind(sealed.last.index);
        dead.push(sealed);
    }
    dead
}
