//! Proposals on their way into an entry, and who waits for which.
//!
//! Knows neither roles nor messages. Invariant: a request is in one place only: gathered, tracked,
//! or ended.

use crate::{
    entry::{Batch, Run, Runs},
    types::{Instant, LogId, LogIndex, RequestId, Requests, Timestamp},
};
use std::collections::VecDeque;

/// Commands that wait for their entry, or to be forwarded.
#[derive(Clone, Debug, Default)]
pub(super) struct Gathering {
    batch: Option<Batch>,
    runs: Vec<Run>,
    time: Timestamp,
}

impl Gathering {
    pub(super) const fn is_empty(&self) -> bool {
        self.batch.is_none()
    }

    pub(super) fn bytes(&self) -> usize {
        self.batch.as_ref().map_or(0, Batch::bytes)
    }

    pub(super) fn count(&self) -> u32 {
        self.batch.as_ref().map_or(0, Batch::count)
    }

    /// Adds a batch, whose commands clients of this node wait for from `first` on, if any do.
    pub(super) fn add(&mut self, batch: Batch, first: Option<RequestId>, time: Timestamp) {
        let (ordinal, count) = (self.count(), batch.count());
        if let Some(first) = first {
            self.wait(Run { ordinal, requests: Requests { first, count } });
        }
        self.time = self.time.max(time);
        match &mut self.batch {
            Some(gathered) => gathered.append(&batch),
            // The buffer that a client filled becomes the entry as it is.
            none => *none = Some(batch),
        }
    }

    /// Runs that follow each other in both respects are one.
    fn wait(&mut self, run: Run) {
        if let Some(last) = self.runs.last_mut()
            && last.ordinal + last.requests.count == run.ordinal
            && last.requests.first.0 + u64::from(last.requests.count) == run.requests.first.0
        {
            last.requests.count += run.requests.count;
        } else {
            self.runs.push(run);
        }
    }

    pub(super) fn take(&mut self) -> Option<(Batch, Runs, Timestamp)> {
        let batch = self.batch.take()?;
        let runs = collect(&mut self.runs);
        Some((batch, runs, std::mem::take(&mut self.time)))
    }
}

/// Empties `runs`, which keeps its room.
pub(super) fn collect(runs: &mut Vec<Run>) -> Runs {
    match runs.as_slice() {
        [] => Runs::None,
        [_] => Runs::One(runs.pop().expect("there is one")),
        _ => Runs::Many(runs.drain(..).collect()),
    }
}

/// An entry that clients wait for, until it is handed to the machine.
#[derive(Clone, Debug)]
pub(super) struct Tracked {
    pub(super) id: LogId,
    pub(super) bytes: u64,
    pub(super) runs: Runs,
    /// When it was placed.
    pub(super) at: Instant,
}

/// The entries that clients of this node wait for, ascending.
#[derive(Clone, Debug, Default)]
pub(super) struct Tracking {
    queue: VecDeque<Tracked>,
    bytes: u64,
}

impl Tracking {
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The entry that the last of them waits for.
    pub(super) fn last(&self) -> Option<LogId> {
        self.queue.back().map(|tracked| tracked.id)
    }

    pub(super) fn push(&mut self, tracked: Tracked) {
        self.bytes += tracked.bytes;
        self.queue.push_back(tracked);
    }

    /// The next one at or below `through`.
    pub(super) fn pop_through(&mut self, through: LogIndex) -> Option<Tracked> {
        let tracked = self.queue.pop_front_if(|tracked| tracked.id.index <= through)?;
        self.bytes -= tracked.bytes;
        Some(tracked)
    }

    /// Takes back all above `committed`.
    pub(super) fn pop_above(&mut self, committed: LogIndex) -> Option<Tracked> {
        let tracked = self.queue.pop_back_if(|tracked| tracked.id.index > committed)?;
        self.bytes -= tracked.bytes;
        Some(tracked)
    }

    /// When the oldest one was placed, if it lies at or below `through`.
    pub(super) fn oldest(&self, through: LogIndex) -> Option<Instant> {
        self.queue.front().filter(|oldest| oldest.id.index <= through).map(|oldest| oldest.at)
    }

    pub(super) fn is_due(&self, through: LogIndex) -> bool {
        self.queue.front().is_some_and(|tracked| tracked.id.index <= through)
    }
}

/// The requests of `runs`, each run once.
pub(super) fn requests(runs: &Runs) -> impl Iterator<Item = Requests> + '_ {
    runs.as_slice().iter().map(|run| run.requests)
}

/// The same runs behind `by` other commands.
pub(super) fn shifted(mut runs: Runs, by: u32) -> Runs {
    match &mut runs {
        Runs::None => {}
        Runs::One(run) => run.ordinal += by,
        Runs::Many(runs) => runs.iter_mut().for_each(|run| run.ordinal += by),
    }
    runs
}

/// Cuts a batch into several of at most `commands_max` commands.
pub(super) fn split(batch: &Batch, commands_max: u32) -> Vec<Batch> {
    let mut parts = Vec::new();
    let mut part = Batch::default();
    let mut rest = batch.body();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (command, after) = after.split_at(u32::from_le_bytes(*length) as usize);
        rest = after;
        part.push(command);
        if part.count() == commands_max {
            parts.push(std::mem::take(&mut part));
        }
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}
