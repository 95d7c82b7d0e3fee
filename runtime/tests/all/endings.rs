//! What the end of a node leaves: its address is free, and whoever asks is answered.

use crate::{
    patience::{eventually, within},
    port::Port,
};
use bytes::Bytes;
use lakebed::{ClusterId, Config, GroupId, LogId, MachineError, NodeId, StateMachine, Timestamp};
use lakebed_runtime::{Failure, Handle, Listen, Node, Options};
use std::{net::SocketAddr, path::Path};

/// Panics when it is told to, and in some lives as it goes, as one whose last flush fails.
struct Brittle {
    falls: bool,
}

impl StateMachine for Brittle {
    fn apply(&mut self, _: LogId, _: Timestamp, command: &[u8], _: &mut Vec<u8>) {
        assert_ne!(command, b"panic", "as it was told");
    }

    fn query(&self, _: &[u8], _: &mut Vec<u8>) {}

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        Box::new(std::iter::empty())
    }

    fn restore(&mut self, _: u64, _: &[u8], _: bool) -> Result<(), MachineError> {
        Ok(())
    }
}

impl Drop for Brittle {
    fn drop(&mut self) {
        assert!(!self.falls, "its last flush fails");
    }
}

fn open(dir: &Path, at: SocketAddr, falls: bool) -> (Handle, Node<Brittle>) {
    let config = Config::new(GroupId(1), NodeId(1));
    let options = Options::new(dir, ClusterId(7), config, Listen::Address(at));
    Node::open(options.members([(1, at.to_string().as_str())]), Brittle { falls }).unwrap()
}

async fn until_it_leads(handle: &Handle) {
    eventually(async || handle.propose_one(b"one").await.ok()).await;
}

/// Its listener was a task's, and lasted until a thread came to end that: thirteen of twenty who opened the
/// node anew found the address in use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_ended_listens_no_more() {
    for _ in 0..20 {
        let (dir, port) = (tempfile::tempdir().unwrap(), Port::take());
        for awaits_task in [false, true, true] {
            let (handle, node) = open(dir.path(), port.address, false);
            let task = tokio::spawn(node);
            until_it_leads(&handle).await;
            within(handle.shutdown(false)).await.unwrap();
            if awaits_task {
                within(task).await.unwrap();
            }
        }
    }
}

/// Whoever asked waited for ever; after a panic amid its work it took the process with it.
#[tokio::test]
async fn a_machine_that_panics_as_it_goes_leaves_nobody_waiting() {
    for end in ["stop", "abort", "panic"] {
        let (dir, port) = (tempfile::tempdir().unwrap(), Port::take());
        let (handle, node) = open(dir.path(), port.address, true);
        let task = tokio::spawn(node);
        until_it_leads(&handle).await;
        match end {
            "stop" => drop(within(handle.shutdown(false)).await.unwrap()),
            "abort" => task.abort(),
            _ => {
                let panicked = within(handle.propose_one(b"panic")).await;
                assert_eq!(panicked, Err(Failure::Unknown));
            }
        }
        let ended = within(task).await;
        assert_eq!(ended.is_ok(), end == "stop", "{end}");
        assert!(handle.has_ended(), "{end}");
        assert_eq!(within(handle.ended()).await.is_ok(), end == "stop", "{end}");
        assert!(within(handle.propose_one(b"one")).await.is_err(), "{end}");
        assert_eq!(within(handle.status()).await.is_ok(), end == "stop", "{end}");
    }
}
