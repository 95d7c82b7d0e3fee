//! Leaders that hand their role over.

use super::{
    super::{progress::Peer, transfer::Transfer},
    proposals::refusals,
    *,
};
use crate::action::TransferRefusal;

impl Cluster {
    fn transfer(&mut self, at: u64, request: u64, to: Option<u64>) {
        self.at(at).raft.on_transfer(RequestId(request), to.map(node));
    }

    fn ended(&mut self, at: u64, request: u64) -> Option<Outcome> {
        let ended = self.at(at).ended.iter().find(|(id, _)| *id == request);
        ended.map(|(_, outcome)| outcome.clone())
    }

    /// Asked, done, given up.
    fn transfers(&mut self, at: u64) -> (u64, u64, u64) {
        let Tally { asked, done, given_up } = self.at(at).raft.transfers;
        (asked, done, given_up)
    }

    fn leads(&mut self, id: u64) -> bool {
        self.at(id).role() == status::Role::Leader
    }
}

const fn refused(why: TransferRefusal) -> Option<Outcome> {
    Some(Outcome::Refused(Refusal::Transfer(why)))
}

/// Within no time: the others know whose wish it is, and do not protect a leader who goes.
#[test]
fn a_leader_hands_over_to_whom_it_is_told() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(100 * MS);
    let term = cluster.at(1).raft.term;
    cluster.transfer(1, 100, Some(3));
    cluster.run();
    assert!(cluster.leads(3) && !cluster.leads(1));
    assert_eq!(cluster.at(3).raft.term, term.next(), "in a term of its own");
    assert!(matches!(cluster.ended(1, 100), Some(Outcome::Done(_))));
    assert!(cluster.at(1).has(Mark::HandedOver) && cluster.at(3).has(Mark::StoodAtLeadersWish));
    cluster.propose(1, 2, &["b"]);
    cluster.elapse(100 * MS);
    assert_eq!(commands(cluster.at(1)).len(), 2, "it follows, and forwards");
}

/// Whoever is furthest, when nobody is named.
#[test]
fn the_heir_that_nobody_named_is_the_one_with_the_longest_log() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(100 * MS);
    cluster.at(2).disk.lazy = true;
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(100 * MS);
    cluster.transfer(1, 100, None);
    cluster.run();
    assert!(cluster.leads(3));
}

/// Until the heir has all there is, nothing is added to it; reads go on.
#[test]
fn no_proposal_is_taken_while_the_heir_is_waited_for() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(100 * MS);
    cluster.at(2).disk.lazy = true;
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(100 * MS);
    cluster.transfer(1, 100, Some(2));
    cluster.transfer(1, 101, Some(3));
    cluster.transfer(1, 102, Some(2));
    cluster.propose(1, 2, &["b"]);
    cluster.at(1).raft.on_read(Requests::one(RequestId(3)), ReadMode::Linearizable);
    cluster.elapse(100 * MS);
    let transferring = Some(Outcome::Refused(Refusal::Transferring));
    assert_eq!(cluster.ended(1, 2), transferring);
    assert_eq!(cluster.ended(1, 101), transferring, "not to two");
    assert_eq!((cluster.ended(1, 100), cluster.leads(1)), (None, true));
    assert!(cluster.at(1).raft.has_handover(), "who leaves waits for it");
    assert_eq!(cluster.at(1).queried.len(), 1);
    cluster.at(2).disk.lazy = false;
    cluster.run();
    assert!(cluster.leads(2) && !cluster.at(1).raft.has_handover());
    let done = |outcome: Option<Outcome>| matches!(outcome, Some(Outcome::Done(_)));
    assert!(done(cluster.ended(1, 100)) && done(cluster.ended(1, 102)));
    assert_eq!(cluster.transfers(1), (2, 1, 1), "who joins one is not counted");
}

#[test]
fn who_cannot_lead_is_refused_with_the_reason() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(100 * MS);
    cluster.transfer(1, 100, Some(9));
    cluster.transfer(1, 101, Some(1));
    cluster.transfer(2, 102, Some(3));
    cluster.isolate(3);
    cluster.elapse(1100 * MS);
    cluster.transfer(1, 103, Some(3));
    cluster.run();
    assert_eq!(cluster.ended(1, 100), refused(TransferRefusal::NoVoter(node(9))));
    assert!(matches!(cluster.ended(1, 101), Some(Outcome::Done(_))), "it leads already");
    let hint = Some(node(1));
    assert_eq!(cluster.ended(2, 102), Some(Outcome::Refused(Refusal::NotLeader { hint })));
    assert_eq!(cluster.ended(1, 103), refused(TransferRefusal::Silent(node(3))));
    assert_eq!(cluster.transfers(1), (2, 0, 2), "who leads already is not asked to");
    assert_eq!(cluster.transfers(2), (0, 0, 0), "who does not lead has none to hand over");
    let mut alone = Cluster::led(1);
    alone.transfer(1, 100, None);
    alone.run();
    assert_eq!(alone.ended(1, 100), refused(TransferRefusal::Nobody));
}

/// However far it is, it would have to be promoted first.
#[test]
fn a_learner_is_handed_nothing() {
    let mut cluster = Cluster::led(3);
    cluster.changed(1, 100, &[crate::change::Change::Demote(node(3))]);
    cluster.elapse(500 * MS);
    let term = cluster.at(1).raft.term;
    cluster.transfer(1, 101, Some(3));
    cluster.elapse(100 * MS);
    assert_eq!(cluster.ended(1, 101), refused(TransferRefusal::NoVoter(node(3))));
    assert!(cluster.leads(1) && cluster.at(1).raft.term == term, "it leads on");
    assert!(!cluster.at(3).has(Mark::StoodAtLeadersWish));
    // Nor is it the one that is furthest.
    cluster.at(2).disk.lazy = true;
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(100 * MS);
    cluster.transfer(1, 102, None);
    cluster.at(2).disk.lazy = false;
    cluster.elapse(500 * MS);
    assert!(cluster.leads(2) && !cluster.at(3).has(Mark::StoodAtLeadersWish));
}

/// Two of five had all, and a leader that had asked one of them to stand ended its writes as unknown, though
/// nothing had failed.
#[test]
fn what_was_taken_is_committed_before_the_heir_is_asked() {
    let mut cluster = Cluster::led(5);
    cluster.elapse(100 * MS);
    (3..=5).for_each(|id| cluster.at(id).disk.lazy = true);
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(100 * MS);
    cluster.transfer(1, 100, Some(2));
    cluster.elapse(900 * MS);
    assert!(!cluster.at(2).has(Mark::StoodAtLeadersWish));
    (3..=5).for_each(|id| cluster.at(id).disk.lazy = false);
    cluster.run();
    cluster.elapse(100 * MS);
    assert!(cluster.leads(2));
    assert_eq!(cluster.ended(1, 1), None, "the machine answers it");
    assert_eq!(commands(cluster.at(1)), [("a".into(), Some(1))]);
}

/// A leader whose disk is stuck, or that others do not hear, may be the one whom the commit waits for.
#[test]
fn a_commit_is_waited_for_no_longer_than_half_the_time() {
    let mut cluster = Cluster::led(5);
    cluster.elapse(100 * MS);
    (3..=5).for_each(|id| cluster.at(id).disk.lazy = true);
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(100 * MS);
    cluster.transfer(1, 100, Some(2));
    cluster.elapse(1050 * MS);
    assert!(cluster.at(2).has(Mark::StoodAtLeadersWish));
    (3..=5).for_each(|id| cluster.at(id).disk.lazy = false);
    cluster.run();
    assert!(cluster.leads(2));
    assert!(matches!(cluster.ended(1, 100), Some(Outcome::Done(_))));
}

/// The heir does not get there, or does not hear that it should: the leader serves on.
#[test]
fn a_handover_that_takes_too_long_is_given_up() {
    for (is_silent, expected) in
        [(false, refused(TransferRefusal::NotInTime(node(2)))), (true, Some(Outcome::Unknown))]
    {
        let mut cluster = Cluster::led(3);
        cluster.elapse(100 * MS);
        if is_silent {
            cluster.isolate(2);
        } else {
            cluster.at(2).disk.lazy = true;
            cluster.propose(1, 1, &["a"]);
            cluster.elapse(100 * MS);
        }
        cluster.transfer(1, 100, Some(2));
        cluster.elapse(1900 * MS);
        assert_eq!(cluster.ended(1, 100), None);
        cluster.elapse(200 * MS);
        assert_eq!(cluster.ended(1, 100), expected);
        assert!(cluster.leads(1) && cluster.at(1).has(Mark::HandoverGivenUp));
        assert_eq!(cluster.transfers(1), (1, 0, 1));
        cluster.propose(1, 7, &["b"]);
        cluster.elapse(100 * MS);
        assert_eq!(commands(cluster.at(1)).last().unwrap().0, "b");
    }
}

/// What the leader wants once may come late: it is of a term that is over, or from one who does not
/// lead.
#[test]
fn only_the_present_leader_can_make_a_node_stand() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(100 * MS);
    let term = cluster.at(2).raft.term;
    for (from, of) in [(3, term), (1, Term(term.0 - 1))] {
        let head = Head { term: of, ..cluster.at(from).raft.head_to(node(2)) };
        let message = Message { head, payload: Payload::TimeoutNow };
        cluster.deliver(node(from), message);
        cluster.run();
        assert!(cluster.leads(1) && cluster.at(2).raft.term == term);
    }
}

/// Whoever has no room refuses every write. A leader that may choose hands over to one that takes them.
#[test]
fn the_heir_that_nobody_named_has_room() {
    let mut cluster = Cluster::led(3);
    cluster.at(3).disk.full = true;
    cluster.elapse(300 * MS);
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(100 * MS);
    assert_eq!(commands(cluster.at(1)).len(), 1, "two of three have room");
    // As a stop that hands over does.
    cluster.transfer(1, 100, None);
    cluster.run();
    let leader = (1..=3).find(|id| cluster.leads(*id)).expect("it was handed over");
    cluster.elapse(10_000 * MS);
    cluster.propose(leader, 2, &["b"]);
    cluster.elapse(100 * MS);
    let ended = cluster.ended(leader, 2);
    assert_eq!((leader, ended), (2, None), "two of three have room still");
}

/// Whoever is behind its gate does not stand, and whoever lacks its state lacks more than a handover waits for.
#[test]
fn the_heir_that_nobody_named_can_lead() {
    let unfit: [fn(&mut Peer); 2] =
        [|peer| peer.gated = true, |peer| peer.transfer = Some(Transfer::default())];
    for make_unfit in unfit {
        let mut cluster = Cluster::led(3);
        cluster.elapse(100 * MS);
        let Role::Leader(leader) = &mut cluster.at(1).raft.role else { panic!("it leads") };
        make_unfit(leader.peer(node(3)).expect("it is a member"));
        cluster.transfer(1, 100, None);
        cluster.run();
        assert!(cluster.leads(2));
    }
}

/// It refuses every write, though two of three disks have room. Not at once: room may be back in a moment.
#[test]
fn a_leader_without_room_gives_way_to_one_who_has_some() {
    let mut cluster = Cluster::led(3);
    let longest = cluster.tuning.election.1.as_nanos() as u64;
    cluster.elapse(100 * MS);
    cluster.at(1).disk.full = true;
    cluster.elapse(longest);
    assert!(cluster.leads(1));
    cluster.elapse(1_100 * MS);
    let (others, term) = ([2, 3].map(|id| cluster.leads(id)), cluster.at(1).raft.term);
    assert!(!cluster.leads(1) && others.contains(&true), "{others:?}");
    assert!(cluster.at(1).has(Mark::GaveWayForRoom) && cluster.at(1).has(Mark::HandedOver));
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(100 * MS);
    assert_eq!(refusals(cluster.at(1)), []);
    let leader = if others[0] { 2 } else { 3 };
    assert_eq!(commands(cluster.at(leader)).len(), 1, "others have it, though not this one");
    // Its own is full as well then; room is back at the first.
    cluster.at(leader).disk.full = true;
    cluster.at(1).disk.full = false;
    cluster.elapse(longest + 1_100 * MS);
    assert!(!cluster.leads(leader));
    assert_eq!(cluster.at(1).raft.term, term.next(), "handed over, and not fought for");
}

/// It was elected before its machine had taken its snapshot in, and that turned out bad. It led on: what was
/// proposed was committed, and answered by nobody.
#[test]
fn a_leader_whose_state_is_lost_gives_way_and_can_be_sent_it() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(100 * MS);
    cluster.at(1).disk.is_state_lost = true;
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(1_100 * MS);
    assert!(!cluster.leads(1) && (cluster.leads(2) || cluster.leads(3)));
    assert!(cluster.at(1).has(Mark::HandedOver));
    // Nobody is asked while nobody is there.
    let mut alone = Cluster::led(3);
    alone.elapse(100 * MS);
    alone.isolate(1);
    alone.elapse(alone.tuning.election.0.as_nanos() as u64);
    alone.at(1).disk.is_state_lost = true;
    alone.elapse(200 * MS);
    assert_eq!(alone.transfers(1), (0, 0, 0));
}

/// The next one would have to refuse as well: no quorum of those who have room commits anything.
#[test]
fn a_leader_without_room_leads_on_where_others_have_none_either() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(100 * MS);
    for id in [1, 2] {
        cluster.at(id).disk.full = true;
    }
    cluster.elapse(20_000 * MS);
    assert!(cluster.leads(1) && !cluster.at(1).has(Mark::GaveWayForRoom));
}

/// Whoever was asked may not be able to: the other one is asked then.
#[test]
fn a_leader_without_room_gives_way_to_one_who_stands() {
    let mut cluster = Cluster::led(3);
    for n in 0..3 {
        cluster.propose(1, n, &["a"]);
        cluster.elapse(100 * MS);
    }
    // What its disk has lost is not taken from anybody yet.
    cluster.at(3).disk.lose(2);
    cluster.at(3).disk.is_crowded = true;
    cluster.at(1).disk.full = true;
    cluster.elapse(60_000 * MS);
    let told = (cluster.transfers(1), cluster.at(1).has(Mark::HandoverGivenUp));
    assert!(cluster.leads(2), "{told:?}");
}

/// Those who are away may have room, and commit nothing.
#[test]
fn a_leader_without_room_gives_way_for_those_who_are_there_alone() {
    let mut cluster = Cluster::led(5);
    cluster.elapse(100 * MS);
    cluster.isolate(4);
    cluster.isolate(5);
    cluster.elapse(3_000 * MS);
    assert!(cluster.leads(1));
    cluster.at(1).disk.full = true;
    cluster.elapse(20_000 * MS);
    assert!(cluster.leads(1) && !cluster.at(1).has(Mark::GaveWayForRoom));
}

/// A client's wish was counted once more with each second.
#[test]
fn whoever_is_handing_over_does_not_begin_anew_for_want_of_room() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(100 * MS);
    cluster.at(2).disk.lazy = true;
    cluster.propose(1, 1, &["a"]);
    cluster.at(1).disk.full = true;
    cluster.elapse(2_700 * MS);
    cluster.transfer(1, 100, Some(2));
    cluster.elapse(1_500 * MS);
    assert_eq!(cluster.transfers(1), (1, 0, 0));
}

/// All leaders of a node with many groups went to the same one. The ids of the others are both odd.
#[test]
fn equal_heirs_are_others_in_other_groups() {
    let mut cluster = Cluster::led(3);
    cluster.transfer(1, 100, Some(2));
    cluster.elapse(100 * MS);
    assert!(cluster.leads(2));
    let heirs = [1, 2].map(|group| {
        let mut raft = cluster.at(2).raft.clone();
        raft.identity.group = GroupId(group);
        raft.heir(None).expect("both are there")
    });
    assert_ne!(heirs[0], heirs[1]);
}

/// It was gathered while the log waited for a segment, and stayed so: nothing could be handed over, and nobody
/// was told what became of it.
#[test]
fn what_was_gathered_before_a_disk_was_full_is_no_hindrance_to_a_handover() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(100 * MS);
    // The segment is full: "a" waits for the next one, which is being made; "b" and "c" gather.
    cluster.at(1).disk.lazy = true;
    cluster.propose(1, 6, &["a"]);
    cluster.elapse(20 * MS);
    cluster.at(1).disk.saturated = true;
    cluster.elapse(20 * MS);
    cluster.propose(1, 7, &["b"]);
    cluster.propose(2, 8, &["c"]);
    cluster.elapse(20 * MS);
    // There is no room for it.
    cluster.at(1).disk.full = true;
    cluster.elapse(10_000 * MS);
    let leader = [2, 3].into_iter().find(|id| cluster.leads(*id)).expect("it was handed over");
    assert_eq!(commands(cluster.at(leader)).len(), 3);
}

/// Whoever lacked a little of its log waited for it, and it did not stand.
#[test]
fn who_has_no_state_leads_until_another_has_its_log() {
    let logs: [&[u64]; 3] = [&[1, 1, 1], &[1, 1], &[1]];
    let mut cluster = Cluster::new(logs.map(|terms| disk_with(1, terms, 3)).into());
    cluster.at(1).disk.is_state_lost = true;
    cluster.isolate(3);
    cluster.elapse(10_000 * MS);
    assert!(cluster.leads(2));
}

/// A change was judged good that left the group to one whose machine had no state: nobody led any more, and
/// nobody was left to send it.
#[test]
fn a_group_is_not_left_to_who_has_no_state() {
    let mut cluster = Cluster::led(2);
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(300 * MS);
    cluster.at(2).disk.is_state_lost = true;
    cluster.elapse(1_000 * MS);
    cluster.at(1).raft.on_change(RequestId(100), &[crate::change::Change::Remove(node(1))]);
    cluster.elapse(10_000 * MS);
    assert!(cluster.leads(1) && cluster.at(1).halted.is_none());
}

/// The lot fell on the same one again and again.
#[test]
fn a_leader_without_state_asks_another_when_its_heir_does_not_stand() {
    let mut cluster = Cluster::led(3);
    for n in 0..3 {
        cluster.propose(1, n, &["a"]);
        cluster.elapse(100 * MS);
    }
    cluster.at(2).disk.lose(2);
    cluster.at(2).disk.is_crowded = true;
    cluster.at(1).disk.is_state_lost = true;
    cluster.elapse(60_000 * MS);
    assert!(cluster.leads(3));
}

/// Status told of transfers that nobody had asked for.
#[test]
fn nobody_is_asked_to_lead_where_nobody_is_there() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(300 * MS);
    cluster.isolate(1);
    cluster.elapse(1_100 * MS);
    let at = id(2, 2);
    let head = cluster.at(2).raft.head_to(node(1));
    let raft = &mut cluster.at(1).raft;
    (raft.facts.hole, raft.facts.owes_entries) = (Some(at), true);
    raft.observe_hole(Some(at));
    for _ in 0..5 {
        let gone = crate::message::Refill { gone: at, ..Default::default() };
        raft.on_message(node(2), Message { head, payload: Payload::Refill(gone) });
    }
    assert_eq!(cluster.transfers(1), (0, 0, 0));
}

/// It would be one more entry for the heir, and for the next leader a change to go on with.
#[test]
fn no_change_begins_while_the_heir_is_waited_for() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(100 * MS);
    cluster.at(2).disk.lazy = true;
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(100 * MS);
    cluster.transfer(1, 100, Some(2));
    cluster.at(1).raft.on_change(RequestId(101), &[crate::change::Change::Demote(node(3))]);
    cluster.run();
    assert_eq!(cluster.ended(1, 101), Some(Outcome::Refused(Refusal::Transferring)));
}

/// One more that does not mind takes nobody's choice away, nor does one that is refused; one that minds does.
#[test]
fn an_heir_may_be_changed_until_somebody_has_named_it() {
    for (to, is_changed) in [(None, true), (Some(3), true), (Some(2), false)] {
        let mut cluster = rests::resting(3);
        cluster.isolate(2);
        cluster.pass(60_000 * MS);
        // The lot falls on the second.
        cluster.at(1).raft.identity.group = GroupId(1);
        cluster.transfer(1, 100, None);
        cluster.transfer(1, 101, to);
        cluster.elapse(5_000 * MS);
        assert_eq!(cluster.leads(3), is_changed, "{to:?}: {:?}", cluster.ended(1, 100));
    }
}

/// Who has none either is no help, however much of the log it has.
#[test]
fn a_leader_without_room_gives_way_to_nobody_without() {
    let mut cluster = Cluster::led(5);
    cluster.elapse(100 * MS);
    (3..=5).for_each(|id| cluster.at(id).disk.lazy = true);
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(100 * MS);
    [1, 2].into_iter().for_each(|id| cluster.at(id).disk.full = true);
    let waited = (0..60).find(|_| {
        cluster.elapse(100 * MS);
        cluster.at(1).raft.is_handing_over()
    });
    assert!(waited.is_some());
    (3..=5).for_each(|id| cluster.at(id).disk.lazy = false);
    cluster.elapse(500 * MS);
    assert!((3..=5).any(|id| cluster.leads(id)), "{:?}", cluster.transfers(1));
}

/// Nobody wins without what is committed, and one without room is better than none.
#[test]
fn a_leader_that_goes_asks_one_who_has_what_is_committed() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(300 * MS);
    for behind in [2, 3] {
        let mut raft = cluster.at(1).raft.clone();
        let Role::Leader(leader) = &mut raft.role else { panic!("it leads") };
        for peer in &mut leader.peers {
            peer.full = peer.id != node(behind);
            if peer.id == node(behind) {
                peer.matched = peer.matched.previous();
            }
        }
        assert_eq!(appointed(raft), [node(5 - behind)]);
    }
}

/// Of those who have it.
#[test]
fn a_leader_that_goes_asks_one_who_has_room_and_can_lead() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(300 * MS);
    let unfit: [fn(&mut Peer); 3] = [
        |peer| peer.full = true,
        |peer| peer.gated = true,
        |peer| peer.transfer = Some(Transfer::default()),
    ];
    for make_unfit in unfit {
        for other in [2, 3] {
            let mut raft = cluster.at(1).raft.clone();
            let Role::Leader(leader) = &mut raft.role else { panic!("it leads") };
            make_unfit(leader.peer(node(other)).expect("it is a member"));
            assert_eq!(appointed(raft), [node(5 - other)]);
        }
    }
}

fn appointed(mut raft: Raft) -> Vec<NodeId> {
    raft.messages.clear();
    raft.appoint_heir();
    raft.messages.iter().map(|message| message.head.to).collect()
}

/// It would have to hand it on, and nobody gives it.
#[test]
fn a_leader_that_lacks_what_is_gone_elsewhere_hands_over() {
    for owes_entries in [true, false] {
        let mut cluster = Cluster::led(3);
        cluster.propose(1, 1, &["a"]);
        cluster.elapse(300 * MS);
        let (at, head) = (id(2, 2), cluster.at(2).raft.head_to(node(1)));
        let raft = &mut cluster.at(1).raft;
        (raft.facts.hole, raft.facts.owes_entries) = (Some(at), owes_entries);
        raft.observe_hole(Some(at));
        let gone = crate::message::Refill { gone: at, ..Default::default() };
        raft.on_message(node(2), Message { head, payload: Payload::Refill(gone) });
        assert_eq!(raft.is_handing_over(), owes_entries);
    }
}

/// It may not be able to, and the next one is not asked for long.
#[test]
fn a_leader_without_room_asks_another_than_who_did_not_stand() {
    for passed_over in [2, 3] {
        // And none before it has waited for longer than the longest timeout.
        for (late, gives_way) in [(0, false), (1, true)] {
            let mut cluster = Cluster::led(3);
            cluster.elapse(300 * MS);
            let patience = cluster.tuning.election.1.as_nanos() as u64;
            let raft = &mut cluster.at(1).raft;
            let sought = raft.facts.sought_room;
            (raft.facts.full, raft.facts.sought_room) = (true, sought + 1);
            let since = Instant(raft.now.0 - patience - late);
            let Role::Leader(leader) = &mut raft.role else { panic!("it leads") };
            (leader.full_since, leader.passed_over) =
                (Some((since, sought)), Some(node(passed_over)));
            raft.give_way();
            assert_eq!(
                (raft.marks.has(Mark::GaveWayForRoom), raft.is_handing_over()),
                (gives_way, gives_way)
            );
            raft.messages.clear();
            raft.hand_over();
            let asked: Vec<_> = raft.messages.iter().map(|message| message.head.to).collect();
            assert_eq!(asked, [node(5 - passed_over)][..usize::from(gives_way)]);
        }
    }
}
