//! A node and the server for its clients, on a thread of their own.
//!
//! One thread for both: no thread is woken between a client's command and its way to disk and
//! peers.

use crate::{metrics::Source, observed::Observed};
use anyhow::{Context, Result, anyhow};
use lakebed::{ClusterId, Config, File, GroupId, Halt, NodeId, Tuning};
use lakebed_kv::{
    Served,
    serve::{Limits, serve},
};
use lakebed_runtime::{DiskKind, Listen, Node, Options};
use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    thread,
};
use tokio::sync::{oneshot, watch};

/// What is left of an entry for its header and what the engine may add.
const ENTRY_HEAD_BYTES_MAX: u32 = 4096;

/// Everything that a node is started with.
pub(crate) struct Plan {
    pub(crate) id: u64,
    pub(crate) dir: PathBuf,
    pub(crate) cluster: ClusterId,
    /// Every node of the cluster, by id and address.
    pub(crate) members: Vec<(u64, String)>,
    /// Whether it is to be added to them by those who are there.
    pub(crate) joins: bool,
    pub(crate) peers: TcpListener,
    pub(crate) clients: TcpListener,
    pub(crate) tuning: Tuning,
    pub(crate) disk: DiskKind,
    pub(crate) insecure: bool,
    /// Where its engine is recorded.
    pub(crate) tape: Option<PathBuf>,
}

/// A node at work.
pub(crate) struct Running {
    /// What it tells of itself.
    pub(crate) source: Source,
    /// Whether its directory had no node in it.
    pub(crate) is_new: bool,
    stop: watch::Sender<Stop>,
    ended: oneshot::Receiver<Arc<Halt>>,
}

/// Whether to stop, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stop {
    No,
    Yes { hand_over: bool },
}

impl Plan {
    /// Opens the node and serves its clients until it has stopped.
    pub(crate) async fn start(self) -> Result<Running> {
        let (id, is_new) = (self.id, !self.dir.join(File::HardState.name()).exists());
        let (opened, opens) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let (stop, stopping) = watch::channel(Stop::No);
        let work = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(opened.send(Err(error.into()))),
            };
            let halt = runtime.block_on(self.drive(opened, stopping));
            // With it go sockets that tasks still hold: who hears of the end may start anew.
            drop(runtime);
            halt.map(|halt| end.send(halt));
        };
        thread::Builder::new().name(format!("node-{id}")).spawn(work)?;
        let source = opens.await.context("the node's thread died")??;
        Ok(Running { source, is_new, stop, ended })
    }

    async fn drive(
        self,
        opened: oneshot::Sender<Result<Source>>,
        stopping: watch::Receiver<Stop>,
    ) -> Option<Arc<Halt>> {
        match self.open() {
            Ok((source, node, clients, limits)) => {
                // Whoever started it may have gone: then it is told to stop as well.
                let _ = opened.send(Ok(source.clone()));
                Some(work(source, node, clients, limits, stopping).await)
            }
            Err(error) => {
                drop(opened.send(Err(error)));
                None
            }
        }
    }

    fn open(self) -> Result<(Source, Node<Served>, tokio::net::TcpListener, Limits)> {
        let batch_bytes_max = self.tuning.append_bytes_max - ENTRY_HEAD_BYTES_MAX;
        let limits = Limits { batch_bytes_max: batch_bytes_max as usize, ..Limits::default() };
        self.clients.set_nonblocking(true)?;
        let clients = tokio::net::TcpListener::from_std(self.clients)?;
        let mut config = Config::new(GroupId(1), NodeId(self.id));
        config.tuning = self.tuning;
        let members = self.members.iter().map(|(id, address)| (*id, address.as_str()));
        let mut options = Options::new(self.dir, self.cluster, config, Listen::Bound(self.peers))
            .members(members);
        options.joins = self.joins;
        options.disk = self.disk;
        options.insecure = self.insecure;
        options.tape = self.tape;
        let (handle, node) = Node::open(options, Served::default())?;
        let (health, counters) = (node.health(), node.counters());
        Ok((Source { id: self.id, handle, health, counters }, node, clients, limits))
    }
}

/// Clients first hear no more, then the node stops: what is on its way is answered.
async fn work(
    source: Source,
    node: Node<Served>,
    clients: tokio::net::TcpListener,
    limits: Limits,
    mut stopping: watch::Receiver<Stop>,
) -> Arc<Halt> {
    let asked = async move {
        let stop = stopping.wait_for(|stop| *stop != Stop::No).await.map(|stop| *stop);
        stop.unwrap_or(Stop::Yes { hand_over: true })
    };
    let served = async {
        let (told, hears) = oneshot::channel();
        let stop = async {
            let _ = told.send(asked.await);
        };
        let handle = source.handle.clone();
        serve(clients, Observed::new(source), limits, stop).await;
        let hand_over = matches!(hears.await, Ok(Stop::Yes { hand_over: true }));
        // The node itself is awaited below.
        drop(handle.shutdown(hand_over));
    };
    let mut node = std::pin::pin!(node);
    tokio::select! {
        halt = &mut node => return halt,
        () = served => {}
    }
    node.await
}

impl Running {
    /// Asks the node to stop.
    pub(crate) fn stop(&self, hand_over: bool) {
        self.stop.send_replace(Stop::Yes { hand_over });
    }

    /// Why it ended. Must not be called again once it told.
    pub(crate) async fn ended(&mut self) -> Result<Arc<Halt>> {
        let id = self.source.id;
        (&mut self.ended).await.with_context(|| format!("the thread of node {id} died"))
    }
}

/// Listens there, or says for whom it could not, and what to do instead.
pub(crate) fn listen(address: SocketAddr, whose: &str, instead: &str) -> Result<TcpListener> {
    TcpListener::bind(address).map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => {
            let port = address.port();
            anyhow!("cannot listen on {address} for {whose}: port {port} is in use; {instead}")
        }
        _ => anyhow!("cannot listen on {address} for {whose}: {error}"),
    })
}
