use lakebed_scenarios::{machine::Ledger, workload};
use lakebed_sim::{Draw, Op, Plan, exhaust::*, plan::*};
use std::time::Instant;
fn env(name: &str, or: u64) -> u64 { std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(or) }
fn story(seed: u64) -> Story<Ledger, fn(&mut Draw) -> Op> {
    let mut plan = Plan::calm(seed, 3);
    plan.segment_bytes = 8 << 10;
    plan.tuning.append_bytes_max = 2 << 10;
    plan.tuning.inflight_bytes_max = 4 << 10;
    plan.tuning.snapshot_log_bytes = env("SNAP", 4 << 10);
    plan.tuning.retain_log_bytes = 0;
    let asks = env("ASKS", 30);
    plan.clients = vec![format!("1-{asks}").parse().unwrap(); env("CLIENTS", 4) as usize];
    plan.think = Latency { least: env("THINK", 2) * MS, tail: 2 * MS };
    plan.tuning.election = (std::time::Duration::from_millis(30), std::time::Duration::from_millis(50));
    let iso = |at, node, lasts| Fault { at: at * MS, kind: FaultKind::Isolated { node, noticed: false, lasts: lasts * MS } };
    let (lasts, every) = (env("LASTS", 70), env("EVERY", 90));
    plan.faults = (0..env("TIMES", 3)).map(|n| iso(80 + n * every, n as usize % 3, lasts)).collect();
    Story { plan, machine: Ledger::default, workload }
}
fn main() {
    use lakebed::Mark::*;
    let wanted = [ConflictTruncated, Installed, SegmentRecycled, CutTookSegments, CutReopenedSegment, CutInsideBlock, DurableHintWritten, InstallTookEntries, RollWaitedForSpare];
    for seed in 0..env("SEEDS", 0) {
        let story = story(seed);
        let told: Vec<_> = (0..3).map(|node| story.tell(node).unwrap()).collect();
        let line: Vec<String> = told.iter().map(|t| wanted.iter().map(|m| if t.marks.has(*m) { format!("{m:?}").chars().filter(|c| c.is_uppercase()).collect::<String>() } else { "-".into() }).collect::<Vec<_>>().join(" ")).collect();
        println!("{seed} {:?} {}", told.iter().map(|t| t.operations).collect::<Vec<_>>(), line.join(" | "));
    }
    let twice = std::env::var("TWICE").is_ok();
    for node in 0..env("NODES", 3) as usize {
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
