//! How fast the simulator is: storms with every check on beside a bare heap, in one run.
//!
//! `cargo bench -p lakebed-sim`. Times are of this thread's processor, where the system tells
//! them: other work on the machine then matters little.

use bytes::Bytes;
use lakebed::{LogId, MachineError, StateMachine, Timestamp};
use lakebed_sim::{
    Draw, Op, Seed, Storm, World,
    groups::{Census, Groups, Spread, storm as groups},
    plan::{MS, Plan},
    storm::{run_for, serve},
};
use std::{cmp::Reverse, collections::BinaryHeap, fs, hint::black_box, time::Duration};

const SEEDS: u64 = 100;
const ROUNDS: u64 = 20_000_000;

/// A machine that costs next to nothing.
#[derive(Clone, Default)]
struct Count(u64);

impl StateMachine for Count {
    fn apply(&mut self, _: LogId, _: Timestamp, _: &[u8], answer: &mut Vec<u8>) {
        self.0 += 1;
        self.query(&[], answer);
    }

    fn query(&self, _: &[u8], answer: &mut Vec<u8>) {
        answer.extend_from_slice(&self.0.to_le_bytes());
    }

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        Box::new(std::iter::once(Bytes::copy_from_slice(&self.0.to_le_bytes())))
    }

    fn restore(&mut self, _: u64, bytes: &[u8], _: bool) -> Result<(), MachineError> {
        let state = bytes.try_into().map_err(|_| MachineError("not a count".into()))?;
        self.0 = u64::from_le_bytes(state);
        Ok(())
    }
}

fn workload(draw: &mut Draw) -> Op {
    match draw.below(4) {
        0 => Op::Read(Vec::new()),
        _ => Op::Propose(vec![7; draw.between(1, 120) as usize]),
    }
}

/// Nanoseconds that this thread has run; without `/proc`, that have passed.
#[allow(clippy::disallowed_types, clippy::disallowed_methods)] // It measures; it decides nothing.
fn spent() -> u64 {
    use std::{sync::OnceLock, time::Instant};
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    let begun = BEGUN.get_or_init(Instant::now);
    let told = fs::read_to_string("/proc/thread-self/schedstat").ok();
    let ran = told.and_then(|line| line.split(' ').next()?.parse().ok());
    ran.unwrap_or_else(|| begun.elapsed().as_nanos() as u64)
}

/// What it took, and what came of it.
fn timed<T>(run: impl FnOnce() -> T) -> (u64, T) {
    let before = spent();
    let result = run();
    ((spent() - before).max(1), result)
}

/// Per second, when there were so many in this time.
fn rate(count: u64, nanos: u64) -> u64 {
    (u128::from(count) * 1_000_000_000 / u128::from(nanos)) as u64
}

fn bare_heap(pending: u64) -> u64 {
    let mut heap: BinaryHeap<Reverse<u128>> = (0..pending).map(|n| Reverse(n.into())).collect();
    let (nanos, last) = timed(|| {
        let mut number = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..ROUNDS {
            let Reverse(at) = heap.pop().expect("one is pushed for each that is popped");
            number ^= number << 13;
            number ^= number >> 7;
            number ^= number << 17;
            heap.push(Reverse(at + u128::from(number >> 40)));
        }
        heap.len()
    });
    black_box(last);
    rate(ROUNDS, nanos)
}

fn storms(nodes: usize, heap: u64) {
    let (nanos, (events, time)) = timed(|| {
        (0..SEEDS).fold((0, 0), |(events, time), seed| {
            let run = Storm::new(Seed::new(seed)).nodes(nodes).run(Count::default, workload);
            let report = run.unwrap_or_else(|failure| panic!("{failure}"));
            (events + report.stats.events, time + report.time)
        })
    });
    let per_second = rate(events, nanos);
    println!(
        "storm of {nodes}: {per_second} events/s, {} seeds of {} events/s, {}x real time, a bare \
         heap is {}x",
        rate(SEEDS, nanos),
        events / SEEDS,
        time / nanos,
        heap / per_second
    );
}

fn idle() {
    let mut plan = Plan::calm(1, 3);
    plan.clients.clear();
    plan.tuning.heartbeat = Duration::from_millis(100);
    plan.tuning.election = (Duration::from_secs(1), Duration::from_secs(2));
    let mut world = World::new(plan, Count::default, workload as fn(&mut Draw) -> Op);
    let time = 20_000_000 * MS;
    let (nanos, ran) = timed(|| run_for(&mut world, time));
    ran.unwrap_or_else(|violation| panic!("{violation}"));
    let events = world.stats().events;
    println!(
        "idle group of 3, 100 ms heartbeats: {}x real time, {} events/s",
        time / nanos,
        rate(events, nanos)
    );
}

/// A thousand groups on three nodes in which nothing happens, with heartbeats of their own and at
/// rest: what hosts are told and send in a simulated second, and what that second takes.
fn idle_groups(rests: bool) {
    let mut plan = Plan::calm(1, 3);
    plan.clients.clear();
    plan.tuning.heartbeat = Duration::from_millis(100);
    plan.tuning.election = (Duration::from_secs(1), Duration::from_secs(2));
    plan.tuning.hibernate_after = Duration::from_secs(u64::from(rests));
    let census = Census { groups: 1_000, comings: 0, spread: Spread::Everywhere };
    let mut world = Groups::new(plan, census, Count::default, workload as fn(&mut Draw) -> Op);
    let ready = groups::serve(&mut world).and_then(|()| groups::converge(&mut world));
    ready.unwrap_or_else(|violation| panic!("{violation}"));
    let seconds = if rests { 10_000 } else { 10 };
    let (events, sent, end) =
        (world.stats().events, world.sent(), world.now() + seconds * 1000 * MS);
    let (nanos, ran) = timed(|| groups::until(&mut world, end));
    ran.unwrap_or_else(|violation| panic!("{violation}"));
    let now = world.sent();
    println!(
        "1,000 idle groups on 3 nodes, {}: in a second {} events, {} messages of engines, {} beats, \
         {} bytes; {} us of a core",
        if rests { "at rest" } else { "with heartbeats of their own" },
        (world.stats().events - events) / seconds,
        (now.messages - sent.messages) / seconds,
        (now.beats - sent.beats) / seconds,
        (now.bytes - sent.bytes) / seconds,
        nanos / 1000 / seconds,
    );
}

fn clones() {
    let mut world = World::new(Plan::storm(1, 3), Count::default, workload as fn(&mut Draw) -> Op);
    let ran = serve(&mut world).and_then(|()| run_for(&mut world, 1_000 * MS));
    ran.unwrap_or_else(|violation| panic!("{violation}"));
    let events = world.stats().events;
    // The system counts a thread's time in ticks of milliseconds: many of them are needed.
    let (worlds, disks) = (10_000, 500_000);
    let (nanos, ()) = timed(|| (0..worlds).for_each(|_| drop(black_box(world.clone()))));
    println!("a clone of a world after {events} events: {} ns", nanos / worlds);
    let (nanos, ()) = timed(|| (0..disks).for_each(|_| drop(black_box(world.disk(0).clone()))));
    println!("a clone of one of its disks: {} ns", nanos / disks);
}

fn main() {
    let heap = bare_heap(64);
    println!("bare heap, 64 pending: {heap} pop+push/s");
    for nodes in [1, 3, 5] {
        storms(nodes, heap);
    }
    idle();
    [false, true].into_iter().for_each(idle_groups);
    clones();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("unknown");
    println!("peak memory, one seed at a time: {}", peak.trim_start_matches("VmHWM:").trim());
}
