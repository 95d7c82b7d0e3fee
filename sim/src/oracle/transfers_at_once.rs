//! No more members are sent a snapshot at one time than `Tuning::transfers_max` says (protocol.md; config.rs):
//! what is kept for each of them, log and files, is so much at most.
//!
//! Seen on the wire alone. A transfer that begins anew begins with the first byte, so pieces behind that
//! belong to one transfer, from the first of them to the last. What lies before and behind is not counted:
//! nobody outside sees when a turn was given, or given back.

use super::{Checked, Violation};
use crate::plan::Plan;
use lakebed::{NodeId, Term, inspect::SentPiece};
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub(super) struct Transfers {
    most: u32,
    by: Vec<Sender>,
}

/// What a node sends in the term that it leads.
#[derive(Clone, Debug, Default)]
struct Sender {
    term: Term,
    /// Pieces that it has sent.
    sent: u64,
    /// Of the transfer to each peer the first piece and the last, counted like this; none: it has but begun.
    runs: BTreeMap<NodeId, Option<(u64, u64)>>,
}

impl Transfers {
    pub(super) fn new(nodes: usize) -> Self {
        Self { most: u32::MAX, by: vec![Sender::default(); nodes] }
    }

    pub(super) fn hold_to(&mut self, plan: &Plan) {
        self.most = plan.tunings().map(|tuning| tuning.transfers_max).max().unwrap_or(u32::MAX);
    }

    pub(super) fn on_death(&mut self, node: usize) {
        self.by[node] = Sender::default();
    }

    pub(super) fn on_piece(&mut self, node: usize, to: NodeId, piece: &SentPiece) -> Checked {
        let sender = &mut self.by[node];
        if sender.term != piece.term {
            *sender = Sender { term: piece.term, ..Sender::default() };
        }
        sender.sent += 1;
        let (now, run) = (sender.sent, sender.runs.entry(to).or_default());
        if piece.offset == 0 {
            *run = None;
            return Ok(());
        }
        let (begun, _) = run.unwrap_or((now, now));
        *run = Some((begun, now));
        // Of several that share a moment one begins there.
        let runs = || sender.runs.iter().filter_map(|(to, run)| Some((*to, (*run)?)));
        for (_, (moment, _)) in runs() {
            let shares =
                |(_, (first, last)): &(NodeId, (u64, u64))| (*first..=*last).contains(&moment);
            let at_once: Vec<u64> = runs().filter(shares).map(|(to, _)| to.0).collect();
            if at_once.len() > self.most as usize {
                let what = format!(
                    "sends nodes {at_once:?} a snapshot at one time, and {} at most are sent one",
                    self.most
                );
                return Err(Violation::new("transfers wait for their turn", node, what));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lakebed::LogId;

    fn told(most: u32, pieces: &[(u64, u64, u64)]) -> Option<usize> {
        let mut plan = Plan::calm(0, 3);
        plan.tuning.transfers_max = most;
        let mut transfers = Transfers::new(1);
        transfers.hold_to(&plan);
        pieces.iter().position(|&(term, to, offset)| {
            let piece = SentPiece { term: Term(term), at: LogId::ZERO, offset, bytes: 10 };
            transfers.on_piece(0, NodeId(to), &piece).is_err()
        })
    }

    #[test]
    fn one_after_the_other_is_no_two_at_once() {
        let one_by_one = [(1, 2, 0), (1, 2, 10), (1, 3, 0), (1, 3, 10), (1, 3, 20)];
        assert_eq!(told(1, &one_by_one), None);
        // Where it begins anew it may have waited.
        let again = [(1, 2, 10), (1, 3, 10), (1, 3, 20), (1, 2, 0), (1, 2, 10), (1, 2, 20)];
        assert_eq!(told(1, &again), None);
        // What a leader of another term sent is nothing to this one.
        assert_eq!(told(1, &[(1, 2, 10), (1, 3, 10), (2, 2, 20), (2, 3, 20)]), None);
    }

    #[test]
    fn two_at_once_are_told_when_the_first_goes_on() {
        let both = [(1, 2, 0), (1, 2, 10), (1, 3, 0), (1, 3, 10), (1, 2, 20)];
        assert_eq!(told(1, &both), Some(4));
        assert_eq!(told(2, &both), None);
    }
}
