//! Disks that have no room: an input and not a surprise.

use lakebed::Mark;
use lakebed_scenarios::{
    machine::Ledger,
    telling::{Cluster, Told, tell_of},
};
use lakebed_sim::{
    Violation,
    disk::Survivors,
    plan::{MS, Plan},
    storm::{converge, leader, run_for, run_until, serve, write},
};

/// Short segments, and no snapshot that makes any superfluous: a full disk is noticed soon.
fn plan(seed: u64) -> Plan {
    let mut plan = Plan::calm(seed, 3);
    plan.tuning.snapshot_log_bytes = 0;
    plan.segment_bytes = 8 << 10;
    plan.tuning.append_bytes_max = 2 << 10;
    plan
}

fn tell(name: &str, plan: &Plan, story: impl Fn(&mut Cluster) -> Told) {
    tell_of(name, plan, Ledger::default, story);
}

/// The leader of a cluster that serves.
fn led(world: &mut Cluster) -> Result<usize, Violation> {
    serve(world)?;
    run_for(world, 50 * MS)?;
    Ok(leader(world).expect("a cluster that serves has a leader"))
}

fn heals(world: &mut Cluster, down: &[usize]) -> Told {
    down.iter().for_each(|node| world.restart(*node));
    world.heal();
    serve(world)?;
    converge(world)
}

/// Service resumes by itself when there is room again, and reads go on meanwhile.
#[test]
fn a_full_disk_is_an_input_and_not_a_surprise() {
    tell("a_full_disk_is_an_input_and_not_a_surprise", &plan(5), |world| {
        let first_leader = led(world)?;
        (0..3).for_each(|node| world.fill_disk(node));
        run_for(world, 5_000 * MS)?;
        assert!((0..3).all(|node| world.probe(node).is_some()), "a full disk ends nobody");
        assert_eq!(leader(world), Some(first_leader), "nobody else would be of more use");
        heals(world, &[])
    });
}

/// A quorum has room: whoever leads without any gives way to one who takes writes, and later back.
#[test]
fn a_leader_without_room_gives_way() {
    for seed in 0..6 {
        tell("a_leader_without_room_gives_way", &plan(seed), |world| {
            let mut before = led(world)?;
            for _ in 0..2 {
                world.fill_disk(before);
                let another = |world: &Cluster| leader(world).is_some_and(|now| now != before);
                run_until(world, 5_000 * MS, "another leader", another)?;
                assert!(world.marks_of(before).has(Mark::GaveWayForRoom));
                write(world, b"news")?;
                world.heal();
                run_for(world, 500 * MS)?;
                before = leader(world).expect("it leads on");
            }
            heals(world, &[])
        });
    }
}

/// What is kept for a member that is away goes when the disk has no room for more: it is sent a snapshot when
/// it is back, and nobody's writes wait for it.
#[test]
fn log_that_is_kept_for_others_goes_before_writes_are_refused() {
    let name = "log_that_is_kept_for_others_goes_before_writes_are_refused";
    for seed in 0..5 {
        let mut plan = plan(seed);
        plan.tuning.snapshot_log_bytes = 8 << 10;
        tell(name, &plan, |world| {
            let first_leader = led(world)?;
            let node = (first_leader + 1) % 3;
            world.cut_power(node, Survivors::All);
            let keeps = |world: &Cluster| world.marks_of(first_leader).has(Mark::LogKeptForMember);
            run_until(world, 5_000 * MS, "log that is kept", keeps)?;
            run_for(world, 1_000 * MS)?;
            let first = |world: &Cluster| world.probe(first_leader).map(|probe| probe.first);
            let before = first(world);
            world.fill_disk(first_leader);
            let is_gone = |world: &Cluster| first(world) > before;
            run_until(world, 5_000 * MS, "room for more", is_gone)?;
            assert!(world.marks_of(first_leader).has(Mark::LogLetGoForRoom));
            let before = world.acknowledged();
            run_for(world, 500 * MS)?;
            assert!(world.acknowledged().0 > before.0 + 100, "writes go on");
            assert_eq!(leader(world), Some(first_leader), "under the same leader");
            heals(world, &[node])
        });
    }
}
