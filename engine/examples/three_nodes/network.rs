//! Connections to the peers: to each peer one that only sends, from each peer one that only
//! receives. A message is a frame: its length in four bytes, then its bytes.

use lakebed::{Event, Membership, NodeId};
use std::{
    collections::BTreeMap,
    io::{self, BufReader, IoSlice, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Whoever says that more will come is no peer.
const FRAME_BYTES_MAX: usize = 64 << 20;
/// How long a peer that is not there is left in peace.
const BACK_OFF: Duration = Duration::from_millis(20);

/// The two parts of a message.
type Parts = (bytes::Bytes, bytes::Bytes);

/// All connections of a node; gone when it is dropped.
pub(crate) struct Network {
    address: SocketAddr,
    closing: Arc<AtomicBool>,
    /// To each peer. No queue grows without bound: the core bounds what is on its way to who can be
    /// reached, and what waits for others is thrown away.
    peers: BTreeMap<NodeId, Sender<Parts>>,
    /// Those that somebody may be waiting in.
    incoming: Arc<Mutex<Vec<TcpStream>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Network {
    /// Connects node `me` with all others; what happens is told to `inbox`.
    pub(crate) fn open(
        me: NodeId,
        listener: TcpListener,
        members: &Membership,
        inbox: &Sender<Event>,
    ) -> Self {
        let address = listener.local_addr().expect("a bound listener has an address");
        let mut network = Self {
            address,
            closing: Arc::default(),
            peers: BTreeMap::new(),
            incoming: Arc::default(),
            threads: Vec::new(),
        };
        for peer in members.members().filter(|member| member.id != me) {
            let address = std::str::from_utf8(&peer.address).ok().and_then(|a| a.parse().ok());
            let address = address.expect("a member's address is ip:port");
            network.dial(me, peer.id, address, inbox.clone());
        }
        network.listen(listener, inbox.clone());
        network
    }

    /// Takes a message. If it is lost, the thread that sends says so.
    pub(crate) fn send(&self, to: NodeId, parts: Parts) {
        if let Some(peer) = self.peers.get(&to) {
            peer.send(parts).expect("the thread that sends lives as long as its queue");
        }
    }

    fn dial(&mut self, me: NodeId, peer: NodeId, address: SocketAddr, inbox: Sender<Event>) {
        let (sender, queue) = channel();
        self.peers.insert(peer, sender);
        let closing = Arc::clone(&self.closing);
        let say = move |up| inbox.send(Event::Link { peer, up }).is_ok();
        self.threads.push(thread::spawn(move || {
            while !closing.load(Ordering::Acquire) {
                let connected = connect(me, address);
                // Whatever was sent while nobody was there is lost, and said to be.
                let lost = queue.try_iter().count();
                if (lost > 0 || connected.is_ok()) && !say(false) {
                    return;
                }
                if let Ok(stream) = connected {
                    if !say(true) || forward(&queue, stream).is_ok() {
                        return;
                    }
                    say(false);
                }
                thread::sleep(BACK_OFF);
            }
        }));
    }

    fn listen(&mut self, listener: TcpListener, inbox: Sender<Event>) {
        let (closing, incoming) = (Arc::clone(&self.closing), Arc::clone(&self.incoming));
        self.threads.push(thread::spawn(move || {
            let mut readers = Vec::new();
            for stream in listener.incoming().flatten() {
                if closing.load(Ordering::Acquire) {
                    break;
                }
                let (inbox, Ok(clone)) = (inbox.clone(), stream.try_clone()) else { continue };
                incoming.lock().expect("no thread panics with it").push(clone);
                // A connection ends by an error, be it only the end of the stream.
                readers.push(thread::spawn(move || drop(receive(stream, &inbox))));
            }
            close(&incoming);
            readers.into_iter().for_each(join);
        }));
    }
}

impl Drop for Network {
    /// Nothing is received once this returns.
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        self.peers.clear();
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        self.threads.drain(..).for_each(join);
    }
}

fn join(thread: JoinHandle<()>) {
    thread.join().expect("no thread of the network panics");
}

fn close(streams: &Mutex<Vec<TcpStream>>) {
    for stream in streams.lock().expect("no thread panics with it").drain(..) {
        // It may be closed already.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn connect(me: NodeId, address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_nodelay(true)?;
    // Who takes nothing for so long is lost, and is not waited for when this node ends.
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(&me.0.to_le_bytes())?;
    Ok(stream)
}

/// Sends what is queued, until the queue is closed or the connection breaks.
fn forward(queue: &Receiver<Parts>, mut stream: TcpStream) -> io::Result<()> {
    for (head, body) in queue {
        let length = ((head.len() + body.len()) as u32).to_le_bytes();
        let mut parts = [IoSlice::new(&length), IoSlice::new(&head), IoSlice::new(&body)];
        let mut parts = &mut parts[..];
        while !parts.is_empty() {
            let written = stream.write_vectored(parts)?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut parts, written);
        }
    }
    Ok(())
}

/// Each frame in a buffer of its own: the core keeps slices of it.
fn receive(stream: TcpStream, inbox: &Sender<Event>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut id, mut length) = ([0; 8], [0; 4]);
    stream.read_exact(&mut id)?;
    let from = NodeId(u64::from_le_bytes(id));
    loop {
        stream.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes)?;
        let received = Event::Received { from, bytes: bytes.into() };
        inbox.send(received).map_err(|_| io::ErrorKind::BrokenPipe)?;
    }
}
