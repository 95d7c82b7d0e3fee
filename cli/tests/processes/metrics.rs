//! `serve --metrics` and `up --metrics-port`, scraped as Prometheus does it.

use crate::{
    common::{
        PATIENCE, Patient, Process, Scratch, connect, eventually, fails, lakebed, local, loopback,
        output,
    },
    lone::Lone,
    ports::ports,
};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
};

/// What is answered to these bytes.
fn asked(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(loopback(port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn scraped(port: u16) -> String {
    let answer = asked(port, "GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4"), "{head}");
    assert!(head.contains(&format!("\r\nContent-Length: {}", body.len())), "{head}");
    body.into()
}

/// The value of this series.
#[track_caller]
fn value(page: &str, series: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} is not in:\n{page}")).parse().unwrap()
}

/// A node, the port of its metrics, and its process.
fn watched() -> (Lone, u16, Process) {
    let (lone, metrics) = (Lone::unborn(), ports(1));
    let address = local(metrics);
    let flags = lone.flags();
    let flags: Vec<_> = flags.iter().map(String::as_str).chain(["--metrics", &address]).collect();
    let node = Process::start(&mut lakebed(&flags));
    node.says("ready");
    (lone, metrics, node)
}

/// Sessions noted what they met, and nobody was told: the engine does not know of them.
#[test]
fn what_sessions_meet_is_told() {
    let (lone, metrics, _node) = watched();
    let mut client = Patient::new(lone.clients);
    let session: String = client.ask(&["LAKEBED", "SESSION", "OPEN"]);
    let incr = |number: &str| {
        let words = ["LAKEBED", "SESSION", "DO", &session, number, "INCR", "n"];
        redis::cmd(words[0]).arg(&words[1..]).query(&mut connect(lone.clients).unwrap())
    };
    assert_eq!(incr("1"), Ok(1));
    let mark = |mark: &str| format!("lakebed_mark{{node=\"1\",mark=\"{mark}\"}} 1.0");
    let (retry, early) = (mark("SessionRetryAnswered"), mark("SessionOutOfOrder"));
    assert!(!scraped(metrics).contains("mark=\"Session"));
    assert_eq!(incr("1"), Ok(1));
    let page = scraped(metrics);
    assert!(page.contains(&retry) && !page.contains(&early), "{page}");
    assert_eq!(incr("3").unwrap_err().code(), Some("OUTOFORDER"));
    let page = scraped(metrics);
    assert!(page.contains(&retry) && page.contains(&early), "{page}");
    let info: String = client.ask(&["INFO"]);
    let marks = info.lines().find(|line| line.starts_with("marks:")).unwrap();
    assert!(marks.contains("SessionRetryAnswered,SessionOutOfOrder"), "{marks}");
}

#[test]
fn a_node_is_scraped() {
    let (lone, metrics, _node) = watched();
    // One who says nothing does not keep others waiting.
    let silent = TcpStream::connect(loopback(metrics)).unwrap();
    let mut client = Patient::new(lone.clients);
    for n in 0..20 {
        let _: String = client.ask(&["SET", &format!("key{n}"), "value"]);
    }
    let _: String = client.ask(&["GET", "key1"]);
    let page = scraped(metrics);
    for (series, least) in [
        ("lakebed_up{node=\"1\"}", 1.0),
        ("lakebed_ready{node=\"1\"}", 1.0),
        ("lakebed_leader{node=\"1\"}", 1.0),
        ("lakebed_term{node=\"1\"}", 1.0),
        ("lakebed_applied_index{node=\"1\"}", 20.0),
        ("lakebed_commands_total{node=\"1\"}", 20.0),
        ("lakebed_queries_total{node=\"1\"}", 1.0),
        ("lakebed_disk_free_bytes{node=\"1\"}", 1.0),
        ("lakebed_disk_write_seconds_count{node=\"1\"}", 20.0),
        ("lakebed_disk_written_bytes_total{node=\"1\"}", 20.0 * 4096.0),
        ("lakebed_recovery_phase{node=\"1\",phase=\"ready\"}", 1.0),
    ] {
        assert!(value(&page, series) >= least, "{series} in\n{page}");
    }
    let _: String = client.ask(&["SET", "another", "value"]);
    let commands = "lakebed_commands_total{node=\"1\"}";
    assert!(value(&scraped(metrics), commands) > value(&page, commands));

    for (request, expected) in [
        ("GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
        ("POST /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
        ("SET key value\r\n\r\n", "400 Bad Request"),
    ] {
        assert!(asked(metrics, request).contains(expected), "{request:?}");
    }
    drop(silent);

    // The same in words.
    let told = output(&["status", &local(lone.clients)]).stdout;
    let told = String::from_utf8(told).unwrap();
    for expected in ["disk       ", " free\n", " durable writes, ", "recovery   ready"] {
        assert!(told.contains(expected), "{told}");
    }
    assert!(told.lines().all(|line| line.chars().count() <= 80), "{told}");
}

#[test]
fn a_cluster_is_scraped_at_one_port() {
    let (scratch, metrics) = (Scratch::new(), ports(1));
    let (clients, peers) = (ports(3), ports(3));
    let line = format!(
        "up --dir {} --port {clients} --peer-port {peers} --metrics-port {metrics}",
        scratch.path().display()
    );
    let cluster = Process::start(&mut lakebed(&line.split(' ').collect::<Vec<_>>()));
    cluster.says("ready");
    let _: String = Patient::new(clients).ask(&["SET", "key", "value"]);
    let leads = |page: &str, node: u64| value(page, &format!("lakebed_leader{{node=\"{node}\"}}"));
    let mut page = String::new();
    eventually("one node leads", || {
        page = scraped(metrics);
        (1..=3).map(|node| leads(&page, node)).sum::<f64>() == 1.0
    });
    let leader = (1..=3).find(|node| leads(&page, *node) == 1.0).unwrap();
    for peer in (1..=3).filter(|peer| *peer != leader) {
        let lag = format!("lakebed_replication_lag{{node=\"{leader}\",peer=\"{peer}\"}}");
        eventually("the peer catches up", || value(&scraped(metrics), &lag) == 0.0);
        let silent = format!("lakebed_peer_silent_seconds{{node=\"{leader}\",peer=\"{peer}\"}}");
        assert!(value(&page, &silent) < 60.0);
    }
}

/// A node that ends while others of its process go on.
#[test]
fn a_leader_that_has_ended_is_told_as_down() {
    let (scratch, metrics) = (Scratch::new(), ports(1));
    let (clients, peers) = (ports(3), ports(3));
    let line = format!(
        "up --dir {} --port {clients} --peer-port {peers} --metrics-port {metrics}",
        scratch.path().display()
    );
    let cluster = Process::start(&mut lakebed(&line.split(' ').collect::<Vec<_>>()));
    cluster.says("ready");
    let of = |page: &str, what: &str, node: u64| {
        value(page, &format!("lakebed_{what}{{node=\"{node}\"}}"))
    };
    let mut removed = 0;
    eventually("the leader is removed", || {
        let page = scraped(metrics);
        let leads = (1..=3).find(|node| of(&page, "leader", *node) == 1.0);
        removed = leads.unwrap_or(removed);
        let address = local(clients + removed.max(1) as u16 - 1);
        leads.is_some()
            && output(&["member", "remove", &address, &removed.to_string()]).status.success()
    });
    let mut page = String::new();
    eventually("another one leads", || {
        page = scraped(metrics);
        (1..=3).any(|node| node != removed && of(&page, "leader", node) == 1.0)
    });
    assert_eq!((of(&page, "up", removed), of(&page, "leader", removed)), (0.0, 0.0), "{page}");
    assert!(!page.contains(&format!("lakebed_ready{{node=\"{removed}\"}}")), "{page}");
}

#[test]
fn metrics_go_nowhere_else_unasked() {
    let lone = Lone::unborn();
    let flags = lone.flags();
    let with = |address: &str| {
        let flags = flags.iter().cloned().chain(["--metrics".into(), address.into()]);
        flags.collect::<Vec<String>>()
    };
    let refused = |address: &str, code, expected: &[&str]| {
        let flags = with(address);
        fails(&flags.iter().map(String::as_str).collect::<Vec<_>>(), code, expected);
    };
    refused("0.0.0.0:9000", 2, &["--metrics 0.0.0.0:9000", "--insecure"]);
    let clients = local(lone.clients);
    refused(&clients, 2, &["--resp and --metrics are both", &clients]);
    let held = TcpListener::bind(loopback(ports(1))).unwrap();
    let taken = held.local_addr().unwrap().to_string();
    refused(&taken, 1, &["for metrics", "in use", "--metrics"]);
    let (clients, dir) = (ports(3), Scratch::new());
    let line = format!(
        "up --dir {} --port {clients} --metrics-port {}",
        dir.path().display(),
        clients + 1
    );
    fails(&line.split(' ').collect::<Vec<_>>(), 2, &["would be for metrics and for clients"]);
}
