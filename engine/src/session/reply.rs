//! What a session's command is answered: the machine's answer, or why there is none.
//!
//! ```text
//! 0 answer              applied now
//! 1 answer              applied before; what it was answered then
//! 2 number u64, opened u64                                 opened
//! 3                     closed
//! 16                    unknown
//! 17                    expired
//! 18 last u64           too old
//! 19 expected u64       out of order
//! 20                    malformed
//! ```

use super::SessionId;
use bytes::BufMut;
use std::fmt;

const DONE: u8 = 0;
const AGAIN: u8 = 1;
const OPENED: u8 = 2;
const CLOSED: u8 = 3;
const UNKNOWN: u8 = 16;
const EXPIRED: u8 = 17;
const TOO_OLD: u8 = 18;
const OUT_OF_ORDER: u8 = 19;
const MALFORMED: u8 = 20;

/// What came of a request that did not fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply<'a> {
    /// The command is applied.
    Done {
        /// What the machine answered when it was.
        answer: &'a [u8],
        /// Whether that was before: this one was a retry.
        again: bool,
    },
    /// A session is there.
    Opened(SessionId),
    /// It is gone.
    Closed,
}

/// Why a session's command was not applied, or what came of it cannot be told any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SessionError {
    /// There was never such a session: the command is not applied. A name was made up, or the
    /// cluster goes on from a state of before it was opened.
    Unknown,
    /// The session has ended: it was closed, not used for too long, or had to make room. The
    /// command is not applied now; whether it was before, while the session lasted, is not known.
    Expired,
    /// It was applied, once, so long ago that its answer is not kept any more.
    TooOld {
        /// The session's last command that was applied.
        last: u64,
    },
    /// Commands before it are missing: it is not applied.
    OutOfOrder {
        /// The number that comes next.
        expected: u64,
    },
    /// The bytes of the request are none: it is not applied.
    Malformed,
    /// The bytes are no answer to a request: they are from a machine without sessions.
    NoReply,
}

impl<'a> Reply<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Done { answer, again } => {
                out.put_u8(if again { AGAIN } else { DONE });
                out.put_slice(answer);
            }
            Self::Opened(session) => {
                out.put_u8(OPENED);
                session.put(out);
            }
            Self::Closed => out.put_u8(CLOSED),
        }
    }

    /// Reads what [`Sessions`](super::Sessions) answered to anything but [`Request::Plain`].
    ///
    /// [`Request::Plain`]: super::Request::Plain
    pub fn parse(answer: &'a [u8]) -> Result<Self, SessionError> {
        let (kind, rest) = answer.split_first().ok_or(SessionError::NoReply)?;
        let number = || rest.try_into().map(u64::from_le_bytes).map_err(|_| SessionError::NoReply);
        match (*kind, rest) {
            (DONE, answer) => Ok(Self::Done { answer, again: false }),
            (AGAIN, answer) => Ok(Self::Done { answer, again: true }),
            (OPENED, id) => {
                let id = id.try_into().map_err(|_| SessionError::NoReply)?;
                Ok(Self::Opened(SessionId::at(id)))
            }
            (CLOSED, []) => Ok(Self::Closed),
            (UNKNOWN, []) => Err(SessionError::Unknown),
            (EXPIRED, []) => Err(SessionError::Expired),
            (MALFORMED, []) => Err(SessionError::Malformed),
            (TOO_OLD, _) => Err(SessionError::TooOld { last: number()? }),
            (OUT_OF_ORDER, _) => Err(SessionError::OutOfOrder { expected: number()? }),
            _ => Err(SessionError::NoReply),
        }
    }
}

impl SessionError {
    pub(super) fn encode(self, out: &mut Vec<u8>) {
        match self {
            Self::Unknown => out.put_u8(UNKNOWN),
            Self::Expired => out.put_u8(EXPIRED),
            Self::TooOld { last } => {
                out.put_u8(TOO_OLD);
                out.put_u64_le(last);
            }
            Self::OutOfOrder { expected } => {
                out.put_u8(OUT_OF_ORDER);
                out.put_u64_le(expected);
            }
            Self::Malformed | Self::NoReply => out.put_u8(MALFORMED),
        }
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => {
                f.write_str("no such session was ever opened here: not applied; open one")
            }
            Self::Expired => f.write_str(
                "the session has ended (closed, unused for too long, or one too many): not applied \
                 now, and whether it was before is not known any more; open a new one",
            ),
            Self::TooOld { last } => write!(
                f,
                "applied before, once, and its answer is not kept any more; the session has come \
                 to {last}"
            ),
            Self::OutOfOrder { expected } => {
                write!(f, "not applied: the session's next command is {expected}")
            }
            Self::Malformed => f.write_str("not applied: no request to a machine with sessions"),
            Self::NoReply => f.write_str("this is no answer of a machine with sessions"),
        }
    }
}

impl std::error::Error for SessionError {}
