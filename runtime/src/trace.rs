//! Notes become `tracing` events, with fields that do not change: `node`, `group`, and what the
//! note says. Nothing else in this crate knows both.

use lakebed::{Config, DiskError, GroupId, Halt, NodeId, Note};
use tracing::{debug, error, info, warn};

/// Says whose notes they are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reporter {
    pub(crate) node: NodeId,
    pub(crate) group: GroupId,
}

impl Reporter {
    pub(crate) const fn of(config: &Config) -> Self {
        Self { node: config.node, group: config.group }
    }

    pub(crate) fn note(self, note: &Note) {
        let (node, group) = (self.node.0, self.group.0);
        match note {
            Note::Role { leader, term } => {
                let leader = leader.map(|leader| leader.0);
                info!(node, group, term = term.0, leader, "leadership");
            }
            Note::Recovery(found) => info!(node, group, found = &**found, "recovery"),
            Note::PeerFault { peer, reason } => {
                warn!(node, group, peer = peer.0, reason, "peer fault");
            }
            // It is tried again every second, and was said when it began.
            Note::Disk { file, error: DiskError::Full } => {
                debug!(node, group, %file, "no room on the disk");
            }
            Note::Disk { file, error } => warn!(node, group, %file, %error, "disk"),
            Note::DiskFull(true) => {
                warn!(node, group, "disk full: proposals are refused until there is room")
            }
            Note::DiskFull(false) => info!(node, group, "disk has room again"),
            Note::Snapshot(at) => {
                info!(node, group, term = at.term.0, index = at.index.0, "snapshot")
            }
            Note::Compacted(first) => info!(node, group, first = first.0, "compacted"),
            Note::TuningRefused(reason) => warn!(node, group, %reason, "tuning refused"),
            other => info!(node, group, note = ?other, "note"),
        }
    }

    pub(crate) fn halt(self, halt: &Halt) {
        let (node, group) = (self.node.0, self.group.0);
        match halt {
            Halt::Stopped => info!(node, group, "stopped"),
            other => error!(node, group, reason = %other, "halted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lakebed::{ConfigError, File, LogId, LogIndex, MachineError, Origin, Term};
    use std::{
        collections::BTreeMap,
        fmt::{self, Debug},
        sync::{Arc, Mutex},
    };
    use tracing::{
        Event, Metadata, Subscriber,
        field::{Field, Visit},
        span,
    };

    /// One event.
    #[derive(Default)]
    struct Told {
        level: String,
        message: String,
        fields: Vec<(&'static str, String)>,
    }

    impl Visit for Told {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            match field.name() {
                "message" => self.message = format!("{value:?}"),
                name => self.fields.push((name, format!("{value:?}"))),
            }
        }
    }

    impl fmt::Display for Told {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{} {}", self.level, self.message)?;
            self.fields.iter().try_for_each(|(name, value)| write!(f, " {name}={value}"))
        }
    }

    #[derive(Clone, Default)]
    struct Listener(Arc<Mutex<Vec<Told>>>);

    impl Subscriber for Listener {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn event(&self, event: &Event<'_>) {
            let level = event.metadata().level().to_string().to_lowercase();
            let mut told = Told { level, ..Told::default() };
            event.record(&mut told);
            self.0.lock().unwrap().push(told);
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            unreachable!("there are no spans")
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    /// The one event that it is to one who listens, from node 7 of group 3.
    fn told(tell: impl FnOnce(Reporter)) -> Told {
        let listener = Listener::default();
        let reporter = Reporter { node: NodeId(7), group: GroupId(3) };
        tracing::subscriber::with_default(listener.clone(), || tell(reporter));
        let mut told = listener.0.lock().unwrap();
        assert_eq!(told.len(), 1);
        told.remove(0)
    }

    fn id(term: u64, index: u64) -> LogId {
        LogId::new(Term(term), LogIndex(index))
    }

    fn notes() -> Vec<(Note, &'static str)> {
        let (file, io) = (File::Segment(9), DiskError::Io { errno: 5 });
        vec![
            (
                Note::Role { leader: Some(NodeId(2)), term: Term(4) },
                "info leadership node=7 group=3 term=4 leader=2",
            ),
            (Note::Role { leader: None, term: Term(4) }, "info leadership node=7 group=3 term=4"),
            (Note::Recovery("ordinary".into()), r#"info recovery node=7 group=3 found="ordinary""#),
            (
                Note::PeerFault { peer: NodeId(2), reason: "no message" },
                r#"warn peer fault node=7 group=3 peer=2 reason="no message""#,
            ),
            (
                Note::Disk { file, error: io },
                "warn disk node=7 group=3 file=log-9 error=I/O error (errno 5)",
            ),
            (
                Note::Disk { file, error: DiskError::Full },
                "debug no room on the disk node=7 group=3 file=log-9",
            ),
            (
                Note::DiskFull(true),
                "warn disk full: proposals are refused until there is room node=7 group=3",
            ),
            (Note::DiskFull(false), "info disk has room again node=7 group=3"),
            (Note::Snapshot(id(4, 30)), "info snapshot node=7 group=3 term=4 index=30"),
            (Note::Compacted(LogIndex(12)), "info compacted node=7 group=3 first=12"),
            (
                Note::TuningRefused(ConfigError::ElectionRangeEmpty),
                "warn tuning refused node=7 group=3 reason=the least election timeout must be below the most",
            ),
        ]
    }

    fn halts() -> [Halt; 13] {
        let (file, text) = (File::Segment(9), String::from);
        let (row, offset, expected, found) = ("hole", 512, text("an entry"), text("zeros"));
        let (by, theirs) = (NodeId(2), Origin { at: id(4, 30), ..Origin::default() });
        [
            Halt::Stopped,
            Halt::Removed,
            Halt::NotFormatted,
            Halt::AlreadyFormatted,
            Halt::Built(id(4, 30)),
            Halt::LeftBehind { by, epoch: 1, own: 0 },
            Halt::DiskFailed { file, error: DiskError::Full },
            Halt::LogLost { file, offset, expected: expected.clone() },
            Halt::Refused { row, file, offset, expected, found },
            Halt::DiskLost { by },
            Halt::OtherOrigin { peer: by, own: Origin::default(), theirs },
            Halt::Machine(MachineError(text("no memory"))),
            Halt::Panicked(text("index out of bounds")),
        ]
    }

    /// Whoever reads logs by program rests on these: level, message, fields.
    #[test]
    fn every_note_and_every_halt_is_an_event() {
        for (note, expected) in notes() {
            let told = told(|reporter| reporter.note(&note));
            assert_eq!(told.to_string(), expected, "{note:?}");
        }
        for halt in halts() {
            let expected = match &halt {
                Halt::Stopped => "info stopped node=7 group=3".into(),
                other => format!("error halted node=7 group=3 reason={other}"),
            };
            let told = told(|reporter| reporter.halt(&halt));
            assert_eq!(told.to_string(), expected, "{halt:?}");
        }
    }

    /// One row each, with its level and what its fields are beside `node` and `group`.
    #[test]
    fn every_event_stands_in_the_documentation() {
        let notes = notes().into_iter().map(|(note, _)| told(|reporter| reporter.note(&note)));
        let halts = halts().into_iter().map(|halt| told(|reporter| reporter.halt(&halt)));
        let mut rows = BTreeMap::new();
        for Told { level, message, fields } in notes.chain(halts) {
            assert_eq!(fields[..2], [("node", "7".into()), ("group", "3".into())], "{message}");
            let names: Vec<_> = fields.iter().skip(2).map(|(name, _)| *name).collect();
            let known: &mut Vec<_> = rows.entry((message, level)).or_default();
            // Not every field is there each time.
            if names.len() > known.len() {
                *known = names;
            }
        }
        let page = include_str!("../../docs/watching.md");
        let (_, table) = page.split_once("| event | level |").expect("there is a table");
        let table = table.lines().take_while(|row| !row.is_empty()).skip(2);
        let documented = table.map(|row| {
            let columns: Vec<&str> = row.split(" | ").collect();
            let message = columns[0].trim_matches(['|', ' ', '`']).to_string();
            let fields = columns[2].split('`').skip(1).step_by(2).collect();
            ((message, columns[1].to_string()), fields)
        });
        assert_eq!(documented.collect::<BTreeMap<_, Vec<_>>>(), rows);
    }
}
