//! What INFO answers: a node's status, a field a line.

use super::address::is_odd;
use lakebed::{Role, Status, Tally};
use std::{
    fmt::{Display, Write},
    ops::RangeInclusive,
};

/// `name:value` lines under a heading, as INFO's readers expect.
pub(crate) fn text(status: &Status, surroundings: &[(&'static str, String)]) -> String {
    let mut text = String::new();
    let mut field = |name: &str, value: &dyn Display| {
        write!(text, "{name}:{value}\r\n").expect("a string takes every character");
    };
    field("# Server\r\nlakebed_version", &env!("CARGO_PKG_VERSION"));
    // Clients that know one server only look for this field.
    field("redis_mode", &"standalone");
    field("\r\n# Lakebed\r\nnode", &status.node);
    field("role", &status.role);
    field("term", &status.term);
    field("leader", &status.leader.map_or_else(String::new, |leader| leader.to_string()));
    field("first", &status.first);
    field("snapshot", &status.snapshot);
    field("committed", &status.committed);
    field("applied", &status.applied);
    field("last", &status.last);
    field("durable", &status.durable);
    field("members", &members(status));
    let learners = status.members.learners.iter().map(|learner| learner.id.to_string());
    field("learners", &learners.collect::<Vec<_>>().join(","));
    field("peers", &peers(status));
    field("ready", &u8::from(status.ready));
    field("gated", &u8::from(status.gated));
    field("disk_full", &u8::from(status.disk_full));
    field("memory_bytes", &status.memory_bytes);
    field("scrubbed_bytes", &status.scrubbed_bytes);
    field("snapshots_damaged", &status.snapshots_damaged);
    field("snapshot_bytes_sent", &status.snapshot_bytes_sent);
    field("snapshot_bytes_received", &status.snapshot_bytes_received);
    tallies(&mut field, status.transfers, status.changes);
    field("marks", &marks(status));
    let recovery = &status.recovery;
    field("\r\n# Recovery\r\nrecovery_phase", &recovery.phase);
    field("recovery_bytes_done", &recovery.bytes_done);
    field("recovery_bytes_total", &recovery.bytes_total);
    field("recovery_entries_done", &recovery.entries_done);
    field("recovery_entries_total", &recovery.entries_total);
    field("recovery_entries_refilled", &recovery.entries_refilled);
    field("recovery_entries_missing", &recovery.entries_missing);
    field("recovery_took_us", &took(status));
    let verdict = recovery.verdict.as_deref().unwrap_or_default();
    field("recovery_verdict", &verdict.replace(['\r', '\n'], " "));
    surround(&mut field, surroundings);
    text
}

/// One of several groups of a node.
pub(crate) struct Group {
    pub(crate) slots: RangeInclusive<u16>,
    pub(crate) status: Status,
    pub(crate) has_ended: bool,
}

/// The same of a node whose keys are spread over several groups: what they are together, and a line
/// for each.
pub(crate) fn text_of_groups(groups: &[Group], surroundings: &[(&'static str, String)]) -> String {
    let mut text = String::new();
    let mut field = |name: &str, value: &dyn Display| {
        write!(text, "{name}:{value}\r\n").expect("a string takes every character");
    };
    let statuses = || groups.iter().map(|group| &group.status);
    let sum = |of: fn(&Status) -> u64| statuses().map(of).sum::<u64>();
    field("# Server\r\nlakebed_version", &env!("CARGO_PKG_VERSION"));
    field("redis_mode", &"standalone");
    field("\r\n# Lakebed\r\nnode", &groups[0].status.node);
    field("groups", &groups.len());
    field("ended", &groups.iter().filter(|group| group.has_ended).count());
    field("leads", &sum(|status| u64::from(status.role == Role::Leader)));
    field("ready", &u8::from(statuses().all(|status| status.ready)));
    field("gated", &u8::from(statuses().any(|status| status.gated)));
    field("disk_full", &u8::from(statuses().any(|status| status.disk_full)));
    field("memory_bytes", &sum(|status| status.memory_bytes));
    field("scrubbed_bytes", &sum(|status| status.scrubbed_bytes));
    field("snapshots_damaged", &sum(|status| status.snapshots_damaged.into()));
    field("snapshot_bytes_sent", &sum(|status| status.snapshot_bytes_sent));
    field("snapshot_bytes_received", &sum(|status| status.snapshot_bytes_received));
    let all = |of: fn(&Status) -> Tally| {
        statuses().fold(Tally::default(), |all, status| all + of(status))
    };
    tallies(&mut field, all(|status| status.transfers), all(|status| status.changes));
    let phase = statuses().map(|status| status.recovery.phase).min().unwrap_or_default();
    field("\r\n# Recovery\r\nrecovery_phase", &phase);
    field("recovery_bytes_done", &sum(|status| status.recovery.bytes_done));
    field("recovery_bytes_total", &sum(|status| status.recovery.bytes_total));
    field("recovery_entries_done", &sum(|status| status.recovery.entries_done));
    field("recovery_entries_total", &sum(|status| status.recovery.entries_total));
    field("recovery_entries_refilled", &sum(|status| status.recovery.entries_refilled));
    field("recovery_entries_missing", &sum(|status| status.recovery.entries_missing));
    for (n, group) in groups.iter().enumerate() {
        let heading = if n == 0 { "\r\n# Groups\r\n" } else { "" };
        field(&format!("{heading}group{}", n + 1), &line(group));
    }
    surround(&mut field, surroundings);
    text
}

/// What became of what leaders were asked for.
fn tallies(field: &mut impl FnMut(&str, &dyn Display), transfers: Tally, changes: Tally) {
    for (what, tally) in [("transfers", transfers), ("member_changes", changes)] {
        field(&format!("{what}_asked"), &tally.asked);
        field(&format!("{what}_done"), &tally.done);
        field(&format!("{what}_given_up"), &tally.given_up);
    }
}

/// `slots=0-4095,role=follower,leader=2,...`; no leader: zero.
fn line(Group { slots, status, has_ended }: &Group) -> String {
    format!(
        "slots={}-{},role={},leader={},term={},first={},committed={},applied={},last={},durable={},\
         snapshot={},ready={},resting={},ended={}",
        slots.start(),
        slots.end(),
        status.role,
        status.leader.map_or(0, |leader| leader.0),
        status.term,
        status.first,
        status.committed,
        status.applied,
        status.last,
        status.durable,
        status.snapshot,
        u8::from(status.ready),
        u8::from(status.hibernates),
        u8::from(*has_ended),
    )
}

fn surround(field: &mut impl FnMut(&str, &dyn Display), surroundings: &[(&'static str, String)]) {
    for (n, (name, value)) in surroundings.iter().enumerate() {
        let heading = if n == 0 { "\r\n# Health\r\n" } else { "" };
        field(&format!("{heading}{name}"), value);
    }
}

/// Of a leader, each peer: `2=matched/feed/milliseconds since it answered`, and of a snapshot on its way
/// there `/bytes that it has/bytes in all`.
fn peers(status: &Status) -> String {
    let peer = |peer: &lakebed::Peer| {
        let silent = peer.silent.as_millis();
        let told = format!("{}={}/{}/{silent}", peer.node, peer.matched, peer.feed);
        match peer.snapshot_bytes_total {
            0 => told,
            total => format!("{told}/{}/{total}", peer.snapshot_bytes),
        }
    };
    status.peers.iter().map(peer).collect::<Vec<_>>().join(",")
}

/// `1@address,2@address`
fn members(status: &Status) -> String {
    let member = |member: &lakebed::Member| {
        // One that was given otherwise than over RESP may be anything.
        let address = String::from_utf8_lossy(&member.address).replace(is_odd, "?");
        format!("{}@{address}", member.id)
    };
    status.members.members().map(member).collect::<Vec<_>>().join(",")
}

/// Rare situations that the node has met: `SteppedDownNoQuorum,ReadRefused`.
fn marks(status: &Status) -> String {
    let met = status.marks.iter();
    met.map(|mark| format!("{mark:?}")).collect::<Vec<_>>().join(",")
}

/// `list=12,hard-state=340`
fn took(status: &Status) -> String {
    let phase = |(phase, took): &(lakebed::Phase, std::time::Duration)| {
        format!("{phase}={}", took.as_micros())
    };
    status.recovery.took.iter().map(phase).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use lakebed::{LogIndex, Member, Membership, NodeId, Phase, Role};
    use std::{sync::Arc, time::Duration};

    #[test]
    fn every_field_is_a_line() {
        let mut status = Status::default();
        status.node = NodeId(2);
        status.role = Role::Leader;
        status.leader = Some(NodeId(2));
        status.durable = LogIndex(77);
        status.recovery.took = vec![(Phase::List, Duration::from_micros(12))];
        status.recovery.entries_refilled = 8;
        status.recovery.entries_missing = 9;
        status.recovery.verdict = Some("two\nlines".into());
        let member = |id, address: &'static str| Member {
            id: NodeId(id),
            incarnation: 0,
            address: Bytes::from_static(address.as_bytes()),
        };
        let members = [member(2, "a:1"), member(3, "b:1\r\nrole:king,4@c")];
        status.members = Arc::new(Membership::of(members));
        let text = text(&status, &[("free", "5".into()), ("commands", "7".into())]);
        for line in [
            "node:2",
            "role:leader",
            "leader:2",
            "durable:77",
            "members:2@a:1,3@b:1??role:king?4?c",
            "recovery_took_us:list=12",
            "recovery_entries_refilled:8",
            "recovery_entries_missing:9",
            "free:5",
            "commands:7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert!(text.contains("recovery_verdict:two lines\r\n"));
        let second = Group { slots: 8192..=16383, status: Status::default(), has_ended: true };
        let groups = [Group { slots: 0..=8191, status, has_ended: false }, second];
        let text = text_of_groups(&groups, &[("free", "5".into())]);
        for line in ["recovery_entries_refilled:8", "recovery_entries_missing:9"] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        for line in ["node:2", "groups:2", "ended:1", "leads:1", "ready:0", "free:5", "# Groups"] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        let line = text.lines().find(|line| line.starts_with("group1:")).unwrap();
        assert!(line.starts_with("group1:slots=0-8191,role=leader,leader=2,term=0,"), "{line}");
        assert!(line.contains(",durable=77,") && line.ends_with(",resting=0,ended=0"), "{line}");
        let plain = |line: &str| line.is_empty() || line.starts_with('#') || line.contains(':');
        assert!(text.split("\r\n").all(plain));
    }
}
