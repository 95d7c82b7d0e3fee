use super::*;
use crate::{Runs, types::SnapshotName};

#[test]
fn a_followers_client_is_answered_where_it_asked() {
    let mut cluster = Cluster::led(3);
    cluster.propose(2, 20, &["a", "b"]);
    cluster.run();
    cluster.propose(3, 30, &["c"]);
    cluster.run();
    cluster.elapse(200 * MS);
    let seen = |node: &Node| commands(node).into_iter().map(|(_, id)| id).collect::<Vec<_>>();
    assert_eq!(seen(cluster.at(1)), [None; 3]);
    assert_eq!(seen(cluster.at(2)), [Some(20), Some(21), None]);
    assert_eq!(seen(cluster.at(3)), [None, None, Some(30)]);
    assert!(cluster.nodes.iter().all(|node| node.ended.is_empty()));
}

#[test]
fn a_followers_client_need_not_wait_for_a_heartbeat() {
    let mut cluster = Cluster::led(3);
    cluster.propose(2, 20, &["a"]);
    cluster.run();
    assert_eq!(commands(cluster.at(2)), [("a".into(), Some(20))]);
}

#[test]
fn commands_of_all_nodes_share_an_entry() {
    let mut cluster = Cluster::led(3);
    cluster.at(1).disk.saturated = true;
    cluster.settle(1);
    cluster.propose(1, 10, &["x"]);
    cluster.propose(2, 20, &["a", "b"]);
    cluster.propose(3, 30, &["c"]);
    cluster.run();
    cluster.at(1).disk.saturated = false;
    cluster.run();
    assert_eq!(cluster.at(1).ids().len(), 2);
    for (id, requests) in [(1, vec![10]), (2, vec![20, 21]), (3, vec![30])] {
        let seen: Vec<_> = cluster.at(id).applied.iter().filter_map(|a| a.2).collect();
        assert_eq!(seen, requests);
    }
}

#[test]
fn the_leaders_refusal_reaches_the_client() {
    let mut cluster = Cluster::led(3);
    cluster.at(1).disk.full = true;
    cluster.settle(1);
    cluster.propose(2, 20, &["a"]);
    cluster.run();
    assert_eq!(cluster.at(2).ended, [(20, Outcome::Refused(Refusal::DiskFull))]);
}

#[test]
fn a_lost_leader_leaves_the_unknown() {
    let mut cluster = Cluster::led(3);
    cluster.isolate(1);
    cluster.propose(2, 20, &["a"]);
    cluster.run();
    cluster.at(2).raft.patience = Duration::from_secs(1);
    cluster.elapse(1100 * MS);
    assert_eq!(cluster.at(2).ended, [(20, Outcome::Unknown)]);
}

#[test]
fn a_lost_link_leaves_the_unknown() {
    let mut cluster = Cluster::led(3);
    cluster.isolate(1);
    cluster.propose(2, 20, &["a"]);
    cluster.settle(2);
    cluster.at(2).raft.on_link(node(1), false);
    cluster.settle(2);
    assert_eq!(cluster.at(2).ended, [(20, Outcome::Unknown)]);
}

/// The answer is lost, the link comes back, and fates are told again; the batch is in once.
#[test]
fn a_fate_that_was_lost_is_told_again() {
    let mut cluster = Cluster::led(3);
    cluster.cut.insert((node(1), node(2)));
    cluster.propose(2, 20, &["a"]);
    cluster.run();
    assert_eq!(commands(cluster.at(1)).len(), 1);
    cluster.cut.clear();
    cluster.at(1).raft.on_link(node(2), false);
    cluster.settle(1);
    cluster.at(1).raft.on_link(node(2), true);
    cluster.run();
    assert_eq!(commands(cluster.at(2)), [("a".into(), Some(20))]);
}

/// Nothing is refused that would show it: no entry was lost beside it.
#[test]
fn a_refusal_that_was_lost_is_told_again_with_the_heartbeat() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    cluster.at(1).disk.full = true;
    cluster.settle(1);
    cluster.cut.insert((node(1), node(2)));
    cluster.propose(2, 20, &["a"]);
    cluster.run();
    cluster.cut.clear();
    cluster.elapse(300 * MS);
    assert_eq!(cluster.at(2).ended, [(20, Outcome::Refused(Refusal::DiskFull))]);
}

#[test]
fn a_repeated_forward_is_taken_once() {
    let mut cluster = Cluster::led(3);
    cluster.propose(2, 20, &["a"]);
    let now = cluster.now;
    let sent = cluster.at(2).settle(now);
    for _ in 0..3 {
        sent.iter().for_each(|message| cluster.deliver(node(2), message.clone()));
    }
    cluster.run();
    assert_eq!(commands(cluster.at(1)).len(), 1);
    assert!(cluster.at(1).has(Mark::ForwardRepeated));
}

#[test]
fn a_forward_that_was_overtaken_is_refused() {
    let mut cluster = Cluster::led(3);
    cluster.propose(2, 20, &["lost"]);
    let now = cluster.now;
    drop(cluster.at(2).settle(now));
    cluster.propose(2, 21, &["found"]);
    cluster.run();
    assert_eq!(cluster.at(2).ended, [(20, Outcome::Refused(Refusal::Busy))]);
    assert_eq!(commands(cluster.at(2)), [("found".into(), Some(21))]);
    assert!(cluster.at(2).has(Mark::ForwardSkipped));
}

/// Number 1 of the former life was placed; number 1 of this life is another batch.
#[test]
fn fates_of_a_former_life_are_nobodys() {
    let mut cluster = Cluster::led(3);
    cluster.cut.insert((node(1), node(2)));
    cluster.propose(2, 20, &["old"]);
    cluster.run();
    cluster.crash(2);
    cluster.at(2).raft.patience = Duration::from_secs(3600);
    cluster.cut.clear();
    cluster.at(1).raft.on_link(node(2), false);
    cluster.settle(1);
    cluster.at(1).raft.on_link(node(2), true);
    cluster.run();
    cluster.propose(2, 40, &["new"]);
    cluster.run();
    assert_eq!(commands(cluster.at(2)), [("old".into(), None), ("new".into(), Some(40))]);
}

/// One node's clock that is ahead would end the sessions of everybody else.
#[test]
fn what_is_forwarded_is_dated_by_the_leaders_clock() {
    let mut cluster = Cluster::led(3);
    let last = |cluster: &mut Cluster| cluster.at(1).raft.log.last_time();
    // As long as nobody has told the leader of its own, the forwarder's will do.
    cluster.at(1).raft.wall = WallClock::UNKNOWN;
    cluster.propose(2, 20, &["a"]);
    cluster.run();
    assert_eq!(last(&mut cluster), Timestamp(20));
    cluster.propose(1, 500, &[]);
    assert_eq!(last(&mut cluster), Timestamp(20), "the time alone makes no entry");
    cluster.propose(3, 1_000_000, &["b"]);
    cluster.run();
    assert_eq!(last(&mut cluster), Timestamp(500));
    // Its clock goes on, whatever those of others show; what was in an entry once stays.
    cluster.elapse(10 * MS);
    cluster.propose(2, 30, &["c"]);
    cluster.run();
    assert_eq!(last(&mut cluster), Timestamp(500 + 10 * MS));
    cluster.propose(1, 7, &[]);
    cluster.propose(3, 2_000_000, &["d"]);
    cluster.run();
    assert_eq!(last(&mut cluster), Timestamp(500 + 10 * MS));
}

/// Of a node that does not stand itself nobody may know any more: the entry that added it was lost with
/// its leader's power. What that leader had placed for it was waited for as long as the node lived.
#[test]
fn what_was_placed_by_a_leader_that_fell_silent_ends() {
    let mut cluster = Cluster::led(3);
    for follower in 2..=3 {
        cluster.at(follower).disk.lazy = true;
    }
    cluster.propose(2, 20, &["a"]);
    cluster.elapse(100 * MS);
    assert!(cluster.at(2).raft.forwards.is_empty(), "it was told where that went");
    assert_eq!(cluster.at(2).ended, []);
    cluster.isolate(1);
    cluster.at(2).raft.patience = Duration::from_secs(3600);
    let most = cluster.tuning.election.1.as_nanos() as u64;
    cluster.elapse(most / 2);
    assert_eq!(cluster.at(2).ended, [], "it may yet come");
    cluster.elapse(most);
    assert_eq!(cluster.at(2).ended, [(20, Outcome::Unknown)]);
}

/// Would the log's time stand still until a clock that was set back has caught up, what is to be gone in a
/// minute would be there for as long as the clock had been ahead.
#[test]
fn the_time_of_entries_does_not_stand_still_behind_a_clock_that_was_ahead() {
    const HOUR: u64 = 3_600_000 * MS;
    let mut cluster = Cluster::led(3);
    let last = |cluster: &mut Cluster, at: u64| cluster.at(at).raft.log.last_time().0;
    cluster.propose(1, HOUR, &["ahead"]);
    cluster.run();
    assert_eq!(last(&mut cluster, 1), HOUR);
    for round in 1..4 {
        cluster.elapse(10 * MS);
        cluster.propose(1, 7 + round * 10 * MS, &["right"]);
        cluster.run();
        assert_eq!(last(&mut cluster, 1), HOUR + round * 10 * MS);
    }
    // Whoever leads next was never ahead, and goes on from there.
    cluster.isolate(1);
    cluster.pass(1000 * MS);
    cluster.elect(2);
    let begun = last(&mut cluster, 2);
    assert!((HOUR + 30 * MS..HOUR + 10_000 * MS).contains(&begun), "{begun}");
    cluster.elapse(10 * MS);
    cluster.propose(2, 50 * MS, &["right"]);
    cluster.run();
    assert_eq!(last(&mut cluster, 2), begun + 10 * MS);
    // The clock has its say again when it is later.
    cluster.propose(2, 2 * HOUR, &["later"]);
    cluster.run();
    assert_eq!(last(&mut cluster, 2), 2 * HOUR);
}

/// It stands for election itself, for what its disk has lost is in no log any more; and its machine cannot
/// go on before somebody sends it a snapshot.
#[test]
fn what_is_committed_and_cannot_be_applied_ends_at_one_who_stands() {
    let mut cluster = Cluster::new({
        let mut disks: Vec<_> = (0..3).map(|_| disk_with(1, &[1; 4], 3)).collect();
        disks[1].lose_unseen(2);
        disks
    });
    for to in [1, 3] {
        cluster.cut.insert((node(2), node(to)));
    }
    cluster.elect(1);
    cluster.elapse(200 * MS);
    assert_eq!(cluster.at(2).disk.holes, [LogIndex(2)], "its machine waits for it");
    cluster.cut.clear();
    cluster.propose(2, 20, &["a"]);
    cluster.run();
    let committed = cluster.at(2).raft.committed();
    assert!(cluster.at(2).raft.tracking.is_due(committed), "it knows where that is");
    cluster.isolate(2);
    let given = crate::message::Refill { gone: id(1, 2), ..Default::default() };
    let head = cluster.at(3).raft.head_to(node(2));
    cluster.at(2).raft.on_message(node(3), Message { head, payload: Payload::Refill(given) });
    assert!(cluster.at(2).raft.is_gone());
    cluster.at(2).raft.patience = Duration::ZERO;
    cluster.elapse(10 * MS);
    assert_eq!(cluster.at(2).role(), status::Role::PreCandidate);
    cluster.elapse(cluster.tuning.election.1.as_nanos() as u64);
    assert_eq!(cluster.at(2).ended, [(20, Outcome::Unknown)]);
}

/// It is fed what was written before, for longer than anybody waits who hears nothing.
#[test]
fn what_is_committed_is_waited_for_as_long_as_the_log_gets_on() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    let raft = &mut cluster.at(2).raft;
    let far = id(1, 100);
    raft.placed(far, 1, Runs::One(Run { ordinal: 0, requests: Requests::one(RequestId(7)) }));
    let Role::Follower(follower) = &mut raft.role else { panic!("it follows") };
    follower.committed = far.index;
    let longest = cluster.tuning.election.1.as_nanos() as u64;
    for write in 0..4 {
        cluster.propose(1, 500 + write, &["old"]);
        cluster.elapse(longest * 2 / 3);
        assert_eq!(cluster.at(2).ended, [], "write {write}");
    }
    cluster.elapse(longest);
    assert_eq!(cluster.at(2).ended, [(7, Outcome::Unknown)]);
}

/// What it holds was dated by whoever led then, and no entry behind it may be of before.
#[test]
fn a_snapshot_brings_the_time_of_the_log_that_it_comes_from() {
    let mut cluster = Cluster::led(3);
    let time = Timestamp(3_600_000 * MS);
    let head = cluster.at(1).raft.head_to(node(2));
    cluster.at(2).raft.on_piece(&head, Piece { time, snapshot: whole(), ..Piece::default() });
    assert_eq!(cluster.at(2).raft.log.last_time(), time);
}

/// The last entry of who leads is bad, and everybody else holds it as state: nobody has its time but they.
#[test]
fn who_has_lost_the_last_entry_is_told_how_late_it_was() {
    let mut cluster = Cluster::new({
        let mut disks: Vec<_> = (0..3).map(|_| disk_with(1, &[1; 4], 3)).collect();
        disks[1].lose(4);
        disks
    });
    (1..=3).for_each(|id| cluster.settle(id));
    let time = Timestamp(3_600_000 * MS);
    assert!(cluster.at(2).raft.log.last_time() < time);
    cluster.at(3).raft.log.let_time_pass(time);
    cluster.at(3).raft.give_nothing(node(2), LogIndex(4));
    let [Message { head, payload }] =
        &cluster.at(3).raft.messages().drain(..).collect::<Vec<_>>()[..]
    else {
        panic!("it is answered once")
    };
    let message = Message { head: *head, payload: payload.clone() };
    cluster.at(2).raft.on_message(node(3), message);
    assert!(cluster.at(2).raft.is_gone());
    assert_eq!(cluster.at(2).raft.log.last_time(), time);
}

/// Its last entry is its own. What dates that of a peer may have been made by who leads no more, and be cut off.
#[test]
fn who_leads_is_told_nothing_of_the_time_by_who_lacks_what_it_has_lost() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(300 * MS);
    let raft = &mut cluster.at(1).raft;
    let (lost, time) = (raft.log.id_at(LogIndex(1)).unwrap(), raft.log.last_time());
    raft.observe_hole(Some(lost));
    let late = Timestamp(time.0 + 1000 * MS);
    let given = crate::message::Refill { gone: lost, time: late, ..Default::default() };
    let head = cluster.at(3).raft.head_to(node(1));
    let raft = &mut cluster.at(1).raft;
    raft.on_message(node(3), Message { head, payload: Payload::Refill(given) });
    assert!(raft.is_gone(), "it is heard");
    assert_eq!(raft.log.last_time(), time);
}

fn whole() -> SnapshotName {
    SnapshotName { at: id(1, 9), id: SnapshotId(7), bytes: 1, digest: 0 }
}

/// Nobody would ever hear of it: what has gone to the machine does not go there again.
#[test]
fn what_is_said_to_be_placed_where_all_is_applied_is_unknown() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(300 * MS);
    let raft = &mut cluster.at(2).raft;
    let at = raft.log.last();
    assert_eq!(raft.log.marks.applying(), at.index);
    raft.placed(at, 1, Runs::One(Run { ordinal: 0, requests: Requests::one(RequestId(7)) }));
    cluster.settle(2);
    assert_eq!(cluster.at(2).ended, [(7, Outcome::Unknown)]);
}
