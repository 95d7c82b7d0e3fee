//! The network between nodes over loopback: what arrives, and what does not disturb it.
//!
//! Bytes are written here as `docs` and module say they are, not with the code under test.

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use lakebed::{ClusterId, Config, Event, GroupId, Member, Membership, NodeId, Tuning};
use lakebed_runtime::{
    Counters, Net,
    net::{Identity, TcpNet},
};
use sha2::Sha256;
use std::{
    future::poll_fn,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{interval, timeout},
};

const SECRET: &[u8] = b"it is known";
const CLUSTER: u64 = 7;
const GROUP: u64 = 1;
/// Nothing here takes long, except on a machine that does a lot else.
const PATIENCE: Duration = Duration::from_secs(20);

fn bind() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn net_of(cluster: u64, node: u64, secret: &[u8], listener: TcpListener) -> TcpNet {
    let identity = Identity {
        cluster: ClusterId(cluster),
        group: GroupId(GROUP),
        groups: 0,
        node: NodeId(node),
    };
    TcpNet::new(identity, secret, listener, &config()).unwrap()
}

fn net(node: u64, listener: TcpListener) -> TcpNet {
    net_of(CLUSTER, node, SECRET, listener)
}

fn members(addresses: &[(u64, SocketAddr)]) -> Membership {
    Membership::of(addresses.iter().map(|(id, address)| Member {
        id: NodeId(*id),
        incarnation: 0,
        address: address.to_string().into(),
    }))
}

/// Polls all of these until `wanted` is content with the events so far.
async fn until(
    nets: &mut [&mut TcpNet],
    mut wanted: impl FnMut(&[Vec<Event>]) -> bool,
) -> Vec<Vec<Event>> {
    let mut events: Vec<Vec<Event>> = nets.iter().map(|_| Vec::new()).collect();
    // Counters wake nobody: look again now and then.
    let mut again = interval(Duration::from_millis(2));
    let content = poll_fn(|cx| {
        while again.poll_tick(cx).is_ready() {}
        for (net, events) in nets.iter_mut().zip(&mut events) {
            net.poll_events(cx, events);
        }
        if wanted(&events) { Poll::Ready(()) } else { Poll::Pending }
    });
    let content = timeout(PATIENCE, content).await;
    assert!(content.is_ok(), "waited in vain; so far: {events:?}");
    events
}

fn link(peer: u64, up: bool) -> Event {
    Event::Link { peer: NodeId(peer), up }
}

fn config() -> Config {
    let mut config = Config::new(GroupId(GROUP), NodeId(1));
    config.tuning.propose_bytes_max = 1 << 20;
    config
}

/// What of one engine may wait to be written.
const fn queue_bytes_max(tuning: &Tuning) -> u64 {
    2 * tuning.inflight_bytes_max + tuning.propose_bytes_max + (1 << 20)
}

fn message(bytes: usize, tag: u8) -> Bytes {
    (0..bytes).map(|n| (n as u8).wrapping_mul(13) ^ tag).collect()
}

fn counted(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Two nodes, connected.
async fn pair() -> [(TcpNet, SocketAddr); 2] {
    let ((one, one_at), (two, two_at)) = (bind(), bind());
    let (mut one, mut two) = (net(1, one), net(2, two));
    let members = members(&[(1, one_at), (2, two_at)]);
    one.connect(&members);
    two.connect(&members);
    let events =
        until(&mut [&mut one, &mut two], |e| e.iter().all(|events| !events.is_empty())).await;
    assert_eq!(events, [[link(2, true)], [link(1, true)]]);
    [(one, one_at), (two, two_at)]
}

#[tokio::test]
async fn messages_arrive_whole_and_in_order_both_ways() {
    let [(mut one, _), (mut two, _)] = pair().await;
    let sizes = [0, 1, 100, 65_528, 65_529, 1 << 20, 3, 2 << 20];
    let (mut there, mut back) = (Vec::new(), Vec::new());
    for (n, &size) in sizes.iter().cycle().take(40).enumerate() {
        let (head, body) = (message(40, n as u8), message(size, n as u8));
        let bytes = Bytes::from([&head[..], &body].concat());
        there.push(Event::Received { from: NodeId(1), bytes: bytes.clone() });
        one.send(NodeId(2), head, body);
        if n % 2 == 0 {
            back.push(Event::Received { from: NodeId(2), bytes: bytes.clone() });
            two.send(NodeId(1), bytes, Bytes::new());
        }
        one.flush();
    }
    let whole = |e: &[Vec<Event>]| e[0].len() >= back.len() && e[1].len() >= there.len();
    let events = until(&mut [&mut one, &mut two], whole).await;
    assert!(events == [back, there], "what arrived is not what was sent");
}

#[tokio::test]
async fn a_peer_that_comes_back_is_met_again() {
    let [(mut one, one_at), (two, two_at)] = pair().await;
    drop(two);
    until(&mut [&mut one], |e| e[0] == [link(2, false)]).await;
    one.send(NodeId(2), Bytes::from_static(b"lost, whole"), Bytes::new());
    let mut two = net(2, TcpListener::bind(two_at).unwrap());
    two.connect(&members(&[(1, one_at), (2, two_at)]));
    until(&mut [&mut one, &mut two], |e| e.iter().all(|e| e.len() == 1)).await;
    one.send(NodeId(2), Bytes::from_static(b"after"), Bytes::new());
    one.flush();
    let events = until(&mut [&mut two], |e| !e[0].is_empty()).await;
    let bytes = Bytes::from_static(b"after");
    assert_eq!(events, [[Event::Received { from: NodeId(1), bytes }]]);
}

/// Whoever knows an address dials it in the end, also the one of the lower id.
#[tokio::test]
async fn one_that_knows_nobody_is_found() {
    let ((one, _), (two, two_at)) = (bind(), bind());
    let (mut one, mut two) = (net(1, one), net(2, two));
    one.connect(&members(&[(2, two_at)]));
    until(&mut [&mut one, &mut two], |e| e.iter().all(|events| !events.is_empty())).await;
    two.send(NodeId(1), Bytes::from_static(b"who are you?"), Bytes::new());
    two.flush();
    until(&mut [&mut one], |e| !e[0].is_empty()).await;
}

#[tokio::test]
async fn one_that_is_a_member_no_more_is_left() {
    let [(mut one, one_at), (mut two, _)] = pair().await;
    one.connect(&members(&[(1, one_at)]));
    until(&mut [&mut one, &mut two], |e| *e == [[link(2, false)], [link(1, false)]]).await;
}

// ---- with raw sockets ----------------------------------------------------------------------------

struct Hello {
    version: u32,
    cluster: u64,
    group: u64,
    from: u64,
    to: u64,
}

const GOOD: Hello = Hello { version: 1, cluster: CLUSTER, group: GROUP, from: 2, to: 1 };

impl Hello {
    fn bytes(&self) -> [u8; 68] {
        let mut bytes = [0; 68];
        bytes[..8].copy_from_slice(b"LAKEPEER");
        bytes[8..12].copy_from_slice(&self.version.to_le_bytes());
        let ids = [self.cluster, self.group, self.from, self.to];
        for (at, id) in (16..).step_by(8).zip(ids) {
            bytes[at..at + 8].copy_from_slice(&id.to_le_bytes());
        }
        bytes[48..64].copy_from_slice(b"sixteen are here");
        let crc = crc32c::crc32c(&bytes[..64]);
        bytes[64..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }
}

fn proof(secret: &[u8], role: &str, dialled: &[u8], accepted: &[u8]) -> [u8; 32] {
    let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(secret).unwrap();
    let mac = mac.chain_update(role).chain_update(dialled).chain_update(accepted);
    mac.finalize().into_bytes().into()
}

/// Shakes hands by the book, with any secret; gives the stream and its session.
async fn shake(address: SocketAddr, hello: &Hello, secret: &[u8]) -> (TcpStream, u32) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (ours, mut theirs, mut theirs_proof) = (hello.bytes(), [0; 68], [0; 32]);
    stream.write_all(&ours).await.unwrap();
    stream.read_exact(&mut theirs).await.unwrap();
    stream.read_exact(&mut theirs_proof).await.unwrap();
    assert_eq!(theirs_proof, proof(SECRET, "accept", &ours, &theirs));
    stream.write_all(&proof(secret, "dial", &ours, &theirs)).await.unwrap();
    let session = proof(SECRET, "session", &ours, &theirs);
    (stream, u32::from_le_bytes(*session.first_chunk().unwrap()))
}

/// The other end of that: makes sure of whoever dials, as node 1, by the book.
async fn shake_back(stream: &mut TcpStream) {
    let (mut theirs, mut theirs_proof) = ([0; 68], [0; 32]);
    stream.read_exact(&mut theirs).await.unwrap();
    let ours = Hello { from: 1, to: 2, ..GOOD }.bytes();
    stream.write_all(&ours).await.unwrap();
    stream.write_all(&proof(SECRET, "accept", &theirs, &ours)).await.unwrap();
    stream.read_exact(&mut theirs_proof).await.unwrap();
    assert_eq!(theirs_proof, proof(SECRET, "dial", &theirs, &ours));
}

fn frame(session: u32, message: &[u8]) -> Vec<u8> {
    let crc = crc32c::crc32c_append(session, message);
    [&(message.len() as u32).to_le_bytes()[..], &crc.to_le_bytes(), message].concat()
}

/// A node alone, and what it counts.
fn lone() -> (TcpNet, SocketAddr, Arc<Counters>) {
    let (listener, address) = bind();
    let mut net = net(1, listener);
    net.connect(&members(&[(1, address), (2, "127.0.0.1:1".parse().unwrap())]));
    let counters = net.counters();
    (net, address, counters)
}

/// Reads until the other end closes; what came before does not matter.
async fn assert_closed(mut stream: TcpStream) {
    let mut rest = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    // A connection closed with bytes unread is reset.
    assert!(end.is_ok(), "still open after {} bytes", rest.len());
}

async fn assert_turned_away(hello: &[u8], secret: &[u8]) {
    let (mut net, address, counters) = lone();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(hello).await.unwrap();
    stream.write_all(&proof(secret, "dial", hello, &[0; 68])).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_closed(stream).await;
    let failed = until(&mut [&mut net], |_| counted(&counters.handshakes_failed) > 0).await;
    assert_eq!(failed, [[]], "the engine hears nothing of it");
    assert_eq!(counted(&counters.established), 0);
}

#[tokio::test]
async fn strangers_are_turned_away() {
    let good = GOOD.bytes();
    let mut flipped = good;
    flipped[33] ^= 4;
    for hello in [
        Hello { version: 2, ..GOOD }.bytes(),
        Hello { cluster: 8, ..GOOD }.bytes(),
        Hello { group: 2, ..GOOD }.bytes(),
        Hello { to: 3, ..GOOD }.bytes(),
        flipped,
    ] {
        assert_turned_away(&hello, SECRET).await;
    }
    assert_turned_away(b"GET / HTTP/1.1\r\nHost: there\r\n\r\n", SECRET).await;
    assert_turned_away(&[0xff; 500], SECRET).await;
    assert_turned_away(&good[..40], SECRET).await;
    assert_turned_away(&good, b"a guess").await;
}

#[tokio::test]
async fn who_does_not_know_the_secret_is_turned_away() {
    let (mut net, address, counters) = lone();
    let (stream, _) = shake(address, &GOOD, b"a guess").await;
    assert_closed(stream).await;
    let events = until(&mut [&mut net], |_| counted(&counters.handshakes_failed) > 0).await;
    assert_eq!(events, [[]]);
}

/// Both sides say so: the one that dialled learns whom it met.
#[tokio::test]
async fn nodes_of_two_clusters_do_not_meet() {
    let ((one, one_at), (two, two_at)) = (bind(), bind());
    let (mut one, mut two) = (net(1, one), net_of(8, 2, SECRET, two));
    let members = members(&[(1, one_at), (2, two_at)]);
    one.connect(&members);
    two.connect(&members);
    let counters = [one.counters(), two.counters()];
    let failed = |_: &[Vec<Event>]| counters.iter().all(|c| counted(&c.handshakes_failed) > 0);
    assert_eq!(until(&mut [&mut one, &mut two], failed).await, [[], []]);
}

async fn assert_given_up(bad: impl FnOnce(u32) -> Vec<u8>, expected_bad: u64) {
    let (mut net, address, counters) = lone();
    let (mut stream, session) = shake(address, &GOOD, SECRET).await;
    stream.write_all(&frame(session, b"good")).await.unwrap();
    stream.write_all(&bad(session)).await.unwrap();
    stream.shutdown().await.unwrap();
    let events = until(&mut [&mut net], |e| e[0].last() == Some(&link(2, false))).await;
    let good = Event::Received { from: NodeId(2), bytes: Bytes::from_static(b"good") };
    assert_eq!(events, [[link(2, true), good, link(2, false)]]);
    assert_eq!(counted(&counters.frames_bad), expected_bad);
    assert_closed(stream).await;
}

#[tokio::test]
async fn a_bad_frame_ends_the_connection_and_nothing_else() {
    let flipped = |session| {
        let mut frame = frame(session, b"never to be heard");
        frame[12] ^= 0x20;
        frame
    };
    assert_given_up(flipped, 1).await;
    assert_given_up(|_| vec![0xff; 64], 1).await;
    assert_given_up(|session| frame(session + 1, b"of another connection"), 1).await;
    assert_given_up(|session| frame(session, &[1; 100])[..50].to_vec(), 0).await;
    assert_given_up(|session| frame(session, &[1; 300_000])[..200_000].to_vec(), 0).await;
    // One that takes its length for true would set this much aside.
    let oversized = |_| [&(u32::MAX - 9).to_le_bytes()[..], &[0; 90]].concat();
    assert_given_up(oversized, 1).await;
}

#[tokio::test]
async fn the_newest_connection_of_a_peer_is_the_one() {
    let (mut net, address, _) = lone();
    let (first, _) = shake(address, &GOOD, SECRET).await;
    until(&mut [&mut net], |e| e[0] == [link(2, true)]).await;
    let (mut second, session) = shake(address, &GOOD, SECRET).await;
    until(&mut [&mut net], |e| e[0] == [link(2, false), link(2, true)]).await;
    assert_closed(first).await;
    second.write_all(&frame(session, b"here")).await.unwrap();
    until(&mut [&mut net], |e| !e[0].is_empty()).await;
}

#[tokio::test]
async fn a_peer_that_does_not_listen_is_dropped_with_its_queue() {
    let (mut net, address, counters) = lone();
    let (stream, _) = shake(address, &GOOD, SECRET).await;
    until(&mut [&mut net], |e| e[0] == [link(2, true)]).await;
    let body = message(1 << 20, 0);
    // What the kernel takes beside the queue is a few messages.
    for _ in 0..queue_bytes_max(&config().tuning) / body.len() as u64 + 64 {
        net.send(NodeId(2), Bytes::from_static(b"head"), body.clone());
        net.flush();
    }
    assert_eq!(counted(&counters.overflows), 1);
    until(&mut [&mut net], |e| e[0] == [link(2, false)]).await;
    assert_closed(stream).await;
}

/// What is in a log was written by whatever limits held then, and a block of a snapshot is as large as it
/// is.
#[tokio::test]
async fn messages_are_as_long_as_an_entry_may_ever_be() {
    let mut config = config();
    config.tuning.append_bytes_max = 1 << 10;
    let longest = config.message_bytes_max() as usize;
    for (bytes, bad) in [((3 << 20) + 17, 0), (longest, 0), (longest + 1, 1)] {
        let (listener, address) = bind();
        let identity = Identity {
            cluster: ClusterId(CLUSTER),
            group: GroupId(GROUP),
            groups: 0,
            node: NodeId(1),
        };
        let mut net = TcpNet::new(identity, SECRET, listener, &config).unwrap();
        let counters = net.counters();
        let (mut stream, session) = shake(address, &GOOD, SECRET).await;
        until(&mut [&mut net], |e| e[0] == [link(2, true)]).await;
        let sent = frame(session, &vec![7; bytes]);
        // A connection that is closed takes no more.
        let sending = tokio::spawn(async move { stream.write_all(&sent).await.is_ok() });
        let events = until(&mut [&mut net], |e| !e[0].is_empty()).await;
        let is_whole =
            matches!(&events[0][0], Event::Received { bytes: b, .. } if b.len() == bytes);
        assert_eq!((is_whole, counted(&counters.frames_bad)), (bad == 0, bad), "{bytes}");
        assert!(sending.await.unwrap() || bad > 0);
    }
}

/// What the node was tuned to after it was opened may be on the way at one time as well.
#[tokio::test]
async fn a_larger_window_has_room_from_when_it_is_tuned_to() {
    let (mut net, address, counters) = lone();
    let (_stream, _) = shake(address, &GOOD, SECRET).await;
    until(&mut [&mut net], |e| e[0] == [link(2, true)]).await;
    let mut tuning = config().tuning;
    tuning.inflight_bytes_max *= 2;
    tuning.propose_bytes_max *= 8;
    net.tune(&tuning);
    let body = message((1 << 20) - 8, 0);
    for _ in 0..queue_bytes_max(&tuning) >> 20 {
        net.send(NodeId(2), Bytes::new(), body.clone());
    }
    assert_eq!(counted(&counters.overflows), 0);
    net.send(NodeId(2), Bytes::new(), body);
    assert_eq!(counted(&counters.overflows), 1);
}

/// A leader sent a follower that lagged a window of small entries. Their heads were twice as long,
/// the queue's bound did not count them, and the connection was closed, and closed again whenever
/// it was back: the follower never caught up (madsim, seed 112).
#[tokio::test]
async fn a_window_of_small_entries_fits_into_the_queue() {
    let (listener, address) = bind();
    let identity =
        Identity { cluster: ClusterId(CLUSTER), group: GroupId(GROUP), groups: 0, node: NodeId(1) };
    let mut config = config();
    (config.tuning.append_bytes_max, config.tuning.inflight_bytes_max) = (1 << 10, 1 << 10);
    config.tuning.propose_bytes_max = 1 << 10;
    let mut net = TcpNet::new(identity, SECRET, listener, &config).unwrap();
    let counters = net.counters();
    let (_stream, _) = shake(address, &GOOD, SECRET).await;
    until(&mut [&mut net], |e| e[0] == [link(2, true)]).await;
    // As many as the engine ever has on their way to one peer. Nothing is flushed.
    for _ in 0..1024 {
        net.send(NodeId(2), message(200, 0), Bytes::from_static(b"x"));
    }
    assert_eq!(counted(&counters.overflows), 0);
    // It is a bound all the same.
    for _ in 0..(1 << 20) / 200 {
        net.send(NodeId(2), message(200, 0), Bytes::from_static(b"x"));
    }
    assert_eq!(counted(&counters.overflows), 1);
}

/// Each of several engines opens its window when a peer is back, in one turn. The queue had room for two.
#[tokio::test]
async fn the_windows_of_all_engines_fit_into_the_queue() {
    const WINDOW: usize = 1 << 20;
    let (listener, address) = bind();
    let identity =
        Identity { cluster: ClusterId(CLUSTER), group: GroupId(GROUP), groups: 0, node: NodeId(1) };
    let mut config = config();
    config.tuning.inflight_bytes_max = WINDOW as u64;
    let mut net = TcpNet::new(identity, SECRET, listener, &config).unwrap();
    let counters = net.counters();
    let (_stream, _) = shake(address, &GOOD, SECRET).await;
    until(&mut [&mut net], |e| e[0] == [link(2, true)]).await;
    net.share(8);
    let windows = |net: &mut TcpNet, count: usize| {
        (0..count).for_each(|_| net.send(NodeId(2), message(200, 0), message(WINDOW, 0)));
        counted(&counters.overflows)
    };
    assert_eq!(windows(&mut net, 8), 0);
    // Fewer engines leave what waits where it is.
    net.share(1);
    assert_eq!(windows(&mut net, 8), 0);
    assert_eq!(windows(&mut net, 16), 1);
}

/// It may be a leader that a newer membership made: this node has yet to learn of it.
#[tokio::test]
async fn a_guest_stays_when_the_members_change() {
    let (mut net, address, _) = lone();
    let (mut guest, session) = shake(address, &Hello { from: 9, ..GOOD }, SECRET).await;
    until(&mut [&mut net], |e| e[0] == [link(9, true)]).await;
    net.connect(&members(&[(1, address)]));
    guest.write_all(&frame(session, b"still here")).await.unwrap();
    let events = until(&mut [&mut net], |e| !e[0].is_empty()).await;
    let bytes = Bytes::from_static(b"still here");
    assert_eq!(events, [[Event::Received { from: NodeId(9), bytes }]]);
}

/// A node that is yet to be added knows nobody, and whoever has it as a member may be its leader.
#[tokio::test]
async fn one_that_knows_nobody_turns_no_member_away() {
    let (listener, address) = bind();
    let mut net = net(1, listener);
    let counters = net.counters();
    let mut guests = Vec::new();
    for from in 2..40 {
        guests.push(shake(address, &Hello { from, ..GOOD }, SECRET).await.0);
    }
    until(&mut [&mut net], |_| counted(&counters.handshakes_failed) >= 6).await;
    assert_eq!(counted(&counters.established), 32);
}

#[tokio::test]
async fn guests_are_few() {
    let (mut net, address, counters) = lone();
    let mut guests = Vec::new();
    for from in 3..20 {
        guests.push(shake(address, &Hello { from, ..GOOD }, SECRET).await.0);
    }
    until(&mut [&mut net], |_| counted(&counters.handshakes_failed) >= 9).await;
    assert_eq!(counted(&counters.established), 8);
}

/// Whoever opened 64 connections and said nothing kept all peers out, for five seconds each time.
#[tokio::test]
async fn those_that_say_nothing_keep_no_peer_out() {
    let (mut net, address, counters) = lone();
    let crowded = async {
        let mut silent = Vec::new();
        for _ in 0..6 * 64 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let peer = shake(address, &GOOD, SECRET).await;
        until(&mut [&mut net], |e| e[0] == [link(2, true)]).await;
        (silent, peer)
    };
    let (silent, _peer) = timeout(Duration::from_secs(4), crowded).await.expect("kept out");
    // Whoever came first went first, and that was said.
    for stream in silent.into_iter().take(5 * 64) {
        assert_closed(stream).await;
    }
    assert!(counted(&counters.handshakes_failed) >= 5 * 64);
}

/// A peer with other limits shakes hands and leaves, again and again: it was dialled some forty times
/// a second.
#[tokio::test]
async fn one_that_leaves_at_once_is_dialled_ever_more_rarely() {
    let ((listener, address), (two, two_at)) = (bind(), bind());
    let mut two = net(2, two);
    two.connect(&members(&[(1, address), (2, two_at)]));
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let begun = std::time::Instant::now();
    let leaving = tokio::spawn(async move {
        for _ in 0..8 {
            let (mut stream, _) = listener.accept().await.unwrap();
            shake_back(&mut stream).await;
        }
    });
    until(&mut [&mut two], |_| leaving.is_finished()).await;
    leaving.await.unwrap();
    // Half of the pauses between them, each of which is twice the one before.
    let pauses = Duration::from_millis(20 + 40 + 80 + 160 + 320 + 640 + 1000) / 2;
    assert!(begun.elapsed() >= pauses, "dialled 8 times in {:?}", begun.elapsed());
}
