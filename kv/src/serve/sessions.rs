//! Sessions: writes that may be sent again and are applied once (`lakebed::session`).
//!
//! ```text
//! LAKEBED SESSION OPEN [KEY]              the session's name, one word
//! LAKEBED SESSION DO NAME NUMBER WRITE    what the write answers; the same to a retry
//! LAKEBED SESSION CLOSE NAME              +OK
//! ```
//!
//! A client numbers its writes from one on, and sends what was not answered again with its number,
//! to any node. Where keys are spread over several groups a session is of one of them: `OPEN KEY`
//! opens one for the group of that key, and its name begins with the group's number. Knows no
//! connection. Invariant: a write that cannot be performed is answered here
//! and takes no number.

use super::{
    reader::Args,
    request::{self, Request},
    store::{self, Failure},
};
use crate::{answer, slots::slot};
use lakebed::session::{self, Reply, SessionError, SessionId};

const USAGE: &str =
    "ERR LAKEBED SESSION knows OPEN [key], DO session number write..., and CLOSE session";
const NO_NAME: &str =
    "ERR a session's name is what LAKEBED SESSION OPEN answered, such as 7-1700000000000000000";
const NO_NUMBER: &str = "ERR a session's writes are numbered 1, 2, 3 and so on";
const NO_WRITE: &str =
    "ERR a session's command is a write of the store; ask everything else without a session";

/// What a client asks of a session.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Asked {
    /// As it goes into the log.
    pub(crate) bytes: Vec<u8>,
    /// Whether it is opened: then it has no name yet.
    pub(crate) opens: bool,
    /// The group that stands in the session's name.
    pub(crate) group: Option<u64>,
    /// The slots of the keys that are named.
    pub(crate) slots: Vec<u16>,
}

/// What stands behind `LAKEBED SESSION`, or what is wrong with it.
pub(crate) fn parse(args: Args<'_>) -> Result<Asked, Vec<u8>> {
    let (what, rest) = args.split_first().ok_or_else(|| error(USAGE))?;
    match (&what.to_ascii_uppercase()[..], rest.len()) {
        (b"OPEN", 0 | 1) => {
            let slots = rest.iter().map(slot).collect();
            let bytes = encoded(session::Request::Open);
            Ok(Asked { bytes, opens: true, group: None, slots })
        }
        (b"CLOSE", 1) => {
            let [name] = rest.all().expect("it is one");
            let (group, session) = id(name)?;
            let bytes = encoded(session::Request::Close(session));
            Ok(Asked { bytes, opens: false, group, slots: Vec::new() })
        }
        (b"DO", 3..) => parse_write(rest),
        _ => Err(error(USAGE)),
    }
}

fn parse_write(args: Args<'_>) -> Result<Asked, Vec<u8>> {
    let (name, rest) = args.split_first().expect("a name, a number and a write");
    let (number, write) = rest.split_first().expect("a number and a write");
    let ((group, session), sequence) = (id(name)?, sequence(number)?);
    // Sessions within sessions might go deep, and are none of the store's writes.
    if write.iter().next().is_some_and(|verb| verb.eq_ignore_ascii_case(b"LAKEBED")) {
        return Err(error(NO_WRITE));
    }
    match request::parse(write, &mut Vec::new()) {
        Request::Command(command) if !command.is_read() => {
            let mut bytes = Vec::new();
            command.encode(&mut bytes);
            let slots = command.keys().map(slot).collect();
            let bytes = encoded(session::Request::Run { session, sequence, command: &bytes });
            Ok(Asked { bytes, opens: false, group, slots })
        }
        Request::Answered(answer) if answer.starts_with(b"-") => Err(answer),
        _ => Err(error(NO_WRITE)),
    }
}

/// `7-1700000000000000000`, or behind its group's number `3:7-1700000000000000000`.
fn id(word: &[u8]) -> Result<(Option<u64>, SessionId), Vec<u8>> {
    let parse = || {
        let text = std::str::from_utf8(word).ok()?;
        match text.split_once(':') {
            Some((group, name)) => Some((Some(group.parse().ok()?), name.parse().ok()?)),
            None => Some((None, text.parse().ok()?)),
        }
    };
    parse().ok_or_else(|| error(NO_NAME))
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

/// Answers a client what the machine answered, of this group if there are several, or why it did
/// not.
pub(crate) fn reply(out: &mut Vec<u8>, group: Option<usize>, result: Result<Vec<u8>, Failure>) {
    let answered = match &result {
        Ok(answer) => Reply::parse(answer),
        Err(Failure::Unknown) => return answer::error(out, UNKNOWN),
        Err(failure) => return answer::error(out, &failure.reply(store::Asked::Write)),
    };
    match answered {
        Ok(Reply::Done { answer, .. }) => out.extend_from_slice(answer),
        Ok(Reply::Opened(session)) => {
            let group = group.map_or_else(String::new, |group| format!("{}:", group + 1));
            answer::bulk(out, format!("{group}{session}").as_bytes());
        }
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
