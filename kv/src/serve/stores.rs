//! The groups that the keys are spread over: which of them a command is for, and what is asked of
//! all of them.
//!
//! Knows no connection. Invariant: a command is performed by one group as a whole, or by none.

use super::{
    clock::LogClock,
    info, run, sessions,
    stale::Stale,
    store::{Asked, Failure, Store},
};
use crate::{
    ANSWER_BYTES_MAX, Command, Queries, answer,
    slots::{Slots, slot},
};
use futures::future::{join_all, try_join_all};
use lakebed::Status;
use std::sync::Arc;

const TOO_MANY_KEYS: &str = "ERR the answer exceeds 16 MiB: SCAN tells it in parts";
/// In a cursor of SCAN, above these bits stands the group.
const CURSOR_BITS: u32 = 32;
const CROSSING: &str = "CROSSSLOT Keys in request don't hash to the same slot";

/// A group's store, and what time it is there.
#[derive(Debug)]
pub(crate) struct Group<T> {
    pub(crate) store: T,
    pub(crate) clock: LogClock,
}

/// A store for each group, in the order of their slots. One alone is a store as well.
#[derive(Debug)]
pub struct Stores<T> {
    all: Arc<[Group<T>]>,
    slots: Slots,
}

impl<T> Clone for Stores<T> {
    fn clone(&self) -> Self {
        Self { all: Arc::clone(&self.all), slots: self.slots }
    }
}

impl<T: Store> From<T> for Stores<T> {
    fn from(store: T) -> Self {
        Self::from(vec![store])
    }
}

/// Of one group at least, and [`GROUPS_MAX`](crate::slots::GROUPS_MAX) at most.
impl<T: Store> From<Vec<T>> for Stores<T> {
    fn from(all: Vec<T>) -> Self {
        let slots = Slots::over(all.len());
        let group = |store| Group { store, clock: LogClock::default() };
        Self { slots, all: all.into_iter().map(group).collect() }
    }
}

/// Where a command is performed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// By this group, numbered from zero.
    Group(usize),
    /// By none: its keys are of several.
    Crossing,
    /// It names no key, and there are several groups.
    Everywhere,
}

impl<T: Store> Stores<T> {
    pub(crate) fn count(&self) -> usize {
        self.all.len()
    }

    /// The store of a group.
    pub(crate) fn of(&self, group: usize) -> &T {
        &self.group(group).store
    }

    pub(crate) fn group(&self, group: usize) -> &Group<T> {
        &self.all[group]
    }

    pub(crate) fn place(&self, command: &Command<'_>) -> Place {
        self.common(command.keys().map(slot)).unwrap_or_else(|place| place)
    }

    /// The group that all these slots are of; without one, why.
    fn common(&self, slots: impl Iterator<Item = u16>) -> Result<Place, Place> {
        if self.count() == 1 {
            return Ok(Place::Group(0));
        }
        let mut groups = slots.map(|slot| self.slots.group(slot));
        let first = groups.next().ok_or(Place::Everywhere)?;
        if groups.all(|group| group == first) {
            return Ok(Place::Group(first));
        }
        Err(Place::Crossing)
    }

    /// The group that a client names, counting from one; the only one need not be named. Else what
    /// the client is told.
    pub(crate) fn named(&self, name: Option<u64>) -> Result<usize, Vec<u8>> {
        let count = self.count();
        let named =
            name.or_else(|| (count == 1).then_some(1)).and_then(|name| usize::try_from(name).ok());
        match named {
            Some(group @ 1..) if group <= count => Ok(group - 1),
            Some(_) => Err(error(&format!("ERR the groups are numbered 1 to {count}"))),
            None => Err(error(&format!(
                "ERR the keys are spread over {count} groups: say which one is meant, as in \
                 LAKEBED GROUP 1 DIGEST"
            ))),
        }
    }

    /// The group of a session: one that is opened goes with its key, one that is open says itself
    /// whose it is.
    pub(crate) fn of_session(&self, asked: &sessions::Asked) -> Result<usize, Vec<u8>> {
        let of_keys = self.common(asked.slots.iter().copied());
        match (asked.group, of_keys) {
            (None, Ok(Place::Group(group))) if self.count() == 1 || asked.opens => Ok(group),
            (None, _) if asked.opens => Err(error(&format!(
                "ERR the keys are spread over {} groups, and a session is of one of them: LAKEBED \
                 SESSION OPEN key opens one for the group of that key",
                self.count()
            ))),
            (None, _) => Err(error("NOSESSION a session's name begins with its group's number")),
            (Some(_), _) if self.count() == 1 => {
                Err(error("NOSESSION the keys are of one group, which no session's name tells"))
            }
            (Some(_), Err(Place::Crossing)) => Err(crossing()),
            (Some(_), of_keys) => {
                let own = self.named(asked.group)?;
                let is_elsewhere = of_keys.is_ok_and(|place| place != Place::Group(own));
                if is_elsewhere { Err(crossing()) } else { Ok(own) }
            }
        }
    }

    /// How many keys all groups have.
    pub(crate) async fn count_keys(&self, stale: Stale, out: &mut Vec<u8>) {
        let counts = self.all.iter().map(|group| async {
            let values = ask_one(group, stale, &Command::DbSize).await?;
            let number = values.strip_prefix(b":").and_then(|line| line.strip_suffix(b"\r\n"));
            let number = number.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
            number.ok_or(Failure::Unknown)
        });
        match try_join_all(counts).await {
            Ok(counts) => answer::integer(out, counts.iter().sum::<i64>()),
            Err(failure) => answer::error(out, &failure.reply(Asked::Read)),
        }
    }

    /// Some keys of the group that the cursor is in, and where to go on: there, or in the next.
    pub(crate) async fn scan(
        &self,
        (cursor, stale): (u64, Stale),
        count: u32,
        pattern: &[u8],
        out: &mut Vec<u8>,
    ) {
        let group = usize::try_from(cursor >> CURSOR_BITS).unwrap_or(usize::MAX);
        let Some(asked) = self.all.get(group) else {
            // No cursor of ours: at its end, as one group sees it.
            return out.extend_from_slice(b"*2\r\n$1\r\n0\r\n*0\r\n");
        };
        let within = cursor & ((1 << CURSOR_BITS) - 1);
        let command = Command::Scan { cursor: within, count, pattern };
        let found = ask_one(asked, stale, &command).await;
        match found.as_deref().map(|values| split_scan(values).ok_or(values)) {
            Ok(Ok((next, keys))) => {
                let next = match next {
                    0 if group + 1 == self.count() => 0,
                    0 => (group as u64 + 1) << CURSOR_BITS,
                    next => (group as u64) << CURSOR_BITS | next,
                };
                answer::array(out, 2);
                answer::bulk(out, next.to_string().as_bytes());
                out.extend_from_slice(keys);
            }
            Ok(Err(complaint)) => out.extend_from_slice(complaint),
            Err(failure) => answer::error(out, &failure.reply(Asked::Read)),
        }
    }

    /// All keys of all groups, piece by piece: others have their turn between two of them, so that a key
    /// which comes or goes meanwhile may be told or not. Bounded, and refused beyond.
    pub(crate) async fn keys(&self, pattern: &[u8], stale: Stale, out: &mut Vec<u8>) {
        match self.all_keys(pattern, stale).await {
            Ok((count, keys)) => {
                answer::array(out, count);
                out.extend_from_slice(&keys);
            }
            Err(complaint) => out.extend_from_slice(&complaint),
        }
    }

    /// How many there are, and they themselves; or what the client is told.
    async fn all_keys(&self, pattern: &[u8], stale: Stale) -> Result<(usize, Vec<u8>), Vec<u8>> {
        let (mut count, mut keys) = (0, Vec::new());
        for group in self.all.iter() {
            let mut cursor = 0;
            loop {
                let scan = Command::Scan { cursor, count: u32::MAX, pattern };
                let found = ask_one(group, stale, &scan).await;
                let values = found.map_err(|failure| error(&failure.reply(Asked::Read)))?;
                let (next, more) = split_scan(&values).ok_or_else(|| values.clone())?;
                let head = answer::count_of(more).ok_or_else(|| values.clone())?;
                count += head.0;
                keys.extend_from_slice(head.1);
                if keys.len() > ANSWER_BYTES_MAX {
                    return Err(error(TOO_MANY_KEYS));
                }
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        Ok((count, keys))
    }

    /// What time it is here, or by the log where that is ahead: seconds, and the microseconds beside them.
    pub(crate) fn tell_time(&self, out: &mut Vec<u8>) {
        let time = self.all.iter().map(|group| group.clock.now()).max().unwrap_or_default();
        let micros = time.0 / 1000;
        answer::array(out, 2);
        answer::bulk(out, (micros / 1_000_000).to_string().as_bytes());
        answer::bulk(out, (micros % 1_000_000).to_string().as_bytes());
    }

    /// On how many nodes beside one each write is that was answered: what makes a majority, in the group
    /// where that is least.
    pub(crate) async fn count_replicas(&self, out: &mut Vec<u8>) {
        let counts = self.all.iter().map(|group| async {
            let members = group.store.status().await?.members;
            let others = |voters: &[_]| voters.len() / 2;
            let before = Some(&members.outgoing).filter(|outgoing| !outgoing.is_empty());
            let count = others(&members.voters);
            Ok::<_, Failure>(before.map_or(count, |outgoing| count.min(others(outgoing))))
        });
        match try_join_all(counts).await {
            Ok(counts) => answer::integer(out, counts.into_iter().min().unwrap_or(0) as i64),
            Err(failure) => answer::error(out, &failure.reply(Asked::Read)),
        }
    }

    /// How the node is: its group, or all of them; or the group that is named.
    pub(crate) async fn inform(&self, named: Option<usize>, out: &mut Vec<u8>) {
        let text = match named.or_else(|| (self.count() == 1).then_some(0)) {
            Some(group) => self.inform_of(group).await,
            None => self.inform_of_all().await,
        };
        match text {
            Ok(text) => answer::bulk(out, text.as_bytes()),
            Err(failure) => answer::error(out, &failure.reply(Asked::Read)),
        }
    }

    async fn inform_of(&self, group: usize) -> Result<String, Failure> {
        let store = self.of(group);
        let status = store.status().await?;
        Ok(info::text(&status, &store.surroundings(Some(&status)).await))
    }

    async fn inform_of_all(&self) -> Result<String, Failure> {
        let statuses = join_all(self.all.iter().map(|group| group.store.status())).await;
        let told = |(n, status): (usize, Result<Status, Failure>)| {
            let has_ended = self.of(n).has_ended();
            Ok(info::Group { slots: self.slots.of(n), status: status?, has_ended })
        };
        let groups = statuses.into_iter().enumerate().map(told).collect::<Result<Vec<_>, _>>()?;
        let surroundings = self.of(0).surroundings(None).await;
        Ok(info::text_of_groups(&groups, &surroundings))
    }
}

/// What a client is told whose keys are of several groups.
pub(crate) fn crossing() -> Vec<u8> {
    error(CROSSING)
}

fn error(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    answer::error(&mut out, text);
    out
}

/// What a group answers to one command that only reads.
async fn ask_one<T: Store>(
    group: &Group<T>,
    stale: Stale,
    command: &Command<'_>,
) -> Result<Vec<u8>, Failure> {
    let (mut queries, mut values) = (Queries::default(), Vec::new());
    queries.push(command);
    queries.clock(stale.clock(group.clock.now()));
    while !queries.is_empty() {
        run::ask(group, stale, &mut queries, &mut values).await?;
    }
    Ok(values)
}

/// The cursor that SCAN answered, and the keys, as they came.
fn split_scan(values: &[u8]) -> Option<(u64, &[u8])> {
    let rest = values.strip_prefix(b"*2\r\n")?;
    let cursor = answer::first(rest)?;
    let digits = cursor.split(|byte| *byte == b'\n').nth(1)?.strip_suffix(b"\r")?;
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, &rest[cursor.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kv, When};
    use bytes::{Buf, Bytes};
    use lakebed::{Batch, LogId, ReadMode, StateMachine, Status, Timestamp};
    use std::sync::{
        Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    };
    use tokio::time::{Duration, Instant, advance};

    /// Further than any wall clock.
    const FAR: u64 = u64::MAX / 2;

    /// The clock of whoever led before was ahead: the log's time goes on from there, as time passes.
    #[derive(Clone)]
    struct Ahead {
        begun: Instant,
        machine: Arc<Mutex<Kv>>,
        batches: Arc<AtomicU32>,
        /// So much passed before the present leader was elected, and not in the log.
        lost: Arc<AtomicU64>,
    }

    impl Store for Ahead {
        async fn propose(&self, batch: Batch, out: &mut Vec<u8>) -> Result<(), Failure> {
            let passed = u64::try_from(self.begun.elapsed().as_nanos()).unwrap();
            let passed = passed - self.lost.load(Relaxed);
            let mut body = batch.body();
            while !body.is_empty() {
                let len = body.get_u32_le() as usize;
                let mut machine = self.machine.lock().unwrap();
                machine.apply(LogId::default(), Timestamp(FAR + passed), &body[..len], out);
                body.advance(len);
            }
            self.batches.fetch_add(1, Relaxed);
            Ok(())
        }

        async fn read(&self, query: &[u8], _: ReadMode) -> Result<Bytes, Failure> {
            let mut answer = Vec::new();
            self.machine.lock().unwrap().query(query, &mut answer);
            Ok(answer.into())
        }

        async fn status(&self) -> Result<Status, Failure> {
            Err(Failure::Unknown)
        }
    }

    /// With a key, "a", that lasts for so long.
    async fn ahead(millis: u64) -> Stores<Ahead> {
        let (begun, machine, batches) = (Instant::now(), Arc::default(), Arc::default());
        let stores = Stores::from(Ahead { begun, machine, batches, lost: Arc::default() });
        let set = Command::Set { key: b"a", value: b"1", when: When::Always, millis };
        let mut batch = Batch::default();
        batch.push_with(|out| set.encode(out));
        stores.of(0).propose(batch, &mut Vec::new()).await.unwrap();
        stores
    }

    /// A leader goes on from the log's last time when it is elected. What passed before passed here alone, and
    /// each answer that tells how long a key lasts was a write from then on.
    #[tokio::test(start_paused = true)]
    async fn a_log_that_lost_time_is_asked_once() {
        let stores = ahead(86_400_000).await;
        ask_one(stores.group(0), Stale::default(), &Command::Get(b"a")).await.unwrap();
        let hour = Duration::from_secs(3600);
        advance(hour).await;
        stores.of(0).lost.store(u64::try_from(hour.as_nanos()).unwrap(), Relaxed);
        for _ in 0..10 {
            let ttl = Command::Ttl { key: b"a", millis: true };
            ask_one(stores.group(0), Stale::default(), &ttl).await.unwrap();
        }
        assert_eq!(stores.of(0).batches.load(Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn keys_of_a_log_that_is_ahead_of_all_clocks_expire_though_nobody_writes() {
        let (key, stores) = (b"a", ahead(10_000).await);
        let get = async || {
            let answer =
                ask_one(stores.group(0), Stale::default(), &Command::Get(key)).await.unwrap();
            (String::from_utf8(answer).unwrap(), stores.of(0).batches.load(Relaxed))
        };
        assert_eq!(get().await, ("$1\r\n1\r\n".into(), 1));
        advance(Duration::from_millis(9_999)).await;
        assert_eq!(get().await, ("$1\r\n1\r\n".into(), 1));
        advance(Duration::from_millis(1)).await;
        assert_eq!(get().await, ("$-1\r\n".into(), 2), "the time is asked for once");
        assert_eq!(get().await, ("$-1\r\n".into(), 2));
    }

    /// A log to which nobody writes was asked for the time, without which nothing is told, though what is told may
    /// be as old as that. And by its own time alone a key would never expire.
    #[tokio::test(start_paused = true)]
    async fn a_key_that_expired_within_the_bound_may_be_told_and_no_other() {
        let stores = ahead(10_000).await;
        let seconds = Duration::from_secs;
        let get = async |stale| {
            let answer = ask_one(stores.group(0), stale, &Command::Get(b"a")).await.unwrap();
            (String::from_utf8(answer).unwrap(), stores.of(0).batches.load(Relaxed))
        };
        assert_eq!(get(Stale::within(seconds(5))).await, ("$1\r\n1\r\n".into(), 1));
        advance(seconds(14)).await;
        assert_eq!(get(Stale::within(seconds(5))).await, ("$1\r\n1\r\n".into(), 1));
        assert_eq!(get(Stale::within(seconds(4))).await, ("$-1\r\n".into(), 2));
    }
}
