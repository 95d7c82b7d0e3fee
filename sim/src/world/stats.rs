//! What is counted while a world goes on.

use crate::plan::KINDS_COUNT;
use std::{
    array,
    ops::{Deref, DerefMut},
};

/// What a run amounted to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Things that happened: events, and what no engine hears of.
    pub happened: u64,
    /// Calls of `handle` with a message, a completion or a request.
    pub events: u64,
    /// Power cuts, per node.
    pub crashes: u64,
    /// Of those, with sectors that were not durable.
    pub crashes_with_writes_pending: u64,
    /// Processes killed or halted while their kernel lived.
    pub kills: u64,
    /// Requests that clients began.
    pub requests: u64,
    /// Requests that were answered.
    pub answered: u64,
    /// Requests that ended unknown to their client.
    pub unknown: u64,
    /// Messages that were lost or cut.
    pub messages_lost: u64,
    /// Messages that arrived when their sender's process was gone.
    pub messages_stale: u64,
    /// Snapshots that became durable.
    pub snapshots: u64,
    /// Times a log was compacted.
    pub compactions: u64,
    /// Disk operations that were made to fail.
    pub disk_failures: u64,
    /// Nodes that refused to start or to go on, their disks being beyond the budget.
    pub refusals: u64,
    /// Nodes that were removed from their cluster, and ended.
    pub removals: u64,
    /// Nodes that were not started again: their disks had forgotten, and could not tell.
    pub amnesias: u64,
    /// Damage that did not strike, as nothing on the disk would have told of what it took.
    pub untold: u64,
    /// Leaders that were seen to begin a term.
    pub elections: u64,
    /// Faults that struck, by kind: of each in the order of [`kind_names`](crate::plan::kind_names).
    pub faults: Struck,
}

/// How many faults of each kind struck.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Struck([u64; KINDS_COUNT]);

impl Default for Struck {
    fn default() -> Self {
        Self([0; KINDS_COUNT])
    }
}

impl Deref for Struck {
    type Target = [u64; KINDS_COUNT];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Struck {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl IntoIterator for Struck {
    type Item = u64;
    type IntoIter = array::IntoIter<u64, KINDS_COUNT>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
