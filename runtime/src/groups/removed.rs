//! The ids of groups that were removed from a node, none of which it creates again.
//!
//! A group's founders meet by greetings that name no life of their receiver: one of a former group that
//! comes late would be taken for a member's of the new one. Knows no group. Invariant: an id that was
//! noted is known to every later life of the node.
//!
//! Until it is noted the name of its empty directory, `gone-9`, says the same: it needs no room.
//!
//! They are kept in a text file, `removed-groups`, for people too, as ranges:
//!
//! ```text
//! lakebed-removed-groups 1
//! 1-7
//! 9
//! ```

use crate::dir::DirError;
use lakebed::GroupId;
use rustix::fs::fsync;
use std::{
    collections::BTreeMap,
    fmt, fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

/// The file in the node's directory.
const NAME: &str = "removed-groups";
/// The same while it is written.
const NAME_NEW: &str = "removed-groups.new";
/// The newest form of it that this version knows.
const VERSION: u64 = 1;

/// See the module: the last id of each range, by its first. No two of them touch.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Removed(BTreeMap<u64, u64>);

impl Removed {
    /// Those that a node's directory names; none, if it says nothing of them.
    pub(super) fn read(dir: &Path) -> Result<Self, DirError> {
        let path = dir.join(NAME);
        match fs::read_to_string(&path) {
            Ok(text) => parse(&text, path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(DirError::RemovedGroups { path })
            }
            Err(error) => Err(DirError::Io { path, error }),
        }
    }

    /// Whole or not at all, and there after a power cut.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let new = dir.join(NAME_NEW);
        let mut file = fs::File::create(&new)?;
        file.write_all(self.to_string().as_bytes())?;
        fsync(&file)?;
        fs::rename(&new, dir.join(NAME))?;
        Ok(fsync(fs::File::open(dir)?)?)
    }

    pub(super) fn contains(&self, group: GroupId) -> bool {
        let below = self.0.range(..=group.0).next_back();
        below.is_some_and(|(_, last)| group.0 <= *last)
    }

    pub(super) fn insert(&mut self, group: GroupId) {
        if self.contains(group) {
            return;
        }
        let above = group.0.checked_add(1).and_then(|above| self.0.remove(&above));
        let end = above.unwrap_or(group.0);
        match self.0.range_mut(..group.0).next_back() {
            Some((_, last)) if *last + 1 == group.0 => *last = end,
            _ => drop(self.0.insert(group.0, end)),
        }
    }

    fn is_in_order(&self) -> bool {
        let is_range = self.0.iter().all(|(first, last)| first <= last);
        let apart =
            |((_, last), (first, _)): ((&u64, &u64), (&u64, &u64))| first.saturating_sub(*last) > 1;
        is_range && self.0.iter().zip(self.0.iter().skip(1)).all(apart)
    }
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "lakebed-removed-groups {VERSION}")?;
        self.0.iter().try_for_each(|(first, last)| match first == last {
            true => writeln!(f, "{first}"),
            false => writeln!(f, "{first}-{last}"),
        })
    }
}

/// What is not as we print it was not written by us.
fn parse(text: &str, path: PathBuf) -> Result<Removed, DirError> {
    let mut lines = text.lines();
    let version = lines.next().and_then(|line| line.strip_prefix("lakebed-removed-groups "));
    match version.and_then(|version| version.parse().ok()) {
        Some(version) if version > VERSION => return Err(DirError::Newer { path, version }),
        Some(VERSION) => {}
        _ => return Err(DirError::RemovedGroups { path }),
    }
    let range = |line: &str| {
        let (first, last) = line.split_once('-').unwrap_or((line, line));
        Some((first.parse().ok()?, last.parse().ok()?))
    };
    let ranges: Option<BTreeMap<u64, u64>> = lines.map(range).collect();
    let found =
        ranges.map(Removed).filter(|found| found.is_in_order() && found.to_string() == text);
    found.ok_or(DirError::RemovedGroups { path })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn of(ids: impl IntoIterator<Item = u64>) -> Removed {
        let mut removed = Removed::default();
        ids.into_iter().for_each(|id| removed.insert(GroupId(id)));
        removed
    }

    #[test]
    fn what_was_noted_is_found_again_as_ranges() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Removed::read(dir.path()).unwrap(), Removed::default());
        let removed = of([9, 3, 1, u64::MAX, 2, 7, 0, 3]);
        removed.write(dir.path()).unwrap();
        let text = fs::read_to_string(dir.path().join(NAME)).unwrap();
        assert_eq!(text, "lakebed-removed-groups 1\n0-3\n7\n9\n18446744073709551615\n");
        assert_eq!(Removed::read(dir.path()).unwrap(), removed);
        assert!(!dir.path().join(NAME_NEW).exists());
    }

    /// It takes the place of the names of directories that go then.
    #[test]
    fn what_cannot_be_made_durable_takes_no_place() {
        let dir = tempfile::tempdir().unwrap();
        of([1]).write(dir.path()).unwrap();
        // It takes all that is written, and cannot be synced.
        std::os::unix::fs::symlink("/dev/null", dir.path().join(NAME_NEW)).unwrap();
        assert!(of([1, 2]).write(dir.path()).is_err());
        assert_eq!(Removed::read(dir.path()).unwrap(), of([1]));
    }

    /// Beside a set of them, in every order in which six ids may come.
    #[test]
    fn it_is_the_set_of_what_was_noted() {
        for order in 0..6_u64.pow(6) {
            let ids = (0..6).map(|place| order / 6_u64.pow(place) % 6);
            let (removed, set) = (of(ids.clone()), ids.collect::<BTreeSet<_>>());
            for id in 0..7 {
                assert_eq!(removed.contains(GroupId(id)), set.contains(&id), "{id} in {set:?}");
            }
            assert!(removed.is_in_order(), "{removed}");
        }
    }

    #[test]
    fn what_we_did_not_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refusal = |text: &[u8]| {
            fs::write(dir.path().join(NAME), text).unwrap();
            Removed::read(dir.path()).unwrap_err().to_string()
        };
        let head = "lakebed-removed-groups 1\n";
        for lines in ["5-3\n", "1\n2\n", "1-4\n3\n", "4\n1\n", "x\n", "1-\n", "01\n", "7", "7\n\n"]
        {
            let refusal = refusal(format!("{head}{lines}").as_bytes());
            let words = "removed-groups does not say which groups were removed";
            assert!(refusal.contains(words), "{lines:?}: {refusal}");
        }
        for text in [&b""[..], b"groups", b"lakebed-removed-groups 0\n", b"\xFF"] {
            let refusal = refusal(text);
            assert!(refusal.contains("put it back as it was"), "{text:?}: {refusal}");
        }
        let refusal = refusal(b"lakebed-removed-groups 2\nA\n");
        assert!(refusal.contains("layout 2"), "{refusal}");
    }
}
