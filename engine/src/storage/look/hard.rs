//! Which of the four blocks of the hard state counts, and what of them is bad or was not read.

use super::Look;
use crate::{
    disk::{
        Fault,
        hard_state::{BLOCK_BYTES, HardState},
    },
    storage::{found::last_nonzero, verdict},
    types::Identity,
};

impl Look {
    /// The number of the newest good block of each copy of the hard state.
    pub(in crate::storage) fn newest_in_copies(&self) -> [Option<u64>; 2] {
        let number = |block: &Result<HardState, Fault>| block.as_ref().ok().map(|h| h.number);
        self.blocks.each_ref().map(|copy| copy.iter().filter_map(number).max())
    }

    /// Whether both blocks of a copy of the hard state are good.
    pub(in crate::storage) fn is_copy_whole(&self, copy: u8) -> bool {
        self.blocks[usize::from(copy)].iter().all(Result::is_ok)
    }

    /// Whether a block that could not be read may be newer than all others. The first copy is written first, and
    /// each time the older of its blocks.
    pub(in crate::storage) fn may_be_newest(&self, copy: u8, block: u8) -> bool {
        let beside = self.numbers()[usize::from(copy)][usize::from(1 - block)];
        let [_, second] = self.newest_in_copies();
        copy == 0 && (beside == 0 || second == Some(beside))
    }

    pub(in crate::storage) fn take_hard(&mut self, copy: u8, block: u8, bytes: &[u8]) {
        let (copy, block) = (usize::from(copy), usize::from(block));
        self.blocks[copy][block] = HardState::decode(bytes, self.config.group);
        if self.blocks[copy][block].is_err() {
            self.stranger = self.stranger.or_else(|| HardState::owner(bytes));
        }
        self.zeros[copy][block] = bytes.len() == BLOCK_BYTES && last_nonzero(bytes).is_none();
    }

    /// Whose directory it is, as far as it is readable.
    pub(in crate::storage) fn owner(&self) -> Option<Identity> {
        self.hard.as_ref().map(|hard| hard.identity).or(self.stranger)
    }

    /// The highest good number of all four blocks counts. `adopts`: whoever only looks takes the units in
    /// which the disk was written.
    pub(in crate::storage) fn judge_hard_state(&mut self, adopts: bool) -> verdict::Hard {
        let blocks = self.blocks.iter().flatten();
        let newest = blocks.filter_map(|block| block.as_ref().ok()).max_by_key(|h| h.number);
        self.hard = newest.cloned();
        if self.newer_version().is_some() {
            return verdict::Hard::Newer;
        }
        let Some(Identity { node, group, .. }) = self.owner() else {
            let is_unfinished = self.is_unfinished();
            return if is_unfinished { verdict::Hard::Unfinished } else { verdict::Hard::Lost };
        };
        if (node, group) != (self.config.node, self.config.group) {
            return verdict::Hard::Foreign;
        }
        let align = self.hard().align;
        if adopts && align > 0 {
            self.config.disk_align = align;
        }
        if align == 0 || align == self.config.disk_align {
            verdict::Hard::Good
        } else {
            verdict::Hard::OtherAlign
        }
    }

    pub(super) fn newer_version(&self) -> Option<u16> {
        let newer = self.blocks.iter().flatten().filter_map(|block| match block {
            Err(Fault::Newer(version)) => Some(*version),
            _ => None,
        });
        newer.max()
    }

    pub(super) fn numbers(&self) -> [[u64; 2]; 2] {
        let number = |block: &Result<HardState, Fault>| block.as_ref().map_or(0, |h| h.number);
        [
            [number(&self.blocks[0][0]), number(&self.blocks[0][1])],
            [number(&self.blocks[1][0]), number(&self.blocks[1][1])],
        ]
    }

    /// Whether a copy has no good block: it will be written again.
    pub(super) fn has_lost_copy(&self) -> bool {
        self.blocks.iter().any(|copy| copy.iter().all(Result::is_err))
    }

    pub(in crate::storage) fn hard(&self) -> &HardState {
        self.hard.as_ref().expect("the hard state was judged before")
    }
}
