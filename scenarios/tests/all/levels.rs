//! Whoever is behind comes level: it is new, it comes back under another id, it lacks an entry, a segment, or more than
//! the log holds; two of them at once or one after the other, and who leads falls or hands over in the middle of it.

use lakebed::{File, LogIndex, Mark};
use lakebed_scenarios::{
    machine::Ledger,
    telling::{Cluster, Told, tell_of},
};
use lakebed_sim::{
    Violation,
    disk::Survivors,
    plan::{MS, Plan, Step, Steps, US},
    storm::{converge, leader, run_for, run_until, serve},
};
use std::cell::Cell;

const FOUNDERS: usize = 5;
const JOINING: usize = 2;
const PATIENCE: u64 = 10_000 * MS;

/// How a node comes to be behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// It is new.
    Joins,
    /// Its disk is gone for good: another id takes its place.
    Returns,
    /// By one entry or a few.
    Entry,
    /// By a segment.
    Segment,
    /// By more than anybody's log holds.
    Log,
}

const WAYS: [Way; 5] = [Way::Joins, Way::Returns, Way::Entry, Way::Segment, Way::Log];

impl Way {
    const fn needs_a_snapshot(self) -> bool {
        !matches!(self, Self::Entry | Self::Segment)
    }
}

fn heavy() -> Ledger {
    Ledger::heavy(60_000)
}

/// Five nodes and two who wait to be added; a snapshot takes a tenth of a second.
fn plan(seed: u64, way: Way) -> Plan {
    let mut plan = Plan::calm(seed, FOUNDERS + JOINING);
    plan.joining = JOINING;
    plan.segment_bytes = 32 << 10;
    plan.tuning.transfer_bytes_per_second = 600 << 10;
    plan.tuning.append_bytes_max = 2 << 10;
    plan.tuning.inflight_bytes_max = 8 << 10;
    if way.needs_a_snapshot() {
        plan.tuning.snapshot_log_bytes = 8 << 10;
        plan.tuning.retain_log_bytes = 0;
    }
    plan
}

fn last(world: &Cluster, node: usize) -> LogIndex {
    world.probe(node).map_or(LogIndex(0), |probe| probe.last.index)
}

fn leading(world: &Cluster) -> usize {
    leader(world).expect("somebody leads")
}

/// Who leads, among those that are level, as far as that is known.
fn head(world: &Cluster) -> LogIndex {
    (0..world.nodes()).map(|node| last(world, node)).max().expect("there are nodes")
}

fn segments(world: &Cluster, node: usize) -> u64 {
    let number = |(file, _)| if let File::Segment(number) = file { number } else { 0 };
    world.disk(node).list().map(number).max().unwrap_or(0)
}

fn change(world: &mut Cluster, steps: Vec<Step>) -> Told {
    world.want_change(&Steps(steps))?;
    run_until(world, PATIENCE, "a change", |world| !world.is_changing())
}

/// It is gone until the others are so far ahead.
fn falls_behind(world: &mut Cluster, way: Way, node: usize) -> Told {
    // Who is new has nothing.
    let is_new = matches!(way, Way::Joins | Way::Returns);
    let had = if is_new { LogIndex(0) } else { last(world, node) };
    let leader = leading(world);
    let begun = segments(world, leader);
    if way != Way::Joins {
        world.cut_power(node, Survivors::All);
    }
    run_until(world, PATIENCE, "what it lacks", |world| match way {
        Way::Entry => head(world) > had,
        Way::Segment => segments(world, leader) > begun + 1,
        Way::Joins | Way::Returns | Way::Log => {
            let mut up = (0..FOUNDERS).filter_map(|node| world.probe(node));
            up.all(|probe| probe.first > had.next())
        }
    })
}

/// It begins to catch up; under which number. `nth`: of those that come.
fn comes(world: &mut Cluster, way: Way, node: usize, nth: usize) -> Result<usize, Violation> {
    let new = FOUNDERS + nth;
    match way {
        Way::Joins => change(world, vec![Step::Add(new)])?,
        Way::Returns => change(world, vec![Step::Remove(node), Step::Add(new)])?,
        Way::Entry | Way::Segment | Way::Log => {
            world.restart(node);
            return Ok(node);
        }
    }
    Ok(new)
}

/// Another one leads from here on, or the same one anew.
fn leader_changes(world: &mut Cluster, falls: bool) -> Told {
    let old = leading(world);
    if falls {
        world.kill(old);
        run_until(world, PATIENCE, "another leader", |world| leader(world).is_some())?;
        world.restart(old);
        return Ok(());
    }
    world.hand_over(old, None)?;
    run_until(world, PATIENCE, "a leader", |world| leader(world).is_some_and(|now| now != old))
}

/// Of the nodes that are to come level, how many were not when the leader changed.
fn story(world: &mut Cluster, way: Way, at_once: bool, seed: u64) -> Result<usize, Violation> {
    serve(world)?;
    run_for(world, 50 * MS)?;
    let leader = leading(world);
    let mut behind = 0;
    let mut came = Vec::new();
    let rounds: &[&[usize]] = if at_once { &[&[1, 2]] } else { &[&[1], &[2]] };
    for round in rounds {
        let nodes: Vec<_> = round.iter().map(|far| (far, (leader + far) % FOUNDERS)).collect();
        let away = leading(world);
        let nodes: Vec<_> = nodes.into_iter().filter(|(_, node)| *node != away).collect();
        for (_, node) in &nodes {
            falls_behind(world, way, *node)?;
        }
        let mut these = Vec::new();
        for (far, node) in nodes {
            these.push(comes(world, way, node, far - 1)?);
        }
        run_for(world, seed % 8 * 700 * US)?;
        let head = head(world);
        behind += these.iter().filter(|node| last(world, **node) < head).count();
        leader_changes(world, seed.is_multiple_of(2))?;
        let are_level = |world: &Cluster| these.iter().all(|node| last(world, *node) >= head);
        run_until(world, PATIENCE, "nodes that are level", are_level)?;
        if these.iter().any(|node| *node >= FOUNDERS) {
            change(world, these.iter().map(|node| Step::Promote(*node)).collect())?;
        }
        came.extend(these);
    }
    for node in came {
        let was_sent = world.marks_of(node).has(Mark::Installed);
        assert!(was_sent || !way.needs_a_snapshot(), "node {node} came without a snapshot");
        assert!(way.needs_a_snapshot() || !was_sent, "node {node} was sent what it has");
    }
    world.heal();
    serve(world)?;
    converge(world)?;
    Ok(behind)
}

#[test]
fn whoever_is_behind_comes_level_whoever_leads() {
    for (way, at_once) in WAYS.into_iter().flat_map(|way| [(way, true), (way, false)]) {
        let behind = Cell::new(0);
        for seed in 0..4 {
            let name = "whoever_is_behind_comes_level_whoever_leads";
            tell_of(name, &plan(seed, way), heavy, |world| {
                story(world, way, at_once, seed).map(|nodes| behind.set(behind.get() + nodes))
            });
        }
        println!("{way:?}, at once: {at_once}: {} were behind as the leader changed", behind.get());
        assert!(behind.get() > 3, "{way:?}, {at_once}: {}", behind.get());
    }
}
