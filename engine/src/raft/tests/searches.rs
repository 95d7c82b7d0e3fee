//! For what a disk has lost: whom a leader asks how often, and who is told that it is gone.

use super::*;
use crate::storage::Reader;

/// Whom it asked twice does not have it: that goes for each of those who may. What is committed others have, and who
/// has it applied leads on without.
#[test]
fn a_leader_asks_everybody_twice_before_it_makes_room() {
    for nodes in [3, 5] {
        for is_committed in [false, true] {
            let mut cluster = Cluster::led(nodes);
            cluster.propose(1, 1, &["a"]);
            cluster.elapse(300 * MS);
            let raft = &mut cluster.at(1).raft;
            let committed = raft.log.marks.committed();
            assert_eq!(raft.log.marks.applying(), committed);
            let at = LogId::new(raft.term, LogIndex(committed.0 + u64::from(!is_committed)));
            raft.facts.hole = Some(at);
            raft.observe_hole(Some(at));
            raft.messages.clear();
            for _ in 0..3 * nodes {
                raft.on_time(raft.now.after(raft.tuning.heartbeat));
                if matches!(raft.role, Role::Leader(_)) {
                    raft.refill();
                }
            }
            let is_question =
                |message: &&Message| matches!(message.payload, Payload::RefillAsk { .. });
            let asked = raft.messages.iter().filter(is_question).count() as u64;
            let expected = if is_committed { 3 * nodes } else { 2 * (nodes - 1) + 1 };
            assert_eq!(asked, expected, "{nodes} nodes, committed: {is_committed}");
        }
    }
}

/// Else whoever asks would ask again and again, and never take a snapshot for it.
#[test]
fn whoever_asks_for_what_a_snapshot_here_stands_for_is_told_that_it_is_gone() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(300 * MS);
    let raft = &mut cluster.at(1).raft;
    let at = raft.log.last();
    raft.messages.clear();
    let back = ReadBack { first: at.index, last: at.index.previous(), frames: Bytes::new() };
    raft.on_read_back(Reader::Refill(node(2)), back);
    let [Message { payload: Payload::Refill(told), .. }] = &raft.messages[..] else {
        panic!("{:?}", raft.messages)
    };
    assert_eq!((told.gone, told.frames.len()), (at, 0));
}
