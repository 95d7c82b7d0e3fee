//! `lakebed member` and `lakebed transfer`: orders to a leader that change who is in the cluster, or
//! who leads it.
//!
//! Whoever is asked and does not lead says who does. Invariant: a change is asked for once more only
//! after it was refused for certain.

use crate::{
    args::{Ask, Member, Transfer},
    client::{Node, why},
    progress::{QUIET, entries_bar},
    say,
};
use anyhow::{Result, anyhow, bail};
use serde_json::json;
use std::{
    collections::BTreeMap,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

/// How long a change may take: a node that is added is asked for three election timeouts.
const CHANGE_PATIENCE: Duration = Duration::from_secs(60);
/// How often a learner that lags is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A learner that got no further for so long is not waited for.
const STILL_MAX: Duration = Duration::from_secs(60);

pub(crate) fn transfer(args: &Transfer) -> Result<ExitCode> {
    let mut node = Node::connect(args.address)?;
    node.connection.set_read_timeout(Some(CHANGE_PATIENCE))?;
    let to = args.to.map(|id| id.to_string());
    let words: Vec<&str> = ["LAKEBED", "TRANSFER"].into_iter().chain(to.as_deref()).collect();
    let _: String = node.ask(&words).map_err(|error| anyhow!("{}", why(&error)))?;
    let info = info(&mut node)?;
    let leader = info.get("leader").map_or("nobody yet", String::as_str);
    if args.json {
        say(json!({ "leader": leader.parse::<u64>().ok() }));
    } else {
        say(format_args!("node {leader} leads"));
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn run(member: &Member) -> Result<ExitCode> {
    match member {
        Member::List(ask) => list(ask),
        Member::Add { ask, id, peer } => {
            let (id, peer) = (id.to_string(), peer.to_string());
            change(ask, &["ADD", &id, &peer])?;
            told(
                ask,
                &format!("node {id} is a learner now; `lakebed member promote` gives it a vote"),
            )
        }
        Member::Promote { ask, id } => {
            caught_up(ask, *id, &["PROMOTE", &id.to_string()])?;
            told(ask, &format!("node {id} votes now"))
        }
        Member::Demote { ask, id } => {
            change(ask, &["DEMOTE", &id.to_string()])?;
            told(ask, &format!("node {id} is a learner now"))
        }
        Member::Remove { ask, id } => {
            change(ask, &["REMOVE", &id.to_string()])?;
            told(ask, &format!("node {id} is no member any more, and stops; its id is used up"))
        }
        Member::Replace { ask, old, new, peer } => {
            let (id, old) = (new.to_string(), old.to_string());
            let known = info(&mut Node::connect(ask.address)?)?;
            // An earlier attempt may have come as far.
            if !members(&known).any(|(known, _)| known == id) {
                change(ask, &["ADD", &id, &peer.to_string()])?;
            }
            caught_up(ask, *new, &["PROMOTE", &id, "REMOVE", &old])?;
            told(ask, &format!("node {id} votes in the place of node {old}, which stops"))
        }
    }
}

/// One change, of one or more steps.
fn change(ask: &Ask, steps: &[&str]) -> Result<()> {
    let mut node = Node::connect(ask.address)?;
    ordered(&mut node, steps).map_err(|why| anyhow!(why))
}

fn ordered(node: &mut Node, steps: &[&str]) -> Result<(), String> {
    let words: Vec<&str> = ["LAKEBED", "CHANGE"].iter().chain(steps).copied().collect();
    let limit = node.connection.set_read_timeout(Some(CHANGE_PATIENCE));
    limit.map_err(|error| error.to_string())?;
    node.ask(&words).map(|_: String| ()).map_err(|error| why(&error))
}

/// A change that wants a learner to have caught up: as long as it gets further it is waited for.
fn caught_up(ask: &Ask, id: u64, steps: &[&str]) -> Result<()> {
    let mut node = Node::connect(ask.address)?;
    let (started, bar) = (Instant::now(), entries_bar("catching up"));
    let (mut furthest, mut moved) = (0, Instant::now());
    loop {
        let Err(refused) = ordered(&mut node, steps) else {
            bar.finish_and_clear();
            return Ok(());
        };
        if !refused.contains("has not caught up") && !refused.contains("does not answer") {
            bar.finish_and_clear();
            bail!(refused);
        }
        let info = info(&mut node)?;
        let number = |name: &str| info.get(name).and_then(|text| text.parse::<u64>().ok());
        let matched = matched(&info, &id.to_string()).unwrap_or(0);
        if matched > furthest {
            (furthest, moved) = (matched, Instant::now());
        }
        if moved.elapsed() > STILL_MAX {
            bar.finish_and_clear();
            bail!("{refused}; it got no further for {} s: does it run?", STILL_MAX.as_secs());
        }
        if started.elapsed() >= QUIET {
            bar.set_length(number("committed").unwrap_or(matched).max(matched));
            bar.set_position(matched);
        }
        thread::sleep(LOOK_EVERY);
    }
}

fn list(ask: &Ask) -> Result<ExitCode> {
    let info = info(&mut Node::connect(ask.address)?)?;
    let learners = info.get("learners").map_or("", String::as_str);
    let learns = |id: &str| learners.split(',').any(|learner| learner == id);
    let found = members(&info).map(|(id, address)| (id, address, learns(id), matched(&info, id)));
    let found: Vec<_> = found.collect();
    if ask.json {
        let one = |(id, address, is_learner, matched): &(&str, &str, bool, Option<u64>)| {
            json!({
                "id": id.parse::<u64>().ok(), "address": address, "votes": !is_learner,
                "matched": matched,
            })
        };
        say(json!({ "members": found.iter().map(one).collect::<Vec<_>>() }));
        return Ok(ExitCode::SUCCESS);
    }
    for (id, address, is_learner, matched) in found {
        let role = if is_learner { "learns" } else { "votes" };
        let far = matched.map(|index| format!(", holds the log up to {index}")).unwrap_or_default();
        say(format_args!("node {id} at {address} {role}{far}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn told(ask: &Ask, what: &str) -> Result<ExitCode> {
    if ask.json {
        return list(ask);
    }
    say(what);
    Ok(ExitCode::SUCCESS)
}

/// Ids and addresses.
fn members(info: &Info) -> impl Iterator<Item = (&str, &str)> {
    let members = info.get("members").map_or("", String::as_str);
    members.split(',').filter_map(|member| member.split_once('@'))
}

/// How far a leader knows a member to hold its log.
fn matched(info: &Info, id: &str) -> Option<u64> {
    let mut peers = info.get("peers")?.split(',').filter_map(|peer| peer.split_once('='));
    let (_, how) = peers.find(|(peer, _)| *peer == id)?;
    how.split('/').next()?.parse().ok()
}

type Info = BTreeMap<String, String>;

/// What the node tells of itself, by name.
fn info(node: &mut Node) -> Result<Info> {
    let text: String = node.ask(&["INFO"]).map_err(|error| anyhow!("{}", why(&error)))?;
    let pair = |line: &str| {
        let (name, value) = line.trim().split_once(':')?;
        Some((name.to_owned(), value.to_owned()))
    };
    Ok(text.lines().filter_map(pair).collect())
}
