//! The way to the other nodes: one TCP connection for each pair, framed and authenticated.
//!
//! Knows no protocol: what it carries are bytes. Invariant: whatever a stranger or a broken wire
//! sends, a connection is closed, said and counted, and nothing else happens.
//!
//! Connections are made by tasks of their own; the driver reads and writes established ones
//! itself, so that no task switch stands between a message and the engine.

mod connection;
mod dial;
mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod handshake;

pub use handshake::Identity;

use crate::driver::Net;
use bytes::Bytes;
use connection::{Closed, Connection};
use dial::{Address, Backoff, Connector, Said};
use handshake::{Credentials, Established};
use lakebed::{Config, Event, MEMBERS_MAX, Membership, NodeId, Tuning};
use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    io, net,
    ops::Bound,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

/// The most connections with nodes that are no members, as far as this node knows.
const GUESTS_MAX: usize = 8;
/// Established connections that wait for the driver.
const ESTABLISHED_MAX: usize = 64;
/// The heads of appends that wait to be written, about 200 bytes each: a thousand are on their way
/// to a peer at most, however small, and this is five times that.
const HEADS_BYTES_MAX: usize = 1 << 20;
/// The most bytes that are read of all peers before something else has its turn.
const READ_MAX: usize = 4 << 20;
/// One end of each pair dials, the one of the greater id; the other helps out after this long:
/// it may be the only one that knows an address.
const PATIENCE: Duration = Duration::from_secs(2);

/// What happened on a node's network since it was opened.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Connections on which both ends made sure of each other.
    pub established: AtomicU64,
    /// Connections that came to nothing: refused, foreign, malformed, too slow.
    pub handshakes_failed: AtomicU64,
    /// Connections closed for a frame that was too long, or did not hold its checksum.
    pub frames_bad: AtomicU64,
    /// Connections closed because the peer took its messages too slowly.
    pub overflows: AtomicU64,
}

impl Counters {
    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Bounds of what one connection holds.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// The longest message, in bytes.
    message_bytes_max: u32,
    /// Bytes of messages of one engine that wait to be written.
    engine_bytes_max: usize,
    /// How many engines share the connection.
    engines: usize,
}

impl Limits {
    fn of(config: &Config) -> Self {
        Self {
            message_bytes_max: u32::try_from(config.message_bytes_max()).unwrap_or(u32::MAX),
            engine_bytes_max: engine_bytes_max(&config.tuning),
            engines: 1,
        }
    }

    /// Bytes of messages that wait to be written.
    const fn queue_bytes_max(&self) -> usize {
        self.engine_bytes_max.saturating_mul(self.engines)
    }
}

/// What is on the way to a peer is bounded by the engine, and doubled here for all that is no append.
/// The engine counts entries: heads come on top, and are most of what small windows hold. A follower may
/// pass on all the proposals that it takes in one turn.
fn engine_bytes_max(tuning: &Tuning) -> usize {
    let bytes = |max: u64| usize::try_from(max).unwrap_or(usize::MAX);
    bytes(tuning.inflight_bytes_max)
        .saturating_mul(2)
        .saturating_add(bytes(tuning.propose_bytes_max))
        .saturating_add(HEADS_BYTES_MAX)
}

/// A member, or a guest, and the connection with it.
#[derive(Default)]
struct Peer {
    /// Where to dial it; `None`: it is no member, as far as this node knows.
    address: Option<Address>,
    connection: Option<Connection>,
    /// The task that dials it.
    dialling: Option<AbortHandle>,
    /// Grows from one connection to the next, until one has lasted.
    backoff: Backoff,
}

impl Peer {
    /// Whether there was a connection.
    fn disconnect(&mut self) -> bool {
        let Some(connection) = self.connection.take() else { return false };
        if connection.has_lasted() {
            self.backoff = Backoff::default();
        }
        true
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(dialling) = &self.dialling {
            dialling.abort();
        }
    }
}

/// [`Net`] over TCP.
pub struct TcpNet {
    identity: Identity,
    limits: Limits,
    peers: BTreeMap<NodeId, Peer>,
    /// Who is read first the next time.
    begins_with: NodeId,
    connector: Arc<Connector>,
    established: mpsc::Receiver<Established>,
    /// What is to be told at the next poll.
    events: Vec<Event>,
    counters: Arc<Counters>,
    accepting: Accepting,
    /// Dropped, and its tasks with it, when the node goes.
    tasks: JoinSet<()>,
}

/// What a task accepts peers by, and the listener in it: a task ends some time after it is told to, and whoever
/// opens a node anew wants its address at once.
#[derive(Clone)]
struct Accepting(Arc<Mutex<Option<Accept>>>);

type Accept = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Accepting {
    fn new(accept: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::pin(accept)))))
    }

    fn accept(&self) -> MutexGuard<'_, Option<Accept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.accept().as_mut().map_or(Poll::Ready(()), |accept| accept.as_mut().poll(cx))
    }
}

impl Drop for TcpNet {
    fn drop(&mut self) {
        self.stop_listening();
    }
}

impl TcpNet {
    /// Accepts peers of this cluster and group on `listener`. Must be called within a tokio
    /// runtime.
    pub fn new(
        identity: Identity,
        secret: &[u8],
        listener: net::TcpListener,
        config: &Config,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self::over(identity, secret, TcpListener::from_std(listener)?, config))
    }

    /// The same, on a listener that is the tokio runtime's already.
    #[must_use]
    pub fn over(identity: Identity, secret: &[u8], listener: TcpListener, config: &Config) -> Self {
        let counters = Arc::new(Counters::default());
        let credentials = Credentials { identity, secret: secret.to_vec() };
        let (sender, established) = mpsc::channel(ESTABLISHED_MAX);
        let connector = Arc::new(Connector {
            credentials,
            established: sender,
            counters: Arc::clone(&counters),
            said: Said::default(),
        });
        let accepting = Accepting::new(Arc::clone(&connector).accept(listener));
        let mut tasks = JoinSet::new();
        let accepts = accepting.clone();
        tasks.spawn(poll_fn(move |cx| accepts.poll(cx)));
        Self {
            accepting,
            identity,
            limits: Limits::of(config),
            peers: BTreeMap::new(),
            begins_with: NodeId(0),
            connector,
            established,
            events: Vec::new(),
            counters,
            tasks,
        }
    }

    /// So many engines send through it: each has a window of its own to every peer, and all of them may
    /// open theirs at once, when the peer is back. What waits already may stay, should they be fewer.
    pub fn share(&mut self, engines: usize) {
        self.limits.engines = engines.max(1);
        self.make_room();
    }

    /// Bytes of messages that may wait for each peer.
    #[cfg(test)]
    pub(crate) const fn room(&self) -> usize {
        self.limits.queue_bytes_max()
    }

    fn make_room(&mut self) {
        for connection in self.peers.values_mut().filter_map(|peer| peer.connection.as_mut()) {
            connection.make_room(self.limits.queue_bytes_max());
        }
    }

    /// Its address is free for another from here on.
    pub(crate) fn stop_listening(&self) {
        let _closed = self.accepting.accept().take();
    }

    /// What happened so far, and goes on to be counted.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// The newest connection is the one: the other end opened it because it knows of no other.
    fn on_established(&mut self, established: Established) {
        let id = established.peer;
        let guests = self.peers.values().filter(|peer| peer.address.is_none()).count();
        // One that is yet to be added knows nobody, and any of these may be its leader.
        let guests_max = if guests == self.peers.len() { MEMBERS_MAX } else { GUESTS_MAX };
        if id == self.identity.node || (guests >= guests_max && !self.peers.contains_key(&id)) {
            tracing::warn!(node = self.identity.node.0, peer = id.0, "unknown node turned away");
            return Counters::count(&self.counters.handshakes_failed);
        }
        let peer = self.peers.entry(id).or_default();
        if peer.disconnect() {
            self.events.push(Event::Link { peer: id, up: false });
        }
        if let Some(dialling) = peer.dialling.take() {
            dialling.abort();
        }
        peer.connection = Some(Connection::new(established, self.limits));
        self.events.push(Event::Link { peer: id, up: true });
        Counters::count(&self.counters.established);
        tracing::info!(node = self.identity.node.0, peer = id.0, "connected");
    }

    fn on_closed(&mut self, id: NodeId, closed: &Closed) {
        tracing::warn!(node = self.identity.node.0, peer = id.0, reason = %closed, "disconnected");
        match closed {
            Closed::Frame(_) => Counters::count(&self.counters.frames_bad),
            Closed::Overflow => Counters::count(&self.counters.overflows),
            Closed::End | Closed::Io(_) => {}
        }
        self.events.push(Event::Link { peer: id, up: false });
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.disconnect();
        if peer.address.is_none() {
            self.peers.remove(&id);
        } else {
            let pause = peer.backoff.pause();
            self.dial(id, pause);
        }
    }

    /// Members that are none any more. A guest stays: it may know more of the membership than
    /// this node does.
    fn leave_former(&mut self, known: &BTreeMap<NodeId, Address>) {
        let former =
            |id: &NodeId, peer: &mut Peer| peer.address.is_some() && !known.contains_key(id);
        for (peer, former) in self.peers.extract_if(.., former) {
            if former.connection.is_some() {
                self.events.push(Event::Link { peer, up: false });
            }
        }
    }

    fn dial(&mut self, id: NodeId, after: Duration) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(address) = peer.address.clone().filter(Address::is_known) else { return };
        let after = if self.identity.node > id { after } else { after + PATIENCE };
        let dial = Arc::clone(&self.connector).dial(id, address, after, peer.backoff);
        // Ended tasks would pile up here otherwise.
        while self.tasks.try_join_next().is_some() {}
        let dialling = self.tasks.spawn(dial);
        if let Some(former) = peer.dialling.replace(dialling) {
            former.abort();
        }
    }
}

impl Net for TcpNet {
    fn connect(&mut self, members: &Membership) {
        let known: BTreeMap<_, _> = members
            .members()
            .filter(|member| member.id != self.identity.node)
            .map(|member| (member.id, Address::from(&member.address)))
            .collect();
        self.leave_former(&known);
        for (id, address) in known {
            let peer = self.peers.entry(id).or_default();
            if peer.address.as_ref() == Some(&address) {
                continue;
            }
            peer.address = Some(address);
            peer.backoff = Backoff::default();
            if peer.connection.is_none() {
                self.dial(id, Duration::ZERO);
            }
        }
    }

    fn send(&mut self, to: NodeId, head: Bytes, body: Bytes) {
        let connection = self.peers.get_mut(&to).and_then(|peer| peer.connection.as_mut());
        // Without one the engine has been told, or is about to be.
        let Some(connection) = connection else { return };
        if let Err(closed) = connection.push(head, body) {
            self.on_closed(to, &closed);
        }
    }

    fn tune(&mut self, tuning: &Tuning) {
        self.limits.engine_bytes_max = self.limits.engine_bytes_max.max(engine_bytes_max(tuning));
        self.make_room();
    }

    fn flush(&mut self) {
        // Whoever cannot take more now wakes the task at the next poll, which follows; unless the node has
        // ended, and then these are its last words.
        self.each(|connection, _, _| connection.write());
    }

    fn poll_events(&mut self, cx: &mut Context<'_>, events: &mut Vec<Event>) {
        while let Poll::Ready(Some(established)) = self.established.poll_recv(cx) {
            self.on_established(established);
        }
        self.poll_write(cx);
        self.poll_read(cx);
        events.append(&mut self.events);
    }
}

impl TcpNet {
    fn poll_write(&mut self, cx: &mut Context<'_>) {
        self.each(|connection, _, _| connection.poll_write(cx));
    }

    /// Each has its share, and another one is the first each time: what all of them may read in one poll is
    /// bounded by tokio too.
    fn poll_read(&mut self, cx: &mut Context<'_>) {
        let connected = self.peers.values().filter(|peer| peer.connection.is_some()).count();
        let bytes_max = READ_MAX / connected.max(1);
        self.each(|connection, from, events| {
            let received = |bytes| events.push(Event::Received { from, bytes });
            connection.poll_read(cx, bytes_max, received)
        });
        let behind = self.peers.range((Bound::Excluded(self.begins_with), Bound::Unbounded)).next();
        self.begins_with = behind.map_or(NodeId(0), |(id, _)| *id);
    }

    /// All of them, from one on.
    fn each(
        &mut self,
        mut act: impl FnMut(&mut Connection, NodeId, &mut Vec<Event>) -> Result<(), Closed>,
    ) {
        let mut failed = Vec::new();
        let first = self.begins_with;
        let mut act = |(&id, peer): (&NodeId, &mut Peer)| {
            if let Some(connection) = &mut peer.connection
                && let Err(closed) = act(connection, id, &mut self.events)
            {
                failed.push((id, closed));
            }
        };
        self.peers.range_mut(first..).for_each(&mut act);
        self.peers.range_mut(..first).for_each(&mut act);
        for (id, closed) in failed {
            self.on_closed(id, &closed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lakebed::{ClusterId, GroupId};
    use tokio::{io::AsyncReadExt as _, net::TcpStream, time::advance};

    async fn connection() -> Connection {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let established = Established { peer: NodeId(2), stream, session: 0 };
        let limits = Limits { message_bytes_max: 100, engine_bytes_max: 100, engines: 1 };
        Connection::new(established, limits)
    }

    /// A handshake was taken for a connection: whoever left behind it was dialled at once.
    #[tokio::test(start_paused = true)]
    async fn pauses_grow_until_a_connection_has_lasted() {
        let mut peer = Peer::default();
        let lasting = [0, 0, 999, 0, 0, 0, 0, 0, 1000, 0];
        let mut pauses = Vec::new();
        for millis in lasting.map(Duration::from_millis) {
            peer.connection = Some(connection().await);
            advance(millis).await;
            assert!(peer.disconnect());
            pauses.push(peer.backoff.pause().as_millis());
        }
        assert_eq!(pauses, [20, 40, 80, 160, 320, 640, 1000, 1000, 20, 40]);
        assert!(!peer.disconnect());
    }

    fn net(listener: TcpListener) -> TcpNet {
        let config = Config::new(GroupId(1), NodeId(9));
        let identity =
            Identity { cluster: ClusterId(7), group: GroupId(1), groups: 0, node: NodeId(9) };
        TcpNet::over(identity, b"", listener, &config)
    }

    /// A network that is connected with these, and their ends.
    async fn connected(peers: &[u64]) -> (TcpNet, Vec<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut net = net(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let mut ends = Vec::new();
        for peer in peers.iter().copied().map(NodeId) {
            let (stream, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
            net.on_established(Established { peer, stream: stream.unwrap(), session: 0 });
            ends.push(accepted.unwrap().0);
        }
        (net, ends)
    }

    #[tokio::test]
    async fn nobody_is_a_peer_of_itself() {
        let (net, _ends) = connected(&[9]).await;
        assert!(net.peers.is_empty() && net.events.is_empty());
    }

    /// One that comes and goes under ever new names took more room each time.
    #[tokio::test]
    async fn a_guest_that_has_gone_is_forgotten() {
        let (mut net, _ends) = connected(&[1]).await;
        net.on_closed(NodeId(1), &Closed::End);
        assert!(net.peers.is_empty());
    }

    fn member(id: u64, address: &str) -> Membership {
        let address = Bytes::copy_from_slice(address.as_bytes());
        Membership::of([lakebed::Member { id: NodeId(id), incarnation: 0, address }])
    }

    async fn ends(dialling: &AbortHandle) {
        let ended = async {
            while !dialling.is_finished() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), ended).await.expect("it goes on");
    }

    /// A second connection would come of it, in the first one's place, with all that is on its way.
    #[tokio::test]
    async fn one_that_is_there_is_dialled_no_more() {
        let (mut net, _ends) = connected(&[2]).await;
        net.connect(&member(2, "127.0.0.1:1"));
        assert!(net.peers[&NodeId(2)].dialling.is_none(), "it was met before it was a member");
        net.connect(&member(1, "127.0.0.1:1"));
        let dialling = net.peers[&NodeId(1)].dialling.clone().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        net.on_established(Established { peer: NodeId(1), stream, session: 0 });
        ends(&dialling).await;
    }

    #[tokio::test]
    async fn a_member_is_dialled_where_it_is_and_no_more_when_it_is_none() {
        let (mut net, _ends) = connected(&[]).await;
        let mut former: Option<AbortHandle> = None;
        for address in ["127.0.0.1:1", "127.0.0.1:2"] {
            net.connect(&member(1, address));
            if let Some(former) = former {
                ends(&former).await;
            }
            let peer = &net.peers[&NodeId(1)];
            assert_eq!(peer.address, Some(Address::from(&Bytes::from(address))));
            former = peer.dialling.clone();
        }
        net.connect(&Membership::of([]));
        ends(&former.unwrap()).await;
        assert!(net.peers.is_empty());
    }

    /// Who said much and stood first had all that a task may read in one turn, in each: who stood behind was
    /// not heard for seconds.
    #[tokio::test]
    async fn each_is_read_first_in_its_turn() {
        let (mut net, _ends) = connected(&[1, 2, 3]).await;
        let mut orders = Vec::new();
        for _ in 0..5 {
            let mut order = Vec::new();
            net.each(|_, id, _| {
                order.push(id.0);
                Ok(())
            });
            orders.push(order);
            poll_fn(|cx| {
                net.poll_events(cx, &mut Vec::new());
                Poll::Ready(())
            })
            .await;
        }
        assert_eq!(orders, [[1, 2, 3], [1, 2, 3], [2, 3, 1], [3, 1, 2], [1, 2, 3]]);
    }

    /// The engine halts: what it said last is flushed, and the network dropped. Had the task used up its share of
    /// the executor, nothing left.
    #[tokio::test]
    async fn last_words_leave_however_much_was_heard_before_them() {
        let (net, mut ends) = connected(&[2]).await;
        let (sender, mut received) = mpsc::unbounded_channel();
        (0..1000).for_each(|n| sender.send(n).unwrap());
        let mut net = Some(net);
        poll_fn(|cx| {
            while received.poll_recv(cx).is_ready() {}
            let mut net = net.take().expect("this is the only poll");
            net.send(NodeId(2), Bytes::from_static(b"last "), Bytes::from_static(b"words"));
            net.flush();
            Poll::Ready(())
        })
        .await;
        let mut heard = Vec::new();
        ends[0].read_to_end(&mut heard).await.unwrap();
        assert!(heard.ends_with(b"last words"), "{heard:?}");
        assert!(!received.is_empty(), "its share was used up");
    }
}
