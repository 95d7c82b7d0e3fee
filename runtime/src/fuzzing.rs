//! What a fuzzer runs: what strangers and peers send before it is a message (`engine/src/fuzzing`
//! has the rest, and says how these targets are made). No part of the library.

pub use crate::net::fuzzing::{frame, handshake};

#[cfg(test)]
#[path = "../../fuzz/corpus.rs"]
pub(crate) mod corpus;
