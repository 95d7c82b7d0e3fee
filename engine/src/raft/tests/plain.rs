//! What ends plain turns of a node that does nothing but replicate, each by itself.
//!
//! Most of it is hidden from whoever looks at what a node does: what a node waits for comes with an
//! event, and nearly all of them end plain turns as well.

use super::{
    super::{
        gate::Gate,
        proposal::Tracked,
        rest::Rest,
        role::{Follower, Leader},
    },
    changes::member,
    *,
};
use crate::{Runs, change::Change, storage::Receiving, types::SnapshotName};

type Disturbance = (&'static str, fn(&mut Raft));

/// Whether the turns of node 1, which leads, or of another one are plain when this is so.
fn is_plain(id: u64, disturb: impl FnOnce(&mut Raft)) -> bool {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(300 * MS);
    let raft = &mut cluster.at(id).raft;
    disturb(raft);
    raft.look_around();
    raft.is_plain()
}

fn leader(raft: &mut Raft) -> &mut Leader {
    match &mut raft.role {
        Role::Leader(leader) => leader,
        other => panic!("{other:?}"),
    }
}

fn follower(raft: &mut Raft) -> &mut Follower {
    match &mut raft.role {
        Role::Follower(follower) => follower,
        other => panic!("{other:?}"),
    }
}

fn members(raft: &mut Raft) -> &mut Membership {
    Arc::make_mut(&mut raft.membership)
}

#[test]
fn a_leader_that_does_more_than_replicate_has_no_plain_turns() {
    assert!(is_plain(1, |_| {}));
    let disturbances: [Disturbance; 5] = [
        ("it asks who is added which life of it this is", |raft| {
            raft.on_change(RequestId(5), &[Change::AddLearner(member(4))]);
            raft.around.is_news = false;
        }),
        ("it offers rest", |raft| leader(raft).quiet.is_offered = true),
        ("it rests", |raft| leader(raft).quiet.is_asleep = true),
        ("it sends a snapshot", |raft| leader(raft).peers[1].transfer = Some(Default::default())),
        ("it is no voter", |raft| members(raft).voters.retain(|voter| voter.id != node(1))),
    ];
    for (what, disturb) in disturbances {
        assert!(!is_plain(1, disturb), "{what}");
    }
}

#[test]
fn a_follower_that_does_more_than_replicate_has_no_plain_turns() {
    assert!(is_plain(2, |_| {}));
    let disturbances: [Disturbance; 4] = [
        ("it has no leader", |raft| {
            follower(raft).leader = None;
            raft.noted = (None, raft.term);
        }),
        ("it was roused", |raft| follower(raft).rest = Rest::Roused(raft.now)),
        ("it forwards", |raft| {
            raft.on_propose(RequestId(5), Timestamp(5), Batch::one(b"b"));
            raft.forward();
        }),
        ("what it forwarded is in the log", |raft| {
            let (id, at) = (raft.log.last(), raft.now);
            raft.tracking.push(Tracked { id, bytes: 0, runs: Runs::None, at });
        }),
    ];
    for (what, disturb) in disturbances {
        assert!(!is_plain(2, disturb), "{what}");
    }
}

#[test]
fn a_node_whose_members_have_changed_has_plain_turns_again() {
    let changed = |raft: &mut Raft| {
        members(raft).at = id(1, 1);
        raft.around.settled = id(1, 1);
    };
    assert!(is_plain(1, changed) && is_plain(2, changed));
}

/// What every write changes is looked at in plain turns as well; of all else they are to hear.
#[test]
fn what_a_write_changes_on_disk_is_no_news() {
    let mut cluster = Cluster::led(3);
    let raft = &mut cluster.at(1).raft;
    let is_told = |raft: &Raft, change: fn(&mut Facts)| {
        let mut facts = raft.facts;
        change(&mut facts);
        raft.is_told(facts)
    };
    assert!(is_told(raft, |_| {}));
    assert!(is_told(raft, |facts| facts.durable = LogIndex(99)));
    assert!(is_told(raft, |facts| facts.saturated ^= true));
    assert!(!is_told(raft, |facts| facts.full ^= true));
    assert!(!is_told(raft, |facts| facts.hole = Some(id(1, 1))));
}

/// Else no turn is plain.
#[test]
fn who_has_nothing_to_do_is_quiet_for_a_while() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    for id in 1..=3 {
        let now = cluster.now;
        assert!(cluster.at(id).raft.quiet_until().is_some_and(|until| until > now));
    }
}

#[test]
fn a_node_whose_members_change_has_no_plain_turns() {
    let disturbances: [Disturbance; 6] = [
        ("they are not committed", |raft| {
            members(raft).at = id(1, 99);
            raft.around.settled = id(1, 99);
        }),
        ("it does not know that they are", |raft| raft.around.settled = id(1, 1)),
        ("they are joint", |raft| members(raft).outgoing.push(member(3))),
        ("nobody was told of them", |raft| raft.around.is_news = true),
        ("somebody left a moment ago", |raft| raft.around.linger_until = Some(raft.now)),
        ("it is none", |raft| {
            let (own, at) = (raft.identity.node, id(1, 1));
            let members = members(raft);
            members.voters.retain(|voter| voter.id != own);
            (members.at, members.used) = (at, node(3));
            raft.around.settled = at;
        }),
    ];
    for (what, disturb) in disturbances {
        assert!(!is_plain(2, disturb), "{what}");
    }
}

#[test]
fn a_node_that_waits_for_something_has_no_plain_turns() {
    let disturbances: [Disturbance; 15] = [
        ("its vote is not on disk", |raft| raft.facts.promised.1 = Some(node(3))),
        ("its role was not told", |raft| raft.noted = (None, raft.term)),
        ("a snapshot comes", |raft| {
            let (at, id) = (id(1, 9), SnapshotId(1));
            let snapshot = SnapshotName { at, id, bytes: 9, digest: 0 };
            let (next, stored, is_whole) = (0, 0, false);
            raft.facts.receiving = Some(Receiving { snapshot, next, stored, is_whole });
        }),
        ("it asks for an entry", |raft| raft.observe_hole(Some(id(1, 1)))),
        ("it owes entries", |raft| raft.facts.owes_entries = true),
        ("its state is lost", |raft| raft.facts.is_state_lost = true),
        ("its machine is restored", |raft| raft.applying.restored = false),
        ("a snapshot takes the log's place", |raft| raft.receiver.taking = Some(id(1, 9))),
        ("it is gated", |raft| raft.gate = Some(Gate::new([1, 1]))),
        ("it hands over", |raft| raft.on_transfer(RequestId(5), Some(node(2)))),
        ("somebody reads", |raft| {
            raft.on_read(Requests::one(RequestId(5)), ReadMode::Linearizable);
        }),
        ("it owes an answer", |raft| {
            let head = raft.head_to(node(2));
            raft.owed.push(Message { head, payload: Payload::TimeoutNow });
        }),
        ("it ends", |raft| raft.halt = Some(Halt::Removed)),
        ("it wants its vote on disk", |raft| raft.promise_wanted = true),
        ("it wants what was staged removed", |raft| raft.discards = true),
    ];
    for (what, disturb) in disturbances {
        assert!(!is_plain(1, disturb), "{what}");
    }
}

#[test]
fn a_calm_node_wants_nothing_stored_or_read() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    assert!(cluster.nodes.iter().all(|node| !node.raft.wants()));
}
