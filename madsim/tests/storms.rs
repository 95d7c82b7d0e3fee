//! probe
#[test]
fn storms() {
    let first: u64 = std::env::var("SIM_SEED").ok().map_or(0, |s| s.parse().unwrap());
    let n: u64 = std::env::var("SIM_SEEDS").ok().map_or(1, |s| s.parse().unwrap());
    for seed in first..first + n {
        let start = std::time::Instant::now();
        let a = lakebed_madsim::run(seed, None);
        println!("{seed} {:?} {a:?}", start.elapsed());
    }
}
