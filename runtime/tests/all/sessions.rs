//! Sessions through real nodes on loopback: what is sent again is applied once.

use crate::{
    count::{Count, number},
    patience::{PATIENCE, within},
    port::Port,
};
use futures::FutureExt;
use lakebed::{
    ClusterId, Config, GroupId, Halt, NodeId, Refusal, Role, Sessions, StateMachine, Tuning,
    session::SessionError,
};
use lakebed_runtime::{Handle, Listen, Node, Options, Session, SessionFailure};
use std::{sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::{task::JoinHandle, time::interval};

struct Cluster {
    dir: TempDir,
    ports: Vec<Port>,
    handles: Vec<Handle>,
    tasks: Vec<Option<JoinHandle<Arc<Halt>>>>,
}

impl Cluster {
    fn start<M: StateMachine + Send + 'static>(nodes: usize, machine: fn() -> M) -> Self {
        let ports = (0..nodes).map(|_| Port::take()).collect();
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = Self { dir, ports, handles: Vec::new(), tasks: Vec::new() };
        for node in 0..nodes {
            let (handle, driven) = Node::open(cluster.options(node), machine()).unwrap();
            cluster.handles.push(handle);
            cluster.tasks.push(Some(tokio::spawn(driven)));
        }
        cluster
    }

    fn options(&self, node: usize) -> Options {
        let mut config = Config::new(GroupId(1), NodeId(node as u64 + 1));
        config.tuning = Tuning::default();
        config.tuning.heartbeat = Duration::from_millis(30);
        config.tuning.election = (Duration::from_millis(150), Duration::from_millis(300));
        let addresses: Vec<_> = self.ports.iter().map(|port| port.address.to_string()).collect();
        let members = (1..).zip(addresses.iter().map(String::as_str));
        let listen = Listen::Address(self.ports[node].address);
        let dir = self.dir.path().join(node.to_string());
        Options::new(dir, ClusterId(7), config, listen).members(members)
    }

    /// Ends whoever leads without a word, as a kill does.
    async fn kill_leader(&mut self) {
        let leader = within(async {
            let mut again = interval(Duration::from_millis(5));
            loop {
                for (node, handle) in self.handles.iter().enumerate() {
                    if handle.status().await.is_ok_and(|status| status.role == Role::Leader) {
                        return node;
                    }
                }
                again.tick().await;
            }
        });
        let leader = leader.await;
        let task = self.tasks[leader].take().expect("a leader was not killed before");
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }
}

#[tokio::test]
async fn a_session_counts_once_when_its_leader_is_killed() {
    let mut cluster = Cluster::start(3, Sessions::<Count>::default);
    let handles = cluster.handles.clone();
    let (counted, counts) = tokio::sync::watch::channel(0);
    let counting = tokio::spawn(async move {
        let mut session = Session::open(handles).await.unwrap().within(PATIENCE);
        for expected in 1..=300 {
            let answer = session.propose_one(b"count").await.unwrap();
            assert_eq!((number(&answer), session.sequence()), (expected, expected));
            counted.send_replace(expected);
        }
        session
    });
    let mut counts = counts.clone();
    within(counts.wait_for(|counted| *counted >= 100)).await.unwrap();
    cluster.kill_leader().await;
    let mut session = within(counting).await.unwrap();
    // A call that is dropped at once has begun something that is finished, once, by the next one.
    assert!(session.propose_one(b"count").now_or_never().is_none());
    assert_eq!(number(&within(session.propose_one(b"count")).await.unwrap()), 302);
    assert!(within(session.retry()).await.is_none());
    let id = session.id();
    within(session.close()).await.unwrap();
    assert_eq!(id.number, 1);
}

#[tokio::test]
async fn a_session_says_what_cannot_be() {
    let cluster = Cluster::start(1, Sessions::<Count>::default);
    let mut session = within(Session::open(cluster.handles.clone())).await.unwrap();
    let large = vec![0; Tuning::default().append_bytes_max as usize + 1];
    let refused = within(session.propose_one(&large)).await;
    assert_eq!(refused, Err(SessionFailure::Refused(Refusal::TooLarge)));
    assert_eq!(number(&within(session.propose_one(b"count")).await.unwrap()), 1);
    // Nobody is there any more: what was begun stays open, and is not forgotten.
    within(cluster.handles[0].shutdown(false)).await.unwrap();
    let mut session = session.within(Duration::from_millis(50));
    let gone = within(session.propose_one(b"count")).await;
    assert!(matches!(gone, Err(SessionFailure::Unanswered(_))), "{gone:?}");
    let again = within(session.retry()).await;
    assert!(matches!(again, Some(Err(SessionFailure::Unanswered(_)))), "{again:?}");
}

#[tokio::test]
async fn a_machine_without_sessions_is_told_as_that() {
    let cluster = Cluster::start(1, Count::default);
    let opened = within(Session::open(cluster.handles.clone())).await;
    let failure = opened.expect_err("there is no session to open");
    assert_eq!(failure, SessionFailure::Session(SessionError::NoReply));
}
