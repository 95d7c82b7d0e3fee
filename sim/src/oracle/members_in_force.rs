//! A node goes by the newest membership in its log, from the moment on in which it is there, and by
//! no other (Raft §6). A leader is elected by a majority of every configuration in force in its
//! log, and begins no change before the one before it is committed.
//!
//! Believes nobody: memberships are read from the entries that go to disk, wherever they do first.

use super::{Checked, Seen, Violation, committed_stays::Committed, votes_once::Votes};
use lakebed::{Change, Forced, LogId, LogIndex, Member, Membership, NodeId, Role, Term};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

#[derive(Clone, Debug)]
pub(super) struct Members {
    /// What was written anywhere, and what the cluster was formatted with.
    known: BTreeMap<(LogIndex, Term), Arc<Membership>>,
    /// In which term each node led when it was last seen.
    led: Vec<Term>,
    /// Whether each node was ever the only voter.
    alone: Vec<bool>,
    /// Who was made the only voter by force, named like the entry that is to say so.
    forced: Option<(usize, LogId)>,
}

impl Members {
    pub(super) fn new(nodes: usize, formatted: Arc<Membership>) -> Self {
        let known = BTreeMap::from([((LogIndex(0), Term(0)), formatted)]);
        Self { known, led: vec![Term(0); nodes], alone: vec![false; nodes], forced: None }
    }

    /// An entry with this membership was written.
    pub(super) fn on_written(&mut self, members: Membership) {
        let LogId { index, term } = members.at;
        self.known.entry((index, term)).or_insert_with(|| Arc::new(members));
    }

    /// A node is the only voter before its log says so; what followed in other logs is lost.
    pub(super) fn on_forced(&mut self, node: usize, forced: &Forced) {
        let at = LogId::new(forced.term.1, forced.last.index.next());
        let own = forced.members.member(forced.node).cloned();
        let alone = Membership { at, ..Membership::of(own) };
        self.known.insert((at.index, at.term), Arc::new(alone));
        self.forced = Some((node, at));
    }

    /// The newest membership in a node's log, as far as any disk was given it.
    pub(super) fn in_log(&self, seen: &Seen<'_>, committed: &Committed) -> &Arc<Membership> {
        let mut newest = self.known.values().rev();
        let newest = newest.find(|members| self.holds(seen, members.at, committed));
        newest.expect("the formatted one is in every log")
    }

    fn holds(&self, seen: &Seen<'_>, id: LogId, committed: &Committed) -> bool {
        if self.forced == Some((seen.node, id)) {
            return true;
        }
        if id.index.next() >= seen.probe.first && id.index > LogIndex(0) {
            return seen.id_at(id.index) == Some(id);
        }
        // Where the log begins, everything before it was committed.
        id.index == LogIndex(0) || committed.is_committed(id)
    }

    /// Whether a node was ever the only voter: a crash may take it back to when it was.
    pub(super) fn was_alone(&self, node: usize) -> bool {
        self.alone[node]
    }

    /// The members in force by what is committed, and all that were written since: they may come to be.
    pub(super) fn in_force(&self, committed: &Committed) -> impl Iterator<Item = &Membership> {
        let newest =
            self.newest_committed(committed).map_or(LogIndex(0), |members| members.at.index);
        self.known.range((newest, Term(0))..).map(|(_, members)| &**members)
    }

    fn newest_committed(&self, committed: &Committed) -> Option<&Arc<Membership>> {
        let is_committed = |(index, term): (LogIndex, Term)| {
            index == LogIndex(0) || committed.is_committed(LogId::new(term, index))
        };
        self.known.iter().rev().find(|(at, _)| is_committed(**at)).map(|(_, members)| members)
    }

    /// Whether a node is no member by what is committed, and can never be one: its id was used, or a
    /// greater one was.
    pub(super) fn is_former(&self, node: usize, committed: &Committed) -> bool {
        let newest = self.newest_committed(committed);
        newest.is_some_and(|members| members.is_former(NodeId(node as u64 + 1)))
    }

    pub(super) fn on_view(
        &mut self,
        seen: &Seen<'_>,
        committed: &Committed,
        votes: &Votes,
    ) -> Checked {
        let Some(own) = seen.engine.membership() else { return Ok(()) };
        self.alone[seen.node] |= own.is_sole_voter(NodeId(seen.node as u64 + 1));
        // What a gated node has lost it may know the members of.
        let is_joining = own.voters.is_empty();
        if !seen.probe.gated && !is_joining {
            self.is_in_log(seen, own, committed)?;
        }
        if seen.probe.role != Role::Leader {
            return Ok(());
        }
        if std::mem::replace(&mut self.led[seen.node], seen.probe.term) != seen.probe.term {
            self.is_elected(seen, committed, votes)?;
        }
        self.is_joint(seen, own, committed)?;
        self.is_one_change(seen)
    }

    fn is_in_log(&self, seen: &Seen<'_>, own: &Membership, committed: &Committed) -> Checked {
        let (at, newest) = (own.at, self.in_log(seen, committed).at);
        let is_there = at.index < seen.probe.first
            || seen.id_at(at.index) == Some(at)
            || (self.forced == Some((seen.node, at)) && seen.probe.role != Role::Leader);
        if is_there && at.index >= newest.index {
            return Ok(());
        }
        let what = format!("goes by the members of entry {at}, and those of {newest} are in force");
        Err(Violation::new("members in force", seen.node, what))
    }

    fn is_elected(&self, seen: &Seen<'_>, committed: &Committed, votes: &Votes) -> Checked {
        let (own, term) = (NodeId(seen.node as u64 + 1), seen.probe.term);
        let members = self.in_log(seen, committed);
        let voted = |id: NodeId| id == own || votes.voted(id.0 as usize - 1, term) == Some(own);
        if is_quorum(members, voted) {
            return Ok(());
        }
        let what = format!("leads term {term} without a majority of {members}");
        Err(Violation::new("election safety", seen.node, what))
    }

    /// Whoever asked for changes is told that they were made at `at`: that entry is committed, and its
    /// members are what was asked for, without a half of the old ones.
    pub(super) fn on_changed(
        &self,
        node: usize,
        at: LogId,
        changes: &[Change],
        committed: &Committed,
    ) -> Checked {
        let wrong = match self.known.get(&(at.index, at.term)) {
            _ if !committed.is_committed(at) => "which is not committed".into(),
            None => "which holds no members".into(),
            Some(members) if !members.outgoing.is_empty() => {
                format!("which is half of it: {members}")
            }
            Some(members) => match changes.iter().find(|change| !shows(members, change)) {
                Some(change) => format!("and {members} do not show {change:?}"),
                None => match self.beside(members, changes, committed) {
                    Some(other) => {
                        format!("and node {other}, which nobody spoke of, is not as it was")
                    }
                    None => return Ok(()),
                },
            },
        };
        let what = format!("a change is said to be made by entry {at}, {wrong}");
        Err(Violation::new("a change is made", node, what))
    }

    /// Whoever asked for changes is told that they are certainly not made: no entry may make them, in any
    /// log, for who has it may lead.
    pub(super) fn on_refused(&self, node: usize, changes: &[Change]) -> Checked {
        let makes = |members: &&Arc<Membership>| {
            let before = self.known.range(..(members.at.index, Term(0))).next_back();
            let is_in = |members: &Membership| changes.iter().all(|change| shows(members, change));
            is_in(members) && before.is_some_and(|(_, before)| !is_in(before))
        };
        let Some(made) = self.known.values().find(makes) else { return Ok(()) };
        let what = format!("refuses {changes:?}, and entry {} makes them: {made}", made.at);
        Err(Violation::new("a refused change is not made", node, what))
    }

    /// A node that is another one, or not there, or has come, though these changes name others.
    fn beside(
        &self,
        after: &Membership,
        changes: &[Change],
        committed: &Committed,
    ) -> Option<NodeId> {
        let earlier = self.known.range(..(after.at.index, Term(0))).rev();
        let mut earlier = earlier.filter(|(_, members)| members.outgoing.is_empty());
        let is_committed = |(index, term): (LogIndex, Term)| {
            index == LogIndex(0) || committed.is_committed(LogId::new(term, index))
        };
        let (_, before) = earlier.find(|(at, _)| is_committed(**at))?;
        let is_named = |id: NodeId| changes.iter().any(|change| change.node() == id);
        let all = before.members().chain(after.members()).map(|member| member.id);
        let votes = |members: &Membership, id| members.voters.iter().any(|voter| voter.id == id);
        let is_same = |id: NodeId| match (before.member(id), after.member(id)) {
            (Some(was), Some(is)) => {
                // Those that the cluster was formed with are not known by their incarnations yet.
                let is_it = was.incarnation == 0 || was.incarnation == is.incarnation;
                is_it && was.address == is.address && votes(before, id) == votes(after, id)
            }
            _ => false,
        };
        let mut others = all.filter(|id| !is_named(*id));
        others.find(|id| !is_same(*id))
    }

    /// A node's members are what the ones before them in its log may become: other voters only by way of
    /// both (Raft §6).
    fn is_joint(&self, seen: &Seen<'_>, own: &Membership, committed: &Committed) -> Checked {
        if self.forced.is_some() || own.at.index < seen.probe.first.max(LogIndex(1)) {
            return Ok(());
        }
        let earlier = self.known.range(..(own.at.index, Term(0))).rev();
        let mut earlier = earlier.map(|(_, members)| members);
        let Some(before) = earlier.find(|members| self.holds(seen, members.at, committed)) else {
            return Ok(());
        };
        let ids = |list: &[Member]| list.iter().map(|member| member.id).collect::<BTreeSet<_>>();
        let (old, new, outgoing) = (ids(&before.voters), ids(&own.voters), ids(&own.outgoing));
        if old == new || before.outgoing.is_empty() && outgoing == old {
            return Ok(());
        }
        let what = format!("goes from {before} to {own} without a majority of both");
        Err(Violation::new("voters change jointly", seen.node, what))
    }

    /// Entries of its own term that a leader has not committed: one membership at most.
    fn is_one_change(&self, seen: &Seen<'_>) -> Checked {
        let above = (seen.probe.committed.next(), Term(0))..;
        let term = seen.probe.term;
        let mut open = self.known.range(above).map(|(&(index, of), _)| LogId::new(of, index));
        let is_open = |id: &LogId| id.term == term && seen.id_at(id.index) == Some(*id);
        let count = open.by_ref().filter(is_open).count();
        if count <= 1 {
            return Ok(());
        }
        let what = format!("has {count} membership entries of term {term} on their way");
        Err(Violation::new("one change at a time", seen.node, what))
    }
}

/// Whether members are as this change makes them.
fn shows(members: &Membership, change: &Change) -> bool {
    let among = |list: &[Member], id: NodeId| list.iter().any(|member| member.id == id);
    let has_address = |new: &Member| {
        members.members().any(|member| member.id == new.id && member.address == new.address)
    };
    let id = change.node();
    let (votes, learns) = (among(&members.voters, id), among(&members.learners, id));
    match change {
        Change::AddLearner(new) => learns && !votes && has_address(new),
        Change::Promote(_) => votes && !learns,
        Change::Demote(_) => learns && !votes,
        Change::Remove(_) => !votes && !learns,
        Change::Address(new) => has_address(new),
    }
}

/// Whether more than half of the voters do, and of those who were voters before while a change is half
/// made (Raft §6). Counted here: an engine that counts wrong must not be asked whether it does.
pub(super) fn is_quorum(members: &Membership, does: impl Fn(NodeId) -> bool) -> bool {
    let is_majority = |voters: &[Member]| {
        let count = voters.iter().filter(|voter| does(voter.id)).count();
        2 * count > voters.len()
    };
    is_majority(&members.voters) && (members.outgoing.is_empty() || is_majority(&members.outgoing))
}

/// How a quorum of these members is told, for people.
pub(super) fn quorum(members: &Membership, holds: impl Fn(NodeId) -> bool) -> Result<(), String> {
    if is_quorum(members, &holds) {
        return Ok(());
    }
    let holders: Vec<String> =
        members.voter_ids().filter(|id| holds(*id)).map(|id| id.to_string()).collect();
    Err(format!("of {members} only {} do", holders.join(",")))
}
