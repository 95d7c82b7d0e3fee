//! A peer's snapshot takes the place of the log.
//!
//! It was staged beside everything else: until here the node keeps its promises with the log it
//! has. Then: nothing that touches the old log is in flight; the snapshot gets its name; one update
//! of the hard state says where the log begins now, and with it all that lies in older segments is
//! nothing. A crash before that update leaves the old log, and a restart that finds the snapshot
//! does the rest. Old segments and snapshots go last.
//!
//! Invariant: at every instant the hard state names one log, and a state for it is on disk.

use super::{
    journal::Journal,
    ops::{Job, Ops},
    promises::{Promises, Version},
    reader::Reads,
    snapshots::Snapshots,
};
use crate::{
    disk::hard_state::{self, First, HardState},
    disk::snapshot,
    file::{Class, DiskRequest, File},
    marks::Mark,
    types::LogId,
};
use std::sync::Arc;

/// What the last steps ask of the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum InstallOp {
    /// Removes what an install left behind.
    Remove,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Installing {
    step: Step,
    /// The log goes on from the snapshot as it is: only the state was lost, or cannot be had from
    /// a log that lacks entries.
    keeps_log: bool,
    /// One that the log goes on from, and that the hard state does not name yet.
    unrecorded: Option<hard_state::Install>,
    /// The last one that came to its end.
    pub(crate) done: Option<LogId>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Step {
    #[default]
    Idle,
    Drain,
    Name,
    Announce(Version),
}

impl Installing {
    pub(crate) const fn is_under_way(&self) -> bool {
        !matches!(self.step, Step::Idle)
    }

    /// Whether the log is on its way out: nothing of it is read any more.
    pub(super) const fn replaces_log(&self) -> bool {
        self.is_under_way() && !self.keeps_log
    }

    /// The staged snapshot is to take the place of the log.
    pub(crate) fn begin(
        &mut self,
        at: LogId,
        journal: &mut Journal,
        snapshots: &mut Snapshots,
        reads: &mut Reads,
        ops: &mut Ops,
    ) {
        self.step = Step::Drain;
        self.unrecorded = None;
        journal.end_before(at.index);
        reads.forget_all();
        snapshots.abandon_capture(ops);
    }

    /// The staged snapshot is to take the place of one that was lost; the log stays.
    pub(crate) fn begin_join(&mut self, snapshots: &mut Snapshots, ops: &mut Ops) {
        self.step = Step::Drain;
        self.keeps_log = true;
        // It lies before this one, and may wait for entries that only this one makes up for.
        snapshots.abandon_capture(ops);
    }

    pub(crate) fn go_on(
        &mut self,
        journal: &mut Journal,
        snapshots: &mut Snapshots,
        promises: &mut Promises,
        ops: &mut Ops,
    ) {
        loop {
            match self.step {
                Step::Idle => return,
                Step::Drain => {
                    let staged = snapshots.staged().expect("it was staged whole");
                    // No snapshot of a term is named before that term is promised.
                    let is_promised = promises.durable().term >= staged.at.term;
                    let reads = || ops.any(|job| matches!(job, Job::ReadBack(_)));
                    let is_log_at_work = !self.keeps_log && (!journal.is_at_rest() || reads());
                    if is_log_at_work || snapshots.is_busy() || !is_promised {
                        return;
                    }
                    snapshots.name_staged(ops);
                    self.step = Step::Name;
                }
                Step::Name => {
                    let Some(header) = snapshots.named() else { return };
                    if self.keeps_log {
                        return self.join(journal, snapshots, ops);
                    }
                    let version = promises.want(|hard| adopt(hard, header));
                    self.step = Step::Announce(version);
                }
                Step::Announce(version) if !promises.is_durable(version) => return,
                Step::Announce(_) => {
                    self.step = Step::Idle;
                    self.take_over(journal, snapshots, ops);
                }
            }
        }
    }

    fn join(&mut self, journal: &mut Journal, snapshots: &mut Snapshots, ops: &mut Ops) {
        *self = Self { done: self.done, ..Self::default() };
        ops.met(Mark::InstallJoined);
        let installed = snapshots.take_named();
        self.is_to_record(&installed.header);
        journal.on_covered(installed.header.at.index);
        for file in snapshots.replace(installed, ops) {
            remove(file, ops);
        }
    }

    /// The hard state is to name this one: else a restart that finds it beside a log of which the end
    /// was lost would take it for an install to be finished, and that log's place.
    pub(super) fn is_to_record(&mut self, header: &snapshot::Header) {
        self.unrecorded = Some(record_of(header));
    }

    /// Whether a snapshot is to be named yet.
    pub(super) const fn has_to_record(&self) -> bool {
        self.unrecorded.is_some()
    }

    /// Names it, once the log is durable up to there. Before that a crash may leave a log that does not
    /// reach it, and then it does take its place.
    pub(super) fn record(&mut self, journal: &Journal, promises: &mut Promises) {
        // Until it has met the others the record is that of the backup that it was made from.
        let is_due = |install: &mut hard_state::Install| install.at.index <= journal.durable();
        if !promises.wanted().restored
            && let Some(install) = self.unrecorded.take_if(is_due)
        {
            promises.want(|hard| hard.install = install);
        }
    }

    fn take_over(&mut self, journal: &mut Journal, snapshots: &mut Snapshots, ops: &mut Ops) {
        let installed = snapshots.take_named();
        let at = installed.header.at;
        ops.met(Mark::Installed);
        let old = snapshots.replace(installed, ops);
        let segments = journal.replace(at);
        for file in segments.into_iter().map(File::Segment).chain(old) {
            remove(file, ops);
        }
        self.done = Some(at);
    }
}

/// Does away with what an install left behind, or did not need.
pub(super) fn remove(file: File, ops: &mut Ops) {
    let request = DiskRequest::Remove { file };
    ops.submit(Job::Install(InstallOp::Remove), Class::Background, request);
}

/// The log begins behind this entry, in a segment that does not exist yet.
pub(super) fn begin_behind(hard: &mut HardState, at: LogId) {
    let segment = hard.highest_segment + 1;
    hard.first = First { index: at.index.next(), prev_term: at.term, segment };
    hard.newest_segment = 0;
    // What lay behind it in the old log is gone. Members that are known to be committed stay in force: were
    // those before them to be so again, this node might be its own only voter, whom nobody sends its log.
    if hard.newest.at.index <= hard.commit_hint {
        hard.previous = Arc::clone(&hard.newest);
    }
    (hard.commit_hint, hard.durable_hint) = (at.index, at.index);
}

/// The log begins behind this snapshot.
pub(super) fn adopt(hard: &mut HardState, header: &snapshot::Header) {
    let at = header.at;
    begin_behind(hard, at);
    // Nothing of the old log is kept, so no later membership can be in force.
    let membership = header.membership.clone();
    (hard.newest, hard.previous) = (membership.clone(), membership);
    hard.install = record_of(header);
}

fn record_of(header: &snapshot::Header) -> hard_state::Install {
    let snapshot::Header { at, id, ref membership, .. } = *header;
    hard_state::Install { at, id, next_offset: 0, membership: Arc::clone(membership) }
}
