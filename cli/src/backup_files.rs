//! What a backup's name stands for: a file, or of several groups one for each, `NAME.group-1` and so
//! on. Where a key is depends on how many there were, so they are only ever taken together.
//!
//! Invariant: what is handed on from here was checked to the last byte, is all of one cluster, and
//! lacks no group.

use crate::{backup::show, progress::bytes_bar};
use anyhow::{Context, Result, anyhow, bail};
use lakebed::{Backup, Timestamp};
use lakebed_kv::slots::GROUPS_MAX;
use lakebed_runtime::read_backup;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

/// A whole backup.
#[derive(Debug)]
pub(crate) struct BackupFiles {
    /// Over how many groups the keys were spread.
    pub(crate) groups: u16,
    /// In the order of the groups.
    pub(crate) files: Vec<(PathBuf, Backup)>,
}

impl BackupFiles {
    /// The backup of this name, or the only one in this directory. `asked`: how many groups there
    /// are, if whoever asks for it says so.
    pub(crate) fn read(name: &Path, asked: Option<u16>) -> Result<Self> {
        let name = &if name.is_dir() { only_one_in(name)? } else { name.to_owned() };
        if asked.is_none_or(|asked| asked == 1) && is_there(name)? {
            return Self::one(name);
        }
        let files = files_of(name)?;
        let Some((first, _)) = files.first() else { return Err(missing(name, asked)) };
        let groups = match (told_by(&files)?, asked) {
            (Some((told, of)), Some(asked)) if told != asked => bail!(
                "--groups {asked}, but {of}; where each key is depends on it: leave --groups out, and \
                 they are as many as there were"
            ),
            (Some((told, _)), _) => told,
            (None, Some(asked)) if usize::from(asked) < files.len() => bail!(
                "--groups {asked}, but there is also {}; give as many as the store had",
                of_group(name, u64::from(asked) + 1).display()
            ),
            (None, Some(asked)) => asked,
            (None, None) => bail!(
                "{} does not say of how many groups it is one, as backups of earlier versions do not: \
                 there are files of {count}; if these are all of them, give --groups {count}",
                first.display(),
                count = files.len()
            ),
        };
        Self::several(name, groups, files)
    }

    /// What a look at it needs: where no file says how many there are, those that are there.
    pub(crate) fn all(name: &Path) -> Result<Self> {
        if name.is_file() {
            // Of one group of several as well: nothing is made of it.
            return Ok(Self { groups: 1, files: vec![(name.to_owned(), check(name)?)] });
        }
        let files = files_of(name)?;
        let count = u16::try_from(files.len()).expect("they are bounded");
        match (files.is_empty(), told_by(&files)?) {
            (true, _) => Err(missing(name, None)),
            (false, told) => Self::several(name, told.map_or(count, |(told, _)| told), files),
        }
    }

    fn one(path: &Path) -> Result<Self> {
        let backup = check(path)?;
        if backup.group.0 != 1 || backup.groups > 1 {
            let suffix = format!(".group-{}", backup.group);
            let name = path.as_os_str().to_string_lossy();
            let instead = match name.strip_suffix(&suffix) {
                Some(name) => format!("name {name}, which the names of all of them begin with"),
                None if is_there(&of_group(path, 1))? => format!(
                    "it is in the place of {} and those that follow: give it another name",
                    of_group(path, 1).display()
                ),
                None => "call them NAME.group-1, NAME.group-2 and so on, and give NAME".into(),
            };
            bail!(
                "{}: all groups of a store are restored together; {instead}",
                what(path, &backup)
            );
        }
        Ok(Self { groups: 1, files: vec![(path.to_owned(), backup)] })
    }

    fn several(name: &Path, groups: u16, mut files: Vec<(PathBuf, Backup)>) -> Result<Self> {
        if files.len() < usize::from(groups) {
            let lost = of_group(name, files.len() as u64 + 1);
            bail!(
                "{} is missing: a store of {groups} groups is restored with all of them",
                lost.display()
            );
        }
        files.truncate(groups.into());
        let (first, of) = (&files[0].0, files[0].1.cluster);
        for (group, (path, backup)) in (1..).zip(&files) {
            if backup.group.0 != group {
                bail!(
                    "{}, where that of group {group} belongs: were files renamed?",
                    what(path, backup)
                );
            }
            if backup.cluster != of {
                bail!(
                    "{} is of cluster {of}, {} of cluster {}: take those of one store",
                    first.display(),
                    path.display(),
                    backup.cluster
                );
            }
        }
        Ok(Self { groups, files })
    }

    /// What tells this backup from any other.
    pub(crate) fn ids(&self) -> Vec<u64> {
        self.files.iter().map(|(_, backup)| backup.id.0).collect()
    }
}

/// The file of one of several groups.
pub(crate) fn of_group(name: &Path, group: u64) -> PathBuf {
    let mut name = name.as_os_str().to_owned();
    name.push(format!(".group-{}", group));
    name.into()
}

/// Whether this is the name of files, and not that of a directory.
pub(crate) fn is_backup(name: &Path) -> bool {
    name.is_file() || !name.exists() && of_group(name, 1).is_file()
}

/// Reads all of a file.
pub(crate) fn check(path: &Path) -> Result<Backup> {
    let (started, bar) = (Instant::now(), bytes_bar("check"));
    let backup = read_backup(path, |done, total| show(&bar, started, done, total));
    bar.finish_and_clear();
    Ok(backup?)
}

/// What a file is, as far as groups go.
pub(crate) fn what(path: &Path, backup: &Backup) -> String {
    let of = if backup.groups > 0 { format!(" of {}", backup.groups) } else { String::new() };
    format!("{} is a backup of group {}{of}", path.display(), backup.group)
}

/// Those of several groups, from the first on, as far as there are files.
fn files_of(name: &Path) -> Result<Vec<(PathBuf, Backup)>> {
    let mut files = Vec::new();
    for path in (1..=GROUPS_MAX.into()).map(|group| of_group(name, group)) {
        if !is_there(&path)? {
            break;
        }
        let backup = check(&path)?;
        files.push((path, backup));
    }
    Ok(files)
}

/// Where nobody may look is not known to be nothing.
fn is_there(path: &Path) -> Result<bool> {
    path.try_exists().with_context(|| format!("cannot read {}", path.display()))
}

/// Of how many groups they are, and who says it; some may be silent, of a node that is newer than its
/// snapshot.
fn told_by(files: &[(PathBuf, Backup)]) -> Result<Option<(u16, String)>> {
    let mut telling = files.iter().filter(|(_, backup)| backup.groups > 0);
    let Some((path, one)) = telling.next() else { return Ok(None) };
    if let Some((other_path, other)) = telling.find(|(_, other)| other.groups != one.groups) {
        bail!("{}, and {}: take those of one store", what(path, one), what(other_path, other));
    }
    match u16::try_from(one.groups) {
        Ok(groups) if groups <= GROUPS_MAX => Ok(Some((groups, what(path, one)))),
        _ => bail!(
            "{}; this program knows stores of at most {GROUPS_MAX}: use a newer one",
            what(path, one)
        ),
    }
}

fn missing(name: &Path, asked: Option<u16>) -> anyhow::Error {
    let (path, first) = (name.display(), of_group(name, 1));
    match asked.filter(|asked| *asked > 1) {
        Some(asked) if name.exists() => match check(name) {
            Ok(backup) => anyhow!(
                "--groups {asked}, but {}, and there is no {}: leave --groups out, or give the name \
                 that the files of {asked} groups begin with",
                what(name, &backup),
                first.display()
            ),
            Err(error) => error,
        },
        Some(_) => anyhow!("cannot read {}: No such file or directory", first.display()),
        None => anyhow!(
            "cannot read {path}: No such file or directory; nor is there {}, as of several groups",
            first.display()
        ),
    }
}

/// How late it was by the log when a snapshot was taken, for people: nothing, if that was before it said so.
pub(crate) fn dated(time: Timestamp) -> String {
    match time {
        Timestamp(0) => String::new(),
        Timestamp(nanos) => {
            let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos);
            format!(" of {}", httpdate::fmt_http_date(time))
        }
    }
}

/// The name of the backup that is alone in a directory.
fn only_one_in(dir: &Path) -> Result<PathBuf> {
    let unreadable = || format!("cannot read {}", dir.display());
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(dir).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        let text = path.to_string_lossy();
        let group = text.rsplit_once(".group-").filter(|(_, group)| group.parse::<u64>().is_ok());
        names.insert(group.map_or_else(|| path.clone(), |(name, _)| name.into()));
    }
    match names.len() {
        1 => Ok(names.pop_first().expect("there is one")),
        found => bail!(
            "{} is a directory, in which there are {found} names where there should be a backup \
             alone: give the backup's own name",
            dir.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of one that nobody may read it was said that something was denied, not what.
    #[test]
    fn a_directory_that_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        let error = format!("{:#}", only_one_in(&gone).unwrap_err());
        assert!(error.contains(&format!("cannot read {}: ", gone.display())), "{error}");
    }
}
