//! A quorum that is lost for ever: the survivor goes on by force, wherever it crashes on its way,
//! grows again by nodes that join, and those of before stay out, whatever they bring.

use lakebed::{Forced, Halt, Mark, Marks, Role};
use lakebed_scenarios::{
    Ask,
    machine::Ledger,
    telling::{Cluster, Told, what_if},
    workload,
};
use lakebed_sim::{
    Seed, Violation, World,
    disk::Survivors,
    plan::{FaultKind, Harm, MS, Part, Plan, Step, Steps},
    storm::{converge, leader, observe, run_for, run_until, serve, write},
};

/// Three founders, and two who wait to be added.
const JOINING: [usize; 2] = [3, 4];

/// Small segments; snapshots early in every other one, so that a joiner gets the log or one.
fn plan(seed: u64) -> Plan {
    let mut plan = Plan::calm(seed, 5);
    plan.joining = JOINING.len();
    plan.segment_bytes = 16 << 10;
    plan.tuning.append_bytes_max = 4 << 10;
    plan.tuning.inflight_bytes_max = 16 << 10;
    plan.tuning.retain_log_bytes = 0;
    if seed.is_multiple_of(2) {
        plan.tuning.snapshot_log_bytes = 8 << 10;
    }
    plan
}

fn tell(seed: u64, mut story: impl FnMut(&mut Cluster) -> Told) {
    let mut world = World::new(plan(seed), Ledger::default, workload as Ask);
    // What a loss takes away the reference is made again without.
    world.keep_inputs();
    if observe(Seed::new(seed), world.clone(), &mut story).is_err() {
        let failure = observe(Seed::new(seed).traced(), world, &mut story).unwrap_err();
        panic!("seed {seed}: {}\n{}", failure.violation, failure.lines.join("\n"));
    }
}

/// A cluster that has lived a while loses its power, all of it; who the survivor is. `lags`: it was
/// cut off before, and others went on without it.
fn lose(world: &mut Cluster, seed: u64, lags: bool) -> Result<usize, Violation> {
    run_until(world, 3_000 * MS, "a leader", |world| leader(world).is_some())?;
    run_for(world, (200 + seed % 7 * 60) * MS)?;
    let first = leader(world).expect("it serves");
    let survivor = if lags { (first + 1) % 3 } else { seed as usize % 3 };
    if lags {
        world.isolate(survivor, true);
        let before = world.acknowledged();
        run_until(world, 3_000 * MS, "writes without it", |world| {
            world.acknowledged().0 > before.0 + 5
        })?;
    } else {
        write(world, b"to all")?;
        run_until(world, 3_000 * MS, "the survivor to have it", |world| {
            world.probe(survivor).is_some_and(|probe| probe.durable >= world.acknowledged())
        })?;
    }
    let survivors = Survivors::ALL[seed as usize % 7];
    (0..3).for_each(|node| world.cut_power(node, survivors));
    world.readmit(survivor);
    Ok(survivor)
}

/// It is forced, and its power fails each time when its disk has come so many steps further.
fn force(world: &mut Cluster, node: usize, steps: &[u64]) -> Result<(Forced, bool), Violation> {
    let plan = world.force(node)?;
    let mut was_cut = false;
    for (turn, steps) in steps.iter().enumerate() {
        let until = world.disk_steps(node) + steps;
        while world.is_forcing() && world.disk_steps(node) < until {
            world.step()?;
        }
        if !world.is_forcing() {
            break;
        }
        was_cut = true;
        world.cut_power(node, Survivors::ALL[(turn + *steps as usize) % 7]);
        world.restart(node);
    }
    run_until(world, 3_000 * MS, "it to be forced", |world| !world.is_forcing())?;
    Ok((plan, was_cut))
}

/// Alone, then three, and in between one of before comes back.
fn grow_again(world: &mut Cluster, node: usize, seed: u64) -> Told {
    serve(world)?;
    assert_eq!(leader(world), Some(node), "nobody else votes");
    let members = world.members(node).expect("it is up");
    assert_eq!(members.members().count(), 1, "{members}");
    let old: Vec<usize> = (0..3).filter(|at| *at != node).collect();
    let comes_early = seed.is_multiple_of(3);
    if comes_early {
        comes_back(world, node, old[0])?;
    }
    for (turn, new) in JOINING.into_iter().enumerate() {
        for step in [Step::Add(new), Step::Promote(new)] {
            world.want_change(&Steps(vec![step]))?;
            run_until(world, 5_000 * MS, "a change", |world| !world.is_changing())?;
        }
        if turn == 0 {
            // The only voter of before is one of two now, and both may lead.
            world.cut_power(new, Survivors::Random);
            world.restart(new);
            serve(world)?;
        }
    }
    let members = world.members(node).expect("it is up");
    assert_eq!(members.voters.len(), 3, "{members}");
    if !comes_early {
        comes_back(world, node, old[0])?;
    }
    comes_back(world, node, old[1])?;
    for at in [node, 3, 4] {
        world.cut_power(at, Survivors::ALL[(seed as usize + at) % 7]);
        world.restart(at);
    }
    serve(world)?;
    converge(world)
}

/// It was thought to be lost, and has all that it ever had.
fn comes_back(world: &mut Cluster, node: usize, old: usize) -> Told {
    let members = world.members(node);
    world.bring_back(old);
    run_until(world, 5_000 * MS, "it to be told", |world| world.has_left(old))?;
    assert_eq!(world.members(node), members, "it has changed nothing");
    Ok(())
}

#[test]
fn a_survivor_that_is_forced_keeps_what_it_held_wherever_it_crashes() {
    let (mut cut, mut told, mut marks) = (0, 0, Marks::default());
    for steps in 1..44_u64 {
        let seed = steps % 14;
        tell(seed, |world| {
            let node = lose(world, seed, false)?;
            let promised = world.acknowledged();
            let (plan, was_cut) = force(world, node, &[steps, steps / 2])?;
            assert!(plan.last.index >= promised, "{plan} lacks what it held: {promised}");
            assert_eq!(plan.known_loss(), None, "{plan}");
            cut += u32::from(was_cut);
            grow_again(world, node, seed)?;
            told += 1;
            marks.add(world.marks());
            Ok(())
        });
    }
    for mark in [Mark::QuorumForced, Mark::OldEpochRefused, Mark::OtherEpochDropped] {
        assert!(marks.has(mark), "{mark:?}");
    }
    assert!(cut > 20 && told == 43, "{cut} of {told} were cut");
}

/// It was cut off before: what others had acknowledged meanwhile is lost, said to be, and no more.
#[test]
fn what_a_survivor_lacks_is_lost_and_nothing_else() {
    let mut lost = 0;
    for seed in 0..14_u64 {
        tell(seed, |world| {
            let node = lose(world, seed, true)?;
            let promised = world.acknowledged();
            let (plan, _) = force(world, node, &[seed * 3])?;
            lost += u32::from(plan.last.index < promised);
            grow_again(world, node, seed)
        });
    }
    assert!(lost > 7, "something was lost {lost} times");
}

/// A part of its disk is damaged while it is down.
fn damage(world: &mut Cluster, node: usize, part: Part, pick: u64) -> Told {
    let (harm, survivors) = (Harm::Rot, Survivors::All);
    world.strike(&FaultKind::Damage { node, part, harm, pick, survivors, down: 500_000 * MS })
}

/// What it has twice costs nothing, nor does an entry that the newest snapshot holds. One behind that,
/// which nobody is left to give again, ends the log. The oracle holds each report to what was damaged, and
/// the node to its report.
#[test]
fn damage_on_a_survivor_costs_what_its_report_says_and_nothing_else() {
    let parts = [Part::Slots, Part::Header, Part::EndRecord, Part::Snapshot, Part::Entries];
    let (mut struck, mut lost, mut spared) = ([0; 5], 0, 0);
    for seed in 0..28_u64 {
        tell(seed, |world| {
            let node = lose(world, seed, seed % 3 == 0)?;
            let whole = world.would_force(node).expect("nothing is wrong with it");
            let promised = world.acknowledged().min(whole.last.index);
            let before = world.restart_digest(node, world.disk(node));
            for ((n, part), struck) in (0..).zip(parts).zip(&mut struck) {
                let story = seed * parts.len() as u64 + n;
                what_if(world, |world| {
                    for place in 0..=story % 2 {
                        damage(world, node, part, story * 7919 + place * 31)?;
                    }
                    let is_struck = world.restart_digest(node, world.disk(node)) != before;
                    *struck += u32::from(is_struck);
                    let (plan, _) = force(world, node, &[story % 23, story % 11])?;
                    if part == Part::Entries {
                        lost += u32::from(plan.last.index < promised);
                        spared += u32::from(is_struck && plan.cut.is_none());
                        assert!(plan.cut.is_some() || plan.last.index >= promised, "{plan}");
                    } else {
                        assert!(plan.cut.is_none() && plan.last.index >= promised, "{plan}");
                    }
                    grow_again(world, node, story)
                })?;
            }
            Ok(())
        });
    }
    assert!(struck.iter().all(|struck| *struck > 20), "{struck:?} were struck");
    assert!(lost > 5 && spared > 5, "{lost} lost something, {spared} did not");
}

/// Anything may be bad, or gone. It is refused, or goes on with what it says that it has.
#[test]
fn a_ruined_survivor_is_refused_or_held_to_its_report() {
    let (mut refused, mut lost, mut went_on) = (0, 0, 0);
    for seed in 0..40_u64 {
        tell(seed, |world| {
            let node = lose(world, seed, false)?;
            let promised = world.acknowledged();
            for (n, harm) in (0..).zip([Harm::Rot, Harm::Zero, Harm::RotAll, Harm::Gone]) {
                let story = seed * 4 + n;
                what_if(world, |world| {
                    let pick = (story << 32) * 13 + story;
                    world.strike(&FaultKind::Ruin { node, harm, pick, down: 500_000 * MS })?;
                    match world.would_force(node) {
                        Err(Halt::Refused { .. } | Halt::NotFormatted) => refused += 1,
                        Err(halt) => panic!("story {story}: {halt}"),
                        Ok(_) => {
                            let (plan, _) = force(world, node, &[story % 19, story % 7])?;
                            lost += u32::from(plan.last.index < promised);
                            went_on += 1;
                            grow_again(world, node, story)?;
                        }
                    }
                    Ok(())
                })?;
            }
            Ok(())
        });
    }
    assert!(refused > 2 && lost > 15, "{refused} refused, {lost} of {went_on} lost something");
}

/// It is back before anybody could tell it, and asks for votes: nobody gives one.
#[test]
fn one_that_leads_nobody_is_told_by_whoever_it_asks() {
    for seed in 0..6_u64 {
        tell(seed, |world| {
            let node = lose(world, seed, false)?;
            force(world, node, &[])?;
            serve(world)?;
            let old = (node + 1) % 3;
            world.isolate(old, true);
            world.bring_back(old);
            run_for(world, 1_000 * MS)?;
            let role = world.probe(old).map(|probe| probe.role);
            assert!(!world.has_left(old) && role != Some(Role::Leader), "{role:?}");
            world.readmit(old);
            run_until(world, 5_000 * MS, "it to be told", |world| world.has_left(old))
        });
    }
}

/// Two of three were not lost after all: they are the cluster that they were, elect each other in
/// later and later terms, and speak to the survivor at its very first start. It hears none of it,
/// and they end.
#[test]
fn a_quorum_of_before_does_not_reach_into_the_new_cluster() {
    for seed in 0..12_u64 {
        tell(seed, |world| {
            let node = lose(world, seed, false)?;
            world.dismiss_clients();
            let (plan, _) = force(world, node, &[])?;
            run_until(world, 1_000 * MS, "its start", |world| world.probe(node).is_some())?;
            world.cut_power(node, Survivors::ALL[seed as usize % 7]);
            let old: Vec<usize> = (0..3).filter(|at| *at != node).collect();
            old.iter().for_each(|old| world.bring_back(*old));
            let leads = |world: &Cluster| leader(world).is_some_and(|leader| leader != node);
            for _ in 0..6 {
                run_until(world, 3_000 * MS, "a leader of before", leads)?;
                let leader = leader(world).expect("one leads");
                world.kill(leader);
                world.restart(leader);
            }
            run_until(world, 3_000 * MS, "a leader of before", leads)?;
            let term = world.probe(leader(world).expect("one leads")).map(|probe| probe.term);
            assert!(term > Some(plan.term.1.next()), "{term:?}");
            world.restart(node);
            // Its log does not say yet who is a member: its disk takes its time.
            run_until(world, 1_000 * MS, "its verdict", |world| {
                world.probe(node).is_some_and(|probe| probe.judged)
            })?;
            world.hang_disk(node);
            run_for(world, 60 * MS)?;
            world.release_disk(node);
            run_until(world, 5_000 * MS, "both to be told", |world| {
                old.iter().all(|old| world.has_left(*old))
            })?;
            let (probe, members) = (world.probe(node), world.members(node));
            let (probe, members) = (probe.expect("it is up"), members.expect("it is up"));
            assert_eq!((probe.role, members.members().count()), (Role::Leader, 1));
            assert!(Some(probe.term) < term, "nobody else had a say");
            assert!(probe.last.index > plan.last.index);
            Ok(())
        });
    }
}
