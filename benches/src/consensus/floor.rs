//! What is left where nobody decides anything: the least that any three nodes do with a batch whose payloads they
//! share within a node and checksum. It is gathered and checksummed once, copied once to each peer, as a socket
//! does, checksummed there, and kept by all three for as long as ours keep it.
//!
//! No storage, no order, no acknowledgement: nobody comes to this, and where it is near, a peer's multiple is out
//! of reach.

use super::Cluster;
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::VecDeque;

/// Bytes of batches that each node keeps: what ours keep in memory, and a segment of their disk.
const KEPT: usize = 8 << 20;

#[derive(Default)]
pub struct Floor {
    nodes: [Node; 3],
}

#[derive(Default)]
struct Node {
    kept: VecDeque<Bytes>,
    kept_bytes: usize,
    applied: (u64, u64),
}

impl Cluster for Floor {
    fn commit(&mut self, commands: &[Vec<u8>]) {
        let bytes = commands.iter().map(|command| command.len() + 4).sum();
        let mut batch = BytesMut::with_capacity(bytes);
        for command in commands {
            batch.put_u32_le(command.len() as u32);
            batch.extend_from_slice(command);
        }
        let batch = batch.freeze();
        let sent = crc32c::crc32c(&batch);
        let [leader, followers @ ..] = &mut self.nodes;
        for follower in followers {
            let received = Bytes::copy_from_slice(&batch);
            assert_eq!(crc32c::crc32c(&received), sent);
            follower.keep(received);
        }
        leader.keep(batch);
    }

    fn finish(&mut self) {}

    fn applied(&self) -> [(u64, u64); 3] {
        [0, 1, 2].map(|node| self.nodes[node].applied)
    }
}

impl Node {
    /// Applies it as ours do: by counting.
    fn keep(&mut self, batch: Bytes) {
        let mut rest = &batch[..];
        while let Some((len, after)) = rest.split_first_chunk() {
            let len = u32::from_le_bytes(*len) as usize;
            self.applied.0 += 1;
            self.applied.1 += len as u64;
            rest = &after[len..];
        }
        self.kept_bytes += batch.len();
        self.kept.push_back(batch);
        while self.kept_bytes > KEPT {
            self.kept_bytes -= self.kept.pop_front().map_or(0, |oldest| oldest.len());
        }
    }
}
