//! The follower's half of replication: it judges appends and owes answers (Raft §5.3).
//!
//! Knows no disk. Invariant: what it acknowledges is min(durable, what this leader's appends
//! matched in this term), and it cuts only where an entry of the leader's truly differs.

use super::{
    Raft,
    change::members_in,
    rest::Rest,
    role::{Follower, Role},
};
use crate::{
    entry::{self, Kind},
    marks::Mark,
    message::{
        Append, AppendAnswer, CONFLICT_RUNS_MAX, Conflict, Fate, Head, Message, Payload, Placement,
    },
    types::{LogId, LogIndex, Term},
};
use bytes::Bytes;

/// No entry has that many commands: each takes four bytes at least.
pub(super) const ORDINAL_MAX: u32 = 1 << 30;

impl Raft {
    pub(super) fn on_append(&mut self, head: &Head, append: Append) {
        if head.term < self.term {
            self.marks.set(Mark::StaleTermAnswered);
            return self.owe(head.from, Payload::AppendAnswer(AppendAnswer::default()));
        }
        if let Err(fault) = self.verify(&append, head.term).and_then(|()| self.judge(head, &append))
        {
            return self.fault(head.from, fault);
        }
        self.follow(head, &append);
        self.is_plain &= append.fates.is_empty();
        self.on_fates(&append);
        if self.log.term_at(append.prev.index).is_some_and(|term| term != append.prev.term)
            || append.prev.index > self.log.marks.last()
            || self.receiver.taking.is_some()
        {
            self.stray();
            self.let_wait(&append);
            return self.refuse_append(append.prev.index);
        }
        self.take_entries(append.prev.index, append.frames);
    }

    /// Reads every entry and its checksums, once; `self.heads` holds what they are.
    pub(super) fn verify(&mut self, append: &Append, term: Term) -> Result<(), &'static str> {
        self.heads.clear();
        let (mut prev, mut rest) = (append.prev, &append.frames[..]);
        while !rest.is_empty() {
            let head = entry::Head::parse_whole(rest, self.seed).map_err(|why| why.as_str())?;
            let follows = head.id.index == prev.index.next() && head.prev_term == prev.term;
            if !follows || head.id.term < prev.term || head.id.term > term {
                return Err("entries that do not follow each other");
            }
            if u64::from(head.total_bytes) > self.entry_bytes_max {
                return Err("an entry larger than this node can store");
            }
            if head.kind == Kind::Membership && members_in(&head, rest).is_none() {
                return Err("a membership that there cannot be");
            }
            prev = head.id;
            rest = &rest[head.total_bytes as usize..];
            self.heads.push(head);
        }
        Ok(())
    }

    /// Whether the sender may lead its term, as far as is known here.
    pub(super) fn judge_leader(&self, head: &Head) -> Result<(), &'static str> {
        let same_term = head.term == self.term;
        match &self.role {
            Role::Leader(_) if same_term => Err("a second leader in this term"),
            Role::Follower(Follower { leader: Some(leader), .. })
                if same_term && *leader != head.from =>
            {
                Err("a second leader in this term")
            }
            _ => Ok(()),
        }
    }

    /// What no leader of this term can say, says nothing.
    fn judge(&self, head: &Head, append: &Append) -> Result<(), &'static str> {
        self.judge_leader(head)?;
        let misplaced = |fate: &Fate| match fate.outcome {
            Placement::At { id, ordinal } => id.term > head.term || ordinal > ORDINAL_MAX,
            Placement::Busy | Placement::DiskFull | Placement::TooLarge => false,
        };
        if append.fates.iter().any(misplaced) {
            return Err("a forwarded batch placed where none can be");
        }
        let known = self.known_in(head.term);
        if !self.agrees(append.prev, known) || !self.agree(known) {
            return Err("another entry where one is committed, or than it sent in this term");
        }
        Ok(())
    }

    /// Up to where whoever leads this term can say nothing else than is here: what is committed, and what it has sent
    /// itself, as a leader's log only grows (Raft §5.3, Leader Append-Only).
    pub(super) fn known(&self) -> LogIndex {
        let committed = self.log.marks.committed();
        match &self.role {
            Role::Follower(follower) if follower.leader.is_some() => {
                committed.max(follower.matched)
            }
            _ => committed,
        }
    }

    /// The same of whoever leads another term.
    pub(super) fn known_in(&self, term: Term) -> LogIndex {
        if term == self.term { self.known() } else { self.log.marks.committed() }
    }

    /// Whether an entry is no other than the one there, if that is `known`.
    pub(super) fn agrees(&self, id: LogId, known: LogIndex) -> bool {
        id.index > known || self.log.term_at(id.index).is_none_or(|ours| ours == id.term)
    }

    /// The same of the entries at hand.
    pub(super) fn agree(&self, known: LogIndex) -> bool {
        self.heads.iter().all(|entry| self.agrees(entry.id, known))
    }

    /// Someone leads: from now on this node follows.
    pub(super) fn follow_leader(&mut self, head: &Head) {
        let follows = head.term == self.term
            && matches!(&self.role, Role::Follower(follower) if follower.leader == Some(head.from));
        if !follows {
            self.stray();
            let waits = matches!(&self.role, Role::Follower(Follower { leader: None, .. }));
            if head.term > self.term || !waits {
                self.become_follower(head.term, None);
            }
        }
        self.contact = self.now;
        self.is_ahead = false;
        let Role::Follower(follower) = &mut self.role else { return };
        if follower.rest != Rest::Awake {
            // Awake, it has a deadline again. What woke it may be late, and its leader at rest.
            self.is_plain = false;
            follower.rest = Rest::Awake;
            follower.owes = true;
        }
        follower.leader = Some(head.from);
        follower.leader_life = head.life;
    }

    fn follow(&mut self, head: &Head, append: &Append) {
        self.follow_leader(head);
        if append.ask {
            self.ask_for_snapshot();
            self.ask_about_gate(head);
        }
        self.retain = append.retain;
        let Role::Follower(follower) = &mut self.role else { return };
        // One that was overtaken offers nothing.
        follower.is_rest_offered = append.rest && append.sequence >= follower.sequence;
        follower.sequence = append.sequence;
        follower.owes |= append.ask;
        follower.round = follower.round.max(append.round);
        follower.committed = follower.committed.max(append.commit);
        follower.told = Some(self.now);
        follower.conflict = None;
    }

    /// Says what there is instead, so that the leader finds the last agreement in few steps.
    fn refuse_append(&mut self, prev: LogIndex) {
        self.marks.set(Mark::AppendRefused);
        let through = prev.min(self.log.marks.last());
        let conflict = Conflict {
            through,
            committed: self.log.marks.committed(),
            runs: self.log.runs_up_to(through, CONFLICT_RUNS_MAX),
        };
        if let Role::Follower(follower) = &mut self.role {
            follower.conflict = Some(Box::new(conflict));
        }
    }

    /// Keeps what is there already, cuts at the first entry that differs, appends the rest.
    pub(super) fn take_entries(&mut self, prev: LogIndex, frames: Bytes) {
        let (mut known, mut offset) = (0, 0);
        for head in &self.heads {
            let same = head.id.index <= self.log.marks.committed()
                || self.log.term_at(head.id.index) == Some(head.id.term);
            if !same {
                break;
            }
            known += 1;
            offset += head.total_bytes as usize;
        }
        if known > 0 {
            self.marks.set(Mark::DuplicateAppendKept);
        }
        if let Some(head) = self.heads.get(known) {
            let from = head.id.index;
            if from <= self.log.marks.last() {
                self.stray();
                self.marks.set(Mark::ConflictTruncated);
                self.log.truncate(from);
                self.roll_back(from);
            }
            let frames = if offset == 0 { frames } else { frames.slice(offset..) };
            self.append_theirs(known, frames);
        }
        let through = self.heads.last().map_or(prev, |head| head.id.index);
        if cfg!(lakebed_break = "truncate_without_conflict") && through < self.log.marks.last() {
            self.log.truncate(through.next());
        }
        let Role::Follower(follower) = &mut self.role else { return };
        follower.matched = follower.matched.max(through);
        // Repeated entries bring no new acknowledgement; the leader asks to know.
        follower.owes |= known > 0 && known == self.heads.len();
    }

    /// Appends those from `known` on, as many as can be taken now, and forgets the others.
    fn append_theirs(&mut self, known: usize, frames: Bytes) {
        let count = self.takes(&self.heads[known..]);
        if known + count < self.heads.len() {
            self.marks.set(Mark::MembershipHeldBack);
            self.heads.truncate(known + count);
        }
        let (mut end, mut members) = (0, None);
        for head in &self.heads[known..] {
            if head.kind == Kind::Membership {
                members = members_in(head, &frames[end..]);
            }
            end += head.total_bytes as usize;
        }
        let whole = end == frames.len();
        self.log.append(&self.heads[known..], if whole { frames } else { frames.slice(..end) });
        if let Some(members) = members
            && !cfg!(lakebed_break = "take_no_membership_from_a_leader")
        {
            self.bring_into_force(members);
        }
    }

    /// Says how far the log agrees and how much of that is durable, when there is news or the
    /// leader wants to know.
    pub(super) fn acknowledge_append(&mut self) {
        let Role::Follower(follower) = &mut self.role else { return };
        let Some(leader) = follower.leader else { return };
        let durable = self.log.marks.durable().min(follower.matched);
        if !follower.owes && follower.conflict.is_none() && durable <= follower.acknowledged {
            return;
        }
        follower.owes = false;
        follower.acknowledged = follower.acknowledged.max(durable);
        let rests = self.take_rest();
        let Role::Follower(follower) = &mut self.role else { return };
        let (answers, conflict) = (follower.leader_life, follower.conflict.take());
        let (mut matched, mut durable) = (follower.matched, durable);
        if cfg!(lakebed_break = "acknowledge_what_waits_for_a_snapshot") {
            let waiting = self.receiver.waiting.last().unwrap_or_default();
            (matched, durable) = (matched.max(waiting), durable.max(waiting));
        }
        let answer = AppendAnswer {
            sequence: follower.sequence,
            round: follower.round,
            matched,
            durable,
            fates: self.forwards.fates,
            full: self.facts.full,
            gated: self.gate.is_some(),
            rests,
            conflict,
        };
        let head = Head { answers, ..self.head_to(leader) };
        self.messages.push(Message { head, payload: Payload::AppendAnswer(answer) });
    }

    /// Own entries, sealed a moment ago.
    pub(super) fn append_own(&mut self, (head, frame): (entry::Head, Bytes)) {
        self.log.append(&[head], frame);
    }
}
