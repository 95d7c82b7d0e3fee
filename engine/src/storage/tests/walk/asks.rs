//! What is asked of the storage: what consensus could ask of it, drawn at random.

use super::{
    known::{Known, at},
    *,
};
use crate::types::{Piece, SnapshotName};

/// How much of a state is handed over at a time.
pub(super) const PIECE_BYTES: usize = 20_000;

/// The machine's state behind this entry.
pub(super) fn state(at: LogId) -> Vec<u8> {
    let mark = at.index.0.wrapping_mul(31).wrapping_add(at.term.0) as u8;
    vec![mark; 1 + at.index.0 as usize % 3 * 30_000]
}

/// Of what kind an entry is, and of what length.
const fn mark(id: LogId) -> u64 {
    id.index.0 * 97 + id.term.0 * 13
}

/// Whether an entry is a membership.
pub(super) fn is_change(id: LogId) -> bool {
    (1..4).contains(&(mark(id) % 61))
}

/// An entry of a log, the same for whoever has it.
pub(super) fn entry(seed: Seed, log: &[Term], index: u64) -> (Head, Bytes) {
    let (id, before, time) = (at(log, index), at(log, index - 1).term, Timestamp(index));
    let mark = mark(id);
    match mark % 61 {
        0 => seal_body(Kind::Empty, &[], seed, id, before, time),
        1..4 => seal_body(Kind::Membership, &[mark as u8; 40], seed, id, before, time),
        4 => Batch::one(&[mark as u8; 7000]).seal(seed, id, before, time),
        _ => Batch::one(&vec![mark as u8; (mark * 7 % 1500) as usize]).seal(seed, id, before, time),
    }
}

impl Walk {
    /// Asks for something, or lets something end.
    pub(super) fn step(&mut self) {
        if self.recovered.is_none() || self.is_over {
            self.complete();
            return;
        }
        let is_still = self.known.installing.is_none();
        // What a snapshot is to stand for the machine waits for no more.
        let is_free = is_still && self.joining.is_none();
        let is_sent = self.sent.is_some() || self.draw.ratio(1, 3);
        self.builds_on &= self.sent.is_some() && is_free && !self.is_alone() && self.has_formed();
        let what = if self.builds_on { *self.draw.pick(&[20, 55]) } else { self.draw.below(56) };
        match what {
            0..8 if is_still => (0..=self.draw.below(4)).for_each(|_| self.append()),
            8 if is_still && !self.is_alone() && (self.swarm.is_sick || self.draw.ratio(1, 3)) => {
                self.truncate()
            }
            9 => self.vote(),
            10..12 if is_still => self.commit(),
            12..15 if is_free => self.capture(),
            15..18 if is_free => self.apply(),
            18 if is_still => self.read(),
            19 => self.pass(),
            20..26 if !self.has_formed() => self.form(),
            20..26 if is_free && is_sent && !self.is_alone() => self.receive(),
            26..28 => self.repair(),
            28 if self.swarm.is_small => self.fill(),
            29..33 if self.swarm.is_read => self.read_snapshots(),
            _ => drop(self.complete()),
        }
        self.settle();
    }

    /// The disk has less room than a segment takes, or a little more, or enough.
    fn fill(&mut self) {
        let more = self.draw.ratio(2, 3).then(|| self.draw.below(3 * config().segment_bytes));
        self.device.limit(more);
    }

    fn promise(&mut self, term: Term) {
        let wanted = self.storage.promises().wanted();
        if term > wanted.term {
            // Of whoever lets it join it learns the epoch with the term.
            if self.swarm.joins && wanted.identity.cluster_epoch == 0 {
                self.known.epochs.1 = 1;
                self.storage.set_cluster_epoch(1);
            }
            self.storage.promise(term, None);
        }
    }

    fn vote(&mut self) {
        let wanted = self.storage.promises().wanted();
        let (term, has_voted) = (wanted.term, wanted.vote.is_some());
        if has_voted || term == Term(0) || self.draw.ratio(1, 2) {
            self.promise(term.next());
        } else {
            self.storage.promise(term, Some(NodeId(1 + term.0 % 3)));
        }
    }

    /// A term in which nobody has appended anything yet.
    fn new_term(&mut self) -> Term {
        let theirs = self.known.committed.last().copied().unwrap_or_default();
        let term = self.storage.promises().wanted().term.max(theirs).next();
        self.promise(term);
        term
    }

    /// The next entry: the cluster's, if that has one.
    pub(super) fn append(&mut self) {
        let Known { log, committed, .. } = &self.known;
        let (agreed, len) = (self.known.agreed(), log.len() as u64);
        if agreed < len.min(committed.len() as u64) {
            return self.cut(agreed);
        }
        let theirs = committed.get(log.len()).copied();
        let term = theirs.unwrap_or_else(|| self.term_of_next());
        let id = LogId::new(term, LogIndex(len + 1));
        if is_change(id) && !self.change(id, theirs.is_some()) {
            return;
        }
        self.promise(term);
        self.known.append(term, self.storage.durable());
        let (head, frame) = entry(self.seed(), &self.known.log, len + 1);
        self.storage.append(head, frame, 0);
    }

    /// Of whoever is alone by force and has no entry that says so, the first one does.
    fn term_of_next(&self) -> Term {
        let least = self.storage.promises().wanted().term.max(Term(1));
        let index = LogIndex(self.known.log.len() as u64 + 1);
        let is_due = |term: &Term| is_change(LogId::new(*term, index));
        let mut terms = (least.0..).map(Term);
        let due = terms.find(is_due).filter(|_| index == self.known.sole.index);
        due.unwrap_or(least)
    }

    /// Other members. False if those before are not yet as durable, or committed, as they have to be.
    fn change(&mut self, id: LogId, is_theirs: bool) -> bool {
        let Known { newest, previous, .. } = self.known;
        let is_there = newest.index <= self.storage.durable() || id.index <= newest.index;
        let is_own = id.index == self.known.sole.index;
        if !is_there || !is_theirs && !is_own && newest.index.0 > self.known.agreed() {
            return false;
        }
        // Behind a gate an older one comes again.
        if id.index >= newest.index && id != newest {
            let before = if id.index > newest.index { newest } else { previous };
            self.bring_into_force(id, before);
        }
        true
    }

    fn bring_into_force(&mut self, newest: LogId, previous: LogId) {
        (self.known.newest, self.known.previous) = (newest, previous);
        self.storage.set_membership(self.members(newest), self.members(previous));
    }

    /// What is not committed goes, or a part of it.
    fn truncate(&mut self) {
        let (agreed, len) = (self.known.agreed(), self.known.log.len() as u64);
        if agreed < len {
            let kept = self.draw.between(agreed, len - 1);
            self.cut(kept);
        }
    }

    fn cut(&mut self, kept: u64) {
        self.new_term();
        if self.known.newest.index.0 > kept {
            self.bring_into_force(self.known.previous, self.known.previous);
        }
        self.known.truncate(kept);
        self.storage.truncate(self.known.last());
    }

    pub(super) fn commit(&mut self) {
        // Others may have what this node has not yet.
        let durable = self.storage.durable().0;
        let most = if self.known.is_needed() { durable } else { self.known.log.len() as u64 };
        let Known { log, committed, .. } = &mut self.known;
        if log.starts_with(committed) {
            let to = self.draw.between(committed.len() as u64, most.max(committed.len() as u64));
            committed.extend_from_slice(&log[committed.len()..to as usize]);
        }
        self.storage.hint_committed(LogIndex(self.known.agreed()));
    }

    /// A peer that is behind reads.
    fn read(&mut self) {
        let (first, durable) = (self.storage.first().0, self.known.durable);
        if first <= durable {
            let from = self.draw.between(first, durable);
            let to = self.draw.between(from, durable);
            self.storage.read(Reader::Peer(NodeId(2)), LogIndex(from), LogIndex(to), 5000);
        }
    }

    fn pass(&mut self) {
        let deadline = self.storage.deadline().filter(|_| self.draw.ratio(1, 2));
        self.now = deadline.unwrap_or(self.now).max(self.now).after(Duration::from_millis(20));
    }

    /// A peer gives what is missing; the gate opens when all there was is there again.
    pub(super) fn repair(&mut self) {
        if let Some(hole) = self.storage.hole().filter(|_| !self.is_alone() && !self.is_over) {
            let (head, frame) = entry(self.seed(), &self.known.log, hole.index.0);
            assert_eq!(head.id, hole, "what is missing");
            self.known.give(hole.index);
            self.storage.refill(&head, &frame);
        }
        let all = self.known.committed.len() as u64;
        if self.known.is_shut && self.known.agreed() == all && self.storage.durable().0 >= all {
            self.known.is_shut = false;
            self.storage.open_gate();
        }
    }

    /// A piece of a peer's snapshot, or what becomes of it.
    fn receive(&mut self) {
        let Some(to) = self.sent else { return self.begin_to_receive() };
        self.promise(to.term);
        let receiving = self.storage.receiving().filter(|of| of.snapshot.at == to);
        if receiving.is_some_and(|of| of.is_whole) {
            return self.take(to);
        }
        let all = Bytes::from(state(to));
        let from = receiving.map_or(0, |of| of.next) as usize;
        let (bytes, digest) = (all.len() as u64, crc32c::crc32c(&all));
        let snapshot = SnapshotName { at: to, id: SnapshotId(to.index.0), bytes, digest };
        let bytes = all.slice(from..all.len().min(from + PIECE_BYTES));
        let members = Some(self.members(self.known.changed(&self.known.committed, to.index.0)));
        let time = Timestamp(to.index.0);
        self.storage.stage(&Piece { snapshot, offset: from as u64, time, members, bytes });
    }

    /// Of all that is committed, if this node lacks it; or the cluster goes on without this node.
    fn begin_to_receive(&mut self) {
        let committed = self.known.committed.len() as u64;
        let lacks = self.storage.is_state_lost() || self.storage.hole().is_some();
        let is_needed = lacks || self.known.is_shut;
        if !is_needed || committed < self.storage.first().0 {
            if !is_needed && !self.draw.ratio(1, 12) {
                return;
            }
            let (term, news) = (self.new_term(), self.draw.between(1, 30));
            self.known.committed.resize((committed + news) as usize, term);
        }
        self.sent = Some(at(&self.known.committed, self.known.committed.len() as u64));
    }

    /// It is whole: what consensus makes of it.
    fn take(&mut self, to: LogId) {
        self.sent = None;
        let is_held = self.known.log.get(to.index.0 as usize - 1) == Some(&to.term);
        let hole = self.storage.hole().filter(|_| !self.storage.is_state_lost());
        let begins = self.storage.first().previous().0;
        let least = hole.map_or(begins, |hole| hole.index.0);
        let is_more = to.index.0 >= least.max(self.machine.applied.unwrap_or(0));
        if is_held && (self.storage.is_state_lost() || hole.is_some()) && is_more {
            self.storage.join(to);
            self.joining = Some(to);
        } else if is_held || to.index.0 <= self.known.agreed() {
            self.storage.discard_staged();
        } else {
            self.storage.install(to);
            self.known.installing = Some(to);
        }
    }
}
