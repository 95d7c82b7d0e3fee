//! Who hears whom, and when.
//!
//! Knows no messages' content. A pair of nodes has a connection while both are up, neither
//! direction is cut, and one of them at least wants it: who is dialled accepts whoever proves to be
//! of the cluster, and who wants it no longer closes it. What is lost breaks it, as a stream would,
//! unless the plan says that losses go unnoticed. Bytes of an older connection, or of an older life,
//! may still arrive.

use crate::{
    plan::{Links, MS},
    prng::{Concern, Stream},
};
use bytes::Bytes;
use lakebed::{Member, Membership, NodeId};
use std::sync::Arc;

/// The links between all pairs of nodes.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    nodes: usize,
    links: Links,
    stream: Stream,
    /// How many partitions cut the direction, by `from * nodes + to`.
    cut: Vec<u32>,
    /// How often a node was taken away: it hears nobody then, and nobody hears it.
    alone: Vec<u32>,
    /// What little gets through, by direction as above.
    queues: Vec<Option<Queue>>,
    /// What the sender believes to be connected with.
    connections: Vec<Option<Connection>>,
    /// Whom each node wants to be connected with, and where it takes them to be, by
    /// `node * nodes + peer`.
    wanted: Vec<Option<Bytes>>,
    /// Members of whom each node was found to lack none, since it said last whom it wants.
    complete: Vec<Option<Arc<Membership>>>,
    /// How many connections there were.
    made: u64,
    /// When the last message of the direction arrives: without reordering none arrives before.
    last: Vec<u64>,
}

/// A connection, as one end sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Connection {
    /// Which life of the other end it leads to.
    pub(crate) peer_life: u32,
    /// Which of all connections it is.
    pub(crate) number: u64,
}

/// A direction on which messages queue up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Queue {
    /// What gets through in a millisecond.
    bytes_per_ms: u64,
    /// When all that is queued has got through.
    empty_at: u64,
    /// When everything gets through again.
    until: u64,
}

impl Queue {
    /// When a message of this length has got through that was sent now.
    fn add(&mut self, now: u64, len: u64) -> u64 {
        let takes = (len * MS).checked_div(self.bytes_per_ms).unwrap_or(u64::MAX / 2);
        self.empty_at = (self.empty_at.max(now) + takes).min(self.until.max(now));
        self.empty_at
    }
}

/// What becomes of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// It arrives then, and perhaps once more.
    Arrives(u64, Option<u64>),
    /// It is lost; `noticed`: and its connection with it.
    Lost { noticed: bool },
}

/// That a driver is told of every member in force whom to be connected with (`Action::Members`).
pub(crate) const MEMBERS_WANTED: &str = "members are connected";

/// How it is told that it was not.
pub(crate) fn unwanted(id: NodeId, members: &Membership) -> String {
    format!("wants no connection with node {id}, and {members} are in force")
}

/// How it is told that it was told another address.
fn misplaced(id: NodeId, members: &Membership) -> String {
    format!("dials node {id} elsewhere than {members} say that it is")
}

/// Sites of draws.
const DELAY: u32 = 1;
const LOSS: u32 = 2;
const DUPLICATE: u32 = 3;
const NOTICE: u32 = 4;

impl Network {
    pub(crate) fn new(seed: u64, nodes: usize, links: Links) -> Self {
        let pairs = nodes * nodes;
        Self {
            nodes,
            links,
            stream: Stream::new(seed, Concern::Network),
            cut: vec![0; pairs],
            alone: vec![0; nodes],
            queues: vec![None; pairs],
            connections: vec![None; pairs],
            wanted: vec![None; pairs],
            complete: vec![None; nodes],
            made: 0,
            last: vec![0; pairs],
        }
    }

    const fn pair(&self, from: usize, to: usize) -> usize {
        from * self.nodes + to
    }

    /// The nodes of the second side do not hear the first, or, with `both_ways`, neither side hears
    /// the other, whatever else divides them. Returns the directions.
    pub(crate) fn divide(&mut self, side: &[bool], both_ways: bool) -> Vec<(usize, usize)> {
        let parted = self.between(side, both_ways);
        for (from, to) in &parted {
            self.cut[from * self.nodes + to] += 1;
        }
        parted
    }

    /// Two nodes do not hear each other, whatever else divides the nodes.
    pub(crate) fn part(&mut self, a: usize, b: usize) {
        for pair in [self.pair(a, b), self.pair(b, a)] {
            self.cut[pair] += 1;
        }
    }

    /// A partition is over, whatever else divides the nodes. Returns its directions.
    pub(crate) fn unite(&mut self, side: &[bool], both_ways: bool) -> Vec<(usize, usize)> {
        let united = self.between(side, both_ways);
        for (from, to) in &united {
            let cut = &mut self.cut[from * self.nodes + to];
            *cut = cut.saturating_sub(1);
        }
        united
    }

    fn between(&self, side: &[bool], both_ways: bool) -> Vec<(usize, usize)> {
        let pairs = (0..self.nodes).flat_map(|from| (0..self.nodes).map(move |to| (from, to)));
        let is_cut = |&(from, to): &(usize, usize)| {
            side[from] && !side[to] || both_ways && side[to] && !side[from]
        };
        pairs.filter(is_cut).collect()
    }

    /// Nothing divides the nodes any more, but that some are alone. Returns each pair of them once.
    pub(crate) fn rejoin(&mut self) -> impl Iterator<Item = (usize, usize)> + use<> {
        self.cut.fill(0);
        (0..self.nodes).flat_map(|node| (0..node).map(move |peer| (node, peer)))
    }

    /// Whether messages do not get through in this direction.
    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut[self.pair(from, to)] > 0 || self.alone[from] > 0 || self.alone[to] > 0
    }

    /// Takes a node away from all others.
    pub(crate) fn isolate(&mut self, node: usize) {
        self.alone[node] += 1;
    }

    /// Gives a node back, unless it was taken away more often.
    pub(crate) fn readmit(&mut self, node: usize) {
        self.alone[node] = self.alone[node].saturating_sub(1);
    }

    /// Lets so much through in a direction until then, and no more.
    pub(crate) fn slow(&mut self, from: usize, to: usize, bytes_per_ms: u64, until: u64) {
        let pair = self.pair(from, to);
        let empty_at = self.queues[pair].map_or(0, |queue| queue.empty_at);
        self.queues[pair] = Some(Queue { bytes_per_ms, empty_at, until });
    }

    /// Whether messages get through in both directions.
    pub(crate) fn is_whole(&self, a: usize, b: usize) -> bool {
        !self.is_cut(a, b) && !self.is_cut(b, a)
    }

    /// A node says whom it wants to be connected with from now on. Returns who is new among them,
    /// and (`false`) who is none any more. Who is only elsewhere than before keeps its connection.
    pub(crate) fn want(&mut self, node: usize, members: &Membership) -> Vec<(usize, bool)> {
        let mut news = Vec::new();
        self.complete[node] = None;
        for peer in (0..self.nodes).filter(|peer| *peer != node) {
            let member = members.member(NodeId(peer as u64 + 1));
            let now = member.map(|member| member.address.clone());
            let pair = self.pair(node, peer);
            if self.wanted[pair].is_some() != now.is_some() {
                news.push((peer, now.is_some()));
            }
            self.wanted[pair] = now;
        }
        news
    }

    /// A node's process is gone, and wants nobody.
    pub(crate) fn want_nobody(&mut self, node: usize) {
        self.complete[node] = None;
        self.wanted[node * self.nodes..][..self.nodes].fill(None);
    }

    /// Whom a node wants to be connected with.
    pub(crate) fn wanted(&self, node: usize) -> impl Iterator<Item = usize> {
        let wanted = &self.wanted[node * self.nodes..][..self.nodes];
        wanted.iter().enumerate().filter(|(_, is)| is.is_some()).map(|(peer, _)| peer)
    }

    /// Whether one of two nodes wants to be connected with the other.
    pub(crate) fn is_wanted(&self, a: usize, b: usize) -> bool {
        self.wanted[self.pair(a, b)].is_some() || self.wanted[self.pair(b, a)].is_some()
    }

    /// The first of these members with whom a node does not want to be connected.
    pub(crate) fn unwanted(&self, node: usize, members: &Membership) -> Option<NodeId> {
        self.first(node, members, |wanted, _| wanted.is_none())
    }

    /// What a node got wrong about whom to be connected with, these being the members in force. It is asked
    /// after every event, and looks through the same members once.
    pub(crate) fn lacks(&mut self, node: usize, members: &Arc<Membership>) -> Option<String> {
        let complete = &self.complete[node];
        if complete.as_ref().is_some_and(|complete| Arc::ptr_eq(complete, members)) {
            return None;
        }
        let unwanted = self.unwanted(node, members).map(|id| unwanted(id, members));
        let misplaced = || self.misplaced(node, members).map(|id| misplaced(id, members));
        let lacks = unwanted.or_else(misplaced);
        self.complete[node] = lacks.is_none().then(|| Arc::clone(members));
        lacks
    }

    /// The first of these members whom a node takes to be elsewhere than they are.
    fn misplaced(&self, node: usize, members: &Membership) -> Option<NodeId> {
        self.first(node, members, |wanted, member| {
            wanted.is_some_and(|address| *address != member.address)
        })
    }

    fn first(
        &self,
        node: usize,
        members: &Membership,
        is: impl Fn(Option<&Bytes>, &Member) -> bool,
    ) -> Option<NodeId> {
        let others = members.members().filter(|member| member.id.0 as usize - 1 != node);
        let wanted =
            |member: &Member| self.wanted[self.pair(node, member.id.0 as usize - 1)].as_ref();
        others.filter(|member| is(wanted(member), member)).map(|member| member.id).next()
    }

    /// What the sender believes to be connected with.
    pub(crate) fn connection(&self, from: usize, to: usize) -> Option<Connection> {
        self.connections[self.pair(from, to)]
    }

    /// The sender gets a connection to this life of the other end.
    pub(crate) fn connect(&mut self, from: usize, to: usize, peer_life: u32) {
        self.made += 1;
        let pair = self.pair(from, to);
        self.connections[pair] = Some(Connection { peer_life, number: self.made });
    }

    /// The sender's connection is gone.
    pub(crate) fn disconnect(&mut self, from: usize, to: usize) {
        let pair = self.pair(from, to);
        self.connections[pair] = None;
    }

    /// From now on nothing is lost, doubled or overtaken.
    pub(crate) fn heal(&mut self) {
        self.cut.fill(0);
        self.alone.fill(0);
        self.queues.fill(None);
        self.links.loss = 0;
        self.links.duplicate = 0;
        self.links.reorder = false;
        self.links.silent = false;
    }

    /// Sends a message of this length at `now`.
    pub(crate) fn send(&mut self, from: usize, to: usize, now: u64, len: usize) -> Fate {
        let (pair, links) = (self.pair(from, to), self.links);
        // What never happens takes no draw: each lane counts for itself alone.
        let lost = links.loss > 0 && self.happens(LOSS, pair, links.loss);
        let delay = self.delay(pair);
        if self.is_cut(from, to) || lost {
            return Fate::Lost { noticed: lost && !links.silent };
        }
        let queue = self.queues[pair].as_mut().filter(|queue| now < queue.until);
        let is_queued = queue.is_some();
        let sent = queue.map_or(now, |queue| queue.add(now, len as u64));
        let mut at = sent + delay;
        if !links.reorder || is_queued {
            at = at.max(self.last[pair] + 1);
            self.last[pair] = at;
        }
        let twice = links.duplicate > 0 && self.happens(DUPLICATE, pair, links.duplicate);
        let again = twice.then(|| at + self.stream.lane(DUPLICATE, pair as u32).delay(0, 100 * MS));
        Fate::Arrives(at, again)
    }

    fn happens(&mut self, site: u32, pair: usize, of_65536: u64) -> bool {
        self.stream.lane(site, pair as u32).ratio(of_65536, 65_536)
    }

    fn delay(&mut self, pair: usize) -> u64 {
        let latency = self.links.latency;
        self.stream.lane(DELAY, pair as u32).delay(latency.least, latency.tail)
    }

    /// How long it takes until a node notices that a connection broke, or is whole again.
    pub(crate) fn notice(&mut self, node: usize, peer: usize) -> u64 {
        let pair = self.pair(node, peer);
        self.stream.lane(NOTICE, pair as u32).delay(MS, 5 * MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Latency, US};

    fn network(change: impl Fn(&mut Links)) -> Network {
        let latency = Latency { least: 100 * US, tail: MS };
        let mut links = Links { latency, loss: 0, duplicate: 0, reorder: false, silent: false };
        change(&mut links);
        Network::new(1, 3, links)
    }

    fn arrivals(network: &mut Network) -> Vec<u64> {
        (0..200)
            .filter_map(|n| match network.send(0, 1, n * US, 100) {
                Fate::Arrives(at, _) => Some(at),
                Fate::Lost { .. } => None,
            })
            .collect()
    }

    #[test]
    fn messages_overtake_each_other_only_if_the_plan_says_so() {
        let ordered = arrivals(&mut network(|_| {}));
        assert!(ordered.is_sorted() && ordered.len() == 200);
        let mixed = arrivals(&mut network(|links| links.reorder = true));
        assert!(!mixed.is_sorted() && mixed.len() == 200);
    }

    #[test]
    fn losses_and_duplicates_come_at_their_rates() {
        let lost = 200 - arrivals(&mut network(|links| links.loss = 32_768)).len();
        assert!((70..130).contains(&lost), "{lost}");
        let mut doubling = network(|links| links.duplicate = 32_768);
        let doubled = (0..200)
            .filter(|_| matches!(doubling.send(0, 1, 0, 100), Fate::Arrives(_, Some(_))))
            .count();
        assert!((70..130).contains(&doubled), "{doubled}");
    }

    #[test]
    fn a_cut_is_one_way() {
        let mut network = network(|_| {});
        assert_eq!(network.divide(&[true, false, true], false), [(0, 1), (2, 1)]);
        assert_eq!(network.send(0, 1, 0, 100), Fate::Lost { noticed: false });
        assert!(matches!(network.send(1, 0, 0, 100), Fate::Arrives(..)));
        assert!(!network.is_whole(1, 0) && network.is_whole(0, 2));
        network.heal();
        assert!(network.is_whole(0, 1));
    }

    #[test]
    fn traffic_elsewhere_does_not_move_a_link() {
        let mut busy = network(|links| links.reorder = true);
        for n in 0..50 {
            busy.send(1, 2, n, 100);
        }
        assert_eq!(arrivals(&mut busy), arrivals(&mut network(|links| links.reorder = true)));
    }

    #[test]
    fn a_slow_link_is_late_and_in_order_and_then_as_quick_as_before() {
        let plain = arrivals(&mut network(|_| {}));
        let slow = |bytes_per_ms| {
            let mut network = network(|links| links.reorder = true);
            network.slow(0, 1, bytes_per_ms, 100 * MS);
            arrivals(&mut network)
        };
        let (trickle, nothing) = (slow(10), slow(0));
        assert!(trickle.is_sorted() && nothing.is_sorted());
        assert!(trickle[4] >= 50 * MS && trickle[0] < 20 * MS && plain[4] < 20 * MS);
        assert!(nothing[0] >= 100 * MS && nothing[199] < 120 * MS);
    }

    #[test]
    fn two_are_connected_as_long_as_one_of_them_wants_it() {
        let of = |ids: &[u64]| {
            let member =
                |id: &u64| Member { id: NodeId(*id), incarnation: 1, address: Bytes::new() };
            Membership::of(ids.iter().map(member))
        };
        let mut network = network(|_| {});
        assert!(!network.is_wanted(0, 1));
        assert_eq!(network.want(0, &of(&[1, 2, 3])), [(1, true), (2, true)]);
        assert_eq!(network.want(1, &of(&[1, 2])), [(0, true)]);
        assert!(network.is_wanted(0, 2) && network.is_wanted(2, 0) && !network.is_wanted(1, 2));
        assert_eq!(network.want(0, &of(&[1, 3])), [(1, false)]);
        assert!(network.is_wanted(0, 1), "the other one wants it");
        assert_eq!(network.unwanted(0, &of(&[1, 2, 3])), Some(NodeId(2)));
        let mut moved = of(&[1, 3]);
        moved.voters[1].address = Bytes::from_static(b"elsewhere");
        assert_eq!(network.misplaced(0, &of(&[1, 2, 3])), None);
        assert_eq!(network.misplaced(0, &moved), Some(NodeId(3)));
        assert_eq!(network.want(0, &moved), [], "who is elsewhere is not new");
        assert_eq!(network.misplaced(0, &moved), None);
        network.want_nobody(1);
        assert!(!network.is_wanted(0, 1) && network.is_wanted(0, 2));
    }

    #[test]
    fn a_node_lacks_members_until_it_wants_them_where_they_are() {
        let of = |ids: &[u64], address: &'static [u8]| {
            let member = |id: &u64| Member {
                id: NodeId(*id),
                incarnation: 1,
                address: Bytes::from_static(address),
            };
            Arc::new(Membership::of(ids.iter().map(member)))
        };
        let mut network = network(|_| {});
        let (two, all, moved) = (of(&[1, 2], b""), of(&[1, 2, 3], b""), of(&[1, 2, 3], b"there"));
        network.want(0, &two);
        assert_eq!(network.lacks(0, &two), None);
        assert_eq!(network.lacks(0, &all), Some(unwanted(NodeId(3), &all)));
        network.want(0, &all);
        assert_eq!(network.lacks(0, &all), None);
        assert_eq!(network.lacks(0, &moved), Some(misplaced(NodeId(2), &moved)));
        assert_eq!(network.lacks(0, &all), None, "it is looked through anew");
        network.want(0, &two);
        assert!(network.lacks(0, &all).is_some(), "it was found to lack none before");
        network.want(0, &all);
        assert_eq!(network.lacks(0, &all), None);
        network.want_nobody(0);
        assert!(network.lacks(0, &all).is_some(), "its process is gone");
    }

    #[test]
    fn who_is_alone_is_so_beside_any_partition() {
        let mut network = network(|_| {});
        network.isolate(2);
        network.divide(&[true, false, false], true);
        network.unite(&[true, false, false], true);
        assert!(network.is_whole(0, 1) && !network.is_whole(0, 2) && !network.is_whole(2, 1));
        network.readmit(2);
        assert!(network.is_whole(0, 2));
    }

    /// What overlaps ends each by itself: the earlier end of one is not the end of the other.
    #[test]
    fn partitions_overlap() {
        let mut network = network(|_| {});
        network.divide(&[true, false, false], true);
        network.divide(&[true, true, false], false);
        network.isolate(1);
        network.isolate(1);
        network.unite(&[true, false, false], true);
        network.readmit(1);
        assert!(network.is_cut(0, 2) && !network.is_cut(2, 0) && network.is_cut(0, 1));
        network.readmit(1);
        assert!(network.is_whole(0, 1) && network.is_cut(1, 2));
        network.unite(&[true, true, false], false);
        assert!(network.is_whole(1, 2) && network.is_whole(0, 2));
    }
}
