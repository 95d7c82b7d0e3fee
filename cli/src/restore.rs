//! `lakebed restore`: the directory of a node of a new cluster, made out of a backup.

use crate::{
    args::{Restore, refuse},
    backup::show,
    progress::bytes_bar,
    say,
    serve::cluster_id,
};
use anyhow::{Result, bail};
use bytes::Bytes;
use indicatif::BinaryBytes;
use lakebed::{Halt, Member, Membership, NodeId};
use lakebed_runtime::{DirError, RestoreError, read_backup, restore};
use serde::Serialize;
use std::{process::ExitCode, sync::Arc, time::Instant};

/// What was made.
#[derive(Serialize, Debug)]
struct Told<'a> {
    dir: &'a std::path::Path,
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
    let cluster = cluster_id(args.cluster.as_deref(), peers, 1);
    let (started, bar) = (Instant::now(), bytes_bar("check"));
    let backup = read_backup(file, |done, total| show(&bar, started, done, total));
    bar.finish_and_clear();
    let backup = backup?;
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
    let at = made.map_err(|error| explain(error, args))?;
    let told = Told {
        dir,
        node: *id,
        cluster: cluster.0,
        from_cluster: backup.cluster.0,
        term: at.term.0,
        index: at.index.0,
        state_bytes: backup.bytes,
        digest: format!("{:08x}", backup.digest),
    };
    if args.json {
        say(serde_json::to_string(&told)?);
    } else {
        tell(&told, args);
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(told: &Told<'_>, args: &Restore) {
    let (dir, Told { node, index, term, .. }) = (told.dir.display(), told);
    say(format_args!(
        "{dir}: node {node} of a new cluster, {} of state as of {index} (term {term})",
        BinaryBytes(told.state_bytes)
    ));
    let name = args.cluster.as_ref().map_or_else(String::new, |name| format!(" --cluster {name}"));
    let peers = &args.peers;
    say(format_args!(
        "restore the others from the same file, then start all of them:\n  lakebed serve --id {node} \
         --dir {dir} --peers {peers}{name} --listen ... --resp ..."
    ));
}

/// With what to do instead.
fn explain(error: RestoreError, args: &Restore) -> anyhow::Error {
    let dir = args.dir.display();
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
                args.file.display()
            ),
            halt => {
                anyhow::anyhow!("{dir}: {halt}; there is no node yet, so it can be tried again")
            }
        },
        _ => error.into(),
    }
}
