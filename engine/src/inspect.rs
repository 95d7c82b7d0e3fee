//! A look inside for the simulator's oracle and for traces. No part of the contract: what is here
//! may change in any version.

pub use crate::status::Probe;

use crate::{
    codec, entry,
    membership::Membership,
    message::{Message, Payload},
    types::{GroupId, LogId, LogIndex, Piece, Term},
};
use bytes::Bytes;

/// What a message commits its sender to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Said {
    /// It is a candidate, and so has voted for itself.
    StandsFor {
        /// In this term.
        term: Term,
        /// Whoever led before has asked it to.
        is_wished: bool,
    },
    /// It leads, and asks the receiver to stand: whom others keep to no longer matters.
    AsksToStand {
        /// In this term it leads.
        term: Term,
    },
    /// It votes for the receiver.
    VotesFor {
        /// In this term.
        term: Term,
    },
    /// It holds the log of the receiver on its disk.
    Acknowledged {
        /// Up to here.
        through: LogIndex,
        /// In this term.
        term: Term,
        /// What it may have lost of what it held before: all behind this index.
        lacks: Option<LogIndex>,
    },
    /// Its gate is shut, and it asks when that may open.
    AsksOfGate {
        /// Names the fault that shut it.
        nonce: [u64; 2],
    },
    /// The receiver's gate may open when it holds the sender's log up to an index.
    TellsGate {
        /// If that was shut by this fault.
        nonce: [u64; 2],
        /// Up to here.
        last: LogIndex,
        /// In this term.
        term: Term,
    },
}

/// What the head of a message, as [`Action::Send`](crate::Action::Send) gives it, commits to.
#[must_use]
pub fn said(head: &Bytes) -> Option<Said> {
    if !codec::may_commit(head) {
        return None;
    }
    let Message { head, payload } = codec::decode(head.clone()).ok()?;
    let term = head.term;
    match payload {
        Payload::Vote(ballot) => Some(Said::StandsFor { term, is_wished: ballot.is_wished }),
        Payload::VoteAnswer(verdict) if verdict.granted => Some(Said::VotesFor { term }),
        Payload::AppendAnswer(answer) => {
            let conflict = answer.conflict.filter(|_| answer.gated);
            let lacks = conflict.map(|conflict| conflict.through);
            Some(Said::Acknowledged { through: answer.durable, term, lacks })
        }
        Payload::TimeoutNow => Some(Said::AsksToStand { term }),
        Payload::Gate { nonce } => Some(Said::AsksOfGate { nonce }),
        Payload::GateAnswer { nonce, last } => Some(Said::TellsGate { nonce, last, term }),
        _ => None,
    }
}

/// For which group a message is, if it is one.
#[must_use]
pub fn addressed_to(message: &Bytes) -> Option<GroupId> {
    codec::group_of(message)
}

/// In which term a message says that its sender leads, if it does.
#[must_use]
pub fn leads(message: &Bytes) -> Option<Term> {
    if !codec::is_leaders(message) {
        return None;
    }
    codec::decode(message.clone()).ok().map(|message| message.head.term)
}

/// A piece of a snapshot, as a leader sends it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SentPiece {
    /// The term that it leads.
    pub term: Term,
    /// The last entry in the snapshot.
    pub at: LogId,
    /// Where the piece begins.
    pub offset: u64,
    /// How many bytes it has.
    pub bytes: u64,
}

/// The piece of a snapshot that a message carries, if it does; head and body as
/// [`Action::Send`](crate::Action::Send) gives them.
#[must_use]
pub fn sent_piece(head: &Bytes, body: &Bytes) -> Option<SentPiece> {
    if !codec::is_piece(head) {
        return None;
    }
    let whole = [&head[..], &body[..]].concat();
    let Message { head, payload: Payload::Install(piece) } = codec::decode(whole.into()).ok()?
    else {
        return None;
    };
    let bytes = piece.bytes.len() as u64;
    Some(SentPiece { term: head.term, at: piece.snapshot.at, offset: piece.offset, bytes })
}

/// The members that an entry brings into force, if it is one that does.
#[must_use]
pub fn members(head: &entry::Head, frame: &[u8]) -> Option<Membership> {
    let body = frame.get(entry::HEAD_BYTES..head.total_bytes as usize)?;
    if head.kind == entry::Kind::Membership { Membership::decode(body) } else { None }
}

/// A whole message, head and body, in one line.
#[must_use]
pub fn describe(bytes: &Bytes) -> String {
    match codec::decode(bytes.clone()) {
        Err(fault) => fault.into(),
        Ok(Message { head, payload }) => format!("t{} {}", head.term, payload_line(&payload)),
    }
}

fn payload_line(payload: &Payload) -> String {
    match payload {
        Payload::Append(append) => format!(
            "append {} prev {} commit {} round {} {} bytes",
            append.sequence,
            append.prev,
            append.commit,
            append.round,
            append.frames.len()
        ),
        Payload::Install(Piece { snapshot, offset, bytes, .. }) => format!(
            "install {} id {:x} bytes {offset}..{} of {}",
            snapshot.at,
            snapshot.id.0,
            offset + bytes.len() as u64,
            snapshot.bytes
        ),
        other => format!("{other:?}"),
    }
}
