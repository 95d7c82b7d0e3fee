//! What a driver owes: everything asked of it in one life of a node, and what came back.
//!
//! Knows no case and no engine. Invariant: the first breach is kept, later ones may follow from it.

use super::{Breach, Clause};
use crate::{
    Action, CaptureId, Completion, DiskError, Event, Instant, LogId, LogIndex, Machine, NodeId,
    OpId,
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

/// How late a deadline may be met, and the wall clock told. A disk operation that is under way
/// excuses any lateness of a deadline: a driver may be in the middle of it, and how long a disk
/// takes is nobody's fault.
pub const LATENESS_MAX: Duration = Duration::from_secs(1);

/// How often the wall clock is told as long as anything happens.
const TIME_EVERY: Duration = Duration::from_secs(1);

/// How long a driver may take to tell of a loss.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(2);

/// A node's account, through all its lives.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    life: Life,
    /// Operations that were open when their life was over.
    former: BTreeSet<OpId>,
    /// Operations that a [`FaultyDisk`](super::FaultyDisk) failed, and how.
    failed: BTreeMap<OpId, DiskError>,
    /// Operations that a `FaultyDisk` shall yet fail.
    pub(super) doomed: BTreeMap<OpId, DiskError>,
    /// Peers to whom a [`LossyLink`](super::LossyLink) lost something and who were not said to be
    /// down since, and when the core was first called after that.
    lost: BTreeMap<NodeId, Option<Instant>>,
    /// Whether a [`LossyLink`](super::LossyLink) was asked, and whether it has lost anything.
    pub(super) asked_of_losses: bool,
    has_lost: bool,
    /// What the case waits for, and what it means if that never comes.
    pub(super) awaited: Option<Breach>,
    /// How often the core was called: whether anything goes on.
    pub(super) calls: u64,
    breach: Option<Breach>,
}

#[derive(Debug, Default)]
struct Life {
    started: bool,
    halted: bool,
    /// Operations under way.
    ops: BTreeSet<OpId>,
    handed: LogIndex,
    applied: LogIndex,
    /// The same of before a state was replaced: what was in the lane then is still answered.
    replaced: Option<(LogIndex, LogIndex)>,
    /// The piece that is asked for, and its greatest length.
    piece: Option<(CaptureId, u32)>,
    /// Captures that were stopped while a piece was on its way; it may still come, or not.
    stopped: BTreeSet<CaptureId>,
    /// Restores that are yet to be answered: which state each belongs to, and where it ends in it.
    restores: VecDeque<(u64, u64)>,
    /// States that have begun.
    states: u64,
    deadline: Option<Instant>,
    /// When the core was called last.
    called: Instant,
    /// When the wall clock was told last.
    told: Option<Instant>,
    /// Since when something happens and the wall clock is to be told.
    untold_since: Option<Instant>,
    /// The last message from each peer, if it does not have its buffer for itself.
    shared: BTreeMap<NodeId, Bytes>,
}

impl Ledger {
    /// A new core takes the place of the former one.
    pub(super) fn begin_life(&mut self) {
        let former = std::mem::take(&mut self.life);
        self.former.extend(former.ops);
        self.awaited = None;
        // Whoever sent it is gone, and so are the links.
        self.lost.clear();
    }

    pub(super) fn breach(&mut self, clause: Clause, detail: impl Into<String>) {
        self.breach.get_or_insert_with(|| Breach { clause, detail: detail.into() });
    }

    pub(super) const fn broken(&self) -> Option<&Breach> {
        self.breach.as_ref()
    }

    /// A fault was put in: from here on the driver owes an account of it.
    pub(super) fn on_failed(&mut self, op: OpId, error: DiskError) {
        self.failed.insert(op, error);
    }

    pub(super) fn has_failed(&self, op: OpId) -> bool {
        self.failed.contains_key(&op)
    }

    /// Why the failures that were to be put in show nothing, if they do not.
    pub(super) fn without_failures(&self) -> Option<&'static str> {
        let none = "the driver does not use FaultyDisk";
        let few = "the driver does not use FaultyDisk for every operation";
        (!self.doomed.is_empty()).then_some(if self.failed.is_empty() { none } else { few })
    }

    /// The same of losses.
    pub(super) fn without_losses(&self) -> Option<&'static str> {
        let none = "the driver does not use LossyLink";
        let few = "the driver does not ask LossyLink before each send: nothing was lost";
        (!self.has_lost).then_some(if self.asked_of_losses { few } else { none })
    }

    pub(super) fn on_lost(&mut self, to: NodeId) {
        self.has_lost = true;
        self.lost.entry(to).or_default();
    }

    /// A peer to whom something was lost, and nobody said so.
    pub(super) fn lost_in_silence(&self) -> Option<NodeId> {
        self.lost.keys().next().copied()
    }

    /// What a driver that never comes back still owes.
    pub(super) fn owed(&self) -> Breach {
        let breach = |clause, detail| Breach { clause, detail };
        if let Some(op) = self.life.ops.first() {
            return breach(Clause::OpEnds, format!("{op:?} never ended"));
        }
        if self.life.halted {
            return breach(Clause::DroppedAfterHalt, "the driver goes on after the halt".into());
        }
        if self.life.applied < self.life.handed {
            let detail = format!("{} was to be applied, {}", self.life.handed, self.life.applied);
            return breach(Clause::MachineInOrder, detail + " was");
        }
        if let Some((_, end)) = self.life.restores.front() {
            let detail = format!("a restore up to {end} was never answered");
            return breach(Clause::MachineInOrder, detail);
        }
        if let Some((capture, _)) = self.life.piece {
            return breach(Clause::MachineInOrder, format!("{capture:?}: a piece never came"));
        }
        if let Some(awaited) = &self.awaited {
            return awaited.clone();
        }
        if let Some(deadline) = self.life.deadline {
            let Instant(called) = self.life.called;
            let detail = format!(
                "the deadline passed unnoticed: it is {} and the last call said {called}, both in \
                 nanoseconds",
                deadline.0
            );
            return breach(Clause::Deadline, detail);
        }
        if !self.life.started {
            return breach(Clause::StartFirst, "the core was never started".into());
        }
        breach(Clause::UntilHalt, "the case never came to its end".into())
    }

    /// The driver has returned: nothing may be open any more.
    pub(super) fn on_returned(&mut self) {
        if !self.life.halted {
            self.breach(Clause::UntilHalt, "the driver returned before the halt");
        }
    }

    pub(super) fn on_call(&mut self, now: Instant, events: &[Event]) {
        self.calls += 1;
        self.life.called = now;
        if self.life.halted {
            self.breach(Clause::DroppedAfterHalt, "handle was called after the halt");
        }
        if let Some(deadline) = self.life.deadline
            && now.since(deadline) > LATENESS_MAX
            && self.life.ops.is_empty()
        {
            let late = now.since(deadline);
            self.breach(Clause::Deadline, format!("handle was called {late:?} after the deadline"));
        }
        if !self.life.started && !matches!(events.first(), Some(Event::Start(_))) {
            self.breach(Clause::StartFirst, format!("the first event was {:?}", events.first()));
        }
        events.iter().for_each(|event| self.on_event(event));
        self.await_word_of_losses(now);
        self.await_time(now, events);
    }

    /// Whoever tells it by a timer of its own does so behind the first event after a silence, or
    /// after a long turn. That is not late yet.
    fn await_time(&mut self, now: Instant, events: &[Event]) {
        if events.iter().any(|event| matches!(event, Event::Propose { .. })) {
            (self.life.told, self.life.untold_since) = (Some(now), None);
            return;
        }
        let is_due = self.life.told.is_none_or(|told| now.since(told) > TIME_EVERY);
        if events.is_empty() || !is_due {
            return;
        }
        let late = now.since(*self.life.untold_since.get_or_insert(now));
        if late > LATENESS_MAX {
            let before = if self.life.told.is_some() { "again" } else { "at all" };
            let detail = format!("it was not told {before}, {late:?} after it was due");
            self.breach(Clause::TimeTold, detail);
        }
    }

    fn await_word_of_losses(&mut self, now: Instant) {
        let mut silent = None;
        for (peer, since) in &mut self.lost {
            if now.since(*since.get_or_insert(now)) > SILENCE_MAX {
                silent = Some(*peer);
            }
        }
        if let Some(peer) = silent {
            self.breach(Clause::LossTold, format!("sends to {peer} were lost in silence"));
        }
    }

    fn on_event(&mut self, event: &Event) {
        match event {
            Event::Start(_) if self.life.started => {
                self.breach(Clause::StartFirst, "a second start");
            }
            Event::Start(_) => self.life.started = true,
            Event::Completed { op, result } => self.on_completed(*op, result),
            Event::Applied { through } => self.on_applied(*through),
            Event::Captured { capture, result } => {
                self.on_piece(*capture, result.as_ref().map_or(0, |chunk| chunk.bytes.len()));
            }
            Event::Restored { through, result } => self.on_restored(*through, result.is_ok()),
            Event::Link { peer, up: false } => {
                self.lost.remove(peer);
            }
            Event::Received { from, bytes } => self.on_received(*from, bytes),
            _ => {}
        }
    }

    /// A message may be held elsewhere, and its memory may be anybody's; but no other message may
    /// lie in the same piece of it, which would live as long as the core keeps either. A message
    /// that is held so is compared with the one before it: it begins where that one ends, or behind
    /// the length of its frame. Where that one ends so that the next multiple of eight lies farther
    /// away: there are allocators that put the pieces they give out side by side.
    fn on_received(&mut self, from: NodeId, bytes: &Bytes) {
        const LENGTH_BYTES: usize = 4;
        const ALLOCATED_AT: usize = 8;
        let before = self.life.shared.remove(&from);
        if bytes.is_unique() || bytes.is_empty() {
            return;
        }
        // While it is held nothing else can come to lie where it lies.
        self.life.shared.insert(from, bytes.clone());
        let end = before.map(|before| before.as_ptr_range().end.addr());
        let end = end.filter(|end| end.next_multiple_of(ALLOCATED_AT) - end > LENGTH_BYTES);
        let gap = end.and_then(|end| bytes.as_ptr().addr().checked_sub(end));
        if gap.is_some_and(|gap| gap <= LENGTH_BYTES) {
            self.breach(Clause::OwnBuffer, "a received message shares its buffer with another");
        }
    }

    fn on_completed(&mut self, op: OpId, result: &Result<Completion, DiskError>) {
        if !self.life.ops.remove(&op) {
            if self.former.contains(&op) {
                return self.breach(Clause::FormerLife, format!("{op:?} is a former core's"));
            }
            let detail = format!("{op:?} ended and is not under way: never asked for, or twice");
            return self.breach(Clause::OpEnds, detail);
        }
        let Some(failed) = self.failed.get(&op) else { return };
        if result.as_ref() != Err(failed) {
            let detail = format!("{op:?} failed with {failed:?}, told was {result:?}");
            self.breach(Clause::FailureTold, detail);
        }
    }

    fn on_applied(&mut self, through: LogIndex) {
        if let Some((handed, applied)) = &mut self.life.replaced
            && (*applied..=*handed).contains(&through)
        {
            *applied = through;
            self.life.replaced.take_if(|(handed, _)| *handed == through);
            return;
        }
        let (applied, handed) = (self.life.applied, self.life.handed);
        if through < applied || through > handed {
            let detail = format!("applied {through}, after {applied} and with {handed} handed out");
            self.breach(Clause::MachineInOrder, detail);
        }
        self.life.applied = through;
    }

    fn on_piece(&mut self, capture: CaptureId, bytes: usize) {
        match self.life.piece.take() {
            Some((asked, bytes_max)) if asked == capture => {
                // In order: what belongs to an older one would have come before.
                self.life.stopped.clear();
                if bytes > bytes_max as usize {
                    let detail = format!("{bytes} bytes captured where {bytes_max} are the most");
                    self.breach(Clause::MachineInOrder, detail);
                }
            }
            asked => {
                self.life.piece = asked;
                if !self.life.stopped.contains(&capture) {
                    let detail = format!("a piece of {capture:?} that nobody asked for");
                    self.breach(Clause::MachineInOrder, detail);
                }
            }
        }
    }

    /// In order, each. Whoever answers may have taken in more of the same state meanwhile.
    fn on_restored(&mut self, through: u64, is_taken: bool) {
        let Some((state, end)) = self.life.restores.pop_front() else {
            return self.breach(Clause::MachineInOrder, "a restore was answered twice, or unasked");
        };
        let of_state = self.life.restores.iter().rev().find(|(other, _)| *other == state);
        let handed = of_state.map_or(end, |(_, handed)| *handed);
        if is_taken && !(end..=handed).contains(&through) {
            let detail = format!("restored {through} where {end} is next, {handed} handed out");
            self.breach(Clause::MachineInOrder, detail);
        }
    }

    pub(super) fn on_actions(&mut self, actions: &[Action], deadline: Option<Instant>) {
        self.life.deadline = deadline;
        for action in actions {
            match action {
                Action::Disk { op, .. } => {
                    self.life.ops.insert(*op);
                }
                Action::Machine(step) => self.on_step(step),
                Action::Halt(_) => self.life.halted = true,
                _ => {}
            }
        }
    }

    fn on_step(&mut self, step: &Machine) {
        match step {
            Machine::Apply(entries) => self.life.handed = entries.last,
            Machine::CaptureNext { capture, bytes_max } => {
                self.life.piece = Some((*capture, *bytes_max));
            }
            Machine::CaptureStop { capture } => {
                if self.life.piece.take_if(|(asked, _)| asked == capture).is_some() {
                    self.life.stopped.insert(*capture);
                }
            }
            Machine::Restore { at, offset, bytes, last } => {
                self.life.states += u64::from(*offset == 0);
                self.life.restores.push_back((self.life.states, offset + bytes.len() as u64));
                if *last || *at == LogId::ZERO {
                    let life = &mut self.life;
                    if life.applied < life.handed {
                        let now = (life.handed, life.applied);
                        let (handed, applied) = life.replaced.unwrap_or(now);
                        life.replaced = Some((handed.max(now.0), applied.min(now.1)));
                    }
                    (life.handed, life.applied) = (at.index, at.index);
                }
            }
            Machine::Query { .. } | Machine::Capture { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Chunk, Class, DiskRequest, Entries, Runs, Term};

    /// A slow machine and a small snapshot: the state is all handed out while entries of before are
    /// still in the lane. Their answer, in order and right, was called a breach.
    #[test]
    fn entries_ahead_of_a_new_state_are_still_answered() {
        let mut ledger = Ledger::default();
        let apply = |first, last| {
            let (first, last) = (LogIndex(first), LogIndex(last));
            Action::Machine(Machine::Apply(Entries {
                first,
                last,
                frames: Bytes::new(),
                runs: Runs::None,
            }))
        };
        let at = LogId::new(Term(1), LogIndex(100));
        let restore = Machine::Restore { at, offset: 0, bytes: Bytes::from("all"), last: true };
        let applied = |through| Event::Applied { through: LogIndex(through) };
        ledger.on_call(Instant(1), &[Event::Start(crate::Start::Run)]);
        let asked = [apply(1, 40), apply(41, 50), Action::Machine(restore), apply(101, 102)];
        ledger.on_actions(&asked, None);
        let restored = Event::Restored { through: 3, result: Ok(()) };
        ledger.on_call(Instant(2), &[applied(40), applied(50), restored, applied(102)]);
        assert_eq!(ledger.broken(), None);
        ledger.on_call(Instant(3), &[applied(50)]);
        assert_eq!(ledger.broken().map(|breach| breach.clause), Some(Clause::MachineInOrder));
    }

    /// A probe may stay around an engine for as long as a node lives.
    #[test]
    fn what_is_settled_is_forgotten() {
        let mut ledger = Ledger::default();
        for n in 1..=100 {
            let (op, capture) = (OpId(n), CaptureId(n));
            let asked = [
                Action::Disk { op, class: Class::Commit, request: DiskRequest::List },
                Action::Machine(Machine::CaptureNext { capture, bytes_max: 9 }),
                // The piece is on its way.
                Action::Machine(Machine::CaptureStop { capture }),
                Action::Machine(Machine::CaptureNext { capture: CaptureId(n + 1), bytes_max: 9 }),
            ];
            ledger.on_actions(&asked, None);
            let chunk = Chunk { bytes: Bytes::new(), last: false };
            let piece = |capture| Event::Captured { capture, result: Ok(chunk.clone()) };
            let came = [
                Event::Start(crate::Start::Run),
                Event::Completed { op, result: Ok(Completion::Done) },
                piece(capture),
                piece(CaptureId(n + 1)),
            ];
            ledger.on_call(Instant(n), &came[usize::from(n > 1)..]);
        }
        assert_eq!(ledger.broken(), None);
        assert!(ledger.life.ops.is_empty() && ledger.life.stopped.is_empty());
    }
}
