//! Proposals made at a follower: sent on to the leader, answered here when they are applied here.
//!
//! Knows no log beyond identities. Invariant: batches are numbered, the leader takes each number
//! once and in order, and no answer crosses the wire: the leader only says *where* a batch went
//! (its fate), so a client's answer rests on the entry that this node applies itself.

use super::{
    Raft,
    proposal::{Cost, Tracked, requests, shifted},
    role::Role,
};
use crate::{
    action::{Outcome, Refusal},
    entry::{Batch, Runs},
    marks::Mark,
    message::{Append, FATES_MAX, Fate, Forward, Head, Life, Payload, Placement},
    types::{Instant, LogId, LogIndex, Timestamp},
};
use std::collections::VecDeque;

/// The most fates a leader keeps for one peer; what is forwarded beyond is dropped, and refused
/// by its sender as soon as it hears of a later number.
const FATES_KEPT_MAX: usize = FATES_MAX * 4;

/// What a leader knows of one peer's forwarded batches.
#[derive(Clone, Debug, Default)]
pub(super) struct Intake {
    /// The peer's life.
    pub(super) session: Life,
    /// The one before: if both have one write epoch, or the disk was set back, which of them is the later
    /// one is known from the order alone in which they were met.
    former: Life,
    /// The last number that was taken.
    received: u64,
    /// The peer has the fates up to this number.
    confirmed: u64,
    /// Fates that the peer has not confirmed, ascending.
    fates: VecDeque<Fate>,
    /// How many of them were sent.
    told: usize,
    /// The peer answers clients when it learns that this index is committed.
    awaits: LogIndex,
}

impl Intake {
    /// Whether this batch is the next: not one of a former life, not a repeated one.
    fn admit(&mut self, session: Life, sequence: u64) -> bool {
        let (met, known) = (session.write_epoch(), self.session.write_epoch());
        if met >= known && ![self.session, self.former].contains(&session) {
            let former = match self.session {
                Life::NONE => self.former,
                before => before,
            };
            *self = Self { session, former, ..Self::default() };
        }
        let next = session == self.session
            && sequence > self.received
            && self.fates.len() < FATES_KEPT_MAX;
        if next {
            self.received = sequence;
        }
        next
    }

    /// Its disk was set back: this life may be of an earlier write epoch than the one that is known.
    pub(super) fn set_back(&mut self, life: Life) {
        if !life.goes_on_from(self.session) {
            *self = Self { former: self.session, ..Self::default() };
        }
    }

    fn decide(&mut self, sequence: u64, outcome: Placement) {
        if let Placement::At { id, .. } = outcome {
            self.awaits = id.index;
        }
        self.fates.push_back(Fate { sequence, outcome });
    }

    /// Whether there is something to tell that no append with entries will carry: `last` is sent.
    pub(super) fn is_due(&self, last: LogIndex) -> bool {
        self.fates.get(self.told).is_some_and(|fate| match fate.outcome {
            Placement::At { id, .. } => id.index <= last,
            Placement::Busy | Placement::DiskFull | Placement::TooLarge => true,
        })
    }

    /// Whether the peer's clients wait for more than it knows to be committed.
    pub(super) fn awaits(&self, told: LogIndex) -> bool {
        told < self.awaits
    }

    /// The fates that were not sent yet, and the number behind which they lack none.
    pub(super) fn tell(&mut self) -> (Vec<Fate>, u64) {
        if self.fates.is_empty() {
            return (Vec::new(), self.confirmed);
        }
        let before = self.told.checked_sub(1).map(|told| self.fates[told].sequence);
        let fates: Vec<_> = self.fates.range(self.told..).take(FATES_MAX).copied().collect();
        self.told += fates.len();
        (fates, before.unwrap_or(self.confirmed))
    }

    /// The peer has the fates up to this number. Its former life's word does not count.
    pub(super) fn arrived(&mut self, life: Life, sequence: u64) {
        if !life.goes_on_from(self.session) {
            return;
        }
        self.confirmed = self.confirmed.max(sequence);
        while self.fates.front().is_some_and(|fate| fate.sequence <= sequence) {
            self.fates.pop_front();
            self.told = self.told.saturating_sub(1);
        }
    }

    /// What was sent may be lost: say it again.
    pub(super) const fn repeat(&mut self) {
        self.told = 0;
    }
}

/// A batch on its way to the leader.
#[derive(Clone, Debug)]
struct Forwarded {
    sequence: u64,
    bytes: u64,
    runs: Runs,
    at: Instant,
}

impl Forwarded {
    fn cost(&self) -> Cost {
        Cost::of(self.bytes, self.runs.as_slice())
    }
}

/// What a follower knows of the batches it forwards.
#[derive(Clone, Debug)]
pub(super) struct Forwards {
    session: Life,
    sequence: u64,
    /// Sent, their fate unknown; ascending.
    queue: VecDeque<Forwarded>,
    cost: Cost,
    outgoing: Vec<Forward>,
    /// The last fate that arrived.
    pub(super) fates: u64,
}

impl Forwards {
    pub(super) fn new(session: Life) -> Self {
        Self {
            session,
            sequence: 0,
            queue: VecDeque::new(),
            cost: Cost::default(),
            outgoing: Vec::new(),
            fates: 0,
        }
    }

    pub(super) const fn cost(&self) -> Cost {
        self.cost
    }

    /// Whether none is on its way, or to be sent.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.outgoing.is_empty()
    }

    /// When the oldest one was sent.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.queue.front().map(|forwarded| forwarded.at)
    }

    fn push(&mut self, forwarded: Forwarded) {
        self.cost = self.cost + forwarded.cost();
        self.queue.push_back(forwarded);
    }

    fn pop(&mut self) -> Option<Forwarded> {
        let forwarded = self.queue.pop_front()?;
        self.cost.give_back(forwarded.cost());
        Some(forwarded)
    }
}

impl Raft {
    /// What was gathered goes to the leader as one batch.
    pub(super) fn forward(&mut self) {
        let Some((batch, runs, time)) = self.gathering.take() else { return };
        let forwards = &mut self.forwards;
        forwards.sequence += 1;
        let (sequence, count, bytes) = (forwards.sequence, batch.count(), batch.bytes() as u64);
        forwards.push(Forwarded { sequence, bytes, runs, at: self.now });
        let (session, commands) = (forwards.session, batch.into_body());
        forwards.outgoing.push(Forward { session, sequence, time, count, commands });
    }

    pub(super) fn send_forwards(&mut self) {
        if self.forwards.outgoing.is_empty() {
            return;
        }
        let mut outgoing = std::mem::take(&mut self.forwards.outgoing);
        if let Some(leader) = self.leader() {
            for forward in outgoing.drain(..) {
                self.send(leader, Payload::Forward(forward));
            }
        }
        outgoing.clear();
        self.forwards.outgoing = outgoing;
    }

    /// At the leader: a follower's batch joins the entry in the making.
    pub(super) fn on_forward(&mut self, head: &Head, forward: Forward) {
        let (from, sequence) = (head.from, forward.sequence);
        let Role::Leader(leader) = &mut self.role else { return };
        if head.term != self.term {
            return self.marks.set(Mark::StaleAnswerDropped);
        }
        let batch = Batch::from_body(&forward.commands, forward.count);
        let Some(batch) = batch.filter(|batch| !batch.is_empty()) else {
            return self.fault(from, "forwarded commands are no commands");
        };
        let Some(peer) = leader.peer(from) else { return };
        if !peer.intake.admit(forward.session, sequence) {
            return self.marks.set(Mark::ForwardRepeated);
        }
        let outcome = match self.refusal(batch.bytes()) {
            None => self.place(batch, forward.time),
            Some(Refusal::DiskFull) => Placement::DiskFull,
            Some(Refusal::TooLarge) => Placement::TooLarge,
            Some(_) => Placement::Busy,
        };
        let Role::Leader(leader) = &mut self.role else { unreachable!("placing keeps the role") };
        let peer = leader.peer(from).expect("it was just there");
        peer.intake.decide(sequence, outcome);
    }

    fn place(&mut self, batch: Batch, time: Timestamp) -> Placement {
        // A follower of the same tuning would not have sent more commands than fit.
        let Some(ordinal) = self.make_room(&batch) else { return Placement::TooLarge };
        self.gathering.add(batch, None, time);
        let id = LogId::new(self.term, self.log.marks.last().next());
        Placement::At { id, ordinal }
    }

    /// At the follower: the leader says where batches went.
    pub(super) fn on_fates(&mut self, append: &Append) {
        // An append before this one is missing: what it told is told again.
        let gap = append.fates_after > self.forwards.fates;
        if append.session != self.forwards.session || gap {
            return;
        }
        for fate in &append.fates {
            if fate.sequence > self.forwards.fates {
                self.forwards.fates = fate.sequence;
                self.on_fate(fate);
            }
        }
    }

    fn on_fate(&mut self, fate: &Fate) {
        // The leader takes numbers in order: what it never took before this one, it never will.
        while self.forwards.queue.front().is_some_and(|sent| sent.sequence < fate.sequence) {
            let skipped = self.forwards.pop().expect("it was just seen");
            self.marks.set(Mark::ForwardSkipped);
            self.end_runs(&skipped.runs, &Outcome::Refused(Refusal::Busy));
        }
        if self.forwards.queue.front().is_none_or(|sent| sent.sequence != fate.sequence) {
            return;
        }
        let Forwarded { runs, bytes, .. } = self.forwards.pop().expect("it was just seen");
        let refusal = match fate.outcome {
            Placement::At { id, ordinal } => return self.placed(id, bytes, shifted(runs, ordinal)),
            Placement::Busy => Refusal::Busy,
            Placement::DiskFull => Refusal::DiskFull,
            Placement::TooLarge => Refusal::TooLarge,
        };
        self.marks.set(Mark::ForwardRefused);
        self.end_runs(&runs, &Outcome::Refused(refusal));
    }

    pub(super) fn placed(&mut self, id: LogId, bytes: u64, runs: Runs) {
        self.marks.set(Mark::ForwardPlaced);
        let is_ahead = id.index > self.log.marks.applying() && id.index >= self.log.first();
        // A leader places one behind the other: what it says of another order, it has gone wrong in.
        if is_ahead && self.tracking.last().is_none_or(|before| before.index <= id.index) {
            self.tracking.push(Tracked { id, bytes, runs, at: self.now });
        } else {
            // It went by unrecognised, or another entry did.
            self.end_runs(&runs, &Outcome::Unknown);
        }
    }

    /// Those whose fate will not be heard of any more: they may have arrived.
    pub(super) fn lose_forwards(&mut self) {
        while let Some(lost) = self.forwards.pop() {
            let unsent = self.forwards.outgoing.iter().any(|f| f.sequence == lost.sequence);
            let outcome = if unsent {
                Outcome::Refused(Refusal::NotLeader { hint: None })
            } else {
                self.marks.set(Mark::ForwardUnknown);
                Outcome::Unknown
            };
            self.end_runs(&lost.runs, &outcome);
        }
        self.forwards.outgoing.clear();
    }

    /// When what the leader has committed has been waited for as long as it may at a node that gets no
    /// further; or what it has placed, and nobody has led since.
    pub(super) fn give_up_at(&self) -> Option<Instant> {
        let committed = match &self.role {
            Role::Follower(follower) => follower.committed,
            // What is not known to be committed ended when it began to stand.
            Role::PreCandidate(_) | Role::Candidate(_) => self.log.marks.committed(),
            Role::Forming(_) | Role::Leader(_) => return None,
        };
        let (at, placed) = self.tracking.oldest()?;
        let since = if placed <= committed { self.handed_out } else { self.contact };
        Some(at.max(since).after(self.tuning.election.1))
    }

    /// Ends forwarded commands that were committed and do not come here to be applied: this log may
    /// be a long way behind and, on a disk that is full, stay there. And those that were placed by a
    /// leader that has fallen silent, at a node that does not stand itself: the entry that made it a
    /// member may be lost, and then nobody tells it anything any more.
    pub(super) fn give_up_forwarded(&mut self) {
        while self.give_up_at().is_some_and(|at| self.now >= at) {
            let Some(late) = self.tracking.pop_through(LogIndex(u64::MAX)) else { return };
            self.marks.set(Mark::ProposalUnknown);
            self.end_runs(&late.runs, &Outcome::Unknown);
        }
    }

    pub(super) fn end_runs(&mut self, runs: &Runs, outcome: &Outcome) {
        requests(runs).for_each(|requests| self.end(requests, outcome.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_former_life_confirms_nothing() {
        let (former, cut) = (Life::new(4, 7), Life::new(6, 7));
        let (life, twin) = (Life::new(5, 7), Life::new(5, 3));
        let mut intake = Intake::default();
        assert!(intake.admit(life, 1));
        intake.decide(1, Placement::Busy);
        for other in [former, twin] {
            intake.arrived(other, 1);
            assert_eq!(intake.tell().0.len(), 1, "this life was told nothing yet");
            intake.repeat();
        }
        intake.arrived(cut, 1);
        intake.repeat();
        assert_eq!(intake.tell(), (Vec::new(), 1));
    }

    #[test]
    fn each_life_counts_anew_and_none_comes_back() {
        let [first, twin] = [7, 3].map(|drawn| Life::new(5, drawn));
        let mut intake = Intake::default();
        assert!(intake.admit(first, 1) && intake.admit(first, 3));
        assert!(!intake.admit(Life::new(4, 9), 4), "of an earlier start");
        assert!(intake.admit(twin, 1), "its disk was set back");
        assert!(!intake.admit(twin, 1));
        assert!(!intake.admit(first, 4), "it came late");
        assert!(intake.admit(Life::new(6, 7), 1));
        assert!(!intake.admit(first, 5) && !intake.admit(twin, 5));
    }

    /// By its write epoch alone the life of before would be the later one.
    #[test]
    fn whose_disk_was_set_back_is_heard_in_no_life_of_before() {
        let [before, back] = [Life::new(5, 7), Life::new(3, 9)];
        let mut intake = Intake::default();
        assert!(intake.admit(before, 1));
        intake.set_back(back);
        assert!(intake.admit(back, 1));
        assert!(!intake.admit(before, 2));
    }

    #[test]
    fn what_was_told_is_told_again_only_when_it_may_be_lost() {
        let mut intake = Intake::default();
        (1..=2).for_each(|sequence| intake.decide(sequence, Placement::Busy));
        let told = |intake: &mut Intake| {
            let (fates, after) = intake.tell();
            (fates.iter().map(|fate| fate.sequence).collect::<Vec<_>>(), after)
        };
        assert_eq!(told(&mut intake), (vec![1, 2], 0));
        intake.decide(3, Placement::Busy);
        assert_eq!(told(&mut intake), (vec![3], 2));
        assert_eq!(told(&mut intake), (vec![], 3));
        intake.repeat();
        assert_eq!(told(&mut intake), (vec![1, 2, 3], 0));
    }

    /// One that no entry here has is told with that entry; a refusal has none.
    #[test]
    fn word_of_an_entry_is_due_once_that_was_sent() {
        let id = LogId { index: LogIndex(3), ..LogId::default() };
        for (outcome, is_due) in [
            (Placement::At { id, ordinal: 0 }, [false, true, true]),
            (Placement::TooLarge, [true; 3]),
        ] {
            let mut intake = Intake::default();
            intake.decide(1, outcome);
            assert_eq!([2, 3, 4].map(|last| intake.is_due(LogIndex(last))), is_due);
        }
    }

    #[test]
    fn so_many_fates_are_kept_for_one_peer_and_no_more() {
        let (mut intake, life) = (Intake::default(), Life::new(1, 1));
        for sequence in 1..=FATES_KEPT_MAX as u64 {
            assert!(intake.admit(life, sequence));
            intake.decide(sequence, Placement::Busy);
        }
        let next = FATES_KEPT_MAX as u64 + 1;
        assert!(!intake.admit(life, next));
        intake.arrived(life, 1);
        assert!(intake.admit(life, next));
    }
}
