//! Three real processes, killed one by one and all at once, while clients write through a client
//! library. Afterwards every acknowledged write is there, none is there twice, what was refused is
//! not there, and all nodes have the same state; and what clients saw of keys that they share could
//! have been (linearizability).
//!
//! Rounds: `LAKEBED_KILL_ROUNDS`, by default 20.

use crate::{
    cluster::{Cluster, NODES},
    common::{PATIENCE, Patient, Scratch, connect},
    shared::{Reader, Seen, check_all},
};
use redis::{Connection, RedisError, RedisResult};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

const CLIENTS: u64 = 4;
/// Those that write and read what others write.
const SHARERS: u64 = 3;
/// How many writes must be acknowledged before the next blow.
const ACKS: u64 = 40;

/// What became of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    Acknowledged,
    Refused,
    Unknown,
}

impl Fate {
    pub(crate) fn of(result: &RedisResult<()>) -> Self {
        match result.as_ref().map_err(RedisError::code) {
            Ok(()) => Self::Acknowledged,
            Err(Some("TRYAGAIN" | "BUSY" | "DISKFULL")) => Self::Refused,
            // The connection broke; one that is silent for ever is no answer.
            Err(None) if result.as_ref().is_err_and(RedisError::is_timeout) => {
                panic!("a write was neither answered nor refused: {result:?}")
            }
            Err(Some("UNKNOWN") | None) => Self::Unknown,
            Err(code) => panic!("{code:?} is no way to end a write: {result:?}"),
        }
    }
}

/// The writes of one client in one round, by number.
#[derive(Default)]
struct Writes {
    name: String,
    sets: BTreeMap<u64, Fate>,
    appends: BTreeMap<u64, Fate>,
    incrs: BTreeMap<u64, Fate>,
    /// What acknowledged INCRs answered, in their order.
    counted: Vec<u64>,
}

struct Client {
    writes: Writes,
    ports: (u16, u64),
    connection: Option<Connection>,
}

impl Client {
    /// Writes, now through this node, now through that, each write once, until told to stop.
    fn run(mut self, stop: &AtomicBool, acks: &AtomicU64) -> Writes {
        for n in 0.. {
            if stop.load(Relaxed) {
                break;
            }
            let Some(mut connection) = self.connected() else { continue };
            let fate = self.write(n, &mut connection);
            match fate {
                Fate::Acknowledged => drop(acks.fetch_add(1, Relaxed)),
                _ => self.ports.1 += 1,
            }
            if fate == Fate::Acknowledged {
                self.connection = Some(connection);
            }
        }
        self.writes
    }

    fn connected(&mut self) -> Option<Connection> {
        if let Some(connection) = self.connection.take() {
            return Some(connection);
        }
        let port = self.ports.0 + (self.ports.1 % u64::from(NODES)) as u16;
        let connected = connect(port).ok();
        if connected.is_none() {
            self.ports.1 += 1;
        }
        connected
    }

    fn write(&mut self, n: u64, connection: &mut Connection) -> Fate {
        let Writes { name, sets, appends, incrs, counted } = &mut self.writes;
        let (fates, result) = match n % 3 {
            0 => {
                let key = format!("set:{name}:{n}");
                (sets, redis::cmd("SET").arg(key).arg(padded(n)).exec(connection))
            }
            1 => {
                let key = format!("append:{name}");
                (appends, redis::cmd("APPEND").arg(key).arg(format!("{n};")).exec(connection))
            }
            _ => {
                let count = redis::cmd("INCR").arg(format!("incr:{name}")).query(connection);
                (incrs, count.map(|count| counted.push(count)))
            }
        };
        let fate = Fate::of(&result);
        fates.insert(n, fate);
        fate
    }
}

/// A value that says which it is.
fn padded(n: u64) -> String {
    format!("{n:0>200}")
}

impl Writes {
    fn fates(&self) -> impl Iterator<Item = Fate> {
        self.sets.values().chain(self.appends.values()).chain(self.incrs.values()).copied()
    }

    /// What the cluster holds is what it acknowledged.
    fn check(&self, node: &mut Patient) {
        let name = &self.name;
        for (n, fate) in &self.sets {
            let key = format!("set:{name}:{n}");
            let found: Option<String> = node.ask(&["GET", &key]);
            match (fate, found) {
                (Fate::Acknowledged, None) => panic!("{key} was acknowledged and is lost"),
                (Fate::Refused, Some(_)) => panic!("{key} was refused and is there"),
                (_, Some(value)) => assert_eq!(value, padded(*n), "{key}"),
                (_, None) => {}
            }
        }
        self.check_appends(node);
        self.check_incrs(node);
    }

    fn check_appends(&self, node: &mut Patient) {
        let key = format!("append:{}", self.name);
        let found: Option<String> = node.ask(&["GET", &key]);
        let found: Vec<u64> = found
            .unwrap_or_default()
            .split_terminator(';')
            .map(|n| n.parse().expect("only numbers were appended"))
            .collect();
        let acknowledged = |n: &u64| self.appends.get(n) == Some(&Fate::Acknowledged);
        let (mut once, in_order) = (found.clone(), found.iter().copied().filter(acknowledged));
        let expected = self.appends.keys().copied().filter(acknowledged);
        assert!(in_order.eq(expected), "{key}: acknowledged ones are missing, double or displaced");
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), found.len(), "{key} has an append twice: {found:?}");
        for n in found {
            let fate = self.appends.get(&n);
            assert!(
                matches!(fate, Some(Fate::Acknowledged | Fate::Unknown)),
                "{key}: {n} {fate:?}"
            );
        }
    }

    fn check_incrs(&self, node: &mut Patient) {
        let key = format!("incr:{}", self.name);
        let found: Option<u64> = node.ask(&["GET", &key]);
        let (found, count) = (found.unwrap_or(0), |fate| {
            self.incrs.values().filter(|found| **found == fate).count() as u64
        });
        let (least, unknown) = (count(Fate::Acknowledged), count(Fate::Unknown));
        assert!(
            (least..=least + unknown).contains(&found),
            "{key}: {found}, not {least}+{unknown}"
        );
        assert!(self.counted.is_sorted_by(|before, after| before < after), "{key} counts twice");
    }
}

/// The clients of one round.
struct Load {
    stop: Arc<AtomicBool>,
    acks: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Writes>>,
    sharers: Vec<JoinHandle<Seen>>,
}

impl Load {
    fn start(round: u64, port: u16) -> Self {
        let (stop, acks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = |id| {
            let writes = Writes { name: format!("{round}:{id}"), ..Writes::default() };
            let client = Client { writes, ports: (port, id), connection: None };
            let (stop, acks) = (Arc::clone(&stop), Arc::clone(&acks));
            thread::spawn(move || client.run(&stop, &acks))
        };
        let threads = (0..CLIENTS).map(client).collect();
        let origin = Instant::now();
        let sharer = |id| {
            let (reader, stop) = (Reader { round, id, port, origin }, Arc::clone(&stop));
            thread::spawn(move || reader.run(&stop))
        };
        let sharers = (0..SHARERS).map(sharer).collect();
        Self { stop, acks, threads, sharers }
    }

    /// Waits until the cluster acknowledges again.
    fn goes_on(&self) {
        let enough = self.acks.load(Relaxed) + ACKS;
        let deadline = Instant::now() + PATIENCE;
        while self.acks.load(Relaxed) < enough {
            assert!(Instant::now() < deadline, "within {PATIENCE:?} no write is acknowledged");
            thread::park_timeout(Duration::from_millis(1));
        }
    }

    fn stop(self) -> (Vec<Writes>, Vec<Seen>) {
        self.stop.store(true, Relaxed);
        let writes = self.threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        (writes, self.sharers.into_iter().map(|thread| thread.join().unwrap()).collect())
    }
}

fn round(cluster: &mut Cluster, round: u64) -> (Vec<Writes>, Vec<Seen>) {
    let load = Load::start(round, cluster.clients);
    load.goes_on();
    for n in 0..NODES {
        cluster.kill(std::iter::once(n));
        load.goes_on();
        cluster.restart(n);
    }
    load.goes_on();
    cluster.kill(0..NODES);
    (0..NODES).for_each(|n| cluster.restart(n));
    load.goes_on();
    load.stop()
}

#[test]
fn acknowledged_writes_survive_kill_9() {
    let rounds = std::env::var("LAKEBED_KILL_ROUNDS").map_or(20, |rounds| rounds.parse().unwrap());
    // Small enough that nodes restart from snapshots too. One machine has one clock.
    let flags = ["--snapshot-log-bytes", "200000", "--lease-drift-ppm", "100"];
    let mut cluster = Cluster::start(Scratch::new(), &flags, |command| command);
    let (mut all, mut shared) = (Vec::new(), 0);
    for n in 0..rounds {
        let (writes, seen) = round(&mut cluster, n);
        shared += check_all(&seen);
        let mut node = cluster.node(n);
        writes.iter().for_each(|writes| writes.check(&mut node));
        cluster.check_digests();
        all.extend(writes);
    }
    // What was there after its own round is there after all the others.
    for (n, writes) in (1..).zip(&all) {
        writes.check(&mut cluster.node(n));
    }
    let fates: Vec<_> = all.iter().flat_map(Writes::fates).collect();
    let count = |fate| fates.iter().filter(|found| **found == fate).count();
    let [kept, refused, unknown] = [Fate::Acknowledged, Fate::Refused, Fate::Unknown].map(count);
    println!("{rounds} rounds: {kept} acknowledged, {refused} refused, {unknown} unknown");
    println!("{shared} operations on shared keys, linearizable");
}
