//! Consensus alone: terms, votes, the log's identities and watermarks, reads and forwarding.
//!
//! Knows no files and no bytes of messages. Of the [treaty](crate::storage) it takes plain values;
//! what it wants stored it leaves to be fetched, and what is stored it is told as [`Facts`].
//! Handlers (`on_*`) record; the steps of the facade's `settle` act. Invariant: nothing that it
//! says to others rests on something its own disk does not hold.

mod allowance;
mod apply;
mod change;
mod election;
mod epoch;
mod fetched;
mod following;
mod formation;
mod former;
mod forwarding;
mod gate;
mod handover;
mod install;
mod lease;
mod log;
mod manners;
mod plain;
mod progress;
mod proposal;
mod read;
mod refill;
mod replication;
mod rest;
mod role;
#[cfg(test)]
mod tests;
mod transfer;
mod waiting;

pub(crate) use install::Pins;
pub(crate) use log::Change;
pub(crate) use replication::ReadWish;

use crate::{
    action::{Action, Halt, Note, Outcome},
    backup::Origin,
    config::Tuning,
    entry::{self, Seed},
    marks::{Mark, Marks},
    membership::Membership,
    message::{Head, Life, Message, Payload},
    status::Tally,
    storage::{Identity, Receiving, Recovered},
    types::{Instant, LogId, LogIndex, NodeId, Piece, Requests, Term},
    wall::WallClock,
};
use apply::Applying;
use change::Surroundings;
use formation::{Forming, has_formed};
use forwarding::Forwards;
use gate::Gate;
use handover::Handover;
use install::{Carried, Receiver};
use log::Log;
use proposal::{Gathering, Tracking};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use read::Reads;
use refill::Refill;
use role::{Follower, Role};
use std::{sync::Arc, time::Duration};

/// The most answers that wait for the hard state; a peer that asks more often is not answered.
const OWED_MAX: usize = 256;
/// Terms and indexes rise one by one: a greater one is made up, and the next would overflow.
const NUMBER_MAX: u64 = 1 << 62;

/// What the disk has reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) durable: LogIndex,
    /// Term and vote that survive any crash.
    pub(crate) promised: (Term, Option<NodeId>),
    pub(crate) write_epoch: u64,
    /// The newest durable snapshot's index, or what the log began behind when one was whole.
    pub(crate) snapshot: LogIndex,
    /// The newest snapshot's index that is whole, as far as is known.
    pub(crate) newest: LogIndex,
    /// The first index still in the log.
    pub(crate) first: LogIndex,
    /// The first index from which on each entry up to the newest snapshot can be read.
    pub(crate) gives_from: LogIndex,
    /// Where the machine stands by itself, once it does.
    pub(crate) restored: Option<LogId>,
    /// Whether new entries would have to wait for a write of their own.
    pub(crate) saturated: bool,
    /// Whether there is no room for more log.
    pub(crate) full: bool,
    /// How often the disk was asked for some and had none, since it had.
    pub(crate) sought_room: u32,
    /// Whether there is none, and the disk was asked for some and has not answered yet.
    pub(crate) seeks_room: bool,
    /// The snapshot that a peer sends.
    pub(crate) receiving: Option<Receiving>,
    /// The log does not go on from any snapshot: a peer must send one.
    pub(crate) is_state_lost: bool,
    /// The last snapshot from a peer that took the place of the log.
    pub(crate) installed: Option<LogId>,
    /// The first entry of which this disk has lost all but the name.
    pub(crate) hole: Option<LogId>,
    /// No copy of it is taken before others are written that peers gave.
    pub(crate) is_crowded: bool,
    /// Whether for want of such an entry what lies behind it is not durable.
    pub(crate) owes_entries: bool,
}

/// What a node takes part under.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting<'a> {
    pub(crate) tuning: &'a Tuning,
    /// The largest entry that the storage takes, in bytes.
    pub(crate) entry_bytes_max: u64,
    /// The machine keeps its own state, so it must not get ahead of this disk.
    pub(crate) keeps_state: bool,
    /// What the driver told before.
    pub(crate) wall: WallClock,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Raft {
    identity: Identity,
    seed: Seed,
    tuning: Tuning,
    /// What its lives are told apart by whose write epochs are the same.
    drawn: u16,
    rng: ChaCha8Rng,
    now: Instant,
    /// What the entries that it makes are dated by.
    wall: WallClock,
    /// The time of the last entry, as it goes on while this node leads.
    pace: WallClock,
    /// When this engine began to take part: what it heard before, it forgot.
    started: Instant,
    /// When a leader was last heard from, or the present wait for one began.
    contact: Instant,
    /// How long the present wait lasts.
    patience: Duration,
    /// When the machine was last given entries.
    handed_out: Instant,
    facts: Facts,

    term: Term,
    vote: Option<NodeId>,
    role: Role,
    /// Numbers the canvasses.
    rounds: u64,
    log: Log,
    /// In force, and the one before it.
    membership: Arc<Membership>,
    previous: Arc<Membership>,
    /// In force, as the disk has it.
    recorded: Arc<Membership>,
    /// What it was made from, if it had not met all others when this life began.
    origin: Origin,
    /// All members but this node, with their incarnations.
    peers: Vec<(NodeId, u64)>,
    around: Surroundings,
    /// To whom there is a connection, as far as was said.
    linked: Vec<NodeId>,
    /// To whom it was said to be closed last, of those who are members, or lead.
    unlinked: Vec<NodeId>,
    /// The largest entry that the storage takes.
    entry_bytes_max: u64,
    /// The smallest index that any member may need from another's log.
    retain: LogIndex,

    gathering: Gathering,
    tracking: Tracking,
    forwards: Forwards,
    reads: Reads,
    applying: Applying,
    receiver: Receiver,
    carried: Carried,
    /// What it may have forgotten keeps it from voting.
    gate: Option<Gate>,
    gate_opened: bool,
    /// It refused a ballot as its own log is longer, and knows of no leader since.
    is_ahead: bool,
    refill: Option<Refill>,
    handover: Option<Handover>,
    /// What became of transfers and of changes in this life.
    transfers: Tally,
    changes: Tally,

    /// Answers that leave once the disk holds term and vote.
    owed: Vec<Message>,
    promise_wanted: bool,
    /// It has met all others, which the disk is to know.
    has_formed: bool,
    membership_wanted: bool,
    /// Another cluster epoch, which the disk is to name.
    epoch_wanted: bool,
    wishes: Vec<ReadWish>,
    /// Pieces of snapshots: those that came, and those to be read for peers.
    pieces: Vec<Piece>,
    pieces_wanted: Vec<(NodeId, u64)>,
    /// What is being received is not needed.
    discards: bool,
    messages: Vec<Message>,
    actions: Vec<Action>,
    halt: Option<Halt>,
    noted: (Option<NodeId>, Term),
    /// Nothing is under way here but replication.
    is_plain: bool,
    marks: Marks,
    /// Heads of the append at hand.
    heads: Vec<entry::Head>,
}

impl Raft {
    /// Takes part from here on.
    pub(crate) fn new(
        recovered: &Recovered,
        setting: Setting<'_>,
        seed: u64,
        now: Instant,
    ) -> Self {
        let Setting { tuning, entry_bytes_max, keeps_state, wall } = setting;
        let log = Log::new(recovered);
        let members = &recovered.membership;
        let role = Role::Follower(Follower::new(None, &log.marks));
        let mut raft = Self {
            identity: recovered.identity,
            seed: recovered.seed,
            tuning: tuning.clone(),
            drawn: seed as u16,
            rng: ChaCha8Rng::seed_from_u64(seed),
            now,
            wall,
            pace: WallClock::UNKNOWN,
            started: now,
            contact: now,
            handed_out: now,
            patience: Duration::ZERO,
            facts: Facts { write_epoch: recovered.write_epoch, ..Facts::default() },
            term: recovered.term,
            vote: recovered.vote,
            role,
            rounds: 0,
            log,
            membership: Arc::clone(members),
            previous: Arc::clone(&recovered.previous),
            recorded: Arc::clone(members),
            origin: recovered.origin,
            peers: Vec::new(),
            around: Surroundings::default(),
            linked: Vec::new(),
            unlinked: Vec::new(),
            entry_bytes_max,
            retain: LogIndex(0),
            gathering: Gathering::default(),
            tracking: Tracking::default(),
            forwards: Forwards::new(Life::new(recovered.write_epoch, seed as u16)),
            reads: Reads::default(),
            applying: Applying::new(keeps_state),
            receiver: Receiver::default(),
            carried: Carried::default(),
            gate: recovered.gate.map(Gate::new),
            gate_opened: false,
            is_ahead: false,
            refill: None,
            handover: None,
            transfers: Tally::default(),
            changes: Tally::default(),
            owed: Vec::new(),
            promise_wanted: false,
            has_formed: false,
            membership_wanted: false,
            epoch_wanted: false,
            wishes: Vec::new(),
            pieces: Vec::new(),
            pieces_wanted: Vec::new(),
            discards: false,
            messages: Vec::new(),
            actions: if cfg!(lakebed_break = "name_nobody_at_a_restart") {
                Vec::new()
            } else {
                vec![Action::Members(Arc::clone(members))]
            },
            halt: None,
            noted: (None, recovered.term),
            is_plain: false,
            marks: Marks::default(),
            heads: Vec::new(),
        };
        raft.know_peers();
        raft.know_settled();
        raft.begin(recovered);
        raft
    }

    fn begin(&mut self, recovered: &Recovered) {
        let (own, incarnation) = (self.identity.node, self.identity.incarnation);
        let has_history = recovered.term > Term(0) || recovered.last.index > LogIndex(0);
        let is_made = !self.origin.is_nothing();
        if is_made || !has_formed(&self.membership, own, has_history) {
            self.role = Role::Forming(Forming::new(self.now));
            if self.membership.member(own).is_some_and(|member| member.incarnation == 0) {
                self.record(own, incarnation);
            }
        }
        self.await_first_leader();
    }

    pub(crate) fn await_first_leader(&mut self) {
        self.await_leader();
        if self.membership.is_sole_voter(self.identity.node) {
            // Nobody else could lead: there is nothing to wait for.
            self.patience = Duration::ZERO;
        }
    }

    fn know_peers(&mut self) {
        let own = self.identity.node;
        self.peers.clear();
        let others = self.membership.members().filter(|member| member.id != own);
        self.peers.extend(others.map(|member| (member.id, member.incarnation)));
    }

    // ---- facts -------------------------------------------------------------------------------

    /// Time goes on; one that goes back is no time passed.
    pub(crate) fn on_time(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    pub(crate) fn on_tune(&mut self, tuning: &Tuning) {
        self.stray();
        let before = std::mem::replace(&mut self.tuning, tuning.clone());
        let times = |of: &Tuning| (of.heartbeat, of.election, of.election_delay);
        if times(&before) != times(tuning) && !cfg!(lakebed_break = "wait_as_before") {
            self.reckon_anew();
        }
        self.on_tune_rest(before.hibernate_after);
    }

    /// What the disk has reached. The log's changes must have been handed to the storage before:
    /// else it could speak of entries that were cut a moment ago.
    /// True if a snapshot has taken the place of the log just now: its members are in force.
    pub(crate) fn observe(&mut self, facts: Facts) -> bool {
        debug_assert!(self.log.changes().is_empty(), "the storage does not know the log yet");
        self.is_plain &= self.facts.differs_in_log_alone(facts);
        self.facts = facts;
        self.observe_hole(facts.hole);
        let is_installed = facts.installed.is_some_and(|at| self.on_installed(at));
        self.observe_log(facts.durable, facts.saturated);
        self.restore(facts.restored);
        self.log.compacted(facts.first);
        is_installed
    }

    /// Of what the disk has reached, that which every write changes.
    pub(crate) fn observe_log(&mut self, durable: LogIndex, saturated: bool) {
        (self.facts.durable, self.facts.saturated) = (durable, saturated);
        if durable > self.log.marks.durable() {
            self.log.advance_durable(durable);
            if let Role::Leader(leader) = &mut self.role {
                leader.count_due = true;
            }
        }
    }

    /// A message from the node on the other end of a connection.
    pub(crate) fn on_message(&mut self, from: NodeId, message: Message) {
        let Message { head, payload } = message;
        if !self.admit(from, &head, &payload) {
            return self.stray();
        }
        // A node that is no member may ask for ever whether it is one: that wakes nobody.
        let is_member = self.peers.iter().any(|peer| peer.0 == from);
        let is_strangers = matches!(payload, Payload::Hello { .. }) && !is_member;
        if !matches!(payload, Payload::Append(_) | Payload::AppendAnswer(_)) {
            self.stray();
            if !is_strangers {
                self.stir();
            }
        }
        match payload {
            Payload::Hello { ask, origin } => self.on_hello(&head, ask, origin),
            Payload::FormedWithoutYou => self.on_formed_without_you(&head),
            Payload::Removed { .. } => self.on_removed(&head),
            Payload::Members(members) => self.on_members(&members),
            _ if self.is_forming() => {}
            Payload::PreVote(ballot) => self.on_ballot(&head, ballot, true),
            Payload::PreVoteAnswer(verdict) => self.on_verdict(&head, verdict, true),
            Payload::TimeoutNow => self.on_timeout_now(&head),
            Payload::Vote(ballot) => self.on_ballot(&head, ballot, false),
            Payload::VoteAnswer(verdict) => self.on_verdict(&head, verdict, false),
            Payload::Append(append) => self.on_append(&head, append),
            Payload::AppendAnswer(answer) => self.on_append_answer(&head, &answer),
            Payload::ReadIndex { round } => self.on_read_index(&head, round),
            Payload::ReadIndexAnswer { round, index } => {
                self.on_read_index_answer(&head, round, index);
            }
            Payload::Forward(forward) => self.on_forward(&head, forward),
            Payload::Install(piece) => self.on_piece(&head, piece),
            Payload::InstallAnswer(answer) => self.on_install_answer(&head, answer),
            Payload::Gate { nonce } => self.on_gate(&head, nonce),
            Payload::GateAnswer { nonce, last } => self.on_gate_answer(&head, nonce, last),
            Payload::RefillAsk { at } => self.on_refill_ask(&head, at),
            Payload::Refill(given) => self.on_refill(&head, &given),
        }
    }

    /// Whether a message is from a member, for this node, and both in their present lives.
    fn admit(&mut self, from: NodeId, head: &Head, payload: &Payload) -> bool {
        let own = &self.identity;
        if head.from != from {
            self.fault(from, "a message in another node's name");
            return false;
        }
        if (head.cluster, head.group, head.to) != (own.cluster, own.group, own.node) {
            self.fault(from, "a message for another cluster, group or node");
            return false;
        }
        if head.term.0 > NUMBER_MAX || payload.position().0 > NUMBER_MAX {
            self.fault(from, "a term or an index that none can reach");
            return false;
        }
        if !self.admit_epoch(head, payload) {
            return false;
        }
        let is_meant = head.to_incarnation == self.identity.incarnation;
        if self.is_former(from) {
            self.answer_former(head, payload);
            // A leader that has left says last whose turn it is.
            let follows = self.leader() == Some(from) && head.term == self.term;
            return is_meant && follows && matches!(payload, Payload::TimeoutNow);
        }
        if matches!(
            payload,
            Payload::Hello { .. } | Payload::FormedWithoutYou | Payload::Removed { .. }
        ) {
            return true;
        }
        let known = match self.peers.iter().find(|peer| peer.0 == from) {
            Some(peer) => is_meant && peer.1 == head.incarnation,
            None => is_meant && self.hear_stranger(head, payload),
        };
        if !known {
            self.marks.set(Mark::OtherIncarnationDropped);
        }
        known
    }

    /// A node that is no member here and knows this life of this one is a member elsewhere: a
    /// server uses messages of others whatever its own configuration says (Raft §6).
    fn hear_stranger(&mut self, head: &Head, payload: &Payload) -> bool {
        if head.incarnation == 0 {
            return false;
        }
        if self.is_forming() {
            return self.hear_while_forming(head, payload);
        }
        self.marks.set(Mark::StrangerHeard);
        self.meet(head.from, head.incarnation);
        true
    }

    /// A peer sent what no correct one sends: dropped, and said.
    pub(crate) fn fault(&mut self, peer: NodeId, reason: &'static str) {
        self.actions.push(Action::Note(Note::PeerFault { peer, reason }));
    }

    // ---- steps of settle ---------------------------------------------------------------------

    /// What is durable -> what was held back until now: votes, ballots, acknowledgements.
    pub(crate) fn acknowledge(&mut self) {
        let (term, vote) = self.facts.promised;
        let is_any_vote = cfg!(lakebed_break = "send_a_vote_with_its_term");
        if term != self.term || vote != self.vote && !is_any_vote {
            return;
        }
        if self.is_plain {
            return self.acknowledge_append();
        }
        self.messages.append(&mut self.owed);
        self.open_gate();
        self.acknowledge_append();
        self.acknowledge_install();
        self.canvass();
    }

    /// A quorum's acknowledgements, or a leader's word -> what is committed.
    pub(crate) fn commit(&mut self) {
        match &self.role {
            Role::Leader(_) => self.count(),
            Role::Follower(follower) => {
                let committed = follower.committed.min(follower.matched);
                if committed > self.log.marks.committed() {
                    self.log.marks.advance_committed(committed);
                }
            }
            Role::Forming(_) | Role::PreCandidate(_) | Role::Candidate(_) => {}
        }
    }

    /// What was applied -> reads answered; whatever else came to an end is told.
    pub(crate) fn respond(&mut self) {
        if self.is_plain {
            return;
        }
        self.answer_reads();
        let view = (self.leader(), self.term);
        if self.noted != view {
            self.noted = view;
            let (leader, term) = view;
            self.actions.push(Action::Note(Note::Role { leader, term }));
        }
    }

    /// Of what the disk has reached, as it was last told, that which no event announces.
    pub(crate) const fn reached(&self) -> (LogIndex, LogIndex, Option<LogId>) {
        (self.facts.snapshot, self.facts.first, self.facts.restored)
    }

    /// Forgets what memory has no room for, and looks at the watermarks: in production too.
    pub(crate) fn check(&mut self) {
        let waiting = self.receiver.waiting.bytes();
        self.log.evict(self.tuning.cache_bytes_max.saturating_sub(waiting));
        self.log.marks.check();
    }

    // ---- small things ------------------------------------------------------------------------

    fn life(&self) -> Life {
        Life::new(self.facts.write_epoch, self.drawn)
    }

    fn head_to(&self, to: NodeId) -> Head {
        let own = &self.identity;
        Head {
            cluster: own.cluster,
            cluster_epoch: own.cluster_epoch,
            group: own.group,
            from: own.node,
            to,
            incarnation: own.incarnation,
            to_incarnation: self.incarnation_of(to),
            life: self.life(),
            answers: Life::NONE,
            term: self.term,
        }
    }

    /// The durably recorded incarnation; a node that has formed has recorded all.
    fn incarnation_of(&self, node: NodeId) -> u64 {
        if self.is_forming() {
            return self.recorded.member(node).map_or(0, |member| member.incarnation);
        }
        let member = self.peers.iter().find(|peer| peer.0 == node);
        member.map_or_else(|| self.incarnation_met(node), |peer| peer.1)
    }

    /// An answer that waits for the hard state.
    fn owe(&mut self, to: NodeId, payload: Payload) {
        let head = self.head_to(to);
        self.owe_as(head, payload);
    }

    fn owe_as(&mut self, head: Head, payload: Payload) {
        self.stray();
        if self.owed.len() < OWED_MAX {
            self.owed.push(Message { head, payload });
        }
    }

    fn send(&mut self, to: NodeId, payload: Payload) {
        let head = self.head_to(to);
        self.messages.push(Message { head, payload });
    }

    fn end(&mut self, requests: Requests, outcome: Outcome) {
        self.actions.push(Action::Respond { requests, outcome });
    }
}
