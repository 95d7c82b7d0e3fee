use super::{
    changes::{joined, member},
    *,
};
use crate::{
    change::Change,
    message::{Append, Ballot, Verdict},
};

#[test]
fn a_quorum_elects_and_everybody_hears_of_it() {
    let mut cluster = Cluster::of(3);
    cluster.elapse(4000 * MS);
    let leaders: Vec<_> = cluster.nodes.iter().map(|node| node.raft.leader()).collect();
    assert!(leaders[0].is_some() && leaders.iter().all(|leader| *leader == leaders[0]));
    assert!(cluster.nodes.iter().all(|node| node.raft.term == Term(2)));
}

#[test]
fn a_sole_voter_leads_at_once() {
    let mut cluster = Cluster::of(1);
    cluster.run();
    assert_eq!(cluster.at(1).role(), status::Role::Leader);
    assert_eq!(cluster.at(1).raft.deadline(), None);
}

#[test]
fn a_candidate_asks_in_case_then_in_earnest_and_its_own_vote_is_durable_first() {
    let mut cluster = Cluster::of(3);
    cluster.run();
    cluster.pass(3000 * MS);
    cluster.at(1).disk.lazy = true;
    let ballot = |round| Ballot { round, last: LogId::ZERO, is_wished: false };
    let pre = Payload::PreVote(ballot(1));
    assert_eq!(cluster.said(1), [(node(2), pre.clone()), (node(3), pre)]);
    assert_eq!(cluster.at(1).raft.term, Term(1), "a pre-vote changes nothing");

    let head = Head { answers: cluster.at(1).raft.life(), from: node(2), ..answer_head(1) };
    let granted = Verdict { round: 1, granted: true };
    let message = Message { head, payload: Payload::PreVoteAnswer(granted) };
    cluster.at(1).raft.on_message(node(2), message);
    assert_eq!(cluster.said(1), [], "the vote for itself is not on disk");
    cluster.at(1).disk.sync();
    let vote = Payload::Vote(ballot(2));
    assert_eq!(cluster.said(1), [(node(2), vote.clone()), (node(3), vote)]);
}

fn answer_head(term: u64) -> Head {
    Head {
        cluster: ClusterId(7),
        group: GroupId(1),
        to: node(1),
        from: node(2),
        incarnation: 200,
        to_incarnation: 100,
        life: Life(1),
        term: Term(term),
        ..Head::default()
    }
}

fn ballot_from(from: u64, to: u64, term: u64, last: LogId, pre: bool) -> Message {
    let head = Head {
        from: node(from),
        to: node(to),
        incarnation: from * 100,
        to_incarnation: to * 100,
        ..answer_head(term)
    };
    let ballot = Ballot { round: 9, last, is_wished: false };
    let payload = if pre { Payload::PreVote(ballot) } else { Payload::Vote(ballot) };
    Message { head, payload }
}

/// A node of three in term 5 with entries of these terms, long after its start.
fn voter(terms: &[u64]) -> Cluster {
    let mut cluster = Cluster::new(vec![disk_with(5, terms, 3)]);
    cluster.run();
    cluster.pass(1000 * MS);
    cluster.at(1).raft.patience = Duration::from_secs(3600);
    cluster
}

fn verdicts(cluster: &mut Cluster, ballots: &[Message]) -> Vec<bool> {
    for ballot in ballots {
        cluster.at(1).raft.on_message(ballot.head.from, ballot.clone());
    }
    let granted = |(_, payload)| match payload {
        Payload::VoteAnswer(verdict) | Payload::PreVoteAnswer(verdict) => verdict.granted,
        other => panic!("{other:?}"),
    };
    cluster.said(1).into_iter().map(granted).collect()
}

#[test]
fn a_vote_is_given_once_in_a_term_and_again_to_the_same() {
    let mut cluster = voter(&[1]);
    let [two, three] = [2, 3].map(|from| ballot_from(from, 1, 6, id(1, 1), false));
    assert_eq!(verdicts(&mut cluster, std::slice::from_ref(&two)), [true]);
    assert_eq!(verdicts(&mut cluster, &[three, two]), [false, true]);
    assert_eq!(cluster.at(1).disk.promised, (Term(6), Some(node(2))));
}

#[test]
fn vote_survives_restart() {
    let mut cluster = voter(&[1]);
    let [two, three] = [2, 3].map(|from| ballot_from(from, 1, 6, id(1, 1), false));
    assert_eq!(verdicts(&mut cluster, &[two]), [true]);
    cluster.crash(1);
    cluster.pass(1000 * MS);
    assert_eq!(verdicts(&mut cluster, &[three]), [false]);
}

#[test]
fn a_vote_leaves_when_the_disk_holds_it() {
    let mut cluster = voter(&[1]);
    cluster.at(1).disk.lazy = true;
    let ballot = ballot_from(2, 1, 6, id(1, 1), false);
    assert_eq!(verdicts(&mut cluster, &[ballot]), []);
    cluster.at(1).disk.sync();
    assert_eq!(verdicts(&mut cluster, &[]), [true]);
}

#[test]
fn logs_are_compared_by_last_term_then_index() {
    let cases = [
        (id(3, 3), true),
        (id(3, 4), true),
        (id(4, 1), true),
        (id(3, 2), false),
        (id(2, 9), false),
    ];
    for (last, granted) in cases {
        for pre in [true, false] {
            let mut cluster = voter(&[1, 3, 3]);
            let ballot = ballot_from(2, 1, 6, last, pre);
            assert_eq!(verdicts(&mut cluster, &[ballot]), [granted], "{last} {pre}");
        }
    }
}

#[test]
fn a_pre_vote_binds_nobody() {
    let mut cluster = voter(&[1]);
    let ballots = [2, 3].map(|from| ballot_from(from, 1, 6, id(1, 1), true));
    assert_eq!(verdicts(&mut cluster, &ballots), [true, true]);
    assert_eq!(cluster.at(1).disk.promised, (Term(5), None));
}

#[test]
fn a_ballot_of_an_older_term_learns_of_the_newer() {
    let mut cluster = voter(&[1]);
    let ballot = ballot_from(2, 1, 4, id(9, 9), false);
    cluster.at(1).raft.on_message(node(2), ballot);
    let now = cluster.now;
    let answers = cluster.at(1).settle(now);
    assert_eq!(answers[0].head.term, Term(5));
    assert_eq!(answers[0].payload, Payload::VoteAnswer(Verdict { round: 9, granted: false }));
}

/// A restarted node forgot that a leader was alive a moment ago.
#[test]
fn a_started_node_refuses_for_the_least_election_timeout() {
    let mut cluster = Cluster::new(vec![disk_with(5, &[1], 3)]);
    cluster.pass(999 * MS);
    let ballot = ballot_from(2, 1, 6, id(9, 9), false);
    assert_eq!(verdicts(&mut cluster, std::slice::from_ref(&ballot)), [false]);
    assert!(cluster.at(1).has(Mark::BallotRefusedJustStarted));
    assert_eq!(cluster.at(1).raft.term, Term(5), "not even the term is taken over");
    cluster.pass(MS);
    assert_eq!(verdicts(&mut cluster, &[ballot]), [true]);
}

#[test]
fn who_hears_a_leader_does_not_vote_and_keeps_its_term() {
    let mut cluster = Cluster::led(3);
    cluster.pass(500 * MS);
    let ballot = ballot_from(3, 2, 9, id(9, 9), false);
    cluster.at(2).raft.on_message(node(3), ballot);
    cluster.settle(2);
    assert_eq!(cluster.at(2).raft.term, Term(2));
    assert!(cluster.at(2).has(Mark::BallotRefusedSticky));
}

#[test]
fn late_verdicts_of_an_earlier_round_do_not_count() {
    let mut cluster = Cluster::of(3);
    cluster.run();
    cluster.pass(3000 * MS);
    assert_eq!(cluster.said(1).len(), 2);
    cluster.pass(3000 * MS);
    assert_eq!(cluster.said(1).len(), 2, "a second round");
    let head = Head { answers: cluster.at(1).raft.life(), from: node(2), ..answer_head(1) };
    let payload = Payload::PreVoteAnswer(Verdict { round: 1, granted: true });
    cluster.at(1).raft.on_message(node(2), Message { head, payload });
    assert_eq!(cluster.said(1), []);
    assert!(cluster.at(1).has(Mark::LateVerdictDropped));
    assert_eq!(cluster.at(1).role(), status::Role::PreCandidate);
}

#[test]
fn who_comes_back_from_a_partition_deposes_nobody() {
    let mut cluster = Cluster::led(3);
    cluster.isolate(3);
    cluster.at(3).raft.patience = Duration::from_secs(1);
    cluster.elapse(20_000 * MS);
    assert_eq!(cluster.at(3).raft.term, Term(2), "it never stood for election");
    assert!(cluster.at(3).has(Mark::CanvassRepeated));
    cluster.cut.clear();
    cluster.elapse(3000 * MS);
    assert!(cluster.nodes.iter().all(|n| n.raft.leader() == Some(node(1))));
    assert!(cluster.nodes.iter().all(|n| n.raft.term == Term(2)));
}

#[test]
fn a_leader_without_a_quorum_steps_down() {
    let mut cluster = Cluster::led(3);
    cluster.isolate(1);
    cluster.elapse(2300 * MS);
    assert!(cluster.at(1).has(Mark::SteppedDownNoQuorum));
    assert_ne!(cluster.at(1).role(), status::Role::Leader);
}

#[test]
fn a_leader_whose_disk_stops_steps_down() {
    let mut cluster = Cluster::led(3);
    cluster.at(1).disk.lazy = true;
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(2300 * MS);
    assert!(cluster.at(1).has(Mark::SteppedDownDiskStuck));
    assert_eq!(commands(cluster.at(1)), [("a".into(), Some(1))], "the others committed it");
}

/// A disk without room hung when it was asked whether there is some again: its leader appended nothing that
/// could be missed, refused everything and led on for ever (storm of three, seed 250, with a hung disk).
#[test]
fn a_leader_whose_disk_does_not_say_whether_it_has_room_steps_down() {
    let mut cluster = Cluster::led(3);
    // Else it gives way to one that has some.
    (1..=3).for_each(|id| cluster.at(id).disk.full = true);
    cluster.elapse(10_000 * MS);
    assert_eq!(cluster.at(1).role(), status::Role::Leader, "it can still be asked");
    for _ in 0..10 {
        cluster.at(1).disk.seeks_room = true;
        cluster.elapse(500 * MS);
        cluster.at(1).disk.seeks_room = false;
        cluster.elapse(500 * MS);
    }
    assert_eq!(cluster.at(1).role(), status::Role::Leader, "its disk answers");
    cluster.at(1).disk.seeks_room = true;
    cluster.elapse(2300 * MS);
    assert!(cluster.at(1).has(Mark::SteppedDownDiskStuck));
    assert_ne!(cluster.at(1).role(), status::Role::Leader);
}

#[test]
fn a_leader_follows_whoever_has_a_greater_term() {
    let mut cluster = Cluster::led(3);
    let answer = Payload::AppendAnswer(crate::message::AppendAnswer::default());
    let message = Message { head: answer_head(8), payload: answer };
    cluster.at(1).raft.on_message(node(2), message);
    cluster.settle(1);
    assert_eq!(cluster.at(1).raft.term, Term(8));
    assert_eq!(cluster.at(1).role(), status::Role::Follower);
    assert!(cluster.at(1).has(Mark::SteppedDownTerm));
}

#[test]
fn messages_for_or_from_another_life_are_dropped() {
    for (incarnation, to_incarnation) in [(201, 100), (200, 101), (200, 0)] {
        let mut cluster = voter(&[1]);
        let mut ballot = ballot_from(2, 1, 6, id(9, 9), false);
        ballot.head.incarnation = incarnation;
        ballot.head.to_incarnation = to_incarnation;
        assert_eq!(verdicts(&mut cluster, &[ballot]), []);
        assert!(cluster.at(1).has(Mark::OtherIncarnationDropped));
        assert_eq!(cluster.at(1).raft.term, Term(5));
    }
}

/// While the hard state waits for a disk that hangs, candidates ask again and again.
#[test]
fn only_so_many_verdicts_wait_for_the_hard_state() {
    let mut cluster = Cluster::of(3);
    cluster.run();
    let head = cluster.at(2).raft.head_to(node(3));
    let ballot = Ballot { round: 1, last: LogId::ZERO, is_wished: true };
    for _ in 0..10 * OWED_MAX {
        cluster.at(3).raft.on_ballot(&head, ballot, true);
    }
    assert_eq!(cluster.at(3).raft.owed.len(), OWED_MAX);
}

/// It found out while it asked around. It may have been removed meanwhile: whom it asks will say so.
#[test]
fn one_who_stands_and_may_not_any_more_asks_what_became_of_it() {
    let mut cluster = Cluster::new((0..3).map(|_| disk_with(1, &[1, 1], 3)).collect());
    cluster.run();
    cluster.isolate(2);
    cluster.at(2).raft.patience = Duration::ZERO;
    cluster.pass(10 * MS);
    cluster.settle(2);
    assert_eq!(cluster.at(2).role(), status::Role::PreCandidate);
    cluster.at(2).disk.lose(1);
    cluster.queue.clear();
    let is_hello = |(from, message): &(NodeId, Message)| {
        *from == node(2) && matches!(message.payload, Payload::Hello { ask: true, .. })
    };
    let mut asked = false;
    for _ in 0..500 {
        cluster.pass(10 * MS);
        cluster.settle(2);
        asked |= cluster.queue.drain(..).any(|said| is_hello(&said));
    }
    assert!(asked);
    assert_eq!(cluster.at(2).role(), status::Role::Follower);
}

/// Its term is too low for whoever has less log: it must learn of the greater one from a refusal, as
/// nobody leads who could tell it.
#[test]
fn who_is_refused_for_its_term_learns_of_the_greater_one() {
    let disks = [(3, &[1, 3][..]), (9, &[1]), (3, &[1])];
    let mut cluster = Cluster::new(disks.map(|(term, log)| disk_with(term, log, 3)).into());
    cluster.isolate(3);
    for (other, patience) in [(1, 0), (2, 3600), (3, 3600)] {
        cluster.at(other).raft.patience = Duration::from_secs(patience);
    }
    cluster.elapse(5000 * MS);
    assert_eq!(cluster.at(1).role(), status::Role::Leader);
    assert!(cluster.at(1).raft.term > Term(9));
}

/// Its vote is still free: it was not given to one whose log is behind.
#[test]
fn who_refuses_an_older_log_has_its_vote_for_another() {
    let mut cluster = voter(&[1, 1]);
    let behind = ballot_from(2, 1, 6, id(1, 1), false);
    let level = ballot_from(3, 1, 6, id(1, 2), false);
    assert_eq!(verdicts(&mut cluster, &[behind]), [false]);
    assert_eq!(verdicts(&mut cluster, &[level]), [true]);
    assert_eq!(cluster.at(1).disk.promised, (Term(6), Some(node(3))));
}

/// It is of an earlier canvass of its own, and its leadership is none of that one's business.
#[test]
fn a_refusal_that_comes_late_deposes_nobody() {
    let mut cluster = Cluster::led(3);
    let head = Head { answers: cluster.at(1).raft.life(), ..answer_head(9) };
    let payload = Payload::PreVoteAnswer(Verdict { round: 1, granted: false });
    cluster.at(1).raft.on_message(node(2), Message { head, payload });
    cluster.settle(1);
    assert_eq!(cluster.at(1).role(), status::Role::Leader);
    assert!(cluster.at(1).has(Mark::LateVerdictDropped));
}

/// The term that it asks about is one that the voter has come to already.
#[test]
fn a_promise_to_vote_in_a_later_term_counts() {
    let mut cluster = Cluster::of(3);
    cluster.run();
    cluster.pass(3000 * MS);
    cluster.settle(1);
    let head = Head { answers: cluster.at(1).raft.life(), ..answer_head(2) };
    let payload = Payload::PreVoteAnswer(Verdict { round: 1, granted: true });
    cluster.at(1).raft.on_message(node(2), Message { head, payload });
    assert!(matches!(cluster.at(1).raft.role, Role::PreCandidate(_)));
    cluster.settle(1);
    assert!(matches!(cluster.at(1).raft.role, Role::Candidate(_)));
}

/// It answers, and its disk is slow: what is on its way is not sent again.
#[test]
fn whoever_answers_is_not_silent() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    cluster.at(2).disk.lazy = true;
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(3000 * MS);
    assert!(!cluster.at(1).has(Mark::PeerSilent));
    cluster.isolate(2);
    cluster.elapse(3000 * MS);
    assert!(cluster.at(1).has(Mark::PeerSilent));
}

/// Those who voted when it was away may all have left.
#[test]
fn a_learner_is_asked_once_the_voters_alone_have_brought_nothing() {
    let mut cluster = joined(3, 4);
    cluster.changed(1, 100, &[Change::AddLearner(member(4))]);
    cluster.elapse(300 * MS);
    cluster.isolate(2);
    let mut asks = || {
        cluster.pass(10_000 * MS);
        cluster.at(2).raft.patience = Duration::ZERO;
        let said = cluster.said(2);
        said.iter().any(|(to, of)| *to == node(4) && matches!(of, Payload::Hello { .. }))
    };
    assert_eq!([asks(), asks(), asks()], [false, false, true]);
}

/// Those who follow were last heard of an old heartbeat ago: that is no silence.
#[test]
fn a_leader_that_is_given_shorter_times_leads_on() {
    let (heartbeat, election) =
        (Duration::from_secs(5), (Duration::from_secs(20), Duration::from_secs(40)));
    let tuning = Tuning { heartbeat, election, ..Tuning::default() };
    let mut cluster = Cluster::tuned((0..3).map(|_| disk_with(1, &[], 3)).collect(), tuning);
    cluster.elect(1);
    cluster.elapse(12_000 * MS);
    (1..=3).for_each(|id| cluster.at(id).raft.on_tune(&Tuning::default()));
    cluster.elapse(6_000 * MS);
    assert!(!cluster.at(1).has(Mark::SteppedDownNoQuorum));
}

/// However late this leader's own timer runs.
#[test]
fn who_is_silent_for_longer_than_the_least_timeout_is_asked_anew() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    cluster.isolate(2);
    for is_owed in [false, true] {
        let mut cluster = cluster.clone();
        if is_owed {
            cluster.propose(1, 1, &["a"]);
        }
        cluster.run();
        let (now, least) = (cluster.now, cluster.tuning.election.0.as_nanos() as u64);
        let Role::Leader(leader) = &mut cluster.at(1).raft.role else { panic!("it leads") };
        leader.peers.iter_mut().for_each(|peer| peer.heard = now);
        for (time, is_asked) in [(least, false), (200 * MS, is_owed)] {
            cluster.pass(time);
            cluster.settle(1);
            assert_eq!(cluster.at(1).has(Mark::PeerSilent), is_asked, "owed: {is_owed}");
        }
    }
}

/// What it would do it says to one as to the other, and it has one vote in a term.
#[test]
fn nobody_is_promised_a_vote_that_another_has() {
    let mut cluster = voter(&[1]);
    let vote = ballot_from(2, 1, 6, id(1, 1), false);
    assert_eq!(verdicts(&mut cluster, &[vote]), [true]);
    let ballots = [(3, 6), (2, 6), (3, 7)];
    let ballots = ballots.map(|(from, term)| ballot_from(from, 1, term, id(1, 1), true));
    assert_eq!(verdicts(&mut cluster, &ballots), [false, true, true]);
}

/// Whatever round it names.
#[test]
fn neither_a_promise_nor_a_vote_of_another_term_is_a_vote() {
    let mut cluster = Cluster::of(3);
    cluster.run();
    cluster.pass(3000 * MS);
    let mut hear = |of: fn(Verdict) -> Payload, round, term| {
        cluster.settle(1);
        let head = Head { answers: cluster.at(1).raft.life(), ..answer_head(term) };
        let payload = of(Verdict { round, granted: true });
        cluster.at(1).raft.on_message(node(2), Message { head, payload });
        cluster.settle(1);
        cluster.at(1).role()
    };
    assert_eq!(hear(Payload::VoteAnswer, 1, 1), status::Role::PreCandidate);
    assert_eq!(hear(Payload::PreVoteAnswer, 1, 1), status::Role::Candidate);
    for term in 1..=3 {
        assert_eq!(hear(Payload::PreVoteAnswer, 2, term), status::Role::Candidate);
    }
    assert_eq!(hear(Payload::VoteAnswer, 2, 1), status::Role::Candidate);
    assert_eq!(hear(Payload::VoteAnswer, 2, 3), status::Role::Candidate);
    assert_eq!(hear(Payload::VoteAnswer, 2, 2), status::Role::Leader);
}

/// No ballot came here, and what it hears first is the other's entries. Nobody else leads its own term.
#[test]
fn a_leader_follows_one_of_a_greater_term_and_none_of_its_own() {
    for (term, faults, role) in [
        (2, &["a second leader in this term"][..], status::Role::Leader),
        (8, &[], status::Role::Follower),
    ] {
        let mut cluster = Cluster::led(3);
        cluster.elapse(300 * MS);
        let append = Append { sequence: 1, prev: id(2, 1), ..Append::default() };
        let message = Message { head: answer_head(term), payload: Payload::Append(append) };
        cluster.at(1).raft.on_message(node(2), message);
        cluster.settle(1);
        assert_eq!((cluster.at(1).role(), &cluster.at(1).faults()[..]), (role, faults));
        let leader = if role == status::Role::Leader { 1 } else { 2 };
        assert_eq!(cluster.at(1).raft.leader(), Some(node(leader)));
    }
}

/// It is behind all the time, and gets further.
#[test]
fn a_leader_whose_disk_is_slow_leads_on() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    cluster.at(1).disk.lazy = true;
    for request in 1..=10 {
        cluster.propose(1, request, &["a"]);
        cluster.elapse(500 * MS);
        let disk = &mut cluster.at(1).disk;
        disk.durable += usize::from(request > 1);
        assert!(disk.durable < disk.log.len());
    }
    assert_eq!(cluster.at(1).role(), status::Role::Leader);
}

/// Nobody is there to be asked who leads.
#[test]
fn who_waits_to_be_added_needs_no_clock() {
    let mut cluster = joined(1, 2);
    assert_eq!(cluster.at(2).raft.deadline(), None);
}

/// It has voted, for itself: whoever stands beside it in this term does not make it give up.
#[test]
fn who_stands_stands_on_though_another_does_in_the_same_term() {
    for (term, role) in [(6, status::Role::Candidate), (7, status::Role::Follower)] {
        let mut cluster = voter(&[1]);
        cluster.at(1).raft.become_candidate();
        assert_eq!(cluster.at(1).raft.term, Term(6));
        let ballot = ballot_from(2, 1, term, id(1, 1), false);
        cluster.at(1).raft.on_message(node(2), ballot);
        assert_eq!(cluster.at(1).role(), role, "a ballot of term {term}");
    }
}

/// There is nobody to ask whether it would win.
#[test]
fn a_sole_voter_stands_without_asking_in_case() {
    for (voters, role) in [(1, status::Role::Candidate), (2, status::Role::PreCandidate)] {
        let mut cluster = Cluster::new(vec![disk_with(1, &[], voters)]);
        cluster.at(1).raft.become_pre_candidate();
        assert_eq!(cluster.at(1).role(), role, "{voters} voters");
    }
}

/// Of two the one who is followed is heard, however the other came to lead.
#[test]
fn a_follower_follows_one_leader_in_a_term() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    let head = cluster.at(3).raft.head_to(node(2));
    let append = Append { sequence: 1, prev: id(2, 1), ..Append::default() };
    cluster.at(2).raft.on_message(node(3), Message { head, payload: Payload::Append(append) });
    cluster.settle(2);
    assert_eq!(cluster.at(2).raft.leader(), Some(node(1)));
    assert_eq!(cluster.at(2).faults(), ["a second leader in this term"]);
}
