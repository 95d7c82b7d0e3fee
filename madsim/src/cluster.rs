//! The machines, and what a plan's faults do to them.
//!
//! Knows nothing of what nodes say or clients are told. Invariants: a machine that is down comes
//! back, at the latest when all is healed; no task that may outlive the run holds the cluster, for
//! what then waits madsim never frees.

use crate::{
    disk::{Death, Disks},
    node::{Ended, Flaw, Machine, ip},
};
use lakebed::{Control, Halt, NodeId};
use lakebed_runtime::Handle;
use lakebed_sim::{
    Draw,
    plan::{Fault, FaultKind, Links, MS, Moment, Plan},
    prng::{Concern, Stream},
};
use madsim::{
    net::NetSim,
    plugin,
    runtime::Handle as Simulation,
    task::{NodeId as MachineId, spawn},
    time::{sleep, timeout},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::Duration,
};
use tokio::sync::mpsc;

/// Plans are made for a simulator in which connections take no time to come back. Here everything
/// is so many times as far apart, and lasts as much longer.
pub(crate) const STRETCH: u64 = 4;
/// How long an armed power cut waits for its moment, and then strikes all the same.
const ARMED_MAX: Duration = Duration::from_millis(800);
/// Sites of draws, all of the concern `Process`.
const SITE_RESTART: u32 = 2;
const SITE_HEAL: u32 = 3;
const SITE_DENIED: u32 = 4;
const SITE_RESET: u32 = 5;

pub(crate) struct Cluster {
    plan: Arc<Plan>,
    simulation: Simulation,
    machines: Vec<(MachineId, Arc<Machine>)>,
    state: Mutex<State>,
}

struct State {
    /// Clients may ask.
    is_open: bool,
    /// Who ends by itself is started again.
    restarts: bool,
    is_up: Vec<bool>,
    /// How often each machine went down.
    deaths: Vec<u32>,
    is_paused: Vec<bool>,
    /// By how many faults this way is clogged.
    clogs: BTreeMap<(usize, usize), u32>,
    draws: Stream,
    counts: Counts,
    log: Log,
}

/// What was done to the machines, a line each; outlives a run that panics.
pub(crate) type Log = Arc<Mutex<String>>;

/// What was done to the machines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) faults: u64,
    /// Connections that were reset.
    pub(crate) resets: u64,
    /// Nodes that ended by themselves, as asked or because their disk failed.
    pub(crate) halts: u64,
}

impl Cluster {
    /// Switches on a machine for each node.
    pub(crate) fn start(plan: &Arc<Plan>, flaw: Option<Flaw>, log: Log) -> Arc<Self> {
        let simulation = Simulation::current();
        let (ended, ends) = mpsc::unbounded_channel();
        let machines: Vec<_> = (0..plan.nodes)
            .map(|at| Arc::new(Machine::new(plan, at, flaw, ended.clone())))
            .map(|machine| (switch_on(&simulation, &machine), machine))
            .collect();
        let nodes = plan.nodes;
        let cluster = Arc::new(Self {
            plan: Arc::clone(plan),
            simulation,
            machines,
            state: Mutex::new(State {
                is_open: true,
                restarts: true,
                is_up: vec![true; nodes],
                deaths: vec![0; nodes],
                is_paused: vec![false; nodes],
                clogs: BTreeMap::new(),
                draws: Stream::new(plan.seed, Concern::Process),
                counts: Counts::default(),
                log,
            }),
        });
        cluster.set_network(&plan.links, plan.links.loss);
        spawn(Self::keep(Arc::downgrade(&cluster), ends));
        cluster
    }

    pub(crate) fn machines(&self) -> impl Iterator<Item = &Arc<Machine>> {
        self.machines.iter().map(|(_, machine)| machine)
    }

    /// The handle of a node that is up, or was.
    pub(crate) fn handle(&self, at: usize) -> Option<Handle> {
        self.machines[at].1.handle()
    }

    /// Whether clients may ask.
    pub(crate) fn is_open(&self) -> bool {
        self.state().is_open
    }

    pub(crate) fn close(&self) {
        self.state().is_open = false;
    }

    pub(crate) fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Lets a planned fault strike at its time and, if it lasts, end.
    pub(crate) async fn carry_out(self: Arc<Self>, fault: Fault) {
        sleep(Duration::from_nanos(fault.at * STRETCH)).await;
        self.state().counts.faults += 1;
        self.note(&fault.kind.to_string());
        self.strike(&fault.kind).await;
        if let Some(lasts) = fault.kind.lasts() {
            sleep(Duration::from_nanos(lasts * STRETCH)).await;
            self.relent(&fault.kind);
        }
    }

    async fn strike(self: &Arc<Self>, fault: &FaultKind) {
        match fault {
            FaultKind::PowerCut { nodes, moment, survivors, rot, down } => {
                self.wait_for(nodes, *moment).await;
                for node in nodes.iter().copied().filter(|node| self.is_up(*node)) {
                    self.die(node, Death::PowerCut(*survivors), *down);
                    if let Some(copy) = rot {
                        self.machine(node).device.rot_hard_state(*copy);
                    }
                }
            }
            FaultKind::Kill { node, down } | FaultKind::KillAndCut { node, down, .. } => {
                self.die(*node, Death::Kill, *down);
            }
            FaultKind::Damage { node, survivors, down, .. } => {
                self.die(*node, Death::PowerCut(*survivors), *down);
            }
            FaultKind::Partition { noticed, .. } | FaultKind::Isolated { noticed, .. } => {
                self.part(&self.ways(fault), *noticed);
            }
            FaultKind::SlowLink { from, to, .. } => self.clog(*from, *to),
            FaultKind::SyncFailure { node, failure } => {
                self.machine(*node).device.fail_next_sync(*failure);
            }
            FaultKind::FailedOperation { node, victim, error } => {
                self.machine(*node).device.fail_next(*victim, *error);
            }
            FaultKind::DiskFull { node, .. } => {
                let device = &self.machine(*node).device;
                device.set_room(device.used());
            }
            FaultKind::SlowDisk { node, factor, .. } => {
                self.machine(*node).device.set_slowness(*factor);
            }
            FaultKind::HungDisk { node, .. } => self.machine(*node).device.hang(),
            FaultKind::Stop { node, hand_over } => self.machine(*node).stop(*hand_over),
            FaultKind::Transfer { node } => {
                let to = Some(NodeId(*node as u64 + 1));
                // Who does not lead refuses. Nobody waits for it.
                for handle in self.machines.iter().filter_map(|(_, machine)| machine.handle()) {
                    drop(handle.control(Control::Transfer { to }));
                }
            }
            FaultKind::Pause { node, lasts } => self.pause(*node, *lasts).await,
            FaultKind::SetClock { node, by_ms } => {
                self.machine(*node).clock.step(by_ms * MS as i64);
            }
            // The clock that timers go by is madsim's; and nobody takes backups here.
            FaultKind::StalledClock { .. }
            | FaultKind::Tune { .. }
            | FaultKind::Times { .. }
            | FaultKind::BackUp { .. } => {}
            FaultKind::Change { .. } => unreachable!("no storm here changes the members"),
            FaultKind::UnheardFailure { .. } => unreachable!("no storm here draws it"),
            FaultKind::PowerCutAt { .. } | FaultKind::KillAt { .. } | FaultKind::FailAt { .. } => {
                unreachable!("no storm counts steps of a disk")
            }
            FaultKind::Ruin { .. }
            | FaultKind::Rot { .. }
            | FaultKind::Flip { .. }
            | FaultKind::LostWrite { .. }
            | FaultKind::MisdirectedWrite { .. }
            | FaultKind::MisfiledWrite { .. }
            | FaultKind::LostNames { .. }
            | FaultKind::LateReport { .. }
            | FaultKind::MisdirectedRead { .. }
            | FaultKind::OldImage { .. }
            | FaultKind::DiskGone { .. } => unreachable!("no storm goes beyond the budget"),
        }
    }

    fn relent(&self, fault: &FaultKind) {
        match fault {
            FaultKind::Partition { noticed, .. } | FaultKind::Isolated { noticed, .. } => {
                for (from, to) in self.ways(fault) {
                    self.unclog(from, to);
                    if *noticed && self.below(SITE_RESET, 2) == 0 {
                        self.reset(from, to);
                    }
                }
            }
            FaultKind::SlowLink { from, to, .. } => self.unclog(*from, *to),
            FaultKind::DiskFull { node, .. } => self.machine(*node).device.set_room(u64::MAX),
            FaultKind::SlowDisk { node, .. } => self.machine(*node).device.set_slowness(1),
            FaultKind::HungDisk { node, .. } => self.machine(*node).device.go_on(),
            _ => {}
        }
    }

    /// Clogs these ways. Of connections that are noticed to break, one end may notice it alone.
    fn part(&self, ways: &[(usize, usize)], noticed: bool) {
        ways.iter().for_each(|(from, to)| self.clog(*from, *to));
        let pairs: BTreeSet<_> = ways.iter().map(|(a, b)| (*a.min(b), *a.max(b))).collect();
        for (one, other) in pairs.into_iter().filter(|_| noticed) {
            match self.below(SITE_RESET, 3) {
                0 => self.reset(one, other),
                1 => self.break_off(one, other),
                _ => self.break_off(other, one),
            }
        }
    }

    /// Ends every fault, and starts whoever is down. Connections that had to wait for long may
    /// wait for longer still, or break now.
    pub(crate) fn heal(self: &Arc<Self>) {
        self.note("heal");
        let ways: Vec<_> = self.state().clogs.keys().copied().collect();
        for (from, to) in ways {
            self.open_way(from, to);
        }
        self.state().clogs.clear();
        self.set_network(&self.plan.links, 0);
        let mut draw = Draw::new(self.plan.seed, Concern::Process, SITE_HEAL, 0);
        let breaks = draw.ratio(1, 2);
        for (at, (_, machine)) in self.machines.iter().enumerate() {
            machine.device.heal();
            self.resume(at);
            if !self.is_up(at) {
                self.restart(at);
            }
            if breaks {
                (0..at).for_each(|peer| self.reset(peer, at));
            }
        }
    }

    /// Asks every node to stop; all have, when there is nobody up.
    pub(crate) fn stop_all(&self) {
        self.state().restarts = false;
        self.machines().for_each(|machine| machine.stop(false));
    }

    pub(crate) fn all_down(&self) -> bool {
        self.state().is_up.iter().all(|is_up| !is_up)
    }

    /// Waits until one of these may lose a sector, for a while.
    async fn wait_for(&self, nodes: &[usize], moment: Moment) {
        let disks = plugin::simulator::<Disks>();
        let come = async {
            let hard_state = moment == Moment::PendingHardState;
            let pending = |at: &usize| self.machine(*at).device.has_pending(hard_state);
            while !nodes.iter().any(pending) {
                disks.submitted().await;
            }
        };
        let _ = timeout(ARMED_MAX, come).await;
    }

    /// A machine that is up goes down, and comes back.
    fn die(self: &Arc<Self>, at: usize, death: Death, down: u64) {
        if !self.is_up(at) {
            return;
        }
        self.note(&format!("node {}: {death:?}", at + 1));
        let nth = self.go_down(at, death);
        let cluster = Arc::downgrade(self);
        spawn(async move {
            sleep(Duration::from_nanos(down * STRETCH)).await;
            let Some(cluster) = cluster.upgrade() else { return };
            // Healed in the meantime, and perhaps down for another reason by now.
            if !cluster.is_up(at) && cluster.state().deaths[at] == nth {
                cluster.restart(at);
            }
        });
    }

    /// How often it went down, this time included.
    fn go_down(&self, at: usize, death: Death) -> u32 {
        let (id, machine) = &self.machines[at];
        if death != Death::Kill {
            tokio::net::silence(address(at));
        }
        machine.device.dies_by(death);
        self.simulation.kill(*id);
        let mut state = self.state();
        (state.is_up[at], state.is_paused[at]) = (false, false);
        state.deaths[at] += 1;
        state.deaths[at]
    }

    fn restart(&self, at: usize) {
        self.note(&format!("node {}: starts", at + 1));
        self.simulation.restart(self.machines[at].0);
        let mut state = self.state();
        state.is_up[at] = true;
        let after = state.draws.lane(SITE_DENIED, at as u32).delay(MS, 100 * MS);
        drop(state);
        spawn(async move {
            sleep(Duration::from_nanos(after)).await;
            tokio::net::deny(address(at));
        });
    }

    async fn pause(&self, at: usize, lasts: u64) {
        if !self.is_up(at) {
            return;
        }
        self.simulation.pause(self.machines[at].0);
        self.state().is_paused[at] = true;
        sleep(Duration::from_nanos(lasts * STRETCH)).await;
        self.resume(at);
    }

    fn resume(&self, at: usize) {
        if std::mem::take(&mut self.state().is_paused[at]) {
            self.simulation.resume(self.machines[at].0);
        }
    }

    /// Starts nodes again that ended by themselves, and may.
    async fn keep(cluster: Weak<Self>, mut ends: mpsc::UnboundedReceiver<Ended>) {
        while let Some(ended) = ends.recv().await {
            let Some(cluster) = cluster.upgrade() else { return };
            cluster.on_ended(&ended);
        }
    }

    fn on_ended(self: &Arc<Self>, Ended { at, life, halt }: &Ended) {
        let at = *at;
        self.note(&format!("node {}: halted: {halt}", at + 1));
        let may = matches!(**halt, Halt::Stopped | Halt::DiskFailed { .. });
        assert!(may, "node {} halted after faults within the contract: {halt}", at + 1);
        if !self.is_up(at) || *life != self.machine(at).lives() {
            return;
        }
        let mut state = self.state();
        state.counts.halts += 1;
        let restarts = state.restarts;
        let after = state.draws.lane(SITE_RESTART, at as u32).delay(MS / 1_000, 10 * MS);
        drop(state);
        if restarts {
            self.die(at, Death::Kill, after);
        } else {
            self.go_down(at, Death::Kill);
        }
    }

    fn ways(&self, fault: &FaultKind) -> Vec<(usize, usize)> {
        let nodes = 0..self.plan.nodes;
        let all = nodes.clone().flat_map(|from| nodes.clone().map(move |to| (from, to)));
        let cut = |from: usize, to: usize| match fault {
            FaultKind::Partition { side, both_ways, .. } => {
                side[from] && !side[to] || *both_ways && side[to] && !side[from]
            }
            FaultKind::Isolated { node, .. } => (from == *node) != (to == *node),
            _ => false,
        };
        all.filter(|(from, to)| cut(*from, *to)).collect()
    }

    fn clog(&self, from: usize, to: usize) {
        *self.state().clogs.entry((from, to)).or_default() += 1;
        NetSim::current().clog_link(self.machines[from].0, self.machines[to].0);
    }

    fn unclog(&self, from: usize, to: usize) {
        let mut state = self.state();
        // Healed already.
        let Some(count) = state.clogs.get_mut(&(from, to)) else { return };
        *count -= 1;
        if *count == 0 {
            state.clogs.remove(&(from, to));
            drop(state);
            self.open_way(from, to);
        }
    }

    fn open_way(&self, from: usize, to: usize) {
        NetSim::current().unclog_link(self.machines[from].0, self.machines[to].0);
    }

    fn reset(&self, one: usize, other: usize) {
        let [one, other] = [one, other].map(address);
        self.state().counts.resets += tokio::net::reset(one, other) as u64;
    }

    fn break_off(&self, one: usize, other: usize) {
        let [one, other] = [one, other].map(address);
        self.state().counts.resets += tokio::net::break_off(one, other) as u64;
    }

    fn below(&self, site: u32, bound: u64) -> u64 {
        self.state().draws.lane(site, 0).below(bound)
    }

    fn set_network(&self, links: &Links, loss: u64) {
        NetSim::current().update_config(|config| {
            config.packet_loss_rate = loss as f64 / 65_536.0;
            let [least, most] = [links.latency.least, links.latency.least + 2 * links.latency.tail]
                .map(Duration::from_nanos);
            config.send_latency = least..most;
        });
    }

    fn note(&self, what: &str) {
        let now = crate::time::now();
        let log = Arc::clone(&self.state().log);
        let mut log = log.lock().expect("nothing panics while it holds the log");
        let _ = writeln!(log, "{:>10} us  {what}", now / 1_000);
    }

    fn machine(&self, at: usize) -> &Machine {
        &self.machines[at].1
    }

    fn is_up(&self, at: usize) -> bool {
        self.state().is_up[at]
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the cluster")
    }
}

fn address(at: usize) -> IpAddr {
    ip(at).parse().expect("it is one")
}

fn switch_on(simulation: &Simulation, machine: &Arc<Machine>) -> MachineId {
    let runs = Arc::clone(machine);
    let built = simulation
        .create_node()
        .name(format!("node {}", machine.at + 1))
        .ip(address(machine.at))
        .init(move || Arc::clone(&runs).run())
        .build();
    plugin::simulator::<Disks>().install(built.id(), machine.device.clone());
    built.id()
}
