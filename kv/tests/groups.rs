//! Keys spread over several groups: the server over a loopback socket, a machine for each group.

use bytes::{Buf, Bytes};
use lakebed::{
    Batch, LogId, LogIndex, Member, Membership, NodeId, ReadMode, StateMachine, Status, Term,
    Timestamp,
};
use lakebed_kv::{
    Served,
    serve::{Failure, Limits, Store, Stores, serve},
    slots::{Slots, slot},
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(20);
const GROUPS: usize = 4;

/// A group that has one machine and no log.
#[derive(Clone, Default)]
struct Single(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    kv: Served,
    index: u64,
    time: u64,
    /// How many commands each batch had.
    batches: Vec<u32>,
    reads: usize,
    /// How the last was to be read.
    mode: Option<ReadMode>,
    has_failed: bool,
    members: Arc<Membership>,
}

impl Store for Single {
    async fn propose(&self, batch: Batch, out: &mut Vec<u8>) -> Result<(), Failure> {
        let mut state = self.0.lock().unwrap();
        if state.has_failed {
            return Err(Failure::Unknown);
        }
        state.batches.push(batch.count());
        let mut body = batch.body();
        while !body.is_empty() {
            let len = body.get_u32_le() as usize;
            state.index += 1;
            let at = LogId::new(Term(1), LogIndex(state.index));
            let time = Timestamp(state.time);
            state.kv.apply(at, time, &body[..len], out);
            body.advance(len);
        }
        Ok(())
    }

    async fn read(&self, query: &[u8], mode: ReadMode) -> Result<Bytes, Failure> {
        let mut state = self.0.lock().unwrap();
        state.reads += 1;
        state.mode = Some(mode);
        if state.has_failed {
            return Err(Failure::Unknown);
        }
        let mut answer = Vec::new();
        state.kv.query(query, &mut answer);
        Ok(answer.into())
    }

    async fn status(&self) -> Result<Status, Failure> {
        let mut status = Status::default();
        status.node = NodeId(7);
        let state = self.0.lock().unwrap();
        status.applied = LogIndex(state.index);
        status.members = Arc::clone(&state.members);
        Ok(status)
    }
}

struct Server {
    groups: Vec<Single>,
    client: TcpStream,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl Server {
    async fn start(groups: usize) -> Self {
        let groups: Vec<_> = (0..groups).map(|_| Single::default()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        let stores = Stores::from(groups.clone());
        let served = tokio::spawn(serve(listener, stores, Limits::default(), async {
            drop(stopped.await);
        }));
        Self { groups, client, stop, served }
    }

    async fn send(&mut self, lines: &[String]) {
        let mut bytes = Vec::new();
        for line in lines {
            let words: Vec<_> = line.split(' ').collect();
            bytes.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
            for word in words {
                bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
            }
        }
        self.client.write_all(&bytes).await.unwrap();
    }

    async fn hear(&mut self, expected: &str) {
        let mut heard = vec![0; expected.len()];
        timeout(PATIENCE, self.client.read_exact(&mut heard)).await.unwrap().unwrap();
        assert_eq!(String::from_utf8_lossy(&heard), expected);
    }

    /// What is answered to one line: as much as one read brings.
    async fn ask(&mut self, line: &str) -> String {
        self.send(&[line.into()]).await;
        let mut heard = vec![0; 64 << 10];
        let len = timeout(PATIENCE, self.client.read(&mut heard)).await.unwrap().unwrap();
        heard.truncate(len);
        String::from_utf8(heard).unwrap()
    }

    async fn stop(self) {
        drop((self.client, self.stop));
        timeout(PATIENCE, self.served).await.unwrap().unwrap();
    }
}

/// A key of each group.
fn keys() -> Vec<String> {
    keys_of(GROUPS)
}

/// The same, where there are so many.
fn keys_of(groups: usize) -> Vec<String> {
    let slots = Slots::over(groups);
    let of = |group: usize| move |key: &String| slots.group(slot(key.as_bytes())) == group;
    (0..groups).map(|group| (0..).map(|n| format!("k{n}")).find(of(group)).unwrap()).collect()
}

#[tokio::test]
async fn each_key_is_in_its_group_alone_and_pipelines_are_answered_in_order() {
    let mut server = Server::start(GROUPS).await;
    let sets: Vec<_> = (0..400).map(|n| format!("SET key{n} {n}")).collect();
    server.send(&sets).await;
    server.hear(&"+OK\r\n".repeat(400)).await;
    let mut asked: Vec<_> = (0..400).map(|n| format!("GET key{n}")).collect();
    asked.push("GET none".into());
    server.send(&asked).await;
    let values = (0..400).map(|n| format!("${}\r\n{n}\r\n", n.to_string().len()));
    server.hear(&(values.collect::<String>() + "$-1\r\n")).await;
    let slots = Slots::over(GROUPS);
    for (group, single) in server.groups.iter().enumerate() {
        let own = (0..400).filter(|n| slots.group(slot(format!("key{n}").as_bytes())) == group);
        let state = single.0.lock().unwrap();
        assert_eq!(state.index, own.count() as u64, "group {group}");
        // A pipeline is a batch and a query for each group: as often as it was read in pieces.
        assert!(state.batches.len() < 40 && state.reads < 40, "{:?}", state.batches);
    }
    assert_eq!(server.ask("DBSIZE").await, ":400\r\n");
    server.stop().await;
}

/// What a client sends behind a write of the same key sees it, whatever stands between.
#[tokio::test]
async fn reads_behind_writes_see_them_in_every_group() {
    let mut server = Server::start(GROUPS).await;
    let (mut lines, mut expected) = (Vec::new(), String::new());
    for round in 0..10 {
        for key in keys() {
            lines.extend([format!("SET {key} {round}"), format!("GET {key}")]);
            expected += &format!("+OK\r\n$1\r\n{round}\r\n");
        }
    }
    server.send(&lines).await;
    server.hear(&expected).await;
    server.stop().await;
}

#[tokio::test]
async fn keys_of_several_groups_are_refused_and_those_of_one_are_not() {
    let mut server = Server::start(GROUPS).await;
    let [a, b] = [&keys()[0], &keys()[1]];
    let crossing = "-CROSSSLOT Keys in request don't hash to the same slot\r\n";
    let several = ["DEL {a} {b}", "EXISTS {a} {b}", "MGET {b} {a}", "MSET {a} 1 {b} 2"];
    let written = ["MSETNX {a} 1 {b} 2", "RENAME {a} {b}", "RENAMENX {b} {a}"];
    for line in several.into_iter().chain(written) {
        let line = line.replace("{a}", a).replace("{b}", b);
        assert_eq!(server.ask(&line).await, crossing, "{line}");
    }
    // What stands before it in the pipeline is done, and answered before it.
    server.send(&[format!("SET {a} 1"), format!("MGET {a} {b}"), format!("GET {a}")]).await;
    server.hear(&format!("+OK\r\n{crossing}$1\r\n1\r\n")).await;
    assert_eq!(server.ask(&format!("MSET x{{{a}}} 1 y{{{a}}} 2")).await, "+OK\r\n");
    let found = server.ask(&format!("MGET {a} x{{{a}}} y{{{a}}}")).await;
    assert_eq!(found, "*3\r\n$1\r\n1\r\n$1\r\n1\r\n$1\r\n2\r\n");
    server.stop().await;
}

#[tokio::test]
async fn a_scan_goes_through_all_groups_and_finds_each_key_once() {
    let mut server = Server::start(GROUPS).await;
    let sets: Vec<_> = (0..100).map(|n| format!("SET key{n} {n}")).collect();
    server.send(&sets).await;
    server.hear(&"+OK\r\n".repeat(100)).await;
    let (mut cursor, mut found) = ("0".to_string(), Vec::new());
    loop {
        let page = server.ask(&format!("SCAN {cursor} MATCH key* COUNT 7")).await;
        let mut lines = page.split("\r\n").filter(|line| !line.starts_with(['*', '$']));
        cursor = lines.next().unwrap().into();
        found.extend(lines.filter(|line| !line.is_empty()).map(String::from));
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(found.len(), 100);
    assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), 100);
    let beyond = server.ask(&format!("SCAN {}", u64::MAX)).await;
    assert_eq!(beyond, "*2\r\n$1\r\n0\r\n*0\r\n");
    server.stop().await;
}

/// Without writes a scan listed for ever what had expired.
#[tokio::test]
async fn a_scan_leaves_out_what_has_expired_though_nobody_writes() {
    let mut server = Server::start(GROUPS).await;
    let keys = keys();
    server.send(&keys.iter().map(|key| format!("SET {key} v PX 1000")).collect::<Vec<_>>()).await;
    server.hear(&"+OK\r\n".repeat(GROUPS)).await;
    for single in &server.groups {
        single.0.lock().unwrap().time = 1_000_000_000;
    }
    for group in 0..GROUPS as u64 {
        let next = if group + 1 == GROUPS as u64 { 0 } else { (group + 1) << 32 };
        let next = next.to_string();
        let page = server.ask(&format!("SCAN {} COUNT 9999", group << 32)).await;
        assert_eq!(page, format!("*2\r\n${}\r\n{next}\r\n*0\r\n", next.len()));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_session_is_of_the_group_of_its_key() {
    let mut server = Server::start(GROUPS).await;
    let [a, b] = [&keys()[1], &keys()[2]];
    let refused = server.ask("LAKEBED SESSION OPEN").await;
    assert!(refused.starts_with("-ERR the keys are spread over 4 groups"), "{refused}");
    let opened = server.ask(&format!("LAKEBED SESSION OPEN {a}")).await;
    let name = opened.split("\r\n").nth(1).unwrap();
    assert!(name.starts_with("2:"), "{opened}");
    for _ in 0..2 {
        let line = format!("LAKEBED SESSION DO {name} 1 INCR {a}");
        assert_eq!(server.ask(&line).await, ":1\r\n");
    }
    let elsewhere = server.ask(&format!("LAKEBED SESSION DO {name} 2 INCR {b}")).await;
    assert!(elsewhere.starts_with("-CROSSSLOT "), "{elsewhere}");
    let bare = name.split_once(':').unwrap().1;
    let unnamed = server.ask(&format!("LAKEBED SESSION DO {bare} 2 INCR {a}")).await;
    assert!(unnamed.starts_with("-NOSESSION "), "{unnamed}");
    assert_eq!(server.ask(&format!("LAKEBED SESSION CLOSE {name}")).await, "+OK\r\n");
    server.stop().await;
}

#[tokio::test]
async fn a_group_is_asked_by_its_number() {
    let mut server = Server::start(GROUPS).await;
    let key = &keys()[2];
    assert_eq!(server.ask(&format!("SET {key} 1")).await, "+OK\r\n");
    let info = server.ask("INFO").await;
    for line in ["node:7", "groups:4", "group1:slots=0-4095,", "group3:slots=8192-12287,"] {
        assert!(info.lines().any(|found| found.starts_with(line)), "{line}: {info}");
    }
    assert!(info.lines().any(|line| line.contains("group3:") && line.contains(",applied=1,")));
    assert!(server.ask("LAKEBED GROUP 3 INFO").await.contains("\r\napplied:1\r\n"));
    assert_eq!(server.ask("LAKEBED GROUP 3 DBSIZE").await.split(' ').next(), Some("-ERR"));
    assert!(server.ask("LAKEBED GROUP 3 DIGEST").await.starts_with("*2\r\n:1\r\n"));
    for line in ["LAKEBED DIGEST", "LAKEBED SNAPSHOT", "LAKEBED TRANSFER"] {
        let refused = server.ask(line).await;
        assert!(refused.contains("LAKEBED GROUP 1 DIGEST"), "{line}: {refused}");
    }
    let none = server.ask("LAKEBED GROUP 5 INFO").await;
    assert_eq!(none, "-ERR the groups are numbered 1 to 4\r\n");
    server.stop().await;
}

/// What is asked of several groups at once, or of all of them, is as old as what is asked of one.
#[tokio::test]
async fn a_client_reads_every_group_as_old_as_it_allows() {
    let mut server = Server::start(GROUPS).await;
    assert_eq!(server.ask("LAKEBED STALE 250").await, "+OK\r\n");
    let stale = ReadMode::Local { stale_max: Duration::from_millis(250) };
    let modes = |server: &Server| -> Vec<_> {
        server.groups.iter().map(|single| single.0.lock().unwrap().mode.take()).collect()
    };
    let gets: Vec<_> = keys().iter().map(|key| format!("GET {key}")).collect();
    server.send(&gets).await;
    server.hear(&"$-1\r\n".repeat(GROUPS)).await;
    assert_eq!(modes(&server), [Some(stale); GROUPS]);
    for line in ["DBSIZE", "KEYS *"] {
        server.ask(line).await;
        assert_eq!(modes(&server), [Some(stale); GROUPS], "{line}");
    }
    server.ask("SCAN 0").await;
    assert_eq!(modes(&server), [Some(stale), None, None, None]);
    assert_eq!(server.ask("LAKEBED STALE OFF").await, "+OK\r\n");
    server.ask("DBSIZE").await;
    assert_eq!(modes(&server), [Some(ReadMode::Lease); GROUPS]);
    server.stop().await;
}

/// The others answer, each command of the one that fails is told so.
#[tokio::test]
async fn a_group_that_fails_leaves_the_answers_of_the_others_in_their_places() {
    let mut server = Server::start(GROUPS).await;
    server.groups[1].0.lock().unwrap().has_failed = true;
    let keys = keys();
    server.send(&keys.iter().map(|key| format!("SET {key} v")).collect::<Vec<_>>()).await;
    let unknown = "-UNKNOWN the write may or may not have been applied: look before trying again";
    server.hear(&format!("+OK\r\n{unknown}\r\n+OK\r\n+OK\r\n")).await;
    server.send(&keys.iter().map(|key| format!("GET {key}")).collect::<Vec<_>>()).await;
    let failed = "-TRYAGAIN the node could not answer in time";
    server.hear(&format!("$1\r\nv\r\n{failed}\r\n$1\r\nv\r\n$1\r\nv\r\n")).await;
    assert!(server.ask("DBSIZE").await.starts_with("-TRYAGAIN "));
    server.stop().await;
}

/// In parts, so that nobody waits for it, and as one answer.
#[tokio::test]
async fn all_keys_are_told_once_or_it_is_said_that_they_are_too_many() {
    for groups in [1, GROUPS] {
        let mut server = Server::start(groups).await;
        assert_eq!(server.ask("KEYS *").await, "*0\r\n");
        let sets: Vec<_> = (0..5000).map(|n| format!("SET key{n} {n}")).collect();
        server.send(&sets).await;
        server.hear(&"+OK\r\n".repeat(5000)).await;
        assert_eq!(server.ask("KEYS *9999").await, "*0\r\n");
        assert_eq!(server.ask("KEYS key77").await, "*1\r\n$5\r\nkey77\r\n");
        server.send(&["KEYS key4*".into(), "ECHO behind".into()]).await;
        let expected: BTreeSet<_> =
            (0..5000).map(|n| format!("key{n}")).filter(|key| key.starts_with("key4")).collect();
        let mut told = Vec::new();
        let bytes = expected.iter().map(|key| key.len() + 6).sum::<usize>();
        told.resize(bytes + format!("*{}\r\n", expected.len()).len(), 0);
        timeout(PATIENCE, server.client.read_exact(&mut told)).await.unwrap().unwrap();
        let told = String::from_utf8(told).unwrap();
        let mut lines = told.split("\r\n");
        assert_eq!(lines.next().unwrap(), format!("*{}", expected.len()));
        let keys: BTreeSet<_> = lines.skip(1).step_by(2).map(String::from).collect();
        assert_eq!(keys, expected);
        server.hear("$6\r\nbehind\r\n").await;
        // Of 300 keys with 60 KB each, all are more than one answer holds, and half of them are not.
        let long = "x".repeat(60_000);
        for n in 0..300 {
            assert_eq!(server.ask(&format!("SET {}{n}{long} 1", n % 2)).await, "+OK\r\n");
        }
        let refused = "-ERR the answer exceeds 16 MiB: SCAN tells it in parts\r\n";
        assert_eq!(server.ask("KEYS *").await, refused);
        server.send(&["KEYS 0*".into()]).await;
        server.hear("*150\r\n$6000").await;
        server.stop().await;
    }
}

#[tokio::test]
async fn wait_tells_on_how_many_other_disks_every_write_is() {
    let member = |id| Member { id: NodeId(id), incarnation: 0, address: Bytes::new() };
    let of = |voters, outgoing| {
        let mut members = Membership::of((1..=voters).map(member));
        members.outgoing = (1..=outgoing).map(member).collect();
        members.learners = vec![member(9)];
        Arc::new(members)
    };
    let mut server = Server::start(1).await;
    for (voters, outgoing, expected) in
        [(0, 0, 0), (1, 0, 0), (2, 0, 1), (3, 0, 1), (4, 0, 2), (5, 0, 2), (5, 1, 0), (3, 5, 1)]
    {
        server.groups[0].0.lock().unwrap().members = of(voters, outgoing);
        assert_eq!(server.ask("WAIT 3 0").await, format!(":{expected}\r\n"));
    }
    server.stop().await;
    let mut server = Server::start(2).await;
    for (group, voters) in server.groups.iter().zip([5, 3]) {
        group.0.lock().unwrap().members = of(voters, 0);
    }
    assert_eq!(server.ask("WAIT 1 100").await, ":1\r\n");
    server.stop().await;
}

#[tokio::test]
async fn a_client_has_a_number_and_the_name_that_it_gives_itself() {
    let mut server = Server::start(1).await;
    assert_eq!(server.ask("CLIENT ID").await, ":1\r\n");
    assert_eq!(server.ask("CLIENT GETNAME").await, "$-1\r\n");
    assert_eq!(server.ask("CLIENT SETNAME one").await, "+OK\r\n");
    assert_eq!(server.ask("CLIENT GETNAME").await, "$3\r\none\r\n");
    assert!(server.ask("HELLO 2 SETNAME two").await.contains("$2\r\nid\r\n:1\r\n"));
    assert_eq!(server.ask("CLIENT GETNAME").await, "$3\r\ntwo\r\n");
    server.ask("HELLO 2").await;
    assert_eq!(server.ask("CLIENT GETNAME").await, "$3\r\ntwo\r\n");
    // What is no name takes none away.
    assert!(server.ask("CLIENT SETNAME \u{e9}").await.starts_with("-ERR Client names"));
    assert!(server.ask("HELLO 4 SETNAME three").await.starts_with("-NOPROTO"));
    assert_eq!(server.ask("CLIENT GETNAME").await, "$3\r\ntwo\r\n");
    let address = server.client.peer_addr().unwrap();
    let mut other = TcpStream::connect(address).await.unwrap();
    std::mem::swap(&mut other, &mut server.client);
    assert_eq!(server.ask("CLIENT ID").await, ":2\r\n");
    assert_eq!(server.ask("CLIENT GETNAME").await, "$-1\r\n");
    std::mem::swap(&mut other, &mut server.client);
    assert_eq!(server.ask("RESET").await, "+RESET\r\n");
    assert_eq!(server.ask("CLIENT GETNAME").await, "$-1\r\n");
    server.ask("CLIENT SETNAME one").await;
    assert_eq!(server.ask("CLIENT SETNAME ").await, "+OK\r\n");
    assert_eq!(server.ask("CLIENT GETNAME").await, "$-1\r\n");
    drop(other);
    server.stop().await;
}

/// By the log where that is ahead, as everything is that expires.
#[tokio::test]
async fn the_time_is_told_in_seconds_and_microseconds() {
    let mut server = Server::start(2).await;
    let ahead = u64::MAX / 2;
    server.groups[1].0.lock().unwrap().time = ahead;
    let of_second = &keys_of(2)[1];
    server.ask(&format!("SET {of_second} 1")).await;
    server.ask(&format!("GET {of_second}")).await;
    let told = server.ask("TIME").await;
    let words: Vec<_> = told.split("\r\n").collect();
    assert_eq!((words[0], words[1]), ("*2", "$10"), "{told}");
    let (seconds, micros): (u64, u64) = (words[2].parse().unwrap(), words[4].parse().unwrap());
    assert!(micros < 1_000_000, "{told}");
    let passed = seconds * 1_000_000 + micros - ahead / 1000;
    assert!(passed < PATIENCE.as_micros() as u64, "{told}");
    server.stop().await;
}
