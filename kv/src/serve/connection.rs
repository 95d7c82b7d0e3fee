//! One client: its pipeline in, its answers out, in order.
//!
//! Knows no socket and no node. Invariant: at most one run of commands is on its way, and nothing
//! is read while answers wait to be taken, so that a client costs bounded room whatever it does.

use super::{
    client::Client,
    orders::{Order, Taking},
    outgoing::{OUT_BYTES, Outgoing, Protocol, STALL_MAX},
    reader::{self, ProtocolError, Reader},
    request::{self, Request},
    run::Runs,
    sessions,
    stale::Stale,
    store::Store,
    stores::{self, Place, Stores},
    transactions::Transactions,
};
use crate::{Command, answer};
use lakebed::Batch;
use std::{io, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::watch,
    time::timeout,
};

/// How long a client that was told off is listened to, so that it can read why.
const LINGER_MAX: Duration = Duration::from_secs(1);
/// The same of one whose server stops: whoever stops it counts on less than a second for all of it, and a
/// client that is silent, as one in a pool, does not notice before it has something to ask.
const STOP_LINGER_MAX: Duration = Duration::from_millis(300);

/// A connected client.
pub(crate) struct Connection<S, T> {
    stream: S,
    stores: Stores<T>,
    /// Becomes true when the server stops.
    stopping: watch::Receiver<bool>,
    run_bytes_max: usize,
    reader: Reader,
    taking: Taking,
    transactions: Transactions,
    client: Client,
    out: Outgoing,
    /// The keys of the command at hand.
    list: Vec<u8>,
}

/// What is to be done next.
enum Step {
    /// Hear more from the client.
    Read,
    /// Send what is answered before going on.
    Flush,
    /// Perform these.
    Run(Runs),
    /// Perform this, for all groups.
    Everywhere(Everywhere),
    /// Perform this of a session, in this group.
    Session(usize, Vec<u8>),
    /// Give a group's node an order.
    Order(usize, Order),
    /// Say how the node is, or a group of it.
    Info(Option<usize>),
    /// Say good-bye, and let the client go.
    Quit,
    /// Let the client go.
    Close,
}

/// What is asked that names no key: of all groups, or of several.
enum Everywhere {
    DbSize,
    Scan { cursor: u64, count: u32, pattern: Vec<u8> },
    Keys(Vec<u8>),
    Wait,
}

/// Lets every other task have its turn, and sockets be looked at. The simulated executor draws whose turn it is.
async fn give_way() {
    #[cfg(not(madsim))]
    tokio::task::yield_now().await;
}

impl<S: AsyncRead + AsyncWrite + Unpin, T: Store> Connection<S, T> {
    pub(crate) fn new(
        stream: S,
        stores: Stores<T>,
        stopping: watch::Receiver<bool>,
        bytes_max: usize,
    ) -> Self {
        Self {
            stream,
            stores,
            stopping,
            run_bytes_max: bytes_max,
            reader: Reader::new(bytes_max),
            taking: Taking::default(),
            transactions: Transactions::default(),
            client: Client::default(),
            out: Outgoing::default(),
            list: Vec::new(),
        }
    }

    /// Of this client.
    pub(crate) fn of(self, client: Client) -> Self {
        Self { client, ..self }
    }

    /// Serves until the client leaves, is told off, or the server stops.
    pub(crate) async fn serve(mut self) -> io::Result<()> {
        let served = self.serve_to_its_end().await;
        self.taking.end(&self.stores).await;
        served
    }

    async fn serve_to_its_end(&mut self) -> io::Result<()> {
        // Whether nothing was asked of a store since it was read.
        let mut is_streaming = false;
        loop {
            let (step, was_streaming) = (self.step(), is_streaming);
            is_streaming = match step {
                Step::Read => true,
                Step::Flush => was_streaming,
                _ => false,
            };
            match step {
                Step::Read => {
                    self.flush().await?;
                    if !self.hear().await? {
                        return self.close().await;
                    }
                    // The node is a task of this thread as well: a client that streams what needs no store
                    // would take all of its own share before that has a turn.
                    if was_streaming {
                        give_way().await;
                    }
                }
                Step::Flush => self.flush().await?,
                Step::Run(runs) => self.perform(runs).await?,
                Step::Everywhere(Everywhere::DbSize) => {
                    self.stores.count_keys(self.client.stale, &mut self.out.bytes).await;
                }
                Step::Everywhere(Everywhere::Scan { cursor, count, pattern }) => {
                    let from = (cursor, self.client.stale);
                    self.stores.scan(from, count, &pattern, &mut self.out.bytes).await;
                }
                Step::Everywhere(Everywhere::Keys(pattern)) => {
                    self.stores.keys(&pattern, self.client.stale, &mut self.out.bytes).await;
                }
                Step::Everywhere(Everywhere::Wait) => {
                    self.stores.count_replicas(&mut self.out.bytes).await;
                }
                Step::Session(group, command) => self.perform_in_session(group, &command).await,
                Step::Order(group, order) => {
                    self.taking.carry_out(order, group, &self.stores, &mut self.out.bytes).await;
                }
                Step::Info(group) => self.stores.inform(group, &mut self.out.bytes).await,
                Step::Quit => {
                    answer::simple(&mut self.out.bytes, "OK");
                    return self.close().await;
                }
                Step::Close => return self.close().await,
            }
        }
    }

    /// Takes commands from the buffer as far as they can be performed together.
    fn step(&mut self) -> Step {
        let mut run = None;
        loop {
            if self.out.is_full() {
                return run.map_or(Step::Flush, Step::Run);
            }
            match self.reader.next() {
                Ok(true) => {}
                Ok(false) => return run.map_or(Step::Read, Step::Run),
                // What came before the mistake is performed first; the mistake stays.
                Err(_) if run.is_some() => return run.map_or(Step::Read, Step::Run),
                Err(error) => {
                    self.complain(error);
                    return Step::Close;
                }
            }
            if let Some(step) = self.take_command(&mut run) {
                return step;
            }
        }
    }

    /// Takes the next command into the run, or leaves it where it is and says what comes first.
    fn take_command(&mut self, run: &mut Option<Runs>) -> Option<Step> {
        let request = request::parse(self.reader.args(), &mut self.list);
        let (named, request) = match request {
            Request::Within(group, request) => (Some(group), *request),
            request => (None, request),
        };
        if run.is_none()
            && let Some(why) = self.transactions.refuse(&request)
        {
            answer::error(&mut self.out.bytes, why);
            self.reader.consume();
            return None;
        }
        if let Request::Command(command) = &request
            && named.is_none()
            && let Place::Group(group) = self.stores.place(command)
        {
            // What a command costs the log is less than what its client sent.
            let (bytes, bytes_max) = (self.reader.command_bytes(), self.run_bytes_max);
            let room = self.reader.buffered() / self.stores.count();
            let runs = run.get_or_insert_default();
            if !runs.take((group, command), bytes, bytes_max, room) {
                return run.take().map(Step::Run);
            }
            self.reader.consume();
            return None;
        }
        if run.is_some() {
            return run.take().map(Step::Run);
        }
        let (stores, client) = (&self.stores, &mut self.client);
        let step = direct(stores, &mut self.out, client, named, request).unwrap_or_else(|answer| {
            self.out.bytes.extend_from_slice(&answer);
            None
        });
        self.reader.consume();
        step
    }

    fn complain(&mut self, error: ProtocolError) {
        answer::error(&mut self.out.bytes, &error.to_string());
    }

    /// Each group's part beside the others'; its answers in the order of the commands.
    async fn perform(&mut self, mut runs: Runs) -> io::Result<()> {
        runs.allow(self.client.stale, &self.stores);
        if let [part] = &mut runs.parts[..] {
            let group = self.stores.group(part.group);
            part.step(group, &mut self.out.bytes).await;
            while part.is_open() {
                self.out.flush(&mut self.stream).await?;
                part.step(group, &mut self.out.bytes).await;
            }
            return Ok(());
        }
        while runs.is_open() {
            runs.step(&self.stores, &mut self.out.bytes, OUT_BYTES).await;
            if runs.is_open() {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// By itself: a retry that is refused must not take the next one with it.
    async fn perform_in_session(&mut self, group: usize, command: &[u8]) {
        let mut answer = Vec::new();
        let result = self.stores.of(group).propose(Batch::one(command), &mut answer).await;
        let group = (self.stores.count() > 1).then_some(group);
        sessions::reply(&mut self.out.bytes, group, result.map(|()| answer));
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.out.flush(&mut self.stream).await
    }

    /// Reads more; false: there is nothing more to hear.
    async fn hear(&mut self) -> io::Result<bool> {
        // No command is at hand, and for how long there will be none nobody knows.
        self.list.clear();
        self.list.shrink_to(reader::KEPT_BYTES_MAX);
        let within = self.reader.is_within();
        let heard = tokio::select! {
            // First: a client that is never silent must not keep the server from stopping.
            biased;
            _ = self.stopping.wait_for(|stopping| *stopping) => return Ok(false),
            heard = timeout(STALL_MAX, self.stream.read_buf(self.reader.room())) => heard,
        };
        match heard {
            Ok(Ok(0)) if within => self.complain(ProtocolError::HalfCommand),
            Ok(Ok(0)) => {}
            Ok(Ok(_)) => return Ok(true),
            Ok(Err(error)) => return Err(error),
            Err(_) if within => {
                self.complain(ProtocolError::Stalled { seconds: STALL_MAX.as_secs() });
            }
            // A client that has nothing to say may be silent for as long as it likes.
            Err(_) => return Ok(true),
        }
        Ok(false)
    }

    /// Sends what is left and listens a little: a socket closed over unread bytes takes the last
    /// answer with it.
    async fn close(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.stream.shutdown().await?;
        let mut rest = [0; 4096];
        let listen = async { while self.stream.read(&mut rest).await.is_ok_and(|n| n > 0) {} };
        let most = if *self.stopping.borrow() { STOP_LINGER_MAX } else { LINGER_MAX };
        timeout(most, listen).await.or(Ok(()))
    }
}

/// What is to be done for a request that is no part of a run, if anything; or its answer.
fn direct<T: Store>(
    stores: &Stores<T>,
    out: &mut Outgoing,
    client: &mut Client,
    named: Option<u64>,
    request: Request<'_>,
) -> Result<Option<Step>, Vec<u8>> {
    match request {
        Request::Map(map) => out.map(&map),
        Request::Client(asked) => client.answer(&asked, &mut out.bytes),
        Request::Stale(asked) => client.answer_stale(asked, &mut out.bytes),
        Request::Time => stores.tell_time(&mut out.bytes),
        Request::Hello(protocol, called) => {
            called.iter().for_each(|name| client.call(name));
            let protocol = protocol.unwrap_or_else(|| out.protocol());
            out.speak(protocol);
            out.map(&request::greeting(protocol, client.id));
        }
        Request::Reset => {
            out.speak(Protocol::default());
            client.call(b"");
            client.stale = Stale::default();
            answer::simple(&mut out.bytes, "RESET");
        }
        request => return step_for(stores, named, request).map(Some),
    }
    Ok(None)
}

/// What is to be done for a request; or its answer.
fn step_for<T: Store>(
    stores: &Stores<T>,
    named: Option<u64>,
    request: Request<'_>,
) -> Result<Step, Vec<u8>> {
    Ok(match request {
        Request::Answered(bytes) => return Err(bytes),
        Request::Command(command) => match (command, stores.place(&command)) {
            (_, Place::Crossing) => return Err(stores::crossing()),
            (Command::DbSize, Place::Everywhere) if named.is_none() => {
                Step::Everywhere(Everywhere::DbSize)
            }
            (Command::Scan { cursor, count, pattern }, Place::Everywhere) if named.is_none() => {
                Step::Everywhere(Everywhere::Scan { cursor, count, pattern: pattern.into() })
            }
            _ => {
                let mut runs = Runs::default();
                runs.take((stores.named(named)?, &command), 0, 0, 0);
                Step::Run(runs)
            }
        },
        Request::Session(asked) => Step::Session(stores.of_session(&asked)?, asked.bytes),
        // They go on with what was begun.
        Request::Order(order @ (Order::ReadBackup { .. } | Order::EndBackup)) => {
            Step::Order(0, order)
        }
        Request::Order(order) => Step::Order(stores.named(named)?, order),
        Request::Info => Step::Info(named.map(|_| stores.named(named)).transpose()?),
        Request::Keys(pattern) => Step::Everywhere(Everywhere::Keys(pattern.into())),
        Request::Wait => Step::Everywhere(Everywhere::Wait),
        Request::Quit => Step::Quit,
        Request::Map(_)
        | Request::Hello(..)
        | Request::Client(_)
        | Request::Stale(_)
        | Request::Time
        | Request::Reset
        | Request::Transaction(_) => {
            unreachable!("it is answered by the connection")
        }
        Request::Within(..) => unreachable!("a group's name is followed by none"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::run::tests::Shared;
    use std::{
        pin::Pin,
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering::Relaxed},
        },
        task::{Context, Poll},
    };
    use tokio::io::ReadBuf;

    /// The buffer of their keys stayed as long as the client did, however idle.
    #[tokio::test]
    async fn room_is_given_back_after_many_keys() {
        let (mut client, stream) = tokio::io::duplex(4 << 20);
        let (_stop, stopping) = watch::channel(false);
        let stores = Stores::from(Shared::default());
        let mut connection = Connection::new(stream, stores, stopping, 2 << 20);
        let mut command = Vec::new();
        answer::array(&mut command, 170_001);
        answer::bulk(&mut command, b"EXISTS");
        (0..170_000).for_each(|_| answer::bulk(&mut command, b""));
        client.write_all(&command).await.unwrap();
        client.shutdown().await.unwrap();
        let (served, answered) = tokio::join!(connection.serve_to_its_end(), async {
            let mut answered = [0; 4];
            client.read_exact(&mut answered).await.unwrap();
            drop(client);
            answered
        });
        served.unwrap();
        assert_eq!(&answered, b":0\r\n");
        assert!(connection.list.capacity() <= reader::KEPT_BYTES_MAX);
    }

    /// A client that streams PINGs, each read as many as there is room for, and takes all that is answered.
    struct Streaming {
        reads_left: u32,
        reads: Arc<AtomicU32>,
    }

    impl AsyncRead for Streaming {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.reads_left > 0 {
                self.reads_left -= 1;
                self.reads.fetch_add(1, Relaxed);
                let whole = buf.remaining() / 6 * 6;
                buf.put_slice(&b"PING\r\n".repeat(whole / 6));
            }
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Streaming {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// What needs no store was answered for as long as it came, or tokio let it: megabytes of it, before the
    /// node of this thread had its turn.
    #[tokio::test]
    async fn who_streams_what_needs_no_store_leaves_others_their_turn() {
        let reads = Arc::new(AtomicU32::new(0));
        let stream = Streaming { reads_left: 50, reads: Arc::clone(&reads) };
        let (_stop, stopping) = watch::channel(false);
        let stores = Stores::from(Shared::default());
        let connection = Connection::new(stream, stores, stopping, 2 << 20);
        let seen = Arc::clone(&reads);
        // The node, as it were.
        let turns = tokio::spawn(async move {
            let mut turns = Vec::new();
            while turns.last() != Some(&50) {
                turns.push(seen.load(Relaxed));
                tokio::task::yield_now().await;
            }
            turns
        });
        let (served, turns) = tokio::join!(tokio::spawn(connection.serve()), turns);
        served.unwrap().unwrap();
        let turns = turns.unwrap();
        assert!(turns.windows(2).all(|two| two[1] - two[0] <= 4), "{turns:?}");
    }
}
