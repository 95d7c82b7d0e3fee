//! `lakebed inspect` and `lakebed verify`: what is in a node's directory, and whether every byte of
//! it is what was written. Neither changes anything.
//!
//! Exit codes: `inspect` 0 when it could tell, 1 when a file could not be read; `verify` 0 when all is well, 1 when something is
//! wrong; both 1 when they could not look.

mod json;

use crate::{
    args::{Inspect, Verify},
    backup_files::{self, BackupFiles, dated},
    counted, explain as told_as_error,
    groups_file::{GroupsFile, is_nodes},
    log::note,
    progress::bytes_bar,
    say,
};
use anyhow::{Result, anyhow};
use indicatif::{BinaryBytes, ProgressBar};
use lakebed::{Backup, Halt, Inspection, Phase, Recovery};
use lakebed_runtime::{Depth, DirError, LookError, look};
use serde_json::json;
use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

pub(crate) fn inspect(args: &Inspect) -> Result<ExitCode> {
    each_group(&args.dir, args.json, |dir| {
        let found =
            look(dir, Depth::Verdict, |_| {}).map_err(|error| explain(error, "inspect", dir))?;
        let could_tell = is_read(&found, dir);
        if args.json {
            return Ok((could_tell, Some(json::text(&found, None)?)));
        }
        say(&found);
        Ok((could_tell, None))
    })
}

pub(crate) fn verify(args: &Verify) -> Result<ExitCode> {
    if backup_files::is_backup(&args.dir) {
        return verify_backup(args);
    }
    each_group(&args.dir, args.json, |dir| {
        let (started, bar) = (Instant::now(), bytes_bar("verify"));
        let found = look(dir, Depth::Bytes, |recovery| show(&bar, recovery));
        bar.finish_and_clear();
        let found = found.map_err(|error| explain(error, "verify", dir))?;
        let took = started.elapsed();
        is_read(&found, dir);
        if args.json {
            return Ok((found.is_well(), Some(json::text(&found, Some(took))?)));
        }
        tell(&found, took);
        Ok((found.is_well(), None))
    })
}

/// Checks a backup; it is well, or it is none.
fn verify_backup(args: &Verify) -> Result<ExitCode> {
    let first = backup_files::of_group(&args.dir, 1);
    if args.dir.is_file() && first.exists() {
        note(format_args!(
            "{}, and what follows it, is another backup and was not looked at: `restore` takes {} for the \
             whole one as well",
            first.display(),
            args.dir.display()
        ));
    }
    let files = match BackupFiles::all(&args.dir) {
        Err(error) if args.json => {
            let error = told_as_error(&error);
            note(format_args!("error: {error}"));
            say(json!({ "well": false, "error": error }));
            return Ok(ExitCode::FAILURE);
        }
        files => files?,
    };
    if args.json {
        say(json::backup(&files));
        return Ok(ExitCode::SUCCESS);
    }
    for (path, backup) in &files.files {
        let Backup { cluster, node, at, bytes, digest, time, .. } = backup;
        let (index, term, state) = (at.index, at.term, BinaryBytes(*bytes));
        say(format_args!(
            "{} of cluster {cluster}, as node {node} had it at {index} (term {term}){}: nothing is \
             wrong in {state} of state, checksum {digest:08x}",
            backup_files::what(path, backup),
            dated(*time),
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Looks at a node's folder, or at that of each of its groups, one after the other: one that cannot
/// be looked at hides nothing of the others. Whether all was well decides the exit code; what is told
/// as JSON comes back, and is one object in the end.
fn each_group(
    dir: &Path,
    json: bool,
    mut look_at: impl FnMut(&Path) -> Result<(bool, Option<String>)>,
) -> Result<ExitCode> {
    let Some(groups) = GroupsFile::read(dir)? else {
        let (is_well, told) = look_at(dir)?;
        told.iter().for_each(say);
        return Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    };
    let (mut all_well, mut all) = (true, Vec::new());
    for (group, folder) in groups.folders(dir) {
        if !json {
            say(format_args!("group {group}, {}:", folder.display()));
        }
        match look_at(&folder) {
            Ok((is_well, told)) => {
                all_well &= is_well;
                all.extend(told);
            }
            Err(error) => {
                let error = told_as_error(&error);
                note(format_args!("error: group {group}: {error}"));
                all_well = false;
                all.push(json!({ "group": group, "well": false, "error": error }).to_string());
            }
        }
    }
    if json {
        say(format_args!("{{\"groups\":[{}]}}", all.join(",")));
    }
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether every file could be read; if not, says what to do.
fn is_read(found: &Inspection, dir: &Path) -> bool {
    if found.is_unread() {
        note(format_args!(
            "error: {}: {}; see to its owner, its mode and its device, or put back what was there: a node does \
             not start before it can be read",
            dir.display(),
            found.judgement.because
        ));
    }
    !found.is_unread()
}

fn show(bar: &ProgressBar, recovery: &Recovery) {
    if recovery.phase == Phase::Verify {
        bar.set_length(recovery.bytes_total);
        bar.set_position(recovery.bytes_done);
    }
}

/// What is wrong, what a restart would do, and how much was read.
fn tell(found: &Inspection, took: Duration) {
    found.defects.iter().for_each(say);
    let judgement = &found.judgement;
    if !judgement.starts || !found.defects.is_empty() {
        say(judgement);
    }
    let Some(read) = found.verified else {
        return say("nothing but the hard state could be verified");
    };
    let wrong = match found.defects.len() {
        0 => "nothing is wrong".into(),
        1 => "1 record is wrong".into(),
        n => format!("{n} records are wrong"),
    };
    let per_second = read.bytes as f64 / took.as_secs_f64().max(1e-6);
    say(format_args!(
        "{wrong}: {} entries of the log, {} of snapshots\n{} in {took:.1?} ({}/s)",
        read.entries,
        counted(read.blocks, "block"),
        BinaryBytes(read.bytes),
        BinaryBytes(per_second as u64),
    ));
}

/// With what to do instead.
fn explain(error: LookError, command: &str, dir: &Path) -> anyhow::Error {
    match &error {
        LookError::Directory(DirError::InUse { .. }) => {
            let hint = "stop it first, or ask it with `lakebed status`: while it writes, nobody \
                        else can tell what is whole";
            anyhow!("{error}; {hint}")
        }
        LookError::Directory(DirError::NotANode { path, .. }) => {
            name_one(path, command).unwrap_or_else(|| error.into())
        }
        LookError::Halted(halt) if **halt == Halt::NotFormatted => {
            let dir = dir.display();
            anyhow!(
                "{dir} bears a node's name and has no node in it: it never was formatted, or was wiped"
            )
        }
        LookError::Halted(halt) => anyhow!("{}: {halt}", dir.display()),
        _ => error.into(),
    }
}

/// What to say of a directory that is no node's and has some in it, as that of a whole cluster.
pub(crate) fn name_one(path: &Path, command: &str) -> Option<anyhow::Error> {
    let nodes = nodes_in(path).ok().filter(|nodes| !nodes.is_empty())?;
    let each = nodes.iter().map(|node| format!("\n  lakebed {command} {}", node.display()));
    let (path, count) = (path.display(), nodes.len());
    let s = if count == 1 { "" } else { "s" };
    Some(anyhow!("{path} holds {count} node{s}; name one:{}", each.collect::<String>()))
}

/// The nodes' directories below this one, in order.
fn nodes_in(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut nodes = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if is_nodes(&path) {
            nodes.push(path);
        }
    }
    nodes.sort();
    Ok(nodes)
}
