//! A snapshot on its way to one peer: what of it to send next, and what to send again.
//!
//! Knows neither log nor files. Invariant: a window at most is on the way, ahead of what the peer's disk has
//! taken, and nothing is sent again that may still arrive.

use super::{manners::Manners, waiting::Behind};
use crate::{
    message::InstallAnswer,
    types::{Instant, LogIndex, Piece, SnapshotName},
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
    manners: Manners,
    /// What follows the snapshot and is sent beside it.
    pub(super) behind: Behind,
}

impl Transfer {
    /// The snapshot's last entry, once it is known.
    pub(super) fn at(&self) -> Option<LogIndex> {
        self.snapshot.map(|snapshot| snapshot.at.index)
    }

    /// How many bytes of how many the peer has.
    pub(super) fn reached(&self) -> (u64, u64) {
        self.snapshot.map_or((0, 0), |snapshot| (self.wanted, snapshot.bytes))
    }

    pub(super) const fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// It begins, if there is a turn for it; whether it has begun.
    pub(super) fn begins(&mut self, turns: &mut u32) -> bool {
        let is_turn = *turns > 0 || cfg!(lakebed_break = "send_to_all_at_once");
        if !self.has_begun && is_turn {
            *turns = turns.saturating_sub(1);
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

    /// Where the next piece to read begins, if one is to be read now. Where others write it gives way to them.
    pub(super) fn next(&mut self, window: u64, gives_way: bool) -> Option<u64> {
        let rests = gives_way && self.rests_until().is_some();
        let is_due = !self.reading && !rests && self.has_room(window);
        is_due.then(|| {
            self.reading = true;
            self.sent
        })
    }

    /// A piece was read for it.
    pub(super) fn read(&mut self, piece: &Piece, now: Instant) -> Read {
        self.reading = false;
        if self.snapshot.is_some_and(|known| known != piece.snapshot) {
            return Read::Another;
        }
        if piece.offset != self.sent {
            return Read::Stale;
        }
        self.snapshot = Some(piece.snapshot);
        self.sent += piece.bytes.len() as u64;
        self.manners.sent(now);
        Read::Next
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
            self.manners.lost();
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

    /// Whether its peer got further since the last heartbeat.
    pub(super) const fn has_moved(&self) -> bool {
        self.has_moved
    }

    /// Whether its peer seems to get no further.
    pub(super) const fn is_in_vain(&self) -> bool {
        self.still > STILL_MAX
    }

    /// Lets the time go on.
    pub(super) fn pass(&mut self, now: Instant) {
        self.manners.pass(now);
    }

    /// How long it gives way to those who write.
    pub(super) const fn rests_until(&self) -> Option<Instant> {
        self.manners.rests_until()
    }

    /// All that was sent came there, if an answer says so: that was one of so many `turns` at one time.
    pub(super) fn rest(&mut self, turns: u32, most: Duration, now: Instant) {
        if self.wanted >= self.sent {
            self.manners.arrived(turns, most, now);
        }
    }

    /// Whether an answer speaks of this snapshot.
    pub(super) fn is_meant(&self, answer: &InstallAnswer) -> bool {
        self.snapshot.is_some_and(|snapshot| {
            (snapshot.at, snapshot.id) == (answer.snapshot, answer.id)
                && answer.next <= snapshot.bytes
        })
    }

    /// Takes note of one that does; true if the peer has kept what an earlier attempt brought.
    pub(super) fn answered(&mut self, answer: &InstallAnswer) -> bool {
        let has_moved = answer.next > self.wanted;
        self.has_moved |= has_moved;
        // It also says when its disk has taken more.
        self.has_missed = !has_moved && (self.has_missed || answer.stored <= self.stored);
        self.is_repeated &= !has_moved;
        self.silent = 0;
        self.is_open |= has_moved;
        self.stored = answer.stored;
        self.wanted = answer.next;
        let is_ahead = answer.next > self.sent;
        self.sent = self.sent.max(answer.next);
        is_ahead
    }
}

/// What a piece that was read is to a transfer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Read {
    /// It is sent.
    Next,
    /// Something else is to be sent by now.
    Stale,
    /// It is of another snapshot.
    Another,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{LogId, Term};
    use std::collections::VecDeque;

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
        assert_eq!(transfer.next(1, false), Some(0));
        assert_eq!(transfer.next(1, false), None, "one at a time");
        transfer.beat(true, 1);
        assert_eq!(transfer.next(1, false), Some(0));
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
            if let Some(from) = transfer.next(WINDOW, false) {
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
            while let Some(from) = transfer.next(window, false).filter(|_| pieces.len() < most) {
                pieces.push(from);
                assert_eq!(transfer.next(window, false), None, "one is being read");
                transfer.reading = false;
                (transfer.snapshot, transfer.sent) = (Some(name), from + 10);
            }
            pieces
        };
        assert_eq!(transfer.at(), None, "nothing is known of it");
        assert_eq!(send(&mut transfer, 1), [0]);
        assert_eq!(transfer.at(), Some(at.index));
        transfer.reading = false;
        assert_eq!(transfer.next(window, false), None, "it may have it all from before");
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

    #[test]
    fn so_many_heartbeats_in_vain_are_borne_and_no_more() {
        let snapshot = Some(SnapshotName { bytes: 100, ..SnapshotName::default() });
        let mut silent = Transfer { has_begun: true, snapshot, sent: 10, ..Transfer::default() };
        let mut still = silent;
        assert!((0..SILENT_MAX).all(|_| !silent.beat(true, 1)));
        assert!(silent.beat(true, 1), "it is sent again");
        for _ in 0..STILL_MAX {
            still.beat(true, 1);
        }
        assert!(!still.is_in_vain());
        still.beat(true, 1);
        assert!(still.is_in_vain());
    }

    /// A link may be slower still than it was taken for; but what is lost is sent again some times.
    #[test]
    fn who_is_silent_again_is_given_twice_the_time_and_in_the_end_four_times() {
        let snapshot = Some(SnapshotName { bytes: 100, ..SnapshotName::default() });
        let mut transfer = Transfer { has_begun: true, snapshot, ..Transfer::default() };
        for times in [1, 2, 4, 4] {
            transfer.sent = 10;
            assert!((0..SILENT_MAX * times).all(|_| !transfer.beat(true, 1)), "{times}");
            assert!(transfer.beat(true, 1), "{times}");
        }
    }

    /// Word that it lacks something may be of what was on its way behind that; until it gets further.
    #[test]
    fn what_a_peer_lacks_is_sent_again_once_until_it_gets_further() {
        let snapshot = Some(SnapshotName { bytes: 100, ..SnapshotName::default() });
        let mut transfer = Transfer { has_begun: true, snapshot, ..Transfer::default() };
        let mut repeats = |sent, next| {
            transfer.sent = sent;
            let kept = transfer.answered(&InstallAnswer {
                next,
                stored: next,
                ..InstallAnswer::default()
            });
            (kept, transfer.beat(true, 100))
        };
        assert_eq!(repeats(30, 0), (false, true));
        assert_eq!(repeats(30, 0), (false, false));
        assert_eq!(repeats(30, 10), (false, false), "it gets further");
        assert_eq!(repeats(40, 10), (false, true));
        assert_eq!(repeats(10, 50), (true, false), "an earlier attempt had brought more");
        assert!(!repeats(60, 60).0, "this one brought it");
    }

    /// It has no byte to be missed by.
    #[test]
    fn the_piece_of_an_empty_state_is_sent_until_it_is_there() {
        for (bytes, is_known) in [(0, false), (1, true)] {
            let snapshot = Some(SnapshotName { bytes, ..SnapshotName::default() });
            let mut transfer = Transfer { has_begun: true, snapshot, ..Transfer::default() };
            transfer.beat(true, 1);
            assert_eq!(transfer.at().is_some(), is_known);
        }
    }
}
