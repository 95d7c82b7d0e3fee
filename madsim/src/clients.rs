//! Clients: some in the node's own program, by its handle, some over the wire, in RESP. Each asks
//! one thing at a time, and goes to another node when it is not content.
//!
//! What they ask is drawn from the seed; what they are told, the history judges.

use crate::{
    cluster::Cluster,
    history::{Asked, History, LEDGER},
    node::client_address,
    resp::Connection,
};
use lakebed::{Batch, ReadMode};
use lakebed_kv::{Answered, Command, Queries, When};
use lakebed_runtime::{Failure, Handle};
use lakebed_sim::{
    Draw,
    plan::{MS, Plan},
    prng::Concern,
};
use madsim::time::{sleep, timeout};
use redis_protocol::resp2::{decode::decode, types::OwnedFrame};
use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

/// Sites of draws.
const SITE_CLIENT: u32 = 1;
/// How many keys there are beside the ledger.
const KEYS: u64 = 8;

/// What is asked.
enum Op {
    /// Appends an entry to the ledger, and gives another key a value in the same batch.
    Write {
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Read,
}

/// What came of it.
enum Reply {
    /// The ledger's length with the entry in it.
    Length(usize),
    Ledger(Vec<u8>),
    Refused,
    Unknown,
}

pub(crate) struct Client {
    cluster: Arc<Cluster>,
    history: Arc<Mutex<History>>,
    draw: Draw,
    plan: Arc<Plan>,
    /// Whom it talks to.
    node: usize,
    way: Way,
}

/// How it talks.
enum Way {
    Handle,
    Wire(Option<Box<Connection>>),
}

impl Client {
    /// Every other one uses handles, the rest the wire.
    pub(crate) fn new(
        cluster: &Arc<Cluster>,
        plan: &Arc<Plan>,
        history: &Arc<Mutex<History>>,
        n: usize,
    ) -> Self {
        let way = if n.is_multiple_of(2) { Way::Handle } else { Way::Wire(None) };
        Self {
            cluster: Arc::clone(cluster),
            history: Arc::clone(history),
            draw: Draw::new(plan.seed, Concern::Workload, SITE_CLIENT, n as u32),
            plan: Arc::clone(plan),
            node: n % plan.nodes,
            way,
        }
    }

    /// Asks until nobody is to ask any more.
    pub(crate) async fn run(mut self) {
        while self.cluster.is_open() {
            let pause = self.draw.delay(self.plan.think.least, self.plan.think.tail);
            sleep(Duration::from_nanos(pause)).await;
            let op = self.next();
            let patience = Duration::from_nanos(self.draw.between(50 * MS, 800 * MS));
            let asked = match op {
                Op::Write { .. } => self.history().write(),
                Op::Read => self.history().read(),
            };
            let reply = self.ask(&op, asked, patience).await;
            let content = matches!(reply, Reply::Length(_) | Reply::Ledger(_));
            self.hear(asked, reply);
            if !content {
                let pause = self.draw.delay(MS, 10 * MS);
                sleep(Duration::from_nanos(pause)).await;
                self.node = (self.node + 1) % self.plan.nodes;
                if let Way::Wire(connection) = &mut self.way {
                    *connection = None;
                }
            }
        }
    }

    fn next(&mut self) -> Op {
        if self.draw.ratio(1, 3) {
            return Op::Read;
        }
        let key = format!("key {}", self.draw.below(KEYS)).into_bytes();
        let most = u64::from(self.plan.tuning.append_bytes_max / 4);
        let len = if self.draw.ratio(1, 4) { self.draw.below(most) } else { self.draw.below(64) };
        Op::Write { key, value: vec![self.draw.any() as u8; len as usize] }
    }

    async fn ask(&mut self, op: &Op, asked: Asked, patience: Duration) -> Reply {
        match &mut self.way {
            Way::Handle => match self.cluster.handle(self.node) {
                Some(handle) => {
                    let reply = timeout(patience, by_handle(&handle, op, asked)).await;
                    reply.unwrap_or(Reply::Unknown)
                }
                None => Reply::Refused,
            },
            Way::Wire(connection) => {
                if connection.is_none() {
                    let opened = Connection::open(client_address(self.node));
                    let opened = timeout(patience, opened).await.ok().and_then(Result::ok);
                    *connection = opened.map(Box::new);
                }
                match connection {
                    Some(connection) => by_wire(connection, op, asked, patience).await,
                    None => Reply::Refused,
                }
            }
        }
    }

    fn hear(&self, asked: Asked, reply: Reply) {
        match reply {
            Reply::Length(bytes) => self.history().acknowledged(asked, bytes),
            Reply::Ledger(ledger) => self.history().saw(asked, &ledger),
            Reply::Refused => self.history().refused(asked),
            Reply::Unknown => {}
        }
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().expect("a failed check ends the run")
    }
}

async fn by_handle(handle: &Handle, op: &Op, asked: Asked) -> Reply {
    let answered = match op {
        Op::Write { key, value } => {
            let mut batch = Batch::default();
            let append = Command::Append { key: LEDGER, value: &asked.entry() };
            batch.push_with(|out| append.encode(out));
            let set = Command::Set { key, value, when: When::Always, millis: 0 };
            batch.push_with(|out| set.encode(out));
            let answers = handle.propose(batch).await;
            answers.map(|answers| answers.answer(0).expect("the ledger's").to_vec())
        }
        Op::Read => read(handle, &Command::Get(LEDGER), ReadMode::Linearizable).await,
    };
    match answered {
        Ok(reply) => replied(&frame(&reply)),
        Err(Failure::Refused(_)) => Reply::Refused,
        Err(Failure::Unknown) => Reply::Unknown,
    }
}

/// The RESP answer to one query.
pub(crate) async fn read(
    handle: &Handle,
    query: &Command<'_>,
    mode: ReadMode,
) -> Result<Vec<u8>, Failure> {
    let mut queries = Queries::default();
    queries.push(query);
    let answer = handle.read_one(queries.bytes(), mode).await?;
    Ok(Answered::parse(answer).expect("a kv answers").values.to_vec())
}

pub(crate) fn frame(reply: &[u8]) -> OwnedFrame {
    let decoded = decode(reply).expect("answers are RESP");
    decoded.expect("answers are whole").0
}

async fn by_wire(connection: &mut Connection, op: &Op, asked: Asked, patience: Duration) -> Reply {
    let replies = match op {
        Op::Write { key, value } => {
            let entry = asked.entry();
            let append: [&[u8]; 3] = [b"APPEND", LEDGER, &entry];
            connection.ask(&[&append, &[b"SET", key, value]], patience).await
        }
        Op::Read => connection.ask(&[&[b"GET", LEDGER]], patience).await,
    };
    // Whether the server has what was sent nobody knows.
    replies.map_or(Reply::Unknown, |replies| replied(&replies[0]))
}

fn replied(frame: &OwnedFrame) -> Reply {
    match frame {
        OwnedFrame::Integer(length) => Reply::Length(*length as usize),
        OwnedFrame::BulkString(ledger) => Reply::Ledger(ledger.clone()),
        OwnedFrame::Null => Reply::Ledger(Vec::new()),
        OwnedFrame::Error(error) if error.starts_with("UNKNOWN") => Reply::Unknown,
        OwnedFrame::Error(error) => {
            let known = ["TRYAGAIN", "BUSY", "DISKFULL"];
            let is_known = known.iter().any(|code| error.starts_with(code));
            assert!(is_known, "nothing here deserves {error:?}");
            Reply::Refused
        }
        other => panic!("no question has the answer {other:?}"),
    }
}
