//! Transactions: there are none, and nothing of one is performed.
//!
//! Knows no command. Invariant: from a refused MULTI on everything is refused, up to what ends the
//! transaction: clients send all of it at once, and do not wait to hear that it has not begun.

use super::request::Request;

const MULTI: &str =
    "ERR MULTI: there are no transactions here; what follows is refused up to EXEC or DISCARD";
const WITHIN: &str =
    "ERR not performed: it is part of a transaction (MULTI), and there are none here";
const EXEC: &str = "EXECABORT there are no transactions here: nothing of it was performed";
const DISCARD: &str = "ERR DISCARD: there are no transactions here: nothing of it was performed";
const WATCH: &str = "ERR no key is watched: there are no transactions here";

/// What belongs to transactions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Word {
    Multi,
    Exec,
    Discard,
    /// Or UNWATCH.
    Watch,
}

/// What becomes of a client's transactions.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    /// Whether one was refused and has not ended.
    is_within: bool,
}

impl Transactions {
    /// Why this is refused; `None`: it has nothing to do with transactions.
    pub(crate) const fn refuse(&mut self, request: &Request<'_>) -> Option<&'static str> {
        Some(match (request, self.is_within) {
            (Request::Quit, _) => return None,
            (Request::Transaction(Word::Multi), false) => {
                self.is_within = true;
                MULTI
            }
            (Request::Transaction(Word::Exec), true) => {
                self.is_within = false;
                EXEC
            }
            (Request::Transaction(Word::Discard), true) => {
                self.is_within = false;
                DISCARD
            }
            (Request::Reset, _) => {
                self.is_within = false;
                return None;
            }
            (_, true) => WITHIN,
            (Request::Transaction(Word::Exec), false) => "ERR EXEC without MULTI",
            (Request::Transaction(Word::Discard), false) => "ERR DISCARD without MULTI",
            (Request::Transaction(Word::Watch), false) => WATCH,
            _ => return None,
        })
    }
}
