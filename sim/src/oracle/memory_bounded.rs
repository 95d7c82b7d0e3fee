//! What a node holds in memory stays within what is configured (simulation, I22): proposals that wait,
//! log that is kept for peers and the machine, what waits behind a snapshot, and what peers gave of lost entries.
//!
//! Log that is not durable cannot be given back, so it comes on top, twice: as log, and as what is to be
//! written. How much of it there is nobody sees from outside; it is taken to be as large as it may be: as
//! many entries as there are, and no more than a window, from each leader that was followed one append
//! more, as whoever leads begins to ask with one; or all that may wait behind a snapshot, which comes into
//! the log at one moment. What a piece costs beside its entries comes with each.
//!
//! It believes the node's word of what it holds; `scenarios/tests/memory.rs` asks the allocator.

use super::{Checked, Seen, Violation};
use crate::plan::Plan;
use lakebed::{Mark, Status, Tuning};

/// So many appends of lost entries are held as peers gave them, by a node that ever lost one.
const GIVEN: u128 = 4;
/// What a piece of the log costs beside its entries.
const PIECE: u128 = 256;
/// So many leaders may follow each other while a disk hangs.
const LEADERS: u128 = 8;
/// So many pieces may be on the way from each.
const WINDOW: u128 = 1024;

pub(super) fn check(seen: &Seen<'_>, status: &Status, plan: &Plan) -> Checked {
    // What a plan sets may be as large as numbers are.
    let wide = u128::from;
    let held = wide(status.memory_bytes);
    let open = wide(seen.probe.last.index.0.saturating_sub(seen.probe.durable.0));
    let (tuning, cache) = (&plan.tuning, wide(plan.cache_bytes_max()));
    let (proposed, append) = (wide(tuning.propose_bytes_max), wide(tuning.append_bytes_max.into()));
    let most_of = |of: fn(&Tuning) -> u64| wide(plan.tunings().map(|t| of(&t)).max().unwrap_or(0));
    let marks = status.marks;
    let waited = if marks.has(Mark::AppendWaited) { cache } else { 0 };
    let has_lost = marks.has(Mark::HolesFound) || marks.has(Mark::HoleFoundLate);
    let given = if has_lost { GIVEN * most_of(|t| t.append_bytes_max.into()) } else { 0 };
    let windows = most_of(|t| t.inflight_bytes_max);
    let most = windows.max(proposed).max(waited) + LEADERS * append;
    // What holds the last durable entry may hold as much again that is not.
    let pieces = open.min(LEADERS * WINDOW) * PIECE;
    let limit = cache + proposed + 2 * most.min(open * append) + pieces + append + given;
    if held <= limit {
        return Ok(());
    }
    let what = format!(
        "holds {held} bytes in memory, and {limit} are its limit with {open} entries not durable"
    );
    Err(Violation::new("memory within its limits", seen.node, what))
}
