//! Who a client is: its number, and what it calls itself.
//!
//! Knows no connection. Invariant: a name is bounded, and stands on one line wherever it is told.

use super::{
    reader::Args,
    request::Wrong,
    stale::{self, Stale},
};
use crate::answer;

/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 1024;
const NAME_TOO_LONG: &str = "ERR a client's name exceeds 1 KiB";
const NAME_IS_ODD: &str = "ERR Client names cannot contain spaces, newlines or special characters.";

/// What is asked or said of it.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Asked<'a> {
    SetName(&'a [u8]),
    GetName,
    Id,
    /// Libraries introduce themselves.
    SetInfo,
}

/// What stands behind `CLIENT`.
pub(crate) fn parse(args: Args<'_>) -> Result<Asked<'_>, Wrong<'_>> {
    let (what, rest) = args.split_first().ok_or(Wrong::Arity)?;
    match (&what.to_ascii_uppercase()[..], rest.len()) {
        (b"SETNAME", 1) => {
            let [given] = rest.all().expect("it is one");
            name(given).map(Asked::SetName)
        }
        (b"GETNAME", 0) => Ok(Asked::GetName),
        (b"ID", 0) => Ok(Asked::Id),
        (b"SETINFO", _) => Ok(Asked::SetInfo),
        (b"SETNAME" | b"GETNAME" | b"ID", _) => Err(Wrong::Arity),
        _ => Err(Wrong::Text("ERR CLIENT knows GETNAME, ID, SETINFO and SETNAME alone")),
    }
}

/// A name that may be given; an empty one is none.
pub(crate) fn name(given: &[u8]) -> Result<&[u8], Wrong<'_>> {
    match given {
        _ if given.len() > NAME_BYTES_MAX => Err(Wrong::Text(NAME_TOO_LONG)),
        _ if given.iter().all(u8::is_ascii_graphic) => Ok(given),
        _ => Err(Wrong::Text(NAME_IS_ODD)),
    }
}

/// A client, as its connection knows it.
#[derive(Debug, Default)]
pub(crate) struct Client {
    /// In the order of their coming to this server, from one on.
    pub(crate) id: u64,
    name: Vec<u8>,
    /// How old what it reads may be.
    pub(crate) stale: Stale,
}

impl Client {
    pub(crate) const fn new(id: u64) -> Self {
        Self { id, name: Vec::new(), stale: Stale::NEVER }
    }

    pub(crate) fn call(&mut self, name: &[u8]) {
        self.name = name.to_vec();
    }

    pub(crate) fn answer_stale(&mut self, asked: stale::Asked, out: &mut Vec<u8>) {
        match asked {
            stale::Asked::Tell => answer::integer(out, self.stale.millis().cast_signed()),
            stale::Asked::Set(stale) => {
                self.stale = stale;
                answer::simple(out, "OK");
            }
        }
    }

    pub(crate) fn answer(&mut self, asked: &Asked<'_>, out: &mut Vec<u8>) {
        match asked {
            Asked::SetName(name) => {
                self.call(name);
                answer::simple(out, "OK");
            }
            Asked::GetName if self.name.is_empty() => answer::null(out),
            Asked::GetName => answer::bulk(out, &self.name),
            Asked::Id => answer::integer(out, self.id.cast_signed()),
            Asked::SetInfo => answer::simple(out, "OK"),
        }
    }
}
