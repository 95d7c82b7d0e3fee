//! Snapshots leave a node no faster than `Tuning::transfer_bytes_per_second` says, to all members together, and
//! evenly (config.rs).
//!
//! Seen on the wire, by the node's own clock. What may be sent at any time is a bucket that fills at that rate:
//! what a part of a heartbeat brings, and beside it one piece for each who is being sent some, as those are read
//! that were asked for before it was spent.

use super::{Checked, Violation};
use crate::plan::{FaultKind, Plan};
use lakebed::{Instant, NodeId, Term, inspect::SentPiece};
use std::{collections::BTreeSet, time::Duration};

/// The part of a heartbeat whose worth may be sent at one time.
const SHARE: u128 = 16;
const SECOND: u128 = 1_000_000_000;

#[derive(Clone, Debug)]
pub(super) struct Rates {
    bytes_per_second: u64,
    /// The longest there is.
    heartbeat: Duration,
    by: Vec<Option<Sender>>,
}

/// What a node has sent in the term that it leads.
#[derive(Clone, Debug)]
struct Sender {
    term: Term,
    to: BTreeSet<NodeId>,
    /// The largest piece.
    piece: u64,
    /// When the last one left.
    at: Instant,
    /// By how much more was sent than the rate allows for; in parts of a byte, as many as a second has
    /// nanoseconds.
    ahead: u128,
}

impl Rates {
    pub(super) fn new(nodes: usize) -> Self {
        Self { bytes_per_second: 0, heartbeat: Duration::ZERO, by: vec![None; nodes] }
    }

    pub(super) fn hold_to(&mut self, plan: &Plan) {
        let rates: BTreeSet<u64> =
            plan.tunings().map(|tuning| tuning.transfer_bytes_per_second).collect();
        // No limit is the highest.
        self.bytes_per_second =
            if rates.contains(&0) { 0 } else { rates.last().copied().unwrap_or(0) };
        let times = plan.faults.iter().filter_map(|fault| match fault.kind {
            FaultKind::Times { to } => Some(to.heartbeat),
            _ => None,
        });
        let longest = plan.tunings().map(|tuning| tuning.heartbeat).max().unwrap_or_default();
        self.heartbeat = longest * times.max().unwrap_or(100).max(100) / 100;
    }

    pub(super) fn on_death(&mut self, node: usize) {
        self.by[node] = None;
    }

    /// `now`: by the clock of the node that sends it.
    pub(super) fn on_piece(
        &mut self,
        node: usize,
        now: Instant,
        to: NodeId,
        piece: &SentPiece,
    ) -> Checked {
        if self.bytes_per_second == 0 {
            return Ok(());
        }
        let rate = u128::from(self.bytes_per_second);
        let new = Sender { term: piece.term, to: BTreeSet::new(), piece: 0, at: now, ahead: 0 };
        let sender = self.by[node].take().filter(|of| of.term == piece.term).unwrap_or(new);
        let sender = self.by[node].insert(sender);
        sender.to.insert(to);
        sender.piece = sender.piece.max(piece.bytes);
        let passed = now.since(sender.at).as_nanos();
        sender.at = now;
        sender.ahead =
            sender.ahead.saturating_sub(passed * rate) + u128::from(piece.bytes) * SECOND;
        let share = self.heartbeat.as_nanos() * rate / SHARE;
        let read = u128::from(sender.piece) * sender.to.len() as u128 * SECOND;
        if sender.ahead <= share + read {
            return Ok(());
        }
        let what = format!(
            "has sent {} bytes of snapshots more than {} in a second make, and a lead of {} is what \
             a share of a heartbeat and {} peers excuse",
            sender.ahead / SECOND,
            self.bytes_per_second,
            (share + read) / SECOND,
            sender.to.len()
        );
        Err(Violation::new("snapshots go no faster than is configured", node, what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::MS;
    use lakebed::LogId;

    /// Sends pieces of a thousand bytes to so many peers in turn, one each so often; says how many are let
    /// through.
    fn let_through(bytes_per_second: u64, peers: u64, every: u64) -> u64 {
        let mut plan = Plan::calm(0, 3);
        plan.tuning.transfer_bytes_per_second = bytes_per_second;
        let mut rates = Rates::new(1);
        rates.hold_to(&plan);
        let piece = SentPiece { term: Term(1), at: LogId::ZERO, offset: 0, bytes: 1000 };
        let sent = (0..1000).take_while(|n| {
            rates.on_piece(0, Instant(n * every), NodeId(2 + n % peers), &piece).is_ok()
        });
        sent.count() as u64
    }

    #[test]
    fn what_the_rate_allows_goes_on_for_ever() {
        assert_eq!(let_through(100_000, 1, 10 * MS), 1000);
        assert_eq!(let_through(0, 1, 0), 1000, "there is no limit");
    }

    #[test]
    fn more_is_told_once_a_share_and_pieces_excuse_it_no_longer() {
        // What a sixteenth of ten milliseconds brings, and a piece for each peer.
        assert_eq!(let_through(100_000, 1, 0), 1);
        assert_eq!(let_through(100_000, 2, 0), 2);
        assert_eq!(let_through(100_000, 1, 9 * MS), 1, "a tenth too soon");
        assert_eq!(let_through(2_000_000, 1, 0), 2, "the share is more than a piece");
        assert_eq!(let_through(2_000_000, 1, MS / 4), 3, "and half of the next is paid for");
    }
}
