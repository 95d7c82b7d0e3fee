//! The first bytes of a command: whose it is, and which of theirs.
//!
//! ```text
//! 0xf0 command                                             without a session
//! 0xf1                                                     opens one
//! 0xf2 number u64, opened u64, sequence u64, command       one of its commands
//! 0xf3 number u64, opened u64                              closes it
//! ```
//!
//! Integers are little-endian. Whatever begins otherwise is a command without a session, as it is.
//! Invariant: the bytes never change their meaning.

use super::SessionError;
use crate::{Timestamp, le};
use bytes::BufMut;
use std::{fmt, str::FromStr};

const PLAIN: u8 = 0xf0;
const OPEN: u8 = 0xf1;
const RUN: u8 = 0xf2;
const CLOSE: u8 = 0xf3;

const ID_BYTES: usize = 16;

/// A session's name, given by the machine when it is opened.
///
/// Numbers rise by one with each session, so that one which never was is told from one that has
/// ended. The time is that of the entry that opened it: should a cluster go on from an older state
/// (a backup, a survivor of a lost quorum) and give a number a second time, the sessions differ.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId {
    /// The how manieth session of this machine, from one on.
    pub number: u64,
    /// The time of the entry that opened it.
    pub opened: Timestamp,
}

impl SessionId {
    pub(super) fn put(self, out: &mut impl BufMut) {
        out.put_u64_le(self.number);
        out.put_u64_le(self.opened.0);
    }

    pub(super) fn at(bytes: &[u8; ID_BYTES]) -> Self {
        let [number, opened] = le::u64s_at(bytes, 0);
        Self { number, opened: Timestamp(opened) }
    }
}

/// `NUMBER-OPENED`, decimal: one word, as people pass it on.
impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.number, self.opened)
    }
}

/// A text that is no session's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotASession;

impl FromStr for SessionId {
    type Err = NotASession;

    fn from_str(text: &str) -> Result<Self, NotASession> {
        let (number, opened) = text.split_once('-').ok_or(NotASession)?;
        let of = |digits: &str| match digits.parse::<u64>() {
            // One form each: neither a sign nor leading zeros.
            Ok(number) if number.to_string() == digits => Ok(number),
            _ => Err(NotASession),
        };
        Ok(Self { number: of(number)?, opened: Timestamp(of(opened)?) })
    }
}

/// What a command asks of [`Sessions`](super::Sessions).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request<'a> {
    /// Applies a command, however often it comes.
    Plain(&'a [u8]),
    /// Opens a session. Sent twice it opens two, of which one is forgotten in time.
    Open,
    /// Applies a command once.
    Run {
        /// Whose.
        session: SessionId,
        /// Its number in the session, from one on. A retry has the same, and the same command:
        /// what is answered is what the first one was.
        sequence: u64,
        /// The machine's command.
        command: &'a [u8],
    },
    /// Forgets a session.
    Close(SessionId),
}

impl<'a> Request<'a> {
    /// The most bytes that stand before a command.
    pub const PREFIX_BYTES_MAX: usize = 1 + ID_BYTES + 8;

    /// Adds its bytes to `out`. A command without a session is wrapped only where it must be.
    pub fn encode(&self, out: &mut impl BufMut) {
        match *self {
            Self::Plain(command) => {
                if command.first().is_some_and(|first| (PLAIN..=CLOSE).contains(first)) {
                    out.put_u8(PLAIN);
                }
                out.put_slice(command);
            }
            Self::Open => out.put_u8(OPEN),
            Self::Run { session, sequence, command } => {
                out.put_u8(RUN);
                session.put(out);
                out.put_u64_le(sequence);
                out.put_slice(command);
            }
            Self::Close(session) => {
                out.put_u8(CLOSE);
                session.put(out);
            }
        }
    }

    /// What these bytes ask for; [`SessionError::Malformed`]: for nothing.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, SessionError> {
        let Some((kind, rest)) = bytes.split_first() else { return Ok(Self::Plain(bytes)) };
        match *kind {
            PLAIN => Ok(Self::Plain(rest)),
            OPEN if rest.is_empty() => Ok(Self::Open),
            RUN => Self::parse_run(rest).ok_or(SessionError::Malformed),
            CLOSE => {
                let id = rest.try_into().map_err(|_| SessionError::Malformed)?;
                Ok(Self::Close(SessionId::at(id)))
            }
            OPEN => Err(SessionError::Malformed),
            _ => Ok(Self::Plain(bytes)),
        }
    }

    fn parse_run(rest: &'a [u8]) -> Option<Self> {
        let (id, rest) = rest.split_first_chunk()?;
        let (sequence, command) = rest.split_first_chunk()?;
        let sequence = u64::from_le_bytes(*sequence);
        let session = SessionId::at(id);
        (sequence > 0).then_some(Self::Run { session, sequence, command })
    }
}
