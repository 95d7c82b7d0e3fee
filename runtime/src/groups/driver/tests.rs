//! What a node of groups says last.

use super::*;
use crate::{
    groups::{
        GroupsNode, GroupsOptions,
        tests::{Nothing, opened},
    },
    net::Identity,
    options::Listen,
};
use bytes::Bytes;
use lakebed::{Member, Membership, NodeId};
use std::{future::poll_fn, net::TcpListener};
use tokio::time::timeout;

/// Nobody would ever drive it.
#[tokio::test]
async fn a_node_that_stops_or_has_gone_begins_no_group() {
    for goes in [true, false] {
        let temporary = tempfile::tempdir().unwrap();
        let (groups, node) = opened(temporary.path()).unwrap();
        if goes {
            drop(node);
        } else {
            groups.shutdown(false);
        }
        let created = groups.create(GroupId(1), [(1, "127.0.0.1:1")]);
        assert!(matches!(created, Err(crate::groups::GroupsError::Ended)), "{created:?}");
        assert_eq!(groups.list(), []);
    }
}

/// Whoever waited for its end waited for ever.
#[tokio::test]
async fn a_group_that_cannot_begin_leaves_nobody_waiting() {
    let temporary = tempfile::tempdir().unwrap();
    let (groups, mut node) = opened(temporary.path()).unwrap();
    let config = Config::new(GroupId(1), NodeId(1));
    node.inner.host.create(GroupId(1), Engine::new(config, 7).unwrap()).unwrap();
    let handle = groups.create(GroupId(1), [(1, "127.0.0.1:1")]).unwrap();
    let before = handle.ended();
    node.inner.gather(&mut Context::from_waker(std::task::Waker::noop()));
    for ended in [before, handle.ended()] {
        let ended = timeout(Duration::from_secs(60), ended).await.expect("waited in vain");
        assert_eq!(ended, Err(crate::handle::Failure::Unknown));
    }
    groups.join(GroupId(1)).unwrap();
}

/// A node whose only group halts is connected with nobody any more. What the group said last was queued
/// in the same turn and went with the connection: a leader that leaves says there that the others have
/// committed it.
#[tokio::test]
async fn what_was_said_last_is_sent_before_a_connection_is_let_go() {
    let [here, there] = [1, 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let address = there.local_addr().unwrap().to_string();
    let temporary = tempfile::tempdir().unwrap();
    let (cluster, listen) = (ClusterId(7), Listen::Bound(here));
    let options = GroupsOptions::new(temporary.path(), cluster, NodeId(1), listen);
    let (_groups, mut node) = GroupsNode::open(options, |_| Nothing).unwrap();
    let identity = Identity { cluster, group: GroupId(0), groups: 0, node: NodeId(2) };
    let config = Config::new(GroupId(0), NodeId(2));
    let mut peer = TcpNet::new(identity, b"", there, &config).unwrap();
    let member = Member { id: NodeId(2), incarnation: 0, address: address.into() };
    let members = Arc::new(Membership::of([member]));
    node.inner.actions.push(HostAction::Connect(members));
    node.inner.perform();

    let last = Bytes::from_static(b"the last word");
    let (mut events, mut heard) = (Vec::new(), Vec::new());
    let hears = poll_fn(|cx| {
        node.inner.net.poll_events(cx, &mut events);
        if events.drain(..).any(|event| matches!(event, Event::Link { up: true, .. })) {
            let said = HostAction::Beat { to: NodeId(2), bytes: last.clone() };
            let nobody = HostAction::Connect(Arc::new(Membership::of([])));
            node.inner.actions.extend([said, nobody]);
            node.inner.perform();
        }
        peer.poll_events(cx, &mut heard);
        let is_over = heard.iter().any(|event| matches!(event, Event::Link { up: false, .. }));
        if is_over { Poll::Ready(()) } else { Poll::Pending }
    });
    timeout(Duration::from_secs(60), hears).await.expect("waited in vain");
    let received = Event::Received { from: NodeId(1), bytes: last.clone() };
    assert!(heard.contains(&received), "{heard:?}");
}
