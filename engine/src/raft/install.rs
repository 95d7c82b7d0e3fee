//! A snapshot on its way from a leader to a follower that lacks what the log no longer holds
//! (Raft §7).
//!
//! The receiver says which byte it waits for; the leader keeps a window ahead of what is on the
//! receiver's disk, and goes back when nothing moves. Staged beside everything else, it takes the
//! place of the receiver's log in one step. Knows no files. Invariant: a follower gives its log up
//! only for what is committed, and only if its log does not reach there itself.

use super::{
    Raft,
    progress::{Pace, Peer},
    role::{Follower, Leader, Role},
    waiting::{Behind, Waiting},
};
use crate::{
    action::Outcome,
    config::Tuning,
    marks::Mark,
    message::{Head, InstallAnswer, Message, Payload},
    types::{LogId, LogIndex, NodeId, Piece, SnapshotId, SnapshotName},
};
use std::time::Duration;

/// After so many heartbeats in which a peer got no further, what is kept for it is let go; it is
/// begun anew with the newest snapshot.
const STILL_MAX: u32 = 100;

/// For so many heartbeats a peer may be silent before what is on its way is sent again. A piece on a slow link
/// takes some, and what is sent behind it would only wait there.
const SILENT_MAX: u32 = 10;

/// So often that is doubled at most: before it is given up what is lost is sent again some times.
const DOUBLED_MAX: u32 = 2;

/// The leader's half: what is on its way to one peer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Transfer {
    /// Whether it is this peer's turn; those who wait are kept nothing.
    has_begun: bool,
    /// Known from the first piece on.
    snapshot: Option<SnapshotName>,
    /// The next byte to send.
    sent: u64,
    /// The next byte that the peer waits for.
    wanted: u64,
    /// The peer has room for a window behind this.
    stored: u64,
    /// Whether the peer gets further. Until then it is sent one piece: it may have most of the
    /// snapshot from an earlier attempt, or be busy finding out.
    is_open: bool,
    /// Whether a piece is being read.
    reading: bool,
    /// Whether the peer got further since the last heartbeat.
    has_moved: bool,
    /// Whether something came there, since it last got further, by which it did not: what it waits for is lost.
    has_missed: bool,
    /// Whether that was sent again: what was on its way before comes first, and says nothing new.
    is_repeated: bool,
    /// For how many heartbeats nothing was heard of what is on its way.
    silent: u32,
    /// How often so much silence was taken for a loss; the next may last twice as long.
    given_up: u32,
    /// For how many heartbeats it did not.
    still: u32,
    /// What follows the snapshot and is sent beside it.
    pub(super) behind: Behind,
}

impl Transfer {
    /// The snapshot's last entry, once it is known.
    pub(super) fn at(&self) -> Option<LogIndex> {
        self.snapshot.map(|snapshot| snapshot.at.index)
    }

    pub(super) const fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Whether it has begun, or may.
    pub(super) fn begins(&mut self, turns: &mut u32) -> bool {
        if !self.has_begun && *turns > 0 {
            *turns -= 1;
            self.has_begun = true;
        }
        self.has_begun
    }

    fn has_room(&self, window: u64) -> bool {
        let is_all = self.snapshot.is_some_and(|snapshot| self.sent >= snapshot.bytes);
        if !self.is_open {
            return !is_all && self.sent <= self.wanted;
        }
        !is_all && self.sent.saturating_sub(self.stored) < window.max(1)
    }

    /// Where the next piece to read begins, if one is to be read now.
    pub(super) fn next(&mut self, window: u64) -> Option<u64> {
        let is_due = !self.reading && self.has_room(window);
        is_due.then(|| {
            self.reading = true;
            self.sent
        })
    }

    /// A heartbeat has passed. What was sent and did not arrive is sent again: where the peer says that it
    /// waits for what came before, or says nothing for long. Where nothing is on its way because this leader
    /// may send no more, though the peer has room, it is not the peer that gets no further.
    pub(super) fn beat(&mut self, may_send: bool, window: u64) -> bool {
        if !self.has_begun {
            return false;
        }
        // There was none to read from.
        self.reading &= self.snapshot.is_some();
        let has_moved = std::mem::take(&mut self.has_moved);
        let is_on_its_way = self.sent > self.wanted;
        let is_held_back = !may_send && !is_on_its_way && !self.reading && self.has_room(window);
        self.still = if has_moved { 0 } else { self.still + u32::from(!is_held_back) };
        self.silent = if is_on_its_way { self.silent + 1 } else { 0 };
        let is_silent = self.silent > SILENT_MAX << self.given_up.min(DOUBLED_MAX);
        let is_missed = self.has_missed && !self.is_repeated;
        let is_stuck = is_on_its_way && (is_missed || is_silent);
        if is_stuck {
            self.silent = 0;
            self.is_repeated = true;
            self.given_up += u32::from(is_silent);
            (self.sent, self.is_open) = (self.wanted, false);
        }
        // The only piece of an empty state has no byte to be missed by: it is sent until the peer
        // says that it has it.
        self.snapshot = self.snapshot.filter(|snapshot| snapshot.bytes > 0);
        is_stuck
    }

    /// Whether the peer takes the snapshot in: it can let wait what follows it.
    pub(super) const fn is_taken_in(&self) -> bool {
        self.snapshot.is_some() && self.is_open
    }

    /// Whether its peer seems to get no further.
    pub(super) const fn is_in_vain(&self) -> bool {
        self.still > STILL_MAX
    }

    fn answered(&mut self, answer: &InstallAnswer) {
        let has_moved = answer.next > self.wanted;
        self.has_moved |= has_moved;
        // It also says when its disk has taken more.
        self.has_missed = !has_moved && (self.has_missed || answer.stored <= self.stored);
        self.is_repeated &= !has_moved;
        self.silent = 0;
        self.is_open |= has_moved;
        self.stored = answer.stored;
        self.wanted = answer.next;
        // It has kept what an earlier attempt brought.
        self.sent = self.sent.max(answer.next);
    }
}

/// How much more of snapshots may be sent before the next heartbeat; negative: as much too much.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance(i128);

impl Allowance {
    pub(super) fn new(tuning: &Tuning) -> Self {
        let mut allowance = Self(0);
        allowance.beat(tuning);
        allowance
    }

    /// What was not used is not saved up.
    pub(super) fn beat(&mut self, tuning: &Tuning) {
        let second = Duration::from_secs(1).as_nanos();
        let most = u128::from(tuning.transfer_bytes_per_second) * tuning.heartbeat.as_nanos();
        self.0 = match tuning.transfer_bytes_per_second {
            0 => i128::MAX,
            // At least a byte, or a slow limit would be a halt.
            _ => self.0.min(0) + (most / second).max(1) as i128,
        };
    }

    const fn spend(&mut self, bytes: usize) {
        self.0 -= bytes as i128;
    }

    pub(super) const fn is_left(self) -> bool {
        self.0 > 0
    }
}

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
        transfer.reading = false;
        if transfer.snapshot.is_some_and(|known| known != piece.snapshot) {
            // The one before turned out bad: this one begins from its beginning.
            return peer.begin_transfer();
        }
        if piece.offset != transfer.sent {
            return;
        }
        allowance.spend(piece.bytes.len());
        if transfer.snapshot.is_none() && peer.pace == Pace::Install {
            peer.next = piece.snapshot.at.index.next();
        }
        transfer.snapshot = Some(piece.snapshot);
        transfer.sent += piece.bytes.len() as u64;
        self.carried.sent += piece.bytes.len() as u64;
        self.send(id, Payload::Install(Piece { time, ..piece }));
    }

    pub(super) fn on_install_answer(&mut self, head: &Head, answer: InstallAnswer) {
        if head.term > self.term {
            return self.become_follower(head.term, None);
        }
        let current = head.term == self.term && head.answers == self.facts.write_epoch;
        let last = self.log.marks.last();
        let Role::Leader(leader) = &mut self.role else {
            return self.marks.set(Mark::StaleAnswerDropped);
        };
        let Some(peer) = leader.peer(head.from).filter(|_| current) else {
            return self.marks.set(Mark::StaleAnswerDropped);
        };
        if answer.snapshot.index > last {
            return self.fault(head.from, "has a snapshot that was never sent");
        }
        peer.heard = self.now;
        peer.has_answered = true;
        peer.paused = false;
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
        let is_this = transfer.snapshot.is_some_and(|snapshot| {
            (snapshot.at, snapshot.id) == (answer.snapshot, answer.id)
                && answer.next <= snapshot.bytes
        });
        if answer.done && peer.pace == Pace::Install {
            peer.probe(answer.snapshot.index.next());
        } else if answer.done {
            peer.useless = peer.useless.max(answer.snapshot.index);
            peer.transfer = None;
        } else if is_this {
            if answer.next > transfer.sent {
                self.marks.set(Mark::InstallResumed);
            }
            transfer.answered(&answer);
        }
    }

    /// What must be kept for peers that are being sent a snapshot.
    pub(crate) fn pins(&self) -> Pins {
        let mut pins = Pins::default();
        let Role::Leader(leader) = &self.role else { return pins };
        for Peer { id, transfer, .. } in &leader.peers {
            let Some(transfer) = transfer.filter(|transfer| transfer.has_begun) else { continue };
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
        } else if receiving.is_whole && at.index <= self.log.marks.committed() {
            // No correct leader sends that. What is committed stays.
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
        let Role::Follower(Follower { leader: Some(leader), leader_epoch, .. }) = &self.role else {
            self.receiver.owed = None;
            return;
        };
        let (leader, answers) = (*leader, *leader_epoch);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Term;
    use std::collections::VecDeque;

    fn limited(bytes_per_second: u64) -> (Allowance, Tuning) {
        let heartbeat = Duration::from_millis(100);
        let tuning =
            Tuning { transfer_bytes_per_second: bytes_per_second, heartbeat, ..Tuning::default() };
        (Allowance::new(&tuning), tuning)
    }

    #[test]
    fn without_a_limit_there_is_always_some_left() {
        let (mut allowance, tuning) = limited(0);
        for _ in 0..3 {
            allowance.spend(usize::MAX);
            assert!(allowance.is_left());
        }
        allowance.beat(&tuning);
        assert!(allowance.is_left());
    }

    #[test]
    fn what_is_spent_too_much_is_waited_for_and_what_is_not_spent_is_lost() {
        let (mut allowance, tuning) = limited(1000);
        allowance.beat(&tuning);
        allowance.spend(99);
        assert!(allowance.is_left(), "a hundred for each heartbeat");
        allowance.spend(1 + 200);
        for _ in 0..2 {
            assert!(!allowance.is_left());
            allowance.beat(&tuning);
        }
        assert!(!allowance.is_left(), "all of two heartbeats was spent before");
        allowance.beat(&tuning);
        assert!(allowance.is_left());
        let (slow, _) = limited(1);
        assert!(slow.is_left(), "a byte at least");
    }

    #[test]
    fn a_peer_that_may_be_sent_nothing_is_not_given_up() {
        let window = 1;
        let snapshot = Some(SnapshotName { bytes: 1, ..SnapshotName::default() });
        let mut transfer = Transfer { has_begun: true, ..Transfer::default() };
        for _ in 0..=STILL_MAX {
            transfer.beat(false, window);
        }
        assert!(!transfer.is_in_vain(), "nothing was sent that it could take");
        let mut unread = Transfer { reading: true, snapshot, ..transfer };
        let mut full = Transfer { is_open: true, sent: 1, wanted: 1, ..transfer };
        let mut is_all = Transfer { sent: 1, wanted: 1, snapshot, ..transfer };
        for still in [&mut unread, &mut full, &mut is_all] {
            for _ in 0..=STILL_MAX {
                still.beat(false, window);
            }
            assert!(still.is_in_vain(), "{still:?}");
        }
        for _ in 0..=STILL_MAX {
            transfer.beat(true, window);
        }
        assert!(transfer.is_in_vain(), "it could have been sent more");
    }

    /// There was no snapshot yet, or the one that was is bad: nobody says that there is nothing to read.
    #[test]
    fn a_first_piece_that_never_came_is_asked_for_again() {
        let mut transfer = Transfer { has_begun: true, ..Transfer::default() };
        assert_eq!(transfer.next(1), Some(0));
        assert_eq!(transfer.next(1), None, "one at a time");
        transfer.beat(true, 1);
        assert_eq!(transfer.next(1), Some(0));
    }

    /// One that was let go and asks anew waits like the others; one that has begun takes no turn again.
    #[test]
    fn a_transfer_takes_one_turn_if_there_is_one() {
        let (mut first, mut second, mut turns) = (Transfer::default(), Transfer::default(), 1);
        assert!(first.begins(&mut turns) && !second.begins(&mut turns));
        turns = 1;
        assert!(first.begins(&mut turns));
        assert!(second.begins(&mut turns) && turns == 0, "the turn was left");
    }

    /// Who is not known to take it in has no room for what follows.
    #[test]
    fn a_snapshot_is_taken_in_once_it_is_known_and_gets_further() {
        let snapshot = Some(SnapshotName::default());
        for (snapshot, is_open) in
            [(None, false), (None, true), (snapshot, false), (snapshot, true)]
        {
            let transfer = Transfer { snapshot, is_open, ..Transfer::default() };
            assert_eq!(transfer.is_taken_in(), snapshot.is_some() && is_open);
        }
    }

    /// What a link has carried, in bytes: all that was sent, and that by which the peer got further; and the
    /// most that waited before it. One piece in `lost` gets lost.
    fn carried(piece_ms: u64, lost: Option<u64>) -> [u64; 3] {
        let name = SnapshotName { bytes: 1 << 40, ..SnapshotName::default() };
        let mut transfer = Transfer { has_begun: true, ..Transfer::default() };
        let (mut link, mut next, mut sent, mut most) = (VecDeque::new(), 0, 0, 0);
        for ms in 1..=60_000 {
            if let Some(from) = transfer.next(WINDOW) {
                transfer.reading = false;
                (transfer.snapshot, transfer.sent) = (Some(name), from + PIECE);
                link.push_back(from);
                sent += PIECE;
                most = most.max(link.len() as u64 * PIECE);
            }
            let is_lost = lost.is_some_and(|lost| (ms / piece_ms).is_multiple_of(lost));
            if ms.is_multiple_of(piece_ms)
                && let Some(from) = link.pop_front().filter(|_| !is_lost)
            {
                next += if from == next { PIECE } else { 0 };
                let answer = InstallAnswer { next, stored: next, ..InstallAnswer::default() };
                transfer.answered(&answer);
            }
            if ms.is_multiple_of(100) {
                transfer.beat(true, WINDOW);
            }
        }
        [sent, next, most]
    }

    const PIECE: u64 = 256 << 10;
    const WINDOW: u64 = 16 << 20;

    /// Where a piece took longer than a heartbeat all that was on its way was sent again with each that came,
    /// and a gigabyte waited before the link.
    #[test]
    fn a_slow_link_is_given_a_window_and_nothing_twice() {
        for piece_ms in [1, 50, 90, 110, 150, 210, 500, 900] {
            let [sent, came, most] = carried(piece_ms, None);
            assert!(most <= WINDOW && sent <= came + WINDOW, "{piece_ms} ms: {sent} {came} {most}");
            assert!(came >= (60_000 / piece_ms - 1) * PIECE, "{piece_ms} ms: {came}");
        }
    }

    /// Each loss costs a window at most: who has sent it again lets what was on its way before come first.
    #[test]
    fn what_is_lost_is_sent_again_once_on_any_link() {
        for piece_ms in [1, 50, 110, 210] {
            for lost in [2, 20, 50] {
                let [sent, came, most] = carried(piece_ms, Some(lost));
                let told = format!("{piece_ms} ms, {lost}: {sent} {came} {most}");
                assert!(came > lost * PIECE, "it gets beyond the first: {told}");
                assert!(most <= WINDOW, "{told}");
            }
        }
    }

    #[test]
    fn one_piece_is_sent_until_the_peer_gets_further_and_then_a_window() {
        let (at, window) = (LogId::new(Term(1), LogIndex(7)), 30);
        let name = SnapshotName { at, bytes: 100, ..SnapshotName::default() };
        let mut transfer = Transfer { has_begun: true, ..Transfer::default() };
        let send = |transfer: &mut Transfer, most: usize| -> Vec<u64> {
            let mut pieces = Vec::new();
            while let Some(from) = transfer.next(window).filter(|_| pieces.len() < most) {
                pieces.push(from);
                assert_eq!(transfer.next(window), None, "one is being read");
                transfer.reading = false;
                (transfer.snapshot, transfer.sent) = (Some(name), from + 10);
            }
            pieces
        };
        assert_eq!(transfer.at(), None, "nothing is known of it");
        assert_eq!(send(&mut transfer, 1), [0]);
        assert_eq!(transfer.at(), Some(at.index));
        transfer.reading = false;
        assert_eq!(transfer.next(window), None, "it may have it all from before");
        let answer = |next, stored| InstallAnswer { next, stored, ..InstallAnswer::default() };
        transfer.answered(&answer(0, 0));
        assert_eq!(send(&mut transfer, 9), [], "it gets no further");
        transfer.answered(&answer(10, 10));
        assert!(transfer.is_taken_in());
        assert_eq!(send(&mut transfer, 9), [10, 20, 30]);
        transfer.answered(&answer(40, 20));
        assert_eq!(send(&mut transfer, 9), [40], "what is not stored yet takes up the window");
        transfer.answered(&answer(80, 80));
        assert_eq!(send(&mut transfer, 9), [80, 90], "that is all");
    }
}
