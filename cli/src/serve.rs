//! `lakebed serve`: one node, one process.

use crate::{
    addresses::Peers,
    args::{Serve, refuse},
    block_on,
    descriptors::clients_max,
    groups_file,
    log::note,
    node::{Plan, listen},
    say,
    signals::Signals,
    supervise::Supervisor,
};
use anyhow::Result;
use lakebed::ClusterId;
use sha2::{Digest, Sha256};
use std::{net::SocketAddr, process::ExitCode};

pub(crate) fn run(serve: &Serve) -> Result<ExitCode> {
    check(serve);
    let tuning = serve.tuning();
    let groups = groups_file::settle(&serve.dir, serve.groups)?;
    if groups > 1 {
        check_groups(serve);
    }
    block_on(async {
        let signals = Signals::listen()?;
        let plan = Plan {
            id: serve.id,
            dir: serve.dir.clone(),
            cluster: serve.cluster_id.map_or_else(
                || cluster_id(serve.cluster.as_deref(), &serve.peers, groups),
                ClusterId,
            ),
            members: serve.peers.iter().map(|(id, address)| (id, address.into())).collect(),
            joins: serve.join,
            peers: listen(serve.listen, "peers", "stop what uses it, or change --listen")?,
            clients: listen(serve.resp, "clients", "stop what uses it, or change --resp")?,
            clients_max: clients_max(1, groups)?,
            groups,
            tuning,
            disk: serve.tuning.disk,
            insecure: serve.insecure,
            tape: serve.tape.clone(),
        };
        let metrics = serve
            .metrics
            .map(|address| listen(address, "metrics", "stop what uses it, or change --metrics"));
        let metrics = metrics.transpose()?;
        say(format_args!(
            "lakebed: node {}, data in {}, clients on {}, peers on {}",
            serve.id,
            serve.dir.display(),
            serve.resp,
            serve.listen
        ));
        if groups > 1 {
            say(format_args!("the keys are spread over {groups} groups by hash slot"));
        }
        let greeting =
            format!("talk to it: redis-cli -h {} -p {}", serve.resp.ip(), serve.resp.port());
        Supervisor::new(true, move |_| greeting.clone())
            .metrics(metrics)
            .run(vec![plan], signals)
            .await
    })
}

/// Refuses what cannot be meant.
fn check(serve: &Serve) {
    let Serve { id, peers, .. } = serve;
    if serve.join && peers.contains(*id) {
        refuse(format!(
            "--peers names node {id}, so the cluster was founded with it: leave --join away, or take \
             an id that was never used for a node that is new"
        ));
    }
    if !serve.join && !peers.contains(*id) {
        refuse(format!(
            "--peers {peers} does not name node {id} itself: every node is given all of them, \
             itself included; add {id}={}, or --join if the cluster was founded without it",
            serve.listen
        ));
    }
    check_address("--listen", serve.listen, serve.insecure);
    check_address("--resp", serve.resp, serve.insecure);
    if let Some(metrics) = serve.metrics {
        check_address("--metrics", metrics, serve.insecure);
        let taken = [("--listen", serve.listen), ("--resp", serve.resp)];
        if let Some((flag, _)) = taken.iter().find(|(_, address)| *address == metrics) {
            refuse(format!("{flag} and --metrics are both {metrics}: they need a port each"));
        }
    }
    let own = peers.iter().find_map(|(peer, address)| (peer == *id).then_some(address));
    if let Some(own) =
        own.filter(|own| own.parse().is_ok_and(|own: SocketAddr| own != serve.listen))
    {
        // On purpose, perhaps: where addresses are translated.
        note(format_args!(
            "warning: --peers sends the other nodes to {own}, and this one listens on {}",
            serve.listen
        ));
    }
    if serve.listen == serve.resp {
        refuse(format!("--listen and --resp are both {}: they need a port each", serve.resp));
    }
}

/// What there is for one group alone.
fn check_groups(serve: &Serve) {
    serve.tuning.check_for_groups();
    if serve.tape.is_some() {
        refuse("--tape records one engine, and with --groups there are several");
    }
}

fn check_address(flag: &str, address: SocketAddr, insecure: bool) {
    if !insecure && !address.ip().is_loopback() {
        refuse(format!(
            "{flag} {address} can be reached from other machines, and nothing is encrypted: use \
             a loopback address, such as 127.0.0.1:{}, or accept that with --insecure",
            address.port()
        ));
    }
}

/// Every node derives the same id, from the cluster's name or, without one, from its members; and
/// from the number of groups, so that nodes that spread keys differently never meet.
pub(crate) fn cluster_id(cluster: Option<&str>, peers: &Peers, groups: u16) -> ClusterId {
    let mut hash = Sha256::new();
    match cluster {
        Some(name) => {
            hash.update(format!("name {name}"));
            // One that ends as a number of groups does is not the other's of so many: no name has this in it.
            if name.rsplit_once(" groups ").is_some_and(|(_, count)| count.parse::<u16>().is_ok()) {
                hash.update([0]);
            }
        }
        None => hash.update(format!("peers {peers}")),
    }
    if groups > 1 {
        hash.update(format!(" groups {groups}"));
    }
    let digest: [u8; 32] = hash.finalize().into();
    let first = digest.first_chunk().expect("a digest is longer than an id");
    // Zero is no cluster.
    ClusterId(u64::from_le_bytes(*first).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes of both would have met, each with the other's keys.
    #[test]
    fn a_name_that_ends_as_a_number_of_groups_does_is_another_clusters() {
        let peers: Peers = "1=127.0.0.1:1".parse().unwrap();
        let id = |name, groups| cluster_id(name, &peers, groups);
        let (named, of_four) = (id(Some("x groups 4"), 1), id(Some("x"), 4));
        assert_ne!(named, of_four);
        assert_ne!(id(Some("x groups 4"), 4), id(Some("x groups 4 groups 4"), 1));
        // What clusters are called that are there.
        assert_eq!(id(Some("x"), 1).0, 14_107_339_195_039_613_142);
        assert_eq!(of_four.0, 3_542_083_179_303_247_494);
        assert_eq!(id(Some("my groups"), 1).0, 8_070_925_090_252_343_156);
        assert_eq!(id(None, 4).0, 12_572_535_599_025_987_226);
    }
}
