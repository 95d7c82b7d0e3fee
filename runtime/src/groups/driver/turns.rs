//! What a round hears first, and how the machines of many groups share it.

use super::*;
use crate::{groups::GroupsOptions, inbox::Waiter, net::Identity, options::Listen};
use futures::channel::oneshot;
use lakebed::{Batch, LogId, LogIndex, MachineError, Member, Membership, NodeId, Start, Timestamp};
use std::{
    future::poll_fn,
    net::TcpListener,
    sync::{Mutex, PoisonError},
    task::Waker,
};
use tokio::{task::yield_now, time::timeout};

/// Writes down that it was asked, and answers when all machines of a round have had their time.
struct Slow {
    group: GroupId,
    asked: Arc<Mutex<Vec<GroupId>>>,
}

impl StateMachine for Slow {
    fn apply(&mut self, _: LogId, _: Timestamp, _: &[u8], _: &mut Vec<u8>) {}

    fn query(&self, _: &[u8], _: &mut Vec<u8>) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(self.group);
        let clock = SystemClock::default();
        let until = clock.now().after(Duration::from_millis(4));
        while clock.now() < until {
            std::hint::spin_loop();
        }
    }

    fn freeze(&self) -> Box<dyn Iterator<Item = bytes::Bytes> + Send> {
        Box::new(std::iter::empty())
    }

    fn restore(&mut self, _: u64, _: &[u8], _: bool) -> Result<(), MachineError> {
        Ok(())
    }
}

/// Each of them had a step in every round: with enough of them no beat left in time, and peers took
/// the node for dead.
#[tokio::test]
async fn between_two_looks_at_the_network_is_one_slow_step_however_many_groups_are_busy() {
    const GROUPS: u64 = 12;
    let (dir, asked) = (tempfile::tempdir().unwrap(), Arc::<Mutex<Vec<GroupId>>>::default());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let listen = Listen::Bound(listener);
    let options = GroupsOptions::new(dir.path(), ClusterId(7), NodeId(1), listen);
    let machine = {
        let asked = Arc::clone(&asked);
        move |group| Slow { group, asked: Arc::clone(&asked) }
    };
    let (groups, mut node) = GroupsNode::open(options, machine).unwrap();
    for group in (1..=GROUPS).map(GroupId) {
        groups.create(group, [(1, address.as_str())]).unwrap();
    }
    // They have their seats from its first round on.
    assert!(poll_fn(|cx| Poll::Ready(Pin::new(&mut node).poll(cx))).await.is_pending());
    let inner = &mut node.inner;
    for (group, seat) in &mut inner.seats {
        for _ in 0..3 {
            let waiter = Waiter::All(oneshot::channel().0);
            let requests = seat.clients.queries(Batch::one(b"?"), waiter).unwrap();
            seat.lane.push_back(Machine::Query { requests, at: LogIndex(0) });
        }
        inner.busy.insert(*group);
    }
    let steps = || asked.lock().unwrap_or_else(PoisonError::into_inner).len();
    let mut before = steps();
    while inner.run_machines() {
        assert!(steps() <= before + 1, "{} slow steps in one round", steps() - before);
        before = steps();
    }
    let in_turn: Vec<_> = (0..3).flat_map(|_| (1..=GROUPS).map(GroupId)).collect();
    assert_eq!(*asked.lock().unwrap_or_else(PoisonError::into_inner), in_turn);
}

/// A group's first event is its start. What was heard in the same round came before it.
#[tokio::test]
async fn a_group_begins_before_what_comes_with_it_is_heard() {
    let dir = tempfile::tempdir().unwrap();
    let [here, there] = [1, 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let address = here.local_addr().unwrap().to_string();
    let cluster = ClusterId(7);
    let options = GroupsOptions::new(dir.path(), cluster, NodeId(1), Listen::Bound(here));
    let machine = |group| Slow { group, asked: Arc::default() };
    let (groups, mut node) = GroupsNode::open(options, machine).unwrap();
    let identity = Identity { cluster, group: GroupId(0), groups: 0, node: NodeId(2) };
    let mut peer = TcpNet::new(identity, b"", there, &Config::new(GroupId(0), NodeId(2))).unwrap();
    let member = Member { id: NodeId(1), incarnation: 0, address: address.into() };
    peer.connect(&Membership::of([member]));
    let mut heard = Vec::new();
    let is_linked = poll_fn(|cx| {
        peer.poll_events(cx, &mut heard);
        if heard.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    });
    timeout(Duration::from_secs(60), is_linked).await.expect("waited in vain");
    // The node is about to hear of it too, and each of its rounds has a group to begin.
    let round = async {
        for group in (1..).map(GroupId) {
            groups.join(group).unwrap();
            node.inner.gather(&mut Context::from_waker(Waker::noop()));
            let events = std::mem::take(&mut node.inner.events);
            if events.iter().any(|event| matches!(event, HostEvent::Link { .. })) {
                let start = Event::Start(Start::Join { cluster });
                let link = HostEvent::Link { peer: NodeId(2), up: true };
                return assert_eq!(events, [HostEvent::Group(group, start), link]);
            }
            yield_now().await;
        }
    };
    timeout(Duration::from_secs(60), round).await.expect("waited in vain");
}
