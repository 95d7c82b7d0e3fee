//! Numbers the messages between drivers, and holds the runtime's network to its side of the
//! contract: what is sent to a peer arrives in order, once, or is lost whole, and then the sender is
//! told by a change of the link.
//!
//! Knows no message: the numbers go before it and are taken off again, so that no engine sees them.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use lakebed::{Event, Membership, NodeId, Tuning};
use lakebed_runtime::Net;
use std::{collections::BTreeMap, task::Context};

const STAMP_BYTES: usize = 24;

/// Which message of a sender this is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Stamp {
    /// Which process of the sender's.
    life: u64,
    /// How often its link had changed, as the sender's engine was told.
    session: u64,
    /// Counting from one in each life.
    number: u64,
}

#[derive(Default)]
struct Peer {
    is_up: bool,
    session: u64,
    sent: u64,
    /// The last that came from it.
    last: Option<Stamp>,
}

/// A [`Net`] that is watched.
pub(crate) struct Numbered<N> {
    net: N,
    node: NodeId,
    life: u64,
    peers: BTreeMap<NodeId, Peer>,
}

impl<N: Net> Numbered<N> {
    /// The network of this process of the node.
    pub(crate) const fn new(net: N, node: NodeId, life: u64) -> Self {
        Self { net, node, life, peers: BTreeMap::new() }
    }
}

impl<N: Net> Net for Numbered<N> {
    fn connect(&mut self, members: &Membership) {
        self.net.connect(members);
    }

    fn send(&mut self, to: NodeId, head: Bytes, body: Bytes) {
        let peer = self.peers.entry(to).or_default();
        peer.sent += 1;
        let mut stamped = BytesMut::with_capacity(STAMP_BYTES + head.len());
        for number in [self.life, peer.session, peer.sent] {
            stamped.put_u64_le(number);
        }
        stamped.extend_from_slice(&head);
        self.net.send(to, stamped.freeze(), body);
    }

    fn tune(&mut self, tuning: &Tuning) {
        self.net.tune(tuning);
    }

    fn flush(&mut self) {
        self.net.flush();
    }

    fn poll_events(&mut self, cx: &mut Context<'_>, events: &mut Vec<Event>) {
        let before = events.len();
        self.net.poll_events(cx, events);
        for event in &mut events[before..] {
            match event {
                Event::Link { peer, up } => {
                    self.peers.entry(*peer).or_default().on_link(*up);
                }
                Event::Received { from, bytes } => {
                    let [life, session, number] = [(); 3].map(|()| bytes.get_u64_le());
                    let peer = self.peers.entry(*from).or_default();
                    peer.on_received(Stamp { life, session, number }, (*from, self.node));
                }
                other => unreachable!("a network does not tell of {other:?}"),
            }
        }
    }
}

impl Peer {
    fn on_link(&mut self, up: bool) {
        if self.is_up != up {
            self.is_up = up;
            self.session += 1;
        }
    }

    fn on_received(&mut self, stamp: Stamp, (from, to): (NodeId, NodeId)) {
        let Some(last) = self.last.replace(stamp) else { return };
        assert!(stamp > last, "from node {from} to {to} came {stamp:?} after {last:?}");
        let is_same = (stamp.life, stamp.session) == (last.life, last.session);
        assert!(
            !is_same || stamp.number == last.number + 1,
            "from node {from} to {to} messages between {last:?} and {stamp:?} were lost, and the \
             sender's engine was not told"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    /// Tells what it was given to tell, and keeps what it was sent.
    #[derive(Default)]
    struct Scripted {
        sent: Vec<Bytes>,
        events: Vec<Event>,
    }

    impl Net for Scripted {
        fn connect(&mut self, _: &Membership) {}

        fn send(&mut self, _: NodeId, head: Bytes, body: Bytes) {
            self.sent.push([&head[..], &body[..]].concat().into());
        }

        fn flush(&mut self) {}

        fn poll_events(&mut self, _: &mut Context<'_>, events: &mut Vec<Event>) {
            events.append(&mut self.events);
        }
    }

    type Ends = (Numbered<Scripted>, Numbered<Scripted>);

    fn ends() -> Ends {
        let end = |node| Numbered::new(Scripted::default(), NodeId(node), 1);
        let (mut one, two) = (end(1), end(2));
        told(&mut one, [link(true)]);
        (one, two)
    }

    fn link(up: bool) -> Event {
        Event::Link { peer: NodeId(2), up }
    }

    fn told<const N: usize>(end: &mut Numbered<Scripted>, events: [Event; N]) -> Vec<Event> {
        end.net.events.extend(events);
        let mut seen = Vec::new();
        end.poll_events(&mut Context::from_waker(Waker::noop()), &mut seen);
        seen
    }

    fn send(one: &mut Numbered<Scripted>, text: &'static [u8]) -> Bytes {
        one.send(NodeId(2), Bytes::from_static(text), Bytes::new());
        one.net.sent.pop().expect("it was sent")
    }

    fn receive(two: &mut Numbered<Scripted>, bytes: Bytes) -> Bytes {
        let seen = told(two, [Event::Received { from: NodeId(1), bytes }]);
        let [Event::Received { bytes, .. }] = &seen[..] else { panic!("{seen:?}") };
        bytes.clone()
    }

    #[test]
    fn an_engine_sees_no_numbers() {
        let (mut one, mut two) = ends();
        for text in [&b"first"[..], b"second"] {
            let bytes = send(&mut one, text);
            assert_eq!(receive(&mut two, bytes), text);
        }
    }

    #[test]
    #[should_panic(expected = "were lost, and the sender's engine was not told")]
    fn a_loss_that_nobody_was_told_of_is_seen() {
        let (mut one, mut two) = ends();
        let [first, _, third] = [b"1", b"2", b"3"].map(|text| send(&mut one, text));
        receive(&mut two, first);
        receive(&mut two, third);
    }

    #[test]
    fn a_loss_that_was_told_is_a_loss() {
        let (mut one, mut two) = ends();
        let [first, _] = [b"1", b"2"].map(|text| send(&mut one, text));
        told(&mut one, [link(false), link(true)]);
        let third = send(&mut one, b"3");
        receive(&mut two, first);
        assert_eq!(receive(&mut two, third), &b"3"[..]);
    }

    #[test]
    #[should_panic(expected = "from node 1 to 2 came")]
    fn a_message_that_comes_twice_is_seen() {
        let (mut one, mut two) = ends();
        let first = send(&mut one, b"1");
        receive(&mut two, first.clone());
        receive(&mut two, first);
    }

    #[test]
    #[should_panic(expected = "from node 1 to 2 came")]
    fn a_message_that_comes_behind_a_later_one_is_seen() {
        let (mut one, mut two) = ends();
        let [first, second] = [b"1", b"2"].map(|text| send(&mut one, text));
        receive(&mut two, second);
        receive(&mut two, first);
    }
}
