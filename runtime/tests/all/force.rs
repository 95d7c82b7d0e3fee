//! What a recovery by force leaves where it is declined, refused or cut short.

use crate::{
    count::Count,
    patience::{eventually, within},
    port::Port,
};
use lakebed::{ClusterId, Config, GroupId, Halt, NodeId};
use lakebed_runtime::{Force, ForceEffort, ForceError, Listen, Node, Options, RECORD, force};
use std::{fs, os::unix::fs::symlink, path::Path};
use tempfile::{TempDir, tempdir};
use tokio::task::JoinSet;

/// Directories of three nodes that have stopped, the first of which is in `0`.
async fn stopped() -> TempDir {
    let (dir, ports) = (tempdir().unwrap(), [1, 2, 3].map(|_| Port::take()));
    let addresses = ports.each_ref().map(|port| port.address.to_string());
    let mut nodes = JoinSet::new();
    let mut handles = Vec::new();
    for (node, port) in ports.iter().enumerate() {
        let config = Config::new(GroupId(1), NodeId(node as u64 + 1));
        let (at, listen) = (dir.path().join(node.to_string()), Listen::Address(port.address));
        let members = (1..).zip(addresses.iter().map(String::as_str));
        let options = Options::new(at, ClusterId(7), config, listen).members(members);
        let (handle, driven) = Node::open(options, Count::default()).unwrap();
        handles.push(handle);
        nodes.spawn(driven);
    }
    let is_led = async || handles[0].status().await.is_ok_and(|status| status.leader.is_some());
    eventually(async || is_led().await.then_some(())).await;
    for handle in &handles {
        handle.shutdown(false).await.unwrap();
    }
    within(async { while nodes.join_next().await.is_some() {} }).await;
    dir
}

fn record(dir: &Path) -> String {
    fs::read_to_string(dir.join(RECORD)).unwrap()
}

/// Nothing at all was done.
fn assert_not_done(dir: &Path) {
    assert!(matches!(force(dir, |_| false, |_| {}), Ok(Force::Declined(_))), "it is not done");
}

#[tokio::test]
async fn what_was_declined_is_not_done() {
    let dir = stopped().await;
    let first = dir.path().join("0");
    assert_not_done(&first);
    assert_not_done(&first);
    assert!(!first.join(RECORD).exists());
}

/// A long log was read three times and written once without a word.
#[tokio::test]
async fn it_is_told_how_far_it_is() {
    let dir = stopped().await;
    let dir = &dir.path().join("0");
    let mut told = Vec::new();
    let done = force(dir, |_| true, |effort| told.push(effort));
    assert!(matches!(done, Ok(Force::Done(_))), "{done:?}");
    let first = told.iter().position(|effort| effort.is_accepted).unwrap();
    for run in [&told[..first], &told[first..]] {
        let is_one = |effort: &ForceEffort| {
            (effort.is_accepted, effort.bytes_total) == (run[0].is_accepted, run[0].bytes_total)
        };
        assert!(run.iter().all(is_one), "{run:?}");
        assert!(run.is_sorted_by_key(|effort| effort.bytes_done), "{run:?}");
        let last = run.last().unwrap();
        assert!(0 < last.bytes_done && last.bytes_done <= last.bytes_total, "{last:?}");
    }
    assert!(told[first].bytes_done < told.last().unwrap().bytes_done);
}

/// Whoever asks later what became of the others would find nothing.
#[tokio::test]
async fn nothing_is_done_that_cannot_be_put_on_record() {
    let dir = stopped().await;
    let first = dir.path().join("0");
    // It takes all that is written, and cannot be synced.
    symlink("/dev/null", first.join(RECORD)).unwrap();
    let done = force(&first, |_| true, |_| {});
    assert!(matches!(done, Err(ForceError::Record { .. })), "{done:?}");
    assert_not_done(&first);
}

#[tokio::test]
async fn the_record_tells_of_every_try_and_of_its_end() {
    let dir = stopped().await;
    let dir = &dir.path().join("0");
    fs::write(dir.join(RECORD), "begun    long ago\n").unwrap();
    assert!(matches!(force(dir, |_| true, |_| {}), Ok(Force::Done(_))));
    let told = record(dir);
    assert!(told.starts_with("begun    long ago\nbegun    2"), "{told}");
    let ends = |told: &str| told.lines().last().is_some_and(|last| last.starts_with("finished 2"));
    assert!(ends(&told), "{told}");

    let is_refused = || match force(dir, |_| true, |_| {}) {
        Err(ForceError::Halted(halt)) => {
            matches!(*halt, Halt::Refused { row: "already-alone", .. })
        }
        _ => false,
    };
    assert!(is_refused(), "it was done, and said so");
    assert_eq!(record(dir), told);

    // Cut short before it could say so.
    let open = told.lines().take(told.lines().count() - 1).collect::<Vec<_>>().join("\n") + "\n";
    fs::write(dir.join(RECORD), &open).unwrap();
    assert_eq!(force(dir, |_| true, |_| {}).unwrap(), Force::WasDone);
    let told = record(dir);
    assert!(told.starts_with(&open) && ends(&told), "{told}");
    assert!(is_refused());
}
