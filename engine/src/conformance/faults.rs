//! Faults that go under a driver's own seams: legal for a disk and a network, and hard on a driver.

use super::{Clause, ledger::Ledger, probe::lock};
use crate::{Completion, DiskError, DiskRequest, NodeId, OpId};
use std::sync::{Arc, Mutex};

/// A disk between a driver and its disk: ends operations late, in an order of its own, and some of
/// them with a failure.
///
/// For drivers that submit and take completions later. What is submitted waits; each
/// [`complete`](Self::complete) ends one of those that wait, whichever.
#[derive(Debug)]
pub struct FaultyDisk {
    waiting: Vec<(OpId, DiskRequest)>,
    draw: Draw,
    ledger: Arc<Mutex<Ledger>>,
}

impl FaultyDisk {
    pub(super) const fn new(ledger: Arc<Mutex<Ledger>>, seed: u64) -> Self {
        Self { waiting: Vec::new(), draw: Draw(seed), ledger }
    }

    /// Takes an operation.
    pub fn submit(&mut self, op: OpId, request: DiskRequest) {
        let mut ledger = lock(&self.ledger);
        if ledger.has_failed(op) {
            ledger.breach(Clause::FailureTold, format!("{op:?} failed, and was submitted again"));
        }
        drop(ledger);
        self.waiting.push((op, request));
    }

    /// Whether nothing waits.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Ends one of the operations that wait: by `perform`, the driver's own disk, or by a failure.
    pub fn complete(
        &mut self,
        perform: impl FnOnce(&DiskRequest) -> Result<Completion, DiskError>,
    ) -> Option<(OpId, Result<Completion, DiskError>)> {
        if self.waiting.is_empty() {
            return None;
        }
        let (op, request) = self.waiting.swap_remove(self.draw.below(self.waiting.len()));
        let doomed = {
            let mut ledger = lock(&self.ledger);
            // Once: whoever tries again shall find that it goes well, as with a sync.
            let doomed = ledger.doomed.remove(&op);
            doomed.inspect(|error| ledger.on_failed(op, *error))
        };
        Some((op, doomed.map_or_else(|| perform(&request), Err)))
    }
}

/// A connection to peers that loses messages, whole ones.
#[derive(Debug)]
pub struct LossyLink {
    draw: Draw,
    ledger: Arc<Mutex<Ledger>>,
}

impl LossyLink {
    pub(super) const fn new(ledger: Arc<Mutex<Ledger>>, seed: u64) -> Self {
        Self { draw: Draw(seed), ledger }
    }

    /// Whether the next message to this peer is lost: then it must not be sent, and the driver
    /// owes `Link { up: false }`, and `Link { up: true }` as soon as it goes on sending.
    pub fn loses(&mut self, to: NodeId) -> bool {
        let lost = self.draw.below(8) == 0;
        let mut ledger = lock(&self.ledger);
        ledger.asked_of_losses = true;
        if lost {
            ledger.on_lost(to);
        }
        lost
    }
}

/// xorshift64*: faults need variety, and the same ones each time.
#[derive(Debug)]
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        (drawn % end as u64) as usize
    }
}
