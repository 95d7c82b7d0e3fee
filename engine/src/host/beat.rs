//! The heartbeat between two nodes: the host's own message, in the form of the engines' heads.
//!
//! ```text
//!  0  crc                             16 cluster            64 departures
//!  4  version, kind 64, two zeros     24 zero               72 hears
//!  8  head length (96)                32 zero               80 zero
//! 12  body length (0)                 40 from, 48 to        88 zero
//!                                     56 life
//! ```

use crate::{
    codec,
    types::{ClusterId, NodeId},
};
use bytes::Bytes;

/// Engines' kinds are smaller.
const KIND: u8 = 64;

/// "I live", for all groups together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Beat {
    pub(super) cluster: ClusterId,
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    /// Which process it is.
    pub(super) life: u64,
    /// How many groups ended in it.
    pub(super) departures: u64,
    /// Whether the receiver is heard.
    pub(super) hears: bool,
}

impl Beat {
    pub(super) fn is_one(bytes: &[u8]) -> bool {
        bytes.get(5) == Some(&KIND)
    }

    pub(super) fn encode(&self) -> Bytes {
        let Self { cluster, from, to, life, departures, hears } = *self;
        let words = [cluster.0, 0, 0, from.0, to.0, life, departures, u64::from(hears), 0, 0];
        codec::bare_head(KIND, words)
    }

    /// `None`: it is none that this version knows.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let [cluster, 0, 0, from, to, life, departures, hears, 0, 0] =
            codec::bare_words(KIND, bytes)?
        else {
            return None;
        };
        let (cluster, from, to) = (ClusterId(cluster), NodeId(from), NodeId(to));
        (hears <= 1).then_some(Self { cluster, from, to, life, departures, hears: hears == 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat() -> Beat {
        let (cluster, from, to) = (ClusterId(7), NodeId(1), NodeId(2));
        Beat { cluster, from, to, life: 1 << 60, departures: 3, hears: true }
    }

    #[test]
    fn a_beat_is_read_back() {
        for hears in [false, true] {
            let beat = Beat { hears, ..beat() };
            let bytes = beat.encode();
            assert!(Beat::is_one(&bytes));
            assert_eq!(Beat::decode(&bytes), Some(beat));
        }
    }

    #[test]
    fn a_flipped_or_missing_byte_is_no_beat() {
        let bytes = beat().encode();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.to_vec();
                bad[at] ^= 1 << bit;
                assert_eq!(Beat::decode(&bad), None, "bit {bit} of byte {at}");
            }
            assert_eq!(Beat::decode(&bytes[..at]), None);
        }
        assert_eq!(Beat::decode(&[&bytes[..], b"more"].concat()), None);
    }

    #[test]
    fn an_engine_takes_no_beat_for_a_message() {
        assert_eq!(codec::decode(beat().encode()), Err("message of an unknown kind"));
    }
}
