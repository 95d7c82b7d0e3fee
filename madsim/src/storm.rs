//! One seed: a storm, the calm after it, and what must be true then.

use crate::{
    clients::{Client, frame, read},
    cluster::Cluster,
    disk::Disks,
    history::{History, LEDGER},
    node::{Flaw, replay},
};
use lakebed::{ReadMode, tape::Digest};
use lakebed_kv::Command;
use lakebed_sim::{
    Draw,
    plan::{Fault, Plan},
    prng::Concern,
};
use madsim::{
    Config,
    runtime::{Handle as Simulation, Runtime},
    task::spawn,
    time::{sleep, timeout},
};
use redis_protocol::resp2::types::OwnedFrame;
use std::{
    ops::AddAssign,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};
use tokio::net::Wires;

/// Sites of draws.
const SITE_NODES: u32 = 100;
/// How long it may take until all is well again. Connections that found a way clogged wait for up
/// to ten seconds before they look again.
const CALM_MAX: Duration = Duration::from_secs(60);
/// The clients' machine.
const CLIENTS: &str = "10.0.1.1";

/// What happened in a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// A hash of all that every engine was told and did, byte for byte, of what was done to the
    /// machines and of what clients were told. Of several runs: the sum of theirs.
    pub digest: u64,
    /// Calls of the engines' `handle`, each replayed into a bare engine.
    pub steps: u64,
    /// Processes of nodes, and so tapes.
    pub lives: u64,
    /// Faults that struck.
    pub faults: u64,
    /// Machines that lost power.
    pub power_cuts: u64,
    /// Those that had writes pending.
    pub power_cuts_with_writes_pending: u64,
    /// Processes that were killed.
    pub kills: u64,
    /// Nodes that ended by themselves, as asked or because their disk failed.
    pub halts: u64,
    /// Connections that were reset.
    pub resets: u64,
    /// Operations of disks.
    pub disk_operations: u64,
    /// Messages of the network.
    pub messages: u64,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Writes that were refused.
    pub refused: u64,
    /// Writes of which nobody knows.
    pub unknown: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Simulated nanoseconds.
    pub simulated: u64,
}

impl AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        self.digest = self.digest.wrapping_add(other.digest);
        self.steps += other.steps;
        self.lives += other.lives;
        self.faults += other.faults;
        self.power_cuts += other.power_cuts;
        self.power_cuts_with_writes_pending += other.power_cuts_with_writes_pending;
        self.kills += other.kills;
        self.halts += other.halts;
        self.resets += other.resets;
        self.disk_operations += other.disk_operations;
        self.messages += other.messages;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.reads += other.reads;
        self.simulated += other.simulated;
    }
}

/// Runs a seed; what was found wrong, if anything was.
pub fn run(seed: u64, flaw: Option<Flaw>) -> Result<Report, String> {
    // A thread of its own: the standard library draws once for each, and madsim makes it draw this
    // seed's.
    let work = move || {
        let runtime = Runtime::with_seed_and_config(seed, Config::default());
        runtime.add_simulator::<Disks>();
        runtime.add_simulator::<Wires>();
        runtime.block_on(storm(seed, flaw))
    };
    thread::spawn(work).join().map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into()))
            .unwrap_or_else(|| "a panic that says nothing".into())
    })
}

/// The plan of a seed: the fast simulator's storm of this many nodes.
fn plan(seed: u64) -> Plan {
    let mut draw = Draw::new(seed, Concern::Swarm, SITE_NODES, 0);
    Plan::storm(seed, *draw.pick(&[1, 2, 3, 3, 3, 3, 3, 5]))
}

async fn storm(seed: u64, flaw: Option<Flaw>) -> Report {
    let plan = Arc::new(plan(seed));
    let cluster = Cluster::start(&plan, flaw);
    let history = Arc::new(Mutex::new(History::default()));
    let simulation = Simulation::current();
    let machine = simulation.create_node().name("clients");
    let machine = machine.ip(CLIENTS.parse().expect("it is one")).build();
    let clients: Vec<_> = (0..plan.clients.len().max(2))
        .map(|n| machine.spawn(Client::new(&cluster, &plan, &history, n).run()))
        .collect();
    let faults: Vec<_> =
        plan.faults.iter().map(|fault: &Fault| spawn(Arc::clone(&cluster).carry_out(fault.clone()))).collect();
    for fault in faults {
        fault.await.expect("faults strike to the end");
    }
    cluster.heal();
    let told = |history: &Mutex<History>| history.lock().expect("no check has failed").told();
    let before = told(&history).acknowledged;
    until("a write is acknowledged", async || told(&history).acknowledged > before).await;
    cluster.close();
    for client in clients {
        client.await.expect("clients come to their end");
    }
    let ledger = converge(&cluster).await;
    history.lock().expect("no check has failed").end(&ledger);
    cluster.stop_all();
    until("every node has stopped", async || cluster.all_down()).await;
    // What is dropped then has been when the next task ran.
    sleep(Duration::from_millis(1)).await;
    report(&cluster, &told(&history))
}

/// Waits for what must come true.
async fn until(what: &str, mut is_true: impl AsyncFnMut() -> bool) {
    let waits = async {
        while !is_true().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    if timeout(CALM_MAX, waits).await.is_err() {
        panic!("{what}: not within {CALM_MAX:?} after the storm");
    }
}

/// Waits until every node shows the same state; the ledger in it.
async fn converge(cluster: &Cluster) -> Vec<u8> {
    let mut ledgers = Vec::new();
    until("all nodes come to the same state", async || {
        let mut digests = Vec::new();
        ledgers.clear();
        for at in 0..cluster.machines().count() {
            let Some(handle) = cluster.handle(at) else { return false };
            let ask = async |query| read(&handle, &query, ReadMode::Linearizable).await;
            let Ok(ledger) = ask(Command::Get(LEDGER)).await else { return false };
            let Ok(digest) = ask(Command::Digest).await else { return false };
            ledgers.push(ledger);
            digests.push(digest);
        }
        digests.windows(2).all(|pair| pair[0] == pair[1])
    })
    .await;
    match frame(&ledgers[0]) {
        OwnedFrame::BulkString(ledger) => ledger,
        OwnedFrame::Null => Vec::new(),
        other => panic!("a ledger is no {other:?}"),
    }
}

fn report(cluster: &Cluster, told: &crate::history::Told) -> Report {
    let mut digest = Digest::default();
    let mut report = Report::default();
    for machine in cluster.machines() {
        for (n, tape) in machine.tapes().into_iter().enumerate() {
            digest.bytes(&tape);
            report.lives += 1;
            match replay(tape) {
                Ok(steps) => report.steps += steps,
                Err(error) => panic!(
                    "node {}, life {}: a bare engine does not do what the driver's did: {error}",
                    machine.at + 1,
                    n + 1
                ),
            }
        }
        let counts = machine.device.counts();
        report.power_cuts += counts.power_cuts;
        report.power_cuts_with_writes_pending += counts.power_cuts_with_writes_pending;
        report.kills += counts.kills;
        report.disk_operations += counts.operations;
    }
    let counts = cluster.counts();
    digest.bytes(cluster.log().as_bytes());
    let asked = [told.acknowledged, told.refused, told.unknown, told.reads];
    asked.into_iter().for_each(|number| digest.number(number));
    [report.acknowledged, report.refused, report.unknown, report.reads] = asked;
    Report {
        digest: digest.value(),
        faults: counts.faults,
        halts: counts.halts,
        resets: counts.resets,
        messages: madsim::net::NetSim::current().stat().msg_count,
        simulated: crate::time::now(),
        ..report
    }
}
