//! Coverage: a sweep of the storms meets every rare situation that engines note.

use lakebed::Mark;
use lakebed_scenarios::SCENARIOS;
use lakebed_sim::{Seed, Totals};

/// After so many seeds of each scenario a mark that was not met is one that is not met any more.
/// Today the last of them is met with seed 37.
const SEEDS_MAX: u64 = 120;
const GROUPS_SEEDS: u64 = 6;

/// What no storm can meet, and why.
const UNMET: [(Mark, &str); 8] = [
    // These are met in lost_quorum.rs.
    (Mark::OtherEpochDropped, "no storm forces a sole voter"),
    (Mark::QuorumForced, "no storm forces a sole voter"),
    (Mark::OldEpochRefused, "no storm forces a sole voter"),
    // This is met in engine/src/raft/tests/setbacks.rs.
    (Mark::PeerSetBack, "who forgot what it promised is not started any more"),
    // These are met in scenarios/tests/all/backups.rs.
    (Mark::RestoreRepeated, "no storm restores a backup"),
    (Mark::FormedFromBackup, "no storm restores a backup"),
    (Mark::OtherOriginMet, "no storm restores a backup"),
    (Mark::PinExpired, "no storm lasts as long as a pin"),
];

/// What storms meet once in a thousand runs, or less, and where it is asked for instead.
const RARE: [(Mark, &str); 6] = [
    (Mark::CutDeepened, "engine/src/storage/tests/cuts.rs"),
    (Mark::InstallNotNeeded, "engine/src/raft/tests/installs.rs"),
    (Mark::InstallTookEntries, "engine/src/raft/tests/installs.rs"),
    (Mark::GaveWayForRoom, "full.rs"),
    (Mark::LogLetGoForRoom, "full.rs"),
    (Mark::LogBegunLater, "engine/src/storage/tests/walk.rs"),
];

#[test]
fn storms_meet_every_rare_situation() {
    let mut totals = Totals::default();
    let is_unmet = |mark: Mark| UNMET.iter().any(|(unmet, _)| *unmet == mark);
    let is_rare = |mark: Mark| RARE.iter().any(|(rare, _)| *rare == mark);
    for seed in 0..SEEDS_MAX {
        // A world of many groups takes as long as ten others, and soon has met what it can.
        let is_asked = |name: &str| name != "groups" || seed < GROUPS_SEEDS;
        for scenario in SCENARIOS.iter().filter(|scenario| is_asked(scenario.name)) {
            let outcome = (scenario.run)(Seed::new(seed));
            let report = outcome.unwrap_or_else(|failure| panic!("{}: {failure}", scenario.name));
            let before = totals.marks.clone();
            totals.add(scenario.name, &report, false);
            let news = totals.marks().zip(before).filter(|((_, now), then)| *then == 0 && *now > 0);
            let news: Vec<_> = news.map(|((mark, _), _)| mark).collect();
            if !news.is_empty() {
                println!("{} seed {seed}: {news:?}", scenario.name);
            }
        }
        if totals.marks().all(|(mark, runs)| runs > 0 || is_unmet(mark) || is_rare(mark)) {
            break;
        }
    }
    let wrong = totals.marks().filter(|(mark, _)| !is_rare(*mark));
    let wrong = wrong.filter(|(mark, runs)| (*runs > 0) == is_unmet(*mark));
    let wrong: Vec<_> = wrong.map(|(mark, runs)| format!("{mark:?} in {runs}")).collect();
    assert!(wrong.is_empty(), "otherwise than listed, of {} runs: {wrong:?}", totals.seeds);
    println!("all met after {} runs", totals.seeds);
}
