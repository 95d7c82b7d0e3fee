//! What runs on a machine: the runtime's driver over its own sockets, on the simulated disk and
//! clock, and the server for its clients, as the command `lakebed` puts them together.
//!
//! Knows no faults. Invariant: of every life of a node there is a tape, from its first event on.

use crate::{
    disk::{Device, NodeDisk},
    post::Numbered,
    stale::MaybeStale,
    store::Replicated,
    time::{MachineClock, NodeClock},
};
use bytes::Bytes;
use lakebed::{
    ClusterId, Config, Engine, GroupId, Halt, Member, Membership, NodeId, Start, tape::Tape,
};
use lakebed_kv::{
    Served,
    serve::{Limits, serve},
};
use lakebed_runtime::{
    Counters, Driver, Handle, Recorded, Reel,
    net::{Identity, TcpNet},
};
use lakebed_sim::{
    Draw,
    plan::Plan,
    prng::{Concern, Stream},
};
use std::{
    future::pending,
    sync::{Arc, Mutex, MutexGuard, atomic::Ordering::Relaxed},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
};

const CLUSTER: ClusterId = ClusterId(0x1a4e_bed0);
const GROUP: GroupId = GroupId(1);
const SECRET: &[u8] = b"it is known";
/// Sites of draws.
const SITE_ELECTION: u32 = 0;
const SITE_CLOCK: u32 = 0;

/// A node has ended by itself.
pub(crate) struct Ended {
    pub(crate) at: usize,
    /// Which of its lives.
    pub(crate) life: usize,
    pub(crate) halt: Arc<Halt>,
}

/// What the driver is broken on purpose by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    /// Syncs are said to be done, and are not: as a driver does that forgets one.
    ForgottenSyncs,
    /// A tape loses a part of what its node was told and did.
    LostSteps,
    /// Servers answer reads by what their node has, and ask nobody.
    StaleReads,
}

/// A machine: what its processes share, one after the other.
pub(crate) struct Machine {
    pub(crate) at: usize,
    pub(crate) device: Device,
    pub(crate) clock: MachineClock,
    plan: Arc<Plan>,
    ended: mpsc::UnboundedSender<Ended>,
    flaw: Option<Flaw>,
    state: Mutex<State>,
}

struct State {
    elections: Stream,
    /// The newest process.
    handle: Option<Handle>,
    stop: Option<oneshot::Sender<bool>>,
    lives: Vec<Arc<Mutex<Life>>>,
    /// By life, as the tapes are.
    networks: Vec<Arc<Counters>>,
}

/// What remains of a process.
#[derive(Default)]
struct Life {
    tape: Vec<u8>,
    /// Nothing more comes.
    is_whole: bool,
}

impl Machine {
    pub(crate) fn new(
        plan: &Arc<Plan>,
        at: usize,
        flaw: Option<Flaw>,
        ended: mpsc::UnboundedSender<Ended>,
    ) -> Self {
        let mut draw = Draw::new(plan.seed, Concern::Clock, SITE_CLOCK, at as u32);
        let device = Device::new(plan, at);
        if flaw == Some(Flaw::ForgottenSyncs) {
            device.forget_syncs();
        }
        Self {
            at,
            device,
            clock: MachineClock::new(draw.below(1 << 40), plan.drift_ppm[at]),
            plan: Arc::clone(plan),
            ended,
            flaw,
            state: Mutex::new(State {
                elections: Stream::new(plan.seed, Concern::Elections),
                handle: None,
                stop: None,
                lives: Vec::new(),
                networks: Vec::new(),
            }),
        }
    }

    /// The newest process's handle.
    pub(crate) fn handle(&self) -> Option<Handle> {
        self.state().handle.clone()
    }

    /// How many processes there were.
    pub(crate) fn lives(&self) -> usize {
        self.state().lives.len()
    }

    /// Asks the process to serve nobody any more and then to stop.
    pub(crate) fn stop(&self, hand_over: bool) {
        if let Some(stop) = self.state().stop.take() {
            let _ = stop.send(hand_over);
        }
    }

    /// Hands out the tapes of all lives, which must be over.
    pub(crate) fn take_tapes(&self) -> Vec<Bytes> {
        let state = self.state();
        let whole = |(n, life): (usize, &Arc<Mutex<Life>>)| {
            let mut life = life.lock().expect("nothing panics while it holds a tape");
            assert!(life.is_whole, "node {}: the tape of life {} has no end", self.at + 1, n + 1);
            Bytes::from(std::mem::take(&mut life.tape))
        };
        state.lives.iter().enumerate().map(whole).collect()
    }

    /// Connections on which its processes and their peers made sure of each other.
    pub(crate) fn connections(&self) -> u64 {
        let state = self.state();
        let of = |counters: &Arc<Counters>| {
            // Bytes arrive whole and in order here, or the connection ends.
            let bad = counters.frames_bad.load(Relaxed);
            assert!(bad == 0, "node {} met {bad} bad frames on good wires", self.at + 1);
            counters.established.load(Relaxed)
        };
        state.networks.iter().map(of).sum()
    }

    /// A process, from its start to its end or to the machine's.
    pub(crate) async fn run(self: Arc<Self>) {
        // What cannot be bound, cannot be: the machine is this process's alone.
        let peers = TcpListener::bind(peer_address(self.at)).await.expect("peers' address");
        let clients = TcpListener::bind(client_address(self.at)).await.expect("clients' address");
        let mut config = Config::new(GROUP, node_id(self.at));
        config.disk_align = self.plan.geometry.align;
        config.segment_bytes = self.plan.segment_bytes;
        config.tuning = self.plan.tuning.clone();
        let Process { handle, driver, stop, life } = self.open(&config, peers);
        let serving = async {
            let (told, hears) = oneshot::channel();
            let stop = async {
                // Whoever could ask has gone: nobody asks.
                let Ok(hand_over) = stop.await else { return pending().await };
                let _ = told.send(hand_over);
            };
            let batch_bytes_max = self.plan.tuning.append_bytes_max as usize / 2;
            let limits = Limits { batch_bytes_max, ..Limits::default() };
            let is_stale = self.flaw == Some(Flaw::StaleReads);
            let store = MaybeStale { store: Replicated(handle.clone()), is_stale };
            serve(clients, store, limits, stop).await;
            drop(handle.shutdown(hears.await == Ok(true)));
            pending().await
        };
        let halt = tokio::select! {
            biased;
            halt = driver => halt,
            never = serving => never,
        };
        let _ = self.ended.send(Ended { at: self.at, life, halt });
        // The machine is switched off by whoever hears of it.
        pending::<()>().await;
    }

    fn open(&self, config: &Config, peers: TcpListener) -> Process {
        let identity = Identity { cluster: CLUSTER, group: GROUP, groups: 0, node: config.node };
        let net = TcpNet::over(identity, SECRET, peers, config);
        let mut state = self.state();
        state.networks.push(net.counters());
        let seed = state.elections.lane(SITE_ELECTION, self.at as u32).any();
        let engine = Engine::new(config.clone(), seed).expect("plans are configurations that work");
        let net = Numbered::new(net, config.node, state.lives.len() as u64 + 1);
        let life = Arc::default();
        let loses = (self.flaw == Some(Flaw::LostSteps)).then_some(1);
        let reel = Spool { life: Arc::clone(&life), taken: 0, loses };
        let engine = Recorded::onto(reel, engine, config, seed);
        let start = if self.device.is_formatted() {
            Start::Run
        } else {
            Start::Format { cluster: CLUSTER, members: members(self.plan.nodes) }
        };
        let surroundings = (self.device.open(), net, self.clock.open());
        let (handle, driver) = Driver::new(engine, config, start, Served::default(), surroundings);
        let (asks, stop) = oneshot::channel();
        state.handle = Some(handle.clone());
        state.stop = Some(asks);
        state.lives.push(life);
        Process { handle, driver, stop, life: state.lives.len() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds a machine")
    }
}

/// The parts of a node that begins.
struct Process {
    handle: Handle,
    driver: Driver<Recorded<Spool>, NodeDisk, Numbered<TcpNet>, NodeClock, Served>,
    /// Hears when it is to stop, and whether it hands its role over.
    stop: oneshot::Receiver<bool>,
    /// Which of the node's lives it is, counting from one.
    life: usize,
}

/// Keeps a tape in memory.
struct Spool {
    life: Arc<Mutex<Life>>,
    taken: u32,
    /// Which of its parts is lost, if it is broken.
    loses: Option<u32>,
}

impl Spool {
    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().expect("nothing panics while it holds a tape")
    }
}

impl Reel for Spool {
    fn take(&mut self, bytes: &[u8]) -> bool {
        if self.loses != Some(self.taken) {
            self.life().tape.extend_from_slice(bytes);
        }
        self.taken += 1;
        true
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.life().is_whole = true;
    }
}

/// Replays a tape into a bare engine, which must do the same; how many calls there were.
pub(crate) fn replay(tape: Bytes) -> Result<u64, lakebed::tape::TapeError> {
    Tape::open(tape)?.replay()
}

pub(crate) const fn node_id(at: usize) -> NodeId {
    NodeId(at as u64 + 1)
}

/// A machine's address.
pub(crate) fn ip(at: usize) -> String {
    format!("10.0.0.{}", at + 1)
}

fn peer_address(at: usize) -> String {
    format!("{}:7501", ip(at))
}

/// Where a node serves clients.
pub(crate) fn client_address(at: usize) -> String {
    format!("{}:6379", ip(at))
}

fn members(nodes: usize) -> Arc<Membership> {
    Arc::new(Membership::of((0..nodes).map(|at| Member {
        id: node_id(at),
        incarnation: 0,
        address: peer_address(at).into(),
    })))
}
