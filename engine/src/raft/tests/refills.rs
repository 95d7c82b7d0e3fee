//! Entries that a disk has lost and a peer gives again.

use super::*;
use crate::{
    change::{Change as Members, ChangeRefusal},
    message::Refill,
    raft::log::Change,
    types::SnapshotName,
};

/// Disks in term 1 with logs of these lengths.
fn disks(lengths: [usize; 3]) -> Vec<Disk> {
    lengths.map(|entries| disk_with(1, &vec![1; entries], 3)).into()
}

/// storage.md, counterexamples: the damaged one is ahead, so the other cannot be elected; and it
/// does not stand itself. What it lacks comes from a node that leads nobody.
#[test]
fn two_nodes_of_which_the_damaged_one_is_ahead_elect() {
    let mut cluster = Cluster::new({
        let mut disks = disks([4, 3, 1]);
        disks[0].lose(2);
        disks
    });
    cluster.isolate(3);
    cluster.elapse(10_000 * MS);
    assert_eq!(cluster.at(1).disk.holes, []);
    assert_eq!(cluster.at(1).role(), status::Role::Leader);
    assert!(cluster.at(2).has(Mark::RefillGiven));
    assert_eq!(cluster.at(1).raft.committed(), cluster.at(2).raft.committed());
    assert!(cluster.at(1).raft.committed() > LogIndex(4));
    assert_eq!(cluster.at(2).applied.len(), 4, "all four, and the empty one of the new term");
}

/// Two voters, both there, of which the one that is ahead has lost the bytes of what nobody else ever had: it could
/// not lead, and nobody else was let.
#[test]
fn one_of_two_voters_lets_the_other_lead_without_what_it_alone_has_lost() {
    let cluster = |theirs: &[u64]| {
        let mut disks = vec![disk_with(1, &[1, 1, 1], 2), disk_with(1, theirs, 2)];
        disks[0].lose(3);
        Cluster::new(disks)
    };
    let leads = |node: &Node| node.role() == status::Role::Leader;
    let mut lost = cluster(&[1, 1]);
    lost.elapse(10_000 * MS);
    assert!(leads(&lost.nodes[1]) && lost.at(1).has(Mark::RefillInVain));
    assert_eq!(lost.nodes[0].ids(), lost.nodes[1].ids());
    assert_eq!(lost.nodes[0].ids()[2], id(lost.nodes[1].raft.term.0, 3), "it goes");
    // Who has it gives it.
    let mut given = cluster(&[1, 1, 1]);
    given.elapse(10_000 * MS);
    assert_eq!(given.nodes[0].ids()[2], id(1, 3));
    assert!(given.nodes.iter().any(leads));
    // Whether it may be there elsewhere is not known where the other is away, or where others vote.
    let mut unheard = cluster(&[1, 1]);
    unheard.isolate(2);
    unheard.elapse(10_000 * MS);
    assert!(!unheard.at(1).raft.is_lost_for_good(node(3), LogId::ZERO));
    let disks = [3, 2, 2].map(|entries| disk_with(1, &vec![1; entries], 3));
    let mut three = Cluster::new(disks.into());
    three.at(1).disk.lose(3);
    three.crash(1);
    three.elapse(10_000 * MS);
    assert!((1..=3).all(|id| !three.at(1).raft.is_lost_for_good(node(id), LogId::ZERO)));
}

/// Voters of whom the first has come so far with a change, when its disk loses what nobody else was told of.
fn changing([voters, nodes]: [u64; 2], change: Members, is_far: fn(&Cluster) -> bool) -> Cluster {
    let mut cluster = changes::joined(voters, nodes);
    if voters < nodes {
        cluster.changed(1, 100, &[Members::AddLearner(changes::member(nodes))]);
        cluster.elapse(300 * MS);
    }
    cluster.change(1, 101, &[change]);
    cluster.settle(1);
    while !is_far(&cluster) {
        let (from, message) = cluster.queue.pop_front().expect("it comes so far");
        cluster.deliver(from, message);
    }
    cluster.propose(1, 1, &["lost"]);
    cluster.settle(1);
    cluster.queue.clear();
    let last = cluster.at(1).disk.log.len() as u64;
    cluster.at(1).disk.lose(last);
    cluster.crash(1);
    cluster
}

/// The model in explore/tests/two_voters.rs: nobody could lead while two voters became one or three, or three two.
#[test]
fn two_voters_that_are_changed_let_each_other_lead() {
    let at_one = |cluster: &Cluster| !cluster.nodes[0].raft.membership.outgoing.is_empty();
    let left = |cluster: &Cluster| cluster.nodes[0].raft.membership.outgoing.is_empty();
    let everywhere = |cluster: &Cluster| {
        cluster.nodes.iter().all(|node| !node.raft.membership.outgoing.is_empty())
    };
    for mut cluster in [
        changing([2, 3], Members::Promote(node(3)), at_one),
        changing([2, 2], Members::Remove(node(2)), at_one),
        changing([2, 2], Members::Remove(node(1)), at_one),
        changing([2, 2], Members::Remove(node(1)), left),
        changing([3, 3], Members::Remove(node(3)), everywhere),
        changing([3, 3], Members::Remove(node(3)), left),
    ] {
        cluster.elapse(10_000 * MS);
        let leads = |node: &Node| node.role() == status::Role::Leader;
        assert!(cluster.nodes.iter().any(leads), "{:?}", cluster.at(1).raft.membership);
    }
}

/// What lies before the entry by which they are two the third may have, and it may be committed.
#[test]
fn one_of_two_voters_to_be_lets_nobody_lead_without_what_the_third_has() {
    let mut cluster = changes::joined(3, 3);
    cluster.cut.insert((node(1), node(2)));
    cluster.propose(1, 1, &["committed"]);
    cluster.run();
    assert_eq!(cluster.at(1).raft.committed(), LogIndex(2));
    cluster.isolate(3);
    cluster.change(1, 101, &[Members::Remove(node(3))]);
    cluster.settle(1);
    assert!(!cluster.at(1).raft.membership.outgoing.is_empty());
    cluster.queue.clear();
    cluster.at(1).disk.lose(2);
    cluster.crash(1);
    cluster.cut.remove(&(node(1), node(2)));
    cluster.elapse(10_000 * MS);
    let leads = |node: &Node| node.role() == status::Role::Leader;
    assert!(!cluster.nodes.iter().any(leads), "the third alone has what is committed");
    cluster.cut.clear();
    cluster.elapse(10_000 * MS);
    assert!(cluster.nodes.iter().any(leads) && cluster.nodes[1].ids()[1] == id(2, 2));
}

/// All whom it knew have left meanwhile: it asked nobody else, and took no other members before it had the entry.
#[test]
fn who_was_away_asks_its_leader_though_it_does_not_know_it() {
    let mut cluster = changes::joined(1, 3);
    cluster.propose(1, 1, &["a"]);
    cluster.changed(1, 100, &[Members::AddLearner(changes::member(2))]);
    cluster.elapse(300 * MS);
    let lost = cluster.nodes[1].raft.membership.at.index.previous();
    assert!(lost > LogIndex(0), "it is a member, and has what lies before");
    cluster.isolate(2);
    cluster.changed(1, 101, &[Members::AddLearner(changes::member(3))]);
    cluster.elapse(300 * MS);
    cluster.changed(1, 102, &[Members::Promote(node(3)), Members::Remove(node(1))]);
    cluster.elapse(10_000 * MS);
    assert_eq!(cluster.at(3).role(), status::Role::Leader);
    assert_eq!(cluster.voters(3), (vec![3], vec![]));
    cluster.cut.clear();
    cluster.isolate(1);
    cluster.at(2).disk.lose(lost.0);
    cluster.crash(2);
    cluster.elapse(10_000 * MS);
    assert_eq!(cluster.at(2).disk.holes, []);
    assert_eq!(cluster.nodes[1].ids(), cluster.nodes[2].ids());
}

/// storage.md, counterexamples: two different entries are damaged on two nodes, the third is away.
#[test]
fn two_nodes_that_lack_different_entries_elect() {
    let mut cluster = Cluster::new({
        let mut disks = disks([6, 6, 1]);
        disks[0].lose(2);
        disks[0].lose(3);
        disks[1].lose(5);
        disks
    });
    cluster.isolate(3);
    cluster.elapse(10_000 * MS);
    assert!(cluster.nodes.iter().all(|node| node.disk.holes.is_empty()));
    let leads = |node: &Node| node.role() == status::Role::Leader;
    assert_eq!(cluster.nodes.iter().filter(|node| leads(node)).count(), 1);
    assert_eq!(cluster.at(1).ids(), cluster.at(2).ids());
    assert!(cluster.at(1).raft.committed() > LogIndex(6));
}

#[test]
fn nothing_behind_a_hole_is_acknowledged_and_nobody_with_one_stands() {
    let mut cluster = Cluster::new({
        let mut disks = disks([4, 4, 4]);
        disks[1].lose(3);
        disks
    });
    // Nobody gives it anything.
    cluster.at(2).raft.patience = Duration::ZERO;
    for to in [1, 3] {
        cluster.cut.insert((node(2), node(to)));
    }
    cluster.pass(5_000 * MS);
    cluster.settle(2);
    assert_eq!(cluster.at(2).role(), status::Role::Follower);
    cluster.elect(1);
    let acknowledged = |cluster: &mut Cluster| {
        cluster.propose(1, 1, &["a"]);
        cluster.pass(cluster.tuning.heartbeat.as_nanos() as u64);
        cluster.settle(1);
        let sent: Vec<_> = cluster.queue.drain(..).collect();
        sent.into_iter().for_each(|(from, message)| cluster.deliver(from, message));
        let answers = cluster.queue.drain(..).filter_map(|(from, message)| match message.payload {
            Payload::AppendAnswer(answer) if from == node(2) => Some(answer.durable),
            _ => None,
        });
        answers.max()
    };
    assert_eq!(acknowledged(&mut cluster), Some(LogIndex(2)));
    cluster.cut.clear();
    cluster.elapse(1_000 * MS);
    assert_eq!(cluster.at(2).disk.holes, []);
    assert!(acknowledged(&mut cluster) > Some(LogIndex(4)));
}

/// It found out when it led already, and it is in no other log: it can hand on nothing that lies behind.
#[test]
fn a_leader_that_has_lost_what_nobody_has_makes_room() {
    let mut cluster = Cluster::new({
        let mut disks = disks([6, 4, 4]);
        disks[0].lose_unseen(5);
        disks
    });
    cluster.elect(1);
    assert_eq!(cluster.at(1).disk.holes, [LogIndex(5)], "it read it to hand it on");
    cluster.elapse(3 * cluster.tuning.heartbeat.as_nanos() as u64);
    assert!(!cluster.at(1).has(Mark::RefillInVain), "whom it asked last may still answer");
    cluster.elapse(cluster.tuning.heartbeat.as_nanos() as u64);
    assert!(cluster.at(1).has(Mark::RefillInVain), "all were asked twice: nobody else ever had it");
    cluster.nodes.iter_mut().for_each(|node| node.raft.draw_patience());
    cluster.elapse(10_000 * MS);
    assert!(cluster.at(1).has(Mark::RefillInVain));
    assert_eq!(cluster.at(1).disk.holes, [], "it was cut");
    assert_eq!(cluster.at(1).ids(), cluster.at(2).ids());
    assert!(cluster.at(1).raft.committed() > LogIndex(4));
}

/// It is committed then, though this leader may not know yet. It was elected again and again, for nobody else has
/// as much of the log, and each time it made room as if nobody had what it had lost.
#[test]
fn a_leader_leads_on_if_what_it_has_lost_is_in_a_peers_state() {
    for is_state in [false, true] {
        let mut cluster = Cluster::new({
            let mut disks = disks([6, 4, 4]);
            disks[0].lose_unseen(5);
            disks
        });
        cluster.elect(1);
        let gone = cluster.at(1).raft.facts.hole.expect("it read it to hand it on");
        assert!(gone.index > cluster.at(1).raft.committed());
        if is_state {
            let head = cluster.at(2).raft.head_to(node(1));
            let gone = Refill { gone, ..Refill::default() };
            cluster.deliver(node(2), Message { head, payload: Payload::Refill(gone) });
        }
        let term = cluster.at(1).raft.term;
        cluster.elapse(6 * cluster.tuning.heartbeat.as_nanos() as u64);
        assert_eq!(cluster.at(1).raft.term, term);
        assert_eq!(cluster.at(1).role() == status::Role::Leader, is_state);
    }
}

/// A peer that has another entry there, or none, gives nothing.
#[test]
fn only_the_same_entry_is_given() {
    let mut cluster = Cluster::new({
        let mut disks = vec![disk_with(3, &[1, 2, 2], 3), disk_with(3, &[1, 3], 3)];
        disks.push(disk_with(3, &[1], 3));
        disks[0].lose(2);
        disks
    });
    cluster.run();
    let asks = |cluster: &mut Cluster| {
        cluster.pass(cluster.tuning.heartbeat.as_nanos() as u64);
        cluster.settle(1);
        let asked: Vec<_> = cluster.queue.drain(..).collect();
        asked.into_iter().for_each(|(from, message)| cluster.deliver(from, message));
        let given: Vec<_> =
            cluster.queue.drain(..).map(|(from, message)| (from, message.payload)).collect();
        assert!(matches!(&given[..], [(_, Payload::Refill(given))] if given.frames.is_empty()));
        given[0].0
    };
    let asked = [asks(&mut cluster), asks(&mut cluster)];
    assert!(asked.contains(&node(2)) && asked.contains(&node(3)), "in turn: {asked:?}");
    assert_eq!(cluster.at(1).disk.holes, [LogIndex(2)]);
}

/// What is gone elsewhere is known of one entry; of the next one nothing is, even where the same word
/// comes late.
#[test]
fn word_of_one_entry_says_nothing_of_another() {
    let mut cluster = Cluster::new({
        let mut disks = disks([4, 4, 4]);
        disks[0].lose(2);
        disks[0].lose(3);
        disks
    });
    (1..=3).for_each(|id| cluster.settle(id));
    let at = |index| LogId::new(Term(1), LogIndex(index));
    let tell = |cluster: &mut Cluster, gone| {
        let given = Refill { gone, ..Refill::default() };
        let head = cluster.at(2).raft.head_to(node(1));
        cluster.deliver(node(2), Message { head, payload: Payload::Refill(given) });
        cluster.at(1).raft.is_gone()
    };
    assert!(!tell(&mut cluster, at(3)));
    assert!(tell(&mut cluster, at(2)));
    cluster.at(1).disk.holes.retain(|hole| *hole != LogIndex(2));
    cluster.settle(1);
    assert!(!cluster.at(1).raft.is_gone());
    assert!(!tell(&mut cluster, at(2)));
    assert!(tell(&mut cluster, at(3)));
}

/// Node 1 leads what it and node 2 hold; node 3 has less, and hears of nothing yet.
fn led_by_two(lengths: [usize; 3]) -> Cluster {
    let mut cluster = Cluster::new(disks(lengths));
    cluster.isolate(3);
    cluster.elect(1);
    for node in &mut cluster.nodes {
        node.raft.draw_patience();
        node.disk.owes_nothing = true;
    }
    cluster
}

/// The only other one that has it is gone, and who is left lacks it: without a snapshot of what the machine
/// holds nothing would ever be committed again.
#[test]
fn a_leader_whose_machine_holds_what_nobody_gives_stands_for_it_with_a_snapshot() {
    let mut cluster = led_by_two([6, 6, 3]);
    assert_eq!(cluster.at(1).raft.applied(), LogIndex(7), "its machine has come as far");
    cluster.at(1).disk.lose_unseen(5);
    cluster.cut.clear();
    cluster.isolate(2);
    cluster.elapse(5_000 * MS);
    assert_eq!(cluster.at(1).disk.holes, [LogIndex(5)], "nobody gives it");
    assert_eq!(cluster.at(1).role(), status::Role::Leader);
    assert!(cluster.at(3).disk.log.len() < 5, "and it cannot be handed on");
    assert!(cluster.at(1).raft.wants_own_snapshot());
    // One who is not there, does not lack it, or is sent a snapshot as it is, needs none.
    let unneeding: [fn(&mut progress::Peer); 4] = [
        |peer| peer.paused = true,
        |peer| peer.has_answered = false,
        |peer| peer.matched = LogIndex(5),
        |peer| peer.transfer = Some(Default::default()),
    ];
    for is_so in unneeding {
        let mut raft = cluster.at(1).raft.clone();
        let Role::Leader(leader) = &mut raft.role else { panic!("it leads") };
        is_so(leader.peer(node(3)).expect("it is a member"));
        assert!(!raft.wants_own_snapshot());
    }
    cluster.cut.clear();
    cluster.elapse(500 * MS);
    assert!(!cluster.at(1).raft.wants_own_snapshot(), "who has it came back");
}

/// Its machine waits for it as well: it can neither hand on nor apply, and who asks it would wait for ever.
#[test]
fn a_leader_that_waits_for_what_nobody_gives_makes_room() {
    let mut cluster = led_by_two([6, 6, 3]);
    cluster.at(2).disk.lazy = true;
    cluster.propose(1, 10, &["a"]);
    cluster.run();
    cluster.at(1).disk.lose_unseen(8);
    cluster.at(1).raft.log.evict(0);
    cluster.cut.insert((node(1), node(2)));
    assert!(cluster.at(2).disk.sync());
    cluster.run();
    assert_eq!(cluster.at(1).raft.committed(), LogIndex(8));
    assert_eq!(cluster.at(1).disk.holes, [LogIndex(8)], "its machine came upon it");
    cluster.elapse(100 * MS);
    assert!(!cluster.at(1).raft.is_handing_over(), "nobody has said that it is gone there");
    cluster.cut.clear();
    cluster.isolate(2);
    cluster.elapse(10_000 * MS);
    assert_eq!(cluster.at(1).ended, [(10, Outcome::Unknown)]);
    cluster.cut.clear();
    cluster.elapse(10_000 * MS);
    assert_eq!(cluster.at(1).disk.holes, [], "who has it came back");
    assert!((1..=3).all(|id| cluster.at(id).raft.committed() > LogIndex(8)));
}

/// A snapshot holds what is lost as well: it is done without where nobody who can be reached has it, and
/// only as long.
#[test]
fn what_a_snapshot_holds_is_asked_for_where_somebody_may_have_it() {
    let mut cluster = Cluster::new({
        let mut disks = disks([4, 4, 4]);
        disks[0].lose(2);
        disks
    });
    (1..=3).for_each(|id| cluster.settle(id));
    let gone = Refill { gone: LogId::new(Term(1), LogIndex(2)), ..Refill::default() };
    let message =
        Message { head: cluster.at(2).raft.head_to(node(1)), payload: Payload::Refill(gone) };
    cluster.deliver(node(2), message);
    let raft = &mut cluster.at(1).raft;
    raft.on_link(node(2), true);
    raft.on_link(node(3), false);
    assert!(!raft.is_content(), "no snapshot holds it");
    raft.facts.newest = LogIndex(3);
    for (up, is_content) in [(true, false), (false, true), (true, false)] {
        raft.on_link(node(2), true);
        raft.on_link(node(3), up);
        assert_eq!(raft.is_content(), is_content, "node 3 can be reached: {up}");
        assert_eq!(raft.refill_at().is_none(), is_content, "nobody is woken to ask nobody");
    }
}

/// Once, until the newest snapshot here is that one: then another may come.
#[test]
fn a_snapshot_joins_the_log_that_lacks_one() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 1, &["a", "b"]);
    cluster.elapse(300 * MS);
    let raft = &mut cluster.at(2).raft;
    let snapshot = SnapshotName { at: raft.log.last(), bytes: 1, ..SnapshotName::default() };
    raft.facts.is_state_lost = true;
    raft.facts.receiving = Some(Receiving { snapshot, next: 1, stored: 1, is_whole: true });
    raft.stray();
    for _ in 0..3 {
        raft.install();
        assert!(raft.is_joining());
    }
    let joins = raft.log.changes().drain(..).filter(|change| matches!(change, Change::Join(_)));
    assert_eq!(joins.count(), 1);
    (raft.facts.newest, raft.facts.receiving) = (snapshot.at.index, None);
    raft.install();
    assert!(!raft.is_joining());
}

/// A node whose machine holds entry 2, which its disk has lost: what it does, if its leader or somebody else has
/// said that it is gone there, if a snapshot holds it, and if it owes it.
#[test]
fn what_is_gone_at_the_leader_is_stood_for_by_a_snapshot() {
    let after = |gone_at: Option<u64>, newest: u64, owes: bool| {
        let mut cluster = Cluster::led(3);
        cluster.propose(1, 1, &["a"]);
        cluster.elapse(300 * MS);
        let said = gone_at.map(|from| cluster.at(from).raft.head_to(node(2)));
        let at = id(2, 2);
        let raft = &mut cluster.at(2).raft;
        (raft.facts.hole, raft.facts.newest) = (Some(at), LogIndex(newest));
        raft.facts.owes_entries = owes;
        raft.observe_hole(Some(at));
        if let Some(head) = said {
            let gone = Refill { gone: at, ..Refill::default() };
            raft.on_message(head.from, Message { head, payload: Payload::Refill(gone) });
        }
        assert_eq!(raft.marks.has(Mark::RefillInVain), gone_at == Some(1));
        (raft.wants_own_snapshot(), raft.lacks_state())
    };
    assert_eq!(after(Some(1), 0, false), (true, false), "its own machine has it");
    assert_eq!(after(Some(1), 0, true), (false, true), "it must be given the state");
    assert_eq!(after(Some(1), 2, false), (false, false), "a snapshot stands for it");
    assert_eq!(after(Some(1), 2, true), (false, false), "a snapshot stands for it");
    for owes in [false, true] {
        assert_eq!(after(Some(3), 0, owes), (false, false), "the leader may have it");
        assert_eq!(after(None, 0, owes), (false, false), "nobody was heard");
    }
}

/// On a slow link each question that is put before the answer is there brings a copy of it.
#[test]
fn who_is_answered_late_asks_later() {
    let mut disks = disks([6, 6, 6]);
    for lost in [3, 5] {
        disks[1].lose(lost);
    }
    let tuning = Tuning { append_bytes_max: 100, ..Tuning::default() };
    let mut cluster = Cluster::tuned(disks, tuning);
    let asks = |cluster: &mut Cluster, ms: u64| {
        cluster.pass(ms * MS);
        let said = cluster.said(2);
        said.iter().filter(|(_, said)| matches!(said, Payload::RefillAsk { .. })).count()
    };
    let asked = (0..5).map(|beat| asks(&mut cluster, 100 * u64::from(beat > 0)));
    assert_eq!(asked.sum::<usize>(), 5, "one at each heartbeat");
    let lost = cluster.at(2).disk.holes.clone();
    let frames = cluster.at(1).disk.log[2].1.clone();
    let head = cluster.at(1).raft.head_to(node(2));
    let given = Payload::Refill(Refill { frames, ..Refill::default() });
    cluster.at(2).raft.on_message(node(1), Message { head, payload: given });
    assert_eq!(asks(&mut cluster, 0), 1, "for the next, at once");
    assert_eq!(cluster.at(2).disk.holes, lost[1..]);
    assert_eq!((0..7).map(|_| asks(&mut cluster, 100)).sum::<usize>(), 0);
    assert_eq!(asks(&mut cluster, 100), 1, "after twice what the last answer took");
}

/// What would be refused is not asked for: not at each heartbeat, and not by a timer that has run out.
#[test]
fn nobody_is_asked_before_there_is_room_for_what_it_would_give() {
    let mut cluster = Cluster::new({
        let mut disks = disks([6, 6, 6]);
        disks[1].lose(3);
        disks[1].is_crowded = true;
        disks
    });
    let asks = |cluster: &mut Cluster, ms: u64| {
        cluster.pass(ms * MS);
        let said = cluster.said(2);
        said.iter().filter(|(_, said)| matches!(said, Payload::RefillAsk { .. })).count()
    };
    assert_eq!((0..9).map(|_| asks(&mut cluster, 100)).sum::<usize>(), 0);
    assert_eq!(cluster.at(2).raft.refill_at(), None, "nobody is woken to ask nobody");
    assert!(!cluster.at(2).raft.is_content(), "it is wanted all the same");
    cluster.at(2).disk.is_crowded = false;
    assert_eq!(asks(&mut cluster, 0), 1, "at once");
    assert_eq!(asks(&mut cluster, 100), 1);
    cluster.at(2).disk.is_crowded = true;
    assert_eq!((0..9).map(|_| asks(&mut cluster, 100)).sum::<usize>(), 0);
    assert!(cluster.at(2).raft.refill_at().is_none());
}

/// Alone it would serve on, and refuse its next start: nobody is left who could give what its disk has lost.
#[test]
fn nobody_goes_who_may_be_the_last_to_have_what_is_lost() {
    let alone = [Members::Remove(node(2)), Members::Remove(node(3))];
    let mut cluster = changes::joined(3, 3);
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(300 * MS);
    cluster.at(1).disk.owes_nothing = true;
    cluster.at(1).disk.lose(2);
    cluster.settle(1);
    cluster.change(1, 100, &alone);
    cluster.settle(1);
    let why = cluster.refusal(1, 100);
    assert_eq!(why, ChangeRefusal::Holed(cluster.at(1).ids()[1]));
    assert!(why.to_string().contains("lost entry"), "{why}");
    let mut held = cluster.at(1).raft.clone();
    held.facts.newest = LogIndex(2);
    held.on_change(RequestId(200), &alone);
    let Role::Leader(leader) = &held.role else { panic!("it leads") };
    assert!(leader.changing.is_some(), "a snapshot here holds it");
    // One who stays can give it, with a vote or without, and then the other may go.
    cluster.changed(1, 101, &[Members::Remove(node(2)), Members::Demote(node(3))]);
    cluster.elapse(1000 * MS);
    assert_eq!(cluster.at(1).disk.holes, []);
    cluster.changed(1, 102, &[Members::Remove(node(3))]);
}

/// Whoever was asked last may still answer, and one who is slow as well.
#[test]
fn nothing_is_lost_for_good_before_everybody_had_the_time_to_give_it() {
    let second = Duration::from_secs(1);
    let tuning = Tuning { heartbeat: second, election: (second, second * 2), ..Tuning::default() };
    let all = 3;
    for (times, others, committed, is_lost) in [
        (&[1000, 1000][..], 1, 2, false),
        (&[2001], 1, 2, false),
        (&[1000, 1001], 1, 2, true),
        (&[2001, 1000], 1, 2, true),
        (&[1000, 1001], 1, all, false),
        (&[1000, 1001], 2, 2, false),
        (&[1000, 1000, 1000, 1001], 2, 2, true),
    ] {
        let mut disks = vec![disk_with(1, &[1, 1, 1], 2), disk_with(1, &[1, 1], 2)];
        disks[0].lose(3);
        let mut cluster = Cluster::tuned(disks, tuning.clone());
        let raft = &mut cluster.at(1).raft;
        raft.log.marks.advance_committed(LogIndex(committed));
        raft.peers.extend((1..others).map(|learner| (node(8 + learner), 900)));
        cluster.settle(1);
        for ms in times {
            cluster.pass(ms * MS);
            cluster.settle(1);
        }
        let is_given_up = cluster.at(1).raft.is_lost_for_good(node(2), id(1, 2));
        assert_eq!(is_given_up, is_lost, "{times:?}, {others}, {committed}");
    }
}

/// Two that lack the same one would ask each other for ever: the state of one must stand for it.
#[test]
fn whoever_is_asked_for_what_it_lacks_itself_takes_a_snapshot() {
    for (asked, is_wanted) in [(id(2, 2), true), (id(2, 1), false)] {
        let mut cluster = Cluster::led(3);
        cluster.propose(1, 1, &["a"]);
        cluster.elapse(300 * MS);
        let head = cluster.at(3).raft.head_to(node(2));
        let raft = &mut cluster.at(2).raft;
        raft.facts.hole = Some(id(2, 2));
        raft.observe_hole(raft.facts.hole);
        raft.log.evict(0);
        raft.on_message(node(3), Message { head, payload: Payload::RefillAsk { at: asked } });
        assert_eq!(raft.wants_own_snapshot(), is_wanted, "{asked}");
    }
}

/// It is so for whoever watches, whether the node must have it again or only should.
#[test]
fn a_disk_that_lacks_an_entry_is_told_of_though_it_owes_none() {
    for (hole, owes_entries) in [(None, false), (Some(id(2, 1)), false), (None, true)] {
        let mut cluster = Cluster::led(3);
        let raft = &mut cluster.at(2).raft;
        (raft.facts.hole, raft.facts.owes_entries) = (hole, owes_entries);
        let mut probe = status::Probe::default();
        raft.probe(&mut probe);
        assert_eq!(probe.holed, hole.is_some() || owes_entries);
    }
}
