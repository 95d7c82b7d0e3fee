//! `lakebed snapshot` and `lakebed backup`: a node's newest snapshot made anew, and taken out of it
//! into a file, over the port for clients, while the node goes on.
//!
//! The node hands out its snapshot file as it is; here every block of it is checked as it comes, so
//! that what bears the file's name in the end is a whole backup.

use crate::{
    args::{Backup, OfGroup, Snapshot},
    backup_files::of_group,
    client::{Node, PATIENCE, called},
    log::note,
    progress::{QUIET, bytes_bar},
    say, unfinished,
};
use anyhow::{Context, Result, anyhow, bail};
use indicatif::{BinaryBytes, ProgressBar};
use lakebed::BackupReader;
use redis::RedisError;
use rustix::fs::fsync;
use serde::Serialize;
use std::{
    fs::{self, File, TryLockError},
    io::{self, ErrorKind, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

/// How long it may take to write its state to its disk.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(3600);
/// How much is asked for at one time: the most that a node gives.
const PIECE_BYTES: u32 = 1 << 20;

/// What was taken.
#[derive(Serialize, Debug)]
pub(crate) struct Told {
    /// As it is shown: not every path is a text.
    pub(crate) file: String,
    /// Not a number: of those many who read JSON keep 53 bits.
    pub(crate) cluster: String,
    pub(crate) node: u64,
    pub(crate) term: u64,
    pub(crate) index: u64,
    /// Of the file, and of the machine's state in it.
    pub(crate) bytes: u64,
    pub(crate) state_bytes: u64,
    /// The state's CRC32C.
    pub(crate) digest: String,
    /// Whether it holds all that was acknowledged anywhere before it was asked for.
    pub(crate) is_fresh: bool,
    /// One of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<u64>,
    /// Of how many groups the backup says it is one; 0: it does not.
    pub(crate) groups: u32,
}

pub(crate) fn snapshot(args: &Snapshot) -> Result<ExitCode> {
    let mut node = Node::connect(args.address)?;
    let (mut told, mut exit) = (Vec::new(), ExitCode::SUCCESS);
    for group in node.groups(args.of.group)? {
        let taken = node.snapshot(group);
        // That one group cannot, or has ended here, is no reason for the others not to.
        let (term, index) = match (taken, group) {
            (Ok(taken), _) => taken,
            (Err(error), None) => return Err(error),
            (Err(error), Some(group)) => {
                note(format_args!("error: group {group}: {error:#}"));
                told.push(serde_json::json!({ "group": group, "error": format!("{error:#}") }));
                exit = ExitCode::FAILURE;
                continue;
            }
        };
        if !args.json {
            say(format_args!("{}snapshot {index} (term {term}) is durable", called(group)));
        }
        told.push(match group {
            None => serde_json::json!({ "term": term, "index": index }),
            Some(group) => serde_json::json!({ "group": group, "term": term, "index": index }),
        });
    }
    if args.json {
        say_json(&args.of, told);
    }
    Ok(exit)
}

/// An object; of several groups, one that has all of theirs.
fn say_json(of: &OfGroup, told: Vec<serde_json::Value>) {
    match &told[..] {
        [one] if of.group.is_some() || one.get("group").is_none() => say(one),
        _ => say(serde_json::json!({ "groups": told })),
    }
}

pub(crate) fn backup(args: &Backup) -> Result<ExitCode> {
    unfinished::run(|| take_all(args))
}

fn take_all(args: &Backup) -> Result<ExitCode> {
    refuse_existing(&args.file)?;
    let mut node = Node::connect(args.address)?;
    let count = node.info(None)?.number("groups").unwrap_or(1);
    let groups = node.groups(args.of.group)?;
    // One that is named has the file that is named.
    let file_of = |group: Option<u64>| match group.filter(|_| args.of.group.is_none()) {
        Some(group) => of_group(&args.file, group),
        None => args.file.clone(),
    };
    let files: Vec<_> = groups.into_iter().map(|group| (group, file_of(group))).collect();
    files.iter().try_for_each(|(_, file)| refuse_existing(file))?;
    let is_fresh = node.is_fresh();
    if let Err(error) = &is_fresh {
        // A cluster that has lost its quorum is one more reason for a backup.
        note(format_args!(
            "warning: the cluster answers no read ({}): writes that were acknowledged lately may be \
             missing from what this node has",
            node.why(error)
        ));
    }
    // None gets its name before all are whole: what failed midway is asked for again as it was.
    let mut taken = Vec::new();
    for (group, file) in &files {
        let mut take = || {
            let at_least = node.snapshot(*group)?;
            node.take(*group, Part::create(file)?, at_least)
        };
        taken.push(take().map_err(|error| anyhow!("{}{error:#}", called(*group)))?);
    }
    let (told, parts): (Vec<_>, Vec<_>) = taken.into_iter().unzip();
    unfinished::name(|| finish_all(parts))?;
    let mut all = Vec::new();
    for told in told {
        let told = Told { is_fresh: is_fresh.is_ok(), ..told };
        if told.groups == 0 && count > 1 {
            note(format_args!(
                "warning: this snapshot is from before the node was of a version that says how many \
                 groups there are: give --groups {count} to `lakebed restore`, or write something and \
                 take another backup"
            ));
        }
        if !args.json {
            tell(&told);
        }
        all.push(serde_json::to_value(&told)?);
    }
    if args.json {
        say_json(&args.of, all);
    } else if files.len() as u64 == count {
        say("to begin a new cluster with it: lakebed restore, once for each of its nodes");
    } else {
        say(format_args!(
            "one group alone begins no new cluster: `lakebed restore` takes all {count} groups of a \
             store"
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(told: &Told) {
    let Told { file, cluster, node, term, index, bytes, state_bytes, digest, .. } = told;
    say(format_args!(
        "{}{file}: {} in {} of cluster {cluster}, as node {node} had it at {index} (term {term}), \
         checksum {digest}",
        called_of(told.group, told.groups),
        BinaryBytes(*state_bytes),
        BinaryBytes(*bytes),
    ));
}

/// As [`called`], with how many there are.
pub(crate) fn called_of(group: Option<u64>, groups: u32) -> String {
    match group {
        Some(group) if groups > 1 => format!("group {group} of {groups}: "),
        _ => called(group),
    }
}

fn refuse_existing(file: &Path) -> Result<()> {
    match fs::symlink_metadata(file) {
        Ok(_) => Err(exists(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(anyhow!("cannot look for {}: {error}", file.display())),
    }
}

fn exists(file: &Path) -> anyhow::Error {
    anyhow!(
        "{} exists already: choose another name, or remove it; a backup is never written over",
        file.display()
    )
}

impl Node {
    /// The node is as far as anybody was told before: a read waits until it is.
    fn is_fresh(&mut self) -> Result<(), RedisError> {
        self.ask(&["DBSIZE"]).map(|_: u64| ())
    }

    /// Makes it take a snapshot, which may take a while.
    fn snapshot(&mut self, group: Option<u64>) -> Result<(u64, u64)> {
        let address = self.address;
        self.wait_up_to(SNAPSHOT_PATIENCE);
        let taken: Result<String, _> = self.order(group, &["SNAPSHOT"]);
        let taken =
            taken.map_err(|error| anyhow!("{address} takes no snapshot: {}", self.why(&error)))?;
        self.wait_up_to(PATIENCE);
        let numbers = taken.split_once('.').map(|(term, index)| (term.parse(), index.parse()));
        match numbers {
            Some((Ok(term), Ok(index))) => Ok((term, index)),
            _ => bail!("{address} answers {taken:?} where a snapshot's position should be"),
        }
    }

    /// Its newest snapshot, which is this one or a later one, into the file: whole, and without its name yet.
    fn take(
        &mut self,
        group: Option<u64>,
        mut part: Part,
        at_least: (u64, u64),
    ) -> Result<(Told, Part)> {
        let address = self.address;
        let lost = |node: &Self, error: &RedisError| {
            anyhow!("{address} hands out no backup: {}", node.why(error))
        };
        let begun = self.order(group, &["BACKUP", "BEGIN"]);
        let (name, bytes): (String, u64) = begun.map_err(|error| lost(self, &error))?;
        let (mut reader, mut offset) = (BackupReader::new(bytes), 0);
        let (started, bar) = (Instant::now(), bytes_bar("backup"));
        while offset < bytes {
            let (at, len) = (offset.to_string(), PIECE_BYTES.to_string());
            let piece = self.ask(&["LAKEBED", "BACKUP", "READ", &at, &len]);
            let piece: Vec<u8> = piece.map_err(|error| lost(self, &error))?;
            if piece.is_empty() {
                bail!("{address} says that {name} has {bytes} bytes, and gives {offset}");
            }
            reader.take(&piece, drop).map_err(|fault| {
                anyhow!("{address} gives a {name} that is damaged: {fault}; ask another node")
            })?;
            part.write(&piece)?;
            offset += piece.len() as u64;
            show(&bar, started, offset, bytes);
        }
        bar.finish_and_clear();
        let backup = reader.finish().map_err(|fault| {
            anyhow!("{address} gives a {name} that is damaged: {fault}; ask another node")
        })?;
        // It goes by itself when this process does, in any case.
        let _: Result<String, _> = self.ask(&["LAKEBED", "BACKUP", "END"]);
        let (term, index) = (backup.at.term.0, backup.at.index.0);
        if (term, index) < at_least {
            bail!("{address} gives snapshot {index}, which is older than the one it took");
        }
        let told = Told {
            file: part.path.display().to_string(),
            cluster: backup.cluster.to_string(),
            node: backup.node.0,
            term,
            index,
            bytes,
            state_bytes: backup.bytes,
            digest: format!("{:08x}", backup.digest),
            is_fresh: true,
            group,
            groups: backup.groups,
        };
        Ok((told, part))
    }
}

/// All of them, or none: those that have their names already give them up if another one gets none.
fn finish_all(parts: Vec<Part>) -> Result<()> {
    let mut named = Vec::new();
    for part in parts {
        match part.finish() {
            Ok(path) => named.push(path),
            Err(error) => {
                // If one stays it is found by its name the next time.
                named.iter().for_each(|path| drop(fs::remove_file(path)));
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Only what takes long enough to wonder is shown.
pub(crate) fn show(bar: &ProgressBar, started: Instant, done: u64, total: u64) {
    if started.elapsed() >= QUIET {
        bar.set_length(total);
        bar.set_position(done);
    }
}

/// A file while it is written beside its name. Dropped unfinished it is gone. It is locked: of two
/// backups of one name the second would write into the first one's file.
struct Part {
    path: PathBuf,
    part: PathBuf,
    file: File,
    is_finished: bool,
}

impl Part {
    fn create(path: &Path) -> Result<Self> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let cannot = || format!("cannot write {}", part.display());
        let file = loop {
            if let Some(file) =
                unfinished::make(&part, || Self::claim(&part)).with_context(cannot)?
            {
                break file;
            }
        };
        // What an earlier backup left that was killed.
        file.set_len(0).with_context(cannot)?;
        Ok(Self { path: path.to_owned(), part, file, is_finished: false })
    }

    /// Opens and locks it; `None`: whoever had it has just let it go, and its name with it.
    fn claim(part: &Path) -> Result<Option<File>> {
        let file = File::options().write(true).create(true).truncate(false).open(part)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("another backup of this name is being taken"),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let own = file.metadata()?;
        if own.nlink() > 1 {
            // A whole backup, whose process was killed before it took this name away: only that goes.
            fs::remove_file(part)?;
            return Ok(None);
        }
        let is_own = |named: fs::Metadata| (named.dev(), named.ino()) == (own.dev(), own.ino());
        match fs::metadata(part) {
            Ok(named) => Ok(is_own(named).then_some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.file.write_all(bytes);
        written.with_context(|| format!("cannot write {}", self.part.display()))
    }

    /// Durable, and then called as it is to be called, if nothing else is by now.
    fn finish(self) -> Result<PathBuf> {
        self.finish_by(|names| Ok(fsync(names)?))
    }

    /// The same, by this way to make the names in a directory durable.
    fn finish_by(mut self, sync: impl FnOnce(&File) -> io::Result<()>) -> Result<PathBuf> {
        let finished = self.try_finish(sync);
        finished.with_context(|| format!("cannot write {}", self.path.display()))?;
        Ok(self.path.clone())
    }

    fn try_finish(&mut self, sync: impl FnOnce(&File) -> io::Result<()>) -> Result<()> {
        fsync(&self.file)?;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = match File::open(parent.unwrap_or_else(|| Path::new("."))) {
            // One that may be written and not be read.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => None,
            opened => Some(opened?),
        };
        self.publish()?;
        self.is_finished = true;
        match parent.as_ref().map_or(Ok(()), sync) {
            // Some file systems know no sync of a directory.
            Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
            Err(error) => {
                // What is said to have failed is not there: the same command would be refused for it.
                let _ = fs::remove_file(&self.path);
                Err(error.into())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Unlike a change of name, a second name replaces nothing that has come there meanwhile.
    fn publish(&self) -> Result<()> {
        match fs::hard_link(&self.part, &self.path) {
            Ok(()) => Ok(fs::remove_file(&self.part)?),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(exists(&self.path)),
            // Some file systems have no second names: those of memory cards, for one.
            Err(error)
                if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::Unsupported) =>
            {
                refuse_existing(&self.path)?;
                Ok(fs::rename(&self.part, &self.path)?)
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_finished {
            // There is nothing in it that anybody could use.
            let _ = fs::remove_file(&self.part);
        }
        unfinished::forget(&self.part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both succeeded: the second cut off what the first had written, and both wrote into one file.
    #[test]
    fn of_two_backups_of_one_name_the_second_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backup");
        fs::write(dir.path().join("backup.part"), "what a killed one left, and longer").unwrap();
        let mut first = Part::create(&path).unwrap();
        first.write(b"one").unwrap();
        let error = Part::create(&path).map(drop).unwrap_err();
        assert!(format!("{error:#}").contains("is being taken"), "{error:#}");
        first.write(b" and all").unwrap();
        assert_eq!(first.finish().unwrap(), path);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one and all");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no part is left");
    }

    /// The first file stayed, and the same command was refused for it from then on.
    #[test]
    fn of_several_all_are_there_in_the_end_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let names = [1, 2, 3].map(|group| of_group(&dir.path().join("backup"), group));
        let parts = || names.iter().map(|path| Part::create(path).unwrap()).collect::<Vec<_>>();
        let taken = parts();
        fs::write(&names[1], "precious").unwrap();
        let error = finish_all(taken).unwrap_err();
        assert!(format!("{error:#}").contains("group-2 exists already"), "{error:#}");
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(left, [names[1].clone()]);
        fs::remove_file(&names[1]).unwrap();
        finish_all(parts()).unwrap();
        assert!(names.iter().all(|path| path.exists()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "no part is left");
    }

    #[test]
    fn what_has_come_there_meanwhile_is_not_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backup");
        let mut part = Part::create(&path).unwrap();
        part.write(b"new").unwrap();
        fs::write(&path, "precious").unwrap();
        let error = part.finish().unwrap_err();
        assert!(format!("{error:#}").contains("exists already"), "{error:#}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no part is left");
    }

    /// Killed between the second name and the end of the first one, the file has both; whoever moves the
    /// whole backup elsewhere and takes another one has it cut off and written over.
    #[test]
    fn a_whole_backup_that_still_has_the_name_of_its_part_is_not_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let (path, part) = (dir.path().join("backup"), dir.path().join("backup.part"));
        fs::write(&part, "precious").unwrap();
        // As `publish` leaves it when the process ends behind its first step.
        fs::hard_link(&part, &path).unwrap();
        let kept = dir.path().join("backup.monday");
        fs::rename(&path, &kept).unwrap();
        let mut next = Part::create(&path).unwrap();
        next.write(b"new").unwrap();
        next.finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::read_to_string(&kept).unwrap(), "precious");
    }

    /// A power cut may take a name that was not made durable, and what was said to be there with it.
    #[test]
    fn a_backup_is_there_when_its_name_is_durable_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backup");
        let finish = |ends: io::Result<()>| {
            let is_dir = |names: &File| {
                let (own, of) = (names.metadata().unwrap(), fs::metadata(dir.path()).unwrap());
                (own.dev(), own.ino()) == (of.dev(), of.ino())
            };
            let mut part = Part::create(&path).unwrap();
            part.write(b"state").unwrap();
            part.finish_by(|names| {
                assert!(is_dir(names), "it is the directory of the name");
                assert_eq!(fs::read_to_string(&path).unwrap(), "state", "the name comes first");
                ends
            })
        };
        let error = finish(Err(io::Error::other("it cannot"))).unwrap_err();
        assert!(format!("{error:#}").contains("it cannot"), "{error:#}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "the name is free again");
        // A file system that knows no such thing.
        assert_eq!(finish(Err(ErrorKind::InvalidInput.into())).unwrap(), path);
        fs::remove_file(&path).unwrap();
        assert_eq!(finish(Ok(())).unwrap(), path);
    }
}
