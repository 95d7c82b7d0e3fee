//! Lives, one after another: what ends them, what is asked at their ends, and what lies on the disk between
//! them.

use super::{known::count_files, *};
use crate::disk::hard_state::{BLOCK_BYTES, HardState, OFFSETS};

/// What damage alone brings about.
const DAMAGE: [Mark; 9] = [
    Mark::GateSet,
    Mark::HoleFoundLate,
    Mark::HolesFound,
    Mark::LogBegunLater,
    Mark::LogGivenUp,
    Mark::OlderSnapshotUsed,
    Mark::ScrubFoundBadEntry,
    Mark::SnapshotFoundBad,
    Mark::SnapshotLost,
];

impl Walk {
    /// Nothing more is asked: what was comes to its end, and what is missing is given.
    fn rest(&mut self) {
        if self.swarm.is_small {
            self.starve();
        }
        self.device.limit(None);
        for _ in 0..200 {
            while self.complete() {}
            if self.is_over {
                return;
            }
            if self.is_at_rest() {
                return self.count_files();
            }
            self.repair();
            self.settle();
            self.now = self.storage.deadline().unwrap_or(self.now).max(self.now);
            self.settle();
        }
        let Storage { journal, .. } = &self.storage;
        let (durable, last, spares) = (journal.durable(), self.known.last(), &journal.spares);
        panic!("{durable} is durable of {last}, spares are {spares:?}");
    }

    /// What could not be removed stays until the next start.
    fn count_files(&self) {
        if !self.has_failed {
            count_files(&self.storage, self.reading(), &self.device.files());
        }
    }

    fn is_at_rest(&self) -> bool {
        let wanted = self.storage.promises().wanted();
        (wanted.term, wanted.vote) == self.storage.promised()
            && self.storage.durable() == self.known.last().index
            && (self.storage.hole().is_none() || self.is_alone())
            && self.known.installing.is_none()
            && self.storage.journal.spares.are_in_order()
            && self.storage.sought_room() == 0
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
                None if self.swarm.fails && self.draw.ratio(9, 10) => next,
                None => next.next(),
            };
            next = next.max(self.storage.first());
        }
    }

    /// The node is stopped: what is durable is proven so before it ends.
    fn finish(&mut self) {
        self.storage.finish();
        self.settle();
        while self.complete() {}
        let is_done = self.is_over || !self.is_at_rest() || self.storage.is_finished();
        assert!(is_done, "it does not come to its end");
    }

    fn crash(&mut self) {
        let proven = self.proven();
        let is_kill = self.swarm.kills(self.has_failed, &mut self.draw);
        self.device.crash(is_kill, &mut self.draw);
        // What failed is to be lost, and nothing else, before the disk may be damaged again.
        let is_ill = self.swarm.is_sick && (self.has_failed || !self.may_fail);
        let is_due = self.swarm.harms && self.may_strike && !is_ill;
        let once_in = if self.swarm.is_sick { 4 } else { 2 };
        let proven = proven.map(|(seed, [first, hint, floor])| {
            // One copy of the hard state may be ahead of the other. What lies in the cache alone proves nothing.
            let ahead = if is_kill { 0 } else { self.written_hint().min(self.known.durable) };
            (seed, [first, hint.max(ahead), floor.max(ahead)])
        });
        if let Some(entries) = proven.filter(|_| is_due && self.draw.ratio(1, once_in)) {
            self.may_strike = false;
            (self.known.is_struck, self.known.is_struck_since) = (true, true);
            self.known.forget_mended();
            self.strike(entries);
        }
        // Behind one that was killed for it there is a life for the power to fail in.
        self.may_fail = self.swarm.fails && !(self.swarm.is_sick && self.has_failed);
        self.has_failed = false;
        self.start();
    }

    /// The first of all entries, and the last of those that the hard state calls durable, or any slot.
    fn proven(&self) -> Option<(Seed, [u64; 3])> {
        let seed = self.recovered.as_ref()?.seed;
        let hint = self.storage.promises().durable().durable_hint.0.min(self.known.durable);
        Some((seed, [self.storage.first().0, hint, self.known.floor().max(hint)]))
    }

    /// How much of the log any block of the hard state calls durable.
    fn written_hint(&self) -> u64 {
        let bytes = self.device.content(File::HardState).unwrap_or_default();
        let block = |at: &u64| bytes.get(*at as usize..*at as usize + BLOCK_BYTES);
        let blocks = OFFSETS.as_flattened().iter().filter_map(block);
        let hard = blocks.filter_map(|block| HardState::decode(block, config().group).ok());
        hard.max_by_key(|hard| hard.number).map_or(0, |hard| hard.durable_hint.0)
    }

    /// Something is damaged that the budget has room for: an entry, slots, both, a header or an end record,
    /// a segment, a snapshot, one copy of the hard state.
    fn strike(&mut self, (seed, [first, hint, floor]): (Seed, [u64; 3])) {
        // What fails when it is written again was bad before: mostly the last that is proven, for of those before it
        // a restart believes the slots, and nobody owes them.
        let is_entry = self.swarm.is_sick && self.draw.ratio(2, 3);
        let what = if is_entry { 0 } else { self.draw.below(10) };
        let last = if what < 2 { floor } else { hint };
        if what < 3 && first <= last {
            let is_last = is_entry && self.draw.ratio(2, 3);
            let index = self.draw.between(if is_last { last } else { first }, last);
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

    /// Restarts until a restart comes through; now and then that crashes too. False: none does any more.
    fn restart(&mut self) -> bool {
        self.crash();
        while self.recovered.is_none() && !self.is_refused {
            let once_in = if self.errand == Errand::Live { 80 } else { 25 };
            if self.is_over || self.draw.ratio(1, once_in) {
                self.crash();
            } else {
                assert!(self.complete(), "a restart that waits for nothing");
            }
        }
        !self.is_refused
    }

    /// Before what has failed is undone, mostly.
    fn is_to_be_killed(&mut self) -> bool {
        let most = if self.is_grave { 3 } else { 1 };
        self.swarm.is_sick && self.has_failed && self.draw.ratio(most, 4)
    }

    /// How long a life is: behind one that was killed for what failed, long enough for it to be built on.
    fn steps(&mut self, steps: u64) -> u64 {
        let is_behind = self.swarm.is_sick && !self.may_fail;
        if is_behind { self.draw.between(steps, 4 * steps) } else { self.draw.below(steps) }
    }

    pub(super) fn walk(mut self) -> Marks {
        let (lives, steps) = self.swarm.lives();
        for _ in 0..lives {
            let mut left = self.steps(steps);
            while left > 0 && !self.is_to_be_killed() {
                self.step();
                left -= 1;
            }
            if left == 0 && self.draw.ratio(1, 3) && self.recovered.is_some() {
                self.rest();
            }
            if left == 0 && self.draw.ratio(1, 6) && self.recovered.is_some() {
                self.finish();
            }
            if !self.restart() {
                return self.end_of_walk();
            }
            if self.draw.ratio(1, 2) {
                self.audit(!self.swarm.fails && !self.swarm.harms);
            }
        }
        self.is_calm = true;
        loop {
            self.rest();
            self.audit(false);
            self.rest();
            if !self.is_over {
                self.audit(!self.is_alone());
                self.send_snapshot();
                self.come_up();
            }
            if !self.is_over || !self.restart() {
                return self.end_of_walk();
            }
        }
    }

    /// The machine comes as far as the log, where nothing was damaged.
    fn come_up(&mut self) {
        let mut tries = 0;
        while !self.known.is_struck && !self.is_over && !self.has_come_up() {
            self.apply();
            self.settle();
            while self.complete() {}
            tries += 1;
            assert!(tries < 2000, "the machine is at {:?} for ever", self.machine.applied);
        }
    }

    fn has_come_up(&self) -> bool {
        let to = self.known.agreed().min(self.storage.durable().0);
        self.machine.applied.is_some_and(|applied| applied >= to)
    }

    fn end_of_walk(self) -> Marks {
        let marks = self.marks.and(self.storage.marks());
        let is_sound = !self.known.is_struck && (!self.swarm.fails || self.swarm.is_sick);
        let found = DAMAGE.into_iter().find(|mark| is_sound && marks.has(*mark));
        assert_eq!(found, None, "nothing was damaged");
        marks
    }
}
