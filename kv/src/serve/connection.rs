//! One client: its pipeline in, its answers out, in order.
//!
//! Knows no socket and no node. Invariant: at most one run of commands is on its way, and nothing
//! is read while answers wait to be taken, so that a client costs bounded room whatever it does.

use super::{
    info,
    orders::{Order, Taking},
    reader::{ProtocolError, Reader},
    request::{self, Request},
    run::Run,
    sessions,
    store::{Asked, Failure, Store},
};
use crate::{Answered, Command, Queries, Stopped, answer};
use lakebed::{Batch, Timestamp};
use std::{
    io,
    time::{Duration, SystemTime},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::watch,
    time::timeout,
};

/// How long a client may take for the rest of a command, and to take its answers.
const STALL_MAX: Duration = Duration::from_secs(60);
/// How long a client that was told off is listened to, so that it can read why.
const LINGER_MAX: Duration = Duration::from_secs(1);
/// Answers are sent when they are this long, or when nothing else is to be done.
const OUT_BYTES: usize = 256 << 10;
/// An empty buffer of answers larger than this is given back.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// A connected client.
pub(crate) struct Connection<S, T> {
    stream: S,
    store: T,
    /// Becomes true when the server stops.
    stopping: watch::Receiver<bool>,
    run_bytes_max: usize,
    reader: Reader,
    taking: Taking,
    /// Answers on their way out.
    out: Vec<u8>,
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
    Run(Run),
    /// Perform this of a session.
    Session(Vec<u8>),
    /// Give the node an order.
    Order(Order),
    /// Say how the node is.
    Info,
    /// Say good-bye.
    Close,
}

impl<S: AsyncRead + AsyncWrite + Unpin, T: Store> Connection<S, T> {
    pub(crate) fn new(
        stream: S,
        store: T,
        stopping: watch::Receiver<bool>,
        bytes_max: usize,
    ) -> Self {
        Self {
            stream,
            store,
            stopping,
            run_bytes_max: bytes_max,
            reader: Reader::new(bytes_max),
            taking: Taking::default(),
            out: Vec::new(),
            list: Vec::new(),
        }
    }

    /// Serves until the client leaves, is told off, or the server stops.
    pub(crate) async fn serve(mut self) -> io::Result<()> {
        let served = self.serve_to_its_end().await;
        self.taking.end(&self.store).await;
        served
    }

    async fn serve_to_its_end(&mut self) -> io::Result<()> {
        loop {
            match self.step() {
                Step::Read => {
                    self.flush().await?;
                    if !self.hear().await? {
                        return self.close().await;
                    }
                }
                Step::Flush => self.flush().await?,
                Step::Run(Run::Writes { batch, .. }) => self.commit(batch).await,
                Step::Run(Run::Reads(queries)) => self.ask(queries).await?,
                Step::Session(command) => self.perform_in_session(&command).await,
                Step::Order(order) => {
                    self.taking.carry_out(order, &self.store, &mut self.out).await;
                }
                Step::Info => self.inform().await,
                Step::Close => return self.close().await,
            }
        }
    }

    /// Takes commands from the buffer as far as they can be performed together.
    fn step(&mut self) -> Step {
        let mut run = None;
        loop {
            if self.out.len() > OUT_BYTES {
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
    fn take_command(&mut self, run: &mut Option<Run>) -> Option<Step> {
        let request = request::parse(self.reader.args(), &mut self.list);
        let step = match (request, &mut *run) {
            (Request::Command(command), run) => {
                // What a command costs the log is less than what its client sent.
                let bytes = self.reader.command_bytes();
                let taken = match run {
                    Some(run) => run.take(&command, bytes, self.run_bytes_max),
                    None => {
                        *run = Some(Run::of(&command, self.reader.buffered()));
                        true
                    }
                };
                if !taken {
                    return run.take().map(Step::Run);
                }
                None
            }
            (_, Some(_)) => return run.take().map(Step::Run),
            (Request::Answered(bytes), None) => {
                self.out.extend_from_slice(&bytes);
                None
            }
            (Request::Session(command), None) => Some(Step::Session(command)),
            (Request::Order(order), None) => Some(Step::Order(order)),
            (Request::Info, None) => Some(Step::Info),
            (Request::Quit, None) => {
                answer::simple(&mut self.out, "OK");
                Some(Step::Close)
            }
        };
        self.reader.consume();
        step
    }

    fn complain(&mut self, error: ProtocolError) {
        answer::error(&mut self.out, &error.to_string());
    }

    async fn commit(&mut self, batch: Batch) {
        let count = batch.count();
        if let Err(failure) = self.store.propose(batch, &mut self.out).await {
            self.fail(&failure, Asked::Write, count as usize);
        }
    }

    /// By itself: a retry that is refused must not take the next one with it.
    async fn perform_in_session(&mut self, command: &[u8]) {
        let mut answer = Vec::new();
        let result = self.store.propose(Batch::one(command), &mut answer).await;
        sessions::reply(&mut self.out, result.map(|()| answer));
    }

    /// The same failure for each command.
    fn fail(&mut self, failure: &Failure, asked: Asked, count: usize) {
        let reply = failure.reply(asked);
        (0..count).for_each(|_| answer::error(&mut self.out, &reply));
    }

    async fn ask(&mut self, mut queries: Queries) -> io::Result<()> {
        queries.clock(wall_clock());
        while !queries.is_empty() {
            match self.ask_once(&mut queries).await {
                Ok(Stopped::Done) => {}
                Ok(Stopped::Budget) => self.flush().await?,
                // Once is enough: the machine's time is now as late as the leader's.
                Ok(Stopped::Stale) => queries.clock(Timestamp::default()),
                Err(failure) => {
                    self.fail(&failure, Asked::Read, queries.count());
                    break;
                }
            }
        }
        Ok(())
    }

    async fn ask_once(&mut self, queries: &mut Queries) -> Result<Stopped, Failure> {
        let answer = self.store.read(queries.bytes()).await?;
        let answered = Answered::parse(answer).ok_or(Failure::Unknown)?;
        if answered.count == 0 && answered.stopped != Stopped::Stale {
            return Err(Failure::Unknown);
        }
        self.out.extend_from_slice(&answered.values);
        queries.advance(answered.count);
        if answered.stopped == Stopped::Stale {
            let mut tick = Batch::default();
            tick.push_with(|out| Command::Tick.encode(out));
            self.store.propose(tick, &mut Vec::new()).await?;
        }
        Ok(answered.stopped)
    }

    async fn inform(&mut self) {
        match self.store.status().await {
            Ok(status) => {
                let more = self.store.surroundings(&status).await;
                answer::bulk(&mut self.out, info::text(&status, &more).as_bytes());
            }
            Err(failure) => self.fail(&failure, Asked::Read, 1),
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            timeout(STALL_MAX, self.stream.write_all(&self.out)).await??;
            self.out.clear();
            self.out.shrink_to(KEPT_BYTES_MAX);
        }
        Ok(())
    }

    /// Reads more; false: there is nothing more to hear.
    async fn hear(&mut self) -> io::Result<bool> {
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
        timeout(LINGER_MAX, listen).await.or(Ok(()))
    }
}

/// When to ask for the time, never what time it is: see the crate's documentation.
fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
