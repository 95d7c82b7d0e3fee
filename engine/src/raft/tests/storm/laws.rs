//! What must hold after each step of whoever takes it.
//!
//! Harm needs several things to come together: whoever answers by a lease that it has no more is found out only where
//! another one has been elected by then, has committed something, and a client asks. A law is broken long before.

use super::{
    super::super::{progress::Peer, rest::Rest, role::Canvass},
    *,
};

/// What the laws know beside what `judge` does.
#[derive(Default)]
pub(super) struct Record {
    /// Whom each node has voted for, in whichever life.
    votes: BTreeMap<(u64, Term), NodeId>,
    /// Who would vote for each node, by what it was told when it asked around last.
    would_vote: BTreeMap<u64, (u64, BTreeSet<NodeId>)>,
    /// As whom each node stands.
    stood: BTreeMap<u64, Term>,
    /// What was committed when each node's leadership began, as far as it knew.
    began: BTreeMap<u64, (Term, LogIndex)>,
    /// In which term each node asked another to stand.
    asked: BTreeMap<u64, Term>,
    /// What those who are behind their gates have lost.
    lost: BTreeMap<u64, Vec<LogId>>,
    /// How far the log of each term's leader reached when one of them was lost last.
    reached: BTreeMap<u64, BTreeMap<Term, LogIndex>>,
    /// Which start of a node each leader has heard of last, and in which term.
    lives: BTreeMap<(u64, NodeId), (Term, u16)>,
}

impl Record {
    pub(super) fn forget_life(&mut self, at: u64) {
        self.would_vote.remove(&at);
        self.stood.remove(&at);
        self.began.remove(&at);
    }
}

/// What a leader is about to be told, and what it knew.
pub(super) struct Heard {
    life: Life,
    /// Whether it is an answer to this leadership, and to what was not said last.
    is_ours: bool,
    is_late: bool,
    matched: LogIndex,
}

impl Storm {
    fn raft(&self, at: u64) -> &Raft {
        &self.cluster.nodes[at as usize - 1].raft
    }

    /// Nothing that is said rests on what the own disk does not hold, and nobody votes twice in a term.
    pub(super) fn check_said(&mut self, at: u64, said: &[(NodeId, Message)]) {
        let disk = &self.cluster.nodes[at as usize - 1].disk;
        for Message { head, payload } in said.iter().map(|(_, message)| message) {
            let vote = match payload {
                Payload::Vote(_) => NodeId(at),
                Payload::VoteAnswer(verdict) if verdict.granted => head.to,
                Payload::AppendAnswer(answer) => {
                    let durable = disk.whole();
                    assert!(answer.durable <= durable, "node {at} has {durable}: {answer:?}");
                    continue;
                }
                Payload::TimeoutNow => {
                    self.known.record.asked.insert(at, head.term);
                    continue;
                }
                _ => continue,
            };
            let promised = disk.promised;
            let is_promised = promised.0 > head.term || promised == (head.term, Some(vote));
            assert!(
                is_promised,
                "node {at} votes for {vote} in {}, on disk: {promised:?}",
                head.term
            );
            let first = *self.known.record.votes.entry((at, head.term)).or_insert(vote);
            assert_eq!(first, vote, "node {at} votes twice in {}", head.term);
        }
    }

    pub(super) fn check_laws(&mut self, at: u64) {
        self.check_stands(at);
        self.check_leads(at);
        self.check_gate(at);
        if self.weather.leases {
            self.ids().for_each(|at| self.check_lease(at));
        }
    }

    /// Who stands has been told by a quorum that it would be voted for, or is wished for.
    fn check_stands(&mut self, at: u64) {
        let raft = &self.cluster.nodes[at as usize - 1].raft;
        let Role::Candidate(canvass) = &raft.role else { return };
        let (term, own) = (raft.term, NodeId(at));
        let is_known = self.known.record.stood.insert(at, term) == Some(term);
        if is_known || canvass.is_wished || raft.membership.is_sole_voter(own) {
            return;
        }
        let (round, told) = self.known.record.would_vote.remove(&at).unwrap_or_default();
        assert!(told.is_empty() || round + 1 == canvass.round, "node {at} was told of {round}");
        let quorum = raft.membership.is_quorum(|id| id == own || told.contains(&id));
        assert!(quorum, "node {at} stands in {term}, and only {told:?} would vote for it");
    }

    /// Who leads has heard a quorum lately, and counts nothing of older terms.
    fn check_leads(&mut self, at: u64) {
        let raft = &self.cluster.nodes[at as usize - 1].raft;
        let Role::Leader(leader) = &raft.role else { return };
        let (own, Tuning { election, heartbeat, .. }) = (NodeId(at), &raft.tuning);
        let is_late = |peer: &Peer| raft.now.since(peer.heard) > election.1 + *heartbeat;
        let heard = |id| leader.peers.iter().any(|peer| peer.id == id && !is_late(peer));
        assert!(
            leader.quiet.is_asleep || raft.membership.is_quorum(|id| id == own || heard(id)),
            "node {at} leads {} and hears no quorum",
            raft.term
        );
        let committed = raft.log.marks.committed();
        let began = self.known.record.began.entry(at).or_insert((raft.term, committed));
        let is_new = began.0 != raft.term || committed < leader.start;
        if began.0 != raft.term {
            *began = (raft.term, committed);
        }
        let votes = &self.known.record.votes;
        let has_voted = |id: NodeId| id == own || votes.get(&(id.0, raft.term)) == Some(&own);
        assert!(
            !is_new || raft.membership.is_quorum(has_voted),
            "node {at} leads {} and was not elected",
            raft.term
        );
        assert!(
            committed == began.1 || committed >= leader.start,
            "node {at} counts {committed} in {}, which begins with {}",
            raft.term,
            leader.start
        );
    }

    /// Whoever comes out of its gate has again what was committed by its word, and what its leader had when it was lost.
    fn check_gate(&mut self, at: u64) {
        let Node { raft, disk, .. } = &self.cluster.nodes[at as usize - 1];
        if raft.gate.is_some() {
            return;
        }
        self.shut.remove(&at);
        let reached = self.known.record.reached.remove(&at).unwrap_or_default();
        let (reached, durable) = (reached.get(&raft.term).copied(), disk.whole());
        let is_far = reached.is_none_or(|reached| reached <= durable);
        assert!(is_far, "node {at} votes again with {durable}, and its leader had {reached:?}");
        for id in self.known.record.lost.remove(&at).unwrap_or_default() {
            let index = id.index.0 as usize;
            let is_committed = self.known.committed.get(index - 1) == Some(&id);
            assert!(!is_committed || self.has(at, index), "node {at} votes again without {id}");
        }
    }

    /// Its log is about to be lost.
    pub(super) fn record_lost(&mut self, at: u64) {
        let disk = &self.cluster.nodes[at as usize - 1].disk;
        let durable = disk.log[..disk.durable].iter().map(|(head, _)| head.id);
        self.known.record.lost.entry(at).or_default().extend(durable);
        let leaders = self.cluster.nodes.iter().map(|node| &node.raft);
        let leaders = leaders.filter(|raft| matches!(raft.role, Role::Leader(_)));
        let reached = leaders.map(|raft| (raft.term, raft.log.marks.last())).collect();
        self.known.record.reached.insert(at, reached);
    }

    /// While a lease holds nobody leads a later term, and those who might vote for another are no quorum.
    fn check_lease(&mut self, at: u64) {
        if !matches!(self.raft(at).role, Role::Leader(_)) {
            return;
        }
        let now = self.clock(at);
        let raft = &mut self.cluster.at(at).raft;
        let seen = std::mem::replace(&mut raft.now, now);
        let leased = raft.leased();
        raft.now = seen;
        let Some(index) = leased else { return };
        self.check_nobody_else_leads(at);
        let committed = self.known.committed.len();
        assert!(index.0 as usize >= committed, "a lease of {at} for {index}, behind {committed}");
        let Raft { term, membership, .. } = self.raft(at);
        // Whom it asked to stand nobody refuses for its sake.
        assert_ne!(self.known.record.asked.get(&at), Some(term), "node {at} has a lease still");
        let is_free = |id: &u64| *id != at && (self.is_free(*id) || self.is_alone(*id));
        let free: Vec<_> = self.ids().filter(is_free).collect();
        assert!(
            !membership.is_quorum(|id| free.contains(&id.0)),
            "node {at} has a lease of {term}, and {free:?} wait for nobody"
        );
    }

    /// Whether it would vote for another than whom it follows, if its log allows it.
    fn is_free(&self, at: u64) -> bool {
        let (raft, now) = (self.raft(at), self.clock(at));
        let is_soon = |since: Instant| now.since(since) < raft.tuning.election.0;
        let is_led = match &raft.role {
            Role::Forming(_) | Role::Leader(_) => true,
            Role::Follower(follower) => {
                let rests = match follower.rest {
                    Rest::Asleep => true,
                    Rest::Roused(at) => is_soon(at),
                    Rest::Awake | Rest::Bereft { .. } => false,
                };
                rests || follower.leader.is_some() && is_soon(raft.contact)
            }
            Role::PreCandidate(_) | Role::Candidate(_) => false,
        };
        let has_just_begun = is_soon(raft.started) && !raft.membership.is_sole_voter(NodeId(at));
        !is_led && !has_just_begun
    }

    /// Whether it would lead at once if it restarted now.
    fn is_alone(&self, at: u64) -> bool {
        let Node { raft, disk, .. } = &self.cluster.nodes[at as usize - 1];
        let LogId { index, term } = disk.recorded.at;
        let durable = &disk.log[..disk.durable];
        let is_there = |at: usize| durable.get(at).is_some_and(|(head, _)| head.id.term == term);
        let is_in_force = (index.0 as usize).checked_sub(1).is_none_or(is_there);
        let members = if is_in_force { &disk.recorded } else { &disk.previous };
        raft.gate.is_none() && members.is_sole_voter(NodeId(at))
    }

    /// What a node knew before it hears this.
    pub(super) fn hears(&mut self, from: NodeId, message: &Message) -> Option<Heard> {
        let to = message.head.to.0;
        match &message.payload {
            Payload::PreVoteAnswer(verdict) if verdict.granted => {
                let raft = self.raft(to);
                let is_asked = |canvass: &Canvass| canvass.round == verdict.round;
                if matches!(&raft.role, Role::PreCandidate(canvass) if is_asked(canvass))
                    && message.head.answers == raft.life()
                {
                    let told = self.known.record.would_vote.entry(to).or_default();
                    if told.0 != verdict.round {
                        *told = (verdict.round, BTreeSet::new());
                    }
                    told.1.insert(from);
                }
                None
            }
            Payload::AppendAnswer(answer) => {
                let (head, raft) = (&message.head, self.raft(to));
                let is_ours = (head.term, head.answers) == (raft.term, raft.life());
                let of = |(matched, sequence)| {
                    let is_late = answer.sequence < sequence;
                    Heard { life: head.life, is_ours, is_late, matched }
                };
                self.knows(to, from).map(of)
            }
            _ => None,
        }
    }

    /// How far a leader knows a peer to agree, and the number of its last append to it.
    fn knows(&self, at: u64, of: NodeId) -> Option<(LogIndex, u64)> {
        let Role::Leader(leader) = &self.raft(at).role else { return None };
        let peer = leader.peers.iter().find(|peer| peer.id == of)?;
        Some((peer.matched, peer.sequence))
    }

    /// Once its present life was heard, what a node said in a former one says nothing of what it has.
    pub(super) fn check_heard(&mut self, at: u64, of: NodeId, before: Option<Heard>) {
        let (Some(before), Some((matched, _))) = (before, self.knows(at, of)) else { return };
        let (term, now) = (self.raft(at).term, self.raft(of.0).life());
        let start = (term, now.0 as u16);
        if now.goes_on_from(before.life) {
            if before.is_ours {
                self.known.record.lives.insert((at, of), start);
            }
        } else if before.is_late && self.known.record.lives.get(&(at, of)) == Some(&start) {
            let is_believed = matched > before.matched;
            assert!(!is_believed, "node {at} believes what {of} said in a former life");
        }
    }
}
