//! What a person is told of a restart: what there is, and why a node must not start from it.

use super::{Look, Wrong, refused};
use crate::{action::Halt, disk::Fault, file::File, types::Identity};
use std::fmt;

impl Look {
    /// What the log lacks, and where.
    pub(in crate::storage) fn what_is_wrong(&self) -> String {
        let Some(wrong) = &self.log.wrong else { return format!("lies behind {}", self.last()) };
        format!("{} lacks: {}", wrong.file, wrong.damage.expected)
    }

    /// Why the node must not start, for a person.
    pub(in crate::storage) fn refusal(&self, row: &'static str) -> Halt {
        if let Some(halt) = self.hard_refusal(row) {
            return halt;
        }
        let log = &self.log;
        if let (Some(wrong), true) = (&log.wrong, matches!(row, "damaged" | "tail-unknown")) {
            let damage = &wrong.damage;
            // What is wrong before that, a snapshot stands for.
            let owed = self.owed().next().filter(|(_, slot)| slot.id.index > damage.index);
            if let (Some((file, slot)), false) = (owed, wrong.is_unknown) {
                let (offset, expected) = (slot.offset.into(), format!("entry {}", slot.id));
                return refused(row, file, offset, &expected, "bytes that are not it");
            }
            return refused(row, wrong.file, damage.offset, &damage.expected, &damage.found);
        }
        let (snapshot, hard) = (self.snapshot(), self.hard());
        let found =
            format!("log {}..={}, snapshot {snapshot}, term {}", log.first, log.last, hard.term);
        let expected = match row {
            "term-regressed" if self.newest_epoch() > hard.identity.cluster_epoch => {
                let (ours, epoch) = (hard.identity.cluster_epoch, self.newest_epoch());
                let expected = format!("nothing of a later cluster epoch than {ours}");
                return refused(row, File::HardState, 0, &expected, &format!("epoch {epoch}"));
            }
            "term-regressed" => format!("nothing of a later term than {}", hard.term),
            "install-interrupted" => {
                "the whole of the snapshot that was on its way: nobody else is there to send it"
                    .into()
            }
            "machine-ahead" => format!("a state machine that holds at most {}", log.last),
            _ => format!("a whole snapshot of {} or later", log.first.previous()),
        };
        refused(row, File::HardState, 0, &expected, &found)
    }

    /// Why its hard state does not start a node, for a person.
    fn hard_refusal(&self, row: &'static str) -> Option<Halt> {
        let (offset, expected, found) = match row {
            "newer" => {
                let version = self.newer_version().unwrap_or_default();
                (8, "format version 1".into(), format!("format version {version}"))
            }
            "hard-state-lost" => (
                0,
                "a hard state; a node that lost it may have voted and must come back under a new \
                 node id"
                    .into(),
                format!("{} in every block of both copies", self.worst_fault()),
            ),
            "restore-unfinished" => (
                0,
                "a hard state: a restore that was cut short is repeated, and a node that lost its \
                 own must come back under a new node id"
                    .into(),
                "a snapshot or a part of one, and nothing else".into(),
            ),
            "foreign" => {
                let Identity { node, group, .. } = self.owner()?;
                let expected = format!("node {} of group {}", self.config.node, self.config.group);
                (40, expected, format!("node {node} of group {group}"))
            }
            "other-align" => (
                248,
                format!(
                    "a disk in units of {} bytes, as this node is configured (disk_align)",
                    self.config.disk_align
                ),
                format!("one in units of {}: start it with these", self.hard.as_ref()?.align),
            ),
            _ => return None,
        };
        Some(refused(row, File::HardState, offset, &expected, &found))
    }

    fn worst_fault(&self) -> Fault {
        let faults = self.blocks.iter().flatten().filter_map(|block| block.as_ref().err());
        *faults.max().expect("a block that is not good has a fault")
    }
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hard, log) = (self.hard(), &self.log);
        write!(f, "term {}, log {}..={}, ", hard.term, log.first, log.last)?;
        write!(f, "proven {}, snapshot {}", log.proven, self.snapshot())?;
        if self.has_lost_copy() {
            f.write_str(", one copy of the hard state is bad and will be written again")?;
        }
        if let Some(Wrong { file, damage, .. }) = self.lost_before() {
            write!(
                f,
                ", {file} is bad at byte {}: what the log was before is lost",
                damage.offset
            )?;
        }
        Ok(())
    }
}
