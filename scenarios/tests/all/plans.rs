//! Plans: a seed and its plan are one run; plans of bugs stay mended; what fails becomes small.

use crate::forgetful::Forgetful;
use lakebed_scenarios::{Ask, SCENARIOS, scenario, workload};
use lakebed_sim::{
    Outcome, PlanFile, Report, Seed, Storm,
    plan::Plan,
    shrink::{Progress, shrink},
};
use std::{collections::BTreeMap, fs, ops::ControlFlow, path::Path};

fn passes(run: fn(Seed) -> Outcome, seed: Seed) -> Report {
    run(seed).unwrap_or_else(|failure| panic!("{failure}"))
}

#[test]
fn a_seed_and_the_text_of_its_plan_are_one_run() {
    for scenario in &SCENARIOS {
        for seed in 0..5 {
            let drawn = passes(scenario.run, Seed::new(seed));
            let text = PlanFile::new(scenario.name, drawn.plan.clone()).to_string();
            let read: PlanFile = text.parse().unwrap();
            let planned = passes(scenario.run, Seed::of_plan(read.plan));
            assert_eq!(planned, drawn, "{} {seed}", scenario.name);
        }
    }
}

/// For a third of its seeds a storm was told again as `churn` of the same seed, digest and all.
#[test]
fn no_two_scenarios_tell_the_same_run() {
    let mut plans = BTreeMap::new();
    for scenario in &SCENARIOS {
        for seed in 0..240 {
            // It is drawn before anything happens.
            let report = (scenario.run)(Seed::new(seed).at_most(1)).unwrap_err().report;
            let text = PlanFile::new("", report.plan).to_string();
            let drawn: Vec<_> = text.lines().filter(|line| !line.starts_with("seed ")).collect();
            let one = format!("{} {seed}", scenario.name);
            // The same plan is another run where there are many groups.
            let of = (scenario.name == "groups", drawn.join("\n"));
            if let Some(other) = plans.insert(of, one.clone()) {
                panic!("{one} is {other}");
            }
        }
    }
}

/// One fault less moves nothing before it, and nothing that it does not touch.
#[test]
fn a_plan_without_a_fault_is_the_same_run_until_it_would_have_struck() {
    let of = scenario("storm_of_three").unwrap();
    let whole = passes(of.run, Seed::new(5).kept());
    let mut plan = whole.plan.clone();
    let gone = plan.faults.remove(plan.faults.len() / 2);
    let shorter = passes(of.run, Seed::of_plan(plan).kept());
    let differs = whole.trace.iter().zip(&shorter.trace).position(|(a, b)| a != b).unwrap();
    assert!(whole.trace[differs].contains(&gone.kind.to_string()), "{}", whole.trace[differs]);
    assert!(differs > 1000);
}

/// Each was found by a seed, shrunk, and kept when its bug was mended: it must not come back.
#[test]
fn plans_of_bugs_stay_mended() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/plans");
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "plan")).collect();
    paths.sort();
    assert!(paths.len() >= 5, "the plans are gone");
    for path in paths {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        let file: PlanFile = text.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
        for (header, text) in
            [("bug", &file.bug), ("fix", &file.fix), ("invariant", &file.invariant)]
        {
            assert!(!text.is_empty(), "{name} names no {header}");
        }
        assert_eq!(file.to_string(), text, "{name} is not as it would be printed");
        let of = scenario(&file.scenario).unwrap_or_else(|| panic!("{name}: no such scenario"));
        let run = || (of.run)(Seed::of_plan(file.plan.clone()).traced());
        let report = run().unwrap_or_else(|failure| panic!("{name} is back: {failure}"));
        assert_eq!(run().unwrap().digest, report.digest, "{name} does not do the same twice");
    }
}

fn forgetful(seed: Seed) -> Outcome {
    Storm::new(seed).run(Forgetful::default, workload as Ask)
}

#[test]
fn what_fails_becomes_small_and_always_the_same() {
    let seed = (0..40).find(|seed| forgetful(Seed::new(*seed)).is_err()).unwrap();
    let mut tries = 0;
    let shrunk = shrink(Seed::new(seed), forgetful, |progress| {
        tries += 1;
        assert_eq!(progress.tries, tries);
        ControlFlow::Continue(())
    });
    let shrunk = shrunk.unwrap();
    assert!(!shrunk.stopped && shrunk.tries == tries);
    assert!(shrunk.after.removed_since(shrunk.before) >= 90, "{shrunk:?}");
    assert!(shrunk.after.faults <= 3, "{}", shrunk.failure);
    let plan = shrunk.failure.report.plan.clone();
    let again = forgetful(Seed::of_plan(plan)).unwrap_err();
    assert_eq!(again, shrunk.failure);
    let other = shrink(Seed::new(seed), forgetful, |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(other, shrunk);
}

#[test]
fn shrinking_can_be_stopped_and_still_fails() {
    let seed = (0..40).find(|seed| forgetful(Seed::new(*seed)).is_err()).unwrap();
    let stop = |progress: &Progress| {
        if progress.tries < 10 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let shrunk = shrink(Seed::new(seed), forgetful, stop).unwrap();
    assert!(shrunk.stopped && shrunk.tries == 10);
    assert!(forgetful(Seed::of_plan(shrunk.failure.report.plan.clone())).is_err());
}

#[test]
fn what_passes_is_not_shrunk() {
    let calm = |seed| scenario("storm_of_one").map(|of| (of.run)(seed)).unwrap();
    assert_eq!(shrink(Seed::of_plan(Plan::calm(1, 1)), calm, |_| ControlFlow::Continue(())), None);
}
