//! Seats a driver at each case and watches it from outside, on threads of its own.
#![expect(clippy::disallowed_methods, reason = "a driver is watched by a clock outside of it")]
#![expect(clippy::disallowed_types, reason = "a driver is watched by a clock outside of it")]

use super::{
    Breach, CASES, Clause, FaultyDisk, LossyLink, Probe, Witness,
    cases::{DOOMED, script},
    cluster::{COMMANDS, Client, Progress},
    ledger::Ledger,
    probe::{Inner, lock},
    script::Script,
    talk::{Conversation, Talk},
    witness::records,
};
use crate::{ClusterId, Config, Engine, GroupId, Member, Membership, NodeId, OpId, Start};
use std::{
    fmt, fs,
    net::{SocketAddr, TcpListener},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

/// A driver that has not come to an end by then never will.
const CASE_MAX: Duration = Duration::from_secs(30);
/// Nothing that is asked for takes as long: a driver that does not call by then never will.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// How long the other nodes of a case may take once one has broken the contract.
const GRACE: Duration = Duration::from_millis(500);
/// How often it is looked whether one has.
const LOOK: Duration = Duration::from_millis(20);

/// What a driver gets: once for each node and life of a case.
#[derive(Debug)]
#[non_exhaustive]
pub struct Seat {
    /// The case, one of [`CASES`].
    pub case: &'static str,
    /// Which life of this node in this case, from 1. The driver is called for the next life when
    /// it has returned from the one before.
    pub life: u32,
    /// The node.
    pub node: NodeId,
    /// A directory of its own; from the second life on, as the life before left it.
    pub dir: PathBuf,
    /// Where its peers reach it; bound anew in each life.
    pub listener: TcpListener,
    /// All nodes of the case and their addresses, as `ip:port`.
    pub members: Arc<Membership>,
    /// The first event.
    pub start: Start,
    /// What to drive, until it halts.
    pub core: Probe,
    /// What to perform machine steps on.
    pub machine: Witness,
    /// To be put between the driver and its disk, if there is room for it.
    pub disk: FaultyDisk,
    /// To be asked before each send, if there is room for it.
    pub link: LossyLink,
}

/// A case in which the contract was broken.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Failure {
    /// The case.
    pub case: &'static str,
    /// The node whose driver broke it.
    pub node: NodeId,
    /// How.
    pub breach: Breach,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, node {}: {}", self.case, self.node, self.breach)
    }
}

impl std::error::Error for Failure {}

/// A case that came to its end and has shown nothing, or not all, because the driver has no room for
/// what it puts in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Unchecked {
    /// The case.
    pub case: &'static str,
    /// What the driver does not use, or not for all.
    pub why: &'static str,
}

impl fmt::Display for Unchecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: not checked: {}", self.case, self.why)
    }
}

/// What a case came to.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use = "a verdict nobody reads has found nothing"]
pub enum Verdict {
    /// No clause was broken.
    Passed,
    /// The driver does not use what the case is about, or not for all of it.
    Unchecked(Unchecked),
    /// A clause was broken.
    Failed(Failure),
}

/// What [`check`] found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[must_use = "a report nobody reads has found nothing"]
pub struct Report {
    /// At most one for each case.
    pub failures: Vec<Failure>,
    /// Cases that have shown nothing.
    pub unchecked: Vec<Unchecked>,
}

impl Report {
    /// Accepts that these cases were not checked, if they were not: the driver has no seam for what
    /// they put in. A test that says so names what it does not know.
    ///
    /// # Panics
    ///
    /// If there is no such case.
    pub fn accept_unchecked(mut self, cases: &[&str]) -> Self {
        for case in cases {
            assert!(CASES.contains(case), "{case:?} is not among {CASES:?}");
        }
        self.unchecked.retain(|unchecked| !cases.contains(&unchecked.case));
        self
    }

    /// Panics with all failures and all that was not checked, if there are any.
    pub fn assert(&self) {
        assert!(self.failures.is_empty() && self.unchecked.is_empty(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (failed, unchecked) = (self.failures.len(), self.unchecked.len());
        write!(f, "{} of {} cases passed", CASES.len() - failed - unchecked, CASES.len())?;
        if unchecked > 0 {
            write!(f, ", {unchecked} not checked")?;
        }
        writeln!(f)?;
        self.failures.iter().try_for_each(|failure| writeln!(f, "  {failure}"))?;
        self.unchecked.iter().try_for_each(|unchecked| writeln!(f, "  {unchecked}"))
    }
}

/// Runs every case, one after the other, with files below `scratch`.
pub fn check(scratch: &Path, driver: impl Fn(Seat) + Send + Sync + 'static) -> Report {
    let driver = Arc::new(driver);
    let mut report = Report::default();
    for case in CASES {
        match Case::new(case, scratch).run(&driver) {
            Verdict::Passed => {}
            Verdict::Unchecked(unchecked) => report.unchecked.push(unchecked),
            Verdict::Failed(failure) => report.failures.push(failure),
        }
    }
    report
}

/// Runs one case of [`CASES`].
///
/// # Panics
///
/// If there is no such case.
pub fn check_case(
    case: &str,
    scratch: &Path,
    driver: impl Fn(Seat) + Send + Sync + 'static,
) -> Verdict {
    let case = CASES.iter().find(|name| **name == case).expect("a name of CASES");
    Case::new(case, scratch).run(&Arc::new(driver))
}

/// A case under way, shared by the threads of its nodes.
#[derive(Clone)]
struct Case {
    name: &'static str,
    scratch: PathBuf,
    members: Arc<Membership>,
    conversation: Arc<Mutex<Conversation>>,
    /// One for each life.
    progress: [Arc<Mutex<Progress>>; 2],
}

impl Case {
    fn new(name: &'static str, scratch: &Path) -> Self {
        let nodes = match name {
            "messages" | "losses put in" | "a peer that restarts" => 2,
            "three engines, restarted" => 3,
            _ => 1,
        };
        Self {
            name,
            scratch: scratch.join(name.replace(|c: char| !c.is_alphanumeric(), "-")),
            members: Arc::new(Membership::of((1..=nodes).map(member))),
            conversation: Arc::default(),
            progress: <[Arc<_>; 2]>::default(),
        }
    }

    fn nodes(&self) -> u64 {
        self.members.voters.len() as u64
    }

    fn lives(&self, node: NodeId) -> u32 {
        match self.name {
            "a former core's operations" | "three engines, restarted" => 2,
            "a peer that restarts" if node == NodeId(2) => 2,
            _ => 1,
        }
    }

    fn run<D>(&self, driver: &Arc<D>) -> Verdict
    where
        D: Fn(Seat) + Send + Sync + 'static,
    {
        let _ = fs::remove_dir_all(&self.scratch);
        let (ended, ends) = channel();
        let nodes: Vec<Watched> =
            (1..=self.nodes()).map(|node| self.spawn(NodeId(node), driver, &ended)).collect();
        drop(ended);
        let unfinished = await_ends(&nodes, &ends);
        if let Some(failure) = nodes.iter().find_map(|node| node.failure(self.name)) {
            return Verdict::Failed(failure);
        }
        if let Some(node) = nodes.iter().find(|node| unfinished.contains(&node.node)) {
            let breach = lock(&node.ledger).owed();
            return Verdict::Failed(Failure { case: self.name, node: node.node, breach });
        }
        if let Err(failure) = self.compare_states(&nodes) {
            return Verdict::Failed(failure);
        }
        self.unchecked(&nodes).map_or(Verdict::Passed, Verdict::Unchecked)
    }

    /// What the case is about was never there.
    fn unchecked(&self, nodes: &[Watched]) -> Option<Unchecked> {
        // Of two the first one sends nearly all.
        let ledger = lock(&nodes[0].ledger);
        let why = match self.name {
            "failures put in" => ledger.without_failures(),
            "losses put in" => ledger.without_losses(),
            _ => None,
        };
        why.map(|why| Unchecked { case: self.name, why })
    }

    /// Engines that ran to the end leave machines that were told the same: in the last life all
    /// commands of every life.
    fn compare_states(&self, nodes: &[Watched]) -> Result<(), Failure> {
        if self.nodes() != 3 {
            return Ok(());
        }
        let expected = state_of(&nodes[0]);
        for node in nodes {
            let state = state_of(node);
            let commands = records(&state);
            if state != expected || commands < 2 * COMMANDS as usize {
                let detail =
                    format!("its machine was told {commands} commands, or others than node 1's");
                let breach = Breach { clause: Clause::MachineInOrder, detail };
                return Err(Failure { case: self.name, node: node.node, breach });
            }
        }
        Ok(())
    }

    fn spawn<D>(&self, node: NodeId, driver: &Arc<D>, ended: &Sender<NodeId>) -> Watched
    where
        D: Fn(Seat) + Send + Sync + 'static,
    {
        let watched = Watched { node, ledger: Arc::default(), machine: Arc::default() };
        if self.name == "failures put in" {
            let doomed = DOOMED.map(|(op, error)| (OpId(op), error));
            lock(&watched.ledger).doomed = doomed.into();
        }
        let (case, driver, ended) = (self.clone(), Arc::clone(driver), ended.clone());
        let watch = watched.clone();
        thread::spawn(move || {
            (1..=case.lives(node)).all(|life| case.live(life, &watch, &*driver));
            // Nobody listens any more when the case was given up.
            let _ = ended.send(node);
        });
        watched
    }

    /// One life of a node; whether there may be another.
    fn live(&self, life: u32, watched: &Watched, driver: &impl Fn(Seat)) -> bool {
        lock(&watched.ledger).begin_life();
        let Some(listener) = bind(self.address(watched.node)) else {
            let detail = "its listener is still bound";
            lock(&watched.ledger).breach(Clause::FormerLife, detail);
            return false;
        };
        let seat = self.seat(life, listener, watched);
        let returned = catch_unwind(AssertUnwindSafe(|| driver(seat)));
        let mut ledger = lock(&watched.ledger);
        match returned {
            Ok(()) => ledger.on_returned(),
            Err(panic) => {
                let said = panic.downcast_ref::<String>().map(String::as_str);
                let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
                ledger.breach(Clause::Panicked, said.unwrap_or("without a word"));
            }
        }
        ledger.broken().is_none()
    }

    fn address(&self, node: NodeId) -> SocketAddr {
        let address = &self.members.member(node).expect("a member").address;
        let address = std::str::from_utf8(address).expect("it was printed");
        address.parse().expect("it was printed")
    }

    fn seat(&self, life: u32, listener: TcpListener, watched: &Watched) -> Seat {
        let (node, ledger) = (watched.node, &watched.ledger);
        let machine = Witness::default();
        *watched.machine.lock().expect("nothing panics while it holds the machine") =
            machine.clone();
        let seed = node.0 << 8 | u64::from(life);
        Seat {
            case: self.name,
            life,
            node,
            dir: self.directory(node),
            listener,
            members: Arc::clone(&self.members),
            start: self.start(life),
            core: Probe::new(self.core(life, node, &machine), Arc::clone(ledger)),
            machine,
            disk: FaultyDisk::new(Arc::clone(ledger), seed),
            link: LossyLink::new(Arc::clone(ledger), seed),
        }
    }

    fn directory(&self, node: NodeId) -> PathBuf {
        self.scratch.join(node.to_string())
    }

    fn start(&self, life: u32) -> Start {
        if life > 1 {
            return Start::Run;
        }
        Start::Format { cluster: ClusterId(1), members: Arc::clone(&self.members) }
    }

    fn core(&self, life: u32, node: NodeId, machine: &Witness) -> Inner {
        if let Some(steps) = script(self.name, life) {
            return Inner::Script(Script::new(steps, self.directory(node), machine.clone()));
        }
        if self.nodes() == 2 {
            return Inner::Talk(self.talk(life, node));
        }
        let engine = Engine::new(config(node), node.0 << 8 | u64::from(life));
        let engine = engine.expect("the configuration is good");
        let progress = Arc::clone(&self.progress[life as usize - 1]);
        Inner::Client(Client::new(engine, progress, self.nodes()))
    }

    fn talk(&self, life: u32, node: NodeId) -> Talk {
        let peer = NodeId(3 - node.0);
        // The one who stays talks to each life of the other.
        let rounds = if self.lives(node) == 2 { life } else { self.lives(peer) };
        let (members, shared) = (Arc::clone(&self.members), Arc::clone(&self.conversation));
        Talk::new(node, peer, members, shared, rounds)
    }
}

/// A node of a case, seen from outside.
#[derive(Clone)]
struct Watched {
    node: NodeId,
    ledger: Arc<Mutex<Ledger>>,
    /// Of the present life.
    machine: Arc<Mutex<Witness>>,
}

impl Watched {
    fn failure(&self, case: &'static str) -> Option<Failure> {
        let breach = lock(&self.ledger).broken().cloned()?;
        Some(Failure { case, node: self.node, breach })
    }
}

fn state_of(node: &Watched) -> Vec<u8> {
    let machine = node.machine.lock().expect("nothing panics while it holds the machine");
    machine.state().clone()
}

/// Waits until every node has ended, or there is no use in waiting; who has not ended.
fn await_ends(nodes: &[Watched], ends: &Receiver<NodeId>) -> Vec<NodeId> {
    let mut unfinished: Vec<NodeId> = nodes.iter().map(|node| node.node).collect();
    let mut patience = Patience::new();
    while !unfinished.is_empty() && !patience.is_over(nodes) {
        match ends.recv_timeout(LOOK) {
            Ok(node) => unfinished.retain(|other| *other != node),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    unfinished
}

/// How long a case may go on.
struct Patience {
    until: Instant,
    broken: bool,
    calls: u64,
    called: Instant,
}

impl Patience {
    fn new() -> Self {
        let now = Instant::now();
        Self { until: now + CASE_MAX, broken: false, calls: 0, called: now }
    }

    fn is_over(&mut self, nodes: &[Watched]) -> bool {
        let now = Instant::now();
        let calls = nodes.iter().map(|node| lock(&node.ledger).calls).sum();
        if calls != self.calls {
            (self.calls, self.called) = (calls, now);
        }
        if !self.broken && nodes.iter().any(|node| lock(&node.ledger).broken().is_some()) {
            self.broken = true;
            self.until = self.until.min(now + GRACE);
        }
        now >= self.until || now >= self.called + SILENCE_MAX
    }
}

/// A node of a case, at a port that is free now.
fn member(id: u64) -> Member {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let address = listener.local_addr().expect("it is bound").to_string();
    Member { id: NodeId(id), incarnation: 0, address: address.into() }
}

/// The former life may be about to give it back.
fn bind(address: SocketAddr) -> Option<TcpListener> {
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        match TcpListener::bind(address) {
            Ok(listener) => return Some(listener),
            Err(_) if Instant::now() < until => thread::sleep(LOOK),
            Err(_) => return None,
        }
    }
}

/// Timing for a machine that does other things beside.
fn config(node: NodeId) -> Config {
    let mut config = Config::new(GroupId(1), node);
    config.tuning.heartbeat = Duration::from_millis(50);
    config.tuning.election = (Duration::from_millis(300), Duration::from_millis(600));
    config
}
