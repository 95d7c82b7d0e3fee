//! The leader's half of replication: feeds its peers, counts acknowledgements, commits (Raft §5.3,
//! §5.4.2).
//!
//! Knows no disk: it counts itself by what is durable, and asks for old entries by [`ReadWish`].
//! Invariant: only entries of the own term are committed by counting.

use super::{
    Raft,
    log::{Chunk, Log},
    progress::{Pace, Peer},
    role::Role,
    transfer::Transfer,
};
use crate::{
    config::Tuning,
    entry::frames,
    marks::{Mark, Marks},
    message::{Append, AppendAnswer, Conflict, Head, Message, Payload},
    storage::{ReadBack, Reader},
    types::{LogIndex, NodeId},
};
use bytes::Bytes;
use std::sync::Arc;

/// Entries wanted back from disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ReadWish {
    pub(crate) reader: Reader,
    pub(crate) from: LogIndex,
    pub(crate) to: LogIndex,
    pub(crate) bytes_max: u32,
}

/// What feeding needs beside the peer.
struct Feed<'a> {
    log: &'a Log,
    tuning: &'a Tuning,
    head: Head,
    round: u64,
    retain: LogIndex,
    gives_from: LogIndex,
    heartbeat: bool,
    /// The heartbeat says that nothing follows.
    rest: bool,
    notice: bool,
    /// How many more peers may read from disk.
    readers: u64,
    /// Whether more of a snapshot may be read now.
    may_transfer: bool,
    /// Somebody writes: a snapshot gives way.
    gives_way: bool,
    messages: &'a mut Vec<Message>,
    wishes: &'a mut Vec<ReadWish>,
    pieces: &'a mut Vec<(NodeId, u64)>,
    marks: &'a mut Marks,
}

impl Feed<'_> {
    fn peer(&mut self, peer: &mut Peer) {
        if peer.paused {
            return;
        }
        if peer.next < self.gives_from && peer.pace != Pace::Install {
            // What lies before cannot be given; the peer's answer tells where it is.
            peer.probe(self.gives_from);
        }
        let before = peer.sequence;
        match peer.pace {
            Pace::Probe { asked: false } => {
                peer.pace = Pace::Probe { asked: true };
                let last = self.log.marks.last();
                let bytes_max = self.tuning.append_bytes_max as usize;
                let chunk = self.log.gather(peer.next, last, bytes_max, bytes_max);
                self.append(peer, chunk.map(|chunk| chunk.frames).unwrap_or_default());
            }
            Pace::Probe { asked: true } => {}
            Pace::Replicate => self.stream(peer),
            Pace::Install => self.send_behind(peer),
        }
        self.install(peer);
        let (last, committed) = (self.log.marks.last(), self.log.marks.committed());
        let due = self.heartbeat
            || peer.is_due(self.round, last, committed)
            || (self.notice && peer.lacks_notice(committed));
        if due && peer.sequence == before {
            self.append(peer, Bytes::new());
        }
    }

    /// Asks for the next piece of the snapshot.
    fn install(&mut self, peer: &mut Peer) {
        let Some(transfer) = &mut peer.transfer else { return };
        let is_outrun = |at: LogIndex| at.next() < self.gives_from;
        if peer.pace == Pace::Install && transfer.at().is_some_and(is_outrun) {
            // Behind it nothing could go on. Where the next one leads to, the newest, its answer asks.
            self.marks.set(Mark::InstallOutrun);
            return peer.probe(self.gives_from);
        }
        if !transfer.has_begun() {
            return self.marks.set(Mark::InstallWaited);
        }
        let window = match self.gives_way {
            true => u64::from(self.tuning.append_bytes_max),
            false => self.tuning.inflight_bytes_max,
        };
        if self.may_transfer
            && let Some(from) = transfer.next(window, self.gives_way)
        {
            self.pieces.push((peer.id, from));
        }
    }

    /// Sends what follows the snapshot that is on its way: it waits there until that is in.
    fn send_behind(&mut self, peer: &mut Peer) {
        let append = u64::from(self.tuning.append_bytes_max);
        let (in_all, on_the_way) = (self.tuning.cache_bytes_max, self.tuning.inflight_bytes_max);
        while peer.next >= self.log.first() && peer.next <= self.log.marks.last() {
            let has_room = |transfer: &Transfer| {
                transfer.is_taken_in() && transfer.behind.has_room(append, in_all, on_the_way)
            };
            if !peer.transfer.as_ref().is_some_and(has_room) {
                return;
            }
            let Some(chunk) = self.chunk(peer, append) else { return };
            let bytes = chunk.frames.len();
            peer.fed = None;
            self.append(peer, chunk.frames);
            peer.next = chunk.last.next();
            let transfer = peer.transfer.as_mut().expect("it has room behind it");
            transfer.behind.sent(peer.sequence, bytes);
        }
    }

    /// Sends what the window has room for.
    fn stream(&mut self, peer: &mut Peer) {
        let last = self.log.marks.last();
        while peer.next <= last && peer.takes_entries(self.heartbeat) {
            let room = peer.room(self.tuning.inflight_bytes_max);
            let Some(chunk) = self.chunk(peer, room) else { return };
            let bytes = chunk.frames.len();
            if !peer.has_room(bytes, self.tuning.inflight_bytes_max) {
                self.marks.set(Mark::WindowFull);
                return;
            }
            peer.fed = None;
            self.append(peer, chunk.frames);
            peer.sent(chunk.last, bytes);
        }
    }

    /// The peer's next entries, from memory or as they were read back; else they are asked for.
    /// No more of them are joined than there is `room` for.
    fn chunk(&mut self, peer: &mut Peer, room: u64) -> Option<Chunk> {
        let bytes_max = self.tuning.append_bytes_max;
        // It may have been read for where the peer was to go on from before a snapshot was on its way, or
        // before it said what it has.
        let next = peer.next;
        peer.fed = peer.fed.take().filter(|chunk| chunk.first == next);
        if let Some(chunk) = &peer.fed {
            return Some(chunk.clone());
        }
        let last = self.log.marks.last();
        let chunk = self.log.gather(peer.next, last, bytes_max as usize, room as usize);
        let room = peer.has_room(bytes_max as usize, self.tuning.inflight_bytes_max);
        let (from, to) = (peer.next, self.log.marks.durable());
        if chunk.is_none() && from <= to && !peer.reading && self.readers > 0 && room {
            self.readers -= 1;
            peer.reading = true;
            self.wishes.push(ReadWish { reader: Reader::Peer(peer.id), from, to, bytes_max });
        }
        chunk
    }

    fn append(&mut self, peer: &mut Peer, frames: Bytes) {
        let prev = peer.next.max(self.log.first()).previous();
        let ask = self.heartbeat || peer.round_sent < self.round || peer.pace != Pace::Replicate;
        let prev = self.log.id_at(prev).expect("nothing before the log is asked for");
        peer.sequence += 1;
        peer.round_sent = self.round;
        peer.offers(self.rest);
        let committed = self.log.marks.committed();
        peer.commit_sent = committed;
        let (fates, fates_after) = peer.intake.tell();
        let append = Append {
            sequence: peer.sequence,
            round: self.round,
            ask,
            rest: self.rest,
            prev,
            commit: committed,
            retain: self.retain,
            session: peer.intake.session,
            fates,
            fates_after,
            frames,
        };
        let head = Head { to: peer.id, to_incarnation: peer.incarnation, ..self.head };
        self.messages.push(Message { head, payload: Payload::Append(append) });
    }
}

impl Raft {
    /// The last entries -> appends, as far as each peer's window allows.
    pub(crate) fn replicate(&mut self) {
        if !self.is_plain {
            self.begin_round();
        }
        let (last, committed) = (self.log.marks.last(), self.log.marks.committed());
        let round = self.reads.number();
        let Role::Leader(leader) = &mut self.role else { return self.send_forwards() };
        let notice = leader.is_notice_due(committed, self.now, self.tuning.commit_notice);
        if !notice && leader.is_idle(round, last, committed) {
            return;
        }
        let head = self.head_to(self.identity.node);
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.give_turns(self.tuning.transfers_max, |id| self.membership.is_voter(id)) {
            self.marks.set(Mark::InstallGaveWay);
        }
        let readers = self.tuning.catch_up_bytes_max / u64::from(self.tuning.append_bytes_max);
        let busy = leader.peers.iter().filter(|peer| peer.reading || peer.fed.is_some()).count();
        let mut feed = Feed {
            log: &self.log,
            tuning: &self.tuning,
            head,
            round,
            retain: leader.retain,
            gives_from: self.facts.gives_from,
            rest: leader.heartbeat_due && leader.quiet.is_offered,
            heartbeat: std::mem::take(&mut leader.heartbeat_due),
            notice,
            readers: readers.saturating_sub(busy as u64),
            gives_way: last > leader.committed_before,
            may_transfer: leader.allowance.wait(&self.tuning).is_none(),
            messages: &mut self.messages,
            wishes: &mut self.wishes,
            pieces: &mut self.pieces_wanted,
            marks: &mut self.marks,
        };
        leader.peers.iter_mut().for_each(|peer| feed.peer(peer));
    }

    pub(super) fn on_append_answer(&mut self, head: &Head, answer: &AppendAnswer) {
        if !answer.rests {
            self.wake();
        }
        let leads = matches!(self.role, Role::Leader(_));
        if leads && head.term > self.term {
            self.marks.set(Mark::SteppedDownTerm);
            return self.become_follower(head.term, None);
        }
        let last = self.log.marks.last();
        let current = head.term == self.term && head.answers == self.life();
        let Role::Leader(leader) = &mut self.role else {
            return self.marks.set(Mark::StaleAnswerDropped);
        };
        let Some(peer) = leader.peer(head.from).filter(|_| current) else {
            return self.marks.set(Mark::StaleAnswerDropped);
        };
        let is_beyond = |conflict: &Conflict| conflict.committed.max(conflict.through) > last;
        let beyond = answer.conflict.as_deref().is_some_and(is_beyond)
            || answer.sequence > peer.sequence
            || answer.round > self.reads.number();
        if answer.matched > last || answer.durable > answer.matched || beyond {
            return self.fault(head.from, "acknowledges what was never sent");
        }
        if peer.is_of_former_life(head.life, answer.sequence) {
            return self.marks.set(Mark::StaleAnswerDropped);
        }
        let is_set_back = peer.is_set_back(answer, |index| self.log.term_at(index));
        if let (true, Some(conflict)) = (answer.gated || is_set_back, &answer.conflict)
            && !cfg!(lakebed_break = "count_what_a_gated_node_has_lost")
        {
            // It has lost what it said it had. Where its log ends it may be another one's, that was cut once.
            let agreement = self.log.last_agreement(&conflict.runs, conflict.through);
            let shared = agreement.unwrap_or_default().max(conflict.committed);
            peer.matched = peer.matched.min(shared);
        }
        if is_set_back {
            peer.intake.set_back(head.life);
        }
        let needed = peer.matched.next();
        let rose = peer.answered(answer, self.now, self.tuning.inflight_bytes_max);
        peer.intake.arrived(head.life, answer.fates);
        if let Some(transfer) = &mut peer.transfer {
            transfer.behind.answered(answer.sequence);
        }
        self.is_plain &= answer.conflict.is_none();
        match &answer.conflict {
            Some(_) if answer.sequence < peer.probing_since => {
                self.marks.set(Mark::StaleAnswerDropped);
            }
            // A heartbeat, behind which the snapshot comes.
            Some(_) if peer.pace == Pace::Install => {}
            Some(_)
                if peer.next <= self.facts.gives_from
                    && self.facts.snapshot.next() >= self.facts.gives_from =>
            {
                self.marks.set(Mark::PeerNeedsSnapshot);
                peer.begin_install();
            }
            Some(conflict) => {
                let next = search(&self.log, peer.matched, conflict, &mut self.marks);
                let next = next.max(self.facts.gives_from);
                peer.refused(next);
            }
            None => {}
        }
        leader.retain = leader.retain.min(needed);
        leader.count_due |= rose;
        if rose {
            let held = leader.peers.iter().map(|peer| peer.matched).min().unwrap_or_default();
            // A leader that commits with others' disks may need the log from them itself.
            leader.retain = held.min(self.log.marks.durable()).next();
        }
        self.confirm_round();
        self.extend_lease();
        if is_set_back {
            self.marks.set(Mark::PeerSetBack);
            self.fault(
                head.from,
                "has lost what it acknowledged: was an old copy of its disk put back?",
            );
        }
    }

    /// The greatest index of the own term that a quorum holds durably is committed.
    pub(super) fn count(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        if !std::mem::take(&mut leader.count_due) {
            return;
        }
        let (own, durable) = (self.identity.node, self.log.marks.durable());
        let mut members = Arc::clone(&self.membership);
        if cfg!(lakebed_break = "count_only_the_new_majority") {
            members = Arc::new(members.settled());
        }
        let held = members.quorum_index(|id| {
            if id == own {
                durable
            } else {
                let peer = leader.peers.iter().find(|peer| peer.id == id);
                peer.map_or(LogIndex(0), |peer| peer.matched)
            }
        });
        let lags = |peer: &Peer| peer.matched < held;
        if cfg!(lakebed_break = "commit_by_all") && leader.peers.iter().any(lags) {
            return;
        }
        if held <= self.log.marks.committed() {
            return;
        }
        if held < leader.start && !cfg!(lakebed_break = "count_older_terms") {
            // Figure 8: a quorum may hold it, and a later leader still cut it.
            return self.marks.set(Mark::OlderTermNotCounted);
        }
        self.log.marks.advance_committed(held);
    }

    /// What was read back from disk goes to whom it is for.
    pub(crate) fn on_read_back(&mut self, reader: Reader, back: ReadBack) {
        self.stray();
        let chunk = Chunk { first: back.first, last: back.last, frames: back.frames };
        // Read before a cut, delivered after it: these are another leader's entries. Equal term
        // at the last index means that all are ours.
        let last = frames(&chunk.frames).last().map(|entry| entry.id);
        let ours = last.is_some_and(|last| self.log.id_at(last.index) == Some(last));
        match reader {
            Reader::Scrub => unreachable!("the storage keeps what was read for nobody"),
            Reader::Machine => {
                self.applying.reading = false;
                if ours && chunk.first == self.log.marks.applying().next() {
                    self.marks.set(Mark::MachineFedFromDisk);
                    self.applying.fed = Some(chunk);
                }
            }
            Reader::Refill(id) if chunk.frames.is_empty() => self.give_nothing(id, chunk.first),
            Reader::Refill(id) => {
                if ours {
                    self.give(id, chunk);
                }
            }
            Reader::Peer(id) => {
                let Role::Leader(leader) = &mut self.role else { return };
                let Some(peer) = leader.peer(id) else { return };
                peer.reading = false;
                if ours && !matches!(peer.pace, Pace::Probe { .. }) && chunk.first == peer.next {
                    self.marks.set(Mark::PeerFedFromDisk);
                    peer.fed = Some(chunk);
                }
            }
        }
    }

    pub(crate) fn on_link(&mut self, peer: NodeId, up: bool) {
        self.stray();
        self.linked.retain(|linked| *linked != peer);
        self.unlinked.retain(|unlinked| *unlinked != peer);
        if up { &mut self.linked } else { &mut self.unlinked }.push(peer);
        // Only whether a leader is gone is ever asked, and ids are used once.
        let (leader, [now, before]) = (self.leader(), [&self.membership, &self.previous]);
        self.unlinked.retain(|&id| {
            let is_member = now.member(id).is_some() || before.member(id).is_some();
            is_member || leader == Some(id)
        });
        self.on_rest_link(peer, up);
        match &mut self.role {
            Role::Leader(leader) => {
                let Some(peer) = leader.peer(peer) else { return };
                if !up && !peer.paused {
                    self.marks.set(Mark::PeerPaused);
                    peer.probe(peer.matched.next());
                }
                if up && peer.paused {
                    peer.pace = Pace::Probe { asked: false };
                }
                peer.paused = !up;
            }
            Role::Follower(follower) if !up && follower.leader == Some(peer) => {
                self.lose_forwards();
            }
            Role::Forming(forming) if up => forming.greet_at = self.now,
            _ => {}
        }
    }
}

/// Where to probe next: just behind the last entry that both logs are known to share.
fn search(log: &Log, matched: LogIndex, conflict: &Conflict, marks: &mut Marks) -> LogIndex {
    let shared = conflict.committed.max(matched);
    let agreement = log.last_agreement(&conflict.runs, conflict.through).unwrap_or_else(|| {
        // Nothing in the newest runs: halve what is left, so that any log takes O(log n) probes.
        marks.set(Mark::DivergenceBisected);
        let unknown = conflict.runs.first().map_or(shared, |run| run.0.previous());
        LogIndex(shared.0 + unknown.0.saturating_sub(shared.0) / 2)
    });
    // Its runs may begin anywhere: a log that was cut off in the middle, or what a peer gone wrong says.
    let last = log.marks.last();
    agreement.max(shared).min(last).next().max(log.first())
}
