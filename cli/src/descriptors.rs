//! How many files this process may have open, and how many clients that leaves room for.
//!
//! A client takes a descriptor, and so does the next segment of the log, for want of which a node
//! halts. Invariant: however many clients come, what is not for them is left.

use anyhow::{Result, bail};
use lakebed_kv::serve::Limits;
use rustix::process::{Resource, getrlimit, setrlimit};

/// For the process itself: its standard streams, listeners, scrapers, whoever is just accepted or
/// turned away.
const OF_PROCESS: usize = 64;
/// For each node: files (64 are kept open, twice each), peers, and those who knock.
const OF_NODE: usize = 192;
/// For each group of a node, where there are several: its folder, its lock, eight files that it keeps
/// open, two more that it only just makes, and a file at work.
const OF_GROUP: usize = 13;
/// With fewer it is not worth while.
const CLIENTS_MIN: usize = 16;

/// Raises the soft limit of open files to the hard one, and shares out what is left for clients among
/// so many nodes. What a node serves at most. Where even those few do not fit nothing is begun: for
/// want of a file a node would halt under load, or refuse writes.
pub(crate) fn clients_max(nodes: usize, groups: u16) -> Result<usize> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        // Some systems refuse to have no limit at all: then there is the one of before.
        let _ = setrlimit(Resource::Nofile, limit);
    }
    let files = getrlimit(Resource::Nofile).current;
    room(files.map_or(usize::MAX, |files| files as usize), nodes, groups)
}

fn room(files: usize, nodes: usize, groups: u16) -> Result<usize> {
    let of_node = OF_NODE + OF_GROUP * usize::from(groups - 1);
    let need = OF_PROCESS + nodes * (of_node + CLIENTS_MIN);
    if files < need {
        bail!(
            "nodes: {nodes}, groups: {groups}; that takes {need} open files, and this process may \
             have {files}: raise the limit (`ulimit -Hn {need}`, in a unit of systemd LimitNOFILE={need})"
        );
    }
    Ok(((files - OF_PROCESS) / nodes - of_node).min(Limits::default().clients_max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_have_what_nodes_leave_them() {
        let cases = [
            ((1024, 1, 1), 768),
            ((1024, 3, 1), 128),
            ((4096, 3, 5), 1100),
            ((1 << 20, 3, 64), 4096),
            ((usize::MAX, 32, 64), 4096),
            ((272, 1, 1), CLIENTS_MIN),
            ((1091, 1, 64), CLIENTS_MIN),
        ];
        for ((files, nodes, groups), expected) in cases {
            assert_eq!(room(files, nodes, groups).unwrap(), expected, "{files}, {nodes}, {groups}");
        }
    }

    /// It served, and refused writes under load as if its disk were full.
    #[test]
    fn too_few_files_are_told_before_anything_begins() {
        for ((files, nodes, groups), need) in
            [((271, 1, 1), 272), ((1024, 3, 64), 3145), ((20, 7, 1), 1520)]
        {
            let error = room(files, nodes, groups).unwrap_err().to_string();
            let expected = [format!("takes {need} open files"), format!("may have {files}")];
            assert!(expected.iter().all(|expected| error.contains(expected)), "{error}");
        }
    }
}
