//! Peers gone wrong: messages that are whole, from a member, and wrong in some field.
//!
//! Whatever they say, the node does not panic, and its watermarks stay in order. (What a peer that
//! lies may bring about beyond that is not promised.)

use super::*;
use rand_chacha::rand_core::Rng;

/// A message with some bytes changed and its checksum right.
fn garble(message: &Message, rng: &mut ChaCha8Rng) -> Option<Message> {
    let (head, body) = Encoder::default().encode(&mut message.clone());
    let mut bytes = [&head[..], &body].concat();
    for _ in 0..=rng.next_u64() % 3 {
        // Not the lengths, which only decoding judges, nor the identities, which come first.
        let at = 64 + (rng.next_u64() as usize % (head.len() - 64));
        bytes[at] = match rng.next_u64() % 4 {
            0 => 0,
            1 => 0xff,
            2 => bytes[at].wrapping_add(1),
            _ => rng.next_u64() as u8,
        };
    }
    codec::decode(&codec::with_right_crc(bytes).into()).ok()
}

/// The receiver as it would go on: the garbled message, the right one, time.
fn suffer(mut receiver: Node, from: NodeId, garbled: Message, right: Message, now: Instant) {
    receiver.raft.on_message(from, garbled);
    receiver.settle(now);
    receiver.raft.on_message(from, right);
    receiver.settle(now);
    receiver.settle(now.after(Duration::from_millis(150)));
    receiver.settle(now.after(Duration::from_secs(5)));
}

#[test]
fn garbled_messages_panic_nobody() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (mut garbled, mut faults) = (0, 0);
    for round in 0..40 {
        let mut cluster = Cluster::of(3);
        let id = round % 3 + 1;
        cluster.run();
        cluster.pass(1000 * MS);
        cluster.at(id).raft.patience = Duration::ZERO;
        (1..=3).for_each(|at| cluster.settle(at));
        for step in 0..200 {
            match step % 10 {
                0 => cluster.propose(step % 3 + 1, step, &["a", "b"]),
                3 => {
                    let requests = Requests::one(RequestId(10_000 + step));
                    cluster.at(step % 3 + 1).raft.on_read(requests, ReadMode::Linearizable);
                }
                5 => cluster.pass(40 * MS),
                7 if step % 50 == 7 => cluster.crash(step % 3 + 1),
                _ => {}
            }
            (1..=3).for_each(|at| cluster.settle(at));
            let Some((from, message)) = cluster.queue.pop_front() else { continue };
            for _ in 0..3 {
                let receiver = cluster.at(message.head.to.0).clone();
                if let Some(bad) = garble(&message, &mut rng) {
                    garbled += 1;
                    suffer(receiver, from, bad, message.clone(), cluster.now);
                }
            }
            cluster.deliver(from, message);
            faults += usize::from(cluster.nodes.iter().any(|node| !node.faults().is_empty()));
        }
    }
    assert_eq!(faults, 0, "no correct peer is at fault");
    assert!(garbled > 5000, "only {garbled} were worth trying");
}
