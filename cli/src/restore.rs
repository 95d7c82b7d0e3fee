//! `lakebed restore`: the directory of a node of a new cluster, made out of a backup.

use crate::{
    args::{Restore, refuse},
    backup::{file_of, show},
    groups_file::{GroupsFile, settle},
    progress::bytes_bar,
    say,
    serve::cluster_id,
};
use anyhow::{Result, bail};
use bytes::Bytes;
use indicatif::BinaryBytes;
use lakebed::{ClusterId, Halt, Member, Membership, NodeId};
use lakebed_runtime::{DirError, RestoreError, read_backup, restore};
use serde::Serialize;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

/// What was made.
#[derive(Serialize, Debug)]
struct Told {
    dir: PathBuf,
    node: u64,
    /// The new one.
    cluster: u64,
    /// The one that the backup is of.
    from_cluster: u64,
    term: u64,
    index: u64,
    state_bytes: u64,
    digest: String,
}

pub(crate) fn run(args: &Restore) -> Result<ExitCode> {
    let Restore { file, dir, id, peers, .. } = args;
    if !peers.contains(*id) {
        refuse(format!(
            "--peers {peers} does not name node {id} itself: every node is given all of them, \
             itself included, alike for all of them"
        ));
    }
    let cluster = cluster_id(args.cluster.as_deref(), peers, args.groups);
    if args.groups == 1 {
        let told = restore_one(args, cluster, (file, dir), 1)?;
        if args.json {
            say(serde_json::to_string(&told)?);
        } else {
            tell(&told);
            tell_more(args, dir, *id);
        }
        return Ok(ExitCode::SUCCESS);
    }
    // It says how many there are before the first is there, as a new node's does.
    settle(dir, Some(args.groups))?;
    let groups = match GroupsFile::read(dir)? {
        Some(found) if found.is_formed() => bail!("{} holds a node already", dir.display()),
        _ => GroupsFile::new(args.groups),
    };
    groups.write(dir)?;
    let mut all = Vec::new();
    for (group, folder) in groups.folders(dir) {
        let told = restore_one(args, cluster, (&file_of(file, Some(group)), &folder), group)?;
        if !args.json {
            tell(&told);
        }
        all.push(serde_json::to_value(&told)?);
    }
    groups.formed(dir)?;
    if args.json {
        say(serde_json::json!({ "groups": all }));
    } else {
        tell_more(args, dir, *id);
    }
    Ok(ExitCode::SUCCESS)
}

/// A group's directory out of its backup.
fn restore_one(
    args: &Restore,
    cluster: ClusterId,
    (file, dir): (&Path, &Path),
    group: u64,
) -> Result<Told> {
    let Restore { id, peers, .. } = args;
    let (started, bar) = (Instant::now(), bytes_bar("check"));
    let backup = read_backup(file, |done, total| show(&bar, started, done, total));
    bar.finish_and_clear();
    let backup = backup?;
    if backup.group.0 != group {
        bail!(
            "{} is a backup of group {}: all groups of a store are restored together, with as many \
             --groups as it had",
            file.display(),
            backup.group
        );
    }
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
    let member = |(id, address): (u64, &str)| Member {
        id: NodeId(id),
        incarnation: 0,
        address: Bytes::copy_from_slice(address.as_bytes()),
    };
    let members = Arc::new(Membership::of(peers.iter().map(member)));
    let (started, bar) = (Instant::now(), bytes_bar("restore"));
    let made =
        restore(dir, (cluster, NodeId(*id)), members, (file, backup.clone()), |done, all| {
            show(&bar, started, done, all);
        });
    bar.finish_and_clear();
    let at = made.map_err(|error| explain(error, (file, dir)))?;
    Ok(Told {
        dir: dir.to_owned(),
        node: *id,
        cluster: cluster.0,
        from_cluster: backup.cluster.0,
        term: at.term.0,
        index: at.index.0,
        state_bytes: backup.bytes,
        digest: format!("{:08x}", backup.digest),
    })
}

fn tell(told: &Told) {
    let (dir, Told { node, index, term, .. }) = (told.dir.display(), told);
    say(format_args!(
        "{dir}: node {node} of a new cluster, {} of state as of {index} (term {term})",
        BinaryBytes(told.state_bytes)
    ));
}

fn tell_more(args: &Restore, dir: &Path, node: u64) {
    let mut more =
        args.cluster.as_ref().map_or_else(String::new, |name| format!(" --cluster {name}"));
    if args.groups > 1 {
        more += &format!(" --groups {}", args.groups);
    }
    let (peers, dir) = (&args.peers, dir.display());
    say(format_args!(
        "restore the others from the same file, then start all of them:\n  lakebed serve --id {node} \
         --dir {dir} --peers {peers}{more} --listen ... --resp ..."
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
