//! One seed: a storm, the calm after it, and what must be true then.

use crate::{
    clients::{Client, frame, read},
    cluster::{Cluster, Log},
    disk::Disks,
    history::{History, LEDGER, Told},
    node::{Flaw, replay},
    report::{Failure, Report},
};
use lakebed::{Marks, ReadMode, tape::Digest};
use lakebed_kv::Command;
use lakebed_sim::{
    Draw,
    plan::{Fault, Plan},
    prng::Concern,
};
use madsim::{
    Config,
    net::NetSim,
    runtime::{Handle as Simulation, Runtime},
    task::spawn,
    time::{sleep, timeout},
};
use redis_protocol::resp2::types::OwnedFrame;
use std::{
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
/// No timer of anybody who has gone is set for later than this.
const TIMERS_MAX: Duration = Duration::from_secs(600);
/// The clients' machine.
const CLIENTS: &str = "10.0.1.1";

/// Runs a seed.
pub fn run(seed: u64, flaw: Option<Flaw>) -> Result<Report, Failure> {
    let log = Log::default();
    let kept = Arc::clone(&log);
    // A thread of its own: the standard library draws once for each, and madsim makes it draw this
    // seed's.
    let work = move || {
        let runtime = Runtime::with_seed_and_config(seed, Config::default());
        runtime.add_simulator::<Disks>();
        runtime.add_simulator::<Wires>();
        runtime.block_on(storm(seed, flaw, log))
    };
    thread::spawn(work).join().map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        let log = kept.lock().map(|log| log.clone()).unwrap_or_default();
        Failure { seed, what: text.unwrap_or("a panic without a word").into(), log }
    })
}

/// The plan of a seed: the fast simulator's storm of this many nodes.
fn plan(seed: u64) -> Plan {
    let mut draw = Draw::new(seed, Concern::Swarm, SITE_NODES, 0);
    Plan::storm(seed, *draw.pick(&[1, 2, 3, 3, 3, 3, 3, 5]))
}

async fn storm(seed: u64, flaw: Option<Flaw>, log: Log) -> Report {
    let plan = Arc::new(plan(seed));
    let cluster = Cluster::start(&plan, flaw, Arc::clone(&log));
    let history = Arc::new(Mutex::new(History::default()));
    let simulation = Simulation::current();
    let machine = simulation.create_node().name("clients");
    let machine = machine.ip(CLIENTS.parse().expect("it is one")).build();
    let clients: Vec<_> = (0..plan.clients.len().max(2))
        .map(|n| machine.spawn(Client::new(&cluster, &plan, &history, n).run()))
        .collect();
    let strike = |fault: &Fault| spawn(Arc::clone(&cluster).carry_out(fault.clone()));
    let faults: Vec<_> = plan.faults.iter().map(strike).collect();
    for fault in faults {
        fault.await.expect("faults strike to the end");
    }
    cluster.heal();
    let told = || history.lock().expect("no check has failed").told();
    let before = told().acknowledged;
    until("a write is acknowledged", async || told().acknowledged > before).await;
    cluster.close();
    for client in clients {
        client.await.expect("clients come to their end");
    }
    let ledger = converge(&cluster).await;
    history.lock().expect("no check has failed").end(&ledger);
    let marks = marks(&cluster).await;
    cluster.stop_all();
    until("every node has stopped", async || cluster.all_down()).await;
    // What is dropped then has been when the next task ran.
    sleep(Duration::from_millis(1)).await;
    let log = log.lock().expect("nothing panics while it holds the log").clone();
    let report = Report { marks, ..report(&cluster, &told(), &log) };
    // What still waits for a timer then madsim never frees.
    sleep(TIMERS_MAX).await;
    report
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

/// What the nodes have met since they were started last.
async fn marks(cluster: &Cluster) -> Marks {
    let mut marks = Marks::NONE;
    for at in 0..cluster.machines().count() {
        let handle = cluster.handle(at).expect("every node is up");
        marks.add(handle.status().await.expect("every node is up").marks);
    }
    marks
}

/// Also replays all tapes.
fn report(cluster: &Cluster, told: &Told, log: &str) -> Report {
    let mut digest = Digest::default();
    let mut report = Report::default();
    for machine in cluster.machines() {
        for (n, tape) in machine.take_tapes().into_iter().enumerate() {
            digest.bytes(&tape);
            report.lives += 1;
            report.steps += replay(tape).unwrap_or_else(|error| {
                let (node, life) = (machine.at + 1, n + 1);
                panic!("node {node}, life {life}: a bare engine does not do the same: {error}")
            });
        }
        let counts = machine.device.counts();
        report.power_cuts += counts.power_cuts;
        report.power_cuts_with_writes_pending += counts.power_cuts_with_writes_pending;
        report.kills += counts.kills;
        report.disk_operations += counts.operations;
        report.connections += machine.connections();
    }
    let counts = cluster.counts();
    digest.bytes(log.as_bytes());
    let asked = [told.acknowledged, told.refused, told.unknown, told.reads];
    asked.into_iter().for_each(|number| digest.number(number));
    [report.acknowledged, report.refused, report.unknown, report.reads] = asked;
    Report {
        digest: digest.value(),
        seeds: 1,
        simulated: crate::time::now(),
        faults: counts.faults,
        halts: counts.halts,
        resets: counts.resets,
        packets: NetSim::current().stat().msg_count,
        ..report
    }
}
