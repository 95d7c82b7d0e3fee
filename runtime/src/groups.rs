//! A node with many groups: one loop, one connection with each other node, one pool of disk threads;
//! for each group a directory, a machine and a [`Handle`] of its own.
//!
//! Knows no protocol: a [`Host`](lakebed::Host) decides. Groups are created, removed and listed while
//! others run. One that panics ends, with the panic as its reason, and the others go on.
//! Invariant: a group's directory is unlocked, and its handles answered, before anybody hears that it
//! has ended.

mod driver;
#[cfg(test)]
mod hung;
mod machines;
mod removed;
#[cfg(test)]
mod tests;

use crate::{
    dir::{self, DirError, Owner},
    handle::{Handle, Reply},
    health::Health,
    inbox::{Bell, Inbox, Request},
    net::{Identity, TcpNet},
    node::StartError,
    options::Listen,
};
pub use driver::GroupsNode;
use driver::Inner;
use futures::channel::oneshot;
use lakebed::{
    ClusterId, Config, GroupId, Halt, Member, Membership, NodeId, Start, StateMachine, Tuning,
    files::{Directory, make_durably},
};
use removed::Removed;
use rustix::fs::fsync;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

/// The most bytes of commands and queries of one group that wait for the loop's next turn.
const INBOX_BYTES_MAX: usize = 16 << 20;
/// The most files that a group keeps open, while it has others to close: its segments.
const OPEN_FILES_MAX: usize = 8;
/// What a group's directory is called, and one that is being thrown away.
const PREFIX: &str = "group-";
const GONE: &str = "gone-";

/// Everything a node of many groups is told.
#[derive(Debug)]
#[non_exhaustive]
pub struct GroupsOptions {
    /// Its directory; each group has one of its own in it, `group-7`.
    pub dir: PathBuf,
    /// The cluster; the same on all nodes.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Where peers reach it.
    pub listen: Listen,
    /// How many groups there are to be, where that is fixed: each one's snapshots say it
    /// ([`Config::groups`]). Zero, the default: they do not.
    pub groups: u32,
    /// Timing and limits of each group.
    pub tuning: Tuning,
    /// What peers must know to be let in; see [`Options::secret`](crate::Options).
    pub secret: Vec<u8>,
    /// Whether to listen elsewhere than on loopback.
    pub insecure: bool,
    /// On how many threads machines work. Zero, the default: on that of the loop, which is the
    /// fastest as long as they are quick; one that is slow then holds up all groups of its node. With
    /// threads it holds up one of them, at the price of two wakes for each of its turns.
    pub machine_threads: usize,
}

impl GroupsOptions {
    /// Groups that rest after two seconds without a request, everything else at its default.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, cluster: ClusterId, node: NodeId, listen: Listen) -> Self {
        let mut tuning = Tuning::default();
        tuning.hibernate_after = std::time::Duration::from_secs(2);
        Self {
            dir: dir.into(),
            cluster,
            node,
            listen,
            groups: 0,
            tuning,
            secret: Vec::new(),
            insecure: false,
            machine_threads: 0,
        }
    }
}

/// Why a group is not created or removed.
#[derive(Debug)]
#[non_exhaustive]
pub enum GroupsError {
    /// There is one of this id on this node.
    Exists(GroupId),
    /// It is being removed from this node.
    Leaving(GroupId),
    /// None of this id is running, but its directory is there: it ended by itself, or its removal did not
    /// come to its end.
    Left(GroupId),
    /// One of this id was removed from this node: it is not created again.
    Removed(GroupId),
    /// There is none.
    Unknown(GroupId),
    /// Its directory cannot be used.
    Directory(DirError),
    /// Its directory cannot be looked at, or thrown away.
    Io(io::Error),
    /// The node has ended.
    Ended,
}

impl fmt::Display for GroupsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists(group) => write!(f, "group {group} is on this node already"),
            Self::Leaving(group) => write!(f, "group {group} is being removed from this node"),
            Self::Left(group) => write!(
                f,
                "the directory of a group {group} that has ended is still there: resume it, or \
                 remove it first"
            ),
            Self::Removed(group) => write!(
                f,
                "a group {group} was removed from this node, and ids of groups are not used again: take \
                 another"
            ),
            Self::Unknown(group) => write!(f, "there is no group {group} on this node"),
            Self::Directory(error) => error.fmt(f),
            Self::Io(error) => {
                write!(f, "cannot throw the group's directory away, or look at it: {error}")
            }
            Self::Ended => f.write_str("the node has ended"),
        }
    }
}

impl std::error::Error for GroupsError {}

/// A group that is to begin.
struct Birth {
    group: GroupId,
    directory: Directory,
    start: Start,
    inbox: Arc<Inbox>,
}

#[derive(Default)]
struct State {
    births: Vec<Birth>,
    inboxes: BTreeMap<GroupId, Arc<Inbox>>,
    /// Those that are being removed: from the order to end until their directory is gone.
    leaving: BTreeSet<GroupId>,
    removed: Removed,
    is_stopping: bool,
    has_ended: bool,
}

/// Between handles and the loop.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Held by who writes down that a group was removed.
    writes: Mutex<()>,
    bell: Arc<Bell>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether a group may begin now, and by this where there is none.
    fn admit(&self, group: GroupId, new: Option<&Start>) -> Result<(), GroupsError> {
        if self.has_ended || self.is_stopping {
            Err(GroupsError::Ended)
        } else if self.leaving.contains(&group) {
            Err(GroupsError::Leaving(group))
        } else if self.inboxes.contains_key(&group) {
            Err(GroupsError::Exists(group))
        } else if matches!(new, Some(Start::Format { .. })) && self.removed.contains(group) {
            Err(GroupsError::Removed(group))
        } else {
            Ok(())
        }
    }
}

/// A group that is being removed, until this is dropped: nobody begins it before its directory is gone.
struct Leaving {
    shared: Arc<Shared>,
    group: GroupId,
}

impl Leaving {
    /// The handle of the group, if it has not ended.
    fn begin(shared: &Arc<Shared>, group: GroupId) -> Result<(Self, Option<Handle>), GroupsError> {
        let mut state = shared.state();
        if !state.leaving.insert(group) {
            return Err(GroupsError::Leaving(group));
        }
        let handle = state.inboxes.get(&group).map(|inbox| Handle::new(Arc::clone(inbox)));
        Ok((Self { shared: Arc::clone(shared), group }, handle))
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.shared.state().leaving.remove(&self.group);
    }
}

/// A node's groups, as its program sees them. Cheap to clone; may outlive the node.
#[derive(Clone)]
pub struct Groups {
    dir: PathBuf,
    cluster: ClusterId,
    node: NodeId,
    shared: Arc<Shared>,
}

impl fmt::Debug for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Groups").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Groups {
    /// The groups that are here, in order of their ids.
    #[must_use]
    pub fn list(&self) -> Vec<GroupId> {
        self.shared.state().inboxes.keys().copied().collect()
    }

    /// The handle of a group that is here.
    #[must_use]
    pub fn group(&self, group: GroupId) -> Option<Handle> {
        self.shared.state().inboxes.get(&group).map(|inbox| Handle::new(Arc::clone(inbox)))
    }

    /// Creates a group with these voters, by id and address, this node among them. To be called on each of
    /// them, before or after the others. Makes the directory on this thread: it waits for the disk, and
    /// up to ten seconds for what a killed process had begun there.
    ///
    /// Ids are not used again: of one that was removed here none is created ([`GroupsError::Removed`]), nor
    /// where a directory of it is left ([`GroupsError::Left`]). To a new group what a former one's members
    /// said, or one that was away comes back with, would be its own members' word.
    pub fn create<'a>(
        &self,
        group: GroupId,
        voters: impl IntoIterator<Item = (u64, &'a str)>,
    ) -> Result<Handle, GroupsError> {
        let member = |(id, address): (u64, &str)| Member {
            id: NodeId(id),
            incarnation: 0,
            address: bytes::Bytes::copy_from_slice(address.as_bytes()),
        };
        let members = Arc::new(Membership::of(voters.into_iter().map(member)));
        self.begin(group, Some(Start::Format { cluster: self.cluster, members }))
    }

    /// Begins a group that knows nobody and waits to be added to the others of its id. Waits for the disk
    /// as [`create`](Self::create) does, and is refused where that is.
    pub fn join(&self, group: GroupId) -> Result<Handle, GroupsError> {
        self.begin(group, Some(Start::Join { cluster: self.cluster }))
    }

    /// Begins a group again that has ended while the node went on, as its directory says. Waits for the
    /// disk as [`create`](Self::create) does.
    pub fn resume(&self, group: GroupId) -> Result<Handle, GroupsError> {
        self.begin(group, None)
    }

    /// By this where nothing is there yet, or again what is there. What nothing was made in is left for
    /// `create`.
    fn begin(&self, group: GroupId, new: Option<Start>) -> Result<Handle, GroupsError> {
        self.shared.state().admit(group, new.as_ref())?;
        let directory = match &new {
            Some(_) => {
                let (directory, vacant) = self.lock(group)?;
                vacant.then_some(directory).ok_or(GroupsError::Left(group))?
            }
            None => self.lock_made(group)?.ok_or(GroupsError::Unknown(group))?,
        };
        let directory = directory.with_open_files(OPEN_FILES_MAX);
        let inbox = Inbox::at(Arc::clone(&self.shared.bell), group, INBOX_BYTES_MAX);
        let inbox = Arc::new(inbox);
        let mut state = self.shared.state();
        // The directory's lock lets one of two pass that come at the same time.
        state.admit(group, new.as_ref())?;
        let start = new.unwrap_or(Start::Run);
        state.inboxes.insert(group, Arc::clone(&inbox));
        state.births.push(Birth { group, directory, start, inbox: Arc::clone(&inbox) });
        drop(state);
        self.shared.bell.wake();
        Ok(Handle::new(inbox))
    }

    /// Ends a group on this node and throws its directory away, on a thread of its own: it may be large.
    /// One that has ended already, whatever the reason, is thrown away as well. The group goes on elsewhere
    /// as one that has lost a node: take it out of the membership first, or remove all of it. Should this
    /// future be dropped, the group ends, and its directory may stay: then call it again. The id is not
    /// used again on this node, which keeps that in a file of its directory, `removed-groups`.
    pub async fn remove(&self, group: GroupId) -> Result<(), GroupsError> {
        let (leaving, handle) = Leaving::begin(&self.shared, group)?;
        if let Some(handle) = handle {
            handle.shutdown(false).await.map_err(|_| GroupsError::Ended)?;
        }
        let (groups, (told, thrown)) = (self.clone(), oneshot::channel());
        let throw = move || {
            let result = groups.throw_away(group);
            // Whoever hears of it may join the group anew.
            drop(leaving);
            // The future may have been dropped.
            let _ = told.send(result);
        };
        let thread = thread::Builder::new().name("lakebed-remove".into()).spawn(throw);
        thread.map_err(GroupsError::Io)?;
        thrown.await.unwrap_or_else(|_| Err(GroupsError::Io(io::ErrorKind::Other.into())))
    }

    /// Under its lock: of a group that is anybody's nothing is thrown away.
    fn throw_away(&self, group: GroupId) -> Result<(), GroupsError> {
        let (path, gone) = (self.path(group), self.dir.join(format!("{GONE}{group}")));
        let (is_here, was_thrown) = (is_there(&path)?, is_there(&gone)?);
        if !is_here && !was_thrown {
            return Err(GroupsError::Unknown(group));
        }
        let lock = is_here.then(|| self.lock(group)).transpose()?;
        let throw = || {
            if matches!(lock, Some((_, true))) {
                // Nobody has ever said a word there.
                return fs::remove_dir_all(&path);
            }
            if was_thrown {
                // An earlier one of this id, of which something could not be thrown away.
                make_empty(&gone)?;
            }
            if is_here {
                // In one step, so that half a directory is never taken for a group.
                fs::rename(&path, &gone)?;
                fsync(fs::File::open(&self.dir)?)?;
                make_empty(&gone)?;
            }
            self.note(group, &gone);
            Ok(())
        };
        throw().map_err(GroupsError::Io)
    }

    /// Writes down that a group was removed. The name of its empty directory says so as well: that goes
    /// only then, and stays if there is no room for it.
    fn note(&self, group: GroupId, gone: &Path) {
        let _turn = self.shared.writes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.shared.state();
        state.removed.insert(group);
        let removed = state.removed.clone();
        // The loop waits for this lock, and shall not wait for the disk.
        drop(state);
        put_down(&removed, &self.dir, &[gone.to_owned()]);
    }

    /// Throws away what is left of groups that were removed, and writes that down.
    fn tidy(&self, gone: &[Gone]) -> io::Result<()> {
        if gone.is_empty() {
            return Ok(());
        }
        let paths: Vec<_> = gone.iter().map(|(_, path)| path.clone()).collect();
        paths.iter().try_for_each(|path| make_empty(path))?;
        let removed = self.shared.state().removed.clone();
        put_down(&removed, &self.dir, &paths);
        Ok(())
    }

    /// The directory of a group, made if there is none, and whether there is no node in it.
    fn lock(&self, group: GroupId) -> Result<(Directory, bool), GroupsError> {
        dir::open(&self.path(group), self.owner(group)).map_err(GroupsError::Directory)
    }

    /// The directory of a group, if there is a node in it.
    fn lock_made(&self, group: GroupId) -> Result<Option<Directory>, GroupsError> {
        dir::open_made(&self.path(group), self.owner(group)).map_err(GroupsError::Directory)
    }

    const fn owner(&self, group: GroupId) -> Owner {
        Owner { cluster: self.cluster.0, group: group.0, node: self.node.0 }
    }

    /// Stops all groups, those that lead after handing over if they should, and then the node.
    pub fn shutdown(&self, hand_over: bool) {
        let mut state = self.shared.state();
        state.is_stopping = true;
        for inbox in state.inboxes.values() {
            inbox.push(Request::Stop { hand_over });
        }
        drop(state);
        self.shared.bell.wake();
    }

    /// Resolves when a group has ended on this node.
    pub fn ended(&self, group: GroupId) -> Option<Reply<Arc<Halt>>> {
        self.group(group).map(|handle| handle.ended())
    }

    /// The directory of a group, whether it is there or not.
    #[must_use]
    pub fn path(&self, group: GroupId) -> PathBuf {
        self.dir.join(format!("{PREFIX}{group}"))
    }
}

impl<M: StateMachine + Send + 'static> GroupsNode<M> {
    /// A node whose groups are those in its directory, each with a machine of this kind. Must be
    /// called within a tokio runtime that has I/O and time enabled, and polled there: one like
    /// [`executor`](crate::executor)'s.
    pub fn open(
        options: GroupsOptions,
        machine: impl FnMut(GroupId) -> M + Send + 'static,
    ) -> Result<(Groups, Self), StartError> {
        let GroupsOptions { dir, cluster, node, listen, secret, insecure, machine_threads, .. } =
            options;
        let mut config = Config::new(GroupId(0), node);
        (config.groups, config.tuning) = (options.groups, options.tuning);
        config.validate().map_err(StartError::Config)?;
        make_durably(&dir).map_err(StartError::System)?;
        let mut removed = Removed::read(&dir).map_err(StartError::Directory)?;
        let (found, gone) = found(&dir).map_err(StartError::System)?;
        gone.iter().for_each(|(group, _)| removed.insert(*group));
        let listener = crate::node::listen(listen, insecure)?;
        // No group's: a node of one group is turned away.
        let identity = Identity { cluster, group: GroupId(0), groups: config.groups, node };
        let net = TcpNet::new(identity, &secret, listener, &config).map_err(StartError::System)?;
        let shared = Arc::new(Shared::default());
        shared.state().removed = removed;
        let health = Arc::new(Health::new(dir.clone()));
        let groups = Groups { dir, cluster, node, shared: Arc::clone(&shared) };
        let surroundings = (net, Arc::clone(&health));
        let machines = (Box::new(machine) as Box<_>, machine_threads);
        let inner = Inner::new(config, cluster, surroundings, machines, shared)?;
        let opened = Self::of(inner);
        for group in found {
            match groups.begin(group, None) {
                // Its creation was cut short: it is for `create` to begin it, which knows how.
                Ok(_) | Err(GroupsError::Unknown(_)) => {}
                Err(GroupsError::Directory(error)) => return Err(StartError::Directory(error)),
                Err(other) => return Err(StartError::System(io::Error::other(other))),
            }
        }
        // Not before all are locked: another node that runs here may be throwing these away.
        groups.tidy(&gone).map_err(StartError::System)?;
        Ok((groups, opened))
    }
}

fn is_there(path: &Path) -> Result<bool, GroupsError> {
    fs::exists(path).map_err(GroupsError::Io)
}

fn make_empty(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

/// Writes down which groups were removed, in place of these empty directories that say so by their names.
fn put_down(removed: &Removed, dir: &Path, gone: &[PathBuf]) {
    let written = removed.write(dir).and_then(|()| gone.iter().try_for_each(fs::remove_dir));
    if let Err(error) = written {
        tracing::warn!(%error, dir = %dir.display(), "removed groups stay as empty directories");
    }
}

/// A group that is being thrown away, and where what is left of it lies.
type Gone = (GroupId, PathBuf);

/// The groups that a directory holds, and those that were being thrown away.
fn found(dir: &Path) -> io::Result<(Vec<GroupId>, Vec<Gone>)> {
    let (mut found, mut gone) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if let Some(group) = named(name, GONE) {
            gone.push((group, entry.path()));
        } else if let Some(group) = named(name, PREFIX) {
            found.push(group);
        }
    }
    found.sort_unstable();
    Ok((found, gone))
}

/// The group whose directory bears this name. Whatever else is a number, as `group-07`, names none: nobody
/// looks for it there.
fn named(name: &str, prefix: &str) -> Option<GroupId> {
    let group = name.strip_prefix(prefix)?.parse().ok()?;
    (name == format!("{prefix}{group}")).then_some(GroupId(group))
}
