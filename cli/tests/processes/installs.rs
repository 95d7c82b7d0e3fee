//! A node that comes back too late for the log is sent a snapshot. It is killed while it comes, or
//! whoever sends it is, at any instant from its start until it has taken the snapshot in; and once
//! more while it recovers from that. Each time the nodes end up alike with everything that was
//! acknowledged, and a snapshot that had come whole is not sent again.
//!
//! Rounds: `LAKEBED_INSTALL_ROUNDS`, by default 6. A hundred by hand:
//! `LAKEBED_INSTALL_ROUNDS=100 cargo test --release -p lakebed-cli --test processes installs -- --nocapture`

use crate::{
    cluster::{Cluster, NODES},
    common::{PATIENCE, Scratch, eventually},
};
use std::{
    collections::BTreeMap,
    fs, iter, thread,
    time::{Duration, Instant},
};

const KEYS: u64 = 1024;
const VALUE_BYTES: usize = 4096;
/// How many keys a command names.
const BATCH: u64 = 32;

/// When a blow falls: what it waits for, and how long after that.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// The returning node was started.
    Started,
    /// It has so many hundredths of the snapshot.
    Come(u64),
    /// It has all of it, under its name.
    Named,
}

/// Draws of one round.
struct Draws(u64);

impl Draws {
    /// A number below `end` (splitmix64).
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % end
    }

    fn moment(&mut self) -> (Moment, Duration) {
        let moment = match self.below(4) {
            0 => Moment::Started,
            1 | 2 => Moment::Come(self.below(100)),
            _ => Moment::Named,
        };
        (moment, Duration::from_micros(self.below(20_000)))
    }
}

/// A cluster, and which value each key was last given.
struct Round {
    cluster: Cluster,
    values: BTreeMap<u64, u64>,
    draws: Draws,
    late: u16,
}

fn value(key: u64, version: u64) -> String {
    format!("{key}/{version}/").repeat(VALUE_BYTES / 4)[..VALUE_BYTES].into()
}

impl Round {
    /// A cluster whose log begins behind all that one of its nodes, which is down, has.
    fn new(round: u64) -> Self {
        // A snapshot soon, and nothing kept for those who are not there.
        let flags = ["--snapshot-log-bytes", "200000", "--retain-log-bytes", "0"];
        let cluster = Cluster::start(Scratch::new(), &flags, |command| command);
        let late = (round % u64::from(NODES)) as u16;
        let mut round = Self { cluster, values: BTreeMap::new(), draws: Draws(round), late };
        round.write(0);
        round.cluster.check_digests();
        let last: u64 = round.info(late, "last").parse().unwrap();
        round.cluster.kill(iter::once(late));
        let lacks = |round: &Self| {
            (0..NODES).filter(|n| *n != late).all(|n| {
                let first: u64 = round.info(n, "first").parse().unwrap();
                first > last + 1
            })
        };
        let mut version = 1;
        while !lacks(&round) {
            assert!(version < 100, "the log is kept, whatever is written");
            round.write(version);
            version += 1;
        }
        round
    }

    /// Gives every key a value, through those that are there.
    fn write(&mut self, version: u64) {
        let through = if version == 0 { self.late } else { (self.late + 1) % NODES };
        let mut node = self.cluster.node(through.into());
        for first in (0..KEYS).step_by(BATCH as usize) {
            let keys = first..first + BATCH;
            let pairs = keys.clone().flat_map(|key| [format!("key:{key}"), value(key, version)]);
            let words: Vec<String> = iter::once("MSET".into()).chain(pairs).collect();
            // Given the same value twice, a key has it once.
            node.ask::<()>(&words.iter().map(String::as_str).collect::<Vec<_>>());
            self.values.extend(keys.map(|key| (key, version)));
        }
    }

    fn info(&self, n: u16, field: &str) -> String {
        let text: String = self.cluster.node(n.into()).ask(&["INFO"]);
        let found = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        found.unwrap_or_else(|| panic!("no {field} in {text}")).trim().into()
    }

    /// Which of these leads, when one does.
    fn leader(&self, among: impl Fn(u16) -> bool) -> u16 {
        let mut leader = None;
        eventually("somebody leads", || {
            let mut among = (0..NODES).filter(|n| among(*n));
            leader = among.find(|n| self.info(*n, "role") == "leader");
            leader.is_some()
        });
        leader.unwrap()
    }

    /// Files of the late node whose names begin and end like this, and their lengths.
    fn files(&self, ends: &str) -> Vec<(String, u64)> {
        let entries = fs::read_dir(self.cluster.node_dir(self.late)).into_iter().flatten();
        let named = entries.flatten().filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let is_meant = name.starts_with("snapshot-") && name.ends_with(ends);
            is_meant.then(|| Some((name, entry.metadata().ok()?.len())))?
        });
        named.collect()
    }

    /// The snapshots that it has whole.
    fn whole(&self) -> Vec<String> {
        let files = self.files("").into_iter().map(|(name, _)| name);
        files.filter(|name| !name.ends_with(".part")).collect()
    }

    fn wait_for(&self, (moment, then): (Moment, Duration), before: &[String]) {
        let is_there = || {
            let is_named = || self.whole().iter().any(|name| !before.contains(name));
            match moment {
                Moment::Started => true,
                Moment::Come(hundredths) => {
                    let bytes = KEYS * VALUE_BYTES as u64 * hundredths / 100;
                    self.files(".part").iter().any(|(_, len)| *len >= bytes) || is_named()
                }
                Moment::Named => is_named(),
            }
        };
        let deadline = Instant::now() + PATIENCE;
        // An install takes milliseconds: nothing here pauses for as long as that.
        while !is_there() {
            assert!(Instant::now() < deadline, "the snapshot does not come");
            thread::yield_now();
        }
        let blow = Instant::now() + then;
        while Instant::now() < blow {
            thread::yield_now();
        }
    }

    /// Whether whatever leads now has the log behind this snapshot.
    fn goes_on_from(&self, snapshot: &str) -> bool {
        let index = snapshot.split('-').nth(1).and_then(|index| index.parse::<u64>().ok());
        let first: u64 = self.info(self.leader(|_| true), "first").parse().unwrap();
        index.is_some_and(|index| first <= index + 1)
    }

    /// Kills the receiver, and again while it recovers. Whether a whole snapshot was there already.
    fn kill_receiver(&mut self) -> bool {
        let before = self.whole();
        self.cluster.restart(self.late);
        let moment = self.draws.moment();
        self.wait_for(moment, &before);
        self.cluster.kill(iter::once(self.late));
        self.cluster.restart(self.late);
        let later = Duration::from_micros(self.draws.below(60_000));
        self.wait_for((Moment::Started, later), &[]);
        self.cluster.kill(iter::once(self.late));
        let came = self.whole().into_iter().find(|name| !before.contains(name));
        self.cluster.restart(self.late);
        self.converges();
        let received = self.received();
        let Some(came) = came.filter(|came| self.goes_on_from(came)) else { return false };
        assert_eq!(received, 0, "{came} was there whole, and was sent again ({moment:?})");
        true
    }

    /// Bytes of snapshots that came to the late node since it was started last.
    fn received(&self) -> u64 {
        self.info(self.late, "snapshot_bytes_received").parse().unwrap()
    }

    /// Kills the leader, which sends. Whether a whole snapshot had come before.
    fn kill_sender(&mut self) -> bool {
        let before = self.whole();
        let leader = self.leader(|n| n != self.late);
        self.cluster.restart(self.late);
        let moment = self.draws.moment();
        self.wait_for(moment, &before);
        let came = self.files("").into_iter();
        let mut came = came.filter(|(name, _)| !before.contains(name) && !name.ends_with(".part"));
        // What was lost on the way had been sent again; from now on nothing is.
        let came = came.next().map(|(name, bytes)| (name, bytes, self.received()));
        self.cluster.kill(iter::once(leader));
        self.cluster.restart(leader);
        self.converges();
        let received = self.received();
        let Some((name, bytes, before)) = came.filter(|(name, ..)| self.goes_on_from(name)) else {
            return false;
        };
        let more = received - before;
        assert!(more < bytes, "{name} of {bytes} bytes was there whole, then {more} more came");
        true
    }

    /// Everything that was acknowledged is on every node.
    fn converges(&self) {
        self.cluster.check_digests();
        let keys: Vec<_> = self.values.iter().collect();
        for n in 0..NODES {
            let mut node = self.cluster.node(n.into());
            for some in keys.chunks(BATCH as usize) {
                let names = some.iter().map(|(key, _)| format!("key:{key}"));
                let words: Vec<String> = iter::once("MGET".into()).chain(names).collect();
                let found: Vec<Option<String>> =
                    node.ask(&words.iter().map(String::as_str).collect::<Vec<_>>());
                let expected = some.iter().map(|(key, version)| Some(value(**key, **version)));
                assert!(found.into_iter().eq(expected), "node {}: not what was written", n + 1);
            }
        }
    }
}

#[test]
fn installs_survive_kill_9_and_nothing_whole_is_sent_twice() {
    let rounds =
        std::env::var("LAKEBED_INSTALL_ROUNDS").map_or(6, |rounds| rounds.parse().unwrap());
    let mut whole = 0;
    for n in 0..rounds {
        let mut round = Round::new(n);
        let was_whole = if n % 2 == 0 { round.kill_receiver() } else { round.kill_sender() };
        whole += u64::from(was_whole);
    }
    println!("{rounds} rounds: in {whole} the snapshot had come whole before the blow");
    assert!(whole > 0, "no blow fell late enough to tell whether anything is sent twice");
}
