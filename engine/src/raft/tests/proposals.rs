use super::*;
use crate::entry::HEAD_BYTES;
use crate::entry::Runs;

pub(super) fn refusals(node: &Node) -> Vec<(u64, Refusal)> {
    let refusal = |(id, outcome): &(u64, Outcome)| match outcome {
        Outcome::Refused(refusal) => (*id, refusal.clone()),
        other => panic!("{other:?}"),
    };
    node.ended.iter().map(refusal).collect()
}

#[test]
fn proposals_of_one_moment_share_an_entry() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 10, &["a", "b"]);
    assert!(!cluster.at(1).has(Mark::ProposalsGathered), "it is the only one");
    cluster.propose(1, 12, &["c"]);
    assert!(cluster.at(1).has(Mark::ProposalsGathered));
    cluster.propose(1, 90, &["d"]);
    cluster.run();
    assert_eq!(cluster.at(1).ids(), [id(2, 1), id(2, 2)]);
    let expected = [("a", 10), ("b", 11), ("c", 12), ("d", 90)];
    let expected = expected.map(|(command, id)| (command.to_string(), Some(id)));
    assert_eq!(commands(cluster.at(1)), expected);
    assert_eq!(cluster.at(1).ended, []);
}

/// Group commit: while a write is in flight proposals gather, and the next entry carries them all.
#[test]
fn proposals_gather_while_the_disk_is_busy() {
    let mut cluster = Cluster::led(1);
    cluster.at(1).disk.saturated = true;
    for request in 0..5 {
        cluster.propose(1, request, &["x"]);
        cluster.run();
    }
    assert_eq!(cluster.at(1).ids().len(), 1);
    cluster.at(1).disk.saturated = false;
    cluster.run();
    assert_eq!(cluster.at(1).ids().len(), 2);
    assert_eq!(cluster.at(1).applied.len(), 5);
}

#[test]
fn one_command_an_entry_is_the_classic_form() {
    let tuning = Tuning { entry_commands_max: 1, ..Tuning::default() };
    let mut cluster = Cluster::tuned(vec![disk_with(1, &[], 1)], tuning);
    cluster.elect(1);
    cluster.propose(1, 10, &["a", "b", "c"]);
    cluster.run();
    assert_eq!(cluster.at(1).ids().len(), 4);
    let expected = [("a", 10), ("b", 11), ("c", 12)];
    assert_eq!(commands(cluster.at(1)), expected.map(|(c, id)| (c.to_string(), Some(id))));
}

#[test]
fn an_entry_never_exceeds_append_bytes_max() {
    let tuning = Tuning { append_bytes_max: 256, ..Tuning::default() };
    let mut cluster = Cluster::tuned(vec![disk_with(1, &[], 1)], tuning);
    cluster.elect(1);
    cluster.at(1).disk.saturated = true;
    (0..100).for_each(|request| cluster.propose(1, request, &["0123456789"]));
    cluster.propose(1, 100, &[&"x".repeat(189)]);
    cluster.propose(1, 101, &[&"x".repeat(188)]);
    cluster.at(1).disk.saturated = false;
    cluster.run();
    assert_eq!(refusals(cluster.at(1)), [(100, Refusal::TooLarge)]);
    let sizes = cluster.at(1).disk.log.iter().map(|(head, _)| head.total_bytes);
    assert_eq!(sizes.max(), Some(256));
    assert_eq!(cluster.at(1).applied.len(), 101);
}

#[test]
fn too_much_in_flight_is_busy() {
    // Two entries of two commands, 32 bytes each, and what it costs that somebody waits for them; the first
    // has its head and its place in the log.
    let propose_bytes_max = 2 * (64 + 128) + HEAD_BYTES as u64 + 256;
    let tuning = Tuning { append_bytes_max: 128, propose_bytes_max, ..Tuning::default() };
    let mut cluster = Cluster::tuned(vec![disk_with(1, &[], 1)], tuning);
    cluster.elect(1);
    cluster.at(1).disk.lazy = true;
    (0..10).for_each(|request| cluster.propose(1, request, &["0123456789012345678901234567"]));
    cluster.run();
    let busy: Vec<_> = (4..10).map(|request| (request, Refusal::Busy)).collect();
    assert_eq!(refusals(cluster.at(1)), busy);
    assert!(cluster.at(1).has(Mark::ProposalBusy));
    cluster.at(1).disk.lazy = false;
    cluster.run();
    cluster.propose(1, 10, &["again"]);
    cluster.run();
    assert_eq!(cluster.at(1).applied.len(), 5);
}

/// Two others commit what this node's own disk is far from having: nothing of it can be given back, and
/// there was no bound to it (seed 63000450 of `churn_of_installs`).
#[test]
fn a_leader_whose_disk_lags_takes_no_more_than_may_wait() {
    let tuning = Tuning { append_bytes_max: 4096, propose_bytes_max: 4096, ..Tuning::default() };
    let disks = (0..3).map(|_| disk_with(1, &[], 3)).collect();
    let mut cluster = Cluster::tuned(disks, tuning);
    cluster.elect(1);
    cluster.at(1).disk.lazy = true;
    let mut taken = 0;
    for request in 0..10 {
        // A client here, and one at another node.
        cluster.propose(1 + request % 2, request, &[&"x".repeat(1000)]);
        cluster.elapse(100 * MS);
        taken = cluster.at(1).applied.len();
    }
    assert_eq!(taken, 3, "each costs 1,000 bytes and what an entry costs");
    let busy = |at: u64| (4 - at..10).step_by(2).map(|request| (request, Refusal::Busy)).collect();
    let expected: [Vec<_>; 2] = [busy(0), busy(1)];
    assert_eq!([refusals(cluster.at(1)), refusals(cluster.at(2))], expected);
    cluster.at(1).disk.lazy = false;
    cluster.run();
    cluster.propose(1, 10, &["again"]);
    cluster.propose(2, 11, &["and there"]);
    cluster.elapse(100 * MS);
    assert_eq!(cluster.at(1).applied.len(), 5);
}

#[test]
fn a_full_disk_refuses_proposals_and_serves_reads() {
    let mut cluster = Cluster::led(3);
    cluster.at(1).disk.full = true;
    cluster.run();
    cluster.propose(1, 1, &["a"]);
    cluster.at(1).raft.on_read(Requests::one(RequestId(2)), ReadMode::Linearizable);
    cluster.run();
    assert_eq!(refusals(cluster.at(1)), [(1, Refusal::DiskFull)]);
    assert_eq!(cluster.at(1).queried.len(), 1);
    cluster.at(1).disk.full = false;
    cluster.run();
    cluster.propose(1, 3, &["b"]);
    cluster.run();
    assert_eq!(commands(cluster.at(1)), [("b".into(), Some(3))]);
}

/// More was on its way than the last segment had room for. The leader took its disk for stuck and
/// stepped down, the next one did too, and no read was answered (found on a small file system).
#[test]
fn a_leader_without_room_for_what_it_took_still_leads() {
    let mut cluster = Cluster::led(3);
    for at in 1..=3 {
        cluster.at(at).disk.lazy = true;
    }
    cluster.propose(1, 1, &["a"]);
    cluster.run();
    for at in 1..=3 {
        cluster.at(at).disk.full = true;
    }
    cluster.elapse(10_000 * MS);
    cluster.at(3).raft.on_read(Requests::one(RequestId(2)), ReadMode::Linearizable);
    cluster.elapse(200 * MS);
    assert_eq!(cluster.at(3).queried, [(2, LogIndex(1))]);
    for at in 1..=3 {
        (cluster.at(at).disk.lazy, cluster.at(at).disk.full) = (false, false);
    }
    cluster.elapse(200 * MS);
    assert_eq!(commands(cluster.at(1)), [("a".into(), Some(1))]);
}

/// Nobody has said so: who is away may have room, and whether a quorum answers shows soon enough.
#[test]
fn a_leader_that_hears_of_no_full_disk_takes_proposals() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(100 * MS);
    for id in [2, 3] {
        cluster.at(1).raft.on_link(node(id), false);
    }
    cluster.propose(1, 1, &["a"]);
    cluster.run();
    assert_eq!(refusals(cluster.at(1)), []);
    cluster.at(1).raft.on_link(node(2), true);
    cluster.run();
    assert_eq!(commands(cluster.at(1)), [("a".into(), Some(1))]);
}

/// A leader with room took proposals that no quorum could hold, and answered none of them.
#[test]
fn a_leader_refuses_what_no_quorum_has_room_for() {
    let mut cluster = Cluster::led(3);
    cluster.at(2).disk.full = true;
    cluster.elapse(100 * MS);
    cluster.propose(1, 1, &["a"]);
    cluster.run();
    assert_eq!(commands(cluster.at(1)), [("a".into(), Some(1))]);
    cluster.at(3).disk.full = true;
    cluster.elapse(200 * MS);
    cluster.propose(1, 2, &["b"]);
    cluster.propose(2, 3, &["c"]);
    cluster.run();
    assert_eq!(refusals(cluster.at(1)), [(2, Refusal::DiskFull)]);
    assert_eq!(refusals(cluster.at(2)), [(3, Refusal::DiskFull)]);
    cluster.at(2).disk.full = false;
    cluster.elapse(200 * MS);
    cluster.propose(1, 4, &["d"]);
    cluster.run();
    assert_eq!(commands(cluster.at(1))[1..], [("d".into(), Some(4))]);
}

#[test]
fn who_does_not_lead_says_who_does() {
    let mut cluster = Cluster::led(3);
    cluster.at(2).raft.tuning.forward = false;
    cluster.propose(2, 1, &["a"]);
    cluster.isolate(3);
    cluster.at(3).raft.patience = Duration::from_secs(1);
    cluster.elapse(1500 * MS);
    cluster.propose(3, 2, &["b"]);
    cluster.run();
    assert_eq!(refusals(cluster.at(2)), [(1, Refusal::NotLeader { hint: Some(node(1)) })]);
    assert_eq!(refusals(cluster.at(3)), [(2, Refusal::NotLeader { hint: None })]);
}

#[test]
fn proposals_in_flight_end_as_unknown_when_the_leadership_is_lost() {
    let mut cluster = Cluster::led(3);
    cluster.isolate(1);
    cluster.propose(1, 1, &["a", "b"]);
    cluster.elapse(5000 * MS);
    assert_eq!(cluster.at(1).ended, [(1, Outcome::Unknown), (2, Outcome::Unknown)]);
    // It was not replicated, and the entry of another leader, 2 or 3, takes its place.
    cluster.cut.clear();
    cluster.elapse(500 * MS);
    assert_eq!(cluster.nodes[0].ids(), cluster.nodes[1].ids());
    assert!(cluster.at(1).has(Mark::ConflictTruncated));
    assert_eq!(cluster.at(1).ended.len(), 2, "one end each");
}

#[test]
fn an_entrys_time_never_goes_back() {
    let mut cluster = Cluster::led(1);
    for time in [50, 20, 70] {
        cluster.propose(1, time * 1000 * MS, &["x"]);
        cluster.run();
    }
    let times: Vec<_> = cluster.at(1).disk.log.iter().map(|(head, _)| head.time.0).collect();
    assert_eq!(times, [0, 50, 50, 70].map(|seconds| seconds * 1000 * MS));
    assert_eq!(cluster.at(1).raft.last_time().0, times[3], "a snapshot of it is of then");
}

#[test]
fn a_stop_ends_every_request_once() {
    let mut cluster = Cluster::led(3);
    cluster.isolate(1);
    cluster.propose(1, 1, &["in flight"]);
    cluster.settle(1);
    cluster.propose(1, 2, &["gathered"]);
    cluster.at(1).raft.on_read(Requests::one(RequestId(3)), ReadMode::Linearizable);
    cluster.at(1).raft.stop(&Refusal::Stopping);
    cluster.at(1).perform();
    let stopping = Outcome::Refused(Refusal::Stopping);
    let expected = [(2, stopping.clone()), (1, Outcome::Unknown), (3, stopping)];
    assert_eq!(cluster.at(1).ended, expected);
}

#[test]
fn runs_tell_each_client_its_command_across_entries() {
    let mut cluster = Cluster::led(3);
    cluster.at(2).disk.lazy = true;
    cluster.at(3).disk.lazy = true;
    cluster.propose(1, 1, &["a", "b"]);
    cluster.settle(1);
    cluster.propose(1, 50, &["c"]);
    cluster.settle(1);
    cluster.run();
    [2, 3].into_iter().for_each(|id| cluster.at(id).disk.lazy = false);
    cluster.run();
    let expected = [("a", 1), ("b", 2), ("c", 50)].map(|(c, id)| (c.to_string(), Some(id)));
    assert_eq!(commands(cluster.at(1)), expected);
    assert!(cluster.at(2).applied.iter().all(|(_, _, request)| request.is_none()));
}

/// A machine that keeps its own state would else be ahead of the log after a crash.
#[test]
fn a_machine_that_keeps_its_state_is_given_what_is_durable_here() {
    for keeps_state in [false, true] {
        let mut cluster = Cluster::led(3);
        cluster.at(1).raft.applying.durable_only = keeps_state;
        cluster.at(1).disk.lazy = true;
        cluster.propose(1, 1, &["a"]);
        cluster.run();
        let [last, committed] =
            [cluster.at(1).raft.log.last().index, cluster.at(1).raft.committed()];
        assert_eq!(committed, last, "the others hold it");
        assert_eq!(commands(cluster.at(1)).is_empty(), keeps_state);
        cluster.at(1).disk.lazy = false;
        cluster.run();
        assert_eq!(commands(cluster.at(1)).len(), 1);
    }
}

#[test]
fn runs_follow_each_other_as_one() {
    let mut gathering = Gathering::default();
    for first in [5, 6, 9] {
        gathering.add(Batch::one(b"x"), Some(RequestId(first)), Timestamp(0));
    }
    gathering.add(Batch::one(b"from elsewhere"), None, Timestamp(0));
    gathering.add(Batch::one(b"x"), Some(RequestId(10)), Timestamp(0));
    let (batch, runs, _) = gathering.take().expect("it gathered");
    let run = |ordinal, first, count| Run {
        ordinal,
        requests: Requests { first: RequestId(first), count },
    };
    assert_eq!(batch.count(), 5);
    assert_eq!(runs.as_slice(), [run(0, 5, 2), run(2, 9, 1), run(4, 10, 1)]);
}

/// A command of one byte is reckoned as five, and what waits for it takes hundreds.
#[test]
fn proposals_without_bytes_need_room_as_well() {
    let tuning =
        Tuning { append_bytes_max: 64 << 10, propose_bytes_max: 64 << 10, ..Tuning::default() };
    let mut cluster = Cluster::tuned((0..3).map(|_| disk_with(1, &[], 3)).collect(), tuning);
    cluster.elect(1);
    cluster.elapse(100 * MS);
    // They answer, and commit nothing: one catches up, one's disk is slow.
    for at in [2, 3] {
        cluster.at(at).disk.lazy = true;
    }
    let mut taken = 0_u64;
    while refusals(cluster.at(1)).is_empty() && taken < 100_000 {
        cluster.propose(1, taken + 1, &["a"]);
        cluster.settle(1);
        taken += 1;
    }
    let each = size_of::<proposal::Tracked>();
    let waits = cluster.at(1).raft.tracking.cost().bytes();
    assert!(
        taken * each as u64 <= 128 << 10,
        "{taken} wait, reckoned as {waits} bytes; the places in the queue alone take {}",
        taken * each as u64
    );
}

#[test]
fn a_batch_that_is_cut_loses_no_command() {
    for (commands, most, expected) in
        [(5, 2, &[2, 2, 1][..]), (4, 2, &[2, 2]), (1, 3, &[1]), (3, 1, &[1; 3])]
    {
        let mut batch = Batch::default();
        (0..commands).for_each(|n: usize| batch.push(&vec![n as u8; n]));
        let parts = proposal::split(&batch, most);
        assert_eq!(parts.iter().map(Batch::count).collect::<Vec<_>>(), expected);
        assert_eq!(parts.iter().map(Batch::body).collect::<Vec<_>>().concat(), batch.body());
    }
}

/// Whoever leads, the machine answers who waits for what is committed.
#[test]
fn only_what_is_above_the_commit_is_taken_back() {
    let mut tracking = Tracking::default();
    let tracked = |index| {
        let (runs, at) = (Runs::None, Instant(0));
        proposal::Tracked { id: id(1, index), bytes: 9, runs, at }
    };
    (1..=3).for_each(|index| tracking.push(tracked(index)));
    let taken = std::iter::from_fn(|| tracking.pop_above(LogIndex(1)));
    assert_eq!(taken.map(|tracked| tracked.id.index.0).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(tracking.last(), Some(id(1, 1)));
}

/// The log's newest entries, what gathers, and what it costs that somebody waits, here or at the leader.
#[test]
fn the_memory_that_is_told_grows_with_all_who_wait() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    cluster.isolate(1);
    let memory = |cluster: &mut Cluster, at| {
        let mut status = status::Status::default();
        cluster.at(at).raft.report(&mut status);
        status.memory_bytes
    };
    let before = [1, 2].map(|at| memory(&mut cluster, at));
    [1, 2].into_iter().for_each(|at| cluster.propose(at, at, &["0123456789"]));
    let gathered = [1, 2].map(|at| memory(&mut cluster, at));
    [1, 2].into_iter().for_each(|at| cluster.settle(at));
    let waiter = cluster.at(1).raft.tracking.cost().waiters;
    let frame = cluster.at(1).disk.log.last().expect("it is appended").1.len() as u64;
    let command = waiter + (frame - HEAD_BYTES as u64);
    assert!(waiter >= size_of::<proposal::Tracked>() as u64);
    assert_eq!([gathered[0] - before[0], gathered[1] - before[1]], [command; 2]);
    let sent = [1, 2].map(|at| memory(&mut cluster, at));
    assert_eq!(sent[0] - before[0], frame + log::CHUNK_BYTES + waiter);
    assert_eq!(sent[1] - before[1], waiter, "the leader has the command");
}

/// What it forwards its leader reckons with; what its own disk lacks it has from there.
#[test]
fn a_follower_whose_disk_lags_forwards() {
    let tuning = Tuning { append_bytes_max: 4096, propose_bytes_max: 4096, ..Tuning::default() };
    let disks = (0..3).map(|_| disk_with(1, &[], 3)).collect();
    let mut cluster = Cluster::tuned(disks, tuning);
    cluster.elect(1);
    cluster.at(2).disk.lazy = true;
    for request in 1..=10 {
        cluster.propose(1, request, &[&"x".repeat(1000)]);
        cluster.elapse(100 * MS);
    }
    assert!(cluster.at(2).raft.log.volatile_bytes() > 4096);
    cluster.propose(2, 20, &["a"]);
    cluster.elapse(100 * MS);
    assert_eq!((refusals(cluster.at(2)), cluster.at(1).applied.len()), (vec![], 11));
}

#[test]
fn room_is_where_a_quorum_says_it_is() {
    let mut cluster = Cluster::led(5);
    cluster.elapse(300 * MS);
    for (full, has_room) in [(&[2, 3][..], true), (&[2, 3, 4], false), (&[3, 4, 5], false)] {
        let mut raft = cluster.at(1).raft.clone();
        let Role::Leader(leader) = &mut raft.role else { panic!("it leads") };
        leader.peers.iter_mut().for_each(|peer| peer.full = full.contains(&peer.id.0));
        assert_eq!(raft.has_room(), has_room, "{full:?}");
    }
}

/// Alone, else it never would.
#[test]
fn what_is_larger_than_the_machine_may_hold_goes_to_it() {
    let tuning = Tuning { apply_bytes_max: 1, ..Tuning::default() };
    let mut cluster = Cluster::tuned(vec![disk_with(1, &[], 1)], tuning);
    cluster.elect(1);
    (1..=3).for_each(|request| cluster.propose(1, request, &["0123456789"]));
    cluster.run();
    assert_eq!(cluster.at(1).applied.len(), 3);
}

/// They lie behind what others put into the entry before them.
#[test]
fn whoever_waits_counts_from_behind_what_others_put_there() {
    let run = |ordinal| Run { ordinal, requests: Requests::one(RequestId(7)) };
    for runs in [Runs::One(run(1)), Runs::Many([run(1), run(4)].into())] {
        let before: Vec<_> = runs.as_slice().iter().map(|run| run.ordinal + 3).collect();
        let after = proposal::shifted(runs, 3);
        let after: Vec<_> = after.as_slice().iter().map(|run| run.ordinal).collect();
        assert_eq!(before, after);
    }
}
