//! `lakebed member` and `lakebed transfer`: orders to a leader that change who is in the cluster, or
//! who leads it.
//!
//! Whoever is asked and does not lead says who does. Where keys are spread over several groups an order
//! goes to each in turn, by whichever of the given nodes leads it; what a group has done already, as an
//! earlier attempt left it, is not asked of it again. Invariant: a change is asked for once more only
//! after it was refused for certain.

use crate::{
    args::{Ask, Member, Transfer},
    client::{Info, Node, called},
    log::note,
    nodes::{Nodes, leads},
    progress::{QUIET, bytes_style, entries_bar, entries_style},
    say,
};
use anyhow::{Result, anyhow, bail};
use serde_json::{Value, json};
use std::{
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
    let mut nodes = Nodes::of(&args.addresses);
    let groups = nodes.any()?.groups(args.of.group)?;
    let (mut told, mut exit) = (Vec::new(), ExitCode::SUCCESS);
    for &group in &groups {
        match hand_over(&mut nodes, args, group, groups.len() > 1) {
            Ok(done) => told.extend(done),
            Err(error) if groups.len() == 1 => return Err(error),
            // That one group stays where it is is no reason for the others to stay.
            Err(error) => {
                note(format_args!("error: {error:#}"));
                told.push(json!({ "group": group, "error": format!("{error:#}") }));
                exit = ExitCode::FAILURE;
            }
        }
    }
    if told.is_empty() {
        bail!("{} leads none of its groups", nodes.any()?.address);
    }
    if args.json {
        match &told[..] {
            [one] if one["group"].is_null() => say(json!({ "leader": one["leader"] })),
            _ => say(json!({ "groups": told })),
        }
    }
    Ok(exit)
}

/// Lets another node lead a group, and tells who does; nothing of a group that is not meant.
fn hand_over(
    nodes: &mut Nodes,
    args: &Transfer,
    group: Option<u64>,
    are_several: bool,
) -> Result<Option<Value>> {
    let (is_alone, to) = (args.addresses.0.len() == 1, args.to.map(|id| id.to_string()));
    let (node, info) = nodes.leader(group)?;
    // Of several groups some are another's, and some are where they shall be.
    if are_several && is_alone && !leads(&info) {
        return Ok(None);
    }
    let is_there = are_several && args.to.is_some() && info.number("leader") == args.to;
    if !is_there {
        let order: Vec<&str> = ["TRANSFER"].into_iter().chain(to.as_deref()).collect();
        node.wait_up_to(CHANGE_PATIENCE);
        let done: Result<String, _> = node.order(group, &order);
        done.map_err(|error| anyhow!("{}{}", called(group), node.why(&error)))?;
    }
    let leader = node.info(group)?.number("leader");
    if !args.json {
        let who = leader.map_or_else(|| "nobody".into(), |leader| format!("node {leader}"));
        say(format_args!("{}{who} leads", called(group)));
    }
    Ok(Some(json!({ "group": group, "leader": leader })))
}

pub(crate) fn run(member: &Member) -> Result<ExitCode> {
    match member {
        Member::List(ask) => list(ask, &mut Nodes::of(&ask.addresses)),
        Member::Add { ask, id, peer } => {
            let name = id.to_string();
            let add = |node: &mut Node, group| change(node, group, &["ADD", &name, peer]);
            let told =
                format!("node {id} is a learner now; `lakebed member promote` gives it a vote");
            let is_done = |info: &Info| address_of(info, *id) == Some(peer);
            in_each(ask, is_done, add, (&told, &format!("node {id} is a member already")))
        }
        Member::Promote { ask, id } => {
            let name = id.to_string();
            let promote = |node: &mut Node, group| caught_up(node, group, *id, &["PROMOTE", &name]);
            let told = (format!("node {id} votes now"), format!("node {id} votes already"));
            in_each(ask, |info| votes(info, *id), promote, (&told.0, &told.1))
        }
        Member::Demote { ask, id } => {
            let name = id.to_string();
            let demote = |node: &mut Node, group| change(node, group, &["DEMOTE", &name]);
            let told = format!("node {id} is a learner now");
            let already = format!("node {id} is a learner already");
            in_each(ask, |info| learns(info, &name), demote, (&told, &already))
        }
        Member::Remove { ask, id } => {
            let name = id.to_string();
            let remove = |node: &mut Node, group| change(node, group, &["REMOVE", &name]);
            let told = format!("node {id} is no member any more, and stops; its id is used up");
            let already = format!("node {id} is no member, nothing was changed");
            in_each(ask, |info| !is_member(info, *id), remove, (&told, &already))
        }
        Member::Move { ask, id, peer } => {
            let name = id.to_string();
            let move_it = |node: &mut Node, group| {
                let info = node.info(group)?;
                // The engine would only say that it changes nothing.
                if leads(&info) && address_of(&info, *id) == Some(peer) {
                    bail!("node {id} is known to be at {peer} already: nothing was changed");
                }
                change(node, group, &["MOVE", &name, peer])
            };
            let told = format!("node {id} is looked for at {peer} now");
            let already = format!("node {id} is known to be at {peer} already");
            in_each(ask, |info| address_of(info, *id) == Some(peer), move_it, (&told, &already))
        }
        Member::Replace { ask, old, new, peer } => {
            let (name, gone) = (new.to_string(), old.to_string());
            let replace = |node: &mut Node, group| {
                let info = node.info(group)?;
                // Before the new one is added, which would stay. Whoever does not lead refuses by
                // itself, and may know less.
                if leads(&info) && !is_member(&info, *old) {
                    let ids: Vec<_> = members(&info).map(|(id, _)| id).collect();
                    bail!(
                        "node {old} is no member, the members are {}: nothing was changed",
                        ids.join(", ")
                    );
                }
                // An earlier attempt may have come as far.
                match address_of(&info, *new) {
                    None => change(node, group, &["ADD", &name, peer])?,
                    Some(address) if address != peer => bail!(
                        "node {new} is a member already, at {address} and not at {peer}: nothing was \
                         changed"
                    ),
                    Some(_) => {}
                }
                caught_up(node, group, *new, &["PROMOTE", &name, "REMOVE", &gone])
            };
            let is_done = |info: &Info| {
                votes(info, *new) && address_of(info, *new) == Some(peer) && !is_member(info, *old)
            };
            let told = format!("node {new} votes in the place of node {old}, which stops");
            let already = format!("node {new} votes already, and node {old} is no member");
            in_each(ask, is_done, replace, (&told, &already))
        }
    }
}

/// Gives an order to each group that is meant and has not carried it out, and says which of both it was:
/// what is told first, or second. The first refusal is the end: what was wrong there, as an address may be,
/// would be done in the others.
fn in_each(
    ask: &Ask,
    is_done: impl Fn(&Info) -> bool,
    order: impl Fn(&mut Node, Option<u64>) -> Result<()>,
    (told, told_already): (&str, &str),
) -> Result<ExitCode> {
    let mut nodes = Nodes::of(&ask.addresses);
    let groups = nodes.any()?.groups(ask.of.group)?;
    let give = |nodes: &mut Nodes, group| {
        let (node, info) = nodes.leader(group)?;
        // Where there is one, and where one is named, whoever asks for what is so already is told. What
        // one that does not lead knows may be old, or nothing: it says whom to ask.
        let skips = group.is_some() && ask.of.group.is_none() && leads(&info) && is_done(&info);
        if !skips {
            order(node, group).map_err(|error| anyhow!("{}{error:#}", called(group)))?;
        }
        Ok(if skips { told_already } else { told })
    };
    for (at, &group) in groups.iter().enumerate() {
        match give(&mut nodes, group) {
            Ok(told) if !ask.json => say(format_args!("{}{told}", called(group))),
            Ok(_) => {}
            Err(error) if ask.json && groups.len() > 1 => {
                note(format_args!("error: {error:#}"));
                tell_up_to(&mut nodes, &groups[..at], (group, &error));
                return Ok(ExitCode::FAILURE);
            }
            Err(error) => return Err(error),
        }
    }
    if ask.json && list(ask, &mut nodes).is_err() {
        // It is done all the same. The only one that may be asked is one that has just left.
        say(json!({ "members": null }));
    }
    Ok(ExitCode::SUCCESS)
}

/// Who the members are now of the groups where it is done, and why it is not in the one behind them.
fn tell_up_to(
    nodes: &mut Nodes,
    done: &[Option<u64>],
    (group, error): (Option<u64>, &anyhow::Error),
) {
    let now = |group: &Option<u64>| {
        let members = of_members(nodes, *group).map(|info| told_of(&info)).ok();
        json!({ "group": group, "members": members })
    };
    let mut told: Vec<_> = done.iter().map(now).collect();
    told.push(json!({ "group": group, "error": format!("{error:#}") }));
    say(json!({ "groups": told }));
}

/// One change, of one or more steps.
fn change(node: &mut Node, group: Option<u64>, steps: &[&str]) -> Result<()> {
    ordered(node, group, steps).map_err(|why| anyhow!(why))
}

fn ordered(node: &mut Node, group: Option<u64>, steps: &[&str]) -> Result<(), String> {
    let order: Vec<&str> = ["CHANGE"].iter().chain(steps).copied().collect();
    node.wait_up_to(CHANGE_PATIENCE);
    node.order(group, &order).map(|_: String| ()).map_err(|error| node.why(&error))
}

/// A change that wants a learner to have caught up: as long as it gets further, in a snapshot or in the
/// log, it is waited for.
fn caught_up(node: &mut Node, group: Option<u64>, id: u64, steps: &[&str]) -> Result<()> {
    let (started, bar) = (Instant::now(), entries_bar("catching up"));
    let mut watch = Watch { reached: Reached::default(), moved: started };
    loop {
        let Err(refused) = ordered(node, group, steps) else {
            bar.finish_and_clear();
            return Ok(());
        };
        if !refused.contains("has not caught up") && !refused.contains("does not answer") {
            bar.finish_and_clear();
            bail!(refused);
        }
        let info = node.info(group)?;
        watch.look(Reached::of(&info, &id.to_string()).unwrap_or_default(), Instant::now());
        if watch.moved.elapsed() > STILL_MAX {
            bar.finish_and_clear();
            bail!("{refused} It got no further for {} s: does it run?", STILL_MAX.as_secs());
        }
        if started.elapsed() >= QUIET {
            let Reached { matched, snapshot } = watch.reached;
            let last = info.number("committed").unwrap_or(matched).max(matched);
            let (style, (done, total)) = match snapshot {
                Some(bytes) => (bytes_style(), bytes),
                None => (entries_style(), (matched, last)),
            };
            bar.set_style(style);
            bar.set_length(total);
            bar.set_position(done);
        }
        thread::sleep(LOOK_EVERY);
    }
}

fn list(ask: &Ask, nodes: &mut Nodes) -> Result<ExitCode> {
    let mut groups = Vec::new();
    for group in nodes.any()?.groups(ask.of.group)? {
        let info = of_members(nodes, group)?;
        if ask.json {
            groups.push((group, told_of(&info)));
            continue;
        }
        for (id, address) in members(&info) {
            let role = if learns(&info, id) { "learns" } else { "votes" };
            let far = Reached::of(&info, id)
                .map(|reached| format!(", holds the log up to {}", reached.matched))
                .unwrap_or_default();
            say(format_args!("{}node {id} at {address} {role}{far}", called(group)));
        }
    }
    if ask.json {
        match &groups[..] {
            [(None, members)] => say(json!({ "members": members })),
            _ => {
                let one = |(group, members)| json!({ "group": group, "members": members });
                say(
                    json!({ "groups": groups.iter().map(|(g, m)| one((g, m))).collect::<Vec<_>>() }),
                );
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What is said of a group by somebody who knows its members.
fn of_members(nodes: &mut Nodes, group: Option<u64>) -> Result<Info> {
    let info = match nodes.leader(group) {
        Ok((_, info)) => info,
        // Who is a member others know as well.
        Err(_) => nodes.told_by_any(group)?,
    };
    if members(&info).next().is_none() {
        bail!(
            "{}node {} knows no members: it has not been added yet; ask one that has",
            called(group),
            info.text("node")
        );
    }
    Ok(info)
}

fn told_of(info: &Info) -> Value {
    let one = |(id, address): (&str, &str)| {
        let matched = Reached::of(info, id).map(|reached| reached.matched);
        json!({
            "id": id.parse::<u64>().ok(), "address": address, "votes": !learns(info, id),
            "matched": matched,
        })
    };
    members(info).map(one).collect()
}

/// Ids and addresses.
fn members(info: &Info) -> impl Iterator<Item = (&str, &str)> {
    info.text("members").split(',').filter_map(|member| member.split_once('@'))
}

fn is_member(info: &Info, id: u64) -> bool {
    address_of(info, id).is_some()
}

/// Where a member listens for the others.
fn address_of(info: &Info, id: u64) -> Option<&str> {
    let id = id.to_string();
    members(info).find_map(|(member, address)| (member == id).then_some(address))
}

fn learns(info: &Info, id: &str) -> bool {
    info.text("learners").split(',').any(|learner| learner == id)
}

fn votes(info: &Info, id: u64) -> bool {
    is_member(info, id) && !learns(info, &id.to_string())
}

/// How far a leader knows a member to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Reached {
    /// Where it holds the log up to.
    matched: u64,
    /// Bytes that it has of a snapshot on its way there, and in all.
    snapshot: Option<(u64, u64)>,
}

impl Reached {
    fn of(info: &Info, id: &str) -> Option<Self> {
        let mut peers = info.text("peers").split(',').filter_map(|peer| peer.split_once('='));
        let (_, how) = peers.find(|(peer, _)| *peer == id)?;
        let mut fields = how.split('/');
        let matched = fields.next()?.parse().ok()?;
        let mut bytes = fields.skip(2).map_while(|bytes| bytes.parse().ok());
        Some(Self { matched, snapshot: bytes.next().zip(bytes.next()) })
    }
}

/// Whether a member gets further.
struct Watch {
    reached: Reached,
    /// When it last did.
    moved: Instant,
}

impl Watch {
    /// A snapshot that is begun anew is one that moves.
    fn look(&mut self, reached: Reached, now: Instant) {
        if reached != self.reached {
            *self = Self { reached, moved: now };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(peers: &str) -> Reached {
        let info = Info::of(&format!("role:leader\r\npeers:{peers}\r\n"));
        Reached::of(&info, "4").unwrap_or_default()
    }

    #[test]
    fn a_snapshot_on_its_way_is_a_way_to_get_further() {
        let begun = Instant::now();
        let mut watch = Watch { reached: Reached::default(), moved: begun };
        for (n, peers) in ["4=0/probe/1", "2=9/replicate/1"].into_iter().enumerate() {
            watch.look(reached(peers), begun + Duration::from_secs(n as u64));
            assert_eq!(watch.moved, begun, "{peers}");
        }
        let ways =
            ["4=0/install/37/0/900", "4=0/install/2/50/900", "4=7/probe/1", "4=9/replicate/1"];
        for (n, peers) in ways.into_iter().enumerate() {
            let now = begun + Duration::from_secs(60 * n as u64 + 60);
            watch.look(reached(&format!("2=9/replicate/1,{peers}")), now);
            assert_eq!(watch.moved, now, "{peers}");
            watch.look(watch.reached, now + STILL_MAX);
            assert_eq!(watch.moved, now);
        }
        assert_eq!(reached("4=0/install/2/50/900").snapshot, Some((50, 900)));
    }
}
