//! Storms and directed stories, and the small machine they run.

pub mod groups;
pub mod machine;
pub mod stories;
pub mod telling;

use lakebed_sim::{
    Draw, Op, Outcome, Plan, Seed, Storm,
    disk::Geometry,
    plan::{Asks, Fault, FaultKind, Given, MS, Manner, Part, Sessions, Times},
};
use machine::Ledger;
use std::time::Duration;

/// How clients are told what to do. A simulator is built for each machine and each kind of workload: that of
/// functions is one kind.
pub type Ask = fn(&mut Draw) -> Op;

/// What clients of a [`Ledger`] do: mostly writes, some of them large.
pub fn workload(draw: &mut Draw) -> Op {
    let key = draw.below(8) as u8;
    if draw.ratio(1, 4) {
        return Op::Read(vec![key]);
    }
    let len = match draw.below(16) {
        0 => draw.between(500, 900),
        _ => draw.between(1, 120),
    };
    Op::Propose(write(key, len))
}

fn write(key: u8, len: u64) -> Vec<u8> {
    let rest = (0..len).map(|n| (n * 31 + u64::from(key)) as u8);
    std::iter::once(key).chain(rest).collect()
}

fn run(storm: Storm, machine: fn() -> Ledger, workload: Ask) -> Outcome {
    storm.run(machine, workload)
}

/// A storm over this many nodes.
pub fn storm(seed: Seed, nodes: usize) -> Outcome {
    run(Storm::new(seed).nodes(nodes).swarm(), Ledger::default, workload)
}

/// Five nodes; in one storm of eight there are seven, the most that a cluster is meant to have. Where entries
/// are damaged, of those that others give again the first that a node writes fails unheard.
fn storm_of_five(seed: Seed) -> Outcome {
    let nodes = if seed.number % 8 == 7 { 7 } else { 5 };
    let storm = Storm::new(seed).nodes(nodes).swarm();
    let storm = storm.with(|plan| {
        let damages =
            |fault: &Fault| matches!(fault.kind, FaultKind::Damage { part: Part::Entries, .. });
        if plan.faults.iter().any(damages) {
            plan.faults.extend(unheard_failures(plan.nodes, Given::Entry));
            plan.faults.sort_by_key(|fault| fault.at);
        }
    });
    run(storm, Ledger::default, workload)
}

/// A storm over one to five voters whose places others take.
fn churn(seed: Seed) -> Outcome {
    let voters = [3, 3, 5, 1, 2, 4][(seed.number % 6) as usize];
    run(Storm::new(seed).nodes(voters).churn(), Ledger::default, workload)
}

/// A storm in which disks do what no cluster is promised to live through: one to five nodes may
/// refuse to serve, and none may be wrong.
fn beyond_the_budget(seed: Seed) -> Outcome {
    let nodes = [3, 3, 5, 1][(seed.number % 4) as usize];
    let storm = Storm::new(seed).nodes(nodes);
    let storm = storm.with(|plan| *plan = Plan::beyond_the_budget(plan.seed, plan.nodes));
    run(storm, Ledger::default, workload)
}

/// A storm in which whoever is away for a moment is sent a snapshot of many blocks: nothing of the
/// log is kept for it, and installs are broken off again and again.
fn storm_of_installs(seed: Seed) -> Outcome {
    let storm = Storm::new(seed).nodes(3);
    let storm = storm.with(|plan| {
        of_installs(plan);
        if plan.seed.is_multiple_of(2) {
            plan.faults.extend(unheard_failures(plan.nodes, Given::Snapshot));
            plan.faults.sort_by_key(|fault| fault.at);
        }
    });
    run(storm, || Ledger::heavy(HEAVY), workload)
}

fn of_installs(plan: &mut Plan) {
    plan.tuning.retain_log_bytes = 0;
    // By their bytes they would be taken once in a run, if at all.
    plan.tuning.snapshot_age = Duration::from_millis(80);
    plan.tuning.transfer_bytes_per_second = 400 << 10;
    // Clients that only read leave little to be installed.
    plan.manner = Manner::default();
    plan.geometry = Geometry { sector: 512, align: 512, ..plan.geometry };
    plan.faults.extend(comings_and_goings(plan.seed));
    plan.faults.sort_by_key(|fault| fault.at);
}

/// The same beyond the budget: snapshots of many blocks, of which any may be bad when the machine has taken in
/// some, or when a peer is sent them. In one run of three nothing but rot, while nodes run whose machines may keep
/// their own state; in half of the others both.
fn ruin_of_installs(seed: Seed) -> Outcome {
    let storm = Storm::new(seed).nodes(3);
    let storm = storm.with(|plan| {
        of_installs(plan);
        if plan.seed.is_multiple_of(4) {
            plan.sessions = Some(Sessions::drawn(plan.seed));
        }
        *plan = match plan.seed % 3 {
            0 => plan.clone().rotting(),
            1 => plan.clone().ruined(),
            _ => plan.clone().ruined().rotting(),
        };
    });
    run(storm, || Ledger::heavy(HEAVY), workload)
}

/// A storm over voters whose places others take, and all of it large: whoever comes or was away is sent a
/// snapshot of many blocks, while entries of many kilobytes wait behind it; in half of the runs from many
/// clients, in a third of them with sessions.
fn churn_of_installs(seed: Seed) -> Outcome {
    let voters = [3, 3, 5, 1, 2, 4][(seed.number % 6) as usize];
    let storm = Storm::new(seed).nodes(voters).churn().commands_up_to(16 << 10);
    let storm = storm.with(|plan| {
        plan.tuning.retain_log_bytes = 0;
        plan.tuning.snapshot_age = Duration::from_millis(80);
        plan.tuning.transfer_bytes_per_second = 800 << 10;
        plan.geometry = Geometry { sector: 512, align: 512, ..plan.geometry };
        if plan.seed.is_multiple_of(2) {
            plan.clients = vec![Asks::all(); 24];
            plan.think.tail = MS / 2;
        }
        if plan.seed % 3 == 1 {
            plan.sessions = Some(Sessions::drawn(plan.seed));
        }
    });
    run(
        storm,
        || Ledger::heavy(HEAVY),
        |draw| match draw.ratio(1, 6) {
            true => {
                let (key, len) = (draw.below(8) as u8, draw.between(1000, LARGE));
                Op::Propose(write(key, len))
            }
            false => workload(draw),
        },
    )
}

/// A storm in which every client has a session and asks again; the table of sessions is restored
/// and installed again and again, as nothing of the log is kept.
fn storm_of_sessions(seed: Seed) -> Outcome {
    let storm = Storm::new(seed).nodes(3);
    let storm = storm.with(|plan| {
        plan.sessions = Some(Sessions::drawn(plan.seed));
        plan.tuning.retain_log_bytes = 0;
        plan.tuning.snapshot_age = Duration::from_millis(80);
        plan.faults.extend(comings_and_goings(plan.seed));
        plan.faults.sort_by_key(|fault| fault.at);
    });
    run(storm, Ledger::default, workload)
}

/// A storm in which all reads that take no round are served under leases, half of the clients only read, and
/// the answers to each node in turn come ever later until nobody hears it any more: whoever leads holds its
/// lease for as long as it may, and others have elected another leader before it learns of that.
fn storm_of_leases(seed: Seed) -> Outcome {
    let storm = Storm::new(seed).nodes(3);
    let storm = storm.with(|plan| {
        let disturbs = |kind: &FaultKind| {
            matches!(
                kind,
                FaultKind::StalledClock { .. }
                    | FaultKind::Tune { .. }
                    | FaultKind::Times { .. }
                    | FaultKind::Partition { .. }
                    | FaultKind::Isolated { .. }
                    | FaultKind::SlowLink { .. }
            )
        };
        plan.faults.retain(|fault| !disturbs(&fault.kind));
        plan.tuning.lease_drift_ppm = Some(plan.drift_apart());
        plan.clients = vec![Asks::all(); 6];
        plan.manner = Manner { readers: 3, ..Manner::default() };
        plan.faults.extend(late_answers(plan.seed));
        plan.faults.extend(other_times(plan.seed));
        plan.faults.sort_by_key(|fault| fault.at);
    });
    run(storm, Ledger::default, workload)
}

/// In half of the runs all timeouts become twice as long between two of those turns, and what they were
/// behind the last: whoever waits by then, and whoever has a lease, began by others.
fn other_times(seed: u64) -> Vec<Fault> {
    let times = |at, election| Fault {
        at: at * MS,
        kind: FaultKind::Times { to: Times { heartbeat: 100, election } },
    };
    let longer = 150 + seed / 2 % 4 * 400;
    let both = [times(longer, 200), times(2_600, 100)];
    both.into_iter().filter(|_| seed.is_multiple_of(2)).collect()
}

/// What others answer to a node is slow, then what it says is lost, twice for each of three.
fn late_answers(seed: u64) -> Vec<Fault> {
    let turn = |n: u64| {
        let (to, at) = (((seed + n) % 3) as usize, (200 + n * 400) * MS);
        let bytes_per_ms = [8, 16, 32][((seed >> n) % 3) as usize];
        let lasts = 180 * MS;
        let slow = |from| FaultKind::SlowLink { from, to, bytes_per_ms, lasts };
        let side = (0..3).map(|node| node == to).collect();
        let unheard = FaultKind::Partition { side, both_ways: false, noticed: false, lasts };
        let unheard = Fault { at: at + (20 + (seed >> n) % 20) * MS, kind: unheard };
        [Fault { at, kind: slow((to + 1) % 3) }, Fault { at, kind: slow((to + 2) % 3) }, unheard]
    };
    (0..6).flat_map(turn).collect()
}

/// A node is away for longer than the log reaches back, and dies again soon after its return.
fn comings_and_goings(seed: u64) -> Vec<Fault> {
    let kill = |at: u64, node: u64, down: u64| {
        let node = (node % 3) as usize;
        Fault { at: at * MS, kind: FaultKind::Kill { node, down: down * MS } }
    };
    let turn = |n: u64| {
        let begins = 150 + n * 450;
        let again = begins + 300 + (seed >> n) % 120;
        [kill(begins, seed + n, 280), kill(again, seed + n, 5)]
    };
    (0..3).flat_map(turn).collect()
}

/// Of what others give each node the first sync fails while its process dies.
fn unheard_failures(nodes: usize, given: Given) -> impl Iterator<Item = Fault> {
    let fault = move |node| Fault {
        at: 100 * MS,
        kind: FaultKind::UnheardFailure { node, given, down: MS },
    };
    (0..nodes).map(fault)
}

/// A state of some blocks; a block is 32 KiB where sectors are 512 bytes.
const HEAVY: usize = 80_000;
/// The most bytes of a write that is large.
const LARGE: u64 = 15_000;

/// A scenario by its name.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// What it is called.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// What a seed becomes.
    pub run: fn(Seed) -> Outcome,
}

/// Every scenario there is.
pub const SCENARIOS: [Scenario; 11] = [
    Scenario {
        name: "storm_of_one",
        about: "a node alone: crashes, torn writes, failed syncs, full disks",
        run: |seed| storm(seed, 1),
    },
    Scenario {
        name: "storm_of_three",
        about: "three nodes: the same, and partitions, losses, duplicates, reordering",
        run: |seed| storm(seed, 3),
    },
    Scenario {
        name: "storm_of_five",
        about: "five nodes, sometimes seven: the same, with quorums that overlap in one node of three",
        run: storm_of_five,
    },
    Scenario {
        name: "storm_of_installs",
        about: "three nodes, large snapshots, and no log kept for whoever was away",
        run: storm_of_installs,
    },
    Scenario {
        name: "storm_of_sessions",
        about: "three nodes, clients that send again what is not answered, tables that forget",
        run: storm_of_sessions,
    },
    Scenario {
        name: "storm_of_leases",
        about: "three nodes, reads under leases, and leaders that hear late and are not heard",
        run: storm_of_leases,
    },
    Scenario {
        name: "churn",
        about: "one to five voters, others join, are promoted, demoted, removed; the same faults",
        run: churn,
    },
    Scenario {
        name: "churn_of_installs",
        about: "the same with large snapshots, large writes, and many clients or sessions",
        run: churn_of_installs,
    },
    Scenario {
        name: "groups",
        about: "five nodes with eight to a hundred groups, most at rest; groups and members come and go",
        run: groups::storm,
    },
    Scenario {
        name: "beyond_the_budget",
        about: "disks rot anywhere, lie, are set back, are gone: refuse, never be wrong",
        run: beyond_the_budget,
    },
    Scenario {
        name: "ruin_of_installs",
        about: "the same with large snapshots that are sent, taken in and rot meanwhile",
        run: ruin_of_installs,
    },
];

/// The scenario of this name, or the story.
#[must_use]
pub fn scenario(name: &str) -> Option<&'static Scenario> {
    let storm = SCENARIOS.iter().find(|scenario| scenario.name == name);
    storm.or_else(|| stories::all().map(|told| &told.scenario).find(|of| of.name == name))
}
