//! The state machine: commands in, RESP answers out.
//!
//! Knows no clock but the entries' and no client. Invariant: state and answers follow from the
//! applied commands alone.

use crate::{
    answer,
    command::{Command, List},
    frozen::{Frozen, Position, Thaw},
    glob::Glob,
    map::{Map, NEVER, SHARDS},
    options::{Expiry, Lives, Only, When},
    query::{self, Stopped},
    shard::Slot,
};
use bytes::Bytes;
use lakebed::{LogId, MachineError, StateMachine, Timestamp};
use sha2::{Digest, Sha256};

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 64 << 10;
/// The longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// The latest time at which a key may expire, in milliseconds after the beginning of 1970: in the year 2554.
#[cfg(feature = "serve")]
pub(crate) const EXPIRES_MILLIS_MAX: i64 = ((NEVER.0 - 1) / NANOS_PER_MILLI) as i64;
/// The longest answer to one command, in bytes, give or take one value.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;

/// How long the answers to a query may get before the rest waits for the next one.
/// Room for two of the longest values.
const QUERY_BYTES_MAX: usize = 2 * VALUE_BYTES_MAX + 1024;
/// How much work a query may be before the rest waits for the next one: its node does nothing else
/// meanwhile. The unit is what a byte of the digest costs, or a step of matching: about a nanosecond.
const QUERY_WORK_MAX: usize = 4 << 20;
/// What it costs to look at a key, apart from its bytes.
const KEY_WORK: usize = 64;
/// What it costs to go to the next shard.
const SHARD_WORK: usize = 8;
/// How long the answer to one SCAN may get before the rest waits for the next one.
const SCAN_BYTES_MAX: usize = 1 << 20;
/// How many expired keys each command removes, so that no command has to remove them all.
const REAPED_MAX: usize = 8;
/// By how much the machine's time may lag behind before a TTL is not worth telling.
const TTL_LAG_MAX: u64 = 100_000_000;
const NANOS_PER_MILLI: u64 = 1_000_000;

const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
const OVERFLOW: &str = "ERR increment or decrement would overflow";
const NO_SUCH_KEY: &str = "ERR no such key";
const TOO_LONG: &str = "ERR string exceeds maximum allowed size (1 MiB, keys 64 KiB)";
pub(crate) const PATTERN_TOO_LONG: &str = "ERR the pattern exceeds 1 KiB";
const ANSWER_TOO_LONG: &str = "ERR the answer exceeds 16 MiB; ask for fewer keys at a time";

/// Strings under keys, with expiry.
#[derive(Default)]
pub struct Kv {
    position: Position,
    map: Map,
    thaw: Option<Thaw>,
}

impl Kv {
    /// The last applied command's entry.
    #[must_use]
    pub const fn at(&self) -> LogId {
        self.position.at
    }

    /// The last applied command's time: the only clock there is.
    #[must_use]
    pub const fn time(&self) -> Timestamp {
        self.position.time
    }

    /// How many keys there are, some of them expired and not yet removed.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there is no key.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// SHA-256 of the whole state, in hexadecimal. Takes time in proportion to the state.
    #[must_use]
    pub fn digest(&self) -> String {
        self.digest_and_work().0
    }

    fn digest_and_work(&self) -> (String, usize) {
        let (mut hash, mut work) = (Sha256::new(), SHARDS * SHARD_WORK);
        Frozen::new(self.position, &self.map).for_each(|piece| {
            hash.update(&piece);
            work += piece.len();
        });
        (hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect(), work)
    }

    fn live(&self, key: &[u8]) -> Option<&Slot> {
        self.map.get(key).filter(|slot| slot.expires > self.position.time)
    }

    fn reap(&mut self) {
        for _ in 0..REAPED_MAX {
            let Some(key) = self.map.expired(self.position.time) else { return };
            self.map.remove(&key);
        }
    }

    /// Before a key is changed in place: what has expired is no base to build on.
    fn remove_if_expired(&mut self, key: &[u8]) {
        if self.live(key).is_none() {
            self.map.remove(key);
        }
    }

    fn perform(&mut self, command: Command<'_>, out: &mut Vec<u8>) {
        match command {
            Command::Set { key, value, when, millis } => {
                let lives = if millis == 0 { Lives::Ever } else { Lives::For(millis) };
                self.set((key, value), when, lives, false, out);
            }
            Command::SetAs { key, value, when, lives, tells } => {
                self.set((key, value), when, lives, tells, out);
            }
            Command::SetNew { key, value } => self.set_new(key, value, out),
            Command::GetDel(key) => {
                self.value(key, out);
                self.map.remove(key);
            }
            Command::GetEx { key, lives } => {
                self.value(key, out);
                if self.live(key).is_some() {
                    self.live_on(key, lives);
                }
            }
            Command::Del(keys) => self.del(keys, out),
            Command::Incr { key, by } => self.incr(key, by, out),
            Command::Append { key, value } => self.append(key, value, out),
            Command::MSet(pairs) => self.mset(pairs, out),
            Command::MSetNew(pairs) => self.mset_new(pairs, out),
            Command::Rename { key, to, only_new } => self.rename(key, to, only_new, out),
            Command::Expire { key, millis } => self.expire(key, millis, out),
            Command::ExpireAs { key, expiry, only } => self.expire_as(key, expiry, only, out),
            Command::Persist(key) => {
                let expires = self.live(key).is_some_and(|slot| slot.expires != NEVER);
                if expires {
                    self.map.expire(key, NEVER);
                }
                answer::integer(out, i64::from(expires));
            }
            Command::Tick => answer::simple(out, "OK"),
            read => drop(self.read(read, out)),
        }
    }

    fn set(
        &mut self,
        (key, value): (&[u8], &[u8]),
        when: When,
        lives: Lives,
        tells: bool,
        out: &mut Vec<u8>,
    ) {
        if !fits(key, value) {
            return answer::error(out, TOO_LONG);
        }
        let wanted = match when {
            When::Always => true,
            When::Absent => self.live(key).is_none(),
            When::Present => self.live(key).is_some(),
        };
        match (tells, wanted) {
            (true, _) => self.value(key, out),
            (false, true) => answer::simple(out, "OK"),
            (false, false) => answer::null(out),
        }
        if !wanted {
            return;
        }
        match lives {
            Lives::Ever => self.map.put(key, value, NEVER),
            Lives::For(millis) => self.map.put(key, value, self.later(millis)),
            Lives::Until(millis) => {
                self.map.put(key, value, NEVER);
                self.end(key, at(millis));
            }
            Lives::AsBefore => {
                self.remove_if_expired(key);
                self.map.replace(key, value);
            }
        }
    }

    /// How long a key that exists lives from now on.
    fn live_on(&mut self, key: &[u8], lives: Lives) {
        match lives {
            Lives::Ever => self.map.expire(key, NEVER),
            Lives::For(millis) => self.map.expire(key, self.later(millis)),
            Lives::Until(millis) => self.end(key, at(millis)),
            Lives::AsBefore => {}
        }
    }

    /// A key that exists ends at this time: now, if it is over.
    fn end(&mut self, key: &[u8], at: Timestamp) {
        if at > self.position.time {
            self.map.expire(key, at);
        } else {
            self.map.remove(key);
        }
    }

    fn set_new(&mut self, key: &[u8], value: &[u8], out: &mut Vec<u8>) {
        if !fits(key, value) {
            return answer::error(out, TOO_LONG);
        }
        let is_new = self.live(key).is_none();
        if is_new {
            self.map.put(key, value, NEVER);
        }
        answer::integer(out, i64::from(is_new));
    }

    fn del(&mut self, keys: List<'_>, out: &mut Vec<u8>) {
        let mut removed = 0;
        for key in keys.iter() {
            removed += i64::from(self.live(key).is_some());
            self.map.remove(key);
        }
        answer::integer(out, removed);
    }

    fn incr(&mut self, key: &[u8], by: i64, out: &mut Vec<u8>) {
        if !fits(key, b"") {
            return answer::error(out, TOO_LONG);
        }
        let before = match self.live(key).map(|slot| integer_of(slot.value())) {
            None => 0,
            Some(Some(number)) => number,
            Some(None) => return answer::error(out, NOT_AN_INTEGER),
        };
        let Some(after) = before.checked_add(by) else { return answer::error(out, OVERFLOW) };
        self.remove_if_expired(key);
        self.map.replace(key, after.to_string().as_bytes());
        answer::integer(out, after);
    }

    fn append(&mut self, key: &[u8], tail: &[u8], out: &mut Vec<u8>) {
        let len = self.live(key).map_or(0, |slot| slot.value().len()) + tail.len();
        if !fits(key, b"") || len > VALUE_BYTES_MAX {
            return answer::error(out, TOO_LONG);
        }
        self.remove_if_expired(key);
        self.map.extend(key, tail);
        answer::integer(out, len as i64);
    }

    /// All of them or, if one is too long, none.
    fn mset(&mut self, pairs: List<'_>, out: &mut Vec<u8>) {
        if !pairs.pairs().all(|(key, value)| fits(key, value)) {
            return answer::error(out, TOO_LONG);
        }
        pairs.pairs().for_each(|(key, value)| self.map.put(key, value, NEVER));
        answer::simple(out, "OK");
    }

    /// All of them, or none: also if one is there.
    fn mset_new(&mut self, pairs: List<'_>, out: &mut Vec<u8>) {
        if !pairs.pairs().all(|(key, value)| fits(key, value)) {
            return answer::error(out, TOO_LONG);
        }
        let are_new = pairs.pairs().all(|(key, _)| self.live(key).is_none());
        if are_new {
            pairs.pairs().for_each(|(key, value)| self.map.put(key, value, NEVER));
        }
        answer::integer(out, i64::from(are_new));
    }

    fn rename(&mut self, key: &[u8], to: &[u8], only_new: bool, out: &mut Vec<u8>) {
        if !fits(to, b"") {
            return answer::error(out, TOO_LONG);
        }
        // The memory that the slot has is the old key's as well.
        let Some((value, expires)) =
            self.live(key).map(|slot| (slot.value().to_vec(), slot.expires))
        else {
            return answer::error(out, NO_SUCH_KEY);
        };
        let wanted = !only_new || self.live(to).is_none();
        if wanted {
            self.map.remove(key);
            self.map.put(to, &value, expires);
        }
        match only_new {
            true => answer::integer(out, i64::from(wanted)),
            false => answer::simple(out, "OK"),
        }
    }

    fn expire(&mut self, key: &[u8], millis: i64, out: &mut Vec<u8>) {
        let exists = self.live(key).is_some();
        match u64::try_from(millis) {
            Ok(millis) if exists && millis > 0 => self.map.expire(key, self.later(millis)),
            _ if exists => self.map.remove(key),
            _ => {}
        }
        answer::integer(out, i64::from(exists));
    }

    fn expire_as(&mut self, key: &[u8], expiry: Expiry, only: Only, out: &mut Vec<u8>) {
        let Some(before) = self.live(key).map(|slot| slot.expires) else {
            return answer::integer(out, 0);
        };
        let after = match expiry {
            Expiry::In(millis) => {
                u64::try_from(millis).map_or(Timestamp(0), |left| self.later(left))
            }
            Expiry::At(millis) => at(u64::try_from(millis).unwrap_or(0)),
        };
        // What does not expire does so later than everything else; what does in the same millisecond, not
        // later, as Redis has no shorter time.
        let [was, is] = [before, after].map(|time| time.0 / NANOS_PER_MILLI);
        let wanted = match only {
            Only::Always => true,
            Only::Lasting => before == NEVER,
            Only::Expiring => before != NEVER,
            Only::Later => is > was,
            Only::Sooner => before == NEVER || is < was,
            Only::ExpiringSooner => before != NEVER && is < was,
        };
        if wanted {
            self.end(key, after);
        }
        answer::integer(out, i64::from(wanted));
    }

    fn later(&self, millis: u64) -> Timestamp {
        let at = self.position.time.0.saturating_add(millis.saturating_mul(NANOS_PER_MILLI));
        Timestamp(at.min(NEVER.0 - 1))
    }

    /// Answers how much work it was.
    fn read(&self, command: Command<'_>, out: &mut Vec<u8>) -> usize {
        match command {
            Command::Get(key) => self.value(key, out),
            Command::Type(key) => {
                answer::simple(out, if self.live(key).is_some() { "string" } else { "none" });
            }
            Command::StrLen(key) => {
                let len = self.live(key).map_or(0, |slot| slot.value().len());
                answer::integer(out, len as i64);
            }
            Command::GetRange { key, start, end } => {
                let value = self.live(key).map_or(&b""[..], Slot::value);
                answer::bulk(out, piece(value, start, end));
            }
            Command::Exists(keys) => {
                let found = keys.iter().filter(|key| self.live(key).is_some()).count();
                answer::integer(out, found as i64);
            }
            Command::MGet(keys) => self.mget(keys, out),
            Command::Ttl { key, millis } => answer::integer(out, self.ttl(key, millis)),
            Command::DbSize => answer::integer(out, self.len() as i64),
            Command::Scan { cursor, count, pattern } => {
                return self.scan(cursor, count, pattern, out);
            }
            Command::Digest => {
                let (digest, work) = self.digest_and_work();
                answer::array(out, 2);
                answer::integer(out, self.position.at.index.0 as i64);
                answer::bulk(out, digest.as_bytes());
                return work;
            }
            // What writes never comes here: `perform` took it, and no query may hold it.
            _ => answer::error(out, "ERR a query does not write"),
        }
        KEY_WORK + command.keys().map(|key| KEY_WORK + key.len()).sum::<usize>()
    }

    fn value(&self, key: &[u8], out: &mut Vec<u8>) {
        match self.live(key) {
            Some(slot) => answer::bulk(out, slot.value()),
            None => answer::null(out),
        }
    }

    fn mget(&self, keys: List<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        answer::array(out, keys.iter().count());
        for key in keys.iter() {
            self.value(key, out);
            if out.len() - start > ANSWER_BYTES_MAX {
                out.truncate(start);
                return answer::error(out, ANSWER_TOO_LONG);
            }
        }
    }

    /// -1: for ever, -2: no such key.
    fn ttl(&self, key: &[u8], millis: bool) -> i64 {
        match self.live(key).map(|slot| slot.expires) {
            None => -2,
            Some(NEVER) => -1,
            Some(expires) => {
                let left = (expires.0 - self.position.time.0).div_ceil(NANOS_PER_MILLI);
                (if millis { left } else { (left + 500) / 1000 }) as i64
            }
        }
    }

    /// Whole shards, so that a cursor is a shard's number and misses no key that stays.
    fn scan(&self, cursor: u64, count: u32, pattern: &[u8], out: &mut Vec<u8>) -> usize {
        let Some(mut glob) = Glob::new(pattern) else {
            answer::error(out, PATTERN_TOO_LONG);
            return KEY_WORK;
        };
        let mut shard = cursor.min(SHARDS as u64) as usize;
        let (mut seen, mut bytes, mut work, mut found) = (0, 0, KEY_WORK, Vec::new());
        while shard < SHARDS
            && seen < count as usize
            && bytes < SCAN_BYTES_MAX
            && work + glob.steps() < QUERY_WORK_MAX
        {
            let keys = self.map.shard(shard);
            let live = keys.iter().filter(|slot| slot.expires > self.position.time);
            found.extend(live.map(Slot::key).filter(|key| glob.matches(key)));
            let key_bytes = keys.iter().map(|slot| slot.key().len()).sum::<usize>();
            bytes += key_bytes;
            work += SHARD_WORK + KEY_WORK * keys.len() + key_bytes;
            seen += keys.len();
            shard += 1;
        }
        answer::array(out, 2);
        answer::bulk(out, (shard % SHARDS).to_string().as_bytes());
        answer::array(out, found.len());
        found.iter().for_each(|key| answer::bulk(out, key));
        work + glob.steps()
    }

    /// Whether, were it as late as `clock` says, a read might be answered otherwise.
    fn is_stale(&self, command: Command<'_>, clock: Timestamp) -> bool {
        let expired = |key: &[u8]| self.live(key).is_some_and(|slot| slot.expires <= clock);
        match command {
            Command::Get(key)
            | Command::GetRange { key, .. }
            | Command::Type(key)
            | Command::StrLen(key) => expired(key),
            Command::Exists(keys) | Command::MGet(keys) => keys.iter().any(expired),
            Command::Ttl { key, .. } => {
                let expires = self.live(key).is_some_and(|slot| slot.expires != NEVER);
                let lags = clock.0 > self.position.time.0.saturating_add(TTL_LAG_MAX);
                expired(key) || expires && lags
            }
            // Which keys it would list is not looked at twice.
            Command::Scan { .. } => self.map.expires_within(self.position.time, clock),
            // What has expired and was not removed is counted whatever the time is.
            _ => false,
        }
    }
}

/// So many milliseconds after the beginning of 1970.
fn at(millis: u64) -> Timestamp {
    Timestamp(millis.saturating_mul(NANOS_PER_MILLI).min(NEVER.0 - 1))
}

/// From the first of these bytes to the last; below zero they are counted from the end, and what lies before
/// the beginning is the first byte, as to Redis 7.
fn piece(value: &[u8], start: i64, end: i64) -> &[u8] {
    if start < 0 && end < 0 && start > end {
        return b"";
    }
    let len = value.len() as i64;
    let from_start = |at: i64| if at < 0 { (len + at).max(0) } else { at };
    let (start, end) = (from_start(start), from_start(end).min(len - 1));
    if start > end { b"" } else { &value[start as usize..=end as usize] }
}

fn fits(key: &[u8], value: &[u8]) -> bool {
    key.len() <= KEY_BYTES_MAX && value.len() <= VALUE_BYTES_MAX
}

/// The number whose decimal form is exactly `value`: no sign `+`, no leading zeros or spaces.
fn integer_of(value: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == value).then_some(number)
}

impl StateMachine for Kv {
    fn apply(&mut self, at: LogId, time: Timestamp, command: &[u8], answer: &mut Vec<u8>) {
        self.position = Position { at, time: self.position.time.max(time) };
        self.reap();
        match Command::decode(command) {
            Some(command) => self.perform(command, answer),
            None => answer::error(answer, "ERR unknown command in the log"),
        }
    }

    fn foresee(&self, commands: &mut dyn Iterator<Item = &[u8]>) {
        self.map.fetch(commands.filter_map(Command::decode).flat_map(Command::keys));
    }

    fn query(&self, query: &[u8], answer: &mut Vec<u8>) {
        let (terms, commands) = query::parse(query);
        let bytes_max = terms.bytes_max.min(QUERY_BYTES_MAX);
        let (mut stopped, mut count, mut work) = (Stopped::Done, 0, 0);
        for command in commands {
            if work > QUERY_WORK_MAX {
                stopped = Stopped::Budget;
                break;
            }
            if self.is_stale(command, terms.clock) {
                stopped = Stopped::Stale;
                break;
            }
            let before = answer.len();
            work += self.read(command, answer);
            if answer.len() > bytes_max && count >= terms.least {
                answer.truncate(before);
                stopped = Stopped::Budget;
                break;
            }
            count += 1;
        }
        query::finish(answer, stopped, count, self.position.time);
    }

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        Box::new(Frozen::new(self.position, &self.map))
    }

    fn restore(&mut self, offset: u64, bytes: &[u8], last: bool) -> Result<(), MachineError> {
        if offset == 0 {
            *self = Self { thaw: Some(Thaw::default()), ..Self::default() };
        }
        let not_begun = || MachineError("a state is restored from its first byte".into());
        let mut thaw = self.thaw.take().ok_or_else(not_begun)?;
        thaw.take(offset, bytes)?;
        if last {
            (self.position, self.map) = thaw.finish()?;
        } else {
            self.thaw = Some(thaw);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
