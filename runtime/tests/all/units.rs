//! A cluster on disks that are written in other units than the default ones.

use crate::{patience::within, port::Port};
use bytes::Bytes;
use lakebed::{
    ClusterId, Config, GroupId, Halt, LogId, MachineError, NodeId, ReadMode, StateMachine,
    Timestamp,
};
use lakebed_runtime::{Depth, Force, Listen, Node, Options, force, look};
use std::{path::Path, time::Duration};
use tokio::task::JoinSet;

const UNITS: u32 = 512;

/// Counts its commands.
#[derive(Default)]
struct Counter(u8);

impl StateMachine for Counter {
    fn apply(&mut self, _: LogId, _: Timestamp, _: &[u8], answer: &mut Vec<u8>) {
        self.0 += 1;
        answer.push(self.0);
    }

    fn query(&self, _: &[u8], answer: &mut Vec<u8>) {
        answer.push(self.0);
    }

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        Box::new(std::iter::once(Bytes::copy_from_slice(&[self.0])))
    }

    fn restore(&mut self, _: u64, bytes: &[u8], _: bool) -> Result<(), MachineError> {
        self.0 = bytes[0];
        Ok(())
    }
}

fn options(dir: &Path, ports: &[Port], node: usize, units: u32) -> Options {
    let mut config = Config::new(GroupId(1), NodeId(node as u64 + 1));
    config.disk_align = units;
    let addresses: Vec<_> = ports.iter().map(|port| port.address.to_string()).collect();
    let members = (1..).zip(addresses.iter().map(String::as_str));
    let listen = Listen::Address(ports[node].address);
    Options::new(dir.join(node.to_string()), ClusterId(7), config, listen).members(members)
}

/// It was called damaged, and its log was cut.
#[tokio::test]
async fn a_look_and_a_recovery_by_force_go_by_the_units_that_are_there() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let ports: Vec<_> = (0..3).map(|_| Port::take()).collect();
    let mut nodes = JoinSet::new();
    let mut handles = Vec::new();
    for node in 0..3 {
        let (handle, driven) =
            Node::open(options(dir, &ports, node, UNITS), Counter::default()).unwrap();
        handles.push(handle);
        nodes.spawn(driven);
    }
    let mut again = tokio::time::interval(Duration::from_millis(20));
    let proposed = async {
        loop {
            if let Ok(answers) = handles[0].propose_one(b"one").await {
                return answers;
            }
            again.tick().await;
        }
    };
    within(proposed).await;
    let read = handles[0].read_one(b"", ReadMode::Linearizable).await.unwrap();
    for handle in &handles {
        handle.shutdown(false).await.unwrap();
    }
    while nodes.join_next().await.is_some() {}

    let first = dir.join("0");
    for depth in [Depth::Verdict, Depth::Bytes] {
        let found = look(&first, depth, |_| {}).unwrap();
        assert_eq!(found.defects, []);
        assert_eq!(found.hard_state.as_ref().unwrap().disk_align, UNITS);
    }
    let Force::Done(_) = force(&first, |plan| plan.cut.is_none(), |_| {}).unwrap() else {
        panic!("nothing is lost")
    };
    let (handle, driven) = Node::open(options(dir, &ports, 0, UNITS), Counter::default()).unwrap();
    let alone = tokio::spawn(driven);
    let kept = async {
        loop {
            if let Ok(kept) = handle.read_one(b"", ReadMode::Linearizable).await {
                return kept;
            }
            again.tick().await;
        }
    };
    assert_eq!(within(kept).await, read);
    handle.shutdown(false).await.unwrap();
    assert!(matches!(*alone.await.unwrap(), Halt::Stopped));
    let (_handle, driven) = Node::open(options(dir, &ports, 0, 4096), Counter::default()).unwrap();
    let halt = driven.await;
    assert!(matches!(*halt, Halt::Refused { row: "other-align", .. }), "{halt}");
}
