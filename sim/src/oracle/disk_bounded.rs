//! What lies on a node's disk once nothing happens is what its log and its newest snapshots take up: whatever
//! was cut, replaced, received or broken off is gone (storage.md, compaction).
//!
//! Knows names and lengths alone.

use super::{Checked, Violation};
use crate::plan::{Fault, FaultKind, Plan};
use lakebed::{File, Status, Tuning};

/// Beside its newest snapshot a node keeps the one before.
const SNAPSHOTS_KEPT: usize = 2;
/// One of its own that is being taken, and one that an install left that was broken off.
const PARTS_MAX: usize = 2;

/// `failed`: operations have, whether the plan says so or a fork of it was told to.
pub(super) fn check(
    node: usize,
    files: &[(File, u64)],
    status: &Status,
    (plan, failed): (&Plan, bool),
) -> Checked {
    let of = |is: fn(&File) -> bool| {
        let lens = files.iter().filter(move |(file, _)| is(file)).map(|(_, len)| *len);
        (lens.clone().count(), lens.sum::<u64>())
    };
    let (snapshots, snapshot_bytes) = of(|file| matches!(file, File::Snapshot(_)));
    let (parts, _) = of(|file| matches!(file, File::Part(..)));
    let (segments, segment_bytes) = of(|file| matches!(file, File::Segment(_)));
    let (spares, _) = of(|file| matches!(file, File::Spare(_)));
    let segment = plan.segment_bytes;
    let most = |of: fn(&Tuning) -> u64| plan.tunings().map(|tuning| of(&tuning)).max();
    let log = most(|tuning| tuning.snapshot_log_bytes).unwrap_or_default();
    let retained = most(|tuning| tuning.retain_log_bytes).unwrap_or_default();
    let complain = |what: String| Err(Violation::new("disk within its limits", node, what));
    // Where none could be taken in time the log is as long as that took, and one that a restart could not
    // read is kept until there are two newer ones.
    let fails = |fault: &Fault| {
        matches!(
            fault.kind,
            FaultKind::DiskFull { .. }
                | FaultKind::HungDisk { .. }
                | FaultKind::SlowDisk { .. }
                | FaultKind::FailedOperation { .. }
                | FaultKind::SyncFailure { .. }
                | FaultKind::UnheardFailure { .. }
        )
    };
    let has_failures = failed || plan.faults.iter().any(fails);
    let kept = SNAPSHOTS_KEPT + usize::from(has_failures) + plan.backups_of(node);
    if snapshots > kept + status.snapshots_damaged as usize {
        return complain(format!(
            "holds {snapshots} snapshots, of which {} are damaged",
            status.snapshots_damaged
        ));
    }
    if parts > PARTS_MAX {
        return complain(format!("holds {parts} parts of snapshots"));
    }
    // What the log takes from one snapshot to the next, twice, and the one that is being made.
    let spares_max = 2 + 2 * log.div_ceil(segment) as usize;
    if spares > spares_max {
        return complain(format!("holds {spares} spares, and needs no more than {spares_max}"));
    }
    let between = log.max(4 * snapshot_bytes);
    let most = retained + 2 * between + 4 * segment;
    let takes_snapshots =
        plan.tunings().all(|tuning| tuning.snapshot_log_bytes > 0) && !has_failures;
    if takes_snapshots && segment_bytes > most {
        return complain(format!(
            "holds {segments} segments of {segment_bytes} bytes, and {most} are their limit"
        ));
    }
    Ok(())
}
