//! Sessions: writes that may be sent again and are applied once (`lakebed::session`).
//!
//! ```text
//! LAKEBED SESSION OPEN                    the session's name, one word
//! LAKEBED SESSION DO NAME NUMBER WRITE    what the write answers; the same to a retry
//! LAKEBED SESSION CLOSE NAME              +OK
//! ```
//!
//! A client numbers its writes from one on, and sends what was not answered again with its number,
//! to any node. Knows no connection. Invariant: a write that cannot be performed is answered here
//! and takes no number.

use super::{
    reader::Args,
    request::{self, Request},
    store::{Asked, Failure},
};
use crate::answer;
use lakebed::session::{self, Reply, SessionError, SessionId};

const USAGE: &str = "ERR LAKEBED SESSION knows OPEN, DO session number write..., and CLOSE session";
const NO_NAME: &str =
    "ERR a session's name is what LAKEBED SESSION OPEN answered, such as 7-1700000000000000000";
const NO_NUMBER: &str = "ERR a session's writes are numbered 1, 2, 3 and so on";
const NO_WRITE: &str =
    "ERR a session's command is a write of the store; ask everything else without a session";

/// What stands behind `LAKEBED SESSION`, as it goes into the log, or what is wrong with it.
pub(crate) fn parse(args: Args<'_>) -> Result<Vec<u8>, Vec<u8>> {
    let (what, rest) = args.split_first().ok_or_else(|| error(USAGE))?;
    let request = match (&what.to_ascii_uppercase()[..], rest.len()) {
        (b"OPEN", 0) => session::Request::Open,
        (b"CLOSE", 1) => {
            let [name] = rest.all().expect("it is one");
            session::Request::Close(id(name)?)
        }
        (b"DO", 3..) => return parse_write(rest),
        _ => return Err(error(USAGE)),
    };
    Ok(encoded(request))
}

fn parse_write(args: Args<'_>) -> Result<Vec<u8>, Vec<u8>> {
    let (name, rest) = args.split_first().expect("a name, a number and a write");
    let (number, write) = rest.split_first().expect("a number and a write");
    let (session, sequence) = (id(name)?, sequence(number)?);
    // Sessions within sessions might go deep, and are none of the store's writes.
    if write.iter().next().is_some_and(|verb| verb.eq_ignore_ascii_case(b"LAKEBED")) {
        return Err(error(NO_WRITE));
    }
    match request::parse(write, &mut Vec::new()) {
        Request::Command(command) if !command.is_read() => {
            let mut bytes = Vec::new();
            command.encode(&mut bytes);
            Ok(encoded(session::Request::Run { session, sequence, command: &bytes }))
        }
        Request::Answered(answer) if answer.starts_with(b"-") => Err(answer),
        _ => Err(error(NO_WRITE)),
    }
}

fn id(word: &[u8]) -> Result<SessionId, Vec<u8>> {
    let name = std::str::from_utf8(word).ok().and_then(|text| text.parse().ok());
    name.ok_or_else(|| error(NO_NAME))
}

fn sequence(word: &[u8]) -> Result<u64, Vec<u8>> {
    let number = std::str::from_utf8(word).ok().and_then(|text| text.parse().ok());
    number.filter(|number| *number > 0).ok_or_else(|| error(NO_NUMBER))
}

fn encoded(request: session::Request<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    request.encode(&mut bytes);
    bytes
}

fn error(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    answer::error(&mut out, text);
    out
}

/// Answers a client what the machine answered, or why it did not.
pub(crate) fn reply(out: &mut Vec<u8>, result: Result<Vec<u8>, Failure>) {
    let answered = match &result {
        Ok(answer) => Reply::parse(answer),
        Err(Failure::Unknown) => return answer::error(out, UNKNOWN),
        Err(failure) => return answer::error(out, &failure.reply(Asked::Write)),
    };
    match answered {
        Ok(Reply::Done { answer, .. }) => out.extend_from_slice(answer),
        Ok(Reply::Opened(session)) => answer::bulk(out, session.to_string().as_bytes()),
        Ok(Reply::Closed) => answer::simple(out, "OK"),
        Err(error) => answer::error(out, &format!("{} {error}", code(error))),
    }
}

const UNKNOWN: &str = "UNKNOWN applied, or not: send it again with the same number, here or to \
    another node, and it is applied once";

const fn code(error: SessionError) -> &'static str {
    match error {
        SessionError::Unknown => "NOSESSION",
        SessionError::Expired => "EXPIRED",
        SessionError::TooOld { .. } => "REPLAYED",
        SessionError::OutOfOrder { .. } => "OUTOFORDER",
        _ => "ERR",
    }
}
