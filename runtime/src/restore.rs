//! A new node's directory out of a backup, while no node runs in it.
//!
//! The engine writes every byte ([`Start::Restore`]); here it is given a machine that reads the
//! backup's file in place of one that was applied to. Knows no byte of the files.

use crate::{
    alone,
    dir::{self, DirError, Owner},
};
use bytes::{Bytes, BytesMut};
use lakebed::{
    Backup, BackupFault, BackupReader, Clients, ClusterId, Config, Engine, Event, Halt, LogId,
    MachineError, Membership, NodeId, Outcome, RequestId, Runner, Start, StateMachine, Timestamp,
};
use std::{
    collections::VecDeque,
    fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

/// How much of a file is read at one time.
const PIECE_BYTES: usize = 256 << 10;

/// Why a backup could not be read, or no node be made from it.
#[derive(Debug)]
#[non_exhaustive]
pub enum RestoreError {
    /// The file cannot be read.
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file is no backup, or not a whole one.
    Backup {
        /// The file.
        path: PathBuf,
        /// Where, and what.
        fault: BackupFault,
    },
    /// No node can be made in the directory.
    Directory(DirError),
    /// The engine ended before the node was there.
    Halted(Box<Halt>),
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, error } => write!(f, "cannot read {}: {error}", path.display()),
            Self::Backup { path, fault } => {
                write!(f, "{} is no whole backup: {fault}", path.display())
            }
            Self::Directory(error) => error.fmt(f),
            Self::Halted(halt) => halt.fmt(f),
        }
    }
}

impl std::error::Error for RestoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } => Some(error),
            Self::Backup { fault, .. } => Some(fault),
            Self::Directory(error) => Some(error),
            Self::Halted(_) => None,
        }
    }
}

/// Checks every byte of a backup, and tells what it says of itself. `progress` is told how many
/// bytes of how many were read.
pub fn read_backup(
    path: &Path,
    mut progress: impl FnMut(u64, u64),
) -> Result<Backup, RestoreError> {
    let unreadable = |error| RestoreError::Io { path: path.to_owned(), error };
    let wrong = |fault| RestoreError::Backup { path: path.to_owned(), fault };
    let mut file = fs::File::open(path).map_err(unreadable)?;
    let len = file.metadata().map_err(unreadable)?.len();
    let (mut reader, mut piece, mut done) = (BackupReader::new(len), vec![0; PIECE_BYTES], 0);
    loop {
        match file.read(&mut piece) {
            Ok(0) => return reader.finish().map_err(wrong),
            Ok(read) => {
                reader.take(&piece[..read], drop).map_err(wrong)?;
                done += read as u64;
                progress(done, len);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
}

/// Makes a node of a new cluster in `dir`, which holds nothing or what an earlier try left, out of
/// this backup, which [`read_backup`] has read; the new node's snapshot says of as many groups as
/// `backup` does here. Then it is started like any other; a crash before leaves none. `progress` is
/// told how many bytes of the state of how many are written.
pub fn restore(
    dir: &Path,
    (cluster, node): (ClusterId, NodeId),
    members: Arc<Membership>,
    (path, backup): (&Path, Backup),
    mut progress: impl FnMut(u64, u64),
) -> Result<LogId, RestoreError> {
    let owner = Owner { cluster: cluster.0, group: backup.group.0, node: node.0 };
    let directory = dir::open_to_restore(dir, owner).map_err(RestoreError::Directory)?;
    let config = Config { groups: backup.groups, ..Config::new(backup.group, node) };
    let engine = Engine::new(config, draw()?).expect("the default configuration is valid");
    let (machine, bytes) = (State(path.to_owned()), backup.bytes);
    let start = Start::Restore { cluster, members, backup: Box::new(backup) };
    let (mut runner, mut done) = (Runner::new(machine), 0);
    let perform = |step| {
        let event = runner.perform(step, &mut Nobody);
        if let Some(Event::Captured { result: Ok(chunk), .. }) = &event {
            done += chunk.bytes.len() as u64;
            progress(done, bytes);
        }
        event
    };
    match alone::run(engine, start, &directory, perform, |_| {}) {
        Halt::Built(at) => Ok(at),
        halt => Err(RestoreError::Halted(Box::new(halt))),
    }
}

fn draw() -> Result<u64, RestoreError> {
    getrandom::u64().map_err(|error| {
        let path = PathBuf::from("the system's entropy");
        RestoreError::Io { path, error: io::Error::other(error) }
    })
}

/// A machine that holds what a backup does, and is asked for nothing else.
struct State(PathBuf);

impl StateMachine for State {
    fn apply(&mut self, at: LogId, _: Timestamp, _: &[u8], _: &mut Vec<u8>) {
        unreachable!("a restore applies nothing, and {at} less than that")
    }

    fn query(&self, _: &[u8], _: &mut Vec<u8>) {}

    /// What cannot be read any more is missing then, which the engine notices.
    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        let opened = fs::File::open(&self.0).and_then(|file| Ok((file.metadata()?.len(), file)));
        let Ok((len, file)) = opened else { return Box::new(std::iter::empty()) };
        Box::new(Pieces { file, reader: BackupReader::new(len), next: VecDeque::new() })
    }

    fn restore(&mut self, _: u64, _: &[u8], _: bool) -> Result<(), MachineError> {
        Err(MachineError("a backup takes nothing in".into()))
    }
}

/// The state, a block at a time.
struct Pieces {
    file: fs::File,
    reader: BackupReader,
    next: VecDeque<Bytes>,
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        while self.next.is_empty() {
            let mut piece = BytesMut::zeroed(PIECE_BYTES);
            let read = self.file.read(&mut piece).ok().filter(|read| *read > 0)?;
            let next = &mut self.next;
            self.reader.take(&piece[..read], |state| next.push_back(state)).ok()?;
        }
        self.next.pop_front()
    }
}

/// Nobody asks anything of a node that is being made.
struct Nobody;

impl Clients for Nobody {
    fn query(&mut self, _: RequestId) -> &[u8] {
        &[]
    }

    fn answer(&mut self, _: RequestId, _: Result<&[u8], &Outcome>) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        groups::{GroupsNode, GroupsOptions},
        handle::Carried,
        options::Listen,
    };
    use lakebed::{Control, File, GroupId, Member};
    use std::{future::poll_fn, net::TcpListener, pin::Pin, time::Duration};
    use tokio::time::timeout;

    struct Silent;

    impl StateMachine for Silent {
        fn apply(&mut self, _: LogId, _: Timestamp, _: &[u8], _: &mut Vec<u8>) {}

        fn query(&self, _: &[u8], _: &mut Vec<u8>) {}

        fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
            Box::new(std::iter::once(Bytes::from_static(b"state")))
        }

        fn restore(&mut self, _: u64, _: &[u8], _: bool) -> Result<(), MachineError> {
            Ok(())
        }
    }

    /// Its group's files would be taken for another group's, and a backup of what was restored for one that
    /// says no number.
    #[tokio::test]
    async fn what_is_restored_is_the_group_that_was_backed_up_and_knows_of_as_many() {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (cluster, group) = (ClusterId(7), GroupId(5));
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        let mut options = GroupsOptions::new(old, cluster, NodeId(1), Listen::Bound(listener));
        options.groups = 6;
        let (groups, mut node) = GroupsNode::open(options, |_| Silent).unwrap();
        let handle = groups.create(group, [(1, address.as_str())]).unwrap();
        let mut saved = Box::pin(async {
            while handle.propose_one(b"command").await.is_err() {}
            handle.control(Control::Snapshot).await
        });
        let saves = poll_fn(|cx| {
            let polled = saved.as_mut().poll(cx);
            assert!(Pin::new(&mut node).poll(cx).is_pending(), "nobody asked it to end");
            polled
        });
        let saved = timeout(Duration::from_secs(60), saves).await.expect("waited in vain");
        let Ok(Carried::Done(at)) = saved else { panic!("{saved:?}") };
        let file = groups.path(group).join(File::Snapshot(at).name());

        let backup = read_backup(&file, |_, _| ()).unwrap();
        assert_eq!((backup.group, backup.groups), (group, 6));
        let member = Member { id: NodeId(1), incarnation: 0, address: address.into() };
        let members = Arc::new(Membership::of([member]));
        let at = restore(&new, (ClusterId(8), NodeId(1)), members, (&file, backup), |_, _| ());
        let made = new.join(File::Snapshot(at.unwrap()).name());
        assert_eq!(dir::open_to_read(&new).unwrap().1, Owner { cluster: 8, group: 5, node: 1 });
        let anew = read_backup(&made, |_, _| ()).unwrap();
        assert_eq!((anew.group, anew.groups), (group, 6));
    }

    /// A disk's failure would be told as a backup's.
    #[test]
    fn what_cannot_be_read_is_not_called_a_short_backup() {
        let dir = tempfile::tempdir().unwrap();
        let read = read_backup(dir.path(), |_, _| {});
        assert!(matches!(read, Err(RestoreError::Io { .. })), "{read:?}");
    }
}
