use lakebed_scenarios::{machine::Ledger, workload};
use lakebed_sim::{Draw, Op, Plan, exhaust::*, plan::*};
use std::time::Instant;
fn story(seed: u64) -> Story<Ledger, fn(&mut Draw) -> Op> {
    let mut plan = Plan::calm(seed, 3);
    plan.segment_bytes = 8 << 10;
    plan.tuning.append_bytes_max = 2 << 10;
    plan.tuning.snapshot_log_bytes = 6 << 10;
    plan.tuning.retain_log_bytes = 0;
    let asks: u32 = std::env::var("ASKS").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    plan.clients = vec![format!("1-{asks}").parse().unwrap(); 2];
    plan.think = Latency { least: MS, tail: MS };
    plan.tuning.election = (std::time::Duration::from_millis(30), std::time::Duration::from_millis(50));
    let iso = |at, node, lasts| Fault { at: at * MS, kind: FaultKind::Isolated { node, noticed: false, lasts: lasts * MS } };
    plan.faults = vec![iso(80, 0, 70), iso(170, 1, 70), iso(260, 2, 70)];
    Story { plan, machine: Ledger::default, workload }
}
fn main() {
    let seeds: u64 = std::env::var("SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    for seed in 0..seeds {
        let story = story(seed);
        for node in 0..3 {
            match story.tell(node) { Ok(told) => println!("{seed} {node} steps {} ops {} {:?}", told.steps, told.operations, told.marks), Err(f) => println!("{f}") }
        }
    }
    let twice = std::env::var("TWICE").is_ok();
    for node in 0..3 {
        let story = story(std::env::var("SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0));
        let search = Search::new(node, twice);
        let begun = Instant::now();
        let part = std::env::var("PART").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
        match story.search(&search, (0, part), |_| std::ops::ControlFlow::Continue(())) {
            Ok(tried) => { let s = begun.elapsed().as_secs_f64(); println!("node {node}: {tried:?} distinct {} {s:.2}s {:.0}/s {:.0} events/s", search.distinct(), (tried.first+tried.second) as f64 / s, tried.events as f64 / s); }
            Err(f) => println!("{f}"),
        }
    }
}
