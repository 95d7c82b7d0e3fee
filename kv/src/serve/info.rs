//! What INFO answers: a node's status, a field a line.

use lakebed::{Mark, Marks, Status};
use std::fmt::Write;

/// `name:value` lines under a heading, as INFO's readers expect.
pub(crate) fn text(status: &Status, surroundings: &[(&'static str, String)]) -> String {
    let mut text = String::new();
    let mut field = |name: &str, value: &dyn std::fmt::Display| {
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
    field("disk_full", &u8::from(status.disk_full));
    field("memory_bytes", &status.memory_bytes);
    field("scrubbed_bytes", &status.scrubbed_bytes);
    field("snapshot_bytes_sent", &status.snapshot_bytes_sent);
    field("snapshot_bytes_received", &status.snapshot_bytes_received);
    field("marks", &marks(status));
    let recovery = &status.recovery;
    field("\r\n# Recovery\r\nrecovery_phase", &recovery.phase);
    field("recovery_bytes_done", &recovery.bytes_done);
    field("recovery_bytes_total", &recovery.bytes_total);
    field("recovery_entries_done", &recovery.entries_done);
    field("recovery_entries_total", &recovery.entries_total);
    field("recovery_took_us", &took(status));
    let verdict = recovery.verdict.as_deref().unwrap_or_default();
    field("recovery_verdict", &verdict.replace(['\r', '\n'], " "));
    for (n, (name, value)) in surroundings.iter().enumerate() {
        let heading = if n == 0 { "\r\n# Health\r\n" } else { "" };
        field(&format!("{heading}{name}"), value);
    }
    text
}

/// Of a leader, each peer: `2=matched/feed/milliseconds since it answered`.
fn peers(status: &Status) -> String {
    let peer = |peer: &lakebed::Peer| {
        format!("{}={}/{}/{}", peer.node, peer.matched, peer.feed, peer.silent.as_millis())
    };
    status.peers.iter().map(peer).collect::<Vec<_>>().join(",")
}

/// `1@address,2@address`
fn members(status: &Status) -> String {
    let member = |member: &lakebed::Member| {
        format!("{}@{}", member.id, String::from_utf8_lossy(&member.address))
    };
    status.members.members().map(member).collect::<Vec<_>>().join(",")
}

/// Rare situations that the node has met: `SteppedDownNoQuorum,ReadRefused`.
fn marks(status: &Status) -> String {
    let met = Mark::ALL.iter().filter(|mark| Marks(status.marks).has(**mark));
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
    use lakebed::{LogIndex, NodeId, Phase, Role};
    use std::time::Duration;

    #[test]
    fn every_field_is_a_line() {
        let mut status = Status::default();
        status.node = NodeId(2);
        status.role = Role::Leader;
        status.leader = Some(NodeId(2));
        status.durable = LogIndex(77);
        status.recovery.took = vec![(Phase::List, Duration::from_micros(12))];
        status.recovery.verdict = Some("two\nlines".into());
        let text = text(&status, &[("free", "5".into()), ("commands", "7".into())]);
        for line in [
            "node:2",
            "role:leader",
            "leader:2",
            "durable:77",
            "recovery_took_us:list=12",
            "free:5",
            "commands:7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert!(text.contains("recovery_verdict:two lines\r\n"));
        let plain = |line: &str| line.is_empty() || line.starts_with('#') || line.contains(':');
        assert!(text.split("\r\n").all(plain));
    }
}
