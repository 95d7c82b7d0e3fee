//! An established connection: messages in, messages out, nothing waits.
//!
//! Knows the peer only as a stream. Invariant: what waits to be written is bounded in bytes; when
//! it would be more, the connection is closed and all of it is lost, each message whole.

use super::{
    Limits,
    frame::{Decoder, FrameError, Outgoing},
    handshake::Established,
};
use bytes::{Buf, Bytes};
#[cfg(not(madsim))]
use std::io::IoSlice;
use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{net::TcpStream, time::Instant};
use tokio_util::io::{poll_read_buf, poll_write_buf};

/// The most pieces of messages that go with one system call.
#[cfg(not(madsim))]
const SLICES_MAX: usize = 64;

/// A connection that ends sooner was of no use: whatever ended it will end the next one as well.
const LASTS_FROM: Duration = Duration::from_secs(1);

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum Closed {
    /// The other end closed it.
    End,
    Io(io::Error),
    Frame(FrameError),
    Overflow,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End => f.write_str("closed by the peer"),
            Self::Io(error) => error.fmt(f),
            Self::Frame(error) => error.fmt(f),
            Self::Overflow => f.write_str("the peer takes its messages too slowly"),
        }
    }
}

pub(super) struct Connection {
    stream: TcpStream,
    incoming: Decoder,
    outgoing: Outgoing,
    queue_bytes_max: usize,
    since: Instant,
}

impl Connection {
    pub(super) fn new(established: Established, limits: Limits) -> Self {
        let Established { stream, session, .. } = established;
        Self {
            stream,
            incoming: Decoder::new(session, limits.message_bytes_max),
            outgoing: Outgoing::new(session),
            queue_bytes_max: limits.queue_bytes_max(),
            since: Instant::now(),
        }
    }

    /// Whether it was more than a handshake.
    pub(super) fn has_lasted(&self) -> bool {
        self.since.elapsed() >= LASTS_FROM
    }

    /// For so many bytes that wait to be written, or as many as there was room for before.
    pub(super) fn make_room(&mut self, queue_bytes_max: usize) {
        self.queue_bytes_max = self.queue_bytes_max.max(queue_bytes_max);
    }

    pub(super) fn push(&mut self, head: Bytes, body: Bytes) -> Result<(), Closed> {
        let bytes = head.len() + body.len();
        if self.outgoing.has_remaining() && self.outgoing.remaining() + bytes > self.queue_bytes_max
        {
            return Err(Closed::Overflow);
        }
        self.outgoing.push(head, body);
        Ok(())
    }

    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<(), Closed> {
        while self.outgoing.has_remaining() {
            match poll_write_buf(Pin::new(&mut self.stream), cx, &mut self.outgoing) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(Closed::Io(error)),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// The simulated sockets know no share.
    #[cfg(madsim)]
    pub(super) fn write(&mut self) -> Result<(), Closed> {
        self.poll_write(&mut Context::from_waker(std::task::Waker::noop()))
    }

    /// Writes what can be written now, however much of its share the task has had; wakes nobody for the rest.
    #[cfg(not(madsim))]
    pub(super) fn write(&mut self) -> Result<(), Closed> {
        while self.outgoing.has_remaining() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.outgoing.chunks_vectored(&mut slices);
            match self.stream.try_write_vectored(&slices[..count]) {
                Ok(written) => self.outgoing.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(Closed::Io(error)),
            }
        }
        Ok(())
    }

    /// Reads so many bytes at most, and a little.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        bytes_max: usize,
        mut received: impl FnMut(Bytes),
    ) -> Result<(), Closed> {
        let mut read = 0;
        while read < bytes_max {
            let mut room = self.incoming.room();
            match poll_read_buf(Pin::new(&mut self.stream), cx, &mut room) {
                Poll::Ready(Ok(0)) => return Err(Closed::End),
                Poll::Ready(Ok(bytes)) => read += bytes,
                Poll::Ready(Err(error)) => return Err(Closed::Io(error)),
                Poll::Pending => return Ok(()),
            }
            while let Some(message) = self.incoming.next().map_err(Closed::Frame)? {
                received(message);
            }
        }
        // There may be more: nothing else would wake the task for it.
        cx.waker().wake_by_ref();
        Ok(())
    }
}

#[cfg(all(test, not(madsim)))]
mod tests {
    use super::{super::frame::checksum, *};
    use lakebed::NodeId;
    use std::{
        future::poll_fn,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering::Relaxed},
        },
        task::{Wake, Waker},
    };
    use tokio::{io::AsyncWriteExt as _, net::TcpListener, time::timeout};

    /// Who says much without a pause left others no turn, or was not heard any more when its share was used up.
    #[tokio::test]
    async fn of_much_that_came_a_share_is_read_and_the_rest_asks_to_be() {
        const MESSAGES: usize = 1000;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stream, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let established = Established { peer: NodeId(2), stream: stream.unwrap(), session: 0 };
        let limits = Limits { message_bytes_max: 1000, engine_bytes_max: 1000, engines: 1 };
        let mut connection = Connection::new(established, limits);
        let crc = checksum(0, [&[7; 1000], &[]]);
        let one = [&1000_u32.to_le_bytes()[..], &crc.to_le_bytes(), &[7; 1000]].concat();
        let (all, mut end) = (one.repeat(MESSAGES), accepted.unwrap().0);
        let writes = end.write_all(&all);
        let mut heard = 0;
        let reads = poll_fn(|cx| {
            let (woken, before) = (Arc::new(Woken::default()), heard);
            let waker = Waker::from(Arc::clone(&woken));
            let read = connection.poll_read(&mut Context::from_waker(&waker), 1, |_| heard += 1);
            read.unwrap();
            // As much as is read at one time, and not all that is there.
            assert!(heard - before <= 66, "{} at once", heard - before);
            assert!(heard == before || woken.0.load(Relaxed), "nobody would ask for the rest");
            cx.waker().wake_by_ref();
            if heard == MESSAGES { Poll::Ready(()) } else { Poll::Pending }
        });
        let both = async { tokio::join!(writes, reads) };
        let (written, ()) = timeout(Duration::from_secs(60), both).await.expect("heard");
        written.unwrap();
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Relaxed);
        }
    }
}
