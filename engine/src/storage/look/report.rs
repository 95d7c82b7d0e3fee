//! What was seen, as a value for people and programs.

use super::{Look, Wrong};
use crate::{
    action::Halt,
    disk::{
        Fault,
        hard_state::{BLOCK_BYTES, HardState, OFFSETS},
        snapshot::{Footer, Header, Origin, header_bytes},
    },
    file::{DiskError, File},
    report::{
        BlockContent, Defect, HardBlock, HardStateFound, Inspection, Judgement, LeftOver, LogFound,
        SegmentFound, SegmentState, SnapshotContent, SnapshotFound,
    },
    storage::{
        found, scan,
        scan::{Damage, Tail},
        verdict::{Row, Verdict},
    },
    types::{Identity, LogId, LogIndex, Term},
};

/// How much was looked at when a row of the table decided.
pub(in crate::storage) enum Seen {
    /// The hard state, and of everything else the names.
    HardState,
    /// All that a restart looks at.
    All,
}

impl Look {
    /// What was seen, and what this row of the table makes of it.
    pub(in crate::storage) fn inspection(
        &self,
        seen: &Seen,
        row: &Row,
        verdict: Verdict,
    ) -> Inspection {
        let is_all = matches!(seen, Seen::All);
        let starts = verdict.starts();
        let does = if starts { does(verdict) } else { "refuses to start" };
        let because = if is_all { self.to_string() } else { self.refusal(row.name).to_string() };
        let judgement = Judgement { row: row.name, says: row.says, does, starts, because };
        let segments = if is_all { self.segments_found() } else { Vec::new() };
        let snapshots = if is_all { self.snapshots_found() } else { Vec::new() };
        let log = is_all.then_some(LogFound {
            first: self.log.first,
            last: self.log.last,
            proven: self.log.proven,
        });
        let mut inspection = Inspection {
            blocks: self.hard_blocks(),
            hard_state: self.hard.as_ref().map(hard_state_found),
            log,
            segments,
            snapshots,
            left_over: self.left_over(is_all),
            judgement,
            verified: None,
            defects: self.hard_defects(),
        };
        if is_all {
            inspection
                .defects
                .extend(self.broken.iter().filter_map(|found| self.snapshot_defect(found)));
            let lost = self.lost_before().map(|wrong| {
                log_defect(wrong, "begins the log behind it: the newest snapshot holds what it did")
            });
            inspection.defects.extend(lost);
            inspection.defects.extend(self.log.wrong.as_ref().map(|wrong| log_defect(wrong, does)));
            inspection.defects.sort();
        }
        inspection
    }

    /// What was seen where a file could not be read that a restart cannot do without: nobody knows what is
    /// there, so nothing is judged.
    pub(in crate::storage) fn unread(
        &self,
        file: File,
        error: DiskError,
        failed: &Halt,
    ) -> Inspection {
        let mut inspection = Inspection {
            // Of blocks that were not read it would be said that they are bad.
            blocks: if file == File::HardState { Vec::new() } else { self.hard_blocks() },
            hard_state: self.hard.as_ref().map(hard_state_found),
            log: None,
            segments: Vec::new(),
            snapshots: Vec::new(),
            left_over: self.left_over(false),
            judgement: Judgement::unread(String::new()),
            verified: None,
            defects: Vec::new(),
        };
        inspection.cannot_read(file, error.to_string(), failed.to_string());
        inspection
    }

    fn lacks_hard_state(&self) -> bool {
        !self.files().any(|file| file == File::HardState)
    }

    fn hard_blocks(&self) -> Vec<HardBlock> {
        let mut all = Vec::new();
        if self.lacks_hard_state() {
            return all;
        }
        for (copy, name) in ['A', 'B'].into_iter().enumerate() {
            for (block, offset) in OFFSETS[copy].into_iter().enumerate() {
                let content = match &self.blocks[copy][block] {
                    Ok(hard) => BlockContent::Good { number: hard.number },
                    Err(Fault::Absent) if self.zeros[copy][block] => BlockContent::Empty,
                    Err(fault) => BlockContent::Bad { found: fault.to_string() },
                };
                all.push(HardBlock { copy: name, offset, content });
            }
        }
        all
    }

    fn hard_defects(&self) -> Vec<Defect> {
        let then = if self.hard.is_some() {
            "takes the newest good block, and writes both copies again"
        } else {
            "refuses to start"
        };
        if self.lacks_hard_state() && !self.is_empty() {
            return vec![Defect {
                file: File::HardState,
                offset: 0,
                bytes: 0,
                expected: "the hard state".into(),
                found: "no such file".into(),
                then: then.into(),
            }];
        }
        let blocks = self.hard_blocks().into_iter();
        let defect = |block: HardBlock| {
            let BlockContent::Bad { found } = block.content else { return None };
            Some(Defect {
                file: File::HardState,
                offset: block.offset,
                bytes: BLOCK_BYTES as u64,
                expected: format!("a block of copy {} of the hard state", block.copy),
                found,
                then: then.into(),
            })
        };
        blocks.filter_map(defect).collect()
    }

    fn segments_found(&self) -> Vec<SegmentFound> {
        let last = self.segments.last().map(|found| found.sequence);
        let found = |found: &found::SegmentFound| self.segment_found(found, last);
        self.segments.iter().map(found).collect()
    }

    fn segment_found(&self, found: &found::SegmentFound, last: Option<u64>) -> SegmentFound {
        let file = File::Segment(found.sequence);
        let wrong = self.log.wrong.as_ref().filter(|wrong| wrong.file == file);
        let tail = found.scanned.as_ref().map(|scanned| &scanned.tail);
        let state = match (wrong, tail) {
            (Some(Wrong { damage, .. }), _)
            | (None, Some(Tail::Damaged(damage) | Tail::Unknown(damage))) => {
                let Damage { offset, expected, found, .. } = damage;
                let found = format!("at byte {offset}: expected {expected}, found {found}");
                SegmentState::Damaged { found }
            }
            (None, None) if found.end.is_none() => {
                SegmentState::Damaged { found: "no header that fits its length".into() }
            }
            _ if last == Some(found.sequence) => SegmentState::Last,
            _ => SegmentState::Sealed,
        };
        let sealed = found.as_sealed();
        let Some((header, sealed)) = found.header.as_ref().zip(sealed) else {
            return SegmentFound {
                sequence: found.sequence,
                bytes: found.len,
                state,
                first: LogIndex(0),
                last: LogIndex(0),
                terms: (Term(0), Term(0)),
                data_bytes: 0,
                slots: 0,
            };
        };
        let slots = found.scanned.as_ref().and_then(|scanned| scanned.slots.first());
        let runs = found.end.as_ref().and_then(|end| end.runs.first());
        let first_term = slots.map(|slot| slot.id.term).or_else(|| runs.map(|(_, term)| *term));
        let last_id =
            scan::last_of(header, found.scanned.as_ref().map_or(&[], |scanned| &scanned.slots));
        let last = if found.end.is_some() { sealed.last } else { last_id };
        SegmentFound {
            sequence: found.sequence,
            bytes: found.len,
            state,
            first: header.first,
            last: last.index,
            terms: (first_term.unwrap_or(last.term), last.term),
            data_bytes: sealed.data_bytes,
            slots: header.layout.slot_count,
        }
    }

    fn snapshots_found(&self) -> Vec<SnapshotFound> {
        let all = self.snapshots.iter().chain(&self.broken);
        let mut all: Vec<_> = all.map(|found| self.snapshot_found(found)).collect();
        all.sort_by_key(|found| found.at);
        all
    }

    fn snapshot_found(&self, found: &found::SnapshotFound) -> SnapshotFound {
        let content =
            self.read_snapshot(found).map_err(|(_, _, why)| why).map(|(header, footer)| {
                SnapshotContent {
                    id: header.id,
                    installed: header.origin == Origin::Installed,
                    groups: header.groups,
                    payload_bytes: footer.payload_bytes,
                    blocks: footer.blocks,
                }
            });
        SnapshotFound { at: found.at, bytes: found.len, content }
    }

    /// Header and footer; or where what ends the belief in it lies, how long it is, and why.
    fn read_snapshot(
        &self,
        found: &found::SnapshotFound,
    ) -> Result<(Header, Footer), (u64, u64, String)> {
        let (align, group) = (self.config.disk_align, self.config.group);
        let header = Header::decode(&found.header, group, found.at)
            .map_err(|fault| (0, header_bytes(align), format!("its header has {fault}")))?;
        if header.identity.cluster != self.hard().identity.cluster {
            let why = format!("its header names cluster {}", header.identity.cluster);
            return Err((0, header_bytes(align), why));
        }
        let at = found.len.saturating_sub(u64::from(align));
        let footer = Footer::decode(&found.footer, group, header.id)
            .map_err(|fault| (at, u64::from(align), format!("its footer has {fault}")))?;
        if footer.blocks == 0 {
            return Err((at, u64::from(align), "its footer counts no block".into()));
        }
        Ok((header, footer))
    }

    fn snapshot_defect(&self, found: &found::SnapshotFound) -> Option<Defect> {
        let (offset, bytes, why) = self.read_snapshot(found).err()?;
        let part = if offset == 0 { "header" } else { "footer" };
        let (found_there, then) = if found.is_unread {
            ("what cannot be read".into(), "begins with another snapshot, and keeps this one")
        } else {
            (why, "begins with another snapshot, if one is whole, and removes this one")
        };
        Some(Defect {
            file: File::Snapshot(found.at),
            offset,
            bytes,
            expected: format!("the {part} of a whole snapshot"),
            found: found_there,
            then: then.into(),
        })
    }

    fn left_over(&self, is_all: bool) -> Vec<LeftOver> {
        let is_broken = |file| self.broken.iter().any(|found| File::Snapshot(found.at) == file);
        let left = |&(file, bytes): &(File, u64)| {
            let is_spare = matches!(file, File::Spare(_));
            let purpose = if (self.doomed.contains(&file) || is_spare) && !is_broken(file) {
                purpose(file)
            } else if is_all && matches!(file, File::Part(..)) {
                "the beginning of a snapshot that a peer was sending; a restart goes on with it"
            } else if !is_all && file != File::HardState {
                "not looked at"
            } else {
                return None;
            };
            Some(LeftOver { file, bytes, purpose })
        };
        self.files.iter().filter_map(left).collect()
    }
}

/// What a file is for that a restart does away with.
const fn purpose(file: File) -> &'static str {
    match file {
        File::Spare(_) => "room for a segment to come",
        File::Part(..) => "never finished; a restart removes it",
        File::Segment(_) => "not in the log; a restart removes it",
        File::Snapshot(_) => "replaced; a restart removes it",
        File::HardState => "the hard state",
    }
}

fn hard_state_found(hard: &HardState) -> HardStateFound {
    let Identity { cluster, cluster_epoch, group, node, incarnation } = hard.identity;
    HardStateFound {
        cluster,
        cluster_epoch,
        group,
        node,
        disk_align: hard.align,
        incarnation,
        number: hard.number,
        term: hard.term,
        vote: hard.vote,
        commit_hint: hard.commit_hint,
        durable_hint: hard.durable_hint,
        first: hard.first.index,
        newest_segment: hard.newest_segment,
        write_epoch: hard.write_epoch,
        cut: (hard.cut.from, hard.cut.epoch),
        cutting: hard.cutting,
        gated: hard.gated,
        installed: if hard.install.at.index.0 == 0 { LogId::ZERO } else { hard.install.at },
        members: hard.newest.clone(),
    }
}

fn log_defect(wrong: &Wrong, does: &str) -> Defect {
    let damage = &wrong.damage;
    Defect {
        file: wrong.file,
        offset: damage.offset,
        bytes: 0,
        expected: damage.expected.clone(),
        found: damage.found.clone(),
        then: does.into(),
    }
}

/// What a restart does upon this verdict.
const fn does(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Fresh => "builds a new node",
        Verdict::RepeatCut => "repeats the cut, then judges what it left",
        Verdict::FinishInstall => "finishes the install from the snapshot that is here",
        Verdict::Install => "takes part, and serves nothing until a peer has sent a snapshot",
        Verdict::Replay { cut: true, restore: true, .. } => {
            "cuts the torn tail, restores the snapshot and applies the log behind it"
        }
        Verdict::Replay { cut: false, restore: true, .. } => {
            "restores the snapshot and applies the log behind it"
        }
        Verdict::Replay { cut: true, restore: false, .. } => {
            "cuts the torn tail and applies the log"
        }
        Verdict::Replay { cut: false, restore: false, .. } => "applies the log",
        Verdict::Refill { owed: true } => {
            "keeps the log, asks its peers for what is bad, and acknowledges nothing behind it before"
        }
        Verdict::Refill { owed: false } => {
            "keeps the log, begins with the snapshot, and asks its peers for what is bad below it"
        }
        Verdict::Gate => {
            "gives up the log behind the snapshot, fetches it from a leader, and does not vote before"
        }
        Verdict::Refuse => "refuses to start",
    }
}
