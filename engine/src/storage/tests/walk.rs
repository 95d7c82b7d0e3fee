//! A random walk of the storage alone, over the simulator's disk: appends, cuts, promises, snapshots of its
//! own and of a peer, and reads, in any order; operations end in any order, or badly; the power fails or
//! the process is killed between any two of them; and what lies on the disk is damaged, once between two
//! restarts.
//!
//! What must hold (docs/recovery.md): what was promised or called durable survives, or is told to be lost;
//! nothing is found or read that was never appended; what is asked comes to its end where the disk works; no
//! crash alone shuts the gate, and nothing here ends in a refusal. Who walks plays consensus and machine.

mod asks;
mod device;
mod known;

use super::{config, format, holes};
use crate::{
    action::Machine,
    entry::{Batch, Head, Kind, frames, seal_body},
    event::Completion,
    file::{DiskError, DiskRequest, Extent},
    storage::*,
    types::{OpId, SnapshotId},
};
use asks::{PIECE_BYTES, entry, is_change, state};
use device::Device;
use known::{Known, at};
use lakebed_sim::{Draw, prng::Concern};
use std::{collections::VecDeque, time::Duration};

/// Who reads all of the log.
const AUDITOR: Reader = Reader::Peer(NodeId(3));

/// One life after another of one node.
struct Walk {
    draw: Draw,
    /// What happens beside crashes: operations fail, the disk is damaged.
    fails: bool,
    harms: bool,
    device: Device,
    storage: Storage,
    now: Instant,
    recovered: Option<Recovered>,
    is_over: bool,
    is_catching_up: bool,
    known: Known,
    /// What the machine has taken in of a snapshot, what of that it has not answered, and the last entry it
    /// has applied once it has it all.
    state: Vec<u8>,
    answers: VecDeque<u64>,
    applied: Option<u64>,
    captured: (LogId, usize),
    /// A snapshot on its way from a peer.
    sent: Option<LogId>,
    /// How far the last read of all of the log came.
    audited: Option<LogIndex>,
    may_strike: bool,
    /// Nothing fails any more.
    is_calm: bool,
    marks: Marks,
}

fn tuned() -> Config {
    let mut config = config();
    config.first_segment_bytes = 8 << 10;
    config.tuning.snapshot_log_bytes = 2 * config.segment_bytes;
    config.tuning.scrub_interval = Duration::from_secs(5);
    config
}

impl Walk {
    fn new(seed: u64) -> Self {
        let mut walk = Self {
            draw: Draw::new(seed, Concern::Workload, 0, 0),
            fails: seed & 1 == 1,
            harms: seed & 2 == 2,
            device: Device::new(tuned().disk_align),
            storage: Storage::new(&tuned(), seed),
            now: Instant(1),
            recovered: None,
            is_over: false,
            is_catching_up: true,
            known: Known::default(),
            state: Vec::new(),
            answers: VecDeque::new(),
            applied: None,
            captured: (LogId::ZERO, 0),
            sent: None,
            audited: None,
            may_strike: false,
            is_calm: false,
            marks: Marks::NONE,
        };
        walk.start();
        walk
    }

    fn seed(&self) -> Seed {
        self.recovered.as_ref().expect("it runs").seed
    }

    fn members(&self, at: LogId) -> Arc<Membership> {
        let members = self.recovered.as_ref().expect("it runs").membership.as_ref().clone();
        Arc::new(Membership { at, ..members })
    }

    // ---- between storage, disk and machine ---------------------------------------------------

    fn start(&mut self) {
        self.marks.add(self.storage.marks());
        self.storage = Storage::new(&tuned(), self.draw.any());
        (self.recovered, self.is_over, self.is_catching_up) = (None, false, true);
        (self.state, self.answers) = (Vec::new(), VecDeque::new());
        (self.applied, self.sent, self.known.is_blind) = (None, None, false);
        let is_formatted = self.device.files().iter().any(|(file, _)| *file == File::HardState);
        self.storage.on_start(if is_formatted { Start::Run } else { format() });
        self.settle();
    }

    /// Goes on as far as it can. Nothing is built on what has failed.
    fn settle(&mut self) {
        while !self.is_over {
            if let Some(halt) = self.storage.halt() {
                return self.end(&halt);
            }
            let mut out = Vec::new();
            if let Some(recovered) = self.storage.recover(self.now, &mut out) {
                self.known.judge(&recovered, self.fails);
                self.recovered = Some(recovered);
                self.may_strike = true;
            }
            if let Some(applied) = self.applied.filter(|_| self.is_catching_up) {
                let given = at(&self.known.log, applied);
                self.is_catching_up = !self.storage.catch_up(self.now, given.index, given);
            }
            self.storage.persist(self.now, &mut out);
            self.storage.look_around();
            if out.is_empty() && !self.storage.has_failed() {
                break;
            }
            out.into_iter().for_each(|action| self.perform(action));
        }
        if self.recovered.is_some() && !self.is_over {
            self.take_reads();
            self.known.watch(&self.storage);
            self.watch_machine();
        }
    }

    fn end(&mut self, halt: &Halt) {
        match halt {
            Halt::DiskFailed { .. } if self.fails => {}
            Halt::LogLost { .. } if self.known.is_struck => self.known.is_shut = true,
            _ => panic!("it ends: {halt:?}"),
        }
        self.is_over = true;
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Disk { op, request, .. } => self.device.submit(op, request),
            Action::Machine(Machine::Capture { at, .. }) => self.captured = (at, 0),
            Action::Machine(Machine::CaptureNext { capture, bytes_max }) => {
                let (at, from) = self.captured;
                let all = state(at);
                let to = all.len().min(from + PIECE_BYTES.min(bytes_max as usize));
                self.captured = (at, to);
                let bytes = Bytes::copy_from_slice(&all[from..to]);
                self.storage.on_captured(capture, Ok(Chunk { bytes, last: to == all.len() }));
            }
            Action::Machine(Machine::Restore { offset, bytes, .. }) => {
                assert!(offset as usize <= self.state.len(), "the machine lacks what is before");
                self.state.truncate(offset as usize);
                self.state.extend_from_slice(&bytes);
                self.answers.push_back(self.state.len() as u64);
            }
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
            self.audited = Some(through).filter(|_| reader == AUDITOR).or(self.audited);
            if reader == Reader::Machine && self.applied.is_some() {
                self.applied = self.applied.max(Some(through.0));
            }
        }
    }

    fn watch_machine(&mut self) {
        let Some(at) = self.storage.restored() else {
            self.applied = None;
            return;
        };
        if self.applied.is_none() {
            assert!(self.known.is_committed(at), "{at} is restored, and was never committed");
            let all = if at == LogId::ZERO { Vec::new() } else { state(at) };
            assert!(self.state == all, "the machine has another state than that of {at}");
            self.applied = Some(at.index.0);
        }
    }

    /// Some operation ends, or an answer of the machine comes. False if nothing is on its way.
    fn complete(&mut self) -> bool {
        let ops = self.device.in_flight();
        let count = (ops.len() + usize::from(!self.answers.is_empty())) as u64;
        if self.is_over || count == 0 {
            return false;
        }
        if let Some(&op) = ops.get(self.draw.below(count) as usize) {
            let fails = self.fails && !self.is_calm && self.draw.ratio(1, 400);
            let bad = fails.then(|| self.device.end_badly(op, &mut self.draw));
            self.known.is_blind |= fails && self.recovered.is_none();
            let result = bad.unwrap_or_else(|| self.device.end(op));
            self.storage.on_completed(self.now, op, result);
        } else if let Some(through) = self.answers.pop_front() {
            self.storage.on_restored(through, Ok(()));
        }
        self.settle();
        true
    }

    // ---- lives -------------------------------------------------------------------------------

    /// Nothing more is asked: what was comes to its end, and what is missing is given.
    fn rest(&mut self) {
        for _ in 0..200 {
            while self.complete() {}
            if self.is_over || self.is_at_rest() {
                return;
            }
            self.repair();
            self.settle();
            self.now = self.storage.deadline().unwrap_or(self.now).max(self.now);
            self.settle();
        }
        panic!("{} is durable of {}", self.storage.durable(), self.known.last());
    }

    fn is_at_rest(&self) -> bool {
        let wanted = self.storage.promises().wanted();
        (wanted.term, wanted.vote) == self.storage.promised()
            && self.storage.durable() == self.known.last().index
            && self.storage.hole().is_none()
            && self.known.installing.is_none()
    }

    /// All of the log is read; `is_whole`: nothing of it can be bad.
    fn audit(&mut self, is_whole: bool) {
        let (mut next, mut tries) = (self.storage.first(), 0);
        while next <= self.storage.durable() && !self.is_over {
            self.audited = None;
            self.storage.read(AUDITOR, next, self.storage.durable(), 20_000);
            self.repair();
            self.settle();
            while self.audited.is_none() && self.complete() {}
            // The log may begin later by now.
            let is_read = self.audited.is_some() || next < self.storage.first();
            assert!(is_read || self.is_over || !is_whole, "{next} cannot be read");
            tries += 1;
            assert!(tries < 1000, "{next} can never be read");
            next = match self.audited {
                Some(last) => last.next(),
                // It may have failed this once, or be bad for long.
                None if self.fails && self.draw.ratio(9, 10) => next,
                None => next.next(),
            };
            next = next.max(self.storage.first());
        }
    }

    fn crash(&mut self) {
        let proven = self.proven();
        self.device.crash(&mut self.draw);
        if let Some(entries) = proven.filter(|_| self.may_strike && self.harms) {
            (self.may_strike, self.known.is_struck) = (false, true);
            self.known.forget_mended();
            self.strike(entries);
        }
        self.start();
    }

    /// The first of all entries, and the last of those that the hard state calls durable, or any slot.
    fn proven(&self) -> Option<(Seed, [u64; 3])> {
        let seed = self.recovered.as_ref()?.seed;
        let hint = self.storage.promises().durable().durable_hint.0.min(self.known.durable);
        Some((seed, [self.storage.first().0, hint, self.known.floor().max(hint)]))
    }

    /// Something is damaged that the budget has room for: an entry, slots, both, a header or an end record,
    /// a segment, a snapshot, one copy of the hard state.
    fn strike(&mut self, (seed, [first, hint, floor]): (Seed, [u64; 3])) {
        let what = self.draw.below(10);
        let last = if what < 2 { floor } else { hint };
        if what < 3 && first <= last {
            let index = self.draw.between(first, last);
            let (_, frame) = entry(seed, &self.known.log, index);
            let byte = self.draw.below(frame.len() as u64) as usize;
            self.device.flip(&frame, byte);
        }
        let is_it = |file: &File| match what {
            0 | 1 => false,
            2..6 => matches!(file, File::Segment(_)),
            6..9 => matches!(file, File::Snapshot(_)),
            _ => *file == File::HardState,
        };
        let files: Vec<_> = self.device.files().into_iter().filter(|(f, _)| is_it(f)).collect();
        if files.is_empty() {
            return;
        }
        let (file, len) = *self.draw.pick(&files);
        let (table, any) = (512..512 + (len / 16).max(512), self.draw.below(len.max(1)));
        let sector = |at: u64| at..at + 1;
        let place = match what {
            2 => table,
            3 => sector(512 + any % (table.end - 512)),
            4 => sector(*self.draw.pick(&[0, len.saturating_sub(1024), len.saturating_sub(512)])),
            6..9 if self.draw.ratio(3, 4) => sector(any),
            9 => [0..1 << 20, 1 << 20..len][(any % 2) as usize].clone(),
            _ => return self.device.lose(file),
        };
        self.device.rot(file, place);
    }

    /// Restarts until a restart comes through; now and then that crashes too.
    fn restart(&mut self) {
        self.crash();
        while self.recovered.is_none() {
            if self.is_over || self.draw.ratio(1, 80) {
                self.crash();
            } else {
                assert!(self.complete(), "a restart that waits for nothing");
            }
        }
    }

    fn walk(mut self) -> Marks {
        for _ in 0..8 {
            (0..self.draw.below(250)).for_each(|_| self.step());
            if self.draw.ratio(1, 3) && self.recovered.is_some() {
                self.rest();
            }
            self.restart();
            if self.draw.ratio(1, 2) {
                self.audit(!self.fails && !self.harms);
            }
        }
        self.is_calm = true;
        loop {
            self.rest();
            self.audit(false);
            self.rest();
            if !self.is_over {
                self.audit(true);
                return self.marks.and(self.storage.marks());
            }
            self.restart();
        }
    }
}

/// Situations that a walk is for.
const RARE: [Mark; 20] = [
    Mark::CutDeepened,
    Mark::CutRepeated,
    Mark::CutReopenedSegment,
    Mark::CutTookSegments,
    Mark::EndRecordRewritten,
    Mark::GateSet,
    Mark::HardStateCopyLost,
    Mark::HoleFilled,
    Mark::HoleFoundLate,
    Mark::HolesFound,
    Mark::InstallGoneOnWith,
    Mark::Installed,
    Mark::LogBegunLater,
    Mark::SegmentRecycled,
    Mark::SlotRebuilt,
    Mark::SlotsMadeAnew,
    Mark::SnapshotWaitedForLog,
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
