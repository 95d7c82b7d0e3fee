//! What is told, metric by metric. Names follow Prometheus' conventions: base units, `_total` for
//! what only rises. Each has the label `node`, and what is a group's the label `group` as well, on
//! nodes that have several.

use lakebed::{LogId, Phase, Role, Status};
use lakebed_runtime::{Counters, LATENCY_BOUNDS, Latency, Room, Traffic};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, prometheus_text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};
use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

/// A node at the moment of a scrape.
#[derive(Debug)]
pub(super) struct View {
    pub(super) id: u64,
    pub(super) groups: Vec<GroupView>,
    pub(super) room: Option<Room>,
    pub(super) latency: Latency,
    pub(super) written_bytes: u64,
    pub(super) counters: Arc<Counters>,
}

/// A group of a node.
#[derive(Debug)]
pub(super) struct GroupView {
    /// `None`: it did not say in time, or has ended.
    pub(super) status: Option<Status>,
    /// Then it certainly does not lead.
    pub(super) has_ended: bool,
    pub(super) snapshot_age: Option<Duration>,
    pub(super) traffic: Traffic,
}

type Labels = Vec<(&'static str, String)>;

impl View {
    fn labels(&self) -> Labels {
        vec![("node", self.id.to_string())]
    }

    /// Its groups, by their labels.
    fn groups(&self) -> impl Iterator<Item = (Labels, &GroupView)> {
        let has_several = self.groups.len() > 1;
        (1..).zip(&self.groups).map(move |(number, group): (u64, _)| {
            let mut labels = self.labels();
            labels.extend(has_several.then(|| ("group", number.to_string())));
            (labels, group)
        })
    }
}

/// All nodes of this process.
#[derive(Debug)]
pub(super) struct Page(Vec<View>);

/// A metric with one value for each node or group, or none where it is not known.
struct Simple {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    value: Value,
}

enum Value {
    OfNode(fn(&View) -> Option<f64>),
    OfGroup(fn(&GroupView) -> Option<f64>),
}

const fn of_node(
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    value: fn(&View) -> Option<f64>,
) -> Simple {
    Simple { name, help, unit, value: Value::OfNode(value) }
}

const fn simple(
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    value: fn(&GroupView) -> Option<f64>,
) -> Simple {
    Simple { name, help, unit, value: Value::OfGroup(value) }
}

/// What goes up and down.
const GAUGES: &[Simple] = &[
    simple(
        "up",
        "Whether the node answers: 1, or 0 if it has ended or did not within a second.",
        None,
        |v| Some(f64::from(u8::from(v.status.is_some()))),
    ),
    simple("ready", "Whether the node takes part; unless it is gated it votes.", None, |v| {
        of(v, |s| u64::from(s.ready))
    }),
    simple("gated", "Whether it has no vote until a leader has brought its log back.", None, |v| {
        of(v, |s| u64::from(s.gated))
    }),
    simple("leader", "Whether the node leads.", None, |v| {
        of(v, |s| u64::from(s.role == Role::Leader)).or_else(|| v.has_ended.then_some(0.0))
    }),
    simple("known_leader", "The id of the leader it knows; 0 without one.", None, |v| {
        of(v, |s| s.leader.map_or(0, |leader| leader.0))
    }),
    simple("term", "The current term.", None, |v| of(v, |s| s.term.0)),
    simple("log_first_index", "The first index still in the log.", None, |v| of(v, |s| s.first.0)),
    simple("log_last_index", "The last index in the log.", None, |v| of(v, |s| s.last.0)),
    simple("log_durable_index", "Up to here this node's disk holds the log.", None, |v| {
        of(v, |s| s.durable.0)
    }),
    simple("committed_index", "The last index known to be committed.", None, |v| {
        of(v, |s| s.committed.0)
    }),
    simple("applied_index", "The last index that the state machine applied.", None, |v| {
        of(v, |s| s.applied.0)
    }),
    simple("snapshot_index", "The last entry in the newest snapshot; 0 without one.", None, |v| {
        of(v, |s| s.snapshot.index.0)
    }),
    simple("snapshot_age", "How old the newest snapshot is.", Some(Unit::Seconds), |v| {
        let has_one = v.status.as_ref().is_some_and(|status| status.snapshot != LogId::ZERO);
        v.snapshot_age.filter(|_| has_one).map(|age| age.as_secs_f64())
    }),
    simple("voters", "How many members vote; of both sides while they change.", None, |v| {
        let voters = |s: &Status| {
            let leaving = s.members.outgoing.iter();
            let leaving = leaving.filter(|one| s.members.voters.iter().all(|v| v.id != one.id));
            (s.members.voters.len() + leaving.count()) as u64
        };
        v.status.as_ref().map(|status| voters(status) as f64)
    }),
    simple("learners", "How many members learn and do not vote.", None, |v| {
        of(v, |s| s.members.learners.len() as u64)
    }),
    simple("joint", "Whether voters are changing: two majorities are needed.", None, |v| {
        of(v, |s| u64::from(!s.members.outgoing.is_empty()))
    }),
    simple("hibernates", "Whether the group rests, because nothing happens in it.", None, |v| {
        of(v, |s| u64::from(s.hibernates))
    }),
    simple("memory", "Log and proposals held in memory.", Some(Unit::Bytes), |v| {
        of(v, |s| s.memory_bytes)
    }),
    simple("disk_full", "Whether writes are refused for want of room.", None, |v| {
        of(v, |s| u64::from(s.disk_full))
    }),
    simple("snapshots_damaged", "Snapshots on its disk that are known to be bad.", None, |v| {
        of(v, |s| s.snapshots_damaged.into())
    }),
    of_node("disk_free", "Room left on the file system of its data.", Some(Unit::Bytes), |v| {
        v.room.map(|room| room.free_bytes as f64)
    }),
    of_node("disk_size", "That file system's size.", Some(Unit::Bytes), |v| {
        v.room.map(|room| room.total_bytes as f64)
    }),
    of_node(
        "disk_slowest_write",
        "The slowest durable write of the last minute or two, one in flight included.",
        Some(Unit::Seconds),
        |v| Some(v.latency.slowest.as_secs_f64()),
    ),
    simple("recovery_done", "Done of the restart's present phase.", Some(Unit::Bytes), |v| {
        of(v, |s| s.recovery.bytes_done)
    }),
    simple("recovery_size", "All of the restart's present phase.", Some(Unit::Bytes), |v| {
        of(v, |s| s.recovery.bytes_total)
    }),
    simple(
        "recovery_entries_done",
        "Entries applied of those that were committed at the start.",
        None,
        |v| of(v, |s| s.recovery.entries_done),
    ),
    simple("recovery_entries", "How many those are.", None, |v| {
        of(v, |s| s.recovery.entries_total)
    }),
];

/// What only rises, while the process lives.
const COUNTERS: &[Simple] = &[
    simple("commands", "Commands proposed at this node.", None, |v| {
        Some(v.traffic.commands as f64)
    }),
    simple("command", "Bytes of commands proposed at this node.", Some(Unit::Bytes), |v| {
        Some(v.traffic.command_bytes as f64)
    }),
    simple("queries", "Queries asked at this node.", None, |v| Some(v.traffic.queries as f64)),
    of_node("disk_written", "Bytes of durable writes.", Some(Unit::Bytes), |v| {
        Some(v.written_bytes as f64)
    }),
    simple("snapshot_sent", "Bytes of snapshots sent to peers.", Some(Unit::Bytes), |v| {
        of(v, |s| s.snapshot_bytes_sent)
    }),
    simple("snapshot_received", "Bytes of snapshots that peers sent.", Some(Unit::Bytes), |v| {
        of(v, |s| s.snapshot_bytes_received)
    }),
    simple(
        "scrubbed",
        "Bytes of log and snapshots read again to see if they are good.",
        Some(Unit::Bytes),
        |v| of(v, |s| s.scrubbed_bytes),
    ),
    simple("transfers_asked", "Leadership transfers asked of this leader.", None, |v| {
        of(v, |s| s.transfers.asked)
    }),
    simple("transfers_done", "Those after which the node in question led.", None, |v| {
        of(v, |s| s.transfers.done)
    }),
    simple("transfers_given_up", "Those that were refused or came to nothing.", None, |v| {
        of(v, |s| s.transfers.given_up)
    }),
    simple("member_changes_asked", "Membership changes asked of this leader.", None, |v| {
        of(v, |s| s.changes.asked)
    }),
    simple("member_changes_done", "Those that this leader saw through.", None, |v| {
        of(v, |s| s.changes.done)
    }),
    simple("member_changes_given_up", "Those refused, or not seen to their end.", None, |v| {
        of(v, |s| s.changes.given_up)
    }),
    of_node("connections", "Connections made with other nodes.", None, |v| {
        Some(v.counters.established.load(Relaxed) as f64)
    }),
    of_node("handshakes_failed", "Connections that came to nothing.", None, |v| {
        Some(v.counters.handshakes_failed.load(Relaxed) as f64)
    }),
    of_node("frames_bad", "Connections closed for a bad frame.", None, |v| {
        Some(v.counters.frames_bad.load(Relaxed) as f64)
    }),
    of_node("overflows", "Connections closed because the peer was too slow.", None, |v| {
        Some(v.counters.overflows.load(Relaxed) as f64)
    }),
];

fn of(view: &GroupView, value: fn(&Status) -> u64) -> Option<f64> {
    view.status.as_ref().map(|status| value(status) as f64)
}

impl Page {
    pub(super) const fn new(views: Vec<View>) -> Self {
        Self(views)
    }

    /// In Prometheus' text format.
    pub(super) fn text(self) -> String {
        let mut registry = Registry::with_prefix("lakebed");
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        encode(&mut text, &registry).expect("a string takes all that is written to it");
        text
    }

    fn simple(
        &self,
        to: &mut DescriptorEncoder<'_>,
        what: &Simple,
        kind: MetricType,
    ) -> fmt::Result {
        let mut metric = to.encode_descriptor(what.name, what.help, what.unit.as_ref(), kind)?;
        let values: Vec<(Labels, Option<f64>)> = match what.value {
            Value::OfNode(value) => self.0.iter().map(|v| (v.labels(), value(v))).collect(),
            Value::OfGroup(value) => {
                let groups = self.0.iter().flat_map(View::groups);
                groups.map(|(labels, group)| (labels, value(group))).collect()
            }
        };
        for (labels, value) in values {
            let Some(value) = value else { continue };
            let metric = metric.encode_family(&labels)?;
            match kind {
                MetricType::Counter => ConstCounter::new(value).encode(metric)?,
                _ => ConstGauge::new(value).encode(metric)?,
            }
        }
        Ok(())
    }

    /// How long durable writes take.
    fn latency(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "How long durable writes take that somebody waits for.";
        let (unit, kind) = (Some(&Unit::Seconds), MetricType::Histogram);
        let mut metric = to.encode_descriptor("disk_write", help, unit, kind)?;
        for view in &self.0 {
            let bounds = LATENCY_BOUNDS.map(|bound| bound.as_secs_f64());
            let bounds = bounds.into_iter().chain([f64::INFINITY]);
            let buckets: Vec<_> = bounds.zip(view.latency.counts).collect();
            let (sum, count) = (view.latency.sum.as_secs_f64(), view.latency.count());
            let labels = view.labels();
            let mut metric = metric.encode_family(&labels)?;
            metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }

    /// One value for each of several things of each group.
    fn each<'a>(
        &'a self,
        to: &mut DescriptorEncoder<'_>,
        (name, label, help, unit): (&str, &'static str, &str, Option<Unit>),
        values: impl Fn(&'a Status) -> Vec<(String, f64)>,
    ) -> fmt::Result {
        let kind = MetricType::Gauge;
        let mut metric = to.encode_descriptor(name, help, unit.as_ref(), kind)?;
        for (own, group) in self.0.iter().flat_map(View::groups) {
            for (which, value) in group.status.as_ref().map(&values).unwrap_or_default() {
                let mut labels = own.clone();
                labels.push((label, which));
                ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

impl Collector for Page {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        GAUGES.iter().try_for_each(|what| self.simple(&mut to, what, MetricType::Gauge))?;
        COUNTERS.iter().try_for_each(|what| self.simple(&mut to, what, MetricType::Counter))?;
        self.latency(&mut to)?;
        let help = "How many entries a peer's disk lacks of what this leader has committed.";
        self.each(&mut to, ("replication_lag", "peer", help, None), |status| {
            let lag = |matched: u64| status.committed.0.saturating_sub(matched) as f64;
            let peers = status.peers.iter();
            peers.map(|peer| (peer.node.to_string(), lag(peer.matched.0))).collect()
        })?;
        let help = "How long ago a peer last answered this leader.";
        self.each(&mut to, ("peer_silent", "peer", help, Some(Unit::Seconds)), |status| {
            let peers = status.peers.iter();
            peers.map(|peer| (peer.node.to_string(), peer.silent.as_secs_f64())).collect()
        })?;
        let help = "Whether a peer is being sent a snapshot by this leader.";
        self.each(&mut to, ("peer_installing", "peer", help, None), |status| {
            let installs =
                |peer: &lakebed::Peer| f64::from(u8::from(peer.feed == lakebed::Feed::Install));
            status.peers.iter().map(|peer| (peer.node.to_string(), installs(peer))).collect()
        })?;
        let help = "How many bytes of the snapshot that is on its way there a peer lacks.";
        let what = ("peer_snapshot_missing", "peer", help, Some(Unit::Bytes));
        self.each(&mut to, what, |status| {
            let missing = |peer: &lakebed::Peer| {
                peer.snapshot_bytes_total.saturating_sub(peer.snapshot_bytes) as f64
            };
            status.peers.iter().map(|peer| (peer.node.to_string(), missing(peer))).collect()
        })?;
        let help = "The phase that the restart is in: 1.";
        self.each(&mut to, ("recovery_phase", "phase", help, None), |status| {
            vec![(status.recovery.phase.to_string(), 1.0)]
        })?;
        let help = "How long each phase of the restart took.";
        self.each(&mut to, ("recovery_took", "phase", help, Some(Unit::Seconds)), |status| {
            // A restart that repeats a phase is told with all of it.
            let took = |phase: Phase| {
                let took = status.recovery.took.iter().filter(|(other, _)| *other == phase);
                took.map(|(_, took)| took.as_secs_f64()).sum()
            };
            let mut phases: Vec<_> = status.recovery.took.iter().map(|(phase, _)| *phase).collect();
            phases.sort_unstable();
            phases.dedup();
            phases.into_iter().map(|phase| (phase.to_string(), took(phase))).collect()
        })?;
        let help = "Rare situations that the node has met in this life: 1.";
        self.each(&mut to, ("mark", "mark", help, None), |status| {
            let met = status.marks.iter();
            met.map(|mark| (format!("{mark:?}"), 1.0)).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use lakebed::{LogIndex, Mark, Member, Membership, NodeId, Term};
    use std::collections::BTreeSet;

    fn view(id: u64, statuses: Vec<Option<Status>>) -> View {
        let group = |status| GroupView {
            status,
            has_ended: false,
            snapshot_age: Some(Duration::from_millis(1500)),
            traffic: Traffic { commands: 7, command_bytes: 700, queries: 3 },
        };
        View {
            id,
            groups: statuses.into_iter().map(group).collect(),
            room: Some(Room { free_bytes: 1 << 30, total_bytes: 1 << 40 }),
            latency: Latency { counts: [1; 13], sum: Duration::from_secs(3), ..Latency::default() },
            written_bytes: 4096,
            counters: Arc::default(),
        }
    }

    fn leading() -> Status {
        let mut status = Status::default();
        status.node = NodeId(1);
        status.role = Role::Leader;
        status.term = Term(5);
        status.committed = LogIndex(90);
        status.snapshot = LogId::new(Term(4), LogIndex(80));
        status.recovery.took =
            vec![(Phase::List, Duration::from_millis(2)), (Phase::Log, Duration::from_millis(8))];
        status.marks.set(Mark::ALL[0]);
        let member = |id| Member { id: NodeId(id), incarnation: 0, address: Bytes::new() };
        let mut members = Membership::of([1, 2, 3].map(member));
        members.outgoing = [1, 4].map(member).into();
        members.learners = vec![member(5)];
        status.members = Arc::new(members);
        status
    }

    fn page() -> String {
        Page::new(vec![view(1, vec![Some(leading())]), view(2, vec![None])]).text()
    }

    /// It was told as up, and as leader, for as long as its process had other nodes: no alarm went.
    #[test]
    fn what_has_ended_is_not_up_and_does_not_lead() {
        let mut ended = view(1, vec![None]);
        ended.groups[0].has_ended = true;
        let text = Page::new(vec![ended, view(2, vec![None])]).text();
        for line in ["lakebed_up{node=\"1\"} 0.0", "lakebed_leader{node=\"1\"} 0.0"] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        for absent in ["lakebed_ready{", "lakebed_leader{node=\"2\"}", "lakebed_snapshot_age"] {
            assert!(!text.contains(&format!("\n{absent}")), "{absent} is in\n{text}");
        }
    }

    /// What is the node's is told once, what is a group's for each.
    #[test]
    fn groups_have_a_label_where_there_are_several() {
        let text = Page::new(vec![view(1, vec![Some(leading()), None])]).text();
        for line in [
            "lakebed_up{node=\"1\",group=\"1\"} 1.0",
            "lakebed_up{node=\"1\",group=\"2\"} 0.0",
            "lakebed_committed_index{node=\"1\",group=\"1\"} 90.0",
            "lakebed_commands_total{node=\"1\",group=\"2\"} 7.0",
            "lakebed_recovery_took_seconds{node=\"1\",group=\"1\",phase=\"list\"} 0.002",
            "lakebed_voters{node=\"1\",group=\"1\"} 4.0",
            "lakebed_disk_written_bytes_total{node=\"1\"} 4096.0",
            "lakebed_disk_write_seconds_count{node=\"1\"} 13",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }

    /// Every name once, with help and type, and nothing in two forms.
    #[test]
    fn the_page_is_what_prometheus_reads() {
        let page = page();
        let mut told = BTreeSet::new();
        let mut kinds = 0;
        for line in page.lines() {
            let mut words = line.split(' ');
            match (words.next(), words.next()) {
                (Some("#"), Some("HELP")) => {
                    let name = words.next().unwrap();
                    assert!(told.insert(name.to_string()), "{name} twice");
                    assert!(words.next().is_some(), "{line}");
                }
                (Some("#"), Some("TYPE")) => kinds += 1,
                (Some(series), Some(value)) => {
                    value.parse::<f64>().unwrap_or_else(|_| panic!("{line}"));
                    let name = series.split('{').next().unwrap();
                    let base =
                        ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
                    assert!(
                        told.contains(name) || base.is_some_and(|base| told.contains(base)),
                        "{line}"
                    );
                    assert!(series.contains("node=\""), "{line}");
                }
                _ => panic!("{line:?}"),
            }
        }
        assert_eq!(told.len(), kinds);
        assert_eq!(told.len(), GAUGES.len() + COUNTERS.len() + 8);
        assert!(told.iter().all(|name| name.starts_with("lakebed_")), "{told:?}");
    }

    #[test]
    fn what_is_told_is_reviewed() {
        insta::with_settings!({snapshot_path => "../../../fixtures/snapshots", prepend_module_to_snapshot => false}, {
            insta::assert_snapshot!("metrics", page());
        });
    }
}
