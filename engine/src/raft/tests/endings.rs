//! How what somebody waits for ends, where it does not come about.

use super::*;
use crate::{
    action::TransferRefusal,
    change::{Change, ChangeRefusal},
};

impl Cluster {
    fn end_of(&mut self, at: u64, request: u64) -> Option<Outcome> {
        self.at(at).perform();
        let ended = self.at(at).ended.iter().find(|(id, _)| *id == request);
        ended.map(|(_, outcome)| outcome.clone())
    }
}

/// Node 1 leads, and waits for node 2 to have its log, whom it hands over to.
fn handing_over() -> Cluster {
    let mut cluster = Cluster::led(3);
    cluster.elapse(100 * MS);
    cluster.at(2).disk.lazy = true;
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(100 * MS);
    cluster.at(1).raft.on_transfer(RequestId(100), Some(node(2)));
    cluster.run();
    assert_eq!(cluster.end_of(1, 100), None);
    cluster
}

/// Others may have it, and the next leader go on with it.
#[test]
fn a_change_that_is_on_its_way_ends_as_unknown() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    cluster.isolate(1);
    cluster.at(1).raft.on_change(RequestId(100), &[Change::Demote(node(3))]);
    cluster.settle(1);
    cluster.at(1).raft.become_follower(Term(9), None);
    assert_eq!(cluster.end_of(1, 100), Some(Outcome::Unknown));
}

/// Where it is to be others were told already.
#[test]
fn what_was_gathered_comes_before_a_change() {
    let mut cluster = Cluster::led(3);
    cluster.at(1).disk.saturated = true;
    cluster.settle(1);
    cluster.propose(2, 20, &["a"]);
    cluster.run();
    cluster.at(1).raft.on_change(RequestId(100), &[Change::Demote(node(3))]);
    cluster.at(1).disk.saturated = false;
    cluster.elapse(300 * MS);
    assert_eq!(commands(cluster.at(2)), [("a".into(), Some(20))]);
    assert_eq!(cluster.end_of(2, 20), None, "the machine answers it");
    let kinds = cluster.at(1).disk.log.iter().map(|(head, _)| head.kind);
    let commands = kinds.clone().position(|kind| kind == entry::Kind::Commands);
    assert!(commands < kinds.clone().position(|kind| kind == entry::Kind::Membership));
}

#[test]
fn what_was_forwarded_may_be_there_and_what_was_not_is_not() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    cluster.propose(2, 20, &["a"]);
    cluster.said(2);
    cluster.propose(2, 21, &["b"]);
    cluster.at(2).raft.forward();
    cluster.at(2).raft.lose_forwards();
    assert_eq!(cluster.end_of(2, 20), Some(Outcome::Unknown));
    let refused = Outcome::Refused(Refusal::NotLeader { hint: None });
    assert_eq!(cluster.end_of(2, 21), Some(refused));
}

#[test]
fn a_stop_ends_a_handover_and_confirmed_reads() {
    let mut cluster = handing_over();
    let raft = &mut cluster.at(1).raft;
    raft.ready_at(raft.committed(), Requests::one(RequestId(5)));
    raft.stop(&Refusal::Stopping);
    for request in [5, 100] {
        assert_eq!(cluster.end_of(1, request), Some(Outcome::Refused(Refusal::Stopping)));
    }
    assert!(!cluster.at(1).raft.has_handover());
}

/// It would hand over what it was just given.
#[test]
fn a_handover_ends_with_the_term_that_it_is_of() {
    let mut cluster = handing_over();
    cluster.at(1).raft.become_follower(Term(3), None);
    cluster.elect(1);
    cluster.run();
    let why = Refusal::Transfer(TransferRefusal::AnotherLeads(node(1)));
    assert_eq!(cluster.end_of(1, 100), Some(Outcome::Refused(why)));
}

#[test]
fn a_handover_after_which_nobody_leads_ends_in_time() {
    let mut cluster = handing_over();
    cluster.isolate(1);
    let most = cluster.tuning.election.1;
    let (half, all) = (cluster.now.after(most / 2), cluster.now.after(most));
    assert_eq!(cluster.at(1).raft.handover_deadline(), Some(half));
    cluster.at(1).raft.become_follower(Term(9), None);
    cluster.at(1).raft.patience = Duration::from_secs(3600);
    cluster.pass(all.0 - cluster.now.0 - MS);
    cluster.settle(1);
    assert_eq!(cluster.end_of(1, 100), None);
    assert_eq!(cluster.at(1).raft.handover_deadline(), Some(all));
    cluster.pass(MS);
    cluster.settle(1);
    assert_eq!(cluster.end_of(1, 100), Some(Outcome::Unknown));
}

/// Its driver calls it when the time is over that a read may wait for the machine.
#[test]
fn who_has_reads_to_give_up_is_woken_for_it() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    let (now, most) = (cluster.now, cluster.tuning.election.1);
    let raft = &mut cluster.at(2).raft;
    raft.patience = most * 2;
    assert!(raft.deadline() > Some(now.after(most)));
    raft.ready_at(raft.committed().next(), Requests::one(RequestId(5)));
    assert_eq!(raft.deadline(), Some(now.after(most)));
}

#[test]
fn a_change_that_nobody_has_room_for_is_refused() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    cluster.at(1).raft.facts.full = true;
    cluster.at(1).raft.on_change(RequestId(100), &[Change::Demote(node(3))]);
    assert_eq!(cluster.end_of(1, 100), Some(Outcome::Refused(Refusal::DiskFull)));
}

/// Two would vote, and one of them could not lead.
#[test]
fn a_change_to_a_majority_without_its_state_is_refused() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    cluster.at(1).raft.facts.is_state_lost = true;
    cluster.at(1).raft.on_change(RequestId(100), &[Change::Remove(node(3))]);
    let why = ChangeRefusal::NoMajority(vec![node(1)]);
    assert_eq!(cluster.end_of(1, 100), Some(Outcome::Refused(Refusal::Change(why))));
}

/// It may be lost, and is said again with the next heartbeat.
#[test]
fn an_heir_is_asked_to_stand_until_it_does() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    cluster.at(1).raft.on_transfer(RequestId(100), Some(node(2)));
    let heartbeat = cluster.tuning.heartbeat.as_nanos() as u64;
    for (time, asks) in [(0, 1), (heartbeat / 10, 0), (heartbeat, 1)] {
        cluster.pass(time);
        let said = cluster.said(1);
        let asked = said.iter().filter(|(_, said)| matches!(said, Payload::TimeoutNow));
        assert_eq!(asked.count(), asks);
    }
    let raft = &mut cluster.at(1).raft;
    assert!(raft.is_handing_over());
    raft.term = raft.term.next();
    assert!(!raft.is_handing_over(), "it is of another term");
}
