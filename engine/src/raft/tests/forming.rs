use super::*;
use crate::change::Change;

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

/// Four that have met. The last went down before it had a term, and the second is removed before it is
/// back.
fn left_meanwhile() -> Cluster {
    let mut cluster = formatted(4);
    cluster.run();
    cluster.isolate(4);
    cluster.crash(4);
    cluster.elect(1);
    cluster.changed(1, 100, &[Change::Demote(node(4)), Change::Remove(node(2))]);
    cluster.cut.clear();
    cluster.isolate(2);
    cluster
}

/// It went down before it had a term, and when it was back all others were gone whom it had met, and had
/// others in their place, of whom it believed nothing.
#[test]
fn one_that_met_all_is_told_by_those_who_came_after_them() {
    let mut cluster = changes::joined(3, 5);
    cluster.cut_off(&[3]);
    cluster.at(3).disk = disk_with(0, &[], 3);
    cluster.crash(3);
    assert_eq!(cluster.at(3).role(), status::Role::Forming);
    let member = changes::member;
    cluster.changed(1, 100, &[4, 5].map(|id| Change::AddLearner(member(id))));
    cluster.elapse(300 * MS);
    cluster.changed(1, 101, &[4, 5].map(|id| Change::Promote(node(id))));
    cluster.elapse(300 * MS);
    cluster.cut_off(&[1]);
    cluster.elect(4);
    let goes = [1, 2].map(|id| Change::Remove(node(id)));
    cluster.changed(4, 102, &[&[Change::Demote(node(3))], &goes[..]].concat());
    cluster.cut.clear();
    cluster.cut_off(&[1, 2]);
    cluster.elapse(1000 * MS);
    assert_eq!(cluster.at(3).role(), status::Role::Follower);
    assert_eq!(cluster.at(3).raft.leader(), Some(node(4)));
    assert_eq!(cluster.voters(3), (vec![4, 5], vec![]));
}

/// It went down before it had a term, and one of the founders was removed before it was back: it greeted
/// that one for ever (storm of groups, seed 5302287).
#[test]
fn one_that_met_all_does_not_wait_for_those_who_have_left() {
    let mut cluster = left_meanwhile();
    assert_eq!(cluster.at(4).role(), status::Role::Forming);
    // No longer than it takes to hear who the members are, from one who has met it.
    cluster.elapse(1000 * MS);
    assert_eq!(cluster.at(4).role(), status::Role::Follower);
    assert_eq!(cluster.at(4).raft.leader(), Some(node(1)));
    assert_eq!(cluster.voters(4), (vec![1, 3], vec![]));
}

/// Who is a member still must be met, whoever else says that it has been.
#[test]
fn one_that_has_not_met_a_member_waits_for_it() {
    let mut cluster = left_meanwhile();
    cluster.cut.extend([(node(3), node(4)), (node(4), node(3))]);
    cluster.elapse(1000 * MS);
    assert_eq!(cluster.at(4).role(), status::Role::Forming);
    cluster.cut.retain(|(from, to)| *from == node(2) || *to == node(2));
    cluster.elapse(1000 * MS);
    assert_eq!(cluster.at(4).role(), status::Role::Follower);
}

const ORIGIN: Origin = Origin { at: id(6, 2), id: SnapshotId(5) };

/// Nodes made from backups: they have a term and a log, and know their own incarnation only.
fn made_from(origins: &[Origin]) -> Cluster {
    let mut cluster = formatted(origins.len() as u64);
    let disk = |(own, &origin): (usize, &Origin)| {
        let recorded = Arc::clone(&cluster.nodes[own].disk.recorded);
        let past = if origin.is_nothing() { (0, &[][..]) } else { (6, &[6, 6][..]) };
        let wanted_members = [Arc::clone(&recorded), Arc::clone(&recorded)];
        Disk { origin, recorded, wanted_members, ..disk_with(past.0, past.1, 3) }
    };
    let disks = origins.iter().enumerate().map(disk).collect();
    cluster = Cluster::new(disks);
    cluster
}

#[test]
fn members_made_from_one_backup_meet_before_they_vote() {
    let mut cluster = made_from(&[ORIGIN; 3]);
    cluster.isolate(3);
    cluster.elapse(10_000 * MS);
    assert_eq!(roles(&cluster), [status::Role::Forming; 3], "a term is no history of theirs");
    assert!(cluster.nodes.iter().all(|node| node.disk.promised == (Term(6), None)));
    cluster.cut.clear();
    cluster.elapse(5000 * MS);
    assert!(cluster.at(3).raft.leader().is_some());
    assert!(cluster.nodes.iter().all(|node| node.has(Mark::FormedFromBackup)));
    assert!(cluster.nodes.iter().all(|node| node.disk.origin.is_nothing()), "it need not again");
    assert!(cluster.at(1).disk.promised.0 > Term(6), "terms go on");
}

/// It met all, and the others may not have recorded it: another life of it could vote beside it.
#[test]
fn one_made_from_a_backup_that_restarts_in_between_asks_again() {
    let mut cluster = made_from(&[ORIGIN; 3]);
    cluster.at(1).disk.lazy = true;
    cluster.elapse(1000 * MS);
    assert_eq!(*cluster.at(3).disk.recorded, members(3), "it knows all");
    assert_eq!(roles(&cluster), [status::Role::Forming; 3]);
    cluster.crash(3);
    cluster.elapse(1000 * MS);
    assert_eq!(cluster.at(3).role(), status::Role::Forming);
    cluster.at(1).disk.lazy = false;
    cluster.elapse(5000 * MS);
    assert!(cluster.at(3).raft.leader().is_some());
}

#[test]
fn a_member_made_from_another_backup_or_none_is_not_one() {
    let others = [
        Origin::default(),
        Origin { id: SnapshotId(9), ..ORIGIN },
        Origin { at: id(6, 1), ..ORIGIN },
    ];
    for other in others {
        for nodes in [[ORIGIN, ORIGIN, other], [other, other, ORIGIN]] {
            let mut cluster = made_from(&nodes);
            cluster.elapse(5000 * MS);
            assert!(cluster.nodes.iter().all(|node| node.raft.leader().is_none()));
            let (own, theirs) = (nodes[2], nodes[0]);
            let halted = cluster.at(3).halted.clone();
            let by = |peer| Halt::OtherOrigin { peer: node(peer), own, theirs };
            assert!(halted == Some(by(1)) || halted == Some(by(2)), "{halted:?}");
            assert!(cluster.at(3).has(Mark::OtherOriginMet));
            // Whoever is wrong can be made anew: nobody has recorded it.
            let met = cluster.at(1).disk.recorded.member(node(3)).unwrap().incarnation;
            assert_eq!(met, 0);
        }
    }
}

/// The snapshot that it was added behind was made by a restore, and names no incarnation but that of
/// whoever sent it; and what the others say they are made from it knows nothing of.
#[test]
fn a_node_added_behind_a_backup_learns_who_its_members_are() {
    let mut cluster = formatted(3);
    cluster.elapse(5000 * MS);
    let theirs = cluster.at(2).raft.identity.incarnation;
    cluster.isolate(3);
    cluster.at(3).raft.record(node(2), 0);
    cluster.at(2).raft.origin = ORIGIN;
    let greeting = Payload::Hello { ask: false, origin: ORIGIN };
    let head = cluster.at(2).raft.head_to(node(3));
    cluster.at(3).raft.on_message(node(2), Message { head, payload: greeting });
    let raft = &mut cluster.at(3).raft;
    assert_eq!(raft.take_halt(), None);
    assert_eq!(raft.membership.member(node(2)).map(|member| member.incarnation), Some(theirs));
}

/// It would end for good: so it must be meant, not formed yet, and told so by one of its own.
#[test]
fn that_a_cluster_formed_without_it_a_node_believes_a_member() {
    let ended = |is_forming: bool, from: u64, change: fn(&mut Head)| {
        let mut cluster = formatted(3);
        if is_forming {
            cluster.isolate(3)
        }
        cluster.run();
        let mut head = Head { from: node(from), ..cluster.at(1).raft.head_to(node(3)) };
        head.to_incarnation = 300;
        change(&mut head);
        let payload = Payload::FormedWithoutYou;
        cluster.at(3).raft.on_message(node(from), Message { head, payload });
        cluster.settle(3);
        cluster.at(3).halted.clone()
    };
    assert_eq!(ended(true, 1, |_| {}), Some(Halt::DiskLost { by: node(1) }));
    assert_eq!(ended(true, 1, |head| head.to_incarnation = 299), None);
    assert_eq!(ended(true, 9, |_| {}), None);
    assert_eq!(ended(false, 1, |_| {}), None);
}

/// Until it has formed a node adds nobody and is added by nobody; and who greets a former life does not mean
/// this one.
#[test]
fn a_stranger_is_answered_by_one_who_is_meant_and_has_formed() {
    let answers = |is_forming: bool, to_incarnation: u64| {
        let mut cluster = formatted(3);
        if is_forming {
            cluster.isolate(3);
        }
        cluster.run();
        let head = cluster.at(1).raft.head_to(node(3));
        let head = Head { from: node(9), incarnation: 900, to_incarnation, ..head };
        cluster.said(3);
        let payload = Payload::Hello { ask: true, origin: Origin::default() };
        cluster.at(3).raft.on_message(node(9), Message { head, payload });
        cluster.said(3).iter().any(|(to, _)| *to == node(9))
    };
    assert!(answers(false, 300));
    assert!(!answers(true, 300));
    assert!(!answers(false, 299));
}

/// It is in the configuration that names no lives, and on its own disk.
#[test]
fn a_founder_knows_its_own_life() {
    let strange = || {
        let mut disk = disk_with(0, &[], 3);
        let mut members = members(3);
        members.voters.iter_mut().for_each(|member| member.incarnation = 0);
        disk.recorded = Arc::new(members);
        disk.wanted_members = [Arc::clone(&disk.recorded), Arc::clone(&disk.recorded)];
        disk
    };
    let mut cluster = Cluster::new((0..3).map(|_| strange()).collect());
    cluster.elapse(1000 * MS);
    assert!(cluster.nodes.iter().all(|node| *node.disk.recorded == members(3)));
    assert!(!roles(&cluster).contains(&status::Role::Forming));
}

/// Who has one got it after its formation.
#[test]
fn whoever_has_a_term_or_a_log_has_formed() {
    for (term, log, role) in [
        (0, &[][..], status::Role::Forming),
        (1, &[], status::Role::Follower),
        (0, &[1], status::Role::Follower),
    ] {
        let mut cluster = Cluster::new(vec![disk_with(term, log, 3)]);
        assert_eq!(cluster.at(1).role(), role, "{term} {log:?}");
    }
}

/// No leader is to be looked for elsewhere.
#[test]
fn whoever_forms_is_not_ready() {
    let mut cluster = formatted(3);
    cluster.isolate(3);
    cluster.run();
    cluster.propose(1, 1, &["a"]);
    cluster.run();
    assert_eq!(proposals::refusals(cluster.at(1)), [(1, Refusal::NotReady)]);
}

/// It is greeted when it can be heard, and not when it has gone.
#[test]
fn whoever_comes_is_greeted_at_once() {
    for up in [false, true] {
        let mut cluster = formatted(3);
        cluster.isolate(2);
        cluster.run();
        cluster.pass(10 * MS);
        assert!(cluster.said(1).is_empty(), "they were greeted a moment ago");
        cluster.at(1).raft.on_link(node(2), up);
        assert_eq!(!cluster.said(1).is_empty(), up);
    }
}
