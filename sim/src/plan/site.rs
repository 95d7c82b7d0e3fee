//! Places where something of a storm is drawn from its seed.

use crate::prng::{Concern, Draw};

/// Each has a lane of randomness of its own, so that what is drawn in one says nothing of the others. The number is part
/// of a seed's meaning: never renumber, and take the next one for a new place. Two of one number, as there
/// were once, do not compile.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(super) enum Site {
    Profile = 0,
    PowerCuts = 1,
    Kills = 2,
    Partitions = 3,
    Disks = 4,
    Stops = 5,
    Limits = 6,
    Early = 7,
    Gray = 8,
    Hung = 9,
    Operations = 10,
    Pauses = 11,
    Clocks = 12,
    Isolations = 13,
    Flapping = 14,
    SlowLinks = 15,
    Drift = 16,
    Damage = 17,
    Ruins = 18,
    Lies = 19,
    Images = 20,
    Gone = 21,
    BadEntries = 22,
    Churn = 23,
    Changes = 24,
    Lease = 25,
    Transfers = 26,
    Sessions = 27,
    Names = 29,
    Manner = 30,
    Tunes = 31,
    SameEntries = 32,
    LateAnswers = 33,
    Recoveries = 34,
    Keeps = 35,
    FirstSegment = 36,
    Minority = 37,
    Times = 38,
    Sluggish = 39,
    Behind = 40,
    Rots = 41,
    HungStops = 42,
    BackUps = 43,
    Witnesses = 44,
    Tears = 45,
    SyncNames = 46,
    LateReports = 47,
    Misreads = 48,
    Misfilings = 49,
}

impl Site {
    pub(super) fn draw(self, seed: u64) -> Draw {
        Draw::new(seed, Concern::Swarm, self as u32, 0)
    }
}
