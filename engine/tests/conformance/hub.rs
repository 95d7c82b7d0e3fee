//! A network within the process, and clients that ask nothing.

use bytes::Bytes;
use lakebed::{Clients, Event, NodeId, Outcome, RequestId};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
};

pub(crate) struct Nobody;

impl Clients for Nobody {
    fn query(&mut self, _: RequestId) -> &[u8] {
        unreachable!("nobody reads")
    }

    fn answer(&mut self, _: RequestId, _: Result<&[u8], &Outcome>) {}
}

/// Whoever is in the same case is connected.
#[derive(Clone, Default)]
pub(crate) struct Hub(Arc<Mutex<Inboxes>>);

type Inboxes = BTreeMap<(&'static str, NodeId), Sender<Event>>;

impl Hub {
    /// All at once: whoever hears of a node can send to it.
    pub(crate) fn enter(&self, case: &'static str, node: NodeId) -> Receiver<Event> {
        let (sender, inbox) = channel();
        let mut nodes = self.0.lock().unwrap();
        tell_peers(&nodes, case, &Event::Link { peer: node, up: true });
        for (_, peer) in nodes.keys().filter(|(there, _)| *there == case) {
            sender.send(Event::Link { peer: *peer, up: true }).unwrap();
        }
        nodes.insert((case, node), sender);
        inbox
    }

    pub(crate) fn leave(&self, case: &'static str, node: NodeId) {
        let mut nodes = self.0.lock().unwrap();
        nodes.remove(&(case, node));
        tell_peers(&nodes, case, &Event::Link { peer: node, up: false });
    }

    /// Told to this node itself.
    pub(crate) fn tell(&self, case: &'static str, node: NodeId, event: Event) {
        let nodes = self.0.lock().unwrap();
        nodes[&(case, node)].send(event).unwrap();
    }

    pub(crate) fn send(&self, case: &'static str, from: NodeId, to: NodeId, bytes: Bytes) -> bool {
        let nodes = self.0.lock().unwrap();
        nodes.get(&(case, to)).is_some_and(|to| to.send(Event::Received { from, bytes }).is_ok())
    }
}

fn tell_peers(inboxes: &Inboxes, case: &'static str, event: &Event) {
    for (_, peer) in inboxes.iter().filter(|((there, _), _)| *there == case) {
        // A peer that is leaving does not listen.
        let _ = peer.send(event.clone());
    }
}
