//! Stories that are crashed everywhere, or have each bit flipped: plans in which everything happens
//! that a disk is used for.
//!
//! Their seeds are part of them: which node leads, and so what a partition makes of whom, is drawn.
//! What each of them must hold is checked by its test (`tests/exhaust.rs`).

use crate::{Ask, Scenario, machine::Ledger, run, workload};
use lakebed_sim::{
    Outcome, Plan, Seed, Storm,
    disk::{Failure, Survivors},
    exhaust::Story,
    plan::{Asks, Fault, FaultKind, Latency, MS, Moment, US},
};
use std::time::Duration;

/// A story, and the scenario that runs it as a whole.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// Under which it is listed, run and replayed.
    pub scenario: Scenario,
    plan: fn() -> Plan,
}

impl Told {
    /// What is to be crashed.
    #[must_use]
    pub fn story(&self) -> Story<Ledger, Ask> {
        Story { plan: (self.plan)(), machine: Ledger::default, workload }
    }
}

/// Stories to be crashed at every step.
pub static STORIES: [Told; 4] = [
    Told {
        scenario: Scenario {
            name: "three_in_turn",
            about: "three nodes, each away once: roll, vote, save, compact, cut, install",
            run: |seed| tell(seed, three_in_turn),
        },
        plan: three_in_turn,
    },
    Told {
        scenario: Scenario {
            name: "three_twice",
            about: "the same, longer: each away twice, one node does all of it",
            run: |seed| tell(seed, three_twice),
        },
        plan: three_twice,
    },
    Told {
        scenario: Scenario {
            name: "one_alone",
            about: "a node alone: roll, save, compact, and nobody to fetch from",
            run: |seed| tell(seed, one_alone),
        },
        plan: one_alone,
    },
    Told {
        scenario: Scenario {
            name: "failed_syncs",
            about: "syncs fail, the cache shows what the disk has not, processes restart from it",
            run: |seed| tell(seed, failed_syncs),
        },
        plan: failed_syncs,
    },
];

/// The story whose disks are flipped bit by bit.
pub static FLIPPED: Told = Told {
    scenario: Scenario {
        name: "every_structure",
        about: "three nodes whose disks hold one of each: ends when all lose their power",
        run: |seed| tell(seed, every_structure),
    },
    plan: every_structure,
};

/// Every story there is.
pub fn all() -> impl Iterator<Item = &'static Told> {
    STORIES.iter().chain([&FLIPPED])
}

fn tell(seed: Seed, plan: fn() -> Plan) -> Outcome {
    let drawn = seed.number;
    let storm = Storm::new(seed).with(|own| *own = Plan { seed: drawn, ..plan() });
    run(storm, Ledger::default, workload)
}

/// Quick elections, small segments and appends: little time and little room for much to happen.
fn dense(seed: u64, nodes: usize) -> Plan {
    let mut plan = Plan::calm(seed, nodes);
    plan.segment_bytes = 8 << 10;
    plan.tuning.append_bytes_max = 2 << 10;
    plan.tuning.inflight_bytes_max = 4 << 10;
    plan.tuning.snapshot_log_bytes = 4 << 10;
    plan.tuning.retain_log_bytes = 0;
    plan.tuning.election = (Duration::from_millis(30), Duration::from_millis(50));
    plan.think = Latency { least: 2 * MS, tail: 2 * MS };
    plan
}

fn clients(count: usize, last: u32) -> Vec<Asks> {
    let asks = format!("1-{last}").parse().expect("operations from one on");
    vec![asks; count]
}

/// Each node in turn is away for longer than an election takes.
fn away(times: u64) -> Vec<Fault> {
    let away = |n| {
        let node = n as usize % 3;
        Fault { at: (80 + n * 90) * MS, kind: isolated(node, 70) }
    };
    (0..times).map(away).collect()
}

const fn isolated(node: usize, ms: u64) -> FaultKind {
    FaultKind::Isolated { node, noticed: false, lasts: ms * MS }
}

fn three_in_turn() -> Plan {
    Plan { clients: clients(4, 30), faults: away(3), ..dense(38, 3) }
}

fn three_twice() -> Plan {
    Plan { clients: clients(6, 40), faults: away(6), ..dense(14, 3) }
}

fn one_alone() -> Plan {
    // After the one there is nothing to write again, after the other there is.
    let stopped = FaultKind::Stop { node: 0, hand_over: false };
    let killed = FaultKind::Kill { node: 0, down: MS };
    let faults = [(60, stopped), (120, killed)].map(|(at, kind)| Fault { at: at * MS, kind });
    let faults = faults.into();
    Plan { clients: clients(3, 60), faults, ..dense(1, 1) }
}

fn failed_syncs() -> Plan {
    let failure = |n: u64| {
        let failure = [Failure::CleanKeep, Failure::CleanRevert][n as usize % 2];
        let kind = FaultKind::SyncFailure { node: n as usize % 3, failure };
        Fault { at: (60 + n * 25) * MS, kind }
    };
    Plan { clients: clients(4, 40), faults: (0..9).map(failure).collect(), ..dense(2, 3) }
}

fn every_structure() -> Plan {
    let mut plan = dense(2, 3);
    plan.segment_bytes = 64 << 10;
    plan.tuning.append_bytes_max = 16 << 10;
    plan.tuning.inflight_bytes_max = 64 << 10;
    plan.tuning.snapshot_log_bytes = 48 << 10;
    plan.think = Latency { least: 500 * US, tail: 500 * US };
    plan.clients = clients(4, 300);
    let end = FaultKind::PowerCut {
        nodes: vec![0, 1, 2],
        moment: Moment::Pending,
        survivors: Survivors::All,
        rot: None,
        down: MS,
    };
    plan.faults = vec![
        Fault { at: 60 * MS, kind: isolated(0, 200) },
        Fault { at: 290 * MS, kind: isolated(0, 350) },
        // All rest, and have said in their hard states what is durable: what is written then is of the
        // snapshot that the first one is sent.
        Fault { at: 675 * MS, kind: end },
    ];
    plan
}
