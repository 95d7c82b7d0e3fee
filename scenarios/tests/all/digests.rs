//! The same seed is the same run, byte for byte, wherever and however it is built.

use lakebed_scenarios::SCENARIOS;
use lakebed_sim::{Seed, Totals};
use std::fmt::Write as _;

/// So many seeds of each scenario, from zero.
const SEEDS: u64 = 2;

/// Written down is what `lakebed sim run SCENARIO --seeds 0..2 --json` said where engine or simulator
/// were changed last. It changes with what either does: who meant that takes the new ones over
/// (`INSTA_UPDATE=always`). Where nothing was changed and they differ, this machine, or this build,
/// makes another run of the same seed.
#[test]
fn seeds_are_on_this_machine_and_by_this_build_the_runs_that_are_written_down() {
    let mut told = String::new();
    for scenario in SCENARIOS {
        let mut totals = Totals::default();
        for seed in 0..SEEDS {
            let report = (scenario.run)(Seed::new(seed))
                .unwrap_or_else(|failure| panic!("{}: {failure}", scenario.name));
            totals.add(scenario.name, &report, false);
        }
        let (name, digest) = (scenario.name, totals.digest);
        writeln!(told, "{name:<17} {digest:>13}").expect("a string takes everything");
    }
    insta::with_settings!({
        snapshot_path => "../../../fixtures/snapshots",
        prepend_module_to_snapshot => false,
    }, {
        insta::assert_snapshot!("digests", told);
    });
}
