//! `lakebed up`: a whole cluster in this process, on loopback.

use crate::{
    args::{Up, refuse},
    backup_files::BackupFiles,
    block_on,
    cluster_file::{self, ClusterFile},
    counted,
    descriptors::clients_max,
    groups_file,
    node::{Plan, listen},
    restore::{self, NewNode},
    say,
    signals::Signals,
    supervise::Supervisor,
};
use anyhow::{Result, bail};
use lakebed::{MEMBERS_MAX, Tuning};
use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// How many nodes a new cluster has.
const NODES: u8 = 3;
/// How far the ports for peers lie above those for clients.
const PEER_PORTS_ABOVE: u16 = 1000;

pub(crate) fn run(up: &Up) -> Result<ExitCode> {
    let dir = up.dir.clone().unwrap_or_else(default_dir);
    let known = ClusterFile::read(&dir)?;
    let is_new = known.is_none();
    if is_new {
        refuse_orphans(&dir)?;
    }
    let nodes = nodes(up, known.as_ref(), &dir);
    check_peer_port(up, known.as_ref(), &dir);
    let ports = ports(up.port, nodes, "--port");
    let backup = backup(up, known.as_ref(), nodes, &dir)?;
    let groups = groups(up, known.as_ref(), backup.as_ref(), &dir);
    let mut cluster = known.unwrap_or_else(|| ClusterFile::draw(peer_ports(up, nodes), groups));
    check_overlap(&ports, &cluster.peer_ports);
    check_metrics(up.metrics_port, &ports, &cluster.peer_ports);
    let tuning = up.tuning.tuning();
    block_on(async {
        let mut signals = Signals::listen()?;
        let plans = plans(up, &dir, (&cluster, is_new), &ports, &tuning)?;
        let instead = "stop what uses it, or choose another port with --metrics-port";
        let metrics = up.metrics_port.map(|port| listen(loopback(port), "metrics", instead));
        let metrics = metrics.transpose()?;
        cluster.make_of(backup.as_ref());
        if is_new {
            // Not before all its ports were free: they are for ever.
            cluster.begin(&dir)?;
        }
        introduce(&dir, &ports, &cluster);
        if let Some(backup) = backup {
            restore::tell_state(&backup);
            let nodes = to_be_made(&plans)?;
            tokio::select! {
                made = tokio::task::spawn_blocking(move || make_all(&nodes, &backup)) => made??,
                // What is left is done by the same command again.
                never = signals.die_at_next() => never,
            }
            cluster.restored(&dir)?;
        }
        let greeting = move |nodes: &[u64]| greeting(&ports, nodes);
        Supervisor::new(false, greeting).metrics(metrics).run(plans, signals).await
    })
}

/// Nodes whose cluster nobody knows any more: another one that was made in their place would not be
/// theirs.
fn refuse_orphans(dir: &Path) -> Result<()> {
    if groups_file::is_nodes(dir) {
        bail!(
            "{} is a node's own folder, of `lakebed serve` or below that of another `lakebed up`: choose \
             another --dir",
            dir.display()
        );
    }
    let nodes = (1..=MEMBERS_MAX).map(|id| dir.join(format!("node-{id}")));
    match nodes.into_iter().find(|node| groups_file::is_nodes(node)) {
        Some(node) => bail!(
            "{} is a node's folder, and there is no {} beside it that says of which cluster: put it \
             back, or choose another --dir",
            node.display(),
            cluster_file::NAME
        ),
        None => Ok(()),
    }
}

/// What a cluster is to be made of, if it is not there yet.
fn backup(
    up: &Up,
    known: Option<&ClusterFile>,
    nodes: u8,
    dir: &Path,
) -> Result<Option<BackupFiles>> {
    let (path, begun) = (dir.display(), known.and_then(ClusterFile::restoring));
    let Some(file) = &up.restore else {
        if begun.is_some() {
            bail!(
                "the cluster in {path} was not restored to the end: give --restore again as it was \
                 given, or choose another --dir"
            );
        }
        return Ok(None);
    };
    if known.is_some() && begun.is_none() {
        bail!(
            "--restore, but {path} holds a cluster already: leave --restore out to start it, or choose \
             another --dir for the restored one"
        );
    }
    let there = (1..=nodes).map(|id| dir.join(format!("node-{id}"))).find(|node| node.exists());
    if let Some(node) = there.filter(|_| known.is_none()) {
        bail!(
            "--restore, but {} is there already: choose another --dir, or move it away",
            node.display()
        );
    }
    let backup = BackupFiles::read(file, up.groups)?;
    if begun.is_some_and(|begun| begun != backup.ids()) {
        bail!(
            "{path} holds the beginning of a cluster that is made of another backup: give that one \
             with --restore, or choose another --dir"
        );
    }
    Ok(Some(backup))
}

/// The nodes that have no directory yet, or an unfinished one.
fn to_be_made(plans: &[Plan]) -> Result<Vec<NewNode>> {
    let mut nodes = Vec::new();
    for plan in plans {
        if plan.is_new()? {
            let Plan { id, cluster, .. } = *plan;
            let members = plan.members.iter().map(|(id, address)| (*id, address));
            let (dir, members) = (plan.dir.clone(), restore::members(members));
            nodes.push(NewNode { id, dir, cluster, members });
        }
    }
    Ok(nodes)
}

fn make_all(nodes: &[NewNode], backup: &BackupFiles) -> Result<()> {
    nodes.iter().try_for_each(|node| restore::make(node, backup))
}

/// Every node of the cluster, its ports open.
fn plans(
    up: &Up,
    dir: &Path,
    (cluster, is_new): (&ClusterFile, bool),
    ports: &[u16],
    tuning: &Tuning,
) -> Result<Vec<Plan>> {
    let peers_instead = if is_new {
        "stop what uses it, or choose other ports with --peer-port"
    } else {
        "stop what uses it; the ports for peers are fixed since the cluster was made"
    };
    let members: Vec<_> = (1..)
        .zip(&cluster.peer_ports)
        .map(|(id, &port)| (id, loopback(port).to_string()))
        .collect();
    let clients_max = clients_max(ports.len(), cluster.groups)?;
    let plan = |(id, (&clients, &peers)): (u64, (&u16, &u16))| {
        let instead = "stop what uses it, or choose other ports with --port";
        let clients = listen(loopback(clients), "clients", instead)?;
        Ok(Plan {
            id,
            dir: dir.join(format!("node-{id}")),
            cluster: cluster.cluster(),
            members: members.clone(),
            joins: false,
            peers: listen(loopback(peers), "peers", peers_instead)?,
            clients,
            clients_max,
            groups: groups_file::settle(&dir.join(format!("node-{id}")), Some(cluster.groups))?,
            tuning: tuning.clone(),
            disk: up.tuning.disk,
            insecure: false,
            tape: None,
        })
    };
    (1..).zip(ports.iter().zip(&cluster.peer_ports)).map(plan).collect()
}

/// A cluster is not grown by starting it with more nodes.
fn nodes(up: &Up, known: Option<&ClusterFile>, dir: &Path) -> u8 {
    let Some(known) = known else { return up.nodes.unwrap_or(NODES) };
    let found = known.peer_ports.len();
    match up.nodes {
        Some(asked) if usize::from(asked) != found => refuse(format!(
            "--nodes {asked}, but {} holds a cluster of {found}: leave --nodes out, or choose \
             another --dir",
            dir.display()
        )),
        _ => u8::try_from(found).unwrap_or(u8::MAX),
    }
}

/// Nor are its keys spread anew.
fn groups(up: &Up, known: Option<&ClusterFile>, backup: Option<&BackupFiles>, dir: &Path) -> u16 {
    let found = known.map(|known| known.groups).or_else(|| backup.map(|backup| backup.groups));
    let asked = up.groups.or(found).unwrap_or(1);
    if let Some(known) = known.filter(|known| known.groups != asked) {
        refuse(format!(
            "--groups {asked}, but {} holds a cluster of {}: where each key is depends on it; leave \
             --groups out, or choose another --dir",
            dir.display(),
            known.groups
        ));
    }
    if asked > 1 {
        up.tuning.check_for_groups();
    }
    asked
}

/// Nor do its nodes meet elsewhere: each has the others' addresses.
fn check_peer_port(up: &Up, known: Option<&ClusterFile>, dir: &Path) {
    let (Some(asked), Some(known)) = (up.peer_port, known) else { return };
    if known.peer_ports.first() != Some(&asked) {
        refuse(format!(
            "--peer-port {asked}, but {} holds a cluster whose nodes meet at {}: leave --peer-port out, or \
             choose another --dir",
            dir.display(),
            range(&known.peer_ports)
        ));
    }
}

fn ports(first: u16, nodes: u8, flag: &str) -> Vec<u16> {
    let Some(end) = first.checked_add(u16::from(nodes) - 1) else {
        refuse(format!("{flag} {first} leaves no ports for {nodes} nodes: the last is 65535"))
    };
    (first..=end).collect()
}

fn peer_ports(up: &Up, nodes: u8) -> Vec<u16> {
    match (up.peer_port, up.port.checked_add(PEER_PORTS_ABOVE)) {
        (Some(first), _) | (None, Some(first)) => ports(first, nodes, "--peer-port"),
        (None, None) => refuse(format!(
            "--port {} leaves no room {PEER_PORTS_ABOVE} ports above it for the peers: give \
             --peer-port",
            up.port
        )),
    }
}

/// A port serves clients or peers.
fn check_overlap(clients: &[u16], peers: &[u16]) {
    if let Some(both) = clients.iter().find(|port| peers.contains(port)) {
        refuse(format!(
            "port {both} would be for clients and for peers: clients have {}, peers {}; choose \
             others with --port, or --peer-port for a new cluster",
            range(clients),
            range(peers)
        ));
    }
}

fn check_metrics(metrics: Option<u16>, clients: &[u16], peers: &[u16]) {
    let Some(port) = metrics else { return };
    for (ports, whose) in [(clients, "clients"), (peers, "peers")] {
        if ports.contains(&port) {
            refuse(format!(
                "port {port} would be for metrics and for {whose}, who have {}; choose another \
                 with --metrics-port",
                range(ports)
            ));
        }
    }
}

fn range(ports: &[u16]) -> String {
    match ports {
        [first, .., last] => format!("{first} to {last}"),
        [only] => only.to_string(),
        [] => "none".into(),
    }
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// `$XDG_DATA_HOME/lakebed`, usually `~/.local/share/lakebed`: the same wherever one stands.
fn default_dir() -> PathBuf {
    let xdg = env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || env::home_dir().map(|home| home.join(".local/share"));
    match xdg.or_else(home) {
        Some(data) => data.join("lakebed"),
        None => refuse("there is no home directory to keep data in: say where with --dir"),
    }
}

fn introduce(dir: &Path, ports: &[u16], cluster: &ClusterFile) {
    let nodes = counted(ports.len() as u64, "node");
    say(format_args!("lakebed: {nodes}, data in {}", dir.display()));
    if cluster.groups > 1 {
        say(format_args!("  the keys are spread over {} groups by hash slot", cluster.groups));
    }
    for (n, (clients, peers)) in ports.iter().zip(&cluster.peer_ports).enumerate() {
        let id = n + 1;
        say(format_args!(
            "  node {id}: clients on 127.0.0.1:{clients}, peers on 127.0.0.1:{peers}"
        ));
    }
}

/// What to do with a cluster in which these nodes are up.
fn greeting(ports: &[u16], nodes: &[u64]) -> String {
    let port = |node: u64| ports[node as usize - 1];
    let (first, last) = (port(nodes[0]), port(nodes[nodes.len() - 1]));
    format!(
        "\n  redis-cli -p {first} set hello world\n  redis-cli -p {last} get hello\n  \
         redis-benchmark -p {first} -t set,get,incr -P 16 -c 50 -d 256 -n 200000\n  \
         lakebed status 127.0.0.1:{first}\n\nCtrl-C stops it; the next `up` finds the data again"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_follow_each_other() {
        assert_eq!(ports(7401, 3, "--port"), [7401, 7402, 7403]);
        assert_eq!(ports(65535, 1, "--port"), [65535]);
    }
}
