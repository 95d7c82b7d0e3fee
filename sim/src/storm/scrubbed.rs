//! What goes bad on the disk of a node that runs its scrub finds before a restart needs it: within two passes,
//! when nothing else happens (recovery.md, damage found late; config.rs, `Tuning::scrub_interval`).
//!
//! Asked at the very end, of storms whose nodes scrub so often that it is no long wait: one node, and one bit
//! of a snapshot or of an entry in a full segment. It is found when the node says so, or has it no longer.

use super::{LIVENESS, run_for, run_until};
use crate::{
    client::Workload,
    oracle::{Checked, Violation},
    plan::MS,
    world::World,
};
use lakebed::{File, StateMachine};

/// How long reading may take beside.
const READING: u64 = 100 * MS;

pub(super) fn finds<M: StateMachine, W: Workload>(world: &mut World<M, W>) -> Checked {
    if !world.plan().scrubs_often() {
        return Ok(());
    }
    let interval = world.plan().tuning.scrub_interval.as_nanos() as u64;
    let seed = world.plan().seed;
    let node = (seed % world.nodes() as u64) as usize;
    let pick = seed / world.nodes() as u64;
    let is_sound = world.probe(node).is_some_and(|probe| probe.ready && !probe.holed)
        && world.status(node).is_some_and(|status| status.snapshots_damaged == 0);
    let Some(file) = is_sound.then(|| strike(world, node, pick)).flatten() else { return Ok(()) };
    let struck = world.disk(node).content(file);
    let is_found = |world: &World<M, W>| {
        let is_told = world.probe(node).is_some_and(|probe| probe.holed)
            || world.status(node).is_some_and(|status| status.snapshots_damaged > 0);
        is_told || world.disk(node).content(file) != struck
    };
    let within = world.plan().longest(2 * interval) + READING;
    let told = run_until(world, within, "a scrub", is_found);
    told.map_err(|violation| {
        if violation.invariant != LIVENESS {
            return violation;
        }
        let what = format!(
            "has said nothing of {file} for {} ms, which is bad, and reads it each {} ms",
            within / MS,
            interval / MS
        );
        Violation::new("a scrub finds what goes bad", node, what)
    })?;
    // And gets over it.
    run_for(world, READING)
}

/// A bit of a snapshot is another one, or of an entry; `None`: there is neither.
fn strike<M: StateMachine, W: Workload>(
    world: &mut World<M, W>,
    node: usize,
    pick: u64,
) -> Option<File> {
    let files: Vec<File> = world.disk(node).list().map(|(file, _)| file).collect();
    let mut snapshots = files.iter().copied().filter_map(|file| match file {
        File::Snapshot(at) => Some(at),
        _ => None,
    });
    let oldest = files.iter().copied().find(|file| matches!(file, File::Segment(_)));
    if pick.is_multiple_of(3) && world.rot_running(node, pick) {
        return oldest;
    }
    let at = if pick.is_multiple_of(2) { snapshots.next() } else { snapshots.next_back() }?;
    world.rot_snapshot(node, at, pick).then_some(File::Snapshot(at))
}
