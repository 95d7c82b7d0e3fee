//! How the machines of many groups share a round.

use super::*;
use crate::{groups::GroupsOptions, inbox::Waiter, options::Listen};
use futures::channel::oneshot;
use lakebed::{Batch, LogId, LogIndex, MachineError, NodeId, Timestamp};
use std::{
    future::poll_fn,
    net::TcpListener,
    sync::{Mutex, PoisonError},
};

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
