//! What `up` remembers of a cluster: who belongs to it and where they meet.
//!
//! The nodes' own directories hold the membership with these addresses, so they never change: a
//! second `up` must find the same ports for peers, whatever ports it opens for clients.

use crate::{backup_files::BackupFiles, groups_file::write_whole};
use anyhow::{Context, Result, bail};
use lakebed::{ClusterId, MEMBERS_MAX, files::make_durably};
use lakebed_kv::slots::GROUPS_MAX;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{
    fs::{self, File},
    hash::{BuildHasher, RandomState},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

pub(crate) const NAME: &str = "cluster.json";
const VERSION: u32 = 1;

/// A cluster of nodes 1, 2, 3... in one directory.
#[derive(Serialize, Deserialize, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClusterFile {
    version: u32,
    /// A string, as wherever it is told: many who read JSON round numbers. It was a number.
    #[serde(serialize_with = "as_text", deserialize_with = "text_or_number")]
    cluster: u64,
    /// Node 1's port for peers, node 2's...
    pub(crate) peer_ports: Vec<u16>,
    /// Over how many groups the keys are spread.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub(crate) groups: u16,
    /// The backup that its nodes are still to be made of: until they are, none of them may start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    restoring: Vec<u64>,
}

fn as_text<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

fn text_or_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Text(String),
        Number(u64),
    }
    match Either::deserialize(deserializer)? {
        Either::Text(text) => text.parse().map_err(D::Error::custom),
        Either::Number(number) => Ok(number),
    }
}

const fn one() -> u16 {
    1
}

/// Earlier versions know nothing else.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_one(groups: &u16) -> bool {
    *groups == 1
}

impl ClusterFile {
    pub(crate) const fn cluster(&self) -> ClusterId {
        ClusterId(self.cluster)
    }

    /// A new cluster, with an id that no other has.
    pub(crate) fn draw(peer_ports: Vec<u16>, groups: u16) -> Self {
        // The standard library's only source of randomness; an id has to differ, not to be secret.
        let cluster = RandomState::new().hash_one(std::process::id()).max(1);
        Self { version: VERSION, cluster, peer_ports, groups, restoring: Vec::new() }
    }

    /// Its nodes are still to be made of this backup, if there is one.
    pub(crate) fn make_of(&mut self, backup: Option<&BackupFiles>) {
        self.restoring = backup.map_or_else(Vec::new, BackupFiles::ids);
    }

    /// Whether nodes are still to be made, and of which backup.
    pub(crate) fn restoring(&self) -> Option<&[u64]> {
        (!self.restoring.is_empty()).then_some(&*self.restoring)
    }

    /// All nodes are there.
    pub(crate) fn restored(&mut self, dir: &Path) -> Result<()> {
        self.restoring.clear();
        self.write(dir)
    }

    /// The cluster in this directory, if there is one.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(NAME);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let found: Self = serde_json::from_str(&text)
            .with_context(|| format!("{} is not what `lakebed up` wrote", path.display()))?;
        if found.version != VERSION {
            let (path, version) = (path.display(), found.version);
            bail!("{path} has version {version}, this program knows {VERSION}: use a newer one");
        }
        let (nodes, groups) = (found.peer_ports.len(), found.groups);
        if !(1..=MEMBERS_MAX).contains(&nodes) || !(1..=GROUPS_MAX).contains(&groups) {
            bail!(
                "{} is not what `lakebed up` wrote: it is of {nodes} nodes and of {groups} groups",
                path.display()
            );
        }
        Ok(Some(found))
    }

    /// Keeps a new one in this directory, where there is none: of two that begin there at one moment
    /// one would have the nodes and the other the file that says of which cluster they are.
    pub(crate) fn begin(&self, dir: &Path) -> Result<()> {
        let lock = || {
            make_durably(dir)?;
            let held = File::open(dir)?;
            held.lock()?;
            Ok::<_, io::Error>(held)
        };
        let held =
            lock().with_context(|| format!("cannot begin a cluster in {}", dir.display()))?;
        if Self::read(dir)?.is_some() {
            bail!("another cluster was begun in {} just now: choose another --dir", dir.display());
        }
        if let Some(foreign) = foreign(dir)? {
            bail!(
                "{} is no file of a cluster: choose another --dir, empty or not there yet",
                foreign.display()
            );
        }
        self.write(dir)?;
        drop(held);
        Ok(())
    }

    /// Keeps it in this directory: whole, or not at all.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        write_whole(dir, NAME, self)
    }
}

/// What lies in a directory that no cluster made; one that was cut short may have.
fn foreign(dir: &Path) -> Result<Option<PathBuf>> {
    let listed = fs::read_dir(dir).and_then(|all| all.collect::<Result<Vec<_>, _>>());
    let listed = listed.with_context(|| format!("cannot list {}", dir.display()))?;
    let is_own =
        |name: &str| name.starts_with(NAME) || name.starts_with("node-") || name == "lost+found";
    let foreign = listed.iter().find(|entry| !entry.file_name().to_str().is_some_and(is_own));
    Ok(foreign.map(fs::DirEntry::path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("a/b");
        assert_eq!(ClusterFile::read(&below).unwrap(), None);
        let cluster = ClusterFile::draw(vec![8401, 8402], 4);
        cluster.write(&below).unwrap();
        assert_eq!(ClusterFile::read(&below).unwrap(), Some(cluster));
    }

    /// As it was written before the number was a string.
    #[test]
    fn a_number_that_is_none_to_json_is_known_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterFile { cluster: u64::MAX - 4, ..ClusterFile::draw(vec![8401], 1) };
        cluster.write(dir.path()).unwrap();
        let path = dir.path().join(NAME);
        let text = fs::read_to_string(&path).unwrap();
        let quoted = "\"18446744073709551611\"";
        assert!(text.contains(quoted), "{text}");
        fs::write(&path, text.replace(quoted, quoted.trim_matches('"'))).unwrap();
        assert_eq!(ClusterFile::read(dir.path()).unwrap(), Some(cluster));
    }

    /// Nodes were made among what somebody else keeps there.
    #[test]
    fn a_cluster_is_not_begun_among_foreign_files() {
        let dir = tempfile::tempdir().unwrap();
        for own in ["cluster.json.part", "node-1"] {
            fs::write(dir.path().join(own), "").unwrap();
        }
        let cluster = ClusterFile::draw(vec![8401], 1);
        let foreign = dir.path().join("notes.txt");
        fs::write(&foreign, "").unwrap();
        let error = cluster.begin(dir.path()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{} is no file of a cluster", foreign.display())));
        fs::remove_file(foreign).unwrap();
        cluster.begin(dir.path()).unwrap();
    }

    /// Both went on, one with the other's file: no `up` could open what it had made.
    #[test]
    fn of_two_that_begin_at_once_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let below = &dir.path().join("a");
        let clusters: Vec<_> = (0..8).map(|_| ClusterFile::draw(vec![8401], 1)).collect();
        let begun = std::thread::scope(|scope| {
            let begin = |cluster| scope.spawn(move || ClusterFile::begin(cluster, below));
            let all: Vec<_> = clusters.iter().map(begin).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
        });
        let won = begun.iter().position(Result::is_ok).unwrap();
        assert_eq!(ClusterFile::read(below).unwrap().as_ref(), Some(&clusters[won]));
        for error in begun.into_iter().filter_map(Result::err) {
            assert!(error.to_string().contains("begun in"), "{error:#}");
        }
    }

    #[test]
    fn a_cluster_of_one_group_is_kept_as_it_was_before_there_were_more() {
        let old = r#"{"version":1,"cluster":7,"peer_ports":[1]}"#;
        let found: ClusterFile = serde_json::from_str(old).unwrap();
        assert_eq!(found.groups, 1);
        let kept = old.replace("7", "\"7\"");
        assert_eq!(serde_json::to_string(&found).unwrap(), kept);
    }

    #[test]
    fn what_it_did_not_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let newer = r#"{"version":2,"cluster":1,"peer_ports":[1]}"#;
        let empty = r#"{"version":1,"cluster":1,"peer_ports":[]}"#;
        let none = r#"{"version":1,"cluster":1,"peer_ports":[1],"groups":0}"#;
        let many = r#"{"version":1,"cluster":1,"peer_ports":[1],"groups":65}"#;
        let wrong = [("", "not what"), ("{}", "not what"), (newer, "version 2")];
        // Of none it said that a port leaves no room for 0 nodes, or that 0 groups take 852227 files.
        let beyond = [(empty, "0 nodes"), (none, "of 0 groups"), (many, "of 65 groups")];
        for (text, expected) in wrong.into_iter().chain(beyond) {
            fs::write(dir.path().join(NAME), text).unwrap();
            let error = format!("{:#}", ClusterFile::read(dir.path()).unwrap_err());
            assert!(error.contains(expected) && error.contains(NAME), "{error}");
        }
    }

    #[test]
    fn clusters_differ() {
        let draw = || ClusterFile::draw(vec![], 1).cluster();
        assert_ne!(draw(), draw());
    }
}
