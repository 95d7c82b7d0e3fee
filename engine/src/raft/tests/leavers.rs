//! Those who leave, and memberships that are not in force any more.

use super::{
    changes::{joined, member},
    *,
};
use crate::change::Change;

/// Until its removal is committed it may have to be told more, however long that takes; and for a moment
/// after that, that it is gone.
#[test]
fn who_is_being_removed_is_kept_company_with() {
    let mut cluster = Cluster::led(3);
    let moment = cluster.tuning.election.1.as_nanos() as u64;
    cluster.change(1, 100, &[Change::Remove(node(3))]);
    while cluster.voters(1) != (vec![1, 2], vec![]) {
        cluster.settle(1);
        let (from, message) = cluster.queue.pop_front().expect("the joint membership is left");
        cluster.deliver(from, message);
    }
    cluster.at(2).disk.lazy = true;
    cluster.elapse(2 * moment);
    assert_eq!(cluster.outcome(1, 100), None, "node 2 does not have it");
    assert_eq!(cluster.at(1).company, [1, 2, 3]);
    cluster.at(2).disk.lazy = false;
    cluster.elapse(100 * MS);
    assert!(matches!(cluster.outcome(1, 100), Some(Outcome::Done(_))));
    assert_eq!(cluster.at(1).company, [1, 2, 3]);
    cluster.elapse(moment);
    assert_eq!(cluster.at(1).company, [1, 2]);
}

/// Whoever hears that it is none ends at once.
#[test]
fn only_who_leaves_is_told_so() {
    let mut cluster = Cluster::led(4);
    cluster.changed(1, 100, &[Change::Remove(node(4))]);
    cluster.elapse(300 * MS);
    let halts: Vec<_> = cluster.nodes.iter().map(|node| node.halted.clone()).collect();
    assert_eq!(halts, [None, None, None, Some(Halt::Removed)]);
}

/// Word for a former life of this node, or from nobody it knows, may be of another cluster's past.
#[test]
fn that_it_is_removed_a_node_believes_a_member_in_this_life() {
    let ended = |from: u64, change: fn(&mut Head)| {
        let mut cluster = Cluster::led(3);
        let mut head = cluster.at(2).raft.head_to(node(3));
        (head.from, head.incarnation) = (node(from), from * 100);
        change(&mut head);
        let payload = Payload::Removed { at: LogId::ZERO };
        cluster.at(3).raft.on_message(node(from), Message { head, payload });
        cluster.settle(3);
        cluster.at(3).halted.clone()
    };
    assert_eq!(ended(2, |_| {}), Some(Halt::Removed));
    assert_eq!(ended(2, |head| head.to_incarnation += 1), None);
    assert_eq!(ended(2, |head| head.incarnation += 1), None);
    assert_eq!(ended(9, |_| {}), None);
}

/// What is no question needs no answer: two that have left each other would never stop.
#[test]
fn a_former_member_is_answered_when_it_asks() {
    let mut cluster = joined(3, 3);
    cluster.cut_off(&[3]);
    cluster.changed(1, 100, &[Change::Remove(node(3))]);
    cluster.elapse(2000 * MS);
    let head = cluster.at(3).raft.head_to(node(1));
    for (payload, is_told) in [
        (Payload::Hello { ask: true, origin: Origin::default() }, true),
        (Payload::Hello { ask: false, origin: Origin::default() }, false),
        (Payload::Removed { at: LogId::ZERO }, false),
    ] {
        cluster.said(1);
        cluster.at(1).raft.on_message(node(3), Message { head, payload });
        let said = cluster.said(1);
        let tells =
            |(to, of): &(NodeId, Payload)| *to == node(3) && matches!(of, Payload::Removed { .. });
        assert_eq!(said.iter().any(tells), is_told);
    }
}

/// Behind a gate entries come again that its disk has lost, and what it knows of their members is newer.
#[test]
fn an_older_membership_takes_no_newer_ones_place() {
    let mut cluster = Cluster::led(3);
    let raft = &mut cluster.at(2).raft;
    let of = |index| Membership { at: id(2, index), ..members(3) };
    raft.around.is_news = false;
    raft.bring_into_force(of(7));
    assert!(raft.around.is_news, "whom to be connected with is to be said");
    assert!(!raft.marks.has(Mark::JointInForce));
    let (newest, previous) = (Arc::clone(&raft.membership), Arc::clone(&raft.previous));
    raft.take_membership();
    for index in [5, 7] {
        raft.bring_into_force(of(index));
        assert_eq!((&raft.membership, &raft.previous), (&newest, &previous));
        assert_eq!(raft.take_membership(), None, "there is nothing to write down");
    }
    raft.bring_into_force(of(8));
    assert_eq!((raft.membership.at, &raft.previous), (id(2, 8), &newest));
    // What was lost was never committed, and another leader's is in its place.
    raft.bring_into_force(Membership { at: id(3, 8), ..members(2) });
    assert_eq!((raft.membership.at, &raft.previous), (id(3, 8), &newest));
    assert!(raft.take_membership().is_some());
}

/// Those of before are of a log that is gone.
#[test]
fn the_members_of_a_snapshot_take_the_place_of_all() {
    let mut cluster = Cluster::led(3);
    let raft = &mut cluster.at(2).raft;
    let of = Arc::new(Membership { at: id(2, 7), ..members(4) });
    [4, 9].into_iter().for_each(|id| raft.meet(node(id), id * 100));
    raft.adopt_members(&of);
    assert_eq!(raft.met(), [(node(9), 900)], "the other one is no stranger now");
    assert_eq!((&raft.membership, &raft.previous), (&of, &of));
    assert_eq!(raft.peers, [(node(1), 100), (node(3), 300), (node(4), 400)]);
}

/// In the life that speaks, whether this node knows of it or not: it would drop what is for another.
#[test]
fn who_left_is_told_in_the_life_that_it_speaks_in() {
    let mut cluster = Cluster::led(3);
    let raft = &mut cluster.at(2).raft;
    raft.tell_former(node(9), 900);
    raft.identity.cluster_epoch = 1;
    let own = raft.head_to(node(9));
    let head = Head {
        from: node(9),
        to: node(2),
        incarnation: 900,
        to_incarnation: own.incarnation,
        cluster_epoch: 0,
        ..own
    };
    let payload = Payload::Hello { ask: true, origin: Origin::default() };
    raft.on_message(node(9), Message { head, payload });
    let told: Vec<_> =
        raft.messages.iter().map(|told| (told.head.to, told.head.to_incarnation)).collect();
    assert_eq!(told, [(node(9), 900); 2]);
}

#[test]
fn a_membership_before_the_cut_stays_in_force() {
    let mut cluster = Cluster::led(3);
    let raft = &mut cluster.at(2).raft;
    raft.bring_into_force(Membership { at: id(2, 7), ..members(2) });
    let newest = Arc::clone(&raft.membership);
    raft.around.is_news = false;
    raft.roll_back(LogIndex(8));
    assert_eq!(raft.membership, newest);
    assert!(!raft.around.is_news, "whom to be connected with was said");
    raft.roll_back(LogIndex(7));
    assert_eq!(raft.membership.at, LogId::ZERO);
    assert!(raft.around.is_news, "it is others again");
}

/// One who never votes has nobody to lead, whatever change is under way; nor has one whom a change that is
/// committed made none.
#[test]
fn who_is_no_voter_stands_only_until_that_is_committed() {
    let mut cluster = joined(2, 3);
    cluster.changed(1, 100, &[Change::AddLearner(member(3))]);
    cluster.elapse(300 * MS);
    let last = cluster.at(1).raft.log.last().index;
    let next = |raft: &mut Raft, voter: u64| {
        let of = members(3).members().filter(|of| of.id.0 == voter).cloned().collect::<Vec<_>>();
        let at = LogId::new(raft.term, last.next());
        raft.bring_into_force(Membership { at, ..Membership::of(of) });
        raft.is_needed()
    };
    assert!(next(&mut cluster.at(1).raft, 2), "nobody else may have what makes it none");
    assert!(!next(&mut cluster.at(3).raft, 2), "it never was one");
    let raft = &mut cluster.at(2).raft;
    raft.previous = Arc::new(members(2));
    raft.membership = Arc::new(Membership { at: id(2, 1), ..members(1) });
    assert!(!raft.is_needed(), "it is committed that it is none");
}

/// It lies below what the log begins with: a new leader need not name it again.
#[test]
fn members_whose_entry_was_compacted_are_not_missed() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(300 * MS);
    let raft = &mut cluster.at(1).raft;
    raft.log.compacted(LogIndex(2));
    assert!(!raft.is_membership_missing());
    raft.membership = Arc::new(Membership { at: id(2, 2), ..members(3) });
    assert!(!raft.is_membership_missing(), "they are of that entry");
    raft.membership = Arc::new(Membership { at: id(1, 2), ..members(3) });
    assert!(raft.is_membership_missing(), "another entry is there");
}

/// A leader that is no voter any more says whose turn it is: nobody waits until its silence is noticed.
#[test]
fn a_leader_that_leaves_leaves_no_gap() {
    for change in [Change::Remove(node(1)), Change::Demote(node(1))] {
        let mut cluster = joined(3, 3);
        cluster.elapse(300 * MS);
        let term = cluster.at(1).raft.term;
        cluster.changed(1, 100, std::slice::from_ref(&change));
        cluster.elapse(MS);
        let leads = |cluster: &mut Cluster, id| cluster.at(id).role() == status::Role::Leader;
        let heirs = [2, 3].map(|id| leads(&mut cluster, id));
        assert!(heirs.contains(&true) && !leads(&mut cluster, 1), "{change:?}: {heirs:?}");
        for id in [2, 3] {
            assert_eq!(cluster.at(id).raft.term, term.next(), "{change:?}");
        }
    }
}

/// Two who stand at once in one term may both lose.
#[test]
fn a_leader_that_leaves_asks_nobody_beside_whom_it_hands_over_to() {
    let mut cluster = joined(3, 3);
    cluster.elapse(300 * MS);
    let term = cluster.at(1).raft.term;
    cluster.at(1).raft.on_change(RequestId(100), &[Change::Remove(node(1))]);
    cluster.settle(1);
    cluster.at(1).raft.on_transfer(RequestId(101), Some(node(2)));
    cluster.run();
    assert_eq!(cluster.at(2).role(), status::Role::Leader);
    assert_eq!(cluster.at(2).raft.term, term.next());
}

/// A leader that has left says last whose turn it is: to whom it led, in this life and in its term.
#[test]
fn of_those_who_left_only_the_leader_is_heard_and_only_when_it_says_whose_turn_it_is() {
    let mut cluster = Cluster::led(4);
    cluster.elapse(300 * MS);
    let heads = [1, 4].map(|id| cluster.at(id).raft.head_to(node(2)));
    let raft = &mut cluster.at(2).raft;
    let mut left = members(4);
    left.voters.retain(|voter| ![node(1), node(4)].contains(&voter.id));
    (left.at, left.used) = (id(2, 1), node(4));
    raft.membership = Arc::new(left);
    raft.know_peers();
    assert_eq!(raft.leader(), Some(node(1)));
    let mut hears = |head: Head, payload: Payload| raft.admit(head.from, &head, &payload);
    let [leader, other] = heads;
    assert!(hears(leader, Payload::TimeoutNow));
    assert!(!hears(other, Payload::TimeoutNow), "it did not lead");
    assert!(!hears(Head { term: Term(1), ..leader }, Payload::TimeoutNow), "it led before");
    assert!(!hears(Head { to_incarnation: 201, ..leader }, Payload::TimeoutNow), "another life");
    assert!(!hears(leader, Payload::Gate { nonce: [0; 2] }), "it says something else");
}

/// Else those who left would be kept company with at every start, and nobody who asks be told that it left.
#[test]
fn what_was_committed_before_a_start_is_no_news() {
    let mut cluster = joined(3, 3);
    cluster.changed(1, 100, &[Change::Remove(node(3))]);
    let (disk, now) = (cluster.at(2).disk.clone(), cluster.now);
    let at = disk.recorded.at.index;
    for (committed, is_known) in [(at, true), (at.previous(), false)] {
        let recovered = Recovered { committed, ..recovered(&disk, 2) };
        let mut raft = Raft::new(&recovered, setting(&cluster.tuning), 1, now);
        raft.change();
        assert_eq!(raft.change_deadline(), None, "nobody lingers");
        let head = Head { from: node(3), incarnation: 300, ..raft.head_to(node(3)) };
        raft.answer_former(&head, &Payload::Hello { ask: true, origin: Origin::default() });
        assert_eq!(raft.messages.len(), usize::from(is_known));
    }
}
