//! The facade: the one place that sees consensus and storage both.
//!
//! Knows neither the bytes of a file nor the rules of an election. Invariant: what leaves it is
//! legal already, whatever the driver does next and whenever the node crashes.

mod compaction;
mod passing;
mod plain;

use crate::{
    action::{Action, Halt, Note, Outcome, Refusal},
    codec::{self, Encoder},
    config::{Config, ConfigError, Tuning},
    event::{Control, Event},
    membership::Membership,
    raft::{Raft, Setting},
    status::{Probe, Status},
    storage::Storage,
    types::{Instant, LogId, LogIndex, NodeId, RequestId, Requests, Term, earliest},
    wall::WallClock,
};
use compaction::{Compaction, capturable, end};
use std::{sync::Arc, time::Duration};

/// How long a node that is asked to stop waits for its disk to hold what there is, and to say so.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// One node of one group, as a value: `(state, now, events) -> (state, actions)`.
#[derive(Clone, Debug)]
pub struct Engine {
    node: NodeId,
    tuning: Tuning,
    seed: u64,
    entry_bytes_max: u64,
    now: Instant,
    storage: Storage,
    /// Takes part once the disk was judged.
    raft: Option<Raft>,
    /// To whom the way was open before that.
    linked_before: Vec<NodeId>,
    encoder: Encoder,
    /// The machine has not applied yet what was known to be committed at the start.
    catching_up: bool,
    /// The machine keeps a state of its own.
    keeps_state: bool,
    /// As it was told before there was anybody to date entries by it.
    wall: WallClock,
    /// It is asked to stop, and does so by then at the latest.
    stop_by: Option<Instant>,
    /// It stops when it has handed its leadership over.
    is_leaving: bool,
    halted: bool,
    compaction: Compaction,
    /// While turns are plain: no timer runs out before then.
    quiet_until: Instant,
    /// In builds that check themselves: how many turns were plain.
    plain_turns: u32,
}

impl Engine {
    /// A node that has not started: the first event must be [`Event::Start`].
    ///
    /// `seed` is all the entropy it ever uses (election timeouts, incarnation): a driver draws it
    /// anew for each engine from the system's, a simulator from its stream. Peers know a disk that was
    /// wiped by its incarnation: one that is formatted with a seed it had before is taken for what it was.
    pub fn new(config: Config, seed: u64) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            node: config.node,
            storage: Storage::new(&config, seed),
            entry_bytes_max: config.entry_bytes_max(),
            tuning: config.tuning,
            seed,
            now: Instant::default(),
            raft: None,
            linked_before: Vec::new(),
            encoder: Encoder::default(),
            catching_up: true,
            keeps_state: config.machine_keeps_state,
            wall: WallClock::UNKNOWN,
            stop_by: None,
            is_leaving: false,
            halted: false,
            compaction: Compaction::default(),
            quiet_until: Instant::default(),
            plain_turns: 0,
        })
    }

    /// Records all events, settles once, and appends what is to be done to `actions`. No events:
    /// the [`deadline`](Self::deadline) has passed. A `now` that goes back is no time passed.
    /// After [`Action::Halt`] it does nothing more.
    pub fn handle(
        &mut self,
        now: Instant,
        events: impl IntoIterator<Item = Event>,
        actions: &mut Vec<Action>,
    ) {
        if self.halted {
            return;
        }
        self.now = self.now.max(now);
        if self.now >= self.quiet_until {
            self.stray();
        }
        if let Some(raft) = &mut self.raft {
            raft.on_time(self.now);
        }
        for event in events {
            self.on_event(event, actions);
        }
        self.settle(actions);
    }

    /// When `handle` must be called if nothing happens before; `None`: never.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if self.halted {
            return None;
        }
        let raft = self.raft.as_ref().and_then(Raft::deadline);
        earliest([self.storage.deadline(), raft, self.stop_by, self.snapshot_deadline()])
    }

    /// When a snapshot is taken because the last one is old, or tried again that something waits for, if
    /// there is news and nobody takes one.
    fn snapshot_deadline(&self) -> Option<Instant> {
        let again = self.compaction.again(&self.storage, self.now);
        let due = earliest([self.compaction.age_deadline(&self.tuning), again])?;
        capturable(&self.storage, self.raft.as_ref()?).map(|_| due)
    }

    /// A look at the node.
    #[must_use]
    pub fn status(&self) -> Status {
        let mut status = Status {
            node: self.node,
            snapshot: self.storage.snapshot(),
            disk_full: self.storage.is_full(),
            memory_bytes: self.storage.memory_bytes(),
            ready: self.is_ready(),
            scrubbed_bytes: self.storage.scrubbed_bytes(),
            snapshots_damaged: self.storage.spoilt_snapshots(),
            marks: self.storage.marks().and(self.compaction.marks),
            ..Status::default()
        };
        if let Some(raft) = &self.raft {
            raft.report(&mut status);
        }
        status.recovery = self.storage.recovery(status.applied);
        status
    }

    /// What an oracle looks at after every event.
    #[doc(hidden)]
    #[must_use]
    pub fn probe(&self) -> Probe {
        let mut probe = Probe {
            snapshot: self.storage.covered(),
            ready: self.is_ready(),
            stateless: self.storage.is_state_lost(),
            owed: self.storage.first_owed(),
            ..Probe::default()
        };
        if let Some(raft) = &self.raft {
            raft.probe(&mut probe);
        }
        probe
    }

    /// The members in force, once the disk was judged.
    #[doc(hidden)]
    #[must_use]
    pub fn membership(&self) -> Option<&Arc<Membership>> {
        self.raft.as_ref().map(Raft::membership)
    }

    /// The term of this entry of the log, if the log reaches there.
    #[doc(hidden)]
    #[must_use]
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        self.raft.as_ref()?.term_at(index)
    }

    fn is_ready(&self) -> bool {
        let formed = self.raft.as_ref().is_some_and(|raft| !raft.is_forming());
        formed && self.storage.restored().is_some() && !self.halted
    }

    // ---- events ------------------------------------------------------------------------------

    fn on_event(&mut self, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Start(start) => {
                self.keeps_state |= matches!(start, crate::Start::Resume { .. });
                self.storage.on_start(start);
            }
            Event::Completed { op, result } => self.storage.on_completed(self.now, op, result),
            Event::Captured { capture, result } => self.storage.on_captured(capture, result),
            Event::Restored { through, result } => self.storage.on_restored(through, result),
            Event::Stop { hand_over } => self.on_stop(hand_over),
            Event::Tune(tuning) => self.on_tune(*tuning, out),
            Event::Link { peer, up } if self.raft.is_none() => {
                self.linked_before.retain(|linked| *linked != peer);
                self.linked_before.extend(up.then_some(peer));
            }
            event if self.raft.is_none() || self.stop_by.is_some() => {
                // What was proposed before the node was asked to stop is still to be dated.
                match (&event, &mut self.raft) {
                    (Event::Propose { time, .. }, Some(raft)) => raft.on_wall(*time),
                    (Event::Propose { time, .. }, None) => self.wall.set(*time, self.now),
                    _ => {}
                }
                self.turn_down(&event, out);
            }
            Event::Control { id, control } => {
                self.stray();
                self.on_control(id, &control, out);
            }
            event => self.on_raft_event(event, out),
        }
    }

    /// A leader that is to hand over serves on until it has, or could not. Asked once more, it goes.
    fn on_stop(&mut self, hand_over: bool) {
        let raft = self.raft.as_mut().filter(|_| hand_over && !self.is_leaving);
        self.is_leaving = raft.is_some_and(|raft| raft.begin_handover(None).is_ok());
        if !self.is_leaving {
            self.leave();
        }
    }

    fn leave(&mut self) {
        self.is_leaving = false;
        self.stop_by.get_or_insert_with(|| self.now.after(LAST_WORDS));
        self.storage.finish();
    }

    fn on_raft_event(&mut self, event: Event, out: &mut Vec<Action>) {
        let Some(raft) = &mut self.raft else { return };
        match event {
            Event::Received { from, bytes } => match codec::decode(bytes) {
                Ok(message) => raft.on_message(from, message),
                Err(reason) => out.push(Action::Note(Note::PeerFault { peer: from, reason })),
            },
            Event::Link { peer, up } => raft.on_link(peer, up),
            Event::Applied { through } => raft.on_applied(through),
            Event::Propose { first, time, batch } => raft.on_propose(first, time, batch),
            Event::Read { requests, mode } => raft.on_read(requests, mode),
            _ => unreachable!("the others were dealt with before"),
        }
    }

    /// Requests to a node that is not there yet, or about to go. The rest has no one to hear it.
    fn turn_down(&self, event: &Event, out: &mut Vec<Action>) {
        let requests = match event {
            Event::Propose { batch, .. } if batch.is_empty() => return,
            Event::Propose { first, batch, .. } => Requests { first: *first, count: batch.count() },
            Event::Read { requests, .. } => *requests,
            Event::Control { id, .. } => Requests::one(*id),
            _ => return,
        };
        let is_stopping = self.stop_by.is_some();
        let why = if is_stopping { Refusal::Stopping } else { Refusal::NotReady };
        out.push(Action::Respond { requests, outcome: Outcome::Refused(why) });
    }

    /// A tuning that cannot work changes nothing.
    fn on_tune(&mut self, tuning: Tuning, out: &mut Vec<Action>) {
        if let Err(why) = tuning.fits(self.entry_bytes_max) {
            return out.push(Action::Note(Note::TuningRefused(why)));
        }
        self.storage.tune(&tuning);
        self.compaction.look_at = 0;
        if let Some(raft) = &mut self.raft {
            raft.on_tune(&tuning);
        }
        self.tuning = tuning;
    }

    fn on_control(&mut self, id: RequestId, control: &Control, out: &mut Vec<Action>) {
        let (storage, now) = (&mut self.storage, self.now);
        match control {
            Control::Snapshot if storage.restored().is_none() => {
                end(id, Outcome::Refused(Refusal::NotReady), out);
            }
            Control::Snapshot => {
                let at = self.raft.as_ref().map_or(LogId::ZERO, Raft::applying).index;
                self.compaction.want(id, at, out);
            }
            Control::Transfer { to } => {
                if let Some(raft) = &mut self.raft {
                    raft.on_transfer(id, *to);
                }
            }
            Control::Change(changes) => {
                if let Some(raft) = &mut self.raft {
                    raft.on_change(id, changes);
                }
            }
            Control::PinSnapshot => end(id, storage.pin(now), out),
            &Control::ReadPinned { file, offset, len } => {
                storage.read_pinned(id, (file, offset, len), now);
            }
            Control::Unpin { file } => end(id, storage.pins().unpin(*file), out),
        }
    }

    // ---- settle ------------------------------------------------------------------------------

    /// The path of one write, and of everything else. `persist` stands last because it carries out
    /// what the steps before it want. What it reaches by itself, without an event that would come
    /// back here (a segment is gone, there is nothing to restore), is pursued at once.
    fn settle(&mut self, out: &mut Vec<Action>) {
        let (twin, before) = (self.twin(), out.len());
        self.pursue(out);
        if let Some(twin) = twin {
            self.compare(twin, &out[before..]);
        }
        if cfg!(debug_assertions) && self.is_plain() {
            self.check_quiet();
        }
    }

    /// Nothing may rest on what failed: not a write, not a word to others. (A hard state whose hint
    /// called durable what a failed sync had not made so cost a sealed segment its slots.)
    const fn is_sound(&self) -> bool {
        !self.storage.has_failed() || cfg!(lakebed_break = "build_on_a_failed_sync")
    }

    /// Walks the steps until they have nothing left to pursue.
    fn pursue(&mut self, out: &mut Vec<Action>) {
        if self.is_sound() {
            self.recover(out);
            while self.is_sound() && self.go_through(out) {}
        }
        if self.is_plain() {
            return;
        }
        if self.is_leaving && !self.raft.as_ref().is_some_and(Raft::has_handover) {
            self.leave();
        }
        self.halt(out);
        self.look_around();
    }

    /// Each step once. True if that has brought about what a further round must pursue.
    fn go_through(&mut self, out: &mut Vec<Action>) -> bool {
        self.observe(); //             completions -> what is durable and promised
        if let Some(raft) = &mut self.raft {
            raft.time_out(); //        elections, heartbeats
            raft.install(); //         a peer's snapshot is whole -> it takes the log's place
            raft.refill(); //          entries are lost -> a peer is asked for them
            raft.acknowledge(); //     durable   -> the votes and answers held back until now
            raft.propose(); //         gathered  -> last
            raft.commit(); //          quorum of durable and matched -> committed
            raft.change(); //          committed -> the next membership
            raft.hand_over(); //       matched   -> another one is asked to lead
            raft.replicate(); //       last      -> appends
            raft.apply(); //           committed -> Apply actions
            raft.retire(); //          committed -> who is no voter does not lead
            raft.respond(); //         applied   -> reads answered, roles noted
            raft.rest(); //            nothing   -> hibernation
        }
        self.compact(out); //          applied   -> captures
        self.say(out); //              messages  -> Send actions
        self.persist(out); //          last      -> Disk actions
        self.check()
    }

    /// Until the disk was judged, only this step does anything.
    fn recover(&mut self, out: &mut Vec<Action>) {
        if let Some(recovered) = self.storage.recover(self.now, out) {
            self.compaction.begin(&self.storage, self.now);
            let setting = Setting {
                tuning: &self.tuning,
                entry_bytes_max: self.entry_bytes_max,
                keeps_state: self.keeps_state,
                wall: self.wall,
            };
            let mut raft = Raft::new(&recovered, setting, self.seed, self.now);
            let linked = std::mem::take(&mut self.linked_before);
            linked.into_iter().for_each(|peer| raft.on_link(peer, true));
            self.raft = Some(raft);
        }
        if let (true, Some(raft)) = (self.catching_up, &self.raft) {
            self.catching_up = !self.storage.catch_up(self.now, raft.applied(), raft.given());
        }
    }

    /// Snapshots that are due or asked for; whoever asked hears of one that is durable.
    fn compact(&mut self, out: &mut Vec<Action>) {
        let (storage, Some(raft)) = (&mut self.storage, &mut self.raft) else { return };
        let compaction = &mut self.compaction;
        let is_plain = storage.is_plain() && raft.is_plain();
        if is_plain && !compaction.may_be_long(storage, &self.tuning) {
            return compaction.hint(storage, raft.committed());
        }
        compaction.tell(storage, self.now, out);
        while let Some((id, outcome)) = storage.pins().take() {
            end(id, outcome, out);
        }
        if let Some((at, members)) = capturable(storage, raft)
            && (raft.wants_own_snapshot() && compaction.may_try_again(self.now)
                || compaction.is_due(storage, &self.tuning, (at, self.now)))
        {
            storage.capture(at, Arc::clone(members), raft.last_time());
        }
        if raft.is_installing_others() || !compaction.pins.peers.is_empty() {
            let pins = raft.pins();
            if pins != compaction.pins {
                storage.keep_serving(&pins.peers);
                storage.retain(compaction.retained, pins.from);
                compaction.pins = pins;
            }
        }
        if compaction.retained != raft.retained() {
            compaction.retained = raft.retained();
            storage.retain(compaction.retained, compaction.pins.from);
        }
        compaction.hint(storage, raft.committed());
    }

    /// What consensus has to say: the machine's steps first, so that what the storage asks of the
    /// machine afterwards stands behind exactly these.
    fn say(&mut self, out: &mut Vec<Action>) {
        let Some(raft) = &mut self.raft else { return };
        out.append(raft.actions());
        for message in raft.messages().iter_mut() {
            let (head, body) = self.encoder.encode(message);
            out.push(Action::Send { to: message.head.to, head, body });
        }
        raft.messages().clear();
    }

    fn persist(&mut self, out: &mut Vec<Action>) {
        self.hand_over();
        self.storage.persist(self.now, out);
    }

    fn check(&mut self) -> bool {
        let (storage, Some(raft)) = (&self.storage, &mut self.raft) else { return false };
        raft.check();
        if storage.is_plain() {
            return false;
        }
        let reached = (storage.covered().index, storage.first(), storage.restored());
        raft.reached() != reached || storage.has_read()
    }

    /// The end, if there is a reason: everyone who waits hears of it before.
    fn halt(&mut self, out: &mut Vec<Action>) {
        let has_ended = self.raft.as_ref().is_some_and(Raft::has_ended);
        if !has_ended && self.stop_by.is_none() && !self.storage.has_failed() {
            return;
        }
        let raft = self.raft.as_mut().and_then(Raft::take_halt);
        let is_over = |by| self.now >= by && !cfg!(lakebed_break = "wait_for_the_disk_at_a_stop");
        let is_over = |by| is_over(by) || self.storage.is_finished();
        let stopped = self.stop_by.is_some_and(is_over).then_some(Halt::Stopped);
        let Some(halt) = self.storage.halt().or(raft).or(stopped) else { return };
        if let Some(raft) = &mut self.raft {
            raft.stop(&Refusal::Stopping);
            out.append(raft.actions());
        }
        self.compaction.refuse(&Refusal::Stopping, out);
        self.storage.pins().stop();
        while let Some((id, outcome)) = self.storage.pins().take() {
            end(id, outcome, out);
        }
        self.halted = true;
        out.push(Action::Halt(Box::new(halt)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn an_engine_forks_and_travels() {
        fn holds<T: Clone + Send + 'static>() {}
        holds::<Engine>();
    }

    #[test]
    fn requests_before_the_start_are_refused() {
        let config = Config::new(crate::GroupId(1), NodeId(1));
        let mut engine = Engine::new(config, 1).expect("the default configuration is valid");
        let mut actions = Vec::new();
        let batch = crate::Batch::one(b"a");
        let propose = Event::Propose { first: RequestId(7), time: Default::default(), batch };
        engine.handle(Instant(0), [propose], &mut actions);
        let refused = Outcome::Refused(Refusal::NotReady);
        let expected = Action::Respond { requests: Requests::one(RequestId(7)), outcome: refused };
        assert_eq!(actions, [expected]);
    }

    /// It could make entries that no segment holds.
    #[test]
    fn a_tuning_that_the_segments_cannot_hold_changes_nothing() {
        let mut config = Config::new(crate::GroupId(1), NodeId(1));
        config.segment_bytes = 1 << 20;
        config.tuning.append_bytes_max = 64 << 10;
        let mut engine = Engine::new(config.clone(), 1).expect("the segments hold it");
        let mut tune = |tuning| {
            let mut actions = Vec::new();
            engine.handle(Instant(0), [Event::Tune(Box::new(tuning))], &mut actions);
            (engine.tuning.append_bytes_max, actions)
        };
        let append = |append_bytes_max| Tuning { append_bytes_max, ..config.tuning.clone() };
        let refused = |why| vec![Action::Note(Note::TuningRefused(why))];
        assert_eq!(tune(append(512 << 10)), (512 << 10, Vec::new()));
        let expected = refused(ConfigError::AppendExceedsSegment);
        assert_eq!(tune(append((512 << 10) + 1)), (512 << 10, expected));
        let sleepless = Tuning { heartbeat: Duration::ZERO, ..append(7000) };
        let expected = refused(ConfigError::ElectionNotAboveHeartbeat);
        assert_eq!(tune(sleepless), (512 << 10, expected));
        let expected = refused(ConfigError::ElectionNotAboveHeartbeat);
        let silent = Tuning { heartbeat: Duration::MAX, ..append(7000) };
        assert_eq!(tune(silent), (512 << 10, expected));
    }

    #[test]
    fn garbage_is_a_peer_fault_only_once_there_are_peers() {
        let config = Config::new(crate::GroupId(1), NodeId(1));
        let mut engine = Engine::new(config, 1).expect("the default configuration is valid");
        let mut actions = Vec::new();
        let bytes = Bytes::from_static(b"GET / HTTP/1.1");
        engine.handle(Instant(0), [Event::Received { from: NodeId(2), bytes }], &mut actions);
        assert_eq!(actions, []);
    }
}
