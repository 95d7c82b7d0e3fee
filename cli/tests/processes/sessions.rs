//! Three real processes, killed one by one and all at once, while clients with sessions count: what
//! is not answered is sent again with its number, through any node. Afterwards the counter is
//! exactly the number of counts, and nobody was ever answered a number that somebody else was.
//!
//! Rounds: `LAKEBED_SESSION_ROUNDS`, by default 3.

use crate::{
    cluster::{Cluster, NODES},
    common::{PATIENCE, Scratch, connect},
};
use redis::{Connection, RedisError, RedisResult};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

const CLIENTS: u64 = 4;
/// How many counts must be answered before the next blow.
const COUNTS: u64 = 40;

/// What a client did.
struct Counted {
    /// The answers, in order.
    answers: Vec<u64>,
    /// How often something was sent again.
    retries: u64,
    /// Of those, how often nobody knew whether it had been applied.
    unknown: u64,
}

/// A client that counts in a session, now through this node, now through that.
struct Client {
    /// The first node's port.
    first: u16,
    at: u64,
    connection: Option<Connection>,
    counted: Counted,
}

impl Client {
    fn run(mut self, stop: &AtomicBool, counts: &AtomicU64) -> Counted {
        let session: String = self.insist(&["LAKEBED", "SESSION", "OPEN"]);
        for number in 1_u64.. {
            if stop.load(Relaxed) {
                break;
            }
            let number = number.to_string();
            let words = ["LAKEBED", "SESSION", "DO", &session, &number, "INCR", "counter"];
            let answer = self.insist(&words);
            self.counted.answers.push(answer);
            counts.fetch_add(1, Relaxed);
        }
        self.counted
    }

    /// Sends the same until it is answered.
    fn insist<T: redis::FromRedisValue>(&mut self, words: &[&str]) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.ask(words) {
                Ok(answer) => return answer,
                Err(error) => self.look_elsewhere(&error),
            }
            assert!(Instant::now() < deadline, "within {PATIENCE:?} not answered: {words:?}");
        }
    }

    fn ask<T: redis::FromRedisValue>(&mut self, words: &[&str]) -> RedisResult<T> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(self.first + (self.at % u64::from(NODES)) as u16)?,
        };
        let mut command = redis::Cmd::new();
        command.arg(words);
        let answer = command.query(&mut connection)?;
        self.connection = Some(connection);
        Ok(answer)
    }

    fn look_elsewhere(&mut self, error: &RedisError) {
        match error.code() {
            Some("TRYAGAIN" | "BUSY") => {}
            // The connection broke, or could not be made.
            None if !error.is_timeout() => self.counted.unknown += 1,
            Some("UNKNOWN") => self.counted.unknown += 1,
            code => panic!("{code:?} is no way to end a retry: {error}"),
        }
        self.counted.retries += 1;
        self.at += 1;
        thread::park_timeout(Duration::from_millis(1));
    }
}

struct Load {
    stop: Arc<AtomicBool>,
    counts: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Counted>>,
}

impl Load {
    fn start(first: u16) -> Self {
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = |at| {
            let counted = Counted { answers: Vec::new(), retries: 0, unknown: 0 };
            let client = Client { first, at, connection: None, counted };
            let (stop, counts) = (Arc::clone(&stop), Arc::clone(&counts));
            thread::spawn(move || client.run(&stop, &counts))
        };
        let threads = (0..CLIENTS).map(client).collect();
        Self { stop, counts, threads }
    }

    /// Waits until so many more counts are answered.
    fn goes_on(&self) {
        let enough = self.counts.load(Relaxed) + COUNTS;
        let deadline = Instant::now() + PATIENCE;
        while self.counts.load(Relaxed) < enough {
            assert!(Instant::now() < deadline, "within {PATIENCE:?} nothing more is counted");
            thread::park_timeout(Duration::from_millis(1));
        }
    }

    fn stop(self) -> Vec<Counted> {
        self.stop.store(true, Relaxed);
        self.threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    }
}

#[test]
fn each_count_of_a_session_counts_once_whatever_is_killed() {
    let rounds =
        std::env::var("LAKEBED_SESSION_ROUNDS").map_or(3, |rounds| rounds.parse().unwrap());
    // Small enough that nodes restart from snapshots, and with them from the table of sessions.
    let flags = ["--snapshot-log-bytes", "20000"];
    let mut cluster = Cluster::start(Scratch::new(), &flags, |command| command);
    let load = Load::start(cluster.clients);
    for _ in 0..rounds {
        for n in 0..NODES {
            load.goes_on();
            cluster.kill(std::iter::once(n));
            load.goes_on();
            cluster.restart(n);
        }
        load.goes_on();
        cluster.kill(0..NODES);
        (0..NODES).for_each(|n| cluster.restart(n));
    }
    load.goes_on();
    let all = load.stop();
    let counts = all.iter().map(|counted| counted.answers.len() as u64).sum::<u64>();
    let found: u64 = cluster.node(0).ask(&["GET", "counter"]);
    assert_eq!(found, counts, "counts that were answered, and what the counter is");
    let answers: BTreeSet<u64> = all.iter().flat_map(|counted| &counted.answers).copied().collect();
    assert!(answers.into_iter().eq(1..=counts), "each number is one client's answer");
    for counted in &all {
        assert!(counted.answers.is_sorted_by(|before, after| before < after));
    }
    let sum = |of: fn(&Counted) -> u64| all.iter().map(of).sum::<u64>();
    let (retries, unknown) = (sum(|counted| counted.retries), sum(|counted| counted.unknown));
    println!("{rounds} rounds: {counts} counts, {retries} sent again, {unknown} of them unknown");
    assert!(unknown > 0, "nothing was left open by {rounds} rounds of kills");
    cluster.check_digests();
}
