//! Snapshots that turn out bad, or cannot be read, while a peer is being sent them.

use super::{
    scrubs::{rot, snap, snapshots},
    *,
};

fn two_snapshots() -> Node {
    let mut node = Node::start(Disk::default(), format());
    for round in 1..=2u64 {
        node.append_all(round, sizes());
        node.storage.hint_committed(node.last.index);
        snap(&mut node);
    }
    node
}

/// A node whose machine takes in a snapshot, of which it has sent a peer a piece that is good. What
/// the machine comes to is not. Says how many bytes the peer has.
fn serving_what_it_restores(disk: Disk) -> (Node, u64) {
    let mut config = config();
    config.tuning.restore_bytes_max = 1;
    let mut node = Node::start_behind(&config, disk, Start::Run, 1);
    assert_eq!((node.storage.restored(), &node.halted), (None, &None));
    node.storage.serve(NodeId(2), 0);
    node.settle();
    let (_, piece) = node.storage.take_piece().expect("its beginning is good");
    assert_eq!(Some(&File::Snapshot(piece.snapshot.at)), snapshots(&node).last());
    node.behind = 0;
    node.answer(0);
    node.settle();
    (node, piece.bytes.len() as u64)
}

/// It was sent on from a file that a newer one had removed: the node ended.
#[test]
fn what_turns_out_bad_while_it_is_restored_is_sent_no_more() {
    let mut node = two_snapshots();
    let [older, newest] = snapshots(&node)[..] else { panic!("there are two") };
    rot(&mut node, newest, 60_000);
    let (mut node, sent) = serving_what_it_restores(node.disk);
    assert_eq!(
        (node.storage.restored().map(File::Snapshot), node.storage.is_state_lost()),
        (Some(older), false)
    );
    node.append_all(3, [10, 20]);
    node.storage.hint_committed(node.last.index);
    snap(&mut node);
    assert!(!snapshots(&node).contains(&newest));
    node.storage.serve(NodeId(2), sent);
    node.settle();
    assert_eq!(node.halted, None);
    let next = node.storage.take_piece().map(|(_, piece)| File::Snapshot(piece.snapshot.at));
    assert_eq!(next, snapshots(&node).last().copied(), "it begins anew with another one");
}

/// The same where no other one is left: the state is lost, and the node was too.
#[test]
fn the_last_one_that_turns_out_bad_while_it_is_restored_is_sent_no_more() {
    let mut node = two_snapshots();
    node.append_all(3, sizes());
    node.storage.retain(node.last.index, None);
    node.storage.hint_committed(node.last.index);
    snap(&mut node);
    assert!(node.storage.first() > LogIndex(1), "the log begins behind what is gone");
    let [older, newest] = snapshots(&node)[..] else { panic!("there are two") };
    node.disk.files.remove(&older);
    rot(&mut node, newest, 60_000);
    let (mut node, sent) = serving_what_it_restores(node.disk);
    assert!(node.storage.is_state_lost());
    node.storage.serve(NodeId(2), sent);
    node.settle();
    assert!((node.halted.clone(), node.storage.take_piece().is_none()) == (None, true));
}

/// That was the end of a leader. It is like one that is bad: the other is sent.
#[test]
fn what_cannot_be_read_for_a_peer_does_not_count_any_more() {
    let mut node = two_snapshots();
    let [older, newest] = snapshots(&node)[..] else { panic!("there are two") };
    node.disk.unreadable = Some((newest, 50_000));
    let (mut at, mut sent) = (0, Vec::new());
    loop {
        node.storage.serve(NodeId(2), at);
        node.settle();
        assert_eq!(node.halted, None);
        let Some((_, piece)) = node.storage.take_piece() else { break };
        at = piece.offset + piece.bytes.len() as u64;
        sent.push(File::Snapshot(piece.snapshot.at));
        if at == piece.snapshot.bytes {
            break;
        }
    }
    sent.dedup();
    assert_eq!(sent, [newest, older]);
    assert_eq!(snapshots(&node), [older]);
}

/// Two newer ones would make it superfluous.
#[test]
fn what_a_peer_is_being_sent_stays_until_it_is_sent_no_more() {
    let mut node = Node::start(Disk::default(), format());
    let next = |node: &mut Node| {
        node.append_all(1, [40, 50]);
        node.storage.hint_committed(node.last.index);
        snap(node);
    };
    next(&mut node);
    let [first] = snapshots(&node)[..] else { panic!("there is one") };
    node.storage.serve(NodeId(2), 0);
    node.settle();
    let (_, piece) = node.storage.take_piece().expect("it is good");
    (0..3).for_each(|_| next(&mut node));
    assert_eq!((snapshots(&node).len(), snapshots(&node)[0]), (3, first));
    node.storage.serve(NodeId(2), piece.bytes.len() as u64);
    node.settle();
    let (_, again) = node.storage.take_piece().expect("it is sent on");
    assert_eq!(again.snapshot, piece.snapshot);
    node.storage.keep_serving(&[]);
    next(&mut node);
    assert!(snapshots(&node).len() == 2 && !node.disk.files.contains_key(&first));
}

/// A peer asks at each heartbeat, and a disk may take longer.
#[test]
fn a_piece_that_is_on_its_way_is_not_read_again() {
    let mut node = two_snapshots();
    node.storage.serve(NodeId(2), 0);
    let slow = node.ask();
    assert_eq!(slow.len(), 1, "{slow:?}");
    node.storage.serve(NodeId(2), 0);
    assert!(node.ask().is_empty());
    slow.into_iter().for_each(|action| node.perform(action));
    assert!(node.storage.take_piece().is_some());
}

#[test]
fn the_block_that_is_bad_is_named() {
    let mut node = two_snapshots();
    let [_, newest] = snapshots(&node)[..] else { panic!("there are two") };
    rot(&mut node, newest, 4096 + 2 * 512 * 64 + 100);
    for number in 0..3 {
        node.storage.serve(NodeId(2), number * (512 * 64 - 24));
        node.ask().into_iter().for_each(|action| node.perform(action));
        assert_eq!(node.storage.take_piece().is_some(), number < 2);
    }
    let told = node.ask();
    let names = |action: &Action| format!("{action:?}").contains("block 2 is bad");
    assert!(told.iter().any(names), "{told:?}");
}
