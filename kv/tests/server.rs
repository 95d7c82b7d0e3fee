//! The server over loopback sockets, on a machine that stands in for a cluster.

use bytes::{Buf, Bytes};
use lakebed::{
    Batch, Control, File, LogId, LogIndex, Member, Membership, NodeId, Outcome, Refusal, Role,
    StateMachine, Status, Term, Timestamp,
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

    async fn read(&self, query: &[u8]) -> Result<Bytes, Failure> {
        let mut state = self.0.lock().unwrap();
        state.reads += 1;
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
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

#[test]
fn a_pipeline_is_one_batch_and_is_answered_in_order() {
    let server = Server::start();
    let mut client = server.client();
    let lines: Vec<_> = (0..64).map(|n| format!("INCRBY n {n}")).collect();
    client.send(&pipeline(&lines.iter().map(String::as_str).collect::<Vec<_>>()));
    let sums: String = (0..64).map(|n| format!(":{}\r\n", n * (n + 1) / 2)).collect();
    client.expect(&sums);
    assert_eq!(server.state(|state| state.batches.clone()), [64]);
}

#[test]
fn a_read_sees_the_write_before_it() {
    let server = Server::start();
    let mut client = server.client();
    client.send(&pipeline(&["GET a", "SET a 1", "GET a", "PING", "SET a 2", "GET a", "GET a"]));
    client.expect("$-1\r\n+OK\r\n$1\r\n1\r\n+PONG\r\n+OK\r\n$1\r\n2\r\n$1\r\n2\r\n");
    assert_eq!(server.state(|state| (state.batches.clone(), state.reads)), (vec![2, 3], 1));
}

#[test]
fn reads_of_a_pipeline_are_one_query() {
    let server = Server::start();
    let mut client = server.client();
    client.ask("MSET a 1 b 2", "+OK\r\n");
    client.send(&pipeline(&["GET a", "EXISTS a b c", "MGET b a", "DBSIZE", "TTL a"]));
    client.expect("$1\r\n1\r\n:2\r\n*2\r\n$1\r\n2\r\n$1\r\n1\r\n:2\r\n:-1\r\n");
    assert_eq!(server.state(|state| state.reads), 1);
}

#[test]
fn what_is_wrong_does_not_disturb_its_neighbours() {
    let server = Server::start();
    let mut client = server.client();
    client.send(&pipeline(&["SET a 1", "SET a", "NONE", "GET a"]));
    client.expect("+OK\r\n-ERR wrong number of arguments for 'set' command\r\n");
    client.expect("-ERR unknown command 'none'\r\n$1\r\n1\r\n");
}

/// Each pair of words was one more call on the stack: a few thousand of them, from anybody, ended the
/// process and all its nodes.
#[test]
fn groups_within_groups_are_refused_however_many() {
    let server = Server::start();
    let mut client = server.client();
    let many = format!("LAKEBED{} INFO", " GROUP 1".repeat(50_000));
    client.send(&pipeline(&[&many, "PING"]));
    let refused = client.line();
    assert!(refused.starts_with("-ERR LAKEBED knows"), "{refused}");
    client.expect("+PONG\r\n");
}

#[test]
fn garbage_is_answered_and_let_go() {
    let server = Server::start();
    let nested = b"*1\r\n".repeat(200_000);
    let cases: [(&[u8], &str); 7] = [
        (b"POST /x\r\nHost: here\r\n\r\nSET a 1\r\n", "this is HTTP"),
        (b"SET a \"1\r\n", "unbalanced quotes"),
        (b"GET / HTTP/1.1\r\n\r\n", "this is HTTP"),
        (b"\x16\x03\x01\x02\x00", "expected '*', got '\\x16'"),
        (b"*1\r\n$-5\r\nabc\r\n", "invalid bulk length"),
        (b"*9999999999\r\n", "invalid multibulk length"),
        (&nested, "expected '$', got '*'"),
    ];
    for (bytes, expected) in cases {
        let mut client = server.client();
        client.send(bytes);
        let reply = client.rest();
        assert!(reply.starts_with("-ERR Protocol error: ") && reply.contains(expected), "{reply}");
    }
    server.client().ask("PING", "+PONG\r\n");
}

/// As `redis-cli --pipe` ends it: behind an empty line it asks for an echo. The empty line was no RESP.
#[test]
fn a_bulk_load_hears_its_end() {
    let server = Server::start();
    let mut client = server.client();
    client.send(&pipeline(&["SET a 1", "INCR a"]));
    client.send(b"\r\n");
    client.send(&command("ECHO 0123456789abcdefghij"));
    client.expect("+OK\r\n:2\r\n$20\r\n0123456789abcdefghij\r\n");
    client.send(b"PING\r\nSET b \"two words\"\nGET b\r\n");
    client.expect("+PONG\r\n+OK\r\n$9\r\ntwo words\r\n");
}

#[test]
fn commands_before_the_garbage_are_performed() {
    let server = Server::start();
    let mut client = server.client();
    client.send(&[&command("SET a 1")[..], b"!"].concat());
    assert_eq!(client.rest(), "+OK\r\n-ERR Protocol error: expected '*', got '!'\r\n");
    server.client().ask("GET a", "$1\r\n1\r\n");
}

#[test]
fn an_oversized_command_is_refused() {
    let server = Server::with(Limits { batch_bytes_max: 10_000, ..Limits::default() });
    let mut client = server.client();
    client.send(&command(&format!("SET a {}", "x".repeat(50_000))));
    let reply = client.rest();
    assert_eq!(reply, "-ERR Protocol error: the command is larger than 10000 bytes\r\n");
    assert!(server.state(|state| state.batches.is_empty()));
}

#[test]
fn half_a_command_is_told_when_the_connection_ends() {
    let server = Server::start();
    let whole = command("SET a 1");
    for end in 1..whole.len() {
        let mut client = server.client();
        client.send(&whole[..end]);
        client.0.shutdown(std::net::Shutdown::Write).unwrap();
        let expected = "-ERR Protocol error: the connection ended within a command\r\n";
        assert_eq!(client.rest(), expected, "{end} bytes");
    }
    assert!(server.state(|state| state.batches.is_empty()));
}

#[test]
fn a_client_that_takes_no_answers_is_not_read() {
    let server = Server::start();
    let value = "x".repeat(1_000_000);
    server.client().ask(&format!("SET a {value}"), "+OK\r\n");
    let mut greedy = server.client();
    greedy.0.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let gets = pipeline(&["GET a"; 1000]);
    let blocked = (0..10_000).map(|_| greedy.0.write_all(&gets)).find_map(Result::err);
    let kind = blocked.expect("the server takes no more").kind();
    assert!(matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{kind}");
    // At most four megabytes are asked for at once: ten at most went into the sockets.
    assert!(server.state(|state| state.reads) < 20);
    server.client().ask("PING", "+PONG\r\n");
}

#[test]
fn many_large_answers_come_in_portions_and_in_order() {
    let server = Server::start();
    let mut client = server.client();
    client.ask(&format!("SET a {}", "x".repeat(1_000_000)), "+OK\r\n");
    client.send(&pipeline(&["GET a"; 20]));
    client.send(&command("ECHO end"));
    let one = format!("$1000000\r\n{}\r\n", "x".repeat(1_000_000));
    (0..20).for_each(|_| client.expect(&one));
    client.expect("$3\r\nend\r\n");
}

#[test]
fn refusals_and_unknown_outcomes_are_told_apart() {
    let server = Server::start();
    let mut client = server.client();
    let cases = [
        (Failure::Refused(Refusal::Busy), "-BUSY "),
        (Failure::Refused(Refusal::DiskFull), "-DISKFULL "),
        (Failure::Refused(Refusal::NotReady), "-TRYAGAIN "),
        (Failure::Unknown, "-UNKNOWN the write may or may not have been applied"),
    ];
    for (failure, expected) in cases {
        server.state(|state| state.failure = Some(failure));
        client.send(&pipeline(&["SET a 1", "INCR b", "PING"]));
        for _ in 0..2 {
            let line = client.line();
            assert!(line.starts_with(expected), "{line}");
        }
        client.expect("+PONG\r\n");
    }
    client.send(&pipeline(&["GET a", "GET b"]));
    assert!(client.line().starts_with("-TRYAGAIN "));
    assert!(client.line().starts_with("-TRYAGAIN "));
}

#[test]
fn keys_expire_though_nobody_writes() {
    let server = Server::start();
    let mut client = server.client();
    client.ask("SET a 1 PX 50", "+OK\r\n");
    let deadline = Instant::now() + PATIENCE;
    loop {
        client.send(&command("GET a"));
        if client.line() == "$-1\r\n" {
            break;
        }
        client.expect("1\r\n");
        assert!(Instant::now() < deadline, "the key does not expire");
    }
    client.ask("EXISTS a", ":0\r\n");
    assert_eq!(server.state(|state| state.batches.clone()), [1, 1]);
}

/// The time could not be told for want of room, and reads of whatever expires failed with DISKFULL
/// for as long as the disk was full.
#[test]
fn keys_with_expiry_are_read_while_nothing_can_be_written() {
    for (refusal, code) in [(Refusal::DiskFull, "-DISKFULL "), (Refusal::Busy, "-BUSY ")] {
        let server = Server::start();
        let mut client = server.client();
        client.ask("SET a 1 PX 10", "+OK\r\n");
        server.state(|state| state.refusal = Some(refusal));
        let refused = || server.state(|state| state.refused);
        let deadline = Instant::now() + PATIENCE;
        while refused() == 0 {
            client.ask("GET a", "$1\r\n1\r\n");
            assert!(Instant::now() < deadline, "nobody asks for the time");
        }
        client.send(&pipeline(&["EXISTS a", "SCAN 0 COUNT 9999", "MGET a", "GET a"]));
        client.expect(":1\r\n*2\r\n$1\r\n0\r\n*1\r\n$1\r\na\r\n*1\r\n$1\r\n1\r\n$1\r\n1\r\n");
        // Asked for once by each query.
        assert_eq!(refused(), 2);
        client.send(&command("SET b 1"));
        assert!(client.line().starts_with(code));
        server.state(|state| state.refusal = None);
        client.ask("GET a", "$-1\r\n");
    }
    // Whoever leads nobody knows whether there was another write.
    let server = Server::start();
    let mut client = server.client();
    client.ask("SET a 1 PX 1", "+OK\r\n");
    server.state(|state| state.refusal = Some(Refusal::NotReady));
    let deadline = Instant::now() + PATIENCE;
    loop {
        client.send(&command("GET a"));
        if client.line().starts_with("-TRYAGAIN ") {
            break;
        }
        client.expect("1\r\n");
        assert!(Instant::now() < deadline, "nobody asks for the time");
    }
}

/// MULTI was refused, and what stood behind it was performed as it came: a client library's pipeline
/// that was meant to be one transaction was half of one.
#[test]
fn nothing_of_a_transaction_is_performed() {
    let server = Server::start();
    let mut client = server.client();
    client.send(&pipeline(&["SET a 1", "MULTI", "SET a 9", "GET a", "MULTI", "NONE", "EXEC"]));
    client.send(&pipeline(&["GET a", "MULTI", "INCR a", "DISCARD", "INCR a", "EXEC", "DISCARD"]));
    client.expect("+OK\r\n");
    let refused = "-ERR not performed: it is part of a transaction (MULTI), and there are none";
    for expected in [
        "-ERR MULTI: there are no transactions here; what follows is refused up to EXEC",
        refused,
        refused,
        refused,
        refused,
        "-EXECABORT there are no transactions here: nothing of it was performed",
    ] {
        let line = client.line();
        assert!(line.starts_with(expected), "{line}");
    }
    client.expect("$1\r\n1\r\n");
    for expected in ["-ERR MULTI: ", refused, "-ERR DISCARD: there are no transactions here"] {
        let line = client.line();
        assert!(line.starts_with(expected), "{line}");
    }
    client.expect(":2\r\n-ERR EXEC without MULTI\r\n-ERR DISCARD without MULTI\r\n");
    for line in ["WATCH a", "UNWATCH"] {
        client.ask(line, "-ERR no key is watched: there are no transactions here\r\n");
    }
    // Of one connection, and not for ever.
    client.ask("MULTI x", "-ERR wrong number of arguments for 'multi' command\r\n");
    client.send(&command("MULTI"));
    client.line();
    server.client().ask("GET a", "$1\r\n2\r\n");
    client.ask("QUIT", "+OK\r\n");
    assert_eq!(server.state(|state| state.batches.clone()), [1, 1]);
}

fn greeting(head: &str, protocol: u8) -> String {
    format!(
        "{head}\r\n$6\r\nserver\r\n$7\r\nlakebed\r\n$7\r\nversion\r\n${}\r\n{}\r\n$4\r\nmode\r\n\
         $10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$5\r\nproto\r\n:{protocol}\r\n$2\r\nid\r\n:1\r\n\
         $7\r\nmodules\r\n*0\r\n",
        env!("CARGO_PKG_VERSION").len(),
        env!("CARGO_PKG_VERSION"),
    )
}

/// Client libraries ask for it by default, and two of the most used did not connect without.
#[test]
fn who_asks_for_the_third_protocol_is_answered_in_it() {
    let server = Server::start();
    let (mut client, mut other) = (server.client(), server.client());
    let absent = ["GET none", "MGET a none", "SET a 2 NX", "SET none 2 XX", "CONFIG GET save"];
    client.send(&pipeline(&["SET a $-1", "GET none", "HELLO 3"]));
    client.send(&pipeline(&absent));
    client.send(&pipeline(&["GET a", "HELLO", "COMMAND DOCS", "HELLO 4", "DBSIZE"]));
    client.expect(&format!("+OK\r\n$-1\r\n{}", greeting("%7", 3)));
    client.expect("_\r\n*2\r\n$3\r\n$-1\r\n_\r\n_\r\n_\r\n%1\r\n$4\r\nsave\r\n$0\r\n\r\n");
    client.expect(&format!("$3\r\n$-1\r\n{}%0\r\n", greeting("%7", 3)));
    client.expect("-NOPROTO unsupported protocol version\r\n:1\r\n");
    // Of one connection, and until it asks for the other one, or to be as new.
    let plain = "$-1\r\n*2\r\n$3\r\n$-1\r\n$-1\r\n$-1\r\n$-1\r\n*2\r\n$4\r\nsave\r\n$0\r\n\r\n";
    other.send(&pipeline(&absent));
    other.expect(plain);
    client.send(&pipeline(&["GET none", "HELLO 2", "GET none", "HELLO 3", "GET none", "RESET"]));
    client.send(&pipeline(&absent));
    client.expect(&format!("_\r\n{}$-1\r\n", greeting("*14", 2)));
    client.expect(&format!("{}_\r\n+RESET\r\n{plain}", greeting("%7", 3)));
    // What does not fit into one answer of the machine, and a session's write.
    let value = "x".repeat(1_000_000);
    client.ask(&format!("SET large {value}"), "+OK\r\n");
    client.ask("HELLO 3", &greeting("%7", 3));
    client.send(&pipeline(&["MGET none large none"; 4]));
    let one = format!("*3\r\n_\r\n$1000000\r\n{value}\r\n_\r\n");
    (0..4).for_each(|_| client.expect(&one));
    client.send(&command("LAKEBED SESSION OPEN"));
    client.line();
    let name = client.line();
    let again = format!("LAKEBED SESSION DO {} 1 SET a 2 NX", name.trim());
    client.ask(&again, "_\r\n");
    other.ask(&again, "$-1\r\n");
    // A transaction that was refused has ended, too.
    client.send(&command("MULTI"));
    client.line();
    client.send(&pipeline(&["RESET", "GET none"]));
    client.expect("+RESET\r\n$-1\r\n");
}

#[test]
fn quit_is_answered_and_what_follows_is_not() {
    let server = Server::start();
    let mut client = server.client();
    client.send(&pipeline(&["PING", "QUIT", "PING"]));
    client.0.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.rest(), "+PONG\r\n+OK\r\n");
}

#[test]
fn info_and_digest_describe_the_node_and_its_state() {
    let server = Server::start();
    let mut client = server.client();
    client.send(&command("INFO"));
    let len: usize = client.line()[1..].trim().parse().unwrap();
    let mut text = vec![0; len + 2];
    client.0.read_exact(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("\r\nnode:7\r\nrole:leader\r\n"), "{text}");
    client.ask("SET a 1", "+OK\r\n");
    let digest = server.state(|state| state.kv.machine().digest());
    client.ask("LAKEBED DIGEST", &format!("*2\r\n:1\r\n$64\r\n{digest}\r\n"));
}

#[test]
fn a_client_too_many_is_turned_away() {
    let server = Server::with(Limits { clients_max: 1, ..Limits::default() });
    let mut first = server.client();
    first.ask("PING", "+PONG\r\n");
    assert_eq!(server.client().rest(), "-ERR max number of clients reached\r\n");
    first.ask("PING", "+PONG\r\n");
    first.ask("QUIT", "+OK\r\n");
    drop(first);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut next = server.client();
        next.send(&command("PING"));
        if next.line() == "+PONG\r\n" {
            break;
        }
        assert!(Instant::now() < deadline, "the place is not given again");
    }
}

/// Clients whose machine or network went held their places for ever. What the kernel's own table says
/// of the connection: the timer that runs is the one that asks.
#[test]
#[cfg(target_os = "linux")]
fn a_client_that_says_nothing_is_asked_whether_it_is_there() {
    const KEEPALIVE: &str = "02:";
    let server = Server::start();
    let mut client = server.client();
    client.ask("PING", "+PONG\r\n");
    let end = |port: u16| format!("0100007F:{port:04X}");
    let ends = [server.address.port(), client.0.local_addr().unwrap().port()].map(end);
    let timer = || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let line = lines.find(|words| words[1..3] == ends).expect("it is connected");
        line[5].to_string()
    };
    // Until the client's system has acknowledged the answer another timer runs.
    let deadline = Instant::now() + PATIENCE;
    while !timer().starts_with(KEEPALIVE) {
        assert!(Instant::now() < deadline, "nobody asks: {}", timer());
        thread::yield_now();
    }
}

#[test]
fn a_server_that_stops_lets_go_of_everybody() {
    let mut server = Server::start();
    let (mut idle, mut half) = (server.client(), server.client());
    idle.ask("PING", "+PONG\r\n");
    half.ask("SET a 1", "+OK\r\n");
    half.send(b"*1\r\n$4\r\nPI");
    server.stop();
    assert_eq!(idle.rest(), "");
    assert_eq!(half.rest(), "");
    assert!(TcpStream::connect(server.address).is_err());
}

/// Any bytes were an address: INFO had one line more, and members that nobody had added.
#[test]
fn an_address_that_cannot_be_kept_is_refused() {
    let server = Server::start();
    let member = |id, address: &'static str| Member {
        id: NodeId(id),
        incarnation: 0,
        address: Bytes::from_static(address.as_bytes()),
    };
    server.state(|state| {
        state.members = Arc::new(Membership::of([member(1, "a:1"), member(2, "b:1")]))
    });
    let mut client = server.client();
    for (step, why) in [
        ("MOVE 2 127.0.0.1:7870\r\nrole:king,5@x", "HOST:PORT"),
        ("ADD 3 c:1,5@x:1", "HOST:PORT"),
        ("MOVE 2 b:0", "ports begin at 1"),
        ("MOVE 2 a:1", "node 1 has the address that node 2 is given"),
    ] {
        client.send(&command(&format!("LAKEBED CHANGE {step}")));
        let reply = client.line();
        assert!(reply.starts_with("-ERR ") && reply.contains(why), "{step:?}: {reply}");
    }
    assert_eq!(server.state(|state| state.orders.clone()), [], "the node was ordered nothing");
    client.ask("LAKEBED CHANGE MOVE 2 c:1", "+3.9\r\n");
}

#[test]
fn a_backup_is_read_in_pieces_and_given_back() {
    let server = Server::start();
    let mut client = server.client();
    client.ask("LAKEBED SNAPSHOT", "+3.9\r\n");
    client.ask("LAKEBED BACKUP READ 0 4", "-ERR no backup was begun on this connection\r\n");
    client.ask("LAKEBED BACKUP BEGIN", "*2\r\n$12\r\nsnapshot-9-3\r\n:10\r\n");
    // Writes before it and reads behind it are answered in their order.
    client.send(&pipeline(&["SET a 1", "lakebed backup read 0 4", "GET a"]));
    client.expect("+OK\r\n$4\r\n0123\r\n$1\r\n1\r\n");
    client.ask("LAKEBED BACKUP READ 8 4", "$2\r\n89\r\n");
    client.ask("LAKEBED BACKUP READ 10 4", "$0\r\n\r\n");
    client.ask("LAKEBED BACKUP END", "+OK\r\n");
    client.ask("LAKEBED BACKUP END", "-ERR no backup was begun on this connection\r\n");
    let file = File::Snapshot(LogId::new(Term(3), LogIndex(9)));
    let read = |offset| Control::ReadPinned { file, offset, len: 4 };
    let expected = [
        Control::Snapshot,
        Control::PinSnapshot,
        read(0),
        read(8),
        read(10),
        Control::Unpin { file },
    ];
    assert_eq!(server.state(|state| state.orders.clone()), expected);
}

/// However a connection ends, and if it begins another backup, what it kept is given back.
#[test]
fn a_backup_is_given_back_by_the_end_of_its_connection() {
    let file = File::Snapshot(LogId::new(Term(3), LogIndex(9)));
    let unpinned = |server: &Server| {
        server.state(|state| {
            state.orders.iter().filter(|order| **order == Control::Unpin { file }).count()
        })
    };
    let mut server = Server::start();
    let begun = "*2\r\n$12\r\nsnapshot-9-3\r\n:10\r\n";
    let mut clients: Vec<_> = (0..3).map(|_| server.client()).collect();
    clients.iter_mut().for_each(|client| client.ask("LAKEBED BACKUP BEGIN", begun));
    clients[0].ask("LAKEBED BACKUP BEGIN", begun);
    assert_eq!(unpinned(&server), 1, "the first of it");
    clients[0].send(b"$nonsense\r\n");
    assert!(clients[0].rest().starts_with("-ERR "));
    clients[1].ask("QUIT", "+OK\r\n");
    assert_eq!(clients[1].rest(), "");
    drop(clients);
    server.stop();
    assert_eq!(unpinned(&server), 4, "told off, left by itself, gone");
}

#[test]
fn a_write_of_a_session_is_applied_once_and_answered_alike() {
    let server = Server::start();
    let mut client = server.client();
    client.send(&command("LAKEBED SESSION OPEN"));
    client.line();
    let name = client.line();
    let name = name.trim();
    let ask = |client: &mut Client, line: &str, expected: &str| {
        client.ask(&format!("LAKEBED SESSION {}", line.replace("NAME", name)), expected);
    };
    ask(&mut client, "DO NAME 1 INCR n", ":1\r\n");
    ask(&mut client, "DO NAME 1 INCR n", ":1\r\n");
    // Another connection, perhaps to another node.
    let mut other = server.client();
    ask(&mut other, "do NAME 1 INCR n", ":1\r\n");
    ask(&mut other, "DO NAME 2 MSET n 5 m 6", "+OK\r\n");
    client.ask("INCR n", ":6\r\n");
    ask(&mut client, "DO NAME 2 MSET n 5 m 6", "+OK\r\n");
    ask(&mut client, "DO NAME 3 INCR m", ":7\r\n");
    client.ask("GET n", "$1\r\n6\r\n");
    // A write that fails is answered alike, too; one that cannot be performed takes no number.
    ask(&mut client, "DO NAME 4 SET s text", "+OK\r\n");
    let failed = "-ERR value is not an integer or out of range\r\n";
    ask(&mut client, "DO NAME 5 INCR s", failed);
    client.ask("SET s 1", "+OK\r\n");
    ask(&mut client, "DO NAME 5 INCR s", failed);
    ask(&mut client, "DO NAME 6 SET s", "-ERR wrong number of arguments for 'set' command\r\n");
    ask(&mut client, "DO NAME 6 INCR s", ":2\r\n");
    ask(&mut client, "CLOSE NAME", "+OK\r\n");
}

#[test]
fn what_is_wrong_with_a_session_is_said() {
    let server = Server::start();
    let mut client = server.client();
    client.send(&command("LAKEBED SESSION OPEN"));
    client.line();
    let name = client.line();
    let name = name.trim();
    let mut says = |line: &str, expected: &str| {
        client.send(&command(&format!("LAKEBED SESSION {}", line.replace("NAME", name))));
        let answer = client.line();
        assert!(answer.starts_with(expected), "{line}: {answer}");
    };
    says("DO NAME 2 INCR n", "-OUTOFORDER not applied: the session's next command is 1");
    for n in 1..=17 {
        says(&format!("DO NAME {n} INCR n"), &format!(":{n}\r\n"));
    }
    says("DO NAME 1 INCR n", "-REPLAYED applied before, once, and its answer is not kept");
    says("DO NAME 2 INCR n", ":2\r\n");
    says("DO 9-1 1 INCR n", "-NOSESSION no such session was ever opened here");
    says("DO 1-1 1 INCR n", "-NOSESSION ");
    says("CLOSE NAME", "+OK");
    says("CLOSE NAME", "-EXPIRED the session has ended");
    says("DO NAME 18 INCR n", "-EXPIRED ");
    for wrong in ["", "OPEN x y", "CLOSE", "DO NAME 1", "DO", "CLOSE NAME x"] {
        says(wrong, "-ERR LAKEBED SESSION knows OPEN [key], DO session number write");
    }
    says("DO x 1 INCR n", "-ERR a session's name is what LAKEBED SESSION OPEN answered");
    says("CLOSE 1", "-ERR a session's name");
    says("DO NAME 0 INCR n", "-ERR a session's writes are numbered");
    says("DO NAME x INCR n", "-ERR a session's writes are numbered");
    for line in ["GET n", "PING", "INFO", "QUIT", "LAKEBED DIGEST", "LAKEBED SESSION OPEN"] {
        says(&format!("DO NAME 18 {line}"), "-ERR a session's command is a write");
    }
    says("DO NAME 18 NONSENSE", "-ERR unknown command 'nonsense'");
    server.state(|state| state.failure = Some(Failure::Unknown));
    says("DO NAME 18 INCR n", "-UNKNOWN applied, or not: send it again with the same number");
    server.state(|state| state.failure = Some(Failure::Refused(Refusal::Busy)));
    says("OPEN", "-BUSY ");
}
