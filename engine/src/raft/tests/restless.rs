//! What keeps a group from resting, each by itself.

use super::{
    super::{
        gate::Gate,
        progress::{Pace, Peer},
        proposal::Tracked,
    },
    rests::resting,
    *,
};
use crate::Runs;

/// Whether a leader to whom all others have said that they rest does so too, when this is so.
fn rests(disturb: impl FnOnce(&mut Raft)) -> bool {
    rests_among(3, disturb)
}

fn rests_among(nodes: u64, disturb: impl FnOnce(&mut Raft)) -> bool {
    let mut cluster = resting(nodes);
    let raft = &mut cluster.at(1).raft;
    disturb(raft);
    let Role::Leader(leader) = &mut raft.role else { panic!("it leads") };
    (leader.quiet.is_offered, leader.quiet.is_asleep) = (true, false);
    raft.stray();
    raft.rest();
    raft.is_asleep()
}

fn peers(raft: &mut Raft) -> &mut [Peer] {
    match &mut raft.role {
        Role::Leader(leader) => &mut leader.peers,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_leader_that_lacks_or_owes_something_does_not_rest() {
    assert!(rests(|_| {}));
    type Disturbance = (&'static str, fn(&mut Raft));
    let disturbances: [Disturbance; 10] = [
        ("it is gated", |raft| raft.gate = Some(Gate::new([1, 1]))),
        ("it asks for an entry", |raft| raft.observe_hole(Some(id(2, 1)))),
        ("it owes entries", |raft| raft.facts.owes_entries = true),
        ("its state is lost", |raft| raft.facts.is_state_lost = true),
        ("its vote is not on disk", |raft| raft.facts.promised.1 = None),
        ("somebody waits for an entry", |raft| {
            let (id, at) = (raft.log.last(), raft.now);
            raft.tracking.push(Tracked { id, bytes: 0, runs: Runs::None, at });
        }),
        ("somebody reads", |raft| {
            raft.on_read(Requests::one(RequestId(5)), ReadMode::Linearizable);
        }),
        ("it owes an answer", |raft| {
            let head = raft.head_to(node(2));
            raft.owed.push(Message { head, payload: Payload::TimeoutNow });
        }),
        ("it hands over", |raft| raft.on_transfer(RequestId(5), Some(node(2)))),
        ("somebody left a moment ago", |raft| raft.around.linger_until = Some(raft.now)),
    ];
    for (what, disturb) in disturbances {
        assert!(!rests(disturb), "{what}");
    }
}

#[test]
fn a_leader_whose_peer_lacks_something_does_not_rest() {
    type Disturbance = (&'static str, fn(&mut Peer));
    let disturbances: [Disturbance; 5] = [
        ("it does not say that it rests", |peer| peer.rests = false),
        ("it is asked where it agrees", |peer| peer.pace = Pace::Probe { asked: true }),
        ("it lacks an entry", |peer| peer.matched = peer.matched.previous()),
        ("it lacks word of a commit", |peer| peer.commit_sent = peer.commit_sent.previous()),
        ("it is sent a snapshot", |peer| peer.transfer = Some(Default::default())),
    ];
    for (what, disturb) in disturbances {
        assert!(!rests(|raft| disturb(&mut peers(raft)[0])), "{what}");
        let gone = |raft: &mut Raft| {
            let peer = &mut peers(raft)[0];
            disturb(peer);
            peer.paused = true;
        };
        assert!(rests(gone), "{what}, and is gone");
    }
}

/// Nobody would notice that another one leads by now.
#[test]
fn a_leader_does_not_rest_without_a_quorum() {
    for (nodes, gone, may_rest) in [(3, 1, true), (3, 2, false), (5, 2, true), (5, 3, false)] {
        let leave = |raft: &mut Raft| {
            peers(raft)[..gone].iter_mut().for_each(|peer| peer.paused = true);
        };
        assert_eq!(rests_among(nodes, leave), may_rest, "{gone} of {nodes} are gone");
    }
}
