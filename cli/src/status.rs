//! `lakebed status`: how a node is, as it says itself by INFO.

use crate::{
    args,
    client::{Connection, cannot_ask, unasked},
    groups::{self, Group},
    say,
};
use anyhow::{Context, Result};
use indicatif::{BinaryBytes, HumanDuration};
use serde::{Serialize, Serializer};
use std::{collections::BTreeMap, fmt, net::SocketAddr, process::ExitCode, time::Duration};

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a node says of itself.
#[derive(Serialize, PartialEq, Eq, Debug)]
struct Status {
    node: u64,
    role: String,
    term: u64,
    leader: Option<u64>,
    first: u64,
    /// The newest durable snapshot.
    snapshot: Option<Position>,
    committed: u64,
    applied: u64,
    last: u64,
    durable: u64,
    /// Whether it votes, replicates and serves.
    ready: bool,
    /// Whether it has no vote until it has again what its disk may have lost.
    gated: bool,
    /// Whether writes are refused until there is room for more log.
    disk_full: bool,
    /// How many snapshots on its disk it knows to be bad.
    snapshots_damaged: u64,
    /// Of a leader: how far it knows each other member to be.
    peers: Vec<Peer>,
    health: Health,
    recovery: Recovery,
}

/// What a node says of itself whose keys are spread over several groups.
#[derive(Serialize, PartialEq, Eq, Debug)]
struct Spread {
    node: u64,
    /// How many groups it leads.
    leads: u64,
    /// Whether all of them vote, replicate and serve here.
    ready: bool,
    /// Whether it has no vote in one of them until it has again what its disk may have lost.
    gated: bool,
    /// Whether writes are refused in one of them until there is room for more log.
    disk_full: bool,
    /// How many snapshots on its disk it knows to be bad, of all groups.
    snapshots_damaged: u64,
    groups: Vec<Group>,
    health: Health,
}

#[derive(Serialize, PartialEq, Eq, Debug)]
struct Peer {
    node: u64,
    /// The last index that its disk holds.
    matched: u64,
    /// How many entries it lacks of what is committed.
    lag: u64,
    /// `probe`, `replicate` or `install`.
    feed: String,
    silent_ms: u64,
    /// Bytes that it has of the snapshot on its way there, and in all; none: null.
    snapshot_bytes: Option<u64>,
    snapshot_bytes_total: Option<u64>,
}

#[derive(Serialize, PartialEq, Eq, Debug)]
struct Health {
    /// Room left on the file system of its data.
    disk_free_bytes: Option<u64>,
    disk_size_bytes: Option<u64>,
    /// Durable writes that somebody waited for, and how long they took.
    disk_writes: u64,
    disk_write_mean_us: u64,
    /// The slowest of the last minute or two.
    disk_write_slowest_us: u64,
    snapshot_age_seconds: Option<u64>,
}

#[derive(Serialize, PartialEq, Eq, Debug)]
struct Position {
    term: u64,
    index: u64,
}

#[derive(Serialize, PartialEq, Eq, Debug)]
struct Recovery {
    phase: String,
    bytes_done: u64,
    bytes_total: u64,
    entries_done: u64,
    entries_total: u64,
    /// Entries of its log that were bad and that peers gave again since it started.
    entries_refilled: u64,
    /// Entries of its log that are bad and not there again.
    entries_missing: u64,
    /// Microseconds by phase, in their order.
    #[serde(serialize_with = "as_map")]
    took_us: Vec<(String, u64)>,
    verdict: Option<String>,
}

pub(crate) fn run(args: &args::Status) -> Result<ExitCode> {
    let address = args.address;
    let info = ask(address, args.group)?;
    let no_node = || format!("what answers on {address} is no node of lakebed");
    if info.contains("\r\n# Groups\r\n") {
        let spread = parse_spread(&info).with_context(no_node)?;
        if args.json {
            say(serde_json::to_string(&spread)?);
        } else {
            say(spread);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let status = parse(&info).with_context(no_node)?;
    if args.json {
        say(serde_json::to_string(&status)?);
    } else {
        say(status);
    }
    Ok(ExitCode::SUCCESS)
}

fn ask(address: SocketAddr, group: Option<u64>) -> Result<String> {
    let mut connection = Connection::open(address, PATIENCE)
        .map_err(|error| cannot_ask(address, &error, PATIENCE))?;
    let info = match group {
        None => connection.ask(&redis::cmd("INFO")),
        Some(group) => connection.ask(redis::cmd("LAKEBED").arg("GROUP").arg(group).arg("INFO")),
    };
    info.map_err(|error| unasked(address, &error, PATIENCE))
}

/// What INFO tells, by name.
struct Fields<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Fields<'a> {
    fn of(info: &'a str) -> Self {
        Self(info.lines().filter_map(|line| line.split_once(':')).collect())
    }

    fn text(&self, name: &str) -> Result<&'a str> {
        self.0.get(name).copied().with_context(|| format!("no field {name}"))
    }

    fn number(&self, name: &str) -> Result<u64> {
        let found = self.text(name)?;
        found.parse().with_context(|| format!("{name} is {found:?}"))
    }

    fn health(&self) -> Result<Health> {
        Ok(Health {
            disk_free_bytes: self.text("disk_free_bytes")?.parse().ok(),
            disk_size_bytes: self.text("disk_size_bytes")?.parse().ok(),
            disk_writes: self.number("disk_writes")?,
            disk_write_mean_us: self.number("disk_write_mean_us")?,
            disk_write_slowest_us: self.number("disk_write_slowest_us")?,
            snapshot_age_seconds: self.text("snapshot_age_seconds")?.parse().ok(),
        })
    }
}

fn parse_spread(info: &str) -> Result<Spread> {
    let fields = Fields::of(info);
    Ok(Spread {
        node: fields.number("node")?,
        leads: fields.number("leads")?,
        ready: fields.number("ready")? != 0,
        gated: fields.number("gated")? != 0,
        disk_full: fields.number("disk_full")? != 0,
        snapshots_damaged: fields.number("snapshots_damaged")?,
        groups: groups::in_info(&fields.0),
        health: fields.health()?,
    })
}

fn parse(info: &str) -> Result<Status> {
    let fields = Fields::of(info);
    let (text, number) = (|name: &str| fields.text(name), |name: &str| fields.number(name));
    Ok(Status {
        node: number("node")?,
        role: text("role")?.into(),
        term: number("term")?,
        leader: text("leader")?.parse().ok(),
        first: number("first")?,
        snapshot: position(text("snapshot")?),
        committed: number("committed")?,
        applied: number("applied")?,
        last: number("last")?,
        durable: number("durable")?,
        ready: number("ready")? != 0,
        gated: number("gated")? != 0,
        disk_full: number("disk_full")? != 0,
        snapshots_damaged: number("snapshots_damaged")?,
        peers: peers(text("peers")?, number("committed")?),
        health: fields.health()?,
        recovery: Recovery {
            phase: text("recovery_phase")?.into(),
            bytes_done: number("recovery_bytes_done")?,
            bytes_total: number("recovery_bytes_total")?,
            entries_done: number("recovery_entries_done")?,
            entries_total: number("recovery_entries_total")?,
            entries_refilled: number("recovery_entries_refilled")?,
            entries_missing: number("recovery_entries_missing")?,
            took_us: took(text("recovery_took_us")?),
            verdict: Some(text("recovery_verdict")?.into())
                .filter(|text: &String| !text.is_empty()),
        },
    })
}

/// `2=matched/feed/silent,3=matched/install/silent/bytes/total,...`
fn peers(text: &str, committed: u64) -> Vec<Peer> {
    let peer = |peer: &str| {
        let (node, rest) = peer.split_once('=')?;
        let mut rest = rest.split('/');
        let matched = rest.next()?.parse().ok()?;
        Some(Peer {
            node: node.parse().ok()?,
            matched,
            lag: committed.saturating_sub(matched),
            feed: rest.next()?.into(),
            silent_ms: rest.next()?.parse().ok()?,
            snapshot_bytes: rest.next().and_then(|bytes| bytes.parse().ok()),
            snapshot_bytes_total: rest.next().and_then(|bytes| bytes.parse().ok()),
        })
    };
    text.split(',').filter_map(peer).collect()
}

/// `list=12,log=340`
fn took(text: &str) -> Vec<(String, u64)> {
    let phases = text.split(',').filter_map(|phase| phase.split_once('='));
    phases.filter_map(|(phase, us)| Some((phase.into(), us.parse().ok()?))).collect()
}

fn as_map<S: Serializer>(took: &[(String, u64)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(took.iter().map(|(phase, us)| (phase, us)))
}

/// `term.index`; index zero is before the log.
fn position(text: &str) -> Option<Position> {
    let (term, index) = text.split_once('.')?;
    let position = Position { term: term.parse().ok()?, index: index.parse().ok()? };
    (position.index > 0).then_some(position)
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, leads, groups, health, .. } = self;
        let others_are_ready = groups.iter().all(|group| group.ready || group.ended);
        let far = standing(others_are_ready, self.gated);
        write!(f, "node       {node}, leads {leads} of {} groups{far}", groups.len())?;
        match groups.iter().filter(|group| group.ended).count() {
            0 => writeln!(f)?,
            ended => writeln!(f, ", {ended} ended here: its log says why")?,
        }
        groups.iter().try_for_each(|group| writeln!(f, "{group}"))?;
        let full = "full: writes are refused until there is room\n           ";
        write!(
            f,
            "disk       {}{}",
            if self.disk_full { full } else { "" },
            bad(self.snapshots_damaged)
        )?;
        write!(f, "{health}")
    }
}

/// Why another one had better not be stopped meanwhile; nothing, if it may.
fn standing(ready: bool, gated: bool) -> &'static str {
    match (ready, gated) {
        (true, false) => "",
        (false, false) => ", not ready yet",
        (_, true) => ", without a vote until it has again what its disk may have lost",
    }
}

/// Of damage on the disk that nothing rests on any more; nothing, if there is none.
fn bad(snapshots: u64) -> String {
    let told = match snapshots {
        0 => return String::new(),
        1 => "a snapshot is bad".into(),
        count => format!("{count} snapshots are bad"),
    };
    format!("{told}: not used any more, another one is taken\n           ")
}

/// The same for people: a field a line.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let leader = self.leader.map_or_else(|| "unknown".into(), |leader| leader.to_string());
        let snapshot = self.snapshot.as_ref().map_or_else(
            || "none".into(),
            |Position { term, index }| format!("{index} (term {term})"),
        );
        let far = standing(self.ready, self.gated);
        writeln!(f, "node       {}, {}{far}", self.node, self.role)?;
        writeln!(f, "term       {}, leader {leader}", self.term)?;
        writeln!(f, "log        {}..={}, durable {}", self.first, self.last, self.durable)?;
        writeln!(f, "committed  {}, applied {}", self.committed, self.applied)?;
        let age = self.health.snapshot_age_seconds.map(Duration::from_secs);
        let age = age.map_or_else(String::new, |age| format!(", {} old", HumanDuration(age)));
        writeln!(f, "snapshot   {snapshot}{age}")?;
        self.peers.iter().try_for_each(|peer| writeln!(f, "{peer}"))?;
        let full = "full: writes are refused until there is room\n           ";
        write!(
            f,
            "disk       {}{}",
            if self.disk_full { full } else { "" },
            bad(self.snapshots_damaged)
        )?;
        writeln!(f, "{}", self.health)?;
        write!(f, "{}", self.recovery)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, matched, lag, feed, silent_ms, snapshot_bytes, snapshot_bytes_total } =
            self;
        write!(f, "peer       {node}, {feed}")?;
        if let (Some(bytes), Some(total)) = (*snapshot_bytes, *snapshot_bytes_total) {
            write!(f, " {} of {}", BinaryBytes(bytes), BinaryBytes(total))?;
        }
        write!(f, ", durable {matched}")?;
        match lag {
            0 => write!(f, ", lacks nothing")?,
            lag => write!(f, ", lacks {lag} entries")?,
        }
        write!(f, ", heard of {:.1?} ago", Duration::from_millis(*silent_ms))
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let room = match (self.disk_free_bytes, self.disk_size_bytes) {
            (Some(free), Some(size)) => {
                format!("{} of {} free", BinaryBytes(free), BinaryBytes(size))
            }
            _ => "room not known".into(),
        };
        f.write_str(&room)?;
        // The very first one may hang.
        if self.disk_writes == 0 && self.disk_write_slowest_us == 0 {
            return Ok(());
        }
        let [mean, slowest] =
            [self.disk_write_mean_us, self.disk_write_slowest_us].map(Duration::from_micros);
        let count = self.disk_writes;
        write!(f, "\n           {count} durable writes, {mean:.1?} on average, ")?;
        write!(f, "lately at most {slowest:.1?}")
    }
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "recovery   {}", self.phase)?;
        if self.bytes_total > 0 {
            let (done, total) = (BinaryBytes(self.bytes_done), BinaryBytes(self.bytes_total));
            write!(f, ", {done} of {total}")?;
        }
        if self.entries_total > 0 {
            write!(f, ", {} of {} entries applied", self.entries_done, self.entries_total)?;
        }
        if let Some(verdict) = &self.verdict {
            // What it rests on stands behind it.
            let verdict = verdict.replacen(" (", "\n           (", 1);
            write!(f, "\n           {verdict}")?;
        }
        // No verdict tells: what it believed of the log is read behind it, and comes back behind it.
        match (self.entries_refilled, self.entries_missing) {
            (0, 0) => {}
            (back, 0) => {
                write!(f, "\n           {} bad here, given again by peers", entries(back))?
            }
            (back, missing) => write!(
                f,
                "\n           {} bad here, {back} of them given again by peers",
                entries(back + missing)
            )?,
        }
        let took = self.took_us.iter().filter(|(_, us)| *us > 0);
        let took: Vec<_> =
            took.map(|(phase, us)| format!("{phase} {:.1?}", Duration::from_micros(*us))).collect();
        took.chunks(5).try_for_each(|line| write!(f, "\n           {}", line.join(", ")))
    }
}

fn entries(count: u64) -> String {
    if count == 1 { "1 entry was".into() } else { format!("{count} entries were") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "# Lakebed\r\nnode:2\r\nrole:follower\r\nterm:7\r\nleader:\r\nfirst:1\r\n\
        snapshot:3.40\r\ncommitted:50\r\napplied:49\r\nlast:51\r\ndurable:50\r\nready:1\r\n\
        gated:0\r\ndisk_full:0\r\nsnapshots_damaged:0\r\n\
        peers:1=48/replicate/20,3=0/install/9/3145728/20971520\r\n\
        disk_free_bytes:1000\r\ndisk_size_bytes:\r\ndisk_writes:4\r\ndisk_write_mean_us:200\r\n\
        disk_write_slowest_us:900\r\nsnapshot_age_seconds:60\r\n\
        # Recovery\r\nrecovery_phase:ready\r\nrecovery_bytes_done:5\r\nrecovery_bytes_total:9\r\n\
        recovery_entries_done:3\r\nrecovery_entries_total:4\r\n\
        recovery_entries_refilled:0\r\nrecovery_entries_missing:0\r\n\
        recovery_took_us:list=12,log=340\r\nrecovery_verdict:a clean log: nothing to do\r\n";

    #[test]
    fn info_becomes_one_object() {
        let json = serde_json::to_string(&parse(INFO).unwrap()).unwrap();
        let expected = r#"{"node":2,"role":"follower","term":7,"leader":null,"first":1,"snapshot":{"term":3,"index":40},"committed":50,"applied":49,"last":51,"durable":50,"ready":true,"gated":false,"disk_full":false,"snapshots_damaged":0,"peers":[{"node":1,"matched":48,"lag":2,"feed":"replicate","silent_ms":20,"snapshot_bytes":null,"snapshot_bytes_total":null},{"node":3,"matched":0,"lag":50,"feed":"install","silent_ms":9,"snapshot_bytes":3145728,"snapshot_bytes_total":20971520}],"health":{"disk_free_bytes":1000,"disk_size_bytes":null,"disk_writes":4,"disk_write_mean_us":200,"disk_write_slowest_us":900,"snapshot_age_seconds":60},"recovery":{"phase":"ready","bytes_done":5,"bytes_total":9,"entries_done":3,"entries_total":4,"entries_refilled":0,"entries_missing":0,"took_us":{"list":12,"log":340},"verdict":"a clean log: nothing to do"}}"#;
        assert_eq!(json, expected);
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = parse("redis_version:7.0.15\r\n").unwrap_err();
        assert_eq!(error.to_string(), "no field node");
    }

    #[test]
    fn who_has_no_vote_says_so() {
        let told = |info: &str| parse(info).unwrap().to_string();
        assert!(told(INFO).starts_with("node       2, follower\n"));
        let starting = INFO.replace("\nready:1", "\nready:0");
        assert!(told(&starting).starts_with("node       2, follower, not ready yet\n"));
        let gated = starting.replace("\ngated:0", "\ngated:1");
        assert!(told(&gated).starts_with("node       2, follower, without a vote until"));
    }

    /// After such a restart it said `log-only`, and of what was lost nothing.
    #[test]
    fn what_peers_gave_again_is_told() {
        let told = |refilled, missing| {
            let info = INFO.replace("_refilled:0", &format!("_refilled:{refilled}"));
            let info = info.replace("_missing:0", &format!("_missing:{missing}"));
            parse(&info).unwrap().to_string()
        };
        assert!(!told(0, 0).contains("bad here"));
        let all = told(1, 0);
        assert!(all.contains("\n           1 entry was bad here, given again by peers\n"), "{all}");
        let some = told(4, 2);
        let expected = "\n           6 entries were bad here, 4 of them given again by peers\n";
        assert!(some.contains(expected), "{some}");
    }

    #[test]
    fn a_disk_that_ends_nothing_is_told() {
        let health = |disk_write_slowest_us| Health {
            disk_free_bytes: None,
            disk_size_bytes: None,
            disk_writes: 0,
            disk_write_mean_us: 0,
            disk_write_slowest_us,
            snapshot_age_seconds: None,
        };
        assert!(!health(0).to_string().contains("writes"));
        assert!(health(9_000_000).to_string().ends_with("lately at most 9.0s"));
    }

    #[test]
    fn before_the_log_there_is_no_snapshot() {
        assert_eq!(position("0.0"), None);
        assert_eq!(position("3.40"), Some(Position { term: 3, index: 40 }));
    }
}
