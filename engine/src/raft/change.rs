//! Membership change by joint consensus (Raft §6): one at a time, in force when appended, left by
//! itself.
//!
//! The leader appends a membership in which both configurations must agree; when that is committed
//! it appends the new one alone. A node that is added is asked for its incarnation first, so that
//! all record the same life of it. Whoever is no member of what is committed is told so, and ends.
//! Knows no files. Invariant: at most one membership entry lies above what this node's own disk
//! holds, so the hard state, which names two, names the one in force whatever a crash leaves.

use super::{
    Raft,
    progress::Peer,
    role::{Leader, Role},
};
use crate::{
    action::{Action, Outcome, Refusal},
    change::{Change, ChangeRefusal},
    entry::{self, HEAD_BYTES, Kind, seal_body},
    marks::Mark,
    membership::{MEMBERS_MAX, Member, Membership},
    message::{Head, Payload},
    types::{Instant, LogId, LogIndex, NodeId, RequestId, Requests, Timestamp, earliest},
};
use std::sync::Arc;

/// A node that is added has so many of the longest election timeouts to answer.
const GREETINGS_MAX: u32 = 3;

/// A change that somebody waits for.
#[derive(Clone, Debug)]
pub(super) struct Changing {
    request: RequestId,
    step: Step,
}

#[derive(Clone, Debug)]
enum Step {
    /// The group rested, and who is there has to say so first. Nothing is judged yet.
    Muster { changes: Vec<Change>, until: Instant },
    /// Nodes that it adds are asked who they are. Nothing is appended yet.
    Greet { next: Membership, ask_at: Instant, until: Instant },
    /// It is on its way, and cannot be called back.
    Appended,
}

impl Changing {
    /// Its end, if this leader does not bring it about.
    fn cut_short(&self, why: &Refusal) -> (Requests, Outcome) {
        let outcome = match self.step {
            Step::Muster { .. } | Step::Greet { .. } => Outcome::Refused(why.clone()),
            Step::Appended if cfg!(lakebed_break = "refuse_a_change_that_is_on_its_way") => {
                Outcome::Refused(why.clone())
            }
            Step::Appended => Outcome::Unknown,
        };
        (Requests::one(self.request), outcome)
    }

    pub(super) const fn deadline(&self) -> Option<Instant> {
        match &self.step {
            Step::Muster { until, .. } => Some(*until),
            Step::Greet { ask_at, .. } => Some(*ask_at),
            Step::Appended => None,
        }
    }

    const fn guests(&self) -> Option<&Membership> {
        match &self.step {
            Step::Greet { next, .. } => Some(next),
            Step::Muster { .. } | Step::Appended => None,
        }
    }
}

/// The first member whose life nobody knows.
fn stranger(members: &Membership) -> Option<NodeId> {
    members.members().find(|member| member.incarnation == 0).map(|member| member.id)
}

/// What a node knows of members beside those in force.
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    /// Nodes that are no members here, as far as this node knows, and speak to it: it may lag, or
    /// be one who joins. With their incarnations.
    met: Vec<(NodeId, u64)>,
    /// The last membership that was seen to be committed.
    pub(super) settled: LogId,
    /// Until then those who left are not cut off: they may have to be told.
    pub(super) linger_until: Option<Instant>,
    /// Whom to be connected with is to be said.
    pub(super) is_news: bool,
}

impl Raft {
    // ---- in force ----------------------------------------------------------------------------

    /// A membership was appended.
    pub(super) fn bring_into_force(&mut self, membership: Membership) {
        let (at, now) = (membership.at, self.membership.at);
        // Behind a gate an older one comes again: what is known of the log's lost end is newer.
        if at.index < now.index || at == now {
            return;
        }
        if at.index > now.index {
            self.previous = Arc::clone(&self.membership);
        }
        if !membership.outgoing.is_empty() {
            self.marks.set(Mark::JointInForce);
        }
        self.membership = Arc::new(membership);
        self.membership_wanted = true;
        self.regroup();
    }

    /// What was appended from `from` on is cut.
    pub(super) fn roll_back(&mut self, from: LogIndex) {
        if self.membership.at.index >= from && !cfg!(lakebed_break = "forget_to_roll_back") {
            self.marks.set(Mark::MembershipRolledBack);
            self.membership = Arc::clone(&self.previous);
            self.membership_wanted = true;
            self.regroup();
            self.around.is_news &= !cfg!(lakebed_break = "say_nothing_of_a_rollback");
        }
    }

    /// A snapshot took the log's place, and with it these members theirs.
    pub(crate) fn adopt_members(&mut self, members: &Arc<Membership>) {
        self.membership = Arc::clone(members);
        self.previous = Arc::clone(members);
        self.regroup();
    }

    /// Peers are whoever is a member now.
    fn regroup(&mut self) {
        self.stray();
        self.know_peers();
        self.around.is_news |= !cfg!(lakebed_break = "name_no_members_in_force");
        let peers = &self.peers;
        self.around.met.retain(|met| !peers.iter().any(|peer| peer.0 == met.0));
        let (next, now) = (self.log.marks.last().next(), self.now);
        let Role::Leader(leader) = &mut self.role else { return };
        leader.peers.retain(|peer| peers.contains(&(peer.id, peer.incarnation)));
        for &(id, incarnation) in peers {
            if leader.peer(id).is_none() {
                leader.peers.push(Peer::new(id, incarnation, next, now));
            }
        }
        leader.count_due = true;
        leader.heartbeat_due = true;
        leader.lease.begin_anew();
    }

    /// The members after the entry at `index`; `None` if that is longer ago than is remembered.
    pub(crate) fn members_at(&self, index: LogIndex) -> Option<&Arc<Membership>> {
        [&self.membership, &self.previous].into_iter().find(|of| of.at.index <= index)
    }

    pub(super) fn is_settled(&self) -> bool {
        self.membership.at.index <= self.log.marks.committed()
    }

    /// Whether a node was a member once and, by what is committed, can never be one again.
    pub(super) fn is_former(&self, node: NodeId) -> bool {
        let committed = self.log.marks.committed();
        self.members_at(committed)
            .is_some_and(|members| members.at != LogId::ZERO && members.is_former(node))
    }

    /// How many of these entries can be taken now. A second membership waits until the disk holds
    /// the first: the leader sends it again.
    pub(super) fn takes(&self, heads: &[entry::Head]) -> usize {
        let named = self.membership.at.index;
        let is_free =
            |head: &entry::Head| named <= self.log.marks.durable() || head.id.index <= named;
        let mut members = (0..heads.len()).filter(|at| heads[*at].kind == Kind::Membership);
        let first = members.next();
        let blocked = first.filter(|first| !is_free(&heads[*first])).or_else(|| members.next());
        blocked.unwrap_or(heads.len())
    }

    // ---- leader ------------------------------------------------------------------------------

    /// Somebody wants other members.
    pub(crate) fn on_change(&mut self, request: RequestId, changes: &[Change]) {
        self.stir();
        if !matches!(self.role, Role::Leader(_)) {
            let hint = self.leader();
            let why = Refusal::NotLeader { hint };
            return self.end(Requests::one(request), Outcome::Refused(why));
        }
        self.changes.asked += 1;
        let (now, silence) = (self.now, self.tuning.election.0);
        let Role::Leader(leader) = &mut self.role else { return };
        if let (Some(until), None) = (leader.musters_until(now, silence), &leader.changing) {
            let step = Step::Muster { changes: changes.to_vec(), until };
            leader.changing = Some(Changing { request, step });
            return;
        }
        self.decide_change(request, changes);
    }

    /// Everybody has answered since the group rested, or has had the time to: who is silent then is away.
    fn muster(&mut self) {
        let (now, silence) = (self.now, self.tuning.election.0);
        let Role::Leader(leader) = &mut self.role else { return };
        let later = leader.musters_until(now, silence);
        let is_over = |changing: &mut Changing| match &mut changing.step {
            Step::Muster { until, .. } => {
                // Other times may be in force by now.
                *until = later.unwrap_or(*until);
                later.is_none()
            }
            _ => false,
        };
        let over = leader.changing.take_if(is_over);
        if let Some(Changing { request, step: Step::Muster { changes, .. } }) = over {
            self.decide_change(request, &changes);
        }
    }

    fn decide_change(&mut self, request: RequestId, changes: &[Change]) {
        match self.judge_change(changes) {
            Ok(_) if self.is_handing_over() => self.refuse_change(request, Refusal::Transferring),
            Err(why) => {
                self.marks.set(Mark::ChangeRefused);
                self.refuse_change(request, Refusal::Change(why));
            }
            Ok(_) if !self.has_room() => self.refuse_change(request, Refusal::DiskFull),
            Ok(next) => self.begin_change(request, next),
        }
    }

    fn refuse_change(&mut self, request: RequestId, why: Refusal) {
        self.changes.given_up += 1;
        self.end(Requests::one(request), Outcome::Refused(why));
    }

    fn judge_change(&self, changes: &[Change]) -> Result<Membership, ChangeRefusal> {
        let Role::Leader(leader) = &self.role else { return Err(ChangeRefusal::NewLeader) };
        if let Some(next) = leader.changing.as_ref().and_then(Changing::guests)
            && let Some(node) = stranger(next)
        {
            return Err(ChangeRefusal::Greeting(node));
        }
        // Without an entry of its term a leader may not know the change before to be committed:
        // with changes of single servers that lost commits (raft-dev, 2015). Two majorities would
        // not let it; the rule stays, so that nobody has to rely on that where voters stay the same.
        if self.log.marks.committed() < leader.start {
            return Err(ChangeRefusal::NewLeader);
        }
        let is_named = self.membership.at.index <= self.log.marks.durable();
        let is_over = self.is_settled() && is_named && self.membership.outgoing.is_empty();
        if !is_over || leader.changing.is_some() {
            return Err(ChangeRefusal::Underway(self.membership.at));
        }
        let next = self.membership.changed(changes)?;
        for change in changes {
            match change {
                Change::Promote(node) => {
                    self.judge_level(leader, *node)?;
                }
                Change::Remove(_) => self.judge_stayers(leader, &next)?,
                _ => {}
            }
        }
        self.judge_majority(leader, &next)?;
        self.judge_givers(&next)?;
        Ok(next)
    }

    /// One of the founders votes when it has met all others (`formation`). Who answers a leader has;
    /// who does not could wait for ever for one who left meanwhile.
    fn judge_stayers(&self, leader: &Leader, next: &Membership) -> Result<(), ChangeRefusal> {
        let has_answered =
            |id: NodeId| leader.peers.iter().any(|peer| peer.id == id && peer.has_answered);
        let stays = |voter: &&Member| self.membership.is_voter(voter.id);
        let missing = next
            .voters
            .iter()
            .filter(stays)
            .find(|voter| voter.id != self.identity.node && !has_answered(voter.id));
        missing.map_or(Ok(()), |voter| Err(ChangeRefusal::NotHeard(voter.id)))
    }

    /// Whoever is alone is given nothing again. What a snapshot here holds as well it does not need.
    fn judge_givers(&self, next: &Membership) -> Result<(), ChangeRefusal> {
        let mut stays = next.voters.iter().chain(&next.learners);
        let is_alone = stays.all(|member| member.id == self.identity.node);
        let lost = self.facts.hole.filter(|hole| is_alone && hole.index > self.facts.newest);
        lost.map_or(Ok(()), |hole| Err(ChangeRefusal::Holed(hole)))
    }

    /// Where votes are given or taken, a majority of those who vote then can commit at once: it is there,
    /// holds what is committed, has room, and can lead: a gate would keep it from that, or want of a state that
    /// only the others can send. Else nothing would be committed until the others come back,
    /// this change neither, and a leader that does not hear enough of them steps down.
    fn judge_majority(&self, leader: &Leader, next: &Membership) -> Result<(), ChangeRefusal> {
        let own = self.identity.node;
        let carries = |id| match id == own {
            true => {
                let is_whole = self.log.marks.durable() >= leader.lately_committed();
                is_whole && !self.facts.is_state_lost
            }
            false => self
                .judge_level(leader, id)
                .is_ok_and(|peer| !peer.full && !peer.gated && !peer.lacks_state),
        };
        if next.voter_ids().eq(self.membership.voter_ids()) || next.is_quorum(carries) {
            return Ok(());
        }
        Err(ChangeRefusal::NoMajority(next.voter_ids().filter(|id| !carries(*id)).collect()))
    }

    /// Who lags would be a voter whom every commit waits for.
    fn judge_level<'a>(&self, leader: &'a Leader, node: NodeId) -> Result<&'a Peer, ChangeRefusal> {
        let peer = leader.peers.iter().find(|peer| peer.id == node);
        let Some(peer) = peer else { return Err(ChangeRefusal::Unknown(node)) };
        let is_silent = self.now.since(peer.heard) > self.tuning.election.0;
        if !peer.has_answered || peer.paused || is_silent {
            return Err(ChangeRefusal::NoAnswer(node));
        }
        let (matched, committed) = (peer.matched, leader.lately_committed());
        if matched < committed {
            return Err(ChangeRefusal::Lags { node, matched, committed });
        }
        Ok(peer)
    }

    fn begin_change(&mut self, request: RequestId, next: Membership) {
        let Role::Leader(leader) = &mut self.role else { return };
        if stranger(&next).is_none() {
            leader.changing = Some(Changing { request, step: Step::Appended });
            return self.append_members(self.membership.joint(next));
        }
        let until = self.now.after(self.tuning.election.1.saturating_mul(GREETINGS_MAX));
        let step = Step::Greet { next, ask_at: self.now, until };
        leader.changing = Some(Changing { request, step });
        self.around.is_news = true;
    }

    /// Whether the members in force have no entry in the log: a recovery by force made them.
    pub(super) fn is_membership_missing(&self) -> bool {
        let at = self.membership.at;
        at.index >= self.log.first() && self.log.term_at(at.index) != Some(at.term)
    }

    /// What was gathered goes before it: others know already where that will be.
    pub(super) fn append_members(&mut self, members: Membership) {
        if !self.gathering.is_empty() {
            self.seal();
        }
        let (last, time) = (self.log.last(), self.date(Timestamp(0)));
        let at = LogId::new(self.term, last.index.next());
        let members = Membership { at, ..members };
        let (head, frame) =
            seal_body(Kind::Membership, &members.encode(), self.seed, at, last.term, time);
        // As everybody else will read it, in the same order.
        let members = members_in(&head, &frame).expect("what was written can be read");
        self.append_own((head, frame));
        self.bring_into_force(members);
    }

    /// A change goes on: who is added is asked, a joint membership that is committed is left, and
    /// whoever left is told.
    pub(crate) fn change(&mut self) {
        if self.is_plain {
            return;
        }
        self.settle_members();
        self.muster();
        self.greet();
        self.leave_joint();
        if self.around.linger_until.is_some_and(|until| self.now >= until) {
            self.around.linger_until = None;
            self.around.is_news = true;
        }
        if std::mem::take(&mut self.around.is_news) {
            self.actions.push(Action::Members(Arc::new(self.company())));
        }
    }

    /// The membership in force turns out to be committed.
    fn settle_members(&mut self) {
        if !self.is_settled() || self.around.settled == self.membership.at {
            return;
        }
        self.around.settled = self.membership.at;
        self.around.linger_until = Some(self.now.after(self.tuning.election.1));
        if !self.membership.outgoing.is_empty() {
            return;
        }
        let Role::Leader(leader) = &mut self.role else { return };
        // Those whom a leader leaves behind shall know as much as it does.
        leader.heartbeat_due = true;
        if let Some(Changing { request, step: Step::Appended }) = leader.changing {
            leader.changing = None;
            self.changes.done += 1;
            let outcome = Outcome::Done(self.membership.at);
            self.end(Requests::one(request), outcome);
        }
        let (own, previous) = (self.identity.node, Arc::clone(&self.previous));
        for former in previous.members() {
            if former.id != own && self.membership.member(former.id).is_none() {
                self.tell_former(former.id, former.incarnation);
            }
        }
    }

    /// Asks those who are to be added which life of them it is; appends once all have answered.
    fn greet(&mut self) {
        let (now, silence) = (self.now, self.tuning.election.0);
        let Role::Leader(leader) = &mut self.role else { return };
        let musters_until = leader.musters_until(now, silence);
        let Some(Changing { request, step }) = &mut leader.changing else { return };
        let Step::Greet { next, ask_at, until } = step else { return };
        let request = *request;
        let Some(missing) = stranger(next) else {
            if let Some(later) = musters_until {
                // Other times are in force, and who is there has to say so anew.
                *ask_at = later;
                return;
            }
            let next = next.clone();
            return self.end_greeting(request, next);
        };
        if self.now >= *until {
            return self.give_greeting_up(request, ChangeRefusal::NoAnswer(missing));
        }
        if self.now >= *ask_at {
            *ask_at = self.now.after(self.tuning.heartbeat);
            let missing: Vec<_> =
                next.members().filter(|of| of.incarnation == 0).map(|of| of.id).collect();
            let origin = self.origin;
            missing.into_iter().for_each(|id| self.send(id, Payload::Hello { ask: true, origin }));
        }
    }

    /// All have said who they are. Those who stay may have fallen silent meanwhile.
    fn end_greeting(&mut self, request: RequestId, next: Membership) {
        let Role::Leader(leader) = &self.role else { return };
        if let Err(why) = self.judge_majority(leader, &next) {
            return self.give_greeting_up(request, why);
        }
        self.begin_change(request, next);
    }

    fn give_greeting_up(&mut self, request: RequestId, why: ChangeRefusal) {
        let Role::Leader(leader) = &mut self.role else { return };
        leader.changing = None;
        self.around.is_news = true;
        self.marks.set(Mark::ChangeRefused);
        self.refuse_change(request, Refusal::Change(why));
    }

    /// A node that is to be added has said which life of it this is.
    pub(super) fn on_guest(&mut self, head: &Head) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(Changing { step: Step::Greet { next, .. }, .. }) = &mut leader.changing else {
            return;
        };
        next.each_mut()
            .filter(|member| member.id == head.from && member.incarnation == 0)
            .for_each(|member| member.incarnation = head.incarnation);
    }

    /// Both configurations have agreed to the new one: now it may decide alone.
    fn leave_joint(&mut self) {
        let at = self.membership.at.index;
        let is_due = !self.membership.outgoing.is_empty()
            && self.is_settled()
            && at <= self.log.marks.durable();
        if is_due && matches!(self.role, Role::Leader(_)) {
            self.marks.set(Mark::JointLeft);
            self.append_members(self.membership.settled());
        }
    }

    /// Nobody waits for it here any more.
    pub(super) fn abandon_change(&mut self, why: &Refusal) {
        let Role::Leader(leader) = &mut self.role else { return };
        if let Some(changing) = leader.changing.take() {
            self.around.is_news = true;
            self.changes.given_up += 1;
            let (requests, outcome) = changing.cut_short(why);
            self.end(requests, outcome);
        }
    }

    // ---- who is there ------------------------------------------------------------------------

    /// A node that is no member here speaks to this one, by its right name.
    pub(super) fn meet(&mut self, node: NodeId, incarnation: u64) {
        let met = &mut self.around.met;
        match met.iter_mut().find(|met| met.0 == node) {
            Some(known) => known.1 = incarnation,
            None => {
                if met.len() == MEMBERS_MAX {
                    met.remove(0);
                }
                met.push((node, incarnation));
            }
        }
    }

    /// Those who are no members here and spoke to this node.
    pub(super) fn met(&self) -> &[(NodeId, u64)] {
        &self.around.met
    }

    pub(super) fn incarnation_met(&self, node: NodeId) -> u64 {
        // A leader that leaves is no member from the moment on in which this node learns of it.
        let former = || self.previous.member(node).map_or(0, |member| member.incarnation);
        self.around.met.iter().find(|met| met.0 == node).map_or_else(former, |met| met.1)
    }

    /// Whom to be connected with: the members, those who were a moment ago, and who is being asked. They may
    /// be more than can be members: nobody writes this down, nor sends it.
    fn company(&self) -> Membership {
        let mut company = Membership::clone(&self.membership);
        let lingers = !self.is_settled() || self.around.linger_until.is_some();
        let former = lingers.then_some(&*self.previous);
        let guests = match &self.role {
            _ if cfg!(lakebed_break = "name_no_guest") => None,
            Role::Leader(leader) => leader.changing.as_ref().and_then(Changing::guests),
            _ => None,
        };
        for other in former.into_iter().chain(guests).flat_map(Membership::members) {
            if company.member(other.id).is_none() {
                company.learners.push(other.clone());
            }
        }
        company
    }

    /// When `change` has something to do though nothing happens.
    pub(super) fn change_deadline(&self) -> Option<Instant> {
        let greeting = match &self.role {
            Role::Leader(leader) => leader.changing.as_ref().and_then(Changing::deadline),
            _ => None,
        };
        earliest([greeting, self.around.linger_until])
    }

    /// What was seen to be committed before this life.
    pub(super) fn know_settled(&mut self) {
        if self.is_settled() {
            self.around.settled = self.membership.at;
        }
    }
}

/// The membership in an entry's frame, if it says one that there can be.
pub(super) fn members_in(head: &entry::Head, frame: &[u8]) -> Option<Membership> {
    let body = frame.get(HEAD_BYTES..head.total_bytes as usize)?;
    let members = Membership::decode(body)?;
    (members.at == head.id && !members.voters.is_empty()).then_some(members)
}
