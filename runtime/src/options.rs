//! What a node is started with.

use bytes::Bytes;
use lakebed::{ClusterId, Config, Member, Membership, NodeId, Start};
use std::{
    fmt,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    str::FromStr,
    sync::Arc,
};

/// Everything a [`Node`](crate::Node) is told about itself and its surroundings.
#[derive(Debug)]
#[non_exhaustive]
pub struct Options {
    /// The node's directory: its own, made if there is none.
    pub dir: PathBuf,
    /// The cluster it belongs to; the same on all its nodes, and written into the directory.
    pub cluster: ClusterId,
    /// Group, node id, timing and limits.
    pub config: Config,
    /// Where peers reach it.
    pub listen: Listen,
    /// The members of a new cluster: what an empty directory is formatted with. An empty
    /// directory without it is refused.
    pub members: Option<Arc<Membership>>,
    /// Whether an empty directory becomes a node that waits to be added to the cluster: then
    /// [`members`](Self::members) are not looked at.
    pub joins: bool,
    /// How to start; `None`: an empty directory is formatted, any other is run.
    pub start: Option<Start>,
    /// How to write to disk.
    pub disk: DiskKind,
    /// What peers must know to be let in; may be empty. It keeps strangers and mistakes out, and
    /// hides nothing: what follows the handshake is not encrypted.
    pub secret: Vec<u8>,
    /// Whether to listen elsewhere than on loopback.
    pub insecure: bool,
    /// Where to record all that the engine is told and what it answers, for bug reports: in
    /// [`lakebed::tape`]'s format, without end, every command and every message included. A file
    /// that is there is left alone; `.2`, `.3` ... is appended to the name then. The node never
    /// waits for it: a tape that cannot be written, or not fast enough, ends with a warning. A
    /// process that is killed loses its last second.
    pub tape: Option<PathBuf>,
}

impl Options {
    /// A node with everything else at its default.
    #[must_use]
    pub fn new(
        dir: impl Into<PathBuf>,
        cluster: ClusterId,
        config: Config,
        listen: Listen,
    ) -> Self {
        Self {
            dir: dir.into(),
            cluster,
            config,
            listen,
            members: None,
            joins: false,
            start: None,
            disk: DiskKind::Auto,
            secret: Vec::new(),
            insecure: false,
            tape: None,
        }
    }

    /// With these voters, by id and address, should the directory be empty.
    #[must_use]
    pub fn members<'a>(mut self, voters: impl IntoIterator<Item = (u64, &'a str)>) -> Self {
        let member = |(id, address): (u64, &str)| Member {
            id: NodeId(id),
            incarnation: 0,
            address: Bytes::copy_from_slice(address.as_bytes()),
        };
        self.members = Some(Arc::new(Membership::of(voters.into_iter().map(member))));
        self
    }
}

/// Where a node listens for its peers.
#[derive(Debug)]
pub enum Listen {
    /// At this address.
    Address(SocketAddr),
    /// On a socket that is bound already.
    Bound(TcpListener),
}

/// How a node writes to disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DiskKind {
    /// [`Uring`](Self::Uring) where the system allows it, else [`Files`](Self::Files).
    #[default]
    Auto,
    /// Threads that write and sync.
    Files,
    /// The kernel's submission queue, around the page cache.
    Uring,
}

impl FromStr for DiskKind {
    type Err = UnknownDisk;

    fn from_str(name: &str) -> Result<Self, UnknownDisk> {
        match name {
            "auto" => Ok(Self::Auto),
            "files" => Ok(Self::Files),
            "uring" => Ok(Self::Uring),
            _ => Err(UnknownDisk(name.into())),
        }
    }
}

/// There is no disk of this name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownDisk(pub String);

impl fmt::Display for UnknownDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no disk is called {:?}: it is auto, files or uring", self.0)
    }
}

impl std::error::Error for UnknownDisk {}
