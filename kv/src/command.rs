//! What stands in the log: commands and their bytes.
//!
//! Knows neither RESP nor the state. Invariant: the bytes never change their meaning; a new
//! command gets a new first byte.

use bytes::BufMut;
use std::fmt;

const SET: u8 = 1;
const DEL: u8 = 2;
const INCR: u8 = 3;
const APPEND: u8 = 4;
const MSET: u8 = 5;
const EXPIRE: u8 = 6;
const TICK: u8 = 7;
const GET: u8 = 32;
const EXISTS: u8 = 33;
const MGET: u8 = 34;
const TTL: u8 = 35;
const DBSIZE: u8 = 36;
const SCAN: u8 = 37;
const DIGEST: u8 = 38;

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
    /// Sets how long a key lives from now on.
    Expire {
        /// The key.
        key: &'a [u8],
        /// Milliseconds; none left: it is removed.
        millis: i64,
    },
    /// Changes nothing but the time.
    Tick,
    /// A key's value.
    Get(&'a [u8]),
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

/// What [`Command::Set`] asks of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// Nothing.
    Always,
    /// That it does not exist (NX).
    Absent,
    /// That it exists (XX).
    Present,
}

impl Command<'_> {
    /// Whether it changes nothing.
    #[must_use]
    pub const fn is_read(&self) -> bool {
        match self {
            Self::Set { .. }
            | Self::Del(_)
            | Self::Incr { .. }
            | Self::Append { .. }
            | Self::MSet(_)
            | Self::Expire { .. }
            | Self::Tick => false,
            Self::Get(_)
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
            Self::Get(_) => Some(1),
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
            Self::Append { key, value } => {
                out.put_u8(APPEND);
                put(out, key);
                out.put_slice(value);
            }
            Self::Incr { key, by } => put_fields(out, INCR, &by.to_le_bytes(), key),
            Self::Expire { key, millis } => put_fields(out, EXPIRE, &millis.to_le_bytes(), key),
            Self::Del(keys) => put_fields(out, DEL, &[], keys.0),
            Self::MSet(pairs) => put_fields(out, MSET, &[], pairs.0),
            Self::Tick => out.put_u8(TICK),
            Self::Get(key) => put_fields(out, GET, &[], key),
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
        let (one, list, step) = match self {
            Self::Set { key, .. }
            | Self::Incr { key, .. }
            | Self::Append { key, .. }
            | Self::Expire { key, .. }
            | Self::Ttl { key, .. }
            | Self::Get(key) => (Some(key), List::default(), 1),
            Self::Del(keys) | Self::Exists(keys) | Self::MGet(keys) => (None, keys, 1),
            Self::MSet(pairs) => (None, pairs, 2),
            Self::Tick | Self::DbSize | Self::Scan { .. } | Self::Digest => {
                (None, List::default(), 1)
            }
        };
        one.into_iter().chain(list.iter().step_by(step))
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
            MSET => Self::MSet(List::decode(rest).filter(|list| list.iter().count() % 2 == 0)?),
            _ => return Self::decode_plain(kind, rest),
        })
    }

    fn decode_plain(kind: u8, mut rest: &'a [u8]) -> Option<Self> {
        Some(match kind {
            GET => Self::Get(rest),
            EXISTS => Self::Exists(List::decode(rest)?),
            MGET => Self::MGet(List::decode(rest)?),
            TTL => {
                let millis = match rest.split_off_first()? {
                    0 => false,
                    1 => true,
                    _ => return None,
                };
                Self::Ttl { key: rest, millis }
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

impl When {
    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Always),
            1 => Some(Self::Absent),
            2 => Some(Self::Present),
            _ => None,
        }
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
pub(crate) mod tests {
    use super::*;

    /// One command of each kind.
    pub(crate) fn samples(buf: &mut Vec<u8>) -> Vec<Command<'_>> {
        let list = List::of([&b"k"[..], b"", b"longer", b"v"], buf);
        let (key, value) = (&b"key"[..], &b"value"[..]);
        vec![
            Command::Set { key, value, when: When::Present, millis: 1500 },
            Command::Del(list),
            Command::Incr { key, by: -3 },
            Command::Append { key, value: b"" },
            Command::MSet(list),
            Command::Expire { key, millis: -1 },
            Command::Tick,
            Command::Get(key),
            Command::Exists(list),
            Command::MGet(list),
            Command::Ttl { key, millis: true },
            Command::DbSize,
            Command::Scan { cursor: 9, count: 10, pattern: b"k*" },
            Command::Digest,
        ]
    }

    #[test]
    fn commands_are_read_back() {
        let mut buf = Vec::new();
        for command in samples(&mut buf) {
            let mut bytes = Vec::new();
            command.encode(&mut bytes);
            assert_eq!(Command::decode(&bytes), Some(command));
        }
    }

    #[test]
    fn bytes_of_no_command_are_none() {
        let odd = [&[MSET][..], &1u32.to_le_bytes(), b"k"].concat();
        let long = [&[DEL][..], &9u32.to_le_bytes(), b"k"].concat();
        let bad: [&[u8]; 7] = [b"", &[0], &[255], &[SET, 3], &[TICK, 0], &odd, &long];
        for bytes in bad {
            assert_eq!(Command::decode(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_prefix_of_a_command_does_not_panic() {
        let mut buf = Vec::new();
        for command in samples(&mut buf) {
            let mut bytes = Vec::new();
            command.encode(&mut bytes);
            for end in 0..bytes.len() {
                assert_ne!(Command::decode(&bytes[..end]), Some(command), "{end} bytes");
            }
        }
    }
}
