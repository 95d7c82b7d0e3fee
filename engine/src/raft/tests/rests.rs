//! Groups that hibernate.

use super::*;

pub(super) const REST: u64 = 500 * MS;

/// Nodes led by the first, in a group that rests after half a second.
fn restful(nodes: u64) -> Cluster {
    let tuning = Tuning { hibernate_after: Duration::from_nanos(REST), ..Tuning::default() };
    let disks = (0..nodes).map(|_| disk_with(1, &[], nodes)).collect();
    let mut cluster = Cluster::tuned(disks, tuning);
    cluster.elect(1);
    for node in &mut cluster.nodes {
        // What an election in a test made endless.
        node.raft.draw_patience();
    }
    cluster
}

pub(super) fn resting(nodes: u64) -> Cluster {
    let mut cluster = restful(nodes);
    cluster.elapse(REST + 400 * MS);
    assert!(cluster.sleeps(), "it rests");
    cluster
}

impl Cluster {
    fn sleeps(&self) -> bool {
        self.nodes.iter().all(|node| node.raft.is_asleep() && node.raft.deadline().is_none())
    }

    fn kill(&mut self, id: u64) {
        self.isolate(id);
        for other in 1..=self.nodes.len() as u64 {
            if other != id {
                self.at(other).raft.on_link(node(id), false);
            }
        }
    }

    fn leader_of(&self, id: u64) -> Option<NodeId> {
        self.nodes[id as usize - 1].raft.leader()
    }
}

#[test]
fn a_group_without_requests_says_nothing_and_needs_no_clock() {
    let mut cluster = restful(3);
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(REST - 200 * MS);
    assert!(!cluster.sleeps(), "not before its time");
    cluster.elapse(600 * MS);
    assert!(cluster.sleeps());
    let delivered = cluster.delivered;
    cluster.elapse(3_600_000 * MS);
    assert_eq!(cluster.delivered, delivered, "an hour without a word");
    assert!(cluster.sleeps());
    assert!((1..=3).all(|id| cluster.leader_of(id) == Some(node(1))));
    assert!((1..=3).all(|id| cluster.nodes[id - 1].has(Mark::Hibernated)));
}

#[test]
fn without_the_setting_nobody_rests() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(60_000 * MS);
    assert!(!cluster.nodes.iter().any(|node| node.raft.is_asleep()));
}

#[test]
fn a_request_anywhere_wakes_all_who_have_to_do_with_it() {
    for at in [1, 2] {
        let mut cluster = resting(3);
        cluster.pass(60_000 * MS);
        cluster.propose(at, 1, &["a"]);
        cluster.run();
        cluster.elapse(100 * MS);
        for id in 1..=3 {
            let answered = (id == at).then_some(1);
            assert_eq!(commands(cluster.at(id)), [("a".into(), answered)], "asked at {at}, {id}");
        }
        cluster.elapse(REST + 400 * MS);
        assert!(cluster.sleeps(), "and they rest again");
        assert_eq!(cluster.at(1).raft.term, Term(2), "under the same leader");
    }
}

#[test]
fn reads_at_rest_are_confirmed_by_a_round() {
    for (at, mode) in [
        (1, ReadMode::Linearizable),
        (2, ReadMode::Linearizable),
        (1, ReadMode::Local { stale_max: Duration::from_secs(1) }),
        (3, ReadMode::Local { stale_max: Duration::from_secs(1) }),
        (1, ReadMode::Lease),
    ] {
        let mut cluster = resting(3);
        cluster.pass(60_000 * MS);
        cluster.at(at).raft.on_read(Requests::one(RequestId(7)), mode);
        cluster.settle(at);
        assert!(cluster.at(at).queried.is_empty(), "{mode:?}: what was heard is a minute old");
        cluster.run();
        assert_eq!(cluster.at(at).queried.len(), 1, "{mode:?} at {at}");
        assert!(cluster.at(at).ended.is_empty());
    }
}

/// A deposed leader that slept through it must not answer by what it believed then.
#[test]
fn a_leader_that_slept_through_its_fall_answers_no_read() {
    for mode in [
        ReadMode::Linearizable,
        ReadMode::Lease,
        ReadMode::Local { stale_max: Duration::from_secs(2) },
    ] {
        let tuning = Tuning { lease_drift_ppm: Some(1_000), ..resting(3).tuning };
        let mut cluster = Cluster::tuned((0..3).map(|_| disk_with(1, &[], 3)).collect(), tuning);
        cluster.elect(1);
        cluster.elapse(REST + 400 * MS);
        assert!(cluster.sleeps());
        cluster.kill(1);
        cluster.elapse(4_000 * MS);
        assert_ne!(cluster.leader_of(2), Some(node(1)));
        assert_eq!(cluster.at(1).role(), status::Role::Leader, "it knows of nothing");
        cluster.at(1).raft.on_read(Requests::one(RequestId(7)), mode);
        cluster.elapse(5_000 * MS);
        assert!(cluster.at(1).queried.is_empty(), "{mode:?}");
        assert!(matches!(cluster.at(1).ended[..], [(7, Outcome::Refused(_))]), "{mode:?}");
    }
}

/// What peers said before the rest tells nothing of now, and what they say after it does.
#[test]
fn a_leader_that_woke_serves_local_reads_once_a_quorum_has_answered() {
    let mut cluster = resting(3);
    let local = ReadMode::Local { stale_max: Duration::from_secs(3600) };
    let leader = &mut cluster.at(1).raft;
    leader.stir();
    assert_eq!(leader.fresh_within(Duration::from_secs(3600)), None);
    cluster.elapse(20 * MS);
    cluster.at(1).raft.on_read(Requests::one(RequestId(7)), local);
    cluster.settle(1);
    assert_eq!(cluster.at(1).queried.len(), 1, "without a round: {:?}", cluster.at(1).ended);
}

/// Without that every step would look for itself at each write.
#[test]
fn whoever_only_replicates_is_plain() {
    let mut cluster = restful(3);
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(200 * MS);
    for id in 1..=3 {
        let raft = &mut cluster.at(id).raft;
        raft.look_around();
        assert!(raft.is_plain(), "node {id}");
    }
    let mut cluster = resting(3);
    for id in 1..=3 {
        let raft = &mut cluster.at(id).raft;
        raft.look_around();
        assert!(!raft.is_plain(), "node {id} has no clock to go by");
    }
}

#[test]
fn who_rests_under_a_node_that_is_lost_elects_another_within_one_timeout() {
    for nodes in [3, 5] {
        let mut cluster = resting(nodes);
        cluster.pass(60_000 * MS);
        cluster.kill(1);
        cluster.elapse(2_000 * MS);
        let leader = cluster.leader_of(2);
        assert!(leader.is_some_and(|leader| leader != node(1)), "{leader:?}");
        assert!(cluster.at(2).has(Mark::HibernationEndedByLink));
    }
}

#[test]
fn a_leader_that_has_just_gone_to_rest_keeps_its_lease() {
    let mut cluster = resting(3);
    let heard = cluster.at(2).raft.contact;
    let least = cluster.tuning.election.0;
    cluster.at(2).raft.on_link(node(1), false);
    assert!(cluster.at(2).raft.election_at() >= Some(heard.after(least)));
}

#[test]
fn a_link_that_comes_back_in_time_leaves_the_leader_in_place() {
    let mut cluster = resting(3);
    cluster.pass(60_000 * MS);
    for (id, other) in [(2, 1), (1, 2)] {
        cluster.at(id).raft.on_link(node(other), false);
        cluster.at(id).raft.on_link(node(other), true);
    }
    cluster.elapse(5_000 * MS);
    assert_eq!(cluster.at(1).raft.term, Term(2));
    assert!(cluster.sleeps());
}

/// One that cannot reach the leader stands; whoever can, asks the leader, who still leads.
#[test]
fn who_rests_keeps_its_leader_against_one_that_lost_it() {
    let mut cluster = resting(3);
    cluster.pass(60_000 * MS);
    cluster.cut.extend([(node(1), node(3)), (node(3), node(1))]);
    cluster.at(3).raft.on_link(node(1), false);
    cluster.at(1).raft.on_link(node(3), false);
    cluster.elapse(10_000 * MS);
    assert_eq!(cluster.at(1).role(), status::Role::Leader);
    assert_eq!(cluster.at(1).raft.term, Term(2));
    assert!(cluster.at(2).has(Mark::BallotRefusedSticky));
}

/// The leader's engine ended, and its node lives: no link tells. A nudge does.
#[test]
fn a_leader_whose_group_ended_on_a_living_node_is_missed_when_asked() {
    let mut cluster = resting(3);
    cluster.pass(60_000 * MS);
    cluster.isolate(1);
    cluster.elapse(10_000 * MS);
    assert_eq!(cluster.leader_of(2), Some(node(1)), "nobody knows");
    for id in [2, 3] {
        cluster.at(id).raft.on_link(node(1), true);
    }
    cluster.elapse(4_000 * MS);
    assert!(cluster.leader_of(2).is_some_and(|leader| leader != node(1)));
}

/// It has no clock while it rests: who is woken and hears of nobody stands in time.
#[test]
fn who_is_woken_waits_for_its_leader_no_longer_than_ever() {
    let mut cluster = resting(3);
    cluster.pass(60_000 * MS);
    let raft = &mut cluster.at(2).raft;
    assert_eq!((raft.is_asleep(), raft.deadline()), (true, None));
    raft.wake();
    assert!(!raft.is_asleep() && raft.marks.has(Mark::HibernationEnded));
    assert_eq!(raft.deadline(), Some(raft.now.after(raft.patience)));
}

/// Whoever rests stands before long, though this is told of the leader's node again and again, and nobody
/// leads there any more.
fn stands_through(news: &[bool], every: u64) {
    let mut cluster = resting(3);
    cluster.isolate(1);
    let longest = cluster.tuning.election.1.as_nanos() as u64;
    let since = cluster.now;
    let leads = |node: &Node| node.role() == status::Role::Leader;
    while !cluster.nodes[1..].iter().any(leads) {
        assert!(cluster.now.0 - since.0 < 4 * longest, "nobody stands");
        for &up in news {
            for id in [2, 3] {
                cluster.at(id).raft.on_link(node(1), up);
            }
        }
        cluster.elapse(every);
    }
}

/// Groups may end on the leader's node one after another, and each end is news to all of them.
#[test]
fn who_waits_for_a_leader_that_ended_is_not_held_up_by_further_news() {
    stands_through(&[true], 100 * MS);
}

/// Its node comes and goes, faster than anybody's patience ends.
#[test]
fn a_leader_whose_node_comes_and_goes_is_not_waited_for_anew_each_time() {
    stands_through(&[false, true], 80 * MS);
}

/// An offer and word that the leader's node is another one now, in one batch: nobody would say so again.
#[test]
fn an_offer_from_before_news_of_the_leader_is_not_taken_up() {
    let mut cluster = restful(3);
    cluster.elapse(REST - 100 * MS);
    let offers =
        |message: &Message| matches!(&message.payload, Payload::Append(append) if append.rest);
    let mut offer = None;
    while offer.is_none() {
        cluster.pass(10 * MS);
        cluster.settle(1);
        offer = cluster.queue.iter().map(|(_, message)| message).find(|m| offers(m)).cloned();
        if offer.is_none() {
            cluster.run();
        }
    }
    let offer = offer.expect("the loop ends with it");
    let to = offer.head.to.0;
    cluster.at(to).raft.on_message(node(1), offer);
    cluster.at(to).raft.on_link(node(1), true);
    cluster.settle(to);
    assert!(cluster.at(to).raft.deadline().is_some(), "it waits for its leader");
}

#[test]
fn nobody_rests_while_a_member_that_can_be_reached_lacks_something() {
    let mut cluster = restful(3);
    cluster.cut.insert((node(1), node(3)));
    cluster.at(3).raft.patience = Duration::from_secs(3600);
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(5_000 * MS);
    assert!(!cluster.at(1).raft.is_asleep());
    // One whose node is known to be lost holds up nobody: its return is told by its link.
    cluster.at(1).raft.on_link(node(3), false);
    cluster.elapse(2_000 * MS);
    assert!(cluster.at(1).raft.is_asleep() && cluster.at(2).raft.is_asleep());
    cluster.cut.clear();
    cluster.at(1).raft.on_link(node(3), true);
    cluster.elapse(2_000 * MS);
    assert_eq!(commands(cluster.at(3)), [("a".into(), None)]);
    assert!(cluster.sleeps());
}

/// A heartbeat that was long on its way offers nothing any more.
#[test]
fn an_offer_that_was_overtaken_is_none() {
    let mut cluster = restful(3);
    cluster.elapse(REST - 100 * MS);
    let offers =
        |message: &Message| matches!(&message.payload, Payload::Append(append) if append.rest);
    let mut late = None;
    for _ in 0..30 {
        cluster.pass(10 * MS);
        let now = cluster.now;
        let sent = cluster.at(1).settle(now);
        late = late.or_else(|| sent.iter().find(|message| offers(message)).cloned());
        cluster.queue.extend(sent.into_iter().map(|message| (node(1), message)));
        cluster.run();
    }
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(200 * MS);
    let late = late.expect("it was found");
    let to = late.head.to.0;
    cluster.at(to).raft.on_message(node(1), late);
    cluster.settle(to);
    assert!(!cluster.at(to).raft.is_asleep());
}

/// Word of a commit, which wants no answer, was long on its way: it woke a follower whose leader went on
/// resting, until the follower stood (storm of groups, seed 5201205).
#[test]
fn whom_late_word_wakes_wakes_its_leader() {
    let mut cluster = restful(3);
    cluster.propose(1, 1, &["a"]);
    let notes = |message: &Message| matches!(&message.payload, Payload::Append(append) if append.frames.is_empty() && !append.ask);
    let mut late = None;
    while late.is_none() {
        cluster.pass(MS);
        let now = cluster.now;
        let sent = cluster.at(1).settle(now);
        late = sent.iter().find(|message| notes(message)).cloned();
        cluster.queue.extend(sent.into_iter().map(|message| (node(1), message)));
        while let Some((from, message)) = cluster.queue.pop_front() {
            late = late.or_else(|| Some(message.clone()).filter(notes));
            cluster.deliver(from, message);
        }
    }
    cluster.elapse(REST + 400 * MS);
    assert!(cluster.sleeps());
    let late = late.expect("the loop ends with it");
    let to = late.head.to.0;
    cluster.deliver(node(1), late);
    assert!(!cluster.at(to).raft.is_asleep());
    cluster.run();
    assert!(cluster.sleeps(), "the leader said at once that there is nothing");
    cluster.elapse(REST + 400 * MS);
    assert!(cluster.sleeps());
    assert!((1..=3).all(|id| cluster.leader_of(id) == Some(node(1))));
}

/// A node that restarts forgets that it rested: it asks around, and hears of the leader.
#[test]
fn a_restarted_member_finds_the_leader_at_rest() {
    let mut cluster = resting(3);
    cluster.pass(60_000 * MS);
    cluster.crash(3);
    cluster.at(1).raft.on_link(node(3), false);
    cluster.at(1).raft.on_link(node(3), true);
    cluster.elapse(1_000 * MS);
    assert_eq!(cluster.leader_of(3), Some(node(1)));
    cluster.elapse(3_000 * MS);
    assert!(cluster.sleeps());
    assert_eq!(cluster.at(1).raft.term, Term(2));
}

/// Its addition was on its way when the leader changed, and came to nothing; it knows the members from
/// then, hears of no leader, and asks them. Each question woke the group (storm of groups, seed 719).
#[test]
fn one_that_was_never_taken_in_asks_and_wakes_nobody() {
    let mut cluster = resting(3);
    let answers = |said: &[(NodeId, Payload)]| matches!(said, [(to, Payload::Hello { ask: false, .. })] if *to == node(9));
    for id in 1..=3 {
        let own = cluster.at(id).raft.head_to(node(9));
        let head = Head {
            from: node(9),
            to: node(id),
            incarnation: 900,
            to_incarnation: own.incarnation,
            ..own
        };
        let payload = Payload::Hello { ask: true, origin: Origin::default() };
        cluster.at(id).raft.on_message(node(9), Message { head, payload });
        let said = cluster.said(id);
        assert!(answers(&said), "{said:?}");
    }
    assert!(cluster.sleeps());
}

/// A learner cannot stand: it asks around. The instant at which its rest was over stayed its deadline
/// then, so that its driver called it again and again (storm of groups with members that change).
#[test]
fn a_learner_that_has_lost_its_resting_leader_waits_between_its_questions() {
    let mut cluster = changes::joined(2, 3);
    let tuning = Tuning { hibernate_after: Duration::from_nanos(REST), ..Tuning::default() };
    cluster.nodes.iter_mut().for_each(|node| {
        node.raft.on_tune(&tuning);
        node.raft.draw_patience();
    });
    cluster.changed(1, 100, &[crate::change::Change::AddLearner(changes::member(3))]);
    cluster.elapse(REST + 2500 * MS);
    assert!(cluster.sleeps(), "it rests");
    (1..=2).for_each(|id| cluster.isolate(id));
    cluster.at(3).raft.on_link(node(1), false);
    let mut asked = 0;
    for _ in 0..500 {
        cluster.pass(10 * MS);
        let said = cluster.said(3);
        asked += said.iter().filter(|said| matches!(said.1, Payload::Hello { .. })).count();
        let (deadline, now) = (cluster.at(3).raft.deadline(), cluster.now);
        assert!(deadline.is_some_and(|at| at > now), "{deadline:?} at {now:?}");
    }
    assert!((6..=12).contains(&asked), "{asked} in five seconds, to two nodes");
}

/// The link to it was said to be down while somebody else led, or never to be up: one node that is gone
/// keeps nobody awake whom it led before.
#[test]
fn a_group_rests_without_the_node_that_led_it() {
    let mut cluster = resting(3);
    cluster.kill(1);
    for id in [2, 3] {
        cluster.at(id).raft.on_link(node(1), false);
    }
    cluster.elapse(2_000 * MS);
    assert!([2, 3].iter().any(|id| cluster.at(*id).role() == status::Role::Leader));
    cluster.elapse(REST + 2_000 * MS);
    assert!(cluster.at(2).raft.is_asleep() && cluster.at(3).raft.is_asleep());
    // Its return is told by its link, and it is no longer left out.
    cluster.cut.clear();
    cluster.crash(1);
    for (at, peer) in [(1, 2), (1, 3), (2, 1), (3, 1)] {
        cluster.at(at).raft.on_link(node(peer), true);
    }
    cluster.elapse(REST + 2_000 * MS);
    assert!(cluster.sleeps());
    assert_eq!(cluster.at(1).raft.log.last(), cluster.at(2).raft.log.last());
}

/// Who can be reached and has not answered yet is waited for.
#[test]
fn nobody_rests_before_one_who_can_be_reached_has_answered() {
    let mut cluster = restful(3);
    cluster.cut.insert((node(3), node(1)));
    cluster.crash(1);
    cluster.at(1).raft.on_link(node(3), true);
    for id in [2, 3] {
        cluster.at(id).raft.patience = Duration::from_secs(3600);
    }
    cluster.elapse(REST + 5_000 * MS);
    assert_eq!(cluster.at(1).role(), status::Role::Leader);
    assert!(!cluster.at(1).raft.is_asleep());
}

/// Its offer was on its way when its node was lost: of a node that is gone already no link says so again.
#[test]
fn nobody_rests_under_one_who_is_gone() {
    let mut cluster = restful(3);
    cluster.at(2).raft.on_link(node(1), false);
    cluster.elapse(REST + 400 * MS);
    assert!(!cluster.at(2).raft.is_asleep());
    cluster.at(2).raft.on_link(node(1), true);
    cluster.elapse(REST + 400 * MS);
    assert!(cluster.sleeps());
}

/// Its answer would end its rest, and until then it would not give up waiting.
#[test]
fn nobody_rests_who_waits_for_what_became_of_a_request() {
    let mut cluster = restful(3);
    cluster.elapse(REST - 50 * MS);
    cluster.propose(2, 20, &["a"]);
    cluster.settle(2);
    // It is long on its way.
    let is_forward =
        |(_, message): &(NodeId, Message)| matches!(message.payload, Payload::Forward(_));
    let (late, others) = cluster.queue.drain(..).partition(is_forward);
    cluster.queue = others;
    cluster.elapse(400 * MS);
    assert!(cluster.at(3).raft.is_asleep() && !cluster.at(2).raft.is_asleep());
    cluster.queue = late;
    cluster.elapse(300 * MS);
    assert_eq!(commands(cluster.at(2)), [("a".into(), Some(20))]);
}

/// It cannot stand, and asks the members for their leader, who has a rest: whoever is asked by a member
/// wakes.
#[test]
fn a_learner_that_restarts_finds_the_leader_at_rest() {
    let mut cluster = changes::joined(2, 3);
    let tuning = Tuning { hibernate_after: Duration::from_nanos(REST), ..Tuning::default() };
    cluster.tuning = tuning.clone();
    cluster.nodes.iter_mut().for_each(|node| {
        node.raft.on_tune(&tuning);
        node.raft.draw_patience();
    });
    cluster.changed(1, 100, &[crate::change::Change::AddLearner(changes::member(3))]);
    cluster.elapse(REST + 2500 * MS);
    assert!(cluster.sleeps(), "it rests");
    cluster.crash(3);
    cluster.elapse(2_000 * MS);
    assert_eq!(cluster.leader_of(3), Some(node(1)));
}

/// Each alone keeps it awake: at rest it would not look after it.
#[test]
fn nobody_rests_who_lacks_something_itself() {
    type Lack = fn(&mut Raft);
    let mut cluster = restful(3);
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(300 * MS);
    let offered = || {
        let mut raft = cluster.nodes[1].raft.clone();
        let Role::Follower(follower) = &mut raft.role else { panic!("it follows") };
        follower.is_rest_offered = true;
        raft
    };
    assert!(offered().take_rest());
    let lacks: [(&str, Lack); 6] = [
        ("an entry", |raft| raft.facts.owes_entries = true),
        ("its state", |raft| raft.facts.is_state_lost = true),
        ("a promise", |raft| raft.facts.promised.0 = Term(0)),
        ("word that it may vote", |raft| raft.gate = Some(Gate::new([1, 2]))),
        ("a read's answer", |raft| raft.ready_at(LogIndex(9), Requests::one(RequestId(5)))),
        ("a word to a peer", |raft| raft.owe(node(3), Payload::TimeoutNow)),
    ];
    for (what, lack) in lacks {
        let mut raft = offered();
        lack(&mut raft);
        assert!(!raft.take_rest(), "{what}");
    }
}

/// Every node that was ever added and removed was kept, for as long as the process lived.
#[test]
fn who_is_no_member_and_is_gone_is_forgotten() {
    let mut cluster = resting(3);
    for guest in 4..1000 {
        cluster.at(2).raft.on_link(node(guest), true);
        cluster.at(2).raft.on_link(node(guest), false);
    }
    cluster.at(2).raft.on_link(node(3), false);
    let raft = &cluster.at(2).raft;
    assert_eq!((raft.unlinked.as_slice(), raft.linked.contains(&node(4))), (&[node(3)][..], false));
}

/// The third's group has ended on a node that lives, as by a panic: no link tells its leader at rest, and whoever
/// wakes reckons from then. The wrong one is removed.
#[test]
fn a_group_that_wakes_begins_no_change_that_nobody_is_there_to_carry() {
    let mut cluster = resting(3);
    cluster.isolate(3);
    cluster.pass(60_000 * MS);
    cluster.change(1, 100, &[crate::change::Change::Remove(node(2))]);
    cluster.run();
    let outcome = cluster.outcome(1, 100);
    cluster.elapse(60_000 * MS);
    cluster.propose(1, 1, &["a"]);
    cluster.propose(2, 2, &["b"]);
    cluster.elapse(60_000 * MS);
    let served = [1, 2].map(|id| commands(cluster.at(id)).len());
    let then = (cluster.outcome(1, 100), cluster.voters(1), cluster.voters(2));
    assert_eq!(served, [2; 2], "at first {outcome:?}, after two minutes nobody serves: {then:?}");
}

/// As above: who is chosen to lead may be nobody. The other one is there.
#[test]
fn a_group_that_wakes_is_handed_to_one_who_is_there() {
    let mut cluster = resting(3);
    cluster.isolate(2);
    cluster.pass(60_000 * MS);
    cluster.at(1).raft.on_transfer(RequestId(100), None);
    cluster.elapse(5_000 * MS);
    let outcome = cluster.outcome(1, 100);
    assert_eq!(cluster.at(3).role(), status::Role::Leader, "{outcome:?}");
}

/// Somebody wants another leader, whoever; somebody else that one which is chosen, and is not there.
#[test]
fn nobody_is_told_that_one_leads_who_does_not() {
    let mut cluster = resting(3);
    cluster.isolate(2);
    cluster.pass(60_000 * MS);
    cluster.at(1).raft.on_transfer(RequestId(100), None);
    cluster.at(1).raft.on_transfer(RequestId(101), Some(node(2)));
    cluster.elapse(5_000 * MS);
    let outcome = cluster.outcome(1, 101);
    let roles = [1, 2, 3].map(|id| cluster.at(id).role());
    assert!(!matches!(outcome, Some(Outcome::Done(_))), "{outcome:?} {roles:?}");
}

/// It waits by when it drew: as long as the times of before say, though shorter ones are in force.
#[test]
fn whoever_lost_its_leader_waits_by_the_times_in_force() {
    let long = Tuning {
        hibernate_after: Duration::from_nanos(REST),
        election: (Duration::from_secs(60), Duration::from_secs(120)),
        ..Tuning::default()
    };
    let disks = (0..3).map(|_| disk_with(1, &[], 3)).collect();
    let mut cluster = Cluster::tuned(disks, long.clone());
    cluster.elect(1);
    cluster.nodes.iter_mut().for_each(|node| node.raft.draw_patience());
    cluster.elapse(REST + 400 * MS);
    assert!(cluster.sleeps());
    cluster.kill(1);
    cluster.run();
    let short = Tuning { election: Tuning::default().election, ..long };
    (1..=3).for_each(|id| cluster.at(id).raft.on_tune(&short));
    let deadlines = [2, 3].map(|id| {
        let at = cluster.at(id).raft.deadline().expect("it waits");
        (at.0 - cluster.now.0) / MS
    });
    cluster.elapse(10_000 * MS);
    let leads = |node: &Node| node.role() == status::Role::Leader;
    assert!(cluster.nodes[1..].iter().any(leads), "nobody leads, they wait {deadlines:?} ms");
}
