//! `snapshot <= applied <= committed <= last` and `durable <= last`, at every step (architecture,
//! "The path of one write").

use super::{Checked, Seen, Violation};

pub(super) fn check(seen: &Seen<'_>) -> Checked {
    let probe = &seen.probe;
    let ordered = probe.snapshot.index <= probe.committed
        && probe.applied <= probe.committed
        && probe.committed <= probe.last.index
        && probe.durable <= probe.last.index;
    if ordered || !probe.judged {
        return Ok(());
    }
    let what = format!(
        "snapshot {} applied {} committed {} durable {} last {}",
        probe.snapshot, probe.applied, probe.committed, probe.durable, probe.last
    );
    Err(Violation::new("watermarks ordered", seen.node, what))
}
