//! Membership on trial.

use super::*;
use crate::change::{Change, ChangeRefusal};

/// Nodes of which the first `voters` are the cluster, and the others join.
pub(super) fn joined(voters: u64, nodes: u64) -> Cluster {
    let disk = |own: u64| {
        let mut disk = disk_with(u64::from(own <= voters), &[], voters);
        if own > voters {
            disk.recorded = Arc::default();
            disk.previous = Arc::default();
            disk.wanted_members = [Arc::default(), Arc::default()];
        }
        disk
    };
    let mut cluster = Cluster::new((1..=nodes).map(disk).collect());
    cluster.elect(1);
    cluster
}

pub(super) fn member(id: u64) -> Member {
    Member { id: node(id), incarnation: 0, address: Bytes::new() }
}

fn ids(members: &[Member]) -> Vec<u64> {
    let mut ids: Vec<u64> = members.iter().map(|member| member.id.0).collect();
    ids.sort_unstable();
    ids
}

impl Cluster {
    pub(super) fn change(&mut self, at: u64, request: u64, changes: &[Change]) {
        self.at(at).raft.on_change(RequestId(request), changes);
    }

    /// Changes the members and waits until that is over.
    pub(super) fn changed(&mut self, at: u64, request: u64, changes: &[Change]) {
        self.change(at, request, changes);
        self.run();
        let ended = self.outcome(at, request);
        assert!(matches!(ended, Some(Outcome::Done(_))), "{ended:?}");
    }

    pub(super) fn outcome(&mut self, at: u64, request: u64) -> Option<Outcome> {
        let ended = self.at(at).ended.iter().find(|(id, _)| *id == request);
        ended.map(|(_, outcome)| outcome.clone())
    }

    pub(super) fn refusal(&mut self, at: u64, request: u64) -> ChangeRefusal {
        match self.outcome(at, request) {
            Some(Outcome::Refused(Refusal::Change(why))) => why,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn voters(&mut self, at: u64) -> (Vec<u64>, Vec<u64>) {
        let members = Arc::clone(&self.at(at).raft.membership);
        (ids(&members.voters), ids(&members.outgoing))
    }

    /// Nobody hears these nodes, and they hear nobody.
    pub(super) fn cut_off(&mut self, cut: &[u64]) {
        for &id in cut {
            self.isolate(id);
        }
    }

    fn committed(&mut self, at: u64) -> LogIndex {
        self.at(at).raft.log.marks.committed()
    }
}

#[test]
fn an_empty_node_joins_catches_up_and_votes() {
    let mut cluster = joined(1, 2);
    cluster.propose(1, 1, &["a", "b"]);
    cluster.changed(1, 100, &[Change::AddLearner(member(2))]);
    cluster.elapse(300 * MS);
    assert_eq!(commands(cluster.at(2)).len(), 2);
    assert_eq!(cluster.at(2).raft.membership.member(node(2)).unwrap().incarnation, 200);
    cluster.changed(1, 101, &[Change::Promote(node(2))]);
    assert_eq!(cluster.voters(1), (vec![1, 2], vec![]));
    assert!(cluster.at(1).has(Mark::JointInForce) && cluster.at(1).has(Mark::JointLeft));
    cluster.propose(1, 2, &["c"]);
    cluster.elapse(100 * MS);
    assert_eq!(commands(cluster.at(2)).len(), 3);
    cluster.cut_off(&[2]);
    cluster.propose(1, 3, &["d"]);
    cluster.run();
    assert_eq!(commands(cluster.at(1)).len(), 3, "the other voter must hold it too");
}

/// An addition came to nothing, and the node was formatted again: it is greeted by the name of its
/// former life, belongs to nobody, and says who it is now.
#[test]
fn a_node_that_was_met_in_another_life_joins() {
    let mut cluster = joined(1, 2);
    cluster.at(1).raft.meet(node(2), 999);
    cluster.changed(1, 100, &[Change::AddLearner(member(2))]);
    cluster.elapse(300 * MS);
    assert_eq!(cluster.at(2).raft.membership.member(node(2)).unwrap().incarnation, 200);
}

#[test]
fn a_node_that_does_not_answer_is_not_added() {
    let mut cluster = joined(1, 2);
    cluster.cut_off(&[2]);
    cluster.change(1, 100, &[Change::AddLearner(member(2))]);
    cluster.elapse(1000 * MS);
    assert_eq!(cluster.outcome(1, 100), None);
    cluster.change(1, 101, &[Change::AddLearner(member(2))]);
    assert_eq!(
        {
            cluster.run();
            cluster.refusal(1, 101)
        },
        ChangeRefusal::Greeting(node(2))
    );
    cluster.elapse(10_000 * MS);
    assert_eq!(cluster.refusal(1, 100), ChangeRefusal::NoAnswer(node(2)));
    assert_eq!(cluster.at(1).raft.membership.members().count(), 1);
}

/// It may be one that has yet to meet whom it would never meet then (churn, seeds 6206 and 7094).
#[test]
fn nobody_goes_before_those_who_stay_were_heard_from() {
    let mut cluster = joined(3, 3);
    cluster.cut_off(&[3]);
    cluster.crash(1);
    cluster.elect(2);
    cluster.elapse(100 * MS);
    cluster.change(2, 100, &[Change::Remove(node(1))]);
    cluster.run();
    assert_eq!(cluster.refusal(2, 100), ChangeRefusal::NotHeard(node(3)));
    cluster.changed(2, 101, &[Change::Remove(node(3))]);
}

/// It would be a voter whom every commit waits for.
#[test]
fn a_learner_that_lags_is_not_promoted() {
    let mut cluster = joined(1, 2);
    cluster.changed(1, 100, &[Change::AddLearner(member(2))]);
    cluster.at(2).disk.lazy = true;
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(300 * MS);
    cluster.change(1, 101, &[Change::Promote(node(2))]);
    cluster.run();
    assert!(matches!(cluster.refusal(1, 101), ChangeRefusal::Lags { .. }));
    cluster.at(2).disk.lazy = false;
    cluster.elapse(300 * MS);
    cluster.changed(1, 102, &[Change::Promote(node(2))]);
}

/// Three voters, three learners, and a change that makes these voters in the place of two of those,
/// while some of them are out of reach.
fn half_changed(cut: &[u64]) -> (Cluster, LogIndex) {
    let mut cluster = joined(3, 6);
    cluster.changed(1, 100, &[4, 5, 6].map(|id| Change::AddLearner(member(id))));
    cluster.elapse(500 * MS);
    let mut steps: Vec<_> = [4, 5, 6].map(|id| Change::Promote(node(id))).into();
    steps.extend([2, 3].map(|id| Change::Remove(node(id))));
    cluster.cut_off(cut);
    cluster.change(1, 101, &steps);
    cluster.elapse(500 * MS);
    assert_eq!(cluster.voters(1), (vec![1, 4, 5, 6], vec![1, 2, 3]));
    let joint = cluster.at(1).raft.membership.at.index;
    (cluster, joint)
}

#[test]
fn while_joint_the_new_voters_alone_are_not_enough() {
    let (mut cluster, joint) = half_changed(&[2, 3]);
    assert!(cluster.committed(1) < joint, "of the old voters only the leader has it");
    cluster.cut.clear();
    cluster.elapse(500 * MS);
    assert!(matches!(cluster.outcome(1, 101), Some(Outcome::Done(_))));
}

#[test]
fn while_joint_the_old_voters_alone_are_not_enough() {
    let (mut cluster, joint) = half_changed(&[4, 5, 6]);
    assert!(cluster.committed(1) < joint, "of the new voters only the leader has it");
    cluster.cut.clear();
    cluster.elapse(500 * MS);
    assert_eq!(cluster.voters(5), (vec![1, 4, 5, 6], vec![]));
    assert!(matches!(cluster.outcome(1, 101), Some(Outcome::Done(_))));
    assert!([2, 3].iter().all(|id| cluster.at(*id).halted == Some(Halt::Removed)));
}

#[test]
fn one_change_at_a_time() {
    let mut cluster = joined(3, 4);
    cluster.cut_off(&[2, 3]);
    cluster.change(1, 100, &[Change::Remove(node(3))]);
    cluster.change(1, 101, &[Change::Remove(node(2))]);
    cluster.run();
    assert!(matches!(cluster.refusal(1, 101), ChangeRefusal::Underway(_)));
    assert_eq!(cluster.outcome(1, 100), None);
}

/// The bug that changes of single servers had (raft-dev, July 2015): a leader that has committed
/// nothing in its term does not know whether the change before is. Here node 1 adds 5 and falls
/// silent with it; node 2, elected without it, must not go on to another change at once.
#[test]
fn a_new_leader_commits_before_it_changes() {
    let mut cluster = joined(4, 5);
    cluster.changed(1, 100, &[Change::AddLearner(member(5))]);
    cluster.elapse(500 * MS);
    cluster.cut_off(&[1]);
    cluster.change(1, 101, &[Change::Promote(node(5))]);
    cluster.run();
    cluster.elapse(1000 * MS);
    cluster.at(2).raft.patience = Duration::ZERO;
    // It is elected, and none of its appends arrive.
    cluster.pass(MS);
    cluster.settle(2);
    while let Some((from, message)) = cluster.queue.pop_front() {
        if !matches!(message.payload, Payload::Append(_)) {
            cluster.deliver(from, message);
        }
    }
    assert_eq!(cluster.at(2).role(), status::Role::Leader);
    cluster.change(2, 102, &[Change::Remove(node(1))]);
    cluster.settle(2);
    assert_eq!(cluster.refusal(2, 102), ChangeRefusal::NewLeader);
    cluster.elapse(1000 * MS);
    cluster.changed(2, 103, &[Change::Remove(node(1))]);
    cluster.cut.clear();
    cluster.elapse(5000 * MS);
    assert_eq!(cluster.at(1).halted, Some(Halt::Removed), "its own change was cut or forgotten");
}

#[test]
fn a_leader_removes_itself() {
    let mut cluster = joined(3, 3);
    cluster.changed(1, 100, &[Change::Remove(node(1))]);
    assert!(cluster.at(1).has(Mark::SteppedDownNoVoter));
    assert_eq!(cluster.at(1).halted, Some(Halt::Removed));
    cluster.cut_off(&[1]);
    cluster.at(2).raft.patience = Duration::ZERO;
    cluster.elapse(5000 * MS);
    assert_eq!(cluster.voters(2), (vec![2, 3], vec![]));
    assert!(cluster.at(2).raft.leader().is_some());
}

/// Its clients' last commands are answered by what its machine makes of them.
#[test]
fn who_left_ends_when_its_machine_has_come_as_far() {
    let mut cluster = joined(3, 3);
    cluster.at(1).prompt = false;
    cluster.change(1, 100, &[Change::Remove(node(1))]);
    cluster.run();
    assert!(cluster.at(1).has(Mark::SteppedDownNoVoter));
    assert_eq!(cluster.at(1).halted, None);
    let raft = &mut cluster.at(1).raft;
    let given = raft.log.marks.applying();
    assert!(given >= raft.membership.at.index);
    raft.on_applied(given);
    cluster.settle(1);
    assert_eq!(cluster.at(1).halted, Some(Halt::Removed));
}

/// Found by a seed: of two voters the leader leaves, and it alone has the entry that makes it none.
/// The other one cannot be elected, its log is older; so the one who leaves must stand once more
/// (thesis §4.2.2).
#[test]
fn who_alone_knows_that_it_left_stands_once_more() {
    let mut cluster = joined(2, 2);
    cluster.change(1, 100, &[Change::Remove(node(1))]);
    cluster.settle(1);
    while let Some((from, message)) = cluster.queue.pop_front() {
        cluster.deliver(from, message);
        let members = Arc::clone(&cluster.at(1).raft.membership);
        if members.outgoing.is_empty() && members.at.index > LogIndex(1) {
            break;
        }
    }
    cluster.queue.clear();
    assert_eq!(cluster.voters(1), (vec![2], vec![]));
    cluster.crash(1);
    cluster.elapse(5000 * MS);
    assert_eq!(cluster.at(1).halted, Some(Halt::Removed));
    assert_eq!(cluster.voters(2), (vec![2], vec![]));
    assert_eq!(cluster.at(2).role(), status::Role::Leader);
}

/// Others hold it, and its own disk does not: after a crash it would not know of the one before the next.
#[test]
fn a_leader_whose_disk_lacks_the_last_change_begins_no_other() {
    let mut cluster = joined(3, 4);
    cluster.at(1).disk.lazy = true;
    cluster.change(1, 100, &[Change::AddLearner(member(4))]);
    cluster.run();
    let at = cluster.at(1).raft.membership.at;
    assert!(at.index <= cluster.committed(1) && cluster.outcome(1, 100).is_some());
    assert!(cluster.at(1).raft.log.marks.durable() < at.index);
    cluster.change(1, 101, &[Change::Remove(node(4))]);
    cluster.run();
    assert_eq!(cluster.refusal(1, 101), ChangeRefusal::Underway(at));
    cluster.at(1).disk.sync();
    cluster.run();
    cluster.changed(1, 102, &[Change::Remove(node(4))]);
}

/// It does not count itself on the way out: with one of the two others it has one of two.
#[test]
fn a_leader_that_leaves_does_not_count_itself() {
    let mut cluster = joined(3, 3);
    cluster.cut_off(&[3]);
    cluster.change(1, 100, &[Change::Remove(node(1))]);
    cluster.run();
    assert_eq!(cluster.outcome(1, 100), None);
    assert_eq!(cluster.voters(1), (vec![2, 3], vec![1, 2, 3]));
    cluster.cut.clear();
    cluster.elapse(500 * MS);
    assert!(matches!(cluster.outcome(1, 100), Some(Outcome::Done(_))));
}

/// Disruptive servers (Raft §6, thesis §4.2.3): who missed its removal asks again and again. It
/// changes nobody's term, and is told.
#[test]
fn a_removed_node_disturbs_nobody_and_is_told() {
    let mut cluster = joined(3, 3);
    cluster.cut_off(&[3]);
    cluster.changed(1, 100, &[Change::Remove(node(3))]);
    let term = cluster.at(1).raft.term;
    cluster.at(3).raft.patience = Duration::ZERO;
    cluster.elapse(5000 * MS);
    cluster.cut.clear();
    cluster.elapse(5000 * MS);
    assert_eq!(cluster.at(3).halted, Some(Halt::Removed));
    assert_eq!((cluster.at(1).raft.term, cluster.at(1).role()), (term, status::Role::Leader));
}

/// What is asked of a leader is done or given up, once each.
#[test]
fn changes_are_counted_with_what_became_of_them() {
    let mut cluster = joined(3, 4);
    let counted = |cluster: &mut Cluster| {
        let Tally { asked, done, given_up } = cluster.at(1).raft.changes;
        (asked, done, given_up)
    };
    cluster.changed(1, 100, &[Change::AddLearner(member(4))]);
    assert_eq!(counted(&mut cluster), (1, 1, 0));
    cluster.change(1, 101, &[Change::Remove(node(9))]);
    cluster.run();
    assert_eq!(counted(&mut cluster), (2, 1, 1), "refused");
    cluster.change(2, 102, &[Change::Remove(node(4))]);
    cluster.run();
    assert_eq!(cluster.at(2).raft.changes, Tally::default(), "who does not lead is not asked");
    cluster.cut_off(&[1]);
    cluster.change(1, 103, &[Change::Remove(node(4))]);
    cluster.run();
    assert_eq!(counted(&mut cluster), (3, 1, 1), "under way");
    cluster.elect(2);
    cluster.cut.clear();
    cluster.elapse(500 * MS);
    assert!(matches!(cluster.outcome(1, 103), Some(Outcome::Unknown)));
    assert_eq!(counted(&mut cluster), (3, 1, 2), "without word of how it ended");
}

/// A learner never asks for votes: it asks whether it is one.
#[test]
fn a_removed_learner_is_told_too() {
    let mut cluster = joined(2, 3);
    cluster.changed(1, 100, &[Change::AddLearner(member(3))]);
    cluster.elapse(300 * MS);
    cluster.cut_off(&[3]);
    cluster.changed(1, 101, &[Change::Remove(node(3))]);
    cluster.at(3).raft.patience = Duration::from_secs(1);
    cluster.cut.clear();
    cluster.elapse(3000 * MS);
    assert_eq!(cluster.at(3).halted, Some(Halt::Removed));
    cluster.change(1, 102, &[Change::AddLearner(member(3))]);
    cluster.run();
    assert!(matches!(cluster.refusal(1, 102), ChangeRefusal::UsedBefore { .. }));
}

/// It was down while the others formed, and has met nobody (storm of three, seed 1151575).
#[test]
fn a_founder_that_never_formed_is_told_too() {
    let mut cluster = joined(3, 3);
    cluster.cut_off(&[3]);
    cluster.changed(1, 100, &[Change::Remove(node(3))]);
    let mut alone = members(3);
    alone.voters.iter_mut().for_each(|member| member.incarnation *= u64::from(member.id.0 == 3));
    let alone = Arc::new(alone);
    let wanted_members = [Arc::clone(&alone), Arc::clone(&alone)];
    cluster.at(3).disk = Disk { recorded: alone, wanted_members, ..disk_with(0, &[], 3) };
    cluster.crash(3);
    assert_eq!(cluster.at(3).role(), status::Role::Forming);
    cluster.cut.clear();
    cluster.elapse(500 * MS);
    assert_eq!(cluster.at(3).halted, Some(Halt::Removed));
}

#[test]
fn a_membership_that_is_cut_is_in_force_no_more() {
    let mut cluster = joined(3, 3);
    cluster.cut_off(&[1]);
    cluster.change(1, 100, &[Change::Remove(node(3))]);
    cluster.run();
    assert_eq!(cluster.voters(1), (vec![1, 2], vec![1, 2, 3]));
    cluster.at(2).raft.patience = Duration::ZERO;
    cluster.elapse(5000 * MS);
    cluster.cut.clear();
    cluster.elapse(5000 * MS);
    assert_eq!(cluster.voters(1), (vec![1, 2, 3], vec![]));
    assert!(cluster.at(1).has(Mark::MembershipRolledBack));
    assert_eq!(cluster.outcome(1, 100), Some(Outcome::Unknown));
}

/// A follower that never heard of the leader's configuration hears the leader all the same.
#[test]
fn who_missed_every_change_follows_a_leader_it_does_not_know() {
    let mut cluster = joined(3, 6);
    cluster.changed(1, 100, &[4, 5].map(|id| Change::AddLearner(member(id))));
    cluster.elapse(500 * MS);
    cluster.cut_off(&[3]);
    let steps = [Change::Promote(node(4)), Change::Promote(node(5)), Change::Remove(node(1))];
    cluster.changed(1, 101, &steps);
    cluster.at(4).raft.patience = Duration::ZERO;
    cluster.elapse(5000 * MS);
    let leader = cluster.at(4).raft.leader().expect("the new voters elect one");
    assert!([2, 4, 5].contains(&leader.0));
    cluster.cut.clear();
    cluster.cut_off(&[1]);
    cluster.elapse(5000 * MS);
    assert_eq!(cluster.voters(3), (vec![2, 3, 4, 5], vec![]));
}

/// The third, whose disk is slow, has the first of two memberships and holds the second back.
fn holding_back() -> Cluster {
    let mut cluster = joined(3, 4);
    cluster.at(3).disk.lazy = true;
    cluster.changed(1, 100, &[Change::AddLearner(member(4))]);
    cluster.elapse(300 * MS);
    cluster.changed(1, 101, &[Change::Remove(node(4))]);
    cluster.elapse(300 * MS);
    assert!(cluster.at(3).has(Mark::MembershipHeldBack));
    cluster
}

/// The hard state names two memberships: whatever a crash leaves, one of them is in force.
#[test]
fn a_second_membership_waits_for_the_first_on_disk() {
    let mut cluster = holding_back();
    assert!(cluster.at(3).raft.membership.member(node(4)).is_some());
    cluster.crash(3);
    assert_eq!(cluster.voters(3), (vec![1, 2, 3], vec![]));
    cluster.at(3).disk.lazy = false;
    cluster.elapse(1000 * MS);
    assert!(cluster.at(3).raft.membership.is_former(node(4)));
}

/// Whoever holds back a second membership was sent what follows it again and again, as fast as it
/// answered, for as long as its disk hung.
#[test]
fn what_follows_a_membership_that_waits_is_sent_once() {
    let mut cluster = holding_back();
    cluster.at(1).raft.tuning.append_bytes_max = 1024;
    let command = "x".repeat(700);
    for n in 0..20 {
        cluster.propose(1, 200 + n, &[&command]);
        (1..=4).for_each(|id| cluster.settle(id));
        let before = cluster.delivered;
        while let Some((from, message)) = cluster.queue.pop_front() {
            cluster.deliver(from, message);
            assert!(cluster.delivered < before + 50, "entry {n} is sent again and again");
        }
    }
    cluster.at(3).disk.lazy = false;
    cluster.elapse(300 * MS);
    assert_eq!(cluster.nodes[2].ids(), cluster.nodes[0].ids());
}

/// And so was one that had acknowledged the first, which then lay behind an entry that a restart found bad:
/// until a peer gives that, nothing there counts as durable.
#[test]
fn what_follows_a_membership_behind_a_hole_is_sent_with_heartbeats_alone() {
    let mut cluster = joined(3, 4);
    cluster.propose(1, 1, &["a"]);
    cluster.changed(1, 100, &[Change::AddLearner(member(4))]);
    cluster.elapse(300 * MS);
    cluster.isolate(3);
    cluster.changed(1, 101, &[Change::Remove(node(4))]);
    cluster.at(1).raft.tuning.append_bytes_max = 1024;
    for n in 0..20 {
        cluster.propose(1, 200 + n, &[&"x".repeat(700)]);
        cluster.run();
    }
    cluster.elapse(300 * MS);
    cluster.at(3).disk.lose(2);
    cluster.at(3).disk.is_crowded = true;
    cluster.crash(3);
    cluster.cut.clear();
    cluster.at(1).raft.on_link(node(3), false);
    cluster.at(1).raft.on_link(node(3), true);
    let beats = 40;
    let before = cluster.delivered;
    for _ in 0..beats {
        cluster.pass(cluster.tuning.heartbeat.as_nanos() as u64);
        (1..=4).for_each(|id| cluster.settle(id));
        while let Some((from, message)) = cluster.queue.pop_front() {
            cluster.deliver(from, message);
            assert!(cluster.delivered < before + 2000, "sent as fast as it answers");
        }
    }
    assert!(cluster.at(3).has(Mark::MembershipHeldBack));
    assert!(cluster.at(3).raft.membership.member(node(4)).is_some());
    // Four or so between each two of four nodes, and a few appends.
    let delivered = cluster.delivered - before;
    assert!(delivered < beats * 20, "{delivered} messages");
    cluster.at(3).disk.is_crowded = false;
    cluster.elapse(1000 * MS);
    assert_eq!(cluster.nodes[2].ids(), cluster.nodes[0].ids());
}

#[test]
fn a_restart_finds_the_membership_in_force() {
    let mut cluster = joined(3, 3);
    cluster.cut_off(&[2, 3]);
    cluster.change(1, 100, &[Change::Demote(node(3))]);
    cluster.run();
    cluster.crash(1);
    assert_eq!(cluster.voters(1), (vec![1, 2], vec![1, 2, 3]));
    cluster.cut.clear();
    cluster.at(1).raft.patience = Duration::ZERO;
    cluster.elapse(5000 * MS);
    // Whoever leads now, the change is over one way or the other.
    let (voters, outgoing) = cluster.voters(1);
    assert!(outgoing.is_empty() && voters.len() >= 2, "{voters:?} {outgoing:?}");
}

/// Its node was said to be gone, though it was heard of just now: a group that wakes reckons from then.
#[test]
fn a_learner_whose_node_is_gone_does_not_become_a_voter() {
    let mut cluster = joined(1, 2);
    cluster.changed(1, 100, &[Change::AddLearner(member(2))]);
    cluster.elapse(500 * MS);
    cluster.at(1).raft.on_link(node(2), false);
    cluster.change(1, 101, &[Change::Promote(node(2))]);
    cluster.run();
    assert_eq!(cluster.refusal(1, 101), ChangeRefusal::NoAnswer(node(2)));
    cluster.at(1).raft.on_link(node(2), true);
    cluster.elapse(500 * MS);
    cluster.changed(1, 102, &[Change::Promote(node(2))]);
}

/// What a new leader knows to be committed may be long ago: up to its own first entry all is.
#[test]
fn a_learner_that_lags_behind_a_new_leader_does_not_become_a_voter() {
    let mut cluster = joined(1, 2);
    cluster.changed(1, 100, &[Change::AddLearner(member(2))]);
    cluster.elapse(500 * MS);
    let Role::Leader(leader) = &mut cluster.at(1).raft.role else { panic!("it leads") };
    let start = leader.start;
    leader.committed_before = LogIndex(0);
    leader.peer(node(2)).expect("it was added").matched = start.previous();
    cluster.change(1, 101, &[Change::Promote(node(2))]);
    cluster.settle(1);
    let (matched, committed) = (start.previous(), start);
    let lags = ChangeRefusal::Lags { node: node(2), matched, committed };
    assert_eq!(cluster.refusal(1, 101), lags);
}

/// Of those who stay too few are there: what is appended can never be committed, nor can anybody be elected
/// before it is. The leader knows who is silent.
#[test]
fn no_change_is_begun_that_nobody_is_there_to_carry() {
    let mut cluster = joined(3, 3);
    cluster.elapse(100 * MS);
    cluster.cut_off(&[3]);
    cluster.elapse(60_000 * MS);
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(100 * MS);
    assert_eq!(commands(cluster.at(1)).len(), 1, "two of three serve");
    // The wrong one: 3 is the dead one.
    cluster.change(1, 100, &[Change::Remove(node(2))]);
    cluster.run();
    let outcome = cluster.outcome(1, 100);
    cluster.at(2).raft.patience = Duration::from_secs(3);
    cluster.elapse(60_000 * MS);
    let leader = (1..=2).find(|id| cluster.at(*id).role() == status::Role::Leader);
    let then = (cluster.outcome(1, 100), cluster.voters(1), cluster.voters(2));
    assert!(leader.is_some(), "at first {outcome:?}, after a minute nobody leads: {then:?}");
}

/// Who stays is there and lags (it is being sent a snapshot, or its disk is slow): every write would wait for it.
#[test]
fn nobody_goes_whom_every_commit_would_be_waited_for() {
    let mut cluster = joined(3, 3);
    cluster.elapse(100 * MS);
    cluster.at(3).disk.lazy = true;
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(1000 * MS);
    assert_eq!(commands(cluster.at(1)).len(), 1, "two of three serve");
    cluster.change(1, 100, &[Change::Demote(node(2))]);
    cluster.run();
    cluster.propose(1, 2, &["b"]);
    cluster.elapse(20_000 * MS);
    let outcome = cluster.outcome(1, 100);
    assert_eq!(commands(cluster.at(1)).len(), 2, "{outcome:?}, {:?}", cluster.voters(1));
}

/// Whoever stays is there, level, and has no room: every write would be refused.
#[test]
fn nobody_goes_without_whom_there_is_no_room() {
    let mut cluster = joined(3, 3);
    cluster.at(3).disk.full = true;
    cluster.elapse(300 * MS);
    cluster.change(1, 100, &[Change::Demote(node(2))]);
    cluster.run();
    let why = cluster.refusal(1, 100);
    assert_eq!(why, ChangeRefusal::NoMajority(vec![node(3)]));
    assert!(why.to_string().contains("have no room: 3;"), "{why}");
    cluster.changed(1, 101, &[Change::Demote(node(3))]);
}

/// Whoever stays may fall silent while those who come are asked who they are.
#[test]
fn who_stays_is_there_still_when_those_who_come_have_answered() {
    let mut cluster = joined(3, 4);
    cluster.elapse(100 * MS);
    cluster.cut_off(&[4]);
    cluster.change(1, 100, &[Change::AddLearner(member(4)), Change::Remove(node(2))]);
    cluster.elapse(100 * MS);
    cluster.cut_off(&[3]);
    cluster.elapse(3000 * MS);
    assert_eq!(cluster.outcome(1, 100), None);
    cluster.cut.retain(|(from, to)| ![*from, *to].contains(&node(4)));
    cluster.elapse(500 * MS);
    let outcome = cluster.outcome(1, 100);
    assert!(matches!(outcome, Some(Outcome::Refused(Refusal::Change(_)))), "{outcome:?}");
    cluster.changed(1, 101, &[Change::AddLearner(member(4)), Change::Remove(node(3))]);
}

/// Whoever wants that nobody ever stands by himself may say so.
#[test]
fn who_is_greeted_may_have_all_the_time_there_is() {
    let mut cluster = joined(1, 2);
    cluster.at(1).raft.tuning.election.1 = Duration::MAX;
    cluster.changed(1, 10, &[Change::AddLearner(member(2))]);
}

#[test]
fn of_each_stranger_it_is_known_in_which_life_it_spoke_last() {
    let raft = &mut Cluster::led(3).nodes[0].raft;
    for (stranger, life) in [(7, 1), (8, 2), (8, 3), (9, 4), (7, 5)] {
        raft.meet(node(stranger), life);
    }
    assert_eq!(raft.met(), [(node(7), 5), (node(8), 3), (node(9), 4)]);
}

/// A member falls silent while a node that is added is asked, and other times come into force.
#[test]
fn other_times_make_nobody_heard() {
    for tunes in [false, true] {
        let mut cluster = joined(3, 4);
        cluster.elapse(300 * MS);
        cluster.cut_off(&[4]);
        cluster.change(1, 100, &[Change::AddLearner(member(4)), Change::Remove(node(2))]);
        cluster.run();
        assert_eq!(cluster.outcome(1, 100), None);
        cluster.cut_off(&[3]);
        cluster.elapse(cluster.tuning.election.0.as_nanos() as u64 + 50 * MS);
        assert_eq!(cluster.outcome(1, 100), None);
        if tunes {
            let mut tuning = cluster.tuning.clone();
            tuning.heartbeat += Duration::from_millis(1);
            cluster.at(1).raft.on_tune(&tuning);
        }
        cluster.cut.retain(|(from, to)| [from, to].contains(&&node(3)));
        cluster.elapse(200 * MS);
        cluster.elapse(60_000 * MS);
        cluster.propose(1, 1, &["a"]);
        cluster.propose(2, 2, &["b"]);
        cluster.elapse(10_000 * MS);
        let served = [1, 2].map(|id| commands(cluster.at(id)).len());
        assert_eq!(served, [2; 2], "{tunes}");
    }
}
