//! TCP over madsim's network, with what a real one does to whoever uses it.
//!
//! madsim's streams send nothing before they are flushed, take any number of bytes at once and
//! are reset only when one end is gone. Here what is written is on its way; a write or a read may
//! be short; what the other end has not read fills a window; and a connection can be [`reset`], or
//! be gone for one end while the other believes in it ([`break_off`], [`silence`]). Invariant:
//! bytes arrive in order, each once, or the connection ends.

use bytes::{Buf, BufMut, BytesMut};
pub use madsim::net::lookup_host;
use madsim::{
    net,
    plugin::{self, Simulator},
    rand::{self, Rng},
};
use real::io::{AsyncRead, AsyncWrite, ReadBuf};
use std::{
    collections::BTreeMap,
    fmt,
    io::{self, ErrorKind, IoSlice},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, Weak},
    task::{Context, Poll, Waker, ready},
};

/// The least and the most bytes that wait to be read at the other end.
const WINDOW: std::ops::RangeInclusive<usize> = 4 << 10..=256 << 10;
/// The most bytes of a short read or write.
const FEW_BYTES: usize = 16;
/// Room for fewer bytes is told to nobody, if the window is twice as large: else each short read let
/// in a packet as small, and as every packet takes madsim's receiver a millisecond, a window that was
/// full once stayed so (the silly window of RFC 1122, 4.2.3.3).
const ROOM_TOLD_BYTES: usize = 1460;
/// Whoever dials says first which wire it is: the two ends find their window by that.
const PRELUDE_BYTES: usize = 8;

/// Every connection there is: a plugin of madsim's runtime, which must be registered.
#[derive(Debug, Default)]
pub struct Wires {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    wires: BTreeMap<u64, Weak<Wire>>,
}

impl Simulator for Wires {
    fn new(_: &rand::GlobalRng, _: &madsim::time::TimeHandle, _: &madsim::Config) -> Self {
        Self::default()
    }
}

impl Wires {
    fn open(&self, ends: [IpAddr; 2]) -> (u64, Arc<Wire>) {
        let mut open = self.locked();
        open.next += 1;
        let id = open.next;
        let wire = Arc::new(Wire::new(ends));
        open.wires.retain(|_, wire| wire.strong_count() > 0);
        open.wires.insert(id, Arc::downgrade(&wire));
        (id, wire)
    }

    fn find(&self, id: u64) -> Option<Arc<Wire>> {
        self.locked().wires.get(&id)?.upgrade()
    }

    fn locked(&self) -> MutexGuard<'_, Open> {
        self.open.lock().expect("nothing panics while it holds the wires")
    }
}

/// Resets every connection between these two machines; how many there were.
pub fn reset(one: IpAddr, other: IpAddr) -> usize {
    let wires = between(one, other);
    wires.iter().for_each(|(wire, _)| wire.reset([true; 2]));
    wires.len()
}

/// Resets every connection between these two machines for the first alone: the other hears nothing
/// of it, and nothing else any more, until they are [`reset`]. How many there were.
pub fn break_off(one: IpAddr, other: IpAddr) -> usize {
    let wires = between(one, other);
    for (wire, end) in &wires {
        wire.silence(1 - end);
        wire.reset([*end == 0, *end == 1]);
    }
    wires.len()
}

/// A machine is about to lose power: whoever was connected with it hears nothing of that.
pub fn silence(machine: IpAddr) {
    for wire in all() {
        if let Some(end) = wire.end_of(machine) {
            wire.silence(1 - end);
        }
    }
}

/// The machine is there again, and knows nothing of what it was connected with.
pub fn deny(machine: IpAddr) {
    for wire in all() {
        if let Some(end) = wire.end_of(machine)
            && wire.state().is_silent[1 - end]
        {
            wire.reset([true; 2]);
        }
    }
}

fn all() -> Vec<Arc<Wire>> {
    plugin::simulator::<Wires>().locked().wires.values().filter_map(Weak::upgrade).collect()
}

/// The wires between two machines, and which end the first of them has.
fn between(one: IpAddr, other: IpAddr) -> Vec<(Arc<Wire>, usize)> {
    let ends = |wire: Arc<Wire>| {
        let (end, far) = (wire.end_of(one)?, wire.end_of(other)?);
        (end != far).then_some((wire, end))
    };
    all().into_iter().filter_map(ends).collect()
}

/// What both ends of a connection share.
#[derive(Debug)]
struct Wire {
    ends: [IpAddr; 2],
    window: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What each end is told, whatever it asks.
    is_reset: [bool; 2],
    /// What each end hears nothing of: that the other is gone.
    is_silent: [bool; 2],
    /// Bytes that each end has written and was not told of room for since.
    unread: [usize; 2],
    /// Of these, what the other end has read.
    untold: [usize; 2],
    /// Who reads at each end, and who writes.
    readers: [Option<Waker>; 2],
    writers: [Option<Waker>; 2],
}

impl Wire {
    fn new(ends: [IpAddr; 2]) -> Self {
        let window = rand::thread_rng().gen_range(WINDOW);
        Self { ends, window, state: Mutex::default() }
    }

    fn end_of(&self, machine: IpAddr) -> Option<usize> {
        self.ends.iter().position(|end| *end == machine)
    }

    fn reset(&self, ends: [bool; 2]) {
        let mut state = self.state();
        let mut woken = Vec::new();
        for end in (0..2).filter(|end| ends[*end]) {
            state.is_reset[end] = true;
            woken.extend(state.readers[end].take());
            woken.extend(state.writers[end].take());
        }
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    fn silence(&self, end: usize) {
        self.state().is_silent[end] = true;
    }

    /// How many bytes this end may write, and whether anybody gets them.
    fn poll_room(&self, end: usize, cx: &Context<'_>) -> Poll<io::Result<(usize, bool)>> {
        let mut state = self.state();
        if state.is_reset[end] {
            return Poll::Ready(Err(connection_reset()));
        }
        state.writers[end] = Some(cx.waker().clone());
        match self.window.saturating_sub(state.unread[end]) {
            0 => Poll::Pending,
            room => Poll::Ready(Ok((room, !state.is_silent[end]))),
        }
    }

    fn written(&self, end: usize, bytes: usize) {
        self.state().unread[end] += bytes;
    }

    /// Whether this end may read.
    fn poll_heard(&self, end: usize, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state();
        if state.is_reset[end] {
            return Poll::Ready(Err(connection_reset()));
        }
        state.readers[end] = Some(cx.waker().clone());
        if state.is_silent[end] { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn read(&self, end: usize, bytes: usize) {
        let other = 1 - end;
        let mut state = self.state();
        state.untold[other] += bytes;
        if state.untold[other] < ROOM_TOLD_BYTES.min(self.window / 2) {
            return;
        }
        state.unread[other] -= std::mem::take(&mut state.untold[other]);
        let waker = state.writers[other].take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds a wire")
    }
}

fn connection_reset() -> io::Error {
    io::Error::new(ErrorKind::ConnectionReset, "connection reset")
}

/// One end of a connection.
pub struct TcpStream {
    inner: net::TcpStream,
    /// Which end this is: 0 dialled.
    end: usize,
    /// Unknown to who accepted until the prelude was read.
    wire: Option<Arc<Wire>>,
    prelude: BytesMut,
}

impl TcpStream {
    /// Connects with the first of these that lets it.
    pub async fn connect(addresses: impl net::ToSocketAddrs) -> io::Result<Self> {
        let inner = net::TcpStream::connect(addresses).await?;
        let ends = [inner.local_addr()?.ip(), inner.peer_addr()?.ip()];
        let (id, wire) = plugin::simulator::<Wires>().open(ends);
        let mut stream = Self { inner, end: 0, wire: Some(wire), prelude: BytesMut::new() };
        let mut cx = Context::from_waker(Waker::noop());
        match stream.put(&mut cx, &id.to_le_bytes()) {
            Poll::Ready(Ok(())) => Ok(stream),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => unreachable!("madsim takes any number of bytes"),
        }
    }

    /// Messages are never gathered here.
    pub const fn set_nodelay(&self, _: bool) -> io::Result<()> {
        Ok(())
    }

    /// Where the other end is.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.inner.peer_addr()
    }

    /// Hands bytes over and sends them on their way: all of them, for madsim takes any number.
    fn put(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<()>> {
        let inner = Pin::new(&mut self.inner);
        let written = ready!(inner.poll_write(cx, bytes))?;
        debug_assert_eq!(written, bytes.len(), "madsim takes any number of bytes");
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    /// Who accepted reads which wire it is.
    fn poll_prelude(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.end == 1 && self.prelude.len() < PRELUDE_BYTES {
            let mut bytes = [0; PRELUDE_BYTES];
            let mut rest = ReadBuf::new(&mut bytes[self.prelude.len()..]);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut rest))?;
            if rest.filled().is_empty() {
                return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
            }
            self.prelude.put_slice(rest.filled());
            if self.prelude.len() == PRELUDE_BYTES {
                // Nothing is found of an end that has gone: what it sent is read all the same.
                self.wire = plugin::simulator::<Wires>().find(self.prelude.clone().get_u64_le());
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_prelude(cx))?;
        let (end, wire) = (self.end, self.wire.clone());
        if let Some(wire) = &wire {
            ready!(wire.poll_heard(end, cx))?;
        }
        let before = buf.filled().len();
        if is_short() {
            let mut few = [0; FEW_BYTES];
            let mut few = ReadBuf::new(&mut few[..buf.remaining().min(FEW_BYTES)]);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut few))?;
            buf.put_slice(few.filled());
        } else {
            ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        }
        if let Some(wire) = &wire {
            wire.read(end, buf.filled().len() - before);
        }
        Poll::Ready(Ok(()))
    }
}

/// Whether a read or write has to do with less than there is.
fn is_short() -> bool {
    rand::thread_rng().gen_ratio(1, 8)
}

impl AsyncWrite for TcpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    /// What is offered together leaves as one packet, as it does from a real socket. A packet takes
    /// a millisecond of madsim's receiver, who hears one after the other: a connection that sent
    /// each part of a message by itself could not keep up with some hundred messages a second.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let (end, wire) = (self.end, self.wire.clone());
        let (room, is_heard) = match &wire {
            Some(wire) => ready!(wire.poll_room(end, cx))?,
            None => (usize::MAX, true),
        };
        let offered = parts.iter().map(|part| part.len()).sum::<usize>();
        let len = offered.min(room).min(if is_short() { FEW_BYTES } else { usize::MAX });
        if is_heard && len > 0 {
            let mut packet = BytesMut::with_capacity(len);
            for part in parts {
                packet.put_slice(&part[..part.len().min(len - packet.len())]);
            }
            ready!(self.put(cx, &packet))?;
        }
        if let Some(wire) = &wire {
            wire.written(end, len);
        }
        Poll::Ready(Ok(len))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Who is dialled.
pub struct TcpListener(net::TcpListener);

impl TcpListener {
    /// Listens at `ip:port`.
    pub async fn bind(address: impl AsRef<str>) -> io::Result<Self> {
        net::TcpListener::bind(address.as_ref()).await.map(Self)
    }

    /// There is no such thing here: a socket of this machine is a socket of none that is simulated.
    pub fn from_std(_: std::net::TcpListener) -> io::Result<Self> {
        Err(ErrorKind::Unsupported.into())
    }

    /// The next connection.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (inner, from) = self.0.accept().await?;
        Ok((TcpStream { inner, end: 1, wire: None, prelude: BytesMut::new() }, from))
    }
}
