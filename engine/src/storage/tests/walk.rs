//! A random walk of the storage alone, over the simulator's disk: appends, cuts, promises, snapshots of its
//! own and of a peer, and reads, in any order; operations end in any order, or badly, or find no room; the
//! power fails or the process is killed between any two of them; and what lies on the disk is damaged, once
//! between two restarts. Now and then a start is another one than to live: the node is made from a backup, or
//! becomes the only voter by force, or is taken for what it is not. No walk meets with all of that (swarm.rs).
//!
//! What must hold (docs/recovery.md): what was promised or called durable survives, or is told to be lost;
//! nothing is found or read that was never appended; what is asked comes to its end where the disk works; no
//! crash alone shuts the gate, and nothing here ends in a refusal. Who walks plays consensus and machine.

mod asks;
mod device;
mod errands;
mod known;
mod lives;
mod machine;
mod readers;
mod room;
mod swarm;

use super::{config, format, holes};
use crate::{
    action::Machine,
    entry::{Batch, Head, Kind, frames, seal_body},
    event::Completion,
    file::{DiskError, DiskRequest, Extent},
    storage::{
        ops::{InFlight, Job},
        *,
    },
    types::{ClusterId, OpId, SnapshotId},
};
use asks::{PIECE_BYTES, entry, is_change, state};
use device::Device;
use errands::Errand;
use known::{Known, at};
use lakebed_sim::{Draw, prng::Concern};
use machine::Beside;
use readers::Readers;
use std::{collections::VecDeque, time::Duration};
use swarm::Swarm;

/// Who reads all of the log.
const AUDITOR: Reader = Reader::Peer(NodeId(3));

/// One life after another of one node.
struct Walk {
    draw: Draw,
    swarm: Swarm,
    device: Device,
    storage: Storage,
    /// What this start is for, and all there was before one that is to change nothing.
    errand: Errand,
    untouched: Vec<(File, Bytes)>,
    now: Instant,
    recovered: Option<Recovered>,
    is_over: bool,
    /// No start leads on from what is there.
    is_refused: bool,
    is_catching_up: bool,
    known: Known,
    machine: Beside,
    /// What a machine of its own has written down.
    held: LogId,
    readers: Readers,
    /// A snapshot on its way from a peer; one that is to stand before the log.
    sent: Option<LogId>,
    joining: Option<LogId>,
    /// How far the last read of all of the log came.
    audited: Option<LogIndex>,
    /// Log from here on members lack, and one that is being sent a snapshot.
    retained: [LogIndex; 2],
    may_strike: bool,
    /// Operations fail in this life, and one has.
    may_fail: bool,
    has_failed: bool,
    /// What failed so may be built on by the next life; this one is to build on a peer's snapshot that did.
    is_grave: bool,
    builds_on: bool,
    /// Nothing fails any more.
    is_calm: bool,
    marks: Marks,
}

fn tuned(swarm: Swarm) -> Config {
    let mut config = config();
    config.first_segment_bytes = 8 << 10;
    config.machine_keeps_state = swarm.keeps;
    config.tuning.snapshot_log_bytes = 2 * config.segment_bytes;
    config.tuning.retain_log_bytes = swarm.retains * config.segment_bytes;
    config.tuning.transfer_log_bytes_max = 2 * config.tuning.retain_log_bytes;
    config.tuning.scrub_interval = Duration::from_secs(5);
    config.tuning.pin_idle = Duration::from_secs(3);
    config
}

impl Walk {
    fn new(seed: u64) -> Self {
        let mut draw = Draw::new(seed, Concern::Workload, 0, 0);
        let swarm = Swarm::of(&mut draw);
        let has = |site| Draw::new(seed, Concern::Swarm, site, 0).ratio(1, 4);
        let (tears, sync_names) = (has(0), has(1));
        let mut walk = Self {
            swarm,
            device: Device::new(tuned(swarm).disk_align, tears, sync_names),
            storage: Storage::new(&tuned(swarm), seed),
            errand: Errand::Live,
            untouched: Vec::new(),
            now: Instant(1),
            recovered: None,
            is_over: false,
            is_refused: false,
            is_catching_up: true,
            known: Known::default(),
            machine: Beside::new(LogId::ZERO),
            held: LogId::ZERO,
            readers: Readers::default(),
            sent: None,
            joining: None,
            audited: None,
            retained: [LogIndex(u64::MAX); 2],
            may_strike: false,
            may_fail: swarm.fails,
            has_failed: false,
            is_grave: false,
            builds_on: false,
            is_calm: false,
            marks: Marks::NONE,
            draw,
        };
        if swarm.joins {
            let ahead = walk.draw.below(80) as usize;
            walk.known.committed = vec![Term(1); ahead];
        }
        walk.start();
        walk
    }

    fn seed(&self) -> Seed {
        self.recovered.as_ref().expect("it runs").seed
    }

    fn members(&self, at: LogId) -> Arc<Membership> {
        if at.index == self.known.sole.index && self.known.sole != LogId::ZERO {
            return Arc::new(errands::alone(at));
        }
        let Start::Format { members, .. } = format() else { unreachable!("it names its members") };
        Arc::new(Membership { at, ..members.as_ref().clone() })
    }

    // ---- between storage, disk and machine ---------------------------------------------------

    fn start(&mut self) {
        self.marks.add(self.storage.marks());
        self.storage = Storage::new(&tuned(self.swarm), self.draw.any());
        (self.recovered, self.is_over, self.is_catching_up) = (None, false, true);
        (self.machine, self.readers) = (Beside::new(self.held), Readers::default());
        // What could not be read when it became the only voter may be lost by that.
        let is_forced = self.errand == Errand::Force { is_acknowledged: true };
        self.known.is_struck |= self.known.is_blind && is_forced;
        self.known.is_struck_since |= self.known.is_blind && is_forced;
        (self.joining, self.known.is_blind) = (None, false);
        self.retained = [LogIndex(u64::MAX); 2];
        // Mostly its leader goes on sending.
        let is_grave = std::mem::take(&mut self.is_grave);
        let goes_on = is_grave || self.draw.ratio(3, 4);
        self.sent = self.sent.filter(|_| goes_on);
        // Were the log to come as far by itself, that would be of no use.
        self.builds_on = is_grave && self.sent.is_some();
        let start = self.next_start();
        self.storage.on_start(start);
        self.settle();
    }

    /// Goes on as far as it can. Nothing is built on what has failed.
    fn settle(&mut self) {
        if self.storage.deadline().is_some_and(|at| at <= self.now) {
            // As whoever drives it does: this is no plain turn.
            self.storage.stray();
        }
        while !self.is_over {
            if let Some(halt) = self.storage.halt() {
                return self.end(&halt);
            }
            let mut out = Vec::new();
            if let Some(recovered) = self.storage.recover(self.now, &mut out) {
                assert_eq!(self.errand, Errand::Live, "it lives");
                self.known.judge(&recovered);
                self.sent = self.sent.filter(|_| !self.is_alone());
                self.judge_resumed(&recovered);
                self.recovered = Some(recovered);
                self.may_strike = true;
            }
            if let Some(applied) = self.machine.applied.filter(|_| self.is_catching_up) {
                let given = at(&self.known.log, applied);
                self.is_catching_up = !self.storage.catch_up(self.now, given.index, given);
            }
            self.storage.persist(self.now, &mut out);
            self.storage.take_given_up();
            self.storage.look_around();
            if out.is_empty() && !self.storage.has_failed() {
                break;
            }
            out.into_iter().for_each(|action| self.perform(action));
        }
        if self.recovered.is_some() && !self.is_over {
            self.take_reads();
            self.known.watch(&self.storage);
            self.watch_room();
            self.watch_machine();
            self.watch_readers();
            let newest = self.storage.snapshot();
            self.joining.take_if(|at| *at <= newest);
        }
    }

    fn end(&mut self, halt: &Halt) {
        self.is_over = true;
        if self.errand != Errand::Live {
            return self.end_errand(halt);
        }
        match halt {
            Halt::DiskFailed { .. } if self.has_failed => {}
            Halt::LogLost { .. } if self.known.is_struck && !self.swarm.keeps => {
                self.known.is_shut = true;
            }
            // Nobody gives a machine of its own what its log has lost, or who is alone what was damaged since.
            Halt::Refused { .. }
                if self.known.is_struck && self.swarm.keeps
                    || self.known.is_struck_since && self.known.may_be_alone() =>
            {
                self.is_refused = self.recovered.is_none();
            }
            Halt::Refused { .. } if self.has_failed && self.is_alone() => {}
            _ => panic!("it ends: {halt:?}"),
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Disk { op, request, .. } => self.device.submit(op, request),
            Action::Machine(step) => self.perform_machine(step),
            _ => {}
        }
    }

    fn take_reads(&mut self) {
        while let Some((reader, back)) = self.storage.take_read() {
            let seed = self.seed();
            for (read, index) in frames(&back.frames).zip(back.first.0..) {
                let (head, _) = entry(seed, &self.known.log, index);
                assert_eq!((read.id, read.time), (head.id, head.time), "read back");
            }
            let through = back.last;
            self.known.read(back.first, through);
            self.audited = Some(through).filter(|_| reader == AUDITOR).or(self.audited);
            if reader == Reader::Machine
                && self.joining.is_none()
                && self.machine.applied.is_some_and(|applied| applied < through.0)
            {
                self.applied(through.0);
            }
        }
    }

    /// Some operation ends, or an answer of the machine comes. False if nothing is on its way.
    fn complete(&mut self) -> bool {
        let ops = self.device.in_flight();
        let count = (ops.len() + usize::from(!self.machine.answers.is_empty())) as u64;
        if self.is_over || count == 0 {
            return false;
        }
        if let Some(&op) = ops.get(self.draw.below(count) as usize) {
            let result = if self.is_to_fail(op) {
                self.has_failed = true;
                self.known.is_blind |= self.recovered.is_none() && self.device.is_read(op);
                self.device.end_badly(op, self.swarm.is_sick, &mut self.draw)
            } else {
                self.device.end(op)
            };
            self.storage.on_completed(self.now, op, result);
        } else if let Some(through) = self.machine.answers.pop_front() {
            self.storage.on_restored(through, Ok(()));
        }
        self.settle();
        true
    }

    fn is_to_fail(&mut self, op: OpId) -> bool {
        let makes_durable = self.device.makes_durable(op);
        let is_sync = self.device.is_sync(op);
        let of = self.storage.ops.of(op);
        let is_grave = makes_durable && of.is_some_and(|of| is_grave(&of, is_sync));
        let once_in = self.swarm.fails_once_in(makes_durable, is_grave);
        let once_in = once_in.filter(|_| self.may_fail && !self.is_calm);
        let is_it = once_in.is_some_and(|count| self.draw.ratio(1, count));
        self.is_grave |= is_it && is_grave;
        is_it
    }
}

/// Whether what it makes durable was never acknowledged here, and may be found in the cache by the next life. Of a
/// peer's snapshot no more is there than its header as long as that is not.
const fn is_grave(of: &InFlight, is_sync: bool) -> bool {
    match of.job {
        Job::Refill(_) => true,
        Job::Staging => is_sync && matches!(of.file, File::Part(..)),
        _ => false,
    }
}

/// Situations that a walk is for.
const RARE: [Mark; 28] = [
    Mark::CutDeepened,
    Mark::CutReopenedSegment,
    Mark::CutRepeated,
    Mark::CutTookSegments,
    Mark::EndRecordRewritten,
    Mark::GateSet,
    Mark::HardStateCopyLost,
    Mark::HoleFilled,
    Mark::HoleFoundLate,
    Mark::HolesFound,
    Mark::InstallGoneOnWith,
    Mark::InstallJoined,
    Mark::Installed,
    Mark::LogBegunLater,
    Mark::PinExpired,
    Mark::QuorumForced,
    Mark::RestoreRepeated,
    Mark::RoomCameBack,
    Mark::SegmentRecycled,
    Mark::SlotRebuilt,
    Mark::SlotsMadeAnew,
    Mark::SnapshotGivenUp,
    Mark::SnapshotKeptForPin,
    Mark::SnapshotWaitedForLog,
    Mark::SpareHadNoRoom,
    Mark::TornTailCut,
    Mark::UnannouncedSegmentRemoved,
    Mark::WriteWaitedForMembership,
];

#[test]
fn whatever_is_asked_of_it_a_storage_keeps_what_it_has_told() {
    let number = |name| std::env::var(name).ok().and_then(|n: String| n.parse().ok());
    let (first, count) = (number("WALK_SEED"), number("WALK_SEEDS").unwrap_or(300));
    let mut met = Marks::NONE;
    for seed in first.unwrap_or(0)..first.unwrap_or(0) + count {
        let walked = std::panic::catch_unwind(|| Walk::new(seed).walk());
        let marks = walked.unwrap_or_else(|_| panic!("walk {seed}: WALK_SEED={seed} WALK_SEEDS=1"));
        met.add(marks);
    }
    let missed: Vec<_> = RARE.into_iter().filter(|mark| !met.has(*mark)).collect();
    assert!(first.is_some() || missed.is_empty(), "met by none: {missed:?}");
}
