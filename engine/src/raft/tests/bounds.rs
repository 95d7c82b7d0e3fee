//! What is counted against a bound is given back, however it ends: else there would be no room one day.

use super::{super::proposal::Cost, *};

impl Cluster {
    fn cost(&mut self, id: u64) -> Cost {
        let raft = &self.at(id).raft;
        raft.gathering.cost() + raft.tracking.cost() + raft.forwards.cost()
    }
}

#[test]
fn what_is_given_up_costs_nothing_any_more() {
    let mut cluster = Cluster::led(3);
    cluster.isolate(1);
    cluster.propose(1, 10, &["a", "b"]);
    cluster.propose(2, 20, &["c"]);
    cluster.run();
    assert!((1..=2).all(|id| cluster.cost(id) != Cost::default()));
    cluster.nodes.iter_mut().for_each(|node| node.raft.draw_patience());
    cluster.elapse(5_000 * MS);
    let unknown = |ids: &[u64]| ids.iter().map(|id| (*id, Outcome::Unknown)).collect::<Vec<_>>();
    assert_eq!(cluster.at(1).ended, unknown(&[10, 11]), "it leads no more");
    assert_eq!(cluster.at(2).ended, unknown(&[20]), "whom it asked is gone");
    for id in 1..=2 {
        assert_eq!(cluster.cost(id), Cost::default(), "node {id}");
    }
}

#[test]
fn what_is_applied_or_refused_costs_nothing_any_more() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 10, &["a", "b"]);
    cluster.propose(2, 20, &["c"]);
    cluster.run();
    cluster.at(1).disk.full = true;
    cluster.settle(1);
    cluster.propose(2, 30, &["d"]);
    cluster.elapse(300 * MS);
    assert_eq!(commands(cluster.at(2)).iter().filter(|(_, id)| *id == Some(20)).count(), 1);
    assert_eq!(cluster.at(2).ended, [(30, Outcome::Refused(Refusal::DiskFull))]);
    for id in 1..=2 {
        assert_eq!(cluster.cost(id), Cost::default(), "node {id}");
    }
}

/// With every link that breaks there would be less on its way at one time.
#[test]
fn what_was_on_its_way_when_a_link_broke_leaves_the_whole_window() {
    let mut cluster = Cluster::led(3);
    let window = cluster.tuning.inflight_bytes_max;
    let room = |cluster: &mut Cluster| match &cluster.at(1).raft.role {
        Role::Leader(leader) => leader.peers[0].room(window),
        other => panic!("{other:?}"),
    };
    cluster.isolate(2);
    cluster.propose(1, 1, &["a"]);
    cluster.run();
    assert!(room(&mut cluster) < window);
    cluster.at(1).raft.on_link(node(2), false);
    assert_eq!(room(&mut cluster), window);
    cluster.cut.clear();
    cluster.at(1).raft.on_link(node(2), true);
    cluster.elapse(300 * MS);
    assert_eq!(cluster.at(2).ids(), cluster.at(1).ids());
    assert_eq!(room(&mut cluster), window);
}

/// It commits with others' disks, and is fed from them should its own lose what was not durable.
#[test]
fn what_a_leaders_own_disk_does_not_hold_others_keep_for_it() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    cluster.at(1).disk.lazy = true;
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(300 * MS);
    assert_eq!(cluster.at(1).raft.committed(), LogIndex(2));
    assert_eq!([1, 2].map(|id| cluster.at(id).raft.retained()), [LogIndex(2); 2]);
}
