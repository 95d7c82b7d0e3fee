//! One simulated machine: an engine while it is up, its disk for ever, its clock.
//!
//! Knows no other nodes and no network. Invariant: `engine` is `None` exactly while it is down.

use crate::{
    client::{Desk, Requests},
    disk::{Failure, Mishap, SimDisk, Victim},
    plan::{Given, Plan},
    prng::Draw,
    seat::Seat,
    witness::Witness,
    world::{Doomed, Fall, Hearsay},
};
use lakebed::{
    Action, DiskError, DiskRequest, Engine, Event, File, Halt, Instant, LogId, LogIndex, Machine,
    Note, OpId, Runner, StateMachine, Term, Timestamp, inspect::Probe,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

/// What drifts are told in parts of.
const MILLION: u64 = 1_000_000;

/// A clock that runs a little fast or slow, from a beginning of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    offset: u64,
    /// What its wall clock was set forward or back by.
    stepped: i64,
    drift_ppm: i64,
    /// For how long it has stood still before `still`.
    lost: u64,
    /// Simulated time, from and to, in which it stands still.
    still: (u64, u64),
}

impl Clock {
    pub(crate) const fn new(offset: u64, drift_ppm: i64) -> Self {
        Self { offset, stepped: 0, drift_ppm, lost: 0, still: (0, 0) }
    }

    /// What it shows at this simulated time.
    pub(crate) fn local(self, now: u64) -> Instant {
        let stood = now.clamp(self.still.0, self.still.1) - self.still.0;
        self.moving(now.saturating_sub(self.lost + stood))
    }

    /// What it shows when it has moved for so long.
    const fn moving(self, now: u64) -> Instant {
        // In two parts: the product of both would not fit after some days.
        let (whole, part) = ((now / MILLION) as i64, (now % MILLION) as i64);
        let drift = whole * self.drift_ppm + part * self.drift_ppm / MILLION as i64;
        Instant((self.offset + now).wrapping_add_signed(drift))
    }

    /// The first simulated time at which it shows this or more.
    pub(crate) fn global(self, local: Instant) -> u64 {
        let since = local.0.saturating_sub(self.offset);
        let pace = MILLION.wrapping_add_signed(self.drift_ppm);
        let mut guess = since / pace * MILLION + since % pace * MILLION / pace;
        // The divisions round; the guess is off by very little.
        while self.moving(guess) < local {
            guess += 1;
        }
        while guess > 0 && self.moving(guess - 1) >= local {
            guess -= 1;
        }
        let before = guess + self.lost;
        before + if before > self.still.0 { self.still.1 - self.still.0 } else { 0 }
    }

    /// It stands still from now on for so long; if it does already, until then at least.
    pub(crate) fn stall(&mut self, now: u64, lasts: u64) {
        let (from, to) = self.still;
        if now < to {
            self.still.1 = to.max(now + lasts);
        } else {
            self.lost += to - from;
            self.still = (now, now + lasts);
        }
    }

    /// It goes on, if it stands still.
    pub(crate) fn go_on(&mut self, now: u64) {
        self.still.1 = self.still.1.min(now.max(self.still.0));
    }

    /// Its wall clock: some days after the beginning of 1970, drifting the same way.
    pub(crate) fn wall(self, now: u64) -> Timestamp {
        Timestamp((self.local(now).0 + 1_000_000_000_000_000).saturating_add_signed(self.stepped))
    }

    /// Its wall clock is set forward or back.
    pub(crate) const fn step(&mut self, nanos: i64) {
        self.stepped = self.stepped.saturating_add(nanos);
    }
}

/// One machine.
pub(crate) struct Node<M: StateMachine> {
    pub(crate) engine: Option<Engine>,
    /// Rises with every start; what belongs to an older life is ignored.
    pub(crate) life: u32,
    pub(crate) disk: SimDisk,
    pub(crate) clock: Clock,
    pub(crate) runner: Runner<Witness<M>>,
    /// What its machine keeps of its own, if it does.
    pub(crate) kept: Kept,
    /// Steps of the machine lane that have not been performed.
    pub(crate) lane: VecDeque<Machine>,
    /// When it will be woken next, as far as that is scheduled.
    pub(crate) wake: u64,
    /// The deadline that `wake` is for or before.
    pub(crate) deadline: Option<Instant>,
    /// How many times slower its disk is than the plan says.
    pub(crate) slowness: u64,
    /// Whether its disk ends nothing, and what would have ended.
    pub(crate) hangs: Option<Vec<OpId>>,
    /// Until when its process stands still.
    pub(crate) paused_until: u64,
    /// How often something began or ended on its disk, over all its lives: events that did.
    pub(crate) steps: u64,
    /// Operations that its disk was ever given.
    pub(crate) operations: u64,
    /// The steps right after which it falls, how, and how long it is down.
    pub(crate) falls: BTreeMap<u64, (Fall, u64)>,
    /// Which of its disk's operations will end badly, by their numbers over all its lives.
    pub(crate) mishaps: BTreeMap<u64, Mishap>,
    /// The numbers of those in flight.
    pub(crate) flights: BTreeMap<OpId, u64>,
    /// What fails next, and how.
    pub(crate) next_fails: Option<(Victim, DiskError)>,
    /// How the next sync or durable write fails.
    pub(crate) next_sync_fails: Option<Failure>,
    /// What it was given by others whose next sync fails unheard, and how long its process is down then.
    pub(crate) next_unheard: Option<(Given, u64)>,
    /// The operation that will.
    pub(crate) unheard: Option<Doomed>,
    /// It was removed from the cluster, and is not started again.
    pub(crate) has_left: bool,
    /// What became of its disk that no crash does.
    pub(crate) scars: Scars,
    /// The last segment of its log when its present life began.
    pub(crate) began_with: Option<File>,
    /// What its present life may end for.
    pub(crate) told: Told,
    /// How old what it knows may be.
    pub(crate) heard: Hearsay,
}

/// The state of a machine that keeps it by itself, as it was written durably last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    /// The last entry in it; zero: it was never written.
    pub(crate) at: LogId,
    pub(crate) state: Arc<[u8]>,
}

/// What an engine was told in its present life that it may end for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// What its disk is at work on, and the files that such an operation names.
    asked: Vec<(OpId, [Option<File>; 2])>,
    /// How operations failed, as they were made to or for want of room, that nobody has called harmless.
    failures: Vec<([Option<File>; 2], DiskError)>,
    /// When it is to have stopped, once it was asked to.
    stops_by: Option<Instant>,
    /// Where it captured its machine last, and when that was given up.
    captured: Option<LogId>,
    gave_up: Option<Instant>,
    /// The wall clock, and when that was.
    pub(crate) time: Option<(Timestamp, Instant)>,
    /// When its host was told what it has heard from that last.
    hosts: Option<Instant>,
    telling: Telling,
}

/// So long a node that is asked to stop waits for its disk, whatever that does.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// More than any election timeout: so long a leader may take to hand over before.
const HANDOVER_MAX: Duration = Duration::from_secs(1);

/// So long a snapshot is not tried again that was given up, unless somebody asks for one.
const CAPTURE_PAUSE: Duration = Duration::from_millis(900);

/// How often a node is told its wall clock.
const TIME_EVERY: Duration = Duration::from_secs(1);

/// When a node is told its wall clock next: at the beginning, and then once a second.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Telling {
    due: Instant,
}

impl Telling {
    /// Whether that is now; then it is told.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = now >= self.due;
        if is_due {
            self.due = now.after(TIME_EVERY);
        }
        is_due
    }
}

impl Told {
    /// Its host knows of this time, and tells it with the next thing that happens: before that, or behind it if the
    /// host heard it in the same turn. A proposal that a paused process was late to hear is older than what the host
    /// heard before it, and holds all the same.
    pub(crate) fn hear_of_time(&mut self, wall: Option<(Timestamp, Instant)>) {
        let told = wall.map(|(_, at)| at);
        if self.hosts != told {
            (self.hosts, self.time) = (told, wall);
        }
    }

    pub(crate) fn on_event(&mut self, now: Instant, event: &Event) {
        let done = match event {
            Event::Completed { op, .. } => self.asked.iter().position(|(asked, _)| asked == op),
            _ => None,
        };
        let files = done.map_or([None; 2], |at| self.asked.swap_remove(at).1);
        match event {
            Event::Propose { time, .. } => self.time = Some((*time, now)),
            Event::Stop { hand_over } => {
                // Asked once more, it hands nothing over.
                let hands_over = *hand_over && self.stops_by.is_none();
                let within = if hands_over { LAST_WORDS + HANDOVER_MAX } else { LAST_WORDS };
                let by = now.after(within);
                self.stops_by = Some(self.stops_by.map_or(by, |before| before.min(by)));
            }
            Event::Control { .. } => self.gave_up = None,
            // No fault has this error: the engine asked for what it had removed itself, or for what
            // a ruined disk has lost.
            Event::Completed { result: Err(DiskError::NotFound), .. } => {}
            Event::Completed { result: Err(error), .. } => self.failures.push((files, *error)),
            _ => {}
        }
    }

    /// What it does now; an error: it writes its whole state again and again to a disk that does not take
    /// it.
    pub(crate) fn on_action(&mut self, now: Instant, action: &Action) -> Result<(), String> {
        match action {
            Action::Disk { op, request, .. } => self.asked.push((*op, named(request))),
            Action::Note(Note::Disk { file, error }) => {
                if matches!(file, File::Part(at, _) if self.captured == Some(*at)) {
                    self.gave_up = Some(now);
                }
                // It is tried again, or is not needed: no reason to end.
                let told = |of: &([Option<File>; 2], DiskError)| failed(of, *file, *error);
                let at = self.failures.iter().position(told);
                at.map(|at| self.failures.remove(at));
            }
            Action::Machine(Machine::Capture { at, .. }) => {
                self.captured = Some(*at);
                let since = self.gave_up.take().map(|gave_up| now.since(gave_up));
                if let Some(since) = since.filter(|since| *since < CAPTURE_PAUSE) {
                    return Err(format!("{at} is captured {since:?} after another was given up"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether this makes a snapshot durable that came from a peer.
    pub(crate) fn is_sync_of_peers(&self, request: &DiskRequest) -> bool {
        let DiskRequest::Sync { file: File::Part(at, _) } = request else { return false };
        self.captured != Some(*at)
    }

    /// Whether it is to be told its wall clock, which it is then.
    pub(crate) fn is_to_be_told_the_time(&mut self, now: Instant) -> bool {
        self.telling.is_due(now)
    }

    /// Its wall clock, if that goes on as its other one does.
    pub(crate) fn wall(&self, now: Instant) -> Option<Timestamp> {
        self.time.map(|(time, told)| time.after(now.since(told)))
    }

    /// Whether it is there still though it was asked to stop, and its time is over.
    pub(crate) fn outstays(&self, now: Instant) -> bool {
        self.stops_by.is_some_and(|by| by < now)
    }

    /// Whether it may end like this; `may_lack`: files may be gone that it counts on.
    pub(crate) fn excuses(&self, halt: &Halt, may_lack: bool) -> bool {
        match halt {
            Halt::Stopped => self.stops_by.is_some(),
            Halt::DiskFailed { error: DiskError::NotFound, .. } => may_lack,
            Halt::DiskFailed { file, error } => {
                self.failures.iter().any(|of| failed(of, *file, *error))
            }
            _ => false,
        }
    }
}

/// The files that a request names. None: it is of the directory.
const fn named(request: &DiskRequest) -> [Option<File>; 2] {
    match request {
        DiskRequest::Create { file, .. }
        | DiskRequest::Read { file, .. }
        | DiskRequest::Write { file, .. }
        | DiskRequest::Sync { file }
        | DiskRequest::Remove { file } => [Some(*file), None],
        DiskRequest::Rename { from, to } => [Some(*from), Some(*to)],
        DiskRequest::List | DiskRequest::SyncDirectory => [None, None],
    }
}

/// Whether this failure is what is told of that file.
fn failed((files, of): &([Option<File>; 2], DiskError), file: File, error: DiskError) -> bool {
    *of == error && (files == &[None; 2] || files.contains(&Some(file)))
}

/// What became of a disk that no crash does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scars {
    /// Files of which something is damaged that is there twice: once each.
    pub(crate) files: Vec<File>,
    /// Entries that were damaged on it.
    pub(crate) entries: BTreeSet<u32>,
    /// It went beyond the budget: its node may refuse to serve.
    pub(crate) is_ruined: bool,
    /// So did its hard state: the newest vote may be gone.
    pub(crate) is_vote_ruined: bool,
    /// One copy of its hard state was damaged once.
    pub(crate) is_rotten: bool,
    /// It may have forgotten what was promised, so that nobody could tell.
    pub(crate) may_forget: bool,
    /// It lied to a restart that is not over, or kept from it what it was asked for: no other start finds
    /// the same.
    pub(crate) is_misled: bool,
    /// An operation of a restart that is not over has failed.
    pub(crate) has_failed: bool,
    /// The term of its node when that was up last.
    pub(crate) term: Term,
    /// It is an older image of itself.
    pub(crate) is_old: bool,
    /// Its node is not started again.
    pub(crate) is_out: bool,
    /// It is started as a new node.
    pub(crate) is_new: bool,
    /// How its next write lies.
    pub(crate) lie: Option<Lie>,
    /// After how many reads that are answered well one is answered from elsewhere, and from where.
    pub(crate) misread: Option<(u64, u64)>,
    /// A restart was given what lies elsewhere, and none has come to its end since; what that one could prove durable,
    /// if all of its disk was whole.
    pub(crate) misread_to: Option<LogIndex>,
    /// What it was some time ago.
    pub(crate) image: Option<SimDisk>,
}

impl Scars {
    /// Whether anything in this file was ever damaged.
    pub(crate) fn was_struck(&self, file: File) -> bool {
        self.files.contains(&file)
    }

    /// Whether it lied to the restart that is over now, and what that was to keep all the same.
    pub(crate) fn take_misled(&mut self) -> Option<LogIndex> {
        self.has_failed = false;
        let lied = std::mem::take(&mut self.is_misled).then_some(LogIndex(0));
        self.misread_to.take().or(lied)
    }

    /// Whether anything on it was ever damaged.
    pub(crate) fn has_any(&self) -> bool {
        self.is_ruined || !self.files.is_empty() || !self.entries.is_empty()
    }

    /// Whether an entry of a log from `first` on may stay bad: one that was struck, and that nobody else
    /// gives (`is_given`). Its effect is in the node's state, and it goes with the log that a snapshot
    /// takes the place of. A ruined disk may lack any.
    pub(crate) fn may_keep_hole(
        &self,
        first: LogIndex,
        is_given: impl Fn(LogIndex) -> bool,
    ) -> bool {
        let mut struck = self.entries.iter().map(|struck| LogIndex(u64::from(*struck)));
        self.is_ruined || struck.any(|index| index >= first && !is_given(index))
    }

    /// Whether a node that shows this can give an entry to another: its log reaches back there, and it does
    /// not lack the same one itself. A ruined disk may lack any without a word: below its snapshot it was
    /// not read.
    pub(crate) fn gives(&self, probe: &Probe, index: LogIndex) -> bool {
        let lacks = probe.holed && self.entries.contains(&(index.0 as u32));
        index >= probe.first && !lacks && !self.is_ruined
    }
}

/// How a disk lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lie {
    /// What it says is done is lost.
    Lost,
    /// It is done elsewhere.
    Elsewhere(u64),
    /// It is done in another file.
    Misfiled(u64),
    /// The names that it says are durable are not.
    Names,
    /// What it says is done is lost, and told of as failed when the next such is.
    Late(Failure),
}

impl<M: StateMachine + Clone> Clone for Node<M> {
    fn clone(&self) -> Self {
        Self {
            engine: self.engine.clone(),
            disk: self.disk.clone(),
            runner: fork(&self.runner),
            kept: self.kept.clone(),
            lane: self.lane.clone(),
            hangs: self.hangs.clone(),
            falls: self.falls.clone(),
            mishaps: self.mishaps.clone(),
            flights: self.flights.clone(),
            scars: self.scars.clone(),
            told: self.told.clone(),
            heard: self.heard.clone(),
            ..*self
        }
    }
}

/// A runner in the same state: it opens its view again where the other one is in it.
fn fork<M: StateMachine + Clone>(runner: &Runner<Witness<M>>) -> Runner<Witness<M>> {
    let mut fork = Runner::new(runner.machine.clone());
    if let Some(&(capture, _)) = runner.machine.view.as_ref() {
        let mut nobody = Desk { requests: &Requests::default(), ended: Vec::new() };
        fork.perform(Machine::Capture { capture, at: LogId::ZERO }, &mut nobody);
    }
    fork
}

impl<M: StateMachine> Node<M> {
    /// A machine that was never started.
    pub(crate) fn new(plan: &Plan, at: usize, draw: &mut Draw, machine: Seat<M>) -> Self {
        let offset = draw.below(1 << 40);
        let clock = Clock::new(offset, plan.drift_ppm[at]);
        Self {
            engine: None,
            life: 0,
            disk: SimDisk::new(plan.geometry),
            clock,
            runner: Runner::new(Witness::new(machine)),
            kept: Kept::default(),
            lane: VecDeque::new(),
            wake: u64::MAX,
            deadline: None,
            slowness: 1,
            hangs: None,
            paused_until: 0,
            steps: 0,
            operations: 0,
            falls: BTreeMap::new(),
            mishaps: BTreeMap::new(),
            flights: BTreeMap::new(),
            next_fails: None,
            next_sync_fails: None,
            next_unheard: None,
            unheard: None,
            has_left: false,
            scars: Scars::default(),
            began_with: None,
            told: Told::default(),
            heard: Hearsay::new(plan),
        }
    }

    pub(crate) const fn is_up(&self) -> bool {
        self.engine.is_some()
    }

    /// A new engine in place of the one that is gone, with a machine that knows nothing.
    pub(crate) fn start(&mut self, engine: Engine, machine: Seat<M>) {
        self.engine = Some(engine);
        self.life += 1;
        self.began_with = self.last_segment();
        self.told = Told::default();
        self.runner = Runner::new(Witness::new(machine));
    }

    /// The segment of its log that was begun last.
    pub(crate) fn last_segment(&self) -> Option<File> {
        let files = self.disk.list().map(|(file, _)| file);
        files.filter(|file| matches!(file, File::Segment(_))).last()
    }

    /// The process is gone, and with it all but the disk.
    pub(crate) fn stop(&mut self) {
        self.engine = None;
        self.flights.clear();
        self.lane.clear();
        self.heard.forget();
        self.hangs.iter_mut().for_each(Vec::clear);
        self.paused_until = 0;
        self.wake = u64::MAX;
        self.deadline = None;
        self.next_sync_fails = None;
        self.unheard = None;
        // A sector that cannot be read waits for whoever reads next.
        self.next_fails.take_if(|(victim, _)| *victim != Victim::Read);
    }

    /// Whether its disk was ever made a node's.
    pub(crate) fn is_formatted(&self) -> bool {
        self.disk.list().any(|(file, _)| file == File::HardState)
    }
}

/// Whether a disk waits for its device before it says that this is done.
pub(crate) const fn is_sync(request: &DiskRequest) -> bool {
    matches!(
        request,
        DiskRequest::Sync { .. }
            | DiskRequest::SyncDirectory
            | DiskRequest::Create { .. }
            | DiskRequest::Write { durable: true, .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_read_both_ways() {
        for drift_ppm in [-1000, -3, 0, 7, 1000] {
            let clock = Clock::new(1 << 39, drift_ppm);
            for now in [0, 1, 999, 1_000_003, 86_400_000_000_000] {
                let global = clock.global(clock.local(now));
                assert!(global <= now && clock.local(global) >= clock.local(now), "{drift_ppm}");
            }
        }
    }

    #[test]
    fn a_clock_that_stood_still_goes_on_from_there() {
        for drift_ppm in [-50_000, 0, 1000] {
            let mut clock = Clock::new(1 << 39, drift_ppm);
            clock.stall(1_000, 500);
            clock.stall(1_200, 100);
            assert_eq!(clock.local(1_000), clock.local(1_500));
            assert!(clock.local(1_501 + 100) > clock.local(1_500));
            clock.stall(9_000, 5_000);
            for now in [1_500, 1_700, 9_000, 10_000, 13_999, 14_000, 20_000] {
                let global = clock.global(clock.local(now));
                assert!(global <= now && clock.local(global) >= clock.local(now), "{now}");
            }
            clock.go_on(10_000);
            assert!(clock.local(10_200) > clock.local(10_000));
        }
    }
}
