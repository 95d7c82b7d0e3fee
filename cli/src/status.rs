//! `lakebed status`: how a node is, as it says itself by INFO.

use crate::{args, say};
use anyhow::{Context, Result};
use serde::Serialize;
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
    /// Whether writes are refused until there is room for more log.
    disk_full: bool,
    recovery: Recovery,
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
    /// Microseconds by phase.
    took_us: BTreeMap<String, u64>,
    verdict: Option<String>,
}

pub(crate) fn run(args: &args::Status) -> Result<ExitCode> {
    let address = args.address;
    let info = ask(address)
        .with_context(|| format!("cannot ask {address} how it is: does a node serve there?"))?;
    let status =
        parse(&info).with_context(|| format!("what answers on {address} is no node of lakebed"))?;
    if args.json {
        say(serde_json::to_string(&status)?);
    } else {
        say(status);
    }
    Ok(ExitCode::SUCCESS)
}

fn ask(address: SocketAddr) -> Result<String, redis::RedisError> {
    let client = redis::Client::open(format!("redis://{address}"))?;
    let mut connection = client.get_connection_with_timeout(PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    redis::cmd("INFO").query(&mut connection)
}

fn parse(info: &str) -> Result<Status> {
    let fields: BTreeMap<_, _> = info.lines().filter_map(|line| line.split_once(':')).collect();
    let text = |name: &str| fields.get(name).copied().with_context(|| format!("no field {name}"));
    let number = |name: &str| -> Result<u64> {
        let found = text(name)?;
        found.parse().with_context(|| format!("{name} is {found:?}"))
    };
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
        disk_full: number("disk_full")? != 0,
        recovery: Recovery {
            phase: text("recovery_phase")?.into(),
            bytes_done: number("recovery_bytes_done")?,
            bytes_total: number("recovery_bytes_total")?,
            took_us: took(text("recovery_took_us")?),
            verdict: Some(text("recovery_verdict")?.into())
                .filter(|text: &String| !text.is_empty()),
        },
    })
}

/// `list=12,log=340`
fn took(text: &str) -> BTreeMap<String, u64> {
    let phases = text.split(',').filter_map(|phase| phase.split_once('='));
    phases.filter_map(|(phase, us)| Some((phase.into(), us.parse().ok()?))).collect()
}

/// `term.index`; index zero is before the log.
fn position(text: &str) -> Option<Position> {
    let (term, index) = text.split_once('.')?;
    let position = Position { term: term.parse().ok()?, index: index.parse().ok()? };
    (position.index > 0).then_some(position)
}

/// The same for people: a field a line.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let leader = self.leader.map_or_else(|| "unknown".into(), |leader| leader.to_string());
        let snapshot = self.snapshot.as_ref().map_or_else(
            || "none".into(),
            |Position { term, index }| format!("{index} (term {term})"),
        );
        writeln!(f, "node       {}, {}", self.node, self.role)?;
        writeln!(f, "term       {}, leader {leader}", self.term)?;
        writeln!(f, "log        {}..={}, durable {}", self.first, self.last, self.durable)?;
        writeln!(f, "committed  {}, applied {}", self.committed, self.applied)?;
        writeln!(f, "snapshot   {snapshot}")?;
        if self.disk_full {
            writeln!(f, "disk       full: writes are refused until there is room")?;
        }
        let Recovery { phase, bytes_done, bytes_total, took_us, verdict } = &self.recovery;
        write!(f, "recovery   {phase}, {bytes_done} of {bytes_total} bytes")?;
        if let Some(verdict) = verdict {
            write!(f, "\n           {verdict}")?;
        }
        took_us.iter().try_for_each(|(phase, us)| write!(f, "\n           {phase}: {us} us"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "# Lakebed\r\nnode:2\r\nrole:follower\r\nterm:7\r\nleader:\r\nfirst:1\r\n\
        snapshot:3.40\r\ncommitted:50\r\napplied:49\r\nlast:51\r\ndurable:50\r\nready:1\r\ndisk_full:0\r\n\
        # Recovery\r\nrecovery_phase:ready\r\nrecovery_bytes_done:5\r\nrecovery_bytes_total:9\r\n\
        recovery_took_us:list=12,log=340\r\nrecovery_verdict:a clean log: nothing to do\r\n";

    #[test]
    fn info_becomes_one_object() {
        let json = serde_json::to_string(&parse(INFO).unwrap()).unwrap();
        let expected = r#"{"node":2,"role":"follower","term":7,"leader":null,"first":1,"snapshot":{"term":3,"index":40},"committed":50,"applied":49,"last":51,"durable":50,"disk_full":false,"recovery":{"phase":"ready","bytes_done":5,"bytes_total":9,"took_us":{"list":12,"log":340},"verdict":"a clean log: nothing to do"}}"#;
        assert_eq!(json, expected);
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = parse("redis_version:7.0.15\r\n").unwrap_err();
        assert_eq!(error.to_string(), "no field node");
    }

    #[test]
    fn before_the_log_there_is_no_snapshot() {
        assert_eq!(position("0.0"), None);
        assert_eq!(position("3.40"), Some(Position { term: 3, index: 40 }));
    }
}
