//! What the server needs of a node: to replicate, to read, to tell how it is.
//!
//! Knows no RESP but the form of errors. A node's handle is one; so is a machine in a test.

use bytes::Bytes;
use lakebed::{Batch, Control, Outcome, ReadMode, Refusal, Status};
use std::{fmt, future::Future};

/// A replicated [`Kv`](crate::Kv), as its server sees it.
pub trait Store: Clone + Send + Sync + 'static {
    /// Replicates a batch of commands and adds their answers to `out`, in order. On a failure
    /// `out` is as it was.
    fn propose(
        &self,
        batch: Batch,
        out: &mut Vec<u8>,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Answers a query after everything that was acknowledged before it was asked; of
    /// [`ReadMode::Local`] as the node is, or refuses it as [`Refusal::NotReady`].
    fn read(
        &self,
        query: &[u8],
        mode: ReadMode,
    ) -> impl Future<Output = Result<Bytes, Failure>> + Send;

    /// A look at the node.
    fn status(&self) -> impl Future<Output = Result<Status, Failure>> + Send;

    /// Whether the group has ended here, while others may go on: its status is the last one.
    fn has_ended(&self) -> bool {
        false
    }

    /// Gives the node an order. One that has no node refuses all of them.
    fn control(&self, _order: Control) -> impl Future<Output = Result<Outcome, Failure>> + Send {
        async { Err(Failure::Refused(Refusal::NotReady)) }
    }

    /// What INFO tells beside the status: names, and values without line breaks. Without a status:
    /// of all groups of the node together. Nothing by default.
    fn surroundings(
        &self,
        _status: Option<&Status>,
    ) -> impl Future<Output = Vec<(&'static str, String)>> + Send {
        async { Vec::new() }
    }
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Debug)]
pub enum Failure {
    /// Certainly not applied, now or later.
    Refused(Refusal),
    /// It may be applied, or not.
    Unknown,
    /// The group has ended here, and certainly did not apply it; others may still serve it.
    Ended,
}

/// What was asked for: it decides what an unknown outcome means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
    Write,
    Read,
}

const FULL: &str = "DISKFULL no room for more log on the leader's disk, or on too many others: \
    reads go on, and writes as soon as there is room; INFO says disk_full where it is";

impl Failure {
    /// A RESP error's text: a code that a program can act on, and the reason.
    pub(crate) fn reply(&self, asked: Asked) -> String {
        match (self, asked) {
            (Self::Refused(Refusal::DiskFull), _) => FULL.into(),
            (Self::Refused(refusal), _) => format!("{} {refusal}", code(refusal)),
            (Self::Ended, _) => {
                "ENDED the group of these keys has ended on this node: ask another node".into()
            }
            (Self::Unknown, Asked::Write) => {
                "UNKNOWN the write may or may not have been applied: look before trying again"
                    .into()
            }
            (Self::Unknown, Asked::Read) => "TRYAGAIN the node could not answer in time".into(),
        }
    }
}

const fn code(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Busy => "BUSY",
        Refusal::DiskFull => "DISKFULL",
        Refusal::NotLeader { .. }
        | Refusal::NotReady
        | Refusal::Transferring
        | Refusal::Stopping => "TRYAGAIN",
        _ => "ERR",
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reply(Asked::Write))
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_codes_that_programs_know() {
        let refused = |refusal| Failure::Refused(refusal).reply(Asked::Write);
        assert!(refused(Refusal::Busy).starts_with("BUSY "));
        assert!(refused(Refusal::DiskFull).starts_with("DISKFULL no room"));
        assert!(refused(Refusal::TooLarge).starts_with("ERR "));
        assert!(refused(Refusal::NotLeader { hint: None }).starts_with("TRYAGAIN "));
        assert!(Failure::Ended.reply(Asked::Read).starts_with("ENDED "));
        assert!(Failure::Unknown.reply(Asked::Write).starts_with("UNKNOWN "));
        assert!(Failure::Unknown.reply(Asked::Read).starts_with("TRYAGAIN "));
    }
}
