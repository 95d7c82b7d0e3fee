//! A cluster that was recovered by force, and those whom it left behind.

use super::*;

/// Three nodes, of which the second goes on in a later cluster epoch.
fn parted() -> Cluster {
    let mut cluster = Cluster::led(3);
    cluster.at(2).raft.identity.cluster_epoch = 1;
    cluster
}

/// A message of node 2 to node 3, with a head that was changed like this.
fn from_later(cluster: &mut Cluster, payload: Payload, change: impl FnOnce(&mut Head)) -> Message {
    let mut head = cluster.at(2).raft.head_to(node(3));
    assert_eq!(head.cluster_epoch, 1);
    change(&mut head);
    Message { head, payload }
}

fn left_behind() -> Option<Halt> {
    Some(Halt::LeftBehind { by: node(2), epoch: 1, own: 0 })
}

#[test]
fn who_was_left_behind_is_told_when_it_asks_and_ends() {
    let mut cluster = parted();
    let (term, last) = (cluster.at(2).raft.term, cluster.at(2).raft.log.last());
    cluster.isolate(1);
    cluster.at(3).raft.patience = Duration::ZERO;
    cluster.elapse(1000 * MS);
    assert_eq!(cluster.at(3).halted, left_behind());
    let later = cluster.at(2);
    assert_eq!((later.raft.term, later.raft.log.last()), (term, last), "it heard nothing of them");
    assert!(later.has(Mark::OldEpochRefused) && later.has(Mark::OtherEpochDropped));
    assert!(later.faults().iter().any(|fault| fault.contains("an earlier cluster epoch")));
    assert_eq!(later.halted, None);
}

#[test]
fn a_leader_that_was_left_behind_ends_by_the_answer_to_its_appends() {
    let mut cluster = parted();
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(500 * MS);
    assert_eq!(cluster.at(1).halted, left_behind());
    assert_eq!(commands(cluster.at(2)), [], "nothing of another epoch is taken");
}

#[test]
fn a_later_epoch_counts_from_a_member_and_for_this_life_only() {
    type Change = fn(&mut Head);
    let unmeant: [Change; 2] = [|head| head.incarnation += 1, |head| head.to_incarnation += 1];
    for change in unmeant {
        let mut cluster = parted();
        let message = from_later(&mut cluster, Payload::FormedWithoutYou, change);
        cluster.deliver(node(2), message);
        assert_eq!(cluster.at(3).halted, None);
        assert!(cluster.at(3).has(Mark::OtherEpochDropped));
    }
    let mut cluster = parted();
    let message = from_later(&mut cluster, Payload::FormedWithoutYou, |_| {});
    cluster.deliver(node(2), message);
    assert_eq!(cluster.at(3).halted, left_behind());
}

#[test]
fn an_epoch_that_none_can_reach_is_a_fault() {
    for (epoch, is_fault) in [(NUMBER_MAX, false), (NUMBER_MAX + 1, true)] {
        let mut cluster = parted();
        let unreachable = |head: &mut Head| head.cluster_epoch = epoch;
        let message = from_later(&mut cluster, Payload::FormedWithoutYou, unreachable);
        cluster.deliver(node(2), message);
        let node = cluster.at(3);
        assert_eq!(node.halted.is_none(), is_fault, "epoch {epoch}");
        let faults = if is_fault { &["a cluster epoch that none can reach"][..] } else { &[] };
        assert_eq!(node.faults(), faults);
    }
}

/// One that waits to be added holds nothing that another epoch could contradict.
#[test]
fn who_belongs_to_nobody_takes_the_epoch_of_whoever_greets_it() {
    let nobodys = Arc::new(Membership::default());
    let disk = Disk {
        recorded: Arc::clone(&nobodys),
        previous: Arc::clone(&nobodys),
        wanted_members: [Arc::clone(&nobodys), nobodys],
        ..disk_with(0, &[], 3)
    };
    let mut cluster = Cluster::new(vec![disk_with(1, &[], 3), disk_with(1, &[], 3), disk]);
    cluster.at(2).raft.identity.cluster_epoch = 1;
    let hello = Payload::Hello { ask: true, origin: Origin::default() };
    let unmeant = from_later(&mut cluster, hello.clone(), |head| head.to_incarnation = 9);
    let message = from_later(&mut cluster, hello, |head| head.to_incarnation = 0);
    let joiner = &mut cluster.at(3).raft;
    joiner.on_message(node(2), unmeant);
    assert_eq!(joiner.take_epoch(), None, "it was for a former life");
    joiner.on_message(node(2), message);
    assert_eq!(joiner.take_epoch(), Some(1), "for its disk to name");
    assert_eq!(joiner.take_epoch(), None);
    let older = Payload::Hello { ask: true, origin: Origin::default() };
    let head = Head { to_incarnation: 0, ..cluster.at(1).raft.head_to(node(3)) };
    let joiner = &mut cluster.at(3).raft;
    joiner.on_message(node(1), Message { head, payload: older });
    assert_eq!(joiner.take_epoch(), None, "it is in a later one");
    assert!(joiner.messages.iter().all(|message| message.payload != Payload::FormedWithoutYou));
}

/// Each of them alone ties it to those it had them from.
#[test]
fn who_has_a_member_a_term_or_an_entry_takes_no_other_epoch() {
    let takes = |term, terms: &[u64], knows: Membership| {
        let knows = Arc::new(knows);
        let disk = Disk {
            recorded: Arc::clone(&knows),
            previous: Arc::clone(&knows),
            wanted_members: [Arc::clone(&knows), knows],
            ..disk_with(term, terms, 3)
        };
        let mut cluster = Cluster::new(vec![disk_with(1, &[], 3), disk_with(1, &[], 3), disk]);
        cluster.at(2).raft.identity.cluster_epoch = 1;
        let hello = Payload::Hello { ask: true, origin: Origin::default() };
        let message = from_later(&mut cluster, hello, |_| {});
        let joiner = &mut cluster.at(3).raft;
        joiner.on_message(node(2), message);
        joiner.take_epoch()
    };
    assert_eq!(takes(0, &[], Membership::default()), Some(1));
    assert_eq!(takes(0, &[], members(3)), None);
    assert_eq!(takes(1, &[], Membership::default()), None);
    assert_eq!(takes(0, &[1], Membership::default()), None);
}
