//! What stands in the log: commands and their bytes.
//!
//! Knows neither RESP nor the state. Invariant: the bytes never change their meaning; a new
//! command gets a new first byte.

use crate::options::{Expiry, Lives, Only, When};
use bytes::BufMut;
use std::fmt;

const SET: u8 = 1;
const DEL: u8 = 2;
const INCR: u8 = 3;
const APPEND: u8 = 4;
const MSET: u8 = 5;
const EXPIRE: u8 = 6;
const TICK: u8 = 7;
const SET_AS: u8 = 8;
const SET_NEW: u8 = 9;
const GET_DEL: u8 = 10;
const GET_EX: u8 = 11;
const EXPIRE_AS: u8 = 12;
const PERSIST: u8 = 13;
const MSET_NEW: u8 = 14;
const RENAME: u8 = 15;
const GET: u8 = 32;
const EXISTS: u8 = 33;
const MGET: u8 = 34;
const TTL: u8 = 35;
const DBSIZE: u8 = 36;
const SCAN: u8 = 37;
const DIGEST: u8 = 38;
const TYPE: u8 = 39;
const STRLEN: u8 = 40;
const GET_RANGE: u8 = 41;

/// A command. Those that only read may stand in the log too, where they are answered like any.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command<'a> {
    /// Gives a key a value.
    Set {
        /// The key.
        key: &'a [u8],
        /// Its value.
        value: &'a [u8],
        /// Whether it may, or must, exist.
        when: When,
        /// How many milliseconds it lives. Zero: for ever.
        millis: u64,
    },
    /// The same in all its forms; those of [`Set`](Self::Set) are not written so.
    SetAs {
        /// The key.
        key: &'a [u8],
        /// Its value.
        value: &'a [u8],
        /// Whether it may, or must, exist.
        when: When,
        /// For how long.
        lives: Lives,
        /// Whether the value of before is the answer (GET).
        tells: bool,
    },
    /// Gives a key a value unless it exists; answers how many have a new one (SETNX).
    SetNew {
        /// The key.
        key: &'a [u8],
        /// Its value.
        value: &'a [u8],
    },
    /// Removes a key; answers its value.
    GetDel(&'a [u8]),
    /// A key's value, and how long it lives from now on.
    GetEx {
        /// The key.
        key: &'a [u8],
        /// For how long; not [`AsBefore`](Lives::AsBefore), which [`Get`](Self::Get) is.
        lives: Lives,
    },
    /// Removes keys; answers how many there were.
    Del(List<'a>),
    /// Adds to a key's decimal value; an absent key is zero.
    Incr {
        /// The key.
        key: &'a [u8],
        /// How much.
        by: i64,
    },
    /// Adds bytes behind a key's value; an absent key is empty.
    Append {
        /// The key.
        key: &'a [u8],
        /// The bytes.
        value: &'a [u8],
    },
    /// Gives keys values: key, value, key, value...
    MSet(List<'a>),
    /// The same unless one of the keys exists; answers whether they have the values (MSETNX).
    MSetNew(List<'a>),
    /// Takes what a key has, and how long it lives, to another one.
    Rename {
        /// The key.
        key: &'a [u8],
        /// The other one.
        to: &'a [u8],
        /// Unless that one exists; then the answer is whether it was done (RENAMENX).
        only_new: bool,
    },
    /// Sets how long a key lives from now on.
    Expire {
        /// The key.
        key: &'a [u8],
        /// Milliseconds; none left: it is removed.
        millis: i64,
    },
    /// The same in all its forms; those of [`Expire`](Self::Expire) are not written so.
    ExpireAs {
        /// The key.
        key: &'a [u8],
        /// When.
        expiry: Expiry,
        /// What it asks of the expiry of before.
        only: Only,
    },
    /// Takes a key's expiry from it.
    Persist(&'a [u8]),
    /// Changes nothing but the time.
    Tick,
    /// A key's value.
    Get(&'a [u8]),
    /// What a key's value is: a string, or nothing.
    Type(&'a [u8]),
    /// How long a key's value is.
    StrLen(&'a [u8]),
    /// A piece of a key's value: none of a key that is not there.
    GetRange {
        /// The key.
        key: &'a [u8],
        /// The piece's first byte, from the value's beginning or, below zero, from its end.
        start: i64,
        /// Its last one.
        end: i64,
    },
    /// How many of these keys exist.
    Exists(List<'a>),
    /// The values of these keys.
    MGet(List<'a>),
    /// How long a key has to live.
    Ttl {
        /// The key.
        key: &'a [u8],
        /// In milliseconds, not seconds.
        millis: bool,
    },
    /// How many keys there are, some of them expired and not yet removed.
    DbSize,
    /// Some keys, and where to go on.
    Scan {
        /// Where to begin: zero, or what the scan before answered.
        cursor: u64,
        /// About how many keys to look at; fewer where that is much work.
        count: u32,
        /// What they must match: 1 KiB at most.
        pattern: &'a [u8],
    },
    /// The last applied command's index and a digest of the whole state: it reads all of it at one go,
    /// for about a second and a quarter per gigabyte, and nothing else of the node has its turn meanwhile.
    Digest,
}

impl Command<'_> {
    /// Whether it changes nothing.
    #[must_use]
    pub const fn is_read(&self) -> bool {
        match self {
            Self::Set { .. }
            | Self::SetAs { .. }
            | Self::SetNew { .. }
            | Self::GetDel(_)
            | Self::GetEx { .. }
            | Self::ExpireAs { .. }
            | Self::Persist(_)
            | Self::Del(_)
            | Self::Incr { .. }
            | Self::Append { .. }
            | Self::MSet(_)
            | Self::MSetNew(_)
            | Self::Rename { .. }
            | Self::Expire { .. }
            | Self::Tick => false,
            Self::Get(_)
            | Self::GetRange { .. }
            | Self::Type(_)
            | Self::StrLen(_)
            | Self::Exists(_)
            | Self::MGet(_)
            | Self::Ttl { .. }
            | Self::DbSize
            | Self::Scan { .. }
            | Self::Digest => true,
        }
    }

    /// How many values it may answer with; `None`: it looks at more than it names, and is not
    /// worth every node's time.
    #[must_use]
    pub fn values(&self) -> Option<usize> {
        match self {
            Self::Get(_) | Self::GetRange { .. } | Self::GetDel(_) | Self::GetEx { .. } => Some(1),
            Self::SetAs { tells, .. } => Some((*tells).into()),
            Self::MGet(keys) => Some(keys.iter().count()),
            Self::Scan { .. } | Self::Digest => None,
            _ => Some(0),
        }
    }

    /// Adds its bytes to `out`: fewer than a client sent to ask for it.
    pub fn encode(&self, out: &mut impl BufMut) {
        match *self {
            Self::Set { key, value, when, millis } => {
                out.put_slice(&[SET, when as u8]);
                out.put_u64_le(millis);
                put(out, key);
                out.put_slice(value);
            }
            Self::SetAs { key, value, when, lives, tells } => {
                let (kind, millis) = lives.to_parts();
                out.put_slice(&[SET_AS, when as u8, kind, tells.into()]);
                out.put_u64_le(millis);
                put(out, key);
                out.put_slice(value);
            }
            Self::SetNew { key, value } => {
                out.put_u8(SET_NEW);
                put(out, key);
                out.put_slice(value);
            }
            Self::GetEx { key, lives } => {
                let (kind, millis) = lives.to_parts();
                out.put_slice(&[GET_EX, kind]);
                out.put_u64_le(millis);
                out.put_slice(key);
            }
            Self::ExpireAs { key, expiry, only } => {
                let (kind, millis) = expiry.to_parts();
                out.put_slice(&[EXPIRE_AS, only as u8, kind]);
                out.put_i64_le(millis);
                out.put_slice(key);
            }
            Self::Append { key, value } => {
                out.put_u8(APPEND);
                put(out, key);
                out.put_slice(value);
            }
            Self::Incr { key, by } => put_fields(out, INCR, &by.to_le_bytes(), key),
            Self::Expire { key, millis } => put_fields(out, EXPIRE, &millis.to_le_bytes(), key),
            Self::Del(keys) => put_fields(out, DEL, &[], keys.0),
            Self::MSet(pairs) => put_fields(out, MSET, &[], pairs.0),
            Self::MSetNew(pairs) => put_fields(out, MSET_NEW, &[], pairs.0),
            Self::Rename { key, to, only_new } => {
                out.put_slice(&[RENAME, only_new.into()]);
                put(out, key);
                out.put_slice(to);
            }
            Self::GetRange { key, start, end } => {
                out.put_u8(GET_RANGE);
                out.put_i64_le(start);
                out.put_i64_le(end);
                out.put_slice(key);
            }
            Self::Tick => out.put_u8(TICK),
            Self::Get(key) => put_fields(out, GET, &[], key),
            Self::GetDel(key) => put_fields(out, GET_DEL, &[], key),
            Self::Persist(key) => put_fields(out, PERSIST, &[], key),
            Self::Type(key) => put_fields(out, TYPE, &[], key),
            Self::StrLen(key) => put_fields(out, STRLEN, &[], key),
            Self::Exists(keys) => put_fields(out, EXISTS, &[], keys.0),
            Self::MGet(keys) => put_fields(out, MGET, &[], keys.0),
            Self::Ttl { key, millis } => put_fields(out, TTL, &[u8::from(millis)], key),
            Self::DbSize => out.put_u8(DBSIZE),
            Self::Scan { cursor, count, pattern } => {
                out.put_u8(SCAN);
                out.put_u64_le(cursor);
                out.put_u32_le(count);
                out.put_slice(pattern);
            }
            Self::Digest => out.put_u8(DIGEST),
        }
    }
}

impl<'a> Command<'a> {
    /// The keys that it names.
    pub(crate) fn keys(self) -> impl Iterator<Item = &'a [u8]> {
        let other = if let Self::Rename { to, .. } = self { Some(to) } else { None };
        let (one, list, step) = match self {
            Self::Set { key, .. }
            | Self::Incr { key, .. }
            | Self::Append { key, .. }
            | Self::Expire { key, .. }
            | Self::SetAs { key, .. }
            | Self::SetNew { key, .. }
            | Self::GetEx { key, .. }
            | Self::ExpireAs { key, .. }
            | Self::Rename { key, .. }
            | Self::GetRange { key, .. }
            | Self::Ttl { key, .. }
            | Self::GetDel(key)
            | Self::Persist(key)
            | Self::Type(key)
            | Self::StrLen(key)
            | Self::Get(key) => (Some(key), List::default(), 1),
            Self::Del(keys) | Self::Exists(keys) | Self::MGet(keys) => (None, keys, 1),
            Self::MSet(pairs) | Self::MSetNew(pairs) => (None, pairs, 2),
            Self::Tick | Self::DbSize | Self::Scan { .. } | Self::Digest => {
                (None, List::default(), 1)
            }
        };
        one.into_iter().chain(other).chain(list.iter().step_by(step))
    }

    /// The command of these bytes; `None` when no version up to this one wrote them.
    #[must_use]
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (&kind, mut rest) = bytes.split_first()?;
        Some(match kind {
            SET => {
                let when = When::from_byte(*rest.split_off_first()?)?;
                let millis = u64::from_le_bytes(fixed(&mut rest)?);
                let key = take(&mut rest)?;
                Self::Set { key, value: rest, when, millis }
            }
            APPEND => {
                let key = take(&mut rest)?;
                Self::Append { key, value: rest }
            }
            INCR => {
                let by = i64::from_le_bytes(fixed(&mut rest)?);
                Self::Incr { key: rest, by }
            }
            EXPIRE => {
                let millis = i64::from_le_bytes(fixed(&mut rest)?);
                Self::Expire { key: rest, millis }
            }
            DEL => Self::Del(List::decode(rest)?),
            MSET => Self::MSet(List::decode_pairs(rest)?),
            SET_AS..=RENAME => return Self::decode_later(kind, rest),
            _ => return Self::decode_plain(kind, rest),
        })
    }

    /// What came later: where that says the same as what was there before, it is no form of it.
    fn decode_later(kind: u8, mut rest: &'a [u8]) -> Option<Self> {
        Some(match kind {
            SET_AS => {
                let when = When::from_byte(*rest.split_off_first()?)?;
                let lives = *rest.split_off_first()?;
                let tells = flag(&mut rest)?;
                let lives = Lives::from_parts(lives, u64::from_le_bytes(fixed(&mut rest)?))?;
                if !tells && matches!(lives, Lives::Ever | Lives::For(_)) {
                    return None;
                }
                let key = take(&mut rest)?;
                Self::SetAs { key, value: rest, when, lives, tells }
            }
            SET_NEW => {
                let key = take(&mut rest)?;
                Self::SetNew { key, value: rest }
            }
            GET_EX => {
                let lives = *rest.split_off_first()?;
                let lives = Lives::from_parts(lives, u64::from_le_bytes(fixed(&mut rest)?))?;
                let lives = Some(lives).filter(|lives| *lives != Lives::AsBefore)?;
                Self::GetEx { key: rest, lives }
            }
            EXPIRE_AS => {
                let only = Only::from_byte(*rest.split_off_first()?)?;
                let expiry = *rest.split_off_first()?;
                let expiry = Expiry::from_parts(expiry, i64::from_le_bytes(fixed(&mut rest)?))?;
                if matches!((expiry, only), (Expiry::In(_), Only::Always)) {
                    return None;
                }
                Self::ExpireAs { key: rest, expiry, only }
            }
            GET_DEL => Self::GetDel(rest),
            PERSIST => Self::Persist(rest),
            MSET_NEW => Self::MSetNew(List::decode_pairs(rest)?),
            RENAME => {
                let only_new = flag(&mut rest)?;
                let key = take(&mut rest)?;
                Self::Rename { key, to: rest, only_new }
            }
            _ => return None,
        })
    }

    fn decode_plain(kind: u8, mut rest: &'a [u8]) -> Option<Self> {
        Some(match kind {
            GET => Self::Get(rest),
            EXISTS => Self::Exists(List::decode(rest)?),
            MGET => Self::MGet(List::decode(rest)?),
            TTL => {
                let millis = flag(&mut rest)?;
                Self::Ttl { key: rest, millis }
            }
            TYPE => Self::Type(rest),
            STRLEN => Self::StrLen(rest),
            GET_RANGE => {
                let start = i64::from_le_bytes(fixed(&mut rest)?);
                let end = i64::from_le_bytes(fixed(&mut rest)?);
                Self::GetRange { key: rest, start, end }
            }
            SCAN => {
                let cursor = u64::from_le_bytes(fixed(&mut rest)?);
                let count = u32::from_le_bytes(fixed(&mut rest)?);
                Self::Scan { cursor, count, pattern: rest }
            }
            TICK if rest.is_empty() => Self::Tick,
            DBSIZE if rest.is_empty() => Self::DbSize,
            DIGEST if rest.is_empty() => Self::Digest,
            _ => return None,
        })
    }
}

fn put_fields(out: &mut impl BufMut, kind: u8, fields: &[u8], rest: &[u8]) {
    out.put_u8(kind);
    out.put_slice(fields);
    out.put_slice(rest);
}

fn put(out: &mut impl BufMut, bytes: &[u8]) {
    out.put_u32_le(bytes.len() as u32);
    out.put_slice(bytes);
}

fn flag(rest: &mut &[u8]) -> Option<bool> {
    match rest.split_off_first()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn fixed<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (field, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*field)
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = u32::from_le_bytes(fixed(rest)?);
    rest.split_off(..len as usize)
}

/// Keys, or keys and values: each behind its length, a `u32`.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct List<'a>(&'a [u8]);

impl<'a> List<'a> {
    /// Writes these items into `buf`, which is emptied first, and lends it as a list.
    pub fn of<'i>(items: impl IntoIterator<Item = &'i [u8]>, buf: &'a mut Vec<u8>) -> Self {
        buf.clear();
        items.into_iter().for_each(|item| put(buf, item));
        Self(buf)
    }

    fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes;
        while !rest.is_empty() {
            take(&mut rest)?;
        }
        Some(Self(bytes))
    }

    fn decode_pairs(bytes: &'a [u8]) -> Option<Self> {
        Self::decode(bytes).filter(|list| list.iter().count() % 2 == 0)
    }

    /// The items in order.
    pub fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.0;
        std::iter::from_fn(move || take(&mut rest))
    }

    /// Two by two.
    pub(crate) fn pairs(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let mut items = self.iter();
        std::iter::from_fn(move || Some((items.next()?, items.next()?)))
    }
}

impl fmt::Debug for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(<[u8]>::escape_ascii)).finish()
    }
}

#[cfg(test)]
#[path = "command_tests.rs"]
pub(crate) mod tests;
