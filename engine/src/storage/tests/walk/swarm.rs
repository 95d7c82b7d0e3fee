//! What befalls a walk beside what is asked of it. Each has some of it, so that what it has it has often.

use super::*;

#[derive(Clone, Copy)]
pub(super) struct Swarm {
    /// Operations fail.
    pub(super) fails: bool,
    /// Those do that make durable; what ends of it is killed, and the power fails in the life behind that.
    pub(super) is_sick: bool,
    /// The disk is damaged.
    pub(super) harms: bool,
    /// The machine keeps a state of its own.
    pub(super) keeps: bool,
    /// Of how many times that it gets further it writes that down once.
    pub(super) keeps_once_in: u64,
    /// Who walks joins a cluster that is there.
    pub(super) joins: bool,
    /// The disk has no room, for a while.
    pub(super) is_small: bool,
    /// Snapshots are read from outside, and sent to peers.
    pub(super) is_read: bool,
    /// Who walks is made from a backup, if it does not join.
    pub(super) restores: bool,
    /// It becomes the only voter by force, now and then.
    pub(super) forces: bool,
    /// So many segments are kept for members that lack what is in them.
    pub(super) retains: u64,
}

impl Swarm {
    pub(super) fn of(draw: &mut Draw) -> Self {
        let is_sick = draw.ratio(1, 4);
        Self {
            fails: is_sick || draw.ratio(2, 5),
            is_sick,
            harms: draw.ratio(2, 5),
            keeps: draw.ratio(1, 4),
            keeps_once_in: *draw.pick(&[2, 30]),
            joins: draw.ratio(1, 6),
            is_small: draw.ratio(1, 3),
            is_read: draw.ratio(1, 2),
            restores: draw.ratio(1, 6),
            forces: draw.ratio(1, 3),
            retains: *draw.pick(&[1, 3, 1000]),
        }
    }

    /// How many lives a walk has, and of how many steps one is.
    pub(super) const fn lives(&self) -> (u64, u64) {
        if self.is_sick { (24, 90) } else { (8, 250) }
    }

    /// Of how many operations one fails, of those that make durable and of others.
    pub(super) const fn fails_once_in(&self, makes_durable: bool, is_grave: bool) -> Option<u64> {
        match (self.fails, self.is_sick, makes_durable) {
            (false, ..) | (_, true, false) => None,
            (_, true, true) if is_grave => Some(3),
            (_, true, true) => Some(20),
            _ => Some(400),
        }
    }

    /// Whether a life ends by a kill, and the cache stays.
    pub(super) fn kills(&self, has_failed: bool, draw: &mut Draw) -> bool {
        match (self.is_sick, has_failed) {
            (true, true) => draw.ratio(7, 8),
            (true, false) => draw.ratio(1, 8),
            _ => draw.ratio(1, 4),
        }
    }
}
