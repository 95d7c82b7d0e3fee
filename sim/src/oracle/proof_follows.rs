//! What a node called durable its disk can prove before long: whatever was durable before an entry came is
//! proven once that entry is durable itself, and at once after a restart (storage.md: *proven*, floors).
//!
//! A bad entry above that is taken for a torn tail and cut, without a word, though it was acknowledged. No
//! damage shows that here, as none is done to what a disk does not prove.

use super::{Checked, Seen, Violation};
use lakebed::{LogIndex, inspect::Probe, report::LogFound};

#[derive(Clone, Debug)]
pub(super) struct Proofs(Vec<Option<Proof>>);

/// Of a node in its present life.
#[derive(Clone, Copy, Debug)]
struct Proof {
    /// The least that its disk is to prove.
    least: LogIndex,
    /// How long the log was at some time, and what was durable then.
    last: LogIndex,
    durable: LogIndex,
}

impl Proofs {
    pub(super) fn new(nodes: usize) -> Self {
        Self(vec![None; nodes])
    }

    pub(super) fn on_death(&mut self, node: usize) {
        self.0[node] = None;
    }

    /// A node that was judged showed something new.
    pub(super) fn on_view(&mut self, seen: &Seen<'_>) {
        let Probe { durable, last, .. } = seen.probe;
        let now = Proof { least: durable, last: last.index, durable };
        let proof = self.0[seen.node].get_or_insert(now);
        let least = if proof.last < durable { proof.durable } else { proof.least };
        if proof.last < durable || durable < proof.durable {
            *proof = now;
        }
        // A cut takes the proof with what it proves.
        proof.least = least.min(durable);
    }

    /// `found`: what a power cut would leave now.
    pub(super) fn check(&self, node: usize, found: Option<LogFound>) -> Checked {
        let Some(Proof { least, .. }) = self.0[node] else { return Ok(()) };
        let proven = found.map_or(LogIndex(0), |log| log.proven);
        if proven >= least {
            return Ok(());
        }
        let what = format!(
            "{least} was durable before what is durable by now came, and {proven} is what a power cut would \
             leave proof of"
        );
        Err(Violation::new("proof follows", node, what))
    }
}
