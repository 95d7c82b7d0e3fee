//! The server over loopback sockets, on a machine that stands in for a cluster.

mod backups;
mod clients;
mod node;
mod pipelines;
mod sessions;
mod stale;
mod wire;

use bytes::{Buf, Bytes};
use lakebed::{
    Batch, Control, File, LogId, LogIndex, Member, Membership, NodeId, Outcome, ReadMode, Refusal,
    Role, StateMachine, Status, Term, Timestamp,
};
use lakebed_kv::{
    Served,
    serve::{Failure, Limits, Store, serve},
};
use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};
use tokio::{net::TcpListener, sync::oneshot};

/// The most that anything here waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// One machine behind a lock, and what was asked of it.
#[derive(Clone, Default)]
struct Single(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    kv: Served,
    index: u64,
    /// How many commands each batch had.
    batches: Vec<u32>,
    reads: usize,
    /// How each was to be read.
    modes: Vec<ReadMode>,
    /// Whether no leader was heard from for longer than anybody allows.
    is_late: bool,
    failure: Option<Failure>,
    /// Why nothing is replicated, and how often that was said.
    refusal: Option<Refusal>,
    refused: usize,
    /// What the node was ordered.
    orders: Vec<Control>,
    members: Arc<Membership>,
}

impl State {
    fn apply(&mut self, batch: &Batch, out: &mut Vec<u8>) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        self.batches.push(batch.count());
        self.index += 1;
        let mut body = batch.body();
        while !body.is_empty() {
            let len = body.get_u32_le() as usize;
            let at = LogId::new(Term(1), LogIndex(self.index));
            self.kv.apply(at, Timestamp(now.as_nanos() as u64), &body[..len], out);
            body.advance(len);
        }
    }
}

impl Store for Single {
    async fn propose(&self, batch: Batch, out: &mut Vec<u8>) -> Result<(), Failure> {
        let mut state = self.0.lock().unwrap();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        if let Some(refusal) = state.refusal.clone() {
            state.refused += 1;
            return Err(Failure::Refused(refusal));
        }
        let mut answers = Vec::new();
        state.apply(&batch, &mut answers);
        out.extend(answers);
        Ok(())
    }

    async fn read(&self, query: &[u8], mode: ReadMode) -> Result<Bytes, Failure> {
        let mut state = self.0.lock().unwrap();
        state.reads += 1;
        state.modes.push(mode);
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        if state.is_late && matches!(mode, ReadMode::Local { .. }) {
            return Err(Failure::Refused(Refusal::NotReady));
        }
        let mut answer = Vec::new();
        state.kv.query(query, &mut answer);
        Ok(answer.into())
    }

    async fn control(&self, order: Control) -> Result<Outcome, Failure> {
        let at = LogId::new(Term(3), LogIndex(9));
        let mut state = self.0.lock().unwrap();
        state.orders.push(order.clone());
        Ok(match order {
            Control::PinSnapshot => Outcome::Pinned(File::Snapshot(at), 10),
            Control::ReadPinned { offset, len, .. } => {
                let rest = &b"0123456789"[10.min(offset as usize)..];
                Outcome::Read(Bytes::copy_from_slice(&rest[..rest.len().min(len as usize)]))
            }
            _ => Outcome::Done(at),
        })
    }

    async fn status(&self) -> Result<Status, Failure> {
        let mut status = Status::default();
        status.node = NodeId(7);
        status.role = Role::Leader;
        status.members = self.0.lock().unwrap().members.clone();
        Ok(status)
    }
}

struct Server {
    store: Single,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let store = Single::default();
        let (stop, stopped) = oneshot::channel();
        let (bound, address) = mpsc::channel();
        let served = store.clone();
        let thread = thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                bound.send(listener.local_addr().unwrap()).unwrap();
                serve(listener, served, limits, async { drop(stopped.await) }).await;
            });
        });
        let address = address.recv().unwrap();
        Self { store, address, stop: Some(stop), thread: Some(thread) }
    }

    fn client(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client(stream)
    }

    fn state<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.store.0.lock().unwrap())
    }

    fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Client(TcpStream);

impl Client {
    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// Reads exactly this.
    fn expect(&mut self, expected: &str) {
        let mut found = vec![0; expected.len()];
        self.0.read_exact(&mut found).unwrap();
        assert_eq!(String::from_utf8_lossy(&found), expected);
    }

    /// Sends a line of words, and reads exactly this.
    fn ask(&mut self, line: &str, expected: &str) {
        self.send(&command(line));
        self.expect(expected);
    }

    /// Everything up to the end of the connection.
    fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.0.read_to_string(&mut rest).unwrap();
        rest
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        while !line.ends_with("\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            line.push(char::from(byte[0]));
        }
        line
    }
}

fn command(line: &str) -> Vec<u8> {
    let words: Vec<_> = line.split(' ').collect();
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n{word}\r\n", word.len()).bytes());
    }
    bytes
}

fn pipeline(lines: &[&str]) -> Vec<u8> {
    lines.iter().flat_map(|line| command(line)).collect()
}
