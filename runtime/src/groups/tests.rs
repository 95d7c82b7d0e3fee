//! What becomes of directories: whose they are, and how they are thrown away.

use super::*;
use bytes::Bytes;
use lakebed::{File, LogId, MachineError, Timestamp};
use std::net::TcpListener;

/// A machine without a state.
pub(super) struct Nothing;

impl StateMachine for Nothing {
    fn apply(&mut self, _: LogId, _: Timestamp, _: &[u8], _: &mut Vec<u8>) {}

    fn query(&self, _: &[u8], _: &mut Vec<u8>) {}

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        Box::new(std::iter::empty())
    }

    fn restore(&mut self, _: u64, _: &[u8], _: bool) -> Result<(), MachineError> {
        Ok(())
    }
}

/// A node on a port of its own.
pub(super) fn opened(dir: &Path) -> Result<(Groups, GroupsNode<Nothing>), StartError> {
    let listen = Listen::Bound(TcpListener::bind("127.0.0.1:0").unwrap());
    let options = GroupsOptions::new(dir, ClusterId(7), NodeId(1), listen);
    GroupsNode::open(options, |_| Nothing)
}

/// What a node's handle knows, without a node.
fn groups(dir: &Path) -> Groups {
    Groups { dir: dir.to_owned(), cluster: ClusterId(7), node: NodeId(1), shared: Arc::default() }
}

/// `group-07` was taken for a group beside `group-7`, and `gone-07` was emptied.
#[test]
fn a_group_has_one_name() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["group-7", "group-07", "group-+8", "group-", "group-x", "gone-3", "gone-04"];
    for name in names {
        fs::create_dir(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join("file"), "kept").unwrap();
    }
    let (found, gone) = found(dir.path()).unwrap();
    assert_eq!(found, [GroupId(7)]);
    assert_eq!(gone, [(GroupId(3), dir.path().join("gone-3"))]);
}

/// Its mark was written first, which failed on a full disk: a node that a creation on that disk had left
/// an empty directory did not start any more.
#[test]
fn what_nothing_was_made_in_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let groups = groups(dir.path());
    let path = groups.path(GroupId(5));
    fs::create_dir(&path).unwrap();
    for left in ["", "node.new", "LOCK"] {
        if !left.is_empty() {
            fs::write(path.join(left), "").unwrap();
        }
        let names = || fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name());
        let before: BTreeSet<_> = names().collect();
        let resumed = groups.resume(GroupId(5));
        assert!(matches!(resumed, Err(GroupsError::Unknown(GroupId(5)))), "{resumed:?}");
        assert_eq!(names().collect::<BTreeSet<_>>(), before);
    }
    groups.create(GroupId(5), [(1, "127.0.0.1:1")]).unwrap();
}

/// A second start, which is refused, while a removal is under way.
#[tokio::test]
async fn a_start_that_is_refused_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let open = || opened(dir.path());
    let (groups, _node) = open().unwrap();
    groups.create(GroupId(1), [(1, "127.0.0.1:1")]).unwrap();
    // As a removal leaves it midway.
    fs::create_dir(dir.path().join("gone-9")).unwrap();
    fs::write(dir.path().join("gone-9/log-1"), "").unwrap();
    assert!(open().is_err(), "it is in use");
    let removed = groups.remove(GroupId(9)).await;
    let created = groups.create(GroupId(9), [(1, "127.0.0.1:1")]).map(drop);
    let told = (fs::read_to_string(dir.path().join("removed-groups")), removed, created);
    assert!(matches!(told.2, Err(GroupsError::Removed(_))), "{told:?}");
}

/// Half a directory would be taken for a group after a crash, which had lost its vote.
#[test]
fn of_a_directory_that_cannot_be_renamed_nothing_is_thrown_away() {
    let dir = tempfile::tempdir().unwrap();
    let groups = groups(dir.path());
    let path = groups.path(GroupId(9));
    let (locked, vacant) = groups.lock(GroupId(9)).unwrap();
    assert!(vacant);
    fs::write(path.join(File::HardState.name()), "its vote").unwrap();
    drop(locked);
    // It leads nowhere, and no directory takes its name.
    std::os::unix::fs::symlink("nowhere", dir.path().join("gone-9")).unwrap();
    let thrown = groups.throw_away(GroupId(9));
    assert!(matches!(thrown, Err(GroupsError::Io(_))), "{thrown:?}");
    assert_eq!(fs::read_to_string(path.join(File::HardState.name())).unwrap(), "its vote");
}
