//! A snapshot on its way from a leader to a follower that lacks what the log no longer holds
//! (Raft §7).
//!
//! The receiver says which byte it waits for; the leader keeps a window ahead of what is on the
//! receiver's disk ([`transfer`](super::transfer)). Staged beside everything else, it takes the
//! place of the receiver's log in one step. Knows no files. Invariant: a follower gives its log up
//! only for what is committed, and only if its log does not reach there itself.

use super::{
    Raft,
    progress::{Pace, Peer},
    role::{Follower, Leader, Role},
    transfer::{Read, Transfer},
    waiting::Waiting,
};
use crate::{
    action::Outcome,
    marks::Mark,
    message::{Head, InstallAnswer, Message, Payload},
    types::{LogId, LogIndex, NodeId, Piece, SnapshotId, SnapshotName},
};

/// What a storage must keep for peers on their way.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Pins {
    /// Who is being sent a snapshot.
    pub(crate) peers: Vec<NodeId>,
    /// The log from here on follows what they are being sent.
    pub(crate) from: Option<LogIndex>,
}

/// The receiver's half.
#[derive(Clone, Debug, Default)]
pub(super) struct Receiver {
    /// What the leader sends, if an answer is due.
    owed: Option<InstallAnswer>,
    /// The last that was said of the room behind what came.
    told: u64,
    /// The snapshot that is taking the place of the log.
    pub(super) taking: Option<LogId>,
    /// One is taking the place of the state that was lost.
    joining: Option<LogIndex>,
    /// What came behind the snapshot before it was in.
    pub(super) waiting: Waiting,
}

impl Receiver {
    /// Whether nothing comes, and nothing is owed for what came.
    pub(super) fn is_idle(&self) -> bool {
        self.owed.is_none()
            && self.taking.is_none()
            && self.joining.is_none()
            && self.waiting.is_empty()
    }
}

/// Bytes of snapshots, for people: what is sent again counts again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Carried {
    pub(super) sent: u64,
    pub(super) received: u64,
}

impl Raft {
    // ---- leader ------------------------------------------------------------------------------

    /// A piece was read: it goes to whom it is for.
    pub(crate) fn on_piece_read(&mut self, peer: NodeId, piece: Piece) {
        self.stray();
        let time = self.log.last_time();
        let Role::Leader(leader) = &mut self.role else { return };
        let Leader { peers, allowance, .. } = &mut **leader;
        let Some(peer) = peers.iter_mut().find(|known| known.id == peer) else { return };
        let (id, Some(transfer)) = (peer.id, &mut peer.transfer) else { return };
        if !transfer.has_begun() {
            // It was read before its turn was given to another.
            return;
        }
        let is_first = transfer.at().is_none();
        match transfer.read(&piece, self.now) {
            Read::Next => {}
            Read::Stale => return,
            // The one before turned out bad: this one begins from its beginning.
            Read::Another => return peer.begin_transfer(),
        }
        allowance.spend(piece.bytes.len(), &self.tuning, self.now);
        if is_first && peer.pace == Pace::Install {
            peer.next = piece.snapshot.at.index.next();
        }
        self.carried.sent += piece.bytes.len() as u64;
        self.send(id, Payload::Install(Piece { time, ..piece }));
    }

    pub(super) fn on_install_answer(&mut self, head: &Head, answer: InstallAnswer) {
        if head.term > self.term {
            return self.become_follower(head.term, None);
        }
        let current = head.term == self.term && head.answers == self.life();
        let last = self.log.marks.last();
        let Role::Leader(leader) = &mut self.role else {
            return self.marks.set(Mark::StaleAnswerDropped);
        };
        let transfers = leader.peers.iter().filter_map(|peer| peer.transfer.as_ref());
        let turns = transfers.filter(|transfer| transfer.has_begun()).count() as u32;
        let Some(peer) = leader.peer(head.from).filter(|_| current) else {
            return self.marks.set(Mark::StaleAnswerDropped);
        };
        if answer.snapshot.index > last {
            return self.fault(head.from, "has a snapshot that was never sent");
        }
        peer.heard = self.now;
        peer.has_answered = true;
        peer.paused = false;
        peer.lacks_state = !answer.done && (peer.lacks_state || answer.snapshot == LogId::ZERO);
        if answer.snapshot == LogId::ZERO && peer.transfer.is_none() {
            let newest = self.facts.newest;
            if newest <= peer.useless && newest < self.log.marks.applying() {
                // What there is it had no use for, or there is none.
                leader.wanted_beyond = Some(newest);
                return;
            }
            // It has a log, and no state to go on from. It is sent both.
            peer.transfer = Some(Transfer::default());
            return;
        }
        let Some(transfer) = &mut peer.transfer else { return };
        if answer.done && peer.pace == Pace::Install {
            peer.probe(answer.snapshot.index.next());
        } else if answer.done {
            peer.useless = peer.useless.max(answer.snapshot.index);
            peer.transfer = None;
        } else if transfer.is_meant(&answer) {
            if transfer.answered(&answer) {
                self.marks.set(Mark::InstallResumed);
            }
            transfer.rest(turns, self.tuning.heartbeat, self.now);
        }
    }

    /// What must be kept for peers that are being sent a snapshot.
    pub(crate) fn pins(&self) -> Pins {
        let mut pins = Pins::default();
        let Role::Leader(leader) = &self.role else { return pins };
        for Peer { id, transfer, .. } in &leader.peers {
            let Some(transfer) = transfer.filter(Transfer::has_begun) else { continue };
            pins.peers.push(*id);
            let from = transfer.at().map(LogIndex::next);
            pins.from = pins.from.into_iter().chain(from).min();
        }
        pins
    }

    /// Whether `pins` may say something new.
    pub(crate) fn is_installing_others(&self) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        leader.peers.iter().any(|peer| peer.transfer.is_some())
    }

    // ---- receiver ----------------------------------------------------------------------------

    pub(super) fn on_piece(&mut self, head: &Head, piece: Piece) {
        if head.term < self.term {
            self.marks.set(Mark::StaleTermAnswered);
            return self.owe(head.from, Payload::AppendAnswer(Default::default()));
        }
        let SnapshotName { at, id, bytes, .. } = piece.snapshot;
        let end = piece.offset.checked_add(piece.bytes.len() as u64);
        if at.term > head.term || at.index == LogIndex(0) || end.is_none_or(|end| end > bytes) {
            return self.fault(head.from, "a piece of no snapshot there can be");
        }
        if let Err(fault) = self.judge_leader(head) {
            return self.fault(head.from, fault);
        }
        let known = self.known_in(head.term);
        if known > self.log.marks.committed() && !self.agrees(at, known) {
            return self.fault(head.from, "a snapshot of another entry than it sent in this term");
        }
        self.follow_leader(head);
        self.carried.received += piece.bytes.len() as u64;
        self.log.let_time_pass(piece.time);
        let done = self.reaches(at);
        self.receiver.owed = Some(InstallAnswer { snapshot: at, id, next: 0, stored: 0, done });
        if !done && self.receiver.taking.is_none() && self.receiver.joining.is_none() {
            self.pieces.push(piece);
        }
    }

    /// Whether log or state reach there already.
    pub(super) fn reaches(&self, at: LogId) -> bool {
        if cfg!(lakebed_break = "install_over_a_log_that_reaches_there") {
            return false;
        }
        if self.lacks_state() {
            // What it reaches it has no state for, unless the log goes on from before. A machine is
            // never given less than it held.
            let begins = self.log.first().previous();
            let missing = self.facts.hole.filter(|_| !self.facts.is_state_lost);
            let least = missing.map_or(begins, |hole| hole.index);
            return at.index < least.max(self.log.marks.applying());
        }
        at.index <= self.log.marks.committed() || self.log.term_at(at.index) == Some(at.term)
    }

    /// Whether a snapshot is to stand before the log: the machine will be what it holds, and goes no
    /// further meanwhile, though what it waited for may come from a peer.
    pub(super) const fn is_joining(&self) -> bool {
        self.receiver.joining.is_some()
    }

    /// A leader is there to be asked for the state that was lost. What came so far may be of another
    /// leader's: only one who is asked knows of it, for the log alone shows nothing.
    pub(super) fn ask_for_snapshot(&mut self) {
        let is_whole = self.facts.receiving.is_some_and(|receiving| receiving.is_whole);
        let is_taking =
            is_whole || self.receiver.taking.is_some() || self.receiver.joining.is_some();
        if self.lacks_state() && !is_taking && self.receiver.owed.is_none() {
            self.receiver.owed = Some(InstallAnswer::default());
        }
    }

    /// A snapshot that came whole takes the place of the log; or is not needed any more.
    pub(crate) fn install(&mut self) {
        if self.is_plain {
            return;
        }
        self.take_what_waited();
        // Else nothing would be received any more.
        self.receiver.joining.take_if(|at| *at <= self.facts.newest);
        let Some(receiving) = self.facts.receiving else { return };
        let at = receiving.snapshot.at;
        if self.receiver.taking.is_some() || self.is_joining() || self.discards {
            return;
        }
        if self.reaches(at) {
            if receiving.is_whole {
                self.marks.set(Mark::InstallNotNeeded);
            }
            self.discards = true;
        } else if receiving.is_whole && self.log.term_at(at.index) == Some(at.term) {
            // Only the state before it was lost. What a snapshot holds was committed, and equal
            // terms at one index mean equal logs up to there.
            let committed = self.log.marks.committed().max(at.index);
            self.log.marks.advance_committed(committed);
            self.log.join(at);
            self.receiver.joining = Some(at.index);
        } else if receiving.is_whole && at.index <= self.known() {
            // No correct leader sends that. What is committed stays, and what may be at any time.
            self.discards = true;
        } else if receiving.is_whole && matches!(self.role, Role::Follower(_)) {
            if self.log.marks.last() >= at.index {
                self.marks.set(Mark::InstallTookEntries);
            }
            self.log.end_before(at);
            self.receiver.taking = Some(at);
        }
    }

    /// It has taken the place of the log, and the disk says so.
    pub(super) fn on_installed(&mut self, at: LogId) -> bool {
        if self.receiver.taking.take_if(|taking| *taking == at).is_none() {
            return false;
        }
        self.log.replace(at);
        self.applying.begin_anew();
        // What became of them is in the snapshot, and nowhere else.
        while let Some(lost) = self.tracking.pop_through(at.index) {
            self.marks.set(Mark::ProposalUnknown);
            self.end_runs(&lost.runs, &Outcome::Unknown);
        }
        if let Role::Follower(follower) = &mut self.role {
            let Follower { matched, committed, conflict, owes, .. } = follower;
            (*matched, *committed) = ((*matched).max(at.index), (*committed).max(at.index));
            (*conflict, *owes) = (None, true);
        }
        let id = SnapshotId(0);
        self.receiver.owed =
            Some(InstallAnswer { snapshot: at, id, next: 0, stored: 0, done: true });
        true
    }

    /// Says how far the snapshot is, when the leader wants to know or there is room again.
    pub(super) fn acknowledge_install(&mut self) {
        let receiving = self.facts.receiving;
        let has_room = receiving.is_some_and(|receiving| receiving.stored != self.receiver.told);
        if self.receiver.owed.is_none() && !has_room {
            return;
        }
        let Role::Follower(Follower { leader: Some(leader), leader_life, .. }) = &self.role else {
            self.receiver.owed = None;
            return;
        };
        let (leader, answers) = (*leader, *leader_life);
        let mut answer = match (self.receiver.owed.take(), receiving) {
            (Some(owed), _) => owed,
            (None, Some(receiving)) => InstallAnswer {
                snapshot: receiving.snapshot.at,
                id: receiving.snapshot.id,
                ..InstallAnswer::default()
            },
            (None, None) => return,
        };
        if let Some(receiving) = receiving
            && (receiving.snapshot.at, receiving.snapshot.id) == (answer.snapshot, answer.id)
        {
            (answer.next, answer.stored) = (receiving.next, receiving.stored);
            self.receiver.told = receiving.stored;
        }
        let head = Head { answers, ..self.head_to(leader) };
        self.messages.push(Message { head, payload: Payload::InstallAnswer(answer) });
    }
}
