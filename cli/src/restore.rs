//! `lakebed restore`: the directory of a node of a new cluster, made out of a backup.

use crate::{
    args::{Restore, refuse},
    backup::{called_of, show},
    backup_files::{BackupFiles, dated},
    groups_file::{Becoming, GroupsFile, folder, settle, stranger},
    progress::bytes_bar,
    say,
    serve::cluster_id,
};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use indicatif::BinaryBytes;
use lakebed::{Backup, ClusterId, File, Halt, Member, Membership, NodeId, files::make_durably};
use lakebed_runtime::{DirError, RestoreError, restore};
use rustix::fs::fsync;
use serde::Serialize;
use std::{
    fs::{self, TryLockError},
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

/// What was made.
#[derive(Serialize, Debug)]
struct Told {
    dir: String,
    node: u64,
    /// The new one.
    cluster: String,
    /// The one that the backup is of.
    from_cluster: String,
    group: u64,
    /// Of how many.
    groups: u16,
    term: u64,
    index: u64,
    state_bytes: u64,
    digest: String,
}

/// A node that is to be.
pub(crate) struct NewNode {
    pub(crate) id: u64,
    pub(crate) dir: PathBuf,
    pub(crate) cluster: ClusterId,
    pub(crate) members: Arc<Membership>,
}

impl NewNode {
    /// The same as it is kept while it is made.
    fn becoming(&self) -> Becoming {
        let member =
            |member: &Member| (member.id.0, String::from_utf8_lossy(&member.address).into_owned());
        let members = self.members.members().map(member).collect();
        Becoming { node: self.id, cluster: self.cluster.0, members }
    }
}

pub(crate) fn run(args: &Restore) -> Result<ExitCode> {
    let Restore { dir, id, peers, .. } = args;
    if !peers.contains(*id) {
        refuse(format!(
            "--peers {peers} does not name node {id} itself: every node is given all of them, \
             itself included, alike for all of them"
        ));
    }
    let files = BackupFiles::read(&args.file, args.groups)?;
    let cluster = cluster_id(args.cluster.as_deref(), peers, files.groups);
    check_clusters(args, &files, cluster)?;
    let members = members(peers.iter());
    let node = NewNode { id: *id, dir: dir.clone(), cluster, members };
    make(&node, &files)?;
    let mut told = told(&node, &files);
    if !args.json {
        told.iter().for_each(tell);
        tell_more(args, files.groups);
    } else if files.groups == 1 {
        say(serde_json::to_string(&told.remove(0))?);
    } else {
        say(serde_json::json!({ "groups": told }));
    }
    Ok(ExitCode::SUCCESS)
}

/// The new cluster is another one than the old, which is the one that was meant.
fn check_clusters(args: &Restore, files: &BackupFiles, cluster: ClusterId) -> Result<()> {
    let (file, backup) = &files.files[0];
    if let Some(of) = args.of.filter(|of| *of != backup.cluster.0) {
        bail!("{} is a backup of cluster {}, not of {of}", file.display(), backup.cluster);
    }
    if backup.cluster == cluster {
        let name = args.cluster.as_ref().map_or("--peers make", |_| "--cluster makes");
        bail!(
            "{} is a backup of the very cluster that these {name}: nodes of the old one must never \
             meet those of the new one; give the new one another name with --cluster, here and in \
             `lakebed serve`",
            file.display()
        );
    }
    Ok(())
}

/// The first members of a cluster, by id and address.
pub(crate) fn members<A: AsRef<str>>(nodes: impl IntoIterator<Item = (u64, A)>) -> Arc<Membership> {
    let member = |(id, address): (u64, A)| Member {
        id: NodeId(id),
        incarnation: 0,
        address: Bytes::copy_from_slice(address.as_ref().as_bytes()),
    };
    Arc::new(Membership::of(nodes.into_iter().map(member)))
}

/// Makes this node out of this backup. If it was cut short it is given again, and does what is left.
pub(crate) fn make(node: &NewNode, files: &BackupFiles) -> Result<()> {
    make_by(node, files, keep_names)
}

/// The same, by this way to make the names in a directory durable.
fn make_by(
    node: &NewNode,
    files: &BackupFiles,
    mut keep_names: impl FnMut(&Path) -> Result<()>,
) -> Result<()> {
    let dir = &node.dir;
    if files.groups == 1 {
        return make_group(node, &files.files[0], files.groups, dir);
    }
    settle(dir, Some(files.groups))?;
    if GroupsFile::read(dir)?.is_none() {
        refuse_foreign(dir)?;
    }
    let _held = hold(dir)?;
    // It says how many there are, and of what they are made, before the first is there.
    let groups = GroupsFile::restoring(files.groups, files.ids(), node.becoming());
    match GroupsFile::read(dir)? {
        Some(found) if found.is_formed() => bail!(
            "{} holds a node already: start it, or restore into an empty directory",
            dir.display()
        ),
        Some(begun) => groups.refuse_other_than(&begun, dir)?,
        None => groups.write(dir)?,
    }
    for ((_, folder), file) in groups.folders(dir).zip(&files.files) {
        if folder.join(File::HardState.name()).exists() {
            // It comes last: this one an earlier try has made, and may not have come to make its name durable.
            keep_names(&folder)?;
        } else {
            make_group(node, file, files.groups, &folder)?;
        }
    }
    groups.formed(dir)
}

/// Of two that are given at once one finds the other's groups made, and is done when that is not.
fn hold(dir: &Path) -> Result<fs::File> {
    let lock = dir.join("LOCK");
    let open = || {
        make_durably(dir)?;
        fs::File::create(&lock)
    };
    let held = open().with_context(|| format!("cannot write {}", lock.display()))?;
    match held.try_lock() {
        Ok(()) => Ok(held),
        Err(TryLockError::WouldBlock) => {
            bail!("{} is locked: another restore is at work there", dir.display())
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", lock.display()))
        }
    }
}

fn keep_names(dir: &Path) -> Result<()> {
    let keep = || -> io::Result<()> { Ok(fsync(fs::File::open(dir)?)?) };
    keep().with_context(|| format!("cannot sync {}", dir.display()))
}

fn refuse_foreign(dir: &Path) -> Result<()> {
    let Some(found) = stranger(dir)? else { return Ok(()) };
    bail!("{} is in the way: a node is restored into an empty directory", found.display())
}

/// Makes a group's directory.
fn make_group(
    node: &NewNode,
    (file, backup): &(PathBuf, Backup),
    groups: u16,
    dir: &Path,
) -> Result<()> {
    let (started, bar) = (Instant::now(), bytes_bar("restore"));
    // Of how many it is one, whether its file said so or whoever restores it did.
    let backup = Backup { groups: groups.into(), ..backup.clone() };
    let (who, members) = ((node.cluster, NodeId(node.id)), Arc::clone(&node.members));
    let made = restore(dir, who, members, (file, backup), |done, all| {
        show(&bar, started, done, all);
    });
    bar.finish_and_clear();
    made.map(drop).map_err(|error| explain(error, (file, dir)))
}

/// What was made of this backup, group by group.
fn told(node: &NewNode, files: &BackupFiles) -> Vec<Told> {
    let made_in = |group| match files.groups {
        1 => node.dir.clone(),
        _ => folder(&node.dir, group),
    };
    let made = |(group, (_, backup)): (u64, &(PathBuf, Backup))| Told {
        dir: made_in(group).display().to_string(),
        node: node.id,
        cluster: node.cluster.to_string(),
        from_cluster: backup.cluster.to_string(),
        group,
        groups: files.groups,
        term: backup.at.term.0,
        index: backup.at.index.0,
        state_bytes: backup.bytes,
        digest: format!("{:08x}", backup.digest),
    };
    (1..).zip(&files.files).map(made).collect()
}

fn tell(told: &Told) {
    let Told { dir, node, index, term, .. } = told;
    let of = called_of((told.groups > 1).then_some(told.group), told.groups.into());
    say(format_args!(
        "{of}{dir}: node {node} of a new cluster, {} of state as of {index} (term {term})",
        BinaryBytes(told.state_bytes)
    ));
}

/// What a whole cluster begins with.
pub(crate) fn tell_state(files: &BackupFiles) {
    for (path, backup) in &files.files {
        let (index, term) = (backup.at.index, backup.at.term);
        let of = called_of((files.groups > 1).then_some(backup.group.0), files.groups.into());
        say(format_args!(
            "  {of}made of {}, {} of state as of {index} (term {term}){}",
            path.display(),
            BinaryBytes(backup.bytes),
            dated(backup.time)
        ));
    }
}

fn tell_more(args: &Restore, groups: u16) {
    let mut more =
        args.cluster.as_ref().map_or_else(String::new, |name| format!(" --cluster {name}"));
    if groups > 1 {
        more += &format!(" --groups {groups}");
    }
    let Restore { dir, id, peers, .. } = args;
    say(format_args!(
        "restore the others from the same file, then start all of them:\n  lakebed serve --id {id} \
         --dir {} --peers {peers}{more} --listen ... --resp ...",
        dir.display()
    ));
}

/// With what to do instead.
fn explain(error: RestoreError, (file, dir): (&Path, &Path)) -> anyhow::Error {
    let dir = dir.display();
    match &error {
        RestoreError::Directory(DirError::InUse { .. }) => {
            anyhow::anyhow!("{error}; a node is restored into a directory of its own")
        }
        RestoreError::Halted(halt) if **halt == Halt::AlreadyFormatted => {
            anyhow::anyhow!(
                "{dir} holds a node already: start it, or restore into an empty directory"
            )
        }
        RestoreError::Halted(halt) => match &**halt {
            Halt::Refused { row: "backup-differs", .. } => anyhow::anyhow!(
                "{} was changed or lost while it was restored: nothing came of {dir}; try again",
                file.display()
            ),
            halt => {
                anyhow::anyhow!("{dir}: {halt}; there is no node yet, so it can be tried again")
            }
        },
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lakebed::{GroupId, LogId, SnapshotId, Timestamp};

    fn backup(group: u64) -> (PathBuf, Backup) {
        let backup = Backup {
            cluster: ClusterId(7),
            group: GroupId(group),
            groups: 2,
            node: NodeId(1),
            at: LogId::ZERO,
            id: SnapshotId(group),
            bytes: 0,
            digest: 0,
            time: Timestamp(0),
            members: members([(1, "127.0.0.1:8401")]),
        };
        (PathBuf::from("is not read"), backup)
    }

    /// A try that was cut short behind the rename of a hard state, and before the sync of its directory: a power
    /// cut took the name of a group that was said to be made.
    #[test]
    fn a_node_is_formed_when_the_names_of_all_its_groups_are_durable() {
        let dir = tempfile::tempdir().unwrap();
        let node = NewNode {
            id: 1,
            dir: dir.path().to_owned(),
            cluster: ClusterId(8),
            members: members([(1, "127.0.0.1:8401")]),
        };
        let files = BackupFiles { groups: 2, files: [1, 2].map(backup).into() };
        GroupsFile::restoring(2, files.ids(), node.becoming()).write(dir.path()).unwrap();
        let folders = [1, 2].map(|group| folder(dir.path(), group));
        for folder in &folders {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join(File::HardState.name()), "made").unwrap();
        }
        let is_formed = || GroupsFile::read(dir.path()).unwrap().unwrap().is_formed();
        let fails = make_by(&node, &files, |path| match *path == folders[1] {
            true => bail!("it cannot"),
            false => Ok(()),
        });
        assert_eq!(fails.unwrap_err().to_string(), "it cannot");
        assert!(!is_formed(), "it is to be given again");
        let mut kept = Vec::new();
        let made = make_by(&node, &files, |path| {
            assert!(!is_formed(), "not before all are durable");
            kept.push(path.to_owned());
            Ok(())
        });
        made.unwrap();
        assert_eq!(kept, folders);
        assert!(is_formed());
    }
}
