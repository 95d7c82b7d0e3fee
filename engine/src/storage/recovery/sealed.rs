//! Before a node becomes the only voter: its full segments behind the snapshot, of which a start reads no more
//! than their ends, are read one after another, and nothing of them is kept.
//!
//! Decides nothing: one that is bad is judged by what is there, as if it were not full, and none behind it is
//! read. Invariant: no more than one of them lies in memory, and one that is being written again.

use super::{Parts, Recovery, Stage};
use crate::{
    action::Halt,
    storage::{look::Look, ops::Ops},
    types::Instant,
};
use std::collections::VecDeque;

/// Full segments on their way in.
#[derive(Clone, Debug)]
pub(super) struct Sealed {
    /// What is yet to be read, in order.
    wanted: VecDeque<u32>,
    reads: u32,
}

impl Sealed {
    /// `None`: there is nothing to be read.
    fn of(look: &Look) -> Option<Self> {
        let mut wanted: VecDeque<u32> = look.sealed_behind_snapshot().collect();
        Some(Self { reads: wanted.pop_front()?, wanted })
    }
}

impl Recovery {
    /// Reads what nobody else could give if it turned out bad later. False: there is no such thing, or what a
    /// recovery by force has left is judged, of which all was read.
    pub(super) fn read_sealed(&mut self, ops: &mut Ops) -> bool {
        let is_due = self.is_forced() && self.forced.is_none();
        let Some(sealed) = Sealed::of(&self.look).filter(|_| is_due) else { return false };
        self.read_one(sealed, ops);
        true
    }

    fn read_one(&mut self, sealed: Sealed, ops: &mut Ops) {
        let found = &mut self.look.segments[sealed.reads as usize];
        found.make_room();
        let [wanted, _] = found.first_wanted(false);
        self.read_part(sealed.reads, wanted, ops);
        self.stage = Stage::Sealed(sealed);
    }

    /// One of them is there.
    pub(super) fn go_on_with_sealed(
        &mut self,
        mut sealed: Sealed,
        now: Instant,
        parts: &mut Parts<'_>,
    ) -> Result<(), Halt> {
        let (goes_on, image) = self.look.judge_sealed(sealed.reads);
        if let Some(image) = image.filter(|_| self.is_keeping) {
            self.write_back(sealed.reads, image, parts.ops);
        }
        match sealed.wanted.pop_front().filter(|_| goes_on) {
            Some(next) => self.read_one(Sealed { reads: next, ..sealed }, parts.ops),
            None => {
                self.look.follow_log();
                self.rest_on_snapshot(now, parts)?;
            }
        }
        Ok(())
    }
}
