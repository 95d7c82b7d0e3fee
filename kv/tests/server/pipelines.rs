//! Many commands at once, and what comes of each.

use super::*;

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
