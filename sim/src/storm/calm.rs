//! Where nothing happens any more: whoever leads goes on to, and nobody is busy.

use super::{describe, is_one_log, leader, run_for, run_until};
use crate::{
    client::Workload,
    oracle::{Checked, Violation},
    plan::MS,
    world::World,
};
use lakebed::StateMachine;
use std::time::Duration;

/// Nothing may change for so long.
const CALM: u64 = 1_000 * MS;
/// So many events has each node in a heartbeat then, at most: twice what was ever seen.
const EVENTS_OF_BEAT: u64 = 7;
/// So often a scrub reads of a file, beside each 64 KiB.
const READS_OF_FILE: u64 = 3;

/// Nothing happens any more, so whoever leads goes on to, unless links alone may be too slow for the timeouts that
/// are in force by now; and the log stays one.
pub(super) fn stays_calm<M: StateMachine, W: Workload>(world: &mut World<M, W>) -> Checked {
    let reign = |world: &World<M, W>| {
        leader(world).map(|leader| (leader + 1, world.probe(leader).map(|probe| probe.term)))
    };
    let before = reign(world);
    let events = world.stats().events;
    run_for(world, CALM)?;
    stays_quiet(world, world.stats().events - events)?;
    // A scrub may have come upon an entry at last that was struck before: it is given again.
    run_until(world, CALM, "all logs to be whole again", is_one_log)?;
    let after = reign(world);
    let may_change = !world.has_prompt_links();
    if (before == after || may_change) && is_one_log(world) {
        world.check_wanted()?;
        world.check_struck()?;
        return world.check_disks();
    }
    let nodes: Vec<String> = (0..world.nodes()).map(|node| describe(world, node)).collect();
    let what = format!(
        "without faults and load there was the leader {before:?} with one log, and {} ms later {}",
        CALM / MS,
        nodes.join("; ")
    );
    Err(Violation { invariant: "a calm cluster stays as it is", node: None, what })
}

/// Nothing happens any more, and so many events did while all was calm: heartbeats with their answers, and what
/// a scrub reads. A node that goes in a circle makes ten times as many.
fn stays_quiet<M: StateMachine, W: Workload>(world: &World<M, W>, events: u64) -> Checked {
    let often =
        |each: Duration| u64::try_from(CALM as u128 / each.as_nanos().max(1)).unwrap_or(CALM);
    let beats = world.plan().tunings().map(|tuning| often(tuning.heartbeat)).max();
    let scrubs = world.plan().tunings().map(|tuning| tuning.scrub_interval);
    let passes = scrubs.filter(|each| !each.is_zero()).map(|each| often(each) + 1).max();
    let reads = |node| {
        world.disk(node).list().map(|(_, len)| READS_OF_FILE + len / (64 << 10)).sum::<u64>()
    };
    let of_node = |node| {
        EVENTS_OF_BEAT * beats.unwrap_or_default() + passes.map_or(0, |passes| passes * reads(node))
    };
    let most: u64 = (0..world.nodes()).map(of_node).sum();
    if events <= most {
        return Ok(());
    }
    let what = format!(
        "without faults and load {events} events came within {} ms, {most} at most",
        CALM / MS
    );
    Err(Violation { invariant: "a calm cluster is quiet", node: None, what })
}
