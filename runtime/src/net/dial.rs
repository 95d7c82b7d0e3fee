//! Makes connections: accepts, dials, and shakes hands, each in a task that may wait.
//!
//! Knows neither frames nor members. Invariant: what it hands over is established; what is not,
//! is closed, said and counted.

use super::{
    Counters,
    handshake::{Credentials, Established, HandshakeError},
};
use bytes::Bytes;
use lakebed::NodeId;
use std::{
    collections::VecDeque,
    fmt, io, mem,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream, lookup_host},
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, timeout},
};

/// How long it may take until a peer is connected with. One that nothing comes back from is down, as far
/// as anybody can tell.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// How long a handshake may take, with that.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// The most handshakes with whoever dialled, at one time. One more, and the oldest is ended: a peer's takes a
/// few round trips, and whoever opens connections and says nothing must not keep peers out.
const HANDSHAKES_MAX: usize = 64;
/// The pause before a connection is tried again; doubled each time.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How long a peer may leave unacknowledged what it was sent. A network that swallows everything says
/// nothing: TCP goes on for a quarter of an hour, at intervals that double, so that after a minute of
/// silence the cluster had no leader for most of another. A new connection is tried every few seconds.
const SILENCE_MAX: Duration = Duration::from_secs(4);

/// Of handshakes that fail no more are said than one in this time, and how many were not.
const SAID_EVERY: Duration = Duration::from_secs(1);

/// After how long a silence a peer is asked whether it is there, and how often then: one that is sent nothing,
/// as a guest, would leave nothing unacknowledged, and keep its place for ever when its machine vanished.
#[cfg(all(target_os = "linux", not(madsim)))]
const ASKED_EVERY: Duration = Duration::from_secs(1);

/// How long to wait before a peer is dialled again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(BACKOFF_MIN)
    }
}

impl Backoff {
    /// The pause to make now; the next one is longer.
    pub(super) fn pause(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(BACKOFF_MAX);
        pause
    }
}

/// Where a peer listens, as its membership says: `host:port`, or nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Address(String);

impl Address {
    pub(super) const fn is_known(&self) -> bool {
        !self.0.is_empty()
    }
}

impl From<&Bytes> for Address {
    fn from(address: &Bytes) -> Self {
        Self(String::from_utf8_lossy(address).into_owned())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// When a failure was said last, and how many came since. A scanner, or a peer of another version, would fill a
/// disk with lines that say the same.
#[derive(Debug, Default)]
pub(super) struct Said(Mutex<(Option<Instant>, u64)>);

impl Said {
    /// Whether one is said now, and how many were not before it.
    fn may(&self, now: Instant) -> Option<u64> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.0.is_some_and(|last| now < last + SAID_EVERY) {
            said.1 += 1;
            return None;
        }
        said.0 = Some(now);
        Some(mem::take(&mut said.1))
    }
}

/// What all connections of a node share.
pub(super) struct Connector {
    pub(super) credentials: Credentials,
    pub(super) established: mpsc::Sender<Established>,
    pub(super) counters: Arc<Counters>,
    pub(super) said: Said,
}

impl Connector {
    /// Shakes hands with whoever dials, for ever.
    pub(super) async fn accept(self: Arc<Self>, listener: TcpListener) {
        let mut handshakes = JoinSet::new();
        // In the order in which they began.
        let mut running: VecDeque<(SocketAddr, AbortHandle)> = VecDeque::new();
        loop {
            match listener.accept().await {
                Ok((stream, from)) => {
                    // Ended tasks would pile up here otherwise.
                    while handshakes.try_join_next().is_some() {}
                    running.retain(|(_, handshake)| !handshake.is_finished());
                    if running.len() == HANDSHAKES_MAX
                        && let Some((from, oldest)) = running.pop_front()
                    {
                        oldest.abort();
                        self.failed(&from.to_string(), &HandshakeError::Crowded);
                    }
                    let handshake = Arc::clone(&self).accept_one(stream, from);
                    running.push_back((from, handshakes.spawn(handshake)));
                }
                // Out of descriptors, most likely: it may pass.
                Err(error) => {
                    tracing::warn!(node = self.node(), %error, "cannot accept");
                    sleep(BACKOFF_MAX).await;
                }
            }
        }
    }

    async fn accept_one(self: Arc<Self>, stream: TcpStream, from: SocketAddr) {
        match self.within_time(self.shake(stream, None)).await {
            Ok(established) => drop(self.established.send(established).await),
            Err(error) => self.failed(&from.to_string(), &error),
        }
    }

    /// Dials until there is a connection, the first time after a pause.
    pub(super) async fn dial(
        self: Arc<Self>,
        peer: NodeId,
        address: Address,
        after: Duration,
        mut backoff: Backoff,
    ) {
        sleep(jitter(after)).await;
        for attempt in 0.. {
            match self.within_time(self.dial_once(peer, &address, attempt)).await {
                Ok(established) => return drop(self.established.send(established).await),
                // A peer that is down is the ordinary case: the engine says so.
                Err(HandshakeError::Io(error)) => {
                    tracing::debug!(node = self.node(), peer = peer.0, %address, %error, "dialled");
                }
                Err(error) => self.failed(&address.0, &error),
            }
            sleep(jitter(backoff.pause())).await;
        }
    }

    async fn dial_once(
        &self,
        peer: NodeId,
        address: &Address,
        attempt: usize,
    ) -> Result<Established, HandshakeError> {
        let connect = async {
            let found = lookup_host(&address.0).await?.collect();
            TcpStream::connect(&from_nth(found, attempt)[..]).await
        };
        let connected = timeout(CONNECT_MAX, connect).await;
        let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        self.shake(stream, Some(peer)).await
    }

    async fn shake(
        &self,
        stream: TcpStream,
        dialled: Option<NodeId>,
    ) -> Result<Established, HandshakeError> {
        // Messages are written whole: there is nothing to gather.
        stream.set_nodelay(true)?;
        give_up_in_time(&stream)?;
        match dialled {
            Some(peer) => self.credentials.dial(stream, peer).await,
            None => self.credentials.accept(stream).await,
        }
    }

    async fn within_time<T>(
        &self,
        shake: impl Future<Output = Result<T, HandshakeError>>,
    ) -> Result<T, HandshakeError> {
        timeout(HANDSHAKE_MAX, shake).await.unwrap_or(Err(HandshakeError::TooSlow))
    }

    fn failed(&self, address: &str, error: &HandshakeError) {
        Counters::count(&self.counters.handshakes_failed);
        match self.said.may(Instant::now()) {
            None => {}
            Some(0) => {
                tracing::warn!(node = self.node(), address, reason = %error, "handshake failed");
            }
            Some(unsaid) => {
                tracing::warn!(node = self.node(), address, reason = %error, unsaid, "handshake failed");
            }
        }
    }

    const fn node(&self) -> u64 {
        self.credentials.identity.node.0
    }
}

#[cfg(all(target_os = "linux", not(madsim)))]
fn give_up_in_time(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    let silence_max = SILENCE_MAX.as_millis() as u32;
    sockopt::set_tcp_user_timeout(stream, silence_max)?;
    // How many questions stay unanswered is bounded by that, too.
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, ASKED_EVERY)?;
    Ok(sockopt::set_tcp_keepintvl(stream, ASKED_EVERY)?)
}

/// Where there is no such option the system's own patience has to do.
#[cfg(not(all(target_os = "linux", not(madsim))))]
const fn give_up_in_time(_: &TcpStream) -> io::Result<()> {
    let _ = SILENCE_MAX;
    Ok(())
}

/// All that a name stands for, in order from another one on at each attempt: nothing may come back from the
/// first, which has all the time there is then, or it may be somebody else's.
fn from_nth(mut found: Vec<SocketAddr>, attempt: usize) -> Vec<SocketAddr> {
    let first = attempt.checked_rem(found.len()).unwrap_or_default();
    found.rotate_left(first);
    found
}

/// Between half of it and all of it, so that nodes that lost each other together do not meet
/// again and again at the same instant.
fn jitter(pause: Duration) -> Duration {
    let half = pause / 2;
    // Without entropy there is no harm in being punctual.
    let drawn = getrandom::u32().unwrap_or(u32::MAX);
    half + half * (drawn >> 16) / (1 << 16)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::net::Identity;
    use lakebed::{ClusterId, GroupId};
    use rustix::net::{Shutdown, shutdown, sockopt};
    use std::sync::atomic::Ordering;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        task::yield_now,
    };

    fn connector(node: u64) -> (Connector, mpsc::Receiver<Established>) {
        let identity =
            Identity { cluster: ClusterId(7), group: GroupId(1), groups: 0, node: NodeId(node) };
        let credentials = Credentials { identity, secret: Vec::new() };
        let (established, receiver) = mpsc::channel(1);
        let connector =
            Connector { credentials, established, counters: Arc::default(), said: Said::default() };
        (connector, receiver)
    }

    /// Each was a line: whoever opens connections and says nothing filled the disk.
    #[test]
    fn of_many_failures_one_is_said_and_how_many_were_not() {
        let (said, begin) = (Said::default(), Instant::now());
        let at = |millis| said.may(begin + Duration::from_millis(millis));
        assert_eq!([0, 1, 500, 999].map(at), [Some(0), None, None, None]);
        assert_eq!([1000, 1999, 5000, 6000].map(at), [Some(3), None, Some(1), Some(0)]);
    }

    /// Of a name with several addresses only the first was ever tried, if nothing came back from it.
    #[test]
    fn each_attempt_begins_with_another_address() {
        let at = |ports: &[u16]| -> Vec<_> {
            ports.iter().map(|&port| SocketAddr::from(([127, 0, 0, 1], port))).collect()
        };
        let found = at(&[1, 2, 3]);
        let attempts = [0, 1, 2, 3, 7].map(|attempt| from_nth(found.clone(), attempt));
        let ports = [[1, 2, 3], [2, 3, 1], [3, 1, 2], [1, 2, 3], [2, 3, 1]];
        assert_eq!(attempts, ports.map(|ports| at(&ports)));
        assert_eq!(from_nth(Vec::new(), 5), []);
    }

    /// Nodes that a silent network had kept apart for a minute came together a minute after it healed.
    #[tokio::test]
    async fn both_ends_of_a_connection_give_up_on_silence() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address(listener.local_addr().unwrap().to_string());
        let ((one, mut accepted), (two, mut dialled)) = (connector(1), connector(2));
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::new(one).accept(listener));
        tasks.spawn(Arc::new(two).dial(NodeId(1), address, Duration::ZERO, Backoff::default()));
        for end in [&mut accepted, &mut dialled] {
            let stream = end.recv().await.unwrap().stream;
            assert_eq!(sockopt::tcp_user_timeout(&stream).unwrap(), 4000);
            assert!(sockopt::socket_keepalive(&stream).unwrap(), "a guest is sent nothing");
            let asked = [sockopt::tcp_keepidle(&stream), sockopt::tcp_keepintvl(&stream)];
            assert_eq!(asked.map(Result::unwrap), [Duration::from_secs(1); 2]);
        }
    }

    /// Time stands still until the sender goes: nothing is given up for that it took too long.
    fn time_stands_still() -> std::sync::mpsc::Sender<()> {
        let (sender, held) = std::sync::mpsc::channel();
        tokio::task::spawn_blocking(move || held.recv());
        sender
    }

    /// Whoever opens connections and says nothing has no more of them than this, of which the oldest go.
    #[tokio::test(start_paused = true)]
    async fn of_too_many_that_say_nothing_the_oldest_goes() {
        let _still = time_stands_still();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (one, _established) = connector(1);
        let counters = Arc::clone(&one.counters);
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::new(one).accept(listener));
        let mut silent = Vec::new();
        for _ in 0..HANDSHAKES_MAX + 2 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        for oldest in &mut silent[..2] {
            // It is reset, or closed.
            drop(oldest.read_u8().await.unwrap_err());
        }
        assert_eq!(counters.handshakes_failed.load(Ordering::Relaxed), 2);
        for stream in &silent[2..] {
            let open = stream.try_read(&mut [0]).unwrap_err();
            assert_eq!(open.kind(), io::ErrorKind::WouldBlock);
        }
    }

    /// Each behind the first few was called one too many, as if those before it were still at it.
    #[tokio::test(start_paused = true)]
    async fn handshakes_that_have_ended_crowd_out_nobody() {
        let _still = time_stands_still();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (one, _established) = connector(1);
        let counters = Arc::clone(&one.counters);
        let failed = || counters.handshakes_failed.load(Ordering::Relaxed);
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::new(one).accept(listener));
        for gone in 1..=HANDSHAKES_MAX as u64 + 2 {
            drop(TcpStream::connect(address).await.unwrap());
            while failed() < gone {
                yield_now().await;
            }
            assert_eq!(failed(), gone);
        }
    }

    /// Nobody would ever be let in again.
    #[tokio::test(start_paused = true)]
    async fn a_listener_that_fails_is_not_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // Whoever accepts there is told that it does not listen.
        shutdown(&listener, Shutdown::Both).unwrap();
        listener.accept().await.unwrap_err();
        let (one, _established) = connector(1);
        let accepts = timeout(BACKOFF_MAX * 10, Arc::new(one).accept(listener));
        assert!(accepts.await.is_err(), "it has ended");
    }

    /// One that answers and leaves would be dialled as fast as that goes.
    #[tokio::test(start_paused = true)]
    async fn between_two_attempts_is_a_pause() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address(listener.local_addr().unwrap().to_string());
        let (one, _established) = connector(1);
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::new(one).dial(NodeId(2), address, Duration::ZERO, Backoff::default()));
        let dialled = async {
            for _ in 0..20 {
                drop(listener.accept().await.unwrap());
            }
        };
        assert!(timeout(Duration::from_secs(5), dialled).await.is_err(), "dialled 20 times in 5 s");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_proves_nothing_is_waited_for_as_long_as_a_handshake_takes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (dialled, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let ((one, _established), (two, _)) = (connector(1), connector(2));
        let mut dialled = dialled.unwrap();
        dialled.write_all(&two.credentials.hello(NodeId(1)).unwrap()).await.unwrap();
        let begun = Instant::now();
        let (stream, from) = accepted.unwrap();
        Arc::new(one).accept_one(stream, from).await;
        assert_eq!(begun.elapsed(), HANDSHAKE_MAX);
    }

    /// Whoever dials speaks first, and at once.
    #[tokio::test(start_paused = true)]
    async fn one_that_says_nothing_is_heard_out_for_a_second() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_silent, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (one, _established) = connector(1);
        let begun = Instant::now();
        let (stream, from) = accepted.unwrap();
        Arc::new(one).accept_one(stream, from).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
    }
}
