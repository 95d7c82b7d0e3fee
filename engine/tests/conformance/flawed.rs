//! A driver under every fault the kit can put in, with at most one flaw.

use crate::hub::{Hub, Nobody};
use bytes::{Buf, Bytes, BytesMut};
use lakebed::{
    Action, Completion, Core, DiskError, DiskRequest, Event, Extent, File, Instant, Machine,
    NodeId, OpId, Runner, Timestamp,
    conformance::{Seat, Witness},
    files::Directory,
};
use std::{
    collections::VecDeque,
    sync::{Mutex, mpsc::Receiver},
    time::{Duration, SystemTime},
};

/// What is wrong with a driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flaw {
    None,
    NoStart,
    StartTwice,
    LeavesEarly,
    GoesOn,
    ForgetsDeadlines,
    OversleepsDeadlines,
    KeepsTheTime,
    TellsTheTimeOnce,
    LosesCompletions,
    CompletesTwice,
    MatchesByOrder,
    TellsTheNextLife,
    SkipsTheSecondPlace,
    SkipsTheSecondPlaceUnlessDurable,
    LosesSnapshots,
    SkipsZeros,
    ReadsShort,
    HidesFailures,
    HidesFailuresOfReads,
    HidesFailuresOfNames,
    LeavesSyncsOut,
    TriesAgain,
    PanicsAtFailures,
    SyncsBeside,
    SwallowsErrors,
    SaysOnlyNumbers,
    LeavesOperationsRunning,
    CapturesLate,
    ClaimsTooMuch,
    ClaimsBeforehand,
    AnswersTheNewestRestore,
    PassesOverEmptyRestores,
    ReversesSteps,
    HidesRefusals,
    LosesInSilence,
    AsksOfOneLoss,
    StaysDown,
    OverrunsItsQueue,
    ReordersSends,
    CutsMessages,
    SharesBuffers,
    ReadsIntoOneBuffer,
    /// Legal: a message that was handed on is held elsewhere too.
    KeepsMessages,
    /// Legal: a message lies in memory of the driver's own kind.
    OwnsItsBuffers,
}

/// What a queue of [`Flaw::OverrunsItsQueue`] holds of one turn.
const QUEUE: usize = 8;

type Ended = Result<Completion, DiskError>;

/// What the life before left behind, of the one driver with that flaw.
static LEFT_BEHIND: Mutex<Vec<Event>> = Mutex::new(Vec::new());
/// What the life before had not yet performed, of the one driver with that flaw.
static LEFT_RUNNING: Mutex<Vec<DiskRequest>> = Mutex::new(Vec::new());

pub(crate) struct Flawed<'a> {
    flaw: Flaw,
    hub: &'a Hub,
    seat: Seat,
    files: Directory,
    runner: Runner<Witness>,
    inbox: Receiver<Event>,
    events: Vec<Event>,
    /// In the order in which they were asked for.
    ops: VecDeque<(OpId, DiskRequest)>,
    /// Operations that were submitted once more.
    tried: Vec<OpId>,
    /// Machine steps of the turn before, of a driver that claims them beforehand.
    lane: Vec<Machine>,
    down: Vec<NodeId>,
    kept: Vec<Bytes>,
    /// What was received and not yet cut off.
    incoming: BytesMut,
    /// Of a loss.
    has_asked: bool,
    /// Messages of this turn.
    sent: usize,
    /// When the wall clock was told.
    told: Option<Instant>,
    origin: std::time::Instant,
}

impl<'a> Flawed<'a> {
    /// Drives a seat until the halt.
    pub(crate) fn drive(flaw: Flaw, hub: &'a Hub, seat: Seat) {
        let (case, node) = (seat.case, seat.node);
        let driver = Self {
            flaw,
            hub,
            files: Directory::open(&seat.dir).unwrap(),
            runner: Runner::new(seat.machine.clone()),
            inbox: hub.enter(case, node),
            events: Vec::new(),
            ops: VecDeque::new(),
            tried: Vec::new(),
            lane: Vec::new(),
            down: Vec::new(),
            kept: Vec::new(),
            incoming: BytesMut::with_capacity(8 << 20),
            has_asked: false,
            sent: 0,
            told: None,
            origin: std::time::Instant::now(),
            seat,
        };
        driver.run();
        hub.leave(case, node);
    }

    fn run(mut self) {
        let start = Event::Start(self.seat.start.clone());
        match self.flaw {
            Flaw::NoStart => {}
            Flaw::StartTwice => self.events.extend([start.clone(), start]),
            Flaw::TellsTheNextLife => {
                self.events.push(start);
                self.events.append(&mut LEFT_BEHIND.lock().unwrap());
            }
            _ => self.events.push(start),
        }
        let mut actions = Vec::new();
        loop {
            let now = self.now();
            self.tell_time(now);
            self.seat.core.handle(now, self.events.drain(..), &mut actions);
            self.spoil(&mut actions);
            self.sent = 0;
            self.perform_what_was_claimed();
            for action in actions.drain(..) {
                if self.perform(action) {
                    return self.leave();
                }
            }
            if self.flaw == Flaw::LeavesEarly {
                return;
            }
            if self.flaw == Flaw::AnswersTheNewestRestore {
                self.answer_the_newest_restore();
            }
            self.end_an_operation();
            self.reconnect();
            self.wait();
        }
    }

    fn now(&self) -> Instant {
        Instant(self.origin.elapsed().as_nanos() as u64)
    }

    fn tell_time(&mut self, now: Instant) {
        let is_due = match (self.flaw, self.told) {
            (Flaw::KeepsTheTime, _) => false,
            (_, None) => true,
            (Flaw::TellsTheTimeOnce, Some(_)) => false,
            (_, Some(told)) => now.since(told) >= Duration::from_secs(1),
        };
        if is_due {
            self.told = Some(now);
            self.events.push(Event::time(wall()));
        }
    }

    fn leave(mut self) {
        if self.flaw == Flaw::GoesOn {
            let now = self.now();
            self.seat.core.handle(now, [], &mut Vec::new());
        }
        if self.flaw == Flaw::TellsTheNextLife {
            while !self.seat.disk.is_idle() {
                self.end_an_operation();
            }
            LEFT_BEHIND.lock().unwrap().append(&mut self.events);
        }
        if self.flaw == Flaw::LeavesOperationsRunning {
            let leave = |request: &DiskRequest| {
                LEFT_RUNNING.lock().unwrap().push(request.clone());
                Ok(Completion::Done)
            };
            while self.seat.disk.complete(leave).is_some() {}
        }
    }

    /// Flaws in the order of things.
    fn spoil(&self, actions: &mut [Action]) {
        let is_machine = |action: &Action| matches!(action, Action::Machine(_));
        let is_capture =
            |action: &Action| matches!(action, Action::Machine(Machine::Capture { .. }));
        match self.flaw {
            Flaw::ReversesSteps if actions.iter().all(is_machine) => actions.reverse(),
            Flaw::ReordersSends => actions.reverse(),
            Flaw::CapturesLate => actions.sort_by_key(is_capture),
            _ => {}
        }
    }

    /// Whether that was the last one.
    fn perform(&mut self, action: Action) -> bool {
        match action {
            Action::Disk { op, request: request @ DiskRequest::Sync { .. }, .. }
                if self.flaw == Flaw::SyncsBeside =>
            {
                let result = self.files.perform(&request);
                self.events.push(Event::Completed { op, result });
            }
            Action::Disk { op, request, .. } => {
                self.ops.push_back((op, request.clone()));
                self.seat.disk.submit(op, request);
            }
            Action::Send { to, head, body } => self.send(to, &head, &body),
            Action::Machine(step) => self.step(step),
            Action::Halt(_) => return true,
            Action::Respond { .. } | Action::Members(_) | Action::Note(_) => {}
        }
        false
    }

    fn step(&mut self, step: Machine) {
        match &step {
            Machine::Apply(entries) if self.flaw == Flaw::ClaimsBeforehand => {
                self.events.push(Event::Applied { through: entries.last });
            }
            Machine::Restore { bytes, .. }
                if self.flaw == Flaw::PassesOverEmptyRestores && bytes.is_empty() =>
            {
                return self.events.push(Event::Restored { through: 0, result: Ok(()) });
            }
            _ => {}
        }
        if self.flaw == Flaw::ClaimsBeforehand {
            return self.lane.push(step);
        }
        let event = self.runner.perform(step, &mut Nobody);
        self.events.extend(event.map(|event| match event {
            Event::Applied { through } if self.flaw == Flaw::ClaimsTooMuch => {
                Event::Applied { through: through.next() }
            }
            Event::Restored { through, .. } if self.flaw == Flaw::HidesRefusals => {
                Event::Restored { through, result: Ok(()) }
            }
            event => event,
        }));
    }

    fn perform_what_was_claimed(&mut self) {
        for step in std::mem::take(&mut self.lane) {
            let event = self.runner.perform(step, &mut Nobody);
            self.events.extend(event.filter(|event| !matches!(event, Event::Applied { .. })));
        }
    }

    fn answer_the_newest_restore(&mut self) {
        let is_answer = |event: &Event| matches!(event, Event::Restored { .. });
        let newest = self.events.iter().rposition(is_answer);
        let mut at = 0..;
        self.events.retain(|event| at.next() == newest || !is_answer(event));
    }

    fn send(&mut self, to: NodeId, head: &[u8], body: &[u8]) {
        self.sent += 1;
        if self.flaw == Flaw::OverrunsItsQueue {
            if self.sent <= QUEUE {
                let _ =
                    self.hub.send(self.seat.case, self.seat.node, to, [head, body].concat().into());
            }
            return;
        }
        let is_asked = self.flaw != Flaw::AsksOfOneLoss || !self.has_asked;
        self.has_asked = true;
        let lost = is_asked && self.seat.link.loses(to);
        let mut bytes = [head, body].concat();
        if self.flaw == Flaw::CutsMessages {
            bytes.truncate(1000);
        }
        let (case, node) = (self.seat.case, self.seat.node);
        let sent = !lost && self.hub.send(case, node, to, bytes.into());
        if !sent && self.flaw != Flaw::LosesInSilence {
            self.events.push(Event::Link { peer: to, up: false });
            self.down.extend(lost.then_some(to));
        }
    }

    /// A connection that lost something is there again at once.
    fn reconnect(&mut self) {
        let up = |peer| Event::Link { peer, up: true };
        self.events.extend(self.down.drain(..).map(up));
    }

    fn end_an_operation(&mut self) {
        let (flaw, files) = (self.flaw, &self.files);
        let Some((op, result)) = self.seat.disk.complete(|request| perform(flaw, files, request))
        else {
            return;
        };
        if flaw == Flaw::LeavesOperationsRunning && self.seat.life > 1 && self.seat.disk.is_idle() {
            for late in LEFT_RUNNING.lock().unwrap().drain(..) {
                self.files.perform(&late).unwrap();
            }
        }
        let is_it = |(asked, _): &(OpId, _)| flaw == Flaw::MatchesByOrder || *asked == op;
        let asked = self.ops.iter().position(is_it).expect("it was submitted");
        if flaw == Flaw::TriesAgain && result.is_err() && !self.tried.contains(&op) {
            self.tried.push(op);
            return self.seat.disk.submit(op, self.ops[asked].1.clone());
        }
        let (op, request) = self.ops.remove(asked).expect("it is there");
        let result = self.spoil_result(&request, result);
        match flaw {
            Flaw::LosesCompletions if op.0 % 7 == 0 => {}
            Flaw::CompletesTwice => {
                let event = Event::Completed { op, result };
                self.events.extend([event.clone(), event]);
            }
            _ => self.events.push(Event::Completed { op, result }),
        }
    }

    fn spoil_result(&self, request: &DiskRequest, result: Ended) -> Ended {
        let is_read = matches!(request, DiskRequest::Read { .. });
        let is_of_names = matches!(
            request,
            DiskRequest::SyncDirectory | DiskRequest::Rename { .. } | DiskRequest::Remove { .. }
        );
        match (self.flaw, result) {
            (Flaw::HidesFailuresOfReads, Err(_)) if is_read => Ok(Completion::Read(Bytes::new())),
            (Flaw::HidesFailuresOfNames, Err(DiskError::Io { .. })) if is_of_names => {
                Ok(Completion::Done)
            }
            (Flaw::HidesFailures, Err(_)) => Ok(Completion::Done),
            (Flaw::PanicsAtFailures, Err(error)) => panic!("the disk failed: {error}"),
            (_, result) => result,
        }
    }

    fn wait(&mut self) {
        if self.events.is_empty() && self.seat.disk.is_idle() && self.lane.is_empty() {
            let deadline =
                self.seat.core.deadline().filter(|_| self.flaw != Flaw::ForgetsDeadlines);
            let event = match deadline.map(|deadline| deadline.since(self.now())) {
                Some(wait) => self.inbox.recv_timeout(wait + self.oversleep()).ok(),
                None => self.inbox.recv().ok(),
            };
            self.events.extend(event);
        }
        let received: Vec<Event> = self.inbox.try_iter().collect();
        self.events.extend(received);
        if self.flaw == Flaw::OverrunsItsQueue {
            self.events = self.events.drain(..).flat_map(down_before_up).collect();
        }
        // The one who answers: one who is to begin would say nothing at all.
        let is_left_down = self.flaw == Flaw::StaysDown && self.seat.node == NodeId(2);
        for event in &mut self.events {
            match event {
                Event::Received { bytes, .. } if self.flaw == Flaw::KeepsMessages => {
                    self.kept.push(bytes.clone());
                }
                Event::Received { bytes, .. } if self.flaw == Flaw::SharesBuffers => {
                    *bytes = cut_from(&mut self.incoming, &[], bytes);
                }
                Event::Received { bytes, .. } if self.flaw == Flaw::ReadsIntoOneBuffer => {
                    let length = (bytes.len() as u32).to_le_bytes();
                    *bytes = cut_from(&mut self.incoming, &length, bytes);
                }
                Event::Link { up, .. } if is_left_down => *up = false,
                Event::Received { bytes, .. } if self.flaw == Flaw::OwnsItsBuffers => {
                    *bytes = Bytes::from_owner(bytes.to_vec());
                }
                _ => {}
            }
        }
    }

    fn oversleep(&self) -> Duration {
        let oversleeps = self.flaw == Flaw::OversleepsDeadlines;
        if oversleeps { Duration::from_millis(1500) } else { Duration::ZERO }
    }
}

fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Timestamp(since.map_or(0, |since| since.as_nanos() as u64))
}

fn perform(flaw: Flaw, files: &Directory, request: &DiskRequest) -> Ended {
    match request {
        DiskRequest::Write { file, at, durable: false, .. }
            if flaw == Flaw::SkipsTheSecondPlaceUnlessDurable =>
        {
            let (file, at) = (*file, at.clone());
            files.perform(&DiskRequest::Write { file, at, and: None, durable: false })
        }
        DiskRequest::Write { file, at, and, durable: true } if flaw == Flaw::LeavesSyncsOut => {
            let (file, at, and) = (*file, at.clone(), and.clone());
            files.perform(&DiskRequest::Write { file, at, and, durable: false })
        }
        DiskRequest::Rename { from, to: File::Snapshot(_) } if flaw == Flaw::LosesSnapshots => {
            files.perform(&DiskRequest::Remove { file: *from })
        }
        DiskRequest::Write { file, at, durable, .. } if flaw == Flaw::SkipsTheSecondPlace => {
            let (file, at, durable) = (*file, at.clone(), *durable);
            files.perform(&DiskRequest::Write { file, at, and: None, durable })
        }
        DiskRequest::Write { file, at, and: None, durable } if flaw == Flaw::SkipsZeros => {
            let (file, at, durable) = (*file, Extent { zeros: 0, ..at.clone() }, *durable);
            files.perform(&DiskRequest::Write { file, at, and: None, durable })
        }
        DiskRequest::Read { file, offset, .. } if flaw == Flaw::ReadsShort => {
            files.perform(&DiskRequest::Read { file: *file, offset: *offset, len: 512 })
        }
        request => match (flaw, files.perform(request)) {
            (Flaw::SwallowsErrors, Err(error)) if error != DiskError::NotFound => {
                Ok(Completion::Done)
            }
            (Flaw::SaysOnlyNumbers, Err(DiskError::Full)) => Err(DiskError::Io { errno: 28 }),
            (_, result) => result,
        },
    }
}

/// Networks say that a link was down when they say that it is up: what they lose later is no
/// older.
fn down_before_up(event: Event) -> Vec<Event> {
    match event {
        Event::Link { peer, up: true } => vec![Event::Link { peer, up: false }, event],
        event => vec![event],
    }
}

/// As a driver does that reads into one great buffer and hands out slices of it: of all that it
/// reads, for how much comes in one turn is the scheduler's affair.
fn cut_from(incoming: &mut BytesMut, length: &[u8], message: &[u8]) -> Bytes {
    incoming.extend_from_slice(length);
    incoming.extend_from_slice(message);
    incoming.advance(length.len());
    incoming.split_to(message.len()).freeze()
}
