//! The machine beside the storage: what it has taken in, and how far it is.

use super::*;

/// What a machine holds: the state behind an entry, or as much of one as it was handed.
enum State {
    Of(LogId),
    Pieces(Vec<u8>),
}

pub(super) struct Beside {
    state: State,
    /// What it has taken in and not answered.
    pub(super) answers: VecDeque<u64>,
    /// The last entry it has applied, once it has its state.
    pub(super) applied: Option<u64>,
    captured: (LogId, usize),
}

impl Beside {
    /// It holds this much by itself.
    pub(super) const fn new(held: LogId) -> Self {
        let state = State::Of(held);
        Self { state, answers: VecDeque::new(), applied: None, captured: (LogId::ZERO, 0) }
    }

    fn take(&mut self, offset: u64, piece: &[u8]) {
        if offset == 0 {
            self.state = State::Pieces(Vec::new());
        }
        let State::Pieces(pieces) = &mut self.state else { panic!("{offset} bytes are not there") };
        assert!(offset as usize <= pieces.len(), "the machine lacks what is before");
        pieces.truncate(offset as usize);
        pieces.extend_from_slice(piece);
        self.answers.push_back(pieces.len() as u64);
    }

    fn holds(&self, at: LogId) -> bool {
        match &self.state {
            State::Of(held) => *held == at,
            State::Pieces(pieces) if at == LogId::ZERO => pieces.is_empty(),
            State::Pieces(pieces) => *pieces == state(at),
        }
    }
}

impl Walk {
    pub(super) fn perform_machine(&mut self, step: Machine) {
        match step {
            Machine::Capture { at, .. } => self.machine.captured = (at, 0),
            Machine::CaptureNext { capture, bytes_max } => {
                let (at, from) = self.machine.captured;
                let all = state(at);
                let to = all.len().min(from + PIECE_BYTES.min(bytes_max as usize));
                self.machine.captured = (at, to);
                let mut bytes = all[from..to].to_vec();
                let is_other = matches!(self.errand, Errand::Restore { is_other: true, .. });
                bytes.iter_mut().take(usize::from(is_other)).for_each(|byte| *byte ^= 1);
                let bytes = Bytes::from(bytes);
                self.storage.on_captured(capture, Ok(Chunk { bytes, last: to == all.len() }));
            }
            Machine::Restore { at, offset, bytes, last } => {
                assert!(at >= self.held, "{at} in place of {}, which it holds", self.held);
                self.machine.take(offset, &bytes);
                if last && self.swarm.keeps {
                    self.held = at;
                }
            }
            _ => {}
        }
    }

    /// One that keeps its own state goes on from there wherever the log leads on, and is never ahead of that;
    /// nor does it run where it cannot be known how far the log went.
    pub(super) fn judge_resumed(&self, found: &Recovered) {
        if !self.swarm.keeps {
            return;
        }
        let (held, end) = (self.held, found.last.index.max(found.snapshot.index));
        assert!(held.index <= end, "a machine at {held} with a log up to {end}");
        assert_eq!(found.gate, None, "a machine of its own behind a gate");
        let leads_on = held.index.next() >= found.first;
        assert_eq!(self.storage.restored(), leads_on.then_some(held), "from {}", found.first);
    }

    pub(super) fn watch_machine(&mut self) {
        let Some(at) = self.storage.restored() else {
            self.machine.applied = None;
            return;
        };
        if self.machine.applied.is_none() {
            assert!(self.known.is_committed(at), "{at} is restored, and was never committed");
            assert!(self.machine.holds(at), "the machine has another state than that of {at}");
            self.applied(at.index.0);
        }
    }

    /// It has come so far, and may write its state down.
    pub(super) fn applied(&mut self, to: u64) {
        let at = at(&self.known.log, to);
        (self.machine.state, self.machine.applied) = (State::Of(at), Some(to));
        if self.swarm.keeps && self.draw.ratio(1, self.swarm.keeps_once_in) {
            self.held = self.held.max(at);
        }
    }

    /// What was appended in this life is at hand, be it durable or not; the rest is read.
    pub(super) fn apply(&mut self) {
        let found = self.recovered.as_ref().map_or(0, |recovered| recovered.last.index.0);
        let durable = self.storage.durable().0;
        // Who writes down what it has applied waits until the log has it.
        let most = if self.swarm.keeps { durable } else { u64::MAX };
        let to = self.known.agreed().min(most);
        let Some(applied) = self.machine.applied.filter(|applied| *applied < to) else { return };
        if applied >= found {
            let to = self.draw.between(applied, to);
            self.applied(to);
        } else if applied < durable {
            let to = LogIndex(to.min(durable));
            self.storage.read(Reader::Machine, LogIndex(applied + 1), to, 8000);
        }
    }

    pub(super) fn capture(&mut self) {
        let at = at(&self.known.log, self.machine.applied.unwrap_or(0));
        // Who was a member before is known no more.
        let is_known = at.index >= self.known.sole.index;
        if at.index > LogIndex(0) && is_known && self.storage.can_capture(at) {
            let first = self.storage.first();
            let from = self.draw.between(1, at.index.0);
            let pinned = self.draw.ratio(1, 4).then(|| LogIndex(self.draw.between(1, from)));
            self.storage.retain(LogIndex(from), pinned);
            let lacked = [Some(LogIndex(from)), pinned];
            self.retained =
                lacked.map(|from| from.map_or(LogIndex(u64::MAX), |from| from.max(first)));
            let members = self.members(self.known.changed(&self.known.log, at.index.0));
            self.storage.capture(at, members, Timestamp(at.index.0));
        }
    }
}
