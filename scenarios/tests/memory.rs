//! What a node holds in memory, by what the allocator gets back when its process is killed: a node that
//! counted too little would stay within its limits by its own word alone.

use dhat::{Alloc, HeapStats, Profiler};
use lakebed_scenarios::{
    machine::Ledger,
    telling::{Cluster, Told},
};
use lakebed_sim::{
    Draw, Op, Seed, World,
    plan::{Asks, MS, Plan},
    storm::{observe, run_for, serve},
};

#[global_allocator]
static ALLOCATOR: Alloc = Alloc;

/// What a node may keep of its log in memory, some times what it has beside it.
const CACHE: usize = 512 << 10;
/// What a node of these plans has beside its log: tables, blocks that it writes again and again, what it
/// has read at its start. That does not grow.
const AROUND: usize = 96 << 10;

/// The least that a command can be: what an entry costs beside it is most of it.
fn small(draw: &mut Draw) -> Op {
    Op::Propose(vec![draw.below(8) as u8])
}

fn large(draw: &mut Draw) -> Op {
    Op::Propose(vec![draw.below(8) as u8; 900])
}

/// What a node's death gives back.
fn given_back(world: &mut Cluster, node: usize) -> usize {
    let before = HeapStats::get().curr_bytes;
    world.kill(node);
    before.checked_sub(HeapStats::get().curr_bytes).expect("who is gone holds nothing")
}

/// Kills the nodes in turn, and holds each to its word.
fn weigh(world: &mut Cluster) -> Told {
    serve(world)?;
    for node in 0..world.nodes() {
        run_for(world, 1500 * MS)?;
        let status = world.status(node).expect("it is up");
        let (said, held) = (status.memory_bytes as usize, given_back(world, node));
        assert!(said > CACHE / 2, "too little is kept to tell: {status:?}");
        assert!(held <= said + AROUND, "{held} bytes are held, and it says: {status:?}");
        world.restart(node);
    }
    Ok(())
}

#[test]
fn a_node_holds_no_more_than_it_says() {
    let _profiler = Profiler::builder().testing().build();
    for workload in [small as fn(&mut Draw) -> Op, large] {
        let mut plan = Plan::calm(1, 3);
        plan.tuning.cache_bytes_max = CACHE as u64;
        plan.tuning.snapshot_log_bytes = 1 << 20;
        plan.clients = vec![Asks::all(); 8];
        let world = World::new(plan, Ledger::default, workload);
        observe(Seed::new(1), world, weigh).unwrap_or_else(|failure| panic!("{failure:?}"));
    }
}
