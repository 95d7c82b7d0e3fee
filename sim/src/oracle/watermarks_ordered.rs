//! `snapshot <= applied <= committed <= last` and `durable <= last`, at every step (architecture,
//! "The path of one write"). Nothing behind an entry that a restart found lost is durable
//! (storage.md, consequences of damage).

use super::{Checked, Seen, Violation};

pub(super) fn check(seen: &Seen<'_>) -> Checked {
    let probe = &seen.probe;
    let ordered = probe.snapshot.index <= probe.committed
        && probe.applied <= probe.committed
        && probe.committed <= probe.last.index
        && probe.durable <= probe.last.index
        && probe.owed.is_none_or(|owed| probe.durable < owed);
    if ordered || !probe.judged {
        return Ok(());
    }
    let what = format!(
        "snapshot {} applied {} committed {} durable {} last {} owed {:?}",
        probe.snapshot, probe.applied, probe.committed, probe.durable, probe.last, probe.owed
    );
    Err(Violation::new("watermarks ordered", seen.node, what))
}
