//! Which names lead to which content: as processes see it, and as a power cut would leave it.
//!
//! Knows no bytes. Invariant: `cached` is `durable` with all of `changes` done in order.

use lakebed::File;
use std::collections::BTreeMap;

/// One file's content, whatever it is called.
pub(super) type Ino = u64;

/// A change of names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// The name leads to this content from now on.
    Bind(File, Ino),
    /// What the first name leads to, the second does, and the first leads nowhere. Atomic.
    Rename(File, File, Ino),
    /// The name leads nowhere.
    Remove(File),
}

#[derive(Clone, Debug)]
pub(super) struct Directory {
    durable: BTreeMap<File, Ino>,
    cached: BTreeMap<File, Ino>,
    /// Changes that are not durable yet, and when each ended.
    changes: Vec<(u64, Change)>,
}

impl Directory {
    pub(super) const fn new() -> Self {
        Self { durable: BTreeMap::new(), cached: BTreeMap::new(), changes: Vec::new() }
    }

    /// Whether this name leads somewhere, whatever a power cut takes away.
    pub(super) fn is_durable(&self, file: File) -> bool {
        self.durable.contains_key(&file)
    }

    /// What this name leads to.
    pub(super) fn lookup(&self, file: File) -> Option<Ino> {
        self.cached.get(&file).copied()
    }

    /// Every name that a process sees, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = (File, Ino)> + '_ {
        self.cached.iter().map(|(&file, &ino)| (file, ino))
    }

    /// A change ended: everybody sees it, and no power cut is sure to keep it.
    pub(super) fn change(&mut self, tick: u64, change: Change) {
        apply(&mut self.cached, change);
        self.changes.push((tick, change));
    }

    /// Makes the changes durable that ended before `tick`.
    pub(super) fn persist(&mut self, tick: u64) {
        let durable = &mut self.durable;
        let covered = self.changes.iter().take_while(|(ended, _)| *ended < tick).count();
        self.changes.drain(..covered).for_each(|(_, change)| apply(durable, change));
    }

    /// The content behind this name is gone, whatever it is called now or was before: a pending change that
    /// would lead to it takes its name away instead.
    pub(super) fn lose(&mut self, file: File) {
        let Some(lost) = self.lookup(file) else { return };
        self.durable.retain(|_, ino| *ino != lost);
        self.cached.retain(|_, ino| *ino != lost);
        for (_, change) in &mut self.changes {
            match *change {
                Change::Bind(name, ino) | Change::Rename(_, name, ino) if ino == lost => {
                    *change = Change::Remove(name);
                }
                _ => {}
            }
        }
    }

    /// How many changes a power cut may lose.
    pub(super) fn pending(&self) -> usize {
        self.changes.len()
    }

    /// The power fails: of the pending changes and then of those in flight, `keep` says which
    /// came through.
    pub(super) fn cut_power(&mut self, in_flight: Vec<Change>, mut keep: impl FnMut() -> bool) {
        let ended = std::mem::take(&mut self.changes).into_iter().map(|(_, change)| change);
        for change in ended.chain(in_flight) {
            if keep() {
                apply(&mut self.durable, change);
            }
        }
        self.cached = self.durable.clone();
    }

    /// Whether this content can still be reached, now or after a power cut.
    pub(super) fn reaches(&self, ino: Ino) -> bool {
        let bound =
            |(_, change): &(u64, Change)| matches!(change, Change::Bind(_, to) if *to == ino);
        self.cached.values().any(|&to| to == ino)
            || self.durable.values().any(|&to| to == ino)
            || self.changes.iter().any(bound)
    }
}

/// A rename or removal whose name never came to be does nothing: its creation was lost. So does a
/// rename of what never had its name, whatever had it before: it moves a file, not a word.
fn apply(names: &mut BTreeMap<File, Ino>, change: Change) {
    match change {
        Change::Bind(file, ino) => {
            names.insert(file, ino);
        }
        Change::Rename(from, to, ino) => {
            if names.get(&from) == Some(&ino) {
                names.remove(&from);
                names.insert(to, ino);
            }
        }
        Change::Remove(file) => {
            names.remove(&file);
        }
    }
}
