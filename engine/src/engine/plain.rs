//! Plain turns: a node may have thirty things under way, and nearly always has none of them.
//!
//! It takes entries, writes them, hears that they are written, commits and applies them; elections,
//! changes of members, snapshots, holes, reads and all the rest are rare, and still each step has to
//! look whether there is any of it. So it is asked once, when all steps have been walked: if
//! consensus and storage both say that nothing but replication is under way (`look_around` in either),
//! the turns that follow are *plain*. In a plain turn the steps that serve something else return at
//! once, and time is looked at against one instant, before which no timer runs out.
//!
//! What ends it is told where it happens, by `stray`: an event that is none of the four by which
//! entries travel, a role that is left, an answer that says no, a write that failed. A turn may
//! begin plain and end otherwise; the steps behind the one that found out are walked in full.
//!
//! Invariant: a plain turn does what a full one would have done, and no timer of consensus runs out
//! before that instant. In a build with debug assertions a twin of the node walks all steps beside plain
//! turns, and both must have done the same.

use super::{Engine, passing::facts};
use crate::{action::Action, types::Instant};

/// Of so many plain turns one has a twin.
const ONE_OF: u32 = 16;

impl Engine {
    /// Whether nothing but replication is under way.
    pub(super) fn is_plain(&self) -> bool {
        self.storage.is_plain() && self.raft.as_ref().is_some_and(|raft| raft.is_plain())
    }

    /// Something else happened, or may be due.
    pub(super) fn stray(&mut self) {
        self.storage.stray();
        if let Some(raft) = &mut self.raft {
            raft.stray();
        }
    }

    /// After all steps: whether the next turns are plain, and until when at the latest.
    pub(super) fn look_around(&mut self) {
        let is_whole = !self.catching_up
            && self.stop_by.is_none()
            && !self.is_leaving
            && self.compaction.is_at_rest();
        if !is_whole || self.raft.is_none() {
            return self.stray();
        }
        let Some(raft) = &mut self.raft else { return };
        let was_plain = (self.storage.is_plain(), raft.is_plain());
        if !was_plain.0 {
            self.storage.look_around();
        }
        if self.storage.is_plain() && !was_plain.0 && !raft.is_told(facts(&self.storage)) {
            // It is to be told all of it first.
            self.storage.stray();
        }
        if !was_plain.1 {
            raft.look_around();
        }
        // Before the former instant no timer of those runs out that were plain before.
        if (self.storage.is_plain(), raft.is_plain()) != was_plain {
            self.quiet_until = self.next_timer();
        }
    }

    /// No timer runs out before then. A snapshot may come to be due for its age by news as well.
    fn next_timer(&self) -> Instant {
        let raft = self.raft.as_ref().and_then(|raft| raft.quiet_until());
        let age = self.compaction.age_deadline(&self.tuning);
        let timers = [self.storage.deadline(), raft, age];
        timers.into_iter().flatten().min().unwrap_or(Instant(u64::MAX))
    }

    /// What has come to be due before the instant up to which all turns are plain would never be done.
    pub(super) fn check_quiet(&self) {
        let due = self.raft.as_ref().and_then(|raft| raft.quiet_until());
        let quiet_until = self.quiet_until;
        assert!(
            due.is_none_or(|due| quiet_until <= due),
            "quiet until {quiet_until:?}, due {due:?}"
        );
    }

    /// Before a plain turn, in builds that check themselves: the same node, to walk all steps. Storms
    /// would be slow if a node were copied for every turn; of so many, some thousands have one.
    pub(super) fn twin(&mut self) -> Option<Box<Self>> {
        if !cfg!(debug_assertions) || !self.is_plain() {
            return None;
        }
        self.plain_turns = self.plain_turns.wrapping_add(1);
        self.plain_turns.is_multiple_of(ONE_OF).then(|| {
            let mut twin = Box::new(self.clone());
            twin.stray();
            twin
        })
    }

    /// What the twin does is what the plain turn did.
    pub(super) fn compare(&self, mut twin: Box<Self>, actions: &[Action]) {
        let mut expected = Vec::new();
        twin.settle(&mut expected);
        assert_eq!(actions, expected, "a plain turn did not what a full one would have done");
        assert_eq!(self.deadline(), twin.deadline(), "a plain turn has another deadline");
        assert_eq!(self.probe(), twin.probe(), "a plain turn has left another state");
    }
}
