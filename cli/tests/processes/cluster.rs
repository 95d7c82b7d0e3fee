//! Three nodes, a process each, that are killed and started again on the same ports and folders.

use crate::{
    common::{Patient, Process, Scratch, connect, eventually, lakebed, local},
    ports::ports,
};
use redis::RedisError;
use rustix::process::Pid;
use std::{
    path::{Path, PathBuf},
    process::Command,
    thread,
};

pub(crate) const NODES: u16 = 3;

pub(crate) struct Cluster {
    dir: Scratch,
    /// The first node's port for clients; the others' follow.
    pub(crate) clients: u16,
    peers: u16,
    /// Flags beside those that every node needs.
    flags: Vec<String>,
    /// Makes a node's command line into the one that is run.
    wrap: fn(Command) -> Command,
    pub(crate) nodes: Vec<Process>,
}

impl Cluster {
    /// Starts nodes with these flags beside the necessary ones, each in a folder below `dir`, and
    /// waits until they serve.
    pub(crate) fn start(dir: Scratch, flags: &[&str], wrap: fn(Command) -> Command) -> Self {
        let (clients, peers) = (ports(NODES), ports(NODES));
        let flags = flags.iter().map(ToString::to_string).collect();
        let mut cluster = Self { dir, clients, peers, flags, wrap, nodes: Vec::new() };
        cluster.nodes = (0..NODES).map(|n| cluster.spawn(n)).collect();
        cluster.nodes.iter().for_each(|node| drop(node.says("ready")));
        cluster
    }

    /// The folder of this node.
    pub(crate) fn node_dir(&self, n: u16) -> PathBuf {
        node_dir(self.dir.path(), n)
    }

    fn spawn(&self, n: u16) -> Process {
        self.serve(n, self.peers + n, self.clients + n, &[])
    }

    /// A node that the cluster was not founded with, on these ports; it waits to be added.
    pub(crate) fn join(&self, n: u16, peers: u16, clients: u16) -> Process {
        self.serve(n, peers, clients, &["--join"])
    }

    fn serve(&self, n: u16, peers: u16, clients: u16, more: &[&str]) -> Process {
        let peer = |n| format!("{}=127.0.0.1:{}", n + 1, self.peers + n);
        let all: Vec<_> = (0..NODES).map(peer).collect();
        let flags = [
            ("--id", (n + 1).to_string()),
            ("--dir", self.node_dir(n).display().to_string()),
            ("--listen", local(peers)),
            ("--peers", all.join(",")),
            ("--resp", local(clients)),
            // Both ways to write, side by side in one cluster.
            ("--disk", if n == 0 { "files" } else { "auto" }.into()),
            ("--heartbeat-ms", "40".into()),
            ("--election-ms", "200".into()),
        ];
        let mut command = lakebed(&["serve"]);
        command.args(flags.iter().flat_map(|(flag, value)| [*flag, value]));
        command.args(more).args(&self.flags);
        let log = self.dir.log(&format!("node-{}", n + 1));
        Process::start_logged(&mut (self.wrap)(command), &log)
    }

    /// SIGKILL for these, all before the first one is gone.
    pub(crate) fn kill(&mut self, nodes: impl Iterator<Item = u16> + Clone) {
        nodes.clone().for_each(|n| self.nodes[usize::from(n)].kill());
        for n in nodes {
            self.nodes[usize::from(n)].ended();
        }
    }

    pub(crate) fn restart(&mut self, n: u16) {
        self.nodes[usize::from(n)] = self.spawn(n);
    }

    /// The same, where it listens for the others on another port.
    pub(crate) fn restart_at(&mut self, n: u16, peers: u16) {
        self.nodes[usize::from(n)] = self.serve(n, peers, self.clients + n, &[]);
    }

    /// Their processes.
    pub(crate) fn ids(&self) -> Vec<Pid> {
        self.nodes.iter().map(Process::id).collect()
    }

    /// One that may be asked, patiently.
    pub(crate) fn node(&self, n: u64) -> Patient {
        Patient::new(self.clients + (n % u64::from(NODES)) as u16)
    }

    /// Every node, asked after everything that was acknowledged, has applied the same to the same
    /// end.
    pub(crate) fn check_digests(&self) {
        let mut nodes: Vec<_> = (0..u64::from(NODES)).map(|n| self.node(n)).collect();
        eventually("all nodes have applied the same", || {
            let digest = |node: &mut Patient| node.ask::<(u64, String)>(&["LAKEBED", "DIGEST"]);
            let digests: Vec<_> = nodes.iter_mut().map(digest).collect();
            let same_index = digests.iter().all(|(index, _)| *index == digests[0].0);
            assert!(!same_index || digests.iter().all(|found| found == &digests[0]), "{digests:?}");
            same_index
        });
    }
}

/// Where this node of a cluster in this directory keeps its data: what it says lies elsewhere.
pub(crate) fn node_dir(dir: &Path, n: u16) -> PathBuf {
    dir.join(format!("disk/node-{}", n + 1))
}

/// What each node says of itself, if the test has failed; what it said before then follows.
impl Drop for Cluster {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        for port in self.clients..self.clients + NODES {
            let info = connect(port).and_then(|mut node| redis::cmd("INFO").query(&mut node));
            let info = info.unwrap_or_else(|error: RedisError| error.to_string());
            eprintln!("on port {port}, peers on {}:\n{info}", self.peers + port - self.clients);
        }
    }
}
