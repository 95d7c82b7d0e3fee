//! A node and the server for its clients, on a thread of their own.
//!
//! One thread for both: no thread is woken between a client's command and its way to disk and
//! peers. A node of several groups has one thread as well.

use crate::{
    groups_file::{GroupsFile, folder, refuse_strangers},
    looks::Looks,
    machine::{Met, Watched},
    metrics::{Seat, Source},
    observed::Observed,
};
use anyhow::{Context, Result, anyhow, bail};
use futures::future::{LocalBoxFuture, join_all};
use lakebed::{ClusterId, Config, File, GroupId, Halt, NodeId, Tuning};
use lakebed_kv::serve::{Limits, serve};
use lakebed_runtime::{DiskKind, Groups, GroupsNode, GroupsOptions, Handle, Listen, Node, Options};
use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
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
    /// The most clients that it serves at one time.
    pub(crate) clients_max: usize,
    /// Over how many its keys are spread.
    pub(crate) groups: u16,
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

/// What is driven on the node's thread.
struct Opened {
    source: Source,
    node: LocalBoxFuture<'static, Arc<Halt>>,
    /// Asks it to stop, after handing its leadership over if it should.
    stop: Box<dyn FnOnce(bool)>,
    clients: tokio::net::TcpListener,
    limits: Limits,
}

/// How long a node that has ended is still waited for.
const STOP_MAX: Duration = Duration::from_secs(1);

impl Plan {
    /// Opens the node and serves its clients until it has stopped.
    pub(crate) async fn start(self) -> Result<Running> {
        let (id, is_new) = (self.id, self.is_new()?);
        let (opened, opens) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let (stop, stopping) = watch::channel(Stop::No);
        let work = move || {
            let runtime = match lakebed_runtime::executor() {
                Ok(runtime) => runtime,
                Err(error) => return drop(opened.send(Err(error.into()))),
            };
            let halt = runtime.block_on(self.drive(opened, stopping));
            // With it go sockets that tasks still hold: who hears of the end may start anew. A thread
            // that asks for a name, or a file system that does not answer, is not waited for.
            runtime.shutdown_timeout(STOP_MAX);
            halt.map(|halt| end.send(halt));
        };
        thread::Builder::new().name(format!("node-{id}")).spawn(work)?;
        let source = opens.await.context("the node's thread died")??;
        Ok(Running { source, is_new, stop, ended })
    }

    /// Whether there is no node in its directory.
    pub(crate) fn is_new(&self) -> Result<bool> {
        if self.groups == 1 {
            return Ok(!self.dir.join(File::HardState.name()).exists());
        }
        Ok(!GroupsFile::read(&self.dir)?.is_some_and(|file| file.is_formed()))
    }

    async fn drive(
        self,
        opened: oneshot::Sender<Result<Source>>,
        stopping: watch::Receiver<Stop>,
    ) -> Option<Arc<Halt>> {
        match self.open() {
            Ok(node) => {
                // Whoever started it may have gone: then it is told to stop as well.
                let _ = opened.send(Ok(node.source.clone()));
                Some(work(node, stopping).await)
            }
            Err(error) => {
                drop(opened.send(Err(error)));
                None
            }
        }
    }

    fn open(self) -> Result<Opened> {
        let batch_bytes_max = self.tuning.append_bytes_max - ENTRY_HEAD_BYTES_MAX;
        let batch_bytes_max = batch_bytes_max as usize;
        let limits = Limits { batch_bytes_max, clients_max: self.clients_max };
        self.clients.set_nonblocking(true)?;
        let clients = tokio::net::TcpListener::from_std(self.clients.try_clone()?)?;
        let (source, node, stop) =
            if self.groups == 1 { self.open_one()? } else { self.open_groups()? };
        Ok(Opened { source, node, stop, clients, limits })
    }

    fn open_one(self) -> Result<Driven> {
        let mut config = Config::new(GroupId(1), NodeId(self.id));
        config.groups = 1;
        config.tuning = self.tuning;
        let members = self.members.iter().map(|(id, address)| (*id, address.as_str()));
        let listen = Listen::Bound(self.peers);
        let mut options =
            Options::new(self.dir.clone(), self.cluster, config, listen).members(members);
        options.joins = self.joins;
        options.disk = self.disk;
        options.insecure = self.insecure;
        options.tape = self.tape;
        let met = Arc::new(Met::default());
        let (handle, node) = Node::open(options, Watched::new(Arc::clone(&met)))?;
        let (health, counters) = (node.health(), node.counters());
        let groups = [Seat { handle: handle.clone(), dir: self.dir, met }].into();
        let stop = move |hand_over| drop(handle.shutdown(hand_over));
        let source = Source { id: self.id, groups, health, counters, looks: Looks::default() };
        Ok((source, Box::pin(node), Box::new(stop)))
    }

    fn open_groups(self) -> Result<Driven> {
        // Before the first group: how many there are must be known when the first key is written.
        let file = match GroupsFile::read(&self.dir)? {
            Some(file) => file,
            None => {
                refuse_strangers(&self.dir)?;
                let file = GroupsFile::new(self.groups);
                file.write(&self.dir)?;
                file
            }
        };
        if file.is_restoring() {
            bail!(
                "{} was not restored to the end: give `lakebed restore` again as it was given",
                self.dir.display()
            );
        }
        self.refuse_lost(&file)?;
        let (id, listen) = (NodeId(self.id), Listen::Bound(self.peers));
        let mut options = GroupsOptions::new(self.dir.clone(), self.cluster, id, listen);
        options.groups = self.groups.into();
        let hibernate_after = options.tuning.hibernate_after;
        options.tuning = self.tuning.clone();
        options.tuning.hibernate_after = hibernate_after;
        options.insecure = self.insecure;
        let met: Vec<Arc<Met>> = (0..self.groups).map(|_| Arc::default()).collect();
        let of = |met: &[Arc<Met>], group: GroupId| {
            met.get(group.0 as usize - 1).cloned().unwrap_or_default()
        };
        let theirs = met.clone();
        let machine = move |group| Watched::new(of(&theirs, group));
        let (groups, node) = GroupsNode::open(options, machine)?;
        let members: Vec<_> =
            self.members.iter().map(|(id, address)| (*id, address.as_str())).collect();
        let seat = |number: u64| {
            let group = GroupId(number);
            let handle = match groups.group(group) {
                Some(handle) => handle,
                None if self.joins => groups.join(group)?,
                None => groups.create(group, members.iter().copied())?,
            };
            Ok(Seat { handle, dir: groups.path(group), met: of(&met, group) })
        };
        let seats: Vec<Seat> = (1..=u64::from(self.groups)).map(seat).collect::<Result<_>>()?;
        if !file.is_formed() {
            file.formed(&self.dir)?;
        }
        let (health, counters) = (node.health(), node.counters());
        let handles = seats.iter().map(|seat| seat.handle.clone()).collect();
        let (groups_here, looks) = (seats.into(), Looks::default());
        let source = Source { id: self.id, groups: groups_here, health, counters, looks };
        let node = Box::pin(until_ended(groups.clone(), node, handles));
        Ok((source, node, Box::new(move |hand_over| groups.shutdown(hand_over))))
    }

    /// A group that lost its folder does not begin anew as if it had never promised anything.
    fn refuse_lost(&self, file: &GroupsFile) -> Result<()> {
        let is_lost = |group: &u64| !folder(&self.dir, *group).is_dir();
        match (1..=u64::from(self.groups)).find(is_lost).filter(|_| file.is_formed()) {
            Some(lost) => bail!(
                "{} is gone, and was there: node {} must not come back without what it promised in \
                 group {lost}; put the folder back, or replace the node by a new one (`lakebed \
                 member replace`)",
                folder(&self.dir, lost).display(),
                self.id
            ),
            None => Ok(()),
        }
    }
}

type Driven = (Source, LocalBoxFuture<'static, Arc<Halt>>, Box<dyn FnOnce(bool)>);

/// Drives a node of groups until all of them have ended, by themselves or because they were asked
/// to; then tells why: the first reason that is not that.
async fn until_ended(
    groups: Groups,
    mut node: GroupsNode<Watched>,
    handles: Vec<Handle>,
) -> Arc<Halt> {
    let mut ended = std::pin::pin!(join_all(handles.iter().map(Handle::ended)));
    let halts = tokio::select! {
        biased;
        () = &mut node => ended.await,
        halts = &mut ended => {
            groups.shutdown(false);
            node.await;
            halts
        }
    };
    let mut halts: Vec<_> = halts.into_iter().flatten().collect();
    halts.sort_by_key(|halt| **halt == Halt::Stopped);
    halts.into_iter().next().unwrap_or_else(|| Arc::new(Halt::Stopped))
}

/// Clients first hear no more, then the node stops: what is on its way is answered. A node that ends
/// by itself has answered as well, a leader whose removal was ordered for one: then its clients still
/// have to be told.
async fn work(opened: Opened, mut stopping: watch::Receiver<Stop>) -> Arc<Halt> {
    let Opened { source, mut node, stop, clients, limits } = opened;
    let (over, is_over) = oneshot::channel::<()>();
    let asked = async move {
        tokio::select! {
            stop = stopping.wait_for(|stop| *stop != Stop::No) => {
                stop.map_or(Stop::Yes { hand_over: true }, |stop| *stop)
            }
            _ = is_over => Stop::Yes { hand_over: false },
        }
    };
    let served = async {
        let (told, hears) = oneshot::channel();
        let asked = async {
            let _ = told.send(asked.await);
        };
        serve(clients, Observed::all(&source), limits, asked).await;
        // The node itself is awaited below.
        stop(matches!(hears.await, Ok(Stop::Yes { hand_over: true })));
    };
    let mut served = std::pin::pin!(served);
    tokio::select! {
        halt = &mut node => {
            drop(over);
            served.await;
            halt
        }
        () = &mut served => node.await,
    }
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
