//! Over how many groups a node's keys are spread: kept in its folder, because it decides where every
//! key is, and so never changes. A node of one group has no such file, and its folder is the group's
//! own.

use anyhow::{Context, Result, bail};
use lakebed::files::make_durably;
use lakebed_kv::slots::GROUPS_MAX;
use lakebed_runtime::MARK;
use rustix::fs::fsync;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

const NAME: &str = "groups.json";
/// The same while it is written.
const NAME_NEW: &str = "groups.json.part";
const VERSION: u32 = 1;

/// The groups of a node, 1 and up.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct GroupsFile {
    version: u32,
    groups: u16,
    /// Whether each of them had its folder once. One that is missing then was lost.
    is_formed: bool,
    /// The backup that a restore is at work to make the node of: until it is formed nothing else may
    /// be done with it, or a group would begin with nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    restoring: Vec<u64>,
    /// The node that it makes. Earlier versions did not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    restoring_as: Option<Becoming>,
}

/// A node that is made of a backup, group by group: all of them must be of the same one.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct Becoming {
    pub(crate) node: u64,
    pub(crate) cluster: u64,
    /// By id, where each listens for the others.
    pub(crate) members: BTreeMap<u64, String>,
}

impl GroupsFile {
    pub(crate) const fn new(groups: u16) -> Self {
        Self {
            version: VERSION,
            groups,
            is_formed: false,
            restoring: Vec::new(),
            restoring_as: None,
        }
    }

    /// Of this node, which is to be made of this backup.
    pub(crate) fn restoring(groups: u16, backup: Vec<u64>, node: Becoming) -> Self {
        Self { restoring: backup, restoring_as: Some(node), ..Self::new(groups) }
    }

    /// That of a node that is still to be made of a backup.
    pub(crate) const fn is_restoring(&self) -> bool {
        !self.restoring.is_empty()
    }

    /// Refuses to go on with what was begun here as another node, or of another backup.
    pub(crate) fn refuse_other_than(&self, begun: &Self, dir: &Path) -> Result<()> {
        let path = dir.display();
        if (self.groups, &self.restoring) != (begun.groups, &begun.restoring) {
            bail!(
                "{path} holds the beginning of a node, and not of one that is made of this backup: \
                 choose another --dir, or remove it first"
            );
        }
        match (&begun.restoring_as, &self.restoring_as) {
            (None, _) => bail!(
                "{path} holds the beginning of a node, and its {NAME} does not say of which, as \
                 earlier versions did not: remove it first, or choose another --dir"
            ),
            (Some(begun), Some(asked)) if begun != asked => bail!(
                "{path} holds the beginning of {begun}; what is asked for is {asked}: give --id, \
                 --peers and --cluster as they were given, or choose another --dir, or remove it \
                 first"
            ),
            _ => Ok(()),
        }
    }

    pub(crate) const fn is_formed(&self) -> bool {
        self.is_formed
    }

    /// Whether this is the folder of a node of several groups.
    pub(crate) fn is_in(dir: &Path) -> bool {
        dir.join(NAME).is_file()
    }

    /// That of a node's folder, if it has one.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(NAME);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                return Ok(None);
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let found: Self = serde_json::from_str(&text)
            .with_context(|| format!("{} is not what lakebed wrote", path.display()))?;
        if found.version != VERSION {
            let (path, version) = (path.display(), found.version);
            bail!("{path} has version {version}, this program knows {VERSION}: use a newer one");
        }
        if !(1..=GROUPS_MAX).contains(&found.groups) {
            let (path, groups) = (path.display(), found.groups);
            bail!("{path} is not what lakebed wrote: it is of {groups} groups");
        }
        Ok(Some(found))
    }

    /// That all groups have their folders.
    pub(crate) fn formed(mut self, dir: &Path) -> Result<()> {
        self.is_formed = true;
        self.restoring.clear();
        self.restoring_as = None;
        self.write(dir)
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        write_whole(dir, NAME, self)
    }

    /// The folders of the groups, by their numbers.
    pub(crate) fn folders(&self, dir: &Path) -> impl Iterator<Item = (u64, PathBuf)> {
        (1..=u64::from(self.groups)).map(move |group| (group, folder(dir, group)))
    }
}

impl fmt::Display for Becoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members: Vec<_> =
            self.members.iter().map(|(id, address)| format!("{id}={address}")).collect();
        write!(f, "node {} of cluster {} ({})", self.node, self.cluster, members.join(","))
    }
}

/// Whether a node has lived in this folder, of one group or of several.
pub(crate) fn is_nodes(dir: &Path) -> bool {
    dir.join(MARK).is_file() || GroupsFile::is_in(dir)
}

/// Where a group's data is, in the folder of its node.
pub(crate) fn folder(dir: &Path, group: u64) -> PathBuf {
    dir.join(format!("group-{group}"))
}

/// How many groups the node in this folder has, or is to have.
pub(crate) fn settle(dir: &Path, asked: Option<u16>) -> Result<u16> {
    let is_fixed = "where each key is depends on their number, which is fixed when the cluster is \
                    formed: leave --groups out, or choose another --dir";
    let path = dir.display();
    match (GroupsFile::read(dir)?, asked) {
        (Some(found), Some(asked)) if found.groups != asked => {
            bail!("--groups {asked}, but {path} holds a node of {}; {is_fixed}", found.groups)
        }
        (Some(found), _) => Ok(found.groups),
        (None, Some(asked)) if asked > 1 && dir.join(MARK).exists() => {
            bail!("--groups {asked}, but {path} holds a node of 1; {is_fixed}")
        }
        (None, asked) if (1..=64).any(|group| folder(dir, group).exists()) => bail!(
            "{path} has folders of groups, and no {NAME} that says how many the node has, where \
             --groups says {}: put it back, or choose another --dir",
            asked.map_or_else(|| "nothing".into(), |asked| asked.to_string())
        ),
        (None, asked) => Ok(asked.unwrap_or(1)),
    }
}

/// A new node of several groups takes no folder in which there is something else. That of one group
/// looks itself.
pub(crate) fn refuse_strangers(dir: &Path) -> Result<()> {
    if let Some(stranger) = stranger(dir)? {
        let stranger = stranger.display();
        bail!("{stranger} is no file of a node: choose an empty directory for a new one");
    }
    Ok(())
}

/// What is in a folder that a new node cannot take. What the file system puts there is none, and
/// what an attempt leaves that was cut short before it had written the number of groups.
pub(crate) fn stranger(dir: &Path) -> Result<Option<PathBuf>> {
    let unreadable = || format!("cannot read {}", dir.display());
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(unreadable),
    };
    for entry in entries {
        let path = entry.with_context(unreadable)?.path();
        if !["lost+found", "LOCK", NAME_NEW].iter().any(|name| path.ends_with(name)) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Keeps something in this folder under this name: whole, or not at all.
pub(crate) fn write_whole(dir: &Path, name: &str, what: &impl Serialize) -> Result<()> {
    let write = || -> io::Result<()> {
        make_durably(dir)?;
        let part = dir.join(format!("{name}.part"));
        let mut file = File::create(&part)?;
        serde_json::to_writer_pretty(&mut file, what)?;
        file.write_all(b"\n")?;
        fsync(&file)?;
        fs::rename(part, dir.join(name))?;
        Ok(fsync(File::open(dir)?)?)
    };
    write().with_context(|| format!("cannot write {}", dir.join(name).display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_groups_is_found_again_and_no_other_is_let_in() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("a/b");
        for (asked, expected) in [(None, 1), (Some(1), 1), (Some(4), 4)] {
            assert_eq!(settle(&below, asked).unwrap(), expected);
        }
        let file = GroupsFile::new(4);
        file.write(&below).unwrap();
        file.clone().formed(&below).unwrap();
        assert!(GroupsFile::read(&below).unwrap().unwrap().is_formed());
        assert_eq!(settle(&below, None).unwrap(), 4);
        assert_eq!(settle(&below, Some(4)).unwrap(), 4);
        let error = settle(&below, Some(8)).unwrap_err().to_string();
        assert!(error.contains("--groups 8, but") && error.contains("a node of 4"), "{error}");
        assert_eq!(file.folders(&below).count(), 4);
    }

    #[test]
    fn a_node_of_one_group_and_folders_without_a_number_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(MARK), "").unwrap();
        assert_eq!(settle(dir.path(), None).unwrap(), 1);
        let error = settle(dir.path(), Some(2)).unwrap_err().to_string();
        assert!(error.contains("a node of 1"), "{error}");

        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(folder(dir.path(), 2)).unwrap();
        for asked in [None, Some(2)] {
            let error = settle(dir.path(), asked).unwrap_err().to_string();
            assert!(error.contains(NAME) && error.contains("put it back"), "{error}");
        }
    }

    #[test]
    fn what_lakebed_did_not_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let newer = r#"{"version":2,"groups":1,"is_formed":true}"#;
        // Nothing was found wrong in a node of none.
        let none = r#"{"version":1,"groups":0,"is_formed":true}"#;
        let many = r#"{"version":1,"groups":65,"is_formed":true}"#;
        let wrong = [("", "not what"), ("{}", "not what"), (newer, "version 2")];
        let beyond = [(none, "not what"), (many, "65 groups")];
        for (text, expected) in wrong.into_iter().chain(beyond) {
            fs::write(dir.path().join(NAME), text).unwrap();
            let error = format!("{:#}", settle(dir.path(), None).unwrap_err());
            assert!(error.contains(expected) && error.contains(NAME), "{error}");
        }
    }
}
