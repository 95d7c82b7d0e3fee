use super::*;

/// Nodes as formatted: each knows its own incarnation only.
fn formatted(nodes: u64) -> Cluster {
    let disk = |own: u64| {
        let mut disk = disk_with(0, &[], nodes);
        let mut members = members(nodes);
        members.voters.iter_mut().for_each(|m| m.incarnation *= u64::from(m.id.0 == own));
        disk.recorded = Arc::new(members);
        disk.wanted_members = [Arc::clone(&disk.recorded), Arc::clone(&disk.recorded)];
        disk
    };
    Cluster::new((1..=nodes).map(disk).collect())
}

fn roles(cluster: &Cluster) -> Vec<status::Role> {
    cluster.nodes.iter().map(Node::role).collect()
}

#[test]
fn a_cluster_forms_when_all_have_met() {
    let mut cluster = formatted(3);
    cluster.run();
    assert_eq!(roles(&cluster), [status::Role::Follower; 3]);
    assert!(cluster.nodes.iter().all(|node| *node.disk.recorded == members(3)));
    cluster.elapse(5000 * MS);
    assert!(cluster.at(1).raft.leader().is_some());
}

#[test]
fn nobody_votes_while_one_is_missing() {
    let mut cluster = formatted(3);
    cluster.isolate(3);
    cluster.elapse(10_000 * MS);
    assert_eq!(roles(&cluster), [status::Role::Forming; 3]);
    assert!(cluster.nodes.iter().all(|node| node.disk.promised == (Term(0), None)));
    cluster.cut.clear();
    cluster.elapse(5000 * MS);
    assert!(cluster.at(3).raft.leader().is_some());
}

#[test]
fn an_incarnation_counts_as_met_when_the_disk_has_it() {
    let mut cluster = formatted(3);
    cluster.at(3).disk.lazy = true;
    cluster.elapse(1000 * MS);
    assert_eq!(roles(&cluster), [status::Role::Forming; 3], "node 3 has recorded nobody");
    cluster.at(3).disk.lazy = false;
    cluster.elapse(1000 * MS);
    assert_eq!(roles(&cluster), [status::Role::Follower; 3]);
}

/// Wiped and formatted again after it voted: it would vote a second time in the same term.
#[test]
fn a_wiped_member_is_turned_away() {
    let mut cluster = formatted(3);
    cluster.elapse(5000 * MS);
    let fresh = formatted(3).nodes.remove(2).disk;
    let mut disk = fresh;
    disk.recorded = Arc::new(formation_with(&disk.recorded, 3, 999));
    disk.wanted_members = [Arc::clone(&disk.recorded), Arc::clone(&disk.recorded)];
    let (now, tuning) = (cluster.now, cluster.tuning.clone());
    let mut reborn = recovered(&disk, 3);
    reborn.identity.incarnation = 999;
    let raft = Raft::new(&reborn, setting(&tuning), 77, now);
    *cluster.at(3) = Node { raft, disk, ..cluster.at(3).clone() };
    cluster.elapse(300 * MS);
    assert_eq!(cluster.at(3).halted, Some(Halt::DiskLost { by: node(1) }));
    assert!(cluster.at(1).has(Mark::NewcomerTurnedAway));
}

fn formation_with(members: &Membership, id: u64, incarnation: u64) -> Membership {
    let mut members = members.clone();
    members.voters.iter_mut().filter(|m| m.id.0 == id).for_each(|m| m.incarnation = incarnation);
    members
}

#[test]
fn a_formed_node_restarts_without_asking() {
    let mut cluster = formatted(3);
    cluster.elapse(5000 * MS);
    cluster.isolate(2);
    cluster.crash(2);
    cluster.run();
    assert_eq!(cluster.at(2).role(), status::Role::Follower);
}

#[test]
fn one_that_met_all_and_has_no_term_asks_again() {
    let mut cluster = formatted(3);
    cluster.run();
    cluster.crash(2);
    assert_eq!(cluster.at(2).role(), status::Role::Forming);
    cluster.run();
    assert_eq!(cluster.at(2).role(), status::Role::Follower, "those who have formed still answer");
}
