//! From proposals to the machine: gathering, sealing, and handing out what is committed.
//!
//! Knows no peers. Invariant: entries go to the machine once, in order, only when committed, and
//! each with those of this node's clients who wait for it.

use super::{
    Raft,
    log::Chunk,
    proposal::{Tracked, collect, shifted, split},
    replication::ReadWish,
    role::Role,
};
use crate::{
    action::{Action, Machine, Outcome, Refusal},
    entry::{Batch, Entries, HEAD_BYTES, Run, Runs, frames},
    marks::Mark,
    storage::Reader,
    types::{LogId, LogIndex, RequestId, Requests, Timestamp},
};
use std::collections::VecDeque;

/// What the machine was given and has not finished.
#[derive(Clone, Debug)]
pub(super) struct Applying {
    queue: VecDeque<(LogIndex, u64)>,
    bytes: u64,
    /// The machine stands somewhere by itself; it can be given what follows.
    pub(super) restored: bool,
    /// Nothing is handed out that this disk does not hold.
    pub(super) durable_only: bool,
    /// Whether a read from disk is on its way.
    pub(super) reading: bool,
    /// What that read brought.
    pub(super) fed: Option<Chunk>,
    runs: Vec<Run>,
}

impl Applying {
    /// The machine is to take in a snapshot, and goes on behind it.
    pub(super) fn begin_anew(&mut self) {
        (self.restored, self.reading, self.fed) = (false, false, None);
    }

    pub(super) const fn new(durable_only: bool) -> Self {
        Self {
            queue: VecDeque::new(),
            bytes: 0,
            restored: false,
            durable_only,
            reading: false,
            fed: None,
            runs: Vec::new(),
        }
    }
}

impl Raft {
    /// The wall clock shows this.
    pub(crate) const fn on_wall(&mut self, time: Timestamp) {
        self.wall.set(time, self.now);
    }

    pub(crate) fn on_propose(&mut self, first: RequestId, time: Timestamp, batch: Batch) {
        let requests = Requests { first, count: batch.count() };
        self.on_wall(time);
        if batch.is_empty() {
            return;
        }
        self.stir();
        self.is_plain &= matches!(self.role, Role::Leader(_));
        if let Some(refusal) = self.refusal(batch.bytes()) {
            if refusal == Refusal::Busy {
                self.marks.set(Mark::ProposalBusy);
            }
            return self.end(requests, Outcome::Refused(refusal));
        }
        if self.make_room(&batch).is_some() {
            return self.gathering.add(batch, Some(first), time);
        }
        self.marks.set(Mark::BatchSplit);
        let mut first = first;
        for part in split(&batch, self.tuning.entry_commands_max) {
            self.make_room(&part).expect("a part is small enough");
            let count = u64::from(part.count());
            self.gathering.add(part, Some(first), time);
            first = RequestId(first.0 + count);
        }
    }

    /// Why commands of this many bytes cannot be taken now, if so.
    pub(super) fn refusal(&self, bytes: usize) -> Option<Refusal> {
        let leads = match &self.role {
            Role::Forming(_) => return Some(Refusal::NotReady),
            Role::Leader(_) => true,
            Role::Follower(follower) if self.tuning.forward && follower.leader.is_some() => false,
            _ => return Some(Refusal::NotLeader { hint: self.leader() }),
        };
        // The largest batch fits as long as none waits: who waits for it is counted from then on.
        let mut placed = self.tracking.cost();
        if leads && !cfg!(lakebed_break = "lead_on_a_disk_that_lags") {
            // Others commit, and the machine takes, what this node's own disk may be far from having.
            placed.commands = placed.commands.max(self.log.volatile_bytes());
        }
        let waiting = self.gathering.cost() + placed + self.forwards.cost();
        if bytes + HEAD_BYTES > self.tuning.append_bytes_max as usize {
            Some(Refusal::TooLarge)
        } else if self.is_handing_over() {
            Some(Refusal::Transferring)
        } else if leads && !self.has_room() {
            Some(Refusal::DiskFull)
        } else if waiting.bytes() + bytes as u64 > self.tuning.propose_bytes_max {
            Some(Refusal::Busy)
        } else {
            None
        }
    }

    /// Whether a quorum has room for what a leader takes: else nobody knows when it would be
    /// committed. A follower that is heard from again says anew how it is.
    pub(super) fn has_room(&self) -> bool {
        let Role::Leader(leader) = &self.role else { return true };
        if self.facts.full || leader.peers.iter().all(|peer| !peer.full) {
            return !self.facts.full;
        }
        let has_room =
            |id| leader.peers.iter().any(|peer| peer.id == id && !peer.full && !peer.paused);
        self.membership.is_quorum(|id| id == self.identity.node || has_room(id))
    }

    /// Sends what was gathered on its way if `batch` does not fit beside it. Returns how many
    /// commands it will have before it; `None` if it must be split.
    pub(super) fn make_room(&mut self, batch: &Batch) -> Option<u32> {
        let (commands_max, bytes_max) =
            (self.tuning.entry_commands_max, self.tuning.append_bytes_max as usize - HEAD_BYTES);
        if batch.count() > commands_max {
            return None;
        }
        let beside = self.gathering.count();
        let fits = batch.count() <= commands_max - beside.min(commands_max)
            && batch.bytes() + self.gathering.bytes() <= bytes_max;
        if !fits {
            self.dispatch();
        } else if beside > 0 {
            self.marks.set(Mark::ProposalsGathered);
        }
        Some(self.gathering.count())
    }

    /// What was gathered leaves: into an entry, or towards the leader.
    fn dispatch(&mut self) {
        match &self.role {
            Role::Leader(_) => self.seal(),
            _ => self.forward(),
        }
    }

    /// Gathered proposals -> an entry, unless it would only wait for its write: then more gather.
    pub(crate) fn propose(&mut self) {
        if self.gathering.is_empty() {
            return;
        }
        // A disk that is full stays saturated: others may have room for what was taken before that was known.
        let is_held = self.facts.saturated && !self.facts.full;
        if !matches!(self.role, Role::Leader(_)) || !is_held {
            self.dispatch();
        }
    }

    pub(super) fn seal(&mut self) {
        let Some((batch, runs, time)) = self.gathering.take() else { return };
        let last = self.log.last();
        let id = LogId::new(self.term, last.index.next());
        let time = self.date(time);
        let bytes = batch.bytes() as u64;
        self.append_own(batch.seal(self.seed, id, last.term, time));
        self.tracking.push(Tracked { id, bytes, runs, at: self.now });
    }

    /// The time of an entry made now: this node's clock, whoever proposed what is in it; `proposed`
    /// as long as nobody has told of one. Where that stands behind the log, as it was set back, or one
    /// that led before was ahead, the log's time goes on as time passes: if it stood still until the
    /// clock has caught up, nothing would expire meanwhile.
    pub(super) fn date(&mut self, proposed: Timestamp) -> Timestamp {
        let wall = if cfg!(lakebed_break = "date_by_who_proposed") {
            proposed
        } else {
            self.wall.at(self.now).unwrap_or(proposed)
        };
        let last = self.log.last_time();
        let passed = match self.pace.at(self.now) {
            Some(passed) if !cfg!(lakebed_break = "let_time_stand") => passed.max(last),
            _ => last,
        };
        let time = wall.max(passed);
        self.pace.set(time, self.now);
        time
    }

    /// The machine begins behind `at`, once it is there.
    pub(super) fn restore(&mut self, at: Option<LogId>) {
        match at {
            Some(at) if !self.applying.restored => {
                self.applying.restored = true;
                // It may have been read for the state that the machine had.
                self.applying.fed = None;
                self.log.marks.restored(at.index);
                // What the snapshot holds was applied elsewhere, and its answers were given there.
                while let Some(tracked) = self.tracking.pop_through(at.index) {
                    self.end_runs(&tracked.runs, &Outcome::Unknown);
                }
            }
            // A snapshot is on its way into it, in place of the state it had.
            None if self.applying.restored => self.applying.begin_anew(),
            _ => {}
        }
    }

    /// How far the machine may go.
    fn apply_limit(&self) -> LogIndex {
        let (committed, durable) = (self.log.marks.committed(), self.log.marks.durable());
        if self.applying.durable_only { committed.min(durable) } else { committed }
    }

    /// What is committed -> the machine, in bounded portions.
    pub(crate) fn apply(&mut self) {
        if self.receiver.taking.is_some() || self.is_joining() {
            return;
        }
        let limit = self.apply_limit();
        while self.applying.restored && self.log.marks.applying() < limit {
            let room = self.tuning.apply_bytes_max.saturating_sub(self.applying.bytes);
            let from = self.log.marks.applying().next();
            let fed = self.applying.fed.take();
            let Some(chunk) = fed.or_else(|| self.log.slice(from, limit, room as usize)) else {
                return self.read_to_apply(from, limit);
            };
            // One portion is always allowed: else an entry above the limit would never go.
            if chunk.frames.len() as u64 > room && self.applying.bytes > 0 {
                self.applying.fed = Some(chunk);
                return;
            }
            self.hand_out(chunk);
        }
    }

    fn read_to_apply(&mut self, from: LogIndex, limit: LogIndex) {
        let to = limit.min(self.log.marks.durable());
        let full = self.applying.bytes >= self.tuning.apply_bytes_max;
        // After a restart entries are known before they are certainly on disk.
        if self.applying.reading || full || to < from {
            return;
        }
        self.applying.reading = true;
        let bytes_max = self.tuning.append_bytes_max;
        self.wishes.push(ReadWish { reader: Reader::Machine, from, to, bytes_max });
    }

    fn hand_out(&mut self, chunk: Chunk) {
        self.handed_out = self.now;
        let runs = self.runs_in(&chunk);
        let bytes = chunk.frames.len() as u64;
        self.log.marks.advance_applying(chunk.last);
        self.applying.queue.push_back((chunk.last, bytes));
        self.applying.bytes += bytes;
        let Chunk { first, last, frames } = chunk;
        self.actions.push(Action::Machine(Machine::Apply(Entries { first, last, frames, runs })));
    }

    /// Who waits for which command of these entries, counted over all of them.
    fn runs_in(&mut self, chunk: &Chunk) -> Runs {
        if !self.tracking.is_due(chunk.last) {
            return Runs::None;
        }
        let (mut entries, mut next, mut ordinal) = (frames(&chunk.frames), chunk.first, 0);
        while let Some(tracked) = self.tracking.pop_through(chunk.last) {
            let Tracked { id, runs, .. } = tracked;
            assert!(id.index >= next, "what waits for {id} would be answered by another entry");
            if self.log.term_at(id.index) != Some(id.term) {
                // Another entry was committed in its place: it never can be.
                for run in runs.as_slice() {
                    let outcome = Outcome::Refused(Refusal::NotLeader { hint: None });
                    self.actions.push(Action::Respond { requests: run.requests, outcome });
                }
                continue;
            }
            while next < id.index {
                ordinal += entries.next().map_or(0, |entry| entry.count);
                next = next.next();
            }
            if self.applying.runs.is_empty() && !self.tracking.is_due(chunk.last) {
                return shifted(runs, ordinal);
            }
            self.applying.runs.extend_from_slice(shifted(runs, ordinal).as_slice());
        }
        collect(&mut self.applying.runs)
    }

    /// The machine applied everything up to here.
    pub(crate) fn on_applied(&mut self, through: LogIndex) {
        self.log.marks.advance_applied(through);
        while let Some(&(last, bytes)) = self.applying.queue.front()
            && last <= through
        {
            self.applying.queue.pop_front();
            self.applying.bytes -= bytes;
        }
    }

    /// The last applied index.
    pub(crate) const fn applied(&self) -> LogIndex {
        self.log.marks.applied()
    }

    /// How far the machine was given entries; of no term if the log does not reach back there.
    pub(crate) fn given(&self) -> LogId {
        let given = self.log.marks.applying();
        LogId::new(self.log.term_at(given).unwrap_or_default(), given)
    }

    /// The last entry handed to the machine.
    pub(crate) fn applying(&self) -> LogId {
        self.log.id_at(self.log.marks.applying()).unwrap_or_default()
    }
}
