//! What a fuzzer runs: every decoder of the engine, on bytes that anybody may have made.
//!
//! Each target takes any bytes and panics when a promise is broken: what is decoded is encoded to
//! the same bytes again or, where a format has room that nobody reads, to bytes that mean the same;
//! nothing else panics. Most try the bytes twice, the second time under checksums that hold: random
//! bytes would never come past them, and a peer or a writer gone wrong does.
//!
//! Here for `fuzz/` (`--cfg fuzzing`) and for this crate's tests, which replay `fixtures/fuzz/`;
//! no part of the library.

mod directory;
mod edits;
mod log;
mod message;
mod records;
mod session;
mod tape;

pub use directory::directory;
pub use log::{batch, entry};
pub use message::message;
pub use records::{hard_state, segment, snapshot};
pub use session::session;
pub use tape::tape;

#[cfg(test)]
#[path = "../../../fuzz/corpus.rs"]
mod corpus;
