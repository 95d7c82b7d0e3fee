//! `lakebed groups`: which groups a node's keys are spread over, who leads each, and how far it is.

use crate::{args::Groups, client::Node, nodes::Nodes, say};
use anyhow::{Context, Result};
use serde::Serialize;
use std::{collections::BTreeMap, fmt, process::ExitCode};

/// What a node says of one of its groups.
#[derive(Serialize, PartialEq, Eq, Debug)]
pub(crate) struct Group {
    group: u64,
    /// The first and the last.
    slots: [u16; 2],
    role: String,
    leader: Option<u64>,
    term: u64,
    first: u64,
    committed: u64,
    applied: u64,
    last: u64,
    durable: u64,
    pub(crate) ready: bool,
    /// Nothing happens in it, and no message says so.
    resting: bool,
    /// It goes on without this node, which says here how it was.
    pub(crate) ended: bool,
}

pub(crate) fn run(args: &Groups) -> Result<ExitCode> {
    let mut nodes = Nodes::of(&args.addresses);
    let node = nodes.any()?;
    let count = node.info(None)?.number("groups").unwrap_or(1);
    let groups = listed(node, count)?;
    if args.json {
        say(serde_json::json!({ "groups": groups }));
    } else {
        groups.iter().for_each(say);
    }
    Ok(ExitCode::SUCCESS)
}

fn listed(node: &mut Node, count: u64) -> Result<Vec<Group>> {
    let info = node.info(None)?;
    if count == 1 {
        // Of one group a node tells as of itself.
        let number = |name| info.number(name).with_context(|| format!("no field {name}"));
        return Ok(vec![Group {
            group: 1,
            slots: [0, lakebed_kv::slots::SLOTS - 1],
            role: info.text("role").into(),
            leader: info.number("leader"),
            term: number("term")?,
            first: number("first")?,
            committed: number("committed")?,
            applied: number("applied")?,
            last: number("last")?,
            durable: number("durable")?,
            ready: number("ready")? == 1,
            resting: false,
            ended: false,
        }]);
    }
    let of = |group: u64| {
        let line = info.text(&format!("group{group}"));
        parse(group, line).with_context(|| format!("group {group} is told as {line:?}"))
    };
    (1..=count).map(of).collect()
}

/// All groups, out of the lines of INFO.
pub(crate) fn in_info(fields: &BTreeMap<&str, &str>) -> Vec<Group> {
    let of = |group| parse(group, fields.get(&*format!("group{group}"))?);
    (1..).map_while(of).collect()
}

/// `slots=0-4095,role=leader,leader=1,...`
fn parse(group: u64, line: &str) -> Option<Group> {
    let fields: BTreeMap<_, _> =
        line.split(',').filter_map(|field| field.split_once('=')).collect();
    let number = |name: &str| fields.get(name)?.parse::<u64>().ok();
    let (first, last) = fields.get("slots")?.split_once('-')?;
    Some(Group {
        group,
        slots: [first.parse().ok()?, last.parse().ok()?],
        role: fields.get("role")?.to_string(),
        leader: number("leader").filter(|leader| *leader > 0),
        term: number("term")?,
        first: number("first")?,
        committed: number("committed")?,
        applied: number("applied")?,
        last: number("last")?,
        durable: number("durable")?,
        ready: number("ready")? == 1,
        resting: number("resting")? == 1,
        ended: number("ended")? == 1,
    })
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, slots: [from, to], role, term, committed, applied, .. } = self;
        let leader = self.leader.map_or_else(|| "unknown".into(), |leader| leader.to_string());
        write!(f, "group {group:<4} slots {from}-{to}, {role}, term {term}, leader {leader}, ")?;
        write!(f, "log {}..={}, committed {committed}, applied {applied}", self.first, self.last)?;
        f.write_str(match (self.ended, self.ready, self.resting) {
            (true, _, _) => ", ended here",
            (false, false, _) => ", not ready",
            (false, true, true) => ", rests",
            (false, true, false) => "",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_a_line() {
        let line = "slots=0-4095,role=follower,leader=2,term=3,first=1,committed=9,applied=8,last=10,\
                    durable=10,snapshot=0.0,ready=1,resting=1,ended=0";
        let group = parse(1, line).unwrap();
        let told = "group 1    slots 0-4095, follower, term 3, leader 2, log 1..=10, committed 9, \
                    applied 8, rests";
        assert_eq!(group.to_string(), told);
        assert_eq!(parse(1, "slots=0-4095"), None);
        let leaderless = parse(1, &line.replace("leader=2", "leader=0")).unwrap();
        assert_eq!(leaderless.leader, None);
        let ended =
            parse(1, &line.replace("ready=1,resting=1,ended=0", "ready=0,resting=0,ended=1"));
        assert!(ended.unwrap().to_string().ends_with("applied 8, ended here"));
    }
}
