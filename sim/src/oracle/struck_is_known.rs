//! An entry that was damaged on a disk is whole there again, or its node says that it lacks one: in the last
//! segment, of which a restart reads behind the votes that it gives what it believed before (unless the log was
//! cut since, back into another one), and in all of them if it scrubs (recovery.md, damage found late; config.rs,
//! `Tuning::scrub_interval`).
//!
//! What a node does not know to be bad nobody gives again, and it counts for whole when the next disk is
//! damaged. Asked when nothing happens any more, as reading takes its time.

use super::{Checked, Violation};
use lakebed::inspect::Probe;

/// `bad`: the first entry of its log that was damaged, and is what damage made of it.
pub(super) fn check(node: usize, probe: &Probe, bad: Option<u32>) -> Checked {
    let Some(bad) = bad.filter(|_| probe.ready && !probe.holed) else { return Ok(()) };
    let what = format!(
        "calls its log whole, from {} to {}, and entry {bad} was damaged and is bad still",
        probe.first, probe.durable
    );
    Err(Violation::new("what was struck is known", node, what))
}
