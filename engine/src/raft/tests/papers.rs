//! The published examples, as they are told (Raft, extended version; Ongaro's thesis).
//!
//! Where an example is the same as what another file tests, it stands there:
//!
//! | where | what | test |
//! |---|---|---|
//! | Raft §5.1 | an older term is answered with the newer | `elections::a_ballot_of_an_older_term_learns_of_the_newer` |
//! | Raft §5.1 | a leader of an older term steps down | here |
//! | Raft §5.2 | one vote a term, across restarts | `elections::{a_vote_is_given_once_in_a_term_and_again_to_the_same, vote_survives_restart}` |
//! | Raft §5.2 | a split vote ends with the next timeouts | here |
//! | Raft §5.3, figure 7 | followers' logs become the leader's | `logs::figure_7_followers_end_with_the_leaders_log` |
//! | Raft §5.3 | the last agreement is found in few messages | `logs::{divergence_is_found_in_few_messages, one_round_trip_finds_a_plain_conflict}` |
//! | Raft §5.4.1 | only who has all that is committed is elected | `elections::logs_are_compared_by_last_term_then_index` |
//! | Raft §5.4.2, figure 8 (c) | older terms are not counted | `logs::figure_8_older_terms_are_not_committed_by_counting` |
//! | Raft §5.4.2, figure 8 (d), (e) | what then may be overwritten, and what not | here |
//! | Raft §5.5 | what arrives twice does no harm | `logs::a_repeated_append_cuts_nothing` |
//! | Raft §6, thesis figure 4.2 | old and new voters never decide by themselves | here, `changes::{while_joint_the_new_voters_alone_are_not_enough, while_joint_the_old_voters_alone_are_not_enough}` |
//! | Raft §6 | a leader that leaves does not count itself | `changes::{a_leader_removes_itself, a_leader_that_leaves_does_not_count_itself}` |
//! | Raft §6, thesis §4.2.3 | disruptive servers | `changes::a_removed_node_disturbs_nobody_and_is_told`, `elections::who_hears_a_leader_does_not_vote_and_keeps_its_term` |
//! | Raft §7, thesis §5.1 | each server takes snapshots of its own, of what it applied | `crate::storage::tests::joins::only_a_newer_snapshot_is_captured_and_one_at_a_time` |
//! | Raft §7 | a follower whose next entry is gone is sent a snapshot, and then what follows | `installs::{a_peer_that_has_the_snapshot_goes_on_from_there, who_asks_for_a_state_is_sent_one_and_not_anew}`, `scenarios: installs::a_node_left_behind_is_sent_a_snapshot_once` |
//! | Raft §7, figure 13 | it comes in pieces, in order, and stands for nothing before it is whole | `installs::{only_word_of_the_snapshot_on_its_way_moves_it, a_snapshot_that_is_not_whole_takes_nobodys_place}`, `crate::storage::tests::joins::a_snapshot_is_received_piece_by_piece` |
//! | Raft §7, figure 13 | what the log has behind the snapshot's last entry stays, what differs goes | `installs::a_whole_snapshot_takes_entries_that_differ_or_is_not_needed` |
//! | Raft §7, figure 13 | pieces of an older term are answered with the newer | `installs::a_piece_is_taken_from_who_leads_now` |
//! | Raft §8, thesis §6.3 | a command that is sent again is applied once, and answered as the first time | `crate::session::tests::a_retry_is_not_applied_and_gets_the_first_answer` |
//! | thesis §6.3 | sessions expire at the same entry everywhere, and what is of none is refused | `crate::session::tests::{a_session_expires_by_the_time_of_entries_since_its_last_use, one_session_too_many_ends_the_one_that_was_not_used_for_the_longest, a_session_that_never_was_is_told_from_one_that_has_ended}` |
//! | thesis §6.3 | sessions are part of the state, and of its snapshots | `crate::session::tests::a_restored_machine_goes_on_where_the_other_was` |
//! | Raft §8, thesis §6.4 | a new leader commits before it serves reads; a deposed one serves none | `reads::{a_new_leader_serves_no_read_before_its_first_commit, a_deposed_leader_answers_no_reads}` |
//! | thesis §3.10 | leadership transfer | `handovers` |
//! | thesis §4.2.1 | who is added catches up before it counts | `changes::{an_empty_node_joins_catches_up_and_votes, a_learner_that_lags_is_not_promoted}` |
//! | thesis §6.4.1 | leases, and clocks that drift | `leases` |
//! | thesis §9.6 | pre-vote | `elections::{a_pre_vote_binds_nobody, who_comes_back_from_a_partition_deposes_nobody}` |
//! | raft-dev, July 2015 | the bug of single-server changes | `changes::a_new_leader_commits_before_it_changes` |

use super::*;
use crate::change::Change as MembershipChange;

/// Lets `candidates` stand at once, each for the same term; nobody hears of the result before all
/// have asked.
fn stand_together(cluster: &mut Cluster, candidates: &[u64]) {
    cluster.run();
    cluster.pass(3000 * MS);
    for other in &mut cluster.nodes {
        other.raft.patience = Duration::from_secs(3600);
    }
    for &id in candidates {
        cluster.at(id).raft.patience = Duration::ZERO;
    }
    candidates.iter().for_each(|id| cluster.settle(*id));
}

/// Raft §5.1: "If a candidate or leader discovers that its term is out of date, it immediately
/// reverts to follower state."
#[test]
fn section_5_1_a_leader_of_an_older_term_steps_down_and_cuts_nothing() {
    let mut cluster = Cluster::led(3);
    cluster.isolate(1);
    cluster.pass(1000 * MS);
    cluster.elect(2);
    cluster.propose(2, 7, &["newer"]);
    cluster.run();
    cluster.propose(1, 1, &["older"]);
    cluster.cut.clear();
    // Its heartbeat, with an entry of the older term behind it.
    cluster.pass(200 * MS);
    cluster.settle(1);
    cluster.run();
    assert_eq!(cluster.at(1).role(), status::Role::Follower);
    assert_eq!(cluster.at(1).raft.term, Term(3));
    cluster.elapse(1000 * MS);
    assert_eq!(commands(cluster.at(3)), [("newer".into(), None)]);
    assert_eq!(cluster.at(1).ids(), cluster.at(2).ids());
}

/// Raft §5.2: two of four stand in one term and get two votes each. Nobody wins; whoever loses
/// patience first afterwards does, in a later term.
#[test]
fn section_5_2_a_split_vote_ends_with_the_next_timeouts() {
    let mut cluster = Cluster::of(4);
    stand_together(&mut cluster, &[1, 2]);
    // Node 3 hears the one first, and node 4 the other; pre-votes bind nobody and reach all.
    let mut late = VecDeque::new();
    while let Some((from, message)) = cluster.queue.pop_front() {
        let is_vote = matches!(message.payload, Payload::Vote(_));
        let prefers = |to: u64| if to == 3 { node(1) } else { node(2) };
        if is_vote && from != prefers(message.head.to.0) {
            late.push_back((from, message));
        } else {
            cluster.deliver(from, message);
        }
    }
    cluster.queue = late;
    cluster.run();
    let leads = |node: &Node| node.role() == status::Role::Leader;
    assert!(!cluster.nodes.iter().any(leads), "two votes of four are no majority");
    assert_eq!(cluster.at(3).disk.promised, (Term(2), Some(node(1))));
    assert_eq!(cluster.at(4).disk.promised, (Term(2), Some(node(2))));
    // Timeouts are drawn anew, so that they do not collide for ever.
    cluster.elapse(10_000 * MS);
    assert_eq!(cluster.nodes.iter().filter(|node| leads(node)).count(), 1);
    let term = cluster.at(1).raft.term;
    assert!(term >= Term(3) && cluster.nodes.iter().all(|node| node.raft.term == term));
}

/// The five logs of figure 8 (c): index 2 of term 2 is on three servers, and S5 has one of term 3.
fn figure_8(term: u64) -> Cluster {
    let logs: [&[u64]; 5] = [&[1, 2], &[1, 2], &[1, 2], &[1], &[1, 3]];
    Cluster::new(logs.map(|terms| disk_with(term, terms, 5)).into())
}

/// Figure 8 (d): S1 crashes; S5 is elected by S2, S3 and S4 and overwrites index 2, for all that it
/// was on a majority.
#[test]
fn figure_8_d_an_entry_of_an_older_term_on_a_majority_is_overwritten() {
    let mut cluster = figure_8(4);
    cluster.isolate(1);
    cluster.elect(5);
    cluster.elapse(300 * MS);
    assert_eq!(cluster.at(2).ids()[1], id(3, 2));
    cluster.cut.clear();
    cluster.elapse(5000 * MS);
    let expected = cluster.at(5).ids();
    assert!(cluster.nodes.iter().all(|node| node.ids() == expected), "{expected:?}");
    assert!(cluster.nodes.iter().all(|node| node.applied == cluster.nodes[4].applied));
}

/// Figure 8 (e): S1 has an entry of its own term 4 on a majority before it crashes. It is
/// committed, and S5 cannot be elected any more.
#[test]
fn figure_8_e_an_entry_of_the_own_term_on_a_majority_stays() {
    let mut cluster = figure_8(3);
    cluster.cut_off(&[4, 5]);
    cluster.elect(1);
    cluster.elapse(100 * MS);
    let committed = cluster.at(1).raft.committed();
    assert_eq!(committed, LogIndex(3), "with the leader's first entry, index 2 too");
    let kept = cluster.at(1).ids();
    cluster.cut.clear();
    cluster.cut_off(&[1]);
    stand_together(&mut cluster, &[5]);
    cluster.run();
    assert_ne!(cluster.at(5).role(), status::Role::Leader, "two of three refuse it");
    cluster.pass(3000 * MS);
    cluster.at(2).raft.patience = Duration::ZERO;
    cluster.run();
    assert_eq!(cluster.at(2).role(), status::Role::Leader);
    cluster.elapse(500 * MS);
    assert_eq!(cluster.at(5).ids()[..3], kept[..3]);
}

/// Raft §6 and thesis figure 4.2: while both configurations are in force neither elects a leader
/// by itself. Old 1, 2, 3; new 3, 4, 5: 1 and 2 are most of the one, 4 and 5 of the other.
#[test]
fn thesis_figure_4_2_no_two_disjoint_majorities() {
    for alone in [[1, 2], [4, 5]] {
        let mut cluster = changes::joined(3, 5);
        let learners = [4, 5].map(|id| MembershipChange::AddLearner(changes::member(id)));
        cluster.changed(1, 100, &learners);
        cluster.elapse(500 * MS);
        let mut steps: Vec<_> = [4, 5].map(|id| MembershipChange::Promote(node(id))).into();
        steps.extend([1, 2].map(|id| MembershipChange::Remove(node(id))));
        // Everybody gets the joint configuration, and nobody's word of it comes back.
        cluster.change(1, 101, &steps);
        cluster.settle(1);
        while let Some((from, message)) = cluster.queue.pop_front() {
            if from == node(1) {
                cluster.deliver(from, message);
            }
        }
        let joint = (vec![3, 4, 5], vec![1, 2, 3]);
        assert!((1..=5).all(|id| cluster.voters(id) == joint));
        let others: Vec<u64> = (1..=5).filter(|id| !alone.contains(id)).collect();
        cluster.cut_off(&others);
        cluster.pass(5000 * MS);
        cluster.at(alone[1]).raft.patience = Duration::ZERO;
        cluster.elapse(5000 * MS);
        let leads = |id: &u64| cluster.nodes[*id as usize - 1].role() == status::Role::Leader;
        assert!(!alone.iter().any(leads), "{alone:?} are no quorum of both");
        cluster.cut.clear();
        cluster.cut_off(&[if alone[0] == 1 { 5 } else { 1 }]);
        cluster.elapse(10_000 * MS);
        assert!((2..=4).any(|id| cluster.at(id).raft.leader().is_some()));
    }
}
