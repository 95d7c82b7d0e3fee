//! Every way in which crashes, and one damage, can come between updates of the hard state: the real writer, the
//! real blocks, and what a restart reads of them.
//!
//! Before each event everything that can happen is tried: an update is wanted; a block is written, or the disk
//! lies and it is not; the power fails and leaves it as it was, new, or torn; a block goes bad. A restart goes by
//! the blocks alone, and what it adopts it writes before anything counts again.

use super::*;
use crate::{
    action::Action,
    config::Config,
    disk::hard_state::BLOCK_BYTES,
    storage::{look::Look, verdict},
    types::{GroupId, Identity, NodeId, Term},
};
use std::collections::{BTreeSet, VecDeque};

/// So many updates are enough to write each block of each copy twice.
const UPDATES_MAX: u64 = 9;

/// A block that is good, by the hard state in it, or bad.
type Block = Option<(u64, Term, Bytes)>;

#[derive(Clone)]
struct State {
    blocks: [[Block; 2]; 2],
    /// The node that runs; `None`: it is down.
    running: Option<Promises>,
    /// What it called durable last, and so may have told to others.
    told: (u64, Term),
    damages: u8,
}

/// What tells states apart. All else follows from it: an update's term from its number.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    blocks: [[Option<(u64, Term)>; 2]; 2],
    durable: Option<(u64, Term)>,
    wanted: Option<Term>,
    writing: Option<(u64, Term, usize, usize)>,
    known: Option<[[u64; 2]; 2]>,
    told: (u64, Term),
    damages: u8,
}

#[derive(Clone, Copy)]
enum Crash {
    Old,
    New,
    Torn,
}

fn config() -> Config {
    Config::new(GroupId(1), NodeId(1))
}

impl State {
    fn begin(damages: u8) -> Self {
        let identity = Identity { group: GroupId(1), node: NodeId(1), ..Identity::default() };
        let hard = HardState::new(identity, Arc::new(Membership::default()));
        let hard = HardState { number: 1, ..hard };
        let bytes = Bytes::from(hard.encode());
        let block = Some((hard.number, hard.term, bytes));
        let copy = [block.clone(), block];
        Self { blocks: [copy.clone(), copy], running: None, told: (0, Term(0)), damages }
    }

    fn shape(&self) -> Shape {
        let block = |block: &Block| block.as_ref().map(|(number, term, _)| (*number, *term));
        let running = self.running.as_ref();
        let writing = running.and_then(|promises| promises.writing.as_ref());
        Shape {
            blocks: self.blocks.each_ref().map(|copy| copy.each_ref().map(block)),
            durable: running.map(|promises| (promises.durable.number, promises.durable.term)),
            wanted: running.map(|promises| promises.wanted.term),
            writing: writing.map(|on_its_way| {
                let Writing { state, copy, block, .. } = on_its_way;
                (state.number, state.term, *copy, *block)
            }),
            known: running.map(|promises| promises.numbers),
            told: self.told,
            damages: self.damages,
        }
    }

    /// Where the write goes that is on its way.
    fn target(&self) -> Option<(usize, usize)> {
        let writing = self.running.as_ref()?.writing.as_ref()?;
        Some((writing.copy, writing.block))
    }

    /// What is written goes where it was asked to go.
    fn write(&mut self) {
        let writing = self.running.as_ref().and_then(|promises| promises.writing.as_ref());
        let Writing { state, encoded, copy, block, .. } = writing.expect("a write is on its way");
        self.blocks[*copy][*block] = Some((state.number, state.term, encoded.clone()));
    }

    /// The engine is told that it is done.
    fn complete(&mut self) {
        let mut ops = Ops::default();
        let promises = self.running.as_mut().expect("who is down is told nothing");
        promises.on_written(&mut ops);
        promises.persist(&mut ops);
        expect_to_be_where_it_is_said(promises, &mut ops);
        // What a restart has found counts when it was written again: until then nothing is told.
        if promises.durable_version > Version(0) {
            self.told = self.told.max((promises.durable.number, promises.durable.term));
        }
    }

    fn want(&mut self) {
        let mut ops = Ops::default();
        let promises = self.running.as_mut().expect("who is down wants nothing");
        let waits = promises.writing.is_some();
        promises.want(|hard| hard.term = hard.term.next());
        promises.persist(&mut ops);
        if !waits {
            expect_to_be_where_it_is_said(promises, &mut ops);
        }
    }

    fn crash(&mut self, how: Crash) {
        match (how, self.target()) {
            (Crash::New, Some(_)) => self.write(),
            (Crash::Torn, Some((copy, block))) => self.blocks[copy][block] = None,
            _ => {}
        }
        self.running = None;
    }

    /// What is wrong with what a restart finds.
    fn restart(&mut self) -> Option<&'static str> {
        let mut look = Look::new(&config());
        let bad = [0; BLOCK_BYTES];
        for (copy, blocks) in (0..).zip(&self.blocks) {
            for (at, block) in (0..).zip(blocks) {
                let bytes = block.as_ref().map_or(&bad[..], |(_, _, bytes)| bytes);
                look.take_hard(copy, at, bytes);
            }
        }
        if look.judge_hard_state(true) != verdict::Hard::Good {
            return Some("lost");
        }
        let found = look.hard();
        if (found.number, found.term) < self.told {
            return Some("an old one");
        }
        let (mut ops, mut promises) = (Ops::default(), look.promises());
        promises.persist(&mut ops);
        expect_to_be_where_it_is_said(&promises, &mut ops);
        self.running = Some(promises);
        None
    }

    fn number(&self) -> u64 {
        let blocks = self.blocks.iter().flatten().flatten();
        blocks.map(|(number, ..)| *number).max().unwrap_or(0)
    }

    /// All that can come next, and what is wrong.
    fn next(&self, to: &mut Vec<Self>) -> Option<&'static str> {
        if self.running.is_none() {
            let mut state = self.clone();
            let wrong = state.restart();
            if wrong.is_none() && self.number() < UPDATES_MAX {
                to.push(state);
            }
            if wrong.is_some() {
                return wrong;
            }
        }
        let mut add = |change: &dyn Fn(&mut Self)| {
            let mut state = self.clone();
            change(&mut state);
            to.push(state);
        };
        match (&self.running, self.target()) {
            (None, _) => {}
            (Some(promises), None) => {
                if promises.durable.number < UPDATES_MAX {
                    add(&Self::want);
                }
                add(&|state| state.crash(Crash::Old));
            }
            (Some(promises), Some(_)) => {
                let writing = promises.writing.as_ref().map(|writing| &writing.state);
                let is_next = |state: &HardState| {
                    state.term == promises.wanted.term && state.number < UPDATES_MAX
                };
                if writing.is_some_and(is_next) {
                    add(&Self::want);
                }
                add(&|state| {
                    state.write();
                    state.complete();
                });
                [Crash::Old, Crash::New, Crash::Torn]
                    .into_iter()
                    .for_each(|how| add(&move |state| state.crash(how)));
                if self.damages > 0 {
                    add(&|state| {
                        state.damages -= 1;
                        state.complete();
                    });
                }
            }
        }
        if self.damages > 0 {
            for (copy, block) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                add(&|state| {
                    state.damages -= 1;
                    state.blocks[copy][block] = None;
                });
            }
        }
        None
    }
}

/// The write that was asked for is the one that is thought to be on its way.
fn expect_to_be_where_it_is_said(promises: &Promises, ops: &mut Ops) {
    let mut out = Vec::new();
    ops.drain_into(&mut out);
    let asked = out.iter().map(|action| match action {
        Action::Disk {
            request: DiskRequest::Write { file: File::HardState, at, and: None, durable: true },
            ..
        } => (at.offset, &at.bytes),
        other => panic!("only durable writes: {other:?}"),
    });
    let writing = promises.writing.iter();
    let writing = writing.map(|on| (OFFSETS[on.copy][on.block], &on.encoded));
    assert!(asked.eq(writing), "{out:?}");
}

/// Goes through all of it, which is at least so many states; the first that is wrong.
fn wrong(damages: u8, states_at_least: usize) -> Option<&'static str> {
    let (mut seen, mut queue) = (BTreeSet::new(), VecDeque::from([State::begin(damages)]));
    let mut next = Vec::new();
    while let Some(state) = queue.pop_front() {
        let wrong = state.next(&mut next);
        if wrong.is_some() {
            return wrong;
        }
        queue.extend(next.drain(..).filter(|state| seen.insert(state.shape())));
    }
    assert!(seen.len() >= states_at_least, "{} states", seen.len());
    None
}

#[test]
fn no_crash_takes_back_what_was_told() {
    assert_eq!(wrong(0, 10_000), None);
}

#[test]
fn no_crash_takes_it_back_beside_a_block_that_goes_bad_or_a_write_that_never_was() {
    assert_eq!(wrong(1, 100_000), None);
}

/// A disk that lies twice says that both copies are written. So the search does find what there is.
#[test]
fn two_writes_that_never_were_take_it_back() {
    assert_eq!(wrong(2, 0), Some("an old one"));
}
