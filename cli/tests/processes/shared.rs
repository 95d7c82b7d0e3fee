//! Clients that write and read the same few keys through all nodes at once, and remember when:
//! whether what they saw could have been is for [`linear`](crate::linear) to say.

use crate::{
    cluster::NODES,
    common::connect,
    kill::Fate,
    linear::{Op, What, check},
};
use redis::{Connection, RedisResult};
use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Instant,
};

const KEYS: u64 = 4;

/// One client of one round.
pub(crate) struct Reader {
    pub(crate) round: u64,
    pub(crate) id: u64,
    pub(crate) port: u16,
    /// When the clocks of all clients began.
    pub(crate) origin: Instant,
}

/// What one client saw, key by key.
pub(crate) type Seen = Vec<(u64, Op)>;

impl Reader {
    /// Writes and reads until told to stop.
    pub(crate) fn run(self, stop: &AtomicBool) -> Seen {
        let (mut seen, mut at, mut connection) = (Vec::new(), self.id, None);
        for n in 0.. {
            if stop.load(Relaxed) {
                break;
            }
            let port = self.port + (at % u64::from(NODES)) as u16;
            let Some(mut open) = connection.take().or_else(|| connect(port).ok()) else {
                at += 1;
                continue;
            };
            let key = (n * 7 + self.id) % KEYS;
            let call = self.now();
            let (what, fate) = self.ask(&mut open, n, key);
            let ret = (fate == Fate::Acknowledged).then(|| self.now());
            if fate != Fate::Refused {
                seen.push((key, Op { what, call, ret }));
            }
            // Its own reads go on at another node now and then, as those of people do.
            match fate {
                Fate::Acknowledged if n % 16 > 0 => connection = Some(open),
                _ => at += 1,
            }
        }
        seen
    }

    fn ask(&self, connection: &mut Connection, n: u64, key: u64) -> (What, Fate) {
        let name = format!("shared:{}:{key}", self.round);
        if n.is_multiple_of(2) {
            let value = self.id << 32 | n;
            let result = redis::cmd("SET").arg(name).arg(value).exec(connection);
            return (What::Write(value), Fate::of(&result));
        }
        let result: RedisResult<Option<u64>> = redis::cmd("GET").arg(name).query(connection);
        let seen = result.as_ref().ok().copied().flatten();
        (What::Read(seen), Fate::of(&result.map(drop)))
    }

    fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }
}

/// All that the clients of a round saw could have been. How many operations that were.
pub(crate) fn check_all(seen: &[Seen]) -> usize {
    for key in 0..KEYS {
        let of_key = seen.iter().flatten().filter(|(of, _)| *of == key);
        let history: Vec<Op> = of_key.map(|(_, op)| *op).collect();
        if let Err(around) = check(&history) {
            panic!("shared key {key} was not linearizable; around:\n{around:#?}");
        }
    }
    seen.iter().map(Vec::len).sum()
}
