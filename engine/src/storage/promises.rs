//! The hard state's writer: what is wanted, what is on its way, what both copies hold.
//!
//! Invariant: an update writes the worse block of copy A, and only when that is durable the worse
//! block of copy B; only when that is durable too it counts. One update at a time. (Two plain
//! copies, or alternating ones, lose a vote in a crash loop: docs/disk-format.md.)

use super::ops::{Job, Ops};
use crate::{
    disk::hard_state::{HardState, OFFSETS},
    file::{Class, DiskRequest, Extent, File},
    marks::Mark,
    membership::Membership,
    types::LogIndex,
};
use bytes::Bytes;
use std::sync::Arc;

/// Names a state of what is wanted; later ones are greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Version(u64);

#[derive(Clone, Debug)]
pub(crate) struct Promises {
    wanted: HardState,
    wanted_version: Version,
    durable: HardState,
    durable_version: Version,
    writing: Option<Writing>,
    /// Newest and previous membership, not to be written before a cut is marked.
    members: Option<[Arc<Membership>; 2]>,
    /// The number in each block of each copy; zero: not a good block.
    numbers: [[u64; 2]; 2],
}

#[derive(Clone, Debug)]
struct Writing {
    state: HardState,
    /// What either copy is to hold.
    encoded: Bytes,
    version: Version,
    copy: usize,
    block: usize,
}

impl Promises {
    /// What a restart found: nothing is promised before it was written again, to both copies.
    pub(crate) const fn new(found: HardState, wanted: HardState, numbers: [[u64; 2]; 2]) -> Self {
        Self {
            wanted,
            wanted_version: Version(1),
            durable: found,
            durable_version: Version(0),
            writing: None,
            members: None,
            numbers,
        }
    }

    pub(crate) const fn wanted(&self) -> &HardState {
        &self.wanted
    }

    /// What both copies hold.
    pub(crate) const fn durable(&self) -> &HardState {
        &self.durable
    }

    pub(crate) fn want(&mut self, change: impl FnOnce(&mut HardState)) -> Version {
        change(&mut self.wanted);
        self.wanted_version.0 += 1;
        self.wanted_version
    }

    /// Wants a membership on disk: `newest` in force, `previous` should it be cut.
    pub(crate) fn want_members(&mut self, newest: Arc<Membership>, previous: Arc<Membership>) {
        self.members = Some([newest, previous]);
    }

    /// No entry that the hard state's memberships come from is about to be cut: they may change.
    pub(crate) fn let_members_change(&mut self) {
        let Some([newest, previous]) = self.members.take() else { return };
        if self.wanted.newest != newest || self.wanted.previous != previous {
            self.want(|hard| {
                hard.newest = newest;
                hard.previous = previous;
            });
        }
    }

    /// Whether the disk names the membership in force: its entry may be written.
    pub(crate) fn is_membership_named(&self) -> bool {
        self.members.is_none() && self.durable.newest == self.wanted.newest
    }

    pub(crate) const fn version(&self) -> Version {
        self.wanted_version
    }

    pub(crate) fn is_durable(&self, version: Version) -> bool {
        self.durable_version >= version
    }

    /// Whether the disk holds everything that must be there: lower bounds may be behind.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.durable_version >= self.wanted_version
    }

    /// Whether nothing is being written or to be: what is being written was wanted, and is not durable.
    pub(super) const fn is_idle(&self) -> bool {
        self.members.is_none() && self.durable_version.0 >= self.wanted_version.0
    }

    /// Lower bounds that travel with the next update, and never wait for one.
    pub(crate) fn hint(&mut self, durable: LogIndex, committed: LogIndex) {
        let wanted = &mut self.wanted;
        wanted.durable_hint = wanted.durable_hint.max(durable);
        wanted.commit_hint = wanted.commit_hint.max(committed.min(durable));
    }

    pub(crate) fn persist(&mut self, ops: &mut Ops) {
        if self.writing.is_some() || self.durable_version >= self.wanted_version {
            return;
        }
        let mut state = self.wanted.clone();
        state.number = self.durable.number + 1;
        let (encoded, version) = (state.encode().into(), self.wanted_version);
        self.write(Writing { state, encoded, version, copy: 0, block: 0 }, ops);
    }

    fn write(&mut self, mut writing: Writing, ops: &mut Ops) {
        let [first, second] = self.numbers[writing.copy];
        writing.block = usize::from(second < first);
        let offset = OFFSETS[writing.copy][writing.block];
        let at = Extent::new(offset, writing.encoded.clone());
        self.numbers[writing.copy][writing.block] = 0;
        let request = DiskRequest::Write { file: File::HardState, at, and: None, durable: true };
        ops.submit(Job::HardState, Class::Commit, request);
        self.writing = Some(writing);
    }

    pub(crate) fn on_written(&mut self, ops: &mut Ops) {
        let writing = self.writing.take().expect("one update was on its way");
        self.numbers[writing.copy][writing.block] = writing.state.number;
        if writing.copy == 0 {
            if cfg!(lakebed_break = "vote_before_second_copy") {
                self.durable = HardState { number: self.durable.number, ..writing.state.clone() };
                self.durable_version = writing.version;
            }
            return self.write(Writing { copy: 1, ..writing }, ops);
        }
        if self.wanted_version > writing.version {
            ops.met(Mark::HardStateChangesGathered);
        }
        assert!(writing.state.number > self.durable.number, "hard states are numbered upwards");
        self.durable = writing.state;
        self.durable_version = writing.version;
    }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        action::Action,
        storage::Identity,
        types::{NodeId, Term},
    };

    fn promises(numbers: [[u64; 2]; 2]) -> Promises {
        let found = HardState::new(Identity::default(), Arc::new(Membership::default()));
        Promises::new(HardState { number: 7, ..found.clone() }, found, numbers)
    }

    fn offsets(ops: &mut Ops) -> Vec<u64> {
        let mut out = Vec::new();
        ops.drain_into(&mut out);
        let offset = |action| match action {
            Action::Disk { request: DiskRequest::Write { at, durable: true, .. }, .. } => at.offset,
            other => panic!("only durable writes: {other:?}"),
        };
        out.into_iter().map(offset).collect()
    }

    #[test]
    fn a_vote_counts_when_both_copies_hold_it() {
        let (mut ops, mut promises) = (Ops::default(), promises([[6, 7], [7, 6]]));
        let version = promises.want(|hard| {
            hard.term = Term(9);
            hard.vote = Some(NodeId(2));
        });
        promises.persist(&mut ops);
        assert_eq!(offsets(&mut ops), [OFFSETS[0][0]], "copy A, the lower block, alone");
        promises.on_written(&mut ops);
        assert!(!promises.is_durable(version));
        assert_eq!(promises.durable().term, Term(0));
        assert_eq!(offsets(&mut ops), [OFFSETS[1][1]], "copy B, the lower block");
        promises.on_written(&mut ops);
        assert!(promises.is_durable(version));
        assert_eq!(promises.durable().vote, Some(NodeId(2)));
        assert!(!ops.marks.has(Mark::HardStateChangesGathered));
    }

    #[test]
    fn a_bad_block_is_written_before_a_good_one() {
        for (numbers, block) in [([0, 7], 0), ([7, 0], 1), ([7, 6], 1), ([6, 7], 0)] {
            let (mut ops, mut promises) = (Ops::default(), promises([numbers, [7, 7]]));
            promises.persist(&mut ops);
            assert_eq!(offsets(&mut ops), [OFFSETS[0][block]], "{numbers:?}");
        }
    }

    #[test]
    fn wants_gather_while_an_update_is_on_its_way() {
        let (mut ops, mut promises) = (Ops::default(), promises([[7, 6], [7, 6]]));
        promises.persist(&mut ops);
        let third = (3..6).map(|term| promises.want(|hard| hard.term = Term(term))).last();
        promises.persist(&mut ops);
        promises.on_written(&mut ops);
        promises.on_written(&mut ops);
        assert!(!promises.is_durable(third.expect("three were wanted")));
        promises.persist(&mut ops);
        promises.on_written(&mut ops);
        promises.on_written(&mut ops);
        assert_eq!((promises.durable().term, promises.durable().number), (Term(5), 9));
        assert_eq!(offsets(&mut ops).len(), 4, "two updates of two copies");
        assert!(ops.marks.has(Mark::HardStateChangesGathered));
    }
}
