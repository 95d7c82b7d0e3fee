//! Orders to the node itself: to take a snapshot, and to hand it out as a backup.
//!
//! ```text
//! LAKEBED SNAPSHOT                 +TERM.INDEX, when it is durable
//! LAKEBED BACKUP BEGIN             its name and length; it is kept from now on
//! LAKEBED BACKUP READ OFFSET LEN   so many bytes of it; fewer at its end, and where that is much
//! LAKEBED BACKUP END               +OK; so does the end of the connection
//! ```
//!
//! Knows no byte of a backup. Invariant: a connection keeps one snapshot at most, and none when it
//! has ended.

use super::{
    reader::Args,
    store::{Asked, Failure, Store},
};
use crate::answer;
use lakebed::{Control, File, Outcome, Refusal};

/// What is wrong with an order that is none.
pub(crate) const USAGE: &str =
    "ERR LAKEBED knows DIGEST, SNAPSHOT, BACKUP BEGIN, BACKUP READ offset length and BACKUP END";

/// An order to the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    Snapshot,
    BeginBackup,
    ReadBackup { offset: u64, len: u32 },
    EndBackup,
}

impl Order {
    /// What stands behind `LAKEBED`.
    pub(crate) fn parse(args: Args<'_>) -> Option<Self> {
        let words: Vec<_> = args.iter().map(<[u8]>::to_ascii_uppercase).collect();
        let words: Vec<_> = words.iter().map(Vec::as_slice).collect();
        match words[..] {
            [b"SNAPSHOT"] => Some(Self::Snapshot),
            [b"BACKUP", b"BEGIN"] => Some(Self::BeginBackup),
            [b"BACKUP", b"END"] => Some(Self::EndBackup),
            [b"BACKUP", b"READ", offset, len] => {
                let (offset, len) = (number(offset)?, number(len)?);
                Some(Self::ReadBackup { offset, len: u32::try_from(len).unwrap_or(u32::MAX) })
            }
            _ => None,
        }
    }
}

fn number(word: &[u8]) -> Option<u64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// The backup that a client is taking.
#[derive(Debug, Default)]
pub(crate) struct Taking {
    file: Option<File>,
}

impl Taking {
    /// Carries out an order and answers it.
    pub(crate) async fn carry_out(&mut self, order: Order, store: &impl Store, out: &mut Vec<u8>) {
        let outcome = match (order, self.file) {
            (Order::Snapshot, _) => store.control(Control::Snapshot).await,
            (Order::BeginBackup, _) => {
                self.end(store).await;
                store.control(Control::PinSnapshot).await
            }
            (Order::ReadBackup { offset, len }, Some(file)) => {
                store.control(Control::ReadPinned { file, offset, len }).await
            }
            (Order::ReadBackup { .. } | Order::EndBackup, None) => {
                return answer::error(out, "ERR no backup was begun on this connection");
            }
            (Order::EndBackup, Some(_)) => {
                self.end(store).await;
                return answer::simple(out, "OK");
            }
        };
        match outcome {
            Ok(Outcome::Done(at)) => answer::simple(out, &at.to_string()),
            Ok(Outcome::Pinned(file, bytes)) => {
                self.file = Some(file);
                answer::array(out, 2);
                answer::bulk(out, file.name().as_bytes());
                answer::integer(out, i64::try_from(bytes).unwrap_or(i64::MAX));
            }
            Ok(Outcome::Read(bytes)) => answer::bulk(out, &bytes),
            Ok(Outcome::Refused(refusal)) => fail(out, &Failure::Refused(refusal)),
            Ok(Outcome::Unknown) => fail(out, &Failure::Unknown),
            Err(failure) => fail(out, &failure),
        }
    }

    /// What was kept is given back. It may have been before: for want of reads, or with the node.
    pub(crate) async fn end(&mut self, store: &impl Store) {
        if let Some(file) = self.file.take() {
            drop(store.control(Control::Unpin { file }).await);
        }
    }
}

fn fail(out: &mut Vec<u8>, failure: &Failure) {
    let reply = match failure {
        // What reads are told is that writes go on where there is room.
        Failure::Refused(Refusal::DiskFull) => {
            "DISKFULL no room on this node's disk for a snapshot: make room, or ask another node"
                .into()
        }
        failure => failure.reply(Asked::Read),
    };
    answer::error(out, &reply);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_say_what_to_do() {
        let reply = |refusal| {
            let mut out = Vec::new();
            fail(&mut out, &Failure::Refused(refusal));
            String::from_utf8(out).unwrap()
        };
        assert!(reply(Refusal::DiskFull).contains("ask another node"));
        assert!(reply(Refusal::NoSnapshot).starts_with("-ERR nothing was applied yet"));
        assert!(reply(Refusal::NotPinned(File::Segment(1))).contains("begin again"));
        assert!(reply(Refusal::Busy).starts_with("-BUSY "));
    }
}
