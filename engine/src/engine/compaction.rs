//! Snapshots and the log behind them: when one is due, who asked for one, what was said of them.
//!
//! Knows neither files nor roles. Invariant: whoever asked for a snapshot hears of one that holds
//! all that was applied then, or why there is none.

use crate::{
    action::{Action, Note, Outcome, Refusal},
    config::Tuning,
    file::DiskError,
    marks::{Mark, Marks},
    membership::Membership,
    raft::{Pins, Raft},
    storage::Storage,
    types::{Instant, LogId, LogIndex, RequestId, Requests},
};
use std::{sync::Arc, time::Duration};

/// The most who wait for a snapshot.
const WANTED_MAX: usize = 256;

/// How long one that nobody asked for is not tried again, if the disk did not take it; each time twice as
/// long, and at most so long.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(64);

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Compaction {
    /// Who waits for a snapshot of at least this index.
    wanted: Vec<(RequestId, LogIndex)>,
    /// Before so many bytes were written the log cannot exceed what a restart should replay.
    pub(super) look_at: u64,
    /// Since when the newest snapshot is there: in an earlier life, since this one began.
    since: Instant,
    /// Before then one that the disk did not take is not tried again.
    again_at: Instant,
    /// How long the next pause is: twice as long as the last, until one is taken.
    pause: Duration,
    snapshot: LogId,
    first: LogIndex,
    full: bool,
    pub(super) retained: LogIndex,
    pub(super) pins: Pins,
    hinted: LogIndex,
    pub(super) marks: Marks,
}

impl Compaction {
    /// What the disk held when it was judged is no news.
    pub(super) fn begin(&mut self, storage: &Storage, now: Instant) {
        self.snapshot = storage.snapshot();
        self.first = storage.first();
        self.since = now;
    }

    /// Somebody wants a snapshot of what was handed to the machine so far.
    pub(super) fn want(&mut self, id: RequestId, at: LogIndex, out: &mut Vec<Action>) {
        if at == LogIndex(0) {
            return end(id, Outcome::Refused(Refusal::NoSnapshot), out);
        }
        if self.wanted.len() >= WANTED_MAX {
            return end(id, Outcome::Refused(Refusal::Busy), out);
        }
        self.wanted.push((id, at));
    }

    /// Whether nobody waits for a snapshot, and nothing is kept for a peer's sake.
    pub(super) fn is_at_rest(&self) -> bool {
        !self.is_wanted() && self.pins == Pins::default()
    }

    /// What is known to be committed is written some time.
    pub(super) fn hint(&mut self, storage: &mut Storage, committed: LogIndex) {
        if self.hinted != committed {
            self.hinted = committed;
            storage.hint_committed(committed);
        }
    }

    pub(super) const fn is_wanted(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Notes what has changed, and ends the requests that are met.
    pub(super) fn tell(&mut self, storage: &mut Storage, now: Instant, out: &mut Vec<Action>) {
        let snapshot = storage.snapshot();
        if snapshot > self.snapshot {
            self.since = now;
            self.pause = Duration::ZERO;
            out.push(Action::Note(Note::Snapshot(snapshot)));
        }
        // That an older one stands for one that turned out bad is no news of a snapshot.
        self.snapshot = snapshot;
        if storage.first() != self.first {
            self.first = storage.first();
            out.push(Action::Note(Note::Compacted(self.first)));
        }
        if storage.is_full() != self.full {
            self.full = storage.is_full();
            out.push(Action::Note(Note::DiskFull(self.full)));
        }
        self.wanted.retain(|&(id, at)| {
            let met = at <= snapshot.index;
            if met {
                end(id, Outcome::Done(snapshot), out);
            }
            !met
        });
        // Those who wait shall not wait for a disk: they may ask again.
        if let Some(error) = storage.take_given_up() {
            self.since = now;
            self.pause = self.pause.saturating_mul(2).clamp(PAUSE, PAUSE_MAX);
            self.again_at = now.after(self.pause);
            self.refuse(&refusal(error), out);
        }
    }

    /// None of those who wait will have one.
    pub(super) fn refuse(&mut self, why: &Refusal, out: &mut Vec<Action>) {
        self.wanted.drain(..).for_each(|(id, _)| end(id, Outcome::Refused(why.clone()), out));
    }

    /// Whether one that is taken for the log's sake may be tried.
    pub(super) fn may_try_again(&self, now: Instant) -> bool {
        now >= self.again_at
    }

    /// Whether a snapshot at `at`, which is news, is to be taken now.
    pub(super) fn is_due(
        &mut self,
        storage: &Storage,
        tuning: &Tuning,
        (at, now): (LogId, Instant),
    ) -> bool {
        if self.is_wanted() {
            return true;
        }
        if !self.may_try_again(now) {
            // The whole state would be written again and again to a disk that has no room for it.
            return false;
        }
        if storage.wants_fresh(at) {
            return true;
        }
        if self.age_deadline(tuning).is_some_and(|due| now >= due) {
            self.marks.set(Mark::SnapshotForAge);
            return true;
        }
        self.is_log_long(storage, tuning)
    }

    /// When the newest snapshot is so old that another one is taken, should there be news.
    pub(super) fn age_deadline(&self, tuning: &Tuning) -> Option<Instant> {
        let due = self.since.after(tuning.snapshot_age).max(self.again_at);
        (!tuning.snapshot_age.is_zero()).then_some(due)
    }

    /// When one is tried again that is to stand for what is bad, after the disk did not take it.
    pub(super) fn again(&self, storage: &Storage, now: Instant) -> Option<Instant> {
        (self.again_at > now && storage.owes_fresh()).then_some(self.again_at)
    }

    /// Whether so much was written that the log is to be looked at.
    pub(super) const fn may_be_long(&self, storage: &Storage, tuning: &Tuning) -> bool {
        tuning.snapshot_log_bytes > 0 && storage.written_bytes() >= self.look_at
    }

    /// Whether the log since the last snapshot exceeds what a restart should have to replay.
    fn is_log_long(&mut self, storage: &Storage, tuning: &Tuning) -> bool {
        if !self.may_be_long(storage, tuning) {
            return false;
        }
        let (log, snapshot) = storage.snapshot_debt();
        let most = tuning.snapshot_log_bytes.max(snapshot.saturating_mul(4));
        self.look_at = storage.written_bytes().saturating_add(most.saturating_sub(log).max(1));
        log > most
    }
}

const fn refusal(error: DiskError) -> Refusal {
    match error {
        DiskError::Full => Refusal::DiskFull,
        error => Refusal::Disk(error),
    }
}

/// Of what a snapshot would be news, and who were the members then. One who applies what lies behind
/// two changes of members does not know that any more.
pub(super) fn capturable<'a>(
    storage: &Storage,
    raft: &'a Raft,
) -> Option<(LogId, &'a Arc<Membership>)> {
    let at = raft.applying();
    let is_news = at.index > storage.snapshot().index;
    let members = (is_news && storage.can_capture(at)).then(|| raft.members_at(at.index));
    members.flatten().map(|members| (at, members))
}

/// The end of one request.
pub(super) fn end(id: RequestId, outcome: Outcome, out: &mut Vec<Action>) {
    out.push(Action::Respond { requests: Requests::one(id), outcome });
}
