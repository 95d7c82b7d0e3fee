//! Proposals on their way into an entry, and who waits for which.
//!
//! Knows neither roles nor messages. Invariant: a request is in one place only: gathered, tracked,
//! or ended.

use crate::{
    entry::{Batch, Run, Runs},
    types::{Instant, LogId, LogIndex, RequestId, Requests, Timestamp},
};
use std::{collections::VecDeque, ops::Add};

/// What it costs at most that somebody waits, beside the commands: a place in a queue, which grows by
/// doubling. Of small commands that come one by one it is many times what they are.
const WAITER_BYTES: u64 = 128;

/// What proposals cost in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Cost {
    pub(super) commands: u64,
    /// Those who wait for them, also where the commands are counted as log.
    pub(super) waiters: u64,
}

impl Cost {
    pub(super) fn of(commands: u64, runs: &[Run]) -> Self {
        Self { commands, waiters: runs.len().max(1) as u64 * WAITER_BYTES }
    }

    pub(super) const fn bytes(self) -> u64 {
        self.commands + self.waiters
    }

    pub(super) const fn give_back(&mut self, other: Self) {
        self.commands -= other.commands;
        self.waiters -= other.waiters;
    }
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { commands: self.commands + other.commands, waiters: self.waiters + other.waiters }
    }
}

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

    pub(super) fn cost(&self) -> Cost {
        self.batch
            .as_ref()
            .map_or_else(Cost::default, |batch| Cost::of(batch.bytes() as u64, &self.runs))
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

impl Tracked {
    fn cost(&self) -> Cost {
        Cost::of(self.bytes, self.runs.as_slice())
    }
}

/// The entries that clients of this node wait for, ascending.
#[derive(Clone, Debug, Default)]
pub(super) struct Tracking {
    queue: VecDeque<Tracked>,
    cost: Cost,
}

impl Tracking {
    pub(super) const fn cost(&self) -> Cost {
        self.cost
    }

    /// The entry that the last of them waits for.
    pub(super) fn last(&self) -> Option<LogId> {
        self.queue.back().map(|tracked| tracked.id)
    }

    pub(super) fn push(&mut self, tracked: Tracked) {
        self.cost = self.cost + tracked.cost();
        self.queue.push_back(tracked);
    }

    /// The next one at or below `through`.
    pub(super) fn pop_through(&mut self, through: LogIndex) -> Option<Tracked> {
        let tracked = self.queue.pop_front_if(|tracked| tracked.id.index <= through)?;
        self.cost.give_back(tracked.cost());
        Some(tracked)
    }

    /// Takes back all above `committed`.
    pub(super) fn pop_above(&mut self, committed: LogIndex) -> Option<Tracked> {
        let tracked = self.queue.pop_back_if(|tracked| tracked.id.index > committed)?;
        self.cost.give_back(tracked.cost());
        Some(tracked)
    }

    /// When the oldest one was placed, and where.
    pub(super) fn oldest(&self) -> Option<(Instant, LogIndex)> {
        self.queue.front().map(|oldest| (oldest.at, oldest.id.index))
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
