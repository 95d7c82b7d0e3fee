use super::*;

fn read(cluster: &mut Cluster, at: u64, id: u64) {
    cluster.at(at).raft.on_read(Requests::one(RequestId(id)), ReadMode::Linearizable);
}

#[test]
fn a_read_needs_a_quorum_to_confirm_the_leader() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 1, &["a"]);
    cluster.run();
    read(&mut cluster, 1, 5);
    let said = cluster.said(1);
    assert_eq!(said.len(), 2, "a round to both: {said:?}");
    assert_eq!(cluster.at(1).queried, []);
    cluster.elapse(100 * MS);
    assert_eq!(cluster.at(1).queried, [(5, LogIndex(2))]);
}

/// A leader that was deposed and does not know it yet.
#[test]
fn a_deposed_leader_answers_no_reads() {
    let mut cluster = Cluster::led(3);
    cluster.isolate(1);
    read(&mut cluster, 1, 5);
    cluster.pass(1000 * MS);
    cluster.elect(2);
    cluster.propose(2, 9, &["newer"]);
    cluster.run();
    cluster.cut.clear();
    cluster.elapse(300 * MS);
    assert_eq!(cluster.at(1).queried, []);
    assert_eq!(cluster.at(1).ended, [(5, Outcome::Refused(Refusal::NotLeader { hint: None }))]);
}

#[test]
fn a_follower_reads_what_was_acknowledged_before() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 1, &["a"]);
    let now = cluster.now;
    for message in cluster.at(1).settle(now) {
        cluster.deliver(node(1), message);
    }
    cluster.cut.insert((node(1), node(2)));
    cluster.run();
    cluster.cut.clear();
    assert_eq!(commands(cluster.at(1)).len(), 1);
    assert_eq!(commands(cluster.at(2)), [], "it has not heard of the commit");
    read(&mut cluster, 2, 5);
    cluster.elapse(200 * MS);
    assert_eq!(cluster.at(2).queried, [(5, LogIndex(2))]);
    assert_eq!(commands(cluster.at(2)).len(), 1);
}

#[test]
fn reads_that_gather_share_a_round() {
    let mut cluster = Cluster::led(3);
    read(&mut cluster, 1, 1);
    cluster.settle(1);
    [3, 5, 6].into_iter().for_each(|id| read(&mut cluster, 1, id));
    read(&mut cluster, 2, 8);
    cluster.run();
    let ids = |node: &Node| node.queried.iter().map(|query| query.0).collect::<Vec<_>>();
    assert_eq!(ids(cluster.at(1)), [1, 3, 5, 6]);
    assert_eq!(ids(cluster.at(2)), [8]);
    assert!(cluster.at(1).has(Mark::ReadsShared));
    assert!(cluster.at(1).raft.reads.number() <= 3);
}

/// Until then its commit index may lie behind what its predecessor acknowledged.
#[test]
fn a_new_leader_serves_no_read_before_its_first_commit() {
    let mut cluster = Cluster::new((0..3).map(|_| disk_with(1, &[1, 1], 3)).collect());
    cluster.run();
    (2..=3).for_each(|id| cluster.at(id).disk.lazy = false);
    cluster.pass(1000 * MS);
    cluster.at(1).raft.patience = Duration::ZERO;
    (2..=3).for_each(|id| cluster.at(id).raft.patience = Duration::from_secs(3600));
    cluster.settle(1);
    while let Some((from, message)) = cluster.queue.pop_front() {
        if matches!(&message.payload, Payload::Append(append) if !append.frames.is_empty()) {
            cluster.at(message.head.to.0).disk.lazy = true;
        }
        cluster.deliver(from, message);
    }
    read(&mut cluster, 1, 5);
    cluster.elapse(200 * MS);
    assert_eq!(cluster.at(1).queried, []);
    assert!(cluster.at(1).has(Mark::ReadHeldForFirstCommit));
    (2..=3).for_each(|id| cluster.at(id).disk.lazy = false);
    cluster.elapse(200 * MS);
    assert_eq!(cluster.at(1).queried, [(5, LogIndex(3))]);
}

#[test]
fn a_read_that_gets_no_answer_is_asked_again_and_refused_at_last() {
    let mut cluster = Cluster::led(3);
    cluster.cut.insert((node(2), node(1)));
    read(&mut cluster, 2, 5);
    cluster.elapse(1500 * MS);
    assert!(cluster.at(2).has(Mark::ReadRoundRepeated));
    assert_eq!(cluster.at(2).ended, []);
    cluster.elapse(800 * MS);
    let hint = Some(node(1));
    assert_eq!(cluster.at(2).ended, [(5, Outcome::Refused(Refusal::NotLeader { hint }))]);
}

#[test]
fn without_a_leader_reads_are_refused() {
    let mut cluster = Cluster::of(3);
    read(&mut cluster, 1, 5);
    cluster.run();
    assert_eq!(cluster.at(1).ended, [(5, Outcome::Refused(Refusal::NotLeader { hint: None }))]);
}

/// A follower without room on its disk takes no more than a window of entries. It hears of its
/// leader all the time, so reads there waited for ever, and what it had forwarded (found on a small
/// file system).
#[test]
fn a_node_that_stays_behind_leaves_nobody_waiting() {
    let tuning = Tuning { append_bytes_max: 128, inflight_bytes_max: 128, ..Tuning::default() };
    let mut cluster = Cluster::tuned((0..3).map(|_| disk_with(1, &[], 3)).collect(), tuning);
    cluster.elect(1);
    cluster.run();
    cluster.at(2).disk.lazy = true;
    for request in 1..=9 {
        cluster.propose(1, request, &["0123456789012345678901234567"]);
        cluster.run();
    }
    read(&mut cluster, 2, 20);
    cluster.propose(2, 30, &["forwarded"]);
    cluster.elapse(1500 * MS);
    assert_eq!((cluster.at(2).queried.len(), cluster.at(2).ended.len()), (0, 0));
    cluster.elapse(800 * MS);
    let refused = Outcome::Refused(Refusal::NotReady);
    assert_eq!(cluster.at(2).ended, [(20, refused), (30, Outcome::Unknown)]);
    cluster.at(2).disk.lazy = false;
    cluster.elapse(500 * MS);
    read(&mut cluster, 2, 21);
    cluster.run();
    assert_eq!(cluster.at(2).queried, [(21, LogIndex(11))]);
    assert_eq!(cluster.at(2).ended.len(), 2, "one end each");
}

/// The position is confirmed, and the entries up to it never come.
#[test]
fn a_confirmed_read_that_cannot_be_reached_is_refused() {
    let mut cluster = Cluster::led(3);
    cluster.at(2).disk.lazy = true;
    cluster.propose(1, 1, &["a"]);
    let now = cluster.now;
    for message in cluster.at(1).settle(now) {
        if message.head.to == node(3) {
            cluster.deliver(node(1), message);
        }
    }
    cluster.run();
    read(&mut cluster, 2, 5);
    cluster.settle(2);
    while let Some((from, message)) = cluster.queue.pop_front() {
        if !matches!(message.payload, Payload::Append(_)) || message.head.to == node(3) {
            cluster.deliver(from, message);
        }
    }
    cluster.isolate(2);
    cluster.at(2).raft.patience = Duration::from_secs(1);
    cluster.elapse(1500 * MS);
    assert_eq!(cluster.at(2).ended, [(5, Outcome::Refused(Refusal::NotLeader { hint: None }))]);
}

#[test]
fn a_leader_serves_local_reads_while_a_quorum_answers() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    let mode = ReadMode::Local { stale_max: Duration::from_millis(150) };
    cluster.at(1).raft.on_read(Requests::one(RequestId(1)), mode);
    cluster.settle(1);
    assert_eq!(cluster.at(1).queried, [(1, LogIndex(1))]);
    cluster.isolate(1);
    cluster.elapse(300 * MS);
    cluster.at(1).raft.on_read(Requests::one(RequestId(2)), mode);
    cluster.settle(1);
    assert_eq!(cluster.at(1).ended, [(2, Outcome::Refused(Refusal::NotReady))]);
}

#[test]
fn a_local_read_is_as_stale_as_it_may_be() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    cluster.isolate(2);
    let local = |stale_max| ReadMode::Local { stale_max: Duration::from_millis(stale_max) };
    cluster.pass(50 * MS);
    cluster.settle(2);
    cluster.at(2).raft.on_read(Requests::one(RequestId(1)), local(200));
    cluster.at(2).raft.on_read(Requests::one(RequestId(2)), local(10));
    cluster.settle(2);
    assert_eq!(cluster.at(2).queried, [(1, LogIndex(1))]);
    assert_eq!(cluster.at(2).ended, [(2, Outcome::Refused(Refusal::NotReady))]);
}
