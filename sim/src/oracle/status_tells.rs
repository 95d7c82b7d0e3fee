//! What a node says of itself to people is what it is (docs/watching.md), and what a leader says of a peer
//! is no more than that peer ever told it. What it notes is what there is.

use super::{Checked, Seen, Violation, acknowledged_survives::Promises};
use lakebed::{LogIndex, Note, Status};

const INVARIANT: &str = "a node says what it is";

pub(super) fn check(seen: &Seen<'_>, status: &Status, promises: &Promises) -> Checked {
    let (probe, node) = (&seen.probe, seen.node);
    let said = (status.role, status.term, status.leader);
    let marks = |of: [LogIndex; 5]| of.map(|index| index.0);
    let said_marks =
        marks([status.first, status.applied, status.committed, status.durable, status.last]);
    let own_marks =
        marks([probe.first, probe.applied, probe.committed, probe.durable, probe.last.index]);
    if said != (probe.role, probe.term, probe.leader) || said_marks != own_marks {
        let what = format!(
            "says {said:?} first, applied, committed, durable, last {said_marks:?}, and is {:?} \
             {own_marks:?}",
            (probe.role, probe.term, probe.leader)
        );
        return Err(Violation::new(INVARIANT, node, what));
    }
    for tally in [status.transfers, status.changes] {
        let ended = tally.done + tally.given_up;
        if !(ended..=ended + 1).contains(&tally.asked) {
            let what = format!("says {tally:?}, and one is under way at most");
            return Err(Violation::new(INVARIANT, node, what));
        }
    }
    for peer in &status.peers {
        let most = promises.ever(peer.node.0 as usize - 1);
        if peer.matched > most {
            let what = format!(
                "says that node {} holds {}, and {most} is the most that it ever did",
                peer.node, peer.matched
            );
            return Err(Violation::new(INVARIANT, node, what));
        }
    }
    Ok(())
}

pub(super) fn on_note(seen: &Seen<'_>, note: &Note) -> Checked {
    let probe = &seen.probe;
    let what = match note {
        Note::Snapshot(id) if *id != probe.snapshot => {
            format!("notes a snapshot of {id}, and its newest is of {}", probe.snapshot)
        }
        // A snapshot that takes the log's place moves it on before the disk has followed.
        Note::Compacted(first) if *first > probe.first => {
            format!("notes that its log begins at {first}, and that begins at {}", probe.first)
        }
        _ => return Ok(()),
    };
    Err(Violation::new(INVARIANT, seen.node, what))
}
