//! What a look found, as one JSON object. Its fields are those of [`Inspection`]; the engine itself
//! knows no serialisation.

use crate::backup_files::BackupFiles;
use anyhow::Result;
use lakebed::{
    Backup, Inspection, LogId, NodeId,
    report::{BlockContent, SegmentState},
};
use serde::Serialize;
use std::{path::PathBuf, time::Duration};

#[derive(Serialize)]
struct Report<'a> {
    well: bool,
    verdict: Verdict<'a>,
    hard_state: Option<HardState>,
    blocks: Vec<Block<'a>>,
    log: Option<Log>,
    segments: Vec<Segment<'a>>,
    snapshots: Vec<Snapshot<'a>>,
    left_over: Vec<LeftOver<'a>>,
    defects: Vec<Defect<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<Verified>,
}

#[derive(Serialize)]
struct Verdict<'a> {
    row: &'a str,
    says: &'a str,
    does: &'a str,
    starts: bool,
    because: &'a str,
}

#[derive(Serialize)]
struct HardState {
    /// Not a number: of those many who read JSON keep 53 bits. So is each incarnation.
    cluster: String,
    group: u64,
    node: u64,
    cluster_epoch: u64,
    incarnation: String,
    disk_align: u32,
    number: u64,
    term: u64,
    vote: Option<u64>,
    commit_hint: u64,
    durable_hint: u64,
    first: u64,
    newest_segment: u64,
    write_epoch: u64,
    cut_from: u64,
    cut_epoch: u64,
    cutting: bool,
    gated: bool,
    installed: Option<Position>,
    members: Vec<Member>,
}

#[derive(Serialize)]
struct Member {
    id: u64,
    incarnation: String,
    address: String,
    voter: bool,
}

#[derive(Serialize)]
struct Position {
    term: u64,
    index: u64,
}

#[derive(Serialize)]
struct Block<'a> {
    copy: char,
    offset: u64,
    /// `null`: it is not good.
    number: Option<u64>,
    /// What is wrong with it.
    bad: Option<&'a str>,
}

#[derive(Serialize)]
struct Log {
    first: u64,
    last: Position,
    proven: u64,
}

#[derive(Serialize)]
struct Segment<'a> {
    file: String,
    bytes: u64,
    state: &'a str,
    first: u64,
    last: u64,
    first_term: u64,
    last_term: u64,
    data_bytes: u64,
    slots: u32,
    damage: Option<&'a str>,
}

#[derive(Serialize)]
struct Snapshot<'a> {
    file: String,
    at: Position,
    bytes: u64,
    whole: bool,
    installed: Option<bool>,
    /// 0: it does not say.
    groups: Option<u32>,
    payload_bytes: Option<u64>,
    blocks: Option<u64>,
    broken: Option<&'a str>,
}

#[derive(Serialize)]
struct LeftOver<'a> {
    file: String,
    bytes: u64,
    purpose: &'a str,
}

#[derive(Serialize)]
struct Defect<'a> {
    file: String,
    offset: u64,
    bytes: u64,
    expected: &'a str,
    found: &'a str,
    restart: &'a str,
}

#[derive(Serialize)]
struct Verified {
    bytes: u64,
    entries: u64,
    blocks: u64,
    seconds: f64,
}

/// `took`: how long the verification lasted, if it was one.
pub(super) fn text(found: &Inspection, took: Option<Duration>) -> Result<String> {
    let judgement = &found.judgement;
    let report = Report {
        well: found.is_well(),
        verdict: Verdict {
            row: judgement.row,
            says: judgement.says,
            does: judgement.does,
            starts: judgement.starts,
            because: &judgement.because,
        },
        hard_state: found.hard_state.as_ref().map(hard_state),
        blocks: found.blocks.iter().map(block).collect(),
        log: found.log.map(|log| Log {
            first: log.first.0,
            last: position(log.last),
            proven: log.proven.0,
        }),
        segments: found.segments.iter().map(segment).collect(),
        snapshots: found.snapshots.iter().map(snapshot).collect(),
        left_over: found
            .left_over
            .iter()
            .map(|left| LeftOver {
                file: left.file.name(),
                bytes: left.bytes,
                purpose: left.purpose,
            })
            .collect(),
        defects: found.defects.iter().map(defect).collect(),
        verified: found.verified.zip(took).map(|(read, took)| Verified {
            bytes: read.bytes,
            entries: read.entries,
            blocks: read.blocks,
            seconds: took.as_secs_f64(),
        }),
    };
    Ok(serde_json::to_string(&report)?)
}

/// A backup, every byte of which is as it should be.
pub(super) fn backup(files: &BackupFiles) -> serde_json::Value {
    let one = |(path, backup): &(PathBuf, Backup)| {
        serde_json::json!({
            "file": path.display().to_string(),
            "cluster": backup.cluster.to_string(),
            "group": backup.group.0,
            "groups": backup.groups,
            "node": backup.node.0,
            "term": backup.at.term.0,
            "index": backup.at.index.0,
            "state_bytes": backup.bytes,
            "digest": format!("{:08x}", backup.digest),
            // Of the log, by its leaders' clocks; zero: not said.
            "unix_ns": backup.time.0.to_string(),
        })
    };
    serde_json::json!({ "well": true, "backup": files.files.iter().map(one).collect::<Vec<_>>() })
}

fn hard_state(hard: &lakebed::report::HardStateFound) -> HardState {
    let member = |member: &lakebed::Member| Member {
        id: member.id.0,
        incarnation: member.incarnation.to_string(),
        address: String::from_utf8_lossy(&member.address).into(),
        voter: hard.members.is_voter(member.id),
    };
    HardState {
        cluster: hard.cluster.to_string(),
        group: hard.group.0,
        node: hard.node.0,
        cluster_epoch: hard.cluster_epoch,
        incarnation: hard.incarnation.to_string(),
        disk_align: hard.disk_align,
        number: hard.number,
        term: hard.term.0,
        vote: hard.vote.map(|NodeId(vote)| vote),
        commit_hint: hard.commit_hint.0,
        durable_hint: hard.durable_hint.0,
        first: hard.first.0,
        newest_segment: hard.newest_segment,
        write_epoch: hard.write_epoch,
        cut_from: hard.cut.0.0,
        cut_epoch: hard.cut.1,
        cutting: hard.cutting,
        gated: hard.gated,
        installed: (hard.installed != LogId::ZERO).then(|| position(hard.installed)),
        members: hard.members.members().map(member).collect(),
    }
}

const fn position(at: LogId) -> Position {
    Position { term: at.term.0, index: at.index.0 }
}

fn block(block: &lakebed::report::HardBlock) -> Block<'_> {
    let (number, bad) = match &block.content {
        BlockContent::Good { number } => (Some(*number), None),
        BlockContent::Empty => (None, None),
        BlockContent::Bad { found } => (None, Some(&**found)),
    };
    Block { copy: block.copy, offset: block.offset, number, bad }
}

fn segment(found: &lakebed::report::SegmentFound) -> Segment<'_> {
    let (state, damage) = match &found.state {
        SegmentState::Sealed => ("sealed", None),
        SegmentState::Last => ("last", None),
        SegmentState::Damaged { found } => ("damaged", Some(&**found)),
    };
    Segment {
        file: lakebed::File::Segment(found.sequence).name(),
        bytes: found.bytes,
        state,
        first: found.first.0,
        last: found.last.0,
        first_term: found.terms.0.0,
        last_term: found.terms.1.0,
        data_bytes: found.data_bytes,
        slots: found.slots,
        damage,
    }
}

fn snapshot(found: &lakebed::report::SnapshotFound) -> Snapshot<'_> {
    let content = found.content.as_ref().ok();
    Snapshot {
        file: lakebed::File::Snapshot(found.at).name(),
        at: position(found.at),
        bytes: found.bytes,
        whole: content.is_some(),
        installed: content.map(|content| content.installed),
        groups: content.map(|content| content.groups),
        payload_bytes: content.map(|content| content.payload_bytes),
        blocks: content.map(|content| content.blocks),
        broken: found.content.as_ref().err().map(|why| &**why),
    }
}

fn defect(defect: &lakebed::report::Defect) -> Defect<'_> {
    Defect {
        file: defect.file.name(),
        offset: defect.offset,
        bytes: defect.bytes,
        expected: &defect.expected,
        found: &defect.found,
        restart: &defect.then,
    }
}
