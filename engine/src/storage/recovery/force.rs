//! The last resort after a lost quorum: this node becomes the only voter of a new cluster epoch.
//!
//! One update of the hard state does all of it, so that a crash leaves the old node or the new one:
//! epoch and term rise, the vote is its own, it is the only member, and where a record of the log
//! is bad the same update marks a cut there. What the cut takes is cleared as after any crash.
//! What it leaves is durable before (`keep.rs`).
//! Knows nothing of other nodes: what they had is lost, and the caller says that this is understood.

use super::{Parts, Recovery, Stage};
use crate::{
    action::Halt,
    disk::hard_state::{Cut, Gate, HardState},
    event::Start,
    file::File,
    marks::Mark,
    membership::Membership,
    report::Forced,
    status::Phase,
    storage::{
        install,
        journal::Journal,
        look::{self, Look},
        promises::{Promises, Version},
        verdict::{Base, Found, Install, Machine, Verdict},
    },
    types::{Instant, LogId, LogIndex},
};
use std::sync::Arc;

impl Recovery {
    pub(super) const fn is_forced(&self) -> bool {
        matches!(self.start, Start::ForceSoleVoter { .. })
    }

    /// The disk was judged: what is to be written, or why not. Once it is written and what it cut
    /// is cleared, the end.
    pub(super) fn force(
        &mut self,
        (found, row, verdict): (&Found, &'static str, Verdict),
        now: Instant,
        parts: &mut Parts<'_>,
    ) -> Result<(), Halt> {
        if let Some(forced) = self.forced.take() {
            if !verdict.starts() {
                return Err(self.look.refusal(row));
            }
            return Err(Halt::Forced(forced));
        }
        self.look.refuse_force(found, row, verdict)?;
        if verdict == Verdict::FinishInstall {
            self.look.finish_install();
        }
        let (promises, forced) = self.look.force(found);
        self.refuse_to_cut_below_the_unread(forced.last)?;
        if !matches!(self.start, Start::ForceSoleVoter { acknowledged_loss: true }) {
            return Err(Halt::Forced(Box::new(forced)));
        }
        self.phase(Phase::Repair, now);
        self.keep(promises, Forced { is_done: true, ..forced }, parts);
        Ok(())
    }

    /// A snapshot that could not be read may hold what would be cut. And if it stayed and could be read later,
    /// it would be taken for the state of another history.
    fn refuse_to_cut_below_the_unread(&self, last: LogId) -> Result<(), Halt> {
        let above = |file: File| matches!(file, File::Snapshot(at) if at.index > last.index);
        let Some((file, error)) = self.unread_snapshots.iter().find(|(file, _)| above(*file))
        else {
            return Ok(());
        };
        let expected = format!(
            "a snapshot that can be read: the log would be cut at {last}, and what lies behind may be in \
             it; try again, or remove the file to go on without it"
        );
        Err(look::refused("unread-above-cut", *file, 0, &expected, &error.to_string()))
    }

    /// Both copies hold it. What is left is judged like after a crash at this point.
    pub(super) fn go_on_forcing(&mut self, version: Version, parts: &mut Parts<'_>) -> bool {
        let promises = parts.promises.as_ref().expect("it is being written");
        if !promises.is_durable(version) {
            self.stage = Stage::Forced(version);
            return false;
        }
        parts.ops.met(Mark::QuorumForced);
        self.begin_anew(parts);
        true
    }

    pub(super) fn begin_anew(&mut self, parts: &mut Parts<'_>) {
        self.stage = Stage::Begin;
        self.look = Look::new(&self.config);
        if self.is_keeping && self.forced.is_none() {
            self.look.read_all();
        }
        *parts.journal = Journal::new(parts.journal.identity, &self.config);
    }
}

impl Look {
    /// Why this node must not become the only voter.
    fn refuse_force(&self, found: &Found, row: &'static str, verdict: Verdict) -> Result<(), Halt> {
        let hard = self.hard();
        let wrong = |row, expected: &str, found: String| {
            Err(look::refused(row, File::HardState, 0, expected, &found))
        };
        let (node, members) = (hard.identity.node, self.members_in_force());
        if found.is_term_ahead {
            return Err(self.refusal("term-regressed"));
        }
        if members.voters.is_empty() {
            let expected = "a member of a cluster: one that was never added to it holds nothing of \
                            it; remove the directory";
            return wrong("never-member", expected, "no members".into());
        }
        let was_member =
            members.at.index > hard.commit_hint && hard.previous.member(node).is_some();
        if members.member(node).is_none() && !was_member {
            let expected = format!("node {node} among the members: choose one of these");
            return wrong("no-member", &expected, members.to_string());
        }
        let is_new = hard.term.0 == 0 && self.last() == LogId::ZERO;
        if hard.restored || !members.is_sole_voter(node) && is_new {
            let expected = "a cluster that has formed: this one never took a write, so make it anew \
                            in empty directories";
            return wrong("not-formed", expected, members.to_string());
        }
        if members.is_sole_voter(node) && verdict.starts() {
            let expected = "other voters that are lost: nobody's vote is missing, start this node";
            let epoch = hard.identity.cluster_epoch;
            let found = format!("node {node} as the only voter already, in cluster epoch {epoch}");
            return wrong("already-alone", expected, found);
        }
        let is_stateless = matches!(found.base, Base::Missing | Base::Gap)
            && !matches!(verdict, Verdict::FinishInstall);
        if is_stateless || matches!(found.install, Install::Partial) {
            return Err(self.refusal(if is_stateless { base_row(found) } else { row }));
        }
        debug_assert!(matches!(found.machine, Machine::Restored), "no machine has a say here");
        Ok(())
    }

    /// The members in force, as far as this log goes.
    fn members_in_force(&self) -> &Arc<Membership> {
        let hard = self.hard();
        if self.is_in_force(&hard.newest) { &hard.newest } else { &hard.previous }
    }

    /// The update, and what it does.
    fn force(&self, found: &Found) -> (Promises, Forced) {
        let before = self.hard().clone();
        let (snapshot, first_bad) = (self.snapshot(), self.first_bad());
        let known = before.durable_hint.max(before.commit_hint).max(self.proven());
        let gated = if before.gated { before.gate.until } else { LogIndex(0) };
        let mut last = self.last();
        let mut promises = self.promises();
        let members = Arc::clone(self.members_in_force());
        promises.want(|hard| {
            last = self.end_at(first_bad, found, hard).unwrap_or(last);
            // All of it was read, and is durable by then: what is bad later is not taken for torn.
            hard.durable_hint = hard.durable_hint.max(last.index);
            become_alone(hard, &before, last.index);
        });
        let forced = Forced {
            is_done: false,
            cluster: before.identity.cluster,
            group: before.identity.group,
            node: before.identity.node,
            epoch: (before.identity.cluster_epoch, promises.wanted().identity.cluster_epoch),
            term: (before.term, promises.wanted().term),
            members,
            snapshot,
            last,
            committed: before.commit_hint.max(snapshot.index),
            known: known.max(gated),
            cut: first_bad,
        };
        (promises, forced)
    }

    /// Ends the log before its first bad record; says where, if it has one.
    fn end_at(&self, bad: Option<LogIndex>, found: &Found, hard: &mut HardState) -> Option<LogId> {
        let (snapshot, covered) = (self.snapshot(), matches!(found.base, Base::Covered));
        let Some(bad) = bad else {
            // A log that ends below its snapshot begins anew behind it.
            return covered.then(|| {
                install::begin_behind(hard, snapshot);
                hard.cutting = false;
                snapshot
            });
        };
        let last = LogId::new(self.term_at(bad.previous()), bad.previous());
        let segment = self.segment_of(bad);
        let at = if bad <= snapshot.index { snapshot } else { last };
        match segment {
            Some(segment) if bad > snapshot.index => {
                hard.write_epoch += 1;
                hard.cut = Cut { from: bad, epoch: hard.write_epoch };
                hard.cutting = true;
                hard.durable_hint = last.index;
                hard.commit_hint = hard.commit_hint.min(last.index);
                hard.newest_segment = segment;
            }
            _ => {
                install::begin_behind(hard, at);
                hard.cutting = false;
            }
        }
        Some(at)
    }
}

const fn base_row(found: &Found) -> &'static str {
    if matches!(found.base, Base::Gap) { "gap" } else { "snapshot-missing" }
}

/// The only member, in a new term of a new epoch.
fn become_alone(hard: &mut HardState, before: &HardState, last: LogIndex) {
    let node = hard.identity.node;
    hard.identity.cluster_epoch += 1;
    hard.term = hard.term.next();
    hard.vote = Some(node);
    let known = |members: &Membership| members.member(node).cloned();
    let own = known(&before.newest).or_else(|| known(&before.previous));
    let own = own.expect("it is a member");
    let greatest = before.newest.greatest_id().max(before.previous.greatest_id());
    let alone = Membership::of([own]).with_used(greatest.max(hard.newest.greatest_id()));
    // Named like one whose entry is yet to be written, so the first leader writes it.
    let at = LogId::new(hard.term, last.next());
    let alone = Arc::new(Membership { at, ..alone });
    (hard.newest, hard.previous) = (Arc::clone(&alone), alone);
    (hard.gated, hard.gate) = (false, Gate::default());
    hard.restored = false;
    // Of those peers none comes back.
    hard.peers.clear();
}
