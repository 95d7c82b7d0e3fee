//! Puts a node together: directory, disk, network, clock and engine.
//!
//! Knows no protocol. Invariant: nothing is written before the directory is locked and known to be
//! this node's.

use crate::{
    clock::SystemClock,
    dir::{self, DirError, Owner},
    disk,
    driver::{Disk, Driver},
    executor,
    handle::Handle,
    health::{Health, Timed},
    net::{Counters, Identity, TcpNet},
    options::{Listen, Options},
    tape::{FileReel, Recorded},
};
use lakebed::{ConfigError, Engine, Halt, Start, StateMachine};
use std::{
    fmt,
    future::Future,
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    pin::Pin,
    sync::{Arc, mpsc},
    task::{Context, Poll},
    thread,
};

/// A node on real disks and sockets: a future that drives it, until it has halted and its
/// directory is unlocked.
pub struct Node<M> {
    driver: Driver<Recorded<FileReel>, Timed<Box<dyn Disk + Send>>, TcpNet, SystemClock, M>,
    counters: Arc<Counters>,
    health: Arc<Health>,
    address: SocketAddr,
}

impl<M: StateMachine> Node<M> {
    /// A node that begins when it is first polled, and the handle to it.
    ///
    /// Must be called within a tokio runtime that has I/O and time enabled, and polled there: one like
    /// [`executor`]'s, as the usual ones hear too seldom of a network while a machine has much to do.
    /// Waits up to ten seconds for operations of a former, killed node on the same directory.
    pub fn open(options: Options, machine: M) -> Result<(Handle, Self), StartError> {
        let listener = listen(options.listen, options.insecure)?;
        let address = listener.local_addr().map_err(StartError::System)?;
        let config = options.config;
        config.validate().map_err(StartError::Config)?;
        let identity = Identity {
            cluster: options.cluster,
            group: config.group,
            groups: 0,
            node: config.node,
        };
        let owner =
            Owner { cluster: identity.cluster.0, group: identity.group.0, node: identity.node.0 };
        let (directory, vacant) = dir::open(&options.dir, owner).map_err(StartError::Directory)?;
        let format = options.members.filter(|_| vacant);
        let start = options.start.unwrap_or_else(|| match format {
            _ if vacant && options.joins => Start::Join { cluster: options.cluster },
            Some(members) => Start::Format { cluster: options.cluster, members },
            None => Start::Run,
        });
        let health = Arc::new(Health::new(options.dir));
        let disk = disk::open(options.disk, directory).map_err(StartError::Disk)?;
        let disk = Timed::new(disk, Arc::clone(&health));
        let net = TcpNet::new(identity, &options.secret, listener, &config)
            .map_err(StartError::System)?;
        let counters = net.counters();
        let seed = getrandom::u64().map_err(|error| StartError::System(io::Error::other(error)))?;
        let engine = Engine::new(config.clone(), seed).map_err(StartError::Config)?;
        let engine = match options.tape {
            Some(path) => Recorded::onto(FileReel::create(path)?, engine, &config, seed),
            None => Recorded::without(engine),
        };
        let surroundings = (disk, net, SystemClock::default());
        let (handle, driver) = Driver::new(engine, &config, start, machine, surroundings);
        Ok((handle, Self { driver, counters, health, address }))
    }

    /// What happened on its network, as long as it lives and after.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// How its disk does, as long as it lives and after.
    #[must_use]
    pub fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }

    /// Where peers reach it.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl<M: StateMachine + Send + 'static> Node<M> {
    /// Opens a node and drives it on a thread of its own.
    pub fn spawn(options: Options, machine: M) -> Result<Handle, StartError> {
        let (opened, opens) = mpsc::sync_channel(1);
        let drive = move || {
            let runtime = match executor() {
                Ok(runtime) => runtime,
                Err(error) => return drop(opened.send(Err(StartError::System(error)))),
            };
            runtime.block_on(async {
                match Self::open(options, machine) {
                    Ok((handle, node)) => {
                        drop(opened.send(Ok(handle)));
                        // As a task: what wakes it on this thread then costs no system call.
                        drop(tokio::spawn(node).await);
                    }
                    Err(error) => drop(opened.send(Err(error))),
                }
            });
        };
        let name = "lakebed-node".into();
        thread::Builder::new().name(name).spawn(drive).map_err(StartError::System)?;
        opens.recv().expect("the thread reports before it ends")
    }
}

impl<M: StateMachine> Future for Node<M> {
    type Output = Arc<Halt>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Arc<Halt>> {
        Pin::new(&mut self.driver).poll(cx)
    }
}

pub(crate) fn listen(listen: Listen, insecure: bool) -> Result<TcpListener, StartError> {
    let listener = match listen {
        Listen::Bound(listener) => listener,
        Listen::Address(address) => {
            check_loopback(address, insecure)?;
            TcpListener::bind(address).map_err(|error| StartError::Listen { address, error })?
        }
    };
    let address = listener.local_addr().map_err(StartError::System)?;
    check_loopback(address, insecure)?;
    Ok(listener)
}

const fn check_loopback(address: SocketAddr, insecure: bool) -> Result<(), StartError> {
    if insecure || address.ip().is_loopback() {
        Ok(())
    } else {
        Err(StartError::NotLoopback(address))
    }
}

/// Why a node could not be opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// Its directory cannot be used.
    Directory(DirError),
    /// Its configuration cannot work.
    Config(ConfigError),
    /// Its disk cannot be driven the way that was asked for.
    Disk(io::Error),
    /// The address is in use, or not this machine's.
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// Others than this machine could reach the address, and that was not said to be wanted.
    NotLoopback(SocketAddr),
    /// Its tape cannot be begun.
    Tape {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The system refused a thread, a socket or entropy.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(error) => error.fmt(f),
            Self::Config(error) => error.fmt(f),
            Self::Disk(error) => write!(f, "cannot drive the disk: {error}"),
            Self::Listen { address, error } => write!(f, "cannot listen on {address}: {error}"),
            Self::NotLoopback(address) => write!(
                f,
                "{address} can be reached from other machines, and peers are not encrypted: listen \
                 on loopback, or say that insecure is wanted"
            ),
            Self::Tape { path, error } => {
                write!(f, "cannot record to {}: {error}", path.display())
            }
            Self::System(error) => write!(f, "the system refused: {error}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Directory(error) => Some(error),
            Self::Config(error) => Some(error),
            Self::Disk(error)
            | Self::Listen { error, .. }
            | Self::Tape { error, .. }
            | Self::System(error) => Some(error),
            Self::NotLoopback(_) => None,
        }
    }
}
